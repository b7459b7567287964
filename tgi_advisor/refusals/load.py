"""What the shards refuse before they open the weights: environment, arguments, model class."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tgi_advisor.errors import listed
from tgi_advisor.estimate.launcher import f32
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families, heads
from tgi_advisor.facts import release as releases
from tgi_advisor.refusals.rules import Case, Found, Rule, Version, rule

LOAD: list[Rule] = []
"""In the order a shard meets them."""


# ---- environment and arguments ----


@rule(LOAD, "load", "S/models/globals.py@v3.3.7:20", since=(2, 3, 0))
def attention_unknown(case: Case) -> Found:
    """ATTENTION names no attention back end of this release."""
    setting = case.setting
    known = ["paged", "flashdecoding", "flashinfer"]
    if setting.facts.release.version >= (3, 0, 2):
        known.append("flashdecoding-ipex")
    if setting.attention in known or setting.facts.variant == "gaudi":
        return None
    return f"AssertionError: Attention is not valid {setting.attention}, expected {{{listed(known)}}}", (
        "leave ATTENTION out: TGI picks one",
    )


@rule(LOAD, "load", "S/models/globals.py@v3.3.7:28", since=(2, 3, 0))
def prefix_caching_paged(case: Case) -> Found:
    """Prefix caching does not work with paged attention."""
    setting = case.setting
    if setting.prefix_caching and setting.attention == "paged":
        return "RuntimeError: Prefix caching is only supported with flashinfer", (_prefix_off(setting),)
    return None


def _prefix_off(setting: Setting) -> str:
    name = "PREFIX_CACHING" if setting.facts.release.version >= (2, 4, 0) else "USE_PREFIX_CACHING"
    return f'set {name}: "0" in tgi.env'


@rule(LOAD, "load", "S/models/globals.py@v3.3.7:33", since=(2, 3, 0))
def wiggle_out_of_range(case: Case) -> Found:
    """TGI_WIGGLE_ROOM is a share between 0 and 1, both excluded."""
    text = case.setting.env.get("TGI_WIGGLE_ROOM")
    if text is None or case.setting.facts.variant == "gaudi":
        return None
    try:
        value = float(text)
    except ValueError:
        return f"ValueError: could not convert string to float: {text!r}", ("write a number such as 0.9",)
    if 0 < value < 1:
        return None
    return f"AssertionError: assert TGI_WIGGLE_ROOM {'> 0' if not value > 0 else '< 1'}", ("use a number such as 0.95",)


@rule(LOAD, "load", "S/layers/attention/cuda.py@v3.3.7:222", since=(2, 4, 0))
def flashdecoding_needs_ampere(case: Case) -> Found:
    """Flash decoding needs compute capability 8.0."""
    gpu = case.setting.facts.gpu
    if gpu.system == "cuda" and case.setting.attention == "flashdecoding" and gpu.at_least < (8, 0):
        return "ValueError: Flash decoding requires Flash Attention V2", ("leave ATTENTION out: TGI picks paged here",)
    return None


@rule(LOAD, "load", "S/cli.py@v3.3.7:117")
def dtype_and_quantize(case: Case) -> Found:
    """A quantization decides the dtype by itself. From 2.3.0 on the launcher passes the checkpoint's own quantization
    on, so --dtype fails on every pre-quantized checkpoint.
    """
    setting = case.setting
    version, quantize = setting.facts.release.version, setting.forwarded_quantize
    if "dtype" not in setting.flags or quantize is None:
        return None
    allowed = ["bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4"] if version >= (1, 2, 0) else []
    if setting.facts.variant == "gaudi":
        allowed += ["gptq", "awq", "fp8", "compressed-tensors"]
    if quantize in allowed:
        return None
    text = (
        "RuntimeError: Only 1 can be set between `dtype` and `quantize`, as they both decide how goes the final model."
    )
    return text, ("leave out model.dtype",)


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:530", since=heads.SINCE["medusa"])
def speculate_above_heads(case: Case) -> Found:
    """No more tokens can be guessed ahead than there are heads.

    Until 1.4.5 the names stand in the message for the numbers.
    """
    found, asked = case.setting.facts.model.heads, case.setting.flags.get("speculate")
    if found is None or not heads.taken(found, case.version) or not isinstance(asked, int):
        return None
    there = heads.number(found.config)
    if asked <= there:
        return None
    kind = "medusa" if heads.method(found.config) == "medusa" else "mlp_speculator"
    shown = ("{speculate}", "{speculate_medusa}") if case.version < (2, 0, 0) else (str(asked), str(there))
    text = (
        f"RuntimeError: Speculate is set to `{shown[0]}` but this {kind} models only has `{shown[1]}` heads, "
        "please make them match"
    )
    return text, (f"set `speculate` to at most {there}, or leave it out",)


@rule(LOAD, "load", "S/models/__init__.py@v2.0.2:577", until=(2, 0, 2))
def heads_unknown(case: Case) -> Found:
    """This release takes the heads for a model of their own: it knows Medusa heads from 1.3.0 on, MLP speculators from
    2.0.3 on.
    """
    found = case.setting.facts.model.heads
    if found is None or heads.taken(found, case.version):
        return None
    method = heads.method(found.config) or "medusa"
    since = ".".join(map(str, heads.SINCE[method]))
    kind = found.config.get("model_type")
    if method == "mlp_speculator":
        text = f"ValueError: Unsupported model type {kind}"
        if case.setting.num_shard > 1:
            text = _sharded_automodel(case.version)
    else:
        text = "KeyError: 'model_type'" if kind is None else "RuntimeError: weight lm_head.weight does not exist"
    return text, (f"use TGI {since} or newer", "or name the base model instead")


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:643", since=(2, 1, 0))
def exl2_checkpoint_sharded(case: Case) -> Found:
    """EXL2 weights cannot be split over GPUs, also where the checkpoint itself says exl2."""
    if case.setting.num_shard > 1 and case.setting.quantize == "exl2":
        text = "RuntimeError: Sharding is currently not supported with `exl2` quantization"
        return text, ("use one GPU, or a gptq or awq checkpoint",)
    return None


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:656", since=(2, 1, 0), of_limits=True)
def sliding_window_unsupported(case: Case) -> Found:
    """This back end's kernels have no sliding window, and prompts may be longer than the model's window."""
    setting, longest = case.setting, case.limits.max_input_tokens
    window = families.sliding_window(setting.facts.model)
    if window is None or longest is None or longest <= window or _has_windows(setting):
        return None
    system, kind = case.system, case.family.model_type
    text = (
        f"ValueError: The backend {system} does not support sliding window attention that is used by the model type "
        f"{kind}. To use this model nonetheless with the {system} backend, please launch TGI with the argument "
        f"`--max-input-tokens` smaller than sliding_window={window} (got here max_input_tokens={longest})."
    )
    return text, (f"set max_input_tokens to at most {window}",)


def _has_windows(setting: Setting) -> bool:
    gpu = setting.facts.gpu
    if gpu.system == "cuda":
        assumed = setting.facts.release.version <= (2, 2, 0)  # flash attention 2 is imported without a look at the GPU
        return setting.flash and (assumed or gpu.at_least >= (8, 0))
    return gpu.system == "gaudi" or setting.attention == "flashdecoding-ipex"


# ---- model class ----


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:738", since=(2, 4, 1))
def ssm_deprecated(case: Case) -> Found:
    """Mamba checkpoints of the first format are no longer served."""
    if case.setting.facts.model.model_type != "ssm":
        return None
    text = (
        "RuntimeError: `ssm` models have been deprecated in favor of `mamba` models, which follow standard HF formats."
    )
    return text, ("use the -hf checkpoint of the model",)


@rule(LOAD, "load", "S/models/__init__.py@v3.2.2:1032", since=(3, 2, 2), until=(3, 2, 2))
def llama4_import(case: Case) -> Found:
    """3.2.2 has a class for Llama 4, but pins a transformers (4.49.0) that does not know it."""
    if case.family.model_type != "llama4" or case.setting.facts.gpu.system == "gaudi":
        return None
    text = "ImportError: cannot import name 'Llama4ForConditionalGeneration' from 'transformers'"
    return text, ("use TGI 3.2.3 or newer",)


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:978", since=(1, 4, 0))
def phi_msft(case: Case) -> Found:
    """The first phi-2 format has no flash attention class."""
    if case.family.model_type == "phi-msft" and case.setting.flash:
        text = "NotImplementedError: Legacy phi-msft is not supported with Flash Attention"
        return text, ("use microsoft/phi-2 at its current revision",)
    return None


@rule(LOAD, "load", "S/models/custom_modeling/flash_dbrx_modeling.py@v3.3.7:112", since=(3, 0, 2))
def dbrx_part_for_whole(case: Case) -> Found:
    """transformers (4.48 and later) takes a part of config.json whose model_type is that of TGI's class for the whole
    configuration. The class has none, and DBRX's attn_config an empty one: the rest keeps the class's defaults.

    transformers/configuration_utils.py@v4.48.0:554.
    """
    setting = case.setting
    if case.family.model_type != "dbrx" or not setting.flash or setting.facts.variant == "gaudi":
        return None
    config = setting.facts.model.config
    parts = [part for part in config.values() if isinstance(part, Mapping) and part.get("model_type") == ""]
    rows = next((group.shape[0] for group in setting.facts.model.tensors if group.name.endswith(".Wqkv.weight")), 0)
    if not parts or rows % 18 == 0:
        return None
    text = f"AssertionError: Cannot split {rows} in proportional blocks: [16, 1, 1]"
    return text, ("take model_type out of attn_config and ffn_config in config.json, or use TGI 3.0.1",)


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:1288")
def alibi_sharded(case: Case) -> Found:
    """Falcon models with alibi run on one GPU only."""
    if families.is_alibi(case.setting.facts.model) and case.setting.num_shard > 1 and case.setting.flash:
        return "NotImplementedError: sharded is not supported for this model", ("set tgi.num_shard: 1",)
    return None


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:81")
def needs_flash_attention(case: Case) -> Found:
    """The model's class needs flash attention, which this GPU cannot run with this release."""
    setting = case.setting
    kind, family = setting.family.model_type, setting.family
    if setting.flash or not family.supported or family.automodel:
        return None
    vision = kind in _VISION_NAMES
    if not vision and (setting.num_shard == 1 or kind not in _FLASH_NAMES):
        return None
    name = _VISION_NAMES[kind] if vision else f"Sharded {_flash_name(kind, setting.facts.release.version)}"
    steps = ["use a GPU of compute capability 8.0 or newer"]
    if not vision:
        steps.append("or one GPU: the model is then served without flash attention, in padded batches")
    return f"NotImplementedError: {name} requires Flash Attention enabled models.", tuple(steps)


