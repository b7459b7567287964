"""A model in a local folder. Weight files are holes of the real size: headers, no data."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from tgi_advisor.errors import FactsError
from tgi_advisor.gather import folder, snapshot
from tgi_advisor.gather.checkpoint import tensor_bytes

Tensors = dict[str, tuple[str, list[int]]]


def write_shard(path: Path, tensors: Tensors, missing: int = 0) -> None:
    """A safetensors file with these tensors, as a hole; `missing` bytes short."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = tensor_bytes(dtype, shape, name)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end - missing)


def write_model(place: Path, shards: list[Tensors], config: dict[str, Any] | None = None, index: bool = True) -> Path:
    """A checkpoint folder."""
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2, **(config or {})}))
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for name, tensors in zip(names, shards, strict=True):
        write_shard(place / name, tensors)
    if index:
        weight_map = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
        (place / folder.INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return place


BIG: list[Tensors] = [
    {
        "model.embed_tokens.weight": ("BF16", [128256, 8192]),
        "model.layers.0.mlp.up_proj.weight": ("BF16", [28672, 8192]),
    },
    {"model.layers.1.mlp.up_proj.weight": ("BF16", [28672, 8192]), "lm_head.weight": ("F32", [128256, 8192])},
]


def refusal(place: Path | str) -> str:
    with pytest.raises(FactsError) as error:
        folder.read(str(place))
    return str(error.value).replace(str(place), "HERE")


def test_headers_of_gigabytes_are_read_in_no_time(tmp_path: Path) -> None:
    place = write_model(tmp_path, BIG)
    (place / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    started = time.perf_counter()
    facts = folder.read(str(place))
    assert time.perf_counter() - started < 1
    assert [(group.name, group.dtype, group.count) for group in facts.tensors] == [
        ("model.embed_tokens.weight", "BF16", 1),
        ("model.layers.*.mlp.up_proj.weight", "BF16", 2),
        ("lm_head.weight", "F32", 1),
    ]
    assert facts.stored_bytes == 128256 * 8192 * 6 + 2 * 28672 * 8192 * 2
    assert (facts.id, facts.folder, facts.commit) == (str(place), str(place.resolve()), None)
    assert (facts.model_max_length, facts.weights_format, facts.model_type) == (None, "safetensors", "llama")
    assert facts.defaults["hidden_size"] == 4096
    shards = "model-00001-of-00002.safetensors and model-00002-of-00002.safetensors"
    assert facts.source == f"folder {place}: config.json and the headers of {shards}"


def test_a_shipped_model_from_its_files_is_the_same(tmp_path: Path) -> None:
    """What was recorded and what would be read from disk agree, layer by layer and byte by byte."""
    shipped = snapshot.find("Qwen/Qwen3-30B-A3B")
    assert shipped is not None
    shards: list[Tensors] = [{} for _ in range(16)]
    for group in shipped.tensors:
        for number in range(group.count):
            name = group.name.replace("*", str(number // 128), 1).replace("*", str(number % 128))
            if group.name.count("*") == 1:
                name = group.name.replace("*", str(number))
            shards[number % 16][name] = (group.dtype, list(group.shape))
    read = folder.read(str(write_model(tmp_path, shards, dict(shipped.config))))
    assert sorted(read.tensors, key=str) == sorted(shipped.tensors, key=str)
    assert read.config == shipped.config
    assert read.defaults == shipped.defaults


def test_the_second_copy_is_not_counted(tmp_path: Path) -> None:
    place = write_model(tmp_path, BIG)
    once = folder.read(str(place)).stored_bytes
    write_shard(place / "consolidated.safetensors", {"tok_embeddings.weight": ("BF16", [128256, 8192])})
    (place / "original").mkdir()
    assert folder.read(str(place)).stored_bytes == once


def test_links_are_followed(tmp_path: Path) -> None:
    real = write_model(tmp_path / "blobs", BIG)
    link = tmp_path / "snapshot"
    link.mkdir()
    for path in real.iterdir():
        (link / path.name).symlink_to(path)
    whole = tmp_path / "model"
    whole.symlink_to(link)
    facts = folder.read(str(whole))
    assert facts.tensors == folder.read(str(real)).tensors
    assert facts.folder == str(link.resolve())
    (real / "model-00001-of-00002.safetensors").unlink()
    assert refusal(whole) == "HERE/model-00001-of-00002.safetensors cannot be read: No such file or directory."


def test_a_model_type_may_be_missing(tmp_path: Path) -> None:
    place = write_model(tmp_path, BIG, index=False)
    (place / "config.json").write_text('{"d_model": 2560}')
    facts = folder.read(str(place))
    assert facts.model_type is None
    assert facts.defaults == {}


@pytest.mark.parametrize(("value", "length"), [("4096", 4096), ("1e30", None), ('"many"', None)])
def test_the_tokenizers_own_limit(tmp_path: Path, value: str, length: int | None) -> None:
    place = write_model(tmp_path, BIG)
    (place / "tokenizer_config.json").write_text(f'{{"model_max_length": {value}}}')
    assert folder.read(str(place)).model_max_length == length


def test_missing_shards_are_named(tmp_path: Path) -> None:
    place = write_model(tmp_path, [{f"h.{n}.w": ("F32", [2])} for n in range(5)])
    for number in (2, 3, 5):
        (place / f"model-{number:05d}-of-00005.safetensors").unlink()
    assert refusal(place) == (
        "HERE lacks 3 of the 5 weight files its index names: model-00002-of-00005.safetensors, "
        "model-00003-of-00005.safetensors and 1 more.\nThe download is incomplete: fetch the missing files."
    )


def test_a_short_file_is_an_unfinished_download(tmp_path: Path) -> None:
    place = write_model(tmp_path, BIG)
    write_shard(place / "model-00002-of-00002.safetensors", BIG[1], missing=5)
    said = refusal(place)
    assert said.startswith("HERE/model-00002-of-00002.safetensors has 4,672,")
    assert said.endswith("The download is incomplete: fetch the file again.")


def test_what_is_no_model(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith("There is no folder HERE.")
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file") == "HERE is a file.\nGive the folder that holds config.json and the weights."
    assert refusal(tmp_path).startswith("HERE has no config.json.")
    (tmp_path / "params.json").write_text("{}")
    assert refusal(tmp_path).startswith("HERE has params.json but no config.json: it is in the publisher's own format.")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert refusal(tmp_path) == (
        "HERE holds an adapter for org/base, not a model.\n"
        "Give its base model as model.id and the adapter as the flag lora-adapters."
    )
    (tmp_path / "config.json").write_text("{}")
    assert refusal(tmp_path).startswith("HERE holds an adapter, not a model.")
    assert refusal("a\0b").startswith("There is no folder a\\x00b.")
    assert refusal("x" * 5000).startswith("The folder HERE cannot be read: File name too long.")
    assert refusal("~nobody-of-that-name/m").startswith("The folder HERE cannot be read: ")


def test_no_weights_and_pickled_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert refusal(tmp_path) == "HERE holds no weight files.\nTGI needs *.safetensors (or *.bin) beside config.json."
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    assert refusal(tmp_path).startswith("HERE holds pickled weights only (pytorch_model.bin): they do not tell their")


def test_a_bad_config_is_named(tmp_path: Path) -> None:
    place = write_model(tmp_path, BIG)
    (place / "config.json").write_text("{")
    assert refusal(place).startswith("HERE/config.json is not valid JSON: ")
    (place / "config.json").unlink()
    (place / "config.json").mkdir()
    assert refusal(place).startswith("HERE has no config.json.")


def test_a_folder_with_home_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "m", BIG)
    monkeypatch.setenv("HOME", str(tmp_path))
    facts = folder.read("~/m")
    assert (facts.id, facts.folder) == ("~/m", str((tmp_path / "m").resolve()))
