"""`size`: how many GPUs a load needs, from what people can state: users at once, prompts, answers.

A replica is one server. Its KV cache holds so many typical requests, from their admission to their last token; the
users decide how many replicas that takes, and the longest request which limits each has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import NamedTuple

from tgi_advisor import tabular
from tgi_advisor.choose.compare import COLUMNS as COMPARED
from tgi_advisor.choose.compare import PRICE_SAID, Ways, checkpoints, compare, nearest, price_said, prices_said
from tgi_advisor.choose.load import Load
from tgi_advisor.choose.option import Option, judge
from tgi_advisor.choose.words import so_many, without_room, wrapped
from tgi_advisor.estimate import speed
from tgi_advisor.estimate.speed import Speed
from tgi_advisor.estimate.underload import DECODING
from tgi_advisor.facts import families
from tgi_advisor.facts.prices import Offer, cheapest
from tgi_advisor.report import amount, band
from tgi_advisor.search import first_that_holds, last_that_holds
from tgi_advisor.spec.records import Bound, Spec
from tgi_advisor.tabular import Answer, Column, Table
from tgi_advisor.units import thousands

ASSUMED = (
    "Assumed: every user has one request in flight, TGI keeps KV cache for its prompt and whole answer from admission "
    "on, and users are spread evenly over the replicas."
)
ARRIVALS = (
    "Assumed: requests arrive independently of each other, each stays as long as its answer takes (Little's law), and "
    "replicas are filled evenly."
)


class Wait(NamedTuple):
    """How long a typical answer takes, from its request to its last token."""

    seconds: float
    """The middle; where there is no estimate, the least it can be."""
    low: float
    """It takes at least so long."""
    high: float | None
    """It takes at most so long; None where there is no estimate."""
    factor: float | None
    """The factor the estimate holds within; None where there is none."""
    label: str
    """`estimated`, `rough` or `calibrated`; `at least` where there is no estimate."""


@dataclass(frozen=True)
class Fleet:
    """One way to carry a load: so many servers of one kind."""

    option: Option
    """The server."""
    each: int
    """Typical requests one server holds at once."""
    replicas: int
    """Servers."""
    speed: Speed
    """How fast one of them is with its share of the users, or with the requests a stated rate keeps in flight."""
    saturates: int
    """Typical requests at once from which on the throughput of one server grows no further: its KV cache is full
    (budget / tokens of a request), or its batch (--max-batch-size)."""
    answer: Wait | None = None
    """How long a typical answer takes at that speed; None where nothing is known of it."""
    in_flight: int | None = None
    """Typical requests in flight on one server at the stated rate, rounded up; None where no rate is stated, or
    nothing is known of the speed."""
    together: int | None = None
    """The same on all servers."""

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.option.count

    @property
    def instances(self) -> int | None:
        """Instances that carry all replicas, several on one where it has the GPUs; None where no price is known."""
        offer = self.option.offer
        return None if offer is None else offer.instances(self.option.count, self.replicas)

    @property
    def price(self) -> float | None:
        """Price of all instances per hour."""
        offer = self.option.offer
        return None if offer is None else offer.total(self.option.count, self.replicas)


@dataclass(frozen=True, repr=False)
class Sizing(Answer):
    """Ways to carry a load, the cheapest first where prices are known, else the fewest GPUs."""

    model: str
    """The model that was asked about."""
    load: Load
    """The load."""
    fleets: tuple[Fleet, ...]
    """Those that carry it."""
    failed: tuple[Option, ...]
    """Servers that do not start with requests so long, with the reason."""
    why: str = ""
    """Why no server can carry it; empty where that is each option's own matter."""

    @property
    def best(self) -> Fleet | None:
        """The first fleet; None where nothing carries the load."""
        return next(iter(self.fleets), None)

    def table(self) -> Table:
        """One row for every fleet."""
        return Table(COLUMNS, tuple(map(_row, self.fleets)))

    def text(self, width: int, today: date | None = None) -> str:
        """The fleets as a terminal of so many columns shows them."""
        load = self.load
        users = f"{so_many(load.users, 'user')} at once"
        lengths = f"{thousands(load.prompts.typical)} tokens in, {thousands(load.answers.typical)} out"
        head = f"{self.model} for {users}, {lengths}, the longest {thousands(load.longest)} together"
        lines = wrapped(head, width)
        if not self.fleets:
            return "\n".join([*lines, "", *wrapped(self.nothing(), width)])
        table = tabular.without(self.table(), {"model", *PRICE_SAID, *SAID} - ({"answer_s"} if self._timed else set()))
        shown, _ = tabular.constants(table, ("quantize", "release"))
        lines += [*checkpoints([one.option for one in self.fleets]), "", tabular.text(shown, width, LESS_WANTED), ""]
        if missing := without_room(tabular.left_out(shown, width, LESS_WANTED), width):
            lines += [*missing, ""]
        prices = prices_said([one.option for one in self.fleets], today or date.today())
        assumed = ARRIVALS if self._timed else ASSUMED
        for sentence in (self._limits(), assumed, *self._counted_on(), *said(self.fleets[0], load), *prices):
            lines += wrapped(sentence, width)
        return "\n".join(lines)

    def nothing(self) -> str:
        """Why no server carries the load."""
        return "" if self.fleets else f"Nothing carries it: {self.why or nearest(self.failed)}"

    @property
    def _timed(self) -> bool:
        """Whether a rate or a latency is wished."""
        return self.load.rps is not None or self.load.latency is not None

    def _limits(self) -> str:
        """The token limits of a replica of the first fleet."""
        one, limits = self.fleets[0].option, self.fleets[0].option.limits
        told = ", ".join(f"{name} {thousands(value)}" for name, value in limits.given().items())
        admits = one.spec.tgi.flags.get(ADMITS)
        more = f", {ADMITS} {admits:,}" if isinstance(admits, int) else ""
        return f"The first, {one.name} with TGI {one.release}: {told}{more}. --emit-spec prints its spec."

    def _counted_on(self) -> list[str]:
        """That replicas are counted on a bound, where a rate or a latency is wished and nothing better is known."""
        if not self._timed or all(fleet.speed.tokens for fleet in self.fleets):
            return []
        return [
            "Where there is no estimate, replicas are counted on what a server cannot exceed: take them as the least."
        ]


