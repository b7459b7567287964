"""Splits command lines into words the way a shell, Compose or a Windows batch file does.

`lex` reads one command from a place in a text on. Variables whose value is known are replaced; a
reference without a value stays in the word as written, and the word says so. A continuation that
does not work (a blank after the backslash, none at all) is reported and read as it was meant, so
that the rest of the command is judged too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from tgi_advisor.marks import parted, templates
from tgi_advisor.validate.found import Defect, Value
from tgi_advisor.validate.read.source import Source


class Word(NamedTuple):
    """A word of a command."""

    text: str
    """What the program gets."""
    start: int
    """Where it begins in the source."""
    end: int
    """Where it ends."""
    known: bool = True
    """Whether all of it is known."""
    missing: tuple[str, ...] = ()
    """References without a value."""
    defaulted: tuple[str, ...] = ()
    """Variables whose default was taken."""
    value: Value | None = None
    """It as a Value, for a word that does not stand in the source at hand."""

    def as_value(self, source: Source, origin: str = "command") -> Value:
        """It as a Value."""
        if self.value is not None:
            return self.value
        place, length = source.place(self.start), source.length(self.start, self.end)
        quote = source.quote(self.start, self.text)
        return Value(self.text, place, origin, self.known, self.missing, length, self.defaulted, None, quote)


class Variable(NamedTuple):
    """What a variable holds."""

    text: str
    """Its value."""
    known: bool = True
    """Whether it is known."""
    missing: tuple[str, ...] = ()
    """References without a value in it."""
    defaulted: tuple[str, ...] = ()
    """Variables whose default it took."""


class Command(NamedTuple):
    """A command that was read."""

    words: list[Word]
    """Its words, without redirections."""
    end: int
    """Where it ended."""
    stop: str
    """The character that ended it: a newline, an operator, or nothing at the end of the text."""
    defects: list[Defect]
    """What is wrong with how it is written."""


MAX_WORDS = 5000
"""Words of one command that are read."""
MAX_REFERENCE = 4096
"""Longest `${...}` or `$(...)`."""
MAX_REFERENCES = 20
"""Defaults within defaults that are followed."""
MAX_VALUE = 2000
"""Longest value a variable is replaced by."""
MAX_EXPANDED = 200_000
"""Characters that variables put into one command."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BAD_CONTINUATION = re.compile(r"\\(?:[ \t]+(?=\r?\n|$)|[ \t]+#[^\n]*(?=\n|$))")
_FOLDED = re.compile(r"\\[ \t]+(?=-|$)")
_LINE_END = re.compile(r"\\[ \t]*\r?\n")
_CONTINUED = re.compile(r"(?:\\|\^|`)\r?\n")
_NEXT_OPTION = re.compile(r"\r?\n(?:[ \t]*(?:#[^\n]*|\\[ \t]*)?\r?\n)*[ \t]*(?=--?[A-Za-z])")
_NEXT_BLANK = re.compile(
    r"\r?\n[ \t]*(?=<[A-Za-z][^<>\n]*(?:arg|param|option|flag)[^<>\n]*>[ \t]*(?:\r?\n|$))", re.IGNORECASE
)
"""A line that only says that arguments go there."""
_PLACEHOLDER = re.compile(r"<[^<>\s|&;'\"=0-9][^<>\s&;'\"=]*(?: [^<>\n|&;'\"=]+)*>(?!=)|<>(?=\s|$)")
_REDIRECTION = re.compile(r"(?:&>>?|\d*>>?&?|\d*<<<?-?|\d*<&?)[ \t]*")
_PERCENT = re.compile(r"%([A-Za-z_][A-Za-z0-9_]*|~?\d)%?|!([A-Za-z_][A-Za-z0-9_]*)!")

_TEMPLATE_BLOCK = re.compile(
    r"\{%[-+]?[ \t]*(?P<word>if|for)\b(?:(?!\{%[-+]?[ \t]*(?:if|for)\b)[\s\S]){0,4000}?"
    r"\{%[-+]?[ \t]*end(?P=word)[ \t]*[-+]?%\}"
)
"""A branch or a loop of Jinja: which of its words are there is not known."""


def templated(text: str) -> bool:
    """Whether a word is nothing but what a template engine fills in."""
    at = 0
    while at < len(text) and (match := _TEMPLATE_BLOCK.match(text, at) or templates().match(text, at)):
        at = match.end()
    return bool(text) and at == len(text)


SHELL, PLAIN, COMPOSE, BATCH, POWERSHELL = "shell", "plain", "compose", "batch", "powershell"
"""How to read: a POSIX shell, quotes alone, quotes and Compose's references, a Windows batch file, PowerShell."""
_WINDOWS = (BATCH, POWERSHELL)
"""Where a backslash is a letter like any other: it parts the folders of a path."""
_DRIVE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]:\\[A-Za-z0-9_. -]")


