"""Shell scripts, batch files, and any text with `docker run` or launcher commands in it.

The text is not parsed as a whole: prose, Makefiles and half a script are read as well. Assignments,
branches and commands are found line by line; a variable that a branch may or may not set is unknown
after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.validate.found import NO_GPUS, UNSAID, Defect, Mount, Server, Value
from tgi_advisor.validate.read import guards, singularity
from tgi_advisor.validate.read.cloudrun import COMMAND, read_gcloud
from tgi_advisor.validate.read.docker import read_run, tail
from tgi_advisor.validate.read.environment import Environment, file_name, is_env_text, variables_of
from tgi_advisor.validate.read.launcher import LAUNCHER, is_image, is_launcher
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.words import MAX_VALUE, SHELL, Command, Found, Variable, Word, interpolate, lex
from tgi_advisor.validate.read.world import World

_RUN = (
    r"(?P<run>(?<![\w.-])(?:(?:docker|podman|nerdctl|pouch|finch)(?:\.exe)?"
    r"|\"?\$\{?(?:DOCKER|PODMAN|CONTAINER_(?:ENGINE|RUNTIME|TOOL|CMD))(?:_\w+)?\}?\"?)"
    r"(?:[ \t]+--?[a-z][\w-]*(?:=\S*)?)?[ \t]+(?:container[ \t]+)?(?:run|create)(?=[ \t\\^`])[ \t]*)"
)
_ASSIGN = (
    r"(?P<assign>^[ \t]*(?P<how>(?:export|local|readonly|declare|typeset)[ \t]+(?:-\w+[ \t]+)*|"
    r"set[ \t]+(?:/\w[ \t]+)?\"?|SET[ \t]+(?:/\w[ \t]+)?\"?|@set[ \t]+\"?|\$(?:env:)?)?"
    r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<op>\+?=|[ \t]*\?=[ \t]*|[ \t]*:=[ \t]*|[ \t]+=[ \t]*))"
)
_BLOCK = r"(?P<block>^[ \t]*(?:if|IF|for|while|until|case|else|elif|fi|done|esac)\b)"
_DOCKERFILE = r"(?P<dockerfile>^(?:ARG|ENV)[ \t]+[A-Za-z_][A-Za-z0-9_]*=[^\n]*)"
_SINGULARITY = (
    r"(?P<singularity>(?<![\w.-])(?:(?:singularity|apptainer)[ \t]+(?:-\w+[ \t]+)*"
    r"(?P<instance>instance[ \t]+)?run(?=[ \t\\])[ \t]*|(?P<srun>srun[ \t]+)(?=(?:-\S+[ \t]+)*\$)))"
)
_HEREDOC = r"(?P<heredoc><<-?[ \t]*(?P<raw>[\"'\\]?)(?P<mark>[A-Za-z_]\w*)[\"']?(?!\w))"
_PERHAPS = (
    r"(?P<perhaps>(?:\b(?:then|do|else|and|or)[ \t]|&&|\|\||[;{)&(]"
    r"|^[ \t]*(?:if|IF)\b[^\n]*?[ \t(](?=[sS][eE][tT][ \t])|^[ \t]*(?=let[ \t]))[ \t]*"
    r"(?:(?:export|local|declare|readonly|typeset|let|[sS][eE][tT])[ \t]+(?:-\w+[ \t]+)*)?[\"']?\$?"
    r"(?P<other>[A-Za-z_]\w*)[ \t]*(?:[-+*/%]?=(?![=~])|\+\+|--))"
)
"""An assignment behind a condition, or behind another command on its line."""
_OUTSIDE = (
    r"(?P<outside>(?:^|[;&|(]|\b(?:do|then|else|while))[ \t]*"
    r"(?:(?P<into>read|mapfile|readarray|printf[ \t]+-v)[ \t][^\n;|&<]*|(?:source|\.)[ \t]+(?P<sourced>[^\s;&|]+)))"
)
"""What sets variables from outside of the script: a line that is read, a file that is sourced."""
_EVENT = re.compile(
    "|".join(
        (
            _HEREDOC, rf"(?P<gcloud>{COMMAND})", _SINGULARITY, _RUN, rf"(?P<launch>{LAUNCHER})", _ASSIGN, _OUTSIDE,
            _PERHAPS, _BLOCK, _DOCKERFILE,
        )
    ),
    re.MULTILINE,
)  # fmt: skip
_COMMENT = re.compile(r"[ \t]*(?:#(?!!)|//|(?:rem|REM|@rem|@REM|Rem)\b|::|<!--)")
_BEFORE_LAUNCHER = re.compile(
    r"(?:^|[;&|(`\"'=!$>%-]|\b(?:sudo|exec|then|do|else|time|nohup|env|CMD|RUN|ENTRYPOINT|run|command|args|-c))[ \t]*$"
    r"|^[ \t]*(?:[A-Za-z_][A-Za-z0-9_]*=\S*[ \t]+)+$"
)
_ASSIGNED = re.compile(
    r"(?<!\S)(?:[A-Za-z_]\w*=(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'\\])*(?:[ \t]|\\\n)+)+"
    r"(?:(?:env|exec|nohup|sudo|time)[ \t]+)*\Z"
)
_NAMES_IT = re.compile(
    r"(?<![\w.-])(?:cargo|pip3?|pgrep|pkill|killall|grep|which|type|command[ \t]+-v|whereis)[ \t][^;&|]*\Z"
)
"""What installs, finds or ends a launcher, and starts none."""
_IN_CONTAINER = re.compile(r"(?<![\w.-])(?:singularity|apptainer|srun|enroot)[ \t](?:[^\n;&|`]|\\\n)*[ \t][\"']?\Z")
"""What starts a launcher within an image on a cluster."""
_EVERY = ("$@", "${@}", "$*", "${*}")
"""Every argument of the script."""
_PRINTS = re.compile(
    r"(?:^|[;&|({]|\b(?:then|do|else))[ \t]*@?(?:>&2[ \t]*)?"
    r"(?:echo|printf|Write-(?:Host|Output)|log\w*|info|warn\w*|die|fail|usage|say)[ \t]+",
    re.MULTILINE,
)
"""What prints a text."""
_INTO_FILE = re.compile(r"[\"'][ \t]*(?:\d?>>?[ \t]*(?!&)\S|\|)")
_SCREEN = r"[ \t]*(?:1?>&2)?[ \t]*"
_PRINTED = re.compile(
    r"[ \t]*(?:(?:\w+[ \t]*\(\)|function[ \t]+\w+)[ \t]*\{[ \t]*)?"
    rf"(?:(?:\w+=[\"']?\$\([ \t]*)?cat|:|true|read[ \t][^\n<]*){_SCREEN}<<-?[ \t]*[\"'\\]?\w+[\"']?{_SCREEN}"
)
"""A text between two marks that goes nowhere but to the screen, or nowhere at all."""
_SUMS = re.compile(r"(?:declare|typeset|local)[ \t]+(?:-\w+[ \t]+)*-\w*i")
"""A declaration whose value is worked out."""
_ALIAS = re.compile(r"\balias[ \t]+[\w.-]+[= \t][ \t]*[\"']?(?:sudo[ \t]+)?\Z")
"""What begins a name for a command."""
MANIFEST = re.compile(r"^[ \t]*(?:apiVersion|services)[ \t]*:", re.MULTILINE)
_IN_TEXT = re.compile(r"\\([$`\\])|\$\{[^{}\n]*\}|\$\([^()\n]*\)|\$[A-Za-z_]\w*")
"""What a shell replaces in the text between two marks."""
_WRITES = re.compile(r"(?:(?<![0-9>&])>|\btee)[ \t]*[\"']?(?!/dev/null)(?P<name>[^\s\"'<>|&;]*env[^\s\"'<>|&;]*)")
"""The environment file that a line writes."""
_OF_SHELL = (".sh", ".bash", ".zsh", ".md", ".mdx", ".markdown")
_READS = re.compile(
    r"^[ \t]*(?:source|\.)[ \t]|\b(?:read|getopts|mapfile|readarray|eval)[ \t]|printf[ \t]+-v", re.MULTILINE
)
"""What may set a variable without its name before an equals sign."""
_SOURCED = re.compile(r"^[ \t]*(?:(?:source|\.)[ \t]+\S+|set[ \t]+-(?:a\b|o[ \t]+allexport)|eval\b)", re.MULTILINE)
_CONDITION = re.compile(r"(?:(?!\b(?:then|do)\b|;[ \t]*(?:then|do)\b)(?:\\\n|(?:&&|\|\|)[ \t]*\n|[^\n]))*")
"""A condition, over the lines that continue it."""
_YAML_WRITTEN = re.compile(r"(?:(?<![0-9>&])>>?|\btee(?:[ \t]+-a)?)[ \t]*[\"']?(?!/dev/null)(?P<name>[^\s\"'<>|&;]+)")
"""The file that a line writes."""
_TWO, _ONE = "\\\\\n", " \\\n"
_APPENDED = re.compile(r">>|\btee[ \t]+(?:-a|--append)\b")
"""What adds to a file."""
_LAID_OVER = re.compile(r"\b(?:yq|jq|kustomize|kubectl[ \t]+(?:patch|set)|oc[ \t]+(?:patch|set))\b|--patch")
"""What a manifest is laid over, or changed by."""
_ALONE = re.compile(
    r"^[ \t]*(?:\$\w+|\$\{[^\n{}]*(?:\{[^\n{}]*\}[^\n{}]*)*\}|\$\([^\n]*\)|`[^\n]*`)[ \t]*$", re.MULTILINE
)
"""A line that is made elsewhere: a variable, or what a command prints."""
_OPENS = re.compile(r"(?:^|[;&|][ \t]*)[ \t]*(?:if|for|while|until|case)\b", re.MULTILINE)
_CLOSES = re.compile(r"(?:^|;)[ \t]*(?:fi|done|esac)\b", re.MULTILINE)
_ENDS = re.compile(r"(?:^|[;{&|]|\b(?:then|do))[ \t]*(?:exit|return|continue|break|die|usage)\b", re.MULTILINE)
"""What leaves a script, a function or a loop."""
MAX_SERVERS = 300
"""Servers of a text that are read."""
MAX_SOURCED = 20
"""Files a script sources that are named."""
MAX_MANIFESTS = 200_000
"""Characters of manifests between two marks that are read."""
MAX_BLOCKS = 50
"""Branches within branches that are followed."""


class Scan(NamedTuple):
    """What a text holds."""

    servers: list[Server]
    """TGI servers in it."""
    defects: list[Defect]
    """What is wrong with how they are written."""


class _Block(NamedTuple):
    """An open branch or loop."""

    before: dict[str, Variable]
    """Variables as they were where it began."""
    changed: dict[str, set[Variable | None]]
    """Values variables had at the end of its branches so far, of those any branch sets."""
    complete: list[str]
    """`else`, once it was seen."""
    conditions: list[str]
    """The conditions of its branches so far."""
    ruled_out: dict[str, Variable | None]
    """Values that the branch at hand is not run with: the variable is unknown in it, and this again behind it."""
    start: int
    """Where it begins."""


def scan(
    source: Source,
    world: World,
    variables: dict[str, Variable] | None = None,
    strict: bool = False,
    mode: str = SHELL,
    page: bool = False,
) -> Scan:
    """Every TGI server that commands in a text start; `strict` takes only commands in backquotes, and on a `page` a
    variable that is set to nothing is one that the reader fills in.
    """
    return _Scanner(source, world, {} if variables is None else variables, strict, mode, page).scan()


class _Scanner:
    """The state of reading one text."""

    def __init__(
        self, source: Source, world: World, variables: dict[str, Variable], strict: bool, mode: str, page: bool
    ) -> None:
        self.source = source
        self.text = source.text
        self.world = world
        self.variables = variables
        for name, variable in variables_of(world.env).items():
            variables.setdefault(name, variable)
        self.strict = strict
        self.mode = mode
        self.page = page
        self.blocks: list[_Block] = []
        self.arrays: dict[str, list[Word]] = {}
        self.array_places: dict[str, int] = {}
        self.servers: list[Server] = []
        self.defects: list[Defect] = []
        self.early: list[Defect] = []
        self.heredocs = MAX_SERVERS
        self.manifests = MAX_MANIFESTS
        self.exports: dict[str, Value] = {}
        self.pieces: set[int] = set()
        self.added: dict[str, int] = {}
        self.limit = 0

    def scan(self) -> Scan:
        """All servers, in the order of the text."""
        done = 0
        for match in _EVENT.finditer(self.text):
            start = match.start()
            if start < done:
                continue
            if len(self.servers) >= MAX_SERVERS:
                break
            line = self.text.rfind("\n", 0, start) + 1
            if _COMMENT.match(self.text, line, start + 4):
                continue
            if match["heredoc"] is not None:
                done = self._heredoc(match, line)
            elif (match["run"] or match["launch"]) is not None and self._printed(line, start):
                continue
            elif match["gcloud"] is not None:
                done = self._gcloud(match, line)
            elif match["singularity"] is not None:
                done = self._singularity(match, line)
            elif match["run"] is not None:
                done = self._run(match, line)
            elif match["launch"] is not None:
                done = self._launcher(match, line)
            elif match["assign"] is not None:
                done = self._assign(match)
            elif match["perhaps"] is not None:
                done = self._perhaps(match)
            elif match["outside"] is not None:
                self._outside(match)
            elif match["dockerfile"] is not None:
                self._dockerfile(match)
            elif match["block"] is not None:
                self._branch(match["block"].strip().lower(), line)
        self._flush_arrays()
        self.world.exported.update(self.exports)
        return Scan(self.servers, [*self.early, *self.defects] if self.servers else [])

    # -- commands

    def _region(self, line: int, start: int) -> tuple[int | None, str]:
        """Where a command that stands in quotes or backquotes must end, and the quote."""
        before = self.text[max(line, start - 2000) : start]
        for quote in "`\"'":
            if before.replace("\\" + quote, "").count(quote) % 2:
                end = start
                while (end := self.text.find(quote, end)) >= 0 and self.text[end - 1] == "\\":
                    end += 1
                return (end if end >= 0 else None), quote
        return (self.limit if start < self.limit else None), ""

    def _command(self, match: re.Match[str], line: int) -> Command | None:
        """The words behind the beginning of a command; None where it stands in a string that is read elsewhere."""
        end, quote = self._region(line, match.start())
        if self.strict and quote != "`":
            return None
        seen = self._seen(line, match.start())
        command = lex(self.source, match.end(), seen, self.mode, end, mend=True)
        last = command.words[-1].text if command.words and end is not None and command.end >= end else ""
        if quote in "\"'" and re.fullmatch(r"--[a-z][\w-]*", last) and not _is_script(self.source.file.name):
            command.words.append(Word("${_}", end or 0, end or 0, False))  # a program puts its value behind the string
        return self._cut(command, end)

    def _cut(self, command: Command, end: int | None) -> Command:
        """A command, with words to come where the text between two marks ends before it does."""
        if end is not None and end == self.limit and self.text[:end].endswith("\\\n") and command.end >= end:
            command.words.append(Word("${_}", end, end, False))
        return command

    def _run(self, match: re.Match[str], line: int) -> int:
        """A `docker run`."""
        command = self._command(match, line)
        if command is None:
            return match.end()
        words = self._spliced(command.words)
        if _ALIAS.search(self.text, line, match.start()):  # whoever calls it gives the rest
            words = [*words, Word("$@", command.end, command.end, False)]
        server, defects = read_run(self.source, words, self.variables, self.world)
        if server is not None:
            start = match.start() + len(match[0]) - len(match[0].lstrip())
            if self.text[start - 1 : start] in ("/", "\\"):  # the folder the program lies in
                while start > line and re.match(r"[\w.:\\/-]", self.text[start - 1]):
                    start -= 1
            self.servers.append(replace(server, place=self.source.place(start)))
            self.defects += [*self._surely(command.defects), *defects, *self._never_set(words)]
        return max(command.end, match.end())

    def _never_set(self, words: list[Word]) -> Iterator[Defect]:
        """Variables of a script's own, by their small letters, that it uses in a command and sets nowhere."""
        text = self.source.file.text
        used = {name: word for word in words for name in word.missing if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
        others = self.variables.keys() - used.keys()
        if self.mode != SHELL or not self.source.file.name.lower().endswith(_OF_SHELL) or _READS.search(text):
            return
        if not any(re.search(rf"\$\{{?{other}\b", self.source.text) for other in others if other.islower()):
            return
        for name, word in used.items():
            if re.search(
                rf"(?<![\w$-]){name}\+?=|\b(?:for|select|local|declare|export|typeset)\b[^\n]*\b{name}\b", text
            ):
                continue
            written = self.source.text[word.start : word.end]
            if not re.search(rf"\$(?:{name}\b|\{{{name}\}})", written):
                continue
            message = (
                f"${name} is set nowhere in this file, and others are: where the caller does not export it, it is empty"
            )
            yield Defect("shell-never-set", message, self.source.place(word.start), f"set it: {name}=...", len(written))

    def _gcloud(self, match: re.Match[str], line: int) -> int:
        """A container that Google's tool deploys."""
        command = self._command(match, line)
        if command is None:
            return match.end()
        server = read_gcloud(self.source, self._spliced(command.words))
        if server is not None:
            self.servers.append(replace(server, place=self.source.place(match.start())))
            self.defects += self._surely(command.defects)
        return max(command.end, match.end())

    def _singularity(self, match: re.Match[str], line: int) -> int:
        """An image that Singularity or Apptainer runs."""
        command = self._command(match, line)
        if command is None:
            return match.end()
        words = [
            part for word in self._spliced(command.words) for part in singularity.parted(word.as_value(self.source))
        ]
        if match["srun"] is not None:  # the command is in a variable
            begun = next((at for at, word in enumerate(words) if word.text in singularity.ENGINES), len(words))
            run = next((at for at, word in enumerate(words) if at > begun and word.text == "run"), len(words))
            words = words[run + 1 :]
        before = [*self._assigned(match.start(), line), *self._handed_in()]
        caller = self._exported(match.start(), any(word.text.startswith("--model-id") for word in words))
        for name, value in before:
            if name in _read_by_tgi():
                caller.add(name, value)
        server = singularity.read_run(words, caller, match["instance"] is not None, before, self.world)
        if server is None:
            return match.end()
        self.servers.append(replace(server, place=self.source.place(match.start())))
        self.defects += self._surely(command.defects)
        return max(command.end, match.end())

    def _handed_in(self) -> Iterator[tuple[str, Value]]:
        """Variables that are exported, with their values so far."""
        for name, place in self.exports.items():
            if (variable := self.variables.get(name)) is not None and name not in _read_by_tgi():
                yield name, replace(place, text=variable.text, known=variable.known, missing=variable.missing)

    def _assigned(self, first: int, line: int) -> Iterator[tuple[str, Value]]:
        """Variables that are set for the command that begins here, before it."""
        assigned = _ASSIGNED.search(self.text, max(line, first - 1000), first)
        if assigned is None:
            return
        for word in lex(self.source, assigned.start(), self.variables, self.mode, first).words:
            held, (name, equals, _) = word.as_value(self.source, "environment"), word.text.partition("=")
            if equals:  # not `exec`, `env`
                yield name, replace(tail(held.bare, len(name) + 1), key=held.spot)

    def _printed(self, line: int, start: int) -> bool:
        """Whether a command stands in what is only printed, for a person to read: an example, a usage."""
        printing = _PRINTS.search(self.text, line, start)
        if printing is None:
            return False
        command = lex(self.source, printing.end(), {}, self.mode, self._value_end(start, self.text.find("\n", start)))
        rest = self.text[start : command.end + 1]
        return command.end > start and command.stop != "|" and not _INTO_FILE.search(rest)

    def _heredoc(self, match: re.Match[str], line: int) -> int:
        """A manifest or a Compose file that is written between two marks, in one piece or in several; other texts are
        read as the rest is, but what is only printed.
        """
        start = self.text.find("\n", match.end()) + 1
        if not self.heredocs:
            return match.end()
        close = self._closed(match, start)
        self.heredocs -= 1
        stop = self.text.find("\n", line)
        if close is not None and _PRINTED.fullmatch(self.text, line, stop) is not None:
            return close.end()
        if close is not None and self._env_written(match, start, close.start()):
            return close.end()
        if close is not None and start in self.pieces:
            return close.end()  # read with the first of them
        if close is None or not MANIFEST.search(self.text, start, close.start()):
            if close is not None:
                self.limit = close.start()
                self._unescape(start, self.limit, raw=bool(match["raw"]))
            return match.end()
        self.manifests -= close.start() - start
        if self.manifests < 0:
            return match.end()
        from tgi_advisor.validate.read.documents import read_documents

        named = _YAML_WRITTEN.search(self.text[line:stop]) if stop >= 0 else None
        pieces, more = [(start, close.start(), bool(match["raw"]))], _LAID_OVER.search(self.text[line:stop]) is not None
        if named is not None:
            pieces, more = self._with_pieces(named["name"], pieces[0], line)
        body = self._put_together(pieces)
        _, servers, defects = read_documents(body, self.world)
        if any(one.kind == "yaml-syntax" for one in defects):
            return match.end()
        self.pieces.update(start for start, _, _ in pieces)
        what = f"what else is written to {named['name']}" if named is not None else "what its command adds"
        more = more or any(_ALONE.search(self.text, start, end) is not None for start, end, _ in pieces)
        self.servers += (with_more(one, what) for one in servers) if more else servers
        self.defects += defects
        return close.end()

    def _unescape(self, start: int, end: int, *, raw: bool) -> None:
        """Reads two backslashes at the end of a line, between marks without quotes, as the one that is written."""
        body = self.text[start:end]
        if not raw and "\\\\\n" in body:
            self.text = f"{self.text[:start]}{body.replace(_TWO, _ONE)}{self.text[end:]}"
            self.source = Source(self.source.file, self.text, self.source.offsets)

    def _closed(self, match: re.Match[str], start: int) -> re.Match[str] | None:
        """The mark that ends a text."""
        if not start:
            return None
        return re.compile(rf"^[ \t]*{match['mark']}[ \t]*$", re.MULTILINE).search(self.text, start)

    def _with_pieces(
        self, name: str, first: tuple[int, int, bool], line: int
    ) -> tuple[list[tuple[int, int, bool]], bool]:
        """The pieces of a file that are surely written one after the other, and whether others may be."""
        pieces, end, depth, seen = [first], first[1], 0, 0
        for match in islice(re.compile(_HEREDOC, re.MULTILINE).finditer(self.text, first[1]), MAX_SERVERS):
            if match.start() < end:
                continue
            here = self.text.rfind("\n", 0, match.start()) + 1
            start = self.text.find("\n", match.end()) + 1
            close = self._closed(match, start)
            if close is None:
                break
            between = self.text[end:here]
            depth += len(_OPENS.findall(between)) - len(_CLOSES.findall(between))
            written = _YAML_WRITTEN.search(self.text[here:start])
            end = close.end()
            if written is None or written["name"] != name:
                continue
            if not _APPENDED.search(self.text[here:start]):
                break  # the next file of this name
            seen += 1
            if depth == 0:
                pieces.append((start, close.start(), bool(match["raw"])))
        others = self._adds(name)
        appended = bool(_APPENDED.search(self.text[line : first[0]]))
        return pieces, appended or others > len(pieces) - 1

    def _adds(self, name: str) -> int:
        """How often the file adds to another of this name, or edits it."""
        if name not in self.added:
            found = re.findall(
                r"(?:>>|\btee[ \t]+-a|\bsed[ \t]+-i[^\n]*|\byq[ \t][^\n]*-i[^\n]*|\bpatch[ \t][^\n]*)[ \t]*[\"']?"
                rf"{re.escape(name)}(?![\w.-])",
                self.source.file.text,
            )
            self.added[name] = len(found)
        return self.added[name]

    def _put_together(self, pieces: list[tuple[int, int, bool]]) -> Source:
        """The text of a file that is written in pieces."""
        parts = [self.source.part(start, end) for start, end, _ in pieces]
        changed = re.findall(
            r"^[ \t]*(?:export[ \t]+)?(\w+)\+?=", self.text[pieces[0][1] : pieces[-1][1]], re.MULTILINE
        )
        held = {name: self.variables.pop(name) for name in dict.fromkeys(changed) if name in self.variables}
        made = [part if raw else self._filled(part) for part, (_, _, raw) in zip(parts, pieces, strict=True)]
        self.variables.update(held)
        if len(made) == 1:
            return made[0]
        return Source(self.source.file, "".join(one.text for one in made), [at for one in made for at in one.offsets])

    def _env_written(self, match: re.Match[str], start: int, end: int) -> bool:
        """Keeps an environment file that is written between two marks, for whatever is given it by its name.

        One that is written in a branch, or twice, may be another.
        """
        line = self.text[self.text.rfind("\n", 0, match.start()) + 1 : start]
        named = _WRITES.search(line)
        body = self.source.part(start, end)
        if named is None or not is_env_text(body.text):
            return False
        name = file_name(named["name"])
        again = re.findall(
            rf"(?:>|\btee\b(?:[ \t]+-a)?|sed[ \t]+-i[^\n]*)[ \t]*[\"']?{re.escape(named['name'])}", self.text
        )
        if not self.blocks and len(again) == 1:
            self.world.written[name] = body if match["raw"] else self._filled(body)
        return True

    def _filled(self, body: Source) -> Source:
        """A text with the shell's variables in it replaced; those without a value as a template's `{{NAME}}`."""
        parts: list[str] = []
        offsets: list[int] = []
        at = 0
        for match in _IN_TEXT.finditer(body.text):
            found = Found()
            text = match[1] or (interpolate(match[0], self.variables, found) if match[0][1:2] != "(" else "")
            if match[1] is None and (not found.known or not text or ("\n" in text and not _is_alone(body.text, match))):
                text = f"{{{{{(found.missing or ['command'])[0]}}}}}"
            parts += [body.text[at : match.start()], text]
            first, last = body.offset(match.start()), body.offset(match.end() - 1)
            offsets += [*body.offsets[at : match.start()], *[first] * (len(text) - 1), last if len(text) > 1 else first]
            at = match.end()
        return Source(body.file, "".join([*parts, body.text[at:]]), [*offsets, *body.offsets[at:]])

    def _launcher(self, match: re.Match[str], line: int) -> int:
        """A bare launcher command."""
        first = match.start()
        while first > line and self.text[first - 1] not in " \t\"'`;|&(=":
            first -= 1
        before = self.text[max(line, first - 300) : first]
        end, quote = self._region(line, first)
        while self.text.endswith("\\\n", 0, line):  # the command began on a line before
            line = self.text.rfind("\n", 0, line - 1) + 1
        around = _IN_CONTAINER.search(self.text, max(line, first - 1000), first)
        if _NAMES_IT.search(before):
            return match.end()
        begins = around or _BEFORE_LAUNCHER.search(before) or not before.strip()
        if (self.strict and quote != "`") or not begins:
            return match.end()
        command = self._cut(lex(self.source, first, self._seen(line, first), self.mode, end, mend=True), end)
        words = self._spliced(command.words)
        done = max(command.end, match.end())
        if (
            not words
            or not is_launcher(words[0].text)
            or (len(words) == 1 and (quote or self.strict or before.endswith("=")))
        ):
            return done  # named, not run
        if len(words) > 1 and not any(word.text.startswith("-") or word.text in _EVERY for word in words[1:]):
            return done
        if len(words) > 1 and re.match(r"[a-z]\w*=", words[1].text):
            return done  # attributes of a file (`filter=lfs`): the launcher takes nothing of the kind
        environment = self._exported(first, any(word.text.partition("=")[0] == "--model-id" for word in words))
        for name, value in self._assigned(first, line):
            environment.add(name, value)
        values = [word.as_value(self.source) for word in words]
        place = values[0].place
        server = Server(
            "launcher", "", place, entry=values[0], args=tuple(values[1:]), gpus=UNSAID, **environment.fields()
        )
        image = self._image_of(around) if around else None
        self.servers.append(replace(server, image=image))
        self.defects += [*self._surely(command.defects), *self._never_set(words)]
        return done

    def _image_of(self, around: re.Match[str]) -> Value | None:
        """The image that the words before a launcher name (`docker://...`, `--container-image=...`, a file of it)."""
        for word in lex(self.source, around.start(), self.variables, self.mode, around.end()).words:
            option = re.match(r"(?:--container-image=)?(?:docker://)?", word.text)
            text = word.text[option.end() if option else 0 :].replace("#", "/", 1)
            made_of = singularity.of_file(text)
            if made_of is not None:
                text = made_of if ":" in made_of else ""
            if is_image(text):
                return replace(word.as_value(self.source, "command"), text=text, length=0)
        return None

    def _exported(self, end: int, named: bool = False) -> Environment:
        """What the launcher gets of the variables that are exported before it, of those TGI reads.

        `named`: whether its arguments name the model.

        A file that is sourced may hold more, and a script that looks at MODEL_ID is given it from outside.
        """
        environment = Environment()
        for name, place in self.world.exported.items():
            if name in _read_by_tgi() and not (named and name == "MODEL_ID"):
                environment.refer(name, replace(place, known=False))
        for name, place in self.exports.items():
            variable = self.variables.get(name)
            if variable is None or name not in _read_by_tgi():
                continue
            held = replace(place, text=variable.text, known=variable.known, missing=variable.missing)
            if variable.known:
                environment.add(name, held)
            else:
                environment.refer(name, held)
        for sourced in islice(_SOURCED.finditer(self.text, 0, end), MAX_SOURCED):
            environment.sources.append(replace(self.source.value(*sourced.span(), "environment"), known=False))
        if not named and "MODEL_ID" in self.source.file.text and "MODEL_ID" not in environment.set:
            environment.refer("MODEL_ID", replace(self.source.value(end, end, "environment"), known=False))
        return environment

    def _surely(self, defects: list[Defect]) -> Iterator[Defect]:
        """Defects that hold wherever the command stands: quotes are only judged in whole scripts."""
        for defect in defects:
            if defect.kind == "shell-syntax" and (self.strict or not _is_script(self.source.file.name)):
                continue
            yield defect

    def _spliced(self, words: list[Word]) -> list[Word]:
        """The words with arrays (`"${options[@]}"`) put in their place."""
        ends = next((at for at, word in enumerate(words) if word.text in (":::", "::::")), None)
        if ends is not None:  # what GNU parallel fills in
            words = words[:ends]
        if not self.arrays:
            return words
        made: list[Word] = []
        for word in words:
            array = re.fullmatch(r"\$\{(\w+)\[[@*]\]\}", word.text)
            made += self.arrays.get(array[1], [word]) if array else [word]
        return made

    # -- variables

    def _assign(self, match: re.Match[str]) -> int:
        """`NAME=value`, also several on a line, arrays, and the ways of other shells."""
        how, name, operator = (match["how"] or "").strip(), match["name"], match["op"].strip()
        if match["op"] != operator and operator == "=" and not how.startswith("$"):
            return match.end()  # `name = value` is no assignment of a shell
        if re.match(r"[\"']?\$\([ \t]*cat[ \t]*<<", self.text[match.end() :][:40]):  # a text between two marks
            self._set(name, Variable(f"${name}", False, (name,)))
            return match.end()
        if self.text.startswith("(", match.end()):
            return self._array(name, match.end() + 1, operator == "+=")
        if how.lower().startswith(("set", "@set")):
            stop = self.text.find("\n", match.end())
            value = self.text[match.end() : stop if stop >= 0 else None].strip()
            value = value.rstrip('"') if how.endswith('"') else value
            known = not re.search(r"%[^%\s]+%|![^!\s]+!|^[\"']?$", value)
            self._set(name, Variable(value, known))
            self.exports[name] = self.source.value(match.end(), match.end() + len(value), "environment")
            return match.end()
        if re.match(
            r"[\"']?(?:[\w./-]*/)?(?:docker|podman|nerdctl|text-generation-launcher)\b", self.text[match.end() :][:80]
        ):
            return match.end()  # a command kept in a variable: found as a command
        start = match.end() if operator in ("?=", ":=") or how.startswith("$") else match.start("name")
        line_end = self.text.find("\n", start)
        command = lex(self.source, start, self.variables, SHELL, end=self._value_end(start, line_end))
        self.early += [defect for defect in command.defects if defect.kind == "shell-placeholder"]
        if start == match.end():
            if command.words:
                first = command.words[0]
                self._set(name, Variable(first.text, first.known, first.missing, first.defaulted))
                if how.startswith("$env"):
                    self.exports[name] = first.as_value(self.source, "environment")
            return match.end()
        end = match.end()
        for word in command.words:
            left, equals, right = word.text.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\+?", left):
                break
            before = self.variables.get(left.rstrip("+")) if left.endswith("+") else None
            text = (before.text if before else "") + right
            known = word.known and (before is None or before.known) and (right.isdigit() or not _SUMS.match(how))
            self._set(left.rstrip("+"), Variable(text, known, word.missing, word.defaulted))
            if left in self.exports or re.match(r"export\b|(?:declare|typeset)[ \t]+-\w*x", how):
                held = word.as_value(self.source, "environment")
                self.exports[left] = replace(tail(held.bare, len(left) + 1), key=held.spot)
            end = word.end
        else:
            if not command.words:
                return match.end()
        return max(end, match.end())

    def _perhaps(self, match: re.Match[str]) -> int:
        """An assignment that may not be reached: the variable is unknown after it, unless it held that before."""
        name = match["other"]
        start = match.start("other")
        if self.text.startswith("(", match.end()):
            word = Word(f"${{{name}[@]}}", start, start, False, (name,))
            self.arrays[name] = [*self.arrays.get(name, []), word._replace(value=word.as_value(self.source))]
            return match.end()
        command = lex(self.source, match.end(), self.variables, SHELL, end=self._value_end(match.end(), match.end()))
        before = self.variables.get(name)
        same = before is not None and command.words and command.words[0].text == before.text and before.known
        if before is not None and not same:
            self._set(name, Variable(f"${name}", False, (name,)))
        return match.end()

    def _outside(self, match: re.Match[str]) -> None:
        """What a line that is read, or a file that is sourced, sets is unknown; of a file all that it may set."""
        if match["into"]:
            names = [name for name in re.findall(r"[A-Za-z_]\w*", match["outside"]) if name in self.variables]
        elif re.search(r"activate$|bashrc$|profile$|conda\.sh$|nvm\.sh$", match["sourced"].strip("\"'")):
            names = []
        else:
            names = [name for name in self.variables if name not in self.world.env]
        for name in names:
            self._set(name, Variable(f"${name}", False, (name,)))

    def _value_end(self, start: int, line_end: int) -> int:
        """How far a value may go: the line, or over lines its quotes span."""
        if line_end < 0:
            return len(self.text)
        line = self.text[start:line_end]
        if line.count('"') % 2 or line.count("'") % 2 or line.endswith("\\"):
            return min(len(self.text), start + 4000)
        return line_end

    def _array(self, name: str, start: int, more: bool) -> int:
        """`NAME=( ... )`, on as many lines as it takes."""
        words: list[Word] = []
        at = start
        while len(words) < 1000:
            command = lex(self.source, at, self.variables)
            words += [word._replace(value=self._of_branch(word.as_value(self.source), more)) for word in command.words]
            at = command.end + 1
            if command.stop != "\n" or at >= len(self.text):
                break
        self.arrays[name] = [*self.arrays.get(name, []), *words] if more else words
        self.array_places.setdefault(name, start)
        return at

    def _of_branch(self, value: Value, more: bool) -> Value:
        """A word that is added to an array, unknown where only a branch adds it."""
        return replace(value, known=False) if more and self.blocks else value

    def _flush_arrays(self) -> None:
        """A launcher or `docker run` kept in an array is a server."""
        for name, words in self.arrays.items():
            texts = [word.text for word in words[:6]]
            if texts and is_launcher(texts[0]):
                values = [word.as_value(self.source) for word in words]
                self.servers.append(
                    Server("launcher", "", values[0].place, entry=values[0], args=tuple(values[1:]), gpus=UNSAID)
                )
            elif "run" in texts and texts[0].rpartition("/")[2] in ("docker", "podman", "nerdctl", "sudo"):
                at = texts.index("run")
                server, defects = read_run(self.source, words[at + 1 :], self.variables, self.world)
                if server is not None:
                    place = self.source.place(self.array_places[name])
                    self.servers.append(replace(server, place=place))
                    self.defects += defects

    def _set(self, name: str, variable: Variable) -> None:
        """Gives a variable a value."""
        if len(variable.text) > MAX_VALUE or (self.page and variable.known and not variable.text):
            variable = Variable(f"${name}", False, (name,))
        self.variables[name] = variable
        for block in self.blocks:
            if name not in block.changed:
                block.changed[name] = {block.before.get(name)} if block.complete else set()

    def _branch(self, word: str, line: int) -> None:
        """Opens or closes a branch; a variable it may have changed is unknown after it."""
        stop = self.text.find("\n", line)
        rest = self.text[line : stop if stop >= 0 else None]
        if word in ("if", "for", "while", "until", "case"):
            if len(self.blocks) < MAX_BLOCKS and not re.search(r"\b(?:fi|done|esac)\b", rest):
                self.blocks.append(_Block(dict(self.variables), {}, [], [], {}, line))
                self._rule_out(word, self._condition(line))
            return
        if not self.blocks:
            return
        block = self.blocks[-1]
        for name, held in block.ruled_out.items():
            if name not in block.changed:
                self._put_back(name, held)
        block.ruled_out.clear()
        for name, values in block.changed.items():
            values.add(self.variables.get(name))
            if word in ("else", "elif"):
                self._put_back(name, block.before.get(name))
            elif len(values if "else" in block.complete else values | {block.before.get(name)}) > 1:
                self.variables[name] = Variable(f"${name}", False, (name,))
        if word in ("else", "elif"):
            block.complete.append(word)
            self._rule_out(word, self._condition(line) if word == "elif" else "")
        else:
            self.blocks.pop()
            if not block.complete and _ENDS.search(self.text, block.start, line):
                for name in self._excluded(block.conditions, wanted=False):
                    self._set(name, Variable(f"${name}", False, (name,)))

    def _put_back(self, name: str, held: Variable | None) -> None:
        """Gives a variable the value it had."""
        if held is None:
            self.variables.pop(name, None)
        else:
            self.variables[name] = held

    def _condition(self, line: int) -> str:
        """The condition that begins on a line, as far as `then`, `do` or the end of what continues it."""
        found = _CONDITION.match(self.text, line)
        return found[0][:MAX_VALUE] if found else ""

    def _excluded(self, conditions: list[str], *, wanted: bool) -> set[str]:
        """The variables whose values these conditions rule out."""
        return {name for one in conditions for name in guards.behind(one, self.variables, wanted)}

    def _rule_out(self, word: str, condition: str) -> None:
        """Makes the variables unknown whose values the branch that begins is not run with."""
        block = self.blocks[-1]
        names = self._excluded(block.conditions, wanted=False) if word in ("else", "elif") else set()
        if word == "case":
            names = set(re.findall(r"\$\{?([A-Za-z_]\w*)", condition))
        elif word in ("if", "elif", "while", "until"):
            names |= self._excluded([condition], wanted=word != "until")
            block.conditions.append(condition)
        for name in names:
            block.ruled_out[name] = self.variables.get(name)
            self.variables[name] = Variable(f"${name}", False, (name,))

    def _seen(self, line: int, start: int) -> dict[str, Variable]:
        """The variables as a command sees them that begins here, behind conditions on its line."""
        while self.text.endswith("\\\n", 0, line):
            line = self.text.rfind("\n", 0, line - 1) + 1
        names = guards.before(self.text[max(line, start - MAX_VALUE) : start], self.variables)
        unknown = {name: Variable(f"${name}", False, (name,)) for name in names}
        return {**self.variables, **unknown} if unknown else self.variables

    def _dockerfile(self, match: re.Match[str]) -> None:
        """`ARG NAME=value` in a shell script sets nothing."""
        word = match["dockerfile"].split()[0]
        message = f"`{word}` is a Dockerfile's word: a shell runs it as a command, and the variable is not set"
        place = self.source.place(match.start())
        self.early.append(
            Defect("dockerfile-syntax-in-shell", message, place, f"remove `{word}`", len(match["dockerfile"]))
        )


def _is_alone(text: str, match: re.Match[str]) -> bool:
    """Whether a reference has a line of its own."""
    line = text.rfind("\n", 0, match.start()) + 1
    return not text[line : match.start()].strip() and text[match.end() : match.end() + 1] in ("", "\n")


def with_more(server: Server, what: str) -> Server:
    """A server whose file may say more."""
    nowhere = Value("/", server.place, "file", known=False)
    return replace(
        server,
        gpus=UNSAID if server.gpus == NO_GPUS else server.gpus,
        env_sources=(*server.env_sources, replace(nowhere, text=what)),
        mounts=(*server.mounts, Mount("unknown", nowhere)),
    )


def _is_script(name: str) -> bool:
    return name.lower().endswith((".sh", ".bash", ".zsh"))


def with_variables(entries: Mapping[str, Value]) -> dict[str, Variable]:
    """Environment entries as shell variables."""
    return {name: Variable(v.text, v.known, v.missing, v.defaulted) for name, v in entries.items()}


@cache
def _read_by_tgi() -> frozenset[str]:
    """Every variable a release has read."""
    flags = {row["env"] for row in tables.load("flags").values() if row["env"]}
    return frozenset(flags | tables.load("env").keys())
