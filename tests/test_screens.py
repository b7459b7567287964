"""What a user meets first: options people try, colours and widths of the terminal, what stands last on the screen."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from front import L4, LLAMA, environment, process, run

import tgi_advisor
from tgi_advisor.errors import Exit, SpecError
from tgi_advisor.facts.flags import cited, flags_of
from tgi_advisor.facts.release import all_releases
from tgi_advisor.validate.rules import RULES

SMALL = ("-m", "Qwen/Qwen2.5-7B-Instruct")
TOO_BIG = ("-m", "Qwen/Qwen2.5-14B-Instruct", "-g", "rtx-3090")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# Options


def test_context_and_users_are_fields_of_the_spec() -> None:
    short = run("advise", *SMALL, "-g", "l4", "--context", "16k", "--users", "3", "--json")
    fields = ("--set", "limits.max_total_tokens=16k", "--set", "workload.concurrency=3")
    assert short == run("advise", *SMALL, "-g", "l4", *fields, "--json")
    assert json.loads(short.out)["limits"]["max_total_tokens"] == 16384


def test_set_is_laid_over_context() -> None:
    ran = run("advise", *SMALL, "-g", "l4", "--context", "16k", "--set", "limits.max_total_tokens=8k", "--json")
    assert json.loads(ran.out)["limits"]["max_total_tokens"] == 8192


@pytest.mark.parametrize("command", ["predict", "emit", "compare", "sweep", "launch"])
def test_every_command_that_plans_takes_them(command: str) -> None:
    help_text = run(command, "--help").out
    assert "--context TOKENS" in help_text
    assert "--users N" in help_text


def test_a_context_that_is_no_number() -> None:
    ran = run("advise", *SMALL, "-g", "l4", "--context", "much")
    assert ran.code == Exit.USAGE
    assert "'--context': expected a count such as 4096" in ran.err


def test_the_users_that_were_asked_for_are_named() -> None:
    said = run("advise", *SMALL, "-g", "l4", "--context", "4k", "--users", "3").out
    assert "in the KV cache together; asked for: 3" in " ".join(said.split())


def test_count_has_the_short_form_people_try() -> None:
    assert run("advise", *SMALL, "-g", "l4", "-c", "2").out == run("advise", *SMALL, "-g", "l4", "-n", "2").out


def test_the_hint_for_an_unknown_gpu_works_when_pasted() -> None:
    hint = run("advise", *SMALL, "-g", "mystery").err.rstrip("\n").rpartition("\n")[2].strip()
    option, _, value = hint.partition(" ")
    assert run("advise", *SMALL, option, value.strip("'")).out.startswith("Qwen/Qwen2.5-7B-Instruct on 1 x mine,")


def test_a_gpu_stated_by_hand_goes_behind_the_option_too() -> None:
    block = "{name: mine, memory: 24564MiB, compute_capability: 8.9}"
    by_set = run("advise", *SMALL, "--set", f"hardware.gpu={block}")
    assert run("advise", *SMALL, "-g", block) == by_set
    assert run("advise", L4, "-g", block).out.startswith("meta-llama/Llama-3.1-8B-Instruct on 1 x mine,")


def test_rules_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TGI_ADVISOR_COMPLETE", "bash_complete"), ("COMP_CWORD", "2")):
        monkeypatch.setenv(f"_{name}" if name.startswith("TGI") else name, value)
    monkeypatch.setenv("COMP_WORDS", "tgi-advisor rule tgi20")
    offered = run().out.split()
    assert offered == [f"plain,{code}" for code in RULES if code.startswith("TGI20")]


def test_a_rule_there_is_not() -> None:
    assert "without a code lists them all" in run("rule", "TGI999").err
    assert "did you mean 'TGI202'" in run("rule", "TG1202").err


# Colour


@pytest.mark.parametrize(
    ("said", "coloured"),
    [
        ({}, False), ({"FORCE_COLOR": "1"}, True), ({"CLICOLOR_FORCE": "1"}, True), ({"CLICOLOR_FORCE": "0"}, False),
        ({"FORCE_COLOR": "0"}, False), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True), ({"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, True),
    ],
)  # fmt: skip
def test_colour_in_a_pipe(said: dict[str, str], coloured: bool) -> None:
    env = {name: value for name, value in environment().items() if name != "NO_COLOR"} | said
    assert ("\x1b[" in process("advise", L4, env=env).stdout) is coloured
    assert ("\x1b[" in process("advise", "-m", "x", env=env).stderr) is coloured


@pytest.mark.parametrize(
    ("said", "coloured"),
    [({}, True), ({"CLICOLOR": "0"}, False), ({"CLICOLOR": "1"}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_on_a_terminal(said: dict[str, str], coloured: bool) -> None:
    env = {name: value for name, value in environment().items() if name != "NO_COLOR"} | said
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tgi_advisor", "advise", "-m", "x"]
    subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=theirs, check=False, timeout=60)
    os.close(theirs)
    assert (b"\x1b[31m" in os.read(ours, 4096)) is coloured
    os.close(ours)


# Widths


@pytest.mark.parametrize("columns", ["72", "80", "100"])
def test_no_line_of_a_report_is_wider_than_the_terminal(columns: str) -> None:
    for options in ((L4,), TOO_BIG, (*LLAMA, "-g", "a100-80gb", "-n", "4", "--users", "3")):
        said = process("advise", *options, env=environment(COLUMNS=columns)).stdout.partition("docker run")[0]
        assert max(map(len, said.splitlines())) <= int(columns)


def test_a_pager_has_the_columns_of_its_terminal() -> None:
    ours, theirs = pty.openpty()
    os.set_inheritable(theirs, True)
    subprocess.run(["stty", "cols", "72"], stdin=theirs, check=True)
    env = {name: value for name, value in environment().items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "tgi_advisor", "advise", L4]
    said = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=theirs, encoding="utf-8", check=False)
    lines = said.stdout.partition("docker run")[0].splitlines()
    assert 60 < max(map(len, lines)) <= 72
    os.close(theirs)
    os.close(ours)


# What stands last


def test_where_nothing_fits_the_reason_and_the_steps_are_last() -> None:
    said = run("advise", *TOO_BIG).out
    last = said[said.index("Reason: ") :]
    assert len(last.splitlines()) < 24
    assert "Next steps:" in last
    assert "Memory of one GPU" not in last


def test_the_reserve_that_is_nearly_gone_is_said_to_be_a_rest() -> None:
    said = " ".join(run("advise", "-m", "google/gemma-7b", "-g", "l4").out.split())
    assert "exact what is left of the 10 % of the GPU" in said


def test_flags_of_a_release_are_cited_from_it() -> None:
    for release in all_releases():
        for flag in flags_of(release).values():
            assert f"launcher/src/main.rs@v{release}" in cited(flag, release)


def test_the_legend_of_releases_keeps_its_lines() -> None:
    assert "\n  CHUNKING   whether long prompts are prefilled in pieces\n" in run("releases", "--help").out


# Models that are nearly what was meant


def test_stored_quantizations_of_the_model_are_next_steps() -> None:
    steps = run("advise", *TOO_BIG).out.partition("Next steps:")[2].splitlines()
    named = [line for line in steps if "model.id: " in line]
    assert [line.split()[2] for line in named] == [
        "Qwen/Qwen2.5-14B-Instruct-AWQ", "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int4",
    ]  # fmt: skip
    model, total = named[0].split()[2], named[0].split()[-1]
    assert f"max_total_tokens                {total}" in run("advise", "-m", model, *TOO_BIG[2:]).out


def test_a_heavier_checkpoint_is_no_next_step() -> None:
    assert "model.id: " not in run("advise", "-m", "Qwen/Qwen2.5-72B-Instruct-AWQ", "-g", "t4").out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (
            "llama-3.1-8b-instruct",
            "'llama-3.1-8b-instruct' names no organisation. Did you mean 'meta-llama/Llama-3.1-8B-I",
        ),
        ("Llama-3.1-8B", "did you mean 'meta-llama/Llama-3.1-8B-Instruct'?"),
        ("Qwen2.5-7B-Instuct", "did you mean 'Qwen/Qwen2.5-7B-Instruct"),
        ("mistralai/Mistral-7B", "did you mean 'mistralai/Mistral-7B-v0.1'"),
    ],
)
def test_a_model_without_its_organisation(typed: str, meant: str) -> None:
    ran = run("advise", "-m", typed, "-g", "l4")
    assert ran.code == Exit.FACTS
    assert meant in " ".join(ran.err.split())


# What an imported manifest loses


def test_what_a_spec_cannot_say_of_a_pod_stands_in_comments(tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        """\
apiVersion: v1
kind: Pod
metadata: {name: tgi, namespace: llm, labels: {app: tgi, team: a}}
spec:
  nodeSelector: {pool: gpu}
  tolerations: [{operator: Exists}]
  serviceAccountName: runner
  containers:
    - name: tgi
      image: ghcr.io/huggingface/text-generation-inference:2.4.0
      args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
      env: [{name: HF_TOKEN, valueFrom: {secretKeyRef: {name: mine, key: tok}}}]
      resources: {limits: {nvidia.com/gpu: 1}}
