"""The estimate against real runs: the published figures are current and within their bounds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy", ROOT / "scripts" / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accuracy"] = module
    spec.loader.exec_module(module)
    return module


accuracy = _script()


@pytest.fixture(scope="module")
def found() -> list[accuracy.Result]:  # type: ignore[name-defined]
    everything, _ = accuracy.runs()
    return list(accuracy.results(everything))


def test_what_is_published_is_current(found: list[accuracy.Result]) -> None:  # type: ignore[name-defined]
    _, skipped = accuracy.runs()
    for path, text in accuracy.outputs(found, skipped).items():
        assert path.read_text("utf-8") == text, f"{path.name} is stale: python scripts/accuracy.py --write"


def test_caches_of_other_engines_come_out_within_three_percent() -> None:
    off = sorted(abs(one.share) for one in accuracy.moved.runs())
    assert len(off) >= 30
    assert off[len(off) // 2] < 0.03
    assert {one.row["engine"] for one in accuracy.moved.runs()} == {"vllm", "sglang"}
    assert all(one.start.outcome == "starts" for one in accuracy.moved.runs())


def test_budgets_come_out_as_published(found: list[accuracy.Result]) -> None:  # type: ignore[name-defined]
    known = [result for result in found if result.run.trusted and result.run.observed is not None]
    relative = [result.relative(result.ours) for result in known]
    share = [result.share(result.ours) for result in known]
    assert len(known) >= 8
    assert None not in relative
    median, nine_in_ten = accuracy.quantiles(share)
    assert median <= 0.01
    assert nine_in_ten <= 0.02
    assert accuracy.quantiles(relative)[0] <= 0.03


def test_other_methods_are_further_off(found: list[accuracy.Result]) -> None:  # type: ignore[name-defined]
    known = [result for result in found if result.run.trusted and result.run.observed is not None]
    ours = accuracy.quantiles([result.share(result.ours) for result in known])[0]
    for name in accuracy.BASELINES:
        theirs = [value for result in known if (value := result.share(result.baselines[name])) is not None]
        assert not theirs or ours <= accuracy.quantiles(theirs)[0] / 3


def test_what_worked_is_said_to_start(found: list[accuracy.Result]) -> None:  # type: ignore[name-defined]
    worked = [
        result for result in found
        if result.run.trusted and accuracy.EXPECTED[result.run.row["kind"]] == "starts"
    ]  # fmt: skip
    started = [result for result in worked if result.ours.outcome == "starts"]
    assert len(worked) >= 30
    assert len(started) >= 0.95 * len(worked)


def test_what_was_refused_by_rule_is_refused(found: list[accuracy.Result]) -> None:  # type: ignore[name-defined]
    refused = [result for result in found if result.run.row["kind"] == "refused"]
    assert refused
    for result in refused:
        said = accuracy.ours(result.run)[1]
        assert said.outcome == "refused"
        assert result.run.row["observed"]["refusal"] in (said.reason or "")


def test_nothing_that_ran_out_of_memory_is_said_to_start_with_its_margin(
    found: list[accuracy.Result],  # type: ignore[name-defined]
) -> None:
    died = [
        result for result in found
        if result.run.trusted and result.run.row["kind"].startswith("oom")
    ]  # fmt: skip
    assert len(died) >= 8
    assert [result.run.row["id"] for result in died if result.keeps_its_margin] == []
