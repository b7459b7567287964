"""The command as a user runs it: in this process for speed, as a process of its own where that matters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from tgi_advisor.cli.main import cli

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LLAMA = ("--model", "meta-llama/Llama-3.1-8B-Instruct")
PRICES = """\
- cloud: Ours
  region: cellar
  currency: EUR
  date: "2026-11-01"
  shelf_life: 36500
  source: the bill
  per_hour: {g5.xlarge: 1, g5.12xlarge: 4.5, g6.xlarge: 0.5, g6.12xlarge: 3}
"""
L4 = str(ROOT / "configs" / "llama-3.1-8b-l4.yaml")


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def run(*args: str, stdin: str | bytes | None = None) -> Ran:
    """The command in this process, 100 columns wide."""
    result = CliRunner().invoke(cli, args, input=stdin, env={"COLUMNS": "100"}, prog_name="tgi-advisor")
    return Ran(result.exit_code, result.stdout, result.stderr)


def environment(**more: str) -> dict[str, str]:
    """An environment for `process`: 100 columns, no colour, no network."""
    return {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8", **more}


def heeding_ctrl_c() -> None:
    """What a terminal's shell does; in the background SIGINT and SIGQUIT are ignored, and under nohup SIGHUP."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def process(*args: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    command = [sys.executable, "-m", "tgi_advisor", *args]
    return subprocess.run(command, env=env or environment(), check=False, timeout=60, **{**streams, **options})


def price_list(folder: Path, text: str = PRICES) -> str:
    """A price list of the user's, in a file of this folder."""
    path = folder / "prices.yaml"
    path.write_text(text, "utf-8")
    return str(path)
