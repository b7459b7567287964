"""The widths of a model's tensors on one shard, read once per launch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tgi_advisor.estimate import heads, weights
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.heads import Made
from tgi_advisor.estimate.replay import kernels, pictures, towers
from tgi_advisor.estimate.replay.kernels import Kernel, Way
from tgi_advisor.estimate.replay.pictures import Tower
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.units import KiB, MiB

ROTARY_FREE = frozenset({"gpt2", "gpt_bigcode"})
"""Families that add positions to the embedding instead of turning queries and keys."""
READ = frozenset({
    "llama", "baichuan", "mistral", "qwen2", "gemma", "gemma2", "gemma3_text", "phi3", "granite", "phi", "starcoder2",
    "falcon", "RefinedWeb", "RefinedWebModel", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "cohere", "mixtral", "phimoe",
    "dbrx", "deepseek_v2", "deepseek_v3",
})  # fmt: skip
"""Families whose sequence of allocations is written down in this room."""


FALCON = frozenset({"falcon", "RefinedWeb", "RefinedWebModel"})
"""Families of FlashRWForCausalLM."""
WINDOWED = frozenset({"mistral", "mixtral", "qwen2", "qwen2_vl", "starcoder2"})
"""Families whose class copies what it caches where the configuration has a sliding window."""
LANGUAGE = {
    "gemma3": "gemma3_text", "qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2", "llava_next": "mistral", "idefics2": "mistral",
    "mllama": "mllama", "paligemma": "gemma", "idefics3": "llama",
}  # fmt: skip
"""Vision-language families, and the family their language model's class is."""
LOOKED_AT = {
    "gemma3": (3, 2, 0), "qwen2_vl": (2, 4, 1), "qwen2_5_vl": (3, 1, 1), "mllama": (2, 3, 1), "llava_next": (2, 0, 0),
    "idefics2": (2, 0, 2), "paligemma": (2, 0, 3), "idefics3": (3, 0, 2),
}  # fmt: skip
"""Of them those whose sequence is written down, since which release."""


PACKED = frozenset({"marlin", "awq", "exllama", "gptq"})
"""Kernels of GPTQ's and AWQ's checkpoints, which Idefics' classes load a 16-bit tower beside."""
OWN_LOADERS = frozenset({"gpt2", "gpt_bigcode", "gpt_neox"})
"""Families whose classes load a quantized attention in ways of their own."""


LATENT_KEYS = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
"""Keys of config.json that DeepSeek's class needs."""


HOLDS_EMBEDDING = {
    "llama": (2, 0, 0), "baichuan": (2, 0, 0), "mistral": (2, 0, 0), "granite": (2, 4, 0), "phi3": (2, 0, 0),
    "qwen2": (2, 4, 1), "gemma": (2, 0, 3), "gemma2": (2, 1, 1), "mllama": (2, 3, 1), "phimoe": (2, 3, 1),
}  # fmt: skip
"""Classes whose forward is given the embedded tokens and so keeps them alive to its end, since which release."""
ADDS_APART = (3, 1, 1)
"""Since when the layers of Qwen2's class add to what they were given beside their norms."""


class Latent(NamedTuple):
    """DeepSeek's latent attention, in elements per token (heads of the shard)."""

    query_rank: int
    """Width of the compressed query; 0 where queries are not compressed."""
    rank: int
    """Width of the compressed keys and values."""
    rope: int
    """Turned part of one head."""
    nope: int
    """Unturned part of one head."""
    value: int
    """Value size of one head."""


class Mixture(NamedTuple):
    """A mixture of experts, in elements per token."""

    way: Way
    """How the experts run."""
    expert: int
    """Feed-forward width of one routed expert."""
    shared: int
    """Feed-forward width of the experts every token goes through; 0 without."""
    groups: int
    """Groups the experts are routed by; 0 where all compete."""
    groups_taken: int
    """Groups a token's experts come from."""
    biased: bool
    """Whether a bias corrects the scores that choose (DeepSeek-V3)."""
    renormalized: bool
    """Whether the chosen experts' weights are made to sum to one."""
    scaled: bool
    """Whether the experts' sum is scaled into a tensor of its own (DeepSeek-V2 before 2.3.0)."""
    at_once: int
    """Tokens the fused kernel takes at once; 0: all.

    https://github.com/danieldk/moe-kernels/blob/v0.8.2/moe_kernels/fused_moe.py#L17
    """
    vllm: bool
    """Whether the kernels are vLLM's, before 2.3.0."""
    newest_kernels: bool
    """Whether they are those of 3.1.0 or later."""
    in_fp8: bool
    """Whether the fused kernel takes inputs in fp8."""


