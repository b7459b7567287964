"""`/info` of public servers as they were recorded, and `/metrics` of releases as their sources make it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from itertools import accumulate, repeat
from operator import mul
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from front import ROOT

FOLDER = ROOT / "tests" / "data" / "inspect"


class Recorded(NamedTuple):
    """One server."""

    name: str
    """Its model and release."""
    info: Mapping[str, Any]
    """What its `/info` says."""
    made: bool
    """Whether it is made after the router's source."""
    model: str = ""
    """Which model its folder holds."""
    gpu: str = ""
    """Its GPU, where that was published."""
    gpus: int = 0
    """How many of them."""

    @property
    def release(self) -> str:
        """Its TGI release."""
        return str(self.info["version"])

    @property
    def line(self) -> str:
        """Its `/info` as the router writes it."""
        return json.dumps(self.info, separators=(",", ":"))


@cache
def recorded() -> tuple[Recorded, ...]:
    """Every server of the table."""
    held = yaml.safe_load((FOLDER / "info.yaml").read_text("utf-8"))
    return tuple(
        Recorded(one["name"], one["info"], one.get("made", False), one.get("model", ""), one.get("gpu", ""),
                 one.get("count", 0))
        for one in held
        if one["source"]
    )  # fmt: skip


@cache
def table() -> Mapping[str, Any]:
    """What the sources of the releases say."""
    held: Mapping[str, Any] = yaml.safe_load((FOLDER / "metrics.yaml").read_text("utf-8"))
    return held


class Served(NamedTuple):
    """What a server has done."""

    generated: int = 0
    """Requests to /generate that were answered."""
    chat: int = 0
    """Requests to /v1/chat/completions that were answered."""
    failed: Mapping[str, int] = MappingProxyType({})
    """Requests that were not, by TGI's reason."""
    queued: int = 0
    """Requests that wait."""
    running: int = 0
    """Requests of the batch."""
    held: int = 0
    """Tokens it may come to take."""
    prompt: int = 512
    """Tokens of a prompt."""
    answer: int = 128
    """Tokens of an answer."""
    waited: float = 0.02
    """Seconds of a request before the batch."""
    per_token: float = 0.025
    """Seconds of a token."""

    @property
    def answered(self) -> int:
        """Requests that were answered."""
        return self.generated + self.chat


def parts(release: str) -> tuple[int, ...]:
    """A release to compare."""
    return tuple(map(int, release.split(".")))


def families(release: str) -> Mapping[str, Mapping[str, Any]]:
    """What a release exports."""
    return {name: one for name, one in table()["families"].items() if parts(one.get("from", "0.0.0")) <= parts(release)}


def buckets(kind: str, release: str, info: Mapping[str, Any]) -> list[float]:
    """The upper ends, as the router computes them; none for what the exporter shows as a summary."""
    longest, total = info.get("max_input_tokens", info.get("max_input_length")), info["max_total_tokens"]
    if kind == "speculate":
        return [0.0] if parts(release) < (2, 3) else []
    sides = {
        "duration": list(accumulate(repeat(1.5, 35), mul, initial=0.0001))[1:],
        "input": [longest / 100.0 * step for step in range(1, 101)],
        "total": [total / 100.0 * step for step in range(1, 101)],
        "batch": [float(size) for size in range(1, 1025)],
    }
    return sides[kind]


def plain(number: float) -> str:
    """A number as the exporter writes it: the fewest digits that tell it."""
    return repr(float(number)).removesuffix(".0")


@cache
def published() -> Mapping[str, Any]:
    """The samples of one real server."""
    held: Mapping[str, Any] = yaml.safe_load((FOLDER / "served.yaml").read_text("utf-8"))
    return held


