"""What a vision-language model's processor makes of an image, and the sizes of the tower that encodes it.

The router sends one picture of 20 x 20 pixels with the warm-up, in every release that serves these families
(backends/v3/src/client/grpc_client.rs@v3.3.7:130-142).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.units import thousands

CROPS = 5
"""Pictures Idefics2's processor makes of one: its quarters and itself (unless `do_image_splitting` is off)."""
CROPS_SIDES = (378, 980)
"""Pixels it scales the shortest side of a smaller picture up to, and the longest of a larger one down to.

https://huggingface.co/HuggingFaceM4/idefics2-8b/blob/main/preprocessor_config.json
"""
TILED_SIDE = 1456
"""Pixels every picture's longest side is scaled to before Idefics3's processor cuts it into tiles.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/__init__.py#L1649-L1651
"""
OF_ANY_SIZE = frozenset({"qwen2_vl", "qwen2_5_vl"})
"""Families whose tower takes images as they come."""
MOST_PIXELS = 12_845_056
"""Pixels Qwen2-VL's and Qwen2.5-VL's processor lets through (`max_pixels`).

https://huggingface.co/Qwen/Qwen2-VL-7B-Instruct/blob/main/preprocessor_config.json
"""


class Resampler(NamedTuple):
    """Idefics2's resampler on one shard."""

    layers: int
    """Layers of it."""
    query: int
    """Query heads times head size."""
    kv: int
    """KV heads times head size."""
    intermediate: int
    """Feed-forward width."""


class Tower(NamedTuple):
    """A vision tower on one shard, and what an image becomes in it."""

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
    halves: bool
    """Whether it works in float16."""
    projected: int = 0
    """Width between the projector's two products, on the shard, or of what it is given; 0 where nothing needs it."""
    more: int = 0
    """Layers of a second tower behind it."""
    resampler: Resampler | None = None
    """What asks of the patches (Idefics2)."""
    added_at_once: bool = False
    """Whether a layer forgets what attention made once it is added (Qwen2-VL until 3.1.0).

    https://github.com/huggingface/text-generation-inference/blob/v3.1.0/server/text_generation_server/models/custom_modeling/qwen2_vl.py#L225-L228
    """


def crossed(setting: Setting) -> tuple[int, ...]:
    """Numbers of the layers that attend to an image: Mllama's."""
    given = setting.facts.model.text().get("cross_attention_layers")
    if setting.family.model_type != "mllama" or not isinstance(given, list):
        return ()
    return tuple(number for number in given if isinstance(number, int))


def position_sections(setting: Setting) -> int:
    """Positions of one token, of which each part of a head uses one: Qwen2-VL's and Qwen2.5-VL's; 0 elsewhere."""
    scaling = setting.facts.model.text().get("rope_scaling")
    sections = scaling.get("mrope_section") if isinstance(scaling, Mapping) else None
    return len(sections) if isinstance(sections, list) else 0


def stated(setting: Setting) -> bool:
    """Whether config.json and its class's defaults say every size of the tower."""
    try:
        largest(setting), warmed_up(setting)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return False
    return True


def warmed_up(setting: Setting) -> Tower | None:
    """The tower with the warm-up's image.

    None without one, and for Qwen2-VL and Qwen2.5-VL, which make 16 patches of it: nothing that outlasts a small
    segment.
    """
    return _of(setting, largest=False)


WHOLE_SINCE = (3, 3, 0)
"""Release from which no image of the warm-up may be cut.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/vlm_causal_lm.py#L485
"""
BETWEEN = {"gemma3": 2, "llava_next": 0, "idefics2": CROPS + 1, "paligemma": 0}
"""Tokens that stand around the warm-up's image, by family."""


def around(seen: Tower) -> int | None:
    """Tokens that stand around the features of an image; None where that is not known.

    Idefics3's: two before each tile, an end of each row of them, two before the whole and one behind it.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/vlm_causal_lm.py#L61-L88
    """
    if seen.kind == "idefics3":
        tiles = seen.pictures - 1
        return 2 * tiles + math.isqrt(tiles) + 3
    return BETWEEN.get(seen.kind)


def needed(setting: Setting) -> int:
    """Tokens a prompt and a prefill need for all of the warm-up's image; 0 where none is, or where it may be cut."""
    if setting.family.served_by != "vlm" or setting.facts.gpu.system == "gaudi":
        return 0
    if setting.facts.release.version < WHOLE_SINCE or not stated(setting):
        return 0
    seen = warmed_up(setting)
    between = around(seen) if seen is not None else None
    return seen.features + between if seen is not None and between is not None else 0


def largest(setting: Setting) -> Tower | None:
    """The tower with one image of the largest size that the processor makes; None where there is no tower we know."""
    if setting.family.model_type in OF_ANY_SIZE:
        return _qwen2_vl(setting, vision_config(setting))
    return _of(setting, largest=True)


def patches(seen: Tower, longest: int) -> int:
    """Patches of the largest image in a prompt of `longest` tokens.

    Qwen2-VL's and Qwen2.5-VL's take images as they come, up to the largest, and the router wants a token for every
    patch, four times as many as the language model then sees.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/router/src/config.rs#L322-L329
    """
    return max(1, min(seen.patches, longest)) if seen.kind in OF_ANY_SIZE else seen.patches


def words(setting: Setting, longest: int) -> str:
    """The image that `patches` counts, as the tower gets it."""
    seen = largest(setting)
    if seen is None:
        return "none"
    if seen.kind in OF_ANY_SIZE:
        return f"{thousands(patches(seen, longest))} patches of {seen.side} x {seen.side} pixels"
    several = f"{seen.pictures} pictures of " if seen.pictures > 1 else ""
    return f"{several}{seen.side} x {seen.side} pixels"


