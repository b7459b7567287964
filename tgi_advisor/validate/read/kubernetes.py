"""Kubernetes manifests: anything with a pod in it, with the ConfigMaps, Secrets and Services of the same file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf

from tgi_advisor.container import PLATFORMS
from tgi_advisor.errors import Place
from tgi_advisor.facts.gpu import instance_type
from tgi_advisor.plan import INSTANCE_TYPE
from tgi_advisor.validate.found import NO_GPUS, UNSAID, Defect, Gpus, Hint, Mount, Port, Probe, Server, Value
from tgi_advisor.validate.read.docker import runtime_gpus
from tgi_advisor.validate.read.environment import Environment
from tgi_advisor.validate.read.launcher import is_ours, launch_of
from tgi_advisor.validate.read.neighbours import Neighbours
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar, walk
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.waits import waits_of
from tgi_advisor.validate.read.words import PLAIN, Found, interpolate_kubernetes, lex
from tgi_advisor.validate.read.world import World

GPU_RESOURCES = {
    "nvidia.com/": "nvidia", "amd.com/gpu": "amd", "gpu.intel.com/": "intel", "habana.ai/": "habana",
    "aws.amazon.com/neuron": "neuron", "google.com/tpu": "tpu",
}  # fmt: skip
"""Extended resources that stand for accelerators, by how they begin, and whose they are."""
_NOT_GPUS = ("nvidia.com/gpumem", "nvidia.com/gpucores", "nvidia.com/gpu.memory")
_GPU_LABELS = re.compile(
    r"gke-accelerator|gpu\.product|gpu-name|accelerator$|gpu[._-]?(?:type|model|product)|/accelerator|gpu-class",
    re.IGNORECASE,
)
_INSTANCE_LABELS = re.compile(r"instance-type$|/instance-?type|machine-type$", re.IGNORECASE)
_SELECTED = frozenset(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"))
_ASIDE = frozenset(("initContainers", "ephemeralContainers"))


def is_kubernetes(root: Map) -> bool:
    """Whether a document is a Kubernetes object."""
    return root.get("kind") is not None and root.get("apiVersion") is not None


def read_kubernetes(roots: Sequence[Map], world: World | None = None) -> tuple[list[Server], list[Defect], list[Map]]:
    """Every TGI server in the pods of these objects, the defects, and the objects that hold no pod."""
    objects = list(_objects(roots))
    cluster = _Cluster(objects, world)
    servers: list[Server] = []
    defects: list[Defect] = []
    others: list[Map] = []
    for item in objects:
        found = cluster.servers(item)
        servers += found
        if found:
            defects += [] if cluster.is_patch(item) else _selector(item)
            defects += cluster.defects
            cluster.defects = []
        elif not cluster.aside and _text(item.get("kind")) not in ("Kustomization", "Component"):
            others.append(item)
        cluster.aside = 0
    return servers, defects, others


def _objects(roots: Sequence[Map]) -> Iterator[Map]:
    """The objects, those of lists too."""
    for root in roots:
        items = root.get("items")
        if isinstance(items, List):
            yield from (item for item in items.items if isinstance(item, Map))
        else:
            yield root


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


class _Cluster:
    """The objects that pods refer to: of the file, else of those around it."""

    def __init__(self, objects: Sequence[Map], world: World | None = None) -> None:
        file = objects[0].raw.file.name if objects else ""
        self.near = Neighbours(world, file) if world is not None else None
        self.by_kind: dict[tuple[str, str], Map] = {}
        self.services: list[Map] = []
        self.inference: dict[str, list[Map]] = {}
        self.defects: list[Defect] = []
        self.more = ""
        """What the object at hand takes from elsewhere."""
        self.aside = 0
        """Containers of the object at hand that run another program of TGI's image."""
        self.literal = False
        """Whether `$(NAME)` and `$$` of the object at hand stand for themselves, as on Cloud Run."""
        for item in objects:
            kind, name = _text(item.get("kind")), _text(item.at("metadata", "name"))
            if kind in ("ConfigMap", "Secret"):
                self.by_kind[kind, name] = item
            elif kind == "Service":
                self.services.append(item)
            elif kind == "InferenceService":
                used = _text(item.at("spec", "predictor", "model", "runtime"))
                self.inference.setdefault(used, []).append(item)

    def servers(self, item: Map, by: Map | None = None) -> list[Server]:
        """The TGI servers in the pods of one object; `by` is the Kustomize file in which a patch stands."""
        made: list[Server] = []
        self.literal = _is_cloud_run(item)
        if _text(item.get("kind")) in ("Kustomization", "Component") and self.near is not None and by is None:
            return [one for patch in self.near.inline(item) for one in self.servers(patch, item)]
        patch = by is not None or self.is_patch(item)
        whole = self.near.whole(item, by) if patch and self.near is not None else None
        self.more = "the workload this patch is laid over" if patch else ""
        if whole is not None:
            item, sure = whole
            self.more = "" if sure else "other patches"
        elif not patch and self.near is not None and self.near.is_patched(item):
            self.more = "the patches that are laid over it"
        for key, node, above in walk(item):
            containers = node.get("containers") if isinstance(node, Map) else None
            if isinstance(node, Map) and isinstance(containers, List) and key not in _ASIDE:
                for container in containers.items:
                    if isinstance(container, Map):
                        server = self._server(item, node, container, above)
                        made += [server] if server else []
        return made

    def is_patch(self, item: Map) -> bool:
        """Whether an object is laid over another one: by its form, its file's name, or a Kustomize file around."""
        if _is_patch(item) or any(name == "$patch" for name in item.map("spec").merged):
            return True
        return self.near is not None and (self.near.is_patch or _OF_PATCH.search(self.near.name) is not None)

    def _server(self, item: Map, pod: Map, container: Map, above: tuple[Map, ...]) -> Server | None:
        """One container, when it runs TGI."""
        image = container.value("image", origin="image")
        if image is not None and image.known and self.near is not None:
            image = self.near.image(image)
        ours = is_ours(image, [_text(node) for node in container.list("args")])
        command_node, args_node = container.get("command"), container.get("args")
        if not ours and not _names_launcher(command_node) and not _names_launcher(args_node):
            return None
        environment = self.environment(container)
        predictor = self._predictor(item)
        if predictor is not None:
            self.environment(predictor.map("model"), environment)
        command, args = self.words(command_node, environment), self.words(args_node, environment)
        args += self.words(predictor.at("model", "args"), environment) if predictor is not None else []
        entry = None
        if command:
            words = [*command, *args]
            launch = launch_of(words, word_sources(words, command_node, args_node), environment.variables())
            if launch is None:
                self.aside += ours
                return None
            entry, args = launch.entry, list(launch.args)
            environment.assigned(launch.assigned)
            self.defects += launch.defects
        elif not ours:
            return None
        template = above[-1] if above and above[-1].get("metadata") is not None else item
        labels = {name: _text(node) for name, (_, node) in template.map("metadata", "labels").merged.items()}
        name = container.scalar("name") or item.scalar("metadata", "name")
        workload = item.scalar("metadata", "name")
        named = workload or name
        mounts = list(_mounts(item, pod, container))
        restart = pod.value("restartPolicy")
        security = container.map("securityContext")
        privileged = security.scalar("privileged")
        user = security.value("runAsUser") or pod.map("securityContext").value("runAsUser")
        capabilities = [n.value("file") for n in security.list("capabilities", "add") if isinstance(n, Scalar)]
        server = Server(
            "kubernetes", named.text if named else "", _first(container),
            image=image, entry=entry, args=tuple(args),
            **environment.fields(),
            ports=(*_ports(container), *self._service_ports(labels, item)),
            mounts=tuple(mounts),
            gpus=self._gpus(item, container, pod, predictor, environment),
            platform=_arch(pod),
            shm_size=next((mount.size for mount in mounts if mount.target.text == "/dev/shm"), None),  # noqa: S108
            memory_limit=container.value("resources", "limits", "memory"),
            memory_request=container.value("resources", "requests", "memory"),
            privileged=privileged.value("file") if privileged and privileged.truth else None,
            cap_add=tuple(capabilities),
            runtime=pod.value("runtimeClassName"),
            ipc=_host(pod, "hostIPC"),
            network=_host(pod, "hostNetwork"),
            user=user,
            workdir=container.value("workingDir"),
            probes=tuple(_probes(container)),
            restart=restart,
            replicas=item.value("spec", "replicas") or item.value("spec", "predictor", "minReplicas"),
            beside=len(pod.list("containers")) - 1,
            hints=(*_hints(pod), *(_hints(predictor) if predictor is not None else ())),
            unknown=(self.more,) if self.more else (),
            around=tuple(_around(item, template, pod)),
            notes=(f"{_text(item.get('kind'))} {workload.text if workload else ''}".strip(), *_annotated(item)),
        )  # fmt: skip
        if self.literal:
            server = _on_cloud_run(server, item, container)
        return with_more(server) if self.more else server

    # -- KServe

    def _predictor(self, item: Map) -> Map | None:
        """The predictor of the one InferenceService that uses a serving runtime: it adds arguments, environment
        and resources.

        Arguments are appended, the rest is merged (kserve, pkg/controller/v1beta1/inferenceservice/utils/utils.go:
        MergeRuntimeContainers).
        """
        name = _text(item.at("metadata", "name"))
        users = self.inference.get(name, []) if _is_runtime(item) else []
        if not users and _is_runtime(item) and self.near is not None:
            every = self.near.objects("InferenceService", name)
            users = [one for one in every if _text(one.at("spec", "predictor", "model", "runtime")) == name]
        return users[0].map("spec", "predictor") if len(users) == 1 else None

    def _gpus(self, item: Map, container: Map, pod: Map, predictor: Map | None, environment: Environment) -> Gpus:
        """GPUs of a container; those of a serving runtime may come with the InferenceService that uses it."""
        found = gpus_of(container.map("resources"), pod)
        if found == NO_GPUS:  # NVIDIA's runtime gives it those that its environment names
            found = runtime_gpus(pod.value("runtimeClassName"), environment) or found
        if not _is_runtime(item):
            return UNSAID if found == NO_GPUS and self.more else found
        if predictor is not None:
            added = gpus_of(predictor.map("model", "resources"), pod)
            return added if added != NO_GPUS else found
        return found if found != NO_GPUS else UNSAID

    # -- environment

    def _object(self, kind: str, name: str) -> Map | None:
        """A ConfigMap or a Secret."""
        found = self.by_kind.get((kind, name))
        return found if found is not None or self.near is None else self.near.object(kind, name)

    def environment(self, container: Map, environment: Environment | None = None) -> Environment:
        """`envFrom`, then `env`, over those that are given."""
        environment = environment or Environment()
        for node in container.list("envFrom"):
            if isinstance(node, Map):
                self._from(environment, node)
        for node in container.list("env"):
            if isinstance(node, Map):
                self._entry(environment, node)
        entries = container.get("env")
        if isinstance(entries, Map) and entries.get("name") is None:  # not valid in a pod, common in charts
            for name, (key, node) in entries.merged.items():
                if isinstance(node, Scalar) and not node.null:
                    environment.add(name, replace(node.value("environment"), key=key.spot))
        return environment

    def _from(self, environment: Environment, node: Map) -> None:
        """All of a ConfigMap or Secret."""
        prefix = _text(node.get("prefix"))
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            name = node.scalar(key, "name")
            if name is None:
                continue
            item = self._object(kind, name.text)
            if item is None:
                may_lack = _text(node.scalar(key, "optional")) == "true"
                what = f"{kind} {name.text}{' (optional)' if may_lack else ''}"
                environment.sources.append(replace(name.value(f"{kind} {name.text}"), text=what, known=False))
                continue
            for field in ("data", "stringData"):
                for variable, (at, value) in item.map(field).merged.items():
                    self._put(environment, prefix + variable, at, value, kind, name.text, field)

    def _put(
        self, environment: Environment, variable: str, at: Scalar, value: Node, kind: str, name: str, field: str
    ) -> None:
        """One key of a ConfigMap or Secret as a variable."""
        if not isinstance(value, Scalar):
            return
        if kind == "Secret" and field == "data":  # base64
            environment.refer(variable, replace(value.value("Secret " + name), text="", known=False, key=at.spot))
        else:
            environment.add(variable, replace(value.value(f"{kind} {name}"), key=at.spot))

    def _entry(self, environment: Environment, node: Map) -> None:
        """One entry of `env`."""
        name = node.scalar("name")
        if name is None:
            return
        value = node.get("value")
        source = node.get("valueFrom")
        if isinstance(source, Map):
            self._value_from(environment, name, source)
            return
        if value is None:
            written = node.merged.get("value")
            empty = written[1] if written and isinstance(written[1], Scalar) else name
            made = replace(empty.value("environment"), text="", length=0)
        elif isinstance(value, Scalar):
            made = value.value("environment")
        else:
            return
        if self.literal:
            environment.add(name.text, replace(made, key=name.spot))
            return
        found = Found()
        text = interpolate_kubernetes(made.text, environment.variables() if "$(" in made.text else {}, found)
        known = made.known and found.known
        environment.add(
            name.text, replace(made, text=text, known=known, missing=(*made.missing, *found.missing), key=name.spot)
        )

    def _value_from(self, environment: Environment, name: Scalar, source: Map) -> None:
        """A reference to a ConfigMap, a Secret or a field."""
        for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            reference = source.get(key)
            if not isinstance(reference, Map):
                continue
            target, field = _text(reference.get("name")), _text(reference.get("key"))
            item = self._object(kind, target)
            for part in ("stringData", "data"):
                held = item.map(part).get(field) if item else None
                if isinstance(held, Scalar) and not (kind == "Secret" and part == "data"):
                    environment.add(name.text, replace(held.value(f"{kind} {target}"), key=name.spot))
                    return
            value = reference.scalar("name") or name
            origin = f"{kind} {target}"
            environment.refer(
                name.text, replace(value.value(origin), known=False, missing=(f"{target}/{field}",), key=name.spot)
            )
            return
        environment.refer(name.text, replace(name.value("a field of the pod"), known=False, key=name.spot))

    # -- words

    def words(self, node: Node | None, environment: Environment) -> list[Value]:
        """`command` or `args`, with `$(NAME)` replaced."""
        if isinstance(node, Scalar) and not node.null:  # not valid in a pod; charts split it
            return [word.as_value(node.source) for word in lex(node.source, 0, None, PLAIN).words]
        values: list[Value] = []
        variables = None
        for item in node.items if isinstance(node, List) else []:
            if not isinstance(item, Scalar):
                continue
            value = item.value()
            if "$" in value.text and not self.literal:
                variables = variables if variables is not None else environment.variables()
                found = Found()
                text = interpolate_kubernetes(value.text, variables, found)
                unknown = bool(environment.sources) and "$(" in text
                missing = (*value.missing, *found.missing)
                value = replace(value, text=text, known=value.known and found.known and not unknown, missing=missing)
            values.append(value)
        return values

    def _service_ports(self, labels: dict[str, str], item: Map) -> Iterator[Port]:
        """Ports of the Services that select these labels."""
        namespace = _text(item.at("metadata", "namespace"))
        for service in self.services:
            selector = {name: _text(node) for name, (_, node) in service.map("spec", "selector").merged.items()}
            other = _text(service.at("metadata", "namespace"))
            if not selector or selector.items() - labels.items() or (namespace and other and namespace != other):
                continue
            for port in service.list("spec", "ports"):
                if isinstance(port, Map):
                    target = port.value("targetPort") or port.value("port")
                    yield Port("service", target, port.value("port"), _text(port.get("name")) or None)


