"""A deployment on another engine: what is told to it, what it makes of the GPU, whether it keeps today's promise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from tgi_advisor import container as containers
from tgi_advisor.engines import beside, memory
from tgi_advisor.engines.facts import Engine, Rule
from tgi_advisor.engines.memory import Start
from tgi_advisor.engines.translate import Step, Told, translate, words
from tgi_advisor.errors import SpecError
from tgi_advisor.estimate import defaults
from tgi_advisor.estimate.replay import pictures
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import adapters, families
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Container, Plan
from tgi_advisor.spec.records import ContainerSpec
from tgi_advisor.units import human, thousands

Verdict = Literal["holds", "less", "unknown", "refused", "out_of_memory"]
"""Whether today's promise is kept; `unknown` where TGI makes none, or memory is not computed."""

UNCOMPUTED = frozenset({"mamba", "seq2seq"})
"""Families as TGI serves them that have no cache of tokens, or none an engine serves."""


GAUGES = ("tgi_queue_size", "tgi_batch_current_size")
"""Gauges of TGI's whose counterparts count the same: requests."""


class Rewritten(NamedTuple):
    """A line of a file that asks for TGI's metrics, as it has to ask for the engine's."""

    line: int
    """Line of the file, the first is 1."""
    before: str
    """What stands there, without blanks around it."""
    after: str
    """The same with the engine's names."""
    lost: tuple[str, ...]
    """Names in it that nothing in the engine stands for, left as they are."""
    notes: tuple[str, ...] = ()
    """What the names alone do not mend: other units, labels that are not there, other buckets."""


class Migration(NamedTuple):
    """One deployment, on TGI and on another engine."""

    engine: Engine
    """The engine and its version."""
    plan: Plan
    """What TGI makes of it today."""
    told: Told
    """What the engine is told, memory setting included, and what became of every argument."""
    start: Start | None
    """Its start-up sum; None where it is not computed for this family."""
    container: Container | None
    """What would run; None when it would not."""
    promise: int | None
    """Tokens TGI's KV cache holds today; None where it infers none, or does not start."""
    verdict: Verdict
    """Whether the engine keeps that."""
    refusals: tuple[str, ...]
    """Why it would not serve this deployment, most important first."""
    warnings: tuple[str, ...]
    """What to know."""
    rewritten: tuple[Rewritten, ...] = ()
    """Lines of the same file that ask for TGI's metrics."""
    fresh: bool = False
    """Whether nobody moves: the deployment starts on this engine."""


def migrate(plan: Plan, engine: Engine, given: Mapping[str, str], notes: Sequence[str] = ()) -> Migration:
    """`plan` on `engine`; `given` are memory settings that are stated, `notes` what to say besides."""
    setting = defaults.resolve(plan.spec, plan.facts, plan.prediction.num_shard)
    limits = plan.prediction.limits
    model, revision = containers.source_of(plan.spec, plan.facts)
    told = _translated(setting, limits, engine, model, revision, searched=plan.search is not None)
    if any(note.partition(": --api-key")[1] for note in notes):
        told = _guarded(told, engine)
    promise = _promise(plan)
    start = None
    if setting.family.served_by not in UNCOMPUTED and setting.family.supported:
        start = memory.of(engine).start(engine, setting, told, given, promise or limits.max_total_tokens or 0)
        told = _with_memory(told, engine, setting, start)
    refusals = [*_refusals(setting, limits, engine), *told.refusals]
    if start is not None and start.outcome != "starts":
        refusals.append(start.reason)
    verdict = _verdict(start, refusals, promise)
    made = None if verdict in ("refused", "out_of_memory") else _container(plan, engine, told, model)
    warnings = (*_warnings(setting, engine, start, plan), *notes)
    return Migration(engine, plan, told, start, made, promise, verdict, tuple(refusals), warnings)


def _translated(
    setting: Setting, limits: Limits, engine: Engine, model: str, revision: str | None, *, searched: bool
) -> Told:  # fmt: skip
    """What the engine is told; a prefill budget that nobody stated or searched is TGI's own, and left to the engine."""
    step = limits.max_batch_prefill_tokens
    if searched or step is None or defaults.given_limits(setting).max_batch_prefill_tokens is not None:
        return _fitted(translate(setting, limits, engine, model, revision))
    told = _fitted(translate(setting, limits._replace(max_batch_prefill_tokens=None), engine, model, revision))
    why = (
        f"TGI's own default, which nobody stated: {engine.title}'s own holds, and a longer prompt takes several steps."
    )
    source = engine.rules["max-batch-prefill-tokens"].source
    return told._replace(steps=(*told.steps, Step(f"--max-batch-prefill-tokens {step}", "", "automatic", why, source)))


