"""Search the largest limits of one launch: one shard count, one dtype, one attention back end.

1. `max_total_tokens` is searched with the smallest prefill budget worth having, or where prefills are chunked with a
   smaller one if that takes away a risk under load;
2. where prefills are chunked and `workload.prefer` says so, up to a tenth of it is given for chunks of the usual size;
3. the prefill budget is searched upwards, as far as it costs neither context nor concurrency, leaves the server as
   safe under load, and the launcher itself would want it;
4. `max_total_tokens` is searched once more with that budget: a warm-up of more requests, or of a longer prompt than
   the chunk, may leave room for a few blocks.

Where a prefill budget is pinned, shorter prompts mean more warm-up requests, and the predicate is monotone only
between two such steps; the search then walks the steps, longest prompts first.
"""

from dataclasses import replace
from typing import NamedTuple

from tgi_advisor import refusals
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.replay import pictures
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Prediction, Search
from tgi_advisor.refusals import Refusal
from tgi_advisor.search.lengths import USUAL_CHUNK, Lengths, efficient_prefill
from tgi_advisor.search.predicate import TOO_RISKY, Searcher, capacity
from tgi_advisor.search.turning import last_that_holds
from tgi_advisor.spec.records import AUTO, LimitsSpec
from tgi_advisor.units import human, thousands
from tgi_advisor.verdict import early, is_refused, predict, refused_by_rule, too_small

GIVEN_FOR_CHUNKS = 10
"""`workload.prefer: prefill` costs at most one part in so many of max_total_tokens."""


SMALLEST_CHUNK = 256
"""Prefill tokens below which no chunk is worth having, whatever it takes away."""


class Found(NamedTuple):
    """The result of one search."""

    limits: Limits | None
    """The limits to launch with; None when nothing fits."""
    search: Search
    """How they were found."""
    prediction: Prediction
    """The verdict on them; on failure, the verdict on the limits that need least memory."""


def search(here: Base) -> Found:
    """The largest limits of one launch that fit, those that are not at risk under load before all others.

    Where every limit is at risk it is the largest that fit, and the verdict says so. Where TGI's reserve leaves no
    block beyond the warm-up's own, only one for two prompts as long as an image holds a whole request.
    What the spec asks for at least changes nothing where the largest is as large anyway.
    """
    asked = here.setting.spec.limits
    without = asked.without_floors
    if without is asked:
        return _search(here)
    spec = replace(here.setting.spec, limits=without)
    anyway = _search(here._replace(setting=here.setting._replace(spec=spec)))
    if anyway.limits is not None and asked.floors_hold(anyway.limits):
        return anyway
    found = _search(here)
    both = found.search.evaluations + anyway.search.evaluations
    return found._replace(search=found.search._replace(evaluations=both))


def _search(here: Base) -> Found:
    """The same, with the spec's bounds as they are."""
    searcher = Searcher(here)
    if (found := _everything(searcher)) is not None:
        return found
    held = _anything(searcher)
    if held is None:
        searcher.hold(1)
        return _nothing(searcher)
    total, prefill = held
    if prefill is not None:
        bound_by = searcher.told(total + 1, searcher.for_two(total + 1))
        limits = searcher.limits_of(total, prefill)
        return Found(limits, _how(searcher, bound_by or searcher.span.high_by), predict(here, limits))
    span, (total, refusal) = searcher.span, _accepted(searcher, total)
    if refusal is not None:
        searcher.span = span._replace(high=total)
    total, prefill = _with_chunks(searcher, total)
    if searcher.alone or not searcher.setting.chunking:
        total, prefill = _of_two(searcher, total, prefill)
    prefill = _largest_prefill(searcher, total, prefill)
    limits = _longer(searcher, total, prefill)
    bound_by = refusal or _why_no_longer(searcher, limits) or span.high_by
    return Found(limits, _how(searcher, bound_by), predict(here, limits))


def refused(setting: Setting) -> list[Refusal]:
    """What TGI refuses of a launch whatever the limits, without a search.

    Nothing where it may take some of them, where the weights do not even fit before it comes to that, or where its
    answer to the longest limits is another one than to those that need least memory.
    """
    surely = refusals.surely(setting)
    before = bool(early(surely))
    if not surely or (not before and not warmup.loads(warmup.base(setting))):
        return []
    lengths = Lengths(setting)
    found, longest = (refused_by_rule(setting, limits) for limits in (lengths.cheapest(), lengths.longest()))
    if before:
        found, longest = early(found), early(longest)
    return found if found == longest else []


