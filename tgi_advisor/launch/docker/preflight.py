"""Everything on a Docker Engine that can be known to be in the way before anything starts, found together."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tgi_advisor.errors import EngineError
from tgi_advisor.facts import outside
from tgi_advisor.launch import marks
from tgi_advisor.launch.docker import request
from tgi_advisor.launch.docker.engine import Engine, said
from tgi_advisor.launch.preflight import Checked, Finding, Host, shared_memory
from tgi_advisor.launch.signals import uninterrupted
from tgi_advisor.plan import Container, Plan
from tgi_advisor.safe import named
from tgi_advisor.units import MiB, human

IDLE_BYTES = 600 * MiB
"""Memory in use on a GPU nobody uses: the driver's own, which the plan counts apart."""
TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


def check(
    plan: Plan, container: Container, body: Mapping[str, Any], engine: Engine, host: Host,
    *, replace: bool = False, reuse: bool = False,
) -> Checked:  # fmt: skip
    """Everything that can be known now."""
    existing = engine.inspect(container.name)
    findings = [*without_engine(container, host)]
    taken = _name(container, body, existing, replace=replace, reuse=reuse)
    same = existing if existing and reuse and not taken else None
    replaced = existing["Id"] if existing and replace and not (same or taken) else None
    if taken:
        findings.append(taken)
    image = _image(container.image, engine)
    if same is None:
        findings += [*_gpu_runtime(container, engine, present=image), *_port(container, engine, replaced)]
        findings += _gpu_memory(plan, container, host, engine, replaced)
        findings += old_driver(plan, container, host) if engine.address.local else ()
        if engine.address.local:
            findings += [*_devices(container), *_disk(plan, container)]
    return Checked(tuple(findings), not image, replaced, same["Id"] if same else None)


def without_engine(container: Container, host: Host) -> Iterator[Finding]:
    """What can be known without an engine: shared memory and the token."""
    yield from shared_memory(container)
    for caller in container.secret_env.values():
        if container.token_needed and not host.environ.get(caller) and not _cached(container):
            yield Finding(
                f"the model is gated, and no Hub token is set in {caller}",
                f"export {caller}=hf_... with a token of an account that has accepted the model's licence, or name "
                "another variable in container.token_env.",
            )


def _name(
    container: Container, body: Mapping[str, Any], existing: dict[str, Any] | None, *, replace: bool, reuse: bool
) -> Finding | None:
    """Somebody who has the name already."""
    if existing is None:
        return None
    labels = existing["Config"].get("Labels") or {}
    if replace and marks.PLAN in labels:
        return None
    identical = labels.get(marks.PLAN) == body["Labels"][marks.PLAN]
    if reuse and identical:
        return None
    runs = f"{existing['Config']['Image']}, {existing['State']['Status']}"
    if marks.PLAN not in labels:
        project = labels.get("com.docker.compose.project")
        return Finding(
            f"a container named {container.name!r} exists already: {runs} (not ours"
            + (f"; it belongs to the Compose project {named(project)!r})" if project else ")"),
            f"`docker rm -f {container.name}` removes it, for --replace swaps only what tgi-advisor started; or give "
            "this one another container.name.",
        )
    mine = "the same plan" if identical else "another plan of tgi-advisor"
    return Finding(
        f"a container named {container.name!r} exists already: {runs} ({mine})",
        "--replace swaps it"
        + (", --reuse keeps it" if identical else "")
        + "; or give this one another container.name.",
    )


def _image(image: str, engine: Engine) -> bool:
    from docker.errors import ImageNotFound, NotFound

    with engine.asked(f"look at image {image}"):
        try:
            engine.client.inspect_image(image)
        except (ImageNotFound, NotFound):
            return False
        return True


def _gpu_runtime(container: Container, engine: Engine, *, present: bool) -> Iterator[Finding]:
    """Whether the engine can give out what the image needs."""
    if container.gpus is None and container.runtime is None:
        return
    with engine.asked("describe itself"):
        info = engine.client.info()
    runtimes = info.get("Runtimes") or {}
    if container.runtime and container.runtime not in runtimes:
        yield Finding(
            f"the engine has no runtime {container.runtime!r}; it knows {', '.join(sorted(runtimes))}",
            "Install Habana's container runtime and register it in /etc/docker/daemon.json "
            "(https://docs.habana.ai/en/latest/Installation_Guide/Additional_Installation/Docker_Installation.html).",
        )
    if container.gpus is None or "nvidia" in runtimes:
        return
    if any("nvidia.com/gpu" in str(device.get("ID")) for device in info.get("DiscoveredDevices") or ()):
        return
    if present and (refusal := probe(container, engine)):
        yield gpu_refusal(refusal)


