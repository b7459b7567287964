"""`fits`, `sweep` and `size`: what they print, what they refuse, and the laws they keep."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from front import L4, PRICES, price_list, process, run
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st

import tgi_advisor
from tgi_advisor import ask
from tgi_advisor.choose import axes, load, rough
from tgi_advisor.choose.fits import Ladder
from tgi_advisor.errors import AdvisorError, Exit, UsageError
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather.facts import gather
from tgi_advisor.pictures import figure as pictures
from tgi_advisor.pictures import files, terminal
from tgi_advisor.spec.records import Spec
from tgi_advisor.tabular import Column, Table

QWEN = ("--model", "Qwen/Qwen2.5-7B-Instruct")
LLAMA31 = ("--model", "meta-llama/Llama-3.1-8B-Instruct")
LLAMA3 = ("--model", "meta-llama/Meta-Llama-3-8B-Instruct")


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A price list of the user's."""
    return price_list(tmp_path, PRICES.replace("}", ", p5.48xlarge: 80}"))


def rows(key: str, *args: str) -> list[dict[str, Any]]:
    """The rows of an answer."""
    found: list[dict[str, Any]] = json.loads(run(*args, "--json").out)[key]
    return found


# fits


def test_which_gpus_run_a_model(golden: Golden, own: str) -> None:
    ran = run("fits", *QWEN, "--count", "1", "--prices", own)
    golden("choose/fits-model.txt", ran.out)
    assert ran.code == Exit.STARTS
    folded, every = (rows("fits", "fits", *QWEN, "--count", "1", *more) for more in ((), ("--all",)))
    assert len({row["gpu"] for row in folded}) == len(folded) == len({row["gpu"] for row in every})
    assert f"{len(every) - len(folded)} rows with other weights: --all." in ran.out
    for row in folded:
        same = [one for one in every if one["gpu"] == row["gpu"]]
        assert row in same
        calm = [one for one in same if one["under_load"] != "at risk"] or same
        assert row["max_total_tokens"] == max(one["max_total_tokens"] for one in calm)


def test_how_many_users_at_which_context(golden: Golden) -> None:
    golden("choose/fits-ladder.txt", run("fits", *QWEN, "--gpu", "g6.12xlarge").out)
    ladder = rows("fits", "fits", *QWEN, "--gpu", "g6.12xlarge")
    held = [rung["concurrency"] for rung in ladder]
    assert held == sorted(held, reverse=True)
    ran = run("fits", "-m", "meta-llama/Llama-3.1-70B-Instruct", "-g", "nvidia-t4")
    assert ran.code == Exit.OUT_OF_MEMORY
    assert "does not start" in ran.out


def test_which_models_run_on_a_gpu() -> None:
    ran = run("fits", "--gpu", "nvidia-rtx-3080-10gb", "--format", "csv")
    told = list(csv.DictReader(io.StringIO(ran.out)))
    assert ran.code == Exit.STARTS
    assert all(row["outcome"] == "starts" for row in told)
    lengths = [int(row["max_total_tokens"]) for row in told if row["under_load"] != "at risk"]
    assert lengths == sorted(lengths, reverse=True)
    one = json.loads(run("advise", "-m", told[0]["model"], "-g", "nvidia-rtx-3080-10gb", "--json").out)
    assert str(one["limits"]["max_total_tokens"]) == told[0]["max_total_tokens"]


def test_advise_with_half_a_question_is_answered_too() -> None:
    for half in (("-g", "nvidia-rtx-3080-10gb"), (*QWEN, "-n", "1")):
        assert run("advise", *half).out == run("fits", *half).out
        assert run("advise", *half, "--json").out == run("fits", *half, "--json").out
    assert run("advise", "-g", "nvidia-l5").code == Exit.FACTS
    assert run("predict", "-g", "nvidia-l4").code == Exit.USAGE


