"""Where the tests of `launch --on kubernetes` run: a folder with a spec, a namespace of a cluster, the command line.

Each of them is either `anywhere`, on a real cluster where one is named and else on the API server of tests/clusters.py
in a process of its own, which is known by its API alone; or it says by the marker `loopback` what no real cluster
gives it. conftest.py holds them to that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import by_api
import clusters
import pytest
from click.testing import CliRunner, Result
from clusters import ApiServer
from servers import CUDA, on_cpu

from tgi_advisor.cli.main import cli

CPU = on_cpu("12GiB")  # which its pods ask a real node for
LAUNCHED = ("Deployment", "Service", "PersistentVolumeClaim", "Pod")
REAL, IMAGE = "TGI_ADVISOR_TEST_KUBECONFIG", "TGI_ADVISOR_TEST_IMAGE"
RESOURCE, COUNT, GPU = "TGI_ADVISOR_TEST_GPU_RESOURCE", "TGI_ADVISOR_TEST_GPU_COUNT", "TGI_ADVISOR_TEST_GPU"
SUFFIX = "-intel-cpu"
PRETEND = f"pretend/text-generation-inference:3.3.7{SUFFIX}"
"""The image on loopback, where nothing is pulled."""
GPUS = {"nvidia.com/gpu": ("nvidia-l4", ""), "amd.com/gpu": ("amd-mi300x", "-rocm")}
"""A GPU of each resource that a test may ask for, and how the tag of TGI's image for it ends."""
FILES = ("test_kubernetes_login", "test_launch_kubernetes", "test_launch_kubernetes_faults")
"""The files whose tests say where they run."""
WHERE = "real cluster"
"""Property of a test's report: why it runs on no real cluster; empty where it does."""


class Desk:
    """A folder with a spec in it, a namespace of a cluster, and the command line."""

    def __init__(self, folder: Path, context: str = "loop", namespace: str = "default", image: str = PRETEND) -> None:
        self.folder, self.context, self.namespace, self.image = folder, context, namespace, image

    def spec(self, behaviour: dict[str, Any] | None = None, base: dict[str, Any] = CPU, **sections: Any) -> str:
        tgi: dict[str, Any] = {"image": self.image if base is CPU else self.image.removesuffix(SUFFIX)}
        tgi |= sections.pop("tgi", {})
        tgi["env"] = {**tgi.get("env", {}), "PRETEND": json.dumps(behaviour or {})}
        whole = {**base, "tgi": tgi, "container": {"name": "llama", "port": 8080}}
        for name, section in sections.items():
            whole[name] = {**whole.get(name, {}), **section}
        path = self.folder / "spec.yaml"
        path.write_text(json.dumps(whole, ensure_ascii=False))
        return str(path)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--on", "kubernetes"], catch_exceptions=False)

    def launch(self, spec: str, *options: str) -> Result:
        return self.run("launch", spec, *options)

    def events(self, spec: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
        result = self.launch(spec, "--json", *options)
        assert all(line.startswith('{"event"') for line in result.stdout.splitlines()), result.output
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]

    def process(self, spec: str, *options: str) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tgi_advisor", "launch", spec, "--on", "kubernetes", *options], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ},
        )  # fmt: skip

    @contextmanager
    def kubeconfig(self) -> Iterator[Any]:
        """What the kubeconfig says, to be altered."""
        path = Path(os.environ["KUBECONFIG"])
        config = json.loads(path.read_text())
        yield config
        path.write_text(json.dumps(config))


class Loopback(Desk):
    """The cluster is the API server of tests/clusters.py, which the test looks into and gives troubles."""

    def __init__(self, folder: Path, cluster: ApiServer) -> None:
        super().__init__(folder)
        self.cluster = cluster

    def left(self) -> list[str]:
        """What is there of what launches make."""
        return [f"{one['kind']}/{one['metadata']['name']}" for kind in LAUNCHED for one in self.cluster.of_kind(kind)]


class Anywhere(Desk):
    """The cluster is a real one where one is named, and is known by its API alone."""

    def __init__(self, folder: Path, cluster: by_api.Cluster) -> None:
        super().__init__(folder, cluster.context, cluster.namespace, os.environ.get(IMAGE) or PRETEND)
        self.cluster = cluster

    def gpus(self, **sections: Any) -> tuple[str, str, int]:
        """A spec that asks for GPUs, their resource and how many."""
        resource, count = os.environ.get(RESOURCE, ""), int(os.environ.get(COUNT) or 1)
        if os.environ.get(REAL) and not resource:
            pytest.skip(f"{RESOURCE} names no resource of the real cluster, such as nvidia.com/gpu")
        resource = resource or "nvidia.com/gpu"
        gpu, suffix = GPUS[resource]
        image = f"{self.image.removesuffix(SUFFIX)}{suffix}"
        base = {**CUDA, "hardware": {"gpu": os.environ.get(GPU) or gpu, "count": count}}
        model = {"id": "Qwen/Qwen2.5-7B-Instruct"}
        return self.spec(base=base, model=model, tgi={"image": image}, **sections), resource, count

    def left(self) -> list[str]:
        """What is there of what launches make."""
        return [f"{one['kind']}/{one['metadata']['name']}" for kind in LAUNCHED for one in self.cluster.settled(kind)]


