"""Launches made by hand, for tests of what TGI resolves, refuses and allocates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgi_advisor.estimate import defaults
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts, TensorGroup
from tgi_advisor.spec.records import HardwareSpec, ModelSpec, Spec, TgiSpec

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
"""Llama-3.1-8B."""
PLAIN = (TensorGroup("model.layers.*.self_attn.q_proj.weight", "BF16", (4096, 4096), 32),)
PACKED = (TensorGroup("model.layers.*.self_attn.q_proj.qweight", "I32", (4096, 512), 32),)

CPU = GpuFacts("intel-cpu", "cpu", 64 << 30, None, None, None, None, "", "by hand")
"""A host with 64 GiB of RAM."""


def model(
    config: Mapping[str, Any] = LLAMA, name: str = "org/model", tensors: tuple[TensorGroup, ...] = PLAIN, **more: Any
) -> ModelFacts:
    """A model of a configuration; `more` overrides its fields, and None takes one away."""
    merged = {key: value for key, value in {**config, **more}.items() if value is not None}
    return ModelFacts(name, None, "by hand", merged, {}, tensors)


def settle(
    facts: ModelFacts | None = None,
    release: str = "3.3.7",
    gpu: str | GpuFacts = "nvidia-l4",
    count: int = 1,
    variant: str = "",
    shards: int | None = None,
    flags: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    fraction: float = 1.0,
    **own: Any,
) -> Setting:
    """What TGI makes of a launch; `own` are fields of the spec's model section."""
    spec = Spec(
        model=ModelSpec(id="org/model", **own),
        hardware=HardwareSpec(count=count, memory_fraction=fraction),
        tgi=TgiSpec(num_shard=shards, flags=flags or {}, env=env or {}),
    )
    card = gpus.find(gpu) if isinstance(gpu, str) else gpu
    known = Facts(facts or model(), card, count, releases.find(release), variant)
    return defaults.resolve(spec, known)
