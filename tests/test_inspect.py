"""`inspect`: what a running server says of itself, what it could have, and what it should change."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from front import environment, heeding_ctrl_c, process, run
from golden import GOLDEN, Golden
from serving import Done, info, metrics, server_of, serving, trickling

import tgi_advisor
from tgi_advisor.choose.running import Running
from tgi_advisor.errors import Exit

LLAMA3, LLAMA31 = "meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"
BUSY = Done(queued=7, running=12, held=20_500, failed={"overloaded": 6, "validation": 4})
L4 = ("--gpu", "nvidia-l4")


def stable(text: str) -> str:
    """The text without ports."""
    return re.sub(r"127\.0\.0\.1:\d+", "localhost:8080", text)


@pytest.mark.parametrize(
    ("name", "model", "release", "done", "more"),
    [
        ("fresh-3.3.7", LLAMA31, "3.3.7", Done(0, 0, 0, 0, 0, 0, 0), ()),
        ("busy-3.3.7", LLAMA31, "3.3.7", BUSY, ()),
        ("busy-3.3.7-l4", LLAMA31, "3.3.7", BUSY, L4),
        ("busy-2.0.4-a10g", LLAMA3, "2.0.4", BUSY, ("--gpu", "nvidia-a10g")),
        ("idle-1.4.5-t4", LLAMA3, "1.4.5", Done(), ("--gpu", "nvidia-t4")),
    ],
)  # fmt: skip
def test_what_it_prints(
    golden: Golden, name: str, model: str, release: str, done: Done, more: tuple[str, ...]
) -> None:  # fmt: skip
    with serving(server_of(model, release, done)) as (url, asked):
        ran = run("inspect", url, *more)
        assert (ran.code, ran.err) == (Exit.STARTS, "")
        golden(f"inspect/{name}.txt", stable(ran.out))
        golden(f"inspect/{name}.json", stable(run("inspect", url, *more, "--json").out))
    assert {one.path for one in asked} == {"/info", "/metrics", "/health"}


def test_the_page_of_the_documentation() -> None:
    text = Path(__file__).parents[1].joinpath("docs/inspect.md").read_text("utf-8")
    shown = (GOLDEN / "inspect/busy-3.3.7-l4.txt").read_text("utf-8")
    assert shown.rstrip() in text


def test_several_servers_are_a_table_and_one_that_is_silent_a_row_of_it(golden: Golden) -> None:
    with ExitStack() as stack:
        urls = [
            stack.enter_context(serving(server_of(LLAMA31, release, done)))[0]
            for release, done in (("3.3.7", BUSY), ("2.0.4", Done()))
        ]
        ran = run("inspect", *urls, "127.0.0.1:9", *L4)
        text = ran.out
        for number, url in enumerate(urls):
            text = text.replace(url, f"http://tgi-{number}.test:8080"[: len(url)])
        assert ran.code == Exit.FACTS
        rows = json.loads(run("inspect", *urls, "127.0.0.1:9", *L4, "--json").out)["servers"]
        assert run("inspect", *urls).code == Exit.STARTS
    golden("inspect/fleet.txt", text)
    assert [row["error"] is None for row in rows] == [True, True, False]
    assert [row["release"] for row in rows] == ["3.3.7", "2.0.4", None]


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_table_is_no_wider_than_the_terminal(columns: int) -> None:
    with serving(server_of(LLAMA31, "3.3.7", BUSY)) as (url, _):
        ran = process("inspect", url, url, *L4, env=environment(COLUMNS=str(columns)))
    assert ran.returncode == Exit.STARTS
    assert max(map(len, ran.stdout.splitlines())) <= columns
    assert "FITS" in ran.stdout


def test_the_table_is_on_standard_output_when_several_servers_ask_the_hub_at_once() -> None:
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(server_of(LLAMA31, "3.3.7")))[0] for _ in range(4)]
        asked = environment(HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
        ran = process("inspect", *urls, "--gpu", "nvidia-l4", env=asked)
    assert (ran.returncode, ran.stderr) == (Exit.STARTS, "")
    assert ran.stdout.startswith("SERVER")


def test_the_spec_is_the_server_and_advise_takes_it() -> None:
    answers = server_of(LLAMA3, "2.0.4")
    answers["/info"] = answers["/info"].replace("torch.float16", "torch.bfloat16").replace(": 128", ": 64")
    with serving(answers) as (url, _):
        spec = run("inspect", url, "-g", "nvidia-a10g", "--emit-spec").out
        (seen,) = tgi_advisor.inspect([url], gpu="nvidia-a10g").servers
    read = tgi_advisor.read_spec
    assert isinstance(seen, Running)
    assert run("predict", "-", stdin=spec).code == Exit.STARTS
    assert run("advise", "-", stdin=spec).code == Exit.STARTS
    assert seen.spec is not None
    assert read(seen.spec).limits.max_total_tokens.fixed == 4096
    for told in ("release: 2.0.4", "dtype: bfloat16", "max-concurrent-requests: 64", "max_input_tokens: 4095"):
        assert told in spec
    plan = tgi_advisor.predict(seen.spec)
    assert seen.could is not None
    assert plan.prediction.limits == seen.could.here.limits


def test_a_budget_within_the_band_is_no_finding_and_one_outside_is() -> None:
    answers = server_of(LLAMA3, "2.0.4")
    with serving(answers) as (url, _):
        seen = tgi_advisor.inspect([url], gpu="nvidia-l4")
    (one,) = seen.servers
    assert isinstance(one, Running)
    assert one.could is not None
    expected = one.could.here.limits.max_batch_total_tokens
    answers["/info"] = answers["/info"].replace("40000", str(expected))
    with serving(answers) as (url, _):
        calm = run("inspect", url, *L4).out
    assert "are expected: something else" not in calm
    assert "are expected: something else" in repr(seen)


def test_health() -> None:
    def said(answer: object) -> str:
        answers = {**server_of(LLAMA31, "3.3.7"), "/health": answer}
        with serving(answers) as (url, _):  # type: ignore[arg-type]
            ran = run("inspect", url, "--timeout", "0.5")
        assert ran.code == Exit.FACTS
        return ran.out

    assert "unhealthy: its model server does not answer" in " ".join(said((503, "unhealthy")).split())
    assert "between two steps" in said(trickling)


def test_what_may_be_asked_and_what_not() -> None:
    with serving(server_of("/data/model", "3.3.7")) as (url, _):
        folder = run("inspect", url, *L4)
        assert (folder.code, "--model" in folder.err) == (Exit.FACTS, True)
        assert run("inspect", url, *L4, "-m", LLAMA31).code == Exit.STARTS
        assert run("inspect", url, "--emit-spec").code == Exit.USAGE
        assert run("inspect", url, url, "--emit-spec", *L4).code == Exit.USAGE
        assert run("inspect", url, "--gpu", "nvidia-l44").code == Exit.FACTS
    assert run("inspect").code == Exit.USAGE
    assert run("inspect", "http://me:s3cr3t@h").code == Exit.USAGE


@pytest.mark.parametrize("name", ["/info", "/metrics"])
def test_what_is_no_tgi(name: str) -> None:
    answers = {**server_of(LLAMA31, "3.3.7"), name: "vllm:num_requests_running 1\n"}
    with serving(answers) as (url, _):
        ran = run("inspect", url, "--json")
    assert ran.code == json.loads(ran.out)["error"]["exit_code"] == Exit.FACTS


@pytest.mark.parametrize(
    "said",
    [
        {"max_total_tokens": 0}, {"max_input_tokens": 4000, "max_total_tokens": 10}, {"max_total_tokens": 1 << 40},
        {"model_id": ""}, {"model_id": "a\nb"}, {"model_id": "\ud800/x"}, {"version": "3.3.7\x1b[2J"},
    ],
)  # fmt: skip
def test_nonsense_is_the_fault_of_the_server_that_says_it_and_a_row_among_others(said: dict[str, object]) -> None:
    nonsense = {**server_of(LLAMA31, "3.3.7"), "/info": json.dumps({**json.loads(info(LLAMA31, "3.3.7")), **said})}
    with serving(nonsense) as (bad, _), serving(server_of(LLAMA31, "3.3.7")) as (good, _):
        alone, both = run("inspect", bad, *L4), run("inspect", bad, good, *L4, "--json")
    assert alone.code == both.code == Exit.FACTS
    assert f"{bad}/info is not what a TGI server says" in " ".join(alone.err.split())
    assert [row["release"] for row in json.loads(both.out)["servers"]] == [None, "3.3.7"]


def test_a_limit_that_is_not_said_is_not_compared() -> None:
    said = json.loads(info(LLAMA31, "3.3.7"))
    del said["max_total_tokens"]
    with serving({**server_of(LLAMA31, "3.3.7"), "/info": json.dumps(said)}) as (url, _):
        ran = run("inspect", url, *L4)
    assert ran.code == Exit.STARTS
    assert "instead of" not in ran.out


def test_a_hostile_name_cannot_speak_to_the_terminal() -> None:
    with serving({**server_of("a/b", "3.3.7"), "/info": info("a/\x1b]0;x\x07b", "3.3.7\x1b[2J")}) as (url, _):
        ran = run("inspect", url)
    assert "\x1b" not in ran.out + ran.err


def test_a_token_is_sent_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGI_API_KEY", "s3cr3t-token")
    with serving(server_of(LLAMA31, "3.3.7")) as (url, asked):
        ran = run("inspect", url, *L4, "--json")
    assert {one.headers["Authorization"] for one in asked} == {"Bearer s3cr3t-token"}
    assert "s3cr3t" not in ran.out + ran.err


def test_watching_shows_what_is_done_between_two_readings() -> None:
    count = 0

    def counting(handler: BaseHTTPRequestHandler) -> None:
        nonlocal count
        count += 100
        body = metrics(Done(requests=count, answer=50), "3.3.7").encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving({**server_of(LLAMA31, "3.3.7"), "/metrics": counting}) as (url, _):
        command = [sys.executable, "-m", "tgi_advisor", "inspect", url, "--watch", "0.2", "--json", *L4]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment(), preexec_fn=heeding_ctrl_c
        ) as watching:
            assert watching.stdout is not None
            first, second, third = (json.loads(watching.stdout.readline())["servers"][0] for _ in range(3))
            watching.send_signal(signal.SIGINT)
            watching.communicate(timeout=20)
            assert watching.returncode == Exit.INTERRUPTED
    assert first["tokens_per_s"] is None
    assert (second["answered"], third["answered"]) == (200, 300)
    assert second["requests_per_s"] > 0
    assert second["tokens_per_s"] == pytest.approx(50 * second["requests_per_s"], rel=0.01)
    assert second["fits_max_total_tokens"] == first["fits_max_total_tokens"] > 0


# ---- what else may stand at an address


def page(status: int, text: str, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer with header fields of its own; what they are called has a dash for an underscore."""

    def answering(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(text.encode())

    return answering


HTML = "<!DOCTYPE html><html><title>Welcome to nginx!</title></html>"
LOGIN = "https://me:s3cr3t@login.example/in?token=s3cr3t"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"/info": HTML}, "is a web page"),
        ({"/info": page(401, HTML)}, "Put its token into TGI_API_KEY"),
        ({"/info": page(403, HTML)}, "Put its token into TGI_API_KEY"),
        ({}, "Is a part of the path missing"),
        ({"/info": page(429, HTML, Retry_After="9")}, "asked too often"),
        ({"/info": page(502, HTML)}, "still starting"),
        ({"/info": page(503, HTML)}, "still starting"),
        ({"/info": page(302, "", Location=LOGIN)}, "answers 302 to https://login.example/in Redirects"),
        ({"/info": page(301, "", Location="/info")}, "answers 301 to /info"),
        ({"/metrics": "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n"}, "of vLLM, not of TGI"),
        ({"/metrics": "sglang:num_running_reqs 1\n"}, "of SGLang, not of TGI"),
        ({"/info": info(LLAMA3, "3.3.7"), "/metrics": "te_request_count 1\n"}, "those of text-embeddings-inference"),
        ({"/info": info(LLAMA3, "3.3.7"), "/metrics": HTML}, "is a web page"),
        ({"/info": info(LLAMA3, "3.3.7"), "/metrics": "tgi_queue_size NaN\n"}, "tgi_queue_size is nan"),
        ({"/info": info(LLAMA3, "3.3.7"), "/metrics": "tgi_queue_size -1\n"}, "tgi_queue_size is -1"),
        ({"/info": info(LLAMA3, "3.3.7"), "/metrics": "tgi_x 1\n" + "#" * (5 << 20)}, "more than 4 MiB"),
        ({"/info": page(200, "{", Content_Length="99")}, "ends before its answer is whole"),
        ({"/info": page(200, "{}" * 20, Content_Encoding="gzip")}, "said to be gzip"),
    ],
)  # fmt: skip
def test_what_else_answers_is_said_by_its_name(
    answers: dict[str, str | Callable[[BaseHTTPRequestHandler], None]], words: str
) -> None:
    with serving(answers) as (url, _):
        ran = run("inspect", url, "--json")
    assert ran.code == json.loads(ran.out)["error"]["exit_code"] == Exit.FACTS
    said = json.loads(ran.out)["error"]
    assert words in " ".join(f"{said['message']} {said['hint']}".split())
    assert "s3cr3t" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("8080", Exit.USAGE, "http://localhost:8080"),
        (":8080", Exit.USAGE, "http://localhost:8080"),
        ("::1:8080", Exit.USAGE, "http://[::1]:8080"),
        ("http://h:99999", Exit.USAGE, "no address"),
        ("ftp://h", Exit.USAGE, "no address"),
        ("http://h/?token=s3cr3t", Exit.USAGE, "TGI_API_KEY"),
        ("me:s3cr3t@h", Exit.USAGE, "TGI_API_KEY"),
        ("127.0.0.1:9", Exit.FACTS, "Nothing listens there"),
    ],
)  # fmt: skip
def test_an_address_that_is_none(url: str, code: Exit, words: str) -> None:
    ran = run("inspect", url)
    assert ran.code == code
    assert words in " ".join(ran.err.split())
    assert "s3cr3t" not in ran.err


