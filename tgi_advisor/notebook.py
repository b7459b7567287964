"""`--method notebook` and `--method notebook-tgi`: plans by the notebook's formulas instead of TGI's sum.

The formulas are in `estimate/notebook.py`. They pool all GPUs and know no release, so a plan made
with them says less: no attention, no refusals, memory summed over the GPUs.
"""

from __future__ import annotations

from tgi_advisor.errors import SpecError, listed
from tgi_advisor.estimate import notebook
from tgi_advisor.estimate.notebook import NotebookFigures, NotebookTgiFigures
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Method, Prediction, Search
from tgi_advisor.search import Found, last_that_holds, new_tokens, totals
from tgi_advisor.units import GB, human

NEEDED = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
Figures = NotebookFigures | NotebookTgiFigures


def figures(setting: Setting, limits: Limits, method: Method) -> Figures:
    """The notebook's figures for a launch; SpecError when a limit is open."""
    if limits.max_input_tokens is not None and limits.max_input_tokens < 1:
        raise SpecError(
            f"max_total_tokens {limits.max_total_tokens} leaves no token for a prompt",
            "raise max_total_tokens, or lower workload.max_new_tokens",
        )
    formula = notebook.notebook if method == "notebook" else notebook.notebook_tgi
    return formula(
        setting.facts.model,
        setting.facts.gpu_count,
        notebook.nominal_gb(setting.facts.gpu.memory_bytes),
        limits,
        setting.memory_fraction,
        setting.dtype,
    )


def predict(setting: Setting, limits: Limits, method: Method) -> tuple[Prediction, Figures]:
    """Whether the limits fit, by the notebook."""
    missing = [name for name in NEEDED if getattr(limits, name) is None]
    if missing:
        raise SpecError(
            f"the notebook's formula needs every limit, but the spec leaves open {listed(missing, 'and')}",
            "Write numbers for them under `limits`, or use the default method, which knows TGI's own defaults.",
        )
    seen = figures(setting, limits, method)
    return _prediction(setting, limits, seen), seen


def advise(setting: Setting, method: Method) -> tuple[Found, Figures]:
    """The largest max_total_tokens the notebook's formula lets through, every prompt in one prefill.

    Limits the spec pins or bounds are respected. Prompts are at least as long as the answers where the bounds
    allow it: the formula counts a prefill batch of short prompts as that many full-length requests, so that
    below it less would need more.
    """
    bounds = setting.spec.limits
    span = totals(setting)
    room = new_tokens(setting)
    low = min(span.high, max(span.low, 2 * room))
    evaluations = 0

    def limits_for(total: int) -> Limits:
        longest = bounds.max_input_tokens.clamp(total - room)
        return Limits(longest, total, bounds.max_batch_prefill_tokens.clamp(total))

    def holds(total: int) -> bool:
        nonlocal evaluations
        evaluations += 1
        return figures(setting, limits_for(total), method).fits

    if not holds(low):
        chosen, bound_by = low, "memory"
    else:
        chosen = last_that_holds(low, span.high, holds)
        bound_by = span.high_by if chosen == span.high else "memory"
    limits = limits_for(chosen)
    seen = figures(setting, limits, method)
    search = Search(evaluations, bound_by, 0, "the notebook keeps 5 % of the memory, and no more")
    return Found(limits if seen.fits else None, search, _prediction(setting, limits, seen)), seen


def _prediction(setting: Setting, limits: Limits, seen: Figures) -> Prediction:
    total = round(notebook.nominal_gb(setting.facts.gpu.memory_bytes) * GB * setting.facts.gpu_count)
    kv_cache = seen.kv_cache if isinstance(seen, NotebookFigures) else seen.kv_needed
    pooled = "summed over all GPUs"
    parts = [
        Part("CUDA overhead", round(seen.cuda), "modelled", f"1.2 GB per GPU, {pooled}"),
        Part("model", seen.model, "exact", "weights as stored"),
        Part("prefill", round(seen.prefill), "modelled", "one layer's tensors over the prefill batch"),
        Part("decode", round(seen.decode), "modelled", "the same for one token per request"),
        Part("KV cache", round(kv_cache), "modelled", "every request of the prefill batch at full length"),
    ]
    needed = sum(part.bytes for part in parts)
    if seen.fits:
        parts.append(Part("left over", total - needed, "modelled", "of the cards' nominal size, the 5 % included"))
    missing = _missing(seen)
    per_token = round(notebook.kv_bytes_per_token(setting.facts.model, setting.dtype))
    return Prediction(
        outcome="starts" if seen.fits else "out_of_memory",
        stage=None if seen.fits else "warmup",
        reason=None
        if seen.fits
        else f"by the notebook's formula {human(missing)} are missing over {setting.facts.gpu_count} GPU(s)",
        next_steps=() if seen.fits else ("the default method (--method tgi) knows what this TGI release really does",),
        limits=limits,
        concurrency=None,
        parts=tuple(parts),
        gpu_total_bytes=total,
        kv_bytes_per_token=per_token,
        headroom_bytes=-missing,
        attention=setting.attention,
        block_size=setting.block_size,
        num_shard=setting.num_shard,
        prefill_chunking=setting.chunking,
        dtype=setting.dtype,
        kv_cache_dtype=setting.kv_dtype,
        warnings=("the notebook's formula knows no TGI release and counts all GPUs as one; docs/notebook.md has more",),
    )


def _missing(seen: Figures) -> int:
    """Bytes missing by the formula's own rule; negative when it fits."""
    if isinstance(seen, NotebookFigures):
        return round(seen.needed - seen.available)
    return round(seen.kv_needed - seen.free)
