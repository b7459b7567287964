"""A dstack service (https://dstack.ai/docs/reference/dstack.yml/service/).

- `entrypoint` and `commands` are words, as Docker's are: no shell reads them. dstack replaces `${{ }}` in them and in
  variables, and `$$` there is one `$`.
- The weights are kept in a folder of the machine where dstack's backend can mount one (`optional`).
- A name in `env` without a value is taken from the shell `dstack apply` runs in.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import Any

from tgi_advisor.errors import SpecError
from tgi_advisor.plan import Container, Mount
from tgi_advisor.render.kubernetes import shm_bytes
from tgi_advisor.render.platform import commented, gpu_of, kept, unsaid
from tgi_advisor.render.yaml_ import Entry, document
from tgi_advisor.units import GiB, MiB

DISK = 100
"""GB of disk dstack asks for where nothing is said."""
SPARE = 50
"""GB of disk for TGI's image and the machine."""
PATIENCE = 30
"""Seconds an answer to the probe may take at least: it waits for the step that is running."""
STATE = "/var/lib"
"""Where a relative folder of weights lies on the machine, below the server's name."""


def render(container: Container) -> str:
    """One service."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,40}", container.name):
        raise SpecError(
            f"dstack does not take the name {container.name!r}.",
            "Write container.name with 2 to 41 lower-case letters, digits and dashes.",
        )
    service: dict[str, Any] = {"type": "service", "name": container.name, "image": container.image}
    service |= _command(container)
    if environment := _environment(container):
        service["env"] = environment
    service["port"] = container.container_port
    service["probes"] = [
        {"type": "http", "url": "/health", "interval": "15s", "timeout": f"{max(PATIENCE, container.step_seconds)}s"}
    ]
    if container.replicas > 1:
        service["replicas"] = container.replicas
    service["volumes"] = _volumes(container)
    if container.privileged:
        service["privileged"] = True
    service["resources"] = _resources(container)
    return commented(
        [_how(container), *_lines(container), *kept(container, "port", "gpus", "read_only", *_placed(container))]
    ) + document(service)


def note(container: Container) -> str | None:
    """What dstack has no words for."""
    return "\n".join(_lines(container)) or None


def _how(container: Container) -> str:
    """The command, with a variable of another name passed on under the one the server reads."""
    renamed = "".join(f'{inside}="${caller}" ' for inside, caller in container.secret_env.items() if inside != caller)
    return f"{renamed}dstack apply -f FILE"


def _lines(container: Container) -> list[str]:
    return [*unsaid(container, "dstack", "gpus", "port", "autoscale"),
            *(f"dstack mounts {mount.source} so that it can be written to" for mount in container.mounts
              if mount.read_only)]  # fmt: skip


def _command(container: Container) -> dict[str, Any]:
    """The image's own entry point with the arguments; nothing where the variables say everything."""
    if not container.args:
        return {}
    if not container.entry:
        raise SpecError(
            "dstack has to be told what the image starts, and that is known of TGI's own images alone.",
            "Leave tgi.image out, or choose another format.",
        )
    return {"entrypoint": shlex.quote(container.entry), "commands": [_literal(word) for word in container.args]}


def _environment(container: Container) -> list[str]:
    if broken := [name for name, value in container.env.items() if len(value.splitlines()) > 1 or value.endswith("\n")]:
        raise SpecError(
            f"dstack's list of variables cannot hold {broken[0]}: its value has line breaks.",
            "Choose another format, such as skypilot or kserve.",
        )
    stated = [Entry(f"{name}={_literal(value)}") for name, value in container.env.items()]
    return [*stated, *container.secret_env]


def _literal(text: str) -> str:
    return text.replace("$", "$$")


def _volumes(container: Container) -> list[dict[str, Any]]:
    """The cache, where the machine can keep one, and what the server cannot do without."""
    cache, *further = container.mounts
    source = cache.source
    if cache.is_path and not source.startswith("/"):
        source = posixpath.normpath(f"{STATE}/{container.name}/{source.removeprefix('~/')}")
    return [_volume(source, cache.target, optional=True), *(_further(mount) for mount in further)]


def _further(mount: Mount) -> dict[str, Any]:
    if mount.is_path and not mount.source.startswith("/"):
        raise SpecError(
            f"dstack cannot mount the relative folder {mount.source!r}.",
            "Write model.id and container.mounts with absolute paths of the machines.",
        )
    return _volume(mount.source, mount.target)


def _placed(container: Container) -> tuple[str, ...]:
    """`cache` where its folder on the machine does not tell what the spec says."""
    source = container.mounts[0].source
    return () if source.startswith(("/", "./")) or not container.mounts[0].is_path else ("cache",)


def _volume(source: str, target: str, optional: bool = False) -> dict[str, Any]:
    """A folder of the machine, or a volume of dstack's."""
    if source.startswith("/"):
        return {"instance_path": source, "path": target, **({"optional": True} if optional else {})}
    return {"name": source, "path": target}


def _resources(container: Container) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if gpu := gpu_of(container, "dstack"):
        resources["gpu"] = f"{gpu}:{container.gpu_count}"
    if container.host_memory_bytes:
        resources["memory"] = f"{-(-container.host_memory_bytes // GiB)}GB.."
    shm = -(-shm_bytes(container.shm_size) // MiB)
    resources["shm_size"] = f"{shm // 1024}GB" if shm % 1024 == 0 else f"{shm}MB"
    resources["disk"] = f"{max(DISK, SPARE + container.weights_bytes * 5 // 4 // GiB)}GB.."
    return resources
