"""The warm-ups of one launch, replayed where a search asks: never less memory for more tokens.

What PyTorch's allocator ends up with is no monotone function of the tokens: a tensor that just no longer fits a gap
takes a segment of its own, and a somewhat longer prefill may find better luck (up to 0.28 GiB have been seen). A
search, and anybody who reasons about limits, needs one that is. So a prefill is replayed at certain lengths only,
eight to the doubling, the powers of two among them; each counts for no less than the few before it, and between two
of them the straight line holds. The KV cache of the warm-up is replayed to the byte as long as its tensors are not
made larger than the segments they take.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from tgi_advisor.estimate import geometry
from tgi_advisor.estimate.allocator import MIDDLE, ROUNDING, SMALL, OutOfMemoryError, State
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.peak import Batch, Peak, Seen
from tgi_advisor.estimate.replay import remembered, shapes
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.estimate.replay.loading import loaded
from tgi_advisor.estimate.replay.remembered import Asked, Held, Known
from tgi_advisor.estimate.replay.tapes import Tape
from tgi_advisor.estimate.replay.warmup import Prefill, cache_tensor, prefill, prepared, with_cache
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.units import MiB

if TYPE_CHECKING:
    from tgi_advisor.estimate.replay.vision import Images

STEPS = 8
"""Lengths replayed for every doubling of the tokens."""
FEW = 2 * STEPS
"""Lengths from one that a sketch replays to the next; where masks of every token against every other make its line a
parabola, half as many."""
BEFORE = 2
"""Shorter lengths a length may not need less than."""
SMALL_TENSORS = 8 * MiB
"""Bytes a prefill is said to need for small tensors at least: fewer tokens make more tensors small."""
REST = 2 * MiB
"""Bytes of free blocks that no tensor of a prefill of any length worth having fits."""
SEGMENT = 20 * MiB
"""Bytes of a segment that tensors of up to `MIDDLE` share."""
GAP = 64 * MiB
"""Bytes of a free block that decide whether a prefill finds much less room once the gaps are filled."""
MASK = 11
"""Bytes Gemma 3's masks hold for every pair of tokens of a prompt (`vision.masks`)."""
SCORED = 9
"""Bytes the scores of every pair and head take beside them at their widest (`layers._scored`)."""
LONGEST = 1 << 20
"""Tokens of the longest prefill that is replayed."""
MOST_LOGITS = 1 << 35
"""Logits of the requests of the largest batch that is."""
LARGEST_CACHE = 1 << 43
"""Bytes of the largest KV cache that is; together these stay within an `Allocator`'s addresses."""
KEPT = 64
"""Launches whose replays are kept for the next question: a comparison of one model has as many kinds of them."""
SHORTEST, FIRST = 64, 32
"""Tokens of the shortest prefill that is replayed; shorter ones count as much."""


