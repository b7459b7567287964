"""How true `tgi-advisor validate` is on labelled files: servers and errors found, missed and false, findings by rule.

FOLDER/labels.json names the files it holds, each with what is right:

    {"FILE": {"servers": [LINE, ...], "errors": [[LINE, "TGI110"], ...], "mute": [[LINE, "TGI320"], ...]}}

An error without a label is false; `mute` are findings of any severity a maintainer would rather not read. `--list`
names what is false, missed and muted by file and line, `--against` prints how an earlier run's counts differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NEAR = 3
"""Lines by which the place of a server may differ: the image's, or the command's."""

Place = tuple[str, int, str]
"""File, line, and a rule's code."""


def measure(folder: Path) -> dict[str, Any]:
    """The counts for a labelled folder, and under `places` what is false, missed and muted."""
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "tgi_advisor", "validate", "--format", "json", *labels]
    said = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout)
    found, missed, false = _servers(labels, said["servers"])
    findings = [(item["file"], item["line"], item["code"]) for item in said["findings"]]
    errors = {place for place, item in zip(findings, said["findings"], strict=True) if item["severity"] == "error"}
    true, mute = _places(labels, "errors"), _places(labels, "mute")
    wrong, lost = errors - true, true - errors
    noise = [place for place in findings if place in mute or place in wrong]
    rules = Counter(f"{item['severity']} {item['code']}" for item in said["findings"])
    return {
        "servers": {"found": found, "missed": len(missed), "false": len(false)},
        "errors": {"true": len(errors & true), "false": len(wrong), "missed": len(lost)},
        "findings": dict(sorted(rules.items())),
        "muted": dict(sorted(Counter(code for _, _, code in noise).items())),
        "worth_reading": round(1 - len(noise) / max(1, len(findings)), 3),
        "places": {
            "servers_false": _lines(false), "servers_missed": _lines(missed), "errors_false": _lines(wrong),
            "errors_missed": _lines(lost), "muted": _lines(noise),
        },
    }  # fmt: skip


def _servers(labels: dict[str, Any], said: list[dict[str, Any]]) -> tuple[int, list[Place], list[Place]]:
    """(how many are found, those missed, those that are none)."""
    found, missed, false = 0, list[Place](), list[Place]()
    for name, label in labels.items():
        left = [server["line"] for server in said if server["file"] == name]
        for line in label["servers"]:
            match = next((other for other in left if abs(other - line) <= NEAR), None)
            if match is None:
                missed.append((name, line, "server"))
            else:
                found += 1
                left.remove(match)
        false += [(name, line, "server") for line in left]
    return found, missed, false


def _places(labels: dict[str, Any], key: str) -> set[Place]:
    return {(name, line, code) for name, label in labels.items() for line, code in label.get(key, ())}


def _lines(places: Iterable[Place]) -> list[str]:
    return sorted(f"{name}:{line} {code}" for name, line, code in places)


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Every count that moved, from what to what."""
    moved = []
    for group in ("servers", "errors", "findings", "muted"):
        for name in sorted({*before[group], *after[group]}):
            was, now = before[group].get(name, 0), after[group].get(name, 0)
            if was != now:
                moved.append(f"{group} {name}: {was} to {now}")
    return moved


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", action="store_true", help="name what is false, missed and muted")
    parser.add_argument("--against", type=Path, metavar="FILE", help="what an earlier run printed")
    asked = parser.parse_args()
    counts = measure(asked.folder)
    places = counts.pop("places")
    if asked.against is not None:
        print("\n".join(difference(json.loads(asked.against.read_text(encoding="utf-8")), counts)))
        return
    print(json.dumps({**counts, "places": places} if asked.list else counts, indent=2))


if __name__ == "__main__":
    main()
