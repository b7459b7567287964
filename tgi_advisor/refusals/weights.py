"""What the shards refuse while they load the weights: splitting them, and their quantization."""

from __future__ import annotations

from collections.abc import Mapping

from tgi_advisor.estimate.defaults import ShardFault, legal_shards, shard_fault
from tgi_advisor.estimate.replay.towers import sees
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.weights import on_marlin, on_own_layers
from tgi_advisor.facts import families
from tgi_advisor.once import remembered
from tgi_advisor.refusals.rules import Case, Found, Rule, Version, rule

WEIGHTS: list[Rule] = []
"""In the order a shard meets them."""


# ---- splitting the weights ----


@rule(WEIGHTS, "load", "S/models/custom_modeling/flash_llama_modeling.py@v3.3.7:167")
def heads_not_divisible(case: Case) -> Found:
    """Every shard holds the same number of attention heads."""
    setting = case.setting
    fault = _fault(setting)
    if fault is None or fault.code != "heads" or setting.family.served_by == "transformers":
        return None
    name = _HEAD_NAMES.get(setting.family.model_type, "num_heads")
    return _not_divisible(setting, name, fault.size)


_HEAD_NAMES = {"t5": "n_heads", "mpt": "n_heads"}


@rule(
    WEIGHTS,
    "load",
    "S/models/custom_modeling/flash_llama_modeling.py@v3.3.7:172",
    since=(2, 1, 0),
)
def kv_heads_not_divisible(case: Case) -> Found:
    """Llama's class wants the same number of key/value heads on every shard."""
    fault = _fault(case.setting)
    if fault is None or fault.code != "kv_heads":
        return None
    return _not_divisible(case.setting, "num_key_value_heads", fault.size)


@rule(WEIGHTS, "load", "S/models/custom_modeling/flash_qwen2_modeling.py@v3.3.7:119")
def kv_heads_lost(case: Case) -> Found:
    """The shards would not hold all key/value heads: TGI divides without a check of its own and then trips over the
    shapes, mostly without a message.
    """
    setting = case.setting
    fault = _fault(setting)
    if fault is None or fault.code != "kv_heads_lost":
        return None
    shards, family = setting.num_shard, setting.family
    rows = fault.size * families.head_size(setting.facts.model, family)
    if rows % shards and setting.quantize != "awq" and family.served_by != "transformers":
        kind = f"AssertionError: The choosen size {rows} is not compatible with sharding on {shards} shards"
    elif fault.size > shards or _checks_shape(family.model_type, case.version):
        kind = "AssertionError"
    else:
        kind = "ZeroDivisionError: integer division or modulo by zero"
    return kind, _fewer_shards(setting, f"{fault.size} key/value heads over {shards} shards")


_CHECKED = frozenset(
    {"cohere", "gemma", "gemma2", "gemma3", "gemma3_text", "mixtral", "phi", "gpt_bigcode", "starcoder2"}
)


def _checks_shape(kind: str, version: Version) -> bool:
    """Whether the class holds the fused projection against the shape it expects, before it divides by the heads."""
    until = {"mistral": (2, 0, 4), "qwen2": (2, 0, 4), "llama": (2, 0, 2), "baichuan": (2, 0, 2), "phi3": (2, 0, 2)}
    return kind in _CHECKED or version <= until.get(kind, (0, 0, 0))


@rule(WEIGHTS, "load", "S/models/custom_modeling/flash_rw_modeling.py@v3.3.7:490-518", since=(2, 0, 3))
def falcon_norms(case: Case) -> Found:
    """Since Falcon 2, TGI reads the number of norms of a layer off config.json, where Falcon 40B does not state it.

    https://github.com/huggingface/text-generation-inference/issues/2349
    """
    model, family = case.setting.facts.model, case.family
    large = family.model_type in FALCON and model.text().get("new_decoder_architecture")
    if not large or not _own_loader(case.setting) or model.config.get("num_ln_in_parallel_attn") in (1, 2):
        return None
    if case.version >= (2, 3, 0) and families.layers(model) == LAYERS_OF_180B:
        return None
    text = "ValueError: Number of layer norms can either be 1 or 2."
    if case.version < (2, 3, 0):
        text = "AttributeError: 'RWConfig' object has no attribute 'num_ln_in_parallel_attn'"
    return text, ("use TGI 2.0.2, or a copy whose config.json says num_ln_in_parallel_attn: 2",)


