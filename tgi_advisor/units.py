"""Bytes and token counts as people write them, read and written in one place.

GiB is 2^30 and GB is 10^9, always. For *token counts* `k`, `K`, `m` and `M` are powers of 1024,
because that is what model cards mean by an "8k" or "128K" context (8192, 131072).
"""

from __future__ import annotations

import re

KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12

_SIZES = {
    "b": 1, "kib": KiB, "mib": MiB, "gib": GiB, "tib": TiB, "kb": KB, "mb": MB, "gb": GB, "tb": TB,
}  # fmt: skip
_SIZE = r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*"
_COUNT = r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKmM]?)\s*"

SIZE_FORM = "a size such as 23034MiB, 24GiB or 24GB (GiB is 2^30 bytes, GB is 10^9)"
COUNT_FORM = "a count such as 4096, 8k or 128K (k is 1024, m is 1024 x 1024)"


def parse_size(text: str) -> int:
    """Bytes of `23034MiB`, `24 GB`, ...; ValueError when there is no unit or it is unknown."""
    match = re.fullmatch(_SIZE, text, re.ASCII)
    unit = _SIZES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"expected {SIZE_FORM}, got {text!r}")
    return round(float(match[1]) * unit)


def parse_count(text: str) -> int:
    """Tokens of `4096`, `8k` (8192) or `128K` (131072); ValueError otherwise."""
    match = re.fullmatch(_COUNT, text, re.ASCII)
    number = float(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2].lower()] if match else 0.5
    if number != int(number):
        raise ValueError(f"expected {COUNT_FORM}, got {text!r}")
    return int(number)


def gib(size: float) -> str:
    """Bytes as GiB with two decimals: `1.25 GiB`."""
    return f"{size / GiB:.2f} GiB"


def human(size: float) -> str:
    """Bytes in the largest binary unit that leaves a readable number: `216.2 MiB`, `14.96 GiB`."""
    for unit, name, digits in ((GiB, "GiB", 2), (MiB, "MiB", 1), (KiB, "KiB", 1)):
        if abs(size) >= unit:
            return f"{size / unit:.{digits}f} {name}"
    return f"{size:.0f} B"


def thousands(count: int) -> str:
    """`131,072`."""
    return f"{count:,}"
