"""From a file that was read to findings: merge, look up what is true, predict, and ask every rule.

Everything that is known of a server is gathered in one `Case` first; the rules only look at it. What
depends on a GPU nobody named is asked of one GPU of every generation, and only an answer they all give
counts; the same goes for a model whose facts are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts import flags
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.refusals import Refusal, launcher_refusals, router_refusals, shard_refusals
from tgi_advisor.spec.records import ContainerSpec, GpuSpec, HardwareSpec, ModelSpec, MountSpec, Spec, TgiSpec
from tgi_advisor.validate import comments, unknown
from tgi_advisor.validate.catalogue import about, is_gated, is_path, no_such_size
from tgi_advisor.validate.effective import Effective, effective
from tgi_advisor.validate.finding import Finding
from tgi_advisor.validate.found import Document, Server
from tgi_advisor.validate.hardware import Stated, card_of
from tgi_advisor.validate.paths import on_host
from tgi_advisor.validate.read.stated import tag_of
from tgi_advisor.validate.rules import RULES, Case, of_defect
from tgi_advisor.validate.rules.rule import FAILED, MEMORY_FLAGS, NO_GPU, Machine, Rule, said
from tgi_advisor.validate.together import with_neighbours
from tgi_advisor.verdict import predict, too_small

FactsFor = Callable[[str, "str | None"], "ModelFacts | None"]
"""Facts of a model by its id and revision, or of a folder by its path beside the file; None where there are none."""

VISIBLE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Variables the launcher counts devices by: the first that is set, the last of them on Intel's GPUs."""
MOST_SHARDS = 1024
"""Shard counts beyond any machine; what they do to a model is not worked out."""


def judge(
    document: Document,
    facts_for: FactsFor,
    gpu: GpuFacts | None = None,
    count: int | None = None,
    release: TgiRelease | None = None,
) -> tuple[Finding, ...]:
    """Every finding about a file, in its order; the rest is the caller's word, as in `Stated`."""
    return findings(document, cases(document, facts_for, Stated(gpu, count, release)))


def cases(document: Document, facts_for: FactsFor, stated: Stated) -> list[Case]:
    """What is known about each server of a file."""
    return with_neighbours(_case(document, server, facts_for, stated) for server in document.servers)


def findings(document: Document, servers: Sequence[Case]) -> tuple[Finding, ...]:
    """What the rules say about a file and its servers, in the order of the file."""
    found = [of_defect(one) for one in (*document.defects, *comments.defects(document))]
    for case in servers:
        for rule in RULES.values():
            if _is_asked(rule, case):
                found += (_as_sure(case, one) for one in rule.findings(case))
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one.order))


def _as_sure(case: Case, one: Finding) -> Finding:
    """A finding, which is no error where it rests on a release that is only supposed."""
    if one.severity != "error" or one.code not in case.unsure:
        return one
    return replace(one, severity="warning", message=f"{one.message} (if it holds TGI {case.release})")


_OF_ANY = ("TGI401", "TGI504", "TGI506", "TGI532", FAILED)
"""Rules that hold whatever an image's program is."""


def _is_asked(rule: Rule, case: Case) -> bool:
    """Whether a rule has to do with the program that runs."""
    image = case.view.image
    if image.other:
        return rule.code in _OF_ANY
    return image.judged or rule.code[:4] in ("TGI4", "TGI5")


def _case(document: Document, server: Server, facts_for: FactsFor, stated: Stated) -> Case:
    """All that is known about one server."""
    said = tag_of(document.stated, server.image.text) if server.image is not None else ""
    view = effective(server, stated.release, said)
    case = Case(document, server, view)
    if not view.image.judged:
        return case
    for step in (lambda case: _with_facts(case, facts_for, stated), _with_refusals, _with_memory):
        case = _guarded(step, case)
    return case


def _guarded(step: Callable[[Case], Case], case: Case) -> Case:
    """The case after a step; where that fails, as it was and with the defect, so that the rest is judged."""
    try:
        return step(case)
    except Exception as error:  # noqa: BLE001  (what asks for no outlook is judged nevertheless)
        return replace(case, defect=case.defect or said(error))


