"""Text of others made fit to be shown: nothing in it moves a cursor, and nothing in it is a secret.

Names of files and tensors, what a server or a registry says, what stands in a file: none of it is ours.
Whatever prints it asks here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

LONGEST = 200
"""Characters of a name of others that a message shows."""

_CREDENTIAL = r"(?:hf|api_org)_[A-Za-z0-9]{8,}"
_AUTHORITY = r"(?<=://)[^/\s]+"
"""From `://` to the next slash or blank. One begins only where another has ended, so a text is read once."""


_LOG_COMMAND = r"(?m)^([^\S\n]*):(?=:)|(?<=#)#(?=\[)"


@cache
def _escapes(keep: str) -> dict[int, str]:
    """What a terminal would obey, and what makes text read otherwise than it stands: code point -> escape.

    Control characters of both sets (ECMA-48), separators of lines and paragraphs, the characters that turn the
    direction of writing (UAX #9), and bytes that were no text (lone surrogates).
    """
    codes = (
        range(0x20), range(0x7F, 0xA0), (0x61C, 0x200E, 0x200F), range(0x2028, 0x202F), range(0x2066, 0x206A),
        range(0xD800, 0xE000),
    )  # fmt: skip
    odd = (code for some in codes for code in some if chr(code) not in keep)
    return {code: chr(code).encode("unicode_escape", "surrogatepass").decode("ascii") for code in odd}


def printable(text: str, keep: str = "") -> str:
    r"""The text with each character a terminal would obey as its escape: `\x1b`, `\u202e`, `\n`.

    `keep` names characters that may stay: `"\n"` in a text of several lines, `"\n\t"` in a file's.
    """
    return text if text.isprintable() else text.translate(_escapes(keep))


def unobeyed(text: str, stand_in: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """The text without log commands, which GitHub Actions obeys wherever a job prints them.

    Its runner takes `::` behind blanks at the beginning of a line, and `##[` anywhere
    (src/Runner.Common/ActionCommand.cs of github.com/actions/runner); one character of each is replaced.
    """
    if ":" not in text and "#" not in text:
        return text
    return re.sub(_LOG_COMMAND, lambda found: f"{found[1] or ''}{stand_in}", text)


def named(text: str) -> str:
    """A name of others as a message shows it: printable, without secrets, cut where it is long."""
    text = masked(text)
    return printable(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def secret_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where Hub tokens, and the user and password of addresses, begin and end in a text.

    Takes time in proportion to the text, whatever stands in it.
    """
    for found in re.finditer(_CREDENTIAL, text) if "hf_" in text or "api_org_" in text else ():
        yield found.span()
    for found in re.finditer(_AUTHORITY, text) if "@" in text else ():
        user, at, _ = found[0].rpartition("@")
        if at and ":" in user:
            yield found.start(), found.start() + len(user)


def masked(text: str, stars: str = "***") -> str:
    """The text without Hub tokens and without the user and password of addresses; `stars` stand for each."""
    return covered(text, secret_spans(text), lambda _: stars)


def covered(text: str, spans: Iterable[tuple[int, int]], stars: Callable[[int], str]) -> str:
    """The text with `stars(length)` over each of these spans; those that overlap are one."""
    apart: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if apart and start < apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], end)
        else:
            apart.append((start, end))
    parts, done = [], 0
    for start, end in apart:
        parts += [text[done:start], stars(end - start)]
        done = end
    return "".join([*parts, text[done:]])


def looks_secret(text: str) -> bool:
    """Whether the text holds a Hub token, or an address with a user and password."""
    return next(secret_spans(text), None) is not None