def test_a_plan_in_a_notebook() -> None:
    plan = tgi_advisor.advise({"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}})
    assert repr(plan).startswith("<Qwen/Qwen2.5-7B-Instruct on 1 x nvidia-l4, TGI 3.3.7: starts, max_input_tokens ")
    page = plan._repr_html_()
    assert all(part.name in page for part in plan.prediction.parts if part.bytes)
    assert page.count("<span") == 2 * len([part for part in plan.prediction.parts if part.bytes > 0])
    hostile = plan._replace(facts=plan.facts._replace(model=plan.facts.model._replace(id="<script>x</script>")))
    assert "<script>" not in hostile._repr_html_()


@settings(max_examples=25, deadline=None)
@given(
    gpu=st.sampled_from(["nvidia-l4", "nvidia-a10g", "nvidia-a100-80gb-sxm", "amd-mi300x", "intel-cpu"]),
    release=st.sampled_from(["1.4.5", "2.0.4", "2.4.1", "3.3.7"]),
    count=st.sampled_from([1, 2, 8]),
)
def test_a_plan_says_how_fast_it_is(gpu: str, release: str, count: int) -> None:
    asked = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "tgi": {"release": release},
             "hardware": {"gpu": gpu, "count": count, **({"memory": "64GiB"} if "cpu" in gpu else {})}}  # fmt: skip
    try:
        plan = tgi_advisor.advise(asked)
    except AdvisorError:
        return
    if plan.prediction.outcome != "starts":
        assert plan.speed is None
        return
    limits, said = plan.prediction.limits, plan.speed
    assert said is not None
    assert said.request.tokens == limits.max_total_tokens
    assert (said.full is not None) == ((plan.prediction.concurrency or 0) > 1)
    for one in filter(None, (said.alone, said.full)):
        assert (one.bound is None) == (plan.facts.gpu.bandwidth is None)
        assert bool(one.tokens) != bool(one.why_not)
        if one.tokens and one.bound:
            assert 0 < one.tokens.low <= one.tokens.value <= one.tokens.high <= one.bound
    if said.full and said.full.bound and said.alone.bound:
        assert said.alone.bound < said.full.bound <= said.full.together * said.alone.bound


def test_users_that_no_fleet_holds_are_a_sentence() -> None:
    asked = ("size", *QWEN, "-g", "nvidia-l4", "-i", "1500", "-o", "500", "-u", str(10**12))
    ran = run(*asked)
    assert ran.code == Exit.OUT_OF_MEMORY
    assert "servers or more, and fleets of up to 10,000 are counted" in " ".join(ran.out.split())
    told = json.loads(run(*asked, "--json").out)
    assert told["fleets"] == []
    assert "10,000" in told["why"]


def test_more_users_than_the_router_lets_in_are_let_in() -> None:
    asked = ("size", *QWEN, "--gpu", "nvidia-l40s", "-n", "1", "-q", "none", "-i", "100", "-o", "50")
    (few,), (many,) = rows("fleets", *asked, "-u", "128"), rows("fleets", *asked, "-u", "1000")
    assert "max-concurrent-requests" not in run(*asked, "-u", "128", "--emit-spec").out
    assert f"max-concurrent-requests: {many['requests']}\n" in run(*asked, "-u", "1000", "--emit-spec").out
    assert many["requests"] > few["requests"] == 128
    (own,) = rows("fleets", *asked, "-u", "1000", "--set", "tgi.flags.max-concurrent-requests=200")
    assert (own["requests"], own["replicas"]) == (200, 5)


@pytest.mark.parametrize(("model", "gpu", "more"), [
    (("-m", "Qwen/Qwen3-0.6B"), "l4", ("-i", "500", "-o", "100", "-u", "3000")),
    (QWEN, "l40s", ("-i", "100", "-o", "50", "-u", "20000")),
])  # fmt: skip
def test_no_other_number_let_in_takes_fewer_servers(model: tuple[str, ...], gpu: str, more: tuple[str, ...]) -> None:
    """One server too many was counted: each number let in changes what the KV cache holds, up or down."""
    asked = ("size", *model, "-q", "none", "-g", gpu, "-n", "1", *more)
    (found,) = rows("fleets", *asked)
    for let_in in range(found["requests"] - 8, found["requests"] + 9):
        (told,) = rows("fleets", *asked, "--set", f"tgi.flags.max-concurrent-requests={let_in}")
        assert told["requests"] <= found["requests"], let_in
        assert told["replicas"] >= found["replicas"], let_in


@pytest.mark.parametrize(
    ("release", "env", "holds"),
    [
        ("1.4.1", (), False), ("2.2.0", (), False), ("2.3.0", (), True), ("2.4.1", (), True), ("3.3.7", (), False),
        ("3.3.7", ("--set", "tgi.env.PREFILL_CHUNKING=0"), True),
    ],
)  # fmt: skip
def test_a_batch_that_tgi_bounds(release: str, env: tuple[str, ...], holds: bool) -> None:
    card = ("-g", "a100-80gb-sxm", "-n", "1", "-r", release, *env)
    asked: tuple[str, ...] = ("size", *LLAMA3, "-q", "none", "-u", "40", "-i", "500", "-o", "200", *card)
    asked = (*asked, "--set", "tgi.flags.max-batch-size=8")
    (found,) = rows("fleets", *asked)
    assert (found["requests"], found["replicas"]) == ((8, 5) if holds else (128, 1))
    said = " ".join(run(*asked).out.split())
    full = "saturates at 8 requests, as --max-batch-size lets no more into a batch" if holds else "its KV cache is full"
    assert full in said
    assert (found["saturates_requests"] == 8) == holds
    (free,) = rows("fleets", *asked[:-2])
    assert free["saturates_requests"] > 128


@pytest.mark.parametrize("release", ["2.4.1", "3.3.7"])
@pytest.mark.parametrize(("users", "rps"), [(10, 5), (1, 0.01), (200, 5), (10, 40), (300, 0.5)])
def test_a_rate_is_what_the_replicas_make(release: str, users: int, rps: float) -> None:
    asked = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "l4"}}
    ways: dict[str, Any] = {"gpu": ["l4"], "count": [1], "release": [release], "quantize": ["none"]}
    found = tgi_advisor.size(asked, users=users, prompts=1000, answers=300, rps=rps, **ways)
    (fleet,) = found.fleets
    assert fleet.speed.most
    assert fleet.in_flight
    assert fleet.together
    assert fleet.answer
    assert fleet.in_flight == fleet.speed.together <= fleet.each
    assert fleet.replicas * fleet.speed.most >= rps * 300
    # Little's law, rounded up to a whole request on each replica
    assert fleet.answer.seconds * rps / fleet.replicas <= fleet.in_flight * (1 + 1e-9)
    assert math.isclose(fleet.answer.seconds, fleet.in_flight * 300 / fleet.speed.most)
    if fleet.in_flight > 1:
        alone = tgi_advisor.size(asked, users=fleet.in_flight - 1, prompts=1000, answers=300, **ways).fleets[0].speed
        assert alone.together == fleet.in_flight - 1
        assert fleet.replicas * (alone.most or 0) < rps * 300
    said = " ".join(found.text(200).split())
    assert f"{fleet.in_flight} request{'s' if fleet.in_flight > 1 else ''} in flight" in said
    users_said = f"{users} user{'s' if users > 1 else ''} stated"
    assert f", {'more than' if fleet.together > users else 'of'} the {users_said}." in said
    (row,) = found.records()
    assert (row["in_flight"], row["in_flight_together"]) == (fleet.in_flight, fleet.together)
    assert (row["tokens_per_s"] is None) == (row["answer_s_label"] == "at least")
    assert row["answer_s"] == round(fleet.answer.seconds, 3)


def test_without_a_rate_nothing_is_in_flight_by_one() -> None:
    (row,) = rows("fleets", "size", *QWEN, "-q", "none", "-g", "l4", "-n", "1", "-u", "1", "-i", "1k", "-o", "300")
    assert (row["in_flight"], row["in_flight_together"]) == (None, None)
    assert row["saturates_requests"] == row["requests"] > 1
    ran = run("size", *QWEN, "-q", "none", "-g", "l4", "-n", "1", "-u", "1", "-i", "1k", "-o", "300")
    assert "with 1 request at once" in " ".join(ran.out.split())


def test_a_price_has_no_more_digits_than_its_list(tmp_path: Path) -> None:
    path = price_list(tmp_path, PRICES.replace("g5.xlarge: 1,", "g5.xlarge: 0.706832,"))
    asked = ("size", *LLAMA3, "-q", "none", "-g", "g5.xlarge", "-n", "1", "-i", "750", "-o", "150", "--prices", path)
    for replicas in range(1, 40):
        (found,) = rows("fleets", *asked, "-u", str(31 * replicas))
        assert len(str(found["price_per_hour"]).partition(".")[2]) <= 6


def test_where_nothing_carries_a_load_the_reason_is_said_in_every_format() -> None:
    asked = ("size", *QWEN, "--gpu", "l4", "-u", "1", "-i", "100", "-o", "50")
    slow, long = ("--latency", "0.00001"), ("--set", "hardware.headroom=100GiB")
    for more, words in ((slow, "no server answers within 1e-05 s"), (long, "")):
        ran = run(*asked, *more, "--json")
        body = json.loads(ran.out)
        assert (ran.code, body["fleets"]) == (Exit.OUT_OF_MEMORY, [])
        assert body["why"].startswith("Nothing carries it: ")
        assert words in body["why"]
        assert body["why"] in ran.err
        assert body["why"] in run(*asked, *more, "-f", "csv").err
        emitted = run(*asked, *more, "--emit-spec")
        assert (emitted.code, emitted.out) == (Exit.OUT_OF_MEMORY, "")
        assert body["why"] in emitted.err
    nowhere = ("fits", "-m", "meta-llama/Llama-3.1-405B-Instruct", "-n", "1")
    told = json.loads(run(*nowhere, "--json").out)
    assert run(*nowhere).code == Exit.OUT_OF_MEMORY
    assert {row["outcome"] for row in told["fits"]} <= {"out_of_memory", "refused"}
    assert told["why"].startswith("No option starts; ")
    assert "why" not in json.loads(run("fits", *QWEN, "-n", "1", "--json").out)


