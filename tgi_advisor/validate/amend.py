"""Writes an image, flags and variables into a deployment file, in the style it already has, byte for byte elsewhere.

Every change is tried on a copy that is read again: it stays only where the server then has exactly what was meant, and
everything else of the file is as it was. What cannot be written so is told, and left to the person.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tgi_advisor.facts.flags import Flag, Value, render
from tgi_advisor.reading import ends_with_crlf
from tgi_advisor.validate.effective import Effective, Given
from tgi_advisor.validate.found import Document, Server
from tgi_advisor.validate.found import Value as Word
from tgi_advisor.validate.read.source import File

YAML = ("compose", "kubernetes", "helm", "sky", "dstack", "platform")
"""Forms whose files are YAML."""


class Wish(NamedTuple):
    """One thing a server is to be told."""

    kind: str
    """`image`, `flag`, `variable`, or `rename` (of a variable)."""
    name: str
    """The flag, or the variable."""
    value: Value | None
    """What it is set to; None: it goes. Of an image or a renamed variable the new name."""

    def __str__(self) -> str:
        shown = ",".join(map(str, self.value)) if isinstance(self.value, tuple) else self.value
        match self.kind:
            case "image":
                return f"the image {shown}"
            case "rename":
                return f"{shown} instead of {self.name}"
            case "flag":
                text = str(shown).lower() if isinstance(shown, bool) else shown
                return (
                    f"no --{self.name}" if shown is None else f"--{self.name}" + (f" {text}" if text != "true" else "")
                )
            case _:
                return f"no {self.name}" if shown is None else f"{self.name}={shown}"


class Amended(NamedTuple):
    """A file after what could be written was written."""

    text: str
    """The whole file."""
    done: tuple[str, ...]
    """What was written."""
    undone: tuple[str, ...]
    """What could not be, in words that say what to write by hand."""


Read = Callable[[str], "tuple[Document, Sequence[Effective]]"]
"""Reads a text anew: the file, and its servers as their launchers see them."""


class _Edit(NamedTuple):
    """One replacement in the text."""

    start: int
    end: int
    new: str


def amend(text: str, number: int, wishes: Sequence[Wish], known: Mapping[str, Flag], read: Read) -> Amended:
    """The text with these wishes for its server of this number; `known` are the flags of its new release.

    A text whose lines all end with CRLF keeps them, those that are added included; lines that end with CR alone are
    not told apart by everything that reads the file, and nothing is written there.
    """
    if ends_with_crlf(text):
        made = amend(text.replace("\r\n", "\n"), number, wishes, known, read)
        return made._replace(text=made.text.replace("\n", "\r\n"))
    if "\r" in text.replace("\r\n", ""):
        return Amended(text, (), tuple(map(str, wishes)))
    done: list[str] = []
    undone: list[str] = []
    document, views = read(text)
    for wish in wishes:
        if _holds(views[number], wish):
            continue
        for edits in _ways(document, views[number], wish, known):
            tried = text
            for edit in sorted(edits, reverse=True):
                tried = tried[: edit.start] + edit.new + tried[edit.end :]
            there, after = read(tried)
            if _only(document, views, there, after, number, wish):
                text, document, views = tried, there, after
                done.append(str(wish))
                break
        else:
            undone.append(str(wish))
    return Amended(text, tuple(done), tuple(undone))


def by_template(text: str) -> bool:
    """Whether a template engine fills a word in (`{{ .Values.x }}`, `{% if %}`, `<%= x %>`)."""
    return re.search(r"\{\{|\{%|<%", text) is not None


def noted_image(server: Server) -> str:
    """The image that an environment file of ours names in a comment; empty where it names none."""
    said = (note.partition(" ")[2] for note in server.notes if note.startswith("image "))
    return next(said, "")


# ---- whether it worked


def _holds(view: Effective, wish: Wish) -> bool:
    """Whether a server has what is wished."""
    match wish.kind:
        case "image":
            image = view.server.image
            return wish.value == (image.text if image is not None else noted_image(view.server))
        case "rename":
            names = {**view.server.env, **view.server.secret_env}
            return wish.name not in names and wish.value in names
        case "flag":
            given = view.get(wish.name)
            slips = [slip.kind for slip in view.slips if slip.flag == wish.name]
            if wish.value is None:
                return given is None and not slips
            return given is not None and given.typed == wish.value and "twice" not in slips
        case _:
            value = view.server.env.get(wish.name)
            return value is None if wish.value is None else value is not None and value.text == wish.value


def _only(
    document: Document, views: Sequence[Effective], there: Document, after: Sequence[Effective], number: int,
    wish: Wish,
) -> bool:  # fmt: skip
    """Whether the file after an edit has what is wished, and is otherwise as it was."""
    same = [(one.form, one.name) for one in document.servers] == [(one.form, one.name) for one in there.servers]
    if not same or len(views) != len(after) or not _holds(after[number], wish):
        return False
    if Counter(one.kind for one in there.defects) - Counter(one.kind for one in document.defects):
        return False
    for at, (old, new) in enumerate(zip(views, after, strict=True)):
        left = wish if at == number else None
        if _shape(old, left) != _shape(new, left):
            return False
        of_new_release = left is not None and left.kind == "image"  # which may refuse what the wishes after it take out
        if len(new.open_words) > len(old.open_words) or (len(new.slips) > len(old.slips) and not of_new_release):
            return False
    return True


def _shape(view: Effective, wish: Wish | None) -> tuple[object, ...]:
    """What a server is told, apart from what is wished."""
    server, renamed = view.server, wish is not None and wish.kind == "image"
    names = {wish.name, wish.value} if wish is not None else set()
    told: object = {
        name: one.typed
        for name, one in view.flags.items()
        if one.by != "image" and name not in names and one.flag.env not in names
    }
    if renamed:  # another release may know other flags, or read them otherwise
        told = [word.text for word in server.args]
    of_flag = {one.flag.env for name, one in view.flags.items() if name in names}
    env = {name: one.text for name, one in server.env.items() if name not in names and name not in of_flag}
    image = server.image.text if server.image is not None and not renamed else ""
    secret = sorted(name for name in server.secret_env if name not in names and name not in of_flag)
    return image, told, env, secret, len(server.ports), len(server.mounts), server.gpus.asked, len(server.probes)


# ---- how to write it


def _ways(document: Document, view: Effective, wish: Wish, known: Mapping[str, Flag]) -> Iterator[list[_Edit]]:
    """The edits that may do, the plainest first."""
    file, text, server = File(document.file, document.text), document.text, view.server
    match wish.kind:
        case "image":
            if server.image is not None and (at := _span(file, server.image)) is not None:
                yield [_Edit(*at, str(wish.value))]
            if server.image is None and (noted := noted_image(server)) and (start := text.find(noted)) >= 0:
                yield [_Edit(start, start + len(noted), str(wish.value))]
        case "rename":
            value = server.env.get(wish.name) or server.secret_env.get(wish.name)
            if value is not None and value.key is not None and value.key.file == document.file:
                start = file.offset_of(value.key)
                for skip in (0, 1):
                    if text[start + skip : start + skip + len(wish.name)] == wish.name:
                        yield [_Edit(start + skip, start + skip + len(wish.name), str(wish.value))]
            everywhere = re.finditer(rf"(?<![\w$]){re.escape(wish.name)}(?!\w)", text)
            yield [_Edit(*one.span(), str(wish.value)) for one in everywhere]
        case "flag" if wish.value is None:
            yield from _without(file, view, wish.name)
        case "flag" if wish.value is not None:
            flag, given = known[wish.name], view.get(wish.name)
            if given is not None:
                changed = list(_changed(file, given, flag, wish.value))
                yield from ([*edits, *_earlier(file, server, wish.name)] for edits in changed)
            if given is not None or server.args or not server.env:
                yield from _argument(file, server, flag, wish.value)
            elsewhere = given is not None and given.value.place.file != document.file  # and weaker there
            if flag.env is not None and (given is None or elsewhere):
                yield from _variable(file, server, flag.env, _word_of(flag, wish.value))
        case _ if wish.value is None:
            yield from _without_variable(file, server, wish.name)
        case _:
            value = server.env.get(wish.name)
            if value is not None and (at := _span(file, value)) is not None:
                yield [_Edit(*at, str(wish.value))]
            if value is None:
                yield from _variable(file, server, wish.name, str(wish.value))


def _span(file: File, word: Word) -> tuple[int, int] | None:
    """Where the text of a word stands, without its quotes; None where the file says something else there."""
    if word.place.file != file.name or not word.place.line:
        return None
    start = file.offset_of(word.spot)
    end = start + len(word.text)
    return (start, end) if file.text[start:end] == word.text and word.text else None


def _word_of(flag: Flag, value: Value) -> str:
    """A flag's value as its variable takes it."""
    values = value if isinstance(value, tuple) else (value,)
    return (flag.delimiter or ",").join(str(one).lower() if isinstance(one, bool) else str(one) for one in values)


