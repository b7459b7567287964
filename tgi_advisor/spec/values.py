"""What one written value may be, kind by kind; `fields.py` puts them together to records."""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tgi_advisor.errors import Problem, SpecError, did_you_mean
from tgi_advisor.safe import looks_secret
from tgi_advisor.spec.records import MountSpec
from tgi_advisor.spec.tree import List, Node, Scalar, described
from tgi_advisor.units import COUNT_FORM, SIZE_FORM, parse_count, parse_size

MAX_COUNT = 2**31 - 1
"""Largest count where a field sets no lower maximum."""
MAX_SIZE = 1 << 50
"""Largest size in bytes (1 PiB)."""

MOUNT = r"(.+):(/[^:,\"]*)(:ro|:rw)?"
"""A mount as Docker's -v has it; a target with a comma or quotes no option of Docker could carry."""
VOLUME = r"[A-Za-z0-9][A-Za-z0-9_.-]+"
"""What Docker calls a volume."""
KEPT = {
    "/": "name a folder of the container",
    "/data": "the weights lie there: write container.cache",
    "/dev/shm": "write container.shm_size",  # noqa: S108
}
"""Paths of the container that something else lies on, and what to write instead."""
DEVICE_ID = r"^[A-Za-z0-9][A-Za-z0-9:/._=-]*$"
KEEP_OUT = (
    "use container.token_env: it names the variable of your shell that holds the Hub token; "
    "give any other secret to the container outside the spec"
)
"""What to do with a secret."""


class Slot(NamedTuple):
    """A value, the field it is for and what that field asks of it."""

    node: Node
    """What was written."""
    path: str
    """Dotted path of the field."""
    meta: Mapping[str, Any]
    """The field's metadata (see `records.setting`)."""

    def wrong(self, what: str, hint: str | None = None, node: Node | None = None) -> SpecError:
        """`limits.max_total_tokens must be a count, got 'lots'`."""
        return self.refused(f"{self.path} must be {what}, got {described(node or self.node)}", hint, node)

    def refused(self, message: str, hint: str | None, node: Node | None = None) -> SpecError:
        """An error about the value (or a node inside it)."""
        return SpecError(message, problems=[Problem(message, hint, (node or self.node).place)])

    def within(self, value: float, low: float, high: float) -> None:
        """Refuses a number outside the field's bounds (or the kind's own)."""
        low, high = self.meta.get("minimum", low), self.meta.get("maximum", high)
        if not low <= value <= high:
            raise self.wrong(f"between {low} and {high}")


def line(slot: Slot, *, empty: bool = False) -> str:
    """The text of a scalar, when it is one printable line without a secret in it."""
    if not isinstance(slot.node, Scalar):
        raise slot.wrong("one value")
    text = slot.node.text
    if looks_secret(text):
        raise slot.refused(f"the value of {slot.path} looks like a secret (it is not shown)", KEEP_OUT)
    if not text.isprintable():
        raise slot.wrong("one line of printable text", "leave out line ends and control characters")
    if not text and not empty:
        raise slot.wrong("text", "leave the line out to have the default")
    return text


def text(slot: Slot) -> str:
    """Text; a number is taken as it is written, so that `release: 3.3` is TGI 3.3."""
    node = slot.node
    if not isinstance(node, Scalar):
        raise slot.wrong("text")
    if node.boolean is not None:
        raise slot.wrong("text", f'write "{node.text}" in quotes')
    value = line(slot)
    pattern = slot.meta.get("pattern")
    if pattern and not re.fullmatch(pattern, value):
        near = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:63].rstrip("-")
        raise slot.wrong(slot.meta["pattern_says"], f"write {near}" if re.fullmatch(pattern, near) else None)
    if slot.path == "model.id" and "://" in value:
        address = re.fullmatch(r"https?://[^/]+/([\w.-]+/[\w.-]+?)(/.*)?", value, re.ASCII)
        hint = f"write {address[1]}" if address else "write the part after the host, such as org/name"
        raise slot.wrong("a Hub id or a folder, not an address", hint)
    return value