def _with_facts(case: Case, facts_for: FactsFor, stated: Stated) -> Case:
    """The case with what is true of its model, its hardware and its limits."""
    view, facts = case.view, model_facts(case.view, facts_for)
    card = card_of(case.server, view, stated)
    visible = _visible(case.server, stated.gpu_count, card.machine)
    shards = shard_count(view, visible)
    if shards is None and card.gpu is not None and card.gpu.system == "cpu" and case.sure("num-shard", "sharded"):
        shards = 1
    assumed = (facts.assumed if facts is not None else "", card.assumed)
    case = replace(
        case, facts=facts, gpu=card.gpu, gpu_word=card.word, gpu_unknown=card.unknown, machine=card.machine,
        visible=visible, shards=shards, limits=_given_limits(view), assumed=tuple(filter(None, assumed)),
    )  # fmt: skip
    if card.gpu is not None and case.server.form == "spec":
        return _as_advised(case)
    return _with_count(case, stated) if card.gpu is not None else case


def _as_advised(case: Case) -> Case:
    """A spec of our own that leaves the number of shards open: `advise` takes the most the model can be split into."""
    model, gpu, release = case.facts, case.gpu, case.release
    if model is None or gpu is None or release is None or {"num-shard", "sharded"} & case.view.flags.keys():
        return case
    try:
        setting = _setting(replace(case, shards=1), model, gpu, release)
    except AdvisorError:
        return case
    return replace(case, shards=defaults.legal_shards(model, setting.family, case.visible or 1, setting.quantize)[-1])


def _with_count(case: Case, stated: Stated) -> Case:
    """The case with a number of shards where neither the file nor --count says how many GPUs TGI sees.

    That is one a GPU of the machine where its type is known, else one.
    """
    view, visible, machine = case.view, case.visible, case.machine
    given = {"num-shard", "sharded"} & view.flags.keys()
    if case.shards is not None:
        asked = case.server.gpus.asked in ("ids", "count") or stated.gpu_count is not None
        if machine is None or machine is not stated.machine or asked or given or devices(view, None) is not None:
            return case
        why = f"judged with {_gpus(machine.gpus)}, which is what {machine.name} has"
    else:
        shards = _all(view.release, visible or 1)
        hidden = any(not view.env[name].known for name in VISIBLE if name in view.env)
        if shards is None or given or hidden or not view.complete:
            return case
        case = replace(case, shards=shards)
        why = f"judged with {_gpus(shards)}: neither the file nor --count says how many there are"
        if visible is not None:
            why = f"judged with {_gpus(shards)}: the file does not say which ones TGI sees"
    return replace(case, assumed=(*case.assumed, why))


def _gpus(count: int) -> str:
    return "one GPU" if count == 1 else f"{count} GPUs"


# ---- what is true ----


def model_facts(view: Effective, facts_for: FactsFor) -> ModelFacts | None:
    """The model's facts: those of the id, or of a model of the same architecture that is known."""
    model = view.model
    if not model:
        return None
    revision = view.text("revision")
    if is_path(model):  # a folder of the container, which may lie beside the file
        there = on_host(model, view.server.mounts)
        return facts_for(there, None) if there != model and is_path(there) else None
    facts = facts_for(model, revision)
    if facts is None and (like := about(model).get("like")):
        facts = facts_for(like, None)
        if facts is not None:
            source = f"the architecture of {like}, which {model} shares; {facts.source}"
            facts = ModelFacts(
                model,
                None,
                source,
                facts.config,
                facts.defaults,
                facts.tensors,
                facts.model_max_length,
                is_gated(model),
            )
    return facts


def _visible(server: Server, stated: int | None, machine: Machine | None) -> int | None:
    """GPUs the container sees: by its request, else the caller's count, else all of the machine."""
    asked = server.gpus
    if asked.asked == "ids":
        return len(asked.ids)
    if asked.asked == "count":
        return asked.count
    if asked.asked == "none" and server.form in ("compose", "docker-run", "kubernetes") and asked.how != "platform":
        return stated
    return stated if stated is not None or machine is None else machine.gpus


def shard_count(view: Effective, visible: int | None) -> int | None:
    """Shards the launcher starts (find_num_shards, launcher/src/main.rs@v3.3.7:1374-1411)."""
    given = view.flags.get("num-shard")
    if given is not None:
        return view.number("num-shard")
    if not view.complete:
        return None
    sharded = view.flags.get("sharded")
    if sharded is not None and sharded.typed is None:
        return None
    return 1 if sharded is not None and sharded.typed is False else devices(view, visible)


