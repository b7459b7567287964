"""What `emit` writes, `import` reads back as it was, whatever stands in it: in every format.

The exceptions are those of the platforms, and are listed here with their reasons.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pytest
from front import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from platform_examples import FORMS, Form

from tgi_advisor.errors import Exit
from tgi_advisor.render import FORMATS

NOTHING = frozenset[str]()
FILES: dict[str, Form] = {
    **FORMS,
    "docker-run": Form("run.sh", NOTHING),
    "compose": Form("compose.yaml", NOTHING),
    "kubernetes": Form("all.yaml", NOTHING),
    "helm": Form("chart.yaml", NOTHING),
    "json": Form("container.json", NOTHING),
    "env": Form("tgi.env", NOTHING),
}
"""The formats that are files of their own, and what each has no words for."""


class Except(NamedTuple):
    """A value that a format cannot give back."""

    form: str
    """The format."""
    value: str
    """A regular expression of such values."""
    refused: str
    """What `emit` says of it; empty where it writes the value and `import` leaves it out."""
    reason: str
    """Why."""


EXCEPTIONS = (
    Except("azureml", r"\$\{\{", "would fill in", "az fills in ${{ }} and has no escape for it"),
    Except("helm", r"", "", "an empty value of a chart is one that its user fills in"),
)

ODD = (
    "$(id)", "${HOME}", "$$", "$X", "$", "a$", "$$(id)", "$${X}", "$$$X", "${X:-d}", "$(HOME)", "${{ x }}", "%h",
    "%%", "%", "%s", "%X%", "%(x)s", "%{ if x }", "{{ .Values.x }}", "{{", "}}", "{% if x %}", "<%= x %>", "<a>",
    "<your token>", "{a}", "{}", "[[x]]", "#{x}", "__X__", "@@X@@", "@", "...", "\u2026", "`id`", "-lead", "--rm",
    "#no", "a #b", "\u00e9\U0001f600", "a'b\"c", "'", '"', "\\", "\\n", "\\x41", "\\u0041", "a\\", " x ", "x: y",
    "- a", "*", "!x", "&a", "[a]", "null", "yes", "1e3", "0x10", "~/x", "a,b", "a|b;c&d", "",
)  # fmt: skip
"""Values that a shell, a template engine, YAML, systemd or a platform would take for something else."""


def test_every_format_that_is_a_file_is_tried() -> None:
    assert FILES.keys() == FORMATS.keys() - {"args"}  # which are words of a command, and no file


def spec(form: Form, env: dict[str, str], flag: str = "", cache: str = "", mount: str = "") -> str:
    made: dict[str, Any] = {
        "model": {"id": "Qwen/Qwen2.5-7B-Instruct"},
        "hardware": {"gpu": form.gpu},
        "tgi": {"env": env, **({"image": form.image} if form.image else {})},
        "container": {},
    }
    if flag:
        made["tgi"]["flags"] = {"tokenizer-config-path": flag}
    if cache:
        made["container"]["cache"] = cache
    if mount:
        made["container"]["mounts"] = [f"{mount}:/more:ro"]
    return json.dumps(made, ensure_ascii=False)


def there_and_back(
    name: str, text: str, folder: Any, gpu: str = "", said: frozenset[str] = NOTHING
) -> tuple[dict[str, Any], dict[str, Any]] | str:
    """The container of a spec, and that of the spec `import` makes of the file; what `emit` says where it refuses.

    `said` are findings on the values themselves, whatever the file.
    """
    form = FILES[name]
    gpu = gpu or form.gpu
    (folder / "first.yaml").write_text(text)
    emitted = run("emit", str(folder / "first.yaml"), "--format", name, "--source", "snapshot")
    if emitted.code != Exit.STARTS:
        return emitted.err
    (folder / form.file).write_text(emitted.out)
    checked = run("validate", str(folder / form.file), "--gpu", gpu, "--offline")
    found = set(re.findall(r"(?:error|warning) TGI\d+", checked.out)) - said
    assert (checked.code, found) == (Exit.STARTS, set()), checked.out
    back = run("import", str(folder / form.file), "--gpu", gpu)
    assert (back.code, "# -" in back.out) == (Exit.STARTS, False), back.err + back.out
    (folder / "second.yaml").write_text(back.out)
    held = [
        json.loads(run("emit", str(folder / file), *more, "--format", "json", "--source", "snapshot").out)
        for file, more in (("first.yaml", ()), ("second.yaml", ("--as-given",)))
    ]
    first, second = ({key: value for key, value in one.items() if key not in form.lost} for one in held)
    return first, second


@pytest.mark.parametrize("name", FILES)
def test_odd_values_come_back(name: str, tmp_path: Any) -> None:
    excepted = [one for one in EXCEPTIONS if one.form == name]
    env = {f"ODD_{at}": value for at, value in enumerate(ODD)
           if not any(re.search(one.value, value) if one.value else not value for one in excepted)}  # fmt: skip
    assert len(env) > len(ODD) - 3
    came = there_and_back(name, spec(FILES[name], env), tmp_path)
    assert not isinstance(came, str), came
    assert came[1] == came[0]


@pytest.mark.parametrize("one", EXCEPTIONS, ids=lambda one: f"{one.form}-{one.reason}")
def test_what_does_not_come_back_is_refused_or_left_out_with_words(one: Except, tmp_path: Any) -> None:
    (value,) = [value for value in ODD if (re.search(one.value, value) if one.value else not value)]
    (tmp_path / "spec.yaml").write_text(spec(FILES[one.form], {"ODD": value}))
    emitted = run("emit", str(tmp_path / "spec.yaml"), "--format", one.form, "--source", "snapshot")
    if one.refused:
        assert (emitted.code, one.refused in " ".join(emitted.err.split())) == (Exit.SPEC, True)
        return
    (tmp_path / FILES[one.form].file).write_text(emitted.out)
    assert "# - ODD=" in run("import", str(tmp_path / FILES[one.form].file), "--gpu", "nvidia-l4").out


OF_VALUES = frozenset({"warning TGI174"})
"""The quotes around a value are part of it."""
letters = st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp", "Zs"])
hostile = st.lists(st.one_of(st.sampled_from(ODD), st.text(letters, max_size=4)), min_size=1, max_size=3).map("".join)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(hostile, max_size=6), hostile.filter(str.strip))
def test_any_value_comes_back(name: str, tmp_path: Any, values: list[str], flag: str) -> None:
    excepted = [one for one in EXCEPTIONS if one.form == name]
    env = {f"ODD_{at}": value for at, value in enumerate(values)}
    if any(re.search(one.value, v) if one.value else not v for one in excepted for v in (*values, flag)):
        return
    came = there_and_back(name, spec(FILES[name], env, flag), tmp_path, said=OF_VALUES)
    assert not isinstance(came, str), came
    assert came[1] == came[0]


MOUNTED = ("json", "docker-run", "compose", "kubernetes", "helm", "systemd", "kserve", "skypilot", "dstack")
"""Formats of machines whose folders can be mounted."""
FOLDERS = ("$(id)", "${HOME} {{ x }}", "$X", "<a>", "a'b\"c `id`", "-x %h $$ #no __X__ \u00e9\U0001f600")


@pytest.mark.parametrize("name", FILES)
def test_odd_folders_come_back(name: str, tmp_path: Any) -> None:
    for folder in FOLDERS if name in MOUNTED else FOLDERS[:3]:
        mount = f"/srv/{folder}/m" if name in MOUNTED else ""
        came = there_and_back(name, spec(FILES[name], {}, cache=f"/srv/{folder}", mount=mount), tmp_path)
        assert not isinstance(came, str), came
        assert came[1] == came[0], folder


SAID: dict[str, dict[str, Any]] = {
    "replicas": {"container": {"replicas": 3, "gpus": ["1"], "name": "my-chat", "token_env": "MINE", "port": 1234}},
    "scaled": {
        "container": {"replicas": 2, "shm_size": "3g", "cache": "~/w"},
        "autoscale": {"min": 2, "max": 4, "on": "gpu-cache", "target": 50},
        "kubernetes": {"storage": "shared", "storage_class": "nfs", "pull_secret": "reg"},
    },
    "node": {"container": {"cache": "/srv/w", "port": 81, "replicas": 2}, "kubernetes": {"storage": "node"}},
    "gated": {"model": {"id": "meta-llama/Llama-3.1-8B-Instruct"}},
    "volume": {"container": {"cache": "weights"}, "model": {"revision": "main"}},
}
"""What a spec can say beside the values."""


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("name", FILES)
def test_what_a_spec_says_comes_back(name: str, what: str, tmp_path: Any) -> None:
    made = json.loads(spec(FILES[name], {}))
    for section, fields in SAID[what].items():
        made[section] = {**made.get(section, {}), **fields}
    came = there_and_back(name, json.dumps(made), tmp_path)
    assert not isinstance(came, str), came
    first, second = came
    if name == "docker-run":  # a command alone: it says so
        assert first["replicas"] == 1 or "starts one server" in emitted_words(name, tmp_path)
        for key in ("replicas", "scaling", "cluster"):
            del first[key], second[key]
    assert second == first


@pytest.mark.parametrize("gpu", ["amd-mi300x", "intel-gaudi2"])
@pytest.mark.parametrize("name", [name for name in (*MOUNTED, "env") if name not in ("skypilot", "dstack")])
def test_devices_of_every_vendor_come_back(name: str, gpu: str, tmp_path: Any) -> None:
    made = json.loads(spec(FILES[name], {})) | {"hardware": {"gpu": gpu}, "container": {"gpus": ["1"]}}
    came = there_and_back(name, json.dumps(made), tmp_path, gpu)
    assert not isinstance(came, str), came
    assert came[1] == came[0]


def emitted_words(name: str, folder: Any) -> str:
    return run("emit", str(folder / "first.yaml"), "--format", name, "--source", "snapshot").err


def test_a_command_says_that_it_says_nothing_of_a_cluster(tmp_path: Any) -> None:
    made = json.loads(spec(FILES["docker-run"], {})) | {"kubernetes": {"pull_secret": "reg"}}
    (tmp_path / "first.yaml").write_text(json.dumps(made))
    assert "no words for the section kubernetes" in emitted_words("docker-run", tmp_path)
    assert "kubernetes" not in emitted_words("compose", tmp_path)
