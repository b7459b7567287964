"""Regenerate the facts of `tgi_advisor/facts/flags.yaml` and `flags_before.yaml` from a git checkout of TGI.

python scripts/refresh_flags.py PATH_TO_CHECKOUT            # rewrite the tables
python scripts/refresh_flags.py PATH_TO_CHECKOUT --check    # write nothing; exit 1 when one would change

`struct Args` of launcher/src/main.rs is parsed at every release tag, from 1.0.0 on for the one table, before it for
the other. What a machine can read (env, short, type, default, values, since, until, changes, source) is rewritten;
what a person wrote (help, same_as, effective, notes) is kept. A new flag appears with the help text `TODO`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tgi_advisor.facts import tables

LAUNCHER = "launcher/src/main.rs"
FIRST = "v1.0.0"
"""The first release of which more than the flags is known."""
WRITTEN = ("help", "same_as", "secret", "effective", "notes")
READ = ("env", "short", "type", "many", "delimiter", "optional", "default", "values")
SPAN = ("since", "until", "changes", "source")
HEAD = """\
# Every flag of text-generation-launcher, 1.0.0 to the newest release.
#
# Read from `struct Args` by scripts/refresh_flags.py: env, short, type, many, delimiter, optional,
# default, values, since, until, changes, source (path@tag:line of the newest release that has the flag).
# Written by hand and kept by the script: help, same_as, secret, effective, notes.
#
# A row holds what was true in its first release (`since`; 1.0.0 means "1.0.0 or earlier"); `changes`
# says from which release on a key has another value. `default` is the literal default of the command
# line parser; `effective` says, from which release on, what TGI makes of a flag that is not given.
"""
HEAD_BEFORE = """\
# Every flag of text-generation-launcher in the releases before 1.0.0, which are known by their flags alone.
#
# Read from `struct Args` by scripts/refresh_flags.py, as flags.yaml is; nothing here is written by hand.
"""


def main() -> int:
    """Rewrite the tables, or with --check only say whether they are up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a clone (bare or not) of huggingface/text-generation-inference")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the table would change")
    options = parser.parse_args()
    table = tables.FOLDER / "flags.yaml"
    old = tables.parse(table.read_bytes(), table.name) if table.exists() else {}
    every = tags(checkout := options.checkout)
    first = every.index(FIRST)
    texts = {
        table: written(HEAD, merged(facts(checkout, every[first:]), old)),
        table.with_name("flags_before.yaml"): written(HEAD_BEFORE, facts(checkout, every[:first])),
    }
    if options.check:
        return int(any(text != path.read_text("utf-8") for path, text in texts.items()))
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    return 0


def written(head: str, rows: dict[str, dict[str, Any]]) -> str:
    """A table as text."""
    return head + "".join(block(name, row) for name, row in sorted(rows.items()))


def facts(checkout: Path, of: list[str]) -> dict[str, dict[str, Any]]:
    """What the launcher's source says of every flag over these releases."""
    by_release = {tag[1:]: arguments(git(checkout, "show", f"{tag}:{LAUNCHER}"), tag) for tag in of}
    releases = list(by_release)
    rows: dict[str, dict[str, Any]] = {}
    for name in {name for flags in by_release.values() for name in flags}:
        having = [release for release in releases if name in by_release[release]]
        if having != releases[releases.index(having[0]) : releases.index(having[-1]) + 1]:
            raise SystemExit(f"--{name} vanished and came back; the table cannot say that")
        row = by_release[having[0]][name]
        rows[name] = {**row, "since": having[0], "source": by_release[having[-1]][name]["source"]}
        if having[-1] != releases[-1]:
            rows[name]["until"] = having[-1]
        changes = dict(differences(having, [by_release[release][name] for release in having]))
        if changes:
            rows[name]["changes"] = changes
    return rows


