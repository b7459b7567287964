"""What the page shows of a state: asked of the functions behind the commands, collected as records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from tgi_advisor import api, ask, report
from tgi_advisor.choose import compare as comparing
from tgi_advisor.choose import rough
from tgi_advisor.choose import size as sizing
from tgi_advisor.choose.compare import COUNTS, Checkpoint, Ways, prices_said
from tgi_advisor.choose.load import Load, lengths
from tgi_advisor.choose.option import Option
from tgi_advisor.deadline import Deadline
from tgi_advisor.errors import AdvisorError, Problem, UsageError
from tgi_advisor.estimate import defaults
from tgi_advisor.estimate.parts import Part
from tgi_advisor.facts import families
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import prices as pricing
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather.facts import gather, hardware
from tgi_advisor.gather.model import Source
from tgi_advisor.safe import masked
from tgi_advisor.search.lengths import new_tokens
from tgi_advisor.spec.reader import read_any
from tgi_advisor.spec.records import AUTO, Spec
from tgi_advisor.spec.writer import dump
from tgi_advisor.units import GB, gib, thousands
from tgi_advisor.web import state as states
from tgi_advisor.web.curve import Curve, curve
from tgi_advisor.web.state import State

LONGEST = 2.0
"""Seconds after which the table of GPUs judges no further one: a prefill budget that fits nowhere takes long."""
Tone = Literal["good", "warn", "bad"]


@dataclass(frozen=True)
class Where:
    """Where the facts about models come from."""

    source: Source = "auto"
    """As --source."""
    offline: bool = True
    """Whether the network is forbidden."""


@dataclass(frozen=True)
class Segment:
    """One part of the memory of a GPU."""

    name: str
    """What takes it."""
    size: str
    """How much, in words."""
    basis: str
    """`exact`, `modelled`, `calibrated`, or `rule of thumb`."""
    why: str
    """Where the number comes from."""
    x: float
    """Where it begins, in thousandths of the bar."""
    width: float
    """How wide it is, in thousandths of the bar."""
    bytes: int
    """The same in bytes."""


@dataclass(frozen=True)
class Bar:
    """The memory of one GPU, part by part."""

    title: str
    """Whose memory, and how much."""
    segments: tuple[Segment, ...]
    """From left to right."""
    end: float
    """Where the memory of the GPU ends, in thousandths of the bar."""
    missing: str
    """What is missing, in words; empty where nothing is."""


@dataclass(frozen=True)
class Row:
    """A figure with its name."""

    name: str
    """TGI's own name."""
    value: str
    """The number as it is shown."""
    note: str = ""
    """What to know about it."""
    raw: int | None = None
    """The number itself."""


@dataclass(frozen=True)
class Taken:
    """A text to take away."""

    name: str
    """Name in the address."""
    label: str
    """What it is called on the page."""
    file: str
    """Name of the downloaded file."""
    text: str
    """The text."""


@dataclass(frozen=True)
class Told:
    """An error in the page."""

    message: str
    """What happened."""
    problems: tuple[Problem, ...]
    """All that is wrong, where it is more than one thing."""
    hint: str
    """What to do next."""


@dataclass(frozen=True)
class Answer:
    """Everything the page says about a state but the table of GPUs."""

    tone: Tone
    """Green, yellow or red."""
    verdict: str
    """Whether it fits, in a sentence."""
    heading: str
    """Model, GPU and release."""
    reason: str = ""
    """Why it does not start, in TGI's words where it refuses."""
    refusals: tuple[str, ...] = ()
    """What else TGI refuses, once the first is mended."""
    limits_title: str = "Limits"
    """What kind of limits they are."""
    limits: tuple[Row, ...] = ()
    """The three limits, the budget with its band, and the requests at once."""
    bar: Bar | None = None
    """The memory."""
    curve: Curve | None = None
    """Requests at once against context."""
    notes: tuple[Row, ...] = ()
    """Under load, speed, what binds, warnings."""
    sources: tuple[Row, ...] = ()
    """Where the facts come from."""
    taken: tuple[Taken, ...] = ()
    """What can be taken away."""
    fleet: str = ""
    """How many servers the load needs, in words."""