_SAME = {column.key: column for column in COMPARED}
COLUMNS = (
    _SAME["model"],
    _SAME["quantize"],
    _SAME["gpu"],
    Column("count", "COUNT", "count", "GPUs of one replica."),
    Column("replicas", "REPLICAS", "count", "Servers."),
    Column("gpus", "GPUS", "count", "GPUs of all replicas."),
    _SAME["release"],
    Column("max_input_tokens", "INPUT", "count", "max_input_tokens of each replica."),
    _SAME["max_total_tokens"],
    _SAME["max_batch_prefill_tokens"],
    Column("requests", "USERS EACH", "count", "Typical requests one replica holds at once."),
    Column(
        "saturates_requests", "FULL AT", "count",
        "Typical requests at which the throughput of one replica saturates: its KV cache is full (budget / tokens of a "
        "request), or its batch (max-batch-size).",
    ),
    Column(
        "in_flight", "IN FLIGHT", "count",
        "Typical requests in flight on one replica at the stated rate, by Little's law, rounded up; speed and answer "
        "are with so many. Empty without a rate.",
    ),
    Column("in_flight_together", "TOGETHER", "count", "The same on all replicas."),
    Column("bound_tokens_per_s", "TOKENS/S AT MOST", "count", "What one replica cannot exceed, by its bandwidth."),
    Column("tokens_per_s", "ESTIMATE", "count", "Tokens per second of one replica; empty where nothing supports one."),
    Column("tokens_per_s_factor", "WITHIN x/", "figure", "The factor the estimate holds within."),
    Column("tokens_per_s_label", "LABEL", "text", "`estimated`, `rough` or `calibrated`."),
    Column("first_token_s", "FIRST TOKEN S", "figure", "Seconds to the first token of a typical prompt, alone."),
    Column("first_token_s_factor", "WITHIN x/", "figure", "The factor that holds within."),
    Column("first_token_s_label", "LABEL", "text", "`estimated`, `rough` or `calibrated`."),
    Column("answer_s", "ANSWER S", "figure", "Seconds from a typical request to the end of its answer at that speed."),
    Column("answer_s_factor", "WITHIN x/", "figure", "The factor that holds within; empty for a bound."),
    Column("answer_s_label", "LABEL", "text", "`estimated`, `rough`, `calibrated`; `at least` where a bound is all."),
    _SAME["under_load"],
    _SAME["instance"]._replace(about="The instance on which all replicas cost least."),
    Column("instances", "OF THEM", "count", "Instances that carry all replicas."),
    Column("price_per_hour", "PER HOUR", "money", "On-demand list price of all instances."),
    *(_SAME[key] for key in PRICE_SAID),
)  # fmt: skip
LESS_WANTED = (
    "max_batch_prefill_tokens", "first_token_s_factor", "first_token_s", "tokens_per_s_factor", "tokens_per_s",
    "under_load", "instances", "answer_s", "in_flight", "instance", "bound_tokens_per_s",
)  # fmt: skip
"""Columns that go first where a terminal is narrow."""
SAID = (
    "max_input_tokens", "saturates_requests", "in_flight_together", "tokens_per_s_label", "first_token_s_label",
    "answer_s", "answer_s_factor", "answer_s_label",
)  # fmt: skip
"""Columns that a terminal has in the sentences below the table."""


