"""Being told to end while containers are made: heard at once and once, put off, or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
"""Ctrl-C; a CI job cancelled, a service stopped; the terminal closed, an SSH session broken off; Ctrl-\\."""
_MAY_BE_DEAF_TO = frozenset(ENDING[2:])
"""Signals that stay ignored where the caller says so: `nohup` is there for launches that outlive a terminal."""

_heard: list[int] = []
"""The signal that ended this launch."""


def _hear(number: int, _frame: Any) -> None:
    """The first one ends what goes on; another (closing a terminal sends several) has nothing to add."""
    if not _heard:
        _heard.append(number)
        raise KeyboardInterrupt


def interrupted() -> None:
    """KeyboardInterrupt if one was raised where Python drops exceptions, as in a finalizer, and went no further."""
    if _heard:
        raise KeyboardInterrupt


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """Every way to be told to end goes to `handler` while this lasts; only the main thread hears them."""
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                now = signal.getsignal(number)
                if number not in _MAY_BE_DEAF_TO or now is not signal.SIG_IGN:
                    before[number] = now
                    signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, SIGHUP and SIGQUIT end a launch as Ctrl-C does."""
    if signal.getsignal(signal.SIGTERM) is _hear:  # within another one
        yield
        return
    try:
        with _handled(_hear):
            yield
    finally:
        _heard.clear()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off: a container whose creation is under way could not be found and removed yet."""
    late: list[int] = []
    with _handled(lambda number, _frame: late.append(number)):
        yield
    if late:
        _hear(late[0], None)


@contextmanager
def deaf() -> Iterator[None]:
    """Do not be interrupted while tidying up; it takes a moment."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def tidied(tidy: Callable[[BaseException], None]) -> Iterator[None]:
    """`tidy` on the way out of everything but success, to its end, whatever is heard meanwhile."""
    try:
        yield
    except BaseException as error:
        try:
            with deaf():
                tidy(error)
        except KeyboardInterrupt:  # heard in the moment before; there is no second one
            with deaf():
                tidy(error)
            raise
        raise
