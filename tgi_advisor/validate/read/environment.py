"""The environment of a container, gathered entry by entry, and environment files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from tgi_advisor.validate.found import UNSAID, Server, Value
from tgi_advisor.validate.read.source import File, Source
from tgi_advisor.validate.read.words import Variable
from tgi_advisor.validate.read.world import World

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What an environment variable may be called."""


class Environment:
    """Entries in the order the engine applies them, the last of a name winning."""

    def __init__(self) -> None:
        self.set: dict[str, Value] = {}
        self.overridden: list[tuple[str, Value]] = []
        self.secret: dict[str, Value] = {}
        self.sources: list[Value] = []

    def add(self, name: str, value: Value) -> None:
        """A variable with a value."""
        if name in self.set and self.set[name].origin == value.origin:
            self.overridden.append((name, self.set[name]))
        self.secret.pop(name, None)
        self.set[name] = value

    def refer(self, name: str, value: Value) -> None:
        """A variable whose value comes from outside the file."""
        self.set.pop(name, None)
        self.secret[name] = value

    def assigned(self, names: Iterable[tuple[str, Value]]) -> None:
        """Variables that a shell sets in the container."""
        for name, value in names:
            self.refer(name, replace(value, origin="a command before it"))

    def renamed(self, text: str) -> None:
        """Variables of the caller's that a comment of ours says others are filled from (`renames`)."""
        for name, caller in renames(text).items():
            if name in self.secret:
                self.secret[name] = replace(self.secret[name], missing=(caller,))

    def fields(self) -> dict[str, Any]:
        """The fields of a Server it fills."""
        return {
            "env": MappingProxyType(self.set),
            "overridden": tuple(self.overridden),
            "secret_env": MappingProxyType(self.secret),
            "env_sources": tuple(self.sources),
        }

    def variables(self) -> Mapping[str, Variable]:
        """What a shell inside the container knows."""
        known = {name: Variable(v.text, v.known, v.missing, v.defaulted) for name, v in self.set.items()}
        unknown = {name: Variable(f"${name}", False, (name,)) for name in self.secret}
        return {**known, **unknown}


_RENAMED = re.compile(
    r"^# (?:[^\n]*?printf ')?([A-Za-z_]\w*)=(?:%s\\n' )?\"\$([A-Za-z_]\w*)\" (?:\| sudo install|dstack apply)",
    re.MULTILINE,
)


def renames(text: str) -> dict[str, str]:
    """Variables inside and the caller's they are filled from, as comments at the top of what `emit` writes say it."""
    return dict(_RENAMED.findall(text))


def env_file(world: World, name: str, origin: str) -> Iterator[tuple[str, Value]] | None:
    """The entries of an environment file, with their places: of one the text at hand writes, or one beside it.

    None where there is no such file.
    """
    own = world.written.get(file_name(name))
    text = world.lookup(name) if own is None else None
    if own is None and text is None:
        return None
    return env_lines(own if own is not None else File(name, text or "").whole(), origin)


def file_name(name: str) -> str:
    """A file's name, without the ways to say "here"."""
    return re.sub(r"^(?:\./|\$\{?PWD\}?/|\$\(pwd\)/)+", "", name.strip("\"'"))


def is_env_text(text: str) -> bool:
    """Whether every line of a text is `NAME=value`, empty or a comment, and there is one."""
    lines = [line.strip() for line in text.splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    return bool(entries) and all(re.match(r"(?:export[ \t]+)?[A-Za-z_]\w*=", line) for line in entries)


_LINE = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?:=|:[ \t])[ \t]*([^\n]*)$", re.MULTILINE)


def env_lines(source: Source, origin: str) -> Iterator[tuple[str, Value]]:
    """`NAME=value` lines; quotes around a value and a comment after it do not belong to it."""
    for match in _LINE.finditer(source.text):
        start, written = match.start(2), match[2].rstrip()
        text = written
        if written[:1] in ("'", '"') and (close := written.find(written[0], 1)) > 0:
            text, written = written[1:close], written[: close + 1]
        elif (comment := re.search(r"(?:^|\s)#", written)) is not None:
            text = written = written[: comment.start()].rstrip()
        references = (
            tuple(re.findall(r"(?:\$\{?|\{\{\s*)([A-Za-z_][A-Za-z0-9_]*)", text)) if set("${") & set(text) else ()
        )
        place, length = source.place(start), source.length(start, start + len(written))
        known = not references and "$(" not in text and "`" not in text
        yield match[1], Value(text, place, origin, known, references, length, (), source.place(match.start(1)))


def _docker_lines(source: Source) -> Iterator[tuple[str, Value]]:
    """The same as `docker run --env-file` reads them: all behind the first `=` is the value, as it stands."""
    for match in re.finditer(r"^([A-Za-z_][A-Za-z0-9_]*)=([^\n]*)$", source.text, re.MULTILINE):
        start, end = match.span(2)
        place, key = source.place(start), source.place(match.start(1))
        yield match[1], Value(match[2], place, "environment", length=source.length(start, end), key=key)


def variables_of(entries: Mapping[str, str]) -> dict[str, Variable]:
    """Plain values as variables."""
    return {name: Variable(text) for name, text in entries.items()}


_OURS = re.compile(
    r"^# (?:docker run --env-file FILE (?P<image>\S+): these|What else the server needs is mounted: (?P<mount>[^\n]+)|"
    r"Start docker with: [A-Z_]+=\"\$(?P<token>[A-Za-z_]\w*)\" docker run)",
    re.MULTILINE,
)
"""What `emit` says beside an environment file, which a spec can say and the file itself cannot."""


def read_env(source: Source) -> list[Server]:
    """The server an environment file describes, when it names a model."""
    environment = Environment()
    place = None
    notes = tuple(f"{found.lastgroup} {found[found.lastgroup or 0]}" for found in _OURS.finditer(source.text))
    ours = any(note.startswith("image ") for note in notes)
    for name, value in _docker_lines(source) if ours else env_lines(source, "environment"):
        environment.add(name, value)
        place = place or value.key
    if place is None or not {"MODEL_ID", "HF_MODEL_ID"} & environment.set.keys():
        return []
    return [Server("env", "", place, gpus=UNSAID, notes=notes, **environment.fields())]
