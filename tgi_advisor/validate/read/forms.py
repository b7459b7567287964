"""What a text is, by its name and what stands in it, and the reader for it."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.marks import marks, parted, references
from tgi_advisor.validate.found import Defect, Document, Server, Value
from tgi_advisor.validate.read.commands import SHELL_ALONE
from tgi_advisor.validate.read.environment import file_name, is_env_text
from tgi_advisor.validate.read.kubernetes import with_more
from tgi_advisor.validate.read.launcher import IMAGE_WORDS, LAUNCHER
from tgi_advisor.validate.read.python import Program, read_python
from tgi_advisor.validate.read.script import scan
from tgi_advisor.validate.read.source import File, Source
from tgi_advisor.validate.read.words import SHELL, Variable, mode_of
from tgi_advisor.validate.read.world import World


class Result(NamedTuple):
    """What a reader found."""

    form: str
    """The `form` of the Document."""
    servers: list[Server]
    """Servers, in the order of the text."""
    defects: list[Defect]
    """Defects, in the order they were found."""


_YAML_START = re.compile(
    r"^(?:apiVersion|services|kind|version|resources|envs?|image|type|name|steps|jobs)[ \t]*:", re.MULTILINE
)
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*(?:>[ \t]*)*)(?P<mark>```+(?!`)|~~~+(?!~))[ \t]*(?P<lang>[^\s`{]*)[^\n]*\n", re.MULTILINE
)
_PYTHON = re.compile(
    r"(?:HF_MODEL_ID|SM_NUM_GPUS|MODEL_ID|Environment|image_name|docker_args|image_uri|env)[\"']?[ \t]*[:=]"
    r"|huggingface_llm_image_uri"
)
_SERVICE = re.compile(r"^[ \t]*[\w-]+:[ \t]*\n[ \t]+image:[ \t]", re.MULTILINE)
"""A service of a Compose file, without the file around it."""
_PLAIN_LANGUAGES = frozenset(("", "ini", "toml", "text", "txt", "plaintext", "conf", "config"))
_LIMIT = re.compile(r"^[ \t]*(?:MAX_TOTAL_TOKENS|MAX_INPUT_(?:LENGTH|TOKENS)|MAX_BATCH_PREFILL_TOKENS)=", re.MULTILINE)
_SHELL_LANGUAGES = frozenset(
    (
        "",
        "sh",
        "bash",
        "shell",
        "zsh",
        "console",
        "shell-session",
        "text",
        "bat",
        "batch",
        "cmd",
        "dos",
        "dosbatch",
        "posh",
        "powershell",
        "ps1",
        "pwsh",
        "terminal",
        "plaintext",
    )
)


def dispatch(text: str, file: str, world: World) -> Document:
    """Reads a text that has to do with TGI."""
    source = File(file, text).whole()
    result = _reader(file, source.text)(source, world)
    started = [one for one in result.servers if not _asks([word.text for word in one.args])]
    kept = tuple(found[1] for found in _KEPT.finditer(source.text))
    if kept and len(started) == 1:
        started = [replace(started[0], notes=(*kept, *started[0].notes))]  # the file's own words come after them
    filled = (_with_known_tag(_templated(one, source.file)) for one in started)
    servers = sorted(filled, key=lambda server: server.place)
    defects = sorted(set(result.defects), key=lambda defect: (defect.place, defect.kind))
    keep = servers or any(
        one.kind in ("yaml-syntax", "spec") or (one.kind == "compose-not-read" and _TGI.search(one.message))
        for one in defects
    )
    return Document(file, text, result.form, tuple(servers), tuple(defects) if keep else ())


MAX_LINES = 1000
"""Records of a file of JSON Lines that are read."""
_TGI = re.compile(r"\btgi|text.generation", re.IGNORECASE)
_ASKING = frozenset(("--help", "-h", "--version", "-V"))
"""Arguments the launcher answers, and ends."""


def _asks(args: Sequence[str]) -> bool:
    """Whether a launcher is only asked: for its help, or (`--env` alone) for what a report of a bug has to say."""
    return list(args) == ["--env"] or not _ASKING.isdisjoint(args)


_WHOLE = re.compile(r"\$\{\w+\}|\$\w+|\$\([^()]+\)")
"""What quotes kept from one shell, for another."""
_EXAMPLE = re.compile(r"(?:example|sample|template|dist|default|skel)[^/\\]*$", re.IGNORECASE)
"""The name of a file that is copied, and filled in."""


def _templated(server: Server, file: File) -> Server:
    """The server with what is filled in before the file is read unknown: a template's marks, and `${NAME}` where no
    shell reads it, or another one later. What is written so that it means what it says is known (`marks`).
    """
    if server.form == "spec" or (server.form == "env" and any(note.startswith("image ") for note in server.notes)):
        return server  # written by `emit` for `docker run --env-file`, which fills in nothing
    shell = server.form in ("compose", "systemd", "dockerfile")
    later = server.form in ("docker-run", "launcher", "sky")
    example = server.form == "env" and _EXAMPLE.search(server.place.file) is not None
    unfilled = example or server.form == "helm" or (server.form == "dockerfile" and bool(server.env_sources))

    def opened(value: Value) -> Value:
        if not value.known:
            return value
        if not value.text and unfilled:
            return replace(value, known=False)
        found = marks(value.text)
        filled = not shell and (not later or (value.origin == "command" and _WHOLE.fullmatch(value.text) is not None))
        if filled and (server.form != "kubernetes" or not value.text.startswith("$(")):
            # Kubernetes leaves a `$(NAME)` it does not know as it is
            found += [one for one in references(value.text) if one.text != f"${one.name}" or one.name not in server.env]
        if not found:
            return value
        written = file.written(value.place, value.length)
        if server.form == "systemd":
            written = written.replace("%%", "\\x25")
        names = tuple(one.name.strip() for one in found if not parted(one.text, written))
        return replace(value, known=False, missing=names) if names else value

    return server.with_values(opened)


def _with_known_tag(server: Server) -> Server:
    """The server with its image known when only the registry of it is not: the release stands in the tag."""
    image = server.image
    if image is None or image.known or not image.text:
        return server
    if re.search(r"[${}<>%\[#]|__|@[A-Z_]+@", image.text.rpartition("/")[2]):
        return server
    if image.missing == ("appVersion",) or image.missing == ("version",):
        return server
    return replace(server, image=replace(image, known=True, missing=()))


def _reader(file: str, text: str) -> Callable[[Source, World], Result]:
    """The reader for a file of this name that holds this."""
    name = file.replace("\\", "/").rpartition("/")[2].lower()
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix in ("json", "jsonl", "ndjson") and _is_lines(text):
        return _json_lines
    if suffix in ("yaml", "yml", "json", "jsonc", "json5") or name.endswith(
        (".yaml.j2", ".yml.j2", ".yaml.tpl", ".yml.tmpl")
    ):
        return _yaml
    if suffix in ("md", "markdown", "mdx", "rst", "adoc", "qmd"):
        return _markdown
    if suffix in ("html", "htm"):
        return _html
    if suffix == "ipynb":
        return _notebook
    if suffix in _SCRIPTS:
        return _javascript
    if suffix in ("py", "tf", "hcl", "nomad"):
        return _python
    if suffix in ("service", "container", "conf"):
        return _systemd if re.search(r"^\[(?:Service|Unit|Container)\]", text, re.MULTILINE) else _script
    if re.fullmatch(r"(?:.*[._-])?(?:docker|container)file(?:[._-].*)?", name):
        return _dockerfile
    if ".env" in name or suffix == "env" or name.startswith("env."):
        return _env
    if suffix in ("sh", "bash", "zsh", "bat", "cmd", "ps1", "mk", "fish") or name in ("makefile", "justfile"):
        return _script
    if not suffix and (begins := re.match(r"#![^\n]*[/ ](?:(python)[\d.]*|\w*sh)\b", text)):
        return _python if begins[1] else _script
    if re.search(r"^\[(?:Service|Unit)\]", text, re.MULTILINE):
        return _systemd
    if _FENCE.search(text):
        return _markdown
    start = text.lstrip()[:1]
    if start == "{" or (
        _YAML_START.search(text) and not re.search(r"^\s*(?:docker|podman) run|^\w+\s*=", text, re.MULTILINE)
    ):
        return _perhaps_yaml
    return _text


_KEPT = re.compile(r"^# tgi-advisor/((?:container|kubernetes|autoscale|replicas|mount) [^\r\n]+)", re.MULTILINE)
"""What `emit` keeps in a comment for a platform that has no words for it."""


def _yaml(source: Source, world: World) -> Result:
    from tgi_advisor.validate.read.documents import read_documents

    if source.file.name.lower().endswith((".json", ".jsonc", ".json5")):
        source = _without_comments(source)
    form, servers, defects = read_documents(source, world)
    return Result(form, servers, defects)


_OBJECT = re.compile(r"^[ \t]*\{[^\n]*\}[ \t\r]*$", re.MULTILINE)


def _is_lines(text: str) -> bool:
    """Whether a text has a JSON object on each of its lines, and more than one."""
    lines = sum(1 for line in text.splitlines() if line.strip())
    return lines > 1 and len(_OBJECT.findall(text)) == lines


def _json_lines(source: Source, world: World) -> Result:
    """Records, one a line (JSON Lines)."""
    found = [_yaml(source.part(*line.span()), world) for line in islice(_OBJECT.finditer(source.text), MAX_LINES)]
    return Result(
        "yaml", [one for each in found for one in each.servers], [one for each in found for one in each.defects]
    )


_JSON_COMMENT = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|(?P<comment>//[^\n]*|/\*[\s\S]*?\*/)")


def _without_comments(source: Source) -> Source:
    """JSON as many tools take it, its comments blank."""
    if "//" not in source.text and "/*" not in source.text:
        return source

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0]) if match["comment"] else match[0]

    return Source(source.file, _JSON_COMMENT.sub(blank, source.text), source.offsets)


def _perhaps_yaml(source: Source, world: World) -> Result:
    """A text that looks like YAML, under a name that says nothing."""
    found = _yaml(source, world)
    return found if found.servers else _text(source, world)


def _script(source: Source, world: World) -> Result:
    suffix = source.file.name.lower().rpartition(".")[2]
    mode = mode_of(source.text, suffix) if suffix in ("bat", "cmd", "ps1") else SHELL
    found = scan(source, world, mode=mode)
    return Result("script", found.servers, found.defects)


def _text(source: Source, world: World) -> Result:
    """A text of no known kind: commands, and dictionaries of Python."""
    result = _script(source, world)
    if _PYTHON.search(source.text):
        python = _python(source, world)
        if python.servers:
            return Result(
                "python",
                [*python.servers, *_elsewhere(result.servers, python.servers)],
                [*result.defects, *python.defects],
            )
    if not result.servers and _ENTRY.search(source.text):
        return _env(source, world)
    return Result("text", result.servers, result.defects)


_TAG = re.compile(r"<(?:!--[\s\S]*?--|/?[A-Za-z][^<>]*)>|&(?:#\d+|#x[0-9a-fA-F]+|\w+);")


def _html(source: Source, world: World) -> Result:
    """A page of the web as its reader sees it, each element on a line of its own."""
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for tag in _TAG.finditer(source.text):
        shown = "\n" if tag[0].startswith("<") else html.unescape(tag[0])
        parts += [source.text[at : tag.start()], shown]
        offsets += [*source.offsets[at : tag.start()], *[source.offset(tag.start())] * len(shown)]
        at = tag.end()
    page = Source(source.file, "".join([*parts, source.text[at:]]), [*offsets, *source.offsets[at:]])
    found = scan(page, world)
    blanks = [replace(one, severity="info") if one.kind in SHELL_ALONE else one for one in found.defects]
    return Result("text", [_to_fill_in(one) for one in found.servers], blanks)


def _elsewhere(servers: list[Server], known: list[Server]) -> list[Server]:
    """The servers that are not already known."""
    lines = {server.place.line for server in known}
    return [server for server in servers if server.place.line not in lines]


_ENTRY = re.compile(r"^[ \t]*(?:export[ \t]+)?(?:HF_)?MODEL_ID=", re.MULTILINE)


_COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""Files of Compose, which read the `.env` beside them."""


