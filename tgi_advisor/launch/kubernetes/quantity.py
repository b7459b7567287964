"""Kubernetes' quantities as numbers: `10Gi`, `500m`, `1e3` (apimachinery/pkg/api/resource/quantity.go). Pure."""

from __future__ import annotations

import re
from fractions import Fraction

_QUANTITY = re.compile(r"([+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30}))(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d{1,2}))?")
_BINARY: dict[str, int] = {unit: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def number(text: object) -> Fraction | None:
    """What a quantity is worth; None for what is none."""
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        return None
    if match[2]:
        return Fraction(match[1]) * _BINARY[match[2]]
    power = _DECIMAL[match[3]] if match[3] else int(match[4] or 0)
    return Fraction(match[1]) * Fraction(10**power if power >= 0 else 1, 1 if power >= 0 else 10**-power)


def worth(text: object) -> Fraction:
    """The same, and 0 for what is none."""
    return number(text) or Fraction(0)
