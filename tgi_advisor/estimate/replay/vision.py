"""What a vision-language class allocates before its language model's layers: the warm-up's image, and masks.

The router sends one picture of 20 x 20 pixels behind the text of the first warm-up request, in every release that
serves these families (backends/v3/src/client/grpc_client.rs@v3.3.7:130-142), and the tower encodes it at whatever
size the model's processor makes of it. So a tower that only knows one size (Gemma 3's) is warmed up at its full cost.
What cuDNN may take for the patches' convolution is not counted.

Read at v3.3.7 under server/text_generation_server/models: vlm_causal_lm.py:890-1060 and custom_modeling/siglip.py,
flash_gemma3_modeling.py:630-790, :870-880, flash_pali_gemma_modeling.py:64-98, idefics3.py:395-545.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.peak import Seen
from tgi_advisor.estimate.replay import layers, pictures, shapes
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.estimate.replay.pictures import Resampler, Tower
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts.release import Version

SEES_FIRST = (3, 3, 0)
"""Release from which a vision-language class encodes its images before it embeds the tokens."""
NORMS_ONCE = (3, 1, 1)
"""Release from which Qwen2-VL's class leaves the last norm to its language model, which always made it.

https://github.com/huggingface/text-generation-inference/blob/v3.1.0/server/text_generation_server/models/custom_modeling/qwen2_vl.py#L548
"""
NORMS_STATES = (2, 3, 0)
"""Release from which PaliGemma's class norms the tower's last states.

https://github.com/huggingface/text-generation-inference/blob/v2.3.0/server/text_generation_server/models/custom_modeling/flash_pali_gemma_modeling.py#L38-L42
"""
CROPPED = frozenset({"idefics2", "idefics3"})
"""Families whose batch has a mask of the pixels, and whose tower makes queries, keys and values in one."""
SINGLE = 4
"""Bytes of a float32."""


def forward(run: Pass, setting: Setting, requests: int, longest: int) -> tuple[Block, ...]:
    """The image, the embedded tokens, masks, and the pass of the language model.

    From 3.3.0 on the image comes before the tokens, which are embedded ahead of the pass and stay in the batch; until
    then it comes behind them. Returns what is dropped when the logits are there. `longest` are the tokens of each
    request but the last; 0: all alike.
    """
    longest = longest or -(-run.tokens // requests)
    seen = run.shapes.tower
    if seen is not None and seen.kind == "mllama":
        _mllama(run, seen)
        crossing = layers.Crossing(run.beside(longest), run.beside(seen.features))
        return layers.forward(run, crossing=crossing)
    version = setting.facts.release.version
    if version < SEES_FIRST:
        given = _given(run, seen) if seen is not None else ()
        embedded = run.new(run.shapes.g.hidden)
        if seen is not None:  # what the image goes through lives as long as the pass
            made = _seen_late(run, seen, version)
            if setting.family.model_type == "gemma3":
                run.prompts = requests, longest
                made += masks(run, requests, longest)
            final, *_ = layers.forward(run, embedded)
            return final, embedded, *given, *made
        run.take_cublas()
        final, *_ = layers.forward(run, embedded)
        if version < NORMS_ONCE:
            again = run.new(run.shapes.g.hidden)
            run.drop(final)
            final = again
        return final, embedded
    features = encode(run, seen)
    embedded = run.new(run.shapes.g.hidden)
    run.drop(features)
    held = masks(run, requests, longest) if setting.family.model_type == "gemma3" else ()
    final, *_ = layers.forward(run, embedded)
    return final, *held


class Images(NamedTuple):
    """The largest image the processor makes, beside the warm-up's; bytes without cuBLAS' workspace."""

    tower: Tower
    """The tower with it."""
    widest: int
    """In use at the widest moment of encoding it."""
    kept: int
    """In use while the layers run."""
    warm: int
    """The same of the warm-up's image."""
    together: bool
    """Whether the images of a batch are encoded together."""

    def among(self, requests: int, longest: int) -> Seen:
        """What one in each of so many prompts of `longest` tokens takes."""
        part, whole = pictures.patches(self.tower, longest), self.tower.patches
        widest, kept = self.widest * part // whole, self.kept * part // whole
        return Seen(
            widest + (requests - 1) * (widest if self.together else kept), max(0, requests * kept - self.warm)
        )  # fmt: skip


