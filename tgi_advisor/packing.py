"""Several servers on one machine: who shares a GPU, who starts first, and what each may take.

The memory fraction of TGI is of the whole GPU, and what others hold counts against it: free(f) is
max(0, free - (1 - f) * total), where `free` is what the driver says. So the first server needs a fraction
small enough to leave room, and the last one a fraction near 1, because what the others hold is missing
from `free` already; two halves of 0.5 leave the second server without a KV cache.
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/import_utils.py#L13-L17

The rule of sharing: every server first gets what its spec asks for; beyond that the KV caches hold the same
number of tokens for each request of `workload.concurrency`, as many as fit. Each server has the smallest
fraction, in thousandths, that gives it this, and the smallest prefill budget that is worth having. Servers start
in the order given, one after the other: a warm-up takes what is free at that moment. As far as possible the
sum also has room for the worst moment of all of them at once (`estimate/underload.py`), unless all of them
`allow_risk`; where it cannot have, the plans say that they are at risk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

from tgi_advisor import search, verdict
from tgi_advisor.errors import Problem, SpecError
from tgi_advisor.estimate import defaults, underload, warmup
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts.gpu import GpuFacts, on_machine
from tgi_advisor.facts.known import Facts
from tgi_advisor.plan import GpuShares, Packing, Share
from tgi_advisor.search import Found
from tgi_advisor.search.alternatives import larger
from tgi_advisor.spec.records import Bound, GpuSpec, Spec
from tgi_advisor.units import human

STEPS = 1000
"""Memory fractions are tried in thousandths, and KV caches in thousandths of the largest there could be."""
MOST_ORDERS = 4
"""Servers whose other orders are tried when the one given does not fit."""


class Decided(NamedTuple):
    """One server of a packing."""

    spec: Spec
    """The spec it starts with: memory fraction, `in_use`, shard count, prefill bound, port and name filled in."""
    facts: Facts
    """What is true of it."""
    found: Found
    """Its limits and the verdict on them."""
    base: Base
    """Its launch with nobody else on the GPUs."""


class Packed(NamedTuple):
    """Several servers planned together."""

    packing: Packing
    """Who takes what of which GPU."""
    servers: tuple[Decided, ...]
    """The servers in the order they start."""


class _Server(NamedTuple):
    """One server before anything is shared out."""

    spec: Spec
    """Its spec."""
    facts: Facts
    """What is true of it."""
    devices: tuple[str, ...]
    """The GPUs it runs on; none on a CPU."""
    alone: Found
    """What it would get with its GPUs to itself."""
    base: Base
    """Its launch with nobody else on the GPUs."""

    @property
    def name(self) -> str:
        """Its container's."""
        return self.spec.container.name

    @property
    def pinned(self) -> bool:
        """Whether the spec says its memory fraction."""
        return self.spec.hardware.memory_fraction != 1.0


class _Laid(NamedTuple):
    """One server with its share."""

    server: _Server
    """The server."""
    decided: Decided
    """What it starts with."""
    shares: Mapping[str, Share]
    """What it takes, by GPU; empty when it does not start."""


def pack(specs: Sequence[Spec], facts: Sequence[Facts]) -> Packed:
    """Plan servers that run on one machine at the same time, started in this order.

    A server whose GPUs nobody else uses is planned as if it were alone. SpecError when names or ports that the
    specs say are the same, or when the specs contradict each other about a GPU.
    """
    apart, notes = _apart(specs)
    servers = [_server(spec, known) for spec, known in zip(apart, facts, strict=True)]
    _same_machine(servers)
    laid: dict[str, _Laid] = {}
    steps: list[str] = []
    for group in _groups(servers):
        able = [server for server in group if _starts(server.alone)]
        laid |= {server.name: _by_itself(server) for server in group if len(able) == 1 or server not in able}
        if len(able) > 1:
            shared, careful = _share(able)
            laid |= {one.server.name: one for one in shared}
            notes += _sharing(shared, careful) if _fits(shared) else ()
            steps += () if _fits(shared) else _ways_out(able)
    ordered = [laid[server.name] for server in servers]
    packing = Packing(
        fits=_fits(ordered),
        order=tuple(server.name for server in servers),
        gpus=_table(ordered),
        notes=(*notes, *_beside(servers)),
        next_steps=tuple(steps),
    )
    return Packed(packing, tuple(one.decided for one in ordered))


def _fits(laid: Sequence[_Laid]) -> bool:
    return all(_starts(one.decided.found) for one in laid)


def _starts(found: Found) -> bool:
    return found.limits is not None and found.prediction.outcome == "starts"


# -- names, ports, devices


