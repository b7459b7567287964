"""What one GPU holds outside PyTorch's allocator, by its causes: `outside.yaml`.

Every amount comes with its spread: what one machine does not tell about another.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.units import parse_size

Version = tuple[int, int, int]

SECTIONS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "contexts": (frozenset({"system", "bytes", "spread", "source"}), frozenset({"from"})),
    "eager": (frozenset({"releases", "drivers_below", "bytes", "spread", "source"}), frozenset()),
    "links": (frozenset({"link", "says", "channels", "spread", "source"}), frozenset({"from"})),
    "connections": (frozenset({"kernels", "channel", "source"}), frozenset()),
    "nccl": (frozenset({"releases", "version", "source"}), frozenset({"nvls", "channels", "ranks"})),
    "multicast": (frozenset({"bytes", "source"}), frozenset()),
    "rccl": (frozenset({"bytes", "spread", "source"}), frozenset()),
    "totals": (frozenset({"driver", "no_reading", "card", "share", "source"}), frozenset()),
    "allocator": (frozenset({"replayed", "summed", "source"}), frozenset()),
    "unread": (frozenset({"spread", "source"}), frozenset()),
    "notes": (frozenset({"begins", "note", "source"}), frozenset()),
}
"""Required and further keys of each section; the head of outside.yaml says what each means."""


class Amount(NamedTuple):
    """Bytes of one GPU."""

    bytes: int
    """How many."""
    spread: int
    """By how much one machine may differ from another, either way."""


class Eager(NamedTuple):
    """What a driver that loads every kernel at once adds to a context."""

    amount: Amount
    """Bytes on top of the lazy context; its spread takes the place of that one's."""
    drivers_below: int
    """First major version of the driver that loads lazily by default."""


class Link(NamedTuple):
    """How the GPUs of a machine reach each other."""

    says: str
    """`over PCIe with peer access`."""
    channels: tuple[int, int]
    """Channels NCCL opens: fewest and most."""
    spread: int
    """Bytes by which communicators over it differ from machine to machine."""


class Sharp(NamedTuple):
    """What NVLink SHARP takes in one release's NCCL."""

    nccl: str
    """Version of NCCL."""
    bytes: int
    """Bytes of one channel for one rank."""
    channels: tuple[int, int] | None
    """Channels below and from compute capability 10.0 on; None: every channel of the link."""
    ranks: int
    """Fewest ranks that have it."""


class Connections(NamedTuple):
    """What a communicator of NCCL takes."""

    kernels: int
    """Bytes whatever the link: kernels and structures."""
    channel: int
    """Bytes of one channel to one peer."""


class Totals(NamedTuple):
    """How far CUDA's total may be off."""

    driver: int
    """Bytes, where the driver decides it."""
    no_reading: int
    """Bytes, where the driver is known and no reading of it."""
    card: int
    """Bytes, where only the card is known."""
    share: float
    """Share of the memory, where nobody printed the card's total."""


class Allocated(NamedTuple):
    """How far the sum of what PyTorch reserves may be off, in bytes."""

    replayed: int
    """Of a launch whose allocations are replayed."""
    summed: int
    """Of any other."""


@cache
def sections() -> Mapping[str, Any]:
    """`outside.yaml`, its keys checked."""
    found: Mapping[str, Any] = tables.load("outside")
    tables.strict(found, SECTIONS.keys(), SECTIONS.keys(), "outside.yaml")
    for name, (required, further) in SECTIONS.items():
        for row in found[name] if isinstance(found[name], list) else [found[name]]:
            tables.strict(row, required | further, required, f"outside.yaml, {name}")
    return found


@cache
def context(gpu: GpuFacts) -> Amount | None:
    """The context of a GPU whose driver loads kernels when they are first used; None on systems that have none."""
    rows = [row for row in sections()["contexts"] if row["system"] == gpu.system and _fits(row, gpu)]
    return _amount(rows[-1]) if rows else None


@cache
def eager(gpu: GpuFacts, release: Version) -> Eager | None:
    """What an old driver adds on this GPU; None where no driver as old runs it."""
    rows = sections()["eager"]
    if gpu.system != "cuda" or gpu.at_least >= (10, 0):
        return None
    return next((Eager(_amount(row), row["drivers_below"]) for row in rows if _in(row, release)), None)


@cache
def link(gpu: GpuFacts, word: str) -> Link:
    """What is known of a link on this card."""
    row = [row for row in sections()["links"] if row["link"] == word and _fits(row, gpu)][-1]
    return Link(row["says"], (row["channels"][0], row["channels"][1]), parse_size(row["spread"]))


@cache
def connections() -> Connections:
    """What a communicator takes."""
    row = sections()["connections"]
    return Connections(parse_size(row["kernels"]), parse_size(row["channel"]))


@cache
def sharp(release: Version) -> Sharp | None:
    """What NVLink SHARP takes in a release; None where its NCCL has none."""
    row = next((row for row in sections()["nccl"] if _in(row, release)), None)
    if row is None or "nvls" not in row:
        return None
    channels = None if row["channels"] == "link" else (row["channels"][0], row["channels"][1])
    return Sharp(row["version"], parse_size(row["nvls"]), channels, row["ranks"])


@cache
def multicast() -> int:
    """Bytes NVLink SHARP's buffers are rounded up to."""
    return parse_size(sections()["multicast"]["bytes"])


@cache
def rccl() -> Amount:
    """Communicators on ROCm."""
    return _amount(sections()["rccl"])


@cache
def totals() -> Totals:
    """How far CUDA's total may be off."""
    row = sections()["totals"]
    return Totals(parse_size(row["driver"]), parse_size(row["no_reading"]), parse_size(row["card"]), row["share"])


@cache
def allocated() -> Allocated:
    """How far the sum of what PyTorch reserves may be off."""
    row = sections()["allocator"]
    return Allocated(parse_size(row["replayed"]), parse_size(row["summed"]))


@cache
def unread() -> int:
    """How far an estimate may be off on a system nobody published a budget of."""
    return parse_size(sections()["unread"]["spread"])


def note(instance: str) -> str | None:
    """What to know about the driver of a cloud instance type."""
    rows = sections()["notes"]
    return next((row["note"] for row in rows if instance.strip().lower().startswith(row["begins"])), None)


def _amount(row: Mapping[str, Any]) -> Amount:
    return Amount(parse_size(row["bytes"]), parse_size(row["spread"]))


def _in(row: Mapping[str, Any], release: Version) -> bool:
    first, last = (tuple(map(int, text.split("."))) for text in row["releases"])
    return first <= release <= last


def _fits(row: Mapping[str, Any], gpu: GpuFacts) -> bool:
    """Whether a row holds from the GPU's compute capability, or one below it, on."""
    return tuple(map(int, row.get("from", "0.0").split("."))) <= gpu.at_least
