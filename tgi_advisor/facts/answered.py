"""What the search found for every shipped model on one, two, four and eight of every GPU, nothing asked for.

That is with the newest release, and some 45,000 searches, so `scripts/compile_tables.py` makes them once and keeps what
they found in `compiled/answers.bin`. Whoever edits the estimate sees the edit at once: nothing is taken then.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tgi_advisor.facts import shelf

PACKAGE = Path(__file__).parent.parent
FILE = PACKAGE / "facts" / "compiled" / "answers.bin"
DECIDING = ("bounds.py", "errors.py", "limits.py", "once.py", "plan.py", "units.py", "verdict.py", "choose/option.py",
            "gather/snapshot.py", "refusals/**/*.py", "search/**/*.py", "spec/**/*.py", "estimate/**/*.py",
            "facts/*.py", "facts/*.yaml", "facts/snapshots/*")  # fmt: skip
"""Files of the package that an answer depends on."""
Answers = Mapping[str, Sequence[Any]]
"""By GPU: what `choose.option.kept` makes of an option."""


def find(model: str, count: int) -> Answers:
    """What is kept of a shipped model on so many GPUs; nothing where other code or tables found it."""
    return shelf.find(FILE, fingerprint, f"{model} {count}") or {}


def is_current() -> bool:
    """Whether there are answers, and found by what is here."""
    return shelf.is_current(FILE, fingerprint)


def keep(found: Mapping[tuple[str, int], Answers]) -> None:
    """Write what was found by the model and the number of GPUs."""
    shelf.keep(FILE, fingerprint, {f"{model} {count}": answers for (model, count), answers in found.items()})


def fingerprint() -> int:
    """What tells whether an answer still holds: a checksum of the files it depends on."""
    found = 0
    for path in sorted({path for pattern in DECIDING for path in PACKAGE.glob(pattern)}):
        content = path.read_bytes()
        found = zlib.crc32(f"{path.relative_to(PACKAGE).as_posix()} {len(content)} ".encode() + content, found)
    return found