def mode_of(text: str, language: str = "") -> str:
    """How commands in a text are read, by the language it is said to be in, else by what stands in it."""
    if language in ("bat", "cmd", "batch", "dosbatch", "dos"):
        return BATCH
    if language in ("ps1", "powershell", "pwsh", "posh"):
        return POWERSHELL
    if language not in ("", "console", "text", "plaintext", "terminal") or not _DRIVE.search(text):
        return SHELL
    if re.search(r"\\[ \t]*\r?\n", text):
        return SHELL
    return POWERSHELL if re.search(r"`[ \t]*\r?\n|\$env:|^\s*\$\w+\s*=", text, re.MULTILINE) else BATCH


def lex(
    source: Source,
    start: int = 0,
    variables: Mapping[str, Variable] | None = None,
    mode: str = SHELL,
    end: int | None = None,
    mend: bool = False,
) -> Command:
    """The words of the command that begins at `start`.

    `mend` reads a command over a broken continuation on (for a `docker run` or the launcher, where
    the next line is surely meant to belong to it).
    """
    return _Lexer(source, start, variables or {}, mode, len(source.text) if end is None else end, mend).command()


class _Lexer:
    """The state of reading one command."""

    def __init__(
        self, source: Source, start: int, variables: Mapping[str, Variable], mode: str, end: int, mend: bool
    ) -> None:
        self.source = source
        self.text = source.text
        self.at = start
        self.end = end
        self.variables = variables
        self.mode = mode
        self.mend = mend
        self.words: list[Word] = []
        self.defects: list[Defect] = []
        self.expanded = 0

    def command(self) -> Command:
        """Words up to the end of the command."""
        text = self.text
        shell = self.mode in (SHELL, *_WINDOWS)
        while self.at < self.end and len(self.words) < MAX_WORDS:
            c = text[self.at]
            if c in " \t\r" or (c == "\n" and not shell):
                self.at += 1
            elif shell and c == "\n":
                if not self._mended():
                    return self._done(c)
            elif self._continuation():
                continue
            elif c == "#" and self.mode in (SHELL, POWERSHELL) and not self._templated():
                stop = text.find("\n", self.at, self.end)
                self.at = self.end if stop < 0 else stop
            elif c in "{<%#" and self._templated():
                self.word()
            elif shell and (c in "<>&" or (c.isdigit() and re.match(r"\d+[<>]", text[self.at : self.at + 4]))):
                if not self._redirection():
                    return self._done(c)
            elif shell and c in ";|()":
                return self._done(c)
            else:
                self.word()
        return self._done("")

    def _done(self, stop: str) -> Command:
        return Command(self.words, self.at, stop, self.defects)

    def _defect(self, kind: str, message: str, at: int, hint: str | None = None, length: int = 0) -> None:
        self.defects.append(Defect(kind, message, self.source.place(at), hint, length))

    def _continuation(self) -> bool:
        """Steps over a line continuation, one that does not work too."""
        if self.text[self.at] not in "\\^`":
            return False
        if match := _CONTINUED.match(self.text, self.at, self.end):
            self.at = match.end()
            return True
        if _FOLDED.match(self.text, self.at, self.end):
            raw = self.source.file.text
            if _LINE_END.match(raw, self.source.offset(self.at)):
                self.at += 1  # a folded YAML scalar: reported where the scalar is read
                return True
        if self.text[self.at] == "\\" and (match := _BAD_CONTINUATION.match(self.text, self.at, self.end)):
            folded = "\n" not in self.text[match.end() : match.end() + 2]
            if match.end() < self.end and not folded and self.text[match.end() :].strip():
                what = "a comment" if "#" in match[0] else "a blank"
                self._defect(
                    "trailing-space-after-backslash",
                    f"{what} follows the backslash, so the command ends here", self.at,
                    "the backslash must be the last character of the line", len(match[0]),
                )  # fmt: skip
                self.at = match.end() + (2 if self.text.startswith("\r\n", match.end()) else 1)
            else:
                self.at = match.end()
            return True
        return False

    def _mended(self) -> bool:
        """Steps over the end of a line whose command is meant to go on."""
        if not self.mend or not self.words:
            return False
        if blank := _NEXT_BLANK.match(self.text, self.at, self.end):
            self.at = blank.end()
            return True
        match = _NEXT_OPTION.match(self.text, self.at, self.end)
        if not match:
            return False
        if _TEMPLATE_BLOCK.fullmatch(self.words[-1].text):  # the line of its end is empty in what the engine writes
            self.at = match.end()
            return True
        before = self.text.rfind("\n", 0, self.at) + 1
        line = self.text[before : self.at]
        comment = re.match(r"[ \t]*#", line) or (" #" in line)
        message = "a comment ends the command here" if comment else "no backslash at the end of this line"
        last = self.words[-1]
        self._defect(
            "broken-line-continuation",
            f"{message}: the next line is run as a command of its own",
            before + len(line) - len(line.lstrip()) if comment else last.start,
            "move the comment away" if comment else "end the line with a backslash",
            0 if comment else last.end - last.start,
        )  # fmt: skip
        self.at = match.end()
        return True

    def _redirection(self) -> bool:
        """Steps over a redirection; False for an operator that ends the command."""
        if placeholder := self._placeholder():
            self.word(placeholder)
            return True
        match = _REDIRECTION.match(self.text, self.at, self.end)
        if not match or not match[0].strip() or match[0].strip() == "&":
            return False
        self.at = match.end()
        if self.at < self.end and self.text[self.at] not in "\n;|&":
            count = len(self.words)
            self.word()
            del self.words[count:]
        return True

    def _templated(self) -> re.Match[str] | None:
        """What a template engine fills in here."""
        block = _TEMPLATE_BLOCK.match(self.text, self.at, self.end)
        return block or templates().match(self.text, self.at, self.end)

    def _placeholder(self) -> re.Match[str] | None:
        """`<your-token>`: to a person a placeholder, to a shell two redirections."""
        return _PLACEHOLDER.match(self.text, self.at, self.end) if self.text[self.at] == "<" else None

    def word(self, placeholder: re.Match[str] | None = None) -> None:
        """Reads one word (or what an unquoted variable splits into)."""
        text, start, mode = self.text, self.at, self.mode
        shell, dollars = mode in (SHELL, *_WINDOWS), mode in (SHELL, COMPOSE, POWERSHELL)
        parts: list[str] = []
        found = Found()
        pieces: list[str] = []  # complete words an unquoted expansion was split into
        quoted = False
        while self.at < self.end:
            c = text[self.at]
            if c in " \t\n\r" or (shell and c in ";|&()>"):
                break
            if c in "{<%#" and (template := self._templated()):
                parts.append(template[0])
                self.at = template.end()
            elif c == "<" and shell:
                placeholder = self._placeholder()
                if placeholder is None:
                    break
                message = f"`{placeholder[0]}` is a placeholder; a shell reads `<` and `>` as redirections"
                self._defect("shell-placeholder", message, self.at, "put the real value here", len(placeholder[0]))
                parts.append(placeholder[0])
                found.known = False
                self.at = placeholder.end()
            elif c == "\\" and mode not in _WINDOWS:
                if match := _CONTINUED.match(text, self.at, self.end):
                    self.at = match.end()
                elif _BAD_CONTINUATION.match(text, self.at, self.end) or self.at + 1 >= self.end:
                    break
                elif mode == SHELL and text.startswith("$(", self.at + 1):  # for a shell within this one
                    stop = _closing(text, self.at + 2, self.end, "(", ")")
                    parts.append(text[self.at + 1 : stop + 1])
                    found.known = False
                    self.at = stop + 1
                else:
                    parts.append(text[self.at + 1])
                    self.at += 2
            elif c == "^" and (match := _CONTINUED.match(text, self.at, self.end)):
                break
            elif c == "'" and mode != BATCH:
                quoted = True
                stop = text.find("'", self.at + 1, self.end)
                if stop < 0:
                    stop = self._unclosed()
                inside = text[self.at + 1 : stop]
                parts.append(interpolate(inside, self.variables, found) if mode == COMPOSE else inside)
                self.at = stop + 1
            elif c == '"':
                quoted = True
                parts.append(self._double(found))
            elif c == "$" and dollars:
                written = self.at
                expanded = self._dollar(found)
                self.expanded += len(expanded)
                if self.expanded > MAX_EXPANDED:
                    self.variables = {}
                if expanded == text[written : self.at] or not found.known:  # no value: not split
                    parts.append(expanded)
                    quoted = True
                elif expanded.strip() != expanded or len(expanded.split()) > 1:
                    pieces += "".join([*parts, expanded]).split()
                    parts = [pieces.pop()] if pieces and not expanded[-1:].isspace() else []
                else:
                    parts.append(expanded)
                    quoted = quoted or bool(expanded)
            elif c == "`" and mode == POWERSHELL and not _CONTINUED.match(text, self.at, self.end):
                parts.append(text[self.at + 1 : self.at + 2])
                self.at += 2
            elif c == "`" and mode in (SHELL, POWERSHELL):
                if _CONTINUED.match(text, self.at, self.end):
                    break
                stop = text.find("`", self.at + 1, self.end)
                stop = self.end - 1 if stop < 0 else stop
                if text[self.at + 1 : stop].lstrip().startswith("#"):  # a comment between arguments
                    found.used = True
                else:
                    parts.append(text[self.at : stop + 1])
                    found.known = False
                self.at = stop + 1
            elif c in "%!" and mode == BATCH and (match := _PERCENT.match(text, self.at, self.end)):
                parts.append(_looked_up(match[1] or match[2], match[0], self.variables, found))
                self.at = match.end()
            else:
                stop = self.at + 1
                while stop < self.end and (text[stop].isalnum() or text[stop] in "-_./:,=@+"):
                    stop += 1
                parts.append(text[self.at : stop])
                self.at = stop
        if self.at == start:  # nothing a word can begin with: step over it
            if not self._continuation():
                self.at += 1
            return
        whole = "".join(parts)
        for name in templates().findall(whole):
            if not parted(name, text[start : self.at]):
                found.unknown(name.strip("{}<>%@=- \t"))
        for piece in pieces:
            self.words.append(Word(piece, start, self.at, found.known, tuple(found.missing), tuple(found.defaulted)))
        if whole or quoted or not (found.used or pieces):  # an unquoted variable that is empty makes no word
            self.words.append(Word(whole, start, self.at, found.known, tuple(found.missing), tuple(found.defaulted)))

    def _unclosed(self) -> int:
        """Reports quotes that are not closed; they are read to the end of the line."""
        quote = self.text[self.at]
        stop = self.text.find("\n", self.at, self.end)
        stop = self.end if stop < 0 else stop
        if self.text[self.at + 1 : stop].strip(" \t\r;,)]}"):  # else it closes quotes around the command
            self._defect("shell-syntax", f"this {quote} is not closed", self.at, "close the quotes", 1)
        return stop

    def _double(self, found: Found) -> str:
        """Text in double quotes."""
        text, mode = self.text, self.mode
        opened = self.at
        stop = opened + 1
        while stop < self.end and text[stop] != '"':
            stop += 2 if text[stop] == ("`" if mode == POWERSHELL else "\\") and mode != BATCH else 1
        if stop >= self.end:
            stop = self._unclosed()
        self.at = opened + 1
        parts: list[str] = []
        while self.at < stop:
            c = text[self.at]
            if c == "`" and mode == POWERSHELL and self.at + 1 < stop:
                parts.append(text[self.at + 1])
                self.at += 2
            elif c == "\\" and mode not in _WINDOWS and self.at + 1 < stop:
                following = text[self.at + 1]
                if following == "\n":
                    pass
                elif following in '"\\$`' or mode in (PLAIN, COMPOSE):
                    parts.append(following)
                else:
                    parts.append(c + following)
                self.at += 2
            elif c == "$" and mode in (SHELL, COMPOSE, POWERSHELL):
                parts.append(self._dollar(found))
                self.expanded += len(parts[-1])
                if self.expanded > MAX_EXPANDED:
                    self.variables = {}
            elif c == "`" and mode == SHELL:
                close = text.find("`", self.at + 1, stop)
                close = stop - 1 if close < 0 else close
                parts.append(text[self.at : close + 1])
                found.known = False
                self.at = close + 1
            elif c in "%!" and mode == BATCH and (match := _PERCENT.match(text, self.at, stop)):
                parts.append(_looked_up(match[1] or match[2], match[0], self.variables, found))
                self.at = match.end()
            else:
                parts.append(c)
                self.at += 1
        self.at = max(stop, self.at) + 1
        return "".join(parts)

    def _dollar(self, found: Found) -> str:
        """What a `$` stands for."""
        text, start = self.text, self.at
        if self.mode == SHELL and text.startswith("$$(", start):  # a Makefile's; to a shell it is an error
            start = self.at = start + 1
        if self.mode == COMPOSE and text.startswith("$$", start):
            self.at = start + 2
            return "$"
        if match := _NAME.match(text, start + 1, self.end):
            self.at = match.end()
            if match[0] == "env" and text.startswith(":", self.at):  # PowerShell's $env:NAME
                match = _NAME.match(text, self.at + 1, self.end)
                self.at = match.end() if match else self.at
            written = text[start : self.at]
            return _looked_up(match[0], written, self.variables, found) if match else written
        following = text[start + 1 : start + 2]
        if following == "{":
            stop = _closing(text, start + 1, self.end, "{", "}")
            self.at = stop + 1
            return _braces(text[start + 2 : stop], text[start : stop + 1], self.variables, found)
        if following == "(" and self.mode in (SHELL, POWERSHELL):
            stop = _closing(text, start + 1, self.end, "(", ")")
            self.at = stop + 1
            found.used, found.known = True, False
            return text[start : self.at]
        if following and self.mode == SHELL and (following.isdigit() or following in "@*#?$!-"):
            self.at = start + 2
            found.used = True
            found.unknown(following)
            return text[start : self.at]
        self.at = start + 1
        return "$"


