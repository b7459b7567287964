"""One launch: preflight, start, watch, verify, remember; and again with smaller limits where memory was short.

Whatever happens, nothing that this launch made is left behind unless it serves or `keep` says so: everything it
makes carries the launch's own label, and the end removes what carries it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tgi_advisor import logs
from tgi_advisor.errors import AdvisorError, EngineError, Exit, PreflightError, Problem
from tgi_advisor.launch import failures, history, preflight, request, verify, watch
from tgi_advisor.launch.engine import Engine, said
from tgi_advisor.launch.failures import Failure
from tgi_advisor.launch.preflight import Checked, Finding, Host
from tgi_advisor.launch.signals import deaf, terminated_as_interrupted, uninterrupted
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Container, Plan
from tgi_advisor.spec.records import Bound, Spec
from tgi_advisor.units import MiB, human

TICK_S = 0.2
HEALTH_EVERY_S = 1.0
READ_UP_S = 10.0
MOST_RETRIES = 3
KILLED = 128 + 9
"""Exit code of a process that SIGKILL ended."""

Kind = Literal["finding", "pull", "start", "log", "step", "stall", "retry", "ready", "verified", "note", "tick"]
Solve = Callable[[Spec], Plan]
"""Plans a spec once more on the same facts."""


@dataclass(frozen=True)
class Event:
    """One thing worth telling while a launch goes on."""

    kind: Kind
    """What it is about."""
    seconds: float
    """Since the launch began."""
    text: str
    """In words."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs."""
    server: str | None = None
    """Which of several servers it is about."""


Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Options:
    """How to launch."""

    replace: bool = False
    """Swap a container of the same name."""
    reuse: bool = False
    """Keep a container of the same name that runs the same plan."""
    keep: bool = False
    """Leave what was started when it fails or the wait is broken off."""
    detach: bool = False
    """Return after the start."""
    restart: str = "no"
    """Restart policy; it holds once the server has answered."""
    ulimits: tuple[str, ...] = ()
    """`memlock=-1` and the like."""
    logs: bool = True
    """Whether each line of the server's log is an event."""
    timeout_s: float | None = None
    """Give up when the server is not ready by then; None waits."""
    stall_s: float | None = None
    """Seconds without progress worth a word; None: by step."""
    retries: int = MOST_RETRIES
    """How often to plan again after running out of memory at warm-up."""


@dataclass(frozen=True)
class Launched:
    """A launch that went well."""

    plan: Plan
    """What runs in the end; not the first plan when it was planned again."""
    id: str
    """The container."""
    url: str
    """Where it answers."""
    seconds: float
    """Until ready; until started when detached."""
    reused: bool = False
    """Whether it ran already."""
    verified: verify.Verified | None = None
    """What it did and said; None when detached."""
    attempts: int = 1
    """Starts it took."""


class LaunchError(AdvisorError):
    """The server did not come up; the failure says why."""

    def __init__(self, failure: Failure, left: str | None = None) -> None:
        proof = [Problem(line) for line in failure.proof]
        steps = [*failure.next_steps, *([left] if left else [])]
        super().__init__(failure.message, "\n".join(steps), proof)
        self.failure = failure

    @property
    def exit_code(self) -> Exit:  # type: ignore[override]
        """The failure's."""
        return self.failure.exit


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
            with terminated_as_interrupted(), self._leaves_nothing():
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
                self._remove_ours()
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
            stop(self.engine, checked.replaces)
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
        launched = self._until_it_serves(container, time.monotonic(), token_given=True, ours=False)
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

    def _until_it_serves(self, container: str, started: float, token_given: bool, ours: bool = True) -> Launched:
        """Follow the start-up to its end, good or bad."""
        follower = _Follower(self, container, started)
        failure = follower.follow(token_given)
        seconds = time.monotonic() - started
        seen = logs.start_up(follower.progress.kept.text())
        if failure:
            if failure.cause != "stopped":
                self._remember(failure.cause, seen, seconds)
            raise LaunchError(failure, self._left(container))
        self.tell(
            "ready", f"ready at {self._url()} after {seconds:.1f} s", url=self._url(), ready_seconds=round(seconds, 1)
        )
        checked = verify.verify(self.plan, seen, follower.ask)
        if checked.text is None:
            raise LaunchError(
                Failure("exited", f"the server is ready, but does not generate: {checked.why_not}",
                        ("See its log: `docker logs`, or launch again with --keep.",),
                        tuple(follower.last_lines()), Exit.FAILED),
                self._left(container),
            )  # fmt: skip
        if ours and self.options.restart != "no":
            self._set_restart(container)
        if ours:
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
            history.add(_row(self.plan, outcome, seen, seconds))
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
        if following.prediction.outcome != "starts" or not _smaller_prefill(following, failed):
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

    @contextmanager
    def _leaves_nothing(self) -> Iterator[None]:
        """Remove on the way out whatever this launch made, unless it serves or is to be kept."""
        try:
            yield
        except BaseException:
            if not self.options.keep:
                with deaf():
                    self._tidy_up()
            raise

    def _tidy_up(self) -> None:
        """Remove what this launch made; where the engine is gone, say how to find it later."""
        try:
            for name in self._remove_ours():
                self.tell("note", f"removed {name}, which did not serve yet")
        except EngineError as error:
            label = f"{request.LAUNCH}={self.id}"
            self.tell("note", f"{error.message}; what this launch started has the label {label}", label=label)

    def _remove_ours(self) -> list[str]:
        """The names of what was removed: what has the label of this launch and the name of this server."""
        mine = {name: made for name, made in made_by(self.engine, self.id).items() if name == self.asked.container.name}
        for made in mine.values():
            self.engine.remove(made)
        return list(mine)


