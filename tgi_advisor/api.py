"""The Python API: a spec in, a plan out. The command line is made of the same calls.

>>> import tgi_advisor
>>> plan = tgi_advisor.advise(model="meta-llama/Llama-3.1-8B-Instruct", gpu="nvidia-l4")
>>> plan.prediction.outcome, plan.prediction.limits.max_total_tokens
>>> print(plan.emit("compose"))
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tgi_advisor import container, search, verdict
from tgi_advisor import plan as plans
from tgi_advisor.errors import AdvisorError, FactsError, SpecError, UsageError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.speed import Served, served, unsupported
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather import snapshot
from tgi_advisor.gather.facts import gather as gather_facts
from tgi_advisor.gather.model import Source
from tgi_advisor.gather.unknown import with_names
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Container, Method, Packing, Prediction
from tgi_advisor.search import Found
from tgi_advisor.spec.reader import SpecLike, build, read_any
from tgi_advisor.spec.records import Spec
from tgi_advisor.units import MiB

if TYPE_CHECKING:
    from tgi_advisor.engines.migrate import Migration


def read_spec(spec: SpecLike) -> Spec:
    """The spec as a record; SpecError lists everything that is wrong with it, names that nobody knows among it."""
    try:
        return read_any(spec)
    except SpecError as error:
        raise with_names(error) from None


class Plan(plans.Plan):
    """A plan that writes itself: as the page `advise` prints, as JSON's objects, as what `emit` prints."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan as `--json` prints it: docs/json.md has every name."""
        from tgi_advisor.report import document

        return document(self)

    def emit(self, format: str = "docker-run") -> str:  # noqa: A002  (it is the name of the option)
        """The deployment as text, in a format of `tgi-advisor emit --help`; UsageError where nothing would start."""
        from tgi_advisor.render import render

        if self.container is None or self.prediction.outcome != "starts":
            raise UsageError("there is nothing to emit: TGI would not start", self.prediction.reason)
        return render(self.container, format)

    def __str__(self) -> str:
        from tgi_advisor.report import page

        starts = self.container is not None and self.prediction.outcome == "starts"
        return page(self, self.emit() if starts else None).rstrip("\n")


def _asked(
    spec: SpecLike | None, model: str | None, gpu: str | Mapping[str, object] | None, count: int | None,
    release: str | None, context: int | str | None, users: int | None, fields: Mapping[str, object] | None,
) -> Spec:  # fmt: skip
    """The spec that the arguments of a call add up to, as the options of the command line do."""
    base = None if spec is None else read_spec(spec)
    given = [("model.id", model), ("tgi.release", release)]
    if base is not None and release is not None and base.tgi.image is not None:
        given.append(("tgi.image", releases.retagged(base.tgi.image, release)))
    if isinstance(gpu, str):
        given.append(("hardware.gpu", gpu))
    stated: dict[str, object] = {"hardware.gpu": None if isinstance(gpu, str) else gpu, "hardware.count": count}
    stated |= {"limits.max_total_tokens": context, "workload.concurrency": users}
    laid = {path: value for path, value in stated.items() if value is not None} | dict(fields or {})
    pairs = [(path, text) for path, text in given if text is not None]
    if base is not None and not pairs and not laid:
        return base
    if base is None and not any(path.startswith("model") for path, _ in (*pairs, *laid.items())):
        raise UsageError("no deployment was named", "Give a spec, or model= and gpu=.")
    sets = [f"{path}={json.dumps(value, default=str)}" for path, value in laid.items()]
    return build(pairs, "arguments", base, sets)