def served() -> str:
    """`/metrics` of that server, whole but for its HELP."""
    held, known, lines = published(), families("3.3.7"), []
    for family in held["families"]:
        name = family["name"]
        kind = next(key for key in family if key != "name")
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in family[kind].items():
            side, inner = (f"{{{labels}}}", f"{labels},") if labels else ("", "")
            if kind == "summary":
                lines.append(
                    f"{name}_{labels} {value}" if labels.isalpha() else f'{name}{{quantile="{labels}"}} {value}'
                )
            elif kind != "histogram":
                lines.append(f"{name}{side} {value}")
            else:
                count = 0
                for number, end in enumerate(buckets(known[name]["buckets"], "3.3.7", held), start=1):
                    count = value["steps"].get(number, count)
                    lines.append(f'{name}_bucket{{{inner}le="{plain(end)}"}} {count}')
                lines.append(f'{name}_bucket{{{inner}le="+Inf"}} {count}')
                lines += [f"{name}_sum{side} {plain(value['sum'])}", f"{name}_count{side} {count}"]
        lines.append("")
    return "\n".join(lines) + "\n"


def metrics(served: Served, info: Mapping[str, Any]) -> str:
    """`/metrics` of the release that `info` is of, after metrics-exporter-prometheus' text."""
    release = str(info["version"])
    twice = parts(table()["chat_twice_from"]) <= parts(release)
    requests = served.answered + sum(served.failed.values()) + served.queued + served.running
    steps = served.answered * served.answer // 4
    counters: dict[str, Mapping[str, int]] = {
        "tgi_request_count": {"": requests + (served.chat if twice else 0)},
        "tgi_request_success": {"": served.answered},
        "tgi_request_failure": served.failed,
        "tgi_batch_concat": {"backpressure": steps // 9, "wait_exceeded": steps // 8},
        "tgi_batch_inference_count": {"decode": steps, "prefill": served.answered},
        "tgi_batch_inference_success": {"decode": steps, "prefill": served.answered},
    }
    gauges = {
        "tgi_queue_size": served.queued, "tgi_batch_current_size": served.running,
        "tgi_batch_current_max_tokens": served.held,
    }  # fmt: skip
    means = {
        "tgi_request_input_length": served.prompt, "tgi_request_generated_tokens": served.answer,
        "tgi_request_max_new_tokens": 2 * served.answer, "tgi_request_queue_duration": served.waited,
        "tgi_request_mean_time_per_token_duration": served.per_token, "tgi_batch_next_size": 1,
        "tgi_request_duration": served.waited + served.answer * served.per_token,
        "tgi_request_inference_duration": served.answer * served.per_token, "tgi_request_skipped_tokens": 0,
    }  # fmt: skip
    lines: list[str] = []
    for name, one in families(release).items():
        label = next((key for key in ("method", "err", "reason") if key in one), "")
        rows: list[str] = []
        shown = one["kind"]
        if one["kind"] == "gauge":
            # A gauge has no sample before it is first set.
            rows = [f"{name} {gauges[name]}"] if requests else []
        elif one["kind"] == "counter":
            rows = [
                name + (f'{{{label}="{value}"}}' if value else "") + f" {count}"
                for value, count in counters[name].items()
                if count
            ]
        elif served.answered:
            ends = buckets(one["buckets"], release, info)
            shown = "histogram" if ends else "summary"
            for value in one.get(label, [""]):
                count = steps if value == "decode" else served.answered
                rows += _histogram(name, label, value, count, means.get(name, served.per_token), ends)
        lines += [f"# TYPE {name} {shown}", *rows, ""] if rows else []
    return "\n".join(lines)


def _histogram(name: str, label: str, value: str, count: int, mean: float, ends: list[float]) -> list[str]:
    """Every sample at the mean; quantiles where there are no buckets."""
    inner, side = ("", "") if not value else (f'{label}="{value}",', f'{{{label}="{value}"}}')
    if ends:
        rows = [f'{name}_bucket{{{inner}le="{plain(end)}"}} {count if mean <= end else 0}' for end in ends]
        rows.append(f'{name}_bucket{{{inner}le="+Inf"}} {count}')
    else:
        rows = [f'{name}{{{inner}quantile="{at}"}} {mean}' for at in (0, 0.5, 0.99, 1)]
    return [*rows, f"{name}_sum{side} {count * mean!r}", f"{name}_count{side} {count}"]


def answers(one: Recorded, served: Served) -> dict[str, str]:
    """What a recorded server answers, with its health."""
    return {"/info": one.line, "/metrics": metrics(served, one.info), "/health": ""}
