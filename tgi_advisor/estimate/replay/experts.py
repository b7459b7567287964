"""A mixture of experts in a pass: how tokens are routed, what the chosen experts make, what is left of it.

Four ways to run the experts: `fused` (one kernel over all of them, TGI's default since 2.0.0), `sparse` (Megablocks,
before), `marlin` (one kernel over GPTQ and AWQ weights repacked for Marlin) and `one_by_one` (every expert over every
token, where no kernel takes the weights).

Read at TGI v3.3.7 and v2.2.0 under server/text_generation_server: layers/moe/__init__.py:135-205,
layers/moe/unquantized.py:180-265, layers/moe/gptq_marlin.py:240-355,
models/custom_modeling/flash_dbrx_modeling.py:385-425, flash_deepseek_v3_modeling.py:440-465, and at v2.2.0
flash_mixtral_modeling.py:320-470, flash_deepseek_v2_modeling.py:320-380 and :810-990. The kernels:
danieldk/moe-kernels v0.7.0 and v0.8.2 (TGI 2.3.0 on), moe_kernels/fused_moe.py:430-680 and
_fused_marlin_moe.py:130-330, csrc/moe/marlin_moe_ops.cu:480-520; Narsil/vllm d243e9d (TGI 2.2.0),
vllm/model_executor/layers/fused_moe/fused_moe.py:166-480.
"""

from __future__ import annotations

from tgi_advisor.estimate.allocator import Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.estimate.replay.shapes import Mixture

ROWS, FEW_ROWS = 64, 16
"""Rows one block of the fused kernel works on, and where there are no more tokens than experts: each expert's are
padded to it."""


def feed(run: Pass, normed: Block) -> Block:
    """The mixture's output for the hidden states `normed`: those themselves, where the kernel writes in place."""
    mixture, g = run.shapes.mixture, run.shapes.g
    assert mixture is not None
    beside = run.gated(mixture.shared) if mixture.shared else None
    logits = run.product(g.experts)
    if mixture.way == "sparse":
        return _sparse(run, mixture, logits)
    routing = _routed(run, mixture)
    match mixture.way:
        case "fused":
            out = _fused(run, mixture, normed)
        case "marlin":
            out = _marlin(run, mixture)
        case "one_by_one":
            out = _one_by_one(run, mixture, routing)
    if not mixture.vllm:
        run.drop(*routing)
    for _ in range(int(mixture.scaled) + int(beside is not None)):
        result = run.new(g.hidden)
        if out is not normed:
            run.drop(out)
        out = result
    run.drop(beside, logits, *(routing if mixture.vllm else ()))
    return out


def _routed(run: Pass, mixture: Mixture) -> list[Block]:
    """The weights and the numbers of each token's experts."""
    chosen = run.shapes.g.experts_per_token
    if mixture.groups:
        return _grouped(run, mixture)
    if mixture.vllm and mixture.way == "one_by_one":
        return _masked(run)
    weights, numbers, indices = run.new(2 * chosen), run.new(2 * chosen), run.new(2 * chosen)
    run.drop(run.new(2 * run.shapes.g.experts))  # the scores in float32
    run.drop(indices)
    return [_renormalized(run, weights, 2), numbers]


def _sparse(run: Pass, mixture: Mixture, logits: Block) -> Block:
    """Megablocks: tokens are put in the order of their experts, multiplied in blocks, and put back.

    Values decide how many rows an expert's tokens are padded with to whole blocks; half a block each is taken. Read at
    v1.4.5, models/custom_modeling/flash_mixtral_modeling.py:300-520, and in OlivierDehaene/megablocks at 181709d,
    megablocks/ops and megablocks/backend/kernels.py.
    """
    g, memory, chosen = run.shapes.g, run.memory, run.shapes.g.experts_per_token
    scores, weights, numbers, total = run.new(2 * g.experts), run.new(2 * chosen), run.new(4 * chosen), run.new(2)
    run.drop(scores, total)
    order = [run.new(4 * chosen), run.new(4 * chosen)]
    rows = (run.tokens * chosen + g.experts * ROWS) * ELEMENT
    gathered = memory.new(rows * g.hidden)
    gate = memory.new(rows * mixture.expert)
    activated = memory.new(rows * mixture.expert)
    run.drop(gate)
    up, product = memory.new(rows * mixture.expert), memory.new(rows * mixture.expert)
    run.drop(activated, up, gathered)
    down = memory.new(rows * g.hidden)
    run.drop(product)
    apart = run.new(chosen * g.hidden)
    out = run.new(g.hidden)
    run.drop(apart, down, logits, weights, numbers, *order)
    return out


def _masked(run: Pass) -> list[Block]:
    """The shares of all experts, those of the ones not chosen put to zero: Mixtral's DenseMoE before 2.3.0."""
    g = run.shapes.g
    rest = g.experts - g.experts_per_token
    scores, least, numbers = run.new(2 * g.experts), run.new(2 * rest), run.new(4 * rest)
    total, single = run.new(2), run.new(2 * g.experts)
    run.drop(total)
    shares = run.new(g.experts)
    run.drop(single)
    return [scores, least, numbers, shares]


