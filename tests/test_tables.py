from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tgi_advisor.facts import tables

SCRIPT = Path(__file__).parent.parent / "scripts" / "compile_tables.py"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A table folder of its own, so that tests may edit it."""
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    (tmp_path / "compiled").mkdir()
    tables.load.cache_clear()
    yield tmp_path
    tables.load.cache_clear()


@pytest.mark.parametrize("name", tables.names())
def test_the_compiled_copy_is_current(name: str) -> None:
    path = tables.compiled_path(name)
    assert path.exists(), "run: python scripts/compile_tables.py"
    assert path.read_text("utf-8") == tables.compiled(name), "run: python scripts/compile_tables.py"


@pytest.mark.parametrize("name", tables.names())
def test_the_compiled_copy_says_the_same_as_the_yaml(name: str) -> None:
    assert tables.load(name) == tables.parse((tables.FOLDER / f"{name}.yaml").read_bytes(), name)


def test_the_script_finds_nothing_stale() -> None:
    result = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, env=os.environ)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_current_copy_is_used_without_parsing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "t.yaml").write_text("- a: 1\n")
    tables.compiled_path("t").write_text(tables.compiled("t"))
    monkeypatch.setattr(tables, "parse", lambda *_: pytest.fail("parsed"))
    assert tables.load("t") == [{"a": 1}]
    assert tables.load("t") is tables.load("t")


def test_an_edited_table_is_seen_at_once(folder: Path) -> None:
    (folder / "t.yaml").write_text("- a: 1\n")
    tables.compiled_path("t").write_text(tables.compiled("t"))
    (folder / "t.yaml").write_text("- a: 2\n")
    assert tables.load("t") == [{"a": 2}]


@pytest.mark.parametrize("damage", ["", "{", "[]", '"x"', '{"rows": [1]}', None])
def test_a_damaged_or_missing_copy_is_not_trusted(folder: Path, damage: str | None) -> None:
    (folder / "t.yaml").write_text("- a: 1\n")
    if damage is not None:
        tables.compiled_path("t").write_text(damage)
    assert tables.load("t") == [{"a": 1}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "t.yaml:3: key 'a' stands here twice"),
        ("- a: 2024-01-01\n", "t.yaml: a key or value is no JSON"),
        ("1: x\n", "t.yaml: a key or value is no JSON"),
    ],
)
def test_a_table_that_would_change_on_the_way_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables.parse(text.encode(), "t.yaml")


def test_strict_names_everything_that_is_wrong() -> None:
    with pytest.raises(
        ValueError, match=r"^row l4: unknown key 'memroy', missing key 'memory' \(known: memory, name\)$"
    ):
        tables.strict({"name": "l4", "memroy": 1}, {"name", "memory"}, {"name", "memory"}, "row l4")
    tables.strict({"name": "l4"}, {"name", "memory"}, {"name"}, "row l4")
