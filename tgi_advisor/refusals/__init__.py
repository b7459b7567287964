"""Every refusal of TGI that can be known before launch, with TGI's own words, and what works but surprises.

One small function per refusal, one file per place it happens; the registers keep TGI's own order, so the
first refusal is the one it prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

from tgi_advisor.estimate.setting import Setting, remembered
from tgi_advisor.limits import Limits
from tgi_advisor.refusals import launcher, surprises
from tgi_advisor.refusals.adapters import ADAPTERS
from tgi_advisor.refusals.config import CONFIG
from tgi_advisor.refusals.heads import HEADS
from tgi_advisor.refusals.kernels import KERNELS
from tgi_advisor.refusals.load import LOAD
from tgi_advisor.refusals.machine import MACHINE, SLICES
from tgi_advisor.refusals.router import ROUTER
from tgi_advisor.refusals.rules import Case, Refusal, Rule, Version, applied
from tgi_advisor.refusals.warmup import WARMUP
from tgi_advisor.refusals.weights import WEIGHTS

__all__ = ["Refusal", "Rule", "all_rules", "launcher_refusals", "router_refusals", "shard_refusals", "warnings"]


BLIND = (*SLICES, *CONFIG, *WEIGHTS, *HEADS, *KERNELS, *ADAPTERS)
"""Rules, in TGI's order, none of which looks at a token limit: a search asks them once."""
Place = Literal["parser", "launcher", "load", "blind", "warmup", "router"]
"""Where rules stand together."""


def launcher_refusals(setting: Setting, given: Limits, asked: Limits) -> list[Refusal]:
    """What the launcher refuses before anything is downloaded, in its order.

    `given` are the limits it is given, `asked` those with its defaults (`defaults.launcher_limits`).
    """
    return [*_first_of_all(setting), *_refused("launcher", Case(setting, given, asked))]


def shard_refusals(setting: Setting, asked: Limits | None = None) -> list[Refusal]:
    """What the shards refuse while they load or warm up, in their order.

    Without `asked` (`defaults.launcher_limits`) the few rules that look at the limits stay silent.
    """
    limits = asked or Limits()
    case = Case(setting, limits, limits)
    return [*_refused("load", case), *_loading(setting), *_refused("warmup", case)]


@remembered
def _first_of_all(setting: Setting) -> tuple[Refusal, ...]:
    """What the machine and the launcher's parser refuse, whatever the limits."""
    return tuple(_refused("parser", Case(setting, Limits(), Limits())))


@remembered
def _loading(setting: Setting) -> tuple[Refusal, ...]:
    """What the shards refuse while they load, whatever the limits."""
    return tuple(_refused("blind", Case(setting, Limits(), Limits())))


def router_refusals(setting: Setting, resolved: Limits, budget: int | None) -> list[Refusal]:
    """What the router refuses once the shards are up.

    `resolved` are the limits the shards report (`defaults.server_limits`), `budget` what they inferred.
    """
    return list(_refused("router", Case(setting, resolved, resolved, budget)))


def _refused(place: Place, case: Case) -> Iterator[Refusal]:
    return applied(_in_force(place, case.version), case)


@cache
def _in_force(place: Place, version: Version) -> tuple[Rule, ...]:
    """The rules of a place that hold in a release, in its order."""
    rules = {
        "parser": (*MACHINE, *launcher.PARSER),
        "launcher": launcher.in_order(version),
        "load": LOAD,
        "blind": BLIND,
        "warmup": WARMUP,
        "router": ROUTER,
    }[place]
    return tuple(one for one in rules if one.since <= version <= one.until)


def warnings(setting: Setting, limits: Limits, given: Limits | None = None) -> list[surprises.Surprise]:
    """What TGI accepts but does differently than one may expect.

    `limits` are those the server ends up with, `given` those it was given.
    """
    return surprises.found(Case(setting, given or Limits(), limits))


def all_rules() -> tuple[Rule, ...]:
    """Every refusal there is, in the order of 3.0.0 and later."""
    return (*MACHINE, *launcher.PARSER, *launcher.in_order((3, 0, 0)), *LOAD, *BLIND, *WARMUP, *ROUTER)
