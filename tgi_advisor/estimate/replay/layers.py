"""One pass of TGI's own classes: what every line of a layer's `forward` allocates and drops.

Python keeps more alive than the arithmetic needs: a layer's caller holds the hidden states and the residual it
passes in until the layer has returned, and every local of `forward` lives until then.

Read at v3.3.7 under server/text_generation_server: models/custom_modeling/flash_llama_modeling.py:447-530,
flash_qwen2_modeling.py:283-310, flash_gemma_modeling.py:110-130, flash_gemma2_modeling.py:400-440,
flash_starcoder2_modeling.py, flash_rw_modeling.py:430-470, flash_phi_modeling.py:270-310,
flash_gptj_modeling.py:270-300, flash_cohere_modeling.py:395-420, flash_neox_modeling.py:268-310,
flash_gpt2_modeling.py:320-350, flash_santacoder_modeling.py:340-370, flash_deepseek_v3_modeling.py:270-480,
layers/layernorm.py:45-190, layers/rotary.py:255-285, layers/moe/unquantized.py:220-260; and at v2.0.4 and v1.4.5.
"""

from typing import NamedTuple

from tgi_advisor.estimate.allocator import Block
from tgi_advisor.estimate.forward import ELEMENT, WIDE_NORM
from tgi_advisor.estimate.replay.passes import Pass

LAYER_NORMS = frozenset({
    "falcon", "RefinedWeb", "RefinedWebModel", "cohere", "gpt_neox", "gpt2", "gpt_bigcode", "phi", "gptj", "starcoder2",
})  # fmt: skip
"""Families whose norm is PyTorch's layer norm where it is too wide for the fused kernel: one tensor."""
SINGLE_WEIGHTS = frozenset({"gemma", "gemma2", "gemma3_text"})
"""Families whose norms hold their weights in float32."""


class Crossing(NamedTuple):
    """What Mllama's crossing layers work on."""

    asked: Pass
    """The tokens of the request that has an image: of the warm-up's, the first."""
    seen: Pass
    """The image's positions."""


SINGLE = 4
"""Bytes of a float32."""
FLASH_ONE_BLOCK = 256
"""Keys flash-attention 1 takes at once; with more, it sums its result in float32."""


def forward(run: Pass, embedded: Block | None = None, crossing: Crossing | None = None) -> tuple[Block, ...]:
    """The pass through all layers and the last norm, as far as it reserves anything new.

    `embedded` are the tokens of a batch that embeds them before the pass, and keeps them. Returns what is alive when
    it is done: the final hidden states first.
    """
    shapes, g = run.shapes, run.shapes.g
    hidden, held = _embedded(run) if embedded is None else (embedded, (embedded,))
    if shapes.rotary and run.longest:
        _cache_tables(run)
    tables = _tables(run)
    residual: Block | None = None
    seen: set[tuple[object, ...]] = set()
    alike = (*shapes.crossed, 0, 0)[1] or int(shapes.edge_kernel != shapes.kernel)
    first = shapes.dense_layers if shapes.mixture else alike
    for number in range(g.layers):
        if shapes.kind == "gemma3_text" and number:  # looked up again for every layer
            tables, dropped = _tables(run), tables
            run.drop(*dropped)
        if crossing is not None and number in shapes.crossed:
            _cross(crossing)
            run.drop(residual)
            residual = None
            continue
        hidden, residual = _turn(run, hidden, residual, held, number)
        state = run.turn(hidden, residual)
        if number >= first and state in seen:  # from here on the layers go round in a circle
            break
        seen.add(state)
    final, summed = _norm(run, hidden, residual)
    run.drop(*{hidden, residual, summed, *tables} - {final, *held})
    return final, *held


