"""Scenarios worked by hand: what TGI's arithmetic gives on both sides of every release that changed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from launch import settle

from tgi_advisor.estimate import exllama, geometry, kv_cache, overhead, prefill, warmup, weights
from tgi_advisor.estimate.peak import Batch, Peak
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import tables
from tgi_advisor.facts.gpu import GpuFacts, System
from tgi_advisor.gather import snapshot
from tgi_advisor.limits import Limits
from tgi_advisor.units import GiB, parse_size

SCENARIOS = Path(__file__).parent / "scenarios"
VARIANTS = {"cuda": "", "rocm": "rocm", "xpu": "intel-xpu", "cpu": "intel-cpu", "gaudi": "gaudi"}


def scenarios(kind: str) -> list[Any]:
    rows = yaml.safe_load((SCENARIOS / f"{kind}.yaml").read_text())
    for row in rows:
        tables.strict(
            row, {"name", "why", "launch", "limits", "measured", "expect"}, {"name", "why", "launch", "expect"}, kind
        )
    return [pytest.param(row, id=row["name"]) for row in rows]


def card(name: str) -> GpuFacts | str:
    """`24gib`, `24gib-rocm`, ...: a device with nothing held back; any other name is the table's."""
    size, _, system = name.partition("-")
    if not size.endswith("gib"):
        size, system = (system, "cpu") if name.startswith("cpu-") else ("", "")
    if not size:
        return name
    kind: System = system or "cuda"  # type: ignore[assignment]
    total = int(size.removesuffix("gib")) * GiB
    return GpuFacts(name, kind, total, total, (8, 0) if kind == "cuda" else None, None, None, "", "by hand")


def launched(row: dict[str, Any]) -> Setting:
    """The launch of a scenario; `count` GPUs are as many shards."""
    launch = dict(row["launch"])
    gpu, count = card(launch.pop("gpu")), launch.pop("count", 1)
    model = snapshot.find(launch.pop("model"))
    assert model is not None
    system = gpu.system if isinstance(gpu, GpuFacts) else tables_system(gpu)
    return settle(
        model,
        release=launch.pop("release"),
        gpu=gpu,
        count=count,
        shards=count,
        variant=VARIANTS[system],
        fraction=launch.pop("memory_fraction", 1.0),
        **launch,
    )


def tables_system(name: str) -> str:
    return next(str(row["system"]) for row in tables.load("gpus") if row["name"] == name)


def limits_of(row: dict[str, Any]) -> Limits:
    given = row.get("limits", {})
    return Limits(given.get("input"), given.get("total"), given.get("prefill"))


@pytest.mark.parametrize("row", scenarios("weights"))
def test_weights(row: dict[str, Any]) -> None:
    held = {part.name: part.bytes for part in weights.shard(launched(row)).parts}
    assert {"weights": held["weights"], "tied": held.get("tied lm_head", 0)} == row["expect"]


@pytest.mark.parametrize("row", scenarios("kv_cache"))
def test_kv_cache(row: dict[str, Any]) -> None:
    setting = launched(row)
    assert {"bytes_per_token": kv_cache.bytes_per_token(setting), "block_size": setting.block_size} == row["expect"]


@pytest.mark.parametrize("row", scenarios("warmup_batch"))
def test_warmup_batch(row: dict[str, Any]) -> None:
    requests, tokens, blocks = warmup.warmup_batch(launched(row), limits_of(row))
    assert {"requests": requests, "tokens": tokens, "blocks": blocks} == row["expect"]


class PerToken:
    """A prefill that takes so many bytes for every token."""

    rough = None
    sharing = -1
    full = ()

    def __init__(self, each: int, here: warmup.Base) -> None:
        self.each = each
        self.block = here.geometry.kv_bytes_per_token * here.setting.block_size

    def in_gaps(self, blocks: int) -> int:
        return 0 * blocks

    def seen(self, requests: int, longest: int) -> None:
        assert requests
        assert longest

    def at(self, batch: Batch) -> Peak:
        cache, layers = batch.blocks * self.block, batch.tokens * self.each
        return Peak(cache, cache + layers, cache + layers, layers, layers, layers)

    def squeezed(self, batch: Batch, room: int) -> Peak:
        assert room
        return self.at(batch)


@pytest.mark.parametrize("row", scenarios("budget"))
def test_budget(row: dict[str, Any]) -> None:
    measured = row["measured"]
    total, loaded = parse_size(measured["total"]), parse_size(measured["loaded"])
    here = warmup.base(launched(row))._replace(
        loaded=loaded, torch=loaded, total=total, cuda_total=total, gaps=0,
    )  # fmt: skip
    here = here._replace(prefills=PerToken(measured["activation"], here))
    seen = warmup.run(here, limits_of(row))
    assert seen.stage is None
    assert {"blocks": seen.blocks, "budget": seen.budget} == row["expect"]


@pytest.mark.parametrize("row", scenarios("logits"))
def test_logits(row: dict[str, Any]) -> None:
    setting = launched(row)
    assert {"per_token": prefill.per_token(setting, geometry.of(setting)).logits} == row["expect"]


@pytest.mark.parametrize("row", scenarios("overhead"))
def test_overhead(row: dict[str, Any]) -> None:
    setting = launched(row)
    here = warmup.base(setting)
    tokens = row.get("limits", {}).get("prefill", 0)
    workspace = overhead.flashinfer(setting)
    scratch = exllama.scratch(setting, here.geometry, tokens) if exllama.applies(setting) else 0
    found = {"flashinfer": workspace.bytes if workspace else 0, "exllama": scratch}
    assert {name: found[name] for name in row["expect"]} == row["expect"]
