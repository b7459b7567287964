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
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from tgi_advisor.units import MiB

ROUNDING = 512
"""Bytes of a unit: every request is rounded to whole ones, and everything inside is counted in them."""
SMALL = MiB
"""Requests up to this size share 2 MiB segments."""
MIDDLE = 10 * MiB
"""Requests up to this size share 20 MiB segments; larger ones get their own, rounded to 2 MiB."""
_UNIT = ROUNDING.bit_length() - 1
_SMALL = SMALL >> _UNIT
_SHIFT = 36
_MASK = (1 << _SHIFT) - 1
"""A free block is one number: its size above `_SHIFT`, its address below, so that numbers sort as PyTorch's blocks."""


class OutOfMemoryError(Exception):
    """The driver has too little left for a request, even with everything given back that can be.

    The arguments are bytes: wanted, missing for it, in use and reserved at that moment.
    """


class Block:
    """A piece of a segment that is in use; counted in units of `ROUNDING`."""

    __slots__ = ("address", "units")

    def __init__(self, address: int, units: int) -> None:
        self.address = address
        self.units = units

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.units << _UNIT


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
        self._reserved = self._peak = self._in_small = 0
        self._alive = self._most_alive = 0
        self.most = most
        self.emptied = False
        self._small: list[int] = []
        self._large: list[int] = []
        self._by_start: dict[int, int] = {}
        self._by_end: dict[int, int] = {}
        self._segments: dict[int, int] = {}
        self._address = 1 << _SHIFT - 1
        if state is not None:
            self._reserved = self._peak = state.reserved >> _UNIT
            self._alive = self._most_alive = state.alive >> _UNIT
            like = _with_gaps(state.small, state.large)
            self._small, self._large, self._address = like._small.copy(), like._large.copy(), like._address
            self._by_start, self._by_end = like._by_start.copy(), like._by_end.copy()

    @property
    def reserved(self) -> int:
        """Bytes taken from the driver."""
        return self._reserved << _UNIT

    @property
    def peak(self) -> int:
        """The most that ever was."""
        return self._peak << _UNIT

    @property
    def in_small(self) -> int:
        """What of `reserved` is in segments for small requests that were made here."""
        return self._in_small << _UNIT

    @property
    def alive(self) -> int:
        """Bytes in use, rounded as the allocator rounds."""
        return self._alive << _UNIT

    @property
    def most_alive(self) -> int:
        """The most that ever was in use."""
        return self._most_alive << _UNIT

    def state(self) -> State:
        """The free blocks as they lie: for later allocators that free nothing of what is alive now."""
        small, large = (
            tuple([(one >> _SHIFT) << _UNIT for one in sorted(pool, key=_from_above)])
            for pool in (self._small, self._large)
        )
        return State(self.reserved, self.alive, small, large)

    def places(self) -> tuple[int, ...]:
        """Size and address of every free block for large requests: what decides where the next ones go."""
        return tuple(self._large)

    def sizes(self, *, small: bool = False) -> tuple[int, ...]:
        """The sizes of the free blocks for large requests, or for small ones, in units."""
        return tuple([one >> _SHIFT for one in (self._small if small else self._large)])

    @property
    def room(self) -> int:
        """Bytes of the largest free block for large requests."""
        return (self._large[-1] >> _SHIFT) << _UNIT if self._large else 0

    def new(self, size: int) -> Block:
        """A block for a tensor of `size` bytes: the smallest free one that holds it, else a new segment."""
        wanted = -(-size >> _UNIT) or 1
        is_small = wanted <= _SMALL
        pool = self._small if is_small else self._large
        place = bisect_left(pool, wanted << _SHIFT)
        if place == len(pool):
            held, address = self._segment(wanted), self._address
            rest = held - wanted
            if rest and (is_small or rest > _SMALL):
                self._keep(pool, address + wanted, rest)
                held = wanted
        else:
            found = pool.pop(place)
            held, address = found >> _SHIFT, found & _MASK
            del self._by_start[address]
            rest = held - wanted
            if rest and (is_small or rest > _SMALL):
                self._keep(pool, address + wanted, rest)
                held = wanted
            else:
                del self._by_end[address + held]
        self._alive += held
        if self._alive > self._most_alive:
            self._most_alive = self._alive
        return Block(address, held)

    def fill(self, size: int, count: int) -> None:
        """`count` blocks of one size that stay: what as many calls of `new` leave behind, without their blocks."""
        wanted = -(-size >> _UNIT) or 1
        pool = self._small if wanted <= _SMALL else self._large
        spare = _SMALL if wanted > _SMALL else 0
        while count:
            is_new = not pool or pool[-1] >> _SHIFT < wanted
            if is_new:
                held, address = self._segment(wanted), self._address
            else:
                found = pool.pop(bisect_left(pool, wanted << _SHIFT))
                held, address = found >> _SHIFT, found & _MASK
                del self._by_start[address], self._by_end[address + held]
            times = min(count, held // wanted)
            rest = held - times * wanted
            if rest > spare:
                self._keep(pool, address + times * wanted, rest)
                held -= rest
            count -= times
            self._alive += held
            if is_new and rest <= spare and self.most is None:  # further segments are filled as this one was
                same = count // times
                self._grow(wanted, same)
                self._alive += same * held
                count -= same * times
        self._most_alive = max(self._most_alive, self._alive)

    def release(self, *blocks: Block) -> None:
        """Free blocks, each merged with its free neighbours."""
        starts, ends = self._by_start, self._by_end
        for block in blocks:
            address, size = block.address, block.units
            self._alive -= size
            pool = self._small if size <= _SMALL else self._large
            behind = address + size
            if behind in starts:
                after = starts.pop(behind)
                del pool[bisect_left(pool, after << _SHIFT | behind)]
                size += after
            if address in ends:
                before = ends.pop(address)
                address -= before
                del pool[bisect_left(pool, before << _SHIFT | address)]
                size += before
            insort(pool, size << _SHIFT | address)
            starts[address] = ends[address + size] = size

    def play(self, tape: Sequence[int], given: Sequence[Block] = ()) -> tuple[list[int], list[int]]:
        """What a tape says, one after the other: as `new` and `release`, without their calls.

        The blocks in it are numbered: first those `given`, then as they are made. A number above zero is the units of
        the next block, another the block to free, as `~number`. Returns the addresses and the units of all blocks.
        """
        small, large, starts, ends = self._small, self._large, self._by_start, self._by_end
        addresses, sizes = [one.address for one in given], [one.units for one in given]
        alive, most_alive = self._alive, self._most_alive
        for wanted in tape:
            if wanted > 0:
                is_small = wanted <= _SMALL
                pool = small if is_small else large
                place = bisect_left(pool, wanted << _SHIFT)
                if place == len(pool):
                    self._alive = alive
                    size, address = self._segment(wanted), self._address
                    rest = size - wanted
                    if rest and (is_small or rest > _SMALL):
                        ends[address + size] = rest
                        size = wanted
                        starts[address + wanted] = rest
                        insort(pool, rest << _SHIFT | address + wanted)
                else:
                    found = pool.pop(place)
                    size, address = found >> _SHIFT, found & _MASK
                    del starts[address]
                    rest = size - wanted
                    if rest and (is_small or rest > _SMALL):
                        ends[address + size] = rest
                        size = wanted
                        starts[address + wanted] = rest
                        insort(pool, rest << _SHIFT | address + wanted)
                    else:
                        del ends[address + size]
                alive += size
                if alive > most_alive:
                    most_alive = alive
                addresses.append(address)
                sizes.append(size)
            else:
                address, size = addresses[~wanted], sizes[~wanted]
                alive -= size
                pool = small if size <= _SMALL else large
                behind = address + size
                if behind in starts:
                    after = starts.pop(behind)
                    del pool[bisect_left(pool, after << _SHIFT | behind)]
                    size += after
                if address in ends:
                    before = ends.pop(address)
                    address -= before
                    del pool[bisect_left(pool, before << _SHIFT | address)]
                    size += before
                insort(pool, size << _SHIFT | address)
                starts[address] = ends[address + size] = size
        self._alive, self._most_alive = alive, most_alive
        return addresses, sizes

    def empty_cache(self) -> None:
        """Give segments that are free as a whole back to the driver."""
        for pool in (self._small, self._large):
            for one in [one for one in pool if self._segments.get(one & _MASK) == one >> _SHIFT]:
                size, address = one >> _SHIFT, one & _MASK
                pool.remove(one)
                del self._by_start[address], self._by_end[address + size], self._segments[address]
                self._reserved -= size
                if pool is self._small:
                    self._in_small -= size

    def _segment(self, wanted: int) -> int:
        """Units of a new segment, whose address is `_address`."""
        size = _segment_size(wanted)
        if self.most is not None and self._reserved + size << _UNIT > self.most:
            self.empty_cache()
            self.emptied = True
            missing = (self._reserved + size << _UNIT) - self.most
            if missing > 0:
                raise OutOfMemoryError(wanted << _UNIT, missing, self.alive, self.reserved)
        self._grow(wanted, 1)
        self._segments[self._place(size)] = size
        return size

    def _grow(self, wanted: int, count: int) -> None:
        """Reserve so many segments for requests of so many units."""
        size = count * _segment_size(wanted)
        self._reserved += size
        if wanted <= _SMALL:
            self._in_small += size
        if self._reserved > self._peak:
            self._peak = self._reserved

    def _place(self, size: int) -> int:
        """The address of a new segment: below all others, and touching none."""
        self._address -= size + 1
        return self._address

    def _keep(self, pool: list[int], address: int, size: int) -> None:
        """Enter a free block."""
        insort(pool, size << _SHIFT | address)
        self._by_start[address] = self._by_end[address + size] = size


_SMALL_SEGMENT, _MIDDLE_SEGMENT, _MIDDLE, _STEP = 2 * MiB >> _UNIT, 20 * MiB >> _UNIT, MIDDLE >> _UNIT, 2 * MiB >> _UNIT


def _segment_size(wanted: int) -> int:
    """Units of the segment that is taken for a request of so many."""
    if wanted <= _SMALL:
        return _SMALL_SEGMENT
    return _MIDDLE_SEGMENT if wanted < _MIDDLE else -(-wanted // _STEP) * _STEP


def segment(size: int) -> int:
    """Bytes an empty allocator reserves for a tensor of `size` bytes."""
    return _segment_size(-(-size >> _UNIT) or 1) << _UNIT


def _from_above(block: int) -> int:
    """Where a free block lies, counted from above."""
    return -(block & _MASK)


@lru_cache(maxsize=32)
def _with_gaps(small: tuple[int, ...], large: tuple[int, ...]) -> Allocator:
    """An allocator with free blocks of these sizes, to be copied: a search begins from the same ones many times."""
    memory = Allocator()
    for pool, sizes in ((memory._small, small), (memory._large, large)):
        for size in sizes:
            units = size >> _UNIT
            memory._keep(pool, memory._place(units), units)
    return memory