@pytest.mark.parametrize("end", ["/", "//", "/info", "/metrics", "/v1", "/v1/chat/completions", "/generate", "/health"])
def test_an_address_of_one_of_its_paths_is_the_servers(end: str) -> None:
    plain = server_of(LLAMA31, "3.3.7")
    with serving({**plain, **{f"/models/a{path}": answer for path, answer in plain.items()}}) as (url, asked):
        assert run("inspect", url + end).code == run("inspect", f"{url}/models/a{end}").code == Exit.STARTS
    assert {one.path.removeprefix("/models/a") for one in asked} == {"/info", "/metrics", "/health"}


def test_what_is_compressed_unasked_is_read() -> None:
    def packed(text: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def answering(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Encoding", "gzip")
            handler.end_headers()
            handler.wfile.write(gzip.compress(text.encode()))

        return answering

    plain = server_of(LLAMA31, "3.3.7", BUSY)
    with (
        serving({path: packed(text) for path, text in plain.items()}) as (url, _),
        serving({**plain, "/metrics": packed("#" * (64 << 20))}) as (other, _),
    ):
        ran = run("inspect", url)
        assert (ran.code, "12  requests of the batch" in ran.out) == (Exit.STARTS, True)
        assert "more than 4 MiB" in run("inspect", other).err


@pytest.mark.parametrize("text", ["", "\n", "# TYPE tgi_request_count counter\n"])
def test_a_server_that_had_no_request_shows_zeros(text: str) -> None:
    with serving({**server_of(LLAMA31, "3.3.7"), "/metrics": text}) as (url, _):
        ran = run("inspect", url, "--json")
    assert ran.code == Exit.STARTS
    (row,) = json.loads(ran.out)["servers"]
    assert (row["requests"], row["running"], row["queued"], row["token_s"]) == (0, 0, 0, None)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gateway_that_keeps_health_to_itself_makes_no_server_ill(status: int) -> None:
    with serving({**server_of(LLAMA31, "3.3.7"), "/health": (status, HTML)}) as (url, _):
        ran, rows = run("inspect", url), json.loads(run("inspect", url, "--json").out)["servers"]
    assert ran.code == Exit.STARTS
    assert "its health is not told" in " ".join(ran.out.split())
    assert rows[0]["health"] == "untold"


def test_a_server_that_goes_away_while_it_is_watched_is_waited_for() -> None:
    with serving(server_of(LLAMA31, "3.3.7")) as (url, _):
        command = [sys.executable, "-m", "tgi_advisor", "inspect", url, "--watch", "0.1", "--json"]
        pipe = subprocess.PIPE
        watching = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=environment(), preexec_fn=heeding_ctrl_c
        )
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.readline()
    try:
        assert "does not answer" in watching.stderr.readline()
    finally:
        os.kill(watching.pid, signal.SIGINT)
        watching.communicate(timeout=20)


def test_watching_ends_when_nobody_reads_any_more() -> None:
    with serving(server_of(LLAMA31, "3.3.7")) as (url, _):
        command = [sys.executable, "-m", "tgi_advisor", "inspect", url, "--watch=0.1", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as ran:
            assert ran.stdout is not None
            try:
                assert ran.stdout.readline()
                ran.stdout.close()
                assert ran.wait(20) == Exit.STARTS
            finally:
                ran.kill()
