"""What a patched file keeps: everything but its limits, byte for byte, whatever form it has."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from front import run
from golden import Golden
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patches import LIMITS, Case, held

import tgi_advisor
from tgi_advisor import lint
from tgi_advisor.errors import AdvisorError, Exit
from tgi_advisor.gather import files
from tgi_advisor.validate.config import Settings
from tgi_advisor.validate.effective import effective

FORMS = Path(__file__).parent / "data" / "patch"
OWN = os.environ.get("TGI_ADVISOR_TEST_DEPLOYMENTS", "")
QWEN = "Qwen/Qwen2.5-7B-Instruct"
LLAMA2 = "meta-llama/Llama-2-7b-chat-hf"
A100 = ("--gpu", "nvidia-a100-80gb-sxm", "--count", "1", "--offline")
POD = (FORMS / "args-pairs.yaml").read_text("utf-8")


def cases(file: Path) -> list[Case]:
    """A case for each server of a file."""
    document, _ = lint.opened(str(file), None)
    several = len(document.servers) > 1
    return [Case(file, str(number) if several else None) for number in range(1, len(document.servers) + 1)]


def of_llama(case: Case) -> Case:
    """The server as if it served a model that every release serves, on one GPU."""
    document, _ = lint.opened(str(case.path), None)
    unnamed = effective(document.servers[int(case.server or 1) - 1], None).model is None
    fields = (f"model.id={LLAMA2}", "model.quantize=null", "tgi.num_shard=1")
    return case._replace(fields=fields, model=LLAMA2 if unnamed else None)


def outcome(case: Case) -> str:
    """What became of a file: the change, or why there is none, the file being as it was."""
    before, when = case.path.read_bytes(), case.path.stat().st_mtime_ns
    refused: AdvisorError | None = None
    try:
        return held(case) or "left as it is"
    except AdvisorError as error:
        refused = error
    assert (case.path.read_bytes(), case.path.stat().st_mtime_ns) == (before, when)
    if case.release is None and "--release" in f"{refused.message} {refused.hint}":
        return outcome(case._replace(release="3.3.7"))
    assert refused.hint or refused.problems
    why = f"refused: {refused.message}".replace(f"{case.path.parent}{os.sep}", "")
    return re.sub(r"\d{3,}", "N", why)


def test_every_form_keeps_everything_but_its_limits(golden: Golden, tmp_path: Path) -> None:
    copies = [Path(shutil.copy(source, tmp_path)) for source in sorted(FORMS.iterdir())]
    told = [
        f"== {case.path.name}{f' {case.server}' if case.server else ''}\n{outcome(case)}\n"
        for copy in copies
        for case in cases(copy)
    ]
    golden("patch/forms.txt", "".join(told))


@pytest.mark.skipif(not OWN, reason="TGI_ADVISOR_TEST_DEPLOYMENTS names no folder of deployment files")
def test_the_files_of_a_folder_keep_everything_but_their_limits(tmp_path: Path) -> None:
    copies: list[Path] = []
    for number, source in enumerate(one for one in sorted(Path(OWN).rglob("*")) if one.is_file()):
        (tmp_path / str(number)).mkdir()
        copies.append(Path(shutil.copy(source, tmp_path / str(number))))
    patched = {copy for copy in copies for case in cases(copy) if outcome(of_llama(case))[:1] in "+-"}
    assert patched


@pytest.mark.parametrize("source", [FORMS, *([Path(OWN)] if OWN else [])], ids=["forms", "own"][: 1 + bool(OWN)])
def test_fix_changes_names_and_nothing_else(source: Path, tmp_path: Path) -> None:
    mended = 0
    for number, one in enumerate(path for path in sorted(source.rglob("*")) if path.is_file()):
        file = tmp_path / f"{number}-{one.name}"
        text = one.read_text("utf-8").replace("max-input-tokens", "max-input-length")
        file.write_text(text.replace("MAX_INPUT_TOKENS", "MAX_INPUT_LENGTH"), "utf-8")
        before = file.read_bytes()
        made = lint.check(str(file), Settings(), lint.Asked(fix=True))
        after = file.read_bytes()
        assert (made.fixed > 0) == (after != before)
        assert re.sub(rb"[\w.-]+", b"x", after) == re.sub(rb"[\w.-]+", b"x", before)
        words = [re.findall(rb"[\w.-]+", data) for data in (before, after)]
        assert sum(old != new for old, new in zip(*words, strict=True)) <= made.fixed
        mended += made.fixed
        assert lint.check(str(file), Settings(), lint.Asked(fix=True)).fixed == 0
        assert file.read_bytes() == after
    assert mended >= 3


CODINGS = {
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "bom": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "latin-1": lambda text: b"# caf\xe9\n" + text.encode(),
    "no-end": lambda text: text.rstrip("\n").encode(),
    "blanks": lambda text: text.replace("\n", "  \t\n").encode(),
    "two-ends": lambda text: text.replace("\n", "\r\n", 3).encode(),
}


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("form", ["args-pairs.yaml", "env-secret-first.yaml", "compose-list.yaml", "values.yaml"])
def test_every_coding_is_kept(name: str, form: str, tmp_path: Path) -> None:
    file = tmp_path / form
    text = (FORMS / form).read_text("utf-8")
    file.write_bytes(CODINGS[name](text))
    assert held(Case(file))
    (tmp_path / "plain").mkdir()
    plain = tmp_path / "plain" / form
    plain.write_text(text, "utf-8")
    Case(plain).patched()
    if name not in ("no-end", "blanks", "two-ends"):
        assert file.read_bytes() == CODINGS[name](plain.read_text("utf-8"))


def test_lines_that_end_with_a_carriage_return_alone_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_bytes(POD.replace("\n", "\r").encode())
    before = file.read_bytes()
    ran = run("advise", str(file), "--patch", *A100)
    assert ran.code in (Exit.SPEC, Exit.USAGE)
    assert file.read_bytes() == before


comments = st.lists(
    st.sampled_from(["# a comment", "#", "# --max-total-tokens 1", "# {{ .Values.x }}", "# tab\there ", ""]),
    max_size=3,
)
LINES = 8


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    between=st.lists(comments, min_size=LINES, max_size=LINES), step=st.sampled_from([1, 2, 4, 7]),
    inner=st.sampled_from([0, 2, 3]), style=st.sampled_from(["env", "pairs", "words"]),
    quote=st.sampled_from(["", "'", '"']), given=st.sampled_from([(), ("max-total-tokens",), LIMITS[:1]]),
    trailing=st.sampled_from(["", "  ", "   # why"]), final=st.sampled_from(["\n", "", "\n\n"]), crlf=st.booleans(),
)  # fmt: skip
def test_whatever_surrounds_the_limits_stays(
    tmp_path: Path, between: list[list[str]], step: int, inner: int, style: str, quote: str, given: tuple[str, ...],
    trailing: str, final: str, crlf: bool,
) -> None:  # fmt: skip
    pad, deep = " " * step, " " * (step + 2 + inner)

    def q(word: str) -> str:
        return f"{quote}{word}{quote}" if quote or not word.isdigit() else f"'{word}'"

    told = [("model-id", QWEN), *((name, "4096") for name in given), ("port", "8080")]
    body = [f"{pad}  {'env' if style == 'env' else 'args'}:"]
    for name, value in told:
        body += {
            "env": [f"{deep}- name: {q(name.replace('-', '_').upper())}", f"{deep}  value: {q(value)}"],
            "pairs": [f"{deep}- {q(f'--{name}')}", f"{deep}- {q(value)}"],
            "words": [f"{deep}- {q(f'--{name}={value}')}"],
        }[style]
    head = [
        "apiVersion: v1", "kind: Pod", "metadata: {name: tgi, namespace: prod}", "spec:", f"{pad}containers:",
        f"{pad}- name: tgi", f"{pad}  image: ghcr.io/huggingface/text-generation-inference:3.3.7",
        f"{pad}  resources: {{limits: {{nvidia.com/gpu: 1}}}}",
    ]  # fmt: skip
    assert len(head) == LINES
    lines = [line for more, one in zip(between, head, strict=True) for line in (*more, one + trailing)]
    text = "\n".join([*lines, *(f"{line}{trailing}" for line in body)]) + final
    file = tmp_path / "pod.yaml"
    file.write_bytes((text.replace("\n", "\r\n") if crlf else text).encode())
    assert held(Case(file))
    after = file.read_text("utf-8")
    assert _without_limits(yaml.safe_load(after)) == _without_limits(yaml.safe_load(text))
    kept = [line for line in text.split("\n") if not _of_limit(line)]
    assert [line for line in after.split("\n") if line in kept] == kept
    assert all(_of_limit(line) or re.search(r"\d{4,}|name: ", line) for line in after.split("\n") if line not in kept)


def _of_limit(line: str) -> bool:
    """Whether a line holds a limit, or its value."""
    return re.search(r"max[-_]|4096", line, re.IGNORECASE) is not None


def _without_limits(pod: Any) -> Any:
    """A pod without its limits."""
    (container,) = pod["spec"]["containers"]
    words = " ".join(container.pop("args", []))
    told = re.sub(rf"--({'|'.join(LIMITS)})[ =]\d+", "", words).split()
    names = {name.replace("-", "_").upper() for name in LIMITS}
    return pod, told, [one for one in container.pop("env", []) if one["name"] not in names]


# ---- the file itself


def test_links_modes_and_second_names_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link, second = tmp_path / "real" / "pod.yaml", tmp_path / "pod.yaml", tmp_path / "second.yaml"
    real.write_text(POD)
    real.chmod(0o640)
    link.symlink_to(Path("real") / "pod.yaml")
    assert run("advise", str(link), "--patch", *A100).code == Exit.STARTS
    assert link.is_symlink()
    assert (real.read_text() != POD, stat.S_IMODE(real.stat().st_mode)) == (True, 0o640)
    assert list((tmp_path / "real").iterdir()) == [real]
    real.write_text(POD)
    os.link(real, second)
    run("advise", str(real), "--patch", *A100)
    assert real.samefile(second)
    assert second.read_text() != POD


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_that_is_not_written_to_its_end_is_whole(
    fault: BaseException, linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(POD)
    if linked:
        os.link(file, tmp_path / "second")
    calls = 0

    def failing(name: str) -> Any:
        real = getattr(os, name) if hasattr(os, name) else getattr(files, name)

        def once(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                if name == "_put":
                    arguments[0].write(b"half of i")
                raise fault
            return real(*arguments)

        return once

    if linked:
        monkeypatch.setattr(files, "_put", failing("_put"))
    else:
        monkeypatch.setattr(os, "replace", failing("replace"))
    try:
        tgi_advisor.patch(file, gpu="nvidia-a100-80gb-sxm", offline=True)
    except (KeyboardInterrupt, AdvisorError):
        assert file.read_text() == POD
    else:  # its folder takes no other file, and it was written in place
        assert isinstance(fault, OSError)
        assert not linked
        assert file.read_text() != POD
    assert calls == 1 or linked
    assert sorted(one.name for one in tmp_path.iterdir()) == (["pod.yaml", "second"] if linked else ["pod.yaml"])


def test_a_file_that_may_not_be_written_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(POD)
    real = open

    def closed(path: Any, mode: str = "r", *more: Any, **others: Any) -> Any:
        if str(path) == str(file) and "+" in mode:
            raise PermissionError(13, "Permission denied")
        return real(path, mode, *more, **others)

    monkeypatch.setattr("builtins.open", closed)
    ran = run("advise", str(file), "--patch", *A100)
    assert (ran.code, file.read_text()) == (Exit.USAGE, POD)
    assert "cannot be written: Permission denied" in ran.err


def test_a_file_that_changed_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(POD)
    document, _ = lint.opened(str(file), None)
    file.write_text(POD + "# mine\n")
    with pytest.raises(AdvisorError, match="has changed since it was read"):
        lint.rewrite(str(file), document, POD)
    assert file.read_text() == POD + "# mine\n"
    text = files.load(str(file))
    assert text is not None
    with pytest.raises(AdvisorError, match="has changed since it was read"):
        files.save(str(file), text, text._replace(text=POD))
    assert file.read_text() == POD + "# mine\n"


@pytest.mark.parametrize("size", [1_100_000, 5_000_000])
def test_a_file_of_which_only_the_head_is_read_is_not_cut_off(size: int, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text((FORMS / "compose-list.yaml").read_text("utf-8") + "#\n" * (size // 2))
    before = file.read_bytes()
    for more in (("advise", str(file), "--patch", *A100), ("upgrade", str(file), "--to", "3.3.6", "--fix", *A100)):
        ran = run(*more)
        assert file.read_bytes() == before
        assert "only the first 1,048,576 characters" in ran.err
        assert ran.code == Exit.USAGE


# ---- several servers, and what the file does not say


def test_which_of_several_servers_got_them_is_said(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    shutil.copy(FORMS / "compose-noenv.yaml", file)
    before = file.read_text().splitlines()
    ran = run("advise", str(file), "--patch", "--server", "two", *A100)
    assert f"For two at {file}:5:3:" in ran.out
    assert file.read_text().splitlines()[:-1] == before[:-1]
    assert run("advise", str(file), "--patch", *A100).code == Exit.USAGE


def test_limits_of_an_environment_file_give_way_to_those_of_the_service(tmp_path: Path) -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3.3.7"
    file, beside = tmp_path / "compose.yaml", tmp_path / "tgi.env"
    file.write_text(f"services:\n  tgi:\n    image: {image}\n    env_file: tgi.env\n")
    beside.write_text(f"MODEL_ID={QWEN}\nMAX_TOTAL_TOKENS=4096\n")
    before = beside.read_bytes()
    assert run("advise", str(file), "--patch", *A100).code == Exit.STARTS
    assert yaml.safe_load(file.read_text())["services"]["tgi"]["environment"]["MAX_TOTAL_TOKENS"] == "32768"
    assert beside.read_bytes() == before
    assert "has these limits already" in run("advise", str(file), "--patch", *A100).out
    file.write_text(f"services:\n  tgi: {{image: '{image}', env_file: tgi.env}}\n")
    assert run("advise", str(file), "--patch", *A100).code == Exit.STARTS
    tgi = yaml.safe_load(file.read_text())["services"]["tgi"]
    assert (tgi["image"], len(tgi["environment"])) == (image, 3)


def test_a_model_that_the_file_leaves_open_may_be_said(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_text(
        "docker run --gpus all ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $1 --port 80\n"
    )
    assert run("advise", str(file), "--patch", *A100).code == Exit.USAGE
    assert run("advise", str(file), "--patch", "-m", QWEN, *A100).code == Exit.STARTS
    assert "--model-id $1 --port 80 --max-input-tokens" in file.read_text()
