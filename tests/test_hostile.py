"""Model files that lie: whatever stands in them, there is an answer or a FactsError, soon and in little memory."""

from __future__ import annotations

import inspect
import json
import math
import os
import struct
import sys
import time
import tracemalloc
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from front import Ran, run
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_advisor import api, bounds
from tgi_advisor.bounds import SIZES
from tgi_advisor.errors import AdvisorError, FactsError
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.gather import checkpoint, files, snapshot
from tgi_advisor.gather.class_defaults import FIELDS, NESTED, fill_defaults
from tgi_advisor.spec.records import Bound, LimitsSpec, Spec

NOT_NUMBERS = {
    "tie_word_embeddings", "hidden_act", "activation_function", "attention_bias", "mlp_bias", "multi_query",
    "new_decoder_architecture", "parallel_attn", "alibi", "bias", "feed_forward_proj", "intermediate_layers_indices",
    "cross_attention_layers", "image_token_index",
}  # fmt: skip
"""Fields an estimate reads that are no sizes."""
ODD: tuple[Any, ...] = (
    0, 1, 2, 3, 7, -1, None, True, False, "4096", "", [], {}, [1], {"a": 1}, 0.5, math.inf, math.nan, 1e308, 4095,
    65536, 10**6, 10**7, 10**9, 10**12, 10**18, 1 << 31, 1 << 63, 1 << 64, 10**400, -(10**400), "x" * 100,
)  # fmt: skip


@cache
def families() -> Mapping[str, ModelFacts]:
    """A shipped model of each family."""
    found = (snapshot.find(name) for name in snapshot.recorded_ids())
    return {str(model.model_type): model for model in found if model}


def judged(model: ModelFacts, config: Any, release: str, gpu: str, count: int) -> None:
    """Ask for everything that is computed from a configuration; AdvisorError where it is refused."""
    read = checkpoint.read_config(json.dumps(config).encode(), "config.json")
    card = gpus.find(gpu)
    facts = Facts(model._replace(config=read, defaults=fill_defaults(read)), card, count, releases.find(release), "")
    spec = Spec(limits=LimitsSpec(max_input_tokens=Bound(100, 100), max_total_tokens=Bound(200, 200)))
    for method in ("tgi", "notebook"):
        with suppress(AdvisorError):
            api.predict(spec, facts=facts, method=method)
    api.advise(Spec(), facts=facts)


@st.composite
def configs(draw: st.DrawFn) -> tuple[ModelFacts, dict[str, Any]]:
    """A family's config.json with up to three fields that no model has so."""
    model = families()[draw(st.sampled_from(sorted(families())))]
    config = json.loads(json.dumps(model.config))
    for _ in range(draw(st.integers(1, 3))):
        inner = [config, *(config[name] for name in NESTED if isinstance(config.get(name), dict))]
        where = draw(st.sampled_from(inner))
        name = draw(st.sampled_from(sorted({*where, *SIZES} - {"model_type"})))
        where[name] = draw(st.sampled_from(ODD))
    return model, config


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    configs(), st.sampled_from(("1.1.0", "2.0.4", "2.2.0", "2.3.1", "3.0.0", "3.3.7")),
    st.sampled_from(("nvidia-l4", "nvidia-h100-sxm")), st.sampled_from((1, 2, 8)),
)  # fmt: skip
def test_no_config_brings_an_estimate_down(
    made: tuple[ModelFacts, dict[str, Any]], release: str, gpu: str, count: int
) -> None:
    started = time.process_time()
    with suppress(AdvisorError):
        judged(*made, release, gpu, count)
    assert time.process_time() - started < 10


def test_every_number_an_estimate_reads_has_a_bound() -> None:
    assert {field for field in FIELDS if field not in SIZES} == NOT_NUMBERS


def test_no_shipped_model_comes_near_a_bound() -> None:
    for model in families().values():
        for config in (model.config, model.defaults):
            assert bounds.out_of_bounds(config) is None


# ---- from a folder, through the front door ----


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 320, "max_position_embeddings": 4096,
}  # fmt: skip


def write(place: Path, config: str | bytes | dict[str, Any], header: bytes | dict[str, Any] | None = None) -> Path:
    """A model folder with one small weight file."""
    text = json.dumps(config) if isinstance(config, dict) else config
    (place / "config.json").write_bytes(text.encode() if isinstance(text, str) else text)
    entry = {"model.embed_tokens.weight": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}
    made = header if isinstance(header, bytes) else json.dumps(entry if header is None else header).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(made)) + made + b"\0" * 4)
    return place


def advised(place: Path) -> Ran:
    return run("advise", "-m", str(place), "-g", "nvidia-l4", "--offline")


def refused(place: Path) -> str:
    """What a folder is refused with, without its own name."""
    ran = advised(place)
    assert ran.code == 4, ran
    assert ran.out == ""
    return ran.err.replace(str(place), "HERE")


