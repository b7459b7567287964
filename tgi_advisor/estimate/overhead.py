"""Memory on the GPU that is neither weights nor KV cache nor activations."""

from __future__ import annotations

from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.replay import graphs as replayed
from tgi_advisor.estimate.replay.graphs import Captured
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import calibration


def driver_reserve(setting: Setting) -> Part:
    """What nvidia-smi counts and CUDA never gives out: its total minus `mem_get_info`'s."""
    gpu = setting.facts.gpu
    if gpu.cuda_total_bytes is not None:
        size = max(0, gpu.memory_bytes - gpu.cuda_total_bytes)
        return Part("driver reserve", size, "exact", "nvidia-smi's total minus what CUDA reports on this card")
    row = calibration.find("driver_share", gpu, setting.facts.release.version)
    if row is None:
        return Part("driver reserve", 0, "modelled", f"nothing known to be held back on {gpu.system}")
    return Part(
        "driver reserve", round(gpu.memory_bytes * row.share), "calibrated", f"what CUDA never gives out; {row.span}"
    )


def context(setting: Setting) -> Part:
    """CUDA context, kernel modules and libraries outside PyTorch's allocator."""
    row = calibration.find("cuda_context", setting.facts.gpu, setting.facts.release.version)
    if row is None:
        return Part("context", 0, "modelled", "no device context on this system")
    return Part("context and libraries", row.bytes, "calibrated", f"outside PyTorch's allocator; {row.span}")


def communicators(setting: Setting) -> Part | None:
    """NCCL (RCCL) buffers of one shard; None on a single shard."""
    row = calibration.find("nccl", setting.facts.gpu, setting.facts.release.version)
    if setting.num_shard == 1 or row is None:
        return None
    return Part("NCCL buffers", row.bytes, "calibrated", f"communicators of {setting.num_shard} shards; {row.span}")


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


def graphs(
    setting: Setting, g: Geometry, captured: Captured | None, total_tokens: int, request_blocks: int
) -> Part | None:
    """CUDA graphs: block tables, captured logits, flashinfer's wrappers and the capture pool.

    `captured` is the replay of their capture, where there is one. They come after the KV cache is allocated, so
    nothing of them enters TGI's sum; they have to fit in what the sum leaves over.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1382-L1503
    """
    sizes = setting.graph_sizes
    if not sizes:
        return None
    why = f"batch sizes {', '.join(map(str, sizes))}, captured inside the reserve"
    if captured:
        size = replayed.needed(setting, g, captured, total_tokens, request_blocks)
        return Part("CUDA graphs", size, "calibrated", why)
    release = setting.facts.release
    width = request_blocks if release.graph_buffers == "per_size_request" else total_tokens
    rows = max(sizes) if release.graph_buffers == "shared_total" else sum(sizes)
    tables = rows * width * 4
    logits = sum(sizes) * g.vocabulary * 2
    wrappers = len(sizes) * 8 * (1 << 20) if setting.attention == "flashinfer" else 0
    row = calibration.find("cuda_graphs", setting.facts.gpu, release.version)
    pool = row.bytes * g.layers // GRAPH_LAYERS if row else 0
    return Part("CUDA graphs", tables + logits + wrappers + pool, "calibrated", why)
