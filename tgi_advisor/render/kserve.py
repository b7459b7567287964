"""A KServe InferenceService with the server as its own container, and a PersistentVolumeClaim for the weights.

KServe has no runtime for TGI, so the predictor is a custom container
(https://kserve.github.io/website/docs/model-serving/predictive-inference/frameworks/custom-predictor/custom-predictor).

- It runs as a plain Deployment: Knative's pods may mount neither a claim nor memory for /dev/shm unless the
  cluster's administrator turned both on, and lose the server when nobody asks for a while.
- The container has to be called kserve-container; the pod is otherwise that of the `kubernetes` format.
- KServe makes the Service itself, on port 80 of `NAME-predictor`.
"""

from __future__ import annotations

from typing import Any

from tgi_advisor.plan import Container
from tgi_advisor.render import kubernetes
from tgi_advisor.render.platform import commented, kept_of_container
from tgi_advisor.render.scaling import query
from tgi_advisor.render.yaml_ import document

CONTAINER = "kserve-container"
"""What KServe calls the container that answers (kserve/constants/constants.py@0.21.0)."""


AUTOSCALE = "KServe reads TGI's gauges through KEDA alone: write autoscale.by keda, or choose --format kubernetes"


def render(container: Container) -> str:
    """The claim and the InferenceService as one file for `kubectl apply -f`."""
    head = kubernetes.header(container) + commented(
        [*note(container).splitlines(), *kept_of_container(container, "port", "cache", "gpus")]
    )
    claims = [] if container.cluster.storage == "node" else [kubernetes.claim(container)]
    return head + "---\n".join(document(one) for one in (*claims, _service(container)))


def note(container: Container) -> str:
    """Where it answers, which the spec's port does not say here, and what is not said of scaling."""
    scaling = f"\n{AUTOSCALE}" if container.scaling and not container.scaling.keda else ""
    return (
        f"KServe's own Service answers on port 80 of {container.name}-predictor: container.port {container.port} "
        f"is not used{scaling}"
    )


def _scaled(container: Container) -> tuple[dict[str, str], dict[str, Any]]:
    """Annotations and fields by which KServe has KEDA ask Prometheus, as the ScaledObject of `kubernetes` does.

    https://github.com/kserve/kserve/blob/v0.20.0/pkg/controller/v1beta1/inferenceservice/reconcilers/keda/keda_reconciler.go
    """
    scaling = container.scaling
    if scaling is None or not scaling.keda:
        return {}, {"minReplicas": container.replicas, "maxReplicas": container.replicas}
    asking = {"backend": "prometheus", "serverAddress": scaling.prometheus, "query": query(container, scaling)}
    metric = {"metric": asking, "target": {"type": "Value", "value": str(scaling.above)}}
    fields = {
        "minReplicas": scaling.fewest,
        "maxReplicas": scaling.most,
        "autoScaling": {"metrics": [{"type": "External", "external": metric}]},
    }
    return {"serving.kserve.io/autoscalerClass": "keda"}, fields


def _service(container: Container) -> dict[str, Any]:
    pod = kubernetes.pod(container)
    (server,) = pod["containers"]
    annotations, replicas = _scaled(container)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": container.name,
            "labels": kubernetes.labels(container),
            # Releases from 0.16 on say Standard, and still take the older word.
            "annotations": {
                "serving.kserve.io/deploymentMode": "RawDeployment",
                **annotations,
                **kubernetes.notes(container),
            },
        },
        "spec": {
            "predictor": {
                **replicas,
                **({"deploymentStrategy": {"type": "Recreate"}} if container.cluster.storage == "one" else {}),
                **pod,
                "containers": [{**server, "name": CONTAINER}],
            }
        },
    }
