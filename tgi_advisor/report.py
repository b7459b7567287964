"""A plan for people (a page of text) and for programs (one JSON object).

The object's names are a contract: `SCHEMA_VERSION` is raised when one changes its meaning or goes,
and docs/plan.schema.json (`tgi-advisor schema plan`) describes it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.speed import Figure, Served, Speed
from tgi_advisor.plan import GpuShares, Other, Packing, Plan, Prediction, Search
from tgi_advisor.units import gib, human, thousands

SCHEMA_VERSION = 1
BAR = 14
"""Characters of the bar that stands for a whole GPU."""
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
            "pytorch": None if seen.reserved is None else {
                "reserved_after_load_bytes": seen.reserved.after_load_bytes,
                "reserved_at_peak_bytes": seen.reserved.at_peak_bytes,
            },
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
                "driver": facts.gpu.driver or None,
                "link": facts.gpu.link if facts.gpu.system == "cuda" else None,
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
            "riskier": _other(plan.search.riskier),
            "trade": _other(plan.search.trade),
        },
        "uncertainty": None if seen.uncertainty is None else {
            "spread_bytes": seen.uncertainty.spread_bytes,
            "max_batch_total_tokens_low": seen.uncertainty.budget_low,
            "max_batch_total_tokens_high": seen.uncertainty.budget_high,
            "similar_runs": seen.uncertainty.similar_runs,
            "why": seen.uncertainty.why,
            "contributions": [part._asdict() for part in seen.uncertainty.contributions],
        },
        "under_load": None if seen.under_load is None else {
            "verdict": seen.under_load.verdict,
            "spare_bytes": seen.under_load.spare_bytes,
            "why": seen.under_load.why,
        },
        "capture": None if seen.capture is None else seen.capture._asdict(),
        "speed": None if plan.speed is None else {
            "prompt_tokens": plan.speed.request.prompt,
            "answer_tokens": plan.speed.request.answer,
            "alone": _fast(plan.speed.alone),
            "full": None if plan.speed.full is None else _fast(plan.speed.full),
        },
        "warnings": list(seen.warnings),
        "container": plan.container.as_dict() if plan.container else None,
        "extra": dict(plan.extra),
    }  # fmt: skip


def _fast(found: Speed) -> dict[str, Any]:
    """How fast a server is with so many requests at once."""
    return {
        "requests": found.together,
        "bound_tokens_per_s": None if found.bound is None else _rounded(found.bound),
        "tokens_per_s": _figure(found.tokens),
        "first_token_s": _figure(found.first),
        "why_not": found.why_not or None,
        "note": found.note or None,
    }


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    """An estimate with its band."""
    if figure is None:
        return None
    low, value, high = map(_rounded, (figure.low, figure.value, figure.high))
    return {"value": value, "low": low, "high": high, "label": figure.label}


def _rounded(number: float) -> float:
    """Four digits, which are more than anybody knows of a speed."""
    return float(f"{number:.4g}")


def _other(other: Other | None) -> dict[str, Any] | None:
    """What a search finds when one thing is asked differently."""
    if other is None:
        return None
    return {"asks": other.asks, "limits": {name: getattr(other.limits, name) for name in LIMITS[:3]}}


def packing_document(packing: Packing, plans: Sequence[Plan]) -> dict[str, Any]:
    """Several plans and how they share one machine, as one JSON object (see docs/json.md)."""
    fraction = {_name(plan): plan.spec.hardware.memory_fraction for plan in plans}
    return {
        "schema_version": SCHEMA_VERSION,
        "packing": {
            "fits": packing.fits,
            "order": list(packing.order),
            "gpus": [
                {
                    "id": gpu.id,
                    "name": gpu.name,
                    "total_bytes": gpu.total_bytes,
                    "reserve_bytes": gpu.reserve_bytes,
                    "foreign_bytes": gpu.foreign_bytes,
                    "servers": [
                        {
                            "name": share.server,
                            "memory_fraction": fraction[share.server],
                            "in_use_bytes": share.in_use_bytes,
                            "held_bytes": share.held_bytes,
                            "most_bytes": share.most_bytes,
                        }
                        for share in gpu.shares
                    ],
                    "spare_bytes": gpu.spare_bytes,
                }
                for gpu in packing.gpus
            ],
            "notes": list(packing.notes),
            "next_steps": list(packing.next_steps),
        },
        "plans": [document(plan) for plan in plans],
    }


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

    def warn(self, text: str) -> str:
        """Yellow."""
        return self._wrap("33;1", text)

    def head(self, text: str) -> str:
        """Bold."""
        return self._wrap("1", text)

    def faint(self, text: str) -> str:
        """Dim."""
        return self._wrap("2", text)

    def part(self, part: Part, text: str) -> str:
        """A bar in the colour of its basis: exact blue, modelled cyan, calibrated yellow."""
        return self._wrap({"exact": "34", "modelled": "36", "calibrated": "33"}[part.basis], text)


def page(plan: Plan, command: str | None, *, width: int = 100, colour: bool = False, brief: bool = False) -> str:
    """The plan as people read it; `command` is the rendered docker command, if it is worth showing.

    A `brief` page leaves out the parts of the memory and where the facts are from.
    """
    style = Style(colour)
    seen = plan.prediction
    blocks = [_heading(plan, style), _limits(plan, style, width)]
    if plan.extra:
        blocks.append(_extra(plan.extra, style))
    if not brief and (seen.outcome != "refused" or seen.stage == "router"):  # earlier, memory has no part in it
        blocks.append(_memory(plan, style, width))
    blocks += [_bounds(plan, width), _warnings(plan, style, width)]
    if not brief:
        blocks.append(_facts(plan, style, width))
    blocks.append(_why_not(plan, width))  # last, where it is seen when the rest has scrolled away
    if command is not None and seen.outcome == "starts":
        blocks.append(command.rstrip("\n"))
    return "\n\n".join(block for block in blocks if block) + "\n"


def packing_page(
    packing: Packing,
    plans: Sequence[Plan],
    commands: Sequence[str | None],
    *,
    width: int = 100,
    colour: bool = False,
) -> str:
    """Several plans in short, and who takes what of which GPU; `commands` are the rendered docker commands."""
    style = Style(colour)
    blocks = []
    for number, (plan, command) in enumerate(zip(plans, commands, strict=True), 1):
        heading = f"{number}. {_name(plan)}: {_heading(plan, style)}"
        blocks += [heading, _why_not(plan, width), _limits(plan, style, width), _bounds(plan, width)]
        blocks.append(_warnings(plan, style, width))
        if command is not None and plan.prediction.outcome == "starts":
            blocks.append(command.rstrip("\n"))
    fraction = {_name(plan): plan.spec.hardware.memory_fraction for plan in plans}
    blocks += [_shares(gpu, fraction, style) for gpu in packing.gpus]
    lines = [_packing_verdict(packing, plans, style)]
    if packing.next_steps:
        lines += ["Next steps:", *(line for step in packing.next_steps for line in _wrapped("  - ", step, width))]
    blocks += ["\n".join(lines), "\n".join(line for note in packing.notes for line in _wrapped("Note: ", note, width))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _packing_verdict(packing: Packing, plans: Sequence[Plan], style: Style) -> str:
    if not packing.fits:
        return style.bad("They do not fit together.")
    if any(plan.prediction.at_risk for plan in plans) or any(gpu.spare_bytes < 0 for gpu in packing.gpus):
        return style.warn("They start together, but are at risk under load.")
    return style.good("They fit together.")


def _name(plan: Plan) -> str:
    """What the container of a plan is called."""
    return plan.spec.container.name


def _shares(gpu: GpuShares, fraction: Mapping[str, float], style: Style) -> str:
    """One GPU and who takes what of it, in the order they start, with the sums."""
    title = f"GPU {gpu.id}, {gpu.name}: {gib(gpu.total_bytes)}"
    rows: list[tuple[str, str, int, int]] = [("driver reserve", "", gpu.reserve_bytes, gpu.reserve_bytes)]
    if gpu.foreign_bytes:
        rows.append(("other programs", "", gpu.foreign_bytes, gpu.foreign_bytes))
    rows += [
        (share.server, f"{fraction[share.server]:g}", share.held_bytes, share.most_bytes) for share in gpu.shares
    ]  # fmt: skip
    held, most = sum(row[2] for row in rows), sum(row[3] for row in rows)
    rows += [("sum", "", held, most), ("left", "", gpu.total_bytes - held, gpu.total_bytes - most)]
    wide = max(len(row[0]) for row in rows)
    lines = [style.head(title), f"  {'':<{wide}}  {'fraction':>8}{'started':>13}{'at most':>13}"]
    lines += [f"  {name:<{wide}}  {share:>8}{gib(now):>13}{gib(load):>13}" for name, share, now, load in rows]
    return "\n".join(lines)


def _heading(plan: Plan, style: Style) -> str:
    facts = plan.facts
    where = f"{facts.model.id} on {facts.gpu_count} x {facts.gpu.name}"
    if plan.method == "tgi":
        where += f", TGI {facts.release}" + (f"-{facts.variant}" if facts.variant else "")
    return f"{style.head(where)}\n{_verdict(plan, style)}"


def verdict(plan: Plan) -> str:
    """Whether it fits, in a sentence."""
    return _verdict(plan, Style(False))


def _verdict(plan: Plan, style: Style) -> str:
    facts, seen = plan.facts, plan.prediction
    if plan.method != "tgi":
        if seen.outcome == "starts":
            return style.good("It fits, by the notebook's formula.")
        return style.bad("It does not fit, by the notebook's formula.")
    if seen.outcome == "starts":
        idle = facts.gpu_count - seen.num_shard
        used = f", on {seen.num_shard} of the {facts.gpu_count} GPUs" if idle > 0 else ""
        if seen.capture is not None and seen.capture.outcome == "may_not_fit":
            return style.warn(f"It starts{used}, but its CUDA graphs may not fit.")
        if seen.at_risk:
            return style.warn(f"It starts{used}, but is at risk under load.")
        return style.good(f"It {'fits' if plan.search else 'starts'}{used}.")
    if seen.outcome == "refused":
        return style.bad(f"TGI refuses to start, {_STAGES[seen.stage or 'launcher']}.")
    if seen.limits.max_batch_total_tokens is not None:  # TGI itself would start
        return style.bad("It does not fit: TGI would start, but not with what the spec asks.")
    verdict = "It does not fit: out of memory" if plan.search else "TGI runs out of memory"
    return style.bad(f"{verdict} {_STAGES[seen.stage or 'load']}.")


_STAGES = {
    "launcher": "in the launcher, before anything is loaded",
    "load": "while loading the model",
    "warmup": "at warm-up",
    "router": "in the router, after the warm-up",
}


def _why_not(plan: Plan, width: int) -> str:
    """Why it does not start, and what to do about it; nothing when it starts."""
    seen = plan.prediction
    if seen.outcome == "starts":
        return ""
    lines = _wrapped("Reason: ", seen.reason or "not known", width)
    if seen.next_steps:
        lines.append("Next steps:")
        lines += [line for step in seen.next_steps for line in _wrapped("  - ", step, width)]
    return "\n".join(lines)


def _limits(plan: Plan, style: Style, width: int) -> str:
    seen = plan.prediction
    if plan.search and seen.outcome == "refused":  # whatever was searched, it is not for this launch
        return ""
    starts = seen.outcome == "starts"
    if plan.search and seen.stage == "load":  # no limits help
        return ""
    lines = ["The limits that need least memory:"] if plan.search and seen.outcome == "out_of_memory" else []
    for name in LIMITS:
        value = getattr(seen.limits, name)
        shown = "-" if value is None else thousands(value)
        note = ""
        if name == "max_batch_total_tokens" and starts and plan.method == "tgi":
            band = seen.uncertainty
            note = "not measured for this family"
            if band is not None:
                note = f"TGI infers this: {thousands(band.budget_low)}\xa0to\xa0{thousands(band.budget_high)}"
        lines += _row(name, shown, note, style, width)
    if seen.concurrency is not None:
        asked = plan.spec.workload.concurrency
        note = "requests of max_total_tokens in the KV cache together"
        note += f"; asked for: {thousands(asked)}" if asked > 1 else ""
        lines += _row("full-length requests", thousands(seen.concurrency), note, style, width)
    return "\n".join(lines)


def _row(name: str, figure: str, note: str, style: Style, width: int) -> list[str]:
    """A figure by its name, and what it is, in the columns that are left."""
    head = f"  {name:<26}{figure:>12}"
    told = textwrap.wrap(note, max(18, width - len(head) - 2))
    told = [line.replace("\xa0", " ") for line in told]
    if not told:
        return [head]
    return [f"{head}{style.faint(f'  {told[0]}')}", *(" " * (len(head) + 2) + style.faint(line) for line in told[1:])]


def _memory(plan: Plan, style: Style, width: int) -> str:
    seen = plan.prediction
    lines = [style.head(f"{whose_memory(plan)}: {gib(seen.gpu_total_bytes)}")]
    indent = 2 + 22 + 10 + 2 + BAR + 2 + 12
    room = width - indent
    for part in seen.parts:
        bar = _bar(part.bytes, seen.gpu_total_bytes)
        why = textwrap.wrap(part.why, room) if room >= 24 else []
        row = f"  {part.name:<22}{gib(part.bytes):>10}  {style.part(part, bar)}  {part.basis:<12}"
        lines.append(f"{row}{style.faint(why[0]) if why else ''}".rstrip())
        lines += [" " * indent + style.faint(rest) for rest in why[1:]]
    total = sum(part.bytes for part in seen.parts)
    lines.append(f"  {'sum':<22}{gib(total):>10}")
    if seen.headroom_bytes < 0:
        lines.append(f"  {'missing':<22}{gib(-seen.headroom_bytes):>10}")
    return "\n".join(lines)


def whose_memory(plan: Plan) -> str:
    """What the parts are parts of."""
    facts, shards = plan.facts, plan.prediction.num_shard
    if plan.method != "tgi":
        return f"Nominal memory of {'all GPUs together' if facts.gpu_count > 1 else 'the GPU'}"
    if facts.gpu.system == "cpu":
        return "Memory of the container"
    return "Memory of one GPU" + (f", the same on each of {shards} shards" if shards > 1 else "")


def _bar(size: int, total: int) -> str:
    """A bar of eighths of a character, full width for the whole GPU."""
    eighths = max(0, min(BAR * 8, round(size / total * BAR * 8))) if total else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR)


def _bounds(plan: Plan, width: int) -> str:
    """What stopped the limits from growing, and what is left; nothing when it does not start."""
    seen, search = plan.prediction, plan.search
    if seen.outcome != "starts":
        return ""
    each = "" if plan.facts.gpu.system == "cpu" or seen.num_shard == 1 else " per GPU"
    if search is None:
        spare = "none, with any less memory these limits no longer hold"
        if seen.headroom_bytes > 0:
            spare = f"{human(seen.headroom_bytes)}{each} could be missing with these limits still holding"
        lines = _wrapped("Headroom: ", spare, width)
        if seen.uncertainty is not None:
            lines += _wrapped("Estimate: ", f"good to {seen.uncertainty.why}", width)
        return "\n".join([*lines, *_under_load(plan, width), *_capture(seen, width), *_speed(plan.speed, width)])
    margin = f"{human(search.headroom_bytes)}{each} left unplanned: " if search.headroom_bytes else ""
    bound_by = _wrapped("Bound by: ", search.bound_by, width) if search.bound_by else []
    kept = _wrapped("Headroom: ", f"{margin}{search.headroom_why}", width)
    others = _others(seen, search, width)
    load = [*_under_load(plan, width), *_capture(seen, width), *_speed(plan.speed, width)]
    return "\n".join([*bound_by, *others, *kept, *load])


def _others(seen: Prediction, search: Search, width: int) -> list[str]:
    """What else could be asked for, in a line each: larger chunks or a longer context, and what is at risk."""
    lines = []
    if search.trade is not None:
        now, other = seen.limits.max_batch_prefill_tokens or 0, search.trade.limits
        chunks = f"chunks of {thousands(now)} tokens; {search.trade.asks} gives max_total_tokens "
        chunks += (
            f"{thousands(other.max_total_tokens or 0)} in chunks of {thousands(other.max_batch_prefill_tokens or 0)}"
        )
        lines += _wrapped("Prefill:  ", chunks, width)
    if search.riskier is not None:
        total = thousands(search.riskier.limits.max_total_tokens or 0)
        risky = f"max_total_tokens {total} would start, {search.riskier.risk}: --allow-risk, or {search.riskier.asks}"
        lines += _wrapped("Riskier:  ", risky, width)
    return lines


def _under_load(plan: Plan, width: int) -> list[str]:
    """Whether it survives its traffic, in a line."""
    load = plan.prediction.under_load
    said = "not judged: TGI reserves no KV cache for this family, and what its batches take depends on the traffic"
    if load is not None:
        said = f"{load.verdict}: {load.why}"
    return _wrapped("Under load: ", said, width) if load is not None or plan.method == "tgi" else []


def _capture(seen: Prediction, width: int) -> list[str]:
    """What happens where CUDA graphs may not fit, and what to do about it; nothing where they do."""
    if seen.capture is None or seen.capture.next_step is None:
        return []
    return _wrapped("CUDA graphs: ", f"{seen.capture.why}. Use {seen.capture.next_step}", width)


def speed(found: Served | None) -> str:
    """How fast a server is with the longest requests it takes, in a sentence; empty where nothing is known."""
    if found is None or found.alone.bound is None:
        return ""
    alone, full = found.alone, found.full
    said = f"one full-length request at a time: no more than {amount(found.alone.bound)} tokens/s{_estimate(alone)}"
    if alone.first is not None:
        other = f" ({alone.first.label})" if alone.tokens is None or alone.tokens.label != alone.first.label else ""
        said += f", first token after {band(alone.first)} s{other}"
    if full is not None and full.bound is not None:
        said += f"; {thousands(full.together)} at once: no more than {amount(full.bound)} together{_estimate(full)}"
    return "; ".join(filter(None, (said, (full or alone).note)))


def _estimate(found: Speed) -> str:
    """`, estimated 9.0 to 20`, where there is one."""
    if found.tokens is None:
        return ""
    return f", {_how(found.tokens)} {band(found.tokens)}"


def _how(figure: Figure) -> str:
    """The label of an estimate, in a sentence."""
    return "roughly" if figure.label == "rough" else figure.label


def band(figure: Figure) -> str:
    """`9.0 to 20`: what an estimate is between."""
    return f"{amount(figure.low)} to {amount(figure.high)}"


def amount(number: float) -> str:
    """A figure in the digits that matter: `0.85`, `3.1`, `20`, `12,345`."""
    digits = 0 if number >= 10 else 1 if number >= 1 else 2 if number >= 0.1 else 3
    return f"{number:,.{digits}f}"


def _speed(found: Served | None, width: int) -> list[str]:
    said = speed(found)
    return _wrapped("Speed:    ", said, width) if said else []


def _wrapped(label: str, text: str, width: int) -> list[str]:
    glued = re.sub(r"(?<=\d) (?=%|[KMGT]i?B\b)", "\xa0", text)  # a figure and its unit stay on one line
    below = " " * len(label)
    lines = textwrap.wrap(glued, width, initial_indent=label, subsequent_indent=below, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def _warnings(plan: Plan, style: Style, width: int) -> str:
    lines = [line for text in plan.prediction.warnings for line in _wrapped("Note: ", text, width)]
    return style.faint("\n".join(lines)) if lines else ""


def _facts(plan: Plan, style: Style, width: int) -> str:
    """Where the facts came from, in one line each; --json has every source in full."""
    facts, seen = plan.facts, plan.prediction
    gpu_from = re.split(r"[:;(]", facts.gpu.source, maxsplit=1)[0].strip().replace("table gpus.yaml", "the GPU table")
    kind = "CPU" if facts.gpu.system == "cpu" else "GPU"
    machine = f"; driver {facts.gpu.driver}" if facts.gpu.driver else ""
    if facts.gpu.system == "cuda" and seen.num_shard > 1:
        machine += f"; link: {facts.gpu.link}"
    told = f"{facts.gpu.name}, {gib(facts.gpu.memory_bytes)}, from {gpu_from}{machine}"
    lines = [*_wrapped("Model  ", facts.model.source, width), *_wrapped(f"{kind}    ", told, width)]
    if plan.method == "tgi":
        attention = f"{seen.attention} attention"
        blocks = f", blocks of {seen.block_size}" if seen.block_size > 1 else ""
        chunked = "chunked" if seen.prefill_chunking else "not chunked"
        dtypes = seen.dtype if seen.dtype == seen.kv_cache_dtype else f"{seen.dtype}, KV cache {seen.kv_cache_dtype}"
        settings = f"{attention}{blocks}, prefill {chunked}, {dtypes}"
        lines += _wrapped("TGI    ", f"{facts.release} of {facts.release.date}: {settings}", width)
    lines += [line for note in facts.notes for line in _wrapped("       ", note, width)]
    return style.faint("\n".join(lines))


def _extra(extra: Mapping[str, object], style: Style) -> str:
    lines = [style.head("Figures of the notebook, in GB (10^9 bytes)")]
    lines += [f"  {name:<28}{value}" for name, value in extra.items()]
    return "\n".join(lines)
