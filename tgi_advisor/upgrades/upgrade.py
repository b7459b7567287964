"""From a spec and its facts to what another release changes: the one function behind the command."""

from __future__ import annotations

from collections.abc import Iterator

from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.spec.records import Spec
from tgi_advisor.upgrades import keep, memory
from tgi_advisor.upgrades.changes import changes
from tgi_advisor.upgrades.records import Prefer, Side, Step, Surroundings, Upgrade
from tgi_advisor.upgrades.sides import at, attempt, compared, judge, together

EMIT = Surroundings()
"""What `emit` writes around a spec."""


def upgrade(
    spec: Spec,
    facts: Facts,
    to: TgiRelease,
    *,
    prefer: Prefer = "same",
    between: bool = False,
    around: Surroundings = EMIT,
) -> Upgrade:
    """What moving a deployment from the release of its facts to another one changes, and the spec to go on with.

    `between` judges every release on the way too. FactsError where the new release has no image for the GPU, or
    where one of the two knows nothing of the model.
    """
    older = ".".join(map(str, around.older)) if around.older else ""
    before = judge(spec, facts, around.shards_before, older)
    there, known, notes = at(spec, facts, to)
    if around.older is not None and to == facts.release:
        there, known = spec, facts
    after = judge(there, known, around.shards_after)
    before, after = _refusing(before, around.broken), _refusing(after, around.refused)
    seen = compared(before, after)
    moved = changes(before, after, around) if before.name != after.name else ()
    return Upgrade(
        before=before,
        after=after,
        serves=seen.serves,
        less=seen.less,
        more=seen.more,
        changes=moved,
        memory=memory.rows(before, after),
        proposal=keep.proposed(before, after, known, prefer, around),
        surroundings=around,
        steps=tuple(_steps(before, spec, facts, to, around)) if between else (),
        notes=tuple(dict.fromkeys((*facts.notes, *notes))),
    )


def _refusing(side: Side, words: tuple[str, ...]) -> Side:
    """The side as it is where its launcher refuses words that are in no spec."""
    if not words or side.prediction.outcome == "refused":
        return side
    reason = f"the launcher does not take {', '.join(words)}"
    return side._replace(prediction=side.prediction._replace(outcome="refused", stage="launcher", reason=reason))


def _steps(before: Side, spec: Spec, facts: Facts, to: TgiRelease, around: Surroundings) -> Iterator[Step]:
    """Every release from one to the other, both among them, with the spec as it is; those without an image are left
    out.
    """
    ends = sorted((facts.release.version, to.version))
    way = [one for one in releases.all_releases() if ends[0] <= one.version <= ends[1]]
    for release in reversed(way) if to.version < facts.release.version else way:
        if facts.variant in releases.variants(release):
            yield _step(before, spec, facts, release, around)


def _step(before: Side, spec: Spec, facts: Facts, release: TgiRelease, around: Surroundings) -> Step:
    there, known, _ = at(spec, facts, release)
    counted = around.shards_before if release.all_gpus_counts_one == facts.release.all_gpus_counts_one else (
        around.shards_after)  # fmt: skip
    side = attempt(there, known, counted)
    if isinstance(side, str):
        return Step(release.name, release.date, "refused", Limits(), None, None, None, False, None, "refused", side)
    seen, found = side.prediction, compared(before, side)
    band = seen.uncertainty
    return Step(
        release.name, release.date, seen.outcome, seen.limits if side.starts else Limits(),
        band.budget_low if band else None, band.budget_high if band else None, seen.concurrency,
        seen.at_risk, together(side, before), found.serves, "; ".join(found.less),
    )  # fmt: skip
