"""Which launches have the same memory arithmetic."""

from tgi_advisor.estimate.replay import kernels
from tgi_advisor.estimate.setting import Setting


class Alike:
    """A launch, equal to those that load, run and allocate alike: limits, fractions and the GPU's size do not count."""

    __slots__ = ("_hash", "_key", "but_for_the_model", "setting")

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        facts = setting.facts
        self.but_for_the_model = (
            tuple(facts.adapters.items()), facts.gpu.system, kernels.generation(setting),
            facts.release.version, facts.variant, setting.family, setting.num_shard, setting.dtype, setting.quantize,
            setting.kv_dtype, setting.attention, setting.block_size, setting.prefill_logprobs, setting.speculate,
            setting.lora_adapters, setting.flash, tuple(setting.env.items()),
        )  # fmt: skip
        self._key = (id(facts.model), *self.but_for_the_model)
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and self._key == other._key
