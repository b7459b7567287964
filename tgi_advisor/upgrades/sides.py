"""One release and a deployment: its spec there, the verdict, and what it serves beside another's."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tgi_advisor import verdict
from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.facts import clouds
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.spec.contradictions import image_release
from tgi_advisor.spec.records import Spec
from tgi_advisor.units import thousands
from tgi_advisor.upgrades.records import Serves, Side


def judge(spec: Spec, facts: Facts, shards: int | None = None, name: str = "") -> Side:
    """What the release of the facts makes of a spec; limits left out are left to TGI.

    `shards` are those its launcher counts where the spec does not say any; `name` is what the release is called, where
    it stands for an older one. FactsError where the release does not know what to do with the model at all.
    """
    stated = spec.tgi.num_shard is not None
    setting = defaults.resolve(spec, facts, None if stated else shards, counted=not stated and shards is not None)
    given = defaults.given_limits(setting)
    seen = verdict.predict(warmup.base(setting), given)
    return Side(name or facts.release.name, facts.release, spec, setting, given, seen)


def at(spec: Spec, facts: Facts, release: TgiRelease) -> tuple[Spec, Facts, tuple[str, ...]]:
    """A spec and its facts with another release; FactsError where that has no image for the GPU.

    The third is what to know about the image.
    """
    if release == facts.release:
        return spec, facts, ()
    own = releases.image_for(release, facts.variant)
    there = facts._replace(release=release, notes=())
    tgi = replace(spec.tgi, image=None, release=release.name)
    if spec.tgi.image is None:
        return replace(spec, tgi=tgi), there, ()
    image, note = renamed(spec.tgi.image, release, facts.variant)
    told = image_release(image) if image else None
    tgi = replace(spec.tgi, image=image or own, release=None if told or image is None else release.name)
    return replace(spec, tgi=tgi), there, (note,) if note else ()


def renamed(image: str, release: TgiRelease, variant: str) -> tuple[str | None, str]:
    """(the image of another release under the same name, what to know about it).

    None where the name does not say what it would be: a cloud's image, or a private one whose tag is no release.
    """
    own = releases.image_for(release, variant)
    name, at_sign, _ = image.partition("@")
    head, colon, tag = name.rpartition(":")
    name = head if colon and "/" not in tag else name
    if clouds.find(image) is not None:
        return None, f"the cloud's own image of TGI {release} has a name of its own: look it up, or use {own}"
    note = "the digest is of the old image and is left out: pin the new one's" if at_sign else ""
    if releases.is_own(image):
        return f"{name}:{own.rpartition(':')[2]}", note
    if colon and "/" not in tag and (there := releases.retagged(f"{head}:{tag}", release.name)) != f"{head}:{tag}":
        return there, "; ".join(filter(None, (note, f"{there} has to be made: it is no image of TGI's own")))
    return None, f"{image} does not say its release: build the one with TGI {release}, or use {own}"


class Compared(NamedTuple):
    """What one launch serves beside another."""

    serves: Serves
    """In a word."""
    less: tuple[str, ...]
    """In what it serves less."""
    more: tuple[str, ...]
    """In what it serves more."""


def compared(before: Side, after: Side) -> Compared:
    """What the new launch serves beside today's: the longest request and prompt, today's requests at once, and risk.

    How many run at once is counted in requests of today's max_total_tokens, whatever the new limit is.
    """
    seen, now = before.prediction, after.prediction
    if now.outcome != "starts":
        return Compared(now.outcome, (now.reason or "",), ())
    if seen.outcome != "starts":
        return Compared("better", (), (f"it starts, and TGI {before.name} does not",))
    less: list[str] = []
    more: list[str] = []
    pairs = (
        ("requests of at most {} tokens", seen.limits.max_total_tokens, now.limits.max_total_tokens),
        ("prompts of at most {} tokens", seen.limits.max_input_tokens, now.limits.max_input_tokens),
    )
    for words, was, will in pairs:
        if was is not None and will is not None and was != will:
            told = f"{words.format(thousands(will))} instead of {thousands(was)}"
            (less if will < was else more).append(told)
    held, holds = together(before, before), together(after, before)
    if held is not None and holds is not None and held != holds:
        total = thousands(seen.limits.max_total_tokens or 0)
        told = f"{thousands(holds)} requests of {total} tokens at once instead of {thousands(held)}"
        (less if holds < held else more).append(told)
    if now.at_risk and not seen.at_risk:
        less.append(f"{now.risk}, which it is not today" if now.risk.startswith("at") else now.risk)
    if seen.at_risk and not now.at_risk:
        more.append(f"no longer {seen.risk}" if seen.risk.startswith("at") else "its CUDA graphs fit")
    return Compared("less" if less else "better" if more else "same", tuple(less), tuple(more))


def together(side: Side, before: Side) -> int | None:
    """Requests of today's max_total_tokens that a launch holds at once; None where it starts with no KV cache of its
    own. Of one that cannot take so long a request, how many its cache would hold.
    """
    seen, total = side.prediction, before.prediction.limits.max_total_tokens
    budget = seen.limits.max_batch_total_tokens
    if not side.starts or budget is None or not total:
        return None
    if not side.setting.family.paged:
        return budget // total
    longest = before.prediction.limits.max_input_tokens
    prompt = min(longest, total - 1) if longest is not None else total - 1
    return verdict.concurrency(side.setting, budget // seen.block_size, Limits(prompt, total))


def attempt(spec: Spec, facts: Facts, shards: int | None = None) -> Side | str:
    """As `judge`, with why it cannot be asked in place of an error."""
    try:
        return judge(spec, facts, shards)
    except AdvisorError as error:
        return " ".join(error.message.split())
