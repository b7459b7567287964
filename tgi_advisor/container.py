"""From what was asked and what is true to exactly what runs: the one place a `Container` is made.

Everything here is pure. What a renderer writes and what a launch starts both come from the record
made here, so the traps of TGI's images are handled here once:

- A cloud's image has a port and a weight cache of its own (`facts/clouds.yaml`); what follows is true of TGI's.
- SageMaker's image, and Google's of 2.0.0, drop their arguments: the launcher gets everything as variables, the
  model, its revision, shards and quantization under the names that SageMaker's entry point copies from.
- The images set PORT=80 and HOSTNAME is the container's id, so neither `--port` nor `--hostname` is
  passed and a host port is mapped to 80. Host networking, which TGI's pages show for AMD and Intel,
  is not used: the server would take port 80 of the host, and two servers on one machine would clash
  on the Prometheus port 9000 (docs/source/installation_amd.md, launcher/src/main.rs@v3.3.7).
- /data is the weight cache of every image; which variable says so (HF_HOME from 2.3.0 on,
  HUGGINGFACE_HUB_CACHE before and in the Intel CPU image) the image sets itself.
- `--num-shard` is always stated: without it, `--gpus all` means one shard up to 3.3.6.
- `--max-total-tokens` is never passed without its input limit: from 2.4.1 on the warm-up would
  compute a negative number of new tokens in unsigned arithmetic.
- tgi-entrypoint.sh hands `$@` on unquoted, so an argument with blanks or glob characters would be
  split or expanded: such an argument goes through its environment variable instead.
- The Hub token is a reference to a variable of the caller's shell, never a value. It is passed for
  every model of the Hub, gated or not: a token also lifts the Hub's rate limit.
"""

import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast

from tgi_advisor.errors import SpecError
from tgi_advisor.estimate.speed import Served
from tgi_advisor.estimate.underload import DECODING
from tgi_advisor.facts import clouds, clusters
from tgi_advisor.facts.flags import Flag, Value, find, parse_value, render
from tgi_advisor.facts.gpu import instance_type
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import TgiRelease, image_for, in_force
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Cluster, Container, Mount, Prediction, Scaling
from tgi_advisor.safe import looks_secret
from tgi_advisor.spec.records import EMPTY, AutoscaleSpec, KubernetesSpec, Spec, flag_homes, settings
from tgi_advisor.spec.values import VOLUME
from tgi_advisor.units import GiB

CACHE = "/data"
"""Where every image keeps the weights."""
WORKING_DIRECTORY = "/usr/src"
"""`WORKDIR` of every image."""
PORT = 80
"""`ENV PORT=80` of every image."""
ENTRY = "/tgi-entrypoint.sh"
"""`ENTRYPOINT` of every image from 2.0.0 on."""
LAUNCHER = "text-generation-launcher"
"""`ENTRYPOINT` of the images before it."""


class Platform(NamedTuple):
    """What the container of one TGI system needs from the host."""

    variant: str
    """Image variant."""
    source: str
    """Where the options below are documented."""
    gpu_resource: str | None = None
    """Kubernetes extended resource that stands for one GPU."""
    ids_env: str | None = None
    """Environment variable that picks devices by id; None where Docker has a flag for it."""
    devices: tuple[str, ...] = ()
    """Device nodes."""
    runtime: str | None = None
    """Container runtime."""
    cap_add: tuple[str, ...] = ()
    """Linux capabilities."""
    security_opt: tuple[str, ...] = ()
    """Security options."""
    group_add: tuple[str, ...] = ()
    """Groups."""
    ipc: str | None = None
    """IPC mode."""
    privileged: bool = False
    """Whether it must be privileged."""
    env: Mapping[str, str] = EMPTY
    """Environment needed unless the spec says otherwise."""
    sharded_env: Mapping[str, str] = EMPTY
    """Environment needed with more than one shard."""


