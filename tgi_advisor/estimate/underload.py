"""After the warm-up: does what is left carry the worst moment of real traffic?

Warm-up sizes the KV cache and says nothing about later: users report servers that start and die
under load (issues 653, 1374, 1356, 2744 of the repository). What is left beside weights and a full KV
cache has to hold a full prefill again, sampling for everything that decodes at once, the CUDA graphs,
and the blocks PyTorch caches in sizes that no later request fits.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tgi_advisor.estimate import overhead, prefill
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.units import human

DECODING = 128
"""Requests that decode together when --max-concurrent-requests is not given (its default)."""

FRAGMENTATION = 1.0
"""Blocks cached in unusable sizes, as a share of the prefill's widest moment: 1.57 GiB beside 1.6 GB in issue 1374."""

Safety = Literal["safe", "tight", "at risk"]


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
    setting, g = here.setting, here.geometry
    if seen.budget is None or seen.stage is not None:
        return None
    cache = seen.blocks * g.kv_bytes_per_token * setting.block_size
    there = here.total - here.loaded - cache
    widest = seen.tokens * here.activation_per_token
    wanted = setting.flags.get("max-concurrent-requests")
    together = min(wanted if isinstance(wanted, int) else DECODING, seen.blocks)
    sampling = together * prefill.sampling_bytes_per_request(setting, g)
    total = seen.limits.max_total_tokens or seen.budget
    captured = overhead.graphs(setting, g, total, -(-seen.warm_blocks // max(1, seen.requests)))
    graphs = captured.bytes if captured else 0
    needed = round(widest * (1 + FRAGMENTATION)) + sampling + graphs
    spare = there - needed
    verdict: Safety = "at risk" if spare < 0 else "tight" if spare < spread else "safe"
    why = (
        f"{human(there)} left beside weights and a full KV cache; a full prefill, unusable cached blocks, sampling for "
        f"{together} requests and the CUDA graphs may need {human(needed)}"
    )
    return UnderLoad(verdict, spare, why)
