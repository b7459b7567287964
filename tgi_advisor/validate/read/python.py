"""Environments written as dictionaries in Python (SageMaker, Vertex AI, RunPod notebooks), and Terraform maps.

The text is read token by token and never run: strings, numbers, names assigned in the same text,
f-strings of those, and wrappers such as `json.dumps(...)` have a value; any other expression is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Union

from tgi_advisor.validate.found import Gpus, Hint, Server, Value
from tgi_advisor.validate.read.launcher import is_image
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar
from tgi_advisor.validate.read.platform import container_of
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.words import MAX_VALUE
from tgi_advisor.validate.read.world import World

MAX_CHARACTERS = 300_000
"""Characters of a text that are read."""
MAX_TOKENS = 100_000
"""Tokens of a text that are read."""
MAX_TEXT = 100_000
"""Longest string that is put together from others."""
MAX_DEPTH = 40
"""Brackets within brackets that are followed."""

_TOKEN = re.compile(
    r"(?P<skip>[ \t\r]+|\\\n|\#[^\n]*)"
    r"|(?P<string>[fFrRbBuU]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'))"
    r"|(?P<name>[A-Za-z_][\w.]*)|(?P<number>\d[\w.]*)|(?P<newline>\n)|(?P<operator>==|!=|<=|>=|\+=|.)",
    re.DOTALL,
)
_WRAPPERS = frozenset(("json.dumps", "str", "int", "dumps", "repr", "float", "dict", "jsonencode", "tostring"))
_SDK = ("get_huggingface_llm_image_uri",)
_TELLS = frozenset(
    (
        "SM_NUM_GPUS", "NUM_SHARD", "MAX_TOTAL_TOKENS", "MAX_INPUT_LENGTH", "MAX_INPUT_TOKENS",
        "MAX_BATCH_PREFILL_TOKENS", "MAX_BATCH_TOTAL_TOKENS",
    )
)  # fmt: skip
"""Environment that only a TGI container has."""
_INSTANCE = ("instance_type", "InstanceType", "instanceType", "machine_type")


class Token(NamedTuple):
    """A word of the text."""

    kind: str
    """`string`, `name`, `number`, `newline` or `operator`."""
    text: str
    """As written."""
    start: int
    """Where it begins."""
    end: int
    """Where it ends."""


class Group(NamedTuple):
    """Brackets and what is in them."""

    opened: str
    """The opening bracket."""
    items: list[Item]
    """Tokens and groups."""
    start: int
    """Where it begins."""
    end: int
    """Where it ends."""


Item = Union[Token, Group]  # noqa: UP007 - a forward reference has no `|` on 3.10


def read_python(source: Source, world: World) -> list[Server]:
    """Every TGI server whose environment or container is a dictionary or the arguments of a call."""
    return _Reader(source, world).servers()


def _items(source: Source) -> list[Item]:
    """The text as nested groups."""
    stack: list[Group] = [Group("", [], 0, 0)]
    for count, match in enumerate(_TOKEN.finditer(source.text, 0, MAX_CHARACTERS)):
        kind = match.lastgroup or "operator"
        if kind == "skip":
            continue
        token = Token(kind, match[0], match.start(), match.end())
        if token.text in "([{" and kind == "operator" and len(stack) < MAX_DEPTH:
            stack.append(Group(token.text, [], token.start, token.start))
        elif token.text in ")]}" and kind == "operator" and len(stack) > 1:
            group = stack.pop()
            stack[-1].items.append(group._replace(end=token.end))
        else:
            stack[-1].items.append(token)
        if count > MAX_TOKENS:
            break
    while len(stack) > 1:
        group = stack.pop()
        stack[-1].items.append(group._replace(end=len(source.text)))
    return stack[0].items


class _Reader:
    """What the text has assigned so far, and the mappings found in it."""

    def __init__(self, source: Source, world: World) -> None:
        self.source = source
        self.world = world
        self.variables: dict[str, Node] = {}
        self.maps: list[tuple[Map, str]] = []  # with the name of the call, for arguments
        self.instances: list[tuple[int, Value]] = []
        self.images: list[tuple[int, Value]] = []

    def servers(self) -> list[Server]:
        """The servers, in the order of the text."""
        self._statements(_items(self.source))
        made: list[Server] = []
        used: set[int] = set()
        for node, _call in reversed(self.maps):  # calls come after the dictionaries they are given
            server = self._container(node, used)
            made += [server] if server else []
        for node, _call in self.maps:
            if id(node) not in used and self._is_environment(node):
                used.add(id(node))
                made.append(self._from_environment(node))
        return made

    def _is_environment(self, node: Map) -> bool:
        """Whether a dictionary is the environment of a TGI container."""
        names = node.merged.keys()
        if "HF_MODEL_ID" in names:
            return bool(_TELLS & names) or bool(self.images)
        return "MODEL_ID" in names and len(_TELLS & names) > 1

    def _container(self, node: Map, used: set[int]) -> Server | None:
        """A mapping that names an image, and perhaps an environment."""
        image = next(
            (item for name, (_, item) in node.merged.items() if "image" in name.lower() and isinstance(item, Scalar)),
            None,
        )
        if image is None or id(node) in used:
            return None
        env = node.get(
            "env", "Environment", "environment", "environment_variables", "serving_container_environment_variables"
        )
        if isinstance(env, Map):
            if id(env) in used:
                return None
            if not is_image(image.text):
                if image.known and ("." in image.text or ":" in image.text):
                    used.add(id(env))  # an image of something else
                return None
            used.add(id(env))
        elif not is_image(image.text) or len(node.merged) < 2:
            return None
        used.add(id(node))
        server = container_of(node, image.value("image"), self.world)
        return self._finished(server, env if isinstance(env, Map) else node)

    def _from_environment(self, node: Map) -> Server:
        """An environment whose container is not written as one mapping."""
        image = _nearest(self.images, node.start)
        holder = Map([(Scalar("env", self.source, node.start, node.start), node)], self.source, node.start)
        server = container_of(holder, image, self.world)
        return self._finished(replace(server, image=image), node)

    def _finished(self, server: Server, node: Map) -> Server:
        """With its place, and the instance it runs on."""
        place = node.entries[0][0].place if node.entries else node.place
        instance = _nearest(self.instances, node.start)
        if "HF_MODEL_ID" in server.env or (instance is not None and instance.text.startswith("ml.")):
            gpus = Gpus("all", "platform", instance) if instance else Gpus("unknown", "platform")
            hints = (Hint("instance", instance),) if instance else ()
            return replace(server, form="sagemaker", place=place, gpus=gpus, hints=hints)
        return replace(server, place=place)

    # -- statements

    def _statements(self, items: Sequence[Item]) -> None:
        """Assignments and expressions, line by line."""
        line: list[Item] = []
        for item in [*items, Token("newline", "\n", 0, 0)]:
            if isinstance(item, Token) and item.kind == "newline":
                if line:
                    self._statement(line)
                line = []
            else:
                line.append(item)

    def _statement(self, line: list[Item]) -> None:
        """`NAME = expression`, `NAME["KEY"] = expression`, or an expression."""
        equals = next((at for at, item in enumerate(line[:8]) if isinstance(item, Token) and item.text == "="), None)
        if equals is None:
            self._expression(line)
            return
        value = self._expression(line[equals + 1 :])
        target = line[0]
        if not isinstance(target, Token) or target.kind != "name":
            return
        key = line[1] if equals == 2 else None
        if isinstance(key, Group) and key.opened == "[":
            held, name = self.variables.get(target.text), self._expression(key.items)
            if isinstance(held, Map) and isinstance(name, Scalar) and value is not None:
                held.entries.append((name, value))
                held.__dict__.pop("merged", None)
        elif value is not None and (equals == 1 or (isinstance(line[1], Token) and line[1].text == ":")):
            self._note(target.text, value)
            self.variables[target.text] = value

    def _note(self, name: str, value: Node) -> None:
        """Remembers instance types and images by where they stand."""
        if not isinstance(value, Scalar):
            return
        if name in _INSTANCE and value.known:
            self.instances.append((value.start, value.value("file")))
        elif is_image(value.text):
            self.images.append((value.start, value.value("image")))

    # -- expressions

    def _expression(self, items: Sequence[Item]) -> Node | None:
        """What an expression is, as far as it is known; None for nothing."""
        items = [item for item in items if not (isinstance(item, Token) and item.kind == "newline")]
        if not items:
            return None
        first, last = items[0], items[-1]
        if len(items) == 1:
            return self._single(first)
        if isinstance(first, Token) and first.kind == "name" and isinstance(items[1], Group) and items[1].opened == "(":
            found = self._call(first, items[1])
            for item in items[2:]:
                if isinstance(item, Group):
                    self._arguments(item, "")
            if len(items) == 2:
                return found
            return self._unknown(first.start, last.end)
        parts: list[Scalar] = []
        joined = True
        for item in items:
            if isinstance(item, Token) and item.text == "+":
                continue
            node = self._single(item)
            if isinstance(node, Scalar) and isinstance(item, Token) and item.kind in ("string", "name"):
                parts.append(node)
            else:
                joined = False
        joined = joined and sum(len(part.text) for part in parts) <= MAX_TEXT
        if joined and parts and any(isinstance(item, Token) and item.kind == "string" for item in items):
            text = "".join(part.text for part in parts)
            offsets = [part.source.offset(at) for part in parts for at in range(len(part.text))]
            missing = tuple(name for part in parts for name in part.missing)
            known = all(part.known for part in parts)
            made = Source(self.source.file, text, offsets)
            return Scalar(text, self.source, first.start, last.end, '"', known, missing, made)
        return self._unknown(first.start, last.end)

    def _unknown(self, start: int, end: int) -> Scalar:
        """An expression whose value is not known, as written."""
        text = self.source.text[start:end]
        name = (text,) if re.fullmatch(r"[A-Za-z_][\w.]*", text) else ()
        return Scalar(text, self.source, start, end, '"', False, name, self.source.part(start, end))

    def _single(self, item: Item) -> Node | None:
        """One token or group."""
        if isinstance(item, Group):
            return self._group(item)
        if item.kind == "string":
            return self._string(item)
        if item.kind == "number" or item.text in ("True", "False", "true", "false"):
            return Scalar(
                item.text, self.source, item.start, item.end, "", True, (), self.source.part(item.start, item.end)
            )
        if item.kind == "name":
            held = self.variables.get(item.text) or self.variables.get(item.text.rpartition(".")[2])
            if isinstance(held, Scalar):
                made = Source(self.source.file, held.text, [self.source.offset(item.start)] * len(held.text))
                return Scalar(held.text, self.source, item.start, item.end, '"', held.known, held.missing, made)
            return held if held is not None else self._unknown(item.start, item.end)
        return None

    def _string(self, item: Token) -> Scalar:
        """A string; of an f-string the names in it."""
        match = re.match(r"([fFrRbBuU]*)(\"\"\"|'''|\"|')", item.text)
        assert match
        start, end = item.start + match.end(), item.end - len(match[2])
        raw, prefix = self.source.text[start:end], match[1].lower()
        text, offsets = _unescaped(raw, "r" in prefix)
        places = [self.source.offset(start + at) for at in offsets]
        known, missing = True, []
        if "f" in prefix and "{" in text and len(text) <= MAX_TEXT:
            parts: list[str] = []
            made: list[int] = []
            at = 0
            for hole in re.finditer(r"\{([^{}]*)\}", text):
                parts.append(text[at : hole.start()])
                made += places[at : hole.start()]
                held = self.variables.get(hole[1].strip())
                if isinstance(held, Scalar) and held.known and len(held.text) <= MAX_VALUE:
                    value = held.text
                else:
                    value = hole[0]
                if value == hole[0]:
                    known = False
                    missing.append(hole[1].strip())
                parts.append(value)
                made += [places[hole.start()]] * len(value)
                at = hole.end()
            text, places = "".join([*parts, text[at:]]), [*made, *places[at:]]
        made_of = Source(self.source.file, text, places)
        return Scalar(text, self.source, item.start, item.end, '"', known, tuple(missing), made_of)

    def _call(self, name: Token, group: Group) -> Node | None:
        """A call: wrappers have the value of what they wrap, the SDK's lookup names an image."""
        short = name.text.rpartition(".")[2]
        arguments = self._arguments(group, name.text)
        if short in _SDK:
            version = arguments.value("version")
            text = (
                f"huggingface-pytorch-tgi-inference:tgi{version.text}"
                if version
                else "huggingface-pytorch-tgi-inference"
            )
            at = arguments.scalar("version")
            start, end = (at.start, at.end) if at else (name.start, name.end)
            known = version is not None and version.known
            made = Source(self.source.file, text, [self.source.offset(start)] * len(text))
            node = Scalar(text, self.source, start, end, '"', known, () if known else ("version",), made)
            self.images.append((start, replace(node.value("SageMaker SDK"))))
            return node
        if name.text in _WRAPPERS or short == "dumps":
            inner = [item for item in group.items if not (isinstance(item, Token) and item.kind == "newline")]
            if name.text == "dict":
                return arguments
            cut = next(
                (at for at, item in enumerate(inner) if isinstance(item, Token) and item.text == ","), len(inner)
            )
            return self._expression(inner[:cut])
        if short in ("getenv", "get") and ("environ" in name.text or "getenv" in name.text):
            return self._unknown(name.start, group.end)
        return self._unknown(name.start, group.end)

    def _arguments(self, group: Group, call: str) -> Map:
        """The named arguments of a call as a mapping; what is nested in the others is read as well."""
        entries: list[tuple[Scalar, Node]] = []
        for part in _split(group.items, (",",)):
            if len(part) > 2 and isinstance(part[0], Token) and isinstance(part[1], Token) and part[1].text == "=":
                value = self._expression(part[2:])
                if value is not None:
                    key = part[0]
                    name = Scalar(key.text, self.source, key.start, key.end)
                    self._note(key.text, value)
                    entries.append((name, value))
            else:
                self._expression(part)
        made = Map(entries, self.source, group.start)
        if entries:
            self.maps.append((made, call or "()"))
        return made

    def _group(self, group: Group) -> Node | None:
        """A dictionary, a list, or an expression in brackets."""
        if group.opened == "(":
            return self._expression(group.items)
        if group.opened == "[":
            values = [node for part in _split(group.items, (",",)) if (node := self._expression(part)) is not None]
            return List(values, self.source, group.start)
        colons = any(isinstance(item, Token) and item.text == ":" for item in group.items)
        signs = (":",) if colons else ("=",)
        entries: list[tuple[Scalar, Node]] = []
        for part in _split(group.items, (",",), newlines=not colons):
            at = next((at for at, item in enumerate(part) if isinstance(item, Token) and item.text in signs), None)
            if at is None or at == 0:
                self._expression(part)
                continue
            key = part[0]
            if not isinstance(key, Token) or key.kind not in ("string", "name"):
                continue
            name = self._string(key) if key.kind == "string" else Scalar(key.text, self.source, key.start, key.end)
            value = self._expression(part[at + 1 :])
            if value is not None:
                self._note(name.text, value)
                entries.append((name, value))
        made = Map(entries, self.source, group.start)
        if entries:
            self.maps.append((made, ""))
        return made


