"""How vLLM sizes its KV cache: a share of the card, minus weights, minus what one profiled step needs beside them.

    pool = ceil(U * total) - weights - adapters - persistent - transient(max_num_batched_tokens, max_num_seqs) - graphs

Context, NCCL and cuBLAS are there before vLLM takes its first look, and are not charged to the pool: they have to fit
into what U leaves (vllm@0.33.0:vllm/v1/worker/gpu_worker.py:500-541, 753-757).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tgi_advisor.engines import beside, memory
from tgi_advisor.engines.facts import Engine
from tgi_advisor.engines.memory import Start
from tgi_advisor.engines.translate import Told
from tgi_advisor.estimate import geometry
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import windows
from tgi_advisor.units import GiB, MiB, human, thousands

BLOCK, LATENT_BLOCK = 16, 64
"""Tokens of a block; of latent attention's (vllm@0.33.0:vllm/v1/attention/backend.py:155)."""
SIZES = 51
"""Batch sizes that CUDA graphs are captured for by default: 1, 2, 4, each 8th to 248, each 16th to 512."""
STEP = 0.01
"""Steps the share is tried in."""
AIR = 256 * MiB
"""What stays free beside the share: allocations after the first look that nobody counts."""


def start(engine: Engine, setting: Setting, told: Told, given: Mapping[str, str], wanted: int) -> Start:
    """The start with the share given, or with the smallest that surely holds `wanted` tokens, and not less than the
    engine's own where the card is vLLM's alone.
    """
    stated = given.get("--gpu-memory-utilization")
    if stated is not None:
        return _with(engine, setting, told, float(stated), "as given")
    own = engine.sum.utilization
    alone = setting.memory_fraction == 1.0 and not setting.spec.hardware.in_use
    most = math.floor(_most(setting) / STEP) * STEP
    first = _with(engine, setting, told, own, "")
    if alone and first.tokens_low >= wanted and own <= most:
        holds = f", which holds today's {thousands(wanted)} tokens" if wanted else ""
        return first._replace(why=f"vLLM's default{holds}")
    shares = [round(step * STEP, 2) for step in range(5, round(most / STEP) + 1)]
    for share in shares:
        tried = _with(engine, setting, told, share, "")
        if tried.outcome == "starts" and tried.tokens_low >= wanted:
            return tried._replace(why=f"the smallest share that surely holds today's {thousands(wanted)} tokens")
    last = _with(engine, setting, told, shares[-1] if shares else own, "")
    fits = "are held, though not surely" if last.tokens >= wanted else "ask for more"
    why = f"as much as context, NCCL and others on the card leave; today's {thousands(wanted)} tokens {fits}"
    return last._replace(why=why)


def _most(setting: Setting) -> float:
    """The largest share that can be free when vLLM looks."""
    total, taken = _total(setting), _taken(setting)
    return max(0.0, (total - taken - AIR) / total)


def _total(setting: Setting) -> int:
    """The card as CUDA reports it."""
    reserve = sum(part.bytes for part in memory.outside(setting) if part.name == "driver reserve")
    return setting.facts.gpu.memory_bytes - reserve


def _taken(setting: Setting) -> int:
    """What is used when vLLM looks: its own context and communicators, and others."""
    return sum(part.bytes for part in memory.outside(setting) if part.name != "driver reserve")


