"""`launch` when what it stands on goes away: the terminal, the engine's connection, the server's manners."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import engines
import pytest
from front import heeding_ctrl_c
from test_launch import Desk, desk, engine, wait_for

from tgi_advisor.launch import follow, marks, verify
from tgi_advisor.launch.docker import ours, ssh

__all__ = ["desk", "engine"]


# -- the terminal


def on_a_terminal(spec: str, before: Callable[[], object] = lambda: None) -> tuple[subprocess.Popen[bytes], int]:
    """The command as the foreground of a terminal of its own, and the terminal's other end."""
    near, far = pty.openpty()

    def become_its_foreground() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        heeding_ctrl_c()
        before()

    process = subprocess.Popen(
        [sys.executable, "-m", "tgi_advisor", "launch", spec, "--logs"], stdin=far, stdout=far, stderr=far,
        start_new_session=True, preexec_fn=become_its_foreground,
    )  # fmt: skip
    os.close(far)
    return process, near


def drained(near: int, until: bytes) -> None:
    """Read the terminal until it shows something."""
    shown = b""
    while until not in shown:
        shown += os.read(near, 65536)


def test_the_terminal_is_closed(desk: Desk) -> None:
    process, near = on_a_terminal(desk.spec({"stall": True, "at": "load"}))
    drained(near, b"Starting shard")
    os.close(near)  # SIGHUP, and from now on EIO for whatever is written
    assert process.wait(30) == 130
    assert desk.containers() == []


def test_nohup_outlives_the_terminal(desk: Desk) -> None:
    spec = desk.spec({"slow": 0.05})
    process, near = on_a_terminal(spec, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    drained(near, b"Starting")
    os.close(near)
    assert process.wait(30) == 0
    assert desk.containers() == [desk.name]


def test_several_signals_at_once_and_nobody_listens(desk: Desk) -> None:
    """As when a service is stopped: SIGTERM, SIGHUP and SIGINT in one moment, and closed pipes."""
    process = desk.process(desk.spec({"stall": True, "at": "load"}), "--logs")
    wait_for(lambda: "Starting shard" in engines.logs_of(desk.client, desk.name))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCONT, signal.SIGHUP):
        process.send_signal(number)
    assert process.wait(30) == 130
    assert desk.containers() == []


# -- the connection to the engine


