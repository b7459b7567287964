"""TGI140-TGI149: how many shards, on which GPUs."""

from __future__ import annotations

from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, refused, rule

_COUNT = ("num-shard", "sharded")


def count_word(case: Case) -> Value | None:
    """The word that decides how many shards start."""
    visible = case.variable("CUDA_VISIBLE_DEVICES") or case.variable("NVIDIA_VISIBLE_DEVICES")
    return case.at("num-shard", "sharded") or visible or case.server.gpus.value


@refused(
    "TGI140", "shards that do not divide the model", "heads-not-divisible", "kv-heads-not-divisible", "kv-heads-lost",
    "falcon-groups", "size-not-divisible", reads=("num-shard", "quantize"),
)  # fmt: skip
def not_divisible(case: Case) -> Value | None:
    """Every shard holds the same number of attention heads, key/value heads and feed-forward columns.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 3

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 2
    """
    return count_word(case)


@refused(
    "TGI141", "a model that runs on one GPU only", "alibi-sharded", "automodel-sharded", "automodel-sharded-first",
    "mamba-sharded", "exl2-sharded", "exl2-checkpoint-sharded", reads=("num-shard", "quantize"),
)  # fmt: skip
def one_gpu_only(case: Case) -> Value | None:
    """TGI cannot split this model, or weights of this kind, over several GPUs.

    Failing::

        tgi:3.3.7 --model-id state-spaces/mamba-2.8b-hf --num-shard 2

    Fixed::

        tgi:3.3.7 --model-id state-spaces/mamba-2.8b-hf --num-shard 1
    """
    return count_word(case)


@refused("TGI142", "sharded without shards", "sharded-needs-two", "num-shard-zero", reads=_COUNT)
def sharded_needs_two(case: Case) -> Value | None:
    """`--sharded true` asks for at least two shards, and `--num-shard` for at least one.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --sharded true --num-shard 1

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1
    """
    return case.at("sharded", "num-shard")


@rule("TGI143", "error", "more shards than GPUs", "more-shards-than-gpus")
def more_shards_than_gpus(case: Case) -> Hits:
    """Every shard needs a GPU of its own; one without stops with `Each process is one gpu`.

    server/text_generation_server/utils/dist.py@v3.3.7:53. A privileged container sees every GPU of the host, whatever
    it is given (https://github.com/NVIDIA/nvidia-docker/issues/764).

    Failing::

        docker run --gpus '"device=0,1"' --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 4

    Fixed::

        docker run --gpus '"device=0,1"' --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 2
    """
    shards, visible, machine, asked = case.view.number("num-shard"), case.visible, case.machine, case.server.gpus
    if asked.asked == "none" or asked.sliced or not visible or case.view.image.system not in ("cuda", "rocm", None):
        return
    if case.server.privileged is not None and asked.how != "limits":
        if machine is None:
            return
        visible = machine.gpus
    word = case.at("num-shard")
    has = f"{machine.name} has {_gpus(machine.gpus)}" if machine is not None else ""
    if asked.value is not None and machine is not None and visible > machine.gpus:
        yield Hit(
            asked.value, f"{_gpus(visible)} asked for, but {has}", f"ask for {machine.gpus}, or use more machines"
        )
    elif word is not None and shards is not None and shards > visible:
        given = has if machine is not None and machine.gpus == visible else f"the container is given {_gpus(visible)}"
        yield Hit(word, f"{shards} shards, but {given}", f"set num_shard to {visible}, or give it {shards} GPUs")


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count > 1 else ''}"


