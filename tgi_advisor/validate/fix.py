"""Mends what can be mended without changing what a file means: old names, spelling.

A fix is one replacement of a few characters; everything else of the file stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.validate import parses
from tgi_advisor.validate.finding import Finding, Fix
from tgi_advisor.validate.found import Document, Server
from tgi_advisor.validate.read.source import File
from tgi_advisor.validate.rules import RULES
from tgi_advisor.validate.secrets import Hidden, without_secrets

MAX_ROUNDS = 5
"""Times a file is read again after its fixes; one is enough unless a fix uncovers another."""
MAX_TRIALS = 64
"""Fixes of one file that are tried one by one, where all of them together make it worse."""

Again = Callable[[str], tuple[Document, Sequence[Finding]]]
"""Reads and judges a text anew; its findings are those of every rule, whatever is selected or ignored."""


class Edit(NamedTuple):
    """One replacement, and the findings it mends."""

    start: int
    """Where the replaced characters begin, counted in the text."""
    end: int
    """Where they end."""
    new: str
    """What is written instead."""
    findings: tuple[Finding, ...]
    """What it mends."""


class Mended(NamedTuple):
    """What one round of fixes makes of a document."""

    text: str
    """The text with every fix that holds."""
    findings: int
    """Findings that mends."""
    refused: Mapping[Finding, str]
    """Fixes that were not made because they would make things worse, and how; empty where it is plain to see."""


def mend(document: Document, findings: Sequence[Finding], every: Sequence[Finding], again: Again) -> Mended:
    """The fixes of `findings` that hold, each tried on a copy before it is counted in.

    A fix is taken back when the file then does not parse as before, when its finding is still there, or
    when there is an error that was not there before: of a finding that is an error itself (the launcher
    refuses the server as it stands) only when there are more of them. `every` has all findings of the document.
    """
    wanted = edits(document, findings)
    refused = {one: "" for one in findings if one.fix is not None and one.fix.place.file == document.file}
    for edit in wanted:
        for one in edit.findings:
            del refused[one]
    text = applied(document.text, wanted)
    if not wanted or not objection(document, every, wanted, *again(text)):
        return Mended(text, sum(len(edit.findings) for edit in wanted), refused)
    made: list[Edit] = []
    before: tuple[Document, Sequence[Finding]] = (document, every)
    for number, edit in enumerate(wanted):
        why = f"only {MAX_TRIALS} changes are tried in one file"
        if number < MAX_TRIALS:
            after = again(applied(document.text, [*made, edit]))
            why = objection(*before, [edit], *after)
        if why:
            refused.update(dict.fromkeys(edit.findings, why))
        else:
            made, before = [*made, edit], after
    return Mended(applied(document.text, made), sum(len(edit.findings) for edit in made), refused)


def unmended(one: Finding, refused: Mapping[Finding, str]) -> Finding:
    """The finding without a fix that is refused, its next step saying why."""
    if one not in refused:
        return one
    why = f" (--fix leaves it: {refused[one]})" if refused[one] else ""
    return replace(one, fix=None, next_step=f"{one.next_step}{why}")


def objection(
    document: Document,
    before: Sequence[Finding],
    made: Sequence[Edit],
    mended: Document,
    after: Sequence[Finding],
) -> str:
    """Why these edits must not be made, seen from what is found after them; empty when nothing speaks against them."""
    if [one.form for one in mended.servers] != [one.form for one in document.servers]:
        return "the file would not be read as before"
    if changed := parses.objection(document, mended):
        return changed
    there, stay = Counter(map(_key, before)), Counter(map(_key, after))
    if any(stay[_key(one)] >= there[_key(one)] for edit in made for one in edit.findings):
        return "the finding would stay"
    was, now = (Counter(_about(one) for one in found if _bad(one)) for found in (before, after))
    more = now - was
    of_errors = all(one.severity == "error" for edit in made for one in edit.findings)
    if more and not (of_errors and now.total() <= was.total()):
        new = next(one for one in after if _bad(one) and _about(one) in more)
        return f"{new.code} would follow, {RULES[new.code].title}"
    return ""


def _key(one: Finding) -> tuple[str, str, int, str]:
    """A finding but for its column, which a change before it moves."""
    return one.code, one.place.file, one.place.line, one.message


def _bad(one: Finding) -> bool:
    """Whether a change must not bring this about: an error, or a name that then stands twice with different values."""
    return one.severity == "error" or one.code == "TGI175"


def _about(one: Finding) -> tuple[str, str]:
    return one.code, one.server


def edits(document: Document, findings: Sequence[Finding]) -> list[Edit]:
    """The replacements that can be made, in the order of the findings, none touching another."""
    file, text = File(document.file, document.text), document.text
    found: dict[tuple[int, int], Edit] = {}
    for one in findings:
        if one.fix is None or one.fix.place.file != document.file or not _holds(one, findings, document):
            continue
        start = file.offset_of(one.fix.place)
        end = start + len(one.fix.old)
        if text[start:end] != one.fix.old or not _whole(text, start, end) or not _may_be_renamed(text, start, one.fix):
            continue
        if any(start < other_end and other < end for other, other_end in found if (other, other_end) != (start, end)):
            continue
        edit = found.get((start, end), Edit(start, end, one.fix.new, ()))
        if edit.new == one.fix.new:
            found[start, end] = edit._replace(findings=(*edit.findings, one))
    return list(found.values())


def applied(text: str, made: Iterable[Edit]) -> str:
    """The text with these replacements."""
    for start, end, new, _ in sorted(made, reverse=True, key=lambda edit: edit.start):
        text = text[:start] + new + text[end:]
    return text


def diff(before: str, after: str, name: str, hidden: Hidden) -> str:
    """A unified diff for people: secrets on its lines, those in `hidden` among them, are starred."""
    from difflib import unified_diff

    old, new = (text.replace("\r\n", "\n").splitlines(keepends=True) for text in (before, after))
    lines = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
             for line in unified_diff(old, new, f"a/{name}", f"b/{name}"))  # fmt: skip
    return "".join(without_secrets(line, hidden) for line in lines)


def _holds(finding: Finding, findings: Iterable[Finding], document: Document) -> bool:
    """Whether every server that shares the word (a YAML anchor, an environment) wants it mended in the same way.

    Two misspellings of one name do not hold: only one of them can be meant.
    """
    assert finding.fix is not None, "asked only of a finding with a fix"
    rivals = {one.fix.old for one in findings if one.fix and _name(one) == _name(finding)}
    if _name(finding) and len(rivals) > 1:
        return False
    sharing = sorted(server.name for server in document.servers if finding.fix.place in _places(server))
    wanting = sorted(one.server for one in findings if one.fix == finding.fix and one.code == finding.code)
    return len(sharing) <= 1 or set(sharing) == set(wanting)


def _name(one: Finding) -> tuple[str, str] | None:
    """The server and the name a fix would write for a flag or a variable; None for a fix of something else."""
    return (one.server, one.fix.new) if one.fix and re.fullmatch(r"--[a-z].*|[A-Z][A-Z0-9_]*", one.fix.new) else None


def _places(server: Server) -> Iterator[Place]:
    if server.image is not None:
        yield server.image.spot
    yield from (word.spot for word in server.args)
    for value in server.env.values():
        yield value.spot
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
    items = [found.start("name") for found in re.finditer(rf"\[\\?[\"'](?P<name>{old})\\?[\"']\]", text)]
    if any(at != start for at in items):
        return False
    after = text[start + len(fix.old) :]
    if re.match(r"\\?[\"']?\]?[ \t]*[=:]", after):
        return True
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return bool(re.search(r"name[\"']?\s*[:=]\s*[\"']?$", before))