class Shapes(NamedTuple):
    """Widths in elements per token, on one shard."""

    g: Geometry
    """The layer sizes every estimate uses."""
    kind: str
    """config.json's model_type; of a vision-language model that of its language model's class."""
    mlp: str
    """Shape of the feed-forward block, as `Family.mlp` names it."""
    rotary: int
    """Half the turned part of a head: the width of one cosine or sine table; 0 without."""
    position_sections: int
    """Positions of one token, of which each part of a head uses one (Qwen2-VL); 0 where a token has one position."""
    flash_one: bool
    """Whether prefills go through flash-attention 1: on compute capability 7.5.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/attention/cuda.py#L196-L223
    """
    sharded: bool
    """Whether the layers are split over several shards."""
    chooses_late: bool
    """Whether every layer chooses among them anew.

    https://github.com/huggingface/text-generation-inference/blob/v3.0.1/server/text_generation_server/models/custom_modeling/flash_qwen2_modeling.py#L130-L139
    """
    grouped: bool
    """Whether queries lie between keys and values of their group and are copied out (Falcon's new decoder)."""
    norms: int
    """Norms of a layer whose attention and feed-forward block work side by side."""
    holds_embedding: bool
    """Whether a class is given the embedded tokens and so keeps them alive to the end of its pass."""
    adds_apart: bool
    """Whether a layer adds to what it was given beside its norms, which leave nothing for the next one."""
    sequential: bool
    """Whether a class that lets attention and the feed-forward block work side by side is told not to.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_neox_modeling.py#L292-L314
    """
    crossed: tuple[int, ...]
    """Numbers of the layers that attend to an image (Mllama)."""
    bias_in: bool
    """Whether the fused query, key and value projection has a bias."""
    bias_out: bool
    """Whether attention's output projection has one."""
    bias_feed_in: bool
    """Whether the feed-forward block's first projection has one."""
    bias_feed_out: bool
    """Whether its last projection has one."""
    head_norms: bool
    """Whether queries and keys are normed head by head (transformers' Qwen3)."""
    turns: tuple[bool, ...]
    """By layer, whether positions turn its queries and keys: in transformers' Cohere 2 where it has a window."""
    copies_query: bool
    """Whether attention is given a copy of the queries.

    https://github.com/huggingface/text-generation-inference/blob/v3.0.1/server/text_generation_server/layers/attention/cuda.py#L234-L235
    """
    window: int | None
    """Tokens of a request whose keys and values are copied before they are cached; None where nothing is copied.

    https://github.com/huggingface/text-generation-inference/blob/v2.0.4/server/text_generation_server/models/custom_modeling/flash_mistral_modeling.py#L217-L220
    """
    kernel: Kernel
    """What multiplies the projections of the layers."""
    attention_kernel: Kernel
    """The same of attention."""
    edge_kernel: Kernel
    """The same of the feed-forward block in the first and the last layer."""
    bfloat16: bool
    """Whether activations are bfloat16, not float16."""
    on_rocm: bool
    """Whether ROCm's linear layer multiplies: the slices of the logits are gathered into a list that is then joined.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/tensor_parallel.py#L82-L121
    """
    adds_in_place: bool
    """Whether a fused norm adds the residual in place: the RMS norm of ROCm since 3.0.2."""
    copies_bias: bool
    """Whether a bias is added into another tensor: on ROCm in float16, 2.3.0 on.

    https://github.com/huggingface/text-generation-inference/blob/v2.3.0/server/text_generation_server/layers/linear.py#L60-L95
    """
    reduces: bool
    """Whether Marlin is asked to reduce in float32: since 2.3.0.

    https://github.com/huggingface/text-generation-inference/blob/v2.3.0/server/text_generation_server/layers/marlin/gptq.py#L410-L425
    """
    cublas: int
    """Bytes of cuBLAS' workspace, taken at the first plain product and kept; 0 on ROCm, where it is outside."""
    cublaslt: int
    """Bytes of cuBLASLt's workspace, taken during every product with a bias."""
    latent: Latent | None
    """DeepSeek's compressed attention; None elsewhere."""
    feed: int
    """Feed-forward width of a layer that is no mixture."""
    mixture: Mixture | None
    """The mixture of experts; None in a dense model."""
    dense_layers: int
    """Layers before the first mixture; all of them in a dense model."""
    tower: Tower | None
    """The vision tower with the warm-up's image; None where there is none, or nothing of it matters."""
    scored: bool
    """Whether a prefill with an image goes through PyTorch's own attention, with a mask of every token."""
    clipped: bool
    """Whether queries, keys and values are clipped, into a copy (DBRX)."""
    heads: Made | None
    """The speculation heads behind the last layer."""