def _env(source: Source, world: World) -> Result:
    """An environment file; the `.env` of a Compose file without TGI is another server's."""
    from tgi_advisor.validate.read.environment import read_env

    if source.file.name.replace("\\", "/").rpartition("/")[2] == ".env":
        beside = next((text for name in _COMPOSE_NAMES if (text := world.lookup(name)) is not None), None)
        if beside is not None and not any(word in beside for word in (*IMAGE_WORDS, LAUNCHER)):
            return Result("env", [], [])
    return Result("env", read_env(source), [])


def _dockerfile(source: Source, _world: World) -> Result:
    from tgi_advisor.validate.read.dockerfile import read_dockerfile

    return Result("dockerfile", read_dockerfile(source), [])


def _python(source: Source, world: World) -> Result:
    """A program, and commands beside its strings (in TypeScript's templates, in a page's block of another language)."""
    return _program(source, world, read_python(source, world))


_SCRIPTS = ("ts", "js", "tsx", "jsx", "mjs", "cjs", "mts")
"""Endings of JavaScript and TypeScript."""
_OF_TEMPLATE = re.compile(r"\\(?=\\\r?\n|`|\$\{)")
"""The backslash of an escape in a template string."""


def _javascript(source: Source, world: World) -> Result:
    """A program in JavaScript or TypeScript, the escapes in its template strings as they read."""
    escapes = [match.start() for match in _OF_TEMPLATE.finditer(source.text)]
    if not escapes:
        return _python(source, world)
    cuts = [-1, *escapes, len(source.text)]
    pieces = [slice(start + 1, end) for start, end in pairwise(cuts)]
    offsets = [at for piece in pieces for at in source.offsets[piece]]
    return _python(Source(source.file, "".join(source.text[piece] for piece in pieces), offsets), world)


