"""The real kubectl on what `emit --format kubernetes` writes, against the loopback API server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import clusters
import kubectl
import pytest
import yaml
from clusters import ApiServer
from front import run
from test_scaling import CASES, HEAD


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return kubectl.program("kubectl", tmp_path_factory.mktemp("kubectl"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with clusters.running(tmp_path) as found:
        found.open = True
        yield found


@pytest.mark.parametrize("name", ["plain", *CASES])
def test_what_is_emitted_is_applied_and_deleted(name: str, program: str, server: ApiServer, tmp_path: Path) -> None:
    text = run("emit", "-", "-f", "kubernetes", stdin=CASES.get(name, HEAD % "port: 80")).out
    file = tmp_path / "tgi.yaml"
    file.write_text(text)
    names = {(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(text)}

    def said(*words: str) -> str:
        command = [program, "--kubeconfig", str(server.kubeconfig()), f"--cache-dir={tmp_path / 'cache'}", *words]
        home = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=home, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    applied = said("apply", "--server-side", "--validate=false", "-f", str(file))
    assert applied.count("serverside-applied") == len(names)
    assert not server.problems

    def kept() -> set[tuple[str, str]]:
        kinds = {kind for kind, _ in names}
        return {
            (one["kind"], one["metadata"]["name"])
            for kind in kinds
            for one in server.of_kind(kind)
            if "deletionTimestamp" not in one["metadata"]
        }

    assert kept() == names
    again = said("get", "-f", str(file), "-o", "name").split()
    assert len(again) == len(names)
    said("delete", "--wait=false", "-f", str(file))
    assert kept() == set()
    assert not server.problems