def _changed(file: File, given: Given, flag: Flag, value: Value) -> Iterator[list[_Edit]]:
    """The value where it stands already."""
    at = _span(file, given.value)
    if by_template(given.value.text):  # what fills it in says what it is
        return
    if at is not None and flag.type != "switch":
        yield [_Edit(*at, _word_of(flag, value))]
        head = f"--{flag.name}="
        if file.text[at[0] : at[1]].startswith(head):
            yield [_Edit(at[0] + len(head), at[1], _word_of(flag, value))]
    at_name = _span(file, given.name)
    if at is None and at_name is not None and file.text[at_name[0] : at_name[1]].startswith(f"--{flag.name}="):
        yield [_Edit(at_name[0], at_name[1], f"--{flag.name}={_word_of(flag, value)}")]
    if at is not None and given.by == "environment" and given.value.text == flag.env:  # a variable that is passed on
        yield [_Edit(at[1], at[1], f"={_word_of(flag, value)}")]
    if at is None and flag.type != "switch":
        yield from _referred(file, given.value, _word_of(flag, value))


def _earlier(file: File, server: Server, name: str) -> list[_Edit]:
    """Taken out wherever the flag is given but the last time, which the launcher refuses."""
    words = server.args
    found = [at for at, word in enumerate(words) if word.text.partition("=")[0] == f"--{name}"]
    spans = [
        _span(file, word)
        for at in found[:-1]
        for word in (words[at : at + 1] if "=" in words[at].text else words[at : at + 2])
    ]
    return [_Edit(*_item(file.text, *span), "") for span in spans if span is not None]