def _with(engine: Engine, setting: Setting, told: Told, share: float, why: str) -> Start:
    """The sum for one share."""
    total, row = _total(setting), engine.sum
    requested = math.ceil(total * share)
    step = transient(engine, setting, told)
    loaded, stays = memory.weights(setting, told), memory.persistent(engine, setting)
    graphs = graph_estimate(engine, setting, told)
    charged = graphs if row.charges_graphs else 0
    added = adapters(setting, told)
    pool = requested - loaded.bytes - added - stays - step - charged
    spread = row.spread + charged // 2  # the estimate of the graphs is the least certain part
    context = told.number("--max-model-len")
    tokens, low, high = (tokens_of(setting, told, size) for size in (pool, pool - spread, pool + spread))
    per_block, _ = _blocks(setting, told)
    before = memory.outside(setting)
    named = [
        loaded,
        *([Part("LoRA adapters", added, "modelled", _room(told))] if added else []),
        Part("outside PyTorch", stays, "calibrated", "what the first step leaves: kernels, all-reduce buffers"),
        Part("profiled step", step, "calibrated", _step_why(setting, told)),
        *([Part("CUDA graphs", charged, "calibrated", "vLLM's own estimate, taken from the cache")] if charged else []),
        Part("KV cache", max(0, pool), "modelled", f"{human(per_block)} a block on each GPU"),
    ]
    gpu = setting.facts.gpu.memory_bytes
    rest = gpu - sum(part.bytes for part in (*before, *named))
    parts = (*before, *named, Part("reserve", rest, "modelled", f"what --gpu-memory-utilization {share:g} leaves"))
    outcome, reason = _verdict(engine, setting, share, requested, pool, tokens, context)
    return Start(
        outcome, reason, (("--gpu-memory-utilization", memory.text_of(share)),), why, pool, spread,
        round(pool / tokens) if tokens > 0 else 0, tokens, max(0, low), high, context, parts, gpu,
    )  # fmt: skip


def _verdict(
    engine: Engine, setting: Setting, share: float, requested: int, pool: int, tokens: int, context: int | None
) -> tuple[memory.Outcome, str]:
    """(outcome, reason) in vLLM's order: the look at what is free, then the cache."""
    free = _total(setting) - _taken(setting)
    if free < requested:
        return "refused", (
            f"{human(max(0, free))} are free when vLLM looks, less than the {human(requested)} of "
            f"--gpu-memory-utilization {memory.text_of(share)}"
        )
    if pool <= 0:
        return "out_of_memory", f"weights and the profiled step take {human(-pool)} more than vLLM's share of the card"
    if context is not None and tokens < context:
        return "refused", memory.too_short(engine, context, tokens)
    return "starts", ""


def batched_tokens(setting: Setting, told: Told) -> int:
    """Tokens of one step, with the server's defaults (vllm@0.33.0:vllm/engine/arg_utils.py:2940-3039)."""
    return told.number("--max-num-batched-tokens") or _tier(setting)[0]


def sequences(setting: Setting, told: Told) -> int:
    """Largest running batch; never more than the tokens of a step unless stated."""
    return told.number("--max-num-seqs") or min(_tier(setting)[1], batched_tokens(setting, told))


def _tier(setting: Setting) -> tuple[int, int]:
    gpu = setting.facts.gpu
    if gpu.memory_bytes >= 160 * GiB:
        return 16384, 1024
    if gpu.memory_bytes >= 70 * GiB and "a100" not in gpu.name and gpu.compute_capability != (12, 1):
        return 8192, 1024
    return 2048, 256


def transient(engine: Engine, setting: Setting, told: Told) -> int:
    """Peak of the profile run beside weights: the widest layer, or hidden states with the sampler's logits.

    Of a model that sees, images of as many tokens as a step come first: the peak is theirs, or that of the step with
    what was made of them beside it (vllm@0.33.0:vllm/v1/worker/gpu_model_runner.py:6072-6144; the budget is
    vllm@0.33.0:vllm/v1/core/encoder_cache_manager.py:333-380, the cache is no memory of its own at start).

    A mixture's workspace stays for the sampler. Read from the logs of 0.19.0: 3.5 float32 copies of the logits
    (`sums` of engine.yaml) and of the layers 3 feed-forward widths and 4 hidden ones, or two caches of the experts.
    """
    g, row = geometry.of(setting), engine.sum
    tokens, rows = batched_tokens(setting, told), min(sequences(setting, told), batched_tokens(setting, told))
    element = 4 if setting.dtype == "float32" else 2
    logits = round(row.logits * 4 * rows * g.vocabulary)
    sampler = tokens * g.hidden * element + logits + row.settled
    if g.experts:
        wide = max(2 * g.intermediate, g.hidden) + g.intermediate
        peak = sampler + tokens * g.experts_per_token * wide * element
    else:
        peak = max(sampler, tokens * (3 * g.intermediate + 4 * g.hidden) * element)
    seen = beside.encoded(setting, tokens)
    return peak if seen is None else max(seen.peak, seen.kept + peak)


