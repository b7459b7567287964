"""The spec to go on with: today's behaviour stated for the new release (`same`), or what that gives (`better`).

`same` states what the old release did by itself, one setting after the other, and each only where the new release
would still do otherwise. What it cannot be told, and what does not fit, is said. Every spec is judged before it is
given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import eq
from typing import NamedTuple

from tgi_advisor import search
from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import changes as facts_of_changes
from tgi_advisor.facts import flags
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.spec.reader import with_set
from tgi_advisor.spec.records import AUTO, EMPTY, Bound, LimitsSpec, Spec
from tgi_advisor.units import thousands
from tgi_advisor.upgrades.changes import other_defaults, reads
from tgi_advisor.upgrades.records import Pin, Prefer, Proposal, Side, Surroundings
from tgi_advisor.upgrades.sides import attempt, compared

WIDEST = 0.99
"""The largest TGI_WIGGLE_ROOM that is tried; TGI itself refuses 1."""
FINE = 100
"""Steps of TGI_WIGGLE_ROOM that are tried: hundredths."""

Wanted = tuple[Pin, ...] | str
"""Fields to set, or why it cannot be had."""


def proposed(before: Side, moved: Side, facts: Facts, prefer: Prefer, around: Surroundings) -> Proposal:
    """The spec to go on with, made of the moved one, and what the new release makes of it."""
    spec, dropped, pins = _cleaned(moved.spec, before.release, moved.release)
    if before.release is moved.release and not dropped:
        same = compared(before, moved)
        if prefer == "same":
            return Proposal("same", spec, (), (), (), moved, same.serves, same.less)
    make = _better if prefer == "better" else _same
    made = make(before, moved, spec, facts, dropped, pins, around)
    if prefer == "better" and made.serves not in ("same", "better"):
        kept = _same(before, moved, spec, facts, dropped, pins, around)
        if kept.serves in ("same", "better"):
            longer = _longer(before, moved, kept, facts, around)
            return longer if longer is not None else kept._replace(instead=made.less)
    if made.side.starts:
        return made
    if prefer == "same" and (other := _better(before, moved, spec, facts, dropped, pins, around)).side.starts:
        held = other.side.prediction.limits
        told = ", ".join(f"{name} {thousands(getattr(held, name) or 0)}" for name in NAMES)
        prediction = made.side.prediction._replace(next_steps=(f"{told} would start: --prefer better states them",))
        made = made._replace(side=made.side._replace(prediction=prediction))
    return Proposal(prefer, moved.spec, (), (), (), made.side, made.serves, made.less)


# ---- what the new release does not take


def _cleaned(spec: Spec, today: TgiRelease, release: TgiRelease) -> tuple[Spec, tuple[str, ...], tuple[Pin, ...]]:
    """The spec without what the release refuses, what that was, and what says the same now."""
    known = flags.flags_of(release)
    dropped: list[str] = []
    pins: list[Pin] = []
    held = dict(spec.tgi.flags)
    for name, value in spec.tgi.flags.items():
        if name in known and not isinstance(flags.read(known[name], value), flags.Unreadable):
            continue
        del held[name]
        dropped.append(f"tgi.flags.{name}")
        follows = facts_of_changes.instead(name)
        if follows and follows.to in known and follows.to not in held:
            pins.append(Pin(f"tgi.flags.{follows.to}", follows.value or value, follows.why))
    env = dict(spec.tgi.env)
    for name, text in spec.tgi.env.items():
        follows = facts_of_changes.instead(name)
        if not follows or not follows.to or reads(release, name):
            continue
        if not reads(today, name):  # nothing reads it today: what it asks for is not what is there
            continue
        if reads(release, follows.to):
            del env[name]
            dropped.append(f"tgi.env.{name}")
            if follows.to not in env:
                pins.append(Pin(f"tgi.env.{follows.to}", follows.value or text, follows.why))
    model = spec.model
    if model.kv_cache_dtype is not None and "kv-cache-dtype" not in known:
        model = replace(model, kv_cache_dtype=None)
        dropped.append("model.kv_cache_dtype")
    if model.quantize is not None and model.quantize not in known["quantize"].values:
        model = replace(model, quantize=None)
        dropped.append("model.quantize")
    cleaned = replace(spec, model=model, tgi=replace(spec.tgi, flags=held or EMPTY, env=env or EMPTY))
    return _with(cleaned, pins), tuple(dropped), tuple(pins)


def _with(spec: Spec, pins: Sequence[Pin]) -> Spec:
    """The spec with these fields set."""
    return with_set(spec, [f"{pin.path}={json.dumps(pin.value)}" for pin in pins]) if pins else spec


# ---- what the old release did by itself


class _Habit(NamedTuple):
    """One thing a release does by itself, and how another is told to."""

    name: str
    """What it is, in words."""
    of: Callable[[Setting], object]
    """What a launch does."""
    told: Callable[[Setting, Setting], Wanted]
    """What says it: of today's launch and the new one."""
    costs: bool = False
    """Whether stating it may take memory that limits need."""
    kept: Callable[[object, object], bool] = eq
    """Whether what a launch does, the second, is what today's does, the first, or all of it and more."""


