"""One JSON object for programs; described in docs/validate.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tgi_advisor.errors import Place
from tgi_advisor.validate.finding import Finding
from tgi_advisor.validate.output import Style, each
from tgi_advisor.validate.report import Report, Seen, Tally
from tgi_advisor.validate.rules import RULES

VERSION = 1
"""Counts up when a field changes its meaning or goes away."""


def write(reports: Iterable[Report], tally: Tally, style: Style) -> Iterator[str]:
    """The whole document, at the end."""
    findings: list[dict[str, Any]] = []
    servers: list[dict[str, Any]] = []
    unread: list[dict[str, str]] = []
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for report in reports:
        if report.unread or report.defect:
            unread.append({"file": report.file, "why": report.unread or report.defect})
        if style.summary:
            continue
        written = list(each(report, _finding))
        findings += written
        told.update(zip((one.same for one in report.findings), written, strict=True))
        for one in report.repeated:
            told[one.same]["also"].append({**_place(one.place), "server": one.server or None})
        servers += map(_server, report.servers)
    summary = {
        "files": tally.files, "servers": tally.servers, **{f"{name}s": n for name, n in tally.severities.items()},
        "ignored": tally.ignored, "repeated": tally.repeated, "fixable": tally.fixable, "fixed": tally.fixed,
    }  # fmt: skip
    all_of_it = {"findings": findings, "servers": servers}
    document = {
        "schema_version": VERSION, "summary": summary, **(_sums(tally) if style.summary else all_of_it),
        "unread": unread,
    }  # fmt: skip
    yield json.dumps(document, indent=2) + "\n"


def _sums(tally: Tally) -> dict[str, Any]:
    """What was found by rule and by file, in the order of the text."""
    return {
        "by_rule": [
            {"code": code, "severity": severity, "title": RULES[code].title, **found._asdict()}
            for code, severity, found in tally.rules
        ],
        "by_file": [
            {"file": file, "servers": found.servers, **{f"{name}s": n for name, n in found.severities.items()}}
            for file, found in tally.worst
        ],
    }


def _finding(one: Finding) -> dict[str, Any]:
    fix = one.fix and {**_place(one.fix.place), "old": one.fix.old, "new": one.fix.new}
    return {
        "code": one.code, "severity": one.severity, "title": RULES[one.code].title, **_place(one.place),
        "length": one.length, "message": one.message, "next_step": one.next_step or None,
        "server": one.server or None, "url": one.url, "fix": fix, "also": [],
    }  # fmt: skip


def _server(one: Seen) -> dict[str, Any]:
    return {
        "name": one.name or None, "form": one.form, **_place(one.place), "image": one.image, "release": one.release,
        "release_note": one.release_note or None, "model": one.model, "model_facts": one.model_facts, "gpu": one.gpu,
        "machine": one.machine, "visible_gpus": one.visible, "shards": one.shards, "outcome": one.outcome,
        "missing_bytes": one.missing_bytes, "assumed": list(one.assumed), "unjudged": list(one.unjudged),
        "limits": dict(one.limits),
        "arguments": [
            {"name": a.name, "value": a.value, "origin": a.origin, **_place(a.place), "note": a.note or None}
            for a in one.arguments
        ],
    }  # fmt: skip


def _place(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column}
