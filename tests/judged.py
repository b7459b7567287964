"""A deployment file in a string, judged as `validate` does, with the shipped models for the only facts."""

from __future__ import annotations

from collections.abc import Sequence

from tgi_advisor.gather import snapshot
from tgi_advisor.validate.finding import Finding
from tgi_advisor.validate.judge import judge
from tgi_advisor.validate.read import read


def findings(text: str, file: str) -> Sequence[Finding]:
    """Everything that is found in a file of this name."""
    return judge(read(text, file), lambda model, _: snapshot.find(model))


def errors(text: str, file: str) -> list[str]:
    """The codes of the errors in it, in order."""
    return [one.code for one in findings(text, file) if one.severity == "error"]
