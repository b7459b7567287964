"""The payload that makes a Hugging Face Inference Endpoint (`POST /v2/endpoint/NAMESPACE`), as huggingface_hub has it.

- The endpoint runs TGI's own image with the plan's arguments, as a custom image: its own choice of a release and of
  limits is not used. TGI downloads the model itself, beside the copy that lies in /repository.
- The token is a secret, and no part of a payload that is kept in a file.
"""

from __future__ import annotations

import re
from typing import Any

from tgi_advisor.errors import SpecError
from tgi_advisor.plan import Container
from tgi_advisor.render.json_ import document
from tgi_advisor.render.platform import KEPT, bounds, kept_in_json, no_mounts, offer_of, unsaid

NAME = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
"""What an endpoint may be called: 32 characters at most."""


def render(container: Container) -> str:
    """The payload; SpecError where it cannot be one."""
    no_mounts(container, "endpoints")
    if not re.fullmatch(NAME, container.name):
        raise SpecError(
            f"Inference Endpoints does not take the name {container.name!r}.",
            "Write container.name with at most 32 lower-case letters, digits and dashes.",
        )
    offer = offer_of(container, "endpoints")
    fewest, most = bounds(container)
    model: dict[str, Any] = {
        "repository": container.args_env.get("MODEL_ID") or container.env.get("HF_MODEL_ID", ""),
        "revision": container.args_env.get("REVISION"),
        "framework": "pytorch",
        "task": "text-generation",
        "image": {
            "custom": {"url": container.image, "healthRoute": "/health", "port": container.container_port}
        },
    }  # fmt: skip
    if container.args:
        model["args"] = list(container.args)
    if container.env:
        model["env"] = dict(container.env)
    payload = {
        "name": container.name,
        "type": "authenticated",
        "provider": {"region": offer.region, "vendor": offer.vendor},
        "compute": {
            "accelerator": "gpu",
            "instanceSize": f"x{container.gpu_count}",
            "instanceType": offer.type,
            "scaling": {"minReplica": fewest, "maxReplica": most, "scaleToZeroTimeout": None, **_measure(container)},
        },
        "model": model,
        **kept_in_json(container, "port", "cache", "shm_size", "gpus"),
    }  # fmt: skip
    return document(payload)


def _measure(container: Container) -> dict[str, Any]:
    """By what it scales, where TGI's gauge is a measure of the platform: requests of the batch are those that pend.

    They are the requests without an answer yet, those that are being answered included
    (https://huggingface.co/docs/inference-endpoints/autoscaling).
    """
    scaling = container.scaling
    if scaling is None or scaling.asked.get("on") != "batch":
        return {}
    return {"measure": {"pendingRequests": scaling.above}}


def note(container: Container) -> str:
    """How the token comes in, and what Inference Endpoints has no words for."""
    secrets = ", ".join(f"{inside}: env.{caller}" for inside, caller in container.secret_env.items())
    filled = f" | .model.secrets = {{{secrets}}}" if secrets else ""
    lines = [
        f"{'The token' if secrets else 'To send it'}: jq 'del(.[\"{KEPT}\"]){filled}' FILE | "
        "curl -fsS -H @HEADER -d @- https://api.endpoints.huggingface.cloud/v2/endpoint/NAMESPACE, "
        "with `authorization: Bearer TOKEN` in HEADER"
    ]
    fields = ["gpus", "port", "cache", "shm", *([] if _measure(container) else ["autoscale"])]
    return "\n".join([*lines, *unsaid(container, "endpoints", *fields)])
