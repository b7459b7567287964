"""How far a prediction may be off, from runs whose real budget is known."""

from __future__ import annotations

from typing import NamedTuple

from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts.measured import Measured, runs
from tgi_advisor.units import MiB

LEAST = 256 * MiB
UNKNOWN = 1.5
"""How much wider the band is where no similar run is known."""


class Spread(NamedTuple):
    """The band around a prediction."""

    bytes: int
    """Bytes of one GPU by which the KV cache may come out smaller or larger."""
    similar: int
    """Known runs like this one."""
    why: str
    """One sentence."""


def similar(setting: Setting) -> tuple[Measured, ...]:
    """Known runs like a launch: same major release, one GPU or several alike, same kind of class."""
    major, several = setting.facts.release.version[0], setting.num_shard > 1
    return tuple(
        run
        for run in runs()
        if run.release[0] == major and run.sharded == several and run.served_by == setting.family.served_by
    )


def spread(setting: Setting, total: int) -> Spread:
    """The band for a launch on GPUs of `total` bytes: nine in ten of the known runs lie within it."""
    known = sorted(abs(run.share) for run in runs())
    share = known[min(len(known) - 1, int(len(known) * 0.9))]
    alike = similar(setting)
    if alike:
        worst = max(abs(run.share) for run in alike)
        runs_alike = f"{len(alike)} similar run{'s' if len(alike) > 1 else ''}"
        why = f"measured on {runs_alike}, off by at most {100 * worst:.1f} %"
    else:
        why = f"no similar run known; nine in ten of {len(known)} known runs are within {100 * share:.1f} %"
        share *= UNKNOWN
    where = "memory" if setting.facts.gpu.system == "cpu" else "the GPU"
    return Spread(max(LEAST, round(share * total)), len(alike), f"{100 * share:.1f} % of {where} ({why})")