def _turn(
    run: Pass, hidden: Block, residual: Block | None, held: tuple[Block, ...], number: int
) -> tuple[Block, Block | None]:
    """(hidden states, residual) behind a layer, and nothing else of it left but what is `held` beside them."""
    stays = hidden in held, residual in held

    def layer(run: Pass, hidden: Block, residual: Block | None) -> tuple[Block, Block | None]:
        after, carried, gone = _layer(run, hidden, residual, number)
        kept = {one for one, held in zip((hidden, residual), stays, strict=True) if held}
        run.drop(*{*gone, hidden, residual} - {after, carried, *kept})
        return after, carried

    shapes = run.shapes
    key = (
        stays, number >= shapes.dense_layers,
        shapes.edge_kernel != shapes.kernel and number in (0, shapes.g.layers - 1),
        run.windowed > 0, shapes.flash_one and (run.longest > 0, run.longest > FLASH_ONE_BLOCK),
    )  # fmt: skip
    after, carried = run.play(key, layer, hidden, residual)
    assert after is not None
    return after, carried


def _cross(crossing: Crossing) -> None:
    """A crossing layer: the asking tokens are copied out, attend to the image, are fed forward and copied back."""
    run, seen = crossing
    g = run.shapes.g
    chosen = run.new(g.hidden)
    normed = run.single_norm(g.hidden)
    made = run.product(g.query)
    query = run.single_norm(g.query)
    run.drop(made)
    made, value = seen.product(g.kv), seen.product(g.kv)
    key = seen.single_norm(g.kv)
    run.drop(made)
    attended = run.new(g.query)
    out = run.product(g.hidden)
    run.drop(attended, query, key, value, normed)
    gated = run.new(g.hidden)
    joined = run.new(g.hidden)
    run.drop(gated, out, chosen)
    normed = run.single_norm(g.hidden)
    fed = run.gated(g.intermediate)
    run.drop(normed)
    gated = run.new(g.hidden)
    after = run.new(g.hidden)
    run.drop(gated, fed, after, joined)


def _cache_tables(run: Pass) -> None:
    """Cosines and sines of every position up to the longest prompt's, made by the first pass and kept."""
    numbers, angles = run.memory.new(4 * run.longest), run.memory.new(4 * run.longest * run.shapes.rotary)
    for _ in range(2):
        single = run.memory.new(4 * run.longest * run.shapes.rotary)
        run.memory.new(ELEMENT * run.longest * run.shapes.rotary)
        run.drop(single)
    run.drop(numbers, angles)


def _tables(run: Pass) -> list[Block]:
    """Cosines and sines of the tokens' positions.

    Qwen2-VL's tokens have three; which of them a part of a head uses is chosen here, or (until 3.1.0) in every layer.
    """
    width = run.shapes.rotary
    if run.shapes.chooses_late:
        width *= run.shapes.position_sections
    if run.shapes.chooses_late or not run.shapes.position_sections:
        return [run.new(width), run.new(width)] if width else []
    tables = []
    for _ in range(2):
        every = run.new(run.shapes.position_sections * width)
        tables.append(run.new(width))
        run.drop(every)
    return tables


def _embedded(run: Pass) -> tuple[Block, tuple[Block, ...]]:
    """(the hidden states the layers start from, what is kept to the end of the pass)."""
    kind, wide = run.shapes.kind, run.shapes.g.hidden
    tokens = run.new(wide)
    if kind not in ("gpt2", "gpt_bigcode"):
        return tokens, (tokens,) if run.shapes.holds_embedding else ()
    positions = run.new(wide)
    joined = run.new(wide)
    if kind == "gpt2":
        return joined, (tokens, positions, joined)
    run.drop(tokens, positions)
    return joined, ()


