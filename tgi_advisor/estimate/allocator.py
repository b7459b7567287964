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

from bisect import bisect_left, insort
from functools import lru_cache
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
            like = _with_gaps(state.small, state.large)
            self._small, self._large, self._address = like._small.copy(), like._large.copy(), like._address
            self._by_start, self._by_end = like._by_start.copy(), like._by_end.copy()

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
        place = bisect_left(pool, (wanted,))
        if place == len(pool):
            held, address = self._segment(wanted), self._address
        else:
            held, address = pool.pop(place)
            del self._by_start[address], self._by_end[address + held]
        rest = held - wanted
        if rest and (rest > SMALL or wanted <= SMALL):
            insort(pool, (rest, address + wanted))
            self._by_start[address + wanted] = self._by_end[address + held] = rest
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
            is_new = not pool or pool[-1][0] < wanted
            if is_new:
                held, address = self._segment(wanted), self._address
            else:
                held, address = pool.pop(bisect_left(pool, (wanted,)))
                del self._by_start[address], self._by_end[address + held]
            times = min(count, held // wanted)
            rest = held - times * wanted
            if rest > spare:
                self._keep(pool, address + times * wanted, rest)
                held -= rest
            count -= times
            self.alive += held
            if is_new and rest <= spare and self.most is None:  # further segments are filled as this one was
                same = count // times
                self._grow(wanted, same)
                self.alive += same * held
                count -= same * times
        self.most_alive = max(self.most_alive, self.alive)

    def release(self, *blocks: Block) -> None:
        """Free blocks, each merged with its free neighbours."""
        starts, ends = self._by_start, self._by_end
        for block in blocks:
            address, size = block.address, block.size
            self.alive -= size
            pool = self._small if size <= SMALL else self._large
            behind = address + size
            if behind in starts:
                after = starts.pop(behind)
                del pool[bisect_left(pool, (after, behind))]
                size += after
            if address in ends:
                before = ends.pop(address)
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

    def _segment(self, wanted: int) -> int:
        """Bytes of a new segment, whose address is `_address`."""
        size = _segment_size(wanted)
        if self.most is not None and self.reserved + size > self.most:
            self.empty_cache()
            self.emptied = True
            if self.reserved + size > self.most:
                raise OutOfMemoryError(wanted, self.reserved + size - self.most, self.alive, self.reserved)
        self._grow(wanted, 1)
        self._segments[self._place(size)] = size
        return size

    def _grow(self, wanted: int, count: int) -> None:
        """Reserve so many segments for requests of a size."""
        size = count * _segment_size(wanted)
        self.reserved += size
        if wanted <= SMALL:
            self.in_small += size
        if self.reserved > self.peak:
            self.peak = self.reserved

    def _place(self, size: int) -> int:
        """The address of a new segment: below all others, and touching none."""
        self._address -= size + ROUNDING
        return self._address

    def _keep(self, pool: list[tuple[int, int]], address: int, size: int) -> None:
        """Enter a free block."""
        insort(pool, (size, address))
        self._by_start[address] = self._by_end[address + size] = size


def _segment_size(wanted: int) -> int:
    """Bytes of the segment that is taken for a request."""
    return 2 * MiB if wanted <= SMALL else 20 * MiB if wanted < MIDDLE else -(-wanted // (2 * MiB)) * 2 * MiB


@lru_cache(maxsize=32)
def _with_gaps(small: tuple[int, ...], large: tuple[int, ...]) -> Allocator:
    """An allocator with free blocks of these sizes, to be copied: a search begins from the same ones many times."""
    memory = Allocator()
    for pool, sizes in ((memory._small, small), (memory._large, large)):
        for size in sizes:
            memory._keep(pool, memory._place(size), size)
    return memory
