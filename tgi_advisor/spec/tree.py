"""YAML text as a small tree of nodes that know their place.

The tree is made from the parser's events, so no YAML tag is ever acted on, an alias never expands,
and a document too deep or too long is refused while it is read. Plain scalars keep the text they
were written with; what it means is decided by the field they are for, by YAML 1.2's rules: `on` and
`yes` are words, `010` is no number, `1:30` is no number.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, NoReturn, Union

from tgi_advisor.bounds import MAX_SPEC
from tgi_advisor.errors import Place, Problem, SpecError
from tgi_advisor.safe import looks_secret

MAX_DEPTH = 8
"""Deepest nesting that is read. A spec needs four levels."""

_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
# Compiled only for a text that is not plainly printable: sets of Unicode take milliseconds.
_UNPRINTABLE = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]|[\ud800-\udfff]|[\ufffe\uffff]"

_WORD = r"(?:\.{0,2}/)?[A-Za-z0-9](?:[A-Za-z0-9_./@+-]|:(?=[A-Za-z0-9_./]))*"
_LINE = rf" *(?:([A-Za-z_][A-Za-z0-9_-]{{0,99}}):(?: +({_WORD}))?(?: +#.*| *)|(?:#.*)?)"


class Scalar(NamedTuple):
    """A single value (or a key), as written."""

    text: str
    """Its text, without quotes and with escapes resolved."""
    plain: bool
    """Whether it was written without quotes, so that `8` may be a number."""
    place: Place
    """Where it begins."""

    @property
    def null(self) -> bool:
        """Nothing at all, `~` or `null`."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")

    @property
    def boolean(self) -> bool | None:
        """The boolean it is, if it is one."""
        truths = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
        return truths.get(self.text) if self.plain else None

    @property
    def number(self) -> int | float | None:
        """The number it is, if it is a finite one of a size a computer counts with."""
        if not self.plain or len(self.text) > 32 or not _NUMBER.fullmatch(self.text):
            return None
        if self.text.lstrip("+-").isdigit():
            whole = int(self.text)
            return whole if abs(whole) < 1 << 63 else None
        value = float(self.text)
        return value if abs(value) != float("inf") else None

    @property
    def value(self) -> str | int | float | bool | None:
        """What a YAML 1.2 reader makes of it."""
        if self.null:
            return None
        if self.boolean is not None:
            return self.boolean
        return self.text if self.number is None else self.number


class Map(NamedTuple):
    """Keys and values in the order written; a key may stand there twice."""

    entries: list[tuple[Scalar, Node]]
    """Key and value pairs."""
    place: Place
    """Where it begins."""


class List(NamedTuple):
    """A sequence."""

    items: list[Node]
    """Its members."""
    place: Place
    """Where it begins."""


Node = Union[Scalar, Map, List]  # noqa: UP007 - a NamedTuple's forward reference has no `|` on 3.10


def compose(text: str, file: str, at: Place | None = None) -> Node | None:
    """The tree of the one document in `text`, or None when there is none; SpecError when it is not YAML.

    `at` is given for a text that has no lines of its own (`--set`): every node then has that place.
    """
    done = _documents(text, file, at, most=1)
    return done[0] if done else None


def compose_all(text: str, file: str) -> list[Node]:
    """The trees of all documents in `text` that hold anything; SpecError when it is not YAML."""
    return [node for node in _documents(text, file) if not (isinstance(node, Scalar) and node.null)]


