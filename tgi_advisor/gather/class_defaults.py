"""The fields config.json leaves to its class: defaults and other names of transformers' and TGI's config classes.

`facts/config_defaults.json` holds them for every model type TGI serves, as of the transformers version
TGI pins; `scripts/record_config_defaults.py` writes it with `describe`. A model type that only newer versions
have is looked up in the transformers installed here. No repository's own code is ever run.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tgi_advisor.errors import FactsError, missing
from tgi_advisor.safe import named

TABLE = Path(__file__).parent.parent / "facts" / "config_defaults.json"

SAME_AS_HEADS = "=num_attention_heads"
"""Rule in place of a value: left out or null, the field is the number of attention heads."""
ONE_IF_MULTI_QUERY = "=1 if multi_query else num_attention_heads"
"""Rule of the Falcon family's KV heads."""
FROM_ATTN_CONFIG = "=attn_config.kv_n_heads"
"""Rule of DBRX's KV heads."""

FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "vocab_size", "max_position_embeddings", "tie_word_embeddings", "sliding_window", "hidden_act",
    "activation_function", "partial_rotary_factor", "rotary_pct", "rotary_dim", "attention_bias", "mlp_bias",
    "n_embed", "n_embd", "n_layer", "n_layers", "n_head", "n_heads", "n_head_kv", "num_kv_heads", "kv_n_heads",
    "n_inner", "n_positions", "n_ctx", "max_seq_len", "multi_query", "new_decoder_architecture", "parallel_attn",
    "alibi", "bias", "d_model", "d_ff", "d_kv", "d_inner", "num_heads", "num_layers", "num_decoder_layers",
    "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim", "encoder_layers", "ffn_dim", "word_embed_proj_dim",
    "feed_forward_proj", "expansion_ratio", "ffn_hidden_size",
    "num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "moe_num_experts", "moe_top_k",
    "moe_intermediate_size", "shared_expert_intermediate_size", "n_shared_experts", "first_k_dense_replace",
    "moe_layer_freq", "decoder_sparse_step", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
    "v_head_dim", "state_size", "conv_kernel", "expand", "time_step_rank",
    "image_size", "patch_size", "depth", "embed_dim", "mlp_ratio", "spatial_merge_size", "temporal_patch_size",
    "in_channels", "num_channels", "out_hidden_size", "max_num_tiles", "num_global_layers", "vision_output_dim",
    "intermediate_layers_indices", "cross_attention_layers", "mm_tokens_per_image", "image_token_index",
    "scale_factor", "projection_dim", "resampler_n_latents", "resampler_depth", "resampler_n_heads",
    "resampler_head_dim",
)  # fmt: skip
"""What an estimate may ask a configuration for."""

_SET_BY_BASE = ("tie_word_embeddings", "max_position_embeddings")
"""Fields every class takes although its own signature may not name them."""

NESTED = ("text_config", "vision_config", "perceiver_config", "attn_config", "ffn_config")
"""Configurations within a configuration."""


class ConfigClass(NamedTuple):
    """What a config class does with fields that config.json leaves out."""

    fields: Mapping[str, Any]
    """Default by field; a text starting with `=` is a rule."""
    names: Mapping[str, str]
    """Other names of a field: `hidden_size` -> `n_embd`."""
    nested: Mapping[str, str]
    """Model type of each configuration within this one, where the file does not name it."""
    source: str
    """The class, and whose it is."""


