"""The release table and the images it is asked about."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor.errors import AdvisorError, FactsError, SpecError
from tgi_advisor.facts import release as releases
from tgi_advisor.facts import tables
from tgi_advisor.facts.release import TgiRelease, find, from_image, image_env, image_for

ROWS = tables.load("releases")
ALL = releases.all_releases()
NAMES = [release.name for release in ALL]
CITATION = re.compile(r"[\w./-]+@v\d+\.\d+\.\d+:\d+(,\d+)*( \(.+\))?")


def test_the_table_reaches_from_1_0_0_to_3_3_7_in_order() -> None:
    assert (NAMES[0], NAMES[-1], len(NAMES)) == ("1.0.0", "3.3.7", 47)
    assert [release.version for release in ALL] == sorted(release.version for release in ALL)
    assert [release.date for release in ALL] == sorted(release.date for release in ALL)
    assert len({release.commit for release in ALL}) == len(ALL)


@pytest.mark.parametrize(("before", "after"), list(pairwise(NAMES)))
def test_a_row_holds_only_what_changed(before: str, after: str) -> None:
    old = find(before)
    for field, value in ROWS[after].items():
        if field not in ("sources", "date"):  # two releases were made on one day
            assert getattr(old, field) != (tuple(value) if isinstance(value, list) else value), field


@pytest.mark.parametrize("name", NAMES)
def test_every_field_says_where_it_was_read(name: str) -> None:
    cited = releases.sources(find(name))
    assert set(cited) == set(TgiRelease._fields) - {"version", "date", "commit", "source"}
    assert all(CITATION.fullmatch(source) for source in cited.values())
    for field, source in ROWS[name].get("sources", {}).items():
        if field != "launcher_wiggle":  # not read before 3.0.0
            assert f"@v{name}:" in source


def test_every_value_is_one_its_field_allows() -> None:
    for field, hint in get_type_hints(TgiRelease).items():
        legal = get_args(hint) if "Literal" in str(hint) else ()
        for release in ALL:
            value = getattr(release, field)
            assert value in legal if legal else isinstance(value, getattr(hint, "__origin__", hint)), (field, value)


def test_every_legal_word_is_used() -> None:
    for field, hint in get_type_hints(TgiRelease).items():
        if "Literal" in str(hint):
            assert {getattr(release, field) for release in ALL} == set(get_args(hint)), field


BOUNDARIES = [
    ("wiggle", {"1.0.0": 1.0, "1.4.1": 0.95, "2.4.0": 0.90, "3.0.0": 0.95, "3.1.0": 0.93, "3.3.0": 0.90}),
    ("wiggle_of", {"1.0.0": "free", "3.0.0": "total"}),
    ("wiggle_env", {"1.0.0": False, "2.3.0": True}),
    ("warmup_new_tokens", {"1.0.0": "two", "1.1.1": "rest"}),
    ("warmup_limits_optional", {"1.0.0": False, "2.4.1": True}),
    ("speculate_in_blocks", {"1.0.0": False, "1.3.0": True}),
    ("warmup_blocks_back", {"1.0.0": "always", "2.1.0": "if_unfinished", "2.4.1": "always"}),
    ("batch_size_caps_warmup", {"1.0.0": False, "1.4.1": True}),
    ("batch_size_holds", {"1.0.0": False, "2.3.0": True}),
    ("prefill_logits", {"1.0.0": "two_copies", "2.4.0": "in_place", "3.0.0": "flag"}),
    ("prefill_default", {"1.0.0": "4096", "2.0.0": "max_input_plus_50", "2.4.1": "context_4096", "3.0.0": "compute"}),
    ("chunking", {"1.0.0": "none", "2.4.0": "off", "3.0.0": "on"}),
    ("vlm_chunking", {"1.0.0": False, "3.3.0": True}),
    ("cuda_graphs", {"1.0.0": "none", "1.4.1": "opt_in", "2.0.0": "default"}),
    ("graph_buffers", {"1.0.0": "per_size_request", "2.4.1": "per_size_total", "3.0.0": "shared_total"}),
    ("graph_errors", {"1.0.0": "none", "1.4.1": "any", "2.0.0": "out_of_memory"}),
    ("flashinfer_bytes", {"1.0.0": 0, "2.3.0": 159383552, "3.0.2": 235143168, "3.1.1": 226754560}),
    ("transformers_fallback", {"1.0.0": False, "3.0.2": True}),
    ("cache_env", {"1.0.0": "HUGGINGFACE_HUB_CACHE", "2.3.0": "HF_HOME"}),
    ("token_env", {"1.0.0": "HUGGING_FACE_HUB_TOKEN", "2.1.0": "HF_TOKEN"}),
    ("all_gpus_counts_one", {"1.0.0": True, "3.3.7": False}),
]


@pytest.mark.parametrize(("field", "changes"), BOUNDARIES)
def test_a_value_changes_exactly_where_the_source_changed(field: str, changes: dict[str, object]) -> None:
    found: dict[str, object] = {}
    for release in ALL:
        if not found or getattr(release, field) != list(found.values())[-1]:
            found[release.name] = getattr(release, field)
    assert found == changes


def test_a_misspelt_key_in_a_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {**ROWS["1.0.0"], "wigle": 0.9}
    monkeypatch.setattr(tables, "load", lambda name: {"1.0.0": first})
    with pytest.raises(ValueError, match=r"releases.yaml, 1.0.0: unknown key 'wigle'"):
        releases._merged.__wrapped__("1.0.0")


@pytest.mark.parametrize("release", ALL, ids=str)
def test_a_release_is_found_by_its_name_and_is_one_object(release: TgiRelease) -> None:
    assert find(str(release)) is release
    assert find(f"v{release}") is release


def test_a_minor_version_means_its_last_patch_and_latest_the_newest() -> None:
    assert [find(text).name for text in ("1.4", "2.0", "3.3", "latest")] == ["1.4.5", "2.0.4", "3.3.7", "3.3.7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3.2.9", "TGI 3.2.9 is not known\nthe nearest releases are '3.2.3' and '3.3.0'"),
        ("2.5", "TGI 2.5 is not known\nthe nearest releases are '2.4.1' and '3.0.0'"),
        ("0.9.4", "TGI 0.9.4 is not known\nthe oldest release that is known is 1.0.0"),
        (
            "v4.0.0",
            "TGI 4.0.0 is not known\nthe newest release that is known is 3.3.7: name it to estimate with its rules",
        ),
        (
            "newest",
            "'newest' is no TGI release\n"
            "write a version such as 3.3.7; `tgi-advisor releases` lists those that are known",
        ),
    ],
)
def test_an_unknown_release_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(FactsError) as caught:
        find(text)
    assert str(caught.value) == message


TGI = "ghcr.io/huggingface/text-generation-inference"
DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("image", "release", "variant", "certain"),
    [
        (f"{TGI}:3.3.7", "3.3.7", "", True),
        (f"{TGI}:3.3.7-rocm", "3.3.7", "rocm", True),
        (f"{TGI}:2.0", "2.0.4", "", True),
        (f"{TGI}:2.4-intel-cpu", "2.4.1", "intel-cpu", True),
        (f"{TGI}:3.3", "3.3.7", "", False),
        (f"{TGI}:latest", "3.3.7", "", False),
        (f"{TGI}:latest-intel-xpu", "3.3.7", "intel-xpu", False),
        (TGI, "3.3.7", "", False),
        (f"{TGI}@{DIGEST}", "3.3.7", "", False),
        (f"{TGI}:2.4.1@{DIGEST}", "2.4.1", "", False),
        (f"{TGI}:sha-dfb3fbe", "3.3.7", "", True),
        (f"{TGI}:sha-c38a7d7ddd9c612e368adec1ef94583be602fc7e-rocm", "2.0.0", "rocm", True),
        (f"{TGI}:2.2.0-intel", "2.2.0", "intel-xpu", True),
        (f"{TGI}:3.2.1-gaudi", "3.2.1", "gaudi", True),
        ("localhost:5000/tgi:3.0.2", "3.0.2", "", True),
        ("registry.example.com:8443/a/b/c:v3.1.0-rocm", "3.1.0", "rocm", True),
        ("[::1]:5000/tgi:3.0.2", "3.0.2", "", True),
        ("localhost:5000/tgi", "3.3.7", "", False),
        ("tgi:1.4.5", "1.4.5", "", True),
    ],
)
def test_an_image_tells_release_and_variant(image: str, release: str, variant: str, certain: bool) -> None:
    told = from_image(image)
    assert (told.release.name, told.variant, told.certain) == (release, variant, certain)
    assert bool(told.note) is not certain


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        ("", SpecError, "is no image reference"),
        (" ", SpecError, "is no image reference"),
        ("tgi:3.3.7 --privileged", SpecError, "is no image reference"),
        ("tgi:3.3.7\n", SpecError, "is no image reference"),
        ("$(reboot)", SpecError, "is no image reference"),
        ("--rm", SpecError, "is no image reference"),
        ("TGI:3.3.7", SpecError, "is no image reference"),
        ("tgi:３.3.7", SpecError, "is no image reference"),
        ("tgi@sha256:short", SpecError, "is no image reference"),
        ("a" * 100_000, SpecError, "is no image reference"),
        ("a-" * 50_000, SpecError, "is no image reference"),
        (f"{TGI}:3.3.7-trtllm", FactsError, "TensorRT-LLM back end, which has its own router"),
        (f"{TGI}:3.3.7-neuron", FactsError, "AWS Neuron back end"),
        (f"{TGI}:3.3.7-llamacpp", FactsError, "llama.cpp back end"),
        (f"{TGI}:1.1.1-rocm", FactsError, "TGI 1.1.1 has no rocm image\nthe first release that has one is 1.2.0"),
        (f"{TGI}:2.2.0-intel-cpu", FactsError, "the first release that has one is 2.3.0 (2.3.0-intel-cpu)"),
        (f"{TGI}:3.2.0-gaudi", FactsError, "the first release that has one is 3.2.1"),
        (f"{TGI}:3.3.7-intel", FactsError, "no variant of TGI 3.3.7"),
        (f"{TGI}:3.3.8", FactsError, "TGI 3.3.8 is not known"),
        (f"{TGI}:nightly", FactsError, "state it: tgi.release beside tgi.image"),
        (f"{TGI}:sha-0123456", FactsError, "state the release nearest to it"),
        ("dlc:2.4.0-tgi2.4.0-gpu-py311-cu124-ubuntu22.04-v2.2", FactsError, "state tgi.release"),
    ],
)
def test_an_image_that_tells_nothing_is_refused(image: str, error: type[AdvisorError], words: str) -> None:
    with pytest.raises(error) as caught:
        from_image(image)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_stated_release_stands_beside_an_image_of_ones_own() -> None:
    stated = find("3.2.0")
    for image, variant in (
        ("tgi", ""),
        ("tgi:nightly", ""),
        ("tgi:mine-rocm", "rocm"),
        ("tgi:sha-0123456-rocm", "rocm"),
        ("tgi:3.2.0-patched", ""),
        ("tgi:latest-rocm", "rocm"),
        (f"tgi:mine@{DIGEST}", ""),
    ):
        told = from_image(image, stated)
        assert (told.release, told.variant, told.certain, told.note) == (stated, variant, True, "")
    with pytest.raises(SpecError, match=r"is TGI 3.1.0, but the spec says release 3.2.0"):
        from_image("tgi:3.1.0", stated)
    with pytest.raises(FactsError, match="TensorRT-LLM"):
        from_image("tgi:mine-trtllm", stated)
    unknown = from_image("tgi:3.9.1-rocm", stated)
    assert unknown == (stated, "rocm", False, "TGI 3.9.1 of tag '3.9.1-rocm' is not known; taken as the 3.2.0 stated")


@pytest.mark.parametrize("release", ALL, ids=str)
def test_every_image_tgi_published_leads_back_to_its_release(release: TgiRelease) -> None:
    for variant in releases.variants(release):
        told = from_image(image_for(release, variant))
        assert (told.release, told.variant, told.certain) == (release, variant, True)
        env = image_env(release, variant)
        assert env["PORT"] == "80"
        assert env[releases.cache_env(release, variant)] == "/data"


def test_an_image_that_never_was_is_refused() -> None:
    with pytest.raises(FactsError, match=r"TGI 1\.0\.0 has no rocm image"):
        image_for(find("1.0.0"), "rocm")
    with pytest.raises(FactsError, match="'tpu' is no image variant"):
        image_for(find("3.3.7"), "tpu")


def test_the_environment_of_images() -> None:
    assert image_env(find("2.2.0")) == {"PORT": "80", "HUGGINGFACE_HUB_CACHE": "/data"}
    assert image_env(find("3.3.7")) == {"PORT": "80", "HF_HOME": "/data"}
    assert image_env(find("2.3.1"), "rocm")["USE_PREFIX_CACHING"] == "0"
    assert image_env(find("3.3.7"), "rocm") == {
        "PORT": "80", "HF_HOME": "/data", "ATTENTION": "paged", "PREFIX_CACHING": "0", "PREFILL_CHUNKING": "0",
    }  # fmt: skip
    assert image_env(find("3.0.1"), "intel-cpu")["ATTENTION"] == "paged"
    assert image_env(find("3.0.2"), "intel-cpu")["ATTENTION"] == "flashdecoding-ipex"
    assert releases.cache_env(find("3.3.7"), "intel-cpu") == "HUGGINGFACE_HUB_CACHE"
    assert image_env(find("3.3.7"), "gaudi")["ATTENTION"] == "paged"


def test_every_variant_of_the_image_table_has_a_source_for_each_change() -> None:
    table = tables.load("images")
    assert set(table) == {"repository", "variants", "other_router", "by_hand", "older"}
    assert list(map(releases.version, table["older"])) == sorted(map(releases.version, table["older"]))
    for row in table["variants"].values():
        tables.strict(row, {"what", "tag", "env", "sources"}, {"what", "tag", "env", "sources"}, "images.yaml")
        assert list(row["env"]) == list(row["sources"])
        assert next(iter(row["env"])) == next(iter(row["tag"]))
        assert all(CITATION.fullmatch(source) for source in row["sources"].values())


@given(st.text() | st.from_regex(r"[a-z.:/@0-9-]{1,40}"))
def test_any_text_is_an_image_or_a_clear_refusal(text: str) -> None:
    try:
        told = from_image(text)
    except AdvisorError as error:
        refusal = error
    else:
        assert told.release in ALL
        return
    assert refusal.hint