class Found:
    """What the references of a word came to."""

    __slots__ = ("defaulted", "depth", "known", "missing", "used")

    def __init__(self) -> None:
        self.known = True
        self.used = False
        self.depth = 0
        self.missing: list[str] = []
        self.defaulted: list[str] = []

    def unknown(self, name: str) -> None:
        """A reference without a value."""
        self.known = False
        self.missing.append(name)

    def take(self, variable: Variable) -> None:
        """A reference with this value."""
        self.known = self.known and variable.known
        self.missing += variable.missing
        self.defaulted += variable.defaulted


def _looked_up(name: str, written: str, variables: Mapping[str, Variable], found: Found) -> str:
    """The value of a variable, or the reference as written."""
    found.used = True
    variable = variables.get(name)
    if variable is None or len(variable.text) > MAX_VALUE:
        found.unknown(name)
        return written
    found.take(variable)
    return variable.text


def _braces(inside: str, written: str, variables: Mapping[str, Variable], found: Found) -> str:
    """`${...}`: a name, or a name with a default; anything else is unknown."""
    found.used = True
    match = _NAME.match(inside) or re.match(r"\d+", inside, re.ASCII)
    if not match:
        found.known = False
        return written
    name, rest = match[0], inside[match.end() :]
    if name == "env" and rest.startswith(":"):
        name, rest = rest[1:], ""
    variable = variables.get(name)
    operator = rest[:2] if rest[:1] == ":" else rest[:1]
    if operator in (":-", "-", ":=", "="):
        if variable is not None and (variable.text or operator[0] != ":"):
            found.take(variable)
            return variable.text
        found.defaulted.append(name)
        default = rest[len(operator) :]
        if "$" in default:
            found.depth += 1
            if found.depth > MAX_REFERENCES:
                found.known = False
                return written
            return interpolate(default, variables, found)
        return default.strip("\"'") if default[:1] in "\"'" else default
    if operator in (":+", "+"):
        if variable is None or not variable.known or variable.defaulted:
            found.unknown(name)
            return written
        other = rest[len(operator) :] if variable.text or operator == "+" else ""
        return interpolate(other.strip("\"'"), variables, found)
    if rest and operator not in (":?", "?"):
        found.known = False
        return written
    return _looked_up(name, written, variables, found)


