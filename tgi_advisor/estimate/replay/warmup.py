"""The warm-up in TGI's order: its KV cache, one prefill, logits, sampling; then what is free is read.

Read at v3.3.7, server/text_generation_server/models/flash_causal_lm.py:1511-1590, and at v2.2.0, :1030-1090 and
:1370-1510 (logits of every prefill token and their log-softmax); server.py:98-111 and layers/gptq/exllamav2.py:60-160
(exllama's buffers, made before anything else).
"""

from collections.abc import Hashable
from typing import NamedTuple

from tgi_advisor.estimate import exllama
from tgi_advisor.estimate.allocator import Allocator, State
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.peak import Batch
from tgi_advisor.estimate.replay import fallback, layers, sampling, shapes
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.estimate.replay.shapes import Shapes
from tgi_advisor.estimate.replay.tapes import Tape
from tgi_advisor.estimate.setting import Setting

OF_A_TOKEN = (8, 4, 8, 8, 8)
"""Bytes the batch itself holds for a token: its id, position, place among the slots, adapter, and slot.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L961-L1162
"""
RAGGED = 4
"""Bytes for a token in the block table as flashinfer takes it.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/metadata_kernels.py#L63-L66
"""


class Replayed(NamedTuple):
    """What PyTorch has reserved, in bytes."""

    loaded: int
    """When the model is there and the cache emptied."""
    peak: int
    """At the end of the warm-up's prefill: what TGI then sees as used, beside what lies outside PyTorch."""


class Prefill(NamedTuple):
    """What one prefill adds to what the allocator held before it, in bytes."""

    layers: int
    """Reserved when the last layer is done."""
    whole: int
    """Reserved when the next tokens are drawn; less than before where PyTorch had to give its cache back."""
    alive_layers: int
    """In use at the widest moment of the layers."""
    alive: int
    """In use at the widest moment of all."""
    small: int
    """What of `whole` is in segments for small requests."""


def warm_up(setting: Setting, g: Geometry, after_loading: State, batch: Batch) -> Replayed:
    """Replay the warm-up on the allocator that loading left behind."""
    ready = prepared(setting, g, after_loading)
    held = with_cache(ready, cache_tensor(setting, g, batch.blocks), 2 * g.layers)
    added = prefill(setting, shapes.of(setting, g), held, batch)
    return Replayed(after_loading.reserved, held.reserved + added.whole)


def prepared(setting: Setting, g: Geometry, after_loading: State) -> State:
    """The allocator when the warm-up begins: where exllama multiplies, it has its orders of rows by then."""
    if not exllama.applies(setting):
        return after_loading
    memory = Allocator(after_loading)
    for size in exllama.orders(setting, g):
        memory.new(size)
    return memory.state()


def cache_tensor(setting: Setting, g: Geometry, blocks: int) -> int:
    """Bytes of one tensor of a KV cache of so many blocks: the keys or the values of one layer."""
    return blocks * setting.block_size * g.kv_bytes_per_token // (2 * g.layers)


def with_cache(state: State, size: int, tensors: int, most: int | None = None) -> State:
    """The allocator once a KV cache of so many tensors of `size` bytes is there.

    OutOfMemoryError where `most` bytes do not hold it.
    """
    memory = Allocator(state, most)
    memory.fill(size, tensors)
    return memory.state()


def prefill(
    setting: Setting, widths: Shapes, held: State, batch: Batch, most: int | None = None, *, brisk: bool = False,
    tapes: dict[Hashable, Tape | None] | None = None,
) -> Prefill:  # fmt: skip
    """One prefill of a batch on an allocator that holds its KV cache.

    With `brisk`, layers end their turns sooner, and sampling that finds room in what they left is not replayed.
    `tapes` are those of other prefills of the launch, which this one adds to.
    OutOfMemoryError where `most` reserved bytes are too few even when PyTorch has given its cache back.
    """
    g, requests, tokens = widths.g, batch.requests, batch.tokens
    memory = Allocator(held, most)
    if exllama.applies(setting):
        memory.new(exllama.scratch(setting, g, tokens))
    for width in (*OF_A_TOKEN, RAGGED) if setting.attention == "flashinfer" else OF_A_TOKEN:
        memory.new(width * tokens)
    run = Pass(widths, memory, tokens, _windowed(batch, widths.window), min(batch.longest, tokens))
    run.brisk = brisk
    if tapes is not None:
        run.tapes = tapes
    if setting.family.served_by == "transformers":
        alive = fallback.forward(run)
    elif setting.family.served_by == "vlm":
        from tgi_advisor.estimate.replay import vision  # most launches look at nothing

        alive = vision.forward(run, setting, batch.requests, batch.longest)
    else:
        alive = layers.forward(run)
    reserved, most_alive = memory.reserved, memory.most_alive
    every = setting.prefill_logprobs
    _, *guessed = sampling.with_guesses(run, tokens if every else requests)
    run.drop(*alive)
    if every:
        memory.new(requests * g.vocabulary * ELEMENT)
        for one in guessed:  # those of the last tokens are copied
            memory.new(one.size * requests // tokens)
            memory.release(one)
    if not brisk or memory.room < sampling.all_of_it(requests, g.vocabulary):
        sampling.sample(memory, requests, g.vocabulary)
    memory.new(requests * g.vocabulary * ELEMENT)
    if every:
        gathered = g.vocabulary_shard != g.vocabulary and not widths.on_rocm
        copies = int(gathered) + int(gathered or setting.facts.release.prefill_logits == "two_copies")
        for _ in range(copies):
            memory.new(tokens * g.vocabulary * ELEMENT)
    before = held.reserved, held.alive
    return Prefill(
        reserved - before[0], memory.reserved - before[0], most_alive - before[1], memory.most_alive - before[1],
        memory.in_small,
    )  # fmt: skip


def _windowed(batch: Batch, window: int | None) -> int:
    """Prompt tokens that lie in the sliding windows of their requests; 0 without one."""
    if window is None:
        return 0
    others = batch.requests - 1
    return others * min(batch.longest, window) + min(batch.tokens - others * batch.longest, window)