def _program(source: Source, world: World, program: Program) -> Result:
    """What a program holds, with commands that stand outside of its strings."""
    found = scan(source, world, dict(program.variables))
    inside = _inside(source, program.strings)
    defects = [one for one in found.defects if one.kind not in SHELL_ALONE and not inside(one.place)]
    servers = [server for server in found.servers if not inside(server.place)]
    every = [*program.servers, *_elsewhere(servers, program.servers)]
    return Result("python", every, [*program.defects, *defects])


def _inside(source: Source, strings: Sequence[tuple[int, int]]) -> Callable[[Place], bool]:
    """Whether a place is in one of these strings."""
    starts = [start for start, _ in sorted(strings)]
    ends = [end for _, end in sorted(strings)]

    def inside(place: Place) -> bool:
        offset = source.file.offset_of(place)
        at = bisect_right(starts, offset) - 1
        return at >= 0 and offset <= ends[at]

    return inside


def _systemd(source: Source, world: World) -> Result:
    from tgi_advisor.validate.read.systemd import read_systemd

    servers, defects = read_systemd(source, world)
    return Result("systemd", servers, defects)


def _markdown(source: Source, world: World) -> Result:
    """The code blocks of a page, each read as what it is; the prose between them for commands in backquotes."""
    servers: list[Server] = []
    defects: list[Defect] = []
    variables: dict[str, Variable] = {}
    several = set[str]()
    programs: list[Source] = []
    text, at = source.text, 0
    while match := _FENCE.search(text, at):
        hidden = text.find("<!--", at, match.start())
        if hidden >= 0 and (end := text.find("-->", hidden)) > match.start():
            _prose(source.part(at, hidden), world, variables, servers, defects)
            at = end
            continue
        _prose(source.part(at, match.start()), world, variables, servers, defects)
        close = re.compile(rf"^[ \t>]*{re.escape(match['mark'])}[ \t]*$", re.MULTILINE).search(text, match.end())
        end = close.start() if close else len(text)
        block = _dedented(source.part(match.end(), end), len(match["indent"]))
        name = _name_of(text, at, match) if is_env_text(block.text) else ""
        if name and name not in several and world.written.setdefault(name, block).text != block.text:
            several.add(name)  # which of them, the page's reader chooses
            del world.written[name]
        if match["lang"].lower() in _PYTHONS:
            programs.append(block)
            found = Result("python", [], [])
        else:
            found = _block(block, match["lang"].lower(), world, variables)
        servers += found.servers
        defects += found.defects
        at = close.end() if close else len(text)
    _prose(source.part(at), world, variables, servers, defects)
    found = _blocks_of_python(programs, world)
    servers += found.servers
    defects += found.defects
    given = {value.place for one in servers if one.form != "env" for value in one.env.values()}
    servers = [one for one in servers if one.form != "env" or not given & {value.place for value in one.env.values()}]
    return Result("text", [_to_fill_in(one) for one in servers], list(_first_blank(defects)))


