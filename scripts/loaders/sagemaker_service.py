"""SageMaker's operations as the AWS SDK describes them (package `botocore`), and its check of parameters."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

OPERATIONS = ("CreateModel", "CreateEndpointConfig", "CreateEndpoint")
SCALARS = {"integer": "integer", "long": "integer", "float": "number", "double": "number", "boolean": "boolean"}


def schema_of(shape: Any, found: dict[str, Any]) -> Any:
    """The schema of a shape, with the bounds, patterns and names that the SDK itself does not check."""
    held = shape.metadata
    if shape.type_name in SCALARS:
        bounds = {theirs: held[ours] for ours, theirs in (("min", "minimum"), ("max", "maximum")) if ours in held}
        return {"type": SCALARS[shape.type_name], **bounds}
    if shape.type_name == "list":
        sizes = {theirs: held[ours] for ours, theirs in (("min", "minItems"), ("max", "maxItems")) if ours in held}
        return {"type": "array", "items": schema_of(shape.member, found), **sizes}
    if shape.type_name == "map":
        names, values = schema_of(shape.key, found), schema_of(shape.value, found)
        return {"type": "object", "propertyNames": names, "additionalProperties": values}
    if shape.type_name != "structure":
        sizes = {theirs: held[ours] for ours, theirs in (("min", "minLength"), ("max", "maxLength")) if ours in held}
        enum = {"enum": shape.enum} if getattr(shape, "enum", None) else {}
        pattern = re.sub(r"\\p\{[^}]*\}", r"\\w", held.get("pattern", ""))  # a class of Java's
        # Java reads a pattern over the whole text.
        return {"type": "string", **sizes, **enum, **({"pattern": f"^(?:{pattern})$"} if pattern else {})}
    if shape.name not in found:
        found[shape.name] = None
        found[shape.name] = {
            "type": "object", "additionalProperties": False, "required": list(shape.required_members),
            "properties": {name: schema_of(member, found) for name, member in shape.members.items()},
        }  # fmt: skip
    return {"$ref": f"#/$defs/{shape.name}"}


def main() -> None:
    """`schema` prints the schema of the operations; `load` checks parameters as the SDK does before it sends them."""
    service = botocore.session.Session().get_service_model("sagemaker")
    shapes = {name: service.operation_model(name).input_shape for name in OPERATIONS}
    if sys.argv[1] == "schema":
        found: dict[str, Any] = {}
        made = {
            "type": "object", "additionalProperties": False, "required": list(OPERATIONS),
            "properties": {name: schema_of(shape, found) for name, shape in shapes.items()}, "$defs": found,
        }  # fmt: skip
        json.dump({"schema": made, "of": {"botocore": version("botocore")}}, sys.stdout)
        return
    given = json.load(sys.stdin)
    for name, shape in shapes.items():
        report = ParamValidator().validate(given[name], shape)
        if report.has_errors():
            sys.exit(f"{name}: {report.generate_report()}")
    print(f"botocore: {', '.join(shapes)} accepted")


if __name__ == "__main__":
    main()
