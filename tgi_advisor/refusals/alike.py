"""Which launches are refused alike, whatever their limits and however large their GPU is."""

from dataclasses import replace
from operator import is_
from typing import NamedTuple

from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.once import remembered
from tgi_advisor.spec.records import HardwareSpec


class Alike(NamedTuple):
    """A launch as rules see it that look at no limits: of its GPU they are told the kind alone."""

    setting: Setting
    """The launch, on a GPU without name, size and speed, which a rule cannot look at by mistake."""
    things: tuple[object, ...]
    """What has to be the same thing for another launch to be refused alike."""
    values: tuple[object, ...]
    """What has to be equal: all else that the rules see."""

    def covers(self, other: "Alike") -> bool:
        """Whether another launch is refused like this one."""
        return all(map(is_, self.things, other.things)) and self.values == other.values


@remembered
def of(setting: Setting) -> Alike:
    """What rules see of a launch."""
    spec, facts = setting.spec, setting.facts
    gpu = facts.gpu
    kind = GpuFacts(
        name="", system=gpu.system, memory_bytes=0, cuda_total_bytes=None, compute_capability=gpu.compute_capability,
        fp16_tflops=None, bandwidth=None, launcher_name="", source="", generation=gpu.generation, mig=gpu.mig,
        arm64=gpu.arm64,
    )  # fmt: skip
    hardware = HardwareSpec(memory_fraction=spec.hardware.memory_fraction, in_use=spec.hardware.in_use)
    asked = replace(spec, hardware=hardware)
    true = Facts(facts.model, kind, facts.gpu_count, facts.release, facts.variant, adapters=facts.adapters)
    things = (
        spec.model, spec.tgi, spec.limits, spec.workload, spec.container, spec.kubernetes, spec.autoscale, spec.places,
        facts.model, facts.release, facts.adapters,
    )  # fmt: skip
    shown = setting._replace(spec=asked, facts=true, launcher_prefill=None)
    values = kind, facts.gpu_count, facts.variant, spec.source, hardware.in_use, hardware.memory_fraction, *shown[2:]
    return Alike(shown, things, values)
