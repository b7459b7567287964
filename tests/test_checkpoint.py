"""What the files of a checkpoint say: headers, groups, weight files, class defaults."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts.model import DTYPE_BITS, TensorGroup
from tgi_advisor.gather import checkpoint
from tgi_advisor.gather.class_defaults import fill_defaults


def packed(header: object) -> bytes:
    """A safetensors file's first bytes with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def entry(dtype: str, shape: list[int], start: int = 0) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + checkpoint.tensor_bytes(dtype, shape, "t")]}


def group(headers: list[dict[str, Any]], layers: int | None = None) -> dict[str, int]:
    return {group.name: group.count for group in checkpoint.group_tensors(headers, layers).tensors}


# ---------------------------------------------------------------------------------------------- groups


def test_layer_and_expert_numbers_become_one_group() -> None:
    one: dict[str, Any] = {"dtype": "BF16", "shape": [2, 3]}
    names = [f"model.layers.{n}.mlp.experts.{e}.w1.weight" for n in range(3) for e in range(8)]
    names += [f"h.{n}.ln_1.weight" for n in range(4)] + ["wte.weight", "visual.merger.mlp.0.weight", "blocks.7"]
    made = checkpoint.group_tensors([dict.fromkeys(names[:20], one), dict.fromkeys(names[20:], one)]).tensors
    assert made == (
        TensorGroup("model.layers.*.mlp.experts.*.w1.weight", "BF16", (2, 3), 24),
        TensorGroup("h.*.ln_1.weight", "BF16", (2, 3), 4),
        TensorGroup("wte.weight", "BF16", (2, 3), 1),
        TensorGroup("visual.merger.mlp.*.weight", "BF16", (2, 3), 1),
        TensorGroup("blocks.*", "BF16", (2, 3), 1),
    )


def test_a_file_has_so_many_of_each_group() -> None:
    one: dict[str, Any] = {"dtype": "BF16", "shape": [2, 3]}
    files = ["lm_head.weight", "h.0.w", "h.1.w", "h.1.b"], ["h.2.w"], ["h.2.b", "h.3.w"]
    made = checkpoint.group_tensors([dict.fromkeys(file, one) for file in files])
    assert [group.name for group in made.tensors] == ["lm_head.weight", "h.*.w", "h.*.b"]
    assert made.files == ((1, 2, 1), (0, 1, 0), (0, 1, 1))


def test_other_shape_or_dtype_is_another_group() -> None:
    tensors: dict[str, Any] = {
        "h.0.w": {"dtype": "BF16", "shape": [2]},
        "h.1.w": {"dtype": "F32", "shape": [2]},
        "h.2.w": {"dtype": "BF16", "shape": [3]},
        "h.3.w": {"dtype": "BF16", "shape": []},
    }
    made = checkpoint.group_tensors([tensors]).tensors
    assert [(g.dtype, g.shape, g.count, g.bytes) for g in made] == [
        ("BF16", (2,), 1, 4), ("F32", (2,), 1, 8), ("BF16", (3,), 1, 6), ("BF16", (), 1, 2),
    ]  # fmt: skip


def test_a_layer_past_the_last_keeps_its_number() -> None:
    one: dict[str, Any] = {"dtype": "F32", "shape": [1]}
    tensors = {f"model.layers.{n}.mlp.experts.{e}.w": one for n in (0, 1, 2) for e in (0, 1)}
    tensors["vision.layers.7.w"] = one
    assert group([tensors], layers=2) == {
        "model.layers.*.mlp.experts.*.w": 4,
        "model.layers.2.mlp.experts.*.w": 2,
        "vision.layers.*.w": 1,
    }
    assert group([tensors]) == {"model.layers.*.mlp.experts.*.w": 6, "vision.layers.*.w": 1}


def test_a_name_in_two_files_is_refused_as_tgi_does() -> None:
    one: dict[str, Any] = {"lm_head.weight": {"dtype": "F32", "shape": [1]}}
    with pytest.raises(FactsError, match=r"The tensor lm_head.weight is in two weight files\.\nTGI stops with"):
        checkpoint.group_tensors([one, one])