@dataclass(frozen=True)
class Card:
    """A GPU in the table of those that would do."""

    gpu: str
    """Its name in the table."""
    name: str
    """The same with how many of it."""
    link: str
    """The page with this GPU."""
    chosen: bool
    """Whether it is the one the page is about."""
    tone: Tone
    """Green where it fits."""
    memory: str
    """Its memory."""
    verdict: str
    """Fits, what is missing, or that TGI refuses."""
    context: str
    """The longest request."""
    together: str
    """How many of them at once."""
    price: str
    """What the cheapest known instance costs."""
    why: str
    """What binds, or why not."""


@dataclass(frozen=True)
class Cards:
    """The table of GPUs."""

    caption: str
    """How many of them would do."""
    rows: tuple[Card, ...]
    """Those that fit first."""
    prices: str = ""
    """What to know about the prices."""


def told(error: AdvisorError, where: Where) -> Told:
    """An error as the page shows it: in sentences, without secrets."""
    hint, problems = error.hint or "", error.problems
    if error.message.startswith("There are no facts about"):  # where this machine was searched is its own business
        problems = ()
        if where.offline:
            ask_hub = "Choose a model of the list; started with `tgi-advisor web --online`, the page asks the Hub."
            hint = f"{hint} {ask_hub}" if "did you mean" in hint else ask_hub
    shown = tuple(Problem(masked(one.message), one.hint and masked(one.hint)) for one in problems)
    return Told(masked(error.message), shown, masked(hint))


def facts_of(spec: Spec, where: Where) -> Facts:
    """The facts of a spec."""
    return gather(spec, source=where.source, offline=where.offline)


def plan(state: State, where: Where, *, next_steps: bool = False) -> api.Plan:
    """The plan of a state: what is set is kept, what is left open is searched, as `advise` does."""
    spec = states.spec(state)
    return api.advise(spec, facts=facts_of(spec, where), next_steps=next_steps)


def further(state: State, where: Where) -> tuple[str, ...]:
    """What to do where it does not fit, and what else could be asked for: it takes longer than the answer itself."""
    if state.stated:
        return ()
    quick = plan(state, where)
    if quick.prediction.outcome == "refused":
        return quick.prediction.next_steps
    made = plan(state, where, next_steps=True)
    if made.prediction.outcome != "starts":
        return made.prediction.next_steps
    known = quick.prediction.warnings
    steps = [text for text in made.prediction.warnings if text not in known]
    if made.search and (riskier := made.search.riskier):
        total = thousands(riskier.limits.max_total_tokens or 0)
        steps.append(f"max_total_tokens {total} would start, {riskier.risk}")
    return tuple(steps)


def answer(state: State, where: Where) -> Answer:
    """What the page shows of a state; AdvisorError where it cannot be asked."""
    if state.stated:
        return _stated(state)
    made = plan(state, where)
    seen, facts, spec = made.prediction, made.facts, made.spec
    starts = seen.outcome == "starts" and made.container is not None
    limits = _limits(made)
    notes = [Row("Bound by", made.search.bound_by)] if starts and made.search and made.search.bound_by else []
    if starts and seen.under_load:
        notes.append(Row("Under load", f"{seen.under_load.verdict}: {seen.under_load.why}"))
    if starts and seen.uncertainty:
        notes.append(Row("Estimate", f"good to {seen.uncertainty.why}"))
    if starts and (fast := report.speed(made.speed)):
        notes.append(Row("Speed", fast))
    if seen.capture is not None and seen.capture.next_step:
        notes.append(Row("CUDA graphs", f"{seen.capture.why}. Use {seen.capture.next_step}"))
    notes += [Row("Note", text) for text in (*seen.warnings, *facts.notes)]
    own = None
    if starts and seen.limits.max_total_tokens and seen.concurrency:
        own = seen.limits.max_total_tokens, seen.concurrency
    later = [one.message for one in seen.refusals[1:]]
    return Answer(
        tone=_tone(made),
        verdict=report.verdict(made),
        heading=f"{facts.model.id} on {facts.gpu_count} × {facts.gpu.name}, TGI {facts.release.name}",
        reason="" if seen.outcome == "starts" else seen.reason or "",
        refusals=tuple(later),
        limits_title=_limits_title(made),
        limits=limits,
        bar=_bar(made) if seen.parts and (seen.outcome != "refused" or seen.stage == "router") else None,
        curve=_curve(spec, facts, own),
        notes=tuple(notes),
        sources=_sources(made),
        taken=_taken(made),
        fleet=_fleet(state, spec, facts),
    )


