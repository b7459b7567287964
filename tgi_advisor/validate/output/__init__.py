"""What was found, as text: one file a format, one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from tgi_advisor.validate.finding import Finding
from tgi_advisor.validate.report import Report, Tally
from tgi_advisor.validate.rules.rule import FAILED, REPORT, RULES

Written = TypeVar("Written")


class Style(NamedTuple):
    """How a person wants to see it."""

    colour: bool = False
    """Whether the terminal shows colours."""
    explain: bool = False
    """Whether the arguments that were judged are listed."""
    summary: bool = False
    """Whether only the sums are wanted: by rule and by file."""


Format = Callable[[Iterable[Report], Tally, Style], Iterator[str]]
"""Writes reports as they come in; the tally has counted all of them once they are through."""

SHOWN = 10
"""Lines that are named of those on which a finding holds too."""
FORMATS = ("text", "json", "sarif", "github")
"""Names of the formats."""


def write(reports: Iterable[Report], name: str, tally: Tally, style: Style) -> Iterator[str]:
    """The reports in a format, piece by piece; every report is counted in `tally` on its way."""
    from importlib import import_module

    form: Format = import_module(f"tgi_advisor.validate.output.{'json_' if name == 'json' else name}").write
    return form(_counted(reports, tally), tally, style)


def each(report: Report, form: Callable[[Finding], Written]) -> Iterator[Written]:
    """The findings of a report in some form; one that cannot be written is a finding about that."""
    for one in report.findings:
        yield _written(one, form)


def also(report: Report, one: Finding) -> str:
    """`also on lines 14, 21`: where else in its file a finding holds that is told once a file; empty for others."""
    again = [two.place for two in report.repeated if one.once == "file" and two.same == one.same]
    lines = sorted({place.line for place in again if place.file == one.place.file} - {one.place.line})
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"also on line{'' if len(lines) == 1 else 's'} {', '.join(map(str, lines[:SHOWN]))}{more}" if lines else ""


def _written(one: Finding, form: Callable[[Finding], Written]) -> Written:
    try:
        return form(one)
    except Exception as error:  # noqa: BLE001  (one finding costs no other)
        why = f"because of a defect of tgi-advisor: {type(error).__name__}"
        message = f"{one.code} was found here and cannot be written, {why}"
        return form(Finding(FAILED, RULES[FAILED].severity, one.place, 0, message, REPORT))


def _counted(reports: Iterable[Report], tally: Tally) -> Iterator[Report]:
    for one in reports:
        tally.add(one)
        yield one
