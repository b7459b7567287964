"""Runs whose real budget is known: `measured.yaml`, made by `scripts/accuracy.py --write` from the recorded runs."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import tables

KEYS = frozenset({"id", "release", "generation", "sharded", "served_by"})


class Measured(NamedTuple):
    """One real start."""

    id: str
    """Name of the row in the recorded runs."""
    release: tuple[int, int, int]
    """TGI release."""
    generation: str
    """GPU generation."""
    sharded: bool
    """Whether it ran on several GPUs."""
    served_by: str
    """Kind of model class."""


@cache
def runs() -> tuple[Measured, ...]:
    """Every row whose release, GPU and arguments are known."""
    return tuple(_read(row) for row in tables.load("measured"))


def _read(row: Mapping[str, Any]) -> Measured:
    tables.strict(row, KEYS, KEYS, f"measured.yaml: {row.get('id')}")
    major, minor, patch = (int(number) for number in row["release"].split("."))
    return Measured(row["id"], (major, minor, patch), row["generation"], row["sharded"], row["served_by"])
