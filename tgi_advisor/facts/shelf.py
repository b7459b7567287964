"""A file of many JSON documents of which few are read: a line that says what made them, where each lies, then these.

What such a file holds was made by code from tables, and is taken only where a checksum of both is still the same. Where
a document lies is a line of its name, its place and its size; which one is looked for in the whole as it stands, as
that takes less than reading it. The documents are compressed one by one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Index(NamedTuple):
    """Where the documents of a file lie."""

    lines: bytes
    """Name, place and size of each, between tabs, each line with a newline before and behind."""
    start: int
    """Where in the file the first one begins."""


NOTHING = Index(b"", 0)


def find(file: Path, of: Callable[[], int], name: str) -> Mapping[str, Any] | None:
    """The document of a name; None where there is none, or where other code or tables than `of` sums up made it."""
    index = _index(file, of)
    line = found(index.lines, name.encode())
    if line is None:
        return None
    place, size = map(int, line.split(b"\t"))
    try:
        with file.open("rb") as kept:
            kept.seek(index.start + place)
            document = json.loads(zlib.decompress(kept.read(size)))
    except (OSError, ValueError, zlib.error):
        return None
    return document if isinstance(document, dict) else None


def found(lines: bytes, name: bytes) -> bytes | None:
    """What stands behind a name in lines as `Index.lines`; None where it does not."""
    begin = lines.find(b"\n" + name + b"\t")
    if begin < 0:
        return None
    begin += len(name) + 2
    return lines[begin : lines.index(b"\n", begin)]


@cache
def _index(file: Path, of: Callable[[], int]) -> Index:
    """Where each document lies; nothing where other code or tables made them."""
    try:
        with file.open("rb") as kept:
            first = kept.readline()
            said = json.loads(first)
            lines = kept.read(said["index"]) if said["of"] == of() else b""
    except (OSError, ValueError, TypeError, KeyError):
        return NOTHING
    return Index(lines, len(first) + len(lines)) if lines else NOTHING


def is_current(file: Path, of: Callable[[], int]) -> bool:
    """Whether there is a file, and made by what is here."""
    _index.cache_clear()
    return _index(file, of) != NOTHING


def keep(file: Path, of: Callable[[], int], documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write every document."""
    lines, packed, end = [""], [], 0
    for name, document in sorted(documents.items()):
        packed.append(zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9))
        lines.append(f"{name}\t{end}\t{len(packed[-1])}")
        end += len(packed[-1])
    index = "\n".join([*lines, ""]).encode()
    first = json.dumps({"of": of(), "index": len(index)}, separators=(",", ":")).encode() + b"\n"
    file.write_bytes(first + index + b"".join(packed))
    _index.cache_clear()
