"""A Cloud Run service for `gcloud run services replace` (https://cloud.google.com/run/docs/reference/yaml/v1).

- An instance has one GPU, an L4 or an RTX PRO 6000, and pulls from Artifact Registry, its older registry and Docker Hub
  alone.
- No variable is replaced in arguments and values: `$` stands for itself.
- What is written to a disk lies in memory, so the memory holds the weights too.
- A start-up probe waits for 240 s at most, after a delay of 240 s at most
  (https://cloud.google.com/run/docs/configuring/healthchecks).
"""

from __future__ import annotations

import re
from typing import Any

from tgi_advisor.errors import SpecError
from tgi_advisor.plan import Container
from tgi_advisor.render.kubernetes import labels
from tgi_advisor.render.platform import bounds, commented, gpu_of, kept, no_mounts, unsaid
from tgi_advisor.render.yaml_ import document
from tgi_advisor.units import GiB

LONGEST = 240
"""Seconds a start-up probe may take in all, and seconds it may be put off."""
PERIOD = 10
"""Seconds between two questions of the probe."""
CPU = 8
"""Cores: the most beside an L4, of which an instance with a GPU has at least 4."""
MEMORY = {"nvidia-l4": 32, "nvidia-rtx-pro-6000": 176}
"""GiB of memory an instance can have beside each GPU (https://cloud.google.com/run/docs/configuring/services/gpu)."""
SPARE = 4
"""GiB for what is neither weights nor the server's processes."""
REGISTRIES = r"(?:[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io|docker\.io)/|[^./:]+/[^/]+$|[^/]+$"
"""How a reference to an image that Cloud Run can pull begins."""


def render(container: Container) -> str:
    """The service."""
    no_mounts(container, "cloudrun")
    pullable(container, "Cloud Run")
    gpu = gpu_of(container, "cloudrun")
    if gpu is None:
        raise SpecError("On Cloud Run a server without a GPU is not planned for.", "Choose another format.")
    secrets = [
        f'Secret first: printf %s "${caller}" | gcloud secrets create {caller} --data-file=-'
        for caller in container.secret_env.values()
    ]
    template = {"metadata": {"annotations": _annotations(container)}, "spec": _instance(container, gpu)}
    return commented(
        [
            "gcloud run services replace FILE",
            *secrets,
            *_lines(container),
            *kept(container, "port", "cache", "shm_size", "replicas", "gpus"),
        ]
    ) + document(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": container.name, "labels": {"app": labels(container)["app.kubernetes.io/name"]}},
            "spec": {"template": template},
        }
    )


def _annotations(container: Container) -> dict[str, str]:
    """As many instances as servers, whose CPUs run between requests too, as a GPU asks for."""
    fewest, most = bounds(container)
    return {
        **({"autoscaling.knative.dev/minScale": str(fewest)} if container.scaling else {}),
        "autoscaling.knative.dev/maxScale": str(most),
        "run.googleapis.com/cpu-throttling": "false",
        "run.googleapis.com/gpu-zonal-redundancy-disabled": "true",
    }


def note(container: Container) -> str:
    """What Cloud Run has no words for."""
    return "\n".join(_lines(container))


def pullable(container: Container, title: str) -> None:
    """SpecError for an image of a registry that Google's platforms do not pull from."""
    if re.match(REGISTRIES, container.image) is None or (
        title != "Cloud Run" and re.search(r"\.pkg\.dev/|gcr\.io/", container.image) is None
    ):
        name = container.image.partition("/")[2]
        raise SpecError(
            f"{title} does not pull {container.image}: Artifact Registry has to hold the image.",
            "Make a remote repository of ghcr.io there and name the image in it: "
            f"--set tgi.image=us-docker.pkg.dev/PROJECT/REPOSITORY/{name}",
        )


def _lines(container: Container) -> list[str]:
    lines = list(unsaid(container, "cloudrun", "gpus", "port", "cache", "shm", "autoscale"))
    if container.startup_seconds > 2 * LONGEST:
        lines.append(
            f"Cloud Run waits for {2 * LONGEST} s at most, and a start may take {container.startup_seconds} s: weights "
            "in the image or in a bucket that is mounted come sooner"
        )
    return lines


def _instance(container: Container, gpu: str) -> dict[str, Any]:
    wanted = -(-(container.weights_bytes + container.host_memory_bytes) // GiB) + SPARE
    most = MEMORY[container.gpu]
    if wanted > most:
        raise SpecError(
            f"Cloud Run keeps downloads in memory: {wanted} GiB are needed, beside this GPU it has {most} GiB.",
            "Choose a smaller or quantized checkpoint, or a platform with disks.",
        )
    step = max(60, container.step_seconds)
    health = {"httpGet": {"path": "/health", "port": container.container_port}}
    server: dict[str, Any] = {
        "image": container.image,
        "args": list(container.args),
        "env": _environment(container),
        "ports": [{"name": "http1", "containerPort": container.container_port}],
        "resources": {"limits": {"cpu": str(CPU), "memory": f"{max(wanted, 16)}Gi", "nvidia.com/gpu": "1"}},
        "startupProbe": {
            **health,
            **({"initialDelaySeconds": LONGEST} if container.startup_seconds > LONGEST else {}),
            "periodSeconds": PERIOD,
            "timeoutSeconds": PERIOD,
            "failureThreshold": LONGEST // PERIOD,
        },
        "livenessProbe": {**health, "periodSeconds": step, "timeoutSeconds": step, "failureThreshold": 5},
    }
    return {
        "timeoutSeconds": 3600,
        "nodeSelector": {"run.googleapis.com/accelerator": gpu},
        "containers": [{key: value for key, value in server.items() if value}],
    }


def _environment(container: Container) -> list[dict[str, Any]]:
    """Literal values, and the token by reference to a secret of the caller's variable's name."""
    stated: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in container.env.items()]
    for inside, caller in container.secret_env.items():
        stated.append({"name": inside, "valueFrom": {"secretKeyRef": {"name": caller, "key": "latest"}}})
    return stated
