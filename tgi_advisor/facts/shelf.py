"""A file of many JSON documents of which few are read: where each lies in a line of JSON, then these, compressed.

What such a file holds was made by code from tables, and is taken only where a checksum of both is still the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any


def find(file: Path, of: Callable[[], int], name: str) -> Mapping[str, Any] | None:
    """The document of a name; None where there is none, or where other code or tables than `of` sums up made it."""
    place = _places(file, of).get(name)
    if place is None:
        return None
    start, size = place
    try:
        with file.open("rb") as kept:
            kept.seek(start)
            found = json.loads(zlib.decompress(kept.read(size)))
    except (OSError, ValueError, zlib.error):
        return None
    return found if isinstance(found, dict) else None


@cache
def _places(file: Path, of: Callable[[], int]) -> Mapping[str, tuple[int, int]]:
    """Where each document begins, and how long it is; nothing where other code or tables made them."""
    try:
        with file.open("rb") as kept:
            first = kept.readline()
            said = json.loads(first)
    except (OSError, ValueError):
        return {}
    if not isinstance(said, dict) or said.get("of") != of():
        return {}
    return {name: (len(first) + start, size) for name, (start, size) in said["at"].items()}


def is_current(file: Path, of: Callable[[], int]) -> bool:
    """Whether there is a file, and made by what is here."""
    _places.cache_clear()
    return bool(_places(file, of))


def keep(file: Path, of: Callable[[], int], documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write every document."""
    places, packed, end = {}, [], 0
    for name, document in sorted(documents.items()):
        packed.append(zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9))
        places[name] = end, len(packed[-1])
        end += len(packed[-1])
    first = json.dumps({"of": of(), "at": places}, separators=(",", ":")).encode() + b"\n"
    file.write_bytes(first + b"".join(packed))
    _places.cache_clear()
