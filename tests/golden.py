"""Whole outputs kept beside the tests, so that a change of a text is seen as text.

`golden("advise/l4.txt", output)` compares with `tests/golden/advise/l4.txt`;
`pytest --update-golden` writes the files anew, and `git diff` then shows what changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    """Compares a whole text with the file of that name, or rewrites the file."""

    update: bool
    """Whether to write instead of compare (`--update-golden`)."""
    folder: Path = GOLDEN
    """Where the files are kept."""

    def __call__(self, name: str, text: str) -> None:
        path = self.folder / name
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            return
        assert path.exists(), f"no golden file {name}; write it with: pytest --update-golden"
        assert text == path.read_bytes().decode(), f"{name} differs; if that is meant: pytest --update-golden"
