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

from tgi_advisor import tabular
from tgi_advisor.choose.compare import COLUMNS as COMPARED
from tgi_advisor.choose.compare import PRICE_SAID, Ways, checkpoints, compare, nearest, price_said, prices_said
from tgi_advisor.choose.load import Load
from tgi_advisor.choose.option import Option, judge
from tgi_advisor.choose.words import without_room, wrapped
from tgi_advisor.estimate import speed
from tgi_advisor.estimate.speed import Speed
from tgi_advisor.estimate.underload import DECODING
from tgi_advisor.facts import families
from tgi_advisor.facts.prices import Offer, cheapest
from tgi_advisor.report import amount, band
from tgi_advisor.search import last_that_holds
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
    """How fast one of them is with its share of the load."""

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
        offer, instances = self.option.offer, self.instances
        return None if offer is None or instances is None else instances * offer.per_hour


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
        users = f"{thousands(load.users)} user{'s' if load.users > 1 else ''} at once"
        lengths = f"{thousands(load.prompts.typical)} tokens in, {thousands(load.answers.typical)} out"
        head = f"{self.model} for {users}, {lengths}, the longest {thousands(load.longest)} together"
        lines = wrapped(head, width)
        if not self.fleets:
            return "\n".join([*lines, "", *wrapped(self.nothing(), width)])
        table = tabular.without(self.table(), {"model", *PRICE_SAID})
        table = tabular.without(table, {"max_input_tokens", *(name for name in LESS_WANTED if name.endswith("_label"))})
        shown, _ = tabular.constants(table, ("quantize", "release"))
        lines += [*checkpoints([one.option for one in self.fleets]), "", tabular.text(shown, width, LESS_WANTED), ""]
        if missing := without_room(tabular.left_out(shown, width, LESS_WANTED), width):
            lines += [*missing, ""]
        prices = prices_said([one.option for one in self.fleets], today or date.today())
        assumed = ASSUMED if load.rps is None and load.latency is None else ARRIVALS
        for sentence in (self._limits(), assumed, *self._counted_on(), *said(self.fleets[0].speed), *prices):
            lines += wrapped(sentence, width)
        return "\n".join(lines)

    def nothing(self) -> str:
        """Why no server carries the load."""
        return "" if self.fleets else f"Nothing carries it: {self.why or nearest(self.failed)}"

    def _limits(self) -> str:
        """The token limits of a replica of the first fleet."""
        one, limits = self.fleets[0].option, self.fleets[0].option.limits
        told = ", ".join(f"{name} {thousands(value)}" for name, value in limits.given().items())
        admits = one.spec.tgi.flags.get(ADMITS)
        more = f", {ADMITS} {admits:,}" if isinstance(admits, int) else ""
        return f"The first, {one.name} with TGI {one.release}: {told}{more}. --emit-spec prints its spec."

    def _counted_on(self) -> list[str]:
        """That replicas are counted on a bound, where a rate or a latency is wished and nothing better is known."""
        wished = self.load.rps is not None or self.load.latency is not None
        if not wished or all(fleet.speed.tokens for fleet in self.fleets):
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
    Column("bound_tokens_per_s", "TOKENS/S AT MOST", "count", "What one replica cannot exceed, by its bandwidth."),
    Column("tokens_per_s", "ESTIMATE", "count", "Tokens per second of one replica; empty where nothing supports one."),
    Column("tokens_per_s_factor", "WITHIN x/", "figure", "The factor the estimate holds within."),
    Column("tokens_per_s_label", "LABEL", "text", "`estimated`, `rough` or `calibrated`."),
    Column("first_token_s", "FIRST TOKEN S", "figure", "Seconds to the first token of a typical prompt, alone."),
    Column("first_token_s_factor", "WITHIN x/", "figure", "The factor that holds within."),
    Column("first_token_s_label", "LABEL", "text", "`estimated`, `rough` or `calibrated`."),
    _SAME["under_load"],
    _SAME["instance"]._replace(about="The instance on which all replicas cost least."),
    Column("instances", "OF THEM", "count", "Instances that carry all replicas."),
    Column("price_per_hour", "PER HOUR", "money", "On-demand list price of all instances."),
    *(_SAME[key] for key in PRICE_SAID),
)
LESS_WANTED = (
    "max_batch_prefill_tokens", "first_token_s_label", "first_token_s_factor", "first_token_s", "tokens_per_s_label",
    "tokens_per_s_factor", "tokens_per_s", "under_load",
    "instances", "instance", "bound_tokens_per_s",
)  # fmt: skip
"""Columns that go first where a terminal is narrow."""


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

    Decoding and sampling for more requests takes memory, so that the search is made again.
    """
    assert option.base is not None
    setting = option.base.setting
    if ADMITS in setting.flags:
        return option
    admitted = min(_cached(option, load), load.users)
    if admitted <= DECODING:
        return option
    flags = MappingProxyType({**setting.spec.tgi.flags, ADMITS: admitted})
    again = judge(
        replace(option.spec, limits=asked.limits, tgi=replace(option.spec.tgi, flags=flags)),
        setting.facts,
        option.offer,
    )
    return again if again.starts else option


def _cached(option: Option, load: Load) -> int:
    """Typical requests that one server's KV cache holds at once."""
    return max(1, (option.limits.max_batch_total_tokens or 0) // load.request.tokens)


def _held(option: Option, load: Load) -> int:
    """Typical requests that one server holds at once: in its KV cache, and as far as its router lets them in."""
    assert option.base is not None
    stated = option.base.setting.flags.get(ADMITS)
    return min(_cached(option, load), stated if isinstance(stated, int) and stated > 0 else DECODING)


def _fleet(option: Option, load: Load, offers: Sequence[Offer]) -> Fleet | None:
    """So many of one server as the load takes; None where none of them answers as fast as is wished."""
    here, budget = option.base, option.limits.max_batch_total_tokens or 0
    assert here is not None
    each = _held(option, load)

    def fast(together: int) -> Speed:
        return speed.of(here, budget, together, load.request)

    if load.latency is not None:
        each = _last_in_time(fast, each, load, load.latency)
        if not each:
            return None
    replicas = math.ceil(load.users / each)
    if load.rps is not None and (most := fast(each).most) is not None:
        replicas = max(replicas, math.ceil(load.rps * load.answers.typical / most))
    if replicas > 1 and option.offer is not None:
        option = replace(option, offer=cheapest(offers, option.gpu, option.count, replicas))
    return Fleet(option, each, replicas, fast(min(each, math.ceil(load.users / replicas))))


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


def said(found: Speed) -> list[str]:
    """What there is to say of a server's speed."""
    lines = []
    if found.bound is not None:
        lines.append(
            f"Speed of the first: with {found.together} requests at once no more than {found.bound:,.0f} tokens/s; it "
            f"is full at {thousands(found.saturates)}."
        )
    if found.tokens:
        lines.append(f"{found.tokens.label.capitalize()}: {found.tokens.value:,.0f} tokens/s, {_band(found.tokens)}.")
    if found.first:
        first = found.first
        lines.append(f"{first.label.capitalize()}: first token after {amount(first.value)} s alone, {_band(first)}.")
    if found.why_not:
        lines.append(f"No estimate of tokens per second: {found.why_not}.")
    if found.note:
        lines.append(f"{found.note[:1].upper()}{found.note[1:]}.")
    return lines


def _band(figure: speed.Figure) -> str:
    return f"{band(figure)} (within a factor of {figure.factor:g})"


def _estimate(figure: speed.Figure | None, digits: int) -> tuple[object, ...]:
    """The values of an estimate: the middle, the factor it holds within, its label."""
    if figure is None:
        return None, None, None
    return round(figure.value, digits) if digits else round(figure.value), figure.factor, figure.label


def _row(fleet: Fleet) -> tuple[object, ...]:
    one, fast = fleet.option, fleet.speed
    return (
        one.model, one.quantize, one.gpu, one.count, fleet.replicas, fleet.gpus, one.release,
        one.limits.max_input_tokens, one.limits.max_total_tokens, one.limits.max_batch_prefill_tokens, fleet.each,
        None if fast.bound is None else round(fast.bound), *_estimate(fast.tokens, 0), *_estimate(fast.first, 3),
        one.under_load,
        one.offer and one.offer.instance, fleet.instances, fleet.price, *price_said(one.offer),
    )  # fmt: skip
