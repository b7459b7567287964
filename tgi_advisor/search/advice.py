"""What to launch for a spec, and what else could be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Other, Prediction
from tgi_advisor.search.lengths import USUAL_CHUNK, efficient_prefill
from tgi_advisor.search.predicate import GRAPHS_FIRST, TOO_RISKY
from tgi_advisor.search.shards import Advice, best, shard_counts
from tgi_advisor.spec.records import Spec
from tgi_advisor.units import thousands
from tgi_advisor.verdict import too_small


def advise(spec: Spec, facts: Facts, siblings: Callable[[], Iterable[ModelFacts]] = tuple) -> Advice:
    """The largest limits that fit, over the shard counts the spec leaves open; next steps when none do.

    `siblings` gives the other checkpoints of the model that are known; it is only asked when nothing fits.
    """
    advice = best(spec, facts)
    prediction = advice.found.prediction
    if advice.found.limits is not None:
        return _with_others(spec, facts, advice) if prediction.outcome == "starts" else advice
    if prediction.outcome == "refused" and not too_small(prediction):
        return advice
    from tgi_advisor.search.alternatives import alternatives  # only when nothing fits

    steps = alternatives(spec, facts, siblings()) or prediction.next_steps
    return advice._replace(found=advice.found._replace(prediction=prediction._replace(next_steps=steps)))


def _with_others(spec: Spec, facts: Facts, advice: Advice) -> Advice:
    """The advice with what a riskier search, the other preference and a smaller memory fraction would find."""
    found, riskier = advice.found, None
    if found.search.bound_by in (TOO_RISKY, GRAPHS_FIRST) or len(shard_counts(spec, facts)) > 1:
        riskier = _asking(
            replace(spec, workload=replace(spec.workload, allow_risk=True)), facts, "workload.allow_risk: true"
        )
        if riskier is not None and _total(riskier.limits) <= _total(found.limits):
            riskier = None
    trade = None
    setting = advice.base.setting
    if setting.chunking and efficient_prefill(setting) < USUAL_CHUNK:
        other = "context" if spec.workload.prefer == "prefill" else "prefill"
        trade = _asking(
            replace(spec, workload=replace(spec.workload, prefer=other)), facts, f"workload.prefer: {other}"
        )
        if trade is not None and trade.limits == found.limits:
            trade = None
    search = found.search._replace(riskier=riskier, trade=trade)
    prediction = found.prediction
    if riskier is not None or prediction.at_risk:
        prediction = _with_fraction(spec, facts, prediction)
    return advice._replace(found=found._replace(search=search, prediction=prediction))


def _asking(spec: Spec, facts: Facts, asks: str) -> Other | None:
    """What a search finds that `asks` for something else; None where that starts nothing."""
    other = best(spec, facts).found
    if other.limits is None or other.prediction.outcome != "starts":
        return None
    return Other(asks, other.limits, other.prediction.risk)


def _total(limits: Limits | None) -> int:
    return limits.max_total_tokens or 0 if limits else 0


def _with_fraction(spec: Spec, facts: Facts, prediction: Prediction) -> Prediction:
    """The prediction with a note of the memory fraction that gives the longest requests without a risk, where these
    are longer or the limits themselves are at risk.
    """
    if spec.hardware.memory_fraction != 1.0:
        return prediction
    calm = replace(spec, workload=replace(spec.workload, allow_risk=False))
    longest, chosen, before = 0 if prediction.at_risk else _total(prediction.limits), None, 0
    for percent in range(99, 79, -1):
        fraction = percent / 100
        found = best(replace(calm, hardware=replace(spec.hardware, memory_fraction=fraction)), facts).found
        total = 0 if found.prediction.at_risk or found.prediction.outcome != "starts" else _total(found.limits)
        if total < before:  # from here on memory is what is missing
            break
        before = total
        if total > longest:
            longest, chosen = total, fraction
    if chosen is None:
        return prediction
    note = f"hardware.memory_fraction: {chosen} gives max_total_tokens {thousands(longest)} and leaves room under load"
    return prediction._replace(warnings=(note, *prediction.warnings))