def fill_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `config` leaves to its class: defaults, and the class's other names for what is given.

    Fields config.json sets are not repeated, so `{**config, **fill_defaults(config)}` is what TGI sees. A
    field set to null stays null unless the class derives it. Empty for a model type nobody here knows.
    """
    model_type = config.get("model_type")
    known = _recorded(model_type)
    if known is None and isinstance(model_type, str):
        from tgi_advisor.facts import automodel  # only for types the table does not hold

        if automodel.known(model_type) and not _complete(config):
            known = _from_transformers(model_type)
    return _fill(config, known) if known else {}


def _fill(config: Mapping[str, Any], known: ConfigClass) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, kind in known.nested.items():
        inner = config.get(name)
        inner = inner if isinstance(inner, Mapping) else {}
        stated = inner.get("model_type")
        child = (_recorded(stated) if stated != config.get("model_type") else None) or _recorded(kind)
        if child and (within := _fill(inner, child)):
            filled[name] = within
    for name, field in known.names.items():
        if name in config and field not in config:
            filled.setdefault(field, config[name])
    for field, default in known.fields.items():
        if not _is_rule(default) and field not in config:
            filled.setdefault(field, default)
    for field, rule in known.fields.items():
        derives = _is_rule(rule) or field == "num_key_value_heads"
        if derives and filled.get(field, config.get(field)) is None:
            filled[field] = _derived(rule, config, filled, known)
    for name, field in known.names.items():
        if name not in config:
            filled.setdefault(name, filled.get(field, config.get(field)))
    return filled


def _is_rule(default: object) -> bool:
    return isinstance(default, str) and default.startswith("=")


def _derived(rule: str, config: Mapping[str, Any], filled: Mapping[str, Any], known: ConfigClass) -> Any:
    """The value a rule gives for this configuration."""
    seen = {**config, **filled}
    if rule == FROM_ATTN_CONFIG:
        given, rest = config.get("attn_config"), filled.get("attn_config", {})
        return {**(given if isinstance(given, Mapping) else {}), **rest}.get("kv_n_heads")
    if rule == ONE_IF_MULTI_QUERY and seen.get("multi_query"):
        return 1
    heads = "num_attention_heads"
    return seen.get(known.names.get(heads, heads), seen.get(heads))


def _complete(config: Mapping[str, Any]) -> bool:
    """Whether an estimate has all it needs without the class; importing transformers takes a second or more."""
    geometry = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    return all(field in config for field in (*geometry, "max_position_embeddings"))


@cache
def _table() -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = json.loads(TABLE.read_bytes())["classes"]
    return rows


def _recorded(kind: object) -> ConfigClass | None:
    row = _table().get(kind) if isinstance(kind, str) else None
    return ConfigClass(**row) if row else None


def _from_transformers(model_type: str) -> ConfigClass | None:
    """The class transformers of this machine has for the model type, None where it has none.

    FactsError where transformers is not installed.
    """
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # transformers remarks on stderr that torch is missing
    try:
        import transformers

        cls = transformers.CONFIG_MAPPING[model_type]
        return describe(cls, f"transformers {transformers.__version__} {cls.__name__}")
    except ModuleNotFoundError as error:
        what_for = f"know what a {named(model_type)} model leaves out of its config.json"
        raise FactsError(*missing(error.name or "transformers", what_for)) from None
    except Exception:  # noqa: BLE001  not known, or not to be made without arguments: no defaults
        return None
    finally:
        logging.disable(before)


def describe(cls: Any, source: str) -> ConfigClass:
    """Read a config class: what it does with each of `FIELDS` when it is left out."""
    import inspect

    parameters = inspect.signature(cls.__init__).parameters
    plain = cls()
    attribute_map: Mapping[str, str] = getattr(cls, "attribute_map", {})
    text = hasattr(plain, "vocab_size") or hasattr(plain, "text_config")
    names = {name: field for name, field in attribute_map.items() if name in FIELDS and field in FIELDS}
    fields: dict[str, Any] = {}
    for field in FIELDS:
        own = field in parameters or field in names.values() or (text and field in _SET_BY_BASE)
        if field in names or not own or isinstance(getattr(cls, field, None), property):
            continue  # an attribute derived from others
        value = parameters[field].default if field in parameters else getattr(plain, field, None)
        if (
            value is None
            and getattr(plain, field, None) is not None
            and field in ("num_key_value_heads", "num_kv_heads")
        ):
            value = SAME_AS_HEADS
        if isinstance(value, (bool, int, float, str, list)):
            fields[field] = value
        elif isinstance(value, tuple):
            fields[field] = list(value)
    for name in FIELDS:
        if name not in fields and name not in names and not hasattr(plain, name) and (lands := _lands_in(cls, name)):
            names[name] = lands
    if "multi_query" in parameters and "n_head_kv" in fields and cls(multi_query=True).n_head_kv == 1:
        fields["n_head_kv"] = ONE_IF_MULTI_QUERY
    if isinstance(getattr(cls, "num_key_value_heads", None), property) and hasattr(plain, "attn_config"):
        fields["num_key_value_heads"] = FROM_ATTN_CONFIG
    nested = {}
    for name in NESTED:
        child = getattr(plain, name, None)
        if hasattr(child, "to_dict"):
            kind = getattr(child, "model_type", "")
            nested[name] = type(child).__name__ if kind in ("", plain.model_type) else kind
    return ConfigClass(fields, names, nested, source)


def _lands_in(cls: Any, name: str) -> str | None:
    """The field an older keyword sets: BLOOM's `n_embed` becomes `hidden_size`."""
    marker = 7919
    try:
        made = cls(**{name: marker})
    except Exception:  # noqa: BLE001  a config class may refuse the number in any way it likes
        return None
    fields = (field for field in FIELDS if field != name and field not in cls.attribute_map)
    return next((field for field in fields if getattr(made, field, None) == marker), None)
