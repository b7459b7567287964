"""What is true of a model: its configuration and every tensor of its checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from tgi_advisor import bounds
from tgi_advisor.once import remembered

DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits per element by safetensors dtype name (safetensors/src/tensor.rs, `Dtype::bitsize`)."""
Files = tuple[tuple[int, ...], ...]
"""By weight file, in the order of their names: how many tensors of each group of a model it holds."""


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that differ only in their layer or expert number: one row for all of them."""

    name: str
    """The tensors' name with every run of digits between dots written `*`: `model.layers.*.mlp.up_proj.weight`.

    A layer past num_hidden_layers, which TGI never loads (DeepSeek-V3's prediction layer), keeps its
    number: `model.layers.61.mlp.experts.*.up_proj.weight`.
    """
    dtype: str
    """safetensors dtype, a key of `DTYPE_BITS`."""
    shape: tuple[int, ...]
    """Shape of each tensor."""
    count: int
    """How many tensors share name, dtype and shape."""

    @property
    def elements(self) -> int:
        """Elements of one tensor."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the whole group as stored."""
        return self.count * ((self.elements * DTYPE_BITS[self.dtype] + 7) // 8)


def read_group(row: object) -> TensorGroup:
    """A group as snapshots and our cache write it: [name, dtype, shape, count]; ValueError when it is none."""
    if isinstance(row, list) and len(row) == 4:
        name, dtype, shape, count = row
        sizes = isinstance(shape, list) and all(type(n) is int and 0 <= n <= bounds.MAX_ELEMENTS for n in shape)
        counted = type(count) is int and 0 < count <= bounds.MAX_TENSORS
        if type(name) is str and isinstance(dtype, str) and dtype in DTYPE_BITS and sizes and counted:
            return TensorGroup(name, dtype, tuple(shape), count)
    raise ValueError(f"{str(row)[:80]} is not a group of tensors")


def read_files(rows: object, tensors: Sequence[TensorGroup]) -> Files:
    """`ModelFacts.files` as our cache writes it; ValueError when these are not the files of these tensors."""
    if rows == []:
        return ()
    if isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(tensors) for row in rows):
        counted = all(type(count) is int and count >= 0 for row in rows for count in row)
        if counted and [sum(counts) for counts in zip(*rows, strict=True)] == [group.count for group in tensors]:
            return tuple(map(tuple, rows))
    raise ValueError(f"{str(rows)[:80]} are not the files of {len(tensors)} groups of tensors")


class Heads(NamedTuple):
    """Heads that guess tokens ahead: what `--model-id` names where the model served is another, their base."""

    config: Mapping[str, Any]
    """Their config.json as it is written."""
    tensors: tuple[TensorGroup, ...]
    """Every tensor of their files, grouped."""
    base: str
    """The model they are served with, as their config.json names it: a Hub id (then at `main`) or a path."""
    base_folder: str | None = None
    """Absolute path of the local folder the base was read from; None when it is the Hub's."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(group.bytes for group in self.tensors)


class ModelFacts(NamedTuple):
    """One model at one commit.

    Where `--model-id` names speculation heads, id, commit, revision and folder are theirs, and the rest is of the
    model TGI serves with them; `heads` holds what else is theirs.
    """

    id: str
    """Hub id or the folder's path, as asked for."""
    commit: str | None
    """Commit the facts were read at; None for a folder without one."""
    source: str
    """Where the facts came from, one sentence a user can check."""
    config: Mapping[str, Any]
    """config.json as it is written (what the Rust launcher reads)."""
    defaults: Mapping[str, Any]
    """Fields config.json leaves to its class, with the class's defaults and other names; same nesting."""
    tensors: tuple[TensorGroup, ...]
    """Every tensor of the checkpoint TGI would read, grouped."""
    model_max_length: int | None = None
    """tokenizer_config.json's model_max_length, where known."""
    gated: bool = False
    """Whether the Hub asks for an accepted licence before it serves the files."""
    weights_format: str = "safetensors"
    """`safetensors`, or `bin` when TGI has to convert first."""
    provenance: str = ""
    """For a shipped snapshot: how far its figures can be trusted, and why."""
    folder: str | None = None
    """Absolute path of the local folder the facts were read from; None when they are the Hub's."""
    assumed: str = ""
    """What had to be assumed to take them for the model that is meant, one sentence; empty when nothing had."""
    heads: Heads | None = None
    """The speculation heads it is served with, where `id` names these."""
    files: Files = ()
    """Which of its tensors lie in which weight file; empty where that is not known."""
    file_count: int | None = None
    """How many weight files there are, where no more than that is known."""

    @property
    def model_type(self) -> str | None:
        """config.json's model_type."""
        value = self.config.get("model_type")
        return value if isinstance(value, str) else None

    @property
    def launched(self) -> Mapping[str, Any]:
        """config.json of what `--model-id` names, which decides quantization and dtype: the heads' where some are.

        https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/__init__.py#L435-L541
        """
        return self.config if self.heads is None else self.heads.config

    @property
    def fetched(self) -> bool:
        """Whether the server has weights to fetch from the Hub: its own, or those of its heads' base."""
        return self.folder is None or (self.heads is not None and self.heads.base_folder is None)

    @property
    def served_id(self) -> str:
        """Hub id or path of the model whose weights are served."""
        return self.id if self.heads is None else self.heads.base

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors as stored, the sum of the safetensors payloads; those of speculation heads not."""
        return sum(group.bytes for group in self.tensors)

    @property
    def parameters(self) -> int:
        """Elements of all tensors (packed integers count as stored)."""
        return sum(group.count * group.elements for group in self.tensors)

    def text(self) -> Mapping[str, Any]:
        """The configuration the server serves text with: `text_config` where there is one.

        https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1268-L1271
        """
        return _text(self)


@remembered
def _text(model: ModelFacts) -> Mapping[str, Any]:
    config, defaults = model.config, model.defaults
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        base = defaults.get("text_config")
        return MappingProxyType({**inner, **(base if isinstance(base, Mapping) else {})})
    return MappingProxyType({**config, **defaults})
