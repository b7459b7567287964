"""Files of others, read within bounds: no pipe is waited for, no device is opened, nothing endless is read on.

Whoever reads a file that we did not write asks here. OSError says what is in the way, in `strerror`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import BinaryIO

_KINDS = (
    (stat.S_ISFIFO, "it is a pipe, not a file"),
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)
PIPE_S = 60.0
"""Seconds for which a pipe that the caller's shell holds open (`<(command)`) is listened to in all."""
_CHUNK = 1 << 20


def home(environ: Mapping[str, str]) -> str:
    """The user's home folder; `/` where nobody knows of one, as in a container with a user of its own."""
    known = environ.get("HOME") or os.path.expanduser("~")
    return "/" if known == "~" else known


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file opened for reading; OSError for anything else, ValueError for a text that is no path.

    It is looked at before it is opened, because opening a device may already do something, and again
    afterwards, because it may be another one by then.
    """
    _require(os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a regular file, no more than `most` and one, so that a longer file can be told.

    The null device is an empty file. A file whose end is not known (of /proc and the like) is read as long as it
    gives: one that lets us wait is an OSError.
    """
    if os.fspath(path) == os.devnull:
        return b""
    with open_regular(path) as file:
        return _up_to(file, most)


def read_named(path: str, most: int) -> bytes:
    """As `read_regular`, for a file a person names: there a pipe may stand that the shell holds open, `<(command)`.

    Such a pipe is read to its end for `PIPE_S` seconds at most.
    """
    if not path.startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin")) or not stat.S_ISFIFO(os.stat(path).st_mode):
        return read_regular(path, most)
    import select
    import time

    end = time.monotonic() + PIPE_S
    data = bytearray()
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while len(data) <= most:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise OSError(errno.ETIMEDOUT, f"the pipe has not come to its end within {PIPE_S:g} seconds")
            if not (chunk := os.read(descriptor, min(_CHUNK, most + 1 - len(data)))):
                break
            data += chunk
        return bytes(data)
    finally:
        os.close(descriptor)


def _up_to(file: BinaryIO, most: int) -> bytes:
    data = bytearray()
    while len(data) <= most:
        chunk = file.read(min(_CHUNK, most + 1 - len(data)))
        if chunk is None:  # not blocking, and nothing there: a log, a queue
            raise OSError(errno.EAGAIN, "it has no end, only more to come")
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _require(mode: int) -> None:
    """OSError unless it is a regular file."""
    if not stat.S_ISREG(mode):
        what = next((said for is_one, said in _KINDS if is_one(mode)), "it is no file")
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, what)


def ends_with_crlf(text: str) -> bool:
    """Whether all lines of a text end with CRLF, so that lines that are added have to as well."""
    return "\r\n" in text and text.count("\r\n") == text.count("\n")