def choice(slot: Slot) -> str:
    """One of the field's choices."""
    choices = slot.meta["choices"]
    word = slot.node.text if isinstance(slot.node, Scalar) else ""
    if word in choices:
        return word
    raise slot.wrong(f"one of {', '.join(choices)}", did_you_mean(word[:64], choices) if word else None)


def boolean(slot: Slot) -> bool:
    """`true` or `false`; `yes` and `on` are words in YAML 1.2."""
    node = slot.node
    if isinstance(node, Scalar) and node.boolean is not None:
        return node.boolean
    word = node.text.lower() if isinstance(node, Scalar) else ""
    hints = {
        meant: f"write {truth}, without quotes"
        for truth, words in (("true", "true yes on y 1"), ("false", "false no off n 0"))
        for meant in words.split()
    }
    raise slot.wrong("true or false", hints.get(word))


def number(slot: Slot) -> float:
    """A finite decimal number."""
    node = slot.node
    if not isinstance(node, Scalar) or node.number is None:
        raise slot.wrong("a number", _without_quotes(node) or "write a plain decimal number such as 0.95")
    slot.within(node.number, 0.0, 1e6)
    return float(node.number)


def _without_quotes(node: Node) -> str | None:
    """A hint for a number in quotes."""
    if isinstance(node, Scalar) and not node.plain and node._replace(plain=True).number is not None:
        return f"write {node.text} without quotes"
    return None


def count(slot: Slot) -> int:
    """A whole number, `8k` or `128K`."""
    node = slot.node
    if not isinstance(node, Scalar) or _without_quotes(node):
        raise slot.wrong("a count", _without_quotes(node) or f"write {COUNT_FORM}")
    if node.text != node.text.strip():
        raise slot.wrong("a count", "leave out the spaces around it")
    if re.match("0[0-9]", node.text):
        raise slot.wrong("a count", "some YAML readers take a leading 0 for octal; write it without")
    try:
        value = parse_count(node.text)
    except ValueError:
        raise slot.wrong("a count", f"write {COUNT_FORM}") from None
    except OverflowError:
        value = MAX_COUNT + 1
    slot.within(value, 1, MAX_COUNT)
    return value


def count_or_auto(slot: Slot) -> int | None:
    """A count, or `auto` for None."""
    return None if isinstance(slot.node, Scalar) and slot.node.text == "auto" else count(slot)


def size(slot: Slot) -> int:
    """Bytes; a bare 0 needs no unit."""
    zero = isinstance(slot.node, Scalar) and slot.node.plain and slot.node.text == "0"
    value = 0 if zero else _bytes(slot)
    slot.within(value, 0, MAX_SIZE)
    return value


def _bytes(slot: Slot) -> int:
    node = slot.node
    if not isinstance(node, Scalar):
        raise slot.wrong("a size", f"write {SIZE_FORM}")
    try:
        return parse_size(node.text)
    except OverflowError:
        return MAX_SIZE + 1
    except ValueError:
        bare = node.number is not None
        hint = f"add the unit, for example {node.text}MiB" if bare else f"write {SIZE_FORM}"
        raise slot.wrong("a size", hint) from None


def shm_size(slot: Slot) -> str:
    """A size in Docker's spelling, where g is 2^30 bytes: `1g`, `512m`."""
    word = slot.node.text if isinstance(slot.node, Scalar) else ""
    docker = re.fullmatch("([0-9]{1,15})([kKmMgG])", word)
    value = int(docker[1]) << {"k": 10, "m": 20, "g": 30}[docker[2].lower()] if docker else _bytes(slot)
    if not 0 < value <= MAX_SIZE:
        raise slot.wrong("a size above 0 that a machine can have", "write for example 1g")
    for letter, shift in (("g", 30), ("m", 20), ("k", 10)):
        if value % (1 << shift) == 0:
            return f"{value >> shift}{letter}"
    return f"{value}b"


