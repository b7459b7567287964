"""What is said of a server's speed: which bound, which label, and where there is no estimate."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from front import run
from hypothesis import given
from hypothesis import strategies as st

import tgi_advisor
from tgi_advisor.estimate import defaults, speed, warmup, windows
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.estimate.speed import Request, Speed
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.estimate.windows import Seen
from tgi_advisor.facts.speed import constants
from tgi_advisor.facts.windows import Layers
from tgi_advisor.gather.facts import gather
from tgi_advisor.spec.reader import read_any

LLAMA3 = "meta-llama/Meta-Llama-3-8B-Instruct"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.1"
MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"


def launch(model: str, gpu: str = "a10g", release: str = "2.0.4", count: int = 1, **more: Any) -> Base:
    """A launch, everything but its limits."""
    asked = {"model": {"id": model, **more.pop("of", {})}, "hardware": {"gpu": gpu, "count": count},
             "tgi": {"release": release, **more}}  # fmt: skip
    spec = read_any(asked)
    return warmup.base(defaults.resolve(spec, gather(spec, source="snapshot")))


def fast(here: Base, users: int = 1, prompt: int = 750, answer: int = 150) -> Speed:
    """How fast it is, with a KV cache that holds them."""
    return speed.of(here, 10**9, users, Request(prompt, answer))


# who is estimated, and how it is called


@pytest.mark.parametrize(
    ("gpu", "count", "label", "factor"),
    [
        ("a10g", 1, "estimated", 1.5), ("a10g", 4, "rough", 2.0), ("l4", 1, "rough", 2.0), ("l40s", 2, "rough", 2.0),
        ("h100-sxm", 1, "rough", 2.0), ("rtx-4090", 1, "rough", 2.0), ("h100-sxm", 8, None, None),
        ("amd-mi300x", 1, None, None),
    ],
)  # fmt: skip
def test_only_the_card_of_the_rows_is_estimated(gpu: str, count: int, label: str | None, factor: float | None) -> None:
    said = fast(launch(LLAMA3, gpu, count=count))
    for figure in (said.tokens, said.first):
        assert (figure and figure.label, figure and figure.factor) == (label, factor)


@pytest.mark.parametrize(
    ("here", "users", "why"),
    [
        (launch(MIXTRAL, "a100-80gb-sxm", count=2), 1, "a mixture of experts"),
        (launch(LLAMA3, flags={"speculate": 3}), 1, "speculation"),
        (launch(LLAMA3, "l4", "2.4.1", of={"kv_cache_dtype": "fp8_e4m3fn"}), 1, "an FP8 KV cache"),
        (launch("Qwen/Qwen3-8B", "l4", "3.3.7"), 8, "several requests in transformers' classes"),
    ],
)  # fmt: skip
def test_what_no_row_supports(here: Base, users: int, why: str) -> None:
    said = fast(here, users)
    assert said.tokens is None
    assert said.first is None
    assert said.why_not == f"no measurement supports one {'with' if why == 'speculation' else 'of'} {why}"
    assert said.bound


def test_one_request_of_transformers_classes_is_roughly_known() -> None:
    said = fast(launch("Qwen/Qwen3-8B", "a10g", "3.3.7"))
    assert said.tokens is not None
    assert said.tokens.label == "rough"


# speculation


@pytest.mark.parametrize("users", [1, 16])
@pytest.mark.parametrize("speculate", [1, 3])
def test_a_step_makes_what_is_speculated_too(users: int, speculate: int) -> None:
    plain, more = fast(launch(LLAMA3), users), fast(launch(LLAMA3, flags={"speculate": speculate}), users)
    assert plain.bound is not None
    assert more.bound is not None
    assert math.isclose(more.bound, (1 + speculate) * plain.bound)
    assert f"up to {1 + speculate} tokens a step" in more.note
    assert "tokens a step" not in plain.note
    assert more.answered(Request(750, 150)) == users * 150 / more.bound


def test_size_counts_on_what_is_speculated() -> None:
    asked = ("size", "-m", LLAMA3, "-g", "h100-sxm", "-n", "8", "-r", "2.0.4", "-q", "none", "-u", "20", "-i", "750",
             "-o", "500", "--rps", "2000", "--json")  # fmt: skip
    plain, more = (
        json.loads(run(*asked, *flags).out)["fleets"][0] for flags in ((), ("--set", "tgi.flags.speculate=3"))
    )
    assert more["bound_tokens_per_s"] > plain["bound_tokens_per_s"]
    assert more["replicas"] < plain["replicas"]


# mixtures


def test_a_batch_reads_the_experts_its_tokens_draw() -> None:
    here = launch(MIXTRAL, "a100-80gb-sxm", count=2)
    work = speed._work(Alike(here.setting))
    every = work.weights + work.experts
    assert work.drawn == 2 / 8
    assert work.experts > 0.9 * every
    alone, eight, many = (fast(here, users, 1, 1) for users in (1, 8, 100))
    bandwidth = here.setting.facts.gpu.bandwidth
    assert bandwidth
    for said, share in ((alone, 1 / 4), (eight, 1 - 0.75**8), (many, 1.0)):
        assert said.bound is not None
        read = work.weights + share * work.experts
        assert math.isclose(said.bound, said.together * bandwidth / read, rel_tol=0.001)
    assert alone.note == ""
    assert "drawn evenly, so that a step of 8 tokens reads 90 % of them" in eight.note
    server = speed.Server(here, constants())
    assert server.prefill(1) < 0.4 * server.prefill(30)


def test_a_plan_says_what_its_bound_is_counted_with() -> None:
    said = run("advise", "-m", MIXTRAL, "-g", "a100-80gb-sxm", "-n", "2", "-r", "2.0.4", "--context", "4k").out
    assert "experts are taken to be drawn evenly" in " ".join(said.split())


# windows


@pytest.mark.parametrize(
    ("model", "gpu", "release", "layers"),
    [
        (MISTRAL, "a10g", "1.1.0", Layers(0, 32, 4096)),
        (MISTRAL, "a10g", "2.0.4", Layers(0, 32, 4096)),
        (MISTRAL, "a10g", "2.3.0", Layers(32, 0, 0)),
        (MISTRAL, "a10g", "2.3.1", Layers(0, 32, 4096)),
        (MISTRAL, "a10g", "2.4.1", Layers(0, 32, 4096)),
        (MISTRAL, "a10g", "3.3.7", Layers(0, 32, 4096)),
        (MISTRAL, "amd-mi300x", "2.4.1", Layers(32, 0, 0)),
        ("mistralai/Mistral-7B-Instruct-v0.2", "a10g", "3.3.7", Layers(32, 0, 0)),
        ("Qwen/Qwen2.5-7B-Instruct", "a10g", "3.3.7", Layers(28, 0, 0)),
        ("microsoft/Phi-3-mini-4k-instruct", "a10g", "2.0.4", Layers(32, 0, 0)),
        ("microsoft/Phi-3-mini-4k-instruct", "a10g", "3.3.7", Layers(32, 0, 0)),
        ("google/gemma-2-9b-it", "a10g", "2.2.0", Layers(42, 0, 0)),
        ("google/gemma-2-9b-it", "a10g", "3.3.7", Layers(21, 21, 4096)),
        ("google/gemma-3-27b-it", "h100-sxm", "3.3.7", Layers(10, 52, 1024)),
        (LLAMA3, "a10g", "3.3.7", Layers(32, 0, 0)),
    ],
)
def test_layers_that_read_a_window(model: str, gpu: str, release: str, layers: Layers) -> None:
    assert windows.seen(launch(model, gpu, release).setting).layers == layers


def test_the_bound_reads_no_more_than_the_window() -> None:
    for release in ("2.0.4", "3.3.7"):
        here = launch(MISTRAL, "h100-sxm", release)
        window = here.geometry.kv_bytes_per_token * 4096
        assert speed.cache_of(here, 16_000, 500) == window
        assert speed.cache_of(here, 1000, 500) == here.geometry.kv_bytes_per_token * 1250
    plan = tgi_advisor.advise(
        {"model": {"id": MISTRAL}, "hardware": {"gpu": "h100-sxm"}, "limits": {"max_total_tokens": 32768}}
    )
    assert plan.speed
    assert plan.speed.full
    assert plan.speed.full.bound
    weights = 14.2e9
    assert plan.speed.full.bound > plan.speed.full.together * 3.35e12 / (
        weights + plan.speed.full.together * 5000 * 131072
    )


@given(st.integers(0, 9000), st.integers(1, 3000), st.integers(1, 8000))
def test_what_is_read_is_the_mean_over_the_answer(prompt: int, answer: int, window: int) -> None:
    sliding, mixed = Seen(Layers(0, 4, window)), Seen(Layers(1, 3, window))
    steps = [min(prompt + done + 0.5, window) for done in range(answer)]
    assert math.isclose(sliding.mean(prompt, answer), sum(steps) / answer, abs_tol=0.5)
    assert math.isclose(mixed.mean(prompt, answer), (prompt + answer / 2 + 3 * sliding.mean(prompt, answer)) / 4)
    pairs = sum(min(token + 0.5, window) for token in range(prompt))
    assert math.isclose(sliding.pairs(prompt), pairs, abs_tol=0.5)


# CUDA graphs


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (launch(LLAMA3, release="1.3.4"), "0.5 ms for each of 32 layers: a release that captures them is the speed-up"),
        (launch(LLAMA3, release="1.4.5"), "--enable-cuda-graphs is the speed-up"),
        (launch(LLAMA3, flags={"cuda-graphs": "0"}), "TGI captures them unless --cuda-graphs 0 says not to"),
        (launch(LLAMA3, of={"quantize": "bitsandbytes"}), "TGI captures none with bitsandbytes"),
        (launch(LLAMA3, of={"quantize": "bitsandbytes-nf4"}), "this release captures none with bitsandbytes-nf4"),
        (launch(LLAMA3, flags={"speculate": 40}), "no size that is captured is larger than the 40 tokens"),
        (launch(LLAMA3), ""),
    ],
)
def test_what_would_capture_graphs(here: Base, words: str) -> None:
    note = fast(here).note
    assert words in note
    assert bool(words) == bool(note)
    assert ("is the speed-up" in note) == (here.setting.facts.release.version < (2, 0, 0))


def test_a_padded_class_never_has_graphs() -> None:
    here = launch("mosaicml/mpt-7b", "a10g", "2.4.1")
    assert not here.setting.family.paged
    assert fast(here).note == "TGI captures no CUDA graphs for the padded class that serves it"
