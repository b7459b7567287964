"""Azure ML's marshmallow schema of a managed online deployment, and its loader (package `azure-ai-ml`)."""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from azure.ai.ml._schema._deployment.online.online_deployment import ManagedOnlineDeploymentSchema
from marshmallow import Schema, fields

PLAIN: list[tuple[type, Any]] = [
    (fields.Boolean, {"type": "boolean"}), (fields.Integer, {"type": "integer"}), (fields.Float, {"type": "number"}),
]  # fmt: skip


def schema_of(field: Any, depth: int) -> Any:
    """The schema of a field; whatever is not told apart takes anything."""
    members = getattr(field, "_union_fields", None)
    if members:
        return {"anyOf": [schema_of(one, depth) for one in members]}
    allowed = getattr(field, "allowed_values", None)
    if allowed:
        return {"type": "string"}
    if isinstance(field, fields.Nested):
        nested = field.nested() if callable(field.nested) and not isinstance(field.nested, type) else field.nested
        return record(nested, depth + 1) if depth < 6 else {}
    if isinstance(field, fields.List):
        return {"type": "array", "items": schema_of(field.inner, depth)}
    if isinstance(field, fields.Dict):
        values = field.value_field
        return {"type": "object", **({"additionalProperties": schema_of(values, depth)} if values else {})}
    for kind, said in PLAIN:
        if isinstance(field, kind):
            return said
    text = isinstance(field, fields.String) or type(field).__name__.endswith(("Str", "PathField", "RefField"))
    return {"type": ["string", "number", "boolean"]} if text else {}


def record(kind: Any, depth: int) -> Any:
    """The schema of a marshmallow schema, which refuses unknown fields."""
    if not (isinstance(kind, type) and issubclass(kind, Schema)):
        return {}
    declared = kind._declared_fields
    written = {field.data_key or name: field for name, field in declared.items() if not field.dump_only}
    made = {name: schema_of(field, depth) for name, field in written.items()}
    required = [name for name, field in written.items() if field.required]
    return {"type": "object", "additionalProperties": False, "properties": made, "required": required}


def main() -> None:
    """`schema` prints the schema; `load` reads a deployment as `az ml online-deployment create` does."""
    if sys.argv[1] == "schema":
        made = record(ManagedOnlineDeploymentSchema, 0)
        made["properties"]["$schema"] = {"type": "string"}
        json.dump({"schema": made, "of": {"azure-ai-ml": version("azure-ai-ml")}}, sys.stdout)
        return
    from azure.ai.ml import load_online_deployment

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "deployment.yml"
        file.write_text(sys.stdin.read(), "utf-8")
        made = load_online_deployment(str(file))
    print(f"azure-ai-ml: {type(made).__name__} {made.name} of {made.endpoint_name} on {made.instance_type}")


if __name__ == "__main__":
    main()
