"""The facts one deployment is judged on."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tgi_advisor.facts import release as releases
from tgi_advisor.facts.adapters import Lora
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.facts.speed import Calibration


class Facts(NamedTuple):
    """What is true: gathered once, before anything is decided."""

    model: ModelFacts
    """The model."""
    gpu: GpuFacts
    """The GPU; all GPUs of the container are alike."""
    gpu_count: int
    """GPUs the container sees."""
    release: TgiRelease
    """The TGI release."""
    variant: str = ""
    """Image variant: empty for CUDA, else `rocm`, `intel-cpu`, `intel-xpu`, `gaudi`."""
    notes: tuple[str, ...] = ()
    """What had to be assumed, e.g. which release a floating image tag is."""
    mirror: str = ""
    """Address of the Hub's mirror the container has to ask (HF_ENDPOINT); empty for the public Hub."""
    adapters: Mapping[str, Lora] = MappingProxyType({})
    """The LoRA adapters that could be read, by their entry of --lora-adapters."""
    speed: tuple[Calibration, ...] = ()
    """What running servers of the user's own measured of their cards."""

    def elsewhere(self, gpu: GpuFacts, count: int, release: str | None = None) -> "Facts":
        """The same model on so many of another GPU, with another release; FactsError where that has no image for it."""
        known = self.release if release is None else releases.find(release)
        variant = releases.VARIANTS[gpu.system]
        releases.image_for(known, variant)
        return self._replace(gpu=gpu, gpu_count=count, release=known, variant=variant, notes=())
