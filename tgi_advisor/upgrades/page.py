"""An upgrade for people: the verdict, both releases side by side, why the budget differs, and what to go on with."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from tgi_advisor import tabular
from tgi_advisor.report import Style
from tgi_advisor.safe import printable
from tgi_advisor.spec import writer
from tgi_advisor.tabular import Table
from tgi_advisor.units import GiB, thousands
from tgi_advisor.upgrades.changes import LIMITS, unchanged
from tgi_advisor.upgrades.records import LESS_WANTED, Change, Fixed, Row, Side, Upgrade
from tgi_advisor.upgrades.sides import together


def page(found: Upgrade, *, width: int = 100, colour: bool = False, brief: bool = False) -> str:
    """One server's upgrade as people read it; `brief` leaves out the parts of the memory."""
    style = Style(colour)
    blocks = [_heading(found, style, width), _sides(found, style), _picks(found, style, width)]
    blocks.append("" if brief else _memory(found, style, width))
    blocks += [_releases(found, style, width), _words(found, style, width), _around(found, style, width)]
    blocks += [_notes(found, style, width), _proposal(found, style, width)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _heading(found: Upgrade, style: Style, width: int) -> str:
    facts, around = found.before.setting.facts, found.surroundings
    where = f"{facts.model.id} on {facts.gpu_count} x {facts.gpu.name}"
    variant = f"-{facts.variant}" if facts.variant else ""
    named = f"{around.name or 'server'} ({around.place}): " if around.place else ""
    title = f"{named}{where}, TGI {found.before.name}{variant} to {found.after.name}{variant}"
    lines = [*_wrapped(title, width, "", "  ")]
    verdict = "\n".join(_wrapped(_verdict(found), width, "", "  "))
    good = found.serves in ("same", "better")
    told = style.good(verdict) if good else style.warn(verdict) if found.serves == "less" else style.bad(verdict)
    return "\n".join([style.head("\n".join(lines)), told])


def _verdict(found: Upgrade) -> str:
    """What the new release serves with the spec as it is, in a sentence."""
    down = "It is a downgrade. " if found.downgrade else ""
    if not found.moves and found.serves == "same":
        return f"It is TGI {found.after.name} already: nothing changes."
    reasons = _joined(found.less)
    match found.serves:
        case "same":
            return f"{down}It serves the same."
        case "better":
            return f"{down}It serves more: {_joined(found.more)}."
        case "less":
            gain = f" It gains: {_joined(found.more)}." if found.more else ""
            return f"{down}As it is, it serves less: {reasons}.{gain}"
        case "refused":
            same = f", as TGI {found.before.name} does" if found.before.prediction.outcome == found.serves else ""
            return f"{down}As it is, TGI {found.after.name} refuses to start{same}: {reasons.rstrip('.')}."
        case _:
            same = f", as TGI {found.before.name} does" if found.before.prediction.outcome == found.serves else ""
            return f"{down}As it is, TGI {found.after.name} runs out of memory{same}: {reasons.rstrip('.')}."


def _joined(texts: Sequence[str]) -> str:
    return "; ".join(texts)


def _sides(found: Upgrade, style: Style) -> str:
    """Both releases and the proposal in columns."""
    columns = [(found.before.name, found.before)]
    if found.moves or found.proposal.pins:
        columns.append((f"{found.after.name} as it is", found.after))
    if found.proposal.pins or found.proposal.dropped:
        columns.append((f"--prefer {found.proposal.prefer}", found.proposal.side))
    total = found.before.prediction.limits.max_total_tokens
    rows = [("", [name for name, _ in columns])]
    rows += [(label, [told(side) for _, side in columns]) for label, told in _FIGURES.items()]
    if found.before.starts and total:
        held = [together(side, found.before) for _, side in columns]
        rows.append((f"at once, of {thousands(total)}", [_number(one) for one in held]))
    rows += [(label, [told(side) for _, side in columns]) for label, told in _PICKED.items()]
    shown = [
        (label, cells) for label, cells in rows if label in _ALWAYS or any(cell not in ("-", "") for cell in cells)
    ]
    first = max(len(label) for label, _ in shown)
    wide = [max(len(cells[i]) for _, cells in shown) for i in range(len(columns))]
    lines = []
    for label, cells in shown:
        line = f"  {label:<{first}}" + "".join(f"  {cell:>{size}}" for cell, size in zip(cells, wide, strict=True))
        lines.append(style.head(line) if not label else line)
    return "\n".join(line.rstrip() for line in lines)


_ALWAYS = ("", "it", "max_total_tokens")


def _number(value: int | None) -> str:
    return "-" if value is None else thousands(value)


_WORDS = {"starts": "starts", "refused": "refuses", "out_of_memory": "out of memory"}


def _outcome(side: Side) -> str:
    return "starts, at risk" if side.starts and side.prediction.at_risk else _WORDS[side.prediction.outcome]


def _end(name: Literal["budget_low", "budget_high"]) -> Callable[[Side], str]:
    def told(side: Side) -> str:
        band = side.prediction.uncertainty
        return thousands(getattr(band, name)) if band and side.starts else "-"

    return told


def _limit(name: str) -> Callable[[Side], str]:
    return lambda side: _number(getattr(side.prediction.limits, name)) if side.starts else "-"


_FIGURES: Mapping[str, Callable[[Side], str]] = {
    "it": _outcome,
    **{name: _limit(name) for name in LIMITS},
    "  at least": _end("budget_low"),
    "  at most": _end("budget_high"),
}
_PICKED: Mapping[str, Callable[[Side], str]] = {
    "attention": lambda side: side.setting.attention,
    "prefill chunking": lambda side: "on" if side.setting.chunking else "off",
    "prefix caching": lambda side: "on" if side.setting.prefix_caching else "off",
    "shards": lambda side: str(side.setting.num_shard),
}


def _memory(found: Upgrade, style: Style, width: int) -> str:
    """Why the budget differs: what each part takes more or less."""
    rows = [row for row in found.memory if abs(row.after_bytes - row.before_bytes) >= SMALL]
    if not rows or not found.moves:
        return ""
    first = max(len(row.name) for row in rows)
    lines = [style.head(f"Memory of one GPU, {found.after.name} as it is against {found.before.name}")]
    counted = any(row.tokens is not None for row in rows)
    for row in rows:
        head = f"  {row.name:<{first}}  {_signed((row.after_bytes - row.before_bytes) / GiB, '.2f')} GiB"
        head += f"  {_tokens(row):>15}" if counted else ""
        told = textwrap.wrap(printable(row.why), max(20, width - len(head) - 2), break_on_hyphens=False)
        lines.append(f"{head}  {style.faint(told[0])}")
        lines += [" " * (len(head) + 2) + style.faint(line) for line in told[1:]]
    if counted:
        said = "(tokens: what it does to max_batch_total_tokens; parts below 5 MiB are left out)"
        lines += [style.faint(line) for line in _wrapped(said, width, "  ", "  ")]
    return "\n".join(lines)


def _picks(found: Upgrade, style: Style, width: int) -> str:
    """What TGI picks otherwise by itself, and why."""
    rows = [one for one in found.changes if one.kind in ("limit", "engine") and one.name not in _SAID_BELOW]
    lines = [
        line
        for one in rows
        for line in _wrapped(f"{one.name} {one.after}, not {one.before}: {one.why}", width, "  ", "    ")
    ]
    return "\n".join([style.head("What TGI picks otherwise"), *lines]) if lines else ""


_SAID_BELOW = ("max_batch_total_tokens", "block_size", "reserve", "prefill_logits")
"""What the rows of the memory say."""


SMALL = 5 << 20
"""Bytes below which a difference is no reason worth a line."""


def _signed(value: float, form: str) -> str:
    return f"{'+' if value >= 0 else '-'}{abs(value):{form}}"


def _tokens(row: Row) -> str:
    return "" if row.tokens is None else f"{'+' if row.tokens >= 0 else '-'}{thousands(abs(row.tokens))} tokens"


def _releases(found: Upgrade, style: Style, width: int) -> str:
    """The releases on the way, with where it breaks."""
    if not found.steps:
        return ""
    breaks = next((step for step in found.steps if step.serves not in ("same", "better")), None)
    told = "no release on the way serves less" if breaks is None else (
        f"TGI {breaks.release} is the first that {_BREAKS[breaks.serves]}: {breaks.why}")  # fmt: skip
    table = found.table()
    shown = _alike(tabular.without(table, {"why", *(LESS_WANTED if width < WIDE else ("date",))}))
    return "\n".join([
        style.head("Releases on the way, with the spec as it is"),
        tabular.text(shown, width, NARROW), *_wrapped(f"{told}.".replace("..", "."), width, "", "  "),
    ])  # fmt: skip


WIDE = 120
"""Columns from which on the table of releases has the band too."""
NARROW = ("concurrency", "max_input_tokens", "at_risk")
"""Columns of the table of releases that go first where a terminal is narrow."""


def _alike(table: Table) -> Table:
    """The table with one row for releases that follow each other and do the same."""
    groups: list[list[tuple[Any, ...]]] = []
    for row in table.rows:
        if groups and groups[-1][-1][1:] == row[1:]:
            groups[-1].append(row)
        else:
            groups.append([row])
    rows = ((f"{rows[0][0]} to {rows[-1][0]}" if len(rows) > 1 else rows[0][0], *rows[0][1:]) for rows in groups)
    return Table(table.columns, tuple(rows))


_BREAKS = {"less": "serves less", "refused": "refuses to start", "out_of_memory": "runs out of memory"}


def _words(found: Upgrade, style: Style, width: int) -> str:
    """Flags and variables."""
    rows = [one for one in found.changes if one.kind in ("flag", "variable")]
    lines = [line for one in rows for line in _change(one, width)]
    return "\n".join([style.head("Flags and variables"), *lines]) if lines else ""


def _change(one: Change, width: int) -> list[str]:
    """One change: what it is, how it is today and then, and what to do."""
    if one.after in ("new", "gone"):
        return _wrapped(f"{one.why}: {one.name}", width, "  ", "    ")
    if one.after in ("refused", "renamed", "ignored", "read"):
        step = f": {one.step}" if one.step else ""
        return _wrapped(f"{one.name} is {one.after}: {one.why}{step}", width, "  ", "    ")
    lines = _wrapped(f"{one.name} ({one.why})", width, "  ", "    ")
    for label, text in (("today", one.before), ("then", one.after), ("do", one.step)):
        if text:
            lines += _wrapped(text, width, f"    {label:<7}", " " * 11)
    return lines


def _around(found: Upgrade, style: Style, width: int) -> str:
    """Image, paths, entry point, what clients read; and what stays."""
    if not found.moves:
        return ""
    rows = [one for one in found.changes if one.kind == "around"]
    lines = [line for one in rows for line in _change(one, width)]
    stays = _wrapped(f"as before: {unchanged(found.before, found.after, found.surroundings)}", width, "  ", "    ")
    return "\n".join([style.head("Around it"), *lines, *stays])


def _notes(found: Upgrade, style: Style, width: int) -> str:
    texts = [*found.notes]
    if found.after.starts:
        texts += [one for one in found.after.prediction.warnings if one not in found.before.prediction.warnings]
    lines = [line for text in texts for line in _wrapped(text, width, "Note: ", "      ")]
    return style.faint("\n".join(lines))


def _proposal(found: Upgrade, style: Style, width: int) -> str:
    """What is stated, what cannot be kept, and the spec."""
    made = found.proposal
    if found.fixed is not None:
        return "\n".join(_done(found, found.fixed, style, width))
    if not (made.pins or made.dropped or found.moves):
        return "\n".join([*_instead(found, width), *_lost(found, width)])
    if not made.side.starts:
        lines = _wrapped(f"No spec of TGI {found.after.name} serves it: {_joined(made.less)}.", width, "", "  ")
        lines = [style.head("\n".join(lines))]
        for step in made.side.prediction.next_steps:
            lines += _wrapped(step, width, "  - ", "    ")
        return "\n".join(lines)
    does = "To keep today's behaviour" if made.prefer == "same" else f"To use what TGI {found.after.name} gives"
    end = {"same": "serves the same", "better": "serves more", "less": "serves less"}[made.serves]
    say = "say this" if made.pins or made.dropped else "nothing has to be said"
    lines = _wrapped(f"{does} (--prefer {made.prefer}), {say}; it then {end}.", width, "", "  ")
    lines = [style.head("\n".join(lines)), *_instead(found, width)]
    first = min(max((len(_field(pin.path, pin.value)) for pin in made.pins), default=0), width // 2)
    for pin in made.pins:
        lines += _wrapped(f"{_field(pin.path, pin.value):<{first}}  {pin.why}", width, "  ", " " * (first + 4))
    if made.dropped:
        lines += _wrapped(f"and no longer: {', '.join(made.dropped)}", width, "  ", "    ")
    lines += _lost(found, width)
    if found.surroundings.left:
        lines += [style.head("What a spec does not say of it:")]
        lines += [line for one in found.surroundings.left for line in _wrapped(one, width, "  - ", "    ")]
    return "\n".join([*lines, "", *_spec(found)])


def _instead(found: Upgrade, width: int) -> list[str]:
    """Why today's limits are kept where the largest were asked for."""
    less = found.proposal.instead
    return _wrapped(f"The largest limits would serve less: {_joined(less)}.", width, "", "  ") if less else []


def _done(found: Upgrade, fixed: Fixed, style: Style, width: int) -> Iterator[str]:
    """What the mended file serves, and what is left to do by hand."""
    told = {"same": "serves the same", "better": "serves more", "less": f"serves less: {_joined(fixed.less)}"}
    said = f"Mended (--prefer {found.proposal.prefer}), it {told.get(fixed.serves, '')}."
    if not fixed.side.starts:
        said = f"No spec of TGI {found.after.name} serves it: {fixed.side.prediction.reason}"
    yield style.head("\n".join(_wrapped(said, width, "", "  ")))
    yield from _instead(found, width)
    if fixed.undone:
        yield "Left to do by hand:"
        for text in fixed.undone:
            yield from _wrapped(text, width, "  - ", "    ")
    for text in fixed.notes:
        yield from _wrapped(text, width, "Note: ", "      ")
    yield from _lost(found, width)


def _field(path: str, value: object) -> str:
    return f"{path}: {_written(value)}"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


def _lost(found: Upgrade, width: int) -> Iterator[str]:
    if found.proposal.lost:
        yield "What cannot be kept:"
        for text in found.proposal.lost:
            yield from _wrapped(text, width, "  - ", "    ")


def _spec(found: Upgrade) -> list[str]:
    return writer.dump(found.proposal.spec).rstrip("\n").splitlines()


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    glued = re.sub(r"(?<=\d) (?=%|[KMGT]i?B\b)", "\xa0", printable(text))
    lines = textwrap.wrap(glued, width, initial_indent=first, subsequent_indent=rest,
                          break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return [line.replace("\xa0", " ") for line in lines]
