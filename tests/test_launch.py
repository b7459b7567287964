"""`launch` against a real Docker Engine, with an image that plays TGI."""

from __future__ import annotations

import gc
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import engines
import pytest
from click.testing import CliRunner, Result
from engines import IMAGE, SAGEMAKER, Daemon
from front import heeding_ctrl_c
from servers import CUDA, on_cpu

import tgi_advisor
from tgi_advisor.cli.main import cli
from tgi_advisor.launch import follow, marks, run
from tgi_advisor.launch.docker.engine import connect
from tgi_advisor.launch.docker.place import DockerPlace
from tgi_advisor.launch.preflight import Host

CPU = on_cpu("64GiB")
TOKEN = "hf_" + "Secret0Token" * 3


@pytest.fixture(scope="module")
def engine() -> Iterator[Daemon]:
    """An engine that gives out GPUs, with the images."""
    engines.require()
    with engines.daemon(gpus=True) as running:
        engines.load_images(running)
        yield running


@pytest.fixture(scope="module")
def bare() -> Iterator[Daemon]:
    """An engine that cannot give out GPUs."""
    engines.require()
    with engines.daemon(apart=True) as running:
        engines.load_images(running)
        yield running


class Desk:
    """A folder with a spec in it, an engine, and the command line."""

    def __init__(self, folder: Path, engine: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.engine, self.client = folder, engine, engine.client()
        self.name = f"t{folder.name.lower().replace('_', '-')}"[:60].rstrip("-")
        self.port = free_port()
        self.env = {"DOCKER_HOST": engine.url, "TGI_ADVISOR_DATA": str(folder / "history"), "HOME": str(folder)}
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
            monkeypatch.delenv(name, raising=False)

    def spec(self, behaviour: dict[str, Any] | None = None, base: dict[str, Any] = CPU, **sections: Any) -> str:
        """Writes a spec; `behaviour` is what the pretend TGI shall do, sections are merged into the base."""
        tgi: dict[str, Any] = {"image": f"{IMAGE}:3.3.7{'-intel-cpu' if base is CPU else ''}"}
        tgi |= sections.pop("tgi", {})
        tgi["env"] = {**tgi.get("env", {}), "PRETEND": json.dumps(behaviour or {})}
        container = {"name": self.name, "port": self.port, "cache": str(self.folder / "cache")}
        whole = {**base, "tgi": tgi, "container": container}
        for name, section in sections.items():
            whole[name] = {**whole.get(name, {}), **section}
        path = self.folder / "spec.yaml"
        path.write_text(json.dumps(whole, ensure_ascii=False))
        return str(path)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments], catch_exceptions=False)

    def launch(self, spec: str, *options: str) -> Result:
        return self.run("launch", spec, *options)

    def events(self, spec: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
        """The exit code and the JSON lines."""
        result = self.launch(spec, "--json", *options)
        assert all(line.startswith('{"event"') for line in result.stdout.splitlines()), result.output
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]

    def process(self, spec: str, *options: str, **env: str) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tgi_advisor", "launch", spec, *options], text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env}, preexec_fn=heeding_ctrl_c,
        )  # fmt: skip

    def containers(self) -> list[str]:
        """Names of all containers of this test."""
        names = [row["Names"][0][1:] for row in self.client.containers(all=True)]
        return [name for name in names if name.startswith(self.name)]

    def inspect(self) -> dict[str, Any]:
        return engines.inspected(self.client, self.name)

    def received(self) -> dict[str, Any]:
        """What reached the container."""
        with urlopen(f"http://127.0.0.1:{self.port}/received") as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def clean(self) -> None:
        for row in self.client.containers(all=True):
            if any(name[1:].startswith(self.name) for name in row["Names"]):
                self.client.remove_container(row["Id"], force=True, v=True)


def free_port() -> int:
    with socket.socket() as test:
        test.bind(("127.0.0.1", 0))
        port: int = test.getsockname()[1]
        return port


@pytest.fixture
def desk(engine: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path, engine, monkeypatch)
    yield made
    made.clean()
    made.client.close()


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


# -- it comes up


