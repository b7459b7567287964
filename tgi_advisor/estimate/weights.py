"""Bytes of the weights one tensor parallel shard loads.

Exact where the checkpoint's tensor headers are known: every tensor is given the role TGI's layers
give it (split by column or row, replicated, embedding, head, never loaded) and counted in the dtype
TGI holds it in.

Sources, all at v3.3.7 unless said otherwise:
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/tensor_parallel.py
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/weights.py
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.facts.model import DTYPE_BITS, TensorGroup
from tgi_advisor.units import human

Role = Literal["column", "row", "embedding", "head", "replicated", "unused", "unknown"]

ON_THE_FLY = frozenset({"bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4", "eetq", "fp8"})
"""Methods that quantize 16-bit weights while loading; all others read a checkpoint packed beforehand."""

LLAMA_CLASS = frozenset({"llama", "phi3", "granite", "baichuan"})
"""Model types served by FlashLlamaForCausalLM."""

OWN_PADDED = frozenset({"bloom", "mpt", "opt", "idefics", "gpt_neox"})
"""Padded families that TGI has layers of its own for; the others run on transformers' classes."""

_TOWER = ("vision_tower.", "vision_model.", "model.vision_tower.", "model.vision_model.")
_RULES: tuple[tuple[Role, tuple[str, ...], tuple[str, ...]], ...] = (
    # role, what the name begins with, and what else stands in it: a dot is the end of a word, `^` and `$` of the name.
    # No patterns, which take longer to compile than a model to load. Buffers and heads of training come first, that
    # TGI never asks for, then a layer past the last, such as DeepSeek-V3's prediction layer.
    (
        "unused", ("",),
        ("rotary_emb.inv_freq", "masked_bias", ".attn.bias", "attention.bias", "^.encoder.embed_tokens.",
         "^.decoder.embed_tokens.", *(f"^.model.layers.{digit}" for digit in range(10))),
    ),
    ("head", ("",), (".lm_head.", ".embed_out.")),
    (
        "embedding", ("",),
        (".embed_tokens.weight", ".wte.weight", ".wpe.weight", ".word_embeddings.weight", ".embed_in.weight",
         ".tok_embeddings.weight", ".shared.weight", "^.backbone.embedding.", "^.backbone.embeddings."),
    ),
    (
        "embedding", _TOWER,
        ("position_embedding.weight", "tile_embedding.weight", "tile_positional_embedding.embedding.weight"),
    ),
    ("column", ("",), ("norm_attn_norm.attn.Wqkv.", "^.multi_modal_projector.linear.")),
    ("row", ("",), ("norm_attn_norm.attn.out_proj.",)),
    (
        "replicated", ("",),  # although some look like projections
        ("q_a_proj.", "kv_a_proj_with_mqa.", ".gate.", "router.", "norm", ".mixer.", "modality_projection.proj.",
         "position", "patch_emb", "class_embedding", "tile_", "latents", "relative_attention", "additional_",
         "mm_input_projection", "^.multi_modal_projector.weight", "^.multi_modal_projector.bias", "image_newline",
         "alpha_", "_gate.$", ".gate_attn", ".gate_ffn",
         *(f"{before}ln{after}" for before in "._" for after in "._0123456789")),
    ),
    (
        "row", ("",),
        ("o_proj.", "down_proj.", "out_proj.", "dense.", "dense_4h_to_h.", "c_proj.", "fc2.", "fc_out.", "w2.", "wo.",
         "linear_2.", "attn.proj.", "output_proj.", "SelfAttention.o.", "EncDecAttention.o.", "merger.mlp.2."),
    ),
    (
        "column", ("",),
        ("q_proj.", "k_proj.", "v_proj.", "qkv_proj.", "q_b_proj.", "kv_b_proj.", "query_key_value.", "c_attn.",
         "Wqkv.", "W_pack.", "attn.qkv.", "gate_proj.", "up_proj.", "gate_up_proj.", "dense_h_to_4h.", "c_fc.", "fc1.",
         "fc_in.", "fc.", "w1.", "w3.", "v1.", "wi.", "wi_0.", "wi_1.", "linear_1.", "merger.mlp.*.",
         *(f"{kind}.{word}." for kind in ("SelfAttention", "EncDecAttention") for word in "qkv")),
    ),
)  # fmt: skip


@lru_cache(maxsize=4096)
def role(name: str) -> Role:
    """What TGI does with a tensor of this (grouped) name; `unknown` for names no rule covers."""
    framed = f"^.{name}.$"
    for kind, beginnings, texts in _RULES:
        if name.startswith(beginnings) and any(text in framed for text in texts):
            return kind
    return "unknown"


