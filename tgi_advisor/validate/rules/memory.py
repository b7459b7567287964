"""TGI201-TGI209: what the estimate says, when model, GPU and release are known."""

from __future__ import annotations

from tgi_advisor.units import human, thousands
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, rule

_CLOSE = 0.03
"""Share of the GPU within which weights can be misjudged: nearer misses are warnings."""
_MODELLED = 0.1
"""The same for a warm-up, whose peak is modelled and not counted."""


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
    if seen is None or not seen.missing_bytes or case.fits is not None or case.setting is None:
        return
    if seen.runs_out != "load" and seen.missing_bytes < seen.gpu_total_bytes * _CLOSE:
        return
    weights = sum(part.bytes for part in seen.parts if part.name.startswith("weights"))
    needed = human(weights) if weights else human(seen.gpu_total_bytes + seen.missing_bytes)
    each = f"each of {seen.num_shard} GPUs" if seen.num_shard > 1 else "one GPU"
    message = (
        f"{case.view.model} needs {needed} of weights on {each}, "
        f"and {case.setting.facts.gpu.name} has {human(seen.gpu_total_bytes)}: {human(seen.missing_bytes)} are missing"
    )
    yield Hit(_where(case), message, "use more or larger GPUs, or a quantized checkpoint")


@rule("TGI202", "error", "warm-up that runs out of memory")
def warmup_does_not_fit(case: Case) -> Hits:
    """The weights fit, but the warm-up does not: TGI runs one full prefill before it serves.

    It needs memory for max_batch_prefill_tokens at once, and a KV cache for all of them. Where less than
    10 % of the GPU is missing this is a warning, because the peak is an estimate; so it is before 1.0.0,
    whose warm-up is taken to be that of 1.0.0.

    Failing, --gpu nvidia-l4::

        tgi:2.4.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 30000 --max-total-tokens 32000 --max-batch-prefill-tokens 60000

    Fixed, --gpu nvidia-l4::

        tgi:2.4.1 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 3000 --max-total-tokens 4000 --max-batch-prefill-tokens 3000
    """  # noqa: E501
    seen = case.prediction
    if seen is None or not seen.missing_bytes or (case.fits is None and seen.runs_out == "load"):
        return
    if case.fits is None and seen.missing_bytes >= seen.gpu_total_bytes * _CLOSE:
        return
    sure = seen.missing_bytes >= seen.gpu_total_bytes * _MODELLED and not case.view.image.older
    word = case.at("max-batch-prefill-tokens", "max-total-tokens", "max-input-tokens", "max-input-length")
    message = f"the warm-up needs {human(seen.missing_bytes)} more than the GPU has"
    yield Hit(word or _where(case), message, _limits(case), "error" if sure else "warning")


_TOO_SMALL = (
    "not-enough-memory", "not-enough-memory-2-1", "total-above-budget-1", "total-above-budget", "prefill-above-budget",
)  # fmt: skip


@rule("TGI203", "error", "KV cache that is too small", *_TOO_SMALL)
def budget_too_small(case: Case) -> Hits:
    """What is left after the warm-up holds no request of max_total_tokens, so the router refuses.

    Failing, --gpu nvidia-l4::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct --num-shard 1 --max-input-tokens 20000 --max-total-tokens 40000 --max-batch-prefill-tokens 2048

    Fixed, --gpu nvidia-l4::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-8B-Instruct --num-shard 1 --max-input-tokens 20000 --max-total-tokens 24000 --max-batch-prefill-tokens 2048
    """  # noqa: E501
    if case.prediction is None or case.prediction.runs_out or not any(one.code in _TOO_SMALL for one in case.refused):
        return
    limits = case.prediction.limits
    budget, total, prefill = limits.max_batch_total_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens
    if budget is None or max(total or 0, prefill or 0) <= budget:
        return
    one = (total or 0) >= (prefill or 0)
    needed = max(total or 0, prefill or 0)
    what = "one request of max_total_tokens" if one else "one prefill of max_batch_prefill_tokens"
    message = f"the KV cache holds {thousands(budget)} tokens, less than {what} = {thousands(needed)}"
    word = case.at("max-total-tokens" if one else "max-batch-prefill-tokens", "max-total-tokens")
    sure = needed > budget * (1 + _MODELLED) and not case.view.image.older
    yield Hit(word or _where(case), message, _limits(case), "error" if sure else "warning")


@rule("TGI204", "warning", "CUDA graphs that may not fit")
def graphs_may_not_fit(case: Case) -> Hits:
    """What the KV cache leaves may not hold the CUDA graphs, which TGI captures last.

    Where PyTorch's allocator refuses them on one GPU, TGI logs it and goes on, and requests may fail later. What the
    driver refuses ends the start from 2.0.0 on, and so does a shard that goes on without the others.

    Failing, --gpu nvidia-l4::

        tgi:2.4.0 --model-id Qwen/Qwen2.5-32B-Instruct-GPTQ-Int4 --max-input-tokens 100 --max-total-tokens 200 --max-batch-prefill-tokens 100 --cuda-graphs 128,64,32,16,8,4,2,1

    Fixed, --gpu nvidia-l4::

        tgi:2.4.0 --model-id Qwen/Qwen2.5-32B-Instruct-GPTQ-Int4 --max-input-tokens 100 --max-total-tokens 200 --max-batch-prefill-tokens 100 --cuda-graphs 0
    """  # noqa: E501
    found = case.prediction.capture if case.prediction else None
    if found is None or found.next_step is None:
        return
    message = f"the CUDA graphs may not fit: {found.why}"
    yield Hit(case.at("cuda-graphs", "enable-cuda-graphs") or _where(case), message, f"use {found.next_step}")


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
