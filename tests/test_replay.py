"""The sequence of allocations we replay against TGI's own, byte for byte as far as it goes."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor.estimate import defaults, geometry, replay, weights
from tgi_advisor.estimate.allocator import Allocator, Block, OutOfMemoryError
from tgi_advisor.estimate.replay import graphs, towers
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.records import GpuSpec, HardwareSpec, ModelSpec, Spec, TgiSpec
from tgi_advisor.units import GiB, MiB

ROOT = Path(__file__).parent.parent
ROWS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "replays.yaml").read_text("utf-8"))
GRAPHS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "replays_graphs.yaml").read_text("utf-8"))
OF_CAPABILITY = {"7.5": "nvidia-t4", "8.0": "nvidia-a100-80gb-sxm", "8.9": "nvidia-l40s", "9.0": "nvidia-h100-sxm"}
"""A GPU for each compute capability that was replayed."""
FILES_SPLIT_OTHERWISE = {"Qwen/Qwen3-8B"}
"""Models whose replayed files end at other tensors than those we assume: transformers' class reads file by file."""


ROW_SCALE = ("weight_scale", "BF16", "n,1")


class Compared(NamedTuple):
    """Bytes we say too much, of one row."""

    loaded: int
    peak: int | None


def _cut(model: ModelFacts, layers: int) -> ModelFacts:
    """A model with fewer layers in its language model, as the replay was made of."""
    whole = families.layers(model)
    crossed = model.text().get("cross_attention_layers") or []
    fewer = {whole: layers, len(crossed): sum(one < layers for one in crossed)}
    fewer[whole - len(crossed)] = layers - fewer[len(crossed)] if crossed else layers
    groups = (
        group if towers.OF_VISION.match(group.name) or ".*." not in group.name
        else dataclasses.replace(group, count=fewer.get(group.count, group.count * layers // whole))
        for group in model.tensors
    )  # fmt: skip
    cut: dict[str, Any] = dict(model.config)
    inner = cut["text_config"] = dict(cut["text_config"]) if "text_config" in cut else cut
    for name in {"num_hidden_layers", "n_layer", "n_layers"} & inner.keys() or {"num_hidden_layers"}:
        inner[name] = layers
    if inner is cut:
        del cut["text_config"]
    left_out = {**model.defaults, "text_config": dict(model.defaults.get("text_config") or {})}
    left_out["text_config"].pop("num_hidden_layers", None)
    left_out.pop("num_hidden_layers", None)
    kept = tuple(group for group in groups if group.count)
    return dataclasses.replace(model, config=cut, defaults=left_out, tensors=kept)


def _compressed(layout: str, kind: str, bits: int, **more: Any) -> dict[str, Any]:
    """The configuration compressed-tensors writes."""
    group = {"targets": ["Linear"], "weights": {"type": kind, "num_bits": bits, "symmetric": True, **more}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}


def _gptq(bits: int) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """Asymmetric GPTQ."""
    config = {"quant_method": "gptq", "bits": bits, "group_size": 128, "desc_act": False, "sym": False}
    each = 32 // bits
    tensors = [("qweight", "I32", f"k/{each},n"), ("qzeros", "I32", f"k/128,n/{each}"), ("scales", "F16", "k/128,n")]
    return config, [*tensors, ("g_idx", "I32", "k")]


PACKED: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "compressed-float8": (_compressed("float-quantized", "float", 8), [("weight", "F8_E4M3", "n,k"), ROW_SCALE]),
    "compressed-int8": (_compressed("int-quantized", "int", 8), [("weight", "I8", "n,k"), ROW_SCALE]),
    "compressed-int4": (
        _compressed("pack-quantized", "int", 4, group_size=128),
        [("weight_packed", "I32", "n,k/8"), ("weight_scale", "BF16", "n,k/128"), ("weight_shape", "I64", "2")],
    ),
    "marlin": ({"quant_method": "marlin", "bits": 4}, [("B", "I32", "k/16,n*2"), ("s", "F16", "k/128,n")]),
    "gptq-asymmetric": _gptq(4),
    "gptq-asymmetric-8bit": _gptq(8),
    "exl2": (
        {"quant_method": "exl2"},
        [("q_weight", "I32", "k/8,n"), ("q_scale", "I32", "k/128,n/8"), ("q_invperm", "I32", "k"),
         ("q_scale_max", "F16", "k/128"), ("q_groups", "I16", "k/64")],
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
        [("qweight", "I32", "k,n/8"), ("qzeros", "I32", "k/128,n/8"), ("scales", "F16", "k/128,n")],
    ),
}  # fmt: skip
"""Ways a checkpoint stores a projection of k inputs and n outputs: its configuration, and its tensors."""


def _pack(model: ModelFacts, way: str) -> ModelFacts:
    """A 16-bit model as a checkpoint that stores its projections in this way."""
    config, tensors = PACKED[way]
    groups = []
    for group in model.tensors:
        if not group.name.endswith("_proj.weight"):
            groups.append(group)
            continue
        outputs, inputs = group.shape
        for kind, dtype, shape in tensors:
            sides = [_side(side, inputs, outputs) for side in shape.split(",")]
            name = group.name.removesuffix("weight") + kind
            groups.append(dataclasses.replace(group, name=name, dtype=dtype, shape=tuple(sides)))
    return dataclasses.replace(model, config={**model.config, "quantization_config": config}, tensors=tuple(groups))


def _side(text: str, inputs: int, outputs: int) -> int:
    """`k/8`, `n*2`, `1`: a side of a stored tensor."""
    size = {"k": inputs, "n": outputs}.get(text[0])
    if size is None:
        return int(text)
    return size * int(text[2:]) if text[1:2] == "*" else size // int(text[2:] or 1)


def setting_of(row: dict[str, Any]) -> Setting:
    """The launch of a row."""
    model = snapshot.find(row["model"])
    assert model is not None
    if "packed" in row:
        model = _pack(model, row["packed"])
    if "layers" in row:
        model = _cut(model, row["layers"])
    gpu = gpus.find(OF_CAPABILITY[row.get("compute_capability", "8.0")])
    spec = Spec(
        model=ModelSpec(id=row["model"], quantize=row.get("quantize")),
        hardware=HardwareSpec(gpu=GpuSpec(name=gpu.name), count=row["num_shard"]),
        tgi=TgiSpec(env={"ATTENTION": row["attention"]}),
    )
    facts = Facts(model, gpu, row["num_shard"], releases.find(row["release"]), "")
    return defaults.resolve(spec, facts, row["num_shard"])


@cache
def _compared(index: int) -> Compared:
    row = ROWS[index]
    setting = setting_of(row)
    assert replay.known(setting)
    loaded = replay.loaded(setting)
    over = loaded.reserved - row["loaded_reserved"]
    if "peak_reserved" not in row:
        return Compared(over, None)
    tokens = row["max_batch_prefill_tokens"]
    batch = replay.Batch(-(-tokens // row["max_input_tokens"]), tokens, row["max_input_tokens"], row["warmup_blocks"])
    seen = replay.warm_up(setting, geometry.of(setting), loaded, batch)
    return Compared(over, seen.peak - row["peak_reserved"])


@pytest.mark.parametrize(
    "index", range(len(ROWS)), ids=lambda index: f"{ROWS[index]['release']}-{ROWS[index]['model']}"
)
def test_a_row_comes_out(index: int) -> None:
    row, seen = ROWS[index], _compared(index)
    if row["model"] not in FILES_SPLIT_OTHERWISE:
        assert abs(seen.loaded) <= max(0.15 * GiB, 0.003 * row["loaded_reserved"])
    if seen.peak is not None:
        assert abs(seen.peak) <= max(0.15 * GiB, 0.003 * row["peak_reserved"])


def test_most_rows_come_out_to_the_segment() -> None:
    seen = [_compared(index) for index in range(len(ROWS))]
    assert statistics.median(abs(one.loaded) for one in seen) == 0
    assert statistics.median(abs(one.peak) for one in seen if one.peak is not None) <= 2 * MiB


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
    return whole - captured.driver - int(row["reserved"])


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


@given(
    st.sampled_from(["Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "HuggingFaceM4/idefics2-8b"]),
    st.integers(1, 20_000), st.integers(0, 20_000),
)  # fmt: skip
def test_an_image_needs_no_less_with_more_tokens_and_no_more_on_two_shards(model: str, tokens: int, more: int) -> None:
    longer = tokens + more
    alone, again, split = (_image(model, *rest) for rest in ((1, tokens), (1, longer), (2, longer)))
    assert 0 < alone <= again >= split > 0


@cache
def _image(model: str, shards: int, longest: int) -> int:
    launch = _launch(model, shards)
    return replay.image_bytes(launch, geometry.of(launch), longest)


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
