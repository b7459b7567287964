"""A plan for people (a page of text) and for programs (one JSON object).

The object's names are a contract: `SCHEMA_VERSION` is raised when one changes its meaning or goes,
and docs/output.schema.json describes it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from tgi_advisor.estimate.parts import Part
from tgi_advisor.plan import Plan, Prediction
from tgi_advisor.units import gib, human, thousands

SCHEMA_VERSION = 1
BAR = 20
LIMITS = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens", "max_batch_total_tokens")


def document(plan: Plan) -> dict[str, Any]:
    """The plan as one JSON object (see docs/json.md)."""
    seen, facts = plan.prediction, plan.facts
    return {
        "schema_version": SCHEMA_VERSION,
        "outcome": seen.outcome,
        "stage": seen.stage,
        "reason": seen.reason,
        "next_steps": list(seen.next_steps),
        "limits": {name: getattr(seen.limits, name) for name in LIMITS},
        "concurrency": seen.concurrency,
        "memory": {
            "gpu_total_bytes": seen.gpu_total_bytes,
            "parts": [{"name": p.name, "bytes": p.bytes, "basis": p.basis, "why": p.why} for p in seen.parts],
            "kv_bytes_per_token": seen.kv_bytes_per_token,
            "headroom_bytes": seen.headroom_bytes,
        },
        "release": facts.release.name,
        "attention": seen.attention,
        "block_size": seen.block_size,
        "num_shard": seen.num_shard,
        "prefill_chunking": seen.prefill_chunking,
        "dtype": seen.dtype,
        "kv_cache_dtype": seen.kv_cache_dtype,
        "method": plan.method,
        "facts": {
            "model": {
                "id": facts.model.id,
                "commit": facts.model.commit,
                "model_type": facts.model.model_type,
                "stored_bytes": facts.model.stored_bytes,
                "parameters": facts.model.parameters,
                "source": facts.model.source,
            },
            "gpu": {
                "name": facts.gpu.name,
                "count": facts.gpu_count,
                "memory_bytes": facts.gpu.memory_bytes,
                "system": facts.gpu.system,
                "source": facts.gpu.source,
            },
            "release": {
                "version": facts.release.name,
                "variant": facts.variant or None,
                "source": facts.release.source,
            },
        },
        "search": None if plan.search is None else {
            "evaluations": plan.search.evaluations,
            "bound_by": plan.search.bound_by,
            "headroom_bytes": plan.search.headroom_bytes,
            "headroom_why": plan.search.headroom_why,
        },
        "warnings": list(seen.warnings),
        "container": plan.container.as_dict() if plan.container else None,
        "extra": dict(plan.extra),
    }  # fmt: skip


class Style:
    """Terminal colours, or none: a report is the same text either way."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def good(self, text: str) -> str:
        """Green."""
        return self._wrap("32;1", text)

    def bad(self, text: str) -> str:
        """Red."""
        return self._wrap("31;1", text)

    def head(self, text: str) -> str:
        """Bold."""
        return self._wrap("1", text)

    def faint(self, text: str) -> str:
        """Dim."""
        return self._wrap("2", text)

    def part(self, part: Part, text: str) -> str:
        """A bar in the colour of its basis: exact blue, modelled cyan, calibrated yellow."""
        return self._wrap({"exact": "34", "modelled": "36", "calibrated": "33"}[part.basis], text)


def page(plan: Plan, command: str | None, *, width: int = 100, colour: bool = False) -> str:
    """The plan as people read it; `command` is the rendered docker command, if it is worth showing."""
    style = Style(colour)
    blocks = [_heading(plan, style), _limits(plan, style)]
    if plan.extra:
        blocks.append(_extra(plan.extra, style))
    blocks.append(_memory(plan.prediction, style, width))
    blocks += [
        block for block in (_reasons(plan, width), _warnings(plan, style, width), _facts(plan, style, width)) if block
    ]
    if command is not None and plan.prediction.outcome == "starts":
        blocks.append(command.rstrip("\n"))
    return "\n\n".join(blocks) + "\n"


def _heading(plan: Plan, style: Style) -> str:
    facts, seen = plan.facts, plan.prediction
    where = f"{facts.model.id} on {facts.gpu_count} x {facts.gpu.name}, TGI {facts.release}"
    if facts.variant:
        where += f"-{facts.variant}"
    if seen.outcome == "starts":
        verdict = style.good("It fits." if plan.search else "It starts.")
    elif seen.outcome == "refused":
        verdict = style.bad(f"TGI refuses ({_STAGES[seen.stage or 'launcher']}).")
    else:
        verdict = style.bad(f"Out of memory ({_STAGES[seen.stage or 'load']}).")
    return f"{style.head(where)}\n{verdict}"


