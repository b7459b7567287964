"""Servers of one file that run on the same GPUs, and what the later ones find there.

The memory fraction is of the whole GPU, and what others hold counts against it (utils/import_utils.py@v3.3.7:13-17): a
server that starts with no more than the one before it had finds nothing left. The order is that of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tgi_advisor.estimate import underload, warmup
from tgi_advisor.plan import Prediction
from tgi_advisor.validate.found import Server
from tgi_advisor.validate.rules.rule import Case
from tgi_advisor.verdict import predict


def with_neighbours(cases: Iterable[Case]) -> list[Case]:
    """The cases, each with the servers before it on the same GPUs."""
    done: list[Case] = []
    for case in cases:
        before = tuple(other for other in done if _apart(case.server, other.server) and devices(case) & devices(other))
        done.append(replace(case, before=before) if before else case)
    return done


def devices(case: Case) -> frozenset[str]:
    """The GPUs of the host a server certainly runs on; none where that cannot be known.

    A count is the first so many (moby, daemon/nvidia_linux.go: countToDevices), and shards take them from the first.
    """
    asked = case.server.gpus
    picked = {"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"} & case.server.env.keys()
    if case.server.form not in ("docker-run", "compose") or asked.vendor != "nvidia" or asked.sliced:
        return frozenset()
    if asked.asked == "ids":
        return frozenset(asked.ids)
    if picked or asked.asked not in ("all", "count"):
        return frozenset()
    given = asked.count if asked.count is not None else case.shards or 1
    return frozenset(map(str, range(min(given, case.shards or given, 16))))


def _apart(server: Server, other: Server) -> bool:
    """Whether two servers are meant to run beside each other: with ports and names of their own."""
    ports = [
        {port.host.text for port in one.ports if port.host is not None and port.host.known} for one in (server, other)
    ]
    return all(ports) and not ports[0] & ports[1] and server.name != other.name and server.form == other.form


def beside(case: Case) -> tuple[Prediction, int] | None:
    """What TGI makes of a server beside those before it, and the bytes they hold; None where that cannot be known."""
    if case.setting is None or any(devices(other) != devices(case) for other in case.before):
        return None
    in_use = 0
    for other in case.before:
        if other.setting is None or other.gpu != case.gpu:
            return None
        here = warmup.beside(warmup.base(other.setting), in_use)
        seen = warmup.run(here, other.limits, retry=True)
        if seen.stage is not None:
            return None  # it does not start itself
        in_use += underload.held(here, seen, in_use)
    return predict(warmup.beside(warmup.base(case.setting), in_use), case.limits), in_use
