"""The containers tgi-advisor started on an engine, found by their label."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tgi_advisor.errors import UsageError, did_you_mean
from tgi_advisor.launch import request
from tgi_advisor.launch.engine import Engine
from tgi_advisor.launch.verify import http


@dataclass(frozen=True)
class Ours:
    """One of them."""

    id: str
    """The container."""
    name: str
    """Its name."""
    image: str
    """Its image."""
    state: str
    """`running`, `exited`, ... as Docker says."""
    healthy: bool
    """Whether /health answers now."""
    port: int | None
    """Port on the host; None when it is not published now."""
    model: str
    """The model."""
    release: str
    """TGI release."""
    limits: dict[str, int]
    """Limits it was started with."""
    plan: str
    """Digest of its plan."""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return dict(vars(self))


def find(engine: Engine) -> list[Ours]:
    """All of them, by name."""
    with engine.asked("list containers"):
        listed = engine.client.containers(all=True, filters={"label": request.PLAN})
    return sorted((_one(engine, row) for row in listed), key=lambda one: one.name)


def named(engine: Engine, name: str) -> Ours:
    """The one of that name; UsageError when there is none, also when the container is somebody else's."""
    found = find(engine)
    for one in found:
        if name in (one.name, one.id) or (len(name) >= 12 and one.id.startswith(name)):
            return one
    if engine.inspect(name) is not None:
        raise UsageError(
            f"the container {name!r} was not started by tgi-advisor", f"`docker stop {name}` stops any container."
        )
    raise UsageError(
        f"no container {name!r} was started by tgi-advisor here",
        did_you_mean(name, [one.name for one in found]) or "`tgi-advisor status` lists them.",
    )


def _one(engine: Engine, row: dict[str, Any]) -> Ours:
    labels = row["Labels"]
    port = next((p["PublicPort"] for p in row.get("Ports") or () if p.get("PublicPort")), None)
    try:
        limits = json.loads(labels.get(request.LIMITS) or "{}")
    except ValueError:  # a label somebody wrote by hand
        limits = {}
    return Ours(
        id=row["Id"],
        name=(row.get("Names") or ["/" + row["Id"][:12]])[0].lstrip("/"),
        image=row["Image"],
        state=row["State"],
        healthy=port is not None and http(engine.place.host, port)("/health", None)[0] == 200,
        port=port,
        model=labels.get(request.MODEL, ""),
        release=labels.get(request.RELEASE, ""),
        limits=limits if isinstance(limits, dict) else {},
        plan=labels[request.PLAN],
    )