def made_by(engine: Engine, launch_id: str) -> dict[str, str]:
    """Name and id of every container that a launch made, the last one first."""
    with engine.asked("find what this launch started"):
        mine = engine.client.containers(all=True, filters={"label": f"{request.LAUNCH}={launch_id}"})
    return {container["Names"][0].lstrip("/"): container["Id"] for container in mine}


def stop(engine: Engine, container: str) -> None:
    """Stop and remove: as gracefully as the stop timeout says when it serves, at once when it does not yet."""
    from docker.errors import NotFound

    found = engine.inspect(container)
    if found is None:
        return
    if not _serves(engine, found):
        engine.remove(container)
        return
    seconds = found["Config"].get("StopTimeout") or 10
    with engine.asked(f"stop container {container[:12]}"):
        try:
            engine.client.stop(container, timeout=seconds)
        except NotFound:
            return
    engine.remove(container)


def _serves(engine: Engine, found: Mapping[str, Any]) -> bool:
    """Whether an inspected container may have requests in flight."""
    bindings = [b for ports in (found["NetworkSettings"].get("Ports") or {}).values() for b in ports or ()]
    ports = {int(binding["HostPort"]) for binding in bindings}
    return any(verify.http(engine.place.host, port)("/health", None)[0] == 200 for port in ports)


