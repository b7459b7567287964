"""What a search saves by (tapes, an allocator that counts in units, replays shared between GPUs) changes no number.

The slow way is kept here: every layer of every launch is walked through anew, on the plainest allocator there is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_allocator import Piece, Plain

from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import adapters, defaults, geometry, replay
from tgi_advisor.estimate.allocator import Allocator, Block, OutOfMemoryError
from tgi_advisor.estimate.peak import Batch
from tgi_advisor.estimate.replay import graphs, loading, passes, peaks, tapes, vision
from tgi_advisor.estimate.replay import warmup as warming
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.records import GpuSpec, HardwareSpec, ModelSpec, Spec, TgiSpec
from tgi_advisor.units import MiB

EACH = 6
"""Launches drawn for every shipped model; about half of them TGI serves, with a sequence that is written down."""
BATCHES = (Batch(1, 2048, 2048, 2048), Batch(3, 4096, 1500, 4500), Batch(1, 700, 700, 60_000))
QUANTIZE = (None, None, None, "eetq", "fp8", "bitsandbytes", "bitsandbytes-nf4")
MODELS = sorted(snapshot.recorded_ids())


@cache
def _model(name: str) -> ModelFacts:
    found = snapshot.find(name)
    assert found is not None
    return found


def _launches(name: str) -> list[Setting]:
    """Launches of a model that are replayed, on GPUs of all kinds, drawn by its name."""
    draw = random.Random(name)
    cards = [row.facts for row in gpus.all_gpus() if row.facts is not None and row.facts.system in ("cuda", "rocm")]
    newest = releases.latest().name
    found = []
    for number in range(EACH):
        card, count = draw.choice(cards), draw.choice((1, 1, 2, 4, 8))
        release = draw.choice((newest, newest, draw.choice(releases.all_releases()).name))
        model = ModelSpec(id=name, quantize=draw.choice(QUANTIZE))
        if not number:  # what runs most of them
            card, count, release, model = gpus.find("nvidia-h200"), 8, newest, ModelSpec(id=name)
        hardware = HardwareSpec(gpu=GpuSpec(name=card.name), count=count)
        spec = Spec(model=model, hardware=hardware, tgi=TgiSpec(release=release, num_shard=count))
        try:
            facts = Facts(_model(name), card, count, releases.find(release)).elsewhere(card, count)
            setting = defaults.resolve(spec, facts, count)
            if setting.family.supported and replay.known(setting) and geometry.of(setting).kv_bytes_per_token:
                found.append(setting)
        except AdvisorError:
            continue
    return found


def _numbers(setting: Setting, seen: peaks.Peaks) -> list[Any]:
    """What a search reads of a launch's warm-ups."""
    g = geometry.of(setting)
    numbers: list[Any] = [seen.loaded, graphs.capture(setting, g, seen.loaded)]
    for batch in BATCHES:
        peak = seen.at(batch)
        numbers += [peak, seen.roughly(batch), seen.in_gaps(batch.blocks), seen.sharing]
        numbers += [seen.seen(batch.requests, batch.longest)]
    numbers.append(seen.squeezed(BATCHES[0], seen.at(BATCHES[0]).whole - 100 * MiB))
    return numbers


def _forget() -> None:
    for known in (graphs._pool, graphs._wrappers):
        known.cache_clear()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Goes the slow way from here on."""

    def walked(run: passes.Pass, _: object, part: Callable[..., Any], *given: Block | None) -> Any:
        return part(run, *given)

    def taken(memory: Allocator, part: Any, times: int) -> None:
        for _ in range(times):
            for step in part:
                step(memory)

    def apply() -> None:
        for module in (warming, loading, graphs, vision, adapters):
            monkeypatch.setattr(module, "Allocator", Plain)
        monkeypatch.setattr(passes.Pass, "play", walked)
        monkeypatch.setattr(tapes, "play", taken)
        _forget()

    return apply


@pytest.mark.parametrize("name", MODELS)
def test_a_launch_takes_what_it_takes_the_slow_way(name: str, slow: Callable[[], None]) -> None:
    launches = _launches(name)
    _forget()
    fast = [_numbers(one, peaks.peaks_of(one)) for one in launches]
    slow()
    assert fast == [_numbers(one, peaks.Peaks(one, geometry.of(one))) for one in launches]
    _forget()


def test_launches_of_most_models_are_compared() -> None:
    compared = [len(_launches(name)) for name in MODELS]
    assert sum(compared) >= 300
    assert sum(map(bool, compared)) >= 0.8 * len(MODELS)


SIZES = st.one_of(st.integers(0, 4 * MiB), st.integers(1, 64 * MiB))


@given(st.lists(st.tuples(SIZES, st.integers(0, 12)), min_size=1, max_size=80), st.sampled_from([None, 200 * MiB]))
def test_the_allocator_is_the_plain_one(steps: list[tuple[int, int]], most: int | None) -> None:
    ours, plain = Allocator(most=most), Plain(most=most)
    blocks: list[tuple[Block, Piece]] = []
    for size, place in steps:
        try:
            blocks.append((ours.new(size), plain.new(size)))
        except OutOfMemoryError:
            with pytest.raises(OutOfMemoryError):
                plain.new(size)
        if place < len(blocks):
            block, piece = blocks.pop(place)
            assert block.size == piece.size
            ours.release(block)
            plain.release(piece)
        for name in ("reserved", "alive", "most_alive", "peak", "in_small", "room", "emptied"):
            assert getattr(ours, name) == getattr(plain, name)
    assert ours.state() == plain.state()
    if most is None:
        ours.fill(steps[0][0], len(steps))
        plain.fill(steps[0][0], len(steps))
    ours.empty_cache()
    plain.empty_cache()
    assert ours.state() == plain.state()


@given(st.lists(st.tuples(SIZES, st.integers(0, 12)), min_size=1, max_size=80))
def test_a_tape_does_what_its_steps_do(steps: list[tuple[int, int]]) -> None:
    ours, recorder, played = Allocator(), tapes.Recorder(), Allocator()
    blocks: list[tuple[Block, Block]] = []
    for size, place in steps:
        blocks.append((ours.new(size), recorder.new(size)))
        if place < len(blocks):
            block, noted = blocks.pop(place)
            ours.release(block)
            recorder.release(noted)
    played.play(recorder.tape().units(0))
    for name in ("reserved", "alive", "most_alive", "peak", "in_small"):
        assert getattr(ours, name) == getattr(played, name)
    assert ours.state() == played.state()