def _is_cloud_run(item: Map) -> bool:
    """Whether an object is a service of Cloud Run, whose form is Knative's."""
    knative = _text(item.get("apiVersion")).startswith("serving.knative.dev/")
    return knative and "run.googleapis.com/" in item.raw.text


def _on_cloud_run(server: Server, item: Map, container: Map) -> Server:
    """A server as Cloud Run has it: one GPU, secrets by their own name, a probe that is bounded, no storage that lasts.

    https://cloud.google.com/run/docs/reference/yaml/v1
    """
    secrets = {
        name: replace(value, missing=(value.missing[0].removesuffix("/latest"),)) if value.missing else value
        for name, value in server.secret_env.items()
    }
    return replace(
        server, form="platform", secret_env=secrets, probes=(), waits=waits_of(item, (container,)), around=(),
        notes=("Cloud Run", *_instances(item)),
    )  # fmt: skip


def _instances(item: Map) -> Iterator[str]:
    """Between how many instances Cloud Run keeps a service, as a note that `import` reads."""
    said = item.map("spec", "template", "metadata", "annotations")
    fewest, most = (said.value(f"autoscaling.knative.dev/{name}Scale") for name in ("min", "max"))
    if fewest is None or most is None or not fewest.number or not most.number:
        return
    if fewest.number < most.number:
        yield f"autoscale {json.dumps({'min': fewest.number, 'max': most.number})}"
    elif fewest.number == most.number > 1:
        yield f"replicas {most.number}"


