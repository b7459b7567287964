"""Tables of answers: for a terminal, a spreadsheet, a page, a notebook or a program, from one record."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any, Literal, NamedTuple

from tgi_advisor.safe import printable
from tgi_advisor.units import GiB, thousands

Unit = Literal["text", "figure", "count", "bytes", "money", "share", "flag"]

WIDE = 140
"""Columns for which an answer is written where nobody says how many there are."""
NARROWEST = 16
"""Columns of the terminal that a wrapped text is left at least."""


class Column(NamedTuple):
    """One column of a table."""

    key: str
    """Name of the value for programs: a key of JSON, a heading of CSV, a column of a data frame."""
    heading: str
    """What stands above it for people."""
    unit: Unit
    """What the values are: `bytes` are shown in GiB, `money` with two decimals or more, a `figure` as it is."""
    about: str
    """What it means, in a sentence."""


class Table(NamedTuple):
    """Rows of values under columns."""

    columns: tuple[Column, ...]
    """What the values of a row are, in their order."""
    rows: tuple[tuple[Any, ...], ...]
    """One value for every column; None where there is none."""


class Answer(ABC):
    """A record that answers a question with a table: readable as it is, in notebooks too."""

    @abstractmethod
    def table(self) -> Table:
        """The answer's rows."""

    @abstractmethod
    def text(self, width: int) -> str:
        """The answer as a terminal of so many columns shows it."""

    def nothing(self) -> str:
        """Why there is no row, in a sentence; empty where there are some."""
        return ""

    def records(self) -> list[dict[str, Any]]:
        """The rows as `pandas.DataFrame` takes them."""
        return records(self.table())

    def __repr__(self) -> str:
        return self.text(WIDE)

    def _repr_html_(self) -> str:
        why = self.nothing()
        return f"<p>{escape(printable(why))}</p>" if why else html(self.table())


def records(table: Table) -> list[dict[str, Any]]:
    """The rows as mappings of plain values (bytes, tokens, numbers), as `pandas.DataFrame` takes them."""
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def text(table: Table, width: int, spare: Sequence[str] = ()) -> str:
    """Aligned columns within `width`; columns that are empty all the way down are left out.

    Where that is not narrow enough, the columns of `spare` go one after the other, and then texts are wrapped.
    """
    from tabulate import tabulate

    shown = _narrowed(table, width, spare)
    cells = [[column.heading for column in shown.columns], *_cells(shown)]
    widest = _wrapped(shown.columns, cells, width)
    # tabulate 0.10 takes what it wraps for numbers, and fails on 1,024
    cells = [[_lines(cell, most) for cell, most in zip(row, widest, strict=True)] for row in cells]
    return tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=_alignment(shown.columns))


def _lines(cell: str, most: int | None) -> str:
    """A cell in lines of so many columns at most, words whole."""
    if most is None or len(cell) <= most:
        return cell
    return "\n".join(textwrap.wrap(cell, most, break_long_words=False, break_on_hyphens=False))


def fits(table: Table, width: int, spare: Sequence[str]) -> bool:
    """Whether `text` has nothing to wrap where the columns of `spare` may go."""
    return _width(_narrowed(table, width, spare)) <= width


def left_out(table: Table, width: int, spare: Sequence[str]) -> list[str]:
    """The headings of the columns that `text` leaves out because of the width."""
    kept = {column.key for column in _narrowed(table, width, spare).columns}
    return [column.heading for column in _without_empty(table).columns if column.key not in kept]


def _narrowed(table: Table, width: int, spare: Sequence[str]) -> Table:
    """The table without its empty columns, and without as many of `spare` as make it fit."""
    shown = _without_empty(table)
    for name in spare:
        if _width(shown) <= width:
            break
        shown = without(shown, {name})
    return shown


def comma_separated(table: Table) -> str:
    """RFC 4180 with plain values: tokens and bytes as whole numbers, nothing rounded, empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.key for column in table.columns)
    writer.writerows([_plain(value) for value in row] for row in table.rows)
    return out.getvalue().rstrip("\n")


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown."""
    from tabulate import tabulate

    shown = _without_empty(table)
    cells = [[text.replace("|", "\\|") for text in row] for row in _cells(shown)]
    headings = [column.heading.lower() for column in shown.columns]
    return tabulate(cells, headings, tablefmt="github", disable_numparse=True, colalign=_alignment(shown.columns))


def html(table: Table) -> str:
    """A table of a notebook."""
    from tabulate import tabulate

    shown = _without_empty(table)
    cells = _cells(shown)
    headings = [column.heading.lower() for column in shown.columns]
    return str(tabulate(cells, headings, tablefmt="html", disable_numparse=True, colalign=_alignment(shown.columns)))


COLOURS = ("#4e79a7", "#a0cbe8", "#f28e2b", "#ffbe7d", "#59a14f", "#8cd17d", "#e15759", "#ff9d9a", "#b07aa1", "#d4a6c8")


