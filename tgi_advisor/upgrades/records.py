"""The records of an upgrade: what one release makes of a deployment, what differs, and what to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tgi_advisor.errors import Exit
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts.flags import Flag
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Prediction
from tgi_advisor.spec.records import Spec
from tgi_advisor.tabular import Answer, Column, Table

Prefer = Literal["same", "better"]
Serves = Literal["same", "better", "less", "out_of_memory", "refused"]
"""What the new release makes of a deployment, beside the old one."""
Kind = Literal["limit", "engine", "flag", "variable", "around"]

EXITS: Mapping[Serves, Exit] = {
    "same": Exit.STARTS, "better": Exit.STARTS, "less": Exit.LESS,
    "out_of_memory": Exit.OUT_OF_MEMORY, "refused": Exit.REFUSED,
}  # fmt: skip
"""What the command ends with."""


class Surroundings(NamedTuple):
    """What a deployment file says beside the spec; the defaults are those of what `emit` writes."""

    name: str = ""
    """The server, where the file has a name for it."""
    place: str = ""
    """Where it stands: `compose.yaml:4:3`."""
    older: tuple[int, int, int] | None = None
    """The release it really has, where that is before the first whose rules are known."""
    flags: Mapping[str, Flag] | None = None
    """The flags of that older release; None for those of the release."""
    shards_before: int | None = None
    """Shards the old launcher starts; None where the spec says it."""
    shards_after: int | None = None
    """Shards the new launcher starts when nothing is stated."""
    bare: bool = False
    """Whether the launcher is given no arguments."""
    host_network: bool = False
    """Whether it uses the host's network."""
    cache: bool = True
    """Whether the weights are kept outside the container."""
    old_token: bool = False
    """Whether the Hub token is only under its old name."""
    new_token: bool = False
    """Whether it is only under its new one."""
    volume: str = ""
    """The folder or volume of the weights; empty where it is not known."""
    found: tuple[tuple[str, str, str], ...] = ()
    """What `validate` finds of the file with the new release and not with today's: code, message and next step."""
    refused: tuple[str, ...] = ()
    """Words of the file that the new release's launcher refuses, and a spec cannot hold."""
    broken: tuple[str, ...] = ()
    """Words that today's launcher refuses already."""
    left: tuple[str, ...] = ()
    """What a spec does not say of it."""
    port: str = ""
    """The port in the container where the file states one; empty where the image's own holds."""
    image_today: str = ""
    """The image of the file, where that is of a release before the first whose rules are known."""
    image: str | None = None
    """The new image where the file's own cannot be renamed by its tag; None where it can."""


class Side(NamedTuple):
    """One release and what it makes of a deployment."""

    name: str
    """The release, also one before the first whose rules are known."""
    release: TgiRelease
    """The release whose rules hold."""
    spec: Spec
    """The deployment."""
    setting: Setting
    """The launch as this release resolves it."""
    given: Limits
    """The limits it is given."""
    prediction: Prediction
    """The verdict."""

    @property
    def starts(self) -> bool:
        """Whether it starts."""
        return self.prediction.outcome == "starts"


class Change(NamedTuple):
    """One thing that is otherwise in the new release."""

    kind: Kind
    """`limit`, `engine` (what TGI picks by itself), `flag`, `variable` or `around` (paths, ports, entry point ...)."""
    name: str
    """`max_total_tokens`, `attention`, `--ngrok`, `weight cache`, ..."""
    before: str
    """How it is today."""
    after: str
    """How it is then; of a flag or variable `refused`, `renamed`, `ignored`, `read` or its new value."""
    why: str
    """One sentence."""
    step: str = ""
    """What to do about it; empty where there is nothing to do."""
    source: str = ""
    """Where it was read."""


class Row(NamedTuple):
    """One part of the memory in both releases."""

    name: str
    """The part, as a report calls it."""
    before_bytes: int
    """What it takes of one GPU today."""
    after_bytes: int
    """What it takes then."""
    tokens: int | None
    """What the difference does to max_batch_total_tokens; None where no budget is inferred."""
    why: str
    """The reason."""


class Pin(NamedTuple):
    """One field of the spec that is set to keep, or to better, what is served."""

    path: str
    """The field: `limits.max_total_tokens`, `tgi.flags.usage-stats`, `tgi.env.ATTENTION`, ..."""
    value: object
    """Its value."""
    why: str
    """One sentence."""


class Proposal(NamedTuple):
    """What to go on with."""

    prefer: Prefer
    """`same` or `better`; `same` too where `better` would serve less than that."""
    spec: Spec
    """The spec for the new release."""
    pins: tuple[Pin, ...]
    """What it says that today's does not, in order."""
    dropped: tuple[str, ...]
    """Fields of today's that it no longer says."""
    lost: tuple[str, ...]
    """What cannot be kept, one sentence each."""
    side: Side
    """What the new release makes of it."""
    serves: Serves
    """The same beside today's."""
    less: tuple[str, ...]
    """In what it serves less."""
    instead: tuple[str, ...] = ()
    """In what the largest limits would serve less, where they were asked for and today's are kept for that reason."""