def _renormalized(run: Pass, weights: Block, width: int) -> Block:
    total, again = run.new(width), run.new(width * run.shapes.g.experts_per_token)
    run.drop(total, weights)
    return again


def _grouped(run: Pass, mixture: Mixture) -> list[Block]:
    """Routing within the best groups of experts, in PyTorch: DeepSeek. `wide` is the width of one score."""
    g, groups, taken = run.shapes.g, mixture.groups, mixture.groups_taken
    scores = run.new(g.experts)
    if mixture.newest_kernels:  # they take the softmax twice
        again = run.new(g.experts)
        run.drop(scores)
        scores = again
    wide = 1
    kept = [scores]
    if mixture.biased:
        wide = 2
        scores = run.new(wide * g.experts)
        kept.append(scores)
    best, where = run.new(wide * groups), run.new(4 * groups)
    run.drop(where)
    values, order = run.new(wide * taken), run.new(4 * taken)
    run.drop(values)
    mask = run.new(wide * groups)
    wider = run.new(wide * g.experts)
    flags = run.scratch(g.experts)
    turned = run.scratch(g.experts)
    run.drop(flags)
    masked = run.new(wide * g.experts)
    run.drop(turned)
    weights, numbers = run.new(wide * g.experts_per_token), run.new(4 * g.experts_per_token)
    if mixture.biased:
        run.drop(weights)
        weights = run.new(g.experts_per_token)
        wide = 1
    if mixture.renormalized:
        weights = _renormalized(run, weights, wide)
    result = [weights, numbers]
    if not mixture.vllm:
        result = [run.new(2 * g.experts_per_token), run.new(2 * g.experts_per_token)]
        run.drop(weights, numbers)
    run.drop(*kept, best, order, mask, wider, masked)
    return result


def _aligned(run: Pass, rows: int, mixture: Mixture) -> list[Block]:
    """The tokens in the order of their experts, padded to whole blocks, and each block's expert."""
    g = run.shapes.g
    block = FEW_ROWS if rows <= max(g.experts, 32 if mixture.way == "marlin" else 0) else ROWS
    padded = rows * g.experts_per_token + g.experts * (block - 1)
    blocks = rows * g.experts_per_token + g.experts if mixture.vllm else -(-padded // block)
    return [run.memory.new(4 * padded), run.memory.new(4 * blocks), run.memory.new(4)]


def _fused(run: Pass, mixture: Mixture, normed: Block) -> Block:
    """All experts in one kernel, `mixture.at_once` tokens at a time; the sum is written over the hidden states."""
    g, tokens = run.shapes.g, run.tokens
    rows = min(tokens, mixture.at_once or tokens)
    widths = (2 * mixture.expert, mixture.expert, g.hidden)
    inner = [run.memory.new(rows * g.experts_per_token * width * ELEMENT) for width in widths]
    aligned: list[Block] = []
    for start in range(0, tokens, rows):
        following = _aligned(run, min(rows, tokens - start), mixture)
        run.drop(*aligned)
        aligned = following
        if mixture.in_fp8:
            run.drop(run.memory.new(rows * g.hidden))
            run.drop(run.memory.new(rows * g.experts_per_token * mixture.expert))
    run.drop(*inner, *aligned)
    return normed


def _marlin(run: Pass, mixture: Mixture) -> Block:
    """All experts in one kernel of packed weights: each of its two products takes a scratch copy of its input."""
    g, expert = run.shapes.g, mixture.expert
    chosen = g.experts_per_token
    order, blocks, number = _aligned(run, run.tokens, mixture)
    run.drop(blocks)
    space = run.memory.new(max(2 * expert, g.hidden) // 64 * 16 * 4)
    activated = run.new(chosen * expert)
    both, scratch, offsets = run.new(chosen * 2 * expert), run.new(g.hidden), run.memory.new(4 * (g.experts + 1))
    run.drop(scratch, offsets)
    wide, scratch, offsets = run.new(chosen * g.hidden), run.new(chosen * expert), run.memory.new(4 * (g.experts + 1))
    run.drop(scratch, offsets)
    out = run.new(g.hidden)
    run.drop(order, number, space, activated, both, wide)
    return out


def _one_by_one(run: Pass, mixture: Mixture, routing: list[Block]) -> Block:
    """Every expert over every token; the results, weighted by the routing, are summed."""
    g = run.shapes.g
    shares: Block | None = None
    if not mixture.vllm:
        if not mixture.groups:
            single, routing[0] = routing[0], run.new(g.experts_per_token)
            run.drop(single)
        shares = run.new(g.experts)
        run.drop(run.new(4 * g.experts_per_token))
    out = run.new(g.hidden)
    fed: Block | None = None
    for _ in range(min(g.experts, 3)):  # from the second on they take turns in the same places
        gate = run.project(g.hidden, mixture.expert)
        activated = run.new(mixture.expert)
        run.drop(gate)
        up = run.project(g.hidden, mixture.expert)
        product = run.new(mixture.expert)
        run.drop(activated, up, fed)
        fed = run.project(mixture.expert, g.hidden)
        run.drop(product)
        run.drop(run.new(g.hidden))
    run.drop(fed, shares)
    return out
