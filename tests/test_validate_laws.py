"""Laws of `validate`: it answers whatever a file holds, mends once and for all, and shows no secret."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgi_advisor import lint
from tgi_advisor.errors import AdvisorError
from tgi_advisor.validate import output
from tgi_advisor.validate.config import NOTHING, Settings
from tgi_advisor.validate.output import FORMATS, Style
from tgi_advisor.validate.report import Report, Tally

IMAGE = "ghcr.io/huggingface/text-generation-inference"
NAMES = ("compose.yaml", "x.json", "run.sh", "page.md", "x.env", "x.txt", "x.py", "tgi.service", "x.tf", "x.ipynb", "x")
WORDS = st.sampled_from(
    [
        "docker run", "services:", "image:", IMAGE, f"{IMAGE}:3.3.7", "text-generation-launcher", "--model-id",
        "gpt2",
        "--num-shard", "MODEL_ID", "HF_TOKEN", "env:", "name:", "value:", "apiVersion: v1", "kind: Pod", "---", "- ",
        ": ",
        "{", "}", "[", "]", "&a", "*a",
        "<<: *a", "|", ">", "#", "'", '"', "\\\n", "\n", "\n  ", "\t", "$", "${", "$(",
        "`", "{{ .Values.x }}", "\x00", "\ufeff", "\x1b[31m", "é", "# tgi-advisor: ignore[TGI1] x", "-e", "=", "model:",
        "hardware:", "ExecStart=", "1", "true", "\r\n",
    ]
)  # fmt: skip
TEXTS = st.lists(WORDS | st.text(max_size=4), max_size=30).map(" ".join)
NODES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HELD = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def judged(folder: Path, name: str, data: bytes, asked: lint.Asked | None = None, chosen: Settings = NOTHING) -> Report:
    path = folder / name
    path.write_bytes(data)
    report = lint.check(str(path), chosen, asked or lint.Asked())
    for form in FORMATS:
        written = "".join(output.write([report], form, Tally(), Style(explain=True)))
        assert written.endswith("\n")
        assert "\x1b" not in written
    return report


def errors(report: Report) -> int:
    """How many errors were found, none of them a defect of ours."""
    assert not [one for one in report.findings if one.code == "TGI590"]
    return sum(one.severity == "error" for one in report.findings)


@HELD
@given(st.sampled_from(NAMES), st.binary(max_size=200) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_answered(tmp_path: Path, name: str, data: bytes) -> None:
    judged(tmp_path, name, data)
    judged(tmp_path, name, data + f"\ndocker run {IMAGE}:3.3.7 --model-id gpt2\n".encode())


@HELD
@given(NODES, st.sampled_from(("compose.yaml", "x.json", "x.ipynb")))
def test_any_yaml_is_answered(tmp_path: Path, node: Any, name: str) -> None:
    import yaml

    whole = {"services": {"a": {"image": IMAGE, "command": node, "environment": node, "deploy": node, "x": node}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": IMAGE, "args": node, "env": node}]}}
    for document in (node, whole, pod, {"spec": {"containers": node}, "kind": "Pod", "image": IMAGE}):
        judged(tmp_path, name, yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@HELD
@given(TEXTS)
def test_any_command_line_is_answered(tmp_path: Path, words: str) -> None:
    judged(tmp_path, "run.sh", f"docker run {words} {IMAGE}:2.4.1 {words}\n".encode("utf-8", "surrogatepass"))


FLAGS = st.sampled_from(
    [
        "--max-input-length 100 --max-total-tokens 200", "--num-shrad 1", "--max-input-tokens 5", "--dtpye float16",
        "--trust-remote-code", "--quantize FP8", "--max-batch-sizes 4", "--model-id gpt2", "--watermark-delta -2.0",
        "--cuda-graphs 1 --cuda-graphs 2", "--revision ''", "--", "--cuda-memory-fraction nan", "--sharded true",
        "-num-shard 1", "---num-shard 1", "-quantize awq", "--max-total-token 9000", "--lora-adapters a/b,",
    ]
)  # fmt: skip
ENTRIES = st.sampled_from(
    [
        "MAX_INPUT_LENGTH=100", "NUM_SHARDS=2", "MAX_CONCURENT_REQUESTS=4", "TRUST_REMOTE_CODE=True", 'QUANTIZE="fp8"',
        "LORA_ADAPTERS=", "ATTENTION=", "TGI_WIGGLE_ROOM=inf", "CUDA_MEMORY_FRACTION=1e400", "WATERMARK_GAMMA=nan",
        "PORT=80", "DTYPE=Float16", "A=${NUM_SHARDS}", "MAX_TOTAL_TOKENS=200 # why", "MAX_BATCH_PEFILL_TOKENS=many",
        "MAX_TOTAL_TOKEN=-1", "QUANTISE=int3",
    ]
)  # fmt: skip


@HELD
@given(
    st.lists(FLAGS, max_size=4), st.lists(ENTRIES, max_size=4, unique=True), st.sampled_from(["\n", "\r\n"]), st.data()
)
def test_a_fix_is_made_once_and_changes_nothing_else(
    tmp_path: Path, flags: list[str], entries: list[str], end: str, data: st.DataObject
) -> None:
    tag = data.draw(st.sampled_from(["1.4.5", "2.4.1", "3.3.7", "latest"]))
    compose = ["# é", "services:", "  tgi:", f"    image: {IMAGE}:{tag}", f"    command: {' '.join(flags)}",
               "    environment:", *(f"      - {entry}" for entry in entries), "  # end", ""]  # fmt: skip
    script = ["#!/bin/sh", *(f"docker run -e {entry} \\" for entry in entries[:1]), f"docker run {IMAGE}:{tag} \\",
              *(f"  {flag} \\" for flag in flags), "  --port 80", ""]  # fmt: skip
    for name, lines in (("compose.yaml", compose), ("run.sh", script)):
        before = end.join(lines).encode()
        found = errors(judged(tmp_path, name, before))
        mended = judged(tmp_path, name, before, lint.Asked(fix=True))
        after = (tmp_path / name).read_bytes()
        assert (mended.fixed > 0) == (after != before) == bool(mended.diff)
        assert after.count(end.encode()) == before.count(end.encode())
        changed = [pair for pair in zip(before.split(b"\n"), after.split(b"\n"), strict=True) if pair[0] != pair[1]]
        assert len(changed) <= mended.fixed
        assert errors(judged(tmp_path, name, after)) <= found
        again = judged(tmp_path, name, after, lint.Asked(fix=True))
        assert (again.fixed, again.diff, (tmp_path / name).read_bytes()) == (0, "", after)


SECRET = "sk-Zm9vYmFy.MTIzNDU2Nzg5MA"
SHAPES = {
    "compose-list": (
        "compose.yaml",
        "services: {{tgi: {{image: '{image}', environment: ['{name}={secret}', 'A B']}}}}\n",
    ),
    "compose-map": (
        "compose.yaml",
        "services:\n  tgi:\n    image: {image}\n    environment:\n      {name}: {secret}\n",
    ),
    "compose-flag": (
        "compose.yaml",
        "services:\n  tgi:\n    image: {image}\n    command: --api-key {secret} --foo\n",
    ),
    "docker": (
        "run.sh",
        "docker run -e {name}={secret} -e {name}=x {image} --api-key {secret} --{secret} --foo {secret}\n",
    ),
    "exported": ("run.sh", "export {name}={secret}\ndocker run -e {name} {image} --api-key ${name}\n"),
    "pod": (
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: {image}\n    env:\n    - name: {name}\n"
        "      value: {secret}\n    - {{name: FOO, value: 1}}\n    - {{name: {name}, value: '{secret}'}}\n",
    ),
    "env": ("x.env", "MODEL_ID=gpt2\n{name}={secret}\nNUM_SHARD=a {name}={secret}\nQUANTIZE=\n"),
    "python": (
        "x.py",
        "from sagemaker.huggingface import get_huggingface_llm_image_uri\n"
        "hub = {{'HF_MODEL_ID': 'gpt2', '{name}': '{secret}', 'SM_NUM_GPUS': 'x'}}\n",
    ),
    "page": ("page.md", "```sh\ndocker run -e {name}={secret} {image} --model-id http://me:{secret}@x/y\n```\n"),
}


@pytest.mark.parametrize("name", ["HF_TOKEN", "API_KEY", "AWS_SECRET_ACCESS_KEY", "NGROK_AUTHTOKEN", "DB_PASSWORD"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("secret", ["hf_" + "aB3" * 11 + "z", SECRET], ids=["hub", "other"])
def test_no_secret_is_shown(shape: str, name: str, secret: str, tmp_path: Path) -> None:
    if secret == SECRET and shape in ("docker", "page"):
        secret = "hf_" + "aB3" * 11 + "z"  # where no name tells, only a known form does
    file, text = SHAPES[shape]
    kept(tmp_path, file, text.format(image=f"{IMAGE}:2.0.4", name=name, secret=secret), secret)


def kept(folder: Path, file: str, text: str, secret: str) -> None:
    """Asserts that nothing that is told of a file, mended or not, holds a secret of it."""
    for asked in (lint.Asked(), lint.Asked(fix=True)):
        report = judged(folder, file, text.encode(), asked)
        told = "".join("".join(output.write([report], form, Tally(), Style(explain=True))) for form in FORMATS)
        assert secret not in told, text
        assert secret not in repr((report.findings, report.lines, report.diff, report.servers)), text
        if report.servers:
            assert secret not in imported(folder / file), text


SECRET_NAMES = (
    "HF_TOKEN", "API_KEY", "HUGGING_FACE_HUB_TOKEN", "NGROK_AUTHTOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD",
    "HF_API_TOKEN", "WANDB_API_KEY", "CLIENT_SECRET",
)  # fmt: skip
MISSPELT = {
    "env": ("x.env", "MODEL_ID=gpt2\n{name}={secret}\n"),
    "blanks": ("x.env", "MODEL_ID=gpt2\n{name} = '{secret}'\n"),
    "flag": ("run.sh", "docker run {image} --model-id gpt2 --{flag} {secret}\n"),
    "joined": ("run.sh", "docker run {image} --model-id gpt2 --{flag}={secret}\n"),
    "dash": ("run.sh", "docker run {image} --model-id gpt2 -{flag} {secret}\n"),
    "empty": ("run.sh", "docker run {image} --model-id gpt2 --{flag}= {secret}\n"),
    "option": ("run.sh", "docker run -e {name}={secret} -e A=1 {image} --model-id gpt2 --num-shrad 1\n"),
    "list": ("compose.yaml", "services:\n  a:\n    image: {image}\n    command:\n      - --{flag}\n      - {secret}\n"
             "      - --num-shrad=1\n"),
    "word": ("compose.yaml", "services:\n a: {{image: '{image}', command: ['--{flag} {secret}', '--num-shrad=1']}}\n"),
    "map": ("compose.yaml", "services:\n  a:\n    image: {image}\n    environment:\n      {name}: {secret}\n"
            "      NUM_SHARDS: 1\n"),
    "quoted": ("compose.yaml", "services: {{a: {{image: '{image}', environment: ['{name}=\"{secret}\"']}}}}\n"),
    "pod": ("pod.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: {image}\n    env:\n"
            "    - name: {name}\n      value: {secret}\n    - {{name: NUM_SHARDS, value: '1'}}\n"
            "  - image: nginx\n    env:\n    - name: {name}\n      value: {secret}\n"),
    "spec": ("spec.yaml", "model: {{id: gpt2}}\nhardware: {{gpu: nvidia-l4}}\ntgi: {{env: {{{name}: {secret}}}}}\n"),
}  # fmt: skip


@st.composite
def misspelt(draw: st.DrawFn) -> str:
    """The name of a secret with a letter dropped, doubled, changed or swapped; now and then as it is."""
    name = draw(st.sampled_from(SECRET_NAMES))
    at = draw(st.integers(0, len(name) - 2))
    ways = {
        "drop": name[:at] + name[at + 1 :], "double": name[:at] + name[at] + name[at:],
        "swap": name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        "change": f"{name[:at]}X{name[at + 1 :]}", "": name,
    }  # fmt: skip
    return ways[draw(st.sampled_from(sorted(ways)))].strip("_")


@settings(HELD, max_examples=100)
@given(misspelt(), st.sampled_from(sorted(MISSPELT)), st.sampled_from([SECRET, "plain-words-9", "Pw-7xQz," * 12]))
def test_no_secret_is_shown_behind_a_misspelt_name(tmp_path: Path, name: str, shape: str, secret: str) -> None:
    file, text = MISSPELT[shape]
    flag = name.lower().replace("_", "-")
    kept(tmp_path, file, text.format(image=f"{IMAGE}:3.3.7", name=name, flag=flag, secret=secret), secret)


@pytest.mark.parametrize(
    "word",
    ["--max-total-token 4096", "--max-batch-prefil-tokens=4096", "-max-total-tokens 4096", "--max-new-token 4096"],
)
def test_the_number_of_a_limit_is_no_secret(word: str, tmp_path: Path) -> None:
    report = judged(tmp_path, "run.sh", f"docker run {IMAGE}:3.3.7 --model-id gpt2 {word}\n".encode())
    assert any(word in line for line in report.lines.values())


HOSTILE = "\x1b]0;x\x07 \x9b2J \u202e \u2028 \x85 \x08 ##[error]x"


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_of_a_file_is_obeyed_by_a_terminal_or_a_job(form: str, tmp_path: Path) -> None:
    commands = f"# {HOSTILE}\n::error file=a,line=1::x\n \t::stop-commands::x\n##[error]x\n"
    line = f"docker run {IMAGE}:3.3.7 --model-id gpt2 '--foo{HOSTILE}' --num-shrad 1\n"
    (tmp_path / "::warning::x").mkdir()
    report = judged(tmp_path / "::warning::x", "run.sh", (commands + line + commands).encode(), lint.Asked(fix=True))
    assert report.diff
    name = "::warning::x/run.sh"
    moved = [replace(one, place=one.place._replace(file=name)) for one in report.findings]
    lines = {(name, number): text for (_, number), text in report.lines.items()}
    report = replace(report, file=name, findings=tuple(moved), lines=lines)
    told = "".join(output.write([report], form, Tally(), Style()))
    assert all(c.isprintable() or c in "\n\t" for c in told)
    begin = [line for line in told.split("\n") if line.lstrip().startswith("::")]
    if form == "github":
        assert all(re.match("::(error|warning|notice) file=%3A%3Awarning", line) for line in begin)
        assert len(begin) == len(report.findings)
    else:
        assert begin == []
        assert "##[" not in told or form != "text"


def imported(path: Path) -> str:
    """The spec of the server, or why there is none."""
    try:
        return lint.import_server(str(path))
    except AdvisorError as error:
        return str(error)
