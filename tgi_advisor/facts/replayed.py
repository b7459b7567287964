"""Replays of the shipped models, made beforehand: what PyTorch's allocator does while TGI loads and warms them up.

Replaying is most of a first search. `scripts/compile_tables.py` therefore keeps the replays that searches for every
shipped model on one, two, four and eight of every GPU ask for, with the newest release, in `compiled/replays.bin`. A
launch is known by all that a replay may ask about it, its model's configuration and tensors with it, and the file by a
checksum of the code and the tables that decide: where anything differs, all is replayed as if there were no file.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tgi_advisor.facts import shelf

PACKAGE = Path(__file__).parent.parent
FILE = PACKAGE / "facts" / "compiled" / "replays.bin"
CODE = ("estimate", "estimate/replay", "facts")
"""Folders of the package whose modules decide what a replay gives."""
TABLES = ("facts/families.yaml", "facts/releases.yaml")
"""Tables that do."""
Rows = Mapping[str, Any]
"""The replays of a launch, as `estimate.replay.remembered` makes them."""


def find(launch: str) -> Rows | None:
    """The kept replays of a launch by its checksum; None where there are none."""
    return shelf.find(FILE, fingerprint, launch)


def fingerprint() -> int:
    """A checksum of the code and the tables that decide."""
    found = 0
    for path in _deciding():
        with open(path, "rb") as file:  # noqa: PTH123  # all of this is to take a millisecond
            found = zlib.crc32(file.read(), found)
    return found


def is_current() -> bool:
    """Whether there are kept replays, and made by what is here."""
    return shelf.is_current(FILE, fingerprint)


def keep(launches: Mapping[str, Rows]) -> None:
    """Write the replays of every launch."""
    shelf.keep(FILE, fingerprint, launches)


def _deciding() -> Iterator[str]:
    for folder in CODE:
        with os.scandir(PACKAGE / folder) as found:
            yield from sorted(one.path for one in found if one.name.endswith(".py"))
    yield from (str(PACKAGE / name) for name in TABLES)