class _Follower:
    """Reads the log in a thread of its own, asks /health, and notices when nothing moves."""

    def __init__(self, launch: _Launch, container: str, started: float) -> None:
        self.launch, self.container, self.started = launch, container, started
        self.progress = watch.Progress()
        self.chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
        self.ask = verify.http(launch.engine.place.host, launch.container.port)
        self.direct: verify.Ask | None = None
        self.moved = started
        self.warned = 0.0
        self.repeated = 0.0
        self.trouble: BaseException | None = None
        self.stream: Any = None
        self.thread: threading.Thread | None = None

    def follow(self, token_given: bool) -> Failure | None:
        """None when the server answers; why not when it will not."""
        self._look_inside()
        self._listen()
        asked = 0.0
        try:
            while True:
                ended = self._take()
                now = time.monotonic()
                if now - asked >= (TICK_S if self.progress.now == "connected" else HEALTH_EVERY_S) and not ended:
                    asked = now
                    if self._healthy():
                        self._read_up()
                        return None
                if ended:
                    failure = self._ended(token_given)
                    if failure:
                        return failure
                    self._listen()
                self._notice_stall(now)
                self.launch.tell("tick", watch.WHAT[self.progress.now])
                limit = self.launch.options.timeout_s
                if limit is not None and now - self.launch.began > limit:
                    return self._too_late(limit)
        finally:
            self._hang_up()

    def last_lines(self) -> list[str]:
        """The last lines of the log."""
        return self.progress.kept.text().splitlines()[-failures.PROOF_LINES :]

    def _listen(self) -> None:
        """Follow the log from now on; in a thread, for a read from the engine cannot be broken off."""
        from docker.errors import APIError

        with self.launch.engine.asked("follow the log"):
            try:
                self.stream = self.launch.engine.client.logs(self.container, stream=True, follow=True)
            except APIError as error:  # gone already, or a log driver that cannot be read
                if error.status_code not in (404, 409):
                    self.launch.tell("note", f"the log cannot be read: {said(error)}")
                    return
                self.chunks.put(None)
                return
        self.thread = threading.Thread(target=self._read, args=(self.stream,), name="log", daemon=True)
        self.thread.start()

    def _hang_up(self) -> None:
        """Close the stream, which ends the thread."""
        if self.stream is not None:
            self.stream.close()
        while self.thread is not None and self.thread.is_alive():
            with suppress(queue.Empty):
                self.chunks.get(timeout=0.01)

    def _read(self, stream: Any) -> None:
        """The thread: chunks of the log into the queue, None at the end."""
        try:
            for chunk in stream:
                self.chunks.put(chunk)
        except Exception as error:  # noqa: BLE001  (anything a broken connection raises; told by the main thread)
            self.trouble = error
        self.chunks.put(None)

    def _take(self) -> bool:
        """Handle what has arrived; whether the stream has ended."""
        deadline = time.monotonic() + TICK_S
        while True:
            try:
                chunk = self.chunks.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
            if chunk is None:
                for line, step in self.progress.end():
                    self._told(line, step)
                return True
            for line, step in self.progress.feed(chunk):
                self._told(line, step)
            if time.monotonic() > deadline:
                return False

    def _read_up(self) -> None:
        """Read what the server wrote before it answered: a long log may be behind, and the KV budget in it."""
        end = time.monotonic() + READ_UP_S
        while self.progress.now != "connected" and time.monotonic() < end and not self._take():
            pass

    def _told(self, line: str, step: watch.Step | None) -> None:
        if self.launch.options.logs:
            self.launch.tell("log", line)
        if step is None:
            return
        now = time.monotonic()
        if not step.alive and now - self.repeated < HEALTH_EVERY_S:
            return
        self.repeated = now
        if step.alive:
            self.moved, self.warned = time.monotonic(), 0.0
        self.launch.tell(
            "step", step.text, step=step.name, what=watch.WHAT[step.name], done=step.done, of=step.of, alive=step.alive
        )

    def _look_inside(self) -> None:
        """How to reach the server where the published port is not ours to reach (an engine seen from a container)."""
        found = self.launch.engine.inspect(self.container)
        networks = ((found or {}).get("NetworkSettings") or {}).get("Networks") or {}
        address = next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), None)
        if address and self.launch.engine.place.local:
            self.direct = verify.http(address, self.launch.container.container_port)

    def _healthy(self) -> bool:
        for ask in (self.ask, self.direct):
            if ask and ask("/health", None)[0] == 200:
                self.ask = ask
                return True
        return False

    def _ended(self, token_given: bool) -> Failure | None:
        """Why the log ended: the failure, or None when the container still runs and its log is to be read again."""
        state: Mapping[str, Any] = {}
        before: Mapping[str, Any] = {}
        for _ in range(50):
            found = self.launch.engine.inspect(self.container)
            state = found["State"] if found else {}
            # Killed: by somebody who removes it, if it is gone a moment later.
            if not state.get("Running") and (state.get("ExitCode") != KILLED or state == before):
                break
            if self.trouble is not None and state.get("Running"):
                time.sleep(HEALTH_EVERY_S)
                self.trouble = None
                return None
            before = state
            time.sleep(0.3)
        text = self.launch.blot(self.progress.kept.text())
        here = failures.Context(self.launch.plan, self.launch.container, text, state, token_given)
        return failures.diagnose(here)

    def _notice_stall(self, now: float) -> None:
        """Say once, and again each time the silence has doubled, that nothing moves."""
        name = self.progress.now
        patience = self.launch.options.stall_s or watch.PATIENCE_S[name]
        quiet = now - self.moved
        if quiet >= (self.warned * 2 or patience):
            self.warned = quiet
            self.launch.tell(
                "stall", f"no sign of progress for {quiet:.0f} s while {watch.WHAT[name]}{self._received()}",
                step=name, quiet_seconds=round(quiet, 1),
            )  # fmt: skip

    def _received(self) -> str:
        """What the network says meanwhile, while weights are downloaded."""
        if self.progress.now != "download":
            return ""
        try:
            stats = self.launch.engine.client.stats(self.container, stream=False)
            total = sum(n["rx_bytes"] for n in (stats.get("networks") or {}).values())
        except Exception:  # noqa: BLE001  (a figure for a sentence; the watch goes on without it)
            return ""
        return f" (the container has received {human(total)} so far)"

    def _too_late(self, limit: float) -> Failure:
        name = self.progress.now
        return Failure(
            "stopped", f"not ready within {limit:g} s; it was {watch.WHAT[name]}",
            ("Launch again with a longer --timeout, or without one: what is downloaded stays.",),
            tuple(self.last_lines()), Exit.TIMEOUT,
        )  # fmt: skip


