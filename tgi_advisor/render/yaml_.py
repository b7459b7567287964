"""YAML that reads the same in YAML 1.1 and 1.2.

PyYAML leaves a text bare when *its* reader would take it for text. Others read `1e3` or `0o17` as
numbers, so here a text stays bare only when it begins with a letter, holds nothing but harmless
characters and is no word any reader takes for a boolean or null; everything else is double-quoted. A character
that begins what looks like a template's mark is written as an escape (`marks`).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from tgi_advisor.marks import starts

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*", re.ASCII)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


class Block(str):
    """A text of several lines, written as they are where YAML can."""

    __slots__ = ()


class Reference(str):
    """A text that the platform fills in, written as it is."""

    __slots__ = ()


class Entry(str):
    """`NAME=value` in a list of variables."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Quotes defensively, never writes anchors, indents lists below their key."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        if marks := _marks(text):
            self.write_indicator(f'"{"".join(_escaped(one, at in marks) for at, one in enumerate(text))}"', True)
        else:
            super().write_double_quoted(text, split)


def _marks(text: str) -> list[int]:
    """Where something begins in a text that looks as if it was filled in, and is not."""
    if isinstance(text, Reference):
        return []
    value = text.index("=") + 1 if isinstance(text, Entry) else 0
    return [value + start for start in starts(text[value:])]


def _escaped(one: str, always: bool) -> str:
    """A character of a double-quoted text, as an escape where it has to be or `always`."""
    number = ord(one)
    if not always and one in '"\\':
        return f"\\{one}"
    if not always and one.isprintable() and number < 0x10000:
        return one
    return f"\\x{number:02X}" if number < 0x100 else f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    bare = _BARE.fullmatch(text) and text.lower() not in _WORDS and not _marks(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else '"')


def _reference(dumper: _Dumper, text: Reference) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


def _block(dumper: _Dumper, text: Block) -> yaml.ScalarNode:
    plain = all(one == "\n" or one.isprintable() for one in text)  # other line ends would become this one
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|" if plain else '"')


def _nothing(dumper: _Dumper, _: None) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:null", "null")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Block, _block)
_Dumper.add_representer(Reference, _reference)
_Dumper.add_representer(Entry, _text)
_Dumper.add_representer(type(None), _nothing)


def document(data: object) -> str:
    """One YAML document, keys in the order given, no line folded."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    return text
