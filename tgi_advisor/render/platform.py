"""What the formats of platforms share: names of GPUs and machines, and what a platform has no words for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tgi_advisor.errors import SpecError, listed
from tgi_advisor.facts.platforms import Offer, Platform, all_platforms
from tgi_advisor.plan import Container
from tgi_advisor.spec.records import ContainerSpec

KEPT = "tgi-advisor"
"""How a comment begins that `import` reads back, as annotations of ours do."""


def gpu_of(container: Container, name: str) -> str | None:
    """What the platform calls the container's GPU; None for a CPU, SpecError where it has none or not so many."""
    if not container.gpu_count:
        return None
    platform = all_platforms()[name]
    if container.gpu not in platform.gpus:
        raise _no_such_gpu(container, platform)
    if platform.sizes and container.gpu_count not in platform.sizes:
        raise _no_such_number(container, platform)
    return platform.gpus[container.gpu]


def machine_of(container: Container, name: str) -> str:
    """The platform's machine with these GPUs; SpecError where it has none."""
    platform = all_platforms()[name]
    found = platform.machine(container.gpu, container.gpu_count, container.instance) if container.gpu_count else None
    if found is None:
        raise _nothing(container, platform)
    return found


def offer_of(container: Container, name: str) -> Offer:
    """The machine with these GPUs that the platform sells under a name of its own; SpecError where it has none."""
    platform = all_platforms()[name]
    found = platform.offer(container.gpu, container.gpu_count) if container.gpu_count else None
    if found is None:
        raise _nothing(container, platform)
    return found


def _nothing(container: Container, platform: Platform) -> SpecError:
    if container.gpu_count and platform.counts(container.gpu):
        return _no_such_number(container, platform)
    return _no_such_gpu(container, platform)


def _no_such_gpu(container: Container, platform: Platform) -> SpecError:
    return SpecError(
        f"{platform.title} has no {container.gpu}, or none that is known by name.",
        f"It has {listed(platform.known(), 'and')}: name one in hardware.gpu, or choose another format.",
    )


def _no_such_number(container: Container, platform: Platform) -> SpecError:
    counts = [str(count) for count in platform.counts(container.gpu)]
    return SpecError(
        f"{platform.title} has no machine with {container.gpu_count} {container.gpu}.",
        f"It has them with {listed(counts, 'or')}: set hardware.count, or tgi.num_shard, to that.",
    )


def no_mounts(container: Container, name: str) -> None:
    """SpecError where the container needs a folder of the host that the platform cannot mount."""
    if len(container.mounts) > 1:
        title, mount = all_platforms()[name].title, container.mounts[1]
        raise SpecError(
            f"{title} cannot mount the folder {mount.source!r}.",
            "Put the model and its adapters on the Hub, or choose another format.",
        )


OWN_MEASURE = {
    "dstack": "it scales by requests per second alone: `replicas: {fewest}..{most}`, `scaling` with those of one",
    "skypilot": "it scales by queries per second alone: `replica_policy` with those of one replica",
    "azureml": "Azure Monitor scales the instances, outside of the deployment",
    "cloudrun": "it scales between minScale and maxScale by requests at once of an instance, and by CPU",
    "sagemaker": "Application Auto Scaling is told between how many; PutScalingPolicy, by what, is yours to write: "
    "autoscale.on batch is a measure of its own",
    "endpoints": "it scales between minReplica and maxReplica by how busy its hardware is",
    "vertex": "it scales between minReplicaCount and maxReplicaCount by how busy CPU and GPU are",
}
"""By what a platform scales instead of TGI's gauges."""


def bounds(container: Container) -> tuple[int, int]:
    """Fewest and most servers."""
    scaling = container.scaling
    return (scaling.fewest, scaling.most) if scaling else (container.replicas, container.replicas)


def kept_of_container(container: Container, *fields: str) -> list[str]:
    """The same for manifests, whose annotations hold the rest."""
    return [line for line in kept(container, *fields) if line.startswith(f"{KEPT}/container ")]


def kept(container: Container, *fields: str) -> list[str]:
    """Comments that `import` reads back: these fields where they are not the usual, cluster and scaling.

    `mounts` are all mounts beside the weights, `read_only` those of them that are not written to.
    """
    lines = [f"{KEPT}/{name} {json.dumps(said)}" for name, said in _sections(container, *fields).items()]
    for mount in container.mounts[1:]:
        if "mounts" in fields or (mount.read_only and "read_only" in fields):
            said_of = [mount.source, mount.target, *(["ro"] if mount.read_only else [])]
            lines.append(f"{KEPT}/mount {json.dumps(said_of, ensure_ascii=False)}")
    return lines


def kept_in_json(container: Container, *fields: str) -> dict[str, Any]:
    """The same under a key of our own, for requests in JSON, with the variables that are put in on the way.

    Each request is taken out of the file by its name, or sent without the key.
    """
    held = _sections(container, *fields)
    if container.secret_env:
        held["secret_env"] = dict(container.secret_env)
    return {KEPT: held} if held else {}


def _sections(container: Container, *fields: str) -> dict[str, Any]:
    """Fields of the container that are not the usual, the cluster, scaling and the number of servers."""
    usual = ContainerSpec()
    cache = container.mounts[0].source
    said = {
        "port": (container.port, usual.port), "cache": (cache, usual.cache),
        "shm_size": (container.shm_size, usual.shm_size), "name": (container.name, usual.name),
    }  # fmt: skip
    own: dict[str, Any] = {name: said[name][0] for name in fields if name in said and said[name][0] != said[name][1]}
    if "gpus" in fields and (ids := _ids(container)):
        own["gpus"] = ids
    scaling = container.scaling.asked if container.scaling else {}
    sections = {"container": own, "kubernetes": container.cluster.asked, "autoscale": scaling}
    held: dict[str, Any] = {name: dict(asked) for name, asked in sections.items() if asked}
    if container.replicas > 1 and (container.scaling or "replicas" in fields):
        held["replicas"] = container.replicas
    return held


def _ids(container: Container) -> list[str]:
    """The devices a spec picks, where it does: options of Docker, or a variable where a vendor has one for it."""
    if isinstance(container.gpus, tuple):
        return list(container.gpus)
    picked = next(iter(container.device_env.values()), "all")
    return [] if picked == "all" else picked.split(",")


def unsaid(container: Container, name: str, *fields: str) -> Iterator[str]:
    """A sentence for each of these that the container says and the platform has no words for."""
    title = all_platforms()[name].title
    devices = container.device_env or isinstance(container.gpus, tuple)
    said = {
        "gpus": "container.gpus: it picks the devices itself" if devices else "",
        "port": f"container.port ({container.port}): it has an address of its own for the server",
        "cache": f"container.cache ({container.mounts[0].source}): the weights are downloaded at every start",
        "autoscale": _scaling(container, name),
        "shm": f"container.shm_size ({container.shm_size}): the size of /dev/shm is its own",
    }
    return (f"{title} has no words for {said[field]}" for field in fields if said[field])


def _scaling(container: Container, name: str) -> str:
    """What of scaling has no words, and what is done instead."""
    scaling = container.scaling
    if scaling is None:
        return ""
    own = OWN_MEASURE[name].format(fewest=scaling.fewest, most=scaling.most)
    return f"autoscale.on ({scaling.metric}): {own}"


def commented(lines: Iterator[str] | list[str]) -> str:
    """Sentences as comments, one a line."""
    return "".join(f"# {line if line.isprintable() else ascii(line)}\n" for line in lines)
