"""LoRA adapters: one entry of --lora-adapters, and what its adapter_config.json says."""

from collections.abc import Mapping
from typing import Any, NamedTuple

CONFIG = "adapter_config.json"
"""The file PEFT writes beside an adapter's weights."""
MOST_RANK = 1 << 16
"""Far more than the rank of any adapter."""
PROJECTIONS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "c_proj", "c_fc",
)  # fmt: skip
"""Projections TGI puts adapters on, in the order it loads them (S/models/__init__.py@v3.3.7:1868)."""


class Entry(NamedTuple):
    """One entry of --lora-adapters."""

    text: str
    """The entry as written, without blanks around it."""
    id: str
    """Its Hub id, or the name requests ask for it by."""
    folder: str | None
    """Its folder in the container; None where none is given."""
    revision: str | None
    """Its revision on the Hub; None where none is given."""

    @property
    def bare_folder(self) -> bool:
        """Whether a folder stands where the Hub id belongs."""
        return self.folder is None and self.id.startswith(("/", "./", "../", "~"))


class Lora(NamedTuple):
    """The size of an adapter."""

    rank: int
    """Rows of its A matrices."""
    projections: tuple[str, ...]
    """Those of `PROJECTIONS` it has matrices for; a model need not have all of them."""
    source: str
    """Where this was read; empty where it is assumed."""


ASSUMED = Lora(16, PROJECTIONS, "")
"""An adapter nobody could read: TRL's default rank on every projection, as QLoRA recommends.

https://github.com/huggingface/trl/blob/v0.12.0/trl/trainer/model_config.py#L68
https://arxiv.org/abs/2305.14314 (section 4)
"""


def parse(entry: str) -> Entry:
    """An entry as the shards read it (utils/adapter.py@v3.3.7:45-63)."""
    text = entry.strip()
    rest, _, revision = text.partition("@")
    name, named, folder = rest.partition("=")
    return Entry(text, name, folder if named else None, revision or None)


def read(config: Mapping[str, Any], source: str) -> Lora | None:
    """What an adapter_config.json says; None where it is of no LoRA adapter or names no rank.

    `target_modules` is a list of names, `all-linear`, or a pattern, of which the names in it count. An adapter that
    leaves layers out has no matrix TGI would load.
    https://huggingface.co/docs/peft/v0.15.0/package_reference/lora
    """
    rank, targets, ranks = config.get("r"), config.get("target_modules"), config.get("rank_pattern")
    every = [rank, *(ranks.values() if isinstance(ranks, Mapping) else ())]
    if config.get("peft_type", "LORA") != "LORA" or not all(_is_rank(one) for one in every):
        return None
    if config.get("layers_to_transform") is not None:
        return Lora(max(every), (), source)
    if isinstance(targets, str) and targets != "all-linear":
        projections = tuple(name for name in PROJECTIONS if name in targets)
    elif isinstance(targets, list):
        ends = {one.rpartition(".")[2] for one in targets if isinstance(one, str)}
        projections = tuple(name for name in PROJECTIONS if name in ends)
    else:
        projections = PROJECTIONS
    return Lora(max(every), projections, source)


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_RANK
