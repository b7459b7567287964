"""Text for people: place, cause, the line with a caret, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from tgi_advisor.safe import unobeyed
from tgi_advisor.validate.finding import RANK, Finding, Severity
from tgi_advisor.validate.output import Style, also, each
from tgi_advisor.validate.report import Report, Seen, Tally
from tgi_advisor.validate.rules import RULES

TAB = "\t"
WIDEST = 100
"""Columns of a source line that are shown."""
_COLOURS: dict[Severity, str] = {"error": "31;1", "warning": "33;1", "info": "36"}


def write(reports: Iterable[Report], tally: Tally, style: Style) -> Iterator[str]:
    """Every finding with its line, the changes of `--fix`, and the sums at the end."""
    for report in reports:
        if style.summary:
            continue
        if style.explain:
            for server in report.servers:
                yield _explained(server)
        yield from each(report, partial(_finding, report, style))
        yield _plain(report.diff, f"{TAB}\n")
    if style.summary:
        yield from _sums(tally, style)
    yield f"{tally.sentence}\n"


def _sums(tally: Tally, style: Style) -> Iterator[str]:
    """What was found by rule and by file, as two tables; nothing where nothing was found."""
    rules = [
        (str(found.findings), str(found.files), severity, code, RULES[code].title)
        for code, severity, found in tally.rules
    ]
    if rules:
        yield _table(("findings", "files", "severity", "rule", ""), rules, style)
    files = [
        (*(str(found.severities[name]) for name in RANK), str(found.servers), _plain(file))
        for file, found in tally.worst
        if any(found.severities.values())
    ]
    if rules:
        yield _table(("errors", "warnings", "remarks", "servers", "file"), files, style)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], style: Style) -> str:
    """Rows under their heads: numbers to the right, words to the left, the last column as long as it is."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head) - 1)]
    lines = []
    for row in (head, *rows):
        cells = [
            f"{cell:>{wide}}" if rows[0][at].isdigit() else f"{cell:<{wide}}"
            for at, (cell, wide) in enumerate(zip(row, widths, strict=False))
        ]
        line = "  ".join((*cells, row[-1])).rstrip()
        lines.append(_paint(line, "1", style) if row is head else line)
    return "\n".join(lines) + "\n\n"


def _finding(report: Report, style: Style, finding: Finding) -> str:
    severity = _paint(finding.severity, _COLOURS[finding.severity], style)
    server = f" ({_plain(finding.server)})" if finding.server else ""
    place = _paint(_plain(str(finding.place)), "1", style)
    lines = [f"{place}: {severity} {finding.code}: {_plain(finding.message)}{server}"]
    lines += _excerpt(finding, report, style)
    lines += [f"    = {_plain(step)}" for step in (finding.next_step, also(report, finding)) if step]
    return "\n".join(lines) + "\n\n"


def _excerpt(finding: Finding, report: Report, style: Style) -> list[str]:
    """The source line and a caret below it; a long line is shown around the place."""
    line = report.lines.get((finding.place.file, finding.place.line))
    at = finding.place.column - 1
    if line is None or not line.strip() or at > len(line):
        return []
    word = re.match(r"[\w./:@-]+", line[at:])
    wide = finding.length or (len(word[0].rstrip(":")) if word else 1)
    length = max(1, min(wide, len(line) - at))
    if len(line) > WIDEST:
        start = max(0, min(at - WIDEST // 4, len(line) - WIDEST))
        head = "..." if start else ""
        line = head + line[start : start + WIDEST]
        at += len(head) - start
        length = max(1, min(length, len(line) - at))
    number = str(finding.place.line)
    margin = " " * len(number)
    lead = "".join(TAB if character == TAB else " " for character in line[:at])
    caret = _paint("^" * length, _COLOURS[finding.severity], style)
    return [f"  {number} | {_plain(line, TAB)}", f"  {margin} | {lead}{caret}"]


def _explained(server: Seen) -> str:
    """What the server is started with, and where each setting comes from."""
    name = f" {server.name}" if server.name else ""
    lines = [f"{server.place}: {server.form}{name}"]
    facts = {
        "image": server.image or "none",
        "release": _with(f"TGI {server.release}" if server.release else "unknown", server.release_note),
        "model": _with(server.model or "unknown", server.model_facts),
        "GPU": server.gpu or "not named",
        "visible": _with(_or_unknown(server.visible), server.machine),
        "shards": _or_unknown(server.shards),
        "verdict": _verdict(server),
    }
    lines += [f"    {label:<8} {text}" for label, text in facts.items()]
    lines += [f"    {'assumed':<8} {text}" for text in server.assumed]
    width = max((len(f"{one.name} {one.value}") for one in server.arguments), default=0)
    for one in server.arguments:
        words = f"{one.name} {one.value}".rstrip()
        place = "" if one.origin == "image" else f"{one.place} "
        note = f"; {one.note}" if one.note else ""
        lines.append(f"    {words:<{min(width, 60)}}  {place}{one.origin}{note}")
    return "\n".join(map(_plain, lines)) + "\n\n"


def _verdict(server: Seen) -> str:
    if server.outcome is None:
        return _with("memory not predicted", "; ".join(server.unjudged))
    limits = ", ".join(f"{name} {value:,}" for name, value in server.limits.items())
    said = {"starts": "starts", "refused": "TGI refuses it", "out_of_memory": "runs out of memory"}[server.outcome]
    return f"{said}: {limits}" if server.outcome == "starts" else said


def _or_unknown(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def _with(text: str, note: str | None) -> str:
    return f"{text} ({note})" if note else text


def _paint(text: str, code: str, style: Style) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if style.colour else text


def _plain(text: str, keep: str = "") -> str:
    """The text as wide as it was, without characters that would move a cursor, and without log commands of a job."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)
    return unobeyed(text)