def _closing(text: str, opened: int, end: int, left: str, right: str) -> int:
    """Where the bracket at `opened` is closed, or the last character looked at."""
    depth = 0
    end = min(end, opened + MAX_REFERENCE)
    for at in range(opened, end):
        if text[at] == left:
            depth += 1
        elif text[at] == right:
            depth -= 1
            if depth == 0:
                return at
    return max(end - 1, opened)


_REFERENCE = re.compile(r"\$(?:\$|\{|([A-Za-z_][A-Za-z0-9_]*))")


def interpolate(text: str, variables: Mapping[str, Variable], found: Found) -> str:
    """A text with its `$NAME`, `${NAME}` and `${NAME:-default}` replaced, `$$` being a dollar (Compose)."""
    parts: list[str] = []
    at = 0
    while match := _REFERENCE.search(text, at):
        parts.append(text[at : match.start()])
        at = match.end()
        if match[0] == "$$":
            parts.append("$")
        elif match[0] == "${":
            stop = _closing(text, at - 1, len(text), "{", "}")
            parts.append(_braces(text[at:stop], text[match.start() : stop + 1], variables, found))
            at = stop + 1
        else:
            parts.append(_looked_up(match[1], match[0], variables, found))
    parts.append(text[at:])
    return "".join(parts)


_KUBE = re.compile(r"\$(?:\$|\(([A-Za-z_.-][A-Za-z0-9_.-]*)\))")


def interpolate_kubernetes(text: str, variables: Mapping[str, Variable], found: Found) -> str:
    """A text with its `$(NAME)` replaced; a name nobody defines stays as it is, as Kubernetes leaves it."""

    def replaced(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        variable = variables.get(match[1])
        if variable is None:
            return match[0]
        found.take(variable)
        return variable.text if variable.known else match[0]

    return _KUBE.sub(replaced, text) if "$" in text else text
