"""The recorded starts of TGI are what the package's tables can evaluate, in one form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tgi_advisor.facts import gpu, release
from tgi_advisor.gather import snapshot
from tgi_advisor.units import parse_size

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from record_warmup import KEYS, KINDS, LIMITS, row_text

TEXT = (Path(__file__).parent / "data" / "warmups.yaml").read_text("utf-8")
ROWS: list[dict[str, Any]] = yaml.safe_load(TEXT)
REQUIRED = {"id", "kind", "limits", "observed", "known", "confidence", "source"}
SIZES = ("tried", "capacity", "free", "in_use", "allocated", "unallocated", "reserved")
OBSERVED = {
    "max_batch_total_tokens", "kv_blocks", "block_size", "attention", "prefix_caching", "chunking", "defaults",
    "nvidia_smi_used_mib", "oom", "refusal", "cuda_graphs_mb", "free_before_warmup_mb", "free_after_kv_mb",
}  # fmt: skip


def test_the_file_is_in_its_one_form() -> None:
    head, _, _ = TEXT.partition("\n- ")
    assert head + "\n" + "\n".join(row_text(row) for row in ROWS) == TEXT


def test_names_are_unique() -> None:
    assert len({row["id"] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_a_row_is_whole(row: dict[str, Any]) -> None:
    assert [key for key in KEYS if key in row] == list(row), "unknown key, or not in the order of KEYS"
    assert REQUIRED - {"known"} <= set(row)
    assert row["kind"] in KINDS
    assert row["confidence"] in ("high", "medium", "low")
    assert set(row["limits"]) <= set(LIMITS)
    assert all(isinstance(value, int) and value > 0 for value in row["limits"].values())
    assert set(row["observed"]) <= OBSERVED
    assert row["source"].startswith(("https://", "a "))
    if "release" in row:
        assert release.find(row["release"]).name == row["release"]
        assert row["release_basis"]
    if "gpu" in row:
        assert gpu.find(row["gpu"]).name == row["gpu"]
    if "model" in row:
        assert (snapshot.find(row["model"]) is None) is (row.get("snapshot") is False)
    if "like" in row:
        assert snapshot.find(row["like"])


@pytest.mark.parametrize("row", [row for row in ROWS if "exclude" not in row], ids=lambda row: str(row["id"]))
def test_a_row_that_counts_can_be_evaluated(row: dict[str, Any]) -> None:
    assert {"release", "model", "num_shard"} <= set(row)
    assert "gpu" in row or row["kind"] == "refused"
    assert row["known"]
    observed = row["observed"]
    if row["kind"] == "inferred-budget":
        assert observed.get("max_batch_total_tokens") or observed.get("kv_blocks")
    if row["kind"] == "refused":
        assert observed["refusal"]
    if row["confidence"] == "high" and row["kind"] != "refused":
        assert row["gpu_count"] >= row["num_shard"]


@pytest.mark.parametrize("row", [row for row in ROWS if "oom" in row["observed"]], ids=lambda row: str(row["id"]))
def test_sizes_of_an_out_of_memory_message_add_up(row: dict[str, Any]) -> None:
    oom = row["observed"]["oom"]
    assert oom["when"] in ("load", "warmup", "graphs", "after-kv", "later")
    assert set(oom) <= {"when", *SIZES}
    sizes = {name: parse_size(oom[name]) for name in SIZES if name in oom}
    assert sizes.get("allocated", 0) + sizes.get("unallocated", 0) <= sizes.get("in_use", 1 << 60)
    assert sizes.get("free", 0) <= sizes.get("capacity", 1 << 60)
    if "gpu" in row and "capacity" in sizes:
        assert sizes["capacity"] == pytest.approx(gpu.find(row["gpu"]).memory_bytes, rel=0.05)