def images(setting: Setting, g: Geometry, taken: tuple[int, int, int] | None = None) -> Images | None:
    """The largest image of a launch; None without a tower that is known.

    `taken`: its `widest`, `kept` and `warm`, where they are known from before.

    Mllama's class encodes all of a batch's images at once, and until 3.3.0 so do those of all families but Idefics.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/vlm_causal_lm.py#L896-L937
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/mllama_causal_lm.py#L296-L303
    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/models/custom_modeling/llava_next.py#L190-L200
    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/models/custom_modeling/idefics2.py#L746-L810
    """
    tower, kind = pictures.largest(setting), setting.family.model_type
    if tower is None:
        return None
    late = setting.facts.release.version < SEES_FIRST
    if taken is None:
        warm = pictures.warmed_up(setting)
        taken = *_alone(setting, g, tower, late), _alone(setting, g, warm, late)[1] if warm else 0
    return Images(tower, *taken, kind == "mllama" or (late and kind not in CROPPED))


def _alone(setting: Setting, g: Geometry, seen: Tower, late: bool) -> tuple[int, int]:
    """Bytes in use at the widest moment of encoding one image, and those that stay so while the layers run."""
    memory = Allocator()
    run = Pass(shapes.of(setting, g), memory, 1)
    run.take_cublas()
    before = memory.alive
    if seen.kind == "mllama":
        _mllama(run, seen)
    elif late:
        _given(run, seen)
        _seen_late(run, seen, setting.facts.release.version)
    else:
        run.drop(encode(run, seen))
    return memory.most_alive - before, memory.alive - before


def _seen_late(run: Pass, seen: Tower, version: Version) -> tuple[Block, ...]:
    """What encoding an image behind the embedded tokens leaves in use until the layers are done."""
    by_kind = {"llava_next": _tiles, "idefics2": _resampled_crops, "idefics3": _shuffled_tiles}
    if seen.kind in by_kind:
        return by_kind[seen.kind](run, seen)
    if seen.kind == "gemma3":
        return _averaged(run, seen)
    return _projected(run, seen, version) if seen.kind == "paligemma" else (_merged_patches(run, seen),)


def encode(run: Pass, seen: Tower | None) -> Block | None:
    """Encode the warm-up's image: its features, which live until they are put among the embedded tokens."""
    if seen is None:
        run.take_cublas()
        return None
    by_kind = {
        "gemma3": _gemma3, "llava_next": _llava_next, "idefics2": _idefics2, "qwen2_vl": _qwen2_vl,
        "qwen2_5_vl": _qwen2_vl, "paligemma": _paligemma, "idefics3": _idefics3,
    }  # fmt: skip
    return by_kind[seen.kind](run, seen)


def _gemma3(run: Pass, seen: Tower) -> Block:
    """SigLIP on one size of pictures; its patches are averaged, normed and projected."""
    memory, pooled = run.memory, run.beside(seen.features)
    pixels = _given(run, seen)
    features, *dropped = _averaged(run, seen)
    run.drop(*dropped)
    placed = memory.new((seen.features + 2) * run.shapes.g.hidden * ELEMENT)
    run.drop(*pixels, features)
    gathered = pooled.new(run.shapes.g.hidden)
    joined = pooled.new(run.shapes.g.hidden)
    run.drop(gathered)
    del placed  # stays in the batch's cache until the pass is over
    return joined


