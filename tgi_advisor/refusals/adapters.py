"""What the shards refuse once the base model is loaded: its LoRA adapters.

The launcher leaves an adapter with a folder (`name=folder`, 2.3.0 on) to the shards and downloads the others; the
shards look for the weights of an adapter without a folder in the Hub's cache and nowhere else.
"""

from __future__ import annotations

import posixpath
import re

from tgi_advisor.facts.adapters import parse
from tgi_advisor.facts.release import is_own
from tgi_advisor.refusals.rules import Case, Found, Rule, Version, rule

ADAPTERS: list[Rule] = []
"""In the order a shard meets them."""
NAMED_SINCE: Version = (2, 3, 0)
"""First release that reads `name=folder` (utils/adapter.py@v2.3.0:49)."""

_WORKDIR = "/usr/src"
"""Where TGI's images start the launcher."""


def named(folder: str) -> str:
    """`name=folder` for a folder that stands alone."""
    return f"{folder.rstrip('/').rpartition('/')[2] or 'adapter'}={folder}"


@rule(ADAPTERS, "load", "launcher/src/main.rs@v3.3.7:2232", since=(2, 1, 1))
def adapter_empty(case: Case) -> Found:
    """An adapter without a name, such as the one behind a last comma, is taken for the working folder, where no weights
    are: its download fails.

    S/utils/hub.py@v3.3.7:131-140 raises a FileNotFoundError that S/cli.py:265 does not expect.
    """
    if all(map(str.strip, case.setting.lora_adapters)):
        return None
    return "Error: DownloadError", ("leave lora-adapters out, or end it without a comma",)


@rule(ADAPTERS, "load", "S/utils/adapter.py@v3.3.7:45", since=NAMED_SINCE)
def adapter_spelling(case: Case) -> Found:
    """The shards read an adapter as id, id@revision or name=folder and stop at anything else."""
    for entry in filter(None, map(str.strip, case.setting.lora_adapters)):
        whole = re.fullmatch(r"[^=@]+(=[^@]+)?(@.+)?", entry)
        if case.system != "gaudi" and (whole is None or entry.count("=") > 1 or entry.count("@") > 1):
            return f"ValueError: Invalid LoRA adapter format: {entry}", ("write id, id@revision or name=folder",)
    return None


@rule(ADAPTERS, "load", "launcher/src/main.rs@v2.2.0:1609", since=(2, 1, 0), until=(2, 2, 0))
def adapter_named_too_early(case: Case) -> Found:
    """An adapter with a name and a folder is known from 2.3.0 on; before, all of it is taken for a Hub id."""
    for entry in map(parse, case.setting.lora_adapters):
        if entry.folder is not None:
            missing = f"ValueError: Can't find 'adapter_config.json' at '{entry.text}'"
            return missing if case.version < (2, 2, 0) else "Error: DownloadError", ("use TGI 2.3.0 or newer",)
    return None


@rule(ADAPTERS, "load", "S/utils/adapter.py@v3.3.7:210", since=NAMED_SINCE)
def adapter_bare_folder(case: Case) -> Found:
    """The weights of an adapter without a name are looked for in the Hub's cache, so a folder is never found."""
    for entry in map(parse, case.setting.lora_adapters):
        if entry.bare_folder:
            text = f"No adapter weights found for adapter '{entry.id}' and revision '{entry.revision}'."
            return f"FileNotFoundError: {text}", (f"write {named(entry.id)}",)
    return None


@rule(ADAPTERS, "load", "S/adapters/lora.py@v3.3.7:105", since=NAMED_SINCE)
def adapter_not_mounted(case: Case) -> Found:
    """An adapter's folder is one of the container, and nothing of the spec is mounted there."""
    spec, facts = case.setting.spec, case.setting.facts
    if (spec.tgi.image is not None and not is_own(spec.tgi.image)) or facts.model.folder is not None:
        return None
    there = ["/data", *(mount.target for mount in spec.container.mounts)]
    for entry in map(parse, case.setting.lora_adapters):
        path = posixpath.normpath(posixpath.join(_WORKDIR, entry.folder)) if entry.folder else ""
        if path and not any(path == one or path.startswith(f"{one.rstrip('/')}/") for one in there):
            step = f"write container.mounts: [{posixpath.join('/srv', posixpath.basename(path))}:{path}:ro]"
            return f"ValueError: Can't find 'adapter_config.json' at '{entry.folder}'", (step,)
    return None


