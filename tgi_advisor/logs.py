"""What a log of TGI tells: how far the start-up came, the arguments, the GPUs, the KV budget, why it died.

Read are the launcher's and the router's lines in both of their formats (text, with or without colours, and
`--json-output`), also behind the prefixes of docker compose, kubectl and CloudWatch; and whatever stands around
them, such as an `nvidia-smi` table or the output of `--env`. Lines that mean nothing here are passed over, and so is
what only looks as if TGI had said it: any text is a log, and reading it takes time in proportion to its length.
Message texts: launcher/src/main.rs, backends/v3/src/lib.rs and server/text_generation_server of TGI 1.0.0 to 3.3.7.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import islice
from typing import Any, NamedTuple

from tgi_advisor.units import parse_size

Value = Any
"""A launcher argument as Rust's `Debug` prints it: a scalar, list or dictionary; `Some(x)` is x."""

ROUTER_LINES = ("Setting max batch total tokens to", "Connected")
"""Router lines whose place in the source tells the release."""


class Phase(IntEnum):
    """How far a start-up came, in order."""

    ARGUMENTS = 1
    DOWNLOAD = 2
    LOAD = 3
    WARMUP = 4
    READY = 5


_PHASES = (
    ("Args {", Phase.ARGUMENTS),
    ("Starting download process", Phase.DOWNLOAD),
    ("Starting check and download process for ", Phase.DOWNLOAD),
    ("Starting shard", Phase.LOAD),
    ("Warming up model", Phase.WARMUP),
    ("Connected", Phase.READY),
)
_ENUMS = {
    "BitsandbytesNF4": "bitsandbytes-nf4", "BitsandbytesFP4": "bitsandbytes-fp4",
    "BitsandbytesNf4": "bitsandbytes-nf4", "BitsandbytesFp4": "bitsandbytes-fp4",
    "CompressedTensors": "compressed-tensors", "Fp8e4m3fn": "fp8_e4m3fn", "Fp8e5m2": "fp8_e5m2",
}  # fmt: skip
_SECRET = {"api_key", "ngrok_authtoken"}
_WORDS: dict[str, Value] = {"true": True, "false": False, "None": None}

NUMBER = r"(?<!\d)[0-9]{1,15}(?!\d)"
"""A count in a pattern. No count of TGI has more digits; more of them are no number."""
_MOST_OOMS = 200
"""How many out-of-memory messages are read; one shard prints one, or a few with the graphs it does without."""
_PREFIX = 200
"""The longest prefix of another program that is taken off the lines that continue an entry."""
_TABLE_WIDTH = 200
"""The longest line of an `nvidia-smi` table."""

_COLOUR = re.compile(r"(?:\x1b|\\u001b|\\x1b|#033)?\[[0-9;]*m")
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z?"
_HEAD = re.compile(rf"{_TIME}\s+(TRACE|DEBUG|INFO|WARN|ERROR)\s+(.*)")
_BODY = re.compile(
    r"(?:.*?(?:\s|^))?(?P<target>(?:text_generation_|hf_hub|tokenizers)[\w:]*?): "
    rf"(?:(?P<file>\S+\.rs):(?P<line>{NUMBER}): )?(?P<message>.*)"
)
_RANK = re.compile(rf"(?<!\s)\s+rank=({NUMBER})$")
_GPU_NAME = re.compile(r"\|\s+(\d+)\s+(\S.*?)\s+(?:On|Off|N/A|TCC|WDDM)\s*\|\s*[0-9A-Fa-f]{8}:")
_GPU_MEMORY = re.compile(rf"\|\s*({NUMBER})MiB\s*/\s*({NUMBER})MiB\s*\|")
_WORD_OR_SIGN = re.compile(r'"(?:[^"\\]|\\[\s\S])*(?:"|\\?\Z)|[\w.+-]+|[{}()\[\],:]')
"""A text without end goes to the end: looking for one from each quote in turn would take for ever."""

