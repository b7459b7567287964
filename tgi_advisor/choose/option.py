"""One way to serve a model, judged by the search that `advise` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tgi_advisor import search
from tgi_advisor.choose.words import told
from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.speed import Served, served
from tgi_advisor.estimate.underload import Safety
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.prices import Offer
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Outcome
from tgi_advisor.spec.records import Bound, LimitsSpec, Spec
from tgi_advisor.verdict import why, why_refused


@dataclass(frozen=True, slots=True)
class Option:
    """One way to serve a model, and what the search says of it."""

    model: str
    """Hub id of the checkpoint, or its folder."""
    gpu: str
    """Name of the GPU."""
    count: int
    """GPUs of the container."""
    release: str
    """TGI release."""
    quantize: str
    """How the weights are held: `none`, or a value of --quantize."""
    kv_cache_dtype: str
    """dtype of the KV cache; empty where the option was refused before that is known."""
    num_shard: int | None
    """Tensor parallel shards; None where it is not known."""
    outcome: Outcome
    """Whether TGI starts with the limits found, refuses, or runs out of memory."""
    limits: Limits
    """The largest limits that fit; all None where it does not start."""
    concurrency: int | None
    """Requests of max_total_tokens in the KV cache together."""
    under_load: Safety | None
    """Whether it survives its traffic; None where that is not judged."""
    headroom_bytes: int | None
    """Bytes of one GPU that could vanish with the limits still holding; negative: what is missing; None: refused."""
    memory_bytes: int
    """Memory of one GPU."""
    why: str
    """What keeps the context from growing, or why it does not start."""
    spec: Spec = field(compare=False, repr=False)
    """The deployment, with the limits found where it starts."""
    facts: Facts = field(compare=False, repr=False)
    """What the search went by."""
    offer: Offer | None = None
    """The cheapest instance that carries so many of the GPU; None where no price is known."""
    searched: Base | None = field(default=None, compare=False, repr=False)
    """The launch before its warm-up, as it was searched; None where it was not."""

    @property
    def base(self) -> Base | None:
        """The launch before its warm-up; None where there is none."""
        if self.searched is None and self.starts:
            return warmup.base(defaults.resolve(self.spec, self.facts, self.num_shard))
        return self.searched

    @property
    def starts(self) -> bool:
        """Whether TGI starts with the limits that were found."""
        return self.outcome == "starts"

    @property
    def name(self) -> str:
        """The option in words."""
        weights = "" if self.quantize == "none" else f" ({self.quantize})"
        return f"{self.count} x {self.gpu}{weights}"

    @property
    def total(self) -> int:
        """Tokens of the longest request; 0 where it does not start."""
        return self.limits.max_total_tokens or 0

    @property
    def price(self) -> float | None:
        """Price of the instance per hour, in the offer's currency."""
        return self.offer.per_hour if self.offer else None

    @property
    def price_per_request(self) -> float | None:
        """Price per hour of one full-length request among those that run together."""
        if self.offer is None or not self.starts or not self.concurrency:
            return None
        return self.offer.per_hour / self.concurrency

    @property
    def binds(self) -> str:
        """What keeps the context from growing, in a word; empty where it does not start."""
        if not self.starts:
            return ""
        return next((word for beginning, word in BINDS if self.why.startswith(beginning)), "a rule of TGI")

    @property
    def speed(self) -> Served | None:
        """How fast it is with the longest requests it takes; None where it does not start."""
        here = self.base if self.starts else None
        return served(here, self.limits, self.concurrency) if here is not None else None


BINDS = (
    ("memory", "memory"), ("the model's context", "model"), ("limits.", "spec"), ("no room for a prompt", "spec"),
    (search.TOO_RISKY, "load"), (search.GRAPHS_FIRST, "CUDA graphs"),
)  # fmt: skip
"""How the search's reasons begin, and what they are in a word."""
NO_LIMITS = Limits()


