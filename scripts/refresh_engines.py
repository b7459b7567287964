"""Regenerate what is read from the published wheels of vLLM and SGLang: their flags and the architectures they serve.

python scripts/refresh_engines.py                       # fetch the wheels of the versions in the tables, rewrite
python scripts/refresh_engines.py vllm=0.33.0           # another version: a file of its own beside the others
python scripts/refresh_engines.py --wheel vllm=FILE     # a wheel that is here already
python scripts/refresh_engines.py --check               # write nothing; exit 1 when a table would change

Nothing of a wheel is run or imported, which would need PyTorch: its sources are parsed. A flag that the parser makes
in a way not understood here ends the run, rather than being left out.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tgi_advisor.engines import facts

Row = dict[str, Any]


class Code(NamedTuple):
    """One source file of a wheel."""

    path: str
    """Path inside the wheel."""
    tree: ast.Module
    """What it says."""


def main() -> int:
    """Rewrite the tables, or with --check only say whether they are up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engines", nargs="*", metavar="NAME=VERSION", help="default: every version there is a table of")
    parser.add_argument("--wheel", action="append", default=[], metavar="NAME=FILE", help="instead of fetching it")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a table would change")
    options = parser.parse_args()
    wheels = dict(word.split("=", 1) for word in options.wheel)
    wanted = [tuple(word.split("=", 1)) for word in options.engines] or [
        (name, path.stem) for name in facts.names() for path in facts.wheel_tables(name)
    ]
    stale = 0
    for name, version in wanted:
        with tempfile.TemporaryDirectory() as folder:
            wheel = Path(wheels[name]) if name in wheels else fetched(name, version, Path(folder))
            text = written(name, version, wheel)
        table = facts.FOLDER / name / f"{version}.json"
        if not table.exists() or table.read_text("utf-8") != text:
            stale += 1
            print(f"{'stale' if options.check else 'write'}: {table}")
            if not options.check:
                table.write_text(text, "utf-8")
    return 1 if options.check and stale else 0


def fetched(name: str, version: str, folder: Path) -> Path:
    """The wheel of a version, by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, f"{name}=={version}"], check=True)
    return next(folder.glob("*.whl"))


def written(name: str, version: str, wheel: Path) -> str:
    """The table of one wheel."""
    with zipfile.ZipFile(wheel) as archive:
        flags, served, removed = READERS[name](archive)
    flags = dict(sorted(flags.items()))
    table = {
        "engine": name,
        "version": version,
        "source": f"{wheel.name} of https://pypi.org/project/{name}/{version}/",
        "flags": flags,
        "architectures": sorted(set(served)),
        "removed": dict(sorted(removed.items())),
    }
    return _lines(table)


def _lines(table: Mapping[str, Any]) -> str:
    """JSON with one flag to a line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table["flags"].items())
    rest = {name: value for name, value in table.items() if name != "flags"}
    outer = json.dumps(rest, indent=1)
    return outer[: outer.rindex("\n}")] + f',\n "flags": {{\n{rows}\n }}\n}}\n'


def codes(archive: zipfile.ZipFile, *beginnings: str) -> list[Code]:
    """The sources whose path begins so."""
    names = [one for one in archive.namelist() if one.endswith(".py") and one.startswith(beginnings)]
    return [Code(name, ast.parse(archive.read(name))) for name in sorted(names)]


# -- vLLM: argparse calls whose keywords come from the fields of configuration classes


