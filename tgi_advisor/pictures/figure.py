"""What is to be drawn, before anything draws: from a table of steps to bars or lines with their words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tgi_advisor.errors import UsageError
from tgi_advisor.tabular import Table
from tgi_advisor.units import GiB, thousands

Kind = Literal["memory", "budget", "concurrency"]
KINDS: tuple[Kind, ...] = ("memory", "budget", "concurrency")
NOT_PARTS = ("headroom_bytes", "gpu_total_bytes")
REST = ("reserve", "free_for_requests", "left_over")
"""Parts that are what is left, at the top of a bar."""


@dataclass(frozen=True)
class Series:
    """One part of every bar, or one line."""

    name: str
    """What it is."""
    values: tuple[float | None, ...]
    """One for every step; None where there is none."""


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
    limit: float | None = None
    """A height that is drawn as a line across; None for none."""
    limit_label: str = ""
    """What that height is."""
    stops_at: int | None = None
    """The first step that no longer fits; None where all do."""


def figure(table: Table, axes: Sequence[str], kind: Kind, title: str, *, pooled: bool = False) -> Figure:
    """The figure of a kind over the steps of a sweep, whose first columns are `axes`.

    `pooled` says that its memory is that of all GPUs together.
    """
    if not table.rows:
        raise UsageError("there is nothing to draw", "The table has no rows.")
    steps = tuple(" ".join(_word(value) for value in row[: len(axes)]) for row in table.rows)
    stops = _stops_at(table)
    x_label = ", ".join(axes)
    if kind == "memory":
        sizes = [value for value in _column(table, "gpu_total_bytes") if value is not None]
        limit = max(sizes) / GiB if sizes else None
        whole, name = ("GiB of all GPUs", "the GPUs") if pooled else ("GiB of one GPU", "the GPU")
        return Figure(title, x_label, whole, steps, _parts(table), True, limit, name, stops)
    key, label = {
        "budget": ("max_batch_total_tokens", "tokens of the KV cache"),
        "concurrency": ("concurrency", "requests at once"),
    }[kind]
    values = tuple(_column(table, key))
    if all(value is None for value in values):
        raise UsageError(f"no step has a figure for {label}", "Draw the memory instead: --chart memory.")
    return Figure(title, x_label, label, steps, (Series(label, values),), False, stops_at=stops)


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


def _stops_at(table: Table) -> int | None:
    """The first step that does not start after one that does, or the first of all where none does."""
    starts = [value == "starts" for value in _column(table, "outcome")]
    if True not in starts:
        return 0
    first = starts.index(True)
    return next((i for i in range(first, len(starts)) if not starts[i]), None)


def _column(table: Table, key: str) -> list[Any]:
    """The values of a column; None for every row where there is none of this name."""
    keys = [column.key for column in table.columns]
    return [row[keys.index(key)] for row in table.rows] if key in keys else [None] * len(table.rows)


def _word(value: object) -> str:
    return thousands(value) if isinstance(value, int) else str(value)
