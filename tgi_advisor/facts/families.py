"""How TGI holds each model family: which class serves it, whether it shards, chunks, and in which dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ServedBy = Literal["flash", "vlm", "transformers", "padded", "seq2seq", "mamba"]


@dataclass(frozen=True, slots=True)
class Family:
    """One `model_type` as TGI's `get_model` treats it; a row of `families.yaml`."""

    model_type: str
    """config.json's model_type."""
    served_by: ServedBy
    """Kind of model class: FlashCausalLM, VlmCausalLM, the transformers fallback, padded CausalLM, Seq2SeqLM, Mamba."""
    first_release: tuple[int, int, int]
    """First release whose `get_model` knows the name."""
    shards: bool
    """Whether tensor parallelism is supported."""
    chunks: bool
    """Whether the class asks for prefill chunking (from the release on where its kind may)."""
    dtype: Literal["float16", "bfloat16"]
    """Dtype when --dtype is not given."""
    kv: Literal["heads", "mla", "replicated"]
    """KV heads: split over shards; DeepSeek's uncompressed 192; full on every shard (transformers' olmo2, phi3)."""
    mlp: Literal["gated", "plain", "moe", "parallel_gated", "parallel_plain"]
    """Shape of the feed-forward block, which decides the prefill's widest moment; `parallel` runs beside attention."""
    kv_heads_must_divide: bool
    """Whether the class refuses shard counts that do not divide the KV heads (Llama family, 2.1.0 on)."""
    kv_cache_dtype: bool
    """Whether --kv-cache-dtype reaches the class."""
    notes: str
    """What surprises people about the family."""
    source: str
    """Where it was read."""
