"""One pass of transformers' own classes on TGI's attention (TransformersFlashCausalLM).

Read at transformers v4.51.3, src/transformers/models/qwen3/modeling_qwen3.py:60-310 and :680-740 (the mask that
is made although TGI's attention ignores it), and at TGI v3.3.7,
server/text_generation_server/models/transformers_flash_causal_lm.py.
"""

from __future__ import annotations

from tgi_advisor.estimate.allocator import Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.replay.passes import Pass


def forward(run: Pass) -> tuple[Block, ...]:
    """The pass through all layers and the last norm, as far as it reserves anything new."""
    g = run.shapes.g
    hidden = run.new(g.hidden)
    square = run.tokens * (run.tokens + 1)
    mask = run.memory.new(square * ELEMENT)
    run.drop(run.memory.new(square))
    tables = [run.new(2 * run.shapes.rotary), run.new(2 * run.shapes.rotary)]
    seen: set[tuple[object, ...]] = set()
    for _ in range(g.layers):
        hidden = _layer(run, hidden)
        state = run.turn(hidden)
        if state in seen:  # from here on the layers go round in a circle
            break
        seen.add(state)
    final = run.single_norm(g.hidden)
    run.drop(hidden, mask, *tables)
    return (final,)


def _layer(run: Pass, hidden: Block) -> Block:
    shapes, g = run.shapes, run.shapes.g
    normed = run.single_norm(g.hidden)
    query, key = _head(run, g.query), _head(run, g.kv)
    value = run.product(g.kv, shapes.bias_in)
    turned_query, turned_key = _turned(run, g.query), _turned(run, g.kv)
    run.drop(query, key)
    attended = run.new(g.query)
    out = _summed(run, run.product(g.hidden, shapes.bias_out))
    run.drop(attended, turned_query, turned_key, value, normed)
    joined = run.new(g.hidden)
    run.drop(out, hidden)
    normed = run.single_norm(g.hidden)
    gate = run.product(g.intermediate)
    activated = run.new(g.intermediate)
    run.drop(gate)
    up = run.product(g.intermediate)
    product = run.new(g.intermediate)
    run.drop(activated, up)
    fed = _summed(run, run.product(g.hidden))
    run.drop(product, normed)
    after = run.new(g.hidden)
    run.drop(fed, joined)
    return after


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
    projected = run.product(width, run.shapes.bias_in)
    if not run.shapes.head_norms:
        return projected
    normed = run.single_norm(width)
    run.drop(projected)
    return normed


def _turned(run: Pass, width: int) -> Block:
    """Rotation by halves: the part times the cosine, the halves swapped, times the sine, and their sum."""
    cosine, half = run.new(width), run.new(width // 2)
    swapped = run.new(width)
    run.drop(half)
    sine = run.new(width)
    run.drop(swapped)
    out = run.new(width)
    run.drop(cosine, sine)
    return out
