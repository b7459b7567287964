"""One launch: preflight, start, watch, verify, remember; and again with smaller limits where memory was short.

Whatever happens, nothing that this launch made is left behind unless it serves or `keep` says so: everything it
makes carries the launch's own label, and the end removes what carries it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from tgi_advisor import logs
from tgi_advisor.errors import AdvisorError, EngineError, PreflightError
from tgi_advisor.launch import failures, history, marks, verify
from tgi_advisor.launch.failures import Failure
from tgi_advisor.launch.follow import Follower
from tgi_advisor.launch.learn import learnt, smaller_prefill, with_less_prefill
from tgi_advisor.launch.place import LostPlaceError, Place, Server
from tgi_advisor.launch.preflight import Checked, Host, refuse
from tgi_advisor.launch.records import Event, Kind, Launched, LaunchError, Options, Solve, Tell
from tgi_advisor.launch.signals import terminated_as_interrupted, tidied, uninterrupted
from tgi_advisor.plan import Container, Plan
from tgi_advisor.safe import masked
from tgi_advisor.units import human


def launch(
    plan: Plan, place: Place, options: Options, host: Host, tell: Tell, solve: Solve | None = None,
    launch_id: str | None = None,
) -> Launched:  # fmt: skip
    """Start a plan that is predicted to start; raises the kinds of `tgi_advisor.errors`.

    `solve` plans again after running out of memory at warm-up; without it there is one attempt. Servers of one
    command share a `launch_id`, the value of the label on what is made.
    """
    return _Launch(plan, place, options, host, tell, solve, launch_id or marks.new_id()).run()


class _Launch:
    """The state of one launch."""

    def __init__(
        self, plan: Plan, place: Place, options: Options, host: Host, tell: Tell, solve: Solve | None, launch_id: str
    ) -> None:
        self.plan, self.place, self.options, self.host, self.solve = plan, place, options, host, solve
        self.asked = plan.spec
        self.id = launch_id
        self.began = time.monotonic()
        self.attempts = 0
        self.hidden: tuple[str, ...] = ()
        self._tell = tell

    def run(self) -> Launched:
        try:
            with terminated_as_interrupted(), tidied(self._tidy_up):
                return self._attempts()
        except AdvisorError as error:
            raise self._without_secrets(error) from None

    # -- telling

    def tell(self, kind: Kind, text: str, **data: Any) -> None:
        """Pass on an event, with every secret blotted out."""
        event = Event(kind, time.monotonic() - self.began, self.blot(text), data)
        self._tell(event)

    def blot(self, text: str) -> str:
        """The text without the caller's secrets; nor what looks like one, for a cluster has them from elsewhere."""
        for secret in self.hidden:
            text = text.replace(secret, "***")
        return text if self.place.kind == "docker" else masked(text)

    def _without_secrets(self, error: AdvisorError) -> AdvisorError:
        """The same error; its texts name no secret."""
        error.message = self.blot(error.message)
        error.args = (error.message,)
        error.hint = error.hint and self.blot(error.hint)
        error.problems = tuple(
            replace(p, message=self.blot(p.message), hint=p.hint and self.blot(p.hint)) for p in error.problems
        )
        return error

    # -- the course of things

    def _attempts(self) -> Launched:
        """Attempts until one serves, or nothing is left to try."""
        while True:
            self.attempts += 1
            self.container = self._container()
            given = marks.secrets_of(self.container, self.host.environ)
            self.hidden = tuple(sorted((v for v in given.values() if len(v) > 3), key=len, reverse=True))
            try:
                return self._attempt(given)
            except LaunchError as error:
                following = self._again(error)
                if following is None:
                    raise
                for _ in self.place.undo(self.id, self.asked.container.name, last=False):
                    pass
                self.plan = following

    def _container(self) -> Container:
        if self.plan.container is None:
            raise PreflightError("the plan does not start, so there is nothing to launch")
        return self.plan.container

    def _attempt(self, given: Mapping[str, str]) -> Launched:
        container = self.container
        checked = self._preflight()
        if checked.pull:
            self.place.prepare(container.image, self.tell)
        if checked.reuses:
            return self._reuse(checked)
        if checked.replaces:
            self._clear(checked.replaces)
        with uninterrupted():
            made = self.place.start(self.plan, checked, self.options, given, self.id)
        with closing(made):
            self.tell(
                "start", made.begins(container.image), id=made.id, attempt=self.attempts,
            )  # fmt: skip
            started = time.monotonic()
            if self.options.detach:
                return Launched(
                    self.plan, made.id, made.url, time.monotonic() - self.began, attempts=self.attempts,
                    follow=made.follow_command, stop=made.stop_command, reach=made.reach_command,
                )  # fmt: skip
            return self._until_it_serves(made, started)

    def _preflight(self) -> Checked:
        checked = self.place.check(self.plan, self.options, self.host, again=self.attempts > 1)
        for finding in checked.findings:
            if not finding.blocks:
                self.tell("finding", finding.message, hint=finding.hint)
        refuse(checked.findings)
        return checked

    def _clear(self, replaced: str) -> None:
        if told := self.place.clears(self.container.name):
            self.tell("note", told)
            self.place.clear(replaced)

    def _reuse(self, checked: Checked) -> Launched:
        kept, ran = self.place.existing(self.plan, checked)
        with closing(kept):
            self.tell(
                "note",
                f"{self.container.name!r} runs the same plan already" if ran else
                f"starting the container {self.container.name!r} that runs the same plan",
            )  # fmt: skip
            launched = self._until_it_serves(kept, time.monotonic(), own=False)
            return replace(launched, reused=True)

    # -- watching

    def _until_it_serves(self, server: Server, started: float, own: bool = True) -> Launched:
        """Follow the start-up to its end, good or bad."""
        follower = Follower(server, self.plan, self.options, self.tell, self.blot, self.began)
        failure = follower.follow(server.token_given)
        seconds = time.monotonic() - started
        seen = logs.start_up(follower.progress.kept.text())
        if failure:
            if failure.cause not in failures.OF_THE_PLACE:
                self._remember(failure.cause, seen, seconds)
            raise LaunchError(failure, self._left(server))
        self.tell(
            "ready", f"ready at {server.url} after {seconds:.1f} s", url=server.url, ready_seconds=round(seconds, 1)
        )
        checked = verify.verify(self.plan, seen, follower.ask, follower.left)
        if checked.text is None:
            raise LaunchError(follower.mute(checked.why_not or ""), self._left(server))
        if own and (failed := server.served(self.options)):
            self.tell("note", failed)
        if own:
            self._remember("starts", seen, seconds)
        figures = {c.name: {"predicted": c.predicted, "observed": c.observed} for c in checked.figures}
        self.tell("verified", "one generation succeeded", figures=figures, version=checked.version)
        total = time.monotonic() - self.began
        return Launched(
            self.plan, server.id, server.url, total, verified=checked, attempts=self.attempts,
            stop=server.stop_command, reach=server.reach_command,
        )  # fmt: skip

    def _remember(self, outcome: str, seen: logs.StartUp, seconds: float) -> None:
        """A row in the history; one that cannot be written is said and does not end the launch."""
        try:
            history.add(history.measured(self.plan, outcome, seen, seconds, self.place.kind))
        except AdvisorError as error:
            self.tell("note", str(error))

    def _left(self, server: Server) -> str | None:
        if not self.options.keep:
            return None
        return f"{server.stays}, as --keep asks: `{server.log_command}`, `{server.stop_command}` removes it."

    # -- once more

    def _smaller(self, failure: Failure) -> Plan | None:
        """A plan with what running out of memory at warm-up taught; None when there is none, or nothing was learnt."""
        if failure.cause != "out_of_memory_at_warmup" or self.solve is None:
            return None
        failed = self.plan.prediction.limits
        roomier = learnt(self.asked, self.plan, failure, self.attempts)
        following = self.solve(roomier)
        if following.prediction.outcome != "starts" or not smaller_prefill(following, failed):
            following = self.solve(with_less_prefill(roomier, failed, self.attempts))
        after = following.prediction
        if after.outcome != "starts" or following.container is None or after.limits.given() == failed.given():
            return None
        return following

    def _again(self, error: LaunchError) -> Plan | None:
        """The plan to try next. None when there is none; the error then says what smaller limits could be tried."""
        following = self._smaller(error.failure)
        if following is None:
            if error.failure.cause == "out_of_memory_at_warmup" and self.solve is not None:
                error.hint = "No smaller limits hold what the spec asks: lower its floors, or use more or larger GPUs."
            return None
        before, after = self.plan.prediction.limits.given(), following.prediction.limits.given()
        room = human(following.spec.hardware.headroom or 0)
        if self.attempts > self.options.retries:
            smaller = ", ".join(f"{name} {value}" for name, value in after.items() if value != before.get(name))
            error.hint = f"With {room} of headroom the plan would be: {smaller}."
            return None
        self.tell(
            "retry", f"out of memory at warm-up; planned again with {room} of headroom",
            before=before, after=after, attempt=self.attempts,
        )  # fmt: skip
        return following

    # -- leaving nothing

    def _tidy_up(self, error: BaseException) -> None:
        """Remove what this launch made; where the engine is gone, say how to find it later."""
        if self.options.keep:
            return
        lost = isinstance(error, LostPlaceError)
        label = f"{marks.LAUNCH}={self.id}"
        still = f"it has the label {label}, and `{self.place.status_command}` lists it"
        told = f"what this launch started and still runs was left alone: {still}" if lost else ""
        try:
            for done in self.place.undo(self.id, self.asked.container.name, ended=lost):
                self._note(done)
        except EngineError as also:
            told = f"{also.message}; what this launch started is left: {still}"
        if told:
            self._note(told, label=label)

    def _note(self, text: str, **data: Any) -> None:
        """Tell it if somebody can still be told: a terminal that is gone must not stop the tidying up."""
        with suppress(AdvisorError):
            self.tell("note", text, **data)


__all__ = [
    "Event", "Kind", "LaunchError", "Launched", "Options", "Solve", "Tell", "launch", "learnt", "with_less_prefill",
]  # fmt: skip
