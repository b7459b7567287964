"""What is known of models beyond those whose facts are shipped: `catalogue.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from tgi_advisor.facts import tables

_MODEL_KEYS = {"like", "context"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)


def about(model: str | None) -> Mapping[str, Any]:
    """The row of a model: `context`, `like`; empty when there is none."""
    row: Mapping[str, Any] = _table()["models"].get(model, {}) if model else {}
    return row


def is_gated(model: str) -> bool:
    """Whether every repository of the id's owner or family asks for an accepted licence."""
    return any(model.startswith(prefix) for prefix in _table()["gated"])


def is_plain(model: str) -> bool:
    """Whether an id is that of weights nobody quantized: its owner says so in the names of those that are."""
    marks = "|".join(_table()["quantized"])
    return re.search(marks, model, re.IGNORECASE) is None and any(re.match(row, model) for row in _table()["plain"])


def no_such_size(model: str) -> str | None:
    """Why an id cannot exist: its family has no model of that size; None when nothing is known against it."""
    for row in _table()["sizes"]:
        found = re.match(row["pattern"], model)
        if found is not None and found[1].lower() not in row["known"]:
            sizes = ", ".join(size.upper() for size in row["known"])
            return f"{row['name']} has no {found[1].upper()} model (its sizes are {sizes})"
    return None


def not_text(model: str) -> tuple[str, bool, str] | None:
    """What a model is that generates no text, whether TGI refuses it for certain, and the server made for it, where
    one is known; None for all others.
    """
    for row in _table()["other"]:
        if re.match(row["pattern"], model):
            return row["what"], row.get("certain", False), row.get("server", "")
    return None


def model_type(model: str) -> str | None:
    """model_type of a model's config.json, where its name alone says it; None for all others."""
    if re.search(r"gguf|onnx|mlx|openvino", model, re.IGNORECASE):
        return None  # other formats, which have no such file or another one
    return next((row["type"] for row in _table()["types"] if re.match(row["pattern"], model)), None)


def is_path(model: str) -> bool:
    """Whether the launcher takes a model id for a folder of the container."""
    return model.startswith(("/", "./", "../", "~"))


def of_hub_cache(path: str) -> str | None:
    """The id of the model whose folder of the Hub's cache a path is (`models--owner--name`); None for all others."""
    name = path.rstrip("/").rpartition("/")[2]
    found = re.fullmatch(r"models--(.+?)(?:--(.+))?", name)
    return None if found is None else "/".join(filter(None, found.groups()))


def is_hub_id(model: str) -> bool:
    """Whether a text has the form of a Hub id: `name` or `owner/name`.

    https://github.com/huggingface/huggingface_hub/blob/v0.34.0/src/huggingface_hub/utils/_validators.py
    """
    return _HUB_ID.fullmatch(model) is not None and "--" not in model and ".." not in model


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = tables.load("catalogue")
    for name, row in table["models"].items():
        tables.strict(row, _MODEL_KEYS, set(), f"catalogue.yaml, {name}")
    return table