def advise(
    spec: SpecLike | None = None,
    *,
    model: str | None = None,
    gpu: str | Mapping[str, object] | None = None,
    count: int | None = None,
    release: str | None = None,
    context: int | str | None = None,
    users: int | None = None,
    fields: Mapping[str, object] | None = None,
    facts: Facts | None = None,
    method: Method = "tgi",
    source: Source = "auto",
    offline: bool = False,
    speed: Sequence[str] = (),
    next_steps: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Search the largest token limits that fit and plan the deployment with them.

    `spec` is a path, a mapping or a `Spec`; `model`, `gpu`, `count`, `release`, `context` and `users` stand in for it
    or are laid over it as the options of those names are, and `fields` as `--set`: `{"hardware.driver": "550.54"}`.
    A `gpu` may be a mapping that states its facts. `facts` skips the gathering; `speed` names files that `calibrate`
    wrote; the other arguments are the command line's. Without `next_steps` nothing else is searched than what was
    asked for: a quick answer where nothing fits, which names no way out.

    The plan's `prediction.outcome` says whether anything fits. Raises the kinds of `tgi_advisor.errors`.
    """
    asked = _asked(spec, model, gpu, count, release, context, users, fields)
    known = facts or gather_facts(asked, source=source, offline=offline, speed=speed, progress=progress)
    figures: Mapping[str, object] = {}
    here = None
    if method == "tgi":
        if next_steps:
            here, found = search.advise(asked, known, lambda: snapshot.made_of(known.model))
        else:
            here, found = search.best(asked, known)
        asked = here.setting.spec  # with what had to be searched as well (Gaudi's --max-batch-size)
    else:
        from tgi_advisor import notebook

        found, seen = notebook.advise(defaults.resolve(asked, known), method)
        figures = seen.printed()
    plan = _plan(asked, known, found, here, method, figures)
    return plan if facts or method != "tgi" else _remembering(plan)


def _remembering(plan: Plan) -> Plan:
    """The plan with what launches of the same model, GPU and release measured here: said, and kept free as headroom."""
    from tgi_advisor.launch import history

    try:
        texts, needed = history.remembered(plan)
    except AdvisorError as error:
        texts, needed = [str(error)], 0
    kept = plan.search.headroom_bytes if plan.search else 0
    if needed > kept and plan.spec.hardware.headroom is None:
        roomier = replace(plan.spec, hardware=replace(plan.spec.hardware, headroom=-(-needed // MiB) * MiB))
        again = advise(roomier, facts=plan.facts)
        if again.prediction.outcome == "starts" and again.search:
            plan = again._replace(search=again.search._replace(headroom_why="what launches here measured"))
    return plan._replace(prediction=plan.prediction._replace(warnings=(*plan.prediction.warnings, *texts)))


def predict(
    spec: SpecLike | None = None,
    *,
    model: str | None = None,
    gpu: str | Mapping[str, object] | None = None,
    count: int | None = None,
    release: str | None = None,
    context: int | str | None = None,
    users: int | None = None,
    fields: Mapping[str, object] | None = None,
    facts: Facts | None = None,
    method: Method = "tgi",
    source: Source = "auto",
    offline: bool = False,
    speed: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """What TGI does with exactly what the spec says; limits left out are left to TGI. Arguments as `advise`."""
    asked = _asked(spec, model, gpu, count, release, context, users, fields)
    known = facts or gather_facts(asked, source=source, offline=offline, speed=speed, progress=progress)
    setting = defaults.resolve(asked, known)
    given = defaults.given_limits(setting)
    figures: Mapping[str, object] = {}
    fast = None
    if method == "tgi":
        here = warmup.base(setting)
        prediction = search.way_out(here, verdict.predict(here, given))
        fast = _speed(here, prediction)
    else:
        from tgi_advisor import notebook

        prediction, seen = notebook.predict(setting, given, method)
        figures = seen.printed()
    what_runs = _container(asked, known, given, prediction, fast)
    return Plan(asked, known, prediction, what_runs, method, None, figures, fast)


def migrate(
    spec: SpecLike,
    to: str,
    engine_version: str | None = None,
    *,
    search: bool = True,
    given: Mapping[str, str] | None = None,
    facts: Facts | None = None,
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    text: str = "",
    notes: Sequence[str] = (),
) -> "Migration":
    """A deployment on another engine (`vllm`, `sglang`), with its start-up sum and what becomes of every argument.

    Today's promise is what `advise` plans, or without `search` what TGI makes of the spec as it is. `given` are the
    engine's own memory settings; `text` is the file the deployment comes from, whose metrics are looked up.
    """
    from tgi_advisor.engines import around
    from tgi_advisor.engines import facts as engines
    from tgi_advisor.engines import migrate as moving

    engine = engines.find(to, engine_version)
    plan = (advise if search else predict)(spec, facts=facts, source=source, offline=offline, progress=progress)
    found = moving.migrate(plan, engine, given or {}, (*notes, *around.bound(text, engine)))
    return found._replace(rewritten=moving.rewritten(text, engine)) if text else found


def on_engine(
    spec: SpecLike,
    engine: str,
    engine_version: str | None = None,
    *,
    search: bool = True,
    given: Mapping[str, str] | None = None,
    facts: Facts | None = None,
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> "Migration":
    """A deployment that starts on another engine (`vllm`, `sglang`): its start-up sum, and what would run.

    With `search` the longest request that fits is found where the spec pins none. Arguments as `migrate`.
    """
    from tgi_advisor.engines import facts as engines
    from tgi_advisor.engines import migrate as moving

    known = engines.find(engine, engine_version)
    plan = predict(spec, facts=facts, source=source, offline=offline, progress=progress)
    return moving.fresh(plan, known, given or {}, search=search)


class Together(NamedTuple):
    """Several deployments of one machine, planned together."""

    packing: Packing
    """Who takes what of which GPU, in which order they start."""
    plans: tuple[Plan, ...]
    """One plan each, in that order."""


def advise_together(
    specs: Sequence[SpecLike],
    *,
    facts: Sequence[Facts] | None = None,
    source: Source = "auto",
    offline: bool = False,
    speed: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Together:
    """Plan servers that run on one machine at the same time: those on one GPU share its memory.

    The specs of the plans say how each is started: memory fraction, what others hold then, port and name.
    Arguments as `advise`.
    """
    from tgi_advisor.packing import pack

    asked = [read_spec(spec) for spec in specs]
    known = facts or [
        gather_facts(spec, source=source, offline=offline, speed=speed, progress=progress) for spec in asked
    ]
    packed = pack(asked, known)
    plans = [_plan(one.spec, one.facts, one.found, one.base, "tgi", {}) for one in packed.servers]
    sharing = {share.server for gpu in packed.packing.gpus if len(gpu.shares) > 1 for share in gpu.shares}
    return Together(packed.packing, tuple(_beside(plan, sharing) for plan in plans))


def _beside(plan: Plan, sharing: Collection[str]) -> Plan:
    """The plan of a server that has its GPU for itself as it is, else without estimates of speed."""
    if plan.speed is None or plan.spec.container.name not in sharing:
        return plan
    why = "no measurement supports one beside other servers"
    return plan._replace(speed=unsupported(plan.speed, why))


def _plan(
    spec: Spec, facts: Facts, found: Found, here: Base | None, method: Method, figures: Mapping[str, object]
) -> Plan:
    """The plan that a search leads to."""
    prediction = search.outcome(found, spec.workload.concurrency)
    fast = None if here is None else _speed(here, prediction)
    starts = prediction.outcome == "starts"
    what_runs = _container(spec, facts, prediction.limits, prediction, fast) if starts else None
    return Plan(spec, facts, prediction, what_runs, method, found.search, figures, fast)


def _speed(here: Base, prediction: Prediction) -> Served | None:
    """How fast a server is that starts."""
    return served(here, prediction.limits, prediction.concurrency) if prediction.outcome == "starts" else None


def _container(
    spec: Spec, facts: Facts, limits: Limits, prediction: Prediction, speed: Served | None
) -> Container | None:
    """What would run; a spec that cannot be written as a container only matters where something would start."""
    try:
        return container.build(spec, facts, limits, prediction.num_shard, prediction, speed)
    except (SpecError, FactsError):
        if prediction.outcome == "starts":
            raise
        return None


__all__ = [
    "Facts", "Limits", "Plan", "Prediction", "Spec", "Together", "advise", "advise_together", "gather_facts", "migrate",
    "on_engine", "predict", "read_spec",
]  # fmt: skip
