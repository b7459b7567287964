"""The notebooks of examples/ give what they store, and a change of an output is found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "notebook.py"
BOOK = ROOT / "examples" / "estimate-vram.ipynb"
PRINTED = """
4.8,16.06052,3.60732,0.00036,10.48471,91.2,34.95291,True,9999
4.8,16.06052,3.96809,0.00036,11.53329,91.2,36.36226,True,10999
4.8,16.06052,4.32886,0.00036,12.58186,91.2,37.7716,True,11999
4.8,16.06052,4.68962,0.00036,13.63044,91.2,39.18095,True,12999
4.8,16.06052,5.05039,0.00036,14.67902,91.2,40.59029,True,13999
4.8,16.06052,5.41116,0.00036,15.72759,91.2,41.99963,True,14999
4.8,16.06052,5.77193,0.00036,16.77617,91.2,43.40898,True,15999
4.8,16.06052,6.1327,0.00036,17.82474,91.2,44.81832,True,16999
4.8,16.06052,6.49346,0.00036,18.87332,91.2,46.22767,True,17999
4.8,16.06052,6.85423,0.00036,19.9219,91.2,47.63701,True,18999
"""
"""The first ten rows of the notebook that the project grew from, as it prints them."""


def check(*books: Path) -> tuple[int, str]:
    """Exit code and standard error of the check."""
    command = [sys.executable, str(SCRIPT), "--check", *map(str, books)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300)
    return done.returncode, done.stderr


def test_the_notebooks_give_what_they_store() -> None:
    assert check() == (0, "")


@pytest.mark.parametrize(
    ("kind", "was", "now", "release"),
    [
        ("text", "34.95291", "34.95292", None), ("picture", "36.", "37.", None),
        ("picture", "36.", "47.", "matplotlib 3.0"), ("picture", "20,000", "21,000", "matplotlib 3.0"),
    ],
)  # fmt: skip
def test_a_changed_output_is_found(tmp_path: Path, kind: str, was: str, now: str, release: str | None) -> None:
    book = nbformat.read(BOOK, as_version=4)
    book.metadata["drawn_by"] = release or f"matplotlib {version('matplotlib')}"
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    if kind == "text":
        one = next(output for output in outputs if was in output.get("text", ""))
        one["text"] = one["text"].replace(was, now)
    else:
        one = next(output for output in outputs if was in output.get("data", {}).get("image/svg+xml", ""))
        one["data"]["image/svg+xml"] = one["data"]["image/svg+xml"].replace(was, now, 1)
    nbformat.write(book, tmp_path / "changed.ipynb")
    code, said = check(tmp_path / "changed.ipynb")
    assert code == 1
    assert ("-" in said and now in said) if kind == "text" else "the picture is another one" in said


def test_another_matplotlib_may_draw_a_little_elsewhere(tmp_path: Path) -> None:
    book = nbformat.read(BOOK, as_version=4)
    book.metadata["drawn_by"] = "matplotlib 3.0"
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if "image/svg+xml" in output.get("data", {}):
                picture = output["data"]["image/svg+xml"]
                moved = picture.replace(" 36.", " 37.")
                output["data"]["image/svg+xml"] = re.sub(r"\bp([0-9a-f]{10})\b", r"q\1", moved)
    nbformat.write(book, tmp_path / "elsewhere.ipynb")
    assert check(tmp_path / "elsewhere.ipynb") == (0, "")


def test_the_table_is_the_one_of_the_notebook_it_grew_from() -> None:
    book = nbformat.read(BOOK, as_version=4)
    texts = [output.get("text", "") for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    table = next(text for text in texts if "34.95291" in text)
    rows = [",".join(line.split()) for line in table.splitlines() if re.match(r" +4\.8 ", line)]
    assert rows[:10] == PRINTED.split()
    assert len(rows) == 11
    assert sum("image/svg+xml" in o.get("data", {}) for c in book.cells for o in c.get("outputs", [])) >= 3