_VISION_NAMES = {
    "idefics": "Idefics", "idefics2": "Idefics", "idefics3": "Idefics", "mllama": "Mllama", "paligemma": "PaliGemma",
    "llava_next": "LlavaNext", "qwen2_vl": "Qwen2_VL", "qwen2_5_vl": "Qwen2_5_VL",
}  # fmt: skip
_FLASH_NAMES = {
    "llama": "Llama", "baichuan": "Llama", "phi3": "Llama", "granite": "Llama", "mistral": "Mistral",
    "mixtral": "Mixtral", "qwen2": "Qwen2", "gemma": "Gemma", "gemma2": "Gemma2", "gemma3": "Gemma3",
    "gemma3_text": "Gemma3", "cohere": "Cohere", "dbrx": "DBRX", "deepseek_v2": "Deepseek V2",
    "deepseek_v3": "Deepseek V3", "falcon": "Falcon", "RefinedWeb": "Falcon", "RefinedWebModel": "Falcon",
    "starcoder2": "Starcoder2", "gpt_bigcode": "Santacoder", "gpt2": "GPT-2", "gptj": "GPT-J",
}  # fmt: skip


def _flash_name(kind: str, version: Version) -> str:
    """The name in the message; the Llama family prints its model type from 2.4.0 on."""
    return kind if _FLASH_NAMES[kind] == "Llama" and version >= (2, 4, 0) else _FLASH_NAMES[kind]


