"""`gcloud run deploy` and `gcloud ai models upload`: a container's image, arguments and environment in options.

Lists are parted by commas, or by what stands between two carets at their start (`gcloud topic escaping`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tgi_advisor.validate.found import UNSAID, Gpus, Hint, Port, Server, Value, Wait
from tgi_advisor.validate.read.environment import Environment
from tgi_advisor.validate.read.launcher import is_launcher, is_ours
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.waits import deployment, probe
from tgi_advisor.validate.read.words import Word

COMMAND = (
    r"(?<![\w.-])gcloud[ \t]+(?:(?:alpha|beta)[ \t]+)?"
    r"(?:run[ \t]+(?:deploy|services[ \t]+update|jobs[ \t]+(?:create|update|deploy))|ai[ \t]+models[ \t]+upload)"
    r"(?=[ \t\\])[ \t]*"
)
"""How such a command begins, as a regular expression."""


def read_gcloud(source: Source, words: Sequence[Word]) -> Server | None:
    """The server such a command deploys, or None when its image is not TGI's; `words` begin behind the command."""
    options = dict(_options(words))
    image = next((_only(source, options[name]) for name in ("image", "container-image-uri") if name in options), None)
    args = [one for name in ("args", "container-args") if name in options for one in _parts(source, options[name])]
    if image is None or not is_ours(image, [one.text for one in args]):
        return None
    by = next((options[name] for name in ("command", "container-command") if name in options), None)
    commands = list(_parts(source, by)) if by else []
    started = next((at for at, one in enumerate(commands) if is_launcher(one.text)), None)
    if commands and started is None:
        return None  # another program, or a shell's
    environment = Environment()
    for name in ("set-env-vars", "update-env-vars", "container-env-vars"):
        for entry in _parts(source, options[name]) if name in options else ():
            key, _, text = entry.text.partition("=")
            place = entry.place._replace(column=entry.place.column + len(key) + 1) if entry.length else entry.place
            length = len(text) if entry.length else 0
            held = replace(entry, text=text, place=place, length=length, origin="environment", key=entry.place)
            environment.add(key, held)
    for name in ("set-secrets", "update-secrets"):
        for entry in _parts(source, options[name]) if name in options else ():
            key = entry.text.partition("=")[0]
            environment.refer(key, replace(entry, known=False, missing=(key,), origin="Secret"))
    for name in ("env-vars-file", "flags-file"):
        if name in options:
            environment.sources.append(replace(_only(source, options[name]), known=False))
    gpu, kind = (_only(source, options[name]) if name in options else None for name in ("gpu", "gpu-type"))
    count = gpu.number if gpu else None
    ports = [_only(source, options[name]) for name in ("port", "container-ports") if name in options]
    return Server(
        "platform", "", image.place, image=image,
        entry=commands[started] if started is not None else None,
        args=(*(commands[started + 1 :] if started is not None else ()), *args),
        **environment.fields(),
        ports=tuple(Port("platform", one) for one in ports),
        gpus=Gpus("count", "platform", gpu, count) if count else UNSAID,
        hints=(Hint("gpu", kind, count),) if kind else (),
        waits=tuple(_waits(source, options)),
    )  # fmt: skip


def _waits(source: Source, options: Mapping[str, tuple[Word, int]]) -> Iterator[Wait]:
    """`--startup-probe=httpGet.path=/health,periodSeconds=10,...` and what Vertex AI is told beside its container."""
    if "startup-probe" in options:
        pieces = [(one, one.text.partition("=")) for one in _parts(source, options["startup-probe"])]
        numbers = {name: replace(piece, text=text) for piece, (name, _, text) in pieces}
        yield from probe("Cloud Run", "--startup-probe", numbers)
    if "container-startup-probe-exec" in options:
        numbers = {
            name: _only(source, options[option])
            for option, name in (("container-startup-probe-period-seconds", "periodSeconds"),
                                 ("container-startup-probe-timeout-seconds", "timeoutSeconds"))
            if option in options
        }  # fmt: skip
        yield from probe("Vertex AI", "the startup probe", numbers)
    if "container-deployment-timeout-seconds" in options:
        name = "container-deployment-timeout-seconds"
        yield from deployment(f"--{name}", _only(source, options[name]))


def _options(words: Sequence[Word]) -> Iterator[tuple[str, tuple[Word, int]]]:
    """Options by name, each with the word that holds its value and where the value begins in it."""
    for at, word in enumerate(words):
        name, equals, _ = word.text.partition("=")
        if not name.startswith("--"):
            continue
        if equals:
            yield name[2:], (word, len(name) + 1)
        elif at + 1 < len(words) and not words[at + 1].text.startswith("--"):
            yield name[2:], (words[at + 1], 0)


def _only(source: Source, option: tuple[Word, int]) -> Value:
    """The value of an option."""
    word, start = option
    return _placed(source, word, word.text[start:], 0)[0]


def _parts(source: Source, option: tuple[Word, int]) -> Iterator[Value]:
    """The members of a list."""
    word, start = option
    text, mark = word.text[start:], ","
    if (escaped := re.match(r"\^([^^]+)\^", text)) is not None:
        text, mark = text[escaped.end() :], escaped[1]
    at = 0
    for part in text.split(mark) if text else ():
        value, at = _placed(source, word, part, at)
        yield value


def _placed(source: Source, word: Word, text: str, since: int) -> tuple[Value, int]:
    """A piece of a word as a Value, where it is written, and where the rest of the word begins."""
    known = word.known or not re.search(r"[$`<{%]", text)
    at = source.text.find(text, word.start + since, word.end) if text else -1
    missing = () if known else word.missing
    if at < 0:
        return Value(text, source.place(word.start), "command", known, missing), since
    end = at + len(text)
    return Value(text, source.place(at), "command", known, missing, source.length(at, end)), end - word.start
