"""What rows of a report mean: `explain`, and docs/how-it-works.md."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from front import CONFIGS, L4, ROOT, run

import tgi_advisor
from tgi_advisor.errors import Exit
from tgi_advisor.facts.rows import all_rows, find

NAMES = {row.row for row in all_rows()}
PAGE = (ROOT / "docs" / "how-it-works.md").read_text("utf-8")


def written() -> set[str]:
    """Names of parts in the source of the estimate."""
    files = [path.read_text("utf-8") for path in (ROOT / "tgi_advisor" / "estimate").glob("*.py")]
    named = {name for text in files for name in re.findall(r'Part\(\s*"([^"]+)"', text)}
    return named | set(re.findall(r'^GAPS = "([^"]+)"', "\n".join(files), re.MULTILINE))


NOTEBOOK = {"CUDA overhead", "model", "prefill", "decode", "left over"}
"""Rows of --method notebook, which docs/notebook.md explains."""


def test_every_row_there_can_be_is_explained() -> None:
    assert len(written()) > 10
    assert written() - NOTEBOOK <= NAMES


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_row_of_a_report_is_explained(config: Any) -> None:
    out = run("advise", str(config)).out
    rows = set(re.findall(r"^  (\S[^\n]{0,30}?) +-?[0-9.]+ [GM]iB", out, re.MULTILINE))
    labels = {
        label for label in re.findall(r"^([A-Z][A-Za-z ]+): ", out, re.MULTILINE) if not label.startswith("Memory")
    }
    assert len(rows) > 5
    assert rows <= NAMES
    assert labels - {"Note"} <= NAMES


def test_explain_takes_a_name_in_any_form() -> None:
    wanted = run("explain", "half-used segments").out
    assert run("explain", "Half-Used", "Segments:").out == wanted
    assert wanted.startswith("half-used segments\n  Memory that PyTorch has reserved")
    assert json.loads(run("explain", "kv cache", "--json").out) == [find("KV cache")._asdict()]


def test_explain_without_a_name_explains_all() -> None:
    assert {line for line in run("explain").out.splitlines() if line and line[0] != " "} == NAMES


def test_a_name_no_report_has() -> None:
    ran = run("explain", "KV cach")
    assert ran.code == Exit.USAGE
    assert "did you mean 'KV cache'" in ran.err


def test_the_worked_example_is_the_report() -> None:
    plan = tgi_advisor.advise(L4)
    parts = {part.name: part.bytes for part in plan.prediction.parts}
    per_token, limits = plan.prediction.kv_bytes_per_token, plan.prediction.limits
    total, budget = limits.max_total_tokens, limits.max_batch_total_tokens
    assert total
    assert budget
    assert f"{parts['KV cache']:,} bytes / {per_token:,} = {budget:,} tokens" in PAGE
    assert f"{budget:,} tokens are inferred, {total:,} are given" in PAGE
    assert f"{budget - total:,} tokens, are kept" in PAGE
    assert f"{parts['prefill activations'] >> 20} MiB, {parts['prefill activations'] // 2490 >> 10} KiB" in PAGE
    assert parts["KV cache"] == budget * per_token
    assert per_token == 2 * 32 * 8 * 128 * 2
    assert 0 <= parts["weights"] - 2 * 8_030_261_248 < 1 << 16
    assert limits.max_batch_prefill_tokens == 2490
    kept = (plan.facts.gpu.cuda_total_bytes or 0) // 10
    assert 0 <= parts["reserve"] + parts["CUDA graphs"] - kept < per_token


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_every_linked_file_of_the_documents_exists(page: Any) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_rules_and_commands_that_are_named_exist() -> None:
    text = "".join((ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("errors", "environment"))
    for code in set(re.findall(r"TGI\d{3}", text)):
        assert run("rule", code).code == Exit.STARTS
    for command in set(re.findall(r"`tgi-advisor ([a-z]+)", text)):
        assert run(command, "--help").code == Exit.STARTS
