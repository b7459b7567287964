"""What a maintainer of a folder of servers is told: every remark once, and sums where they are asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from front import run
from golden import Golden

import tgi_advisor
from tgi_advisor.errors import Exit

OWN = "ghcr.io/huggingface/text-generation-inference"
RUN = "docker run {gpus} --shm-size 1g -p 8080:80 -v data:/data {image} --model-id {model} {args}\n"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(image: str = f"{OWN}:3.3.7", model: str = "Qwen/Qwen2.5-7B-Instruct", args: str = "", gpus: str = "") -> str:
    return RUN.format(gpus=gpus or "--gpus 1", image=image, model=model, args=args)


def found(*options: str) -> list[tuple[str, str, str]]:
    """File, code and severity of what is said of this folder."""
    ran = run("validate", ".", "-f", "json", *options)
    return [(one["file"], one["code"], one["severity"]) for one in json.loads(ran.out)["findings"]]


def folder(here: Path, *texts: str) -> None:
    for number, text in enumerate(texts):
        (here / f"{number}.sh").write_text(text)


# -- once a run


ONCE = {
    "no GPU": ([line(), line() + line(), line(model="org/private"), line(model="$MODEL")], (), ["TGI505"]),
    "a model nobody knows": ([line(model="org/private")] * 3, ("-g", "l4"), ["TGI505"]),
    "two of them": ([line(model="org/1"), line(model="org/2"), line(model="org/1")], ("-g", "l4"), ["TGI505"]),
    "one GPU is taken": ([line(gpus="--gpus all")] * 3, ("-g", "l4"), ["TGI505"]),
    "an image without a release": ([line(image="example.org/text-generation-inference:1")] * 3, (), ["TGI504"]),
    "a launcher without an image": (["text-generation-launcher --model-id gpt2\n"] * 3, (), []),
    "one on a GPU": (["text-generation-launcher --model-id gpt2\n"] * 3, ("-g", "l4"), ["TGI504"]),
    "a variable, where no GPU is named": ([line(args="--max-total-tokens $TOTAL --port $PORT")] * 3, (), []),
    "variables that memory does not depend on": ([line(args="--port $PORT --json-output")] * 2, ("-g", "l4"), []),
    "a variable that keeps memory from being judged": ([line(model="$MODEL")], ("-g", "l4"), ["TGI503"]),
    "arguments that may be anything": ([line(args="$MORE")], ("-g", "l4"), ["TGI503"]),
    "the old name of a flag": ([line(args="--max-input-length 900 --max-total-tokens 999")], ("-g", "l4"), ["TGI107"]),
}  # fmt: skip


@pytest.mark.parametrize(("texts", "options", "codes"), ONCE.values(), ids=ONCE)
def test_a_remark_is_made_once_a_run(texts: list[str], options: tuple[str, ...], codes: list[str], here: Path) -> None:
    folder(here, *texts)
    assert [(code, severity) for _, code, severity in found(*options)] == [(code, "info") for code in codes]
    gpu = options[options.index("-g") + 1] if "-g" in options else None
    reports = tgi_advisor.validate_files(["."], gpu=gpu)
    assert [one.code for report in reports for one in report.findings] == codes


def test_what_was_left_out_is_counted_and_every_server_says_it(here: Path) -> None:
    folder(here, line(), line(), line(gpus="--gpus all"))
    assert run("validate", ".").out.endswith("\n1 remark in 3 TGI servers of 3 files. 2 repeated findings left out.\n")
    said = json.loads(run("validate", ".", "-f", "json").out)
    assert said["summary"]["repeated"] == 2
    assert all("the file names no GPU (--gpu does)" in server["unjudged"] for server in said["servers"])


OLD = line(args="--max-input-length 900 --max-total-tokens 999")


def also(found: dict[str, Any]) -> list[tuple[str, int]]:
    return [(place["file"], place["line"]) for place in found["also"]]


def test_what_holds_elsewhere_too_is_told_with_its_places(here: Path) -> None:
    folder(
        here, OLD + line() + OLD, line(args="--max-total-tokens 999").replace("--gpus", "-e MAX_INPUT_LENGTH=9 --gpus")
    )
    said = json.loads(run("validate", ".", "--json", "--ignore", "TGI505").out)
    (one,) = said["findings"]
    assert (one["code"], one["file"], one["line"]) == ("TGI107", "0.sh", 1)
    assert also(one) == [("0.sh", 3), ("1.sh", 1)]
    assert said["summary"] | {"repeated": 2, "fixable": 3} == said["summary"]
    sarif = json.loads(run("validate", ".", "-f", "sarif", "--ignore", "TGI505").out)["runs"][0]["results"]
    (places,) = [[place["physicalLocation"] for place in result["relatedLocations"]] for result in sarif]
    lines = [(place["artifactLocation"]["uri"], place["region"]["startLine"]) for place in places]
    assert lines == also(one)
    assert run("validate", ".", "--fix").out.endswith(" 3 mended.\n")


@pytest.mark.parametrize("name", ["text", "github"])
def test_a_tag_that_floats_is_told_once_a_file(name: str, here: Path) -> None:
    floats = line(image=OWN)
    folder(here, floats * 3, floats, f"{floats}# tgi-advisor: ignore[TGI501] rebuilt every night\n{floats}")
    ran = run("validate", ".", "--ignore", "TGI505", "-f", name).out
    assert len(re.findall(r"TGI501:? ", ran)) == 3
    assert ran.count("also on line") == ran.count("also on lines 2, 3") == 1
    assert ran.endswith(
        "3 warnings in 6 TGI servers of 3 files. 1 finding ignored by comments. 2 repeated findings left out.\n"
    )


def test_of_many_lines_some_are_named(here: Path) -> None:
    folder(here, line(image=OWN) * 30)
    assert "also on lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 19 more" in run("validate", ".").out


def test_a_file_that_is_excused_does_not_speak_for_the_others(here: Path) -> None:
    folder(here, f"# tgi-advisor: ignore[TGI505] a machine we know\n{line()}", line())
    (here / ".tgi-advisor.toml").write_text('per-file-ignores = {"2.sh" = ["TGI505"]}\n')
    assert found() == [("1.sh", "TGI505", "info")]


def test_what_an_error_rests_on_is_said_beside_it(here: Path) -> None:
    big = line(model="Qwen/Qwen2.5-32B-Instruct", gpus="--gpus all")
    folder(here, big, line(gpus="--gpus all"), big)
    codes = [(file, code) for file, code, _ in found("-g", "l4")]
    assert codes == [("0.sh", "TGI505"), ("0.sh", "TGI201"), ("2.sh", "TGI505"), ("2.sh", "TGI201")]


@pytest.mark.parametrize(
    ("image", "options", "message", "step"),
    [
        (OWN, (), "has no tag, so the next pull may be another release; judged as TGI 3.3.7", "pin it: 3.3.7"),
        (f"{OWN}:latest-rocm", (), "; judged as TGI 3.3.7", "pin it: 3.3.7-rocm"),
        (f"{OWN}:latest", ("-r", "2.4.1"), "the next pull may be another release", "pin it: 3.3.7"),
        ("example.org/text-generation-inference", (), "which TGI it holds --release says", "pin it: a tag that stays"),
    ],
)
def test_a_tag_that_floats_is_remarked_on_once(
    image: str, options: tuple[str, ...], message: str, step: str, here: Path
) -> None:
    folder(here, line(image))
    said = json.loads(run("validate", ".", "-f", "json", "--select", "TGI50", "--ignore", "TGI505", *options).out)
    (one,) = said["findings"]
    assert one["code"] == "TGI501"
    assert one["message"].endswith(message)
    assert one["next_step"].startswith(step)


# -- what a maintainer would mute


POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: a}}
spec:
  containers:
    - name: a
      image: {image}
      envFrom: [{source}]
      args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
      resources: {{limits: {{nvidia.com/gpu: 1}}}}
      volumeMounts: [{{name: d, mountPath: /data}}]
  volumes: [{{name: d, persistentVolumeClaim: {{claimName: d}}}}]
"""
LAUNCH = "text-generation-launcher --json-output --model-id gpt2\n"
SAGEMAKER = "7.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.1.1-tgi1.4.2-gpu-py310-cu121"
CODE: dict[str, tuple[str, str, tuple[str, ...], list[str]]] = {
    "a page's blanks": (
        "page.md", f"```sh\ntoken=<your token>\n{line(model='<model>')}```\n`{line(model='<org/model>').strip()}`\n",
        (), ["TGI522"],
    ),
    "a page's blanks on a GPU": ("page.md", f"```sh\n{line(model='<model>')}```\n", ("-g", "l4"), ["TGI522"]),
    "a model of the host's for several": ("run.sh", line(model="$MODEL") * 3, ("-g", "l4"), ["TGI503"]),
    "a script's blanks": ("run.sh", line(model="<model>"), (), ["TGI522"]),
    "a shell's own files": ("run.sh", f"source ~/.bashrc\n. .venv/bin/activate\neval `conda hook`\n{LAUNCH}", (), []),
    "a file of settings": ("run.sh", f"source ~/.bashrc\nset -a\n. ./tgi.conf\n{LAUNCH}", (), ["TGI503"]),
    "a Secret": ("pod.yaml", POD.format(image=f"{OWN}:3.3.7", source="secretRef: {name: hf}"), (), []),
    "what may be lacking": (
        "pod.yaml", POD.format(image=f"{OWN}:3.3.7", source="configMapRef: {name: m, optional: true}"), (), [],
    ),
    "a ConfigMap": ("pod.yaml", POD.format(image=f"{OWN}:3.3.7", source="configMapRef: {name: m}"), (), ["TGI503"]),
    "a script that names the model": ("run.sh", f"MODEL_ID=gpt2\necho $MODEL_ID\n{LAUNCH}", (), []),
    "one that sets it": ("run.sh", f"export MODEL_ID=bloom\n{LAUNCH}", (), ["TGI172"]),
    "quantization that is slow": ("run.sh", line(args="--quantize bitsandbytes"), ("-g", "l4"), ["TGI108"]),
    "a limit without effect": ("run.sh", line(args="--max-batch-total-tokens 8192") * 2, ("-g", "l4"), ["TGI173"]),
    "what a model does however it is started": ("run.sh", line(model="google/gemma-3-4b-it"), ("-g", "l4"), ["TGI403"]),
    "an empty token that a page's reader fills in": (
        "page.md",
        f'```sh\nexport HF_TOKEN=""\n{line(model="google/gemma-2b", gpus="-e HF_TOKEN=$HF_TOKEN --gpus 1")}```\n',
        (), [],
    ),
    "one in a program": (
        "a.py", 'env = {"HF_MODEL_ID": "gpt2", "SM_NUM_GPUS": "1", "HF_TOKEN": "<your token>"}\n', (), ["TGI402"],
    ),
    "a runtime that gives the GPUs": (
        "pod.yaml",
        POD.format(image=f"{OWN}:3.3.7", source="").replace("spec:", "spec:\n  runtimeClassName: nvidia").replace(
            "nvidia.com/gpu: 1", "memory: 64Gi"
        ),
        (), [],
    ),
    "a parameter that holds a fork": (
        "pod.yaml",
        POD.format(image="$(IMAGE)", source="")
        .replace("args", "command: [text-generation-launcher]\n      args")
        .replace("--model-id", "--model-name"),
(), ["TGI504"],
    ),
    "what a program beside the file adds": (
        "bench.yml",
        f"experiments:\n  - image_uri: {SAGEMAKER}\n    deployment_script: jumpstart.py\n"
        "    env: {HF_MODEL_ID: /opt/m, MAX_INPUT_LENGTH: '8191', MAX_TOTAL_TOKENS: '8192'}\n",
        (), ["TGI503"],
    ),
    "one that its task names": (
        "a.dstack.yml",
        "type: service\nimage: me/optimum-tpu:v1\nenv: [MODEL_ID=a]\ncommands: [text-generation-launcher --port 80]\n",
        (), ["TGI504"],
    ),
    "a server of its own": ("run.sh", line(image="me/optimum-tpu:v1", args="--max-total-tokens 9"), (), ["TGI504"]),
}  # fmt: skip
"""A file, its text, options, and what is said beside that no GPU is named."""


