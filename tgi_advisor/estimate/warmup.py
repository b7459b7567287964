"""TGI's own warm-up, replayed in bytes: what is used at the peak, and the KV cache that is left.

`base` is everything that does not depend on the token limits and is computed once per launch;
`run` replays one warm-up for one set of limits and is cheap enough to sit in a search.

The sum follows `FlashCausalLM.warmup`:
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1507-L1563
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/import_utils.py#L13-L17
"""

import math
from functools import lru_cache
from typing import Literal, NamedTuple

from tgi_advisor.estimate import adapters, defaults, forward, geometry, heads, overhead, prefill, replay, weights
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.parts import Part, Reserved
from tgi_advisor.estimate.peak import Batch, Prefills
from tgi_advisor.estimate.replay import graphs
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.estimate.replay.graphs import Captured
from tgi_advisor.estimate.replay.peaks import KEPT
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.limits import Limits
from tgi_advisor.units import human, thousands

MISTRAL_CLASS = frozenset({"mistral", "mixtral", "qwen2", "starcoder2"})
"""Model types whose batches are FlashMistralBatch until 2.0.4."""
GAUDI_SHARE = 0.8
"""HPU_MEMORY_FRACTION unless it is set (backends/gaudi/server/text_generation_server/utils/dist.py@v3.3.7:10)."""
GAUDI_GRAPHS = 0.1
"""Default of TGI_GRAPH_RESERVED_MEM."""
GAPS = "half-used segments"
"""What PyTorch has reserved and nobody uses."""


class Base(NamedTuple):
    """One launch before its warm-up."""

    setting: Setting
    """The launch."""
    geometry: Geometry
    """Layer sizes on one shard."""
    parts: tuple[Part, ...]
    """What is on the GPU once the model is loaded, driver reserve and other processes included."""
    loaded: int
    """Sum of `parts` in bytes."""
    torch: int
    """The share of `loaded` that PyTorch's allocator holds, which --cuda-memory-fraction caps."""
    total: int
    """GPU memory as nvidia-smi prints it (a shard's share of the host's RAM on a CPU)."""
    cuda_total: int
    """GPU memory as the driver reports it to TGI."""
    most: int
    """Bytes that may be used at the peak: the card, or what the allocator's fraction leaves."""
    prefills: Prefills
    """What a prefill adds, by the batch."""
    gaps: int
    """The share of `loaded` in segments that loading left half used."""
    captured: Captured | None
    """What CUDA graphs take, where their capture is replayed."""
    text_per_token: int
    """Bytes per prefill token of the layers' widest moment, without what images and masks of whole prompts take."""


class Warmup(NamedTuple):
    """One warm-up replayed."""

    stage: Literal["load", "warmup"] | None
    """Where memory runs out; None when it does not."""
    limits: Limits
    """The limits with the launcher's defaults filled in."""
    requests: int
    """Requests of the warm-up batch."""
    tokens: int
    """Prompt tokens of the warm-up batch."""
    warm_blocks: int
    """KV blocks of the warm-up batch."""
    again: int
    """Bytes the layers of the same prefill reserve beside a full KV cache."""
    activations: int
    """Bytes in use at the widest moment of the layers, masks and exllama scratch included."""
    logits: int
    """Bytes of logits and sampling on top of these."""
    gaps: int
    """Bytes of segments that are reserved and not in use at the peak."""
    used: int
    """Bytes used at the peak, the driver reserve included, the margin not."""
    slack: int
    """Bytes left at the peak below what the card (or the memory fraction) gives; negative: missing."""
    blocks: int
    """KV blocks TGI will allocate; 0 when it never gets there."""
    cache: int
    """Bytes TGI sets aside for the KV cache, whose whole blocks it allocates."""
    budget: int | None
    """`max_batch_total_tokens` TGI infers; None for families that infer none."""


class _Common(NamedTuple):
    """What launches have in common that load, run and allocate alike."""

    geometry: Geometry
    """Layer sizes on one shard."""
    inside: tuple[Part, ...]
    """What PyTorch's allocator holds once the model is loaded, gaps included."""
    peaks: replay.Peaks | None
    """Their warm-ups, where they are replayed."""
    prefills: Prefills
    """What a prefill adds, by the batch."""
    gaps: int
    """Bytes in segments that loading left half used."""
    text_per_token: int
    """Bytes per prefill token of the layers' widest moment, without images and masks."""


