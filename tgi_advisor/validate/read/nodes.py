"""YAML text as nodes that know their place: anchors and merges are followed, nothing is ever expanded.

An alias is the very node it names, so a document of nested aliases takes no more room than its text;
whoever walks a tree visits a node once (`walk`). Go and Jinja templates (`{{ ... }}`) become
characters no scalar is without noticing (`HOLE`), and the value that holds one is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Union

from tgi_advisor.errors import Place
from tgi_advisor.validate.found import Defect, Value, whole_number
from tgi_advisor.validate.read.source import Source

MAX_DEPTH = 60
"""Deepest nesting that is read; a Kubernetes manifest needs twenty levels."""
HOLE = "\ue000"
"""Stands for each character of a template action."""
_ACTION = re.compile(r"\{\{[^{}]{0,400}\}\}|\{\{.{0,400}?\}\}", re.DOTALL)
_ONLY_ACTIONS = re.compile(
    r"^[ \t]*(?:\{\{[^{}\n]*\}\}[ \t]*)+$|^[ \t]*\{%[^{}\n]*%\}[ \t]*$|^[ \t]*%\{[^{}\n]*\}[ \t]*$", re.MULTILINE
)


class Scalar:
    """A single value or key."""

    __slots__ = ("_source", "defaulted", "end", "known", "missing", "raw", "start", "style", "text")

    def __init__(
        self, text: str, raw: Source, start: int, end: int, style: str = "",
        known: bool = True, missing: tuple[str, ...] = (), source: Source | None = None,
        defaulted: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.text = text
        self.raw = raw
        self.start = start
        self.end = end
        self.style = style
        self.known = known
        self.missing = missing
        self.defaulted = defaulted
        self._source = source

    def copied(self, **changed: Any) -> Scalar:
        """Another like it but for these fields; a changed text stands where it does, as a whole."""
        if "text" in changed and "source" not in changed:
            offsets = [self.raw.offset(self.start)] * len(changed["text"])
            changed["source"] = Source(self.raw.file, changed["text"], offsets)
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "_source"}
        return Scalar(**{**fields, "source": self._source, **changed})

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.raw.place(self.start)

    @property
    def spot(self) -> Place:
        """Where its text begins: behind the quote, where it has one."""
        return self.source.place(0) if self.style and self.text else self.place

    @property
    def null(self) -> bool:
        """Nothing at all, `~` or `null`."""
        return not self.style and self.text in ("", "~", "null", "Null", "NULL")

    @property
    def truth(self) -> bool:
        """Whether it is some spelling of true."""
        return self.text.lower() in ("true", "yes", "on")

    @property
    def source(self) -> Source:
        """Its text, each character with its place."""
        if self._source is None:
            self._source = _aligned(self)
        return self._source

    def value(self, origin: str = "command") -> Value:
        """It as a Value."""
        text = self.text.rstrip("\n") if self.style in ("|", ">") else self.text
        place, length = self.place, self.raw.length(self.start, self.end)
        if self.style in ("|", ">"):  # where the text begins, not the `|`
            place, length = self.source.place(0), self.source.length(0, len(text))
        quote = self.raw.quote(self.start, text) if self.style in ("'", '"') else 0
        return Value(text, place, origin, self.known, self.missing, length, self.defaulted, None, quote)


class Map:
    """Keys and values in the order written; a key may stand there twice."""

    def __init__(self, entries: list[tuple[Scalar, Node]], raw: Source, start: int) -> None:
        self.entries = entries
        self.raw = raw
        self.start = start

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.raw.place(self.start)

    @cached_property
    def merged(self) -> Mapping[str, tuple[Scalar, Node]]:
        """Key and value by name: its own, the last one written winning, before those merged in with `<<`."""
        own: dict[str, tuple[Scalar, Node]] = {}
        merges: list[Node] = []
        for key, node in self.entries:
            if key.text == "<<" and not key.style:
                merges += node.items if isinstance(node, List) else [node]
            else:
                own[key.text] = (key, node)
        for node in merges:
            if isinstance(node, Map):
                for name, entry in node.merged.items():
                    own.setdefault(name, entry)
        return own

    def get(self, *names: str) -> Node | None:
        """The value of the first of these keys that has one."""
        for name in names:
            entry = self.merged.get(name)
            if entry is not None and not (isinstance(entry[1], Scalar) and entry[1].null):
                return entry[1]
        return None

    def all(self, name: str) -> Iterator[Node]:
        """Every value written for a key, in order; the merged one when it is not written here."""
        own = [node for key, node in self.entries if key.text == name]
        if own:
            yield from own
        elif name in self.merged:
            yield self.merged[name][1]

    def key(self, name: str) -> Scalar | None:
        """The key itself."""
        entry = self.merged.get(name)
        return entry[0] if entry else None

    def without(self, name: str) -> Map:
        """It without a key."""
        return Map([entry for entry in self.entries if entry[0].text != name], self.raw, self.start)

    def at(self, *path: str) -> Node | None:
        """The node at a path of keys."""
        node: Node | None = self
        for name in path:
            node = node.get(name) if isinstance(node, Map) else None
        return node

    def map(self, *path: str) -> Map:
        """The mapping at a path; an empty one when there is none."""
        node = self.at(*path)
        return node if isinstance(node, Map) else Map([], self.raw, self.start)

    def list(self, *path: str) -> list[Node]:
        """The members of the list at a path; one for a single value, none for nothing."""
        node = self.at(*path)
        return node.items if isinstance(node, List) else [] if node is None else [node]

    def scalar(self, *path: str) -> Scalar | None:
        """The single value at a path."""
        node = self.at(*path)
        return node if isinstance(node, Scalar) and not node.null else None

    def value(self, *path: str, origin: str = "file") -> Value | None:
        """The single value at a path as a Value."""
        found = self.scalar(*path)
        return found.value(origin) if found else None


class List:
    """A sequence."""

    __slots__ = ("items", "raw", "start")

    def __init__(self, items: list[Node], raw: Source, start: int) -> None:
        self.items = items
        self.raw = raw
        self.start = start

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.raw.place(self.start)


Node = Union[Scalar, Map, List]  # noqa: UP007 - a forward reference has no `|` on 3.10


def compose(source: Source) -> tuple[list[Node], list[Defect]]:
    """Every document of a YAML text, and what is wrong with it; the documents before an error are kept."""
    import yaml

    text, templated = source.text, False
    if "{{" in text or "{%" in text or "%{" in text:
        hidden = _without_templates(text)
        templated, text = hidden != text, hidden
    source_text = source.text

    documents: list[Node] = []
    defects: list[Defect] = []
    anchors: dict[str, Node] = {}
    open_: list[tuple[list[Node], int, str | None, bool]] = [(documents, 0, None, False)]

    def add(node: Node, anchor: str | None) -> None:
        open_[-1][0].append(node)
        if anchor:
            anchors[anchor] = node

    event: Any
    try:
        for event in yaml.parse(_printable(text), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            kind = type(event)
            start = event.start_mark.index
            if kind is yaml.ScalarEvent:
                end, words = event.end_mark.index, event.value
                known = not (event.tag or "").startswith("!")  # `!Ref`, `!Sub`: CloudFormation knows
                if templated and HOLE in words:
                    known = False
                    words = _unhidden(words, source_text[start:end])
                add(Scalar(words, source, start, end, event.style or "", known), event.anchor)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                if len(open_) > MAX_DEPTH:
                    where = source.place(start)
                    message = f"nested deeper than {MAX_DEPTH} levels, the rest is not read"
                    return documents, [*defects, Defect("too-deep", message, where)]
                open_.append(([], start, event.anchor, kind is yaml.MappingStartEvent))
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                nodes, start, anchor, is_map = open_.pop()
                if is_map:
                    pairs = [(k, v) for k, v in zip(nodes[::2], nodes[1::2], strict=False) if isinstance(k, Scalar)]
                    if not templated:
                        defects += _doubles(pairs)
                    add(Map(pairs, source, start), anchor)
                else:
                    add(List(nodes, source, start), anchor)
            elif kind is yaml.AliasEvent:
                node = anchors.get(event.anchor)
                if node is None:
                    message = f"*{event.anchor} names no anchor above it"
                    defects.append(Defect("yaml-unknown-alias", message, source.place(start)))
                    node = Scalar(f"*{event.anchor}", source, start, event.end_mark.index, "", False)
                add(node, None)
            elif kind is yaml.DocumentStartEvent:
                anchors = {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        if not templated:  # what is left of a template need not be YAML
            defects.append(_syntax(source, mark.index if mark else 0, str(getattr(error, "problem", None) or error)))
        while len(open_) > 1:  # what was read so far may still hold a server
            nodes, start, _anchor, is_map = open_.pop()
            if is_map:
                pairs = [(k, v) for k, v in zip(nodes[::2], nodes[1::2], strict=False) if isinstance(k, Scalar)]
                open_[-1][0].append(Map(pairs, source, start))
            else:
                open_[-1][0].append(List(nodes, source, start))
    return documents, defects


def walk(root: Node, path: tuple[Map, ...] = ()) -> Iterator[tuple[str, Node, tuple[Map, ...]]]:
    """Every node once, from the top down: the key it stands under, itself, and the mappings around it."""
    seen: set[int] = set()
    waiting: list[tuple[str, Node, tuple[Map, ...]]] = [("", root, path)]
    while waiting:
        key, node, above = waiting.pop()
        if not isinstance(node, Scalar):
            if id(node) in seen:
                continue
            seen.add(id(node))
        yield key, node, above
        if isinstance(node, Map):
            waiting += [(name, child, (*above, node)) for name, (_, child) in reversed([*node.merged.items()])]
        elif isinstance(node, List):
            waiting += [(key, child, above) for child in reversed(node.items)]


def plain(node: Node) -> object:
    """What a node of JSON says: texts, whole numbers, booleans, and lists and mappings of them."""
    if isinstance(node, Map):
        return {name: plain(item) for name, (_, item) in node.merged.items()}
    if isinstance(node, List):
        return [plain(item) for item in node.items]
    number = whole_number(node.text)
    if node.style or (number is None and node.text not in ("true", "false")):
        return node.text
    return node.text == "true" if number is None else number


def _printable(text: str) -> str:
    """The text with characters YAML does not allow replaced; the parser raises at its start for any of them."""
    if text.isprintable() or not re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
        return text
    return re.sub("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _without_templates(text: str) -> str:
    """The text with template actions hidden, character for character."""

    def blank(match: re.Match[str]) -> str:
        return "#" + " " * (len(match[0]) - 1)

    def hole(match: re.Match[str]) -> str:
        return "".join("\n" if c == "\n" else HOLE for c in match[0])

    return _ACTION.sub(hole, _ONLY_ACTIONS.sub(blank, text))


def _unhidden(words: str, raw: str) -> str:
    """The text of a scalar with its template actions back in their place."""
    actions = iter(_ACTION.findall(raw))
    return re.sub(f"{HOLE}+", lambda match: next(actions, match[0].replace(HOLE, "?")), words)


def _doubles(pairs: list[tuple[Scalar, Node]]) -> list[Defect]:
    """A defect for each key a mapping has twice."""
    if len({key.text for key, _ in pairs}) == len(pairs):
        return []
    seen: dict[str, Scalar] = {}
    found: dict[str, Defect] = {}
    for key, _ in pairs:
        if key.text in seen and key.text != "<<" and key.text not in found:
            found[key.text] = Defect(
                "duplicate-yaml-key",
                f"`{key.text}` is already a key of this mapping (line {seen[key.text].place.line})",
                key.place, "merge the two, or remove one", len(key.text),
            )  # fmt: skip
        seen.setdefault(key.text, key)
    return list(found.values())


def _syntax(source: Source, index: int, problem: str) -> Defect:
    """What the YAML parser objects to, in the words of the spec's reader."""
    from tgi_advisor.spec.tree import in_our_words

    index = min(index, len(source.text))
    first = source.text.rfind("\n", 0, index) + 1
    line = source.text[first:].split("\n", 1)[0]
    message, hint = in_our_words(problem, line)
    return Defect("yaml-syntax", message, source.place(index), hint)


