"""Every public record is frozen and every one of its fields has a sentence (docstrings of functions: ruff's D1)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tgi_advisor"


def text_of(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def sentence(field: ast.AnnAssign, after: ast.stmt | None) -> str:
    """The string below a field, or the first argument of the function that makes it (`setting("...", ...)`)."""
    below = text_of(after.value) if isinstance(after, ast.Expr) else ""
    return below or (text_of(field.value.args[0]) if isinstance(field.value, ast.Call) and field.value.args else "")


def decorator(node: ast.ClassDef) -> ast.expr | None:
    """The dataclass decorator, where there is one."""
    return next((d for d in node.decorator_list if "dataclass" in ast.unparse(d)), None)


def is_record(node: ast.ClassDef) -> bool:
    named = any("NamedTuple" in ast.unparse(base) for base in node.bases)
    return not node.name.startswith("_") and (named or decorator(node) is not None)


def records(source: str) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and is_record(node))


def faults(node: ast.ClassDef) -> list[str]:
    """What is wrong with one record."""
    found = [] if ast.get_docstring(node) else ["no docstring"]
    if (made := decorator(node)) and "frozen=True" not in ast.unparse(made):
        found.append("not frozen")
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and not sentence(field, after):
            found.append(f"{ast.unparse(field.target)} has no sentence")
    return found


ALL = [
    pytest.param(node, id=f"{path.relative_to(PACKAGE).as_posix()}:{node.name}")
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in records(path.read_text("utf-8"))
]


@pytest.mark.parametrize("record", ALL)
def test_a_record_is_frozen_and_says_what_each_field_is(record: ast.ClassDef) -> None:
    assert faults(record) == []


def test_the_check_sees_what_it_looks_for() -> None:
    bad = """
@dataclass
class A:
    x: int
    y: int
    'A sentence.'
class B(NamedTuple):
    'Doc.'
    z: int = 0
@dataclass
class _Private:
    x: int
"""
    assert [faults(node) for node in records(bad)] == [
        ["no docstring", "not frozen", "x has no sentence"],
        ["z has no sentence"],
    ]
    good = "@dataclass(frozen=True)\nclass A:\n    'Doc.'\n    x: int = setting('A sentence.', 'count')\n"
    assert [faults(node) for node in records(good)] == [[]]
