"""Comments that ignore findings: `# tgi-advisor: ignore[TGI501] why`, on the line or on a line of its own above it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.validate.finding import Finding
from tgi_advisor.validate.found import Defect, Document
from tgi_advisor.validate.read.stated import statement
from tgi_advisor.validate.rules.rule import RULES

_MARK = re.compile(
    r"(?P<open>#|//|<!--)[ \t]*tgi-advisor:[ \t]*ignore(?![\w-])(?:\[(?P<codes>[^\]\n]*)\])?(?P<why>[^\n]*)"
)


class Ignore(NamedTuple):
    """One such comment."""

    place: Place
    """Where it begins."""
    length: int
    """Its characters."""
    codes: tuple[str, ...]
    """Codes and prefixes of codes, as written."""
    reason: str
    """Why; empty when it does not say."""
    first: int
    """First line it covers."""
    last: int
    """Last line it covers."""

    def covers(self, finding: Finding) -> bool:
        """Whether it ignores a finding."""
        at = finding.place
        known = [code for code in self.codes if is_code(code)]
        return at.file == self.place.file and self.first <= at.line <= self.last and selects(known, finding.code)


def selects(codes: Iterable[str], code: str) -> bool:
    """Whether a code is among these codes and prefixes of codes."""
    return any(code.startswith(one.upper()) for one in codes)


def is_code(text: str) -> bool:
    """Whether a text is the code of a rule or the beginning of one (`TGI1`)."""
    return len(text) > 3 and any(code.startswith(text.upper()) for code in RULES)


def ignores(document: Document) -> Iterator[Ignore]:
    """Every comment of a file that ignores something."""
    if "tgi-advisor:" not in document.text:
        return
    lines = document.text.split("\n")
    for number, line in enumerate(lines, start=1):
        found = _MARK.search(line)
        if found is None:
            continue
        why = found["why"].strip().removesuffix("-->" if found["open"] == "<!--" else "").strip(" \t:-")
        codes = tuple(filter(None, re.split(r"[\s,]+", found["codes"] or "")))
        alone = not line[: found.start()].strip()
        first, last = statement(lines, number) if alone else (number, number)
        place = Place(document.file, number, found.start() + 1)
        yield Ignore(place, len(line.rstrip()) - found.start(), codes, why, first, last)


def defects(document: Document) -> Iterator[Defect]:
    """What is wrong with the comments of a file that starts a server."""
    for one in ignores(document) if document.servers else ():
        example = "write `# tgi-advisor: ignore[TGI501] why it is fine here`"
        unknown = [code for code in one.codes if not is_code(code)]
        if not one.codes:
            message = "the comment does not say which finding it ignores"
        elif unknown:
            message = f"no rule's code begins with {unknown[0][:40]!r}"
        elif not one.reason:
            message = f"the comment does not say why {', '.join(one.codes)} is ignored"
        else:
            continue
        yield Defect("ignore-comment", message, one.place, example, one.length)


def split(findings: Sequence[Finding], document: Document) -> tuple[list[Finding], int]:
    """The findings no comment ignores, and how many are ignored."""
    marks = list(ignores(document))
    kept = [one for one in findings if not any(mark.covers(one) for mark in marks)]
    return kept, len(findings) - len(kept)