def _tone(made: api.Plan) -> Tone:
    seen = made.prediction
    if seen.outcome != "starts":
        return "bad"
    risky = seen.at_risk or (seen.capture is not None and seen.capture.outcome == "may_not_fit")
    short = (seen.concurrency or made.spec.workload.concurrency) < made.spec.workload.concurrency
    return "warn" if risky or short else "good"


def _limits(made: api.Plan) -> tuple[Row, ...]:
    """The limits by TGI's own names, as the page of `advise` shows them."""
    seen = made.prediction
    if seen.outcome == "refused" or seen.stage == "load":
        return ()
    rows = []
    for name in report.LIMITS:
        value, note = getattr(seen.limits, name), ""
        if name == "max_batch_total_tokens" and seen.outcome == "starts":
            band = seen.uncertainty
            note = "not measured for this family"
            if band is not None:
                note = f"TGI infers this: {thousands(band.budget_low)} to {thousands(band.budget_high)}"
        rows.append(Row(name, "–" if value is None else thousands(value), note, value))
    if seen.concurrency is not None:
        asked = made.spec.workload.concurrency
        note = "in the KV cache together" + (f"; asked for: {thousands(asked)}" if asked > 1 else "")
        rows.append(Row("full-length requests", thousands(seen.concurrency), note, seen.concurrency))
    return tuple(rows)


def _limits_title(made: api.Plan) -> str:
    return "Limits" if made.prediction.outcome == "starts" else "The limits that need least memory"


def _bar(made: api.Plan) -> Bar:
    seen = made.prediction
    title = f"{report.whose_memory(made)}: {gib(seen.gpu_total_bytes)}"
    missing = gib(-seen.headroom_bytes) if seen.headroom_bytes < 0 else ""
    return _segments(title, seen.parts, seen.gpu_total_bytes, missing)


def _segments(title: str, parts: tuple[Part, ...], total: int, missing: str, basis: str = "") -> Bar:
    """Parts side by side; where they are more than the GPU has, the bar is as long as they are."""
    whole = max(total, sum(part.bytes for part in parts)) or 1
    found, x = [], 0.0
    for part in parts:
        width = 1000 * part.bytes / whole
        found.append(
            Segment(part.name, gib(part.bytes), basis or part.basis, part.why, round(x, 2), round(width, 2), part.bytes)
        )
        x += width
    return Bar(title, tuple(found), round(1000 * total / whole, 2), missing)


def _curve(spec: Spec, facts: Facts, own: tuple[int, int] | None) -> Curve | None:
    """How many requests fit at which context, everything else as asked."""
    longest = families.context_length(facts.model) or (own[0] if own else 0)
    steps = [1 << power for power in range(10, 21) if 1 << power <= longest]
    if longest and longest not in steps:
        steps.append(longest)
    if not steps:
        return None
    open_to_all = replace(
        spec, workload=replace(spec.workload, concurrency=1), limits=replace(spec.limits, max_input_tokens=AUTO)
    )
    try:
        found = ask.sweep(
            open_to_all, {"limits.max_total_tokens": steps}, source="snapshot" if _shipped(facts) else "auto",
            offline=True,
        )  # fmt: skip
    except AdvisorError:
        return None
    points = [
        (step.prediction.limits.max_total_tokens, step.prediction.concurrency)
        for step in found.steps
        if step.starts and step.prediction is not None
    ]
    return curve([(x, y) for x, y in points if x and y], own)


def _shipped(facts: Facts) -> bool:
    return facts.model.source.startswith("snapshot")


def _sources(made: api.Plan) -> tuple[Row, ...]:
    facts, seen = made.facts, made.prediction
    chunked = "prefill chunked" if seen.prefill_chunking else "prefill not chunked"
    return (
        Row("Model", facts.model.source),
        Row("GPU", f"{facts.gpu.name}, {gib(facts.gpu.memory_bytes)}, {facts.gpu.source}"),
        Row("TGI", f"{facts.release.name}: {seen.attention} attention, {chunked}, {seen.dtype}"),
        Row("KV cache", f"{seen.kv_cache_dtype}, {seen.kv_bytes_per_token / 1024:.1f} KiB per token on one GPU"),
    )


FILES = (
    ("docker-run", "docker run", "run-tgi.sh"), ("compose", "Compose", "compose.yaml"),
    ("kubernetes", "Kubernetes", "kubernetes.yaml"), ("spec", "Spec", "spec.yaml"),
)  # fmt: skip
"""Name in the address, name on the page, name of the file."""


