"""Whether a node of the cluster can run the pod: its GPUs, their memory, taints and selectors; and has one free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tgi_advisor.launch.kubernetes.cluster import Cluster, RefusedError
from tgi_advisor.launch.kubernetes.quantity import number, worth
from tgi_advisor.launch.preflight import Finding
from tgi_advisor.plan import Plan
from tgi_advisor.safe import named
from tgi_advisor.units import MiB, human

MEMORY_LABEL = "nvidia.com/gpu.memory"
"""MiB of one GPU, from GPU feature discovery (https://github.com/NVIDIA/k8s-device-plugin)."""
PRODUCT_LABEL = "nvidia.com/gpu.product"
MEMORY_SLACK = 0.05
"""Part of a GPU's memory by which label and data sheet may differ (ECC, MIG's own share)."""
_KEEPING_OUT = ("NoSchedule", "NoExecute")


class Node(NamedTuple):
    """What counts of a node."""

    name: str
    """Its name."""
    labels: Mapping[str, str]
    """Its labels."""
    taints: tuple[Mapping[str, Any], ...]
    """What keeps pods away."""
    gpus: int
    """GPUs it may give out."""
    ready: bool
    """Whether it runs and takes pods."""


def check(
    cluster: Cluster, plan: Plan, pod: Mapping[str, Any], before: Mapping[str, Any] | None, *, wait: bool
) -> Iterator[Finding]:
    """Whether a node fits and has room; with `wait` that is said and not in the way, for an autoscaler may add one."""
    container = plan.container
    assert container is not None
    resource = container.gpu_resource
    if not resource or not container.gpu_count:
        return
    try:
        listed = cluster.get("/api/v1/nodes", "list nodes").get("items") or ()
    except RefusedError as error:
        if error.status != 403:
            raise
        yield Finding(
            "this account may not list nodes, so whether one has the GPUs is not known before the pod is scheduled",
            blocks=False,
        )
        return
    wanted = container.gpu_count
    nodes = [_node(one, resource) for one in listed]
    unfit = {node.name: why for node in nodes if (why := _unfit(node, pod, resource, wanted, plan)) is not None}
    fitting = [node for node in nodes if node.name not in unfit]
    hint = "--wait-for-node launches all the same, where an autoscaler adds such a node."
    if not fitting:
        yield Finding(
            f"no node can run this plan: {_together(unfit) or 'the cluster has no nodes'}", hint, blocks=not wait
        )
        return
    used = _used(cluster, resource)
    if used is None or any(node.gpus - used.get(node.name, 0) >= wanted for node in fitting):
        return
    name = container.name
    rolling = (
        f" while {name} keeps serving; `tgi-advisor stop {name} {cluster.on}` frees its GPUs"
        if before is not None
        else ""
    )
    free = "; ".join(
        f"{node.name} has {max(0, node.gpus - used.get(node.name, 0))} of {node.gpus}" for node in fitting[:4]
    )
    yield Finding(
        f"no node has {wanted} x {resource} free{rolling}: {free} free",
        f"Stop what uses them (`kubectl get pods -A{cluster.by}`). {hint}", blocks=not wait,
    )  # fmt: skip


def _node(one: Mapping[str, Any], resource: str) -> Node:
    status, spec = one.get("status") or {}, one.get("spec") or {}
    conditions = {row.get("type"): row.get("status") for row in status.get("conditions") or ()}
    return Node(
        named(str(one["metadata"]["name"])), one["metadata"].get("labels") or {}, tuple(spec.get("taints") or ()),
        int(worth((status.get("allocatable") or {}).get(resource))),
        conditions.get("Ready") == "True" and not spec.get("unschedulable"),
    )  # fmt: skip


def _unfit(node: Node, pod: Mapping[str, Any], resource: str, wanted: int, plan: Plan) -> str | None:
    """Why a node cannot run the pod; None when it can."""
    if node.gpus < wanted:
        return f"{node.gpus or 'no'} {resource}" + (f" of the {wanted} it needs" if node.gpus else "")
    if not node.ready:
        return "not ready, or closed to new pods"
    for label, value in (pod.get("nodeSelector") or {}).items():
        if node.labels.get(label) != value:
            return f"label {label}={named(str(node.labels.get(label, 'none')))}, and the pod wants {value}"
    terms = _affinity(pod)
    if terms and not any(_meets(node.labels, term) for term in terms):
        keys = dict.fromkeys(str(one.get("key")) for term in terms for one in term.get("matchExpressions") or ())
        has = ", ".join(f"{key}={named(str(node.labels.get(key, 'none')))}" for key in keys)
        return f"label {has}, and the pod wants another"
    for taint in node.taints:
        tolerated = any(_tolerates(one, taint) for one in pod.get("tolerations") or ())
        if taint.get("effect") in _KEEPING_OUT and not tolerated:
            return f"taint {named(str(taint.get('key')))}:{taint.get('effect')}"
    memory = number(node.labels.get(MEMORY_LABEL)) if MEMORY_LABEL in node.labels else None
    needs = plan.facts.gpu.memory_bytes
    if memory is not None and memory * MiB < needs * (1 - MEMORY_SLACK):
        product = node.labels.get(PRODUCT_LABEL)
        what = f" ({named(product)})" if product else ""
        return f"GPUs with {human(int(memory * MiB))}{what}, and the plan is for {human(needs)}"
    return None


def _affinity(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Terms of labels, one of which a node has to meet; none where any node will do."""
    required = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    return list(required.get("nodeSelectorTerms") or ())


def _meets(labels: Mapping[str, str], term: Mapping[str, Any]) -> bool:
    """Whether labels meet all expressions of a term; one of another kind is left to the scheduler."""
    for one in term.get("matchExpressions") or ():
        has, values, operator = labels.get(one.get("key")), one.get("values") or (), one.get("operator")
        if (
            (operator == "In" and has not in values)
            or (operator == "NotIn" and has in values)
            or (operator == "Exists" and has is None)
            or (operator == "DoesNotExist" and has is not None)
        ):
            return False
    return True


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")


def _together(unfit: Mapping[str, str]) -> str:
    """Reasons with the nodes they hold for, as `2 nodes: no nvidia.com/gpu`."""
    by_reason: dict[str, list[str]] = {}
    for node, why in unfit.items():
        by_reason.setdefault(why, []).append(node)
    return "; ".join(
        f"{names[0] if len(names) == 1 else f'{len(names)} nodes'}: {why}" for why, names in by_reason.items()
    )


def _used(cluster: Cluster, resource: str) -> dict[str, int] | None:
    """GPUs that pods hold, by node; None where this account may not see the pods of all namespaces."""
    selector = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
    try:
        pods = cluster.get("/api/v1/pods", "list the pods of all namespaces", selector).get("items") or ()
    except RefusedError as error:
        if error.status != 403:
            raise
        return None
    held: dict[str, int] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node:
            held[named(str(node))] = held.get(named(str(node)), 0) + _asks(
                pod["spec"].get("containers") or (), resource
            )
    return held


def _asks(containers: Iterable[Mapping[str, Any]], resource: str) -> int:
    return sum(int(worth(((one.get("resources") or {}).get("limits") or {}).get(resource))) for one in containers)
