"""The cache that huggingface_hub and TGI themselves download into.

Read without `try_to_load_from_cache`, whose import takes longer than a whole answer from here. The layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

from pathlib import Path

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts.layouts import derive_from_index
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.gather import folder
from tgi_advisor.gather.class_defaults import fill_defaults
from tgi_advisor.gather.environment import hub_cache
from tgi_advisor.gather.names import COMMIT
from tgi_advisor.reading import read_regular


def read(model_id: str, revision: str) -> ModelFacts | None:
    """The facts of a model that was downloaded before; None when it was not.

    A download without its weight files will do when its index proves the family's layout. FactsError when
    there are files but they cannot be used.
    """
    config = file(model_id, revision, "config.json")
    if config is None:
        return None
    found = config.parent
    source = f"Hugging Face cache: {found}"
    facts = _without_weights(model_id, found)
    if facts is None:
        facts = folder.read(str(found))
    return facts._replace(id=model_id, commit=found.name, source=source)


def file(repo: str, revision: str, name: str) -> Path | None:
    """A file of a repository that was downloaded before; None where it is not there."""
    found = _snapshot(repo, revision)
    return found / name if found and (found / name).is_file() else None


def _snapshot(model_id: str, revision: str) -> Path | None:
    """The folder of a revision's files."""
    repo = hub_cache() / f"models--{model_id.replace('/', '--')}"
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = read_regular(repo / "refs" / revision, 100).decode("ascii").strip()
        except (OSError, ValueError):
            return None
    return repo / "snapshots" / commit if COMMIT.fullmatch(commit) else None


def _without_weights(model_id: str, found: Path) -> ModelFacts | None:
    """Facts from config.json and the index alone, for a download that has no weight file."""
    index = found / "model.safetensors.index.json"
    if any(found.glob("*.safetensors")) or not index.is_file():
        return None
    config = folder.read_config(found)
    defaults = fill_defaults(config)
    proved = derive_from_index({**config, **defaults}, folder.read_json(index, bounds.MAX_INDEX))
    if proved is None:
        raise FactsError(
            f"{found} has no weight files, and its index alone does not tell the tensors' shapes.",
            "Go online once, so that the tensor headers can be read.",
        )
    tensors, files = proved
    return ModelFacts(model_id, found.name, "", config, defaults, tensors, files=files)