@pytest.mark.parametrize("amount", ["nan", "inf", "-1", "0", "x"])
def test_amounts_that_are_none(amount: str) -> None:
    for option in ("--rps", "--latency"):
        ran = run("size", *QWEN, "--gpu", "l4", "-u", "1", "-i", "10", "-o", "5", option, amount, "--json")
        assert ran.code == Exit.USAGE
        assert json.loads(ran.out)["error"]["kind"] == "usage"


def test_the_last_rung_is_what_the_search_finds() -> None:
    """Pinned to its own length, the search may miss what it finds when the length is open."""
    ran = run("fits", "--model", "meta-llama/Meta-Llama-3-70B-Instruct", "--gpu", "nvidia-rtx-4000-ada", "--count", "8")
    found = tgi_advisor.advise(
        model="meta-llama/Meta-Llama-3-70B-Instruct", gpu="nvidia-rtx-4000-ada", count=8
    ).prediction
    assert found.outcome == "starts"
    assert f"up to {found.limits.max_total_tokens:,} tokens, {found.concurrency} at once" in " ".join(ran.out.split())
    assert ran.out.split("\n")[-2].split()[:2] == [f"{found.limits.max_total_tokens:,}", str(found.concurrency)]


def test_the_models_own_context_is_a_rung_where_more_is_asked_for() -> None:
    ran = run("fits", *LLAMA31, "--gpu", "h100-sxm", "--context", "200k")
    assert [line.split()[0] for line in ran.out.split("\n") if line[:7].strip().replace(",", "").isdigit()][-2:] == [
        "131,072",
        "204,800",
    ]
    assert "max_total_tokens 204,800 is above the model's context of 131,072 tokens" in ran.out


def test_fewer_gpus_than_there_are_is_told() -> None:
    assert "at once, on 2 of the 3\nGPUs." in run("fits", *QWEN, "--gpu", "l4", "--count", "3").out
    assert " of them use fewer of the 3 GPUs." in run("fits", "--gpu", "l4", "--count", "3").out
    assert "fewer of" not in run("fits", "--gpu", "l4").out


def test_every_pair_of_a_release_without_some_images() -> None:
    found = rows("fits", "fits", "--release", "1.4.5")
    refused = {row["gpu"] for row in found if row["why"] == "TGI 1.4.5 has no gaudi image"}
    assert refused == {"intel-gaudi2", "intel-gaudi3"}
    assert any(row["outcome"] == "starts" for row in found)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_every_model_fits_the_terminal_and_a_notebook(width: int) -> None:
    found = tgi_advisor.fits()
    assert max(map(len, found.text(width).split("\n"))) <= width
    assert len(found._repr_html_()) < 100_000


def test_a_notebook_says_why_there_is_nothing() -> None:
    found = tgi_advisor.fits(gpu="gh200")
    assert found._repr_html_() == "<p>None of 143 shipped models starts on 1 x nvidia-gh200-96gb.</p>"


# sweep


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("context", ("--vary", "max_total_tokens=1k..64k")),
        ("product", ("--vary", "hardware.count=1,2", "--vary", "model.kv_cache_dtype=null,fp8_e4m3fn")),
        ("prefill", ("--vary", "limits.max_batch_prefill_tokens=2k..8k:2k")),
        ("gpus", ("--vary", "hardware.gpu.name=nvidia-t4,nvidia-l40s", "--set", "limits.max_total_tokens=16k")),
    ],
)
def test_a_sweep(golden: Golden, name: str, args: tuple[str, ...]) -> None:
    ran = run("sweep", L4, *args)
    golden(f"choose/sweep-{name}.txt", ran.out)
    assert ran.code == Exit.STARTS
    golden(f"choose/sweep-{name}.csv", run("sweep", L4, *args, "--format", "csv").out)


def test_the_table_of_the_notebook() -> None:
    found = tgi_advisor.sweep(
        {"model": {"id": "meta-llama/Llama-3.1-8B-Instruct"}, "hardware": {"gpu": "nvidia-l4", "count": 4},
         "workload": {"max_new_tokens": 1}},
        {"max_total_tokens": range(10_000, 20_001, 1_000)}, method="notebook",
    )  # fmt: skip
    keys = ("cuda_overhead", "model_overhead", "prefill_overhead", "decode_overhead", "kv_cache_full_overhead",
            "total_vram_available", "total_vram_needed", "is_enough_vram", "max_input_tokens")  # fmt: skip
    printed = [tuple(row[key] for key in keys) for row in found.records()]
    assert printed[0] == (4.8, 16.06052, 3.60732, 0.00036, 10.48471, 91.2, 34.95291, True, 9999)
    assert printed[9] == (4.8, 16.06052, 6.85423, 0.00036, 19.9219, 91.2, 47.63701, True, 18999)
    assert len(printed) == 11


def test_facts_are_gathered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(spec: Spec, **rest: Any) -> Facts:
        asked.append(spec.hardware.count)
        return gather(spec, **rest)

    monkeypatch.setattr("tgi_advisor.ask.gather", counted)
    tgi_advisor.sweep(L4, ["max_total_tokens=1k..64k"])
    assert asked == [None]
    tgi_advisor.sweep(L4, {"hardware.count": [1, 2], "max_total_tokens": [4096, 8192], "workload.concurrency": [1, 2]})
    assert asked == [None, 1, 2]


def test_all_names_that_are_not_known_are_said_at_once() -> None:
    varied = ("--vary", "hardware.gpu.name=nvidia-l4,nvidia-l5,auto,t4x", "--vary", "tgi.release=3.3.7,9.9.9,null")
    ran = run("sweep", L4, *varied, "--json")
    assert ran.code == Exit.FACTS
    assert len(json.loads(ran.out)["error"]["problems"]) == 3


def test_counts_are_numbers_however_they_are_written() -> None:
    table = rows("sweep", "sweep", L4, "--vary", "max_total_tokens=4k,8K", "--vary", "hardware.count=1,2")
    assert [(row["max_total_tokens"], row["count"]) for row in table] == [(4096, 1), (4096, 2), (8192, 1), (8192, 2)]
    table = rows("sweep", "sweep", L4, "--vary", "max_total_tokens=4k,auto")
    assert [row["max_total_tokens"] for row in table] == ["4096", "auto"]


