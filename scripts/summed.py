"""Which shipped models, on which cards and releases, are estimated by the sum of parts, and why: for docs/accuracy.md.

`estimate.replay.why_not` gives the reason; launches that TGI refuses are not listed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tgi_advisor import refusals
from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, replay
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.gather import checkpoint, snapshot
from tgi_advisor.spec.records import GpuSpec, HardwareSpec, ModelSpec, Spec, TgiSpec

CARDS = {
    "7.5": "nvidia-t4", "8.0": "nvidia-a100-80gb-sxm", "8.9": "nvidia-l40s", "9.0": "nvidia-h100-sxm",
    "ROCm": "amd-mi300x",
}  # fmt: skip
"""A card for each compute capability whose kernels differ, and for ROCm."""
HEADINGS = ("family", "quantization", "models", "cards", "releases", "reason")


class Summed(NamedTuple):
    """What shipped models of one kind have in common for one reason."""

    family: str
    """config.json's model_type."""
    quantization: str
    """How their weights are stored."""
    reason: str
    """Why they are not replayed."""


def rows() -> list[list[str]]:
    """The table: shipped models on one card of each kind, with every release, as they are launched without flags."""
    found: dict[Summed, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    models: dict[Summed, set[str]] = defaultdict(set)
    for alike in _alike():
        for card in CARDS:
            for setting in _settings(alike[0], card):
                why = replay.why_not(setting)
                if why and setting.family.supported and not refusals.shard_refusals(setting):
                    kind = Summed(setting.family.model_type, checkpoint.quantization(alike[0].config) or "16 bits", why)
                    found[kind][card].add(setting.facts.release.name)
                    models[kind].update(model.id for model in alike)
    return [row for kind in sorted(found) for row in _rows(kind, len(models[kind]), found[kind])]


def _alike() -> list[list[ModelFacts]]:
    """The shipped models, those in one list that differ in their tensors' sizes alone."""
    groups: dict[str, list[ModelFacts]] = defaultdict(list)
    for name in snapshot.recorded_ids():
        model = snapshot.find(name)
        assert model is not None
        numbers = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "eos_token_id")
        config = {key: value for key, value in model.config.items() if key not in numbers}
        names = [(group.name, group.dtype) for group in model.tensors]
        groups[repr((sorted(config.items(), key=str), names))].append(model)
    return list(groups.values())


def _settings(model: ModelFacts, card: str) -> Iterator[Setting]:
    """A model's launches on one card, with every release that has an image for it."""
    gpu = gpus.find(CARDS[card])
    for release in releases.all_releases():
        spec = Spec(
            model=ModelSpec(id=model.id),
            hardware=HardwareSpec(gpu=GpuSpec(name=gpu.name), count=1),
            tgi=TgiSpec(release=release.name),
        )
        try:
            facts = Facts(model, gpu, 1, release).elsewhere(gpu, 1, release.name)
            yield defaults.resolve(spec, facts, 1)
        except AdvisorError:  # no image, or nothing is known of what it would make of the model
            continue


def _rows(kind: Summed, models: int, found: dict[str, set[str]]) -> Iterator[list[str]]:
    """A row for every set of releases; cards with the same ones share it."""
    cards: dict[str, list[str]] = defaultdict(list)
    for card, names in found.items():
        cards[_spans(names)].append(card)
    for spans, sharing in cards.items():
        on = "all" if len(sharing) == len(CARDS) else ", ".join(sharing)
        yield [kind.family, kind.quantization, str(models), on, spans, kind.reason]


def _spans(names: set[str]) -> str:
    """Releases as spans of those that follow each other: `1.0.0 to 1.4.5, 2.0.4`."""
    every: Sequence[str] = [release.name for release in releases.all_releases()]
    spans: list[list[str]] = []
    for number, name in enumerate(every):
        if name in names:
            if number and every[number - 1] in names:
                spans[-1].append(name)
            else:
                spans.append([name])
    return ", ".join(one[0] if len(one) == 1 else f"{one[0]} to {one[-1]}" for one in spans)
