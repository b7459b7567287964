"""What the Rust launcher reads from config.json and guesses from it, before anything is loaded.

The launcher has its own reading of the configuration and its own constants, apart from the
server's; both are mirrored here with their integer and 32-bit float arithmetic.
Source: launcher/src/main.rs of https://github.com/huggingface/text-generation-inference.
"""

import math
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.once import remembered

Version = tuple[int, int, int]
_USIZE_MAX = (1 << 64) - 1


class LauncherConfig(NamedTuple):
    """config.json as the launcher's own structs hold it; None is a field it did not find."""

    context: int | None = None
    """max_position_embeddings, else max_seq_len, else (2.0.4 on) n_positions."""
    quantize: str | None = None
    """quantization_config.quant_method (2.3.0 on)."""
    model_type: str | None = None
    """model_type."""
    head_dim: int | None = None
    """head_dim, or hidden size over heads where that divides; from 3.2.1 on also text_config's."""
    vision: bool = False
    """Whether there is a vision_config."""
    encoder_decoder: bool = False
    """is_encoder_decoder."""
    hidden: int | None = None
    """hidden_size, else n_embd."""
    intermediate: int | None = None
    """intermediate_size."""
    heads: int | None = None
    """num_attention_heads."""
    kv_heads: int | None = None
    """num_key_value_heads, else heads."""
    layers: int | None = None
    """num_hidden_layers."""
    vocab: int | None = None
    """vocab_size."""
    experts_per_token: int = 1
    """num_experts_per_tok, else 1."""
    shared_experts: int = 0
    """n_shared_experts, else 0."""
    experts: int = 1
    """num_local_experts, else 1."""


class _UnreadableError(Exception):
    """A field does not have the type the launcher's struct asks for: the whole config counts as missing."""


@remembered
def read_config(model: ModelFacts, release: TgiRelease) -> LauncherConfig | None:
    """config.json as the launcher of a release reads it; None where its parser gives up on the whole file.

    It gives up on a quant_method it has no name for, on a number that is none, and on the NaN and Infinity that
    Python writes and JSON does not have. From 2.0.0 on; launcher/src/main.rs@v3.3.7:203-404.
    """
    version, raw = release.version, model.launched
    if not _is_json(raw):
        return None
    try:
        context = _first(raw, ("max_position_embeddings", "max_seq_len", "n_positions"), version >= (2, 0, 4))
        if version < (2, 3, 0):
            kind = _text(raw, "model_type") if version >= (2, 2, 0) else None
            return LauncherConfig(context, model_type=kind)
        hidden = _first(raw, ("hidden_size", "n_embd"))
        heads = _number(raw, "num_attention_heads")
        kind = _text(raw, "model_type")
        new = version >= (3, 0, 0)
        return LauncherConfig(
            context=context,
            quantize=_quant_method(raw, release),
            model_type=kind,
            head_dim=_head_dim(raw, hidden, heads, kind, version),
            vision=_section(raw, "vision_config", ()) is not None,
            encoder_decoder=_flag(raw, "is_encoder_decoder"),
            hidden=hidden,
            intermediate=_number(raw, "intermediate_size") if new else None,
            heads=heads,
            kv_heads=_first(raw, ("num_key_value_heads", "num_attention_heads")) if new else None,
            layers=_number(raw, "num_hidden_layers") if new else None,
            vocab=_number(raw, "vocab_size") if new else None,
            experts_per_token=_or(_number(raw, "num_experts_per_tok") if new else None, 1),
            shared_experts=_or(_number(raw, "n_shared_experts") if new else None, 0),
            experts=_or(_number(raw, "num_local_experts") if new else None, 1),
        )
    except _UnreadableError:
        return None


def prefill_default(
    config: LauncherConfig | None,
    release: TgiRelease,
    gpu: GpuFacts,
    shards: int,
    fraction: float,
    wiggle: float | None,
) -> int:
    """max_batch_prefill_tokens the launcher picks when none is given, 3.0.0 on (main.rs@v3.3.7:2114-2154).

    `wiggle` is TGI_WIGGLE_ROOM where the environment sets it; the launcher's own default is 0.95.
    """
    nvidia = gpu.system == "cuda"
    optimal = _compute_optimal(config, card_tflops(gpu.launcher_name, release), shards) if nvidia else None
    value = optimal if optimal is not None else _fallback(config, release.version)
    if config is not None and config.context is not None:
        value = min(value, config.context)
    room = release.launcher_wiggle if wiggle is None else wiggle
    most = vram_maximum(config, gpu.memory_bytes * shards, fraction, room) if nvidia else None
    return value if most is None else min(value, most)


def card_tflops(launcher_name: str, release: TgiRelease) -> int | None:
    """TFLOPS the launcher assumes for a card; None for a name it does not match exactly."""
    row = _cards().get(launcher_name)
    return row[1] if row is not None and release.version >= row[0] else None


@cache
def _cards() -> dict[str, tuple[Version, int]]:
    cards: dict[str, tuple[Version, int]] = {}
    keys = {"tflops", "since", "source"}
    for name, row in tables.load("launcher_gpus").items():
        tables.strict(row, keys, keys, f"launcher_gpus.yaml: {name}")
        major, minor, patch = map(int, row["since"].split("."))
        cards[name] = ((major, minor, patch), row["tflops"])
    return cards


