"""Estimates of speed against public measurements: a section of docs/accuracy.md, on tests/data/speed.yaml."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tgi_advisor import search
from tgi_advisor.estimate import speed
from tgi_advisor.estimate.speed import Request, Speed
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.speed import Calibration
from tgi_advisor.gather import snapshot
from tgi_advisor.gather.facts import gather
from tgi_advisor.spec.reader import read_any

ROWS = Path(__file__).parent.parent / "tests" / "data" / "speed.yaml"
MODELS = ROWS.parent / "models"
"""Models of rows that the package does not ship."""
HEADINGS = ("", "rows", "above the bound", "estimated", "median, off by a factor", "nine in ten", "within the band")


class Measured(NamedTuple):
    """One measurement and what is said of it."""

    row: dict[str, Any]
    """The row."""
    said: Speed
    """The estimate for its load."""
    group: str
    """What it is a measurement of."""
    here: Base
    """Its launch."""
    budget: int
    """Tokens of its KV cache."""

    @property
    def factor(self) -> float | None:
        """How many times the estimate is off, either way; None where there is none."""
        if self.said.tokens is None:
            return None
        ratio = self.row["out_tps"] / self.said.tokens.value
        return float(max(ratio, 1 / ratio))


@cache
def launch(model: str, gpu: str, count: int, release: str, quantize: str | None, total: int) -> tuple[Base, int | None]:
    """The launch of a row with limits for its requests, and the KV cache that is found."""
    spec = read_any(
        {
            "model": {"id": model, **({"quantize": quantize} if quantize else {})},
            "hardware": {"gpu": gpu, "count": count}, "tgi": {"release": release, "num_shard": count},
            "limits": {"max_total_tokens": total},
        }
    )  # fmt: skip
    advice = search.best(spec, gather(spec, source="snapshot", offline=True, model=_beside(model)))
    return advice.base, advice.found.prediction.limits.max_batch_total_tokens


def _beside(model: str) -> ModelFacts | None:
    """The facts of a model that is not shipped; None for one that is."""
    path = MODELS / f"{model.replace('/', '--')}.json"
    return snapshot.read(path.read_bytes(), model) if path.exists() else None


def measured() -> list[Measured]:
    """Every row with what is said of it."""
    return [_measured(row) for row in yaml.safe_load(ROWS.read_text("utf-8")) if row["out_tps"]]


def _measured(row: dict[str, Any]) -> Measured:
    tokens = row["input"] + row["output"]
    here, budget = launch(row["model"], row["gpu"], row["count"], row["release"], row["quantize"], max(1024, tokens))
    request = Request(row["input"], row["output"])
    budget = budget or tokens * row["concurrency"]
    said = speed.of(here, budget, row["concurrency"], request)
    cards = f"{row['count']} GPU{'s' if row['count'] > 1 else ''}"
    if here.setting.facts.gpu.system == "rocm":
        group = f"ROCm, {cards}"
    elif row["quantize"]:
        group = f"NVIDIA, {row['quantize']}"
    else:
        graphs = "CUDA graphs" if here.setting.graph_sizes else "no CUDA graphs"
        card = "A10G" if here.setting.graph_sizes and row["gpu"] == "nvidia-a10g" else "NVIDIA"
        group = f"{card}, 16 bit, {graphs}, {cards}"
    return Measured(row, said, group, here, budget)


def section() -> list[str]:
    """The section: a table by what the rows are of, and what the figures are."""
    found = measured()
    groups: dict[str, list[Measured]] = defaultdict(list)
    for one in found:
        groups[one.group].append(one)
    above = sum(one.said.bound is not None and one.row["out_tps"] > one.said.bound for one in found)
    lines = [f"| {' | '.join(HEADINGS)} |", f"| --- |{' ---: |' * (len(HEADINGS) - 1)}"]
    lines += [f"| {' | '.join(_cells(name, rows))} |" for name, rows in sorted(groups.items())]
    return [
        "## Speed",
        f"{len(found)} [public measurements](../tests/data/speed.yaml) of tokens per second against what `size` says. "
        f"The bound, weights and KV cache read once a step at the card's full bandwidth, is exceeded by {above} of "
        "them. The estimate is given where measurements support one: one A10G, 16 bit, CUDA graphs (within a factor of "
        "1.5, estimated), every other NVIDIA GPU and up to four shards (2, rough), since its constants "
        "(facts/speed.yaml) were fitted on the A10G's rows and no public row has CUDA graphs on another card. None has "
        "chunked prefills, Marlin kernels, an FP8 KV cache, speculation, a mixture of experts, a context longer than "
        "the model's sliding window, or several requests in transformers' classes. "
        "Left out are three runs on MI300X whose rate was limited, so that how many ran at once is not known, and six "
        "of Yi 6B on an RTX 4090 of December 2023, whose release is not said.",
        "\n".join(lines),
        _held_out([one for one in found if one.said.tokens is not None]),
        _first_tokens(found),
    ]


BANDWIDTH = [round(0.5 + 0.05 * step, 2) for step in range(11)]
COMPUTE = [round(0.2 + 0.05 * step, 2) for step in range(9)]
HALVES = 10
"""Random halves that are fitted and held out."""


def _held_out(rows: list[Measured]) -> str:
    """How far rows are off that the two constants were not fitted on, in sentences."""
    logs = {
        (bandwidth, compute): [_log_of(one, bandwidth, compute) for one in rows]
        for bandwidth in BANDWIDTH
        for compute in COMPUTE
    }
    words = []
    for name, key in (
        ("half of the rows", lambda number: number),
        ("half of the configurations (model, GPUs, lengths)", lambda number: _configuration(rows[number])),
    ):
        kinds = sorted({str(key(number)) for number in range(len(rows))})
        off: list[float] = []
        for seed in range(HALVES):
            kept = set(random.Random(seed).sample(kinds, len(kinds) // 2))
            fitted = [number for number in range(len(rows)) if str(key(number)) in kept]
            best = min(logs, key=lambda pair: sum(abs(logs[pair][number]) for number in fitted))
            off += [math.exp(abs(logs[best][n])) for n in range(len(rows)) if n not in fitted]
        off.sort()
        words.append(
            f"on {name}, the others are off by a factor of {statistics.median(off):.2f} in the median, of "
            f"{off[int(0.9 * len(off))]:.2f} in nine of ten"
        )
    return (
        f"Held out: with the shares of bandwidth and FLOPS fitted again ({HALVES} random halves of the {len(rows)} "
        f"rows that have an estimate) {'; '.join(words)}."
    )


def _configuration(one: Measured) -> str:
    return f"{one.row['model']} {one.row['count']} {one.row['input']} {one.row['output']}"


def _log_of(one: Measured, bandwidth: float, compute: float) -> float:
    """Logarithm of measured over said, with other shares of the card's figures."""
    setting = one.here.setting
    known = Calibration(
        setting.facts.gpu.name, setting.num_shard, setting.quantize or "none", setting.chunking, "", "", bandwidth,
        compute,
    )  # fmt: skip
    here = one.here._replace(setting=setting._replace(facts=setting.facts._replace(speed=(known,))))
    said = speed.of(here, one.budget, one.row["concurrency"], Request(one.row["input"], one.row["output"]))
    assert said.tokens is not None
    return math.log(one.row["out_tps"] / said.tokens.value)


