"""SARIF 2.1.0 for code scanning (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from tgi_advisor.validate.finding import Finding, Severity
from tgi_advisor.validate.output import Style, each
from tgi_advisor.validate.report import Report, Tally
from tgi_advisor.validate.rules import RULES, Rule
from tgi_advisor.validate.rules.examples import explanation

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}


def write(reports: Iterable[Report], tally: Tally, style: Style) -> Iterator[str]:  # noqa: ARG001
    """One run with every finding, at the end."""
    from tgi_advisor import __version__

    codes = list(RULES)
    results: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for report in reports:
        written = list(each(report, partial(_result, codes, report.lines)))
        results += written
        told.update(zip((one.same for one in report.findings), written, strict=True))
        for one in report.repeated:
            told[one.same].setdefault("relatedLocations", []).append({"physicalLocation": _location(one)})
        if report.unread or report.defect:
            where = {"physicalLocation": {"artifactLocation": {"uri": _uri(report.file)}}}
            message = {"text": report.unread or report.defect}
            failed.append({"level": "error", "message": message, "locations": [where]})
    driver = {
        "name": "tgi-advisor", "version": __version__, "semanticVersion": __version__,
        "rules": [_rule(one) for one in RULES.values()],
    }  # fmt: skip
    invocation: dict[str, Any] = {"executionSuccessful": not failed}
    if failed:
        invocation["toolExecutionNotifications"] = failed
    run = {
        "tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "invocations": [invocation], "results": results,
    }  # fmt: skip
    yield json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(one: Rule) -> dict[str, Any]:
    text = explanation(one)
    return {
        "id": one.code,
        "name": one.check.__name__,
        "shortDescription": {"text": one.title},
        "fullDescription": {"text": text.partition("\n\n")[0].replace("\n", " ")},
        "help": {"text": text, "markdown": text},
        "defaultConfiguration": {"level": _LEVELS[one.severity]},
    }


def _result(codes: list[str], lines: Mapping[tuple[str, int], str], one: Finding) -> dict[str, Any]:
    location = _location(one)
    line = lines.get((one.place.file, one.place.line))
    if line is not None:
        location["region"]["snippet"] = {"text": line}
    message = f"{one.message}. {one.next_step}" if one.next_step else one.message
    result: dict[str, Any] = {
        "ruleId": one.code, "ruleIndex": codes.index(one.code), "level": _LEVELS[one.severity],
        "message": {"text": message},
        "locations": [{"physicalLocation": location}],
    }  # fmt: skip
    if one.fix is not None and one.fix.place.file == one.place.file:
        at = one.fix.place
        gone = {"startLine": at.line, "startColumn": at.column, "endColumn": at.column + len(one.fix.old)}
        change = {
            "artifactLocation": {"uri": _uri(at.file)},
            "replacements": [{"deletedRegion": gone, "insertedContent": {"text": one.fix.new}}],
        }
        result["fixes"] = [{"description": {"text": one.next_step or one.message}, "artifactChanges": [change]}]
    return result


def _location(one: Finding) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": max(one.place.line, 1), "startColumn": max(one.place.column, 1)}
    if one.length:
        region["endColumn"] = region["startColumn"] + one.length
    return {"artifactLocation": {"uri": _uri(one.place.file)}, "region": region}


def _uri(file: str) -> str:
    """The path as a relative or file URI."""
    path = quote(file.replace("\\", "/").encode("utf-8", "surrogateescape"))
    return f"file://{path}" if path.startswith("/") else path
