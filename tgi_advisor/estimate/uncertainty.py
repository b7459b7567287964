"""How far a prediction may be off: what one machine does not tell about another, cause by cause."""

import math
from typing import NamedTuple

from tgi_advisor.estimate import overhead, replay
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families, layouts, outside
from tgi_advisor.facts.measured import Measured, runs
from tgi_advisor.once import remembered
from tgi_advisor.units import gib

LARGEST = 2
"""Contributions that are named."""


class Contribution(NamedTuple):
    """One cause by which a prediction may be off."""

    name: str
    """What it is: `CUDA total`, `context`, `NCCL`, `NVLink SHARP`, `allocator`."""
    bytes: int
    """Bytes of one GPU, either way."""
    why: str
    """Where that comes from."""


class Spread(NamedTuple):
    """The band around a prediction."""

    bytes: int
    """Bytes of one GPU by which the KV cache may come out smaller or larger."""
    similar: int
    """Known runs like this one."""
    why: str
    """The band with its two largest contributions, and what is not known and would change it."""
    contributions: tuple[Contribution, ...]
    """What it is made of, the largest first: it is the root of the sum of their squares."""


def similar(setting: Setting) -> tuple[Measured, ...]:
    """Known runs like a launch: same major release, one GPU or several alike, same kind of class."""
    major, several = setting.facts.release.version[0], setting.num_shard > 1
    return tuple(
        run
        for run in runs()
        if run.release[0] == major and run.sharded == several and run.served_by == setting.family.served_by
    )


@remembered
def spread(setting: Setting) -> Spread:
    """The band of a launch."""
    parts = sorted(contributions(setting), key=lambda part: -part.bytes)
    band = round(math.sqrt(sum(part.bytes**2 for part in parts)))
    named = ", ".join(f"{part.name} {gib(part.bytes)}" for part in parts[:LARGEST])
    unknown = _unknown_driver(setting), _unknown_link(setting), _unknown_files(setting)
    why = "; ".join(filter(None, (f"± {gib(band)}: {named}", *unknown)))
    return Spread(band, len(similar(setting)), why, tuple(parts))


def contributions(setting: Setting) -> tuple[Contribution, ...]:
    """What is not known of the machine, and how much it may be."""
    if setting.facts.gpu.system not in ("cuda", "rocm"):
        return (Contribution("no reading", outside.unread(), f"no budget on {setting.facts.gpu.system} is public"),)
    parts = (_total(setting), *_context(setting), *_nccl(setting), _allocator(setting))
    return tuple(part for part in parts if part.bytes)


def _total(setting: Setting) -> Contribution:
    """What CUDA reports as the card's memory: by driver, where one is known."""
    gpu, known = setting.facts.gpu, outside.totals()
    if gpu.total_from == "spec":
        size, why = 0, "stated in the spec"
    elif gpu.total_from == "driver":
        size, why = known.driver, f"read on cards with driver {gpu.driver_major}"
    elif gpu.cuda_total_bytes is None:
        size, why = round(known.share * gpu.memory_bytes), "nobody printed it for this card"
    elif gpu.driver:
        size, why = known.no_reading, f"no reading of this card with driver {gpu.driver_major}"
    else:
        size, why = known.card, "it moves with the driver, which is not known"
    return Contribution("CUDA total", size, why)


def _context(setting: Setting) -> tuple[Contribution, ...]:
    """The context: which kernels have run, or which libraries an old driver loads."""
    found = overhead.context_of(setting)
    if found is None:
        return ()
    why = "all kernels of this release's libraries" if found.old else "which kernels have run"
    return (Contribution("context", found.amount.spread, why),)


def _nccl(setting: Setting) -> tuple[Contribution, ...]:
    """Communicators: channels, transport and rank; and whether NVLink SHARP is on, and with how many channels."""
    found = overhead.communicators_of(setting)
    if found is None:
        return ()
    name = "RCCL" if setting.facts.gpu.system == "rocm" else "NCCL"
    sharp = Contribution("NVLink SHARP", found.sharp // 2, "it may be off, or have 24 channels instead of 16")
    return Contribution(name, found.spread, "channels and transport differ by machine and rank"), sharp


def _allocator(setting: Setting) -> Contribution:
    """What PyTorch reserves: replayed as TGI allocates, or summed up."""
    known = outside.allocated()
    why = replay.why_not(setting)
    if not why:
        return Contribution("allocator", known.replayed, "TGI's own allocations are replayed")
    return Contribution("allocator", known.summed, f"parts are summed up, allocations not replayed: {why}")


def _unknown_link(setting: Setting) -> str:
    """That the shards' link is what is usual for the card."""
    found = overhead.communicators_of(setting)
    if found is None or not found.assumed:
        return ""
    return f"the GPUs are assumed to reach each other {found.says} (hardware.link)"


def _unknown_files(setting: Setting) -> str:
    """That the weight files are what is usual, where a class reads them one after the other."""
    model = setting.facts.model
    if model.files or setting.family.served_by != "transformers" or not replay.known(setting):
        return ""
    found = layouts.assumed(model.tensors, families.layers(model), model.file_count)
    if len(found.files) == 1:
        return ""
    return f"its weight files are assumed to end after {found.size // 10**9} GB (a folder with the weights tells)"


def _unknown_driver(setting: Setting) -> str:
    """What an unknown driver would change."""
    found = overhead.context_of(setting)
    if found is None or found.eager is None or setting.facts.gpu.driver:
        return ""
    more = gib(found.eager.amount.bytes)
    return f"a driver older than {found.eager.drivers_below} would take {more} more (hardware.driver)"
