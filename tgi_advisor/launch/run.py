"""One launch: preflight, start, watch, verify, remember; and again with smaller limits where memory was short.

Whatever happens, nothing that this launch made is left behind unless it serves or `keep` says so: everything it
makes carries the launch's own label, and the end removes what carries it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tgi_advisor import logs
from tgi_advisor.errors import AdvisorError, EngineError, PreflightError
from tgi_advisor.launch import history, ours, preflight, request, verify
from tgi_advisor.launch.engine import Engine, LostEngineError, said
from tgi_advisor.launch.failures import Failure
from tgi_advisor.launch.follow import Follower
from tgi_advisor.launch.learn import learnt, smaller_prefill, with_less_prefill
from tgi_advisor.launch.preflight import Checked, Finding, Host
from tgi_advisor.launch.records import Event, Kind, Launched, LaunchError, Options, Solve, Tell
from tgi_advisor.launch.signals import terminated_as_interrupted, tidied, uninterrupted
from tgi_advisor.plan import Container, Plan
from tgi_advisor.units import human


def launch(
    plan: Plan, engine: Engine, options: Options, host: Host, tell: Tell, solve: Solve | None = None,
    launch_id: str | None = None,
) -> Launched:  # fmt: skip
    """Start a plan that is predicted to start; raises the kinds of `tgi_advisor.errors`.

    `solve` plans again after running out of memory at warm-up; without it there is one attempt. Servers of one
    command share a `launch_id`, the value of the label on what is made.
    """
    return _Launch(plan, engine, options, host, tell, solve, launch_id or new_id()).run()


def new_id() -> str:
    """An id no other launch has."""
    import secrets

    return secrets.token_hex(8)


def body_of(plan: Plan, options: Options, launch_id: str = "") -> dict[str, Any]:
    """The request this launch sends, without secrets."""
    assert plan.container is not None
    restart = options.restart if options.detach else "no"
    return request.request(plan, plan.container, launch_id, restart=restart, ulimits=options.ulimits)


def refuse(findings: Iterable[Finding]) -> None:
    """PreflightError when something blocks."""
    blocking = [finding.problem for finding in findings if finding.blocks]
    if blocking:
        many = f"{len(blocking)} things stand" if len(blocking) > 1 else "something stands"
        raise PreflightError(f"{many} in the way of this launch; nothing was started", None, blocking)


def pull(image: str, engine: Engine, tell: Callable[..., None]) -> None:
    """Fetch an image; `tell` takes a kind, a text and data of an event."""
    tell("pull", f"pulling {image}")

    def on(message: Mapping[str, Any]) -> None:
        detail = message.get("progressDetail") or {}
        tell(
            "pull", str(message.get("status", "")),
            layer=message.get("id"), current=detail.get("current"), total=detail.get("total"),
        )  # fmt: skip

    preflight.pull(image, engine, on)


class _Launch:
    """The state of one launch."""

    def __init__(
        self, plan: Plan, engine: Engine, options: Options, host: Host, tell: Tell, solve: Solve | None, launch_id: str
    ) -> None:
        self.plan, self.engine, self.options, self.host, self.solve = plan, engine, options, host, solve
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
        for secret in self.hidden:
            text = text.replace(secret, "***")
        return text

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
            given = request.secrets(self.container, self.host.environ)
            self.hidden = tuple(sorted((v for v in given.values() if len(v) > 3), key=len, reverse=True))
            try:
                return self._attempt(given)
            except LaunchError as error:
                following = self._again(error)
                if following is None:
                    raise
                for _ in self._remove_ours():
                    pass
                self.plan = following

    def _container(self) -> Container:
        if self.plan.container is None:
            raise PreflightError("the plan does not start, so there is nothing to launch")
        return self.plan.container

    def _attempt(self, given: Mapping[str, str]) -> Launched:
        container = self.container
        body = body_of(self.plan, self.options, self.id)
        checked = self._preflight(body)
        if checked.pull:
            pull(container.image, self.engine, self.tell)
        if checked.reuses:
            return self._reuse(checked.reuses)
        if checked.replaces:
            self.tell("note", f"removing the container that had the name {container.name!r}")
            ours.stop(self.engine, checked.replaces)
        with uninterrupted():
            made = self._create(request.with_secrets(body, given))
            self._start(made)
        self.tell("start", f"container {container.name} started from {container.image}", id=made, attempt=self.attempts)
        started = time.monotonic()
        if self.options.detach:
            return Launched(self.plan, made, self._url(), time.monotonic() - self.began, attempts=self.attempts)
        return self._until_it_serves(made, started, bool(given))

    def _preflight(self, body: Mapping[str, Any]) -> Checked:
        again = self.attempts > 1
        checked = preflight.check(
            self.plan, self.container, body, self.engine, self.host,
            replace=self.options.replace and not again, reuse=self.options.reuse and not again,
        )  # fmt: skip
        for finding in checked.findings:
            if not finding.blocks:
                self.tell("finding", finding.message, hint=finding.hint)
        refuse(checked.findings)
        return checked

    def _reuse(self, container: str) -> Launched:
        found = self.engine.inspect(container) or {}
        state = found.get("State", {})
        if not state.get("Running"):
            self.tell("note", f"starting the container {self.container.name!r} that runs the same plan")
            self._start(container)
        else:
            self.tell("note", f"{self.container.name!r} runs the same plan already")
        launched = self._until_it_serves(container, time.monotonic(), token_given=True, own=False)
        return replace(launched, reused=True)

    def _create(self, body: dict[str, Any]) -> str:
        from docker.errors import APIError

        name = self.container.name
        with self.engine.asked(f"create container {name}"):
            try:
                made: str = self.engine.client.create_container_from_config(body, name=name)["Id"]
            except APIError as error:
                if error.status_code == 409:
                    raise PreflightError(
                        f"a container named {name!r} appeared while this launch was preparing its own: {said(error)}",
                        "Another launch may be at work; `tgi-advisor status` shows it.",
                    ) from None
                raise
        return made

    def _start(self, container: str) -> None:
        from docker.errors import APIError

        with self.engine.asked(f"start container {self.container.name}"):
            try:
                self.engine.client.start(container)
            except APIError as error:
                raise self._start_refusal(said(error)) from None

    def _start_refusal(self, words: str) -> AdvisorError:
        """Why the engine would not start a container it had created."""
        if "port is already allocated" in words or "address already in use" in words:
            return PreflightError(
                f"port {self.container.port} was taken while this launch was preparing: {words}",
                "Stop what has it, or choose another container.port.",
            )
        if "device driver" in words or "nvidia" in words.lower():
            finding = preflight.gpu_refusal(words)
            return PreflightError(finding.message, finding.hint)
        return EngineError(f"the engine could not start the container: {words}")

    # -- watching

    def _until_it_serves(self, container: str, started: float, token_given: bool, own: bool = True) -> Launched:
        """Follow the start-up to its end, good or bad."""
        follower = Follower(self.engine, container, self.plan, self.options, self.tell, self.blot, self.began)
        failure = follower.follow(token_given)
        seconds = time.monotonic() - started
        seen = logs.start_up(follower.progress.kept.text())
        if failure:
            if failure.cause not in ("stopped", "engine"):
                self._remember(failure.cause, seen, seconds)
            raise LaunchError(failure, self._left(container))
        self.tell(
            "ready", f"ready at {self._url()} after {seconds:.1f} s", url=self._url(), ready_seconds=round(seconds, 1)
        )
        checked = verify.verify(self.plan, seen, follower.ask, follower.left)
        if checked.text is None:
            raise LaunchError(follower.mute(checked.why_not or ""), self._left(container))
        if own and self.options.restart != "no":
            self._set_restart(container)
        if own:
            self._remember("starts", seen, seconds)
        figures = {c.name: {"predicted": c.predicted, "observed": c.observed} for c in checked.figures}
        self.tell("verified", "one generation succeeded", figures=figures, version=checked.version)
        total = time.monotonic() - self.began
        return Launched(self.plan, container, self._url(), total, verified=checked, attempts=self.attempts)

    def _set_restart(self, container: str) -> None:
        from docker.errors import APIError

        policy = request.restart_policy(self.options.restart)
        with self.engine.asked("set the restart policy"):
            try:
                self.engine.client.update_container(container, restart_policy=policy)
            except APIError as error:
                self.tell("note", f"the restart policy could not be set: {said(error)}")

    def _remember(self, outcome: str, seen: logs.StartUp, seconds: float) -> None:
        """A row in the history; one that cannot be written is said and does not end the launch."""
        try:
            history.add(history.measured(self.plan, outcome, seen, seconds))
        except AdvisorError as error:
            self.tell("note", str(error))

    def _url(self) -> str:
        return f"http://{self.engine.place.host}:{self.container.port}"

    def _left(self, container: str) -> str | None:
        if not self.options.keep:
            return None
        return f"The container stays, as --keep asks: `docker logs {container[:12]}`, `tgi-advisor stop` removes it."

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
        lost = isinstance(error, LostEngineError)
        label = f"{request.LAUNCH}={self.id}"
        told = f"what this launch started and still runs was left alone: it has the label {label}" if lost else ""
        try:
            for name in self._remove_ours(ended=lost):
                self._note(f"removed {name}, which did not serve yet")
        except EngineError as also:
            told = f"{also.message}; what this launch started has the label {label}"
        if told:
            self._note(told, label=label)

    def _note(self, text: str, **data: Any) -> None:
        """Tell it if somebody can still be told: a terminal that is gone must not stop the tidying up."""
        with suppress(AdvisorError):
            self.tell("note", text, **data)

    def _remove_ours(self, *, ended: bool = False) -> Iterator[str]:
        """The names of what is removed, one by one: what has the label of this launch and the name of this server.

        With `ended` only what does not run: a server that we lost sight of may be well.
        """
        for name, made in ours.made_by(self.engine, self.id, ended=ended).items():
            if name == self.asked.container.name:
                self.engine.remove(made)
                yield name


__all__ = [
    "Event", "Kind", "LaunchError", "Launched", "Options", "Solve", "Tell", "body_of", "launch", "learnt", "new_id",
    "pull", "refuse", "with_less_prefill",
]  # fmt: skip
