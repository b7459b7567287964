"""A migration as people and programs read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from tgi_advisor.engines import memory
from tgi_advisor.engines.facts import Engine
from tgi_advisor.engines.memory import Start
from tgi_advisor.engines.migrate import Migration
from tgi_advisor.engines.translate import Step
from tgi_advisor.report import Style
from tgi_advisor.safe import masked, printable, unobeyed
from tgi_advisor.units import human, thousands

DONE = ("same", "automatic", "default differs")
"""Relations of what is right without a word."""
LOST = ("none", "client")
"""Relations of what the engine is not told."""


def page(found: Migration, command: str | None, *, width: int = 100, colour: bool = False, brief: bool = False) -> str:
    """The migration as text; `command` is the deployment in the format asked for, if there is one.

    A `brief` page leaves out the reasons of what is translated one to one, and what clients must change.
    """
    style = Style(colour)
    blocks = [_heading(found, style, width)]
    if not found.fresh:
        blocks.append(_told(found, style, width, brief))
    if found.start is not None:
        blocks.append(_memory(found.start, found.engine, style, width))
    if not brief and not found.fresh:
        blocks += [_clients(found.engine, style, width), _metrics(found, style, width)]
    blocks.append(
        "\n".join(line for one in found.warnings for line in _wrapped("Note: ", f"{one.rstrip('.')}.", width))
    )
    if command is not None:
        blocks.append(command.rstrip("\n"))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _heading(found: Migration, style: Style, width: int) -> str:
    facts, engine = found.plan.facts, found.engine
    was = "" if found.fresh else f"TGI {facts.release} -> "
    count = f"{found.plan.prediction.num_shard} x " if found.plan.prediction.num_shard > 1 else ""
    lines = [style.head(f"{facts.model.id} on {count}{facts.gpu.name}: {was}{engine.title} {engine.version}")]
    lines += _wrapped("", verdict(found), width)
    if found.refusals:
        lines += [line for one in found.refusals for line in _wrapped("  - ", one, width)]
    colours = {"holds": style.good, "less": style.warn, "unknown": style.warn}
    lines[1] = colours.get(found.verdict, style.bad)(lines[1])
    return "\n".join(lines)


def verdict(found: Migration) -> str:
    """Whether the engine keeps today's promise, in a sentence."""
    start, title = found.start, found.engine.title
    if found.verdict in ("refused", "out_of_memory"):
        return f"{title} WOULD NOT SERVE THIS."
    if start is None:
        return f"{title} is told the same; what it makes of the memory is not computed."
    low, high = thousands(start.tokens_low), thousands(start.tokens_high)
    holds = f"its KV cache holds {thousands(start.tokens)} tokens ({low} to {high})"
    if found.fresh and found.promise is not None:
        many = found.plan.spec.workload.concurrency
        asked = f"{many} request{'s' if many > 1 else ''} of {thousands(start.context or 0)} tokens"
        short = f", which is less than {asked}" if start.tokens < found.promise else f"; asked for are {asked}"
        return f"{title} STARTS: {holds}{short}."
    if found.promise is None:
        return f"{title} STARTS: {holds}."
    today = f"TGI's today holds {thousands(found.promise)}"
    if found.verdict == "less":
        return f"{title} STARTS, BUT HOLDS LESS: {holds}, {today}."
    sure = "" if start.tokens_low >= found.promise else ", though not surely"
    return f"{title} KEEPS TODAY'S PROMISE{sure}: {holds}, {today}."


def _told(found: Migration, style: Style, width: int, brief: bool) -> str:
    """What became of every argument: what is said, what is written although nobody said it, what is lost."""
    title = found.engine.title
    steps = found.told.steps
    groups = (
        ("Translated", [one for one in steps if one.tgi and one.engine and one.relation not in LOST]),
        (f"Written out, because {title}'s default differs", [one for one in steps if not one.tgi and one.engine]),
        ("Nothing to write", [one for one in steps if not one.engine and one.relation in DONE]),
        ("Left to you", [one for one in steps if not one.engine and one.relation not in (*DONE, *LOST)]),
        (f"No equivalent in {title}", [one for one in steps if not one.engine and one.relation in LOST]),
    )
    blocks = []
    for name, members in groups:
        if members:
            lines = [style.head(f"{name}:")]
            for one in members:
                lines += _step(one, style, width, reasons=not brief or not one.engine or one.relation == "different")
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _step(one: Step, style: Style, width: int, *, reasons: bool) -> Iterator[str]:
    arrow = " -> ".join(part for part in (one.tgi, one.engine) if part)
    yield from _wrapped("  ", arrow, width)
    if reasons:
        yield from (style.faint(line) for line in _wrapped("      ", one.why, width))


