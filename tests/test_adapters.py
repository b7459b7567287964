"""LoRA adapters: what is read of them, what is assumed, and what they take of the GPU before the warm-up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from front import run
from hub import Hub, Repo
from hypothesis import given
from hypothesis import strategies as st
from replays import setting_of

from tgi_advisor.estimate import adapters, geometry, replay
from tgi_advisor.facts.adapters import ASSUMED, PROJECTIONS, Lora, read
from tgi_advisor.units import MiB

ROWS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "data" / "replays_adapters.yaml").read_text("utf-8")
)
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        for name in ("HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def predict(adapter: str, *more: str) -> dict[str, Any]:
    """The plan of a model with an adapter."""
    asked = ("predict", "-m", MODEL, "-g", "nvidia-l4", "--set", f"tgi.flags.lora-adapters={adapter}", "--json", *more)
    plan: dict[str, Any] = json.loads(run(*asked).out)
    return plan


def part(plan: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = (one for one in plan["memory"]["parts"] if one["name"] == "LoRA adapters")
    return dict(found)


# ---- what is read ----


def test_rank_and_projections_come_from_the_hub(hub: Hub) -> None:
    config = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]}
    hub.repos["org/ada"] = Repo({"adapter_config.json": json.dumps(config).encode()})
    found = part(predict("org/ada"))
    each = 32 * 8 * ((4096 + 4096) + (4096 + 1024)) * 2
    assert (found["bytes"], found["basis"]) == (each, "exact")
    assert found["why"] == "1 adapter of rank 8, as adapter_config.json says"
    assert hub.paths == ["/org/ada/resolve/main/adapter_config.json"]


def test_a_folder_is_read_through_the_mounts(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    config = {"r": 16, "target_modules": "all-linear"}
    (tmp_path / "ada" / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    mounts = f'container.mounts=["{tmp_path}:/adapters:ro"]'
    found = part(predict("mine=/adapters/ada", "--set", mounts))
    hidden, query, kv, inner = 4096, 4096, 1024, 14336
    each = 2 * (hidden + query) + 2 * (hidden + kv) + 3 * (hidden + inner)
    assert (found["bytes"], found["basis"]) == (32 * 16 * each * 2, "exact")


def test_an_adapter_nobody_can_read_is_assumed_and_a_note_says_so(hub: Hub) -> None:
    found = part(predict("org/ada"))
    assert (found["basis"], found["why"]) == ("modelled", "1 adapter taken to have rank 16 on every projection")
    page = " ".join(
        run("predict", "-m", MODEL, "-g", "nvidia-l4", "--set", "tgi.flags.lora-adapters=org/ada").out.split()
    )
    assert "adapter org/ada is taken to have rank 16 on every projection: The Hub knows no model org/ada" in page


@pytest.mark.parametrize(
    ("config", "lora"),
    [
        ({"r": 8, "target_modules": ["q_proj", "model.layers.0.mlp.up_proj", "lm_head"]}, (8, ("q_proj", "up_proj"))),
        ({"r": 8, "target_modules": r".*(q|k)_proj"}, (8, ())),
        ({"r": 8, "target_modules": "model.layers.*q_proj"}, (8, ("q_proj",))),
        ({"r": 8, "target_modules": None}, (8, PROJECTIONS)),
        ({"r": 8, "rank_pattern": {"q_proj": 32}, "target_modules": ["q_proj"]}, (32, ("q_proj",))),
        ({"r": 8, "target_modules": ["q_proj"], "layers_to_transform": [0]}, (8, ())),
        ({"r": 0}, None), ({"r": True}, None), ({"r": 1e9}, None), ({}, None),
        ({"r": 8, "peft_type": "LOHA"}, None),
    ],
)  # fmt: skip
def test_what_a_configuration_says(config: dict[str, Any], lora: tuple[int, tuple[str, ...]] | None) -> None:
    assert read(config, "here") == (lora and Lora(*lora, "here"))


# ---- what it takes ----


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['release']}-rank-{row['rank']}-x{row['num_shard']}")
def test_a_row_comes_out(row: dict[str, Any]) -> None:
    lora = Lora(row["rank"], tuple(row["projections"]), "")
    named = {f"a{number}=/a": lora for number in range(row["adapters"])}
    setting = setting_of(row)
    setting = setting._replace(lora_adapters=tuple(named), facts=setting.facts._replace(adapters=named))
    loaded = replay.loaded(setting)
    tokens, longest = row["max_batch_prefill_tokens"], row["max_input_tokens"]
    batch = replay.Batch(-(-tokens // longest), tokens, longest, row["warmup_blocks"])
    seen = replay.warm_up(setting, geometry.of(setting), loaded, batch)
    assert loaded.alive == pytest.approx(row["loaded_allocated"], abs=MiB / 4)
    assert abs(loaded.reserved - row["loaded_reserved"]) <= 2 * MiB
    assert abs(seen.peak - row["peak_reserved"]) <= 4 * MiB


@given(
    st.integers(1, 256), st.sampled_from([1, 2, 4, 8]), st.lists(st.sampled_from(PROJECTIONS), unique=True, max_size=10)
)
def test_more_rank_or_another_projection_never_takes_less(rank: int, shards: int, names: list[str]) -> None:
    setting = setting_of({"model": MODEL, "num_shard": shards, "attention": "flashinfer", "release": "3.3.7"})

    def size(rank: int, names: list[str]) -> int:
        facts = setting.facts._replace(adapters={"a": Lora(rank, tuple(names), "")})
        found = adapters.part(setting._replace(lora_adapters=("a",), facts=facts))
        return found.bytes if found else 0

    assert size(rank, names) <= size(rank + 1, names) <= size(rank + 1, list(PROJECTIONS))
    assert size(rank, names) == 0 or names


def test_assumed_is_an_adapter_on_all_projections_the_checkpoint_has() -> None:
    row = {"model": "microsoft/Phi-3.5-mini-instruct", "num_shard": 1, "attention": "flashinfer", "release": "3.3.7"}
    setting = setting_of(row)._replace(lora_adapters=("org/a",))
    assert ASSUMED.projections == PROJECTIONS
    assert len(list(adapters.stacks(setting))) == 3  # qkv_proj, o_proj, down_proj