class Between:
    """A socket before the engine's: what goes through it can be cut off."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.url = f"unix://{folder}/between.sock"
        self.engine = engine
        self.lets_through = True
        self.closing = False
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(f"{folder}/between.sock")
        self.server.listen()
        self.cuts = 0
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def cut(self, *, back: bool) -> None:
        """Every connection ends now; new ones are let through or not."""
        self.lets_through = back
        self.cuts += 1

    def close(self) -> None:
        self.closing = True
        self.thread.join()
        self.server.close()

    def _serve(self) -> None:
        """All connections in one thread, which closes them."""
        other: dict[socket.socket, socket.socket] = {}
        cuts = 0

        def end(*ones: socket.socket) -> None:
            for one in ones:
                other.pop(one, None)
                one.close()

        while not self.closing:
            ready = select.select([self.server, *other], [], [], 0.02)[0]
            if self.cuts > cuts:
                cuts, ready = self.cuts, []
                end(*list(other))
            for one in ready:
                if one is self.server:
                    near, far = self.server.accept()[0], socket.socket(socket.AF_UNIX)
                    if self.lets_through:
                        far.connect(self.engine.removeprefix("unix://"))
                        other |= {near: far, far: near}
                    else:
                        end(near, far)
                elif one in other:
                    with suppress(OSError):
                        if data := one.recv(65536):
                            other[one].sendall(data)
                            continue
                    end(one, other[one])
        end(*list(other))


@pytest.fixture
def between(desk: Desk, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    with closing(Between(Path(os.path.realpath(tmp_path_factory.mktemp("b"))), desk.engine.url)) as made:
        monkeypatch.setenv("DOCKER_HOST", made.url)
        yield made


def when_the_log_says(desk: Desk, text: str, then: Callable[[], None]) -> None:
    """In the background."""

    def wait() -> None:
        wait_for(lambda: text in engines.logs_of(desk.client, desk.name))
        then()

    threading.Thread(target=wait, daemon=True).start()


def test_a_connection_that_breaks_is_no_end_of_the_server(desk: Desk, between: Between) -> None:
    """The log goes on where it was, each line once."""
    when_the_log_says(desk, "Starting shard", lambda: between.cut(back=True))
    code, events = desk.events(desk.spec({"slow": 0.08}), "--logs")
    assert code == 0, events[-1]
    logged = [event["text"] for event in events if event["event"] == "log"]
    whole = engines.logs_of(desk.client, desk.name).splitlines()
    assert len(logged) == len(whole)
    assert len([line for line in logged if "Starting shard" in line]) == 1
    assert desk.inspect()["State"]["Running"]


def test_an_engine_that_is_away_for_a_moment(desk: Desk, between: Between) -> None:
    def leave() -> None:
        between.cut(back=False)
        time.sleep(1)
        between.lets_through = True

    when_the_log_says(desk, "Starting shard", leave)
    code, events = desk.events(desk.spec({"slow": 0.08}))
    assert code == 0, events[-1]
    (note,) = (event["text"] for event in events if event["event"] == "note")
    assert note.endswith("waiting for it to come back")


def test_an_engine_that_stays_away_ends_no_server(
    desk: Desk, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "BACK_S", 0.1)
    when_the_log_says(desk, "Starting shard", lambda: between.cut(back=False))
    code, events = desk.events(desk.spec({"slow": 0.08}))
    assert (code, events[-1]["kind"]) == (7, "engine")
    assert f"has the label {marks.LAUNCH}=" in events[-2]["text"]
    assert desk.inspect()["State"]["Running"]


def test_an_engine_that_comes_back_while_tidying_up_ends_no_server(
    desk: Desk, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_by(*given: Any, **named: Any) -> dict[str, str]:
        between.lets_through = True
        return real(*given, **named)

    real = ours.made_by
    monkeypatch.setattr(ours, "made_by", made_by)
    monkeypatch.setattr(follow, "BACK_S", 0.1)
    when_the_log_says(desk, "Starting shard", lambda: between.cut(back=False))
    code, events = desk.events(desk.spec({"slow": 0.08}))
    assert code == 7
    assert "still runs was left alone" in events[-2]["text"]
    assert desk.inspect()["State"]["Running"]


def test_a_server_that_ended_with_its_engine(desk: Desk, between: Between) -> None:
    def restart() -> None:
        between.cut(back=False)
        desk.client.kill(desk.name)
        time.sleep(1)
        between.lets_through = True

    when_the_log_says(desk, "Starting shard", restart)
    code, events = desk.events(desk.spec({"stall": True, "at": "load"}))
    assert (code, events[-1]["cause"]) == (7, "engine"), events[-1]
    assert "went away and came back, and the server ended with it (exit code 137)" in events[-1]["message"]
    assert desk.containers() == []
    assert json.loads(desk.run("history", "--json").stdout) == []


# -- an engine over ssh

SSH = """#!{python}
import select, socket, sys
words = sys.argv[1:]
if "-G" in words:
    sys.exit(print("host box\\nhostname {hostname}\\nport 22"))
with open("{log}", "a") as log:
    print(*words, file=log)
if "-W" in words:
    far = socket.create_connection(("127.0.0.1", int(words[words.index("-W") + 1].rpartition(":")[2])))
elif words[words.index("--") + 1:] == ["box", "docker", "system", "dial-stdio"]:
    far = socket.socket(socket.AF_UNIX)
    far.connect("{engine}")
else:
    sys.exit("box: command not found")
near = socket.socket(fileno=0)
while True:
    for ready, other in ((near, far), (far, near)):
        if ready in select.select([near, far], [], [])[0]:
            if not (data := ready.recv(65536)):
                sys.exit()
            other.sendall(data)
"""
"""Plays `ssh` to a machine whose engine is the test's."""