@rule(ADAPTERS, "load", "S/models/__init__.py@v3.3.7:1830", since=(2, 1, 0))
def adapter_class(case: Case) -> Found:
    """TGI's class for this model has no layers an adapter could be put on: most classes have none in any release."""
    family, version = case.family, case.version
    if not any(case.setting.lora_adapters) or case.system == "gaudi" or not family.supported:
        return None
    since = family.adapters_from
    if family.served_by == "flash" and since is not None and version >= since:
        return None
    later = family.served_by == "flash" and since is not None
    step = f"use TGI {'.'.join(map(str, since))} or newer" if later and since else "merge the adapter into the weights"
    return _no_layers(case), (step,)


_OUTSIDE_21 = ("mixtral", "qwen2", "starcoder2", "llava_next", "idefics2", "paligemma")
"""Model types without adapters whose classes are Mistral's in 2.1, which lets them through to the layers."""
_LACKS = {
    "deepseek_v2": ("DeepseekV2Attention", "query_key_value"),
    "deepseek_v3": ("DeepseekV3Attention", "query_key_value"),
    "gpt_bigcode": ("FlashMQAttention", "query_key_value"), "gpt_neox": ("FlashGPTNeoXForCausalLM", "model"),
    "falcon": ("FlashRWForCausalLM", "model"), "RefinedWeb": ("FlashRWForCausalLM", "model"),
    "RefinedWebModel": ("FlashRWForCausalLM", "model"), "dbrx": ("DbrxLayer", "self_attn"),
    "phi": ("FlashPhiAttention", "o_proj"), "llava_next": ("LlavaNextForConditionalGeneration", "model"),
    "idefics2": ("Idefics2ForConditionalGeneration", "model"), "qwen2_vl": ("Qwen2Model", "model"),
    "idefics3": ("Idefics3ForConditionalGeneration", "model"), "qwen2_5_vl": ("Qwen2Model", "model"),
    "paligemma": ("PaliGemmaForConditionalGeneration", "model"), "gemma3": ("Gemma3ForConditionalGeneration", "model"),
    "mllama": ("MllamaForConditionalGeneration", "model"), "llama4": ("Llama4TextAttention", "query_key_value"),
}  # fmt: skip
"""Class and attribute that are missed first, by model type; for other flash classes the adapters' own layer."""


def _no_layers(case: Case) -> str:
    """What TGI prints: up to 2.2.0 classes without adapters say so themselves."""
    family, version = case.family, case.version
    flash = family.served_by in ("flash", "vlm")
    if version <= (2, 2, 0) and (not flash or (version < (2, 2, 0) and family.model_type not in _OUTSIDE_21)):
        return "ValueError: This model does not support adapter loading."
    if family.model_type == "phimoe":
        return "KeyError: (0, 'gate_proj')"
    if not flash:
        lacks = "'query_key_value'" if family.served_by == "transformers" else "..."
        return f"AttributeError: ... object has no attribute {lacks}"
    kind, attribute = _LACKS.get(family.model_type, ("TensorParallelColumnLinear", "base_layer"))
    return f"AttributeError: '{kind}' object has no attribute '{attribute}'"


@rule(ADAPTERS, "load", "S/models/flash_mistral.py@v2.1.0:156", since=(2, 1, 0), until=(2, 1, 0))
def mixtral_without_mlp(case: Case) -> Found:
    """2.1.0 looks for places for adapters in every model, and Mixtral's layers have none where it looks."""
    if case.family.model_type == "mixtral" and case.family.served_by == "flash" and case.system != "gaudi":
        return "AttributeError: 'MixtralLayer' object has no attribute 'mlp'", ("use TGI 2.1.1 or newer",)
    return None


_PACKED = {"awq": "WQLinear", "exl2": "QuantLinear", "marlin": "MarlinLinear", "fp8": "Fp8Linear"}


@rule(ADAPTERS, "load", "S/adapters/lora.py@v3.3.7:232", since=(2, 1, 0))
def adapter_on_packed(case: Case) -> Found:
    """An adapter is put on 16 bit weights, or on those of eetq and bitsandbytes; other methods keep theirs packed."""
    setting = case.setting
    if not any(setting.lora_adapters) or case.system == "gaudi":
        return None
    kind = "GPTQMarlinLinear" if setting.quantize == "gptq" else _PACKED.get(setting.quantize or "")
    if kind is None:
        return None
    step = "use the unquantized checkpoint, with eetq or bitsandbytes where it must be smaller"
    return f"AttributeError: '{kind}' object has no attribute 'weight'", (step,)


@rule(ADAPTERS, "load", "S/adapters/lora.py@v3.3.7:25", since=(3, 3, 1))
def adapter_on_rocm(case: Case) -> Found:
    """The kernels that pad an adapter's rank are loaded on CUDA alone, and asked for on ROCm all the same."""
    if not any(case.setting.lora_adapters) or case.system != "rocm":
        return None
    step = "use TGI 3.3.0, or merge the adapter into the weights"
    return "AttributeError: 'NoneType' object has no attribute 'pad_rank'", (step,)
