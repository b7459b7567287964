"""Whether limits hold: the predicate of the search, and the stretches on which one last value can be searched.

TGI of this release passes its warm-up with these limits and a stated margin, its KV cache then holds
`workload.concurrency` requests of `max_total_tokens`, and, unless `workload.allow_risk` asks for more, the server
is not at risk under load (`estimate/underload.py`), nor may its CUDA graphs end the start (`estimate/capture.py`).

The first two are monotone in `max_total_tokens` as long as the warm-up batch keeps its number of requests, but where
tensors of its KV cache fill the segments they share, and more of them no longer do (`Searcher._filled`). What is
spare under load is not: a longer prefill leaves more unreserved where TGI makes logits of all its tokens, and less
where it does not. On one such stretch it is convex up to the length from which the warm-up's own blocks are the
whole KV cache, and falls beyond it, so that each of the two pieces has one last length that is not at risk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import islice

from tgi_advisor.estimate import capture, defaults, uncertainty, underload, warmup
from tgi_advisor.estimate.peak import Roughly
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.limits import Limits
from tgi_advisor.search.lengths import Lengths
from tgi_advisor.search.turning import last_that_holds
from tgi_advisor.units import MiB
from tgi_advisor.verdict import blocks_for, concurrency, is_refused

TOO_RISKY = "what its traffic may need: longer requests would start, but be at risk under load"
"""What stops limits that fit."""
GRAPHS_FIRST = "what CUDA graphs need: longer requests would start, but their capture may end the start"
"""What stops limits that fit and are not at risk under load."""
NO_WEIGHTS = "memory: the weights do not fit"
NO_WARMUP = "memory: the peak of the warm-up prefill"
NO_CACHE = "memory: the KV cache left after the warm-up"
WARMED_UP = frozenset({NO_WARMUP, NO_CACHE})
"""What stops limits whose warm-up takes too much."""
MOST_TOO_LARGE = 64
"""Stretches whose warm-up takes too much after which no shorter prompts are tried: more of them take no less, and what
grows with the square of a prompt is long gone."""
MOST_RISKY = 8
"""Stretches that fit and are at risk after which no shorter prompts are tried."""
FOUND_IN_GAPS = 512 * MiB
"""Bytes that some lengths may find in gaps of the allocator and others not; twice what has been seen."""
LOOKED_AT = 64
"""Lengths that are looked at for one that is not at risk, where the search finds none."""
PUT_RIGHT = 2
"""Times rough estimates are put right before exact ones take over."""
INTERPOLATED = 6
"""Values that are looked at to see about where a predicate turns."""
FURTHER = (96, 64, 48, 32, 24, 16, 12)
"""Parts of a value by which is looked beyond the last that holds."""
ASIDE = 256
"""Tokens between two values that tell how steeply room falls."""


def margin(here: Base) -> tuple[int, str]:
    """The memory left unplanned on each GPU, and why that much."""
    asked = here.setting.spec.hardware.headroom
    if asked is not None:
        return asked, "hardware.headroom of the spec"
    band = uncertainty.spread(here.setting)
    return band.bytes, band.why


def capacity(here: Base, seen: Warmup) -> int:
    """Tokens the KV cache holds, or where none is reserved, those that fit what is free for it."""
    if seen.budget is not None:
        return seen.budget
    room = seen.slack + seen.warm_blocks * here.geometry.kv_bytes_per_token * here.setting.block_size
    return max(0, room) // max(1, here.geometry.kv_bytes_per_token)


class Searcher(Lengths):
    """The predicate over one launch, counting its evaluations."""

    def __init__(self, here: Base, *, allow_risk: bool | None = None) -> None:
        super().__init__(here.setting)
        self.here = here
        self.margin, self.margin_why = margin(here)
        self.spread = uncertainty.spread(here.setting).bytes
        workload = here.setting.spec.workload
        self.wanted = workload.concurrency
        self.allow_risk = workload.allow_risk if allow_risk is None else allow_risk
        self.evaluations = 0
        self._seen: dict[tuple[int, int, int], Warmup] = {}
        self._calm: dict[tuple[int, int], int] = {}
        self._reasons: dict[tuple[int, int], tuple[str | None, int]] = {}
        self._longest: dict[int, int] = {}
        self._rough: Searcher | None = None
        self._tries_again = False

    def last(self, low: int, high: int, holds: Holds, room: Room, *, gaps: bool = True) -> int:
        """The last value in [low, high] that holds, for a predicate that holds at `low` and is monotone.

        `room` says about how far it is from turning. Where an estimate is work, rough ones say where to begin. With
        `gaps` it is monotone but for what some lengths find in gaps of the allocator, and a little further is looked.
        """

        def held(value: int) -> bool:
            return holds(self, value)

        rough = self.here.prefills.rough
        first = self if rough is None else self._roughly(rough)
        if low == high or (holds(first, high) and (first is self or held(high))):
            return high
        near = _about(first, low, high, room)
        if rough is not None:
            near = first._put_right(rough, near, low, high, holds, room)
            near = _further(first, near, room(self, near), low, high, room)
        found: int | None = near
        while found is not None:
            near = last_that_holds(low, high, held, found)
            beyond = (near + near // part for part in FURTHER if gaps)
            found = next((value for value in beyond if near < value <= high and held(value)), None)
        return near

    def _put_right(self, rough: Roughly, near: int, low: int, high: int, holds: Holds, room: Room) -> int:
        """About the last value that holds, by these estimates put right where they say so."""
        for _ in range(0 if rough.near_enough else PUT_RIGHT):
            self._forget()
            holds(self, near)
            if not rough.put_right():
                break
            self._forget()
            before, near = near, _further(self, near, room(self, near), low, high, room)
            if near == before:
                break
        return near

    @property
    def at_first(self) -> Searcher:
        """What says about as much and may be less work: the same search by rough estimates, where there are any."""
        rough = self.here.prefills.rough
        return self if rough is None else self._roughly(rough)

    def _roughly(self, rough: Roughly) -> Searcher:
        """The same search by these estimates; what it found out by such that are never put right, it still knows."""
        if self._rough is None or not rough.near_enough:
            self._rough = copy(self)
            self._rough.here = self.here._replace(prefills=rough)
            self._rough._forget()
        self._rough.allow_risk, self._rough.span = self.allow_risk, self.span
        self._rough.least, self._rough.efficient = self.least, self.efficient
        return self._rough

    def tried_again(self) -> Searcher:
        """The predicate where PyTorch gives its cached blocks back and tries once more: monotone in nothing."""
        again = copy(self)
        again._tries_again = True
        again._forget()
        return again

    def _forget(self) -> None:
        """Know no estimate from before: others take their place."""
        self._seen, self._calm, self._reasons = {}, {}, {}

    def warm(self, total: int, prefill: int) -> Warmup:
        """Replay one warm-up with the margin held back."""
        self.evaluations += 1
        return self._run(total, prefill, self.margin)

    def _run(self, total: int, prefill: int, margin: int = 0) -> Warmup:
        """The warm-up with so many bytes held back; a search comes back to the same limits, which are replayed once."""
        seen = self._seen.get((total, prefill, margin))
        if seen is None:
            held = self._seen.get((total, prefill, self.margin))
            if held is None or held.stage == "load" or self._tries_again:
                seen = warmup.run(self.here, self.limits_of(total, prefill), margin, retry=self._tries_again)
            else:
                seen = warmup.with_margin(self.here, held, margin)
            self._seen[total, prefill, margin] = seen
        return seen

    def room(self, total: int, prefill: int | None = None) -> int:
        """About the bytes these limits leave beyond what they need, negative where they are missing; no rule counts.

        Where it is zero, about there `fits` turns.
        """
        self.evaluations += 1
        budget = self.budget(total, prefill)
        seen, g = self._run(total, budget, self.margin), self.here.geometry
        if seen.stage is not None:
            return seen.slack
        if seen.budget is None:
            return (capacity(self.here, seen) - self.wanted * total) * g.kv_bytes_per_token
        size = self.setting.block_size
        needed = blocks_for(self.setting, Limits(self.input_for(total), total), self.wanted)
        return seen.cache - max(needed, -(-max(total, budget) // size)) * g.kv_bytes_per_token * size

    def spare(self, total: int, prefill: int | None = None, grade: int = 1) -> int:
        """Bytes these limits leave under load beyond what `grade` of `calm` needs, negative where they are missing."""
        self.evaluations += 1
        seen = self._run(total, self.budget(total, prefill))
        spare = underload.spare(self.here, seen)
        return seen.slack if spare is None else spare - (self.spread if grade > 1 else 0)

    def room_and_spare(self, total: int, prefill: int | None = None, grade: int = 1) -> int:
        """The smaller of both; the first alone where risk is allowed."""
        room = self.room(total, prefill)
        return room if self.allow_risk or room < 0 else min(room, self.spare(total, prefill, grade))

    def why_not(self, total: int, prefill: int) -> str | None:
        """What stops these limits, or None when they hold."""
        return self._does_not_fit(total, prefill) or self._too_risky(total, prefill)

    def holds(self, total: int, prefill: int | None = None) -> bool:
        """The predicate; without a prefill budget with the smallest one worth having."""
        return self.why_not(total, self.budget(total, prefill)) is None

    def for_two(self, total: int) -> int:
        """The smallest prefill budget that two prompts are warmed up with."""
        return max(self.smallest_prefill(total), self.input_for(total)) + 1

    @property
    def alone(self) -> bool:
        """Whether nobody else is given any of the GPU: else what lies beyond TGI's reserve is another server's."""
        hardware = self.setting.spec.hardware
        return not hardware.in_use and self.setting.memory_fraction == 1

    def two_hold(self, total: int) -> bool:
        """Whether a total holds with the prefill budget of a warm-up of two requests."""
        if self.limits.max_batch_prefill_tokens.fixed is not None:
            return False
        prefill = self.for_two(total)
        return not self.far_off(total, prefill) and self.holds(total, prefill)

    def fits(self, total: int, prefill: int | None = None) -> bool:
        """The part of the predicate that is monotone: whether it starts, with the margin, and holds what is asked."""
        return self._does_not_fit(total, self.budget(total, prefill)) is None

    def _does_not_fit(self, total: int, prefill: int) -> str | None:
        """What stops these limits from fitting; a search asks of the same ones again, which counts as before."""
        known = self._reasons.get((total, prefill))
        if known is None:
            before = self.evaluations
            reason = self._misfit(total, prefill)
            self._reasons[total, prefill] = reason, self.evaluations - before
            return reason
        self.evaluations += known[1]
        return known[0]

    def _misfit(self, total: int, prefill: int) -> str | None:
        """The same, found out."""
        longest = self.input_for(total)
        if longest < 1 or longest >= total:
            return "no room for a prompt beside max_new_tokens"
        ceiling = self.limits.max_batch_prefill_tokens.high
        if ceiling is not None and prefill > ceiling:
            return "limits.max_batch_prefill_tokens of the spec"
        if not self.setting.chunking and prefill < longest:
            return "max_batch_prefill_tokens must hold a whole prompt without chunked prefill"
        seen = self.warm(total, prefill)
        if seen.stage == "load":
            return NO_WEIGHTS
        if seen.stage == "warmup":
            return NO_WARMUP
        if seen.budget is None:
            return self._no_room_to_grow(seen, total)
        if seen.budget < max(total, prefill):
            return NO_CACHE
        if concurrency(self.setting, seen.blocks, Limits(longest, total)) < self.wanted:
            several = f"{self.wanted} requests" if self.wanted > 1 else "one request"
            return f"memory: a KV cache that holds {several} of max_total_tokens"
        return None

    def _no_room_to_grow(self, seen: Warmup, total: int) -> str | None:
        """Whether the padded batches of a family without a reserved KV cache outgrow the GPU."""
        if self.wanted * total > capacity(self.here, seen):
            return f"memory: the growing KV cache of {self.wanted} requests of max_total_tokens"
        return None

    def _too_risky(self, total: int, prefill: int) -> str | None:
        if self.allow_risk or self.calm(total, prefill) > 0:
            return None
        return TOO_RISKY

    def calm(self, total: int, prefill: int) -> int:
        """How well the server would stand its traffic: 2 safe (or not judged), 1 tight, 0 at risk.

        It is at risk as well where its CUDA graphs may end the start.
        """
        self.evaluations += 1
        found = self._calm.get((total, prefill))
        if found is None:
            found = self._calm[total, prefill] = self._grade(self._run(total, prefill))
        return found

    def _grade(self, seen: Warmup) -> int:
        """The same for a warm-up."""
        spare = underload.spare(self.here, seen)
        if spare is None or spare >= self.spread:  # then CUDA graphs have at least as much
            return 2
        return 0 if spare < 0 or capture.may_end(self.here, seen, self.spread) else 1

    def told(self, total: int, prefill: int) -> str | None:
        """What stops these limits, in words that tell graphs from traffic; None when they hold."""
        reason = self.why_not(total, prefill)
        if reason != TOO_RISKY:
            return reason
        spare = underload.spare(self.here, self._run(total, prefill))
        return GRAPHS_FIRST if spare is not None and spare >= 0 else reason

    def accepts(self, total: int) -> bool:
        """Whether the limits hold and TGI does not refuse them for another reason than memory."""
        limits = self.limits_of(total, self.smallest_prefill(total))
        return self.holds(total) and not is_refused(self.here, limits)

    def regions(self, low: int, high: int, prefill: int | None = None) -> Iterator[tuple[int, int]]:
        """Stretches of max_total_tokens in [low, high] of like warm-ups, longest prompts first.

        Each has one number of requests, a KV cache that TGI counts as free again throughout, or nowhere (it may not
        where prompts fill the prefill), and whose tensors share segments throughout, or nowhere: from the size on from
        which they do not, they find room in gaps that loading left, and less memory may do for more.
        """
        if self.here.prefills.sharing < 0 and self.setting.facts.release.warmup_blocks_back != "if_unfinished":
            yield from self.stretches(low, high, prefill)
            return
        for start, end in self.stretches(low, high, prefill):
            filled = start < end and self._kind(start, prefill)[0] != self._kind(start + 1, prefill)[0]
            least = start + filled
            apart = self._first_apart(least, end, prefill)
            if apart <= end:
                yield apart, end
            if least < apart:
                yield least, apart - 1
            if filled:
                yield start, start

    def _first_apart(self, low: int, high: int, prefill: int | None) -> int:
        """The first total in [low, high] whose KV cache's tensors do not share segments; high + 1 where all do."""

        def share(total: int) -> bool:
            return self._kind(total, prefill)[1]

        if not share(low):
            return low
        if share(high):
            return high + 1
        near = self.here.prefills.sharing * self.setting.block_size  # where that is the cache of one request
        return last_that_holds(low, high, share, max(low, min(near, high))) + 1

    def _kind(self, total: int, prefill: int | None) -> tuple[bool, bool]:
        """Whether the warm-up's KV cache is counted as free again, and whether its tensors share segments."""
        limits, tokens, blocks = self._batch(total, prefill)
        return warmup.gives_back(self.setting, limits, tokens), blocks <= self.here.prefills.sharing

    def _batch(self, total: int, prefill: int | None) -> tuple[Limits, int, int]:
        """(the limits as the launcher takes them, prompt tokens, KV blocks) of the warm-up."""
        limits = defaults.launcher_limits(self.setting, self.limits_of(total, self.budget(total, prefill)))
        _, tokens, blocks = warmup.warmup_batch(self.setting, limits)
        return limits, tokens, blocks

    def largest_total(self, low: int, prefill: int | None = None) -> int | None:
        """The last max_total_tokens from `low` on that holds with a prefill budget, or with the smallest.

        Where all of some stretches that fit is at risk, ever shorter prompts are not worth having.
        """

        def fits(searcher: Searcher, total: int) -> bool:
            return searcher.fits(total, prefill)

        def room(searcher: Searcher, total: int) -> int:
            return searcher.room(total, prefill)

        high = self._longest_worth_trying(low, prefill)
        if low <= high == self.span.high and self.at_first.holds(high, prefill) and self.holds(high, prefill):
            return high
        risky: list[tuple[int, int]] = []
        for start, end in islice(self._fitting(low, high, prefill), MOST_RISKY):
            last = self._filled(self.last(start, end, fits, room, gaps=False), end, prefill)
            total, missing = self._last_calm(start, last, prefill)
            if total is not None:
                return total
            if missing <= FOUND_IN_GAPS:
                risky.append((start, last))
        return self._calm_between(risky, prefill) if risky else None

    def _filled(self, last: int, end: int, prefill: int | None) -> int:
        """The last total up to `end` that fits, where `last` does and one more does not.

        Small tensors of a KV cache share segments of PyTorch's allocator, whose rest counts as used. A longer request
        whose tensors fill theirs may fit again.
        """

        def warm_blocks(total: int) -> int:
            return self._batch(total, prefill)[2]

        for blocks in self.here.prefills.full if last < end else ():
            if warm_blocks(last + 1) > blocks:
                break
            total = last_that_holds(last + 1, end, lambda total: warm_blocks(total) <= blocks)  # noqa: B023
            if not self.far_off(total, prefill) and self.fits(total, prefill):
                return last_that_holds(total, end, lambda total: self.fits(total, prefill), total)
        return last

    def far_off(self, total: int, prefill: int | None = None) -> bool:
        """Whether more is missing for limits to fit than any length finds in gaps."""
        return self.at_first.room(total, prefill) < -FOUND_IN_GAPS

    def _calm_between(self, risky: Sequence[tuple[int, int]], prefill: int | None) -> int | None:
        """A total that is not at risk in stretches whose ends and turning points are; None where none is found.

        What is spare is convex but for gaps of the allocator that some lengths find and others do not: where it is
        about nothing everywhere, a few lengths in between are looked at, the longest first.
        """

        def calm(total: int) -> bool:
            return self.holds(total, prefill)

        step = sum(last - start for start, last in risky) // LOOKED_AT | 1  # odd, as blocks are not
        points = (total for start, last in risky for total in range(last - step, start - 1, -step))
        for total in islice((total for total in points if self.at_first._is_calm(total, prefill)), MOST_RISKY):
            if calm(total):
                return last_that_holds(total, total + step, calm)
        return None

    def _fitting(self, low: int, high: int, prefill: int | None) -> Iterator[tuple[int, int]]:
        """The stretches of max_total_tokens in [low, high] whose shortest fits, as long as shorter prompts may help."""
        too_large = 0
        for start, end in self.regions(low, high, prefill):
            reason = self._does_not_fit(start, self.budget(start, prefill))
            if reason is None:
                yield start, end
            too_large += reason in WARMED_UP
            if reason == NO_WEIGHTS or too_large == MOST_TOO_LARGE:
                return

    def _longest_worth_trying(self, low: int, prefill: int | None) -> int:
        """The last max_total_tokens from `low` on that an empty GPU's KV cache holds; less than `low` where none is.

        What is asked of it is `workload.concurrency` requests of that length, and the prefill budget where it is given.
        """
        here, setting, high = self.here, self.setting, self.span.high
        on_gpu = setting.facts.gpu.system in ("cuda", "rocm")  # elsewhere TGI may take more than is free
        if high < low or not on_gpu or not setting.family.paged or max(setting.wiggle, setting.memory_fraction) > 1:
            return high
        size = setting.block_size
        most = (here.total - here.loaded + here.gaps) // max(1, here.geometry.kv_bytes_per_token * size) + 1
        if (prefill or self.limits.max_batch_prefill_tokens.fixed or 0) > most * size:
            return low - 1

        def may_hold(total: int) -> bool:
            return blocks_for(setting, self.limits_of(total, 0), self.wanted) <= most and total <= most * size

        if not may_hold(low):
            return low - 1
        if high not in self._longest:
            self._longest[high] = last_that_holds(low, high, may_hold)
        return max(low, self._longest[high])

    def _last_calm(self, low: int, high: int, prefill: int | None) -> tuple[int | None, int]:
        """(the last total of a stretch that fits which is not at risk either, 0).

        Where all of it is, (None, the bytes that are missing for the best of its ends and its turning point).
        """

        def calm(searcher: Searcher, total: int) -> bool:
            return searcher._is_calm(total, prefill)

        def spare(searcher: Searcher, total: int) -> int:
            return searcher.spare(total, prefill)

        if calm(self, high):
            return high, 0
        turn = self.last(
            low, high, lambda one, total: one._has_room(total, prefill), lambda one, total: one._beyond(total, prefill)
        )
        if calm(self, turn):
            return self.last(turn, high, calm, spare), 0
        if calm(self, low):
            return self.last(low, turn, calm, spare), 0
        return None, min(self._missing(total, prefill) for total in (low, turn, high))

    def _is_calm(self, total: int, prefill: int | None) -> bool:
        """Whether limits that fit are not at risk; without a prefill budget with the smallest one worth having."""
        return self._too_risky(total, self.budget(total, prefill)) is None

    def _missing(self, total: int, prefill: int | None) -> int:
        """Bytes missing for limits to be not at risk under load."""
        budget = self.budget(total, prefill)
        return max(0, -(underload.spare(self.here, self._run(total, budget)) or 0))

    def _has_room(self, total: int, prefill: int | None) -> bool:
        """Whether TGI finds more room for its KV cache than the warm-up's own blocks."""
        return self._beyond(total, prefill) > 0

    def _beyond(self, total: int, prefill: int | None) -> int:
        """Blocks TGI finds room for beyond the warm-up's own."""
        self.evaluations += 1
        seen = self._run(total, self.budget(total, prefill))
        return seen.blocks - seen.warm_blocks


