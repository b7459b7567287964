"""`advise --patch`: limits that fit, put into files people have, and everything else left as it is."""

from __future__ import annotations

import difflib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from front import run

import tgi_advisor
from tgi_advisor.errors import AdvisorError, Exit
from tgi_advisor.patching import Patched

DEPLOYMENTS = Path(__file__).parent / "data" / "deployments"
QWEN = "Qwen/Qwen2.5-7B-Instruct"
GPU = ("--gpu", "nvidia-l4")
COMPOSE = f"""\
# our service
services:
  web: {{image: nginx}}
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:2.4.1   # pinned
    command: --model-id {QWEN} --max-input-length 30000 --max-total-tokens 100000
    environment:
      - HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz0123456789   # keep
"""
EMITTED = {"docker-run": "run.sh", "compose": "compose.yaml", "kubernetes": "tgi.yaml"}


def changed(before: str, after: str) -> list[str]:
    """Lines of the second text that the first does not have."""
    return [line[2:] for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line.startswith("+ ")]


def test_a_file_keeps_everything_but_its_limits(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE)
    shown = run("advise", str(file), *GPU, "--patch", "--diff")
    assert (shown.code, file.read_text()) == (Exit.STARTS, COMPOSE)
    written = run("advise", str(file), *GPU, "--patch")
    assert written.out == shown.out
    assert "hf_abc" not in written.out
    (line,) = changed(COMPOSE, file.read_text())
    found = dict(re.findall(r"--(max-[a-z-]+) (\d+)", line))
    assert list(found) == ["max-input-length", "max-total-tokens", "max-batch-prefill-tokens"]
    plan = tgi_advisor.advise(model=QWEN, gpu="nvidia-l4", release="2.4.1")
    limits = plan.prediction.limits
    assert [int(text) for text in found.values()] == [
        limits.max_input_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens,
    ]  # fmt: skip
    assert run("validate", str(file), *GPU, "--strict", "--ignore", "TGI140,TGI401,TGI402").code in (0, 1)
    assert "error" not in run("validate", str(file), *GPU).out.split("error,")[0]
    again = run("advise", str(file), *GPU, "--patch")
    assert "has these limits already" in again.out


@pytest.mark.parametrize("form", EMITTED)
def test_what_we_emit_is_patched_to_what_is_asked(form: str, tmp_path: Path) -> None:
    file = tmp_path / EMITTED[form]
    file.write_text(run("emit", "-m", QWEN, *GPU, "-f", form).out)
    before = file.read_text()
    ran = run("advise", str(file), *GPU, "--patch", "--context", "8k", "--users", "4", "--json")
    assert ran.code == Exit.STARTS
    found = json.loads(ran.out)
    assert found["limits"]["max_total_tokens"] == 8192
    assert found["patch"]["diff"].count("\n+") <= 4
    assert len(changed(before, file.read_text())) <= 3
    asked = ("-m", QWEN, *GPU, "--context", "8k", "--users", "4")
    probes = re.compile(r"timeoutSeconds: \d+")  # which stay, as everything that is no limit
    assert probes.sub("", file.read_text()) == probes.sub("", run("emit", *asked, "-f", form).out)


def test_a_spec_is_patched_line_by_line(tmp_path: Path) -> None:
    text = f"# mine\nmodel:\n  id: {QWEN} # small\nhardware:\n  gpu: nvidia-l4\nlimits:\n  max_total_tokens: 5000\n"
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    assert run("advise", str(file), "--patch").code == Exit.STARTS
    assert file.read_text().startswith("# mine\n")
    assert "# small" in file.read_text()
    assert yaml.safe_load(file.read_text())["limits"]["max_total_tokens"] == 32_768
    assert run("predict", str(file)).code == Exit.STARTS


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOYMENTS.iterdir()))
def test_any_file_is_patched_or_left_with_a_reason(name: str, tmp_path: Path) -> None:
    for path in DEPLOYMENTS.iterdir():
        shutil.copy(path, tmp_path)
    file = tmp_path / name
    file.write_text(re.sub(r"\b(org|meta-llama|mistralai|bigscience|tiiuae)/[\w.-]+", QWEN, file.read_text("utf-8")))
    before = file.read_bytes()
    refused: AdvisorError | None = None
    found: Patched | None = None
    said: dict[str, Any] = {} if "text-generation-inference:" in file.read_text() else {"release": "3.3.7"}
    try:
        found = tgi_advisor.patch(file, gpu="nvidia-a100-80gb-sxm", offline=True, **said)
    except AdvisorError as error:
        refused = error
    if found is None:
        assert refused is not None
        assert refused.hint or refused.problems
        assert file.read_bytes() == before
        return
    assert file.read_text("utf-8") == found.text
    if found.plan.prediction.outcome != "starts":
        assert file.read_bytes() == before
        return
    limits = found.plan.prediction.limits
    for limit in (limits.max_input_tokens, limits.max_total_tokens, limits.max_batch_prefill_tokens):
        assert limit is None or str(limit) in found.text
    again = tgi_advisor.patch(file, gpu="nvidia-a100-80gb-sxm", offline=True, **said)
    assert (again.text, again.diff) == (found.text, "")


