"""One deadline for a whole exchange over HTTP, kept whatever trickles in.

A timeout of a socket counts anew with every byte, so a peer that sends one a second is waited for as long as it
likes. Here each wait is for what is left.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse


class Deadline:
    """A moment, and the longest single wait before it."""

    def __init__(self, seconds: float, wait: float | None = None) -> None:
        self.end = time.monotonic() + seconds
        self.wait = seconds if wait is None else wait

    @property
    def over(self) -> bool:
        """Whether the moment has passed."""
        return time.monotonic() >= self.end

    @property
    def left(self) -> float:
        """Seconds left, at most `wait`; TimeoutError when the moment has passed."""
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return min(seconds, self.wait)


def keep(connection: HTTPConnection, deadline: Deadline) -> None:
    """From now on, whatever is asked over the connection ends by the deadline, with TimeoutError where it must.

    Connecting, sending, the status line, header fields, chunks and the body are all under it. For each exchange
    over a connection that is kept open, call it again. Looking up a host's name is the system's own business.
    """
    connection.timeout = deadline.left
    plain: Callable[..., HTTPResponse] = _plain(connection)

    def answer(sock: socket.socket, *rest: Any, **named: Any) -> HTTPResponse:
        return plain(_Watched(sock, deadline), *rest, **named)

    connection.response_class = answer  # type: ignore[assignment]  # a class is only ever called
    if connection.sock is not None:
        connection.sock.settimeout(deadline.left)


def _plain(connection: HTTPConnection) -> type[HTTPResponse]:
    return type(connection).response_class


class _Watched:
    """Stands in for a socket where an HTTPResponse asks it for a file to read from."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  (always "rb")
        return io.BufferedReader(_Raw(self._sock, self._deadline))


class _Raw(socket.SocketIO):
    """Reads of a socket, each waiting for what is left of a deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__(sock, "r")
        sock._io_refs += 1  # type: ignore[attr-defined]  # as socket.makefile does: closed when both are
        self._until = deadline

    def readinto(self, buffer: Any) -> int | None:
        """As a file does; TimeoutError once the deadline has passed."""
        self._sock.settimeout(self._until.left)  # type: ignore[attr-defined]
        return super().readinto(buffer)
