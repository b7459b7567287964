"""What the formats of platforms share: names of GPUs and machines, and what a platform has no words for."""

from __future__ import annotations

from collections.abc import Iterator

from tgi_advisor.errors import SpecError, listed
from tgi_advisor.facts.platforms import Offer, Platform, all_platforms
from tgi_advisor.plan import Container


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


def unsaid(container: Container, name: str, *fields: str) -> Iterator[str]:
    """A sentence for each of these that the container says and the platform has no words for."""
    title = all_platforms()[name].title
    devices = container.device_env or isinstance(container.gpus, tuple)
    said = {
        "gpus": "container.gpus: it picks the devices itself" if devices else "",
        "port": f"container.port ({container.port}): it has an address of its own for the server",
        "cache": f"container.cache ({container.mounts[0].source}): the weights are downloaded at every start",
        "autoscale": "autoscale: it scales by its own measures" if container.scaling else "",
        "shm": f"container.shm_size ({container.shm_size}): the size of /dev/shm is its own",
    }
    return (f"{title} has no words for {said[field]}" for field in fields if said[field])


def commented(lines: Iterator[str] | list[str]) -> str:
    """Sentences as comments, one a line."""
    return "".join(f"# {line if line.isprintable() else ascii(line)}\n" for line in lines)