def _split(items: Sequence[Item], separators: tuple[str, ...], newlines: bool = False) -> Iterator[list[Item]]:
    """Items between separators."""
    part: list[Item] = []
    for item in items:
        if isinstance(item, Token) and item.kind == "newline":
            if newlines and part:
                yield part
                part = []
            continue
        if isinstance(item, Token) and item.kind == "operator" and item.text in separators:
            if part:
                yield part
            part = []
        else:
            part.append(item)
    if part:
        yield part


_ESCAPES: Mapping[str, str] = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"', "\n": ""}


def _unescaped(raw: str, verbatim: bool) -> tuple[str, Sequence[int]]:
    """The text of a string, and where each of its characters stands."""
    if verbatim or "\\" not in raw:
        return raw, range(len(raw))
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    while at < len(raw):
        if raw[at] == "\\" and at + 1 < len(raw):
            text = _ESCAPES.get(raw[at + 1], raw[at : at + 2])
            parts.append(text)
            offsets += [at] * len(text)
            at += 2
        else:
            parts.append(raw[at])
            offsets.append(at)
            at += 1
    return "".join(parts), offsets


def _nearest(found: Sequence[tuple[int, Value]], at: int) -> Value | None:
    """The first one after a place, or the last one before it."""
    after = [value for start, value in found if start > at]
    before = [value for start, value in found if start <= at]
    return after[0] if after else before[-1] if before else None