_PYTHONS = ("python", "py", "python3", "pycon", "ipython")
"""What a page calls a block of Python."""


def _blocks_of_python(blocks: Sequence[Source], world: World) -> Result:
    """The blocks of Python on a page, each with the names that those before it give a value."""
    if not blocks:
        return Result("python", [], [])
    text: list[str] = []
    offsets: list[int] = []
    parts: list[tuple[int, int]] = []
    for block in blocks:
        parts.append((len(offsets), len(offsets) + len(block.text)))
        text += [block.text, "\n\n"]
        offsets += [*block.offsets, *[block.offset(len(block.text) - 1) if block.text else 0] * 2]
    source = Source(blocks[0].file, "".join(text), offsets)
    return _program(source, world, read_python(source, world, parts, apart=len(parts) > 1))


def _first_blank(defects: Sequence[Defect]) -> Iterator[Defect]:
    """The defects of a page, whose blanks a reader is meant to fill in: the first of them is a remark, no more."""
    blanks = sorted((one for one in defects if one.kind in SHELL_ALONE), key=lambda one: one.place)
    yield from (replace(one, severity="info") for one in blanks[:1])
    yield from (one for one in defects if one.kind not in SHELL_ALONE)


_ENV_NAME = re.compile(r"(?<![\w./-])[\w./-]*\.env(?:\.\w+)?(?![\w/-])")