def _shards(was: Setting, _: Setting) -> Wanted:
    return (
        Pin("tgi.num_shard", was.num_shard, f"it runs on {was.num_shard} GPU{'s' if was.num_shard > 1 else ''} today"),
    )


def _dtype(was: Setting, now: Setting) -> Wanted:
    if now.quantize is not None and not now.quantize.startswith("bitsandbytes"):
        return "--dtype is refused beside a quantization"
    if was.dtype not in ("float16", "bfloat16"):
        return f"--dtype knows no {was.dtype}"
    return (Pin("model.dtype", was.dtype, "the dtype it has today"),)


def _quantize(was: Setting, now: Setting) -> Wanted:
    if was.quantize is None:
        return f"TGI {now.facts.release} reads {now.quantize} from the checkpoint, and cannot be told not to"
    if was.quantize not in now.facts.release.quantize:
        return f"TGI {now.facts.release} has no --quantize {was.quantize}"
    return (Pin("model.quantize", was.quantize, "what the checkpoint said by itself until now"),)


def _kv_dtype(was: Setting, now: Setting) -> Wanted:
    if not was.kv_dtype.startswith("fp8") or "kv-cache-dtype" not in flags.flags_of(now.facts.release):
        return f"TGI {now.facts.release} keeps it in {now.kv_dtype}"
    return (Pin("model.kv_cache_dtype", was.kv_dtype, "the dtype of today's KV cache"),)


def _attention(was: Setting, now: Setting) -> Wanted:
    release = now.facts.release
    if now.facts.gpu.system != "cuda":
        return f"the image for {now.facts.gpu.system} picks it"
    if release.version >= (2, 3, 0) and was.attention in release.attentions:
        return (Pin("tgi.env.ATTENTION", was.attention, "the attention it has today"),)
    if reads(release, "FLASH_DECODING") and was.attention == "flashdecoding":
        return (Pin("tgi.env.FLASH_DECODING", "1", "the attention it has today"),)
    return f"TGI {release} has no {was.attention} attention" + (" to ask for" if release.version < (2, 3, 0) else "")


def _prefix(was: Setting, now: Setting) -> Wanted:
    release = now.facts.release
    name = next((name for name in ("PREFIX_CACHING", "USE_PREFIX_CACHING") if reads(release, name)), None)
    if name is None:
        return f"TGI {release} keeps no prefixes"
    words = "on" if was.prefix_caching else "off"
    return (Pin(f"tgi.env.{name}", str(int(was.prefix_caching)), f"prefix caching is {words} today"),)


def _chunking(was: Setting, now: Setting) -> Wanted:
    release = now.facts.release
    if not reads(release, "PREFILL_CHUNKING"):
        return f"TGI {release} prefills prompts whole"
    words = "in chunks" if was.chunking else "whole"
    return (Pin("tgi.env.PREFILL_CHUNKING", str(int(was.chunking)), f"prompts are prefilled {words} today"),)


def _graphs(was: Setting, now: Setting) -> Wanted:
    release, sizes = now.facts.release, sorted(was.graph_sizes)
    if "cuda-graphs" in flags.flags_of(release) and (sizes or release.version >= (2, 0, 2)):
        words = f"of {', '.join(map(str, sizes))} requests" if sizes else "are not captured"
        return (Pin("tgi.flags.cuda-graphs", sizes or [0], f"CUDA graphs {words} today"),)
    if "enable-cuda-graphs" in flags.flags_of(release) and sizes:
        return (Pin("tgi.flags.enable-cuda-graphs", True, "CUDA graphs are captured today"),)
    return f"TGI {release} captures {'them for sizes of its own' if now.graph_sizes else 'none'}"


def _all_graphs(was: object, there: object) -> bool:
    """Whether every batch size that is captured today still is."""
    return isinstance(was, frozenset) and isinstance(there, frozenset) and was <= there


def _logprobs(was: Setting, now: Setting) -> Wanted:
    if not was.prefill_logprobs:
        return f"TGI {now.facts.release} always makes the logits of every prompt token"
    return (Pin("tgi.flags.enable-prefill-logprobs", True, "clients get log-probabilities of the prompt today"),)


