"""`inspect` on what servers of several releases said, and on `/metrics` as the releases' sources make it."""

from __future__ import annotations

import json
import re

import pytest
from front import run
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import (
    FOLDER,
    Recorded,
    Served,
    answers,
    families,
    metrics,
    parts,
    published,
    recorded,
    served,
    table,
)
from serving import serving

from tgi_advisor.errors import Exit
from tgi_advisor.metrics import load, traffic

SERVED = 97534
"""Characters of a real server's metrics without HELP; with it they have the 98,977 that were published."""
SERVERS = {one.name: one for one in recorded()}
BUSY = Served(generated=300, chat=100, failed={"overloaded": 5, "validation": 3}, queued=4, running=9, held=900)
READ = frozenset(
    {
        "tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens", "tgi_request_count",
        "tgi_request_success", "tgi_request_failure", "tgi_request_input_length", "tgi_request_generated_tokens",
        "tgi_request_queue_duration", "tgi_request_duration", "tgi_request_mean_time_per_token_duration",
        "tgi_batch_inference_duration", "tgi_batch_next_size",
    }
)  # fmt: skip
"""What `tgi_advisor.metrics` reads."""


def test_the_table_says_where_each_was_published_and_holds_several_releases() -> None:
    said = [one for one in recorded() if not one.made]
    assert len({one.release for one in said}) >= 4
    assert {parts(one.release)[:2] for one in recorded()} >= {(1, 2), (1, 4), (2, 0), (2, 3), (3, 3)}
    assert (FOLDER / "info.yaml").read_text("utf-8").count("source: ") == len(recorded())


@pytest.mark.parametrize("name", SERVERS)
def test_what_it_prints(golden: Golden, name: str) -> None:
    one = SERVERS[name]
    machine = _machine(one)
    with serving(answers(one, BUSY)) as (url, _):
        ran = run("inspect", url, *machine)
        said = json.loads(run("inspect", url, *machine, "--json").out)["servers"][0]
    assert (ran.code, ran.err) == (Exit.STARTS, "")
    golden(f"inspect/recorded/{name}.txt", re.sub(r"127\.0\.0\.1:\d+", "localhost:8080", ran.out))
    info = one.info
    assert (said["model"], said["release"]) == (info["model_id"], info["version"])
    assert said["max_total_tokens"] == info["max_total_tokens"]
    assert said["max_input_tokens"] == info.get("max_input_tokens", info.get("max_input_length"))
    assert said["max_concurrent_requests"] == info["max_concurrent_requests"]
    if "max_batch_total_tokens" in info:
        assert said["max_batch_total_tokens"] == info["max_batch_total_tokens"]
    assert (said["answered"], said["failed"], said["queued"], said["running"]) == (400, 8, 4, 9)
    assert said["requests"] == 421


def _machine(one: Recorded) -> list[str]:
    """What has to be said of a machine that was published."""
    if not one.gpu:
        return []
    return ["--gpu", one.gpu, "--count", str(one.gpus), *(["--model", one.model] if one.model else [])]


@pytest.mark.parametrize("release", table()["releases"])
def test_a_release_exports_what_is_read(release: str) -> None:
    assert set(families(release)) >= READ


def test_a_real_server_exports_what_the_sources_say() -> None:
    text, known = served(), families("3.3.7")
    assert len(text) == SERVED
    kinds = {
        name: next(key for key in one if key != "name") for one in published()["families"] for name in [one["name"]]
    }
    assert kinds == {
        name: "summary" if one.get("buckets") == "speculate" else one["kind"] for name, one in known.items()
    }
    for family in published()["families"]:
        one = known[family["name"]]
        labels = {key: set(one[key]) for key in ("method", "err", "reason") if key in one}
        seen = [re.fullmatch(r'(\w+)="(\w+)"', label) for value in family.values() if isinstance(value, dict)
                for label in value if "=" in label]  # fmt: skip
        assert all(found is not None and found[2] in labels[found[1]] for found in seen)
        assert bool(seen) == bool(labels)
    for end in ("0.00015000000000000001", "0.0011390624999999999", "145.61096060497135", "511.00000000000006", "512",
                "179.20000000000002", "1024"):  # fmt: skip
        assert f'le="{end}"' in text


def test_what_a_real_server_has_done_is_read() -> None:
    seen, done = load(served(), "here"), traffic(served(), "here")
    assert (seen.requests, seen.answered, dict(seen.failed)) == (111, 109, {"validation": 2})
    assert (seen.queued, seen.running, seen.held, seen.generated) == (0, 0, 0, 3423)
    assert seen.prompt_tokens == pytest.approx(662 / 109)
    assert seen.waited == pytest.approx(295.275961956 / 109)
    assert seen.took == pytest.approx(541.214031616 / 109)
    assert (done.requests, done.prompts, done.prefills, done.decodes) == (109, 109, 16, 1509)
    assert done.decode_seconds / done.decodes == pytest.approx(0.05986, rel=1e-3)
    info = {**SERVERS[next(iter(SERVERS))].info, "version": "3.3.5", "max_input_tokens": 511, "max_total_tokens": 512}
    with serving({"/info": json.dumps(info), "/metrics": served(), "/health": ""}) as (url, _):
        ran = run("inspect", url)
    assert ran.code == Exit.STARTS
    assert "109 answered; failed: 2 validation" in ran.out


counts = st.integers(0, 5000)


@pytest.mark.parametrize("release", table()["releases"])
@settings(max_examples=4, deadline=None)
@given(
    served=st.builds(
        Served, generated=counts, chat=counts, queued=counts, running=counts, held=counts,
        failed=st.dictionaries(st.sampled_from(["overloaded", "validation", "generation"]), st.integers(1, 99)),
        prompt=st.integers(1, 4000), answer=st.integers(1, 4000), waited=st.floats(0, 60),
        per_token=st.floats(0.001, 1),
    )
)  # fmt: skip
def test_what_was_done_is_what_is_read(release: str, served: Served) -> None:
    total = served.answered + sum(served.failed.values()) + served.queued + served.running
    if not total:
        return
    info = {"version": release, "max_input_tokens": 3000, "max_total_tokens": 4096}
    text = metrics(served, info)
    seen = load(text, "here")
    assert (seen.answered, dict(seen.failed)) == (served.answered, dict(served.failed))
    assert (seen.queued, seen.running, seen.held) == (served.queued, served.running, served.held)
    assert seen.requests == total
    if served.answered:
        assert seen.prompt_tokens == pytest.approx(served.prompt)
        assert seen.answer_tokens == pytest.approx(served.answer)
        assert seen.waited == pytest.approx(served.waited)
        assert seen.per_token == pytest.approx(served.per_token)
        done = traffic(text, "here")
        assert (done.requests, done.prefills) == (served.answered, served.answered)
        assert done.decodes == served.answered * served.answer // 4
