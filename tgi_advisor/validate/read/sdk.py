"""What calls of cloud SDKs and of the clients of Docker and Kubernetes say, once their arguments are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.validate.found import NO_GPUS, UNSAID, Gpus, Hint, Mount, Port, Server, Value, whole_number
from tgi_advisor.validate.read.commands import as_shell, opened
from tgi_advisor.validate.read.docker import mount_of, published, runtime_gpus
from tgi_advisor.validate.read.environment import Environment
from tgi_advisor.validate.read.kubernetes import is_kubernetes, read_kubernetes
from tgi_advisor.validate.read.launcher import is_image, is_launcher
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar
from tgi_advisor.validate.read.platform import environment_of
from tgi_advisor.validate.read.words import PLAIN, SHELL, lex

LOOKUPS = ("get_huggingface_llm_image_uri", "get_huggingface_llm_image")
"""Functions that return the image of a server by its kind and version (sagemaker.huggingface)."""
_BACKENDS = {"huggingface": "huggingface-pytorch-tgi-inference",
             "huggingface-llm": "huggingface-pytorch-tgi-inference", "lmi": "djl-inference"}  # fmt: skip
"""Image of each kind: https://github.com/aws/sagemaker-python-sdk/blob/v2.232.0/src/sagemaker/huggingface/llm_utils.py."""
IMAGE_CALLS = ("pull", "retrieve", "from_registry", "build", "push", "tag")
"""Calls that handle an image without starting it."""
GPU_NAMES = ("gpu", "accelerator_type", "gpu_type_id", "gpu_type", "gpu_name", "instance_type")
"""Arguments that name a GPU (an `instance_type` of Inference Endpoints: `nvidia-a10g`)."""
GPU_COUNTS = ("accelerator_count", "gpu_count", "instance_size")
"""Arguments that say how many (an `instance_size` of Inference Endpoints: `x4`)."""


class Call(NamedTuple):
    """A dictionary, or the arguments of a call."""

    node: Map
    """Its entries, or its named arguments."""
    name: str = ""
    """What is called; empty for a dictionary."""
    positional: Sequence[Node] = ()
    """Arguments without a name."""
    open: bool = False
    """Whether it is given more that is not known (`**more`)."""


_FRAMEWORKS = {**_BACKENDS, "huggingface": "huggingface-pytorch-inference"}
"""Image of each framework that `image_uris.retrieve` knows: there, `huggingface` is transformers' own toolkit."""


def looked_up(backend: Node | None, version: Scalar | None, by_framework: bool = False) -> str:
    """The image that a lookup by kind (or by framework) and version yields, without its registry."""
    names = _FRAMEWORKS if by_framework else _BACKENDS
    if backend is None or not isinstance(backend, Scalar):
        name = _BACKENDS["huggingface"]
    else:
        name = names.get(backend.text, backend.text) if backend.known else f"{{{backend.text}}}"
    if name in ("huggingface-neuronx", "huggingface-llm-neuronx"):  # the same repository, by optimum-neuron's version
        return f"{_BACKENDS['huggingface']}:optimum{version.text if version else ''}-neuronx-"
    if name != _BACKENDS["huggingface"]:
        return f"{name}:{version.text if version else 'latest'}"
    return f"{name}:tgi{version.text}" if version else name


def gpu_hint(value: Value, count: int | None) -> Hint:
    """`A10G`, `A100:2`, `NVIDIA_L4`: a GPU, and how many where nothing else says it."""
    name, colon, stated = value.text.partition(":")
    return Hint("gpu", replace(value, text=name.replace("_", "-")), whole_number(stated) if colon else count)


_MODAL = re.compile(r"(?:modal\.)?gpu\.([A-Z]\w*)")


def modal_gpu(call: str, named: Map) -> str:
    """`modal.gpu.A100(count=2, size="80GB")` as modal writes it now, `A100-80GB:2`; empty for another call, or unknown.

    https://modal.com/docs/reference/modal.gpu
    """
    found = _MODAL.fullmatch(call)
    size, memory, count = (named.scalar(name) for name in ("size", "memory", "count"))
    if found is None or any(one is not None and (not one.known or one.defaulted) for one in (size, memory, count)):
        return ""
    much = size.text if size else f"{memory.text}GB" if memory and memory.text not in ("0", "null") else ""
    return f"{found[1]}{'-' if much else ''}{much}{':' if count else ''}{count.text if count else ''}"


def gpu_counts(calls: Sequence[Call]) -> Iterator[tuple[Place, int | None]]:
    """By the place where a GPU is named, how many the same call asks for; None where it names a variable."""
    for call in calls:
        counts = [found for name in GPU_COUNTS if (found := call.node.value(name)) is not None]
        for name in GPU_NAMES:
            if counts and (gpu := call.node.scalar(name)) is not None:
                yield gpu.place, whole_number(counts[0].text.removeprefix("x"))