def _layer(
    run: Pass, hidden: Block, residual: Block | None, number: int
) -> tuple[Block, Block | None, tuple[Block | None, ...]]:
    """(hidden states, residual, what the layer's locals still hold when it returns)."""
    kind, wide = run.shapes.kind, run.shapes.g.hidden
    if run.shapes.sequential:  # every result takes the name of the one before
        normed, summed = _norm(run, hidden, residual)
        attended = _attention(run)
        run.drop(normed)
        again, carried = _norm(run, attended, summed)
        run.drop(*{attended, summed} - {hidden, residual, carried})
        return _feed_forward(run, number, again), carried, (again,)
    if kind == "gpt_neox":
        first, _ = _norm(run, hidden, None)
        attended = _attention(run)
        second, _ = _norm(run, hidden, None)
        fed = _feed_forward(run, number, second)
        joined = run.new(wide)
        return run.new(wide), None, (first, attended, second, fed, joined)
    if run.shapes.mlp.startswith("parallel"):  # one norm feeds both, or each has its own
        normed, summed = _norm(run, hidden, residual)
        other = _norm(run, summed, None)[0] if run.shapes.norms == 2 else None
        attended = _attention(run)
        fed = _feed_forward(run, number, normed)
        return run.new(wide), summed, (normed, other, attended, fed)
    if kind == "gpt2":
        normed = run.new(wide)
        attended = _attention(run)
        joined = run.new(wide)
        run.drop(normed)
        again = run.new(wide)
        fed = _feed_forward(run, number, again)
        return run.new(wide), joined, (again, attended, fed)
    if kind in ("gemma2", "gemma3_text"):
        normed, _ = _norm(run, hidden, residual)
        attended = _attention(run)
        inner, _ = _norm(run, attended, None)
        joined = run.new(wide)
        run.drop(inner)
        before, _ = _norm(run, joined, None)
        fed = _feed_forward(run, number, before)
        out, _ = _norm(run, fed, None)
        return out, joined, (normed, attended, before, fed)
    if run.shapes.adds_apart:
        normed, _ = _norm(run, hidden, None)
        attended = _attention(run)
        joined = run.new(wide)
        again, _ = _norm(run, joined, None)
        fed = _feed_forward(run, number, again)
        return run.new(wide), None, (again, joined, normed, attended, fed)
    normed, summed = _norm(run, hidden, residual)
    attended = _attention(run)
    again, carried = _norm(run, attended, summed)
    if kind == "dbrx":  # attention and its norms are a module of their own, whose locals are gone by now
        held = (hidden, residual, again, carried)
        run.drop(*{normed, summed, attended} - set(held))
        return _feed_forward(run, number, again), carried, (again,)
    if run.shapes.latent and summed not in (hidden, residual):
        run.drop(summed)
        summed = hidden
    fed = _feed_forward(run, number, again)
    return fed, carried, (normed, summed, attended, again)


def _norm(run: Pass, hidden: Block, residual: Block | None) -> tuple[Block, Block]:
    """(normed, residual): the fused kernel makes both anew; float32 norms add in place and keep what they add to.

    ROCm's RMS norm of a sum works in place altogether, its layer norm as PyTorch's: the residual is the sum.
    """
    wide = run.shapes.g.hidden
    if run.shapes.kind in SINGLE_WEIGHTS:
        return _weighted_norm(run, wide), hidden
    if run.shapes.on_rocm:
        in_place = run.shapes.adds_in_place and run.shapes.kind not in LAYER_NORMS
        return (hidden, residual) if residual is not None and in_place else (run.new(wide), hidden)
    if wide > WIDE_NORM:
        return run.new(wide) if run.shapes.kind in LAYER_NORMS else run.single_norm(wide), hidden
    summed = hidden if residual is None else run.new(wide)
    return run.new(wide), summed


def _weighted_norm(run: Pass, width: int) -> Block:
    """A norm in float32 whose weights are float32 as well: a copy, its square, scaled, weighted, back to 16 bit."""
    single, squared = run.new(2 * width), run.new(2 * width)
    run.drop(squared)
    scaled = run.new(2 * width)
    run.drop(single)
    weighted = run.new(2 * width)
    run.drop(scaled)
    out = run.new(width)
    run.drop(weighted)
    return out


