"""`compare`: every way to serve one model, side by side.

The ways are the product of GPUs, counts, checkpoints with their quantization, releases and dtypes of the KV cache. One
that TGI refuses is listed with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from tgi_advisor import report, search, tabular
from tgi_advisor.choose.option import Option, judge, refused, remembered
from tgi_advisor.choose.words import listed_short, without_room, wrapped
from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate.speed import Served
from tgi_advisor.facts import families
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.answered import Answers
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.prices import Offer, cheapest
from tgi_advisor.spec.records import GpuSpec, Spec
from tgi_advisor.tabular import Answer, Column, Table
from tgi_advisor.units import thousands

Purpose = Literal["context", "concurrency", "price"]
Known = Callable[[Spec, Facts], Answers]
"""What is known from before of a spec on every GPU, of which the spec may name any."""
COUNTS = (1, 2, 4, 8)
"""Counts of GPUs that are compared when none are named, whether the model can be split so or not: as machines have."""


def nothing_known(*_: object) -> Answers:
    """That nothing is."""
    return {}


class Checkpoint(NamedTuple):
    """Weights to compare, and how TGI is told to hold them."""

    facts: Facts
    """What is true of a deployment of these weights; GPU, count and release are each option's own."""
    quantize: str | None
    """--quantize; None leaves it to the checkpoint's own quantization_config."""


def counts(spec: Spec, checkpoints: Sequence[Checkpoint]) -> tuple[int, ...]:
    """The counts of GPUs to compare where none are named: `COUNTS`, and all others up to the last of these over which a
    checkpoint can be split.
    """
    found = set(COUNTS)
    for weights in checkpoints:
        model = replace(spec.model, id=weights.facts.model.id, quantize=weights.quantize)
        asked = replace(spec, model=model, tgi=replace(spec.tgi, num_shard=None))
        with suppress(AdvisorError):  # each option says why
            found.update(search.shard_counts(asked, weights.facts._replace(gpu_count=max(COUNTS))))
    return tuple(sorted(found))


class Ways(NamedTuple):
    """What is varied."""

    checkpoints: tuple[Checkpoint, ...]
    """The weights."""
    gpus: tuple[GpuFacts, ...]
    """The cards."""
    counts: tuple[int, ...]
    """How many of them."""
    releases: tuple[str | None, ...] = (None,)
    """TGI releases; None is the spec's."""
    kv_cache_dtypes: tuple[str | None, ...] = (None,)
    """--kv-cache-dtype; `auto` is TGI's own choice, None the spec's."""
    stated: Mapping[str, GpuSpec] = MappingProxyType({})
    """What was stated by hand of some cards, by their names."""

    @property
    def size(self) -> int:
        """How many options there are."""
        return (
            len(self.checkpoints) * len(self.gpus) * len(self.counts) * len(self.releases) * len(self.kv_cache_dtypes)
        )


@dataclass(frozen=True, repr=False)
class Comparison(Answer):
    """Options side by side."""

    model: str
    """Hub id of the model that was asked about, or its folder."""
    options: tuple[Option, ...]
    """Those that start first, in the order asked for; then those that do not, with the reason."""

    @property
    def best(self) -> Option | None:
        """The first option that starts; None where none does."""
        return next((option for option in self.options if option.starts), None)

    def table(self) -> Table:
        """One row for every option."""
        return _table(self.options)

    def nothing(self) -> str:
        """Why no option starts."""
        return "" if self.best else f"No option starts; {nearest(self.options)}"

    def text(self, width: int, today: date | None = None) -> str:
        """The options as a terminal of so many columns shows them."""
        starting = [option for option in self.options if option.starts]
        once = {"model", "outcome", "why", *PRICE_SAID, "tokens_per_s", "tokens_per_s_factor", "tokens_per_s_label"} | (
            {"kv_cache_dtype"} if self._one_kv_cache else set()
        )
        shown, same = tabular.constants(tabular.without(_table(starting), once), self._common())
        said = [f"{one.heading} {same[one.key]}" for one in COLUMNS if one.heading and same.get(one.key)]
        lines = [*wrapped(", ".join([self.model, *said]), width), *checkpoints(self.options)]
        lines += [*wrapped(self.started(), width), ""]
        if starting:
            spare = _spare(starting)
            lines += [tabular.text(shown, width, spare), ""]
            if missing := without_room(tabular.left_out(shown, width, spare), width):
                lines += [*missing, ""]
        lines += [*wrapped(past, width), ""] if (past := beyond(starting)) else []
        lines += _not_starting(self.options, width)
        if starting and (fast := report.speed(starting[0].speed)):
            lines += wrapped(f"Speed of the first: {fast}.", width)
        for sentence in prices_said(starting, today or date.today()):
            lines += wrapped(sentence, width)
        return "\n".join(lines).rstrip()

    def started(self) -> str:
        """How many options start, of how many."""
        return f"{sum(option.starts for option in self.options)} of {len(self.options)} options start."

    def _common(self) -> list[str]:
        """The columns of `SAID_ONCE` in which all options are the same, those that do not start too."""
        return [name for name in SAID_ONCE if len({getattr(one, name) for one in self.options} - {""}) == 1]

    @property
    def _one_kv_cache(self) -> bool:
        """Whether nobody asked for several dtypes of the KV cache (cards may have their own)."""
        return not any(option.kv_cache_dtype.startswith("fp8") for option in self.options)