def _apart(specs: Sequence[Spec]) -> tuple[list[Spec], list[str]]:
    """The specs with names and ports that differ, and what was changed; SpecError where a spec insists on its own."""
    names = {spec.container.name for spec in specs if "container.name" in spec.places}
    ports = {spec.container.port for spec in specs if "container.port" in spec.places}
    taken_names: set[str] = set()
    taken_ports: set[int] = set()
    apart, notes, problems = [], [], []
    for spec in specs:
        name, port = spec.container.name, spec.container.port
        if "container.name" not in spec.places and (name in taken_names or name in names):
            name = next(new for n in range(2, 2 + len(specs)) if (new := f"{name}-{n}") not in taken_names | names)
        elif name in taken_names:
            problems.append(
                Problem(f"two containers are called {name!r}", "give each a container.name of its own",
                        spec.place("container.name"))
            )  # fmt: skip
        free = next(new for new in (*range(port, 65536), *range(1024, port)) if new not in taken_ports | ports)
        if "container.port" not in spec.places and port in taken_ports | ports:
            notes.append(f"{name} gets port {free} of the host: {port} is another server's")
            port = free
        elif port in taken_ports:
            problems.append(
                Problem(f"two servers use port {port} of the host", f"write container.port: {free}",
                        spec.place("container.port"))
            )  # fmt: skip
        taken_names.add(name)
        taken_ports.add(port)
        apart.append(replace(spec, container=replace(spec.container, name=name, port=port)))
    if problems:
        raise SpecError("these servers cannot run on one machine", problems=problems)
    return apart, notes


def _server(spec: Spec, facts: Facts) -> _Server:
    """A server with its shard count decided and its launch worked out, as if it were alone."""
    advice = search.advise(spec, facts)
    spec, shards = advice.base.setting.spec, advice.base.setting.num_shard
    spec = replace(spec, tgi=replace(spec.tgi, num_shard=shards))
    alone = replace(spec, hardware=replace(spec.hardware, in_use=0))
    return _Server(
        spec, facts, _devices(spec, facts, shards), advice.found, warmup.base(defaults.resolve(alone, facts))
    )


def _devices(spec: Spec, facts: Facts, shards: int) -> tuple[str, ...]:
    """The GPUs the shards run on: inside a container they are numbered from 0 in the host's order."""
    named = spec.container.gpus
    if facts.gpu.system == "cpu":
        return ()
    if isinstance(named, str):
        return tuple(map(str, range(shards)))
    return tuple(sorted(named, key=lambda name: (int(name) if name.isdecimal() else 0, name)))[:shards]


def _same_machine(servers: Sequence[_Server]) -> None:
    """SpecError unless the specs can be about one machine and every shared GPU can be shared."""
    problems = []
    for number, one in enumerate(servers):
        for other in servers[:number]:
            place = one.spec.place("container.gpus") or one.spec.place("hardware.gpu")
            both = one.devices + other.devices
            if one.devices and other.devices and len({name.isdecimal() for name in both}) > 1:
                problems.append(
                    Problem(
                        f"whether {other.name} and {one.name} share a GPU cannot be told: one names numbers, "
                        "the other ids", "name the GPUs the same way in container.gpus of both", place,
                    )
                )  # fmt: skip
            if not (common := sorted(set(one.devices) & set(other.devices))):
                continue
            mine, theirs = one.facts.gpu, other.facts.gpu
            if (mine.name, mine.memory_bytes) != (theirs.name, theirs.memory_bytes):
                problems.append(
                    Problem(
                        f"GPU {common[0]} is {theirs.name} for {other.name} and {mine.name} for {one.name}",
                        "name different devices in container.gpus, or plan different machines one by one", place,
                    )
                )  # fmt: skip
            elif mine.system not in ("cuda", "rocm"):
                problems.append(
                    Problem(
                        f"{other.name} and {one.name} are both on GPU {common[0]}, and TGI on {mine.system} "
                        "cannot be told to leave room for another server",
                        "name different devices in container.gpus", place,
                    )
                )  # fmt: skip
    if problems:
        raise SpecError("these servers cannot be planned together", problems=problems)


def _groups(servers: Sequence[_Server]) -> Iterator[list[_Server]]:
    """Servers that share a GPU with each other, directly or through others."""
    rest = list(servers)
    while rest:
        reached = set(rest[0].devices)
        while more := {name for one in rest if reached & set(one.devices) for name in one.devices} - reached:
            reached |= more
        group = [one for number, one in enumerate(rest) if not number or reached & set(one.devices)]
        yield group
        rest = [one for one in rest if one not in group]


# -- sharing


def _by_itself(server: _Server) -> _Laid:
    """A server with its GPUs to itself."""
    in_use = dict.fromkeys(server.devices, server.spec.hardware.in_use)
    return _laid(server, Decided(server.spec, server.facts, server.alone, server.base), in_use)


