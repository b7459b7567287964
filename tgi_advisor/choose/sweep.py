"""`sweep`: what changes when one thing is turned.

Each step is the spec with the varied fields set; what is left open is searched as `advise` searches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tgi_advisor import tabular
from tgi_advisor.choose.axes import Axis
from tgi_advisor.choose.words import listed_short, without_room, wrapped
from tgi_advisor.plan import Method, Prediction
from tgi_advisor.spec.records import EMPTY
from tgi_advisor.tabular import Answer, Column, Table
from tgi_advisor.units import gib, thousands


@dataclass(frozen=True, repr=False)
class Step:
    """One step of a sweep."""

    values: tuple[str, ...]
    """What each axis is set to."""
    prediction: Prediction | None
    """What TGI does with it; None where that cannot be asked."""
    bound_by: str
    """What keeps the context from growing, why it does not start, or why it cannot be asked."""
    figures: Mapping[str, object] = EMPTY
    """Figures of the notebook's methods, by name."""
    gpus: int | None = None
    """GPUs there are; None where that is not known."""

    @property
    def starts(self) -> bool:
        """Whether TGI starts with the step."""
        return self.prediction is not None and self.prediction.outcome == "starts"

    @property
    def unused(self) -> str:
        """On how many of the GPUs it runs, where some are left over; else empty."""
        on, there = self.prediction.num_shard if self.prediction and self.starts else None, self.gpus
        return f"on {on} of the {there} GPUs" if on and there and on < there else ""


