"""What a preflight finds, and what of it is the same everywhere.

A `Finding` is a value: one that blocks ends the launch before it changes anything, the others are said and passed
over. What a machine has (its GPUs and who uses them) comes in as data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tgi_advisor.errors import PreflightError, Problem, UsageError
from tgi_advisor.plan import Container
from tgi_advisor.units import GiB, human

SHARD_SHM = 1 * GiB
"""Shared memory for several shards (docs/source/quicktour.md@v3.3.7)."""

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)i?b?", re.IGNORECASE)


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine."""

    index: int
    """Its number."""
    name: str
    """Its name."""
    total_bytes: int | None
    """Memory in all."""
    used_bytes: int | None
    """Memory in use."""
    users: tuple[str, ...] = ()
    """The processes on it, as people read them."""
    driver: str = ""
    """Version of the NVIDIA driver; empty where it is not said."""


@dataclass(frozen=True)
class Finding:
    """One thing the preflight has to say."""

    message: str
    """What is so."""
    hint: str | None = None
    """What to do about it."""
    blocks: bool = True
    """Whether the launch must not go on."""

    @property
    def problem(self) -> Problem:
        """As errors list them."""
        return Problem(self.message, self.hint)


@dataclass(frozen=True)
class Host:
    """What is known of this machine."""

    gpus: tuple[Gpu, ...] | None = None
    """Its GPUs; None when nobody could say."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """The caller's environment, for tokens."""


@dataclass(frozen=True)
class Checked:
    """The preflight's result."""

    findings: tuple[Finding, ...]
    """Everything found."""
    pull: bool
    """Whether the image has to be pulled."""
    replaces: str | None = None
    """What --replace swaps, as the place calls it."""
    reuses: str | None = None
    """The identical one that --reuse keeps, as the place calls it."""


def refuse(findings: Iterable[Finding]) -> None:
    """PreflightError when something blocks."""
    blocking = [finding.problem for finding in findings if finding.blocks]
    if blocking:
        many = f"{len(blocking)} things stand" if len(blocking) > 1 else "something stands"
        raise PreflightError(f"{many} in the way of this launch; nothing was started", None, blocking)


def shared_memory(container: Container) -> Iterator[Finding]:
    """Whether several shards have enough of it to talk through."""
    shared = size(container.shm_size)
    several = container.gpu_count > 1 and container.ipc != "host" and container.env.get("NCCL_SHM_DISABLE") != "1"
    if several and shared < SHARD_SHM:
        yield Finding(
            f"shared memory gets {human(shared)}, and {container.gpu_count} shards talk through it",
            "Set container.shm_size to 1g, as TGI's documentation does.",
        )


def size(text: str) -> int:
    """Bytes of a size in Docker's spelling: `1g`, `512m`; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no size in Docker's spelling", "Write 1g or 512m.")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]
