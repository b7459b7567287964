"""A figure as a PNG or SVG file."""

from __future__ import annotations

import io
import math
from typing import Any, Literal

from tgi_advisor.errors import UsageError
from tgi_advisor.pictures.figure import Figure, Fits
from tgi_advisor.pictures.terminal import INSTALL

CROWDED = 90
"""Characters of all steps in words that do not fit side by side."""
LABELS = 24
"""Steps that are named under a picture: of more, every second, third, …."""
COLOURS = 10
"""Lines after which the colours come again."""
MARKERS = "osD^vP*X"
"""What points are made of, so that lines of one colour can be told apart."""
SHORT, REFUSED = "firebrick", "dimgray"
"""Colours of what does not fit, and of what is refused."""
FileKind = Literal["png", "svg"]


def render(figure: Figure, kind: FileKind) -> bytes:
    """The bytes of a picture, the same for the same figure; UsageError where the library is not installed."""
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise UsageError("drawing needs the extra `plots`", f"{INSTALL}; the table is printed without it.") from None
    with matplotlib.rc_context({"svg.hashsalt": "tgi-advisor", "svg.fonttype": "none", "font.size": 10}):
        canvas = Canvas(figsize=(10, 5.5), layout="constrained")
        axes = canvas.subplots()
        places = range(len(figure.steps))
        if figure.stacked:
            colours = matplotlib.colormaps["tab20"]
            bottom = [0.0] * len(figure.steps)
            for number, one in enumerate(figure.series):
                values = [value or 0.0 for value in one.values]
                axes.bar(places, values, bottom=bottom, label=one.name, width=0.75, color=colours(number % 20))
                bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        else:
            several = len(figure.series) > 1
            for number, one in enumerate(figure.series):
                values = [float("nan") if value is None else value for value in one.values]
                marker = MARKERS[number // COLOURS % len(MARKERS)]
                (line,) = axes.plot(places, values, marker=marker, label=one.name if several else None)
                _ends(axes, one.fits, line.get_color(), f"{one.name} ")
        if figure.limit is not None:
            label = f"{figure.limit_label}: {figure.limit:.2f} GiB"
            axes.axhline(figure.limit, color="black", linewidth=1.2, label=label)
        else:
            known = [(height, place) for place, height in enumerate(figure.limits) if height is not None]
            if known:
                heights, at = zip(*known, strict=True)
                left, right = [place - 0.45 for place in at], [place + 0.45 for place in at]
                axes.hlines(heights, left, right, color="black", linewidth=1.2, label=figure.limit_label)
        _ends(axes, figure.fits, SHORT, "")
        for number in figure.fits.refused:
            axes.text(number, figure.top / 50, "refused", rotation=90, ha="center", va="bottom", color=REFUSED)
        axes.set_title(figure.title)
        meant = {"red: does not fit": figure.fits.short, "grey: refused": figure.fits.refused}
        told = ", ".join(words for words, numbers in meant.items() if numbers)
        axes.set_xlabel(f"{figure.x_label} ({told})" if told else figure.x_label)
        axes.set_ylabel(figure.y_label)
        crowded = max(map(len, figure.steps)) * len(figure.steps) > CROWDED
        named = sorted({*places[:: math.ceil(len(figure.steps) / LABELS)], *figure.fits.named})
        axes.set_xticks(
            named, [figure.steps[place] for place in named], rotation=45 if crowded else 0,
            ha="right" if crowded else "center",
        )  # fmt: skip
        for place, word in zip(named, axes.get_xticklabels(), strict=True):
            if place in figure.fits.short or place in figure.fits.refused:
                word.set_color(SHORT if place in figure.fits.short else REFUSED)
        axes.set_ylim(0, figure.top)
        axes.set_xlim(-0.5, len(figure.steps) - 0.5)
        axes.yaxis.set_major_formatter("{x:,.10g}")
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            canvas.legend(handles[::-1], labels[::-1], loc="outside right upper", frameon=False)
        out = io.BytesIO()
        metadata = {"Date": None, "Creator": "tgi-advisor"} if kind == "svg" else {"Software": "tgi-advisor"}
        canvas.savefig(out, format=kind, dpi=120, metadata=metadata)
    return out.getvalue()


def _ends(axes: Any, fits: Fits, colour: Any, name: str) -> None:
    """Lines behind the first steps that do not fit, and before the last."""
    if fits.up_to is not None:
        axes.axvline(fits.up_to + 0.5, color=colour, linestyle=":", label=f"{name}does not fit up to here")
    if fits.stops_at is not None:
        axes.axvline(fits.stops_at - 0.5, color=colour, linestyle="--", label=f"{name}does not fit from here on")
