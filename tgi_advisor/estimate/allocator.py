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
    """A piece of a segment that is in use."""

    __slots__ = ("address", "size")

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size


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
    """Segments and blocks of one GPU; `reserved` is what the driver counts as used, `in_small` what of it is in
    segments for small requests that were made here.

    Segments never touch each other, so that free blocks with adjoining addresses are of one segment.
    """

    def __init__(self, state: State | None = None, most: int | None = None) -> None:
        """An empty allocator, or one in a known state; `most` is the most it may ever reserve."""
        self.reserved = self.peak = self.in_small = 0
        self.alive = self.most_alive = 0
        self.most = most
        self.emptied = False
        self._small: list[tuple[int, int]] = []
        self._large: list[tuple[int, int]] = []
        self._by_start: dict[int, int] = {}
        self._by_end: dict[int, int] = {}
        self._segments: dict[int, int] = {}
        self._address = 0
        if state is not None:
            self.reserved = self.peak = state.reserved
            self.alive = self.most_alive = state.alive
            for size in state.small:
                self._keep(self._small, self._place(size), size)
            for size in state.large:
                self._keep(self._large, self._place(size), size)

    def state(self) -> State:
        """The free blocks as they lie: for later allocators that free nothing of what is alive now."""
        small, large = (
            tuple(size for size, _ in sorted(pool, key=lambda entry: -entry[1])) for pool in (self._small, self._large)
        )
        return State(self.reserved, self.alive, small, large)

    def places(self) -> tuple[tuple[int, int], ...]:
        """(size, address) of every free block for large requests: what decides where the next ones go."""
        return tuple(self._large)

    def sizes(self, *, small: bool = False) -> tuple[int, ...]:
        """The sizes of the free blocks for large requests, or for small ones."""
        return tuple([size for size, _ in (self._small if small else self._large)])

    @property
    def room(self) -> int:
        """Bytes of the largest free block for large requests."""
        return self._large[-1][0] if self._large else 0

    def new(self, size: int) -> Block:
        """A block for a tensor of `size` bytes: the smallest free one that holds it, else a new segment."""
        wanted = -(-size // ROUNDING) * ROUNDING or ROUNDING
        pool = self._small if wanted <= SMALL else self._large
        held, address = self._taken(pool, wanted)
        rest = held - wanted
        if rest > SMALL or (rest and wanted <= SMALL):
            self._keep(pool, address + wanted, rest)
            held = wanted
        self.alive += held
        if self.alive > self.most_alive:
            self.most_alive = self.alive
        return Block(address, held)

    def fill(self, size: int, count: int) -> None:
        """`count` blocks of one size that stay: what as many calls of `new` leave behind, without their blocks."""
        wanted = -(-size // ROUNDING) * ROUNDING or ROUNDING
        pool = self._small if wanted <= SMALL else self._large
        spare = SMALL if wanted > SMALL else 0
        while count:
            held, address = self._taken(pool, wanted)
            times = min(count, held // wanted)
            rest = held - times * wanted
            if rest > spare:
                self._keep(pool, address + times * wanted, rest)
                held -= rest
            count -= times
            self.alive += held
        self.most_alive = max(self.most_alive, self.alive)

    def release(self, *blocks: Block) -> None:
        """Free blocks, each merged with its free neighbours."""
        starts, ends = self._by_start, self._by_end
        for block in blocks:
            address, size = block.address, block.size
            self.alive -= size
            pool = self._small if size <= SMALL else self._large
            after = starts.pop(address + size, None)
            if after is not None:
                del pool[bisect_left(pool, (after, address + size))]
                size += after
            before = ends.pop(address, None)
            if before is not None:
                address -= before
                del pool[bisect_left(pool, (before, address))]
                size += before
            insort(pool, (size, address))
            starts[address] = ends[address + size] = size

    def empty_cache(self) -> None:
        """Give segments that are free as a whole back to the driver."""
        for pool in (self._small, self._large):
            for size, address in [one for one in pool if self._segments.get(one[1]) == one[0]]:
                pool.remove((size, address))
                del self._by_start[address], self._by_end[address + size], self._segments[address]
                self.reserved -= size
                if pool is self._small:
                    self.in_small -= size

    def _taken(self, pool: list[tuple[int, int]], wanted: int) -> tuple[int, int]:
        """(size, address) of the smallest free block of a pool that holds so many bytes, else of a new segment."""
        place = bisect_left(pool, (wanted,))
        if place == len(pool):
            return self._segment(wanted), self._address
        held, address = pool.pop(place)
        del self._by_start[address], self._by_end[address + held]
        return held, address

    def _segment(self, wanted: int) -> int:
        """Bytes of a new segment, whose address is `_address`."""
        size = 2 * MiB if wanted <= SMALL else 20 * MiB if wanted < MIDDLE else -(-wanted // (2 * MiB)) * 2 * MiB
        if self.most is not None and self.reserved + size > self.most:
            self.empty_cache()
            self.emptied = True
            if self.reserved + size > self.most:
                raise OutOfMemoryError(wanted, self.reserved + size - self.most, self.alive, self.reserved)
        self.reserved += size
        if wanted <= SMALL:
            self.in_small += size
        if self.reserved > self.peak:
            self.peak = self.reserved
        self._segments[self._place(size)] = size
        return size

    def _place(self, size: int) -> int:
        """The address of a new segment: below all others, and touching none."""
        self._address -= size + ROUNDING
        return self._address

    def _keep(self, pool: list[tuple[int, int]], address: int, size: int) -> None:
        """Enter a free block."""
        insort(pool, (size, address))
        self._by_start[address] = self._by_end[address + size] = size