# -- what a failure teaches


def learnt(asked: Spec, plan: Plan, failure: Failure, attempt: int) -> Spec:
    """The spec with the shortage as headroom on top of what the failed plan kept.

    Where PyTorch did not say what was missing, 2 % of the GPU; twice as much with every further attempt.
    """
    memory = failure.out_of_memory
    missing = max(0, memory.tried - memory.free) if memory and memory.free is not None else 0
    kept = plan.search.headroom_bytes if plan.search else asked.hardware.headroom or 0
    headroom = kept + (max(missing, plan.prediction.gpu_total_bytes // 50) << (attempt - 1))
    return replace(asked, hardware=replace(asked.hardware, headroom=-(-headroom // MiB) * MiB))


def with_less_prefill(asked: Spec, failed: Limits, attempt: int) -> Spec:
    """The spec with three quarters of the prefill budget that failed, then half, then a quarter; never below its floor.

    That is TGI's own advice, for where headroom alone does not make the warm-up smaller.
    """
    bound = asked.limits.max_batch_prefill_tokens
    if bound.fixed is not None:
        return asked
    tokens = (failed.max_batch_prefill_tokens or 1) * (3, 2, 1)[min(attempt, 3) - 1] // 4
    tokens = max(bound.low or 1, tokens)
    return replace(asked, limits=replace(asked.limits, max_batch_prefill_tokens=Bound(tokens, tokens)))


def _smaller_prefill(plan: Plan, failed: Limits) -> bool:
    """Whether the warm-up prefill is smaller now."""
    now, before = plan.prediction.limits.max_batch_prefill_tokens, failed.max_batch_prefill_tokens
    return now is None or before is None or now < before


def _row(plan: Plan, outcome: str, seen: logs.StartUp, seconds: float) -> history.Row:
    from datetime import datetime, timezone

    facts, spec, prediction = plan.facts, plan.spec, plan.prediction
    said: dict[str, Any] = {
        "attention": seen.attention, "prefix_caching": seen.prefix_caching, "chunking": seen.chunking,
        "defaults": seen.defaults,
    }  # fmt: skip
    if seen.kv_blocks:
        said |= {"kv_blocks": seen.kv_blocks[0], "block_size": seen.kv_blocks[1]}
    if memory := seen.out_of_memory:
        parts = ("tried", "capacity", "free", "in_use", "allocated", "unallocated", "reserved")
        sizes = {name: getattr(memory, name) for name in parts}
        said["oom"] = {name: f"{size / MiB:.2f}MiB" for name, size in sizes.items() if size is not None}
    return history.Row(
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=history.model_name(facts.model.id, facts.model.folder),
        commit=facts.model.commit,
        gpu=facts.gpu.name,
        gpu_memory_mib=facts.gpu.memory_bytes // MiB,
        gpu_count=facts.gpu_count,
        release=facts.release.name,
        variant=facts.variant,
        num_shard=prediction.num_shard,
        memory_fraction=spec.hardware.memory_fraction,
        in_use_bytes=spec.hardware.in_use,
        limits=prediction.limits.given(),
        outcome=outcome,
        predicted=prediction.limits.max_batch_total_tokens,
        observed=seen.budget,
        kv_bytes_per_token=prediction.kv_bytes_per_token,
        headroom_bytes=plan.search.headroom_bytes if plan.search else 0,
        seconds=round(seconds, 1),
        dtype=spec.model.dtype,
        quantize=spec.model.quantize,
        kv_cache_dtype=spec.model.kv_cache_dtype,
        seen={name: value for name, value in said.items() if value not in (None, {})},
    )


__all__ = [
    "Event", "Kind", "LaunchError", "Launched", "Options", "Solve", "Tell", "body_of", "launch", "learnt", "made_by",
    "new_id", "pull", "refuse", "stop",
]  # fmt: skip
