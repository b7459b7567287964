"""What the shards refuse because the image lacks a quantization's kernels, or the GPU cannot run them."""

from __future__ import annotations

from collections.abc import Mapping

from tgi_advisor.estimate.defaults import float8_groups
from tgi_advisor.estimate.weights import on_own_layers
from tgi_advisor.refusals.rules import Case, Found, Rule, rule
from tgi_advisor.refusals.weights import quant_method

KERNELS: list[Rule] = []
"""In the order a shard meets them."""

_BITSANDBYTES = ("bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")


@rule(KERNELS, "load", "backends/gaudi/server/text_generation_server/cli.py@v3.3.7:23", since=(3, 3, 0))
def gaudi_quantize(case: Case) -> Found:
    """The Gaudi back end reads gptq, awq, fp8 and (3.3.2 on) compressed-tensors; its command line knows no others."""
    quantize = case.setting.forwarded_quantize
    if case.system != "gaudi" or quantize is None:
        return None
    known = ["gptq", "awq", "fp8", *(["compressed-tensors"] if case.version >= (3, 3, 2) else [])]
    if quantize in known:
        return None
    names = ", ".join(f"'{name}'" for name in known)
    return f"Invalid value for '--quantize': '{quantize}' is not one of {names}.", ("leave out model.quantize",)


@rule(KERNELS, "load", "Dockerfile_amd@v3.3.7:255", since=(1, 2, 0))
def bitsandbytes_missing(case: Case) -> Found:
    """Only the CUDA image holds bitsandbytes."""
    setting = case.setting
    if setting.quantize not in _BITSANDBYTES or case.system not in ("rocm", "ipex"):
        return None
    if not on_own_layers(setting):
        text = "ImportError: transformers finds no bitsandbytes in the image"
    elif case.version >= (2, 2, 0):
        text = "ModuleNotFoundError: No module named 'bitsandbytes'"
    elif case.version >= (2, 0, 3):
        text = "NotImplementedError: Bitsandbytes is missing install it with `pip install bitsandbytes`."
    else:
        name = "Int8Params" if setting.quantize == "bitsandbytes" else "Params4bit"
        text = f"NameError: name '{name}' is not defined"
    return text, ("use a gptq checkpoint, or the plain one",)


@rule(KERNELS, "load", "S/layers/eetq.py@v3.3.7:7", since=(1, 2, 0))
def eetq_missing(case: Case) -> Found:
    """Only the CUDA image holds EETQ, whose kernels are written for CUDA."""
    setting = case.setting
    if setting.quantize != "eetq" or case.system not in ("rocm", "ipex") or not on_own_layers(setting):
        return None
    if case.version < (2, 2, 0):
        text = "ImportError: Please install EETQ from https://github.com/NetEase-FuXi/EETQ"
    elif case.version < (3, 1, 1):
        text = "ModuleNotFoundError: No module named 'EETQ'"
    else:
        text = "the Hub kernel kernels-community/quantization-eetq has no build for this image"
    return text, ("use a gptq checkpoint, or the plain one",)


@rule(KERNELS, "load", "S/layers/exl2.py@v3.3.7:31", since=(2, 1, 0))
def exl2_missing(case: Case) -> Found:
    """The Intel images hold no exllama kernels."""
    if case.setting.quantize != "exl2" or case.system != "ipex" or not on_own_layers(case.setting):
        return None
    text = "ImportError: cannot import name 'ExllamaQuantLinear' from 'text_generation_server.layers.gptq'"
    return text, ("use a gptq checkpoint",)


_OPTIMUM = (
    ((3, 0, 2), "ImportError: Loading a GPTQ quantized model requires optimum (`pip install optimum`)"),
    ((1, 4, 4), "ModuleNotFoundError: No module named 'optimum'"),
    ((1, 3, 4), "ImportError: Loading a GPTQ quantized model requires optimum (`pip install optimum`) and auto-gptq "
                "library (`pip install auto-gptq`)"),
    ((1, 0, 3), "ImportError: Loading GPTQ quantized model requires optimum library : `pip install optimum` and "
                "auto-gptq library 'pip install auto-gptq'"),
)  # fmt: skip
"""transformers' words by the first release whose image has that version, newest first."""