PLATFORMS: Mapping[str, Platform] = {
    "cuda": Platform("", "docs/source/installation_nvidia.md@v3.3.7", gpu_resource="nvidia.com/gpu"),
    "rocm": Platform(
        "rocm", "docs/source/installation_amd.md@v3.3.7",
        gpu_resource="amd.com/gpu", ids_env="ROCR_VISIBLE_DEVICES", devices=("/dev/kfd", "/dev/dri"),
        cap_add=("SYS_PTRACE",), security_opt=("seccomp=unconfined",), group_add=("video",), ipc="host",
    ),
    "xpu": Platform(
        "intel-xpu", "docs/source/installation_intel.md@v3.3.7",
        gpu_resource="gpu.intel.com/i915", ids_env="ZE_AFFINITY_MASK", devices=("/dev/dri",),
        cap_add=("SYS_NICE",), ipc="host", privileged=True, env={"CUDA_GRAPHS": "0"},
    ),
    # The documented command for CPUs is the one for Intel GPUs. Of it the server needs SYS_NICE alone,
    # to bind its memory to NUMA nodes; /dev/dri stops the container on a host without a GPU, and the
    # image itself sets CUDA_GRAPHS=0.
    "cpu": Platform(
        "intel-cpu", "server/text_generation_server/models/flash_causal_lm.py@v3.3.7:93-118", cap_add=("SYS_NICE",)
    ),
    # The entry point exports the variable only when it sees `--sharded true`; set here, it also
    # holds where the arguments come from the environment (backends/gaudi/tgi-entrypoint.sh@v3.3.7).
    "gaudi": Platform(
        "gaudi", "docs/source/backends/gaudi.mdx@v3.3.7:21,64",
        gpu_resource="habana.ai/gaudi", ids_env="HABANA_VISIBLE_DEVICES", runtime="habana",
        cap_add=("SYS_NICE",), ipc="host", sharded_env={"PT_HPU_ENABLE_LAZY_COLLECTIVES": "1"},
    ),
}  # fmt: skip


def build(
    spec: Spec, facts: Facts, limits: Limits, num_shard: int, prediction: Prediction | None = None,
    speed: Served | None = None,
) -> Container:  # fmt: skip
    """The container that runs `spec` with these limits on `num_shard` GPUs.

    `limits` are the ones to state; `prediction`, where there is one, supplies the input limit when
    only the total is given, and `speed` how long a prefill takes. SpecError when something cannot be passed to the
    image as written, FactsError when nodes with the GPU cannot be told.
    """
    platform = PLATFORMS[facts.gpu.system]
    weights = _local_weights(spec, facts)
    cloud = clouds.find(spec.tgi.image) if spec.tgi.image else None
    flags = _flags(spec, facts, limits, num_shard, prediction)
    deaf = cloud is not None and not cloud.reads_arguments(facts.release.name)
    launch = _variables(flags, spec, facts, cloud) if cloud and deaf else _launch(flags, spec, facts)
    shared = platform.sharded_env if num_shard > 1 else {}
    gpus = _gpus(spec, num_shard)
    port, cache = _of_image(spec, facts, cloud)
    made = Container(
        name=spec.container.name,
        image=spec.tgi.image or image_for(facts.release, facts.variant or platform.variant),
        args=launch.args,
        env={**platform.env, **shared, **_mirror(facts), **spec.tgi.env, **launch.env},
        secret_env={} if weights and not facts.model.fetched else {facts.release.token_env: spec.container.token_env},
        mounts=_mounts(spec, weights, _base_of_heads(facts), cache),
        port=spec.container.port,
        container_port=port,
        gpus=gpus if facts.gpu.system == "cuda" else None,
        gpu_count=num_shard if platform.gpu_resource else 0,
        shm_size=spec.container.shm_size,
        devices=platform.devices,
        runtime=platform.runtime,
        cap_add=platform.cap_add,
        security_opt=platform.security_opt,
        group_add=platform.group_add,
        ipc=platform.ipc,
        privileged=platform.privileged,
        gpu_resource=f"nvidia.com/mig-{facts.gpu.mig}" if facts.gpu.mig else platform.gpu_resource,
        startup_seconds=startup_seconds(facts),
        weights_bytes=disk_bytes(facts),
        host_memory_bytes=host_memory_bytes(facts, num_shard),
        args_env=launch.args_env,
        args_only=launch.args_only,
        device_env={platform.ids_env: ",".join(gpus)} if platform.ids_env and not isinstance(gpus, str) else {},
        token_needed=facts.model.gated and (weights is None or facts.model.fetched),
        replicas=spec.container.replicas,
        step_seconds=step_seconds(speed, prediction.limits if prediction else limits),
        cluster=_cluster(spec, facts, num_shard),
        scaling=_scaling(spec, prediction),
        gpu=facts.gpu.name,
        instance=instance_type(spec.hardware.gpu.name) or "",
        entry=entry_of(facts.release) if cloud is None else "",
    )
    _refuse_unwritable(made, spec)
    return made