def read_vllm(archive: zipfile.ZipFile) -> tuple[dict[str, Row], list[str], dict[str, str]]:
    """Flags of `vllm serve`, the architectures of its registry, and those it had until a version."""
    every = codes(archive, "vllm/config/", "vllm/entrypoints/", "vllm/engine/arg_utils.py")
    every += codes(archive, "vllm/model_executor/layers/quantization/__init__.py")
    every += codes(archive, "vllm/model_executor/model_loader/__init__.py")
    literals: dict[str, list[Any]] = {}
    for _ in range(3):  # one may be made of another, in any order
        literals |= {name: words for code in every for name, words in _literals(code.tree, literals)}
    classes = {node.name: (code, node) for code in every for node in code.tree.body if isinstance(node, ast.ClassDef)}
    flags: dict[str, Row] = {}
    (engine,) = (code for code in every if code.path == "vllm/engine/arg_utils.py")
    (front,) = (code for code in every if code.path == "vllm/entrypoints/common/cli_args.py")
    for code in (engine, front):
        for function in ast.walk(code.tree):
            if isinstance(function, ast.FunctionDef) and function.name in ("add_cli_args", "make_arg_parser"):
                _calls(function, code, classes, literals, flags)
    for name in ("BaseFrontendArgs", "FrontendArgs"):
        _, node = classes[name]
        for field, annotation, _, line in _fields(node):
            row = _of_annotation(annotation, literals)
            if field in ("allowed_origins", "allowed_methods", "allowed_headers", "middleware"):
                row = {"kind": "value"}  # FrontendArgs._customize_cli_kwargs
            flags["--" + field.replace("_", "-")] = row | {"source": f"{front.path}:{line}"}
    (registry,) = codes(archive, "vllm/model_executor/models/registry.py")
    tables = {
        target.id: node.value
        for node in registry.tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    served = [
        key
        for name in ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
        for key in _keys(tables[name])
    ]
    removed: dict[str, str] = ast.literal_eval(tables["_PREVIOUSLY_SUPPORTED_MODELS"])
    return flags, [name for name in served if name not in removed], removed


def _keys(table: ast.Dict) -> Iterator[str]:
    for key in table.keys:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def _literals(tree: ast.Module, known: Mapping[str, list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Names that stand for a `Literal[...]` at the top of a file."""
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Subscript):
            words = _words(node.value, known)
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if words and isinstance(target, ast.Name):
                yield target.id, words


def _words(node: ast.expr | None, literals: Mapping[str, list[Any]]) -> list[Any]:
    """The words of an annotation's Literal; empty where it has none."""
    if isinstance(node, ast.Name):
        return list(literals.get(node.id, ()))
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if isinstance(node.value, ast.Name) and node.value.id == "Literal":
            return [one.value for one in inner if isinstance(one, ast.Constant)] + [
                word for one in inner for word in _words(one, literals)
            ]
        if isinstance(node.value, ast.Name) and node.value.id in ("Optional", "Annotated", "SkipValidation"):
            return _words(inner[0], literals)
    if isinstance(node, ast.BinOp):
        return _words(node.left, literals) + _words(node.right, literals)
    return []


def _of_annotation(annotation: ast.expr, literals: Mapping[str, list[Any]]) -> Row:
    """What a field's flag takes, as `_compute_kwargs` of vLLM's arg_utils.py makes it of the annotation."""
    text = ast.unparse(annotation)
    names = {one.strip() for one in text.replace("SkipValidation[", "").replace("]", "").split("|")}
    if "bool" in names and "str" in names:
        return {"kind": "optional"}
    if "bool" in names:
        return {"kind": "boolean"}  # argparse.BooleanOptionalAction: also --no-...
    words = _words(annotation, literals)
    if words:
        # Beside `str` the words are a metavar: others are taken too, such as those a plugin registers.
        return {"kind": "value", "known" if "str" in names else "choices": sorted(words, key=str)}
    if any(one.startswith(("list[", "tuple[", "set[")) for one in (text, *(part.strip() for part in text.split("|")))):
        return {"kind": "values"}
    return {"kind": "value"}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr | None, int]]:
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            annotation = ast.parse(one.annotation.value, mode="eval").body if isinstance(
                one.annotation, ast.Constant) and isinstance(one.annotation.value, str) else one.annotation  # fmt: skip
            yield one.target.id, annotation, one.value, one.lineno


def _calls(
    function: ast.FunctionDef,
    code: Code,
    classes: Mapping[str, tuple[Code, ast.ClassDef]],
    literals: Mapping[str, list[Any]],
    flags: dict[str, Row],
) -> None:
    """Every `add_argument` of a function that makes a parser."""
    made: dict[str, str] = {}
    for node in ast.walk(function):
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "get_kwargs" and isinstance(node, ast.Assign):
            made[ast.unparse(node.targets[0])] = ast.unparse(value.args[0])
    one_field = {
        ast.unparse(node.targets[0])
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Subscript, ast.Call))
    } - made.keys()
    for node in ast.walk(function):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr != "add_argument":
            continue
        names = [str(one.value) for one in node.args if isinstance(one, ast.Constant)]
        longs = [one for one in names if one.startswith("--")]
        if not longs:
            continue  # the model's position, and the loop over FrontendArgs, whose fields are read below
        row: Row = {"kind": "value"}
        source = f"{code.path}:{node.lineno}"
        for keyword in node.keywords:
            text = ast.unparse(keyword.value)
            if keyword.arg is None:
                if text in one_field:
                    continue  # one field's keywords, taken apart before: its value is not checked
                taken = [
                    (one.value.id, str(one.slice.value))
                    for one in ast.walk(keyword.value)
                    if isinstance(one, ast.Subscript) and isinstance(one.value, ast.Name)
                    and isinstance(one.slice, ast.Constant) and one.value.id in made
                ]  # fmt: skip
                if not taken:
                    raise SystemExit(f"{source}: {text} comes from nowhere known")
                holder, field = taken[0]
                of, config = classes[made[holder]]
                fields = {one: (annotation, line) for one, annotation, _, line in _fields(config)}
                annotation, line = fields[field]
                row |= _of_annotation(annotation, literals)
                source = f"{of.path}:{line}"
            elif keyword.arg == "action":
                row["kind"] = (
                    "switch"
                    if "store_true" in text or "StoreTrue" in text
                    else "boolean"
                    if "Boolean" in text
                    else row["kind"]
                )
            elif keyword.arg == "nargs":
                row["kind"] = "optional" if "?" in text else "values"
            elif keyword.arg == "choices" and isinstance(keyword.value, (ast.List, ast.Tuple)):
                row["choices"] = sorted(ast.literal_eval(keyword.value))
        for name in longs:
            also = [one for one in names if one != name]
            flags[name] = row | ({"also": also} if also else {}) | {"source": source}


