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
from tgi_advisor.search import Found, first_that_holds, last_that_holds, new_tokens, totals
from tgi_advisor.spec.records import AUTO
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
    """The largest max_total_tokens the notebook's formula lets through, of requests with the answer that is asked for.

    Limits the spec pins or bounds are respected. A max_batch_prefill_tokens that it leaves open is max_total_tokens, as
    in every launch of the notebook. The formula rounds max_batch_prefill_tokens / max_input_tokens up to whole
    requests, so that it counts two of them at full length, and with a smaller max_batch_prefill_tokens would let longer
    ones through. Shorter requests can need more, where more of them make up the batch: every stretch over which the
    memory needed grows is searched, from the longest requests down.
    """
    bounds = setting.spec.limits
    span = totals(setting)
    room = new_tokens(setting)
    low = min(span.high, span.low)
    evaluations = 0

    def limits_for(total: int) -> Limits:
        longest = bounds.max_input_tokens.clamp(total - room)
        return Limits(longest, total, bounds.max_batch_prefill_tokens.clamp(total))

    def seen_at(total: int) -> Figures:
        nonlocal evaluations
        evaluations += 1
        return figures(setting, limits_for(total), method)

    def requests(total: int) -> int:
        return _requests(setting, limits_for(total))

    longest, prefill = bounds.max_input_tokens, bounds.max_batch_prefill_tokens
    turns = (prefill.low, prefill.high, *(end and end + room for end in (longest.low, longest.high)))
    turning = [low, *(turn for turn in turns if turn is not None and turn > low)]

    def stretch(total: int) -> int:
        """The smallest total from which the memory needed grows up to `total`: requests do not get fewer."""
        start, most = max(turn for turn in turning if turn <= total), requests(total)
        return start if requests(start) <= most else first_that_holds(start, total, lambda one: requests(one) == most)

    chosen, least, end = None, low, span.high
    missing = _missing(seen_at(low))
    while chosen is None and end >= low:
        if seen_at(end).fits:
            chosen = end
            break
        start = stretch(end)
        if (short := _missing(first := seen_at(start))) < missing:
            least, missing = start, short
        if first.fits:
            chosen = last_that_holds(start, end, lambda one: seen_at(one).fits)
        end = start - 1
    bound_by = span.high_by if chosen == span.high else "memory"
    limits = limits_for(least if chosen is None else chosen)
    seen = figures(setting, limits, method)
    search = Search(evaluations, bound_by, 0, "the notebook keeps 5 % of the memory, and no more")
    prediction = _prediction(setting, limits, seen)
    many = _requests(setting, limits)
    if prefill == AUTO and many > 1 and bound_by == "memory":
        prediction = prediction._replace(warnings=(*prediction.warnings, HELD.format(many)))
    return Found(None if chosen is None else limits, search, prediction), seen


HELD = (
    "max_batch_prefill_tokens is held at max_total_tokens, as in the notebook's own launches, so that its formula "
    "counts {} requests at full length; with one no larger than max_input_tokens it counts one, and lets longer "
    "requests through"
)
"""What a search by the notebook holds fixed."""


def _requests(setting: Setting, limits: Limits) -> int:
    """Requests of a prefill batch, as the notebook counts them."""
    one_token_each = limits._replace(max_total_tokens=2)
    return notebook.notebook_tgi(setting.facts.model, 1, 1, one_token_each, dtype=setting.dtype).tokens_needed


def _prediction(setting: Setting, limits: Limits, seen: Figures) -> Prediction:
    total = round(notebook.nominal_gb(setting.facts.gpu.memory_bytes) * GB * setting.facts.gpu_count)
    kv_cache = seen.kv_cache if isinstance(seen, NotebookFigures) else seen.kv_needed
    pooled = "summed over all GPUs"
    many = _requests(setting, limits)
    full = "one request" if many == 1 else f"{many} requests"
    full = f"{full} at full length: max_batch_prefill_tokens / max_input_tokens, rounded up"
    parts = [
        Part("CUDA overhead", round(seen.cuda), "modelled", f"1.2 GB per GPU, {pooled}"),
        Part("model", seen.model, "exact", "weights as stored"),
        Part("prefill", round(seen.prefill), "modelled", "one layer's tensors over the prefill batch"),
        Part("decode", round(seen.decode), "modelled", "the same for one token per request"),
        Part("KV cache", round(kv_cache), "modelled", full),
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
