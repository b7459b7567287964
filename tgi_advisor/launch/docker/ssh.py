"""An engine behind `ssh`, reached as the `docker` command reaches it: `ssh HOST docker system dial-stdio`.

Each connection is an ssh process with a pair of sockets for its standard streams, so that timeouts and hanging up
work as over a Unix socket. The SDK's own way cannot be had without paramiko, and its pipes know no timeout.
(cli/connhelper/connhelper.go and cli/connhelper/ssh/ssh.go of github.com/docker/cli@v27.3.1.)
"""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Sequence
from functools import cache
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from docker import APIClient
from docker.transport import UnixHTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from tgi_advisor.launch.verify import Ask, http

CONNECT_S = 30
"""Seconds in which ssh has to reach the host."""
END_S = 5.0
"""Seconds in which an ssh process has to end once it is told to."""


class Ssh:
    """The ssh processes of one engine."""

    def __init__(self, url: str) -> None:
        """ValueError for an address ssh cannot be asked for."""
        parts = urlsplit(url)
        if parts.password is not None:
            raise ValueError("ssh takes no password from an address; use a key, or an agent that holds it")
        if not parts.hostname or parts.query or parts.fragment:
            raise ValueError("an ssh address is ssh://[user@]host[:port][/path/of/docker.sock]")
        self._options = [
            "-o", f"ConnectTimeout={CONNECT_S}", "-T",
            *(["-l", parts.username] if parts.username else []),
            *(["-p", str(parts.port)] if parts.port else []),
        ]  # fmt: skip
        self._host = parts.hostname
        engine = ["--host", shlex.quote(f"unix://{parts.path}")] if parts.path.strip("/") else []
        self._docker = ["docker", *engine, "system", "dial-stdio"]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._errors = TemporaryFile()  # noqa: SIM115  (open as long as the processes are)

    def engine(self) -> socket.socket:
        """A connection to the engine."""
        return self._open([], self._docker)

    def port(self, number: int) -> socket.socket:
        """A connection to a port of the engine's machine."""
        return self._open(["-W", f"127.0.0.1:{number}"], [])

    def said(self) -> str:
        """The last line ssh or the shell behind it wrote; empty when neither complained."""
        self._errors.seek(0)
        lines = self._errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:  # noqa: PERF203
                process.kill()
                process.wait()
        self._processes = []
        self._errors.close()

    def _open(self, options: Sequence[str], command: Sequence[str]) -> socket.socket:
        self._processes = [process for process in self._processes if process.poll() is None]
        near, far = socket.socketpair()
        try:
            # A session of its own: neither Ctrl-C nor a closed terminal may cut off the tidying up that follows them.
            process = subprocess.Popen(  # noqa: S603  (an address is one word behind `--`, never an option)
                ["ssh", *self._options, *options, "--", self._host, *command],  # noqa: S607
                stdin=far.fileno(), stdout=far.fileno(), stderr=self._errors, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        self._processes.append(process)
        return near


class SshClient(APIClient):
    """The SDK's client, over ssh."""

    def __init__(self, ssh: Ssh, timeout: int) -> None:
        self.ssh = ssh
        self._over_ssh = _Adapter(self.ssh, timeout)
        super().__init__(base_url="unix:///over/ssh", version="auto", timeout=timeout)

    def get_adapter(self, url: str) -> Any:  # noqa: ARG002
        """The same for every address."""
        return self._over_ssh

    def close(self) -> None:
        """Close the connections and end their processes."""
        super().close()
        self._over_ssh.close()
        self.ssh.close()


class _Adapter(UnixHTTPAdapter):
    def __init__(self, ssh: Ssh, timeout: int) -> None:
        super().__init__("http+unix:///over/ssh", timeout)
        self._pool = _Pool(ssh, timeout)

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:  # noqa: ARG002
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


class _Pool(HTTPConnectionPool):
    def __init__(self, ssh: Ssh, timeout: int) -> None:
        super().__init__("localhost", timeout=timeout, maxsize=10)
        self._ssh = ssh
        self._seconds = timeout

    def _new_conn(self) -> _Connection:
        return _Connection(self._ssh, self._seconds)


class _Connection(HTTPConnection):
    def __init__(self, ssh: Ssh, timeout: int) -> None:
        super().__init__("localhost", timeout=timeout)
        self._ssh = ssh
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = self._ssh.engine()
        self.sock.settimeout(self._seconds)


@cache
def hostname(url: str) -> str | None:
    """What the host of an address is called outside ssh's configuration; None when ssh does not say."""
    parts = urlsplit(url)
    try:
        done = subprocess.run(  # noqa: S603
            ["ssh", "-G", "--", parts.hostname or ""], stdin=subprocess.DEVNULL, capture_output=True, timeout=10,  # noqa: S607
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = (line.split() for line in done.stdout.decode("utf-8", "replace").splitlines())
    return next((row[1] for row in words if len(row) == 2 and row[0] == "hostname"), None)


def through_ssh(client: Any, port: int) -> Ask | None:
    """Asks a port of the engine's machine from there, where the engine's client goes through ssh; else None."""
    ssh = getattr(client, "ssh", None)
    return None if ssh is None else http("localhost", port, dial=lambda: ssh.port(port))