def entry_of(release: TgiRelease) -> str:
    """What TGI's own images start: the launcher, and from 2.0.0 on a script, which from 3.1.1 on activates its Python.

    Dockerfile@v3.3.7:262, Dockerfile@v2.0.0:212, Dockerfile@v1.4.5:190.
    """
    return ENTRY if release.version >= (2, 0, 0) else LAUNCHER


def elsewhere(
    made: Container, image: str, args: tuple[str, ...], port: int, cache: str, health: str, shm_size: str,
    env: Mapping[str, str], secret_env: Mapping[str, str], metrics: Mapping[str, str],
) -> Container:  # fmt: skip
    """The same container with another engine in it: what is the host's stays, what is TGI's image's goes.

    The cache is mounted where the engine's image has its own (`HF_HOME`); what a TGI before 2.3.0 left in it lies
    without the folder `hub` in between, which is then mounted itself. `metrics` are the engine's gauges that count as
    TGI's do; replicas that another gauge of TGI's decides about are left as many as they are.
    """
    scaled = made.scaling
    if scaled is not None:
        gauge = metrics.get(scaled.metric)
        scaled = scaled._replace(metric=gauge, asked=EMPTY) if gauge else None
    first, *rest = made.mounts
    caller = next(iter(made.secret_env.values()), None)
    kept = {name: value for name, value in made.env.items() if name == "HF_ENDPOINT"}
    return made._replace(
        image=image,
        args=args,
        env={**kept, **env},
        secret_env={**({"HF_TOKEN": caller} if caller else {}), **secret_env},
        mounts=(first._replace(target=cache), *rest),
        container_port=port,
        health=health,
        shm_size=shm_size,
        args_env={},
        args_only=args,
        entry="",
        cluster=made.cluster._replace(asked=EMPTY),
        scaling=scaled,
    )


def source_of(spec: Spec, facts: Facts) -> tuple[str, str | None]:
    """(what a server loads: the model's id, or its folder inside the container; the revision, None for a folder)."""
    weights = _local_weights(spec, facts)
    if weights is not None:
        return weights.path, None
    return spec.model.id, facts.model.commit or (spec.model.revision if spec.model.revision != "main" else None)


def disk_bytes(facts: Facts) -> int:
    """Bytes of weights on disk; a checkpoint in .bin files is converted and kept twice."""
    copies, heads = 1 if facts.model.weights_format == "safetensors" else 2, facts.model.heads
    return copies * facts.model.stored_bytes + (heads.stored_bytes if heads else 0)


