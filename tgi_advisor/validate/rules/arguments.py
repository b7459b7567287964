"""TGI101-TGI109: what the launcher's command line parser makes of arguments and variables."""

from __future__ import annotations

import re

from tgi_advisor.errors import nearest
from tgi_advisor.facts import families, flags, tables
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.flags import Flag
from tgi_advisor.facts.release import version
from tgi_advisor.validate.effective import Given, Slip, known_flags
from tgi_advisor.validate.finding import Fix, Severity
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, refused, rule


@rule("TGI101", "error", "flag the launcher does not have", "unknown-flag")
def unknown_flag(case: Case) -> Hits:
    """The launcher of this release has no such flag: misspelt, too new, removed, or never there.

    Its command line parser (clap) takes exact names only and stops with
    `error: unexpected argument '--...' found`. Where the release is not known, only flags that no
    release has had are reported, and none where the image may be that of a fork, which has flags of its own.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-concurrent-request 64

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-concurrent-requests 64
    """
    known = _names(case)
    for slip in () if case.view.image.guessed else case.view.slips:
        if slip.kind != "unknown" or not slip.word.text.startswith("-") or is_docker_flag(case, slip):
            continue
        name = slip.flag
        dashes = slip.word.text[: len(slip.word.text) - len(slip.word.text.lstrip("-"))]
        if len(dashes) == 1 and len(name) > 1:
            message = f"one dash makes -{name} a row of letters: {_letters(name, case)}"
        else:
            release = f"TGI {case.view.version}" if case.release else "no release of TGI"
            has = "has no" if case.release else "has a"
            message = f"{release} {has} flag {dashes}{name}, and the launcher stops at it"
        other = case.view.image.supposed and name in known_flags(None)  # a release it may be has the flag
        severity: Severity | None = "warning" if other else None
        yield Hit(slip.word, message, _instead(name, case, known), severity, _respelt(slip.word, dashes, name, known))


def _letters(name: str, case: Case) -> str:
    """What clap makes of the letters behind a single dash, one by one (launcher/src/main.rs@v3.3.7:2040)."""
    short = {flag.short: flag for flag in case.view.known_flags.values() if flag.short}
    for letter in name:
        if letter in "hV":
            return f"-{letter} prints {'the help' if letter == 'h' else 'the version'}, and no server starts"
        if letter not in short:
            return f"the launcher has no flag -{letter} and stops at it"
    return "the launcher stops at it"


def _names(case: Case) -> list[str]:
    return list(case.view.known_flags)


def _instead(name: str, case: Case, known: list[str]) -> str:
    """What to write instead of a word the launcher does not take for a flag."""
    if name in known:
        return f"write --{name}"
    first, blank, rest = name.partition(" ")
    if blank and first in known:
        return f"write two words: --{first} and {rest.strip()}"
    row, older = tables.load("flags").get(name), case.view.image.older
    if older is not None:
        row = tables.load("flags_before").get(name, row)
    if row is not None and case.release is not None:
        if (older or case.release.version) < version(row["since"]):
            return f"leave it out, or use release {row['since']} or newer, which has it"
        before = " before it" if older else ""  # a later one may have it again
        return f"leave it out: {row['until']} was the last release{before} that had it"
    fixed = {"host": "hostname", "watermark": ""}.get(name)
    if fixed == "":
        return "leave it out: watermarking is asked for by each request"
    starting = [one for one in known if one.startswith(name)]
    close = [one for one in nearest(name, known) if _alike(name, one)]
    near = [fixed] if fixed else close if len(name) > 1 else starting if len(starting) == 1 else []
    return f"did you mean --{near[0]}?" if near else "leave it out; `tgi-advisor flags` lists those there are"


def _alike(name: str, other: str) -> bool:
    """Whether a flag may be meant by a word: they share a word of some length, or nearly all their letters."""
    from difflib import SequenceMatcher

    shared = {word for word in name.split("-") if len(word) > 3} & set(other.split("-"))
    return bool(shared) or name in other or SequenceMatcher(None, name, other).ratio() >= ALIKE


ALIKE = 0.75
"""Share of their letters that two words have in common, in order, where one is taken for the other misspelt."""