def _referred(file: File, word: Word, new: str) -> Iterator[list[_Edit]]:
    """The value that a reference stands for: its default, or where its name is set, or else the reference itself."""
    if word.place.file != file.name or not word.length:
        return
    start = file.offset_of(word.place)
    raw = file.text[start : start + word.length]
    old = re.escape(word.text.rpartition("=")[2])
    for default in re.finditer(rf"(?<=[-=])(?<!\w){old}(?=\}})", raw):
        yield [_Edit(start + default.start(), start + default.end(), new)]
    for name in dict.fromkeys(re.findall(r"[A-Za-z_]\w*", raw)):
        set_there = rf"(?<![\w$.-]){name}[ \t]*(?:[:?]?=|:(?=[ \t]))[ \t]*(?P<quote>[\"']?)(?P<old>{old})(?P=quote)"
        for found in re.finditer(rf"{set_there}(?![\w.])", file.text):
            yield [_Edit(*found.span("old"), new)]
    if reference := re.search(r"\$\{?\w+(?::?[-=?][^}]*)?\}?|%\w+%", raw):
        yield [_Edit(start + reference.start(), start + reference.end(), new)]


def _without(file: File, view: Effective, name: str) -> Iterator[list[_Edit]]:
    """The words of a flag taken out, with its value or without one."""
    words = view.server.args
    for at, word in enumerate(words):
        if word.text.partition("=")[0] != f"--{name}" or (span := _span(file, word)) is None:
            continue
        spans = [_item(file.text, *span)]
        if at + 1 < len(words) and "=" not in word.text and (value := _span(file, words[at + 1])) is not None:
            if re.fullmatch(r"[ \t]+", file.text[span[1] : value[0]]):
                yield [_Edit(*_item(file.text, span[0], value[1]), "")]
            yield [_Edit(*one, "") for one in (*spans, _item(file.text, *value))]
        yield [_Edit(*spans[0], "")]
    given = view.flags.get(name)
    if given is not None and given.by == "environment" and given.value.key is not None:
        start = file.offset_of(given.value.key)
        line = file.text.rfind("\n", 0, start) + 1
        end = file.text.find("\n", start) + 1 or len(file.text)
        yield [_Edit(line, end, "")]
    for slip in view.slips:
        if slip.flag == name and (span := _span(file, slip.word)) is not None:
            yield [_Edit(*_item(file.text, *span), "")]