SHAPES = st.lists(st.integers(0, 40), max_size=3)
NAMES = st.lists(
    st.sampled_from(["model", "layers", "h", "w", "0", "1", "12", "61", "a1"]), min_size=1, max_size=6
).map(".".join)


WHOLE_BYTES = [dtype for dtype, bits in DTYPE_BITS.items() if bits % 8 == 0]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(NAMES, st.tuples(st.sampled_from(WHOLE_BYTES), SHAPES), min_size=1, max_size=30), st.integers(0, 70)
)
def test_grouping_loses_no_tensor_and_no_byte(tensors: dict[str, tuple[str, list[int]]], layers: int) -> None:
    header = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in tensors.items()}
    for made, _ in (checkpoint.group_tensors([header]), checkpoint.group_tensors([header], layers)):
        assert sum(g.count for g in made) == len(tensors)
        assert sum(g.bytes for g in made) == sum(checkpoint.tensor_bytes(d, s, "") for d, s in tensors.values())
        assert len({(g.name, g.dtype, g.shape) for g in made}) == len(made)
    plain = checkpoint.group_tensors([header]).tensors
    assert not any(part.isdecimal() for g in plain for part in g.name.split("."))


# --------------------------------------------------------------------------------------------- headers


def test_a_header_is_read_as_written() -> None:
    header = {"__metadata__": {"format": "pt"}, "a": entry("F32", [2, 3]), "b": entry("BF16", [5], 24)}
    data = packed(header)
    assert checkpoint.parse_header(data + b"\0" * 34, "m", len(data) + 34) == {"a": header["a"], "b": header["b"]}
    assert checkpoint.parse_header(packed({}) + b"rest", "m") == {}


