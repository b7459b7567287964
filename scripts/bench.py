"""Measures what the README claims about speed and memory, and prints it as a table.

Commands are run in turns, so that a slow moment of the machine falls on all of them; ratios are
between the fastest runs of each, by the clock and by processor time, which other programs on the
machine disturb less. What the Hub costs is measured by bench_hub.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SPEC = "configs/llama-3.1-8b-l4.yaml"
BARE = "python -c pass"


class Run(NamedTuple):
    """One run of a command."""

    seconds: float
    """From start to end."""
    cpu: float
    """Processor seconds, its own and the system's for it."""
    peak: int
    """Its largest resident memory in bytes (this script's own, about 15 MB, is the floor)."""


def run(command: Sequence[str]) -> Run:
    """Run a command to its end; SystemExit when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def in_turns(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[Run]]:
    """Each command once per round, after one round that only warms the disk cache."""
    for command in commands.values():
        run(command)
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(run(command))
    return runs


def command_rows(hf_mem: str | None, rounds: int) -> list[str]:
    """Time and memory of whole commands."""
    advisor = [str(Path(sys.executable).with_name("tgi-advisor"))]
    commands: dict[str, Sequence[str]] = {
        BARE: [sys.executable, "-c", "pass"],
        "tgi-advisor --help": [*advisor, "--help"],
        f"tgi-advisor advise {SPEC}": [*advisor, "advise", SPEC],
    }
    if hf_mem:
        commands["hf-mem --help"] = [hf_mem, "--help"]
    runs = in_turns(commands, rounds)
    bare, bare_cpu = min(one.seconds for one in runs[BARE]), min(one.cpu for one in runs[BARE])
    rows = [
        "| command | fastest | median | × bare python | × in processor time | peak memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, measured in runs.items():
        fastest = min(one.seconds for one in measured)
        usual = median(one.seconds for one in measured)
        peak = max(one.peak for one in measured)
        rows.append(
            f"| `{name}` | {fastest * 1e3:.0f} ms | {usual * 1e3:.0f} ms | {fastest / bare:.1f} | "
            f"{min(one.cpu for one in measured) / bare_cpu:.1f} | {peak / 1e6:.0f} MB |"
        )
    return rows


def each(action: Callable[[], object], budget: float = 0.5) -> tuple[float, float]:
    """Fastest and median seconds of one call, over as many calls as `budget` seconds hold."""
    action()
    taken: list[float] = []
    while sum(taken) < budget:
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return min(taken), median(taken)


def inner_rows() -> list[str]:
    """Time of one estimate and of one search, inside a running Python."""
    import tgi_advisor
    from tgi_advisor.estimate import defaults, warmup
    from tgi_advisor.search import search
    from tgi_advisor.spec.reader import read_file

    plan = tgi_advisor.advise(read_file(str(ROOT / SPEC)))
    setting = defaults.resolve(plan.spec, plan.facts)
    here = warmup.base(setting)
    actions: dict[str, Callable[[], object]] = {
        "one estimate": lambda: warmup.run(here, plan.prediction.limits),
        "one search, first estimate included": lambda: search(warmup.base(setting)),
    }
    rows = ["| call | fastest | median |", "| --- | ---: | ---: |"]
    for name, action in actions.items():
        fastest, usual = each(action)
        rows.append(f"| {name} | {fastest * 1e6:,.0f} µs | {usual * 1e6:,.0f} µs |")
    return rows


COMPARED = "Qwen/Qwen2.5-7B-Instruct"
"""A model with checkpoints in AWQ and GPTQ beside it."""
ASKED: dict[str, dict[str, object]] = {
    "nothing": {},
    "a context of 2,048 tokens at least": {"limits": {"max_total_tokens": {"min": 2048}}},
    "answers of 1,000 tokens, so that all are searched": {"workload": {"max_new_tokens": 1000}},
    "the same of TGI 3.1.1": {"workload": {"max_new_tokens": 1000}, "tgi": {"release": "3.1.1"}},
    "the same of TGI 2.4.1": {"workload": {"max_new_tokens": 1000}, "tgi": {"release": "2.4.1"}},
}
"""What a comparison is asked for."""
ONCE = """
import json, sys, time, tgi_advisor
spec = json.loads(sys.argv[1])
took, used = time.perf_counter(), time.process_time()
found = tgi_advisor.compare(spec)
print(len(found.options), time.perf_counter() - took, time.process_time() - used)
"""


def compare_rows(rounds: int) -> list[str]:
    """Time of the whole comparison of one model, each in a Python of its own: nothing of it is known before."""
    rows = [
        "| asked for | options | fastest | least processor time | of one option |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for asked, sections in ASKED.items():
        spec = json.dumps({"model": {"id": COMPARED}, "hardware": {"gpu": "nvidia-l4"}, **sections})
        taken = []
        for _ in range(rounds):
            done = subprocess.run(
                [sys.executable, "-c", ONCE, spec], cwd=ROOT, capture_output=True, text=True, check=True
            )
            taken.append(tuple(map(float, done.stdout.split())))
        options, seconds, used = taken[0][0], min(one[1] for one in taken), min(one[2] for one in taken)
        each = [asked, f"{options:.0f}", f"{seconds:.2f} s", f"{used:.2f} s", f"{1e3 * used / options:.2f} ms"]
        rows.append(f"| {' | '.join(each)} |")
    return rows


def first_rows(gpus: Sequence[str] = ("nvidia-l4", "nvidia-h100-sxm")) -> list[str]:
    """The first search of a process: for every shipped model on one of these GPUs, nothing replayed before."""
    rows = []
    for name in gpus:
        command = [sys.executable, __file__, "--first-on", name]
        taken = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
        slowest = sorted(taken, key=lambda one: -one[1])[:3]
        named = ", ".join(f"{model} {seconds * 1e3:.0f} ms" for model, seconds in slowest)
        within = sum(seconds < 0.01 for _, seconds in taken)
        rows.append(
            f"| {name} | {median(seconds for _, seconds in taken) * 1e3:.1f} ms | {within} of {len(taken)} | {named} |"
        )
    return ["| first search on | median | under 10 ms | slowest |", "| --- | ---: | ---: | --- |", *rows]


def first_searches(gpu: str) -> list[tuple[str, float]]:
    """(model, processor seconds of its first search) for every shipped model, the fastest of two."""
    from tgi_advisor.estimate import defaults, warmup
    from tgi_advisor.estimate.replay import peaks, vision  # noqa: F401  # imported before anything is timed
    from tgi_advisor.facts import gpu as gpus
    from tgi_advisor.facts import release, shelf
    from tgi_advisor.facts.known import Facts
    from tgi_advisor.gather import snapshot
    from tgi_advisor.search import search
    from tgi_advisor.spec.reader import read_any

    there, found = gpus.find(gpu), []
    for model in sorted(snapshot.recorded_ids()):
        known = snapshot.find(model)
        if known is None:
            continue
        facts = Facts(known, there, 1, release.latest()).elsewhere(there, 1)
        setting = defaults.resolve(read_any({"model": {"id": model}, "hardware": {"gpu": gpu}}), facts)
        taken = []
        for _ in range(2):
            shelf._index.cache_clear()
            peaks._peaks.cache_clear()
            warmup._common.cache_clear()
            start = time.process_time()
            search(warmup.base(setting))
            taken.append(time.process_time() - start)
        found.append((model, min(taken)))
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each command (default: 15)")
    parser.add_argument("--hf-mem", metavar="PATH", help="the hf-mem program to compare with, of any environment")
    parser.add_argument("--first-on", metavar="GPU", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.first_on:
        print(json.dumps(first_searches(asked.first_on)))
        return
    rows = [*command_rows(asked.hf_mem, asked.rounds), "", *inner_rows(), "", *first_rows(), ""]
    print("\n".join([*rows, *compare_rows(asked.rounds)]))


if __name__ == "__main__":
    main()
