"""Operations of SageMaker and Application Auto Scaling as the AWS SDK describes them (package `botocore`).

Its check of parameters is asked too.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

OPERATIONS = {
    "CreateModel": "sagemaker",
    "CreateEndpointConfig": "sagemaker",
    "CreateEndpoint": "sagemaker",
    "RegisterScalableTarget": "application-autoscaling",
    "PutScalingPolicy": "application-autoscaling",
}
"""The service of each operation."""
OPTIONAL = ("RegisterScalableTarget", "PutScalingPolicy")
"""Requests of an endpoint whose number of servers changes."""
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
        pattern = held.get("pattern", "").replace(r"\p{Print}+", "[ -~]+")  # a class of Java's
        pattern = re.sub(r"\\p\{[^}]*\}", r"\\w", pattern)
        pattern = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")  # and its surrogates
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
    session = botocore.session.Session()
    shapes = {
        name: session.get_service_model(service).operation_model(name).input_shape
        for name, service in OPERATIONS.items()
    }
    if sys.argv[1] == "schema":
        found: dict[str, Any] = {}
        needed = [name for name in OPERATIONS if name not in OPTIONAL]
        made = {
            "type": "object", "additionalProperties": False, "required": needed,
            "properties": {name: schema_of(shape, found) for name, shape in shapes.items()}, "$defs": found,
        }  # fmt: skip
        json.dump({"schema": made, "of": {"botocore": version("botocore")}}, sys.stdout)
        return
    given = json.load(sys.stdin)
    checked = [name for name in shapes if name in given or name not in OPTIONAL]
    for name in checked:
        report = ParamValidator().validate(given[name], shapes[name])
        if report.has_errors():
            sys.exit(f"{name}: {report.generate_report()}")
    print(f"botocore: {', '.join(checked)} accepted")


if __name__ == "__main__":
    main()