PRICE_SAID = ("currency", "price_date", "price_is_old")
"""What a terminal shows in a sentence, for all prices at once."""
LESS_WANTED = (
    "headroom_bytes", "max_batch_prefill_tokens", "bound_tokens_per_s", "binds", "under_load", "instance",
    "price_per_hour", "price_per_request",
)  # fmt: skip
"""Columns that go first where a terminal is narrow."""
SAID_ONCE = ("quantize", "gpu", "count", "release", "kv_cache_dtype")
"""Further columns that are said once where all rows say the same."""


def _spare(options: Sequence[Option]) -> tuple[str, ...]:
    """`LESS_WANTED`; the verdict under load stays longest where some are at risk."""
    risky = any(option.under_load == "at risk" for option in options)
    return (*(name for name in LESS_WANTED if name != "under_load"), "under_load") if risky else LESS_WANTED


def nearest(failed: Sequence[Option]) -> str:
    """The option that misses least, and why it does not start; of the others what TGI refuses most of them for."""
    least = max(failed, key=_nearness)
    why = f"TGI {least.release} refuses: {least.why}" if least.outcome == "refused" else least.why
    said = f"{least.name}: {why}" if len(failed) > 1 else why
    reasons = Counter(one.why for one in failed if one.outcome == "refused")
    if least.outcome == "refused" or not reasons:
        return said
    ((reason, _),) = reasons.most_common(1)
    refused_ones = reasons.total()
    return f"{said}; TGI refuses {refused_ones} other{'s' if refused_ones > 1 else ''}: {reason}"


def _nearness(option: Option) -> tuple[object, ...]:
    """How near an option comes; where several requests are to be held, the larger machine comes nearer.

    What is missing is said of the stage that fails, and one that cannot load says nothing of the KV cache.
    """
    left, short = option.headroom_bytes or 0, option.outcome == "out_of_memory"
    if option.spec.workload.concurrency > 1:
        return short, option.count * option.memory_bytes, left
    return short, left, 0


def beyond(options: Sequence[Option]) -> str:
    """That the longest requests are longer than the model was made for, which TGI does not look at; else empty."""
    longest = max(options, key=lambda one: one.total, default=None)
    context = None if longest is None else families.context_length(longest.facts.model)
    if longest is None or context is None or longest.total <= context:
        return ""
    return (
        f"max_total_tokens {thousands(longest.total)} is above the model's context of {thousands(context)} tokens: TGI "
        "does not look, and answers beyond it are noise."
    )


def _table(options: Sequence[Option]) -> Table:
    return Table((*COLUMNS, *FAST), tuple((*row(option), *_fast(option.speed)) for option in options))


def checkpoints(options: Sequence[Option]) -> list[str]:
    """Which checkpoint stands behind which weights, where there are several."""
    known = dict.fromkeys((option.model, option.quantize) for option in options)
    if len({model for model, _ in known}) == 1:
        return []
    return [f"  {weights}: {model}" for model, weights in known]


def _not_starting(options: Sequence[Option], width: int) -> list[str]:
    """The options that do not start: what is missing, or what TGI says."""
    short = [option for option in options if option.outcome == "out_of_memory"]
    lines = []
    if short:
        rows = tuple(_short(option) for option in short)
        table = tabular.without(Table(SHORT, rows), {"model"})
        weights = () if len({option.quantize for option in options}) > 1 else ("quantize",)
        shown, _ = tabular.constants(table, (*weights, "release", "kv_cache_dtype"))
        lines += ["Out of memory:", tabular.text(shown, width), ""]
    releases = len({option.release for option in options}) > 1
    reasons: dict[str, list[str]] = {}
    for option in options:
        if option.outcome == "refused":
            release = f" with TGI {option.release}" if releases else ""
            reasons.setdefault(option.why, []).append(f"{option.name}{release}")
    if reasons:
        lines.append("Refused:")
        for reason, names in reasons.items():
            lines += wrapped(f"{listed_short(list(dict.fromkeys(names)))}: {reason}", width, "  ", "    ")
        lines.append("")
    return lines


