"""What the launcher of a found server is given: arguments over environment over the image's own.

The command line is read as clap reads it (launcher/src/main.rs@v3.3.7:2040); every value keeps the
place it came from, and what clap refuses is kept as a `Slip` for the rules to report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts import flags, tables
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.clouds import SAGEMAKER, port_of
from tgi_advisor.facts.flags import Flag
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.validate.found import Server, Value
from tgi_advisor.validate.images import NO_IMAGE, OWN, Image, identify, newest_of, of_backend, split
from tgi_advisor.validate.read.launcher import backend_of, is_fork, other_server

ENTRY_SINCE = (2, 0, 0)
"""From here on /tgi-entrypoint.sh hands its arguments on unquoted, so words with blanks are split."""
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
"""Variables a Hub token may stand in."""


@dataclass(frozen=True, slots=True)
class Given:
    """One launcher flag as the server gets it."""

    flag: Flag
    """The flag, as the release has it (or the newest, where the release is not known)."""
    value: Value
    """The word that holds its value; of a switch without one the flag itself."""
    name: Value
    """The word that names it: the argument, or the variable."""
    typed: object | None
    """The value as the launcher reads it; None when it is not known or not legal."""
    wrong: str | None = None
    """Why the launcher cannot read the value."""
    by: str = "argument"
    """`argument`, `environment` or `image`."""

    @property
    def shown(self) -> str:
        """The value for a message; never a secret."""
        return "***" if self.flag.secret else self.value.text


class Slip(NamedTuple):
    """Something on the command line clap does not accept."""

    kind: str
    """`unknown`, `unexpected`, `no-value`, `dashed` (a value taken for a flag), `switch-value` or `twice`."""
    word: Value
    """Where it stands."""
    flag: str
    """Name of the flag, where it has to do with one."""


@dataclass(frozen=True, slots=True)
class Effective:
    """One server as its launcher will see it."""

    server: Server
    """As found in the file."""
    image: Image
    """What runs."""
    flags: Mapping[str, Given]
    """Flags in force by name: the command line over the environment over the image."""
    hidden: tuple[Given, ...]
    """Environment entries an argument of the same flag overrides."""
    env: Mapping[str, Value]
    """Environment in the container, the image's own below the file's."""
    slips: tuple[Slip, ...]
    """What clap refuses on the command line."""
    open_words: tuple[Value, ...]
    """Words that may stand for any arguments, because their value is not in the file."""

    @property
    def release(self) -> TgiRelease | None:
        """The release whose rules hold; None when it cannot be known."""
        return self.image.release

    @property
    def known_flags(self) -> Mapping[str, Flag]:
        """The flags its launcher may have."""
        return known_flags(self.release, self.image.older)

    @property
    def known_variables(self) -> frozenset[str]:
        """Every environment variable its launcher may read."""
        return known_variables(self.release) | {flag.env for flag in self.known_flags.values() if flag.env}

    @property
    def version(self) -> str:
        """The release as text, also one before the first whose rules are known; empty when it cannot be known."""
        older = self.image.older
        return ".".join(map(str, older)) if older else str(self.release or "")

    @property
    def complete(self) -> bool:
        """Whether nothing outside the file can add arguments or environment."""
        return not self.open_words and not self.server.env_sources and not self.server.unknown

    def get(self, name: str) -> Given | None:
        """A flag in force, unless the image alone sets it."""
        given = self.flags.get(name)
        return given if given is not None and given.by != "image" else None

    def typed(self, name: str) -> object | None:
        """The value of a flag as the launcher reads it, the image's included."""
        given = self.flags.get(name)
        return None if given is None else given.typed

    def number(self, name: str) -> int | None:
        """A whole number a flag is given."""
        value = self.typed(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, name: str) -> str | None:
        """A text a flag is given, when it is known."""
        value = self.typed(name)
        return value if isinstance(value, str) else None

    @property
    def port(self) -> int | None:
        """The port the server listens on; None when it cannot be known."""
        first = self.env.get(self.image.port_env)
        if first is not None and not first.known:
            return None
        if first is not None and (port := port_of(first.text)) is not None:
            return port
        return self._port_of_launcher  # what is no port is passed over

    @property
    def _port_of_launcher(self) -> int | None:
        given = self.flags.get("port")
        if self.image.entry == "sagemaker" and self.server.entry is None:
            return self.image.port  # its entry point passes --port 8080
        if given is not None:
            return self.number("port")
        if self.server.form in ("launcher", "systemd"):
            return 3000  # the binary's own default; the image sets PORT
        return self.image.port if self.complete else None

    @property
    def model(self) -> str | None:
        """The model id or path that is loaded, when it is known."""
        return self.text("model-id")


