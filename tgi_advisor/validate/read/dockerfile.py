"""Dockerfiles that are built on a TGI image: its release, what they set, and what their launcher is started with.

Only the last stage is an image that runs, with what it inherits of earlier ones. What a container of it is given on
top (`docker run -e`, arguments, GPUs, often the model) is stated elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.validate.found import UNSAID, Server, Value
from tgi_advisor.validate.read.docker import tail
from tgi_advisor.validate.read.environment import Environment
from tgi_advisor.validate.read.launcher import LAUNCHER, Launch, is_image, launch_of
from tgi_advisor.validate.read.nodes import List, Scalar, compose
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.words import Found, Variable, interpolate, lex

_HEREDOC = re.compile(r"<<-?[ \t]*(?P<quote>['\"]?)(?P<end>\w+)(?P=quote)")
_WORD = re.compile(r"[ \t]*(?P<name>[A-Za-z]+)[ \t]+")
_FROM = re.compile(r"(?:--\S+[ \t]+)*(?P<image>\S+)(?:[ \t]+[aA][sS][ \t]+(?P<stage>\S+))?")
MAX_INSTRUCTIONS = 2000
"""Instructions that are read."""


class _Instruction(NamedTuple):
    """One instruction."""

    name: str
    """Its word in capitals."""
    rest: Source
    """What stands behind it, on one line."""


@dataclass
class _Stage:
    """An image on its way."""

    place: Place
    image: Value | None = None
    env: list[tuple[str, Value]] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    entry: Source | None = None
    command: Source | None = None
    own_command: bool = False
    made: str = ""


def read_dockerfile(source: Source) -> list[Server]:
    """The server of the last stage, when it is built on a TGI image or starts the launcher."""
    stages: dict[str, _Stage] = {}
    before: dict[str, Variable] = {}
    stage: _Stage | None = None
    for at, (name, rest) in enumerate(_instructions(source)):
        if name == "FROM" and (match := _FROM.match(rest.text)):
            stage = _begun(rest, match, stages, before)
            stages[(match["stage"] or f" {at}").lower()] = stage
        elif name == "ARG":
            _argument(rest, before if stage is None else stage.variables, before)
        elif stage is None:
            continue
        elif name == "ENV":
            for variable, value in _entries(rest, stage.variables):
                stage.env.append((variable, value))
                stage.variables[variable] = Variable(value.text, value.known, value.missing)
        elif name == "ENTRYPOINT":
            stage.entry = rest  # Docker forgets the command of the image below, and not that of this stage
            stage.command = stage.command if stage.own_command else None
        elif name == "CMD":
            stage.command, stage.own_command = rest, True
        elif name in ("RUN", "COPY", "ADD"):
            stage.made += f"{rest.text}\n"
    server = _server(stage) if stage is not None else None
    return [server] if server is not None else []


def _instructions(source: Source) -> Iterator[_Instruction]:
    """The instructions, continued lines joined, comments and here-documents left out."""
    text, at, count = source.text, 0, 0
    while at < len(text) and count < MAX_INSTRUCTIONS:
        parts: list[str] = []
        offsets: list[int] = []
        more = True
        while more and at < len(text):
            stop = text.find("\n", at)
            stop = len(text) if stop < 0 else stop
            line = text[at:stop].rstrip()
            if line.lstrip().startswith("#") or (parts and not line):
                at = stop + 1
                more = bool(parts)
                continue
            more = line.endswith("\\")
            kept = len(line) - more
            parts.append(line[:kept])
            offsets += source.offsets[at : at + kept]
            at = stop + 1
        whole = Source(source.file, "".join(parts), offsets)
        match = _WORD.match(whole.text)
        if match is None:
            continue
        count += 1
        name = match["name"].upper()
        if name in ("RUN", "COPY", "ADD"):
            for document in _HEREDOC.finditer(whole.text):
                close = re.compile(rf"^\t*{document['end']}[ \t\r]*$", re.MULTILINE).search(text, at)
                at = close.end() + 1 if close else at
        yield _Instruction(name, whole.part(match.end()))


def _begun(rest: Source, match: re.Match[str], stages: dict[str, _Stage], before: dict[str, Variable]) -> _Stage:
    """A stage: a copy of the one it is built on, or a new one on an image."""
    written = match["image"]
    below = stages.get(written.lower())
    if below is not None:
        return replace(below, env=list(below.env), variables=dict(_of_env(below)), own_command=False)
    start, end = match.span("image")
    found = Found()
    text = interpolate(written, before, found)
    image = replace(
        rest.value(start, end, "image", text), known=found.known, missing=tuple(found.missing),
        defaulted=tuple(found.defaulted),
    )  # fmt: skip
    return _Stage(rest.place(start), image)


def _of_env(stage: _Stage) -> Iterator[tuple[str, Variable]]:
    """What a stage hands on to those built on it: its environment, and not its arguments."""
    for name, value in stage.env:
        yield name, Variable(value.text, value.known, value.missing)


def _argument(rest: Source, into: dict[str, Variable], before: dict[str, Variable]) -> None:
    """`ARG NAME=default`; in a stage a name alone takes the default given above the first stage."""
    for word in lex(rest, 0, into).words:
        name, equals, text = word.text.partition("=")
        if equals:
            into.setdefault(name, Variable(text, word.known, word.missing))
        else:
            into.setdefault(name, before.get(name, Variable(f"${name}", False, (name,))))


def _entries(rest: Source, variables: dict[str, Variable]) -> Iterator[tuple[str, Value]]:
    """`NAME=value` pairs, or one name and all behind it; Docker takes the quotes of either away."""
    words = lex(rest, 0, variables).words
    if len(words) == 2 and "=" not in words[0].text:
        yield words[0].text, replace(words[1].as_value(rest, "environment"), key=rest.place(words[0].start))
        return
    if words and "=" not in words[0].text:
        start = words[0].end + len(rest.text[words[0].end :]) - len(rest.text[words[0].end :].lstrip())
        value = rest.value(start, len(rest.text), "environment")
        found = Found()
        text = interpolate(value.text, variables, found)
        yield (
            words[0].text,
            replace(value, text=text, known=found.known, missing=tuple(found.missing), key=rest.place(words[0].start)),
        )
        return
    for word in words:
        name, equals, _ = word.text.partition("=")
        if equals:
            whole = word.as_value(rest, "environment")
            yield name, replace(tail(whole, len(name) + 1, rest, word), key=whole.place)


def _exec_form(rest: Source) -> list[Value] | None:
    """The words of a list; None for a text a shell is given, which is what Docker takes everything else for."""
    try:
        words = json.loads(rest.text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    documents, _ = compose(rest)
    items = documents[0].items if documents and isinstance(documents[0], List) else []
    values = [item.value() for item in items if isinstance(item, Scalar)]
    return [replace(value, known=value.known and "{{" not in value.text) for value in values]


_IDLE = re.compile(
    r"\[?[ \t]*\"?(?:exec[ \t]+)?(?:(?:/\w+)*/)?(?:(?:ba|z|da|k|a|fi|)sh(?:[\"', \t]+-[a-z]+)*|sleep[\"', \t]+infinity"
    r"|tail[\"', \t]+-f[\"', \t]+/dev/null)\"?[ \t]*\]?"
)
"""What starts a shell to work in, or nothing."""


_BACKEND = re.compile(
    r"text-generation-(?:backends?|router)-(trtllm|llamacpp)\b|(?:^|[/_-])(?:tensorrt|(trt)-?llm)(?:[-_:/]|$)"
)
"""The program, or the base, of a back end that has a launcher of its own (Dockerfile_trtllm@v3.3.7:124,147)."""
_BUILT = re.compile(rf"{LAUNCHER}|\bcargo[ \t]+(?:\S+[ \t]+)*(?:build|install)\b|make[ \t]+(?:\S+[ \t]+)*install")
"""What puts a launcher into an image that is not built on TGI's."""