def _everything(searcher: Searcher) -> Found | None:
    """All that is wished for, the longest requests with the largest prefill budget; None where that is too much."""
    total = searcher.span.high
    if total < searcher.span.low:
        return None
    least = searcher.smallest_prefill(total)
    most = _most_prefill(searcher, total, least)
    if not (searcher.holds(total, most) and searcher.holds(total, least)):
        return None
    if searcher.calm(total, most) < searcher.calm(total, least):
        return None
    limits = searcher.limits_of(total, most)
    prediction = predict(searcher.here, limits)
    return Found(limits, _how(searcher, searcher.span.high_by), prediction) if prediction.outcome == "starts" else None


def outcome(found: Found, requests: int) -> Prediction:
    """The verdict a search leads to for so many requests: where limits start that hold too little, that they do."""
    prediction, searched = found.prediction, found.search
    if found.limits is not None or not (prediction.outcome == "starts" or too_small(prediction)):
        return prediction
    kept = f" with {human(searched.headroom_bytes)} per GPU left unplanned" if searched.headroom_bytes else ""
    why = searched.bound_by
    total, budget = prediction.limits.max_total_tokens or 0, prediction.limits.max_batch_total_tokens
    if budget is not None and budget < requests * total:
        several = f"{thousands(requests)} requests of " if requests > 1 else ""
        asked = f"{several}{thousands(total)} tokens"
        why = f"{asked} are asked for, and TGI would infer a KV cache of {thousands(budget)}"
    reason = f"no limits hold what the spec asks{kept}: {why}"
    return prediction._replace(outcome="out_of_memory", stage="warmup", reason=reason)


def _anything(searcher: Searcher) -> tuple[int, int | None] | None:
    """(the last max_total_tokens that holds, its prefill budget where only a warm-up of two requests makes it hold).

    What takes no risk comes first; where TGI's reserve leaves no block beyond the warm-up's own, only prefills of two
    prompts as long as an image hold a whole request.
    """
    low, total = searcher.span.low, _in_smaller_chunks(searcher, searcher.largest_total(searcher.span.low))
    images = range(1, 3 if pictures.needed(searcher.setting) else 2)
    for risk in dict.fromkeys((searcher.allow_risk, True)):
        for count in images:
            if total is None and (risk, count) != (searcher.allow_risk, 1):
                searcher.allow_risk = risk
                searcher.hold(count)
                total = searcher.largest_total(low)
        if total is not None:
            return total, None
        longer, prefill = _of_two(searcher, low - 1, 0) if searcher.alone and low <= searcher.span.high else (0, 0)
        if longer >= low:
            return longer, prefill
    return None


def _longer(searcher: Searcher, total: int, prefill: int) -> Limits:
    """The limits once max_total_tokens has grown as far as it holds with their prefill budget, and is not refused."""
    limits = searcher.limits_of(total, prefill)
    if searcher.input_for(total) >= prefill and (total == searcher.span.high or not searcher.holds(total + 1, prefill)):
        return limits
    longer = searcher.limits_of(searcher.largest_total(total, prefill) or total, prefill)
    return limits if is_refused(searcher.here, longer) else longer


def _why_no_longer(searcher: Searcher, limits: Limits) -> str | None:
    """What keeps max_total_tokens from growing; None at the end of its bounds."""
    total, prefill = limits.max_total_tokens or 0, limits.max_batch_prefill_tokens or 0
    if total >= searcher.span.high:
        return None
    return searcher.told(total + 1, searcher.smallest_prefill(total + 1)) or searcher.told(total + 1, prefill)


