"""A model in a folder beside its deployment file is read there; a folder of the Hub's cache is named for what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from front import run
from test_folder import Tensors, write_model

from tgi_advisor.errors import Exit

IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.7"
CONFIG = {
    "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 32000, "max_position_embeddings": 8192, "num_hidden_layers": 2, "torch_dtype": "float16",
}  # fmt: skip


def weights() -> list[Tensors]:
    """About 24 GiB in one tensor a layer."""
    return [{f"model.layers.{layer}.mlp.up_proj.weight": ("F16", [1572864, 4096])} for layer in range(2)]


COMPOSE = f"""\
services:
  llm:
    image: {IMAGE}
    command: --model-id %s --num-shard 1
    ports: ["8080:80"]
    volumes: ["%s"]
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a deployment and a model of 24 GiB, seen from elsewhere."""
    (tmp_path / "deploy" / "data").mkdir(parents=True)
    write_model(tmp_path / "deploy" / "data" / "m", weights(), CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "deploy"


@pytest.mark.parametrize(
    ("model", "mount"),
    [
        ("/data/m", "./data:/data"),
        ("/models/m", "./data:/models:ro"),
        ("/m", "./data/m:/m"),
        ("/data/data/m", ".:/data"),
        ("/data/m", "${PWD}/data:/data"),
    ],
)
def test_a_folder_beside_the_file_is_read(there: Path, model: str, mount: str) -> None:
    (there / "compose.yaml").write_text(COMPOSE % (model, mount))
    ran = run("validate", "deploy", "-g", "nvidia-t4")
    assert ran.code == Exit.FINDINGS
    assert "TGI201" in ran.out
    assert "24.00 GiB" in ran.out
    assert run("validate", "deploy", "-g", "a100-80gb").code == Exit.STARTS


@pytest.mark.parametrize(
    ("model", "mount"),
    [
        ("/data/m", "/srv/data:/data"),
        ("/data/m", "../other:/data"),
        ("/data/x", "./data:/data"),
        ("/data/m", "data:/data"),
        ("/data/away", "./data:/data"),
    ],
)
def test_no_other_folder_is(there: Path, model: str, mount: str) -> None:
    outside = write_model(there.parent / "other", weights(), CONFIG)
    write_model(outside / "m", weights(), CONFIG)
    (there / "data" / "away").symlink_to(outside / "m")
    (there / "compose.yaml").write_text(COMPOSE % (model, mount))
    ran = run("validate", "deploy", "-g", "nvidia-t4", "--explain")
    assert "TGI201" not in ran.out
    assert f"nothing is known of {model}" in ran.out


def test_what_is_imported_can_be_used(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there / "compose.yaml").write_text(COMPOSE % ("/data/m", "./data:/data"))
    monkeypatch.chdir(there)
    (there / "spec.yaml").write_text(run("import", "compose.yaml", "-g", "a100-80gb").out)
    ran = run("advise", "spec.yaml", "--json")
    assert ran.code == Exit.STARTS, ran.err
    plan = json.loads(ran.out)
    assert [mount["target"] for mount in plan["container"]["mounts"]] == ["/data", "/models/m"]


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("models--Qwen--Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("/data/models--Qwen--Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("/data/hub/models--gpt2/", "gpt2"),
    ],
)
def test_a_folder_of_the_hubs_cache_is_no_model(tmp_path: Path, model: str, meant: str) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE % (model, "./data:/data"))
    ran = run("validate", str(tmp_path))
    assert ran.code == Exit.FINDINGS
    assert "error TGI131" in ran.out
    assert f"write {meant}, or {model.rstrip('/')}/snapshots/ and the commit" in " ".join(ran.out.split())
    (tmp_path / "compose.yaml").write_text(COMPOSE % (f"{model.rstrip('/')}/snapshots/abc", "./data:/data"))
    assert "TGI131: " + model not in run("validate", str(tmp_path)).out


def test_predict_names_the_id_too(tmp_path: Path) -> None:
    ran = run("predict", "-m", "models--Qwen--Qwen2.5-7B-Instruct", "-g", "l4")
    assert "Write the model's id: Qwen/Qwen2.5-7B-Instruct" in ran.err
    (tmp_path / "models--org--m" / "snapshots").mkdir(parents=True)
    ran = run("predict", "-m", str(tmp_path / "models--org--m"), "-g", "l4")
    assert "Give the model's id, org/m, or the folder of one snapshot." in " ".join(ran.err.split())
