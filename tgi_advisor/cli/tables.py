"""What is known: GPUs, releases, models, launcher flags, each searchable and with its source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from tgi_advisor.cli.options import as_json

search = click.argument("words", nargs=-1, metavar="[WORD]...")


def _matches(words: Sequence[str], texts: Iterable[str]) -> bool:
    """Whether every word occurs in the texts, whatever the case."""
    whole = " ".join(texts).lower()
    return all(word.lower() in whole for word in words)


def _print(rows: list[dict[str, Any]], columns: Sequence[tuple[str, str]], as_json: bool, what: str) -> None:
    """The rows as a JSON list, or as an aligned table of the columns (key, heading)."""
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        click.echo(f"No {what} matches. Without words, everything is listed.", err=True)
        return
    cells = [[heading for _, heading in columns]] + [[_cell(row.get(key)) for key, _ in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        padded = (cell.ljust(size) for cell, size in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
    click.echo(f"\n{len(rows)} {what}. --json has everything, sources included.", err=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@click.command()
@search
@as_json
def gpus(words: tuple[str, ...], as_json: bool) -> None:
    """List the GPUs that are known, with their memory and cloud instances.

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
        ("name", "NAME"), ("memory_mib", "MEMORY MiB"), ("compute_capability", "CC"), ("fp16_tflops", "FP16 TFLOPS"),
        ("bandwidth_gb_s", "GB/s"), ("aliases", "ALSO KNOWN AS"),
    ]  # fmt: skip
    _print(rows, columns, as_json, "GPUs")


@click.command()
@search
@as_json
def releases(words: tuple[str, ...], as_json: bool) -> None:
    """List the TGI releases that are known and what matters for memory in each."""
    from tgi_advisor.facts import release as table

    rows = []
    for release in table.all_releases():
        if not _matches(words, (release.name, release.date)):
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
        ("version", "RELEASE"), ("date", "DATE"), ("wiggle_room", "ROOM"), ("of", "OF"), ("chunking", "CHUNKING"),
        ("cuda_graphs", "GRAPHS"), ("prefill_logits", "PREFILL LOGITS"), ("attention", "ATTENTION"),
    ]  # fmt: skip
    _print(rows, columns, as_json, "releases")


@click.command()
@search
@as_json
def models(words: tuple[str, ...], as_json: bool) -> None:
    """List the models whose facts are shipped: they need no network and no token.

    Any other model works too: by its Hub id, or as a local folder.
    """
    from tgi_advisor.gather import snapshot
    from tgi_advisor.units import gib

    rows = [row for row in map(_model_row, snapshot.listing()) if _matches(words, (str(v) for v in row.values()))]
    if not as_json:
        for row in rows:
            row["size"] = gib(row["stored_bytes"])
            row["billions"] = f"{row['parameters'] / 1e9:.1f}"
    columns = [
        ("id", "MODEL"), ("model_type", "TYPE"), ("billions", "10^9 ELEMENTS"), ("size", "WEIGHTS"),
        ("quantization", "QUANTIZED"), ("context_length", "CONTEXT"), ("gated", "GATED"),
    ]  # fmt: skip
    _print(rows, columns, as_json, "models")


def _model_row(model: Any) -> dict[str, Any]:
    return dict(model._asdict())


@click.command()
@search
@click.option("--release", "-r", metavar="X.Y.Z", default="latest", show_default=True, help="TGI release.")
@as_json
def flags(words: tuple[str, ...], release: str, as_json: bool) -> None:
    """List the launcher flags and environment variables of a TGI release."""
    from tgi_advisor.facts import flags as table
    from tgi_advisor.facts.release import find

    known = find(release)
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
            "source": flag.source,
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
    rows = [row for row in rows if _matches(words, (str(row["name"]), str(row["env"]), str(row["help"])))]
    columns = [
        ("name", "FLAG"),
        ("env", "ENVIRONMENT"),
        ("type", "TYPE"),
        ("default", "DEFAULT"),
        ("help", "WHAT IT DOES"),
    ]
    _print(rows, columns, as_json, f"flags and variables of TGI {known}")
