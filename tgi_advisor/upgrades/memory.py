"""Where the memory goes in two releases, and so why the budget differs: the parts of both predictions side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.units import gib, thousands
from tgi_advisor.upgrades.records import Row, Side

KV_CACHE = "KV cache"
"""The part that everything else is taken from."""


def rows(before: Side, after: Side) -> tuple[Row, ...]:
    """Every part that differs, the largest difference first and the KV cache last; none unless both start.

    The parts of a launch that starts sum to the GPU, so that what the others take more is what the KV cache has less.
    """
    if not (before.starts and after.starts):
        return ()
    old, new = _sizes(before), _sizes(after)
    names = [name for name in dict.fromkeys((*new, *old)) if name != KV_CACHE]
    per_token = after.prediction.kv_bytes_per_token if after.setting.family.paged else 0
    found = [
        Row(name, was, now, -((now - was) // per_token) if per_token else None, _why(name, before, after, old, new))
        for name in names
        if (was := _bytes(old, name)) != (now := _bytes(new, name))
    ]
    found.sort(key=lambda row: -abs(row.after_bytes - row.before_bytes))
    was, now = _bytes(old, KV_CACHE), _bytes(new, KV_CACHE)
    if was == now:
        return tuple(found)
    budgets = [side.prediction.limits.max_batch_total_tokens for side in (before, after)]
    tokens = None if None in budgets else (budgets[1] or 0) - (budgets[0] or 0)
    return (*found, Row(KV_CACHE, was, now, tokens, _cache(before, after)))


def _sizes(side: Side) -> Mapping[str, Part]:
    return {part.name: part for part in side.prediction.parts}


def _bytes(parts: Mapping[str, Part], name: str) -> int:
    return parts[name].bytes if name in parts else 0


def _cache(before: Side, after: Side) -> str:
    """What the KV cache is made of, where a token takes another size or blocks are others."""
    seen, now = before.prediction, after.prediction
    said = []
    if seen.kv_bytes_per_token != now.kv_bytes_per_token:
        said.append(
            f"a token takes {thousands(now.kv_bytes_per_token)} bytes instead of {thousands(seen.kv_bytes_per_token)}"
        )
    if seen.block_size != now.block_size:
        said.append(f"in blocks of {now.block_size} instead of {seen.block_size} tokens")
    return ", ".join(said) or "what the rest leaves"


def reserve(setting: Setting) -> str:
    """What TGI keeps out of the KV cache, in words."""
    share = round((1 - setting.wiggle) * 100, 1)
    of = "the whole GPU" if setting.facts.release.wiggle_of == "total" else "what is free at the warm-up's peak"
    return f"{share:g} % of {of}" if share else "nothing"


def _why(name: str, before: Side, after: Side, old: Mapping[str, Part], new: Mapping[str, Part]) -> str:
    """Why a part is larger or smaller."""
    if name in _REASONS:
        return _REASONS[name](before, after)
    was, now = (parts[name].why if name in parts else "" for parts in (old, new))
    if was and now:
        return now if was == now else f"{now}; before: {was}"
    return now or f"no longer there; before: {was}"


def _reserve(before: Side, after: Side) -> str:
    was, now = reserve(before.setting), reserve(after.setting)
    return f"TGI keeps {now} out of the KV cache" + (f"; before: {was}" if was != now else "; as before, less graphs")


def _logits(before: Side, after: Side) -> str:
    was, now = _scored(before.setting), _scored(after.setting)
    return now if was == now else f"{now}; before: {was}"


def _scored(setting: Setting) -> str:
    if not setting.prefill_logprobs:
        return "logits of each request's last token"
    twice = " in two copies" if setting.facts.release.prefill_logits == "two_copies" else ""
    return f"logits of every prefill token{twice}"


def _activations(before: Side, after: Side) -> str:
    was, now = (side.prediction.limits.max_batch_prefill_tokens or 0 for side in (before, after))
    if was == now:
        return f"a warm-up of {thousands(now)} tokens, as before, on other kernels"
    old, new = (_bytes(_sizes(side), "prefill activations") for side in (before, after))
    kernels = "" if abs(new * was - old * now) * KERNELS < old * now else " on other kernels"
    return f"a warm-up of {thousands(now)} tokens{kernels}; before: {thousands(was)}"


KERNELS = 10
"""A warm-up that takes a tenth more or less for each token runs on other kernels."""


def _graphs(before: Side, after: Side) -> str:
    was, now = (", ".join(map(str, sorted(side.setting.graph_sizes))) or "none" for side in (before, after))
    return f"captured for batches of {now}; before: {was}" if was != now else f"captured for batches of {now}"


def _workspace(before: Side, after: Side) -> str:
    was, now = (side.setting.facts.release.flashinfer_bytes for side in (before, after))
    if before.setting.attention != after.setting.attention:
        return f"{after.setting.attention} attention; before: {before.setting.attention}"
    return f"buffers of another flashinfer ({gib(now)}; before: {gib(was)})"


_REASONS: Mapping[str, Callable[[Side, Side], str]] = {
    "reserve": _reserve, "logits and sampling": _logits, "prefill activations": _activations, "CUDA graphs": _graphs,
    "flashinfer workspace": _workspace,
}  # fmt: skip
