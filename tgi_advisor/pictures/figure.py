"""What is to be drawn, before anything draws: from a table of steps to bars or lines with their words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tgi_advisor.errors import UsageError
from tgi_advisor.tabular import Table
from tgi_advisor.units import GiB, thousands

Kind = Literal["memory", "budget", "concurrency"]
KINDS: tuple[Kind, ...] = ("memory", "budget", "concurrency")
NOT_PARTS = ("headroom_bytes", "gpu_total_bytes")
REST = ("reserve", "free_for_requests", "left_over")
"""Parts that are what is left, at the top of a bar."""


BETWEEN = re.compile(r", (?![^{]*\})")
"""What lies between the values of a step, but not within `{name: mine, memory: …}`."""


@dataclass(frozen=True)
class Fits:
    """Which of some steps do not fit, and which are refused: each step that does not fit is told once."""

    up_to: int | None = None
    """The last of the first steps, where steps grow and these do not fit; None where the first ones do."""
    stops_at: int | None = None
    """The first of the last steps, where steps grow and these do not fit; None where the last ones do."""
    singly: tuple[int, ...] = ()
    """The other steps that do not fit."""
    short: tuple[int, ...] = ()
    """All steps whose memory is not enough."""
    refused: tuple[int, ...] = ()
    """Steps that are refused, or cannot be asked, whatever memory there is."""

    @property
    def named(self) -> set[int]:
        """The steps that no line across a picture tells."""
        return {*self.singly, *self.refused}


@dataclass(frozen=True)
class Series:
    """One part of every bar, or one line."""

    name: str
    """What it is."""
    values: tuple[float | None, ...]
    """One for every step; None where there is none."""
    fits: Fits = Fits()
    """Where a line, one of several, does not fit."""


@dataclass(frozen=True)
class Figure:
    """Bars in parts, or lines, over the steps of a table."""

    title: str
    """What it shows."""
    x_label: str
    """What the steps are."""
    y_label: str
    """What is measured, with its unit."""
    steps: tuple[str, ...]
    """The steps in words."""
    series: tuple[Series, ...]
    """Parts from the bottom up, or lines."""
    stacked: bool
    """Whether the series are parts of bars."""
    limits: tuple[float | None, ...] = ()
    """A height that is drawn as a line across each step; empty for none."""
    limit_label: str = ""
    """What that height is."""
    fits: Fits = Fits()
    """Where it does not fit, of bars or of one line."""

    @property
    def limit(self) -> float | None:
        """The height of the line where all steps have the same, to the hundredth that is shown."""
        heights = {round(height, 2): height for height in self.limits if height is not None}
        return next(iter(heights.values())) if len(heights) == 1 else None

    @property
    def highest(self) -> float:
        """The largest value that is drawn, bars at their full height and limits included; 0 where there is none."""
        steps = zip(*(one.values for one in self.series), strict=True)
        gather = sum if self.stacked else max
        found = [gather(value or 0.0 for value in values) for values in steps]
        return max((*found, *(height or 0.0 for height in self.limits)), default=0.0)

    @property
    def top(self) -> float:
        """Where the scale ends: a twentieth above the largest value, so that nothing lies on the frame."""
        return (self.highest or 1.0) * ROOM

    @property
    def said(self) -> str:
        """Where it does not fit and what is refused, in sentences; empty where there is neither."""
        told = [_ends(one.fits, f"With {one.name} it does", self.x_label, self.steps) for one in self.series]
        singly, refused = self.fits.singly, self.fits.refused
        if 1 < len(self.steps) == len(singly):
            told.append("It does not fit at any step.")
        else:
            told.append(_ends(self.fits, "It does", self.x_label, self.steps))
            told.append(f"It does not fit with {self._words(singly)}." if singly else "")
        told.append(f"It is refused with {self._words(refused)}." if refused else "")
        return " ".join(filter(None, told))

    def _words(self, numbers: Sequence[int]) -> str:
        """Steps with what they set."""
        axes = self.x_label.split(", ")
        steps = [BETWEEN.split(self.steps[number]) for number in numbers]
        return " or ".join(", ".join(map(" ".join, zip(axes, step, strict=True))) for step in steps)


ROOM = 1.05
"""The scale against the largest value on it."""


def _ends(fits: Fits, it: str, x_label: str, steps: Sequence[str]) -> str:
    """A sentence on the first and the last steps that do not fit; empty where there are none."""
    first = "" if fits.up_to is None else f"up to {x_label} {steps[fits.up_to]}"
    last = "" if fits.stops_at is None else f"from {x_label} {steps[fits.stops_at]} on"
    return f"{it} not fit {', nor '.join(filter(None, (first, last)))}." if first or last else ""


def figure(table: Table, axes: Sequence[str], kind: Kind, title: str, *, pooled: bool = False) -> Figure:
    """The figure of a kind over the steps of a sweep, whose first columns are `axes`.

    `pooled` says that its memory is that of all GPUs together.
    """
    if not table.rows:
        raise UsageError("there is nothing to draw", "The table has no rows.")
    if kind == "memory":
        return _bars(table, axes, title, pooled=pooled)
    key, label = {
        "budget": ("max_batch_total_tokens", "tokens of the KV cache"),
        "concurrency": ("concurrency", "requests at once"),
    }[kind]
    values = _column(table, key)
    if all(value is None for value in values):
        raise UsageError(f"no step has a figure for {label}", "Draw the memory instead: --chart memory.")
    outcomes = _column(table, "outcome")
    last = len(axes) - 1
    if last == 0:
        fits = _fits(outcomes, grows=_grows([row[0] for row in table.rows]))
        return Figure(
            title, axes[0], label, _steps(table, axes), (Series(label, tuple(values)),), stacked=False, fits=fits
        )
    groups: dict[tuple[Any, ...], dict[Any, int]] = {}
    for number, row in enumerate(table.rows):
        groups.setdefault(row[:last], {})[row[last]] = number
    along = tuple(dict.fromkeys(row[last] for row in table.rows))
    lines = []
    for turned, numbers in groups.items():
        name = ", ".join(f"{axis} {_word(value)}" for axis, value in zip(axes, turned, strict=False))
        fits = _fits([outcomes[numbers[value]] for value in along], grows=_grows(along))
        line = tuple(values[numbers[value]] for value in along)
        told = (_with("does not fit", fits.singly, along), _with("refused", fits.refused, along))
        lines.append(Series(" ".join(filter(None, (name, *told))), line, fits))
    return Figure(title, axes[last], label, tuple(map(_word, along)), tuple(lines), stacked=False)


def _with(what: str, numbers: Sequence[int], along: Sequence[Any]) -> str:
    """What becomes of a line at some of its steps, in brackets; empty for none."""
    if not numbers:
        return ""
    return (
        f"({what})" if len(numbers) == len(along) else f"({what} with {' or '.join(_word(along[i]) for i in numbers)})"
    )


def _bars(table: Table, axes: Sequence[str], title: str, *, pooled: bool) -> Figure:
    """The parts of the memory, step by step."""
    outcomes = _column(table, "outcome")
    parts = _parts(table, outcomes)
    if not parts:
        raise UsageError("no step has memory to draw", "What is refused, whatever memory there is, has none.")
    limits = tuple(value and value / GiB for value in _column(table, "gpu_total_bytes"))
    whole, name = ("GiB of all GPUs", "the GPUs") if pooled else ("GiB of one GPU", "the GPU")
    fits = _fits(outcomes, grows=len(axes) == 1 and _grows([row[0] for row in table.rows]))
    return Figure(title, ", ".join(axes), whole, _steps(table, axes), parts, True, limits, name, fits)


def _steps(table: Table, axes: Sequence[str]) -> tuple[str, ...]:
    """The steps in words."""
    return tuple(", ".join(_word(value) for value in row[: len(axes)]) for row in table.rows)


def _grows(values: Sequence[Any]) -> bool:
    """Whether they are numbers, each larger than the one before."""
    return all(isinstance(one, int) for one in values) and all(a < b for a, b in pairwise(values))


def _fits(outcomes: Sequence[str], *, grows: bool) -> Fits:
    """Where steps do not fit, or are refused; where steps grow, those at both ends are told together."""
    short = tuple(i for i, outcome in enumerate(outcomes) if outcome == "out_of_memory")
    refused = tuple(i for i, outcome in enumerate(outcomes) if outcome == "refused")
    if not grows or "starts" not in outcomes:
        return Fits(singly=short, short=short, refused=refused)
    starts = [i for i, outcome in enumerate(outcomes) if outcome == "starts"]
    first, last = [i for i in short if i < starts[0]], [i for i in short if i > starts[-1]]
    return Fits(
        first[-1] if first else None, last[0] if last else None,
        tuple(i for i in short if starts[0] < i < starts[-1]), short, refused,
    )  # fmt: skip


def _parts(table: Table, outcomes: Sequence[str]) -> tuple[Series, ...]:
    """The parts of the memory, what is left of it last; None for what is refused, whatever memory there is."""
    keys = [one for one in table.columns if one.key.endswith("_bytes") and one.key not in NOT_PARTS]
    keys.sort(key=lambda one: one.key.removesuffix("_bytes") in REST)
    found = []
    for column in keys:
        sizes = zip(_column(table, column.key), outcomes, strict=True)
        values = tuple(None if outcome == "refused" else (size or 0) / GiB for size, outcome in sizes)
        if any(value >= SMALLEST for value in values if value is not None):
            found.append(Series(column.heading, values))
    return tuple(found)


SMALLEST = 0.02
"""GiB below which a part cannot be seen."""


def _column(table: Table, key: str) -> list[Any]:
    """The values of a column; None for every row where there is none of this name."""
    keys = [column.key for column in table.columns]
    return [row[keys.index(key)] for row in table.rows] if key in keys else [None] * len(table.rows)


def _word(value: object) -> str:
    return thousands(value) if isinstance(value, int) else str(value)
