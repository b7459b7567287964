"""A tree of nodes becomes the values of records, and everything wrong with it is noted on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import Field
from types import MappingProxyType
from typing import Any

from tgi_advisor.errors import Place, Problem, SpecError, did_you_mean, listed
from tgi_advisor.safe import looks_secret
from tgi_advisor.spec.records import AUTO, EMPTY, ENV_NAME, Bound, GpuSpec, all_settings, flag_homes, settings
from tgi_advisor.spec.tree import List, Map, Node, Scalar, described, shown
from tgi_advisor.spec.values import KEEP_OUT, VALUES, Slot, count, flag, text, variable

FLAG_NAME = r"(--)?[a-z0-9]+([-_][a-z0-9]+)*"
"""A launcher flag in any spelling that is read."""
CONFIDENTIAL = (
    r"^(?!HF_HUB_DISABLE_IMPLICIT_TOKEN$)(.*_)?"
    r"(API_?KEY|ACCESS_KEY|TOKEN|AUTHTOKEN|SECRET|PASSWORD|CREDENTIALS?)$"
)
"""A variable that holds a secret, by its name; flags are compared by the name of their variable."""
GUESSES = 100
"""Problems after which an unknown key gets no guess."""


def flag_name(written: str) -> str:
    """`--max_batch_size` -> `max-batch-size`; a text that is no flag's name comes back unchanged."""
    return written.removeprefix("--").replace("_", "-") if re.fullmatch(FLAG_NAME, written) else written


def env_name(flag: str) -> str:
    """The variable the launcher reads a flag from: `max-batch-size` -> `MAX_BATCH_SIZE`."""
    return flag.upper().replace("-", "_")


