"""systemd units whose service is a container of TGI, or the launcher."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType

from tgi_advisor.validate.found import UNSAID, Defect, Mount, Server, Value
from tgi_advisor.validate.read.docker import device_gpus, mount_of, published
from tgi_advisor.validate.read.environment import Environment, env_file, renames
from tgi_advisor.validate.read.launcher import is_image
from tgi_advisor.validate.read.script import scan
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.words import PLAIN, Variable, lex
from tgi_advisor.validate.read.world import World

_LINE = re.compile(r"^(?P<name>[A-Za-z]+)[ \t]*=[ \t]*(?P<value>[^\n]*(?:\\\n[^\n]*)*)", re.MULTILINE)


def read_systemd(source: Source, world: World) -> tuple[list[Server], list[Defect]]:
    """The servers the unit's commands start."""
    text = source.file.text
    source = _as_shell(_uncommented(source))
    environment = Environment()
    restart = None
    for match in _LINE.finditer(source.text):
        if match["name"] == "Environment":
            for word in lex(source, match.start("value"), None, PLAIN, match.end()).words:
                name, equals, text = word.text.partition("=")
                if equals:
                    value = replace(word.as_value(source, "environment"), text=text)
                    environment.add(name, replace(value, key=value.place))
        elif match["name"] == "EnvironmentFile":
            path = source.value(match.start("value"), match.end(), "env_file")
            entries = env_file(world, path.text.lstrip("-"), f"env_file {path.text}")
            for name, value in entries or ():
                environment.add(name, value)
            environment.sources += [path] if entries is None else []
        elif match["name"] == "Restart":
            restart = source.value(match.start("value"), match.start("value") + len(match["value"].strip()), "file")
    variables: dict[str, Variable] = {name: Variable(v.text, v.known) for name, v in environment.set.items()}
    found = scan(source, world, variables)
    called = renames(text)
    servers = []
    for server in found.servers:
        fields = environment.fields() if server.form == "launcher" else {}
        made = replace(server, form="systemd", **fields)
        secret = {
            name: replace(value, missing=(called[name],)) if name in called else value
            for name, value in made.secret_env.items()
        }
        made = replace(made, secret_env=MappingProxyType(secret))
        servers.append(made if server.restart else replace(made, restart=restart))
    if re.search(r"^\[Container\]", source.text, re.MULTILINE) and (quadlet := _quadlet(source, environment)):
        servers.append(quadlet)
    return servers, found.defects


def _quadlet(source: Source, environment: Environment) -> Server | None:
    """The container of a Podman unit: https://docs.podman.io/en/latest/markdown/podman-systemd.unit.5.html."""
    held: dict[str, list[Value]] = {}
    for match in _LINE.finditer(source.text):
        start, end = match.span("value")
        end -= len(match["value"]) - len(match["value"].rstrip())
        held.setdefault(match["name"], []).append(source.value(start, end, "file"))
    image = next(iter(held.get("Image", ())), None)
    if image is None or not is_image(image.text) or "Entrypoint" in held:
        return None
    words: list[Value] = []
    for match in _LINE.finditer(source.text):
        if match["name"] == "Exec":
            words = [one.as_value(source) for one in lex(source, match.start("value"), None, PLAIN, match.end()).words]
    mounts = [mount_of(one) for one in held.get("Volume", ())]
    more = held.get("PodmanArgs", [])
    if more:  # options that are not read one by one
        mounts.append(Mount("unknown", replace(more[0], text="/", known=False)))
        environment.sources += [replace(one, known=False) for one in more]
    environment.sources += [replace(one, known=False) for one in held.get("Secret", ())]
    return Server(
        "platform", "", image.place, image=replace(image, origin="image"), args=tuple(words), **environment.fields(),
        ports=tuple(published(one) for one in held.get("PublishPort", ())), mounts=tuple(mounts),
        gpus=device_gpus(held.get("AddDevice", ())) or UNSAID, shm_size=next(iter(held.get("ShmSize", ())), None),
    )  # fmt: skip


def _uncommented(source: Source) -> Source:
    """The unit without the comments between the lines of one setting (systemd.syntax(7))."""
    if "\\\n" not in source.text:
        return source
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for line in source.text.splitlines(keepends=True):
        if not (parts and parts[-1].endswith("\\\n") and line.lstrip().startswith(("#", ";"))):
            parts.append(line)
            offsets += source.offsets[at : at + len(line)]
        at += len(line)
    return Source(source.file, "".join(parts), offsets)


_EXEC = re.compile(r"^Exec\w*[ \t]*=[ \t]*(?P<value>[^\n]*?(?:\\\n[^\n]*?)*)$", re.MULTILINE)
_PIECE = re.compile(
    r"(?P<quote>[\"'])|(?P<percent>%%)|(?P<folder>%S/[\w.-]+(?=[/:\s]))|(?P<home>%h)|(?P<dollar>\$\$|\$(?![A-Za-z_{]))"
    r"|(?P<escape>\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|[^\n]))|(?P<back>`)"
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "s": " "}


def _as_shell(source: Source) -> Source:
    """The unit with its commands as a shell would have them: systemd's escapes, `%%` and `$$` (systemd.syntax(7))."""
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for line in _EXEC.finditer(source.text):
        start, end = line.span("value")
        parts.append(source.text[at:start])
        offsets += source.offsets[at:start]
        at, quote = start, ""
        for piece in _PIECE.finditer(source.text, start, end):
            if piece.start() < at:
                continue
            parts.append(source.text[at : piece.start()])
            offsets += source.offsets[at : piece.start()]
            text = _piece(piece, quote)
            if piece["quote"]:
                quote = "" if quote == piece[0] else quote or piece[0]
            parts.append(text)
            last = source.offset(piece.end() - 1)
            offsets += [*source.offsets[piece.start() : piece.end()], *[last] * len(text)][: len(text)]
            at = piece.end()
    parts.append(source.text[at:])
    offsets += source.offsets[at:]
    return Source(source.file, "".join(parts), offsets)


def _piece(piece: re.Match[str], quote: str) -> str:
    """A piece of a command as a shell has it, within a quote or outside."""
    if piece["percent"]:
        return f"{quote}'%'{quote}" if quote != "'" else "%"  # so that it begins nothing (`marks`)
    if piece["folder"]:
        return "."
    if piece["home"]:
        return "~" if not quote else "$HOME"
    if quote == "'":
        return piece[0]
    if piece["dollar"]:
        return "\\$"
    if piece["back"]:
        return "\\`"
    if piece["escape"]:
        one = _character(piece[0][1:])
        if piece[0][1] in "xuU" and one not in "'\n":  # so that it begins nothing (`marks`)
            return f"{quote}'{one}'{quote}"
        return _quoted(one) if quote else piece[0]
    return piece[0]


def _character(escape: str) -> str:
    """The character behind a backslash (systemd.syntax(7))."""
    if escape[0] in "xuU" and len(escape) > 1:
        return chr(min(int(escape[1:], 16), 0x10FFFF))
    if len(escape) == 3:
        return chr(int(escape, 8))
    return _ESCAPED.get(escape, escape)


def _quoted(text: str) -> str:
    """A character within a shell's double quotes."""
    return f"\\{text}" if text in '\\"$`' else text
