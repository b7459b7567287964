"""Laws of `launch`: nothing that a server, a label, a file or an address says ends it otherwise than in words."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from front import L4, ROOT, environment, process, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launch_image import build
from test_launch_parts import ROW, sections, stamped

import tgi_advisor
from tgi_advisor import logs
from tgi_advisor.errors import EngineError
from tgi_advisor.launch import failures, history, marks, verify, watch
from tgi_advisor.launch.docker.engine import Address, addresses, connect
from tgi_advisor.plan import Plan
from tgi_advisor.safe import printable

NASTY = (
    "9" * 5000, "-1", "1e400", "1.2.3", "", "0", "[" * 3000, "{" * 3000, "\x1b[31m", "\u202e", "\x9b31m", "\u2028",
    "a" * 5000, "NaN", "Infinity", "null", "{}", "[]", '"', "\\", "٣", "²", " " * 3000, "rank=", "rank=" + "7" * 5000,
    "[1/" + "8" * 4400 + "]",
)  # fmt: skip
"""What a line may hold where TGI puts something else."""


# -- the log

WORDS: dict[str, Any] = {
    "model": "org/m", "rank": 0, "shards": 2, "file": "a.safetensors", "done": 1, "of": 2, "left": "09", "budget": 42,
    "args": "{ model_id: \"m\", num_shard: Some(2), quantize: None }", "max_input": 1, "max_total": 2,
    "prefill": 4096, "tried": "512.00 MiB", "free": "188.38 MiB",
}  # fmt: skip
LINES = sorted({
    stamped(line.format(**WORDS))
    for release in build.RELEASES for body in sections(release).values() for line in body
} | {
    '{"timestamp":"2026-01-01T00:00:00.0Z","level":"INFO","fields":{"message":"Shard ready in 2.0s"},"target":'
    '"text_generation_launcher","filename":"a.rs","line_number":7,"span":{"rank":0}}',
    "| 0  NVIDIA L4  On | 00000000:31:00.0 Off |", "| N/A 36C | 1MiB / 23034MiB | 0% Default |",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 22.00 GiB "
    "of which 1.00 GiB is free. Process 1 has 11.00 GiB memory in use.",
})  # fmt: skip
"""Every line of the recorded start-ups, filled in."""


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A line of TGI with one word or number of it replaced by something else."""
    line = draw(st.sampled_from(LINES))
    parts = [match.span() for match in re.finditer(r"[0-9.]+|\w+|\S", line)]
    begin, end = draw(st.sampled_from(parts or [(0, 0)]))
    return line[:begin] + draw(st.sampled_from(NASTY) | st.text(max_size=8)) + line[end:]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tgi_advisor.advise(ROOT / "configs" / "llama-3.1-8b-l4.yaml")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines=st.lists(st.sampled_from(LINES) | changed(), max_size=6))
def test_any_log_is_read(plan: Plan, lines: list[str]) -> None:
    text = "\n".join(lines)
    progress = watch.Progress()
    for line, step in [*progress.feed(text.encode("utf-8", "surrogatepass") + b"\n"), *progress.end()]:
        assert printable(line, keep="\t") == line
        assert step is None or (printable(step.text) == step.text and len(step.text) < 500)
    seen = logs.start_up(text)
    assert seen.budget is None or 0 <= seen.budget < 10**15
    assert plan.container is not None
    failure = failures.diagnose(
        failures.Context(plan, plan.container, text, failures.State(running=False, exit_code=1), token_given=True)
    )
    assert failure.message
    history.measured(plan, failure.cause, seen, 1.0, "docker")