Holds = Callable[[Searcher, int], bool]
"""A predicate of a value that holds up to some value."""
Room = Callable[[Searcher, int], int]
"""What falls with a value, to zero about where such a predicate turns."""


def _about(searcher: Searcher, low: int, high: int, room: Room) -> int:
    """About the value in [low, high] from which there is no room, by interpolation; `low` where there never is any."""
    below, above = room(searcher, low), room(searcher, high)
    if below < 0 or above >= 0:
        return low if below < 0 else high
    side = 0
    for _ in range(INTERPOLATED):
        if high - low < 2:
            break
        middle = max(low + 1, min(low + (high - low) * below // (below - above), high - 1))
        there = room(searcher, middle)
        if there >= 0:
            low, below, above, side = middle, there, above // 2 if side > 0 else above, 1
        else:
            high, above, below, side = middle, there, below // 2 if side < 0 else below, -1
    return low


def _further(searcher: Searcher, value: int, spare: int, low: int, high: int, room: Room) -> int:
    """The value in [low, high] to which so many bytes to spare at `value` carry, as steeply as room falls there."""
    other = value + ASIDE if value + ASIDE <= high else max(low, value - ASIDE)
    fall = room(searcher, min(value, other)) - room(searcher, max(value, other))
    if fall <= 0:
        return value
    return max(low, min(value + spare * abs(other - value) // fall, high))