def test_a_step_that_does_not_fit_holds_no_request() -> None:
    table = rows("sweep", "sweep", L4, "--vary", "max_total_tokens=28000..31000:250")
    assert {row["outcome"] for row in table} == {"starts", "out_of_memory"}
    for row in table:
        found = (row["max_batch_total_tokens"], row["concurrency"], row["under_load"])
        assert (None not in found) if row["outcome"] == "starts" else found == (None, None, None)


def test_fields_of_one_name_are_told_apart() -> None:
    varied = ("--vary", "container.name=a,b", "--vary", "hardware.gpu.name=nvidia-l4,nvidia-t4")
    table = rows("sweep", "sweep", L4, *varied)
    assert [row["container.name"] for row in table] == ["a", "a", "b", "b"]
    assert [row["hardware.gpu.name"] for row in table] == ["nvidia-l4", "nvidia-t4"] * 2
    table = rows("sweep", "sweep", L4, "--vary", "workload.concurrency=1,3")
    assert [row["workload.concurrency"] for row in table] == [1, 3]
    assert all(row["concurrency"] >= row["workload.concurrency"] for row in table)


def test_another_release_is_swept_with_its_image() -> None:
    table = rows("sweep", "sweep", L4, "--vary", "tgi.release=2.4.1,3.3.7")
    assert [row["outcome"] for row in table] == ["starts", "starts"]
    alone = json.loads(run("advise", L4, "--release", "2.4.1", "--json").out)
    assert table[0]["max_batch_total_tokens"] == alone["limits"]["max_batch_total_tokens"]


def test_where_steps_do_not_fit_is_said_of_the_right_ones() -> None:
    counts = ("--vary", "hardware.count=1,2", "--vary", "max_total_tokens=16k,32k,64k")
    out = " ".join(run("sweep", L4, *counts, "--chart", "concurrency").out.split())
    assert "count 1, from max_total_tokens 32,768 on: no limits" in out
    assert "With count 1 it does not fit from max_total_tokens 32,768 on." in out
    assert "count 2 it does not" not in out
    out = " ".join(run("sweep", L4, *counts, "--chart", "memory").out.split())
    assert "not fit with count 1, max_total_tokens 32,768 or count 1, max_total_tokens 65,536." in out
    out = " ".join(run("sweep", L4, "--vary", "hardware.gpu=nvidia-t4,l4,h100-sxm", "--chart", "memory").out.split())
    assert "It does not fit with gpu nvidia-t4." in out
    assert "GiB of the GPU: nvidia-t4 15.00, l4 22.49, h100-sxm 79.65" in out


def test_a_line_for_every_combination() -> None:
    found = tgi_advisor.sweep(L4, {"hardware.count": [1, 2], "max_total_tokens": [16384, 32768, 65536]})
    figure = ask.drawing(found, "concurrency")
    assert figure.steps == ("16,384", "32,768", "65,536")
    assert [(one.name, one.fits.stops_at) for one in figure.series] == [("count 1", 1), ("count 2", None)]
    held = [step.prediction and step.prediction.concurrency for step in found.steps]
    assert [value for one in figure.series for value in one.values] == held
    for kind in ("concurrency", "memory"):
        text = tgi_advisor.draw(found, kind).decode()
        assert ("count 1 does not fit from here on" in text) == (kind == "concurrency")
        assert ("red: does not fit" in text) == (kind == "memory")


def test_a_step_that_cannot_be_asked_is_one_row() -> None:
    table = rows("sweep", "sweep", *QWEN, "--gpu", "g5.12xlarge", "--vary", "hardware.count=2,4,8")
    assert [row["outcome"] for row in table] == ["starts", "starts", "refused"]
    assert table[2]["why"] == "g5.12xlarge has 4 GPUs, but hardware.count asks for 8"


def test_a_step_is_what_advise_says() -> None:
    for row in rows("sweep", "sweep", L4, "--vary", "max_total_tokens=4k,20k,40k"):
        plan = json.loads(
            run("advise", L4, "--set", f"limits.max_total_tokens={row['max_total_tokens']}", "--json").out
        )
        assert row["outcome"] == plan["outcome"]
        assert row["max_batch_prefill_tokens"] == plan["limits"]["max_batch_prefill_tokens"]
        parts = {part["name"]: part["bytes"] for part in plan["memory"]["parts"]}
        assert row["weights_bytes"] == parts["weights"]
        assert sum(row[f"{re.sub('[^a-z]', '_', name.lower())}_bytes"] for name in parts) == sum(parts.values())


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ((), "nothing is varied"), (("max_total_tokens",), "varies nothing"),
        (("max_total_tokens=",), "varies nothing"), (("max_total_tokens=8k..1k",), "runs backwards"),
        (("max_total_tokens=1..1000000000:1",), "1,000,000,000 steps"),
        (("max_total_tokens=1k..x",), "expected a count"), (("max_total_tokens=0..4",), "below 1"),
        (("max_total_tokens=8k,x",), "expected a count"), (("hardware.count=1,-2",), "expected a count"),
        (("max_totl_tokens=1",), "did you mean 'max_total_tokens'"), (("max_total_tokens=,",), "over nothing"),
        (("max_total_tokens=1k", "limits.max_total_tokens=2k"), "varied twice"),
        (("max_total_tokens=1..9999:1", "hardware.count=1,2"), "19,998 steps"),
        (("max_total_tokens=1..5:0",), "below 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept(vary: tuple[str, ...], words: str) -> None:
    ran = run("sweep", L4, *(word for one in vary for word in ("--vary", one)), "--json")
    error = json.loads(ran.out)["error"]
    assert ran.code == Exit.USAGE
    assert words in f"{error['message']} {error['hint']}"


def test_a_name_that_is_not_known_ends_a_sweep() -> None:
    assert run("sweep", L4, "--vary", "hardware.gpu=nvidia-l4,nvidia-l5").code == Exit.FACTS
    assert run("sweep", L4, "--vary", "max_total_tokens=12").code == Exit.SPEC


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 400))
def test_a_range_has_its_ends_and_steps(low: int, more: int, step: int) -> None:
    doubled = [int(value) for value in axes.read([f"max_total_tokens={low}..{low + more}"])[0].values]
    assert (doubled[0], doubled[-1]) == (low, low + more)
    assert all(low < high <= 2 * low for low, high in pairwise(doubled))
    stepped = [int(value) for value in axes.read([f"max_total_tokens={low}..{low + more}:{step}"])[0].values]
    assert stepped == list(range(low, low + more + 1, step))


