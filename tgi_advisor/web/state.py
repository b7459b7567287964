"""What stands in the address of the page, and what it asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from tgi_advisor.choose import rough
from tgi_advisor.errors import Problem, UsageError, did_you_mean
from tgi_advisor.gather.names import check_id
from tgi_advisor.safe import looks_secret, named
from tgi_advisor.spec.reader import read_any
from tgi_advisor.spec.records import Spec
from tgi_advisor.units import parse_count

LONGEST = 200
"""Characters of one value of the address."""
MOST = {"count": 1024, "context": 1 << 22, "answer": 1 << 22, "users": 1 << 16, "prefill": 1 << 18}
"""What a number is a slip beyond; a search takes longer the more there are."""
MODES = ("checkpoint", "stated")
"""A model of the Hub, or one of which only size and bits are known."""


@dataclass(frozen=True)
class Control:
    """One number a visitor may set, and `auto` when it is left empty."""

    name: str
    """Name in the address."""
    label: str
    """What it is called."""
    path: str
    """Field of the spec it stands for; empty for one of a stated model."""
    steps: tuple[float, ...]
    """What its slider goes through."""
    auto: str = ""
    """What `auto` means for a checkpoint."""
    auto_stated: str = ""
    """What `auto` means for a stated model."""


def _doubled(low: int, high: int) -> tuple[int, ...]:
    """From low to high in steps of a half and a third: 1024, 1536, 2048, 3072, …"""
    found, step = [], low
    while step < high:
        found += [step, step + step // 2]
        step *= 2
    return (*found, high)


LOAD = (
    Control(
        "context", "Context", "limits.max_total_tokens", _doubled(512, 1 << 17), "the longest that fits",
        "4,096 tokens",
    ),
    Control(
        "answer", "Answer length", "workload.max_new_tokens", _doubled(64, 1 << 14), "1,024, or half the context"
    ),
    Control("users", "Requests at once", "workload.concurrency", (1, *_doubled(2, 512)), "as many as fit", "1"),
    Control(
        "prefill", "Prefill budget", "limits.max_batch_prefill_tokens", _doubled(512, 1 << 17),
        "what costs no context",
    ),
)  # fmt: skip
"""What the server has to carry."""
SHAPE = (
    Control(
        "params", "Parameters, billion", "",
        (0.5, 1, 1.5, 2, 3, 4, 7, 8, 9, 13, 14, 20, 27, 32, 34, 40, 47, 70, 72, 104, 123, 141, 180, 236, 405, 671),
    ),
    Control("bits", "Bits per weight", "", (2, 3, 4, 5, 6, 8, 16, 32), "", "16"),
    Control("layers", "Layers", "", tuple(range(8, 130, 2)), "", "not known"),
    Control("hidden", "Hidden size", "", tuple(range(512, 16896, 512)), "", "not known"),
)  # fmt: skip
"""What is known of a stated model."""
CHOICES = ("mode", "model", "gpu", "count", "release", "quantize", "kv")
NAMES = (*CHOICES, *(control.name for control in (*LOAD, *SHAPE)))
DEFAULTS: Mapping[str, str] = MappingProxyType(
    {"mode": "checkpoint", "model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "nvidia-l4", "count": "", "params": "7"}
)
"""What an address without a name means."""


@dataclass(frozen=True)
class State:
    """The page as it stands: texts by name, as a visitor wrote them."""

    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What was given; what is empty or a default is left out."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the address itself."""

    def __getitem__(self, name: str) -> str:
        return self.texts.get(name, DEFAULTS.get(name, ""))

    @property
    def stated(self) -> bool:
        """Whether the model is stated by its size."""
        return self["mode"] == "stated"

    def link(self, **changed: str) -> str:
        """The query string that restores this page, or one with some texts changed."""
        texts = {**self.texts, **changed}
        return urlencode([(name, texts[name]) for name in NAMES if texts.get(name)])


