"""Commands in programs: a list of words for `subprocess`, or a string that holds one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from tgi_advisor.validate.found import UNSAID, Defect, Server, Value
from tgi_advisor.validate.read import singularity
from tgi_advisor.validate.read.docker import read_run
from tgi_advisor.validate.read.environment import Environment
from tgi_advisor.validate.read.launcher import LAUNCHER, is_fork, is_launcher
from tgi_advisor.validate.read.nodes import List, Node, Scalar
from tgi_advisor.validate.read.script import Scan, scan
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.words import Word
from tgi_advisor.validate.read.world import World

_ENGINES = frozenset(("docker", "podman", "nerdctl"))
_AHEAD = 6
"""Words before the program: `sudo`, `nohup`, `docker --context x`."""


def server_of(command: List, world: World) -> tuple[Server | None, list[Defect]]:
    """The server a list of words starts, where it is a command that does."""
    texts = [node.text if isinstance(node, Scalar) else "" for node in command.items[: _AHEAD + 2]]
    program = next((at for at, text in enumerate(texts) if is_launcher(text)), None)
    if program is not None and len(command.items) > program + 1:
        source, words = _words(command.items[program:])
        values = [word.as_value(source) for word in words]
        flags = [value.text for value in values[1:] if value.text.startswith("-")]
        if not flags or is_fork(flags):
            return None, []
        place = values[0].place
        return Server("launcher", "", place, entry=values[0], args=tuple(values[1:]), gpus=UNSAID), []
    engine = next((at for at, text in enumerate(texts) if text.rpartition("/")[2] in _ENGINES), None)
    if engine is None and (ran := _in_singularity(command.items, texts)) is not None:
        return ran, []
    run = next((at for at, text in enumerate(texts) if text in ("run", "create")), None)
    if engine is None or run is None or run < engine:
        return None, []
    source, words = _words(command.items[run + 1 :])
    return read_run(source, words, {}, world)


def _in_singularity(items: Sequence[Node], texts: Sequence[str]) -> Server | None:
    """The server of a list that begins with Singularity or Apptainer."""
    at = next((at for at, text in enumerate(texts) if text.rpartition("/")[2] in singularity.ENGINES), None)
    if at is None or at + 2 >= len(items):
        return None
    instance = texts[at + 1] == "instance"
    if texts[at + 1 + instance] != "run":
        return None
    source, words = _words(items[at:])
    values = [word.as_value(source) for word in words]
    server = singularity.read_run(values[2 + instance :], Environment(), instance)
    return replace(server, place=values[0].place) if server else None


def _words(items: Sequence[Node]) -> tuple[Source, list[Word]]:
    """Members of a list as the words of one command, in a text of their own."""
    text: list[str] = []
    offsets: list[int] = []
    words: list[Word] = []
    at = 0
    for item in items:
        if not isinstance(item, Scalar):
            continue
        inner = item.source if item.known or item.style else _reference(item)
        value = replace(item.value(), text=inner.text)
        words.append(Word(inner.text, at, at + len(inner.text), item.known, item.missing, item.defaulted, value))
        text += [inner.text, " "]
        offsets += [*inner.offsets, item.raw.offset(item.end)]
        at += len(inner.text) + 1
    file = next(item.raw.file for item in items if isinstance(item, Scalar))
    return Source(file, "".join(text), offsets), words


SHELL_ALONE = ("shell-placeholder", "shell-syntax")
"""Kinds of defects that are none in a program's strings: to it they are only text."""


def _reference(item: Scalar) -> Source:
    """An expression of no known value as a shell would have it."""
    text = f"${{{_name(item.text)}}}"
    return Source(item.raw.file, text, [item.raw.offset(item.start)] * len(text))


def _name(expression: str) -> str:
    """A name for an expression."""
    name = re.sub(r"\W+", "_", expression.split("(")[0].strip()).strip("_")
    return name if re.match("[A-Za-z_]", name) else f"_{name}"


HOLE = re.compile(r"\{([^{}]*|[^{}]*\bif\b(?:[^{}]|\{[^{}]*\})*)\}")
"""What stands for a value in a string: a name, or an expression, which may hold another string of this kind."""


def scan_text(text: Scalar, world: World) -> Scan:
    """The servers that commands in a string start; to the program its quotes and blanks are only text."""
    if LAUNCHER not in text.text and not re.search(r"\b(?:run|create)\b", text.text):
        return Scan([], [])
    if is_launcher(text.text.strip()):
        return Scan([], [])
    source = as_shell(text)
    if re.search(r"--[a-z][\w-]*[ \t]*$", source.text):  # the value of the last flag is put behind the string
        end = source.offset(len(source.text) - 1)
        source = Source(source.file, f"{source.text} ${{_}}", [*source.offsets, *[end] * 5])
    found = scan(source, world)
    servers = [one for one in found.servers if one.form != "launcher" or not is_fork([word.text for word in one.args])]
    servers = [one.with_values(lambda value: opened(value, text)) for one in servers]
    return Scan(servers, [defect for defect in found.defects if defect.kind not in SHELL_ALONE])


def opened(value: Value, text: Scalar) -> Value:
    """A word of a string, unknown where it holds a name of the program's that single quotes kept."""
    names = [name for one in text.missing if f"${{{(name := _name(one))}}}" in value.text]
    return replace(value, known=False, missing=tuple(names)) if value.known and names else value


def as_shell(text: Scalar) -> Source:
    """A string with what is not known in it (`{name}`) as a shell would have it (`${name}`)."""
    return _marked(text, lambda hole: f"${{{_name(hole)}}}")


def as_template(text: Scalar) -> Source:
    """A string with what is not known in it (`{name}`) as a template would have it (`{{name}}`)."""
    return _marked(text, lambda hole: f"{{{{{_name(hole)}}}}}")


def _marked(text: Scalar, marked: Callable[[str], str]) -> Source:
    """A string with its holes written in another way."""
    source = text.source
    if text.known:
        return source
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for hole in HOLE.finditer(source.text):
        if hole[1].strip() not in text.missing:
            continue
        written = marked(hole[1])
        parts += [source.text[at : hole.start()], written]
        offsets += [*source.offsets[at : hole.start()], *[source.offset(hole.start())] * (len(written) - 1)]
        offsets.append(source.offset(hole.end() - 1))
        at = hole.end()
    return Source(source.file, "".join([*parts, source.text[at:]]), [*offsets, *source.offsets[at:]])
