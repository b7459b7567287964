"""How long a plan takes when the model's facts come from a Hub at 50 ms per request, start of Python included.

    python scripts/bench_hub.py [--latency-ms 50] [--runs 5] [--hf-mem /path/to/its/python]

Each row is a whole process, `tgi-advisor predict --json`, against the loopback Hub of the tests: first with an
empty cache, then again. The fastest of the runs, beside a bare `python -c pass`. The repositories hold headers only.
With the Python of an environment in which hf-mem is installed, `hf-mem` is run beside it, in turns.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hub import Hub, Tensors

from tgi_advisor.gather import snapshot

SMALL, LARGE = "Qwen/Qwen2.5-7B-Instruct", "deepseek-ai/DeepSeek-V3"
ROWS = (
    ("4 shards, counts suffice", SMALL, 4, True, True),
    ("4 shards, header by header", SMALL, 4, False, True),
    ("158 shards, counts suffice", LARGE, 158, True, True),
    ("158 shards, headers in one call", LARGE, 158, False, True),
    ("158 shards, header by header", LARGE, 158, False, False),
)
"""Name, model whose tensors are served, files, whether the layout adds up, whether the Hub has the one call."""


HF_MEM = """
import os, sys, httpx2
from hf_mem.cli import main
plain = httpx2.AsyncClient.request
def request(self, method, url, **rest):  # its address of the Hub is fixed
    return plain(self, method, str(url).replace("https://huggingface.co", os.environ["HF_ENDPOINT"]), **rest)
httpx2.AsyncClient.request = request
main()
"""


def tensors_of(name: str) -> tuple[dict[str, object], Tensors]:
    """config.json and every tensor of a shipped model, groups spelt out under numbers of their own."""
    facts = snapshot.find(name)
    assert facts is not None
    tensors: Tensors = {}
    layers = facts.config["num_hidden_layers"]
    for group in facts.tensors:
        each = -(-group.count // layers) if group.name.count("*") > 1 else 1
        for n in range(group.count):
            stars = iter((n // each, n % each))
            full = ".".join(str(next(stars)) if part == "*" else part for part in group.name.split("."))
            tensors[full] = (group.dtype, group.shape)
    assert len(tensors) == sum(group.count for group in facts.tensors)
    return dict(facts.config), tensors


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of one process, which must succeed or say that the model does not fit."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - started
    if done.returncode not in (0, 5, 6):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return spent


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--hf-mem", metavar="PYTHON", help="interpreter of an environment that has hf-mem")
    options = parser.parse_args()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and k != "PYTHONDONTWRITEBYTECODE"}
    bare = min(seconds([sys.executable, "-c", "pass"], environment) for _ in range(options.runs * 2))
    print(
        f"bare python {bare * 1000:.0f} ms; Hub at {options.latency_ms:g} ms per request; fastest of {options.runs}\n"
    )
    print(
        f"{'':34}{'requests':>9}{'cold':>10}{'warm':>10}{'hf-mem':>10}"
        if options.hf_mem
        else f"{'':34}{'requests':>9}{'cold':>10}{'warm':>10}"
    )
    with tempfile.TemporaryDirectory() as folder, Hub() as hub:
        environment |= {"HF_ENDPOINT": hub.endpoint, "PYTHONPYCACHEPREFIX": f"{folder}/pyc"}
        for number, (name, model, shards, adds_up, one_call) in enumerate(ROWS):
            config, tensors = tensors_of(model)
            if not adds_up:
                tensors["model.something_else"] = ("F32", (1,))
            repo = f"bench/model-{number}"
            _ = hub.add(repo, config, tensors, shards=shards).all_headers  # made before the clock runs
            hub.one_call = one_call
            gc.collect()
            gc.freeze()  # no pause of the Hub for the sake of its own headers
            command = [sys.executable, "-m", "tgi_advisor", "predict", "-m", repo, "-g", "nvidia-h200", "--count", "8"]
            command.append("--json")
            times: dict[str, list[float]] = {"cold": [], "warm": [], "hf-mem": []}
            for run in range(-1, options.runs):  # the first writes byte code and does not count
                environment["TGI_ADVISOR_CACHE"] = f"{folder}/{number}-{run}"
                hub.requests.clear()
                hub.latency = options.latency_ms / 1000
                spent = {"cold": seconds(command, environment)}
                asked = len(hub.requests)
                spent["warm"] = seconds(command, environment)
                assert len(hub.requests) == asked, "the second run must not ask the Hub"
                if options.hf_mem:
                    theirs = [options.hf_mem, "-c", HF_MEM, "--model-id", repo]
                    spent["hf-mem"] = seconds(theirs, environment)
                for kind in spent if run >= 0 else ():
                    times[kind].append(spent[kind])
            shown = "".join(f"{min(spent) * 1000:>7.0f} ms" for spent in times.values() if spent)
            print(f"{name:34}{asked:>9}{shown}")


if __name__ == "__main__":
    main()
