"""Amounts that no source states and real runs show: CUDA contexts, communicators, graph pools."""

from functools import cache
from typing import NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.units import parse_size

Version = tuple[int, int, int]
KEYS = frozenset({"name", "system", "releases", "generations", "gpus", "bytes", "share", "source"})


class Constant(NamedTuple):
    """One calibrated amount."""

    name: str
    """What it is: `cuda_context`, `nccl`, `driver_share`, `cuda_graphs`, `graph_kernel`, `graph_kernel_old`."""
    system: str
    """TGI system it was read on."""
    first: Version
    """First release it holds for."""
    last: Version
    """Last release it holds for."""
    generations: tuple[str, ...]
    """GPU generations it holds for; empty is any."""
    gpus: tuple[str, ...]
    """GPUs of the table it holds for; empty is any."""
    bytes: int
    """Bytes per GPU; 0 when it is a share."""
    share: float
    """Share of the GPU's memory; 0 when it is an amount."""
    source: str
    """The runs it was read from."""

    @property
    def where(self) -> str:
        """The GPUs it holds for."""
        return ", ".join(self.generations + self.gpus) or f"any {self.system}"

    @property
    def span(self) -> str:
        """`read off runs of 2.4.0-3.3.7`."""
        return f"read off runs of {'.'.join(map(str, self.first))}-{'.'.join(map(str, self.last))}"


@cache
def constants() -> tuple[Constant, ...]:
    """Every row of `calibration.yaml`."""
    return tuple(
        Constant(
            row["name"], row["system"], _version(row["releases"][0]), _version(row["releases"][1]),
            tuple(row.get("generations", ())), tuple(row.get("gpus", ())),
            parse_size(row["bytes"]) if "bytes" in row else 0, row.get("share", 0.0), " ".join(row["source"].split()),
        )
        for row in tables.load("calibration")
    )  # fmt: skip


def find(name: str, gpu: GpuFacts, release: Version) -> Constant | None:
    """The amount for a GPU and release: the first row that fits. None where the thing does not exist there."""
    for row in constants():
        there = gpu.name in (row.gpus or (gpu.name,)) and gpu.generation in (row.generations or (gpu.generation,))
        if there and row.name == name and row.system == gpu.system and row.first <= release <= row.last:
            return row
    return None


def _version(text: str) -> Version:
    major, minor, patch = (int(number) for number in text.split("."))
    return (major, minor, patch)