def _without_variable(file: File, server: Server, name: str) -> Iterator[list[_Edit]]:
    """A variable taken out: the option before it, its line, or its two lines of a list of names and values."""
    value = server.env.get(name)
    if value is None or value.key is None or value.key.file != file.name:
        return
    text, start = file.text, file.offset_of(value.key)
    line = text.rfind("\n", 0, start) + 1
    end = text.find("\n", start) + 1 or len(text)
    if option := re.search(r"(-e|--env)[ =](?P<quote>[\"']?)$", text[line:start]):
        word = re.match(rf"{re.escape(name)}=[^\s\"']*{option['quote']}[ \t]*", text[start:end])
        alone = re.fullmatch(r"[ \t]*", text[line : line + option.start()])
        if word is not None:
            if alone and text[start + word.end() : end].strip() == "\\":
                yield [_Edit(line, end, "")]
            yield [_Edit(line + option.start(), start + word.end(), "")]
        return
    yield [_Edit(line, end, "")]
    if below := text.find("\n", end) + 1:
        yield [_Edit(line, below, "")]


def _item(text: str, start: int, end: int) -> tuple[int, int]:
    """A word with what belongs to it: its quotes, its comma or the blank before it, or its whole line of a list."""
    if text[start - 1 : start] in ("'", '"') and text[end : end + 1] == text[start - 1]:
        start, end = start - 1, end + 1
    line, below = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    below = len(text) if below < 0 else below
    if re.fullmatch(r"[ \t]*-[ \t]+", text[line:start]) and not text[end:below].strip():
        return line, min(below + 1, len(text))
    if comma := re.match(r"\s*,[ \t]*", text[end:]):
        return start, end + comma.end()
    if before := re.search(r",?[ \t]*$", text[line:start]):
        if re.fullmatch(r"[ \t]*", text[line:start]) and (rest := re.match(r"[ \t]*(\\?)\n", text[end:])):
            dangling = re.search(r"[ \t]*\\\n\Z", text[:line])
            if dangling is not None and not rest[1]:  # the last line of a command
                return dangling.start(), end + rest.end() - 1
            return line, end + rest.end()
        start -= len(before[0])
    return start, end


def _argument(file: File, server: Server, flag: Flag, value: Value) -> Iterator[list[_Edit]]:
    """The flag behind the last argument, in its style."""
    text, words = file.text, render(flag, value)
    for last in reversed(server.args[-3:]):
        at = _span(file, last)
        if at is None:
            if last.place.file != file.name or not last.length:
                continue
            start = file.offset_of(last.place)
            at = start, start + last.length
        start, end = at
        if len(words) == 2 and any(re.match(r"--[\w-]+=", one.text) for one in server.args[-3:]):  # as those before it
            words = ["=".join(words)]
        quote = text[start - 1 : start] if text[start - 1 : start] in ("'", '"') else ""
        quoted = bool(quote) and text[end : end + 1] == quote
        begin, close = (start - 1, end + 1) if quoted else (start, end)
        line = text.rfind("\n", 0, begin) + 1
        head, following = text[line:begin], text[close:].lstrip()[:1]
        if server.form in YAML or server.form == "sagemaker" or quoted:
            if following in (",", "]") and re.search(r"[\[,]\s*$", text[:begin]):
                mark = quote or '"'
                yield [_Edit(close, close, "".join(f", {mark}{word}{mark}" for word in words))]
                continue
            if item := re.fullmatch(r"([ \t]*-[ \t]+)", head):
                mark = quote if last.text.startswith("--") else _quote_of_flags(file, server)
                lines = "".join(
                    f"\n{item[1]}{_scalar(word, mark if word.startswith('--') else mark or quote)}" for word in words
                )
                rest = re.match(r"[ \t]*(?:#[^\r\n]*)?(?=\r?\n|\Z)|", text[close:])
                below = close + (rest.end() if rest else 0)  # a comment stays beside what it is of
                yield [_Edit(below, below, lines)]
                continue
        if text[begin - 1 : begin] == ",":  # a list in one word (gcloud --args)
            mark = "=" if "=" in text[start:end] else ","
            yield [_Edit(close, close, f",{mark.join(words)}")]
            return
        said = " ".join(map(shlex.quote, words))
        if (indent := re.match(r"[ \t]+", head)) and text[:line].endswith("\\\n"):  # one option to a line
            yield [_Edit(close, close, f" \\\n{indent[0]}{said}")]
        yield [_Edit(close, close, f" {said}")]