GOOD = {"a": entry("F32", [2])}
TWICE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
BAD_HEADERS = {
    "empty file": (b"", None, "m is 0 bytes long, too short for safetensors."),
    "terabytes": (
        struct.pack("<Q", 1 << 43) + b"{}", 5000,
        "m states a tensor header of 8,796,093,022,208 bytes, the file has 5,000.",
    ),
    "past the end": (struct.pack("<Q", 90) + b"{}", 10, "m states a tensor header of 90 bytes, the file has 10."),
    "cut off": (packed(GOOD)[:20], None, "m: the tensor header is cut off (12 of 61 bytes)."),
    "not JSON": (packed(b"{'a'"), None, "m: the tensor header is not valid JSON"),
    "not UTF-8": (packed(b'{"\xff": 1}'), None, "m: the tensor header is not valid JSON"),
    "a list": (packed([1]), None, "m: the tensor header is not a JSON object."),
    "deep": (packed(b"[" * 100_000), None, "m: the tensor header holds 100,000 values in 100,000 bytes."),
    "entry is a number": (packed({"a": 3}), None, "m: the entry of tensor 'a' is malformed."),
    "entry is empty": (packed({"a": {}}), None, "m: the entry of tensor 'a' is malformed."),
    "three offsets": (packed({"a": {**GOOD["a"], "data_offsets": [0, 1, 2]}}), None, "m: the entry of tensor 'a' is"),
    "shape holds a list": (packed({"a": {**GOOD["a"], "shape": [[2]]}}), None, "m: the entry of tensor 'a' is"),
    "unknown dtype": (packed({"a": {**GOOD["a"], "dtype": "Q4"}}), None, "m: 'a': unknown tensor dtype 'Q4'."),
    "negative size": (packed({"a": {**GOOD["a"], "shape": [-2]}}), None, "m: 'a': impossible tensor shape [-2]."),
    "huge size": (packed({"a": {**GOOD["a"], "shape": [9**99]}}), None, "m: 'a': impossible tensor shape [29"),
    "huge product": (
        packed({"a": {**GOOD["a"], "shape": [1 << 30, 1 << 30]}}), None,
        "m: 'a': impossible tensor shape [1073741824, 1073741824].",
    ),
    "offsets of another size": (
        packed({"a": {**GOOD["a"], "data_offsets": [0, 4]}}), None,
        "m: tensor 'a' stands at [0, 4], but its dtype and shape need 8 bytes.",
    ),
    "offsets are text": (packed({"a": {**GOOD["a"], "data_offsets": ["0", "8"]}}), None, "m: tensor 'a' stands at"),
    "overlap": (
        packed({**GOOD, "b": entry("F32", [2])}), None,
        "m: its tensors overlap or leave holes (one begins at 0, the one before it ends at 8).",
    ),
    "hole": (packed({"a": entry("F32", [2], 8)}), None, "m: its tensors overlap or leave holes (one begins at 8"),
    "overlaps as large as the holes": (
        packed({**GOOD, "b": entry("F32", [2]), "c": entry("F32", [2], 16)}), None, "m: its tensors overlap or leave",
    ),
    "nothing inside of something": (packed({**GOOD, "b": entry("F32", [0], 4)}), None, "m: its tensors overlap"),
    "metadata is a number": (packed({**GOOD, "__metadata__": 5}), None, "m: __metadata__ of the tensor header is not"),
    "metadata holds a number": (packed({**GOOD, "__metadata__": {"a": 5}}), None, "m: __metadata__ of the tensor"),
    "half a byte": (
        packed({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}), None,
        "m: 'a': a tensor of 3 F4 does not end with a byte.",
    ),
    "a key of an entry twice": (
        packed(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}}'), None,
        "m: the tensor header is not valid JSON ('dtype' is there twice).",
    ),
    "UTF-16": (packed(json.dumps(GOOD).encode("utf-16")), None, "m: the tensor header is not valid JSON"),
    "a long name": (packed({"x" * 5000: GOOD["a"]}), None, "m: the name of tensor 'xxxx"),
    "a long header": (struct.pack("<Q", bounds.MAX_HEADER + 1), None, "m states a tensor header of 16,777,217 bytes."),
    "many values": (packed(b'{"a":[' + b"[]," * 999 + b"0]}"), None, "m: the tensor header holds 2,000 values in 3,"),
    "deep within": (
        packed(b'{"a":"' + b" " * 9999 + b'","b":' + b"[" * 2000), None, "m: the tensor header is not valid JSON"
    ),
    "a name twice": (packed(TWICE), None, "m: the tensor header is not valid JSON ('a' is there twice)."),
    "data cut off": (packed(GOOD), 70, "m has 70 bytes, its header describes 77."),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", 130, "m is a Git LFS pointer"),
    "HTML": (b"<!DOCTYPE html><html>", 21, "m is an HTML page."),
    "pickle": (b"PK\x03\x04 and so on", 21, "m is a pickled PyTorch or ZIP file under another name."),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_lying_header_is_refused_with_its_file(case: str) -> None:
    data, size, message = BAD_HEADERS[case]
    with pytest.raises(FactsError) as error:
        checkpoint.parse_header(data, "m", size)
    assert error.value.message.startswith(message)
    assert error.value.hint


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_bring_the_reader_down(data: bytes, framed: bool) -> None:
    with suppress(FactsError):
        checkpoint.parse_header(packed(data) if framed else data, "m")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional={"dtype": JSON | st.just("F32"), "shape": JSON, "data_offsets": JSON}) | JSON)
def test_no_entry_brings_the_reader_down(made: object) -> None:
    with suppress(FactsError):
        checkpoint.group_tensors([checkpoint.parse_header(packed({"a": made}), "m")])


# ---------------------------------------------------------------------------------------- config, index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "config.json is not valid JSON"),
        (b'{"a": 1,}', "config.json is not valid JSON"),
        (b"\xff\xfe", "config.json is not valid JSON"),
        (b"[1]", "config.json must hold a JSON object, it holds [1]."),
        (b"[" * 200_000, "config.json is not valid JSON"),
        (b" " * (bounds.MAX_CONFIG + 1), "config.json is longer than 8,388,608 bytes; more are not read."),
        (
            b"[" + b"{}," * 600_000 + b"0]",
            "config.json holds about 1,200,001 values; more than 1,000,000 are not read.",
        ),
        (b'{"a": ' * 40 + b"0" + b"}" * 40, "config.json nests deeper than 32 levels."),
        (b'{"a": ' * 99_999, "config.json is not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1", "config.json is a Git LFS pointer, not the file itself."),
        (b"<html>please log in", "config.json is an HTML page."),
    ],
    ids=["empty", "comma", "not UTF-8", "list", "deep", "long", "many", "nested", "open", "LFS", "HTML"],
)
def test_a_config_that_is_none(text: bytes, message: str) -> None:
    with pytest.raises(FactsError) as error:
        checkpoint.read_config(text, "config.json")
    assert error.value.message.startswith(message)