def _averaged(run: Pass, seen: Tower) -> tuple[Block, ...]:
    """SigLIP on the pictures, whose patches are averaged, normed and projected; the features first."""
    inside, pooled = run.beside(seen.pictures * seen.patches), run.beside(seen.features)
    taken = run.memory.new(seen.pictures * 3 * seen.side**2 * ELEMENT)
    states = _siglip(inside, seen)
    normed = _transposed_norm(inside, seen.width)
    square = inside.new(seen.width)  # the patches as a picture again, to be averaged
    run.drop(pooled.single_norm(seen.width))
    features = pooled.product(run.shapes.g.hidden)
    run.drop(square)
    return features, taken, states, normed


def _paligemma(run: Pass, seen: Tower) -> Block:
    """PaliGemma's features, of which the batch keeps one copy until the pass is over."""
    given = _given(run, seen)
    features, *dropped = _projected(run, seen, SEES_FIRST)
    run.drop(*dropped, *given)
    joined = run.beside(seen.features).new(run.shapes.g.hidden)
    run.drop(features)
    return joined


def _projected(run: Pass, seen: Tower, version: Version) -> tuple[Block, ...]:
    """SigLIP on one picture, whose patches are normed and projected one by one; the features first."""
    inside = run.beside(seen.patches)
    taken = run.memory.new(3 * seen.side**2 * ELEMENT)
    states = _siglip(inside, seen)
    normed = _transposed_norm(inside, seen.width) if version >= NORMS_STATES else None
    features = inside.product(run.shapes.g.hidden, bias=True)
    return (features, taken, states, normed) if normed else (features, taken, states)


def _given(run: Pass, seen: Tower) -> tuple[Block, ...]:
    """The pictures in float32, each twice where it could be a film's, and Idefics' mask of their pixels."""
    pixels = (2 * seen.patches if seen.kind in pictures.OF_ANY_SIZE else seen.pictures) * seen.side**2
    given = run.memory.new(3 * pixels * SINGLE)
    return (given, run.memory.new(8 * pixels)) if seen.kind in CROPPED else (given,)


def _llava_next(run: Pass, seen: Tower) -> Block:
    """LLaVA-NeXT's features, of which the batch keeps one copy until the pass is over."""
    given = _given(run, seen)
    _, *dropped = _tiles(run, seen)
    run.drop(*dropped, *given)
    return run.beside(seen.features).new(run.shapes.g.hidden)


def _tiles(run: Pass, seen: Tower) -> tuple[Block, ...]:
    """CLIP on the tiles and the whole; the tiles are put together, cut to the image's shape, and a column added.

    Returns the features of the batch's images, then what they are made of.
    """
    inside = run.beside(seen.pictures * seen.patches)
    memory, wide = run.memory, run.shapes.g.hidden
    each = seen.patches - 1
    states = _clip(inside, seen)
    seen_of = run.beside(seen.pictures * each)
    first = seen_of.product(seen.projected, bias=True)
    activated = seen_of.new(seen.projected)
    run.drop(first)
    projected = seen_of.product(wide, bias=True)
    run.drop(activated)
    tiles = memory.new((seen.pictures - 1) * each * wide * ELEMENT)
    out = run.beside(seen.features)
    bordered = memory.new((seen.features - each) * wide * ELEMENT)
    run.drop(tiles)
    joined = out.new(wide)
    run.drop(bordered)
    return out.new(wide), states, joined, projected


def _clip(run: Pass, seen: Tower) -> Block:
    """CLIP's patches, the class before them, and its layers: the last hidden states."""
    memory = run.memory
    taken = memory.new(seen.pictures * 3 * seen.side**2 * ELEMENT)
    patches = memory.new(seen.pictures * (seen.patches - 1) * seen.width * ELEMENT)
    run.drop(taken)
    joined = run.new(seen.width)
    positions = memory.new(seen.patches * seen.width * ELEMENT)
    summed = run.new(seen.width)
    run.drop(positions, patches, joined)
    first = run.new(seen.width)
    run.drop(summed)
    return _through(run, seen, first, _clip_layer)


