"""The hardware a server runs on, from what its file says and what the caller states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from tgi_advisor.errors import AdvisorError, FactsError
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.spec.records import GpuSpec
from tgi_advisor.units import human
from tgi_advisor.validate.effective import Effective
from tgi_advisor.validate.found import Server, Value
from tgi_advisor.validate.memory import memory_limit
from tgi_advisor.validate.rules.rule import Machine

CPU = "intel-cpu"
"""The row of the table that stands for a CPU."""


class Stated(NamedTuple):
    """The caller's word on what a file does not say; of a GPU it comes first."""

    gpu: GpuFacts | None = None
    """The GPU."""
    gpu_count: int | None = None
    """GPUs the container sees."""
    release: TgiRelease | None = None
    """The TGI release."""
    machine: Machine | None = None
    """The instance type that has the GPU, where it is stated by one."""
    cpu: bool = False
    """Whether a CPU is stated, whose memory the file has to say."""
    memory: int | None = None
    """Memory of a CPU's container, in bytes, where it is stated without a GPU."""


@dataclass(frozen=True, slots=True)
class Card:
    """The GPU of a server, as it sees it."""

    gpu: GpuFacts | None = None
    """The GPU; None where it is not known."""
    word: Value | None = None
    """The word of the file that names it."""
    machine: Machine | None = None
    """The machine it is in, where that is known."""
    unknown: str = ""
    """Why it is not known, with what would say it; empty where the file says nothing at all."""
    assumed: str = ""
    """What is assumed about it."""


def card_of(server: Server, view: Effective, stated: Stated) -> Card:
    """The GPU of a server: the caller's, else the file's; of a slice the slice, of a CPU its container's memory."""
    card = Card(stated.gpu, None, stated.machine) if stated.gpu or stated.cpu else _named(server)
    on_cpu = view.image.system == "cpu" and (card.gpu is None or card.gpu.system != "cpu")
    if stated.cpu or on_cpu:
        return _cpu(server, stated, card)
    if card.gpu is not None and card.gpu.system == "cpu":
        limit = memory_limit(server)
        return replace(card, gpu=_with_memory(card.gpu, limit)) if limit else card
    return _slice(server, card) if server.gpus.sliced or _picked_slice(view) else card


def _picked_slice(view: Effective) -> bool:
    """Whether a variable picks a MIG slice."""
    picked = (view.env.get(name) for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"))
    return any(one is not None and one.known and one.text.startswith("MIG-") for one in picked)


def _named(server: Server) -> Card:
    """The GPU a file names, and the machine with the GPUs that come with it."""
    unknown = ""
    for hint in server.hints:
        if not hint.value.known or hint.kind not in ("gpu", "instance"):
            continue
        try:
            found = _find(hint.kind, hint.value.text, server.gpus.profile)
        except FactsError as error:
            if " several cards " in error.message:
                unknown = f"{error.message.removeprefix('GPU ')} (--gpu says which)"
            continue
        except AdvisorError:
            continue
        if found is not None:
            count = found[1] or hint.count
            return Card(found[0], hint.value, Machine(hint.value.text, count) if count else None)
    count = next((hint.count for hint in server.hints if hint.count is not None), None)
    return Card(machine=Machine("the machine", count) if count else None, unknown=unknown)


def _find(kind: str, name: str, profile: str) -> tuple[GpuFacts, int | None] | None:
    """The GPU of a hint, or its slice, with the GPUs of an instance type; FactsError where it is not known."""
    if kind == "instance":
        return gpus.instance(name)
    try:
        return gpus.find(f"{name}-mig-{profile}" if profile else name), None
    except FactsError:
        return gpus.find(name), None


def _slice(server: Server, card: Card) -> Card:
    """The slice that a container is given of its card; its size may only be in the profile it asks for."""
    profile = server.gpus.profile
    if card.gpu is None and profile:
        try:
            return replace(card, gpu=gpus.find(f"mig-{profile}"))
        except FactsError:
            example = f"a100-80gb-mig-{profile}"
            return replace(
                card, unknown=f"which card the slice mig-{profile} is of is not known (--gpu {example} says it)"
            )
    found = card.gpu
    if found is not None and profile:
        found = gpus.slice_of(found, profile)
    elif found is not None and not found.mig:
        found = None
    said = f"of {card.gpu.name} no slice {profile} is known" if card.gpu and profile else "its size is not in the file"
    why = f"the container is given a MIG slice, and {said} (--gpu a100-80gb-mig-1g.10gb says one)"
    return replace(card, gpu=found, unknown="" if found else why)


def _cpu(server: Server, stated: Stated, card: Card) -> Card:
    """A CPU with the memory of its container: the caller's, at most what the file allows.

    TGI measures what is available on the host (psutil, utils/import_utils.py@v3.3.7:31); a container that takes more
    than its limit is killed.
    """
    known = [size for size in (stated.memory, memory_limit(server)) if size]
    if not known:
        return replace(
            card, gpu=None, unknown="how much memory the CPU's container has is not known (--memory says it)"
        )
    memory = min(known)
    limit = f"judged with {human(memory)} of memory, the container's limit; TGI itself measures the host's"
    said = "" if memory == stated.memory else limit
    return replace(card, gpu=gpus.stated(GpuSpec(name=CPU, memory=memory)), assumed=said)


def _with_memory(cpu: GpuFacts, limit: int) -> GpuFacts:
    return cpu._replace(memory_bytes=min(limit, cpu.memory_bytes))
