"""From a file that was read to findings: merge, look up what is true, predict, and ask every rule.

Everything that is known of a server is gathered in one `Case` first; the rules only look at it. What
depends on a GPU nobody named is asked of one GPU of every generation, and only an answer they all give
counts; the same goes for a model whose facts are not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.refusals import Refusal, launcher_refusals, router_refusals, shard_refusals
from tgi_advisor.spec.records import GpuSpec, HardwareSpec, ModelSpec, Spec, TgiSpec
from tgi_advisor.units import GiB
from tgi_advisor.validate import comments
from tgi_advisor.validate.catalogue import about, is_gated, no_such_size
from tgi_advisor.validate.effective import Effective, effective
from tgi_advisor.validate.finding import Finding
from tgi_advisor.validate.found import Document, Server, Value
from tgi_advisor.validate.rules import RULES, Case, of_defect
from tgi_advisor.validate.rules.rule import said
from tgi_advisor.verdict import predict, too_small

FactsFor = Callable[[str, "str | None"], "ModelFacts | None"]
"""Facts of a model by its id and revision; None where they are not known."""

GENERATIONS = {
    "cuda": ("nvidia-t4", "nvidia-a100-80gb", "nvidia-l4", "nvidia-h100-80gb"),
    "rocm": ("amd-mi250", "amd-mi300x"),
}
"""One GPU of every generation TGI's flash attention serves: what holds on all of them holds on one nobody named."""


EPOCHS = ("1.0.0", "1.4.5", "2.0.4", "2.4.0", "2.4.1", "3.0.0", "3.3.7")
"""Releases that stand for all of them where the file names none: the launcher's checks changed between these."""
MOST_SHARDS = 1024
"""Shard counts beyond any machine; what they do to a model is not worked out."""


def judge(
    document: Document,
    facts_for: FactsFor,
    gpu: GpuFacts | None = None,
    count: int | None = None,
    release: TgiRelease | None = None,
) -> tuple[Finding, ...]:
    """Every finding about a file, in its order.

    `gpu`, `count` and `release` are the caller's word on what the file does not say; of a GPU it comes first.
    """
    return findings(document, cases(document, facts_for, gpu, count, release))


def cases(
    document: Document,
    facts_for: FactsFor,
    gpu: GpuFacts | None = None,
    count: int | None = None,
    release: TgiRelease | None = None,
) -> list[Case]:
    """What is known about each server of a file."""
    return [_case(document, server, facts_for, gpu, count, release) for server in document.servers]


def findings(document: Document, servers: Sequence[Case]) -> tuple[Finding, ...]:
    """What the rules say about a file and its servers, in the order of the file."""
    found = [of_defect(one) for one in (*document.defects, *comments.defects(document))]
    for case in servers:
        for rule in RULES.values():
            if case.view.image.judged or rule.code[:4] in ("TGI4", "TGI5"):
                found += rule.findings(case)
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one.order))


def _case(
    document: Document,
    server: Server,
    facts_for: FactsFor,
    gpu: GpuFacts | None,
    count: int | None,
    release: TgiRelease | None,
) -> Case:
    """All that is known about one server."""
    view = effective(server, release)
    case = Case(document, server, view)
    if not view.image.judged:
        return case
    try:
        return _with_outlook(_with_facts(case, facts_for, gpu, count))
    except Exception as error:  # noqa: BLE001  (what asks for no outlook is judged nevertheless)
        return replace(case, defect=said(error))


def _with_facts(case: Case, facts_for: FactsFor, gpu: GpuFacts | None, count: int | None) -> Case:
    """The case with what is true of its model, its hardware and its limits."""
    server, view = case.server, case.view
    found, word, there = hardware(server) if gpu is None else (gpu, None, None)
    visible = _visible(server, count, there)
    return replace(
        case,
        facts=model_facts(view, facts_for),
        gpu=found,
        gpu_word=word,
        visible=visible,
        shards=shard_count(view, visible),
        limits=_given_limits(view),
    )


# ---- what is true ----


def model_facts(view: Effective, facts_for: FactsFor) -> ModelFacts | None:
    """The model's facts: those of the id, or of a model of the same architecture that is known."""
    model = view.model
    if not model:
        return None
    revision = view.text("revision")
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


def hardware(server: Server) -> tuple[GpuFacts | None, Value | None, int | None]:
    """The GPU a file names, the word that names it, and the GPUs that come with it."""
    for hint in server.hints:
        if not hint.value.known or hint.kind not in ("gpu", "instance"):
            continue
        found = _named_gpu(hint.kind, hint.value.text)
        if found is not None:
            return found[0], hint.value, found[1] or hint.count
    return None, None, next((hint.count for hint in server.hints if hint.count is not None), None)


