"""`launch --on kubernetes`, on a real cluster where one is named, else on an API server on loopback."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import clusters
import desks
import pytest
from click.testing import CliRunner
from clusters import Fault
from desks import IMAGE, LAUNCHED, REAL, Anywhere, Loopback
from servers import CUDA

from tgi_advisor.cli.main import cli
from tgi_advisor.launch import marks
from tgi_advisor.launch.kubernetes import watching

SECRET = "hf_" + "Secret0Token" * 3


def texts(events: list[dict[str, Any]], kind: str) -> list[str]:
    return [event["text"] for event in events if event["event"] == kind]


# -- the course of things


def test_a_launch_serves_and_is_held_to_its_prediction(anywhere: Anywhere) -> None:
    code, events = anywhere.events(anywhere.spec())
    assert code == 0, events
    kinds = [event["event"] for event in events]
    assert kinds.index("start") < kinds.index("ready") < kinds.index("verified") < kinds.index("result")
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps[-7:] == ["load", "load", "warmup", "warmup", "graphs", "budget", "connected"]
    result = events[-1]
    there = anywhere.namespace
    assert (result["id"], result["url"]) == (f"{there}/llama", f"http://llama.{there}.svc:8080")
    assert result["figures"]["max_total_tokens"] == {"predicted": 8192, "observed": 8192}
    assert result["figures"]["max_batch_total_tokens"]["observed"] == 40000
    (deployment,) = anywhere.cluster.of_kind("Deployment")
    labels = deployment["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "tgi-advisor"
    assert deployment["metadata"]["annotations"][marks.MODEL] == "Qwen/Qwen2.5-3B-Instruct"
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["spec"]["template"]["metadata"]["labels"][marks.LAUNCH] == labels[marks.LAUNCH]

    status = json.loads(anywhere.run("status", "--json").stdout)
    assert [(one["name"], one["healthy"], one["port"], one["release"]) for one in status] == [
        ("llama", True, 8080, "3.3.7")
    ]
    row = json.loads(CliRunner().invoke(cli, ["history", "--on", "kubernetes", "--json"]).stdout)[-1]
    assert (row["outcome"], row["observed"], row["place"]) == ("starts", 40000, "kubernetes")
    assert "No launch on docker has been recorded" in CliRunner().invoke(cli, ["history", "--on", "docker"]).stdout

    stopped = anywhere.run("stop", "llama")
    assert stopped.exit_code == 0
    assert "persistentvolumeclaim/llama-data stays" in stopped.stdout
    assert anywhere.left() == ["PersistentVolumeClaim/llama-data"]
    assert f"no server in namespace '{there}' of context '{anywhere.context}'" in anywhere.run("status").stdout


def test_people_read_how_to_reach_and_stop_it(anywhere: Anywhere) -> None:
    result = anywhere.launch(anywhere.spec())
    assert result.exit_code == 0, result.output
    context, namespace = anywhere.context, anywhere.namespace
    assert f"llama answers at http://llama.{namespace}.svc:8080\n" in result.stdout
    assert f"From here: kubectl port-forward service/llama 8080:8080 -n {namespace}\n" in result.stdout
    stop = f"tgi-advisor stop llama --on kubernetes:{context} --namespace {namespace}"
    assert f"Stop it with: {stop}\n" in result.stdout


def test_a_dry_run_shows_the_servers_diff_and_changes_nothing(anywhere: Anywhere) -> None:
    result = anywhere.launch(anywhere.spec(), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "+++ deployment/llama (then)" in result.stdout
    assert '+  "kind": "PersistentVolumeClaim"' in result.stdout
    assert anywhere.left() == []
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    changed = anywhere.spec(tgi={"env": {"LOG_LEVEL": "debug"}})
    result = anywhere.launch(changed, "--dry-run", "--replace")
    assert result.exit_code == 0, result.output
    assert '+                "name": "LOG_LEVEL",' in result.stdout
    assert "PersistentVolumeClaim" not in result.stdout
    (deployment,) = anywhere.cluster.of_kind("Deployment")
    assert "LOG_LEVEL" not in json.dumps(deployment)
    code, events = anywhere.events(changed, "--dry-run", "--replace")
    assert (code, set(events[-1]["request"]["diff"])) == (0, {"deployment/llama", "service/llama"})


def test_a_detached_launch_returns(anywhere: Anywhere) -> None:
    result = anywhere.launch(anywhere.spec({"slow": 0.2}), "--detach")
    assert result.exit_code == 0, result.output
    assert f"Follow it with: kubectl logs -f deployment/llama -n {anywhere.namespace}" in result.stdout
    assert "Deployment/llama" in anywhere.left()


# -- in the way


@pytest.mark.loopback("nodes, storage classes and permissions are changed")
def test_everything_in_the_way_is_found_together(desk: Loopback) -> None:
    cluster = desk.cluster
    cluster.node("small", 1, memory_mib=15360)
    cluster.node("none", 0)
    cluster.denied |= {("create", "services"), ("get", "pods/portforward")}
    cluster.store.remove("/apis/storage.k8s.io/v1/storageclasses/standard")
    cluster.add("/api/v1/namespaces/default/resourcequotas/gpus", "v1", "ResourceQuota", spec={}, status={
        "hard": {"requests.nvidia.com/gpu": "4", "pods": "10"}, "used": {"requests.nvidia.com/gpu": "4", "pods": "3"},
    })  # fmt: skip
    cluster.add("/api/v1/namespaces/default/services/llama", "v1", "Service")
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    cluster.add(account, "v1", "ServiceAccount", imagePullSecrets=[{"name": "registry"}])
    code, events = desk.events(desk.spec(base=CUDA))
    assert code == 8
    found = [problem["message"] for problem in events[-1]["problems"]]
    said = "\n".join(found)
    assert "this account may not do in namespace 'default': create services; get pods/portforward" in said
    assert "no node can run this plan: none: no nvidia.com/gpu; small: GPUs with 15.00 GiB" in said
    assert "persistentvolumeclaim/llama-data names no storage class" in said
    assert "the quota 'gpus' leaves 0 of requests.nvidia.com/gpu, and this launch needs 1" in said
    assert "there is no Secret 'llama-secrets' in namespace 'default', and the model is gated" in said
    assert "service/llama exists already in namespace 'default' (not ours)" in said
    assert len(found) == 6
    assert any(
        "pulls images with the Secret 'registry', which is not there" in text for text in texts(events, "finding")
    )
    assert desk.left() == ["Service/llama"]


def test_a_namespace_that_is_not_there(anywhere: Anywhere) -> None:
    result = anywhere.launch(anywhere.spec(), "--namespace", "tgi-advisor-none")
    assert result.exit_code == 8
    assert f"there is no namespace 'tgi-advisor-none' in context '{anywhere.context}'" in result.stderr


def test_a_full_quota_is_in_the_way(anywhere: Anywhere) -> None:
    hard = {"count/deployments.apps": "0"}
    anywhere.cluster.quota("none", {"hard": hard})
    result = anywhere.launch(anywhere.spec())
    assert result.exit_code == 8
    assert "the quota 'none' leaves 0 of count/deployments.apps, and this launch needs 1" in " ".join(
        result.stderr.split()
    )
    assert anywhere.left() == []


@pytest.mark.loopback("nodes are changed")
def test_gpus_that_are_held_are_not_free(desk: Loopback) -> None:
    """A taint nobody tolerates, a node that is full: the plan waits only when told to."""
    desk.cluster.node("tainted", 8, taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])
    desk.cluster.node("full", 1)
    desk.cluster.add("/api/v1/namespaces/team/pods/other", "v1", "Pod", status={"phase": "Running"}, spec={
        "nodeName": "full", "containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
    })  # fmt: skip
    spec = desk.spec(base=CUDA, model={"id": "Qwen/Qwen2.5-7B-Instruct"})
    result = desk.launch(spec)
    assert result.exit_code == 8
    assert "no node has 1 x nvidia.com/gpu free: full has 0 of 1 free" in result.stderr
    desk.cluster.store.remove("/api/v1/nodes/full")
    result = desk.launch(spec)
    assert "no node can run this plan: tainted: taint team:NoSchedule" in result.stderr
    desk.cluster.store.remove("/api/v1/nodes/tainted")
    code, events = desk.events(spec, "--wait-for-node", "--timeout", "3")
    assert code == 10, events[-1]
    waited = [event for event in events if event["event"] == "step"]
    assert waited[-1]["step"] == "pending"
    assert "no node takes it: 0/0 nodes are available" in waited[-1]["text"]
    assert "it was waiting for a node" in events[-1]["message"]
    assert desk.left() == ["Pod/other"]


def test_what_others_set_is_not_taken_from_them(anywhere: Anywhere) -> None:
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    anywhere.cluster.edit("llama", {"progressDeadlineSeconds": 7000}, "kubectl-edit")
    result = anywhere.launch(anywhere.spec(tgi={"env": {"A": "b"}}), "--replace")
    assert result.exit_code == 8
    assert ".spec.progressDeadlineSeconds is set by kubectl-edit in another way" in " ".join(result.stderr.split())


def test_a_name_that_is_taken_asks_what_to_do(anywhere: Anywhere) -> None:
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    same = anywhere.launch(anywhere.spec())
    assert same.exit_code == 8
    assert f"deployment/llama exists already in namespace '{anywhere.namespace}' (the same plan)" in " ".join(
        same.stderr.split()
    )
    code, events = anywhere.events(anywhere.spec(), "--reuse")
    assert (code, events[-1]["reused"]) == (0, True)
    other = anywhere.launch(anywhere.spec(tgi={"env": {"A": "b"}}), "--reuse")
    assert other.exit_code == 8
    assert "(another plan of tgi-advisor)" in " ".join(other.stderr.split())


# -- failures, named


@pytest.mark.parametrize(
    ("behaviour", "code", "cause"),
    [
        ({"fail": "gated", "at": "download"}, 9, "gated"),
        ({"fail": "oom-load", "at": "load"}, 5, "out_of_memory_at_load"),
        ({"kill": "self", "at": "load"}, 11, "killed"),
    ],
)
def test_a_failure_is_named_from_the_log_and_nothing_is_left(
    anywhere: Anywhere, behaviour: dict[str, Any], code: int, cause: str
) -> None:
    ended, events = anywhere.events(anywhere.spec(behaviour))
    assert (ended, events[-1]["cause"]) == (code, cause), events[-1]
    assert anywhere.left() == ["PersistentVolumeClaim/llama-data"]
    notes = texts(events, "note")
    assert "removed deployment/llama, which did not serve yet" in notes
    assert any(note.startswith("persistentvolumeclaim/llama-data stays, with what was downloaded") for note in notes)


def test_out_of_memory_at_warmup_is_planned_again(anywhere: Anywhere) -> None:
    code, events = anywhere.events(anywhere.spec({"oom_above": 380}))
    assert code == 0, events[-1]
    assert events[-1]["attempts"] > 1
    retry = next(event for event in events if event["event"] == "retry")
    assert retry["after"]["max_batch_prefill_tokens"] < retry["before"]["max_batch_prefill_tokens"]
    assert len(anywhere.cluster.of_kind("Pod")) == 1


@pytest.mark.loopback("the kubelet does what it is told")
@pytest.mark.parametrize(
    ("trouble", "code", "cause", "says"),
    [
        ({"probe_kills": True}, 10, "probe", "its startup probe failed: Startup probe failed: connection refused"),
        ({"oom_kills": True}, 5, "killed", "the host killed the server for want of host memory"),
    ],
)
def test_what_the_cluster_knows_is_named(
    desk: Loopback, trouble: dict[str, Any], code: int, cause: str, says: str
) -> None:
    for name, value in trouble.items():
        setattr(desk.cluster.kubelet, name, value)
    ended, events = desk.events(desk.spec({"slow": 0.1}))
    assert (ended, events[-1]["cause"]) == (code, cause), events[-1]
    assert says in events[-1]["message"]
    assert "Deployment/llama" not in desk.left()
    assert ("PersistentVolumeClaim/llama-data" in desk.left()) is (cause in ("probe", "killed"))
    remembered = json.loads(CliRunner().invoke(cli, ["history", "--json"]).stdout)
    assert [row["outcome"] for row in remembered] == (["killed"] if cause == "killed" else [])


def test_an_image_that_is_not_there_is_named(anywhere: Anywhere) -> None:
    """And no claim stays of a launch whose container never ran."""
    registry, _, name = anywhere.image.rpartition("/")
    code, events = anywhere.events(anywhere.spec(tgi={"image": f"{registry}/none/{name}"}))
    assert (code, events[-1]["cause"]) == (9, "image"), events[-1]
    assert f"the node cannot pull {registry}/none/{name}" in events[-1]["message"]
    assert anywhere.left() == []
    assert json.loads(CliRunner().invoke(cli, ["history", "--json"]).stdout) == []


def test_a_pod_that_is_not_let_in_is_named(anywhere: Anywhere) -> None:
    """By a quota of some pods, which no preflight can tell; no claim stays either."""
    anywhere.cluster.quota("some", {"hard": {"pods": "0"}, "scopes": ["NotTerminating"]})
    code, events = anywhere.events(anywhere.spec())
    assert (code, events[-1]["cause"]) == (11, "pod_refused"), events[-1]
    assert "exceeded quota: some" in events[-1]["message"]
    assert anywhere.left() == []


def test_gpus_are_asked_for(anywhere: Anywhere) -> None:
    """As many of the resource as the plan has shards; and a quota of them holds."""
    spec, resource, count = anywhere.gpus()
    code, events = anywhere.events(spec)
    assert code == 0, events[-1]
    (pod,) = anywhere.cluster.of_kind("Pod")
    assert str(pod["spec"]["containers"][0]["resources"]["limits"][resource]) == str(count)
    anywhere.cluster.quota("gpus", {"hard": {f"requests.{resource}": str(count)}})
    result = anywhere.launch(anywhere.gpus(container={"name": "other"})[0])
    assert result.exit_code == 8, result.output
    assert f"leaves 0 of requests.{resource}, and this launch needs {count}" in " ".join(result.stderr.split())


@pytest.mark.loopback("the kubelet does what it is told")
def test_a_volume_that_is_not_there_is_said_while_it_waits(desk: Loopback) -> None:
    desk.cluster.kubelet.mount_error = "Unable to attach or mount volumes: unmounted volumes=[data]"
    code, events = desk.events(desk.spec(), "--timeout", "3")
    assert code == 10
    assert any("a volume is not there yet: Unable to attach" in text for text in texts(events, "step"))
    assert desk.left() == []


# -- rolling out


def test_a_changed_plan_is_rolled_out_while_the_old_one_serves(anywhere: Anywhere) -> None:
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    (old,) = anywhere.cluster.of_kind("Pod")
    serving: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            serving.append(sum(map(clusters.is_ready, anywhere.cluster.of_kind("Pod"))))

    looking = threading.Thread(target=look)
    looking.start()
    code, events = anywhere.events(anywhere.spec({"slow": 0.05}, tgi={"env": {"A": "b"}}), "--replace")
    over.set()
    looking.join()
    assert code == 0, events[-1]
    assert serving
    assert min(serving) > 0, "the old pod went before the new one was ready"
    assert anywhere.cluster.without("Pod", old["metadata"]["name"]), "the old pod is kept"
    (deployment,) = anywhere.cluster.of_kind("Deployment")
    assert '"A"' in json.dumps(deployment["spec"])


def test_a_failed_roll_out_is_rolled_back(anywhere: Anywhere) -> None:
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    (before,) = anywhere.cluster.of_kind("Deployment")
    (old,) = anywhere.cluster.of_kind("Pod")
    spec = anywhere.spec({"fail": "oom-load", "at": "load"})
    code, events = anywhere.events(spec, "--replace")
    assert (code, events[-1]["cause"]) == (5, "out_of_memory_at_load")
    (after,) = anywhere.cluster.of_kind("Deployment")
    assert "rolled deployment/llama back to the plan it had; its pods kept serving" in texts(events, "note")
    assert after["spec"] == before["spec"]
    assert [after["metadata"]["annotations"][mark] for mark in (marks.PLAN, marks.LIMITS)] == [
        before["metadata"]["annotations"][mark] for mark in (marks.PLAN, marks.LIMITS)
    ]
    assert old["metadata"]["name"] in [pod["metadata"]["name"] for pod in anywhere.cluster.of_kind("Pod")]
    assert json.loads(anywhere.run("status", "--json").stdout)[0]["healthy"]
    again = anywhere.launch(anywhere.spec(tgi={"env": {"A": "b"}}), "--replace")
    assert again.exit_code == 0, again.output


@pytest.mark.loopback("the API server gives wrong answers")
def test_a_roll_out_refused_half_way_leaves_what_was_there(desk: Loopback) -> None:
    assert desk.launch(desk.spec()).exit_code == 0
    before = {one["metadata"]["name"]: one["metadata"]["labels"] for one in desk.cluster.of_kind("Service")}
    refused = "deployments/llama.*force=false&fieldValidation=Strict$"
    desk.cluster.faults.append(Fault("PATCH", refused, 403, times=9))
    result = desk.launch(desk.spec(container={"replicas": 2}), "--replace")
    assert result.exit_code == 8, result.output
    assert {one["metadata"]["name"]: one["metadata"]["labels"] for one in desk.cluster.of_kind("Service")} == before
    assert desk.cluster.of_kind("PodDisruptionBudget") == []
    assert json.loads(desk.run("status", "--json").stdout)[0]["healthy"]


# -- an API server with manners


@pytest.mark.loopback("the API server gives wrong answers")
@pytest.mark.parametrize(
    "faults",
    [
        [
            Fault("GET", "/version", 503),
            Fault("POST", "selfsubjectaccessreviews", 429, headers={"Retry-After": "1"}),
            Fault("PATCH", "deployments/llama", 500),
            Fault("PATCH", "services/llama"),
            Fault("GET", "watch=true", 500, times=3),
            Fault("GET", "/log", 500, times=2),
            Fault("GET", "portforward", 500, times=2),
        ],
        [
            Fault("GET", "pods.*watch=true", after=300, times=2),
            Fault("GET", "deployments.*watch=true", 410, times=2),
            Fault("GET", "/log", after=500, times=3),
            Fault("GET", "/pods[?]", delay=1.0),
        ],
    ],
    ids=["refused", "broken off"],
)
def test_a_launch_outlives_what_passes(desk: Loopback, faults: list[Fault], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "AGAIN_S", 0.1)
    monkeypatch.setattr(watching, "MOST_AGAIN_S", 0.2)
    desk.cluster.faults += faults
    code, events = desk.events(desk.spec({"slow": 0.15}))
    assert code == 0, events[-1]
    assert [fault for fault in faults if fault.times] == [], "these were never met"
    assert events[-1]["figures"]["max_batch_total_tokens"]["observed"] == 40000, "a part of the log was lost"
    steps = [event["text"] for event in events if event["event"] == "step"]
    assert steps.count("the router opens its port") == steps.count("max_batch_total_tokens is 40000") == 1


@pytest.mark.loopback("the API server forgets its history")
def test_a_watch_too_old_begins_anew(desk: Loopback) -> None:
    desk.cluster.watch_seconds = 0.3
    thread = threading.Timer(1.5, lambda: setattr(desk.cluster.store, "oldest", desk.cluster.store.version + 1))
    thread.start()
    code, events = desk.events(desk.spec({"slow": 0.05}))
    thread.join()
    assert code == 0, events[-1]


@pytest.mark.loopback("the API server gives wrong answers")
@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (Fault("GET", "/version", 401, times=9), 7, "log in again"),
        (Fault("GET", "/version", times=9), 7, "does not answer"),
        (Fault("GET", "/version", 200, times=9, body=b"<html>"), 7, "its answer is not understood"),
        (Fault("POST", "selfsubject", 403, times=9), 7, "the cluster could not say whether you may"),
        (Fault("PATCH", "dryRun=All", 422, times=9), 8, "is refused: the test says 422"),
        (
            Fault("PATCH", "force=false&fieldValidation=Strict$", 403, times=9),
            8,
            "refused after the dry run had passed",
        ),
    ],
    ids=lambda value: getattr(value, "path", None) and f"{value.path} {value.status}",
)
def test_a_refusal_is_named_and_leaves_nothing(desk: Loopback, fault: Fault, code: int, says: str) -> None:
    desk.cluster.faults.append(fault)
    result = desk.launch(desk.spec())
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert desk.left() == []


@pytest.mark.loopback("the server is another than the cluster's")
def test_nobody_listens(desk: Loopback, tmp_path: Path) -> None:
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    Path(os.environ["KUBECONFIG"]).write_text(json.dumps(config))
    result = desk.launch(desk.spec())
    assert result.exit_code == 7
    assert "the API server at http://127.0.0.1:9 does not answer: Connection refused" in result.stderr


# -- ending


def test_being_told_to_end_leaves_nothing(anywhere: Anywhere) -> None:
    process = anywhere.process(anywhere.spec({"stall": True, "at": "load"}))
    assert process.stderr
    for line in process.stderr:
        if "shard 0 starts" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "removed deployment/llama, which did not serve yet" in rest
    assert anywhere.left() == ["PersistentVolumeClaim/llama-data"]


@pytest.mark.loopback("the API server, nodes and the kubelet wait")
@pytest.mark.parametrize("phase", ["looking", "a node", "the image"])
def test_being_told_to_end_before_it_runs_leaves_not_even_the_claim(desk: Loopback, phase: str) -> None:
    cluster = desk.cluster
    if phase == "looking":
        cluster.faults.append(Fault("GET", "storageclasses", delay=2.0))
    elif phase == "a node":
        cluster.node("full", 1)
        cluster.add("/api/v1/namespaces/team/pods/other", "v1", "Pod", status={"phase": "Running"}, spec={
            "nodeName": "full", "containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        })  # fmt: skip
    else:
        cluster.kubelet.slow_pull = 60.0
    cuda: dict[str, Any] = {"base": CUDA, "model": {"id": "Qwen/Qwen2.5-7B-Instruct"}} if phase == "a node" else {}
    process = desk.process(desk.spec(**cuda), *(["--wait-for-node"] if cuda else []))
    assert process.stderr
    if phase == "looking":
        while not any("storageclasses" in path for _, path, _ in cluster.requests):
            assert process.poll() is None
            time.sleep(0.02)
    else:
        says = "no node takes it" if cuda else "pulling the image"
        assert any(says in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert [one for one in desk.left() if one != "Pod/other"] == []


def test_being_told_to_end_while_a_plan_is_rolled_out_puts_the_old_one_back(anywhere: Anywhere) -> None:
    assert anywhere.launch(anywhere.spec()).exit_code == 0
    (before,) = anywhere.cluster.of_kind("Deployment")
    process = anywhere.process(anywhere.spec({"stall": True, "at": "warmup"}, container={"replicas": 2}), "--replace")
    assert process.stderr
    assert any("shard 0 is ready" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    (after,) = anywhere.cluster.of_kind("Deployment")
    assert after["spec"] == before["spec"]
    assert anywhere.cluster.of_kind("PodDisruptionBudget") == []
    assert json.loads(anywhere.run("status", "--json").stdout)[0]["healthy"]


# -- secrets


def test_a_token_is_never_seen(anywhere: Anywhere) -> None:
    """Not in any output, object or request body, though the server itself prints it."""
    data = {"HF_TOKEN": base64.b64encode(SECRET.encode()).decode()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "llama-secrets"}, "data": data}
    anywhere.cluster.create(secret)
    outputs: list[str] = []
    for options in (["--logs"], ["--json", "--logs", "--replace"], ["--dry-run", "--replace"]):
        result = anywhere.launch(anywhere.spec({"token_says": True}), *options)
        outputs += [result.stdout, result.stderr]
        assert result.exit_code == 0, outputs
    assert "using token ***" in outputs[0]
    there = [json.dumps(one) for kind in LAUNCHED for one in anywhere.cluster.of_kind(kind)]
    for text in (*outputs, *there):
        assert SECRET not in text
        assert clusters.TOKEN not in text


# -- which cluster


@pytest.mark.loopback("no cluster is reached")
def test_a_kubeconfig_that_is_of_no_use(desk: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = desk.spec()
    result = CliRunner().invoke(cli, ["launch", spec, "--on", "kubernetes:lop"])
    assert result.exit_code == 7
    assert "the kubeconfig has no context 'lop'" in result.stderr
    assert "loop" in result.stderr
    path = tmp_path / "odd"
    for content in ("]", "- a", "contexts: 3\ncurrent-context: a", '{"current-context": "loop", "contexts": [{}]}', ""):
        path.write_text(content)
        monkeypatch.setenv("KUBECONFIG", str(path))
        result = desk.launch(spec)
        assert result.exit_code == 7, (content, result.output)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "names no file that is there" in desk.launch(spec).stderr
    monkeypatch.delenv("KUBECONFIG")
    result = desk.launch(spec)
    assert (result.exit_code, "no kubeconfig says which cluster is meant" in result.stderr) == (7, True)


@pytest.mark.loopback("no cluster is reached")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--on", "kubernets"],
        ["--on", "kubernetes:"],
        ["--on", "docker:x"],
        ["--namespace", "x"],
        ["--on", "kubernetes", "--restart", "always"],
        ["--on", "kubernetes", "--ulimit", "core=0"],
        ["--wait-for-node"],
        *(
            ["--on", "kubernetes", "--namespace", name]
            for name in ("$(id)", "a;b", "../x", "x/y?z=1", "UPPER", "", "-")
        ),
    ],
)
def test_options_that_make_no_sense(desk: Loopback, arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, ["launch", desk.spec(), *arguments]).exit_code == 2


@pytest.mark.loopback("what the API server was asked is looked at")
def test_names_that_no_cluster_has_are_not_asked_for(desk: Loopback) -> None:
    for name in ("../x", "a/b?c=1", "$(id)"):
        result = desk.run("stop", name)
        assert result.exit_code == 2
        assert "tgi-advisor has launched no" in result.stderr
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
    config["contexts"][0]["context"]["namespace"] = "../kube-system"
    Path(os.environ["KUBECONFIG"]).write_text(json.dumps(config))
    result = desk.run("status")
    assert result.exit_code == 7
    assert "the context 'loop' names '../kube-system', which cannot be a namespace" in result.stderr
    asked = {path.partition("?")[0] for _, path, _ in desk.cluster.requests}
    assert asked == {"/version", "/apis/apps/v1/namespaces/default/deployments"}


def test_printed_commands_ask_the_same_cluster(anywhere: Anywhere) -> None:
    """Of a context that is not the current one kubectl is told, also where its name is hostile."""
    odd = "te;am $(id)"
    with anywhere.kubeconfig() as config:
        current = next(one for one in config["contexts"] if one["name"] == config["current-context"])
        config["contexts"].append({"name": odd, "context": dict(current["context"])})
        current["context"]["namespace"] = "default"
    result = CliRunner().invoke(cli, ["launch", anywhere.spec(), "--on", f"kubernetes:{odd}"])
    assert result.exit_code == 0, result.output
    (reach,) = [line for line in result.stdout.splitlines() if line.startswith("From here: ")]
    (stop,) = [line for line in result.stdout.splitlines() if line.startswith("Stop it with: ")]
    there = anywhere.namespace
    assert shlex.split(reach)[-4:] == ["-n", there, "--context", odd]
    assert shlex.split(stop)[-4:] == ["--on", f"kubernetes:{odd}", "--namespace", there]
    assert [one["metadata"]["namespace"] for one in anywhere.cluster.of_kind("Deployment")] == [there]


@pytest.mark.loopback("permissions are changed")
@pytest.mark.parametrize("command", [["status"], ["stop", "--all"]])
def test_what_this_account_may_not_see_is_said(desk: Loopback, command: list[str]) -> None:
    desk.cluster.denied.add(("list", "deployments"))
    result = desk.run(*command)
    assert (result.exit_code, result.stdout) == (7, "")
    assert "may do" in " ".join(result.stderr.split())


@pytest.mark.loopback("no cluster is reached")
def test_without_the_client_it_says_what_to_install(desk: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    result = desk.launch(desk.spec())
    assert result.exit_code == 12
    assert "pip install 'tgi-advisor[kubernetes]'" in result.stderr


def test_stop_leaves_what_others_made(anywhere: Anywhere) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "pretend/web:1"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "web"}
    anywhere.cluster.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    result = anywhere.run("stop", "web")
    assert result.exit_code == 2
    assert "was not launched by tgi-advisor" in result.stderr
    assert "Deployment/web" in anywhere.left()


def test_what_stands_beside_the_deployment_comes_and_goes_with_it(anywhere: Anywhere) -> None:
    spec = anywhere.spec(container={"replicas": 2})
    code, events = anywhere.events(spec)
    assert code == 0, events[-1]
    assert len(anywhere.cluster.of_kind("Pod")) == 2
    assert len(anywhere.cluster.of_kind("PodDisruptionBudget")) == 1
    assert anywhere.run("stop", "--all").exit_code == 0
    assert anywhere.cluster.settled("Pod") == anywhere.cluster.of_kind("PodDisruptionBudget") == []


@pytest.mark.loopback("the operators of Prometheus and KEDA have to be there")
@pytest.mark.parametrize(
    ("by", "kind"),
    [({"by": "hpa"}, "HorizontalPodAutoscaler"),
     ({"by": "keda", "prometheus": "http://prometheus.monitoring:9090"}, "ScaledObject")],
)  # fmt: skip
def test_what_scales_it_comes_and_goes_with_it(desk: Loopback, by: dict[str, str], kind: str) -> None:
    spec = desk.spec(autoscale={"max": 3, "on": "batch", **by})
    code, events = desk.events(spec)
    assert code == 0, events[-1]
    assert [len(desk.cluster.of_kind(one)) for one in (kind, "PodMonitor", "PodDisruptionBudget")] == [1, 1, 1]
    assert counting(desk) == {}
    assert desk.run("stop", "--all").exit_code == 0
    assert [one for each in (kind, "PodMonitor", "Pod") for one in desk.cluster.of_kind(each)] == []


# -- who counts the replicas

LLAMA = "/apis/apps/v1/namespaces/default/deployments/llama"
SCALED = {"max": 4, "on": "batch", "by": "hpa"}


def counting(desk: Loopback) -> dict[str, int]:
    """Who holds the number of replicas, and the number."""
    (deployment,) = desk.cluster.of_kind("Deployment")
    rows = deployment["metadata"]["managedFields"]
    return {row["manager"]: deployment["spec"]["replicas"] for row in rows
            if "f:replicas" in row["fieldsV1"].get("f:spec", {})}  # fmt: skip


def replicas(desk: Loopback) -> list[int]:
    """Every number of replicas the Deployment ever had, in turn."""
    had = [obj["spec"]["replicas"] for _, path, _, obj in desk.cluster.store.history if path == LLAMA]
    return [number for number, before in zip(had, [None, *had], strict=False) if number != before]


@pytest.mark.loopback("the operators of Prometheus and KEDA have to be there")
def test_what_an_autoscaler_counted_stays(desk: Loopback) -> None:
    """A changed plan is rolled out, and rolled back, without touching the number."""
    assert desk.launch(desk.spec(autoscale=SCALED)).exit_code == 0
    desk.cluster.scale(LLAMA, 3)
    changed = desk.spec(autoscale=SCALED, tgi={"env": {"A": "b"}})
    shown = desk.launch(changed, "--dry-run", "--replace")
    assert "replicas" not in "".join(line for line in shown.stdout.splitlines() if line[:1] in "+-")
    assert desk.launch(changed, "--replace").exit_code == 0
    failing = desk.spec({"fail": "oom-load", "at": "load"}, autoscale=SCALED)
    assert desk.launch(failing, "--replace").exit_code == 5
    assert replicas(desk) == [1, 3]
    assert counting(desk) == {"kube-controller-manager": 3}


@pytest.mark.loopback("the operators of Prometheus and KEDA have to be there")
def test_the_replicas_are_handed_to_an_autoscaler_that_is_added(desk: Loopback) -> None:
    assert desk.launch(desk.spec(container={"replicas": 2})).exit_code == 0
    with_it: dict[str, Any] = {"autoscale": SCALED, "container": {"replicas": 2}}
    shown = desk.launch(desk.spec(**with_it), "--dry-run", "--replace")
    assert '-    "replicas"' not in shown.stdout
    failing = desk.spec({"fail": "oom-load", "at": "load"}, **with_it)
    assert desk.launch(failing, "--replace").exit_code == 5
    assert counting(desk)["tgi-advisor"] == 2
    assert desk.cluster.of_kind("HorizontalPodAutoscaler") == []
    assert desk.launch(desk.spec(**with_it), "--replace").exit_code == 0
    assert counting(desk) == {"tgi-advisor-handover": 2}
    desk.cluster.scale(LLAMA, 3)
    assert counting(desk) == {"kube-controller-manager": 3}
    assert replicas(desk) == [2, 3], "it fell back to one between"


@pytest.mark.loopback("the operators of Prometheus and KEDA have to be there")
def test_the_replicas_are_taken_back_with_the_autoscaler(desk: Loopback) -> None:
    assert desk.launch(desk.spec(autoscale=SCALED)).exit_code == 0
    desk.cluster.scale(LLAMA, 3)
    shown = desk.launch(desk.spec(container={"replicas": 2}), "--dry-run", "--replace")
    assert shown.exit_code == 0, shown.stderr
    assert "--- horizontalpodautoscaler/llama (now)" in shown.stdout
    failing = desk.spec({"fail": "oom-load", "at": "load"}, container={"replicas": 2})
    assert desk.launch(failing, "--replace").exit_code == 5
    assert replicas(desk) == [1, 3, 2, 3], "the number of before was not put back"
    assert [one["spec"]["maxReplicas"] for one in desk.cluster.of_kind("HorizontalPodAutoscaler")] == [4]
    assert "tgi-advisor" not in counting(desk)
    assert desk.launch(desk.spec(container={"replicas": 2}), "--replace").exit_code == 0
    assert desk.cluster.of_kind("HorizontalPodAutoscaler") == desk.cluster.of_kind("PodMonitor") == []
    assert counting(desk) == {"tgi-advisor": 2}


@pytest.mark.loopback("the operators of Prometheus and KEDA have to be there")
def test_one_autoscaler_takes_the_place_of_another(desk: Loopback) -> None:
    assert desk.launch(desk.spec(autoscale=SCALED)).exit_code == 0
    keda = {**SCALED, "by": "keda", "prometheus": "http://prometheus.monitoring:9090"}
    assert desk.launch(desk.spec(autoscale=keda), "--replace").exit_code == 0
    assert [len(desk.cluster.of_kind(kind)) for kind in ("HorizontalPodAutoscaler", "ScaledObject")] == [0, 1]


def test_a_number_that_somebody_set_by_hand_is_not_taken(anywhere: Anywhere) -> None:
    assert anywhere.launch(anywhere.spec(container={"replicas": 2})).exit_code == 0
    anywhere.cluster.edit("llama", {"replicas": 3}, "kubectl")
    result = anywhere.launch(anywhere.spec(container={"replicas": 2}, tgi={"env": {"A": "b"}}), "--replace")
    assert result.exit_code == 8
    assert ".spec.replicas is set by kubectl in another way" in " ".join(result.stderr.split())
    assert "container.replicas: 3" in " ".join(result.stderr.split())


def test_a_plan_that_was_rolled_back_to_still_goes(anywhere: Anywhere) -> None:
    """What it had and the next one has not is no part of the next one."""
    assert anywhere.launch(anywhere.spec(tgi={"env": {"A": "b"}})).exit_code == 0
    assert anywhere.launch(anywhere.spec({"fail": "oom-load", "at": "load"}), "--replace").exit_code == 5
    assert '"A"' in json.dumps(anywhere.cluster.of_kind("Deployment")[0]["spec"])
    assert anywhere.launch(anywhere.spec(), "--replace").exit_code == 0
    assert '"A"' not in json.dumps(anywhere.cluster.of_kind("Deployment")[0]["spec"])


@pytest.mark.loopback("the API server gives wrong answers")
@pytest.mark.parametrize(
    ("resource", "operator"), [("podmonitors", "the Prometheus operator"), ("scaledobjects", "KEDA")]
)
def test_an_operator_that_is_not_installed_is_named(desk: Loopback, resource: str, operator: str) -> None:
    spec = desk.spec(autoscale={"max": 3, "by": "keda", "prometheus": "http://prometheus.monitoring:9090"})
    desk.cluster.faults.append(Fault("PATCH", resource, 404, times=9))
    result = desk.launch(spec)
    assert result.exit_code == 8, result.output
    assert f"Install {operator}" in " ".join(result.stderr.split())
    assert desk.left() == []


# -- a real cluster


@pytest.mark.loopback("what the API server was asked is looked at")
def test_no_token_of_a_request_body(desk: Loopback) -> None:
    """What is sent, beside what the cluster then shows."""
    data = {"HF_TOKEN": base64.b64encode(SECRET.encode()).decode()}
    desk.cluster.add("/api/v1/namespaces/default/secrets/llama-secrets", "v1", "Secret", data=data)
    assert desk.launch(desk.spec({"token_says": True}), "--logs").exit_code == 0
    sent = json.dumps(desk.cluster.bodies)
    assert SECRET not in sent
    assert clusters.TOKEN not in sent


@pytest.mark.loopback("the API server on loopback is named as one")
def test_a_kubeconfig_is_all_that_a_real_cluster_needs(apart: desks.Apart | None, tmp_path: Path) -> None:
    """Named as a real cluster is, and with GPUs of another kind; what cannot run there is skipped, with its reason."""
    assert apart is not None
    named = {REAL: str(apart.kubeconfig), IMAGE: desks.PRETEND, desks.RESOURCE: "amd.com/gpu", desks.COUNT: "2"}
    tests = ("gpus_are_asked_for", "what_others_made", "token_of_a_request", "nobody_listens")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-k", " or ".join(tests)],
        env={**os.environ, **named}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "2 passed, 2 skipped" in done.stdout
    assert f"Tests on the cluster of {REAL}: 2. Tests that could not be, and why: 2." in done.stdout
    assert "  the server is another than the cluster's:\n    test_nobody_listens\n" in done.stdout


@pytest.mark.loopback("no cluster is reached")
def test_each_test_says_where_it_runs() -> None:
    """By the fixture or the marker: the collection is refused otherwise."""
    assert desks.wrong("a", ["anywhere", "tmp_path"], None) is None
    assert desks.wrong("a", ["desk"], "it drops streams") is None
    for fixtures, reason in ((["desk"], None), (["desk"], " "), ([], None), (["anywhere"], "it drops streams")):
        assert desks.wrong("a", fixtures, reason) is not None
