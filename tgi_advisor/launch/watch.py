"""What a starting server says, line by line, as the steps of its start-up.

Pure: bytes of the log stream go in, `Step`s come out. Message texts are those of launcher/src/main.rs,
server/text_generation_server and the router at 1.0.0 to 3.3.7.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from tgi_advisor import logs
from tgi_advisor.logs import NUMBER
from tgi_advisor.safe import named, printable

LINE_LIMIT = 32_768
"""Bytes of one line that are kept; a longer line loses its middle no one reads."""
KEPT_HEAD, KEPT_TAIL = 400, 4_000
"""Lines kept of the beginning (arguments, defaults) and of the end (why it died)."""
KEPT_CHARACTERS = 1 << 20
"""The most characters kept of either."""

Name = Literal["pending", "image", "start", "download", "convert", "load", "warmup", "budget", "graphs", "connected"]

PATIENCE_S: dict[Name, float] = {
    "pending": 60, "image": 300, "start": 60, "download": 120, "convert": 300, "load": 300, "warmup": 300,
    "budget": 300, "graphs": 300, "connected": 60,
}  # fmt: skip
"""Seconds without progress worth a word, by step; loading and warming up print nothing while they work."""

WHAT: dict[Name, str] = {
    "pending": "waiting for a node",
    "image": "pulling the image",
    "start": "starting the launcher",
    "download": "downloading weights",
    "convert": "converting weights to safetensors",
    "load": "loading the model onto the GPU",
    "warmup": "warming up",
    "budget": "setting up the KV cache",
    "graphs": "capturing CUDA graphs",
    "connected": "waiting for /health",
}
"""What the server is doing in a step."""


@dataclass(frozen=True)
class Step:
    """One sign of progress."""

    name: Name
    """Where the start-up is."""
    text: str
    """What it says, in a few words."""
    done: int | None = None
    """Files or shards done."""
    of: int | None = None
    """Files or shards in all."""
    alive: bool = True
    """Whether it is progress; TGI also repeats that it still waits."""


_TEXTS: tuple[tuple[str, Name, str], ...] = (
    (r"Args \{", "start", "the launcher has read its arguments"),
    (r"Starting (?:check and )?download process", "download", "checking which weights are missing"),
    (r"Files are already present on the host", "download", "the weights are there already"),
    (r"File (?P<file>\S+) already present in cache", "download", "{file} is there already"),
    (r"Download file: (?P<file>\S+)", "download", "downloading {file}"),
    (r"Downloaded (?:\S*/)?(?P<file>[^\s/]+) in (?P<took>[\d:.]+)", "download", "downloaded {file} in {took}"),
    (rf"Download: \[(?P<done>{NUMBER})/(?P<of>{NUMBER})\] -- ETA: (?P<eta>[\d:.]+)",
     "download", "{done} of {of} files, {eta} to go"),
    (rf"Retrying in (?P<seconds>{NUMBER}) seconds", "download", "a download failed; TGI tries again in {seconds} s"),
    (r"No safetensors weights found", "convert", "no safetensors: TGI downloads .bin files and converts them"),
    (rf"Convert: \[(?P<done>{NUMBER})/(?P<of>{NUMBER})\] -- Took: (?P<took>[\d:.]+)",
     "convert", "converted {done} of {of} files"),
    (r"Successfully downloaded weights", "download", "all weights are there"),
    (rf"Sharding model on (?P<of>{NUMBER}) processes", "start", "{of} shards"),
    (r"Starting shard", "load", "shard {rank} starts"),
    (r"Waiting for shard", "load", "shard {rank} still loads"),
    (r"Shard ready in (?P<took>\S+)", "load", "shard {rank} is ready after {took}"),
    (r"Warming up model", "warmup", "a prefill of max_batch_prefill_tokens runs"),
    (rf"KV-cache blocks: (?P<blocks>{NUMBER}), size: (?P<size>{NUMBER})",
     "warmup", "{blocks} KV blocks of {size} tokens"),
    (r"Cuda Graphs are enabled for sizes", "graphs", "capturing CUDA graphs"),
    (rf"Setting max batch total tokens to (?P<tokens>{NUMBER})", "budget", "max_batch_total_tokens is {tokens}"),
    (r"Connected$", "connected", "the router opens its port"),
)  # fmt: skip
_KEY = 3
_STEPS: dict[str, list[tuple[re.Pattern[str], Name, str]]] = {}
for _pattern, _name, _text in _TEXTS:
    _STEPS.setdefault(_pattern[:_KEY], []).append((re.compile(_pattern), _name, _text))
_MAYBE = re.compile("|".join(_STEPS))
"""Passes over most lines of a long log without reading them."""
_WAITING = "Waiting for shard"


def step(entry: logs.Entry) -> Step | None:
    """The step an entry tells of; None for most."""
    message = entry.message
    for pattern, name, text in _STEPS.get(message[:_KEY], ()):
        if match := pattern.match(message):
            found = match.groupdict()
            words: dict[str, Any] = {key: named(value.strip().rstrip(".")) for key, value in found.items()}
            words["rank"] = entry.rank or 0
            done, of = _int(found.get("done")), _int(found.get("of"))
            return Step(name, text.format(**words), done, of, alive=not message.startswith(_WAITING))
    return None


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


class Lines:
    """Cuts a stream of bytes into lines of text; a line longer than LINE_LIMIT is cut short."""

    def __init__(self) -> None:
        self._rest = b""
        self._over = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that end in this chunk."""
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            line, self._rest = self._rest + part, b""
            over, self._over = self._over, False
            yield _as_text(line[:LINE_LIMIT], over or len(line) > LINE_LIMIT)
        room = LINE_LIMIT - len(self._rest)
        self._over |= len(rest) > room
        self._rest += rest[: max(0, room)]

    def end(self) -> Iterator[str]:
        """What is left when the stream ends without a newline."""
        if self._rest:
            yield _as_text(self._rest, self._over)
            self._rest = b""


