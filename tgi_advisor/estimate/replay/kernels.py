"""Which kernel multiplies a launch's projections, and what one product allocates beside its result.

Compiled kernels allocate on PyTorch's allocator as Python does. Read at their sources: Marlin in TGI's own tree
(v2.2.0, server/marlin/marlin_kernels/gptq_marlin.cu:2099-2100) and as marlin-kernels
(https://github.com/danieldk/marlin-kernels/blob/v0.3.6/csrc/quantization/gptq_marlin/gptq_marlin.cu#L1912-L1931
and #L2307-L2319; the package of 3.1.1 on is called as that version is), AWQ's own
(https://github.com/mit-han-lab/llm-awq, awq/kernels/csrc/quantization/gemm_cuda_gen.cu), EETQ's
(https://github.com/huggingface/kernels-community, quantization-eetq/cutlass_kernels/fpA_intB_gemm_wrapper.cu),
bitsandbytes' Python (https://github.com/bitsandbytes-foundation/bitsandbytes/tree/0.45.2/bitsandbytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tgi_advisor.estimate import exllama, weights
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families

Kernel = Literal[
    "plain", "marlin", "awq", "exllama", "gptq", "exl2", "stored_marlin", "fp8_marlin", "fp8_fbgemm", "fp8_cutlass",
    "fp8_blocks", "eetq",
    "int8", "bnb_8bit", "bnb_4bit",
]  # fmt: skip
"""How a projection is multiplied: 16 bit by cuBLAS; GPTQ or AWQ repacked for Marlin; AWQ's own kernel, which sums
parts of the inner dimension; GPTQ by exllama (v2), which dequantizes a layer and takes cuBLAS, or by Triton; EXL2 by
exllama, what others join one by one; what was
stored for Marlin; fp8 weights on 16-bit inputs (Marlin) or on inputs in fp8 (FBGEMM up to 2.3.1, CUTLASS since,
Triton with a scale for each block); int8 weights on 16-bit inputs (EETQ) or int8 ones (CUTLASS, bitsandbytes); 4-bit
weights dequantized for cuBLAS."""
ON_THE_FLY: Mapping[str, Kernel] = {
    "eetq": "eetq", "bitsandbytes": "bnb_8bit", "bitsandbytes-nf4": "bnb_4bit", "bitsandbytes-fp4": "bnb_4bit",
}  # fmt: skip
"""Kernels of what is quantized while it loads, fp8 aside."""
Way = Literal["fused", "marlin", "one_by_one", "sparse"]
"""How the experts of a mixture run: in one kernel, in one over weights packed for Marlin, each over every token, in
Megablocks' sparse products (before 2.0.0)."""
SPLIT = 8
"""Parts of the inner dimension AWQ's kernel sums apart.

https://github.com/huggingface/text-generation-inference/blob/v1.1.0/server/text_generation_server/utils/awq/quantize/qmodule.py#L40-L47
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/awq/quantize/cuda.py#L44-L46
"""
LEAVES_HEAD = (2, 2, 0)
"""Since when bitsandbytes leaves the output matrix in 16 bit; what it makes of one is not written down."""
INT8_BY_ROWS = (3, 0, 2)
"""Since when bitsandbytes multiplies int8 weights as they lie (its 0.45.0); before, the first pass reorders them."""
FUSED = (2, 0, 0)
"""Since when one kernel runs the experts."""
REDUCED_ROWS = 1024
"""Rows Marlin reduces at once in float32, since 2.3.0."""


def of(setting: Setting) -> Kernel | None:
    """The kernel of the launch's quantized projections, `plain` without; None for one whose products are not read."""
    method = setting.quantize
    if method is None:
        return "plain"
    if setting.family.served_by == "transformers":
        return _by_transformers(setting, method)
    if method in ("awq", "gptq"):
        return _packed(setting, method)
    if method == "marlin":
        return "stored_marlin"
    if method == "exl2":
        return "exl2" if setting.facts.release.version >= (2, 1, 0) else None
    if method == "fp8":
        return _fp8(setting)
    if method == "compressed-tensors":
        return _compressed(setting)
    since = {"eetq": (1, 1, 0), "bitsandbytes": INT8_BY_ROWS}.get(method, LEAVES_HEAD)
    if method not in ON_THE_FLY or setting.facts.release.version < since:
        return None
    return ON_THE_FLY[method]


def generation(setting: Setting) -> tuple[object, ...]:
    """What the GPU decides of a replay beside its system: launches on GPUs of one generation share theirs.

    The kernels, flash-attention 1 or 2, and the size of cuBLAS' workspace.
    """
    capability = setting.facts.gpu.at_least
    return (
        capability >= (8, 0), capability >= (9, 0), of(setting),
        experts(setting) if families.experts(setting.facts.model) else None,
    )  # fmt: skip


