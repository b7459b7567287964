"""The JSON Schema of a spec, so that an editor completes and checks it; made from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tgi_advisor.spec.fields import CONFIDENTIAL, FLAG_NAME, env_name
from tgi_advisor.spec.records import AUTO, ENV_NAME, Spec, flag_homes, settings
from tgi_advisor.spec.values import DEVICE_ID, MAX_COUNT, MOUNT

Schema = dict[str, Any]

_COUNT = r"^[0-9]+(\.[0-9]+)?\s*[kKmM]$"
_SIZE = r"\s*[0-9]+(\.[0-9]+)?\s*([bB]|[kKmMgGtT][iI]?[bB])\s*"
_FLAG_VALUE: Schema = {"type": ["string", "number", "boolean"]}
_FLAG: Schema = {"anyOf": [_FLAG_VALUE, {"type": "array", "items": _FLAG_VALUE}]}


def json_schema(flag_names: Iterable[str] | None = None) -> Schema:
    """The schema (draft 2020-12). With `flag_names`, exactly those launcher flags are allowed."""
    own = flag_homes()
    flags = None if flag_names is None else sorted(set(flag_names) - set(own))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tgi-advisor deployment spec",
        "description": "A deployment of text-generation-inference. A field left empty has its default.",
    } | _record(Spec, flags)


def _record(record: type[Any], flags: list[str] | None) -> Schema:
    """The schema of a section."""
    fields = settings(record)
    schema: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(field.metadata, flags) for name, field in fields.items()},
    }
    required = [name for name, field in fields.items() if field.metadata["required"]]
    return schema | ({"required": required} if required else {})


def _field(meta: Mapping[str, Any], flags: list[str] | None) -> Schema:
    """The schema of one field: its sentence, its default and what it may be."""
    default = meta["default"]
    match meta["kind"]:
        case "section":
            what = _record(type(default), flags)
        case "gpu":
            what = {"anyOf": [_text({}), _record(type(default), flags)]}
        case "flags":
            what = _flags(flags)
        case kind:
            what = _KINDS[kind](meta)
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


def _flags(names: list[str] | None) -> Schema:
    """Launcher flags, also as `--max-batch-size` and `max_batch_size`."""
    if names is None:
        not_here = {"enum": sorted(flag_homes())}
        allowed = {"pattern": f"^{FLAG_NAME}$", "not": not_here}
        return {"type": "object", "propertyNames": allowed, "additionalProperties": _FLAG}
    spellings = {f"^(--)?{name.replace('-', '[-_]')}$": _FLAG for name in names}
    properties = dict.fromkeys(names, _FLAG)
    return {"type": "object", "additionalProperties": False, "properties": properties, "patternProperties": spellings}


def _env(_: Mapping[str, Any]) -> Schema:
    elsewhere = {"enum": sorted(map(env_name, flag_homes()))}
    names = {"pattern": ENV_NAME, "not": {"anyOf": [elsewhere, {"pattern": CONFIDENTIAL}]}}
    return {"type": "object", "propertyNames": names, "additionalProperties": _FLAG_VALUE}


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