def bar(caption: str, parts: Sequence[tuple[str, int]], total: int, about: Mapping[str, str] | None = None) -> str:
    """Parts in bytes as a bar of a notebook, as wide as they are of `total`, with what each colour means.

    `about` has what the parts are, which shows where the pointer rests on their names.
    """
    told = about or {}
    known = [(name, size, COLOURS[number % len(COLOURS)]) for number, (name, size) in enumerate(parts) if size > 0]
    whole = max(total, sum(size for _, size, _ in known), 1)
    pieces = "".join(
        f'<span style="display:inline-block;height:1.4em;width:{100 * size / whole:.2f}%;background:{colour}"'
        f' title="{escape(name)}: {size / GiB:.2f} GiB"></span>'
        for name, size, colour in known
    )
    legend = " ".join(
        f'<span style="border-left:0.8em solid {colour};padding:0 0.8em 0 0.3em" title="{escape(told.get(name, ""))}">'
        f"{escape(name)} {size / GiB:.2f} GiB</span>"
        for name, size, colour in known
    )
    return f'<div><div>{escape(caption)}</div><div style="white-space:nowrap">{pieces}</div><div>{legend}</div></div>'


def constants(table: Table, names: Sequence[str]) -> tuple[Table, dict[str, Any]]:
    """The table without those of the named columns that say the same in every row, and what they say."""
    same: dict[str, Any] = {}
    for i, column in enumerate(table.columns):
        values = {row[i] for row in table.rows}
        if column.key in names and len(values) == 1:
            same[column.key] = values.pop()
    return without(table, same), same


def without(table: Table, names: Collection[str]) -> Table:
    """The table without the named columns."""
    kept = [i for i, column in enumerate(table.columns) if column.key not in names]
    return Table(tuple(table.columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in table.rows))


def _without_empty(table: Table) -> Table:
    """The table without the columns that hold nothing; one with no row keeps them all."""
    kept = [
        i for i in range(len(table.columns)) if not table.rows or any(row[i] not in (None, "") for row in table.rows)
    ]
    columns = tuple(table.columns[i] for i in kept)
    return Table(columns, tuple(tuple(row[i] for i in kept) for row in table.rows))


def _width(table: Table) -> int:
    """Columns of a terminal the table takes where nothing is wrapped."""
    cells = [[column.heading for column in table.columns], *_cells(table)]
    return sum(max(map(len, column)) + 2 for column in zip(*cells, strict=True)) - 2


def _cells(table: Table) -> list[list[str]]:
    """The values as people read them."""
    return [[_cell(value, column.unit) for value, column in zip(row, table.columns, strict=True)] for row in table.rows]


def _wrapped(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int | None]:
    """How wide each column may be: the widest texts give way until the row fits, then headings; no word or number does.

    `cells` are the rows as they are shown, the headings first.
    """
    widest: list[int | None] = [None] * len(columns)
    down = [list(column) for column in zip(*cells, strict=True)]
    sizes = [max(map(len, column)) for column in down]
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in down]
    texts = {i: max(NARROWEST, words[i]) for i, column in enumerate(columns) if column.unit == "text"}

    def over() -> int:
        return sum(sizes) + 2 * (len(sizes) - 1) - width

    while over() > 0 and (wide := [i for i in texts if sizes[i] > texts[i]]):
        most = max(wide, key=lambda i: sizes[i])
        second = max((sizes[i] for i in texts if i != most), default=NARROWEST)
        sizes[most] = max(texts[most], min(sizes[most] - 1, max(sizes[most] - over(), second - 1)))
        widest[most] = sizes[most]
    for i, column in enumerate(columns):
        if over() > 0 and column.unit != "text" and words[i] < sizes[i]:
            widest[i] = sizes[i] = max(words[i], *map(len, down[i][1:]))
    return widest


def _alignment(columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple("left" if column.unit in ("text", "flag") else "right" for column in columns)


def _cell(value: Any, unit: Unit) -> str:
    """A value as people read it."""
    if value is None or value == "":
        return "-"
    match unit:
        case "count":
            return thousands(value)
        case "bytes":
            return f"{value / GiB:.2f}"
        case "money":
            return _money(value)
        case "share":
            return f"{100 * value:.1f} %"
        case "flag":
            return "yes" if value else "no"
        case "text" | "figure":
            return printable(str(value))


def _money(value: float) -> str:
    """An amount with two decimals, or with as many as its first three figures take."""
    places = 2 if value >= 1 or value <= 0 else 2 - math.floor(math.log10(value))
    whole, _, decimals = f"{value:,.{places}f}".partition(".")
    return f"{whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def _plain(value: Any) -> Any:
    """A value as a spreadsheet takes it; a text that would be a formula there is not one."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
