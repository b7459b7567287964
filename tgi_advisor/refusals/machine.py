"""What the machine itself refuses: another architecture than the image's, slices of a card that do not add up."""

from __future__ import annotations

from tgi_advisor.facts.release import is_own
from tgi_advisor.refusals.rules import Case, Found, Rule, rule

MACHINE: list[Rule] = []
"""Before the launcher runs at all."""
SLICES: list[Rule] = []
"""When the shards meet their devices."""
_ARCHITECTURES = (((2, 0, 4), ("cdna2", "cdna3")), ((1, 2, 0), ("cdna2",)))
"""Generations the ROCm images compile for (PYTORCH_ROCM_ARCH), by the first release, newest first."""


@rule(MACHINE, "launcher", ".github/workflows/build.yaml@v3.3.7:221")
def arm64_host(case: Case) -> Found:
    """This GPU sits beside an arm64 CPU, and TGI's images are built for x86-64 only."""
    image = case.setting.spec.tgi.image
    if not case.setting.facts.gpu.arm64 or (image is not None and not is_own(image)):
        return None
    return "exec format error (or: no matching manifest for linux/arm64/v8)", (
        "use an x86-64 machine, such as one with nvidia-h100-sxm or nvidia-h200",
        "build an image for arm64 yourself, and name it in tgi.image",
    )


BLACKWELL = (
    "use an Ampere, Ada or Hopper GPU, up to compute capability 9.0: no release's image is built for newer ones",
    "build an image for this GPU yourself, and name it in tgi.image",
)
"""What to do where a GPU is newer than what the images are compiled for."""
_NO_KERNEL = "RuntimeError: CUDA error: no kernel image is available for execution on the device"


@rule(SLICES, "load", "server/uv.lock@v3.3.0:28", until=(3, 3, 0))
def gpu_newer_than_its_kernels(case: Case) -> Found:
    """Until 3.3.0 the image's PyTorch holds kernels up to compute capability 9.0.

    https://github.com/pytorch/pytorch/issues/167244 (sm_50 to sm_90); 3.3.1 takes PyTorch 2.7 for CUDA 12.8.
    """
    if not _own_image(case) or case.setting.facts.gpu.at_least < (10, 0):
        return None
    return _NO_KERNEL, BLACKWELL


@rule(SLICES, "load", "server/uv.lock@v3.3.7:329", since=(3, 3, 1))
def gpu_older_than_its_kernels(case: Case) -> Found:
    """From 3.3.1 on the image's PyTorch, 2.7 for CUDA 12.8, holds kernels from compute capability 7.5 on.

    Its torch.cuda.get_arch_list() is sm_75, sm_80, sm_86, sm_90, sm_100, sm_120, as 2.7.0+cu128 and 2.7.1+cu128
    print it in public repositories, in the warning about a Tesla P4 among others.
    """
    capability = case.setting.facts.gpu.compute_capability
    if not _own_image(case) or capability is None or capability >= (7, 5):
        return None
    return _NO_KERNEL, ("use TGI 3.3.0 or older on this GPU",)


@rule(SLICES, "load", "Dockerfile_amd@v3.3.7:65", since=(1, 2, 0))
def gpu_without_rocm_kernels(case: Case) -> Found:
    """The ROCm images are compiled for MI200 (gfx90a) and, from 2.0.4 on, MI300 (gfx942). Dockerfile_amd@v2.0.3:105."""
    gpu = case.setting.facts.gpu
    known = next((names for since, names in _ARCHITECTURES if case.version >= since), ())
    if gpu.system != "rocm" or not gpu.generation or gpu.generation in known or not _own_image(case):
        return None
    step = "use TGI 2.0.4 or newer on this GPU" if gpu.generation == "cdna3" else "use an MI210, MI250 or MI300X"
    return "RuntimeError: HIP error: invalid device function", (step,)


def _own_image(case: Case) -> bool:
    """Whether the image is TGI's own; another may be built for any GPU."""
    image = case.setting.spec.tgi.image
    return image is None or is_own(image)


@rule(SLICES, "load", "S/utils/dist.py@v3.3.7:53")
def mig_sharded(case: Case) -> Found:
    """A process sees one MIG slice, however many the container is given, so TGI cannot split a model over several.

    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ (CUDA_VISIBLE_DEVICES): "a single CUDA process can only
    enumerate a single MIG device".
    """
    if not case.setting.facts.gpu.mig or case.setting.num_shard < 2:
        return None
    return "AssertionError: Each process is one gpu", ("set tgi.num_shard: 1, on a slice that is large enough",)
