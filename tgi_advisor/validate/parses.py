"""Whether a mended file is still what it was: Python that differs in its strings alone, YAML and JSON of one shape."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tgi_advisor.validate.found import Document

_FENCED = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)^[ \t]*\1", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^[ \t]*(?:!|%\w)(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
_CELL_OF_ANOTHER = re.compile(r"\s*%%(?!time|capture|prun|debug)")


def objection(before: Document, after: Document) -> str:
    """Why a mended file is not what it was; empty when it is."""
    more = Counter(one.kind for one in after.defects) - Counter(one.kind for one in before.defects)
    if more:
        return "the file would not be read as before"
    for old, new in zip(_programs(before), _programs(after), strict=False):
        shape = _program(new) if old != new else None
        if old != new and (shape is None or shape != _program(old)):
            return "the program would not be what it was"
    read = _reader(before.file)
    if read is not None and (shape := read(before.text)) is not None and read(after.text) != shape:
        return "the file would not be what it was"
    return ""


def _reader(file: str) -> Callable[[str], Any] | None:
    """What reads a file of this name as far as its shape."""
    suffix = file.lower().rpartition(".")[2]
    return {"json": _json, "ipynb": _json, "yaml": _yaml, "yml": _yaml}.get(suffix)


def _programs(document: Document) -> Iterator[str]:
    """The Python in a file: all of it, the cells of a notebook, the blocks of a page."""
    suffix = document.file.lower().rpartition(".")[2]
    if suffix == "py":
        yield document.text
    elif suffix == "ipynb":
        for cell in _cells(document.text):
            if not _CELL_OF_ANOTHER.match(cell):
                yield _COMMAND.sub("pass", cell)
    else:
        yield from (block[2] for block in _FENCED.finditer(document.text))


def _cells(text: str) -> Iterator[str]:
    """The code cells of a notebook."""
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        return
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    for cell in cells if isinstance(cells, list) else []:
        source = cell.get("source") if isinstance(cell, dict) and cell.get("cell_type") == "code" else None
        if isinstance(source, list):
            source = "".join(line for line in source if isinstance(line, str))
        if isinstance(source, str):
            yield source


def _program(text: str) -> str | None:
    """A program but for the text of its strings (and the names `dict(...)` is given); None when it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.dump(_Blank().visit(ast.parse(_decoded(text))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Blank(ast.NodeTransformer):
    """Empties every string."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        """A string becomes the empty one."""
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """The names `dict` is given are strings as well."""
        if isinstance(node.func, ast.Name) and node.func.id == "dict":
            for one in node.keywords:
                one.arg = one.arg and ""
        return self.generic_visit(node)


def _decoded(text: str) -> str:
    """The text with a mark for each byte that is no letter of its encoding."""
    return text.encode("utf-8", "replace").decode()


def _json(text: str) -> Any:
    """The shape of a JSON text; None when it is none."""
    try:
        return _shape(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [_shape(one) for one in value.values()]
    return (type(value), [_shape(one) for one in value]) if isinstance(value, list) else type(value)


def _yaml(text: str) -> list[str] | None:
    """The shape of a YAML text; None when it is none."""
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return [type(event).__name__ for event in yaml.parse(_decoded(text), Loader=loader)]
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
