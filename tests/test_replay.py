"""The sequence of allocations we replay against TGI's own, byte for byte as far as it goes."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from front import run
from hypothesis import given
from hypothesis import strategies as st
from replays import PACKED, ROWS, compared, setting_of

from tgi_advisor.estimate import geometry, replay, weights
from tgi_advisor.estimate.allocator import Allocator, Block, OutOfMemoryError
from tgi_advisor.estimate.replay import graphs, vision
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.units import GiB, MiB

ROOT = Path(__file__).parent.parent
GRAPHS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "replays_graphs.yaml").read_text("utf-8"))
IMAGES: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "replays_images.yaml").read_text("utf-8"))
LEAST = 0.15 * GiB
"""Bytes a row may be off, or 0.3 % of what is reserved."""


@pytest.mark.parametrize(
    "index", range(len(ROWS)), ids=lambda index: f"{ROWS[index]['release']}-{ROWS[index]['model']}"
)
def test_a_row_comes_out(index: int) -> None:
    seen = compared(index)
    recorded, block = seen.recorded, seen.block_bytes
    assert seen.said.loaded == seen.exact.loaded
    assert abs(seen.said.loaded - recorded.loaded) <= max(LEAST, 0.003 * recorded.loaded)
    if seen.warmed_up:
        for ours in (seen.said, seen.exact):
            within = max(LEAST, 0.003 * recorded.peak)
            assert abs(ours.peak - recorded.peak) <= within
            assert abs(ours.blocks - recorded.blocks) * block <= within


@pytest.mark.parametrize("release", sorted({row["release"] for row in ROWS}))
def test_half_the_rows_of_a_release_come_out_within_a_segment_or_two(release: str) -> None:
    rows = [compared(index) for index in range(len(ROWS)) if ROWS[index]["release"] == release]
    for name in ("said", "exact"):
        pairs = [(getattr(row, name), row.recorded, row) for row in rows]
        warmed_up = [pair for pair in pairs if pair[2].warmed_up]
        assert statistics.median(abs(ours.loaded - theirs.loaded) for ours, theirs, _ in pairs) <= 0.03 * GiB
        assert statistics.median(abs(ours.peak - theirs.peak) for ours, theirs, _ in warmed_up) <= 0.03 * GiB
        cache_bytes = [abs(ours.blocks - theirs.blocks) * row.block_bytes for ours, theirs, row in warmed_up]
        assert statistics.median(cache_bytes) <= 0.03 * GiB


def test_most_rows_come_out_to_the_segment() -> None:
    seen = [compared(index) for index in range(len(ROWS))]
    assert statistics.median(abs(one.exact.loaded - one.recorded.loaded) for one in seen) == 0
    assert statistics.median(abs(one.exact.peak - one.recorded.peak) for one in seen if one.warmed_up) <= 2 * MiB


def test_the_maintainers_script_makes_the_rows() -> None:
    line = '{"release": "2.2.0", "model": "m", "num_shard": 1}\n'
    script = [sys.executable, str(ROOT / "scripts" / "record_replay.py"), "-"]
    ran = subprocess.run(script, input=line, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("record_replay: line 1 is no replay: max_batch_prefill_tokens, ")


# ---- a public log ----


def test_loading_runs_out_of_memory_where_a_log_says_so() -> None:
    """The A40s of `exo-llama3-70b-a40-x2` (warmups.yaml), of whose 44.34 GiB 160.81 MiB were free."""
    launch = {"model": "meta-llama/Meta-Llama-3-70B-Instruct", "release": "2.0.4", "num_shard": 2, "attention": "paged"}
    with pytest.raises(OutOfMemoryError) as refused:
        replay.loaded(setting_of(launch), most=int(43.36 * GiB + 396.27 * MiB + 160.81 * MiB))
    wanted, _, alive, reserved = refused.value.args
    assert wanted == 224 * MiB
    assert round(alive / GiB, 2) == 43.36
    assert round((reserved - alive) / MiB) == 396


QUANTIZED = [{"packed": way, "quantize": "marlin" if way == "marlin" else None} for way in PACKED]
QUANTIZED += [{"quantize": way} for way in ("fp8", "eetq", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")]


@pytest.mark.parametrize("capability", ["8.0", "9.0"])
@pytest.mark.parametrize("row", QUANTIZED, ids=lambda row: row.get("packed") or row["quantize"])
def test_what_stays_of_quantized_weights_is_what_they_are_said_to_be(row: dict[str, Any], capability: str) -> None:
    """Small tensors aside (Marlin's workspaces), and what is too little to be split off a block."""
    launch = {"release": "3.3.7", "model": "meta-llama/Llama-3.2-1B-Instruct", "num_shard": 1, "attention": "paged"}
    setting = setting_of({**launch, **row, "compute_capability": capability})
    assert replay.known(setting)
    loaded, said = replay.loaded(setting), weights.shard(setting).total
    assert 0 <= loaded.alive - said <= 0.01 * said
    assert loaded.alive <= loaded.reserved


def test_speculation_takes_nothing_beside_its_slots() -> None:
    setting = setting_of(GRAPHS[0])
    assert replay.known(setting)
    assert replay.known(setting._replace(speculate=3))


# ---- CUDA graphs ----


@cache
def _graphs(index: int) -> int:
    """Bytes we say too much for the graphs of a row, without what the driver keeps."""
    row = GRAPHS[index]
    setting = setting_of(row)
    g = geometry.of(setting)
    captured = graphs.capture(setting, g, replay.loaded(setting))
    assert captured is not None
    whole = graphs.needed(setting, g, captured, row["max_total_tokens"], row["request_blocks"])
    return whole - int(row["reserved"])


@pytest.mark.parametrize(
    "index", range(len(GRAPHS)), ids=lambda index: f"{GRAPHS[index]['release']}-{GRAPHS[index]['model']}"
)
def test_graphs_take_what_tgi_reserves_for_them(index: int) -> None:
    """At most three segments more: gaps that the warm-up leaves hold flashinfer's buffers too."""
    assert 0 <= _graphs(index) <= 64 * MiB


def test_most_graphs_come_out_to_the_segment() -> None:
    assert statistics.median(_graphs(index) for index in range(len(GRAPHS))) <= 2 * MiB


def test_an_old_driver_keeps_more_for_the_same_graphs() -> None:
    setting = setting_of(GRAPHS[0])
    captured = graphs.capture(setting, geometry.of(setting))
    assert captured is not None
    assert 300 * len(setting.graph_sizes) < captured.kernels < 600 * len(setting.graph_sizes)
    assert 3 * captured.driver < captured.old_driver < GiB


# ---- images under load ----


@pytest.mark.parametrize("row", IMAGES, ids=lambda row: f"{row['release']}-{row['model']}")
def test_the_largest_image_takes_what_tgi_has_in_use_for_it(row: dict[str, Any]) -> None:
    setting = setting_of(row)
    images = vision.images(setting, geometry.of(setting))
    assert images is not None
    seen = images.among(row.get("images", 1), row.get("patches", images.tower.patches))
    assert abs(seen.widest - row["in_use"]) <= 4 * MiB


def test_the_router_wants_a_token_for_every_patch() -> None:
    """Of Qwen2-VL's images, whose features are a quarter of them."""
    images = [_images("Qwen/Qwen2-VL-2B-Instruct", 1).among(1, tokens) for tokens in (1000, 10_000, 65_536, 100_000)]
    widest = [round(image.widest / images[0].widest, 1) for image in images]
    assert widest == [1.0, 10.0, 65.5, 65.5]


@given(
    st.sampled_from(["Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "HuggingFaceM4/idefics2-8b"]),
    st.integers(1, 20_000), st.integers(0, 20_000), st.integers(1, 40), st.integers(0, 40),
)  # fmt: skip
def test_an_image_needs_no_less_with_more_tokens_or_prompts_and_no_more_on_two_shards(
    model: str, tokens: int, more: int, prompts: int, others: int
) -> None:
    alone, split = _images(model, 1), _images(model, 2)
    less, longer, beside = (
        alone.among(*asked)
        for asked in ((prompts, tokens), (prompts, tokens + more), (prompts + others, tokens + more))
    )
    assert 0 < less.widest <= longer.widest <= beside.widest
    assert 0 <= less.kept <= longer.kept <= beside.kept
    assert split.among(prompts, tokens).widest <= less.widest


@cache
def _images(model: str, shards: int) -> vision.Images:
    launch = _launch(model, shards)
    images = vision.images(launch, geometry.of(launch))
    assert images is not None
    return images


@cache
def _launch(model: str, shards: int) -> Setting:
    return setting_of({"release": "3.3.7", "model": model, "num_shard": shards, "attention": "flashdecoding"})


# ---- the allocator ----


@given(st.lists(st.tuples(st.integers(1, 64 * MiB), st.integers(0, 40)), min_size=1, max_size=60))
def test_what_is_alive_is_reserved_and_all_of_it_can_be_given_back(steps: list[tuple[int, int]]) -> None:
    memory, alive = Allocator(), list[Block]()
    for size, place in steps:
        alive.append(memory.new(size))
        if place < len(alive):
            memory.release(alive.pop(place))
        assert memory.alive == sum(block.size for block in alive) <= memory.reserved <= memory.peak
    memory.release(*alive)
    memory.empty_cache()
    assert memory.reserved == memory.alive == 0


@given(st.lists(st.tuples(st.integers(1, 64 * MiB), st.booleans()), min_size=1, max_size=40))
def test_a_state_goes_on_like_the_allocator_it_was_taken_of(steps: list[tuple[int, bool]]) -> None:
    memory = Allocator()
    for size, stays in steps:
        block = memory.new(size)
        if not stays:
            memory.release(block)
    memory.empty_cache()
    again = Allocator(memory.state())
    for size, _ in steps:
        memory.new(size)
        again.new(size)
        assert again.reserved == memory.reserved


def test_a_full_gpu_gives_its_cache_back_once() -> None:
    memory = Allocator(most=100 * MiB)
    memory.release(memory.new(60 * MiB))
    memory.new(80 * MiB)
    assert memory.emptied
    assert memory.reserved == 80 * MiB
    with pytest.raises(OutOfMemoryError):
        memory.new(30 * MiB)


# ---- what is not replayed ----


@pytest.mark.parametrize(
    ("model", "gpu", "why"),
    [
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "amd-mi300x", "mixtures of experts on ROCm are not read"),
        ("Qwen/Qwen3-8B", "amd-mi300x", "the class is not read on ROCm"),
        ("Qwen/Qwen3-8B", "nvidia-h100-sxm", ""),
    ],
)
def test_a_launch_that_is_not_replayed_says_why(tmp_path: Path, model: str, gpu: str, why: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump({"model": {"id": model}, "hardware": {"gpu": gpu}, "tgi": {"release": "3.3.7"}}))
    said = yaml.safe_load(run("advise", str(spec), "--json").out)["uncertainty"]["contributions"]
    told = f"parts are summed up, allocations not replayed: {why}" if why else "TGI's own allocations are replayed"
    assert [one["why"] for one in said if one["name"] == "allocator"] == [told]
