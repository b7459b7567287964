"""How true `tgi-advisor validate` is on labelled files: servers and errors found, missed and false, findings by rule.

python scripts/measure_validate.py FOLDER    # FOLDER/labels.json and the files it names

labels.json: {"FILE": {"servers": [LINE, ...], "errors": [[LINE, "TGI110"], ...]}}; an error that has no label is false.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

NEAR = 3  # lines by which the place of a server may differ: the image's or the command's


def measure(folder: Path) -> dict[str, Any]:
    """The counts for a labelled folder: servers, errors, and findings by severity and rule."""
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "tgi_advisor", "validate", "--format", "json", *labels]
    said = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout)
    servers: Counter[str] = Counter()
    for name, label in labels.items():
        left = [server["line"] for server in said["servers"] if server["file"] == name]
        for line in label["servers"]:
            match = next((other for other in left if abs(other - line) <= NEAR), None)
            servers["missed" if match is None else "found"] += 1
            if match is not None:
                left.remove(match)
        servers["false"] += len(left)
    true = {(name, line, code) for name, label in labels.items() for line, code in label["errors"]}
    errors = {(item["file"], item["line"], item["code"]) for item in said["findings"] if item["severity"] == "error"}
    counts = {"true": len(errors & true), "false": len(errors - true), "missed": len(true - errors)}
    rules = Counter(f"{item['severity']} {item['code']}" for item in said["findings"])
    return {"servers": dict(servers), "errors": counts, "findings": dict(sorted(rules.items()))}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])), indent=2))
