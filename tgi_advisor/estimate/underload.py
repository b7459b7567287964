"""After the warm-up: does what is left carry the worst moment of real traffic?

Warm-up sizes the KV cache and says nothing about later: users report servers that start and die under load
(issues 653, 1374, 1356, 2744 of the repository). What is left beside weights and a full KV cache has to hold a full
prefill again, in which images may be larger than the warm-up's, sampling for everything that decodes at once, the CUDA
graphs, and the blocks PyTorch caches in sizes that no later request fits.
"""

from typing import Literal, NamedTuple

from tgi_advisor.estimate import heads, overhead, prefill
from tgi_advisor.estimate.peak import Seen
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.units import human, thousands

DECODING = 128
"""Requests that decode together when --max-concurrent-requests is not given (its default)."""

FRAGMENTATION = 1.0
"""Blocks cached in unusable sizes, as a share of the text's widest moment: 1.57 GiB beside 1.6 GB in issue 1374."""

Safety = Literal["safe", "tight", "at risk"]
GRADES: tuple[Safety, ...] = ("at risk", "tight", "safe")
"""The verdicts, the worst first."""


class UnderLoad(NamedTuple):
    """The second verdict, for a server that starts."""

    verdict: Safety
    """`safe`: more than the estimate's own spread is spare; `tight`: less; `at risk`: nothing is."""
    spare_bytes: int
    """What the worst moment leaves; negative: what it lacks."""
    why: str
    """The worst moment against what there is."""


def judge(here: Base, seen: Warmup, spread: int) -> UnderLoad | None:
    """The verdict on a warm-up that passed; `spread` is the estimate's own uncertainty in bytes.

    None for families that reserve no KV cache: how much they need depends on the traffic alone.
    """
    left = spare(here, seen)
    if left is None:
        return None
    captured = graphs(here, seen)
    needed = growth(here, seen) + captured
    moments = [_prefill(here, seen), "unusable cached blocks", f"sampling for {int(_together(here, seen))} requests"]
    if captured:
        moments.append("the CUDA graphs")
    all_moments = f"{', '.join(moments[:-1])} and {moments[-1]}"
    there = human(left + needed)
    why = f"{there} left beside weights and a full KV cache; {all_moments} may need {human(needed)}"
    return UnderLoad(grade(left, spread), left, why)


def spare(here: Base, seen: Warmup) -> int | None:
    """Bytes the worst moment of real traffic leaves, negative where they are missing; None where `judge` has none.

    What TGI sets aside for the KV cache counts as taken, the rest of a block that it cannot use included.
    """
    if seen.budget is None or seen.stage is not None:
        return None
    # What the memory fraction leaves PyTorch is one bound, the card the other.
    return here.most - idle(here, seen) - growth(here, seen) - graphs(here, seen)


def idle(here: Base, seen: Warmup) -> int:
    """Bytes taken once the KV cache is made, before CUDA graphs are: PyTorch has given its cached blocks back by then.

    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/models/flash_causal_lm.py#L968-L969
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1582-L1593
    """
    return here.loaded + seen.cache - here.prefills.in_gaps(seen.blocks)


def grade(spare_bytes: int, spread: int) -> Safety:
    """The verdict on what is spare."""
    return "at risk" if spare_bytes < 0 else "tight" if spare_bytes < spread else "safe"


def growth(here: Base, seen: Warmup) -> int:
    """Bytes a started server may take on top of what it holds when idle: a full prefill, and sampling for all."""
    sampling, together = prefill.sampling_bytes_per_request(here.setting, here.geometry), _together(here, seen)
    guessing = heads.rows_bytes(here.setting, together * (1 + here.setting.speculate))
    images = _images(here, seen)
    layers = max(images.widest, seen.again + images.kept) if images else seen.again
    return round(layers + FRAGMENTATION * seen.tokens * here.text_per_token + together * sampling + guessing)


def _images(here: Base, seen: Warmup) -> Seen | None:
    """What one image in each prompt of a full prefill takes; prompts may hold more, and be shorter and more of them."""
    return here.prefills.seen(seen.requests, seen.limits.max_input_tokens or seen.tokens)


def _prefill(here: Base, seen: Warmup) -> str:
    """The full prefill in words, with the image that each of its prompts is taken to hold."""
    if _images(here, seen) is None:
        return "a full prefill"
    from tgi_advisor.estimate.replay import pictures  # most launches look at nothing

    image = pictures.words(here.setting, seen.limits.max_input_tokens or seen.tokens)
    each = "" if seen.requests == 1 else f" in each of its {thousands(seen.requests)} prompts"
    return f"a full prefill with the largest image{each} ({image})"


def graphs(here: Base, seen: Warmup) -> int:
    """Bytes of the CUDA graphs."""
    total = seen.limits.max_total_tokens or seen.budget or 0
    of_request = -(-seen.warm_blocks // max(1, seen.requests))
    return overhead.graphs_bytes(here.setting, here.geometry, here.captured, total, of_request)


def _together(here: Base, seen: Warmup) -> float:
    """Requests that decode at once in the worst moment; a fraction of one where that is all a KV block is."""
    wanted = here.setting.flags.get("max-concurrent-requests")
    blocks = seen.cache / (here.geometry.kv_bytes_per_token * here.setting.block_size)
    return min(wanted if isinstance(wanted, int) else DECODING, blocks)


def held(here: Base, seen: Warmup, in_use: int) -> int:
    """Bytes of one GPU a server holds once it has started, beside the `in_use` bytes it found taken."""
    before = here.total - here.cuda_total + in_use
    cache = seen.blocks * here.geometry.kv_bytes_per_token * here.setting.block_size
    return here.loaded - before + cache - here.prefills.in_gaps(seen.blocks) + graphs(here, seen)
