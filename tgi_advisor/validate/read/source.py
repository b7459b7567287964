"""Texts that know where in their file each of their characters stands.

A command may be written inside a quoted scalar inside a YAML file inside a Markdown page; its words
still have a line and a column of that page. A `Source` is a text with the offset of every character.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

from tgi_advisor.errors import Place
from tgi_advisor.validate.found import Value


class File:
    """A file's name and text, and the places of its offsets."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def place(self, offset: int) -> Place:
        """Line and column of an offset."""
        line = bisect_right(self._starts, offset)
        return Place(self.name, line, offset - self._starts[line - 1] + 1)

    def offset_of(self, place: Place) -> int:
        """The offset of a place in this file."""
        return self._starts[place.line - 1] + place.column - 1 if 0 < place.line <= len(self._starts) else 0

    def written(self, place: Place, length: int) -> str:
        """A word as it is written; nothing for one of another file, or of unknown length."""
        start = self.offset_of(place)
        return self.text[start : start + length] if place.file == self.name else ""

    def whole(self) -> Source:
        """All of it, without a byte order mark."""
        skip = 1 if self.text.startswith("\ufeff") else 0
        return Source(self, self.text[skip:], range(skip, len(self.text)))


class Source:
    """A text and the file offset of each of its characters."""

    __slots__ = ("file", "offsets", "text")

    def __init__(self, file: File, text: str, offsets: Sequence[int]) -> None:
        self.file = file
        self.text = text
        self.offsets = offsets

    def offset(self, index: int) -> int:
        """File offset of a character, or of the end."""
        if index < len(self.offsets):
            return self.offsets[index]
        return self.offsets[-1] + 1 if len(self.offsets) else 0

    def place(self, index: int) -> Place:
        """Line and column of a character, or of the end."""
        return self.file.place(self.offset(index))

    def part(self, start: int, end: int | None = None) -> Source:
        """A slice of it."""
        return Source(self.file, self.text[start:end], self.offsets[start:end])

    def single_dollars(self) -> Source:
        """What is left once Compose has read `$$` as a dollar."""
        doubled = {match.end() - 1 for match in re.finditer(r"\$\$", self.text)}
        kept = [at for at in range(len(self.text)) if at not in doubled]
        return Source(self.file, "".join(self.text[at] for at in kept), [self.offsets[at] for at in kept])

    def length(self, start: int, end: int) -> int:
        """How long a slice is in the file; 0 when it spans lines."""
        if end <= start or start >= len(self.offsets):
            return 0
        first, last = self.offset(start), self.offset(end - 1) + 1
        return last - first if first < last and "\n" not in self.file.text[first:last] else 0

    def quote(self, start: int, text: str) -> int:
        """Characters in the file of the quote that stands there before a text; 0 where none does."""
        quoted = text[:1] and self.text[start : start + 2] in (f'"{text[0]}', f"'{text[0]}")
        return self.offset(start + 1) - self.offset(start) if quoted else 0

    def value(self, start: int = 0, end: int | None = None, origin: str = "command", text: str | None = None) -> Value:
        """A slice as a Value; `text` where it means something else than it says."""
        end = len(self.text) if end is None else end
        words = self.text[start:end] if text is None else text
        return Value(words, self.place(start), origin, length=self.length(start, end))