def test_pictures(tmp_path: Path, golden: Golden) -> None:
    args = ("sweep", L4, "--vary", "max_total_tokens=2k..64k")
    golden("choose/chart-memory.txt", run(*args, "--chart", "memory").out)
    golden("choose/chart-concurrency.txt", run(*args, "--chart", "auto").out)
    golden(
        "choose/chart-budget.txt", run("sweep", L4, "--vary", "max_batch_prefill_tokens=2k..16k", "--chart", "auto").out
    )
    svg, png = tmp_path / "a.svg", tmp_path / "a.PNG"
    assert run(*args, "--picture", str(svg), "--chart", "memory").code == Exit.STARTS
    assert run(*args, "--picture", str(png)).code == Exit.STARTS
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for words in ("weights", "KV cache", "the GPU: 22.49 GiB", "does not fit from here on", "32,768"):
        assert words in text
    assert run(*args, "--picture", str(svg), "--chart", "memory").code == Exit.STARTS
    assert svg.read_text() == text
    assert run(*args, "--picture", str(tmp_path / "a.gif")).code == Exit.USAGE
    assert run(*args, "--picture", str(tmp_path / "no" / "a.svg")).code == Exit.USAGE


LARGE = {"model": {"id": "meta-llama/Llama-3.3-70B-Instruct"}, "hardware": {"gpu": "a100-80gb-sxm"}}


@pytest.mark.parametrize("kind", ["memory", "concurrency"])
def test_where_it_starts_to_fit_is_marked(kind: Literal["memory", "concurrency"]) -> None:
    found = tgi_advisor.sweep(LARGE, {"hardware.count": "1,2,4"})
    figure = ask.drawing(found, kind)
    assert (figure.fits.up_to, figure.fits.stops_at, figure.fits.short) == (0, None, (0,))
    text = " ".join(terminal.draw(figure, 80, colour=False).split())
    assert text.endswith("It does not fit up to count 1.")
    assert ("! 1┤" in text) == (kind == "memory")
    svg = tgi_advisor.draw(found, kind).decode()
    for words in ("does not fit up to here", "count (red: does not fit)", "#b22222"):
        assert words in svg
    assert "from here on" not in svg


def test_both_ends_and_what_lies_between() -> None:
    fates = ("out_of_memory", "starts", "out_of_memory", "refused", "starts", "out_of_memory", "out_of_memory")
    table = Table(
        tuple(Column(key, key, "count", "") for key in ("n", "outcome", "weights_bytes", "concurrency")),
        tuple((n, fate, 2**30, 1 if fate == "starts" else None) for n, fate in enumerate(fates)),
    )
    sentence = "It does not fit up to n 0, nor from n 5 on. It does not fit with n 2. It is refused with n 3."
    for kind in ("memory", "concurrency"):
        figure = pictures.figure(table, ["n"], kind, "")
        assert (figure.fits.short, figure.fits.refused, figure.said) == ((0, 2, 5, 6), (3,), sentence)
        svg = files.render(figure, "svg").decode()
        for words in ("up to here", "from here on", "n (red: does not fit, grey: refused)", ">refused</text>"):
            assert words in svg
    never = table._replace(rows=tuple((n, "out_of_memory", 2**30, None) for n in range(3)))
    assert pictures.figure(never, ["n"], "memory", "").said == "It does not fit at any step."


def test_what_is_refused_has_no_bar() -> None:
    """The rope scaling of Llama 3.1 is one that TGI 2.0 does not know: more memory would not help."""
    ran = run("sweep", L4, "--vary", "tgi.release=2.0.4,2.2.0", "--chart", "memory")
    assert re.search(r"2\.0\.4┤ refused +│", ran.out)
    assert " ".join(ran.out.split()).endswith("It is refused with release 2.0.4.")
    assert "not fit" not in ran.out
    found = tgi_advisor.sweep(L4, {"tgi.release": "2.0.4,2.2.0"})
    figure = ask.drawing(found, "memory")
    assert all((one.values[0], one.values[1] is None) == (None, False) for one in figure.series)
    svg = tgi_advisor.draw(found, "memory").decode()
    assert "release (grey: refused)" in svg
    assert "does not fit" not in svg


@pytest.mark.parametrize(("axes", "kind"), [
    ({"max_total_tokens": "2k..64k"}, "budget"),
    ({"max_total_tokens": "2k..64k"}, "memory"),
    ({"max_total_tokens": "2k..64k"}, "concurrency"),
    ({"hardware.gpu": "nvidia-l4,nvidia-h100-sxm", "tgi.release": "2.4.0,3.3.7"}, "memory"),
    ({"hardware.gpu": "nvidia-l4,nvidia-h100-sxm", "max_total_tokens": "2k,4k"}, "concurrency"),
])  # fmt: skip
def test_there_is_room_above_the_highest(axes: dict[str, str], kind: Literal["memory", "budget"]) -> None:
    figure = ask.drawing(tgi_advisor.sweep(L4, axes), kind)
    heights = [value for one in figure.series for value in one.values if value]
    if figure.stacked:
        bars = zip(*(one.values for one in figure.series), strict=True)
        heights = [*(sum(value or 0 for value in bar) for bar in bars), *(limit or 0 for limit in figure.limits)]
    assert figure.top == pytest.approx(1.05 * max(heights))


def test_without_the_extra_the_table_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("plotext", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    for more in (("--chart", "memory"), ("--picture", str(tmp_path / "a.png"))):
        ran = run("sweep", L4, "--vary", "max_total_tokens=2k,4k", *more)
        assert ran.code == Exit.USAGE
        assert "MAX_TOTAL_TOKENS" in ran.out
        assert "pip install 'tgi-advisor[plots]'" in ran.err


def test_what_fits_holds_what_is_asked_for() -> None:
    load = ("--context", "16k", "--users", "20")
    for command in ("advise", "fits"):
        found = rows("fits", command, "-g", "l4", *load)
        assert found
        assert all(row["max_total_tokens"] == 16384 for row in found)
        assert all(row["concurrency"] is None or row["concurrency"] >= 20 for row in found)
        assert "openai-community/gpt2" not in {row["model"] for row in found}  # its context is 1,024
        found = rows("fits", command, *QWEN, *load, "--set", "tgi.release=3.2.3")
        assert {row["release"] for row in found} == {"3.2.3"}
        assert all(row["concurrency"] >= 20 for row in found if not row["gpu"].startswith("intel-gaudi"))
    assert "shorter context" in run("fits", "-g", "l4", *load).out
    assert rows("fits", "fits", *QWEN, "-g", "l4", "--context", "16k")[-1]["max_total_tokens"] == 16384
    assert run("fits", "--context", "16k").code == Exit.USAGE


def test_fits_takes_nothing_it_does_not_use(own: str) -> None:
    assert run("fits", "--count", "2").code == Exit.USAGE
    assert run("fits", "--gpu", "l4", "--prices", own).code == Exit.USAGE


# size


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("users", ("-m", "meta-llama/Llama-3.1-8B-Instruct", "-u", "10", "-i", "1500", "-o", "500")),
        ("estimate", (*LLAMA3, "-u", "100", "-i", "750,p99=4k", "-o", "150", "-r", "2.0.4", "-q", "none")),
        ("rate", (*LLAMA3, "-u", "20", "-i", "750", "-o", "150", "-r", "2.0.4", "--rps", "9", "--latency", "6")),
        ("graphs", (*LLAMA3, "-u", "20", "-i", "750", "-o", "150", "-r", "1.4.5", "-q", "none")),
    ],
)
def test_a_size(golden: Golden, own: str, name: str, args: tuple[str, ...]) -> None:
    ran = run("size", *args, "-g", "g6.xlarge,g5.xlarge,h100-sxm", "-n", "1,4", "--prices", own)
    golden(f"choose/size-{name}.txt", ran.out)
    assert ran.code == Exit.STARTS


