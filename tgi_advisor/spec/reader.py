"""Reads a deployment spec: YAML text, `--set` and command line options become a `Spec`, strictly.

Text becomes a tree (`tree.py`), `--set` is laid over it, and the fields of `records.py` say what
each node must be (`fields.py`, `values.py`). Everything wrong is collected and raised as one
`SpecError`. A field left empty (`null`) has its default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from types import MappingProxyType
from typing import Any

from tgi_advisor.bounds import MAX_SPEC
from tgi_advisor.errors import Place, Problem, SpecError, did_you_mean, listed
from tgi_advisor.reading import read_named
from tgi_advisor.safe import looks_secret
from tgi_advisor.spec.contradictions import contradictions
from tgi_advisor.spec.fields import Reading, flag_name
from tgi_advisor.spec.records import Spec
from tgi_advisor.spec.tree import (
    Map,
    Node,
    Scalar,
    compose,
    compose_all,
    described,
    place_in,
    shown,
    too_long,
)

MAX_PROBLEMS = 40
"""Problems listed before the rest is only counted."""

EXAMPLE = """write at least:
  model:
    id: meta-llama/Llama-3.1-8B-Instruct
  hardware:
    gpu: nvidia-l4
or let `tgi-advisor init` write a spec"""

SpecLike = Spec | str | PathLike[str] | Mapping[str, Any]
"""A spec record, the path of a YAML file (`-` is standard input), or the spec as nested mappings."""


def read_any(spec: SpecLike) -> Spec:
    """The spec as a record; SpecError lists everything that is wrong with it."""
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, Mapping):
        import json

        return _nowhere(read_text, json.dumps(spec), "mapping")
    return read_file(str(spec))


def _nowhere(read: Callable[[str, str], Spec], text: str, name: str) -> Spec:
    """The spec of a text that nobody wrote, so that its lines and columns say nothing."""
    here = Place(name, 0, 0)
    try:
        spec = read(text, name)
    except SpecError as error:
        problems = [Problem(one.message, one.hint, here) for one in error.problems]
        raise SpecError(error.message, error.hint, problems) from None
    return replace(spec, places=MappingProxyType(dict.fromkeys(spec.places, here)))


def read_text(text: str, file: str, sets: Sequence[str] = ()) -> Spec:
    """The spec in `text`, with `sets` (`path=value`) laid over it; SpecError lists everything wrong."""
    return _of(compose(text, file), file, sets)


def _of(root: Node | None, file: str, sets: Sequence[str]) -> Spec:
    """The spec of one document."""
    if not isinstance(root, Map):
        where = Place(file, 1, 1) if root is None else root.place
        message = "the spec is empty" if root is None else f"the spec must be a mapping, got {described(root)}"
        raise SpecError(f"{file} is not a deployment spec", problems=[Problem(message, EXAMPLE, where)])
    return _read(root, file, sets)


def read_file(path: str, sets: Sequence[str] = ()) -> Spec:
    """The spec in a file, or on standard input when `path` is `-`."""
    file = _named(path)
    return read_text(_text_of(path, file), file, sets)


def read_all(path: str, sets: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The specs in a file of one or more YAML documents, `sets` laid over each; SpecError lists all that is wrong."""
    file = _named(path)
    return read_text_all(_text_of(path, file), file, sets)


def read_text_all(text: str, file: str, sets: Sequence[str] = ()) -> tuple[Spec, ...]:
    """As `read_all`, of a text."""
    roots = compose_all(text, file)
    if len(roots) < 2:
        return (_of(roots[0] if roots else None, file, sets),)
    specs: list[Spec] = []
    partly: list[object] = []
    problems: list[Problem] = []
    for root in roots:
        try:
            specs.append(_of(root, file, sets))
        except SpecError as error:  # noqa: PERF203  (all documents are told of at once)
            problems += error.problems
            partly += error.specs
    if problems:
        raise _all_of(problems, file, [*specs, *partly])
    return tuple(specs)


def _named(path: str) -> str:
    """What errors call the file."""
    return "<stdin>" if path == "-" else path if path.isprintable() else ascii(path)


def _text_of(path: str, file: str) -> str:
    """The file's text; SpecError when there is none, or too much, or not UTF-8."""
    data = _bytes_of(path, file)
    if len(data) > MAX_SPEC:
        raise too_long(file)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        place = place_in(before, len(before), file)
        problem = Problem(f"not UTF-8 text (byte 0x{data[error.start]:02X})", "save the spec as UTF-8", place)
        raise SpecError(f"{file} cannot be read", problems=[problem]) from None


def build(
    assignments: Iterable[tuple[str, str]],
    source: str = "command line",
    base: Spec | None = None,
    sets: Sequence[str] = (),
) -> Spec:
    """A spec from (path, text) pairs such as `("model.id", "org/name")`, on top of `base` where given.

    The texts are taken as one value each, never as YAML; `sets` come after them and are YAML.
    """
    root = _tree_of(base, source)
    place = Place(source, 0, 0)
    for path, text in assignments:
        _assign(root, path, Scalar(text, True, place), place)
    return _read(root, source, sets, base)


def with_set(spec: Spec, sets: Sequence[str]) -> Spec:
    """The spec with `--set path=value` arguments laid over it, the last one winning."""
    return build((), spec.source, spec, sets)


