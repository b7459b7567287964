"""Which kernel multiplies a launch's projections, and what one product allocates beside its result.

Compiled kernels allocate on PyTorch's allocator as Python does. Read at their sources: Marlin in TGI's own tree
(v2.2.0, server/marlin/marlin_kernels/gptq_marlin.cu:2099-2100) and as marlin-kernels
(https://github.com/danieldk/marlin-kernels/blob/v0.3.6/csrc/quantization/gptq_marlin/gptq_marlin.cu#L1912-L1931
and #L2307-L2319), AWQ's own (https://github.com/mit-han-lab/llm-awq, awq/kernels/csrc/quantization/gemm_cuda_gen.cu).
"""

from __future__ import annotations

from typing import Literal

from tgi_advisor.estimate import exllama, weights
from tgi_advisor.estimate.setting import Setting

Kernel = Literal["plain", "marlin", "awq", "exllama", "gptq"]
"""How a projection is multiplied: 16 bit by cuBLAS; GPTQ or AWQ repacked for Marlin; AWQ's own kernel, which sums
parts of the inner dimension; GPTQ by exllama (v2), which dequantizes a layer and takes cuBLAS, or by Triton."""
SPLIT = 8
"""Parts of the inner dimension AWQ's kernel sums apart.

https://github.com/huggingface/text-generation-inference/blob/v1.1.0/server/text_generation_server/utils/awq/quantize/qmodule.py#L40-L47
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/awq/quantize/cuda.py#L44-L46
"""
REDUCED_ROWS = 1024
"""Rows Marlin reduces at once in float32, since 2.3.0."""


def of(setting: Setting) -> Kernel | None:
    """The kernel of the launch's quantized projections, `plain` without; None for one whose products are not read."""
    method, stored = setting.quantize, weights.quantization_config(setting)
    if method is None:
        return "plain"
    if method not in ("awq", "gptq") or stored.get("quant_method", method) != method:
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


def reduced_rows(tokens: int) -> int:
    """Rows of Marlin's float32 sums for a product of so many rows: whole tiles of 16, 64 at a time above four."""
    tiles = -(-tokens // 16)
    return min(16 * tiles if tiles <= 4 else -(-tokens // 64) * 64, REDUCED_ROWS)