def probe(container: Container, engine: Engine) -> str | None:
    """What the engine answers to the GPU request alone; None when it grants it.

    A container whose program does not exist is created and started: the devices are handed out before the program
    is looked for, so nothing ever runs.
    """
    from docker.errors import APIError

    nothing = "/tgi-advisor/only/asks/for/the/gpu"
    body = {
        "Image": container.image, "Entrypoint": [nothing], "Cmd": [], "Labels": {marks.LAUNCH: "probe"},
        "NetworkDisabled": True, "HostConfig": {"DeviceRequests": request.device_requests(container)},
    }  # fmt: skip
    with uninterrupted(), engine.asked("create a container that asks for the GPUs"):
        made = engine.client.create_container_from_config(body)["Id"]
        try:
            engine.client.start(made)
        except APIError as error:
            words = said(error)
            return None if nothing in words else words
        finally:
            engine.remove(made)
    return None


def gpu_refusal(words: str) -> Finding:
    """What the engine or the NVIDIA hook said to a GPU request, as something to do."""
    if "could not select device driver" in words:
        return Finding(
            f"the engine cannot give out GPUs: {words}",
            f"Install the NVIDIA Container Toolkit ({TOOLKIT}), then `sudo nvidia-ctk runtime configure "
            "--runtime=docker && sudo systemctl restart docker`.",
        )
    if "unknown device" in words:
        return Finding(
            f"the engine has no such GPU: {words}", "`nvidia-smi -L` lists them; name others in container.gpus."
        )
    return Finding(
        f"the engine could not give out the GPUs: {words}",
        "See whether `nvidia-smi` works on the engine's machine: the driver must be loaded.",
    )


def _port(container: Container, engine: Engine, replaced: str | None) -> Iterator[Finding]:
    """Whoever has the host's port already."""
    hint = "Stop it, or choose another container.port."
    with engine.asked("list containers"):
        others = engine.client.containers()
    for other in others:
        if any(port.get("PublicPort") == container.port for port in other.get("Ports") or ()):
            if other["Id"] != replaced:
                yield Finding(f"port {container.port} is published by container {other['Names'][0][1:]!r}", hint)
            return
    if engine.address.local and not _free(container.port):
        yield Finding(f"port {container.port} is taken by another program", hint)


def _free(port: int) -> bool:
    """Whether this machine's port can be listened on; one we may not use ourselves is the engine's business."""
    with socket.socket() as test:
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test.bind(("0.0.0.0", port))  # noqa: S104
        except PermissionError:
            return True
        except OSError:
            return False
        return True


def _gpu_memory(
    plan: Plan, container: Container, host: Host, engine: Engine, replaced: str | None
) -> Iterator[Finding]:
    """Whether the GPUs exist and have the memory free that the plan counts on."""
    if container.gpus is None or not engine.address.local or host.gpus is None or replaced:
        return
    by_id = {str(gpu.index): gpu for gpu in host.gpus}
    wanted = list(by_id) if isinstance(container.gpus, str) else list(container.gpus)
    missing = [gpu for gpu in wanted if gpu.isdecimal() and gpu not in by_id]
    if missing or len(wanted) < container.gpu_count:
        yield Finding(
            f"GPU {', '.join(missing)} is not here" if missing else
            f"the plan needs {container.gpu_count} GPUs, and this machine has {len(wanted)}",
            f"This machine has {', '.join(f'{g.index}: {g.name}' for g in host.gpus) or 'none'}.",
        )  # fmt: skip
    counted = plan.spec.hardware.in_use
    for gpu in [by_id[name] for name in wanted if name in by_id][: container.gpu_count]:
        if gpu.used_bytes is not None and gpu.used_bytes > counted + IDLE_BYTES:
            users = f": {'; '.join(gpu.users)}" if gpu.users else ""
            yield Finding(
                f"GPU {gpu.index} ({gpu.name}) has {human(gpu.used_bytes)} in use, and the plan counts on "
                f"{human(counted)}{users}",
                f"Stop what uses it, or plan with it: --set hardware.in_use={gpu.used_bytes // MiB}MiB.",
            )


def old_driver(plan: Plan, container: Container, host: Host) -> Iterator[Finding]:
    """Whether this machine's driver takes what a plan that knew of none does not count."""
    gpu = plan.facts.gpu
    added = outside.eager(gpu, plan.facts.release.version)
    if container.gpus is None or not host.gpus or gpu.driver or added is None or "CUDA_MODULE_LOADING" in container.env:
        return
    here = gpu._replace(driver=host.gpus[0].driver)
    if here.driver_major is not None and here.driver_major < added.drivers_below:
        more = added.amount.bytes
        yield Finding(
            f"driver {here.driver} loads every kernel at once, {human(more)} of each GPU that the plan does not count",
            f"Plan with it: --set hardware.driver={here.driver}; or save it: --set tgi.env.CUDA_MODULE_LOADING=LAZY.",
            blocks=plan.prediction.headroom_bytes < more,
        )


def _devices(container: Container) -> Iterator[Finding]:
    """Device nodes the image needs."""
    for node in container.devices:
        if not Path(node).exists():
            yield Finding(f"{node} is not here", "Install the GPU's driver; the image needs this device.")


