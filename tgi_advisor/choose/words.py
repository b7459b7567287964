"""Sentences of the answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tgi_advisor.errors import AdvisorError, UsageError
from tgi_advisor.units import parse_count, thousands

FEW = 4
"""Names of a list that are worth reading."""


def listed_short(names: Sequence[str]) -> str:
    """`a, b and 12 more`."""
    if len(names) <= FEW + 1:
        return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    return f"{', '.join(names[:FEW])} and {len(names) - FEW} more"


def so_many(number: int, what: str) -> str:
    """`1 request`, `1,000 requests`."""
    return f"{thousands(number)} {what}{'' if number == 1 else 's'}"


def wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """A text in lines of so many columns."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def without_room(names: Sequence[str], width: int) -> list[str]:
    """Which columns a table of so many columns of the terminal has no room for; no line where it has for all."""
    if not names:
        return []
    return wrapped(f"No room here for {', '.join(names)}: a wider terminal or --format csv has more.", width)


def count(text: str, of: str, form: str) -> int:
    """A number of tokens or of anything else, at least 1; UsageError names what it is of, with the form to write."""
    try:
        value = parse_count(text)
    except ValueError as error:
        raise UsageError(f"{of}: {error}", form) from None
    if value < 1:
        raise UsageError(f"{of}: {text.strip()} is below 1", form)
    return value


def parts(text: str) -> list[str]:
    """The parts of a text between commas that no bracket encloses, without blanks around them and empty ones."""
    found, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth <= 0:
            found.append("")
        else:
            found[-1] += character
    return [part.strip() for part in found if part.strip()]


def told(error: AdvisorError) -> str:
    """What is wrong, on one line and without the places it stands at."""
    if error.problems:
        return "; ".join(problem.message for problem in error.problems)
    return " ".join(error.message.split())