@rule("TGI144", "warning", "fewer shards than GPUs")
def fewer_shards_than_gpus(case: Case) -> Hits:
    """GPUs the container is given but no shard uses stand idle, and are paid for.

    Up to 3.3.6 `--gpus all` without `--num-shard` starts one shard, however many GPUs there are.

    Failing::

        docker run --gpus '"device=0,1,2,3"' --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 2

    Fixed::

        docker run --gpus '"device=0,1"' --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 2
    """
    shards, visible = case.shards, case.visible
    given = case.server.gpus.asked != "none" or case.server.form == "sagemaker"
    if not given or not shards or not visible or shards >= visible or _narrowed(case, visible):
        return
    message = f"{visible} GPUs are given, but only {shards} {'are' if shards > 1 else 'is'} used"
    if case.server.gpus.sliced:
        message = f"{visible} MIG slices are given, and a process sees only one"
        yield Hit(case.server.gpus.value or case.home, message, "give the container one slice that is large enough")
        return
    step = f"set num_shard to {visible}, or give the container {shards} GPU{'s' if shards > 1 else ''}"
    yield Hit(count_word(case) or case.home, message, step)


_NARROWING = (
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HABANA_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES",
)  # fmt: skip
"""Variables by which fewer devices are shown to a server than it is given."""


def _narrowed(case: Case, visible: int) -> bool:
    """Whether fewer GPUs are shown to the server than it asks for, or somebody else may say how many it uses."""
    if case.server.form == "helm" and not {"num-shard", "sharded"} & case.view.flags.keys():
        return True  # the chart's templates may say how many shards
    for name in _NARROWING:
        value = case.variable(name)
        if value is not None and (not value.known or (value.text != "all" and len(value.text.split(",")) < visible)):
            return True
    several = ("ResourceRequirements", "EndpointType")  # inference components: several copies share the instance
    return case.server.form == "sagemaker" and any(word in case.document.text for word in several)


@rule("TGI145", "error", "GPU the container does not see")
def gpu_index_not_visible(case: Case) -> Hits:
    """Inside the container the GPUs it is given are numbered from 0, whatever their number on the host.

    `CUDA_VISIBLE_DEVICES=2` beside `--gpus '"device=2"'` names a GPU that is not there: CUDA then sees
    none at all. Choose the GPU in one place only.

    Failing::

        docker run --gpus '"device=2"' -e CUDA_VISIBLE_DEVICES=2 --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus '"device=2"' --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    word, visible = case.variable("CUDA_VISIBLE_DEVICES"), case.visible
    asked = case.server.gpus.asked
    if word is None or not word.known or not visible or asked not in ("ids", "count"):
        return
    if case.server.privileged is not None:
        return  # it sees every GPU of the host, by the host's numbers
    beyond = [index for index in word.text.split(",") if index.strip().isdecimal() and int(index) >= visible]
    if beyond:
        given = "one GPU, number 0" if visible == 1 else f"{visible} GPUs, numbers 0 to {visible - 1}"
        step = "leave CUDA_VISIBLE_DEVICES out, or count from 0"
        yield Hit(word, f"CUDA_VISIBLE_DEVICES names GPU {', '.join(beyond)}, but the container sees {given}", step)


@rule("TGI146", "error", "several slices of a card", "mig-sharded")
def mig_slices(case: Case) -> Hits:
    """A process sees one MIG slice, however many the container is given: TGI cannot split a model over several.

    A shard stops with `Each process is one gpu` (server/text_generation_server/utils/dist.py@v3.3.7:53), as
    CUDA enumerates a single MIG device (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/).

    Failing, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct, --num-shard, "2"]
              resources: {limits: {nvidia.com/mig-1g.10gb: 2}}
              volumeMounts: [{name: data, mountPath: /data}, {name: shm, mountPath: /dev/shm}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}, {name: shm, emptyDir: {medium: Memory}}]

    Fixed, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct, --num-shard, "1"]
              resources: {limits: {nvidia.com/mig-2g.20gb: 1}}
              volumeMounts: [{name: data, mountPath: /data}, {name: shm, mountPath: /dev/shm}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}, {name: shm, emptyDir: {medium: Memory}}]
    """
    sliced = case.server.gpus.sliced or (case.gpu is not None and bool(case.gpu.mig))
    if not sliced or not case.shards or case.shards < 2:
        return
    message = f"{case.shards} shards on MIG slices: each sees a single slice, so TGI stops with Each process is one gpu"
    yield Hit(count_word(case) or case.home, message, "set num_shard to 1, on one slice that is large enough")
