"""How much of what others wrote is read: the bounds of every input, in one place.

Each is several times what any published model or real answer needs, so that nothing honest meets it, and small
enough that the worst file costs seconds and some hundred megabytes. Beyond a bound an input is refused by name.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MAX_SPEC = 128 << 10
"""Bytes of a spec. One with every field set has about 2 KiB."""
MAX_DEPLOYMENT = 4 << 20
"""Bytes of a deployment file, and of what is piped in: the first `MAX_CHARACTERS` characters in any encoding."""
MAX_CHARACTERS = 1 << 20
"""Characters of a deployment file that are judged."""
MAX_BESIDE = 1 << 20
"""Bytes of a file that is read because another one names it, and of a settings file."""
MAX_CONFIG = 8 << 20
"""Bytes of config.json. Most have 1 KiB; those that list every layer's quantization, some megabytes."""
MAX_TOKENIZER = 32 << 20
"""Bytes of tokenizer_config.json. Gemma 3's, with 6,400 added tokens, has 1.2 MB; speech models add 65,000."""
MAX_INDEX = 32 << 20
"""Bytes of a weight index, or of the Hub's entry of a model; the largest known index, DeepSeek-V3's, has 9 MB."""
MAX_VALUES = 1_000_000
"""Values in one JSON file, counted by the signs between them, of which each may cost 200 bytes of memory."""
MAX_DEPTH = 32
"""Levels of objects and lists within each other in one JSON file."""
MAX_MODEL_TYPE = 200
"""Characters of a model_type."""
MAX_MESSAGE = 8_000
"""Characters of one sentence of an error, whatever of others it quotes."""
MAX_WORD = 200
"""Characters of a word that is compared with the known ones for a suggestion."""
MAX_DIGITS = 64
"""Digits of a whole number in JSON; transformers' "no limit" of tokens has 31."""
MAX_HEADER = 16 << 20
"""Bytes of one file's tensor header: about 130,000 tensors. DeepSeek-V3's 163 files have 12.5 MB of them together."""
MAX_HEADERS = 32 << 20
"""Bytes of the tensor headers of all files of a model on the Hub, which are held at once."""
MAX_TENSORS = 1 << 20
"""Tensors of a model; DeepSeek-V3 has 91,991."""
MAX_NAME = 4096
"""Characters of a tensor's name."""
MAX_FILES = 4096
"""Weight files of a model; Llama 3.1 405B has 191."""
MAX_ELEMENTS = 1 << 48
"""Elements of one tensor."""
MAX_KEPT = 64 << 20
"""Bytes of one answer of the Hub kept in our own cache."""
MAX_TOKEN = 64 << 10
"""Bytes of a file that holds a token."""
HUB_S = 30.0
"""Seconds one exchange with the Hub may take in all, whatever trickles in, its redirects included."""
MODEL_S = 300.0
"""Seconds all exchanges about one model may take; most take one."""
HUB_WAIT_S = 3600
"""The longest HF_HUB_DOWNLOAD_TIMEOUT, in seconds."""


class Size(NamedTuple):
    """What one number of config.json may be, both ends included."""

    least: float
    """The smallest value a model can have."""
    most: float
    """Far more than any model has."""


def _sizes() -> Iterator[tuple[str, Size]]:
    """The fields an estimate reads, in groups of one meaning."""
    groups = (
        (1, 4096, "num_hidden_layers num_layers n_layer n_layers num_decoder_layers decoder_layers encoder_layers"),
        (0, 4096, "depth num_global_layers resampler_depth first_k_dense_replace num_nextn_predict_layers"),
        (1, 1 << 20, "hidden_size n_embd n_embed d_model word_embed_proj_dim"),
        (0, 1 << 20, "embed_dim out_hidden_size projection_dim vision_output_dim q_lora_rank kv_lora_rank"),
        (1, 1 << 16, "num_attention_heads n_head n_heads num_heads decoder_attention_heads num_key_value_heads"),
        (1, 1 << 16, "num_kv_heads n_head_kv kv_n_heads head_dim d_kv v_head_dim"),
        (0, 1 << 16, "qk_nope_head_dim qk_rope_head_dim qk_nope_dim qk_rope_dim rotary_dim resampler_n_heads"),
        (1, 1 << 24, "intermediate_size n_inner ffn_hidden_size ffn_dim d_ff ff_intermediate_size decoder_ffn_dim"),
        (0, 1 << 24, "d_inner moe_intermediate_size shared_expert_intermediate_size resampler_head_dim"),
        (1, 1 << 27, "vocab_size"),
        (0, 1 << 16, "num_local_experts num_experts n_routed_experts moe_num_experts num_experts_per_tok moe_top_k"),
        (0, 1 << 16, "n_shared_experts decoder_sparse_step moe_layer_freq"),
        (1, 1 << 40, "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length seq_length"),
        (-1, 1 << 40, "sliding_window"),
        (0, 1 << 20, "state_size conv_kernel time_step_rank expand image_size patch_size spatial_merge_size"),
        (0, 1 << 20, "temporal_patch_size in_channels num_channels max_num_tiles mm_tokens_per_image scale_factor"),
        (0, 1 << 20, "resampler_n_latents"),
        (0, 1024, "expansion_ratio mlp_ratio partial_rotary_factor rotary_pct"),
    )
    for least, most, names in groups:
        yield from ((name, Size(least, most)) for name in names.split())


SIZES: Mapping[str, Size] = dict(_sizes())
"""What the numbers of config.json may be, by field, at the top and in the configurations within it."""


def out_of_bounds(config: Mapping[str, Any]) -> tuple[str, int | float, Size] | None:
    """The first field of `SIZES` whose number no model can have, with that number; None when all are fine.

    A configuration within the configuration is looked at as well, and its field named `text_config.hidden_size`.
    Fields that hold no number are not judged here.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            if found := out_of_bounds(value) if name.endswith("_config") else None:
                return f"{name}.{found[0]}", *found[1:]
        elif type(value) in (int, float) and (size := SIZES.get(name)) and not size.least <= value <= size.most:
            return name, value, size
    return None


def number(text: str) -> int | float:
    """A whole number of a JSON file; one of more than `MAX_DIGITS` digits counts as infinite."""
    return int(text) if len(text) <= MAX_DIGITS else float("-inf" if text.startswith("-") else "inf")


def nested(value: object) -> bool:
    """Whether objects and lists stand in each other more than `MAX_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
