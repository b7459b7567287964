"""A `Container` of ours as `emit --format json` writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from tgi_advisor.validate.found import NO_GPUS, Gpus, Hint, Mount, Port, Server, Value
from tgi_advisor.validate.read.nodes import List, Map, Scalar, plain
from tgi_advisor.validate.read.platform import environment_of

_FIELDS = ("image", "args", "args_env", "args_only", "secret_env", "container_port", "gpu_count", "device_env")


def is_container(root: Map) -> bool:
    """Whether a document is a container as `emit --format json` writes it."""
    return all(name in root.merged for name in _FIELDS)


def read_container(root: Map) -> Server:
    """The server it describes."""
    environment = environment_of(root)
    for name, (key, item) in root.map("device_env").merged.items():
        if isinstance(item, Scalar):
            environment.add(name, replace(item.value("environment"), key=key.spot))
    for inside, (key, item) in root.map("secret_env").merged.items():
        if isinstance(item, Scalar) and re.fullmatch(r"[A-Za-z_]\w*", item.text):
            value = replace(key.value("the caller's environment"), known=False, missing=(item.text,), key=key.spot)
            environment.refer(inside, value)
    called, gpu, count = root.scalar("name"), root.value("gpu"), root.value("gpu_count")
    privileged = root.scalar("privileged")
    listens = root.value("container_port")
    return Server(
        "platform", called.text if called else "", root.entries[0][0].place,
        image=root.value("image", origin="image"), args=_words(root, "args"), **environment.fields(),
        ports=(Port("publish", listens, root.value("port")),) if listens is not None else (),
        mounts=tuple(_mounts(root)), gpus=_gpus(root), shm_size=root.value("shm_size"),
        devices=_words(root, "devices"), cap_add=_words(root, "cap_add"), security_opt=_words(root, "security_opt"),
        group_add=_words(root, "group_add"), runtime=root.value("runtime"), ipc=root.value("ipc"),
        privileged=privileged.value() if privileged is not None and privileged.truth else None,
        hints=(Hint("gpu", gpu, count.number if count else None),) if gpu is not None and gpu.text else (),
        notes=tuple(_notes(root)),
    )  # fmt: skip


def _words(root: Map, name: str) -> tuple[Value, ...]:
    return tuple(item.value() for item in root.list(name) if isinstance(item, Scalar))


def _mounts(root: Map) -> Iterator[Mount]:
    for item in root.list("mounts"):
        if not isinstance(item, Map):
            continue
        source, target, held = item.value("source"), item.value("target"), item.scalar("read_only")
        if source is not None and target is not None:
            kind = "bind" if "/" in source.text or source.text.startswith((".", "~")) else "volume"
            yield Mount(kind, target, source, read_only=held is not None and held.truth)


def _gpus(root: Map) -> Gpus:
    asked = root.get("gpus")
    if isinstance(asked, List):
        ids = tuple(item.text for item in asked.items if isinstance(item, Scalar))
        return Gpus("ids", "flag", None, len(ids), ids)
    return Gpus("all", "flag", asked.value()) if isinstance(asked, Scalar) else NO_GPUS


def _notes(root: Map) -> Iterator[str]:
    """What `import` reads of replicas, the cluster and scaling."""
    replicas = root.value("replicas")
    if replicas is not None and replicas.number and replicas.number > 1:
        yield f"replicas {replicas.number}"
    for section, path in (("kubernetes", "cluster"), ("autoscale", "scaling")):
        if (asked := root.map(path, "asked")).merged:
            yield f"{section} {json.dumps(plain(asked))}"