"""
    )
    comments = [line[4:] for line in run("import", str(manifest)).out.splitlines() if line.startswith("# - ")]
    assert comments == [
        "Secret mine, where the token lies; emitted manifests read one of their own name",
        "namespace llm", "label team: a", "nodeSelector pool: gpu", "tolerations", "serviceAccountName runner",
    ]  # fmt: skip
    spec = tmp_path / "spec.yaml"
    spec.write_text("model: {id: Qwen/Qwen2.5-7B-Instruct}\nhardware: {gpu: nvidia-l4}\n")
    manifest.write_text(run("emit", str(spec), "--format", "kubernetes").out)
    assert "Not carried over" not in run("import", str(manifest)).out


def test_init_writes_the_schema_its_spec_names(tmp_path: Path) -> None:
    file = tmp_path / "llama.yaml"
    ran = run("init", *SMALL, "-g", "l4", "--output", str(file), "--schema")
    assert ran.code == Exit.STARTS
    (named,) = (line.partition("$schema=")[2] for line in file.read_text().splitlines() if "$schema=" in line)
    assert (tmp_path / named).read_text("utf-8") == run("schema").out


def test_a_mapping_has_no_lines() -> None:
    with pytest.raises(SpecError) as told:
        tgi_advisor.advise({"model": {"id": "a/b", "idd": 1}, "hardware": {"gpu": "l4"}})
    assert str(told.value).splitlines()[1] == "mapping: unknown key 'idd' under model"
    assert "did you mean 'id'?" in repr(told.value)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("models", "llma"), "No model matches 'llma'. Did you mean 'llama'"),
        (("gpus", "rtx-4091"), "Did you mean 'rtx4090'"),
        (("flags", "max-inputt"), "Did you mean 'max-input-"),
        (("releases", "99"), "No release matches '99'. Without words, all are listed."),
    ],
)
def test_tables_that_are_empty_say_what_is_near(words: tuple[str, ...], meant: str) -> None:
    assert meant in run(*words).err


def test_leaving_the_limits_open_is_a_next_step() -> None:
    pinned = [f"limits.{name}=32000" for name in ("max_input_tokens", "max_batch_prefill_tokens")]
    sets = [word for text in (*pinned, "limits.max_total_tokens=33000") for word in ("--set", text)]
    said = run("advise", *LLAMA, "-g", "l4", "-r", "2.4.0", *sets).out
    total = said.partition("limits: {} (all three left open) gives max_total_tokens ")[2].splitlines()[0]
    assert f"max_total_tokens                {total}" in run("advise", *LLAMA, "-g", "l4", "-r", "2.4.0").out


@pytest.mark.parametrize("options", [(L4,), TOO_BIG])
def test_a_brief_report_is_the_report_without_two_blocks(options: tuple[str, ...]) -> None:
    whole, brief = (run("advise", *options, *more).out.split("\n\n") for more in ((), ("--brief",)))
    left_out = [block for block in whole if block not in brief]
    assert [block for block in brief if block not in whole] == []
    assert [block.split()[0] for block in left_out] == ["Memory", "Model"]


def test_steps_of_a_finding_are_joined_once(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_text(
        "docker run --gpus all --shm-size 1g -v tgi:/data -p 8080:80 "
        "ghcr.io/huggingface/text-generation-inference:1.4.0 --model-id tiiuae/falcon-7b --num-shard 2\n"
    )
    said = run("validate", str(file), "--gpu", "nvidia-v100-32gb", "--count", "2").out
    assert "use a GPU of compute capability 8.0 or newer; or one GPU: the model" in said


def test_a_gpu_stated_by_hand_is_what_is_asked_about() -> None:
    block = "{name: mine, memory: 24564MiB, compute_capability: 8.9}"
    assert run("fits", "-g", block).out.startswith("1 x mine,")
    assert "1 x mine" in run("fits", *SMALL, "-g", block).out
    rows = json.loads(run("compare", *SMALL, "--set", f"hardware.gpu={block}", "-c", "1,2", "--json").out)["comparison"]
    assert {row["gpu"] for row in rows} == {"mine"}
    assert {row["count"] for row in rows} == {1, 2}


def test_every_line_of_a_hint_below_a_problem_is_indented() -> None:
    lines = run("compare", *SMALL, "-g", "mystery,mysterious").err.splitlines()
    assert all(line.startswith("      ") for line in lines if "--set" in line or "stated by hand" in line)
    assert sum("--set 'hardware.gpu=" in line for line in lines) == 2
