"""The limits that are worth trying for one launch, by what the spec leaves open; no memory is looked at."""

from collections.abc import Iterator
from typing import NamedTuple

from tgi_advisor.estimate.replay import pictures
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.limits import Limits
from tgi_advisor.search.turning import first_that_holds
from tgi_advisor.units import thousands

DEFAULT_NEW_TOKENS = 1024
"""workload.max_new_tokens when the spec leaves it out, unless that is more than half of the total."""
UNBOUNDED_CONTEXT = 1 << 20
"""Ceiling where nothing in config.json bounds the length (alibi, relative positions): memory alone does."""
USUAL_CHUNK = 2048
"""Prefill tokens of one chunk that serving engines take by default on GPUs of every size (docs/search.md)."""


class Range(NamedTuple):
    """Bounds of a search, both inclusive."""

    low: int
    """Smallest value that may be returned."""
    high: int
    """Largest value that may be returned."""
    high_by: str
    """What sets the upper bound."""


def new_tokens(setting: Setting) -> int:
    """Output room kept between max_input_tokens and max_total_tokens."""
    asked = setting.spec.workload.max_new_tokens
    return min(DEFAULT_NEW_TOKENS, max(1, _most_total(setting)[0] // 2)) if asked is None else asked


def _most_total(setting: Setting) -> tuple[int, str]:
    """The largest max_total_tokens worth trying, and what sets it: the spec, else the model's context."""
    high = setting.spec.limits.max_total_tokens.high
    if high is not None:
        return high, "limits.max_total_tokens of the spec"
    context = families.context_length(setting.facts.model) or UNBOUNDED_CONTEXT
    return context, f"the model's context of {thousands(context)} tokens"


def totals(setting: Setting) -> Range:
    """Bounds of max_total_tokens: the spec's, else the model's context; `low` leaves room for a prompt.

    A prompt is at least the warm-up's image, where that has to be whole. `low` is above `high` where no prompt has
    room beside the output.
    """
    bound, longest = setting.spec.limits.max_total_tokens, setting.spec.limits.max_input_tokens
    image = pictures.needed(setting)
    shortest = new_tokens(setting) + max(1, image) if longest.low is None else max(longest.low, image) + 1
    high, high_by = _most_total(setting)
    return Range(max(bound.low or 0, shortest), high, high_by)


def efficient_prefill(setting: Setting) -> int:
    """Prefill tokens beyond which a GPU computes rather than waits for memory, with room to spare.

    A 16-bit weight costs two bytes of bandwidth and two operations per token, so a prefill turns
    compute-bound at FLOPS / bandwidth tokens (the roofline's ridge). Four times that, rounded up to a
    power of two and at least 512, keeps the weights' traffic under a quarter of the time.
    """
    gpu = setting.facts.gpu
    if not gpu.fp16_tflops or not gpu.bandwidth:
        return 1024
    ridge = gpu.fp16_tflops * 1e12 / gpu.bandwidth
    tokens = 512
    while tokens < 4 * ridge:
        tokens *= 2
    return tokens


class Lengths:
    """The token limits of one launch that go together, within the bounds of its spec."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.limits = setting.spec.limits
        self.new_tokens = new_tokens(setting)
        self.span = totals(setting)
        self.in_blocks = setting.family.paged and setting.facts.release.version < (2, 0, 0)
        self._inputs: dict[int, int] = {}
        self.hold(1)

    def input_for(self, total: int) -> int:
        """max_input_tokens that goes with a total.

        Until 1.4.5 the queue rounds prompts up to whole blocks but not the prefill budget, so that a
        prompt as long as both never leaves it: whole blocks then.
        https://github.com/huggingface/text-generation-inference/blob/v1.4.5/router/src/queue.rs#L228-L260
        """
        found = self._inputs.get(total)
        if found is None:
            wanted = total - self.new_tokens
            if self.in_blocks and wanted > self.setting.block_size:
                wanted -= wanted % self.setting.block_size
            found = self._inputs[total] = self.limits.max_input_tokens.clamp(wanted)
        return found

    def smallest_prefill(self, total: int) -> int:
        """The smallest prefill budget worth having with a total: a whole prompt, or an efficient chunk of it."""
        longest, bound = self.input_for(total), self.limits.max_batch_prefill_tokens
        if bound.fixed is not None:
            return bound.fixed
        least = -(-longest // self.setting.block_size) * self.setting.block_size if self.in_blocks else longest
        if self.setting.chunking:
            least = min(longest, self.efficient, *(() if bound.high is None else (bound.high,)))
        return max(least, self.least)

    def budget(self, total: int, prefill: int | None) -> int:
        """The prefill budget that goes with a total: the one given, else the smallest worth having."""
        return self.smallest_prefill(total) if prefill is None else prefill

    def hold(self, images: int) -> None:
        """From here on prefills hold so many of the warm-up's images, as far as the spec lets them."""
        wanted = images * pictures.needed(self.setting)
        self.least = self.limits.max_batch_prefill_tokens.clamp(wanted)
        self.efficient = max(self.least, efficient_prefill(self.setting))

    def limits_of(self, total: int, prefill: int) -> Limits:
        """The three limits that go with a total and a prefill budget."""
        return Limits(self.input_for(total), total, prefill)

    def cheapest(self) -> Limits:
        """The limits that need least memory: a pinned prefill in the fewest requests."""
        smallest = max(2, next((low for low, _ in self.stretches(self.span.low, self.span.high)), self.span.high))
        longest = max(1, min(self.input_for(smallest), smallest - 1))
        return Limits(longest, smallest, self.smallest_prefill(smallest))

    def longest(self) -> Limits:
        """The longest limits the spec leaves open, with the smallest prefill budget worth having."""
        return self.limits_of(self.span.high, self.smallest_prefill(self.span.high))

    def stretches(self, low: int, high: int, prefill: int | None = None) -> Iterator[tuple[int, int]]:
        """Stretches of max_total_tokens in [low, high] with one number of warm-up requests, longest prompts first."""
        bound = self.limits.max_batch_prefill_tokens
        pinned = max(bound.fixed or 0, self.least) if prefill is None else prefill
        if self.in_blocks and not pinned and high >= low:
            # Prompts shorter than a block are warmed up as often as it holds them.
            whole = first_that_holds(low, high, lambda total: self.input_for(total) >= self.setting.block_size)
            yield whole, high
            yield from ((total, total) for total in range(whole - 1, low - 1, -1))
            return
        requests = 1
        while high >= low:
            if not pinned or self.input_for(high) < 1:
                yield low, high
                return
            requests = -(-pinned // max(1, min(self.input_for(high), pinned)))
            shortest = -(-pinned // requests)
            start = max(low, first_that_holds(low, high, lambda total: self.input_for(total) >= shortest))  # noqa: B023
            yield start, high
            high = start - 1
