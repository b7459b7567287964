"""How SGLang sizes its KV cache: a share of what was free before loading, minus the weights. There is no profile run.

    rest = available - before * (1 - f),  tokens = rest // cell

`before` is free memory after the communicators are made, `available` after loading; activations and CUDA graphs have to
fit into `before * (1 - f)` (sglang@0.5.23:srt/mem_cache/kv_cache_configurator.py:2989-3040).
"""

from __future__ import annotations

from collections.abc import Mapping

from tgi_advisor.engines import beside, memory
from tgi_advisor.engines.facts import Engine
from tgi_advisor.engines.memory import Start
from tgi_advisor.engines.translate import Told
from tgi_advisor.estimate import geometry
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.replay import pictures
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import windows
from tgi_advisor.units import MiB, human, thousands

AIR = 256 * MiB
"""What stays free beside what is counted."""
IMAGES = 100 * MiB
"""Taken from the pool of a model that sees, for the cache of what its tower makes (SGLANG_VLM_CACHE_SIZE_MB).

sglang@0.5.23:srt/mem_cache/kv_cache_configurator.py:202, srt/environ.py:1598. Features come through the CPU on one
node, which takes nothing (srt/arg_groups/serving_hook.py:836).
"""
BASELINE = 24 * 1024**2
"""Layers times the square of the width of the tower SGLang's rule compares with."""
SHARE = 0.8
"""Tokens of the pool of windows for each of the pool that keeps everything (--swa-full-tokens-ratio)."""


def start(engine: Engine, setting: Setting, told: Told, given: Mapping[str, str], wanted: int) -> Start:
    """The start with the fraction given, or with SGLang's own rule where that surely holds `wanted` tokens, or with
    the smallest that does.
    """
    stated = given.get("--mem-fraction-static")
    if stated is not None:
        return _with(engine, setting, told, float(stated), "as given")
    own = fraction(setting, told)
    before = setting.facts.gpu.memory_bytes - sum(part.bytes for part in memory.outside(setting))
    most = max(own, 1 - (working(setting, told) + AIR) / max(1, before))
    alone = setting.memory_fraction == 1.0 and not setting.spec.hardware.in_use
    first = _with(engine, setting, told, own, "")
    if alone and first.tokens_low >= wanted:
        holds = f", which holds today's {thousands(wanted)} tokens" if wanted else ""
        return first._replace(why=f"SGLang's own rule for this card{holds}")
    tried = first
    for thousandth in (*range(50, int(most * 1000), 5), int(most * 1000)):
        tried = _with(engine, setting, told, thousandth / 1000, "")
        if tried.outcome == "starts" and tried.tokens_low >= wanted:
            why = f"the smallest share that surely holds today's {thousands(wanted)} tokens"
            break
    else:
        fits = "are held, though not surely" if tried.tokens >= wanted else "ask for more"
        why = f"as much as activations and graphs leave; today's {thousands(wanted)} tokens {fits}"
    share = float(tried.setting[0][1])
    if share > own:
        why += (
            f". SGLang's own rule is {memory.text_of(own)}: it reserves 1.5 MiB for each token of a chunk, where this "
            f"model needs about {human(working(setting, told))} in all"
        )
    return tried._replace(why=why)


def working(setting: Setting, told: Told) -> int:
    """Bytes activations and CUDA graphs need beside the pool: the widest layer of one chunk, the sampler's logits, what
    SGLang's rule counts for graphs, and its 512 MiB for what the attention back end holds.
    """
    g, element = geometry.of(setting), 4 if setting.dtype == "float32" else 2
    tokens, rows = max(chunk(setting, told), 2048), largest_graph(setting, told) or 32
    wide = 3 * g.intermediate + 4 * g.hidden
    if g.experts:
        wide = 4 * g.hidden + g.experts_per_token * (max(2 * g.intermediate, g.hidden) + g.intermediate)
    logits = 4 * 4 * rows * g.vocabulary
    seen = beside.encoded(setting, 1)
    graphs = (largest_graph(setting, told) * 2 + _prefill_reserve(setting, told)) * MiB
    layers = max(tokens * wide * element, seen.peak if seen is not None else 0)
    return layers + logits + graphs + 512 * MiB


def chunk(setting: Setting, told: Told) -> int:
    """Tokens of one prefill chunk, with SGLang's default for the card."""
    stated = told.number("--chunked-prefill-size")
    if stated:
        return stated
    size = setting.facts.gpu.memory_bytes // MiB
    return 2048 if size < 20 * 1024 else 4096 if size < 60 * 1024 else 8192 if size < 160 * 1024 else 16384


def largest_graph(setting: Setting, told: Told) -> int:
    """Largest batch CUDA graphs are captured for; 0 without graphs."""
    if "--disable-decode-cuda-graph" in told.flags:
        return 0
    if stated := told.flags.get("--cuda-graph-bs-decode"):
        return max(map(int, stated))
    size, many = setting.facts.gpu.memory_bytes // MiB, setting.num_shard >= 4
    if size < 20 * 1024:
        own = 8
    elif size < 60 * 1024:
        own = 160 if many else 48 if size < 35 * 1024 else 32
    else:
        own = 512 if many or size >= 160 * 1024 else 256
    return min(own, told.number("--max-running-requests") or own)


def _prefill_graphs(most: int) -> int:
    """How many sizes prefill graphs are captured for (sglang@0.5.23:srt/arg_groups/cuda_graph_hook.py:480-497)."""
    sizes = [
        *range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64), *range(1280, 4097, 256),
        *range(4608, most + 1, 512),
    ]  # fmt: skip
    return sum(size <= most for size in sizes)