def _share(group: Sequence[_Server]) -> tuple[list[_Laid], bool]:
    """(the servers with their shares, whether there is room for the worst moment of all at once)."""
    risk = all(server.spec.workload.allow_risk for server in group)
    careful = not risk and _holds(laid := _lay(group, 0, careful=True), careful=True)
    if not careful and not _fits(laid := _lay(group, 0, careful=False)):
        return laid, False
    wanting = [
        search.capacity(one.base, warmup.run(one.base, one.alone.limits)) // one.spec.workload.concurrency
        for one in group
        if one.alone.limits and not one.pinned
    ]
    if wanting:
        most = min(wanting)
        step = search.last_that_holds(
            0, STEPS, lambda step: _holds(_lay(group, most * step // STEPS, careful=careful), careful=careful)
        )
        laid = _lay(group, most * step // STEPS, careful=careful)
    return [_final(one) for one in laid], careful


def _holds(laid: Sequence[_Laid], *, careful: bool) -> bool:
    return _fits(laid) and not (careful and _at_risk(laid))


def _at_risk(laid: Sequence[_Laid]) -> bool:
    """Whether the worst moment of all is too much for a GPU, or that of one that was not to risk it for its share."""
    alone = (one.decided for one in laid if not one.server.spec.workload.allow_risk)
    return any(one.found.prediction.at_risk for one in alone) or any(gpu.spare_bytes < 0 for gpu in _table(laid))


def _lay(group: Sequence[_Server], tokens: int, *, careful: bool) -> list[_Laid]:
    """The servers started one after the other, each with the least that gives `tokens` per request."""
    foreign = max(server.spec.hardware.in_use for server in group)
    held: dict[str, int] = {}
    laid = []
    for server in group:
        in_use = {name: held.get(name, foreign) for name in server.devices}
        one = _laid(server, _decide(server, max(in_use.values()), tokens, careful=careful), in_use)
        laid.append(one)
        for name, share in one.shares.items():
            held[name] = share.in_use_bytes + share.held_bytes
    return laid


def _decide(server: _Server, in_use: int, tokens: int, *, careful: bool) -> Decided:
    """The server with the smallest fraction that gives it `tokens` per request beside what others hold."""
    spec = server.spec
    if not careful:
        spec = replace(spec, workload=replace(spec.workload, allow_risk=True))
    here = warmup.beside(server.base, in_use)
    here = here._replace(setting=here.setting._replace(spec=spec))
    fraction, prefill = spec.hardware.memory_fraction, spec.limits.max_batch_prefill_tokens
    if not server.pinned:

        def enough(step: int) -> bool:
            return search.at_least(warmup.with_fraction(here, step / STEPS), tokens) is not None

        fraction = min(STEPS, 1 + bisect_left(range(1, STEPS + 1), True, key=enough)) / STEPS
    here = warmup.with_fraction(here, fraction)
    if prefill.high is None:
        prefill = Bound(prefill.low, search.smallest_prefill(here))
    spec = replace(
        spec,
        hardware=replace(spec.hardware, memory_fraction=fraction, in_use=in_use),
        limits=replace(spec.limits, max_batch_prefill_tokens=prefill),
    )
    found = search.search(here._replace(setting=here.setting._replace(spec=spec)))
    short = tokens and not server.pinned and search.at_least(here, tokens) is None
    return Decided(spec, server.facts, found._replace(limits=None) if short else found, server.base)


def _laid(server: _Server, decided: Decided, in_use: Mapping[str, int]) -> _Laid:
    """What a server takes of each of its GPUs, where it finds `in_use` bytes taken."""
    limits = decided.found.limits
    if limits is None or not _starts(decided.found):
        return _Laid(server, decided, {})
    fraction = decided.spec.hardware.memory_fraction
    shares = {}
    for name, taken in in_use.items():
        here = warmup.with_fraction(warmup.beside(server.base, taken), fraction)
        seen = warmup.run(here, limits, retry=True)
        before = here.total - here.cuda_total + taken
        held = underload.held(here, seen, taken)
        allowed = here.most - before
        # A cache that is not reserved may grow as far as PyTorch is allowed to.
        most = allowed if seen.budget is None else min(allowed, held + underload.growth(here, seen))
        shares[name] = Share(server.name, taken, held, max(held, most))
    return _Laid(server, decided, shares)


def _final(one: _Laid) -> _Laid:
    """The server once more, from its spec alone."""
    decided = one.decided._replace(found=search.best(one.decided.spec, one.decided.facts).found)
    return _laid(one.server, decided, {name: share.in_use_bytes for name, share in one.shares.items()})


def _table(laid: Sequence[_Laid]) -> tuple[GpuShares, ...]:
    """The GPUs with the servers on them, in the order they start."""
    names = dict.fromkeys(name for one in laid for name in one.server.devices)
    return tuple(_gpu(name, laid) for name in sorted(names, key=lambda name: (len(name), name)))


def _gpu(name: str, laid: Sequence[_Laid]) -> GpuShares:
    on_it = [one.server for one in laid if name in one.server.devices]
    shares = tuple(one.shares[name] for one in laid if name in one.shares)
    base = on_it[0].base
    foreign = max(server.spec.hardware.in_use for server in on_it)
    return GpuShares(name, on_it[0].facts.gpu.name, base.total, base.total - base.cuda_total, foreign, shares)


# -- what to know, what to do


def _sharing(laid: Sequence[_Laid], careful: bool) -> Iterator[str]:
    """What to know about servers that share a GPU."""
    names = ", then ".join(one.server.name for one in laid)
    yield f"start {names}: each when the one before answers, for a warm-up takes what it finds free"
    alone = [one.server.name for one in laid if not _starts_again(one, laid)]
    if alone:
        yield (
            f"{' and '.join(alone)} cannot be restarted while the others run: their memory is in use then, and the "
            "fraction leaves no KV cache beside it. Stop all of them and start them in order; a restart policy fails."
        )
    for gpu in () if careful else _table(laid):
        if gpu.spare_bytes < 0:
            yield f"at risk under load: with all servers at their most, GPU {gpu.id} lacks {human(-gpu.spare_bytes)}"


def _starts_again(one: _Laid, laid: Sequence[_Laid]) -> bool:
    """Whether the server would start with the same limits while all the others run."""
    others = {
        name: share.in_use_bytes + sum(
            other.shares[name].held_bytes for other in laid[laid.index(one) + 1 :] if name in other.shares
        )
        for name, share in one.shares.items()
    }  # fmt: skip
    fraction = one.decided.spec.hardware.memory_fraction
    here = warmup.with_fraction(warmup.beside(one.server.base, max(others.values())), fraction)
    limits = one.decided.found.limits
    return limits is not None and verdict.predict(here, limits).outcome == "starts"


def _beside(servers: Sequence[_Server]) -> Iterator[str]:
    """What to know about containers on one host."""
    if len(servers) < 2:
        return
    yield (
        "the Prometheus port (9000), the master port and the shards' socket stay inside each container and do not clash"
    )
    if sum(server.facts.gpu.system == "cpu" for server in servers) > 1:
        yield "each server on the CPU plans with hardware.gpu.memory: give every container that much of its own"


def _ways_out(group: Sequence[_Server]) -> Iterator[str]:
    """What would make a group fit, each tried and not guessed."""
    if any(one.pinned for one in group) and _fits(laid := _share([_freed(one) for one in group])[0]):
        fractions = " and ".join(f"{one.decided.spec.hardware.memory_fraction:g}" for one in laid)
        yield f"leave hardware.memory_fraction out: {fractions} would do"
    orders = permutations(group) if len(group) <= MOST_ORDERS else iter(())
    yield from _first_way((order, "start them in another order: " + ", then ".join(one.name for one in order))
                          for order in orders)  # fmt: skip
    if any(one.spec.workload.concurrency > 1 for one in group):
        single = [_changed(one, replace(one.spec, workload=replace(one.spec.workload, concurrency=1))) for one in group]
        yield from _first_way([(single, "workload.concurrency: 1 fits")])
    yield from _first_way(
        ([_on(one, gpu) for one in group], f"hardware.gpu: {gpu.name} holds them") for gpu in larger(group[0].facts.gpu)
    )
    yield "give each a GPU of its own: container.gpus names them"


def _freed(server: _Server) -> _Server:
    """The server without a memory fraction of its own."""
    return _server(replace(server.spec, hardware=replace(server.spec.hardware, memory_fraction=1.0)), server.facts)


def _first_way(ways: Iterable[tuple[Sequence[_Server], str]]) -> Iterator[str]:
    """The first way that works without a risk under load, or else the first that works."""
    risky = None
    for group, said in ways:
        if _holds(_lay(group, 0, careful=True), careful=True):
            yield said
            return
        if risky is None and _fits(_lay(group, 0, careful=False)):
            risky = f"{said} (at risk under load)"
    if risky is not None:
        yield risky


def _on(server: _Server, gpu: GpuFacts) -> _Server:
    """The server on another GPU."""
    asked = server.spec.hardware
    there = on_machine(gpu, asked.driver, asked.link)
    return _changed(server, replace(server.spec, hardware=replace(asked, gpu=GpuSpec(name=gpu.name))), there)


def _changed(server: _Server, spec: Spec, gpu: GpuFacts | None = None) -> _Server:
    """The server with another spec, and another GPU."""
    facts = server.facts if gpu is None else server.facts._replace(gpu=gpu)
    alone = replace(spec, hardware=replace(spec.hardware, in_use=0))
    return server._replace(spec=spec, facts=facts, base=warmup.base(defaults.resolve(alone, facts)))