def known(setting: Setting) -> bool:
    """Whether this room knows the sequence of a launch's allocations."""
    return not why_not(setting)


def why_not(setting: Setting) -> str:
    """Why a launch is not replayed, in a few words; empty where it is.

    It is where this room knows the sequence: block KV cache on CUDA, a family in `READ` or transformers' own code. On
    ROCm it is read, not recorded: 16-bit dense models of TGI's own classes since 2.0.4, the first release whose linear
    layer is its own there.
    Without heads, speculation looks for the last tokens in the prompt and takes nothing that counts beside its slots in
    the blocks.
    From 1.0.0 to 1.4.5 no line of the classes changed what they allocate, but for families that came in between.
    """
    family, system = setting.family, setting.facts.gpu.system
    if system not in ("cuda", "rocm"):
        return f"the servers for {system} are not read"
    if not family.paged:
        return _PADDED[family.served_by]
    if found := _heads_not_read(setting):
        return found
    if system == "rocm":
        return _not_on_rocm(setting)
    return _not_by_transformers(setting) if family.served_by == "transformers" else _not_by_tgi(setting)


_PADDED = {
    "padded": "a class for padded batches, warmed up without a KV cache of blocks",
    "seq2seq": "encoder and decoder, warmed up without a KV cache of blocks",
    "mamba": "a state in place of a KV cache",
}
"""Why classes without a block KV cache are not replayed: TGI infers no budget for them."""


def _heads_not_read(setting: Setting) -> str:
    guessing = heads.of(setting)
    if guessing and setting.facts.gpu.system == "rocm":
        return "speculation heads on ROCm are not read"
    if guessing and setting.quantize and guessing.kind == "medusa_joined":
        return "Medusa heads joined to one beside quantized weights are not read"
    return ""


def _not_on_rocm(setting: Setting) -> str:
    family = setting.family
    if setting.facts.release.version < (2, 0, 4):
        return "ROCm before 2.0.4, with PyTorch's linear layers, is not read"
    if kernels.of(setting) != "plain":
        return "quantized weights on ROCm are not read"
    if families.experts(setting.facts.model):
        return "mixtures of experts on ROCm are not read"
    if setting.attention != "paged":
        return f"{setting.attention} on ROCm is not read"
    if family.served_by != "flash" or family.model_type not in READ or family.kv == "mla":
        return "the class is not read on ROCm"
    return ""


def _not_by_transformers(setting: Setting) -> str:
    kernel = kernels.of(setting)
    if families.experts(setting.facts.model):
        return "a mixture of experts in transformers' own class is not read"
    if kernel not in ("plain", "fp8_blocks"):
        return f"{setting.quantize} in transformers' own class is not read"
    if kernel == "fp8_blocks" and setting.num_shard > 1:
        return "fp8 in transformers' own class on several shards is not read"
    return ""