def _promise(plan: Plan) -> int | None:
    """Tokens TGI's cache holds, where it starts and infers any."""
    return plan.prediction.limits.max_batch_total_tokens if plan.prediction.outcome == "starts" else None


def _verdict(start: Start | None, refusals: Sequence[str], promise: int | None) -> Verdict:
    if start is not None and start.outcome == "out_of_memory" and len(refusals) == 1:
        return "out_of_memory"
    if refusals:
        return "refused"
    if start is None or promise is None:
        return "unknown"
    return "holds" if start.tokens >= promise else "less"


def _fitted(told: Told) -> Told:
    """vLLM refuses a step smaller than its largest batch (vllm@0.33.0:vllm/config/scheduler.py:331): it is widened."""
    step, most = told.number("--max-num-batched-tokens"), told.number("--max-num-seqs")
    if step is None or most is None or step >= most:
        return told
    why = f"A step may not be smaller than the largest batch, which --max-batch-size makes {thousands(most)}."
    said = Step("", f"--max-num-batched-tokens {most}", "near", why, "vllm@0.33.0:vllm/config/scheduler.py:331")
    flags = {**told.flags, "--max-num-batched-tokens": (str(most),)}
    return told._replace(flags=flags, steps=(*told.steps, said))


def _guarded(told: Told, engine: Engine) -> Told:
    """What is told where the file gives TGI an API key, which no spec holds: without one the server would be open."""
    rule = engine.rules["api-key"]
    text, relation = (f"{rule.to} of your shell", rule.relation) if rule.to else ("", "none")
    said = Step("--api-key (not shown)", text, relation, rule.why, rule.source)
    secret = {rule.to: rule.to} if rule.to else {}
    return told._replace(secret_env={**told.secret_env, **secret}, steps=(*told.steps, said))


def _with_memory(told: Told, engine: Engine, setting: Setting, start: Start) -> Told:
    """What is told with the memory setting, and the reason of it."""
    rule: Rule = engine.rules["cuda-memory-fraction"]
    flags = {**told.flags, **{flag: (value,) for flag, value in start.setting}}
    text = " ".join(f"{flag} {value}" for flag, value in start.setting)
    said = f"--cuda-memory-fraction {setting.memory_fraction:g}"
    why = start.why if start.why.startswith("vLLM") else f"{start.why[:1].upper()}{start.why[1:]}"
    step = Step(said, text, "different", f"{why}. {rule.why}", rule.source)
    others = tuple(one for one in told.steps if not one.tgi.startswith("--cuda-memory-fraction "))
    return told._replace(flags=flags, steps=(*others, step))


def _container(plan: Plan, engine: Engine, told: Told, model: str) -> Container | None:
    """TGI's container with the engine in it."""
    image = engine.image(plan.facts.gpu.system)
    if image is None:
        return None
    made = plan.container
    if made is None:
        try:
            made = containers.build(plan.spec, plan.facts, plan.prediction.limits, plan.prediction.num_shard)
        except SpecError:
            return None
    cache = engine.cache if plan.facts.release.version >= (2, 3, 0) else f"{engine.cache}/hub"
    several = plan.prediction.num_shard > 1 and made.shm_size == "1g"
    shm = engine.shm_size if several and engine.shm_size else made.shm_size
    return containers.elsewhere(
        made, image, words(engine, model, told.flags), engine.port, cache, engine.health, shm, told.env,
        told.secret_env, {name: engine.metrics[name] for name in GAUGES if engine.metrics.get(name)},
    )  # fmt: skip


# -- what is refused, and what surprises


