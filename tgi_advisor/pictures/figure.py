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
class Series:
    """One part of every bar, or one line."""

    name: str
    """What it is."""
    values: tuple[float | None, ...]
    """One for every step; None where there is none."""
    stops_at: int | None = None
    """The first step of a line, one of several, that no longer fits; None where all do."""


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
    stops_at: int | None = None
    """The first step that no longer fits, where steps grow; None where all do."""
    failing: tuple[int, ...] = ()
    """The steps that do not fit, where they do not grow from one to the next."""

    @property
    def limit(self) -> float | None:
        """The height of the line where all steps have the same, to the hundredth that is shown."""
        heights = {round(height, 2): height for height in self.limits if height is not None}
        return next(iter(heights.values())) if len(heights) == 1 else None

    @property
    def stop(self) -> str:
        """Where it stops fitting, in words; empty where it does not."""
        if self.stops_at is not None:
            return f"From {self.x_label} {self.steps[self.stops_at]} on it does not fit."
        several = [one for one in self.series if one.stops_at is not None]
        if several:
            return " ".join(
                f"With {one.name} it does not fit from {self.x_label} {self.steps[one.stops_at or 0]} on."
                for one in several
            )
        axes = self.x_label.split(", ")
        failing = [BETWEEN.split(self.steps[number]) for number in self.failing]
        words = [", ".join(map(" ".join, zip(axes, step, strict=True))) for step in failing]
        return f"It does not fit with {' or '.join(words)}." if words else ""


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
    starts = [value == "starts" for value in _column(table, "outcome")]
    last = len(axes) - 1
    if last == 0:
        steps = _steps(table, axes)
        stops, failing = _stops(table, starts)
        return Figure(title, axes[0], label, steps, (Series(label, tuple(values)),), False, (), "", stops, failing)
    groups: dict[tuple[Any, ...], dict[Any, int]] = {}
    for number, row in enumerate(table.rows):
        groups.setdefault(row[:last], {})[row[last]] = number
    along = tuple(dict.fromkeys(row[last] for row in table.rows))
    lines = []
    for turned, numbers in groups.items():
        name = ", ".join(f"{axis} {_word(value)}" for axis, value in zip(axes, turned, strict=False))
        fit = [starts[numbers[value]] for value in along]
        line = tuple(values[numbers[value]] for value in along)
        if _grows(along):
            lines.append(Series(name, line, _first_that_fails(fit)))
        else:
            short = [_word(value) for value, fits in zip(along, fit, strict=True) if not fits]
            where = "" if len(short) == len(along) else f" with {' or '.join(short)}"
            lines.append(Series(f"{name} (does not fit{where})" if short else name, line))
    return Figure(title, axes[last], label, tuple(map(_word, along)), tuple(lines), False)


def _bars(table: Table, axes: Sequence[str], title: str, *, pooled: bool) -> Figure:
    """The parts of the memory, step by step."""
    parts = _parts(table)
    if not parts:
        raise UsageError("no step has memory to draw", "What is refused before anything is loaded has none.")
    limits = tuple(value and value / GiB for value in _column(table, "gpu_total_bytes"))
    whole, name = ("GiB of all GPUs", "the GPUs") if pooled else ("GiB of one GPU", "the GPU")
    starts = [value == "starts" for value in _column(table, "outcome")]
    if len(axes) == 1:
        stops, failing = _stops(table, starts)
    else:
        stops, failing = None, tuple(number for number, fits in enumerate(starts) if not fits)
    return Figure(title, ", ".join(axes), whole, _steps(table, axes), parts, True, limits, name, stops, failing)


def _steps(table: Table, axes: Sequence[str]) -> tuple[str, ...]:
    """The steps in words."""
    return tuple(", ".join(_word(value) for value in row[: len(axes)]) for row in table.rows)


def _grows(values: Sequence[Any]) -> bool:
    """Whether they are numbers, each larger than the one before."""
    return all(isinstance(one, int) for one in values) and all(a < b for a, b in pairwise(values))


def _stops(table: Table, starts: Sequence[bool]) -> tuple[int | None, tuple[int, ...]]:
    """(first step that no longer fits, the steps that do not fit): the one where steps grow, else the other."""
    if _grows([row[0] for row in table.rows]):
        return _first_that_fails(starts), ()
    return None, tuple(number for number, fits in enumerate(starts) if not fits)


def _first_that_fails(starts: Sequence[bool]) -> int | None:
    """The first step that does not start after one that does, or the first of all where none does."""
    if True not in starts:
        return 0
    first = starts.index(True)
    return next((i for i in range(first, len(starts)) if not starts[i]), None)


def _parts(table: Table) -> tuple[Series, ...]:
    """The parts of the memory, what is left of it last."""
    keys = [one for one in table.columns if one.key.endswith("_bytes") and one.key not in NOT_PARTS]
    keys.sort(key=lambda one: one.key.removesuffix("_bytes") in REST)
    found = []
    for column in keys:
        values = tuple((value or 0) / GiB for value in _column(table, column.key))
        if any(value >= SMALLEST for value in values):
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
