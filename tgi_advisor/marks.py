"""What looks as if a program fills it in before anything reads it: `{{ name }}`, `${NAME}`, `<your token>`, `__NAME__`.

A text may look so and mean what it says. `emit` writes one so that its first characters do not stand side by side: with
an escape of YAML, JSON or systemd, or a quote of the shell. Template engines leave that alone, and
the readers take it for what it says.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple


@cache
def templates() -> re.Pattern[str]:
    """What a template engine fills in before a shell reads it: `{{ name }}`, `<%= name %>`, `@@NAME@@`, `__NAME__`."""
    return re.compile(
        r"#\{[^{}\n]{1,200}\}|<<[ \t]*(?:parameters|pipeline|matrix)\.[\w.]{1,80}[ \t]*>>|"
        r"\{\{[^{}\n]{0,200}\}\}|<%[^%\n]{0,200}%>|\{%[^%\n]{0,200}%\}|@@\w{1,80}@@"
        r"|%\{[ \t~-]*(?:if|else|endif|for|endfor)\b[^{}\n]{0,200}\}|(?<!\w)__[A-Z][A-Z0-9_]{0,80}__(?!\w)"
    )


@cache
def _mark() -> re.Pattern[str]:
    """What a program fills in before anything reads the words: sed, m4, Python, Jinja, ERB, CMake, Octopus, xargs."""
    return re.compile(
        r"(?<!\w)__([A-Za-z]\w*?)__(?!\w)|(?<!\w)@@?([A-Z_][A-Z0-9_.-]*)@@?(?!\w)|%\(([A-Za-z_]\w*)\)[sdif]|^%([A-Za-z_]\w*)%$"
        r"|#\{([^{}\n]+)\}#?|\[\[([^\[\]\n]+)\]\]|^<([A-Za-z][^<>\n]*)>$|<%=?([^%\n]+)%>|\{\{([^{}\n]+)\}\}|^\{(\w+)\}$|^(\{\}|%[sdifr]?|@|\.{3}|\u2026)$"
    )


@cache
def _reference() -> re.Pattern[str]:
    """Variables that a program puts into a file, and how they are named."""
    return re.compile(
        r"(?<!\$)(?:\$\$)*(?P<whole>\$[{(](?P<name>[A-Za-z_][\w.:-]*)[^{}()]*[)}])|^\$(?P<alone>[A-Za-z_]\w*)$"
    )


@cache
def _begun() -> re.Pattern[str]:
    """What begins a template: it ends in another value, or nowhere."""
    return re.compile(r"(?=\{\{|\{%|%\{)")


SIGNS = ("{", "<", "%", "@", "__", "[", "#", "$", "...", "\u2026")
"""One of these is in whatever looks as if it was filled in."""


class Mark(NamedTuple):
    """What looks as if it was filled in."""

    start: int
    """Where it begins in its text."""
    text: str
    """It itself."""
    name: str
    """What it names."""


def marks(text: str) -> list[Mark]:
    """The marks of template engines, sed, m4, Python, CMake, Octopus and xargs."""
    return [Mark(one.start(), one[0], one[one.lastindex or 0]) for one in _mark().finditer(text)]


def references(text: str) -> list[Mark]:
    """Variables that a program puts into a file no shell reads (`envsubst`, a pipeline); `$$` begins none."""
    found = _reference().finditer(text) if "$" in text else ()
    return [
        Mark(one.start("whole"), one["whole"], one["name"]) if one["whole"] else Mark(0, text, one["alone"])
        for one in found
    ]


def starts(text: str) -> list[int]:
    """Where in a text that means what it says something begins that looks otherwise, in order."""
    if not any(sign in text for sign in SIGNS):
        return []
    plain = [found.start() for kind in (templates(), _begun()) for found in kind.finditer(text)]
    return sorted({*plain, *(one.start for one in (*marks(text), *references(text)))})


def parted(mark: str, written: str) -> bool:
    """Whether a mark stands in a text that is written so that it means what it says.

    `written` is the text with its escapes and quotes; a dollar that is written twice is one.
    """
    first, number = re.escape(mark[0]), ord(mark[0])
    begins = re.search(rf"(?<!\$)(?:\$\$)*{re.escape(mark[:3])}", written) if mark[0] == "$" else mark[:3] in written
    escape = rf"\\x{number:02x}|\\u{number:04x}|\\U{number:08x}|\\{first}(?:'|$)|'{first}'"
    if mark[0] == "$":
        escape += r"|\$\$"
    return re.search(escape, written, re.IGNORECASE) is not None and (len(mark) == 1 or not begins)
