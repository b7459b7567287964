"""The files `validate` is pointed at: found in folders, read within bounds, and what lies beside them.

Nothing here is judged. A file that cannot be text is left alone, one that cannot be read says why.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from glob import escape, iglob
from itertools import islice
from typing import NamedTuple

from tgi_advisor.bounds import MAX_BESIDE, MAX_DEPLOYMENT
from tgi_advisor.errors import Problem, UsageError, did_you_mean
from tgi_advisor.reading import read_named, read_regular
from tgi_advisor.safe import printable

SUFFIXES = frozenset(
    (
        "yaml", "yml", "json", "jsonc", "tpl", "tmpl", "j2", "sh", "bash", "zsh", "fish", "bat", "cmd", "ps1", "mk",
        "md", "mdx", "markdown", "rst", "adoc", "qmd", "txt", "env", "service", "container", "conf", "py", "ipynb",
        "tf", "hcl", "nomad", "slurm", "sbatch", "ts", "js", "tsx", "jsx", "mjs", "cjs", "mts",
        "dockerfile", "containerfile",
    )
)  # fmt: skip
"""Endings of the files a folder is searched for."""
NAMES = frozenset({"makefile", "justfile", "dockerfile", "containerfile"})
"""Names without an ending that are read too, in any case."""
LEFT_OUT = frozenset(
    {
        ".git", ".hg", ".svn", ".tox", ".nox", ".venv", "venv", "node_modules", "__pycache__", "__pypackages__",
        ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".terraform", "site-packages", ".idea",
    }
)  # fmt: skip
"""Folders that hold what others wrote; they are not entered."""
MAX_LISTED = 60
"""Files around a manifest that are looked at."""
STDIN = "<stdin>"
"""How standard input is called."""


class Text(NamedTuple):
    """A file that was read."""

    text: str
    """Its text; bytes that are none keep their value as lone surrogates, so that it can be written back."""
    codec: str
    """What it was decoded with, byte order mark included."""
    whole: bool
    """Whether all of it was read."""

    @property
    def data(self) -> bytes:
        """The bytes it was read from."""
        return self.text.encode(self.codec, "surrogateescape" if self.codec == "utf-8" else "surrogatepass")


def find(paths: Iterable[str], excluded: Callable[[str], bool] = lambda _: False) -> Iterator[str]:
    """Every file that is meant: files as named, folders and what lies below them, patterns, `-`; each once.

    UsageError before the first file when something named does not exist. `excluded` is asked of what
    is found in folders and by patterns, never of a file that is named.
    """
    named = list(paths)
    if missing := [problem for path in named if (problem := _missing(path))]:
        raise UsageError("there is nothing to check by that name", problems=missing)
    seen: set[str] = set()
    for path in named:
        for found in _expanded(path, excluded):
            key = os.path.realpath(found) if found != "-" else found
            if key not in seen:
                seen.add(key)
                yield found


def load(path: str) -> Text | None:
    """The text of a file or of standard input (`-`), at most `MAX_DEPLOYMENT`; None when it is not text.

    UsageError when it cannot be read.
    """
    if not path:
        raise UsageError("a file without a name cannot be read", "Name a file, or - for standard input.")
    data = _bytes(path)
    whole = len(data) <= MAX_DEPLOYMENT
    data = data[:MAX_DEPLOYMENT]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        codec = "utf-16-le" if data[0] == 0xFF else "utf-16-be"
        try:
            return Text(data[: len(data) // 2 * 2].decode(codec, "surrogatepass"), codec, whole)
        except UnicodeDecodeError:
            return None
    if b"\0" in data[:8192]:
        return None
    return Text(data.decode("utf-8", "surrogateescape"), "utf-8", whole)


def save(path: str, text: Text, before: Text) -> None:
    """Write a file anew, all of it or nothing; `before` is what was read there.

    A link stays a link, and mode and owner stay. UsageError when it cannot be written, or is no longer what was read.
    """
    real = os.path.realpath(path)
    try:
        with open(real, "r+b", buffering=0) as stream:  # which says whether it may be written, as its mode has it
            if not before.whole or stream.read(MAX_DEPLOYMENT + 1) != before.data:
                raise UsageError(f"{shown(path)} has changed since it was read, and is left as it is", "Run it again.")
            status = os.fstat(stream.fileno())
            if status.st_nlink > 1 or not _replaced(real, text.data, status):
                _overwritten(stream, text.data, before.data)
    except OSError as error:
        raise UsageError(f"{shown(path)} cannot be written: {error.strerror}") from None


def _replaced(real: str, data: bytes, status: os.stat_result) -> bool:
    """Whether another file could take its place: not where its folder is closed, it is mounted or its owner is lost."""
    from shutil import copystat
    from tempfile import mkstemp

    new = ""
    try:
        descriptor, new = mkstemp(prefix=".tgi-advisor-", dir=os.path.dirname(real))
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if hasattr(os, "chown"):
            os.chown(new, status.st_uid, status.st_gid)
        copystat(real, new)
        os.utime(new)
        os.replace(new, real)
        new = ""
    except OSError:
        return False
    finally:
        if new:
            os.unlink(new)
    return True


def _overwritten(stream: io.FileIO, data: bytes, before: bytes) -> None:
    """Other bytes in the same file; what was there stands again where that fails half way."""
    try:
        _put(stream, data)
    except BaseException:
        _put(stream, before)
        raise


def _put(stream: io.FileIO, data: bytes) -> None:
    stream.seek(0)
    left = memoryview(data)
    while left:
        left = left[stream.write(left) or 0 :]
    stream.truncate()


def leaves(path: str, named: Iterable[str]) -> bool:
    """Whether a file that was found is a link to one that lies in none of the named folders (of a pattern: here)."""
    if not os.path.islink(path):
        return False
    real = os.path.realpath(path)
    folders = {os.path.realpath(one if os.path.isdir(one) else ".") for one in named}
    return not any(real.startswith(os.path.join(folder, "")) for folder in folders)


class Beside:
    """Looks up the files that a file names, in its own folder, and remembers them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = "" if path == "-" else os.path.dirname(path)
        self.found: dict[str, str] = {}
        """Texts that were handed out, by the name they were asked for."""

    def __call__(self, name: str) -> str | None:
        """The text of a regular file next to the file (or below, or above it); None when there is none.

        An absolute path is a path of the machine that runs the server, not of this one.
        """
        if not name or os.path.isabs(name) or name.startswith("~"):
            return None
        if name not in self.found:
            text = _regular(self.path_of(name))
            if text is None:
                return None
            self.found[name] = text
        return self.found[name]

    def listed(self) -> Sequence[str]:
        """Names of the other YAML files in its folder, and of the Kustomize files above it and in folders beside it;
        nothing where there are more than `MAX_LISTED`.
        """
        if self.path == "-":
            return ()
        top, here = escape(self.folder or "."), os.path.basename(self.path)
        patterns = (
            "*.y*ml", "../kustomization.y*ml", "../../kustomization.y*ml", "../*/kustomization.y*ml",
            "../overlays/*/kustomization.y*ml", "../../overlays/*/kustomization.y*ml",
        )  # fmt: skip
        several = [list(islice(iglob(f"{top}/{pattern}"), MAX_LISTED + 1)) for pattern in patterns]
        found = [path for paths in several if len(paths) <= MAX_LISTED for path in paths]
        names = (os.path.relpath(path, self.folder or ".").replace(os.sep, "/") for path in found)
        return sorted({name for name in names if name != here})

    def path_of(self, name: str) -> str:
        """Where such a file lies, as seen from the working directory."""
        return os.path.normpath(os.path.join(self.folder, name)) if self.folder else name


