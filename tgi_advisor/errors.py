"""What can go wrong, what to do about it, and the exit code it ends with.

Every error a user or the network can cause is an `AdvisorError`. It carries one sentence of what
happened, a hint that says what to do next and, when several independent things are wrong at once,
all of them as `Problem`s. Whatever they quote of files, servers and names is made printable here, once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from tgi_advisor.bounds import MAX_MESSAGE, MAX_WORD
from tgi_advisor.safe import printable


class Exit(IntEnum):
    """The exit codes of the command line. They are documented in the README and never renumbered."""

    STARTS = 0
    FINDINGS = 1
    USAGE = 2
    SPEC = 3
    FACTS = 4
    OUT_OF_MEMORY = 5
    REFUSED = 6
    ENGINE = 7
    PREFLIGHT = 8
    ACCESS = 9
    TIMEOUT = 10
    FAILED = 11
    MISSING = 12
    LESS = 13
    BUG = 70
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for `--help` and the README."""
        return _MEANING[self]


_MEANING = {
    Exit.STARTS: "TGI starts with these limits (or the command simply succeeded)",
    Exit.FINDINGS: "`validate` found something TGI will refuse or that cannot work (with --strict also what is risky)",
    Exit.USAGE: "the command line is wrong",
    Exit.SPEC: "the deployment spec is wrong; every problem is listed with file:line:column",
    Exit.FACTS: "a fact is missing: model, GPU or TGI release unknown, or the Hub did not answer",
    Exit.OUT_OF_MEMORY: "it does not fit: TGI would run out of memory, or the search found no limits",
    Exit.REFUSED: "TGI would refuse to start with these arguments",
    Exit.ENGINE: "the Docker Engine or the cluster could not be reached, or could not do what was asked",
    Exit.PREFLIGHT: "launch found something in the way before it started anything; all of it is listed",
    Exit.ACCESS: "no access: the Hub does not give out the model to the server, or the registry the image",
    Exit.TIMEOUT: "the server was not ready within --timeout",
    Exit.FAILED: "the server ended while it came up; the cause is named",
    Exit.MISSING: "a Python package that this command needs is not installed; the message names it",
    Exit.LESS: "`upgrade`, `migrate`: the new one serves less: shorter requests, fewer at once, or at risk under load",
    Exit.BUG: "a defect of tgi-advisor itself; please report it",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
}


class Place(NamedTuple):
    """Where in a text something stands, counted from 1 as editors do; line 0 when it is no text with lines."""

    file: str
    """Name of the file as given, `<stdin>` or `command line`."""
    line: int
    """Line, the first is 1."""
    column: int
    """Column, the first is 1."""

    def __str__(self) -> str:
        file = printable(self.file)
        return f"{file}:{self.line}:{self.column}" if self.line else file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with its place where it has one."""

    message: str
    """What is wrong."""
    hint: str | None = None
    """What to do about it."""
    place: Place | None = None
    """Where it stands."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _told(self.message))
        object.__setattr__(self, "hint", _told(self.hint) if self.hint else self.hint)

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return "\n    ".join([text, *self.hint.split("\n")]) if self.hint else text


class AdvisorError(Exception):
    """Anything a user, a file or the network can cause: what happened, and what to do next."""

    exit_code = Exit.BUG
    server: str | None = None
    """Which of several servers it is about."""

    def __init__(self, message: str, hint: str | None = None, problems: Iterable[Problem] = ()) -> None:
        super().__init__(_told(message))
        self.message = _told(message)
        self.hint = _told(hint) if hint else hint
        self.problems = tuple(problems)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __str__(self) -> str:
        lines = [self.message, *(str(problem) for problem in self.problems)]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


def _told(text: str) -> str:
    """Text as errors tell it: in lines, and whatever of others stands in it moves no cursor."""
    return printable(text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 3]}...", keep="\n")


class UsageError(AdvisorError):
    """The command line asks for something that makes no sense."""

    exit_code = Exit.USAGE


class SpecError(AdvisorError):
    """The deployment spec cannot be read or contradicts itself."""

    exit_code = Exit.SPEC
    specs: Sequence[object] = ()
    """The specs as far as they could be read: what is well-formed in them may be wrong in other ways."""


class FactsError(AdvisorError):
    """Something we must know is not known: a model, a GPU, a release, an answer of the Hub."""

    exit_code = Exit.FACTS


class EngineError(AdvisorError):
    """The Docker Engine or a cluster could not be reached or refused."""

    exit_code = Exit.ENGINE


class PreflightError(AdvisorError):
    """Something stands in the way of a launch; nothing was started."""

    exit_code = Exit.PREFLIGHT


class AccessError(AdvisorError):
    """A registry does not give out the image."""

    exit_code = Exit.ACCESS


class MissingError(AdvisorError):
    """A Python package is not there, as in an environment for `validate` alone."""

    exit_code = Exit.MISSING


def missing(package: str, what_for: str = "do this") -> tuple[str, str]:
    """(what to say, what to do) where a package that only some commands need is not installed."""
    return (
        f"The Python package {package} is not installed, which tgi-advisor needs to {what_for}.",
        f"pip install {package}, or everything at once: pip install tgi-advisor",
    )


def not_installed(error: ModuleNotFoundError) -> MissingError | None:
    """What to say of a module that is not there; None where it is one of ours."""
    name = (error.name or "tgi_advisor").partition(".")[0]
    return None if name == "tgi_advisor" else MissingError(*missing({"yaml": "pyyaml"}.get(name, name)))


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like `word`, best first; case and punctuation do not count against one.

    None for a word longer than any name is.
    """
    if len(word) > MAX_WORD:
        return []
    from difflib import get_close_matches  # imported only when something is misspelt

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    by_plain: dict[str, str] = {}
    for name in known:
        by_plain.setdefault(plain(name), name)
    wanted = plain(word)
    hits = get_close_matches(wanted, by_plain, n=count, cutoff=0.6)
    if wanted:
        hits += [p for p in by_plain if wanted in p and p not in hits]
    return [by_plain[p] for p in hits[:count]]


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """`did you mean 'a', 'b' or 'c'?`, or None when nothing is near."""
    names = nearest(word, known)
    return f"did you mean {listed(names)}?" if names else None


def listed(names: Sequence[str], joiner: str = "or") -> str:
    """`'a', 'b' or 'c'`."""
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {joiner} {quoted[-1]}"
