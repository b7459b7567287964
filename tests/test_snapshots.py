"""The models shipped with the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from golden import Golden

from tgi_advisor import __version__
from tgi_advisor.errors import FactsError
from tgi_advisor.gather import snapshot
from tgi_advisor.gather.checkpoint import parameter_count
from tgi_advisor.gather.class_defaults import fill_defaults

PUBLISHED_BYTES = {
    "meta-llama/Llama-3.1-8B-Instruct": 16_060_522_496,
    "meta-llama/Llama-3.1-70B-Instruct": 141_107_412_992,
    "meta-llama/Llama-3.1-405B-Instruct": 811_706_777_600,
    "meta-llama/Llama-2-7b-chat-hf": 13_476_839_424,
    "Qwen/Qwen2.5-7B-Instruct": 15_231_233_024,
    "mistralai/Mistral-7B-Instruct-v0.3": 14_496_047_104,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 93_405_585_408,
    "google/gemma-2-9b-it": 18_483_411_968,
    "bigscience/bloom-560m": 1_118_429_184,
    "EleutherAI/gpt-neox-20b": 41_293_685_880,
    "openai-community/gpt2": 548_090_880,
    "deepseek-ai/DeepSeek-V3": 688_574_839_360,
}
"""`total_size` of the repositories' weight indexes (of V3: FP8 weights, scales and the prediction layer)."""

PUBLISHED_PARAMETERS = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4": 8_030_261_248,
    "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4": 72_957_861_888,
    "bigcode/starcoder": 15_819_446_272,
    "tiiuae/falcon-180B": 179_522_565_120,
    "deepseek-ai/DeepSeek-V3": 684_531_386_000,
}
"""Parameters as the models' Hub pages show them."""


@pytest.mark.parametrize("name", PUBLISHED_BYTES)
def test_bytes_are_the_published_ones(name: str) -> None:
    facts = snapshot.find(name)
    assert facts is not None
    assert facts.stored_bytes == PUBLISHED_BYTES[name]


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    facts = snapshot.find(name)
    assert facts is not None
    assert parameter_count(facts.config, facts.tensors) == PUBLISHED_PARAMETERS[name]


def test_every_model_in_one_table(golden: Golden) -> None:
    """Every snapshot is read strictly; a changed figure or provenance shows as a changed line."""
    listed = snapshot.listing()
    assert len(listed) >= 60
    assert [row.id for row in listed] == snapshot.recorded_ids()
    golden("snapshots.txt", "".join(_line(row) for row in listed))


def _line(row: snapshot.Listed) -> str:
    figures = f"{row.parameters:,} parameters, {row.stored_bytes:,} bytes in {row.files or 'some'} {row.weights_format}"
    kind = f"{row.model_type}, {'+'.join(row.dtypes)}, {row.quantization}, context {row.context}"
    also = f", also {', '.join(row.aliases)}" if row.aliases else ""
    return f"{row.id}{also}: {kind}, {figures}{', gated' if row.gated else ''}\n    {row.provenance}\n"


def test_files_are_named_and_written_in_one_way() -> None:
    for path in snapshot.FOLDER.glob("*--*.json"):
        raw = json.loads(path.read_bytes())
        assert path.stem == raw["id"].replace("/", "--")
        facts = snapshot.read(path.read_bytes(), path.name)
        assert facts.defaults == fill_defaults(raw["config"])
        assert facts.provenance
    assert set(snapshot.aliases().values()) <= set(snapshot.recorded_ids())
    assert not set(snapshot.aliases()) & set(snapshot.recorded_ids())


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("gpt2", "openai-community/gpt2"),
        ("CohereLabs/c4ai-command-r-plus", "CohereForAI/c4ai-command-r-plus"),
    ],
)
def test_a_model_is_found_by_its_other_ids(asked: str, recorded: str) -> None:
    facts, other = snapshot.find(asked), snapshot.find(recorded)
    assert facts is not None
    assert other is not None
    assert facts.tensors == other.tensors
    assert facts.id == asked
    assert f"snapshot of {recorded} shipped with tgi-advisor" in facts.source
    assert asked in snapshot.names()


def test_case_does_not_matter_and_what_is_not_shipped_is_none() -> None:
    facts = snapshot.find("META-llama/llama-3.1-8b-instruct")
    assert facts is not None
    assert facts.gated
    assert facts.commit is None
    assert facts.weights_format == "safetensors"
    for unknown in ("", "nobody/nothing", "../aliases", "aliases", "a\0b", "meta-llama--Llama-3.1-8B-Instruct"):
        assert snapshot.find(unknown) is None
    bin_only = snapshot.find("lmsys/vicuna-13b-v1.3")
    assert bin_only is not None
    assert bin_only.weights_format == "bin"


