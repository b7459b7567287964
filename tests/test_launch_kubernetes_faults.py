"""`launch --on kubernetes` where the cluster has troubles of its own: policies, nodes, an API server that goes away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from clusters import Fault, Obj, RefusalError
from desks import LAUNCHED, Anywhere, Loopback

from tgi_advisor.cli.main import cli
from tgi_advisor.launch import follow
from tgi_advisor.launch.kubernetes import watching

ENDED: dict[str, Any] = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}


def pods(desk: Loopback, change: Callable[[Obj], None]) -> None:
    """Change every pod of the namespace."""
    for path, obj in list(desk.cluster.store.objects.items()):
        if obj["kind"] == "Pod":
            desk.cluster.store.change(path, change)


def once_it_runs(desk: Loopback, happens: Callable[[], object]) -> threading.Thread:
    """Something that happens when a container has been started."""

    def wait() -> None:
        desk.cluster.started.wait(20)
        happens()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


# -- in the way


@pytest.mark.loopback("the namespace is not let go")
def test_a_namespace_that_is_being_deleted(desk: Loopback) -> None:
    desk.cluster.store.change("/api/v1/namespaces/default", lambda one: one.update(status={"phase": "Terminating"}))
    result = desk.launch(desk.spec())
    assert result.exit_code == 8
    assert "the namespace 'default' is being deleted" in result.stderr
    assert "Wait until it is gone, or name another one." in result.stderr
    assert desk.left() == []


@pytest.mark.loopback("admission is the cluster's")
def test_a_webhook_that_denies_is_quoted(desk: Loopback) -> None:
    words = 'admission webhook "policy.example" denied the request: limits are required'
    body = json.dumps(RefusalError(403, "Forbidden", words).body).encode()
    desk.cluster.faults.append(Fault("PATCH", "deployments/llama.*dryRun=All", 403, times=9, body=body))
    result = desk.launch(desk.spec())
    said = " ".join(result.stderr.split())
    assert result.exit_code == 8
    assert f"deployment/llama is refused: {words}" in said
    assert "`tgi-advisor emit --format kubernetes` prints it, to be altered and applied by hand." in said
    assert desk.left() == []


@pytest.mark.loopback("admission is the cluster's")
def test_a_warning_of_the_cluster_is_said_and_passed_over(desk: Loopback) -> None:
    desk.cluster.warnings.append('would violate PodSecurity \\"restricted:latest\\": unrestricted capabilities')
    result = desk.launch(desk.spec(), "--dry-run")
    assert result.exit_code == 0
    assert 'the cluster warns: would violate PodSecurity "restricted:latest"' in " ".join(result.stderr.split())


def test_an_image_pull_secret_that_is_not_there(anywhere: Anywhere) -> None:
    result = anywhere.launch(anywhere.spec(kubernetes={"pull_secret": "regcred"}))
    said = " ".join(result.stderr.split())
    assert result.exit_code == 8
    assert "the pod pulls images with the Secret 'regcred', which is not there" in said
    assert f"kubectl create secret docker-registry regcred -n {anywhere.namespace}" in said
    assert anywhere.left() == []


@pytest.mark.loopback("permissions are changed")
@pytest.mark.parametrize("lacks", [("watch", "pods"), ("get", "pods/log"), ("get", "pods/portforward")])
def test_who_may_create_and_not_follow_starts_nothing(desk: Loopback, lacks: tuple[str, str]) -> None:
    desk.cluster.denied.add(lacks)
    result = desk.launch(desk.spec())
    assert result.exit_code == 8
    assert f"this account may not do in namespace 'default': {' '.join(lacks)}" in " ".join(result.stderr.split())
    assert desk.left() == []


# -- while it comes up


@pytest.mark.loopback("nodes are changed")
def test_a_pod_that_its_node_gave_up_is_named(desk: Loopback) -> None:
    waiting = once_it_runs(desk, lambda: pods(desk, lambda pod: pod.update(status=ENDED)))
    code, events = desk.events(desk.spec({"slow": 0.2}))
    waiting.join()
    assert (code, events[-1]["cause"]) == (11, "evicted"), events[-1]
    assert "the node gave the pod up (Evicted): The node was low on resource: memory." in events[-1]["message"]
    assert "`kubectl describe node plain -n default` shows" in json.dumps(events[-1])
    assert "Deployment/llama" not in desk.left()


@pytest.mark.loopback("nodes are changed")
def test_a_pod_on_a_node_that_is_gone_is_left_for_the_next(desk: Loopback) -> None:
    """The controller makes another one; the log of the first would stay silent for ever."""

    def gone() -> None:
        while not any("/log?" in path for _, path, _ in desk.cluster.requests):
            time.sleep(0.02)
        pods(desk, lambda pod: pod["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))

    waiting = once_it_runs(desk, gone)
    code, events = desk.events(desk.spec({"slow": 0.1}), "--timeout", "60")
    waiting.join()
    assert code == 0, events[-1]
    steps = [event["text"] for event in events if event["event"] == "step"]
    followed = [path.partition("/log?")[0] for _, path, _ in desk.cluster.requests if "/log?" in path]
    assert len({*followed}) == 2, "the log of the pod that serves was not followed"
    assert steps[-1] == "the router opens its port"


@pytest.mark.loopback("the API server goes away")
@pytest.mark.parametrize("back", [True, False])
def test_an_api_server_that_goes_away_is_waited_for(
    desk: Loopback, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """One that stays away ends the launch, and what runs is left alone, to be found again."""
    for where, name, value in ((watching, "AGAIN_S", 0.05), (watching, "MOST_AGAIN_S", 0.1), (watching, "PATIENT", 1),
                               (follow, "BACK_S", 30.0 if back else 0.5)):  # fmt: skip
        monkeypatch.setattr(where, name, value)
    desk.cluster.watch_seconds = 0.2
    noticed = threading.Event()

    def missed(*given: Any) -> None:
        noticed.set()
        real(*given)

    def away() -> None:
        desk.cluster.faults += [Fault(method, ".", times=100_000) for method in ("GET", "POST", "PATCH", "DELETE")]
        if back:
            noticed.wait(30)
            desk.cluster.faults.clear()

    real = follow.Follower._missed
    monkeypatch.setattr(follow.Follower, "_missed", missed)
    waiting = once_it_runs(desk, away)
    code, events = desk.events(desk.spec({"slow": 0.2}))
    waiting.join()
    said = [event["text"] for event in events if event["event"] == "note"]
    assert "does not answer" in said[0]
    assert said[0].endswith("waiting for it to come back")
    assert code == (0 if back else 7), events[-1]
    if not back:
        assert "`tgi-advisor status --on kubernetes:loop --namespace default` lists it" in said[-1]
        assert "Deployment/llama" in desk.left()


@pytest.mark.loopback("permissions are changed")
def test_a_port_that_is_not_forwarded_any_more_ends_it(desk: Loopback) -> None:
    """The preflight had found that it may; /health would be waited for in vain."""
    waiting = once_it_runs(desk, lambda: desk.cluster.denied.add(("get", "pods/portforward")))
    code, events = desk.events(desk.spec({"slow": 0.05}))
    waiting.join()
    assert code == 7, events[-1]
    assert "the cluster could not forward a port of pod llama-" in events[-1]["message"]
    assert desk.left() == ["PersistentVolumeClaim/llama-data"]


# -- what is printed


def test_a_roll_out_says_that_the_old_pods_serve(anywhere: Anywhere) -> None:
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    code, events = anywhere.events(anywhere.spec(tgi={"env": {"A": "b"}}), "--replace")
    assert code == 0, events[-1]
    (start,) = [event["text"] for event in events if event["event"] == "start"]
    assert start.endswith("; the pods of before serve until the new ones answer")


def test_the_diff_shows_no_label_of_a_launch(anywhere: Anywhere) -> None:
    """For it is another one each time."""
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    result = anywhere.launch(anywhere.spec(), "--dry-run", "--replace")
    assert result.exit_code == 0, result.stderr
    assert "tgi-advisor.launch" not in result.stdout
    assert "deployment/llama: nothing changes" in result.stdout


def test_two_terminals(anywhere: Anywhere) -> None:
    """What one launched another lists, and stops, with the words that the first was told."""
    told = anywhere.launch(anywhere.spec(), "--detach").stdout
    (stop,) = [line.partition(": ")[2] for line in told.splitlines() if line.startswith("Stop it with: ")]
    words = stop.split()
    on = words[words.index("--on") :]
    status = CliRunner().invoke(cli, ["status", *on])
    assert "llama" in status.stdout
    stopped = CliRunner().invoke(cli, words[1:])
    assert (stopped.exit_code, stopped.stdout.splitlines()[0]) == (0, "Stopped and removed llama.")
    again = CliRunner().invoke(cli, words[1:])
    assert (again.exit_code, again.stdout) == (2, "")
    assert {one.partition("/")[0] for one in anywhere.left()} <= {LAUNCHED[2]}
