"""PyTorch's allocator in the plainest words: every free block in one list, looked through from end to end.

What the package's own allocator does in less time has to come out the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from tgi_advisor.estimate.allocator import MIDDLE, ROUNDING, SMALL, OutOfMemoryError, State
from tgi_advisor.units import MiB


@dataclass(eq=False)
class Piece:
    """A piece of a segment, free or in use; segments never touch each other."""

    segment: int
    address: int
    size: int


class Plain:
    """What `tgi_advisor.estimate.allocator.Allocator` says of itself, in bytes."""

    def __init__(self, state: State | None = None, most: int | None = None) -> None:
        self.reserved = self.alive = self.peak = self.most_alive = self.in_small = 0
        self.most, self.emptied = most, False
        self._free: dict[bool, list[Piece]] = {True: [], False: []}
        self._lowest = 0
        self._whole: dict[int, int] = {}
        if state is not None:
            self.reserved = self.peak = state.reserved
            self.alive = self.most_alive = state.alive
            for small, sizes in ((True, state.small), (False, state.large)):
                for size in sizes:  # its segment is pinned by something alive: it is never free as a whole
                    start = self._another(size)
                    self._free[small].append(Piece(start, start, size))

    def _another(self, size: int) -> int:
        """The start of a segment: a later one lies below."""
        self._lowest -= size + ROUNDING
        return self._lowest

    def new(self, size: int) -> Piece:
        """A tensor of so many bytes."""
        wanted = max(1, -(-size // ROUNDING)) * ROUNDING
        small = wanted <= SMALL
        found = [one for one in self._free[small] if one.size >= wanted]
        if found:
            piece = min(found, key=lambda one: (one.size, one.address))
            self._free[small].remove(piece)
        else:
            piece = self._reserve(wanted)
        rest = piece.size - wanted
        if (small and rest >= ROUNDING) or rest > SMALL:
            self._free[small].append(Piece(piece.segment, piece.address + wanted, rest))
            piece = Piece(piece.segment, piece.address, wanted)
        self.alive += piece.size
        self.most_alive = max(self.most_alive, self.alive)
        return piece

    def _reserve(self, wanted: int) -> Piece:
        size = 2 * MiB if wanted <= SMALL else 20 * MiB if wanted < MIDDLE else -(-wanted // (2 * MiB)) * 2 * MiB
        if self.most is not None and self.reserved + size > self.most:
            self.empty_cache()
            self.emptied = True
            if self.reserved + size > self.most:
                raise OutOfMemoryError(wanted, self.reserved + size - self.most, self.alive, self.reserved)
        self.reserved += size
        self.in_small += size if wanted <= SMALL else 0
        self.peak = max(self.peak, self.reserved)
        start = self._another(size)
        self._whole[start] = size
        return Piece(start, start, size)

    def release(self, *pieces: Piece) -> None:
        """Drop tensors."""
        for piece in pieces:
            self.alive -= piece.size
            free = self._free[piece.size <= SMALL]
            start, end = piece.address, piece.address + piece.size
            for one in [one for one in free if one.segment == piece.segment]:
                if one.address + one.size == start or one.address == end:
                    free.remove(one)
                    start, end = min(start, one.address), max(end, one.address + one.size)
            free.append(Piece(piece.segment, start, end - start))

    def fill(self, size: int, count: int) -> None:
        """So many tensors that stay."""
        for _ in range(count):
            self.new(size)

    def empty_cache(self) -> None:
        """Give back what is free as a whole."""
        for small, free in self._free.items():
            for one in [one for one in free if one.size == self._whole.get(one.segment)]:
                free.remove(one)
                self.reserved -= one.size
                self.in_small -= one.size if small else 0

    def state(self) -> State:
        """The free blocks, those that were reserved first before the others."""
        small, large = (
            tuple(one.size for one in sorted(self._free[kind], key=lambda one: -one.address)) for kind in (True, False)
        )
        return State(self.reserved, self.alive, small, large)

    def places(self) -> tuple[tuple[int, int], ...]:
        """Where the free blocks for large requests lie."""
        return tuple(sorted((one.size, one.address) for one in self._free[False]))

    def sizes(self, *, small: bool = False) -> tuple[int, ...]:
        """Their sizes."""
        return tuple(sorted(one.size for one in self._free[small]))

    @property
    def room(self) -> int:
        """The largest of them."""
        return max((one.size for one in self._free[False]), default=0)
