"""A plan: exactly what would run, what TGI would make of it, and why.

`Prediction` is the answer to "what will TGI do with these arguments"; `Plan` is a prediction plus
where it came from (a search, or the spec as given) and the `Container` that runs it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from tgi_advisor.estimate.capture import Capture
from tgi_advisor.estimate.parts import Part, Reserved
from tgi_advisor.estimate.speed import Served
from tgi_advisor.estimate.uncertainty import Contribution
from tgi_advisor.estimate.underload import UnderLoad
from tgi_advisor.facts.known import Facts
from tgi_advisor.limits import Limits
from tgi_advisor.refusals import Refusal
from tgi_advisor.spec.records import Spec

NOTHING: Mapping[str, Any] = MappingProxyType({})

Outcome = Literal["starts", "refused", "out_of_memory"]
Stage = Literal["launcher", "load", "warmup", "router"]
Method = Literal["tgi", "notebook", "notebook-tgi"]


class Uncertainty(NamedTuple):
    """The band around an inferred budget."""

    spread_bytes: int
    """Bytes of one GPU by which the KV cache may come out smaller or larger."""
    budget_low: int
    """max_batch_total_tokens at the lower end."""
    budget_high: int
    """max_batch_total_tokens at the upper end."""
    similar_runs: int
    """Real runs like this one whose budget is known."""
    why: str
    """One sentence."""
    contributions: tuple[Contribution, ...] = ()
    """What the spread is made of, the largest first."""


class Prediction(NamedTuple):
    """What TGI of one release does with one set of arguments."""

    outcome: Outcome
    """Whether it starts, refuses, or runs out of memory."""
    stage: Stage | None
    """Where it stops; None when it starts."""
    reason: str | None
    """One sentence; for a refusal it begins with TGI's own message. None when it starts."""
    next_steps: tuple[str, ...]
    """What to do about it, most useful first."""
    limits: Limits
    """The limits the started server has (as far as it got)."""
    concurrency: int | None
    """Requests of max_total_tokens that fit the KV cache together; None without an inferred budget."""
    parts: tuple[Part, ...]
    """Memory of the GPU that binds. When it starts they sum to `gpu_total_bytes`."""
    gpu_total_bytes: int
    """Memory of that GPU as nvidia-smi prints it."""
    kv_bytes_per_token: int
    """KV cache bytes of one token on one GPU."""
    headroom_bytes: int
    """Memory that could vanish with the limits still holding; negative: what is missing."""
    attention: str
    """Attention back end the launcher picks."""
    block_size: int
    """Tokens per KV block."""
    num_shard: int
    """Tensor parallel shards."""
    prefill_chunking: bool
    """Whether the server chunks prefills."""
    dtype: str
    """dtype of weights and activations."""
    kv_cache_dtype: str
    """dtype of the KV cache."""
    uncertainty: Uncertainty | None = None
    """How far the budget may be off; None where no budget is inferred or the method has no idea."""
    under_load: UnderLoad | None = None
    """Whether it survives its traffic; None unless it starts with an inferred budget."""
    capture: Capture | None = None
    """Whether its CUDA graphs fit; None unless it starts with an inferred budget and captures some."""
    warnings: tuple[str, ...] = ()
    """Things that work but surprise."""
    refusals: tuple[Refusal, ...] = ()
    """Everything TGI refuses, in its order: also what it would only meet once the first was mended."""
    runs_out: Literal["load", "warmup"] | None = None
    """Where memory runs out, whatever is refused before that; None where it does not."""
    reserved: Reserved | None = None
    """What PyTorch has reserved of that GPU; None where its CUDA allocator has no part in it."""

    @property
    def missing_bytes(self) -> int:
        """Memory missing on the GPU that binds, in bytes; 0 where it does not run out."""
        return max(1, -self.headroom_bytes) if self.runs_out else 0

    @property
    def at_risk(self) -> bool:
        """Whether it starts, but its traffic may be too much for it, or its CUDA graphs may end the start."""
        return bool(self.risk)

    @property
    def risk(self) -> str:
        """What is at risk of a start with these limits, in words; empty where nothing is."""
        if self.under_load is not None and self.under_load.verdict == "at risk":
            return "at risk under load"
        ends = self.capture is not None and self.capture.then == "ends"
        return "but the capture of CUDA graphs may end the start" if ends else ""


class Other(NamedTuple):
    """The limits a search finds when one thing is asked differently."""

    asks: str
    """The field of the spec that asks for them, as `workload.prefer: context`."""
    limits: Limits
    """What it finds then."""
    risk: str
    """What these limits risk: `at risk under load`, or that graphs may end the start; empty where nothing."""