def _respelt(word: Value, dashes: str, name: str, known: list[str]) -> Fix | None:
    """The same flag with two dashes, or with two dashes the one that is one edit away, where there is only one."""
    close = [name] if name in known else [one for one in known if one_edit(name, one)] if dashes == "--" else []
    return Fix(word.spot, f"{dashes}{name}", f"--{close[0]}") if len(close) == 1 else None


def one_edit(a: str, b: str) -> bool:
    """Whether two words differ by one inserted, dropped, changed or swapped character."""
    if a == b:
        return False
    short, long = sorted((a, b), key=len)
    if len(long) - len(short) > 1:
        return False
    at = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    if len(short) != len(long):
        return short[at:] == long[at + 1 :]
    swapped = short[:at] + short[at + 1 : at + 2] + short[at : at + 1] + short[at + 2 :]
    return short[at + 1 :] == long[at + 1 :] or swapped == long


DOCKER_FLAGS = frozenset(
    [
        "gpus",
        "shm-size",
        "runtime",
        "network",
        "net",
        "volume",
        "mount",
        "publish",
        "detach",
        "name",
        "rm",
        "ipc",
        "memory",
        "cpus",
        "device",
        "cap-add",
        "restart",
        "privileged",
        "security-opt",
        "group-add",
        "ulimit",
        "interactive",
        "tty",
        "env-file",
        "user",
        "workdir",
        "entrypoint",
        "v",
        "d",
        "it",
        "ti",
        "i",
        "t",
    ]
)
"""Options of `docker run` that no launcher has."""


def is_docker_flag(case: Case, slip: Slip) -> bool:
    """Whether an unknown flag is one of `docker run`, written behind the image."""
    return case.server.form == "docker-run" and slip.flag in DOCKER_FLAGS


@rule("TGI102", "error", "argument the launcher does not expect")
def unexpected_argument(case: Case) -> Hits:
    """A word that belongs to no flag, or a value behind a switch, stops the launcher.

    Switches such as `--trust-remote-code` take no value on the command line (their variables take
    `true` or `false`); everything else is `--flag value` or `--flag=value`. A value that begins with a
    dash needs the second form: alone, it is taken for a flag. A line of usage, with `[--flag VALUE]`, is none to run.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --trust-remote-code true --revision main

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --trust-remote-code --revision main
    """
    known = _names(case)
    usage = any(slip.word.text.startswith(("[-", "[OPTIONS")) for slip in case.view.slips)  # `[--num-shard N]`
    for slip in () if case.view.image.guessed or usage else case.view.slips:
        if slip.kind == "switch-value":
            step = f"write --{slip.flag} alone, or leave it out for false"
            yield Hit(slip.word, f"--{slip.flag} is a switch and takes no value", step)
        elif slip.kind == "dashed":
            message = (
                f"the launcher takes {_short(slip.word.text)!r} for a flag: unexpected argument {_cluster(slip)!r}"
            )
            yield Hit(slip.word, message, f"write --{slip.flag}={_short(slip.word.text)}")
        elif slip.kind == "unexpected":
            shown = slip.word.text if slip.word.text.strip() else "a blank"
            message = f"the launcher does not expect the argument {_short(shown)!r}"
            name = shown.lstrip("\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}-").partition("=")[0]
            if shown[0] in "\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}" and name in known:
                dashes = shown[: shown.index(name)]
                step = f"write --{name} with two hyphens"
                yield Hit(slip.word, message, step, fix=Fix(slip.word.spot, f"{dashes}{name}", f"--{name}"))
            else:
                yield Hit(slip.word, message, "remove it, or put the flag it belongs to before it")


def _cluster(slip: Slip) -> str:
    """What clap names of a word with one dash: it reads letters one by one and stops at the first it does not know."""
    return slip.word.text[:2]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


