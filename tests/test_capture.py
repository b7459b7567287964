"""CUDA graphs that may not fit beside the KV cache, and what TGI does then, through the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from front import run
from golden import Golden

LLAMA405, LLAMA70, QWEN = (
    "meta-llama/Llama-3.1-405B-Instruct-FP8", "meta-llama/Llama-2-70b-chat-hf", "Qwen/Qwen2.5-32B-Instruct-GPTQ-Int4",
)  # fmt: skip


def asked(model: str, gpu: str, release: str, prompt: int, total: int, *more: str) -> tuple[str, ...]:
    limits = (f"limits.max_input_tokens={prompt}", f"limits.max_total_tokens={total}")
    sets = [word for one in (*limits, *more) for word in ("--set", one)]
    return ("--model", model, "--gpu", gpu, "--release", release, *sets)


def captured(*args: str) -> dict[str, Any] | None:
    ran = run("predict", *args, "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["outcome"]) == (0, "starts"), ran.out
    capture: dict[str, Any] | None = found["capture"]
    return capture


ISSUE_2572 = asked(LLAMA405, "nvidia-h100-sxm", "2.2.0", 500, 13107, "hardware.count=8", "hardware.driver=535.154.05")
SMALL = "limits.max_batch_prefill_tokens=100"
CASES = {
    "eight shards, an old driver (issue 2572)": ISSUE_2572,
    "eight shards, many sizes": asked(
        LLAMA70, "nvidia-a10g", "2.0.4", 400, 800, "hardware.count=8",
        "tgi.flags.cuda-graphs=[1,2,4,8,16,24,32,40,48,56,64,80,96,128]",
    ),
    "one GPU, what the driver keeps": asked(
        QWEN, "nvidia-l4", "2.4.0", 100, 200, SMALL, "tgi.flags.cuda-graphs=[128,64,32,16,8,4,2,1]"
    ),
    "one GPU, what PyTorch allocates": asked(
        QWEN, "nvidia-l4", "2.4.0", 100, 200, SMALL, "tgi.flags.cuda-graphs=[1024,512,256]"
    ),
    "one GPU, a release that survives every error": asked(
        "codellama/CodeLlama-7b-hf", "nvidia-t4", "1.4.5", 100, 200, SMALL, "tgi.flags.enable-cuda-graphs=true"
    ),
    "one GPU, enough for all": asked(QWEN, "nvidia-l40s", "2.4.0", 100, 200, SMALL),
}  # fmt: skip


def test_what_happens_where_graphs_may_not_fit(golden: Golden) -> None:
    said = {name: captured(*args) for name, args in CASES.items()}
    golden("cli/graphs.json", json.dumps(said, indent=2) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_the_headline_says_what_the_verdict_is(name: str) -> None:
    found = captured(*CASES[name])
    assert found is not None
    page = run("predict", *CASES[name]).out
    words = " ".join(page.split())
    headline = "but its CUDA graphs may not fit." in words
    assert headline is (found["outcome"] == "may_not_fit") is (found["then"] is not None)
    assert (f"CUDA graphs: {found['why']}. Use {found['next_step']}" in words) is headline


def test_the_page_of_graphs_that_end_the_start(golden: Golden) -> None:
    golden("cli/graphs.txt", run("predict", *ISSUE_2572).out)


def test_a_newer_driver_or_fewer_sizes_make_them_fit() -> None:
    newer = captured(*ISSUE_2572, "--set", "hardware.driver=550.54.15")
    fewer = captured(*ISSUE_2572, "--set", "tgi.flags.cuda-graphs=[8,4]")
    assert newer is not None
    assert fewer is not None
    assert newer["outcome"] == fewer["outcome"] == "fits"
    assert captured(*ISSUE_2572, "--set", "tgi.flags.cuda-graphs=[0]") is None


def test_without_a_reserved_cache_nothing_is_said_of_graphs() -> None:
    args = ("--model", "EleutherAI/gpt-j-6b", "--gpu", "nvidia-l4", "--release", "2.0.4")
    assert json.loads(run("advise", *args, "--json").out)["capture"] is None


BOUND = (
    "--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "nvidia-l4", "--release", "3.3.7",
    "--set", "limits.max_batch_prefill_tokens=128", "--set", "tgi.flags.cuda-graphs=[1024,512]",
    "--set", "tgi.flags.max-concurrent-requests=1", "--set", "tgi.env.TGI_WIGGLE_ROOM='0.96'",
)  # fmt: skip


def test_advise_stops_where_graphs_may_end_the_start() -> None:
    calm, risky = (json.loads(run("advise", *BOUND, *more, "--json").out) for more in ((), ("--allow-risk",)))
    assert calm["search"]["bound_by"].startswith("what CUDA graphs need")
    assert [one["under_load"]["verdict"] for one in (calm, risky)] == ["tight", "tight"]
    assert (calm["capture"]["then"], risky["capture"]["then"]) == (None, "ends")
    total = calm["limits"]["max_total_tokens"]
    assert risky["limits"]["max_total_tokens"] > total
    longer = run("advise", *BOUND, "--set", f"limits.max_total_tokens={total + 1}", "--json")
    assert json.loads(longer.out)["capture"]["then"] == "ends"


def test_a_riskier_start_says_that_graphs_are_what_it_risks() -> None:
    page = " ".join(run("advise", *BOUND).out.split())
    assert "would start, but the capture of CUDA graphs may end the start: --allow-risk" in page
    assert "would start, at risk under load" not in page
