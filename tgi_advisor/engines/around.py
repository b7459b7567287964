"""What stands around a server in somebody's file and is bound to TGI: its port, its health path, its metrics.

A migration writes the server anew. What else the file holds stays where it is, so it is named with its line: a probe, a
health check, the port that Prometheus scrapes, and other objects and services of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tgi_advisor.engines.facts import Engine


class Bound(NamedTuple):
    """Something in a file that is bound to TGI, and what becomes of it."""

    word: re.Pattern[str]
    """How a line of it looks."""
    says: str
    """What to do; {port}, {health} and {title} are the engine's."""


_KEYS = (
    Bound(
        re.compile(r"(?:^|[\s{,\"'])(livenessProbe|readinessProbe|startupProbe)[\"']?\s*:"),
        "what is written has probes of its own, for {health} on port {port}.",
    ),
    Bound(
        re.compile(r"^(healthcheck)[\"']?\s*:"),
        "what is written has a health check of its own, for {health} on port {port}.",
    ),
    Bound(
        re.compile(r"(?:^|[\s{,\"'])(prometheus\.io/port)[\"']?\s*:"),
        "{title} answers /metrics on port {port}: change it.",
    ),
    Bound(re.compile(r"^(annotations)\s*:"), "not written: put back by hand."),
)
_COMPOSE = Bound(re.compile(r"^(depends_on|labels|networks)\s*:"), "not written: put back by hand.")
_WRITTEN = frozenset({
    "Deployment", "StatefulSet", "Service", "PersistentVolumeClaim", "PodDisruptionBudget", "Pod", "Job", "List",
})  # fmt: skip
"""Kinds that hold a server or are written anew beside it."""
_KIND = re.compile(r"^kind:\s*[\"']?(\w+)")
_NAME = re.compile(r"[\"']?([\w.-]+)[\"']?\s*:")
_SLOW = "{title}'s {health} runs one token, takes a second at least and up to 20: timeoutSeconds has to be more than 1"
"""sglang@0.5.23:srt/entrypoints/http_server.py:721-800, where HEALTH_CHECK_TIMEOUT is 20 seconds."""


def bound(text: str, engine: Engine) -> Iterator[str]:
    """Notes on what the text of a file holds around its server, in its order."""
    words = {"port": engine.port, "health": engine.health, "title": engine.title}
    kinds: dict[str, int] = {}
    others = list(_services(text))
    probes = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip().removeprefix("- ")
        for one in (*_KEYS, _COMPOSE) if others else _KEYS:
            if found := one.word.search(bare):
                probes = probes or found[1].endswith("Probe")
                yield f"line {number}, {found[1]}: {one.says.format(**words)}"
        if (kind := _KIND.match(line)) and kind[1] not in _WRITTEN:
            kinds.setdefault(kind[1], number)
    if probes and engine.name == "sglang":
        yield f"{_SLOW.format(**words)}."
    if len(others) > 1:
        yield f"of the services {', '.join(others)} one is written: the rest of the file is kept by you."
    if kinds:
        named = ", ".join(f"{kind} (line {number})" for kind, number in kinds.items())
        yield f"not written, and kept by you: {named}; ports and names of metrics in it are to be changed."


def _services(text: str) -> Iterator[str]:
    """Names of the services of a Compose file."""
    inside, depth = False, 0
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            inside, depth = line.startswith("services:"), 0
        elif inside and (name := _NAME.match(line.lstrip())):
            depth = depth or indent
            if indent == depth:
                yield name[1]
