"""Answers that are kept say what the search says, and are not taken where code or tables have changed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from front import run
from hypothesis import given, settings
from hypothesis import strategies as st

import tgi_advisor
from tgi_advisor import ask
from tgi_advisor.choose.compare import COUNTS
from tgi_advisor.choose.fits import on
from tgi_advisor.choose.option import Option, judge, remembered
from tgi_advisor.facts import answered, gpu, release, shelf
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.reader import read_any

MODELS = sorted(snapshot.recorded_ids())
CARDS = sorted(row.name for row in gpu.all_gpus() if row.facts is not None)
QUESTION = read_any({"model": {"id": MODELS[0]}, "hardware": {"gpu": CARDS[0]}})
ASKED_FOR: dict[str, Any] = {
    "limits": {"max_total_tokens": {"max": 2048}},
    "workload": {"concurrency": 2},
    "hardware": {"gpu": "nvidia-l4", "headroom": "1GiB"},
    "tgi": {"flags": {"max-batch-size": 4}},
}
"""Sections of a spec that a search heeds."""


@cache
def kept(count: int) -> dict[str, answered.Answers]:
    """The answers for so many of every GPU."""
    return {model: answered.find(model, count) for model in MODELS}


@pytest.mark.parametrize("count", COUNTS)
def test_there_is_an_answer_for_every_model_on_every_card_but_gaudi(count: int) -> None:
    assert answered.is_current(), "run: python scripts/compile_tables.py"
    wanted = {name for name in CARDS if gpu.find(name).system != "gaudi"}
    assert all(wanted <= set(cards) <= set(CARDS) for cards in kept(count).values())


@settings(max_examples=80, deadline=None)
@given(st.sampled_from([(m, c, n) for n in COUNTS for m, cards in kept(n).items() for c in cards]))
def test_an_answer_is_what_the_search_finds(asked_for: tuple[str, str, int]) -> None:
    model, card, count = asked_for
    known, there = snapshot.find(model), gpu.find(card)
    assert known is not None
    facts = Facts(known, there, count, release.latest()).elsewhere(there, count)
    asked = on(QUESTION, facts)
    asked = replace(asked, tgi=replace(asked.tgi, num_shard=count))
    found, again = judge(asked, facts), remembered(asked, facts, kept(count)[model][card])
    assert again == found
    assert again.spec == found.spec
    assert again.speed == found.speed


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(CARDS), st.booleans())
def test_a_comparison_says_the_same_without_what_is_kept(model: str, card: str, image: bool) -> None:
    official = {"tgi": {"image": release.image_for(release.latest())}, "container": {"name": "mine"}}
    spec = {"model": {"id": model}, "hardware": {"gpu": "nvidia-l4"}} | (official if image else {})
    _says_the_same(spec, card)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(CARDS), st.sampled_from((1024, 4096, 20_000, 200_000)))
def test_a_comparison_with_a_floor_says_the_same_without_what_is_kept(model: str, card: str, floor: int) -> None:
    limits = {"max_total_tokens": {"min": floor}, "max_batch_prefill_tokens": {"min": 512}}
    _says_the_same({"model": {"id": model}, "hardware": {"gpu": "nvidia-l4"}, "limits": limits}, card)


def _says_the_same(spec: dict[str, Any], card: str) -> None:
    found = tgi_advisor.compare(spec, gpu=[card])
    kept = [one for one in found.options if one.searched is None]
    assert kept or gpu.find(card).system == "gaudi" or "limits" in spec
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ask, "_answers", lambda *_: {})
        again = tgi_advisor.compare(spec, gpu=[card])
    assert all(searched(one) for one in again.options)
    assert found == again
    assert found.records() == again.records()


def searched(option: Option) -> bool:
    """Whether an option was searched now, or refused before there was anything to search."""
    return option.searched is not None or option.outcome == "refused"


@pytest.mark.parametrize("section", ASKED_FOR)
def test_of_a_spec_that_asks_for_more_nothing_is_taken(section: str) -> None:
    spec = {"model": {"id": "gpt2"}, "hardware": {"gpu": "nvidia-l4"}} | {section: ASKED_FOR[section]}
    found = tgi_advisor.compare(spec, gpu=["nvidia-l4"], count=[1])
    assert found.options
    assert all(one.searched is not None for one in found.options)


@pytest.mark.parametrize("content", [None, b"", b"no line of JSON", b"{}\n", b'{"of": 1, "at": {}}\n'])
def test_of_other_code_none_is_taken(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answered, "FILE", tmp_path / "answers.bin")
    if content is not None:
        answered.FILE.write_bytes(content)
    assert answered.find("gpt2", 1) == {}
    shelf._index.cache_clear()


def test_the_newest_release_by_its_name_is_answered_alike() -> None:
    named = run("fits", "--release", release.latest().name, "--format", "csv")
    assert named.code == 0
    assert named.out == run("fits", "--format", "csv").out
