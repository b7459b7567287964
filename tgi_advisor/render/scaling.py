"""Several replicas in a cluster: how their number is kept, what measures it, and what an eviction leaves standing.

- TGI's gauges are read by a PodMonitor (of the Prometheus operator), under the label of the server's name.
- A HorizontalPodAutoscaler reads them through prometheus-adapter, whose rule stands in the file's head; KEDA asks
  Prometheus itself. A gauge has no sample before its first request: KEDA's query answers 0 then, and an autoscaler
  without a metric leaves the number as it is.
- A replica is given up only after its metric was low for as long as another takes to come up, at least five minutes.
- A PodDisruptionBudget lets a drained node take one replica at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tgi_advisor.plan import INSTANCE_TYPE, Container, Scaling

LONGEST_WINDOW = 3600
"""The longest stabilizationWindowSeconds that autoscaling/v2 takes."""
LABEL = "app_kubernetes_io_name"
"""What Prometheus makes of the label app.kubernetes.io/name."""


def head(container: Container) -> Iterator[str]:
    """Comments on what the cluster has to have."""
    scaling = container.scaling
    if container.cluster.storage == "shared":
        yield "# One copy of the weights for all replicas: the StorageClass has to give ReadWriteMany, with file locks."
    elif container.cluster.storage == "node":
        yield "# Each node keeps the weights in a folder of its own: its first replica downloads them."
    if scaling is None:
        return
    yield "# The PodMonitor needs the Prometheus operator."
    if scaling.keda:
        return
    yield "# The HorizontalPodAutoscaler needs prometheus-adapter, with this among its rules:"
    yield f'#   - seriesQuery: \'{scaling.metric}{{namespace!="",pod!=""}}\''
    yield "#     resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}"
    yield "#     metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'"


def manifests(container: Container, labels: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What stands beside the Deployment: nothing for one replica that stays one."""
    scaling = container.scaling
    most = scaling.most if scaling else container.replicas
    if most > 1:
        yield {
            **_object("policy/v1", "PodDisruptionBudget", container, labels),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        }
    if scaling is None:
        return
    yield {
        **_object("monitoring.coreos.com/v1", "PodMonitor", container, labels),
        "spec": {
            "selector": {"matchLabels": labels},
            "podTargetLabels": list(labels),
            "podMetricsEndpoints": [{"port": "http", "path": "/metrics"}],
        },
    }
    yield _keda(container, scaling, labels) if scaling.keda else _horizontal(container, scaling, labels)


def _object(version: str, kind: str, container: Container, labels: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": container.name, "labels": labels}}


def _behavior(container: Container) -> dict[str, Any]:
    """One replica at a time, and given up no sooner than another would be there."""
    window = min(LONGEST_WINDOW, max(300, container.startup_seconds))
    return {
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        "scaleDown": {
            "stabilizationWindowSeconds": window,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _horizontal(container: Container, scaling: Scaling, labels: dict[str, str]) -> dict[str, Any]:
    return {
        **_object("autoscaling/v2", "HorizontalPodAutoscaler", container, labels),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": container.name},
            "minReplicas": scaling.fewest,
            "maxReplicas": scaling.most,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": scaling.metric},
                        "target": {"type": "AverageValue", "averageValue": str(scaling.above)},
                    },
                }
            ],
            "behavior": _behavior(container),
        },
    }


def query(container: Container, scaling: Scaling) -> str:
    """What Prometheus is asked: the gauge of all replicas, 0 before it has a sample."""
    return f'sum({scaling.metric}{{{LABEL}="{container.name}"}}) or vector(0)'


def _keda(container: Container, scaling: Scaling, labels: dict[str, str]) -> dict[str, Any]:
    return {
        **_object("keda.sh/v1alpha1", "ScaledObject", container, labels),
        "spec": {
            "scaleTargetRef": {"name": container.name},
            "minReplicaCount": scaling.fewest,
            "maxReplicaCount": scaling.most,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(container)}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": scaling.prometheus,
                        "query": query(container, scaling),
                        "threshold": str(scaling.above),
                    },
                }
            ],
        },
    }


def pod(container: Container, labels: dict[str, str]) -> dict[str, Any]:
    """What a pod says of the nodes it may run on."""
    cluster, scaling = container.cluster, container.scaling
    said: dict[str, Any] = {}
    if cluster.pull_secret:
        said["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    if container.instance and not cluster.values:
        said["nodeSelector"] = {INSTANCE_TYPE: container.instance}
    if cluster.values:
        wanted = {"key": cluster.label, "operator": "In", "values": list(cluster.values)}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
        said["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    taints: list[dict[str, Any]] = []
    if container.gpu_resource and container.gpu_count:
        taints.append({"key": container.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    taints += [{"key": key, "value": value, "effect": "NoSchedule"} for key, value in cluster.tolerations]
    if taints:
        said["tolerations"] = taints
    if (scaling.most if scaling else container.replicas) > 1:
        said["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ]
    return said
