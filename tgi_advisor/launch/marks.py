"""What is written on everything a launch makes, by which it is found and told from what others made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from tgi_advisor.launch.verify import MOST_TOKENS
from tgi_advisor.plan import Container, Plan

PLAN = "tgi-advisor.plan"
"""The digest of what was asked for: two servers with the same digest run the same thing."""
LAUNCH = "tgi-advisor.launch"
"""The id of the launch that made it."""
MODEL, RELEASE, LIMITS = "tgi-advisor.model", "tgi-advisor.release", "tgi-advisor.limits"
"""What `status` reads."""


def new_id() -> str:
    """An id no other launch has."""
    import secrets

    return secrets.token_hex(8)


def described(plan: Plan) -> dict[str, str]:
    """What the plan is about, by mark."""
    return {
        MODEL: plan.facts.model.id,
        RELEASE: plan.facts.release.name,
        LIMITS: json.dumps(plan.prediction.limits.given()),
    }


def digest(request: Any) -> str:
    """What would run, in 64 hexadecimal digits."""
    return sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def limits(text: str) -> dict[str, int]:
    """The limits of a mark; of one that somebody wrote by hand, what are limits in it."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(given, dict):
        return {}
    return {name: value for name, value in given.items() if type(value) is int and 0 <= value < MOST_TOKENS}


def secrets_of(container: Container, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's secrets by the name they have inside; one that is not set in the caller's shell stays unset."""
    return {inside: environ[caller] for inside, caller in container.secret_env.items() if environ.get(caller)}