class Loaded(NamedTuple):
    """Weights of the shard that holds most."""

    parts: tuple[Part, ...]
    """Weights, and the second copy of tied embeddings where there is one."""
    total: int
    """Their sum in bytes."""


_IN_FLOAT32 = (".weight_scale", "DenseReluDense.wo.", ".A_log")
"""In tensors TGI holds in float32: scales of fp8 weights, T5's last projections, Mamba's transition matrices."""
TWICE = ".dt_proj.weight"
"""The end of what a class loads twice: Mamba's time step projection, with and without its bias."""


def _is_in_float32(name: str) -> bool:
    return any(text in name for text in _IN_FLOAT32)


def held_bits(group: TensorGroup, dtype: str, own: bool = True) -> int:
    """Bits per element TGI holds a tensor in: floats get the launch's dtype, packed integers and fp8 stay.

    `own`: in layers of TGI's own; transformers' classes make no exception.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/weights.py#L226-L246
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/fp8.py#L459
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/t5_modeling.py#L126-L196
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/mamba_modeling.py#L71-L87
    https://github.com/huggingface/transformers/blob/v4.51.3/src/transformers/modeling_utils.py#L677-L710
    """
    if group.dtype not in ("F64", "F32", "F16", "BF16"):
        return DTYPE_BITS[group.dtype]
    single = own and _is_in_float32(group.name) and not _scales_groups(group)
    return 32 if dtype == "float32" or single else 16


def _scales_groups(group: TensorGroup) -> bool:
    """Whether these are compressed-tensors' scales of packed integers: several for each row.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/compressed_tensors/wna16_int.py#L115-L118
    """
    return group.name.endswith(".weight_scale") and len(group.shape) == 2 and group.shape[1] > 1


def quantized_bits(method: str) -> float:
    """Bits per weight of a method that quantizes while loading, scales per row aside.

    bitsandbytes 4 bit: half a byte, one absmax byte per 64 values and a float per 256 of those
    (`compress_statistics`); the 8-bit methods: one byte.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/bnb.py#L91-L101
    """
    return 4 + 8 / 64 + 32 / (64 * 256) if method in ("bitsandbytes-nf4", "bitsandbytes-fp4") else 8


def head_is_split(setting: Setting, vocabulary: int) -> bool:
    """Whether every shard holds a part of the output matrix; a vocabulary that does not divide is on each as a whole.

    So it is in transformers' own classes: their plan for it is the class's, which the configuration's plan replaces.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/tensor_parallel.py#L56-L66
    https://github.com/huggingface/transformers/blob/v4.51.3/src/transformers/modeling_utils.py#L1917-L1922
    """
    return vocabulary % setting.num_shard == 0 and setting.family.served_by != "transformers"


def on_own_layers(setting: Setting) -> bool:
    """Whether TGI's layers hold the weights; transformers' classes load tied embeddings once and pad no table."""
    family = setting.family
    if family.automodel or family.model_type == "llama4":
        return False
    return family.served_by not in ("padded", "transformers") or family.model_type in OWN_PADDED


def _on_the_fly(setting: Setting) -> str | None:
    """The method that quantizes while the weights load; None where none does."""
    methods = ON_THE_FLY if on_own_layers(setting) else {"bitsandbytes"}
    return setting.quantize if setting.quantize in methods else None


def on_marlin(setting: Setting) -> bool:
    """Whether GPTQ or AWQ weights are repacked for Marlin: 4 and 8 bit on capability 8.0, AWQ since 2.2.0.

    GPTQ since 2.1.1, where it is symmetric.
    https://github.com/huggingface/text-generation-inference/blob/v2.1.1/server/text_generation_server/layers/marlin.py#L25-L37
    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/layers/marlin.py#L170-L184
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/marlin/gptq.py#L39-L55
    """
    gpu, stored, version = setting.facts.gpu, quantization_config(setting), setting.facts.release.version
    if setting.quantize not in ("awq", "gptq") or gpu.system != "cuda" or gpu.at_least < (8, 0):
        return False
    if setting.quantize == "awq":
        possible = version >= (2, 2, 0)
    else:
        possible = version >= (2, 1, 1) and bool(stored.get("sym", True))
    return possible and stored.get("bits", 4) in (4, 8) and stored.get("group_size", 128) in (-1, 32, 64, 128)


def quantization_config(setting: Setting) -> Mapping[str, Any]:
    """The checkpoint's own `quantization_config`; empty where it has none."""
    stored = setting.facts.model.text().get("quantization_config")
    return stored if isinstance(stored, Mapping) else {}


