"""The Python API: the same plans for programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from front import CONFIGS, L4, ROOT, run

import tgi_advisor
from tgi_advisor.errors import AdvisorError, FactsError, SpecError, UsageError
from tgi_advisor.estimate.notebook import NotebookFigures, nominal_gb, notebook, notebook_tgi
from tgi_advisor.limits import Limits
from tgi_advisor.report import document

SPEC: dict[str, Any] = {"model": {"id": "meta-llama/Llama-3.1-8B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_every_name_is_there_and_imported_when_used() -> None:
    assert sorted(set(tgi_advisor.__all__)) == sorted(tgi_advisor.__all__)
    kinds = {name: type(getattr(tgi_advisor, name)).__name__ for name in tgi_advisor.__all__}
    assert set(kinds.values()) == {"type", "function", "str"}  # and no module of the same name
    with pytest.raises(AttributeError, match="has no attribute 'advice'"):
        _ = tgi_advisor.advice
    code = "import sys, tgi_advisor; print([m for m in sys.modules if m.startswith('tgi_advisor.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_command_prints_what_the_api_says(config: Path) -> None:
    for name, call in (("advise", tgi_advisor.advise), ("predict", tgi_advisor.predict)):
        assert json.loads(run(name, str(config), "--json").out) == json.loads(json.dumps(document(call(str(config)))))


def test_a_path_a_mapping_and_a_record_are_the_same_spec(tmp_path: Path) -> None:
    file = tmp_path / "llama.yaml"
    file.write_text(json.dumps(SPEC), "utf-8")
    plans = [tgi_advisor.advise(spec) for spec in (SPEC, file, str(file), tgi_advisor.read_spec(SPEC))]
    assert [document(plan) for plan in plans] == [document(plans[0])] * 4


def test_facts_are_gathered_once_for_many_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tgi_advisor.gather_facts(tgi_advisor.read_spec(SPEC))
    wanted = document(tgi_advisor.advise(SPEC))
    monkeypatch.setattr("tgi_advisor.api.gather_facts", None)
    assert document(tgi_advisor.advise(SPEC, facts=facts)) == wanted
    assert tgi_advisor.predict(SPEC, facts=facts).prediction.outcome == "starts"


def test_errors_are_of_one_family() -> None:
    with pytest.raises(SpecError) as told:
        tgi_advisor.advise({**SPEC, "model": {"idd": "a/b"}, "tgi": {"num_shards": 2}})
    assert {problem.message for problem in told.value.problems} >= {
        "unknown key 'idd' under model", "unknown key 'num_shards' under tgi",
    }  # fmt: skip
    with pytest.raises(FactsError):
        tgi_advisor.predict({**SPEC, "hardware": {"gpu": "nvidia-l44"}})
    assert issubclass(SpecError, AdvisorError)
    assert issubclass(FactsError, tgi_advisor.AdvisorError)


def test_limits_that_do_not_hold_what_was_asked_do_not_fit() -> None:
    plan = tgi_advisor.advise({**SPEC, "workload": {"concurrency": 100}})
    assert (plan.prediction.outcome, plan.container) == ("out_of_memory", None)
    assert plan.prediction.reason
    assert plan.prediction.reason.startswith(
        "no limits hold what the spec asks with 170.7 MiB per GPU left unplanned: 100 requests of 1,025 tokens are"
    )
    assert plan.prediction.headroom_bytes < 0


def test_a_launch_that_starts_but_cannot_be_written_is_an_error() -> None:
    launch = {**SPEC, "tgi": {"flags": {"tokenizer-config-path": "a b", "watermark-gamma": 0.5}}}
    assert tgi_advisor.advise(launch).container is not None
    split = {**SPEC, "tgi": {"flags": {"cors-allow-origin": ["http://a b", "http://c"]}}}
    with pytest.raises(SpecError, match="splits"):
        tgi_advisor.advise(split)
    refused = {**split, "model": {**SPEC["model"], "quantize": "awq"}}
    plan = tgi_advisor.predict(refused)
    assert (plan.prediction.outcome, plan.container) == ("refused", None)


def test_the_notebook_prints_its_own_figures() -> None:
    limits = {"max_input_tokens": 8750, "max_total_tokens": 8782, "max_batch_prefill_tokens": 8782}
    spec = {**SPEC, "hardware": {"gpu": "nvidia-a10g"}, "limits": limits}
    plan = tgi_advisor.predict(spec, method="notebook")
    assert dict(plan.extra) == {
        "cuda_overhead": 1.2, "model_overhead": 16.06052, "prefill_overhead": 3.15672, "decode_overhead": 0.00036,
        "kv_cache_full_overhead": 9.20755, "total_vram_available": 22.8, "total_vram_needed": 29.62515,
        "is_enough_vram": False,
    }  # fmt: skip
    assert plan.prediction.outcome == "out_of_memory"


@pytest.mark.parametrize("method", ["notebook", "notebook-tgi"])
def test_the_notebook_finds_what_it_lets_through(method: Any) -> None:
    spec = {**SPEC, "hardware": {"gpu": "nvidia-a10g"}}
    found = tgi_advisor.advise(spec, method=method).prediction
    assert found.outcome == "starts"
    for more, outcome in ((0, "starts"), (1, "out_of_memory")):
        limits = {name: value + more for name, value in found.limits.given().items()}
        assert tgi_advisor.predict({**spec, "limits": limits}, method=method).prediction.outcome == outcome


@pytest.mark.parametrize("method", ["notebook", "notebook-tgi"])
@pytest.mark.parametrize("memory", ["19GiB", "20GiB", "21GiB"])
@pytest.mark.parametrize(("limits", "room"), [
    ({}, 32), ({}, 1000), ({}, 1),
    ({"max_batch_prefill_tokens": 1}, 32),
    ({"max_batch_prefill_tokens": 1900}, 32),
    ({"max_batch_prefill_tokens": 2600}, 1),
    ({"max_batch_prefill_tokens": {"max": 800}}, 300),
    ({"max_batch_prefill_tokens": {"min": 1000}}, 100),
    ({"max_input_tokens": {"max": 150}}, 20),
    ({"max_input_tokens": {"min": 400}, "max_batch_prefill_tokens": {"max": 1200}}, 20),
])  # fmt: skip
def test_the_notebook_finds_the_longest_there_is(method: Any, memory: str, limits: dict[str, Any], room: int) -> None:
    """Every length is tried: shorter requests, of which a prefill batch holds more, can need more."""
    gpu = {"name": "mine", "memory": memory, "compute_capability": 8.9}
    asked = {**limits, "max_total_tokens": {"max": 3000}}
    spec = {**SPEC, "hardware": {"gpu": gpu}, "limits": asked, "workload": {"max_new_tokens": room}}
    plan = tgi_advisor.advise(spec, method=method)
    formula = notebook if method == "notebook" else notebook_tgi
    gb, bounds = nominal_gb(plan.facts.gpu.memory_bytes), plan.spec.limits
    fitting, missing = [], {}
    for total in range(room + 1, 3001):
        longest, prefill = bounds.max_input_tokens.clamp(total - room), bounds.max_batch_prefill_tokens.clamp(total)
        if longest < total:
            tried = formula(plan.facts.model, 1, gb, Limits(longest, total, prefill), dtype=plan.prediction.dtype)
            fitting += [total] if tried.fits else []
            spare = (
                tried.available - tried.needed if isinstance(tried, NotebookFigures) else tried.free - tried.kv_needed
            )
            missing[total] = -spare
    found = plan.prediction.limits.max_total_tokens or 0
    assert (plan.prediction.outcome == "starts") == bool(fitting)
    assert found == fitting[-1] if fitting else missing[found] == min(missing.values())


@pytest.mark.parametrize(("method", "two", "one"), [("notebook", 3939, 7869), ("notebook-tgi", 4610, 9211)])
def test_what_a_search_by_the_notebook_holds_fixed_is_said(method: Any, two: int, one: int) -> None:
    spec = {**SPEC, "hardware": {"gpu": "nvidia-l4"}, "workload": {"max_new_tokens": 32}}
    seen = tgi_advisor.advise(spec, method=method).prediction
    assert (seen.limits.max_total_tokens, seen.limits.max_batch_prefill_tokens) == (two, two)
    assert "counts 2 requests at full length" in " ".join(seen.warnings)
    alone = {**spec, "limits": {"max_batch_prefill_tokens": one - 32}}
    seen = tgi_advisor.advise(alone, method=method).prediction
    assert (seen.limits.max_total_tokens, seen.limits.max_input_tokens) == (one, one - 32)
    assert "at full length;" not in " ".join(seen.warnings)


@pytest.mark.parametrize("method", ["notebook", "notebook-tgi"])
def test_the_notebook_respects_bounds(method: Any) -> None:
    limits = {"max_input_tokens": {"max": 2000}, "max_total_tokens": {"max": 2500}, "max_batch_prefill_tokens": 2048}
    spec = {**SPEC, "hardware": {"gpu": "nvidia-a10g"}, "limits": limits}
    found = tgi_advisor.advise(spec, method=method).prediction.limits
    assert (found.max_input_tokens, found.max_total_tokens, found.max_batch_prefill_tokens) == (1476, 2500, 2048)


def test_a_limit_beyond_the_memory_does_not_fit_and_says_what_would() -> None:
    plan = tgi_advisor.advise({**SPEC, "limits": {"max_total_tokens": 40000}})
    seen = plan.prediction
    assert (seen.outcome, seen.stage, plan.container) == ("out_of_memory", "warmup", None)
    assert "40,000 tokens are asked for" in (seen.reason or "")
    assert "model.kv_cache_dtype: fp8_e4m3fn gives max_total_tokens 40,000" in seen.next_steps


def test_the_docstring_of_the_api_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = tgi_advisor.advise("configs/llama-3.1-8b-l4.yaml")
    assert plan.prediction.outcome == "starts"
    assert plan.prediction.limits == tgi_advisor.advise(L4).prediction.limits


# Arguments by name, and plans that write themselves


def test_arguments_are_the_options_of_those_names() -> None:
    llama = "meta-llama/Llama-3.1-8B-Instruct"
    named = tgi_advisor.advise(model=llama, gpu="l4", count=2, release="3.2.3", context="8k", users=2)
    options = ("-m", llama, "-g", "l4", "-n", "2", "-r", "3.2.3", "--context", "8k", "--users", "2", "--json")
    assert named.to_dict() == json.loads(run("advise", *options).out)


def test_they_are_laid_over_a_spec() -> None:
    over = tgi_advisor.predict(L4, release="2.4.1", fields={"limits.max_batch_prefill_tokens": 4096})
    options = ("--release", "2.4.1", "--set", "limits.max_batch_prefill_tokens=4096", "--json")
    assert over.to_dict() == json.loads(run("predict", L4, *options).out)
    block = {"name": "mine", "memory": "24564MiB", "compute_capability": 8.9}
    assert tgi_advisor.advise(SPEC, gpu=block).facts.gpu.name == "mine"
    assert tgi_advisor.advise(SPEC, gpu="l40s").facts.gpu.name == "nvidia-l40s"


@pytest.mark.parametrize("arguments", [{}, {"gpu": "l4"}, {"count": 2}])
def test_no_deployment(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no deployment was named"):
        tgi_advisor.advise(**arguments)


def test_a_plan_writes_itself() -> None:
    plan = tgi_advisor.advise(L4)
    assert f"{plan}\n" == run("advise", L4).out
    assert plan.emit("compose") == run("emit", L4, "-f", "compose").out
    assert plan.emit() == run("emit", L4).out
    assert isinstance(plan._replace(method="tgi"), tgi_advisor.Plan)
    assert len(repr(plan)) < 250


def test_what_does_not_start_is_not_emitted() -> None:
    plan = tgi_advisor.advise(model="Qwen/Qwen2.5-72B-Instruct", gpu="t4")
    assert "Next steps:" in str(plan)
    with pytest.raises(UsageError, match="nothing to emit"):
        plan.emit()


def test_the_code_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    there: dict[str, Any] = {}
    for block in blocks:
        if block.startswith(">>> plan\n"):
            assert repr(there["plan"]) == block.splitlines()[1]
        else:
            exec(block, there)
    assert "GPU 'mystery' is not known" in capsys.readouterr().out
