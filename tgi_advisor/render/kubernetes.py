"""Kubernetes manifests: a PersistentVolumeClaim, a Deployment and a Service.

What differs from Docker, and why:

- The weights are kept in a claim of the cluster; a folder of one host would tie the pod to it. Only a
  model folder and the spec's own mounts stay a hostPath: they have to lie on the node. A volume among these is a
  claim that is there already.
- Device ids and device nodes are left to the GPU's device plugin, which gives the pod its own.
- /dev/shm is a memory-backed emptyDir instead of `--ipc=host`, which most clusters forbid.
- `enableServiceLinks: false`: a Service named `prometheus` would otherwise set
  PROMETHEUS_PORT=tcp://..., which the launcher reads as its own option and refuses.
- `Recreate` where the claim is of one node: a second pod would wait for what the first one holds. Elsewhere old pods
  serve until new ones answer, which takes a GPU more while a change is rolled out.
- /health waits for the step that runs, so that a probe waits as long as the longest prefill may take.
- Nodes with a GPU often keep other pods off by a taint named like its resource: the pod tolerates it.
- Several replicas, and what keeps their number: scaling.py.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tgi_advisor.errors import SpecError
from tgi_advisor.plan import Container, Mount
from tgi_advisor.render import scaling
from tgi_advisor.render.platform import commented, kept_of_container
from tgi_advisor.render.yaml_ import document
from tgi_advisor.units import GiB

PROBE_PERIOD = 10
"""Seconds between two questions of the startup probe."""
IMAGE_PULL = 900
"""Seconds granted for pulling the image (about 15 GB unpacked) before a rollout counts as stuck."""
FINISHING = 90
"""Seconds the launcher gives requests to end, unless it is told (launcher/src/main.rs@v3.3.7)."""
GRACE = 120
"""Seconds until Kubernetes kills a pod: the launcher's own, and some to end."""
NOTES = "tgi-advisor"
"""What annotations of ours begin with."""


def render(container: Container) -> str:
    """The manifests as one file for `kubectl apply -f`."""
    fields = ("gpus",) if container.cluster.storage == "node" else ("cache", "gpus")  # a node's folder is its volume
    return (
        header(container)
        + commented(kept_of_container(container, *fields))
        + "---\n".join(document(manifest) for manifest in manifests(container))
    )


def manifests(container: Container) -> tuple[dict[str, Any], ...]:
    """The manifests as they are, in the order they are applied."""
    claims = () if container.cluster.storage == "node" else (claim(container),)
    beside = scaling.manifests(container, labels(container))
    return *claims, deployment(container), service(container), *beside


def header(container: Container) -> str:
    """How to make the Secret the Deployment refers to; printf is the shell's own, so no process shows the value."""
    lines = [
        f"# Secret first: printf '{caller}=%s\\n' \"${caller}\" | "
        f"kubectl create secret generic {_secret(container)} --from-env-file=/dev/stdin"
        for caller in container.secret_env.values()
    ]
    return "\n".join(["# kubectl apply -f FILE", *lines, *scaling.head(container)]) + "\n"


def _secret(container: Container) -> str:
    """Name of the Secret that holds the caller's variables."""
    return f"{container.name}-secrets"


def _metadata(container: Container, name: str) -> dict[str, Any]:
    return {"name": name, "labels": labels(container)}


def labels(container: Container) -> dict[str, str]:
    """Labels of everything that belongs to the server, by which its Service finds the pod."""
    return {"app.kubernetes.io/name": container.name}


