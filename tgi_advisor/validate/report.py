"""What is told about one file: its findings, its servers, and the lines they stand on, without any secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.limits import Limits
from tgi_advisor.safe import printable
from tgi_advisor.validate.comments import split
from tgi_advisor.validate.finding import RANK, Finding, Severity
from tgi_advisor.validate.found import Document
from tgi_advisor.validate.rules import Case
from tgi_advisor.validate.secrets import LONGEST, NOTHING, Hidden, hides, secrets, told, without_secrets


@dataclass(frozen=True, slots=True)
class Argument:
    """One setting the server is started with."""

    name: str
    """`--max-total-tokens`, or the variable where it has no flag."""
    value: str
    """Its value, never a secret."""
    origin: str
    """`argument`, `environment MAX_TOTAL_TOKENS`, `env_file tgi.env`, `image`, ..."""
    place: Place
    """Where the value stands."""
    note: str = ""
    """Why it does not count, or cannot be read; empty when it does."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One server as it was judged."""

    name: str
    """Name of the service or container; may be empty."""
    form: str
    """`compose`, `kubernetes`, `docker-run`, ..."""
    place: Place
    """Where it begins."""
    image: str | None
    """Its image as written."""
    release: str | None
    """The TGI release whose rules were used; None when it cannot be known."""
    release_note: str
    """Why the release is assumed or unknown; empty when the file says it."""
    model: str | None
    """The model; None when it cannot be known."""
    model_facts: str | None
    """Where the model's facts come from; None when they are not known."""
    gpu: str | None
    """The GPU; None when nobody names one."""
    machine: str | None
    """The machine it runs on and its GPUs; None where nobody names its type."""
    visible: int | None
    """GPUs the container sees."""
    shards: int | None
    """Shards the launcher starts."""
    outcome: str | None
    """`starts`, `refused` or `out_of_memory`; None when it was not predicted."""
    missing_bytes: int | None
    """Memory missing on one GPU, in bytes, 0 where it suffices; None when it was not predicted."""
    assumed: tuple[str, ...]
    """What had to be assumed, one sentence each."""
    unjudged: tuple[str, ...]
    """Why memory was not judged, where no finding says it."""
    limits: Mapping[str, int]
    """The limits of the started server, where it was predicted."""
    arguments: tuple[Argument, ...]
    """Everything it is started with, and where each comes from."""


@dataclass(frozen=True, slots=True)
class Report:
    """One file."""

    file: str
    """Its name as given."""
    findings: tuple[Finding, ...] = ()
    """What was found, in the order of the file."""
    servers: tuple[Seen, ...] = ()
    """Every TGI server in it."""
    lines: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """The lines the findings stand on, by file and number."""
    ignored: int = 0
    """Findings that a comment in the file ignores."""
    repeated: tuple[Finding, ...] = ()
    """Findings that say what the run, or this file, has said of another server; they are not told again."""
    fixed: int = 0
    """Findings that were mended, or would be."""
    diff: str = ""
    """The change as a unified diff."""
    unread: str = ""
    """Why it could not be read; empty when it was."""
    defect: str = ""
    """What went wrong in tgi-advisor itself; empty when nothing did."""
    note: str = ""
    """Something else to say about it."""
    failed: bool = False
    """Whether it holds an error, or where settings are strict a warning."""


_WORDS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "remark"}


class OfRule(NamedTuple):
    """What one rule found in all files."""

    findings: int
    """Findings of one severity."""
    files: int
    """Files they stand in."""


class OfFile(NamedTuple):
    """What was found in one file."""

    servers: int
    """TGI servers in it."""
    severities: Mapping[Severity, int]
    """Findings by severity."""


class Tally:
    """Sums over all files."""

    def __init__(self) -> None:
        self.files = self.servers = self.with_findings = self.ignored = self.fixed = self.fixable = 0
        self.unread = self.defects = self.failed = self.repeated = 0
        self.severities: dict[Severity, int] = dict.fromkeys(RANK, 0)
        self.by_rule: dict[tuple[str, Severity], OfRule] = {}
        self.by_file: dict[str, OfFile] = {}

    def add(self, report: Report) -> None:
        """Count a file in."""
        self.files += 1
        self.servers += len(report.servers)
        self.with_findings += bool(report.findings)
        self.ignored += report.ignored
        self.repeated += len(report.repeated)
        self.fixed += report.fixed
        self.unread += bool(report.unread)
        self.defects += bool(report.defect)
        self.failed += report.failed
        for one in report.findings:
            self.severities[one.severity] += 1
            self.fixable += one.fix is not None
        self.fixable += sum(one.fix is not None for one in report.repeated)
        if report.servers or report.findings:
            counted = Counter(one.severity for one in report.findings)
            self.by_file[report.file] = OfFile(len(report.servers), {name: counted[name] for name in RANK})
        for rule, number in Counter((one.code, one.severity) for one in report.findings).items():
            before = self.by_rule.get(rule, OfRule(0, 0))
            self.by_rule[rule] = OfRule(before.findings + number, before.files + 1)

    @property
    def rules(self) -> list[tuple[str, Severity, OfRule]]:
        """Every rule that found something: the worst severity first, then those that found most."""
        rows = [(code, severity, found) for (code, severity), found in self.by_rule.items()]
        return sorted(rows, key=lambda row: (RANK[row[1]], -row[2].findings, row[0]))

    @property
    def worst(self) -> list[tuple[str, OfFile]]:
        """Every file with a server or a finding: most errors first, then most warnings, then by name."""
        return sorted(self.by_file.items(), key=lambda row: ([-row[1].severities[name] for name in RANK], row[0]))

    @property
    def sentence(self) -> str:
        """The summary line."""
        read = _count(self.files, "file")
        if not self.servers and not any(self.severities.values()):
            return f"No TGI server found in {read}."
        counts = [
            _count(self.severities[name], what)
            for name, what in _WORDS.items()
            if self.severities[name]
        ]  # fmt: skip
        found = " and ".join(filter(None, [", ".join(counts[:-1]), *counts[-1:]])) if counts else "No findings"
        text = f"{found} in {_count(self.servers, 'TGI server')} of {read}."
        if self.ignored:
            text += f" {_count(self.ignored, 'finding')} ignored by comments."
        if self.repeated:
            text += f" {_count(self.repeated, 'repeated finding')} left out."
        if self.fixed:
            text += f" {self.fixed} mended."
        elif self.fixable:
            text += f" --fix mends {self.fixable} of them."
        return text