def effective(server: Server, stated: TgiRelease | None = None, tag: str = "") -> Effective:
    """The arguments and the environment of a server merged as the launcher merges them.

    `stated` is the release to go by where the file does not name one; `tag` the one that TGI's own image would
    have, where the file says so of another.
    """
    image = identify(server.image.text) if server.image is not None and server.image.known else NO_IMAGE
    if server.image is not None and not server.image.known:
        image = _partly_known(server.image)
    own = server.image is not None and (image.cloud or releases.is_own(split(server.image.text)[0]))
    if not own and not image.other and is_fork([word.text for word in server.args]):
        fork = other_server("ibm/text-generation-inference")
        assert fork is not None, "servers.yaml names it"
        image = Image(
            None,
            f"the arguments are those of {fork.what}, which is not judged",
            None,
            None,
            judged=False,
            other=fork.what,
            fork=True,
        )
    if not own and not image.other and (backend := _backend(server)):
        image = of_backend(backend)
    if server.form == "sagemaker" and not image.entry:
        image = image._replace(entry="sagemaker", port=8080)
    if tag:
        image = identify(f"{OWN}:{tag}")._replace(official=False, how="stated")
    if "built here" in server.notes:  # from sources that may be a fork's
        image = image._replace(how="guessed")
    if "built" in server.notes and image.official:  # on top of it, or from a fork
        image = image._replace(official=False, how="named" if image.release is not None else "guessed")
    image = _released(image, server, stated)
    env = _environment(server, image)
    known = known_flags(image.release, image.older)
    words = [] if unread(server, image) else list(_words(server, image.release))
    given, slips, open_words = _arguments(words, known)
    in_force: dict[str, Given] = {}
    hidden = []
    for entry in _from_environment(env, known):
        if entry.flag.name in given:
            hidden.append(entry)
        else:
            in_force[entry.flag.name] = entry
    return Effective(server, image, {**in_force, **given}, tuple(hidden), env, tuple(slips), tuple(open_words))


def unread(server: Server, image: Image) -> bool:
    """Whether the image's own entry point runs and drops the arguments it is given."""
    return image.deaf and server.entry is None and server.form not in ("launcher", "systemd", "spec")


def _backend(server: Server) -> str:
    """The back end with a launcher of its own that a server without an image of TGI's runs."""
    said = next((note.removeprefix("backend ") for note in server.notes if note.startswith("backend ")), "")
    return said or backend_of([word.text for word in server.args])


def _released(image: Image, server: Server, stated: TgiRelease | None) -> Image:
    """The image with the release somebody states, where its reference does not; our own specs have the newest."""
    if server.form == "spec" and server.image is None:
        said = next((note.removeprefix("release ") for note in server.notes if note.startswith("release ")), None)
        try:
            release = releases.find(said) if said else stated or releases.latest()
        except AdvisorError as error:
            return image._replace(note=error.message)
        return image._replace(release=release, note="")
    if server.form == "spec" and image.release is None:
        return _as_spec_says(image, server)
    noted = next((note.removeprefix("image ") for note in server.notes if note.startswith("image ")), None)
    if stated is None and noted is not None:  # an environment file of ours says which image it is for
        meant = identify(noted)
        return image._replace(release=meant.release, note=meant.note, entry=meant.entry, port=meant.port)
    if stated is None or not image.judged or (image.release is not None and not image.floating):
        return image
    env = releases.image_env(stated, image.variant) if image.variant is not None and not image.cloud else image.env
    return image._replace(release=stated, note="", env=env)


