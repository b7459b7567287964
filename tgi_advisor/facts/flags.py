"""Every launcher flag and environment variable of a TGI release, and how its values are read."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from tgi_advisor.errors import SpecError, did_you_mean, listed
from tgi_advisor.facts import tables
from tgi_advisor.facts.release import TgiRelease, in_force, version

Type = Literal["switch", "bool", "text", "choice", "usize", "u16", "u32", "u64", "f32"]
Source = Literal["arguments", "environment"]
"""Where the launcher finds a value."""
Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]


class Flag(NamedTuple):
    """One flag of text-generation-launcher as one release has it."""

    name: str
    """Long name without the dashes: `max-batch-size`."""
    env: str | None
    """Environment variable that sets it too; the command line wins."""
    short: str | None
    """One-letter form."""
    type: Type
    """`switch` takes no value; `choice` one of `values`; the numbers are Rust's."""
    many: bool
    """Whether it may be given more than once."""
    delimiter: str | None
    """What separates several values in one word; None when the flag has to be repeated."""
    default: str | None
    """The parser's own default, as written; None when there is none."""
    values: tuple[str, ...]
    """What a `choice` accepts, spelled exactly so."""
    effective: str | None
    """What TGI makes of the flag not being given, where that is not simply `default`."""
    same_as: str | None
    """The newer name of the same setting; both together are refused."""
    secret: bool
    """Whether its value must never be shown."""
    help: str
    """One line of what it does."""
    notes: tuple[str, ...]
    """What surprises people about it."""
    since: str
    """First release that has it (1.0.0: or earlier)."""
    until: str | None
    """Last release that has it; None when the newest still does."""
    source: str
    """path@tag:line of its declaration in the newest release that has it."""


class Variable(NamedTuple):
    """An environment variable TGI reads that belongs to no flag."""

    name: str
    """`TGI_WIGGLE_ROOM`."""
    meaning: str
    """One sentence."""
    values: str
    """How a value is written."""
    default: str | None
    """What holds when it is not set, where that is one value."""
    secret: bool
    """Whether its value must never be shown."""
    source: str
    """Where TGI reads it."""


class Unreadable(ValueError):  # noqa: N818  (it is no fault of the program's)
    """A value the launcher cannot read; the text says what it accepts instead."""

    def __init__(self, message: str, printed: str | None) -> None:
        super().__init__(message)
        self.printed = printed
        """What the launcher's parser prints; None for what is no word of a command line at all, such as a list."""


@cache
def flags_of(release: TgiRelease) -> Mapping[str, Flag]:
    """Every flag the release has, by name."""
    return MappingProxyType(
        {
            name: _flag(name, row, release.version)
            for name, row in tables.load("flags").items()
            if _has(row, release.version)
        }
    )


@cache
def flags_before(release: tuple[int, int, int]) -> Mapping[str, Flag]:
    """Every flag of a release before the first whose rules are known (`older` in images.yaml), by name."""
    return MappingProxyType(
        {
            name: _flag(name, _told(name) | row, release)
            for name, row in tables.load("flags_before").items()
            if _has(row, release)
        }
    )


def _told(name: str) -> dict[str, Any]:
    """What is written by hand of a flag that later releases still have; else whether it holds a secret."""
    row = tables.load("flags").get(name, {"secret": name.endswith("password")})
    return {"help": "", **{key: row[key] for key in ("help", "secret") if key in row}}


def find(name: str, release: TgiRelease) -> Flag:
    """A flag by its long name; SpecError that says whether it is misspelt, too new or removed."""
    flag = flags_of(release).get(name)
    if flag:
        return flag
    row = tables.load("flags").get(name)
    if row is None:
        raise SpecError(
            f"the launcher has no flag '--{name}'",
            did_you_mean(name, flags_of(release)) or f"`tgi-advisor flags --release {release}` lists them",
        )
    if release.version < version(row["since"]):
        raise SpecError(
            f"TGI {release} has no flag '--{name}': it came with {row['since']}",
            f"leave it out, or use release {row['since']} or newer",
        )
    raise SpecError(
        f"TGI {release} has no flag '--{name}': {row['until']} was the last release that had it",
        did_you_mean(name, flags_of(release)) or "leave it out",
    )


def cited(flag: Flag, release: TgiRelease) -> str:
    """Where a release declares a flag; by the field's name where only the line in a newer release was recorded."""
    path, _, place = flag.source.partition("@v")
    if place.partition(":")[0] == str(release):
        return flag.source
    return f"{path}@v{release}, {flag.name.replace('-', '_')}"


@cache
def env_index(release: TgiRelease) -> Mapping[str, Flag]:
    """The flags of a release by the environment variable that sets them, as declared: the order they are read in."""
    declared = sorted(flags_of(release).values(), key=lambda flag: int(flag.source.rpartition(":")[2]))
    return MappingProxyType({flag.env: flag for flag in declared if flag.env})