def test_where_nothing_fits_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.replace(QWEN, "meta-llama/Llama-3.3-70B-Instruct"))
    before = file.read_text()
    ran = run("advise", str(file), *GPU, "--patch")
    assert (ran.code, file.read_text()) == (Exit.OUT_OF_MEMORY, before)
    assert "---" not in ran.out


def test_what_cannot_be_written_there_is_said_to_be_written_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(f"model: {{id: {QWEN}}}\nhardware: {{gpu: nvidia-l4}}\nlimits: {{max_total_tokens: 5000}}\n")
    ran = run("advise", str(file), "--patch")
    assert ran.code == Exit.SPEC
    assert "--max-total-tokens 32768" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--patch",), "one file"),
        (("a.yaml", "b.yaml", "--patch"), "one file"),
        (("compose.yaml", "--patch", "-m", "gpt2"), "from the file"),
        (("compose.yaml", "--diff"), "belongs to --patch"),
        (("compose.yaml", "--server", "tgi"), "belongs to --patch"),
        (("compose.yaml", "--patch", "--method", "notebook"), "TGI's own sum"),
        (("compose.yaml", "--patch"), "does not name its GPU"),
        (("compose.yaml", "--patch", "--gpu", "l4", "--server", "web"), "tgi"),
    ],
)
def test_what_may_be_asked(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("compose.yaml").write_text(COMPOSE)
    ran = run("advise", *arguments)
    assert ran.code == Exit.USAGE
    assert words in ran.err


def test_lines_that_are_added_end_as_the_others_do(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: tgi}\nspec:\n  containers:\n    - name: tgi\n"
        "      image: ghcr.io/huggingface/text-generation-inference:3.3.7\n"
        "      resources: {limits: {nvidia.com/gpu: 1}}\n"
        f"      env:\n        - name: MODEL_ID\n          value: {QWEN}\n"
    )
    file.write_text(text)
    run("advise", str(file), *GPU, "--patch")
    plain = file.read_bytes()
    file.write_bytes(text.encode().replace(b"\n", b"\r\n"))
    run("advise", str(file), *GPU, "--patch")
    assert plain != text.encode()
    assert file.read_bytes() == plain.replace(b"\n", b"\r\n")
    spec = tmp_path / "spec.yaml"
    spec.write_bytes(f"model: {{id: {QWEN}}}\r\nhardware: {{gpu: nvidia-l4}}\r\n".encode())
    run("advise", str(spec), "--patch")
    written = spec.read_bytes()
    assert b"max_total_tokens" in written
    assert written.count(b"\r\n") == written.count(b"\n") > 2


def test_a_list_in_one_word_is_continued_as_a_list(tmp_path: Path) -> None:
    file = tmp_path / "deploy.sh"
    file.write_text(
        "gcloud run deploy chat \\\n  --image=us-docker.pkg.dev/deeplearning-platform-release/gcr.io/"
        "huggingface-text-generation-inference-cu124.2-3.ubuntu2204.py311 \\\n"
        f'  --args="--model-id={QWEN},--max-input-tokens=100,--max-total-tokens=200" \\\n'
        "  --gpu=1 --gpu-type=nvidia-l4\n"
    )
    before = file.read_text()
    run("advise", str(file), *GPU, "--patch")
    (line,) = changed(before, file.read_text())
    assert re.search(r'--max-total-tokens=\d+,--max-batch-prefill-tokens=\d+" \\$', line), line
    assert "has these limits already" in run("advise", str(file), *GPU, "--patch").out


def test_what_else_is_wrong_with_the_file_is_said(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    image = "ghcr.io/huggingface/text-generation-inference:3.3.7"
    line = f"docker run --gpus all -v d:/data {image} --model-id Qwen/Qwen2.5-7B-Instruct"
    script.write_text(f"{line} --max-totl-tokens 4096\n")
    ran = run("advise", str(script), "--gpu", "nvidia-l4", "--patch", "--diff", "--offline")
    assert ran.code == 0
    assert "TGI101: TGI 3.3.7 has no flag --max-totl-tokens" in ran.out
    found = json.loads(run("advise", str(script), "--gpu", "nvidia-l4", "--patch", "--offline", "--json").out)
    assert len(found["patch"]["errors"]) == 1
    script.write_text(f"{line}\n")
    assert "finds more" not in run("advise", str(script), "--gpu", "nvidia-l4", "--patch", "--offline").out
