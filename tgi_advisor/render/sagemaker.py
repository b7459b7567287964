"""Requests that make a SageMaker endpoint (CreateModel, CreateEndpointConfig, CreateEndpoint), and the SDK's arguments.

- SageMaker pulls from Amazon ECR, so that the image is Hugging Face's container for it, which reads variables alone and
  has some releases of TGI (`facts/clouds.yaml`, `facts/platforms.yaml`).
- The token is no part of a request that is kept in a file: the note says how to add it on the way.
"""

from __future__ import annotations

from typing import Any

from tgi_advisor.errors import SpecError
from tgi_advisor.facts import clouds
from tgi_advisor.facts.platforms import all_platforms
from tgi_advisor.plan import Container, Scaling
from tgi_advisor.render.json_ import document
from tgi_advisor.render.platform import kept_in_json, machine_of, no_mounts, unsaid

ROLE = "arn:aws:iam::111122223333:role/SageMakerExecutionRole"
"""An example of a role: whose it is, only its account knows."""
LONGEST, SHORTEST = 3600, 60
"""Seconds a container may be given to start (API_ProductionVariant)."""
VALUE = 1024
"""Characters of a variable's value (API_ContainerDefinition)."""
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference"
"""Where us-east-1 and most regions have the image; others have accounts of their own."""
MEASURE = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
"""Requests at once in a container of the model."""


def render(container: Container) -> str:
    """The three requests and the SDK's two calls, by name."""
    no_mounts(container, "sagemaker")
    _of_ecr(container)
    if long := [name for name, value in container.env.items() if len(value) > VALUE]:
        raise SpecError(f"SageMaker takes no value of more than {VALUE} characters: {long[0]}.", "Shorten it.")
    instance = machine_of(container, "sagemaker")
    seconds = min(LONGEST, max(SHORTEST, container.startup_seconds))
    variant: dict[str, Any] = {
        "VariantName": "AllTraffic",
        "ModelName": container.name,
        "InstanceType": instance,
        "InitialInstanceCount": container.replicas,
        "ContainerStartupHealthCheckTimeoutInSeconds": seconds,
    }
    environment = dict(container.env)
    requests: dict[str, Any] = {
        "CreateModel": {
            "ModelName": container.name,
            "ExecutionRoleArn": ROLE,
            "PrimaryContainer": {"Image": container.image, "Environment": environment},
        },
        "CreateEndpointConfig": {"EndpointConfigName": container.name, "ProductionVariants": [variant]},
        "CreateEndpoint": {"EndpointName": container.name, "EndpointConfigName": container.name},
        "HuggingFaceModel": {
            "role": ROLE, "image_uri": container.image, "env": environment, "name": container.name,
        },
        **_scaled(container),
        "deploy": {
            "initial_instance_count": container.replicas, "instance_type": instance, "endpoint_name": container.name,
            "container_startup_health_check_timeout": seconds,
        },
        **kept_in_json(container, "port", "cache", "shm_size", "gpus"),
    }  # fmt: skip
    return document(requests)


def _scaled(container: Container) -> dict[str, Any]:
    """The requests to Application Auto Scaling: between how many, and by what where TGI's gauge is a measure of it.

    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScalingPolicy.html
    """
    scaling = container.scaling
    if scaling is None:
        return {}
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{container.name}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    bounded = {**target, "MinCapacity": scaling.fewest, "MaxCapacity": scaling.most}
    if not _measured(scaling):
        return {"RegisterScalableTarget": bounded}
    policy = {
        "PolicyName": f"{container.name}-requests",
        **target,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": scaling.above,
            "PredefinedMetricSpecification": {"PredefinedMetricType": MEASURE},
            "ScaleInCooldown": max(300, container.startup_seconds),
        },
    }
    return {"RegisterScalableTarget": bounded, "PutScalingPolicy": policy}


def _measured(scaling: Scaling) -> bool:
    """Whether SageMaker has a measure for it: requests of the batch are those at once in a container.

    It counts those that wait inside the container too, and each until its last token
    (https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-add-code-define.html).
    """
    return scaling.asked.get("on") == "batch"


def note(container: Container) -> str:
    """What has to be put in, and what SageMaker has no words for."""
    lines = [f"The role is an example: write your own for {ROLE}"]
    lines += [
        f"The token: jq '.CreateModel | .PrimaryContainer.Environment.{inside} = env.{caller}' FILE | "
        "aws sagemaker create-model --cli-input-json file:///dev/stdin"
        for inside, caller in container.secret_env.items()
    ]
    if container.startup_seconds > LONGEST:
        lines.append(f"SageMaker waits for {LONGEST} s at most, and a start may take {container.startup_seconds} s")
    fields = ["gpus", "port", "cache", "shm"]
    if container.scaling and not _measured(container.scaling):
        fields.append("autoscale")
    return "\n".join([*lines, *unsaid(container, "sagemaker", *fields)])


def _of_ecr(container: Container) -> None:
    """SpecError for an image that is not Hugging Face's for SageMaker."""
    cloud = clouds.find(container.image)
    if cloud is not None and cloud.name == "sagemaker":
        return
    images = all_platforms()["sagemaker"].images
    release = container.image.rpartition(":")[2].partition("-")[0]
    newest = list(images)[-1]
    wanted = release if release in images else newest
    has = "has one of that release" if release in images else f"has none of TGI {release}, the newest is of {newest}"
    raise SpecError(
        f"SageMaker pulls images from Amazon ECR, not {container.image}; Hugging Face's for it {has}.",
        f"Name it, with the account of your region: --set tgi.image={REGISTRY}:{images[wanted]}",
    )