@rule(KERNELS, "load", "S/models/causal_lm.py@v2.2.0:627", since=(1, 0, 3))
def packed_by_transformers(case: Case) -> Found:
    """Without a class of TGI's own transformers loads the checkpoint, and the image holds none of the libraries that
    read gptq (optimum, auto-gptq) and awq (autoawq, asked for from 1.3.4 on).

    transformers/quantizers/quantizer_gptq.py@v4.43.1:45, quantizer_awq.py@v4.43.1:50.
    """
    setting, family = case.setting, case.family
    method = quant_method(setting)
    by_transformers = family.supported and not on_own_layers(setting) and case.system in ("cuda", "rocm")
    if not by_transformers or (family.automodel and setting.quantize in ("gptq", "awq")):
        return None  # the latter is refused before
    step = "use the plain checkpoint"
    if setting.facts.gpu.system == "cuda" and not setting.flash and not family.automodel:
        step = "use a GPU and a release with flash attention, or the plain checkpoint"
    if method == "gptq":
        return next(text for since, text in _OPTIMUM if since <= case.version), (step,)
    if method == "awq" and case.version >= (1, 3, 4):
        text = "ImportError: Loading an AWQ quantized model requires auto-awq library (`pip install autoawq`)"
        return text, (step,)
    return None


@rule(KERNELS, "load", "S/models/transformers_flash_causal_lm.py@v3.3.7:140", since=(3, 2, 3))
def fp8_by_transformers(case: Case) -> Found:
    """Without a class of TGI's own transformers loads the fp8 checkpoint, and wants compute capability 8.9.

    transformers/quantizers/quantizer_finegrained_fp8.py@v4.51.0:49.
    """
    gpu = case.setting.facts.gpu
    by_transformers = case.family.supported and not on_own_layers(case.setting)
    capability = gpu.compute_capability
    if quant_method(case.setting) != "fp8" or not by_transformers or capability is None or capability >= (8, 9):
        return None
    text = (
        "ValueError: FP8 quantized models is only supported on GPUs with compute capability >= 8.9 (e.g 4090/H100), "
        f"actual = `{capability[0]}.{capability[1]}`"
    )
    return text, ("use a GPU of compute capability 8.9 or newer, or the plain checkpoint",)


@rule(KERNELS, "warmup", "S/layers/fp8.py@v3.3.7:75", since=(2, 0, 0))
def fp8_on_rocm(case: Case) -> Found:
    """fp8 weights need an MI300 and TGI 2.4.0. TGI does not check: PyTorch's kernel fails in the first prefill.

    Until 2.3.1 TGI hands ROCm's kernel the number format of CUDA's (`float8_e4m3fn`).
    """
    setting, gpu = case.setting, case.setting.facts.gpu
    if gpu.system != "rocm" or not on_own_layers(setting) or not _float8(case):
        return None
    if case.version < (2, 4, 0):
        text = "RuntimeError in torch._scaled_mm (ROCm's takes float8_e4m3fnuz, TGI gives it float8_e4m3fn)"
        return text, ("use TGI 2.4.0 or newer on an MI300, or a checkpoint that is not fp8",)
    if gpu.generation != "cdna2":
        return None
    text = (
        "RuntimeError: torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9, or "
        "ROCm MI300+"
    )
    return text, ("use an MI300, or a checkpoint that is not fp8",)


def _float8(case: Case) -> bool:
    """Whether the weights are multiplied as 8-bit floats."""
    setting = case.setting
    if setting.quantize == "compressed-tensors":
        config = setting.facts.model.config
        stored = config.get("quantization_config", config.get("compression_config"))
        return isinstance(stored, Mapping) and float8_groups(stored) == "fp8"
    return setting.quantize == "fp8"
