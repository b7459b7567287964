"""Laws of the estimate and the search, sampled over launches of every shipped model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import islice
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tgi_advisor import search, verdict
from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, kv_cache, warmup, weights
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import VARIANTS
from tgi_advisor.gather import snapshot
from tgi_advisor.limits import Limits
from tgi_advisor.refusals import alike, all_rules, surely
from tgi_advisor.refusals.router import ROUTER
from tgi_advisor.refusals.rules import Case
from tgi_advisor.search.alternatives import _neighbours, alternatives, replacements
from tgi_advisor.search.launch import refused
from tgi_advisor.search.predicate import Searcher
from tgi_advisor.spec.reader import read_any
from tgi_advisor.spec.records import (
    AUTO,
    Bound,
    GpuSpec,
    HardwareSpec,
    LimitsSpec,
    ModelSpec,
    Spec,
    TgiSpec,
    WorkloadSpec,
)
from tgi_advisor.units import GiB, MiB

MODELS = snapshot.recorded_ids()
CARDS = tuple(row.facts for row in gpus.all_gpus() if row.facts is not None)
CPU = GpuFacts("intel-cpu", "cpu", 256 * GiB, None, None, None, None, "", "by hand")
RELEASES = (
    "1.0.0", "1.1.1", "1.4.0", "1.4.1", "2.0.4", "2.1.0", "2.2.0", "2.3.0", "2.4.0", "2.4.1", "3.0.0", "3.0.2", "3.1.0",
    "3.2.3", "3.3.7",
)  # fmt: skip
COMMON = (
    "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.1",
    "mistralai/Mixtral-8x7B-v0.1", "google/gemma-2-9b-it", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-8B",
    "TheBloke/Llama-2-13B-AWQ", "bigcode/starcoder2-3b", "microsoft/phi-2", "deepseek-ai/DeepSeek-V2-Lite",
    "google/gemma-3-4b-it", "Qwen/Qwen2-VL-7B-Instruct", "OpenAssistant/falcon-7b-sft-top1-696",
)  # fmt: skip

quickly = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@cache
def model(name: str) -> ModelFacts:
    found = snapshot.find(name)
    assert found is not None
    return found


def deployment(name: str, gpu: GpuFacts, count: int, release: str, spec: Spec) -> tuple[Spec, Facts]:
    hardware = replace(spec.hardware, gpu=GpuSpec(name=gpu.name), count=count)
    asked = replace(spec, model=replace(spec.model, id=name), hardware=hardware)
    return asked, Facts(model(name), gpu, count, releases.find(release), VARIANTS[gpu.system])


def launch(name: str, gpu: GpuFacts, count: int, release: str, spec: Spec | None = None) -> Base:
    asked, facts = deployment(name, gpu, count, release, spec or Spec())
    return warmup.base(defaults.resolve(asked, facts))


@st.composite
def launches(draw: st.DrawFn, paged: bool = True) -> Base:
    """A launch that gets as far as its warm-up."""
    name = draw(st.sampled_from(COMMON))
    gpu = draw(st.sampled_from(CARDS))
    spec = Spec(hardware=HardwareSpec(memory_fraction=draw(st.sampled_from((1.0, 0.8)))))
    here = launch(name, gpu, draw(st.sampled_from((1, 1, 2, 4))), draw(st.sampled_from(RELEASES)), spec)
    assume(here.setting.family.supported and here.setting.family.paged is paged)
    assume(here.loaded + 512 * MiB < here.total)
    return here


@st.composite
def token_limits(draw: st.DrawFn) -> Limits:
    longest = draw(st.integers(1, 16000))
    return Limits(longest, longest + draw(st.integers(2, 4000)), draw(st.integers(longest, 3 * longest)))


OWN_SEGMENTS = 16 * MiB
"""Tensors of the warm-up's KV cache from this size leave nothing worth having in their segments."""


def luck(here: Base, limits: Limits) -> int:
    """Bytes a launch may need less with more tokens: what larger tensors of a KV cache leave to the prefill.

    Those of 1 MiB take segments of 2 MiB that a prefill finds no room in, larger ones segments of 20 MiB. A tensor of
    the warm-up's image may lie in what is left of one, and where loading leaves gaps it depends on the size of the KV
    cache which of them are left for the prefill.
    """
    g = here.geometry
    blocks = warmup.run(here, limits).warm_blocks
    tensor = blocks * here.setting.block_size * g.kv_bytes_per_token // (2 * g.layers)
    widths = {"vlm": GiB, "transformers": 320 * MiB}
    if here.setting.family.served_by in widths:
        return widths[here.setting.family.served_by]
    return 96 * MiB if tensor <= MiB else 32 * MiB if tensor < OWN_SEGMENTS else 0


def raised(limits: Limits, field: str, by: int) -> Limits:
    return limits._replace(**{field: (getattr(limits, field) or 0) + by})


# ---- the warm-up ----


@quickly
@given(launches(), token_limits(), st.integers(1, 5000))
def test_more_prefill_or_total_never_uses_less(here: Base, limits: Limits, by: int) -> None:
    used = warmup.run(here, limits).used
    least = used - luck(here, limits)
    assert warmup.run(here, raised(limits, "max_batch_prefill_tokens", by)).used >= least
    assert warmup.run(here, raised(limits, "max_total_tokens", by)).used >= least


@quickly
@given(launches(), st.integers(1, 16000), st.integers(1, 5000))
def test_a_longer_prompt_prefilled_alone_never_uses_less(here: Base, longest: int, by: int) -> None:
    alone, longer = (Limits(tokens, tokens + 1000, tokens) for tokens in (longest, longest + by))
    assert warmup.run(here, longer).used >= warmup.run(here, alone).used - luck(here, alone)


@quickly
@given(launches(), token_limits(), st.integers(0, 4 * GiB))
def test_memory_in_use_and_margins_never_raise_the_budget(here: Base, limits: Limits, size: int) -> None:
    seen = warmup.run(here, limits)
    for less in (warmup.run(here, limits, size), warmup.run(here._replace(loaded=here.loaded + size), limits)):
        assert (less.budget or 0) <= (seen.budget or 0)
        assert seen.stage is None or less.stage is not None


@quickly
@given(launches(), token_limits(), st.integers(0, 64 * GiB))
def test_more_memory_never_lowers_the_budget(here: Base, limits: Limits, size: int) -> None:
    larger = here._replace(total=here.total + size, cuda_total=here.cuda_total + size)
    seen, more = warmup.run(here, limits), warmup.run(larger, limits)
    assert (more.budget or 0) >= (seen.budget or 0)
    assert seen.stage is not None or more.stage is None


@quickly
@given(launches(), token_limits())
def test_a_larger_prefill_in_one_request_never_raises_the_budget(here: Base, limits: Limits) -> None:
    total, prefill = limits.max_total_tokens or 0, min(limits.max_input_tokens or 0, 8000)
    seen = warmup.run(here, Limits(prefill, total, prefill))
    longer = warmup.run(here, Limits(prefill + 1, total + 1, prefill + 1))
    assume(seen.warm_blocks == longer.warm_blocks)
    assert (longer.budget or 0) <= (seen.budget or 0)


@quickly
@given(launches(), token_limits())
def test_the_budget_is_whole_blocks_and_holds_the_warmup(here: Base, limits: Limits) -> None:
    seen = warmup.run(here, limits)
    assume(seen.budget is not None)
    assert seen.budget == seen.blocks * here.setting.block_size
    if here.setting.facts.release.warmup_blocks_back == "always":
        assert seen.blocks >= seen.warm_blocks


@quickly
@given(launches(), token_limits())
def test_parts_add_up_to_the_gpu_or_to_the_need(here: Base, limits: Limits) -> None:
    seen = warmup.run(here, limits)
    parts = warmup.parts(here, seen)
    assert all(part.bytes >= 0 and part.why for part in parts)
    if seen.stage is None:
        assert sum(part.bytes for part in parts) == here.total
    else:
        assert sum(part.bytes for part in parts) == seen.used > here.total - max(0, here.total - seen.used - seen.slack)