@rule("TGI103", "error", "value the launcher cannot read", "unparsable-value")
def invalid_value(case: Case) -> Hits:
    """A number is no number or out of range, a choice is misspelt, a boolean is not exactly `true` or `false`.

    The launcher parses every flag and every variable before it does anything else, and stops with
    `error: invalid value`. Booleans of the environment are strict: `1`, `True` and `yes` are refused.

    Failing::

        TRUST_REMOTE_CODE=1 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --revision main

    Fixed::

        TRUST_REMOTE_CODE=true tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --revision main
    """
    for given in case.view.flags.values():
        if case.view.image.guessed and given.flag.type == "choice":
            continue  # a fork may know more of them
        if given.wrong is not None and given.value.text != "":
            other = case.view.image.supposed and _once_read(given)  # a release it may be takes the value
            severity: Severity | None = "warning" if other else None
            yield Hit(given.value, given.wrong, _accepted(given.flag), severity, _plain_boolean(given))
        elif rest := _never_a_number(given):
            message = f"whatever ${given.value.missing[0]} is, {rest!r} beside it is no part of a number"
            yield Hit(given.value, f"--{given.flag.name}: {message}", "correct the variable's name")


def _once_read(given: Given) -> bool:
    """Whether a release has read a value that the one at hand refuses."""
    older = (flags.flags_before(releases.version(one)) for one in tables.load("images")["older"])
    known = (*older, *(flags.flags_of(one) for one in releases.all_releases()))
    for flag in {table[given.flag.name] for table in known if given.flag.name in table}:
        try:
            flags.parse_value(flag, given.value.text, env=given.by != "argument")
        except ValueError:
            continue
        return True
    return False


def _never_a_number(given: Given) -> str:
    """What stands beside the references of a numeric value and keeps it from being a number, whatever they hold."""
    if given.value.known or not given.value.missing or given.flag.type not in ("u16", "u32", "u64", "usize"):
        return ""
    rest = given.value.text
    for name in given.value.missing:
        rest = rest.replace(f"${{{name}}}", "").replace(f"${name}", "")
    if rest == given.value.text:
        return ""  # a name of another notation, such as Python's
    return "" if "{" in rest or "(" in rest or "," in rest or rest.isdigit() else rest


def _accepted(flag: Flag) -> str:
    if flag.type in ("switch", "bool"):
        return "write true or false"
    if flag.type == "choice":
        return f"write one of {', '.join(flag.values)}"
    return "write a number such as 0.9" if flag.type == "f32" else "write a whole number"


def _plain_boolean(given: Given) -> Fix | None:
    """`True` and `False` spelt as the launcher wants them; other words need a person."""
    text = given.value.text
    if given.flag.type in ("switch", "bool") and text in ("True", "TRUE", "False", "FALSE"):
        return Fix(given.value.spot, text, text.lower())
    if given.flag.type == "choice" and text != text.lower() and text.lower() in given.flag.values:
        return Fix(given.value.spot, text, text.lower())
    return None


