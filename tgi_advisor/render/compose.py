"""A Compose file (https://github.com/compose-spec/compose-spec/blob/main/spec.md)."""

from __future__ import annotations

from typing import Any

from tgi_advisor.plan import Container, Mount
from tgi_advisor.render.yaml_ import document

HEADER = "# docker compose up\n"


def render(container: Container) -> str:
    """One service, with its volume where the cache is one."""
    compose: dict[str, Any] = {"services": {container.name: _literal(_service(container)) | _environment(container)}}
    volumes = {mount.source: {"name": mount.source} for mount in container.mounts if not mount.is_path}
    if volumes:
        compose["volumes"] = volumes
    return HEADER + document(compose)


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
        environment[inside] = None if inside == caller else f"${{{caller}:?is not set}}"
    return {"environment": environment} if environment else {}


def _literal(value: Any) -> Any:
    """The same value with each `$` doubled, which keeps Compose from reading a variable into it."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list) else value
