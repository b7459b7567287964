"""Real Docker Engines for the tests of `launch`, and the image that plays TGI.

The tests start their own engines, as root, with everything they keep in a temporary folder: one that gives out GPUs
(a program that does nothing stands in for NVIDIA's hook) and one that cannot. Without root or without `dockerd`
these tests skip and say so; as root under CI=true they fail instead.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import pytest
from docker import APIClient
from launch_image import build

from tgi_advisor.facts import flags, release

IMAGE = "pretend/text-generation-inference"
SAGEMAKER = "pretend/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.7-gpu"


@dataclass(frozen=True)
class Daemon:
    """A running engine."""

    folder: Path
    """Everything it keeps."""
    process: subprocess.Popen[bytes]
    """dockerd."""

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def client(self) -> Any:
        return APIClient(self.url, version="auto", timeout=60)


def why_not() -> str | None:
    """Why no engine can run here; None when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "these tests start a Docker Engine, which needs root on Linux"
    with socket.socket(socket.AF_UNIX) as test:
        if test.connect_ex("/var/run/docker.sock") == 0:
            return "a Docker Engine runs here already, and its network would be disturbed"
    missing = [name for name in ("dockerd", "busybox", "docker-registry") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (.ci/run installs them)" if missing else None


def require() -> None:
    """Skip where no engine can run; in CI that is a failure."""
    reason = why_not()
    if reason and os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    _alone()


@cache
def _alone() -> object:
    """Wait until no other run of these tests has engines on this machine; to the end of this process they are ours."""
    import fcntl

    held = (Path(gettempdir()) / "tgi-advisor-tests-of-engines").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


@contextmanager
def daemon(*, gpus: bool = False, apart: bool = False) -> Iterator[Daemon]:
    """An engine for as long as this lasts; `apart` from this machine's network, beside another one."""
    # Not in pytest's own folder: a socket's path may have no more than 108 bytes.
    with (
        TemporaryDirectory(prefix="tgi", ignore_cleanup_errors=True) as made,
        _daemon(Path(made), gpus=gpus, apart=apart) as running,
    ):
        yield running


@contextmanager
def _daemon(folder: Path, *, gpus: bool, apart: bool) -> Iterator[Daemon]:
    path = os.environ["PATH"]
    if gpus:  # dockerd offers --gpus when it finds this program; runc calls it before a container's program
        hook = folder / "bin" / "nvidia-container-runtime-hook"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text('#!/bin/sh\ncat >/dev/null\nif [ -e "$0.refuse" ]; then cat "$0.refuse" >&2; exit 1; fi\n')
        hook.chmod(0o755)
        path = f"{hook.parent}:{path}"
    command = [
        "dockerd", "--data-root", f"{folder}/root", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid",
        "--host", f"unix://{folder}/docker.sock", "--config-file", f"{folder}/none.json",
    ]  # fmt: skip
    if apart:
        command = ["unshare", "--net", *command]
    (folder / "none.json").write_text("{}")
    running = Daemon(folder, _started(command, folder, path))
    try:
        _wait(running)
        yield running
    finally:
        if running.process.poll() is None:
            _remove_all(running)
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(30)
        _kill_what_is_left(folder)  # of an engine that a test killed: its containerd, its shims and their containers
        for line in reversed(Path("/proc/mounts").read_text("utf-8").splitlines()):
            if (place := line.split()[1]).startswith(f"{folder}/"):  # what a killed engine had mounted
                subprocess.run(["umount", place], check=True)


def _kill_what_is_left(folder: Path) -> None:
    """Kill the processes that name the engine's folder, and what they started."""
    parents, ours = {}, set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            if f"{folder}/" in (entry / "cmdline").read_text("utf-8", "replace") and int(entry.name) != os.getpid():
                ours.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):  # noqa: PERF203 -- it ended meanwhile
            continue
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    for pid in ours:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for _ in range(50):
        if not any(Path(f"/proc/{pid}/root").exists() for pid in ours):
            return
        time.sleep(0.1)


def _started(command: list[str], folder: Path, path: str) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PATH": path})


def _wait(running: Daemon) -> None:
    for _ in range(300):
        if running.process.poll() is not None:
            break
        if "API listen on" in (running.folder / "log").read_text("utf-8", "replace"):
            return
        time.sleep(0.1)
    log = (running.folder / "log").read_text("utf-8", "replace")
    pytest.fail("dockerd did not start:\n" + "\n".join(log.splitlines()[-20:]))


def _remove_all(running: Daemon) -> None:
    with closing(running.client()) as client:
        for container in client.containers(all=True):
            client.remove_container(container["Id"], force=True, v=True)


def load_images(running: Daemon) -> None:
    """One image for each release whose log can be played."""
    client = running.client()
    with closing(client):
        _load_images(client)


def _load_images(client: Any) -> None:
    known: dict[str, str] = {flag.name: flag.type for flag in flags.flags_of(release.find("3.3.7")).values()}
    base = json.loads(client.import_image_from_data(build.root(known), repository="pretend/root", tag="base"))["status"]
    for name in build.RELEASES:
        home = "HF_HOME=/data" if release.find(name).version >= (2, 3, 0) else "HUGGINGFACE_HUB_CACHE=/data"
        made = client.create_container_from_config(
            {"Image": base, "Env": ["PORT=80", f"PRETEND_RELEASE={name}", home, "PATH=/usr/bin:/bin"],
             "Entrypoint": ["/tgi-entrypoint.sh"], "Cmd": []}
        )["Id"]  # fmt: skip
        for suffix in ("", "-intel-cpu"):
            client.commit(made, repository=IMAGE, tag=name + suffix)
        client.remove_container(made)
    made = client.create_container_from_config(
        {"Image": base, "Env": ["PORT=80", "PRETEND_RELEASE=3.3.7", "HF_HOME=/data", "PATH=/usr/bin:/bin"],
         "Entrypoint": ["/sagemaker-entrypoint.sh"], "Cmd": ["--json-output"]}
    )["Id"]  # fmt: skip
    repository, _, tag = SAGEMAKER.partition(":")
    client.commit(made, repository=repository, tag=tag)
    client.remove_container(made)


def logs_of(client: Any, container: str) -> str:
    text: bytes = client.logs(container)
    return text.decode("utf-8", "replace")


def inspected(client: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.inspect_container(name)
    return found


def archive(name: str, data: bytes) -> bytes:
    """One file as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()