def test_the_folder_itself_is_fine(tmp_path: Path) -> None:
    assert advised(write(tmp_path, LLAMA)).code == 0


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("num_hidden_layers", "10000000", "10,000,000; no model has fewer than 1 or more than 4,096"),
        ("num_hidden_layers", "0", "0; no model"),
        ("num_hidden_layers", "-1", "-1; no model"),
        ("num_hidden_layers", "1e400", "beyond counting; no model"),
        ("num_hidden_layers", "9" * 400, "beyond counting; no model"),
        ("num_hidden_layers", "9" * 9000, "beyond counting; no model"),
        ("num_hidden_layers", "-" + "9" * 400, "beyond counting; no model"),
        ("hidden_size", "0", "0; no model"),
        ("hidden_size", "99999999", "99,999,999; no model has fewer than 1 or more than 1,048,576"),
        ("num_attention_heads", "0", "0; no model"),
        ("num_attention_heads", "10000000", "10,000,000; no model"),
        ("vocab_size", "NaN", "no number; no model"),
        ("max_position_embeddings", "0", "0; no model"),
        ("intermediate_size", "-5", "-5; no model"),
        ("num_experts", "-1", "-1; no model"),
        ("head_dim", "0.25", "0.25; no model"),
    ],
)
def test_a_size_no_model_has_is_refused_by_name(tmp_path: Path, field: str, value: str, shown: str) -> None:
    text = json.dumps(LLAMA | {field: "HERE"}).replace('"HERE"', value)
    assert f"config.json: {field} is {shown}" in refused(write(tmp_path, text))
    inner = json.dumps({"model_type": "llava", "text_config": LLAMA | {field: "HERE"}}).replace('"HERE"', value)
    assert f"config.json: text_config.{field} is {shown}" in refused(write(tmp_path, inner))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_attention_heads": 128}, "states 128 attention heads in a width of 64."),
        ({"num_key_value_heads": 8}, "states 8 key/value heads for 4 attention heads."),
        ({"model_type": "x" * 10_000}, "model_type is longer than 200 characters."),
        ({"hidden_size": None}, "has no usable `hidden_size`"),
        ({"hidden_size": "64"}, "has no usable `hidden_size`"),
    ],
)
def test_sizes_that_contradict_each_other(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    assert told in " ".join(refused(write(tmp_path, LLAMA | change)).split())


def test_a_large_file_of_nothing_takes_little_memory(tmp_path: Path) -> None:
    write(tmp_path, b'{"a": [' + b"{}," * 10_000_000 + b"{}]}")
    tracemalloc.start()
    assert "config.json is longer than 8,388,608 bytes" in refused(tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"a": [' + b"{}," * 2_000_000 + b"{}]}")
    assert "config.json holds about 4,000,003 values; more than 1,000,000 are not read." in refused(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


SPECIAL = ("config.json", "tokenizer_config.json", "model.safetensors", "model.safetensors.index.json")


@pytest.mark.parametrize("name", SPECIAL)
def test_a_pipe_in_a_model_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    write(tmp_path, LLAMA)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert f"HERE/{name} cannot be read: it is a pipe, not a file." in refused(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    assert f"HERE/{name} cannot be read: it is a device, not a file." in refused(tmp_path)


def test_names_of_weight_files_and_tensors_move_no_cursor(tmp_path: Path) -> None:
    header = {"a\x1b[2J\u202e\n": {"dtype": "Q4", "shape": [2], "data_offsets": [0, 4]}}
    write(tmp_path, LLAMA, header)
    (tmp_path / "model.safetensors").rename(tmp_path / "m\x1b]0;x\x07\u202e.safetensors")
    told = refused(tmp_path)
    assert "\\x1b" in told
    assert told.replace("\n", "").isprintable()
    write(tmp_path, LLAMA).joinpath("m\x1b]0;x\x07\u202e.safetensors").unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "m\x1b]0;x\x07\u202e.safetensors")
    ran = run("advise", "-m", str(tmp_path), "-g", "nvidia-l4", "--offline", "--json")
    assert ran.code == 0
    assert "\u202e" not in ran.out
    assert "\\\\x1b" in ran.out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(("dtype", "shape", "data_offsets", "x")), st.sampled_from(ODD)),
    st.sampled_from(ODD),
)
def test_no_header_brings_the_reader_down(entry: dict[str, Any], notes: Any) -> None:
    text = json.dumps({"__metadata__": notes, "a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]} | entry})
    with suppress(FactsError):
        checkpoint.group_tensors([checkpoint.parse_header(struct.pack("<Q", len(text)) + text.encode(), "m")])


# ---- deployment files and specs ----


def test_pipes_and_devices_among_the_files_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("a.yaml")
    Path("b.yaml").symlink_to("/dev/zero")
    Path("c.yaml").write_text("services:\n  tgi:\n    image: x\n    env_file: a.yaml\n")
    assert run("validate", "*.yaml").code == 0
    assert run("validate", ".").code == 0
    named = run("validate", "a.yaml", "b.yaml", "c.yaml")
    assert named.code == 2
    assert named.err.splitlines()[:2] == [
        "Error: a.yaml cannot be read: it is a pipe, not a file",
        "Error: b.yaml cannot be read: it is a device, not a file",
    ]
    for command in ("advise", "predict", "emit"):
        ran = run(command, "a.yaml")
        assert ran.code == 3
        assert "a.yaml cannot be read: it is a pipe, not a file" in ran.err
    assert "it is a pipe" in run("import", "a.yaml").err
    Path(".tgi-advisor.toml").symlink_to("a.yaml")
    assert run("validate", "c.yaml").code == 0


def test_what_a_pipe_or_a_kernel_file_says_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "services:\n  tgi:\n    image: ghcr.io/huggingface/text-generation-inference:3.3.7\n"
        "    command: --model-id Qwen/Qwen2.5-7B-Instruct\n    env_file: {}\n"
    )
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.env")
    up = "../" * len(tmp_path.parts)
    for target in ("pipe.env", f"{up}proc/kmsg", f"{up}dev/zero", "."):
        Path("compose.yaml").write_text(text.format(target))
        assert run("validate", "compose.yaml").code in (0, 1)


def test_folders_within_folders_are_searched_without_recursion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a/" * 300).mkdir(parents=True)
    Path("a/" * 300, "x.env").write_text("MODEL_ID=x\n")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        assert [*files.find(["."])] == ["a/" * 300 + "x.env"]
    finally:
        sys.setrecursionlimit(limit)
