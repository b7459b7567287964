"""The containers tgi-advisor started on an engine, found by their label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgi_advisor.errors import UsageError, did_you_mean
from tgi_advisor.launch import marks
from tgi_advisor.launch.docker.engine import Engine
from tgi_advisor.launch.docker.ssh import through_ssh
from tgi_advisor.launch.place import Ours
from tgi_advisor.launch.verify import healthy, http
from tgi_advisor.safe import printable


def find(engine: Engine) -> list[Ours]:
    """All of them, by name."""
    with engine.asked("list containers"):
        listed = engine.client.containers(all=True, filters={"label": marks.PLAN})
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


def made_by(engine: Engine, launch_id: str, *, ended: bool = False) -> dict[str, str]:
    """Name and id of every container that a launch made, the last one first; with `ended` of those that do not run."""
    filters = {"label": f"{marks.LAUNCH}={launch_id}", **({"status": ["created", "exited", "dead"]} if ended else {})}
    with engine.asked("find what this launch started"):
        mine = engine.client.containers(all=True, filters=filters)
    return {container["Names"][0].lstrip("/"): container["Id"] for container in mine}


def stop(engine: Engine, container: str) -> None:
    """Stop and remove: as gracefully as the stop timeout says when it serves, at once when it does not yet."""
    from docker.errors import NotFound

    found = engine.inspect(container)
    if found is None:
        return
    if not _serves(engine, found):
        engine.remove(container)
        return
    seconds = found["Config"].get("StopTimeout") or 10
    with engine.asked(f"stop container {container[:12]}"):
        try:
            engine.client.stop(container, timeout=seconds)
        except NotFound:
            return
    engine.remove(container)


def _serves(engine: Engine, found: Mapping[str, Any]) -> bool:
    """Whether an inspected container may have requests in flight."""
    bindings = [b for ports in (found["NetworkSettings"].get("Ports") or {}).values() for b in ports or ()]
    ports = {int(binding["HostPort"]) for binding in bindings}
    return any(_answers(engine, port) for port in ports)


def _answers(engine: Engine, port: int) -> bool:
    """Whether a server behind a published port says that it serves."""
    other = through_ssh(engine.client, port)
    return healthy(http(engine.address.host, port)) or (other is not None and healthy(other))


def _one(engine: Engine, row: dict[str, Any]) -> Ours:
    labels = {name: printable(value) for name, value in row["Labels"].items()}
    port = next((p["PublicPort"] for p in row.get("Ports") or () if p.get("PublicPort")), None)
    return Ours(
        id=row["Id"],
        name=(row.get("Names") or ["/" + row["Id"][:12]])[0].lstrip("/"),
        image=printable(row["Image"]),
        state=row["State"],
        healthy=port is not None and _answers(engine, port),
        port=port,
        model=labels.get(marks.MODEL, ""),
        release=labels.get(marks.RELEASE, ""),
        limits=marks.limits(labels.get(marks.LIMITS, "")),
        plan=labels[marks.PLAN],
    )
