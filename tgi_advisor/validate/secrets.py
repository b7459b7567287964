"""What is a secret, by its name or by its form, and texts without it.

A name need not be spelt well: `--api-kye` and `HF_TOKN` hold what they were meant to hold. Where a name
is not known and sounds like that of a secret, it is taken for one; the launcher's limits, which count
tokens, are not, however they are spelt.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from tgi_advisor.errors import nearest
from tgi_advisor.facts import tables
from tgi_advisor.safe import covered, secret_spans
from tgi_advisor.validate.found import Document, Value
from tgi_advisor.validate.read.launcher import IMAGE_WORDS
from tgi_advisor.validate.rules.rule import Case

LONGEST = 10_000
"""Characters of a line that are kept."""
SHORTEST = 4
"""A secret of fewer characters is no secret, and may be any word."""
WORD = 8
"""One of fewer characters is looked for as a word of its own only."""
CUT = 12
"""Characters by which a secret is recognised that is cut short after them."""
_SHORTEST_NAME = 4
"""Letters a misspelt name has at least: `-p`, `-e` and `-it` are options of Docker, near to everything."""
_LONGEST_NAME = 64
"""Characters of a name that are looked at."""

_WHOLE = frozenset(("AUTH", "AUTHORIZATION", "BEARER", "KEY", "KEYS", "PASS", "PAT", "PWD", "PW"))
"""Words of a name that say it holds a secret, as they stand."""
_SPELT = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "APIKEY", "ACCESSKEY", "AUTHTOKEN")
"""Words that say so with a letter wrong, missing, too many or swapped, and inside a longer word too."""
_NO_SECRET = re.compile(r"TOKENIZ[A-Z]*|KEYBOARD|MONKEY")
"""Words that only sound like one."""
_OF_A_THING = frozenset(("PATH", "FILE", "DIR", "HOME", "FOLDER", "NAME", "REF"))
"""A name that ends so says where something lies, or what it is called."""
_SAID = frozenset(
    ("true", "false", "yes", "no", "on", "off", "none", "null", "auto", "default", "optional", "required")
)
"""Values that are no secret under any name."""


def hides(name: str, value: str) -> bool:
    """Whether what a variable or flag of this name is set to must not be shown."""
    if value.strip().lower() in _SAID or not is_secret(name):
        return False
    return not (
        value.isdigit() and len(value) < 10 and "TOKEN" in _upper(name) and not _known_secrets() & {_upper(name)}
    )


@lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Whether a variable or flag of this name holds a secret, or was meant to."""
    dashed = name.startswith("-")
    if name.endswith(IMAGE_WORDS):  # the name of an image, before its tag
        return False
    name = _upper(name[: 2 * _LONGEST_NAME])[:_LONGEST_NAME]
    words = [word for word in name.split("_") if word]
    if name in _known():
        return name in _known_secrets()
    if not words or words[-1] in _OF_A_THING or (words in (["KEY"], ["KEYS"]) and not dashed):  # YAML's own `key:`
        return False
    near = min(((_distance(name, one, 2), one not in _known_secrets()) for one in _known()), default=(3, True))
    if near[0] <= (2 if len(name) > 6 else 1):
        return not near[1]
    if any(map(_sounds_secret, (*words, "".join(words)))):
        return True
    return len(name) >= _SHORTEST_NAME and any(one in _known_secrets() for one in _meant(name))


def _sounds_secret(word: str) -> bool:
    word = _NO_SECRET.sub("", word)
    if word in _WHOLE or word.endswith(("KEY", "KEYS")) or (len(word) < 5 and _distance(word, "KEY", 1) <= 1):
        return True
    return any(_within(meant, word) for meant in _SPELT)


def _within(meant: str, word: str) -> bool:
    """Whether a word holds another one, perhaps with one edit."""
    if meant in word:
        return True
    sizes = (len(meant) - 1, len(meant), len(meant) + 1)
    parts = {word[at : at + size] for size in sizes for at in range(max(1, len(word) - size + 1))}
    return any(_distance(part, meant, 1) <= 1 for part in parts)


def _upper(name: str) -> str:
    """The name as a variable is written: `--apiKey` -> `API_KEY`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip(" \t\"'`"))
    return re.sub(r"[^A-Za-z0-9]+", "_", parted).strip("_").upper()


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """Every variable and flag TGI has had, and what people write instead, as variables are written."""
    from tgi_advisor.validate.rules.environment import OF_OTHERS

    flags = {row["env"] or _upper(name) for name, row in tables.load("flags").items()}
    return frozenset(flags | tables.load("env").keys() | OF_OTHERS.keys())


@lru_cache(maxsize=1)
def _known_secrets() -> frozenset[str]:
    """Those that hold a secret."""
    from tgi_advisor.validate.rules.environment import OF_OTHERS

    flags = {row["env"] or _upper(name) for name, row in tables.load("flags").items() if row.get("secret")}
    variables = {name for name, row in tables.load("env").items() if row.get("secret")}
    return frozenset(flags | variables | {name for name, meant in OF_OTHERS.items() if meant == "HF_TOKEN"})


@lru_cache(maxsize=4096)
def _meant(name: str) -> Sequence[str]:
    """The correction a rule finds for a name nothing has."""
    return nearest(name, sorted(_known()), 1) if len(name) > 2 else ()


def _distance(one: str, other: str, most: int) -> int:
    """Characters to insert, drop, change or swap to make one word the other; `most + 1` for anything above `most`."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)


# ---- what a file holds ----