def _documents(text: str, file: str, at: Place | None = None, most: int | None = None) -> list[Node]:
    """The trees of the documents in `text`; SpecError where more than `most` begin."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_SPEC:
        raise too_long(file)
    if (simple := _simple(text, file, at)) is not None:
        return [simple]
    import yaml

    def place(mark: Any) -> Place:
        return at or Place(file, mark.line + 1, mark.column + 1)

    def refuse(where: Place, message: str, hint: str) -> NoReturn:
        raise SpecError(f"{file} cannot be read", problems=[Problem(message, hint, where)])

    if not text.replace("\n", "").isprintable() and (odd := re.search(_UNPRINTABLE, text)):
        refuse(
            at or place_in(text, odd.start(), file),
            f"the character U+{ord(odd[0]):04X} is not allowed in YAML",
            "delete it; a spec is plain UTF-8 text",
        )

    done: list[Node] = []
    open_: list[tuple[list[Node], Place, bool]] = [(done, Place(file, 1, 1), False)]
    documents = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            where = place(event.start_mark)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                refuse(
                    where, "anchors (&name) and aliases (*name) are not read", "write the value out where it is needed"
                )
            if getattr(event, "tag", None):
                refuse(where, "tags (!name) are not read", "write the plain value")
            match event:
                case yaml.ScalarEvent():
                    open_[-1][0].append(Scalar(event.value, not event.style, where))
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    if len(open_) > MAX_DEPTH:
                        refuse(where, f"nested deeper than {MAX_DEPTH} levels", "a spec needs four; unfold this value")
                    open_.append(([], where, isinstance(event, yaml.MappingStartEvent)))
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    nodes, start, is_map = open_.pop()
                    if is_map:
                        for key in nodes[::2]:
                            if not isinstance(key, Scalar):
                                refuse(key.place, "a key must be a single word", "write `name: value`")
                        pairs = list(zip(nodes[::2], nodes[1::2], strict=True))
                        open_[-1][0].append(Map(pairs, start))  # type: ignore[arg-type]  # keys: just checked
                    else:
                        open_[-1][0].append(List(nodes, start))
                case yaml.DocumentStartEvent():
                    documents += 1
                    if most is not None and documents > most:
                        refuse(
                            where, "a second YAML document begins here",
                            "keep one deployment per file; `advise`, `emit` and `launch` take several",
                        )  # fmt: skip
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = text.splitlines()
        where = Place(file, 1, 1) if mark is None else place(mark)
        if at is None:
            # libyaml reports the end of a text as the line after it.
            where = where if where.line <= len(lines) else Place(file, max(len(lines), 1), len((lines or [""])[-1]) + 1)
        refuse(where, *in_our_words(str(error.problem), lines[mark.line] if mark and mark.line < len(lines) else ""))
    return done


def _simple(text: str, file: str, at: Place | None) -> Scalar | Map | None:
    """What the parser makes of a single word, or of `name: word` lines and sections; None for every other text."""
    if at is not None:
        return Scalar(text, True, at) if re.fullmatch(_WORD, text) else None
    if not text.isascii() or not text.replace("\n", "").isprintable():
        return None
    sections: list[tuple[int, Map]] = []
    begun: Scalar | None = None  # the name of a section whose first line is still to come
    for number, line in enumerate(text.split("\n"), 1):
        found = re.fullmatch(_LINE, line)
        if found is None:
            return None
        if found[1] is None:
            continue
        column = found.start(1)
        name = Scalar(found[1], True, Place(file, number, column + 1))
        if begun is not None or not sections:
            section = Map([], name.place)
            if begun is not None:
                sections[-1][1].entries.append((begun, section))
                if column <= sections[-1][0]:
                    return None
            sections.append((column, section))
        while column < sections[-1][0] and len(sections) > 1:
            sections.pop()
        if column != sections[-1][0] or len(sections) > MAX_DEPTH:
            return None
        begun = name if found[2] is None else None
        if begun is None:
            value = Scalar(found[2], True, Place(file, number, found.start(2) + 1))
            sections[-1][1].entries.append((name, value))
    return None if begun is not None or not sections else sections[0][1]


def too_long(file: str) -> SpecError:
    """The refusal of a text over `MAX_SPEC`."""
    return SpecError(f"{file} is longer than {MAX_SPEC >> 10} KiB", "is it the right file? a spec is a page of text")


def place_in(text: str, offset: int, file: str) -> Place:
    """Line and column of a character."""
    before = text[:offset]
    return Place(file, before.count("\n") + 1, offset - before.rfind("\n"))


_YAML_ERRORS = (
    ("mapping values are not allowed", "a `:` begins a new key in the middle of a value",
     "put the value in quotes, or check that this line is indented like the ones before it"),
    ("could not find expected ':'", "a key without a `:`", "write `name: value`"),
    ("end of stream", "the text ends inside a quoted value", "close the quotes"),
    ("',' or ']'", "a list that begins with `[` is not closed", "write `[a, b]`"),
    ("',' or '}'", "a mapping that begins with `{` is not closed", "write `{name: value, other: value}`"),
    ("cannot start any token", "a value may not begin with this character", "put the value in quotes"),
    ("unknown escape character", "an unknown escape in double quotes",
     "write a backslash as \\\\, or use single quotes"),
    ("document start", "the document has ended before this", "keep one deployment per file"),
    ("did not find expected key", "this line is not indented like the ones before it", "indent by two spaces a level"),
    ("node content", "a value or a closing bracket is missing here", "put a value that begins with a sign in quotes"),
    ("expected <block end>", "this line is not indented like the ones before it", "indent by two spaces a level"),
    ("expected '-' indicator", "a list and keys at the same indentation", "a spec is `name: value` lines"),
)  # fmt: skip


def in_our_words(problem: str, line: str) -> tuple[str, str]:
    """What the YAML parser objects to, and what to write instead."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "this line is indented with a tab", "YAML wants spaces; indent by two spaces a level"
    for words, message, hint in _YAML_ERRORS:
        if words in problem:
            return message, hint
    return f"this is not YAML: {shown(problem)}", "check the quotes and the indentation of this line"


def shown(text: str) -> str:
    """The text as an error may show it: in quotes, cut short, and never a secret."""
    if looks_secret(text):
        return "(a secret, not shown)"
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def described(node: Node) -> str:
    """What stands there, for `got ...`."""
    if isinstance(node, Map):
        return "a mapping"
    if isinstance(node, List):
        return "a list"
    if node.null:
        return "nothing"
    if node.boolean is not None or node.number is not None:
        return node.text
    return shown(node.text) if node.plain or not node.text else f"the quoted text {shown(node.text)}"