@cache
def environment(release: TgiRelease) -> Mapping[str, Variable]:
    """The environment variables a release reads beside those of its flags, by name."""
    return MappingProxyType(
        {name: _variable(name, row, release) for name, row in tables.load("env").items() if _has(row, release.version)}
    )


def parse_value(flag: Flag, value: object, *, env: bool = False) -> Value:
    """The typed value the launcher makes of a text, or of a YAML scalar or list.

    `env`: the text comes from the flag's environment variable, where switches take `true` or `false` and
    an empty text is still a value. `Unreadable` says what the launcher accepts instead.
    """
    source: Source = "environment" if env else "arguments"
    if not flag.many:
        return _scalar(flag, value, source)
    items = value if isinstance(value, list | tuple) else _split(flag, value)
    if not items:
        none = " (0 for none)" if flag.type == "usize" else ""
        raise Unreadable(f"--{flag.name}: at least one value is needed{none}", None)
    return tuple(_scalar(flag, item, source) for item in items)


def read(flag: Flag, value: object, *, env: bool = False) -> Value | Unreadable:
    """`parse_value`, with why there is no value instead of one."""
    try:
        return parse_value(flag, value, env=env)
    except Unreadable as error:
        return error


def shown(flag: Flag) -> str:
    """A flag as the launcher's parser names it: `--num-shard <NUM_SHARD>`; a switch has no value to name."""
    name = f"--{flag.name}"
    return name if flag.type == "switch" else f"{name} <{flag.name.replace('-', '_').upper()}>"


def f32(text: str) -> float | None:
    """The 32-bit float Rust reads from a text: digits, `inf` or `nan`, what is too large infinite; None for no number.

    https://doc.rust-lang.org/std/primitive.f32.html#impl-FromStr-for-f32
    """
    number = r"[0-9]+\.?[0-9]*|\.[0-9]+"
    if (
        not text
        or re.fullmatch(rf"[+-]?(inf|infinity|nan|({number})(e[+-]?[0-9]+)?)", text, re.IGNORECASE | re.ASCII) is None
    ):
        return None
    value = float(text)
    return math.copysign(math.inf, value) if abs(value) >= _F32_OVERFLOW else value


def render(flag: Flag, value: Value) -> list[str]:
    """The words that give the flag a value on the launcher's command line; a switch that is off has none."""
    if flag.type == "switch":
        return [f"--{flag.name}"] if value is True else []
    values = [_text(item) for item in (value if isinstance(value, tuple) else (value,))]
    if flag.delimiter:
        values = [flag.delimiter.join(values)]
    return [word for text in values for word in _words(flag, text)]


_F32_OVERFLOW = 2.0**128 - 2.0**103
"""From here on the nearest 32-bit float is infinite."""
_I64_MAX = (1 << 63) - 1
_LONGEST = 1000
"""Characters of a value beyond which it is no longer quoted."""
_INTEGERS = {"u16": 1 << 16, "u32": 1 << 32, "u64": 1 << 64, "usize": 1 << 64}
_FLAG_KEYS = frozenset(Flag._fields) - {"name"} | {"optional", "changes"}
_VARIABLE_KEYS = frozenset(Variable._fields) - {"name"} | {"since", "until"}


def _has(row: Mapping[str, Any], release: tuple[int, int, int]) -> bool:
    until = row.get("until")
    return version(row["since"]) <= release and (until is None or release <= version(until))


def _flag(name: str, row: Mapping[str, Any], release: tuple[int, int, int]) -> Flag:
    """The row of a flag with every change up to the release on top."""
    tables.strict(row, _FLAG_KEYS, {"help", "env", "type", "since", "source"}, f"flags.yaml, {name}")
    now = dict(row)
    for since, change in row.get("changes", {}).items():
        tables.strict(change, _FLAG_KEYS, set(), f"flags.yaml, {name}, changes, {since}")
        if version(since) <= release:
            now.update(change)
    effective = [text for since, text in now.get("effective", {}).items() if version(since) <= release]
    return Flag(
        name=name,
        env=now["env"],
        short=now.get("short"),
        type=now["type"],
        many=now.get("many", False),
        delimiter=now.get("delimiter"),
        default=now.get("default"),
        values=tuple(now.get("values", ())),
        effective=effective[-1] if effective else None,
        same_as=now.get("same_as") if now.get("optional") else None,
        secret=now.get("secret", False),
        help=now["help"],
        notes=tuple(now.get("notes", ())),
        since=now["since"],
        until=now.get("until"),
        source=now["source"],
    )


def _variable(name: str, row: Mapping[str, Any], release: TgiRelease) -> Variable:
    tables.strict(row, _VARIABLE_KEYS, {"meaning", "values", "since", "source"}, f"env.yaml, {name}")
    default = in_force(row.get("default", {}), release)
    return Variable(name, row["meaning"], row["values"], default, row.get("secret", False), row["source"])


