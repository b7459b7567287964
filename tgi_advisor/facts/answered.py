"""What the search found for every shipped model on one of every GPU, with the newest release and nothing asked for.

That is some ten thousand searches, so `scripts/compile_tables.py` makes them once and keeps what they found in
`compiled/everywhere.json.gz`, with a fingerprint of the code and the tables that decide. Where that does not match
what is here, nothing is taken from the file: whoever edits the estimate sees the edit at once.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent
FILE = PACKAGE / "facts" / "compiled" / "everywhere.json.gz"
DECIDING = ("*.py", "choose/option.py", "gather/snapshot.py", "refusals/**/*.py", "search/**/*.py", "spec/**/*.py",
            "estimate/**/*.py", "facts/*.py", "facts/*.yaml", "facts/snapshots/*")  # fmt: skip
"""Files of the package that an answer depends on."""
Answers = Mapping[str, Mapping[str, Sequence[Any]]]
"""By model and GPU: what `choose.option.kept` makes of an option, its last field a sentence."""


def fingerprint() -> str:
    """What tells whether an answer still holds: a checksum of the files it depends on."""
    digest = blake2b(digest_size=16)
    for path in sorted({path for pattern in DECIDING for path in PACKAGE.glob(pattern)}):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()


def recalled() -> Answers:
    """What is kept; nothing where it was found by other code, or from other tables, than are here."""
    try:
        kept = json.loads(gzip.decompress(FILE.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error):
        return {}
    if not isinstance(kept, dict) or kept.get("of") != fingerprint():
        return {}
    reasons: Sequence[str] = kept["why"]
    rows: dict[str, dict[str, list[Any]]] = kept["rows"]
    return {model: {gpu: [*row[:-1], reasons[row[-1]]] for gpu, row in cards.items()} for model, cards in rows.items()}


def keep(rows: Answers) -> None:
    """Write what was found; the last field of a row, a reason, is kept once for all."""
    reasons = {
        reason: at for at, reason in enumerate(sorted({row[-1] for cards in rows.values() for row in cards.values()}))
    }
    found = {model: {gpu: [*row[:-1], reasons[row[-1]]] for gpu, row in cards.items()} for model, cards in rows.items()}
    text = json.dumps({"of": fingerprint(), "why": list(reasons), "rows": found}, separators=(",", ":"))
    FILE.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
