"""One forward pass, tensor by tensor, through a model of PyTorch's allocator.

The order in which TGI's modeling code makes and drops tensors decides what the allocator keeps
reserved, and with it the free memory TGI measures. Python keeps more alive than the arithmetic
needs: a layer's caller still holds the previous hidden states and residual while the layer runs,
and every local of `forward` lives until it returns. Per token of a Llama layer that makes
4 I + 7 h elements at the widest moment, not the 3 I or so of a textbook.

Read at v3.3.7 under server/text_generation_server/models/custom_modeling:
flash_llama_modeling.py:447-495 (and Mistral, Qwen2, Gemma alike), flash_gemma2_modeling.py:420-462,
flash_cohere_modeling.py, flash_rw_modeling.py, flash_neox_modeling.py (parallel),
flash_deepseek_v3_modeling.py:298-371, layers/layernorm.py:100-185, moe-kernels' fused_moe.
"""

from functools import lru_cache
from typing import NamedTuple

from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.setting import Setting

ELEMENT = 2
"""Bytes of an activation element: float16 or bfloat16."""
WIDE_NORM = 8192
"""Hidden size above which TGI's RMSNorm falls back to PyTorch, in float32."""
SANDWICH = frozenset({"gemma2", "gemma3", "gemma3_text"})
"""Families that norm the output of attention and feed-forward once more, all in float32."""
TOKENS = 16384
"""Tokens of the pass that is replayed: so many that every tensor has a segment of its own."""
LAYERS = 3
"""Layers replayed: from the second on every layer finds the same blocks free."""


class Reserved(NamedTuple):
    """What one prefill makes the allocator keep, in bytes per prefill token."""

    layers: int
    """The widest moment of the layers, rounding and blocks that fit nothing else included."""
    logits: int
    """Full-vocabulary logits and their copies on top, where every prefill token has them."""
    alive: int
    """The widest moment of the layers alone: what has to fit when PyTorch has given its cache back."""
    left: int
    """What is alive when the logits are done: the last hidden states, the logits and their copies."""


class _Pass:
    """The pass over `TOKENS` tokens: tensors by their width in elements per token."""

    def __init__(self, setting: Setting, g: Geometry) -> None:
        self.setting = setting
        self.g = g
        self.memory = Allocator()

    def new(self, width: float) -> Block:
        """A tensor of `width` elements per token."""
        return self.memory.new(round(width * TOKENS * ELEMENT))

    def drop(self, *tensors: Block | None, keep: tuple[Block | None, ...] = ()) -> None:
        """Tensors that go out of scope, each once, except those still held."""
        gone = {id(tensor): tensor for tensor in tensors if tensor is not None}
        for tensor in keep:
            gone.pop(id(tensor), None)
        self.memory.release(*gone.values())