def test_the_source_says_which_recording() -> None:
    facts = snapshot.find("Qwen/Qwen3-8B")
    assert facts is not None
    assert facts.source == f"snapshot shipped with tgi-advisor {__version__} (recorded 2026-11-21)"


GOOD: dict[str, Any] = {
    "format": 1, "id": "a/b", "recorded": "2026-11-21", "commit": "c" * 40, "gated": False,
    "weights_format": "safetensors", "files": None, "model_max_length": 4096, "provenance": "",
    "config": {"model_type": "llama"}, "tensors": [["model.layers.*.w", "BF16", [4, 2], 3]],
}  # fmt: skip


def test_a_snapshot_is_read_as_written() -> None:
    facts = snapshot.read(json.dumps(GOOD), "s")
    assert (facts.id, facts.commit, facts.model_max_length, facts.stored_bytes) == ("a/b", "c" * 40, 4096, 48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "s is not a model snapshot of format 1."),
        ({"more": 1}, "s: missing or unknown keys: more."),
        ({"files": "2"}, "s: files has the wrong type."),
        ({"gated": 1}, "s: gated has the wrong type."),
        ({"config": []}, "s: config has the wrong type."),
        ({"weights_format": "gguf"}, "s: weights_format is neither safetensors nor bin."),
        ({"tensors": [["w", "BF16", [4]]]}, "s: ['w', 'BF16', [4]] is not a group of tensors."),
        ({"tensors": [["w", "Q4", [4], 1]]}, "s: ['w', 'Q4', [4], 1] is not a group of tensors."),
        ({"tensors": [["w", "F32", [-4], 1]]}, "s: ['w', 'F32', [-4], 1] is not a group of tensors."),
        ({"tensors": [["w", "F32", [4], 0]]}, "s: ['w', 'F32', [4], 0] is not a group of tensors."),
        ({"tensors": [["w", "F32", 4, 1]]}, "s: ['w', 'F32', 4, 1] is not a group of tensors."),
    ],
)
def test_a_snapshot_that_is_not_exactly_one_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FactsError) as error:
        snapshot.read(json.dumps({**GOOD, **change}), "s")
    assert error.value.message == message


def test_missing_key_and_no_json() -> None:
    with pytest.raises(FactsError, match="s: missing or unknown keys: gated"):
        snapshot.read(json.dumps({key: value for key, value in GOOD.items() if key != "gated"}), "s")
    with pytest.raises(FactsError, match="s is not valid JSON"):
        snapshot.read("{", "s")


RECORD = Path(__file__).parent.parent / "scripts" / "record_model.py"


def _record(*arguments: str) -> str:
    ran = subprocess.run([sys.executable, str(RECORD), *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_recording_becomes_a_snapshot(tmp_path: Path) -> None:
    place, out = tmp_path / "recording", tmp_path / "out"
    place.mkdir()
    out.mkdir()
    config = {"model_type": "deepseek_v3", "num_hidden_layers": 2}
    tensors = [[f"model.layers.{n}.mlp.up_proj.weight", "F32", [4, 2]] for n in range(3)]
    said = {
        "repo_id": "a/b", "aliases": ["old/b"], "gated": "manual", "weights_format": "safetensors",
        "safetensors_shards": 1, "published_params": 24, "published_params_confidence": "high",
        "published_params_source": "Hub safetensors metadata, as recorded elsewhere", "config_provenance": "copy",
    }  # fmt: skip
    for name, value in {"config.json": config, "tensors.json": tensors, "facts.json": said}.items():
        (place / name).write_text(json.dumps(value))
    (place / "source.txt").write_text("REAL COPY\nsome/repository@1234567 config.json\n")
    assert (
        _record("--out", str(out), "--recorded", "2026-01-02", str(place)) == "a/b: 96 bytes in 2 groups of tensors\n"
    )
    facts = snapshot.read((out / "a--b.json").read_bytes(), "made")
    assert [(group.name, group.count) for group in facts.tensors] == [
        ("model.layers.*.mlp.up_proj.weight", 2),
        ("model.layers.2.mlp.up_proj.weight", 1),
    ]
    assert facts.gated
    assert facts.config == config
    assert facts.source.endswith("(recorded 2026-01-02)")
    assert facts.provenance.startswith("config.json is a public copy of the Hub's (some/repository). Tensors follow")
    assert json.loads((out / "aliases.json").read_bytes()) == {"old/b": "a/b"}
