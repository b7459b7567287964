"""Which tensors lie in which weight file: transformers' classes read one file after the other, which leaves gaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from front import run
from replays import ROWS, in_files, setting_of
from test_folder import write_model

from tgi_advisor.estimate import replay
from tgi_advisor.gather import folder, snapshot
from tgi_advisor.units import GiB

QWEN3 = "Qwen/Qwen3-8B"
PLAIN = [
    row for row in ROWS if row["model"] == QWEN3 and row["num_shard"] == 1 and not {"dtype", "quantize"} & row.keys()
]
EVEN = [row for row in PLAIN if "files" in row]
USUAL = [row for row in PLAIN if "files" not in row]
SEGMENTS = 0.03 * GiB
BY_COUNT = "its weight files are assumed to end after 4 GB"


def predicted(tmp_path: Path, model: Path | str, row: dict[str, Any], release: str = "3.3.7") -> dict[str, Any]:
    """What `predict` says of a row's launch."""
    limits = {name: row[name] for name in ("max_batch_prefill_tokens", "max_input_tokens", "max_total_tokens")}
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        json.dumps(
            {
                "model": {"id": str(model)},
                "hardware": {"gpu": "nvidia-a100-80gb-sxm"},
                "tgi": {"release": release},
                "limits": limits,
            }
        )
    )
    ran = run("predict", str(spec), "--json", "--offline")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def reserved(said: dict[str, Any], row: dict[str, Any]) -> int:
    """Bytes PyTorch has reserved when the warm-up is over, as a recording counts them."""
    parts = {part["name"]: part["bytes"] for part in said["memory"]["parts"]}
    inside = ("weights", "half-used segments", "prefill activations", "logits and sampling")
    per_block = said["memory"]["kv_bytes_per_token"] * said["block_size"]
    whole: int = sum(parts[name] for name in inside) + row["warmup_blocks"] * per_block
    return whole + sum(replay.WORKSPACE)


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files the rows were recorded from."""
    model = snapshot.find(QWEN3)
    assert model is not None
    return write_model(tmp_path_factory.mktemp("even"), in_files(model, EVEN[0]["files"]), dict(model.config))


@pytest.mark.parametrize("row", EVEN, ids=lambda row: row["max_batch_prefill_tokens"])
def test_a_folder_is_taken_as_its_files_are(even: Path, tmp_path: Path, row: dict[str, Any]) -> None:
    said = predicted(tmp_path, even, row)
    assert abs(reserved(said, row) - row["peak_reserved"]) <= SEGMENTS
    assert BY_COUNT not in said["uncertainty"]["why"]
    setting = setting_of(row)
    with_files = setting._replace(facts=setting.facts._replace(model=folder.read(str(even))))
    assert replay.loaded(with_files).reserved == row["loaded_reserved"]


@pytest.mark.parametrize("row", USUAL, ids=lambda row: row["max_batch_prefill_tokens"])
def test_a_shipped_model_is_taken_to_have_files_of_4_gb(tmp_path: Path, row: dict[str, Any]) -> None:
    said = predicted(tmp_path, QWEN3, row)
    assert abs(reserved(said, row) - row["peak_reserved"]) <= SEGMENTS
    assert BY_COUNT in said["uncertainty"]["why"]
    assert replay.loaded(setting_of(row)).reserved == row["loaded_reserved"]


def test_nothing_is_assumed_of_files_where_they_do_not_count(tmp_path: Path) -> None:
    for model in ("Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-7B-Instruct"):  # one file; a class of TGI's own
        assert BY_COUNT not in predicted(tmp_path, model, USUAL[0])["uncertainty"]["why"]


def test_files_of_the_usual_size_are_what_is_assumed(tmp_path: Path) -> None:
    """The 8B's five files on the Hub."""
    model = snapshot.find(QWEN3)
    assert model is not None
    sizes = [3996241408, 3993146880, 3959591936, 3187830784, 1244659712]
    place = write_model(tmp_path / "usual", in_files(model, sizes), dict(model.config))
    known, assumed = (predicted(tmp_path, one, USUAL[0]) for one in (place, QWEN3))
    assert known["memory"]["parts"] == assumed["memory"]["parts"]
    assert known["limits"] == assumed["limits"]
