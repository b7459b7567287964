"""Requests that make a Vertex AI endpoint: models.upload, endpoints.create and endpoints.deployModel, by name.

- Vertex AI pulls from Artifact Registry and its older registry alone.
- `$` is doubled: $(NAME) would be replaced in arguments and values.
- The token is no part of a request that is kept in a file: the note says how to add it on the way.
"""

from __future__ import annotations

from typing import Any

from tgi_advisor.facts import clouds
from tgi_advisor.plan import Container
from tgi_advisor.render.cloudrun import pullable
from tgi_advisor.render.json_ import document
from tgi_advisor.render.kubernetes import shm_bytes
from tgi_advisor.render.platform import bounds, gpu_of, kept_in_json, machine_of, no_mounts, unsaid
from tgi_advisor.units import MiB

PERIOD = 30
"""Seconds between two questions of a probe."""
MODEL = "projects/PROJECT/locations/REGION/models/MODEL"
"""The model of the first answer, by its whole name."""


def render(container: Container) -> str:
    """The three requests."""
    no_mounts(container, "vertex")
    pullable(container, "Vertex AI")
    machine = machine_of(container, "vertex")
    health = {"httpGet": {"path": "/health", "port": container.container_port}}
    step = max(PERIOD, container.step_seconds)
    spec: dict[str, Any] = {
        "imageUri": container.image,
        "args": [_literal(word) for word in container.args],
        "env": [{"name": name, "value": _literal(value)} for name, value in container.env.items()],
        "ports": [{"containerPort": container.container_port}],
        "predictRoute": route(container),
        "healthRoute": "/health",
        "sharedMemorySizeMb": str(-(-shm_bytes(container.shm_size) // MiB)),
        "deploymentTimeout": f"{container.startup_seconds}s",
        "startupProbe": {
            **health, "periodSeconds": PERIOD, "timeoutSeconds": PERIOD,
            "failureThreshold": -(-container.startup_seconds // PERIOD),
        },
        "healthProbe": {**health, "periodSeconds": step, "timeoutSeconds": step, "failureThreshold": 5},
    }  # fmt: skip
    fewest, most = bounds(container)
    resources = {
        "machineSpec": {
            "machineType": machine, "acceleratorType": gpu_of(container, "vertex"),
            "acceleratorCount": container.gpu_count,
        },
        "minReplicaCount": fewest,
        "maxReplicaCount": most,
    }  # fmt: skip
    requests = {
        "UploadModel": {
            "model": {
                "displayName": container.name,
                "containerSpec": {key: value for key, value in spec.items() if value},
            }
        },
        "CreateEndpoint": {"displayName": container.name},
        "DeployModel": {
            "deployedModel": {"model": MODEL, "displayName": container.name, "dedicatedResources": resources},
            "trafficSplit": {"0": 100},
        },
        **kept_in_json(container, "port", "cache", "gpus"),
    }
    return document(requests)


def route(container: Container) -> str:
    """Where requests go: Vertex AI's form has a route in Google's image alone; others take rawPredict."""
    cloud = clouds.find(container.image)
    return "/vertex" if cloud is not None and cloud.name == "google" else "/v1/chat/completions"


def note(container: Container) -> str:
    """What has to be put in, and what Vertex AI has no words for."""
    lines = [f"deployModel names the model that models.upload answers with: write it for {MODEL}"]
    lines += [
        "The token: jq '.UploadModel | .model.containerSpec.env += "
        f'[{{name: "{inside}", value: env.{caller}}}]\' FILE, on its way to models.upload'
        for inside, caller in container.secret_env.items()
    ]
    if route(container) != "/vertex":
        lines.append("Ask by rawPredict, with what /v1/chat/completions takes")
    return "\n".join([*lines, *unsaid(container, "vertex", "gpus", "port", "cache", "autoscale")])


def _literal(text: str) -> str:
    return text.replace("$", "$$")
