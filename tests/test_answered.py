"""Answers that are kept say what the search says, and are not taken where code or tables have changed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from front import run
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_advisor.choose.fits import on
from tgi_advisor.choose.option import judge, remembered
from tgi_advisor.facts import answered, gpu, release
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.reader import read_any

KEPT = answered.recalled()
MODELS = sorted(snapshot.recorded_ids())
CARDS = sorted(row.name for row in gpu.all_gpus() if row.facts is not None)
QUESTION = read_any({"model": {"id": MODELS[0]}, "hardware": {"gpu": CARDS[0]}})


def test_there_is_an_answer_for_every_model_on_every_card_but_gaudi() -> None:
    assert sorted(KEPT) == MODELS, "run: python scripts/compile_tables.py"
    wanted = {name for name in CARDS if gpu.find(name).system != "gaudi"}
    assert all(wanted <= set(cards) <= set(CARDS) for cards in KEPT.values())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(model, card) for model, cards in KEPT.items() for card in cards]))
def test_an_answer_is_what_the_search_finds(pair: tuple[str, str]) -> None:
    model, card = pair
    known, there = snapshot.find(model), gpu.find(card)
    assert known is not None
    facts = Facts(known, there, 1, release.latest()).elsewhere(there, 1)
    asked = on(QUESTION, facts)
    found, kept = judge(asked, facts), remembered(asked, facts, KEPT[model][card])
    assert kept == found
    assert kept.spec == found.spec


@pytest.mark.parametrize("content", [None, b"", b"no gzip", b"{}", b'{"of": "other code"}'])
def test_of_other_code_none_is_taken(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answered, "FILE", tmp_path / "everywhere.json.gz")
    if content is not None:
        answered.FILE.write_bytes(gzip.compress(content) if content.startswith(b"{") else content)
    assert answered.recalled() == {}


def test_the_newest_release_by_its_name_is_answered_alike() -> None:
    named = run("fits", "--release", release.latest().name, "--format", "csv")
    assert named.code == 0
    assert named.out == run("fits", "--format", "csv").out
