"""The chart of `emit --format helm`: what the real helm makes of it, and what `validate` and `import` read in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubectl
import pytest
import yaml
from front import run
from platform_examples import EXAMPLES, PLAIN
from test_platforms import container
from test_render import NVIDIA

from tgi_advisor.errors import Exit
from tgi_advisor.plan import Container, Mount
from tgi_advisor.render import files, render

NOTHING = frozenset[str]()
HOSTILE = (
    "{{ .Values.x }}", "}}", "{{", '{{ "a" }}', "{{/*", "$(PATH)", "$$", "$", "a'b\"c", "\\n", "yes", "0x10", "1e3",
    "~", "", "- a", "#no", ": ", "a #b", "é😀", "<&>", "%d", "`id`", " lead", "trail ", "[1]", "{a: b}", "*", "&a",
)  # fmt: skip


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return kubectl.program("helm", tmp_path_factory.mktemp("helm"))


def ran(helm: str, *words: str, folder: Path) -> str:
    home = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HELM_NO_PLUGINS": "1"}
    done = subprocess.run([helm, *words], capture_output=True, text=True, check=False, env=home)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def objects(text: str) -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(text) if one}


def written(made: Container, folder: Path) -> Path:
    chart = folder / "chart"
    for name, text in files(made, "helm").items():
        (chart / name).parent.mkdir(parents=True, exist_ok=True)
        (chart / name).write_text(text, "utf-8")
    return chart


DIGEST = f"ghcr.io/huggingface/text-generation-inference@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "made",
    [
        NVIDIA,
        NVIDIA._replace(image=DIGEST, secret_env={"HF_TOKEN": "MINE"}),
        NVIDIA._replace(args=HOSTILE, env={f"V{number}": value for number, value in enumerate(HOSTILE)}),
        NVIDIA._replace(mounts=(Mount("./d", "/data"), Mount('/srv/{{ a }}"b', "/a{{"), Mount("claim", "/c"))),
        NVIDIA._replace(args=(), env={}, secret_env={}, gpu_count=0, host_memory_bytes=0),
        NVIDIA._replace(replicas=3, cluster=NVIDIA.cluster._replace(storage="shared", storage_class="nfs")),
    ],
    ids=["plain", "digest", "hostile", "mounts", "bare", "replicas"],
)
def test_helm_makes_what_the_kubernetes_format_says(made: Container, helm: str, tmp_path: Path) -> None:
    chart = written(made, tmp_path)
    lint = ran(helm, "lint", "--strict", str(chart), folder=tmp_path)
    assert "0 chart(s) failed" in lint
    assert not re.search("WARN|ERROR", lint), lint
    assert objects(ran(helm, "template", "x", str(chart), folder=tmp_path)) == objects(render(made, "kubernetes"))


def test_what_the_values_say_is_what_changes(helm: str, tmp_path: Path) -> None:
    chart = written(NVIDIA, tmp_path)
    text = ran(helm, "template", "x", str(chart), "--set", "replicas=2,image.tag=3.3.6,service.port=9,shmSize=2Gi",
               folder=tmp_path)  # fmt: skip
    made = objects(text)
    pod = made["Deployment"]["spec"]["template"]["spec"]
    assert made["Deployment"]["spec"]["replicas"] == 2
    assert pod["containers"][0]["image"].endswith(":3.3.6")
    assert made["Service"]["spec"]["ports"][0]["port"] == 9
    assert pod["volumes"][-1]["emptyDir"]["sizeLimit"] == "2Gi"


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_chart_has_no_findings_and_is_imported_as_it_was(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first.yaml").write_text(yaml.safe_dump(EXAMPLES[example]))
    emitted = run("emit", "first.yaml", "--format", "helm", "--output", "chart", "--source", "snapshot")
    assert (emitted.code, emitted.out) == (Exit.STARTS, ""), emitted.err
    checked = run("validate", "chart", "--gpu", "nvidia-l4", "--offline")
    assert (checked.code, re.findall(r"(?:error|warning) TGI\d+", checked.out)) == (Exit.STARTS, []), checked.out
    back = run("import", "chart/values.yaml", "--gpu", "nvidia-l4")
    assert (back.code, "# -" in back.out) == (Exit.STARTS, False), back.err + back.out
    assert run("import", "chart", "--gpu", "nvidia-l4").out == back.out
    Path("second.yaml").write_text(back.out)
    assert container("second.yaml", NOTHING) == container("first.yaml", NOTHING)
    again = run("emit", "second.yaml", "--as-given", "--format", "helm", "--source", "snapshot")
    assert again.out == run("emit", "first.yaml", "-f", "helm", "--source", "snapshot").out


def test_a_folder_that_holds_a_chart_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(PLAIN))
    (tmp_path / "values.yaml").write_text("mine")
    ended = run("emit", str(tmp_path / "spec.yaml"), "-f", "helm", "-o", str(tmp_path), "--source", "snapshot")
    assert ended.code == Exit.USAGE
    assert "values.yaml exists already" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.yaml", "values.yaml"]
    other = run("emit", str(tmp_path / "spec.yaml"), "-f", "compose", "-o", str(tmp_path / "x"), "--source", "snapshot")
    assert (other.code, "--output is for --format helm" in other.err) == (Exit.USAGE, True)