@pytest.mark.parametrize("name", CODE)
def test_what_is_worth_a_line(name: str, here: Path) -> None:
    file, text, options, codes = CODE[name]
    (here / file).write_text(text)
    assert [code for _, code, _ in found(*options, "--ignore", "TGI505")] == codes


COMPOSE = "services:\n  llm:\n    image: {image}\n    env_file: .env\n"
NONE: dict[str, dict[str, str]] = {
    "what is built": {"cloudbuild.yaml": "steps:\n  - name: docker\nimages:\n  - me/text-generation-inference:1\n"},
    "what is mirrored": {"zarf.yaml": f"components:\n  - name: llm\n    images:\n      - {OWN}:3.3.7\n"},
    "a shell to work in": {"Dockerfile": f'FROM {OWN}:3.3.7\nENTRYPOINT ["/bin/bash"]\n'},
    "a shell that reads its profile": {"Dockerfile": f"FROM {OWN}:3.3.7\nENTRYPOINT bash -l\n"},
    "nothing that runs": {"Dockerfile": f'FROM {OWN}:3.3.7\nENTRYPOINT ["sleep", "infinity"]\n'},
    "a report of a problem": {"bug.yml": "body:\n  - description: your system (`text-generation-launcher --env`)\n"},
    "what a page hides": {"page.md": f"a\n\n<!-- b\n```sh\n{line()}```\n-->\n\nc\n"},
    "a place to work in": {
        "dev.dstack.yml": f"type: dev-environment\nimage: {OWN}:3.3.7\nide: vscode\nresources: {{gpu: L4}}\n"
    },
    "a catalogue": {
        "hub.json": json.dumps({"Variants": {"g5": {"Properties": {"ImageUri": f"{SAGEMAKER}"}}}}),
    },
    "the environment of another server": {
        ".env": "MODEL_ID=a/b\nMAX_TOTAL_TOKENS=9\n", "compose.yml": COMPOSE.format(image="vllm/vllm-openai:v1"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_server(name: str, here: Path) -> None:
    for file, text in NONE[name].items():
        (here / file).write_text(text)
    assert json.loads(run("validate", ".", "--json").out)["servers"] == []


TASK = f"""\
task = Task(
    image="{OWN}:3.3.7",
    env={{"MODEL_ID": "gpt2"}},
    commands=["text-generation-launcher --quantize eetq"],
)
"""


def test_a_container_and_its_command_are_one_server(here: Path) -> None:
    (here / "a.py").write_text(TASK)
    (here / "page.md").write_text(
        f"<!-- no block -->\n\n```sh\n{line()}```\n<!--\n-->\n```sh\n{line()}```\n<!-- open\n"
    )
    (here / ".env").write_text("MODEL_ID=gpt2\n")
    (here / "compose.yml").write_text(COMPOSE.format(image=f"{OWN}:3.3.7"))
    servers = json.loads(run("validate", ".", "--json").out)["servers"]
    seen = [(one["file"], one["model"]) for one in servers if one["file"] != ".env"]
    page = ("page.md", "Qwen/Qwen2.5-7B-Instruct")
    assert seen == [("a.py", "gpt2"), ("compose.yml", "gpt2"), page, page]


@pytest.mark.parametrize(
    ("model", "severity"),
    [("bigscience/bloom-560m", "warning"), ("me/mine", "warning"), ("mistralai/Mistral-7B-Instruct-v0.2", "error")],
)
def test_what_an_old_release_took_for_a_switch_may_be_one(model: str, severity: str, here: Path) -> None:
    folder(here, f"text-generation-launcher --model-id {model} --quantize --port 80\n")
    assert found() == [("0.sh", "TGI106", severity)]


@pytest.mark.parametrize(
    ("flag", "step"),
    [
        ("no-stream", "leave it out"), ("tensor-parallel-size", "leave it out"), ("host", "did you mean --hostname?"),
        ("quantise", "did you mean --quantize?"), ("max-input-len", "did you mean --max-input-length?"),
    ],
)  # fmt: skip
def test_only_what_is_alike_is_proposed(flag: str, step: str, here: Path) -> None:
    folder(here, line(args=f"--{flag} 1"))
    (one,) = json.loads(run("validate", ".", "--json", "--select", "TGI101").out)["findings"]
    assert one["next_step"].startswith(step)


# -- sums


MIXED = (
    line(args="--num-shard one"), line(image=f"{OWN}:latest", args="--num-shard two"), line(image=OWN), line(),
    "echo nothing\n",
)  # fmt: skip


@pytest.mark.parametrize("name", ["text", "json"])
def test_the_sums_of_a_folder(name: str, here: Path, golden: Golden) -> None:
    folder(here, *MIXED)
    ran = run("validate", ".", "--summary", "--format", name)
    assert (ran.code, ran.err) == (Exit.FINDINGS, "")
    golden(f"validate/summary.{'txt' if name == 'text' else name}", ran.out)


def test_sums_are_those_of_the_findings(here: Path) -> None:
    folder(here, *MIXED)
    sums: dict[str, Any] = json.loads(run("validate", ".", "--summary", "-f", "json").out)
    whole: dict[str, Any] = json.loads(run("validate", ".", "-f", "json").out)
    assert sums["summary"] == whole["summary"]
    assert sum(row["findings"] for row in sums["by_rule"]) == len(whole["findings"])
    for row in sums["by_rule"]:
        those = [one for one in whole["findings"] if (one["code"], one["severity"]) == (row["code"], row["severity"])]
        assert (row["findings"], row["files"]) == (len(those), len({one["file"] for one in those}))
    for row in sums["by_file"]:
        those = [one["severity"] for one in whole["findings"] if one["file"] == row["file"]]
        assert [row["errors"], row["warnings"], row["infos"]] == [those.count(s) for s in ("error", "warning", "info")]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), Exit.FINDINGS),
        (("--ignore", "TGI103"), Exit.STARTS),
        (("--ignore", "TGI103", "--strict"), Exit.FINDINGS),
        (("--format", "sarif"), Exit.USAGE),
        (("--format", "github"), Exit.USAGE),
        (("--explain",), Exit.USAGE),
        (("--fix", "--diff"), Exit.USAGE),
    ],
)
def test_sums_end_as_the_findings_do(options: tuple[str, ...], code: Exit, here: Path) -> None:
    folder(here, *MIXED)
    ran = run("validate", ".", "--summary", *options)
    assert ran.code == code
    if code != Exit.USAGE:
        assert run("validate", ".", *options).code == code
        assert ran.out.splitlines()[-1] == run("validate", ".", *options).out.splitlines()[-1]
    else:
        assert "--summary" in ran.err


def test_sums_of_what_was_mended(here: Path) -> None:
    folder(here, line(args="--trust-remote-cod --revision main"))
    assert run("validate", ".", "--summary", "--fix").out.endswith(" 1 mended.\n")
    assert "--trust-remote-code " in (here / "0.sh").read_text()


def test_sums_of_nothing(here: Path) -> None:
    assert run("validate", ".", "--summary").out == "No TGI server found in 0 files.\n"
