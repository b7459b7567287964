"""PyTorch's CUDA caching allocator, as far as it decides what the driver sees.

TGI reads the driver's free memory without emptying PyTorch's cache, so what counts is not what is
alive but what the allocator has *reserved*: blocks are rounded, large requests get segments of
their own, a freed block is reused by the smallest request-fitting search, split when much is left
over, merged with its free neighbours, and never given back while any part of its segment lives.

https://github.com/pytorch/pytorch/blob/v2.4.0/c10/cuda/CUDACachingAllocator.cpp#L130-L150 (sizes)
https://github.com/pytorch/pytorch/blob/v2.4.0/c10/cuda/CUDACachingAllocator.cpp#L2170-L2230 (search, split)
"""

from __future__ import annotations

from bisect import bisect_left, insort

from tgi_advisor.units import MiB

ROUNDING = 512
SMALL = MiB
"""Requests up to this size share 2 MiB segments."""
MIDDLE = 10 * MiB
"""Requests up to this size share 20 MiB segments; larger ones get their own, rounded to 2 MiB."""


class Block:
    """A piece of a segment, alive or free."""

    __slots__ = ("after", "before", "free", "size", "small")

    def __init__(self, size: int, small: bool) -> None:
        self.size = size
        self.small = small
        self.free = False
        self.before: Block | None = None
        self.after: Block | None = None


class Allocator:
    """Segments and blocks of one GPU; `reserved` is what the driver counts as used."""

    def __init__(self) -> None:
        self.reserved = 0
        self.alive = 0
        self.most_alive = 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self._serial = 0

    def new(self, size: int) -> Block:
        """A block for a tensor of `size` bytes: the smallest free one that holds it, else a new segment."""
        wanted = max(ROUNDING, -(-size // ROUNDING) * ROUNDING)
        small = wanted <= SMALL
        pool = self._free[small]
        place = bisect_left(pool, wanted, key=lambda entry: entry[0])
        block = pool.pop(place)[2] if place < len(pool) else self._segment(wanted, small)
        rest = block.size - wanted
        if rest >= ROUNDING if small else rest > SMALL:
            piece = Block(rest, small)
            piece.before, piece.after = block, block.after
            if block.after is not None:
                block.after.before = piece
            block.after, block.size = piece, wanted
            self._keep(piece)
        block.free = False
        self.alive += block.size
        self.most_alive = max(self.most_alive, self.alive)
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
                block.size += before.size
                block.before = before.before
                if before.before is not None:
                    before.before.after = block
            self._keep(block)

    def empty_cache(self) -> None:
        """Give segments that are free as a whole back to the driver."""
        for pool in self._free.values():
            whole = [entry for entry in pool if entry[2].before is None and entry[2].after is None]
            for entry in whole:
                pool.remove(entry)
                self.reserved -= entry[0]

    def _segment(self, wanted: int, small: bool) -> Block:
        size = 2 * MiB if small else 20 * MiB if wanted < MIDDLE else -(-wanted // (2 * MiB)) * 2 * MiB
        self.reserved += size
        return Block(size, small)

    def _keep(self, block: Block) -> None:
        block.free = True
        self._serial += 1
        insort(self._free[block.small], (block.size, self._serial, block))

    def _drop(self, block: Block) -> None:
        pool = self._free[block.small]
        place = bisect_left(pool, block.size, key=lambda entry: entry[0])
        while pool[place][2] is not block:
            place += 1
        del pool[place]
