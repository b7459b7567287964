"""What a vision-language class loads beside its language model, in the order its `__init__` makes the modules.

Read at v3.3.7 under server/text_generation_server/models/custom_modeling: flash_gemma3_modeling.py:660-700 and
siglip.py, flash_pali_gemma_modeling.py:29-62, llava_next.py:113-160 and clip.py, idefics2.py:682-730,
idefics3.py:340-470, qwen2_vl.py:393-440, qwen2_5_vl.py:817-860, mllama.py:407-480 and :913-940.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tgi_advisor.estimate.weights import Held

OF_VISION = (
    "vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "image_newline.", "model.vision_model.",
    "model.connector.",
)  # fmt: skip
"""How the names of the tensors begin that are not the language model's."""
ORDERS: dict[str, tuple[str, ...]] = {
    "gemma3": ("post_layernorm.", "multi_modal_projector.", "patch_embedding.", "position_embedding.", "layers.*."),
    "paligemma": ("patch_embedding.", "position_embedding.", "layers.*.", "post_layernorm.", "multi_modal_projector."),
    "idefics3": ("patch_embedding.", "position_embedding.", "encoder.layers.*.", "post_layernorm.", "connector."),
    "llava_next": (
        "class_embedding", "patch_embedding.", "position_embedding.", "pre_layrnorm.", "layers.*.",
        "multi_modal_projector.linear_1", "multi_modal_projector.linear_2", "image_newline",
    ),
    "qwen2_vl": ("patch_embed.", "blocks.*.", "merger."),
    "qwen2_5_vl": ("patch_embed.", "blocks.*.", "merger."),
    "mllama": (
        "vision_model.patch_embedding.", "class_embedding", "gated_positional_embedding.embedding", "tile_embedding.",
        "pre_tile_positional_embedding.", "post_tile_positional_embedding.", "layernorm_pre.", "layernorm_post.",
        "model.transformer.layers.*.", "global_transformer.layers.*.", "multi_modal_projector.",
    ),
    "idefics2": (
        "patch_embedding.", "position_embedding.", "encoder.layers.*.", "post_layernorm.", "modality_projection.",
        "perceiver_resampler.latents", "perceiver_resampler.layers.*.", "perceiver_resampler.norm.",
    ),
}  # fmt: skip
"""Parts of the names in the order of the class."""
WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "gemma3": (("k_proj",), ("v_proj",), ("q_proj",), ("out_proj",), ("fc1",), ("fc2",)),
    "paligemma": (("k_proj",), ("v_proj",), ("q_proj",), ("out_proj",), ("fc1",), ("fc2",)),
    "idefics3": (("q_proj", "k_proj", "v_proj"), ("out_proj",), ("fc1",), ("fc2",)),
    "llava_next": (("q_proj", "k_proj", "v_proj"), ("out_proj",), ("fc1",), ("fc2",)),
    "qwen2_vl": (("qkv",), ("attn.proj",), ("fc1",), ("fc2",)),
    "qwen2_5_vl": (("qkv",), ("attn.proj",), ("up_proj",), ("gate_proj",), ("down_proj",)),
    "mllama": (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("fc1",), ("fc2",)),
    "idefics2": (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("out_proj",), ("fc1",), ("fc2",),
        ("gate_proj", "up_proj"), ("down_proj",),
    ),
}  # fmt: skip
"""Matrices of one layer in the order they are made; those that stand together are made as one."""
RESAMPLER = (("q_proj",), ("k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""The same of a layer of Idefics2's resampler."""
LAST = frozenset({"idefics2", "idefics3"})
"""Families whose class makes the language model first."""
INSIDE = frozenset({"qwen2_vl", "qwen2_5_vl"})
"""Families whose class makes the tower between the embedding and the layers of the language model."""


CONVERTED = frozenset({"qkv"})
"""Projections stored as one, which are converted when they are on the GPU.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/weights.py#L328-L343
"""
JOINED_ON_GPU = frozenset({"idefics2", "idefics3"})
"""Families whose tower is loaded past the quantization: what columns are made of is moved first and then joined.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/weights.py#L129-L131
"""


class Made(NamedTuple):
    """One tensor that is made."""

    pieces: tuple[int, ...]
    """Bytes of what is read for it."""
    copied: int | None
    """Bytes more that the copy or join takes before what was read is dropped; None where it stays as it was read."""


def sees(name: str) -> bool:
    """Whether a tensor of this name is not the language model's."""
    return f"{name}.".startswith(OF_VISION)


def of(kind: str, rows: Sequence[Held], converted: bool, moved_first: bool) -> Iterator[Made]:
    """What a family's class reads for its tower and projector.

    `converted`: into another 16-bit type; `moved_first`: whether columns are joined when they are on the GPU.
    """
    on_gpu = moved_first or kind in JOINED_ON_GPU
    rest = list(rows)
    for part in ORDERS[kind]:
        here = [row for row in rest if part in row.group.name]
        rest = [row for row in rest if row not in here]
        if part.endswith(".*."):
            words = RESAMPLER if "perceiver" in part else WORDS[kind]
            for _ in range(max((row.times for row in here), default=0)):
                yield from _module(here, words, converted, on_gpu)
        else:
            yield from _module(here, WORDS[kind], converted, on_gpu)
    yield from (Made((row.each,), None) for row in rest)


def _module(rows: Sequence[Held], words: Sequence[Sequence[str]], converted: bool, on_gpu: bool) -> Iterator[Made]:
    """The matrices of a module in order, then whatever else it holds."""
    rest = list(rows)
    for together in words:
        found = [row for row in rest if any(f"{word}.weight" in row.group.name for word in together)]
        if found:
            rest = [row for row in rest if row not in found]
            pieces = tuple(row.each for row in found)
            copied = (on_gpu and found[0].kind == "column") or (converted and together[0] in CONVERTED)
            yield Made(pieces, 0) if copied else Made((sum(pieces),), None)
    for row in rest:
        if on_gpu and row.kind == "column" and row.group.name.endswith(".weight"):
            yield Made((row.each,), 0)
        elif row.kind == "embedding":
            yield Made((row.each,), row.group.shape[-1] * 2)
        elif row.group.name.endswith("positional_embedding.embedding"):  # times what its gate leaves of it
            yield Made((row.each,), 0)
        else:
            yield Made((row.each,), None)