# -- SGLang: every annotated field of its namespaces is a flag


def read_sglang(archive: zipfile.ZipFile) -> tuple[dict[str, Row], list[str], dict[str, str]]:
    """Flags of `sglang.launch_server` and the architectures of its models; it names none it has dropped."""
    every = codes(archive, "sglang/srt/arg_groups/fields/")
    shared = codes(archive, "sglang/srt/arg_groups/choices.py", "sglang/srt/arg_groups/cuda_graph_hook.py")
    lists: dict[str, list[Any]] = {}
    for code in shared:
        for node in code.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = _listed(node.value, lists)
                if value is not None:
                    lists[node.targets[0].id] = value
    flags: dict[str, Row] = {}
    for code in every:
        for part in ast.walk(code.tree):
            if isinstance(part, ast.ClassDef):
                for field, annotation, _, line in _fields(part):
                    row = _sglang_row(annotation, lists)
                    if row is None:
                        continue
                    names = [row.pop("name", None) or "--" + field.replace("_", "-"), *row.pop("also", [])]
                    for name in names:
                        also = [one for one in names if one != name]
                        source = {"source": f"{code.path}:{line}"}
                        flags[name] = row | ({"also": also} if also else {}) | source
    (server,) = codes(archive, "sglang/srt/server_args.py")
    for function in ast.walk(server.tree):
        if isinstance(function, ast.FunctionDef) and function.name == "add_cli_args":
            _calls(function, server, {}, {}, flags)
    served: list[str] = []
    for code in codes(archive, "sglang/srt/models/"):
        for node in code.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EntryClass":
                values = node.value.elts if isinstance(node.value, (ast.List, ast.Tuple)) else [node.value]
                served += [ast.unparse(one).rpartition(".")[2] for one in values]
    return flags, served, {}


def _listed(node: ast.expr, lists: Mapping[str, list[Any]]) -> list[Any] | None:
    """A list of words, also one made of two; None for anything else."""
    if isinstance(node, ast.Name):
        return lists.get(node.id)
    if isinstance(node, ast.BinOp):
        left, right = _listed(node.left, lists), _listed(node.right, lists)
        return None if left is None or right is None else left + right
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return list(value) if isinstance(value, (list, tuple)) else None


def _sglang_row(annotation: ast.expr, lists: Mapping[str, list[Any]]) -> Row | None:
    """What the flag of a field `A[type, help or Arg(...)]` takes; None for one that is no flag."""
    if not (isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "A"):
        return None
    kind, *metadata = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    text = ast.unparse(kind)
    row: Row = {
        "kind": "switch"
        if text in ("bool", "Optional[bool]")
        else "values"
        if "List[" in text or "list[" in text
        else "value"
    }
    for one in metadata:
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "Derived":
            return None
        if not (isinstance(one, ast.Call) and ast.unparse(one.func) == "Arg"):
            continue
        for keyword in one.keywords:
            said = ast.unparse(keyword.value)
            if keyword.arg == "no_cli" and said == "True":
                return None
            if keyword.arg == "cli_name":
                row["name"] = ast.literal_eval(keyword.value)
            elif keyword.arg == "aliases":
                row["also"] = ast.literal_eval(keyword.value)
            elif keyword.arg == "choices" and (words := _listed(keyword.value, lists)) is not None:
                row["choices"] = sorted(words, key=str)
            elif keyword.arg == "nargs":
                row["kind"] = "optional" if "?" in said else "values"
            elif keyword.arg == "type_parser" and row["kind"] == "values":
                row["kind"] = "value"
            elif keyword.arg == "action" and "store_true" in said:
                row["kind"] = "switch"
    return row


READERS = {"vllm": read_vllm, "sglang": read_sglang}

if __name__ == "__main__":
    sys.exit(main())
