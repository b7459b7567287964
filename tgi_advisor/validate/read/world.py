"""What a reader may know of the world around a file: nothing but what the caller hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tgi_advisor.validate.found import Value
from tgi_advisor.validate.read.source import Source


def _no_file(_path: str) -> str | None:
    return None


def _nothing() -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class World:
    """Variables of the caller's shell, and the texts of files a file refers to."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Variables whose values are known (`.env`, the shell)."""
    lookup: Callable[[str], str | None] = _no_file
    """Text of a file named in the file being read, as it is written there; None when there is none."""
    listed: Callable[[], Sequence[str]] = _nothing
    """Names of the YAML files in the folder of the file being read, and of Kustomize files near it, as `lookup` takes
    them."""
    written: dict[str, Source] = field(default_factory=dict)
    """Files that the text at hand writes (between two marks, in a cell, on a page), by their names."""
    exported: dict[str, Value] = field(default_factory=dict)
    """Variables that blocks of the page before this one export: a reader may still have them set."""