def _is_runtime(item: Map) -> bool:
    """Whether an object is a KServe runtime, which starts nothing before an InferenceService uses it."""
    return _text(item.get("kind")) in ("ServingRuntime", "ClusterServingRuntime")


def word_sources(words: Sequence[Value], *nodes: Node | None) -> dict[int, Source]:
    """By position, the texts of words that are whole scalars with a launcher in them."""
    scalars = [
        item for node in nodes for item in (node.items if isinstance(node, List) else [node])
        if isinstance(item, Scalar) and "text-generation-launcher" in item.text
    ]  # fmt: skip
    places = {scalar.place: scalar for scalar in scalars} | {scalar.source.place(0): scalar for scalar in scalars}
    return {at: places[word.place].source for at, word in enumerate(words) if word.place in places}


def _names_launcher(node: Node | None) -> bool:
    items = node.items if isinstance(node, List) else [node]
    return any(isinstance(item, Scalar) and "text-generation-launcher" in item.text for item in items)


def _first(node: Map) -> Place:
    return node.entries[0][0].place if node.entries else node.place


def _host(pod: Map, key: str) -> Value | None:
    node = pod.scalar(key)
    return replace(node.value("file"), text="host") if node and node.truth else None


def _ports(container: Map) -> Iterator[Port]:
    for port in container.list("ports"):
        if isinstance(port, Map):
            yield Port(
                "container", port.value("containerPort"), port.value("hostPort"), _text(port.get("name")) or None
            )