def folder_of(path: str) -> str:
    """The folder a file lies in, as an absolute path; of `-` the one we stand in."""
    return os.path.abspath("." if path == "-" else os.path.dirname(path) or ".")


def below(folder: str, path: str) -> str | None:
    """Where a relative path lies below a folder, links followed; None where it leads out of it or to no folder."""
    top = os.path.realpath(folder)
    there = os.path.realpath(os.path.join(top, path))
    return there if there.startswith(top.rstrip("/") + "/") and os.path.isdir(there) else None


def named_in(folder: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Path and text of each of these files that a folder has; the path as short as it can be said from here."""
    for name in names:
        path = os.path.join(folder, name)
        if (text := _regular(path)) is not None:
            here = os.path.relpath(path)
            yield path if here.startswith("..") else here, text


def matches(path: str, patterns: Iterable[str], base: str = "") -> bool:
    """Whether a path, its name or a folder on its way fits one of the patterns, as `exclude` has it.

    A pattern with a slash is compared with the path as seen from `base`, one without with each name on it.
    """
    seen = os.path.relpath(path, base or ".").replace(os.sep, "/")
    steps = seen.split("/")
    heads = ["/".join(steps[: count + 1]) for count in range(len(steps))]
    plain = [pattern.strip("/") for pattern in patterns]
    return any(fnmatch(one, pattern) for pattern in plain for one in (heads if "/" in pattern else steps))


def shown(path: str) -> str:
    """A path as it may stand in a message."""
    return printable(path)


def _missing(path: str) -> Problem | None:
    """What is wrong with a path on the command line, as far as that can be seen without reading it."""
    if path == "-":
        return None if sys.stdin is not None else Problem("standard input is closed", "name a file, or pipe one in")
    try:
        if os.path.lexists(path):
            return None
    except ValueError:
        return Problem(f"{shown(path)} is no path")
    if any(character in path for character in "*?["):
        return None if _globbed(path) else Problem(f"no file matches {shown(path)}")
    folder = os.path.dirname(path)
    try:
        there = [os.path.join(folder, name) for name in os.listdir(folder or ".")]
    except OSError:
        there = []
    return Problem(f"{shown(path)} does not exist", did_you_mean(path, there))


def _globbed(pattern: str) -> list[str]:
    from glob import glob

    return sorted(glob(pattern, recursive=True))


def _expanded(path: str, excluded: Callable[[str], bool]) -> Iterator[str]:
    if path == "-":
        yield path
    elif os.path.isdir(path):
        yield from _below(path, excluded)
    elif os.path.lexists(path):
        yield path
    else:
        yield from (found for found in _globbed(path) if os.path.isfile(found) and not excluded(found))


def _below(folder: str, excluded: Callable[[str], bool]) -> Iterator[str]:
    """The readable files below a folder, in the order of their names; links to folders are not followed."""
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        below = []
        for entry in found:
            path = entry.path.removeprefix("./")
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in LEFT_OUT and not excluded(path):
                        below.append(path)
                elif entry.is_file() and not excluded(path) and (_readable(entry.name) or _is_script(entry)):
                    yield path
            except OSError:
                continue
        folders += reversed(below)


_OF_IMAGE = re.compile(r"(?:.*[._-])?(?:docker|container)file(?:[._-].*)?")
"""A Dockerfile, whatever it is told apart by: `Dockerfile-rocm`, `tgi_dockerfile`, `Dockerfile.gpu`."""


def _readable(name: str) -> bool:
    """Whether a file of this name may start a server."""
    plain = name.lower()
    stem, dot, suffix = plain.rpartition(".")
    known = suffix in SUFFIXES or stem in NAMES if dot else plain in NAMES
    return known or ".env" in plain or plain.startswith("env.") or _OF_IMAGE.fullmatch(plain) is not None


def _is_script(entry: os.DirEntry[str]) -> bool:
    """Whether a file without an ending begins as a program that a shell or Python runs (`#!/bin/sh`)."""
    if "." in entry.name:
        return False
    try:
        with open(entry.path, "rb") as stream:
            return _SHEBANG.match(stream.read(128)) is not None
    except OSError:
        return False


_SHEBANG = re.compile(rb"#![^\n]*[/ ](?:sh|bash|zsh|dash|ash|ksh|fish|python[\d.]*)\b")


def _bytes(path: str) -> bytes:
    if path == "-" and sys.stdin is None:
        raise UsageError("standard input is closed", "Name a FILE, or pipe one in.")
    try:
        if path == "-":
            return sys.stdin.buffer.read(MAX_DEPLOYMENT + 1)
        return read_named(path, MAX_DEPLOYMENT)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{shown(path)} cannot be read: {reason}") from None


def _regular(path: str) -> str | None:
    """The text of a regular file of moderate size; None for anything else."""
    try:
        data = read_regular(path, MAX_BESIDE)
    except (OSError, ValueError):
        return None
    return data.decode("utf-8", "replace") if len(data) <= MAX_BESIDE else None
