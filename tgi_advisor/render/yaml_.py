"""YAML that reads the same in YAML 1.1 and 1.2.

PyYAML leaves a text bare when *its* reader would take it for text. Others read `1e3` or `0o17` as
numbers, so here a text stays bare only when it begins with a letter, holds nothing but harmless
characters and is no word any reader takes for a boolean or null; everything else is double-quoted.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*", re.ASCII)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


class Block(str):
    """A text of several lines, written as they are where YAML can."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Quotes defensively, never writes anchors, indents lists below their key."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    bare = _BARE.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else '"')


def _block(dumper: _Dumper, text: Block) -> yaml.ScalarNode:
    plain = all(one == "\n" or one.isprintable() for one in text)  # other line ends would become this one
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|" if plain else '"')


def _nothing(dumper: _Dumper, _: None) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:null", "null")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Block, _block)
_Dumper.add_representer(type(None), _nothing)


def document(data: object) -> str:
    """One YAML document, keys in the order given, no line folded."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    return text
