"""Runs the notebooks of examples/ and writes their outputs, or with --check says what is no longer as stored.

Texts are compared exactly, pictures (SVG) byte for byte: the same figure gives the same picture. Only where another
release of matplotlib drew the stored ones, as on an older Python, every line may lie a little elsewhere.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).parent.parent
SECONDS = 120
"""Seconds one cell may take."""
SOCKETS = Config({"KernelManager": {"transport": "ipc"}})
"""The kernel listens on files, not on ports that others could reach."""
ELSEWHERE = 5.0
"""Points by which releases of matplotlib lay out the same figure differently, of 720."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
NAME = re.compile(r"(?<=[#\"])[a-zA-Z]*[0-9a-f]{10}(?=[\")])")
"""Names that matplotlib makes of what is drawn."""
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TGI_ADVISOR_DATA": os.devnull, "HF_HUB_OFFLINE": "1"}


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs that it has now, in a Jupyter of its own that knows nobody's settings."""
    book: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    here = {"metadata": {"path": str(ROOT)}}
    with tempfile.TemporaryDirectory() as own:
        folders = dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"), own)
        os.environ.update({**PLAIN, **folders})
        NotebookClient(
            book, timeout=SECONDS, resources=here, record_timing=False, coalesce_streams=True, config=SOCKETS
        ).execute()
    for cell in code(book):
        cell.metadata = {}
        for output in cell.outputs:
            output.get("metadata", {}).clear()
    book.metadata = {
        "drawn_by": f"matplotlib {version('matplotlib')}",
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return book


def code(book: nbformat.NotebookNode) -> list[Any]:
    """The cells that run."""
    return [cell for cell in book.cells if cell.cell_type == "code"]


def texts(cell: Any) -> Iterator[tuple[str, str]]:
    """(kind, text) of every output of a cell."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.name, output.text
        yield from sorted(output.get("data", {}).items())


def same_picture(was: str, now: str) -> bool:
    """Whether pictures of different releases of matplotlib show the same: all words, and lines in the same places."""
    (shape, places), (other, others) = _drawn(was), _drawn(now)
    return shape == other and all(abs(a - b) <= ELSEWHERE for a, b in zip(places, others, strict=True))


def _drawn(picture: str) -> tuple[str, list[float]]:
    """A picture without the numbers of its tags and its made-up names, and these numbers."""
    names: dict[str, str] = {}
    numbers: list[float] = []

    def plain(tag: re.Match[str]) -> str:
        numbers.extend(map(float, NUMBER.findall(tag[0])))
        return NUMBER.sub("0", tag[0])

    named = NAME.sub(lambda found: names.setdefault(found[0], f"name{'x' * len(names)}"), picture)
    return re.sub("<[^>]*>", plain, named), numbers


def changed(stored: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> list[str]:
    """What differs, cell by cell: lines of a text, or that a picture is another one."""
    found = []
    other = stored.metadata.get("drawn_by") != fresh.metadata.get("drawn_by")
    for number, (before, after) in enumerate(zip(code(stored), code(fresh), strict=True), 1):
        old, new = list(texts(before)), list(texts(after))
        if [kind for kind, _ in old] != [kind for kind, _ in new]:
            found.append(f"cell {number}: it gave {[kind for kind, _ in old]}, and now {[kind for kind, _ in new]}")
            continue
        for (kind, was), (_, now) in zip(old, new, strict=True):
            if was != now and kind == "image/svg+xml" and not (other and same_picture(was, now)):
                found.append(f"cell {number}: the picture is another one")
            elif was != now and kind != "image/svg+xml":
                lines = difflib.unified_diff(was.splitlines(), now.splitlines(), "stored", "now", lineterm="", n=0)
                found.append("\n".join([f"cell {number}:", *lines]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or with --check compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where an output changed")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of examples/")
    asked = parser.parse_args(arguments)
    stale = 0
    for path in asked.notebooks or sorted((ROOT / "examples").glob("*.ipynb")):
        fresh = run(path)
        if not asked.check:
            nbformat.write(fresh, path)
            continue
        found = changed(nbformat.read(path, as_version=4), fresh)
        stale += bool(found)
        for text in found:
            print(f"{path.name}, {text}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