def _nothing(searcher: Searcher) -> Found:
    """What to say where no limits fit: the verdict on those that need least memory.

    Unless these start at the allocator's second try, which a search otherwise does not count on: then they are it, or
    the longest.
    """
    span, limits = searcher.span, searcher.cheapest()
    total, prefill = limits.max_total_tokens or 0, limits.max_batch_prefill_tokens or 0
    reason = f"no room for a prompt: max_total_tokens would be {thousands(span.low)} or more, beyond {span.high_by}"
    if span.low <= span.high:
        reason = searcher.why_not(total, prefill) or reason
    prediction = predict(searcher.here, limits)
    if prediction.outcome != "starts" or not span.low <= total <= span.high:
        return Found(None, _how(searcher, reason), prediction)
    again = searcher.tried_again()
    if not again.holds(total, prefill):
        return Found(None, _how(searcher, reason), prediction)
    if again.holds(span.high):
        limits, reason = searcher.longest(), span.high_by
        prediction = predict(searcher.here, limits)
    return Found(limits, _how(searcher, reason), prediction)


def _in_smaller_chunks(searcher: Searcher, total: int | None) -> int | None:
    """The last max_total_tokens that holds where chunks smaller than are efficient take a risk away; else `total`.

    The largest such chunks become the efficient ones of this search.
    """
    bound, efficient = searcher.limits.max_batch_prefill_tokens, searcher.efficient
    smallest = max(SMALLEST_CHUNK, searcher.least)
    if searcher.allow_risk or not searcher.setting.chunking or bound.fixed is not None or smallest >= efficient:
        return total
    if total is not None and not _at_the_edge_of_risk(searcher, total):
        return total
    searcher.allow_risk = True
    most = searcher.largest_total(searcher.span.low)
    searcher.allow_risk = False
    if most is None:
        return None
    searcher.efficient = smallest
    if searcher.holds(most, smallest):
        searcher.efficient = last_that_holds(smallest, efficient, lambda prefill: searcher.holds(most, prefill))
    found = searcher.largest_total(searcher.span.low)
    if found is not None and found > (total or 0):
        return found
    searcher.efficient = efficient
    return total


def _at_the_edge_of_risk(searcher: Searcher, total: int) -> bool:
    """Whether it is a risk under load that keeps max_total_tokens from growing."""
    return total < searcher.span.high and searcher.why_not(total + 1, searcher.smallest_prefill(total + 1)) == TOO_RISKY


def _accepted(searcher: Searcher, total: int) -> tuple[int, str | None]:
    """(the last max_total_tokens up to `total` that is not refused, why one more is); `total` where all are.

    Some refusals name a length, such as that of the sliding window on ROCm.
    """
    low = searcher.span.low
    if searcher.accepts(total) or not searcher.accepts(low):
        return total, None
    found = last_that_holds(low, total, searcher.accepts)
    limits = searcher.limits_of(found + 1, searcher.smallest_prefill(found + 1))
    return found, f"a refusal of longer prompts: {predict(searcher.here, limits).reason}"