HABITS = (
    _Habit("the number of shards", lambda one: one.num_shard, _shards),
    _Habit("the quantization", lambda one: one.quantize, _quantize),
    _Habit("the dtype", lambda one: one.dtype, _dtype),
    _Habit("the attention back end", lambda one: one.attention, _attention),
    _Habit("prefix caching", lambda one: one.prefix_caching, _prefix),
    _Habit("prefill chunking", lambda one: one.chunking, _chunking),
    _Habit("the dtype of the KV cache", lambda one: one.kv_dtype, _kv_dtype),
    _Habit("CUDA graphs", lambda one: frozenset(one.graph_sizes), _graphs, kept=_all_graphs),
    _Habit("log-probabilities of prompts", lambda one: one.prefill_logprobs, _logprobs, costs=True),
)
"""In the order they depend on each other."""


class _Stated(NamedTuple):
    """A spec on its way."""

    spec: Spec
    pins: tuple[Pin, ...]
    lost: tuple[str, ...]


def _habits(before: Side, spec: Spec, facts: Facts, around: Surroundings, costly: bool) -> _Stated:
    """The spec with what the old release did by itself, as far as the new one can be told."""
    pins: list[Pin] = list(_defaults(before, spec, facts.release, around))
    spec, lost = _with(spec, pins), []
    for habit in HABITS:
        now = attempt(spec, facts, around.shards_after)
        if isinstance(now, str):
            break
        if habit.of(now.setting) == habit.of(before.setting):
            continue
        told = habit.told(before.setting, now.setting) if costly or not habit.costs else "it would take memory"
        if isinstance(told, str):
            lost.append(f"{habit.name}: {told}")
            continue
        tried = _with(spec, told)
        there = attempt(tried, facts, around.shards_after)
        if isinstance(there, str) or not habit.kept(habit.of(before.setting), habit.of(there.setting)):
            lost.append(f"{habit.name}: TGI {facts.release} cannot be told to do the same")
        elif _new_refusal(now, there):
            lost.append(f"{habit.name}: {_new_refusal(now, there)}")
        else:
            spec = tried
            pins += told
    return _Stated(spec, tuple(pins), tuple(lost))


def _new_refusal(now: Side, there: Side) -> str:
    """What is refused only once a setting is stated, but for what limits can help."""
    known = {one.code for one in now.prediction.refusals}
    return next(
        (one.message for one in there.prediction.refusals if one.code not in known and one.stage in ("load", "warmup")),
        "",
    )


def _defaults(before: Side, spec: Spec, release: TgiRelease, around: Surroundings) -> Iterator[Pin]:
    """Flags whose default is another, and usage statistics where the old release sent none."""
    old = around.flags if around.flags is not None else flags.flags_of(before.release)
    new = flags.flags_of(release)
    given = {*spec.tgi.flags, *(flag.name for flag in new.values() if flag.env in spec.tgi.env)}
    for name, was, _ in other_defaults(old, new):
        if name not in given:
            yield Pin(f"tgi.flags.{name}", flags.parse_value(new[name], was), "its default until now")
    sent = before.release.version >= (2, 2, 0)
    if not sent and not given & {"usage-stats", "disable-usage-stats"}:
        if "usage-stats" in new:
            yield Pin("tgi.flags.usage-stats", "off", "no usage statistics are sent today")
        elif "disable-usage-stats" in new:
            yield Pin("tgi.flags.disable-usage-stats", True, "no usage statistics are sent today")


# ---- same


def _same(
    before: Side, moved: Side, spec: Spec, facts: Facts, dropped: tuple[str, ...], pins: tuple[Pin, ...],
    around: Surroundings,
) -> Proposal:  # fmt: skip
    """The spec that keeps today's limits: with all habits, without the costly ones, then with none of them.

    The first that serves as much wins; else the one that serves most.
    """
    ways = [_habits(before, spec, facts, around, True), _habits(before, spec, facts, around, False)]
    ways.append(_Stated(_with(spec, few := _few(ways[0].pins)), few, ("what TGI picks by itself: it does not fit so",)))
    best: Proposal | None = None
    for number, way in enumerate(ways):
        if way.spec in [other.spec for other in ways[:number]]:
            continue
        for made in _kept(before, way, facts, around):
            found = _proposal("same", before, moved, made, dropped, pins, facts, around)
            if found.serves in ("same", "better"):
                return found
            if best is None or _rank(found) > _rank(best):
                best = found
    assert best is not None, "there is always a way"
    return best


