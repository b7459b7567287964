"""What is known: GPUs, releases, models, launcher flags, each searchable and with its source."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from tgi_advisor import tabular
from tgi_advisor.cli import options
from tgi_advisor.cli.options import as_json
from tgi_advisor.cli.output import say, width
from tgi_advisor.tabular import Column, Table, Unit

search = click.argument("words", nargs=-1, metavar="[WORD]...")

Row = dict[str, Any]


class Shown(NamedTuple):
    """One column for people."""

    heading: str
    """What stands above it."""
    value: Callable[[Row], Any]
    """What of a row stands below it; a list is joined."""
    unit: Unit = "text"
    """What it is."""


def _matches(words: Sequence[str], texts: Iterable[object]) -> bool:
    """Whether every word occurs in the texts, whatever the case."""
    whole = " ".join(map(str, texts)).lower()
    return all(word.lower() in whole for word in words)


def _print(
    rows: list[Row], columns: Sequence[Shown], as_json: bool, one: str, many: str, words: Sequence[str],
    spare: Sequence[str] = (), known: Callable[[], Iterable[str]] = tuple,
) -> None:  # fmt: skip
    """The rows as a JSON list, or as an aligned table; the columns of `spare` go first where it is narrow.

    `known` gives the names that may have been meant where nothing matches.
    """
    if as_json:
        import json

        say(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        sources = [line for row in rows[:_FEW] for line in _where_from(row, len(rows))]
        say("\n".join([tabular.text(_table(rows, columns), width(), spare), *sources]))
        say(f"\n{len(rows)} {one if len(rows) == 1 else many}. --json has more, sources included.", err=True)
    else:
        near = _meant(words, known())
        said = f"No {one} matches {' '.join(words)!r}.{near} Without words, all are listed."
        say("\n".join(textwrap.wrap(said, width(), break_on_hyphens=False)), err=True)


def _meant(words: Sequence[str], known: Iterable[str]) -> str:
    """Names, or words of them, that are nearest to a word that none of them holds."""
    from tgi_advisor.errors import listed, nearest

    pieces: dict[str, None] = {}
    for name in known:
        parts = (name, *re.split(r"[/_ -]", name))
        pieces |= dict.fromkeys(part.lower() for part in parts if len(part) > 2)
    odd = next((word for word in words if not any(word.lower() in piece for piece in pieces)), None)
    near = nearest(odd, pieces) if odd else []
    return f" Did you mean {listed(near)}?" if near else ""


def _table(rows: list[Row], columns: Sequence[Shown]) -> Table:
    """The rows under the columns."""
    headings = tuple(Column(column.heading, column.heading, column.unit, "") for column in columns)
    return Table(headings, tuple(tuple(_joined(column.value(row)) for column in columns) for row in rows))


def _joined(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


_FEW = 3
"""Rows whose sources are shown below the table."""


def _where_from(row: Row, shown: int) -> list[str]:
    """The sources of one row, where only a few are shown."""
    if shown > _FEW:
        return []
    stated = row.get("sources") or [row[key] for key in ("provenance", "source") if row.get(key)]
    if isinstance(stated, Mapping):
        stated = [f"{name}: {text}" for name, text in stated.items()]
    texts = [stated] if isinstance(stated, str) else stated
    name = next(iter(row.values()))
    lines = [textwrap.wrap(str(text), width() - 4, break_on_hyphens=False, break_long_words=False) for text in texts]
    return ["", f"Source of {name}:", *(f"  {line}" for wrapped in lines for line in wrapped)]


def _of(key: str) -> Callable[[Row], Any]:
    return lambda row: row[key]


@click.command()
@search
@as_json
def gpus(words: tuple[str, ...], as_json: bool) -> None:
    """List the known GPUs and the cloud instances that carry them.

    A word may be part of a name, of what nvidia-smi prints, or of a cloud instance type.

    \b
    Examples:
      tgi-advisor gpus a100
      tgi-advisor gpus g6 --json
    """
    from tgi_advisor.facts.gpu import all_gpus
    from tgi_advisor.units import MiB

    rows = []
    for row in all_gpus():
        facts = row.facts
        kinds = [kind for kind, _ in row.instances]
        if not _matches(words, (row.name, row.vendor, *row.smi_names, *row.aliases, *kinds)):
            continue
        capability = facts.compute_capability if facts else None
        rows.append(
            {
                "name": row.name,
                "memory_mib": facts.memory_bytes // MiB if facts else None,
                "cuda_total_bytes": facts.cuda_total_bytes if facts else None,
                "compute_capability": ".".join(map(str, capability)) if capability else None,
                "fp16_tflops": facts.fp16_tflops if facts else None,
                "bandwidth_gb_s": facts.bandwidth // 10**9 if facts and facts.bandwidth else None,
                "system": facts.system if facts else None,
                "aliases": list(row.aliases),
                "nvidia_smi_names": list(row.smi_names),
                "instances": dict(row.instances),
                "note": row.note or None,
                "sources": list(row.sources),
            }
        )
    columns = [
        Shown("NAME", _of("name")), Shown("MEMORY MiB", _of("memory_mib"), "count"),
        Shown("CC", _of("compute_capability"), "figure"), Shown("FP16 TFLOPS", _of("fp16_tflops"), "figure"),
        Shown("GB/s", _of("bandwidth_gb_s"), "count"),
        Shown("INSTANCE TYPES", lambda row: [f"{kind} ({count})" for kind, count in row["instances"].items()]),
    ]  # fmt: skip
    if not words:
        columns[-1] = Shown("ALSO KNOWN AS", _of("aliases"))
    names = [name for row in all_gpus() for name in (row.name, *row.aliases)]
    _print(rows, columns, as_json, "GPU", "GPUs", words, known=lambda: names)


@click.command()
@search
@as_json
def releases(words: tuple[str, ...], as_json: bool) -> None:
    """List the TGI releases and what matters for memory in each.

    A word may begin a version (3.3) or be part of a date.

    \b
    ROOM       share of memory TGI plans with: of what is free at the peak,
               or of the total
    CHUNKING   whether long prompts are prefilled in pieces
    GRAPHS     CUDA graphs: none, opt_in, or by default
    LOGITS     of a prefill: two_copies or in_place for every token; flag: for
               the last token alone, unless --enable-prefill-logprobs asks for all
    ATTENTION  back ends, the preferred one first
    """
    from tgi_advisor.facts import release as table

    rows = []
    for release in table.all_releases():
        if not all(release.name.startswith(word) or word in release.date for word in words):
            continue
        rows.append(
            {
                "version": release.name,
                "date": release.date,
                "commit": release.commit,
                "wiggle_room": release.wiggle,
                "of": release.wiggle_of,
                "attention": list(release.attentions),
                "chunking": release.chunking,
                "cuda_graphs": release.cuda_graphs,
                "prefill_logits": release.prefill_logits,
                "limits_default": release.limits_default,
                "prefill_default": release.prefill_default,
                "quantize": list(release.quantize),
                "variants": list(table.variants(release)),
                "sources": dict(table.sources(release)),
            }
        )
    columns = [
        Shown("TGI", _of("version")), Shown("DATE", _of("date")),
        Shown("ROOM", lambda row: f"{row['wiggle_room']} of {row['of']}"), Shown("CHUNKING", _of("chunking")),
        Shown("GRAPHS", _of("cuda_graphs")), Shown("LOGITS", _of("prefill_logits")),
        Shown("ATTENTION", _of("attention")),
    ]  # fmt: skip
    _print(rows, columns, as_json, "release", "releases", words)


@click.command()
@search
@as_json
def models(words: tuple[str, ...], as_json: bool) -> None:
    """List the shipped models: no network and no token needed.

    A word may be part of an id, of another id of the same model, of its type or quantization. Any
    other model works too: by its Hub id, or as a local folder.
    """
    from tgi_advisor.gather import snapshot

    rows = [
        row._asdict()
        for row in snapshot.listing()
        if _matches(words, (row.id, *row.aliases, row.model_type, row.quantization))
    ]
    columns = [
        Shown("MODEL", _of("id")), Shown("TYPE", _of("model_type")),
        Shown("PARAMETERS", lambda row: f"{row['parameters'] / 1e9:.2f} B", "figure"),
        Shown("WEIGHTS GiB", _of("stored_bytes"), "bytes"), Shown("CONTEXT", _of("context"), "count"),
        Shown("GATED", _of("gated"), "flag"), Shown("QUANTIZED", _of("quantization")),
    ]  # fmt: skip
    _print(
        rows, columns, as_json, "model", "models", words, ("TYPE", "QUANTIZED", "GATED", "PARAMETERS"), snapshot.names
    )


@click.command()
@search
@options.release
@as_json
def flags(words: tuple[str, ...], release: str | None, as_json: bool) -> None:
    """List the launcher flags and variables of a TGI release.

    A word may be part of a name or of what it does.
    """
    from tgi_advisor.facts import flags as table
    from tgi_advisor.facts.release import find, latest

    known = find(release) if release else latest()
    rows = [
        {
            "name": f"--{flag.name}",
            "env": flag.env,
            "type": flag.type,
            "default": flag.effective or flag.default,
            "values": list(flag.values),
            "since": flag.since,
            "until": flag.until,
            "help": flag.help,
            "notes": list(flag.notes),
            "source": table.cited(flag, known),
        }
        for flag in table.flags_of(known).values()
    ]
    rows += [
        {
            "name": None, "env": variable.name, "type": variable.values, "default": variable.default, "values": [],
            "since": None, "until": None, "help": variable.meaning, "notes": [], "source": variable.source,
        }
        for variable in table.environment(known).values()
    ]  # fmt: skip
    rows = [row for row in rows if _matches(words, (row["name"] or "", row["env"], row["help"]))]
    columns = [Shown("FLAG OR VARIABLE", lambda row: row["name"] or row["env"]), Shown("WHAT IT DOES", _explained)]
    names = [*table.flags_of(known), *(name.lower() for name in table.environment(known))]
    _print(
        rows, columns, as_json, "flag or variable", f"flags and variables of TGI {known}", words, known=lambda: names
    )


def _explained(row: Mapping[str, Any]) -> str:
    """One text: what it does, what it takes, its default."""
    takes = ", ".join(row["values"]) or row["type"]
    default = f" Default: {row['default']}." if row["default"] not in (None, "") else ""
    return f"{row['help']} ({takes}){default}"
