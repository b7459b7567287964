"""How fast `tgi-advisor validate` is, and how much memory it takes: mixed YAML files, one in ten with a TGI server.

python scripts/bench_validate.py [COUNT ...]     # default: 100 1000 5000
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RELEASES = ("1.4.5", "2.0.4", "2.4.1", "3.0.2", "3.3.7", "latest")
MODELS = ("Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", "HuggingFaceH4/zephyr-7b-beta")
COMPOSE = """\
services:
  web:
    image: nginx:1.27
    ports: ["80:80"]
  tgi-{number}:
    image: ghcr.io/huggingface/text-generation-inference:{release}
    command: >-
      --model-id {model} --num-shard 1 --max-input-length {most_input} --max-total-tokens {total}
    ports: ["{port}:80"]
    volumes: [tgi-data:/data]
    environment: {{HF_TOKEN: "${{HF_TOKEN}}"}}
    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, count: 1, capabilities: [gpu]}}]}}}}}}
volumes: {{tgi-data: {{}}}}
"""
MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: tgi-{number}}}
spec:
  selector: {{matchLabels: {{app: tgi-{number}}}}}
  template:
    metadata: {{labels: {{app: tgi-{number}}}}}
    spec:
      containers:
        - name: tgi
          image: ghcr.io/huggingface/text-generation-inference:{release}
          env:
            - {{name: MODEL_ID, value: {model}}}
            - {{name: MAX_INPUT_LENGTH, value: "{most_input}"}}
            - {{name: MAX_TOTAL_TOKENS, value: "{total}"}}
          resources: {{limits: {{nvidia.com/gpu: 1}}}}
      nodeSelector: {{cloud.google.com/gke-accelerator: nvidia-l4}}
"""
OTHER = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings-{number}}}
data:
{lines}
"""


def fill(folder: Path, count: int) -> None:
    """`count` files in folders of a hundred, one in ten with a server."""
    for number in range(count):
        if number % 100 == 0:
            (folder / f"{number // 100:03}").mkdir()
        values = {
            "number": number,
            "release": RELEASES[number // 10 % len(RELEASES)], "model": MODELS[number // 10 % len(MODELS)],
            "most_input": 1000 + number, "total": 2000 + number, "port": 8000 + number,
            "lines": "\n".join(f"  key-{line}: value {line * number}" for line in range(40)),
        }  # fmt: skip
        form = OTHER if number % 10 else (COMPOSE if number % 20 else MANIFEST)
        (folder / f"{number // 100:03}" / f"{number}.yaml").write_text(form.format(**values))


def measure(folder: Path) -> tuple[float, int]:
    """Seconds and peak MiB of one run over a folder, as a process of its own."""
    command = [sys.executable, "-m", "tgi_advisor", "validate", str(folder)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode not in (0, 1):
        raise SystemExit(f"validate ended with {process.returncode}")
    return seconds, usage.ru_maxrss // 1024


def main(counts: list[int]) -> None:
    """One row for each number of files."""
    print("| files | TGI servers | seconds | peak memory |\n| ---: | ---: | ---: | ---: |")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            fill(Path(name), count)
            seconds, peak = measure(Path(name))
        print(f"| {count:,} | {count // 10:,} | {seconds:.2f} | {peak} MiB |")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [100, 1000, 5000])