def _few(pins: Sequence[Pin]) -> tuple[Pin, ...]:
    """The habits that do not concern memory, and the number of shards."""
    return tuple(pin for pin in pins if pin.path in ("tgi.num_shard", "model.dtype", "model.quantize")
                 or pin.why in ("its default until now", "no usage statistics are sent today"))  # fmt: skip


def _rank(found: Proposal) -> tuple[bool, int, int, bool]:
    """What is served, for the choice among proposals that all serve less: the longest request, then how many."""
    seen = found.side.prediction
    held = seen.limits.max_batch_total_tokens or 0
    return found.side.starts, seen.limits.max_total_tokens or 0 if found.side.starts else 0, held, not seen.at_risk


def _kept(before: Side, way: _Stated, facts: Facts, around: Surroundings) -> Iterator[_Stated]:
    """The spec with today's limits: as they are, with a smaller reserve, as long as they fit, and left to TGI."""
    if not before.starts:
        yield way
        return
    limits = before.prediction.limits
    exact = _pinned(way, before, limits)
    yield exact
    wider = _with_room(before, exact, facts, around)
    if wider is not None:
        yield wider
    shorter = _shorter(way, before, facts, around)
    if shorter is not None:
        yield shorter
    yield way._replace(lost=(*way.lost, "the limits, where nobody states them: stated, they serve less or are refused"))


NAMES = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
"""The limits a spec pins."""


def _pinned(way: _Stated, before: Side, limits: Limits, why: str = "") -> _Stated:
    """The spec with these limits stated, where it does not say them already."""
    new = []
    for name in NAMES:
        value, has = getattr(limits, name), getattr(way.spec.limits, name).fixed
        if value is not None and value != has:
            was = getattr(before.prediction.limits, name)
            told = why or (
                "what TGI " + before.name + " took by itself" if has is None else "what it comes out at today"
            )
            less = f"with {thousands(was or 0)} it serves less, or does not start"
            new.append(Pin(f"limits.{name}", value, told if value == was or why else less))
    spec = _without_limits(way.spec) if new else way.spec
    kept = {name: getattr(limits, name) for name in NAMES}
    bounds = LimitsSpec(*(Bound(value, value) if value is not None else AUTO for value in kept.values()))
    return _Stated(replace(spec, limits=bounds), (*way.pins, *new), way.lost)


def _without_limits(spec: Spec) -> Spec:
    """The spec without limits among its flags and variables, which its fields will say."""
    names = {name.replace("_", "-") for name in NAMES} | {"max-input-length"}
    held = {name: value for name, value in spec.tgi.flags.items() if name not in names}
    env = {name: text for name, text in spec.tgi.env.items() if name.lower().replace("_", "-") not in names}
    return replace(spec, tgi=replace(spec.tgi, flags=held or EMPTY, env=env or EMPTY))


def _with_room(before: Side, exact: _Stated, facts: Facts, around: Surroundings) -> _Stated | None:
    """The spec with so much more of the GPU for the KV cache that it holds what it holds today; None where that
    starts no sooner, or would be at risk where today's is not.
    """
    if "TGI_WIGGLE_ROOM" in exact.spec.tgi.env or not facts.release.wiggle_env:
        return None
    for hundredths in range(round(facts.release.wiggle * FINE) + 1, round(WIDEST * FINE) + 1):
        room = f"{hundredths / FINE:g}"
        pin = Pin("tgi.env.TGI_WIGGLE_ROOM", room, "so that the KV cache holds what it holds today")
        tried = attempt(_with(exact.spec, [pin]), facts, around.shards_after)
        if isinstance(tried, str):
            return None
        if compared(before, tried).serves in ("same", "better"):
            return _Stated(tried.spec, (*exact.pins, pin), exact.lost)
        if tried.prediction.at_risk and not before.prediction.at_risk:
            return None
    return None


def _shorter(way: _Stated, before: Side, facts: Facts, around: Surroundings) -> _Stated | None:
    """The spec with limits no larger than today's that fit; None where none do."""
    limits = before.prediction.limits
    total, longest, prefill = limits.max_total_tokens, limits.max_input_tokens, limits.max_batch_prefill_tokens
    answer = total - longest if total is not None and longest is not None and longest < total else None
    open_spec = _without_limits(way.spec)
    workload = replace(open_spec.workload, max_new_tokens=answer or open_spec.workload.max_new_tokens)
    for most in ((longest, prefill), (longest, None), (None, None)):
        bounds = LimitsSpec(Bound(None, most[0]), Bound(None, total), Bound(None, most[1]))
        found = _searched(replace(open_spec, limits=bounds, workload=workload), facts, around.shards_after)
        if found is not None:
            more = _Stated(_with(way.spec, found.pins), (*way.pins, *found.pins), way.lost)
            return _pinned(more, before, found.limits)
    return None


