"""Answers of the Hub kept on disk, so that the second run needs no network.

    <cache>/models/<endpoint>/<org--name>/<commit>.json     config, grouped tensors and the rest of ModelFacts
    <cache>/models/<endpoint>/<org--name>/refs/<revision>   the commit a branch or tag was at, and when

Files are written whole or not at all; one that cannot be read counts as absent. Tokens are never in them.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts.model import ModelFacts, read_files, read_group
from tgi_advisor.gather import checkpoint
from tgi_advisor.gather.class_defaults import fill_defaults
from tgi_advisor.gather.environment import endpoint, own_cache, public
from tgi_advisor.gather.names import COMMIT
from tgi_advisor.reading import read_regular
from tgi_advisor.safe import printable

FORMAT = 2
"""Changes when the meaning of the files changes; others are not read."""
FRESH = 24 * 3600
"""Seconds for which a branch is taken to be where it was; a commit is for ever."""


class Kept(NamedTuple):
    """A model found in the cache."""

    facts: ModelFacts
    """The facts; `source` says since when they are kept."""
    fresh: bool
    """Whether the Hub need not be asked again: a commit, or a branch looked up within a day."""


def load(model_id: str, revision: str) -> Kept | None:
    """What is kept of a model at a revision; None when there is nothing, or nothing legible."""
    folder = _folder(model_id)
    commit, age = revision, 0.0
    if not COMMIT.fullmatch(revision):
        ref = _read(folder / "refs" / quote(revision, safe=""))
        commit, read_at = str(ref.get("commit")), ref.get("read_at")
        if not COMMIT.fullmatch(commit) or not isinstance(read_at, (int, float)):
            return None
        age = time.time() - read_at
    facts = _facts(_read(folder / f"{commit}.json"), model_id, commit)
    return Kept(facts, 0 <= age < FRESH) if facts else None


def store(facts: ModelFacts, revision: str) -> None:
    """Keep facts read from the Hub. A folder that cannot be written to is no error: the Hub is asked again."""
    if facts.commit is None:
        return
    folder = _folder(facts.id)
    now = time.time()
    entry = {
        "format": FORMAT,
        "endpoint": public(endpoint()),
        "id": facts.id,
        "commit": facts.commit,
        "read_at": now,
        "source": facts.source,
        "gated": facts.gated,
        "model_max_length": facts.model_max_length,
        "weights_format": facts.weights_format,
        "config": facts.config,
        "tensors": [[group.name, group.dtype, group.shape, group.count] for group in facts.tensors],
        "files": facts.files,
    }
    _write(folder / f"{facts.commit}.json", entry)
    if revision != facts.commit:
        _write(folder / "refs" / quote(revision, safe=""), {"format": FORMAT, "commit": facts.commit, "read_at": now})


def _folder(model_id: str) -> Path:
    where = public(endpoint()).removeprefix("https://")
    return own_cache() / "models" / quote(where, safe="") / quote(model_id.replace("/", "--"), safe="")


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of our format, else an empty one."""
    try:
        entry = checkpoint.read_json(read_regular(path, bounds.MAX_KEPT), str(path), bounds.MAX_KEPT)
    except (OSError, FactsError):
        return {}
    return entry if entry.get("format") == FORMAT else {}


def _facts(entry: dict[str, Any], model_id: str, commit: str) -> ModelFacts | None:
    try:
        if (entry["id"], entry["commit"], entry["endpoint"]) != (model_id, commit, public(endpoint())):
            return None
        config, length, day = entry["config"], entry["model_max_length"], time.gmtime(entry["read_at"])
        tensors = tuple(read_group(row) for row in entry["tensors"])
        if not isinstance(config, dict) or not tensors:
            return None
        checkpoint.require_sizes(config, model_id)
        return ModelFacts(
            id=model_id,
            commit=commit,
            source=f"{printable(str(entry['source']))}; kept since {time.strftime('%Y-%m-%d', day)}",
            config=config,
            defaults=fill_defaults(config),
            tensors=tensors,
            files=read_files(entry["files"], tensors),
            model_max_length=None if length is None else int(length),
            gated=bool(entry["gated"]),
            weights_format=str(entry["weights_format"]),
        )
    except (FactsError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _write(path: Path, entry: dict[str, Any]) -> None:
    """Write a file that others see whole or not at all, whoever else writes it now."""
    part = path.with_name(f".{os.getpid()}-{time.monotonic_ns()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_text(json.dumps(entry, separators=(",", ":")), encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
