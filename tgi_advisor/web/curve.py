"""The curve of requests at once against context, as places on a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tgi_advisor.units import thousands

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 20, 54
"""Margins, in units of the picture."""


@dataclass(frozen=True)
class Dot:
    """A point of the curve."""

    x: float
    """Place from the left."""
    y: float
    """Place from the top."""
    says: str
    """What it means, in words."""
    label: str = ""
    """Text of an axis."""


@dataclass(frozen=True)
class Curve:
    """A picture of a line on two logarithmic axes."""

    dots: tuple[Dot, ...]
    """The steps of the sweep that start."""
    own: Dot | None
    """The visitor's own choice; None where it does not start."""
    across: tuple[Dot, ...]
    """Marks of the context axis."""
    up: tuple[Dot, ...]
    """Marks of the requests axis."""
    says: str
    """The picture in a sentence."""

    @property
    def line(self) -> str:
        """The points of the line, as SVG writes them."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


def curve(points: Sequence[tuple[int, int]], own: tuple[int, int] | None) -> Curve | None:
    """The picture of (context, requests at once) pairs; None where fewer than two start."""
    if len(points) < 2:
        return None
    everything = [*points, *([own] if own else [])]
    low, high = min(x for x, _ in everything), max(x for x, _ in everything)
    most = max(2, *(y for _, y in everything))

    def place(context: int, requests: int, label: str = "") -> Dot:
        right = math.log(context / low) / math.log(high / low) if high > low else 0.0
        above = math.log(max(1, requests)) / math.log(most)
        said = f"{thousands(context)} tokens: {thousands(requests)} at once"
        x, y = LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - above * (HEIGHT - TOP - BOTTOM)
        return Dot(round(x, 1), round(y, 1), said, label)

    contexts = [1 << power for power in range(low.bit_length() - 1, high.bit_length()) if low <= 1 << power <= high]
    across = tuple(place(one, 1, f"{one >> 10}k" if one >= 1024 else str(one)) for one in contexts)
    tens = [step * 10**power for power in range(len(str(most))) for step in (1, 2, 5) if step * 10**power <= most]
    up = tuple(place(low, one, thousands(one)) for one in (tens if len(tens) < 9 else tens[::3]))
    first, last = points[0], points[-1]
    says = (
        f"From {thousands(first[1])} requests at once with {thousands(first[0])} tokens each down to "
        f"{thousands(last[1])} with {thousands(last[0])}."
    )
    if own:
        says += f" Your choice: {thousands(own[1])} with {thousands(own[0])} tokens."
    return Curve(tuple(place(*one) for one in points), place(*own) if own else None, across, up, says)
