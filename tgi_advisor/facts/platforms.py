"""What platforms call GPUs and machines: what `platforms.yaml` says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.facts.gpu import machines


class Offer(NamedTuple):
    """A kind of machine a platform sells by a name of its own."""

    gpu: str
    """The GPU by its name in gpus.yaml."""
    vendor: str
    """Cloud it stands in."""
    region: str
    """A region that has it."""
    type: str
    """The platform's name of it."""
    sizes: Sequence[int]
    """How many GPUs one can have."""


class Platform(NamedTuple):
    """One row of `platforms.yaml`, which explains the fields."""

    name: str
    """The format of `emit` that writes for it."""
    title: str
    """Its name, for people."""
    source: str
    """Where the names were read."""
    gpus: Mapping[str, str] = {}
    """Our name of a GPU -> the platform's."""
    sizes: Sequence[int] = ()
    """How many GPUs one machine can have; empty where any number may be asked for."""
    cloud: str = ""
    """Cloud of instances.yaml whose instance types it runs on; empty where none is named."""
    prefix: str = ""
    """What stands before the name of an instance type."""
    without: Sequence[str] = ()
    """Instance types of the cloud that it does not have."""
    images: Mapping[str, str] = {}
    """Tags of the images it has for TGI, by release; empty where it takes others."""
    offers: Sequence[Offer] = ()
    """Machines that it sells under names of its own."""

    def machine(self, gpu: str, count: int, instance: str = "") -> str | None:
        """The instance type with so many of a GPU: the one that is named, else the first of the table."""
        fitting = [kind for kind, many in self._machines(gpu) if many == count]
        wanted = instance.lower().removeprefix("ml.").removeprefix("standard_")
        named = [kind for kind in fitting if kind.lower().removeprefix("standard_") == wanted]
        return self.prefix + (named or fitting)[0] if fitting else None

    def offer(self, gpu: str, count: int) -> Offer | None:
        """The machine with so many of a GPU that it sells under a name of its own."""
        return next((one for one in self.offers if one.gpu == gpu and count in one.sizes), None)

    def known(self) -> list[str]:
        """Every GPU it has, by our names, each once."""
        of_cloud = [gpu for cloud, gpu, kind, _ in machines() if cloud == self.cloud and kind not in self.without]
        of_offers = [one.gpu for one in self.offers]
        kept = [gpu for gpu in of_cloud if not self.gpus or gpu in self.gpus]
        return list(dict.fromkeys(kept or of_offers or self.gpus))

    def counts(self, gpu: str) -> list[int]:
        """How many of a GPU one machine can have, where that is bounded."""
        of_offers = [size for one in self.offers if one.gpu == gpu for size in one.sizes]
        return sorted({*self.sizes, *of_offers, *(many for _, many in self._machines(gpu))})

    def _machines(self, gpu: str) -> Iterator[tuple[str, int]]:
        every = ((kind, many) for cloud, held, kind, many in machines() if cloud == self.cloud and held == gpu)
        return (one for one in every if one[0] not in self.without)


@cache
def all_platforms() -> Mapping[str, Platform]:
    """Every row, by its name."""
    return {name: _platform(name, row) for name, row in tables.load("platforms").items()}


def _platform(name: str, row: Mapping[str, Any]) -> Platform:
    where = f"platforms.yaml, {name}"
    tables.strict(row, set(Platform._fields) - {"name"}, {"title", "source"}, where)
    for offer in row.get("offers", ()):
        tables.strict(offer, set(Offer._fields), set(Offer._fields), where)
    return Platform(name, **{**row, "offers": tuple(Offer(**one) for one in row.get("offers", ()))})