_VERTEX = {"serving_container_args": "args", "serving_container_command": "command", "serving_container_ports": "ports"}


def as_container(node: Map) -> Map:
    """Vertex AI's arguments under the names of a container; its model lies where the entry point downloads it from.

    containers/tgi/gpu/*/entrypoint.sh of github.com/huggingface/Google-Cloud-Containers: AIP_STORAGE_URI.
    """
    if not any(name.startswith("serving_container_") for name in node.merged):
        return node
    entries = [
        (key.copied(text=_VERTEX.get(key.text, key.text), source=key.source), item) for key, item in node.entries
    ]
    artifact = node.scalar("artifact_uri")
    env = node.get("serving_container_environment_variables")
    if artifact is not None and isinstance(env, Map) and env.get("MODEL_ID") is None:
        model = artifact.copied(known=False, missing=())
        given = Map([*env.entries, (artifact.copied(text="MODEL_ID"), model)], env.raw, env.start)
        entries = [(key, given if item is env else item) for key, item in entries]
    return Map(entries, node.raw, node.start)


def with_its_model(node: Map) -> Map:
    """What a SageMaker builder is given, the model it is given beside the environment in that as HF_MODEL_ID.

    sagemaker-serve/src/sagemaker/serve/model_builder.py of github.com/aws/sagemaker-python-sdk (3.0.0 on).
    """
    env = node.get("env_vars")
    held = env.entries if isinstance(env, Map) else []
    if any(key.text == "HF_MODEL_ID" for key, _ in held):
        return node
    key = next((key for key, _ in node.entries), None)
    if key is None:
        return node
    model = node.scalar("model") or key.copied(known=False, missing=("model",))
    whole = Map([*held, (model.copied(text="HF_MODEL_ID", known=True, missing=()), model)], node.raw, node.start)
    rest = [entry for entry in node.entries if entry[0].text != "env_vars"]
    return Map([*rest, (key.copied(text="env_vars"), whole)], node.raw, node.start)


def built(name: str, named: Map) -> Node | None:
    """The object that a class makes of its arguments, as a mapping; None for what is no class."""
    if not name[:1].isupper() or not named.entries:
        return None
    return _camel(named) if name.startswith("V1") else named


def _camel(node: Map) -> Map:
    """Arguments of the Kubernetes client under the names of the API."""
    entries = [
        (key.copied(text=re.sub(r"_([a-z])", lambda found: found[1].upper(), key.text), source=key.source), item)
        for key, item in node.entries
    ]
    return Map(entries, node.raw, node.start)


def servers_of(calls: Sequence[Call], used: set[int]) -> Iterator[Server]:
    """TGI servers that the clients of Docker and Kubernetes start; what they are made of is noted in `used`."""
    pods = [call for call in calls if call.name.endswith("V1PodSpec")]
    for call in calls:
        short = call.name.rpartition(".")[2]
        if call.name.endswith(("containers.run", "containers.create")) or short == "create_container":
            used.update((id(call.node), id(call.node.get("environment"))))
            server = _docker(call)
            if server is not None:
                yield server
        elif short == "V1PodSpec":
            yield from _pod(_camel(call.node), used)
        elif short == "V1Container" and not pods:
            container: Node = _camel(call.node)
            key = Scalar("containers", call.node.raw, call.node.start, call.node.start)
            yield from _pod(Map([(key, List([container], call.node.raw, call.node.start))], call.node.raw, 0), used)
        elif is_kubernetes(call.node):
            found = read_kubernetes([call.node])[0]
            if found:
                used.update(_inside(call.node))
            yield from found
        if short.startswith("V1"):
            used.update((id(call.node), *_inside(call.node)))


def _inside(node: Node) -> Iterator[int]:
    """Every mapping in a mapping, itself included."""
    waiting: list[Node] = [node]
    for _ in range(10_000):
        if not waiting:
            return
        one = waiting.pop()
        if isinstance(one, Map):
            yield id(one)
            waiting += [item for _, item in one.entries]
        elif isinstance(one, List):
            waiting += one.items


def _pod(spec: Map, used: set[int]) -> Iterator[Server]:
    """The servers of a pod; where part of it is not in the text, nothing is missing from it."""
    used.update(_inside(spec))
    raw = spec.raw
    kind = Scalar("Pod", raw, spec.start, spec.start)
    root = Map([(Scalar("kind", raw, 0, 0), kind), (Scalar("spec", raw, 0, 0), spec)], raw, spec.start)
    parts = [one for one in (spec, *spec.list("containers")) if isinstance(one, Map)]
    open_ = any(
        isinstance(part.get(name), Scalar) for part in parts for name in ("resources", "volumeMounts", "volumes", "env")
    )
    for server in read_kubernetes([root])[0]:
        yield replace(server, form="platform", gpus=UNSAID) if open_ else server


