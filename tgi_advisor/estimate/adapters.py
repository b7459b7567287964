"""LoRA adapters on the GPU: loaded before the warm-up, kept for good.

For every projection TGI stacks the matrices of all layers: A, inputs x rank, and B, rank x outputs. The rank is
padded for the kernels that multiply them on CUDA. Between shards B is split by outputs, and A by rank, behind
attention and behind the feed-forward block by inputs. The warm-up's requests name no adapter: in its pass an adapter
only adds a slice of each projection's output that is gone before the next tensor is made.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/adapters/lora.py#L193-L276
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/lora.py#L66-L92
https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/utils/sgmv.py#L29-L68
"""

from collections.abc import Iterator
from typing import NamedTuple

from tgi_advisor.estimate import weights
from tgi_advisor.estimate.allocator import Allocator
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import adapters, families
from tgi_advisor.facts.adapters import ASSUMED, Lora
from tgi_advisor.facts.release import Version

SINCE: Version = (2, 1, 0)
"""First release with adapters."""
LATER: dict[str, Version] = {"qkv_proj": (2, 3, 0), "c_proj": (3, 0, 2), "c_fc": (3, 0, 2)}
"""Projections that got adapters later."""
LEAST_RANK = 8
"""Rank a shard pads to (MIN_SGMV_RANK)."""
RANK_STEP = 16
"""Larger ranks are padded to a multiple of it (SGMV_BLOCK_SIZE)."""
TURNED = range(16, 129)
"""Ranks whose A matrix is turned back to how it is stored (MIN_RANK_CUSTOM to MAX_RANK_CUSTOM)."""
KEEP_SHAPE = (None, *(weights.ON_THE_FLY - {"fp8"}))
"""Quantization methods whose projections take adapters."""
BY_INPUTS = frozenset({"o_proj", "down_proj"})
"""Projections whose A matrix is split by inputs."""


class Stack(NamedTuple):
    """One projection's matrices of one adapter, in bytes of one layer on one shard."""

    stored_a: int
    """A as it is stored."""
    stored_b: int
    """B as it is stored."""
    padded_a: int
    """A with its rank padded, before it is split."""
    padded_b: int
    """B with its rank padded, before it is split."""
    a: int
    """The shard's A."""
    b: int
    """The shard's B."""
    layers: int
    """Layers that are stacked."""
    pads: bool
    """Whether the rank is padded."""
    copies: bool
    """Whether A is copied once more before it is stacked."""


def part(setting: Setting) -> Part | None:
    """The adapters of a launch; None without."""
    size = sum(one.layers * (one.a + one.b) for one in stacks(setting))
    if not size:
        return None
    known = [setting.facts.adapters.get(entry.text) for entry in _entries(setting)]
    number = f"{len(known)} adapter{'s' if len(known) > 1 else ''}"
    unread = known.count(None)
    if unread:
        which = f"{number}, {unread} of them" if unread < len(known) else number
        why = f"{which} taken to have rank {ASSUMED.rank} on every projection"
    else:
        ranks = sorted({lora.rank for lora in known if lora})
        why = f"{number} of rank {' and '.join(map(str, ranks))}, as adapter_config.json says"
    return Part("LoRA adapters", size, "modelled" if unread else "exact", why)


def load(setting: Setting, memory: Allocator) -> None:
    """What loading the adapters allocates, in TGI's order."""
    for one in stacks(setting):
        a, b = [], []
        read = None
        for _ in range(one.layers):
            a.append(memory.new(one.stored_a))
            if read:
                memory.release(read)
            read = memory.new(one.stored_b)
            b.append(memory.new(one.stored_b))
        last = a[-1]
        if one.pads:
            wide = [memory.new(one.padded_a) for _ in a]
            memory.release(*a[:-1])
            a = wide
            wide = [memory.new(one.padded_b) for _ in b]
            memory.release(*b)
            b = wide
        turned = [memory.new(one.a) for _ in a] if one.copies else []
        memory.new(one.layers * one.a)
        memory.new(one.layers * one.b)
        memory.release(*turned, *a, *b)
        if one.pads:
            memory.release(last)
        if read:
            memory.release(read)


def stacks(setting: Setting) -> Iterator[Stack]:
    """The stacks of every adapter, in the order TGI loads them; none where the release or the class has no adapters."""
    family, version = setting.family, setting.facts.release.version
    since = family.adapters_from
    if family.served_by != "flash" or since is None or version < max(since, SINCE):
        return
    if setting.facts.gpu.system == "gaudi" or setting.quantize not in KEEP_SHAPE:
        return
    known = shapes(setting)
    for entry in _entries(setting):
        lora = setting.facts.adapters.get(entry.text, ASSUMED)
        for name in lora.projections:
            if name in known and version >= LATER.get(name, SINCE):
                yield _stack(setting, lora, name, *known[name])


def _entries(setting: Setting) -> list[adapters.Entry]:
    return [adapters.parse(word) for word in setting.lora_adapters if word.strip()]


def shapes(setting: Setting) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the checkpoint's projections that a class puts adapters on, over all shards."""
    model, family = setting.facts.model, setting.family
    hidden, inner = families.hidden(model), families.intermediate(model)
    head = families.head_size(model, family)
    query, kv = families.heads(model) * head, families.kv_heads(model) * head
    every = {"q_proj": (hidden, query), "k_proj": (hidden, kv), "v_proj": (hidden, kv), "o_proj": (query, hidden)}
    every["qkv_proj"] = (hidden, query + 2 * kv)
    every |= {"gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden)}
    every |= {"c_fc": (hidden, inner), "c_proj": (inner, hidden)}
    stored = {group.name.rpartition(".")[0].rpartition(".")[2] for group in model.tensors}
    return {name: shape for name, shape in every.items() if name in stored}


def _stack(setting: Setting, lora: Lora, name: str, inputs: int, outputs: int) -> Stack:
    shards, element = setting.num_shard, 4 if setting.dtype == "float32" else 2
    rank = _padded(lora.rank, shards) if setting.facts.gpu.system == "cuda" else lora.rank
    split_a = (inputs // shards) * rank if name in BY_INPUTS else inputs * (rank // shards)
    shard_rank = rank if name in BY_INPUTS else rank // shards
    pads = rank != lora.rank
    split_rows = shards > 1 and name in BY_INPUTS
    in_turn = pads or split_rows  # else it lies as it was stored, or is a range of its rows
    as_read = not pads or (shards > 1 and not split_rows)  # else padding made it anew, or it is a range of those rows
    return Stack(
        stored_a=lora.rank * inputs * element,
        stored_b=lora.rank * outputs * element,
        padded_a=rank * inputs * element,
        padded_b=rank * outputs * element,
        a=split_a * element,
        b=rank * (outputs // shards) * element,
        layers=families.layers(setting.facts.model),
        pads=pads,
        copies=in_turn if shard_rank in TURNED else as_read,
    )


def _padded(rank: int, shards: int) -> int:
    least = LEAST_RANK * shards
    return least if rank <= least else -(-rank // RANK_STEP) * RANK_STEP
