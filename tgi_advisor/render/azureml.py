"""A managed online deployment of Azure ML (https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online).

- A container of one's own is given no arguments there: the launcher reads variables.
- The token comes from a connection of the workspace that holds custom keys.
- A request may take three minutes.
"""

from __future__ import annotations

import re
from typing import Any

from tgi_advisor.errors import SpecError
from tgi_advisor.plan import Container
from tgi_advisor.render.platform import commented, kept, machine_of, no_mounts, unsaid
from tgi_advisor.render.yaml_ import Reference, document

SCHEMA = "https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json"
LONGEST = 180_000
"""Milliseconds a request may take."""
PERIOD = 10
"""Seconds between two questions of a probe."""
NAME = r"[a-z][a-z0-9-]{1,30}[a-z0-9]"
"""What an endpoint may be called: 3 to 32 characters."""


def render(container: Container) -> str:
    """The deployment, for an endpoint of the same name."""
    no_mounts(container, "azureml")
    if not re.fullmatch(NAME, container.name):
        raise SpecError(
            f"Azure ML does not take the name {container.name!r}.",
            "Write container.name with 3 to 32 lower-case letters, digits and dashes.",
        )
    if container.args_only:
        raise SpecError(
            f"Azure ML passes no arguments, and the launcher has no variable for {' '.join(container.args_only)!r}.",
            "Leave the flag out, or choose another format.",
        )
    machine = machine_of(container, "azureml")
    name = container.name
    head = [f"az ml online-endpoint create --name {name}", *_connections(container),
            f"az ml online-deployment create --file FILE --endpoint-name {name} --all-traffic",
            *note(container).splitlines(), *kept(container, "port", "cache", "shm_size", "gpus")]  # fmt: skip
    return commented(head) + document(_deployment(container, machine))


def note(container: Container) -> str:
    """What Azure ML has no words for."""
    lines = unsaid(container, "azureml", "gpus", "port", "cache", "shm", "autoscale")
    return "\n".join([*lines, f"Azure ML ends a request after {LONGEST // 1000} s"])


def _connections(container: Container) -> list[str]:
    """What the workspace has to hold."""
    return [
        f"The token first: a connection {name} of kind custom in the workspace, with {key} among its credentials"
        for name, key in (_secret(container, caller) for caller in container.secret_env.values())
    ]


def _secret(container: Container, caller: str) -> tuple[str, str]:
    return f"{container.name}-secrets", caller


def _deployment(container: Container, machine: str) -> dict[str, Any]:
    route = {"port": container.container_port, "path": "/health"}
    probe = {"period": PERIOD, "timeout": max(PERIOD, container.step_seconds), "success_threshold": 1}
    starting = -(-container.startup_seconds // PERIOD)
    return {
        Reference("$schema"): SCHEMA,
        "name": container.name,
        "endpoint_name": container.name,
        "instance_type": machine,
        "instance_count": container.replicas,
        "environment": {
            "image": container.image,
            "inference_config": {
                "liveness_route": route,
                "readiness_route": route,
                "scoring_route": {"port": container.container_port, "path": "/"},
            },
        },
        "environment_variables": _environment(container),
        "request_settings": {
            "request_timeout_ms": LONGEST,
            "max_concurrent_requests_per_instance": _concurrent(container),
        },
        "liveness_probe": {**probe, "initial_delay": container.startup_seconds, "failure_threshold": 30},
        "readiness_probe": {**probe, "initial_delay": PERIOD, "failure_threshold": starting},
    }


def _concurrent(container: Container) -> int:
    """Requests the server takes at the same time; more are answered with 429 by TGI itself."""
    given = container.args_env.get("MAX_CONCURRENT_REQUESTS") or container.env.get("MAX_CONCURRENT_REQUESTS", "")
    return int(given) if given.isdecimal() else 128


def _environment(container: Container) -> dict[str, str]:
    """Literal values, then what the arguments say, then the token by reference."""
    stated = {**container.env, **container.args_env}
    if filled := [name for name, value in stated.items() if "${{" in value]:
        raise SpecError(f"Azure ML would fill in what stands in ${{{{ }}}} in {filled[0]}.", "Write another value.")
    for inside, caller in container.secret_env.items():
        connection, key = _secret(container, caller)
        stated[inside] = Reference(f"${{{{azureml://connections/{connection}/credentials/{key}}}}}")
    return stated
