"""Which texts can be a model id or a revision: checked before they become part of a path or URL."""

from __future__ import annotations

import re

from tgi_advisor.errors import FactsError

_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[\w.][\w./@+-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole commit id."""


def check_id(model_id: str) -> None:
    """FactsError when a model id can neither be on the Hub nor safely be part of a path or URL."""
    if _ID.fullmatch(model_id) and len(model_id) <= 96 and not any(s in model_id for s in ("..", "--", ".git")):
        return
    shown = model_id if len(model_id) <= 100 else model_id[:97] + "..."
    if model_id.startswith(("https://", "http://", "hf.co/", "huggingface.co/")):
        path = model_id.partition("://")[2] or model_id
        meant = "/".join(path.split("?")[0].split("/")[1:3])
        raise FactsError("The model id is a URL.", f"Write only the id: {meant}")
    if model_id.startswith("models--"):
        meant = model_id.removeprefix("models--").replace("--", "/", 1)
        raise FactsError(f"{shown!r} is the name of a folder in the Hub's cache.", f"Write the model's id: {meant}")
    raise FactsError(
        f"{shown!r} is neither a folder here nor a model id of the Hub.",
        "An id looks like org/name, with letters, digits, '-', '_' and '.'; for a folder give its path.",
    )


def check_revision(revision: str) -> None:
    """FactsError when a revision can be no branch, tag or commit."""
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision or len(revision) > 200:
        raise FactsError(f"{revision[:100]!r} is no revision.", "Give a branch, a tag or a commit: main")
