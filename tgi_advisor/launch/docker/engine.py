"""The Docker Engine: which one is meant, how it is reached, and what it says when it refuses.

Which engine is meant is decided as the `docker` command decides it: DOCKER_HOST, then DOCKER_CONTEXT, then the
current context of ~/.docker/config.json, then the sockets an installation leaves: the system's, a rootless
engine's, Docker Desktop's (https://docs.docker.com/engine/manage-resources/contexts/,
https://docs.docker.com/engine/security/rootless/). An engine that was named is the only one tried.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tgi_advisor.errors import AdvisorError, EngineError, Problem
from tgi_advisor.launch.place import LostPlaceError
from tgi_advisor.reading import home, read_regular
from tgi_advisor.safe import masked

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_S = 60
"""Seconds one answer of the engine may take; streams have no limit."""
CONFIG_BYTES = 1 << 20
"""The longest config.json or meta.json of Docker's that is read."""


@dataclass(frozen=True)
class Address:
    """One address an engine may have."""

    url: str
    """`unix:///var/run/docker.sock`, `tcp://host:2376`, `ssh://user@host`, ..."""
    how: str
    """Where the address comes from, as people say it."""
    certificates: str | None = None
    """Folder with ca.pem, cert.pem and key.pem."""
    verify: bool = True
    """Whether the engine's certificate is checked."""

    @property
    def scheme(self) -> str:
        """`unix`, `tcp`, `ssh`, ...; an address without one is `tcp`."""
        before, mark, _ = self.url.strip().partition("://")
        return before.lower() if mark else "tcp"

    @property
    def shown(self) -> str:
        """The address as it may be shown: without user and password."""
        scheme = self.url.find("://") + 3 if "://" in self.url else 0
        user, at, host = self.url[scheme:].rpartition("@")
        return f"{self.url[:scheme]}***@{host}" if at and ":" in user else self.url

    @property
    def host(self) -> str:
        """Where a published port is reached, as URLs write it; of an alias of ssh's what it stands for."""
        if self.local:
            return "127.0.0.1"
        name = urlsplit(self.url if "://" in self.url else f"tcp://{self.url}").hostname or "127.0.0.1"
        if self.scheme == "ssh":
            from tgi_advisor.launch.docker.ssh import hostname

            name = hostname(self.url) or name
        return f"[{name}]" if ":" in name else name

    @property
    def local(self) -> bool:
        """Whether the engine shares this machine's files and ports."""
        return self.scheme in ("unix", "http+unix", "npipe")


@dataclass(frozen=True)
class Engine:
    """A connection that answered."""

    client: Any
    """The SDK's low-level `APIClient`, half of whose methods carry no types."""
    address: Address
    """Where it was found."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Turns everything the engine or the connection can answer into an EngineError about `what`."""
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except AdvisorError:
            raise
        except APIError as error:
            raise EngineError(f"the Docker Engine could not {what}: {said(error)}") from None
        except (RequestException, HTTPError, DockerException, OSError) as error:
            raise LostPlaceError(
                f"the Docker Engine at {self.address.shown} stopped answering: {_why(error, self.address)}",
                "See whether it still runs (`docker info`, `systemctl status docker`).",
            ) from None
        except Exception as error:  # noqa: BLE001  (the SDK takes answers and config.json for what they should be)
            raise EngineError(
                f"the Docker Engine could not {what}: its answer is not understood ({type(error).__name__}: {error})"
            ) from None

    def inspect(self, container: str) -> dict[str, Any] | None:
        """What the engine knows about a container, by id or name; None when there is none."""
        from docker.errors import NotFound

        with self.asked(f"look at container {container}"):
            try:
                found: dict[str, Any] = self.client.inspect_container(container)
            except NotFound:
                return None
            return found

    def remove(self, container: str) -> None:
        """Stop at once and remove, with its anonymous volumes; a container that is gone is no error."""
        from docker.errors import APIError, NotFound

        with self.asked(f"remove container {container}"):
            try:
                self.client.remove_container(container, v=True, force=True)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != 409:  # somebody else removes it already
                    raise


def connect(environ: Mapping[str, str] = os.environ) -> Engine:
    """The engine that is meant; EngineError with everything that was tried when none answers."""
    tried = []
    for address in addresses(environ):
        try:
            return Engine(_client(address, environ), address)
        except _NoAnswerError as error:  # noqa: PERF203
            tried.append(Problem(f"{address.shown} ({address.how}): {error}", error.hint))
    raise EngineError(
        "no Docker Engine answers",
        None if any(problem.hint for problem in tried) else
        "Start it (`sudo systemctl start docker`, or Docker Desktop), or name it with DOCKER_HOST. Without an engine, "
        "`tgi-advisor emit` prints the command to run elsewhere.",
        tried,
    )  # fmt: skip


def addresses(environ: Mapping[str, str]) -> list[Address]:
    """Where to look: the one engine that was named, else the usual sockets."""
    if host := environ.get("DOCKER_HOST"):
        secured = environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_CERT_PATH")
        folder = environ.get("DOCKER_CERT_PATH") or str(_docker_folder(environ))
        return [Address(host, "DOCKER_HOST", folder if secured else None, bool(environ.get("DOCKER_TLS_VERIFY")))]
    named = environ.get("DOCKER_CONTEXT")
    name = named or _current_context(environ)
    if name and name != "default":
        return [_context(name, "DOCKER_CONTEXT" if named else "config.json", environ)]
    if sys.platform == "win32":
        return [Address("npipe:////./pipe/docker_engine", "the default of Windows")]
    own = Path(home(environ))
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return [
        Address("unix:///var/run/docker.sock", "the default"),
        Address(f"unix://{runtime}/docker.sock", "a rootless engine"),
        Address(f"unix://{own / '.docker/run/docker.sock'}", "Docker Desktop"),
        Address(f"unix://{own / '.docker/desktop/docker.sock'}", "Docker Desktop on Linux"),
    ]


