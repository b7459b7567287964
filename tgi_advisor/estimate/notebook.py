"""The two formulas of the "Estimate VRAM usage for TGI" notebook, kept to the digit it prints.

Both add up one layer's intermediate tensors, the stored weights and 1.2 GB per GPU. They differ in
the question: `notebook` (the notebook calls it "Simplified") asks whether everything together fits
95 % of the GPUs' memory; `notebook_tgi` gives 95 % of what is left to the KV cache and compares
token counts. The notebook takes the layer from https://arxiv.org/pdf/2205.05198 and
https://asmirnov.xyz/vram, and the CUDA context from
https://github.com/stas00/ml-engineering/tree/master/training/performance#additional-gpu-memory-usage.

It counts all GPUs together and a GB is 10^9 bytes. The default method, TGI's own sum, counts one
GPU and bytes as the driver reports them; `docs/notebook.md` says where the two part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tgi_advisor.errors import FactsError, SpecError
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.limits import Limits
from tgi_advisor.units import GB, GiB

DTYPE_BYTES = {"int4": 0.5, "int8": 1, "float8": 1, "float16": 2, "bfloat16": 2, "float32": 4}
"""Bytes per value. The notebook's own table, and bfloat16, which it leaves out."""

CUDA_BYTES = 1 * GB * 1.2
"""What CUDA and PyTorch hold on each GPU: 1 GB and a buffer of 20 %."""

USABLE = 0.95
"""Share of the memory the notebook gives away."""

SOLD_GB = (5, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 256, 288)
"""Memory sizes GPUs and their MIG slices are sold with."""


@dataclass(frozen=True)
class NotebookFigures:
    """What "Simplified" computes, in bytes over all GPUs."""

    cuda: float
    """CUDA context and PyTorch."""
    model: int
    """Weights as stored in the checkpoint."""
    prefill: float
    """Intermediate tensors of one layer over the prefill batch."""
    decode: float
    """The same for one token per request."""
    kv_cache: float
    """KV cache of every request of the prefill batch, each max_total_tokens - 1 long."""
    available: float
    """95 % of the memory asked for."""

    @property
    def needed(self) -> float:
        """All parts together."""
        return self.model + self.cuda + self.prefill + self.kv_cache + self.decode

    @property
    def fits(self) -> bool:
        """Whether what is needed is available."""
        return self.available >= self.needed

    def printed(self) -> dict[str, float | bool]:
        """The notebook's result: GB with five digits, under its own names."""
        return {
            "cuda_overhead": _gb(self.cuda),
            "model_overhead": _gb(self.model),
            "prefill_overhead": _gb(self.prefill),
            "decode_overhead": _gb(self.decode),
            "kv_cache_full_overhead": _gb(self.kv_cache),
            "total_vram_available": _gb(self.available),
            "total_vram_needed": _gb(self.needed),
            "is_enough_vram": self.fits,
        }


