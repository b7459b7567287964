"""TGI201-TGI209: what the estimate says, when model, GPU and release are known."""

from __future__ import annotations

from tgi_advisor.units import human, thousands
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, rule

_CLOSE = 0.03
"""Share of the GPU within which the estimate can be wrong: nearer misses are warnings."""


@rule("TGI201", "error", "weights that do not fit the GPU")
def weights_do_not_fit(case: Case) -> Hits:
    """The weights with what every process needs are more than the GPU has: loading runs out of memory.

    No token limit helps. More shards, a larger GPU or a quantized checkpoint do.

    Failing, --gpu nvidia-t4::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct --num-shard 1

    Fixed, --gpu nvidia-l4::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct --num-shard 1
    """
    seen = case.prediction
    if seen is None or not case.missing_bytes or case.fits is not None or case.setting is None:
        return
    if seen.stage != "load" and case.missing_bytes < seen.gpu_total_bytes * _CLOSE:
        return
    weights = sum(part.bytes for part in seen.parts if part.name.startswith("weights"))
    needed = human(weights) if weights else human(seen.gpu_total_bytes + case.missing_bytes)
    message = (
        f"{case.view.model} needs {needed} of weights on each of {seen.num_shard} GPU{'s' if seen.num_shard > 1 else ''}, "
        f"and {case.setting.facts.gpu.name} has {human(seen.gpu_total_bytes)}: {human(case.missing_bytes)} are missing"
    )
    yield Hit(_where(case), message, "use more or larger GPUs, or a quantized checkpoint")


@rule("TGI202", "error", "warm-up that runs out of memory")
def warmup_does_not_fit(case: Case) -> Hits:
    """The weights fit, but the warm-up does not: TGI runs one full prefill before it serves.

    It needs memory for max_batch_prefill_tokens at once, and a KV cache for all of them. Where the
    estimate misses by less than 3 % of the GPU this is a warning.

    Failing, --gpu nvidia-l4::

        tgi:2.4.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 30000 --max-total-tokens 32000 --max-batch-prefill-tokens 60000

    Fixed, --gpu nvidia-l4::

        tgi:2.4.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 3000 --max-total-tokens 4000 --max-batch-prefill-tokens 3000
    """  # noqa: E501
    seen = case.prediction
    if seen is None or not case.missing_bytes or (case.fits is None and seen.stage == "load"):
        return
    if case.fits is None and case.missing_bytes >= seen.gpu_total_bytes * _CLOSE:
        return
    sure = case.missing_bytes >= seen.gpu_total_bytes * _CLOSE
    word = case.at("max-batch-prefill-tokens", "max-total-tokens", "max-input-tokens", "max-input-length")
    message = f"the warm-up needs {human(case.missing_bytes)} more than the GPU has"
    yield Hit(word or _where(case), message, _limits(case), "error" if sure else "warning")


@rule("TGI203", "error", "KV cache that is too small", "not-enough-memory", "not-enough-memory-2-1", "total-above-budget-1")
def budget_too_small(case: Case) -> Hits:
    """What is left after the warm-up holds no request of max_total_tokens, so the router refuses.

    Failing, --gpu nvidia-l4::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct --num-shard 1 --max-input-tokens 60000 --max-total-tokens 65536 --max-batch-prefill-tokens 2048

    Fixed, --gpu nvidia-l4::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct --num-shard 1 --max-input-tokens 6000 --max-total-tokens 8192 --max-batch-prefill-tokens 2048
    """  # noqa: E501
    codes = {one.code for one in case.refused}
    if case.missing_bytes or not codes & {"not-enough-memory", "not-enough-memory-2-1", "total-above-budget-1"}:
        return
    budget = case.prediction.limits.max_batch_total_tokens if case.prediction else None
    total = case.view.number("max-total-tokens")
    if budget is None or total is None:
        return
    message = f"the KV cache holds {thousands(budget)} tokens, less than one request of {thousands(total)}"
    sure = total > budget * (1 + _CLOSE)
    yield Hit(case.at("max-total-tokens") or _where(case), message, _limits(case), "error" if sure else "warning")


def _limits(case: Case) -> str:
    """The limits that would fit, as arguments."""
    if case.fits is None:
        return "use more or larger GPUs, or a quantized checkpoint"
    named = [f"--{name.replace('_', '-')} {value}" for name, value in case.fits.given().items()]
    return f"these limits fit: {' '.join(named)}"


def _where(case: Case) -> Value:
    """The word that names the GPU, else the model."""
    word = case.gpu_word or case.at("model-id") or case.server.gpus.value
    return word or Value("", case.home)
