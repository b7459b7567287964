"""Replays that are kept are what is replayed, and are not taken where code or tables have changed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_advisor.estimate import defaults, geometry, warmup
from tgi_advisor.estimate.peak import Batch
from tgi_advisor.estimate.replay import known, peaks, remembered
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import gpu, release, replayed, shelf
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.gather import snapshot
from tgi_advisor.search import search
from tgi_advisor.search.launch import refused
from tgi_advisor.spec.reader import read_any
from tgi_advisor.spec.records import TgiSpec

MODELS = sorted(snapshot.recorded_ids())
CARDS = ("nvidia-t4", "nvidia-l4", "nvidia-a100-80gb-sxm", "nvidia-h100-sxm", "amd-mi300x")


@cache
def launch(model: str, card: str) -> Setting:
    """A shipped model on one GPU, with the newest release and nothing asked for."""
    there, recorded = gpu.find(card), snapshot.find(model)
    assert recorded is not None
    facts = Facts(recorded, there, 1, release.latest()).elsewhere(there, 1)
    return defaults.resolve(read_any({"model": {"id": model}, "hardware": {"gpu": card}}), facts)


OLDER = [one for one in release.all_releases() if (2, 3, 0) <= one.version < release.latest().version]
PAIRS = [(model, card) for model in MODELS for card in CARDS]


def test_what_is_kept_is_current() -> None:
    assert replayed.is_current(), "run: python scripts/compile_tables.py"


def test_something_is_kept_of_every_launch_that_is_searched() -> None:
    there = [one for model in MODELS if not refused(one := launch(model, "nvidia-h100-sxm"))]
    missing = [one.facts.model.id for one in there if known(one) and remembered.of(Alike(one)) is None]
    assert missing == []


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([pair for pair in PAIRS if known(launch(*pair))]), st.integers(1, 3), st.integers(64, 1 << 17),
    st.integers(0, 1 << 14),
)  # fmt: skip
def test_a_launch_that_is_known_adds_what_it_adds_unknown(
    pair: tuple[str, str], requests: int, longest: int, blocks: int
) -> None:
    setting = launch(*pair)
    g = geometry.of(setting)
    batch = Batch(requests, requests * longest, longest, blocks)
    before, anew = peaks.Peaks(setting, g, remembered.of(Alike(setting))), peaks.Peaks(setting, g)
    assert before.loaded == anew.loaded
    assert before.at(batch) == anew.at(batch)
    assert before.roughly(batch) == anew.roughly(batch)
    assert before.seen(requests, longest) == anew.seen(requests, longest)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([pair for pair in PAIRS if known(launch(*pair))]), st.sampled_from(OLDER), st.sampled_from((1, 2)),
    st.integers(64, 1 << 15), st.integers(0, 1 << 14),
)  # fmt: skip
def test_an_older_release_that_is_known_by_the_newest_adds_what_it_adds_unknown(
    pair: tuple[str, str], older: TgiRelease, count: int, tokens: int, blocks: int
) -> None:
    newest = launch(*pair)
    facts = newest.facts._replace(release=older, gpu_count=count)
    setting = defaults.resolve(replace(newest.spec, tgi=TgiSpec(num_shard=count)), facts)
    g, batch = geometry.of(setting), Batch(1, tokens, tokens, blocks)
    before = remembered.of(Alike(setting)) if known(setting) else None
    if before is None:
        return
    kept, anew = peaks.Peaks(setting, g, before), peaks.Peaks(setting, g)
    assert kept.loaded == anew.loaded
    assert kept.at(batch) == anew.at(batch)
    assert kept.roughly(batch) == anew.roughly(batch)


def test_most_of_the_last_ten_releases_are_known_by_the_newest() -> None:
    llama = launch("meta-llama/Llama-3.1-8B-Instruct", "nvidia-l4")
    found = [one.name for one in OLDER if remembered.of(Alike(_with(llama, one))) is not None]
    assert found == [one.name for one in OLDER if one.version >= (3, 0, 2)]


def _with(setting: Setting, older: TgiRelease) -> Setting:
    return defaults.resolve(setting.spec, setting.facts._replace(release=older))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(PAIRS))
def test_a_search_ends_alike_with_what_is_kept_and_without(pair: tuple[str, str]) -> None:
    setting = launch(*pair)
    found = search(_afresh(setting))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(remembered, "of", lambda launch: None)
        assert search(_afresh(setting)) == found


@pytest.mark.parametrize("content", [None, b"", b"no line of JSON", b"{}\n", b'{"of": 1, "at": {}}\n'])
def test_of_other_code_nothing_is_taken(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = remembered.name(Alike(launch(MODELS[0], "nvidia-l4")))
    monkeypatch.setattr(replayed, "FILE", tmp_path / "replays.bin")
    if content is not None:
        replayed.FILE.write_bytes(content)
    shelf._index.cache_clear()
    assert replayed.find(named) is None
    monkeypatch.undo()
    assert replayed.is_current()


def test_a_file_that_is_cut_off_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = tmp_path / "replays.bin"
    cut.write_bytes(replayed.FILE.read_bytes()[:-100_000])
    monkeypatch.setattr(replayed, "FILE", cut)
    shelf._index.cache_clear()
    named = [remembered.name(Alike(launch(model, "nvidia-l4"))) for model in MODELS]
    found = [replayed.find(one) for one in named]
    monkeypatch.undo()
    assert replayed.is_current()
    assert any(one is None for one in found)
    assert any(one is not None for one in found)


def _afresh(setting: Setting) -> warmup.Base:
    peaks._peaks.cache_clear()
    warmup._common.cache_clear()
    return warmup.base(setting)
