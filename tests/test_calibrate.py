"""`calibrate`: what a running server says of its speed, what it refuses, and what takes its word."""

from __future__ import annotations

import json
import math
import re
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import socket

import pytest
import yaml
from front import run
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Done, info, metrics, server_of, serving, trickling

import tgi_advisor
from tgi_advisor.errors import Exit, FactsError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.speed import Server, cache_of
from tgi_advisor.facts.speed import constants
from tgi_advisor.gather.facts import gather
from tgi_advisor.metrics import traffic
from tgi_advisor.spec.reader import read_any

LLAMA3 = "meta-llama/Meta-Llama-3-8B-Instruct"
A10G = ("--gpu", "nvidia-a10g")


def stable(text: str) -> str:
    """The text without the port and the day."""
    return re.sub(r"'\d{4}-\d\d-\d\d'", "'DAY'", re.sub(r"127\.0\.0\.1:\d+", "HOST", text))


@pytest.mark.parametrize("release", ["1.4.5", "2.0.4", "3.3.7"])
def test_what_it_prints(golden: Golden, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    card = ("--gpu", "h100-sxm") if release == "1.4.5" else A10G  # where launching takes the time
    with serving(server_of(LLAMA3, release)) as (url, asked):
        ran = run("calibrate", url, *card)
        assert ran.code == Exit.STARTS
        golden(f"choose/calibrate-{release}.txt", stable(ran.out))
        table = json.loads(run("calibrate", f"{url}/metrics", *card, "--json").out)["calibration"]
    assert {one.path for one in asked} == {"/info", "/metrics"}
    assert not any("Authorization" in one.headers for one in asked)
    (row,) = yaml.safe_load(ran.out)
    assert {one["constant"]: one["measured"] for one in table} == {
        name: row.get(name) for name in ("bandwidth", "compute", "host")
    }


def test_the_estimates_take_its_word(tmp_path: Path) -> None:
    done = Done(decode=0.0402, prefill=0.3)
    size = ("size", "-m", LLAMA3, *A10G, "-n", "1", "-q", "none", "-r", "2.0.4", "-i", "750", "-o", "150", "-u", "3")
    with serving(server_of(LLAMA3, "2.0.4", done)) as (url, _):
        (tmp_path / "own.yaml").write_text(run("calibrate", url, *A10G).out)
    own = ("--speed", str(tmp_path / "own.yaml"))
    (before,), (after,) = (json.loads(run(*size, *more, "--json").out)["fleets"] for more in ((), own))
    assert before["tokens_per_s"] > after["tokens_per_s"]
    assert before["bound_tokens_per_s"] == after["bound_tokens_per_s"]
    prefills = done.prefills * done.prefill
    measured = done.requests * done.answer / (done.decodes * done.decode + prefills)
    assert math.isclose(after["tokens_per_s"], measured, rel_tol=0.1)
    assert "Calibrated:" in run(*size, *own).out
    asked = (*A10G, "-r", "2.0.4", "-m", LLAMA3, "--json", *own)
    plan = json.loads(run("advise", *asked).out)
    assert plan["speed"]["alone"]["tokens_per_s"]["label"] == "calibrated"
    assert json.loads(run("predict", *asked).out)["speed"]["alone"]["first_token_s"]["label"] == "calibrated"
    other = json.loads(run("advise", "-g", "nvidia-l4", "-m", LLAMA3, "--json", *own).out)
    assert other["speed"]["alone"]["tokens_per_s"]["label"] == "rough"
    compared = ("compare", "-m", LLAMA3, *A10G, "-n", "1", "-q", "none", "-r", "2.0.4", "--json")
    (one,), (two,) = (json.loads(run(*compared, *more).out)["comparison"] for more in ((), own))
    assert one["tokens_per_s"] > two["tokens_per_s"]
    assert tgi_advisor.compare(
        {"model": {"id": LLAMA3}, "hardware": {"gpu": "a10g"}, "tgi": {"release": "2.0.4"}},
        gpu=["a10g"], count=[1], quantize=["none"], speed=[str(tmp_path / "own.yaml")],
    ).records()[0]["tokens_per_s"] == two["tokens_per_s"]  # fmt: skip


def test_what_no_public_row_supports_is_estimated_from_a_server_of_ones_own(tmp_path: Path) -> None:
    awq = ("-m", "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "-g", "nvidia-l4", "--context", "8k")
    with serving(server_of(awq[1], "3.3.7", Done(decode=0.03))) as (url, _):
        (tmp_path / "own.yaml").write_text(run("calibrate", url, "--gpu", "l4").out)
    plain, own = (
        json.loads(run("advise", *awq, "--json", *more).out)["speed"]["full"]
        for more in ((), ("--speed", str(tmp_path / "own.yaml")))
    )
    assert plain["tokens_per_s"] is None
    assert own["tokens_per_s"]["label"] == "calibrated"
    assert own["tokens_per_s"]["high"] <= own["bound_tokens_per_s"]
    assert own["first_token_s"] is None


@settings(max_examples=20, deadline=None)
@given(
    share=st.floats(0.3, 0.95), computed=st.floats(0.2, 0.9), batch=st.integers(1, 24), prompt=st.integers(500, 3000),
    answer=st.integers(50, 800), release=st.sampled_from(["2.0.4", "2.4.1"]),
)  # fmt: skip
def test_a_server_as_fast_as_the_model_says_gives_its_constants_back(
    share: float, computed: float, batch: int, prompt: int, answer: int, release: str
) -> None:
    spec = read_any(
        {"model": {"id": LLAMA3}, "hardware": {"gpu": "nvidia-a10g"},
         "tgi": {"release": release, "env": {"PREFIX_CACHING": "0"}}}
    )  # fmt: skip
    known = constants()._replace(bandwidth=share, compute=computed)
    server = Server(warmup.base(defaults.resolve(spec, gather(spec, source="snapshot"))), known)
    reads = server.read(batch, cache_of(server.here, prompt, answer)) / (server.bandwidth * share)
    prefill = server.prompt_flops(prompt) / (server.peak * computed)
    requests = 40 * batch
    done = Done(requests, prompt, answer, requests, prefill + known.step, 40 * (answer - 1), reads + known.step)
    with serving(server_of(LLAMA3, release, done._replace(decodes=max(500, done.decodes)))) as (url, _):
        if done.decodes < 500:
            return
        found = tgi_advisor.calibrate(url, spec).calibration
    assert found.bandwidth is not None
    assert math.isclose(found.bandwidth, share, abs_tol=0.001)
    long_enough = prefill + known.step - known.step > 1.5 * server.work.read(1) / (server.bandwidth * found.bandwidth)
    assert (found.compute is not None) == long_enough
    assert found.compute is None or math.isclose(found.compute, computed, abs_tol=0.001)


def test_a_card_that_is_hardly_used_is_doubted() -> None:
    with serving(server_of(LLAMA3, "2.0.4", Done(decode=0.0402))) as (url, _):
        assert "is that the card?" not in run("calibrate", url, *A10G).out
        assert "is that the card?" in run("calibrate", url, "--gpu", "h100-sxm").out


@pytest.mark.parametrize(
    ("release", "batch", "sets", "words"),
    [
        ("2.0.4", 40, (), "with 40.0 requests, more than its largest CUDA graph, of 32: reading at"),
        ("2.0.4", 40, ("--set", "tgi.flags.cuda-graphs=0"), "with 40.0 requests, without CUDA graphs: reading at"),
        ("1.4.5", 4, (), "with 4.0 requests, without CUDA graphs: reading at"),
    ],
)
def test_what_reading_and_launching_both_explain_is_not_measured(
    release: str, batch: int, sets: tuple[str, ...], words: str
) -> None:
    done = Done(requests=40 * batch, prefills=40 * batch, decodes=40 * 149, decode=0.045)
    with serving(server_of(LLAMA3, release, done)) as (url, _):
        ran = run("calibrate", url, *A10G, *sets)
    said = " ".join(ran.err.split())
    assert ran.code == Exit.FACTS
    assert words in said
    assert "so does launching 32 layers" in said
    assert "neither is measured" in said


LLAMA405 = "meta-llama/Llama-3.1-405B-Instruct"


@pytest.mark.parametrize(("prompt", "answer", "step"), [(80, 57, 0.0435), (10_000, 107, 0.0469), (16_000, 102, 0.0476)])
def test_amd_cards_add_up_over_infinity_fabric(prompt: int, answer: int, step: float) -> None:
    """Steps of single requests in tests/data/speed.yaml: weights alone are 0.40 to 0.44 of the bandwidth there."""
    done = Done(40, prompt, answer, 40, 4.0, 40 * (answer - 1), step)
    with serving(server_of(LLAMA405, "2.3.1", done)) as (url, _):
        table = json.loads(run("calibrate", url, "--gpu", "mi300x", "-n", "8", "--json").out)["calibration"]
    (share,) = (row["measured"] for row in table if row["constant"] == "bandwidth")
    assert 0.44 < share < 0.50


def test_what_is_taken_off_a_step_is_said() -> None:
    done = Done(requests=40, prompt=80, answer=57, prefills=40, decodes=40 * 56, decode=0.012)
    with serving(server_of(LLAMA405, "2.3.1", done)) as (url, _):
        ran = run("calibrate", url, "--gpu", "mi300x", "-n", "8")
    said = " ".join(ran.err.split())
    assert ran.code == Exit.FACTS
    assert "takes 12.00 ms; 3.14 ms in which 8 shards add up and 1.5 ms of router and sampling leave 7.36 ms" in said


def test_a_mixture_and_links_nobody_measured_are_refused() -> None:
    with serving(server_of("mistralai/Mixtral-8x7B-Instruct-v0.1", "2.0.4")) as (url, _):
        ran = run("calibrate", url, "--gpu", "a100-80gb-sxm", "-n", "2")
    assert (ran.code, "is a mixture of experts" in ran.err) == (Exit.FACTS, True)
    with serving(server_of(LLAMA3, "3.3.7", Done(decode=0.1))) as (url, _):
        assert run("calibrate", url, "--gpu", "gaudi2").code == Exit.STARTS
        ran = run("calibrate", url, "--gpu", "gaudi2", "-n", "2")
    assert (ran.code, "how fast several intel-gaudi2" in ran.err) == (Exit.FACTS, True)


def test_a_cache_of_eight_bits_is_another_server(tmp_path: Path) -> None:
    eight = ("--set", "model.kv_cache_dtype=fp8_e4m3fn")
    with serving(server_of(LLAMA3, "2.4.1", Done(decode=0.12))) as (url, _):
        sixteen, own = (run("calibrate", url, "--gpu", "l4", *more).out for more in ((), eight))
    assert ("kv_cache" in sixteen, "kv_cache: fp8" in own) == (False, True)
    asked = ("advise", "-m", LLAMA3, "-g", "l4", "-r", "2.4.1", *eight, "--json")
    for text, label in ((sixteen, None), (own, "calibrated")):
        (tmp_path / "own.yaml").write_text(text)
        said = json.loads(run(*asked, "--speed", str(tmp_path / "own.yaml")).out)["speed"]["alone"]
        assert (said["tokens_per_s"] or {}).get("label") == label
        assert said["why_not"] == (None if label else "no measurement supports one of an FP8 KV cache")


def test_a_file_that_is_no_yaml_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("- gpu: [\n")
    ran = run("size", "-m", "gpt2", "-u", "1", "-i", "9", "-o", "9", "--speed", str(tmp_path / "own.yaml"))
    assert ran.code == Exit.FACTS
    assert "own.yaml:1:9:" in ran.err


def test_prompts_longer_than_a_chunk_slow_decoding_down() -> None:
    with serving(server_of(LLAMA3, "3.3.7", Done(prompt=6000, decode=0.1))) as (url, _):
        assert "decode steps compute the rest" not in run("calibrate", url, *A10G).out
        short = run("calibrate", url, *A10G, "--set", "limits.max_batch_prefill_tokens=1024")
    assert "longer than a prefill of 1,024 tokens" in short.out


# what cannot be read


def answer_of(status: int, text: str = "", **headers: str) -> object:
    def give(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text.encode())

    return give


GOOD = server_of(LLAMA3, "3.3.7")
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "nothing": ({}, "/info answers 404"),
    "moved": ({"/info": answer_of(301, Location="https://elsewhere/info")}, "answers 301 to https://elsewhere/info"),
    "a page": ({**GOOD, "/info": "<html>"}, "is a web page"),
    "deep": ({**GOOD, "/info": "[" * 100_000}, "no model_id and version"),
    "another info": ({**GOOD, "/info": '{"model_id": 3}'}, "no model_id and version"),
    "no metrics": ({**GOOD, "/metrics": (503, "down")}, "/metrics answers 503"),
    "empty": ({**GOOD, "/metrics": ""}, "no request yet"),
    "vLLM": ({**GOOD, "/metrics": 'vllm:num_requests_running{model_name="m"} 1\n'}, "but those of vLLM"),
    "no text": ({**GOOD, "/metrics": "tgi_batch 1 2 3 4\nx{"}, "is no text of Prometheus"),
    "nonsense": ({**GOOD, "/metrics": "tgi_queue_size NaN\n"}, "tgi_queue_size is nan"),
    "too much": ({**GOOD, "/metrics": "#" * (5 << 20)}, "more than 4 MiB"),
    "no requests": ({**GOOD, "/metrics": metrics(Done(0, decodes=0, prefills=0), "3.3.7")}, "no request yet"),
    "few": ({**GOOD, "/metrics": metrics(Done(19), "3.3.7")}, "only 19 requests in 20000 decode steps"),
    "few steps": ({**GOOD, "/metrics": metrics(Done(decodes=499), "3.3.7")}, "in 499 decode steps"),
    "too fast": ({**GOOD, "/metrics": metrics(Done(decode=0.004), "3.3.7")}, "alone takes"),
    "too slow": ({**GOOD, "/metrics": metrics(Done(decode=9.0), "3.3.7")}, "times what the bandwidth"),
    "unknown release": ({**GOOD, "/info": info(LLAMA3, "9.9.9-dev0")}, "says that it is TGI '9.9.9-dev0'"),
    "a folder": ({**GOOD, "/info": info("/repository", "3.3.7")}, "/repository"),
    "ends at once": ({"/info": lambda handler: handler.wfile.close()}, "does not answer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_server_or_says_too_little(name: str) -> None:
    answers, words = WRONG[name]
    with serving(answers) as (url, _):  # type: ignore[arg-type]
        ran = run("calibrate", url, *A10G, "--json", "--offline")
    error = json.loads(ran.out)["error"]
    assert ran.code == error["exit_code"] == Exit.FACTS
    assert words in error["message"]
    assert error["hint"] or error["problems"]
    assert "\x1b" not in ran.out + ran.err


def test_a_server_that_trickles_or_is_not_there() -> None:
    with serving({"/info": trickling}) as (url, _):
        ran = run("calibrate", url, *A10G, "--timeout", "0.3")
        assert ran.code == Exit.FACTS
        assert "did not answer in time" in ran.err
    with closing(socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        ran = run("calibrate", f"127.0.0.1:{taken.getsockname()[1]}", *A10G)
    assert ran.code == Exit.FACTS
    assert "Connection refused" in ran.err


def test_a_token_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(handler: BaseHTTPRequestHandler) -> None:
        good = handler.headers.get("Authorization") == "Bearer s3cr3t-token"
        answer_of(200 if good else 401, GOOD[handler.path] if good else "")(handler)  # type: ignore[operator]

    with serving({"/info": guarded, "/metrics": guarded}) as (url, _):
        ran = run("calibrate", url, *A10G)
        assert (ran.code, "TGI_API_KEY" in ran.err) == (Exit.FACTS, True)
        monkeypatch.setenv("TGI_API_KEY", "wr0ng-token")
        ran = run("calibrate", url, *A10G)
        assert "is not accepted" in ran.err
        assert "wr0ng" not in ran.err
        monkeypatch.setenv("TGI_API_KEY", "s3cr3t-token\n")
        ran = run("calibrate", url, *A10G)
        assert ran.code == Exit.STARTS
        assert "s3cr3t" not in ran.out + ran.err
        monkeypatch.setenv("TGI_API_KEY", "s3cr3t\ntoken")
        ran = run("calibrate", url, *A10G)
        assert (ran.code, "s3cr3t" in ran.err) == (Exit.USAGE, False)


@pytest.mark.parametrize(
    "url",
    ["http://me:s3cr3t@h", "http://h/?token=s3cr3t", "ftp://host", "", "http://", "http://ho st", "host:x", "host:0"],
)
def test_what_is_no_address(url: str) -> None:
    ran = run("calibrate", url, *A10G, "--json")
    assert ran.code == json.loads(ran.out)["error"]["exit_code"] == Exit.USAGE
    assert "s3cr3t" not in ran.out + ran.err


def test_what_the_server_does_not_say_has_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(f"model: {{id: {LLAMA3}}}\nhardware: {{gpu: nvidia-a10g}}\n")
    spec = str(tmp_path / "spec.yaml")
    with serving(server_of(LLAMA3, "2.0.4")) as (url, _):
        assert run("calibrate", url).code == Exit.USAGE
        assert run("calibrate", url, "--gpu", "nvidia-a11g").code == Exit.FACTS
        assert stable(run("calibrate", url, spec).out) == stable(run("calibrate", url, *A10G).out)
        assert "release: 2.4" not in run("calibrate", url, spec, "-r", "2.4.1").out
        other = run("calibrate", url, spec, "--set", "model.id=gpt2")
        assert (other.code, "serves meta-llama/Meta-Llama-3-8B-Instruct, not gpt2" in other.err) == (Exit.FACTS, True)
        speculating = run("calibrate", url, *A10G, "--set", "tgi.flags.speculate=2")
        assert (speculating.code, "speculates" in speculating.err) == (Exit.FACTS, True)
    with serving(server_of("/repository", "2.0.4")) as (url, _):
        assert run("calibrate", url, *A10G, "-m", LLAMA3).code == Exit.STARTS
    with serving(server_of("\x1b]0;x\x07/m", "2.0.4")) as (url, _):
        ran = run("calibrate", url, *A10G, "--json")
        assert (ran.code, "\x1b" in ran.out + ran.err) == (Exit.SPEC, False)


ROW = "gpu: x, shards: 1, quantize: none, chunking: true, date: d, source: s"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no list"), ("{}", "no list"), ("[]", "no list"), ("[1]", "no list"), ("- {gpu: x}", "shards"),
        (f"- {{{ROW}}}", "neither bandwidth nor host"), (f"- {{{ROW}, bandwidth: 1.5}}", "between 0 and 1"),
        (f"- {{{ROW}, bandwidth: .nan}}", ""), (f"- {{{ROW}, bandwith: 0.5}}", "bandwith"),
        (f"- {{{ROW.replace('1', 'yes')}, bandwidth: 0.5}}", "shards"),
        ("a: [", ""),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_measurements(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    ran = run("advise", "-m", "gpt2", "-g", "l4", "--speed", str(tmp_path / "own.yaml"), "--json")
    error = json.loads(ran.out)["error"]
    assert ran.code == Exit.FACTS
    assert "holds no measurements of a server" in error["message"]
    assert words in error["message"]
    assert run("size", "-m", "gpt2", "-u", "1", "-i", "9", "-o", "9", "--speed", str(tmp_path)).code == Exit.USAGE


@given(st.text(max_size=300))
def test_any_text_is_metrics_or_is_refused(text: str) -> None:
    try:
        found = traffic(text, "there")
    except FactsError:
        return
    assert min(found) >= 0