def test_the_spec_of_a_replica_starts(tmp_path: Path) -> None:
    args = (*LLAMA3, "-u", "30", "-i", "750,p99=4k", "-o", "150", "-g", "g5.xlarge", "-n", "1")
    best = rows("fleets", "size", *args)[0]
    path = tmp_path / "replica.yaml"
    path.write_text(run("size", *args, "--emit-spec").out)
    plan = json.loads(run("predict", str(path), "--json").out)
    assert plan["outcome"] == "starts"
    assert plan["limits"]["max_total_tokens"] == best["max_total_tokens"] == 4096 + 150
    assert best["requests"] == plan["limits"]["max_batch_total_tokens"] // 900


def test_replicas_share_an_instance_that_carries_several(tmp_path: Path) -> None:
    text = PRICES.replace("{g5.xlarge: 1, g5.12xlarge: 4.5,", "{g5.xlarge: 1, g5.12xlarge: 3.5,")
    asked = (*LLAMA3, "-i", "750", "-o", "150", "-g", "g5.xlarge", "-n", "1", "-q", "none", "--prices")
    path = price_list(tmp_path, text)
    held = rows("fleets", "size", *asked, path, "-u", "1")[0]["requests"]
    for replicas, instance, instances, price in (
        (1, "g5.xlarge", 1, 1), (3, "g5.xlarge", 3, 3), (4, "g5.12xlarge", 1, 3.5), (9, "g5.xlarge", 9, 9),
        (12, "g5.12xlarge", 3, 10.5),
    ):  # fmt: skip
        (found,) = rows("fleets", "size", *asked, path, "-u", str(held * replicas))
        got = (found["replicas"], found["instance"], found["instances"], found["price_per_hour"])
        assert got == (replicas, instance, instances, price)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(50, 6000), st.integers(1, 1500))
def test_more_users_never_take_fewer_replicas(users: int, more: int, prompt: int, answer: int) -> None:
    def replicas(count: int) -> list[int]:
        asked = {"model": {"id": "meta-llama/Meta-Llama-3-8B-Instruct"}, "hardware": {"gpu": "a10g"}}
        found = tgi_advisor.size(
            asked, users=count, prompts=prompt, answers=answer, gpu=["a10g"], count=[1], release=["2.0.4"]
        )
        for fleet in found.fleets:
            assert fleet.each * fleet.replicas >= count
            assert fleet.each * (fleet.replicas - 1) < count
            assert (
                fleet.speed.tokens is None or fleet.speed.bound is None or fleet.speed.tokens.value < fleet.speed.bound
            )
        return [fleet.replicas for fleet in found.fleets]

    few, many = replicas(users), replicas(users + more)
    assert len(few) == len(many)
    assert all(low <= high for low, high in zip(few, many, strict=True))


FIVE = (
    "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-0.6B",
    "mistralai/Mistral-7B-Instruct-v0.3", "google/gemma-2-9b-it",
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(FIVE),
    st.sampled_from(["2.0.4", "2.4.1", "3.3.7"]),
    st.tuples(st.integers(1, 3000), st.integers(10, 4000), st.floats(0.01, 30)),
    st.tuples(st.integers(0, 200), st.integers(0, 200), st.floats(0, 2)),
    st.integers(1, 1000),
    st.one_of(st.none(), st.floats(1, 100)),
    st.booleans(),
)
def test_more_of_a_load_never_takes_less(
    model: str, release: str, least: tuple[int, int, float], more: tuple[int, int, float], answer: int,
    latency: float | None, timed: bool,
) -> None:  # fmt: skip
    """More users, longer prompts or a higher rate take no fewer GPUs and no less money."""

    def fleets(users: int, prompt: int, rps: float) -> dict[str, tuple[int, float]]:
        asked = {"model": {"id": model}, "hardware": {"gpu": "l4"}}
        found = tgi_advisor.size(
            asked, users=users, prompts=prompt, answers=answer, rps=rps if timed else None, latency=latency,
            gpu=["l4", "a100-80gb-sxm"], count=[1], release=[release], quantize=["none"],
        )  # fmt: skip
        return {fleet.option.gpu: (fleet.gpus, fleet.price or 0) for fleet in found.fleets}

    (users, prompt, rps), (users_more, longer, faster) = least, more
    few = fleets(users, prompt, rps)
    larger = ((users + users_more, prompt, rps), (users, prompt + longer, rps), (users, prompt, rps + faster))
    for many in (fleets(*one) for one in larger):
        for gpu in few.keys() & many.keys():
            assert all(low <= high for low, high in zip(few[gpu], many[gpu], strict=True))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("-u", "0", "-i", "10", "-o", "10"), Exit.USAGE, "0"),
        (("-u", "5", "-i", "ten", "-o", "10"), Exit.USAGE, "expected a count"),
        (("-u", "5", "-i", "10,p99", "-o", "10"), Exit.USAGE, "no percentile"),
        (("-u", "5", "-i", "100,p99=10", "-o", "10"), Exit.USAGE, "below the typical"),
        (("-u", "5", "-i", "100,p90=400,p99=200", "-o", "10"), Exit.USAGE, "below p90"),
        (("-u", "5", "-i", "0", "-o", "10"), Exit.USAGE, "below 1"),
        (("-u", "5", "-i", "10", "-o", "10", "-g", "nvidia-l5"), Exit.FACTS, "not known"),
    ],
)
def test_a_load_that_is_none(args: tuple[str, ...], code: Exit, words: str) -> None:
    ran = run("size", *LLAMA3, *args, "--json")
    assert ran.code == code
    assert words in json.loads(ran.out)["error"]["message"] + str(json.loads(ran.out)["error"]["problems"])


