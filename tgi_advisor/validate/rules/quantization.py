"""TGI150-TGI159: quantization against checkpoint, release and GPU. All are TGI's own refusals."""

from __future__ import annotations

import re

from tgi_advisor.validate.catalogue import is_plain
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, of_refusal, refused, rule

_READS_CONFIG = (2, 0, 0)
"""First release that reads the quantization from config.json (models/__init__.py@v2.0.0:190)."""
_READS = ("quantize",)


_NOT_QUANTIZED = ("not-quantized", "packed-config-mismatch")


@rule("TGI150", "error", "checkpoint that is not quantized", *_NOT_QUANTIZED)
def not_quantized(case: Case) -> Hits:
    """`--quantize awq`, `gptq`, `exl2` and `marlin` read checkpoints stored so; they do not quantize one.

    The shard stops with `Cannot load ... weight, make sure the model is already quantized`. eetq, fp8 and
    bitsandbytes quantize while loading.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --quantize awq

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct-AWQ --quantize awq
    """
    found = list(of_refusal(case, lambda case: case.at("quantize"), _NOT_QUANTIZED, _READS))
    yield from found
    model, word, quantize = case.view.model, case.at("quantize"), case.view.text("quantize")
    if found or case.facts is not None or not model or word is None or quantize not in ("awq", "gptq"):
        return
    if is_plain(model) and "revision" not in case.view.flags:
        message = (
            f"{model} is stored in 16 bit, and --quantize {quantize} only reads weights that are {quantize} already"
        )
        step = f"use a checkpoint stored as {quantize}, or a method that quantizes on the fly: eetq, fp8, bitsandbytes"
        yield Hit(word, message, step)


_PACKED_NAME = re.compile(r"(?<![a-z])(awq|gptq)(?![a-z])", re.IGNORECASE)


@rule("TGI151", "error", "quantized checkpoint read as a plain one", "packed-without-quantize")
def packed_without_quantize(case: Case) -> Hits:
    """The checkpoint holds packed weights, and nothing tells this release so: it looks for plain ones.

    TGI finds out by itself from 2.0.0 on, where config.json says it (exl2: 2.1.0, compressed-tensors: 2.4.1).
    Where only the name says that a checkpoint is quantized, it is a warning.

    Failing::

        tgi:1.4.5 --model-id Qwen/Qwen2.5-7B-Instruct-AWQ

    Fixed::

        tgi:1.4.5 --model-id Qwen/Qwen2.5-7B-Instruct-AWQ --quantize awq
    """
    yield from of_refusal(case, lambda case: case.at("model-id"), ("packed-without-quantize",), _READS)
    word, version = case.at("model-id"), case.version
    if case.facts is not None or word is None or version is None or version >= _READS_CONFIG:
        return
    found = _PACKED_NAME.search((case.view.model or "").rstrip("/").rpartition("/")[2])
    if found is not None and "quantize" not in case.view.flags and case.sure("quantize"):
        method = found[1].lower()
        message = f"the name says {method}, and TGI {case.release} takes every checkpoint for a plain one"
        yield Hit(word, message, f"pass --quantize {method}", "warning")


@refused("TGI152", "dtype and quantize together", "dtype-and-quantize", reads=("quantize", "dtype"))
def dtype_and_quantize(case: Case) -> Value | None:
    """A quantization decides the dtype by itself; only the bitsandbytes family takes `--dtype` beside it.

    From 2.3.0 on the launcher hands the checkpoint's own quantization on, so `--dtype` fails on every
    pre-quantized checkpoint even without `--quantize`.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct-AWQ --dtype float16

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct-AWQ
    """
    return case.at("dtype", "quantize")


@refused(
    "TGI153",
    "quantization the model's class does not take",
    "automodel-quantize",
    "packed-by-transformers",
    "fp8-experts",
    reads=_READS,
)
def automodel_quantize(case: Case) -> Value | None:
    """Models served through transformers' AutoModel take bitsandbytes (8 bit) and fp8 at most.

    Where TGI's flash attention does not work, transformers loads the others too, and the image holds
    nothing it could read gptq and awq with. Mixtures of experts take no fp8 from 2.3.0 on, unless the checkpoint
    is stored in it (3.1.0).

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen3-8B --quantize eetq

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen3-8B
    """
    return case.at("quantize")


@refused(
    "TGI154", "quantization the GPU cannot run", "marlin-needs-ampere", "fp8-needs-ampere", "awq-on-rocm",
    "gaudi-quantize", "bitsandbytes-missing", "eetq-missing", "exl2-missing", "fp8-by-transformers", "fp8-on-rocm",
    reads=_READS,
)  # fmt: skip
def gpu_too_old(case: Case) -> Value | None:
    """Marlin needs compute capability 8.0, fp8 8.0 (8.9 before 2.2.0), and the awq kernel NVIDIA.

    On AMD fp8 needs an MI300 and TGI 2.4.0; bitsandbytes and eetq are in the CUDA image alone. fp8
    checkpoints that transformers loads (Qwen3) need compute capability 8.9.

    Failing, --gpu nvidia-t4::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-3B-Instruct --quantize fp8

    Fixed, --gpu nvidia-t4::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-3B-Instruct --quantize eetq
    """
    return case.at("quantize", "model-id")


@refused(
    "TGI155",
    "checkpoint this release cannot load",
    "fbgemm-fp8",
    "fp8-blocks",
    "gemma-prefix",
    "falcon-norms",
    "bigcode-heads",
    reads=_READS,
)
def unloadable(case: Case) -> Value | None:
    """From 3.1.0 on TGI trips over the configuration of fbgemm_fp8 checkpoints; from 3.1.1 on its CUDA images lack the
    product of fp8 weights with a scale for each block, which Hopper and Blackwell would run (DeepSeek-V3's); 2.0.3 and
    2.0.4 look for Gemma's weights under PaliGemma's names; from 2.0.3 on TGI wants to be told how many norms a layer of
    Falcon's large models has; GPTBigCode with a key/value head for each query (multi_query: false) never loads.

    Failing::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.1-405B-Instruct-FP8

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.0.2 --model-id meta-llama/Llama-3.1-405B-Instruct-FP8
    """
    return case.at("model-id")