def _automodel_sharded(case: Case) -> Found:
    family = case.family
    if not family.automodel or family.shards or case.setting.num_shard == 1:
        return None
    return _sharded_automodel(case.version), ("set tgi.num_shard: 1",)


def _sharded_automodel(version: Version) -> str:
    kind = "ValueError" if version < (1, 1, 0) else "NotImplementedError"
    return f"{kind}: sharded is not supported for AutoModel"


@rule(LOAD, "load", "S/models/__init__.py@v3.0.1:1291", until=(3, 0, 1))
def automodel_sharded_first(case: Case) -> Found:
    """This release serves the model through transformers' AutoModel, on one GPU."""
    return _automodel_sharded(case)


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:1727")
def automodel_quantize(case: Case) -> Found:
    """This release serves the model through transformers' AutoModel, which takes no such quantization."""
    setting = case.setting
    rows: Mapping[str, tuple[Version, str]] = {
        "gptq": (
            (0, 0, 0),
            "gptq quantization is not supported for AutoModel, you can try to quantize it with "
            "`text-generation-server quantize ORIGINAL_MODEL_ID NEW_MODEL_ID`",
        ),
        "awq": ((1, 1, 0), "awq quantization is not supported for AutoModel"),
        "bitsandbytes-fp4": ((1, 0, 1), "4bit quantization is not supported for AutoModel"),
        "bitsandbytes-nf4": ((1, 0, 1), "4bit quantization is not supported for AutoModel"),
        "eetq": ((1, 1, 1), "Eetq quantization is not supported for AutoModel"),
        "exl2": ((2, 1, 0), "exl2 quantization is not supported for AutoModel"),
    }
    found = rows.get(setting.quantize or "")
    version = setting.facts.release.version
    if not setting.family.automodel or found is None or version < found[0] or case.system == "gaudi":
        return None
    kind = "ValueError" if version < (1, 1, 0) else "NotImplementedError"
    return f"{kind}: {found[1]}", ("use the unquantized checkpoint, with bitsandbytes or fp8 if it must be smaller",)