def judge(spec: Spec, facts: Facts, offer: Offer | None = None) -> Option:
    """What the search finds for one spec; one that cannot even be asked about counts as refused, with the reason."""
    try:
        refusal = search.refused(spec, facts)
        if refusal is not None:
            setting, said = refusal
            return _refused(spec, facts, why_refused(said), setting, offer)
        advice = search.best(spec, facts)
    except AdvisorError as error:
        return refused(spec, facts, error, offer)
    found, setting = advice.found, advice.base.setting
    prediction = search.outcome(found, spec.workload.concurrency)
    starts = prediction.outcome == "starts"
    return Option(
        model=facts.model.id,
        gpu=facts.gpu.name,
        count=facts.gpu_count,
        release=facts.release.name,
        quantize=setting.quantize or "none",
        kv_cache_dtype=prediction.kv_cache_dtype,
        num_shard=prediction.num_shard,
        outcome=prediction.outcome,
        limits=prediction.limits if starts else NO_LIMITS,
        concurrency=prediction.concurrency if starts else None,
        under_load=prediction.under_load.verdict if starts and prediction.under_load else None,
        headroom_bytes=None if prediction.outcome == "refused" else prediction.headroom_bytes,
        memory_bytes=facts.gpu.memory_bytes,
        spec=_found(advice.base.setting.spec, prediction.limits) if starts else spec,
        facts=facts,
        why=(found.search.bound_by or "") if starts else why(prediction),
        offer=offer,
        searched=advice.base,
    )


def kept(option: Option) -> tuple[object, ...]:
    """What a search adds to the question, for `remembered`."""
    return (
        option.quantize, option.kv_cache_dtype, option.num_shard, option.outcome, [*option.limits],
        option.concurrency, option.under_load, option.headroom_bytes, option.memory_bytes, option.why,
    )  # fmt: skip


def meets(asked: LimitsSpec, found: Sequence[Any]) -> bool:
    """Whether what was kept of a search without bounds answers one with nothing but floors, too."""
    outcome, limits = found[3], found[4]
    return outcome == "starts" and asked.floors_hold(Limits(*limits))


def remembered(spec: Spec, facts: Facts, found: Sequence[Any], offer: Offer | None = None) -> Option:
    """The option that `judge` made of a spec once, of what was kept of it: all but the launch before its warm-up."""
    quantize, kv_cache_dtype, num_shard, outcome, limits, concurrency, under_load, headroom, memory, why = found
    return Option(
        facts.model.id, facts.gpu.name, facts.gpu_count, facts.release.name, quantize, kv_cache_dtype, num_shard,
        outcome, Limits(*limits), concurrency, under_load, headroom, memory, why,
        _found(spec, Limits(*limits)) if outcome == "starts" else spec, facts, offer,
    )  # fmt: skip


def refused(spec: Spec, facts: Facts, error: AdvisorError, offer: Offer | None = None) -> Option:
    """The option of a spec that cannot even be asked about, with the reason."""
    return _refused(spec, facts, told(error), None, offer)


def _refused(spec: Spec, facts: Facts, reason: str, setting: Setting | None, offer: Offer | None) -> Option:
    """The option that is refused, as far as its launch is known."""
    quantize = spec.model.quantize if setting is None else setting.quantize
    kv_cache_dtype, num_shard = ("", None) if setting is None else (setting.kv_dtype, setting.num_shard)
    return Option(
        facts.model.id, facts.gpu.name, facts.gpu_count, facts.release.name, quantize or "none", kv_cache_dtype,
        num_shard, "refused", NO_LIMITS, None, None, None, facts.gpu.memory_bytes, reason, spec, facts, offer,
    )  # fmt: skip


def _found(spec: Spec, limits: Limits) -> Spec:
    """The spec with the limits pinned to what was found."""
    pinned = (limits.max_input_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens)
    return replace(spec, limits=LimitsSpec(*(Bound(value, value) for value in pinned)))
