"""What launches measured: one row each in one file of the user's data folder.

A row holds no path, no host name and no secret. Rows are appended under a lock, each in one write, so that several
launches at once lose nothing.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tgi_advisor.errors import UsageError
from tgi_advisor.reading import home, open_regular
from tgi_advisor.safe import printable
from tgi_advisor.units import MiB, human

if TYPE_CHECKING:
    from tgi_advisor.logs import StartUp
    from tgi_advisor.plan import Plan


LOCK_S = 10.0
"""Seconds for which others may write before a row is given up."""
LINE_BYTES = 1 << 20
"""The longest line that is read; a row has less than a kilobyte."""
MOST = 1 << 62
"""No figure of a row is as large."""


class Row(NamedTuple):
    """One launch: what was asked, what was predicted, what TGI measured."""

    at: str
    """When, UTC, ISO 8601."""
    model: str
    """Hub id, or the name of a local folder without its path."""
    commit: str | None
    """Commit of the weights."""
    gpu: str
    """GPU by its name in the table, or as printed."""
    gpu_memory_mib: int
    """Its memory, MiB."""
    gpu_count: int
    """GPUs the container saw."""
    release: str
    """TGI release."""
    variant: str
    """Image variant; empty for NVIDIA."""
    num_shard: int
    """Shards."""
    memory_fraction: float
    """--cuda-memory-fraction."""
    limits: Mapping[str, int]
    """Limits it was started with."""
    outcome: str
    """`starts`, or the cause of the failure."""
    predicted: int | None
    """max_batch_total_tokens as predicted."""
    observed: int | None
    """max_batch_total_tokens as TGI inferred it."""
    kv_bytes_per_token: int
    """KV cache bytes of a token on one GPU."""
    headroom_bytes: int
    """Memory per GPU the plan left unplanned."""
    seconds: float
    """From start to ready, or to the failure."""
    dtype: str | None = None
    """model.dtype of the spec."""
    quantize: str | None = None
    """model.quantize of the spec."""
    kv_cache_dtype: str | None = None
    """model.kv_cache_dtype of the spec."""
    in_use_bytes: int = 0
    """What others held of each GPU, as planned."""
    seen: Mapping[str, Any] = {}
    """What the log said: attention, kv_blocks, block_size, chunking, defaults, oom."""
    place: str | None = None
    """`docker` or `kubernetes`; None in rows of versions that did not say."""

    @property
    def difference(self) -> float | None:
        """How far the prediction was off: (predicted - observed) / observed."""
        return None if not self.predicted or not self.observed else (self.predicted - self.observed) / self.observed

    @property
    def short_bytes(self) -> int:
        """Memory per GPU the prediction saw and TGI did not have; 0 when TGI had more."""
        if not self.predicted or not self.observed:
            return 0
        return max(0, self.predicted - self.observed) * self.kv_bytes_per_token


def path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file: in TGI_ADVISOR_DATA, else in the user's data folder."""
    if own := environ.get("TGI_ADVISOR_DATA"):
        return Path(own) / "history.jsonl"
    if data := environ.get("XDG_DATA_HOME"):
        return Path(data) / "tgi-advisor" / "history.jsonl"
    folder = Path(home(environ))
    if sys.platform == "darwin":
        return folder / "Library" / "Application Support" / "tgi-advisor" / "history.jsonl"
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or folder) / "tgi-advisor" / "history.jsonl"
    return folder / ".local" / "share" / "tgi-advisor" / "history.jsonl"


def add(row: Row, file: Path | None = None) -> None:
    """Append a row; UsageError when the file cannot be written."""
    file = file or path()
    line = _encoded(row._asdict()) + b"\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():
            raise OSError(errno.EINVAL, "it is no regular file")
        with file.open("ab+", buffering=0) as out:
            _lock(out.fileno())
            end = out.seek(0, os.SEEK_END)
            if end:
                out.seek(end - 1)
                line = line if out.read(1) == b"\n" else b"\n" + line  # a writer before us died in mid-line
            out.write(line)
    except OSError as error:
        raise UsageError(
            f"the history {file} cannot be written: {error.strerror}", "TGI_ADVISOR_DATA names another folder."
        ) from None


def _lock(descriptor: int) -> None:
    """Wait until no other launch writes; the lock goes with the file. Without locks, one write a row has to do.

    OSError when somebody does not let go of it: a row is not worth waiting for ever.
    """
    if sys.platform == "win32":
        return
    import fcntl

    end = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203
            if time.monotonic() > end:
                raise OSError(errno.EAGAIN, f"another program has held its lock for {LOCK_S:g} s") from None
            time.sleep(0.02)
        else:
            return


