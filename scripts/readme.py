"""Writes the generated parts of README.md, or with --check says whether they are current.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; `BLOCKS` names what makes it.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tgi_advisor import render
from tgi_advisor.errors import Exit
from tgi_advisor.facts.gpu import all_gpus

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(?P<open><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<close><!-- end -->)", re.DOTALL)


def console(*arguments: str, ends: Exit = Exit.STARTS) -> str:
    """A command of tgi-advisor and what it prints, as in a terminal of 100 columns without colour."""
    plain = {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "TGI_ADVISOR_DATA": os.devnull}
    result = subprocess.run(
        [sys.executable, "-m", "tgi_advisor", *arguments],
        cwd=ROOT, env={**os.environ, **plain}, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if result.returncode != ends:
        raise SystemExit(f"tgi-advisor {' '.join(arguments)} ended with {result.returncode}:\n{result.stderr}")
    output = "\n".join(line.rstrip() for line in result.stdout.rstrip().splitlines())
    return f"```console\n$ tgi-advisor {' '.join(arguments)}\n{output}\n```\n"


def exit_codes() -> str:
    """The exit codes as a table."""
    rows = "".join(f"| {code.value} | {code.meaning} |\n" for code in Exit)
    return f"| code | meaning |\n| ---: | --- |\n{rows}"


def gpus() -> str:
    """The GPUs of the table, by vendor, and how many cloud instance types name one."""
    by_vendor: dict[str, list[str]] = {}
    for row in all_gpus():
        by_vendor.setdefault(row.vendor, []).append(f"`{row.name.removeprefix(row.vendor.lower() + '-')}`")
    rows = "".join(f"| {vendor} | {', '.join(names)} |\n" for vendor, names in by_vendor.items())
    instances = sum(len(row.instances) for row in all_gpus())
    return f"| vendor | GPUs |\n| --- | --- |\n{rows}\n{instances} cloud instance types name one of them.\n"


def formats() -> str:
    """What `emit --format` takes, with the first sentence of each renderer's file."""
    rows = []
    for name in render.FORMATS:
        (path,) = (ROOT / "tgi_advisor" / "render").glob(f"{name.replace('-', '_')}*.py")
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        rows.append(f"| `{name}` | {docstring.splitlines()[0].rstrip('.:')} |\n")
    return "| format | what it is |\n| --- | --- |\n" + "".join(rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "advise": lambda: console("advise", "configs/llama-3.1-8b-l4.yaml"),
    "help": lambda: console("--help"),
    "exit-codes": exit_codes,
    "formats": formats,
    "gpus": gpus,
    "validate": lambda: console(
        "validate", "tests/data/validate/run.sh", "--gpu", "nvidia-l4", "--ignore", "TGI540", ends=Exit.FINDINGS
    ),
}


def generated(text: str) -> str:
    """The README with every generated part written anew; SystemExit when a name is not in `BLOCKS`."""

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise SystemExit(f"README.md: nothing generates '{name}'; scripts/readme.py knows {', '.join(BLOCKS)}")
        return match["open"] + BLOCKS[name]() + match["close"]

    return BLOCK.sub(part, text)


def main() -> int:
    """0 when README.md is current (or now is), 1 when --check finds it stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when README.md is stale")
    check = parser.parse_args().check
    old = README.read_text("utf-8")
    new = generated(old)
    if old == new:
        return 0
    if check:
        print("README.md is stale; run: python scripts/readme.py", file=sys.stderr)
        return 1
    README.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