def _refusals(setting: Setting, limits: Limits, engine: Engine) -> Iterator[str]:
    """What is known before launch, beside the memory."""
    gpu, model = setting.facts.gpu, setting.facts.model
    if engine.image(gpu.system) is None:
        yield f"no image of {engine.title} for {gpu.system} is known here ({', '.join(engine.images)} is)"
        return
    if gpu.system == "cuda" and gpu.compute_capability and gpu.compute_capability < engine.capability:
        have, need = (".".join(map(str, pair)) for pair in (gpu.compute_capability, engine.capability))
        yield f"{engine.title} {engine.version} needs compute capability {need}, and {gpu.name} has {have}"
    if gpu.system == "cuda" and gpu.driver_major is not None and gpu.driver_major < engine.driver:
        yield (
            f"the image of {engine.title} {engine.version} needs driver {engine.driver} or later, and this machine has "
            f"{gpu.driver}. {engine.driver_hint}"
        )
    yield from _gone(setting, engine)
    context = families.context_length(model)
    longest = limits.max_total_tokens
    if context and longest and longest > context and "rope-scaling" not in setting.flags:
        over = {"vllm": "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "sglang": "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"}
        if setting.spec.tgi.env.get(over[engine.name]) != "1":
            yield (
                f"requests of {thousands(longest)} tokens are longer than the model's context of {thousands(context)}, "
                f"which {engine.title} refuses: set limits.max_total_tokens to {context}, or tgi.env."
                f"{over[engine.name]} to 1"
            )
    heads = families.heads(model) if setting.family.supported else 0
    if heads % setting.num_shard:
        yield f"{heads} attention heads cannot be split over {setting.num_shard} GPUs"


def _gone(setting: Setting, engine: Engine) -> Iterator[str]:
    """A family the engine has dropped, with the last version that had it, or never had."""
    model = setting.facts.model
    kinds = [one for one in model.config.get("architectures") or () if isinstance(one, str)]
    if any(one in engine.architectures for one in kinds):
        return
    for name in (*kinds, model.model_type):
        found = next((one for one in engine.removed if one.name == name), None)
        if found is None:
            continue
        if found.last:
            image = re.sub(r":v.*", f":v{found.last}", engine.images["cuda"])
            yield (
                f"{engine.title} {engine.version} does not serve {name} any more: {found.last} was the last version "
                f"that did ({image}), with flags and defaults of its own"
            )
        else:
            yield f"{engine.title} {engine.version} does not serve {name} models"
        return


def _warnings(
    setting: Setting, engine: Engine, start: Start | None, plan: Plan, *, moves: bool = True
) -> Iterator[str]:  # fmt: skip
    gpu, model = setting.facts.gpu, setting.facts.model
    if gpu.system == "cuda" and gpu.driver_major is None:
        hint = f", TGI's ran on older ones: look at nvidia-smi, or state hardware.driver. {engine.driver_hint}"
        needs = f"the image of {engine.title} {engine.version} needs NVIDIA driver {engine.driver} or later"
        yield needs + (hint if moves else ": look at nvidia-smi, or state hardware.driver")
    kinds = [one for one in model.config.get("architectures") or () if isinstance(one, str)]
    gone = any(_gone(setting, engine))
    if kinds and not gone and not any(one in engine.architectures for one in kinds):
        yield (
            f"{engine.title} {engine.version} has no class of its own for {kinds[0]}: it is served through "
            "transformers where that can be done, and its memory may differ"
        )
    if start is None and not gone:
        yield _stateful(setting, engine)
    if plan.prediction.outcome != "starts":
        yield f"TGI itself would not start with this today: {plan.prediction.reason}"
    if start is not None and beside.sees(setting) and pictures.largest(setting) is None:
        yield f"what encoding images takes is not in the sum: the tower of {model.model_type} is not known here"
    scaling = plan.container.scaling if plan.container is not None else None
    if scaling is not None and (scaling.metric not in GAUGES or not engine.metrics.get(scaling.metric)):
        yield (
            f"nothing in {engine.title} counts as {scaling.metric} does, so the number of replicas is fixed: state "
            "kubernetes.autoscale with another metric"
        )
    unread = [word for word in setting.lora_adapters if word.strip() and word.strip() not in setting.facts.adapters]
    if unread and start is not None:
        yield (
            f"adapters nobody could read ({', '.join(unread)}) are taken to have rank {adapters.ASSUMED.rank} on every "
            "projection"
        )


def _stateful(setting: Setting, engine: Engine) -> str:
    """What can be said of a model without a cache of tokens."""
    model = setting.facts.model
    size = beside.state(model, setting.num_shard) if setting.family.served_by == "mamba" else 0
    if not size:
        return f"the memory of {model.model_type} in {engine.title} is not computed"
    return (
        f"{model.model_type} keeps a state of {human(size)} for each request, whatever its length, and no tokens: "
        f"neither TGI nor {engine.title} infers a budget of them, and the largest batch decides what is held"
    )


def rewritten(text: str, engine: Engine) -> tuple[Rewritten, ...]:
    """The lines of a text (autoscalers, alerts, dashboards) that ask for TGI's metrics, with the engine's names.

    A name is changed, not what is compared with it: a share of the cache is no number of tokens.
    """
    names = sorted(engine.metrics, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})(_bucket|_sum|_count|_total)?\b")
    found: list[Rewritten] = []
    for number, line in enumerate(text.splitlines(), 1):
        lost: list[str] = []

        def renamed(match: re.Match[str], lost: list[str] = lost) -> str:
            to, suffix = engine.metrics[match[1]], match[2] or ""
            if not to:
                lost.append(match[0])
                return match[0]
            return to if to.endswith("_total") and suffix == "_total" else f"{to}{suffix}"

        if pattern.search(line):
            after = pattern.sub(renamed, line)
            asked = dict.fromkeys(match[1] for match in pattern.finditer(line))
            found.append(
                Rewritten(number, line.strip(), after.strip(), tuple(lost), tuple(_unmended(line, asked, engine)))
            )
    return tuple(found)