@pytest.mark.parametrize("release", ["3.3.7", "2.4.1", "2.0.4"])
def test_a_plan_comes_up_and_is_held_to_its_prediction(desk: Desk, release: str) -> None:
    base = CPU if release == "3.3.7" else CUDA
    if release == "2.0.4":  # which cannot read the rope_type of Llama 3.1
        base = {**CUDA, "model": {"id": "meta-llama/Meta-Llama-3-8B-Instruct"}}
    image = f"{IMAGE}:{release}{'-intel-cpu' if base is CPU else ''}"
    spec = desk.spec({"budget": 31_000, "files": 3}, base, tgi={"image": image})
    os.environ["HF_TOKEN"] = TOKEN
    code, events = desk.events(spec)
    assert code == 0, events
    steps = [event["step"] for event in events if event["event"] == "step"]
    order = ["start", "download", "load", "warmup", "graphs", "budget", "connected"]
    assert sorted(set(steps), key=steps.index) == order
    assert [(e["done"], e["of"]) for e in events if e["event"] == "step" and e["done"]] == [(1, 3), (2, 3), (3, 3)]
    assert kinds(events)[-3:] == ["ready", "verified", "result"]
    figures = events[-1]["figures"]
    assert figures["max_batch_total_tokens"]["observed"] == 31_000
    limits = events[-1]["limits"]
    assert figures["max_input_tokens"] == {
        "predicted": limits["max_input_tokens"],
        "observed": limits["max_input_tokens"],
    }
    assert events[-1]["url"] == f"http://127.0.0.1:{desk.port}"

    (row,) = json.loads(desk.run("history", "--json").stdout)
    assert (row["release"], row["outcome"], row["observed"]) == (release, "starts", 31_000)
    assert row["predicted"] == limits["max_batch_total_tokens"]


def test_status_finds_it_and_stop_ends_it(desk: Desk) -> None:
    assert "tgi-advisor has started no server here" in desk.run("status").stdout
    assert desk.launch(desk.spec()).exit_code == 0
    listed = desk.run("status").stdout
    assert f"{desk.name}  answers  {desk.port}  Qwen/Qwen2.5-3B-Instruct  3.3.7    8,192" in listed
    assert desk.run("stop", desk.name).exit_code == 0
    assert desk.containers() == []


def test_stop_leaves_other_containers_alone(desk: Desk) -> None:
    other = desk.client.create_container(f"{IMAGE}:3.3.7", name=f"{desk.name}-other")["Id"]
    result = desk.run("stop", f"{desk.name}-other")
    assert result.exit_code == 2
    assert "was not started by tgi-advisor" in result.stderr
    none = desk.run("stop", "--all")
    assert (none.exit_code, none.stdout) == (0, "tgi-advisor has started no server here.\n")
    assert desk.client.inspect_container(other)
    assert desk.run("stop", "nobody").exit_code == 2
    assert desk.run("stop").exit_code == 2


def test_what_was_asked_is_what_the_engine_recorded(desk: Desk) -> None:
    spec = desk.spec(container={"shm_size": "2g"})
    options = ("--restart", "on-failure:3", "--ulimit", "core=0", "--ulimit", "nofile=1024:2048")
    result = desk.launch(spec, *options)
    assert result.exit_code == 0, result.output
    found = desk.inspect()
    host = found["HostConfig"]
    assert found["Config"]["StopTimeout"] == 120
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert {u["Name"]: (u["Soft"], u["Hard"]) for u in host["Ulimits"]} == {"core": (0, 0), "nofile": (1024, 2048)}
    assert host["ShmSize"] == 2 << 30
    assert host["PortBindings"]["80/tcp"][0]["HostPort"] == str(desk.port)
    labels = found["Config"]["Labels"]
    assert len(labels[marks.PLAN]) == 64
    assert labels[marks.MODEL] == "Qwen/Qwen2.5-3B-Instruct"