def _mounts(item: Map, pod: Map, container: Map) -> Iterator[Mount]:
    """Volume mounts with the volumes they name."""
    volumes = {_text(v.get("name")): v for v in pod.list("volumes") if isinstance(v, Map)}
    claims = {_text(v.at("metadata", "name")) for v in item.list("spec", "volumeClaimTemplates") if isinstance(v, Map)}
    for mount in container.list("volumeMounts"):
        target = mount.value("mountPath") if isinstance(mount, Map) else None
        if not isinstance(mount, Map) or target is None:
            continue
        if target.known and re.match(r"[^/$~{<]", target.text):
            target = replace(target, text=f"/{target.text}")  # as the kubelet takes it
        name = mount.value("name")
        read_only = mount.scalar("readOnly")
        volume = volumes.get(name.text) if name else None
        kind, source, size = _volume(volume) if volume else ("unknown", name, None)
        if name and volume is None and name.text in claims:
            kind = "pvc"
        yield Mount(kind, target, source or name, size, bool(read_only and read_only.truth))


def _volume(volume: Map) -> tuple[str, Value | None, Value | None]:
    """Kind, source and size limit of a volume."""
    empty = volume.merged.get("emptyDir")
    if empty is not None:
        settings = empty[1] if isinstance(empty[1], Map) else None
        memory = settings is not None and _text(settings.get("medium")) == "Memory"
        return ("memory" if memory else "emptyDir"), None, settings.value("sizeLimit") if settings else None
    if volume.get("persistentVolumeClaim") is not None:
        return "pvc", volume.value("persistentVolumeClaim", "claimName"), None
    if volume.get("hostPath") is not None:
        return "bind", volume.value("hostPath", "path"), None
    for key, kind in (
        ("configMap", "configMap"),
        ("secret", "secret"),
        ("ephemeral", "ephemeral"),
        ("projected", "secret"),
    ):
        if volume.get(key) is not None:
            return kind, volume.value(key, "name") or volume.value(key, "secretName"), None
    if any(
        volume.get(key) is not None
        for key in (
            "nfs",
            "csi",
            "azureFile",
            "glusterfs",
            "cephfs",
            "awsElasticBlockStore",
            "gcePersistentDisk",
            "flexVolume",
            "iscsi",
            "azureDisk",
        )
    ):
        return "volume", None, None
    return "unknown", None, None


