"""Words of a program (Python, Terraform, TypeScript): strings, names, numbers, brackets with what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Union

from tgi_advisor.validate.read.source import Source

MAX_CHARACTERS = 300_000
"""Characters of a text that are read."""
MAX_TOKENS = 100_000
"""Tokens of a text that are read."""
MAX_DEPTH = 40
"""Brackets within brackets that are followed."""

_TOKEN = re.compile(
    r"(?P<skip>[ \t\r]+|\\\r?\n|\#[^\n]*)"
    r"|(?P<string>[fFrRbBuU]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'))"
    r"|(?P<name>[A-Za-z_][\w.]*)|(?P<number>\d[\w.]*)|(?P<newline>\n)|(?P<operator>==|!=|<=|>=|\+=|\|=|\|\||\?\?|->|\*\*|.)",
    re.DOTALL,
)


class Token(NamedTuple):
    """A word of the text."""

    kind: str
    """`string`, `name`, `number`, `newline` or `operator`."""
    text: str
    """As written."""
    start: int
    """Where it begins."""
    end: int
    """Where it ends."""


class Group(NamedTuple):
    """Brackets and what is in them."""

    opened: str
    """The opening bracket."""
    items: list[Item]
    """Tokens and groups."""
    start: int
    """Where it begins."""
    end: int
    """Where it ends."""


Item = Union[Token, Group]  # noqa: UP007 - a forward reference has no `|` on 3.10


def tokens(source: Source, start: int, end: int) -> list[Item]:
    """A piece of the text as nested groups."""
    end = min(end, start + MAX_CHARACTERS)
    stack: list[Group] = [Group("", [], start, start)]
    for count, match in enumerate(_TOKEN.finditer(source.text, start, end)):
        kind = match.lastgroup or "operator"
        if kind == "skip":
            continue
        token = Token(kind, match[0], match.start(), match.end())
        if token.text in "([{" and kind == "operator" and len(stack) < MAX_DEPTH:
            stack.append(Group(token.text, [], token.start, token.start))
        elif token.text in ")]}" and kind == "operator" and len(stack) > 1:
            group = stack.pop()
            stack[-1].items.append(group._replace(end=token.end))
        else:
            stack[-1].items.append(token)
        if count > MAX_TOKENS:
            break
    while len(stack) > 1:
        group = stack.pop()
        stack[-1].items.append(group._replace(end=end))
    return stack[0].items


def is_word(item: Item, *texts: str) -> bool:
    """Whether an item is one of these names or operators, and not a string that says so."""
    return isinstance(item, Token) and item.kind in ("name", "operator") and item.text in texts


def split(items: Sequence[Item], separators: tuple[str, ...], newlines: bool = False) -> Iterator[list[Item]]:
    """Items between separators; between lines as well where `newlines` are some."""
    part: list[Item] = []
    for item in items:
        if isinstance(item, Token) and item.kind == "newline":
            if newlines and part:
                yield part
                part = []
            continue
        if is_word(item, *separators):
            if part:
                yield part
            part = []
        else:
            part.append(item)
    if part:
        yield part


_ESCAPES: Mapping[str, str] = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "\n": ""}


def unescaped(raw: str, verbatim: bool) -> tuple[str, Sequence[int]]:
    """The text of a string, and where each of its characters stands."""
    if verbatim or "\\" not in raw:
        return raw, range(len(raw))
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    while at < len(raw):
        if raw[at] == "\\" and at + 1 < len(raw):
            text = _ESCAPES.get(raw[at + 1], raw[at : at + 2])
            parts.append(text)
            offsets += [at] * len(text)
            at += 2
        else:
            parts.append(raw[at])
            offsets.append(at)
            at += 1
    return "".join(parts), offsets