class Search(NamedTuple):
    """How the limits were found."""

    evaluations: int
    """Estimates made."""
    bound_by: str | None
    """What stopped max_total_tokens from growing: `memory`, `model context`, `spec`, ..."""
    headroom_bytes: int
    """Safety margin kept per GPU, in bytes."""
    headroom_why: str
    """Why the margin is what it is."""
    riskier: Other | None = None
    """Longer requests that would start, but be at risk under load; None where there are none."""
    trade: Other | None = None
    """What the other `workload.prefer` finds; None where it finds the same."""


class Mount(NamedTuple):
    """A folder or volume of the host inside the container."""

    source: str
    """Host path (contains a `/`) or volume name."""
    target: str
    """Path inside the container."""
    read_only: bool = False
    """Whether the container may only read it."""

    @property
    def is_path(self) -> bool:
        """Whether the source is a host path and not the name of a volume."""
        return "/" in self.source or self.source in (".", "..", "~")


class Scaling(NamedTuple):
    """How a cluster keeps the number of replicas."""

    fewest: int
    """Fewest replicas."""
    most: int
    """Most replicas."""
    metric: str
    """TGI's gauge that decides, of each replica on average."""
    above: int
    """Its value above which replicas are added: requests, or tokens."""
    keda: bool
    """Whether KEDA scales, and not a HorizontalPodAutoscaler."""
    prometheus: str | None
    """Address of the Prometheus that KEDA asks."""
    asked: Mapping[str, Any]
    """What the spec says of it, by field."""


INSTANCE_TYPE = "node.kubernetes.io/instance-type"
"""Label under which a cloud's nodes have their machine type.

https://kubernetes.io/docs/reference/labels-annotations-taints/#nodekubernetesioinstance-type
"""


class Cluster(NamedTuple):
    """What a cluster is like, as far as it was said."""

    label: str = ""
    """Label of the nodes to run on; empty for any."""
    values: tuple[str, ...] = ()
    """Values it may have."""
    tolerations: tuple[tuple[str, str], ...] = ()
    """Taints of the nodes beside the GPU resource's own: keys and values."""
    storage: Literal["one", "shared", "node"] = "one"
    """Where the weights are kept: a claim of one node, of all nodes, or a folder of each node."""
    storage_class: str | None = None
    """StorageClass of the claim; None for the cluster's default."""
    pull_secret: str | None = None
    """Secret with which the image is pulled."""
    asked: Mapping[str, Any] = NOTHING
    """What the spec says of it, by field."""


ANY_CLUSTER = Cluster()


class Container(NamedTuple):
    """Exactly what would run. The only input of every renderer and of launch."""

    name: str
    """Container, service and Deployment name."""
    image: str
    """Image with its tag."""
    args: tuple[str, ...]
    """Launcher arguments, one word each (`--model-id`, `org/name`, ...)."""
    env: Mapping[str, str]
    """Environment with literal values; never a token."""
    secret_env: Mapping[str, str]
    """Environment filled from the caller's environment: name inside -> name of the caller's variable."""
    mounts: tuple[Mount, ...]
    """Where the weights are kept."""
    port: int
    """Port on the host."""
    container_port: int
    """Port the server listens on inside (80 in TGI's images)."""
    gpus: str | tuple[str, ...] | None
    """`all`, device ids, or None when the image needs no NVIDIA GPU request."""
    gpu_count: int
    """GPUs the plan counts on."""
    shm_size: str
    """Size of /dev/shm, Docker spelling (`1g`)."""
    devices: tuple[str, ...] = ()
    """Device nodes to pass (/dev/kfd, /dev/dri)."""
    runtime: str | None = None
    """Container runtime (`habana`) when not the default."""
    cap_add: tuple[str, ...] = ()
    """Linux capabilities to add."""
    security_opt: tuple[str, ...] = ()
    """Security options."""
    group_add: tuple[str, ...] = ()
    """Extra groups."""
    ipc: str | None = None
    """IPC mode (`host`)."""
    privileged: bool = False
    """Whether the image needs a privileged container."""
    gpu_resource: str | None = "nvidia.com/gpu"
    """Kubernetes extended resource that stands for one GPU; None for CPU."""
    startup_seconds: int = 1800
    """How long download, load and warm-up may take before a probe gives up."""
    weights_bytes: int = 0
    """Bytes of weights to download and keep, for disk sizes."""
    host_memory_bytes: int = 0
    """Host memory worth reserving for the server's processes; 0 when nothing is known."""
    args_env: Mapping[str, str] = NOTHING
    """The same arguments as environment variables of the launcher, for a start without arguments."""
    args_only: tuple[str, ...] = ()
    """Arguments among `args` that no environment variable can express."""
    device_env: Mapping[str, str] = NOTHING
    """Environment that picks devices by id where Docker has no flag for it; a Kubernetes device plugin picks itself."""
    token_needed: bool = False
    """Whether the model is gated, so that its download fails without a token."""
    replicas: int = 1
    """Servers of this kind that a cluster keeps."""
    step_seconds: int = 60
    """Seconds that the longest prefill may take, during which `/health` waits; 60 where no estimate is supported."""
    cluster: Cluster = ANY_CLUSTER
    """What the cluster is like."""
    scaling: Scaling | None = None
    """How the number of replicas is kept; None where it stays."""
    gpu: str = ""
    """The GPU by its name in gpus.yaml, or by the name the spec gives one it states."""
    instance: str = ""
    """Cloud instance type the spec names in place of a GPU; empty where it names none."""
    entry: str = ""
    """Program the image starts, for platforms that have to be told; empty where that is not known (a cloud's image)."""
    health: str = "/health"
    """Path that answers 200 once the server is ready."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name as plain lists and dicts, ready for JSON."""
        return {name: _plain(getattr(self, name)) for name in self._fields}


