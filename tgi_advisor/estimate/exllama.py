"""exllama's kernels for GPTQ and EXL2 weights, and the scratch memory their layers share."""

from __future__ import annotations

from tgi_advisor.estimate import geometry, weights
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.setting import Setting


def applies(setting: Setting) -> bool:
    """Whether GPTQ or EXL2 layers run on exllama (v2) and so hold scratch memory.

    Symmetric GPTQ goes through Marlin where it can. exllama is made for float16 groups without act-order.
    https://github.com/huggingface/text-generation-inference/blob/v1.4.0/server/text_generation_server/utils/weights.py#L243-L303
    """
    gpu = setting.facts.gpu
    if setting.quantize == "exl2":
        return True
    stored = weights.quantization_config(setting)
    if setting.quantize != "gptq" or stored.get("desc_act") or stored.get("bits", 4) != 4:
        return False
    return not weights.on_marlin(setting) and (gpu.system == "rocm" or gpu.at_least >= (8, 0))


FIXED_ROWS = 4096 * 16
"""Rows exllama v2's scratch was made for until 2.0.4, whatever the limits."""


def is_first(setting: Setting) -> bool:
    """Whether it is exllama v1: until 1.1.1, and on several shards until 1.3.4."""
    version = setting.facts.release.version
    return version < (1, 2, 0) or (version < (1, 4, 0) and setting.num_shard > 1)


def scratch(setting: Setting, g: Geometry, prefill_tokens: int) -> int:
    """Bytes of exllama's scratch for the largest layer: its weights dequantized and, in v2, a float32 output.

    v1 only dequantizes.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/gptq/exllamav2.py#L233-L240
    https://github.com/huggingface/text-generation-inference/blob/v2.0.4/server/text_generation_server/layers/gptq/exllamav2.py#L150-L205
    https://github.com/huggingface/text-generation-inference/blob/v1.1.0/server/text_generation_server/utils/gptq/exllama.py#L40-L68
    """
    layers = _projections(setting, g) + _head(setting, g)
    if is_first(setting):
        return max(inputs * outputs * 2 for inputs, outputs in layers)
    rows = prefill_tokens if setting.facts.release.version >= (2, 1, 0) else FIXED_ROWS
    return max(inputs * outputs * 2 + outputs * rows * 4 + 256 for inputs, outputs in layers)


def orders(setting: Setting, g: Geometry) -> list[int]:
    """Bytes of what v2 makes before the warm-up beside its scratch: 16-bit numbers for the rows of each layer.

    GPTQ's are the order of its rows and the inverse; EXL2 has the inverse, and gets a map of two numbers for each row.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/gptq/exllamav2.py#L45-L98
    """
    if is_first(setting):
        return []
    each = (4, 2) if setting.quantize == "exl2" else (2, 2)
    every = _projections(setting, g) * g.layers + _head(setting, g)
    return [number * inputs for inputs, _ in every for number in each]


def _projections(setting: Setting, g: Geometry) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of the projections of a layer as exllama sees them: EXL2 joins none."""
    into, out, feed, back = geometry.projections(g, setting.family.mlp)
    if setting.quantize != "exl2":
        return into, out, feed, back
    inner = (g.hidden, g.intermediate)
    return (g.hidden, g.query), (g.hidden, g.kv), (g.hidden, g.kv), out, *(inner,) * (feed[1] // g.intermediate), back


def _head(setting: Setting, g: Geometry) -> tuple[tuple[int, int], ...]:
    """The same of the output matrix, which EXL2 may quantize.

    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/layers/tensor_parallel.py#L54-L65
    """
    stored = any(group.name.endswith("lm_head.q_weight") for group in setting.facts.model.tensors)
    return ((g.hidden, g.vocabulary),) if setting.quantize == "exl2" and stored else ()
