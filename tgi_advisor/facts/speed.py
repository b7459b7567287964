"""The constants of the roofline: `speed.yaml`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from tgi_advisor.facts import tables

KEYS = {"bandwidth", "compute", "first", "host", "step", "links", "bands", "source"}


class Link(NamedTuple):
    """How fast shards add up what each has computed."""

    seconds: float
    """Of one reduction, however little it moves."""
    bytes: float
    """Per second."""


class Band(NamedTuple):
    """How far an estimate holds."""

    shards: int
    """Up to how many shards."""
    factor: float
    """The figure is within this factor, either way."""
    label: str
    """What to call it."""


class Constants(NamedTuple):
    """What of a GPU's figures a TGI server reaches."""

    bandwidth: float
    """Share of the memory bandwidth."""
    compute: float
    """Share of the dense 16-bit FLOPS, of a busy server."""
    first: float
    """The same for the prefill of one prompt alone."""
    host: float
    """Seconds a layer takes to launch without CUDA graphs."""
    step: float
    """Seconds of every step outside the GPU."""
    links: dict[str, Link]
    """By the GPU's link."""
    bands: tuple[Band, ...]
    """The first that applies."""
    source: str
    """Where the rows were measured that they were fitted on."""

    def band(self, shards: int) -> Band | None:
        """How far an estimate on so many shards holds; None where no row supports one."""
        return next((band for band in self.bands if shards <= band.shards), None)


@cache
def constants() -> Constants:
    """The constants that are shipped."""
    row = tables.load("speed")
    tables.strict(row, KEYS, KEYS, "speed.yaml")
    links = {name: Link(**link) for name, link in row["links"].items()}
    bands = tuple(Band(**band) for band in row["bands"])
    shares = {name: row[name] for name in ("bandwidth", "compute", "first", "host", "step")}
    return Constants(**shares, links=links, bands=bands, source=row["source"])
