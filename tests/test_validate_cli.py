"""`validate`, `rule` and `import` as a user runs them: what they print, and what they end with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from front import CONFIGS, L4, ROOT, process, run
from golden import Golden

import tgi_advisor
from tgi_advisor import api, lint
from tgi_advisor.cli.validate import FORMATS
from tgi_advisor.errors import Exit, UsageError
from tgi_advisor.gather import files
from tgi_advisor.plan import Container
from tgi_advisor.render import render
from tgi_advisor.spec.records import Spec
from tgi_advisor.validate import output
from tgi_advisor.validate.report import Tally
from tgi_advisor.validate.rules import RULES

DATA = ROOT / "tests" / "data" / "validate"
SARIF = json.loads((ROOT / "tests" / "data" / "sarif-2.1.0.schema.json").read_text("utf-8"))
SUFFIX = {"text": "txt", "json": "json", "sarif": "sarif", "github": "txt"}
FILES = {"docker-run": "run.sh", "compose": "compose.yaml", "kubernetes": "tgi.yaml", "env": "tgi.env"}
CLEAN = """\
services:
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:3.3.7
    command: --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1
    ports: ["8080:80"]
    volumes: ["tgi-data:/data"]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
"""
WARNS = CLEAN.replace(":3.3.7", ":latest")
WRONG = CLEAN.replace("--num-shard 1", "--num-shard one")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def there(here: Path) -> Path:
    """A folder with the example files."""
    shutil.copytree(DATA, here, dirs_exist_ok=True)
    return here


def emitted(config: Path) -> tuple[Container, str]:
    """What is emitted for a config, and the GPU it is planned for."""
    plan = api.advise(config, offline=True)
    assert plan.container is not None
    return plan.container, plan.spec.hardware.gpu.name


# -- what is printed


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(name: str, there: Path, golden: Golden) -> None:
    ran = run("validate", ".", "--gpu", "nvidia-l4", "--format", name)
    assert (ran.code, ran.err) == (Exit.FINDINGS, "")
    if name == "sarif":
        jsonschema.Draft4Validator(SARIF).validate(json.loads(ran.out))
        ran = ran._replace(out=json.dumps(json.loads(ran.out)["runs"][0]["results"], indent=2))
    golden(f"validate/{name}.{SUFFIX[name]}", ran.out)


def test_explain(there: Path, golden: Golden) -> None:
    ran = run("validate", "compose.yaml", "pod.yaml", "--explain", "--select", "TGI2", "--gpu", "nvidia-l4")
    assert (ran.code, ran.err) == (Exit.STARTS, "")
    golden("validate/explain.txt", ran.out)


def test_the_formats_are_those_there_are() -> None:
    assert FORMATS == output.FORMATS


def test_secrets_are_never_shown(there: Path) -> None:
    for command in (
        *(("validate", ".", "--format", name) for name in FORMATS), ("validate", ".", "--explain"),
        ("validate", ".", "--fix", "--diff"), ("import", "compose.yaml", "--server", "tgi"),
    ):  # fmt: skip
        ran = run(*command)
        assert "not-for-your-eyes" not in ran.out + ran.err


def test_a_long_line_is_shown_around_the_place(here: Path) -> None:
    (here / "run.sh").write_text(
        f"docker run {'-e A=b ' * 500} ghcr.io/huggingface/text-generation-inference:0 --foo\n"
    )
    out = run("validate", "run.sh", "--select", "TGI101").out
    line, caret = out.splitlines()[1:3]
    assert len(line) < 120
    assert line[caret.index("^") :].startswith("--foo")


def test_colour_is_for_terminals(there: Path) -> None:
    assert "\x1b" not in process("validate", ".").stdout
    style = output.Style(colour=True)
    reports = lint.validate_files(["compose.yaml"])
    assert "\x1b[31;1merror\x1b[0m" in "".join(output.write(reports, "text", Tally(), style))


def test_a_workflow_command_is_escaped(here: Path) -> None:
    (here / "a,b: 100%.yaml").write_text(WRONG)
    (line, _) = run("validate", "a,b: 100%.yaml", "-f", "github", "--select", "TGI103").out.splitlines()
    assert line.startswith("::error file=a%2Cb%3A 100%25.yaml,line=4,col=")
    assert line.count("::") == 2
    assert "%0A" in line


# -- what it ends with


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        (CLEAN, (), Exit.STARTS),
        (CLEAN, ("--strict",), Exit.STARTS),
        (WARNS, (), Exit.STARTS),
        (WARNS, ("--strict",), Exit.FINDINGS),
        (WARNS, ("--strict", "--ignore", "TGI501"), Exit.STARTS),
        (WARNS, ("--strict", "--select", "tgi2,TGI3"), Exit.STARTS),
        (WRONG, (), Exit.FINDINGS),
        (WRONG, ("--ignore", "TGI1"), Exit.STARTS),
        (WRONG, ("--select", "ALL"), Exit.FINDINGS),
        (WRONG, ("--select", "TGI9"), Exit.USAGE),
        (WRONG, ("--diff",), Exit.USAGE),
        (WRONG, ("--online", "--offline"), Exit.USAGE),
        (CLEAN, ("--gpu", "nvidia-t4"), Exit.FINDINGS),
        (CLEAN, ("--gpu", "nvidia-l44"), Exit.FACTS),
        (CLEAN, ("--release", "9.9.9"), Exit.FACTS),
        ("a: 1\n", (), Exit.STARTS),
        ("", (), Exit.STARTS),
    ],
)
def test_exit_codes(text: str, options: tuple[str, ...], code: Exit, here: Path) -> None:
    (here / "compose.yaml").write_text(text)
    assert run("validate", *options).code == code
    assert run("validate", "-", "--stdin-filename", "compose.yaml", *options, stdin=text).code == code


def test_what_is_not_there_is_said_before_anything_is_read(here: Path) -> None:
    (here / "compose.yaml").write_text(WRONG)
    ran = run("validate", "compose.yaml", "compose.yml", "*.sh")
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "compose.yml does not exist" in ran.err
    assert "did you mean 'compose.yaml'?" in ran.err
    assert "no file matches *.sh" in ran.err


def test_a_file_that_cannot_be_read_does_not_stop_the_others(here: Path) -> None:
    (here / "gone.yaml").symlink_to("nowhere")
    (here / "compose.yaml").write_text(WRONG)
    ran = run("validate", "gone.yaml", "compose.yaml")
    assert ran.code == Exit.USAGE
    assert "gone.yaml cannot be read: No such file or directory" in ran.err
    assert "TGI103" in ran.out


def test_a_defect_of_ours_is_told_apart_and_does_not_stop_the_others(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = lint.check

    def broken(path: str, *rest: Any) -> Any:
        return 1 / 0 if path == "a.yaml" else check(path, *rest)

    monkeypatch.setattr(lint, "check", broken)
    for name in ("a.yaml", "b.yaml"):
        (here / name).write_text(WRONG)
    ran = run("validate", ".")
    assert ran.code == Exit.BUG
    assert ran.err == "Error: a defect of tgi-advisor in a.yaml: ZeroDivisionError: division by zero\n"
    assert "b.yaml:4" in ran.out
    failed = json.loads(run("validate", ".", "-f", "sarif").out)["runs"][0]["invocations"][0]
    assert failed["executionSuccessful"] is False


def _fails(*_: Any) -> Any:
    raise KeyError(f"until {'*' * 3}")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("broken", ["TGI110", "TGI103"])
def test_a_rule_that_fails_costs_what_it_had_to_say(
    name: str, broken: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = WRONG + "    environment: [NUM_SHARDS=1]\n"
    (here / "compose.yaml").write_text(text)
    whole = {one.code for one in lint.validate_files(["compose.yaml"])[0].findings}
    monkeypatch.setitem(RULES, broken, RULES[broken]._replace(check=_fails))
    (report,) = lint.validate_files(["compose.yaml"])
    assert {one.code for one in report.findings} == whole - {broken} | {"TGI590"}
    ran = run("validate", ".", "-f", name, "--select", "TGI1")
    assert (ran.code, ran.err) == (Exit.FINDINGS if broken == "TGI110" else Exit.STARTS, "")
    assert f"{broken} ({RULES[broken].title}) was not judged" in ran.out
    assert "KeyError" in ran.out
    assert "TGI171" in ran.out
    assert "TGI590" not in run("validate", ".", "--ignore", "TGI590").out
    assert run("validate", ".", "-f", name, "--select", "TGI171", "--strict").code == Exit.FINDINGS


def test_an_outlook_that_fails_costs_no_rule_its_say(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgi_advisor.validate.judge._with_refusals", _fails)
    (here / "compose.yaml").write_text(WRONG)
    assert {one.code for one in lint.validate_files(["compose.yaml"])[0].findings} >= {"TGI103", "TGI590"}


@pytest.mark.parametrize(
    ("name", "what"),
    [("text", "text._excerpt"), ("json", "json_._place"), ("sarif", "sarif._uri"), ("github", "github._data")],
)
def test_a_finding_that_cannot_be_written_costs_no_other(
    name: str, what: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module, _, function = what.partition(".")
    where = importlib.import_module(f"tgi_advisor.validate.output.{module}")
    real, calls = getattr(where, function), []

    def once(*args: Any, **more: Any) -> Any:
        calls.append(args)
        return _fails() if len(calls) == 1 else real(*args, **more)

    monkeypatch.setattr(where, function, once)
    (here / "compose.yaml").write_text(WRONG + "    environment: [NUM_SHARDS=1]\n")
    ran = run("validate", ".", "-f", name)
    assert (ran.code, ran.err) == (Exit.FINDINGS, "")
    assert "cannot be written, because of a defect of tgi-advisor: KeyError" in ran.out
    assert "TGI171" in ran.out


def test_a_fixer_that_fails_costs_no_finding(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgi_advisor.validate.fix.edits", _fails)
    text = WRONG + "    environment: [NUM_SHARDS=1]\n"
    (here / "compose.yaml").write_text(text)
    ran = run("validate", ".", "--fix")
    assert (ran.code, (here / "compose.yaml").read_text()) == (Exit.FINDINGS, text)
    assert "compose.yaml: nothing was mended, because of a defect of tgi-advisor: KeyError" in ran.err
    assert "TGI171" in ran.out


# -- which files


def test_folders_patterns_and_bytes(here: Path) -> None:
    (here / "deploy" / "deep").mkdir(parents=True)
    (here / "node_modules").mkdir()
    for name in ("deploy/a.yaml", "deploy/deep/b.yml", "deploy/c.dat", "node_modules/d.yaml", "deploy/.env.e"):
        (here / name).write_text(WRONG if "env" not in name else "MODEL_ID=gpt2\nNUM_SHARD=one\n")
    (here / "deploy" / "binary.yaml").write_bytes(b"\0\1" + WRONG.encode())
    (here / "deploy" / "wide.yaml").write_bytes(WRONG.encode("utf-16"))
    (here / "deploy" / "latin.yaml").write_bytes("# café\n".encode("latin-1") + WRONG.encode())
    (here / "deploy" / "loop").symlink_to(here / "deploy")

    def found(*paths: str) -> list[str]:
        return sorted({one["file"] for one in json.loads(run("validate", "-f", "json", *paths).out)["findings"]})

    every = ["deploy/.env.e", "deploy/a.yaml", "deploy/deep/b.yml", "deploy/latin.yaml", "deploy/wide.yaml"]
    assert found() == found(".") == found("deploy", "deploy/a.yaml") == every
    assert found("**/*.yml") == ["deploy/deep/b.yml"]
    assert found("deploy/c.dat") == ["deploy/c.dat"]
    assert found("--exclude", "deep", "--exclude", "deploy/w*") == [one for one in every if one[7] not in "dw"]


def test_an_environment_file_is_looked_up_beside_the_file_and_told_of_once(there: Path) -> None:
    for paths in ((".",), ("compose.yaml",), ("compose.yaml", "./chat.env"), (str(there / "compose.yaml"),)):
        findings = json.loads(run("validate", "-f", "json", *paths).out)["findings"]
        (one,) = [one for one in findings if one["file"].endswith("chat.env")]
        assert (one["code"], one["line"]) == ("TGI103", 2)
        assert (there / one["file"]).samefile(there / "chat.env")


def test_only_what_lies_beside_is_looked_up(here: Path) -> None:
    (here / "x.env").write_text("A=b\n")
    beside = files.Beside("compose.yaml")
    assert [beside(name) for name in (str(here / "x.env"), "~/x.env", "/dev/zero", "", "nothing", ".", "x\0")] == [
        None
    ] * 7
    assert beside("x.env") == "A=b\n"


def test_a_pipe_beside_a_file_is_not_waited_for(here: Path) -> None:
    import os

    os.mkfifo(here / ".env")
    (here / "compose.yaml").write_text(CLEAN.replace("Qwen/Qwen2.5-7B-Instruct", "${MODEL}"))
    assert run("validate", "compose.yaml").code == Exit.STARTS


# -- settings


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ("strict = true", Exit.FINDINGS),
        ('strict = true\nignore = ["TGI501"]', Exit.STARTS),
        ('strict = true\nselect = ["TGI1"]', Exit.STARTS),
        ('strict = true\nexclude = ["compose.*"]', Exit.STARTS),
        ('strict = true\nper-file-ignores = {"comp*" = ["TGI5"]}', Exit.STARTS),
        ('strict = true\nper-file-ignores = {"other/*" = ["TGI5"]}', Exit.FINDINGS),
        ('gpu = "nvidia-t4"', Exit.FINDINGS),
        ('gpu = "g4dn.xlarge"\ncount = 1', Exit.FINDINGS),
        ('release = "2.4.1"', Exit.STARTS),
    ],
)
def test_settings(settings: str, code: Exit, here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "compose.yaml").write_text(WARNS)
    (here / ".tgi-advisor.toml").write_text(settings)
    assert run("validate", ".").code == code
    (here / ".tgi-advisor.toml").rename(here / "other.toml")
    assert run("validate", ".").code == Exit.STARTS
    assert run("validate", ".", "--config", "other.toml").code == code
    (here / "pyproject.toml").write_text(f"[tool.tgi-advisor]\n{settings}\n")
    assert run("validate", "sub").code == code
    (here / "sub" / "pyproject.toml").write_text("[tool.other]\n")
    assert run("validate", ".").code == code
    (here / "sub" / ".tgi-advisor.toml").write_text("")
    assert run("validate", ".").code == Exit.STARTS


def test_the_command_line_wins_over_settings(here: Path) -> None:
    (here / "compose.yaml").write_text(WARNS)
    (here / ".tgi-advisor.toml").write_text('ignore = ["TGI"]\nstrict = true')
    assert run("validate", ".").code == Exit.STARTS
    assert run("validate", ".", "--ignore", "TGI502").code == Exit.FINDINGS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.tgi-advisor]\nselct = ["TGI1"]\n', "pyproject.toml:2:1: 'selct' is no setting of tgi-advisor"),
        ('[tool.x]\nselect=1\n[tool.tgi-advisor]\nselect = ["TGI9"]\n', "pyproject.toml:4:1: select: no rule's code"),
        ("[tool.tgi-advisor]\n\ncount = 0\n", "pyproject.toml:3:1: count: expected a whole number"),
        ("[tool]\ntgi-advisor = 1\n", "pyproject.toml:2:1: tool.tgi-advisor must be a table"),
        ("[tool.tgi-advisor]\nstrict = maybe\n", "pyproject.toml:2:10: Invalid value"),
    ],
)
def test_settings_that_are_wrong(text: str, said: str, here: Path) -> None:
    (here / "pyproject.toml").write_text(text)
    (here / "compose.yaml").write_text(CLEAN)
    ran = run("validate", ".")
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert said in ran.err


# -- comments


@pytest.mark.parametrize(
    ("comment", "codes"),
    [
        ("# tgi-advisor: ignore[TGI501] on purpose", set()),
        ("# tgi-advisor: ignore[tgi5, TGI1] on purpose", set()),
        ("# tgi-advisor: ignore[TGI501]", {"TGI540"}),
        ("# tgi-advisor: ignore[TGI502] on purpose", {"TGI501"}),
        ("# tgi-advisor: ignore[TGI999] on purpose", {"TGI501", "TGI540"}),
        ("# tgi-advisor: ignore on purpose", {"TGI501", "TGI540"}),
    ],
)
def test_a_comment_ignores(comment: str, codes: set[str], here: Path) -> None:
    for text in (
        WARNS.replace(":latest", f":latest {comment}"),
        WARNS.replace("    image:", f"    {comment}\n    # and more\n    image:"),
    ):
        (here / "compose.yaml").write_text(text)
        (one,) = lint.validate_files(["compose.yaml"], ignore=["TGI504", "TGI505"])
        assert {finding.code for finding in one.findings} == codes
        assert one.ignored == ("TGI501" not in codes)


def test_a_comment_above_a_command_covers_its_continued_lines(there: Path) -> None:
    (report,) = lint.validate_files(["run.sh"], select=["TGI3"])
    assert (report.findings, report.ignored) == ((), 1)


# -- fixes


def test_fix_shows_the_change_and_keeps_everything_else(there: Path, golden: Golden) -> None:
    before = (there / "compose.yaml").read_bytes()
    shown = run("validate", "compose.yaml", "pod.yaml", "--fix", "--diff", "--select", "TGI107")
    assert (shown.code, (there / "compose.yaml").read_bytes()) == (Exit.FINDINGS, before)
    made = run("validate", "compose.yaml", "pod.yaml", "--fix")
    golden("validate/fix.txt", made.out)
    after = (there / "compose.yaml").read_bytes()
    assert after == before.replace(b"shrad", b"shard").replace(b"MAX_INPUT_LENGTH", b"MAX_INPUT_TOKENS").replace(
        b"=True", b"=true"
    )
    again = run("validate", "compose.yaml", "pod.yaml", "--fix")
    assert "mended" not in again.out
    assert (there / "compose.yaml").read_bytes() == after


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_fix_keeps_line_ends_and_encoding(codec: str, here: Path) -> None:
    text = "# café\r\n" + CLEAN.replace("--num-shard 1", "--max-input-length 100 --max-total-tokens 200").replace(
        "\n", "\r\n"
    )
    (here / "compose.yaml").write_bytes(text.encode(codec))
    assert run("validate", "--fix", ".").code == Exit.STARTS
    assert (here / "compose.yaml").read_bytes() == text.replace("input-length", "input-tokens").encode(codec)


@pytest.mark.parametrize(
    "text",
    [
        "export NUM_SHARDS=2\ndocker run -e NUM_SHARDS {image} --model-id gpt2\n",
        "NUM_SHARDS=2\ndocker run -e NUM_SHARDS=$NUM_SHARDS {image} --model-id gpt2\n",
        "services:\n  a: {{image: '{image}', environment: [NUM_SHARDS]}}\n",
        "services:\n"
        "  a: {{image: '{image}', environment: &e {{MAX_INPUT_LENGTH: 1, MAX_TOTAL_TOKENS: 2}}}}\n"
        "  b: {{image: '{old}', environment: *e}}\n",
        "services:\n  a: {{image: '{image}', environment: {{NUM_SHARDS: 2}}, command: --num-shard $${{NUM_SHARDS}}}}\n",
    ],
)
def test_a_name_that_something_else_uses_is_not_mended(text: str, here: Path) -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3.3.7"
    name = here / ("compose.yaml" if text.startswith("services") else "run.sh")
    name.write_text(text.format(image=image, old=image.replace("3.3.7", "1.4.5")))
    before = name.read_text()
    run("validate", "--fix", ".")
    assert name.read_text() == before


WORKS = "MODEL_ID=HuggingFaceH4/zephyr-7b-beta\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("x.env", f"{WORKS}MAX_BATCH_PEFILL_TOKENS=many\n", "TGI103 would follow"),
        ("x.env", f"{WORKS}NUM_SHARDS=\n", "TGI104 would follow"),
        ("x.env", f"{WORKS}MAX_TOTAL_TOKEN=5\nMAX_INPUT_TOKENS=9\n", "TGI11"),
        ("run.sh", "docker run -e DTYP=float32 -e QUANTIZ=nope {image} --model-id gpt2\n", "TGI103 would follow"),
    ],
)
def test_a_fix_that_makes_a_file_worse_is_taken_back(file: str, text: str, said: str, here: Path) -> None:
    text = text.format(image="ghcr.io/huggingface/text-generation-inference:3.3.7")
    good = "MAX_CONCURRENT_REQUEST=4\n" if file == "x.env" else "# NUM_SHARD\n"
    (here / file).write_text(text + good)
    before = run("validate", file)
    assert said in before.out
    assert "--fix leaves it" in before.out
    ran = run("validate", file, "--fix")
    assert ran.code == before.code
    assert (here / file).read_text() == text + good.replace("REQUEST=", "REQUESTS=")
    if file == "x.env":
        assert "--fix mends 1 of them" in before.out
    assert run("validate", file, "--fix").out == run("validate", file).out


def test_a_link_out_of_the_folder_is_not_written_through(here: Path) -> None:
    text = WRONG.replace("--num-shard one", "--num-shrad 1")
    (here / "folder").mkdir()
    (here / "outside.yaml").write_text(text)
    (here / "folder" / "a.yaml").symlink_to(here / "outside.yaml")
    ran = run("validate", "folder", "--fix")
    assert "folder/a.yaml: not written: it is a link to a file elsewhere" in ran.err
    assert (here / "outside.yaml").read_text() == text
    run("validate", "folder/a.yaml", "--fix")
    assert (here / "outside.yaml").read_text() != text


def test_a_file_that_cannot_be_written_does_not_stop_the_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, text: Any, before: Any) -> None:
        raise UsageError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(files, "save", full)
    for name in ("a.yaml", "b.yaml"):
        (here / name).write_text(WRONG.replace("--num-shard one", "--num-shrad 1 --num-shard one"))
    ran = run("validate", ".", "--fix")
    assert ran.code == Exit.USAGE
    assert "a.yaml cannot be written" in ran.err
    assert "b.yaml cannot be written" in ran.err


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x85", "\x0b"])
def test_a_name_with_line_ends_writes_no_key(end: str, here: Path) -> None:
    from tgi_advisor.spec import reader

    hostile = f"x{end}limits: {{max_total_tokens: 7}}{end}workload: {{concurrency: 9}}{end}#"
    service = {"image": "ghcr.io/huggingface/text-generation-inference:3.3.7", "command": ["--model-id", "gpt2"]}
    more = {"user": hostile, "working_dir": hostile, "environment": {"A": hostile}, "network_mode": hostile}
    (here / f"x{end}limits: 1.yaml").write_text(json.dumps({"services": {hostile: {**service, **more}}}))
    for name in here.iterdir():
        spec = reader.read_text(run("import", name.name, "--gpu", "nvidia-l4").out, "x.yaml")
        assert (spec.model.id, spec.limits, spec.workload) == ("gpt2", Spec().limits, Spec().workload)


def test_of_two_spellings_of_one_name_neither_is_mended(here: Path) -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3.3.7"
    text = f"docker run -e NUM_SHARDS=1 -e NUM_SHAR=2 {image} --model-id gpt2 --dtpye float16 --dtyp bfloat16\n"
    (here / "run.sh").write_text(text)
    assert "mended" not in run("validate", "run.sh", "--fix").out
    assert (here / "run.sh").read_text() == text


def test_a_fix_of_what_is_refused_may_show_the_next_refusal(here: Path) -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3.3.7"
    (here / "run.sh").write_text(f"docker run {image} --model-id gpt2 -num-shard 2 --dtpye nope\n")
    assert "-num-shard 2" not in run("validate", "run.sh", "--fix").out.split("1 mended")[0].splitlines()[-1]
    assert "--num-shard 2 --dtype nope" in (here / "run.sh").read_text()


def test_a_file_that_was_not_read_to_its_end_is_not_rewritten(here: Path) -> None:
    text = CLEAN.replace("--num-shard 1", "--num-shrad 1") + "# more\n" * 200_000
    (here / "compose.yaml").write_text(text)
    ran = run("validate", "--fix", ".")
    assert (ran.code, (here / "compose.yaml").read_text() == text) == (Exit.FINDINGS, True)
    assert "only the first 1,048,576 characters were read" in ran.err


def test_quotes_that_belong_to_the_value_are_mended(here: Path) -> None:
    text = CLEAN + '    environment:\n      - QUANTIZE="fp8"\n'
    (here / "compose.yaml").write_text(text)
    run("validate", "--fix", ".")
    assert (here / "compose.yaml").read_text() == text.replace('"fp8"', "fp8")


# -- rule


def test_rule_prints_a_section_of_the_page() -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    for code in RULES:
        assert run("rule", code.lower()).out in page
    listed = run("rule").out.splitlines()
    assert [line.split()[0] for line in listed] == list(RULES)
    unknown = run("rule", "TGI999")
    assert (unknown.code, unknown.out) == (Exit.USAGE, "")


# -- what tgi-advisor itself writes


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_what_is_emitted_validates_clean_and_imports_as_itself(config: Path, here: Path) -> None:
    container, gpu = emitted(config)
    memory = "64GiB" if gpu == "intel-cpu" else None
    for form, file in FILES.items():
        (here / file).write_text(render(container, form))
    shutil.copy(config, here / "spec.yaml")
    options = ("--strict",) if memory else ("--strict", "--gpu", gpu)
    checked = run("validate", *FILES.values(), "spec.yaml", *options)
    assert (checked.code, checked.err) == (Exit.STARTS, ""), checked.out
    for form, file in FILES.items():
        spec = lint.import_server(file, gpu=gpu, memory=memory)
        assert "# -" not in spec
        (here / "imported.yaml").write_text(spec)
        again = run("emit", "imported.yaml", "--as-given", "--format", form, "--offline")
        assert (again.code, again.out) == (Exit.STARTS, render(container, form))


VARIANTS = {
    "old release": ("tgi.image=ghcr.io/huggingface/text-generation-inference:1.4.5", "container.token_env=MINE"),
    "another token": ("container.token_env=MY_TOKEN", "container.name=my-llama", "container.port=9000"),
    "devices": ("hardware.count=2", "tgi.num_shard=2", "container.gpus=['1', '3']", "container.shm_size=512m"),
    "volume": ("container.cache=weights", "tgi.env.LOG_LEVEL=a $b 'c' \"d\"", "hardware.memory_fraction=0.9"),
    "home": ("container.cache=~/models cache", "model.dtype=bfloat16", "tgi.flags.max-batch-size=7"),
    "lists": ("tgi.flags.cuda-graphs=[1, 2]", "tgi.flags.disable-grammar-support=true", "model.quantize=fp8"),
    "mounts": (
        "container.mounts=['/srv/a b:/adapters:ro', 'vol.1:/more', '/srv/it''s:/x/$y']",
        "tgi.flags.lora-adapters='org/one,mine=/adapters/mine'",
    ),
    "mirror": ("tgi.image=registry.corp.example/ml/text-generation-inference:3.3.7", "tgi.flags.hostname=0.0.0.0"),
    "token": ("container.token_env=corp_token", "tgi.env.HOSTNAME=x", "tgi.env.HF_HUB_ENABLE_HF_TRANSFER='0'"),
    "colon": ("container.cache=/srv/a:b \"c\",d", "tgi.env.HF_MODEL_ID=x", "tgi.env.SM_NUM_GPUS='1'"),
    "variables": ("tgi.env.CUDA_GRAPHS='1,2'", "tgi.env.MAX_BATCH_SIZE='4'", "tgi.flags.validation-workers=3"),
    "sizes": ("container.mounts=['/srv/a b:/a:ro', 'vol:/v']", "container.shm_size=3k"),
    "dollars": ("tgi.env.X='$(y) $$ `q` $z $'", "tgi.env.Y='$(HOSTNAME)'"),
    "split": ("tgi.flags.tokenizer-config-path=/a b/*", "tgi.env.TGI_WIGGLE_ROOM='0.8'"),
}  # fmt: skip


def without_assumptions(notes: str) -> str:
    """What is said, but for adapters whose rank is assumed."""
    return "".join(line for line in notes.splitlines(True) if not line.startswith("Note: adapter "))


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_import_after_emit_is_the_identity(variant: str, form: str, here: Path) -> None:
    sets = [word for one in VARIANTS[variant] for word in ("--set", one)]
    if "1.4.5" in sets[1]:
        sets += ["--set", "model.id=HuggingFaceH4/zephyr-7b-beta"]
    ran = run("emit", L4, *sets, "--format", form, "--offline")
    assert (ran.code, without_assumptions(ran.err)) == (Exit.STARTS, "")
    (here / FILES[form]).write_text(ran.out)
    strict = () if "SM_NUM_GPUS" in str(sets) else ("--strict",)  # which warns of what only SageMaker reads
    checked = run("validate", FILES[form], *strict, "--gpu", "nvidia-l4")
    assert checked.code == Exit.STARTS, checked.out
    (here / "spec.yaml").write_text(run("import", FILES[form], "--gpu", "nvidia-l4").out)
    again = run("emit", "spec.yaml", "--as-given", "--format", form, "--offline")
    assert (without_assumptions(again.err), again.out) == ("", ran.out)


def test_import_says_what_it_leaves_out(there: Path, golden: Golden) -> None:
    golden("validate/import-pod.yaml", run("import", "pod.yaml", "--gpu", "nvidia-l4").out)
    golden("validate/import-compose.yaml", run("import", "compose.yaml", "--server", "chat").out)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a: 1\n", (), "there is no TGI server in x.yaml"),
        (CLEAN.replace("Qwen/Qwen2.5-7B-Instruct", "$MODEL"), (), "the model of this server is not in the file"),
        (CLEAN + CLEAN.split("\n", 1)[1].replace("tgi:", "more:"), (), "x.yaml has 2 TGI servers"),
        (CLEAN, ("--server", "other"), "x.yaml has no server named 'other'"),
        ("model: {id: gpt2}\nhardware: {gpu: nvidia-l4}\n", (), "is a deployment spec already"),
        (CLEAN, ("--gpu", "nvidia-l44"), "nvidia-l44"),
    ],
)
def test_what_cannot_be_imported(text: str, options: tuple[str, ...], said: str, here: Path) -> None:
    (here / "x.yaml").write_text(text)
    ran = run("import", "x.yaml", *options)
    assert ran.code in (Exit.USAGE, Exit.FACTS)
    assert ran.out == ""
    assert said in ran.err


def test_what_is_imported_can_be_advised(there: Path) -> None:
    (there / "spec.yaml").write_text(run("import", "pod.yaml", "--gpu", "nvidia-l4").out)
    assert run("advise", "spec.yaml", "--offline").code == Exit.STARTS


# -- for programs


def test_the_api(there: Path) -> None:
    reports = tgi_advisor.validate_files([there / "pod.yaml", there / "unrelated.yaml"], select=["TGI53"])
    assert [[one.code for one in report.findings] for report in reports] == [["TGI532"]]
    assert "num_shard: 1" in tgi_advisor.import_server(str(there / "pod.yaml"))
    with pytest.raises(UsageError, match="no rule's code"):
        tgi_advisor.validate_files([there], ignore=["E501"])
    with pytest.raises(UsageError, match="nothing to check"):
        tgi_advisor.validate_files([there / "nothing"])


@pytest.mark.parametrize("document", ["docs/validate.md", "README.md"])
def test_the_pages_name_every_option(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    wanted = [line.split()[0] for line in run("validate", "--help").out.splitlines() if line.startswith("  --")]
    assert "tgi-advisor validate" in text
    if document.startswith("docs"):
        assert [option for option in wanted if option.rstrip(",") not in text] == ["--help"] * ("--help" in wanted)


# -- how many GPUs, and what is not known

SEVERAL = "docker run {} --shm-size 1g -p 8080:80 -v d:/data ghcr.io/huggingface/text-generation-inference:{} {} {}\n"


@pytest.mark.parametrize(
    ("options", "request_", "args", "expected"),
    [
        (("-g", "l4"), "--gpus all", "", ("TGI505", "judged with one GPU: neither the file nor --count says how many")),
        (("-g", "g5.4xlarge"), "--gpus all", "", ("TGI505", "judged with one GPU, which is what g5.4xlarge has")),
        (("-g", "g5.12xlarge"), "--gpus all", "", ("TGI505", "judged with 4 GPUs, which is what g5.12xlarge has")),
        (("-g", "l4", "-n", "2"), "--gpus all", "", None),
        (("-g", "l4"), "--gpus 2", "", None),
        (("-g", "g5.12xlarge"), "--gpus 2", "", None),
        (("-g", "l4"), "--gpus all", "--num-shard 2", None),
        (("-g", "g5.4xlarge"), "--gpus all", "--num-shard 2", ("TGI143", "2 shards, but g5.4xlarge has 1 GPU")),
        (("-g", "g5.4xlarge"), "--gpus 2", "", ("TGI143", "2 GPUs asked for, but g5.4xlarge has 1 GPU")),
        (("-g", "l4"), "--gpus all", "--sharded true", ("TGI505", "how many GPUs TGI will use is not known (--count")),
        ((), "--gpus all", "", ("TGI505", "the file names no GPU (--gpu does)")),
        (("-g", "l4"), "--gpus 1 -e PREFILL_CHUNKING=$X", "", ("TGI505", "PREFILL_CHUNKING is not in the file")),
        (("-g", "l4"), "--gpus 1", "--max-batch-prefill-tokens 0", ("TGI505", "max_batch_prefill_tokens is 0")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tag", ["3.3.7", "latest"])
def test_how_many_gpus_were_taken_is_said(
    tag: str, options: tuple[str, ...], request_: str, args: str, expected: tuple[str, str] | None
) -> None:
    text = SEVERAL.format(request_, tag, "--model-id Qwen/Qwen2.5-7B-Instruct", args)
    command = ("validate", "-", "--stdin-filename", "run.sh", *options)
    said = json.loads(run(*command, "-f", "json", "--ignore", "TGI501,TGI504", stdin=text).out)
    found = [(one["code"], one["message"]) for one in said["findings"] if one["code"] in ("TGI505", "TGI143")]
    (server,) = said["servers"]
    if expected is None:
        assert (found, server["assumed"], server["unjudged"]) == ([], [], [])
        assert server["outcome"] is not None
        return
    assert [(code, expected[1] in message) for code, message in found if code == expected[0]] == [(expected[0], True)]
    told = run(*command, "--explain", stdin=text).out
    gpu = next((why for why in server["unjudged"] if "--gpu does" in why), None)  # then it alone is the finding's
    for why in (*server["assumed"], *server["unjudged"]):
        assert told.count(why) == (2 if gpu in (None, why) else 1)  # in the explanation, and in the finding
    assert bool(server["assumed"]) == ("judged with" in "".join(message for _, message in found))


def test_the_settings_file_names_the_gpu_and_the_action_its_count(here: Path) -> None:
    (here / ".tgi-advisor.toml").write_text('gpu = "g5.4xlarge"\n')
    (here / "run.sh").write_text(SEVERAL.format("--gpus all", "3.3.7", "--model-id Qwen/Qwen2.5-7B-Instruct", ""))
    assert "judged with one GPU, which is what g5.4xlarge has" in run("validate", "run.sh").out
    (here / ".tgi-advisor.toml").write_text('gpu = "nvidia-l4"\ncount = 2\n')
    assert json.loads(run("validate", "run.sh", "-f", "json").out)["servers"][0]["shards"] == 2
    action = (ROOT / "action.yml").read_text("utf-8")
    assert 'if [[ -n $COUNT ]]; then arguments+=(--count "$COUNT"); fi' in action


PINNED = "0123456789abcdef0123456789abcdef01234567"


def test_a_pinned_commit_is_judged_by_the_shipped_shapes_and_says_so(here: Path) -> None:
    args = f"--num-shard 1 --revision {PINNED}"
    (here / "run.sh").write_text(SEVERAL.format("--gpus all", "3.3.7", "--model-id Qwen/Qwen2.5-32B-Instruct", args))
    ran = run("validate", "run.sh", "-g", "l4", "--explain")
    assert "error TGI201" in ran.out
    assert (
        "info TGI505: Qwen/Qwen2.5-32B-Instruct is taken to have at 0123456789ab the shapes of the snapshot" in ran.out
    )
    assert "None" not in ran.out
    (here / "spec.yaml").write_text(run("import", "run.sh", "-g", "l4").out)
    planned = run("predict", "spec.yaml", "--offline")
    assert planned.code == Exit.OUT_OF_MEMORY
    assert "is taken to have at 0123456789ab the shapes" in " ".join(planned.out.split())
    branch = run("validate", "-", "-g", "l4", stdin=(here / "run.sh").read_text().replace(PINNED, "gptq-4bit"))
    assert "TGI201" not in branch.out
    assert "nothing is known of Qwen/Qwen2.5-32B-Instruct" in branch.out


def test_an_outlook_that_cannot_be_made_says_why(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tgi_advisor.errors import FactsError

    def fails(*_: Any) -> Any:
        raise FactsError("the moon is not known")

    monkeypatch.setattr("tgi_advisor.validate.judge.predict", fails)
    (here / "compose.yaml").write_text(CLEAN)
    assert "whether it fits was not judged: the moon is not known" in run("validate", ".", "-g", "l4").out


def test_json_is_a_format_by_the_name_other_commands_give_it(there: Path) -> None:
    ending, printed = (run("validate", *words) for words in (("--json", "."), ("--format", "json", ".")))
    assert (ending.code, ending.out) == (printed.code, printed.out)
    assert json.loads(ending.out)["findings"]
    assert run("validate", "--json", "-f", "sarif", ".").code == Exit.USAGE
