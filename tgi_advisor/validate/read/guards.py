"""What a condition says of the variables in it: behind `[ "$X" != "default" ]`, X is not `default`.

A value that a condition rules out is not the one that the words behind it are given. Only comparisons of a
variable with a literal are read; any other condition says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tgi_advisor.validate.found import whole_number
from tgi_advisor.validate.read.words import Variable


class Test(NamedTuple):
    """One comparison of a variable."""

    name: str
    """The variable."""
    holds: bool | None
    """Whether the comparison holds for the value that is known; None where that cannot be said."""


_REFERENCE = (
    r"(?P<q>[\"'])?(?P<x>[xX]?)(?:\$\{?(?:env:)?(?P<name>[A-Za-z_]\w*)(?::?[-=](?P<default>[^{}]*))?(?P<cut>[^{}\s\"']*)\}?"
    r"|%(?P<batch>\w+)%|!(?P<late>\w+)!)(?(q)(?P=q))"
)
_LITERAL = r"(?P<literal>\"[^\"\n$]*\"|'[^'\n]*'|[^\s\"'\])(;&|{}$]+)"
_COMPARED = re.compile(
    rf"(?P<not>(?:!|(?<!\w)not|-not)[ \t]*(?:\(|\[\[?|test\b)?[ \t]*)?{_REFERENCE}[ \t]*"
    rf"(?P<sign>!=|==|=~|=|-(?:i|c)?(?:eq|ne|gt|ge|lt|le|like|notlike|match|notmatch)|<=|>=|<|>|EQU|NEQ|GTR|GEQ|LSS|LEQ)"
    rf"[ \t]*{_LITERAL}",
    re.IGNORECASE,
)
_FILLED = re.compile(rf"(?P<not>!?)[ \t]*-(?P<sign>[nz])[ \t]+{_REFERENCE}")
_ALONE = re.compile(rf"\[\[?[ \t]+(?P<not>!?)[ \t]*{_REFERENCE}[ \t]+\]")
_SAME = ("=", "==", "-eq", "-ieq", "-ceq", "equ", "-like")
_OTHER = ("!=", "-ne", "-ine", "-cne", "neq", "-notlike")
_ORDER = {"-gt": ">", "-ge": ">=", "-lt": "<", "-le": "<=", "gtr": ">", "geq": ">=", "lss": "<", "leq": "<="}


def shell_tests(condition: str, variables: Mapping[str, Variable]) -> Iterator[Test]:
    """The comparisons in a condition of a shell, of PowerShell or of a batch file."""
    for found in (one for kind in (_COMPARED, _FILLED, _ALONE) for one in kind.finditer(condition)):
        name = found["name"] or found["batch"] or found["late"]
        value = _value(name, found["default"], variables)
        if value is None or found["cut"]:
            yield Test(name, None)
            continue
        given = found.groupdict()
        literal = given.get("literal", "").strip("\"'")
        if literal[:1].lower() == "x" and found["x"]:  # `x$A` = `xfoo`
            literal = literal[1:]
        holds = _compared(value, given.get("sign", "n").lower(), literal)
        yield Test(name, holds if holds is None or not (found["not"] or "").strip() else not holds)


def _value(name: str, default: str | None, variables: Mapping[str, Variable]) -> str | None:
    """What a reference holds as far as it is known; a variable that nothing sets is empty, and has its default."""
    held = variables.get(name)
    if held is not None and not held.known:
        return None
    text = held.text if held is not None else ""
    return text or (default or "").strip("\"'")


def _compared(value: str, sign: str, literal: str) -> bool | None:
    """Whether a comparison holds."""
    if sign in "nz":
        return bool(value) == (sign == "n")
    if sign in _SAME or sign in _OTHER:
        if "*" in literal or "?" in literal:
            return None
        same = value == literal or (value.isdigit() and literal.isdigit() and int(value) == int(literal))
        return same == (sign in _SAME)
    return order(value, _ORDER.get(sign, sign), literal)


def order(value: str, sign: str, literal: str) -> bool | None:
    """Whether `value < literal` (or another sign) holds; None where they are no whole numbers."""
    left, right = whole_number(value), whole_number(literal)
    if left is None or right is None or sign not in ("<", "<=", ">", ">="):
        return None
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def behind(condition: str, variables: Mapping[str, Variable], wanted: bool) -> set[str]:
    """The variables whose value a condition rules out: it does not hold (or does, where it must not) with that."""
    return {one.name for one in shell_tests(condition, variables) if one.holds is not wanted}


_OTHERWISE = re.compile(r"\|\||\belse\b")


def before(line: str, variables: Mapping[str, Variable]) -> set[str]:
    """The variables whose value is ruled out for a command by what stands before it on its line
    (`[ "$X" != none ] && docker run ...`).
    """
    found: set[str] = set()
    for kind in (_COMPARED, _FILLED, _ALONE):
        for one in kind.finditer(line):
            rest = line[one.end() :]
            if re.search(r"&&|\|\||\b(?:then|else)\b|[{(]", rest) or one["batch"] or one["late"]:
                found |= behind(one[0], variables, _OTHERWISE.search(rest) is None)
    return found
