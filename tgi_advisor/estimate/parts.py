"""Named amounts of memory on one GPU."""

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


class Reserved(NamedTuple):
    """What PyTorch's allocator has reserved on one GPU, in use or not: what `torch.cuda.memory_reserved` says."""

    after_load_bytes: int
    """When the model is there, before the warm-up."""
    at_peak_bytes: int | None
    """When TGI reads what is free; None when loading does not get that far."""


def total(parts: tuple[Part, ...]) -> int:
    """Sum of the parts in bytes."""
    return sum(part.bytes for part in parts)