def _first_tokens(found: list[Measured]) -> str:
    """How far seconds to the first token of one request alone are off, in a sentence."""
    factors = sorted(
        max(ratio, 1 / ratio)
        for one in found
        if one.said.first is not None and one.row["ttft_ms"] and one.row["concurrency"] == 1
        for ratio in [one.row["ttft_ms"] / 1000 / one.said.first.value]
    )
    return (
        f"The first token of a single request comes within a factor of {factors[-1]:.2f} of what is said in all "
        f"{len(factors)} rows that have it, {statistics.median(factors):.2f} in the median."
    )


def _cells(name: str, rows: list[Measured]) -> list[str]:
    above = sum(one.said.bound is not None and one.row["out_tps"] > one.said.bound for one in rows)
    factors = sorted(one.factor for one in rows if one.factor is not None)
    if not factors:
        return [name, str(len(rows)), str(above), "0", "", "", ""]
    most = factors[min(len(factors) - 1, int(0.9 * len(factors)))]
    held = sum(one.said.tokens is not None and (one.factor or 0) <= one.said.tokens.factor for one in rows)
    median = f"{statistics.median(factors):.2f}"
    return [name, str(len(rows)), str(above), str(len(factors)), median, f"{most:.2f}", f"{held} of {len(factors)}"]