@pytest.mark.parametrize(
    "line",
    [
        stamped("INFO text_generation_launcher: x") + " " * 30_000 + "rank",
        "UnboundLocalError" * 1800,
        "Validation(" * 2900,
        "`num_shard` 1 " * 2300,
        "| 1 " * 8000,
        "x" * 30_000 + stamped("INFO text_generation_launcher: Starting shard rank=0"),
        "CUDA out of memory. Tried to allocate 1.00 GiB " * 680,
        stamped('INFO text_generation_launcher: Args { a: "') + '\\"' * 15_000,
        '{"timestamp":' + "[" * 30_000,
    ],
    ids=range(9),
)
def test_long_lines_are_read_in_time(plan: Plan, line: str) -> None:
    """Twenty of them, each as long as a line may be, in a second on a busy machine."""
    progress = watch.Progress()
    began = time.process_time()
    for _ in progress.feed(f"{line}\n".encode() * 20):
        pass
    assert plan.container is not None
    failures.diagnose(
        failures.Context(
            plan, plan.container, progress.kept.text(), failures.State(running=False, there=False), token_given=True
        )
    )
    assert time.process_time() - began < 2


def test_a_log_that_goes_on_is_cut_to_what_is_new() -> None:
    def at(stamp: str) -> watch.Moment:
        moment, rest = watch.unstamped(f"{stamp} line\n".encode())
        assert moment is not None
        assert rest == b"line\n"
        return moment

    order = ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:06Z"]
    moments = [at(stamp) for stamp in order]
    assert sorted(moments) == moments
    assert moments[1].seconds == 1767323045
    assert at("2026-01-02T03:04:05+01:00").seconds is None
    assert at("2026-99-02T03:04:05Z").seconds is None
    assert watch.BEGINNING.seconds is None
    assert watch.unstamped(b"no stamp\n") == (None, b"no stamp\n")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(10**30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


# -- labels


@given(st.text(max_size=50) | ANYTHING.map(json.dumps))
def test_any_label_is_read(label: str) -> None:
    limits = marks.limits(label)
    assert all(type(value) is int for value in limits.values())


# -- the history


@pytest.fixture(scope="module")
def own(plan: Plan) -> history.Row:
    """A row about the plan."""
    return ROW._replace(
        model=plan.facts.model.id, gpu=plan.facts.gpu.name, release=plan.facts.release.name,
        predicted=plan.prediction.limits.max_batch_total_tokens, observed=20_000,
    )  # fmt: skip


@settings(deadline=None)
@given(field=st.sampled_from(history.Row._fields), value=ANYTHING)
def test_any_row_is_read_or_said_to_be_unreadable(
    plan: Plan, own: history.Row, tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    file = tmp_path_factory.getbasetemp() / "any" / "history.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({**own._asdict(), field: value}) + "\n" + json.dumps(own._asdict()) + "\n")
    rows, unreadable = history.rows(file)
    assert len(rows) + unreadable == 2
    assert rows[-1] == own
    text, needed = history.lesson(rows)
    assert text is not None
    assert needed >= 0
    for number, row in enumerate(rows):
        assert math.isfinite(row.seconds)
        if given := history.exported(row, number):
            history.as_yaml(given)


@pytest.mark.parametrize("line", ['"' + "[" * 100_000, "[" * 100_000, '{"at": 7}', "{}", '{"seconds": ' + "9" * 5000])
def test_a_row_that_cannot_be_read_is_said_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: history.Row, line: str
) -> None:
    monkeypatch.setenv("TGI_ADVISOR_DATA", str(tmp_path))
    names = " ".join(json.dumps(name) for name in (own.model, own.gpu, own.release))
    (tmp_path / "history.jsonl").write_text(f"{line} {names}\n")
    result = run("advise", L4, "--json")
    assert result.code == 0
    warning = json.loads(result.out)["warnings"][-1]
    assert warning.startswith("a line about this model, GPU and release in the history ")
    assert warning.endswith("cannot be read and is passed over")
    assert run("history").err.startswith("1 line of ")


def test_a_pipe_in_the_place_of_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "history.jsonl")
    done = process("advise", L4, env=environment(TGI_ADVISOR_DATA=str(tmp_path)))
    assert done.returncode == 0
    assert "cannot be read: it is a pipe, not a file" in " ".join(done.stdout.split())
    done = process("history", env=environment(TGI_ADVISOR_DATA=str(tmp_path)))
    assert done.returncode == 2
    with pytest.raises(tgi_advisor.AdvisorError, match="cannot be written: it is no regular file"):
        history.add(ROW, tmp_path / "history.jsonl")


