"""What is said of PyTorch's allocator against TGI's own server: tables of docs/accuracy.md on tests/data/replays.yaml.

scripts/accuracy.py prints and writes them. `said` is what the estimate says, `exact` the replay at a row's own
length, `summed` the sum of parts for launches that are not replayed.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from replays import ROWS, Amounts, Compared, compared

from tgi_advisor.units import GiB

Of = Callable[[Compared], Amounts]


class Launch(NamedTuple):
    """A row by what sets it apart."""

    model: str
    release: str
    tokens: int
    shards: int = 1


KNOWN = (
    Launch("meta-llama/Llama-3.1-8B-Instruct", "3.3.7", 4096),
    Launch("Qwen/Qwen2.5-14B-Instruct", "3.3.7", 4096),
    Launch("Qwen/Qwen2.5-14B-Instruct", "2.2.0", 4096),
    Launch("Qwen/Qwen3-8B", "3.3.7", 4096),
    Launch("Qwen/Qwen3-32B", "3.3.7", 2048),
    Launch("google/gemma-2-9b-it", "3.3.7", 4096),
    Launch("google/gemma-2-9b-it", "3.3.7", 4096, 2),
    Launch("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "3.3.7", 2048),
    Launch("microsoft/Phi-3-mini-4k-instruct", "2.2.0", 4096),
    Launch("deepseek-ai/DeepSeek-V2-Lite", "3.3.7", 4096),
    Launch("EleutherAI/gpt-neox-20b", "3.3.7", 2048),
    Launch("bigcode/starcoder2-15b", "3.3.7", 4096),
)
"""Launches of which the sum of parts was off by up to 4.4 GiB."""
HEADINGS = (
    "", "rows", "after load", "by the sum", "peak", "to the byte", "by the sum", "KV cache", "by the sum",
    "KV blocks", "by the sum",
)  # fmt: skip
KNOWN_HEADINGS = (
    "model", "release, tokens", "after load: said, TGI's", "beside its KV cache the warm-up adds: said, TGI's",
    "peak: said minus TGI's", "by the sum", "KV blocks: said, TGI's",
)  # fmt: skip
FAR_HEADINGS = ("model", "release, tokens", "after load", "peak", "to the byte")
FAR = 0.03 * GiB
"""Bytes from which on a row is listed by itself."""


def everything() -> list[Compared]:
    """Every row."""
    return [compared(index) for index in range(len(ROWS))]


def release(row: Compared) -> str:
    """Its release."""
    return str(row.row["release"])


def family(row: Compared) -> str:
    """Its model type and how its weights are stored."""
    return f"{row.setting.family.model_type}, {row.row.get('packed') or row.setting.quantize or '16 bits'}"


def group_rows(rows: Sequence[Compared], group: Callable[[Compared], str]) -> list[list[str]]:
    """By group: how far each amount is off, in the median and at worst, in GiB; then in KV blocks."""
    groups: dict[str, list[Compared]] = defaultdict(list)
    for row in rows:
        groups[group(row)].append(row)
    return [_group_row(name, groups[name]) for name in sorted(groups)]


def all_rows(rows: Sequence[Compared]) -> list[str]:
    """The same for all of them together."""
    return _group_row("all", rows)


def _group_row(name: str, rows: Sequence[Compared]) -> list[str]:
    return [name, str(len(rows)), *_errors(rows)]


def _errors(rows: Sequence[Compared]) -> list[str]:
    ways: tuple[Of, ...] = (lambda row: row.said, lambda row: row.exact, lambda row: row.summed)
    said, exact, summed = ways
    warmed_up = [row for row in rows if row.warmed_up]
    roomy = [row for row in warmed_up if row.recorded.blocks]
    cells = [_gib([way(row).loaded - row.recorded.loaded for row in rows]) for way in (said, summed)]
    cells += [_gib([way(row).peak - row.recorded.peak for row in warmed_up]) for way in (said, exact, summed)]
    blocks = [[(way(row).blocks - row.recorded.blocks, row.block_bytes) for row in roomy] for way in (said, summed)]
    cells += [_gib([count * size for count, size in counts]) for counts in blocks]
    return cells + [_median_and_worst([count for count, _ in counts], "{:,.0f}") for counts in blocks]


def _gib(sizes: Sequence[int]) -> str:
    return _median_and_worst([size / GiB for size in sizes], "{:.3f}")


def _median_and_worst(values: Sequence[float], form: str) -> str:
    ordered = sorted(map(abs, values))
    return f"{form.format(statistics.median(ordered))}, {form.format(ordered[-1])}" if ordered else ""


def known_rows(rows: Sequence[Compared]) -> list[list[str]]:
    """`KNOWN` one by one, in GiB; where a model was recorded from files of its own, that."""
    found = {_launch(row): row for row in rows if not {"dtype", "quantize", "packed", "layers"} & row.row.keys()}
    return [_known_row(found[launch]) for launch in KNOWN]


def _launch(row: Compared) -> Launch:
    return Launch(row.row["model"], release(row), row.row["max_batch_prefill_tokens"], row.row["num_shard"])


def _known_row(row: Compared) -> list[str]:
    said, theirs = row.said, row.recorded
    cache = row.row["warmup_blocks"] * row.block_bytes
    return [
        *_named(row),
        f"{said.loaded / GiB:.2f}, {theirs.loaded / GiB:.2f}",
        ", ".join(f"{(one.peak - one.loaded - cache) / GiB:.2f}" for one in (said, theirs)),
        f"{(said.peak - theirs.peak) / GiB:+.3f}",
        f"{(row.summed.peak - theirs.peak) / GiB:+.2f}",
        f"{said.blocks:,}, {theirs.blocks:,}",
    ]


def _named(row: Compared) -> list[str]:
    launch = _launch(row)
    how = ", ".join(str(row.row[key]) for key in ("dtype", "quantize", "packed") if key in row.row)
    files = f"{len(row.row['files'])} even files" if "files" in row.row else ""
    cut = f"{row.row['layers']} layers" if "layers" in row.row else ""
    shards = f"{launch.shards} shards" if launch.shards > 1 else ""
    capability = row.row["compute_capability"]
    older = "" if capability == "8.0" else f"capability {capability}"
    return [
        ", ".join(word for word in (launch.model, how, cut, files, shards, older) if word),
        f"{launch.release}, {launch.tokens:,}",
    ]


def far_rows(rows: Sequence[Compared]) -> list[list[str]]:
    """Rows of which something is off by more than `FAR`, in GiB."""
    listed = []
    for row in rows:
        off = [row.said.loaded - row.recorded.loaded]
        if row.warmed_up:
            off += [row.said.peak - row.recorded.peak, row.exact.peak - row.recorded.peak]
        if max(map(abs, off)) > FAR:
            listed.append([*_named(row), *(f"{size / GiB:+.3f}" for size in off), *[""] * (3 - len(off))])
    return sorted(listed)