def _quote_of_flags(file: File, server: Server) -> str:
    """The quote that the last flag of a list stands in; empty for none."""
    for word in reversed(server.args):
        if word.text.startswith("--") and (at := _span(file, word)) is not None:
            before = file.text[at[0] - 1 : at[0]]
            return before if before in ("'", '"') else ""
    return ""


def _scalar(word: str, quote: str) -> str:
    """A word as an item of a YAML list: a number stays a text."""
    if quote:
        return f"{quote}{word}{quote}"
    plain = re.fullmatch(r"--[a-z][\w-]*(?:=[\w./-]+)?|[A-Za-z][\w./-]*", word) and word not in (
        "on",
        "off",
        "yes",
        "no",
        "true",
        "false",
    )
    return word if plain else json.dumps(word)


def _variable(file: File, server: Server, name: str, value: str) -> Iterator[list[_Edit]]:
    """The variable before one that stands there, in its style; else where the image is named."""
    text = file.text
    there = [one for one in (*server.env.values(), *server.secret_env.values()) if one.key is not None]
    for one in there:
        assert one.key is not None, "those without were left out"
        if one.key.file != file.name:
            continue
        start = file.offset_of(one.key)
        line = text.rfind("\n", 0, start) + 1
        head = text[line:start]
        plain = json.dumps(value)
        if (made := _object_before(text, start, name, plain)) is not None:
            yield [made]
        elif item := re.fullmatch(r"([ \t]*)- name:[ \t]*[\"']?", head):
            yield [_Edit(line, line, f"{item[1]}- name: {name}\n{item[1]}  value: {plain}\n")]
        elif item := re.fullmatch(r"([ \t]*)-[ \t]+\{[ \t]*name:[ \t]*[\"']?", head):
            yield [_Edit(line, line, f"{item[1]}- {{name: {name}, value: {plain}}}\n")]
        elif re.fullmatch(r"[ \t]*name:[ \t]*[\"']?", head) and (
            item := re.search(r"^([ \t]*)- value:[^\n]*\n\Z", text[:line], re.MULTILINE)
        ):
            yield [_Edit(item.start(), item.start(), f"{item[1]}- value: {plain}\n{item[1]}  name: {name}\n")]
        elif not head.strip() and (item := re.match(r"(\w+[ \t]+)=[ \t]+\"", text[start:])):  # Terraform
            yield [_Edit(line, line, f"{head}{name:<{len(item[1]) - 1}} = {plain}\n")]
        elif item := re.fullmatch(r"([ \t]*)-[ \t]+([\"']?)", head):
            yield [_Edit(line, line, f"{item[1]}- {item[2]}{name}={value}{item[2]}\n")]
        elif re.fullmatch(r"[ \t]*", head) and re.match(r"[\w]+\s*:", text[start:]):
            yield [_Edit(line, line, f"{head}{name}: {plain}\n")]
        elif (item := re.fullmatch(r"([ \t]*)([\"'])", head)) and re.match(rf"\w+{item[2]}\s*:", text[start:]):
            yield [_Edit(line, line, f"{item[1]}{item[2]}{name}{item[2]}: {item[2]}{value}{item[2]},\n")]
        elif re.fullmatch(r"[ \t]*", head) and server.form == "env":
            yield [_Edit(line, line, f"{name}={value}\n")]
        elif option := re.search(r"(-e|--env)([ =])[\"']?$", head):
            at = line + option.start()
            said = f"{option[1]}{option[2]}{shlex.quote(f'{name}={value}')}"
            if not text[line:at].strip() and text[:line].endswith("\\\n"):  # one option to a line
                yield [_Edit(line, line, f"{text[line:at]}{said} \\\n")]
            yield [_Edit(at, at, f"{said} ")]
        elif (brace := re.search(r"[{,]\s*([\"'])$", head)) and re.match(rf"\w+{brace[1]}\s*:", text[start:]):
            yield [_Edit(start - 1, start - 1, f"{brace[1]}{name}{brace[1]}: {brace[1]}{value}{brace[1]}, ")]
        elif re.search(r"\(\s*$", head) and re.match(r"\w+[ \t]*=[ \t]*[\"']", text[start:]):  # dict(NAME="value")
            yield [_Edit(start, start, f"{name}={plain}, ")]
        elif brace := re.search(r"([{,]\s*)$", head):
            yield [_Edit(line + brace.end(), line + brace.end(), f"{name}: {plain}, ")]
        elif brace := re.search(r"([\[,]\s*)([\"']?)$", head):
            at = start - len(brace[2])
            yield [_Edit(at, at, f"{brace[2]}{name}={value}{brace[2]}, ")]
        else:
            yield [_Edit(start, start, f"{name}={shlex.quote(value)} ")]
    here = any(one.key is not None and one.key.file == file.name for one in there)
    if (
        (not here or server.form == "docker-run")
        and server.image is not None
        and (at_image := _span(file, server.image)) is not None
    ):
        yield from _first_variable(text, at_image[0], server.form, name, value)