def startup_seconds(facts: Facts) -> int:
    """Seconds until a healthy server must answer: 10 minutes to load and warm up, the download at 25 MB/s.

    ROCm tunes its matrix kernels on top, which takes minutes (docs/source/installation_amd.md@v3.3.7).
    """
    tuning = 600 if facts.gpu.system == "rocm" else 0
    seconds = 600 + tuning + disk_bytes(facts) // 25_000_000
    return -(-seconds // 60) * 60


def step_seconds(speed: Served | None, limits: Limits) -> int:
    """Seconds that the longest prefill may take, at least 10: `/health` waits for it.

    Taken from the upper end of the estimate of a prompt of max_input_tokens, which a chunk of it does not exceed, times
    the number of such prompts in a batch; 60 where nothing supports an estimate.
    """
    first = speed.alone.first if speed else None
    if first is None or not limits.max_input_tokens:
        return 60
    prompts = max(1.0, (limits.max_batch_prefill_tokens or 0) / limits.max_input_tokens)
    return max(10, 5 + math.ceil(first.high * prompts))


METRICS = {
    "queue": "tgi_queue_size", "batch": "tgi_batch_current_size", "gpu-cache": "tgi_batch_current_max_tokens",
}  # fmt: skip
"""TGI's gauges by what they tell; every release from 1.0.0 to 3.3.7 has them.

https://github.com/huggingface/text-generation-inference/blob/v1.0.0/router/src/infer.rs#L280-L281
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/v3/src/backend.rs#L170-L171
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/v3/src/queue.rs#L143-L158
"""
CACHE_FULL = 80
"""Per cent of the KV cache above which replicas are added."""


def _cluster(spec: Spec, facts: Facts, num_shard: int) -> Cluster:
    """What the spec says of the cluster, and the nodes of its kind that have the GPU.

    No label where an instance type stands in place of the GPU, and the cluster tells its nodes by that.
    """
    said = spec.kubernetes
    several = max(spec.container.replicas, spec.autoscale.max or 1) > 1
    storage = said.storage or ("shared" if several else "one")
    found = clusters.nodes(said.cluster, facts.gpu, num_shard) if said.cluster else clusters.Nodes("", (), ())
    if instance_type(spec.hardware.gpu.name) in found.values:
        found = found._replace(label="", values=())
    kind = cast(Literal["one", "shared", "node"], storage)
    return Cluster(*found, kind, said.storage_class, said.pull_secret, _asked(said))


def _scaling(spec: Spec, prediction: Prediction | None) -> Scaling | None:
    """How the number of replicas is kept; SpecError where a share of the KV cache is asked of one nobody knows."""
    said = spec.autoscale
    if said.max is None:
        return None
    admitted = spec.tgi.flags.get("max-concurrent-requests", DECODING)
    held = prediction.concurrency if prediction else None
    budget = prediction.limits.max_batch_total_tokens if prediction else None
    if said.on == "gpu-cache":
        if budget is None:
            raise _wrong(
                spec, "autoscale.on", "autoscale.on gpu-cache: TGI infers no KV cache for this model and GPU.",
                "Scale on queue or batch.",
            )  # fmt: skip
        above = budget * (said.target or CACHE_FULL) // 100
    elif said.on == "batch":
        above = said.target or max(1, (held or DECODING) * 4 // 5)
    else:
        above = said.target or max(1, (admitted if isinstance(admitted, int) else DECODING) // 20)
    fewest = spec.container.replicas if said.min is None else said.min
    return Scaling(fewest, said.max, METRICS[said.on], above, said.by == "keda", said.prometheus, _asked(said))


def _asked(section: KubernetesSpec | AutoscaleSpec) -> dict[str, Any]:
    """The fields of a section that do not have their default."""
    fields = settings(type(section))
    return {name: value for name in fields if (value := getattr(section, name)) != fields[name].metadata["default"]}


def host_memory_bytes(facts: Facts, num_shard: int) -> int:
    """Host memory worth reserving: 4 GiB per shard process, or the RAM the plan counts on for a CPU.

    A tenth of a CPU host stays for the system: no node can give all of its memory to one pod.
    """
    if facts.gpu.system == "cpu":
        return facts.gpu.memory_bytes * 9 // 10
    return num_shard * 4 * GiB


# -- what the launcher is told


class _LocalWeights(NamedTuple):
    """A model folder of the host, and where the launcher finds it."""

    mount: Mount
    path: str


class _Launch(NamedTuple):
    """Launcher flags sorted by the way they are passed; the fields of `Container` of the same names."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    args_env: Mapping[str, str]
    args_only: tuple[str, ...]


def _local_weights(spec: Spec, facts: Facts) -> _LocalWeights | None:
    """Where a local model is mounted; None for a model of the Hub.

    A snapshot folder of the Hub's cache holds links into its neighbour `blobs`, so the repository's
    whole folder is mounted. Only .bin weights need a folder that can be written to: TGI puts the
    converted files beside them.
    """
    folder = facts.model.folder or (spec.model.id if re.match(r"(/|\.{1,2}(/|$)|~/)", spec.model.id) else None)
    if folder is None:
        return None
    folder = folder.rstrip("/") or "/"
    snapshot = re.fullmatch(r"(.*/models--[^/]+)(/snapshots/[^/]+)", folder)
    root, inside = (snapshot[1], snapshot[2]) if snapshot else (folder, "")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", root.rpartition("/")[2]).strip(".") or "model"
    read_only = facts.model.weights_format == "safetensors"
    return _LocalWeights(Mount(root, f"/models/{name}", read_only), f"/models/{name}{inside}")


def _mirror(facts: Facts) -> dict[str, str]:
    """The Hub's mirror the facts were read from, which TGI reads from the same variable."""
    return {"HF_ENDPOINT": facts.mirror} if facts.mirror else {}


def _of_image(spec: Spec, facts: Facts, cloud: clouds.Cloud | None) -> tuple[int, str]:
    """Port the server listens on and folder of the weights: those of a cloud's image are its own.

    A variable that comes first and holds no port is passed over (router/src/server.rs@v3.3.7:1898).
    """
    if cloud is None:
        return PORT, CACHE
    env = in_force(cloud.env, facts.release) or {}
    port = clouds.port_of(spec.tgi.env.get(cloud.port_env, "")) or cloud.port or int(env.get("PORT", PORT))
    return port, env.get("HF_HOME") or env.get("HUGGINGFACE_HUB_CACHE") or CACHE


def _mounts(spec: Spec, weights: _LocalWeights | None, base: Mount | None, cache: str) -> tuple[Mount, ...]:
    """The weight cache, the folders of local weights, and what the spec adds; SpecError where two lie on one path."""
    further = tuple(Mount(one.source, one.target, one.read_only) for one in spec.container.mounts)
    own = ([weights.mount] if weights else []) + ([base] if base and not _is_below(base.target, further) else [])
    taken = {cache, *(mount.target for mount in own)}
    if twice := next((mount.target for mount in further if mount.target in taken), None):
        raise _wrong(
            spec, "container.mounts", f"{twice} of the container is mounted already.",
            "The weights lie there: name another path.",
        )  # fmt: skip
    return (Mount(spec.container.cache, cache), *own, *further)


def _is_below(path: str, mounts: tuple[Mount, ...]) -> bool:
    """Whether one of these mounts holds a path of the container."""
    return any(f"{path}/".startswith(mount.target.rstrip("/") + "/") for mount in mounts)


def _base_of_heads(facts: Facts) -> Mount | None:
    """Where the base model of speculation heads is mounted that is a folder: at the path their config.json names.

    A relative one starts at the image's working directory (Dockerfile@v3.3.7:12).
    """
    heads = facts.model.heads
    if heads is None or heads.base_folder is None:
        return None
    target = posixpath.normpath(posixpath.join(WORKING_DIRECTORY, heads.base))
    return Mount(heads.base_folder, target, facts.model.weights_format == "safetensors")


def _flags(
    spec: Spec,
    facts: Facts,
    limits: Limits,
    num_shard: int,
    prediction: Prediction | None,
) -> dict[str, object]:
    """Every launcher flag to state, by name, in the order people read them."""
    model = spec.model
    # The revision is the commit the facts were read at: the limits hold for these weights and for no others.
    loaded, revision = source_of(spec, facts)
    stated: dict[str, object] = {
        "model-id": loaded,
        "revision": revision,
        "num-shard": num_shard,
        "dtype": model.dtype,
        "quantize": model.quantize,
        "kv-cache-dtype": model.kv_cache_dtype,
        "trust-remote-code": model.trust_remote_code or None,
        **_limit_flags(facts, limits, prediction),
        "cuda-memory-fraction": spec.hardware.memory_fraction if spec.hardware.memory_fraction != 1.0 else None,
    }
    flags = {name: value for name, value in stated.items() if value is not None}
    if twice := sorted(flags.keys() & spec.tgi.flags.keys()):
        raise _wrong(
            spec, f"tgi.flags.{twice[0]}", f"--{twice[0]} is given twice, and the launcher refuses that.",
            f"Remove it from tgi.flags; the rest of the spec already says {flags[twice[0]]}.",
        )  # fmt: skip
    return {**flags, **spec.tgi.flags}


def _limit_flags(facts: Facts, limits: Limits, prediction: Prediction | None) -> dict[str, int | None]:
    """The limits as flags. max_batch_total_tokens is not among them: flash models only trip over it."""
    most_input = limits.max_input_tokens
    if most_input is None and limits.max_total_tokens is not None:
        resolved = prediction.limits.max_input_tokens if prediction else None
        most_input = resolved or max(1, limits.max_total_tokens - 1)
    return {
        "max-input-tokens" if facts.release.version >= (2, 0, 0) else "max-input-length": most_input,
        "max-total-tokens": limits.max_total_tokens,
        "max-batch-prefill-tokens": limits.max_batch_prefill_tokens,
    }


_SPLIT = r"[\s*?\[\]\\]|^$"
"""What an unquoted `$@` splits, expands or drops (tgi-entrypoint.sh@v3.3.7:6)."""


def _launch(flags: Mapping[str, object], spec: Spec, facts: Facts) -> _Launch:
    """Words for the command line where they survive the entry point, environment where they do not."""
    args: list[str] = []
    env: dict[str, str] = {}
    args_env: dict[str, str] = {}
    args_only: list[str] = []
    for name, given in flags.items():
        flag = find(name, facts.release)
        value = _parsed(flag, given, spec)
        words, variable = render(flag, value), _as_variable(flag, value)
        if not any(re.search(_SPLIT, word) for word in words):
            args += words
            args_env |= variable or {}
            args_only += words if variable is None else []
        elif variable is not None:
            env |= variable
        else:
            raise _wrong(
                spec, f"tgi.flags.{name}",
                f"--{name} cannot be passed: the image's entry point splits {' '.join(words)!r} at blanks.",
                "Use a value without blanks and without the characters * ? [ ].",
            )  # fmt: skip
    return _Launch(tuple(args), env, args_env, tuple(args_only))


def _variables(flags: Mapping[str, object], spec: Spec, facts: Facts, cloud: clouds.Cloud) -> _Launch:
    """Everything as environment, for an image whose entry point passes no argument on."""
    copied = {inside: outside for outside, inside in clouds.SAGEMAKER.items()} if cloud.entry == "sagemaker" else {}
    if given := sorted(copied.values() & spec.tgi.env.keys()):
        home = flag_homes()[clouds.SAGEMAKER[given[0]].lower().replace("_", "-")]
        message = f"{given[0]} says what {home} says, and `emit` writes it."
        raise _wrong(spec, f"tgi.env.{given[0]}", message, f"Set {home} instead.")
    env: dict[str, str] = {}
    for name, stated in flags.items():
        flag = find(name, facts.release)
        variable = _as_variable(flag, _parsed(flag, stated, spec))
        if variable is None:
            raise _wrong(
                spec, f"tgi.flags.{name}", f"--{name} cannot be passed: {cloud.name}'s image reads variables alone.",
                "Leave it out, or use TGI's own image of the same release.",
            )  # fmt: skip
        env |= {copied.get(key, key): text for key, text in variable.items()}
    return _Launch((), env, {}, ())


def _parsed(flag: Flag, given: object, spec: Spec) -> Value:
    try:
        return parse_value(flag, given)
    except ValueError as error:
        raise _wrong(
            spec, f"tgi.flags.{flag.name}", str(error), "`tgi-advisor flags` lists what each flag takes."
        ) from None


def _as_variable(flag: Flag, value: Value) -> dict[str, str] | None:
    """The same setting as an environment variable; None when it has none or cannot hold several values."""
    values = value if isinstance(value, tuple) else (value,)
    if flag.env is None or (len(values) > 1 and flag.delimiter is None):
        return None
    return {flag.env: (flag.delimiter or "").join(str(v).lower() if isinstance(v, bool) else str(v) for v in values)}


# -- what cannot be written


def _gpus(spec: Spec, num_shard: int) -> str | tuple[str, ...]:
    """`all`, or the device ids; SpecError when there are fewer ids than shards."""
    gpus = spec.container.gpus
    if not isinstance(gpus, str) and len(gpus) < num_shard:
        raise _wrong(
            spec, "container.gpus", f"{len(gpus)} devices are named, but {num_shard} shards need one each.",
            "Name more devices, or lower hardware.count or tgi.num_shard.",
        )  # fmt: skip
    return gpus


def _refuse_unwritable(made: Container, spec: Spec) -> None:
    """SpecError for text no command line can carry, and for anything that holds a secret.

    The spec's reader refuses both with a better message; this is for a `Spec` made by a program.
    """
    for path, text in _texts(made, spec):
        if looks_secret(text):
            raise _wrong(
                spec, path, f"{path} holds a secret, and secrets are not written into commands and manifests.",
                "Export the Hub token in your shell and name the variable in container.token_env.",
            )  # fmt: skip
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise _wrong(spec, path, f"{text!r} holds a character no command line can carry.", "Remove it.")
    cache = made.mounts[0]
    if not cache.is_path and not re.fullmatch(VOLUME, cache.source, re.ASCII):
        raise _wrong(
            spec, "container.cache", f"{cache.source!r} is neither a folder nor the name of a volume.",
            "Write a folder with a slash, such as ./data, or a volume name of letters, digits, dots and dashes.",
        )  # fmt: skip


def _texts(made: Container, spec: Spec) -> Iterator[tuple[str, str]]:
    """Every free text of a container with the field of the spec it came from."""
    yield "tgi.image", made.image
    yield from (("tgi.flags", word) for word in made.args)
    yield from (("tgi.env", value) for value in made.env.values())
    yield from (("container.token_env", name) for name in made.secret_env.values())
    further = {one.target for one in spec.container.mounts}
    for mount in made.mounts:
        field = "container.cache" if mount is made.mounts[0] else "model.id"
        yield ("container.mounts" if mount.target in further else field), mount.source


def _wrong(spec: Spec, path: str, message: str, hint: str) -> SpecError:
    """What is wrong with the spec, with the place of the field where it was read from a file."""
    place = spec.place(path)
    return SpecError(f"{place}: {message}" if place else message, hint)
