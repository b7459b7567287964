"""How far the estimate is off the replay at a prefill's own length: it draws lines between the lengths it replays.

Shipped models, releases and random prefills of one prompt; prints the quantiles and the launches that are furthest off.
"""

from __future__ import annotations

import argparse
from random import Random
from typing import NamedTuple

from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, geometry, replay, warmup
from tgi_advisor.estimate.peak import Batch
from tgi_advisor.estimate.replay.warmup import warm_up
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather import snapshot
from tgi_advisor.limits import Limits
from tgi_advisor.spec.records import Spec
from tgi_advisor.units import GiB

GPU = "nvidia-a100-80gb-sxm"
SHARDS = (1, 1, 2, 4)
BOUND, SHARE = 0.15 * GiB, 0.003
"""An error counts as large above the greater of these: bytes, and the share of what PyTorch has reserved."""


class Off(NamedTuple):
    """One prefill."""

    error: int
    """Bytes said minus bytes of the replay at this length."""
    reserved: int
    """Bytes the replay has reserved at the peak."""
    name: str
    """The launch."""


def off(model: str, release: str, shards: int, tokens: int) -> Off | None:
    """One prefill as said and as replayed; None where TGI refuses the launch or it is not replayed."""
    found = snapshot.find(model)
    assert found is not None
    try:
        setting = defaults.resolve(Spec(), Facts(found, gpus.find(GPU), shards, releases.find(release), ""))
        if not (setting.family.supported and setting.family.paged and replay.known(setting)):
            return None
        g = geometry.of(setting)
        limits = defaults.launcher_limits(setting, Limits(tokens, tokens + 512, tokens))
        requests, together, blocks = warmup.warmup_batch(setting, limits)
        batch = Batch(requests, together, together, blocks)
        peaks = replay.peaks_of(setting)
        exact = warm_up(setting, g, peaks.loaded, batch).peak
    except AdvisorError:
        return None
    said = peaks.loaded.reserved + peaks.at(batch).whole
    return Off(said - exact, exact, f"{model}, {release}, {setting.num_shard} shards, {tokens} tokens")


def main() -> None:
    """Print the quantiles, and what is furthest off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("releases", nargs="*", default=["3.3.7", "2.2.0", "2.0.4"])
    parser.add_argument("--each", type=int, default=4, help="prefills of each model and release (default: 4)")
    parser.add_argument("--longest", type=int, default=12000, help="tokens of the longest prefill (default: 12000)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    draw = Random(asked.seed)
    tried = (
        off(model, release, draw.choice(SHARDS), draw.randint(300, asked.longest))
        for model in snapshot.recorded_ids()
        for release in asked.releases
        for _ in range(asked.each)
    )
    seen = sorted(filter(None, tried), key=lambda one: abs(one.error))
    for name, share in (("median", 0.5), ("nine of ten", 0.9), ("99 of 100", 0.99)):
        print(f"{name:<12}{abs(seen[int(share * len(seen))].error) / GiB:.3f} GiB")
    large = sum(abs(one.error) > max(BOUND, SHARE * one.reserved) for one in seen)
    print(f"{len(seen)} prefills, {large} of them off by more than 0.15 GiB and 0.3 % of what is reserved; furthest:")
    for one in seen[:-13:-1]:
        print(f"  {one.error / GiB:+.3f} GiB of {one.reserved / GiB:.1f}: {one.name}")


if __name__ == "__main__":
    main()
