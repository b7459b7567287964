"""`fits`: what runs where.

With a GPU, which models; with a model, which GPUs and how many of them; with both, how many users at which context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tgi_advisor import tabular
from tgi_advisor.choose.compare import COLUMNS as COMPARED
from tgi_advisor.choose.compare import LESS_WANTED, PRICE_SAID, Comparison, Known, beyond, nothing_known, row
from tgi_advisor.choose.option import Option, judge, refused, remembered
from tgi_advisor.choose.words import without_room, wrapped
from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts import families
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.spec.records import Bound, GpuSpec, Spec
from tgi_advisor.tabular import Answer, Column, Table
from tgi_advisor.units import thousands

SHORTEST = 4096
"""Tokens of the first rung of the ladder."""


@dataclass(frozen=True, repr=False)
class Models(Answer):
    """The models that run on one machine."""

    gpu: str
    """Name of the GPU."""
    count: int
    """How many of it."""
    options: tuple[Option, ...]
    """One for every model: those that start, the longest context first; then the others."""
    shorter: int = 0
    """Models that were not asked about, because their own context is shorter than what is asked for."""

    def table(self) -> Table:
        """One row for every model that starts."""
        starting = tuple(row(option) for option in self.options if option.starts)
        return tabular.without(Table(COMPARED, starting), {"gpu", "count", *PRICED})

    def nothing(self) -> str:
        """That no model starts."""
        started = any(option.starts for option in self.options)
        return "" if started else f"None of {self._tried()} shipped models starts on {self.count} x {self.gpu}."

    def _tried(self) -> str:
        """How many models there are, those of too short a context apart."""
        return (
            f"{len(self.options)} (beside {self.shorter} of a shorter context)"
            if self.shorter
            else f"{len(self.options)}"
        )

    def text(self, width: int) -> str:
        """The models as a terminal of so many columns shows them."""
        starting = sum(option.starts for option in self.options)
        shown, same = tabular.constants(tabular.without(self.table(), {"why", "outcome"}), ("release",))
        release = f", TGI {same['release']}" if "release" in same else ""
        head = f"{self.count} x {self.gpu}{release}: {starting} of {self._tried()} shipped models start."
        if fewer := sum(option.starts and option.num_shard not in (None, self.count) for option in self.options):
            head += f" {fewer} of them use{'s' if fewer == 1 else ''} fewer of the {self.count} GPUs."
        lines = wrapped(head, width)
        if starting:
            spare = (*LESS_WANTED, "kv_cache_dtype")
            lines += ["", tabular.text(shown, width, spare)]
            if missing := without_room(tabular.left_out(shown, width, spare), width):
                lines += ["", *missing]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Rung:
    """A context, and how many users have it at once."""

    context: int
    """max_total_tokens."""
    option: Option
    """The search with the context pinned."""


RUNGS = (
    Column("max_total_tokens", "CONTEXT", "count", "max_total_tokens of every request."),
    Column("concurrency", "AT ONCE", "count", "Requests of that length in the KV cache together; 0 where none fits."),
    Column("max_batch_prefill_tokens", "PREFILL", "count", "max_batch_prefill_tokens."),
    Column("under_load", "UNDER LOAD", "text", "Whether it survives its traffic."),
    Column("headroom_bytes", "SPARE GiB", "bytes", "Memory of one GPU left over; negative: missing."),
)


@dataclass(frozen=True, repr=False)
class Ladder(Answer):
    """How many users one deployment has at which context."""

    largest: Option
    """The search with nothing pinned."""
    rungs: tuple[Rung, ...]
    """The contexts, shortest first, up to the largest that starts."""

    def table(self) -> Table:
        """One row for every context."""
        return Table(RUNGS, tuple(self._row(rung) for rung in self.rungs))

    def nothing(self) -> str:
        """Why it does not start."""
        one = self.largest
        return "" if one.starts else f"{one.model} on {one.name}, TGI {one.release} does not start: {one.why}"

    def _row(self, rung: Rung) -> tuple[object, ...]:
        one = rung.option
        prefill = one.limits.max_batch_prefill_tokens
        return rung.context, one.concurrency if one.starts else 0, prefill, one.under_load, one.headroom_bytes

    def text(self, width: int) -> str:
        """The ladder as a terminal of so many columns shows it."""
        one = self.largest
        where = f"{one.model} on {one.name}, TGI {one.release}"
        if not one.starts:
            return "\n".join(wrapped(self.nothing(), width))
        held = f", {thousands(one.concurrency)} at once" if one.concurrency else ""
        some = f", on {one.num_shard} of the {one.count} GPUs" if one.num_shard not in (None, one.count) else ""
        lines = wrapped(f"{where}: up to {thousands(one.total)} tokens{held}{some}.", width)
        lines += ["", tabular.text(self.table(), width)]
        if past := beyond([one]):
            lines += ["", *wrapped(past, width)]
        return "\n".join(lines)


def models(
    spec: Spec, candidates: Iterable[Facts], of: int, progress: Callable[[int, int], None] | None = None
) -> Models:
    """Judge so many models (`of`) on the GPU and count of their facts, within the bounds of `spec`.

    TGI starts with requests longer than a model was made for; such a model is not what was asked for.
    """
    options, shorter, asked = [], 0, spec.limits.max_total_tokens.low
    for number, facts in enumerate(candidates, 1):
        context = families.context_length(facts.model)
        if asked is not None and context is not None and context < asked:
            shorter += 1
        else:
            options.append(judge(on(spec, facts), facts))
        if progress is not None:
            progress(number, of)
    order = sorted(options, key=lambda one: (not one.starts, one.under_load == "at risk", -one.total, one.model))
    return Models(facts.gpu.name, facts.gpu_count, tuple(order), shorter)


def on(spec: Spec, facts: Facts) -> Spec:
    """The spec for the model and the hardware of some facts, on as many shards as there are GPUs."""
    model = replace(spec.model, id=facts.model.id)
    hardware = replace(spec.hardware, gpu=GpuSpec(name=facts.gpu.name), count=facts.gpu_count)
    return replace(spec, model=model, hardware=hardware)


@dataclass(frozen=True, repr=False)
class Places(Comparison):
    """The GPUs a model runs on, each with the fewest that start it; every option where none starts."""

    folded: tuple[Option, ...] = ()
    """The same with other weights, where they are not among the options."""
    tried: int = 0
    """GPUs that were tried."""

    def started(self) -> str:
        """How many GPUs there are, and what is not shown."""
        cards = {option.gpu for option in self.options if option.starts}
        if not cards:
            return super().started()
        said = f"{len(cards)} of {self.tried} GPUs run it; of each the fewest that do."
        more = len(self.folded)
        return f"{said} {more} row{'s' if more > 1 else ''} with other weights: --all." if more else said


def places(found: Comparison, *, every: bool = False) -> Places:
    """Of every GPU the fewest that start, cheapest first where prices are known; all options where none does.

    Among weights that as many GPUs start it is those not at risk under load, then those with the longest context; with
    `every` each kind of weights has a row.
    """
    fewest: dict[tuple[str, str, str], Option] = {}
    for option in found.options:
        key = (option.gpu, option.model, option.quantize)
        if option.starts and (key not in fewest or option.count < fewest[key].count):
            fewest[key] = option
    if not fewest:
        return Places(found.model, found.options)
    kept = list(fewest.values())
    if not every:
        best: dict[str, Option] = {}
        for option in sorted(kept, key=_worth):
            best.setdefault(option.gpu, option)
        kept = list(best.values())
    kept.sort(key=lambda one: (one.price is None, one.price or 0, one.count, one.memory_bytes))
    folded = tuple(one for one in fewest.values() if one not in kept)
    return Places(found.model, tuple(kept), folded, len({option.gpu for option in found.options}))


def _worth(option: Option) -> tuple[object, ...]:
    """What options on one GPU are sorted by, the best first."""
    return option.count, option.under_load == "at risk", -option.total, -(option.concurrency or 0), option.quantize


def ladder(spec: Spec, facts: Facts) -> Ladder:
    """How many requests fit at once at every context from 4k on, doubled up to the largest that starts."""
    asked = on(spec, facts)
    largest = judge(asked, facts)
    context = families.context_length(facts.model) or largest.total
    lengths = []
    length = SHORTEST
    while length < min(context, largest.total):
        lengths.append(length)
        length *= 2
    if context < largest.total:
        lengths.append(context)
    rungs = [Rung(length, _pinned(asked, facts, length)) for length in lengths]
    if largest.starts:
        rungs.append(Rung(largest.total, largest))
    return Ladder(largest, tuple(rungs))


def _pinned(spec: Spec, facts: Facts, length: int) -> Option:
    """The search for one context."""
    limits = replace(spec.limits, max_total_tokens=Bound(length, length))
    return judge(replace(spec, limits=limits), facts)


@dataclass(frozen=True, repr=False)
class Everywhere(Answer):
    """Every model on one of every GPU."""

    options: tuple[Option, ...]
    """Model by model, the cards from the smallest."""

    def table(self) -> Table:
        """One row for every model and GPU, those that do not start included."""
        return tabular.without(Table(COMPARED, tuple(map(row, self.options))), PRICED)

    def text(self, width: int) -> str:
        """One line a model: the smallest card that runs it, and the largest context there and anywhere."""
        shown = self._cards()
        cards = len({option.gpu for option in self.options})
        lines = wrapped(
            f"{len(shown.rows)} shipped models on one of {cards} GPUs. --format csv and --json have every pair.", width
        )
        spare = NARROW[0] if tabular.fits(shown, width, NARROW[0]) else NARROW[1]
        lines += ["", tabular.text(shown, width, spare)]
        if missing := without_room(tabular.left_out(shown, width, spare), width):
            lines += ["", *missing]
        return "\n".join(lines)

    def _cards(self) -> Table:
        """One row a model: on how many cards it runs, and what it has on the smallest."""
        of: dict[str, list[Option]] = {}
        for option in self.options:
            of.setdefault(option.model, []).append(option)
        return Table(CARDS, tuple(_smallest_card(model, options) for model, options in of.items()))

    def _repr_html_(self) -> str:
        """One row a model: every pair would be megabytes."""
        return tabular.html(self._cards())


PRICED = {"instance", "price_per_hour", "price_per_request", *PRICE_SAID}
CARDS = (
    Column("model", "MODEL", "text", "The model."),
    Column("cards", "GPUS", "count", "Cards one of which runs it."),
    Column("gpu", "SMALLEST", "text", "The card with the least memory among them."),
    Column("max_total_tokens", "CONTEXT", "count", "Largest max_total_tokens on it."),
    Column("concurrency", "AT ONCE", "count", "Requests of that length in its KV cache together."),
    Column("longest", "ANYWHERE", "count", "Largest max_total_tokens on any card."),
)
NARROW = (("longest", "concurrency"), ("concurrency", "max_total_tokens", "gpu", "longest"))
"""What goes first where a terminal is narrow, and what instead where that is not enough."""


def _smallest_card(model: str, options: Sequence[Option]) -> tuple[object, ...]:
    starting = [option for option in options if option.starts]
    if not starting:
        return model, 0, None, None, None, None
    first = min(starting, key=lambda one: (one.under_load == "at risk", one.memory_bytes, -one.total))
    return model, len(starting), first.gpu, first.total, first.concurrency, max(one.total for one in starting)


def everywhere(
    spec: Spec, candidates: Sequence[Facts], cards: Sequence[GpuFacts],
    progress: Callable[[int, int], None] | None = None, known: Known = nothing_known,
) -> Everywhere:  # fmt: skip
    """Judge every model on one of every card, but for those of which the answer is kept."""
    order = sorted(cards, key=lambda gpu: (gpu.system, gpu.at_least))
    options: list[Option] = []
    for facts in candidates:
        found, answers = [], known(on(spec, facts._replace(gpu_count=1)), facts)
        for gpu in order:
            try:
                there = facts.elsewhere(gpu, 1)
            except AdvisorError as error:
                there = facts._replace(gpu=gpu, gpu_count=1)
                found.append(refused(on(spec, there), there, error))
                continue
            asked, kept = on(spec, there), answers.get(gpu.name)
            found.append(judge(asked, there) if kept is None else remembered(asked, there, kept))
        options += sorted(found, key=lambda one: (one.memory_bytes, one.gpu))
        if progress is not None:
            progress(len(options), len(candidates) * len(cards))
    return Everywhere(tuple(options))
