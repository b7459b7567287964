"""The model that is served with speculation heads: read like any other, at `main` where it is on the Hub."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path

from tgi_advisor.errors import FactsError
from tgi_advisor.facts import heads
from tgi_advisor.facts.model import Heads, ModelFacts
from tgi_advisor.safe import named


def served(found: ModelFacts, base_of: Callable[[str], ModelFacts]) -> ModelFacts:
    """The model TGI serves where `found` is heads; `found` itself where it is a model.

    `base_of` has the facts of a model by its id or path. FactsError when the heads do not say what they are heads of,
    or that is not to be had.
    """
    if heads.method(found.config) is None:
        return found
    if not heads.number(found.config):
        field = heads.number_field(found.config)
        raise FactsError(
            f"config.json of {found.id} has no usable `{field}`: how many heads there are is not known.",
            "Correct the file or fetch it again; TGI could not serve them either.",
        )
    base = found.config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise FactsError(
            f"{found.id} holds speculation heads, but its config.json does not name their base model.",
            "TGI stops with KeyError: 'base_model_name_or_path'. Write the base model's id there, or give that as "
            "model.id to serve it without the heads.",
        )
    try:
        model = base_of(base)
    except FactsError as error:
        raise FactsError(
            f"{found.id} holds speculation heads for {named(base)}, which TGI would serve with them: {error.message}",
            error.hint,
            error.problems,
        ) from None
    if heads.method(model.config) is not None:
        raise FactsError(
            f"{found.id} holds speculation heads for {named(base)}, which holds heads itself.",
            "Correct base_model_name_or_path in its config.json.",
        )
    return model._replace(
        id=found.id,
        commit=found.commit,
        source=f"{found.source}; base model {named(base)}: {model.source}",
        gated=found.gated or model.gated,
        folder=found.folder,
        assumed=found.assumed or model.assumed,
        heads=Heads(found.config, found.tensors, base, model.folder),
    )


def is_path(base: str) -> bool:
    """Whether a base model is named by a path: of the container, a relative one from its working directory."""
    return base.startswith(("/", "./", "../", "~")) or base in (".", "..")


def on_this_machine(base: str, folder: str | None, on_host: Callable[[str], str]) -> str:
    """Where a base model named by a path lies here.

    `on_host` tells where a path of the container lies. Where nothing does: of the same name beside the folder of the
    heads, or (a relative path) as seen from it.
    """
    there = on_host(base)
    if folder is None or Path(there).expanduser().is_dir():
        return there
    beside = posixpath.normpath(f"{folder}/../{posixpath.basename(base)}" if base[0] in "/~" else f"{folder}/{base}")
    return beside if Path(beside).is_dir() else there