@given(st.sampled_from(COMMON), st.sampled_from(RELEASES), st.sampled_from((2, 4)))
@settings(quickly, max_examples=60)
def test_shards_hold_less_than_one_but_together_more(name: str, release: str, shards: int) -> None:
    card = gpus.find("nvidia-h100-sxm")
    one, many = (
        launch(name, card, count, release, Spec(tgi=TgiSpec(num_shard=count))).setting for count in (1, shards)
    )
    family = many.family
    assume(defaults.shard_fault(many.facts.model, family, shards, many.quantize) is None)
    whole, part = weights.shard(one).total, weights.shard(many).total
    assert part < whole <= part * shards
    whole_kv, part_kv = kv_cache.bytes_per_token(one), kv_cache.bytes_per_token(many)
    assert part_kv <= whole_kv <= part_kv * shards


@given(st.sampled_from(MODELS), st.sampled_from(RELEASES))
@settings(quickly, max_examples=60)
def test_kv_bytes_are_linear_in_the_size_of_an_element(name: str, release: str) -> None:
    setting = launch(name, gpus.find("nvidia-h100-sxm"), 1, release).setting
    half = setting._replace(kv_dtype="fp8_e4m3fn")
    assert kv_cache.bytes_per_token(setting) * half.kv_dtype_bytes == (
        kv_cache.bytes_per_token(half) * setting.kv_dtype_bytes
    )


@quickly
@given(launches(), token_limits(), st.integers(1, 40))
def test_the_fewest_blocks_hold_what_one_less_does_not(here: Base, limits: Limits, requests: int) -> None:
    setting = here.setting._replace(speculate=requests % 3)
    blocks = verdict.blocks_for(setting, limits, requests)
    assert verdict.concurrency(setting, blocks, limits) >= requests > verdict.concurrency(setting, blocks - 1, limits)


# ---- the search ----


@st.composite
def bounds(draw: st.DrawFn, low: int, high: int) -> Bound:
    """Open, pinned, or a range."""
    kind = draw(st.sampled_from(("auto", "auto", "pinned", "range", "floor", "ceiling")))
    first, second = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
    return {
        "auto": AUTO,
        "pinned": Bound(first, first),
        "range": Bound(first, second),
        "floor": Bound(first, None),
        "ceiling": Bound(None, second),
    }[kind]


@st.composite
def searches(draw: st.DrawFn) -> tuple[Spec, Facts]:
    total = draw(bounds(1000, 40000))
    longest = draw(bounds(100, 20000))
    assume(longest.low is None or total.high is None or longest.low < total.high)
    spec = Spec(
        limits=LimitsSpec(longest, total, draw(bounds(256, 20000))),
        workload=WorkloadSpec(
            max_new_tokens=draw(st.sampled_from((None, 1, 200, 2000))),
            concurrency=draw(st.sampled_from((1, 1, 4, 32))),
            prefer=draw(st.sampled_from(("prefill", "context"))),
        ),
        hardware=HardwareSpec(headroom=draw(st.sampled_from((None, 0, 0, 2 * GiB)))),
    )
    name, gpu = draw(st.sampled_from(COMMON)), draw(st.sampled_from(CARDS))
    asked, facts = deployment(name, gpu, draw(st.sampled_from((1, 1, 2, 4))), draw(st.sampled_from(RELEASES)), spec)
    assume(defaults.resolve(asked, facts).family.supported)
    return asked, facts


