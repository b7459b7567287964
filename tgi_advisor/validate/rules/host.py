"""TGI301-TGI319: what the container gets from the host: GPUs, memory, ports, platform."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile

from tgi_advisor.errors import AdvisorError, Place
from tgi_advisor.facts.gpu import is_arm64, without_gpu
from tgi_advisor.render.kubernetes import shm_bytes
from tgi_advisor.units import GiB, MiB, human
from tgi_advisor.validate.finding import Severity
from tgi_advisor.validate.found import Port, Probe, Value
from tgi_advisor.validate.memory import memory_limit
from tgi_advisor.validate.rules.arguments import is_docker_flag
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, refused, rule
from tgi_advisor.validate.rules.shards import count_word

SHM = "/dev/shm"  # noqa: S108
"""Where the shards share memory."""
CONTAINERS = ("compose", "docker-run", "kubernetes")
"""Forms in which the file itself decides how the container is started."""


_FOR_CPU = re.compile(r"(?<![A-Za-z0-9])(?:cpu|cpus|cpu-?only|no-?gpu|xeon|epyc|spr|gnr)(?![A-Za-z0-9])", re.IGNORECASE)
"""The path of a file, or the name of a service, that is meant for a machine without a GPU."""
_SAID_FOR_CPU = re.compile(
    r"\bCPU[- ]?(?:only|examples?|mode|versions?|inference|deployments?|setup|hosts?|machines?|tests?)\b"
    r"|\b(?:on|for|with|using)\s+(?:an?\s+|the\s+)?(?:Intel\s+|Xeon\s+)?CPUs?\b"
    r"|\b(?:without|no|not?\s+(?:have|use|need))\s+(?:an?\s+|any\s+)?(?:NVIDIA\s+)?GPUs?\b",
    re.IGNORECASE,
)
"""What a comment or a page says of such a server."""
_PAGES = (".md", ".mdx", ".markdown", ".rst")
_ABOVE = 20
"""Lines above a server in which that is looked for."""


def _meant_for_cpu(case: Case) -> bool:
    """Whether it is said that the server shall do without a GPU: by the file's path, the service's name, a comment or
    the text above it, no GPU on purpose (`--gpus 0`, CUDA_VISIBLE_DEVICES="") or the kernels of GPUs switched off.
    """
    server = case.server
    hidden = [case.variable(name) for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")]
    if any(one is not None and one.known and one.text.strip() in ("", "-1", "none", "void") for one in hidden):
        return True
    if server.gpus.how == "flag" or case.view.get("disable-custom-kernels") is not None:
        return True
    if _FOR_CPU.search(case.document.file) or _FOR_CPU.search(server.name):
        return True
    return any(_SAID_FOR_CPU.search(line) for line in _said_above(case))


def _said_above(case: Case) -> Iterator[str]:
    """The comments above a server and, of a page, the text down from its heading; of a script or a manifest those that
    the file begins with, too.
    """
    lines = case.document.text.split("\n")
    page, prose = case.document.file.lower().endswith(_PAGES), False
    for line in reversed(lines[max(0, case.server.place.line - 1 - _ABOVE) : case.server.place.line - 1]):
        plain = line.strip()
        if page and plain.startswith(("```", "~~~")):
            if prose:
                return
            prose = True
        elif plain.startswith(("#", "//")):
            yield plain
            if prose:
                return
        elif prose:
            yield plain
        elif plain and not page:
            break
    yield from () if page else takewhile(lambda line: line.startswith(("#", "//")), lines)


@rule("TGI301", "warning", "no GPU is asked for")
def gpu_not_requested(case: Case) -> Hits:
    """An image for GPUs is started without one: at best it runs on the CPU, without flash attention.

    2.0 and later have been reported to stop instead (huggingface/text-generation-inference#1770).

    `docker run` wants `--gpus`, Compose a device reservation or `runtime: nvidia`, Kubernetes
    `resources.limits` with `nvidia.com/gpu`, a cloud an instance type that has one. Nothing is said where that is
    meant: the file's path (`intel/cpu/xeon/compose.yaml`), the service's name or a comment above says CPU, `--gpus 0`
    or `--disable-custom-kernels` is given; nor of a Compose file that others are laid over (`compose.base.yaml`, or
    one beside which another gives the service a GPU).

    Failing::

        docker run --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    if case.view.image.system not in ("cuda", "rocm", "xpu", "gaudi"):
        return
    named = next((hint.value for hint in case.server.hints if hint.kind == "instance" and hint.value.known), None)
    if named is not None and without_gpu(named.text):
        step = "use an instance type with a GPU, such as ml.g5.2xlarge or g2-standard-12"
        yield Hit(named, f"the image is made for GPUs, and {named.text} has none", step)
        return
    if case.server.form not in CONTAINERS:
        return
    if case.server.gpus.asked == "none" and case.server.privileged is None and not _meant_for_cpu(case):
        how = {"docker-run": "add --gpus all", "compose": "reserve a GPU under deploy.resources.reservations.devices"}
        step = how.get(case.server.form, "add nvidia.com/gpu under resources.limits")
        if case.view.image.system == "rocm":
            step = "pass --device /dev/kfd and --device /dev/dri"
        yield Hit(case.home, "the image is made for GPUs, but none is asked for: at best it runs on the CPU", step)


@rule("TGI302", "warning", "GPU among requests only")
def gpu_without_limit(case: Case) -> Hits:
    """Kubernetes wants GPUs under `limits`; requests alone are refused or ignored.

    An extended resource cannot be overcommitted: a request must equal its limit, and the API server
    refuses one without (https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/).

    Failing, deployment.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {requests: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]

    Fixed, deployment.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
    """
    asked = case.server.gpus
    if case.server.form == "kubernetes" and asked.requests is not None and asked.limits is None:
        yield Hit(asked.requests, "a GPU stands under requests only", "state the same number under limits")


@rule("TGI303", "warning", "shared memory too small for several shards")
def missing_shm(case: Case) -> Hits:
    """Shards talk through /dev/shm, and a container gets 64 MB of it unless it is told otherwise.

    NCCL then stops with `Error while creating shared memory segment`. Give it 1 GB (`--shm-size 1g`, in
    Kubernetes an emptyDir with medium Memory on /dev/shm), share the host's (`--ipc host`), or set
    NCCL_SHM_DISABLE=1, which is slower.

    Failing::

        docker run --gpus '"device=0,1"' -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 2

    Fixed::

        docker run --gpus '"device=0,1"' --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 2
    """
    server = case.server
    if not case.shards or case.shards < 2 or server.form not in CONTAINERS or server.unknown:
        return
    if case.view.image.system not in ("cuda", "rocm", None):
        return
    if server.ipc is not None or any(mount.target.text.rstrip("/") == SHM for mount in server.mounts):
        return
    disabled = case.view.env.get("NCCL_SHM_DISABLE")
    if disabled is not None and (not disabled.known or disabled.text == "1"):
        return
    if server.shm_size is None:
        has = "the default /dev/shm of 64 MB"
    else:
        size = _shm(server.shm_size)
        if size is None or size >= 256 * MiB:
            return
        has = f"a /dev/shm of {server.shm_size.text}"
    step = (
        "mount an emptyDir with medium Memory on /dev/shm"
        if server.form == "kubernetes"
        else "give it 1g of shared memory"
    )
    yield Hit(count_word(case) or case.home, f"{case.shards} shards share {has}", step)


def _shm(value: Value) -> int | None:
    if not value.known:
        return None
    try:
        return shm_bytes(value.text)
    except AdvisorError:
        return None


@rule("TGI304", "warning", "two servers on the same GPUs")
def shared_gpu(case: Case) -> Hits:
    """A server takes all the memory that is free on its GPUs; the next one on them finds next to none.

    Give each its own GPU. Where they must share, `--cuda-memory-fraction` caps each of them, and counts
    everybody's memory: 0.45 for the first and 0.9 for the second, which then has 0.45 of the GPU. Two halves of
    0.5 leave the second without a KV cache. In Docker `--gpus 1` and `count: 1` are GPU 0, every time.

    Failing::

        docker run -d --name one --gpus all -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-3B-Instruct
        docker run -d --name two --gpus all -p 8081:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-3B-Instruct

    Fixed::

        docker run -d --name one --gpus '"device=0"' -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-3B-Instruct
        docker run -d --name two --gpus '"device=1"' -p 8081:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-3B-Instruct
    """
    reserving = [one for one in case.before if one.setting is None or one.setting.family.paged]
    if not reserving:
        return
    mine, theirs = _fraction(case), [_fraction(other) for other in reserving]
    most = max((one for one in theirs if one is not None), default=None)
    if mine is None or most is None or None in theirs:
        return
    word, count = case.at("cuda-memory-fraction") or case.server.place, len(case.before) + 1
    example = ", ".join(f"{number / count:.2g}" for number in range(1, count + 1))
    step = f"give each its own GPU, or fractions that grow by what each shall have, such as {example}"
    if mine <= most and word is case.server.place:
        yield Hit(word, "another server of this file already takes all memory of these GPUs", step)
    elif mine <= most:
        message = f"a fraction counts everybody's memory on the GPU: behind {most:g}, {mine:g} leaves nothing"
        yield Hit(word, message, step)
    elif case.prediction is not None and case.prediction.outcome == "starts":
        from tgi_advisor.validate.together import beside  # only where servers share

        found = beside(case)
        if found is not None and found[0].outcome == "out_of_memory":
            missing = human(found[0].missing_bytes)
            message = f"the servers before it hold {human(found[1])} of the GPU, and beside that {missing} are missing"
            yield Hit(word, message, "lower their fraction, or give each its own GPU")


def _fraction(case: Case) -> float | None:
    """The memory fraction of a server; None where it cannot be known."""
    given = case.view.flags.get("cuda-memory-fraction")
    if given is None:
        return 1.0 if case.view.complete else None
    return float(given.typed) if isinstance(given.typed, (int, float)) else None


@rule("TGI305", "error", "host memory too small to load")
def host_memory(case: Case) -> Hits:
    """The container may use less memory than the server's processes need: it is killed while it starts.

    Every shard is a Python process with PyTorch and a CUDA context: below 1 GiB none starts, and below
    4 GiB a shard it is risky. In Docker `m` means mebibytes: `--memory=6m` is Docker's own minimum. On a
    CPU image the weights themselves must fit.

    Failing::

        docker run --gpus all --memory 512m -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --memory 16g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    word = case.server.memory_limit
    limit = memory_limit(case.server)
    if word is None or limit is None:
        return
    shards = case.shards or 1
    cpu = case.view.image.system == "cpu" and case.prediction is None  # else TGI201 says it
    if cpu and case.facts is not None and limit < case.facts.stored_bytes:
        weights = human(case.facts.stored_bytes)
        yield Hit(
            word,
            f"the weights take {weights} of host memory, and the limit is {human(limit)}",
            f"allow more than {weights}",
        )
    elif limit < GiB:
        yield Hit(word, f"{human(limit)} of host memory: no shard can start in it", f"allow at least {4 * shards}g")
    elif limit < 4 * GiB * shards:
        message = f"{human(limit)} of host memory for {shards} shard{'s' if shards > 1 else ''} is little"
        yield Hit(word, message, f"allow at least {4 * shards} GiB", "warning")


@rule("TGI306", "error", "platform the image is not built for", "arm64-host")
def platform(case: Case) -> Hits:
    """TGI's images exist for x86-64 only (.github/workflows/build.yaml@v3.3.7:221): elsewhere the container stops
    with `exec format error`. Graviton instances (g5g, c7g, ...) and GH200 are arm64.

    Failing::

        docker run --platform linux/arm64 --gpus all -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    if case.view.image.variant is None:
        return  # somebody's own image may be built for it
    word = case.server.platform
    instance = next((one.value for one in case.server.hints if one.kind == "instance" and one.value.known), None)
    step = "run it on an x86-64 host"
    if word is not None and word.known and re.search(r"arm|aarch64", word.text, re.IGNORECASE):
        yield Hit(word, f"TGI has no image for {word.text}", f"leave the platform out, and {step}")
    elif instance is not None and is_arm64(instance.text):
        yield Hit(instance, f"{instance.text} has an arm64 CPU, for which TGI has no image", step)
    elif case.gpu is not None and case.gpu.arm64:
        message = f"{case.gpu.name} sits beside an arm64 CPU, for which TGI has no image"
        yield Hit(case.gpu_word or case.home, message, step)


@rule("TGI307", "error", "GPUs of another maker than the image's")
def vendor(case: Case) -> Hits:
    """The image is built for other GPUs than the container is given.

    With `--gpus` Docker gives NVIDIA's, and AMD's only from 29.3.0 on, where AMD's own toolkit is installed: for
    the ROCm image that is a warning
    (https://instinct.docs.amd.com/projects/container-toolkit/en/latest/container-runtime/running-workloads.html).

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7-rocm --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    asked, system = case.server.gpus, case.view.image.system
    made_for = {"cuda": "nvidia", "rocm": "amd", "xpu": "intel", "gaudi": "habana"}.get(system or "")
    if asked.asked in ("none", "unknown") or made_for is None or asked.vendor == made_for or asked.how == "platform":
        return
    if asked.vendor == "intel" and asked.how == "device":
        return  # /dev/dri is the display of any host
    ending = {"nvidia": "no suffix", "amd": "-rocm", "intel": "-intel-xpu", "habana": "-gaudi"}.get(
        asked.vendor, "another suffix"
    )
    message = f"the image runs on {made_for} GPUs, and the container is given {asked.vendor}'s"
    severity: Severity | None = "warning" if made_for == "amd" and asked.how == "flag" else None
    yield Hit(asked.value or case.home, message, f"take the image with {ending} for {asked.vendor} GPUs", severity)


@rule("TGI308", "error", "port on which nothing listens")
def port_mismatch(case: Case) -> Hits:
    """A port is published, probed or targeted, but the server listens on another one.

    TGI's images set PORT=80, SageMaker's listens on 8080; `--port` or PORT changes it. With
    `--network host` published ports are discarded. A Kubernetes `containerPort` only informs, so a wrong
    one is a warning.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:8080 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    listening = case.view.port
    if listening is None or (case.view.image.variant is None and not case.view.image.cloud):
        return
    names = {port.name: port for port in case.server.ports if port.kind == "container" and port.name}
    host = case.server.network is not None and case.server.network.text == "host"
    for kind in ("publish", "service", "platform", "container"):
        ports = [port for port in case.server.ports if port.kind == kind]
        if kind in ("service", "publish") and _shared(case):
            continue  # it may mean another container of the pod, or of the network
        if kind == "publish" and host and case.server.form in ("docker-run", "compose"):
            for port in ports[:1]:
                word = port.host or port.container
                if word is not None and not (port.host is not None and port.host.number == listening):
                    message = (
                        f"with the host's network published ports are discarded: the server listens on {listening}"
                    )
                    yield Hit(word, message, f"ask port {listening}, or pass --port {word.text}")
            continue
        numbers = [_inside(port, names) for port in ports]
        if not ports or any(number is None or number == listening for number in numbers):
            continue
        word = ports[0].container
        if word is not None:
            step = f"write {listening}, or set PORT to {numbers[0]}"
            yield Hit(word, f"nothing listens on port {numbers[0]}: the server listens on {listening}", step,
                      "warning" if kind == "container" else None)  # fmt: skip
    for probe in case.server.probes if not case.server.beside else ():
        found = _probed(probe, names)
        if found is not None and found[1] != listening:
            message = f"the {probe.kind} check asks port {found[1]}, but the server listens on {listening}"
            yield Hit(found[0], message, f"ask port {listening}")


def _shared(case: Case) -> bool:
    """Whether other containers may answer on the server's address."""
    name = case.server.name if case.server.form == "docker-run" else ""
    return case.server.beside > 0 or (bool(name) and f"container:{name}" in case.document.text)


def _inside(port: Port, names: Mapping[str, Port]) -> int | None:
    """The number of a port inside the container, names resolved; None when it cannot be known."""
    word = port.container
    if word is None or not word.known:
        return None
    if word.number is not None:
        return word.number
    named = names.get(word.text)
    return named.container.number if named is not None and named.container is not None else None


def _probed(probe: Probe, names: Mapping[str, Port]) -> tuple[Value, int] | None:
    if probe.port is not None and probe.action in ("http", "tcp"):
        number = _inside(Port("probe", probe.port), names)
        return None if number is None else (probe.port, number)
    for word in probe.words:
        asked = re.search(r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0):(\d{1,5})\b", word.text)
        if asked and word.known:
            return word, int(asked[1])
    return None


@rule("TGI309", "error", "Docker option behind the image")
def docker_option(case: Case) -> Hits:
    """Everything behind the image's name goes to the launcher, which has no such flag and stops.

    Failing::

        docker run --shm-size 1g -p 8080:80 -v tgi-data:/data --gpus all \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct \\
            --restart always

    Fixed::

        docker run --shm-size 1g -p 8080:80 -v tgi-data:/data --gpus all --restart always \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    for slip in case.view.slips:
        if slip.kind == "unknown" and is_docker_flag(case, slip):
            message = f"{slip.word.text.partition('=')[0]} is an option of docker run, but stands behind the image"
            yield Hit(slip.word, message, "move it before the image")


@refused(
    "TGI310", "GPU the image has no kernels for", "gpu-newer-than-its-kernels", "gpu-older-than-its-kernels",
    "gpu-without-rocm-kernels", "norm-without-kernels",
)  # fmt: skip
def kernels(case: Case) -> Place | Value | None:
    """PyTorch and TGI's own code are compiled for some GPUs: NVIDIA's up to compute capability 9.0, and from 3.3.1 on
    (PyTorch 2.7 for CUDA 12.8) those from 7.5 on, so no V100. On Blackwell 3.3.1 and newer load, and stop in the
    warm-up of nearly every model (huggingface/text-generation-inference#3342). The ROCm images are for MI200 and, from
    2.0.4 on, MI300.

    Failing, --gpu nvidia-v100-32gb::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1

    Fixed, --gpu nvidia-l4::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1
    """
    return case.gpu_word
