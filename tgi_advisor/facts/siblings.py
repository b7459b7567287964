"""Checkpoints that hold the same model's weights in different ways: `siblings.yaml`."""

from __future__ import annotations

from functools import cache

from tgi_advisor.facts import tables

KEYS = {"checkpoints", "source"}


@cache
def groups() -> tuple[tuple[str, ...], ...]:
    """Hub ids of the checkpoints of each model, the one the others were made of first."""
    rows = tables.load("siblings")
    for row in rows:
        tables.strict(row, KEYS, KEYS, f"siblings.yaml, {row.get('checkpoints')}")
    return tuple(tuple(row["checkpoints"]) for row in rows)


def of(model_id: str) -> tuple[str, ...]:
    """Hub ids of the other checkpoints of a model, by its recorded id."""
    found = (group for group in groups() if model_id in group)
    return tuple(one for one in next(found, ()) if one != model_id)
