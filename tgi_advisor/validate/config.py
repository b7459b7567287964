"""Settings of `validate`: `[tool.tgi-advisor]` of a pyproject.toml, or a `.tgi-advisor.toml` of their own."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tgi_advisor.errors import Place, Problem, UsageError, did_you_mean
from tgi_advisor.validate.comments import is_code
from tgi_advisor.validate.rules.rule import FAILED

OWN_FILE = ".tgi-advisor.toml"
FILES = (OWN_FILE, "pyproject.toml")
"""Where settings are looked for, in the folder of a file and above it; the first of a folder wins."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is reported, and what the files cannot say. Every field can be set in the file and on the command line."""

    select: tuple[str, ...] = ()
    """Codes or beginnings of codes to report; empty for all."""
    ignore: tuple[str, ...] = ()
    """Codes or beginnings of codes not to report."""
    strict: bool = False
    """Whether warnings count as errors."""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders that are left out when a folder is searched."""
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Codes not to report, by pattern of files."""
    gpu: str | None = None
    """GPU, or cloud instance type, where the files run."""
    hardware: tuple[str, ...] = ()
    """What else is true of it, as assignments to the fields of a spec's `hardware`: `gpu.memory=64GiB`."""
    count: int | None = None
    """GPUs of that machine the container sees."""
    release: str | None = None
    """TGI release to go by where a file does not name one."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Images under other names that hold TGI, and the tag that its own image would have."""
    file: str = ""
    """Where they were read; empty when nowhere."""

    def reports(self, code: str) -> bool:
        """Whether findings of a code are reported, but for what a single file is excused.

        A defect of tgi-advisor itself is reported whatever is selected.
        """
        chosen = not self.select or code == FAILED or any(code.startswith(one) for one in self.select)
        return chosen and not any(code.startswith(one) for one in self.ignore)


NOTHING = Settings()
"""No settings."""


def read(text: str, file: str) -> Settings | None:
    """The settings in a file; None when a pyproject.toml has none. UsageError lists all that is wrong, with places."""
    own = not file.endswith("pyproject.toml")
    if not own and "tgi-advisor" not in text:
        return None
    table: Any = _toml(text, file)
    if not own:
        tool = table.get("tool")
        table = tool.get("tgi-advisor") if isinstance(tool, dict) else None
        if table is None:
            return None
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    known = {one.name.replace("_", "-"): one.name for one in fields(Settings) if one.name != "file"}
    for key, value in table.items() if isinstance(table, dict) else ():
        place = _place(text, file, key, own)
        if key not in known:
            hint = did_you_mean(key, known) or f"known are {', '.join(known)}"
            problems.append(Problem(f"{key!r} is no setting of tgi-advisor", hint, place))
            continue
        try:
            if key == "gpu" and isinstance(value, dict):
                values["hardware"] = (*_block(value), *values.get("hardware", ()))
                value = value.get("name")
            got = _KINDS[key](value)
            values[known[key]] = (*values.get("hardware", ()), *got) if key == "hardware" else got
        except ValueError as error:
            problems.append(Problem(f"{key}: {error}", None, place))
    if not isinstance(table, dict):
        problems.append(Problem("tool.tgi-advisor must be a table", None, _place(text, file, "tgi-advisor", own)))
    if problems:
        raise UsageError(f"the settings in {file} cannot be used", problems=problems)
    return Settings(**values, file=file)


def codes(values: Iterable[object]) -> tuple[str, ...]:
    """Codes and beginnings of codes, in capitals; ValueError names what no code begins with."""
    found = []
    for value in values:
        for word in filter(None, re.split(r"[\s,]+", value)) if isinstance(value, str) else (value,):
            if word in ("ALL", "all"):
                word = "TGI"
            if not isinstance(word, str) or not (is_code(word) or word == "TGI"):
                raise ValueError(f"no rule's code begins with {str(word)[:40]!r}; `tgi-advisor rule` lists them")
            found.append(word.upper())
    return tuple(found)


def _toml(text: str, file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or a number of thousands of digits
        found = re.search(r"line (\d+), column (\d+)", str(error))
        place = Place(file, int(found[1]), int(found[2])) if found else Place(file, 0, 0)
        said = re.sub(r" \(at .*\)$", "", str(error))
        raise UsageError(f"{file} is not TOML", problems=[Problem(said, None, place)]) from None
    return table


def _place(text: str, file: str, key: str, own: bool) -> Place:
    """Where a key stands, for a message; the file alone where that is not plain to see."""
    start = 0
    if not own:
        table = re.search(r"^[ \t]*\[[ \t]*tool[ \t]*\.[ \t]*[\"']?tgi-advisor\b", text, re.MULTILINE)
        start = table.start() if table else 0
    pattern = rf"(?:^|[\[.{{,])[ \t]*[\"']?({re.escape(key)})[\"']?[ \t]*[\].=]"
    found = re.compile(pattern, re.MULTILINE).search(text, start)
    if found is None:
        return Place(file, 0, 0)
    at = found.start(1)
    return Place(file, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError("expected a list of texts")
    return tuple(value)


def _codes(value: object) -> tuple[str, ...]:
    return codes(_texts(value))


def _by_file(value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise ValueError("expected a table of patterns, each with a list of codes")
    return {pattern: _codes(one) for pattern, one in value.items()}


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text")
    return value


def _block(value: dict[str, object]) -> tuple[str, ...]:
    """What a block states of a GPU beside its name."""
    rest = {key: one for key, one in value.items() if key != "name"}
    if not all(isinstance(one, (str, int, float)) for one in rest.values()):
        raise ValueError('expected a name, or a block such as {name = "cpu", memory = "64GiB"}')
    return tuple(f"gpu.{key}={one}" for key, one in rest.items())


def images(value: object) -> dict[str, str]:
    """Images and the tags of TGI's own they stand for; ValueError where one is none."""
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError('expected a table such as {"registry.example/llm" = "3.3.7"}')
    for name, tag in value.items():
        if not name or re.fullmatch(r"\d+\.\d+[\w.-]*", tag) is None:
            raise ValueError(
                f"{name[:80]!r} is said to be TGI {tag[:40]!r}: expected a release such as 3.3.7 or 3.3.7-rocm"
            )
    return dict(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1024:
        raise ValueError("expected a whole number from 1 to 1024")
    return value


_KINDS: dict[str, Callable[[object], Any]] = {
    "select": _codes, "ignore": _codes, "strict": _flag, "exclude": _texts, "per-file-ignores": _by_file,
    "gpu": _text, "hardware": _texts, "count": _number, "release": _text,
    "images": images,
}  # fmt: skip
