"""How long a platform waits for a server to start, where a file says it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tgi_advisor.validate.found import Value, Wait, whole_number
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar

SAGEMAKER: Mapping[str, str] = {
    "container_startup_health_check_timeout": "start", "ContainerStartupHealthCheckTimeoutInSeconds": "start",
    "container_startup_health_check_timeout_in_seconds": "start", "model_data_download_timeout": "download",
    "ModelDataDownloadTimeoutInSeconds": "download", "model_data_download_timeout_in_seconds": "download",
}  # fmt: skip
"""Names of SageMaker's two limits in its SDK, its API and CloudFormation, and Terraform: what each is for.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariant.html
"""
_DEPLOYMENT = ("serving_container_deployment_timeout", "deploymentTimeout", "deployment_timeout")
"""Vertex AI's limit of a whole deployment
(https://cloud.google.com/vertex-ai/docs/reference/rest/v1/ModelContainerSpec).
"""
_PROBES = ("startupProbe", "startup_probe")
_ACTIONS = frozenset({"exec", "httpGet", "http_get", "tcpSocket", "tcp_socket", "grpc"})
_DEFAULTS = {"initialDelaySeconds": 0, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3}
"""What a probe takes for a number that is not stated, as Kubernetes does: on Cloud Run
(https://cloud.google.com/run/docs/configuring/healthchecks) and on Vertex AI
(https://cloud.google.com/vertex-ai/docs/reference/rest/v1/Probe).
"""


def of_sagemaker(found: Sequence[tuple[str, Value]], endpoints: int) -> tuple[Wait, ...]:
    """What a file says of SageMaker's limits by name; nothing where it says several things of one.

    `endpoints` is how many it sets up: each has to have the limit, or it may be another's.
    """
    waits = []
    for what in ("start", "download"):
        values = [value for name, value in found if SAGEMAKER[name] == what]
        if len(values) < endpoints:
            continue
        sure = all(value.known and not value.defaulted and value.number is not None for value in values)
        if sure and len({value.number for value in values}) == 1:
            name = next(name for name, value in found if value is values[-1])
            waits.append(Wait(what, "SageMaker", name, values[-1], float(values[-1].number or 0)))
    return tuple(waits)


def waits_of(root: Map, around: Sequence[Map]) -> tuple[Wait, ...]:
    """The limits in a container, the mappings around it, and (SageMaker's) the whole file."""
    texts = list(_everywhere(root))
    stated = [(name, item.value("file")) for name, item in texts if name in SAGEMAKER]
    endpoints = sum(name in ("InstanceType", "instance_type") for name, _ in texts)
    waits = list(of_sagemaker(stated, endpoints)) if stated else []
    for place in around:
        for name in _DEPLOYMENT:
            waits += deployment(name, place.value(name))
        for name in _PROBES:
            node = place.get(name)
            if isinstance(node, Map) and _ACTIONS & node.merged.keys():
                numbers = {_camel(key): item.value("file") for key, (_, item) in node.merged.items()
                           if isinstance(item, Scalar)}  # fmt: skip
                by = "Cloud Run" if "run.googleapis.com/" in root.raw.text else "the platform"
                waits += probe(by, name, numbers)
        numbers = {_camel(name.removeprefix("serving_container_startup_probe_")): item.value("file")
                   for name, (_, item) in place.merged.items()
                   if name.startswith("serving_container_startup_probe_") and isinstance(item, Scalar)}  # fmt: skip
        if "serving_container_startup_probe_exec" in place.merged:
            waits += probe("Vertex AI", "the startup probe", numbers)
    return tuple(waits)


def probe(by: str, name: str, numbers: Mapping[str, Value]) -> Iterator[Wait]:
    """The patience of a startup probe by the names of its numbers; nothing where one is not known."""
    stated = {key: value for key, value in numbers.items() if key in _DEFAULTS}
    if not stated or any(value.number is None or not value.known or value.defaulted for value in stated.values()):
        return
    held = {key: stated[key].number if key in stated else default for key, default in _DEFAULTS.items()}
    every = max(held["periodSeconds"] or 0, held["timeoutSeconds"] or 0)
    seconds = float((held["initialDelaySeconds"] or 0) + every * (held["failureThreshold"] or 0))
    yield Wait("start", by, name, next(iter(stated.values())), seconds)


def deployment(name: str, value: Value | None) -> Iterator[Wait]:
    """Vertex AI's limit of a whole deployment, in seconds or as `1800s`."""
    number = whole_number(value.text.removesuffix("s")) if value is not None and value.known else None
    if value is not None and number is not None and not value.defaulted:
        yield Wait("start", "Vertex AI", name, value, float(number))


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def _everywhere(root: Map) -> Iterator[tuple[str, Scalar]]:
    """Every text of a file with its key."""
    waiting: list[Node] = [root]
    for _ in range(10_000):
        if not waiting:
            return
        one = waiting.pop()
        if isinstance(one, Map):
            for name, (_, item) in one.merged.items():
                if isinstance(item, Scalar):
                    yield name, item
                else:
                    waiting.append(item)
        elif isinstance(one, List):
            waiting += one.items