def _by_transformers(setting: Setting, method: str) -> Kernel | None:
    """The kernel of transformers' own classes, which are told of bitsandbytes alone: fp8 is what the checkpoint is.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/transformers_flash_causal_lm.py#L140-L148
    https://github.com/huggingface/transformers/blob/v4.51.3/src/transformers/integrations/finegrained_fp8.py#L267-L325
    """
    stored = weights.quantization_config(setting)
    if method != "fp8":
        return None
    if not stored:
        return "plain"
    return "fp8_blocks" if stored.get("quant_method") == "fp8" and stored.get("weight_block_size") else None


def _packed(setting: Setting, method: str) -> Kernel | None:
    """The kernel of a checkpoint packed by GPTQ or AWQ."""
    stored = weights.quantization_config(setting)
    if stored.get("quant_method", method) != method:
        return None
    if weights.on_marlin(setting):
        return "marlin"
    if method == "awq":
        return "awq"
    if {"EXLLAMA_VERSION", "DISABLE_EXLLAMA"} & set(setting.env):
        return None
    if exllama.applies(setting):
        return "exllama"
    return "gptq" if stored.get("bits", 4) in (2, 4, 8) else None


def _fp8(setting: Setting) -> Kernel | None:
    """The kernel of fp8 weights with one scale for each row, or for each block.

    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/layers/fp8.py#L15-L42
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/fp8.py#L33-L72
    """
    version, capability = setting.facts.release.version, setting.facts.gpu.at_least
    if version < (2, 2, 0):
        return None
    if weights.quantization_config(setting).get("weight_block_size"):
        return "fp8_blocks" if version >= (3, 1, 0) and capability >= (9, 0) else None
    cutlass = version >= (2, 4, 0) and setting.env.get("USE_CUTLASS_W8A8") == "1"
    if capability[0] == 8 and not cutlass:
        return "fp8_marlin"
    if not (8, 9) <= capability < (10, 0):
        return None
    if version >= (2, 4, 0):
        return "fp8_cutlass"
    return "fp8_fbgemm" if setting.dtype == "bfloat16" else None


def _compressed(setting: Setting) -> Kernel | None:
    """The kernel of a checkpoint by compressed-tensors whose layers are all quantized alike.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/compressed_tensors/loader.py#L112-L171
    """
    stored = weights.quantization_config(setting)
    groups = stored.get("config_groups")
    found = list(groups.values()) if isinstance(groups, Mapping) else []
    if len(found) != 1 or not isinstance(found[0], Mapping) or not isinstance(found[0].get("weights"), Mapping):
        return None
    scheme, inputs, layout = found[0]["weights"], found[0].get("input_activations"), stored.get("format")
    if layout == "pack-quantized" and scheme.get("num_bits") in (4, 8) and not scheme.get("actorder"):
        return "marlin" if setting.facts.gpu.at_least >= (8, 0) and scheme.get("symmetric", True) else None
    if scheme.get("num_bits") != 8 or layout not in (f"{scheme.get('type')}-quantized", "naive-quantized"):
        return None
    if scheme.get("type") == "float":
        wide = isinstance(inputs, Mapping) and inputs.get("num_bits") == 16
        return "fp8_marlin" if wide and setting.facts.gpu.at_least[0] == 9 else _fp8(setting)
    return "int8" if scheme.get("type") == "int" else None


def experts(setting: Setting) -> Way | None:
    """How a mixture's routed experts run; None where that is not read.

    https://github.com/huggingface/text-generation-inference/blob/v2.3.1/server/text_generation_server/layers/moe/gptq_marlin.py#L24-L38
    https://github.com/huggingface/text-generation-inference/blob/v2.4.0/server/text_generation_server/layers/moe/gptq_marlin.py#L25-L40
    """
    kernel, method, version = of(setting), setting.quantize, setting.facts.release.version
    if kernel in ("plain", "fp8_blocks"):
        return "fused" if version >= FUSED else "sparse"
    since = {"gptq": (2, 3, 1), "awq": (2, 4, 0)}.get(method or "")
    if kernel == "marlin" and since is not None and version >= since:
        return "marlin"
    others = setting.family.model_type == "dbrx" or (setting.family.kv == "mla" and version < (2, 3, 0))
    if kernel is None or others or not (since or method in ON_THE_FLY):
        return None
    return "one_by_one"


def reduced_rows(tokens: int) -> int:
    """Rows of Marlin's float32 sums for a product of so many rows: whole tiles of 16, 64 at a time above four."""
    tiles = -(-tokens // 16)
    return min(16 * tiles if tiles <= 4 else -(-tokens // 64) * 64, REDUCED_ROWS)