_VALUE = r"""(?:"(?P<double>[^"\n]{4,})"|'(?P<single>[^'\n]{4,})'|["'`]?(?P<bare>[^\s"'`$<{\[][^\s"'`]{3,}))"""
_PAIR = re.compile(
    rf"""(?<![\w.-])(?P<name>-{{0,3}}[A-Za-z_][\w.-]{{0,200}})["'`\]]{{0,3}}"""
    rf"""(?:[ \t]{{0,8}}[:=]>?[ \t]{{0,8}}|,[ \t]{{0,8}}(?=["'])|[ \t]{{1,8}})(?:(?i:bearer)[ \t]{{1,8}})?{_VALUE}"""
)
"""A name and its value on one line."""
_STATED = re.compile(
    r"""\bname["']?[ \t]{0,8}[:=][ \t]{0,8}["']?(?P<name>[A-Za-z_][\w.-]{0,200})["']?,?\s{1,80}"""
    rf"""["']?value["']?[ \t]{{0,8}}[:=][ \t]{{0,8}}{_VALUE}"""
)
"""A variable as Kubernetes and others write it: its name, and its value in the next field."""


class Hidden:
    """Secrets of a file, and where they stand in a text, found in one go however many there are."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for one in values for form in (one, repr(one)[1:-1]) if len(one) >= SHORTEST}
        self._heads = {form[:SHORTEST] for form in forms}
        self._whole = {form for form in forms if len(form) < CUT}
        self._sorted = sorted(form for form in forms if len(form) >= CUT)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a secret stands, or the beginning of one that was cut; a short one only as a word of its own."""
        at = 0
        while self._heads and at <= len(text) - SHORTEST:
            length = self._length(text, at) if text[at : at + SHORTEST] in self._heads else 0
            if length:
                yield at, at + length
            at += length or 1

    def _length(self, text: str, at: int) -> int:
        """Characters of a secret that begins here; 0 when none does."""
        rest = text[at : at + LONGEST]
        near = bisect(self._sorted, rest)
        longest = max((_shared(one, rest) for one in self._sorted[max(near - 1, 0) : near + 1]), default=0)
        if longest >= CUT:
            return longest
        for size in range(min(CUT - 1, len(rest)), SHORTEST - 1, -1):
            alone = size >= WORD or not re.search(r"\w", text[max(at - 1, 0) : at] + rest[size : size + 1])
            if rest[:size] in self._whole and alone:
                return size
        return 0


NOTHING = Hidden()
"""No secret is known."""


def _shared(one: str, other: str) -> int:
    """Characters two texts begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def secrets(document: Document, cases: Iterable[Case]) -> Hidden:
    """The values of everything in a file that is a secret by its name, as the server gets them and as they stand."""
    lines = document.text.split("\n")
    found: set[str] = set()
    for value in (value for case in cases for value in _secret_values(case)):
        found |= {value.text, *value.text.splitlines()}
        if value.place.file == document.file and 0 < value.place.line <= len(lines):
            written = lines[value.place.line - 1][value.place.column - 1 :][:LONGEST]
            found.add(written[: value.length] if value.length else written.rstrip())
    found |= {_value(one)[0] for one in _STATED.finditer(document.text) if hides(one["name"], _value(one)[0])}
    found |= {one.strip("\"' \t,") for one in found}
    return Hidden(one for one in found if one.strip().lower() not in _SAID)


def _secret_values(case: Case) -> Iterator[Value]:
    """Values under secret names in a server: its variables, its flags, and words behind flags nobody knows."""
    server, view = case.server, case.view
    for name, value in (*server.env.items(), *server.overridden, *view.env.items()):
        if value.known and hides(name, value.text):
            yield value
    yield from (one.value for one in (*view.flags.values(), *view.hidden) if one.flag.secret)
    words = [replace(word, text=part) for word in server.args for part in word.text.split()]
    for word, following in zip(words, (*words[1:], None), strict=False):
        name, _, joined = word.text.partition("=")
        if not name.startswith("-") or not is_secret(name):
            continue
        if joined and hides(name, joined):
            yield replace(word, text=joined)
        elif not joined and following is not None and following.known and not following.text.startswith("--"):
            yield following


# ---- texts without it ----


def without_secrets(line: str, hidden: Hidden = NOTHING) -> str:
    """A line of a file with as many stars instead of secrets: those listed, tokens, what a name gives away."""
    return _over(line, [*hidden.spans(line), *secret_spans(line), *_named_spans(line, prose=False)])


def told(text: str, hidden: Hidden = NOTHING) -> str:
    """The same for a sentence of ours, in which only `NAME=value` is a name and its value."""
    return _over(text, [*hidden.spans(text), *secret_spans(text), *_named_spans(text, prose=True)])


def _named_spans(text: str, *, prose: bool) -> Iterator[tuple[int, int]]:
    """Where the values of secret names stand in a line."""
    at = 0
    while (found := _PAIR.search(text, at)) is not None:
        value, start, end = _value(found)
        between = text[found.end("name") : start]
        plain = "=" in between and not re.search(r"\s", between) if prose else True
        named = plain and ("-" in found["name"][:1] or re.search(r"[:=]", between))
        if named and hides(found["name"], value):
            yield start, end
            at = end
        else:
            at = found.end("name")


def _value(found: re.Match[str]) -> tuple[str, int, int]:
    group = next(name for name in ("double", "single", "bare") if found[name] is not None)
    return found[group], found.start(group), found.end(group)


def _over(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with as many stars over these spans."""
    return covered(text, spans, lambda length: "*" * length)