def test_a_load_nothing_carries() -> None:
    ran = run("size", *LLAMA3, "-u", "5", "-i", "9k", "-o", "1k", "-g", "l4", "-n", "1")
    assert (ran.code, "the model's context is 8,192" in ran.out) == (Exit.OUT_OF_MEMORY, True)
    ran = run("size", *LLAMA3, "-u", "5", "-i", "1k", "-o", "1k", "-g", "a10g", "-n", "1", "--latency", "0.5")
    assert (ran.code, "answers within 0.5 s" in ran.out) == (Exit.OUT_OF_MEMORY, True)
    ran = run(
        "size", "-m", "meta-llama/Llama-3.1-70B-Instruct", "-u", "5", "-i", "1k", "-o", "1k", "-g", "t4", "-n", "1"
    )
    assert (ran.code, "out of memory" in ran.out) == (Exit.OUT_OF_MEMORY, True)


def test_rules_of_thumb(golden: Golden) -> None:
    """The article's and the calculator's printed figures; the article's 101.2 GB do not follow from its own parts."""
    llama = rough.Shape(13e9, 16, 40, 5120)
    assert rough.kv_per_token(40, 5120) == 800 * 1024
    assert round(2000 * rough.kv_per_token(40, 5120) / 1e9, 1) == 1.6
    assert [round(rough.weights(rough.Shape(count)) / 1e9, 2) for count in (13e9, 175e9, 345e6)] == [26, 350, 0.69]
    parts = {
        part: round(size / 1e9, 1) for rule, part, size in rough.estimate(llama, 10, 2000).rows if rule == "article"
    }
    assert parts == {"weights": 26.0, "KV cache": 16.4, "beside": 9.3, "together": 51.7}  # 51.2 with its rounded 16
    seven = {part: size / 1e9 for rule, part, size in rough.estimate(rough.Shape(7e9, 4), 1, 4096).rows}
    assert seven == {"weights": 3.5, "KV cache": 1.5, "overhead": 1.5, "together": 6.5}
    asked = ("-u", "10", "-i", "1500", "-o", "500")
    golden("choose/size-rough.txt", run("size", "--params", "13B", "--layers", "40", "--hidden", "5120", *asked).out)
    assert rows("rough", "size", "--params", "7b", "--bits", "4", *asked)[0]["bytes"] == 3_500_000_000
    whole = ("size", "--params", "13B", "--layers", "40", "--hidden", "5120", *asked)
    (printed,) = (row for row in rows("rough", *whole) if (row["rule"], row["part"]) == ("article", "together"))
    assert "101.2 GB" in printed["about"]
    assert "101.2" not in run("size", "--params", "13B", *asked).out
    for wrong in ("13", "B", "-1B", "900T", "0B", "1e9"):
        assert run("size", f"--params={wrong}", *asked).code == Exit.USAGE
    assert run("size", "--params", "13B", *LLAMA3, *asked).code == Exit.USAGE
    for more in (("--layers", "40"), ("--rps", "2"), ("--emit-spec",), ("-q", "awq"), ("-g", "l5")):
        ran = run("size", "--params", "13B", *more, *asked)
        assert ran.code == (Exit.FACTS if more[0] == "-g" else Exit.USAGE)
        assert more[-1 if more[0] == "-g" else 0].replace("-q", "--quantize") in ran.err
    assert run("size", *LLAMA3, "--bits", "8", *asked).code == Exit.USAGE


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 900), st.integers(1, 50), st.integers(1, 32_000), st.sampled_from([(1, 2), (1, 2, 4, 8), (8,)]))
def test_so_many_gpus_hold_what_a_rule_says(billions: float, users: int, tokens: int, counts: tuple[int, ...]) -> None:
    found = ask.rule_of_thumb(
        rough.Shape(billions * 1e9, 16, 40, 5120), users=users, prompts=tokens, answers=tokens, gpu=["t4", "h200"],
        count=counts,
    )  # fmt: skip
    needed = {rule: size for rule, part, size in found.rows if part == "together"}
    for row in found.records():
        if row["gpu"] is not None:
            memory = {"nvidia-t4": 15_360 << 20, "nvidia-h200": 143_771 << 20}[row["gpu"]]
            enough = [count for count in counts if count * memory >= needed[row["rule"]]]
            assert row["gpus"] == (min(enough) if enough else None)


def test_lengths() -> None:
    found = load.lengths("1500,p99=6k, p90=4000", "input")
    assert (found.typical, found.longest, found.percentiles) == (1500, 6144, ((90.0, 4000), (99.0, 6144)))
    with pytest.raises(UsageError):
        load.lengths("", "input")
    assert issubclass(UsageError, AdvisorError)
    assert math.isclose(load.Load(4, load.lengths("10", "i"), load.lengths("5", "o")).request.tokens, 15)


def test_none_of_them_imports_what_is_heavy() -> None:
    for name in ("fits", "compare", "sweep", "size"):
        ran = process(name, "--help")
        assert ran.returncode == 0
        assert "Examples:" in ran.stdout


# what is asked from Python, and what cannot be


@pytest.mark.parametrize("load", [
    {"users": 0}, {"users": -5}, {"users": 1.5}, {"rps": -1}, {"rps": math.nan}, {"latency": 0}, {"latency": math.inf},
])  # fmt: skip
def test_a_load_that_is_none_from_python(load: dict[str, Any]) -> None:
    spec = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "l4"}}
    with pytest.raises(UsageError):
        tgi_advisor.size(spec, **{"users": 10, "prompts": 1500, "answers": 500, "gpu": ["l4"], **load})


def test_values_of_python_in_a_sweep() -> None:
    spec = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "l4"}}
    card = {"name": "mine", "memory": "24564MiB", "compute_capability": 8.9}
    found = tgi_advisor.sweep(spec, {"model.kv_cache_dtype": [None, "fp8_e5m2"], "hardware.gpu": [card, "nvidia-l4"]})
    assert [step.values[0] for step in found.steps] == ["null", "null", "fp8_e5m2", "fp8_e5m2"]
    assert all(step.starts for step in found.steps)
    assert {step.values[1] for step in found.steps} == {
        "{name: mine, memory: 24564MiB, compute_capability: 8.9}",
        "nvidia-l4",
    }
    assert tgi_advisor.sweep(spec, {"hardware.gpu": card}).steps[0].prediction == found.steps[0].prediction