def adapters(setting: Setting, told: Told) -> int:
    """Room for adapters: --max-loras of --max-lora-rank on every projection, the embedding and the head.

    None is left out that no adapter has matrices for (vllm@0.33.0:vllm/config/lora.py, target_modules).
    """
    if "--enable-lora" not in told.flags:
        return 0
    rank, slots = told.number("--max-lora-rank") or 16, told.number("--max-loras") or 1
    return beside.stacked(setting, rank, slots) + beside.edges(setting, rank, slots)


def _room(told: Told) -> str:
    slots = told.number("--max-loras") or 1
    many = f"{slots} adapters" if slots > 1 else "one adapter"
    return f"room for {many} of rank {told.number('--max-lora-rank') or 16} on every projection, at once"


def _step_why(setting: Setting, told: Told) -> str:
    said = (
        f"one step of {thousands(batched_tokens(setting, told))} tokens and the sampler of "
        f"{thousands(sequences(setting, told))} requests"
    )
    seen = beside.encoded(setting, batched_tokens(setting, told))
    if seen is None:
        return said
    return f"{said}, after {seen.items} image{'s' if seen.items > 1 else ''} of the largest size"


def graph_estimate(engine: Engine, setting: Setting, told: Told) -> int:
    """vLLM's estimate of its CUDA graphs, which grows with layers and batch sizes."""
    if "--enforce-eager" in told.flags:
        return 0
    sizes = len(told.flags.get("--cudagraph-capture-sizes", ())) or min(SIZES, 3 + 2 * sequences(setting, told) // 8)
    g = geometry.of(setting)
    return round((engine.sum.graphs + g.layers * engine.sum.graphs_per_layer) * min(1.0, sizes / SIZES))


def _blocks(setting: Setting, told: Told) -> tuple[int, tuple[tuple[int, int], ...]]:
    """(bytes of a block of the largest group, (groups of layers, window) for each kind).

    Layers that keep everything and layers that keep a window are cut into groups of the same number, which share
    one pool (vllm@0.33.0:vllm/v1/core/kv_cache_planning.py:416-560).
    """
    model = setting.facts.model
    kinds = windows.layers(model)
    block = LATENT_BLOCK if memory.is_latent(model) else BLOCK
    each = block * memory.token_bytes_of_layer(setting, memory.element_bytes(setting, told))
    if not kinds.sliding:
        return each * kinds.full, ((1, 0),)
    if not kinds.full:
        return each * kinds.sliding, ((1, kinds.window),)
    least, most = sorted((kinds.full, kinds.sliding))
    group = most if most < least * 1.5 else least
    return each * group, ((-(-kinds.full // group), 0), (-(-kinds.sliding // group), kinds.window))


def tokens_of(setting: Setting, told: Told, pool: int) -> int:
    """Tokens vLLM says a pool holds: those of requests of the longest length (`GPU KV cache size` of its log)."""
    per_block, groups = _blocks(setting, told)
    blocks = max(0, pool) // per_block
    block = LATENT_BLOCK if memory.is_latent(setting.facts.model) else BLOCK
    context = told.number("--max-model-len") or block
    needed = 0
    for count, window in groups:
        kept = min(context, window - 1 + batched_tokens(setting, told)) if window else context
        needed += count * -(-kept // block)
    return int(blocks / needed * context) if needed else 0
