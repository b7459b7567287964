"""`compare`: every way to serve one model, side by side.

The ways are the product of GPUs, counts, checkpoints with their quantization, releases and dtypes of the KV cache. One
that TGI refuses is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from tgi_advisor.choose.option import Option, judge, refused
from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.prices import Offer, cheapest
from tgi_advisor.spec.records import GpuSpec, Spec
from tgi_advisor.tabular import Column, Table, text

Purpose = Literal["context", "concurrency", "price"]
PURPOSES: tuple[Purpose, ...] = ("context", "concurrency", "price")
COUNTS = (1, 2, 4, 8)
"""Counts of GPUs that are compared when none are named."""


class Checkpoint(NamedTuple):
    """Weights to compare, and how TGI is told to hold them."""

    facts: Facts
    """What is true of a deployment of these weights; GPU, count and release are each option's own."""
    quantize: str | None
    """--quantize; None leaves it to the checkpoint's own quantization_config."""


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
    """--kv-cache-dtype; None is the spec's."""

    @property
    def size(self) -> int:
        """How many options there are."""
        return (
            len(self.checkpoints) * len(self.gpus) * len(self.counts) * len(self.releases) * len(self.kv_cache_dtypes)
        )


@dataclass(frozen=True, repr=False)
class Comparison:
    """Options side by side."""

    options: tuple[Option, ...]
    """Those that start first, in the order asked for; then those that do not, with the reason."""

    @property
    def best(self) -> Option | None:
        """The first option that starts; None where none does."""
        return next((option for option in self.options if option.starts), None)

    def table(self) -> Table:
        """One row for every option."""
        return Table(COLUMNS, tuple(_row(option) for option in self.options))

    def records(self) -> list[dict[str, object]]:
        """The rows as `pandas.DataFrame` takes them."""
        from tgi_advisor.tabular import records

        return records(self.table())

    def __repr__(self) -> str:
        return text(self.table(), 140)

    def _repr_html_(self) -> str:
        from tgi_advisor.tabular import html

        return html(self.table())


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
    Column("instance", "INSTANCE", "text", "The cheapest instance with a known price that carries so many of the GPU."),
    Column("price_per_hour", "PER HOUR", "money", "Its on-demand list price."),
    Column("price_per_request", "PER REQUEST", "money", "The same for one of the requests that run together."),
    Column("currency", "", "text", "Currency of the prices."),
    Column("why", "BOUND BY", "text", "What keeps the context from growing, or why it does not start."),
)


def compare(
    spec: Spec,
    ways: Ways,
    *,
    purpose: Purpose | None = None,
    offers: Sequence[Offer] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Judge every way to serve the model of `spec`, whose bounds all options have to keep.

    `progress` is told after each option how many are done, of how many.
    """
    options = []
    for option in _options(spec, ways, offers):
        options.append(option)
        if progress is not None:
            progress(len(options), ways.size)
    return Comparison(tuple(sorted(options, key=_order(purpose))))


def _options(spec: Spec, ways: Ways, offers: Sequence[Offer]) -> Iterator[Option]:
    """Every option, those that share a replay of the warm-up one after the other."""
    cards = sorted(ways.gpus, key=lambda gpu: (gpu.system, gpu.at_least))
    for weights in ways.checkpoints:
        for release in ways.releases:
            for dtype in ways.kv_cache_dtypes:
                for count in ways.counts:
                    for gpu in cards:
                        offer = cheapest(offers, gpu.name, count)
                        yield _option(spec, weights, gpu, count, release, dtype, offer)


def _option(
    spec: Spec, weights: Checkpoint, gpu: GpuFacts, count: int, release: str | None, dtype: str | None,
    offer: Offer | None,
) -> Option:  # fmt: skip
    """One option judged."""
    model = replace(
        spec.model,
        id=weights.facts.model.id,
        quantize=weights.quantize,
        kv_cache_dtype=dtype or spec.model.kv_cache_dtype,
    )
    tgi = replace(spec.tgi, num_shard=count)
    if release is not None:
        tgi = replace(tgi, release=release, image=None)
    hardware = replace(spec.hardware, gpu=GpuSpec(name=gpu.name), count=count)
    asked = replace(spec, model=model, hardware=hardware, tgi=tgi)
    try:
        facts = weights.facts.elsewhere(gpu, count, release)
    except AdvisorError as error:
        return refused(asked, weights.facts._replace(gpu=gpu, gpu_count=count), error, offer)
    return judge(asked, facts, offer)


def _order(purpose: Purpose | None) -> Callable[[Option], tuple[object, ...]]:
    """What options are sorted by: those that start first, then what is asked for, then the least hardware."""

    def context(option: Option) -> tuple[object, ...]:
        return (-option.total, -(option.concurrency or 0))

    def concurrency(option: Option) -> tuple[object, ...]:
        return (-(option.concurrency or 0), -option.total)

    def price(option: Option) -> tuple[object, ...]:
        each = option.price_per_request
        return (each is None, each or 0.0, option.price or 0.0)

    first = {"context": context, "concurrency": concurrency, "price": price, None: lambda _: ()}[purpose]

    def key(option: Option) -> tuple[object, ...]:
        hardware = (option.count, option.memory_bytes, option.gpu)
        risky = option.under_load == "at risk"
        return (not option.starts, option.outcome, risky, *first(option), *hardware, option.model, option.quantize)

    return key


def _row(option: Option) -> tuple[object, ...]:
    limits, offer = option.limits, option.offer
    return (
        option.model, option.quantize, option.gpu, option.count, option.release, option.kv_cache_dtype, option.outcome,
        limits.max_total_tokens, option.concurrency, limits.max_batch_prefill_tokens, option.under_load,
        option.headroom_bytes, offer and offer.instance, option.price, option.price_per_request,
        offer and offer.currency, option.why,
    )  # fmt: skip
