"""What TGI of one release does with one set of arguments: refuse, run out of memory, or start.

The order is TGI's own: the launcher checks its arguments, the shards load, the warm-up runs, the
router checks what the shards report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tgi_advisor import refusals
from tgi_advisor.estimate import capture, defaults, uncertainty, underload, warmup
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.uncertainty import Spread
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Outcome, Prediction, Stage, Uncertainty
from tgi_advisor.refusals import Refusal
from tgi_advisor.refusals.weights import OF_SHARDS
from tgi_advisor.units import human, thousands

NO_ROOM = (
    "use more or larger GPUs, or a quantized checkpoint: the model leaves no room for any limits; "
    "`tgi-advisor advise` computes which"
)
"""What to do where no smaller limits help; where some do, `search.way_out` says which."""


def request_blocks(setting: Setting, limits: Limits) -> int:
    """KV blocks the router counts for one full-length request.

    Until 2.0.4 prompt and answer are rounded up to blocks each; then the allocator takes blocks for both
    together, less the last token, whose keys are never stored.
    https://github.com/huggingface/text-generation-inference/blob/v2.0.4/router/src/queue.rs#L236-L262
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/v3/src/queue.rs#L230-L236
    """
    total, size = limits.max_total_tokens or 1, setting.block_size
    if setting.facts.release.version < (2, 1, 0):
        prompt = min(limits.max_input_tokens or total, total - 1)
        return -(-prompt // size) - (-(total - prompt) // size)
    return -(-max(1, total - 1 + setting.speculate) // size)


def concurrency(setting: Setting, blocks: int, limits: Limits) -> int:
    """Full-length requests the KV cache holds together.

    From 2.1.0 on block 0 is kept for health checks; until 2.3.1 the tokens of a batch have to stay within
    the budget as well.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/v3/src/block_allocator.rs#L152
    https://github.com/huggingface/text-generation-inference/blob/v2.3.1/backends/v3/src/queue.rs#L292-L308
    """
    version = setting.facts.release.version
    budget = max(0, blocks * setting.block_size - setting.speculate)
    if version < (2, 1, 0):
        return budget // setting.block_size // request_blocks(setting, limits)
    by_blocks = max(0, blocks - 1) // request_blocks(setting, limits)
    return by_blocks if version >= (2, 4, 0) else min(by_blocks, budget // (limits.max_total_tokens or 1))


def blocks_for(setting: Setting, limits: Limits, requests: int) -> int:
    """The fewest KV blocks for which `concurrency` is `requests`."""
    version, size = setting.facts.release.version, setting.block_size
    blocks = requests * request_blocks(setting, limits)
    if version < (2, 1, 0):
        return blocks - (-setting.speculate // size)
    if version >= (2, 4, 0):
        return blocks + 1
    return max(blocks + 1, -(-(requests * (limits.max_total_tokens or 1) + setting.speculate) // size))


def predict(here: Base, given: Limits) -> Prediction:
    """The verdict on one launch (`warmup.base` of its setting) with the limits given."""
    setting = here.setting
    asked = defaults.launcher_limits(setting, given)
    seen = warmup.run(here, given, retry=True)
    found = _refusals(setting, given, asked)
    final = defaults.server_limits(setting, seen.limits, seen.blocks, seen.tokens)
    late = refusals.router_refusals(setting, final, seen.budget) if seen.stage is None else []
    prediction = _first_stop(here, seen, asked, final, found, late)
    return prediction._replace(refusals=(*found, *late), runs_out=seen.stage)


def why(prediction: Prediction) -> str:
    """Why a launch does not start, with the shard counts that work where its own does not; empty where it starts."""
    return _with_counts(prediction.reason, prediction.refusals)


def why_refused(found: Sequence[Refusal]) -> str:
    """The same of what is refused."""
    return _with_counts(_messages(found), found)


def _with_counts(reason: str | None, found: Iterable[Refusal]) -> str:
    counts = (refusal.next_steps[0] for refusal in found if refusal.code in OF_SHARDS)
    return "; ".join(filter(None, (reason, next(counts, None))))


def _messages(found: Iterable[Refusal]) -> str:
    """What TGI prints, one refusal after the other."""
    return "; and then: ".join(refusal.message for refusal in found)


def is_refused(here: Base, given: Limits) -> bool:
    """Whether `predict` says that TGI refuses these limits."""
    setting = here.setting
    found = refused_by_rule(setting, given)
    if early(found):
        return True
    seen = warmup.run(here, given, retry=True)
    if seen.stage is not None:
        return bool(found) and seen.stage != "load"
    final = defaults.server_limits(setting, seen.limits, seen.blocks, seen.tokens)
    return bool(found or refusals.router_refusals(setting, final, seen.budget))


def refused_by_rule(setting: Setting, given: Limits) -> list[Refusal]:
    """What launcher and shards refuse with the limits given, until their warm-up, in their order."""
    return _refusals(setting, given, defaults.launcher_limits(setting, given))


def _refusals(setting: Setting, given: Limits, asked: Limits) -> list[Refusal]:
    return [*refusals.launcher_refusals(setting, given, asked), *refusals.shard_refusals(setting, asked)]


def early(found: Iterable[Refusal]) -> list[Refusal]:
    """The refusals of these that come before the warm-up."""
    return [refusal for refusal in found if refusal.stage in ("launcher", "load")]


def _first_stop(
    here: Base, seen: Warmup, asked: Limits, final: Limits, found: list[Refusal], late: list[Refusal]
) -> Prediction:
    """The verdict at the first stage that stops: arguments, loading, warm-up, router; or that it starts."""
    if stopped := early(found):
        return _refused(here, seen, asked, stopped)
    if seen.stage == "load":
        return _out_of_memory(here, seen)
    if found:
        return _refused(here, seen, asked, found)
    if seen.stage is not None:
        return _out_of_memory(here, seen)
    if late:
        refused = _refused(here, seen, final, late)
        return refused._replace(next_steps=(NO_ROOM,)) if too_small(refused) else refused
    return _prediction(here, seen, final, "starts", None, None, ())


def headroom(here: Base, seen: Warmup, limits: Limits, requests: int) -> int:
    """Bytes that could vanish from the GPU with the limits still holding `requests` full-length requests."""
    if seen.budget is None or limits.max_total_tokens is None:
        return seen.slack
    setting = here.setting
    needed = max(
        blocks_for(setting, limits, requests),
        -(-limits.max_total_tokens // setting.block_size),
        -(-(limits.max_batch_prefill_tokens or 0) // setting.block_size),
    )
    spare = (seen.blocks - needed) * here.geometry.kv_bytes_per_token * setting.block_size
    return min(seen.slack, spare)


def _refused(here: Base, seen: Warmup, limits: Limits, found: list[Refusal]) -> Prediction:
    steps = tuple(dict.fromkeys(step for refusal in found for step in refusal.next_steps))
    return _prediction(here, seen, limits, "refused", found[0].stage, _messages(found), steps)


def _out_of_memory(here: Base, seen: Warmup) -> Prediction:
    missing = human(-seen.slack)
    if seen.stage == "load":
        biggest = max(here.parts, key=lambda part: part.bytes)
        reason = (
            f"CUDA out of memory while loading: {human(here.loaded)} are needed before the warm-up, "
            f"{missing} more than there is; the {biggest.name} alone take {human(biggest.bytes)}"
        )
        step = (
            "use more or larger GPUs, or a quantized checkpoint: no token limit helps while the weights do not fit; "
            "`tgi-advisor advise` computes which"
        )
    else:
        prefill = seen.limits.max_batch_prefill_tokens
        reason = (
            f"Not enough memory to handle {prefill} prefill tokens: the warm-up peak is {missing} above the GPU "
            f"({_largest_at_peak(here, seen)})"
        )
        step = NO_ROOM
    return _prediction(here, seen, seen.limits, "out_of_memory", seen.stage, reason, (step,))


def _largest_at_peak(here: Base, seen: Warmup) -> str:
    warm = seen.warm_blocks * here.geometry.kv_bytes_per_token * here.setting.block_size
    moving = {"activations": seen.activations, "logits": seen.logits, "the warm-up's own KV cache": warm}
    name = max(moving, key=lambda key: moving[key])
    return f"{name} {human(moving[name])}, loaded before {human(here.loaded)}"


def too_small(prediction: Prediction) -> bool:
    """Whether the KV cache that TGI infers is what its router stumbles over: a matter of memory, not of a rule."""
    limits = prediction.limits
    budget = limits.max_batch_total_tokens
    longest = max(limits.max_total_tokens or 0, limits.max_batch_prefill_tokens or 0)
    return prediction.stage == "router" and budget is not None and budget < longest


def _prediction(
    here: Base,
    seen: Warmup,
    limits: Limits,
    outcome: Outcome,
    stage: Stage | None,
    reason: str | None,
    steps: tuple[str, ...],
) -> Prediction:
    setting = here.setting
    wanted = setting.spec.workload.concurrency
    total = limits.max_total_tokens
    together = (
        concurrency(setting, seen.blocks, limits) if outcome == "starts" and seen.budget is not None and total else None
    )
    warnings = [one.sentence for one in refusals.warnings(setting, limits, seen.limits)]
    if together is not None and together < wanted:
        warnings.append(
            f"the KV cache holds {together} requests of {thousands(total or 0)} tokens, not the {wanted} asked for"
        )
    band = uncertainty.spread(setting)
    return Prediction(
        outcome=outcome,
        stage=stage,
        reason=reason,
        next_steps=steps,
        limits=limits,
        concurrency=together,
        parts=warmup.parts(here, seen),
        gpu_total_bytes=here.total,
        kv_bytes_per_token=here.geometry.kv_bytes_per_token,
        headroom_bytes=headroom(here, seen, limits, wanted) if outcome == "starts" else min(seen.slack, 0),
        attention=setting.attention,
        block_size=setting.block_size,
        num_shard=setting.num_shard,
        prefill_chunking=setting.chunking,
        dtype=setting.dtype,
        kv_cache_dtype=setting.kv_dtype,
        uncertainty=_band(here, seen, band) if outcome == "starts" else None,
        under_load=underload.judge(here, seen, band.bytes) if outcome == "starts" else None,
        capture=capture.judge(here, seen, band.bytes) if outcome == "starts" else None,
        warnings=tuple(warnings),
        reserved=warmup.reserved(here, seen),
    )


def _band(here: Base, seen: Warmup, spread: Spread) -> Uncertainty | None:
    """The inferred budget with the estimate's spread taken from it and added to it."""
    if seen.budget is None:
        return None
    setting = here.setting
    per_block = here.geometry.kv_bytes_per_token * setting.block_size
    room = setting.wiggle if setting.facts.release.wiggle_of == "free" else 1.0
    blocks = int(spread.bytes * room) // per_block
    low, high = max(0, seen.blocks - blocks), seen.blocks + blocks
    ends = low * setting.block_size, high * setting.block_size
    return Uncertainty(spread.bytes, *ends, spread.similar, spread.why, spread.contributions)
