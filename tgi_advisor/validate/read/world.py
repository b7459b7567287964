"""What a reader may know of the world around a file: nothing but what the caller hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


def _no_file(_path: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class World:
    """Variables of the caller's shell, and the texts of files a file refers to."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Variables whose values are known (`.env`, the shell)."""
    lookup: Callable[[str], str | None] = _no_file
    """Text of a file named in the file being read, as it is written there; None when there is none."""
