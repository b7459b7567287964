"""A Kubernetes API server on loopback for the tests of `launch --on kubernetes`, with the controllers it needs.

It answers the paths `launch` uses as a real one does: server-side apply with field managers and dry runs, lists and
watches with resource versions, access reviews, logs, port-forward over WebSocket. Every body it gets is checked against
Kubernetes' own published schemas. Behind it are a Deployment controller, a scheduler that counts GPUs, and a kubelet
that runs the pretend TGI of tests/launch_image as a process. (kmock, which was looked at, needs Python 3.11, stores any
JSON, and knows neither server-side apply nor port-forward.)
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
from referencing import Registry, Resource

from tgi_advisor.facts import flags, release

TOKEN = "not-a-real-token-of-a-cluster"
SCHEMAS = max(Path(kubernetes_validate.__file__).parent.glob("kubernetes-json-schema/v1.3[0-9].*-strict"))
"""Kubernetes' published OpenAPI as JSON schemas that take no unknown field, of the newest release the package has."""
HERE = Path(__file__).parent
PLATFORMS = HERE / "data" / "platforms"
CUSTOM = ("PodMonitor", "ScaledObject")
"""Kinds of operators, whose schemas are their own."""
KINDS = {
    "v1": {"persistentvolumeclaims": "PersistentVolumeClaim", "services": "Service", "pods": "Pod"},
    "apps/v1": {"deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "monitoring.coreos.com/v1": {"podmonitors": "PodMonitor"},
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject"},
}
"""What kubectl is told there is: resources and kinds by version."""
APPLY = "application/apply-patch+yaml"
Obj = dict[str, Any]


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


@cache
def definitions() -> Any:
    return Resource.from_contents(json.loads((SCHEMAS / "_definitions.json").read_text()))


@cache
def validator(version: str, kind: str) -> Any:
    """What checks bodies of a kind."""
    group, _, rest = version.rpartition("/")
    name = f"{kind.lower()}-{group.partition('.')[0]}{'-' if group else ''}{rest}.json"
    if kind == "DeleteOptions":
        name = "deleteoptions-meta-v1.json"
    if kind in CUSTOM:
        return jsonschema.Draft202012Validator(json.loads((PLATFORMS / f"{kind.lower()}.json").read_text())["schema"])
    schema = json.loads((SCHEMAS / name).read_text())
    registry: Any = definitions() @ Registry()
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ registry)


def discovered(path: str) -> Obj | None:
    """What a server says there is, to a client that asks for it before anything else; None for another path."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for version in KINDS:
            if "/" in version:
                both = {"groupVersion": version, "version": version.partition("/")[2]}
                groups.append({"name": version.partition("/")[0], "versions": [both], "preferredVersion": both})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in KINDS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
        for name, kind in KINDS[version].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


class RefusalError(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code, self.body = code, {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "details": details or {}, "code": code,
        }  # fmt: skip


@dataclass
class Fault:
    """What shall go wrong with requests that match."""

    method: str
    path: str
    """A regular expression, of path and query."""
    status: int = 0
    """Answered instead; 0: the connection is dropped."""
    times: int = 1
    """How often."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: int | None = None
    """Bytes (of a stream) let through before the connection is dropped."""
    delay: float = 0.0
    """Seconds the answer takes."""


class Manager(NamedTuple):
    """Who holds fields, and by which kind of request."""

    name: str
    operation: str = "Apply"
    subresource: str = ""


class Store:
    """Objects by their path, and everything that ever happened to them."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.objects: dict[str, Obj] = {}
        self.history: list[tuple[int, str, str, Obj]] = []
        self.version = 100
        self.oldest = 0
        self.managers: dict[str, dict[Manager, dict[tuple[str, ...], Any]]] = {}

    def put(self, path: str, obj: Obj) -> Obj:
        with self.lock:
            before = self.objects.get(path)
            obj = copy.deepcopy(obj)
            metadata = obj.setdefault("metadata", {})
            if before is not None and _without_version(before) == _without_version(obj):
                return before
            self.version += 1
            metadata["resourceVersion"] = str(self.version)
            metadata.setdefault("uid", f"uid-{self.version}")
            metadata.setdefault("creationTimestamp", now())
            if before is None:
                metadata["generation"] = 1
            elif before.get("spec") != obj.get("spec"):
                metadata["generation"] = before["metadata"].get("generation", 1) + 1
            self.objects[path] = obj
            self.history.append((self.version, path, "ADDED" if before is None else "MODIFIED", copy.deepcopy(obj)))
            self.lock.notify_all()
            return obj

    def change(self, path: str, change: Callable[[Obj], None]) -> None:
        with self.lock:
            if path in self.objects:
                obj = copy.deepcopy(self.objects[path])
                change(obj)
                self.put(path, obj)

    def remove(self, path: str) -> None:
        with self.lock:
            obj = self.objects.pop(path, None)
            self.managers.pop(path, None)
            if obj is not None:
                self.version += 1
                obj["metadata"]["resourceVersion"] = str(self.version)
                self.history.append((self.version, path, "DELETED", copy.deepcopy(obj)))
                self.lock.notify_all()

    def listed(self, collection: str, query: dict[str, str]) -> list[Obj]:
        pattern = _pattern(collection)
        with self.lock:
            return [copy.deepcopy(obj) for path, obj in sorted(self.objects.items())
                    if pattern.fullmatch(path) and _selected(obj, query)]  # fmt: skip


def _pattern(collection: str) -> re.Pattern[str]:
    """Paths of a collection's objects; of all namespaces where it names none."""
    if "/namespaces/" not in collection and re.fullmatch(r"/api/v1/pods", collection):
        return re.compile(r"/api/v1/namespaces/[^/]+/pods/[^/]+")
    return re.compile(re.escape(collection) + r"/[^/]+")


