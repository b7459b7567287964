"""The tensors a checkpoint of a known family must hold, worked out from config.json and proved by counting.

The Hub tells how many elements of each dtype a repository's safetensors hold. Where the layout below,
filled in with the sizes of config.json, has exactly as many, the tensor headers need not be fetched.
Where one element is missing or left over, there is no answer and the headers are read.

The names are those of the families' published checkpoints, written by transformers' modules of the same
name (https://github.com/huggingface/transformers/tree/v4.57.0/src/transformers/models).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from tgi_advisor.facts.model import DTYPE_BITS, Files, TensorGroup

Config = Mapping[str, Any]
Row = tuple[str, tuple[int, ...], int]
"""Name, shape and how often it occurs; inside a layer's list the name lacks prefix and `.weight`."""

_PROJECTION = re.compile(r"\.(?!eh_)\w+_proj(_with_mqa)?\.weight$")
"""Matrices that FP8 checkpoints store in FP8; DeepSeek-V3's eh_proj stays as it is."""

USUAL = (4 * 10**9, 5 * 10**9, 10**10)
"""Bytes after which checkpoints begin another file, the likeliest first."""
_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")
_TORCH = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


def derive(config: Config, totals: Mapping[str, int]) -> tuple[TensorGroup, ...] | None:
    """Every tensor of the checkpoint, or None when the family is unknown or the counts differ.

    `config` is config.json with the class's defaults filled in; `totals` is elements by safetensors dtype.
    """
    layout = _LAYOUTS.get(str(config.get("model_type")))
    quantization = config.get("quantization_config")
    try:
        block = _fp8_block(quantization) if quantization else None
        if layout is None or (quantization and not block):
            return None
        sizes = {key: value for key, value in config.items() if isinstance(value, int) or key == "model_type"}
        rows = list(layout(sizes))  # sizes alone: a text times a number would be a longer text
        for tail in _tails(sizes):  # what some converters leave out of a file and others do not
            groups = _with_dtypes(rows + tail, totals, block)
            if count(groups) == totals and all(type(n) is int for g in groups for n in (g.count, *g.shape)):
                return groups
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        pass  # a size is missing or is no number: the headers will tell
    return None