def _left_out(group: TensorGroup, setting: Setting) -> bool:
    """Whether a quantized checkpoint holds the tensor and the layer made of it does not.

    Marlin drops the zero points of symmetric GPTQ, and its order of rows where there is none; Llama's class
    reads no biases, which some converters store as zeros.
    """
    kind = group.name.rpartition(".")[2]
    if kind == "qzeros" or (kind == "g_idx" and not quantization_config(setting).get("desc_act")):
        return setting.quantize == "gptq" and on_marlin(setting)
    config = setting.facts.model.text()
    biased = config.get("attention_bias") or config.get("mlp_bias")
    return setting.family.model_type == "llama" and group.name.endswith("_proj.bias") and not biased


def _quantizes_head(method: str, setting: Setting) -> bool:
    """Until 2.1.1 bitsandbytes and fp8 quantize the lm_head as well.

    https://github.com/huggingface/text-generation-inference/blob/v2.1.1/server/text_generation_server/layers/tensor_parallel.py#L70-L81
    """
    return setting.facts.release.version < (2, 2, 0) and method != "eetq"


def _mqa_replicated(group: TensorGroup, setting: Setting) -> int:
    """Rows of a fused projection that hold the one KV head every shard keeps a copy of."""
    if setting.num_shard == 1 or not group.shape:
        return 0
    fused = "c_attn" in group.name or "query_key_value" in group.name
    if not fused or families.kv_heads(setting.facts.model) != 1:
        return 0
    return 2 * families.head_size(setting.facts.model, setting.family)


def _times(group: TensorGroup, setting: Setting) -> int:
    """How many tensors of the group are loaded.

    Of CLIP's tower, LLaVA-NeXT makes the layers up to the one it takes features of, and no norm after them.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/llava_next.py#L116-L123
    """
    if setting.family.model_type == "llava_next" and on_own_layers(setting) and group.name.startswith("vision_tower."):
        if ".post_layernorm." in group.name:
            return 0
        layer = setting.facts.model.config.get("vision_feature_layer", -2)
        if ".layers.*." in group.name and isinstance(layer, int):
            return min(group.count, max(0, group.count + layer + 1 if layer < 0 else layer + 1))
    return group.count * (2 if group.name.endswith(TWICE) else 1)


def _is_whole_in_row(group: TensorGroup, setting: Setting) -> bool:
    """Whether every shard holds the whole tensor although its projection is split by rows.

    A bias; and scales and zero points of GPTQ weights whose rows are out of order, or all of one group.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/marlin/gptq.py#L205-L220
    https://github.com/huggingface/text-generation-inference/blob/v1.4.5/server/text_generation_server/utils/weights.py#L330-L335
    """
    stored, kind = quantization_config(setting), group.name.rpartition(".")[2]
    grouped = kind in ("scales", "qzeros") and setting.quantize == "gptq"
    return kind == "bias" or (grouped and bool(stored.get("desc_act") or stored.get("group_size") == -1))


class Held(NamedTuple):
    """One group of tensors as the shard holds it."""

    group: TensorGroup
    """The group in the checkpoint."""
    kind: Role
    """What TGI's layers do with it."""
    times: int
    """How many of them are loaded."""
    bytes: int
    """Bytes of all of them on the shard, scales of a quantization while loading included."""
    read: int
    """Bytes of one of them as it is read, before anything is quantized."""

    @property
    def each(self) -> int:
        """Bytes of one of them."""
        return self.bytes // self.times


