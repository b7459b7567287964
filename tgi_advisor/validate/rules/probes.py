"""TGI330-TGI339: health checks and restarts."""

from __future__ import annotations

from tgi_advisor.container import startup_seconds
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import latest
from tgi_advisor.validate.found import Probe, Wait
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, rule

PATHS = ("/health", "/", "/ping", "/info", "/metrics", "/v1/models", "/docs")
"""What answers GET (router/src/server.rs@v3.3.7:2203)."""
ENOUGH = 600
"""Seconds a start takes at least with the weights at hand: load and warm-up."""
QUICKEST = 60
"""Seconds a start takes at best beside its weights: two Python programs, one after the other, import PyTorch (the
check of the files, the shard), then come the warm-up and the CUDA graphs (launcher/src/main.rs@v3.3.7:2233-2317).
"""
FASTEST = 1_000_000_000
"""Bytes of weights a second at best, fetched from the Hub and then loaded, one after the other. hf_transfer, which the
images use, is made for links above 500 MB/s (https://github.com/huggingface/hf_transfer).
"""
SAGEMAKER_RANGE = (60, 3600)
"""What SageMaker accepts in seconds for both limits of a start
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariant.html).
"""
MOST = {"SageMaker": SAGEMAKER_RANGE[1], "Cloud Run": 1800}
"""Seconds a platform waits at most; Cloud Run's with a GPU
(https://docs.cloud.google.com/run/docs/configuring/jobs/healthchecks).
"""


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


@rule("TGI333", "warning", "platform that gives up before the server can be up")
def short_wait(case: Case) -> Hits:
    """The platform stops the container if it does not answer in time, and the time does not suffice for these weights.

    TGI answers only after download, load and warm-up. Counted is the least that takes: 60 s, and the weights at
    1 GB/s. SageMaker's limit is container_startup_health_check_timeout; Vertex AI has one for the whole deployment
    and, as Cloud Run has, a startup probe, which gives up after initialDelaySeconds + failureThreshold x periodSeconds.

    Failing, deploy.py::

        from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri

        model = HuggingFaceModel(
            image_uri=get_huggingface_llm_image_uri("huggingface", version="3.3.6"),
            env={"HF_MODEL_ID": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "SM_NUM_GPUS": "8"},
            role="role",
        )
        model.deploy(1, instance_type="ml.p4d.24xlarge", container_startup_health_check_timeout=180)

    Fixed, deploy.py::

        from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri

        model = HuggingFaceModel(
            image_uri=get_huggingface_llm_image_uri("huggingface", version="3.3.6"),
            env={"HF_MODEL_ID": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "SM_NUM_GPUS": "8"},
            role="role",
        )
        model.deploy(1, instance_type="ml.p4d.24xlarge", container_startup_health_check_timeout=3600)
    """
    weights = case.facts.stored_bytes if case.facts is not None else 0
    needed = QUICKEST + weights / FASTEST
    for wait in case.server.waits:
        if wait.what != "start" or wait.seconds >= needed or out_of_range(wait):
            continue
        with_them = f" with {weights / 1e9:,.1f} GB of weights" if weights else ""
        message = f"{wait.by} waits {wait.seconds:.0f} s ({wait.name}); a start{with_them} takes {needed:.0f} s at best"
        yield Hit(wait.value, message, f"allow {min(_needed(case), MOST.get(wait.by, _needed(case)))} s")


@rule("TGI334", "error", "time limit that SageMaker refuses")
def refused_wait(case: Case) -> Hits:
    """SageMaker takes 60 to 3600 seconds for container_startup_health_check_timeout and model_data_download_timeout.

    With any other number the endpoint's configuration is refused (ValidationException).

    Failing, deploy.py::

        from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri

        model = HuggingFaceModel(
            image_uri=get_huggingface_llm_image_uri("huggingface", version="3.3.6"),
            env={"HF_MODEL_ID": "Qwen/Qwen2.5-7B-Instruct", "SM_NUM_GPUS": "1"},
            role="role",
        )
        model.deploy(1, instance_type="ml.g5.2xlarge", container_startup_health_check_timeout=7200)

    Fixed, deploy.py::

        from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri

        model = HuggingFaceModel(
            image_uri=get_huggingface_llm_image_uri("huggingface", version="3.3.6"),
            env={"HF_MODEL_ID": "Qwen/Qwen2.5-7B-Instruct", "SM_NUM_GPUS": "1"},
            role="role",
        )
        model.deploy(1, instance_type="ml.g5.2xlarge", container_startup_health_check_timeout=3600)
    """
    for wait in case.server.waits:
        if out_of_range(wait):
            least, most = SAGEMAKER_RANGE
            message = f"SageMaker refuses {wait.seconds:.0f} s for {wait.name}: it takes {least} to {most}"
            yield Hit(wait.value, message, f"write {most if wait.seconds > most else least} or a number between them")


def out_of_range(wait: Wait) -> bool:
    """Whether SageMaker refuses the number."""
    return wait.by == "SageMaker" and not SAGEMAKER_RANGE[0] <= wait.seconds <= SAGEMAKER_RANGE[1]