def _clip_layer(run: Pass, seen: Tower) -> Block:
    normed = run.new(seen.width)
    joined = run.product(3 * seen.query, bias=True)
    scaled, keys, values = run.new(seen.query), run.new(seen.query), run.new(seen.query)
    query = run.new(seen.query)
    run.drop(scaled)
    each = seen.pictures * seen.heads * seen.patches**2 * ELEMENT
    made = run.fixed(each)
    weights = run.fixed(each)
    run.drop(made)
    attended = run.new(seen.query)
    flat = run.new(seen.query)
    run.drop(attended)
    out = run.product(seen.width, bias=True)
    run.drop(flat, joined, keys, values, query, weights, normed)
    summed = run.new(seen.width)
    run.drop(out)
    normed = run.new(seen.width)
    wide = run.product(seen.intermediate, bias=True)
    activated = _quick_gelu(run, seen.intermediate)
    run.drop(wide)
    fed = run.product(seen.width, bias=True)
    run.drop(activated, normed)
    after = run.new(seen.width)
    run.drop(fed, summed)
    return after


def _quick_gelu(run: Pass, width: int) -> Block:
    """CLIP's activation: times a number, its sigmoid, and the product."""
    times = run.new(width)
    sigmoid = run.new(width)
    run.drop(times)
    out = run.new(width)
    run.drop(sigmoid)
    return out