def test_a_lock_that_is_held_costs_a_row_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    file = tmp_path / "history.jsonl"
    monkeypatch.setattr(history, "LOCK_S", 0.1)
    with file.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(tgi_advisor.AdvisorError, match="another program has held its lock for"):
            history.add(ROW, file)
    history.add(ROW, file)
    assert history.rows(file) == ([ROW], 0)


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    row = ROW._replace(model=os.fsdecode(b"mod\xffel"))
    history.add(row, tmp_path / "history.jsonl")
    assert history.lookup(row.model, row.gpu, row.release, tmp_path / "history.jsonl") == [row]


def test_nobody_knows_of_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a user id of its own."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert history.path({}) == Path("/.local/share/tgi-advisor/history.jsonl")
    assert Address("unix:///.docker/run/docker.sock", "Docker Desktop") in addresses({})


def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = run("launch", L4, "--dry-run", "--json")
    assert result.code == 2
    assert "no longer exists" in json.loads(result.out)["message"]


# -- which engine

ADDRESSES = st.one_of(
    st.text(max_size=30),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["tcp", "ssh", "unix", "http+unix", "npipe", "fd", "http", "https", "x", ""]),
        st.sampled_from(
            ["", "u@", "u:s3cret@", ":@", "[::1", "[::1]", "a" * 300, "-oProxyCommand=x", "ü", "\x1b[31m", "/x"]
        ),
        st.sampled_from(["", ":1", ":99999", ":x", ":-1", "/p", "?q", "#f"]),
        st.text(max_size=3),
    ),
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sockets that the SDK does not close
@settings(deadline=None)  # the first one imports the SDK
@given(address=ADDRESSES)
def test_any_address_of_an_engine_is_answered_in_words(address: str) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")

    place = Address(address, "DOCKER_HOST")
    assert "s3cret" not in place.shown
    assert isinstance(place.local, bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuses)
        patch.setattr(socket, "create_connection", refuses)
        patch.setattr(socket, "getaddrinfo", refuses)
        patch.setattr(subprocess, "Popen", refuses)
        environ = {"DOCKER_HOST": address or "x", "DOCKER_CONFIG": "/nowhere", "HOME": "/nowhere"}
        with pytest.raises(EngineError) as caught:
            connect(environ)
    assert "s3cret" not in str(caught.value)
    text = str(caught.value)
    assert printable(text, keep="\n") == text


@pytest.mark.parametrize(
    "config", ["[" * 100_000, "[]", '{"proxies": []}', '{"currentContext": "\\ud800"}', "7", '{"auths": 7}']
)
@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", ""])
def test_a_docker_config_of_any_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, host: str) -> None:
    (tmp_path / "config.json").write_text(config)
    for name in ("DOCKER_CONFIG", "HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setattr("tgi_advisor.launch.docker.engine._refuse_socket", lambda path: None)
    result = run("status")
    assert result.code == 7, result.err


def test_a_docker_config_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    done = process("status", env=environment(DOCKER_CONFIG=str(tmp_path), DOCKER_HOST="tcp://127.0.0.1:1"))
    assert done.returncode == 7
    assert "it is a pipe, not a file" in " ".join(done.stderr.split())


# -- answers over HTTP


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that talks to whoever connects, in whatever manner; its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve() -> None:
            while True:
                try:
                    near, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(near,), daemon=True).start()

        def one(near: socket.socket) -> None:
            with near:
                try:
                    near.recv(65536)
                    talk(near)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def drip(before: bytes, each: bytes) -> Callable[[socket.socket], None]:
    def talk(near: socket.socket) -> None:
        near.sendall(before)
        while True:
            near.sendall(each)
            time.sleep(0.05)

    return talk


