"""What a row of the report means."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from tgi_advisor.cli import options
from tgi_advisor.cli.options import as_json
from tgi_advisor.cli.output import say, width

if TYPE_CHECKING:
    from tgi_advisor.facts.rows import Row


@click.command()
@options.row_name
@as_json
def explain(name: tuple[str, ...], as_json: bool) -> None:
    """Explain a row of the report.

    What it is, where its figure comes from, and what makes it smaller. Without a NAME all are explained;
    docs/how-it-works.md follows one report from row to row.

    \b
    Examples:
      tgi-advisor explain half-used segments
      tgi-advisor explain "KV cache" --json
    """
    from tgi_advisor.facts import rows

    found = [rows.find(" ".join(name))] if name else list(rows.all_rows())
    if as_json:
        import json

        say(json.dumps([row._asdict() for row in found], indent=2, ensure_ascii=False))
        return
    say("\n\n".join(_shown(row) for row in found))


def _shown(row: Row) -> str:
    """The row as people read it."""
    lines = [click.style(row.row, bold=True)]
    said = (("", row.means), ("From: ", row.comes), ("Less: ", row.less))
    for label, text in said:
        if text:
            below = "  " + " " * len(label)
            lines += textwrap.wrap(text, width(), initial_indent=f"  {label}", subsequent_indent=below)
    return "\n".join(lines)