@lru_cache(maxsize=KEPT)
def _common(launch: Alike) -> _Common:
    setting = launch.setting
    g = geometry.of(setting)
    inside = [*weights.shard(setting).parts]
    workspace = overhead.flashinfer(setting)
    inside += filter(None, (adapters.part(setting), heads.part(setting), workspace))
    counted = sum(part.bytes for part in inside)
    prefills: Prefills
    peaks = None
    if replay.known(setting):
        prefills = peaks = replay.peaks_of(setting)
        beyond = workspace.bytes - sum(replay.WORKSPACE) if workspace else 0
        gaps = peaks.loaded.reserved + beyond - counted
    else:
        prefills, gaps = prefill.Scaled(setting, g), forward.loading_slack(setting, g)
    inside.append(Part(GAPS, gaps, "modelled", "PyTorch's segments that loading leaves pinned"))
    return _Common(g, tuple(inside), peaks, prefills, gaps, prefill.per_token(setting, g).layers)


def base(setting: Setting) -> Base:
    """Everything about a launch that no token limit changes."""
    gpu = setting.facts.gpu
    alike = _common(Alike(setting))
    share = setting.num_shard if gpu.system == "cpu" else 1
    reserve = overhead.driver_reserve(setting)
    outside = [part for part in (overhead.context(setting), overhead.communicators(setting)) if part and part.bytes]
    parts = tuple(part for part in (reserve, *outside, *alike.inside) if part.bytes)
    total = gpu.memory_bytes // share
    peaks = alike.peaks
    loaded = sum(part.bytes for part in parts)
    torch, cuda_total = sum(part.bytes for part in alike.inside), total - reserve.bytes
    alone = Base(
        setting=setting,
        geometry=alike.geometry,
        parts=parts,
        loaded=loaded,
        torch=torch,
        total=total,
        cuda_total=cuda_total,
        most=_most(setting, total, cuda_total, loaded - torch),
        prefills=alike.prefills,
        gaps=alike.gaps,
        captured=graphs.capture(setting, alike.geometry, peaks.loaded, peaks.shapes) if peaks else None,
        text_per_token=alike.text_per_token,
    )
    return beside(alone, setting.spec.hardware.in_use)


def beside(alone: Base, in_use: int) -> Base:
    """A launch that has the GPU to itself, on a GPU where others hold `in_use` bytes."""
    if not in_use:
        return alone
    others = Part("other processes", in_use, "exact", "hardware.in_use of the spec")
    after = 1 if alone.total > alone.cuda_total else 0  # the driver reserve comes first
    parts = (*alone.parts[:after], others, *alone.parts[after:])
    loaded = alone.loaded + in_use
    most = _most(alone.setting, alone.total, alone.cuda_total, loaded - alone.torch)
    return alone._replace(parts=parts, loaded=loaded, most=most)


def with_fraction(here: Base, fraction: float) -> Base:
    """The launch with another --cuda-memory-fraction."""
    setting = here.setting._replace(memory_fraction=fraction)
    return here._replace(setting=setting, most=_most(setting, here.total, here.cuda_total, here.loaded - here.torch))


def _most(setting: Setting, total: int, cuda_total: int, outside: int) -> int:
    """`Base.most`, where `outside` bytes are used beside what PyTorch's allocator holds.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/dist.py#L56
    """
    if setting.facts.gpu.system not in ("cuda", "rocm"):
        return total
    return min(total, outside + int(setting.memory_fraction * cuda_total))


