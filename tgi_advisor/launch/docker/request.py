"""A `Container` as the Engine API's request to create it; nothing is asked and nothing is changed here.

The request is made from the record that every renderer uses. What only a running container has is
added: labels by which it is found again, and how it is restarted and stopped.
https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tgi_advisor.errors import UsageError
from tgi_advisor.facts import clouds
from tgi_advisor.launch import marks
from tgi_advisor.launch.preflight import size
from tgi_advisor.plan import Container, Mount, Plan

GRACEFUL_S = 90
"""Seconds TGI gives requests in flight when told to stop; a flag since 3.2.2, fixed before (launcher/src/main.rs)."""
_SHARDS_S = 30
"""Seconds more for the shards to end after the router."""


def request(
    plan: Plan, container: Container, launch: str, *, restart: str = "no", ulimits: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The body of the request, without the secrets: their names stand in `container.secret_env`."""
    exposed = f"{container.container_port}/tcp"
    host: dict[str, Any] = {
        "Binds": [_bind(mount) for mount in container.mounts if ":" not in mount.source],
        "Mounts": [_mount(mount) for mount in container.mounts if ":" in mount.source],
        "PortBindings": {exposed: [{"HostPort": str(container.port)}]},
        "ShmSize": size(container.shm_size),
        "RestartPolicy": restart_policy(restart),
        "Ulimits": [_ulimit(text) for text in ulimits],
        "DeviceRequests": device_requests(container),
        "Devices": [
            {"PathOnHost": node, "PathInContainer": node, "CgroupPermissions": "rwm"} for node in container.devices
        ],
        "Runtime": container.runtime,
        "CapAdd": list(container.cap_add),
        "SecurityOpt": list(container.security_opt),
        "GroupAdd": list(container.group_add),
        "IpcMode": container.ipc,
        "Privileged": container.privileged,
    }
    body = {
        "Image": container.image,
        "Cmd": list(container.args),
        "Env": [f"{name}={value}" for name, value in {**container.device_env, **container.env}.items()],
        "ExposedPorts": {exposed: {}},
        "StopTimeout": stop_timeout(plan),
        "HostConfig": {name: value for name, value in host.items() if value not in (None, [], False)},
    }
    labels = {marks.PLAN: marks.digest({**body, "Labels": None}), marks.LAUNCH: launch, **marks.described(plan)}
    return {**body, "Labels": labels}


def with_secrets(body: dict[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """The request as it is sent; this one is never printed."""
    return {**body, "Env": [*body["Env"], *(f"{name}={value}" for name, value in secrets.items())]}


def device_requests(container: Container) -> list[dict[str, Any]]:
    """What `--gpus` becomes."""
    if container.gpus is None:
        return []
    which = {"Count": -1} if isinstance(container.gpus, str) else {"DeviceIDs": list(container.gpus)}
    return [{"Driver": "", **which, "Capabilities": [["gpu"]]}]


def stop_timeout(plan: Plan) -> int:
    """Seconds between SIGTERM and SIGKILL: as long as TGI may take to finish the requests it has.

    2.0.0 to 2.3.1 do not hear SIGTERM at all: their entry point leaves a shell as process 1, so waiting is idle
    (tgi-entrypoint.sh at each tag; `exec` from 2.4.0 on). SageMaker's always does (sagemaker-entrypoint.sh@v3.3.7:25).
    """
    cloud = clouds.find(plan.spec.tgi.image) if plan.spec.tgi.image else None
    shell = cloud is not None and cloud.entry == "sagemaker"
    if shell or (2, 0, 0) <= plan.facts.release.version < (2, 4, 0):
        return 10
    asked = plan.spec.tgi.flags.get("graceful-termination-timeout", GRACEFUL_S)
    return int(asked) + _SHARDS_S


def source(mount: Mount) -> str:
    """The host's side of a mount as the engine wants it: an absolute path, or the name of a volume."""
    return os.path.abspath(os.path.expanduser(mount.source)) if mount.is_path else mount.source  # noqa: PTH100, PTH111


def _bind(mount: Mount) -> str:
    return f"{source(mount)}:{mount.target}{':ro' if mount.read_only else ''}"


def _mount(mount: Mount) -> dict[str, Any]:
    """A mount whose source holds the colon that separates the parts of a bind."""
    return {"Type": "bind", "Source": source(mount), "Target": mount.target, "ReadOnly": mount.read_only}


def restart_policy(policy: str) -> dict[str, Any]:
    """`on-failure:3` as the Engine API writes it; UsageError for what Docker does not know."""
    name, _, most = policy.partition(":")
    if name not in ("no", "always", "unless-stopped", "on-failure") or (most and not (most.isdecimal())):
        raise UsageError(
            f"{policy!r} is no restart policy", "Docker knows no, on-failure, on-failure:N, unless-stopped and always."
        )
    return {"Name": name, "MaximumRetryCount": int(most)} if most else {"Name": name}


def _ulimit(text: str) -> dict[str, Any]:
    """`memlock=-1` or `nofile=1024:4096`."""
    match = re.fullmatch(r"([a-z]+)=(-?\d+)(?::(-?\d+))?", text)
    if match is None:
        raise UsageError(f"{text!r} is no ulimit", "Write NAME=SOFT or NAME=SOFT:HARD, such as memlock=-1.")
    return {"Name": match[1], "Soft": int(match[2]), "Hard": int(match[3] or match[2])}