def _aligned(node: Scalar) -> Source:
    """The text of a scalar with the place of each character, found by reading the raw text beside it."""
    raw, text, style = node.raw.text, node.text, node.style
    at, end = node.start, min(node.end, len(raw))
    if style in ("'", '"'):
        at, end = at + 1, max(end - 1, at + 1)
    elif style in ("|", ">"):
        at = raw.find("\n", at, end) + 1 or end
    if raw[at : at + len(text)] == text:
        return Source(node.raw.file, text, node.raw.offsets[at : at + len(text)])
    offsets: list[int] = []
    for c in text:
        step = 1
        if c not in " \n":
            while at < end and raw[at] in " \n\t\r":
                at += 1
        if style == '"' and at < end and raw[at] == "\\":
            while raw.startswith("\\\n", at):  # an escaped line break is nothing
                at += 2
                while at < end and raw[at] in " \t":
                    at += 1
            if at < end and raw[at] == "\\":
                step = {"x": 4, "u": 6, "U": 10}.get(raw[at + 1 : at + 2], 2)
        elif style == "'" and raw.startswith("''", at):
            step = 2
        offsets.append(node.raw.offset(min(at, max(end - 1, node.start))))
        if at < end and (c not in " \n" or raw[at] in " \n\t\r\\"):
            at += step
    return Source(node.raw.file, text, offsets)
