"""One pass of transformers' own classes on TGI's attention (TransformersFlashCausalLM).

Read at transformers v4.51.3, src/transformers/models/qwen3/modeling_qwen3.py:60-350 and :680-740 (the mask that
is made although TGI's attention ignores it), olmo2/modeling_olmo2.py:50-320 and :660-700, cohere2/modeling_cohere2.py
:65-380 and :690-740, and at TGI v3.3.7, server/text_generation_server/models/transformers_flash_causal_lm.py.
"""

from __future__ import annotations

from tgi_advisor.estimate.allocator import Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.replay.passes import Pass

NORMS_AFTER = "olmo2"
"""The family that norms what attention and the feed-forward block give, not what they are given."""
PARALLEL = "cohere2"
"""The family whose attention and feed-forward block work side by side, with a mask for each layer that has a window."""
MASKED_ONCE = "qwen3"
"""The family whose mask is not copied to keep its upper half."""


def forward(run: Pass) -> tuple[Block, ...]:
    """The pass through all layers and the last norm, as far as it reserves anything new."""
    g = run.shapes.g
    embedded = hidden = run.new(g.hidden)
    mask, tables = _mask(run), _tables(run)
    seen: set[tuple[object, ...]] = set()

    def layer(run: Pass) -> tuple[Block]:
        return (_parallel_layer(run, turns) if run.shapes.kind == PARALLEL else _layer(run),)

    for number in range(g.layers):
        turns = run.shapes.turns[number]
        (after,) = run.play(turns, layer)
        assert after is not None
        if hidden is not embedded:  # which the model holds to the end
            run.drop(hidden)
        hidden = after
        state = (run.turn(hidden), run.shapes.turns[number : number + 4])
        if state in seen:  # from here on the layers go round in a circle
            break
        seen.add(state)
    final = _mean_norm(run) if run.shapes.kind == PARALLEL else run.single_norm(g.hidden)
    run.drop(hidden, embedded, mask, *tables)
    return (final,)


def _mask(run: Pass) -> Block:
    """The mask of every token against every other: filled, its upper half copied out, and the place of each column."""
    width = run.tokens if run.shapes.kind == PARALLEL else run.tokens + 1
    filled = run.memory.new(run.tokens * width * ELEMENT)
    if run.shapes.kind != MASKED_ONCE:
        whole, filled = filled, run.memory.new(run.tokens * width * ELEMENT)
        run.drop(whole)
    run.drop(run.memory.new(run.tokens * width))
    return filled


def _tables(run: Pass) -> list[Block]:
    """Cosines and sines in float32, from a product of positions and frequencies, and in 16 bit."""
    half = run.shapes.rotary
    angles = run.new(2 * half)
    run.take_cublas()
    both = run.new(4 * half)
    singles = []
    for _ in range(2):
        bare = run.new(4 * half)
        singles.append(run.new(4 * half))  # times a number
        run.drop(bare)
    tables = [run.new(2 * half), run.new(2 * half)]
    run.drop(angles, both, *singles)
    return tables


def _layer(run: Pass) -> Block:
    """A layer whose hidden states the caller holds until it is done."""
    g = run.shapes.g
    after = run.shapes.kind == NORMS_AFTER
    normed = None if after else run.single_norm(g.hidden)
    out = _attention(run)
    run.drop(normed)
    out = _normed(run, out) if after else out
    joined = run.new(g.hidden)
    run.drop(out)
    normed = None if after else run.single_norm(g.hidden)
    fed = _feed_forward(run)
    run.drop(normed)
    fed = _normed(run, fed) if after else fed
    result = run.new(g.hidden)
    run.drop(fed, joined)
    return result