class Peaks:
    """Warm-ups of one launch, each replayed once."""

    def __init__(self, setting: Setting, g: Geometry, known: Known | None = None) -> None:
        """`straight`: whether what a prefill takes grows no faster than its tokens; `known`: replays from before."""
        self.setting = setting
        self.g = g
        self.loaded = known.loaded if known else loaded(setting)
        self.shapes = shapes.of(setting, g)
        self._ready = prepared(setting, g, self.loaded)
        self._known = known
        self._held: dict[int, Held] = {}
        self._states = {0: State(0, 0, self._ready.small, ())}  # the first one's gaps are filled
        self._numbers = known.numbers if known else 1
        self.sharing = self._most_sharing() if max(self._ready.large, default=0) > SMALL else -1
        self.full = _full(setting, g)
        self._gappy = max(self._ready.large, default=0) >= GAP
        self._gaps = sorted(self._ready.large)
        self._gaps_from = [*accumulate(reversed(self._gaps), initial=0)]
        self._tapes: dict[Hashable, Tape | None] = {}
        self._replayed: dict[Asked, Prefill] = {}
        self._highest: dict[Asked, Prefill] = {}
        self._lines: dict[tuple[int, int], tuple[Prefill, Prefill, int, int]] = {}
        self._peaks: dict[Batch, Peak] = {}
        self._sketches: dict[Batch, Peak] = {}
        scores = SCORED * g.heads if self.shapes.scored else 0
        self._masked = MASK + scores if setting.family.model_type == "gemma3" else 0
        self.straight = not self._masked and setting.family.served_by != "transformers"
        self._few = FEW if self.straight else STEPS
        self._by_length = self.shapes.window is not None or setting.family.served_by == "vlm"

    def _most_sharing(self) -> int:
        """The most KV blocks whose tensors are so small that they share segments."""
        of_block = self.setting.block_size * self.g.kv_bytes_per_token
        return ((SMALL + 1) * 2 * self.g.layers - 1) // of_block if of_block else LARGEST_CACHE

    def in_gaps(self, blocks: int) -> int:
        """Bytes of a full KV cache of so many blocks that find room in gaps that loading left.

        Of each gap less than one tensor is left over; as if it were a whole one, so that it never is more for more.
        """
        size = cache_tensor(self.setting, self.g, blocks)
        larger = len(self._gaps) - bisect_left(self._gaps, size)
        return min(2 * self.g.layers * size, self._gaps_from[larger] - larger * size)

    def at(self, batch: Batch) -> Peak:
        """What the warm-up with a batch adds, in bytes; GPUs of other sizes, and other margins, ask the same again."""
        if batch not in self._peaks:
            self._peaks[batch] = self._added(batch)
        return self._peaks[batch]

    def _added(self, batch: Batch) -> Peak:
        times = self._beyond(batch)
        if times > 1:
            return _times(times, self.at(_part(batch, times)))
        size = cache_tensor(self.setting, self.g, batch.blocks)
        filled = self._line(batch, 0) if self._gappy else None
        seen = self._with(batch, _stepped(size), filled)
        if size > SMALL or not self._gappy:
            return seen
        larger = self._with(batch, SMALL + ROUNDING, filled)  # which find room in gaps that are closed to small tensors
        return min(seen, larger, key=lambda one: one.whole)

    def _beyond(self, batch: Batch) -> int:
        """How many times a batch is larger than what is replayed: no GPU holds such a one."""
        cache = 2 * self.g.layers * cache_tensor(self.setting, self.g, batch.blocks)
        of_logits = batch.requests * self.g.vocabulary
        return -min(-batch.tokens // LONGEST, -of_logits // MOST_LOGITS, -cache // LARGEST_CACHE)

    def _with(self, batch: Batch, size: int, filled: Prefill | None) -> Peak:
        """What it adds with a KV cache of tensors of a size."""
        cache, _ = self._with_cache(size)
        _, held = self._with_cache(_coarse(size))
        return self._peak(cache, self._between(batch, held), filled)

    def _between(self, batch: Batch, held: int) -> Prefill:
        index, part, whole = _between(max(batch.tokens, SHORTEST))
        longest = 0 if batch.requests < 2 else batch.longest
        added = self._high(index, batch.requests, longest, held)
        if not part:
            return added
        more = self._high(index + 1, batch.requests, longest, held)
        return _on_the_line(added, more, part, whole)

    def _peak(self, cache: int, added: Prefill, filled: Prefill | None) -> Peak:
        again = (filled or added).layers
        return Peak(cache, cache + added.layers, cache + added.whole, added.alive_layers, added.alive, again)

    @property
    def rough(self) -> Rough:
        """About the same, from few replays."""
        return Rough(self)

    def seen(self, requests: int, longest: int) -> Seen | None:
        """What the images in so many prompts of `longest` tokens take; None where there is nothing to look with."""
        return self._images.among(requests, longest) if self._images else None

    @cached_property
    def _images(self) -> Images | None:
        if self.setting.family.served_by != "vlm":
            return None
        from tgi_advisor.estimate.replay import vision  # most launches look at nothing

        return vision.images(self.setting, self.g, self._known.images if self._known else None)

    def squeezed(self, batch: Batch, room: int) -> Peak:
        """The same as `at` where PyTorch may add no more than `room` bytes and gives its cache back before it fails.

        Where it fails all the same, `whole` is the least room with which it would not, to 2 MiB.
        """
        if self._beyond(batch) > 1:
            return self.at(batch)
        seen = self._squeezed(batch, room)
        if seen is not None:
            return seen
        short, enough = room, self.at(batch)
        while enough.whole - short > 2 * MiB:
            middle = (enough.whole + short) // 2
            less = self._squeezed(batch, middle)
            short, enough = (middle, enough) if less is None else (short, less._replace(whole=middle))
        return enough

    def roughly(self, batch: Batch) -> Peak:
        """About what `at` says, from few lengths."""
        if batch not in self._sketches:
            self._sketches[batch] = self._sketched(batch)
        return self._sketches[batch]

    def _sketched(self, batch: Batch) -> Peak:
        times = self._beyond(batch)
        if times > 1:
            return _times(times, self.roughly(_part(batch, times)))
        size = cache_tensor(self.setting, self.g, batch.blocks)
        cache, _ = self._with_cache(_stepped(size))
        _, held = self._with_cache(_stepped(1 << size.bit_length()))
        return self._peak(cache, self._line(batch, held), self._line(batch, 0) if self._gappy else None)

    def _line(self, batch: Batch, held: int) -> Prefill:
        index = _number(max(batch.tokens, SHORTEST))
        first = index - index % self._few
        line = self._lines.get((first, held))
        if line is None:
            last = first + self._few
            start, end = _length(first), _length(last)
            line = self._lines[first, held] = self._at(first, 1, 0, held), self._at(last, 1, 0, held), start, end
        low, high, start, end = line
        seen = _on_the_line(low, high, max(0, batch.tokens - start), end - start)
        if not self._masked:
            return seen
        more = self._masked * (batch.requests * batch.longest**2 - batch.tokens**2)
        return Prefill(*(max(0, one + more) for one in seen))

    def _squeezed(self, batch: Batch, room: int) -> Peak | None:
        most = self.loaded.reserved + room
        size = cache_tensor(self.setting, self.g, batch.blocks)
        try:
            held = with_cache(self._ready, size, 2 * self.g.layers, most)
            added = prefill(self.setting, self.shapes, held, batch, most)
        except OutOfMemoryError:
            return None
        return self._peak(held.reserved - self.loaded.reserved, added, None)

    def _with_cache(self, size: int) -> tuple[int, int]:
        """(bytes reserved for a KV cache of tensors of a size, number of the allocator it leaves in `_states`)."""
        if size not in self._held:
            self._held[size] = (self._known and self._known.held(size)) or self._made(size)
        return self._held[size]

    def _made(self, size: int) -> Held:
        reserved, state = self._with_tensors(size)
        number = next((number for number, one in self._states.items() if one == state), None)
        if number is None:
            number, self._numbers = self._numbers, self._numbers + 1
            self._states[number] = state
        return reserved, number

    def _with_tensors(self, size: int) -> tuple[int, State]:
        """(bytes reserved for a KV cache of tensors of a size, the allocator it leaves)."""
        held = with_cache(self._ready, size, 2 * self.g.layers)
        left = State(0, 0, held.small, tuple([one for one in held.large if one > REST]))
        return held.reserved - self.loaded.reserved, left

    def _state(self, held: int) -> State:
        """The allocator of a number; one that is only known by its number is made again."""
        if held not in self._states and self._known:
            _, self._states[held] = self._with_tensors(self._known.size(held))
        return self._states[held]

    def _high(self, index: int, requests: int, longest: int, held: int) -> Prefill:
        """A length that is replayed, and no less reserved than at the few before it."""
        key = (index, requests, longest, held)
        if key not in self._highest:
            seen = self._at(index, requests, longest, held)
            below = [self._at(lower, requests, longest, held) for lower in range(max(FIRST, index - BEFORE), index)]
            self._highest[key] = seen._replace(
                layers=max(one.layers for one in (seen, *below)), whole=max(one.whole for one in (seen, *below))
            )
        return self._highest[key]

    def _at(self, index: int, requests: int, longest: int, held: int) -> Prefill:
        """One length replayed; `longest` is 0 where requests are alike."""
        key = (index, requests, longest if self._by_length else 0, held)
        if key not in self._replayed:
            self._replayed[key] = (self._known and self._known.prefill(key)) or self._prefilled(key)
        return self._replayed[key]

    def _prefilled(self, asked: Asked) -> Prefill:
        index, requests, longest, held = asked
        tokens = _length(index)
        even = -(-tokens // max(1, requests))
        if longest:  # several requests: the last may be short, but not empty
            even = max(1, min(longest, (tokens - 1) // (requests - 1)))
        batch = Batch(requests, tokens, even, 0)
        seen = prefill(self.setting, self.shapes, self._state(held), batch, brisk=True, tapes=self._tapes)
        more = max(0, SMALL_TENSORS - seen.small)
        return seen._replace(layers=seen.layers + more, whole=seen.whole + more)

    def written(self) -> dict[str, object]:
        """What was replayed so far, to be known from the start another time."""
        seen = self._images and (self._images.widest, self._images.kept, self._images.warm)
        return remembered.written(self.loaded, self._held, self._replayed, self._numbers, seen)


@lru_cache(maxsize=KEPT)
def _peaks(launch: Alike) -> Peaks:
    return Peaks(launch.setting, geometry.of(launch.setting), remembered.of(launch))


def peaks_of(setting: Setting) -> Peaks:
    """The warm-ups of a launch, shared with those that differ in limits, fractions or the GPU's size alone."""
    return _peaks(Alike(setting))


class Rough:
    """The warm-ups of a launch from few replays: what is between these is taken to be on a line."""

    rough = None

    def __init__(self, peaks: Peaks) -> None:
        self._peaks = peaks
        self.near_enough = peaks.straight
        self.sharing = peaks.sharing
        self.full = peaks.full
        self._last: tuple[Batch, Peak] | None = None
        self._more: tuple[int, ...] = (0,) * len(Peak._fields)

    def in_gaps(self, blocks: int) -> int:
        """What the launch itself says."""
        return self._peaks.in_gaps(blocks)

    def at(self, batch: Batch) -> Peak:
        """About what the warm-up with a batch adds, in bytes."""
        if self.near_enough:
            return self._peaks.roughly(batch)
        if self._last is None or self._last[0] != batch:
            about = self._peaks.roughly(batch)
            self._last = batch, Peak(*[max(0, one + more) for one, more in zip(about, self._more, strict=True)])
        return self._last[1]

    def put_right(self) -> bool:
        """From here on the batch asked for last gets what the launch itself says, others as much more or less.

        Whether that was done.
        """
        if self._last is None:
            return False
        batch, _ = self._last
        about, exact = self._peaks.roughly(batch), self._peaks.at(batch)
        self._last, self._more = None, tuple([one - other for one, other in zip(exact, about, strict=True)])
        return True

    def seen(self, requests: int, longest: int) -> Seen | None:
        """What the launch itself says."""
        return self._peaks.seen(requests, longest)

    def squeezed(self, batch: Batch, room: int) -> Peak:
        """The same: no search asks."""
        return self._peaks.squeezed(batch, room)


def _part(batch: Batch, times: int) -> Batch:
    """A batch so many times smaller."""
    tokens = -(-batch.tokens // times)
    return Batch(-(-batch.requests // times), tokens, min(batch.longest, tokens), -(-batch.blocks // times))


def _times(times: int, one: Peak) -> Peak:
    return Peak(*(times * size for size in one))


def _on_the_line(low: Prefill, high: Prefill, part: int, whole: int) -> Prefill:
    """The prefill that is `part` of `whole` tokens beyond the lower of two."""
    a, b, c, d, e = low
    f, g, h, i, j = high
    return Prefill(
        a + (f - a) * part // whole, b + (g - b) * part // whole, c + (h - c) * part // whole,
        d + (i - d) * part // whole, e + (j - e) * part // whole,
    )  # fmt: skip


def _stepped(size: int) -> int:
    """The size a tensor of the cache is replayed at: a little larger, but not so that it takes more of a segment."""
    step = SMALL // 8
    larger = -(-size // step) * step
    return larger if larger <= SMALL or size >= MIDDLE else min(larger, _shared(SEGMENT // _rounded(size)))


def _full(setting: Setting, g: Geometry) -> tuple[int, ...]:
    """Numbers of KV blocks whose tensors fill the segments they share, the largest first."""
    of_block = setting.block_size * g.kv_bytes_per_token
    sizes = map(_shared, range(2, SEGMENT // SMALL))
    return tuple(dict.fromkeys(2 * g.layers * size // of_block for size in sizes)) if of_block else ()


def _shared(tensors: int) -> int:
    """The largest size of so many tensors that share a segment."""
    return SEGMENT // tensors // ROUNDING * ROUNDING


def _rounded(size: int) -> int:
    return -(-size // ROUNDING) * ROUNDING


def _coarse(size: int) -> int:
    """The size a tensor of the cache has for what it leaves of gaps: no more than a sixteenth larger."""
    if size <= 16 * MiB:
        return size
    step = 1 << size.bit_length() - 5
    return -(-size // step) * step


def _length(index: int) -> int:
    """The length of this number: 1, 2, ... 16, 18, 20, ... 32, 36, ..."""
    doublings, step = divmod(index - STEPS, STEPS)
    return index if index < STEPS else (STEPS + step) << doublings


def _number(tokens: int) -> int:
    """The number of the last length up to `tokens`."""
    doublings = max(0, tokens.bit_length() - STEPS.bit_length())
    return doublings * STEPS + (tokens >> doublings)


def _between(tokens: int) -> tuple[int, int, int]:
    """(number of the last length up to `tokens`, how far beyond it they are, how far the next length is)."""
    index = _number(tokens)
    start = _length(index)
    return index, tokens - start, _length(index + 1) - start