def test_config_index_and_tokenizer() -> None:
    assert checkpoint.read_config(b'{"model_type": "llama"}', "c") == {"model_type": "llama"}
    index = {"metadata": {"total_size": 12.0}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}
    assert checkpoint.read_index(json.dumps(index).encode(), "i") == (12, ("1.safetensors", "2.safetensors"))
    assert checkpoint.read_index(b'{"weight_map": {}}', "i") == (None, ())
    with pytest.raises(FactsError, match="i has no weight_map"):
        checkpoint.read_index(b'{"weight_map": {"a": 1}}', "i")
    lengths = [8192, 1000000000000000019884624838656, 1e30, 131072.0, None, "8192", True, 0, float("nan")]
    read = [checkpoint.model_max_length({"model_max_length": length}) for length in lengths]
    assert read == [8192, None, None, 131072, None, None, None, None, None]


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": None, "compression_config": {"quant_method": "x"}}, "x"),
        ({"quantization_config": {"load_in_8bit": True}}, None),
        ({"quantization_config": "awq"}, None),
    ],
)
def test_the_quantization_method_a_config_names(config: dict[str, Any], method: str | None) -> None:
    assert checkpoint.quantization(config) == method


# ---------------------------------------------------------------------------------------- weight files

FILES = {
    "shards": (
        ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "config.json", "pytorch_model.bin"],
        ("safetensors", ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), ()),
    ),
    "Mistral's own copy beside": (
        ["consolidated.safetensors", "model.safetensors"],
        ("safetensors", ("model.safetensors",), ("consolidated.safetensors",)),
    ),
    "another name": (["gptq_model-4bit--1g.safetensors"], ("safetensors", ("gptq_model-4bit--1g.safetensors",), ())),
    "folders are not looked into": (
        ["onnx/model.safetensors", "original/consolidated.00.pth", "model.bin"],
        ("bin", ("model.bin",), ()),
    ),
    "training files": (
        ["training_args.bin", "arguments.bin", "my_args.safetensors", "pytorch_model.bin"],
        ("bin", ("pytorch_model.bin",), ()),
    ),
    "adapter beside the model": (
        ["adapter_model.safetensors", "model.safetensors"],
        ("safetensors", ("model.safetensors",), ("adapter_model.safetensors",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_the_weight_files_tgi_loads(case: str) -> None:
    names, expected = FILES[case]
    assert checkpoint.which_files(names, "here") == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json"], "here holds no weight files."),
        (["adapter_config.json", "adapter_model.safetensors"], "here holds an adapter, not a model."),
        (["consolidated.safetensors", "params.json"], "here holds weights only in the publisher's own format"),
        (["consolidated.00.pth"], "here holds weights only in the publisher's own format"),
        (["model.Q4_K_M.gguf"], "here holds only GGUF files."),
    ],
)
def test_why_there_is_nothing_to_load(names: list[str], message: str) -> None:
    with pytest.raises(FactsError) as error:
        checkpoint.which_files(names, "here")
    assert error.value.message.startswith(message)
    assert error.value.hint


# -------------------------------------------------------------------------------------- class defaults


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # the KV heads follow the file's own heads, not the class's 32
        ({"model_type": "llama", "num_attention_heads": 40}, {"num_key_value_heads": 40, "hidden_size": 4096}),
        ({"model_type": "mistral", "num_attention_heads": 16}, {"num_key_value_heads": 8, "sliding_window": 4096}),
        ({"model_type": "mistral", "num_key_value_heads": None}, {"num_key_value_heads": 32}),
        # names of old: n_embed is BLOOM's and Falcon's hidden_size
        ({"model_type": "bloom", "n_embed": 1024, "n_layer": 24}, {"hidden_size": 1024, "num_hidden_layers": 24}),
        ({"model_type": "gpt2"}, {"hidden_size": 768, "num_attention_heads": 12, "max_position_embeddings": 1024}),
        ({"model_type": "t5", "d_model": 2048}, {"hidden_size": 2048, "head_dim": 64}),
        # Falcon's three ways to say KV heads
        ({"model_type": "falcon", "multi_query": True, "num_attention_heads": 71}, {"num_key_value_heads": 1}),
        ({"model_type": "RefinedWeb", "n_head": 128, "n_head_kv": 8}, {"num_key_value_heads": 8}),
        ({"model_type": "falcon", "num_kv_heads": 8, "num_attention_heads": 128}, {"num_key_value_heads": 8}),
        ({"model_type": "falcon", "num_attention_heads": 128}, {"num_key_value_heads": 128}),
        # DBRX keeps them a level down
        ({"model_type": "dbrx", "attn_config": {"kv_n_heads": 8}}, {"num_key_value_heads": 8, "hidden_size": 2048}),
        ({"model_type": "dbrx"}, {"num_key_value_heads": 1}),
    ],
)  # fmt: skip
def test_what_a_class_fills_in(config: dict[str, Any], expected: dict[str, Any]) -> None:
    filled = fill_defaults(config)
    assert {key: filled.get(key) for key in expected} == expected