LAYERS_OF_180B = 80
"""Layers by which TGI recognizes Falcon 180B, whose norms it knows from 2.3.0 on."""
FALCON = frozenset({"falcon", "RefinedWeb", "RefinedWebModel"})


@rule(WEIGHTS, "load", "S/models/custom_modeling/flash_santacoder_modeling.py@v3.3.7:189")
def bigcode_heads(case: Case) -> Found:
    """GPTBigCode's class reads one key/value head for all queries, and checks it; several (multi_query: false) fail."""
    setting, model = case.setting, case.setting.facts.model
    several = case.family.model_type == "gpt_bigcode" and model.text().get("multi_query") is False
    if not several or setting.quantize == "gptq" or not _own_loader(setting):
        return None
    heads, hidden, shards = families.heads(model), families.hidden(model), setting.num_shard
    size = hidden // heads
    rows, expected = (3 * hidden - 2 * size) // shards + 2 * size, (heads // shards + 2) * size
    text = f"AssertionError: torch.Size([{rows}, {hidden}]) != [{expected}, {hidden}]"
    return text, ("use a checkpoint with multi_query, as StarCoder's: TGI serves no other of this class",)


@rule(WEIGHTS, "load", "S/models/custom_modeling/flash_rw_modeling.py@v3.3.7:272")
def falcon_groups(case: Case) -> Found:
    """The large Falcon models split by groups of heads."""
    setting = case.setting
    fault = _fault(setting)
    if fault is None or fault.code != "groups":
        return None
    text = (
        "world_size > n groups"
        if setting.num_shard > fault.size
        else f"{fault.size} not divisible by {setting.num_shard}"
    )
    steps = _fewer_shards(setting, f"{fault.size} groups")
    return f"NotImplementedError: Tensor Parallelism is not implemented for {text}", steps


@rule(WEIGHTS, "load", "S/utils/weights.py@v3.3.7:276")
def size_not_divisible(case: Case) -> Found:
    """A weight is split evenly over the shards, as are the scale groups of a gptq or awq checkpoint."""
    setting = case.setting
    fault = _fault(setting)
    if fault is None or fault.code not in ("intermediate", "scales") or setting.family.served_by == "transformers":
        return None
    word = "chosen" if setting.family.model_type in ("mixtral", "dbrx") else "choosen"  # TGI's spelling
    text = f"The {word} size {fault.size} is not compatible with sharding on {setting.num_shard} shards"
    what = "scale groups of the feed-forward block" if fault.code == "scales" else "feed-forward width"
    return f"AssertionError: {text}", _fewer_shards(setting, f"{what} {fault.size}")


@remembered
def _fault(setting: Setting) -> ShardFault | None:
    if not setting.family.supported or not setting.family.shards:
        return None  # refused as a whole already
    return shard_fault(setting.facts.model, setting.family, setting.num_shard, setting.quantize)


def _not_divisible(setting: Setting, name: str, size: int) -> Found:
    shards = setting.num_shard
    text = f"ValueError: `{name}` must be divisible by `num_shards` (got `{name}`: {size} and `num_shards`: {shards}"
    return text, _fewer_shards(setting, f"{size} heads")


OF_SHARDS = frozenset(
    {"heads-not-divisible", "kv-heads-not-divisible", "kv-heads-lost", "falcon-groups", "size-not-divisible"}
)
"""Refusals of a shard count, whose next step names those that work."""
USUAL_MOST = 8
"""GPUs of the largest machines that are rented out: shard counts up to it are named even where there are fewer."""


def _fewer_shards(setting: Setting, what: str) -> tuple[str, ...]:
    most = max(USUAL_MOST, setting.facts.gpu_count, setting.num_shard)
    legal = legal_shards(setting.facts.model, setting.family, most, setting.quantize)
    return (f"{what}: shard counts that work here are {', '.join(map(str, legal))}",)


# ---- quantization ----


@rule(WEIGHTS, "load", "S/layers/marlin/util.py@v3.3.7:26", since=(2, 1, 0))
def marlin_needs_ampere(case: Case) -> Found:
    """Marlin kernels need compute capability 8.0."""
    gpu = case.setting.facts.gpu
    if case.setting.quantize != "marlin" or (gpu.system == "cuda" and gpu.at_least >= (8, 0)):
        return None
    text = "Using quantized Marlin models requires a GPU with CUDA capability 8.0 or later."
    return f"NotImplementedError: {text}", ("use a gptq checkpoint on this GPU",)


