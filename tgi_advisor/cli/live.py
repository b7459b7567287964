"""A launch as it goes on: a line that moves on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from tgi_advisor.cli.output import say, width
from tgi_advisor.launch.run import Event
from tgi_advisor.units import human

EVERY_S = 0.1
"""Seconds between two pictures of the moving line."""
PULL_EVERY_S = 5.0
"""Seconds between two plain lines of a pull."""


def clock(seconds: float) -> str:
    """`0:07`, `12:45`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class JsonLines:
    """One JSON object a line on standard output; `log` lines only where they are asked for."""

    def __init__(self, *, logs: bool) -> None:
        self._logs = logs

    def __call__(self, event: Event) -> None:
        """Print it."""
        if event.kind == "tick" or (event.kind == "log" and not self._logs):
            return
        self.line(event.kind, seconds=round(event.seconds, 3), text=event.text, **event.data)

    def line(self, kind: str, /, **values: Any) -> None:
        """One line."""
        say(json.dumps({"event": kind, **values}, ensure_ascii=False))

    def end(self) -> None:
        """Nothing is left on the screen."""


class Lines:
    """Plain lines on standard error, each with the time since the start."""

    def __init__(self, *, logs: bool) -> None:
        self._logs = logs
        self._layers = Layers()
        self._pulled = 0.0

    def __call__(self, event: Event) -> None:
        """Print what is worth a line."""
        if event.kind == "log":
            if self._logs:
                say(event.text)
        elif event.kind == "pull" and "layer" in event.data:
            self._layers.see(event)
            if event.seconds - self._pulled >= PULL_EVERY_S:
                self._pulled = event.seconds
                self.line(event, self._layers.text())
        elif event.kind == "step":
            if event.data["alive"] and not self._logs:
                self.line(event, f"{event.data['what']}: {event.text}")
        elif event.kind == "retry":
            for text in (event.text, *changes(event)):
                self.line(event, text)
        elif event.kind != "tick":
            hint = event.data.get("hint")
            self.line(event, f"{event.text}{f' ({hint})' if hint else ''}")

    def line(self, event: Event, text: str) -> None:
        """One line."""
        say(f"{clock(event.seconds):>6}  {text}", err=True)

    def end(self) -> None:
        """Nothing is left on the screen."""


class Moving(Lines):
    """As plain lines; below them one that moves."""

    def __init__(self, *, logs: bool) -> None:
        super().__init__(logs=logs)
        self._drawn = 0.0
        self._last = ""

    def __call__(self, event: Event) -> None:
        """Print it, and draw the moving line anew."""
        if event.kind == "pull" and "layer" in event.data:
            self._layers.see(event)
            self._draw(event, self._layers.text())
        elif event.kind == "tick" and not self._logs:
            self._draw(event, event.text)
        else:
            self._wipe()
            super().__call__(event)

    def _draw(self, event: Event, text: str) -> None:
        now = time.monotonic()
        if now - self._drawn >= EVERY_S:
            self._drawn = now
            sign = "|/-\\"[int(now * 5) % 4]
            self._last = f"{clock(event.seconds):>6}  {sign} {text}"[: width() - 1]
            sys.stderr.write(f"\r\x1b[2K{self._last}")
            sys.stderr.flush()

    def _wipe(self) -> None:
        if self._last:
            self._last = ""
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the moving line away."""
        self._wipe()


class Layers:
    """The layers of an image as they arrive."""

    def __init__(self) -> None:
        self._state: dict[str, tuple[str, int, int]] = {}

    def see(self, event: Event) -> None:
        """One message of the engine."""
        layer = event.data.get("layer")
        if not layer or event.text.startswith("Pulling from"):
            return
        _, had, total = self._state.get(layer, ("", 0, 0))
        total = event.data.get("total") or total
        current = event.data.get("current") or had
        done = event.text in ("Pull complete", "Already exists", "Download complete")
        self._state[layer] = (event.text, total if done else current, total)

    def text(self) -> str:
        """`pulling: 3 of 12 layers, 1.20 GiB of 4.10 GiB [=====>    ]`."""
        complete = sum(state in ("Pull complete", "Already exists") for state, _, _ in self._state.values())
        got = sum(current for _, current, _ in self._state.values())
        total = sum(total for _, _, total in self._state.values())
        if not total:
            return f"pulling: {complete} of {len(self._state)} layers"
        full = round(20 * min(1.0, got / total))
        bar = "=" * full + " " * (20 - full)
        return f"pulling: {complete} of {len(self._state)} layers, {human(got)} of {human(total)} [{bar}]"


def changes(event: Event) -> list[str]:
    """The limits before and after planning again."""
    before, after = event.data["before"], event.data["after"]
    return [
        f"  {name}: {before[name]:,} -> {value:,}" for name, value in after.items() if before.get(name, value) != value
    ]


def sink(*, as_json: bool, logs: bool) -> JsonLines | Lines:
    """How to show a launch here."""
    if as_json:
        return JsonLines(logs=logs)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return Moving(logs=logs) if terminal else Lines(logs=logs)