def devices(view: Effective, visible: int | None) -> int | None:
    """Devices the launcher counts when it is not told how many shards to start; None when that cannot be known.

    num_cuda_devices, launcher/src/main.rs@v3.3.7:1262-1294. NVIDIA's images and runtime set NVIDIA_VISIBLE_DEVICES,
    which comes before ZE_AFFINITY_MASK. Where Docker itself is asked for GPUs, it writes it after the container's own
    (daemon/nvidia_linux.go of github.com/moby/moby).
    """
    written = view.server.gpus.how in ("flag", "reservation") and view.server.gpus.asked in ("all", "ids", "count")
    for name in VISIBLE[:2]:
        value = view.env.get(name)
        if value is None or (written and name == "NVIDIA_VISIBLE_DEVICES" and view.server.gpus.vendor == "nvidia"):
            continue
        if not value.known:
            return None
        if name == "NVIDIA_VISIBLE_DEVICES" and value.text.strip() in ("all", "void"):
            return _all(view.release, visible)
        return len(value.text.split(","))
    asked, system = view.server.gpus, view.image.system
    nvidia = asked.vendor == "nvidia"
    mask = view.env.get("ZE_AFFINITY_MASK")
    if mask is not None and system not in ("cuda", None) and (not nvidia or asked.asked == "none"):
        if not mask.known or view.release is None:
            return None
        return len(mask.text.split(",")) if view.release.version >= (2, 1, 0) else 1
    if not nvidia:
        return 1
    if asked.asked == "all" or asked.how == "runtime":
        return _all(view.release, visible)
    if asked.asked in ("ids", "count"):
        return visible
    return 1 if asked.asked == "none" else None


def _all(release: TgiRelease | None, visible: int | None) -> int | None:
    """What NVIDIA_VISIBLE_DEVICES=all counts as; `void`, which NVIDIA's CDI mode sets, counts alike."""
    if release is None:
        return None
    return 1 if release.all_gpus_counts_one else visible


def _given_limits(view: Effective) -> Limits:
    longest = view.number("max-input-tokens")
    return Limits(
        longest if longest is not None else view.number("max-input-length"),
        view.number("max-total-tokens"),
        view.number("max-batch-prefill-tokens"),
        view.number("max-batch-total-tokens"),
    )


# ---- what TGI makes of it ----


def _with_refusals(case: Case) -> Case:
    """The case with the refusals that hold in every release, on every GPU and for every model it may mean."""
    if case.release is None:
        return replace(case, refused=tuple(_refused_in_all(case).values()))
    found = _refused_in(case, case.release)
    unsure = {*_BY_RELEASE, *(found.keys() - _refused_in_all(case).keys())} if case.view.image.supposed else ()
    return replace(case, refused=tuple(found.values()), unsure=frozenset(unsure))


def _refused_in_all(case: Case) -> dict[str, Refusal]:
    """What every release refuses that the server may run, by the rule that reports it."""
    sure: dict[str, Refusal] | None = None
    for release in unknown.any_release(case.view):
        found = _refused_in(case, release)
        if _TOO_OLD in found:
            continue  # refused in any case, and not meant
        sure = found if sure is None else {rule: one for rule, one in sure.items() if rule in found}
        if not sure:
            break
    return sure or {}


_TOO_OLD = "TGI134"
"""The rule that a release cannot serve the model."""
_BY_RELEASE = (_TOO_OLD, "TGI202", "TGI203")
"""Rules that another release answers otherwise: which classes it has, and what its warm-up takes."""


def _refused_in(case: Case, release: TgiRelease) -> dict[str, Refusal]:
    """What a release refuses for certain, by the rule that reports it."""
    view, shards = case.view, _shards(case)
    models = (case.facts,) if case.facts is not None else unknown.any_model(view.model or "", shards)
    cards = (case.gpu,) if case.gpu is not None else unknown.any_gpu(view.image.system)
    sure: dict[str, Refusal] | None = None
    for model, gpu in unknown.any_of(models, cards):
        setting = _setting(case, model, gpu, release)
        if case.facts is None and not setting.family.supported:
            continue  # refused in any case, and not meant
        found = _by_rule(_refused(case, setting))
        if sure is None:
            sure = found
        open_to = _without_effect(setting) if case.facts is None else ()
        sure = {
            rule: unknown.shared(one, found.get(rule, one))
            for rule, one in sure.items()
            if rule in found or one.code in open_to
        }
        if not sure:
            break
    return sure or {}


