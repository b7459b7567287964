"""The deployment a person asks for, as frozen records.

These records are the single description of a spec: the YAML reader (`reader.py`), the JSON Schema
(`schema.py`), the writer (`writer.py`), `--set path=value` and the documentation all derive from
their fields. A field is made with `setting(...)`, which holds its sentence, its kind and its default.
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.limits import Limits


class _Empty(Mapping[str, Any]):
    """A mapping with nothing in it; hashable, so that it may be a default (a mapping proxy may only from 3.12 on)."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"


EMPTY: Mapping[str, Any] = _Empty()

ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""What an environment variable may be called."""

KUBERNETES_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
"""What an object of Kubernetes may be called (a DNS subdomain)."""

DRIVER = r"^[1-9][0-9]{2}(\.[0-9]{1,6}){0,3}$"
"""What a version of the NVIDIA driver looks like."""

QUANTIZE = (
    "awq", "bitsandbytes", "bitsandbytes-fp4", "bitsandbytes-nf4", "compressed-tensors", "eetq", "exl2", "fp8", "gptq",
    "marlin",
)  # fmt: skip
"""Every value --quantize has had (launcher/src/main.rs, 1.0.0 to 3.3.7); a release may know fewer."""

KV_CACHE_DTYPE = ("fp8_e4m3fn", "fp8_e5m2")
"""Every value --kv-cache-dtype has had (launcher/src/main.rs, 3.3.7)."""


def setting(doc: str, kind: str, default: Any = None, *, required: bool = False, **more: Any) -> Any:
    """A field of the spec: `doc` its sentence, `kind` how a value is written (see `fields.py` and `values.py`).

    `more` may hold `choices`, `minimum` and `maximum`, a `pattern` with `pattern_says` in words (and `number`, where
    what it matches may be a number to YAML), an `example` (required fields have one), `names` (which of `schema.Names`
    an editor offers), and `flags`: launcher flags this field stands for, which are therefore refused under `tgi.flags`
    and, as variables, under `tgi.env`.
    """
    meta = {"doc": doc, "kind": kind, "default": default, "required": required, **more}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, eq=False, repr=False)
class Section:
    """Part of a spec: equal where all its fields are that count.

    The records below have this from here: a method that `dataclass` writes takes a fifth of a millisecond at every
    start, and there would be three more for each.
    """

    def _counted(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self) if each.compare}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._counted() == other._counted()

    def __hash__(self) -> int:
        return hash(tuple(self._counted().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._counted().items())})"


@dataclass(frozen=True, eq=False, repr=False)
class ModelSpec(Section):
    """Which weights, and how TGI is told to hold them."""

    id: str = setting(
        "Hub id such as meta-llama/Llama-3.1-8B-Instruct, or a local folder.",
        "text", "", required=True, example="meta-llama/Llama-3.1-8B-Instruct", flags=("model-id",), names="models",
    )  # fmt: skip
    revision: str = setting("Branch, tag or commit on the Hub.", "text", "main", flags=("revision",))
    dtype: str | None = setting(
        "--dtype; left out, TGI picks the model class's default (float16 for most).",
        "choice", None, choices=("float16", "bfloat16"), flags=("dtype",),
    )  # fmt: skip
    quantize: str | None = setting(
        "--quantize; left out, TGI reads the checkpoint's own quantization_config.",
        "choice", None, choices=QUANTIZE, flags=("quantize",),
    )  # fmt: skip
    kv_cache_dtype: str | None = setting(
        "--kv-cache-dtype; left out, the KV cache has the model's dtype.",
        "choice", None, choices=KV_CACHE_DTYPE, flags=("kv-cache-dtype",),
    )  # fmt: skip
    trust_remote_code: bool = setting(
        "--trust-remote-code for TGI. tgi-advisor itself never runs a repository's code.",
        "bool", False, flags=("trust-remote-code",),
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class GpuSpec(Section):
    """A GPU: a table name, alias or cloud instance type, `auto`, or stated by hand."""

    name: str = setting(
        "Table name, alias, cloud instance type, or `auto` for this machine.",
        "text", "", required=True, example="nvidia-l4", names="gpus",
    )  # fmt: skip
    memory: int | None = setting("Total memory as nvidia-smi prints it, e.g. 23034MiB.", "size", None, minimum=1)
    cuda_total: int | None = setting(
        "Total memory as CUDA (mem_get_info) reports it; a little less.", "size", None, minimum=1
    )
    compute_capability: float | None = setting("CUDA compute capability, e.g. 8.9.", "number", None, minimum=1)
    fp16_tflops: float | None = setting("Dense fp16 tensor throughput in TFLOPS.", "number", None, minimum=0.1)
    bandwidth: int | None = setting("Memory bandwidth per second, e.g. 300GB.", "size", None, minimum=1)
    system: str | None = setting(
        "Which TGI system it runs: cuda, rocm, xpu, cpu or gaudi.",
        "choice", None, choices=("cuda", "rocm", "xpu", "cpu", "gaudi"),
    )  # fmt: skip

    @property
    def stated(self) -> bool:
        """True when the spec says more than a name."""
        rest = (self.memory, self.cuda_total, self.compute_capability, self.fp16_tflops, self.bandwidth, self.system)
        return any(value is not None for value in rest)


@dataclass(frozen=True, eq=False, repr=False)
class HardwareSpec(Section):
    """The machine the container will see."""

    gpu: GpuSpec = setting(
        "The GPU: a name, or a block that states its facts.", "gpu", GpuSpec(), required=True, example="nvidia-l4",
        names="gpus",
    )  # fmt: skip
    count: int | None = setting(
        "GPUs the container sees. Default: 1, or what the cloud instance or this machine has.", "count", None, minimum=1
    )
    driver: str | None = setting(
        "NVIDIA driver as nvidia-smi prints it, e.g. 535.129.03. Drivers before 535 load every kernel at once, which "
        "takes a GiB and more. Default: this machine's; not known of a cloud instance, whose image brings it.",
        "text", None, pattern=DRIVER, pattern_says="a driver version, such as 535.129.03", number=True,
    )  # fmt: skip
    link: str | None = setting(
        "How the GPUs reach each other: nvswitch, nvlink, pcie (with peer access) or host (without). "
        "Default: as on this machine or the cloud instance type, else as such cards usually do.",
        "choice", None, choices=("nvswitch", "nvlink", "pcie", "host"),
    )  # fmt: skip
    memory_fraction: float = setting(
        "--cuda-memory-fraction, of the whole GPU.",
        "number", 1.0, minimum=0.01, maximum=1.0, flags=("cuda-memory-fraction",),
    )  # fmt: skip
    in_use: int = setting("Memory other processes hold on each GPU.", "size", 0)
    headroom: int | None = setting(
        "Memory per GPU `advise` leaves unplanned. Default: from the estimate's own uncertainty.", "size", None
    )


@dataclass(frozen=True, eq=False, repr=False)
class TgiSpec(Section):
    """Which TGI, and what else it is told."""

    release: str | None = setting(
        "TGI release such as 3.3.7. Default: the image's tag, else the newest known.", "text", None, names="releases"
    )
    image: str | None = setting(
        "Container image; its tag tells the release and the variant (-rocm, -intel-cpu, -gaudi).", "text", None
    )
    num_shard: int | None = setting(
        "--num-shard; auto picks among the legal counts.",
        "count_or_auto", None, minimum=1, flags=("num-shard", "sharded"),
    )  # fmt: skip
    flags: Mapping[str, Any] = setting("Any other launcher flag, by its own name.", "flags", EMPTY)
    env: Mapping[str, str] = setting(
        "Environment of the container (TGI_WIGGLE_ROOM, ATTENTION, ...); values are kept exactly as written.",
        "env", EMPTY,
    )  # fmt: skip


class Bound(NamedTuple):
    """One limit to search: `auto`, a number (low and high equal), or a range."""

    low: int | None = None
    """Smallest value the search may return; None is no floor."""
    high: int | None = None
    """Largest value the search may return; None is no ceiling."""

    @property
    def fixed(self) -> int | None:
        """The value when it is pinned to one number."""
        return self.low if self.low is not None and self.low == self.high else None

    def allows(self, value: int) -> bool:
        """Whether `value` lies within the bounds."""
        return self.clamp(value) == value

    def clamp(self, value: int) -> int:
        """The value within the bounds that is nearest to `value`."""
        if self.high is not None:
            value = min(value, self.high)
        return value if self.low is None else max(value, self.low)


AUTO = Bound()


@dataclass(frozen=True, eq=False, repr=False)
class LimitsSpec(Section):
    """The limits to find: each a number, `auto`, or {min: , max: }."""

    max_input_tokens: Bound = setting(
        "Longest prompt of one request.", "bound", AUTO, flags=("max-input-tokens", "max-input-length")
    )
    max_total_tokens: Bound = setting(
        "Prompt plus generated tokens of one request.", "bound", AUTO, flags=("max-total-tokens",)
    )
    max_batch_prefill_tokens: Bound = setting(
        "Prompt tokens of one prefill batch.", "bound", AUTO, flags=("max-batch-prefill-tokens",)
    )

    @property
    def without_floors(self) -> "LimitsSpec":
        """The same without what ranges ask for at least; itself where none does."""
        bounds = [getattr(self, name) for name in settings(LimitsSpec)]
        if all(bound.low is None or bound.fixed is not None for bound in bounds):
            return self
        return LimitsSpec(*(bound if bound.fixed is not None else Bound(None, bound.high) for bound in bounds))

    def floors_hold(self, limits: Limits) -> bool:
        """Whether limits are as large as is asked for at least."""
        values = limits.given()
        return all((getattr(self, name).low or 0) <= values.get(name, 0) for name in settings(LimitsSpec))


@dataclass(frozen=True, eq=False, repr=False)
class WorkloadSpec(Section):
    """What the server has to carry."""

    max_new_tokens: int | None = setting(
        "Output room kept between max_input_tokens and max_total_tokens. "
        "Default: 1024, but at most half of what max_total_tokens may be.",
        "count",
        None,
        minimum=1,
    )
    concurrency: int = setting(
        "Requests of max_total_tokens that must be in the KV cache together.", "count", 1, minimum=1
    )
    prefer: str = setting(
        "Where prefills are chunked and memory is short: `prefill` gives up to a tenth of max_total_tokens for chunks "
        "of the usual size (2,048 tokens), `context` takes the smallest chunks that keep the GPU busy.",
        "choice", "prefill", choices=("prefill", "context"),
    )  # fmt: skip
    allow_risk: bool = setting(
        "Whether the search may return limits that start but are at risk of running out of memory under load.",
        "bool", False,
    )  # fmt: skip


class MountSpec(NamedTuple):
    """A folder or volume of the host inside the container, beside the weights."""

    source: str
    """Folder of the host (holds a `/`), or name of a volume."""
    target: str
    """Where it is in the container."""
    read_only: bool = False
    """Whether the container may only read it."""

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"


@dataclass(frozen=True, eq=False, repr=False)
class ContainerSpec(Section):
    """How the container is started."""

    name: str = setting(
        "Name of the container, service and Deployment.",
        "text", "tgi", pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$",
        pattern_says="at most 63 lower-case letters, digits and dashes, beginning with a letter, as Kubernetes asks",
    )  # fmt: skip
    port: int = setting("Port on the host.", "count", 8080, minimum=1, maximum=65535, flags=("port",))
    cache: str = setting("Host folder or volume for the weights.", "text", "./data", flags=("huggingface-hub-cache",))
    mounts: tuple[MountSpec, ...] = setting(
        "Further folders or volumes, such as adapters, as in Docker: [/srv/adapters:/adapters:ro].", "mounts", (),
    )  # fmt: skip
    shm_size: str = setting(
        "Size of /dev/shm, such as 1g or 512MiB (g and GiB are 2^30 bytes); several shards talk through it.",
        "shm_size", "1g",
    )  # fmt: skip
    gpus: str | tuple[str, ...] = setting("`all`, or a list of device ids.", "gpus", "all")
    replicas: int = setting("Servers of this kind that Kubernetes keeps.", "count", 1, minimum=1, maximum=1000)
    token_env: str = setting(
        "Environment variable of *your* shell that holds the Hub token; only its name is ever written.",
        "text", "HF_TOKEN", pattern=ENV_NAME, pattern_says="the name of an environment variable, such as HF_TOKEN",
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class KubernetesSpec(Section):
    """What the cluster is like, for `emit --format kubernetes` and its like."""

    cluster: str | None = setting(
        "Kind of cluster, which decides by which labels nodes with the GPU are found; left out, any node that offers "
        "the GPU resource will do.",
        "choice", None, choices=("aks", "eks", "eks-auto", "gke", "karpenter", "nvidia"),
    )  # fmt: skip
    storage: str | None = setting(
        "Where replicas keep the weights: `one` claim of one node (ReadWriteOnce), a `shared` claim of all nodes "
        "(ReadWriteMany), or a folder of each `node`. Default: `one` for one replica, `shared` for several.",
        "choice", None, choices=("one", "shared", "node"),
    )  # fmt: skip
    storage_class: str | None = setting(
        "StorageClass of the claim; left out, the cluster's default.",
        "text", None, pattern=KUBERNETES_NAME, number=True,
        pattern_says="a name of lower-case letters, digits, dashes and dots",
    )  # fmt: skip
    pull_secret: str | None = setting(
        "Secret with which the image is pulled.",
        "text", None, pattern=KUBERNETES_NAME, number=True,
        pattern_says="a name of lower-case letters, digits, dashes and dots",
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class AutoscaleSpec(Section):
    """How many replicas Kubernetes keeps, by what the servers measure."""

    max: int | None = setting(
        "Most replicas; left out, their number stays container.replicas.", "count", None, minimum=1, maximum=1000
    )
    min: int | None = setting("Fewest replicas. Default: container.replicas.", "count", None, minimum=1, maximum=1000)
    on: str = setting(
        "What decides: requests that wait (`queue`), requests of the batch (`batch`), or the share of the KV cache "
        "that the batch may come to take (`gpu-cache`), of each replica on average.",
        "choice", "queue", choices=("queue", "batch", "gpu-cache"),
    )  # fmt: skip
    target: int | None = setting(
        "Value above which replicas are added: requests, or per cent for `gpu-cache`. Default: a twentieth of the "
        "requests that a server lets in, four fifths of the full-length requests it holds, 80 %.",
        "count", None, minimum=1, maximum=1_000_000,
    )  # fmt: skip
    by: str = setting(
        "Who scales: Kubernetes' own HorizontalPodAutoscaler, which needs prometheus-adapter, or `keda`.",
        "choice", "hpa", choices=("hpa", "keda"),
    )  # fmt: skip
    prometheus: str | None = setting(
        "Address of the Prometheus that KEDA asks, such as http://prometheus-operated.monitoring:9090.",
        "text", None, pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", pattern_says="an address without a password",
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Spec(Section):
    """A deployment spec. Everything but `model.id` and `hardware.gpu` has a default."""

    model: ModelSpec = setting("Which weights.", "section", ModelSpec(), required=True)
    hardware: HardwareSpec = setting("Which machine.", "section", HardwareSpec(), required=True)
    tgi: TgiSpec = setting("Which TGI.", "section", TgiSpec())
    limits: LimitsSpec = setting("Which limits to find.", "section", LimitsSpec())
    workload: WorkloadSpec = setting("What it must carry.", "section", WorkloadSpec())
    container: ContainerSpec = setting("How it is started.", "section", ContainerSpec())
    kubernetes: KubernetesSpec = setting("What the cluster is like.", "section", KubernetesSpec())
    autoscale: AutoscaleSpec = setting("How many replicas a cluster keeps.", "section", AutoscaleSpec())
    source: str = field(default="", compare=False)
    """Where the spec came from: a file name, `<stdin>` or `command line`."""
    places: Mapping[str, Place] = field(default=EMPTY, compare=False, repr=False)
    """Line and column of each field that was given, by its dotted path (`model.id`)."""

    def place(self, path: str) -> Place | None:
        """Where the field was written, or its nearest enclosing section."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path.rpartition(".")[0]
        return self.places.get("")


def settings(record: type[Any]) -> dict[str, Field[Any]]:
    """The fields a person can write in this record, by name."""
    return {f.name: f for f in fields(record) if f.metadata}


def all_settings(record: type[Any] = Spec, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every field of the spec with its dotted path (`hardware.gpu.name`), sections before what they hold."""
    for name, setting_field in settings(record).items():
        yield prefix + name, setting_field
        if setting_field.metadata["kind"] in ("section", "gpu"):
            yield from all_settings(type(setting_field.metadata["default"]), f"{prefix}{name}.")


def flag_homes() -> dict[str, str]:
    """Launcher flags that have a field of their own: `max-total-tokens` -> `limits.max_total_tokens`."""
    return {flag: path for path, f in all_settings() for flag in f.metadata.get("flags", ())}