def _attention(run: Pass) -> Block:
    """Fused queries, keys and values; their attention; the output projection."""
    shapes, g = run.shapes, run.shapes.g
    if shapes.latent is not None:
        return _latent_attention(run)
    parts = (g.query, g.kv, g.kv)
    joined = run.project(g.hidden, sum(parts), shapes.bias_in, shapes.attention_kernel, parts)
    if shapes.clipped:
        clipped = run.new(g.query + 2 * g.kv)
        run.drop(joined)
        joined = clipped
    if shapes.kind == "gemma3_text":
        return _normed_attention(run, joined)
    if shapes.kind == "cohere" and shapes.head_norms:
        return _cohere_attention(run, joined)
    chosen = [run.new(shapes.rotary), run.new(shapes.rotary)] if shapes.chooses_late else []
    apart = run.new(g.query) if shapes.grouped else None
    if shapes.grouped:
        run.drop(run.new(g.kv), run.new(g.kv))  # keys and values, while they are cached
    cached = run.memory.new(2 * g.kv * run.windowed * ELEMENT) if run.windowed else None
    copied = run.new(g.query) if shapes.copies_query else None
    attended = run.new(g.query)
    run.drop(copied)
    if shapes.flash_one and run.longest:
        _flash_one(run)
    out = run.project(g.query, g.hidden, shapes.bias_out, shapes.attention_kernel)
    run.drop(joined, *chosen, apart, cached, run.used(attended))
    return out