def gpus(slot: Slot) -> str | tuple[str, ...]:
    """`all`, or device ids."""
    node = slot.node
    if isinstance(node, Scalar) and node.text == "all":
        return "all"
    if not isinstance(node, List):
        ids = [i.strip() for i in node.text.split(",")] if isinstance(node, Scalar) else []
        example = ", ".join(ids) if ids and all(i.isalnum() for i in ids) else "0, 1"
        raise slot.wrong("`all` or a list of device ids", f"write [{example}]")
    found = []
    for item in node.items:
        if not isinstance(item, Scalar) or type(item.value) not in (str, int) or not re.fullmatch(DEVICE_ID, item.text):
            raise slot.wrong("a list of device ids", "write for example [0, 1]", item)
        found.append(line(slot._replace(node=item)))
    if not found:
        raise slot.refused(f"{slot.path} is an empty list", "write `all`, or the device ids")
    if len(set(found)) < len(found):
        raise slot.refused(f"{slot.path} names a device twice", "write each id once")
    return tuple(found)


def mounts(slot: Slot) -> tuple[MountSpec, ...]:
    """A list of `SOURCE:TARGET` and `SOURCE:TARGET:ro`."""
    if not isinstance(slot.node, List):
        raise slot.wrong("a list", "write for example [/srv/adapters:/adapters:ro]")
    found: list[MountSpec] = []
    problems: list[Problem] = []
    for item in slot.node.items:
        try:
            mount = _mount(slot._replace(node=item))
        except SpecError as error:
            problems += error.problems
            continue
        if mount.target in (one.target for one in found):
            hint = "give each path of the container one source"
            problems.append(Problem(f"{slot.path} names {mount.target} twice", hint, item.place))
        found.append(mount)
    if problems:
        raise SpecError(problems[0].message, problems=problems)
    return tuple(found)


def _mount(slot: Slot) -> MountSpec:
    """One mount; the source may hold colons, the target may not."""
    parts = re.fullmatch(MOUNT, line(slot))
    if parts is None:
        raise slot.wrong("a list of SOURCE:/TARGET", "write for example /srv/adapters:/adapters:ro")
    source, target = parts[1], posixpath.normpath(parts[2])
    if target.startswith("//") or target in KEPT:
        raise slot.refused(f"{slot.path} cannot lie on {parts[2]}", KEPT.get(target, "write one slash"))
    if "/" not in source and source not in (".", "..", "~") and not re.fullmatch(VOLUME, source, re.ASCII):
        hint = f"write ./{source} for a folder; a volume's name has letters, digits, dots and dashes"
        raise slot.refused(f"{source!r} is neither a folder nor the name of a volume", hint)
    return MountSpec(source, target, parts[3] == ":ro")


def flag(slot: Slot) -> Any:
    """True or false for a switch, else a number, a text or a tuple of them."""
    if isinstance(slot.node, List):
        return tuple(_flag_word(slot._replace(node=item)) for item in slot.node.items)
    return _flag_word(slot)


def _flag_word(slot: Slot) -> str | int | float | bool:
    if not isinstance(slot.node, Scalar) or slot.node.null:
        raise slot.wrong("a value", "write its value, `true` for a switch, or a list [a, b]")
    words = line(slot)
    value = slot.node.value
    return words if value is None else value


def variable(slot: Slot) -> str:
    """The value of a variable, exactly as written."""
    if not isinstance(slot.node, Scalar) or slot.node.null:
        raise slot.wrong("one value", 'write "" for an empty one')
    return line(slot, empty=True)


VALUES: Mapping[str, Callable[[Slot], Any]] = {
    "text": text,
    "choice": choice,
    "bool": boolean,
    "number": number,
    "count": count,
    "count_or_auto": count_or_auto,
    "size": size,
    "shm_size": shm_size,
    "gpus": gpus,
    "mounts": mounts,
}
"""How each kind that is one value is read; `schema.KINDS` says the same to an editor."""