def _of(setting: Setting, largest: bool) -> Tower | None:
    config, vision = setting.facts.model.config, vision_config(setting)
    tp = setting.num_shard
    match setting.family.model_type:
        case "gemma3":
            side = int(vision["image_size"])
            patches = (side // int(vision["patch_size"])) ** 2
            return _tower(setting, vision, 1, side, patches, int(config.get("mm_tokens_per_image", 256)))
        case "llava_next":
            return _llava_next(setting, vision, largest)
        case "idefics2":
            side = CROPS_SIDES[largest]
            patches = (side // int(vision["patch_size"])) ** 2
            asked = {**PERCEIVER, **(config.get("perceiver_config") or {})}
            features = CROPS * int(asked["resampler_n_latents"])
            size, hidden = int(asked["resampler_head_dim"]), families.hidden(setting.facts.model)
            return _tower(setting, vision, CROPS, side, patches, features)._replace(
                projected=families.intermediate(setting.facts.model) // tp,
                resampler=Resampler(
                    int(asked["resampler_depth"]), int(asked["resampler_n_heads"]) // tp * size,
                    int(asked["num_key_value_heads"]) // tp * size, 4 * hidden // tp,
                ),
            )  # fmt: skip
        case "idefics3":
            side = int(vision["image_size"])
            pictures, patches = 1 + (-(-TILED_SIDE // side)) ** 2, (side // int(vision["patch_size"])) ** 2
            return _tower(
                setting, vision, pictures, side, patches, pictures * (patches // int(config["scale_factor"]) ** 2)
            )
        case "paligemma":
            side = int(vision["image_size"])
            patches = (side // int(vision["patch_size"])) ** 2
            return _tower(setting, vision, 1, side, patches, patches)
        case "mllama":
            pictures, side = int(vision["max_num_tiles"]), int(vision["image_size"])
            patches = (side // int(vision["patch_size"])) ** 2 + 1
            made = _tower(setting, vision, pictures, side, patches, pictures * patches)
            return made._replace(projected=int(vision["vision_output_dim"]), more=int(vision["num_global_layers"]))
    return None


PERCEIVER = {
    "resampler_n_latents": 64, "resampler_depth": 3, "resampler_n_heads": 16, "resampler_head_dim": 96,
    "num_key_value_heads": 4,
}  # fmt: skip
"""Defaults of Idefics2PerceiverConfig.

https://github.com/huggingface/transformers/blob/v4.51.3/src/transformers/models/idefics2/configuration_idefics2.py#L140-L170
"""


def _qwen2_vl(setting: Setting, vision: Mapping[str, Any]) -> Tower:
    """Qwen2-VL's and Qwen2.5-VL's tower on as many patches as the processor lets through; four become one token."""
    newer = setting.family.model_type == "qwen2_5_vl"
    width = int(vision["hidden_size" if newer else "embed_dim"])
    wide = int(vision["intermediate_size"]) if newer else int(width * float(vision.get("mlp_ratio", 4)))
    heads, tp, patch = int(vision["num_heads"]), setting.num_shard, int(vision["patch_size"])
    merged = int(vision.get("spatial_merge_size", 2)) ** 2
    patches = MOST_PIXELS // patch**2 // merged * merged
    return Tower(
        setting.family.model_type, 1, patch, patches, width, heads // tp, heads // tp * (width // heads), wide // tp,
        int(vision["depth"]), patches // merged, setting.dtype == "float16", projected=merged * width // tp,
        added_at_once=setting.facts.release.version < (3, 1, 1),
    )  # fmt: skip


def _llava_next(setting: Setting, vision: Mapping[str, Any], largest: bool) -> Tower:
    """Tiles of one of the model's resolutions, and the whole at one tile.

    The warm-up's square gets the smallest resolution that shows all of it; features that lie beside it are cut off.
    https://github.com/huggingface/transformers/blob/v4.51.3/src/transformers/image_processing_utils.py#L264-L301
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/vlm_causal_lm.py#L226-L280
    """
    config, side, patch = setting.facts.model.config, int(vision["image_size"]), int(vision["patch_size"])
    choose = max if largest else min
    high, wide = choose(config["image_grid_pinpoints"], key=lambda size: size[0] * size[1])
    each = (side // patch) ** 2
    rows, columns = (high // patch, wide // patch) if largest else (min(high, wide) // patch,) * 2
    layer = int(config.get("vision_feature_layer", -2))
    layers = int(vision["num_hidden_layers"]) + layer + 1 if layer < 0 else layer + 1
    made = _tower(setting, vision, 1 + high * wide // side**2, side, each + 1, each + rows * (columns + 1))
    return made._replace(layers=layers, projected=families.hidden(setting.facts.model) // setting.num_shard)


def vision_config(setting: Setting) -> Mapping[str, Any]:
    """The tower's configuration, with the defaults of its class."""
    model = setting.facts.model
    stated, left_out = model.config.get("vision_config"), model.defaults.get("vision_config")
    return {**(left_out if isinstance(left_out, Mapping) else {}), **(stated if isinstance(stated, Mapping) else {})}


def _tower(setting: Setting, vision: Mapping[str, Any], pictures: int, side: int, patches: int, features: int) -> Tower:
    tp, width = setting.num_shard, int(vision["hidden_size"])
    heads = int(vision["attention_heads" if setting.family.model_type == "mllama" else "num_attention_heads"])
    return Tower(
        setting.family.model_type, pictures, side, patches, width, heads // tp, heads // tp * (width // heads),
        int(vision["intermediate_size"]) // tp, int(vision["num_hidden_layers"]), features,
        setting.dtype == "float16",
    )  # fmt: skip