@quickly
@given(searches())
def test_found_limits_keep_every_promise(case: tuple[Spec, Facts]) -> None:
    spec, facts = case
    here, found = search.best(spec, facts)
    if found.limits is None:
        assert found.search.bound_by
        return
    limits, asked = found.limits, spec.limits
    longest, total = limits.max_input_tokens or 0, limits.max_total_tokens or 0
    assert 0 < longest < total
    assert asked.max_input_tokens.allows(longest)
    assert asked.max_total_tokens.allows(total)
    assert asked.max_batch_prefill_tokens.allows(limits.max_batch_prefill_tokens or 0)
    if not here.setting.chunking:
        assert (limits.max_batch_prefill_tokens or 0) >= longest
    prediction = found.prediction
    if prediction.outcome == "refused":  # for a reason no limit changes
        assert not Searcher(here).accepts(Searcher(here).span.low)
        return
    assert prediction.outcome == "starts"
    assert prediction.headroom_bytes >= 0
    margin, _ = search.margin(here)
    assert warmup.run(here, limits, margin, retry=True).stage is None
    if prediction.concurrency is not None:
        assert prediction.concurrency >= spec.workload.concurrency


@settings(quickly, max_examples=250)
@given(searches(), st.randoms(use_true_random=False))
def test_the_found_total_is_the_last_that_holds(case: tuple[Spec, Facts], random: Random) -> None:
    spec, facts = case
    asked = replace(spec, tgi=TgiSpec(num_shard=defaults.resolve(spec, facts).num_shard))
    here, found = search.best(asked, facts)
    assume(found.limits is not None and found.prediction.outcome == "starts")
    assert found.limits is not None
    searcher = Searcher(here, allow_risk=found.prediction.at_risk)
    total, prefill = found.limits.max_total_tokens or 0, found.limits.max_batch_prefill_tokens
    if not searcher.holds(total, prefill):  # with the allocator's second try, where no limits hold without it
        assert searcher.tried_again().holds(total, prefill)
        assert searcher.largest_total(searcher.span.low) is None
        return
    assert found.search.evaluations < 500
    if "refusal" in (found.search.bound_by or ""):
        return
    high, block = searcher.span.high, here.setting.block_size
    near = [total + 1, total + block, total + 2 * block, high]
    for longer in {*near, *(random.randint(total + 1, high) for _ in range(20) if total < high)}:
        if total < longer <= high:
            assert not searcher.holds(longer, prefill), f"{longer} fits above {total} with the same chunks"


@quickly
@given(searches(), st.randoms(use_true_random=False))
def test_what_fits_is_monotone_on_every_region(case: tuple[Spec, Facts], random: Random) -> None:
    spec, facts = case
    searcher = Searcher(warmup.base(defaults.resolve(spec, facts)))
    for _, (low, high) in zip(range(6), searcher.regions(searcher.span.low, searcher.span.high), strict=False):
        points = sorted({low, high, *(random.randint(low, high) for _ in range(12))})
        held = [searcher.fits(point) for point in points]
        assert held == sorted(held, reverse=True), list(zip(points, held, strict=True))


LUCK = 48 * MiB
"""Bytes that a longer prompt of the same region may need less, for what its tensors leave of their segments."""


@settings(quickly, max_examples=250)
@given(searches(), st.randoms(use_true_random=False))
def test_whatever_memory_is_left_a_longer_prompt_of_a_region_fits_no_better(
    case: tuple[Spec, Facts], random: Random
) -> None:
    """Others hold as much of the GPU as leaves one request just enough: all shorter ones of its region then fit too."""
    spec, facts = case
    here = warmup.base(defaults.resolve(spec, facts))
    assume(here.setting.family.paged and here.loaded < here.total)
    regions = list(islice(Searcher(here).regions(Searcher(here).span.low, Searcher(here).span.high), 40))
    assume(regions)
    low, high = random.choice(regions)
    longest = random.randint(low, min(high, low + max(1, int((high - low) ** random.random()))))
    assume(longest <= high and Searcher(here).fits(longest))
    held = _largest(0, here.total - here.loaded, lambda taken: Searcher(warmup.beside(here, taken)).fits(longest))
    left = Searcher(warmup.beside(here, max(0, held - LUCK)))
    for total in {low, min(low + 1, longest), *(random.randint(low, longest) for _ in range(12))}:
        assert left.fits(total), f"{total} needs more than {longest} in {low}-{high}"