def warmup_batch(setting: Setting, limits: Limits) -> tuple[int, int, int]:
    """(requests, prefill tokens, KV blocks) of the warm-up batch for limits with defaults filled in.

    Requests of max_input_tokens until max_batch_prefill_tokens is reached; --max-batch-size stops
    earlier where the release honours it. Without max_input_tokens it is one request.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/v3/src/client/grpc_client.rs#L105-L230
    """
    release, size = setting.facts.release, setting.block_size
    wanted = limits.max_batch_prefill_tokens or 0
    longest = min(limits.max_input_tokens or wanted, wanted) or 1
    requests = -(-wanted // longest)
    tokens = wanted
    if release.batch_size_caps_warmup and setting.max_batch_size and requests > setting.max_batch_size:
        requests = setting.max_batch_size
        tokens = requests * longest
    speculate = setting.speculate if release.speculate_in_blocks else 0
    last = tokens - (requests - 1) * longest
    if release.warmup_new_tokens == "two":
        blocks = (requests - 1) * -(-(longest + 1 + speculate) // size) + -(-(last + 1 + speculate) // size)
    elif limits.max_total_tokens is None:
        blocks = (requests - 1) * -(-(longest + speculate) // size) + -(-(last + speculate) // size)
    else:
        blocks = requests * -(-(limits.max_total_tokens - 1 + speculate) // size)
    window = _window_blocks(setting)
    if window is not None:
        blocks = min(blocks, requests * window)
    return requests, tokens, blocks


def _window_blocks(setting: Setting) -> int | None:
    """Blocks the Mistral class caps a request at (1.1.0-2.0.4): those of its sliding window.

    https://github.com/huggingface/text-generation-inference/blob/v2.0.4/server/text_generation_server/models/flash_mistral.py#L155-L162
    """
    if setting.family.model_type not in MISTRAL_CLASS:
        return None
    if not (1, 1, 0) <= setting.facts.release.version <= (2, 0, 4):
        return None
    window = families.sliding_window(setting.facts.model)
    return None if window is None else -(-window // setting.block_size)


def gives_back(setting: Setting, limits: Limits, tokens: int) -> bool:
    """Whether TGI counts the KV cache of a warm-up of so many prompt tokens as free: some releases where it is still
    there, which it is where the prefill leaves a request unfinished, so that its batch survives the step.
    """
    if setting.facts.release.warmup_blocks_back != "if_unfinished":
        return True
    total, longest = limits.max_total_tokens, limits.max_input_tokens
    if total is None or not longest:
        return False
    return total - longest > 1 or tokens % longest != 0


def kv_memory(here: Base, used: int) -> int:
    """Bytes TGI gives the KV cache when `used` bytes (driver reserve included) are taken at the peak.

    CUDA and ROCm read the driver's free memory; from 3.0.0 on TGI_WIGGLE_ROOM multiplies the whole
    GPU, before it multiplied what was free. Intel CPUs take 95 % of the free RAM whatever the room;
    Intel GPUs have formulas of their own. Gaudi keeps back shares of what was free before the warm-up:
    what HPU_MEMORY_FRACTION leaves, and a tenth of the rest for its graphs (3.3.1 on).
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/gaudi/server/text_generation_server/models/flash_causal_lm.py#L1657-L1709
    """
    setting, release = here.setting, here.setting.facts.release
    free = here.total - used
    fraction, wiggle = setting.memory_fraction, setting.wiggle
    match setting.facts.gpu.system:
        case "cpu":
            room = max(0, int(free * 0.95))
            return room if release.version >= (3, 0, 0) else int(room * wiggle)
        case "xpu":
            room = _xpu_memory(here, used)
            return room if release.wiggle_of == "total" else int(room * wiggle)
        case "gaudi":
            if release.version < (3, 3, 1):
                return max(0, free)
            before = max(0, here.total - here.loaded)
            given = _share(setting, "HPU_MEMORY_FRACTION", GAUDI_SHARE)
            return max(0, int(free - (1 - given) * before - GAUDI_GRAPHS * given * before))
        case "cuda" | "rocm":
            if release.wiggle_of == "total":
                return max(0, int(free - (1 - fraction * wiggle) * here.cuda_total))
            return int(wiggle * max(0, int(free - (1 - fraction) * here.cuda_total)))


def _xpu_memory(here: Base, used: int) -> int:
    """Intel GPUs, whose shares only XPU_MEMORY_FRACTION changes (2.1.1 on).

    Half the card until 2.0.4; 95 % of it minus what is used in 2.1.0; 90 % of it minus what PyTorch holds
    until 3.2.0; then what is free minus a tenth of it.
    https://github.com/huggingface/text-generation-inference/blob/v2.1.0/server/text_generation_server/utils/import_utils.py#L21-L28
    https://github.com/huggingface/text-generation-inference/blob/v3.2.0/server/text_generation_server/utils/import_utils.py#L20-L30
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/import_utils.py#L20-L26
    """
    version, total = here.setting.facts.release.version, here.total
    if version < (2, 1, 0):
        return total // 2
    if version < (2, 1, 1):
        return max(0, int(total * 0.95 - used))
    if version < (3, 2, 1):
        outside = here.loaded - here.torch
        return max(0, int(total * 0.9 * _share(here.setting, "XPU_MEMORY_FRACTION", 1.0) - (used - outside)))
    return max(0, int(total - used - (1 - _share(here.setting, "XPU_MEMORY_FRACTION", 0.9)) * total))


def _share(setting: Setting, variable: str, default: float) -> float:
    """The share of the device a variable sets; the refusals name one that cannot be one."""
    try:
        share = float(setting.env.get(variable, default))
    except ValueError:
        return default
    return share if -math.inf < share <= 1 else default


def loads(here: Base, margin: int = 0) -> bool:
    """Whether the model can be loaded, with `margin` bytes treated as used by something else."""
    return here.loaded + margin <= here.most


def run(here: Base, given: Limits, margin: int = 0, *, retry: bool = False) -> Warmup:
    """Replay the warm-up for the limits given; `margin` bytes are treated as used by something else.

    Where the GPU fills up, PyTorch gives its cached blocks back and tries once more; with `retry` that is
    replayed too. Without it the result is monotone in every limit, which a search needs. Refusals are
    `tgi_advisor.refusals`' business.
    """
    setting, g = here.setting, here.geometry
    limits = defaults.launcher_limits(setting, given)
    most = here.most
    if not loads(here, margin):
        missing = most - here.loaded - margin
        return Warmup("load", limits, 0, 0, 0, 0, 0, 0, here.gaps, here.loaded, missing, 0, 0, None)
    requests, tokens, warm_blocks = warmup_batch(setting, limits)
    per_block = g.kv_bytes_per_token * setting.block_size
    if not setting.family.paged:  # prompts alone, and Mamba makes no prefill at all
        warm_blocks = 0 if setting.family.served_by == "mamba" else -(-tokens // setting.block_size)
    batch = Batch(requests, tokens, min(limits.max_input_tokens or tokens, tokens), warm_blocks)
    peak = here.prefills.at(batch)
    used = here.loaded + peak.whole
    if retry and used + margin > most:
        peak = here.prefills.squeezed(batch, most - here.loaded - margin)
        used = here.loaded + peak.whole
    free = peak.whole + here.gaps - warm_blocks * per_block  # what is neither loaded nor the warm-up's KV cache
    logits = min(peak.alive - peak.alive_layers, free)
    activations = min(peak.alive_layers, free - logits)
    return _with_margin(
        here, margin, limits, requests, tokens, warm_blocks, peak.again, activations, logits,
        free - activations - logits, used,
    )  # fmt: skip


def with_margin(here: Base, seen: Warmup, margin: int) -> Warmup:
    """A warm-up whose model could be loaded, with `margin` bytes treated as used by something else."""
    return _with_margin(here, margin, *seen[1:10])


def _with_margin(
    here: Base, margin: int, limits: Limits, requests: int, tokens: int, warm_blocks: int, again: int,
    activations: int, logits: int, gaps: int, used: int,
) -> Warmup:  # fmt: skip
    """The same; all but the first two are a `Warmup`'s fields."""
    setting = here.setting
    slack = here.most - used - margin
    stage: Literal["warmup"] | None = "warmup" if slack < 0 else None
    blocks, cache, budget = 0, 0, None
    if stage is None and setting.family.paged:
        budget = 0  # more shards than KV heads: TGI stops before it allocates any
        per_block = here.geometry.kv_bytes_per_token * setting.block_size
        if per_block:
            back = warm_blocks if gives_back(setting, limits, tokens) else 0
            room = kv_memory(here, used + margin)
            blocks = room // per_block + back
            cache, budget = room + back * per_block, blocks * setting.block_size
    return Warmup(
        stage, limits, requests, tokens, warm_blocks, again, activations, logits, gaps, used, slack, blocks, cache,
        budget,
    )  # fmt: skip


def reserved(here: Base, seen: Warmup) -> Reserved | None:
    """What PyTorch's CUDA allocator (ROCm's is the same) has reserved after loading and at the peak."""
    if here.setting.facts.gpu.system not in ("cuda", "rocm"):
        return None
    return Reserved(here.torch, None if seen.stage == "load" else here.torch + seen.used - here.loaded)


def parts(here: Base, seen: Warmup) -> tuple[Part, ...]:
    """Where every byte of the GPU goes.

    For a server that starts the parts add up to the GPU's memory; where memory runs out they add up
    to what would be needed.
    """
    if seen.stage == "load":
        return here.parts
    setting, g = here.setting, here.geometry
    rows = [part for part in here.parts if part.name != GAPS]
    if seen.gaps:
        rows.append(
            Part(GAPS, seen.gaps, "modelled", "PyTorch's segments that loading and the prefill leave partly free")
        )
    rows.append(
        Part(
            "prefill activations", seen.activations, "modelled",
            f"{thousands(seen.limits.max_batch_prefill_tokens or 0)} tokens at the widest moment",
        )
    )  # fmt: skip
    full = "for every prefill token" if setting.prefill_logprobs else "for each request's last token"
    rows.append(Part("logits and sampling", seen.logits, "modelled", f"{thousands(g.vocabulary)} logits {full}"))
    per_block = g.kv_bytes_per_token * setting.block_size
    warm = seen.warm_blocks * per_block
    if seen.stage == "warmup" or seen.budget is None:
        if warm:
            requests = f"{thousands(seen.requests)} warm-up request{'s' if seen.requests > 1 else ''}"
            why = f"{requests}, {_blocks(seen.warm_blocks, setting)}"
            rows.append(Part("warm-up KV cache", warm, "exact", why))
        if seen.budget is None and seen.stage is None:
            rest = here.total - sum(part.bytes for part in rows)
            rows.append(
                Part("free for requests", rest, "modelled", "this family reserves no KV cache; batches grow into it")
            )
        return tuple(rows)
    cache = seen.blocks * per_block
    rows.append(
        Part("KV cache", cache, "exact", f"{_blocks(seen.blocks, setting)}, {human(g.kv_bytes_per_token)} per token")
    )
    rest = left = here.total - sum(part.bytes for part in rows)
    captured = overhead.graphs(
        setting, g, here.captured, seen.limits.max_total_tokens or seen.budget or 0,
        -(-seen.warm_blocks // max(1, seen.requests)),
    )  # fmt: skip
    if captured and rest > 0:
        shown = captured
        if captured.bytes > rest:
            why = f"{captured.why}; {human(captured.bytes)} with what the prefill frees"
            shown = captured._replace(bytes=rest, why=why)
        rows.append(shown)
        rest -= shown.bytes
    rows.append(Part("reserve", rest, "exact", _reserve_why(setting, left, here.total)))
    return tuple(rows)


def _blocks(count: int, setting: Setting) -> str:
    """Blocks of the KV cache in words: as tokens where a block holds one."""
    if setting.block_size == 1:
        return f"{thousands(count)} tokens"
    return f"{thousands(count)} block{'s' if count > 1 else ''} of {setting.block_size} tokens"


def _reserve_why(setting: Setting, left: int, total: int) -> str:
    """What TGI's room is, in this release's terms; `left` of `total` bytes are not taken by anything else."""
    percent = f"{100 * (1 - setting.memory_fraction * setting.wiggle):.3g} %"
    if setting.facts.gpu.system not in ("cuda", "rocm"):
        return f"what TGI leaves free on {setting.facts.gpu.system}"
    if setting.facts.release.wiggle_of == "total":
        room = f"TGI_WIGGLE_ROOM={setting.wiggle:g}"
        if setting.memory_fraction < 1:
            room += f" of --cuda-memory-fraction {setting.memory_fraction:g}"
        kept = total * (1 - setting.memory_fraction * setting.wiggle)
        rest = "what is left of the " if left < kept / 2 else ""
        return f"{rest}{percent} of the GPU TGI keeps out of the KV cache ({room})"
    return f"TGI gives the KV cache {setting.wiggle:g} of what is free at the peak"
