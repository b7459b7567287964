"""Google's own description of an API (package `google-api-python-client`): Cloud Run's services, Vertex AI's models.

The first argument is `schema` or `load`, the second which: `cloudrun` or `vertex`.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from importlib.resources import files
from typing import Any

DOCUMENTS = {"cloudrun": "run.v1", "vertex": "aiplatform.v1"}
ROOTS = {
    "cloudrun": {"Service": "Service"},
    "vertex": {
        "UploadModel": "GoogleCloudAiplatformV1UploadModelRequest",
        "CreateEndpoint": "GoogleCloudAiplatformV1Endpoint",
        "DeployModel": "GoogleCloudAiplatformV1DeployModelRequest",
    },
}


def document(which: str) -> Any:
    """The discovery document of an API."""
    path = files("googleapiclient").joinpath(f"discovery_cache/documents/{DOCUMENTS[which]}.json")
    return json.loads(path.read_text("utf-8"))


def schema_of(given: Any, schemas: Any, found: dict[str, Any]) -> Any:
    """A schema of the document as JSON Schema, which refuses unknown fields; texts of 64 bits may be numbers too."""
    if "$ref" in given:
        name = given["$ref"]
        if name not in found:
            found[name] = None
            found[name] = schema_of(schemas[name], schemas, found)
        return {"$ref": f"#/$defs/{name}"}
    kind = given.get("type")
    if kind == "object":
        if "properties" in given:
            held = {name: schema_of(one, schemas, found) for name, one in given["properties"].items()}
            return {"type": "object", "additionalProperties": False, "properties": held}
        more = given.get("additionalProperties")
        return {"type": "object", **({"additionalProperties": schema_of(more, schemas, found)} if more else {})}
    if kind == "array":
        return {"type": "array", "items": schema_of(given["items"], schemas, found)}
    if kind == "string" and given.get("format") in ("int64", "uint64"):
        return {"type": ["string", "integer"]}
    if kind == "any" or kind is None:
        return {}
    return {"type": kind, **({"enum": given["enum"]} if "enum" in given else {})}


def main() -> None:
    """`schema` prints the schema; `load` checks a file with the client that is built from the document."""
    which = sys.argv[2]
    held = document(which)
    if sys.argv[1] == "schema":
        found: dict[str, Any] = {}
        roots = {name: schema_of({"$ref": of}, held["schemas"], found) for name, of in ROOTS[which].items()}
        made = {"type": "object", "additionalProperties": False, "required": list(roots), "properties": roots}
        schema = roots["Service"] if which == "cloudrun" else made
        of = {"google-api-python-client": version("google-api-python-client"), DOCUMENTS[which]: held["revision"]}
        json.dump({"schema": {**schema, "$defs": found}, "of": of}, sys.stdout)
        return
    import yaml
    from googleapiclient.discovery import build_from_document
    from googleapiclient.http import HttpMock

    given = yaml.safe_load(sys.stdin.read())
    service = build_from_document(held, http=HttpMock(headers={"status": "200"}))
    if which == "cloudrun":
        call = service.namespaces().services().create(parent="namespaces/project", body=given)
    else:
        models = service.projects().locations().models()
        call = models.upload(parent="projects/p/locations/l", body=given["UploadModel"])
    print(f"google-api-python-client: {call.method} {call.uri.partition('?')[0]}, {len(call.body)} bytes")


if __name__ == "__main__":
    main()
