"""`inspect`: what a running server says of itself, what it could have on its GPU, and what to change.

Nothing here is guessed: a change is named where what the server counted asks for it, or where its limits and what fits
on its GPU differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tgi_advisor import tabular
from tgi_advisor.choose.option import Option
from tgi_advisor.choose.words import wrapped
from tgi_advisor.gather.server import Health
from tgi_advisor.limits import Limits
from tgi_advisor.metrics import Load
from tgi_advisor.plan import Prediction
from tgi_advisor.spec.records import Spec
from tgi_advisor.tabular import Answer, Column, Table
from tgi_advisor.units import gib, thousands

FULL = 0.9
"""Share of the KV cache from which on it is called full."""
LABEL, VALUE = 26, 10
"""Columns of a name and of a figure."""


@dataclass(frozen=True)
class Could:
    """What a server of this model and release does on its GPU."""

    hardware: str
    """Number and name of the GPUs."""
    here: Prediction
    """With the limits it has."""
    best: Option
    """With the largest limits that fit."""


@dataclass(frozen=True)
class Running:
    """One server."""

    url: str
    """Its address."""
    model: str
    """What it serves, in its own words."""
    commit: str
    """The commit of the model; empty where it does not say."""
    release: str
    """TGI release it says it is."""
    health: Health
    """What `/health` says."""
    limits: Limits
    """Its limits as far as it says them."""
    admitted: int | None
    """Requests it lets in together (--max-concurrent-requests); None where it does not say."""
    load: Load
    """How full it runs and what became of its requests."""
    read: float
    """When that was read, in seconds of a clock that only goes forward."""
    spec: Spec | None = None
    """It as a spec; None where its GPU was not named."""
    could: Could | None = None
    """What its GPU allows; None where that was not named."""
    before: Load | None = None
    """The load of the reading before; None where there was none."""
    since: float | None = None
    """Seconds since then."""

    @property
    def budget(self) -> int | None:
        """Tokens of its KV cache: what it says, else what is predicted; None where neither is known."""
        predicted = self.could.here.limits.max_batch_total_tokens if self.could else None
        return self.limits.max_batch_total_tokens or predicted

    @property
    def used(self) -> float | None:
        """Share of its KV cache that the running batch may come to take; None where that is not known."""
        untold = self.load.running > 0 and self.load.held == 0  # a gauge that was not set yet
        return min(1.0, self.load.held / self.budget) if self.budget and not untold else None

    @property
    def rates(self) -> tuple[float, float] | None:
        """(requests answered, tokens made) in a second since the reading before; None where there was none."""
        if self.before is None or not self.since or self.load.requests < self.before.requests:
            return None
        return (
            (self.load.answered - self.before.answered) / self.since,
            (self.load.generated - self.before.generated) / self.since,
        )

    def after(self, before: Running) -> Running:
        """This reading with the one before it."""
        return replace(self, before=before.load, since=self.read - before.read)


@dataclass(frozen=True)
class Silent:
    """A server that did not say what it is."""

    url: str
    """Its address."""
    why: str
    """Why not."""


@dataclass(frozen=True, repr=False)
class Inspection(Answer):
    """What servers say of themselves."""

    servers: tuple[Running | Silent, ...]
    """In the order they were named."""

    @property
    def complete(self) -> bool:
        """Whether all of them answered and are well."""
        return all(isinstance(one, Running) and one.health in ("healthy", "untold") for one in self.servers)

    def table(self) -> Table:
        """One row for each server."""
        return Table(COLUMNS, tuple(map(_row, self.servers)))

    def text(self, width: int) -> str:
        """One server as a page, several as a table with what to change below."""
        if len(self.servers) == 1 and isinstance(self.servers[0], Running):
            return "\n".join(_page(self.servers[0], width))
        table = tabular.text(tabular.without(self.table(), set(PAGE_ONLY)), width, SPARE)
        lines = [table]
        for one in self.servers:
            told = (one.why,) if isinstance(one, Silent) else changes(one)
            if told:
                lines += ["", *wrapped(one.url, width)]
                lines += [line for text in told for line in wrapped(text, width, "  - ", "    ")]
        return "\n".join(lines)


COLUMNS = (
    Column("url", "SERVER", "text", "Its address."),
    Column("model", "MODEL", "text", "What it serves."),
    Column("commit", "COMMIT", "text", "The model's commit."),
    Column("release", "TGI", "text", "TGI release."),
    Column("health", "HEALTH", "text", "`healthy`, `unhealthy`, `silent` (no answer in time), `untold` (no /health)."),
    Column("max_input_tokens", "INPUT", "count", "Longest prompt."),
    Column("max_total_tokens", "CONTEXT", "count", "Longest prompt and answer together."),
    Column("max_batch_total_tokens", "BUDGET", "count", "Tokens of the KV cache: said until 2.2.0, else predicted."),
    Column("max_concurrent_requests", "ADMITS", "count", "Requests it lets in together."),
    Column("running", "RUNNING", "count", "Requests of the batch."),
    Column("queued", "WAITING", "count", "Requests that wait for it."),
    Column("kv_cache_used", "KV CACHE", "share", "Share of the budget that the batch may come to take."),
    Column("requests", "REQUESTS", "count", "Requests since it started."),
    Column("answered", "ANSWERED", "count", "Those that were answered."),
    Column("failed", "FAILED", "count", "Those that were not."),
    Column("failed_why", "WHY", "text", "TGI's reasons, with how often each."),
    Column("prompt_tokens", "IN", "count", "Tokens of a prompt, on average."),
    Column("answer_tokens", "OUT", "count", "Tokens of an answer, on average."),
    Column("queued_s", "QUEUED s", "figure", "Seconds a request waited, on average."),
    Column("request_s", "TOOK s", "figure", "Seconds a request took, on average."),
    Column("token_s", "TOKEN s", "figure", "Seconds a token took, on average."),
    Column("requests_per_s", "REQUESTS/s", "figure", "Requests answered in a second, between two readings."),
    Column("tokens_per_s", "TOKENS/s", "figure", "Tokens made in a second, between two readings."),
    Column("fits_max_total_tokens", "FITS", "count", "Largest context that fits on its GPU."),
    Column("outcome", "OUTCOME", "text", "What TGI does with its limits on that GPU."),
    Column("changes", "CHANGES", "text", "What to change."),
    Column("error", "ERROR", "text", "Why it did not say what it is."),
)
PAGE_ONLY = ("commit", "max_input_tokens", "requests", "answered", "request_s", "outcome", "changes",
             "failed_why", "error")  # fmt: skip
"""Columns that a table of several servers on a terminal leaves out."""
SPARE = ("queued_s", "prompt_tokens", "answer_tokens", "max_concurrent_requests", "failed", "max_batch_total_tokens",
         "requests_per_s", "model", "token_s", "tokens_per_s", "kv_cache_used", "release")  # fmt: skip
"""Columns that go first where the terminal is narrow."""


def _row(one: Running | Silent) -> tuple[Any, ...]:
    if isinstance(one, Silent):
        return (one.url, *(None for _ in COLUMNS[2:]), one.why)
    load, limits, could = one.load, one.limits, one.could
    requests, tokens = one.rates or (None, None)
    return (
        one.url, one.model, one.commit or None, one.release, one.health, limits.max_input_tokens,
        limits.max_total_tokens, one.budget, one.admitted, load.running, load.queued, one.used, load.requests,
        load.answered, sum(load.failed.values()), _failed(load) or None, _whole(load.prompt_tokens),
        _whole(load.answer_tokens),
        _short(load.waited), _short(load.took), _short(load.per_token), _short(requests), _short(tokens),
        could.best.limits.max_total_tokens if could else None, could.here.outcome if could else None,
        " ".join(changes(one)) or None, None,
    )  # fmt: skip


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _short(value: float | None) -> float | None:
    """Three digits that count."""
    return None if value is None else float(f"{value:.3g}")


def changes(one: Running) -> tuple[str, ...]:
    """What to change, the most pressing first; nothing where nothing asks for it."""
    return (*_unwell(one), *_refusing(one), *_waiting(one), *_fitting(one))


def _unwell(one: Running) -> list[str]:
    said = []
    if one.health == "unhealthy":
        said.append(
            "/health answers that it is unhealthy: its model server does not answer. Look at its log; restart it."
        )
    elif one.health == "silent":
        said.append(
            "/health did not answer in time: TGI answers it between two steps, so that a long prefill looks like a "
            "dead server. Give liveness probes more seconds, or prefills fewer tokens (--max-batch-prefill-tokens)."
        )
    return said


def _refusing(one: Running) -> list[str]:
    said, failed = [], one.load.failed
    came = max(one.load.requests, sum(failed.values()), 1)

    def share(reason: str) -> str:
        return f"{thousands(failed[reason])} of {thousands(came)} requests"

    if "overloaded" in failed:
        admits = "" if one.admitted is None else f" of {thousands(one.admitted)}"
        said.append(
            f"{share('overloaded')} were turned away with 429: more came at once than "
            f"--max-concurrent-requests{admits} lets in. Raise it if a longer queue is better than a "
            "refusal, or add a replica."
        )
    if "validation" in failed:
        best = one.could.best.limits if one.could and one.could.best.starts else None
        longer = ""
        if best and best.max_input_tokens and best.max_input_tokens > (one.limits.max_input_tokens or 0):
            longer = f" Prompts of {thousands(best.max_input_tokens)} tokens fit."
        said.append(
            f"{share('validation')} were refused as not valid: often prompts above max_input_tokens, or prompt and "
            f"answer above max_total_tokens.{longer}"
        )
    if "generation" in failed:
        said.append(f"{share('generation')} ended in an error of the model server, such as out of memory: see its log.")
    return said


def _waiting(one: Running) -> list[str]:
    if not one.load.queued:
        return []
    if one.used is None:
        return [
            f"{_requests(one.load.queued)} wait. Whether its KV cache is full is not known: "
            + (
                "it does not say how much is taken."
                if one.budget
                else "this release does not say how large that is; --gpu predicts it."
            )
        ]
    if one.used >= FULL:
        return [
            f"{_requests(one.load.queued)} wait because the KV cache is full. A replica, a larger GPU or more shards "
            "make room: `tgi-advisor compare` shows how much."
        ]
    return [
        f"{_requests(one.load.queued)} wait although {1 - one.used:.0%} of the KV cache is free: for the prefills "
        "before them (--max-batch-prefill-tokens), for --max-waiting-tokens, or at --max-batch-size."
    ]


def _fitting(one: Running) -> list[str]:
    if one.could is None:
        return []
    here, best, said = one.could.here, one.could.best, []
    observed = one.limits.max_batch_total_tokens
    if here.outcome != "starts":
        return [
            f"TGI {one.release} with these limits should not have started on {one.could.hardware}: "
            f"{(here.reason or '').rstrip('.')}. Is that its GPU, their number (--count), its model and "
            "how its weights are held (--set model.quantize=…)?"
        ]
    band = here.uncertainty
    if observed and band and not band.budget_low <= observed <= band.budget_high:
        predicted = thousands(here.limits.max_batch_total_tokens or 0)
        said.append(
            f"It has {thousands(observed)} tokens of KV cache, where {predicted} ({thousands(band.budget_low)} to "
            f"{thousands(band.budget_high)}) are expected: something else takes memory on its GPU, it was started with "
            "arguments that it does not tell (--set tgi.flags.NAME=…, limits.max_batch_prefill_tokens=…), or that is "
            "another GPU."
        )
    if here.at_risk:
        said.append(f"It is {here.risk}: {here.under_load.why if here.under_load else ''}".rstrip(": "))
    has, fits = one.limits.max_total_tokens, best.total
    if has is not None and fits > has:
        said.append(
            f"max_total_tokens may be {thousands(fits)} instead of {thousands(has)}: --max-input-tokens "
            f"{best.limits.max_input_tokens} --max-total-tokens {fits} --max-batch-prefill-tokens "
            f"{best.limits.max_batch_prefill_tokens}."
        )
    return said


def _requests(count: int) -> str:
    return f"{thousands(count)} request{'s' if count != 1 else ''}"


def _page(one: Running, width: int) -> list[str]:
    """One server for a terminal."""
    load, limits = one.load, one.limits
    commit = f" ({one.commit[:8]})" if one.commit else ""
    health = "its health is not told" if one.health == "untold" else one.health
    lines = wrapped(f"{one.url}: {one.model}{commit} with TGI {one.release}, {health}", width)
    told = limits.max_batch_total_tokens is not None
    rows: list[tuple[str, str, str]] = [
        ("max_input_tokens", _count(limits.max_input_tokens), ""),
        ("max_total_tokens", _count(limits.max_total_tokens), ""),
        ("max_batch_total_tokens", _count(one.budget) if one.budget else "?", _budget(one, told=told)),
        ("max_concurrent_requests", _count(one.admitted), ""),
    ]
    lines += ["", *_rows(rows, width), "", "Now"]
    rows = [("running", thousands(load.running), "requests of the batch"), ("waiting", thousands(load.queued), "")]
    if one.used is not None:
        rows.append(("KV cache", f"{one.used:.0%}", f"the batch may come to take {thousands(load.held)} tokens"))
    elif load.held:
        rows.append(("KV cache", thousands(load.held), "tokens that the batch may come to take"))
    if one.rates:
        rows.append(("requests", f"{one.rates[0]:.3g}/s", f"answered, in the last {one.since:.0f} s"))
        rows.append(("tokens", f"{one.rates[1]:.3g}/s", ""))
    lines += [*_rows(rows, width), "", "Since it started", *_rows(_history(load), width)]
    if one.could:
        lines += ["", f"On {one.could.hardware}", *_rows(_possible(one.could), width)]
    said = changes(one)
    if said:
        lines += ["", "What to change"]
        lines += [line for text in said for line in wrapped(text, width, "  - ", "    ")]
    if one.could is None:
        lines += ["", *wrapped("What it could have: name its GPU with --gpu, and --count; TGI does not tell.", width)]
    return lines


def _budget(one: Running, *, told: bool) -> str:
    """Where the tokens of the KV cache are known from."""
    band = one.could.here.uncertainty if one.could else None
    between = f"{thousands(band.budget_low)} to {thousands(band.budget_high)}" if band else ""
    if told:
        predicted = one.could.here.limits.max_batch_total_tokens if one.could else None
        return f"predicted {thousands(predicted)}" + (f" ({between})" if between else "") if predicted else ""
    if one.budget is None:
        return "from 2.3.0 on TGI tells it in its log only; --gpu predicts it"
    return f"predicted: {between}; TGI tells it in its log only" if between else "predicted"


def _history(load: Load) -> list[tuple[str, str, str]]:
    """What became of its requests, and how they fared on average."""
    failed = _failed(load)
    ended = f"{thousands(load.answered)} answered" + (f"; failed: {failed}" if failed else "")
    rows = [("requests", thousands(load.requests), ended)]
    for name, value, about in (
        ("prompt", load.prompt_tokens, "tokens on average"),
        ("answer", load.answer_tokens, "tokens on average"),
    ):
        if value is not None:
            rows.append((name, f"{value:,.0f}", about))
    for name, value, about in (
        ("waited", load.waited, "for the batch, on average"),
        ("took", load.took, "a request, on average"),
        ("token", load.per_token, "on average"),
    ):
        if value is not None:
            rows.append((name, _seconds(value), about))
    return rows


def _failed(load: Load) -> str:
    """Why requests failed, with how often."""
    return ", ".join(f"{thousands(count)} {reason}" for reason, count in load.failed.items())


def _seconds(value: float) -> str:
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:,.3g} s"


def _possible(could: Could) -> list[tuple[str, str, str]]:
    """What its GPU allows."""
    here, best = could.here, could.best
    rows = []
    if here.outcome == "starts" and here.concurrency:
        risk = f", {here.risk}" if here.risk else ""
        rows.append(("full-length requests", thousands(here.concurrency), f"at once with the limits it has{risk}"))
        rows.append(("headroom", gib(max(0, here.headroom_bytes)), "could vanish with these limits still holding"))
    if best.starts:
        together = f"; {thousands(best.concurrency)} of them at once" if best.concurrency else ""
        rows.append(("fits max_total_tokens", thousands(best.total), f"the largest{together}"))
    else:
        rows.append(("fits", "nothing", best.why))
    return rows


def _count(value: int | None) -> str:
    return "?" if value is None else thousands(value)


def _rows(rows: Sequence[tuple[str, str, str]], width: int) -> list[str]:
    """Names, figures and what they are."""
    lines = []
    for name, value, about in rows:
        first = f"  {name:<{LABEL}}{value:>{VALUE}}"
        lines += wrapped(about, width, f"{first}  ", " " * (LABEL + VALUE + 4)) if about else [first]
    return lines