_REASON = re.compile(
    r"^(?:\[rank\d+\]:\s*)?("
    r"(?:Error|error): (?!WebserverFailed|Shard\w+$|DownloadError).*"
    r"|Server error: .*"
    r"|[A-Za-z_.]*(?:Error|Exception): .*"
    r"|(?:Shard|Download) process was signaled to shutdown with signal \d+)",
    re.MULTILINE,
)
_SIZE = r"((?<![0-9.])[0-9]{1,9}(?:\.[0-9]{1,9})? [KMG]i?B)"
_OOM = re.compile(r"(?:CUDA|HIP|XPU) out of memory\. Tried to allocate " + _SIZE)
_OOM_PARTS = {
    "capacity": (rf"total capaci?ty of {_SIZE}", rf"{_SIZE} total capacity"),
    "free": (rf"of which {_SIZE} is free", rf"{_SIZE} free;"),
    "in_use": (rf"process has {_SIZE} memory in use", rf"Process \d+ has {_SIZE} memory in use"),
    "allocated": (rf"{_SIZE} is allocated by PyTorch", rf"{_SIZE} already allocated"),
    "unallocated": (rf"{_SIZE} is reserved by PyTorch but unallocated",),
    "reserved": (rf"{_SIZE} reserved in total by PyTorch",),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry with the lines that continue it; text between entries belongs to the one above."""

    message: str
    """The message, without colours."""
    level: str = ""
    """INFO, WARN, ...; empty for text before the first entry."""
    target: str = ""
    """Who wrote it: `text_generation_launcher`, `text_generation_router::server`, ..."""
    file: str = ""
    """Source file of a router line, such as `router/src/server.rs`."""
    line: int = 0
    """Line in that file; 0 when none is printed."""
    rank: int | None = None
    """The shard it is about."""


class Gpu(NamedTuple):
    """One GPU of an `nvidia-smi` table."""

    name: str
    """As printed; older tables cut long names short with three dots."""
    used_mib: int
    """Memory in use, MiB."""
    total_mib: int
    """`memory.total`, MiB."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """PyTorch's out-of-memory message; bytes, None where its release of PyTorch does not print the figure."""

    tried: int
    """The allocation that failed."""
    capacity: int | None = None
    """The GPU's total, as CUDA reports it."""
    free: int | None = None
    """Free on the GPU."""
    in_use: int | None = None
    """In use by the process, everything counted (PyTorch 2.1 and newer)."""
    allocated: int | None = None
    """In PyTorch's tensors."""
    unallocated: int | None = None
    """Held by PyTorch's allocator without a tensor in it (PyTorch 2.1 and newer)."""
    reserved: int | None = None
    """Held by PyTorch's allocator (PyTorch 2.0 and older)."""

    @property
    def outside(self) -> int | None:
        """Bytes outside PyTorch's allocator: context, kernels, NCCL; for PyTorch 2.0 other processes as well."""
        if self.in_use is not None and self.allocated is not None and self.unallocated is not None:
            return self.in_use - self.allocated - self.unallocated
        if self.capacity is not None and self.free is not None and self.reserved is not None:
            return self.capacity - self.free - self.reserved
        return None


@dataclass(frozen=True, slots=True)
class StartUp:
    """The facts one start-up printed."""

    phase: Phase | None = None
    """The furthest phase it reached; None when no line of TGI was seen."""
    arguments: dict[str, Value] = field(default_factory=dict)
    """The launcher's `Args`, quantize and dtypes in the spelling of the flags."""
    image: str | None = None
    """Tag of the TGI image, where a command or a pull names it."""
    commit: str | None = None
    """Commit TGI was built from (`--env`)."""
    gpus: tuple[Gpu, ...] = ()
    """The last `nvidia-smi` table."""
    shards: int | None = None
    """Number of shards; None when the log does not tell."""
    attention: str | None = None
    """`paged`, `flashdecoding`, `flashinfer`, ..."""
    prefix_caching: bool | None = None
    """Whether prefixes are kept."""
    chunking: bool | None = None
    """Whether prompts are split over several prefills."""
    defaults: dict[str, int] = field(default_factory=dict)
    """Limits TGI chose: max_input_tokens, max_total_tokens, max_batch_prefill_tokens."""
    budget: int | None = None
    """`Setting max batch total tokens to`: tokens of KV cache, the least over the shards."""
    kv_blocks: tuple[int, int] | None = None
    """KV blocks of rank 0 and the tokens in each."""
    router_lines: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Source file and line of the router's lines that tell its release, by how the line begins."""
    out_of_memory: OutOfMemory | None = None
    """The out-of-memory message that says most."""
    failure: str | None = None
    """The line that gives the reason; None when nothing failed, or TGI lived on."""
    died_in: Phase | None = None
    """The phase of that line."""


def start_up(text: str) -> StartUp:
    """The facts of one start-up's log."""
    read = list(entries(text))
    whole = "\n".join(entry.message for entry in read)
    found = StartUp(
        image=_first(r"text-generation-inference:([\w.-]*\d[\w.-]*)", whole),
        commit=_first(r"Commit sha: ([0-9a-f]{7,40})", whole),
        gpus=gpus(whole),
        out_of_memory=out_of_memory(whole),
    )
    for entry in read:
        found = _with(found, entry)
    if found.phase is Phase.READY is not found.died_in:
        found = replace(found, died_in=None, failure=None)  # TGI lived on, e.g. without some CUDA graphs
    if found.shards is None and "env" in found.arguments and (found.phase or 0) >= Phase.LOAD:
        found = replace(found, shards=1)  # whole Args, and no word of sharding
    return found


def entries(text: str) -> Iterator[Entry]:
    """The log's entries in order."""
    entry, more = Entry(""), list[str]()
    prefix = re.compile("")
    for line in text.splitlines():
        line = plain(line)
        start, following = _entry(line)
        if following is None:
            more.append(prefix.sub("", line, count=1))
            continue
        if entry.level or more:
            yield _joined(entry, more)
        entry, more = following, []
        before = line[:start].rstrip()
        if len(before) <= _PREFIX:
            prefix = re.compile("^" + re.sub(r"\d+", r"\\d+", re.escape(before)) + (" ?" if start else ""))
    yield _joined(entry, more)


def plain(line: str) -> str:
    """A line without colours and trailing blanks."""
    return _COLOUR.sub("", line).rstrip()


def beginning(line: str) -> Entry | None:
    """The entry that begins on this plain line, for reading a log as it grows; None for every other line."""
    return _entry(line)[1]


def phase(entry: Entry) -> Phase | None:
    """The phase that begins with this entry; None for every other entry."""
    if entry.level:
        for beginning, begun in _PHASES:
            if entry.message.startswith(beginning):
                return begun
    return None


def arguments(message: str) -> dict[str, Value]:
    """The launcher's `Args { ... }`, on one line or many, without secrets; of one cut short what is there."""
    _, found, text = message.partition("Args ")
    words = iter(_WORD_OR_SIGN.findall(text))
    try:
        fields: dict[str, Value] = _value(next(words), words) if found and text.startswith("{") else {}
    except RecursionError:  # thousands of open brackets: no Args of TGI
        return {}
    return {name: value for name, value in fields.items() if name not in _SECRET}


def gpus(text: str) -> tuple[Gpu, ...]:
    """The GPUs of the last `nvidia-smi` table in a text."""
    table: list[Gpu] = []
    name = ""
    for line in (line for line in text.splitlines() if len(line) <= _TABLE_WIDTH):
        if match := _GPU_NAME.search(line):
            name = match[2]
            if match[1] == "0":
                table = []
        elif name and (match := _GPU_MEMORY.search(line)):
            table.append(Gpu(name, int(match[1]), int(match[2])))
            name = ""
    return tuple(table)


def out_of_memory(text: str) -> OutOfMemory | None:
    """The out-of-memory message of a text; of several the one that prints most figures, the first of equals."""
    found = []
    for match in islice(_OOM.finditer(text), _MOST_OOMS):
        message = text[match.start() : match.start() + 600]
        parts = {name: _size(message, patterns) for name, patterns in _OOM_PARTS.items()}
        found.append((sum(size is not None for size in parts.values()), OutOfMemory(parse_size(match[1]), **parts)))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _with(found: StartUp, entry: Entry) -> StartUp:
    """What was found so far, and what this entry adds."""
    message = entry.message
    new: dict[str, Any] = {}
    if begun := phase(entry):
        new["phase"] = max(found.phase or begun, begun)
    if message.startswith("Args {"):
        new["arguments"] = arguments(message)
    for name, pattern, read in _FIELDS:
        if match := pattern.match(message):
            new[name] = read(match[1])
    if match := _BLOCKS.match(message):
        new["kv_blocks"] = int(match[1]), int(match[2])
    if match := _DEFAULT.match(message):
        new["defaults"] = found.defaults | {match[1] or f"max_{match[2]}_tokens": int(match[3])}
    if entry.file and (beginning := next(filter(message.startswith, ROUTER_LINES), None)):
        new["router_lines"] = found.router_lines | {beginning: (entry.file, entry.line)}
    if found.failure is None and (match := _REASON.search(message)):
        new["failure"], new["died_in"] = match[1], new.get("phase", found.phase)
    return replace(found, **new) if new else found


def _first(pattern: str, text: str) -> str | None:
    """The first group of the first match."""
    match = re.search(pattern, text)
    return match[1] if match else None


def _size(text: str, patterns: tuple[str, ...]) -> int | None:
    """The size one of the patterns finds."""
    sizes = (_first(pattern, text) for pattern in patterns)
    return next((parse_size(size) for size in sizes if size), None)


def _entry(line: str) -> tuple[int, Entry | None]:
    """The entry that begins on this line, and where; None for a line that continues one."""
    if (start := line.find('{"timestamp":')) >= 0:
        try:
            return start, _json_entry(json.loads(line[start:]))
        except (ValueError, AttributeError, TypeError, KeyError, OverflowError, RecursionError):
            return 0, None
    head = _HEAD.search(line)
    if head is None:
        return 0, None
    level, rest = head.groups()
    rank = None
    if match := _RANK.search(rest):
        rest, rank = rest[: match.start()], int(match[1])
    body = _BODY.match(rest)
    if body is None:
        return head.start(), Entry(rest, level, rank=rank)
    file, line_number = body["file"] or "", int(body["line"] or 0)
    return head.start(), Entry(body["message"], level, body["target"], file, line_number, rank)


def _json_entry(row: dict[str, Any]) -> Entry:
    """An entry of `--json-output`: the launcher nests the message in `fields`, the router does not."""
    message = row.get("fields", row)["message"]
    rank = (row.get("span") or {}).get("rank")
    file, line = row.get("filename") or "", row.get("line_number") or 0
    return Entry(
        str(message).rstrip(), str(row["level"]), str(row["target"]), str(file).strip(), int(line),
        rank if type(rank) is int else None,
    )  # fmt: skip


def _joined(entry: Entry, more: list[str]) -> Entry:
    """An entry with the lines that follow it."""
    return replace(entry, message="\n".join([entry.message, *more]).strip("\n")) if more else entry


def _value(word: str, words: Iterator[str]) -> Value:
    """The value that begins with this word, in the form of Rust's `Debug`; a text cut short ends what is open."""
    if word == "Some":
        next(words, None)
        inner = _value(next(words, "None"), words)
        following = next(words, ")")
        while following != ")":
            following = next(words, ")")
        return inner
    if word == "[":
        return [_value(item, words) for item in iter(lambda: next(words, "]"), "]") if item != ","]
    if word == "{":
        fields: dict[str, Value] = {}
        for name in iter(lambda: next(words, "}"), "}"):
            if name != "," and next(words, "}") == ":":
                fields[name] = _value(next(words, "None"), words)
        return fields
    return _scalar(word)


def _scalar(word: str) -> Value:
    """A number, a text, true, false, None, or an enum's value in the spelling of the flag."""
    if word.startswith('"'):
        return word[1:].removesuffix('"').replace('\\"', '"')
    if word in _WORDS:
        return _WORDS[word]
    if re.fullmatch(r"-?[0-9]{1,20}", word):
        return int(word)
    if re.fullmatch(r"-?[0-9]{1,20}\.[0-9]+", word):
        return float(word)
    return _ENUMS.get(word, word.lower())


def _yes(text: str) -> bool:
    """Whether a switch is on: `true`, `True` or `1`."""
    return text in ("true", "True", "1")


_FIELDS: tuple[tuple[str, re.Pattern[str], Callable[[str], Any]], ...] = (
    ("attention", re.compile(r"Using attention (\S+) - "), str),
    ("prefix_caching", re.compile(r"Using attention \S+ - Prefix caching (\S+)"), _yes),
    ("attention", re.compile(r"Using Attention = (\S+)"), str),
    ("prefix_caching", re.compile(r"Using prefix caching = (\S+)"), _yes),
    ("chunking", re.compile(r"Using (?:experimental )?prefill chunking = (\S+)"), _yes),
    ("shards", re.compile(rf"Sharding model on ({NUMBER}) processes"), int),
    ("budget", re.compile(rf"Setting max batch total tokens to ({NUMBER})"), int),
)
_BLOCKS = re.compile(rf"KV-cache blocks: ({NUMBER}), size: ({NUMBER})")
_DEFAULT = re.compile(rf"(?:Default `(max_\w{{1,40}})` to|Maximum (input|total) tokens defaulted to) ({NUMBER})")
