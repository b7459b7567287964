"""The constants of the roofline: `speed.yaml`, and what a running server of the user's own measured of them."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.facts.gpu import GpuFacts

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
    gpus: tuple[str, ...] = ()
    """Names of the cards it was measured on, which it holds for alone; empty for every card."""


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
    """By the link of an NVIDIA GPU, or by the system of another."""
    bands: tuple[Band, ...]
    """The first that applies."""
    source: str
    """Where the rows were measured that they were fitted on."""

    def band(self, shards: int, gpu: str) -> Band | None:
        """How far an estimate on so many shards of a card holds; None where no row supports one."""
        fit = (band for band in self.bands if shards <= band.shards and (not band.gpus or gpu in band.gpus))
        return next(fit, None)

    def link(self, gpu: GpuFacts) -> Link | None:
        """How fast cards of this kind add up; None where nobody has measured it."""
        return self.links.get(gpu.link if gpu.system == "cuda" else gpu.system)


class Calibration(NamedTuple):
    """What a running server reaches of its card's figures: takes the place of the shipped constants for its like."""

    gpu: str
    """Name of the card."""
    shards: int
    """Tensor parallel shards."""
    quantize: str
    """How the weights are held: `none`, or a value of --quantize."""
    chunking: bool
    """Whether its release mixes prefills into decoding."""
    date: str
    """The day it was read, as YYYY-MM-DD."""
    source: str
    """Which server, and how much it had done."""
    bandwidth: float | None = None
    """As `Constants.bandwidth`; None where its traffic does not tell."""
    compute: float | None = None
    """As `Constants.compute` and `first`; None where its traffic does not tell."""
    host: float | None = None
    """As `Constants.host`; None where it captures CUDA graphs."""
    kv_cache: str | None = None
    """`fp8` where its KV cache was in 8 bits; None in the 16 bits of the activations."""

    def over(self, known: Constants) -> Constants:
        """The constants with what was measured in the place of what was shipped."""
        return known._replace(
            bandwidth=self.bandwidth or known.bandwidth, compute=self.compute or known.compute,
            first=self.compute or known.first, host=self.host or known.host,
        )  # fmt: skip


FORM = "Write it with `tgi-advisor calibrate URL --gpu NAME > FILE`."
LARGEST = {"bandwidth": 1.0, "compute": 1.0, "host": 0.1}
"""What no server exceeds: a share of a figure of the card, seconds of a layer's launch."""


def read(rows: Any, where: str) -> tuple[Calibration, ...]:
    """The calibrations of a file; ValueError says what is wrong with it, at `where`."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"{where}: it is no list of measurements")
    return tuple(_calibration(row, f"{where}, {row.get('gpu')}") for row in rows)


def _calibration(row: Mapping[str, Any], where: str) -> Calibration:
    required = {"gpu", "shards", "quantize", "chunking", "date", "source"}
    tables.strict(row, {*required, *LARGEST, "kv_cache"}, required, where)
    kinds = {"gpu": str, "shards": int, "quantize": str, "chunking": bool, "date": str, "source": str}
    for name, kind in kinds.items():
        if type(row[name]) is not kind:
            raise ValueError(f"{where}: {name} is no {kind.__name__}: {row[name]!r}")
    measured = {name: row[name] for name in LARGEST if row.get(name) is not None}
    for name, value in measured.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 < value <= LARGEST[name]:
            raise ValueError(f"{where}: {name} is not between 0 and {LARGEST[name]:g}: {value!r}")
    if not measured.keys() & {"bandwidth", "host"}:
        raise ValueError(f"{where}: it has neither bandwidth nor host")
    if row.get("kv_cache") not in (None, "fp8"):
        raise ValueError(f"{where}: kv_cache is not fp8: {row['kv_cache']!r}")
    return Calibration(**{name: row[name] for name in required}, **measured, kv_cache=row.get("kv_cache"))


def matching(
    found: Iterable[Calibration], gpu: str, shards: int, quantize: str | None, kv_cache: str | None
) -> Calibration | None:
    """The last calibration of a server like this one; None where there is none."""
    like = (gpu, shards, quantize or "none", kv_cache)
    fit = (one for one in reversed(tuple(found)) if (one.gpu, one.shards, one.quantize, one.kv_cache) == like)
    return next(fit, None)


@cache
def constants() -> Constants:
    """The constants that are shipped."""
    row = tables.load("speed")
    tables.strict(row, KEYS, KEYS, "speed.yaml")
    links = {name: Link(**link) for name, link in row["links"].items()}
    bands = tuple(Band(**{**band, "gpus": tuple(band.get("gpus", ()))}) for band in row["bands"])
    shares = {name: row[name] for name in ("bandwidth", "compute", "first", "host", "step")}
    return Constants(**shares, links=links, bands=bands, source=row["source"])
