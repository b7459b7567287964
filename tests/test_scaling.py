"""Several replicas in a cluster: what is emitted, whether its platforms take it, and what `import` reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from front import run
from golden import Golden

import tgi_advisor
from tgi_advisor.errors import Exit
from tgi_advisor.facts import clusters
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.plan import Container
from tgi_advisor.render import render
from tgi_advisor.spec.reader import read_text
from tgi_advisor.spec.records import KubernetesSpec, Spec, settings
from tgi_advisor.spec.writer import dump

DATA = Path(__file__).parent / "data" / "platforms"
HEAD = "model: {id: meta-llama/Llama-3.1-8B-Instruct}\nhardware: {gpu: nvidia-l4}\ncontainer: {name: llama, %s}\n"
KEDA = "by: keda, prometheus: 'http://prometheus.monitoring:9090'"
CASES = {
    "gke-keda": HEAD % "replicas: 2"
    + f"kubernetes: {{cluster: gke, pull_secret: regcred}}\nautoscale: {{max: 4, {KEDA}}}\n",
    "karpenter-hpa": HEAD % "port: 80" + "kubernetes: {cluster: karpenter}\nautoscale: {max: 8, on: gpu-cache}\n",
    "eks-node": HEAD % "replicas: 3, cache: /mnt/models"
    + "kubernetes: {cluster: eks, storage: node}\nautoscale: {max: 6, min: 2, on: batch, target: 9}\n",
    "aks-shared": HEAD.replace("nvidia-l4", "nvidia-a100-80gb-pcie") % "replicas: 2"
    + "kubernetes: {cluster: aks, storage_class: azurefile-premium}\n",
    "nvidia-one": HEAD % "port: 80"
    + "kubernetes: {cluster: nvidia}\ntgi: {flags: {graceful-termination-timeout: 600}}\n",
}  # fmt: skip


def read(text: str) -> Spec:
    """A spec of these tests."""
    return read_text(text, "spec.yaml")


def objects(text: str) -> dict[str, Any]:
    """The manifests of a file by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


@pytest.mark.parametrize("name", CASES)
def test_what_is_emitted_and_taken_and_read_back(name: str, golden: Golden, tmp_path: Path) -> None:
    ran = run("emit", "-", "--format", "kubernetes", stdin=CASES[name])
    assert (ran.code, ran.err) == (Exit.STARTS, "")
    golden(f"scaling/{name}.yaml", ran.out)
    for kind, manifest in objects(ran.out).items():
        if kind in ("ScaledObject", "PodMonitor"):
            schema = json.loads((DATA / f"{kind.lower()}.json").read_text("utf-8"))["schema"]
            jsonschema.validate(manifest, schema)
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**manifest, "spec": {**manifest["spec"], "maxReplicas": 3}}, schema)
        else:
            kubernetes_validate.validate(manifest, "1.31", strict=True)
    file = tmp_path / "tgi.yaml"
    file.write_text(ran.out)
    gpu = read(CASES[name]).hardware.gpu.name
    checked = run("validate", str(file), "--gpu", gpu)
    assert (checked.code, checked.out.count("warning")) == (Exit.STARTS, 0), checked.out
    imported = run("import", str(file), "--gpu", gpu).out
    assert "Not carried over" not in imported
    again = run("emit", "-", "--format", "kubernetes", "--as-given", stdin=imported)
    assert again.out == ran.out
    asked, got = read(CASES[name]), read(imported)
    assert (got.container.replicas, got.kubernetes, got.autoscale) == (
        asked.container.replicas, asked.kubernetes, asked.autoscale,
    )  # fmt: skip
    assert read(dump(asked)) == asked


def test_replicas_that_something_keeps_are_not_stated() -> None:
    kept = objects(run("emit", "-", "-f", "kubernetes", stdin=CASES["gke-keda"]).out)
    plain = objects(run("emit", "-", "-f", "kubernetes", stdin=CASES["aks-shared"]).out)
    assert "replicas" not in kept["Deployment"]["spec"]
    assert plain["Deployment"]["spec"]["replicas"] == 2
    assert {"PodDisruptionBudget"} == plain.keys() - {"Deployment", "Service", "PersistentVolumeClaim"}