def _flash_one(run: Pass) -> None:
    """flash-attention 1: keys and values repeated for every query head, and a result in float32.

    https://github.com/huggingface/text-generation-inference/blob/v2.0.4/server/text_generation_server/utils/flash_attn.py#L228-L273
    https://github.com/Dao-AILab/flash-attention/blob/v1.0.9/csrc/flash_attn/fmha_api.cpp (mha_fwd)
    """
    g = run.shapes.g
    is_shared = g.kv in (g.query, g.query // g.heads)  # heads that are alike, or one that is read again and again
    repeated = [] if is_shared else [run.new(g.query), run.new(g.query)]
    if run.longest > FLASH_ONE_BLOCK:
        run.drop(run.new(2 * g.query))
    run.drop(*repeated)


def _normed_attention(run: Pass, joined: Block) -> Block:
    """Gemma 3: queries and keys are copied and normed head by head; the key's copy is kept as a residual."""
    g = run.shapes.g
    query, key = run.new(g.query), run.new(g.kv)
    normed = _weighted_norm(run, g.query)
    normed_key = _weighted_norm(run, g.kv)
    run.drop(query)
    attended, *padded = _scored(run) if run.shapes.scored else (run.new(g.query),)
    out = run.project(g.query, g.hidden, run.shapes.bias_out)
    run.drop(normed, normed_key, joined, key, attended, *padded)
    return out


def _scored(run: Pass) -> tuple[Block, ...]:
    """Attention by PyTorch's own arithmetic, in float32, on prompts padded to the longest; then what was padded.

    No fused kernel takes fewer heads of keys together with a mask.
    https://github.com/pytorch/pytorch/blob/v2.6.0/aten/src/ATen/native/transformers/attention.cpp (_safe_softmax,
    _scaled_dot_product_attention_math)
    """
    memory, g = run.memory, run.shapes.g
    requests, longest = run.prompts
    rows, every = requests * longest, requests * g.heads * longest * longest
    padded = [memory.new(rows * width * ELEMENT) for width in (g.query, g.kv, g.kv)]
    for place, width in enumerate((g.query, g.kv, g.kv)):  # turned head by head, which one head is already
        if width * g.heads > g.query:
            turned = memory.new(rows * width * ELEMENT)
            run.drop(padded[place])
            padded[place] = turned
    wide = [memory.new(rows * width * SINGLE) for width in (g.query, g.kv, g.kv)]
    times = 1 if g.kv == g.query else 3
    wide += [memory.new(rows * g.query * SINGLE) for _ in range(times)]  # scaled queries, repeated keys and values
    scaled = memory.new(rows * g.query * SINGLE)
    scores = memory.new(every * SINGLE)
    run.drop(scaled)
    weights = memory.new(every * SINGLE)
    masked = memory.new(every)
    run.drop(memory.new(rows * g.heads), masked, scores)
    half = memory.new(every * ELEMENT)
    single = memory.new(rows * g.query * SINGLE)
    out = memory.new(rows * g.query * ELEMENT)
    run.drop(single, weights, half, *wide)
    attended = run.new(g.query)
    run.drop(out)
    return attended, *padded


def _cohere_attention(run: Pass, joined: Block) -> Block:
    """Command R+: queries and keys are copied, normed head by head by the fused kernel, and weighted.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_cohere_modeling.py#L110-L148
    """
    g = run.shapes.g
    copies = [run.new(g.query), run.new(g.kv)]
    weighted = []
    for width, copied in zip((g.query, g.kv), copies, strict=True):
        normed = run.new(width)
        heads = width * g.heads // g.query
        mean, deviation = run.new(2 * heads), run.new(2 * heads)
        weighted.append(run.new(width))
        run.drop(normed, mean, deviation, copied)
    attended = run.new(g.query)
    if run.shapes.flash_one and run.longest:
        _flash_one(run)
    out = run.project(g.query, g.hidden, run.shapes.bias_out, run.shapes.attention_kernel)
    run.drop(joined, *weighted, attended)
    return out


def _latent_attention(run: Pass) -> Block:
    """DeepSeek: the latent is expanded; queries, keys and values are padded to one head size, each a copy."""
    latent, heads, hidden = run.shapes.latent, run.shapes.g.heads, run.shapes.g.hidden
    assert latent is not None
    size = heads * (latent.nope + latent.rope)
    if latent.query_rank:
        compressed_query = run.project(hidden, latent.query_rank)
        normed = run.new(latent.query_rank)
        query = run.project(latent.query_rank, size)
        run.drop(compressed_query, normed)
    else:
        query = run.project(hidden, size)
    compressed = run.project(hidden, latent.rank + latent.rope)
    part = run.new(latent.rank)
    normed = run.new(latent.rank)
    run.drop(part)
    expanded = run.project(latent.rank, heads * (latent.nope + latent.value))
    run.drop(normed)
    turned, turned_key = run.new(heads * latent.rope), run.new(latent.rope)
    keys = run.new(size)
    padded_query, padded_key = run.new(size), run.new(size)
    run.drop(keys)
    padded_value, attended = run.new(size), run.new(size)
    flat = run.new(heads * latent.value)
    out = run.project(heads * latent.value, hidden)
    run.drop(
        flat, padded_query, query, turned, compressed, turned_key, expanded, padded_value, padded_key, attended
    )  # fmt: skip
    return out


def _feed_forward(run: Pass, number: int, normed: Block) -> Block:
    """The feed-forward block of layer `number`, of the hidden states `normed`."""
    shapes, g = run.shapes, run.shapes.g
    if number >= shapes.dense_layers:
        from tgi_advisor.estimate.replay import experts  # most models have none

        return experts.feed(run, normed)
    kernel = shapes.edge_kernel if number in (0, g.layers - 1) else shapes.kernel
    if shapes.mlp in ("plain", "parallel_plain"):
        wide = run.project(g.hidden, g.intermediate, shapes.bias_feed_in, kernel)
        activated = run.new(g.intermediate)
        run.drop(wide)
        out = run.project(g.intermediate, g.hidden, shapes.bias_feed_out, kernel)
        run.drop(run.used(activated))
        return out
    return run.gated(shapes.feed, kernel)