def test_detached_returns_before_it_is_ready(desk: Desk) -> None:
    result = desk.launch(desk.spec({"stall": True}), "--detach", "--restart", "unless-stopped")
    assert result.exit_code == 0
    assert "is started and will answer at" in result.stdout
    assert "running" in desk.run("status").stdout
    assert desk.inspect()["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert desk.run("stop", "--all").stdout == f"Stopped and removed {desk.name}.\n"


def test_plain_lines_where_there_is_no_terminal(desk: Desk) -> None:
    result = desk.launch(desk.spec({"files": 1}))
    lines = [line[8:] for line in result.stderr.splitlines()]
    assert lines[0] == f"container {desk.name} started from {IMAGE}:3.3.7-intel-cpu"
    assert "downloading weights: 1 of 1 files, 0:00:00 to go" in lines
    assert "\x1b" not in result.stderr + result.stdout
    assert f"{desk.name} answers at http://127.0.0.1:{desk.port}" in result.stdout
    assert "max_batch_total_tokens" in result.stdout


def test_a_line_that_moves_on_a_terminal(desk: Desk) -> None:
    near, far = pty.openpty()
    command = [sys.executable, "-m", "tgi_advisor", "launch", desk.spec({"slow": 0.05})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=far)
    os.close(far)
    shown = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while data := os.read(near, 65536):
            shown += data
    os.close(near)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"\r\x1b[J" in shown
    lines = [line.rpartition("\x1b[J")[2].strip() for line in shown.decode().split("\n")]
    assert [line.partition("  ")[2] for line in lines][-3:-1] == [
        f"ready at http://127.0.0.1:{desk.port} after {lines[-3].split()[-2]} s",
        "one generation succeeded",
    ]
    assert b"\x1b" not in out


def test_the_raw_log_is_passed_through(desk: Desk) -> None:
    result = desk.launch(desk.spec(), "--logs")
    assert "text_generation_launcher: Starting check and download process for Qwen/Qwen2.5-3B-Instruct" in result.stdout
    assert "router/src/server.rs:2302: Connected" in result.stdout


# -- it does not come up

FAILURES = [
    ({"fail": "oom-load", "at": "load"}, "out_of_memory_at_load", 5, "CUDA out of memory. Tried to allocate"),
    ({"oom_above": 1}, "out_of_memory_at_warmup", 5, "Not enough memory to handle"),
    ({"fail": "gated", "at": "download"}, "gated", 9, "GatedRepoError: 401 Client Error"),
    ({"fail": "not-found", "at": "download"}, "not_found", 9, "RepositoryNotFoundError"),
    ({"fail": "disk", "at": "download"}, "disk_full", 11, "[Errno 28] No space left on device"),
    ({"fail": "nccl", "at": "load"}, "shared_memory", 11, "/dev/shm/nccl-Vn2pQc"),
    ({"fail": "model-type", "at": "load"}, "model_type", 6, "Unsupported model type pretend_net"),
    ({"fail": "no-gpu", "at": "load"}, "no_gpu", 11, "Found no NVIDIA driver"),
    ({"fail": "prometheus", "at": "warmup"}, "prometheus_port", 11, "failed to build prometheus recorder"),
    ({"kill": "shard", "at": "load"}, "killed", 11, "signaled to shutdown with signal 9"),
    ({"exit": 3, "at": "warmup"}, "exited", 11, "Warming up model"),
    ({"deaf": True}, "exited", 11, "Connected"),
]  # fmt: skip


@pytest.mark.parametrize(("behaviour", "cause", "code", "proof"), FAILURES, ids=[str(f[0]) for f in FAILURES])
def test_a_failure_is_named_with_the_lines_that_prove_it(
    desk: Desk, behaviour: dict[str, Any], cause: str, code: int, proof: str
) -> None:
    ended, events = desk.events(desk.spec(behaviour), "--no-retry")
    last = events[-1]
    assert (last["event"], last.get("cause"), last["exit_code"], ended) == ("failed", cause, code, code)
    assert any(proof in problem["message"] for problem in last["problems"]), last
    assert last["hint"]
    assert desk.containers() == []


def test_arguments_the_launcher_refuses(desk: Desk) -> None:
    """What the image itself sets, and no plan can see, is refused by the launcher."""
    made = desk.client.create_container(f"{IMAGE}:3.3.7-intel-cpu", name=f"{desk.name}-base")["Id"]
    desk.client.commit(made, repository="pretend/odd", tag="3.3.7-intel-cpu", conf={"Env": ["MAX_BEST_OF=many"]})
    ended, events = desk.events(desk.spec(tgi={"image": "pretend/odd:3.3.7-intel-cpu"}))
    assert (ended, events[-1]["cause"]) == (6, "refused")
    assert events[-1]["message"] == (
        "TGI refused its arguments: invalid value 'many' for '--max-best-of <MAX_BEST_OF>': "
        "invalid digit found in string"
    )


def test_killed_from_outside(desk: Desk) -> None:
    process = desk.process(desk.spec({"stall": True, "at": "load"}))
    wait_for(lambda: desk.containers() and desk.inspect()["State"]["Running"])
    desk.client.kill(desk.name)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 11
    assert "the host killed the server with signal 9" in err


def test_removed_by_somebody_else(desk: Desk) -> None:
    process = desk.process(desk.spec({"stall": True, "at": "load"}))
    wait_for(lambda: desk.containers() and desk.inspect()["State"]["Running"])
    desk.client.remove_container(desk.name, force=True)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 11
    assert "somebody else removed the container" in err


def wait_for(what: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if what():
                return
        except Exception:  # noqa: BLE001  (not there yet)
            pass
        time.sleep(0.05)
    pytest.fail("waited in vain")


def test_a_stall_is_said_and_a_timeout_ends_it(desk: Desk) -> None:
    code, events = desk.events(desk.spec({"stall": True, "at": "download"}), "--stall", "0.4", "--timeout", "5")
    assert code == 10
    stalls = [event["text"] for event in events if event["event"] == "stall" and event["step"] == "download"]
    assert "while downloading weights (the container has received" in stalls[0]
    assert len(stalls) < 6
    assert "not ready within 5 s; it was downloading weights" in events[-1]["message"]
    assert desk.containers() == []


# -- out of memory, and again


def test_out_of_memory_at_warmup_is_planned_again_until_it_starts(desk: Desk) -> None:
    spec = desk.spec({"oom_above": 2000, "budget": 50_000})
    code, events = desk.events(spec)
    assert code == 0, events[-1]
    retries = [event for event in events if event["event"] == "retry"]
    assert 1 <= len(retries) <= 3
    for retry in retries:
        assert retry["after"]["max_batch_prefill_tokens"] < retry["before"]["max_batch_prefill_tokens"]
    assert events[-1]["attempts"] == len(retries) + 1
    assert events[-1]["limits"]["max_batch_prefill_tokens"] <= 2000
    outcomes = [row["outcome"] for row in json.loads(desk.run("history", "--json").stdout)]
    assert outcomes == ["out_of_memory_at_warmup"] * len(retries) + ["starts"]
    assert desk.containers() == [desk.name]


def test_it_never_tries_more_than_three_times_more(desk: Desk) -> None:
    code, events = desk.events(desk.spec({"oom_above": 1}))
    assert code == 5
    assert kinds(events).count("retry") == 3
    assert desk.containers() == []


def test_without_retries_it_says_what_could_be_tried(desk: Desk) -> None:
    code, events = desk.events(desk.spec({"oom_above": 1}), "--no-retry")
    assert code == 5
    assert events[-1]["hint"].startswith("With ")
    assert "max_batch_prefill_tokens 3072" in events[-1]["hint"]


def test_it_never_gives_less_than_the_floors(desk: Desk) -> None:
    spec = desk.spec({"oom_above": 100}, limits={"max_batch_prefill_tokens": 4096, "max_total_tokens": 8192})
    code, events = desk.events(spec)
    assert code == 5
    after = [event["after"]["max_batch_prefill_tokens"] for event in events if event["event"] == "retry"]
    assert [tokens for tokens in after if tokens < 4096] == []
    assert kinds(events).count("retry") == 0
    assert "No smaller limits hold what the spec asks" in events[-1]["hint"]


# -- the end


@pytest.mark.parametrize(
    ("at", "number"),
    [("start", signal.SIGINT), ("download", signal.SIGINT), ("load", signal.SIGINT), ("warmup", signal.SIGINT),
     ("load", signal.SIGTERM), ("start", signal.SIGHUP), ("download", signal.SIGHUP), ("warmup", signal.SIGHUP),
     ("load", signal.SIGQUIT)],
)  # fmt: skip
def test_interrupted_at_any_phase_nothing_is_left(desk: Desk, at: str, number: signal.Signals) -> None:
    mark = {"start": "Args", "download": "Starting check", "load": "Starting shard", "warmup": "Warming up"}[at]
    process = desk.process(desk.spec({"stall": True, "at": at}))
    wait_for(lambda: mark in engines.logs_of(desk.client, desk.name))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert desk.containers() == []


def test_interrupted_while_it_starts_nothing_is_left(desk: Desk) -> None:
    for delay in (0.4, 0.6, 0.8):
        process = desk.process(desk.spec({"stall": True}))
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode in (130, -signal.SIGINT)  # the second: Python itself was still starting
        assert desk.containers() == []


def test_keep_leaves_what_was_started(desk: Desk) -> None:
    result = desk.launch(desk.spec({"exit": 1}), "--keep")
    assert result.exit_code == 11
    assert "The container stays, as --keep asks" in result.stderr
    assert desk.containers() == [desk.name]
    assert "exited" in desk.run("status").stdout


def test_killed_outright_it_leaves_only_what_has_its_label(desk: Desk) -> None:
    process = desk.process(desk.spec({"stall": True}))
    wait_for(desk.containers)
    process.kill()
    process.communicate(timeout=30)
    assert all(marks.PLAN in row["Labels"] for row in desk.client.containers(all=True))
    assert desk.name in desk.run("status").stdout


def test_two_launches_of_one_name_at_once(desk: Desk) -> None:
    spec = desk.spec({"slow": 0.05})
    both = [desk.process(spec) for _ in range(2)]
    ended = [process.communicate(timeout=60) for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 8], ended
    assert desk.containers() == [desk.name]
    assert desk.inspect()["State"]["Running"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sockets that the SDK does not close
def test_the_engine_stops_in_mid_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.require()
    with engines.daemon(apart=True) as running:
        engines.load_images(running)
        (tmp_path / "desk").mkdir()
        desk = Desk(tmp_path / "desk", running, monkeypatch)
        monkeypatch.setattr(follow, "BACK_S", 1)

        def kill() -> None:
            wait_for(lambda: "Starting shard" in engines.logs_of(desk.client, desk.name))
            running.process.kill()

        (killer := threading.Thread(target=kill)).start()
        result = desk.launch(desk.spec({"stall": True, "at": "load"}))
        killer.join()
        running.process.wait(10)
        assert result.exit_code == 7, result.stderr
        assert "stopped answering" in result.stderr
        assert f"has the label {marks.LAUNCH}=" in result.stderr
        del result  # it holds the error, and that the SDK's sockets
        gc.collect()


# -- before anything starts


def test_everything_in_the_way_is_found_at_once(desk: Desk) -> None:
    desk.client.create_container(f"{IMAGE}:3.3.7", name=desk.name)
    cache = desk.folder / "file"
    cache.write_text("")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", desk.port))
        taken.listen()
        spec = desk.spec(base=CUDA, hardware={"count": 2}, container={"cache": str(cache), "shm_size": "64m"},
                         tgi={"num_shard": 2})  # fmt: skip
        result = desk.launch(spec)
    assert result.exit_code == 8
    for part in (
        "5 things stand in the way",
        f"a container named '{desk.name}' exists already: {IMAGE}:3.3.7, created (not ours)",
        f"port {desk.port} is taken by another program",
        "no Hub token is set in HF_TOKEN",
        "shared memory gets 64.0 MiB, and 2 shards talk through it",
        f"{cache} is not a folder",
    ):
        assert part in " ".join(result.stderr.split()), result.stderr
    assert desk.containers() == [desk.name]


def test_no_room_for_the_weights(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 << 20))
    result = desk.launch(desk.spec())
    assert result.exit_code == 8
    assert "5.75 GiB of weights are still to download" in result.stderr
    assert "10.0 MiB free" in result.stderr


def test_a_port_another_container_publishes(desk: Desk) -> None:
    assert desk.launch(desk.spec()).exit_code == 0
    result = desk.launch(desk.spec(container={"name": f"{desk.name}-2"}))
    assert result.exit_code == 8
    assert f"port {desk.port} is published by container '{desk.name}'" in " ".join(result.stderr.split())


def test_a_dry_run_prints_the_request_and_starts_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = desk.launch(desk.spec(), "--dry-run")
    assert result.exit_code == 0
    body = json.loads(result.stdout)
    assert body["Cmd"][:2] == ["--model-id", "Qwen/Qwen2.5-3B-Instruct"]
    assert body["Env"][-1] == "HF_TOKEN=(from your HF_TOKEN)"
    assert desk.containers() == []
    assert not (desk.folder / "history").exists()


def test_replace_swaps_and_reuse_keeps(desk: Desk) -> None:
    spec = desk.spec()
    assert desk.launch(spec).exit_code == 0
    first = desk.inspect()["Id"]
    refused = desk.launch(spec)
    assert refused.exit_code == 8
    assert "(the same plan)" in refused.stderr
    code, events = desk.events(spec, "--reuse")
    assert (code, events[-1]["reused"], events[-1]["id"]) == (0, True, first)
    other = desk.spec(limits={"max_total_tokens": 4096})
    assert desk.launch(other, "--reuse").exit_code == 8
    code, events = desk.events(other, "--replace")
    assert code == 0
    assert desk.inspect()["Id"] == events[-1]["id"] != first
    assert desk.containers() == [desk.name]


def test_reuse_starts_one_that_was_stopped(desk: Desk) -> None:
    spec = desk.spec()
    assert desk.launch(spec).exit_code == 0
    first = desk.inspect()["Id"]
    desk.client.stop(first, timeout=5)
    assert desk.launch(spec, "--reuse").exit_code == 0
    assert desk.inspect()["Id"] == first


# -- several servers


def two(desk: Desk, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None,
        base: dict[str, Any] = CPU, **sections: Any) -> str:  # fmt: skip
    """One file with the specs of two servers on one machine."""
    texts = []
    for name, behaviour, port in (("a", first, desk.port), ("b", second, free_port())):
        container = {"name": f"{desk.name}-{name}", "port": port}
        texts.append(Path(desk.spec(behaviour, base, container=container, **sections)).read_text("utf-8"))
    path = desk.folder / "two.yaml"
    path.write_text("\n---\n".join(texts))
    return str(path)


ON_ONE_GPU = {"model": {"id": "Qwen/Qwen2.5-3B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}}


def test_two_servers_on_one_gpu_come_up_one_after_the_other(desk: Desk) -> None:
    code, events = desk.events(two(desk, base=ON_ONE_GPU))
    assert code == 0, events[-1]
    a, b = f"{desk.name}-a", f"{desk.name}-b"
    assert kinds(events)[0] == "packing"
    assert events[0]["order"] == [a, b]
    told = [(event["event"], event["server"]) for event in events if event["event"] in ("start", "verified", "result")]
    assert told == [("start", a), ("verified", a), ("start", b), ("verified", b), ("result", a), ("result", b)]
    assert {event.get("server") for event in events[1:]} == {a, b}
    seconds = [event["seconds"] for event in events if "seconds" in event and event["event"] != "result"]
    assert seconds == sorted(seconds)
    shares = events[0]["gpus"][0]["servers"]
    assert shares[0]["memory_fraction"] < shares[1]["memory_fraction"]
    for share, result in zip(shares, events[-2:], strict=True):
        command = engines.inspected(desk.client, share["name"])["Config"]["Cmd"]
        passed = dict(pairwise(command)).get("--cuda-memory-fraction", "1.0")
        assert float(passed) == share["memory_fraction"]
        with urlopen(f"{result['url']}/health") as answer:
            assert answer.status == 200
    assert len({result["url"] for result in events[-2:]}) == 2
    assert [row["in_use_bytes"] for row in json.loads(desk.run("history", "--json").stdout)] == [
        share["in_use_bytes"] for share in shares
    ]
    assert desk.run("history", "--export").stdout.count("- id:") == 1


def test_two_files_without_names_and_ports_get_their_own(desk: Desk) -> None:
    specs = []
    for number in (1, 2):
        spec = json.loads(Path(desk.spec()).read_text("utf-8"))
        spec["container"] = {"cache": spec["container"]["cache"]}
        (path := desk.folder / f"{number}.yaml").write_text(json.dumps(spec))
        specs.append(str(path))
    result = desk.launch(*specs, "--dry-run")
    first, second = json.loads(result.stdout)
    assert (first["name"], second["name"]) == ("tgi", "tgi-2")
    ports = [body["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] for body in (first, second)]
    assert ports == ["8080", "8081"]
    assert "They fit together." in result.stderr
    assert desk.client.containers(all=True) == []


def test_when_the_second_fails_the_first_is_removed(desk: Desk) -> None:
    code, events = desk.events(two(desk, second={"fail": "gated", "at": "download"}))
    a, b = f"{desk.name}-a", f"{desk.name}-b"
    assert code == 9
    assert ("ready", a) in [(event["event"], event.get("server")) for event in events]
    assert events[-2]["text"] == f"stopped and removed {a}, for not all of them came up"
    assert (events[-1]["event"], events[-1]["cause"], events[-1]["server"]) == ("failed", "gated", b)
    assert events[-1]["message"].startswith(f"{b}: ")
    assert kinds(events).count("result") == 0
    assert desk.containers() == []


def test_when_the_second_fails_the_first_stays_with_keep(desk: Desk) -> None:
    result = desk.launch(two(desk, second={"exit": 3, "at": "load"}), "--keep")
    assert result.exit_code == 11
    assert f"{desk.name}-a: ready at http://127.0.0.1:{desk.port}" in result.stderr
    assert f"Error: {desk.name}-b: " in result.stderr
    assert f"{desk.name}-a stays, as --keep asks" in result.stderr
    assert sorted(desk.containers()) == [f"{desk.name}-a", f"{desk.name}-b"]
    with urlopen(f"http://127.0.0.1:{desk.port}/health") as answer:
        assert answer.status == 200


def test_interrupted_during_the_second_nothing_is_left(desk: Desk) -> None:
    process = desk.process(two(desk, second={"stall": True, "at": "load"}))
    wait_for(lambda: "Starting shard" in engines.logs_of(desk.client, f"{desk.name}-b"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert desk.containers() == []


def test_what_the_second_learns_from_running_out_of_memory_leaves_the_first_alone(desk: Desk) -> None:
    code, events = desk.events(two(desk, second={"oom_above": 2000}, base=ON_ONE_GPU))
    assert code == 0, events[-1]
    retries = [event["server"] for event in events if event["event"] == "retry"]
    assert set(retries) == {f"{desk.name}-b"}
    started = [event["server"] for event in events if event["event"] == "start"]
    assert started == [f"{desk.name}-a", f"{desk.name}-b", *retries]


def test_what_is_in_the_way_of_several_is_found_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.client.create_container(f"{IMAGE}:3.3.7", name=f"{desk.name}-b")
    spec = two(desk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=8 << 30))
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", desk.port))
        taken.listen()
        result = desk.launch(spec)
    text = " ".join(result.stderr.split())
    assert result.exit_code == 8
    assert "2 things stand in the way" in text
    assert f"{desk.name}-a: port {desk.port} is taken by another program" in text
    assert f"{desk.name}-b: a container named '{desk.name}-b' exists already" in text
    assert desk.containers() == [f"{desk.name}-b"]


def test_weights_that_fit_the_disk_one_by_one_but_not_together(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = json.loads(Path(desk.spec()).read_text("utf-8")), desk.folder / "other.yaml"
    container = {**one["container"], "name": f"{desk.name}-2", "port": free_port()}
    other.write_text(json.dumps({**one, "model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "container": container}))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=16 << 30))
    result = desk.launch(desk.spec(), str(other))
    assert result.exit_code == 8
    assert "of weights of 2 models are still to download" in " ".join(result.stderr.split())


def test_several_are_replaced_before_the_first_starts_and_kept_only_in_order(desk: Desk) -> None:
    spec = two(desk, base=ON_ONE_GPU)
    assert desk.launch(spec).exit_code == 0
    a, b = f"{desk.name}-a", f"{desk.name}-b"
    code, events = desk.events(spec, "--reuse")
    assert (code, [event["reused"] for event in events[-2:]]) == (0, [True, True])
    code, events = desk.events(spec, "--replace")
    assert code == 0
    assert kinds(events)[1:4] == ["note", "note", "start"]
    desk.client.remove_container(a, force=True)
    result = desk.launch(spec, "--reuse")
    assert result.exit_code == 8
    assert f"{b} runs already, and {a} has to start before it" in " ".join(result.stderr.split())


@pytest.mark.parametrize("options", [["--detach"], ["--as-given"], ["--restart", "always"], ["--method", "notebook"]])
def test_what_makes_no_sense_with_several(desk: Desk, options: list[str]) -> None:
    result = desk.launch(two(desk, base=ON_ONE_GPU), *options)
    assert result.exit_code == 2
    assert f"{options[0]} " in result.stderr
    assert desk.containers() == []


def test_several_that_do_not_fit_together_are_not_started(desk: Desk) -> None:
    code, events = desk.events(two(desk, base=CUDA))
    assert (code, kinds(events)) == (5, ["packing", "not_started"])
    assert events[-1]["packing"]["fits"] is False
    assert desk.containers() == []


# -- GPUs


def test_the_gpu_request_reaches_the_engine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert desk.launch(desk.spec(base=CUDA)).exit_code == 0
    (asked,) = desk.inspect()["HostConfig"]["DeviceRequests"]
    assert (asked["Count"], asked["Capabilities"]) == (-1, [["gpu"]])
    desk.clean()
    assert desk.launch(desk.spec(base=CUDA, container={"gpus": ["1"]})).exit_code == 0
    (asked,) = desk.inspect()["HostConfig"]["DeviceRequests"]
    assert (asked["Count"], asked["DeviceIDs"], asked["Capabilities"]) == (0, ["1"], [["gpu"]])


def test_sagemakers_image_is_told_by_variables_and_listens_on_its_own_port(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = desk.launch(desk.spec(base=CUDA, tgi={"image": SAGEMAKER, "flags": {"max-concurrent-requests": 7}}))
    assert result.exit_code == 0, result.output
    received = desk.received()
    assert received["argv"] == ["--port", "8080"]
    assert (received["env"]["MODEL_ID"], received["env"]["NUM_SHARD"]) == ("meta-llama/Llama-3.1-8B-Instruct", "1")
    assert received["env"]["MAX_CONCURRENT_REQUESTS"] == "7"
    assert int(received["env"]["MAX_TOTAL_TOKENS"]) > int(received["env"]["MAX_INPUT_TOKENS"]) > 0
    assert desk.inspect()["Config"]["StopTimeout"] == 10


def test_an_engine_without_gpus_says_how_to_get_them(
    bare: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, bare, monkeypatch)
    result = desk.launch(desk.spec(base=CUDA))
    assert result.exit_code == 8
    text = " ".join(result.stderr.split())
    assert "could not select device driver" in text
    assert "nvidia-ctk runtime configure" in text
    assert "no Hub token is set" in text
    assert desk.client.containers(all=True) == []


def test_what_the_nvidia_hook_refuses(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refusal = desk.engine.folder / "bin" / "nvidia-container-runtime-hook.refuse"
    refusal.write_text("nvidia-container-cli: device error: 7: unknown device: unknown\n")
    try:
        result = desk.launch(desk.spec(base=CUDA, container={"gpus": ["7"]}))
    finally:
        refusal.unlink()
    assert result.exit_code == 8
    assert "the engine has no such GPU" in result.stderr
    assert desk.containers() == []


def test_gpus_that_are_not_here_or_in_use(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    tools = desk.folder / "tools"
    tools.mkdir()
    smi = tools / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        "*index,name*) echo '0, NVIDIA L4, 23034, 9000, Disabled, 550.54.15, 8.9';;\n"
        "*index,uuid*) echo '0, GPU-1';;\n"
        "*) echo 'GPU-1, 4242, 8990, /opt/conda/bin/python3.11'; echo 'GPU-2, 1, 5, other';;\nesac\n"
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    result = desk.launch(desk.spec(base=CUDA, container={"gpus": ["0", "3"]}))
    text = " ".join(result.stderr.split())
    assert result.exit_code == 8
    assert "GPU 3 is not here" in text
    assert (
        "GPU 0 (NVIDIA L4) has 8.79 GiB in use, and the plan counts on 0 B: process 4242 (python3.11) 8990 MiB" in text
    )
    assert "--set hardware.in_use=9000MiB" in text


# -- what others send


@pytest.mark.parametrize("noise", ["long", "bytes", "flood"])
def test_odd_logs_are_survived(desk: Desk, noise: str) -> None:
    result = desk.launch(desk.spec({"noise": noise, "at": "load"}), "--logs")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 40_000


def test_hostile_values_reach_the_container_unchanged(desk: Desk) -> None:
    hostile = {
        "A": "$(touch /tmp/pwned) `id` \"'\\ ; rm -rf / #",
        "B": "%s ${HOME} ~ * ? [a-z] <>|&!#",
        "C": "ünï©ode 🔥",
        "D": "--privileged",
        "E": "a=b=c",
        "F": "",
    }
    spec = desk.spec(tgi={"env": hostile, "flags": {"hostname": "x y $(id) *"}})
    result = desk.launch(spec)
    assert result.exit_code == 0, result.output
    env = desk.received()["env"]
    assert {name: env[name] for name in hostile} == hostile
    assert env["HOSTNAME"] == "x y $(id) *"


def test_a_hostile_model_folder_reaches_the_container_unchanged(desk: Desk) -> None:
    folder = desk.folder / "mo del:;$(touch pwned)'\"*"
    folder.mkdir()
    (folder / "inside").write_text("")
    plan = tgi_advisor.advise(desk.spec())
    facts = plan.facts._replace(model=plan.facts.model._replace(folder=str(folder)))
    plan = tgi_advisor.advise(plan.spec, facts=facts)
    with DockerPlace(connect()) as place:
        run.launch(plan, place, run.Options(), Host(), lambda event: None)
    (mount,) = (found for found in desk.inspect()["Mounts"] if found["Destination"].startswith("/models/"))
    assert mount["Source"] == str(folder)
    assert desk.received()["argv"][:2] == ["--model-id", mount["Destination"]]


def test_a_token_is_never_seen(desk: Desk) -> None:
    """Not in any output, file, label, exception or command line, though the server itself prints it."""
    spec = desk.spec({"token_says": True, "slow": 0.03})
    outputs: list[str] = []
    process = desk.process(spec, "--logs", HF_TOKEN=TOKEN)
    lines = set()
    while process.poll() is None:
        lines |= command_lines()
    outputs += process.communicate()
    assert process.returncode == 0, outputs
    assert "using token ***" in outputs[0]
    assert desk.received()["env"]["HF_TOKEN"] == TOKEN
    outputs += [json.dumps(desk.inspect()["Config"]["Labels"]), json.dumps(desk.inspect()["Config"]["Cmd"])]
    desk.clean()
    failing = desk.spec({"token_says": True, "exit": 4, "at": "load"})
    for options in (["--logs", "--json"], ["--dry-run"], []):
        process = desk.process(failing, *options, HF_TOKEN=TOKEN, TGI_ADVISOR_DEBUG="1" if not options else "")
        outputs += process.communicate(timeout=30)
    outputs += [path.read_text("utf-8", "replace") for path in desk.folder.rglob("*") if path.is_file()]
    assert not [text for text in outputs if TOKEN in text]
    assert not [line for line in lines if TOKEN in line]


def command_lines() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().decode("utf-8", "replace"))
        except OSError:  # noqa: PERF203  (it has ended)
            continue
    return found