def resources_of(resources: Map) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Accelerators under `limits` and `requests`."""

    def gpus(part: str) -> dict[str, Scalar]:
        return {
            name: node for name, (_, node) in resources.map(part).merged.items()
            if isinstance(node, Scalar) and vendor_of(name)
        }  # fmt: skip

    return gpus("limits"), gpus("requests")


def vendor_of(resource: str) -> str | None:
    """Whose accelerator an extended resource stands for; None when it stands for none."""
    if resource.startswith(_NOT_GPUS):
        return None
    return next((vendor for prefix, vendor in GPU_RESOURCES.items() if resource.startswith(prefix)), None)


def gpus_of(resources: Map, pod: Map | None = None) -> Gpus:
    """GPUs under resources, or by a claim (dynamic resource allocation)."""
    limits, requests = resources_of(resources)
    name = next(iter(limits), None) or next(iter(requests), None)
    if name is None:
        if resources.get("claims") is not None or (pod is not None and pod.get("resourceClaims") is not None):
            return Gpus("unknown", "limits", vendor="nvidia")
        return NO_GPUS
    held = limits.get(name) or requests[name]
    value = held.value("file")
    count = value.number
    limit, request = limits.get(name), requests.get(name)
    slices = re.fullmatch(r"nvidia\.com/mig-(\d+g\.\d+gb)(?:\.me)?(?:\.shared)?", name)
    return Gpus(
        "unknown" if count is None else "count" if count else "none",
        "limits" if limits else "requests", value, count, (), vendor_of(name) or "nvidia",
        limit.value("file") if limit else None, request.value("file") if request else None,
        slices[1] if slices else _partition(pod) if pod is not None else "",
    )  # fmt: skip


_PROBES = (("startupProbe", "startup"), ("readinessProbe", "readiness"), ("livenessProbe", "liveness"))


def _probes(container: Map) -> Iterator[Probe]:
    for key, kind in _PROBES:
        node = container.get(key)
        if not isinstance(node, Map):
            continue
        name = container.key(key)
        action = next(
            (
                a
                for k, a in (("httpGet", "http"), ("tcpSocket", "tcp"), ("grpc", "grpc"), ("exec", "exec"))
                if k in node.merged
            ),
            "none",
        )
        where = node.map({"http": "httpGet", "tcp": "tcpSocket"}.get(action, action))

        def number(field: str, node: Map = node) -> float | None:
            value = node.value(field)
            return value if value is None else value.number if value.known else inf

        yield Probe(
            kind, action, name.place if name else node.place,
            path=where.value("path"), port=where.value("port"),
            words=tuple(n.value() for n in where.list("command") if isinstance(n, Scalar)),
            initial_delay=number("initialDelaySeconds"), period=number("periodSeconds"),
            timeout=number("timeoutSeconds"), failures=number("failureThreshold"),
        )  # fmt: skip


_AROUND = (
    "tolerations", "affinity", "topologySpreadConstraints", "serviceAccountName", "priorityClassName",
    "imagePullSecrets", "initContainers",
)  # fmt: skip
"""Keys of a pod that say where it runs and as whom."""
_OWN_LABELS = ("app", "app.kubernetes.io/")
"""Labels that name the workload."""


def _around(item: Map, template: Map, pod: Map) -> Iterator[str]:
    """What a manifest says of a workload beside its server."""
    if namespace := _text(item.at("metadata", "namespace")):
        yield f"namespace {namespace}"
    for name, (_, node) in template.map("metadata", "labels").merged.items():
        if name != _OWN_LABELS[0] and not name.startswith(_OWN_LABELS[1]):
            yield f"label {name}: {_text(node)}"
    for name, (_, node) in pod.map("nodeSelector").merged.items():
        if name != INSTANCE_TYPE or instance_type(_text(node)) is None:  # which a spec names in place of a GPU
            yield f"nodeSelector {name}: {_text(node)}"
    ours = any(True for _ in _annotated(item))
    for key in _AROUND:
        given = pod.get(key)
        if (ours and key in _EMITTED) or (key == "tolerations" and _of_gpus(pod)) or (key == _SPREAD and _spread(pod)):
            continue  # `emit` writes it again
        if given is not None and (_text(given) or not isinstance(given, Scalar)):
            yield f"{key} {_text(given)}".rstrip()


_EMITTED = ("affinity", "imagePullSecrets", "tolerations", "topologySpreadConstraints")
"""What `emit` writes of a pod from the fields that annotations of ours hold."""


_SPREAD = "topologySpreadConstraints"


def _spread(pod: Map) -> bool:
    """Whether replicas are spread over nodes where that can be, and nothing else is asked: as `emit` spreads them."""
    asked = pod.list(_SPREAD)
    return len(asked) == 1 and isinstance(one := asked[0], Map) and (
        _text(one.get("topologyKey")), _text(one.get("whenUnsatisfiable")), _text(one.get("maxSkew"))
    ) == ("kubernetes.io/hostname", "ScheduleAnyway", "1")  # fmt: skip


def _of_gpus(pod: Map) -> bool:
    """Whether a pod tolerates the taint of a GPU resource and nothing else."""
    taints = pod.list("tolerations")
    resources = {platform.gpu_resource for platform in PLATFORMS.values()}
    return bool(taints) and all(isinstance(one, Map) and _text(one.get("key")) in resources for one in taints)


def _labels(pod: Map) -> Iterator[tuple[str, Scalar]]:
    """Labels the node must have, by node selectors and affinities that leave no choice."""
    for name, (_, node) in pod.map("nodeSelector").merged.items():
        if isinstance(node, Scalar):
            yield name, node
    terms = pod.map("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution").list(
        "nodeSelectorTerms"
    )
    for term in terms:
        for expression in term.list("matchExpressions") if isinstance(term, Map) else []:
            if isinstance(expression, Map) and _text(expression.get("operator")) == "In":
                values = expression.list("values")
                if len(values) == 1 and isinstance(values[0], Scalar):
                    yield _text(expression.get("key")), values[0]


def _hints(pod: Map) -> Iterator[Hint]:
    """Hardware named by labels of the node."""
    for name, node in _labels(pod):
        yield from label_hint(name, node)


def _arch(pod: Map) -> Value | None:
    """Architecture of the node."""
    names = ("kubernetes.io/arch", "beta.kubernetes.io/arch")
    return next((node.value("file") for name, node in _labels(pod) if name in names), None)


def _partition(pod: Map) -> str:
    """MIG profile of GKE's node pools, whose slices are asked for as nvidia.com/gpu."""
    label = "cloud.google.com/gke-gpu-partition-size"
    return next((node.text for name, node in _labels(pod) if name == label and node.known), "")


