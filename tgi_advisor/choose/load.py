"""The load people can state: users at once, how long prompts and answers are, requests per second."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from tgi_advisor.choose.words import count
from tgi_advisor.errors import UsageError
from tgi_advisor.estimate.speed import Request

FORM = "Write tokens, such as 1500, or with percentiles 1500,p90=4k,p99=6000."
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)\s*=\s*(.+)", re.ASCII)


@dataclass(frozen=True)
class Lengths:
    """How long prompts (or answers) are, in tokens."""

    typical: int
    """The usual length; requests are counted by it."""
    percentiles: tuple[tuple[float, int], ...] = ()
    """(percent, tokens) that so many do not exceed, ascending."""

    @property
    def longest(self) -> int:
        """The longest that has to be served: of the highest percentile that was given."""
        return max([self.typical, *(tokens for _, tokens in self.percentiles)])


@dataclass(frozen=True)
class Load:
    """What a service has to carry."""

    users: int
    """Requests at the same time."""
    prompts: Lengths
    """Tokens of a prompt."""
    answers: Lengths
    """Tokens of an answer."""
    rps: float | None = None
    """Requests that arrive per second; None where only the users are stated."""
    latency: float | None = None
    """Seconds within which a typical answer should be complete; None where nobody said."""

    @property
    def longest(self) -> int:
        """max_total_tokens that serves every prompt with its answer."""
        return self.prompts.longest + self.answers.longest

    @property
    def request(self) -> Request:
        """A typical one."""
        return Request(self.prompts.typical, self.answers.typical)


def lengths(text: str, of: str) -> Lengths:
    """The lengths in a text such as `1500,p99=6000`; UsageError for one that is none, named by `of`."""
    first, *rest = [part.strip() for part in text.split(",")]
    typical = count(first, of, FORM)
    found: dict[float, int] = {}
    for part in rest:
        match = _PERCENTILE.fullmatch(part)
        if match is None:
            raise UsageError(f"{of}: {part!r} is no percentile", FORM)
        if (percent := float(match[1])) in found:
            raise UsageError(f"{of}: p{percent:g} is given twice", FORM)
        found[percent] = count(match[2], of, FORM)
    ordered = tuple(sorted(found.items()))
    for (low, before), (high, after) in pairwise(ordered):
        if after < before:
            raise UsageError(f"{of}: p{high:g} ({after}) is below p{low:g} ({before})", FORM)
    for percent, tokens in ordered:
        if percent >= 50 and tokens < typical:
            raise UsageError(f"{of}: p{percent:g} ({tokens}) is below the typical {typical}", FORM)
        if percent < 50 and tokens > typical:
            raise UsageError(f"{of}: p{percent:g} ({tokens}) is above the typical {typical}", FORM)
    return Lengths(typical, ordered)
