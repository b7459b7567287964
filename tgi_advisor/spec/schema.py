"""The JSON Schema of a spec, so that an editor completes and checks it; made from the records."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tgi_advisor.spec.fields import CONFIDENTIAL, FLAG_NAME, env_name
from tgi_advisor.spec.records import AUTO, ENV_NAME, Spec, flag_homes, settings
from tgi_advisor.spec.values import DEVICE_ID, MAX_COUNT, MOUNT

Schema = dict[str, Any]

_COUNT = r"^[0-9]+(\.[0-9]+)?\s*[kKmM]$"
_SIZE = r"\s*[0-9]+(\.[0-9]+)?\s*([bB]|[kKmMgGtT][iI]?[bB])\s*"
_FLAG_VALUE: Schema = {"type": ["string", "number", "boolean"]}
_FLAG: Schema = {"anyOf": [_FLAG_VALUE, {"type": "array", "items": _FLAG_VALUE}]}


class Names(NamedTuple):
    """What is known by name, which an editor offers; where any text is allowed, others stay so."""

    models: tuple[str, ...] = ()
    """Hub ids of shipped models."""
    gpus: tuple[str, ...] = ()
    """Names of GPUs and of cloud instance types."""
    releases: tuple[str, ...] = ()
    """TGI releases."""
    flags: Mapping[str, str] = MappingProxyType({})
    """Launcher flags of any release, each with what it does. Where there are some, no others are allowed."""
    env: Mapping[str, str] = MappingProxyType({})
    """Environment variables that TGI reads, each with what it does."""


_NONE = Names()


def json_schema(names: Names = _NONE) -> Schema:
    """The schema (draft 2020-12), with what is known by name."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tgi-advisor deployment spec",
        "description": "A deployment of text-generation-inference. A field left empty has its default.",
    } | _record(Spec, names)


def _record(record: type[Any], names: Names) -> Schema:
    """The schema of a section."""
    fields = settings(record)
    schema: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(field.metadata, names) for name, field in fields.items()},
    }
    required = [name for name, field in fields.items() if field.metadata["required"]]
    return schema | ({"required": required} if required else {})


def _field(meta: Mapping[str, Any], names: Names) -> Schema:
    """The schema of one field: its sentence, its default and what it may be."""
    default = meta["default"]
    match meta["kind"]:
        case "section":
            what = _record(type(default), names)
        case "gpu":
            what = {"anyOf": [_text({}), _record(type(default), names)]}
        case "flags":
            what = _flags(names.flags)
        case "env":
            what = _env(names.env)
        case kind:
            what = _KINDS[kind](meta)
    if known := getattr(names, meta.get("names", ""), ()):
        what = {"anyOf": [{"enum": list(known)}, *what.pop("anyOf", [what])]}
    about: Schema = {"description": meta["doc"]}
    if "example" in meta:
        about["examples"] = [meta["example"]]
    if meta["required"]:
        return about | what
    return (
        about | {"default": _default(meta["kind"], default)} | {"anyOf": [*what.pop("anyOf", [what]), {"type": "null"}]}
    )


def _default(kind: str, default: Any) -> Any:
    """The default as a spec would write it."""
    if kind in ("section", "flags", "env"):
        return {}
    if kind == "mounts":
        return []
    return "auto" if default == AUTO or kind == "count_or_auto" else default


def _text(meta: Mapping[str, Any]) -> Schema:
    """A number is taken as it is written: `release: 3.3`."""
    if "pattern" in meta:
        return {"type": ["string", "number"] if meta.get("number") else "string", "pattern": meta["pattern"]}
    return {"type": ["string", "number"], "minLength": 1}


def _count(meta: Mapping[str, Any]) -> Schema:
    whole = {"type": "integer", "minimum": meta.get("minimum", 1), "maximum": meta.get("maximum", MAX_COUNT)}
    return {"anyOf": [whole, {"type": "string", "pattern": _COUNT}]}


def _or_auto(meta: Mapping[str, Any]) -> Schema:
    return {"anyOf": [{"const": "auto"}, *_count(meta)["anyOf"]]}


def _bound(meta: Mapping[str, Any]) -> Schema:
    end = {"anyOf": [*_count(meta)["anyOf"], {"type": "null"}]}
    ends = {"type": "object", "additionalProperties": False, "properties": {"min": end, "max": end}}
    return {"anyOf": [*_or_auto(meta)["anyOf"], ends]}


def _number(meta: Mapping[str, Any]) -> Schema:
    return {"type": "number", "minimum": meta.get("minimum", 0)} | {k: meta[k] for k in ("maximum",) if k in meta}


def _flags(known: Mapping[str, str]) -> Schema:
    """Launcher flags, also as `--max-batch-size` and `max_batch_size`."""
    own = flag_homes()
    if not known:
        allowed = {"pattern": f"^{FLAG_NAME}$", "not": {"enum": sorted(own)}}
        return {"type": "object", "propertyNames": allowed, "additionalProperties": _FLAG}
    free = sorted(known.keys() - own.keys())
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": known[name]} | _FLAG for name in free},
        "patternProperties": {f"^(--)?{name.replace('-', '[-_]')}$": _FLAG for name in free},
    }


def _env(known: Mapping[str, str]) -> Schema:
    elsewhere = {"enum": sorted(map(env_name, flag_homes()))}
    names = {"pattern": ENV_NAME, "not": {"anyOf": [elsewhere, {"pattern": CONFIDENTIAL}]}}
    schema: Schema = {"type": "object", "propertyNames": names, "additionalProperties": _FLAG_VALUE}
    offered = {name: {"description": known[name]} | _FLAG_VALUE for name in sorted(known)}
    return schema | ({"properties": offered} if offered else {})


def _gpus(_: Mapping[str, Any]) -> Schema:
    device = {"type": ["string", "integer"], "pattern": DEVICE_ID}
    return {"anyOf": [{"const": "all"}, {"type": "array", "items": device, "minItems": 1, "uniqueItems": True}]}


def _mounts(_: Mapping[str, Any]) -> Schema:
    return {"type": "array", "items": {"type": "string", "pattern": f"^{MOUNT}$"}}


_KINDS = {
    "text": _text,
    "choice": lambda meta: {"enum": list(meta["choices"])},
    "bool": lambda _: {"type": "boolean"},
    "number": _number,
    "count": _count,
    "count_or_auto": _or_auto,
    "size": lambda _: {"anyOf": [{"const": 0}, {"type": "string", "pattern": f"^{_SIZE}$"}]},
    "shm_size": lambda _: {"type": "string", "pattern": f"^([0-9]{{1,15}}[kKmMgG]|{_SIZE})$"},
    "bound": _bound,
    "env": _env,
    "gpus": _gpus,
    "mounts": _mounts,
}
"""What each kind of `values.py` and `fields.py` is in JSON Schema."""