def _tails(config: Config) -> Iterator[list[Row]]:
    """Endings of a checkpoint: with and without the output matrix, with and without Llama 1's rotary table."""
    head: Row = ("lm_head.weight", (config["vocab_size"], config["hidden_size"]), 1)
    layers = config["num_hidden_layers"]
    rotary: Row = ("model.layers.*.self_attn.rotary_emb.inv_freq", (_head_dim(config) // 2,), layers)
    yield from ([], [head], [rotary], [head, rotary])


def _with_dtypes(rows: list[Row], totals: Mapping[str, int], block: tuple[int, int] | None) -> tuple[TensorGroup, ...]:
    """Dtypes for the rows: the most frequent one, F8 for the projections of an FP8 file, F32 for what stays exact."""
    wide = [dtype for dtype in totals if not (block and dtype.startswith("F8"))]
    main = max(wide, key=lambda dtype: (dtype != "F32", totals[dtype]))
    exact = "F32" if "F32" in totals else main
    groups = []
    for name, shape, count in rows:
        if block and _PROJECTION.search(name):
            scales = (-(-shape[0] // block[0]), -(-shape[1] // block[1]))
            groups.append(TensorGroup(name, "F8_E4M3", shape, count))
            groups.append(TensorGroup(f"{name}_scale_inv", exact, scales, count))
        else:
            dtype = exact if name.endswith(("inv_freq", "e_score_correction_bias")) else main
            groups.append(TensorGroup(name, dtype, shape, count))
    return tuple(groups)


def _fp8_block(quantization: Mapping[str, Any]) -> tuple[int, int] | None:
    """The block one scale is for, in checkpoints stored as FP8 in blocks; None for any other quantization."""
    if quantization.get("quant_method") != "fp8" or not quantization.get("weight_block_size"):
        return None
    rows, columns = quantization["weight_block_size"]
    return rows, columns


def derive_from_index(config: Config, index: Mapping[str, Any]) -> tuple[tuple[TensorGroup, ...], Files] | None:
    """As `derive`, proved by a weight index: the names of all tensors, and their bytes in `torch_dtype`.

    The index also tells which of them lie in which file.
    """
    dtype = _TORCH.get(str(config.get("torch_dtype") or config.get("dtype")))
    metadata, weight_map = index.get("metadata"), index.get("weight_map")
    size = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if dtype is None or not isinstance(weight_map, Mapping) or not isinstance(size, (int, float)):
        return None
    tensors = derive(config, {dtype: int(size) * 8 // DTYPE_BITS[dtype]})
    names = {_NUMBER.sub("*", name) for name in weight_map}
    if not tensors or {_NUMBER.sub("*", group.name) for group in tensors} != names:
        return None
    return tensors, _files(tensors, weight_map)


def _files(tensors: tuple[TensorGroup, ...], weight_map: Mapping[str, Any]) -> Files:
    """Which tensors lie in which file by an index of names; none where it does not add up."""
    numbers = {_NUMBER.sub("*", group.name): number for number, group in enumerate(tensors)}
    counts = {file: [0] * len(tensors) for file in sorted(set(map(str, weight_map.values())))}
    for name, file in weight_map.items():
        counts[str(file)][numbers[_NUMBER.sub("*", name)]] += 1
    adds_up = list(map(sum, zip(*counts.values(), strict=True))) == [group.count for group in tensors]
    return tuple(map(tuple, counts.values())) if adds_up else ()


class Assumed(NamedTuple):
    """Weight files as they usually are."""

    files: Files
    """Which tensors lie in which file."""
    size: int
    """Bytes after which another file begins."""


@lru_cache(maxsize=64)
def assumed(tensors: tuple[TensorGroup, ...], layers: int, number: int | None = None) -> Assumed:
    """The files of a model of so many layers, filled in the order of its modules up to a usual size.

    The first of `USUAL` that makes so many files, where their `number` is known.
    """
    ways = [Assumed(_filled(tensors, layers, size), size) for size in USUAL]
    return next((way for way in ways if len(way.files) == number), ways[0])


def _filled(tensors: tuple[TensorGroup, ...], layers: int, size: int) -> Files:
    inside = [place for place, group in enumerate(tensors) if ".*." in group.name]
    order = list(range(inside[0] if inside else len(tensors)))
    order += [
        place
        for layer in range(layers)
        for place in inside
        for _ in range(tensors[place].count * layer // layers, tensors[place].count * (layer + 1) // layers)
    ]
    order += sorted(set(range(len(tensors))) - set(order))
    files, filled = [[0] * len(tensors)], 0
    for place in order:
        each = tensors[place].bytes // tensors[place].count
        if filled + each > size:
            filled = 0
            files.append([0] * len(tensors))
        filled += each
        files[-1][place] += 1
    return tuple(map(tuple, files))


def count(groups: Iterable[TensorGroup]) -> dict[str, int]:
    """Elements by dtype."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.dtype] = counts.get(group.dtype, 0) + group.count * group.elements
    return counts


def _head_dim(c: Config) -> int:
    return int(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])


def _decoder(c: Config, layer: list[Row]) -> list[Row]:
    """Embeddings, `num_hidden_layers` times the layer's rows, and the last norm."""
    return _model(c, _layers("*", layer, c["num_hidden_layers"]))


def _model(c: Config, layers: list[Row]) -> list[Row]:
    embeddings: Row = ("model.embed_tokens.weight", (c["vocab_size"], c["hidden_size"]), 1)
    return [embeddings, *layers, ("model.norm.weight", (c["hidden_size"],), 1)]


def _layers(number: str, layer: list[Row], times: int) -> list[Row]:
    def full(name: str) -> str:
        return f"model.layers.{number}.{name}" + ("" if name.endswith("bias") else ".weight")

    return [(full(name), shape, count * times) for name, shape, count in layer]


def _attention(c: Config) -> list[Row]:
    hidden, dim = c["hidden_size"], _head_dim(c)
    query = c["num_attention_heads"] * dim
    keys = (c.get("num_key_value_heads") or c["num_attention_heads"]) * dim
    return [
        ("self_attn.q_proj", (query, hidden), 1),
        ("self_attn.k_proj", (keys, hidden), 1),
        ("self_attn.v_proj", (keys, hidden), 1),
        ("self_attn.o_proj", (hidden, query), 1),
    ]


def _biases(rows: list[Row]) -> list[Row]:
    return [(f"{name}.bias", shape[:1], count) for name, shape, count in rows]


def _mlp(hidden: int, inner: int, prefix: str = "mlp", count: int = 1) -> list[Row]:
    return [
        (f"{prefix}.gate_proj", (inner, hidden), count),
        (f"{prefix}.up_proj", (inner, hidden), count),
        (f"{prefix}.down_proj", (hidden, inner), count),
    ]


def _norms(c: Config, *more: str) -> list[Row]:
    return [(name, (c["hidden_size"],), 1) for name in ("input_layernorm", "post_attention_layernorm", *more)]


def _llama(c: Config) -> list[Row]:
    attention, mlp = _attention(c), _mlp(c["hidden_size"], c["intermediate_size"])
    biases = _biases(attention) if c.get("attention_bias") else []
    biases += _biases(mlp) if c.get("mlp_bias") else []
    return _decoder(c, attention + mlp + biases + _norms(c))


def _qwen2(c: Config) -> list[Row]:
    attention = _attention(c)
    mlp = _mlp(c["hidden_size"], c["intermediate_size"])
    return _decoder(c, attention + _biases(attention[:3]) + mlp + _norms(c))


def _qwen3_norms(c: Config) -> list[Row]:
    return [(f"self_attn.{name}", (_head_dim(c),), 1) for name in ("q_norm", "k_norm")]


def _qwen3(c: Config) -> list[Row]:
    mlp = _mlp(c["hidden_size"], c["intermediate_size"])
    return _decoder(c, _attention(c) + _qwen3_norms(c) + mlp + _norms(c))


def _qwen3_moe(c: Config) -> list[Row]:
    experts, hidden = c["num_experts"], c["hidden_size"]
    mlp = [("mlp.gate", (experts, hidden), 1), *_mlp(hidden, c["moe_intermediate_size"], "mlp.experts.*", experts)]
    return _decoder(c, _attention(c) + _qwen3_norms(c) + mlp + _norms(c))


def _mixtral(c: Config) -> list[Row]:
    experts, hidden, inner = c["num_local_experts"], c["hidden_size"], c["intermediate_size"]
    expert = "block_sparse_moe.experts.*"
    mlp = [
        ("block_sparse_moe.gate", (experts, hidden), 1),
        (f"{expert}.w1", (inner, hidden), experts),
        (f"{expert}.w2", (hidden, inner), experts),
        (f"{expert}.w3", (inner, hidden), experts),
    ]
    return _decoder(c, _attention(c) + mlp + _norms(c))


def _gemma2(c: Config) -> list[Row]:
    mlp = _mlp(c["hidden_size"], c["intermediate_size"])
    return _decoder(c, _attention(c) + mlp + _norms(c, "pre_feedforward_layernorm", "post_feedforward_layernorm"))


def _phi3(c: Config) -> list[Row]:
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    query, keys, values, output = (shape for _, shape, _ in _attention(c))
    fused = [
        ("self_attn.qkv_proj", (query[0] + keys[0] + values[0], hidden), 1),
        ("self_attn.o_proj", output, 1),
        ("mlp.gate_up_proj", (2 * inner, hidden), 1),
        ("mlp.down_proj", (hidden, inner), 1),
    ]
    return _decoder(c, fused + _norms(c))


def _deepseek(c: Config) -> list[Row]:
    """DeepSeek V2 and V3: compressed attention, shared and routed experts, V3's layers that predict further."""
    hidden, heads, rank = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    plain, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    query = heads * (plain + rope)
    attention: list[Row] = [("self_attn.q_proj", (query, hidden), 1)]
    if q_rank := c.get("q_lora_rank"):
        attention = [
            ("self_attn.q_a_proj", (q_rank, hidden), 1),
            ("self_attn.q_a_layernorm", (q_rank,), 1),
            ("self_attn.q_b_proj", (query, q_rank), 1),
        ]
    attention += [
        ("self_attn.kv_a_proj_with_mqa", (rank + rope, hidden), 1),
        ("self_attn.kv_a_layernorm", (rank,), 1),
        ("self_attn.kv_b_proj", (heads * (plain + value), rank), 1),
        ("self_attn.o_proj", (hidden, heads * value), 1),
    ]
    experts, inner = c["n_routed_experts"], c["moe_intermediate_size"]
    routed = [
        ("mlp.gate", (experts, hidden), 1),
        *_mlp(hidden, inner, "mlp.experts.*", experts),
        *_mlp(hidden, inner * c["n_shared_experts"], "mlp.shared_experts"),
    ]
    if c["model_type"] == "deepseek_v3":
        routed.append(("mlp.gate.e_score_correction_bias", (experts,), 1))
    layers, dense = c["num_hidden_layers"], c["first_k_dense_replace"]
    ahead: list[Row] = [
        ("embed_tokens", (c["vocab_size"], hidden), 1),
        ("enorm", (hidden,), 1),
        ("hnorm", (hidden,), 1),
        ("eh_proj", (hidden, 2 * hidden), 1),
        ("shared_head.norm", (hidden,), 1),
        ("shared_head.head", (c["vocab_size"], hidden), 1),
    ]
    block = attention + _norms(c)
    rows = _layers("*", block, layers) + _layers("*", _mlp(hidden, c["intermediate_size"]), dense)
    rows += _layers("*", routed, layers - dense)
    for extra in range(min(c.get("num_nextn_predict_layers") or 0, 8)):
        rows += _layers(str(layers + extra), block + routed + ahead, 1)
    return _model(c, rows)


_LAYOUTS: dict[str, Callable[[Config], list[Row]]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "mixtral": _mixtral,
    "gemma": _llama,
    "gemma2": _gemma2,
    "phi3": _phi3,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
}