@rule(WEIGHTS, "load", "S/layers/fp8.py@v3.3.7:44", since=(2, 0, 0))
def fp8_needs_ampere(case: Case) -> Found:
    """fp8 weights need compute capability 8.0 (8.9 before 2.2.0). TGI does not check: its kernel fails."""
    setting = case.setting
    gpu, version = setting.facts.gpu, setting.facts.release.version
    least = (8, 9) if version < (2, 2, 0) else (8, 0)
    if setting.quantize != "fp8" or gpu.system != "cuda" or gpu.at_least >= least or not _own_loader(setting):
        return None
    needs = ".".join(map(str, least))
    return f"RuntimeError in the fp8 kernel (it needs compute capability {needs})", (
        "use eetq or bitsandbytes on this GPU, or a gptq or awq checkpoint",
    )


@rule(WEIGHTS, "load", "S/layers/gptq/__init__.py@v3.3.7:41", since=(1, 4, 1))
def awq_on_rocm(case: Case) -> Found:
    """The AWQ kernel is CUDA only; ROCm converts AWQ weights when it is told they are gptq."""
    if case.setting.quantize == "awq" and case.setting.facts.gpu.system == "rocm":
        text = "AWQ GEMM kernel can't be used on ROCm systems, please use `--quantize gptq` instead"
        return f"NotImplementedError: {text}", ("set model.quantize: gptq",)
    return None


@rule(WEIGHTS, "load", "S/utils/quantization.py@v3.3.7:211", since=(3, 1, 0))
def fbgemm_fp8(case: Case) -> Found:
    """From 3.1.0 on the loader reads a field that the configuration of fbgemm_fp8 checkpoints does not have."""
    if quant_method(case.setting) != "fbgemm_fp8" or case.setting.quantize != "fp8" or not _own_loader(case.setting):
        return None
    text = "AttributeError: '_FP8QuantizerConfig' object has no attribute 'weight_block_size'"
    return text, ("use TGI 3.0.2, or an fp8 or compressed-tensors checkpoint of the model",)


@rule(WEIGHTS, "load", "S/models/flash_gemma.py@v2.0.4:60", since=(2, 0, 3), until=(2, 0, 4))
def gemma_prefix(case: Case) -> Found:
    """2.0.3 and 2.0.4 look for Gemma's weights under the names PaliGemma stores its language model's by."""
    if case.family.model_type != "gemma" or not _own_loader(case.setting):
        return None
    text = "RuntimeError: weight language_model.model.embed_tokens.weight does not exist"
    return text, ("use TGI 2.0.2, 2.1.0 or newer",)


@rule(WEIGHTS, "load", "S/utils/quantization.py@v3.3.7:141", since=(2, 2, 0))
def packed_config_mismatch(case: Case) -> Found:
    """--quantize names a packed format, but the checkpoint is fbgemm_fp8."""
    quantize = case.setting.quantize
    if quantize not in ("awq", "gptq", "marlin") or quant_method(case.setting) != "fbgemm_fp8":
        return None
    text = f"ValueError: Quantize is set to `{quantize}` but received a `_FP8QuantizerConfig` config."
    return text, ("leave out model.quantize",)


@rule(WEIGHTS, "load", "S/layers/moe/fp8.py@v3.3.7:119", since=(2, 3, 0))
def fp8_experts(case: Case) -> Found:
    """--quantize fp8 does not quantize a mixture's experts: their loader wants 16-bit weights until 3.0.2, and from
    3.1.0 on the scales a checkpoint in fp8 has.

    S/layers/moe/unquantized.py@v2.3.0:83.
    """
    setting = case.setting
    if setting.quantize != "fp8" or setting.family.model_type not in _ON_EXPERT_LAYERS or case.system != "cuda":
        return None
    if case.version < (3, 1, 0):
        return "AssertionError: assert isinstance(weight, UnquantizedWeight)", ("use an awq or gptq checkpoint",)
    if quant_method(setting) == "fp8":
        return None
    text = "AttributeError: 'NoneType' object has no attribute 'shape'"
    return text, ("leave out model.quantize, or use an fp8, awq or gptq checkpoint",)


_ON_EXPERT_LAYERS = ("mixtral", "phimoe", "deepseek_v2", "deepseek_v3")
"""Model types whose classes run their experts on layers/moe."""