def _with_chunks(searcher: Searcher, total: int) -> tuple[int, int]:
    """(max_total_tokens, prefill budget) once a tenth of the first has been given, as far as chunks of the usual size
    take it. Where a risk under load is what bounds them, context is not given for chunks that add to it.
    """
    least = searcher.smallest_prefill(total)
    setting = searcher.setting
    if not setting.chunking or setting.spec.workload.prefer != "prefill":
        return total, least
    if searcher.efficient < efficient_prefill(setting) or _at_the_edge_of_risk(searcher, total):
        return total, least
    bound = searcher.limits.max_batch_prefill_tokens
    usual = min(USUAL_CHUNK, searcher.input_for(total), _wanted(searcher, total) or USUAL_CHUNK)
    usual = min(max(usual, least), least if bound.fixed is not None else bound.high or usual)
    shortest = max(searcher.span.low, total - total // GIVEN_FOR_CHUNKS)
    prefill = searcher.last(
        least,
        usual,
        lambda one, value: one.holds(shortest, value),
        lambda one, value: one.room_and_spare(shortest, value),
    )
    return (searcher.largest_total(shortest, prefill) or total, prefill) if prefill > least else (total, least)


def _of_two(searcher: Searcher, total: int, prefill: int) -> tuple[int, int]:
    """(max_total_tokens, prefill budget): those of a warm-up of two requests, if longer ones hold then.

    Its KV cache may find room in gaps that the one of a single request is too small for.
    """

    def holds(one: Searcher, value: int) -> bool:
        return one.holds(value, one.for_two(value))

    if total == searcher.span.high or not searcher.two_hold(total + 1):
        return total, prefill
    longest = searcher.last(
        total + 1, searcher.span.high, holds, lambda one, value: one.room_and_spare(value, one.for_two(value))
    )
    return longest, searcher.for_two(longest)


def _wanted(searcher: Searcher, total: int) -> int | None:
    """The prefill budget the launcher itself would take."""
    asked = Limits(searcher.input_for(total), total)
    return defaults.launcher_limits(searcher.setting, asked).max_batch_prefill_tokens


def _most_prefill(searcher: Searcher, total: int, least: int) -> int:
    """The largest prefill budget worth having, where so much is the least: the launcher's own, within bounds."""
    bound = searcher.limits.max_batch_prefill_tokens
    if bound.fixed is not None:
        return bound.fixed
    wanted = _wanted(searcher, total) or least
    return max(least, wanted if bound.high is None else min(wanted, bound.high))


def _largest_prefill(searcher: Searcher, total: int, least: int) -> int:
    """The last prefill budget that costs neither context, concurrency nor safety, up to what the launcher wants."""
    most = _most_prefill(searcher, total, least)
    if most == least:
        return least
    calm = searcher.calm(total, least)
    return searcher.last(
        least, most, lambda one, prefill: one.holds(total, prefill) and one.calm(total, prefill) >= calm,
        lambda one, prefill: one.room_and_spare(total, prefill, calm),
    )  # fmt: skip


def _how(searcher: Searcher, bound_by: str | None) -> Search:
    return Search(searcher.evaluations, bound_by, searcher.margin, searcher.margin_why)


def fitting(here: Base) -> Limits | None:
    """The largest limits a launch starts with, whatever it is given: what `advise` finds with pinned ones left open.

    None where no limits help. `predict` and `validate` say these of limits that do not fit.
    """
    setting = _opened(here.setting)
    found = search(warmup.base(setting))
    return found.limits if found.prediction.outcome == "starts" else None


def way_out(here: Base, prediction: Prediction) -> Prediction:
    """A verdict that memory is too small for some limits, with the largest that fit as what to do about it."""
    peak = prediction.outcome == "out_of_memory" and prediction.stage == "warmup"
    limits = fitting(here) if peak or too_small(prediction) else None
    if limits is None:
        return prediction
    named = ", ".join(f"{name} {thousands(value)}" for name, value in limits.given().items())
    step = f"{named} would start: the largest that `tgi-advisor advise` finds where the limits are left open"
    return prediction._replace(next_steps=(step,))


def _opened(setting: Setting) -> Setting:
    """The launch with its token limits left open, by whatever way they were given."""
    spec, names = setting.spec, defaults.LIMIT_FLAGS
    flags = {name: value for name, value in spec.tgi.flags.items() if name not in names}
    env = {name: text for name, text in spec.tgi.env.items() if name.lower().replace("_", "-") not in names}
    bounds = (spec.limits.max_input_tokens, spec.limits.max_total_tokens, spec.limits.max_batch_prefill_tokens)
    limits = LimitsSpec(*(AUTO if bound.fixed is not None else bound for bound in bounds))
    opened = replace(spec, limits=limits, tgi=replace(spec.tgi, flags=flags, env=env))
    return defaults.resolve(opened, setting.facts, setting.num_shard)


def at_least(here: Base, tokens: int) -> Warmup | None:
    """The warm-up of the smallest limits that are worth having with `tokens` per request; None unless they hold.

    max_total_tokens is then `tokens` within its bounds, the prefill budget the smallest efficient one, and the
    KV cache holds `tokens` for each request of workload.concurrency even where max_total_tokens may not be so long.
    """
    searcher = Searcher(here)
    total = max(searcher.span.low, min(tokens, searcher.span.high))
    if total > searcher.span.high:
        return None
    prefill = searcher.smallest_prefill(total)
    if not searcher.holds(total, prefill):
        prefill = searcher.for_two(total)
        if not (searcher.alone and searcher.two_hold(total)):
            return None
    seen = searcher.warm(total, prefill)
    return seen if capacity(here, seen) >= tokens * searcher.wanted else None


def smallest_prefill(here: Base) -> int | None:
    """The smallest prefill budget worth having with the longest max_total_tokens that fits; None when none does."""
    searcher = Searcher(here)
    total = searcher.largest_total(searcher.span.low)
    return None if total is None else searcher.smallest_prefill(total)