def said(error: Exception) -> str:
    """The engine's own words, without the SDK's around them."""
    words = getattr(error, "explanation", None) or str(error)
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    return " ".join(text.split())


class _NoAnswerError(Exception):
    """Nobody answers at one address."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _client(address: Address, environ: Mapping[str, str]) -> APIClient:
    """A client that has spoken with its engine once."""
    if address.url.startswith("unix://"):
        _refuse_socket(Path(address.url.removeprefix("unix://")))
    _refuse_config(environ)
    from docker import APIClient
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        if address.scheme == "ssh":
            return _over_ssh(address)
        return APIClient(
            base_url=address.url,
            version="auto",
            timeout=TIMEOUT_S,
            tls=_tls(address) if address.certificates else False,
        )
    except (DockerException, RequestException, OSError, ValueError) as error:
        raise _NoAnswerError(_why(error, address)) from None
    except _NoAnswerError:
        raise
    except Exception as error:  # noqa: BLE001  (the SDK takes answers and config.json for what they should be)
        raise _NoAnswerError(
            f"Docker's SDK does not understand an answer or {_docker_folder(environ) / 'config.json'} "
            f"({type(error).__name__})",
            "See whether `docker info` works.",
        ) from None


def _over_ssh(address: Address) -> APIClient:
    from tgi_advisor.launch.docker.ssh import Ssh, SshClient

    over = Ssh(address.url)
    try:
        return SshClient(over, TIMEOUT_S)
    except FileNotFoundError:
        over.close()
        raise _NoAnswerError("there is no `ssh` command here", "Install OpenSSH's client.") from None
    except BaseException as error:
        words = over.said()
        over.close()
        if not isinstance(error, Exception):
            raise
        raise _NoAnswerError(
            _why(error, address) + (f"; ssh says: {words}" if words else ""),
            f"`ssh ssh://{urlsplit(address.url).netloc} docker version` must work without a question: "
            "a key without a passphrase or in an agent, the host in known_hosts, and `docker` installed there.",
        ) from None


def _refuse_config(environ: Mapping[str, str]) -> None:
    """Say why a config.json cannot be read that the SDK would wait for, or choke on."""
    file = _docker_folder(environ) / "config.json"
    try:
        if len(read_regular(file, CONFIG_BYTES)) > CONFIG_BYTES:
            raise _NoAnswerError(f"{file} is longer than such a file can be")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            return  # the SDK goes on without it
        raise _NoAnswerError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _refuse_socket(path: Path) -> None:
    """Say quickly, and without loading the SDK, why a socket cannot be used."""
    import socket

    try:
        with socket.socket(socket.AF_UNIX) as test:
            test.settimeout(10)
            test.connect(str(path))
    except FileNotFoundError:
        raise _NoAnswerError("there is no such socket") from None
    except PermissionError:
        raise _NoAnswerError(
            "you may not use this socket",
            "Add yourself to its group (`sudo usermod -aG docker $USER`, then log in again), or use a rootless engine.",
        ) from None
    except ConnectionRefusedError:
        raise _NoAnswerError("the socket is there, but no engine listens on it") from None
    except OSError as error:
        raise _NoAnswerError(error.strerror or str(error)) from None


def _tls(address: Address) -> Any:
    from docker.tls import TLSConfig

    folder = Path(address.certificates or "")
    pair = folder / "cert.pem", folder / "key.pem"
    ca = folder / "ca.pem"
    return TLSConfig(
        client_cert=(str(pair[0]), str(pair[1])) if all(path.exists() for path in pair) else None,
        ca_cert=str(ca) if ca.exists() else None,
        verify=address.verify,
    )


def _why(error: BaseException, address: Address) -> str:
    """The innermost reason of a failed connection, in a few words; the address in it as it may be shown."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = str(error).replace(address.url.strip(), address.shown)
    return masked(" ".join(words.split()))[:200] or type(error).__name__


def _docker_folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or Path(home(environ)) / ".docker")


def _current_context(environ: Mapping[str, str]) -> str | None:
    """The context `docker context use` chose; None when there is no choice or the file is unreadable."""
    try:
        chosen = json.loads(read_regular(_docker_folder(environ) / "config.json", CONFIG_BYTES)).get("currentContext")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return chosen if isinstance(chosen, str) else None


def _context(name: str, chosen_by: str, environ: Mapping[str, str]) -> Address:
    """The engine of a named context; EngineError when the context is not there."""
    folder = _docker_folder(environ)
    key = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    meta = folder / "contexts" / "meta" / key / "meta.json"
    try:
        endpoint = json.loads(read_regular(meta, CONFIG_BYTES))["Endpoints"]["docker"]
        tls = folder / "contexts" / "tls" / key / "docker"
        verify = not endpoint.get("SkipTLSVerify", False)
        return Address(
            str(endpoint["Host"]), f"context {name!r} of {chosen_by}", str(tls) if tls.exists() else None, verify
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise EngineError(
            f"the Docker context {name!r}, chosen by {chosen_by}, cannot be read",
            "`docker context ls` lists the contexts, `docker context use default` returns to the default.",
        ) from None
