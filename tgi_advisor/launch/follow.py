"""Watching a server come up: its log, `/health`, and whether anything moves.

The log is followed for as long as the container runs: that a stream has ended says only that a connection has.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tgi_advisor.errors import Exit
from tgi_advisor.launch import failures, verify, watch
from tgi_advisor.launch.failures import Failure, State
from tgi_advisor.launch.place import Log, LostPlaceError, NoLog, Server, UnreadableLogError, Way
from tgi_advisor.launch.records import Options, Say
from tgi_advisor.launch.signals import interrupted
from tgi_advisor.plan import Container, Plan
from tgi_advisor.units import human

TICK_S = 0.2
HEALTH_EVERY_S = 1.0
READ_UP_S = 10.0
BACK_S = 30.0
"""Seconds that an engine which went away, as one that is restarted does, may take to come back."""
HANG_UP_S = 5.0
"""Seconds the thread that reads the log may take to end; it is of no use any more, and dies with the process."""
OTHER_WAY_S = 2.0
"""Seconds a port of another machine may take to answer, once it is open, before ssh is asked to reach it."""
AGAIN_S = 0.3
"""Seconds between two looks at a container whose log has ended."""
KILLED = 128 + 9
"""Exit code of a process that SIGKILL ended."""


class Follower:
    """Reads the log in a thread of its own, asks /health, and notices when nothing moves."""

    def __init__(
        self, server: Server, plan: Plan, options: Options, tell: Say, blot: Callable[[str], str], began: float
    ) -> None:
        """`blot` takes secrets out of a text; `began` is when the launch did, on the monotonic clock."""
        assert plan.container is not None
        self.server, self.plan, self.options = server, plan, options
        self.container: Container = plan.container
        self.tell, self.blot = tell, blot
        self.end = None if options.timeout_s is None else began + options.timeout_s
        self.progress = watch.Progress()
        self.chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
        self.ways: list[Way] = []
        self.moved = time.monotonic()
        self.warned = 0.0
        self.repeated = 0.0
        self.read_to = self.skip_to = watch.BEGINNING
        self.readable = True
        self.waits: watch.Step | None = None
        self.away = False
        self.lost_at: float | None = None
        self.looks_gone = 0
        self.stream: Log = NoLog()
        self.thread: threading.Thread | None = None

    def follow(self, token_given: bool) -> Failure | None:
        """None when the server answers; why not when it will not. LostPlaceError when the place stays away."""
        self.ways = list(self.server.ways())
        self._listen()
        asked = 0.0
        try:
            while True:
                interrupted()
                if self._take():
                    if failure := self._ended(token_given):
                        return failure
                    self._listen()
                now = time.monotonic()
                if now - asked >= (TICK_S if self.progress.now == "connected" else HEALTH_EVERY_S):
                    asked = now
                    if self._healthy_or_away():
                        self._read_up()
                        return None
                    if (self._gone() or not self.readable) and (failure := self._ended(token_given)):
                        return failure
                self._notice_stall(now)
                self.tell("tick", watch.WHAT[self.progress.now])
                if self.late:
                    return self._too_late(f"it was {watch.WHAT[self.progress.now]}")
        finally:
            self._hang_up()

    @property
    def late(self) -> bool:
        """Whether --timeout has passed."""
        return self.end is not None and time.monotonic() > self.end

    def left(self, seconds: float) -> float:
        """As many seconds, or what --timeout leaves of them; never less than one look at /health may take."""
        return seconds if self.end is None else min(seconds, max(self.end - time.monotonic(), verify.HEALTH_S))

    def last_lines(self) -> list[str]:
        """The last lines of the log."""
        return self.progress.kept.text().splitlines()[-failures.PROOF_LINES :]

    # -- the log

    def _listen(self) -> None:
        """Follow the log from where it was left; in a thread, for a read from the engine cannot be broken off."""
        self.skip_to = self.read_to
        try:
            self.stream = self.server.log(self.read_to)
        except UnreadableLogError as error:
            self.readable = False
            self.tell("note", f"the log cannot be read: {error}")
            return
        except LostPlaceError:  # told, and waited for, as where a log ends
            self.stream = NoLog()
        self.thread = threading.Thread(target=self._read, args=(self.stream,), name="log", daemon=True)
        self.thread.start()

    def _hang_up(self) -> None:
        """Close the stream, which ends the thread."""
        with suppress(Exception):  # of a connection that is broken anyway
            self.stream.close()
        end = time.monotonic() + HANG_UP_S
        while self.thread is not None and self.thread.is_alive() and time.monotonic() < end:
            with suppress(queue.Empty):
                self.chunks.get(timeout=0.01)

    def _read(self, stream: Log) -> None:
        """The thread: chunks of the log into the queue, None at the end, whatever ended it."""
        with suppress(Exception):  # anything a broken connection raises
            for chunk in stream:
                self.chunks.put(chunk)
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
            moment, text = watch.unstamped(chunk)
            if moment is None or moment > self.skip_to:
                self.read_to = max(self.read_to, moment or self.read_to)
                for line, step in self.progress.feed(text):
                    self._told(line, step)
            if time.monotonic() > deadline:
                return False

    def _read_up(self) -> None:
        """Read what the server wrote before it answered: a long log may be behind, and the KV budget in it."""
        end = time.monotonic() + READ_UP_S
        while self.progress.now != "connected" and time.monotonic() < end and not self._take():
            pass

    def _told(self, line: str, step: watch.Step | None) -> None:
        if self.options.logs:
            self.tell("log", line)
        if step is None:
            return
        now = time.monotonic()
        if not step.alive and now - self.repeated < HEALTH_EVERY_S:
            return
        self.repeated = now
        self._step(step)

    def _step(self, step: watch.Step) -> None:
        if step.alive:
            self.moved, self.warned = time.monotonic(), 0.0
        self.tell(
            "step", step.text, step=step.name, what=watch.WHAT[step.name], done=step.done, of=step.of, alive=step.alive
        )

    # -- the container

    def _ended(self, token_given: bool) -> Failure | None:
        """Why the log ended: the failure; None while the server runs, for then its log goes on."""
        state = self._state()
        while state.exit_code == KILLED and not state.running:
            # By somebody who removes it, if it is gone a moment later.
            time.sleep(AGAIN_S)
            before, state = state, self._state()
            if state == before:
                break
        if state.running:
            self._waits(state)
            time.sleep(AGAIN_S)
            return None
        if isinstance(self.stream, NoLog) and state.there:
            self._read_the_rest()
        text = self.blot(self.progress.kept.text())
        seen = failures.Context(self.plan, self.container, text, state, token_given, self.server.kind, self.server.at)
        failure = failures.diagnose(seen)
        return failures.with_the_engine(failure, state) if self.away and self.server.kind == "docker" else failure

    def _read_the_rest(self) -> None:
        """Read the log of a server that ended before anybody listened."""
        self._listen()
        end = time.monotonic() + READ_UP_S
        while self.readable and time.monotonic() < end and not self._take():
            pass

    def _state(self) -> State:
        """How the server is; a place that is away is waited for."""
        end = time.monotonic() + BACK_S
        while True:
            try:
                return self.server.state()
            except LostPlaceError as error:  # noqa: PERF203
                self._missed(error)
                if time.monotonic() > end or self.late:
                    raise
                time.sleep(HEALTH_EVERY_S)
                interrupted()

    def _missed(self, error: LostPlaceError) -> None:
        """Tell that the place is away, the first time."""
        if not self.away:
            self.away = True
            self.tell("note", f"{error.message}; waiting for it to come back")

    def _healthy_or_away(self) -> bool:
        """Whether the server answers; a place that is away, through which it is asked, is waited for."""
        try:
            healthy = self._healthy()
        except LostPlaceError as error:
            self._missed(error)
            self.lost_at = self.lost_at or time.monotonic()
            if time.monotonic() - self.lost_at > BACK_S:
                raise
            return False
        self.lost_at = None
        return healthy

    def _gone(self) -> bool:
        """Whether the server is known to have ended for two looks: what it wrote last has arrived by then."""
        glance = self.server.glance()
        self.looks_gone = self.looks_gone + 1 if glance is not None and not glance.running else 0
        return self.looks_gone > 2

    def _waits(self, state: State) -> None:
        """Tell what the place is doing before the server can start, each time it is something else."""
        step = state.waiting
        if step is not None and step != self.waits:
            self.waits = step
            self.progress.now = step.name
            self._step(step)

    # -- the server

    def ask(self, path: str, body: dict[str, Any] | None, seconds: float) -> tuple[int, Any]:
        """Asks the server in the way that answers."""
        return self.ways[0].ask(path, body, seconds)

    def _healthy(self) -> bool:
        """Whether it answers, in any way; the one that does is the way from then on."""
        open_by_now = self.progress.now == "connected" or not self.readable
        for way in self.ways:
            if way.late and not (open_by_now and time.monotonic() - self.moved > OTHER_WAY_S):
                continue
            if verify.healthy(way.ask, self.left(verify.HEALTH_S)):
                if way.note is not None and way is not self.ways[0]:
                    self.tell("note", way.note)
                self.ways = [way]
                return True
        return False

    def _notice_stall(self, now: float) -> None:
        """Say once, and again each time the silence has doubled, that nothing moves."""
        name = self.progress.now
        patience = self.options.stall_s or watch.PATIENCE_S[name]
        quiet = now - self.moved
        if quiet >= (self.warned * 2 or patience):
            self.warned = quiet
            self.tell(
                "stall", f"no sign of progress for {quiet:.0f} s while {watch.WHAT[name]}{self._received()}",
                step=name, quiet_seconds=round(quiet, 1),
            )  # fmt: skip

    def _received(self) -> str:
        """What the network says meanwhile, while weights are downloaded."""
        if self.progress.now != "download":
            return ""
        total = self.server.received()
        return "" if total is None else f" (the container has received {human(total)} so far)"

    def _too_late(self, what: str) -> Failure:
        return Failure(
            "stopped", f"not ready within {self.options.timeout_s:g} s; {what}",
            ("Launch again with a longer --timeout, or without one: what is downloaded stays.",),
            tuple(self.last_lines()), Exit.TIMEOUT,
        )  # fmt: skip

    def mute(self, why_not: str) -> Failure:
        """The failure of a server that says it is ready and does not generate."""
        if self.late:
            return self._too_late(f"it is ready, but has not generated: {why_not}")
        return Failure(
            "exited", f"the server is ready, but does not generate: {why_not}",
            (f"See its log: `{self.server.log_command}`, or launch again with --keep.",),
            tuple(self.last_lines()), Exit.FAILED,
        )  # fmt: skip
