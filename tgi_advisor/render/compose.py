"""A Compose file (https://github.com/compose-spec/compose-spec/blob/main/spec.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tgi_advisor.plan import Container, Mount
from tgi_advisor.render.platform import commented, kept
from tgi_advisor.render.yaml_ import Reference, document

HEADER = "# docker compose up\n"


def render(container: Container) -> str:
    """One service, with its volume where the cache is one."""
    return HEADER + commented(kept(container, "replicas")) + _file({container.name: _whole(container)}, (container,))


TOGETHER = """\
# docker compose up --wait
# Each server starts when the one before it answers: its warm-up takes the memory that is free then. Docker alone,
# after a reboot, would keep no order, so nothing is restarted that was stopped: run the command again.
"""


def together(containers: Sequence[Container]) -> str:
    """Services of one machine that start one after the other, in this order."""
    services: dict[str, Any] = {}
    for container, before in zip(containers, (None, *containers), strict=False):
        waits = {"depends_on": {before.name: {"condition": "service_healthy"}}} if before is not None else {}
        services[container.name] = (
            _whole(container) | {"restart": "on-failure", "healthcheck": _healthcheck(container)} | waits
        )
    return TOGETHER + _file(services, containers)


def _healthcheck(container: Container) -> dict[str, Any]:
    """Whether the server answers, asked inside the container; while it loads nothing counts against it.

    Not every image holds curl, but each a Python.
    """
    url = f"http://127.0.0.1:{container.container_port}{container.health}"
    ask = f"import urllib.request as u; u.urlopen('{url}')"
    test = f'curl -sf {url} || python -c "{ask}"'
    return {
        "test": ["CMD-SHELL", test],
        "interval": "10s",
        "timeout": "10s",
        "retries": 6,
        "start_period": f"{container.startup_seconds}s",
    }


def _whole(container: Container) -> dict[str, Any]:
    """A service with its environment."""
    service: dict[str, Any] = _literal(_service(container))
    return service | _environment(container)


def _file(services: dict[str, Any], containers: Sequence[Container]) -> str:
    """The services with the volumes they share."""
    mounts = [mount for container in containers for mount in container.mounts]
    volumes = {mount.source: {"name": mount.source} for mount in mounts if not mount.is_path}
    return document({"services": services, **({"volumes": volumes} if volumes else {})})


def _service(container: Container) -> dict[str, Any]:
    """The service without its environment; every text as the container must see it."""
    service: dict[str, Any] = {
        "image": container.image,
        "container_name": container.name,
        **({"command": list(container.args)} if container.args else {}),
        "ports": [f"{container.port}:{container.container_port}"],
        "volumes": [_volume(mount) for mount in container.mounts],
        "shm_size": container.shm_size,
        "restart": "unless-stopped",
    }
    if container.gpus is not None:
        service["deploy"] = {"resources": {"reservations": {"devices": [_gpus(container.gpus)]}}}
    access: dict[str, Any] = {
        "devices": [f"{device}:{device}" for device in container.devices],
        "cap_add": list(container.cap_add),
        "security_opt": list(container.security_opt),
        "group_add": list(container.group_add),
        "ipc": container.ipc,
        "privileged": container.privileged,
        "runtime": container.runtime,
    }
    return service | {key: value for key, value in access.items() if value}


def _volume(mount: Mount) -> dict[str, Any]:
    """A mount in the long form, which no character of the source can upset."""
    volume: dict[str, Any] = {
        "type": "bind" if mount.is_path else "volume",
        "source": mount.source,
        "target": mount.target,
    }
    if mount.read_only:
        volume["read_only"] = True
    if mount.is_path:
        volume["bind"] = {"create_host_path": not mount.read_only}
    return volume


def _gpus(gpus: str | tuple[str, ...]) -> dict[str, Any]:
    """A device reservation: all GPUs, or these."""
    which: dict[str, Any] = {"count": gpus} if isinstance(gpus, str) else {"device_ids": list(gpus)}
    return {"driver": "nvidia", **which, "capabilities": ["gpu"]}


def _environment(container: Container) -> dict[str, Any]:
    """Literal values, and secrets by reference to the environment Compose runs in.

    A null passes a variable of the same name on when it is set. Under another name Compose has no
    way to leave it unset, and an empty token is worse than none, so then it must be set.
    """
    environment: dict[str, Any] = _literal({**container.device_env, **container.env})
    for inside, caller in container.secret_env.items():
        environment[inside] = None if inside == caller else Reference(f"${{{caller}:?is not set}}")
    return {"environment": environment} if environment else {}


def _literal(value: Any) -> Any:
    """The same value with each `$` doubled, which keeps Compose from reading a variable into it."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list) else value