def _prefill_reserve(setting: Setting, told: Told) -> int:
    """MiB the rule counts for prefill graphs."""
    if "--disable-prefill-cuda-graph" in told.flags:
        return 0
    return 1536 if memory.is_latent(setting.facts.model) else _prefill_graphs(chunk(setting, told)) * 8


def fraction(setting: Setting, told: Told) -> float:
    """--mem-fraction-static by SGLang's rule.

    sglang@0.5.23:srt/arg_groups/memory_hook.py:262-330; of a model that sees a share less, by the size of its tower.
    """
    size = setting.facts.gpu.memory_bytes // MiB
    reserved = 512 + max(chunk(setting, told), 2048) * 1.5 + setting.num_shard / 8 * 1024
    reserved += largest_graph(setting, told) * 2 + _prefill_reserve(setting, told)
    if size > 60 * 1024:
        reserved = max(reserved, 10 * 1024)
    share = round((size - reserved) / size, 3)
    return round(share * _for_images(setting), 3) if beside.sees(setting) else share


def _for_images(setting: Setting) -> float:
    """What SGLang's rule leaves of the share of a model that sees, by the size of its tower.

    A tower whose configuration names sizes otherwise counts as one of the usual size
    (sglang@0.5.23:srt/arg_groups/memory_hook.py:418-468).
    """
    vision = pictures.vision_config(setting)
    size = int(vision.get("num_hidden_layers", 24)) * int(vision.get("hidden_size", 1024)) ** 2
    return 0.95 * max(0.8, min(1.05, 1 - 0.1 * (size / BASELINE - 1)))


def adapters(setting: Setting) -> tuple[int, str]:
    """(bytes, why) of room for the adapters: all at once, of the largest rank, on the projections any of them has.

    sglang@0.5.23:srt/lora/lora_manager.py:802, srt/lora/mem_pool.py:598
    """
    found = list(beside.loaded(setting))
    if not found:
        return 0, ""
    rank, names = max(one.rank for one in found), {name for one in found for name in one.projections}
    many = f"{len(found)} adapters" if len(found) > 1 else "one adapter"
    size = beside.stacked(setting, rank, len(found), beside.together(names))
    return size, f"room for {many} of rank {rank} at once"


def cell(setting: Setting, told: Told) -> float:
    """Bytes of one token on one GPU; of a model with windows, of one token of the pool that keeps everything."""
    kinds = windows.layers(setting.facts.model)
    each = memory.token_bytes_of_layer(setting, memory.element_bytes(setting, told))
    if kinds.full and kinds.sliding:
        return each * (kinds.full + SHARE * kinds.sliding)
    return float(each * (kinds.full + kinds.sliding))


def _with(engine: Engine, setting: Setting, told: Told, share: float, why: str) -> Start:
    """The sum for one fraction."""
    gpu, row, per_token = setting.facts.gpu.memory_bytes, engine.sum, cell(setting, told)
    before_parts = memory.outside(setting)
    before = gpu - sum(part.bytes for part in before_parts)
    loaded, stays = memory.weights(setting, told), memory.persistent(engine, setting)
    (added, room), seen = adapters(setting), IMAGES if beside.sees(setting) else 0
    rest = before - loaded.bytes - added - stays - seen - int(before * (1 - share))
    tokens, low, high = (max(0, int(size // per_token)) for size in (rest, rest - row.spread, rest + row.spread))
    context = told.number("--context-length")
    named = (
        loaded,
        *([Part("LoRA adapters", added, "modelled", room)] if added else []),
        *([Part("images", seen, "exact", "cache of what the tower makes of them")] if seen else []),
        Part("outside PyTorch", stays, "calibrated", "what loading leaves: kernels, all-reduce buffers"),
        Part("KV cache", max(0, rest), "modelled", f"{human(round(per_token))} a token on each GPU"),
    )
    left = gpu - sum(part.bytes for part in (*before_parts, *named))
    kept = Part(
        "activations and graphs", left, "modelled", f"what --mem-fraction-static {memory.text_of(share)} leaves"
    )
    outcome, reason = _verdict(engine, share, before, rest, tokens, context)
    return Start(
        outcome, reason, (("--mem-fraction-static", memory.text_of(share)),), why, rest, row.spread, round(per_token),
        tokens, low, high, context, (*before_parts, *named, kept), gpu,
    )  # fmt: skip


def _verdict(
    engine: Engine, share: float, before: int, rest: int, tokens: int, context: int | None
) -> tuple[memory.Outcome, str]:
    """(outcome, reason). A cache shorter than the longest request starts all the same, and silently serves shorter
    requests (sglang@0.5.23:srt/managers/tp_worker.py:553-573): for us that is a refusal of what was asked.
    """
    if before <= 0:
        return (
            "out_of_memory",
            f"others hold {human(-before)} more than the card has once SGLang's own context is there",
        )
    if rest <= 0:
        least = share + (1 - rest) / before
        more = f"it takes more than {memory.text_of(least)}" if least < 1 else "no share is enough"
        said = f"the weights leave no memory for the KV cache under --mem-fraction-static {memory.text_of(share)}"
        return "out_of_memory", f"{said}, {human(-rest)} are missing; {more}"
    if context is not None and tokens < context:
        said = memory.too_short(engine, context, tokens)
        return "refused", f"{said}. It would start, and cut requests to {thousands(tokens - 1)} tokens without a word"
    return "starts", ""
