"""Search the largest token limits that fit.

The predicate: TGI of this release passes its warm-up with these limits and a stated margin, and its
KV cache then holds `workload.concurrency` requests of `max_total_tokens`. It is monotone in
`max_total_tokens` as long as the warm-up batch keeps its number of requests, so:

1. `max_total_tokens` is bisected with the smallest efficient prefill budget;
2. the prefill budget is bisected upwards, as far as it costs neither context nor concurrency, leaves the
   server as safe under load, and the launcher itself would want it.

Where a prefill budget is pinned, shorter prompts mean more warm-up requests, and the predicate is
monotone only between two such steps; the search then walks the steps, longest prompts first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, uncertainty, underload, warmup
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.facts import families
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Prediction, Search
from tgi_advisor.spec.records import AUTO, GpuSpec, Spec
from tgi_advisor.units import thousands
from tgi_advisor.verdict import concurrency, predict, too_small

DEFAULT_NEW_TOKENS = 1024
"""workload.max_new_tokens when the spec leaves it out, unless that is more than half of the total."""


class Found(NamedTuple):
    """The result of one search."""

    limits: Limits | None
    """The limits to launch with; None when nothing fits."""
    search: Search
    """How they were found."""
    prediction: Prediction
    """The verdict on them; on failure, the verdict on the limits that need least memory."""


class Range(NamedTuple):
    """Bounds of a search, both inclusive."""

    low: int
    """Smallest value that may be returned."""
    high: int
    """Largest value that may be returned."""
    high_by: str
    """What sets the upper bound."""


def margin(here: Base) -> tuple[int, str]:
    """The memory left unplanned on each GPU, and why that much."""
    asked = here.setting.spec.hardware.headroom
    if asked is not None:
        return asked, "hardware.headroom of the spec"
    band = uncertainty.spread(here.setting, here.total)
    return band.bytes, band.why


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


UNBOUNDED_CONTEXT = 1 << 20
"""Ceiling where nothing in config.json bounds the length (alibi, relative positions): memory alone does."""


def totals(setting: Setting) -> Range:
    """Bounds of max_total_tokens: the spec's, else the model's context; `low` leaves room for a prompt.

    `low` is above `high` where the output alone fills everything.
    """
    bound, longest = setting.spec.limits.max_total_tokens, setting.spec.limits.max_input_tokens
    shortest = new_tokens(setting) + 1 if longest.low is None else longest.low + 1
    high, high_by = _most_total(setting)
    return Range(max(bound.low or 0, shortest), high, high_by)


class _Searcher:
    """The predicate over one launch, counting its evaluations."""

    def __init__(self, here: Base) -> None:
        self.here = here
        self.setting = here.setting
        self.margin, self.margin_why = margin(here)
        self.spread = uncertainty.spread(here.setting, here.total).bytes
        self.wanted = here.setting.spec.workload.concurrency
        self.evaluations = 0
        self.limits = here.setting.spec.limits
        self.new_tokens = new_tokens(here.setting)
        self.in_blocks = here.setting.family.paged and here.setting.facts.release.version < (2, 0, 0)

    def input_for(self, total: int) -> int:
        """max_input_tokens that goes with a total.

        Until 1.4.5 the queue rounds prompts up to whole blocks but not the prefill budget, so that a
        prompt as long as both never leaves it: whole blocks then.
        https://github.com/huggingface/text-generation-inference/blob/v1.4.5/router/src/queue.rs#L228-L260
        """
        wanted = total - self.new_tokens
        if self.in_blocks and wanted > self.setting.block_size:
            wanted -= wanted % self.setting.block_size
        return self.limits.max_input_tokens.clamp(wanted)

    def smallest_prefill(self, longest: int) -> int:
        """The smallest prefill budget worth having for prompts of `longest` tokens."""
        bound = self.limits.max_batch_prefill_tokens
        if bound.fixed is not None:
            return bound.fixed
        least = -(-longest // self.setting.block_size) * self.setting.block_size if self.in_blocks else longest
        if self.setting.chunking:
            least = min(longest, efficient_prefill(self.setting), *(() if bound.high is None else (bound.high,)))
        return max(least, bound.low or 0)

    def warm(self, total: int, prefill: int) -> Warmup:
        """Replay one warm-up with the margin held back."""
        self.evaluations += 1
        return warmup.run(self.here, Limits(self.input_for(total), total, prefill), self.margin)

    def why_not(self, total: int, prefill: int) -> str | None:
        """What stops these limits, or None when they hold."""
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
            return "memory: the weights do not fit"
        if seen.stage == "warmup":
            return "memory: the peak of the warm-up prefill"
        if seen.budget is None:
            return self._no_room_to_grow(seen, total)
        if seen.budget < max(total, prefill):
            return "memory: the KV cache left after the warm-up"
        if concurrency(self.setting, seen.blocks, Limits(longest, total)) < self.wanted:
            several = f"{self.wanted} requests" if self.wanted > 1 else "one request"
            return f"memory: a KV cache that holds {several} of max_total_tokens"
        return None

    def _no_room_to_grow(self, seen: Warmup, total: int) -> str | None:
        """Whether the padded batches of a family without a reserved KV cache outgrow the GPU."""
        if self.wanted * total > capacity(self.here, seen):
            return f"memory: the growing KV cache of {self.wanted} requests of max_total_tokens"
        return None

    def accepts(self, total: int) -> bool:
        """Whether the limits hold and TGI does not refuse them for another reason than memory."""
        limits = Limits(self.input_for(total), total, self.smallest_prefill(self.input_for(total)))
        return self.holds(total) and predict(self.here, limits).outcome != "refused"

    def holds(self, total: int, prefill: int | None = None) -> bool:
        """The predicate."""
        if prefill is None:
            prefill = self.smallest_prefill(self.input_for(total))
        return self.why_not(total, prefill) is None

    def regions(self, span: Range) -> Iterator[tuple[int, int]]:
        """Stretches of max_total_tokens on which the predicate is monotone, longest prompts first."""
        pinned = max(self.limits.max_batch_prefill_tokens.fixed or 0, self.limits.max_batch_prefill_tokens.low or 0)
        high = span.high
        requests = 1
        while high >= span.low:
            if not pinned or self.input_for(high) < 1:
                yield span.low, high
                return
            requests = -(-pinned // max(1, min(self.input_for(high), pinned)))
            shortest = -(-pinned // requests)
            low = max(span.low, _first(span.low, high, lambda total: self.input_for(total) >= shortest))  # noqa: B023
            yield low, high
            high = low - 1

    def largest_total(self) -> tuple[int | None, Range]:
        """The last max_total_tokens that holds with the smallest prefill, and the bounds searched."""
        span = totals(self.setting)
        for low, high in self.regions(span):
            if self.holds(low):
                return last_that_holds(low, high, self.holds), span
        return None, span

    def largest_accepted(self, total: int) -> tuple[int, str | None]:
        """(the last max_total_tokens up to `total` that is not refused, why one more is); `total` where all are.

        Some refusals name a length, such as that of the sliding window on ROCm.
        """
        low = totals(self.setting).low
        if self.accepts(total) or not self.accepts(low):
            return total, None
        found = last_that_holds(low, total, self.accepts)
        limits = Limits(self.input_for(found + 1), found + 1, self.smallest_prefill(self.input_for(found + 1)))
        return found, f"a refusal of longer prompts: {predict(self.here, limits).reason}"

    def largest_prefill(self, total: int) -> int:
        """The last prefill budget that costs neither context, concurrency nor safety, up to what the launcher wants."""
        bound = self.limits.max_batch_prefill_tokens
        longest = self.input_for(total)
        least = self.smallest_prefill(longest)
        if bound.fixed is not None:
            return bound.fixed
        wanted = defaults.launcher_limits(self.setting, Limits(longest, total)).max_batch_prefill_tokens or least
        most = max(least, wanted if bound.high is None else min(wanted, bound.high))
        calm = self.calm(total, least)
        return last_that_holds(
            least, most, lambda prefill: self.holds(total, prefill) and self.calm(total, prefill) >= calm
        )

    def calm(self, total: int, prefill: int) -> int:
        """How well the server would stand its traffic: 2 safe, 1 tight, 0 at risk or not judged."""
        self.evaluations += 1
        seen = warmup.run(self.here, Limits(self.input_for(total), total, prefill))
        load = underload.judge(self.here, seen, self.spread)
        return 0 if load is None else ("at risk", "tight", "safe").index(load.verdict)


def last_that_holds(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The last value in [low, high] that holds, for a predicate that holds at `low` and is monotone."""
    if holds(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first value in [low, high] that holds, for a predicate that holds at `high` and is monotone."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def search(here: Base) -> Found:
    """The largest limits of one launch that fit."""
    searcher = _Searcher(here)
    total, span = searcher.largest_total()
    if total is None:
        lowest = next((low for low, _ in searcher.regions(span)), span.high)  # a pinned prefill in the fewest requests
        smallest = max(2, lowest)
        longest = max(1, min(searcher.input_for(smallest), smallest - 1))
        limits = Limits(longest, smallest, searcher.smallest_prefill(longest))
        reason = f"no room for a prompt: max_total_tokens would be {thousands(span.low)} or more, beyond {span.high_by}"
        if span.low <= span.high:
            reason = searcher.why_not(smallest, limits.max_batch_prefill_tokens or 0) or reason
        return Found(None, _search(searcher, reason), predict(here, limits))
    total, refusal = searcher.largest_accepted(total)
    prefill = searcher.largest_prefill(total)
    limits = Limits(searcher.input_for(total), total, prefill)
    following = total + 1
    least = searcher.smallest_prefill(searcher.input_for(following))
    bound_by = refusal or (span.high_by if total == span.high else searcher.why_not(following, least))
    return Found(limits, _search(searcher, bound_by), predict(here, limits))


def at_least(here: Base, tokens: int) -> Warmup | None:
    """The warm-up of the smallest limits that are worth having with `tokens` per request; None unless they hold.

    max_total_tokens is then `tokens` within its bounds, the prefill budget the smallest efficient one, and the
    KV cache holds `tokens` for each request of workload.concurrency even where max_total_tokens may not be so long.
    """
    searcher = _Searcher(here)
    span = totals(here.setting)
    total = max(span.low, min(tokens, span.high))
    if total > span.high:
        return None
    prefill = searcher.smallest_prefill(searcher.input_for(total))
    if not searcher.holds(total, prefill):
        return None
    seen = searcher.warm(total, prefill)
    return seen if capacity(here, seen) >= tokens * searcher.wanted else None


def smallest_prefill(here: Base) -> int | None:
    """The smallest prefill budget worth having with the longest max_total_tokens that fits; None when none does."""
    searcher = _Searcher(here)
    total, _ = searcher.largest_total()
    return None if total is None else searcher.smallest_prefill(searcher.input_for(total))


def capacity(here: Base, seen: Warmup) -> int:
    """Tokens the KV cache holds, or where none is reserved, those that fit what is free for it."""
    if seen.budget is not None:
        return seen.budget
    room = seen.slack + seen.warm_blocks * here.geometry.kv_bytes_per_token * here.setting.block_size
    return max(0, room) // max(1, here.geometry.kv_bytes_per_token)


def _search(searcher: _Searcher, bound_by: str | None) -> Search:
    return Search(searcher.evaluations, bound_by, searcher.margin, searcher.margin_why)


class Advice(NamedTuple):
    """The limits for a spec, the launch they were found for, and the verdict on them."""

    base: Base
    """The launch that was chosen (its shard count, attention, dtype)."""
    found: Found
    """The limits and how they were found."""


def advise(spec: Spec, facts: Facts) -> Advice:
    """The largest limits that fit, over the shard counts the spec leaves open; next steps when none do."""
    advice = best(spec, facts)
    if advice.found.limits is not None:
        return _safer(spec, facts, advice)
    prediction = advice.found.prediction
    if prediction.outcome == "refused" and not too_small(prediction):
        return advice
    steps = alternatives(spec, facts) or prediction.next_steps
    return advice._replace(found=advice.found._replace(prediction=prediction._replace(next_steps=steps)))


def _safer(spec: Spec, facts: Facts, advice: Advice) -> Advice:
    """The advice with a computed way out when it is at risk under load: the largest memory fraction that is not."""
    load = advice.found.prediction.under_load
    if load is None or load.verdict != "at risk" or spec.hardware.memory_fraction != 1.0:
        return advice
    for percent in range(99, 79, -1):
        hardware = replace(spec.hardware, memory_fraction=percent / 100)
        found = best(replace(spec, hardware=hardware), facts).found
        other = found.prediction.under_load
        if found.limits is not None and other is not None and other.verdict != "at risk":
            total = thousands(found.limits.max_total_tokens or 0)
            remedy = f"hardware.memory_fraction: {percent / 100} gives max_total_tokens {total}"
            note = f"at risk under load: {remedy} and leaves room"
            prediction = advice.found.prediction
            prediction = prediction._replace(warnings=(note, *prediction.warnings))
            return advice._replace(found=advice.found._replace(prediction=prediction))
    return advice


def best(spec: Spec, facts: Facts) -> Advice:
    """The best launch among the legal shard counts: longest context, then largest KV cache, then fewest shards."""
    settings = [defaults.resolve(spec, facts, shards) for shards in shard_counts(spec, facts)]
    tried = [Advice(here, search(here)) for here in map(warmup.base, settings)]

    def worth(advice: Advice) -> tuple[bool, int, int, int]:
        limits, prediction = advice.found.limits, advice.found.prediction
        total = limits.max_total_tokens or 0 if limits else 0
        budget = prediction.limits.max_batch_total_tokens or 0
        starts = prediction.outcome == "starts"
        room = budget if starts else prediction.headroom_bytes
        return starts, total, room, -prediction.num_shard

    chosen = max(tried, key=worth)
    evaluations = sum(advice.found.search.evaluations for advice in tried)
    total = chosen.found.search._replace(evaluations=evaluations)
    return chosen._replace(found=chosen.found._replace(search=total))


def shard_counts(spec: Spec, facts: Facts) -> tuple[int, ...]:
    """The shard counts to try: the spec's, or every legal one up to the GPUs there are."""
    if spec.tgi.num_shard is not None:
        return (spec.tgi.num_shard,)
    if facts.gpu_count == 1:
        return (1,)
    single = defaults.resolve(spec, facts, 1)
    return defaults.legal_shards(facts.model, single.family, facts.gpu_count, single.quantize)


STEPS = 6
"""Next steps worth reading."""

STEPS_OF = {"hardware.count": 1, "hardware.gpu": 2}
"""How many counts and how many GPUs are worth naming: the smallest that work."""


def alternatives(spec: Spec, facts: Facts) -> tuple[str, ...]:
    """The nearest things that would work, each of them searched, not guessed; those at risk under load come last."""
    calm: list[str] = []
    risky: list[str] = []
    for label, other_spec, other_facts in _neighbours(spec, facts):
        kind = label.partition(":")[0]
        if _named(calm, kind) == STEPS_OF.get(kind, STEPS):
            continue
        try:
            found = best(other_spec, other_facts).found
        except AdvisorError:
            continue
        if found.limits is None or found.prediction.outcome != "starts":
            continue
        total = thousands(found.limits.max_total_tokens or 0)
        together = found.prediction.concurrency
        held = f", {together} at once" if together is not None and together > 1 else ""
        step = f"{label} gives max_total_tokens {total}{held}"
        load = found.prediction.under_load
        if load is None or load.verdict != "at risk":
            calm.append(step)
        elif _named(risky, kind) < STEPS_OF.get(kind, STEPS):
            risky.append(f"{step} (at risk under load)")
    return (*calm, *risky)[:STEPS]


def _named(steps: list[str], kind: str) -> int:
    return sum(step.startswith(f"{kind}:") for step in steps)


def _neighbours(spec: Spec, facts: Facts) -> Iterator[tuple[str, Spec, Facts]]:
    """Small changes to a deployment, cheapest first: (what to write, the spec, the facts)."""
    if spec.workload.concurrency > 1:
        workload = replace(spec.workload, concurrency=1)
        yield "workload.concurrency: 1", replace(spec, workload=workload), facts
    floors = (spec.limits.max_total_tokens.low, spec.limits.max_input_tokens.low)
    if any(floor is not None for floor in floors):
        limits = replace(spec.limits, max_total_tokens=AUTO, max_input_tokens=AUTO)
        yield "limits.max_total_tokens and max_input_tokens: auto", replace(spec, limits=limits), facts
    if spec.limits.max_batch_prefill_tokens.low is not None:
        limits = replace(spec.limits, max_batch_prefill_tokens=AUTO)
        yield "limits.max_batch_prefill_tokens: auto", replace(spec, limits=limits), facts
    if spec.model.kv_cache_dtype is None:
        model = replace(spec.model, kv_cache_dtype="fp8_e4m3fn")
        yield "model.kv_cache_dtype: fp8_e4m3fn", replace(spec, model=model), facts
    if spec.model.quantize is None and facts.model.text().get("quantization_config") is None:
        for method in ("fp8", "eetq", "bitsandbytes-nf4"):
            if method in facts.release.quantize:
                model = replace(spec.model, quantize=method, dtype=None)
                yield f"model.quantize: {method}", replace(spec, model=model), facts
    for count in (2, 4, 8):
        if count > facts.gpu_count and spec.tgi.num_shard is None:
            hardware = replace(spec.hardware, count=count)
            yield f"hardware.count: {count}", replace(spec, hardware=hardware), facts._replace(gpu_count=count)
    for gpu in replacements(facts.gpu):
        hardware = replace(spec.hardware, gpu=GpuSpec(name=gpu.name))
        yield f"hardware.gpu: {gpu.name}", replace(spec, hardware=hardware), facts._replace(gpu=gpu)


def larger(instead_of: GpuFacts) -> list[GpuFacts]:
    """Cards of the same system with more memory, the smallest first."""
    cards = [row.facts for row in gpus.all_gpus() if row.facts and row.facts.system == instead_of.system]
    more = [gpu for gpu in cards if gpu.memory_bytes > instead_of.memory_bytes * 1.02]
    return sorted(more, key=lambda gpu: (gpu.memory_bytes, gpu.name))


SAME_SIZE = 1.1
"""Cards whose memory differs by less than this are one size."""


def replacements(instead_of: GpuFacts) -> list[GpuFacts]:
    """One card of each larger size, of the same or a newer generation.

    Of each size it is one that clouds rent out, and the oldest of these. Workstation and gaming cards replace
    only their like.
    """
    chosen: list[GpuFacts] = []
    rented = {row.name for row in gpus.all_gpus() if row.instances}
    desk = _for_desks(instead_of)
    fitting = [gpu for gpu in larger(instead_of) if gpu.at_least >= instead_of.at_least and desk >= _for_desks(gpu)]
    while fitting:
        size = [gpu for gpu in fitting if gpu.memory_bytes < fitting[0].memory_bytes * SAME_SIZE]
        chosen.append(min(size, key=lambda gpu: (gpu.name not in rented, gpu.at_least)))
        fitting = fitting[len(size) :]
    return chosen


def _for_desks(gpu: GpuFacts) -> bool:
    return "-rtx-" in gpu.name
