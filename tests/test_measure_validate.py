"""The measure of validate counts what is found, missed and false."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts" / "measure_validate.py"
RUN = "docker run --gpus all ghcr.io/huggingface/text-generation-inference:2.3.1 --model-id a/b"


def test_a_labelled_folder_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text(f"{RUN} --max-input-tokens 9 --max-total-tokens 9\n", encoding="utf-8")
    (tmp_path / "b.sh").write_text(f"{RUN} --no-such-flag\n", encoding="utf-8")
    labels = {"a.sh": {"servers": [1, 20], "errors": [[1, "TGI110"]]}, "b.sh": {"servers": [], "errors": [[9, "TGI1"]]}}
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["servers"] == {"found": 1, "missed": 1, "false": 1}
    assert said["errors"] == {"true": 1, "false": 1, "missed": 1}
