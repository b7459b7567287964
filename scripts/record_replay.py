#!/usr/bin/env python3
"""Turn what a replay of TGI's own warm-up printed into a row for tests/data/replays.yaml.

    python scripts/record_replay.py REPLAYS.jsonl          # or - for stdin
    python scripts/record_replay.py - < REPLAYS.jsonl >> tests/data/replays.yaml

A replay runs TGI's server code of a tag on PyTorch's own allocator, over a CUDA runtime that keeps account of memory
and runs no kernel. It prints one JSON object: the launch, what PyTorch had reserved when the model was there, and at
the end of the warm-up's prefill. Fields a row does not need are left out; a field that is missing is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

KEYS = (
    "release", "model", "layers", "packed", "files", "dtype", "quantize", "heads", "speculate", "num_shard",
    "max_batch_prefill_tokens", "max_input_tokens",
    "max_total_tokens", "attention", "compute_capability", "warmup_blocks", "loaded_reserved", "loaded_allocated",
    "peak_reserved", "not_warmed_up",
)  # fmt: skip
"""What a row holds, in this order; of the last two one is there."""
OPTIONAL = ("layers", "packed", "files", "dtype", "quantize", "heads", "speculate")
"""Keys that need not be there: how many layers a model was cut to, how it was packed, the bytes of its files, the
speculation heads it was served with, --dtype, --quantize and --speculate where they were given."""
LAST = ("peak_reserved", "not_warmed_up")


def rows(lines: Iterable[str]) -> Iterator[str]:
    """A line of YAML for each JSON object; ValueError for one that is not a replay."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = json.loads(line)
        missing = [key for key in KEYS if key not in (*OPTIONAL, *LAST) and key not in found]
        if missing or not any(found.get(key) for key in LAST):
            raise ValueError(f"line {number} is no replay: {', '.join(missing or LAST)} missing")
        yield row_text({key: found[key] for key in KEYS if found.get(key) not in (None, "")})


def row_text(row: dict[str, Any]) -> str:
    """One row as it stands in the file."""
    return "- {" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in row.items()) + "}"


def main() -> int:
    """Read the replays, print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("replays", help="the file, or - for stdin")
    asked = parser.parse_args()
    lines = sys.stdin if asked.replays == "-" else Path(asked.replays).read_text("utf-8").splitlines()
    try:
        for row in rows(lines):
            print(row)
    except (ValueError, OSError) as error:
        print(f"record_replay: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