class _Found(NamedTuple):
    """What a search finds."""

    limits: Limits
    """The limits."""
    pins: tuple[Pin, ...]
    """Flags that had to be searched as well (`max-batch-size` on Gaudi)."""


def _searched(spec: Spec, facts: Facts, shards: int | None) -> _Found | None:
    """The largest limits a spec's bounds allow; None where none fit."""
    if spec.tgi.num_shard is None and shards is not None:
        spec = replace(spec, tgi=replace(spec.tgi, num_shard=shards))
    try:
        advice = search.best(spec, facts)
    except AdvisorError:
        return None
    if advice.found.limits is None or search.outcome(advice.found, spec.workload.concurrency).outcome != "starts":
        return None
    there = advice.base.setting.spec.tgi.flags
    more = {name: value for name, value in there.items() if spec.tgi.flags.get(name) != value}
    pins = tuple(
        Pin(f"tgi.flags.{name}", value, "TGI needs it, and it was searched too") for name, value in more.items()
    )
    return _Found(advice.found.limits, pins)


# ---- better


def _better(
    before: Side, moved: Side, spec: Spec, facts: Facts, dropped: tuple[str, ...], pins: tuple[Pin, ...],
    around: Surroundings,
) -> Proposal:  # fmt: skip
    """The spec with the largest limits the new release gives, requests no shorter than today's where those fit."""
    limits = before.prediction.limits if before.starts else Limits()
    opened = _without_limits(spec)
    least = Bound(limits.max_total_tokens, None)
    ways = [LimitsSpec(AUTO, least, AUTO), LimitsSpec(AUTO, AUTO, AUTO)]
    if (step := limits.max_batch_prefill_tokens) is not None:  # no more for the prefill than today, so more is held
        ways.append(LimitsSpec(Bound(limits.max_input_tokens, None), least, Bound(None, step)))
    best: Proposal | None = None
    for bounds in ways:
        found = _searched(replace(opened, limits=bounds), facts, around.shards_after)
        if found is None:
            continue
        start = _Stated(_with(spec, found.pins), found.pins, ())
        made = _pinned(start, before, found.limits, f"the largest that TGI {facts.release} holds")
        proposal = _proposal("better", before, moved, made, dropped, pins, facts, around)
        if proposal.serves in ("same", "better"):
            return proposal
        if best is None or _rank(proposal) > _rank(best):
            best = proposal
    return best or _proposal("better", before, moved, _Stated(spec, (), ()), dropped, pins, facts, around)


def _longer(before: Side, moved: Side, kept: Proposal, facts: Facts, around: Surroundings) -> Proposal | None:
    """What keeps today's, with longer requests as far as that costs nothing; None where it always does.

    The prefill budget stays, whose size is what a longer request otherwise takes from the KV cache.
    """
    limits = kept.side.prediction.limits
    total, step = limits.max_total_tokens, limits.max_batch_prefill_tokens
    if total is None or step is None:
        return None
    bounds = LimitsSpec(Bound(limits.max_input_tokens, None), Bound(total + 1, None), Bound(step, step))
    found = _searched(replace(_without_limits(kept.spec), limits=bounds), facts, around.shards_after)
    if found is None:
        return None
    pins = tuple(pin for pin in kept.pins if not pin.path.startswith("limits."))
    start = _Stated(_with(kept.spec, found.pins), (*pins, *found.pins), kept.lost)
    made = _pinned(start, before, found.limits, f"the largest that TGI {facts.release} holds")
    longer = _proposal("better", before, moved, made, kept.dropped, (), facts, around)
    return longer if longer.serves == "better" else None


def _proposal(
    prefer: Prefer, before: Side, moved: Side, made: _Stated, dropped: tuple[str, ...], pins: tuple[Pin, ...],
    facts: Facts, around: Surroundings,
) -> Proposal:  # fmt: skip
    """A spec judged."""
    tried = attempt(made.spec, facts, around.shards_after)
    side = moved if isinstance(tried, str) else tried
    if isinstance(tried, str):  # the spec as it is can be asked, and no setting of ours is a word it cannot hold
        made = _Stated(moved.spec, (), (tried,))
    seen = compared(before, side)
    lost = (*made.lost, *(seen.less if before.starts else ()))
    return Proposal(
        prefer, made.spec, (*pins, *made.pins), dropped, tuple(dict.fromkeys(lost)), side, seen.serves, seen.less
    )