HEAD = b"HTTP/1.1 200 OK\r\n"
SLOW = {
    "nothing": lambda near: time.sleep(5),
    "status": drip(b"", b"H"),
    "headers": drip(HEAD, b"x"),
    "header lines": drip(HEAD, b"a: b\r\n"),
    "continue": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": drip(HEAD + b"Content-Length: 1000000\r\n\r\n", b"x"),
    "no length": drip(HEAD + b"\r\n", b"x"),
    "chunks": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "chunk size": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1"),
    "trailers": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
}


@pytest.mark.parametrize("how", SLOW)
def test_an_exchange_ends_when_it_has_to(how: str) -> None:
    with server(SLOW[how]) as port:
        began = time.monotonic()
        status, _ = verify.http("127.0.0.1", port)("/health", None, 0.3)
        assert time.monotonic() - began < 2
        assert status in (0, 200)


ODD = [
    b"[" * 100_000, b"9" * 5000, b'{"generated_text": 7}', b"\xff\xfe", b"", b'{"error": "\\u001b[31m\\u202e"}',
    b"[[]]", b"null", b'{"max_total_tokens": 1e400, "version": []}', b'{"max_total_tokens": ' + b"9" * 4000 + b"}",
    b'[{"generated_text": "x"}]',
]  # fmt: skip


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_any_answer_is_understood(plan: Plan, body: bytes) -> None:
    def talk(near: socket.socket) -> None:
        near.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with server(talk) as port:
        checked = verify.verify(plan, logs.StartUp(), verify.http("127.0.0.1", port), lambda seconds: seconds)
    assert (checked.text is None) != (checked.why_not is None)
    assert [figure.difference for figure in checked.figures if figure.observed] == []


def test_more_than_an_answer_can_hold_is_not_read() -> None:
    def talk(near: socket.socket) -> None:
        near.sendall(HEAD + b"\r\n")
        while True:
            near.sendall(b"x" * 65536)

    with server(talk) as port:
        status, text = verify.http("127.0.0.1", port)("/info", None, 10)
    assert (status, len(text)) == (200, verify.ANSWER_LIMIT)


# -- JSON lines


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([L4, "--json"], 7),
        ([L4, "--json", "--nonsense"], 2),
        ([L4, "--json", "--timeout", "soon"], 2),
        ([L4, "--json", "--replace", "--reuse"], 2),
        (["nowhere.yaml", "--json"], 3),
        ([L4, "--json", "--set", "model=7"], 3),
        ([L4, "--json", "--set", "hardware.gpu=nonsense"], 4),
        ([L4, "--json", "--dry-run"], 7),
    ],
)
def test_every_error_of_a_launch_is_one_json_line(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    result = run("launch", *arguments)
    assert result.code == code, result.err
    (line,) = result.out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["exit_code"]) == ("failed", code)
    assert event["message"]


@pytest.mark.parametrize("command", ["launch", "advise", "history", "status"])
def test_a_defect_is_one_json_object(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgi_advisor.api.advise", broken)
    monkeypatch.setattr("tgi_advisor.launch.history.rows", broken)
    monkeypatch.setattr("tgi_advisor.launch.docker.engine.connect", broken)
    monkeypatch.delenv("TGI_ADVISOR_DEBUG", raising=False)
    result = run(command, *([L4] if command in ("launch", "advise") else []), "--json")
    assert result.code == 70
    assert "on purpose" in json.dumps(json.loads(result.out))
    assert (len(result.out.splitlines()) == 1) == (command == "launch")


def test_an_interrupted_launch_ends_in_a_json_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("tgi_advisor.api.advise", interrupt)
    result = run("launch", L4, "--json")
    assert result.code == 130
    assert [json.loads(line)["kind"] for line in result.out.splitlines()] == ["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "code"), [(["launch", L4, "--json"], 7), (["launch", "--nonsense"], 2), (["advise", "/nowhere"], 3)]
)
def test_standard_error_that_is_full_changes_no_exit_code(tmp_path: Path, arguments: list[str], code: int) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = process(*arguments, stderr=full, env=environment(DOCKER_HOST=f"unix://{tmp_path}/no.sock"))
    assert done.returncode == code
    assert "--json" not in arguments or json.loads(done.stdout)["event"] == "failed"
