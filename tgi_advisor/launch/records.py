"""How a launch is asked for, what is told while it goes on, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tgi_advisor.errors import AdvisorError, Exit, Problem
from tgi_advisor.launch.failures import Failure
from tgi_advisor.launch.verify import Verified
from tgi_advisor.plan import Plan
from tgi_advisor.spec.records import Spec

MOST_RETRIES = 3

Kind = Literal["finding", "pull", "start", "log", "step", "stall", "retry", "ready", "verified", "note", "tick"]
Solve = Callable[[Spec], Plan]
"""Plans a spec once more on the same facts."""


@dataclass(frozen=True)
class Event:
    """One thing worth telling while a launch goes on."""

    kind: Kind
    """What it is about."""
    seconds: float
    """Since the launch began."""
    text: str
    """In words."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs."""
    server: str | None = None
    """Which of several servers it is about."""


Tell = Callable[[Event], None]
Say = Callable[..., None]
"""Takes the kind, the text and the data of an event."""


@dataclass(frozen=True)
class Options:
    """How to launch."""

    replace: bool = False
    """Swap a container of the same name that tgi-advisor started."""
    reuse: bool = False
    """Keep a container of the same name that runs the same plan."""
    keep: bool = False
    """Leave what was started when it fails or the wait is broken off."""
    detach: bool = False
    """Return after the start."""
    restart: str = "no"
    """Restart policy; it holds once the server has answered."""
    ulimits: tuple[str, ...] = ()
    """`memlock=-1` and the like."""
    logs: bool = True
    """Whether each line of the server's log is an event."""
    timeout_s: float | None = None
    """Give up when the server is not ready by then; None waits."""
    stall_s: float | None = None
    """Seconds without progress worth a word; None: by step."""
    wait_for_node: bool = False
    """Go on though no node of the cluster fits now."""
    retries: int = MOST_RETRIES
    """How often to plan again after running out of memory at warm-up."""


@dataclass(frozen=True)
class Launched:
    """A launch that went well."""

    plan: Plan
    """What runs in the end; not the first plan when it was planned again."""
    id: str
    """The container."""
    url: str
    """Where it answers."""
    seconds: float
    """Until ready; until started when detached."""
    reused: bool = False
    """Whether it ran already."""
    verified: Verified | None = None
    """What it did and said; None when detached."""
    attempts: int = 1
    """Starts it took."""
    follow: str | None = None
    """The command that follows its log, when detached."""
    stop: str = ""
    """The command that stops it."""
    reach: str | None = None
    """The command that brings its port to this machine; None where it is at `url` already."""


class LaunchError(AdvisorError):
    """The server did not come up; the failure says why."""

    def __init__(self, failure: Failure, left: str | None = None) -> None:
        proof = [Problem(line) for line in failure.proof]
        steps = [*failure.next_steps, *([left] if left else [])]
        super().__init__(failure.message, "\n".join(steps), proof)
        self.failure = failure

    @property
    def exit_code(self) -> Exit:  # type: ignore[override]
        """The failure's."""
        return self.failure.exit