def _name_of(text: str, since: int, fence: re.Match[str]) -> str:
    """The name a page gives the environment file in a block: behind its mark, or in the paragraph above it."""
    above = text[since : fence.start()].rstrip().rpartition("\n\n")[2]
    named = [*_ENV_NAME.findall(fence[0].partition("\n")[0]), *_ENV_NAME.findall(above)]
    return file_name(named[0]) if named else ""


_BLANK = re.compile(
    r"hf_[xX*.]+|[xX*.]{3,}|\[?(?:\u2026|\.{3})\]?|[A-Z_]+|\{your\w*\}"
    r"|#?(?i:(?:your|my)[-_ ][\w -]*|[\w-]*_your_[\w-]*|(?:hf_)?your[-_ ]?\w*token\w*|(?:hf_)?(?:access_)?token)"
)
"""What a page writes for a reader to replace, beside anything in angle brackets."""


def _to_fill_in(server: Server) -> Server:
    """A page's server with what its reader is to fill in unknown."""

    def opened(value: Value) -> Value:
        blank = value.known and (re.search(r"<[^<>\n]+>", value.text) or _BLANK.fullmatch(value.text))
        return replace(value, known=False) if blank else value

    return server.with_values(opened)


def _prose(
    part: Source, world: World, variables: dict[str, Variable], servers: list[Server], defects: list[Defect]
) -> None:
    """Commands in backquotes, and in blocks that are only indented."""
    if "docker" not in part.text and "podman" not in part.text and "text-generation-launcher" not in part.text:
        return
    found = scan(part, world, variables, strict=True, page=True)
    servers += found.servers
    defects += found.defects
    for match in re.finditer(r"(?:^(?: {3}|\t)[^\n]*\n?)+", part.text, re.MULTILINE):
        found = scan(part.part(match.start(), match.end()), world, variables, page=True)
        servers += _elsewhere(found.servers, servers)
        defects += found.defects


