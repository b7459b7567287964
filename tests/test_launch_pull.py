"""Pulling images for `launch` from a registry of the test's own (Debian's docker-registry)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import engines
import pytest
from test_launch import Desk, desk, engine, free_port, wait_for

__all__ = ["desk", "engine"]

LAYER = 8 << 20
NOBODY = "somebody:$2y$05$7xhP7aYeXjZyJpJDsoDdA.7vy6cNZ3pP3dYkVLAqNfVUTQiuEoDya"
"""A user of the registry whose password no one has."""


@contextmanager
def registry(folder: Path, *, closed: bool = False) -> Iterator[str]:
    """A registry; `closed` asks for a password. Its address, such as localhost:5000."""
    folder.mkdir(exist_ok=True)
    address = f"localhost:{free_port()}"
    lock = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n" if closed else ""
    (folder / "htpasswd").write_text(NOBODY + "\n")
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/store}}}}\n"
        f"http: {{addr: '{address}'}}\n{lock}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(address))
        yield address
    finally:
        process.terminate()
        process.wait(10)


def answers(address: str) -> bool:
    with socket.create_connection(("localhost", int(address.rpartition(":")[2])), 1):
        return True


class Narrow:
    """Passes a registry's answers on, a little at a time."""

    def __init__(self, to: str, rate: float) -> None:
        self.to, self.rate = int(to.rpartition(":")[2]), rate
        self.server = socket.create_server(("localhost", 0))
        self.address = f"localhost:{self.server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            far = socket.create_connection(("localhost", self.to))
            threading.Thread(target=self._pass, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, self), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, slow: Narrow | None) -> None:
        with source, sink:
            try:
                while data := source.recv(65536):
                    if slow:
                        time.sleep(len(data) / self.rate)
                    sink.sendall(data)
            except OSError:
                return


def push(desk: Desk, address: str, *, layer: bool = False) -> str:
    """The pretend image in the registry, and no longer in the engine; with `layer`, a large layer on top of it."""
    name = f"{address}/text-generation-inference"
    base = f"{engines.IMAGE}:3.3.7-intel-cpu"
    if layer:
        made = desk.client.create_container(base, name=f"{desk.name}-layer")["Id"]
        desk.client.put_archive(made, "/data", engines.archive("big", os.urandom(LAYER)))
        desk.client.commit(made, repository=name, tag="3.3.7-intel-cpu")
        desk.client.remove_container(made)
    else:
        desk.client.tag(base, name, tag="3.3.7-intel-cpu")
    answer = desk.client.push(name, tag="3.3.7-intel-cpu")
    assert "error" not in answer, answer
    desk.client.remove_image(f"{name}:3.3.7-intel-cpu", force=True)
    return f"{name}:3.3.7-intel-cpu"


def test_a_missing_image_is_pulled_with_progress(desk: Desk) -> None:
    with registry(desk.folder / "registry") as address:
        image = push(desk, address, layer=True)
        code, events = desk.events(desk.spec(tgi={"image": image}))
    assert code == 0, events
    pulls = [event for event in events if event["event"] == "pull"]
    assert pulls[0]["text"] == f"pulling {image}"
    assert {"Downloading", "Pull complete"} <= {event["text"] for event in pulls}
    assert any(event.get("total", 0) and event["total"] >= LAYER for event in pulls if event.get("total"))


def test_there_is_no_such_tag(desk: Desk) -> None:
    with registry(desk.folder / "registry") as address:
        image = push(desk, address)
        result = desk.launch(desk.spec(tgi={"image": image.replace("3.3.7", "3.3.6")}))
    assert result.exit_code == 9
    assert f"there is no image {address}/text-generation-inference:3.3.6-intel-cpu" in " ".join(result.stderr.split())
    assert desk.containers() == []


def test_the_registry_wants_a_login(desk: Desk) -> None:
    with registry(desk.folder / "registry", closed=True) as address:
        result = desk.launch(desk.spec(tgi={"image": f"{address}/text-generation-inference:3.3.7-intel-cpu"}))
    assert result.exit_code == 9
    assert f"docker login {address}" in " ".join(result.stderr.split())


def test_nobody_answers_at_the_registry(desk: Desk) -> None:
    image = f"localhost:{free_port()}/text-generation-inference:3.3.7-intel-cpu"
    result = desk.launch(desk.spec(tgi={"image": image}))
    assert result.exit_code == 7
    assert "could not be pulled" in result.stderr


def test_a_pull_that_was_broken_off_goes_on(desk: Desk) -> None:
    with registry(desk.folder / "registry") as address:
        image = push(desk, address, layer=True)
        narrow = Narrow(address, rate=2 << 20)
        with closing(narrow.server):
            spec = desk.spec(tgi={"image": image.replace(address, narrow.address)})
            process = desk.process(spec, "--json")
            assert process.stdout is not None
            for line in process.stdout:
                if '"Downloading"' in line:
                    break
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            assert (process.returncode, err.strip()) == (130, "")
            assert desk.containers() == []
            narrow.rate = 1 << 30
            result = desk.launch(spec)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("ghcr.io/a/b:3.3.7", ("ghcr.io/a/b", "3.3.7")),
        ("localhost:5000/b", ("localhost:5000/b", "latest")),
        ("b@sha256:12", ("b", "sha256:12")),
        ("localhost:5000/b:1", ("localhost:5000/b", "1")),
    ],
)
def test_what_is_asked_of_the_registry(image: str, parts: tuple[str, str]) -> None:
    from tgi_advisor.launch.docker.preflight import repository

    assert repository(image) == parts
