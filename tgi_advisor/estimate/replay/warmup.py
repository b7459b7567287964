"""The warm-up in TGI's order: its KV cache, one prefill, logits, sampling; then what is free is read.

Read at v3.3.7, server/text_generation_server/models/flash_causal_lm.py:1511-1590, and at v2.2.0, :1030-1090 and
:1370-1510 (logits of every prefill token and their log-softmax); server.py:98-111 and layers/gptq/exllamav2.py:60-160
(exllama's buffers, made before anything else).
"""

from __future__ import annotations

from typing import NamedTuple

from tgi_advisor.estimate import exllama
from tgi_advisor.estimate.allocator import Allocator, State
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.replay import fallback, layers, sampling, shapes, vision
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.estimate.setting import Setting

OF_A_TOKEN = (8, 4, 8, 8, 8)
"""Bytes the batch itself holds for a token: its id, position, place among the slots, adapter, and slot.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L961-L1162
"""
RAGGED = 4
"""Bytes for a token in the block table as flashinfer takes it.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/metadata_kernels.py#L63-L66
"""


class Batch(NamedTuple):
    """The batch TGI warms up with."""

    requests: int
    """Requests in it."""
    tokens: int
    """Their prompt tokens together."""
    longest: int
    """Prompt tokens of each request but the last, which gets what is left."""
    blocks: int
    """KV blocks they take."""


class Replayed(NamedTuple):
    """What PyTorch has reserved, in bytes."""

    loaded: int
    """When the model is there and the cache emptied."""
    peak: int
    """At the end of the warm-up's prefill: what TGI then sees as used, beside what lies outside PyTorch."""


def warm_up(setting: Setting, g: Geometry, after_loading: State, batch: Batch) -> Replayed:
    """Replay the warm-up on the allocator that loading left behind."""
    memory = Allocator(after_loading)
    if exllama.applies(setting):
        for size in exllama.buffers(setting, g, batch.tokens):
            memory.new(size)
    tensor = batch.blocks * setting.block_size * g.kv_bytes_per_token // (2 * g.layers)
    for _ in range(2 * g.layers):  # keys and values of each layer are tensors of their own
        memory.new(tensor)
    for width in (*OF_A_TOKEN, RAGGED) if setting.attention == "flashinfer" else OF_A_TOKEN:
        memory.new(width * batch.tokens)
    widths = shapes.of(setting, g)
    run = Pass(widths, memory, batch.tokens, _windowed(batch, widths.window), min(batch.longest, batch.tokens))
    if setting.family.served_by == "transformers":
        alive = fallback.forward(run)
    elif setting.family.served_by == "vlm":
        alive = vision.forward(run, setting, batch.requests, batch.longest)
    else:
        alive = layers.forward(run, setting.facts.release.version)
    every = setting.prefill_logprobs
    sampling.logits(run, batch.tokens if every else batch.requests)
    run.drop(*alive)
    if every:
        memory.new(batch.requests * g.vocabulary * ELEMENT)
    sampling.sample(memory, batch.requests, g.vocabulary)
    memory.new(batch.requests * g.vocabulary * ELEMENT)
    if every:
        gathered = g.vocabulary_shard != g.vocabulary and not widths.on_rocm
        copies = int(gathered) + int(gathered or setting.facts.release.prefill_logits == "two_copies")
        for _ in range(copies):
            memory.new(batch.tokens * g.vocabulary * ELEMENT)
    return Replayed(after_loading.reserved, memory.reserved)


def _windowed(batch: Batch, window: int | None) -> int:
    """Prompt tokens that lie in the sliding windows of their requests; 0 without one."""
    if window is None:
        return 0
    others = batch.requests - 1
    return others * min(batch.longest, window) + min(batch.tokens - others * batch.longest, window)