_LEFT_OUT = re.compile(r"^([ \t]*)(?:-[ \t]+)?(?:\.{3,}|\u2026)[ \t]*,?(?=[ \t]*(?:#[^\n]*)?$)", re.MULTILINE)
"""A line of a page's example that stands for others."""
_SAID_LEFT_OUT = re.compile(r"(?:#|//)[^\n]*(?:\.{3}|\u2026)|(?<![\"'\w.])(?:\.{3}|\u2026)(?![\"'\w.])")
"""A comment, or a value, that stands for what an example leaves out."""


def _excerpt(block: Source, world: World) -> Result:
    """YAML or JSON on a page; of an example that leaves something out what it lacks is unknown, and so is its form."""
    if not _SAID_LEFT_OUT.search(block.text):
        return _yaml(block, world)
    text = _LEFT_OUT.sub(lambda found: found[1] + "#" * (len(found[0]) - len(found[1])), block.text)
    found = _yaml(Source(block.file, text, block.offsets), world)
    servers = [with_more(replace(one, unknown=(*one.unknown, "what the example leaves out"))) for one in found.servers]
    return Result(found.form, servers, [one for one in found.defects if one.kind != "yaml-syntax"])


def _block(block: Source, language: str, world: World, variables: dict[str, Variable]) -> Result:
    """One fenced block."""
    of_yaml = _YAML_START.match(block.text) or _SERVICE.search(block.text)
    if language in ("yaml", "yml", "json", "jsonc") or (language == "" and of_yaml):
        found = _excerpt(block, world)
        if found.servers or language:
            return found if found.servers else Result("text", [], [])
    if language in ("hcl", "terraform"):
        return _python(block, world)
    if language in ("typescript", "javascript", *_SCRIPTS):
        return _javascript(block, world)
    if language in ("ini", "systemd"):
        return _systemd(block, world)
    if language in ("dockerfile", "containerfile") and re.match(r"\s*(?:#[^\n]*\s+|ARG\s[^\n]*\s+)*FROM\s", block.text):
        return _dockerfile(block, world)
    if language in ("env", "dotenv", "properties"):
        return _env(block, world)
    if language in _PLAIN_LANGUAGES and _LIMIT.search(block.text) and is_env_text(block.text):
        return _env(block, world)
    if language in _SHELL_LANGUAGES or "docker" in language:
        found_commands = scan(block, world, variables, mode=mode_of(block.text, language), page=True)
        if found_commands.servers:
            return Result("text", found_commands.servers, found_commands.defects)
        if _PYTHON.search(block.text):
            return _python(block, world)
    return Result("text", [], [])


def _dedented(block: Source, indent: int) -> Source:
    """A block without the indentation of its fence."""
    if not indent:
        return block
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for line in block.text.splitlines(keepends=True):
        skip = min(indent, len(line) - len(line.lstrip(" \t>")))
        parts.append(line[skip:])
        offsets += block.offsets[at + skip : at + len(line)]
        at += len(line)
    return Source(block.file, "".join(parts), offsets)


_MAGIC = re.compile(r"^[ \t]*(?:!|%\w)(?:[^\n]*\\\n)*[^\n]*\n?", re.MULTILINE)
_ENV_MAGIC = re.compile(r"[ \t]*%(?:set_)?env[ \t]+([A-Za-z_]\w*)(?:[ \t]*=[ \t]*|[ \t]+)(?=\S)")
_CELL_MAGIC = re.compile(r"\s*%%(?!time|capture|prun|debug)")