def _parallel_layer(run: Pass, turns: bool) -> Block:
    """Cohere 2's: one norm feeds both; `turns`: whether it has a window, and so positions and a mask of its own."""
    g, memory = run.shapes.g, run.memory
    square = run.tokens * run.tokens
    masks: list[Block] = []
    if turns:
        ones = memory.new(square)
        masks = [memory.new(square)]
        run.drop(ones)
        masks.append(memory.new(square * ELEMENT))
    normed = _mean_norm(run)
    out = _attention(run, wide=True, turns=turns)
    fed = _feed_forward(run)
    joined = run.new(g.hidden)
    result = run.new(g.hidden)
    run.drop(joined, normed, *masks, out, fed)
    return result


def _attention(run: Pass, wide: bool = False, turns: bool = True) -> Block:
    """Queries, keys and values each by itself; turned, in float32 where `wide`."""
    shapes, g = run.shapes, run.shapes.g
    query, key = _head(run, g.query), _head(run, g.kv)
    value = run.project(g.hidden, g.kv, shapes.bias_in)
    if turns and wide:
        turned_query, turned_key = _turned_wide(run)
    elif turns:
        turned_query, turned_key = _turned(run, g.query), _turned(run, g.kv)
    if turns:
        run.drop(query, key)
        query, key = turned_query, turned_key
    attended = run.new(g.query)
    out = _summed(run, run.project(g.query, g.hidden, shapes.bias_out))
    run.drop(attended, query, key, value)
    return out


def _feed_forward(run: Pass) -> Block:
    g = run.shapes.g
    gate = run.project(g.hidden, g.intermediate)
    activated = run.new(g.intermediate)
    run.drop(gate)
    up = run.project(g.hidden, g.intermediate)
    product = run.new(g.intermediate)
    run.drop(activated, up)
    fed = _summed(run, run.project(g.intermediate, g.hidden))
    run.drop(product)
    return fed


def _normed(run: Pass, given: Block) -> Block:
    """What is given, normed."""
    normed = run.single_norm(run.shapes.g.hidden)
    run.drop(given)
    return normed


def _mean_norm(run: Pass) -> Block:
    """Cohere 2's norm in float32: less its mean, twice, scaled, weighted, and back to 16 bit."""
    wide = run.shapes.g.hidden
    single = run.new(2 * wide)
    less, squared = run.new(2 * wide), run.new(2 * wide)
    run.drop(less, squared)
    less, scaled = run.new(2 * wide), run.new(2 * wide)
    run.drop(less, single)
    weighted = run.new(2 * wide)
    run.drop(scaled)
    out = run.new(wide)
    run.drop(weighted)
    return out


def _summed(run: Pass, out: Block) -> Block:
    """A row-parallel product summed over the shards, which PyTorch's DTensor does in a copy.

    https://github.com/huggingface/transformers/blob/v4.51.3/src/transformers/integrations/tensor_parallel.py#L401-L410
    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/csrc/distributed/c10d/Functional.cpp#L84-L92
    """
    if not run.shapes.sharded:
        return out
    copied = run.new(run.shapes.g.hidden)
    run.drop(out)
    return copied


def _head(run: Pass, width: int) -> Block:
    """Queries or keys, normed head by head where the family does that."""
    projected = run.project(run.shapes.g.hidden, width, run.shapes.bias_in)
    if not run.shapes.head_norms:
        return projected
    normed = run.single_norm(width)
    run.drop(projected)
    return normed


def _turned(run: Pass, width: int, single: int = 1) -> Block:
    """Rotation by halves: the part times the cosine, the halves swapped, times the sine, and their sum.

    `single` is 2 where it is done in float32.
    """
    cosine, half = run.new(single * width), run.new(single * width // 2)
    swapped = run.new(single * width)
    run.drop(half)
    sine = run.new(single * width)
    run.drop(swapped)
    out = run.new(single * width)
    run.drop(cosine, sine)
    return out


def _turned_wide(run: Pass) -> tuple[Block, Block]:
    """Queries and keys turned in float32 and back in 16 bit."""
    g = run.shapes.g
    singles = [run.new(2 * g.query), run.new(2 * g.kv)]
    singles += [_turned(run, g.query, 2), _turned(run, g.kv, 2)]
    turned = run.new(g.query), run.new(g.kv)
    run.drop(*singles)
    return turned
