"""Every refusal of TGI that can be known before launch, with TGI's own words, and what works but surprises.

One small function per refusal, one file per place it happens; the registers keep TGI's own order, so the
first refusal is the one it prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

from tgi_advisor.estimate.setting import Setting
from tgi_advisor.limits import Limits
from tgi_advisor.once import remembered
from tgi_advisor.refusals import alike, launcher, surprises
from tgi_advisor.refusals.adapters import ADAPTERS
from tgi_advisor.refusals.alike import Alike
from tgi_advisor.refusals.config import CONFIG
from tgi_advisor.refusals.heads import HEADS
from tgi_advisor.refusals.kernels import KERNELS
from tgi_advisor.refusals.load import LOAD
from tgi_advisor.refusals.machine import MACHINE, SLICES
from tgi_advisor.refusals.router import ROUTER
from tgi_advisor.refusals.rules import Case, Refusal, Rule, Version, refusal
from tgi_advisor.refusals.warmup import WARMUP
from tgi_advisor.refusals.weights import WEIGHTS

__all__ = [
    "Refusal", "Rule", "all_rules", "launcher_refusals", "router_refusals", "shard_refusals", "surely", "warnings",
]  # fmt: skip


Place = Literal["launcher", "shards", "router"]
"""Where rules stand together."""
SHARDS = (*LOAD, *SLICES, *CONFIG, *WEIGHTS, *HEADS, *KERNELS, *ADAPTERS, *WARMUP)
"""What the shards refuse while they load or warm up, in their order."""
Settled = tuple[Refusal | Rule, ...]
"""What is refused whatever the limits, and the rules that look at limits, in TGI's order."""


def launcher_refusals(setting: Setting, given: Limits, asked: Limits) -> list[Refusal]:
    """What the launcher refuses before anything is downloaded, in its order.

    `given` are the limits it is given, `asked` those with its defaults (`defaults.launcher_limits`).
    """
    return _refused(_of_launcher(setting), Case(setting, given, asked))


def shard_refusals(setting: Setting, asked: Limits | None = None) -> list[Refusal]:
    """What the shards refuse while they load or warm up, in their order.

    Without `asked` (`defaults.launcher_limits`) the few rules that look at the limits stay silent.
    """
    limits = asked or Limits()
    return _refused(_of_shards(setting), Case(setting, limits, limits))


def router_refusals(setting: Setting, resolved: Limits, budget: int | None) -> list[Refusal]:
    """What the router refuses once the shards are up.

    `resolved` are the limits the shards report (`defaults.server_limits`), `budget` what they inferred.
    """
    return _refused(_in_force("router", setting.facts.release.version), Case(setting, resolved, resolved, budget))


def surely(setting: Setting) -> list[Refusal]:
    """What TGI refuses of a launch whatever the limits."""
    return [one for one in (*_of_launcher(setting), *_of_shards(setting)) if isinstance(one, Refusal)]


def _refused(settled: Settled, case: Case) -> list[Refusal]:
    found = []
    for one in settled:
        if isinstance(one, Refusal):
            found.append(one)
        elif (said := one.check(case)) is not None:
            found.append(refusal(one, said))
    return found


@remembered
def _of_launcher(setting: Setting) -> Settled:
    return _settled("launcher", setting)


@remembered
def _of_shards(setting: Setting) -> Settled:
    return _settled("shards", setting)


_latest: dict[Place, tuple[Alike, Settled]] = {}
"""The launch that was asked about last, and what is settled of it: a comparison asks of many that are refused alike."""


def _settled(place: Place, setting: Setting) -> Settled:
    launch, known = alike.of(setting), _latest.get(place)
    if known is None or not known[0].covers(launch):
        known = _latest[place] = launch, _checked(place, launch.setting)
    return known[1]


def _checked(place: Place, setting: Setting) -> Settled:
    """What the rules of a place say."""
    case = Case(setting, Limits(), Limits())
    found: list[Refusal | Rule] = []
    for one in _in_force(place, case.version):
        if one.of_limits:
            found.append(one)
        elif (said := one.check(case)) is not None:
            found.append(refusal(one, said))
    return tuple(found)


@cache
def _in_force(place: Place, version: Version) -> tuple[Rule, ...]:
    """The rules of a place that hold in a release, in its order."""
    launching = (*MACHINE, *launcher.PARSER, *launcher.in_order(version))
    rules: Sequence[Rule] = {"launcher": launching, "shards": SHARDS, "router": ROUTER}[place]
    return tuple(one for one in rules if one.since <= version <= one.until)


def warnings(setting: Setting, limits: Limits, given: Limits | None = None) -> list[surprises.Surprise]:
    """What TGI accepts but does differently than one may expect.

    `limits` are those the server ends up with, `given` those it was given.
    """
    return surprises.found(Case(setting, given or Limits(), limits))


def all_rules() -> tuple[Rule, ...]:
    """Every refusal there is, in the order of 3.0.0 and later."""
    return (*MACHINE, *launcher.PARSER, *launcher.in_order((3, 0, 0)), *SHARDS, *ROUTER)
