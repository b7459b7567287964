"""The Python API: a spec in, a plan out. The command line is made of the same calls.

>>> import tgi_advisor
>>> plan = tgi_advisor.advise("configs/llama-3.1-8b-l4.yaml")
>>> plan.prediction.outcome, plan.prediction.limits.max_total_tokens
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from tgi_advisor import container, notebook, search, verdict
from tgi_advisor.errors import FactsError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather.facts import gather
from tgi_advisor.gather.model import Source
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Container, Method, Plan, Prediction, Search
from tgi_advisor.spec.reader import read_file, read_text
from tgi_advisor.spec.records import Spec

SpecLike = Spec | str | PathLike[str] | Mapping[str, Any]
"""A spec record, the path of a YAML file (`-` is standard input), or the spec as nested mappings."""


def read_spec(spec: SpecLike) -> Spec:
    """The spec as a record; SpecError lists everything that is wrong with it."""
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, Mapping):
        import json

        return read_text(json.dumps(spec), "mapping")
    return read_file(str(spec))


def advise(
    spec: SpecLike,
    *,
    facts: Facts | None = None,
    method: Method = "tgi",
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Search the largest token limits that fit and plan the deployment with them.

    `facts` skips the gathering; the other arguments are the command line's. The plan's
    `prediction.outcome` says whether anything fits. Raises the kinds of `tgi_advisor.errors`.
    """
    asked = read_spec(spec)
    known = facts or gather(asked, source=source, offline=offline, progress=progress)
    if method != "tgi":
        setting = defaults.resolve(asked, known)
        found, figures = notebook.advise(setting, method)
        return _plan(asked, known, found.prediction, method, found.search, figures.printed())
    advice = search.advise(asked, known)
    return _plan(asked, known, advice.found.prediction, method, advice.found.search)


def predict(
    spec: SpecLike,
    *,
    facts: Facts | None = None,
    method: Method = "tgi",
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """What TGI does with exactly what the spec says; limits left out are left to TGI. Arguments as `advise`."""
    asked = read_spec(spec)
    known = facts or gather(asked, source=source, offline=offline, progress=progress)
    setting = defaults.resolve(asked, known)
    given = defaults.given_limits(setting)
    if method != "tgi":
        prediction, figures = notebook.predict(setting, given, method)
        return _plan(asked, known, prediction, method, None, figures.printed(), stated=given)
    prediction = verdict.predict(warmup.base(setting), given)
    return _plan(asked, known, prediction, method, None, stated=given)


def _plan(
    spec: Spec,
    facts: Facts,
    prediction: Prediction,
    method: Method,
    found: Search | None,
    extra: Mapping[str, object] | None = None,
    stated: Limits | None = None,
) -> Plan:
    limits = prediction.limits if stated is None else stated
    return Plan(
        spec=spec,
        facts=facts,
        prediction=prediction,
        container=_container(spec, facts, limits, prediction),
        method=method,
        search=found,
        extra=extra or {},
    )


def _container(spec: Spec, facts: Facts, limits: Limits, prediction: Prediction) -> Container:
    return container.build(spec, facts, limits, prediction.num_shard, prediction)


__all__ = ["Facts", "FactsError", "Limits", "Plan", "Prediction", "Spec", "advise", "gather", "predict", "read_spec"]