def _named_gpu(kind: str, name: str) -> tuple[GpuFacts, int | None] | None:
    """The GPU of a hint, with the GPUs of an instance type; None when it is not known."""
    try:
        return gpus.instance(name) if kind == "instance" else (gpus.find(name), None)
    except AdvisorError:
        return None


def _visible(server: Server, stated: int | None, on_machine: int | None) -> int | None:
    """GPUs the container sees: by its request, else the caller's or the instance's count."""
    asked = server.gpus
    if asked.asked == "ids":
        return len(asked.ids)
    if asked.asked == "count":
        return asked.count
    if asked.asked == "none" and server.form in ("compose", "docker-run", "kubernetes") and asked.how != "platform":
        return stated
    return stated if stated is not None else on_machine


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
    which comes before ZE_AFFINITY_MASK.
    """
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        value = view.env.get(name)
        if value is None:
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


def _with_outlook(case: Case) -> Case:
    """The case with refusals and, where model, GPU and shards are all known, the prediction.

    Nothing is added where tgi-advisor itself does not know the model's family or the GPU's generation, or
    where a value is so absurd (a share that is no number) that no sum can be made with it.
    """
    try:
        case = _with_refusals(case)
        unloadable = case.release is None or any(one.stage == "load" for one in case.refused)
        if case.facts is None or case.gpu is None or not case.shards or unloadable or not _predictable(case):
            return case
        return _with_prediction(case, case.facts, case.gpu)
    except (AdvisorError, ArithmeticError, ValueError):
        return case


def _with_refusals(case: Case) -> Case:
    """The case with the refusals that hold in every release, on every GPU and for every model it may mean."""
    those = (case.release,) if case.release is not None else tuple(map(releases.find, EPOCHS))
    models = (case.facts,) if case.facts is not None else _any_model(case.view.model or "")
    cards = (case.gpu,) if case.gpu is not None else _any_gpu(case.view.image.system or "cuda")
    settings = [_setting(case, model, gpu, one) for one in those for model in models for gpu in cards]
    found = [_by_rule(_refused(case, setting)) for setting in settings]
    common = set.intersection(*map(set, found))
    kept = [_agreed(one, [each[code] for each in found]) for code, one in found[-1].items() if code in common]
    return replace(case, refused=tuple(kept))


def _by_rule(found: Iterator[Refusal]) -> dict[str, Refusal]:
    """Of the refusals each rule reports the first, which is the one TGI gets to."""
    first: dict[str, Refusal] = {}
    for one in found:
        first.setdefault(_reported_as()[one.code], one)
    return first


def _agreed(one: Refusal, others: Sequence[Refusal]) -> Refusal:
    """A refusal without the figures of the models and GPUs that stand in for one that is not known."""
    same = [other for other in others if other.code == one.code]
    steps = tuple(step for step in one.next_steps if all(step in other.next_steps for other in same))
    return one._replace(message=_without_figures(one.message, [other.message for other in same]), next_steps=steps)


def _without_figures(text: str, others: Sequence[str]) -> str:
    """The text with `...` for each number that is another one in one of the others."""
    parts = re.split(r"(\d+)", text)
    for other in (re.split(r"(\d+)", one) for one in others):
        if len(other) == len(parts):
            parts = [mine if mine == theirs else "..." for mine, theirs in zip(parts, other, strict=True)]
    return "".join(parts)


@cache
def _reported_as() -> Mapping[str, str]:
    """The rule that reports a refusal: releases word the same refusal differently."""
    return {code: rule.code for rule in RULES.values() for code in rule.refusals}


def _refused(case: Case, setting: Setting) -> Iterator[Refusal]:
    asked = defaults.launcher_limits(setting, case.limits)
    yield from launcher_refusals(setting, case.limits, asked)
    if case.facts is not None and case.release is not None:
        yield from shard_refusals(setting, asked)
        most = None if setting.family.paged else asked.max_batch_total_tokens
        inferred = Limits(asked.max_input_tokens, asked.max_total_tokens, asked.max_batch_prefill_tokens, most)
        yield from router_refusals(setting, inferred, None)


_MEMORY_FLAGS = (
    "max-input-tokens", "max-input-length", "max-total-tokens", "max-batch-prefill-tokens", "max-batch-size",
    "quantize", "dtype", "kv-cache-dtype", "cuda-memory-fraction", "speculate", "num-shard", "lora-adapters",
)  # fmt: skip


def _predictable(case: Case) -> bool:
    """Whether everything the memory depends on is known."""
    nothing = 0 in (*case.limits.given().values(), case.view.number("max-batch-size"))
    if nothing or (case.shards or 0) > MOST_SHARDS:
        return False
    return case.sure(*_MEMORY_FLAGS) and not case.view.slips and not any(one.wrong for one in case.view.flags.values())


def _with_prediction(case: Case, model: ModelFacts, gpu: GpuFacts) -> Case:
    """The case with what `predict` says of its launch, and where memory is short the limits `advise` finds."""
    setting = _setting(case, model, gpu, case.release)
    seen = predict(warmup.base(setting), case.limits)
    told = {_reported_as()[one.code] for one in case.refused}
    new = tuple(one for one in seen.refusals if _reported_as()[one.code] not in told)
    fits = _fitting(case, model, gpu) if seen.runs_out == "warmup" or too_small(seen) else None
    return replace(case, setting=setting, prediction=seen, refused=(*case.refused, *new), fits=fits)


def _fitting(case: Case, model: ModelFacts, gpu: GpuFacts) -> Limits | None:
    """The limits that `advise` finds for the launch, where any hold."""
    from tgi_advisor import search  # only when something has to be found

    setting = _setting(case, model, gpu, case.release, limits=False)
    hardware = replace(setting.spec.hardware, memory_fraction=setting.memory_fraction)
    spec = replace(setting.spec, hardware=hardware, tgi=replace(setting.spec.tgi, num_shard=setting.num_shard))
    return search.advise(spec, setting.facts).found.limits


_LIMITS = frozenset(
    ("max-input-tokens", "max-input-length", "max-total-tokens", "max-batch-prefill-tokens", "max-batch-total-tokens")
)


def _setting(
    case: Case, model: ModelFacts, gpu: GpuFacts, release: TgiRelease | None, *, limits: bool = True
) -> Setting:
    """The launch as `defaults.resolve` sees it; the file's words become the spec's flags and environment."""
    view = case.view
    assert release is not None, "asked only where the release is known"
    given = {
        name: one.typed
        for name, one in view.flags.items()
        if one.by == "argument" and one.typed is not None and name not in ("revision", "model-id")
    }
    ours = {flag.env for name, flag in _flags_by_name(view).items() if name in _LIMITS}
    env = {name: value.text for name, value in view.env.items() if value.known and value.origin != "image"}
    if case.shards is None:
        given.pop("sharded", None)  # whether there are two devices is not known
    if not limits:
        given = {name: value for name, value in given.items() if name not in _LIMITS}
        env = {name: text for name, text in env.items() if name not in ours}
    shards = case.shards if case.shards and case.shards <= MOST_SHARDS else 1
    count = max(min(case.visible or shards, MOST_SHARDS), 1)
    spec = Spec(
        model=ModelSpec(id=model.id),
        hardware=HardwareSpec(gpu=GpuSpec(name=gpu.name), count=count),
        tgi=TgiSpec(flags=given, env=env),
    )
    facts = Facts(model, gpu, count, release, view.image.variant or "")
    return defaults.resolve(spec, facts, shards, counted="num-shard" not in view.flags)


def _flags_by_name(view: Effective) -> Mapping[str, Any]:
    from tgi_advisor.validate.effective import known_flags

    return known_flags(view.release)


@cache
def _any_gpu(system: str) -> tuple[GpuFacts, ...]:
    """GPUs that stand for every GPU of a system."""
    if system in GENERATIONS:
        return tuple(gpus.find(name) for name in GENERATIONS[system])
    stated = GpuSpec(name=f"any {system}", memory=64 * GiB, system=system)
    return (gpus.stated(stated),)


@cache
def _any_model(name: str) -> tuple[ModelFacts, ...]:
    """Models that stand for every model: short and long contexts, and a configuration nobody can read.

    The last alone stands for a name that is not on the Hub: the launcher cannot read its configuration.
    """
    unreadable = ModelFacts(name, None, "", {"model_type": "llama"}, {}, ())
    if no_such_size(name):
        return (unreadable,)
    llama = {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    }  # fmt: skip
    contexts = (512, 2048, 4096, 32768, 1 << 20)
    configs = [{**llama, "max_position_embeddings": context} for context in contexts]
    return (*(ModelFacts(name, None, "", config, {}, ()) for config in configs), unreadable)