def _split(flag: Flag, value: object) -> Iterable[object]:
    if isinstance(value, str) and flag.delimiter:
        return value.split(flag.delimiter)
    return (value,)


def _scalar(flag: Flag, value: object, source: Source) -> Scalar:
    """One value as clap's parser for the flag's type reads it."""
    if flag.type in ("switch", "bool"):
        return _boolean(flag, value, source)
    if flag.type == "text":
        return _plain(flag, value, source)
    if flag.type == "choice":
        return _choice(flag, value, source)
    if flag.type == "f32":
        return _float(flag, value, source)
    return _integer(flag, value, source)


def _boolean(flag: Flag, value: object, source: Source) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise _unreadable(flag, value, source, "expected exactly true or false")


def _plain(flag: Flag, value: object, source: Source) -> str:
    """Text as it is; a number is refused because YAML may have rewritten it (0123 is 83)."""
    if not isinstance(value, str):
        raise Unreadable(f"{_named(flag, source)}: expected text, got {_short(value)}; put it in quotes", None)
    if "\0" in value:
        raise Unreadable(f"{_named(flag, source)}: a value cannot contain a NUL character", None)
    return value


def _choice(flag: Flag, value: object, source: Source) -> str:
    if isinstance(value, str) and value in flag.values:
        return value
    guess = did_you_mean(value, flag.values) if isinstance(value, str) else None
    raise _unreadable(flag, value, source, f"expected {listed(flag.values)}", hint=guess)


def _integer(flag: Flag, value: object, source: Source) -> int:
    """A Rust unsigned integer: ASCII digits, perhaps a plus, in range."""
    top = _INTEGERS[flag.type] - 1
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and re.fullmatch(r"\+?[0-9]{1,40}", value):
        number = int(value)
    if number is None or not 0 <= number <= top:
        why = _integer_error(flag, _word(value) or "")
        raise _unreadable(flag, value, source, f"expected a whole number from 0 to {top}", why)
    return number


def _integer_error(flag: Flag, text: str) -> str:
    """Why Rust reads no integer: u16 and u32 are read as i64 first, whose bounds clap checks afterwards."""
    if not text:
        return "cannot parse integer from empty string"
    ranged = flag.type in ("u16", "u32")
    if not re.fullmatch(r"[+-]?[0-9]+" if ranged else r"\+?[0-9]+", text):
        return "invalid digit found in string"
    digits = text.lstrip("+-").lstrip("0") or "0"
    if len(digits) > 19 or not ranged or int(digits) > _I64_MAX + text.startswith("-"):
        return f"number too {'small' if text.startswith('-') else 'large'} to fit in target type"
    return f"{'-' * text.startswith('-')}{digits} is not in 0..={_INTEGERS[flag.type] - 1}"


def _float(flag: Flag, value: object, source: Source) -> float:
    """A Rust f32, infinite and `nan` included."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value) if isinstance(value, float) or abs(value) < _INTEGERS["u64"] else "inf"
    number = f32(value) if isinstance(value, str) else None
    if number is None:
        why = "invalid float literal" if value != "" else "cannot parse float from empty string"
        raise _unreadable(flag, value, source, "expected a number such as 0.9", why)
    return number


def _named(flag: Flag, source: Source) -> str:
    """A flag in a message, by the way it is given."""
    return flag.env if source == "environment" and flag.env else f"--{flag.name}"


def _unreadable(
    flag: Flag, value: object, source: Source, expected: str, why: str | None = None, hint: str | None = None
) -> Unreadable:
    """What is wrong with a value, with the words of clap 4 (clap_builder/src/error/format.rs, write_dynamic_context).

    `why` is the error of the parser of numbers, which clap appends; a choice or a boolean has none.
    """
    message = f"{_named(flag, source)}: {expected}, got {_short(value)}" + (f"; {hint}" if hint else "")
    text = _word(value) if source == "environment" or flag.type != "switch" else None
    if text is None:
        return Unreadable(message, None)
    if not text and why is None:
        return Unreadable(message, f"error: a value is required for '{shown(flag)}' but none was supplied")
    printed = f"error: invalid value '{text}' for '{shown(flag)}'"
    return Unreadable(message, f"{printed}: {why}" if why else printed)


def _word(value: object) -> str | None:
    """A value as a word of a command line; None for what is no word, or too long to quote."""
    if not isinstance(value, Scalar) or (isinstance(value, int) and abs(value) >= 1 << 128):
        return None
    text = _text(value)
    return text if len(text) <= _LONGEST and "\0" not in text else None


def _short(value: object) -> str:
    """A value in a message, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        return "a number too long to print"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(flag: Flag, text: str) -> list[str]:
    """Two words, or one joined by `=` where the value looks like a flag itself, which clap would refuse."""
    return [f"--{flag.name}={text}"] if text.startswith("-") else [f"--{flag.name}", text]
