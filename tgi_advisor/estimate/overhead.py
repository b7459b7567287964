"""Memory on the GPU that is neither weights nor KV cache nor activations."""

from typing import NamedTuple

from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.replay import graphs as replayed
from tgi_advisor.estimate.replay.graphs import Captured
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import calibration, outside
from tgi_advisor.facts.outside import Amount, Eager
from tgi_advisor.once import remembered
from tgi_advisor.units import human


def driver_reserve(setting: Setting) -> Part:
    """What nvidia-smi counts and CUDA never gives out: its total minus `mem_get_info`'s."""
    gpu = setting.facts.gpu
    if gpu.cuda_total_bytes is not None:
        size = max(0, gpu.memory_bytes - gpu.cuda_total_bytes)
        by = f" with driver {gpu.driver}" if gpu.total_from == "driver" else ""
        return Part("driver reserve", size, "exact", f"nvidia-smi's total minus what CUDA reports on this card{by}")
    row = calibration.find("driver_share", gpu, setting.facts.release.version)
    if row is None:
        return Part("driver reserve", 0, "modelled", f"nothing known to be held back on {gpu.system}")
    return Part(
        "driver reserve", round(gpu.memory_bytes * row.share), "calibrated", f"what CUDA never gives out; {row.span}"
    )


class Context(NamedTuple):
    """The CUDA or HIP context of one GPU."""

    amount: Amount
    """Its bytes and their spread."""
    eager: Eager | None
    """What an old driver adds to a lazy context; None where none as old runs this GPU."""
    old: bool
    """Whether the driver is known to be one as old; what it adds is in `amount` then."""


@remembered
def context_of(setting: Setting) -> Context | None:
    """The context: kernels loaded when they are first used, or by an old driver all at once; None without a device.

    From CUDA 12.2 (driver 535) on loading is lazy by default. PyTorch asks for it too, but after TGI has initialised
    the driver: https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/utils/dist.py#L6-L12
    CUDA_MODULE_LOADING in the container's environment decides it on every driver from CUDA 11.7 on.
    """
    gpu = setting.facts.gpu
    lazy = outside.context(gpu)
    if lazy is None:
        return None
    eager = outside.eager(gpu, setting.facts.release.version)
    stated = setting.env.get("CUDA_MODULE_LOADING", "").upper()
    if eager is None or stated == "LAZY":
        return Context(lazy, None, old=False)
    old = stated == "EAGER" or (gpu.driver_major is not None and gpu.driver_major < eager.drivers_below)
    if old:
        lazy = Amount(lazy.bytes + eager.amount.bytes, eager.amount.spread)
    return Context(lazy, eager, old)


def context(setting: Setting) -> Part:
    """CUDA context, kernel modules and libraries outside PyTorch's allocator."""
    found = context_of(setting)
    if found is None:
        return Part("context", 0, "modelled", "no device context on this system")
    how = "every kernel loaded at once" if found.old else "kernels loaded as they are used"
    by = f", as driver {setting.facts.gpu.driver} does" if found.old and setting.facts.gpu.driver else ""
    why = f"outside PyTorch's allocator, {how}{by}" if setting.facts.gpu.system == "cuda" else "outside the allocator"
    return Part("context and libraries", found.amount.bytes, "calibrated", why)


class Communicators(NamedTuple):
    """What the shards' communicators take of one GPU."""

    part: Part
    """All of it."""
    spread: int
    """Bytes by which it differs from machine to machine, NVLink SHARP left out."""
    sharp: int
    """Bytes of it for NVLink SHARP."""
    says: str = ""
    """How the shards reach each other, in words; empty where it does not matter."""
    assumed: bool = False
    """Whether that is only what is usual for the card."""


def communicators(setting: Setting) -> Part | None:
    """NCCL's (RCCL's) buffers of one shard; None on a single shard."""
    found = communicators_of(setting)
    return found.part if found else None