def label_hint(label: str, node: Scalar) -> Iterator[Hint]:
    """What a node label says of the hardware."""
    if _INSTANCE_LABELS.search(label):
        yield Hint("instance", node.value("file"))
    elif _GPU_LABELS.search(label) and not node.truth and node.text.lower() != "false":
        yield Hint("gpu", node.value("file"))


_OF_PATCH = re.compile(r"(?:^|[._-])(?:json)?patch(?:es)?(?:[._-]|$)", re.IGNORECASE)
"""The name of a file with a patch."""


def with_more(server: Server) -> Server:
    """A server that takes settings from elsewhere: what it lacks may be there."""
    nowhere = Value("/", server.place, "file", known=False)
    return replace(
        server,
        gpus=UNSAID if server.gpus == NO_GPUS else server.gpus,
        env_sources=(*server.env_sources, *(replace(nowhere, text=one) for one in server.unknown)),
        mounts=(*server.mounts, Mount("unknown", nowhere)),
    )


def _is_patch(item: Map) -> bool:
    """Whether a workload is laid over another one (Kustomize): it has neither a selector nor labels for its pods."""
    spec = item.map("spec")
    whole = spec.get("selector") is not None or spec.at("template", "metadata", "labels") is not None
    return _text(item.get("kind")) in _SELECTED and not whole and "{{" not in item.raw.text