def _by_rule(found: Iterator[Refusal]) -> dict[str, Refusal]:
    """Of the refusals each rule reports the first, which is the one TGI gets to."""
    first: dict[str, Refusal] = {}
    for one in found:
        first.setdefault(_reported_as()[one.code], one)
    return first


def _without_effect(setting: Setting) -> tuple[str, ...]:
    """Refusals that a class escapes which what is refused does not even reach."""
    return () if setting.family.kv_cache_dtype else ("fp8-kv-cache",)


@cache
def _reported_as() -> Mapping[str, str]:
    """The rule that reports a refusal: releases word the same refusal differently."""
    return {code: rule.code for rule in RULES.values() for code in rule.refusals}


def _refused(case: Case, setting: Setting) -> Iterator[Refusal]:
    asked = defaults.launcher_limits(setting, case.limits)
    launcher = launcher_refusals(setting, case.limits, asked)
    checked = (case.view.image.older or CHECKED) >= CHECKED
    if checked:
        yield from (one for one in launcher if case.shards is not None or one.code not in _COUNTED)
    if not case.view.image.server:
        yield from shard_refusals(setting, asked)
    if not checked:
        return
    most = None if setting.family.paged else asked.max_batch_total_tokens
    inferred = Limits(asked.max_input_tokens, asked.max_total_tokens, asked.max_batch_prefill_tokens, most)
    yield from router_refusals(setting, inferred, None)


CHECKED = (0, 9, 2)
"""First release whose launcher checks its arguments as 1.0.0 does (launcher/src/main.rs@v0.9.2:1013-1036)."""
_COUNTED = ("sharded-needs-two",)
"""Refusals that need the number of GPUs."""
_MEMORY_VARIABLES = (
    "ATTENTION", "PREFIX_CACHING", "USE_PREFIX_CACHING", "PREFILL_CHUNKING", "TGI_WIGGLE_ROOM", "FLASH_DECODING",
    "USE_FLASH_ATTENTION", "REQUEST_LOGPROBS", "XPU_MEMORY_FRACTION",
)  # fmt: skip
"""Variables the memory depends on."""


def _with_memory(case: Case) -> Case:
    """The case with the prediction; where something keeps it from being made, with what that is."""
    why = tuple(_unjudged(case))
    unloadable = any(one.stage == "load" for one in case.refused)
    case = replace(case, hopeless=_hopeless(case) or (case.gpu is None and unloadable))
    if why or unloadable or case.facts is None or case.gpu is None or not _predictable(case):
        return replace(case, unjudged=why)
    try:
        return _with_prediction(case, case.facts, case.gpu)
    except AdvisorError as error:
        return replace(case, unjudged=(error.message.rstrip("."),))


def _hopeless(case: Case) -> bool:
    """Whether memory could not be judged if the GPU were named either, nor if the Hub were asked."""
    if case.gpu is not None:
        return case.facts is None and bool(case.view.model) and is_path(case.view.model or "")
    if case.facts is None:
        return True
    shards = case.shards or 1  # as --gpu without --count has it
    rest = tuple(_unjudged(replace(case, gpu_unknown=NO_GPU, shards=shards)))
    return rest != (NO_GPU,) or not _predictable(replace(case, shards=shards))