def _mllama(run: Pass, seen: Tower) -> None:
    """Mllama's tower, whose every layer's states are kept until both of its parts are done.

    What the crossing layers attend to stays in the batch, as the pixels do.
    """
    memory, wide = run.memory, seen.width
    padded = -(-seen.patches // 8) * 8
    inside, whole = run.beside(seen.pictures * padded), run.beside(seen.features)
    bare = run.beside(seen.pictures * (seen.patches - 1))
    memory.new(seen.pictures * 3 * seen.side**2 * ELEMENT)
    patches = bare.new(wide)
    placed = bare.new(wide)
    classed = whole.new(wide)
    run.drop(placed)
    positioned = whole.new(wide)
    tile, gated = whole.new(wide), whole.new(wide)
    summed = whole.new(wide)
    run.drop(positioned, tile, gated, classed)
    normed = whole.new(wide)
    run.drop(summed)
    hidden = inside.new(wide)
    run.drop(normed)
    square = (seen.pictures * padded) ** 2 * ELEMENT
    outer = memory.new(square)
    inside.take_cublas()
    mask = memory.new(square)
    run.drop(outer)
    kept = [hidden, *(_played(inside, seen) for _ in range(seen.layers))]
    chosen = inside.new(seen.projected - wide)
    normed = inside.new(wide)
    kept.append(inside.new(wide))
    run.drop(normed)
    kept += [_played(inside, seen) for _ in range(seen.more)]
    joined = whole.new(seen.projected)
    run.drop(*kept, chosen, mask, patches)
    whole.new(run.shapes.g.hidden)
    run.drop(joined)


def _played(run: Pass, seen: Tower) -> Block | None:
    return run.play(("mllama", seen), lambda run: (_mllama_layer(run, seen),))[0]


def _mllama_layer(run: Pass, seen: Tower) -> Block:
    normed = run.new(seen.width)
    joined = run.product(3 * seen.query)
    attended = run.new(seen.query)
    out = run.product(seen.width)
    run.drop(joined, attended, normed)
    gated = run.new(seen.width)
    summed = run.new(seen.width)
    run.drop(gated, out)
    normed = run.new(seen.width)
    wide = run.product(seen.intermediate, bias=True)
    activated = run.new(seen.intermediate)
    run.drop(wide)
    fed = run.product(seen.width, bias=True)
    run.drop(activated, normed)
    gated = run.new(seen.width)
    after = run.new(seen.width)
    run.drop(gated, fed, summed)
    return after


def _idefics2(run: Pass, seen: Tower) -> Block:
    """Idefics2's features, of which the batch keeps one copy until the pass is over."""
    given = _given(run, seen)
    _, *dropped = _resampled_crops(run, seen)
    run.drop(*dropped)
    joined = run.beside(seen.features).new(run.shapes.g.hidden)
    run.drop(*given)
    return joined


def _resampled_crops(run: Pass, seen: Tower) -> tuple[Block, ...]:
    """SigLIP on the quarters and the whole, a gated projection, and a resampler that asks of all the patches.

    Returns the features of the batch's images, then what they are made of.
    """
    inside, wide = run.beside(seen.pictures * seen.patches), run.shapes.g.hidden
    states, *chosen = _crops(inside, seen)
    both = inside.product(2 * seen.projected)
    activated, product = inside.new(seen.projected), inside.new(seen.projected)
    run.drop(activated)
    context = inside.product(wide)
    run.drop(product, both)
    assert seen.resampler is not None
    latents = _resampled(inside, seen, seen.resampler)
    run.drop(states, context)
    return run.beside(seen.features).new(wide), latents, *chosen


def _idefics3(run: Pass, seen: Tower) -> Block:
    """Idefics3's features, placed among what stands around them and gathered again."""
    given = _given(run, seen)
    features, *dropped = _shuffled_tiles(run, seen)
    run.drop(*dropped)
    wide, joined = run.shapes.g.hidden, run.beside(seen.features)
    placed = run.memory.new((seen.features + (pictures.around(seen) or 0)) * wide * ELEMENT)
    run.drop(*given, features)
    gathered = joined.new(wide)
    made = joined.new(wide)
    run.drop(gathered)
    del placed  # stays in the batch's cache until the pass is over
    return made


def _shuffled_tiles(run: Pass, seen: Tower) -> tuple[Block, ...]:
    """SigLIP on the tiles and the whole; neighbouring patches are put side by side and projected.

    Returns the features of the batch's images, then what they are made of.
    """
    inside, joined = run.beside(seen.pictures * seen.patches), run.beside(seen.features)
    states, *chosen = _crops(inside, seen)
    rows = inside.new(seen.width)
    shuffled = inside.new(seen.width)
    run.drop(rows)
    projected = joined.product(run.shapes.g.hidden)
    run.drop(shuffled, states)
    return joined.new(run.shapes.g.hidden), projected, *chosen


def _crops(inside: Pass, seen: Tower) -> tuple[Block, ...]:
    """Idefics' pictures without the empty ones, their mask, and SigLIP's states of them: those first."""
    run, memory = inside, inside.memory
    pixels = seen.pictures * seen.side**2
    taken = memory.new(3 * pixels * ELEMENT)
    empty = memory.new(3 * pixels)
    run.drop(memory.new(8 * 3 * pixels), empty)  # where they are zero, and as integers to be counted
    chosen = memory.new(3 * pixels * ELEMENT)
    run.drop(taken)
    chosen_mask = memory.new(8 * pixels)
    last = _siglip(inside, seen)
    states = _transposed_norm(inside, seen.width)
    run.drop(last)
    return states, chosen, chosen_mask


def _resampled(inside: Pass, seen: Tower, size: Resampler) -> Block:
    """Idefics2's resampler: in each layer the context is normed in float32 and asked beside the latents."""
    run, wide = inside.beside(seen.features), inside.shapes.g.hidden
    both = inside.beside(seen.features + inside.tokens)
    latents: Block | None = None
    for _ in range(size.layers):
        normed = run.single_norm(wide)
        context = inside.single_norm(wide)
        joined = both.new(wide)
        asked = run.product(size.query)
        keys = both.product(2 * size.kv)
        repeated, values = both.new(size.query), both.new(size.query)
        out = run.product(wide)
        run.drop(joined, asked, keys, repeated, values, normed, context)
        summed = run.new(wide)
        run.drop(out, latents)
        normed = run.single_norm(wide)
        wider = run.product(2 * size.intermediate)
        activated, product = run.new(size.intermediate), run.new(size.intermediate)
        run.drop(activated)
        fed = run.product(wide)
        run.drop(wider, product, normed)
        latents = run.new(wide)
        run.drop(summed, fed)
    final = run.single_norm(wide)
    run.drop(latents)
    return final


def _qwen2_vl(run: Pass, seen: Tower) -> Block:
    """Qwen2-VL's and Qwen2.5-VL's features, of which the batch keeps one copy until the pass is over."""
    merged = run.beside(seen.features)
    given = _given(run, seen)
    out = _merged_patches(run, seen)
    placed, gathered = merged.new(run.shapes.g.hidden), merged.new(run.shapes.g.hidden)
    joined = merged.new(run.shapes.g.hidden)
    run.drop(out, gathered, *given)
    del placed  # stays in the batch's cache until the pass is over
    return joined


def _merged_patches(run: Pass, seen: Tower) -> Block:
    """Qwen2-VL's and Qwen2.5-VL's tower on one image of any size, and the merger of neighbouring patches."""
    inside, merged = run.beside(seen.patches), run.beside(seen.features)
    taken = inside.new(6 * seen.side**2)
    last = _through(inside, seen, inside.new(seen.width), _qwen2_vl_layer, stays=False)
    normed = inside.new(seen.width)
    run.drop(last)
    wide = merged.product(seen.projected, bias=True)
    run.drop(normed)
    activated = merged.new(seen.projected)
    run.drop(wide)
    out = merged.product(run.shapes.g.hidden, bias=True)
    run.drop(activated, taken)
    return out


def _qwen2_vl_layer(run: Pass, seen: Tower) -> Block:
    normed = run.new(seen.width)
    joined = run.product(3 * seen.query, bias=True)
    parts = [_rotated(run, seen.query), _rotated(run, seen.query), run.new(seen.query), run.new(seen.query)]
    out = run.product(seen.width, bias=True)
    run.drop(*parts, joined)
    summed = run.new(seen.width)
    if seen.added_at_once:
        run.drop(out)
    again = run.new(seen.width)
    if seen.kind == "qwen2_vl":
        wide = run.product(seen.intermediate, bias=True)
        activated = _quick_gelu(run, seen.intermediate)
        run.drop(wide)
    else:
        gate, up = run.product(seen.intermediate, bias=True), run.product(seen.intermediate, bias=True)
        single = run.new(seen.intermediate)
        activated = run.new(seen.intermediate)
        run.drop(single, gate, up)
    fed = run.product(seen.width, bias=True)
    run.drop(activated)
    after = run.new(seen.width)
    run.drop(fed, again, summed, normed, None if seen.added_at_once else out)
    return after


def _rotated(run: Pass, width: int) -> Block:
    """Queries or keys turned in float32: the cosine's part, the halves swapped, the sine's part, their sum, back."""
    single, cosine = run.new(2 * width), run.new(2 * width)
    half = run.new(width)
    swapped = run.new(2 * width)
    run.drop(half)
    sine = run.new(2 * width)
    run.drop(swapped)
    summed = run.new(2 * width)
    run.drop(cosine, sine)
    out = run.new(width)
    run.drop(summed, single)
    return out


def _siglip(run: Pass, seen: Tower) -> Block:
    """SigLIP's patches and layers: the last hidden states."""
    patches = run.new(seen.width)
    positions = run.new(seen.width)
    first = run.new(seen.width)
    run.drop(positions, patches)
    return _through(run, seen, first, _siglip_layer)


def _through(
    run: Pass, seen: Tower, first: Block, layer: Callable[[Pass, Tower], Block], *, stays: bool = True
) -> Block:
    """The tower's layers, as far as they reserve anything new; what they start from `stays` until they are done."""
    hidden = first
    met: set[tuple[object, ...]] = set()
    key = layer.__name__, seen
    for _ in range(seen.layers):
        (after,) = run.play(key, lambda run: (layer(run, seen),))
        assert after is not None
        if hidden is not first or not stays:
            run.drop(hidden)
        hidden = after
        state = (run.places(), hidden.address)
        if state in met:
            break
        met.add(state)
    if hidden is not first and stays:
        run.drop(first)
    return hidden


def _siglip_layer(run: Pass, seen: Tower) -> Block:
    normed = _transposed_norm(run, seen.width)
    if seen.kind in CROPPED:
        return _fed_forward(run, seen, _joined_attention(run, seen), normed)
    query = run.product(seen.query, bias=True)
    keys, values = _turned(run, seen.query), _turned(run, seen.query)
    turned = run.new(seen.query)
    run.drop(query)
    weights = _scores(run, seen)
    attended = run.new(seen.query)
    flat = run.new(seen.query)
    run.drop(attended)
    out = run.product(seen.width, bias=True)
    run.drop(flat, turned, keys, values)
    return _fed_forward(run, seen, out, normed, weights)


def _joined_attention(run: Pass, seen: Tower) -> Block:
    """Idefics': queries, keys and values in one, each copied head by head for its product."""
    joined = run.product(3 * seen.query, bias=True)
    weights = _scores(run, seen, run.new(seen.query), run.new(seen.query))
    values = run.new(seen.query)
    attended = run.new(seen.query)
    run.drop(values)
    flat = run.new(seen.query)
    run.drop(attended)
    out = run.product(seen.width, bias=True)
    run.drop(flat, joined, weights)
    return out


def _fed_forward(run: Pass, seen: Tower, out: Block, normed: Block, kept: Block | None = None) -> Block:
    """The rest of a layer of SigLIP, whose caller may keep the attention's weights."""
    run.drop(normed)
    joined = run.new(seen.width)
    run.drop(out)
    normed = _transposed_norm(run, seen.width)
    wide = run.product(seen.intermediate, bias=True)
    activated = run.new(seen.intermediate)
    run.drop(wide)
    fed = run.product(seen.width, bias=True)
    run.drop(activated, normed)
    after = run.new(seen.width)
    run.drop(fed, joined, kept)
    return after


def _transposed_norm(run: Pass, width: int) -> Block:
    """PyTorch's layer norm of a tensor that lies transposed: a copy in order first."""
    copied, out = run.new(width), run.new(width)
    run.drop(copied)
    return out


def _turned(run: Pass, width: int) -> Block:
    """A projection copied head by head."""
    made = run.product(width, bias=True)
    out = run.new(width)
    run.drop(made)
    return out


def _scores(run: Pass, seen: Tower, *inputs: Block) -> Block:
    """Every patch against every other: the products, the scaled ones, both in float32 for the softmax, and back.

    `inputs` are copies that the product is made of. PyTorch's softmax reads float16 as it is.
    https://github.com/pytorch/pytorch/blob/v2.7.0/aten/src/ATen/native/SoftMax.cpp#L447-L463
    """
    each = seen.pictures * seen.heads * seen.patches**2
    made = run.fixed(each * ELEMENT)
    run.drop(*inputs)
    scaled = run.fixed(each * ELEMENT)
    run.drop(made)
    single = None if seen.halves else run.fixed(each * SINGLE)
    soft = run.fixed(each * SINGLE)
    run.drop(single)
    out = run.fixed(each * ELEMENT)
    run.drop(soft, scaled)
    return out


def masks(run: Pass, requests: int, longest: int) -> tuple[Block, ...]:
    """Gemma 3's dense masks of every prompt at the longest one's length, which stay until its pass is over.

    As booleans: causal, padding, both, the image's, either, and the whole; in float32 (`torch.where` of two Python
    numbers) for all positions and for the sliding window's; flashinfer, since 3.3.0, is given the unpadded one.
    """
    memory = run.memory
    square = longest * longest
    ones = memory.new(square)
    causal = memory.new(square)
    run.drop(ones)
    padding = memory.new(requests * square)
    both = memory.new(requests * square)
    run.drop(padding)
    image, either, whole = (memory.new(requests * square) for _ in range(3))
    run.drop(causal, both, image, either)
    single = memory.new(requests * square * SINGLE)
    if run.shapes.scored:
        run.drop(whole)
    last = run.tokens - (requests - 1) * longest
    given = () if run.shapes.scored else (whole, memory.new((requests - 1) * square + last * last))
    like = memory.new(requests * square)
    window = memory.new(requests * square)
    run.drop(like)
    local = memory.new(requests * square * SINGLE)
    return *given, single, window, local