@rule(LOAD, "load", "S/models/__init__.py@v3.1.1:1533", since=(3, 1, 1), until=(3, 1, 1))
def backend_compatible_missing(case: Case) -> Found:
    """3.1.1 asks transformers for a method that the version it pins (4.48.3) does not have, so no model that goes
    through AutoModel loads.

    The Intel images pin none and got a newer one.
    """
    if not case.family.automodel or case.system not in ("cuda", "rocm"):
        return None
    return "AttributeError: type object has no attribute 'is_backend_compatible'", ("use TGI 3.2.0 or newer",)


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:1766", since=(3, 0, 2))
def automodel_sharded(case: Case) -> Found:
    """Neither TGI nor its transformers back end can split this model, so it runs on one GPU."""
    return _automodel_sharded(case)


@rule(LOAD, "load", "S/models/__init__.py@v3.3.7:1797")
def unsupported_model_type(case: Case) -> Found:
    """This release has no class for the model type, and neither has the transformers its image carries. To several
    shards TGI only says that it cannot split it.
    """
    family = case.family
    if family.supported:
        return None
    text = f"ValueError: Unsupported model type {family.model_type}"
    if case.setting.num_shard > 1 and case.system != "gaudi":
        text = _sharded_automodel(case.version)
    return text, (served_elsewhere(family, case.version, gaudi=case.system == "gaudi"),)


def served_elsewhere(family: families.Family, version: Version, *, gaudi: bool = False) -> str:
    """What to do about a type the release does not serve."""
    last = releases.latest()
    if gaudi:
        first = family.gaudi_from
        none = f"no release's Gaudi back end has a class for {family.model_type}"
    else:
        from tgi_advisor.facts import automodel  # only for types the release does not serve

        known = (family.first_release, automodel.first_release(family.model_type))
        first = min(filter(None, known), default=None)
        none = f"no release serves {family.model_type}"
    if family.remote_code and (first is None or version < first):
        return "set model.trust_remote_code: true; AutoModel then runs the repository's own code"
    if first is not None and first > version:
        return f"use TGI {'.'.join(map(str, first))} or newer"
    return (
        f"use another server: {none}, and after {last} of {last.date} none will, TGI being in maintenance mode (its "
        "authors recommend vLLM and SGLang)"
    )


@rule(LOAD, "load", "S/utils/dist.py@v3.3.7:53")
def more_shards_than_gpus(case: Case) -> Found:
    """Every shard needs a GPU of its own."""
    facts = case.setting.facts
    if facts.gpu.system in ("cuda", "rocm") and case.setting.num_shard > facts.gpu_count:
        return "AssertionError: Each process is one gpu", (f"set tgi.num_shard to at most {facts.gpu_count}",)
    return None


@rule(LOAD, "load", "S/utils/dist.py@v3.3.7:55")
def memory_fraction_out_of_range(case: Case) -> Found:
    """PyTorch takes a share of the GPU from 0 to 1, and with 0 it may not allocate anything.

    torch/cuda/memory.py, set_per_process_memory_fraction; c10/cuda/CUDACachingAllocator.cpp, setMemoryFraction.
    """
    fraction = f32(case.setting.memory_fraction)
    if case.setting.facts.gpu.system not in ("cuda", "rocm") or 0 < fraction <= 1:
        return None
    step = ("leave out cuda-memory-fraction, or use a share such as 0.9",)
    if math.isnan(fraction):
        return "RuntimeError: invalid fraction:nan. Please set within (0, 1).", step
    if fraction == 0:
        return "torch.OutOfMemoryError: CUDA out of memory. 0 bytes allowed", step
    return f"ValueError: Invalid fraction value: {case.setting.memory_fraction}. Allowed range: 0~1", step


@rule(LOAD, "load", "S/models/mamba.py@v3.3.7:419", since=(1, 4, 1))
def mamba_sharded(case: Case) -> Found:
    """Mamba runs on one GPU only."""
    if case.family.supported and case.family.served_by == "mamba" and case.setting.num_shard > 1:
        return "RuntimeError: Mamba does not support Tensor Parallelism (TP)", ("set tgi.num_shard: 1",)
    return None


@rule(LOAD, "load", "S/models/vlm_causal_lm.py@v3.3.7:709", since=(2, 3, 0))
def vision_prefix_caching(case: Case) -> Found:
    """Vision models do not work with prefix caching. The launcher switches it off for them, unless the environment
    forces it or a quant_method it does not know made it drop the whole config.json.
    """
    setting = case.setting
    if setting.family.served_by != "vlm" or setting.family.model_type == "llama4" or not setting.prefix_caching:
        return None
    return "NotImplementedError: Vlm do not work with prefix caching yet", (_prefix_off(setting),)