def _unjudged(case: Case) -> Iterator[str]:
    """Why nothing can be said about memory, with what would tell; what TGI503 or an error says is left to them."""
    view = case.view
    if view.model and no_such_size(view.model):
        return  # TGI132: there is nothing to judge
    if view.image.server:
        yield f"the memory of {view.image.server} is not modelled"
        return
    if case.release is None:
        yield "the TGI release is not known (--release says it)"
    if case.facts is None and view.model:
        where = "it is a folder of the container" if is_path(view.model) else "--online asks the Hub"
        yield f"nothing is known of {view.model} ({where})"
    if case.gpu is None:
        yield case.gpu_unknown or NO_GPU
    if case.shards is None and case.release is not None and case.sure("num-shard", "sharded"):
        yield "how many GPUs TGI will use is not known (--count says it)"
    yield from (f"{name} is not in the file" for name in _MEMORY_VARIABLES if name in view.env and not case.sure(name))
    zeros = [name for name, value in case.limits.given().items() if not value]
    zeros += ["max_batch_size"] if view.number("max-batch-size") == 0 else []
    if zeros and not case.refused:
        yield f"{zeros[0]} is 0"


def _predictable(case: Case) -> bool:
    """Whether everything the memory depends on is known."""
    nothing = 0 in (*case.limits.given().values(), case.view.number("max-batch-size"))
    if nothing or not 0 < (case.shards or 0) <= MOST_SHARDS:
        return False
    sure = case.sure(*MEMORY_FLAGS, *_MEMORY_VARIABLES)
    return sure and not case.view.slips and not any(one.wrong for one in case.view.flags.values())


def _with_prediction(case: Case, model: ModelFacts, gpu: GpuFacts) -> Case:
    """The case with what `predict` says of its launch, and where memory is short the limits `advise` finds."""
    setting = _setting(case, model, gpu, case.release)
    here = warmup.base(setting)
    seen = predict(here, case.limits)
    told = {_reported_as()[one.code] for one in case.refused}
    new = tuple(one for one in seen.refusals if _reported_as()[one.code] not in told)
    fits = _fitting(here) if seen.runs_out == "warmup" or too_small(seen) else None
    return replace(case, setting=setting, prediction=seen, refused=(*case.refused, *new), fits=fits)


def _fitting(here: Base) -> Limits | None:
    """The limits that `advise` finds for the launch, where any hold."""
    from tgi_advisor import search  # only when something has to be found

    return search.fitting(here)


def _setting(case: Case, model: ModelFacts, gpu: GpuFacts, release: TgiRelease | None) -> Setting:
    """The launch as `defaults.resolve` sees it; the file's words become the spec's flags and environment."""
    view = case.view
    assert release is not None, "asked only where the release is known"
    other = _of_older(view, release)
    given = {
        name: one.typed
        for name, one in view.flags.items()
        if one.by == "argument" and one.typed is not None and name not in ("revision", "model-id", *other)
    }
    unread = {view.known_flags[name].env for name in other}
    env = {
        name: value.text
        for name, value in view.env.items()
        if value.known and value.origin != "image" and name not in unread
    }
    shards = _shards(case)
    count = max(min(case.visible or shards, MOST_SHARDS), 1)
    spec = Spec(
        model=ModelSpec(id=model.id),
        hardware=HardwareSpec(gpu=GpuSpec(name=gpu.name), count=count),
        tgi=TgiSpec(flags=given, env=env, image=None if _own_image(view) else "another"),
        container=ContainerSpec(mounts=_mounts(view.server)),
    )
    facts = Facts(model, gpu, count, release, view.image.variant or "")
    return defaults.resolve(spec, facts, shards, counted="num-shard" not in view.flags)


def _of_older(view: Effective, release: TgiRelease) -> frozenset[str]:
    """Flags that the release which stands for an older one does not have, or reads otherwise (`--quantize` alone)."""
    if view.image.older is None:
        return frozenset()
    here = flags.flags_of(release)
    older = view.known_flags.items()
    return frozenset(name for name, flag in older if name not in here or here[name].type != flag.type)


def _shards(case: Case) -> int:
    """Shards to reckon with: 1 where the number is not known or absurd."""
    return case.shards if case.shards and case.shards <= MOST_SHARDS else 1


def _own_image(view: Effective) -> bool:
    """Whether TGI's own image runs, as far as the file says; a spec that names none has it."""
    return view.image.official or (view.server.form == "spec" and view.server.image is None)


def _mounts(server: Server) -> tuple[MountSpec, ...]:
    """What is mounted: in a spec of our own what it says; elsewhere TGI137 judges that, and everything may be."""
    if server.form != "spec":
        return (MountSpec("everything", "/"),)
    return tuple(MountSpec(one.source.text, one.target.text, one.read_only) for one in server.mounts if one.source)
