"""Annotations of GitHub Actions (https://docs.github.com/actions/reference/workflow-commands-for-github-actions)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from tgi_advisor.validate.finding import Finding, Severity
from tgi_advisor.validate.output import Style, also, each
from tgi_advisor.validate.report import Report, Tally
from tgi_advisor.validate.rules import RULES

_COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "notice"}


def write(reports: Iterable[Report], tally: Tally, style: Style) -> Iterator[str]:  # noqa: ARG001
    """One workflow command a finding, then the sums."""
    for report in reports:
        yield from each(report, partial(_annotation, report))
    yield f"{tally.sentence}\n"


def _annotation(report: Report, one: Finding) -> str:
    properties = {"file": one.place.file, "line": str(one.place.line), "col": str(one.place.column)}
    if one.length:
        properties["endColumn"] = str(one.place.column + one.length)
    properties["title"] = f"{one.code} {RULES[one.code].title}"
    written = ",".join(f"{name}={_property(text)}" for name, text in properties.items())
    message = "\n".join(filter(None, (one.message, one.next_step, also(report, one))))
    return f"::{_COMMANDS[one.severity]} {written}::{_data(message)}\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
