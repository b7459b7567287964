"""What an engine holds beside a plain decoder: the tower that reads images, adapters, the state of a state-space model.

The sizes are those of TGI's estimates; what an engine makes of them is said here, with the lines it was read from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tgi_advisor.estimate import adapters as of_tgi
from tgi_advisor.estimate import geometry
from tgi_advisor.estimate.replay import pictures
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import adapters, families
from tgi_advisor.facts.model import ModelFacts

BY_INPUTS = of_tgi.BY_INPUTS
"""Projections split by inputs: their A is split between shards, of the others B."""
GATED = frozenset({"qwen2_5_vl"})
"""Families whose tower has gated feed-forward blocks, so that three widths of it are alive."""
PACKED = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
"""Projections SGLang keeps as one: an adapter on one of them takes the room of all.

sglang@0.5.23:srt/lora/utils.py:298
"""


class Encoded(NamedTuple):
    """What encoding images takes on one GPU."""

    items: int
    """Images encoded together."""
    kept: int
    """Bytes of what the language model gets of them."""
    peak: int
    """Bytes at the widest moment."""


def sees(setting: Setting) -> bool:
    """Whether the model takes images."""
    return "vision_config" in setting.facts.model.config


def encoded(setting: Setting, budget: int) -> Encoded | None:
    """Images of the largest size of as many tokens as `budget`, but one at least; None where the tower is not known.

    A layer of the tower is alive as a decoder's is: residual stream, its norm, what attention makes and what it gives
    back, and the feed-forward block with its activation. Scores are never written down.
    """
    tower = pictures.largest(setting) if sees(setting) else None
    if tower is None or not tower.features:
        return None
    element = 4 if setting.dtype == "float32" else 2
    items = max(1, budget // tower.features)
    wide = (3 if tower.kind in GATED else 2) * tower.intermediate + 4 * tower.width
    kept = items * tower.features * families.hidden(setting.facts.model) * element
    return Encoded(items, kept, kept + items * tower.pictures * tower.patches * wide * element)


def stacked(setting: Setting, rank: int, slots: int, only: frozenset[str] | None = None) -> int:
    """Bytes on one GPU of room for `slots` adapters of `rank`: A and B of every projection, or of `only` these.

    A of a projection that is split by outputs is whole on every GPU, and B of one that is split by inputs.
    vllm@0.33.0:vllm/lora/layers/column_parallel_linear.py:224, sglang@0.5.23:srt/lora/mem_pool.py:424-573
    """
    shards, element = setting.num_shard, 4 if setting.dtype == "float32" else 2
    per_layer = 0
    for name, (inputs, outputs) in of_tgi.shapes(setting).items():
        if only is None or name in only:
            per_layer += inputs // shards + outputs if name in BY_INPUTS else inputs + outputs // shards
    g = geometry.of(setting)
    if g.experts and only is None:
        per_layer += 3 * g.experts * (g.hidden + g.intermediate)
    return per_layer * g.layers * rank * slots * element


def edges(setting: Setting, rank: int, slots: int) -> int:
    """Bytes of the same for the embedding and the head, which are whole on every GPU.

    vllm@0.33.0:vllm/lora/layers/vocab_parallel_embedding.py:31, vllm@0.33.0:vllm/lora/layers/logits_processor.py:93
    """
    g, element = geometry.of(setting), 4 if setting.dtype == "float32" else 2
    return 2 * (g.vocabulary + g.hidden) * rank * slots * element


def loaded(setting: Setting) -> Iterator[adapters.Lora]:
    """The adapters of a launch; those nobody could read are assumed."""
    for word in setting.lora_adapters:
        if word.strip():
            yield setting.facts.adapters.get(adapters.parse(word).text, adapters.ASSUMED)


def together(names: set[str]) -> frozenset[str]:
    """Projections whose room is taken where adapters have matrices for `names`."""
    return frozenset(names.union(*(group for group in PACKED if group & names)))


def state(model: ModelFacts, shards: int, element: int = 2) -> int:
    """Bytes a request's state takes on one GPU in a Mamba model, whatever its length; 0 where sizes are not stated.

    vllm@0.33.0:vllm/model_executor/layers/mamba/mamba_utils.py:171, and SGLang alike.
    """
    text: Mapping[str, Any] = model.text()
    inner = text.get("intermediate_size") or text.get("d_inner")
    inner = inner or 2 * int(text.get("hidden_size") or text.get("d_model") or 0)
    layers = int(text.get("num_hidden_layers") or text.get("n_layer") or 0)
    kept = int(text.get("conv_kernel") or 4) - 1 + int(text.get("state_size") or 16)
    return layers * int(inner) // shards * kept * element