@dataclass(frozen=True)
class NotebookTgiFigures:
    """What the variant that mimics TGI computes, in bytes and tokens over all GPUs."""

    cuda: float
    """CUDA context and PyTorch."""
    model: int
    """Weights as stored in the checkpoint."""
    prefill: float
    """Intermediate tensors of one layer over the prefill batch."""
    decode: float
    """The same for one token per request."""
    kv_per_token: float
    """KV cache of one token, all layers."""
    free: float
    """95 % of what the other parts leave: the KV budget. Negative when they alone are too large."""
    tokens_needed: int
    """Tokens of every request of the prefill batch, each max_total_tokens - 1 long."""

    @property
    def token_budget(self) -> int:
        """Whole tokens the KV budget holds."""
        return int(self.free // self.kv_per_token)

    @property
    def kv_needed(self) -> float:
        """KV cache of the tokens needed."""
        return self.tokens_needed * self.kv_per_token

    @property
    def fits(self) -> bool:
        """Whether the budget holds the tokens needed."""
        return self.token_budget >= self.tokens_needed

    def printed(self) -> dict[str, float | bool]:
        """The notebook's result: GB with five digits, under its own names."""
        return {
            "cuda_overhead": _gb(self.cuda),
            "model_overhead": _gb(self.model),
            "prefill_overhead": _gb(self.prefill),
            "kv_cache_overhead_per_token": _gb(self.kv_per_token),
            "free_vram_for_kv_cache": _gb(self.free),
            "vram_needed_for_kv_cache": _gb(self.kv_needed),
            "kv_cache_token_budget": self.token_budget,
            "kv_cache_tokens_needed": self.tokens_needed,
            "is_enough_vram": self.fits,
        }


def notebook(
    model: ModelFacts,
    num_gpus: int,
    vram_per_gpu_gb: float,
    limits: Limits,
    memory_fraction: float = 1.0,
    dtype: str = "float16",
) -> NotebookFigures:
    """Whether weights, activations and KV cache together fit 95 % of the memory (the notebook's "Simplified").

    `vram_per_gpu_gb` is the size a card is sold with (see `nominal_gb`). SpecError when a limit is
    open or the dtype is none of `DTYPE_BYTES`, FactsError when the configuration lacks a size.
    """
    tokens = _tokens(limits)
    per_token = layer_bytes(model, dtype)
    return NotebookFigures(
        cuda=CUDA_BYTES * num_gpus,
        model=model.stored_bytes,
        prefill=tokens.batch * tokens.input * per_token,
        decode=tokens.batch * per_token,
        kv_cache=tokens.needed * kv_bytes_per_token(model, dtype),
        available=vram_per_gpu_gb * num_gpus * GB * memory_fraction * USABLE,
    )


def notebook_tgi(
    model: ModelFacts,
    num_gpus: int,
    vram_per_gpu_gb: float,
    limits: Limits,
    memory_fraction: float = 1.0,
    dtype: str = "float16",
) -> NotebookTgiFigures:
    """Whether 95 % of the memory the rest leaves free holds the KV cache (the notebook's "mimic TGI logic").

    Arguments and errors as `notebook`.
    """
    tokens = _tokens(limits)
    per_token = layer_bytes(model, dtype)
    cuda = CUDA_BYTES * num_gpus
    prefill = tokens.batch * tokens.input * per_token
    decode = tokens.batch * per_token
    rest = vram_per_gpu_gb * num_gpus * GB - cuda - model.stored_bytes - prefill - decode
    return NotebookTgiFigures(
        cuda=cuda,
        model=model.stored_bytes,
        prefill=prefill,
        decode=decode,
        kv_per_token=kv_bytes_per_token(model, dtype),
        free=rest * memory_fraction * USABLE,
        tokens_needed=tokens.needed,
    )


def layer_bytes(model: ModelFacts, dtype: str) -> float:
    """Bytes of one layer's intermediate tensors for one token.

    Every tensor of the layer counts, as if none were freed before the next one is made. The three
    dropout masks are training's; the notebook keeps them to be on the safe side.
    """
    hidden, heads = _size(model, "hidden_size"), _size(model, "num_attention_heads")
    queries, keys = heads * head_dim(model), _size(model, "num_key_value_heads") * head_dim(model)
    mlp = hidden + 2 * _size(model, "intermediate_size")  # input; inputs of the activation and of the down projection
    attention = hidden + queries + 2 * keys + queries + 2 * heads  # input, q, k and v, output, softmax and its dropout
    norms = 2 * hidden
    masks = hidden + hidden + heads  # after the MLP, after attention, after the softmax: one byte each
    return (mlp + attention + norms) * _dtype_bytes(dtype) + masks * DTYPE_BYTES["int8"]


def kv_bytes_per_token(model: ModelFacts, dtype: str) -> float:
    """KV cache bytes of one token over all layers."""
    layers, heads = _size(model, "num_hidden_layers"), _size(model, "num_key_value_heads")
    return 2 * layers * heads * head_dim(model) * _dtype_bytes(dtype)


def head_dim(model: ModelFacts) -> int:
    """`head_dim` of config.json, else hidden_size // num_key_value_heads, which is the notebook's slip.

    A head has hidden_size / num_attention_heads values. Dividing by the key-value heads makes it too
    large by the number of query heads per key-value head: four times for Llama 3.1 8B, and so its KV
    cache. The slip stays, because without it none of the notebook's figures come out. Class
    defaults are not asked: the configuration class of the notebook's day had no `head_dim`.
    """
    inner = model.config.get("text_config")
    given = (inner if isinstance(inner, Mapping) else model.config).get("head_dim")
    found = given if isinstance(given, int) else _size(model, "hidden_size") // _size(model, "num_key_value_heads")
    if not found:
        raise FactsError(
            f"config.json of {model.id} leaves no element for a head by the notebook's formula.",
            "Check hidden_size and num_key_value_heads, or use the default method (--method tgi).",
        )
    return found


def nominal_gb(memory_bytes: int) -> int:
    """The size a GPU is sold with, from its memory as nvidia-smi prints it: 23034 MiB is a 24 GB card.

    The smallest size of `SOLD_GB` that memory fills to at least 93 % (ECC on GDDR6 takes a
    sixteenth); else, as for a CPU's RAM, the nearest whole GiB.
    """
    gib = memory_bytes / GiB
    return next((size for size in SOLD_GB if 0.93 * size <= gib <= size), round(gib))


@dataclass(frozen=True)
class _Tokens:
    """The limits as the notebook uses them."""

    input: int
    """max_input_tokens."""
    batch: int
    """Requests of the prefill batch: max_batch_prefill_tokens over max_input_tokens, rounded up."""
    needed: int
    """Tokens in the KV cache when all of them are one token short of max_total_tokens."""


def _tokens(limits: Limits) -> _Tokens:
    longest, total, prefill = limits.max_input_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens
    if longest is None or total is None or prefill is None:
        raise SpecError(
            "the notebook's formula has no rule for a limit that is left open",
            "give max_input_tokens, max_total_tokens and max_batch_prefill_tokens, or use --method tgi",
        )
    batch = -(-prefill // longest)
    return _Tokens(longest, batch, batch * (total - 1))


def _dtype_bytes(dtype: str) -> float:
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        raise SpecError(
            f"the notebook's formula knows no dtype '{dtype}'",
            f"it knows {', '.join(DTYPE_BYTES)}; or use --method tgi",
        ) from None


def _size(model: ModelFacts, name: str) -> int:
    value = model.text().get(name)
    if not isinstance(value, int) or value <= 0:
        raise FactsError(
            f"the notebook's formula needs {name}, which the configuration of {model.id} does not have",
            "use --method tgi, which reads this family the way TGI does",
        )
    return value


def _gb(size: float) -> float:
    """GB with the notebook's five digits."""
    return round(size / GB, 5)