_STAGES = {
    "launcher": "in the launcher, before anything is loaded",
    "load": "while loading the model",
    "warmup": "at warm-up",
    "router": "in the router, after the warm-up",
}


def _limits(plan: Plan, style: Style) -> str:
    seen = plan.prediction
    lines = []
    for name in LIMITS:
        value = getattr(seen.limits, name)
        shown = "?" if value is None else thousands(value)
        note = ""
        if name == "max_batch_total_tokens" and seen.outcome == "starts":
            note = "  TGI infers this at warm-up" if seen.concurrency is not None else "  not measured for this family"
        lines.append(f"  {name:<26}{shown:>12}{style.faint(note)}")
    if seen.concurrency is not None:
        note = style.faint("  requests of max_total_tokens in the KV cache together")
        lines.append(f"  {'full-length requests':<26}{thousands(seen.concurrency):>12}{note}")
    return "\n".join(lines)


def _memory(seen: Prediction, style: Style, width: int) -> str:
    shards = f", the same on each of {seen.num_shard} shards" if seen.num_shard > 1 else ""
    lines = [style.head(f"Memory of one GPU: {gib(seen.gpu_total_bytes)}{shards}")]
    indent = 2 + 22 + 11 + 2 + BAR + 2 + 11
    for part in seen.parts:
        bar = _bar(part.bytes, seen.gpu_total_bytes)
        why = textwrap.wrap(part.why, max(28, width - indent)) or [""]
        row = f"  {part.name:<22}{gib(part.bytes):>11}  {style.part(part, bar)}  {part.basis:<11}"
        lines.append(f"{row}{style.faint(why[0])}".rstrip())
        lines += [" " * indent + style.faint(rest) for rest in why[1:]]
    total = sum(part.bytes for part in seen.parts)
    lines.append(f"  {'sum':<22}{gib(total):>11}")
    if seen.headroom_bytes < 0:
        lines.append(f"  {'missing':<22}{gib(-seen.headroom_bytes):>11}")
    return "\n".join(lines)


def _bar(size: int, total: int) -> str:
    """A bar of eighths of a character, full width for the whole GPU."""
    eighths = max(0, min(BAR * 8, round(size / total * BAR * 8))) if total else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR)


def _reasons(plan: Plan, width: int) -> str:
    seen = plan.prediction
    lines = []
    if seen.reason:
        lines += _wrapped("Reason: ", seen.reason, width)
    if plan.search is not None:
        if plan.search.bound_by:
            lines += _wrapped("Bound by: ", plan.search.bound_by, width)
        margin = f"{human(plan.search.headroom_bytes)} per GPU left unplanned: {plan.search.headroom_why}"
        lines += _wrapped("Headroom: ", margin, width)
    elif seen.outcome == "starts":
        lines += _wrapped(
            "Headroom: ", f"{human(seen.headroom_bytes)} could be missing and it would still start", width
        )
    if seen.next_steps:
        lines.append("What would work:" if seen.outcome == "out_of_memory" else "Next:")
        for step in seen.next_steps:
            lines += _wrapped("  - ", step, width)
    return "\n".join(lines)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=label, subsequent_indent=" " * len(label), break_on_hyphens=False)


def _warnings(plan: Plan, style: Style, width: int) -> str:
    lines = [line for text in plan.prediction.warnings for line in _wrapped("Note: ", text, width)]
    return style.faint("\n".join(lines)) if lines else ""


def _facts(plan: Plan, style: Style, width: int) -> str:
    """Where the facts came from, in one line each; --json has every source in full."""
    facts, seen = plan.facts, plan.prediction
    chunked = "chunked" if seen.prefill_chunking else "not chunked"
    settings = f"{seen.attention} attention, blocks of {seen.block_size}, prefill {chunked}"
    dtypes = seen.dtype if seen.dtype == seen.kv_cache_dtype else f"{seen.dtype}, KV cache {seen.kv_cache_dtype}"
    gpu_from = facts.gpu.source.partition(":")[0]
    lines = [
        *_wrapped("Model  ", facts.model.source, width),
        *_wrapped("GPU    ", f"{facts.gpu.name}, {gib(facts.gpu.memory_bytes)}, from {gpu_from}", width),
        *_wrapped("TGI    ", f"{facts.release} of {facts.release.date}: {settings}, {dtypes}", width),
        *(line for note in facts.notes for line in _wrapped("       ", note, width)),
    ]
    return style.faint("\n".join(lines))


def _extra(extra: Mapping[str, object], style: Style) -> str:
    lines = [style.head("Figures of the notebook, in GB (10^9 bytes)")]
    lines += [f"  {name:<28}{value}" for name, value in extra.items()]
    return "\n".join(lines)