def _without_version(obj: Obj) -> Obj:
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    return {**obj, "metadata": metadata}


def _selected(obj: Obj, query: dict[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    for wanted in filter(None, query.get("labelSelector", "").split(",")):
        name, _, value = wanted.partition("=")
        if labels.get(name) != value:
            return False
    for wanted in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = wanted.partition("=")
        negated = name.endswith("!")
        found: Any = obj
        for part in name.rstrip("!").split("."):
            found = (found or {}).get(part)
        if (str(found) == value) is negated:
            return False
    return True


# -- server-side apply


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaf fields of an object; lists of named things by their names, others as one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        for one in value:
            yield from leaves(one, (*at, f"[name={one['name']}]"))
    else:
        yield at, value


def setting(obj: Any, at: tuple[str, ...], value: Any) -> None:
    """Set one leaf, making what leads to it."""
    for index, part in enumerate(at):
        last = index == len(at) - 1
        if part.startswith("[name="):
            found = next((one for one in obj if one["name"] == part[6:-1]), None)
            if found is None:
                obj.append(found := {"name": part[6:-1]})
            if last:
                return
            obj = found
        elif last:
            obj[part] = copy.deepcopy(value)
        else:
            following: Any = [] if at[index + 1].startswith("[name=") else {}
            obj = obj.setdefault(part, following)


def fields_v1(held: dict[tuple[str, ...], Any]) -> Obj:
    """What a manager holds, as `metadata.managedFields` writes it."""
    made: Obj = {}
    for at in held:
        one = made
        for part in at:
            name = f"k:{json.dumps({'name': part[6:-1]})}" if part.startswith("[name=") else f"f:{part}"
            one = one.setdefault(name, {".": {}, "f:name": {}} if part.startswith("[name=") else {})
    return made


def managed(obj: Obj, managers: dict[Manager, dict[tuple[str, ...], Any]]) -> list[Obj]:
    """The rows of `metadata.managedFields`."""
    return [
        {"manager": who.name, "operation": who.operation, "apiVersion": obj["apiVersion"], "fieldsType": "FieldsV1",
         "fieldsV1": fields_v1(held)} | ({"subresource": who.subresource} if who.subresource else {})
        for who, held in managers.items() if held
    ]  # fmt: skip


def stated(obj: Obj) -> dict[tuple[str, ...], Any]:
    """The leaf fields of an object that managers hold; its name is nobody's."""
    free = {("metadata", name) for name in ("name", "namespace", "uid", "creationTimestamp", "resourceVersion",
                                            "generation", "managedFields")}  # fmt: skip
    return {at: value for at, value in leaves(obj) if at[0] in ("metadata", "spec") and at[:2] not in free}


def unsetting(obj: Any, at: tuple[str, ...]) -> None:
    """Remove one leaf, and what is empty without it."""
    part, rest = at[0], at[1:]
    if part[0] == "[":
        inner = next((one for one in obj if one.get("name") == part[6:-1]), None)
        if inner is not None and rest != ("name",):
            unsetting(inner, rest)
        if inner is not None and (rest == ("name",) or not inner.keys() - {"name"}):
            obj.remove(inner)
    elif not rest:
        obj.pop(part, None)
    elif part in obj:
        unsetting(obj[part], rest)
        if obj[part] in ({}, []):
            del obj[part]


class Authority:
    """A certificate authority in a folder, with certificates of a server on loopback and of a client."""

    def __init__(self, folder: Path, program: str) -> None:
        """`program` is openssl."""
        self.folder, self.certificate = folder, folder / "ca.pem"
        (folder / "config").write_text(
            "[req]\ndistinguished_name=name\n[name]\n[ca]\nbasicConstraints=critical,CA:TRUE\n"
            "keyUsage=critical,keyCertSign\n[leaf]\nbasicConstraints=critical,CA:FALSE\n"
            "subjectAltName=IP:127.0.0.1\nkeyUsage=critical,digitalSignature\n"
        )
        for name, kind in (("ca", "ca"), ("server", "leaf"), ("client", "leaf")):
            signed = [] if kind == "ca" else ["-CA", str(self.certificate), "-CAkey", str(folder / "ca.key")]
            subprocess.run(
                [program, "req", "-x509", "-config", str(folder / "config"), "-extensions", kind, *signed, "-nodes",
                 "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}", "-days", "2",
                 "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")],
                check=True, capture_output=True,
            )  # fmt: skip


class ApiServer(ThreadingHTTPServer):
    """The API server, its controllers and its nodes."""

    daemon_threads = True

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.authority = authority
        self.tokens = {TOKEN}
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.folder / "server.pem", authority.folder / "server.key")
            context.load_verify_locations(authority.certificate)
            context.verify_mode = ssl.CERT_OPTIONAL
            # whoever answers shakes hands, not the thread that all wait for
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.folder, self.store = folder, Store()
        self.faults: list[Fault] = []
        self.denied: set[tuple[str, str]] = set()
        self.requests: list[tuple[str, str, str]] = []
        self.bodies: list[Obj] = []
        self.secrets_read: list[str] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.watch_seconds = 60.0
        self.open = False  # to kubectl, which sends no token without TLS
        self.kubelet = Kubelet(self)
        self.started = threading.Event()
        """Whether a container has been started."""
        self.closing = threading.Event()
        known = {flag.name: flag.type for flag in flags.flags_of(release.find("3.3.7")).values()}
        (folder / "flags.json").write_text(json.dumps(known))
        (folder / "logs").symlink_to(HERE / "launch_image" / "logs")
        for namespace in ("default", "team"):
            self.add(f"/api/v1/namespaces/{namespace}", "v1", "Namespace", status={"phase": "Active"})
        self.add("/api/v1/namespaces/default/serviceaccounts/default", "v1", "ServiceAccount")
        self.add("/apis/storage.k8s.io/v1/storageclasses/standard", "storage.k8s.io/v1", "StorageClass",
                 annotations={"storageclass.kubernetes.io/is-default-class": "true"})  # fmt: skip
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.serve, self.control)]
        for thread in self.threads:
            thread.start()

    def serve(self) -> None:
        """Until `shutdown`, which would wait half a second by itself."""
        self.serve_forever(poll_interval=0.02)

    @property
    def url(self) -> str:
        return f"{'http' if self.authority is None else 'https'}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """Connections break in these tests."""

    def kubeconfig(self) -> Path:
        path = self.folder / "config"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "loop",
            "clusters": [{"name": "loop", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
            "contexts": [
                {"name": "loop", "context": {"cluster": "loop", "user": "me"}},
                {"name": "team", "context": {"cluster": "loop", "user": "me", "namespace": "team"}},
            ],
        }))  # fmt: skip
        return path

    def add(self, path: str, version: str, kind: str, *, annotations: Obj | None = None, labels: Obj | None = None,
            **rest: Any) -> None:  # fmt: skip
        metadata: Obj = {"name": path.rpartition("/")[2]}
        if match := re.search(r"/namespaces/([^/]+)/", path):
            metadata["namespace"] = match[1]
        metadata |= {k: v for k, v in (("annotations", annotations), ("labels", labels)) if v}
        self.store.put(path, {"apiVersion": version, "kind": kind, "metadata": metadata, **rest})

    def node(
        self, name: str, gpus: int, memory_mib: int | None = 24576, taints: list[Obj] | None = None,
        resource: str = "nvidia.com/gpu",
    ) -> None:  # fmt: skip
        labels = {"nvidia.com/gpu.memory": str(memory_mib)} if memory_mib else {}
        self.add(f"/api/v1/nodes/{name}", "v1", "Node", labels=labels, spec={"taints": taints or []},
                 status={"allocatable": {resource: str(gpus), "memory": "256Gi"},
                         "conditions": [{"type": "Ready", "status": "True"}]})  # fmt: skip

    def close(self) -> None:
        self.closing.set()
        with self.store.lock:
            self.store.lock.notify_all()
        self.shutdown()
        self.server_close()
        self.kubelet.close()

    def of_kind(self, kind: str) -> list[Obj]:
        with self.store.lock:
            return [copy.deepcopy(obj) for obj in self.store.objects.values() if obj["kind"] == kind]

    def updated(self, path: str, made: Obj, manager: Manager) -> Obj:
        """An object written as a whole: what is another than before is held by the writer alone."""
        with self.store.lock:
            before, after = stated(self.store.objects[path]), stated(made)
            managers = self.store.managers.setdefault(path, {})
            changed = {at: value for at, value in after.items() if at not in before or before[at] != value}
            for held in managers.values():
                for at in [at for at in held if at in changed or at not in after]:
                    del held[at]
            managers.setdefault(manager, {}).update(changed)
            made["metadata"]["managedFields"] = managed(made, managers)
            return self.store.put(path, made)

    def scale(self, path: str, replicas: int, manager: str = "kube-controller-manager") -> None:
        """Write the number of replicas, as an autoscaler does."""
        with self.store.lock:
            obj = copy.deepcopy(self.store.objects[path])
            obj["spec"]["replicas"] = replicas
            self.updated(path, obj, Manager(manager, "Update", "scale"))

    def remove_all(self, namespace: str) -> None:
        """A namespace with all that is in it."""
        for path, obj in list(self.store.objects.items()):
            if path.startswith(f"{namespace}/") or f"/namespaces/{namespace.rpartition('/')[2]}/" in path:
                if obj["kind"] == "Pod":
                    self.kubelet.delete(path, 0)
                else:
                    self.store.remove(path)
        self.store.remove(namespace)

    # -- controllers

    def control(self) -> None:
        with self.noted():
            while not self.closing.wait(0.05):
                with self.store.lock:
                    for path, obj in list(self.store.objects.items()):
                        if obj["kind"] == "Deployment":
                            self.deployment(path, copy.deepcopy(obj))
                    for path, obj in list(self.store.objects.items()):
                        if obj["kind"] == "Pod" and "owner" in obj["metadata"]:
                            self.kubelet.look_after(path, copy.deepcopy(obj))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What a thread of this server fails with is a problem of the test."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self.problems.append(f"{type(error).__name__}: {error}")

    def deployment(self, path: str, obj: Obj) -> None:
        """One round of the Deployment controller: new pods first, old ones when the new are ready."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        pods = f"/api/v1/namespaces/{namespace}/pods"
        mine = [one for one in self.store.listed(pods, {}) if one["metadata"].get("owner") == obj["metadata"]["uid"]]
        if obj["metadata"].get("deletionTimestamp"):
            for pod in mine:
                self.kubelet.delete(f"{pods}/{pod['metadata']['name']}")
            if not mine:
                self.store.remove(path)
            return
        template = obj["spec"]["template"]
        key = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
        alive = [pod for pod in mine if not pod["metadata"].get("deletionTimestamp")]
        new = [pod for pod in alive if pod["metadata"]["labels"]["pod-template-hash"] == key]
        old = [pod for pod in alive if pod not in new]
        wanted = obj["spec"].get("replicas", 1)
        conditions: list[Obj] = []
        if len(new) < wanted:
            refusal = self.kubelet.refuses or self.over_quota(namespace, len(alive))
            if refusal:
                conditions.append({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                                   "message": refusal})  # fmt: skip
            else:
                self.store.version += 1
                made = f"{name}-{key}-{self.store.version}"
                labels = {**template["metadata"]["labels"], "pod-template-hash": key}
                self.store.put(f"{pods}/{made}", {
                    "apiVersion": "v1", "kind": "Pod", "spec": copy.deepcopy(template["spec"]),
                    "metadata": {"name": made, "namespace": namespace, "labels": labels,
                                 "owner": obj["metadata"]["uid"]},
                    "status": {"phase": "Pending"},
                })  # fmt: skip
        ready = [pod for pod in new if is_ready(pod)]
        if len(ready) >= wanted:
            for pod in old:
                self.kubelet.delete(f"{pods}/{pod['metadata']['name']}")
        status = {
            "observedGeneration": obj["metadata"]["generation"], "replicas": len(alive), "updatedReplicas": len(new),
            "readyReplicas": sum(map(is_ready, alive)), "availableReplicas": sum(map(is_ready, alive)),
            "conditions": conditions,
        }  # fmt: skip
        self.store.put(path, {**obj, "status": status})

    def over_quota(self, namespace: str, pods: int) -> str:
        """What a quota says that lets no further pod be made; empty where all do."""
        for quota in self.store.listed(f"/api/v1/namespaces/{namespace}/resourcequotas", {}):
            if "pods" in quota["spec"].get("hard", {}) and pods >= int(quota["spec"]["hard"]["pods"]):
                return f'pods "llama-1" is forbidden: exceeded quota: {quota["metadata"]["name"]}'
        return ""