def _selector(item: Map) -> Iterator[Defect]:
    """A workload without a selector, or with one its own pods do not match; the API server refuses both."""
    kind = _text(item.get("kind"))
    if kind not in _SELECTED or "{{" in item.raw.text or not _text(item.get("apiVersion")).startswith("apps/"):
        return
    spec = item.map("spec")
    selector = spec.get("selector")
    key = item.key("spec")
    if _is_patch(item):
        return
    if selector is None:
        yield Defect(
            "k8s-missing-selector", f"a {kind} must have `spec.selector`", key.place if key else item.place,
            "add `selector: {matchLabels: ...}` with the labels of the template", 4,
        )  # fmt: skip
        return
    if not isinstance(selector, Map):
        return
    labels = {name: _text(node) for name, (_, node) in spec.map("template", "metadata", "labels").merged.items()}
    for name, (label, node) in selector.map("matchLabels").merged.items():
        if isinstance(node, Scalar) and node.known and labels.get(name) != node.text:
            message = f"the pods do not have the label {name}: {node.text} their {kind} selects by"
            hint = "give `template.metadata.labels` the same label"
            yield Defect("k8s-selector-mismatch", message, label.place, hint, len(name))


def _annotated(item: Map) -> Iterator[str]:
    """What annotations of ours say of the cluster and of scaling, one note each."""
    for section in ("replicas", "kubernetes", "autoscale"):
        said = item.value("metadata", "annotations", f"tgi-advisor/{section}")
        if said is not None and said.known:
            yield f"{section} {said.text}"