def _as_spec_says(image: Image, server: Server) -> Image:
    """An image of another name in a spec of ours: TGI's, of the release beside it or the one its tag says."""
    said = next((note.removeprefix("release ") for note in server.notes if note.startswith("release ")), None)
    assert server.image is not None, "asked only of an image that is named"
    try:
        tag = releases.from_image(server.image.text, releases.find(said) if said else None)
    except AdvisorError:
        return image
    if not tag.certain:
        return image
    own = identify(releases.image_for(tag.release, tag.variant))
    return own._replace(official=False, how="stated")


def known_flags(release: TgiRelease | None, older: tuple[int, int, int] | None = None) -> Mapping[str, Flag]:
    """The flags of a release, or of the older one that it stands for; of an unknown one every flag there has been,
    each as it was last.
    """
    if older is not None:
        return flags.flags_before(older)
    return flags.flags_of(release) if release is not None else _every_flag()


@cache
def _every_flag() -> Mapping[str, Flag]:
    return {name: flag for one in releases.all_releases() for name, flag in flags.flags_of(one).items()}


@cache
def known_variables(release: TgiRelease | None) -> frozenset[str]:
    """Every environment variable a release reads; of an unknown one those of all."""
    those = releases.all_releases() if release is None else (release,)
    names = {flag.env for one in those for flag in flags.flags_of(one).values() if flag.env}
    return frozenset(names | {name for one in those for name in flags.environment(one)})


def variable_releases(name: str) -> tuple[str, str | None] | None:
    """First and last release (None: still) that reads a variable; None when none does."""
    row = tables.load("env").get(name)
    if row is not None:
        return row["since"], row.get("until")
    found = next((row for row in tables.load("flags").values() if row["env"] == name), None)
    return None if found is None else (found["since"], found.get("until"))


def _partly_known(reference: Value) -> Image:
    """An image whose reference holds a variable: its tag may still be there (a region in the name, for example)."""
    image = identify(reference.text)
    if image.other:
        return image
    if reference.missing == ("appVersion",):
        note = "the chart's appVersion says the tag, which another file has"
        return image._replace(release=None, note=note, floating="")
    if image.release is not None and "$" not in reference.text.rpartition(":")[2]:
        return image
    if image.cloud == "sagemaker" and reference.missing == ("version",):
        return newest_of(image)
    names = ", ".join(reference.missing)
    note = f"the image tag depends on {names}" if names else "the image tag is not in the file"
    cloud = image if image.cloud or image.variant is not None else NO_IMAGE._replace(how=image.how)
    return cloud._replace(release=None, note=note, floating="")


def _environment(server: Server, image: Image) -> dict[str, Value]:
    """Every variable in the container, the image's own first."""
    nowhere = server.image.place if server.image else server.place
    env = {name: Value(text, nowhere, "image") for name, text in image.env.items()}
    env.update(server.env)
    env.update({name: value for name, value in server.secret_env.items() if name not in server.env})
    if image.entry == "sagemaker":
        for outside, inside in SAGEMAKER.items():
            if outside in env and env[outside].text:
                env[inside] = env[outside]
    fetched = env.get(image.model_env)
    if fetched is not None and (fetched.text.startswith("gs://") or not fetched.known):
        env["MODEL_ID"] = replace(fetched, text="/tmp/model", known=False, missing=())  # noqa: S108  (its own folder)
    return env


def _words(server: Server, release: TgiRelease | None) -> Iterator[Value]:
    """The launcher's words; TGI's entry point splits those with blanks and drops those with nothing in them."""
    splits = server.entry is None and server.form not in ("launcher", "spec") and server.image is not None
    splits = splits and (release is None or release.version >= ENTRY_SINCE)
    for word in server.args:
        parts = re.findall(r"[^ \t\n]+", word.text) if splits and word.known else [word.text]
        if parts == [word.text] or (not word.text and word.defaulted):
            yield word
        else:
            yield from (replace(word, text=part, length=0) for part in parts)


def _from_environment(env: Mapping[str, Value], known: Mapping[str, Flag]) -> Iterator[Given]:
    """Flags set by variables. A variable that is set is a value, even an empty one."""
    index = {flag.env: flag for flag in known.values() if flag.env}
    for name, value in env.items():
        flag = index.get(name)
        if flag is None:
            continue
        outside = next((one for one, inside in SAGEMAKER.items() if inside == name and env.get(one) is value), name)
        key = Value(outside, value.key or value.place, value.origin, length=len(outside) if value.key else 0)
        by = "image" if value.origin == "image" else "environment"
        yield _given(flag, value, key, by)