def _plain(value: Any) -> Any:
    """A field of a container as JSON knows it."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Mount | Scaling | Cluster):
        return {name: _plain(one) for name, one in value._asdict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class Plan(NamedTuple):
    """A spec, the facts it was judged on, the verdict, and the container that runs it."""

    spec: Spec
    """The spec as asked, with the flags that had to be searched (`max-batch-size` on Gaudi)."""
    facts: Facts
    """What was true."""
    prediction: Prediction
    """What TGI will do."""
    container: Container | None
    """What would run; None when no limits were found, or nothing that starts could be written."""
    method: Method
    """Which estimate was used."""
    search: Search | None = None
    """How the limits were found; None when the spec was judged as given."""
    extra: Mapping[str, object] = NOTHING
    """Figures of another method (the notebook's), by name."""
    speed: Served | None = None
    """How fast it is with the longest requests it takes; None unless it starts, and for the notebook's methods."""

    def __repr__(self) -> str:
        facts, seen = self.facts, self.prediction
        where = f"{facts.model.id} on {facts.gpu_count} x {facts.gpu.name}, TGI {facts.release}"
        limits = ", ".join(f"{name} {value:,}" for name, value in seen.limits.given().items())
        return f"<{where}: {seen.outcome}, {limits}>"

    def _repr_html_(self) -> str:
        """The plan in a notebook: a bar of the GPU's memory."""
        from tgi_advisor.facts.rows import all_rows
        from tgi_advisor.tabular import bar

        parts = [(part.name, part.bytes) for part in self.prediction.parts]
        about = {row.row: row.means for row in all_rows()}
        return bar(repr(self)[1:-1], parts, self.prediction.gpu_total_bytes, about)


class Share(NamedTuple):
    """What one server takes of one GPU."""

    server: str
    """Name of its container."""
    in_use_bytes: int
    """What others hold when it starts."""
    held_bytes: int
    """What it holds once it has started: weights, KV cache, CUDA graphs and everything around them."""
    most_bytes: int
    """The most it may hold under load."""


class GpuShares(NamedTuple):
    """One GPU and the servers on it."""

    id: str
    """Index or id of the device."""
    name: str
    """Which GPU it is."""
    total_bytes: int
    """Its memory as nvidia-smi prints it."""
    reserve_bytes: int
    """What the driver keeps."""
    foreign_bytes: int
    """What other programs hold."""
    shares: tuple[Share, ...]
    """The servers in the order they start."""

    @property
    def spare_bytes(self) -> int:
        """What is left when every server is at its most; negative: missing."""
        taken = self.reserve_bytes + self.foreign_bytes + sum(share.most_bytes for share in self.shares)
        return self.total_bytes - taken


class Packing(NamedTuple):
    """Several servers on one machine."""

    fits: bool
    """Whether every server starts beside those before it."""
    order: tuple[str, ...]
    """Container names in the order they have to start, each after the one before has finished its warm-up."""
    gpus: tuple[GpuShares, ...]
    """Who takes what of which GPU."""
    notes: tuple[str, ...] = ()
    """What to know about running them together."""
    next_steps: tuple[str, ...] = ()
    """What to do when they do not fit, most useful first."""
