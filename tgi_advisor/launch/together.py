"""Several servers of one machine, started one after the other, each when the one before answers.

A warm-up takes the memory it finds free, so the order is part of the plan. They come up together or not at all: when
one fails or the wait is broken off, those before it are stopped and removed, unless `keep` says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from tgi_advisor.errors import AdvisorError, EngineError, UsageError
from tgi_advisor.launch import marks, run
from tgi_advisor.launch.docker import preflight
from tgi_advisor.launch.place import LostPlaceError, Place
from tgi_advisor.launch.preflight import Checked, Finding, Host, refuse
from tgi_advisor.launch.records import Event, Kind, Launched, Options, Solve, Tell
from tgi_advisor.launch.signals import terminated_as_interrupted, tidied
from tgi_advisor.plan import Packing, Plan


class Checks(NamedTuple):
    """The preflight of several servers."""

    findings: tuple[Finding, ...]
    """Everything found, each with the names of the servers it is about."""
    each: tuple[Checked, ...]
    """The result of each server."""
    images: tuple[str, ...]
    """Images that have to be pulled."""


def launch(
    plans: Sequence[Plan], packing: Packing, place: Place, options: Options, host: Host, tell: Tell,
    solver: Callable[[Plan], Solve],
) -> list[Launched]:  # fmt: skip
    """Start plans that were made together, in their order; raises the kinds of `tgi_advisor.errors`.

    The preflight of all comes first; `possible` has passed. An error of one server carries its name; `solver` gives
    what plans it again.
    """
    all_of_them = _Launch(place, options, tell)
    with terminated_as_interrupted():
        checks = check(plans, packing, place, options, host)
        refuse(checks.findings)
        for image in checks.images:
            place.prepare(image, all_of_them.tell)
        with tidied(all_of_them.tidy_up):
            # All of them now: one that starts must not find the memory of another's predecessor in use.
            for plan, checked in zip(plans, checks.each, strict=True):
                if checked.replaces:
                    all_of_them.tell("note", place.clears(plan.spec.container.name) or "")
                    place.clear(checked.replaces)
            return [all_of_them.one(plan, host, solver(plan)) for plan in plans]


def possible(packing: Packing, options: Options) -> None:
    """UsageError for options that make no sense with these servers."""
    if options.detach:
        raise UsageError(
            "--detach does not go with several servers",
            "Each starts when the one before answers, so somebody has to wait. Leave it out.",
        )
    shared = next((gpu for gpu in packing.gpus if len(gpu.shares) > 1), None)
    if options.restart != "no" and shared:
        raise UsageError(
            f"--restart {options.restart} does not go with servers that share a GPU",
            f"{' and '.join(share.server for share in shared.shares)} share GPU {shared.id} and have to start in this "
            "order, each after the one before; the engine restarts containers without any. Leave it out.",
        )


def check(plans: Sequence[Plan], packing: Packing | None, place: Place, options: Options, host: Host) -> Checks:
    """The preflight of all servers; without a packing there is one."""
    each: list[Checked] = []
    about: dict[Finding, list[str]] = {}
    images: dict[str, None] = {}
    kept: set[str] = set()
    for plan in plans:
        container, name = plan.container, plan.spec.container.name
        assert container is not None
        checked = place.check(plan, options, host)
        each.append(checked)
        for finding in checked.findings:
            about.setdefault(finding, []).append(name)
        if checked.pull:
            images[container.image] = None
        if checked.reuses and place.runs(checked.reuses):
            kept.add(name)
    if packing is None:
        return Checks(tuple(about), tuple(each), tuple(images))
    found = [replace(one, message=f"{' and '.join(names)}: {one.message}") for one, names in about.items()]
    found += [*_out_of_order(packing, kept), *(preflight.disk_of_all(plans) if place.local else ())]
    return Checks(tuple(found), tuple(each), tuple(images))


def _out_of_order(packing: Packing, kept: set[str]) -> Iterator[Finding]:
    """Servers that run already on a GPU where another has to start before them."""
    for gpu in packing.gpus:
        names = [share.server for share in gpu.shares]
        first = next((name for name in names if name not in kept), None)
        for name in names[names.index(first) :] if first else ():
            if name in kept:
                yield Finding(
                    f"{name} runs already, and {first} has to start before it: they share GPU {gpu.id}",
                    "--replace starts all of them in order.",
                )


class _Launch:
    """The state of one launch of several servers."""

    def __init__(self, place: Place, options: Options, tell: Tell) -> None:
        self.place, self.options, self._tell = place, options, tell
        self.id = marks.new_id()
        self.began = time.monotonic()

    def tell(self, kind: Kind, text: str, **data: Any) -> None:
        """Pass on something about all of them."""
        self._tell(Event(kind, time.monotonic() - self.began, text, data))

    def one(self, plan: Plan, host: Host, solve: Solve) -> Launched:
        """Start one server; what is told of it has its name and the time since the first began."""
        name = plan.spec.container.name

        def tell(event: Event) -> None:
            self._tell(replace(event, server=name, seconds=time.monotonic() - self.began))

        try:
            return run.launch(plan, self.place, self.options, host, tell, solve, self.id)
        except AdvisorError as error:
            error.server = name
            error.message = f"{name}: {error.message}"
            error.args = (error.message,)
            raise

    def tidy_up(self, error: BaseException) -> None:
        """Stop and remove what serves already, the last one first, unless it is to be kept or may be well.

        Servers that ran before are left alone.
        """
        keep, lost = self.options.keep, isinstance(error, LostPlaceError)
        try:
            for name, container in self.place.made_by(self.id).items():
                if keep or lost:
                    why = "as --keep asks" if keep else "for the engine is what failed"
                    self._note(f"{name} stays, {why}; `tgi-advisor stop {name}` removes it")
                else:
                    self.place.stop(container)
                    self._note(f"stopped and removed {name}, for not all of them came up")
        except EngineError as also:
            label = f"{marks.LAUNCH}={self.id}"
            self._note(f"{also.message}; what this launch started has the label {label}", label=label)

    def _note(self, text: str, **data: Any) -> None:
        """Tell it if somebody can still be told: a terminal that is gone must not stop the tidying up."""
        with suppress(AdvisorError):
            self.tell("note", text, **data)
