"""The replay on ROCm, which is read off TGI's source and held to no recording: what is different there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor.estimate import defaults, geometry, replay
from tgi_advisor.estimate.allocator import Allocator
from tgi_advisor.estimate.replay import sampling, shapes
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.records import GpuSpec, HardwareSpec, ModelSpec, Spec, TgiSpec
from tgi_advisor.units import MiB

LLAMA = "meta-llama/Llama-3.1-70B-Instruct"
CARDS = {"rocm": "amd-mi300x", "": "nvidia-h100-sxm"}


def setting(model: str, shards: int, release: str, variant: str = "rocm", dtype: str | None = None) -> Setting:
    """A launch of an image variant, with paged attention."""
    found, gpu = snapshot.find(model), gpus.find(CARDS[variant])
    assert found is not None
    spec = Spec(
        model=ModelSpec(id=model, dtype=dtype),
        hardware=HardwareSpec(gpu=GpuSpec(name=gpu.name), count=shards),
        tgi=TgiSpec(env={"ATTENTION": "paged"}),
    )
    return defaults.resolve(spec, Facts(found, gpu, shards, releases.find(release), variant), shards)


def peak(launch: Setting, tokens: int) -> int:
    """Bytes the warm-up's prefill of one request adds to what loading left."""
    loaded = replay.loaded(launch)
    batch = replay.Batch(1, tokens, tokens, -(-tokens // 16))
    return replay.warm_up(launch, geometry.of(launch), loaded, batch).peak - loaded.reserved


@pytest.mark.parametrize(
    ("model", "release", "known"),
    [
        (LLAMA, "3.3.7", True), (LLAMA, "2.0.4", True), (LLAMA, "2.0.3", False),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "3.3.7", False), ("deepseek-ai/DeepSeek-V2-Lite", "3.3.7", False),
        ("Qwen/Qwen3-8B", "3.3.7", False), ("bigcode/starcoder2-15b", "3.3.7", True),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "3.3.7", False),
    ],
)  # fmt: skip
def test_dense_classes_of_16_bit_are_known(model: str, release: str, known: bool) -> None:
    assert replay.known(setting(model, 1, release)) == known


@given(st.sampled_from([2, 4, 8]), st.integers(1, 4096))
def test_logits_are_gathered_into_a_list_and_joined(shards: int, rows: int) -> None:
    """A slice, every shard's slice and the whole are there together: 2 and a bit times the logits."""
    launch = setting(LLAMA, shards, "3.3.7")
    g = geometry.of(launch)
    memory = Allocator()
    whole = sampling.logits(Pass(shapes.of(launch, g), memory, rows), rows)
    assert whole.size == memory.alive
    parts = g.vocabulary * rows * 2
    assert 0 <= memory.most_alive - (2 * parts + parts // shards) < (shards + 2) * MiB


def test_norms_add_in_place_from_3_0_2_on() -> None:
    newer, older = (peak(setting(LLAMA, 1, release), 16384) for release in ("3.0.2", "3.0.1"))
    assert newer < older


def test_a_bias_is_added_into_another_tensor_in_float16_alone() -> None:
    model, tokens = "bigcode/starcoder2-15b", 16384
    half, brain = (peak(setting(model, 1, "3.3.7", dtype=dtype), tokens) for dtype in ("float16", "bfloat16"))
    assert half > brain
    half, brain = (peak(setting(model, 1, "2.2.0", dtype=dtype), tokens) for dtype in ("float16", "bfloat16"))
    assert half == brain
