"""Ctrl-C and SIGTERM while containers are made: heard at once, put off, or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """Both ways to be told to end go to `handler` while this lasts; only the main thread hears them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM (a CI job cancelled, a service stopped) ends a launch as Ctrl-C does."""
    with _handled(signal.default_int_handler):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off: a container whose creation is under way could not be found and removed yet."""
    heard: list[int] = []
    with _handled(lambda number, _frame: heard.append(number)):
        yield
    if heard:
        raise KeyboardInterrupt


@contextmanager
def deaf() -> Iterator[None]:
    """Do not be interrupted while tidying up; it takes a moment."""
    with _handled(signal.SIG_IGN):
        yield
