"""What a vision-language class allocates before its language model's layers: the warm-up's image, and masks.

The router sends one picture of 20 x 20 pixels behind the text of the first warm-up request, in every release that
serves these families (backends/v3/src/client/grpc_client.rs@v3.3.7:130-142), and the tower encodes it at whatever
size the model's processor makes of it. So a tower that only knows one size (Gemma 3's) is warmed up at its full cost.
What cuDNN may take for the patches' convolution is not counted.

Read at v3.3.7 under server/text_generation_server/models: vlm_causal_lm.py:890-1060 and custom_modeling/siglip.py,
flash_gemma3_modeling.py:630-790, :870-880.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tgi_advisor.estimate.allocator import Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.replay import layers
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.estimate.setting import Setting

SINGLE = 4
"""Bytes of a float32."""


class Tower(NamedTuple):
    """A vision tower on one shard, and what the warm-up's image becomes in it."""

    kind: str
    """The family."""
    pictures: int
    """Pictures the processor makes of the image: tiles, crops."""
    side: int
    """Pixels of a picture's side."""
    patches: int
    """Positions of one picture in the tower."""
    width: int
    """Width of the tower's residual stream."""
    heads: int
    """Heads of the shard."""
    query: int
    """Heads of the shard times head size."""
    intermediate: int
    """Feed-forward width of the shard."""
    layers: int
    """Layers of the tower."""
    features: int
    """Positions the language model sees of it."""


def tower(setting: Setting) -> Tower | None:
    """The tower of a launch; None where it works on so few patches that nothing it makes outlasts a small segment."""
    kind = setting.family.model_type
    if kind == "gemma3":
        vision = _vision(setting)
        side, patch = int(vision["image_size"]), int(vision["patch_size"])
        features = int(setting.facts.model.config.get("mm_tokens_per_image", 256))
        return _tower(setting, vision, 1, side, (side // patch) ** 2, features)
    return None


def _vision(setting: Setting) -> Mapping[str, Any]:
    """The tower's configuration, with the defaults of its class."""
    model = setting.facts.model
    stated, left_out = model.config.get("vision_config"), model.defaults.get("vision_config")
    return {**(left_out if isinstance(left_out, Mapping) else {}), **(stated if isinstance(stated, Mapping) else {})}


def _tower(setting: Setting, vision: Mapping[str, Any], pictures: int, side: int, patches: int, features: int) -> Tower:
    tp, width = setting.num_shard, int(vision["hidden_size"])
    heads = int(vision["num_attention_heads"])
    return Tower(
        setting.family.model_type, pictures, side, patches, width, heads // tp, heads // tp * (width // heads),
        int(vision["intermediate_size"]) // tp, int(vision["num_hidden_layers"]), features,
    )  # fmt: skip


def forward(run: Pass, setting: Setting, requests: int, longest: int) -> tuple[Block, ...]:
    """The image, the embedded tokens, masks, and the pass of the language model.

    Returns what is dropped when the logits are there; the embedded tokens stay in the batch.
    """
    features = encode(run, tower(setting))
    embedded = run.new(run.shapes.g.hidden)
    run.drop(features)
    held = masks(run, requests, longest) if setting.family.model_type == "gemma3" else ()
    final, *_ = layers.forward(run, setting.facts.release.version, embedded)
    return final, *held


def encode(run: Pass, seen: Tower | None) -> Block | None:
    """Encode the warm-up's image: its features, which live until they are put among the embedded tokens."""
    if seen is None:
        run.take_cublas()
        return None
    inside = run.beside(seen.pictures * seen.patches)
    memory = run.memory
    pixels = memory.new(seen.pictures * 3 * seen.side**2 * SINGLE)
    taken = memory.new(seen.pictures * 3 * seen.side**2 * ELEMENT)
    states = _siglip(inside, seen)
    normed = _transposed_norm(inside, seen.width)
    square = inside.new(seen.width)  # the patches as a picture again, to be averaged
    pooled = run.beside(seen.features)
    run.drop(pooled.single_norm(seen.width))
    features = pooled.product(run.shapes.g.hidden)
    run.drop(square, taken, states, normed)
    placed = memory.new((seen.features + 2) * run.shapes.g.hidden * ELEMENT)
    run.drop(pixels, features)
    gathered = pooled.new(run.shapes.g.hidden)
    joined = pooled.new(run.shapes.g.hidden)
    run.drop(gathered)
    run.has_cublas = inside.has_cublas
    del placed  # stays in the batch's cache until the pass is over
    return joined


def _siglip(run: Pass, seen: Tower) -> Block:
    """SigLIP's patches and layers: the last hidden states."""
    patches = run.new(seen.width)
    positions = run.new(seen.width)
    first = hidden = run.new(seen.width)
    run.drop(positions, patches)
    met: set[tuple[object, ...]] = set()
    for _ in range(seen.layers):
        after = _siglip_layer(run, seen)
        if hidden is not first:
            run.drop(hidden)
        hidden = after
        state = (run.places(), hidden.address)
        if state in met:
            break
        met.add(state)
    if hidden is not first:
        run.drop(first)
    return hidden


def _siglip_layer(run: Pass, seen: Tower) -> Block:
    normed = _transposed_norm(run, seen.width)
    query = run.product(seen.query, bias=True)
    keys, values = _turned(run, seen.query), _turned(run, seen.query)
    turned = run.new(seen.query)
    run.drop(query)
    weights = _scores(run, seen)
    attended = run.new(seen.query)
    flat = run.new(seen.query)
    run.drop(attended)
    out = run.product(seen.width, bias=True)
    run.drop(flat, turned, keys, values, normed)
    joined = run.new(seen.width)
    run.drop(out)
    normed = _transposed_norm(run, seen.width)
    wide = run.product(seen.intermediate, bias=True)
    activated = run.new(seen.intermediate)
    run.drop(wide)
    fed = run.product(seen.width, bias=True)
    run.drop(activated, normed)
    after = run.new(seen.width)
    run.drop(fed, joined, weights)
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


def _scores(run: Pass, seen: Tower) -> Block:
    """Every patch against every other: the products, the scaled ones, both in float32 for the softmax, and back."""
    each = seen.pictures * seen.heads * seen.patches**2
    made = run.memory.new(each * ELEMENT)
    scaled = run.memory.new(each * ELEMENT)
    run.drop(made)
    single, soft = run.memory.new(each * SINGLE), run.memory.new(each * SINGLE)
    run.drop(single)
    out = run.memory.new(each * ELEMENT)
    run.drop(soft, scaled)
    return out


def masks(run: Pass, requests: int, longest: int) -> tuple[Block, ...]:
    """Gemma 3's dense masks of every prompt at the longest one's length, which stay until its pass is over.

    As booleans: causal, padding, both, the image's, either, and the whole; in float32 (`torch.where` of two Python
    numbers) for all positions and for the sliding window's; flashinfer is given the unpadded one.
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
    last = run.tokens - (requests - 1) * longest
    unpadded = memory.new((requests - 1) * square + last * last)
    like = memory.new(requests * square)
    window = memory.new(requests * square)
    run.drop(like)
    local = memory.new(requests * square * SINGLE)
    return whole, single, unpadded, window, local
