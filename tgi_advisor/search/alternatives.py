"""The nearest things that would work when nothing fits as asked, each of them searched, not guessed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.search.shards import best
from tgi_advisor.spec.records import AUTO, GpuSpec, LimitsSpec, Spec
from tgi_advisor.units import thousands

STEPS = 8
"""Next steps worth reading."""

STEPS_OF = {"hardware.count": 1, "hardware.gpu": 2, "model.id": 2}
"""How many counts, GPUs and checkpoints are worth naming: the smallest that work."""


def alternatives(spec: Spec, facts: Facts, siblings: Iterable[ModelFacts] = ()) -> tuple[str, ...]:
    """The nearest things that would work, each of them searched, not guessed; those at risk under load come last.

    `siblings` are the other checkpoints of the model that are known.
    """
    calm: list[str] = []
    risky: list[str] = []
    for label, other_spec, other_facts in _neighbours(spec, facts, siblings):
        kind = label.partition(":")[0]
        if _named(calm, kind) == STEPS_OF.get(kind, STEPS):
            continue
        try:
            found = best(other_spec, other_facts).found
        except AdvisorError:
            continue
        if found.limits is None or found.prediction.outcome != "starts":
            continue
        total = thousands(found.limits.max_total_tokens or 0)
        together = found.prediction.concurrency
        held = f", {together} at once" if together is not None and together > 1 else ""
        step = f"{label} gives max_total_tokens {total}{held}"
        if not found.prediction.at_risk:
            calm.append(step)
        elif _named(risky, kind) < STEPS_OF.get(kind, STEPS):
            risky.append(f"{step} (at risk under load)")
    return (*calm, *risky)[:STEPS]


def _named(steps: list[str], kind: str) -> int:
    return sum(step.startswith(f"{kind}:") for step in steps)


def _neighbours(spec: Spec, facts: Facts, siblings: Iterable[ModelFacts] = ()) -> Iterator[tuple[str, Spec, Facts]]:
    """Small changes to a deployment, cheapest first: (what to write, the spec, the facts)."""
    if spec.workload.concurrency > 1:
        workload = replace(spec.workload, concurrency=1)
        yield "workload.concurrency: 1", replace(spec, workload=workload), facts
    floors = (spec.limits.max_total_tokens.low, spec.limits.max_input_tokens.low)
    if any(floor is not None for floor in floors):
        limits = replace(spec.limits, max_total_tokens=AUTO, max_input_tokens=AUTO)
        yield "limits.max_total_tokens and max_input_tokens: auto", replace(spec, limits=limits), facts
    if spec.limits.max_batch_prefill_tokens.low is not None:
        limits = replace(spec.limits, max_batch_prefill_tokens=AUTO)
        yield "limits.max_batch_prefill_tokens: auto", replace(spec, limits=limits), facts
        if any(floor is not None for floor in floors):
            open_limits = LimitsSpec(AUTO, AUTO, AUTO)
            yield "limits: {} (all three left open)", replace(spec, limits=open_limits), facts
    if spec.model.kv_cache_dtype is None:
        model = replace(spec.model, kv_cache_dtype="fp8_e4m3fn")
        yield "model.kv_cache_dtype: fp8_e4m3fn", replace(spec, model=model), facts
    for stored in siblings:
        if stored.stored_bytes < facts.model.stored_bytes:
            asked = replace(spec.model, id=stored.id, revision="main", quantize=None, dtype=None)
            yield f"model.id: {stored.id}", replace(spec, model=asked), facts._replace(model=stored)
    if spec.model.quantize is None and facts.model.text().get("quantization_config") is None:
        for method in ("fp8", "eetq", "bitsandbytes-nf4"):
            if method in facts.release.quantize:
                model = replace(spec.model, quantize=method, dtype=None)
                yield f"model.quantize: {method}", replace(spec, model=model), facts
    for count in (2, 4, 8):
        if count > facts.gpu_count and spec.tgi.num_shard is None:
            hardware = replace(spec.hardware, count=count)
            yield f"hardware.count: {count}", replace(spec, hardware=hardware), facts._replace(gpu_count=count)
    for gpu in replacements(facts.gpu):
        hardware = replace(spec.hardware, gpu=GpuSpec(name=gpu.name))
        there = gpus.on_machine(gpu, hardware.driver, hardware.link)
        yield f"hardware.gpu: {gpu.name}", replace(spec, hardware=hardware), facts._replace(gpu=there)


def larger(instead_of: GpuFacts) -> list[GpuFacts]:
    """Cards of the same system with more memory, the smallest first."""
    cards = [row.facts for row in gpus.all_gpus() if row.facts and row.facts.system == instead_of.system]
    more = [gpu for gpu in cards if gpu.memory_bytes > instead_of.memory_bytes * 1.02]
    return sorted(more, key=lambda gpu: (gpu.memory_bytes, gpu.name))


SAME_SIZE = 1.1
"""Cards whose memory differs by less than this are one size."""


def replacements(instead_of: GpuFacts) -> list[GpuFacts]:
    """One card of each larger size, of the same or a newer generation.

    Of each size it is one that clouds rent out, and the oldest of these. Workstation and gaming cards replace
    only their like.
    """
    chosen: list[GpuFacts] = []
    rented = {row.name for row in gpus.all_gpus() if row.instances}
    desk = _for_desks(instead_of)
    fitting = [gpu for gpu in larger(instead_of) if gpu.at_least >= instead_of.at_least and desk >= _for_desks(gpu)]
    while fitting:
        size = [gpu for gpu in fitting if gpu.memory_bytes < fitting[0].memory_bytes * SAME_SIZE]
        chosen.append(min(size, key=lambda gpu: (gpu.name not in rented, gpu.at_least)))
        fitting = fitting[len(size) :]
    return chosen


def _for_desks(gpu: GpuFacts) -> bool:
    return "-rtx" in gpu.name