class Fixed(NamedTuple):
    """What became of a file that was mended."""

    side: Side
    """What the new release makes of it as it is now."""
    serves: Serves
    """The same beside today's."""
    less: tuple[str, ...]
    """In what it serves less."""
    undone: tuple[str, ...]
    """What could not be written into the file, and is left to the person."""
    notes: tuple[str, ...] = ()
    """Something else to say about it."""


class Step(NamedTuple):
    """One release between the two, with today's spec."""

    release: str
    """The release."""
    date: str
    """Date of its tag."""
    outcome: str
    """`starts`, `refused` or `out_of_memory`."""
    limits: Limits
    """The limits it has; all None where it does not start."""
    low: int | None
    """Lower end of the band around the budget."""
    high: int | None
    """Upper end."""
    concurrency: int | None
    """Requests of its max_total_tokens together."""
    at_risk: bool
    """Whether it starts, but may run out of memory under load."""
    together: int | None
    """Requests of today's max_total_tokens together."""
    serves: Serves
    """Beside today's."""
    why: str
    """Why it does not start, or in what it serves less; empty where it serves as much."""


COLUMNS = (
    Column("release", "TGI", "text", "The release."),
    Column("date", "OF", "text", "Date of its tag."),
    Column("outcome", "STARTS", "text", "`starts`, `refused` or `out_of_memory`, with today's spec."),
    Column("at_risk", "AT RISK", "flag", "Whether it starts, but may run out of memory under load."),
    Column("max_input_tokens", "INPUT", "count", "max_input_tokens."),
    Column("max_total_tokens", "CONTEXT", "count", "max_total_tokens."),
    Column("max_batch_prefill_tokens", "PREFILL", "count", "max_batch_prefill_tokens."),
    Column("max_batch_total_tokens", "BUDGET", "count", "max_batch_total_tokens, as TGI infers it."),
    Column("budget_low", "FROM", "count", "Lower end of the band around it."),
    Column("budget_high", "TO", "count", "Upper end."),
    Column("concurrency", "AT ONCE", "count", "Requests of that length in the KV cache together."),
    Column("together", "OF TODAY'S", "count", "Requests of today's max_total_tokens in the KV cache together."),
    Column("serves", "SERVES", "text", "Beside today's: `same`, `better`, `less`, `refused` or `out_of_memory`."),
    Column("why", "WHY", "text", "Why it does not start, or in what it serves less."),
)
"""The table of releases."""
LESS_WANTED = ("date", "budget_low", "budget_high")
"""Columns that only a wide terminal has."""


@dataclass(frozen=True, repr=False)
class Upgrade(Answer):
    """What moving one deployment to another release changes."""

    before: Side
    """Today."""
    after: Side
    """The new release with the spec as it is."""
    serves: Serves
    """What that serves beside today's."""
    less: tuple[str, ...]
    """In what it serves less, one sentence each."""
    more: tuple[str, ...]
    """In what it serves more."""
    changes: tuple[Change, ...]
    """Everything that is otherwise."""
    memory: tuple[Row, ...]
    """Where the memory goes in both, by part; empty where one of them never gets that far."""
    proposal: Proposal
    """What to go on with."""
    surroundings: Surroundings
    """What the file says beside the spec."""
    steps: tuple[Step, ...] = ()
    """The releases from one to the other, where they were asked for."""
    notes: tuple[str, ...] = ()
    """What had to be assumed."""
    fixed: Fixed | None = None
    """What became of the file, where it was to be mended."""

    @property
    def downgrade(self) -> bool:
        """Whether the new release is the older one."""
        return self.after.release.version < (self.surroundings.older or self.before.release.version)

    @property
    def moves(self) -> bool:
        """Whether the two releases differ."""
        return self.after.name != self.before.name

    @property
    def exit_code(self) -> Exit:
        """What the command ends with: of the file as it is, or where it was mended of what it then says."""
        return EXITS[self.serves if self.fixed is None else self.fixed.serves]

    @property
    def breaks_in(self) -> str | None:
        """The first release of the table that does not start or serves less, on the way there; None where none does."""
        return next((one.release for one in self.steps if one.serves not in ("same", "better")), None)

    def table(self) -> Table:
        """The releases on the way, where they were asked for, else the two ends."""
        return Table(COLUMNS, tuple(_row(step) for step in self.steps))

    def nothing(self) -> str:
        """Why there is no table of releases."""
        return "" if self.steps else "The releases between were not asked for (--releases)."

    def text(self, width: int) -> str:
        """The answer as a terminal of so many columns shows it."""
        from tgi_advisor.upgrades.page import page

        return page(self, width=width).rstrip("\n")

    def to_dict(self) -> dict[str, Any]:
        """The answer as --json prints it: docs/json.md has every name."""
        from tgi_advisor.upgrades.document import document

        return document(self)


def _row(step: Step) -> tuple[object, ...]:
    limits = step.limits
    return (
        step.release, step.date, step.outcome, step.at_risk, limits.max_input_tokens, limits.max_total_tokens,
        limits.max_batch_prefill_tokens, limits.max_batch_total_tokens, step.low, step.high, step.concurrency,
        step.together, step.serves, step.why,
    )  # fmt: skip
