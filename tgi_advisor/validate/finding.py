"""What a rule has to say about a place of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tgi_advisor.errors import Place

Severity = Literal["error", "warning", "info"]
Once = Literal["", "file", "run", "kind"]
"""Where it is enough to say something once: nowhere, in a file, in a run; of a `kind` one a run, whatever each says."""
RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
"""Severities, the worst first."""
PAGE = "docs/rules.md"
"""Where the rules are explained, in the project's repository."""


@dataclass(frozen=True, slots=True)
class Fix:
    """A replacement that cannot change what the file means."""

    place: Place
    """Where the text stands."""
    old: str
    """The text, exactly; where the file says something else the fix does not apply."""
    new: str
    """What to write instead."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule at one place. Never holds a secret."""

    code: str
    """Stable code of the rule: TGI1xx arguments, 2xx memory, 3xx container and host, 4xx security, 5xx portability."""
    severity: Severity
    """`error`: will not start or cannot work as written; `warning`: risky, or not as meant; `info`."""
    place: Place
    """Where it begins."""
    length: int
    """Characters to mark on that line; 0 when that is not known."""
    message: str
    """The cause, one sentence."""
    next_step: str
    """What to do about it, with the number that would work; may be empty for an `info`."""
    server: str = ""
    """Name of the server it is about; empty for the file itself and for a server without a name."""
    fix: Fix | None = None
    """A change that cannot alter the meaning; None when a person has to decide."""
    once: Once = ""
    """Where it is enough to say it once: it holds alike for every server it is said of."""

    @property
    def same(self) -> tuple[str, str]:
        """What two findings share that say the same of two places."""
        return self.code, "" if self.once == "kind" else self.message

    @property
    def url(self) -> str:
        """Where the rule is explained."""
        return f"{PAGE}#{self.code.lower()}"

    @property
    def order(self) -> tuple[Place, int, str]:
        """What findings are sorted by: where they stand, then the worst first."""
        return self.place, RANK[self.severity], self.code
