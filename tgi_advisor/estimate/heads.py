"""Speculation heads on the GPU: which of them a launch makes, and what of their tensors a shard holds.

All but embeddings (split by the vocabulary) and the joined blocks of Medusa's second class (split by outputs) is whole
on every shard, in the launch's dtype.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/medusa.py
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/mlp.py
https://github.com/huggingface/text-generation-inference/blob/v2.0.1/server/text_generation_server/utils/layers.py#L422-L596
"""

from collections.abc import Mapping
from typing import NamedTuple

from tgi_advisor.estimate import weights
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families, heads
from tgi_advisor.facts.heads import Kind
from tgi_advisor.facts.model import Heads, TensorGroup
from tgi_advisor.facts.release import Version

CLASSES: Mapping[str, Version] = {"llama": (1, 3, 0), "baichuan": (1, 3, 0), "phi": (1, 4, 0), "gemma": (1, 4, 2)}
"""Model types whose class takes heads before the others do, since when (models/__init__.py@v1.4.2:262-323)."""
EVERYWHERE: Version = (1, 4, 3)
"""First release whose other classes take heads; before, they leave them out."""
MOST_ROWS = 128
"""Rows up to which heads are asked since 2.0.0 (layers/medusa.py@v3.3.7:100); before, always."""
ALWAYS = 1 << 40
"""More rows than any pass has."""


class Made(NamedTuple):
    """The heads a launch makes, their tensors in elements on one shard."""

    kind: Kind
    """TGI's class."""
    number: int
    """How many tokens they guess: heads of Medusa, rounds of an MLP speculator."""
    blocks: int
    """Residual blocks of a Medusa head; 0 in an MLP speculator."""
    inner: int
    """Width an MLP speculator works in; of Medusa the model's."""
    vocabulary: int
    """Rows of an output matrix of their own, or of the base's."""
    tensors: tuple[tuple[str, int, int], ...]
    """(`embedding`, `weight`, `bias`, `joined` or `joined_bias`; elements of a row; rows) in TGI's order of loading."""
    scaled: bool
    """Whether an MLP speculator first scales the state (`scale_input`)."""
    most_rows: int
    """Rows up to which they are asked: for more, the logits alone are computed."""


def of(setting: Setting) -> Made | None:
    """The heads of a launch; None without, and where release or class takes none."""
    found, version = setting.facts.model.heads, setting.facts.release.version
    if found is None or not heads.taken(found, version) or not weights.on_own_layers(setting):
        return None
    if version < min(EVERYWHERE, CLASSES.get(setting.family.model_type, EVERYWHERE)):
        return None
    number = heads.number(found.config)
    if version >= heads.AS_MANY_AS_ASKED:
        number = min(number, setting.speculate)
    kind = heads.kind(found, version, number)
    made = _medusa if kind in ("medusa", "medusa_joined") else _mlp
    return made(setting, found, kind, number)


def _medusa(setting: Setting, found: Heads, kind: Kind, number: int) -> Made:
    blocks, tp = heads.blocks(found), setting.num_shard
    hidden = families.hidden(setting.facts.model)
    matrix = _shape(found, "*.*.linear.weight", (hidden, hidden))
    out = _shape(found, "*.*.weight", (families.vocab(setting.facts.model), hidden))
    if kind == "medusa":
        block = [("weight", matrix[1], matrix[0]), ("bias", 1, matrix[0])]
        tensors = (block * blocks + [("weight", out[1], out[0])]) * number
    else:
        tensors = [("joined", matrix[1], number * (matrix[0] // tp)), ("joined_bias", 1, number * (matrix[0] // tp))]
    return Made(kind, number, blocks, hidden, out[0], tuple(tensors), False, _most_rows(setting))


def _mlp(setting: Setting, found: Heads, kind: Kind, number: int) -> Made:
    tables = heads.named(found, "speculator.emb.*.weight")
    stated = found.config.get("inner_dim")
    inner = tables[0].shape[-1] if tables else stated if isinstance(stated, int) else 0
    vocabulary, hidden = families.vocab(setting.facts.model), families.hidden(setting.facts.model)
    rows = _shape(found, "speculator.emb.*.weight", (vocabulary, inner))[0]
    out = _shape(found, "speculator.head.*.weight", (vocabulary, inner))
    copies = 1 if kind == "mlp_tied" else number
    later = 1 if kind == "mlp_tied" else max(0, number - 1)
    first = 1 if kind == "mlp_tied" else min(1, number)
    tensors = (
        *[("embedding", inner, -(-rows // setting.num_shard))] * copies,
        *[("weight", hidden, inner)] * first,
        *[("weight", inner, inner)] * later,
        *[("weight", out[1], out[0])] * copies,
        *[("bias", 1, inner)] * 2 * copies,
    )
    scaled = setting.facts.release.version >= heads.TIED_SINCE and bool(found.config.get("scale_input"))
    return Made(kind, number, 0, inner, out[0], tensors, scaled, _most_rows(setting))


def _most_rows(setting: Setting) -> int:
    return MOST_ROWS if setting.facts.release.version >= heads.JOINED_SINCE else ALWAYS


def _shape(found: Heads, name: str, otherwise: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the tensors of a name; those of a fitting one where the file has none."""
    groups: tuple[TensorGroup, ...] = heads.named(found, name)
    if not groups or len(groups[0].shape) != 2:
        return otherwise
    return groups[0].shape[0], groups[0].shape[1]


def part(setting: Setting) -> Part | None:
    """The heads of a launch; None without."""
    made = of(setting)
    if made is None or not made.tensors:
        return None
    held = 32 if setting.dtype == "float32" else 16
    on_the_fly = setting.quantize if setting.quantize in weights.ON_THE_FLY else None
    bits = weights.quantized_bits(on_the_fly) if on_the_fly and made.kind == "medusa_joined" else held
    size = sum(  # an embedding has one more row, which masked tokens point at
        row * (rows + (kind == "embedding")) * (bits if kind == "joined" else held) for kind, row, rows in made.tensors
    )
    held_as = setting.dtype if bits == held else f"{on_the_fly} as the model's projections"
    what = {
        "medusa": f"{made.number} Medusa heads with an output matrix each",
        "medusa_joined": f"{made.number} Medusa heads on the model's output matrix",
        "mlp": f"an MLP speculator of {made.number} heads",
        "mlp_tied": f"an MLP speculator whose {made.number} heads are one",
    }[made.kind]
    where = "" if setting.num_shard == 1 or made.kind == "medusa_joined" else ", most of it whole on every shard"
    return Part("speculation heads", round(size / 8), "exact", f"{what}, {held_as}{where}")


def rows_bytes(setting: Setting, rows: float) -> float:
    """Bytes that guessing from so many rows takes at the widest: each head's logits, and those of all together."""
    made = of(setting)
    if made is None:
        return 0
    together = 4 if made.kind in ("mlp", "mlp_tied") else 2
    alone = made.number if made.kind == "medusa" else 3 if made.kind in ("mlp", "mlp_tied") else setting.num_shard > 1
    return min(rows, made.most_rows) * made.vocabulary * (made.number * together + alone * 2)
