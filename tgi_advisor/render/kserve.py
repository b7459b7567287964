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
from tgi_advisor.render.platform import commented
from tgi_advisor.render.yaml_ import document

CONTAINER = "kserve-container"
"""What KServe calls the container that answers (kserve/constants/constants.py@0.21.0)."""


AUTOSCALE = "autoscale is for --format kubernetes: KServe's own autoscaler does not read TGI's metrics"


def render(container: Container) -> str:
    """The claim and the InferenceService as one file for `kubectl apply -f`."""
    head = kubernetes.header(container) + commented(note(container).splitlines())
    claims = [] if container.cluster.storage == "node" else [kubernetes.claim(container)]
    return head + "---\n".join(document(one) for one in (*claims, _service(container)))


def note(container: Container) -> str:
    """Where it answers, which the spec's port does not say here, and what is not said of scaling."""
    scaling = f"\n{AUTOSCALE}" if container.scaling else ""
    return (
        f"KServe's own Service answers on port 80 of {container.name}-predictor: container.port {container.port} "
        f"is not used{scaling}"
    )


def _service(container: Container) -> dict[str, Any]:
    pod = kubernetes.pod(container)
    (server,) = pod["containers"]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": container.name,
            "labels": kubernetes.labels(container),
            # Releases from 0.16 on say Standard, and still take the older word.
            "annotations": {"serving.kserve.io/deploymentMode": "RawDeployment"},
        },
        "spec": {
            "predictor": {
                "minReplicas": container.replicas,
                "maxReplicas": container.replicas,
                **({"deploymentStrategy": {"type": "Recreate"}} if container.cluster.storage == "one" else {}),
                **pod,
                "containers": [{**server, "name": CONTAINER}],
            }
        },
    }
