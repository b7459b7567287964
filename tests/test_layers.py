from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent


def test_the_layers_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["advise", "--help"], ["advise", "configs/llama-3.1-8b-l4.yaml"]],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    program = (
        "import json, runpy, sys\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: runpy.run_module('tgi_advisor', run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "print(json.dumps([code or 0, sorted(sys.modules)]), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr.startswith("[0, "), result.stderr
    _, modules = json.loads(result.stderr)
    heavy = {"docker", "huggingface_hub", "jsonschema", "numpy", "requests", "transformers", "urllib.request"}
    assert heavy & set(modules) == set()