def claim(container: Container) -> dict[str, Any]:
    """A claim for the weights with a quarter to spare and room for tokenizers and caches."""
    cluster = container.cluster
    of_class = {"storageClassName": cluster.storage_class} if cluster.storage_class else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(container, f"{container.name}-data"),
        "spec": {
            "accessModes": ["ReadWriteMany" if cluster.storage == "shared" else "ReadWriteOnce"],
            **of_class,
            "resources": {"requests": {"storage": _gi(container.weights_bytes * 5 // 4 + 10 * GiB)}},
        },
    }


def service(container: Container) -> dict[str, Any]:
    """The Service, on the spec's port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(container, container.name),
        "spec": {
            "selector": labels(container),
            "ports": [{"name": "http", "port": container.port, "targetPort": "http"}],
        },
    }


def deployment(container: Container) -> dict[str, Any]:
    """The Deployment; without a number of replicas where something else keeps it."""
    alone = container.cluster.storage == "one"
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(container, container.name) | _noted(container),
        "spec": {
            **({} if container.scaling else {"replicas": container.replicas}),
            "strategy": {"type": "Recreate"} if alone else rolling,
            "progressDeadlineSeconds": container.startup_seconds + IMAGE_PULL,
            "selector": {"matchLabels": labels(container)},
            "template": {"metadata": {"labels": labels(container)}, "spec": pod(container)},
        },
    }


def _noted(container: Container) -> dict[str, Any]:
    """The annotations of a Deployment."""
    return {"annotations": said} if (said := notes(container)) else {}


def notes(container: Container) -> dict[str, str]:
    """What `import` reads back of the cluster and of scaling, which the objects say in other words."""
    asked = {"kubernetes": container.cluster.asked, "autoscale": container.scaling.asked if container.scaling else {}}
    said = {f"{NOTES}/{section}": json.dumps(dict(fields)) for section, fields in asked.items() if fields}
    if container.scaling and container.replicas > 1:  # which the Deployment does not say
        said[f"{NOTES}/replicas"] = str(container.replicas)
    return said


def pod(container: Container) -> dict[str, Any]:
    """The pod: the server, its storage and its time to finish."""
    volumes: list[dict[str, Any]] = []
    for number, mount in enumerate(container.mounts):
        if number == 0 and container.cluster.storage == "node":
            source: dict[str, Any] = {"hostPath": {"path": _absolute(mount.source), "type": "DirectoryOrCreate"}}
        elif number == 0:
            source = {"persistentVolumeClaim": {"claimName": f"{container.name}-data"}}
        else:
            source = _further(mount)
        volumes.append({"name": _volume_name(number), **source})
    volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _quantity(container.shm_size)}})
    return {
        "enableServiceLinks": False,
        **scaling.pod(container, labels(container)),
        "terminationGracePeriodSeconds": max(GRACE, _finishing(container) + GRACE - FINISHING),
        "containers": [_server(container)],
        "volumes": volumes,
    }


def _finishing(container: Container) -> int:
    """Seconds the launcher gives requests to end (--graceful-termination-timeout)."""
    given = container.args_env.get("GRACEFUL_TERMINATION_TIMEOUT", "")
    return int(given) if given.isdecimal() else FINISHING


def _further(mount: Mount) -> dict[str, Any]:
    """A folder of the node, or a claim of the volume's name, which has to be there already."""
    if mount.is_path:
        return {"hostPath": {"path": _absolute(mount.source), "type": "Directory"}}
    if re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", mount.source) is None:
        raise SpecError(
            f"{mount.source!r} cannot be the name of a PersistentVolumeClaim.",
            "Write container.mounts with a name of lower-case letters, digits and dashes, or a folder of the node.",
        )
    return {"persistentVolumeClaim": {"claimName": mount.source}}


def _server(container: Container) -> dict[str, Any]:
    server: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "args": [_literal(word) for word in container.args],
        "env": _environment(container),
        "ports": [{"name": "http", "containerPort": container.container_port}],
        "resources": _resources(container),
        "securityContext": _security(container),
        "volumeMounts": [
            *(
                {"name": _volume_name(number), "mountPath": mount.target}
                | ({"readOnly": True} if mount.read_only else {})
                for number, mount in enumerate(container.mounts)
            ),
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
        **_probes(container),
    }
    return {key: value for key, value in server.items() if value}


def _environment(container: Container) -> list[dict[str, Any]]:
    """Literal values, and the token by reference; the Secret is optional unless the model is gated."""
    variables: list[dict[str, Any]] = [{"name": name, "value": _literal(v)} for name, v in container.env.items()]
    for inside, caller in container.secret_env.items():
        reference = {"name": _secret(container), "key": caller, "optional": not container.token_needed}
        variables.append({"name": inside, "valueFrom": {"secretKeyRef": reference}})
    return variables


def _resources(container: Container) -> dict[str, Any]:
    """GPUs as a limit (the request follows), host memory as a request only: a limit would kill the server."""
    resources: dict[str, Any] = {}
    if container.host_memory_bytes:
        resources["requests"] = {"memory": _gi(container.host_memory_bytes)}
    if container.gpu_resource and container.gpu_count:
        resources["limits"] = {container.gpu_resource: container.gpu_count}
    return resources


def _security(container: Container) -> dict[str, Any]:
    context: dict[str, Any] = {}
    if container.privileged:
        context["privileged"] = True
    if container.cap_add:
        context["capabilities"] = {"add": list(container.cap_add)}
    if "seccomp=unconfined" in container.security_opt:
        context["seccompProfile"] = {"type": "Unconfined"}
    return context


def _probes(container: Container) -> dict[str, Any]:
    """The server refuses connections until warm-up is over, so nothing but the startup probe may ask till then."""
    health = {"httpGet": {"path": container.health, "port": "http"}, "timeoutSeconds": container.step_seconds}
    return {
        "startupProbe": {
            **health,
            "periodSeconds": PROBE_PERIOD,
            "failureThreshold": -(-container.startup_seconds // PROBE_PERIOD),
        },
        "readinessProbe": {**health, "periodSeconds": 10, "failureThreshold": 3},
        "livenessProbe": {**health, "periodSeconds": 30, "failureThreshold": 5},
    }


def _volume_name(number: int) -> str:
    """The first mount is the cache; further ones are model folders and what the spec adds."""
    return "data" if number == 0 else f"model-{number}"


def _literal(text: str) -> str:
    """`$$` is how Kubernetes writes `$` in arguments and values; `$(NAME)` would be replaced."""
    return text.replace("$", "$$")


def _absolute(folder: str) -> str:
    """The folder, which must be the same on every node; SpecError when it depends on where one stands."""
    if not folder.startswith("/"):
        raise SpecError(
            f"Kubernetes cannot mount the relative folder {folder!r}.",
            "Write model.id, container.mounts and, with kubernetes.storage node, container.cache with absolute paths.",
        )
    return folder


def _quantity(size: str) -> str:
    """A size in Docker's spelling as a Kubernetes quantity."""
    count = shm_bytes(size)
    return next((f"{count >> shift}{unit}" for shift, unit in ((30, "Gi"), (20, "Mi")) if count % (1 << shift) == 0),
                str(count))  # fmt: skip


def _gi(size: int) -> str:
    """Bytes as a Kubernetes quantity, rounded up to whole GiB."""
    return f"{-(-size // GiB)}Gi"


def shm_bytes(text: str) -> int:
    """Bytes of Docker's spelling of a size (`1g`, `512m`, `64GiB`): all its units are powers of 1024."""
    match = re.fullmatch(r"([0-9]+)\s*([bkmgt]?)(i?b)?", text.lower())
    if match is None:
        raise SpecError(f"container.shm_size {text!r} is not a size as Docker writes it.", "Write for example 1g.")
    return int(match[1]) << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2]]