TGI_LABELS = ("method", "err", "reason")
"""Labels of TGI's metrics that no engine has (backends/v3/src/backend.rs@v3.3.7)."""
_LABEL = re.compile(
    rf"\{{[^}}]*\b({'|'.join(TGI_LABELS)})\s*[!=]|\b(?:by|without|on|ignoring)\s*\([^)]*\b({'|'.join(TGI_LABELS)})\b"
)
_BOUND = re.compile(r"""\ble\s*=~?\s*\\?["']""")


def _unmended(line: str, names: Iterable[str], engine: Engine) -> Iterator[str]:
    """What is to be looked at in a line whose metrics got other names."""
    for name in names:
        if engine.meters[name].differs:
            yield f"{engine.metrics[name]}: {engine.meters[name].differs}"
    for label in dict.fromkeys(match[1] or match[2] for match in _LABEL.finditer(line)):
        yield f"{engine.title} has no label {label!r}; it has {', '.join(engine.labels)}."
    if _BOUND.search(line):
        yield f"The buckets of {engine.title} have other bounds: a single `le` may not exist."


def fresh(plan: Plan, engine: Engine, given: Mapping[str, str], *, search: bool) -> Migration:
    """A deployment that starts on `engine`; `plan` supplies spec, facts and host. Nothing of TGI's is promised.

    The longest request is the one the spec pins, else the model's context; with `search` it is shortened by steps of
    256 tokens until `workload.concurrency` of them surely fit. The step and the batch are the engine's own unless the
    spec states them.
    """
    setting = defaults.resolve(plan.spec, plan.facts, plan.prediction.num_shard)
    model, revision = containers.source_of(plan.spec, plan.facts)
    asked, many = defaults.given_limits(setting), plan.spec.workload.concurrency
    refusals = list(_refusals(setting, asked, engine))
    longest = asked.max_total_tokens or families.context_length(plan.facts.model) or 4096

    def tried(context: int) -> tuple[Told, Start]:
        limits = Limits(asked.max_input_tokens, context, asked.max_batch_prefill_tokens, None)
        told = _own(_fitted(translate(setting, limits, engine, model, revision)), setting, engine)
        return told, memory.of(engine).start(engine, setting, told, given, context * many)

    if setting.family.served_by in UNCOMPUTED or not setting.family.supported:
        told, start = _own(translate(setting, asked, engine, model, revision), setting, engine), None
    else:
        told, start = tried(longest)
        if search and asked.max_total_tokens is None and not _holds(start, many):
            low, high = 0, longest // 256
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _holds(tried(middle * 256)[1], many) else (low, middle)
            told, start = tried(max(low, 1) * 256)
        told = _with_memory(told, engine, setting, start)
        if start.outcome != "starts":
            refusals.append(start.reason)
    refusals = [*refusals, *told.refusals]
    wanted = start.context * many if start is not None and start.context else None
    verdict = _verdict(start, refusals, wanted)
    made = None if verdict in ("refused", "out_of_memory") else _container(plan, engine, told, model)
    started = plan._replace(prediction=plan.prediction._replace(outcome="starts"))  # TGI's own verdict is not asked
    warnings = tuple(_warnings(setting, engine, start, started, moves=False))
    if made is not None and plan.spec.container.name == ContainerSpec().name:
        made = made._replace(name=engine.name)
    return Migration(engine, plan, told, start, made, wanted, verdict, tuple(refusals), warnings, fresh=True)


def _own(told: Told, setting: Setting, engine: Engine) -> Told:
    """What is told without what only keeps TGI's ways: where nobody moves, the engine's own defaults hold.

    That it answers at all, on its own port, and says how it does, stays.
    """
    kept = {"--host", "--port", "--enable-metrics"}
    dropped = set(engine.defaults) - kept
    if setting.spec.model.dtype is None and "dtype" not in setting.flags:
        dropped.add("--dtype")
    return told._replace(flags={flag: words for flag, words in told.flags.items() if flag not in dropped})


def _holds(start: Start, many: int) -> bool:
    return start.outcome == "starts" and start.tokens_low >= (start.context or 0) * many