def prices_said(options: Sequence[Option], today: date) -> list[str]:
    """What to know about the prices that are shown: where they hold, of when they are, and that they are old."""
    offers = {option.offer for option in options if option.offer}
    if not options:
        return []
    if not offers:
        return ["No price is known of an instance with these GPUs: --prices FILE takes your own."]
    days = sorted({offer.date for offer in offers})
    regions = sorted({f"{offer.cloud} {offer.region}" for offer in offers})
    since = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    money = ", ".join(sorted({offer.currency for offer in offers}))
    said = [f"Prices: {money}, on demand, without discounts, {', '.join(regions)}, of {since}."]
    old = sorted({offer.instance for offer in offers if offer.is_old(today)})
    if old:
        said.append(
            f"Older than such prices hold: {listed_short(old)}. Take them as a hint, or give your own: --prices FILE."
        )
    return said


COLUMNS = (
    Column("model", "MODEL", "text", "The checkpoint."),
    Column("quantize", "WEIGHTS", "text", "How the weights are held: `none`, or a value of --quantize."),
    Column("gpu", "GPU", "text", "The card."),
    Column("count", "COUNT", "count", "GPUs of the container, and tensor parallel shards."),
    Column("release", "TGI", "text", "The TGI release."),
    Column("kv_cache_dtype", "KV CACHE", "text", "dtype of the KV cache."),
    Column("outcome", "FITS", "text", "`starts`, `out_of_memory` or `refused`."),
    Column("max_total_tokens", "CONTEXT", "count", "Largest max_total_tokens."),
    Column("concurrency", "AT ONCE", "count", "Requests of that length in the KV cache together."),
    Column("max_batch_prefill_tokens", "PREFILL", "count", "max_batch_prefill_tokens."),
    Column("under_load", "UNDER LOAD", "text", "Whether it survives its traffic."),
    Column("headroom_bytes", "SPARE GiB", "bytes", "Memory of one GPU left over; negative: missing."),
    Column("binds", "BINDS", "text", "What keeps the context from growing, in a word."),
    Column("instance", "INSTANCE", "text", "The cheapest instance with a known price that carries so many of the GPU."),
    Column("price_per_hour", "PER HOUR", "money", "Its on-demand list price."),
    Column("price_per_request", "PER REQUEST", "money", "The same for one of the requests that run together."),
    Column("currency", "CURRENCY", "text", "Currency of the prices."),
    Column("price_date", "PRICE OF", "text", "The day the price was read, as YYYY-MM-DD."),
    Column("price_is_old", "OLD PRICE", "flag", "Whether it is older than such prices hold."),
    Column("why", "BOUND BY", "text", "What keeps the context from growing, or why it does not start."),
)


FAST = (
    Column(
        "bound_tokens_per_s", "TOKENS/S AT MOST", "count",
        "What it cannot exceed, by its bandwidth, with as many requests of that length as it holds.",
    ),
    Column("tokens_per_s", "ESTIMATE", "count", "Tokens per second with them; empty where nothing supports one."),
    Column("tokens_per_s_factor", "WITHIN x/", "figure", "The factor the estimate holds within."),
    Column("tokens_per_s_label", "LABEL", "text", "`estimated`, `rough` or `calibrated`."),
)  # fmt: skip
"""Further columns of `compare`: how fast an option is."""


def _fast(found: Served | None) -> tuple[object, ...]:
    """The values under `FAST`."""
    busy = (found.full or found.alone) if found else None
    tokens = busy.tokens if busy else None
    estimate = (None, None, None) if tokens is None else (round(tokens.value), tokens.factor, tokens.label)
    return busy and busy.bound and round(busy.bound), *estimate


def compare(
    spec: Spec,
    ways: Ways,
    *,
    purpose: Purpose | None = None,
    offers: Sequence[Offer] = (),
    progress: Callable[[int, int], None] | None = None,
    known: Known = nothing_known,
) -> Comparison:
    """Judge every way to serve the model of `spec`, whose bounds all options have to keep, but what is `known`.

    `progress` is told after each option how many are done, of how many.
    """
    options = []
    for option in _options(spec, ways, offers, known):
        options.append(option)
        if progress is not None:
            progress(len(options), ways.size)
    return Comparison(spec.model.id, tuple(sorted(options, key=_order(purpose))))