def held(setting: Setting) -> list[Held]:
    """What the shard (of rank 0, which also holds the row-parallel biases) holds of every group it loads."""
    model, tp = setting.facts.model, setting.num_shard
    own = on_own_layers(setting)
    shares_table = not own and bool(model.text().get("tie_word_embeddings"))
    on_the_fly = _on_the_fly(setting)
    quantized = {"column", "row"} | ({"head"} if own and on_the_fly and _quantizes_head(on_the_fly, setting) else set())
    rows = []
    for group in model.tensors:
        kind = role(group.name)
        if kind == "unused" or (kind == "head" and shares_table) or _left_out(group, setting):
            continue
        elements = float(group.elements)
        count = _times(group, setting)
        if not count:
            continue
        bits = float(held_bits(group, setting.dtype, own or setting.family.served_by != "transformers"))
        scales = 0.0
        if tp > 1:
            if kind == "embedding" and own:
                elements *= -(-group.shape[0] // tp) / group.shape[0]
            elif kind == "head":
                elements /= tp if head_is_split(setting, group.shape[0]) else 1
            elif kind == "column" or (kind == "row" and not _is_whole_in_row(group, setting)):
                kept = _mqa_replicated(group, setting)
                width = group.shape[0] or 1
                elements *= ((width - kept) / tp + kept) / width
        read = round(elements * bits / 8)
        if on_the_fly and kind in quantized and _is_matrix(group):
            exempt = _sixteen_bit_share(setting, group)
            scales = count * (1 - exempt) * group.shape[0] / (tp if kind == "column" else 1) * 4
            bits = exempt * bits + (1 - exempt) * quantized_bits(on_the_fly)
        size = round(count * elements * bits / 8 + scales)
        rows.append(Held(group, kind, count, size, read))
    return rows


def tied_head(setting: Setting) -> int:
    """Bytes of the lm_head of a shard that is a second copy of the embedding; 0 where there is no embedding."""
    model, method = setting.facts.model, _on_the_fly(setting)
    tables = [group.elements for group in model.tensors if role(group.name) == "embedding"]
    shards = setting.num_shard if head_is_split(setting, families.vocab(model)) else 1
    bits = quantized_bits(method) if method and _quantizes_head(method, setting) else 16
    return round(max(tables, default=0) / shards * bits / 8)


def shard(setting: Setting) -> Loaded:
    """Weights of one shard (of rank 0, which also holds the row-parallel biases)."""
    model, tp = setting.facts.model, setting.num_shard
    own = on_own_layers(setting)
    on_the_fly = _on_the_fly(setting)
    total = unknown = head = embedding = 0
    for group, kind, _, size, _ in held(setting):
        total += size
        if kind == "embedding":
            embedding = max(embedding, group.elements)
            if own:
                total += group.shape[-1] * 2  # the zero row masked tokens point at
        elif kind == "head":
            head += size
        elif kind == "unknown":
            unknown += size
    why = f"{human(model.stored_bytes)} stored in {_dtypes(model.tensors)}, one of {tp} shards" if tp > 1 else (
        f"{human(model.stored_bytes)} stored in {_dtypes(model.tensors)}"
    )  # fmt: skip
    if on_the_fly:
        why += f", quantized to {on_the_fly} while loading"
    if unknown and tp > 1:
        why += f"; {human(unknown)} of tensors with names we do not know are counted whole on every shard"
    parts = [Part("weights", total, "exact", why)]
    if not head and embedding and own:
        parts.append(Part("tied lm_head", tied_head(setting), "exact", "tied embeddings are loaded a second time"))
    return Loaded(tuple(parts), sum(part.bytes for part in parts))


def _is_matrix(group: TensorGroup) -> bool:
    """Whether the group is a plain 16- or 32-bit matrix that can be quantized while loading."""
    stored = len(group.shape) == 2 and group.dtype in ("F16", "BF16", "F32")
    return stored and not _is_in_float32(group.name)


def _sixteen_bit_share(setting: Setting, group: TensorGroup) -> float:
    """Share of a group that `fp8` leaves in 16 bit."""
    if not _spares(setting):
        return 0.0
    return 1.0 if "attn." in group.name else min(1.0, 2 / group.count)


def _spares(setting: Setting) -> bool:
    """Whether `fp8` leaves attention and the first and last layer in 16 bit: in Llama's class.

    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/models/custom_modeling/flash_llama_modeling.py#L75
    """
    llama = setting.family.model_type in LLAMA_CLASS and setting.facts.release.version >= (2, 2, 0)
    return setting.quantize == "fp8" and llama


def attention_is_spared(setting: Setting) -> bool:
    """Whether attention's projections stay in 16 bit although the launch quantizes to fp8."""
    return _spares(setting) and not any(count for name, count in _in_fp8(setting).items() if "attn." in name)


def edges_are_spared(setting: Setting) -> bool:
    """Whether the feed-forward blocks of the first and last layer stay in 16 bit, stored so or not."""
    layers = families.layers(setting.facts.model)
    return _spares(setting) and not any(count == layers for name, count in _in_fp8(setting).items() if "mlp." in name)


def _in_fp8(setting: Setting) -> dict[str, int]:
    """The groups of tensors stored in fp8, and how many each has."""
    return {group.name: group.count for group in setting.facts.model.tensors if group.dtype == "F8_E4M3"}


def _dtypes(tensors: tuple[TensorGroup, ...]) -> str:
    """`BF16`, or `I32 and F16`: the dtypes that make up most of a checkpoint."""
    sizes: dict[str, int] = {}
    for group in tensors:
        sizes[group.dtype] = sizes.get(group.dtype, 0) + group.bytes
    everything = sum(sizes.values()) or 1
    main = [name for name, size in sorted(sizes.items(), key=lambda pair: -pair[1]) if size > everything / 100]
    return " and ".join(main)
