"""What the engines' start-up sums have in common: the weights, the layers that keep a cache, and the outcome.

Weights, geometry, context, communicators are TGI's estimates of the same quantities; what an engine holds in another
way than TGI is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol, cast

from tgi_advisor.engines.facts import Engine
from tgi_advisor.engines.translate import Told
from tgi_advisor.estimate import overhead
from tgi_advisor.estimate import weights as held_by_tgi
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.units import human, thousands

Outcome = Literal["starts", "refused", "out_of_memory"]


class Start(NamedTuple):
    """What an engine makes of one GPU when it starts."""

    outcome: Outcome
    """Whether it starts."""
    reason: str
    """Why not, one sentence; empty when it starts."""
    setting: tuple[tuple[str, str], ...]
    """The memory setting: flag and value."""
    why: str
    """Why this setting."""
    pool_bytes: int
    """Bytes of the KV cache on one GPU; negative: missing."""
    spread_bytes: int
    """How far off that may be."""
    bytes_per_token: int
    """Bytes one token of a request of the longest length takes on one GPU, on average."""
    tokens: int
    """Tokens the KV cache holds, in requests of the longest length."""
    tokens_low: int
    """The same at the lower end of the spread."""
    tokens_high: int
    """The same at the upper end."""
    context: int | None
    """Longest request; None where the engine takes the model's."""
    parts: tuple[Part, ...]
    """Where every byte of the GPU goes; they add up to its memory."""
    total_bytes: int
    """The GPU's memory as nvidia-smi prints it."""

    @property
    def concurrency(self) -> float | None:
        """Requests of the longest length that fit together."""
        return self.tokens / self.context if self.context else None


class Sums(Protocol):
    """An engine's module `memory`."""

    def start(self, engine: Engine, setting: Setting, told: Told, given: Mapping[str, str], wanted: int) -> Start:
        """The start with the memory setting given, or with one that holds `wanted` tokens."""


def of(engine: Engine) -> Sums:
    """The start-up sum of an engine, which lies in its folder."""
    return cast("Sums", import_module(f"tgi_advisor.engines.{engine.name}.memory"))


def is_latent(model: ModelFacts) -> bool:
    """Whether attention keeps one latent vector for each token (DeepSeek's)."""
    return isinstance(model.text().get("kv_lora_rank"), int)


def token_bytes_of_layer(setting: Setting, element: int) -> int:
    """Bytes one token's keys and values take in one layer of one GPU, with `element` bytes each.

    Fewer KV heads than GPUs are replicated (sglang@0.5.23:srt/configs/model_config.py:1700, and vLLM alike).
    """
    model = setting.facts.model
    if is_latent(model):
        return families.latent(model) * element
    heads = max(1, families.kv_heads(model) // setting.num_shard)
    return heads * families.head_size(model, setting.family) * 2 * element


def element_bytes(setting: Setting, told: Told) -> int:
    """Bytes of one element of the KV cache."""
    kind = told.flags.get("--kv-cache-dtype", ("auto",))[0]
    return 1 if kind.startswith("fp8") else 4 if setting.dtype == "float32" else 2


def weights(setting: Setting, told: Told) -> Part:
    """Weights of one GPU. Unlike TGI, both engines keep tied embeddings once and quantize every projection to fp8."""
    model, tp = setting.facts.model, setting.num_shard
    method = told.flags.get("--quantization", ("",))[0]
    plain = setting._replace(quantize=None) if setting.quantize in held_by_tgi.ON_THE_FLY else setting
    kv_heads = families.kv_heads(model) if not is_latent(model) else tp
    tied = bool(model.text().get("tie_word_embeddings", model.config.get("tie_word_embeddings")))
    total = 0
    for group, kind, _, size, _ in held_by_tgi.held(plain):
        if kind == "head" and tied:
            continue
        matrix = kind in ("column", "row") and len(group.shape) == 2 and group.dtype in ("F16", "BF16", "F32")
        if matrix and method:
            size = round(size * _bits(method) / 16)
        if tp > kv_heads and any(name in group.name for name in ("k_proj.", "v_proj.")):
            size = size * tp // kv_heads
        total += size
    why = f"{human(model.stored_bytes)} stored" + (f", one of {tp} shards" if tp > 1 else "")
    return Part("weights", total, "exact", why + (f", {method} while loading" if method else ""))


def _bits(method: str) -> float:
    """Bits per weight of what quantizes while loading."""
    return held_by_tgi.quantized_bits("bitsandbytes-nf4") if method == "bitsandbytes" else 8


def outside(setting: Setting) -> tuple[Part, ...]:
    """What is on the card before an engine looks: driver, other processes, its own context and communicators."""
    in_use = setting.spec.hardware.in_use
    others = [Part("other processes", in_use, "exact", "hardware.in_use of the spec")] if in_use else []
    found = [overhead.driver_reserve(setting), *others, overhead.context(setting), overhead.communicators(setting)]
    return tuple(part for part in found if part is not None and part.bytes)


def persistent(engine: Engine, setting: Setting) -> int:
    """Bytes that stay outside weights and PyTorch's peak once the model has run."""
    row, gpu = engine.sum, setting.facts.gpu
    if setting.num_shard == 1:
        return row.persistent
    return row.persistent_several if gpu.at_least >= (9, 0) else row.persistent_older


def too_short(engine: Engine, context: int, tokens: int) -> str:
    """What is wrong where the KV cache does not hold one request of the longest length."""
    return (
        f"the KV cache holds {thousands(max(0, tokens))} tokens, and one request may have {thousands(context)}: "
        f"{engine.title} needs room for one. Set limits.max_total_tokens to {max(0, tokens) // 256 * 256}, or free "
        "memory"
    )


def text_of(value: float) -> str:
    """A share with as many digits as it needs."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def plain(start: Start) -> dict[str, Any]:
    """A start as JSON's objects."""
    row = start._asdict()
    row["parts"] = [
        {"name": part.name, "bytes": part.bytes, "basis": part.basis, "why": part.why} for part in start.parts
    ]
    row["setting"] = dict(start.setting)
    row["concurrency"] = start.concurrency
    return row
