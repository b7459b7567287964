"""Comments that say which TGI an image holds: `# tgi-advisor: tgi 3.3.7`, on the line that names it or above it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SIGN = "tgi-advisor: tgi"
"""Stands in every file with such a comment."""
_MARK = re.compile(r"(?:#|//|<!--)[ \t]*tgi-advisor: tgi[ \t]+v?(?P<tag>\d[\w.-]{0,60})")
_COMMENT = re.compile(r"\s*(?:#|//|<!--|$)")
_WORD = re.compile(r"[^\s\"'`,;=()\[\]{}<>]+(?:\{[^\s{}]*\}[^\s\"'`,;=()\[\]{}<>]*)*")


def stated_images(text: str) -> Mapping[str, str]:
    """The tag TGI's own image would have, by the words of the statement a comment belongs to: its image among them."""
    if SIGN not in text:
        return {}
    lines = text.split("\n")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        mark = _MARK.search(line)
        if mark is None:
            continue
        alone = not line[: mark.start()].strip()
        first, last = statement(lines, number) if alone else (number, number)
        for at in range(first, min(last, len(lines)) + 1):
            words = _WORD.findall(lines[at - 1].partition(mark[0])[0])
            found |= {word: mark["tag"] for word in words if not word.startswith("-")}
    return found


def tag_of(stated: Mapping[str, str], image: str) -> str:
    """What is stated of an image: of the whole reference, else of its name; empty where nothing is."""
    return stated.get(image) or stated.get(name_of(image), "")


def name_of(image: str) -> str:
    """An image reference without its tag and digest."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def statement(lines: Sequence[str], comment: int) -> tuple[int, int]:
    """First and last line of what follows a comment on this line (1-based): a line and its continuations."""
    at = comment
    while at < len(lines) and _COMMENT.match(lines[at]):
        at += 1
    end = at
    while end + 1 < len(lines) and lines[end].rstrip().endswith(("\\", "`", "^")):
        end += 1
    return at + 1, end + 1