class Apart:
    """The API server of tests/clusters.py in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, clusters.__file__, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.kubeconfig = Path(self._line())

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def complaints(self) -> Any:
        """What it had to complain of since it was last asked."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def close(self) -> None:
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.wait(30)


@contextmanager
def loopback(folder: Path) -> Iterator[ApiServer]:
    """The cluster on loopback, which has nothing to complain of in the end."""
    own = folder / "cluster"
    own.mkdir()
    with clusters.running(own) as cluster:
        yield cluster
        assert cluster.problems == []
        assert cluster.secrets_read == []


@contextmanager
def on_loopback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A desk whose cluster the test looks into."""
    with loopback(folder) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig()))
        alone(folder, monkeypatch)
        yield Loopback(folder, cluster)


@contextmanager
def on_any(folder: Path, monkeypatch: pytest.MonkeyPatch, apart: Apart | None) -> Iterator[Anywhere]:
    """A desk on the real cluster that is named, else on the one in a process of its own."""
    with ExitStack() as stack:
        kubeconfig = Path(os.environ[REAL]) if apart is None else apart.kubeconfig
        cluster = stack.enter_context(by_api.namespace(kubeconfig, folder))
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        alone(folder, monkeypatch, home=apart is not None)
        yield Anywhere(folder, cluster)
    if apart is not None:
        assert apart.complaints() == {"problems": [], "secrets_read": []}


def alone(folder: Path, monkeypatch: pytest.MonkeyPatch, *, home: bool = True) -> None:
    """Nothing of this machine's user is used; where a real cluster is, what logs in there may need the home folder."""
    monkeypatch.setenv("TGI_ADVISOR_DATA", str(folder / "history"))
    for name in ("HF_TOKEN", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    if home:
        monkeypatch.setenv("HOME", str(folder))


# -- where a test runs


def wrong(name: str, fixtures: Iterable[str], reason: str | None) -> str | None:
    """What is wrong with how a test says where it runs; None where nothing is."""
    anywhere = "anywhere" in fixtures
    if anywhere and reason is not None:
        return f"{name} is anywhere and has the marker loopback: one of them is not true"
    if not anywhere and not (reason or "").strip():
        return f"{name} runs on no real cluster and says not why: use the fixture anywhere, or mark it loopback(reason)"
    return None


def reason_of(item: pytest.Item) -> str | None:
    """Why a test runs on no real cluster; None where it does not say so."""
    marker = item.get_closest_marker("loopback")
    return None if marker is None else str((*marker.args, "")[0])


def collected(items: Iterable[pytest.Item]) -> None:
    """Hold the tests to saying where they run; where a real cluster is named, those that cannot run there skip."""
    named = os.environ.get(REAL)
    if named and not os.environ.get(IMAGE):
        raise pytest.UsageError(f"{REAL} names a cluster, and {IMAGE} no image of tests/launch_image for it")
    found = []
    for item in items:
        if item.path.stem not in FILES:
            continue
        reason = reason_of(item)
        if (complaint := wrong(item.nodeid, getattr(item, "fixturenames", ()), reason)) is not None:
            found.append(complaint)
            continue
        item.user_properties.append((WHERE, reason or ""))
        if named and reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"not on a real cluster: {reason}"))
    if found:
        raise pytest.UsageError(*found)


def told(reports: Iterable[Any]) -> list[str]:
    """Lines that say which cluster the tests were on, and which of them cannot be on a real one and why."""
    where = {report.nodeid: dict(report.user_properties) for report in reports}
    ours = {name: said[WHERE] for name, said in where.items() if WHERE in said}
    if not ours:
        return []
    apart: dict[str, list[str]] = {}
    for name, reason in ours.items():
        if reason:
            apart.setdefault(reason, []).append(name.rpartition("::")[2])
    not_there = sum(map(len, apart.values()))
    here = len(ours) - not_there
    if not os.environ.get(REAL):
        return [f"On no real cluster, for {REAL} names none, but on the API server on loopback.",
                f"Tests that could be on a real one: {here}; that could not: {not_there}."]  # fmt: skip
    lines = [f"Tests on the cluster of {REAL}: {here}. Tests that could not be, and why: {not_there}."]
    for reason, names in sorted(apart.items()):
        lines += [f"  {reason}:", *(f"    {name}" for name in names)]
    return lines
