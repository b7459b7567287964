"""Replays of the shipped models, made beforehand: what PyTorch's allocator does while TGI loads and warms them up.

Replaying is most of a first search. `scripts/compile_tables.py` therefore keeps the replays that searches for every
shipped model on one of every GPU ask for, with the newest release, in `compiled/replays.bin`: a line of JSON that says
where each launch's lie, then these, compressed one by one. A launch is known by all that a replay may ask about it, its
model's configuration and tensors with it, and the file by a checksum of the code and the tables that decide: where
anything differs, all is replayed as if there were no file.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

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
    place = _places().get(launch)
    if place is None:
        return None
    start, size = place
    try:
        with FILE.open("rb") as file:
            file.seek(start)
            rows = json.loads(zlib.decompress(file.read(size)))
    except (OSError, ValueError, zlib.error):
        return None
    return rows if isinstance(rows, dict) else None


@cache
def _places() -> Mapping[str, tuple[int, int]]:
    """Where the replays of each launch begin, and how long they are; nothing where other code or tables made them."""
    try:
        with FILE.open("rb") as file:
            first = file.readline()
            kept = json.loads(first)
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict) or kept.get("of") != fingerprint():
        return {}
    return {launch: (len(first) + start, size) for launch, (start, size) in kept["at"].items()}


def fingerprint() -> int:
    """A checksum of the code and the tables that decide."""
    found = 0
    for path in _deciding():
        with open(path, "rb") as file:  # noqa: PTH123  # all of this is to take a millisecond
            found = zlib.crc32(file.read(), found)
    return found


def is_current() -> bool:
    """Whether there are kept replays, and made by what is here."""
    _places.cache_clear()
    return bool(_places())


def keep(launches: Mapping[str, Rows]) -> None:
    """Write the replays of every launch."""
    places, packed, end = {}, [], 0
    for launch, rows in sorted(launches.items()):
        packed.append(zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), 9))
        places[launch] = end, len(packed[-1])
        end += len(packed[-1])
    first = json.dumps({"of": fingerprint(), "at": places}, separators=(",", ":")).encode() + b"\n"
    FILE.write_bytes(first + b"".join(packed))
    _places.cache_clear()


def _deciding() -> Iterator[str]:
    for folder in CODE:
        with os.scandir(PACKAGE / folder) as found:
            yield from sorted(one.path for one in found if one.name.endswith(".py"))
    yield from (str(PACKAGE / name) for name in TABLES)
