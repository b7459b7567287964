"""What moves around TGI from one release to another, and what took the place of flags and variables that ended."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.facts.release import Version, version

WHEN = ("always", "bare", "cache", "old-token", "host-network", "nvidia", "clients", "down")
"""Which deployments notice a row."""


class Around(NamedTuple):
    """One thing that is otherwise from a release on; `changes.yaml` explains the fields."""

    name: str
    """What it is about."""
    since: Version
    """First release with it."""
    before: str
    """How it is until then."""
    after: str
    """How it is from then on."""
    when: str
    """Which deployments notice, one of `WHEN`."""
    step: str
    """What to do when moving to it; empty where there is nothing to do."""
    source: str
    """Where it was read."""


class Instead(NamedTuple):
    """What says the same now as a flag or a variable that ended."""

    name: str
    """The flag, or in capitals the variable, that ended."""
    to: str
    """What to set now; empty where nothing has to be said."""
    value: str | None
    """What it is set to; None: the old one's own value."""
    why: str
    """One sentence."""


_ROW = frozenset(Around._fields)


@cache
def around() -> tuple[Around, ...]:
    """Every row, in the order of their releases; ValueError for a row that is not as the table says."""
    rows = []
    for row in tables.load("changes")["around"]:
        tables.strict(row, _ROW, _ROW, f"changes.yaml, {row.get('name')}")
        if row["when"] not in WHEN:
            raise ValueError(f"changes.yaml, {row['name']}: when is one of {', '.join(WHEN)}")
        rows.append(Around(**{**row, "since": version(row["since"])}))
    return tuple(rows)


def instead(name: str) -> Instead | None:
    """What took the place of a flag or a variable; None where nothing did."""
    row: dict[str, Any] | None = tables.load("changes")["instead"].get(name)
    if row is None:
        return None
    tables.strict(row, {"to", "value", "why"}, {"to", "why"}, f"changes.yaml, instead, {name}")
    return Instead(name, row["to"], row.get("value"), row["why"])
