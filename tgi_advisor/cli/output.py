"""What reaches the terminal, whatever its encoding, width and colours, and whether or not it still listens."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import click

from tgi_advisor.errors import Exit, UsageError
from tgi_advisor.safe import printable

if TYPE_CHECKING:
    from tgi_advisor.plan import Plan

_BLOCKS = str.maketrans("█▉▊▋▌▍▎▏", "########")


_gone: set[int] = set()
"""Streams (by identity) whose reader went away."""


def unread() -> bool:
    """Whether the reader of standard output went away, so that nothing more need be said."""
    return sys.stdout is None or id(sys.stdout) in _gone


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print; a reader that went away (`| head`, a terminal that was closed) is left in peace.

    A full disk is a UsageError, but not of standard error: there is nowhere left to say so.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed by the caller (`>&-`): nobody wants to know
        return
    try:
        click.echo(_writable(text, stream.encoding), nl=nl, err=err, color=colour(stream))
    except OSError as error:
        problem = unwritable(error, stream)
        _gone.add(id(stream))
        if not (err or isinstance(error, BrokenPipeError) or error.errno == errno.EIO):
            raise problem from None


def draw(text: str) -> None:
    """Write to the terminal behind standard error as it is, cursor movements and all; to one that is gone, nothing."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError as error:
        unwritable(error, sys.stderr)


def unwritable(error: OSError, stream: TextIO) -> UsageError:
    """What to say of a stream that failed; what it still buffers is dropped, or it would fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return UsageError(f"the output cannot be written: {error.strerror}")


def _writable(text: str, encoding: str | None) -> str:
    """The text in characters the stream has; click itself turns ASCII into UTF-8."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError as error:
        if error.encoding == "ascii":
            return text
        return text.translate(_BLOCKS).encode(error.encoding, "backslashreplace").decode(error.encoding)
    return text


def progress() -> Callable[[str], None] | None:
    """A line on standard error that is overwritten, on a terminal; None elsewhere."""
    stream = sys.stderr
    if stream is None or not stream.isatty() or os.environ.get("TERM") == "dumb":
        return None

    return lambda text: draw(f"\r\x1b[2K{printable(text)}")


def width() -> int:
    """Columns to write for: COLUMNS, else the terminal's (before a pager too), else 100; from 60 to 140."""
    asked = os.environ.get("COLUMNS", "")
    if not asked.isdecimal() or len(asked) > 9 or int(asked) == 0:
        asked = str(next(filter(None, map(_columns, (1, 2, 0))), 100))
    return max(60, min(140, int(asked)))


def _columns(descriptor: int) -> int | None:
    """Columns of the terminal behind a descriptor; None where there is none."""
    try:
        return os.get_terminal_size(descriptor).columns
    except OSError:
        return None


def colour(stream: TextIO | None = None) -> bool:
    """Whether to colour a stream, standard output by default: on a terminal, unless the environment says otherwise.

    NO_COLOR is above FORCE_COLOR and CLICOLOR_FORCE, these are above CLICOLOR=0 and TERM=dumb.
    """
    said = os.environ.get
    if said("NO_COLOR") or said("FORCE_COLOR") == "0":
        return False
    if said("FORCE_COLOR") or said("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    if said("CLICOLOR") == "0" or said("TERM") == "dumb":
        return False
    stream = stream or sys.stdout
    return stream is not None and stream.isatty()


def exit_code(plan: Plan) -> Exit:
    """What a command that shows a plan ends with."""
    codes = {"starts": Exit.STARTS, "refused": Exit.REFUSED, "out_of_memory": Exit.OUT_OF_MEMORY}
    return codes[plan.prediction.outcome]