def size(
    spec: Spec,
    ways: Ways,
    load: Load,
    *,
    offers: Sequence[Offer] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Sizing:
    """Every way to carry a load, within the bounds of the spec."""
    context = families.context_length(ways.checkpoints[0].facts.model)
    if context is not None and load.longest > context:
        why = (
            f"its longest request has {thousands(load.longest)} tokens, and the model's context is {thousands(context)}"
        )
        return Sizing(spec.model.id, load, (), (), why)
    if why := _too_long(spec, load):
        return Sizing(spec.model.id, load, (), (), why)
    pinned = replace(spec.limits, max_total_tokens=Bound(load.longest, load.longest))
    workload = replace(spec.workload, max_new_tokens=load.answers.longest)
    asked = replace(spec, limits=pinned, workload=workload)
    found = compare(asked, ways, offers=offers, progress=progress)
    starting = []
    for number, option in enumerate(sorted(found.options, key=_alike), 1):
        if option.starts:
            starting.append(_admitting(option, asked, load))
        if progress is not None and load.users > DECODING:
            progress(number, len(found.options))
    any_size = [fleet for fleet in (_fleet(option, load, offers) for option in starting) if fleet]
    fleets = [fleet for fleet in any_size if fleet.replicas <= MOST]
    failed = tuple(option for option in found.options if not option.starts)
    slow = len(failed) < len(found.options) and not any_size and load.latency is not None
    why = f"no server answers within {load.latency:g} s" if slow else ""
    if any_size and not fleets:
        fewest = min(fleet.replicas for fleet in any_size)
        why = f"it would take {thousands(fewest)} servers or more, and fleets of up to {thousands(MOST)} are counted"
    return Sizing(spec.model.id, load, tuple(sorted(fleets, key=_order)), failed, why)


def _too_long(spec: Spec, load: Load) -> str:
    """That the spec does not let requests so long in; empty where it does."""
    for name, bound, longest, what in (
        ("max_input_tokens", spec.limits.max_input_tokens, load.prompts.longest, "prompt"),
        ("max_total_tokens", spec.limits.max_total_tokens, load.longest, "request"),
    ):
        if bound.high is not None and longest > bound.high:
            return (
                f"its longest {what} has {thousands(longest)} tokens, and limits.{name} of the spec is at most "
                f"{thousands(bound.high)}"
            )
    return ""


def _alike(option: Option) -> tuple[object, ...]:
    """What brings options together that share a replay of the warm-up."""
    gpu = option.base.setting.facts.gpu if option.base else None
    kind = (gpu.system, gpu.at_least) if gpu else ()
    return option.model, option.quantize, option.release, option.count, kind, option.memory_bytes


MOST = 10_000
"""Servers of the largest fleet that is counted: more are nobody's single deployment, and a slip of the keyboard."""
ADMITS = "max-concurrent-requests"
"""The flag that says how many requests the router lets in; it answers 429 to more."""


def _admitting(option: Option, asked: Spec, load: Load) -> Option:
    """The option, told to let in as many users as it holds where that is more than TGI does by itself.

    Each number let in takes a search of its own: decoding and sampling for more requests takes memory, and a prefill
    that has to be smaller for it leaves some. The most that are let in and held as well are looked for.
    """
    assert option.base is not None
    setting = option.base.setting
    if ADMITS in setting.flags:
        return option
    most = min(load.users, setting.most_in_batch or load.users)
    made = {DECODING: option}

    def told(admitted: int) -> Option:
        if admitted not in made:
            flags = MappingProxyType({**setting.spec.tgi.flags, ADMITS: admitted})
            spec = replace(option.spec, limits=asked.limits, tgi=replace(option.spec.tgi, flags=flags))
            made[admitted] = judge(spec, setting.facts, option.offer)
        return made[admitted]

    def holds(admitted: int) -> bool:
        again = told(admitted)
        return again.starts and _cached(again, load) >= admitted

    low, more = DECODING, min(_cached(option, load), most)
    while more > low and holds(more):
        low, more = more, min(_cached(told(more), load), most)
    if more > low:
        near = max(low, _cached(told(more), load)) if told(more).starts else low
        low = last_that_holds(low, more, holds, near)
    return told(low)


def _cached(option: Option, load: Load) -> int:
    """Typical requests that one server's KV cache holds at once."""
    return max(1, (option.limits.max_batch_total_tokens or 0) // load.request.tokens)


def _batched(option: Option, load: Load) -> int:
    """Typical requests that one server takes into its batch: its KV cache has room, and --max-batch-size lets it."""
    assert option.base is not None
    return min(_cached(option, load), option.base.setting.most_in_batch or _cached(option, load))


def _held(option: Option, load: Load) -> int:
    """Typical requests that one server holds at once: in its batch, and as far as its router lets them in."""
    assert option.base is not None
    stated = option.base.setting.flags.get(ADMITS)
    return min(_batched(option, load), stated if isinstance(stated, int) and stated > 0 else DECODING)


def _fleet(option: Option, load: Load, offers: Sequence[Offer]) -> Fleet | None:
    """So many of one server as the load takes; None where none of them answers as fast as is wished."""
    here, budget = option.base, option.limits.max_batch_total_tokens or 0
    assert here is not None
    each, saturates = _held(option, load), _batched(option, load)

    def fast(together: int) -> Speed:
        return speed.of(here, budget, together, load.request)

    if load.latency is not None:
        each = _last_in_time(fast, each, load, load.latency)
        if not each:
            return None
    replicas = math.ceil(load.users / each)
    most = None if load.rps is None else fast(each).most
    if load.rps is not None and most:
        replicas = max(replicas, math.ceil(load.rps * load.answers.typical / most))
    if replicas > 1 and option.offer is not None:
        option = replace(option, offer=cheapest(offers, option.gpu, option.count, replicas))
    if load.rps is None or not most:
        found = fast(min(each, math.ceil(load.users / replicas)))
        return Fleet(option, each, replicas, found, saturates, _wait(found, load))
    found = fast(_in_flight(fast, each, load, load.rps / replicas))
    wait = _wait(found, load)
    assert wait is not None
    together = max(1, min(replicas * found.together, math.ceil(load.rps * wait.seconds)))
    return Fleet(option, each, replicas, found, saturates, wait, found.together, together)


def _in_flight(fast: Callable[[int], Speed], most: int, load: Load, rate: float) -> int:
    """Requests in flight on a server at which so many arrive per second, rounded up.

    Little's law: in flight = rate x seconds each takes. A server with n in flight makes a token rate T(n), and each
    of them takes n x answer / T(n), so that the law holds where T(n) = rate x answer: with the fewest that keep up.
    """
    wanted = rate * load.answers.typical

    def keeps_up(together: int) -> bool:
        return (fast(together).most or 0.0) >= wanted

    return first_that_holds(1, most, keeps_up)


def _wait(found: Speed, load: Load) -> Wait | None:
    """How long a typical answer takes at a speed; None where nothing is known."""
    seconds = found.answered(load.request)
    if seconds is None:
        return None
    if not found.tokens:
        return Wait(seconds, seconds, None, None, "at least")
    tokens = found.tokens
    low, high = (seconds * tokens.value / rate for rate in (tokens.high, tokens.low))
    return Wait(seconds, low, high, tokens.factor, tokens.label)


def _last_in_time(fast: Callable[[int], Speed], most: int, load: Load, wish: float) -> int:
    """The most requests at once whose answers are complete in time; 0 where not even one's is."""

    def holds(together: int) -> bool:
        taken = fast(together).answered(load.request)
        return taken is None or taken <= wish

    return last_that_holds(1, most, holds) if holds(1) else 0


def _order(fleet: Fleet) -> tuple[object, ...]:
    risky = fleet.option.under_load == "at risk"
    memory = fleet.gpus * fleet.option.memory_bytes
    return (risky, fleet.price is None, fleet.price or 0.0, fleet.gpus, memory, fleet.option.gpu, fleet.option.model)


def said(fleet: Fleet, load: Load) -> list[str]:
    """What there is to say of the speed of a fleet's servers."""
    found = fleet.speed
    lines = _at_the_rate(fleet, load)
    saturates = f"throughput saturates at {so_many(fleet.saturates, 'request')}, {_full(fleet)}"
    if found.bound is not None:
        lines.append(
            f"Speed of the first: with {so_many(found.together, 'request')} at once no more than "
            f"{found.bound:,.0f} tokens/s; {saturates}."
        )
    else:
        lines.append(f"Of the first {saturates}.")
    if found.tokens:
        lines.append(f"{found.tokens.label.capitalize()}: {found.tokens.value:,.0f} tokens/s, {_band(found.tokens)}.")
    if found.first:
        first = found.first
        lines.append(f"{first.label.capitalize()}: first token after {amount(first.value)} s alone, {_band(first)}.")
    if fleet.answer:
        lines.append(_answered(fleet.answer))
    if found.why_not:
        lines.append(f"No estimate of tokens per second: {found.why_not}.")
    if found.note:
        lines.append(f"{found.note[:1].upper()}{found.note[1:]}.")
    return lines


def _at_the_rate(fleet: Fleet, load: Load) -> list[str]:
    """How many requests the stated rate keeps in flight, beside the users that were stated."""
    if load.rps is None:
        return []
    rate = "1 request" if load.rps == 1 else f"{load.rps:,g} requests"
    if fleet.in_flight is None or fleet.together is None:
        return [f"How many requests {rate} per second keep in flight is not known, as the speed is not."]
    about = "about" if fleet.speed.tokens else "at least"
    each = f"{about} {so_many(fleet.in_flight, 'request')} in flight"
    if fleet.replicas > 1:
        each += f" on each of {so_many(fleet.replicas, 'replica')}, {thousands(fleet.together)} together"
    users = so_many(load.users, "user")
    beside = f"more than the {users} stated" if fleet.together > load.users else f"of the {users} stated"
    return [f"At {rate} per second, by Little's law at the speed that holds there: {each}, {beside}."]


def _full(fleet: Fleet) -> str:
    """Why the throughput grows no further."""
    if fleet.saturates < fleet.speed.saturates:
        return "as --max-batch-size lets no more into a batch"
    return "when its KV cache is full"


def _answered(wait: Wait) -> str:
    """How long a typical answer takes, in a sentence."""
    if wait.high is None:
        return f"A typical answer is complete after {amount(wait.seconds)} s at least."
    between = f"{amount(wait.low)} to {amount(wait.high)} (within a factor of {wait.factor:g})"
    return f"{wait.label.capitalize()}: a typical answer complete after {amount(wait.seconds)} s, {between}."


def _band(figure: speed.Figure) -> str:
    return f"{band(figure)} (within a factor of {figure.factor:g})"


def _estimate(figure: speed.Figure | None, digits: int) -> tuple[object, ...]:
    """The values of an estimate: the middle, the factor it holds within, its label."""
    if figure is None:
        return None, None, None
    return round(figure.value, digits) if digits else round(figure.value), figure.factor, figure.label


def _row(fleet: Fleet) -> tuple[object, ...]:
    one, fast, wait = fleet.option, fleet.speed, fleet.answer
    return (
        one.model, one.quantize, one.gpu, one.count, fleet.replicas, fleet.gpus, one.release,
        one.limits.max_input_tokens, one.limits.max_total_tokens, one.limits.max_batch_prefill_tokens, fleet.each,
        fleet.saturates, fleet.in_flight, fleet.together,
        None if fast.bound is None else round(fast.bound), *_estimate(fast.tokens, 0), *_estimate(fast.first, 3),
        *((round(wait.seconds, 3), wait.factor, wait.label) if wait else (None, None, None)),
        one.under_load,
        one.offer and one.offer.instance, fleet.instances, fleet.price, *price_said(one.offer),
    )  # fmt: skip