def read(pairs: Iterable[tuple[str, str]]) -> State:
    """The state of a query string. What cannot be read is left out and told; a secret is not even kept."""
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for name, raw in pairs:
        text = raw.strip()
        if not text:
            continue
        if looks_secret(text) or looks_secret(name):
            said = "a token stood in the address and was left out"
            problems.append(Problem(said, "The page needs none; treat that token as known to others."))
        elif name not in NAMES:
            if len(problems) < MOST_PROBLEMS:
                hint = did_you_mean(name, NAMES) or f"Known are {', '.join(NAMES)}."
                problems.append(Problem(f"{named(name)!r} is nothing this page knows", hint))
        elif len(text) > LONGEST or not text.isprintable():
            problems.append(Problem(f"{name} is too long, or holds characters that cannot be shown", None))
        elif name in texts:
            problems.append(Problem(f"{name} is given twice", "The first is taken."))
        elif text != DEFAULTS.get(name):
            texts[name] = text
    if texts.get("mode", MODES[0]) not in MODES:
        problems.append(Problem(f"mode {texts.pop('mode')!r} is not known", f"Known are {' and '.join(MODES)}."))
    return State(MappingProxyType(texts), tuple(problems))


MOST_PROBLEMS = 10
"""Unknown names that are told."""


def spec(state: State) -> Spec:
    """The deployment a state asks for, as the command line would read it; its errors are those of the command line."""
    problems = list(state.problems)
    tree: dict[str, dict[str, Any]] = {"model": {}, "hardware": {}, "tgi": {}, "limits": {}, "workload": {}}
    for name, path in (
        ("model", "model.id"), ("gpu", "hardware.gpu"), ("release", "tgi.release"), ("quantize", "model.quantize"),
        ("kv", "model.kv_cache_dtype"),
    ):  # fmt: skip
        section, _, key = path.partition(".")
        if state[name]:
            tree[section][key] = state[name]
    if state["gpu"].lower() == "auto":
        problems.append(Problem("the page cannot look at your machine", "Name a GPU or a cloud instance."))
    for name, label, path in (
        ("count", "GPUs", "hardware.count"),
        *((one.name, one.label, one.path) for one in LOAD),
    ):
        if state[name]:
            section, _, key = path.partition(".")
            tree[section][key] = whole(state[name], label, MOST[name], problems)
    _raise(problems)
    check_id(state["model"])  # never a folder of the machine that serves the page
    return read_any({name: section for name, section in tree.items() if section})


def shape(state: State) -> rough.Shape:
    """The stated model; UsageError lists what cannot be read."""
    problems = list(state.problems)
    billions = _number(state["params"], "Parameters", 1e5, problems)
    bits = _number(state["bits"] or "16", "Bits per weight", 64, problems)
    layers = whole(state["layers"], "Layers", 10_000, problems) if state["layers"] else None
    hidden = whole(state["hidden"], "Hidden size", 1 << 20, problems) if state["hidden"] else None
    _raise(problems)
    return rough.Shape(billions * 1e9, bits, layers, hidden)


def stated_load(state: State) -> tuple[int, int]:
    """(requests at once, tokens of each) of a stated model; one of 4,096 tokens where nothing is said."""
    problems: list[Problem] = []
    users = whole(state["users"] or "1", "Requests at once", MOST["users"], problems)
    tokens = whole(state["context"] or "4096", "Context", MOST["context"], problems)
    _raise(problems)
    return users, tokens


def whole(text: str, label: str, most: int, problems: list[Problem]) -> int:
    """A count from 1 on; what is wrong goes to the problems."""
    try:
        value = parse_count(text)
    except ValueError as error:
        problems.append(Problem(f"{label}: {error}", None))
        return 1
    if not 1 <= value <= most:
        problems.append(Problem(f"{label}: {text} is not between 1 and {most:,}", None))
        return 1
    return value


def _number(text: str, label: str, most: float, problems: list[Problem]) -> float:
    """A positive number; what is wrong goes to the problems."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        problems.append(Problem(f"{label}: {text!r} is no number above 0 and up to {most:,.0f}", None))
        return 1.0
    return value


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise UsageError("This cannot be read." if len(problems) > 1 else f"{problems[0].message}.",
                         problems[0].hint if len(problems) == 1 else None,
                         problems if len(problems) > 1 else ())  # fmt: skip