def is_ready(pod: Obj) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


class Kubelet:
    """Schedules pods and runs them."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.pods: dict[str, Run] = {}
        self.refuses = ""
        """What admission says to every pod."""
        self.pull_error = ""
        """What the registry says."""
        self.mount_error = ""
        """Why the volume is not there."""
        self.probe_kills = False
        """Whether the start-up probe gives up as soon as the server runs."""
        self.oom_kills = False
        """Whether the kernel kills it for want of memory."""
        self.slow_pull = 0.0

    def look_after(self, path: str, pod: Obj) -> None:
        if path in self.pods:
            self.pods[path].look()
            return
        if pod["metadata"].get("deletionTimestamp"):
            self.server.store.remove(path)
            return
        node = self.node_for(pod)
        if node is None:
            nodes = self.server.of_kind("Node")
            message = (
                f"0/{len(nodes)} nodes are available: {len(nodes)} Insufficient nvidia.com/gpu. preemption: "
                f"0/{len(nodes)} nodes are available: {len(nodes)} No preemption victims found for incoming pod."
            )
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            self.server.store.put(path, {**pod, "status": {"phase": "Pending", "conditions": [condition]}})
            return
        pod["spec"]["nodeName"] = node
        self.server.store.put(path, {**pod, "status": {"phase": "Pending"}})
        self.pods[path] = Run(self, path, pod)

    def node_for(self, pod: Obj) -> str | None:
        wanted = gpus(pod)
        nodes = self.server.of_kind("Node")
        if not wanted:
            return "plain"
        held: Counter[tuple[str, str]] = Counter()
        for other in self.server.of_kind("Pod"):
            if node := other["spec"].get("nodeName"):
                held.update({(node, resource): count for resource, count in gpus(other).items()})
        for node in nodes:
            name, has = node["metadata"]["name"], node["status"]["allocatable"]
            if all(int(has.get(what, 0)) - held[name, what] >= count for what, count in wanted.items()):
                return str(name)
        return None

    def event(self, pod: Obj, reason: str, message: str) -> None:
        self.server.store.version += 1
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        self.server.add(
            f"/api/v1/namespaces/{namespace}/events/{name}.{self.server.store.version}", "v1", "Event", reason=reason,
            message=message, involvedObject={"kind": "Pod", "name": name}, lastTimestamp=now(),
        )  # fmt: skip

    def delete(self, path: str, grace: int | None = None) -> None:
        """Mark a pod, and end it."""
        pod = self.server.store.objects.get(path)
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            return
        self.server.store.change(path, lambda one: one["metadata"].update(deletionTimestamp=now()))
        if path in self.pods:
            threading.Thread(target=self.pods[path].end, args=(grace,), daemon=True).start()

    def close(self) -> None:
        for run in list(self.pods.values()):
            run.kill()


def gpus(pod: Obj) -> Counter[str]:
    """What a pod asks for of resources that a node counts, such as nvidia.com/gpu."""
    found: Counter[str] = Counter()
    for container in pod["spec"]["containers"]:
        limits = container.get("resources", {}).get("limits", {})
        found.update({name: int(amount) for name, amount in limits.items() if "/" in name})
    return found


class Run:
    """One pod on its node: the image is pulled, the process runs, its end is told, and it is started once more."""

    def __init__(self, kubelet: Kubelet, path: str, pod: Obj) -> None:
        self.kubelet, self.path, self.pod = kubelet, path, pod
        self.store = kubelet.server.store
        self.container = pod["spec"]["containers"][0]
        self.logs: list[list[bytes]] = [[]]
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.terminated: Obj | None = None
        with socket.socket() as test:
            test.bind(("127.0.0.1", 0))
            self.port: int = test.getsockname()[1]
        self.ended = False
        threading.Thread(target=self.run, daemon=True).start()

    def look(self) -> None:
        """Removed when its process is gone."""
        if self.ended:
            self.store.remove(self.path)
            self.kubelet.pods.pop(self.path, None)

    def status(self, state: Obj, *, ready: bool = False, phase: str = "Running", last: Obj | None = None) -> None:
        status = {
            "name": self.container["name"], "image": self.container["image"], "restartCount": self.restarts,
            "state": state, "lastState": {"terminated": last} if last else {}, "ready": ready,
        }  # fmt: skip
        conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
        whole = {"phase": phase, "conditions": conditions, "containerStatuses": [status]}
        self.store.change(self.path, lambda pod: pod.update(status=whole))

    def run(self) -> None:
        kubelet = self.kubelet
        self.status({"waiting": {"reason": "ContainerCreating"}}, phase="Pending")
        while kubelet.mount_error and not self.ended:
            kubelet.event(self.pod, "FailedMount", kubelet.mount_error)
            time.sleep(0.3)
        kubelet.event(self.pod, "Pulling", f'Pulling image "{self.container["image"]}"')
        time.sleep(kubelet.slow_pull)
        image = self.container["image"]
        if pull_error := kubelet.pull_error or (f'failed to pull: "{image}": not found' if "/none/" in image else ""):
            for reason in ("ErrImagePull", "ImagePullBackOff"):
                self.status({"waiting": {"reason": reason, "message": pull_error}}, phase="Pending")
                time.sleep(0.3)
            return
        for variable in self.container.get("env", ()):
            wanted = variable.get("valueFrom", {}).get("secretKeyRef")
            secret = f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/secrets/{wanted and wanted['name']}"
            if wanted and not wanted["optional"] and secret not in self.store.objects:
                message = f'secret "{wanted["name"]}" not found'
                self.status({"waiting": {"reason": "CreateContainerConfigError", "message": message}}, phase="Pending")
                return
        kubelet.event(self.pod, "Pulled", f'Successfully pulled image "{self.container["image"]}" in 2s')
        while not self.ended and self.restarts < 2:
            self.once()

    def once(self) -> None:
        env = {"PATH": os.environ["PATH"], "PORT": str(self.port), "PRETEND_RELEASE": "3.3.7",
               "PRETEND_ROOT": str(self.kubelet.server.folder)}  # fmt: skip
        for variable in self.container.get("env", ()):
            if "value" in variable:
                env[variable["name"]] = variable["value"].replace("$$", "$")
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                path = f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/secrets/{reference['name']}"
                data = self.store.objects.get(path, {}).get("data", {})
                if reference["key"] in data:
                    env[variable["name"]] = base64.b64decode(data[reference["key"]]).decode()
        args = [word.replace("$$", "$") for word in self.container.get("args", ())]
        began = now()
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(HERE / "launch_image" / "pretend_tgi.py"), *args],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
        )  # fmt: skip
        self.kubelet.server.started.set()
        last, self.terminated = self.terminated, None
        self.status({"running": {"startedAt": began}}, last=last)
        reader = threading.Thread(target=self.read, args=(self.process, self.logs[-1]), daemon=True)
        reader.start()
        ready = False
        killed = ""
        while self.process.poll() is None:
            time.sleep(0.05)
            if self.kubelet.probe_kills and not killed:
                killed = "Container tgi failed startup probe, will be restarted"
                self.kubelet.event(self.pod, "Unhealthy", "Startup probe failed: connection refused")
                self.kubelet.event(self.pod, "Killing", killed)
                self.process.kill()
            if self.kubelet.oom_kills and len(self.logs[-1]) > 3:
                self.process.kill()
            if not ready and not self.ended:
                with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                    ready = True
                    self.status({"running": {"startedAt": began}}, ready=True, last=last)
        reader.join(5)
        code = self.process.returncode
        self.terminated = {
            "exitCode": code if code >= 0 else 128 - code, "startedAt": began, "finishedAt": now(),
            "reason": "OOMKilled" if self.kubelet.oom_kills else "Error" if code else "Completed",
        }  # fmt: skip
        self.status({"terminated": self.terminated}, last=last)
        time.sleep(0.3)
        if not self.ended:
            self.restarts += 1
            waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
            self.status(waiting, last=self.terminated)
            time.sleep(0.5)
            self.logs.append([])

    def read(self, process: subprocess.Popen[bytes], lines: list[bytes]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                with self.store.lock:
                    lines.append(stamp().encode() + b" " + line.rstrip(b"\n") + b"\n")
                    self.store.lock.notify_all()

    def end(self, grace: int | None) -> None:
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5 if grace is None else grace)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self.ended = True

    def kill(self) -> None:
        self.ended = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)


class Answers(BaseHTTPRequestHandler):
    """The HTTP side."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """What is sent in two pieces would wait 40 ms for the other side between them."""
    server: ApiServer

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def answer(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        body: Any = None
        if length := int(self.headers.get("Content-Length") or 0):
            body = json.loads(self.rfile.read(length))
        self.server.requests.append((self.command, self.path, self.headers.get("Content-Type", "")))
        self.limit: int | None = None
        for fault in list(self.server.faults):
            if fault.method == self.command and re.search(fault.path, self.path) and fault.times > 0:
                fault.times -= 1
                time.sleep(fault.delay)
                if fault.after is not None:
                    self.limit = fault.after
                    break
                if fault.delay and not fault.status:
                    break
                if not fault.status:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                data = (
                    fault.body
                    or json.dumps(RefusalError(fault.status, "Injected", f"the test says {fault.status}").body).encode()
                )
                self.send(fault.status, data, fault.headers)
                return
        try:
            if not self.known():
                raise RefusalError(401, "Unauthorized", "Unauthorized")
            self.route(parts.path, query, body)
        except RefusalError as refusal:
            self.send(refusal.code, json.dumps(refusal.body).encode())

    def known(self) -> bool:
        """Whether somebody asks who may: by a token, or a certificate of the authority."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        return self.server.open or bool(certificate) or (scheme.lower() == "bearer" and token in self.server.tokens)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def ok(self, obj: Obj, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(obj).encode(), headers)

    # -- routes

    def route(self, path: str, query: dict[str, str], body: Any) -> None:
        if path == "/version":
            self.ok({"major": "1", "minor": "35", "gitVersion": "v1.35.2", "platform": "linux/amd64"})
            return
        if (found := discovered(path)) is not None:
            self.ok(found)
            return
        if body is not None:
            self.check(path, body)
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            sub = f"/{asked['subresource']}" if "subresource" in asked else ""
            allowed = (asked["verb"], asked["resource"] + sub) not in self.server.denied
            self.ok({**body, "status": {"allowed": allowed}}, 201)
            return
        match = re.fullmatch(
            r"(?P<collection>/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+(?=/))?/(?P<resource>[a-z]+))"
            r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?", path,
        )  # fmt: skip
        if match is None:
            raise RefusalError(404, "NotFound", "the server could not find the requested resource")
        collection, name, sub, resource = match["collection"], match["name"], match["sub"], match["resource"]
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "PUT": "update",
                "DELETE": "delete"}[self.command]  # fmt: skip
        what = resource + (f"/{sub}" if sub else "")
        if (verb, what) in self.server.denied:
            raise RefusalError(403, "Forbidden", f'{what} is forbidden: User "me" cannot {verb} resource "{what}"')
        if sub == "log":
            self.log(f"{collection}/{name}", query)
        elif sub == "portforward":
            self.forward(f"{collection}/{name}", int(query["ports"]))
        elif name is None and verb == "create":
            self.ok(self.create(f"{collection}/{body['metadata']['name']}", body), 201)
        elif name is None and query.get("watch") == "true":
            self.watch(collection, query)
        elif name is None:
            items = self.server.store.listed(collection, query)
            for one in items:  # as a real server does
                one.pop("kind"), one.pop("apiVersion")
            self.ok({"kind": "List", "apiVersion": "v1", "items": items,
                     "metadata": {"resourceVersion": str(self.server.store.version)}})  # fmt: skip
        else:
            self.object(f"{collection}/{name}", resource, name, query, body)

    def check(self, path: str, body: Obj) -> None:
        """The body against the published schema, unknown fields refused."""
        self.server.bodies.append(body)
        if self.command == "PATCH" and self.headers.get("Content-Type") != APPLY:
            self.server.problems.append(f"{path}: patched with {self.headers.get('Content-Type')}")
        kind = body.get("kind", "DeleteOptions" if self.command == "DELETE" else "")
        for error in validator(body.get("apiVersion", "v1"), kind).iter_errors(body):
            if error.validator == "required" and path in self.server.store.objects:
                continue  # an applied body is merged with what is there
            self.server.problems.append(f"{self.command} {path}: {error.message} at {list(error.path)}")
            raise RefusalError(400, "BadRequest", f"strict decoding error: {error.message}")

    def object(self, path: str, resource: str, name: str, query: dict[str, str], body: Any) -> None:
        store = self.server.store
        with store.lock:
            obj = store.objects.get(path)
            if self.command == "PATCH":
                namespace = re.search(r"/namespaces/([^/]+)/", path)
                if namespace and f"/api/v1/namespaces/{namespace[1]}" not in store.objects:
                    raise RefusalError(404, "NotFound", f'namespaces "{namespace[1]}" not found')
                warned = {"Warning": f'299 - "{self.server.warnings[0]}"'} if self.server.warnings else {}
                self.ok(self.apply(path, obj, query, body), 200 if obj else 201, warned)
                return
            if obj is None:
                raise RefusalError(404, "NotFound", f'{resource} "{name}" not found')
            if self.command == "GET":
                if "PartialObjectMetadata" in self.headers.get("Accept", ""):
                    obj = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
                elif resource == "secrets":
                    self.server.secrets_read.append(name)
                self.ok(obj)
            elif self.command == "PUT":
                if body["metadata"].get("resourceVersion") != obj["metadata"]["resourceVersion"]:
                    raise RefusalError(409, "Conflict", "the object has been modified; apply your changes again")
                kept = {key: obj["metadata"][key] for key in ("uid", "creationTimestamp", "generation")}
                made = {**body, "metadata": {**body["metadata"], **kept}, "status": obj.get("status", {})}
                self.ok(self.server.updated(path, made, Manager(query.get("fieldManager", "unknown"), "Update")))
            elif self.command == "DELETE":
                if resource == "pods":
                    self.server.kubelet.delete(path, (body or {}).get("gracePeriodSeconds"))
                elif resource == "deployments":
                    store.change(path, lambda one: one["metadata"].update(deletionTimestamp=now()))
                elif resource == "namespaces":
                    self.server.remove_all(path)
                else:
                    store.remove(path)
                self.ok(obj)

    def create(self, path: str, body: Obj) -> Obj:
        """A new object of somebody's."""
        name = body["metadata"]["name"]
        if path in self.server.store.objects:
            raise RefusalError(409, "AlreadyExists", f'"{name}" already exists')
        made = copy.deepcopy(body)
        if made["kind"] == "ResourceQuota":
            made["status"] = {"hard": made["spec"]["hard"], "used": self.used(path, made["spec"]["hard"])}
        if namespace := re.search(r"/namespaces/([^/]+)/", path):
            made["metadata"]["namespace"] = namespace[1]
        else:
            self.server.add(f"{path}/serviceaccounts/default", "v1", "ServiceAccount")
        return self.server.store.put(path, made)

    def used(self, path: str, hard: Obj) -> dict[str, str]:
        """What of a quota's resources the pods of its namespace hold already."""
        pods = self.server.store.listed(f"{path.partition('/resourcequotas/')[0]}/pods", {})
        held = sum(map(gpus, pods), Counter[str]())
        return {name: str(held[name.removeprefix("requests.")]) for name in hard}

    def apply(self, path: str, obj: Obj | None, query: dict[str, str], body: Obj) -> Obj:
        """Server-side apply: what others hold with another value is a conflict, what is not given any more goes."""
        store = self.server.store
        manager = Manager(query["fieldManager"])
        managers = copy.deepcopy(store.managers.get(path, {}))
        given = stated(body)
        now = stated(obj) if obj else {}
        causes = []
        for other, held in managers.items():
            through = f' with subresource "{other.subresource}"' if other.subresource else ""
            for at in [at for at in held if other != manager and at in given and given[at] != now.get(at)]:
                causes.append({
                    "reason": "FieldManagerConflict", "field": "." + ".".join(at),
                    "message": f'conflict with "{other.name}"{through} using {body["apiVersion"]}',
                })  # fmt: skip
                del held[at]  # to whoever forces it
        if causes and query.get("force") != "true":
            raise RefusalError(409, "Conflict", f"Apply failed with {len(causes)} conflict", {"causes": causes})
        made = copy.deepcopy(obj) if obj else {k: body[k] for k in ("apiVersion", "kind")} | {"metadata": {}}
        for at in managers.get(manager, {}):
            if at not in given and not any(at in held for other, held in managers.items() if other != manager):
                unsetting(made, at)
        for at, value in given.items():
            setting(made, at, value)
        made["metadata"]["name"] = path.rpartition("/")[2]
        if namespace := re.search(r"/namespaces/([^/]+)/", path):
            made["metadata"]["namespace"] = namespace[1]
        if made["kind"] == "Deployment":
            made["spec"].setdefault("replicas", 1)
        managers[manager] = given
        made["metadata"]["managedFields"] = managed(made, managers)
        if query.get("dryRun") == "All":
            return made
        store.managers[path] = managers
        return store.put(path, made)

    # -- streams

    def chunk(self, data: bytes) -> None:
        cut = self.limit is not None and len(data) >= self.limit
        if self.limit is not None:
            data, self.limit = data[: self.limit], self.limit - len(data)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()
        if cut:
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionError

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def watch(self, collection: str, query: dict[str, str]) -> None:
        store, pattern, version = self.server.store, _pattern(collection), int(query["resourceVersion"])
        if version < store.oldest:
            raise RefusalError(410, "Expired", f"too old resource version: {version} ({store.oldest})")
        self.begin()
        end = time.monotonic() + min(float(query["timeoutSeconds"]), self.server.watch_seconds)
        while time.monotonic() < end and not self.server.closing.is_set():
            with store.lock:
                if version < store.oldest:
                    gone = RefusalError(410, "Expired", f"too old resource version: {version}").body
                    news = [("ERROR", gone)]
                    end = 0.0
                else:
                    latest = takewhile(lambda row: row[0] > version, reversed(store.history))  # noqa: B023
                    news = [(kind, obj) for _, path, kind, obj in reversed([*latest])
                            if pattern.fullmatch(path) and _selected(obj, query)]  # fmt: skip
                    version = store.version
                if not news:
                    store.lock.wait(0.1)
            for kind, obj in news:
                self.chunk(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
        self.wfile.write(b"0\r\n\r\n")

    def log(self, path: str, query: dict[str, str]) -> None:
        run = self.server.kubelet.pods.get(path)
        if path not in self.server.store.objects:
            raise RefusalError(404, "NotFound", f'pods "{path.rpartition("/")[2]}" not found')
        if run is None or run.process is None:
            raise RefusalError(400, "BadRequest", "container is waiting to start: ContainerCreating")
        which = len(run.logs) - (2 if query.get("previous") == "true" and run.restarts and not run.logs[-1] else 1)
        lines, process = run.logs[max(0, which)], run.process
        self.begin()
        since = query.get("sinceTime", "")[:19].encode()
        sent = 0
        while not self.server.closing.is_set():
            with self.server.store.lock:
                more = lines[sent:]
                over = query.get("follow") != "true" or (process.poll() is not None and not more)
                if not more and not over:
                    self.server.store.lock.wait(0.1)
            for line in more:
                if line[:19] >= since:
                    self.chunk(line)
            sent += len(more)
            if over:
                break
        self.wfile.write(b"0\r\n\r\n")

    def forward(self, path: str, port: int) -> None:
        """A WebSocket with the channels of v4.channel.k8s.io (RFC 6455 by hand)."""
        run = self.server.kubelet.pods.get(path)
        if run is None or run.process is None:
            raise RefusalError(404, "NotFound", f'pods "{path.rpartition("/")[2]}" not found')
        if "v4.channel.k8s.io" not in self.headers.get("Sec-WebSocket-Protocol", "") or port != 80:
            raise RefusalError(400, "BadRequest", "no such protocol or port")
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.close_connection = True
        number = struct.pack("<H", port)
        for channel in (b"\0", b"\1"):
            self.frame(channel + number)
        try:
            pod = socket.create_connection(("127.0.0.1", run.port), 2)
        except OSError as error:
            self.frame(b"\1" + str(error).encode())
            return
        threading.Thread(target=self.from_pod, args=(pod,), daemon=True).start()
        with suppress(OSError, ValueError), pod:
            while (data := self.unframed()) is not None:
                if data[:1] == b"\0":
                    pod.sendall(data[1:])

    def from_pod(self, pod: socket.socket) -> None:
        with suppress(OSError, ValueError):  # ValueError: the other direction has ended and closed its file
            while data := pod.recv(65536):
                self.frame(b"\0" + data)
            self.wfile.write(b"\x88\x00")
            self.connection.shutdown(socket.SHUT_WR)

    def frame(self, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        if len(data) > 65535:
            size = b"\x7f" + struct.pack(">Q", len(data))
        self.wfile.write(b"\x82" + size + data)
        self.wfile.flush()

    def unframed(self) -> bytes | None:
        """The next binary frame; None at the end."""
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return None
            size = head[1] & 127
            if size == 126:
                (size,) = struct.unpack(">H", self.rfile.read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.rfile.read(8))
            mask, data = self.rfile.read(4), self.rfile.read(size)
            if head[0] & 15 == 8:
                return None
            if head[0] & 15 == 2:
                return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


@contextmanager
def running(folder: Path, authority: Authority | None = None) -> Iterator[ApiServer]:
    """A cluster for as long as this lasts; with an authority over TLS."""
    server = ApiServer(folder, authority)
    try:
        yield server
    finally:
        server.close()


def main() -> None:
    """A cluster in the folder named, until standard input ends.

    Its kubeconfig is printed, and for each line of standard input what it has to complain of since the one before.
    """
    with running(Path(sys.argv[1])) as server:
        server.node("gpus", 4)
        server.node("others", 4, memory_mib=None, resource="amd.com/gpu")
        sys.stdout.write(f"{server.kubeconfig()}\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            json.dump({"problems": server.problems, "secrets_read": server.secrets_read}, sys.stdout)
            sys.stdout.write("\n")
            sys.stdout.flush()
            server.problems, server.secrets_read = [], []


if __name__ == "__main__":
    main()