def _object_before(text: str, start: int, name: str, value: str) -> _Edit | None:
    """Before the object `{name: …, value: …}` whose name begins here one like it, laid out as it is; or None."""
    mark = r"[\"']?"
    head = re.search(rf"(?P<before>\n[ \t]*|[\[,][ \t]*|)\{{\s*{mark}name{mark}\s*:\s*{mark}\Z", text[:start])
    if head is None or re.search(r"-[ \t]+\Z", text[: head.end("before")]):
        return None
    given = rf"(?P<name>\w+){mark}\s*,\s*{mark}value{mark}\s*:\s*(?P<value>[^\s,{{}}]+)\s*,?\s*\}}"
    rest = re.match(given, text[start:])
    if rest is None:
        return None
    at = head.end("before")
    shape = text[at:start], rest[0][len(rest["name"]) : rest.start("value")], rest[0][rest.end("value") :]
    between = head["before"] if head["before"].startswith("\n") else " "
    return _Edit(at, at, f"{shape[0]}{name}{shape[1]}{value}{shape[2]},{between}")


def _first_variable(text: str, image: int, form: str, name: str, value: str) -> Iterator[list[_Edit]]:
    """The first variable of a server: an option before the image, or a block beside it."""
    line = text.rfind("\n", 0, image) + 1
    end = text.find("\n", image)
    end = len(text) if end < 0 else end
    if form == "docker-run":
        start = image - (text[image - 1 : image] in ("'", '"'))
        if not text[line:start].strip() and text[:line].endswith("\\\n"):  # one option to a line
            option = shlex.quote(f"{name}={value}")
            yield [_Edit(line, line, f"{text[line:start]}-e {option} \\\n")]
        yield [_Edit(start, start, f"-e {shlex.quote(f'{name}={value}')} ")]
        return
    if re.search(r"[{,]\s*image:\s*[\"']?\Z", text[line:image]):  # in a flow
        flow = f"env: [{{name: {name}, value: {json.dumps(value)}}}]"
        pair = flow if form == "kubernetes" else f"environment: {{{name}: {json.dumps(value)}}}"
        closed = re.match(r"[^\s,}\"']+[\"']?", text[image:end])
        if closed is not None:
            yield [_Edit(image + closed.end(), image + closed.end(), f", {pair}")]
        return
    item = re.match(r"([ \t]*(?:-[ \t]+)?)image:", text[line:end])
    if item is None:
        return
    pad = " " * len(item[1])
    if form == "kubernetes":
        yield [_Edit(end, end, f"\n{pad}env:\n{pad}  - name: {name}\n{pad}    value: {json.dumps(value)}")]
    else:
        yield [_Edit(end, end, f"\n{pad}environment:\n{pad}  {name}: {json.dumps(value)}")]