def _notebook(source: Source, world: World) -> Result:
    """The code cells of a Jupyter notebook: Python, and commands behind `!` or in cells of a shell."""
    from tgi_advisor.validate.read.nodes import List, Map, Scalar, compose

    documents, _ = compose(source)
    text: list[str] = []
    offsets: list[int] = []
    cells: list[tuple[int, int]] = []
    files: list[Result] = []
    root = documents[0] if documents else None
    if not isinstance(root, Map) or root.get("cells", "worksheets") is None:  # a notebook turned into a program
        plain = _python(source, world)
        return plain._replace(servers=[_to_fill_in(one) for one in plain.servers])
    sheets = [root, *(sheet for sheet in root.list("worksheets") if isinstance(sheet, Map))]  # nbformat 3
    for cell in (cell for sheet in sheets for cell in sheet.list("cells")):
        kind = cell.scalar("cell_type") if isinstance(cell, Map) else None
        if not isinstance(cell, Map) or kind is None or kind.text != "code":
            continue
        lines = cell.get("source", "input")
        start = len(offsets)
        held = [line for line in (lines.items if isinstance(lines, List) else [lines]) if isinstance(line, Scalar)]
        body = Source(
            source.file, "".join(line.text for line in held), [at for line in held for at in line.source.offsets]
        )
        if written := _WRITTEN.match(body.text):
            files.append(_written(written["name"], body.part(written.end()), world))
            continue
        text.append(body.text)
        offsets += body.offsets
        cells.append((start, len(offsets)))
        text.append("\n\n")
        offsets += [offsets[-1] if offsets else 0] * 2
    code = Source(source.file, "".join(text), offsets)
    parts, environ = _python_of(code.text, cells)
    found = _program(_interpolated(code), world, read_python(code, world, parts or [(0, 0)], environ))
    servers = [*found.servers, *(one for file in files for one in file.servers)]
    defects = [*found.defects, *(one for file in files if file.servers for one in file.defects)]
    return Result(found.form, [_to_fill_in(one) for one in servers], defects)


_WRITTEN = re.compile(r"\s*%%(?:writefile|file)[ \t]+(?:-a[ \t]+)?[\"']?(?P<name>[^\s\"']+)[\"']?[^\n]*(?:\n|$)")


def _written(name: str, body: Source, world: World) -> Result:
    """A file that a cell writes: read as what it is; an environment file, for whatever is given it by its name."""
    if is_env_text(body.text) and ".env" in name:
        world.written[file_name(name)] = body
        return Result("env", [], [])
    return _reader(name, body.text)(body, world)


def _python_of(text: str, cells: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[str, int, int]]]:
    """The pieces of a notebook's code that are Python, and the variables its `%env` lines set."""
    parts: list[tuple[int, int]] = []
    environ: list[tuple[str, int, int]] = []
    for start, end in cells:
        if _CELL_MAGIC.match(text, start, end):
            continue
        at = start
        for magic in _MAGIC.finditer(text, start, end):
            parts.append((at, magic.start()))
            at = magic.end()
            if named := _ENV_MAGIC.match(magic[0]):
                value = magic[0][named.end() :].rstrip()
                environ.append((named[1], magic.start() + named.end(), magic.start() + named.end() + len(value)))
        parts.append((at, end))
    return parts, environ


def _interpolated(code: Source) -> Source:
    """The code with names of Python in its commands (`!docker run {image}`) as a shell has them (`${image}`)."""
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for magic in _MAGIC.finditer(code.text):
        for hole in re.finditer(r"(?<![${])\{([A-Za-z_]\w*)\}(?!\})", magic[0]):
            start, end = magic.start() + hole.start(), magic.start() + hole.end()
            parts += [code.text[at:start], f"${hole[0]}"]
            offsets += [*code.offsets[at:start], code.offset(start), *code.offsets[start:end]]
            at = end
    return Source(code.file, "".join([*parts, code.text[at:]]), [*offsets, *code.offsets[at:]])
