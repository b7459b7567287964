"""What is true of the engines: one folder each, a table by hand and one file per version read from its wheel.

`engine.yaml` holds what a person read: image, port, cache, driver, what becomes of each of TGI's flags and variables,
and the figures of the start-up sum, each with its source. `<version>.json` is `scripts/refresh_engines.py`'s: every
flag with the words it takes, and the architectures served. Nothing here is read before a command asks for an engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tgi_advisor.errors import UsageError, did_you_mean, listed
from tgi_advisor.facts import tables

FOLDER = Path(__file__).parent

Relation = Literal["same", "near", "default differs", "different", "automatic", "client", "none"]
"""How an engine's setting stands to TGI's: the same; the same purpose with other rules; the same with another default;
a similar name with another meaning; nothing to write; asked for in each request now; no equivalent."""

How = Literal[
    "copy", "switch", "words", "variable", "nothing", "model", "shards", "dtype", "quantize", "lora", "graphs", "rope",
    "speculate", "origins", "memory", "usage", "secret", "folder", "template",
]  # fmt: skip
"""What `translate` does with a value; each has its function there."""


class Flag(NamedTuple):
    """One flag of an engine as its parser takes it."""

    kind: Literal["value", "values", "switch", "boolean", "optional"]
    """What follows: one word, one or more, none (`boolean`: and --no-... says the opposite), or one at most."""
    choices: tuple[str, ...]
    """The only words it takes; empty where any is taken."""
    known: tuple[str, ...]
    """Words it knows, where it takes others too (a plugin's)."""
    source: str
    """path:line in the wheel."""


class Rule(NamedTuple):
    """What becomes of one of TGI's flags or variables."""

    to: str
    """The engine's flag or variable; empty where there is none."""
    how: How
    """How the value is carried over."""
    relation: Relation
    """How the two stand to each other."""
    why: str
    """One or two sentences."""
    source: str
    """Where it was read: package@version:path:line; empty where absence is what was found."""
    values: Mapping[str, str | None] = {}
    """The engine's word for each of TGI's (`words`); None where it has none."""


class Meter(NamedTuple):
    """The metric of an engine that stands for one of TGI's."""

    to: str
    """Its name as Prometheus sees it; empty where none stands for it."""
    kind: Literal["gauge", "counter", "histogram", ""]
    """What it is; TGI's is the same."""
    differs: str
    """How it counts otherwise than TGI's, one sentence; empty where it counts the same."""
    source: str
    """Where it was read: package@version:path:line."""


class Removed(NamedTuple):
    """What an engine does not have any more, or never had."""

    name: str
    """Architecture, model_type or quantization method."""
    last: str
    """Last version that had it; empty where none had."""
    source: str
    """Where it was read."""


class Sum(NamedTuple):
    """Figures of an engine's start-up sum, from one version on; bytes of one GPU."""

    since: tuple[int, ...]
    """First version they hold for."""
    utilization: float
    """Default share of the card (vLLM); 0 where a rule decides."""
    logits: float
    """float32 copies of the sampled requests' logits that are alive together in the profile run."""
    settled: int
    """Bytes of the profile run beside hidden states and logits."""
    persistent: int
    """What stays outside weights and PyTorch's peak on a single GPU."""
    persistent_several: int
    """The same with several shards on cards of compute capability 9.0 and later."""
    persistent_older: int
    """The same with several shards on cards before."""
    graphs: int
    """Estimate of the CUDA graphs that does not grow with the layers."""
    graphs_per_layer: int
    """What one layer adds to it, at the default sizes."""
    charges_graphs: bool
    """Whether the estimate is taken from the KV cache."""
    spread: int
    """How far off the sum of all this may be."""
    source: str
    """What it was read from."""


class Engine(NamedTuple):
    """One engine in one version."""

    name: str
    """`vllm`, `sglang`."""
    title: str
    """As people write it."""
    version: str
    """X.Y.Z."""
    images: Mapping[str, str]
    """Image by TGI's name of the system (`cuda`, `rocm`), `{version}` in place of the version."""
    command: tuple[str, ...]
    """Words before the first flag; `{model}` stands for the model."""
    port: int
    """Port it listens on unless told."""
    cache: str
    """HF_HOME of the image."""
    health: str
    """Path that answers 200 once it serves."""
    shm_size: str
    """Size of shared memory its pages ask for with several GPUs; empty for what TGI asks for."""
    driver: int
    """First number of the oldest NVIDIA driver the image runs on."""
    driver_hint: str
    """What to do on an older one."""
    capability: tuple[int, int]
    """Lowest compute capability it serves."""
    sources: Mapping[str, str]
    """Where each of these was read, by name."""
    flags: Mapping[str, Flag]
    """Every flag of its parser by name, aliases included."""
    rules: Mapping[str, Rule]
    """What becomes of each flag TGI ever had."""
    variables: Mapping[str, Rule]
    """What becomes of TGI's own environment variables."""
    quantize: Mapping[str, Rule]
    """What becomes of each value of --quantize."""
    defaults: Mapping[str, Rule]
    """What is written although TGI was told nothing, because the engine's default differs; by the engine's flag."""
    architectures: frozenset[str]
    """Architectures of config.json it has classes of its own for."""
    removed: tuple[Removed, ...]
    """Architectures and model types it has dropped, or never had and cannot serve."""
    sums: tuple[Sum, ...]
    """Figures of the start-up sum, the oldest first."""
    meters: Mapping[str, Meter]
    """TGI's metric names and the engine's metrics."""
    labels: tuple[str, ...]
    """Labels every metric of the engine has."""
    clients: Mapping[str, Sequence[str]]
    """What a client must change: thing -> [today, then, what to do]."""

    def image(self, system: str) -> str | None:
        """The image for a system of TGI's; None where none is known."""
        found = self.images.get(system)
        return found.format(version=self.version) if found else None

    @property
    def metrics(self) -> Mapping[str, str]:
        """TGI's metric names and the engine's; empty where it has none."""
        return {name: meter.to for name, meter in self.meters.items()}

    @property
    def sum(self) -> Sum:
        """The figures that hold for this version."""
        return next(row for row in reversed(self.sums) if row.since <= number(self.version))


def number(version: str) -> tuple[int, ...]:
    """`0.33.0` as numbers, for comparisons; UsageError where it is none."""
    try:
        return tuple(int(part) for part in version.removeprefix("v").split("."))
    except ValueError:
        raise UsageError(f"{version!r} is no version", "Write it as 0.33.0.") from None


def names() -> list[str]:
    """The engines there are."""
    return sorted(path.parent.name for path in FOLDER.glob("*/engine.yaml"))


def wheel_tables(name: str) -> list[Path]:
    """What was read from an engine's wheels, one file per version, the oldest first."""
    return sorted((FOLDER / name).glob("*.json"), key=lambda path: number(path.stem))


def find(name: str, version: str | None = None) -> Engine:
    """An engine, in the newest version known unless one is named; UsageError that names those there are."""
    if name not in names():
        hint = did_you_mean(name, names()) or f"There are {listed(names(), 'and')}."
        raise UsageError(f"{name!r} is no engine known here", hint)
    return _read(name, version.removeprefix("v") if version else None)


@cache
def _read(name: str, version: str | None) -> Engine:
    wheels = {path.stem: path for path in wheel_tables(name)}
    newest = next(reversed(wheels))
    chosen = version or newest
    if chosen not in wheels:
        raise UsageError(
            f"the flags of {name} {chosen} are not known here",
            f"Known: {', '.join(wheels)}. scripts/refresh_engines.py {name}={chosen} reads another from its wheel.",
        )
    read = json.loads(wheels[chosen].read_text("utf-8"))
    where = f"engines/{name}/engine.yaml"
    row = tables.parse((FOLDER / name / "engine.yaml").read_bytes(), where)
    tables.strict(row, _KEYS, _KEYS, where)
    return Engine(
        name=name,
        title=row["title"],
        version=chosen,
        images=row["images"],
        command=tuple(row["command"]),
        port=row["port"],
        cache=row["cache"],
        health=row["health"],
        shm_size=row["shm_size"],
        driver=row["driver"],
        driver_hint=row["driver_hint"],
        capability=(row["capability"][0], row["capability"][1]),
        sources=row["sources"],
        flags={flag: _flag(one) for flag, one in read["flags"].items()},
        rules={flag: _rule(one, f"{where}: flags.{flag}") for flag, one in row["flags"].items()},
        variables={one: _rule(text, f"{where}: variables.{one}") for one, text in row["variables"].items()},
        quantize={one: _rule(text, f"{where}: quantize.{one}") for one, text in row["quantize"].items()},
        defaults={one: _rule(text, f"{where}: defaults.{one}") for one, text in row["defaults"].items()},
        architectures=frozenset(read["architectures"]),
        removed=(*_removed(row["removed"], where), *_by_wheel(read)),
        sums=tuple(_sum(one, f"{where}: sums") for one in row["sums"]),
        meters={one: _meter(text, f"{where}: metrics.{one}") for one, text in row["metrics"].items()},
        labels=tuple(row["labels"]),
        clients=row["clients"],
    )


_KEYS = frozenset({
    "title", "images", "command", "port", "cache", "health", "shm_size", "driver", "driver_hint", "capability",
    "sources", "flags", "variables", "quantize", "defaults", "removed", "sums", "metrics", "labels",
    "clients",
})  # fmt: skip


def _flag(row: Mapping[str, Any]) -> Flag:
    words = [tuple(str(word) for word in row.get(key, ())) for key in ("choices", "known")]
    return Flag(row["kind"], words[0], words[1], row["source"])


def _rule(row: Mapping[str, Any], where: str) -> Rule:
    tables.strict(row, set(Rule._fields), {"relation", "why"}, where)
    made = Rule(
        row.get("to", ""), row.get("how", "nothing"), row["relation"], row["why"], row.get("source", ""),
        row.get("values", {}),
    )  # fmt: skip
    if made.relation not in get_args(Relation) or made.how not in get_args(How):
        raise ValueError(f"{where}: no such relation or way: {made.relation}, {made.how}")
    return made


def _meter(row: Mapping[str, Any], where: str) -> Meter:
    tables.strict(row, set(Meter._fields), {"to", "kind", "source"} if row else set(), where)
    return Meter(row.get("to", ""), row.get("kind", ""), row.get("differs", ""), row.get("source", ""))


def _removed(rows: Mapping[str, Mapping[str, str]], where: str) -> Iterator[Removed]:
    for name, row in rows.items():
        tables.strict(row, {"last", "source"}, {"source"}, f"{where}: removed.{name}")
        yield Removed(name, row.get("last", ""), row["source"])


def _by_wheel(read: Mapping[str, Any]) -> Iterator[Removed]:
    for name, last in read["removed"].items():
        yield Removed(name, last, f"{read['engine']}@{read['version']}: registry of models")


def _sum(row: Mapping[str, Any], where: str) -> Sum:
    tables.strict(row, set(Sum._fields), set(Sum._fields), where)
    return Sum(**{**row, "since": number(row["since"])})
