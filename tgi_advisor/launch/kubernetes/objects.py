"""The manifests of a plan as this launch applies them. Pure.

They are those that `emit --format kubernetes` prints. What only a launch has is added: labels and annotations by which
they are found again, and a roll-out that keeps the old pods until the new ones answer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from difflib import unified_diff
from typing import Any

from tgi_advisor.launch import marks
from tgi_advisor.plan import Container, Plan

Manifests = Callable[[Container], Sequence[Mapping[str, Any]]]
"""The renderer."""

MANAGED = "app.kubernetes.io/managed-by"
"""Label of what a tool made (https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/)."""
OURS = "tgi-advisor"
PATHS = {
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/podmonitors",
    "ScaledObject": "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects",
}
"""Where the API server has the objects of a kind, by namespace."""
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""Old pods go when new ones are ready, and not before."""
_SERVERS_OWN = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink")
"""Metadata that the server writes."""


def of(plan: Plan, manifests: Manifests, launch_id: str = "") -> list[dict[str, Any]]:
    """The objects in the order they are applied, marked as ours; the Deployment last."""
    assert plan.container is not None
    made = [copy.deepcopy(dict(one)) for one in manifests(plan.container)]
    digest = marks.digest(made)
    for one in made:
        metadata = one["metadata"]
        metadata["labels"] = {**metadata.get("labels", {}), MANAGED: OURS, marks.LAUNCH: launch_id}
        metadata["annotations"] = {**metadata.get("annotations", {}), marks.PLAN: digest, **marks.described(plan)}
        if one["kind"] == "Deployment":
            one["spec"]["strategy"] = ROLLING
            pod = one["spec"]["template"]["metadata"]
            pod["labels"] = {**pod.get("labels", {}), MANAGED: OURS, marks.LAUNCH: launch_id}
    return sorted(made, key=lambda one: one["kind"] == "Deployment")


def path(one: Mapping[str, Any], namespace: str) -> str:
    """Where the API server has an object."""
    return f"{PATHS[one['kind']].format(namespace)}/{one['metadata']['name']}"


def called(one: Mapping[str, Any]) -> str:
    """`deployment/llama`, as kubectl writes it."""
    return f"{one['kind'].lower()}/{one['metadata']['name']}"


def is_ours(one: Mapping[str, Any]) -> bool:
    """Whether tgi-advisor launched it."""
    metadata = one["metadata"]
    return marks.PLAN in (metadata.get("annotations") or {}) and (metadata.get("labels") or {}).get(MANAGED) == OURS


def digest_of(one: Mapping[str, Any]) -> str:
    """Digest of the plan an object of ours belongs to."""
    return str((one["metadata"].get("annotations") or {}).get(marks.PLAN, ""))


def only(made: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The object of a kind."""
    return next(one for one in made if one["kind"] == kind)


def pod_spec(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the pods are made from."""
    found: dict[str, Any] = only(made, "Deployment")["spec"]["template"]["spec"]
    return found


def secrets(made: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Secrets the server's environment refers to, and whether it cannot start without."""
    found: dict[str, bool] = {}
    for container in pod_spec(made)["containers"]:
        for variable in container.get("env", ()):
            if reference := (variable.get("valueFrom") or {}).get("secretKeyRef"):
                name = str(reference["name"])
                found[name] = found.get(name, False) or not reference.get("optional")
    return found


def plain(one: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An object without what the server alone writes."""
    if one is None:
        return None
    metadata = {name: value for name, value in one["metadata"].items() if name not in _SERVERS_OWN}
    return {**{name: value for name, value in one.items() if name != "status"}, "metadata": metadata}


def applied_by(one: Mapping[str, Any], manager: str) -> dict[str, Any]:
    """What a manager has applied of an object, as it would be applied again; empty where it has applied nothing.

    Read from the object's managedFields
    (https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management).
    """
    metadata = one["metadata"]
    for row in metadata.get("managedFields") or ():
        if row.get("manager") == manager and row.get("operation") == "Apply" and not row.get("subresource"):
            made: dict[str, Any] = _held(one, row.get("fieldsV1") or {})
            names = {name: metadata[name] for name in ("name", "namespace") if name in metadata}
            return {**made, "apiVersion": one["apiVersion"], "kind": one["kind"],
                    "metadata": {**made.get("metadata", {}), **names}}  # fmt: skip
    return {}


def _held(value: Any, fields: Mapping[str, Any]) -> Any:
    """The part of a value that a set of fields names: `f:` a field, `k:` an item by its keys, `v:` an item itself."""
    inner = {name: below for name, below in fields.items() if name != "."}
    if not inner:
        return value
    if isinstance(value, Mapping):
        named = {name[2:]: below for name, below in inner.items() if name.startswith("f:")}
        return {name: _held(value[name], below) for name, below in named.items() if name in value}
    if isinstance(value, list):
        items = []
        for name, below in inner.items():
            wanted = json.loads(name[2:])
            for item in value:
                if name.startswith("k:") and all(item.get(key) == worth for key, worth in wanted.items()):
                    items.append(_held(item, below))
                elif name.startswith("v:") and item == wanted:
                    items.append(item)
        return items
    return value


def counts(one: Mapping[str, Any] | None) -> bool:
    """Whether tgi-advisor holds the number of replicas of a Deployment, by whichever request."""
    return one is not None and any(
        row.get("manager") == OURS and "f:replicas" in ((row.get("fieldsV1") or {}).get("f:spec") or {})
        for row in one["metadata"].get("managedFields") or ()
    )


def diff(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """What would change of an object, as a unified diff of its fields; without `after` it goes."""
    return "".join(
        line + "\n"
        for line in unified_diff(
            _text(plain(before)), _text(plain(after)), f"{name} (now)", f"{name} (then)", n=3, lineterm=""
        )
    )


def _text(one: Mapping[str, Any] | None) -> list[str]:
    """The fields, but for the label of the launch, which each launch has another of."""
    shown = copy.deepcopy(dict(one or {}))
    for metadata in (shown.get("metadata"), ((shown.get("spec") or {}).get("template") or {}).get("metadata")):
        ((metadata or {}).get("labels") or {}).pop(marks.LAUNCH, None)
    return [] if one is None else json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