def _given(flag: Flag, value: Value, name: Value, by: str) -> Given:
    if not value.known:
        return Given(flag, value, name, None, None, by)
    try:
        return Given(flag, value, name, flags.parse_value(flag, value.text, env=by != "argument"), None, by)
    except ValueError as error:
        why = f"{flag.env if by != 'argument' else '--' + flag.name} cannot be read" if flag.secret else str(error)
        return Given(flag, value, name, None, why, by)


_NAMED_VALUE = re.compile(r"[A-Za-z_]\w*=")
"""`NAME=...`, which is no argument of the launcher whatever stands behind it."""
_NAMED_FLAG = re.compile(r"--[a-z][a-z0-9-]*=")
"""`--name=...`, which is that flag whatever its value; without a `missing` name only a branch may add it."""


def _arguments(
    words: list[Value], known: Mapping[str, Flag]
) -> tuple[dict[str, Given], list[Slip], list[Value]]:  # fmt: skip
    """Words as clap reads them: flags by name, what it refuses, and words that could be anything."""
    given: dict[str, Given] = {}
    slips: list[Slip] = []
    opened: list[Value] = []
    short = {flag.short: flag for flag in reversed(list(known.values())) if flag.short}
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        named = _flag_word(word, known, short)
        if named is None:
            certain = _NAMED_VALUE.match(word.text) or (word.missing and _NAMED_FLAG.match(word.text))
            if (not word.known and not certain) or word.text == "":
                opened.append(word)
            elif word.text == "--":  # what follows are values without a flag, and the launcher has none
                slips += [Slip("unexpected", rest, "") for rest in words[index:]]
                break
            elif _dashed(word):
                if word.text in ("--help", "-h", "--version", "-V"):
                    continue
                slips.append(Slip("unknown", word, word.text.lstrip("-").partition("=")[0]))
                if "=" not in word.text and index < len(words) and not words[index].text.startswith("-"):
                    index += 1
            else:
                slips.append(Slip("unexpected", word, ""))
            continue
        flag, joined = named
        following = words[index] if index < len(words) else None
        if flag.type == "switch":
            if joined is not None:
                slips.append(Slip("switch-value", word, flag.name))
            elif following is not None and following.text in ("true", "false", "True", "False", "1", "0"):
                slips.append(Slip("switch-value", following, flag.name))
                index += 1
            entry = Given(flag, word, word, True)
        elif joined is not None:
            entry = _given(flag, replace(word, text=joined), word, "argument")
        elif following is None or following.text.startswith("--") or _flag_word(following, known, short) is not None:
            slips.append(Slip("no-value", word, flag.name))
            continue
        elif _dashed(following):
            slips.append(Slip("dashed", following, flag.name))
            entry = Given(flag, following, word, None)
            index += 1
        else:
            entry = _given(flag, following, word, "argument")
            index += 1
        if flag.name in given and flag.many:
            entry = _added(given[flag.name], entry)
        elif flag.name in given and (word.known or word.missing):  # else only a branch adds it
            slips.append(Slip("twice", word, flag.name))
        given[flag.name] = entry
    return given, slips, opened


def _flag_word(word: Value, known: Mapping[str, Flag], short: Mapping[str, Flag]) -> tuple[Flag, str | None] | None:
    """The flag a word names, and the value joined to it; None when it names none."""
    text = word.text
    if text.startswith("--"):
        name, equals, joined = text[2:].partition("=")
        flag = known.get(name)
        return None if flag is None else (flag, joined if equals else None)
    if len(text) >= 2 and text[0] == "-" and text[1] in short:
        return short[text[1]], text[2:].removeprefix("=") or None
    return None


def _dashed(word: Value) -> bool:
    """Whether clap takes the word for a flag, whichever: no flag of the launcher has values that begin with a dash."""
    return word.text.startswith("-") and len(word.text) > 1


def _added(earlier: Given, later: Given) -> Given:
    """A list flag given twice: its values add up. What cannot be read in either stays the one to report."""
    if isinstance(earlier.typed, tuple) and isinstance(later.typed, tuple):
        return replace(later, typed=earlier.typed + later.typed)
    return later if isinstance(earlier.typed, tuple) else earlier
