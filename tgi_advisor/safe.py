"""Text of others made fit to be shown: nothing in it moves a cursor, and nothing in it is a secret.

Names of files and tensors, what a server or a registry says, what stands in a file: none of it is ours.
Whatever prints it asks here.
"""

from __future__ import annotations

import re
from functools import cache

LONGEST = 200
"""Characters of a name of others that a message shows."""

_TOKEN = re.compile(r"(?:hf|api_org)_[A-Za-z0-9]{8,}")
_AUTHORITY = re.compile(r"(?<=://)[^/\s]+")
"""From `://` to the next slash or blank. One begins only where another has ended, so a text is read once."""


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


def named(text: str) -> str:
    """A name of others as a message shows it: printable, without secrets, cut where it is long."""
    text = masked(text)
    return printable(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def masked(text: str, stars: str = "***") -> str:
    """The text without Hub tokens and without the user and password of addresses; `stars` stand for each.

    Takes time in proportion to the text, whatever stands in it.
    """

    def hide(found: re.Match[str]) -> str:
        user, at, host = found[0].rpartition("@")
        return f"{stars}{at}{host}" if at and ":" in user else found[0]

    text = _TOKEN.sub(stars, text)
    return _AUTHORITY.sub(hide, text) if "@" in text else text


def looks_secret(text: str) -> bool:
    """Whether the text holds a Hub token, or an address with a user and password."""
    return masked(text) != text
