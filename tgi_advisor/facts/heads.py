"""Speculation heads: repositories of which TGI serves another model, their base, that guesses tokens ahead with them.

Medusa's heads (https://arxiv.org/abs/2401.10774) are small blocks, in the first version with an output matrix each,
else with that of the base; an MLP speculator (https://arxiv.org/abs/2404.19124) has embeddings and output matrices
of its own.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/__init__.py#L521-L621
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tgi_advisor.facts.model import Heads, TensorGroup
from tgi_advisor.facts.release import Version

Method = Literal["medusa", "mlp_speculator"]
Kind = Literal["medusa", "medusa_joined", "mlp", "mlp_tied"]
"""A class of TGI's for heads: MedusaHeadV1, MedusaHeadV2, MLPSpeculatorModel, MLPSpeculatorModelTied."""

MEDUSA_FILE = "medusa_lm_head.safetensors"
"""The one file TGI reads of Medusa heads."""
MLP_CLASS = "MLPSpeculatorPreTrainedModel"
"""`architectures` of an MLP speculator; Medusa heads have none."""
SINCE: Mapping[Method, Version] = {"medusa": (1, 3, 0), "mlp_speculator": (2, 0, 3)}
"""First release that takes heads of a method."""
JOINED_SINCE: Version = (2, 0, 0)
"""First release with MedusaHeadV2."""
TIED_SINCE: Version = (2, 3, 0)
"""First release that asks for `tie_weights`; from it on the other class of MLP speculators does not load."""
AS_MANY_AS_ASKED: Version = (2, 0, 2)
"""Since when as many Medusa heads are made as tokens are speculated; before, all there are."""
MOST = 64
"""More heads than any model has."""


def method(config: Mapping[str, Any]) -> Method | None:
    """Whose heads a config.json is of; None where it is a model's."""
    if "medusa_num_heads" in config:
        return "medusa"
    return "mlp_speculator" if config.get("model_type") == "mlp_speculator" else None


def number_field(config: Mapping[str, Any]) -> str:
    """The field that states how many heads there are."""
    return "medusa_num_heads" if method(config) == "medusa" else "n_predict"


def number(config: Mapping[str, Any]) -> int:
    """How many heads the configuration of heads states; 0 where it states no usable number."""
    stated = config.get(number_field(config))
    return stated if type(stated) is int and 0 < stated <= MOST else 0


def taken(heads: Heads | None, version: Version) -> bool:
    """Whether a release knows heads of that method."""
    found = method(heads.config) if heads is not None else None
    return found is not None and version >= SINCE[found]


def speculated(found: Heads | None, version: Version, given: int | None) -> int:
    """Tokens guessed ahead: as asked, else as many as there are heads that the release knows.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/__init__.py#L516-L536
    """
    if given is not None or found is None or not taken(found, version):
        return given or 0
    return number(found.config)


def blocks(heads: Heads) -> int:
    """Residual blocks of a Medusa head (`medusa_num_layers`)."""
    stated = heads.config.get("medusa_num_layers")
    return stated if type(stated) is int and 0 <= stated <= MOST else 1


def kind(heads: Heads, version: Version, made: int) -> Kind:
    """The class a release makes of heads of which `made` are made.

    Medusa's second is tried when the first finds no output matrix of its own.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/speculative.py#L14-L41
    """
    if method(heads.config) == "mlp_speculator":
        return "mlp_tied" if heads.config.get("tie_weights") and version >= TIED_SINCE else "mlp"
    own = sum(group.count for group in named(heads, "*.*.weight"))
    return "medusa" if version < JOINED_SINCE or own >= made else "medusa_joined"


def named(heads: Heads, name: str) -> tuple[TensorGroup, ...]:
    """The heads' tensors of a name, with its numbers written `*`; several groups where their shapes differ."""
    return tuple(group for group in heads.tensors if group.name == name)
