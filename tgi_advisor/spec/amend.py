"""Writes other values into the text of a spec, whose comments and order stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tgi_advisor.errors import SpecError
from tgi_advisor.reading import ends_with_crlf
from tgi_advisor.spec import writer
from tgi_advisor.spec.reader import read_text
from tgi_advisor.spec.records import Spec, settings

_END = re.compile(r"(?:[ \t]+#.*)?$")
"""A comment behind a value, with the blanks before it."""


def amended(text: str, file: str, wanted: Spec) -> str | None:
    """The text with what the spec says otherwise; None where that cannot be written line by line (flow style)."""
    if ends_with_crlf(text):
        made = amended(text.replace("\r\n", "\n"), file, wanted)
        return None if made is None else made.replace("\n", "\r\n")
    now = read_text(text, file)
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    for section, name, value, kind in _differing(now, wanted):
        if isinstance(value, dict):
            before = getattr(getattr(now, section), name)
            for key in dict.fromkeys((*before, *value)):
                if before.get(key) != value.get(key):
                    lines = _put(lines, (section, name), key, value.get(key), "")
            if not value:
                lines = _put(lines, (section,), name, None, kind)
        else:
            lines = _put(lines, (section,), name, value, kind)
    made = "".join(lines)
    if text and not text.endswith("\n"):
        made = made.removesuffix("\n")
    try:
        return made if read_text(made, file) == wanted else None
    except SpecError:
        return None


def _differing(now: Spec, wanted: Spec) -> Iterator[tuple[str, str, Any, str]]:
    """(section, field, new value or None for the default, kind) of every field that differs."""
    for section, field in settings(Spec).items():
        for name, one in settings(type(field.metadata["default"])).items():
            value, kind = getattr(getattr(wanted, section), name), one.metadata["kind"]
            if value == getattr(getattr(now, section), name):
                continue
            if kind in ("flags", "env"):
                yield section, name, dict(value), kind
            else:
                yield section, name, None if value == one.metadata["default"] else value, kind


def _put(lines: list[str], path: tuple[str, ...], name: str, value: Any, kind: str) -> list[str]:
    """The lines with a field of a section set, or without it."""
    start, end, pad = 0, len(lines), ""
    for part in path:
        at = _field(lines, start, end, pad, part)
        if at is None:
            if value is None:
                return lines
            lines = [
                *lines[:end],
                *([] if end == 0 or lines[end - 1].endswith("\n") else ["\n"]),
                f"{pad}{part}:\n",
                *lines[end:],
            ]
            at = end
            end = at + 1
        start, end, pad = _inside(lines, at, end, pad)
    at = _field(lines, start, end, pad, name)
    written = None if value is None else f"{pad}{writer.line(name, value, kind)}"
    if at is None:
        return lines if written is None else [*lines[:end], f"{written}\n", *lines[end:]]
    if written is None:
        return [*lines[:at], *lines[_inside(lines, at, end, pad)[1] :]]
    comment = re.search(r"[ \t]+#.*", lines[at])
    return [*lines[:at], f"{written}{comment[0] if comment else ''}\n", *lines[at + 1 :]]


def _field(lines: list[str], start: int, end: int, pad: str, name: str) -> int | None:
    """The line of a field among those of its section."""
    key = re.compile(rf"{pad}[\"']?{re.escape(name)}[\"']?:(?:\s|$)")
    return next((at for at in range(start, end) if key.match(lines[at])), None)


def _inside(lines: list[str], at: int, end: int, pad: str) -> tuple[int, int, str]:
    """Where the block below a line begins and ends, and how far it is indented."""
    inner, last = f"{pad}  ", at + 1
    first = True
    for number in range(at + 1, end):
        line = lines[number]
        indent = line[: len(line) - len(line.lstrip())].rstrip("\n")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if len(indent) <= len(pad):
            break
        if first:
            inner, first = indent, False
        last = number + 1
    return at + 1, last, inner
