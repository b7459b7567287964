"""A figure on a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

from tgi_advisor.errors import UsageError
from tgi_advisor.pictures.figure import Figure

INSTALL = "pip install 'tgi-advisor[plots]'"
HEIGHT = 20
"""Lines of a chart."""


def draw(figure: Figure, width: int, *, colour: bool) -> str:
    """The figure in so many columns; UsageError where the library is not installed."""
    try:
        import plotext
    except ImportError:
        raise UsageError("drawing needs the extra `plots`", f"{INSTALL}; the table is printed without it.") from None
    plotext.clear_figure()
    plotext.limit_size(False, False)  # to the terminal that happens to be there
    plotext.title(figure.title)
    lines = (_bars if figure.stacked else _lines)(plotext, figure, width)
    text: str = plotext.build()
    return "\n".join([text if colour else plotext.uncolorize(text), *lines])


MARKS = "#=+:*o%@~x&$"
"""What the parts of a bar are made of, so that they can be told apart without colour."""
SHORT = "!"
"""What stands before a step that does not fit."""


def _bars(plotext: Any, figure: Figure, width: int) -> list[str]:
    """Bars from left to right, the first step on top; what their marks mean."""
    short = figure.fits.short
    steps = [f"{SHORT} {step}" if number in short else step for number, step in enumerate(figure.steps)][::-1]
    marks = [MARKS[number % len(MARKS)] for number in range(len(figure.series))]
    plotext.plotsize(width, 2 * len(steps) + 5)
    plotext.stacked_bar(
        steps, [[value or 0 for value in one.values[::-1]] for one in figure.series],
        marker=marks, orientation="h", width=0.5,
    )  # fmt: skip
    plotext.xlabel(figure.y_label)
    plotext.xlim(0, figure.top)
    ticks = _ticks(figure.highest)
    plotext.xticks(ticks, [f"{tick:,g}" for tick in ticks])
    if figure.limit is not None:
        plotext.vline(figure.limit)
    for number in figure.fits.refused:
        plotext.text(" refused", 0, len(steps) - number, alignment="left")
    parts = ", ".join(f"{mark} {one.name}" for mark, one in zip(marks, figure.series, strict=True))
    marked = f"; {SHORT} does not fit" if short else ""
    return textwrap.wrap(" ".join(filter(None, (f"{parts}{_limits(figure)}{marked}.", figure.said))), width)


def _limits(figure: Figure) -> str:
    """What the line is, or how high it would be at each step."""
    if figure.limit is not None:
        return f"; the line is {figure.limit_label}, {figure.limit:.2f} GiB"
    known = [f"{step} {height:.2f}" for step, height in zip(figure.steps, figure.limits, strict=False) if height]
    return f"; GiB of {figure.limit_label}: {', '.join(known)}" if known else ""


LINES = ("braille", "dot", "x", "o", "+", "*")
"""What lines are made of, so that they can be told apart without colour."""


def _lines(plotext: Any, figure: Figure, width: int) -> list[str]:
    """Points joined from step to step."""
    plotext.plotsize(width, HEIGHT)
    places = list(range(1, len(figure.steps) + 1))
    several = len(figure.series) > 1
    for number, one in enumerate(figure.series):
        known = [(place, value) for place, value in zip(places, one.values, strict=True) if value is not None]
        if not known:
            continue
        plotext.plot(
            [place for place, _ in known], [value for _, value in known], marker=LINES[number % len(LINES)],
            label=one.name if several else None,
        )  # fmt: skip
    plotext.xticks(places, list(figure.steps))
    plotext.xlim(1, len(figure.steps))
    plotext.ylim(0, figure.top)
    ticks = _ticks(figure.highest or 1, least=1)
    plotext.yticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    plotext.xlabel(figure.x_label)
    plotext.ylabel(figure.y_label)
    for place in (
        *(() if figure.fits.up_to is None else (figure.fits.up_to + 1.5,)),
        *(() if figure.fits.stops_at is None else (figure.fits.stops_at + 0.5,)),
    ):
        plotext.vline(place)
    nowhere = [one.name for one in figure.series if all(value is None for value in one.values)]
    said = f"Nothing is drawn of {' and of '.join(nowhere)}." if nowhere else ""
    return textwrap.wrap(" ".join(filter(None, (figure.said, said))), width)


def _ticks(highest: float, least: float = 0.001) -> list[float]:
    """Round numbers from 0 to `highest`, some five of them, no closer than `least`."""
    sizes = (digit * 10.0**power for power in range(-3, 20) for digit in (1, 2, 5))
    step = next(size for size in sizes if size >= least and size * 6 >= highest)
    return [step * number for number in range(int(highest / step + 1e-9) + 1)]
