"""What a part of a replay makes and drops, noted once and then played: most layers of a model are alike.

A tape is what `Allocator.play` takes. Where a part is the same for every number of tokens, its tape has widths in place
of sizes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tgi_advisor.estimate.allocator import ROUNDING, Allocator, Block

_FIXED = 1 << 48
"""What is added to the units of a tensor that has the same size for every number of tokens."""


class Tape(NamedTuple):
    """A part of a replay, in the order in which things happen."""

    steps: tuple[int, ...]
    """Above zero the bytes of the next tensor for each byte of a token's element column, or its units beyond `_FIXED`;
    0 for an empty one; else the number of the tensor that is dropped, as `~number`."""
    results: tuple[int | None, ...]
    """Numbers of the tensors that it returns."""
    scales: bool
    """Whether it is the same for every number of tokens."""
    workspace: int | None = None
    """Number of cuBLAS' workspace, where the part takes it."""

    def units(self, column: int) -> list[int]:
        """The tape as `Allocator.play` takes it, where a tensor of width 1 has `column` bytes."""
        return [
            (one - _FIXED if one >= _FIXED else -(-one * column // ROUNDING)) if one > 0 else one or 1
            for one in self.steps
        ]


class Recorder(Allocator):
    """An allocator that only notes what is asked of it; its blocks have their number for an address."""

    def __init__(self, given: int = 0) -> None:
        """`given`: the number of tensors that are there before."""
        super().__init__()
        self.steps: list[int] = []
        self.scales = True
        self._number = given

    def _made(self, step: int) -> Block:
        self.steps.append(step)
        self._number += 1
        return Block(self._number - 1, 0)

    def of_width(self, width: int) -> Block:
        """A tensor of so many elements for each token."""
        return self._made(width)

    def of_size(self, size: int) -> Block:
        """A tensor of so many bytes for any number of tokens."""
        return self._made(_FIXED + (-(-size // ROUNDING) or 1))

    def new(self, size: int) -> Block:
        """A tensor of so many bytes, who knows why."""
        self.scales = False
        return self.of_size(size)

    def release(self, *blocks: Block) -> None:
        """Drop tensors."""
        self.steps += [~block.address for block in blocks]

    def tape(self, results: Sequence[int | None] = (), workspace: int | None = None) -> Tape:
        """The tape of all that was noted."""
        return Tape(tuple(self.steps), tuple(results), self.scales, workspace)


def play(memory: Allocator, part: Sequence[Callable[[Allocator], None]], times: int) -> None:
    """Take the same steps so many times, each of which stands by itself."""
    if times == 1:
        for step in part:
            step(memory)
        return
    recorder = Recorder()
    for step in part:
        step(recorder)
    units = recorder.tape().units(0)
    for _ in range(times):
        memory.play(units)
