"""The front door: what every command prints, and what each ends with."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import click
import jsonschema
import pytest
from front import CONFIGS, L4, LLAMA, ROOT, environment, heeding_ctrl_c, process, run
from golden import Golden
from hub import Hub

from tgi_advisor import plan as plans
from tgi_advisor.cli import options
from tgi_advisor.cli.main import cli
from tgi_advisor.cli.output import width
from tgi_advisor.errors import Exit
from tgi_advisor.gather import host
from tgi_advisor.gather import model as models
from tgi_advisor.render import FORMATS, PLATFORMS
from tgi_advisor.report_schema import plan_schema

VALIDATOR = jsonschema.Draft202012Validator(plan_schema())
LIMITS = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
SUFFIX = {
    "systemd": "service",
    "docker-run": "sh",
    "compose": "yaml",
    "kubernetes": "yaml",
    "args": "txt",
    "env": "env",
    "json": "json",
}
BIG = ("--model", "meta-llama/Llama-3.1-70B-Instruct", "--gpu", "nvidia-l4")
names = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU of this machine, no network, nothing kept from earlier runs, no token, no colour."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TERM", "TGI_ADVISOR_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_HOME", "hf"), ("XDG_CACHE_HOME", "cache"), ("HOME", "home")):
        monkeypatch.setenv(name, value if value == "1" else str(tmp_path / value))
    monkeypatch.setattr(host, "_TOOLS", ())


def read(text: str) -> Any:
    """The one JSON object in `text`, as the contract says it must be."""
    document = json.loads(text)
    VALIDATOR.validate(document)
    return document


def pinned(document: Any) -> list[str]:
    """The limits of a plan as options."""
    return [word for name in LIMITS for word in ("--set", f"limits.{name}={document['limits'][name]}")]


# -- the shipped configs


@names
def test_a_config_in_every_shape(config: Path, golden: Golden) -> None:
    for command in ("advise", "predict"):
        page = run(command, str(config))
        assert (page.code, page.err) == (Exit.STARTS, "")
        golden(f"configs/{config.stem}/{command}.txt", page.out)
        machine = run(command, str(config), "--json")
        assert (machine.code, read(machine.out)["outcome"], machine.err) == (Exit.STARTS, "starts", "")
        golden(f"configs/{config.stem}/{command}.json", machine.out)
    for name in (name for name in FORMATS if name not in (*PLATFORMS, "helm")):
        emitted = run("emit", str(config), "--format", name)
        assert emitted.code == Exit.STARTS
        alone = name == "args" and "\n  env:" in config.read_text("utf-8")  # arguments need an environment beside them
        assert emitted.err.startswith("The arguments alone are not this server") if alone else emitted.err == ""
        golden(f"configs/{config.stem}/{name}.{SUFFIX[name]}", emitted.out)


@names
def test_what_advise_finds_predict_confirms(config: Path) -> None:
    found = read(run("advise", str(config), "--json").out)
    seen = read(run("predict", str(config), "--json", *pinned(found)).out)
    assert (seen["outcome"], seen["limits"]) == ("starts", found["limits"])
    assert seen["concurrency"] == found["concurrency"]
    assert seen["container"] == found["container"]


@names
def test_what_is_emitted_is_what_was_found(config: Path) -> None:
    found = read(run("advise", str(config), "--json").out)
    given = shlex.split(run("emit", str(config), "--format", "args").out)
    for name in LIMITS:
        flag = f"--{name.replace('_', '-')}"
        assert given[given.index(flag) + 1] == str(found["limits"][name])
    assert "--max-batch-total-tokens" not in given
    as_given = run("emit", str(config), "--format", "args", "--as-given", *pinned(found))
    assert shlex.split(as_given.out) == given


def test_parts_add_up_to_the_gpu_and_the_headroom_is_real() -> None:
    found = read(run("advise", L4, "--json").out)
    memory = found["memory"]
    assert sum(part["bytes"] for part in memory["parts"]) == memory["gpu_total_bytes"]
    total = found["limits"]["max_total_tokens"]
    more = run("advise", L4, "--json", "--set", f"limits.max_total_tokens={total + 1}")
    assert (more.code, read(more.out)["container"]) == (Exit.OUT_OF_MEMORY, None)


# -- what does not start


STOPS = {
    "launcher": ("predict", *LLAMA, "--gpu", "nvidia-l4", "--set", "tgi.flags.foo=1"),
    "load-refused": ("predict", *LLAMA, "--gpu", "nvidia-l4", "--count", "3", "--set", "tgi.num_shard=3"),
    "load": ("predict", *BIG),
    "warmup": ("predict", *LLAMA, "--gpu", "nvidia-a10g", "--set", "limits.max_total_tokens=8k",
               "--set", "limits.max_input_tokens=4k", "--set", "limits.max_batch_prefill_tokens=100k"),
    "router": ("predict", *LLAMA, "--gpu", "nvidia-l4", "--set", "limits.max_input_tokens=40000",
               "--set", "limits.max_total_tokens=40001", "--set", "limits.max_batch_prefill_tokens=1000"),
    "nothing-fits": ("advise", *BIG),
    "not-so-many-at-once": ("advise", *LLAMA, "--gpu", "nvidia-l4", "--set", "workload.concurrency=100"),
    "refused": ("advise", *LLAMA, "--gpu", "nvidia-l4", "--set", "model.quantize=awq"),
    "notebook": ("predict", *LLAMA, "--gpu", "nvidia-a10g", "--method", "notebook",
                 "--set", "limits.max_input_tokens=8750", "--set", "limits.max_total_tokens=8782",
                 "--set", "limits.max_batch_prefill_tokens=8782"),
    "notebook-tgi": ("predict", *LLAMA, "--gpu", "nvidia-a10g", "--method", "notebook-tgi",
                     "--set", "limits.max_input_tokens=8750", "--set", "limits.max_total_tokens=8782",
                     "--set", "limits.max_batch_prefill_tokens=8782"),
}  # fmt: skip

OUTSIDE = ("driver reserve", "context and libraries")


@pytest.mark.parametrize(("stop", "said", "left_out"), [
    ("load", "reserved_after_load_bytes", "reserved_at_peak_bytes"), ("warmup", "reserved_at_peak_bytes", None),
])  # fmt: skip
def test_where_memory_runs_out_the_parts_add_up_to_what_pytorch_reserves(
    stop: str, said: str, left_out: str | None
) -> None:
    memory = read(run(*STOPS[stop], "--json").out)["memory"]
    inside = sum(part["bytes"] for part in memory["parts"] if part["name"] not in OUTSIDE)
    assert memory["pytorch"][said] == inside
    assert left_out is None or memory["pytorch"][left_out] is None


@pytest.mark.parametrize("name", STOPS)
def test_a_verdict_that_is_no(name: str, golden: Golden) -> None:
    page, machine = run(*STOPS[name]), run(*STOPS[name], "--json")
    document = read(machine.out)
    assert document["reason"]
    assert document["next_steps"]
    wanted = {"refused": Exit.REFUSED, "out_of_memory": Exit.OUT_OF_MEMORY}[document["outcome"]]
    assert (page.code, machine.code, page.err, machine.err) == (wanted, wanted, "", "")
    golden(f"cli/no/{name}.txt", f"$ tgi-advisor {shlex.join(STOPS[name])}\n{page.out}")


def test_every_stage_is_told() -> None:
    stages = {read(run(*STOPS[name], "--json").out)["stage"] for name in ("launcher", "load", "warmup", "router")}
    assert stages == {"launcher", "load", "warmup", "router"}


@pytest.mark.parametrize(("name", "many"), [("nothing-fits", 2), ("not-so-many-at-once", 6)])
def test_the_next_steps_are_true_when_followed(name: str, many: int) -> None:
    steps = read(run(*STOPS[name], "--json").out)["next_steps"]
    followed = 0
    for step in steps:
        if match := re.fullmatch(r"([a-z_.]+): (\S+) gives max_total_tokens ([0-9,]+)(?:, ([0-9]+) at once)?", step):
            path, value, total, together = match.groups()
            seen = run(*STOPS[name], "--json", "--set", f"{path}={value}")
            assert (seen.code, read(seen.out)["limits"]["max_total_tokens"]) == (0, int(total.replace(",", ""))), step
            assert (read(seen.out)["concurrency"] or 1) >= int(together or 1)
            followed += 1
    assert followed == many


@pytest.mark.parametrize("name", ["warmup", "router"])
def test_the_limits_said_to_start_do_start(name: str) -> None:
    (step,) = read(run(*STOPS[name], "--json").out)["next_steps"]
    limits, told, _ = step.partition(" would start")
    assert told
    sets = [word for limit in limits.split(", ") for word in ("--set", "limits." + limit.replace(" ", "=", 1))]
    assert run(*STOPS[name], *[word.replace(",", "") for word in sets]).code == 0


def test_a_set_can_name_the_gpu() -> None:
    for gpu in ("nvidia-l4", "{name: my-card, memory: 24GB, compute_capability: 8.9}"):
        assert run("advise", *LLAMA, "--set", f"hardware.gpu={gpu}").code == 0


def test_nothing_is_emitted_when_nothing_starts() -> None:
    for name in FORMATS:
        ran = run("emit", *BIG, "--format", name)
        assert (ran.code, ran.out) == (Exit.OUT_OF_MEMORY, "")
        assert "It does not fit: out of memory while loading the model." in ran.err


def test_a_verdict_is_not_hidden_by_a_container_that_cannot_be_written() -> None:
    unwritable = ("--set", "tgi.flags.hostname='a b'", "--set", "tgi.flags.foo=1")
    seen = run("predict", *LLAMA, "--gpu", "nvidia-l4", *unwritable, "--json")
    assert (seen.code, read(seen.out)["container"]) == (Exit.REFUSED, None)


def test_idle_gpus_are_told_in_words() -> None:
    assert "\nIt fits, on 2 of the 3 GPUs.\n" in run("advise", *LLAMA, "--gpu", "nvidia-l4", "--count", "3").out


# -- what is asked wrongly

FILES = {
    "llama.yaml": "model:\n  id: meta-llama/Llama-3.1-8B-Instruct\nhardware:\n  gpu: nvidia-l4\n",
    "wrong.yaml": "model:\n  id: a/b\n  dtyp: float16\nhardware:\n  gpu: nvidia-l4\n  count: two\n",
    "image.yaml": "model: {id: a/b}\nhardware: {gpu: nvidia-l4}\ntgi: {image: 'reg.local/tgi:3.3.7'}\n",
}
WRONG: dict[str, tuple[Exit, tuple[str, ...]]] = {
    "nothing": (Exit.USAGE, ("advise",)),
    "model without gpu": (Exit.USAGE, ("predict", "-m", "a/b")),
    "gpu without model": (Exit.USAGE, ("predict", "-g", "nvidia-l4")),
    "command misspelt": (Exit.USAGE, ("advize",)),
    "option misspelt": (Exit.USAGE, ("advise", "--modle", "a/b")),
    "two files": (Exit.USAGE, ("predict", "llama.yaml", "wrong.yaml")),
    "source": (Exit.USAGE, ("advise", "llama.yaml", "--source", "web")),
    "format": (Exit.USAGE, ("emit", "llama.yaml", "--format", "nomad")),
    "count in words": (Exit.USAGE, ("advise", "llama.yaml", "--count", "two")),
    "no GPUs": (Exit.USAGE, ("advise", "llama.yaml", "--count", "0")),
    "missing file": (Exit.SPEC, ("advise", "lama.yaml")),
    "directory": (Exit.SPEC, ("advise", "folder")),
    "empty file": (Exit.SPEC, ("advise", "empty.yaml")),
    "empty standard input": (Exit.SPEC, ("advise", "-")),
    "binary file": (Exit.SPEC, ("advise", "binary.yaml")),
    "several problems": (Exit.SPEC, ("advise", "wrong.yaml")),
    "unknown field set": (Exit.SPEC, ("advise", "llama.yaml", "--set", "limits.max_totl_tokens=4k")),
    "set without value": (Exit.SPEC, ("advise", "llama.yaml", "--set", "limits.max_total_tokens")),
    "release beside another image": (Exit.SPEC, ("advise", "image.yaml", "--set", "tgi.release=2.4.1")),
    "instance too small": (Exit.SPEC, ("advise", *LLAMA, "-g", "g6.xlarge", "-n", "2")),
    "notebook with open limits": (Exit.SPEC, ("predict", "llama.yaml", "--method", "notebook")),
    "fewer devices than GPUs": (Exit.SPEC, ("advise", "llama.yaml", "--set", "container.gpus=[0]", "-n", "2")),
    "gpu": (Exit.FACTS, ("advise", "llama.yaml", "-g", "nvidia-l44")),
    "no GPU here": (Exit.FACTS, ("advise", "llama.yaml", "-g", "auto")),
    "release": (Exit.FACTS, ("advise", "llama.yaml", "-r", "3.3.77")),
    "model": (Exit.FACTS, ("advise", "llama.yaml", "-m", "meta-llama/Llama-3.1-8B-Instuct")),
    "hub offline": (Exit.FACTS, ("advise", "llama.yaml", "--source", "hub", "--offline")),
    "init without model": (Exit.USAGE, ("init",)),
    "init without GPU": (Exit.USAGE, ("init", "-m", "a/b")),
    "init over a file": (Exit.USAGE, ("init", "-m", "a/b", "-g", "nvidia-l4", "-o", "llama.yaml")),
    "init nowhere": (Exit.USAGE, ("init", "-m", "a/b", "-g", "nvidia-l4", "-o", "nowhere/x.yaml")),
    "init of a small instance": (Exit.SPEC, ("init", "-m", "a/b", "-g", "g6.xlarge", "-n", "2")),
    "init with odd memory": (Exit.SPEC, ("init", "-m", "a/b", "-g", "intel-cpu", "--memory", "lots")),
    "flags of no release": (Exit.FACTS, ("flags", "-r", "9")),
    "schema of nothing": (Exit.USAGE, ("schema", "plans")),
    "shell": (Exit.USAGE, ("completion", "tcsh")),
}


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with good and bad specs."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "binary.yaml").write_bytes(b"\x7fELF\x02\x01\x01\x00\xff\xfe")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folder")
def test_what_is_asked_wrongly(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "hf")
    told = []
    for name, (code, args) in WRONG.items():
        ran = run(*args)
        assert (name, ran.code, ran.out) == (name, code, "")
        told.append(f"# {name}\n$ tgi-advisor {shlex.join(args)}\n{ran.err}exit code {ran.code}\n")
    golden("cli/wrong.txt", "\n".join(told))


@pytest.mark.usefixtures("_folder")
def test_with_json_every_error_is_one_object() -> None:
    for name, (code, args) in WRONG.items():
        if args[0] in ("advise", "predict"):
            ran = run(*args, "--json")
            error = read(ran.out)["error"]
            assert (name, ran.code, error["exit_code"], error["kind"]) == (name, code, code, code.name.lower())
            assert " ".join(error["message"].split()) in " ".join(ran.err.split())


@pytest.mark.usefixtures("_folder")
def test_a_defect_is_told_and_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tgi_advisor.gather.facts.hardware", broken)
    ran = run("advise", "llama.yaml", "--json")
    assert (ran.code, read(ran.out)["error"]["kind"]) == (Exit.BUG, "bug")
    assert "a defect of tgi-advisor: RuntimeError: a bug" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("fault", [401, 403, 404, 429, 500, "reset", "truncate", "garbage"])
def test_whatever_the_hub_answers_is_told(fault: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts
    with Hub() as hub:
        hub.add("org/new", {"model_type": "llama"}, {"a": ("BF16", (2, 2))})
        hub.fault(".*", **({"kind": fault} if isinstance(fault, str) else {"status": fault}))
        for name, value in (("HF_ENDPOINT", hub.endpoint), ("HF_HUB_OFFLINE", "0"), ("NO_PROXY", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        ran = run("advise", "-m", "org/new", "-g", "nvidia-l4", "--json")
    assert (ran.code, read(ran.out)["error"]["kind"]) == (Exit.FACTS, "facts")
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err


# -- the same deployment said in several ways


@pytest.mark.usefixtures("_folder")
def test_a_file_standard_input_and_options_say_the_same(tmp_path: Path) -> None:
    wanted = run("advise", "llama.yaml")
    assert wanted.code == 0
    assert run("advise", "-", stdin=FILES["llama.yaml"]) == wanted
    assert run("advise", *LLAMA, "--gpu", "nvidia-l4") == wanted
    assert run("advise", "-m", "a/b", "-g", "t4", "--set", f"model.id={LLAMA[1]}", "--set", "hardware.gpu=l4") == wanted
    assert run("init", *LLAMA, "-g", "nvidia-l4", "-o", "new.yaml").code == 0
    assert run("advise", "new.yaml") == wanted
    assert run("advise", "llama.yaml", "--count", "1", "--release", "3.3.7") == wanted


def test_an_option_moves_the_image_to_another_release() -> None:
    assert read(run("advise", L4, "--release", "2.4.1", "--json").out)["container"]["image"].endswith(":2.4.1")
    rocm = str(ROOT / "configs" / "llama-3.1-70b-mi300x.yaml")
    assert read(run("advise", rocm, "-r", "3.3.5", "--json").out)["container"]["image"].endswith(":3.3.5-rocm")


def test_init_writes_what_the_machine_needs(golden: Golden) -> None:
    golden("cli/init.yaml", run("init", *LLAMA, "--gpu", "g6.12xlarge").out)
    for args, line in (
        (("mi300x",), "image: ghcr.io/huggingface/text-generation-inference:3.3.7-rocm #"),
        (("intel-cpu", "--memory", "64GiB"), "gpu: {name: intel-cpu, memory: 64GiB} #"),
        (("nvidia-l4", "--release", "2.4.1"), "release: 2.4.1 #"),
    ):
        text = run("init", "-m", "Qwen/Qwen2.5-3B-Instruct", "-g", *args).out
        assert line in text
        assert run("advise", "-", stdin=text).code == 0


# -- tables, help, schema, completion

TABLES = (
    ("gpus", "a10g"), ("gpus", "Tesla", "T4"), ("gpus", "g6.12xlarge"), ("releases", "3.3"), ("models", "llama-3.1"),
    ("flags", "quant"), ("flags", "--release", "2.4.1", "prefill"), ("models", "nothing-like-it"),
)  # fmt: skip


@pytest.mark.parametrize("args", TABLES, ids="-".join)
def test_a_table(args: tuple[str, ...], golden: Golden) -> None:
    ran = run(*args)
    assert ran.code == 0
    golden(f"cli/tables/{'-'.join(arg.lstrip('-') for arg in args)}.txt", ran.out + ran.err)
    rows = json.loads(run(*args, "--json").out)
    assert (len(rows) == 0) == (ran.out == "")


def test_every_row_has_its_source() -> None:
    for table, source, least in (("gpus", "sources", 40), ("releases", "sources", 40), ("models", "source", 60),
                                 ("flags", "source", 60)):  # fmt: skip
        rows = json.loads(run(table, "--json").out)
        assert len(rows) >= least
        assert [row for row in rows if not row[source]] == []


def test_help(golden: Golden) -> None:
    texts = [run("--help").out, *(run(name, "--help").out for name in cli.list_commands(click.Context(cli)))]
    golden("cli/help.txt", "\n".join(texts))
    assert "..." not in re.sub(r"\[[A-Z]+\]\.\.\.", "", texts[0].replace("[ARGS]...", ""))


def test_help_tells_every_exit_code() -> None:
    told = re.sub(r"\n {8,}(?=\S)", " ", run("--help").out.partition("Exit codes:")[2])
    assert dict(re.findall(r"^ +(\d+)  (.+)$", told, re.MULTILINE)) == {str(code.value): code.meaning for code in Exit}


def test_the_choices_are_those_of_the_layers_below() -> None:
    assert get_args(models.Source) == options.SOURCES
    assert get_args(plans.Method) == options.METHODS


def test_version() -> None:
    from tgi_advisor import __version__

    assert run("--version") == (0, f"tgi-advisor, version {__version__}\n", "")


def test_schemas() -> None:
    for args in (("schema",), ("schema", "spec"), ("schema", "plan")):
        jsonschema.Draft202012Validator.check_schema(json.loads(run(*args).out))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one(shell: str) -> None:
    script = run("completion", shell)
    assert (script.code, script.err) == (0, "")
    assert "_TGI_ADVISOR_COMPLETE=" in script.out
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script.out, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("ad",), {"advise"}),
        (("advise", "--gpu", "nvidia-l40"), {"nvidia-l40", "nvidia-l40s"}),
        (("init", "--gpu", "g6.12"), {"g6.12xlarge"}),
        (("advise", "--model", "meta-llama/llama-3.1-8b"), {"meta-llama/Llama-3.1-8B-Instruct"}),
        (("flags", "--release", "2.4"), {"2.4.0", "2.4.1"}),
        (("predict", "--set", "limits.max_t"), {"limits.max_total_tokens="}),
        (("advise", "--method", "notebook-"), {"notebook-tgi"}),
        (("compare", "--quantize", "eet"), {"eetq"}),
        (("sweep", "--vary", "limits.max_t"), {"limits.max_total_tokens="}),
        (("size", "--release", "2.4"), {"2.4.0", "2.4.1"}),
    ],
)
def test_completion(words: tuple[str, ...], wanted: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TGI_ADVISOR_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", shlex.join(("tgi-advisor", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert {line.split(",")[1] for line in run().out.splitlines()} == wanted


def test_the_last_of_several_values_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TGI_ADVISOR_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "tgi-advisor compare --gpu l4,g6.12")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert run().out == "plain,l4,g6.12xlarge\n"


# -- terminals, pipes, signals


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_any_encoding_will_do(encoding: str) -> None:
    seen_as = "utf-8" if encoding == "ascii" else encoding
    ran = process("advise", L4, env=environment(PYTHONIOENCODING=encoding, LC_ALL="C"), encoding=seen_as)
    assert (ran.returncode, ran.stderr) == (0, "")
    text = ran.stdout
    weights = next(line for line in text.splitlines() if "weights" in line)
    assert ("#####" in weights, "█████" in weights) == (
        (False, True) if encoding in ("ascii", "utf-8") else (True, False)
    )


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_a_page_keeps_to_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from tgi_advisor import api, report

    for spec in (L4, str(ROOT / "configs" / "llama-3.1-70b-mi300x.yaml")):
        page = report.page(api.advise(spec), None, width=columns)
        assert max(map(len, page.splitlines())) <= max(columns, 97)
        assert "\x1b" not in page


def test_a_reader_that_goes_away_and_a_full_disk() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for args in (("advise", L4), ("--help",), ("models",)):
        ran = process(*args, stdout=writer)
        assert (ran.returncode, ran.stderr.replace("\n143 models. --json has more, sources included.\n", "")) == (0, "")
    os.close(writer)
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            ran = process("advise", L4, stdout=full)
            wrong = process("advise", "nowhere.yaml", "--json", stdout=full)
            silent = process("advise", "nowhere.yaml", stderr=full)
        wanted = "Error: the output cannot be written: No space left on device\n"
        assert (ran.returncode, ran.stderr) == (Exit.USAGE, wanted)
        assert (wrong.returncode, "nowhere.yaml does not exist" in wrong.stderr) == (Exit.SPEC, True)
        assert silent.returncode == Exit.SPEC


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f"cd {gone}; rmdir {gone}; echo 'docker run x' | {shlex.quote(sys.executable)} -m tgi_advisor validate -"
    env = environment(PYTHONPATH=str(ROOT))
    ran = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, check=False)
    wanted = "Error: the folder this was called in no longer exists\n  Change to another one.\n"
    assert (ran.returncode, ran.stderr) == (Exit.USAGE, wanted)


def test_what_is_mistyped_moves_no_cursor() -> None:
    for args in (("advise", "--no\x1b[2Jsuch\u202e"), ("ad\x9bvise",), ("advise", L4, "--method", "\x1b]0;x\x07")):
        ran = run(*args)
        assert ran.code == Exit.USAGE
        assert ran.err.replace("\n", "").isprintable()


def test_columns_of_5000_digits_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "9" * 5000)
    assert 60 <= width() <= 140


@pytest.mark.parametrize(
    "args", ["upgrade -", "import -", "migrate - --to vllm", "validate -", "advise - --patch", "predict -"]
)
def test_standard_input_that_is_closed_is_said(args: str) -> None:
    line = f"exec {shlex.quote(sys.executable)} -m tgi_advisor {args} 0<&-"
    ran = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert "standard input is closed" in ran.stderr


def test_exit_codes_fit_a_narrow_terminal() -> None:
    command = [sys.executable, "-m", "tgi_advisor", "--help"]
    ran = subprocess.run(command, env=environment(COLUMNS="80"), capture_output=True, text=True, check=True)
    told = ran.stdout[ran.stdout.index("Exit codes:") :].splitlines()
    assert max(map(len, told)) <= 80
    for code in Exit:
        assert any(line.split()[:1] == [str(int(code))] for line in told)


@pytest.mark.parametrize(("closed", "args", "code"), [("0<&-", "-", 2), (">&-", L4, 0), ("2>&-", L4, 0)])
def test_closed_streams(closed: str, args: str, code: int) -> None:
    line = f"exec {shlex.quote(sys.executable)} -m tgi_advisor advise {shlex.quote(args)} {closed}"
    ran = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == code
    assert "defect" not in ran.stdout + ran.stderr


def test_ctrl_c_while_the_hub_is_slow(tmp_path: Path) -> None:
    with Hub(latency=20) as hub:
        hub.add("org/slow", {"model_type": "llama"}, {"a": ("BF16", (2, 2))})
        env = environment(HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0", NO_PROXY="127.0.0.1")
        command = [sys.executable, "-m", "tgi_advisor", "advise", "-m", "org/slow", "-g", "l4"]
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding_ctrl_c
        ) as process:  # fmt: skip
            while not hub.requests and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (Exit.INTERRUPTED, "", "\n")


def test_the_line_of_progress_is_erased(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with Hub(latency=0.7) as hub:
        hub.add("org/slow", {"model_type": "llama"}, {"a": ("BF16", (2, 2))})
        env = environment(HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0", NO_PROXY="127.0.0.1")
        process("advise", "-m", "org/slow", "-g", "l4", env=env, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            shown += chunk
    except OSError:  # what Linux answers when the other end is closed
        pass
    os.close(ours)
    lines = shown.decode().split("\r\x1b[2K")
    assert any("org/slow" in line for line in lines[1:-1])
    assert lines[-1] == ""


# -- secrets

SECRET = "hf_SECRETMARKERsecretmarker"


@pytest.mark.usefixtures("_folder")
def test_a_token_is_printed_by_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    commands = [args for _, args in WRONG.values()] + [*STOPS.values(), *TABLES]
    commands += [("emit", L4, "--format", name) for name in FORMATS]
    commands += [(name, L4, *more) for name in ("advise", "predict") for more in ((), ("--json",))]
    commands += [("init", *LLAMA, "-g", "l4"), ("schema",), ("completion", "bash"), ("--help",)]
    commands += [("advise", "llama.yaml", "--set", f"tgi.env.HF_TOKEN={SECRET}")]
    commands += [("advise", "llama.yaml", "--json", "--set", f"tgi.flags.api-key={SECRET}")]
    for args in commands:
        ran = run(*args)
        assert "SECRETMARKER" not in ran.out + ran.err, args


# -- the start is quick


HEAVY = ("docker", "huggingface_hub", "transformers", "numpy", "torch", "jsonschema")
NETWORK = ("urllib.request", "http.client", "ssl", "socket", "concurrent.futures")


@pytest.mark.parametrize(
    ("args", "without"),
    [
        (["--help"], (*HEAVY, *NETWORK, "yaml", "tgi_advisor.api", "tgi_advisor.plan")),
        (["--version"], (*HEAVY, *NETWORK, "yaml", "tgi_advisor.api")),
        (["advise", L4], (*HEAVY, *NETWORK, "tgi_advisor.notebook", "difflib")),
    ],
)
def test_what_is_not_imported(args: list[str], without: tuple[str, ...]) -> None:
    code = (
        "import sys\ntry:\n    from tgi_advisor.__main__ import main\n    main()\n"
        "finally:\n    print('\\nMODULES', *sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *args], env=environment(), capture_output=True, text=True, check=True
    )
    loaded = ran.stdout.rpartition("MODULES ")[2].split()
    assert "click" in loaded
    assert [name for name in without if name in loaded] == []


# -- the documents


def test_the_json_document_is_current(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = run("advise", "configs/llama-3.1-8b-l4.yaml", "--json").out
    spec = "model:\n  id: meta-llama/Llama-3.1-8B-Instruct\nhardware:\n  gpu: nvidia-l4\n  cuont: 2\n"
    error = run("advise", "-", "--json", stdin=spec).out
    read(example)
    read(error)
    codes = "".join(f"| {code.value} | {code.meaning} |\n" for code in Exit)
    blocks = {
        "example": f"```json\n{example}```\n",
        "error": f"```json\n{error}```\n",
        "exit codes": f"| code | meaning |\n| ---: | --- |\n{codes}",
    }
    text = (ROOT / "docs" / "json.md").read_text("utf-8")
    for name, block in blocks.items():
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition("<!-- end -->")
        text = f"{before}{opening}{block}{closing}{after}"
    Golden(golden.update, ROOT / "docs")("json.md", text)


def test_the_schema_document_is_current(golden: Golden) -> None:
    Golden(golden.update, ROOT / "docs")("plan.schema.json", run("schema", "plan").out)


def test_the_document_names_every_name_of_the_contract() -> None:
    text = (ROOT / "docs" / "json.md").read_text("utf-8").partition("## Example")[0]
    plan = plan_schema()["oneOf"][0]["properties"]
    assert [name for name in plan if f"`{name}`" not in text] == []


def test_everything_wrong_with_a_spec_is_told_at_once(golden: Golden, tmp_path: Path) -> None:
    """Unknown names beside a wrong key end with 3; alone with 4; a flag alone is TGI's to refuse."""
    keys = "model:\n  id: meta-llama/Llama-3.1-8B-Instrct\nhardware:\n  gpu: nvidia-l5\n  cuont: 2\n"
    rest = "tgi:\n  release: 3.3.9\n  flags:\n    max-batch-sizze: 4\n"
    right = "model: {id: meta-llama/Llama-3.1-8B-Instruct}\nhardware: {gpu: nvidia-l4}\n"
    told = []
    for text, code in (
        (keys + rest, 3),
        (keys.replace("  cuont: 2\n", "") + rest, 4),
        (f"{right}---\n{keys}", 3),
        (f"{right}tgi: {{flags: {{max-batch-sizze: 4}}, release: 3.3.9}}\n", 4),
        (f"{right}tgi: {{flags: {{max-batch-sizze: 4}}}}\n", 6),
        (f"{right}tgi: {{image: 'ghcr.io/huggingface/text-generation-inference:9.9'}}\nlimits: {{max: 1}}\n", 3),
    ):
        ran = run("advise", "-", stdin=text)
        assert ran.code == code, ran.err
        told.append(ran.err or ran.out)
    golden("cli/unknown-names.txt", "\n".join(told))


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("validat", "Did you mean 'validate'?"),
        ("calibrat", "Did you mean 'calibrate'?"),
        ("advise --modle x", "Did you mean '--model'?"),
        ("emit --json", "Did you mean '--format json'?"),
        ("fits --jsno", "Did you mean '--json'?"),
    ],
)
def test_what_is_misspelt_has_one_meaning(line: str, meant: str) -> None:
    ran = run(*line.split())
    assert ran.code == 2
    assert ran.err.rstrip().endswith(meant)


@pytest.mark.parametrize("line", ["emit --format compsoe", "advise --context lots", "flags max-inputt", "models llma"])
def test_a_refusal_is_as_narrow_as_the_terminal(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = process(*line.split(), env=environment(COLUMNS="80")).stderr
    assert said
    assert max(map(len, said.splitlines())) <= 80
