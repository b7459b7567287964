"""The running server held to its prediction: one real generation, `/info`, and the budget TGI inferred."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tgi_advisor.deadline import Deadline, keep
from tgi_advisor.logs import StartUp
from tgi_advisor.plan import Plan

GENERATION_S = 120.0
"""Seconds the first generation may take."""
INFO_S = 10.0
"""Seconds `/info` may take."""
HEALTH_S = 2.0
"""Seconds `/health` may take."""
PROMPT = "The capital of France is"
NEW_TOKENS = 4
ANSWER_LIMIT = 1 << 20
"""The most bytes of an answer that are read."""
MOST_TOKENS = 1 << 53
"""No limit of TGI is larger; a larger number is nonsense."""

Ask = Callable[[str, "dict[str, Any] | None", float], "tuple[int, Any]"]
"""`ask(path, body, seconds)`: GET without a body, POST with one; the status and the decoded answer, within seconds."""


@dataclass(frozen=True)
class Compared:
    """One figure as predicted and as observed."""

    name: str
    """Its name in TGI."""
    predicted: int | None
    """What the plan says."""
    observed: int | None
    """What the server says; None when it does not."""

    @property
    def difference(self) -> float | None:
        """(predicted - observed) / observed."""
        return None if self.predicted is None or not self.observed else (self.predicted - self.observed) / self.observed


@dataclass(frozen=True)
class Verified:
    """What the server did and said."""

    text: str | None
    """What it generated; None when it did not."""
    why_not: str | None
    """Why there is no text."""
    figures: tuple[Compared, ...]
    """Limits and budget, predicted and observed."""
    version: str | None
    """Release the server says it is."""


def verify(plan: Plan, seen: StartUp, ask: Ask, left: Callable[[float], float]) -> Verified:
    """Ask for one generation and for `/info`, and compare; `left(seconds)` is how long an answer may take at most."""
    text, why_not = _generate(ask, left(GENERATION_S))
    if text is None:
        return Verified(None, why_not, (), None)
    status, info = ask("/info", None, left(INFO_S))
    info = info if status == 200 and isinstance(info, dict) else {}
    limits = plan.prediction.limits
    figures = (
        Compared("max_input_tokens", limits.max_input_tokens, _int(info, "max_input_tokens", "max_input_length")),
        Compared("max_total_tokens", limits.max_total_tokens, _int(info, "max_total_tokens")),
        # Gone from /info in 2.3.0; the log has it in every release.
        Compared("max_batch_total_tokens", limits.max_batch_total_tokens,
                 seen.budget or _int(info, "max_batch_total_tokens")),
    )  # fmt: skip
    version = info.get("version")
    return Verified(text, why_not, figures, version if isinstance(version, str) else None)


def _generate(ask: Ask, seconds: float) -> tuple[str | None, str | None]:
    status, answer = ask("/generate", {"inputs": PROMPT, "parameters": {"max_new_tokens": NEW_TOKENS}}, seconds)
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if status == 200 and isinstance(answer, dict) and isinstance(answer.get("generated_text"), str):
        return answer["generated_text"], None
    said = answer.get("error") if isinstance(answer, dict) else answer
    return None, f"/generate answered {status}: {str(said)[:300]}" if status else f"/generate: {said}"


def _int(info: Mapping[str, Any], *names: str) -> int | None:
    numbers = (info.get(name) for name in names)
    return next((n for n in numbers if type(n) is int and 0 <= n < MOST_TOKENS), None)


def http(host: str, port: int, dial: Callable[[], socket.socket] | None = None) -> Ask:
    """Asks a server over HTTP, without proxies; status 0 when it does not answer. `dial` connects in another way."""

    def ask(path: str, body: dict[str, Any] | None, seconds: float) -> tuple[int, Any]:
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection(host.strip("[]"), port)
        try:
            if dial is not None:
                connection.sock = dial()
            keep(connection, Deadline(seconds))
            connection.request(
                "POST" if body else "GET", path, json.dumps(body) if body else None,
                {"Content-Type": "application/json"},
            )  # fmt: skip
            answer = connection.getresponse()
            text = answer.read(ANSWER_LIMIT).decode("utf-8", "replace")
        except (OSError, HTTPException, ValueError) as error:
            return 0, str(error) or type(error).__name__
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except (ValueError, RecursionError):
            return answer.status, text

    return ask


def healthy(ask: Ask, seconds: float = HEALTH_S) -> bool:
    """Whether a server says that it serves."""
    return ask("/health", None, seconds)[0] == 200