def test_targets_follow_from_the_plan() -> None:
    plan = tgi_advisor.advise(read(CASES["karpenter-hpa"]))
    assert plan.container is not None
    assert plan.container.scaling is not None
    budget = plan.prediction.limits.max_batch_total_tokens
    assert budget is not None
    assert plan.container.scaling.above == budget * 80 // 100
    for told, above in (("on: queue", 128 // 20), ("on: batch, target: 3", 3)):
        spec = (HEAD % "port: 80") + f"autoscale: {{max: 2, {told}}}\n"
        planned = tgi_advisor.advise(read(spec)).container
        assert planned is not None
        assert planned.scaling is not None
        assert planned.scaling.above == above


def test_a_probe_waits_as_long_as_the_longest_prefill() -> None:
    def step(**limits: int) -> int:
        fields = {f"limits.{name}": value for name, value in limits.items()}
        planned: Container | None = tgi_advisor.advise(
            model="meta-llama/Llama-3.3-70B-Instruct",
            gpu="nvidia-a100-80gb-sxm",
            count=4,
            release="2.4.1",
            fields=fields,
        ).container
        assert planned is not None
        probes = objects(render(planned, "kubernetes"))["Deployment"]["spec"]["template"]["spec"]["containers"][0]
        assert {probes[name]["timeoutSeconds"] for name in probes if name.endswith("Probe")} == {planned.step_seconds}
        return planned.step_seconds

    short = step(max_input_tokens=1000, max_total_tokens=1200, max_batch_prefill_tokens=1000)
    batch = step(max_input_tokens=1000, max_total_tokens=1200, max_batch_prefill_tokens=30_000)
    assert 10 <= short < batch
    unknown = tgi_advisor.advise(model="meta-llama/Llama-3.1-8B-Instruct", gpu="amd-mi300x").container
    assert unknown is not None
    assert unknown.step_seconds == 60


def test_a_server_that_ends_slowly_is_given_the_time() -> None:
    pod = objects(run("emit", "-", "-f", "kubernetes", stdin=CASES["nvidia-one"]).out)["Deployment"]["spec"]["template"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 630


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("autoscale: {min: 2}", "nothing scales"),
        ("autoscale: {max: 2, min: 3}", "is above autoscale.max"),
        ("autoscale: {max: 2, by: keda}", "does not say which"),
        ("autoscale: {max: 2, on: gpu-cache, target: 900}", "share in per cent"),
        ("autoscale: {max: 2, by: keda, prometheus: 'http://me:s3cr3t@host'}", "looks like a secret"),
        ("autoscale: {max: 2}\nkubernetes: {storage: one}", "leaves the other"),
        ("kubernetes: {storage: node, storage_class: fast}", "is for a claim"),
        ("kubernetes: {cluster: gkee}", "gke"),
    ],
)
def test_what_contradicts_itself(more: str, words: str) -> None:
    ran = run("advise", "-", stdin=(HEAD % "port: 80") + more)
    assert ran.code == Exit.SPEC
    assert words in " ".join(ran.err.split())
    assert "s3cr3t" not in ran.err


def test_a_gpu_that_the_cluster_cannot_have_is_refused_with_those_it_has() -> None:
    ran = run(
        "emit",
        "-",
        "-f",
        "kubernetes",
        stdin=(HEAD % "port: 80").replace("nvidia-l4", "nvidia-rtx-4090") + "kubernetes: {cluster: gke}",
    )
    assert ran.code == Exit.FACTS
    assert "nvidia-l4" in ran.err


def test_nodes_that_cannot_be_told_do_not_hide_that_it_does_not_fit() -> None:
    spec = (HEAD % "port: 80").replace("nvidia-l4", "nvidia-rtx-3070") + "kubernetes: {cluster: gke}"
    assert run("predict", "-", stdin=spec).code == Exit.OUT_OF_MEMORY


def test_a_folder_of_each_node_is_an_absolute_one() -> None:
    ran = run("emit", "-", "-f", "kubernetes", stdin=(HEAD % "replicas: 2") + "kubernetes: {storage: node}")
    assert ran.code == Exit.SPEC
    assert "container.cache" in ran.err


def test_formats_of_one_machine_say_that_they_start_one_server() -> None:
    for name in ("docker-run", "compose", "env"):
        assert "starts one server" in run("emit", "-", "-f", name, stdin=CASES["aks-shared"]).err


def test_every_kind_of_cluster_tells_the_gpus_it_names() -> None:
    known = {row.name for row in gpus.all_gpus()}
    choices = settings(KubernetesSpec)["cluster"].metadata["choices"]
    assert sorted(kind.name for kind in clusters.kinds()) == sorted(choices)
    for kind in clusters.kinds():
        for name in known:
            try:
                found = clusters.nodes(kind.name, gpus.find(name), 1)
            except tgi_advisor.AdvisorError:
                continue
            assert found.values
    assert clusters.nodes("nvidia", gpus.find("nvidia-h100-sxm"), 1).values[0] == "NVIDIA-H100-80GB-HBM3"
    assert clusters.nodes("eks", gpus.find("nvidia-l4"), 4).values == ("g6.12xlarge", "g6.24xlarge", "g6.48xlarge")