def report(document: Document, cases: Sequence[Case], findings: Sequence[Finding], beside: Mapping[str, str]) -> Report:
    """A file's report; `beside` has the texts of other files that findings may stand in, by name."""
    kept, ignored = split(findings, document)
    hidden = secrets(document, cases)
    servers = tuple(seen(case, hidden) for case in cases)
    return Report(
        document.file,
        tuple(_told(one, hidden) for one in kept),
        servers,
        excerpts(document, kept, beside, hidden),
        ignored,
    )


def _told(one: Finding, hidden: Hidden) -> Finding:
    """The finding without secrets and what a terminal would obey; a fix that would show a secret is left out."""
    fix = one.fix if one.fix and not any(hidden.spans(f"{one.fix.old} {one.fix.new}")) else None
    message, step, server = (printable(told(text, hidden)) for text in (one.message, one.next_step, one.server))
    return replace(one, message=message, next_step=step, server=server, fix=fix)


def seen(case: Case, hidden: Hidden = NOTHING) -> Seen:
    """A judged server, without the secrets in `hidden`."""
    view, server, prediction = case.view, case.server, case.prediction
    limits = prediction.limits if prediction else Limits()
    return Seen(
        told(server.name, hidden), server.form, server.place,
        without_secrets(server.image.text, hidden) if server.image else None,
        str(view.release) if view.release else None, told(view.image.note, hidden),
        without_secrets(view.model, hidden) if view.model else None,
        told(case.facts.source, hidden) if case.facts else None,
        case.gpu.name if case.gpu else None, _machine(case), case.visible, case.shards,
        prediction.outcome if prediction else None, prediction.missing_bytes if prediction else None,
        tuple(told(one, hidden) for one in case.assumed), tuple(told(one, hidden) for one in case.unjudged),
        limits.given(), tuple(_arguments(case, hidden)),
    )  # fmt: skip


def _machine(case: Case) -> str | None:
    machine = case.machine
    return f"{told(machine.name)} has {_count(machine.gpus, 'GPU')}" if machine else None


def _arguments(case: Case, hidden: Hidden) -> Iterator[Argument]:
    """Flags in force, those an argument overrides, words clap refuses, and TGI's other variables."""
    from tgi_advisor.validate.effective import known_variables

    view = case.view
    flags = {}
    for given in (*view.flags.values(), *view.hidden):
        flags[given.value] = True
        origin = given.by if given.by == "argument" else f"{given.value.origin} {given.name.text}"
        origin = "image" if given.by == "image" else origin
        loses = any(given is other for other in view.hidden)
        note = "an argument of the same name wins" if loses else told(given.wrong or "", hidden)
        text = (
            "***"
            if given.flag.secret or hides(given.name.text, given.value.text)
            else without_secrets(given.value.text, hidden)
        )
        if not given.value.known:
            note = note or "not known"
        shown = "" if given.value is given.name else text  # a switch has no value
        if given.flag.name == "port" and given.value.known and view.port not in (None, given.value.number):
            first = view.image.port_env if view.image.port_env in view.env else ""
            shown, origin, note = str(view.port), "image", f"{first or 'its entry point'} says so, before PORT"
        yield Argument(f"--{given.flag.name}", shown, origin, given.value.place, note)
    for slip in view.slips:
        yield Argument(
            without_secrets(slip.word.text, hidden), "", "argument", slip.word.place, "the launcher refuses it"
        )
    variables = known_variables(case.release)
    for name, value in view.env.items():
        if name in variables and value not in flags:
            text = "***" if value.known and hides(name, value.text) else without_secrets(value.text, hidden)
            note = "" if value.known else "not known"
            yield Argument(name, text, value.origin, value.place, note)


# ---- excerpts ----


def excerpts(
    document: Document, findings: Sequence[Finding], beside: Mapping[str, str], hidden: Hidden
) -> dict[tuple[str, int], str]:
    """The lines the findings stand on, every secret on them replaced by as many stars."""
    wanted = {(one.place.file, one.place.line) for one in findings}
    if not wanted:
        return {}
    texts = {document.file: document.text, **beside}
    lines = {name: texts[name].split("\n") for name in {file for file, _ in wanted} & texts.keys()}
    found = {}
    for file, number in sorted(wanted):
        if file in lines and 0 < number <= len(lines[file]):
            found[file, number] = without_secrets(lines[file][number - 1].rstrip("\r")[:LONGEST], hidden)
    return found


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