def _disk(plan: Plan, container: Container) -> Iterator[Finding]:
    """Whether the weights can be written where they are kept."""
    for mount in container.mounts:
        folder = Path(request.source(mount)) if mount.is_path else None
        if folder is not None and folder.exists() and not folder.is_dir():
            yield Finding(f"{folder} is not a folder", "Name a folder, or remove the file.")
            return
        if folder is not None and mount is not container.mounts[0] and not folder.exists():
            yield Finding(f"the folder {folder} is not here", "Check model.id and container.mounts.")
    cache = container.mounts[0]
    if not cache.is_path:
        return
    folder = Path(request.source(cache))
    there = _existing(folder)
    if hasattr(os, "statvfs") and os.statvfs(there).f_flag & os.ST_RDONLY:
        yield Finding(f"{folder} lies on a file system that cannot be written to", "Name another container.cache.")
        return
    free = shutil.disk_usage(there).free
    missing = _to_download(plan, container)
    if missing > free:
        yield _no_room(f"{human(missing)} of weights are", folder, free)


def disk_of_all(plans: Sequence[Plan]) -> Iterator[Finding]:
    """Whether the weights of several servers fit a disk together, where those of each by itself would."""
    disks: dict[int, tuple[Path, dict[tuple[str, str], int]]] = {}
    for plan in plans:
        container = plan.container
        if container is None or not container.mounts[0].is_path:
            continue
        folder = Path(request.source(container.mounts[0]))
        _, missing = disks.setdefault(_existing(folder).stat().st_dev, (folder, {}))
        missing[str(folder), plan.facts.model.id] = _to_download(plan, container)
    for folder, missing in disks.values():
        free = shutil.disk_usage(_existing(folder)).free
        if max(missing.values()) <= free < sum(missing.values()):
            yield _no_room(f"{human(sum(missing.values()))} of weights of {len(missing)} models are", folder, free)


def _no_room(missing: str, folder: Path, free: int) -> Finding:
    return Finding(
        f"{missing} still to download, and {folder} has {human(free)} free",
        "Make room, or name a folder with room in container.cache.",
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(there for there in (folder, *folder.parents) if there.exists() or there == there.parent)


def _to_download(plan: Plan, container: Container) -> int:
    """Bytes of weights that are neither local nor in the cache."""
    return 0 if not plan.facts.model.fetched else max(0, container.weights_bytes - _cached(container))


def _cached(container: Container) -> int:
    """Bytes of the model already in the cache folder (`models--org--name`, directly or under `hub`)."""
    cache = container.mounts[0]
    model = _model(container)
    if not cache.is_path or not model:
        return 0
    name = f"models--{model.replace('/', '--')}"
    total = 0
    for folder in (Path(request.source(cache)) / name, Path(request.source(cache)) / "hub" / name):
        try:
            total += sum(f.stat().st_size for f in (folder / "blobs").iterdir() if not f.name.endswith(".incomplete"))
        except OSError:  # noqa: PERF203  (not there, or not ours to read)
            continue
    return total


def _model(container: Container) -> str | None:
    """The model it is told to serve, as an argument or in the environment (HF_MODEL_ID: SageMaker's entry point)."""
    args = container.args
    if "--model-id" in args[:-1]:
        return args[args.index("--model-id") + 1]
    return container.env.get("MODEL_ID", container.env.get("HF_MODEL_ID"))


def pull(image: str, engine: Engine, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Fetch the image, telling every message of the engine; finished layers are kept when it breaks off.

    EngineError or AccessError when the registry does not give it out.
    """
    from docker.errors import APIError

    name, tag = repository(image)
    with engine.asked(f"pull {image}"):
        try:
            for message in engine.client.pull(name, tag=tag, stream=True, decode=True):
                if "error" in message:
                    raise pull_refusal(image, str(message["error"]))
                tell(message)
        except APIError as error:
            raise pull_refusal(image, said(error)) from None
    if not _image(image, engine):  # a stream ends in the same way when its connection does
        raise pull_refusal(image, "the connection to the engine ended before the image was there")


def repository(image: str) -> tuple[str, str]:
    """`registry:5000/name:tag` -> name and tag, or digest; `latest` where none is given."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    repository, colon, tag = image.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (image, "latest")


def pull_refusal(image: str, words: str) -> EngineError | Any:
    """The registry's answer as an error with what to do."""
    from tgi_advisor.errors import AccessError

    low = words.lower()
    if any(word in low for word in ("unauthorized", "denied", "authentication required", "no basic auth")):
        registry = image.partition("/")[0]
        return AccessError(
            f"the registry does not give out {image}: {words}",
            f"Log in with `docker login {registry}`, and check the name: one that does not exist is answered likewise.",
        )
    if "manifest unknown" in low or "not found" in low:
        return AccessError(
            f"there is no image {image}: {words}",
            "Check tgi.image; `tgi-advisor releases` lists the releases, whose images carry no leading v.",
        )
    if "no space left" in low:
        return EngineError(
            f"the image {image} does not fit the engine's disk: {words}", "`docker system prune` makes room."
        )
    return EngineError(
        f"{image} could not be pulled: {words}", "Launch again: layers that arrived are kept and not fetched again."
    )