def _read(root: Map, source: str, sets: Sequence[str], base: Spec | None = None) -> Spec:
    """The tree as a Spec, or one SpecError with all its problems in the order of the file."""
    reading = Reading()
    for argument in sets:
        reading.problems += _set(root, argument)
    reading.places[""] = root.place
    values = reading.section(Spec, root)
    places = reading.places
    if base is not None:  # what was not laid over it keeps its place
        places |= {path: place for path, place in base.places.items() if places.get(path) == root.place}
    spec = Spec(**values, source=source, places=MappingProxyType(places))
    reading.problems += [problem for paths, problem in contradictions(spec) if not reading.broken.intersection(paths)]
    if reading.problems:
        raise _all_of(reading.problems, source, [spec])
    return spec


def _all_of(problems: list[Problem], source: str, specs: Sequence[object]) -> SpecError:
    """All problems as one error, `--set` first and then from the top of the file down."""
    nowhere = Place("", 0, 0)
    ordered = sorted(problems, key=lambda problem: ((problem.place or nowhere).line, problem.place or nowhere))
    message = f"{source} has {len(ordered)} problem{'s' if len(ordered) > 1 else ''}"
    if len(ordered) > MAX_PROBLEMS:
        more = len(ordered) - MAX_PROBLEMS
        ordered = [*ordered[:MAX_PROBLEMS], Problem(f"... and {more} more", "correct these first")]
    error = SpecError(message, problems=ordered)
    error.specs = specs
    return error


def _bytes_of(path: str, file: str) -> bytes:
    """The file's bytes, one more than `MAX_SPEC` at most."""
    import sys

    try:
        if path == "-":
            return sys.stdin.buffer.read(MAX_SPEC + 1)
        return read_named(path, MAX_SPEC)
    except FileNotFoundError:
        raise SpecError(f"{file} does not exist", _neighbours(path) or _meant(file)) from None
    except IsADirectoryError:
        raise SpecError(f"{file} is a folder", _neighbours(f"{path}/x.yaml") or "name a spec file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"{file} cannot be read: {reason}", "name a spec file, or `-` for standard input") from None


def _meant(file: str) -> str:
    """What a name that is no file was probably meant to be."""
    if file.count("/") == 1 and not file.startswith(("/", ".", "~")) and not file.endswith((".yaml", ".yml")):
        return f"a model is named with --model {file}; `tgi-advisor init` writes a spec"
    return "`tgi-advisor init` writes a spec"


def _neighbours(path: str) -> str | None:
    """A hint naming the specs in the folder of `path`."""
    from pathlib import Path

    folder, name = Path(path).parent, Path(path).name
    try:
        specs = sorted(str(p) for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    except OSError:
        return None
    return did_you_mean(str(folder / name), specs) or (f"specs there: {listed(specs[:5], 'and')}" if specs else None)


# --set


def _set(root: Map, argument: str) -> tuple[Problem, ...]:
    """Lays one `path=value` over the tree; the problems when it has not that form."""
    path, equals, value = argument.partition("=")
    path = path.strip()
    place = Place(f"--set {shown(path) if len(path) > 60 or looks_secret(path) or not path else path}", 0, 0)
    if not equals or not path:
        return (Problem("expected path=value", "for example: --set limits.max_total_tokens=8k", place),)
    try:
        node = compose(value, place.file, at=place)
    except SpecError as error:
        return error.problems
    _assign(root, path, Scalar("", True, place) if node is None else node, place)
    return ()


def _assign(root: Map, path: str, value: Node, place: Place) -> None:
    """Puts `value` at the dotted path, making the mappings on the way; the last entry of a name is replaced."""
    here, *steps = root, *path.split(".")
    walked = ""
    for step in steps[:-1]:
        walked = f"{walked}.{step}" if walked else step
        index = _index(here, step, walked)
        child = None if index is None else here.entries[index][1]
        if not isinstance(child, Map):
            # `gpu: nvidia-l4` is short for `gpu: {name: nvidia-l4}`, and may be added to.
            keep = isinstance(child, Scalar) and not child.null and walked == "hardware.gpu"
            entries: list[tuple[Scalar, Node]] = [(Scalar("name", True, child.place), child)] if keep and child else []
            child = Map(entries, place)
            _put(here, index, Scalar(step, True, place), child)
        here = child
    _put(here, _index(here, steps[-1], path), Scalar(steps[-1], True, place), value)


def _put(section: Map, index: int | None, key: Scalar, value: Node) -> None:
    if index is None:
        section.entries.append((key, value))
    else:
        section.entries[index] = (key, value)


def _index(section: Map, name: str, path: str) -> int | None:
    """Where the last entry of that name stands; a launcher flag is found in any of its spellings."""
    same: Callable[[str], str] = flag_name if path.startswith("tgi.flags.") else str
    hits = [i for i, (key, _) in enumerate(section.entries) if same(key.text) == same(name)]
    return hits[-1] if hits else None


def _tree_of(spec: Spec | None, source: str) -> Map:
    """A spec as the tree it could have been read from."""
    if spec is None:
        return Map([], Place(source, 0, 0))
    from tgi_advisor.spec.writer import dump

    top = Place(spec.source, 0, 0)
    root = compose(dump(spec), spec.source, at=top)
    return root if isinstance(root, Map) else Map([], top)