def _docker(call: Call) -> Server | None:
    """`client.containers.run(image, command, ...)` (docker-py.readthedocs.io/en/stable/containers.html)."""
    node = call.node
    image = node.scalar("image") or next(iter(one for one in call.positional[:1] if isinstance(one, Scalar)), None)
    if image is None or not is_image(image.text):
        return None
    entry, args = _command(node, call.positional)
    if entry is not None and entry.known and not is_launcher(entry.text):
        return None
    environment = environment_of(node)
    mounts = tuple(_volumes(node.get("volumes")))
    gpus = _requested(node.get("device_requests"), environment, node.value("runtime"))
    open_ = call.open or isinstance(node.get("host_config"), (Scalar, Map))
    if isinstance(node.get("volumes") or node.get("mounts"), Scalar) or node.get("mounts") is not None or open_:
        mounts = (*mounts, Mount("unknown", replace(image.value("file"), text="/", known=False)))
    name, privileged = node.scalar("name"), node.scalar("privileged")
    return Server(
        "docker-run", name.text if name else "", image.place,
        image=image.value("image"), entry=entry, args=args, **environment.fields(),
        ports=tuple(_published(node.get("ports"))), mounts=mounts,
        gpus=UNSAID if open_ and gpus is NO_GPUS else gpus,
        shm_size=node.value("shm_size"), memory_limit=node.value("mem_limit"), runtime=node.value("runtime"),
        ipc=node.value("ipc_mode"), network=node.value("network_mode") or node.value("network"),
        user=node.value("user"), privileged=node.value("privileged") if privileged and privileged.truth else None,
    )  # fmt: skip


def _command(node: Map, positional: Sequence[Node]) -> tuple[Value | None, tuple[Value, ...]]:
    """The launcher, where it is named, and its arguments."""
    given = node.get("command") or (positional[1] if len(positional) > 1 else None)
    entry = node.get("entrypoint")
    words: list[Value] = []
    for part in (entry, given):
        if isinstance(part, List):
            words += [item.value() for item in part.items if isinstance(item, Scalar)]
        elif isinstance(part, Scalar) and part.style:
            source = as_shell(part)
            found = lex(source, 0, {}, PLAIN if part.known else SHELL).words
            words += [opened(word.as_value(source), part) for word in found]
        elif isinstance(part, Scalar) and not part.null:
            words.append(part.value())
    if words and (entry is not None or is_launcher(words[0].text)):
        return words[0], tuple(words[1:])
    return None, tuple(words)


def _published(ports: Node | None) -> Iterator[Port]:
    """`{"80/tcp": 8080}`: the container's port, and the host's."""
    for key, host in ports.entries if isinstance(ports, Map) else []:
        inside = key.value("file")
        one = host.items[-1] if isinstance(host, List) and host.items else host
        outside = one.value("file") if isinstance(one, Scalar) and not one.null else None
        yield replace(published(inside), host=outside)


def _volumes(volumes: Node | None) -> Iterator[Mount]:
    """`["/host:/data"]`, or `{"/host": {"bind": "/data", "mode": "rw"}}`."""
    for item in volumes.items if isinstance(volumes, List) else []:
        if isinstance(item, Scalar):
            yield mount_of(item.value("file"))
    for key, held in volumes.entries if isinstance(volumes, Map) else []:
        target = held.value("bind") if isinstance(held, Map) else None
        if target is not None:
            yield Mount("bind" if "/" in key.text else "volume", target, key.value("file"))
        elif isinstance(held, Scalar):
            yield Mount("unknown", held.value("file"), key.value("file"))


def _requested(requests: Node | None, environment: Environment, runtime: Value | None) -> Gpus:
    """`device_requests=[DeviceRequest(count=-1, ...)]`, or a runtime."""
    if isinstance(requests, List) and requests.items and isinstance(requests.items[0], Map):
        first = requests.items[0]
        ids = [item.text for item in first.list("device_ids") if isinstance(item, Scalar)]
        count = first.value("count")
        named = tuple(part for text in ids for part in text.split(","))
        if named:
            return Gpus("ids", "flag", None, len(named), named)
        if count is not None and count.text == "-1":
            return Gpus("all", "flag", count)
        if count is not None and count.number:
            return Gpus("count", "flag", count, count.number)
        return Gpus("unknown", "flag", count)
    if requests is not None:
        return UNSAID
    return runtime_gpus(runtime, environment) or NO_GPUS