_KEPT_ESCAPES = "\t\x1b"
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in _KEPT_ESCAPES}


def _as_text(line: bytes, cut: bool) -> str:
    """A line as text: what is not UTF-8 is marked, control characters go; colours stay, the parser removes them."""
    text = line.decode("utf-8", "replace")
    if not text.isprintable():
        text = printable(text.translate(_CONTROL), keep=_KEPT_ESCAPES)
    return text + (" [...]" if cut else "")


class Moment(NamedTuple):
    """When the engine took down a piece of a log; later ones of one engine are larger."""

    second: str
    """`2026-01-02T03:04:05`; empty before any."""
    fraction: str
    """Nine digits."""
    zone: str
    """`Z`, or hours and minutes from UTC."""

    @property
    def seconds(self) -> int | None:
        """Since 1970, rounded down; None when it is not known, which asks the engine for the whole log."""
        if self.zone != "Z":
            return None
        try:
            return int(datetime.fromisoformat(f"{self.second}+00:00").timestamp()) or None
        except (ValueError, OverflowError, OSError):
            return None


BEGINNING = Moment("", "", "")
"""Before the first piece."""
_MOMENT = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")


def unstamped(chunk: bytes) -> tuple[Moment | None, bytes]:
    """A piece of a log that was asked for with timestamps: when it was taken down, and the piece itself."""
    if (match := _MOMENT.match(chunk)) is None:
        return None, chunk
    second, fraction, zone = (part.decode() for part in match.groups(b""))
    return Moment(second, fraction.ljust(9, "0"), zone), chunk[match.end() :]


class Kept:
    """The beginning and the end of a log, in bounded memory."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_size = self._tail_size = 0

    def add(self, line: str) -> None:
        """Keep a line."""
        if len(self._head) < KEPT_HEAD and self._head_size + len(line) <= KEPT_CHARACTERS:
            self._head.append(line)
            self._head_size += len(line)
            return
        self._tail.append(line)
        self._tail_size += len(line)
        while len(self._tail) > KEPT_TAIL or self._tail_size > KEPT_CHARACTERS:
            self._tail_size -= len(self._tail.popleft())

    def text(self) -> str:
        """Everything kept."""
        return "\n".join((*self._head, *self._tail))


class Progress:
    """Follows one start-up."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.now: Name = "start"
        self._lines = Lines()

    def feed(self, chunk: bytes) -> Iterator[tuple[str, Step | None]]:
        """Each line that ended, without escape sequences, with the step it tells of."""
        for line in self._lines.feed(chunk):
            yield self._read(line)

    def end(self) -> Iterator[tuple[str, Step | None]]:
        """The line the stream ended in."""
        for line in self._lines.end():
            yield self._read(line)

    def _read(self, line: str) -> tuple[str, Step | None]:
        if "[" in line or "\x1b" in line:
            line = logs.plain(line).replace("\x1b", "")
        self.kept.add(line)
        entry = logs.beginning(line) if _MAYBE.search(line) else None
        found = step(entry) if entry else None
        if found:
            self.now = found.name
        return line, found