def _memory(start: Start, engine: Engine, style: Style, width: int) -> str:
    """Where every byte goes, and the setting."""
    lines = [style.head(f"Memory of one GPU in {engine.title} ({human(start.total_bytes)}):")]
    size = max((len(part.name) for part in start.parts), default=0)
    for part in start.parts:
        lead = f"  {part.name:<{size}} {human(part.bytes):>10}  "
        lines += _wrapped(lead, part.why, width)
    if start.outcome == "starts":
        each = f"{human(start.bytes_per_token)} a token"
        text = f"{human(start.pool_bytes)} of KV cache, give or take {human(start.spread_bytes)}, {each}"
        if start.concurrency is not None and start.context is not None:
            text += f": {start.concurrency:.1f} requests of {thousands(start.context)} tokens at once"
        lines += _wrapped("  ", f"{text}.", width)
    return "\n".join(lines)


def _clients(engine: Engine, style: Style, width: int) -> str:
    """What a client must change: in TGI, in the engine, what to do."""
    lines = [style.head("Clients must change:")]
    for name, (before, after, do) in engine.clients.items():
        lines += _wrapped("  ", f"{name}: {before} -> {after}: {do}", width, hang=6)
    return "\n".join(lines)


def _metrics(found: Migration, style: Style, width: int) -> str:
    """Metrics of TGI's in the file, line by line; the usual ones where there is no file with any."""
    title = found.engine.title
    if found.rewritten:
        lines = [style.head("Metrics in this file:")]
        for one in found.rewritten:
            lines += [
                f"  {one.line}: {_told_line(one.before)}",
                f"  {' ' * len(str(one.line))}> {_told_line(one.after)}",
            ]
            lines += [f"      nothing in {title} stands for {name}" for name in one.lost]
            lines += [text for note in one.notes for text in _wrapped("      ", note, width)]
        return "\n".join(lines)
    lines = [style.head("Metrics:")]
    lines += [f"  {name} -> {to}" for name, to in found.engine.metrics.items() if to]
    return "\n".join(lines)


def _told_line(text: str) -> str:
    """A line of somebody's file, fit to be shown."""
    return unobeyed(printable(masked(text)))


def _wrapped(lead: str, text: str, width: int, hang: int | None = None) -> list[str]:
    """Text in lines of `width`, after a lead on the first."""
    blank = " " * (hang if hang is not None else len(lead))
    return textwrap.wrap(
        text, width, initial_indent=lead, subsequent_indent=blank, break_long_words=False, break_on_hyphens=False
    ) or [lead.rstrip()]  # fmt: skip


def document(found: Migration) -> dict[str, Any]:
    """The migration as JSON's objects: docs/json.md has every name."""
    facts, engine = found.plan.facts, found.engine
    return {
        "schema_version": 1,
        "engine": engine.name,
        "version": engine.version,
        "model": facts.model.id,
        "gpu": facts.gpu.name,
        "num_shard": found.plan.prediction.num_shard,
        "release": facts.release.name,
        "verdict": found.verdict,
        "says": verdict(found),
        "refusals": list(found.refusals),
        "promise": {
            "max_batch_total_tokens": found.promise,
            "limits": found.plan.prediction.limits.given(),
            "concurrency": found.plan.prediction.concurrency,
        },
        "memory": memory.plain(found.start) if found.start is not None else None,
        "steps": [one._asdict() for one in found.told.steps],
        "clients": [
            {"what": name, "tgi": row[0], "engine": row[1], "do": row[2]} for name, row in engine.clients.items()
        ],
        "metrics": {name: to or None for name, to in engine.metrics.items()},
        "metrics_in_file": [one._asdict() for one in found.rewritten],
        "warnings": list(found.warnings),
        "container": found.container.as_dict() if found.container is not None else None,
    }


def notes_of(yaml: str) -> Iterable[str]:
    """What an imported spec says it leaves out, line by line."""
    listed = False
    for line in yaml.splitlines():
        if line.startswith("# Not carried over"):
            listed = True
        elif listed and line.startswith("# - "):
            yield f"not in the file's spec: {line.removeprefix('# - ')}"
        elif not line.startswith("#"):
            return
