"""TGI330-TGI339: health checks and restarts."""

from __future__ import annotations

from tgi_advisor.container import startup_seconds
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import latest
from tgi_advisor.validate.found import Probe
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, rule

PATHS = ("/health", "/", "/ping", "/info", "/metrics", "/v1/models", "/docs")
"""What answers GET (router/src/server.rs@v3.3.7:2203)."""
ENOUGH = 600
"""Seconds a start takes at least with the weights at hand: load and warm-up."""


@rule("TGI330", "warning", "liveness check that kills a loading server")
def liveness(case: Case) -> Hits:
    """The server answers only after download, load and warm-up; a liveness check counts its silence as death.

    Kubernetes restarts the container after initialDelaySeconds + failureThreshold x periodSeconds, and
    the load begins again. A startupProbe holds the liveness probe back until the server is up.

    Failing, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
              livenessProbe: {httpGet: {path: /health, port: 80}, initialDelaySeconds: 30}
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]

    Fixed, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
              startupProbe: {httpGet: {path: /health, port: 80}, periodSeconds: 10, failureThreshold: 180}
              livenessProbe: {httpGet: {path: /health, port: 80}}
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
    """
    probes = {probe.kind: probe for probe in case.server.probes if probe.action != "none"}
    deciding = probes.get("startup") or probes.get("liveness")
    if deciding is None or case.server.form != "kubernetes":
        return
    allowed = _patience(deciding)
    if allowed < ENOUGH:
        needed = _needed(case)
        step = f"add a startupProbe that waits {needed} s (periodSeconds 10, failureThreshold {-(-needed // 10)})"
        message = (
            f"the {deciding.kind} check restarts the server after {allowed:.0f} s, and loading may take {needed} s"
        )
        yield Hit(deciding.place, message, step)


def _patience(probe: Probe) -> float:
    """Seconds until a probe gives up (https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/)."""
    return (probe.initial_delay or 0) + (probe.period or 10) * (probe.failures or 3)


def _needed(case: Case) -> int:
    """Seconds a start may take: with the model's size where it is known, else load and warm-up alone."""
    if case.facts is None or case.gpu is None:
        return ENOUGH
    return startup_seconds(Facts(case.facts, case.gpu, 1, case.release or latest()))


@rule("TGI331", "error", "check of a path that does not exist")
def probe_path(case: Case) -> Hits:
    """The check asks for a path the server does not have, so it never succeeds.

    Failing, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
              readinessProbe: {httpGet: {path: /healthz, port: 80}}
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]

    Fixed, pod.yaml::

        apiVersion: v1
        kind: Pod
        metadata: {name: tgi}
        spec:
          containers:
            - name: tgi
              image: tgi:3.3.7
              args: [--model-id, Qwen/Qwen2.5-7B-Instruct]
              resources: {limits: {nvidia.com/gpu: 1}}
              volumeMounts: [{name: data, mountPath: /data}]
              readinessProbe: {httpGet: {path: /health, port: 80}}
          volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
    """
    if case.server.form != "kubernetes" or case.view.image.variant is None:
        return
    for probe in case.server.probes:
        path = probe.path
        if probe.action == "http" and path is not None and path.known and path.text.partition("?")[0] not in PATHS:
            same = not case.server.beside and (probe.port is None or probe.port.number in (None, case.view.port))
            if same:
                yield Hit(
                    path, f"the server has no {path.text}, so the {probe.kind} check never succeeds", "ask for /health"
                )


@rule("TGI332", "info", "restarts that cannot help")
def restart_loop(case: Case) -> Hits:
    """The server stops at its start for certain, and its restart policy starts it again, for ever.

    Failing::

        docker run --restart always --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct \\
            --max-input-tokens 4096 --max-total-tokens 4096

    Fixed::

        docker run --restart always --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct \\
            --max-input-tokens 3072 --max-total-tokens 4096
    """
    word = case.server.restart
    if word is None or word.text.partition(":")[0] not in ("always", "unless-stopped", "Always"):
        return
    if case.refused and case.sure("model-id", "max-input-tokens", "max-total-tokens"):
        yield Hit(
            word, "the server cannot start as it is written, and is started again for ever", "mend the error first"
        )
