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
    labels = {
        "a.sh": {"servers": [1, 20], "errors": [[1, "TGI110"]], "mute": [[1, "TGI320"]]},
        "b.sh": {"servers": [], "errors": [[9, "TGI1"]]},
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    said = json.loads(printed(str(tmp_path), "--list"))
    assert said["servers"] == {"found": 1, "missed": 1, "false": 1}
    assert said["errors"] == {"true": 1, "false": 1, "missed": 1}
    assert said["muted"] == {"TGI101": 1, "TGI320": 1}
    assert said["places"] == {
        "servers_false": ["b.sh:1 server"],
        "servers_missed": ["a.sh:20 server"],
        "errors_false": ["b.sh:1 TGI101"],
        "errors_missed": ["b.sh:9 TGI1"],
        "muted": ["a.sh:1 TGI320", "b.sh:1 TGI101"],
    }
    before = tmp_path / "before.json"
    before.write_text(json.dumps({**said, "errors": {"true": 1, "false": 3, "missed": 1}}), encoding="utf-8")
    assert printed(str(tmp_path), "--against", str(before)) == "errors false: 3 to 1\n"


def printed(*words: str) -> str:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=True).stdout