def _fallback(config: LauncherConfig | None, version: Version) -> int:
    """Prefill tokens for a card without a figure; larger for vision models, whose images must fit one prefill."""
    kind = config.model_type if config is not None else None
    if kind in ("qwen2_vl", "qwen2_5_vl") and version >= (3, 1, 1):
        return 10_000
    if kind == "gemma3" and version >= (3, 2, 0):
        return 8_000
    return 4_096


def _compute_optimal(config: LauncherConfig | None, tflops: int | None, shards: int) -> int | None:
    """Tokens after which a prefill is bound by compute; None when unknown or implausibly small (at most 100)."""
    if config is None or tflops is None or config.vision:
        return None
    sizes = _layer_sizes(config)
    if sizes is None:
        return None
    heads, kv, head, hidden, wide, layers = sizes
    attention = 2 * head * hidden * (3 * heads + 2 * kv)
    feed_forward = 6 * hidden * wide * (config.experts_per_token + config.shared_experts)
    tokens = tflops * 10**12 * shards // ((attention + feed_forward) * layers)
    return tokens if tokens > 100 else None


def vram_maximum(config: LauncherConfig | None, memory: int, fraction: float, wiggle: float) -> int | None:
    """Tokens the launcher believes the memory holds; None for quantized models or unknown geometry."""
    if config is None or config.quantize is not None:
        return None
    sizes = _layer_sizes(config)
    if sizes is None or config.vocab is None:
        return None
    heads, kv, head, hidden, wide, layers = sizes
    available = _usize(f32(f32(f32(memory) * f32(fraction)) * f32(wiggle)))
    layer = 3 * wide * config.experts * hidden + (heads + 2 * kv) * head + heads * head * hidden
    weights = 2 * (layer * layers + 2 * hidden * config.vocab)
    token = kv * 2 * head * 2 * layers + (wide + wide // 2) * config.experts * 6
    return (available - weights) // token if available >= weights else None


def f32(number: float) -> float:
    """The nearest 32-bit float; a product of two of them is exact in 64 bits, so rounding once is Rust's result."""
    try:
        rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)
    return rounded


def _usize(number: float) -> int:
    """Rust's `as usize`: what is below zero and NaN become 0, what is too large the largest there is."""
    return _USIZE_MAX if number >= _USIZE_MAX else int(number) if number > 0 else 0


def _quant_method(raw: Mapping[str, Any], release: TgiRelease) -> str | None:
    """The method, one of the release's --quantize values; any other makes the launcher drop the whole config."""
    section = _section(raw, "quantization_config", ("quant_method",))
    if section is None:
        return None
    method = _text(section, "quant_method")
    if method is not None and method not in release.quantize:
        raise _UnreadableError
    return method


def _head_dim(
    raw: Mapping[str, Any], hidden: int | None, heads: int | None, kind: str | None, version: Version
) -> int | None:
    stated = _number(raw, "head_dim")
    text = _section(raw, "text_config", ("head_dim",)) if version >= (3, 2, 1) else None
    nested = _number(text, "head_dim") if text is not None else None
    if stated is not None:
        return stated
    legacy = _number(raw, "n_embd") if version < (3, 0, 0) else None  # where hidden_size does not divide
    divided = next(
        (size // heads for size in (hidden, legacy) if size is not None and heads and size % heads == 0), None
    )
    if divided is not None:
        return divided
    return 256 if nested is None and text is not None and kind == "gemma3" and version >= (3, 3, 0) else nested


def _number(raw: Mapping[str, Any], key: str) -> int | None:
    value = raw.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _USIZE_MAX):
        raise _UnreadableError
    return value


def _first(raw: Mapping[str, Any], keys: tuple[str, ...], last: bool = True) -> int | None:
    found = [_number(raw, key) for key in (keys if last else keys[:-1])]
    return next((value for value in found if value is not None), None)


def _text(raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise _UnreadableError
    return value


def _flag(raw: Mapping[str, Any], key: str) -> bool:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise _UnreadableError
    return bool(value)


def _section(raw: Mapping[str, Any], key: str, fields: tuple[str, ...]) -> Mapping[str, Any] | None:
    """A struct of these fields, which serde also reads from a list of just their values."""
    value = raw.get(key)
    if isinstance(value, list | tuple) and len(value) == len(fields):
        return dict(zip(fields, value, strict=True))
    if value is not None and not isinstance(value, Mapping):
        raise _UnreadableError
    return value


def _is_json(value: object) -> bool:
    """Whether a configuration holds no number that JSON cannot write."""
    if value is None or isinstance(value, (str, int)):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    return not isinstance(value, Mapping) or all(map(_is_json, value.values()))


def _layer_sizes(config: LauncherConfig) -> tuple[int, ...] | None:
    """Heads, KV heads, head dim, hidden, intermediate, layers; None when one is missing (or zero: it would panic)."""
    sizes = (config.heads, config.kv_heads, config.head_dim, config.hidden, config.intermediate, config.layers)
    known = tuple(size for size in sizes if size)
    return known if len(known) == len(sizes) else None


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