@rule(WEIGHTS, "load", "S/layers/gptq/__init__.py@v3.3.7:271")
def not_quantized(case: Case) -> Found:
    """--quantize gptq, awq, exl2 and marlin want a checkpoint that is stored so; they do not quantize one."""
    setting = case.setting
    quantize = setting.quantize
    if quantize not in ("gptq", "awq", "exl2", "marlin") or not _own_loader(setting):
        return None
    if _is_packed(setting) is not False:
        return None
    text = f"Cannot load `{quantize}` weight, make sure the model is already quantized"
    if quantize == "exl2":
        text = "Cannot load `exl2`-quantized weight, make sure the model is already quantized."
    elif setting.facts.release.version < (1, 1, 0):
        text += ", or quantize it with `text-generation-server quantize ORIGINAL_MODEL_ID NEW_MODEL_ID`"
    return f"RuntimeError: {text}", (
        f"use a checkpoint stored as {quantize}, or a method that quantizes on the fly: eetq, fp8, bitsandbytes",
    )


_STOPPED = frozenset({"qwen2_vl", "qwen2_5_vl"})
"""Families whose tower has queries, keys and values in one tensor; the loader's words end with a stop there."""
_LIKE_THE_TEXT = _STOPPED | {"llava_next", "paligemma", "gemma3", "mllama"}
"""Vision-language families whose tower is read by the loader of the language model; Idefics' classes have another."""
_LEAVES_MODULES_OUT = (3, 2, 0)
"""Since when the loader for GPTQ and AWQ looks at `modules_to_not_convert`; the one for Marlin never does."""


@rule(WEIGHTS, "load", "S/layers/marlin/gptq.py@v3.3.7:122,159", since=(2, 0, 0))
def tower_not_packed(case: Case) -> Found:
    """AWQ and GPTQ checkpoints leave the vision tower in 16 bit, and the loader for Marlin does not look at
    `modules_to_not_convert`: it wants the tower packed as well. Before 3.2.0 no loader looks at it.
    """
    setting = case.setting
    if setting.family.model_type not in _LIKE_THE_TEXT or setting.quantize not in ("awq", "gptq"):
        return None
    if case.system not in ("cuda", "rocm") or not (on_marlin(setting) or case.version < _LEAVES_MODULES_OUT):
        return None
    tower = [group.name for group in setting.facts.model.tensors if sees(group.name)]
    if not tower or any(name.endswith(_PACKED_ENDS) for name in tower):
        return None
    stop = "." if setting.family.model_type in _STOPPED else ""
    text = f"RuntimeError: Cannot load `{setting.quantize}` weight, make sure the model is already quantized{stop}"
    return text, ("use the 16-bit checkpoint",)


@rule(WEIGHTS, "load", "S/utils/weights.py@v3.3.7:192")
def packed_without_quantize(case: Case) -> Found:
    """The checkpoint holds packed weights, but TGI does not know how to read them and looks for plain ones. It finds
    out by itself from 2.0.0 on (exl2: 2.1.0, compressed-tensors: 2.4.1), if config.json says so.
    """
    setting = case.setting
    if setting.quantize is not None or not _own_loader(setting) or not _is_packed(setting):
        return None
    names = (group.name for group in setting.facts.model.tensors if group.name.endswith(_PACKED_ENDS))
    stem = next(names, "model.layers.*.self_attn.q_proj.qweight").replace("*", "0").rpartition(".")[0]
    method = quant_method(setting) or "gptq"
    fits = method in case.release.quantize
    step = f"set model.quantize: {method}" if fits else f"use a TGI release that knows {method}"
    return f"RuntimeError: weight {stem}.weight does not exist", (step,)


_PACKED_ENDS = (".qweight", ".q_weight", ".B", ".weight_packed")


def quant_method(setting: Setting) -> str | None:
    """quantization_config.quant_method of the checkpoint."""
    stored = setting.facts.model.config.get("quantization_config")
    method = stored.get("quant_method") if isinstance(stored, Mapping) else None
    return method if isinstance(method, str) else None


def _is_packed(setting: Setting) -> bool | None:
    """Whether the checkpoint holds packed weights; None when its tensors are not known."""
    if quant_method(setting) in ("gptq", "awq", "exl2", "marlin"):
        return True
    tensors = setting.facts.model.tensors
    return any(group.name.endswith(_PACKED_ENDS) for group in tensors) if tensors else None


def _own_loader(setting: Setting) -> bool:
    """Whether TGI's own classes read the weights, not transformers'."""
    return setting.family.supported and on_own_layers(setting)