@pytest.mark.parametrize(
    ("prompts", "said"),
    [("1500,p99=3000,p99=4000", "p99 is given twice"), ("1500,p10=3000", "p10 (3000) is above the typical 1500")],
)
def test_percentiles_that_contradict(prompts: str, said: str) -> None:
    ran = run("size", *QWEN, "-u", "3", "-i", prompts, "-o", "100")
    assert (ran.code, said in ran.err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("max_input_tokens=1000", "prompt has 1,500 tokens, and limits.max_input_tokens of the spec is at most 1,000"),
        ("max_total_tokens={max: 1k}", "request has 2,000 tokens, and limits.max_total_tokens of the spec is at most"),
    ],
)
def test_a_spec_that_lets_no_such_request_in(limit: str, said: str) -> None:
    ran = run("size", *QWEN, "-u", "3", "-i", "1500", "-o", "500", "--gpu", "l4", "--set", f"limits.{limit}")
    assert (ran.code, said in " ".join(ran.out.split())) == (Exit.OUT_OF_MEMORY, True)


def test_gpus_that_a_step_does_not_use() -> None:
    ran = run("sweep", L4, "--vary", "hardware.count=2,3,5")
    assert "It runs with count 3 on 2 of the 3 GPUs and count 5 on 4 of the 5 GPUs.\n" in ran.out


def test_a_release_without_an_image_is_a_refused_step() -> None:
    asked = ("--model", "tiiuae/falcon-7b", "--gpu", "intel-max-1550")
    old, new = rows("sweep", "sweep", *asked, "--vary", "tgi.release=1.4.5,3.3.7")
    assert (old["outcome"], old["why"]) == ("refused", "TGI 1.4.5 has no intel-xpu image")
    assert new["outcome"] == "starts"
    assert run("fits", *asked, "--release", "1.4.5").err == run("advise", *asked, "--release", "1.4.5").err


@pytest.mark.parametrize("args", [("--picture", "{}/none/such.png"), ("--picture", "{}/x.png", "--chart", "budget")])
def test_json_is_one_object_where_no_picture_is_drawn(tmp_path: Path, args: tuple[str, ...]) -> None:
    """The awq that this checkpoint is not stored in is refused: there is no budget to draw."""
    ran = run("sweep", L4, "--vary", "model.quantize=awq", *(one.format(tmp_path) for one in args), "--json")
    assert ran.code == Exit.USAGE
    assert len(json.loads(ran.out)["sweep"]) == 1
    assert ran.err.startswith("Error: ")


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("vary", [
    {"hardware.gpu": "nvidia-l4,nvidia-a10g,nvidia-a100-80gb-sxm"},
    {"max_batch_prefill_tokens": "1k,8k", "max_total_tokens": "4k,8k", "hardware.count": "1,2"},
])  # fmt: skip
def test_several_axes_fit_the_terminal(width: int, vary: dict[str, str]) -> None:
    assert max(map(len, tgi_advisor.sweep(L4, vary).text(width).split("\n"))) <= width


def test_lines_that_do_not_fit_are_told_where_no_axis_grows() -> None:
    found = tgi_advisor.sweep(L4, {"max_total_tokens": "4k,32k,64k", "model.kv_cache_dtype": [None, "fp8_e4m3fn"]})
    assert [line.name for line in ask.drawing(found, "concurrency").series] == [
        "max_total_tokens 4,096",
        "max_total_tokens 32,768 (does not fit with null)",
        "max_total_tokens 65,536 (does not fit)",
    ]


def test_counts_beyond_a_thousand_where_a_heading_is_wrapped() -> None:
    found = tgi_advisor.size({"model": {"id": "gpt2"}, "hardware": {"gpu": "l4"}}, users=5000, prompts=10, answers=1)
    lines = found.text(60).split("\n")
    assert max(map(len, lines)) <= 80
    assert any(f" {found.fleets[0].each:,} " in line for line in lines)
    assert found.fleets[0].each > 1000


def test_a_line_without_a_point_is_told() -> None:
    """TGI 1.4 has no dtypes of the KV cache; nothing is left to draw of them."""
    asked = ("--vary", "model.kv_cache_dtype=null,fp8_e5m2", "--vary", "tgi.release=1.4.4,1.4.5", "--chart", "budget")
    ran = run("sweep", "--model", "microsoft/phi-2", "--gpu", "l4", *asked)
    assert ran.code == Exit.STARTS
    assert "Nothing is drawn of kv_cache_dtype fp8_e5m2 (refused).\n" in ran.out


def test_gpus_stated_by_hand_are_steps_of_a_picture() -> None:
    card = "{name: mine, memory: 8GiB, compute_capability: 8.9}"
    ran = run(
        "sweep", L4, "--vary", f"hardware.gpu=nvidia-l4,{card}", "--vary", "hardware.count=1", "--chart", "memory"
    )
    assert " ".join(ran.out.split()).endswith(f"It does not fit with gpu {card}, count 1.")


@pytest.mark.parametrize("method", ["notebook", "notebook-tgi"])
def test_no_token_for_a_prompt_by_the_notebook(method: str) -> None:
    asked = ("--gpu", "l4", "--method", method)
    short, long = rows("sweep", "sweep", *LLAMA31, *asked, "--vary", "max_total_tokens=1,4096")
    assert (short["outcome"], short["why"]) == ("refused", "max_total_tokens 1 leaves no token for a prompt")
    assert long["outcome"] == "starts"
    assert run("advise", *LLAMA31, *asked, "--context", "1").code == Exit.SPEC


def test_there_is_no_memory_to_draw_of_what_is_refused_before_it_loads() -> None:
    """Bloom's configuration has no key-value heads, which the notebook's formula needs."""
    asked = ("--model", "bigscience/bloom-560m", "--gpu", "l4", "--method", "notebook")
    ran = run("sweep", *asked, "--vary", "max_total_tokens=4k", "--chart", "memory")
    assert (ran.code, "no step has memory to draw" in ran.err) == (Exit.USAGE, True)


def test_a_gpu_from_python_may_stand_alone_and_be_a_mapping() -> None:
    spec = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "l4"}}
    card = {"name": "mine", "memory": "24564MiB", "compute_capability": 8.9}
    few: dict[str, Any] = {"count": [1], "quantize": "none", "release": "3.3.7"}
    alone = tgi_advisor.compare(spec, gpu="l4", **few)
    several = tgi_advisor.compare(spec, gpu=["l4", card], **few)
    assert [one.gpu for one in alone.options] == ["nvidia-l4"]
    assert sorted(one.gpu for one in several.options) == ["mine", "nvidia-l4"]
    (mine,) = (one for one in several.options if one.gpu == "mine")
    ladder = tgi_advisor.fits(model="Qwen/Qwen2.5-7B-Instruct", gpu=card)
    assert isinstance(ladder, Ladder)
    assert ladder.largest.limits == mine.limits
    sized = tgi_advisor.size(spec, users=3, prompts=100, answers=100, gpu=card, **few)
    assert sized.best is not None
    assert sized.best.option.gpu == "mine"