@pytest.fixture
def box(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts an `ssh` on PATH; what it was asked is in the file."""

    def make(hostname: str) -> Path:
        command, log = desk.folder / "bin" / "ssh", desk.folder / "asked"
        command.parent.mkdir()
        command.write_text(
            SSH.format(
                python=sys.executable, hostname=hostname, log=log, engine=desk.engine.url.removeprefix("unix://")
            )
        )
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("DOCKER_HOST", "ssh://me@box:2222")
        ssh.hostname.cache_clear()
        return log

    return make


def test_an_engine_over_ssh(desk: Desk, box: Callable[[str], Path]) -> None:
    log = box("127.0.0.1")
    code, events = desk.events(desk.spec())
    assert code == 0, events[-1]
    assert events[-1]["url"] == f"http://127.0.0.1:{desk.port}"
    assert "-o ConnectTimeout=30 -T -l me -p 2222 -- box docker system dial-stdio\n" in log.read_text("utf-8")
    assert f"{desk.name}  answers" in desk.run("status").stdout
    assert desk.run("stop", desk.name).exit_code == 0
    assert desk.containers() == []
    running = subprocess.check_output(["ps", "-eo", "args"], text=True)
    assert str(log.parent / "bin") not in running


def test_a_port_behind_a_firewall_is_asked_through_ssh(desk: Desk, box: Callable[[str], Path]) -> None:
    log = box("far.invalid")
    code, events = desk.events(desk.spec())
    assert code == 0, events[-1]
    assert events[-1]["url"] == f"http://far.invalid:{desk.port}"
    assert f"-W 127.0.0.1:{desk.port} -- box" in log.read_text("utf-8")
    assert any("asked through ssh" in event["text"] for event in events if event["event"] == "note")
    assert f"{desk.name}  answers" in desk.run("status").stdout


def test_interrupted_over_ssh_nothing_is_left(desk: Desk, box: Callable[[str], Path]) -> None:
    box("127.0.0.1")
    process, near = on_a_terminal(desk.spec({"stall": True, "at": "load"}))
    drained(near, b"Starting shard")
    os.write(near, b"\x03")  # Ctrl-C goes to every process of the terminal, the ssh ones among them
    assert process.wait(30) == 130
    os.close(near)
    assert desk.containers() == []


# -- servers that drip


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [("/health", 10, "not ready within 5 s; it was waiting for /health"),
     ("/generate", 10, "not ready within 5 s; it is ready, but has not generated"), ("/info", 0, None)],
)  # fmt: skip
def test_the_timeout_holds_whatever_drips(desk: Desk, path: str, code: int, said: str | None) -> None:
    began = time.monotonic()
    ended, events = desk.events(desk.spec({"drip": [path], "files": 0}), "--timeout", "5")
    took = time.monotonic() - began
    assert ended == code, events[-1]
    assert said is None or said in events[-1]["message"]
    assert took < 5 + 2 * verify.HEALTH_S + 3
    assert desk.containers() == ([] if code else [desk.name])


# -- names that others have


def test_replace_takes_no_container_of_others(desk: Desk) -> None:
    labels = {"com.docker.compose.project": "shop"}
    other = desk.client.create_container(f"{engines.IMAGE}:3.3.7", name=desk.name, labels=labels)["Id"]
    result = desk.launch(desk.spec(), "--replace")
    text = " ".join(result.stderr.split())
    assert result.exit_code == 8
    assert "(not ours; it belongs to the Compose project 'shop')" in text
    assert f"`docker rm -f {desk.name}` removes it" in text
    assert desk.inspect()["Id"] == other


HOSTILE = ["[[[" * 40_000, '{"max_total_tokens": "many"}', '{"max_total_tokens": ' + "9" * 5000 + "}", "7", "null"]


def test_status_of_containers_with_labels_of_others(desk: Desk) -> None:
    for number, limits in enumerate(HOSTILE):
        labels = {marks.PLAN: "x", marks.LIMITS: limits, marks.MODEL: "\x1b]0;owned\x07\u202emodel\n"}
        desk.client.create_container(f"{engines.IMAGE}:3.3.7", name=f"{desk.name}-{number}", labels=labels)
    result = desk.run("status")
    assert result.exit_code == 0
    assert len([line for line in result.stdout.splitlines() if line.startswith(desk.name)]) == len(HOSTILE)
    assert not set("\x1b\x07\u202e") & set(result.stdout)
    assert [row["limits"] for row in json.loads(desk.run("status", "--json").stdout)] == [{}] * len(HOSTILE)


def test_killed_for_want_of_memory(desk: Desk) -> None:
    """A memory limit of the container's own, and a program that asks for more."""
    if not desk.client.info()["MemoryLimit"]:
        pytest.skip("no memory limits here")
    process = desk.process(desk.spec({"eat": True, "at": "load"}))
    wait_for(lambda: "Starting shard" in engines.logs_of(desk.client, desk.name))
    desk.client.update_container(desk.name, mem_limit="96m", memswap_limit="96m")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 5, err
    assert "the host killed the server for want of host memory" in err
