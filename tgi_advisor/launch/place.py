"""What `launch` needs of a place where servers run: a Docker Engine, or a namespace of a Kubernetes cluster.

Little: check what is in the way, start what a `Container` says, follow its log and state, reach its port, stop it,
find it again. The story (`run`, `follow`) is written once on top of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tgi_advisor.errors import EngineError
from tgi_advisor.launch.failures import State, Where
from tgi_advisor.launch.preflight import Checked, Host
from tgi_advisor.launch.records import Options, Say
from tgi_advisor.launch.verify import Ask
from tgi_advisor.launch.watch import Moment
from tgi_advisor.plan import Plan


class LostPlaceError(EngineError):
    """The place does not answer any more; what it runs may run on."""


class UnreadableLogError(Exception):
    """A log that nobody can read, now or later."""


class Log(Protocol):
    """A log as it is written: pieces, each with the moment it was taken down in front."""

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None:
        """Break off the reading, also from another thread."""
        ...


class NoLog:
    """A log that has nothing yet, or nothing any more."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


class Way(NamedTuple):
    """One way to reach a server's port."""

    ask: Ask
    """Asks there."""
    late: bool = False
    """Whether it is dear, and asked only when the port should be open by now and the ways before it do not answer."""
    note: str | None = None
    """What to say when this is the way that answers."""


class Server(Protocol):
    """One server, as it comes up."""

    @property
    def id(self) -> str:
        """What the place calls it."""
        ...

    @property
    def url(self) -> str:
        """Where it will answer."""
        ...

    @property
    def log_command(self) -> str:
        """The command that shows its log."""
        ...

    @property
    def kind(self) -> Where:
        """What kind of place it is in."""
        ...

    @property
    def at(self) -> str:
        """Options with which kubectl asks the namespace it is in; empty on a Docker Engine."""
        ...

    @property
    def what(self) -> str:
        """It by its name, as people say it: `container llama`."""
        ...

    def begins(self, image: str) -> str:
        """That it starts, as people say it."""
        ...

    @property
    def stays(self) -> str:
        """That it stays, as people say it."""
        ...

    @property
    def follow_command(self) -> str:
        """The command that follows its log."""
        ...

    @property
    def stop_command(self) -> str:
        """The command that stops it."""
        ...

    @property
    def reach_command(self) -> str | None:
        """The command that brings its port to this machine; None where it is at `url` already."""
        ...

    @property
    def token_given(self) -> bool:
        """Whether it was given a Hub token."""
        ...

    def ways(self) -> Sequence[Way]:
        """How its port may be reached, the usual way first; LostPlaceError."""
        ...

    def log(self, after: Moment) -> Log:
        """Follow its log from a moment on; UnreadableLogError, LostPlaceError."""
        ...

    def state(self) -> State:
        """Whether it runs, and how it ended; LostPlaceError when the place does not answer."""
        ...

    def glance(self) -> State | None:
        """Its state where that is known without asking; else None."""
        ...

    def received(self) -> int | None:
        """Bytes that reached it over the network; None when nobody counts them."""
        ...

    def served(self, options: Options) -> str | None:
        """Do what is due once it serves; what did not work, in words."""
        ...

    def close(self) -> None:
        """Stop watching it; the server goes on."""
        ...


@dataclass(frozen=True)
class Ours:
    """A server that tgi-advisor started."""

    id: str
    """What the place calls it."""
    name: str
    """Its name."""
    image: str
    """Its image."""
    state: str
    """`running`, `exited`, ... as the place says."""
    healthy: bool
    """Whether it serves now."""
    port: int | None
    """The port it is reached at; None when it is not published now."""
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


class Preview(NamedTuple):
    """What a launch would send."""

    requests: tuple[dict[str, Any], ...]
    """The requests, one for each server, with the names of secrets in the place of their values."""
    text: str | None = None
    """The same as people read it, where that is not the requests themselves."""


class Place(Protocol):
    """Where servers run. Every method raises EngineError, LostPlaceError where nobody answers."""

    @property
    def kind(self) -> Where:
        """What it is."""
        ...

    @property
    def local(self) -> bool:
        """Whether it shares this machine's files and ports."""
        ...

    @property
    def status_command(self) -> str:
        """The command that lists what was launched there."""
        ...

    @property
    def here(self) -> str:
        """Where that is, after `has started no server`: `here`, `in namespace x of context y`."""
        ...

    def __enter__(self) -> Place: ...
    def __exit__(self, *_: object) -> None: ...

    def check(self, plan: Plan, options: Options, host: Host, *, again: bool = False) -> Checked:
        """Everything in the way that can be known now; `again` after an attempt that was undone."""
        ...

    def preview(self, plans: Sequence[Plan], options: Options, host: Host) -> Preview:
        """What would be sent; nothing is changed."""
        ...

    def prepare(self, image: str, tell: Say) -> None:
        """Fetch an image; AccessError when the registry does not give it out."""
        ...

    def clears(self, name: str) -> str | None:
        """What `clear` does, in words; None where it has nothing to do."""
        ...

    def clear(self, replaced: str) -> None:
        """Make room for what `replace` swaps: stop and remove it, where the two cannot be there at once."""
        ...

    def start(
        self, plan: Plan, checked: Checked, options: Options, secrets: Mapping[str, str], launch_id: str
    ) -> Server:
        """Start it; PreflightError when somebody was faster. Not to be interrupted: it could not be found yet."""
        ...

    def existing(self, plan: Plan, checked: Checked) -> tuple[Server, bool]:
        """The server that `reuse` keeps, started where it did not run; whether it ran."""
        ...

    def undo(self, launch_id: str, name: str, *, ended: bool = False, last: bool = True) -> Iterator[str]:
        """Take back what a launch made for the server of a name, each step in a sentence once it is done.

        With `ended` only what does not run: a server that we lost sight of may be well. Not `last` when another
        attempt follows.
        """
        ...

    def find(self) -> list[Ours]:
        """What tgi-advisor started there, by name."""
        ...

    def named(self, name: str) -> Ours:
        """The one of that name; UsageError when there is none, or it is somebody else's."""
        ...

    def made_by(self, launch_id: str) -> Mapping[str, str]:
        """Name and id of every server that a launch made, the last one first."""
        ...

    def runs(self, server: str) -> bool:
        """Whether a server that `check` found runs."""
        ...

    def stop(self, server: str) -> Iterable[str]:
        """Stop and remove: as gracefully as it may when it serves, at once when it does not yet; what to say then."""
        ...
