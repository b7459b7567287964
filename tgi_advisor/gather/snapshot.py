"""Models recorded inside the package: facts with no network and no token.

One file a model in `facts/snapshots/`, written by `scripts/record_model.py`; `aliases.json` beside them has
the other ids the Hub knows a model by.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tgi_advisor import __version__
from tgi_advisor.errors import FactsError
from tgi_advisor.facts import siblings
from tgi_advisor.facts.model import ModelFacts, read_group
from tgi_advisor.gather.class_defaults import fill_defaults

FOLDER = Path(__file__).parent.parent / "facts" / "snapshots"
FORMAT = 1
"""Version of the file format; a file of another version is refused."""
_ALIASES = "aliases.json"

_TEXT, _NUMBER, _NONE = (str,), (int,), (type(None),)
_KEYS: dict[str, tuple[type, ...]] = {
    "format": _NUMBER, "id": _TEXT, "recorded": _TEXT, "commit": _TEXT + _NONE, "gated": (bool,),
    "weights_format": _TEXT, "files": _NUMBER + _NONE, "model_max_length": _NUMBER + _NONE, "provenance": _TEXT,
    "config": (dict,), "tensors": (list,),
}  # fmt: skip


class Listed(NamedTuple):
    """One line of `tgi-advisor models`."""

    id: str
    """Hub id."""
    aliases: tuple[str, ...]
    """Other ids of the same model."""
    model_type: str | None
    """config.json's model_type."""
    parameters: int
    """Parameters as the Hub counts them (4-bit weights unpacked)."""
    stored_bytes: int
    """Bytes of all tensors as stored."""
    dtypes: tuple[str, ...]
    """Stored dtypes that make up a hundredth or more of the bytes, the largest first."""
    quantization: str | None
    """Quantization method of the checkpoint."""
    context: int | None
    """Longest context config.json states, in tokens."""
    gated: bool
    """Whether the Hub asks for an accepted licence."""
    weights_format: str
    """`safetensors`, or `bin` when TGI has to convert first."""
    files: int | None
    """Weight files in the repository, where known."""
    provenance: str
    """How far the figures can be trusted, and why."""
    source: str
    """Which recording they are."""


def find(model_id: str) -> ModelFacts | None:
    """The recorded facts of a model by its id or one of its aliases, in any case; None when it is not shipped."""
    known = recorded(model_id)
    if known is None:
        return None
    return read(_path(known).read_bytes(), f"the shipped snapshot of {known}", asked=model_id)


def recorded(model_id: str) -> str | None:
    """The id a model was recorded under; None when it is not shipped."""
    return _by_name().get(model_id.casefold())


def made_of(model: ModelFacts) -> tuple[ModelFacts, ...]:
    """The other shipped checkpoints of a model: made of it, or it of them; none for a local folder."""
    known = None if model.folder else recorded(model.id)
    return tuple(filter(None, map(find, siblings.of(known)))) if known else ()


def names() -> list[str]:
    """Every id and alias that `find` knows, sorted."""
    return sorted({*recorded_ids(), *aliases()}, key=lambda name: (name.casefold(), name))


def recorded_ids() -> list[str]:
    """The ids models were recorded under, sorted."""
    stems = (path.stem for path in FOLDER.glob("*.json") if path.name != _ALIASES)
    return sorted((stem.replace("--", "/", 1) for stem in stems), key=str.casefold)


@cache
def aliases() -> Mapping[str, str]:
    """Alias -> id it was recorded under."""
    found: dict[str, str] = json.loads((FOLDER / _ALIASES).read_bytes())
    return found


def listing() -> list[Listed]:
    """What is known of every shipped model, sorted by id."""
    return [_listed(name) for name in recorded_ids()]


def read(data: bytes | str, where: str, asked: str | None = None) -> ModelFacts:
    """The facts in a snapshot file; FactsError when it is not exactly of the format this version writes."""
    raw = _checked(data, where)
    try:
        tensors = tuple(map(read_group, raw["tensors"]))
    except ValueError as error:
        raise FactsError(f"{where}: {error}.", _DEFECT) from None
    model_id = asked or raw["id"]
    of = "" if model_id == raw["id"] else f" of {raw['id']}"
    return ModelFacts(
        id=model_id,
        commit=raw["commit"],
        source=f"snapshot{of} shipped with tgi-advisor {__version__} (recorded {raw['recorded']})",
        config=raw["config"],
        defaults=fill_defaults(raw["config"]),
        tensors=tensors,
        model_max_length=raw["model_max_length"],
        gated=raw["gated"],
        weights_format=raw["weights_format"],
        provenance=raw["provenance"],
        file_count=raw["files"],
    )


_DEFECT = "The installation is damaged, or the file was written by another version: install tgi-advisor again."


def _checked(data: bytes | str, where: str) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise FactsError(f"{where} is not valid JSON: {error}.", _DEFECT) from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise FactsError(f"{where} is not a model snapshot of format {FORMAT}.", _DEFECT)
    if odd := sorted(raw.keys() ^ _KEYS.keys()):
        raise FactsError(f"{where}: missing or unknown keys: {', '.join(odd)}.", _DEFECT)
    for key, kind in _KEYS.items():
        if type(raw[key]) not in kind:
            raise FactsError(f"{where}: {key} has the wrong type.", _DEFECT)
    if raw["weights_format"] not in ("safetensors", "bin"):
        raise FactsError(f"{where}: weights_format is neither safetensors nor bin.", _DEFECT)
    return raw


@cache
def _by_name() -> dict[str, str]:
    recorded = {name.casefold(): name for name in recorded_ids()}
    return {**{alias.casefold(): name for alias, name in aliases().items()}, **recorded}


def _path(recorded: str) -> Path:
    return FOLDER / f"{recorded.replace('/', '--', 1)}.json"


def _listed(name: str) -> Listed:
    from tgi_advisor.gather import checkpoint

    data = _path(name).read_bytes()
    facts = read(data, f"the shipped snapshot of {name}")
    sizes: dict[str, int] = {}
    for group in facts.tensors:
        sizes[group.dtype] = sizes.get(group.dtype, 0) + group.bytes
    text = facts.text()
    lengths = (text.get(key) for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"))
    return Listed(
        id=name,
        aliases=tuple(alias for alias, of in aliases().items() if of == name),
        model_type=facts.model_type,
        parameters=checkpoint.parameter_count(facts.config, facts.tensors),
        stored_bytes=facts.stored_bytes,
        dtypes=tuple(d for d in sorted(sizes, key=lambda d: -sizes[d]) if sizes[d] * 100 >= facts.stored_bytes),
        quantization=checkpoint.quantization(facts.config),
        context=next((length for length in lengths if isinstance(length, int)), None),
        gated=facts.gated,
        weights_format=facts.weights_format,
        files=json.loads(data)["files"],
        provenance=facts.provenance,
        source=facts.source,
    )
