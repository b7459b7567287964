"""What a sweep varies: `max_total_tokens=1k..128k`, `hardware.count=1,2,4`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

from tgi_advisor.choose.words import count, parts
from tgi_advisor.errors import UsageError, did_you_mean
from tgi_advisor.spec.records import all_settings

MOST = 10_000
"""Steps of one sweep."""
FORM = (
    "Write PATH=A..B (doubled from A to B), PATH=A..B:STEP, or PATH=A,B,C; "
    "for example max_total_tokens=1k..128k or hardware.count=1,2,4."
)


@dataclass(frozen=True)
class Axis:
    """One field of the spec and the values it takes."""

    path: str
    """Dotted path of the field (`limits.max_total_tokens`)."""
    values: tuple[str, ...]
    """The values as `--set` takes them."""
    whole: bool = False
    """Whether the last word of the path is not enough to name it."""

    @property
    def name(self) -> str:
        """Last word of the path; all of it where something else is called so."""
        return self.path if self.whole else self.path.rpartition(".")[2]

    @property
    def ascends(self) -> bool:
        """Whether the values are numbers that grow from step to step."""
        numbers = [int(value) if value.isdecimal() else None for value in self.values]
        return all(a is not None and b is not None and a < b for a, b in pairwise(numbers))


def read(texts: Sequence[str]) -> tuple[Axis, ...]:
    """The axes of `--vary` options; UsageError for one that is no range, names no field, or makes too many steps."""
    if not texts:
        raise UsageError("nothing is varied", f"Name a field and its values with --vary. {FORM}")
    axes = tuple(_axis(text) for text in texts)
    paths = [axis.path for axis in axes]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UsageError(f"{twice} is varied twice", "Give all its values in one --vary.")
    words = [axis.name for axis in axes]
    axes = tuple(replace(axis, whole=words.count(axis.name) > 1 or axis.name in FOUND) for axis in axes)
    if size(axes) > MOST:
        raise UsageError(f"{size(axes):,} steps are too many", f"At most {MOST:,} are taken: make the ranges coarser.")
    return axes


def size(axes: Sequence[Axis]) -> int:
    """How many steps there are."""
    return math.prod(len(axis.values) for axis in axes)


def steps(axes: Sequence[Axis]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Every combination, as (path, value) pairs; the last axis changes fastest."""
    for values in product(*(axis.values for axis in axes)):
        yield tuple((axis.path, value) for axis, value in zip(axes, values, strict=True))


def _axis(text: str) -> Axis:
    path, equals, values = text.partition("=")
    path = path.strip()
    if not equals or not path or not values.strip():
        raise UsageError(f"{text!r} varies nothing", FORM)
    field = _field(path)
    return Axis(field, _values(path, values.strip(), counts=field in _counts()))


def _field(path: str) -> str:
    """The whole path of a field that is named by it or by its last word."""
    known = [full for full, field in all_settings() if field.metadata["kind"] != "section"]
    if path in known or path.startswith(("tgi.flags.", "tgi.env.")):
        return path
    found = [full for full in known if full.rpartition(".")[2] == path]
    if len(found) == 1:
        return found[0]
    several = f"say which: {', '.join(found)}" if found else did_you_mean(path, [*known, *_LIMITS])
    raise UsageError(f"{path!r} is no field of the spec", several or FORM)


_LIMITS = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")


def _counts() -> set[str]:
    """The fields whose values are counts."""
    return {path for path, field in all_settings() if field.metadata["kind"] in ("count", "count_or_auto", "bound")}


def _counted(path: str, texts: Sequence[str]) -> list[str]:
    """Counts as whole numbers, so that `8k` is one for programs too; words that leave a field open stay."""
    return [text if text in OPEN or text.startswith("{") else str(count(text, path, FORM)) for text in texts]


FOUND = ("concurrency",)
"""What a step is found to have, so that a field of this name is called by its path."""
OPEN = ("auto", "null", "~")
"""Values that leave a count open."""


def _values(path: str, text: str, *, counts: bool) -> tuple[str, ...]:
    """The values of one axis."""
    low, dots, rest = text.partition("..")
    if not dots:
        given = parts(text)
        values = tuple(dict.fromkeys(_counted(path, given) if counts else given))
        if not values:
            raise UsageError(f"{path} is varied over nothing", FORM)
        if len(values) > MOST:
            raise UsageError(f"{len(values):,} steps are too many", f"At most {MOST:,} are taken.")
        return values
    high, colon, step = rest.partition(":")
    first, last = count(low, path, FORM), count(high, path, FORM)
    if first > last:
        raise UsageError(f"{path}={text} runs backwards", f"Write {path}={high}..{low}{colon}{step}.")
    if colon:
        by = count(step, path, FORM)
        many = (last - first) // by + 1
        if many > MOST:
            raise UsageError(f"{path}={text} has {many:,} steps", f"At most {MOST:,} are taken: use a larger step.")
        return tuple(str(value) for value in range(first, last + 1, by))
    doubled = []
    while first < last:
        doubled.append(str(first))
        first *= 2
    return (*doubled, str(last))
