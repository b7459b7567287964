"""How far the predicted KV caches of vLLM and SGLang are from those their start-up logs state.

python scripts/moved.py    # print the section of docs/accuracy.md, which scripts/accuracy.py writes

The runs are tests/data/engines.yaml.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tgi_advisor.engines import facts, memory
from tgi_advisor.engines.memory import Start
from tgi_advisor.engines.translate import Told
from tgi_advisor.estimate import defaults
from tgi_advisor.gather.facts import gather
from tgi_advisor.spec.reader import build
from tgi_advisor.units import GiB

RUNS = Path(__file__).parent.parent / "tests" / "data" / "engines.yaml"
MEMORY = ("--gpu-memory-utilization", "--mem-fraction-static")
"""Flags that are the memory setting, and no part of what the sum is told beforehand."""


class Moved(NamedTuple):
    """One run and what is said of it."""

    row: Mapping[str, Any]
    """The row of engines.yaml."""
    start: Start
    """The prediction."""

    @property
    def error_gib(self) -> float:
        """Said minus observed, in GiB of one GPU."""
        return self.start.pool_bytes / GiB - float(self.row["pool_gib"])

    @property
    def share(self) -> float:
        """The error as a share of the GPU's memory."""
        return self.error_gib * GiB / self.start.total_bytes

    @property
    def tokens_off(self) -> float:
        """Tokens said against observed, as a share."""
        return self.start.tokens / int(self.row["tokens"]) - 1


@cache
def runs() -> tuple[Moved, ...]:
    """Every run of engines.yaml, predicted."""
    return tuple(Moved(row, _said(row)) for row in _table()["runs"])


def _table() -> Any:
    return yaml.safe_load(RUNS.read_text("utf-8"))


def _said(row: Mapping[str, Any]) -> Start:
    engine = facts.find(row["engine"])._replace(version=row["version"])
    sets = [f"hardware.count={row['shards']}", *([f"hardware.link={row['link']}"] if "link" in row else [])]
    spec = build([("model.id", row["model"]), ("hardware.gpu", row["gpu"])], "engines.yaml", None, sets)
    setting = defaults.resolve(spec, gather(spec, source="snapshot", offline=True), row["shards"])
    told = {flag: (str(value),) for flag, value in row["flags"].items() if flag not in MEMORY}
    given = {flag: str(value) for flag, value in row["flags"].items() if flag in MEMORY}
    setting = setting._replace(dtype=row["dtype"])
    if engine.name == "vllm":
        given.setdefault("--gpu-memory-utilization", str(engine.sum.utilization))
    return memory.of(engine).start(engine, setting, Told(told, {}, {}, (), ()), given, 0)


def section() -> list[str]:
    """What docs/accuracy.md says of the engines."""
    found = runs()
    held = [one for one in found if one.row.get("read") is False]
    seen = [one for one in found if one not in held]
    cluster = sum("llm-d-planner" in one.row["source"] for one in seen)
    first = [abs(one.row["first"]) for one in found if "first" in one.row]
    left = "\n".join(f"- {row['model']} ({_log(row)}): {row['why']}" for row in _table()["left_out"])
    return [
        "## KV caches of vLLM and SGLang",
        f"The prediction `migrate` makes, beside {len(found)} servers of other engines whose start-up log says how "
        "large their KV cache became ([the runs](../tests/data/engines.yaml)); errors are shares of the GPU's memory:",
        _summary(seen, held),
        f"The rows read while the sum was written say less than they seem to. {cluster} are runs of vLLM 0.19.0 on "
        "H100s of one cluster, and four figures of vLLM's sum are read from these same logs: what a step leaves "
        "outside PyTorch on one GPU and on several, copies of the logits in the sampler, and what is alive beside "
        "them. What loading leaves outside the weights of SGLang is read from its logs on H100s and L4s. Weights, "
        "layers, windows, blocks, images and adapters are not fitted, nor are differences between models.",
        f"Rows held out were looked for afterwards. The first prediction of the {len(first)} later rows, before "
        f"anything was changed for them, was off by {statistics.median(first):.2f} % in the median and "
        f"{max(first):.2f} % at worst (column *first*). Since then the sum knows images and adapters, and that "
        "SGLang's loading leaves less. What is still off: of vLLM before 0.17, whose sampler the sum takes to be "
        "PyTorch's own, which is more than FlashInfer's (too small a cache is said), and of a fine-tune of "
        "Qwen2-VL whose largest image may be smaller than the model's. No log here is of vLLM 0.33.0 or SGLang "
        "0.5.23 themselves.",
        _rows(found),
        "Found and left out:",
        left,
    ]


def _summary(seen: list[Moved], held: list[Moved]) -> str:
    """Median and worst by engine, of the rows read and of those held out."""
    lines = ["| engine | rows | number | median | worst |\n| --- | --- | ---: | ---: | ---: |"]
    for engine in ("vllm", "sglang"):
        for name, rows in (("read while the sum was written", seen), ("held out", held)):
            off = [abs(100 * one.share) for one in rows if one.row["engine"] == engine]
            if off:
                said = f"{statistics.median(off):.2f} % | {max(off):.2f} %"
                lines.append(f"| {engine} | {name} | {len(off)} | {said} |")
    return "\n".join(lines)


def _log(row: Mapping[str, Any]) -> str:
    """Where a log was read: a link, or words where no address is known."""
    source = str(row["source"])
    return f"[log]({source})" if source.startswith("https://") else source


def _rows(found: tuple[Moved, ...]) -> str:
    head = "| engine | model | GPUs | flags | KV cache, GiB | said | of GPU memory | first | tokens |\n"
    lines = [head + "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for one in sorted(found, key=lambda one: (one.row["engine"], one.row["model"].lower(), one.row["shards"])):
        row = one.row
        flags = " ".join(f"`{flag} {value}".rstrip() + "`" for flag, value in row["flags"].items())
        dtype = "" if row["dtype"] == "bfloat16" else f", {row['dtype']}"
        source = str(row["source"])
        model = f"[{row['model']}]({source})" if source.startswith("https://") else row["model"]
        held = ", held out" if row.get("read") is False else ""
        first = f"{row['first']:+.2f} %" if "first" in row else ""
        lines.append(
            f"| {row['engine']} {row['version']}{held} | {model}{dtype} | "
            f"{row['shards']} x {row['gpu']} | {flags} | {row['pool_gib']:.2f} | "
            f"{one.start.pool_bytes / GiB:.2f} | {100 * one.share:+.2f} % | {first} | {100 * one.tokens_off:+.1f} % |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n\n".join(section()))
