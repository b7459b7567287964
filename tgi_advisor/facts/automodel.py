"""What the transformers inside one of TGI's images serves: where `get_model` turns to when TGI has no class.

Every image carries one version of transformers, so for a model type TGI has no class for the answer of each
release is known: it is in that version's mapping, or it is refused. `automodel.yaml` holds the mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from tgi_advisor.facts import tables

Version = tuple[int, int, int]
Kind = Literal["causal", "seq2seq"]
_NEVER: Version = (999, 0, 0)
_VARIANTS = {"intel-cpu": "intel", "intel-xpu": "intel"}


class AutoModel(NamedTuple):
    """What one image's transformers makes of one model type."""

    kind: Kind | None
    """Which of AutoModelForCausalLM and AutoModelForSeq2SeqLM has a class for it; None when neither has."""
    flash: bool
    """Whether that class takes TGI's attention, so that TransformersFlashCausalLM serves it (3.0.2 on)."""
    certain: bool
    """Whether the version is known well enough to say so."""


class _Table(NamedTuple):
    """`automodel.yaml`, its versions as numbers."""

    images: Mapping[str, tuple[tuple[Version, tuple[Version, Version] | None], ...]]
    """Variant -> (release, oldest and newest version it may install; None: hands nothing to transformers), newest
    release first."""
    first: Mapping[str, tuple[Kind, Version]]
    """Model type -> the mapping that has it, and the first version that does."""
    flash: tuple[tuple[Version, frozenset[str]], ...]
    """(version, types whose class takes TGI's attention from that version on), newest version first."""


def find(model_type: str, release: Version, variant: str = "") -> AutoModel:
    """What the image of a release (`variant` as in images.yaml) makes of a model type."""
    images = _table().images[_VARIANTS.get(variant, variant)]
    held = next((span for since, span in images if since <= release), None)
    if held is None:
        return AutoModel(None, flash=False, certain=True)
    oldest, newest = (_served(model_type, version) for version in held)
    return AutoModel(*oldest, certain=oldest == newest)


def _served(model_type: str, version: Version) -> tuple[Kind | None, bool]:
    """What one version of transformers has for a type, and whether it takes TGI's attention."""
    kind, first = _table().first.get(model_type, (None, _NEVER))
    kinds = next((kinds for since, kinds in _table().flash if since <= version), frozenset[str]())
    return (kind, model_type in kinds) if first <= version else (None, False)


def known(model_type: str) -> bool:
    """Whether the transformers of any image may have a class for the type."""
    return model_type in _table().first


def first_release(model_type: str) -> Version | None:
    """First release whose CUDA image has a class for the type in its transformers; None when none has."""
    _, first = _table().first.get(model_type, (None, _NEVER))
    fitting = [since for since, held in _table().images[""] if held is not None and held[0] >= first]
    return min(fitting, default=None)


@cache
def _table() -> _Table:
    rows = tables.load("automodel")
    tables.strict(rows, {"images", "causal", "seq2seq", "flash", "source"}, {"images", "causal"}, "automodel.yaml")
    first: dict[str, tuple[Kind, Version]] = {}
    kinds: tuple[Kind, ...] = ("causal", "seq2seq")
    for kind in kinds:
        for version, names in rows[kind].items():
            first |= {name: (kind, _number(version)) for name in names.split()}
    flash = [(_number(version), frozenset(names.split())) for version, names in rows["flash"].items()]
    images = {
        variant: tuple((_number(since), _span(text)) for since, text in reversed(held.items()))
        for variant, held in rows["images"].items()
    }
    return _Table(images, first, tuple(reversed(flash)))


def _span(text: str) -> tuple[Version, Version] | None:
    """Oldest and newest version of `4.51.0` or `4.40.1-4.41.1`; None of `none`."""
    if text == "none":
        return None
    oldest, _, newest = text.partition("-")
    return _number(oldest), _number(newest or oldest)


def _number(text: Any) -> Version:
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch
