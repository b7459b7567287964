"""The best launch of a spec among the shard counts it leaves open."""

from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.underload import DECODING
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts.known import Facts
from tgi_advisor.refusals import Refusal
from tgi_advisor.search.launch import Found, search
from tgi_advisor.search.launch import refused as of_launch
from tgi_advisor.search.predicate import capacity
from tgi_advisor.spec.records import Spec

BATCH_SIZES = 4
"""Batch sizes tried on Gaudi: the warm-up depends on the size a little, and the size on what the warm-up leaves."""


class Advice(NamedTuple):
    """The limits for a spec, the launch they were found for, and the verdict on them."""

    base: Base
    """The launch that was chosen (its shard count, attention, dtype)."""
    found: Found
    """The limits and how they were found."""


def best(spec: Spec, facts: Facts) -> Advice:
    """The best launch among the legal shard counts.

    What is not at risk under load comes before what is (unless `workload.allow_risk`), then the longest context, the
    largest KV cache and the fewest shards.
    """
    tried = [_of_shards(spec, facts, shards) for shards in shard_counts(spec, facts)]

    def worth(advice: Advice) -> tuple[bool, bool, int, int, int]:
        limits, prediction = advice.found.limits, advice.found.prediction
        total = limits.max_total_tokens or 0 if limits else 0
        budget = prediction.limits.max_batch_total_tokens or 0
        starts = prediction.outcome == "starts"
        room = budget if starts else prediction.headroom_bytes
        return starts, spec.workload.allow_risk or not prediction.at_risk, total, room, -prediction.num_shard

    chosen = max(tried, key=worth)
    evaluations = sum(advice.found.search.evaluations for advice in tried)
    total = chosen.found.search._replace(evaluations=evaluations)
    return chosen._replace(found=chosen.found._replace(search=total))


def refused(spec: Spec, facts: Facts) -> tuple[Setting, list[Refusal]] | None:
    """(the only launch a spec leaves open, what TGI refuses of it whatever the limits); None where it may start."""
    counts = shard_counts(spec, facts)
    setting = defaults.resolve(spec, facts, counts[0])
    if len(counts) > 1 or _without_batch_size(setting):
        return None
    found = of_launch(setting)
    return (setting, found) if found else None


def _of_shards(spec: Spec, facts: Facts, shards: int) -> Advice:
    """The launch on so many shards; on Gaudi, whose servers must be told, with the largest batch size that fits.

    That is the requests of max_total_tokens its KV cache holds, at most as many as the router lets in together.
    """
    here = warmup.base(defaults.resolve(spec, facts, shards))
    if not _without_batch_size(here.setting):
        return Advice(here, search(here))
    admitted = here.setting.flags.get("max-concurrent-requests")
    most = max(admitted if isinstance(admitted, int) else DECODING, spec.workload.concurrency)
    size = spec.workload.concurrency
    for _ in range(BATCH_SIZES):
        here = warmup.base(defaults.resolve(_batched(spec, size), facts, shards))
        found = search(here)
        held = min(most, _held(here, found))
        if found.limits is None or held == size:
            break
        size = held
    size = here.setting.max_batch_size or size
    note = (
        f"max-batch-size {size}: TGI on Gaudi must be told, and has a KV cache for so many requests of max_total_tokens"
    )
    prediction = found.prediction
    if prediction.outcome == "starts":
        prediction = prediction._replace(warnings=(note, *prediction.warnings))
    return Advice(here, found._replace(prediction=prediction))


def _without_batch_size(setting: Setting) -> bool:
    """Whether a server on Gaudi is not told its batch size, which it must be."""
    return setting.facts.gpu.system == "gaudi" and setting.max_batch_size is None


def _batched(spec: Spec, size: int) -> Spec:
    return replace(spec, tgi=replace(spec.tgi, flags=MappingProxyType({**spec.tgi.flags, "max-batch-size": size})))


def _held(here: Base, found: Found) -> int:
    """Requests of max_total_tokens that fit together."""
    if found.limits is None or found.prediction.concurrency is not None:
        return found.prediction.concurrency or 0
    return capacity(here, warmup.run(here, found.limits)) // (found.limits.max_total_tokens or 1)


def shard_counts(spec: Spec, facts: Facts) -> tuple[int, ...]:
    """The shard counts to try: the spec's, or every legal one up to the GPUs there are."""
    if spec.tgi.num_shard is not None:
        return (spec.tgi.num_shard,)
    if facts.gpu_count == 1:
        return (1,)
    single = defaults.resolve(spec, facts, 1)
    return defaults.legal_shards(facts.model, single.family, facts.gpu_count, single.quantize)