def differences(releases: list[str], flags: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each release in which a flag is declared otherwise than in the release before, and how."""
    for release, before, after in zip(releases[1:], flags, flags[1:], strict=False):
        keys = sorted((before.keys() | after.keys()) - {"source"})
        changed = {key: after.get(key) for key in keys if before.get(key) != after.get(key)}
        if changed:
            yield release, changed


def merged(read: dict[str, dict[str, Any]], old: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What was read, with what people wrote of the same flag."""
    return {
        name: {"help": "TODO", **{key: old[name][key] for key in WRITTEN if name in old and key in old[name]}, **row}
        for name, row in read.items()
    }


def tags(checkout: Path) -> list[str]:
    """Release tags, oldest first."""
    found = [tag for tag in git(checkout, "tag").split() if re.fullmatch(r"v\d+\.\d+\.\d+", tag)]
    return sorted(found, key=lambda tag: [int(number) for number in tag[1:].split(".")])


def git(checkout: Path, *words: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", "-C", checkout, *words], capture_output=True, text=True, check=True).stdout


def arguments(source: str, tag: str) -> dict[str, dict[str, Any]]:
    """The flags `struct Args` declares in one version of the launcher."""
    flags: dict[str, dict[str, Any]] = {}
    attribute, inside = "", False
    for number, line in enumerate(source.splitlines(), 1):
        text = line.strip()
        if line.startswith("struct Args {"):
            inside = True
        elif inside and line.startswith("}"):
            return flags
        elif inside and text.startswith("#["):
            attribute += text
        elif inside and (field := re.fullmatch(r"(?:pub )?(\w+): (.+),", text)):
            flag = declared(attribute, field[1], field[2], source)
            flags[field[1].replace("_", "-")] = {**flag, "source": f"{LAUNCHER}@{tag}:{number}"}
            attribute = ""
        elif inside and text and not text.startswith("//"):
            raise SystemExit(f"{LAUNCHER}@{tag}:{number}: cannot read {text!r}")
    raise SystemExit(f"{LAUNCHER}@{tag}: no struct Args")


def declared(attribute: str, field: str, rust: str, source: str) -> dict[str, Any]:
    """One flag as its clap attribute and its Rust type declare it."""
    inside = attribute.removeprefix("#[clap(").removesuffix(")]")
    words = re.findall(r"""(\w+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'))?""", inside)
    given = {word: text or char for word, text, char in words}
    inner = re.sub(r"^(?:Option<)?(?:Vec<)?([\w]+)>*$", r"\1", rust)
    flag: dict[str, Any] = {"env": field.upper() if "env" in given else None}
    if "short" in given:
        flag["short"] = given["short"] or field[0]
    values = variants(source, inner)
    flag["type"] = "switch" if rust == "bool" else "text" if inner == "String" else "choice" if values else inner
    if "Vec<" in rust:
        flag["many"] = True
    if "value_delimiter" in given:
        flag["delimiter"] = given["value_delimiter"]
    if rust.startswith("Option<"):
        flag["optional"] = True
    if "default_value" in given:
        flag["default"] = given["default_value"]
    if values:
        flag["values"] = values
    return flag


def variants(source: str, enum: str) -> list[str]:
    """The spellings a clap ValueEnum accepts, in the order of its declaration; empty when `enum` is none."""
    match = re.search(rf"^(?:pub )?enum {enum} \{{(.*?)^\}}", source, re.MULTILINE | re.DOTALL)
    body = re.sub(r"//.*", "", match[1]) if match else ""
    return [
        name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", variant).lower()
        for name, variant in re.findall(r'(?:#\[clap\(name = "([^"]+)"\)\]\s*)?(?:#\[[^\]]*\]\s*)*(\w+),', body)
    ]


def block(name: str, row: dict[str, Any]) -> str:
    """One flag as a block of YAML (every JSON scalar and flow list is YAML)."""
    lines = [f"{name}:"]
    for key in (key for key in (*WRITTEN, *READ, *SPAN) if key in row):
        value: Any = row[key]
        if key in ("changes", "effective"):
            lines += [f"  {key}:", *(f'    "{release}": {flow(text)}' for release, text in value.items())]
        elif key == "notes":
            lines += ["  notes:", *(f"    - {flow(note)}" for note in value)]
        else:
            lines.append(f"  {key}: {flow(value)}")
    return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
