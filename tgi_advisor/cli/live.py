"""A launch as it goes on: a line that moves on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from tgi_advisor.cli.output import draw, say, width
from tgi_advisor.launch.records import Event
from tgi_advisor.safe import printable
from tgi_advisor.units import human

EVERY_S = 0.1
"""Seconds between two pictures of the moving line."""
BAR = 20
"""Characters of a bar."""
MOVING = ("Downloading", "Extracting")
"""What the engine says of a layer that is on its way."""
MOST_LAYERS = 6
"""Layers shown at once; the engine fetches three at a time and unpacks one."""
PULL_EVERY_S = 5.0
"""Seconds between two plain lines of a pull."""


def clock(seconds: float) -> str:
    """`0:07`, `12:45`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def named(event: Event, text: str) -> str:
    """A text about an event, with the server's name where there are several."""
    return f"{event.server}: {text}" if event.server else text


class JsonLines:
    """One JSON object a line on standard output; `log` lines only where they are asked for."""

    def __init__(self, *, logs: bool) -> None:
        self._logs = logs

    def __call__(self, event: Event) -> None:
        """Print it."""
        if event.kind == "tick" or (event.kind == "log" and not self._logs):
            return
        server = {"server": event.server} if event.server else {}
        self.line(event.kind, **server, seconds=round(event.seconds, 3), text=event.text, **event.data)

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
            if event.kind == "pull":  # another image
                self._layers = Layers()
            hint = event.data.get("hint")
            self.line(event, f"{event.text}{f' ({hint})' if hint else ''}")

    def line(self, event: Event, text: str) -> None:
        """One line."""
        say(f"{clock(event.seconds):>6}  {printable(named(event, text))}", err=True)

    def end(self) -> None:
        """Nothing is left on the screen."""


class Moving(Lines):
    """As plain lines; below them what moves."""

    def __init__(self, *, logs: bool) -> None:
        super().__init__(logs=logs)
        self._drawn = 0.0
        self._height = 0

    def __call__(self, event: Event) -> None:
        """Print it, and draw what moves anew."""
        if event.kind == "pull" and "layer" in event.data:
            self._layers.see(event)
            self._draw(event, self._layers.text(), *self._layers.moving())
        elif event.kind == "tick":
            if not self._logs:
                self._draw(event, event.text)
        else:
            self.end()
            super().__call__(event)

    def _draw(self, event: Event, text: str, *below: str) -> None:
        now = time.monotonic()
        if now - self._drawn >= EVERY_S:
            self.end()
            self._drawn, self._height = now, 1 + len(below)
            sign = "|/-\\"[int(now * 5) % 4]
            lines = [f"{clock(event.seconds):>6}  {sign} {named(event, text)}", *(f"{'':>10}{line}" for line in below)]
            draw("\n".join(printable(line)[: width() - 1] for line in lines))

    def end(self) -> None:
        """Take away what moves."""
        if self._height:
            up = f"\x1b[{self._height - 1}A" if self._height > 1 else ""
            self._height = 0
            draw(f"\r{up}\x1b[J")


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
        return f"pulling: {complete} of {len(self._state)} layers, {human(got)} of {human(total)} {_bar(got, total)}"

    def moving(self) -> list[str]:
        """A line for each of the layers that are on their way, the first few."""
        on_the_way = [(layer, *row) for layer, row in self._state.items() if row[2] and row[0] in MOVING]
        return [
            f"{layer}  {_bar(got, total)} {state.lower()} {human(got)} of {human(total)}"
            for layer, state, got, total in on_the_way[:MOST_LAYERS]
        ]


def _bar(done: int, of: int) -> str:
    full = round(BAR * min(1.0, done / of))
    return f"[{'=' * full}{' ' * (BAR - full)}]"


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