@pytest.mark.parametrize(("release", "most"), [("3.0.0", 699), ("3.1.0", 415), ("3.2.3", 449)])
def test_tensors_that_begin_to_find_room_in_gaps_hide_no_longer_prompts(release: str, most: int) -> None:
    """A KV cache of tensors of up to 1 MiB takes 56 MiB here, and one of slightly larger ones nothing new."""
    workload = WorkloadSpec(max_new_tokens=200, concurrency=32, prefer="context", allow_risk=True)
    spec = Spec(limits=LimitsSpec(AUTO, AUTO, Bound(1000, 1000)), workload=workload)
    searcher = Searcher(launch("Qwen/Qwen2-VL-7B-Instruct", gpus.find("nvidia-rtx-3080-10gb"), 2, release, spec))
    for low, high in islice(searcher.regions(400, searcher.span.high), 9):
        held = [searcher.fits(total) for total in sorted({low, (low + high) // 2, high})]
        assert held == sorted(held, reverse=True)
    assert searcher.largest_total(searcher.span.low) == most


def _largest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The largest value that holds, to 1 MiB; it does at `low`."""
    while high - low > MiB:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@settings(quickly, max_examples=250)
@given(searches(), st.randoms(use_true_random=False))
def test_what_is_at_risk_is_only_found_where_everything_is_or_when_it_is_asked_for(
    case: tuple[Spec, Facts], random: Random
) -> None:
    spec, facts = case
    here, found = search.best(spec, facts)
    assume(found.limits is not None and found.prediction.outcome == "starts")
    risky = search.best(replace(spec, workload=replace(spec.workload, allow_risk=True)), facts).found
    total, most = ((one.limits or Limits()).max_total_tokens or 0 for one in (found, risky))
    if spec.workload.prefer == "context":
        assert most >= total
    if most > total and not found.prediction.at_risk:
        assert risky.prediction.at_risk
    searcher = Searcher(here)
    if not found.prediction.at_risk:
        assert searcher.calm(total, (found.limits or Limits()).max_batch_prefill_tokens or 0)
        return
    if spec.limits.max_batch_prefill_tokens.low is not None:
        return  # prompts of a small part of a prefill budget are not searched
    points = {searcher.span.low, total, *(random.randint(searcher.span.low, total) for _ in range(20))}
    assert not any(searcher.holds(point) for point in points)


@settings(quickly, max_examples=250)
@given(searches(), st.sampled_from((0.02, 0.125, 1.0)))
def test_a_larger_gpu_never_gives_fewer_tokens(case: tuple[Spec, Facts], more: float) -> None:
    spec, facts = case
    spec = replace(spec, tgi=TgiSpec(num_shard=defaults.resolve(spec, facts).num_shard))
    gpu = facts.gpu
    total = gpu.cuda_total_bytes
    larger = gpu._replace(
        memory_bytes=round(gpu.memory_bytes * (1 + more)),
        cuda_total_bytes=None if total is None else total + round(gpu.memory_bytes * more),
    )
    found = search.best(spec, facts).found
    assume(found.limits is not None and found.prediction.outcome == "starts" and not found.prediction.at_risk)
    other = search.best(spec, facts._replace(gpu=larger)).found
    assert found.limits is not None
    assert other.limits is not None
    assert (other.limits.max_total_tokens or 0) >= (found.limits.max_total_tokens or 0)


@pytest.mark.parametrize(
    ("name", "gpu", "concurrency"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "nvidia-t4", 1),
        ("meta-llama/Llama-3.1-70B-Instruct", "nvidia-l4", 1),
        ("mistralai/Mixtral-8x7B-v0.1", "nvidia-a10g", 8),
        ("google/gemma-2-27b-it", "amd-mi210", 64),
    ],
)
def test_alternatives_are_true(name: str, gpu: str, concurrency: int) -> None:
    spec, facts = deployment(name, gpus.find(gpu), 1, "3.3.7", Spec(workload=WorkloadSpec(concurrency=concurrency)))
    assert search.best(spec, facts).found.limits is None
    steps = alternatives(spec, facts)
    assert steps
    again = {
        label: search.best(other, known).found
        for label, other, known in _neighbours(spec, facts)
        if any(step.startswith(label) for step in steps)
    }
    for step in steps:
        label = max((label for label in again if step.startswith(label)), key=len)
        limits = again[label].limits
        assert limits is not None
        assert again[label].prediction.outcome == "starts"
        assert f"{limits.max_total_tokens:,}" in step


def test_larger_gpus_are_of_the_same_generation_or_newer() -> None:
    for row in gpus.all_gpus():
        if row.facts:
            larger = replacements(row.facts)
            sizes = [row.facts.memory_bytes, *(gpu.memory_bytes for gpu in larger)]
            assert sizes == sorted(set(sizes))
            assert all(gpu.at_least >= row.facts.at_least for gpu in larger)
    assert [gpu.name for gpu in replacements(gpus.find("nvidia-l4"))][:2] == ["nvidia-l40s", "nvidia-h100-sxm"]


@pytest.mark.parametrize("gpu", ["nvidia-l4", "nvidia-a10g", "nvidia-h100-sxm"])
@pytest.mark.parametrize("total", [None, 16384])
def test_a_larger_prefill_budget_never_costs_safety(gpu: str, total: int | None) -> None:
    limits = LimitsSpec(max_total_tokens=Bound(total, total))
    spec, facts = deployment("meta-llama/Llama-3.1-8B-Instruct", gpus.find(gpu), 2, "3.3.7", Spec(limits=limits))
    found = search.best(spec, facts).found.prediction
    assert found.under_load is not None
    assert found.under_load.verdict == "safe"


@settings(quickly, max_examples=200)
@given(
    st.sampled_from(MODELS),
    st.sampled_from((*CARDS, CPU)),
    st.integers(1, 8),
    st.sampled_from(RELEASES),
    st.sampled_from((None, "awq", "gptq", "fp8", "eetq", "bitsandbytes", "bitsandbytes-nf4", "exl2")),
    token_limits(),
)
def test_nothing_but_an_advisor_error_is_raised(
    name: str, gpu: GpuFacts, count: int, release: str, quantize: str | None, limits: Limits
) -> None:
    spec = Spec(model=ModelSpec(quantize=quantize))
    asked, facts = deployment(name, gpu, count, release, spec)
    with suppress(AdvisorError):
        here = warmup.base(defaults.resolve(asked, facts))
        for given_limits in (Limits(), limits):
            prediction = verdict.predict(here, given_limits)
            assert (prediction.stage is None) == (prediction.outcome == "starts")
            assert (prediction.reason is None) == (prediction.outcome == "starts")
            if prediction.outcome == "starts":
                assert sum(part.bytes for part in prediction.parts) == prediction.gpu_total_bytes
        search.best(asked, facts)


class _Sightless(Case):
    """A case whose limits cannot be looked at."""

    @property
    def limits(self) -> Limits:
        raise AssertionError("a rule that is asked once a launch looks at the limits")

    given = limits


@quickly
@given(launches())
def test_rules_that_are_asked_once_a_launch_look_at_no_limit(here: Base) -> None:
    case = _Sightless(here.setting, Limits(), Limits())
    for rule in all_rules():
        if not (rule.of_limits or rule in ROUTER):
            rule.check(case)


@quickly
@given(
    st.sampled_from(COMMON), st.sampled_from(CARDS), st.sampled_from((1, 2, 3, 8)), st.sampled_from(RELEASES),
    st.sampled_from((None, "awq", "fp8", "eetq")),
)  # fmt: skip
def test_what_tgi_refuses_with_any_limits_needs_no_search(
    name: str, gpu: GpuFacts, count: int, release: str, quantize: str | None
) -> None:
    here = launch(name, gpu, count, release, Spec(model=ModelSpec(quantize=quantize)))
    found = refused(here.setting)
    assume(found)
    searched = search.search(here).prediction
    assert (searched.outcome, searched.stage) == ("refused", found[0].stage)
    assert verdict.why_refused(found) == verdict.why(searched)


SAID: tuple[dict[str, object], ...] = (
    {},
    {"tgi": {"flags": {"lora-adapters": "org/one,mine=/adapters/mine"}}, "container": {"mounts": ["/srv/a:/adapters"]}},
    {"tgi": {"flags": {"lora-adapters": "mine=/adapters/mine"}}},
    {"tgi": {"image": "registry.example/mine:1", "flags": {"max-batch-size": "x"}}},
    {"tgi": {"env": {"ATTENTION": "paged", "USE_FLASH_ATTENTION": "false", "TGI_WIGGLE_ROOM": "2"}}},
    {
        "hardware": {"memory_fraction": 0.5, "in_use": "2GiB"},
        "model": {"quantize": "marlin", "kv_cache_dtype": "fp8_e5m2"},
    },
)
"""What specs say that rules may look at."""


@settings(quickly, max_examples=400)
@given(
    st.sampled_from(COMMON), st.sampled_from(CARDS), st.sampled_from((1, 2, 3, 8)), st.sampled_from(RELEASES),
    st.sampled_from(SAID),
)  # fmt: skip
def test_rules_that_are_asked_once_a_launch_look_at_the_kind_of_its_gpu_alone(
    name: str, gpu: GpuFacts, count: int, release: str, said: dict[str, dict[str, object]]
) -> None:
    sections = {"model": {"id": name}, "hardware": {"gpu": gpu.name}}
    spec = read_any({**said, **{key: {**said.get(key, {}), **value} for key, value in sections.items()}})
    setting = defaults.resolve(*deployment(name, gpu, count, release, spec), count)
    known, told = (Case(one, Limits(), Limits()) for one in (setting, alike.of(setting).setting))
    for rule in all_rules():
        if not (rule.of_limits or rule in ROUTER):
            assert rule.check(told) == rule.check(known), rule.code


@quickly
@given(
    st.sampled_from(COMMON), st.sampled_from(CARDS), st.sampled_from(CARDS), st.sampled_from((1, 2, 3, 8)),
    st.sampled_from(RELEASES), st.sampled_from((None, "awq", "fp8")),
)  # fmt: skip
def test_launches_that_are_covered_are_refused_alike(
    name: str, one: GpuFacts, other: GpuFacts, count: int, release: str, quantize: str | None
) -> None:
    spec = Spec(model=ModelSpec(quantize=quantize))
    first, second = (launch(name, gpu, count, release, spec).setting for gpu in (one, other))
    here, there = deployment(name, one, count, release, spec)[0], second.spec
    same = replace(there, model=here.model, tgi=here.tgi, limits=here.limits, workload=here.workload)
    first, second = first._replace(spec=here), second._replace(spec=same)
    if alike.of(first).covers(alike.of(second)):
        assert surely(first) == surely(second)


@quickly
@given(searches(), st.integers(1, 1 << 17), st.booleans())
def test_a_floor_changes_nothing_where_the_largest_is_as_large_anyway(
    case: tuple[Spec, Facts], floor: int, of_prefill: bool
) -> None:
    spec, facts = case
    asked = replace(spec, limits=spec.limits.without_floors)
    name = "max_batch_prefill_tokens" if of_prefill else "max_total_tokens"
    bound: Bound = getattr(asked.limits, name)
    assume(bound.fixed is None and floor < (bound.high or 1 << 20))
    limits = replace(asked.limits, **{name: bound._replace(low=floor)})
    without, found = search.best(asked, facts).found, search.best(replace(asked, limits=limits), facts).found
    if without.limits is not None and limits.floors_hold(without.limits):
        assert (found.limits, found.prediction) == (without.limits, without.prediction)
    elif found.limits is not None:
        assert limits.floors_hold(found.limits)