@remembered
def communicators_of(setting: Setting) -> Communicators | None:
    """NCCL's (RCCL's) buffers of one shard with their spread; None on a single shard.

    Every channel has a pair of connections to each neighbour in the ring and tree: one neighbour of two ranks, two of
    more. Without peer access the buffers are the host's.
    """
    gpu, ranks = setting.facts.gpu, setting.num_shard
    if ranks == 1 or gpu.system not in ("cuda", "rocm"):
        return None
    if gpu.system == "rocm":
        amount = outside.rccl()
        why = f"communicators of {ranks} shards, no run of TGI: {human(amount.bytes)} give or take as much"
        return Communicators(Part("RCCL buffers", amount.bytes, "calibrated", why), amount.spread, 0)
    disabled = setting.env.get("NCCL_P2P_DISABLE", "0") not in ("", "0")
    word = "host" if disabled else gpu.link
    link, takes = outside.link(gpu, word), outside.connections()
    channels = sum(link.channels) // 2
    size = takes.kernels + channels * takes.channel * min(2, ranks - 1)
    sharp = _sharp(setting, channels) if word == "nvswitch" else 0
    why = f"communicators of {ranks} shards {link.says}" + (f", {channels} channels" if channels else "")
    if sharp:
        why += f"; {human(sharp)} of it for NVLink SHARP"
    part, assumed = Part("NCCL buffers", size + sharp, "modelled", why), gpu.link_from == "card" and not disabled
    return Communicators(part, link.spread, sharp, link.says, assumed)


def _sharp(setting: Setting, channels: int) -> int:
    """NVLink SHARP's buffers: on Hopper and later, with more ranks than need none, unless NCCL_NVLS_ENABLE is 0."""
    gpu, ranks = setting.facts.gpu, setting.num_shard
    found = outside.sharp(setting.facts.release.version)
    if found is None or gpu.at_least < (9, 0) or ranks < found.ranks or setting.env.get("NCCL_NVLS_ENABLE") == "0":
        return 0
    if found.channels is not None:
        channels = found.channels[1 if gpu.at_least >= (10, 0) else 0]
    whole = outside.multicast()
    return -(-ranks * channels * found.bytes // whole) * whole


def flashinfer(setting: Setting) -> Part | None:
    """flashinfer's shared workspace and wrapper buffers, allocated before warm-up.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/attention/flashinfer.py#L36-L43
    """
    if setting.attention != "flashinfer" or not setting.family.paged:
        return None
    size = setting.facts.release.flashinfer_bytes
    return Part("flashinfer workspace", size, "exact", "float workspace and three wrappers")


GRAPH_LAYERS = 32
"""Layers of the model the graph pool was read from, taken to be of the usual 8 x 10^9 parameters."""


LEAN_GRAPHS = 550
"""First major version of the driver that keeps little for the kernels of a graph (CUDA 12.4; see `Captured`)."""


def graphs(
    setting: Setting, g: Geometry, captured: Captured | None, total_tokens: int, request_blocks: int
) -> Part | None:
    """CUDA graphs: block tables, captured logits, flashinfer's wrappers and the capture pool; None without any."""
    if not setting.graph_sizes:
        return None
    size = graphs_bytes(setting, g, captured, total_tokens, request_blocks)
    why = f"batch sizes {', '.join(map(str, setting.graph_sizes))}, captured inside the reserve"
    return Part("CUDA graphs", size, "calibrated", why)


def graphs_bytes(
    setting: Setting, g: Geometry, captured: Captured | None, total_tokens: int, request_blocks: int
) -> int:
    """Bytes of all graphs.

    `captured` is the replay of their capture, where there is one. They come after the KV cache is allocated, so
    nothing of them enters TGI's sum; they have to fit in what the sum leaves over.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1382-L1503
    """
    sizes = setting.graph_sizes
    if not sizes:
        return 0
    if captured:
        size = replayed.needed(setting, g, captured, total_tokens, request_blocks)
        return size + graphs_in_driver(setting, captured)
    release = setting.facts.release
    width = request_blocks if release.graph_buffers == "per_size_request" else total_tokens
    rows = max(sizes) if release.graph_buffers == "shared_total" else sum(sizes)
    tables = rows * width * 4
    logits = sum(sizes) * g.vocabulary * 2
    wrappers = len(sizes) * 8 * (1 << 20) if setting.attention == "flashinfer" else 0
    row = calibration.find("cuda_graphs", setting.facts.gpu, release.version)
    pool = row.bytes * g.layers // GRAPH_LAYERS if row else 0
    return tables + logits + wrappers + pool


def graphs_in_driver(setting: Setting, captured: Captured) -> int:
    """Bytes the driver keeps for the kernels of all graphs, outside PyTorch."""
    major = setting.facts.gpu.driver_major
    return captured.old_driver if major is not None and major < LEAN_GRAPHS else captured.driver
