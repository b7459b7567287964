"""What every row and line of a report means: `rows.yaml`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from tgi_advisor.errors import UsageError, did_you_mean
from tgi_advisor.facts import tables


class Row(NamedTuple):
    """One row of a report, explained."""

    row: str
    """Its name, as the report prints it."""
    means: str
    """What it is."""
    comes: str
    """How the figure is made."""
    less: str | None
    """What makes it smaller, or the line better; None where nothing does."""


@cache
def all_rows() -> tuple[Row, ...]:
    """Every row, in the order of a report."""
    keys = frozenset(Row._fields)
    for one in tables.load("rows"):
        tables.strict(one, keys, keys, f"rows.yaml, {one.get('row')}")
    return tuple(Row(**one) for one in tables.load("rows"))


def find(name: str) -> Row:
    """The row of this name, in any case; UsageError when no report has one."""
    rows = {row.row.lower(): row for row in all_rows()}
    wanted = name.strip().rstrip(":").lower()
    if wanted not in rows:
        near = did_you_mean(name, [row.row for row in all_rows()])
        raise UsageError(
            f"no report has a row {name[:40]!r}", near or "`tgi-advisor explain` without a name lists all."
        )
    return rows[wanted]