def _taken(made: api.Plan) -> tuple[Taken, ...]:
    """What can be taken away: deployments only of what starts, the spec always."""
    starts = made.prediction.outcome == "starts" and made.container is not None
    return tuple(
        Taken(name, label, file, dump(made.spec) if name == "spec" else made.emit(name))
        for name, label, file in FILES
        if starts or name == "spec"
    )


def taken(state: State, name: str, where: Where) -> Taken:
    """One text to take away; UsageError where there is none of this name, or nothing would start."""
    if state.stated:
        raise UsageError("a model stated by its size has no deployment", "Choose a checkpoint.")
    found = next((one for one in _taken(plan(state, where)) if one.name == name), None)
    if found is None:
        raise UsageError("there is nothing to take away: TGI would not start, or the format is not known")
    return found


def _fleet(state: State, spec: Spec, facts: Facts) -> str:
    """How many of these servers the requests at once need, as `size` counts them; empty unless a load is stated."""
    users, total = spec.workload.concurrency, spec.limits.max_total_tokens.fixed
    if not state["users"] or total is None or total < 2:
        return ""
    answers = min(new_tokens(defaults.resolve(spec, facts)), total - 1)
    gpu, count = facts.gpu, facts.gpu_count
    single = replace(spec, workload=replace(spec.workload, concurrency=1))
    ways = Ways((Checkpoint(facts, spec.model.quantize),), (gpu,), (count,))
    load = Load(users, lengths(str(total - answers), "input"), lengths(str(answers), "output"))
    try:
        found = sizing.size(single, ways, load)
    except AdvisorError:
        return ""
    best = found.best
    if best is None:
        return ""
    servers = "1 server" if best.replicas == 1 else f"{thousands(best.replicas)} servers"
    each = f"each holds {thousands(best.each)} requests of {thousands(total)} tokens"
    return f"{thousands(users)} at once need {servers} of {count} × {gpu.name}: {each}."


def cards(state: State, where: Where) -> Cards:
    """Every GPU of the table with as many cards as the page is about, those that would do first."""
    if state.stated:
        return _stated_cards(state)
    spec = states.spec(state)
    facts = facts_of(spec, where)
    gpu, count = facts.gpu, facts.gpu_count
    deadline = Deadline(LONGEST)
    options, left_out = _compared(spec, facts, count, deadline)
    fitting = sum(option.starts for option in options)
    caption = f"{fitting} of {len(options)} GPUs would do" + (f", {count} of each together" if count > 1 else "")
    for more in COUNTS if not fitting else ():
        several = _compared(spec, facts, more, deadline)[0] if more > count else []
        if starting := [one for one in several if one.starts]:
            caption, options = f"{caption}; {len(starting)} would, {more} of each together", [*starting, *options]
            break
    if left_out:
        caption += f"; {left_out} took too long to judge"
    rows = tuple(_card(state, option, (gpu.name, count)) for option in options)
    prices = " ".join(prices_said([one for one in options if one.starts], date.today()))
    for asked in (": --prices FILE takes your own", ", or give your own: --prices FILE"):
        prices = prices.replace(asked, "")
    return Cards(caption, rows, prices)


def _missing(option: Option) -> int:
    """Bytes of one GPU that are missing; 0 where it is not memory."""
    return max(0, -(option.headroom_bytes or 0))


def _compared(spec: Spec, facts: Facts, count: int, deadline: Deadline) -> tuple[list[Option], int]:
    """The model of a spec on every GPU of the table, everything else as asked; how many were left out at the deadline.

    Those that start come first, with the least memory first; then those that miss least; then what TGI refuses.
    """
    cards = sorted((row.facts for row in gpus.all_gpus() if row.facts is not None), key=lambda gpu: gpu.at_least)
    offers = pricing.known()
    options: list[Option] = []
    for card in cards:
        if deadline.over:
            break
        ways = Ways((Checkpoint(facts, spec.model.quantize),), (card,), (count,))
        options += comparing.compare(spec, ways, offers=offers).options

    def order(one: Option) -> tuple[object, ...]:
        first = one.memory_bytes if one.starts else _missing(one)
        return not one.starts, one.outcome == "refused", one.under_load == "at risk", first, one.gpu

    return sorted(options, key=order), len(cards) - len(options)