def _not_by_tgi(setting: Setting) -> str:
    family, kernel = setting.family, kernels.of(setting)
    if family.kv == "mla" and any(name not in setting.facts.model.text() for name in LATENT_KEYS):
        return "config.json does not state the latent attention"
    if setting.quantize is None and weights.quantization_config(setting):
        return "a quantized checkpoint that this release cannot read"
    if kernel is None:
        return f"the kernel that multiplies {setting.quantize} weights is not read"
    if kernel != "plain" and family.model_type in OWN_LOADERS:
        return "the class loads quantized attention in a way of its own, which is not read"
    if family.kv == "mla" and kernel not in ("plain", "fp8_blocks"):
        return f"latent attention with {setting.quantize} weights is not read"
    if families.experts(setting.facts.model) and kernels.experts(setting) is None:
        return f"how {setting.quantize} experts run is not read"
    if family.model_type == "gemma3" and setting.attention != "flashinfer" and not scored(setting):
        return f"Gemma 3 on {setting.attention} is not read"
    if family.served_by == "vlm":
        return _not_looked_at(setting, kernel)
    return "" if family.model_type in READ else "the class is not read"


def _not_looked_at(setting: Setting, kernel: Kernel) -> str:
    kind, version = setting.family.model_type, setting.facts.release.version
    since = LOOKED_AT.get(kind)
    if since is None:
        return "the class is not read"
    if version < since:
        return f"the class is read from {'.'.join(map(str, since))} on"
    if kernel != "plain" and not (kernel in PACKED and kind in towers.LAST and version >= (2, 2, 0)):
        return f"{setting.quantize} weights beside a vision tower are not read"
    return "" if pictures.stated(setting) else "config.json does not state every size of the vision tower"


def scored(setting: Setting) -> bool:
    """Whether Gemma 3's prefill with an image makes the scores of every token against every other: before 3.3.0.

    https://github.com/huggingface/text-generation-inference/blob/v3.2.3/server/text_generation_server/models/custom_modeling/flash_gemma3_modeling.py#L251-L306
    """
    return setting.family.model_type == "gemma3" and setting.facts.release.version < (3, 3, 0)


