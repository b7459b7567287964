"""What `advise --patch` must leave alone, as a check of a file before and after; of any file and any form."""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import tgi_advisor
from tgi_advisor import lint
from tgi_advisor.patching import Patched
from tgi_advisor.validate.effective import effective

LIMITS = ("max-input-tokens", "max-input-length", "max-total-tokens", "max-batch-prefill-tokens",
          "max-batch-total-tokens")  # fmt: skip
NAMES = frozenset(name for limit in LIMITS for name in (f"--{limit}", limit.replace("-", "_"),
                                                        limit.replace("-", "_").upper()))  # fmt: skip
AROUND = frozenset({"name", "value", "-e", "--env", "-", "limits"})
"""Words that stand with a limit where it is a variable, an item of a list or a section of a spec."""
OF_LIMITS = frozenset(
    {"TGI105", "TGI109", "TGI110", "TGI111", "TGI112", "TGI113", "TGI114", "TGI201", "TGI202", "TGI203"}
)  # fmt: skip
"""Rules of the limits, which have nothing to say of a file that was patched."""


class Case(NamedTuple):
    """A server of a file, and what is said of it that the file does not say."""

    path: Path
    """The file."""
    server: str | None = None
    """Which one."""
    release: str | None = None
    """Its release, where the file has none."""
    fields: tuple[str, ...] = ()
    """What else is laid over it."""
    model: str | None = None
    """Its model, where the file has none."""

    def patched(self, *, write: bool = True) -> Patched:
        """The file with limits that fit one big GPU."""
        return tgi_advisor.patch(
            self.path, gpu="nvidia-a100-80gb-sxm", count=1, offline=True, server=self.server, release=self.release,
            fields=self.fields, model=self.model, write=write,
        )  # fmt: skip


def held(case: Case) -> str | None:
    """Patch the file and hold it to everything that must stay; its diff with the limits by name, or None if refused."""
    before = case.path.read_bytes()
    old = _old_limits(case.path)
    dry = case.patched(write=False)
    assert case.path.read_bytes() == before
    found = case.patched()
    assert found.diff == dry.diff
    after = case.path.read_bytes()
    if found.plan.prediction.outcome != "starts":
        assert after == before
        return None
    limits = found.plan.prediction.limits
    new = {str(one) for one in limits.given().values()}
    _same_but_for(before, after, old | new)
    codes = {one.split(": ")[1] for one in found.errors}
    assert not codes & OF_LIMITS, found.errors
    again = case.patched()
    assert (again.diff, case.path.read_bytes()) == ("", after)
    return _by_name(found)


def _old_limits(path: Path) -> set[str]:
    """The limits that the servers of a file have, as they are written."""
    document, _ = lint.opened(str(path), None)
    views = [effective(server, None) for server in document.servers]
    given = [one for view in views for limit in LIMITS if (one := view.flags.get(limit))]
    twice = [
        following.text for server in document.servers for word, following in pairwise(server.args) if word.text in NAMES
    ]
    return {word for one in given for word in _words(one.value.text.removeprefix(f"--{one.flag.name}"))} | set(twice)


def _same_but_for(before: bytes, after: bytes, numbers: set[str]) -> None:
    """Every word, in its order, but for limits; every line in which none stands; how lines end; the last one's end."""
    coding = "utf-16" if before[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
    old, new = before.decode(coding), after.decode(coding)
    assert _rest(old, numbers) == _rest(new, numbers)
    assert before[:3] == after[:3]
    assert old.endswith("\n") == new.endswith("\n")
    kinds = {line[-2:] == "\r\n" for line in old.splitlines(keepends=True) if line.endswith("\n")}
    if len(kinds) == 1:
        assert {line[-2:] == "\r\n" for line in new.splitlines(keepends=True) if line.endswith("\n")} == kinds
    old_lines, new_lines = old.splitlines(keepends=True), new.splitlines(keepends=True)
    matched = difflib.SequenceMatcher(None, old_lines, new_lines, autojunk=False)
    for kind, start, end, start_new, end_new in matched.get_opcodes():
        if kind == "equal":
            continue
        was, now = ("".join(lines) for lines in (old_lines[start:end], new_lines[start_new:end_new]))
        assert set(_words(was + now)) & (NAMES | numbers), (was, now)
        assert _rest(was, numbers) == _rest(now, numbers)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"(?::-|[\s\"'=,:\[\]{}()\\|`^;])+", text) if word]


def _rest(text: str, numbers: set[str]) -> list[str]:
    """The words that are no limit, nor stand with one."""
    return [word for word in _words(text) if word not in NAMES and word not in AROUND and word not in numbers]


def _by_name(found: Patched) -> str:
    """The lines of a diff that changed, each new limit by its name."""
    limits = found.plan.prediction.limits
    words = {"max_batch_total_tokens": "BUDGET", "max_batch_prefill_tokens": "PREFILL", "max_total_tokens": "TOTAL"}
    names = {str(limits.given().get(name)): word for name, word in (*words.items(), ("max_input_tokens", "INPUT"))}
    lines = [line for line in found.diff.splitlines() if line[:1] in "+-\\" and line[:4] not in ("+++ ", "--- ")]
    return "\n".join(re.sub(r"\d{3,}", lambda one: names.get(one[0], one[0]), line) for line in lines)
