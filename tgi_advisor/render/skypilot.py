"""A SkyPilot task with a service, which runs `docker run` on the machine (https://docs.skypilot.co/en/latest/reference/yaml-spec.html).

An image of SkyPilot's own (`image_id: docker:...`) would run the commands over SSH in a container without its entry
point and with a /dev/shm of its size; the command here is that of the `docker-run` format.
"""

from __future__ import annotations

from typing import Any

from tgi_advisor.plan import Container
from tgi_advisor.render import docker_run
from tgi_advisor.render.platform import commented, gpu_of, kept, unsaid
from tgi_advisor.render.yaml_ import Block, document
from tgi_advisor.units import GB

DISK = 256
"""GB of disk SkyPilot takes where nothing is said."""
SPARE = 100
"""GB of disk for the machine and TGI's image, which is about 15 GB unpacked."""
PATIENCE = 30
"""Seconds an answer to the probe may take at least: it waits for the step that is running."""


def render(container: Container) -> str:
    """One task: `sky launch` runs it on one machine, `sky serve up` as a service."""
    secrets = "".join(f" --secret {caller}" for caller in container.secret_env.values())
    how = f"sky serve up{secrets} FILE, or for one machine: sky launch{secrets} FILE"
    head = [how, *_lines(container), *kept(container)]
    task: dict[str, Any] = {"name": container.name, "resources": _resources(container)}
    if container.secret_env:
        task["secrets"] = dict.fromkeys(container.secret_env.values())
    task["service"] = {
        "readiness_probe": {
            "path": "/health",
            "initial_delay_seconds": container.startup_seconds,
            "timeout_seconds": max(PATIENCE, container.step_seconds),
        },
        "replicas": container.replicas,
    }
    task["run"] = Block(docker_run.render(container))
    return commented(head) + document(task)


def note(container: Container) -> str:
    """What has to be true of the machine."""
    return "\n".join(_lines(container))


def _lines(container: Container) -> list[str]:
    lines = ["The machine needs Docker, as those of clouds have it: a Kubernetes cluster of SkyPilot's has none"]
    folders = [mount.source for mount in container.mounts[1:] if mount.is_path]
    if folders:
        lines.append(f"What is mounted has to lie there, by file_mounts or in its image: {', '.join(folders)}")
    return [*lines, *unsaid(container, "skypilot", "autoscale")]


def _resources(container: Container) -> dict[str, Any]:
    gpu = gpu_of(container, "skypilot")
    resources: dict[str, Any] = {"accelerators": f"{gpu}:{container.gpu_count}"} if gpu else {}
    memory = container.host_memory_bytes // GB
    if memory:
        resources["memory"] = f"{memory}+"
    resources["disk_size"] = max(DISK, SPARE + container.weights_bytes * 5 // 4 // GB)
    resources["ports"] = container.port
    return resources