def _card(state: State, option: Option, chosen: tuple[str, int]) -> Card:
    missing = _missing(option)
    if option.starts:
        verdict = "fits, at risk under load" if option.under_load == "at risk" else "fits"
    elif option.outcome == "refused":
        verdict = "TGI refuses"
    else:
        verdict = f"{gib(missing)} missing" if missing else "does not fit"
    offer = option.offer
    return Card(
        gpu=option.gpu,
        name=f"{option.count} × {option.gpu}" if option.count > 1 else option.gpu,
        link=state.link(gpu=option.gpu, count=str(option.count)),
        chosen=(option.gpu, option.count) == chosen,
        tone="bad" if not option.starts else "warn" if option.under_load == "at risk" else "good",
        memory=gib(option.memory_bytes),
        verdict=verdict,
        context=thousands(option.total) if option.starts else "",
        together=thousands(option.concurrency) if option.starts and option.concurrency else "",
        price=f"{offer.per_hour:,.2f} {offer.currency} ({offer.instance})" if offer and option.starts else "",
        why=option.why,
    )


def _machine(state: State) -> Spec:
    """A spec of the hardware alone, for a model nobody has."""
    problems: list[Problem] = []
    count = states.whole(state["count"], "GPUs", 1024, problems) if state["count"] else None
    if problems:
        raise UsageError(problems[0].message)
    card: dict[str, object] = {"gpu": state["gpu"], **({"count": count} if count else {})}
    return read_any({"model": {"id": ask.ANY_MODEL}, "hardware": card})


def _stated(state: State) -> Answer:
    """A stated model by the rules of thumb of `size --params`."""
    shape, (users, tokens) = states.shape(state), states.stated_load(state)
    found = rough.estimate(shape, users, tokens)
    gpu, count = hardware(_machine(state))
    memory = gpu.memory_bytes * count
    needs = {rule: size for rule, part, size in found.rows if part == "together"}
    fits = [rule for rule, size in needs.items() if size <= memory]
    tone: Tone = "good" if len(fits) == len(needs) else "warn" if fits else "bad"
    verdict = {
        "good": "It fits, by a rule of thumb.",
        "warn": f"It fits by the {' and the '.join(fits)}, not by the other rule of thumb.",
        "bad": "It does not fit, by a rule of thumb.",
    }[tone]
    rule = max(needs, key=lambda name: needs[name])
    parts = tuple(Part(part, size, "modelled", f"by the {one}") for one, part, size in found.rows
                  if one == rule and part != "together")  # fmt: skip
    missing = gib(needs[rule] - memory) if needs[rule] > memory else ""
    rows = tuple(Row(f"{one}: {part}", f"{size / GB:,.2f} GB", "", size) for one, part, size in found.rows)
    return Answer(
        tone=tone,
        verdict=verdict,
        heading=f"{shape.parameters / 1e9:g} B parameters, {shape.bits:g} bits, {users} × {tokens:,} tokens on "
        f"{count} × {gpu.name}",
        limits_title="Rules of thumb",
        limits=rows,
        bar=_segments(f"Memory of {count} × {gpu.name}: {gib(memory)}", parts, memory, missing, "rule of thumb"),
        notes=(
            Row(
                "Note",
                rough.NOTE.replace("`tgi-advisor size --model` computes it from the checkpoint", "choose a checkpoint"),
            ),
        ),
    )


def _stated_cards(state: State) -> Cards:
    """Every GPU beside what the larger rule of thumb asks."""
    shape, (users, tokens) = states.shape(state), states.stated_load(state)
    needed = max(size for _, part, size in rough.estimate(shape, users, tokens).rows if part == "together")
    chosen, count = hardware(_machine(state))
    rows = []
    for facts in sorted((row.facts for row in gpus.all_gpus() if row.facts), key=lambda one: one.memory_bytes):
        spare = facts.memory_bytes * count - needed
        rows.append(
            Card(
                facts.name, f"{count} × {facts.name}" if count > 1 else facts.name,
                state.link(gpu=facts.name, count=str(count)), facts.name == chosen.name,
                "good" if spare >= 0 else "bad", gib(facts.memory_bytes),
                "fits" if spare >= 0 else f"{gib(-spare)} missing", "", "", "", "by a rule of thumb",
            )
        )  # fmt: skip
    rows.sort(key=lambda one: one.tone != "good")
    fitting = sum(one.tone == "good" for one in rows)
    return Cards(f"{fitting} of {len(rows)} GPUs would do, by a rule of thumb", tuple(rows))
