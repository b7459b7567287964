"""Mends what can be mended without changing what a file means: old names, spelling.

A fix is one replacement of a few characters; everything else of the file stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from tgi_advisor.errors import Place
from tgi_advisor.validate.finding import Finding, Fix
from tgi_advisor.validate.found import Document, Server
from tgi_advisor.validate.read.source import File
from tgi_advisor.validate.report import without_secrets

MAX_ROUNDS = 5
"""Times a file is read again after its fixes; one is enough unless a fix uncovers another."""


def applied(document: Document, findings: Sequence[Finding]) -> tuple[str, int]:
    """The text with every fix that holds, and how many findings that mends."""
    file, text = File(document.file, document.text), document.text
    edits: dict[tuple[int, int], str] = {}
    mended = 0
    for one in findings:
        if one.fix is None or one.fix.place.file != document.file or not _holds(one, findings, document):
            continue
        start = file.offset_of(one.fix.place)
        end = start + len(one.fix.old)
        if text[start:end] != one.fix.old or not _whole(text, start, end) or not _may_be_renamed(text, start, one.fix):
            continue
        if any(start < other_end and other < end for other, other_end in edits if (other, other_end) != (start, end)):
            continue
        if edits.setdefault((start, end), one.fix.new) == one.fix.new:
            mended += 1
    for (start, end), new in sorted(edits.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text, mended


def diff(before: str, after: str, name: str, hidden: frozenset[str]) -> str:
    """A unified diff for people: secrets on its lines, those in `hidden` among them, are starred."""
    from difflib import unified_diff

    old, new = (text.replace("\r\n", "\n").splitlines(keepends=True) for text in (before, after))
    lines = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
             for line in unified_diff(old, new, f"a/{name}", f"b/{name}"))  # fmt: skip
    return "".join(without_secrets(line, hidden) for line in lines)


def _holds(finding: Finding, findings: Iterable[Finding], document: Document) -> bool:
    """Whether every server that shares the word (a YAML anchor, an environment) wants it mended in the same way."""
    assert finding.fix is not None, "asked only of a finding with a fix"
    sharing = sorted(server.name for server in document.servers if finding.fix.place in _places(server))
    wanting = sorted(one.server for one in findings if one.fix == finding.fix and one.code == finding.code)
    return len(sharing) <= 1 or set(sharing) == set(wanting)


def _places(server: Server) -> Iterator[Place]:
    if server.image is not None:
        yield server.image.place
    yield from (word.place for word in server.args)
    for value in server.env.values():
        yield value.place
        if value.key is not None:
            yield value.key


def _whole(text: str, start: int, end: int) -> bool:
    """Whether the characters are a whole word, and not the head of a longer one."""
    return not re.match(r"[\w-]", text[end : end + 1] or " ") and not re.match(r"\w", text[start - 1 : start] or " ")


def _may_be_renamed(text: str, start: int, fix: Fix) -> bool:
    """Whether a variable can take another name: it gets its value right here, and nothing refers to the old name."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", fix.old) or not re.fullmatch(r"[A-Z][A-Z0-9_]*", fix.new):
        return True
    old = re.escape(fix.old)
    if re.search(rf"[$%](?:env:)?[({{]?{old}\b|\b(?:environ|getenv|env)\b[\[(.]+[\"']?{old}\b", text):
        return False
    after = text[start + len(fix.old) :]
    if re.match(r"[\"']?[ \t]*[=:]", after):
        return True
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return bool(re.search(r"name[\"']?\s*[:=]\s*[\"']?$", before))