def _options(spec: Spec, ways: Ways, offers: Sequence[Offer], known: Known) -> Iterator[Option]:
    """Every option, those that share a replay of the warm-up one after the other."""
    cards = sorted(ways.gpus, key=lambda gpu: (gpu.system, gpu.at_least))
    for weights in ways.checkpoints:
        for release in ways.releases:
            for dtype in ways.kv_cache_dtypes:
                for count in ways.counts:
                    anywhere = _anywhere(spec, weights, count, release, dtype)
                    answers = known(anywhere, weights.facts)
                    for gpu in cards:
                        offer = cheapest(offers, gpu.name, count)
                        own = spec.hardware.gpu if spec.hardware.gpu.name == gpu.name else GpuSpec(name=gpu.name)
                        named = ways.stated.get(gpu.name, own)
                        asked = replace(anywhere, hardware=replace(anywhere.hardware, gpu=named))
                        answer = None if gpu.name in ways.stated else answers.get(gpu.name)
                        yield _option(asked, weights, gpu, count, release, offer, answer)


def _anywhere(spec: Spec, weights: Checkpoint, count: int, release: str | None, dtype: str | None) -> Spec:
    """The spec of an option but for its GPU."""
    own = weights.facts.model.id.lower() == spec.model.id.lower()
    model = replace(
        spec.model,
        id=weights.facts.model.id,
        revision=spec.model.revision if own else "main",  # of another repository
        quantize=weights.quantize,
        kv_cache_dtype=None if dtype == "auto" else dtype or spec.model.kv_cache_dtype,
    )
    tgi = replace(spec.tgi, num_shard=count)
    if release is not None:
        tgi = replace(tgi, release=release, image=None)
    return replace(spec, model=model, hardware=replace(spec.hardware, count=count), tgi=tgi)


def _option(
    spec: Spec, weights: Checkpoint, gpu: GpuFacts, count: int, release: str | None, offer: Offer | None,
    answer: Sequence[Any] | None,
) -> Option:  # fmt: skip
    """One option judged, or what is known of it."""
    machine = spec.hardware
    if gpu.system != "cuda" and (machine.driver or machine.link):  # NVIDIA's
        spec = replace(spec, hardware=replace(machine, driver=None, link=None))
    try:
        facts = weights.facts.elsewhere(gpu, count, release)
    except AdvisorError as error:
        named_release = weights.facts.release if release is None else releases.find(release)
        there = weights.facts._replace(gpu=gpu, gpu_count=count, release=named_release)
        return refused(spec, there, error, offer)
    if spec.tgi.image is not None and facts.variant != weights.facts.variant:  # an image for other cards
        spec = replace(spec, tgi=replace(spec.tgi, image=None, release=facts.release.name))
    return judge(spec, facts, offer) if answer is None else remembered(spec, facts, answer, offer)


def _order(purpose: Purpose | None) -> Callable[[Option], tuple[object, ...]]:
    """What options are sorted by: those that start first, then what is asked for, then the least hardware."""

    def context(option: Option) -> tuple[object, ...]:
        return (-option.total, -(option.concurrency or 0))

    def concurrency(option: Option) -> tuple[object, ...]:
        return (-(option.concurrency or 0), -option.total)

    def price(option: Option) -> tuple[object, ...]:
        each, whole = option.price_per_request, option.price
        return (each is None, each or 0.0, whole is None, whole or 0.0)

    wished = {"context": context, "concurrency": concurrency, "price": price}.get(purpose or "")

    def key(option: Option) -> tuple[object, ...]:
        hardware = (option.count, option.memory_bytes, option.gpu)
        risky = option.under_load == "at risk"
        first = wished(option) if wished else ()
        return (not option.starts, option.outcome, risky, *first, *hardware, option.model, option.quantize)

    return key


SHORT = tuple(
    column._replace(heading="MISSING GiB") if column.key == "headroom_bytes" else column
    for column in COLUMNS
    if column.key in ("model", "quantize", "gpu", "count", "release", "kv_cache_dtype", "headroom_bytes", "why")
)
"""Columns of the options that run out of memory."""


def _short(option: Option) -> tuple[object, ...]:
    missing = -option.headroom_bytes if option.headroom_bytes and option.headroom_bytes < 0 else None
    return (
        option.model, option.quantize, option.gpu, option.count, option.release, option.kv_cache_dtype, missing,
        "" if missing else option.why,
    )  # fmt: skip


def price_said(offer: Offer | None) -> tuple[object, ...]:
    """The values under `PRICE_SAID`."""
    return (None,) * len(PRICE_SAID) if offer is None else (offer.currency, offer.date, offer.is_old(date.today()))


def row(option: Option) -> tuple[object, ...]:
    """The values of one option, under `COLUMNS`."""
    limits, offer = option.limits, option.offer
    return (
        option.model, option.quantize, option.gpu, option.count, option.release, option.kv_cache_dtype, option.outcome,
        limits.max_total_tokens, option.concurrency, limits.max_batch_prefill_tokens, option.under_load,
        option.headroom_bytes, option.binds, offer and offer.instance, option.price, option.price_per_request,
        *price_said(offer), option.why,
    )  # fmt: skip
