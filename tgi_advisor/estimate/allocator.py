"""PyTorch's CUDA caching allocator, as far as it decides what the driver sees.

TGI reads the driver's free memory without emptying PyTorch's cache, so what counts is not what is
alive but what the allocator has *reserved*: blocks are rounded, large requests get segments of
their own, a freed block is reused by the smallest request-fitting search (the lowest address among
equals), split when much is left over, merged with its free neighbours, and never given back while
any part of its segment lives. Where the driver has no more, everything that is free as a whole is
given back and the request is tried once again.

https://github.com/pytorch/pytorch/blob/v2.4.0/c10/cuda/CUDACachingAllocator.cpp#L130-L150 (sizes)
https://github.com/pytorch/pytorch/blob/v2.4.0/c10/cuda/CUDACachingAllocator.cpp#L2170-L2230 (search, split)
https://github.com/pytorch/pytorch/blob/v2.4.0/c10/cuda/CUDACachingAllocator.cpp#L1110-L1180 (out of memory)
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from tgi_advisor.units import MiB

ROUNDING = 512
SMALL = MiB
"""Requests up to this size share 2 MiB segments."""
MIDDLE = 10 * MiB
"""Requests up to this size share 20 MiB segments; larger ones get their own, rounded to 2 MiB."""


class OutOfMemoryError(Exception):
    """The driver has too little left for a request, even with everything given back that can be.

    The arguments are bytes: wanted, missing for it, in use and reserved at that moment.
    """


class Block:
    """A piece of a segment, alive or free."""

    __slots__ = ("address", "after", "before", "free", "pinned", "size", "small")

    def __init__(self, address: int, size: int, small: bool, pinned: bool = False) -> None:
        self.address = address
        self.size = size
        self.small = small
        self.free = False
        self.pinned = pinned
        self.before: Block | None = None
        self.after: Block | None = None


class State(NamedTuple):
    """What an allocator looks like when nothing that is alive in it will ever be freed."""

    reserved: int
    """Bytes taken from the driver."""
    alive: int
    """Bytes of them in use, rounded as the allocator rounds."""
    small: tuple[int, ...]
    """Free blocks for requests up to `SMALL`, each in a segment that something alive pins."""
    large: tuple[int, ...]
    """Free blocks for larger requests, likewise."""


class Allocator:
    """Segments and blocks of one GPU; `reserved` is what the driver counts as used."""

    def __init__(self, state: State | None = None, most: int | None = None) -> None:
        """An empty allocator, or one in a known state; `most` is the most it may ever reserve."""
        self.reserved = self.peak = 0
        self.alive = self.most_alive = 0
        self.most = most
        self.emptied = False
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self._address = 0
        if state is not None:
            self.reserved = self.peak = state.reserved
            self.alive = self.most_alive = state.alive
            for sizes, small in ((state.small, True), (state.large, False)):
                for size in sizes:
                    self._keep(Block(self._next(size), size, small, pinned=True))

    def state(self) -> State:
        """The free blocks as they lie: for later allocators that free nothing of what is alive now."""
        small, large = (
            tuple(entry[0] for entry in sorted(self._free[kind], key=lambda e: -e[1])) for kind in (True, False)
        )
        return State(self.reserved, self.alive, small, large)

    def places(self) -> tuple[tuple[int, int], ...]:
        """(size, address) of every free block for large requests: what decides where the next ones go."""
        return tuple(entry[:2] for entry in self._free[False])

    def new(self, size: int) -> Block:
        """A block for a tensor of `size` bytes: the smallest free one that holds it, else a new segment."""
        wanted = -(-size // ROUNDING) * ROUNDING or ROUNDING
        small = wanted <= SMALL
        pool = self._free[small]
        place = bisect_left(pool, (wanted,))
        block = pool.pop(place)[2] if place < len(pool) else self._segment(wanted, small)
        rest = block.size - wanted
        if rest >= ROUNDING if small else rest > SMALL:
            piece = Block(block.address + wanted, rest, small)
            piece.before, piece.after = block, block.after
            piece.pinned = block.pinned
            if block.after is not None:
                block.after.before = piece
            block.after, block.size = piece, wanted
            piece.free = True
            insort(pool, (rest, piece.address, piece))
        block.free = False
        self.alive += block.size
        if self.alive > self.most_alive:
            self.most_alive = self.alive
        return block

    def release(self, *blocks: Block) -> None:
        """Free blocks, each merged with its free neighbours."""
        for block in blocks:
            self.alive -= block.size
            before, after = block.before, block.after
            if after is not None and after.free:
                self._drop(after)
                block.size += after.size
                block.after = after.after
                if after.after is not None:
                    after.after.before = block
            if before is not None and before.free:
                self._drop(before)
                before.size += block.size
                before.after = block.after
                if block.after is not None:
                    block.after.before = before
                block.free = True
                block = before
            self._keep(block)

    def empty_cache(self) -> None:
        """Give segments that are free as a whole back to the driver."""
        for pool in self._free.values():
            whole = [one for one in pool if one[2].before is None and one[2].after is None and not one[2].pinned]
            for entry in whole:
                pool.remove(entry)
                self.reserved -= entry[0]

    def _segment(self, wanted: int, small: bool) -> Block:
        size = 2 * MiB if small else 20 * MiB if wanted < MIDDLE else -(-wanted // (2 * MiB)) * 2 * MiB
        if self.most is not None and self.reserved + size > self.most:
            self.empty_cache()
            self.emptied = True
            if self.reserved + size > self.most:
                raise OutOfMemoryError(wanted, self.reserved + size - self.most, self.alive, self.reserved)
        self.reserved += size
        if self.reserved > self.peak:
            self.peak = self.reserved
        return Block(self._next(size), size, small)

    def _next(self, size: int) -> int:
        """The address of a new segment."""
        self._address -= size
        return self._address

    def _keep(self, block: Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.address, block))

    def _drop(self, block: Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, (block.size, block.address))]
