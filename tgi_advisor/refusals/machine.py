"""What the machine itself refuses: another architecture than the image's, slices of a card that do not add up."""

from __future__ import annotations

from tgi_advisor.facts.release import is_own
from tgi_advisor.refusals.rules import Case, Found, Rule, rule

MACHINE: list[Rule] = []
"""Before the launcher runs at all."""
SLICES: list[Rule] = []
"""When the shards meet their devices."""


@rule(MACHINE, "launcher", ".github/workflows/build.yaml@v3.3.7:221")
def arm64_host(case: Case) -> Found:
    """This GPU sits beside an arm64 CPU, and TGI's images are built for x86-64 only."""
    image = case.setting.spec.tgi.image
    if not case.setting.facts.gpu.arm64 or (image is not None and not is_own(image)):
        return None
    return "exec format error (or: no matching manifest for linux/arm64/v8)", (
        "use an x86-64 machine, such as one with nvidia-h100-sxm or nvidia-h200",
        "or build an image for arm64 yourself, and name it in tgi.image",
    )


@rule(SLICES, "load", "S/utils/dist.py@v3.3.7:53")
def mig_sharded(case: Case) -> Found:
    """A process sees one MIG slice, however many the container is given, so TGI cannot split a model over several.

    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ (CUDA_VISIBLE_DEVICES): "a single CUDA process can only
    enumerate a single MIG device".
    """
    if not case.setting.facts.gpu.mig or case.setting.num_shard < 2:
        return None
    return "AssertionError: Each process is one gpu", ("set tgi.num_shard: 1, on a slice that is large enough",)