def _encoded(value: Any) -> bytes:
    """As JSON; a folder's name may hold bytes that are no text."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def rows(file: Path | None = None) -> tuple[list[Row], int]:
    """All rows, oldest first, and how many lines could not be read."""
    found = []
    unreadable = 0
    for line in _lines(file or path()):
        row = _row(line)
        if row is None:
            unreadable += 1
        else:
            found.append(row)
    return found, unreadable


def lookup(model: str, gpu: str, release: str, file: Path | None = None) -> list[Row]:
    """The rows of one model, GPU and release, oldest first; lines of others are not even parsed."""
    return _near(model, gpu, release, file)[0]


def _near(model: str, gpu: str, release: str, file: Path | None = None) -> tuple[list[Row], int]:
    """The rows that `lookup` finds, and how many lines with these names could not be read."""
    marks = [_encoded(word) for word in (model, gpu, release)]
    near = [_row(line) for line in _lines(file or path()) if all(mark in line for mark in marks)]
    return [row for row in near if row and (row.model, row.gpu, row.release) == (model, gpu, release)], near.count(None)


def model_name(model: str, folder: str | None) -> str:
    """How a model is called in the history: its Hub id, or the last part of a folder."""
    return model if folder is None else folder.rstrip("/").rpartition("/")[2] or model


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with io.BufferedReader(open_regular(file)) as source:  # type: ignore[type-var]
            while line := source.readline(LINE_BYTES):
                if line.strip():
                    yield line
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"the history {file} cannot be read: {error.strerror}") from None


_FIELDS = frozenset(Row._fields)
_TEXTS = ("at", "model", "gpu", "release", "variant", "outcome")
_TEXTS_OR_NONE = ("commit", "dtype", "quantize", "kv_cache_dtype", "place")
_COUNTS = ("gpu_memory_mib", "gpu_count", "num_shard", "kv_bytes_per_token", "headroom_bytes", "in_use_bytes")
_COUNTS_OR_NONE = ("predicted", "observed")
_NUMBERS = ("memory_fraction", "seconds")


def _row(line: bytes) -> Row | None:
    """A row; None for a line that is none. Fields a later version added are passed over."""
    try:
        given = json.loads(line)
        row = Row(**{name: value for name, value in given.items() if name in _FIELDS})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    values = row._asdict()
    sound = (
        all(type(values[name]) is str for name in _TEXTS)
        and all(values[name] is None or type(values[name]) is str for name in _TEXTS_OR_NONE)
        and all(_is_count(values[name]) for name in _COUNTS)
        and all(values[name] is None or _is_count(values[name]) for name in _COUNTS_OR_NONE)
        and all(type(values[name]) in (int, float) and 0 <= values[name] < MOST for name in _NUMBERS)
        and type(row.limits) is dict
        and all(map(_is_count, row.limits.values()))
        and type(row.seen) is dict
    )
    return row if sound else None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST


def remembered(plan: Plan) -> tuple[list[str], int]:
    """What comparable launches showed, in words, and the headroom per GPU that they ask for in bytes.

    UsageError when the file cannot be read; of a line that cannot be read only that is said.
    """
    rows, unreadable = like(plan)
    text, needed = lesson(rows)
    lines = "a line" if unreadable == 1 else f"{unreadable} lines"
    said = f"{lines} about this model, GPU and release in the history {path()} cannot be read and is passed over"
    return [*([text] if text else []), *([said] if unreadable else [])], needed


def like(plan: Plan) -> tuple[list[Row], int]:
    """The rows of launches that spent memory as this plan does: model, GPU, release, shards, dtypes, fraction.

    And how many lines of the same model, GPU and release could not be read.
    """
    facts, spec = plan.facts, plan.spec
    rows, unreadable = _near(model_name(facts.model.id, facts.model.folder), facts.gpu.name, facts.release.name)
    how = (plan.prediction.num_shard, spec.hardware.memory_fraction, spec.model.dtype, spec.model.quantize,
           spec.model.kv_cache_dtype, facts.variant)  # fmt: skip
    return [
        row
        for row in rows
        if (row.num_shard, row.memory_fraction, row.dtype, row.quantize, row.kv_cache_dtype, row.variant) == how
    ], unreadable


def lesson(rows: Sequence[Row]) -> tuple[str | None, int]:
    """What the last of comparable launches showed, and the headroom per GPU they ask for in bytes.

    A KV cache smaller than predicted asks for what was missing; running out of memory at warm-up for what was kept
    then and 2 % of the GPU; a start shows that what was kept then is enough.
    """
    text, needed = None, 0
    for row in rows:
        on = f"a launch here on {printable(row.at[:10])}"
        if row.outcome == "out_of_memory_at_warmup":
            needed = max(needed, row.headroom_bytes + (row.gpu_memory_mib << 20) // 50)
            text = f"{on} ran out of memory at warm-up with {human(row.headroom_bytes)} of headroom"
        elif row.difference is not None:
            needed = max(min(needed, row.headroom_bytes), row.short_bytes)
            text = (
                f"{on} measured max_batch_total_tokens {row.observed:,} where {row.predicted:,} were predicted "
                f"({100 * row.difference:+.1f} %)"
            )
    return text, needed


def measured(plan: Plan, outcome: str, seen: StartUp, seconds: float, place: str) -> Row:
    """The row of a launch: how it ended, what its log said, how long that took, and which kind of place it was."""
    from datetime import datetime, timezone

    facts, spec, prediction = plan.facts, plan.spec, plan.prediction
    said: dict[str, Any] = {
        "attention": seen.attention, "prefix_caching": seen.prefix_caching, "chunking": seen.chunking,
        "defaults": seen.defaults,
    }  # fmt: skip
    if seen.kv_blocks:
        said |= {"kv_blocks": seen.kv_blocks[0], "block_size": seen.kv_blocks[1]}
    if memory := seen.out_of_memory:
        parts = ("tried", "capacity", "free", "in_use", "allocated", "unallocated", "reserved")
        sizes = {name: getattr(memory, name) for name in parts}
        said["oom"] = {name: f"{size / MiB:.2f}MiB" for name, size in sizes.items() if size is not None}
    return Row(
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=model_name(facts.model.id, facts.model.folder),
        commit=facts.model.commit,
        gpu=facts.gpu.name,
        gpu_memory_mib=facts.gpu.memory_bytes // MiB,
        gpu_count=facts.gpu_count,
        release=facts.release.name,
        variant=facts.variant,
        num_shard=prediction.num_shard,
        memory_fraction=spec.hardware.memory_fraction,
        in_use_bytes=spec.hardware.in_use,
        limits=prediction.limits.given(),
        outcome=outcome,
        predicted=prediction.limits.max_batch_total_tokens,
        observed=seen.budget,
        kv_bytes_per_token=prediction.kv_bytes_per_token,
        headroom_bytes=plan.search.headroom_bytes if plan.search else 0,
        seconds=round(seconds, 1),
        dtype=spec.model.dtype,
        quantize=spec.model.quantize,
        kv_cache_dtype=spec.model.kv_cache_dtype,
        seen={name: value for name, value in said.items() if value not in (None, {})},
        place=place,
    )


_KINDS = {"starts": "inferred-budget", "out_of_memory_at_warmup": "oom-warmup", "out_of_memory_at_load": "oom-load",
          "refused": "refused"}  # fmt: skip


def exported(row: Row, number: int) -> dict[str, Any] | None:
    """A row in the form of tests/data/warmups.yaml.

    None for a failure that says nothing about memory, and for a server beside others: the form has no word for them.
    """
    kind = _KINDS.get(row.outcome)
    if kind is None or row.in_use_bytes:
        return None
    if kind == "inferred-budget" and row.observed is None:
        kind = "works"
    given: dict[str, Any] = {
        "id": f"launch-{row.at[:10]}-{number}",
        "kind": kind,
        "release": row.release,
        "release_basis": "stated",
        "model": row.model,
        "gpu": row.gpu,
        "gpu_memory_mib": row.gpu_memory_mib,
        "gpu_count": row.gpu_count,
        "num_shard": row.num_shard,
        "dtype": row.dtype,
        "quantize": row.quantize,
        "kv_cache_dtype": row.kv_cache_dtype,
        "limits": {name: value for name, value in row.limits.items() if name != "max_batch_total_tokens"},
        "memory_fraction": None if row.memory_fraction == 1.0 else row.memory_fraction,
        "observed": {"max_batch_total_tokens": row.observed, **row.seen},
        "known": [f"launched by tgi-advisor, which predicted {row.predicted} tokens"],
        "confidence": "high",
        "source": "unpublished",
    }
    given["observed"] = {name: value for name, value in given["observed"].items() if value is not None}
    return {name: value for name, value in given.items() if value is not None}


def as_yaml(given: Mapping[str, Any]) -> str:
    """A row as the data file writes it: a key a line, values as JSON, sentences a line each."""
    lines = []
    for key, value in given.items():
        if key == "known":
            lines += [f"  {key}:", *(f"    - {json.dumps(sentence, ensure_ascii=False)}" for sentence in value)]
        else:
            lines.append(f"  {key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(["-" + lines[0][1:], *lines[1:]]) + "\n"