@dataclass(frozen=True, repr=False)
class Sweep(Answer):
    """A table of steps."""

    title: str
    """Model, hardware and release where all steps have them in common."""
    method: Method
    """Which estimate was used."""
    axes: tuple[Axis, ...]
    """What is varied."""
    steps: tuple[Step, ...]
    """The last axis changes fastest."""

    @property
    def chart(self) -> str:
        """What is worth drawing: requests at once against contexts, else the budget against prefills, else memory."""
        names = {axis.name for axis in self.axes}
        held = any(step.starts and step.prediction and step.prediction.concurrency for step in self.steps)
        if "max_total_tokens" in names and held:
            return "concurrency"
        return "budget" if "max_batch_prefill_tokens" in names and held else "memory"

    @property
    def pooled(self) -> bool:
        """Whether the memory of a step is that of all GPUs together, as the notebook's formulas count it."""
        return self.method != "tgi"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of memory, in the order they lie on a GPU."""
        names = [part.name for step in self.steps if step.prediction for part in step.prediction.parts]
        return tuple(dict.fromkeys(names))

    def table(self) -> Table:
        """One row for every step, with every part of the memory of the GPU that binds, in bytes."""
        varied = tuple(_axis_column(axis) for axis in self.axes)
        kept = [column for column in COLUMNS if column.key not in {axis.name for axis in self.axes}]
        parts = tuple(
            Column(f"{_key(name)}_bytes", name, "bytes", f"Memory of one GPU: {name}.") for name in self.parts
        )
        figures = tuple(dict.fromkeys(name for step in self.steps for name in step.figures))
        extra = tuple(Column(name, name, "text", "A figure of the notebook's formula.") for name in figures)
        rows = tuple(self._row(step, [column.key for column in kept], figures) for step in self.steps)
        return Table((*varied, *kept, *parts, *extra), rows)

    def _row(self, step: Step, keys: Sequence[str], figures: Sequence[str]) -> tuple[object, ...]:
        known = _facts_of(step)
        sizes = {part.name: part.bytes for part in step.prediction.parts} if step.prediction else {}
        turned = (_value(axis, value) for axis, value in zip(self.axes, step.values, strict=True))
        return (
            *turned, *(known[key] for key in keys), *(sizes.get(name) for name in self.parts),
            *(step.figures.get(name) for name in figures),
        )  # fmt: skip

    def text(self, width: int) -> str:
        """The steps as a terminal of so many columns shows them; parts of the memory go first where it is narrow."""
        table = tabular.without(self.table(), {name for step in self.steps for name in step.figures})
        less = [f"{_key(name)}_bytes" for name in self._by_size()]
        shown = tabular.without(table, {"why"} if all(step.starts for step in self.steps) else set())
        sizes = {gib(step.prediction.gpu_total_bytes) for step in self.steps if step.prediction}
        whole = ""
        if len(sizes) == 1:
            shown = tabular.without(shown, {"gpu_total_bytes"})
            whole = f"{'all GPUs together' if self.pooled else 'each GPU'} {sizes.pop()}"
        by = "" if self.method == "tgi" else f"by the formula {self.method}"
        title = ", ".join(filter(None, (self.title, by, whole)))
        spare = ("why", *less, "headroom_bytes", *LESS_WANTED)
        lines = [*wrapped(title, width), "", tabular.text(shown, width, spare)]
        missing = tabular.left_out(shown, width, spare)
        if missing:
            lines += ["", *wrapped("--format csv has every part of the memory.", width)]
        wanted = {column.heading for column in COLUMNS if column.key in LESS_WANTED}
        lines += without_room([heading for heading in missing if heading in wanted], width)
        return "\n".join([*lines, *self._left_over(width), *self._turns(width)])

    def _left_over(self, width: int) -> list[str]:
        """The steps that do not use all of their GPUs."""
        if self.pooled:
            return []
        told = [f"{self._words(step)} {step.unused}" for step in self.steps if step.unused]
        return ["", *wrapped(f"It runs with {listed_short(told)}.", width)] if told else []

    def _words(self, step: Step) -> str:
        """What a step sets."""
        return ", ".join(f"{axis.name} {_told(value)}" for axis, value in zip(self.axes, step.values, strict=True))

    def _by_size(self) -> list[str]:
        """The parts, those with the smallest largest size first, by the steps that start."""
        most = dict.fromkeys(self.parts, 0)
        for step in self.steps:
            for part in step.prediction.parts if step.prediction and step.starts else ():
                most[part.name] = max(most[part.name], part.bytes)
        return sorted(most, key=lambda name: most[name])

    def _turns(self, width: int) -> list[str]:
        """Why steps do not start: a reason once, and along one axis only where it first runs out of memory."""
        lines: list[str] = []
        told: list[Step] = []
        for number, step in enumerate(self.steps):
            if step.starts or not step.bound_by or any(_says_the_same(step, other) for other in told):
                continue
            told.append(step)
            lines += ["", *wrapped(f"{self._place(number)}: {step.bound_by}", width, "", "  ")]
        return lines

    def _place(self, number: int) -> str:
        """A step that does not start in words; `from` where it is the end of those along a range that do."""
        step, before = self.steps[number], self.steps[:number]
        words = []
        for i, (axis, value) in enumerate(zip(self.axes, step.values, strict=True)):
            turned = [one for one in before if _but(one.values, i) == _but(step.values, i)]
            word = f"{axis.name} {_told(value)}"
            words.append(f"from {word} on" if axis.ascends and any(one.starts for one in turned) else word)
        said = ", ".join(words)
        return said[:1].upper() + said[1:] if said.startswith("from ") else said


def _told(value: str) -> str:
    """A value as sentences write it."""
    return thousands(int(value)) if value.isascii() and value.isdecimal() else value


def _but(values: Sequence[str], at: int) -> tuple[str, ...]:
    """The values but for one."""
    return (*values[:at], *values[at + 1 :])


def _neighbours(one: Step, other: Step) -> bool:
    """Whether two steps differ in one axis."""
    return sum(a != b for a, b in zip(one.values, other.values, strict=True)) == 1


def _says_the_same(step: Step, told: Step) -> bool:
    """Whether the reason of a step is known from another: it is the same, or both run out of memory along one axis."""
    if step.bound_by == told.bound_by:
        return True
    short = all(one.prediction and one.prediction.outcome == "out_of_memory" for one in (step, told))
    return short and _neighbours(step, told)


COLUMNS = (
    Column("outcome", "FITS", "text", "`starts`, `out_of_memory` or `refused`."),
    Column("max_input_tokens", "INPUT", "count", "max_input_tokens."),
    Column("max_total_tokens", "CONTEXT", "count", "max_total_tokens."),
    Column("max_batch_prefill_tokens", "PREFILL", "count", "max_batch_prefill_tokens."),
    Column("max_batch_total_tokens", "BUDGET", "count", "Tokens of the whole KV cache, as TGI infers them."),
    Column("concurrency", "AT ONCE", "count", "Requests of max_total_tokens in the KV cache together."),
    Column("under_load", "UNDER LOAD", "text", "Whether it survives its traffic."),
    Column("headroom_bytes", "SPARE GiB", "bytes", "Memory of one GPU left over; negative: missing."),
    Column("gpu_total_bytes", "GPU GiB", "bytes", "Memory of one GPU."),
    Column("why", "BOUND BY", "text", "What keeps the context from growing, or why it does not start."),
)


LESS_WANTED = ("gpu_total_bytes", "max_input_tokens", "under_load")
"""Columns that go after the parts of the memory where a terminal is narrow."""


def _facts_of(step: Step) -> dict[str, object]:
    """The values of a step by the keys of `COLUMNS`."""
    seen = step.prediction
    if seen is None:
        return {**dict.fromkeys(column.key for column in COLUMNS), "outcome": "refused", "why": step.bound_by}
    limits = seen.limits
    return {
        "outcome": seen.outcome,
        "max_input_tokens": limits.max_input_tokens,
        "max_total_tokens": limits.max_total_tokens,
        "max_batch_prefill_tokens": limits.max_batch_prefill_tokens,
        "max_batch_total_tokens": limits.max_batch_total_tokens if step.starts else None,
        "concurrency": seen.concurrency if step.starts else None,
        "under_load": seen.under_load.verdict if step.starts and seen.under_load else None,
        "headroom_bytes": seen.headroom_bytes,
        "gpu_total_bytes": seen.gpu_total_bytes,
        "why": step.bound_by,
    }


def _axis_column(axis: Axis) -> Column:
    numbers = all(value.isdecimal() for value in axis.values)
    return Column(axis.name, axis.name.upper(), "count" if numbers else "text", f"{axis.path} of the step.")


def _value(axis: Axis, value: str) -> object:
    return int(value) if all(one.isdecimal() for one in axis.values) else value


def _key(name: str) -> str:
    """The name of a part as a key."""
    return "".join(character if character.isalnum() else "_" for character in name.lower())