class Reading:
    """What has been found so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.broken: set[str] = set()
        """Paths that were given but have no value, because it was wrong."""
        self.places: dict[str, Place] = {}

    def add(self, where: Place, message: str, hint: str | None = None) -> None:
        """Notes a problem."""
        self.problems.append(Problem(message, hint, where))

    def attempt(self, read: Callable[[Slot], Any], slot: Slot) -> Any:
        """What `read` makes of the slot, or None with its problems noted."""
        try:
            return read(slot)
        except SpecError as error:
            self.problems += error.problems
            self.broken.add(slot.path)
            return None

    def section(self, record: type[Any], node: Node, path: str = "") -> dict[str, Any]:
        """The well-formed values given for the fields of a record, by name."""
        known = settings(record)
        given = self.entries(Slot(node, path, {}), f"a section with {listed(list(known), 'and')}")
        if given is None:
            return {}
        dot = f"{path}." if path else ""
        for name, (key, _) in given.items():
            if name not in known:
                # A guess takes a millisecond; a file of nothing but unknown keys must not take minutes.
                hint = _where_to_write(name, known, path) if len(self.problems) < GUESSES else None
                self.add(key.place, f"unknown key {shown(name)}{_inside(path)}", hint)
        values: dict[str, Any] = {}
        for name, field in known.items():
            value: Node | None = None
            if name in given:
                key, value = given[name]
                self.places[dot + name] = key.place
            if value is None or (isinstance(value, Scalar) and value.null):
                if not field.metadata["required"]:
                    continue
                if field.metadata["kind"] != "section":
                    self.add(
                        self.places.get(dot + name) or self.places.get(path) or node.place,
                        f"{dot}{name} is required",
                        f"write {_yaml_path(dot + name, field.metadata['example'])}",
                    )
                    continue
                value = Map([], node.place)  # its own required fields are what is missing
            got = self.field(field, Slot(value, dot + name, field.metadata))
            if got is not None:
                values[name] = got
        return values

    def field(self, field: Field[Any], slot: Slot) -> Any:
        """The value of one field, or None when it is wrong (or means None)."""
        match field.metadata["kind"]:
            case "section":
                return self.record(type(field.metadata["default"]), slot)
            case "gpu":
                return self.gpu(slot)
            case "bound":
                return self.bound(slot)
            case "flags":
                return self.flags(slot)
            case "env":
                return self.env(slot)
            case kind:
                return self.attempt(VALUES[kind], slot)

    def record(self, record: type[Any], slot: Slot) -> Any:
        """A section as its record."""
        return record(**self.section(record, slot.node, slot.path))

    def entries(self, slot: Slot, what: str, same: Callable[[str], str] = str) -> dict[str, tuple[Scalar, Node]] | None:
        """The entries of a mapping by name, each once; None (and noted) when it is no mapping."""
        if not isinstance(slot.node, Map):
            self.add(slot.node.place, f"{slot.path or 'the spec'} must be {what}, got {described(slot.node)}")
            self.broken.add(slot.path)
            return None
        found: dict[str, tuple[Scalar, Node]] = {}
        for key, value in slot.node.entries:
            name = same(key.text)
            if name == "<<":
                self.add(key.place, f"merge keys (<<) are not read{_inside(slot.path)}", "write the fields out")
            elif name in found:
                before = found[name][0].place
                line = f" (first on line {before.line})" if before.line else ""
                self.add(key.place, f"{shown(key.text)}{_inside(slot.path)} is given twice{line}", "keep one of them")
            else:
                found[name] = key, value
        return found

    def gpu(self, slot: Slot) -> GpuSpec | None:
        """A name, or a block."""
        if isinstance(slot.node, Map):
            return self.record(GpuSpec, slot)  # type: ignore[no-any-return]
        if isinstance(slot.node, List):
            hint = "write its name once, and how many there are as hardware.count"
            self.add(slot.node.place, f"{slot.path} must be one GPU, got a list", hint)
            return None
        name = self.attempt(text, slot)
        return None if name is None else GpuSpec(name)

    def bound(self, slot: Slot) -> Bound | None:
        """A count, `auto` or `{min: , max: }`."""
        if isinstance(slot.node, List):
            what, hint = "a count, `auto` or {min: , max: }", "write for example {min: 2k, max: 32k}"
            self.problems += slot.wrong(what, hint).problems
            return None
        if isinstance(slot.node, Scalar):
            if slot.node.text == "auto":
                return AUTO
            value = self.attempt(count, slot)
            return None if value is None else Bound(value, value)
        ends: dict[str, int | None] = {"min": None, "max": None}
        for name, (key, value) in (self.entries(slot, "a range") or {}).items():
            if name not in ends:
                self.add(key.place, f"unknown key {shown(name)}{_inside(slot.path)}", "known here: min, max")
            elif not (isinstance(value, Scalar) and value.null):
                ends[name] = self.attempt(count, Slot(value, f"{slot.path}.{name}", slot.meta))
        return Bound(ends["min"], ends["max"])

    def flags(self, slot: Slot) -> Mapping[str, Any]:
        """Launcher flags by their own names, as `max-batch-size`."""
        homes = flag_homes()
        flags: dict[str, Any] = {}
        for name, (key, value) in (self.entries(slot, "a mapping of launcher flags", flag_name) or {}).items():
            self.places[f"{slot.path}.{name}"] = key.place
            if name in homes:
                self.add(key.place, f"--{name} has a field of its own", f"write it as {homes[name]}")
            elif not re.fullmatch(FLAG_NAME, key.text):
                near = flag_name(key.text.lower())
                hint = f"write {near if re.fullmatch(FLAG_NAME, near) else 'for example max-batch-size'}"
                self.add(key.place, f"{shown(key.text)} is not the name of a launcher flag", hint)
            elif re.fullmatch(CONFIDENTIAL, env_name(name)):
                self.add(key.place, f"--{name} is a secret, and a command is readable by others", KEEP_OUT)
            else:
                flags[name] = self.attempt(flag, Slot(value, f"{slot.path}.{name}", {}))
        return MappingProxyType(flags) if flags else EMPTY

    def env(self, slot: Slot) -> Mapping[str, str]:
        """Variables and their values, exactly as written."""
        homes = {env_name(flag): home for flag, home in flag_homes().items()}
        env: dict[str, str] = {}
        for name, (key, value) in (self.entries(slot, "a mapping of variables") or {}).items():
            self.places[f"{slot.path}.{name}"] = key.place
            if not re.fullmatch(ENV_NAME, name) or looks_secret(name):
                self.add(key.place, f"{shown(name)} is not the name of a variable", "write NAME: value")
            elif re.fullmatch(CONFIDENTIAL, name.upper()):
                self.add(key.place, f"{name} is a secret, and a spec is no place for one", KEEP_OUT)
            elif name in homes:
                self.add(key.place, f"{name} has a field of its own", f"write it as {homes[name]}")
            else:
                env[name] = self.attempt(variable, Slot(value, f"{slot.path}.{name}", {}))
        return MappingProxyType(env) if env else EMPTY


def _inside(path: str) -> str:
    """` under tgi.flags`, or nothing at the top."""
    return f" under {path}" if path else ""


def _yaml_path(path: str, value: str) -> str:
    """How to write a field in one line: `hardware: {gpu: nvidia-l4}`."""
    first, _, rest = path.partition(".")
    return f"{first}: {{{rest.replace('.', ': {')}: {value}{'}' * (rest.count('.') + 1)}"


def _where_to_write(name: str, known: Mapping[str, Field[Any]], path: str) -> str:
    """What an unknown key was probably meant to be."""
    word = name[:64]
    if home := flag_homes().get(flag_name(word)):
        return f"write it as {home}"
    if elsewhere := [p for p, _ in all_settings() if p.rpartition(".")[2] == word]:
        return f"it belongs at {listed(elsewhere)}"
    if guess := did_you_mean(word, known):
        return guess
    if path == "tgi":
        return "launcher flags go under tgi.flags, variables under tgi.env"
    return f"known here: {', '.join(known)}"
