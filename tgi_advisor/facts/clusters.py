"""By which label of its nodes a kind of cluster tells the GPU: `clusters.yaml`."""

from __future__ import annotations

from typing import Any, NamedTuple

from tgi_advisor.errors import FactsError, listed
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import tables
from tgi_advisor.facts.gpu import GpuFacts

REQUIRED = {"name", "title", "label", "source"}
WAYS = {"values", "cloud", "printed"}
"""How the values of a label are found: one of these a row."""


class Nodes(NamedTuple):
    """The nodes a server may run on."""

    label: str
    """Key of their label."""
    values: tuple[str, ...]
    """Values it may have."""
    tolerations: tuple[tuple[str, str], ...]
    """Taints they may have beside the GPU resource's own: keys and values."""


class Kind(NamedTuple):
    """A kind of cluster."""

    name: str
    """What a spec calls it."""
    title: str
    """What it is."""
    label: str
    """Label of its nodes that tells the GPU."""


def kinds() -> tuple[Kind, ...]:
    """The kinds of clusters, in the table's order."""
    return tuple(Kind(row["name"], row["title"], row["label"]) for row in _rows())


def nodes(kind: str, gpu: GpuFacts, count: int) -> Nodes:
    """The nodes of a cluster of this kind that have `count` of a GPU; FactsError where its label does not tell them."""
    row = next(row for row in _rows() if row["name"] == kind)
    if row.get("printed"):
        values = [name.replace(" ", "-") for name in gpus.printed(gpu.name)]
    elif "cloud" in row:
        machines = gpus.machines()
        values = [
            type_
            for cloud, card, type_, many in machines
            if (cloud, card) == (row["cloud"], gpu.name) and many >= count
        ]
    else:
        values = row["values"].get(gpu.name, [])
    if not values:
        known = f" It knows {listed(sorted(row['values']), 'and')}." if "values" in row else ""
        raise FactsError(
            f"{row['title']} has no nodes with {count} x {gpu.name} that {row['label']} tells",
            f"Leave kubernetes.cluster out, and add a node selector of your own.{known}",
        )
    taints = tuple((one["key"], one["value"]) for one in row.get("tolerations", ()))
    return Nodes(row["label"], tuple(values), taints)


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tables.load("clusters")
    for row in rows:
        where = f"clusters.yaml, {row.get('name')}"
        tables.strict(row, REQUIRED | WAYS | {"tolerations"}, REQUIRED, where)
        if len(WAYS & row.keys()) != 1:
            raise ValueError(f"{where}: one of {sorted(WAYS)} says how its values are found")
    return rows
