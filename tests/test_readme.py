from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_generated_parts_are_current() -> None:
    command = [sys.executable, "scripts/readme.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert (result.returncode, result.stderr) == (0, "")


def test_every_generated_part_is_closed() -> None:
    assert README.count("<!-- generated: ") == README.count("<!-- end -->") > 0


def test_the_first_command_runs_the_main_job_and_the_second_every_check() -> None:
    run, check = re.findall(r"```sh\n(.+?)\n```", README, re.DOTALL)
    assert run.endswith(".venv/bin/tgi-advisor advise configs/llama-3.1-8b-l4.yaml")
    assert check == "scripts/test"
    assert (ROOT / ".ci" / "run").read_text("utf-8").endswith(f"\n{check}\n")
    assert os.access(ROOT / check, os.X_OK)


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_drawing_is_the_contract() -> None:
    drawing = re.search(r"```\n( +cli .+?)\n```", README, re.DOTALL)
    contract = re.search(
        r"^layers = \[\n(.+?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert drawing
    assert contract
    drawn = [re.split(r" {3,}", line.strip())[0].split(" · ") for line in drawing[1].splitlines()]
    assert drawn == [re.findall(r"\w+", line) for line in contract[1].splitlines()]
