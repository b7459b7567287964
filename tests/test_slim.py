"""An environment with nothing but what `validate` needs: what works there, and what the rest says."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tgi_advisor.errors import Exit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
GROUP: list[str] = PROJECT["dependency-groups"]["validate"]
MODULES = {"click": ("click",), "pyyaml": ("yaml", "_yaml"), "tabulate": ("tabulate",), "tomli": ("tomli",)}


def slim(folder: Path, without: str = "") -> Path:
    """A folder of links to the modules of the group, to stand for site-packages; one package may be left out."""
    folder.mkdir()
    for package, modules in MODULES.items():
        for module in modules if package != without else ():
            if spec := find_spec(module):
                assert spec.origin is not None
                path = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
                (folder / path.name).symlink_to(path)
    (folder / "tgi_advisor").symlink_to(ROOT / "tgi_advisor")
    return folder


def run(modules: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """tgi-advisor with these modules and the standard library; -S leaves this environment's own out."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "tgi_advisor", *arguments], cwd=modules.parent, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(modules), "HF_HOME": str(modules.parent), **variables}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slim(tmp_path_factory.mktemp("slim") / "modules")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["advise", "-m", MODEL, "-g", "nvidia-l4"],
        ["advise", "-m", MODEL, "-g", "nvidia-l4", "--json"],
        ["predict", "-m", MODEL, "-g", "nvidia-l4"],
        ["emit", "-m", MODEL, "-g", "nvidia-l4", "--format", "compose"],
        ["init", "-m", MODEL, "-g", "nvidia-l4"],
        ["fits", "-m", MODEL],
        ["compare", "-m", MODEL],
        ["size", "-m", MODEL, "-u", "20", "-i", "1500", "-o", "500"],
        ["validate", str(ROOT / "configs"), str(ROOT / "tests" / "data")],
        ["validate", "--format", "sarif", str(ROOT / "tests" / "data")],
        ["rule", "TGI101"],
        ["gpus"],
        ["releases"],
        ["models"],
        ["flags", "--json"],
        ["schema"],
        ["completion", "bash"],
        ["history"],
        ["upgrade", "-m", MODEL, "-g", "nvidia-l4", "--from", "3.3.6"],
    ],
    ids=lambda words: " ".join(words[:1] + words[-1:]).replace(str(ROOT), ""),
)
def test_what_works_works_as_everywhere(alone: Path, arguments: list[str]) -> None:
    """The same text and exit code as with every package there."""
    ran = run(alone, *arguments)
    everywhere = subprocess.run(
        [sys.executable, "-m", "tgi_advisor", *arguments], cwd=alone.parent, capture_output=True, text=True,
        env={**os.environ, "HF_HOME": str(alone.parent)}, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (everywhere.returncode, everywhere.stdout, everywhere.stderr)
    assert ran.returncode in (0, 1, 5, 6)
    assert ran.stdout


def test_the_hub_needs_huggingface_hub(alone: Path) -> None:
    ran = run(alone, "advise", "-m", "org/name", "-g", "nvidia-l4")
    assert (ran.returncode, ran.stdout) == (Exit.FACTS, "")
    assert ran.stderr.startswith("Error: The Python package huggingface_hub is not installed")
    assert "pip install huggingface_hub" in ran.stderr


def test_an_engine_needs_docker(alone: Path) -> None:
    ran = run(alone, "status", "--json", DOCKER_HOST="tcp://127.0.0.1:9")
    assert ran.returncode == Exit.MISSING
    assert json.loads(ran.stdout)["error"]["exit_code"] == Exit.MISSING
    assert ran.stderr.startswith("Error: The Python package docker is not installed")
    assert "pip install docker" in ran.stderr


def test_a_type_that_only_transformers_knows_needs_it(alone: Path, tmp_path: Path) -> None:
    """Nothing is estimated from half a configuration."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_oss"}))
    header = json.dumps({"lm_head.weight": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    ran = run(alone, "predict", "-m", str(tmp_path), "-g", "nvidia-l4")
    assert (ran.returncode, ran.stdout) == (Exit.FACTS, "")
    assert "The Python package transformers is not installed" in ran.stderr
    assert "pip install transformers" in ran.stderr


@pytest.mark.parametrize("package", ["click", "pyyaml", "tabulate"])
def test_what_every_command_needs_is_named_too(package: str, tmp_path: Path) -> None:
    modules = slim(tmp_path / "modules", without=package)
    ran = run(
        modules, "validate" if package == "pyyaml" else "gpus", str(ROOT / "configs") if package == "pyyaml" else ""
    )
    assert ran.returncode == Exit.MISSING
    assert ran.stderr.startswith(f"Error: The Python package {package} is not installed")
    assert f"pip install {package}" in ran.stderr


# ---- what pre-commit and the Action install ----


def test_the_group_is_part_of_the_dependencies() -> None:
    """The same packages in the same versions; colorama is click's own on Windows, which --no-deps leaves out."""
    assert set(GROUP) - {"colorama; sys_platform == 'win32'"} <= set(PROJECT["project"]["dependencies"])
    assert {Requirement(one).name for one in GROUP} - {"colorama"} == set(MODULES)


def test_pre_commit_installs_the_group_and_nothing_else() -> None:
    for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8")):
        assert hook["additional_dependencies"] == ["--no-deps", *GROUP]


def test_the_action_installs_what_is_locked_for_the_group() -> None:
    install = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))["runs"]["steps"][0]["run"]
    assert "--no-deps" in install
    assert '-r "$HERE/requirements-validate.lock"' in install
    lines = (ROOT / "requirements-validate.lock").read_text("utf-8").splitlines()
    locked = {line.partition("==")[0] for line in lines if "==" in line and not line.lstrip().startswith("#")}
    assert locked == {Requirement(one).name for one in GROUP}
