"""What running out of memory at warm-up teaches: more headroom, a smaller prefill."""

from __future__ import annotations

from dataclasses import replace

from tgi_advisor.launch.failures import Failure
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Plan
from tgi_advisor.spec.records import Bound, Spec
from tgi_advisor.units import MiB


def learnt(asked: Spec, plan: Plan, failure: Failure, attempt: int) -> Spec:
    """The spec with the shortage as headroom on top of what the failed plan kept.

    Where PyTorch did not say what was missing, 2 % of the GPU; twice as much with every further attempt.
    """
    memory = failure.out_of_memory
    missing = max(0, memory.tried - memory.free) if memory and memory.free is not None else 0
    kept = plan.search.headroom_bytes if plan.search else asked.hardware.headroom or 0
    headroom = kept + (max(missing, plan.prediction.gpu_total_bytes // 50) << (attempt - 1))
    return replace(asked, hardware=replace(asked.hardware, headroom=-(-headroom // MiB) * MiB))


def with_less_prefill(asked: Spec, failed: Limits, attempt: int) -> Spec:
    """The spec with three quarters of the prefill budget that failed, then half, then a quarter; never below its floor.

    That is TGI's own advice, for where headroom alone does not make the warm-up smaller.
    """
    bound = asked.limits.max_batch_prefill_tokens
    if bound.fixed is not None:
        return asked
    tokens = (failed.max_batch_prefill_tokens or 1) * (3, 2, 1)[min(attempt, 3) - 1] // 4
    tokens = max(bound.low or 1, tokens)
    return replace(asked, limits=replace(asked.limits, max_batch_prefill_tokens=Bound(tokens, tokens)))


def smaller_prefill(plan: Plan, failed: Limits) -> bool:
    """Whether the warm-up prefill is smaller now."""
    now, before = plan.prediction.limits.max_batch_prefill_tokens, failed.max_batch_prefill_tokens
    return now is None or before is None or now < before