def of(setting: Setting, g: Geometry) -> Shapes:
    """The widths of a launch whose sequence is `known`."""
    model, text = setting.facts.model, setting.facts.model.text()
    kind, tp = setting.family.model_type, setting.num_shard
    names = [group.name for group in model.tensors if not towers.sees(group.name)]
    biases = [name for name in names if name.endswith(".bias")]
    kernel = kernels.of(setting) or "plain"
    routed = families.experts(model)
    sections = pictures.position_sections(setting)
    on_rocm = setting.facts.gpu.system == "rocm"
    language, version = LANGUAGE.get(kind, kind), setting.facts.release.version
    return Shapes(
        g=g,
        kind=language,
        mlp=setting.family.mlp,
        rotary=0 if kind in ROTARY_FREE else _rotary(setting, text) // 2,
        flash_one=not on_rocm and setting.facts.gpu.at_least < (8, 0),
        position_sections=sections,
        sharded=tp > 1,
        chooses_late=bool(sections) and version < (3, 1, 1),
        holds_embedding=language in HOLDS_EMBEDDING and version >= HOLDS_EMBEDDING[language],
        adds_apart=language == "qwen2" and version >= ADDS_APART,
        sequential=_is_sequential(kind, text),
        grouped=kind in FALCON and bool(text.get("new_decoder_architecture")),
        norms=2 if any(".ln_mlp." in name for name in names) else 1,
        crossed=pictures.crossed(setting),
        bias_in=_any(biases, "q_proj.", "qkv_proj.", "query_key_value.", "c_attn.", "Wqkv."),
        bias_out=_any(biases, "o_proj.", "attention.dense.", "attn.c_proj.", "attn.dense.", "attn.out_proj."),
        bias_feed_in=_any(biases, "gate_proj.", "up_proj.", "dense_h_to_4h.", "c_fc.", "fc1.", "fc_in."),
        bias_feed_out=_any(biases, "down_proj.", "dense_4h_to_h.", "mlp.c_proj.", "fc2.", "fc_out."),
        head_norms=any(".self_attn.q_norm." in name for name in names),
        turns=_turns(text, g.layers) if kind == "cohere2" else (True,) * g.layers,
        copies_query=setting.attention == "flashinfer" and (2, 3, 0) <= version <= (3, 0, 1),
        window=_window(setting),
        kernel=kernel,
        attention_kernel="plain" if weights.attention_is_spared(setting) else kernel,
        edge_kernel="plain" if weights.edges_are_spared(setting) else kernel,
        bfloat16=setting.dtype == "bfloat16",
        on_rocm=on_rocm,
        adds_in_place=on_rocm and version >= (3, 0, 2),
        copies_bias=on_rocm and version >= (2, 3, 0) and setting.dtype == "float16",
        reduces=version >= (2, 3, 0),
        cublas=0 if on_rocm else 32 * MiB if setting.facts.gpu.at_least >= (9, 0) else 8320 * KiB,
        cublaslt=0 if on_rocm else MiB,
        latent=_latent(text) if setting.family.kv == "mla" else None,
        feed=(_count(text, "intermediate_size") // tp if routed else 0) or g.intermediate,
        mixture=_mixture(setting, text, g) if routed else None,
        dense_layers=_count(text, "first_k_dense_replace") if routed else g.layers,
        tower=pictures.warmed_up(setting),
        scored=scored(setting),
        clipped=kind == "dbrx" and isinstance(part := text.get("attn_config"), Mapping) and bool(part.get("clip_qkv")),
        heads=heads.of(setting),
    )


def _mixture(setting: Setting, text: Any, g: Geometry) -> Mixture:
    version = setting.facts.release.version
    return Mixture(
        way=kernels.experts(setting) or "fused",
        expert=g.intermediate,
        shared=g.intermediate * _count(text, "n_shared_experts"),
        groups=_count(text, "n_group"),
        groups_taken=_count(text, "topk_group"),
        biased=text.get("topk_method") == "noaux_tc",
        renormalized=bool(text.get("norm_topk_prob", True)),
        scaled=setting.family.kv == "mla" and version < (2, 3, 0),
        at_once=32768 if version >= (2, 3, 0) else 0,
        vllm=version < (2, 3, 0),
        newest_kernels=version >= (3, 1, 0),
        in_fp8=kernels.of(setting) == "fp8_blocks",
    )


def _count(text: Mapping[str, Any], name: str) -> int:
    """A number of the configuration; 0 where it states none."""
    value = text.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _any(names: list[str], *parts: str) -> bool:
    return any(part in name for name in names for part in parts)


def _rotary(setting: Setting, text: Any) -> int:
    """Elements of a head that are turned.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_neox_modeling.py#L108
    """
    if setting.family.kv == "mla":
        return int(text["qk_rope_head_dim"])
    if text.get("rotary_dim"):
        return int(text["rotary_dim"])
    share = text.get("partial_rotary_factor") or text.get("rotary_pct") or 1
    return int(families.head_size(setting.facts.model, setting.family) * float(share))


def _turns(text: Any, layers: int) -> tuple[bool, ...]:
    """Cohere 2's layers but every fourth.

    https://github.com/huggingface/transformers/blob/v4.51.3/src/transformers/models/cohere2/modeling_cohere2.py#L197-L201
    """
    pattern = int(text.get("sliding_window_pattern") or 4)
    return tuple((number + 1) % pattern != 0 for number in range(layers))


def _is_sequential(kind: str, text: Any) -> bool:
    if kind == "gpt_neox":
        return text.get("use_parallel_residual") is False
    return kind in FALCON and not text.get("new_decoder_architecture") and text.get("parallel_attn") is False


def _window(setting: Setting) -> int | None:
    """The sliding window the class cuts the cached keys and values to: 3.2.0 was the last release that did.

    Qwen 2's configuration hands on a window that is switched off up to transformers 4.41 (TGI 2.1.1).
    https://github.com/huggingface/text-generation-inference/blob/v3.2.0/server/text_generation_server/models/flash_causal_lm.py#L1067-L1074
    https://github.com/huggingface/transformers/blob/v4.41.1/src/transformers/models/qwen2/configuration_qwen2.py#L121-L122
    """
    kind, version = setting.family.model_type, setting.facts.release.version
    if kind not in WINDOWED or version > (3, 2, 0):
        return None
    if kind == "qwen2" and version >= (2, 2, 0) and not setting.facts.model.config.get("use_sliding_window"):
        return None
    return families.sliding_window(setting.facts.model)


def _latent(text: Any) -> Latent:
    return Latent(int(text.get("q_lora_rank") or 0), *(int(text[name]) for name in LATENT_KEYS))
