"""Named amounts of memory on one GPU."""

from __future__ import annotations

from typing import Literal, NamedTuple

Basis = Literal["exact", "modelled", "calibrated"]


class Part(NamedTuple):
    """One amount of memory on one GPU (a NamedTuple: thousands are made per search)."""

    name: str
    """Short name, e.g. `weights`."""
    bytes: int
    """Bytes on the GPU that binds."""
    basis: Basis
    """`exact` follows from the files; `modelled` from TGI's code; `calibrated` from measured runs."""
    why: str
    """One sentence: where the number comes from."""


def total(parts: tuple[Part, ...]) -> int:
    """Sum of the parts in bytes."""
    return sum(part.bytes for part in parts)
