"""KServe's own models (package `kserve`), with those of the `kubernetes` client they refer to."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from typing import Any

import kserve
import yaml
from kubernetes import client

PLAIN = {
    "str": {"type": "string"}, "int": {"type": "integer"}, "bool": {"type": "boolean"}, "float": {"type": "number"},
    "object": {}, "datetime": {"type": "string"}, "date": {"type": "string"},
    "IntOrString": {"type": ["integer", "string"]},
}  # fmt: skip

QUANTITIES = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
"""What the models call texts and the API takes as numbers too."""
OF_QUANTITIES = ("limits", "requests")


def model(name: str) -> Any:
    """A model by its name: of KServe, else of Kubernetes; None for a type that is none."""
    last = re.sub(r"^K8sIoApi[A-Z][a-z]+(V1\w+)$", r"\1", name)
    last = re.sub(r"^V1(DeploymentStrategy)$", r"V1\1", last)
    return getattr(kserve, name, None) or getattr(client, name, None) or getattr(client, last, None)


def schema_of(kind: str, found: dict[str, Any]) -> Any:
    """The schema of a type in the notation of the generated models."""
    if kind == "ResourceQuantity" or kind.endswith("Quantity"):
        return {"type": ["string", "number"]}
    if kind in PLAIN:
        return PLAIN[kind]
    if inner := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        return {"type": "array", "items": schema_of(inner[1], found)}
    if inner := re.fullmatch(r"[Dd]ict\((?:str), ?(.+)\)|[Dd]ict\[str, ?(.+)\]", kind):
        return {"type": "object", "additionalProperties": schema_of(inner[1] or inner[2], found)}
    record = model(kind)
    if record is None or not hasattr(record, "openapi_types"):
        return {}
    if kind not in found:
        found[kind] = None
        found[kind] = {
            "type": "object", "additionalProperties": False,
            "properties": {record.attribute_map[name]: QUANTITIES if name in OF_QUANTITIES else schema_of(of, found)
                           for name, of in record.openapi_types.items()},
        }  # fmt: skip
    return {"$ref": f"#/$defs/{kind}"}


def built(kind: str, value: Any) -> Any:
    """A value as the models hold it, which refuse what they do not know and miss what they require."""
    if kind.lower().startswith("dict(str, ") or kind.startswith("Dict[str, str"):
        return {key: str(one) for key, one in value.items()}  # quantities, which the API takes as numbers too
    if inner := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        return [built(inner[1], one) for one in value]
    record = model(kind)
    if record is None or not hasattr(record, "openapi_types"):
        return value
    names = {theirs: ours for ours, theirs in record.attribute_map.items()}
    return record(**{names[key]: built(record.openapi_types[names[key]], one) for key, one in value.items()})


def main() -> None:
    """`schema` prints the schema; `load` reads a file with the models and prints what they made of it."""
    if sys.argv[1] == "schema":
        found: dict[str, Any] = {}
        root = schema_of("V1beta1InferenceService", found)
        json.dump({"schema": {**root, "$defs": found}, "of": {"kserve": version("kserve")}}, sys.stdout)
        return
    service = next(one for one in yaml.safe_load_all(sys.stdin.read()) if one["kind"] == "InferenceService")
    made = built("V1beta1InferenceService", service)
    (container,) = made.spec.predictor.containers
    print(f"kserve: {made.kind} {made.metadata.name}, {container.image}")


if __name__ == "__main__":
    main()
