"""What lies outside PyTorch's allocator, and the band: by driver, link, ranks and release."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from front import L4, LLAMA, run
from hypothesis import given, settings
from hypothesis import strategies as st

import tgi_advisor
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import outside, tables
from tgi_advisor.facts import release as releases
from tgi_advisor.units import GiB, MiB

CARDS = tuple(row.name for row in gpus.all_gpus() if row.facts is not None and row.facts.system == "cuda")
LINKS = ("host", "pcie", "nvlink", "nvswitch")
few = settings(max_examples=12, deadline=None, derandomize=True)


def plan(*sets: str, gpu: str = "nvidia-l4", count: int = 1, release: str = "3.3.7") -> dict[str, Any]:
    """What `predict --json` says about an 8B model with short limits."""
    more = [
        word
        for path in ("limits.max_input_tokens=500", "limits.max_total_tokens=600", *sets)
        for word in ("--set", path)
    ]
    ran = run("predict", *LLAMA, "--gpu", gpu, "--count", str(count), "--release", release, "--json", *more)
    document: dict[str, Any] = json.loads(ran.out)
    assert "error" not in document, ran.err
    return document


def part(document: dict[str, Any], name: str) -> int:
    return sum(each["bytes"] for each in document["memory"]["parts"] if each["name"] == name)


def band(document: dict[str, Any]) -> dict[str, int]:
    return {each["name"]: each["bytes"] for each in document["uncertainty"]["contributions"]}


# ---- the context ----


def test_an_old_driver_loads_every_kernel() -> None:
    lazy, old = plan(gpu="a10g"), plan("hardware.driver=525.85.12", gpu="a10g", release="2.2.0")
    assert part(lazy, "context and libraries") == round(0.40 * GiB)
    assert part(old, "context and libraries") == round(0.40 * GiB) + round(1.50 * GiB)
    assert any("Driver 525.85.12 loads every kernel at once, which takes 1.50 GiB" in text for text in old["warnings"])


@pytest.mark.parametrize("driver", ["535.54.03", "550", "580.65.06"])
def test_a_driver_from_535_on_does_not(driver: str) -> None:
    assert part(plan(f"hardware.driver={driver}", gpu="a10g"), "context and libraries") == round(0.40 * GiB)


def test_the_environment_decides_how_kernels_are_loaded() -> None:
    old = ("hardware.driver=470.182.03", "tgi.env.CUDA_MODULE_LOADING=LAZY")
    assert part(plan(*old), "context and libraries") == part(plan(), "context and libraries")
    assert part(plan("tgi.env.CUDA_MODULE_LOADING=EAGER"), "context and libraries") > part(
        plan(), "context and libraries"
    )


def test_what_is_not_known_is_said() -> None:
    said = "a driver older than 535 would take 1.50 GiB more (hardware.driver)"
    assert said in plan()["uncertainty"]["why"]
    assert said not in plan("hardware.driver=550.54.15")["uncertainty"]["why"]
    built = plan("tgi.image=registry.example/tgi:3.3.7", gpu="b200")  # TGI's own image has no kernels for it
    assert said not in built["uncertainty"]["why"]  # no driver as old runs it


# ---- the total ----


def test_the_driver_decides_the_total() -> None:
    reserve = {
        driver: part(plan(f"hardware.driver={driver}"), "driver reserve") for driver in ("535.129.03", "550.54.15")
    }
    assert reserve["550.54.15"] - reserve["535.129.03"] == round(22.17 * GiB) - round(22.03 * GiB)
    assert reserve["550.54.15"] == part(plan(), "driver reserve")
    stated = ("hardware.driver=535.129.03", "hardware.gpu.cuda_total=22.10GiB")
    assert part(plan(*stated), "driver reserve") == 23034 * MiB - round(22.10 * GiB)


# ---- communicators ----


def test_one_gpu_has_no_communicators() -> None:
    assert part(plan(), "NCCL buffers") == 0


@pytest.mark.parametrize(
    ("link", "two", "four"), [("host", 60, 60), ("pcie", 108, 156), ("nvlink", 108, 156), ("nvswitch", 300, 540)]
)
def test_channels_of_a_link(link: str, two: int, four: int) -> None:
    found = [part(plan(f"hardware.link={link}", gpu="rtx-3090", count=count), "NCCL buffers") for count in (2, 4)]
    assert found == [two * MiB, four * MiB]


@pytest.mark.parametrize(
    ("release", "sharp"),
    [("1.1.1", 0), ("2.0.1", 1536), ("2.1.1", 2048), ("2.2.0", 512), ("3.1.0", 1024), ("3.3.7", 512)],
)
def test_nvlink_sharp_by_release(release: str, sharp: int) -> None:
    ring = 60 + 20 * 24
    assert part(plan(gpu="h100-sxm", count=8, release=release), "NCCL buffers") == (ring + sharp) * MiB


@pytest.mark.parametrize(("release", "sharp"), [("2.0.1", 1024), ("2.2.0", 0), ("3.1.0", 512), ("3.3.7", 0)])
def test_four_ranks_have_it_only_where_it_is_made_at_the_start(release: str, sharp: int) -> None:
    assert part(plan(gpu="h100-sxm", count=4, release=release), "NCCL buffers") == (540 + sharp) * MiB


def test_nvlink_sharp_needs_a_switch_and_hopper() -> None:
    off = (plan("tgi.env.NCCL_NVLS_ENABLE='0'", gpu="h100-sxm", count=8), plan(gpu="a100-80gb-sxm", count=8))
    assert {part(document, "NCCL buffers") for document in off} == {540 * MiB}
    assert part(plan(gpu="h100-sxm", count=2), "NCCL buffers") == 300 * MiB
    assert "NVLink SHARP" not in band(plan(gpu="h100-sxm", count=2))


def test_peer_access_that_is_switched_off() -> None:
    assert part(plan("tgi.env.NCCL_P2P_DISABLE='1'", gpu="a40", count=2), "NCCL buffers") == 60 * MiB


@given(st.sampled_from(CARDS), st.sampled_from(LINKS), st.sampled_from(("1.1.1", "2.0.4", "2.2.0", "3.3.7")))
@few
def test_communicators_grow_with_the_ranks(card: str, link: str, release: str) -> None:
    sizes = [
        part(plan(f"hardware.link={link}", gpu=card, count=count, release=release), "NCCL buffers")
        for count in (1, 2, 4, 8)
    ]
    assert all(less <= more for less, more in pairwise(sizes))


def test_rccl_is_said_to_be_a_guess() -> None:
    document = plan(gpu="mi300x", count=2)
    assert part(document, "RCCL buffers") == 2 * GiB
    assert band(document)["RCCL"] == 2 * GiB
    assert any("no run of TGI" in each["why"] for each in document["memory"]["parts"] if each["name"] == "RCCL buffers")


# ---- the band ----


@given(
    st.sampled_from(CARDS), st.sampled_from((1, 2, 4)), st.sampled_from(("1.4.0", "2.2.0", "3.3.7")),
    st.sampled_from(("535.54.03", "545.29.06", "550.54.15", "570.86.10", "580.65.06")),
)  # fmt: skip
@few
def test_a_driver_that_is_stated_never_widens_the_band(card: str, count: int, release: str, driver: str) -> None:
    known = plan(f"hardware.driver={driver}", gpu=card, count=count, release=release)
    unknown = plan(gpu=card, count=count, release=release)
    if known["uncertainty"] and unknown["uncertainty"]:
        assert known["uncertainty"]["spread_bytes"] <= unknown["uncertainty"]["spread_bytes"]


@given(st.sampled_from(CARDS), st.sampled_from((1, 2, 8)), st.sampled_from(("1.4.0", "2.2.0", "3.3.7")))
@few
def test_the_band_is_the_root_of_the_squares(card: str, count: int, release: str) -> None:
    document = plan(gpu=card, count=count, release=release)
    if document["uncertainty"]:
        parts = document["uncertainty"]["contributions"]
        assert document["uncertainty"]["spread_bytes"] == round(math.sqrt(sum(each["bytes"] ** 2 for each in parts)))
        assert [each["bytes"] for each in parts] == sorted((each["bytes"] for each in parts), reverse=True)
        assert document["uncertainty"]["spread_bytes"] >= parts[0]["bytes"]
        named = ", ".join(f"{each['name']} {each['bytes'] / GiB:.2f} GiB" for each in parts[:2])
        assert named in document["uncertainty"]["why"]


def test_a_stated_total_is_not_in_doubt() -> None:
    assert "CUDA total" in band(plan())
    assert "CUDA total" not in band(plan("hardware.gpu.cuda_total=22.03GiB"))


# ---- where it is written ----


def test_words_of_the_spec() -> None:
    ran = run("predict", L4, "--set", "hardware.driver=v535", "--set", "hardware.link=nvlnk")
    assert ran.code == 3
    assert "hardware.driver must be a driver version, such as 535.129.03, got 'v535'" in ran.err
    assert (
        "hardware.link must be one of nvswitch, nvlink, pcie, host, got 'nvlnk'\n      did you mean 'nvlink'?"
        in ran.err
    )


@pytest.mark.parametrize("setting", ["driver: 535.54.03", "link: nvlink"])
def test_drivers_and_links_are_nvidias(setting: str) -> None:
    spec = f"model: {{id: meta-llama/Llama-3.1-8B-Instruct}}\nhardware:\n  gpu: mi300x\n  {setting}\n"
    ran = run("predict", "-", stdin=spec)
    field = setting.partition(": ")[0]
    assert (ran.code, ran.err) == (
        3,
        f"Error: hardware.{field} is about NVIDIA GPUs\n"
        f"  <stdin>:4:3: amd-mi300x is no NVIDIA GPU\n      leave {field} out\n",
    )


def test_sagemaker_is_told_of_its_drivers() -> None:
    said = "SageMaker picks the driver with the machine image"
    assert said in run("predict", *LLAMA, "--gpu", "ml.g5.2xlarge").out
    assert said not in run("predict", *LLAMA, "--gpu", "g5.2xlarge").out
    assert said not in run("predict", *LLAMA, "--gpu", "ml.g5.2xlarge", "--set", "hardware.driver=550.54").out


def test_json_says_what_is_known_of_the_machine() -> None:
    stated = plan("hardware.driver=535.129", "hardware.link=pcie", count=2)["facts"]["gpu"]
    assert (stated["driver"], stated["link"]) == ("535.129", "pcie")
    unknown = plan()["facts"]["gpu"]
    assert (unknown["driver"], unknown["link"]) == (None, "host")


@pytest.mark.parametrize("release", [each.name for each in releases.all_releases()])
def test_every_release_is_in_the_tables(release: str) -> None:
    version = releases.find(release).version
    card = gpus.find("h100-sxm")
    assert outside.eager(card, version) is not None
    assert (outside.sharp(version) is None) is (version < (1, 2, 0))


# ---- the tables ----


def forget() -> None:
    """Nothing is kept of the table."""
    for read in (outside.context, outside.link, outside.totals, outside.allocated, outside.multicast):
        read.cache_clear()


@pytest.fixture
def afresh() -> Iterator[None]:
    """A test that changes the table leaves nothing of it."""
    yield
    forget()


@pytest.mark.parametrize(
    ("section", "row", "key"),
    [
        ("contexts", 4, "spread"), ("links", -1, "spread"), ("totals", None, "card"), ("allocator", None, "replayed"),
        ("multicast", None, "bytes"),
    ],
)  # fmt: skip
def test_the_band_grows_with_every_spread(
    section: str, row: int | None, key: str, monkeypatch: pytest.MonkeyPatch, afresh: None
) -> None:
    before = plan(gpu="h100-sxm", count=8, release="2.2.0")["uncertainty"]["spread_bytes"]
    changed = copy.deepcopy(dict(outside.sections()))
    (changed[section] if row is None else changed[section][row])[key] = "3GiB"
    monkeypatch.setattr(outside, "sections", lambda: changed)
    forget()
    assert plan(gpu="h100-sxm", count=8, release="2.2.0")["uncertainty"]["spread_bytes"] > before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": [{"system": "cuda", "bytes": "1GiB", "spread": "1GiB"}]}, "contexts: missing key 'source'"),
        ({"multicast": {"bytes": "1GiB", "source": "x", "size": 1}}, "multicast: unknown key 'size'"),
        ({"more": []}, "unknown key 'more'"),
    ],
)
def test_the_table_is_read_strictly(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dict(outside.sections()) | change
    monkeypatch.setattr(tables, "load", lambda _: rows)
    with pytest.raises(ValueError, match=message):
        outside.sections.__wrapped__()


def test_a_program_may_state_them_too() -> None:
    hardware = {"gpu": "a10g", "count": 2, "driver": 525.85, "link": "host"}
    asked = tgi_advisor.predict({"model": {"id": LLAMA[1]}, "hardware": hardware})
    assert (asked.facts.gpu.driver, asked.facts.gpu.link) == ("525.85", "host")