def reserved(setting: Setting, g: Geometry) -> Reserved:
    """Bytes per prefill token one forward pass keeps reserved."""
    run = _Pass(setting, g)
    hidden, residual = run.new(g.hidden), None
    for _ in range(LAYERS):
        after, carried = _layer(run, hidden, residual)
        run.drop(hidden, residual, keep=(after, carried))
        hidden, residual = after, carried
    final, summed = _norm(run, hidden, residual)
    run.drop(hidden, residual, summed, keep=(final,))
    layers, alive = run.memory.reserved, run.memory.most_alive
    if setting.prefill_logprobs:
        _logits(run)
    on_top = run.memory.reserved - layers
    return Reserved(-(-layers // TOKENS), -(-on_top // TOKENS), -(-alive // TOKENS), -(-run.memory.alive // TOKENS))


def _layer(run: _Pass, hidden: Block, residual: Block | None) -> tuple[Block, Block | None]:
    """One decoder layer; the caller holds what it passes in until the layer has returned."""
    family, g = run.setting.family, run.g
    if family.served_by == "transformers" or family.automodel:
        return _transformers_layer(run)
    normed, summed = _norm(run, hidden, residual)
    attended = _attention(run)
    if family.mlp in ("parallel_gated", "parallel_plain"):
        fed = _feed_forward(run)
        out = run.new(g.hidden)
        run.drop(normed, attended, fed, summed, keep=(hidden, residual, out, summed))
        return out, summed
    if family.model_type in SANDWICH:
        inner, _ = _norm(run, attended, None)
        joined = run.new(g.hidden)
        run.drop(inner)
        before, _ = _norm(run, joined, None)
        fed = _feed_forward(run)
        out, _ = _norm(run, fed, None)
        run.drop(normed, summed, attended, before, fed, keep=(hidden, residual, out, joined))
        return out, joined
    again, carried = _norm(run, attended, summed)
    out = _feed_forward(run)
    run.drop(normed, summed, attended, again, keep=(hidden, residual, out, carried))
    return out, carried


def _norm(run: _Pass, hidden: Block, residual: Block | None) -> tuple[Block, Block]:
    """(normed, residual): TGI's fused kernel makes both anew, ROCm's works in place, some go through float32."""
    wide = run.g.hidden
    if run.setting.facts.gpu.system == "rocm":
        return (hidden, residual) if residual is not None else (run.new(wide), hidden)
    if wide > WIDE_NORM or run.setting.family.model_type in SANDWICH:
        single = run.new(2 * wide)
        squared = run.new(2 * wide)
        run.drop(squared)
        scaled = run.new(2 * wide)
        run.drop(single)
        half = run.new(wide)
        run.drop(scaled)
        weighted = run.new(wide)
        run.drop(half)
        return weighted, hidden
    return run.new(wide), hidden if residual is None else run.new(wide)


def _attention(run: _Pass) -> Block:
    """Fused q, k, v; their attention; the output projection."""
    g = run.g
    if run.setting.family.kv == "mla":
        return _latent_attention(run)
    qkv = run.new(g.query + 2 * g.kv)
    attended = run.new(g.query)
    out = run.new(g.hidden)
    run.drop(qkv, attended)
    return out


def _latent_attention(run: _Pass) -> Block:
    """DeepSeek: the latent is expanded, and queries, keys and values are padded to one head size (each a copy)."""
    g = run.g
    query, expanded, key = run.new(g.query), run.new(g.query * 4 / 3), run.new(g.query)
    padded_query = run.new(g.query)
    run.drop(query)
    padded_key = run.new(g.query)
    run.drop(key)
    value, attended = run.new(g.query), run.new(g.query)
    flat = run.new(g.query * 2 / 3)
    out = run.new(g.hidden)
    run.drop(expanded, padded_query, padded_key, value, attended, flat)
    return out


def _feed_forward(run: _Pass) -> Block:
    """The feed-forward block of the family."""
    g = run.g
    match run.setting.family.mlp:
        case "gated" | "parallel_gated":
            both = run.new(2 * g.intermediate)
            activated = run.new(g.intermediate)
            product = run.new(g.intermediate)
            run.drop(activated)
            out = run.new(g.hidden)
            run.drop(both, product)
        case "plain" | "parallel_plain":
            wide = run.new(g.intermediate)
            activated = run.new(g.intermediate)
            run.drop(wide)
            out = run.new(g.hidden)
            run.drop(activated)
        case "moe":
            out = _mixture(run)
    return out


def _mixture(run: _Pass) -> Block:
    """TGI's fused experts: both intermediate results and the unreduced output of every chosen expert at once."""
    g = run.g
    scores = run.new(g.experts + 2 * g.experts)
    first = run.new(g.experts_per_token * 2 * g.intermediate)
    second = run.new(g.experts_per_token * g.intermediate)
    third = run.new(g.experts_per_token * g.hidden)
    out = run.new(g.hidden)
    run.drop(scores, first, second, third)
    return out


def _transformers_layer(run: _Pass) -> tuple[Block, None]:
    """A layer of transformers' own modeling code: float32 norms, separate q, k, v, rotation by halves."""
    g = run.g
    normed = _single_norm(run)
    query, key, value = run.new(g.query), run.new(g.kv), run.new(g.kv)
    cosine, halves = run.new(g.query), run.new(g.query)
    rotated = run.new(g.query)
    run.drop(cosine, halves, query)
    attended = run.new(g.query)
    projected = run.new(g.hidden)
    run.drop(normed, key, value, rotated, attended)
    joined = run.new(g.hidden)
    run.drop(projected)
    normed = _single_norm(run)
    gate = run.new(g.intermediate)
    activated = run.new(g.intermediate)
    run.drop(gate)
    up, product = run.new(g.intermediate), run.new(g.intermediate)
    run.drop(activated, up)
    fed = run.new(g.hidden)
    out = run.new(g.hidden)
    run.drop(normed, product, fed, joined)
    return out, None


def _single_norm(run: _Pass) -> Block:
    """transformers' RMSNorm: float32 copy, its square, the scaled copy, back to 16 bit, times the weight."""
    wide = run.g.hidden
    single, squared = run.new(2 * wide), run.new(2 * wide)
    run.drop(squared)
    half = run.new(wide)
    out = run.new(wide)
    run.drop(single, half)
    return out


def _logits(run: _Pass) -> None:
    """Logits of every prefill token, and their log-softmax: a copy up to 2.3.1, in place from 2.4.0.

    Under tensor parallelism the shard's slice is gathered into a whole that the rest sees transposed.
    PyTorch's softmax makes that contiguous before it starts, and where it is also the output (2.4.0 on)
    writes to a third tensor first: two more copies in every release.
    https://github.com/pytorch/pytorch/blob/v2.4.0/aten/src/ATen/native/cuda/SoftMax.cu#L767
    https://github.com/pytorch/pytorch/blob/v2.4.0/aten/src/ATen/native/SoftMax.cpp#L482-L517
    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/layers/tensor_parallel.py#L85-L115
    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/models/flash_causal_lm.py#L1504
    https://github.com/huggingface/text-generation-inference/blob/v2.4.0/server/text_generation_server/models/flash_causal_lm.py#L2046
    """
    g = run.g
    gathered = g.vocabulary_shard != g.vocabulary
    slice_ = run.new(g.vocabulary_shard) if gathered else None
    run.new(g.vocabulary)
    run.drop(slice_)
    if gathered or run.setting.facts.release.prefill_logits == "two_copies":
        run.new(g.vocabulary)
    if gathered:
        run.new(g.vocabulary)


def loading_slack(setting: Setting, g: Geometry) -> int:
    """Bytes of segments that loading leaves half used.

    Separate q, k, v and gate, up tensors are moved to the GPU one by one, joined, and dropped; later
    tensors land in the gaps and pin their segments. Checkpoints whose projections are stored fused
    leave nothing behind.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/weights.py#L370-L398
    """
    names = {group.name.rpartition(".")[0].rpartition(".")[2] for group in setting.facts.model.tensors}
    if "q_proj" not in names or not setting.family.paged:
        return 0
    return _slack(g, "gate_proj" in names, ELEMENT if setting.quantize is None else ELEMENT / 4)


@lru_cache(maxsize=64)
def _slack(g: Geometry, gated: bool, width: float) -> int:
    """The same for elements of so many bytes."""
    memory = Allocator()
    table = g.vocabulary_shard * g.hidden * ELEMENT
    read = memory.new(table)
    memory.new(table + g.hidden * ELEMENT)
    memory.release(read)
    for _ in range(g.layers):
        _joined(memory, [round(size * g.hidden * width) for size in (g.query, g.kv, g.kv)])
        memory.new(round(g.query * g.hidden * width))
        if g.experts == 0 and gated:
            _joined(memory, [round(g.intermediate * g.hidden * width)] * 2)
            memory.new(round(g.intermediate * g.hidden * width))
        memory.new(g.hidden * ELEMENT)
        memory.new(g.hidden * ELEMENT)
    memory.new(table)
    memory.empty_cache()
    return memory.reserved - memory.alive


def _joined(memory: Allocator, sizes: list[int]) -> None:
    """Tensors moved to the GPU, concatenated, and dropped."""
    pieces = [memory.new(size) for size in sizes]
    memory.new(sum(sizes))
    memory.release(*pieces)