@rule("TGI104", "error", "variable set to nothing")
def empty_value(case: Case) -> Hits:
    """A variable that is set to the empty text is set: the launcher parses it and stops.

    Numbers, choices and booleans have no empty spelling. PREFIX_CACHING and PREFILL_CHUNKING, which the
    shards read themselves, are switched off by it. Leave the variable out to get the default.

    Failing::

        QUANTIZE= tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    for given in case.view.flags.values():
        if given.wrong is not None and given.value.text == "":
            name = given.name.text if given.by == "environment" else f"--{given.flag.name}"
            message = f"{name} is set to the empty text, which is no value for --{given.flag.name}"
            by_default = given.value.defaulted  # `${NAME:-}`: empty unless the host sets it
            step = f"leave {name} out, or {_accepted(given.flag)}"
            yield Hit(given.value, message, step, "warning" if by_default else None)
    for name, (since, until) in _OFF.items():
        value = case.variable(name)
        if value is not None and value.known and not value.text and case.version and since <= case.version <= until:
            step = f"leave {name} out, or write 0 where off is meant"
            yield Hit(value, f"{name} is set to the empty text, which switches it off", step, "warning")


_OFF = {
    "PREFIX_CACHING": ((2, 4, 0), (999, 0, 0)),
    "USE_PREFIX_CACHING": ((2, 3, 0), (2, 3, 1)),
    "PREFILL_CHUNKING": ((3, 0, 0), (999, 0, 0)),
}
"""What is on unless its variable holds something else than `1` or `true`, and in which releases (models/globals.py)."""


@rule("TGI105", "error", "flag given twice")
def given_twice(case: Case) -> Hits:
    """The launcher takes a flag once; given twice it stops with `cannot be used multiple times`.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1 --num-shard 1

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1
    """
    for slip in case.view.slips:
        if slip.kind == "twice":
            yield Hit(slip.word, f"--{slip.flag} is given twice, which the launcher refuses", "leave one of them out")


@rule("TGI106", "error", "flag without its value")
def value_missing(case: Case) -> Hits:
    """A flag that wants a value stands at the end, or before the next flag.

    Where the release is not known and one before 1.0.0 took the flag for a switch, that is a warning, unless the model
    came later; in a Makefile, which goes with the sources it stands in, nothing is said then.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --sharded --num-shard 1

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1
    """
    for slip in case.view.slips:
        if slip.kind == "no-value":
            step = f"write --{slip.flag} and a value, or leave it out"
            old = _once_a_switch(case, slip.flag)
            if old and case.server.image is None and _MAKEFILE.search(case.document.file):
                continue
            before = " (only releases before 1.0.0 took it for a switch)" if old else ""
            message = f"--{slip.flag} needs a value, and none follows{before}"
            yield Hit(slip.word, message, step, "warning" if old else None)


_MAKEFILE = re.compile(r"(?:^|[/\\])(?:gnu)?makefile(?:[.-][\w.-]+)?$|\.mk$", re.IGNORECASE)


def _once_a_switch(case: Case, name: str) -> bool:
    """Whether a server may run a release before the first whose rules are known, which took a flag for a switch."""
    if case.release is not None:
        return False
    older = (flags.flags_before(releases.version(one)).get(name) for one in tables.load("images")["older"])
    if not any(flag is not None and flag.type == "switch" for flag in older):
        return False
    return case.facts is None or families.find(case.facts, releases.all_releases()[0]).supported


@rule("TGI107", "info", "old name of a flag")
def deprecated_flag(case: Case) -> Hits:
    """`max_input_length` is the old name of `max_input_tokens` since 2.0.0, as a flag and as a variable.

    It still works, and means the same; both names together are refused
    (launcher/src/main.rs@v3.3.7:2104).

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-length 1024 --max-total-tokens 2048

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --max-input-tokens 1024 --max-total-tokens 2048
    """
    given = case.view.get("max-input-length")
    if given is None or case.version is None or case.version < (2, 0, 0) or case.view.get("max-input-tokens"):
        return
    old = "MAX_INPUT_LENGTH" if given.by == "environment" else "--max-input-length"
    new = old.replace("LENGTH", "TOKENS").replace("length", "tokens")
    message = "max_input_length is the old name of max_input_tokens since 2.0.0, and still works"
    yield Hit(given.name, message, f"write {new}", fix=Fix(given.name.spot, old, new), once="run")


@rule("TGI108", "warning", "quantization that is deprecated")
def deprecated_quantize(case: Case) -> Hits:
    """`--quantize bitsandbytes` (8 bit) is deprecated since 1.1.0, and slow.

    The launcher's own help points at eetq, which does the same faster
    (launcher/src/main.rs@v1.1.0); from 2.3.0 on it prints a warning.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --quantize bitsandbytes

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --quantize eetq
    """
    given = case.view.get("quantize")
    if given is not None and given.typed == "bitsandbytes" and case.version and case.version >= (1, 1, 0):
        yield Hit(given.value, "8-bit bitsandbytes is deprecated since 1.1.0", "use eetq, or fp8 on a recent GPU")


@refused("TGI109", "both names of the input limit", "both-input-names", reads=("max-input-length", "max-input-tokens"))
def both_names(case: Case) -> Value | None:
    """max_input_length is only the old name of max_input_tokens; the launcher takes one of them, from wherever.

    Failing::

        MAX_INPUT_LENGTH=512 tgi:3.3.7 --model-id gpt2 --max-input-tokens 512 --max-total-tokens 1024

    Fixed::

        tgi:3.3.7 --model-id gpt2 --max-input-tokens 512 --max-total-tokens 1024
    """
    return case.at("max-input-length")