def _built(stage: _Stage) -> tuple[str, ...]:
    """What is known of a launcher that the file builds, or copies out of a stage that does."""
    found = _BACKEND.search(stage.made) or (_BACKEND.search(stage.image.text) if stage.image is not None else None)
    if found is not None:
        return (f"backend {found[1] or 'trtllm'}",)
    return ("built here",) if _BUILT.search(stage.made) else ()


def _server(stage: _Stage) -> Server | None:
    """What the last stage starts."""
    image = stage.image
    ours = image is not None and is_image(image.text)
    environment = Environment()
    for name, value in stage.env:
        environment.add(name, replace(value, origin="environment"))
    launch = _launch(stage, environment)
    if not ours and (launch is None or all(word.text in ("", "--json-output") for word in launch.args)):
        return None
    if launch is None:
        starts = stage.entry or stage.command
        if starts is not None:
            line = _command_line(stage) or starts.text.strip()
            if _IDLE.fullmatch(line):
                return None
            environment.sources.append(
                replace(starts.value(0, len(starts.text)), text=f"what {line[:60]} starts", known=False)
            )
    environment.overridden.clear()  # a later ENV may well replace an earlier one
    return Server(
        "dockerfile", "", stage.place, image=image if ours else None,
        entry=launch.entry if launch else None, args=launch.args if launch else (),
        gpus=UNSAID, notes=() if ours else _built(stage), **environment.fields(),
    )  # fmt: skip


def _command_line(stage: _Stage) -> str:
    """What is started, its words joined: the entry point, and after one of words the command, as Docker joins them.

    https://docs.docker.com/reference/dockerfile/#understand-how-cmd-and-entrypoint-interact
    """
    entry = _exec_form(stage.entry) if stage.entry is not None else []
    if entry is None and stage.entry is not None:
        return stage.entry.text.strip()  # by a shell, which takes no more words
    command = _exec_form(stage.command) if stage.command is not None else []
    said = [word.text for word in (*(entry or ()), *(command or ()))]
    if command is None and stage.command is not None:
        said += [*(("/bin/sh", "-c") if entry else ()), stage.command.text.strip()]
    return " ".join(said)


def _launch(stage: _Stage, environment: Environment) -> Launch | None:
    """The launcher and its arguments; None where something else is started."""
    command = _exec_form(stage.command) if stage.command is not None else []
    if stage.entry is None and stage.image is not None and is_image(stage.image.text):
        return Launch(None, command) if command is not None else None  # its entry point would get `/bin/sh -c ...`
    own = _exec_form(stage.entry) if stage.entry is not None else []
    if own == []:
        words, shell = command, stage.command
    else:
        words, shell = None if own is None else [*own, *(command or [])], stage.entry
    if words is not None:
        if not words or words[0].text.startswith("-"):
            return None
        known = environment.variables()
        sources = {at: _text_of(stage, word) for at, word in enumerate(words) if LAUNCHER in word.text}
        return launch_of(words, {at: one for at, one in sources.items() if one is not None}, known)
    if shell is None:
        return None
    whole = shell.value(0, len(shell.text))
    return launch_of([whole], {0: shell}, environment.variables())


def _text_of(stage: _Stage, word: Value) -> Source | None:
    """The text of a word that may be a script for a shell."""
    for held in (stage.entry, stage.command):
        start = held.text.find(word.text) if held is not None else -1
        if held is not None and start >= 0:
            return held.part(start, start + len(word.text))
    return None