def test_defaults_of_a_configuration_within() -> None:
    llava = {"model_type": "llava_next", "text_config": {"model_type": "mistral", "vocab_size": 32064}}
    text = fill_defaults(llava)["text_config"]
    assert (text["num_key_value_heads"], text["hidden_size"], "vocab_size" in text) == (8, 4096, False)
    gemma = fill_defaults({"model_type": "gemma3", "text_config": {"hidden_size": 2560}})
    assert (gemma["text_config"]["head_dim"], gemma["text_config"]["num_key_value_heads"]) == (256, 4)
    vision = fill_defaults({"model_type": "qwen2_vl", "vision_config": {"model_type": "qwen2_vl"}})["vision_config"]
    assert "num_key_value_heads" not in vision


@given(st.sampled_from(["llama", "falcon", "gpt2", "dbrx", "t5", "gemma3", "qwen2_vl"]), st.data())
def test_defaults_never_contradict_the_file(model_type: str, data: st.DataObject) -> None:
    keys = [
        "hidden_size",
        "n_embed",
        "n_embd",
        "n_head",
        "num_attention_heads",
        "num_kv_heads",
        "text_config",
        "vocab_size",
    ]
    config = {"model_type": model_type, **data.draw(st.dictionaries(st.sampled_from(keys), st.integers(1, 9) | JSON))}
    filled = fill_defaults(config)
    given_here = {key for key, value in config.items() if value is not None and not isinstance(value, dict)}
    assert not given_here & filled.keys() - {"text_config"}
    again = fill_defaults({**config, **filled})
    assert not {key for key, value in again.items() if not isinstance(value, dict) and value is not None}


def test_a_model_type_newer_than_the_table_is_asked_of_transformers_quietly() -> None:
    code = "from tgi_advisor.gather.class_defaults import fill_defaults as f;"
    code += "print(f({'model_type': 'smollm3', 'num_attention_heads': 16})['hidden_size'],"
    code += "f({'model_type': 'nonsense'}), f({'model_type': 3}), f({}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("2048 {} {} {}\n", "")


def test_a_complete_config_of_an_unknown_type_does_not_wake_transformers() -> None:
    code = "import sys; from tgi_advisor.gather.class_defaults import fill_defaults as f;"
    code += "f({'model_type': 'llama'}); f(dict.fromkeys(['hidden_size', 'num_hidden_layers', 'num_attention_heads',"
    code += "'num_key_value_heads', 'vocab_size', 'max_position_embeddings'], 8) | {'model_type': 'nonsense'});"
    code += "print('transformers' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "False\n"
