from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_advisor.errors import FactsError
from tgi_advisor.facts import gpu, tables
from tgi_advisor.spec.records import GpuSpec
from tgi_advisor.units import GB, GiB, MiB

ROWS = gpu.all_gpus()
NAMED = [row for row in ROWS if row.facts]
OWN_NAMES = [(row.name, name) for row in ROWS for name in (row.name, *row.aliases, *row.smi_names)]
TWO_SIZES = {"NVIDIA GeForce RTX 3080", "NVIDIA GeForce RTX 4060 Ti"}
"""Printed by two rows."""
INSTANCES = [(kind, count, row.name) for row in ROWS for kind, count in row.instances]


def fact(name: str) -> gpu.GpuFacts:
    return gpu.find(name)


# The table itself


@pytest.mark.parametrize("row", tables.load("gpus"), ids=lambda row: str(row["name"]))
def test_rows_are_complete(row: dict[str, object]) -> None:
    tables.strict(row, gpu.ALLOWED, gpu.REQUIRED, str(row["name"]))
    assert row["system"] in gpu.System.__args__  # type: ignore[attr-defined]
    sources = row["source"]
    assert isinstance(sources, list)
    assert sources
    assert all(len(source) > 20 for source in sources)


def test_names_are_unique() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("row", "name"), OWN_NAMES)
def test_every_name_and_alias_finds_its_row_alone(row: str, name: str) -> None:
    found = [found["name"] for found in gpu._matches(name)]
    assert found == [row] or (name in TWO_SIZES and row in found and len(found) == 2)


@pytest.mark.parametrize(
    ("printed", "mib", "name"),
    [
        ("NVIDIA GeForce RTX 3080", 10240, "nvidia-rtx-3080-10gb"),
        ("NVIDIA GeForce RTX 3080", 10018, "nvidia-rtx-3080-10gb"),  # an older driver
        ("NVIDIA GeForce RTX 3080", 12288, "nvidia-rtx-3080-12gb"),
        ("NVIDIA GeForce RTX 4060 Ti", 8188, "nvidia-rtx-4060-ti-8gb"),
    ],
)
def test_the_memory_tells_cards_that_print_one_name_apart(printed: str, mib: int, name: str) -> None:
    found = gpu.measured(printed, "cuda", mib * MiB, None, "nvidia-smi")
    assert found is not None
    assert (found.name, found.memory_bytes) == (name, mib * MiB)


@pytest.mark.parametrize("row", NAMED, ids=lambda row: str(row.name))
def test_figures_are_plausible(row: gpu.GpuRow) -> None:
    facts = row.facts
    assert facts is not None
    assert 5 * GiB < facts.memory_bytes < 300 * GiB
    if facts.cuda_total_bytes:
        if facts.system == "cuda":
            assert 0.95 * facts.memory_bytes < facts.cuda_total_bytes < facts.memory_bytes
        else:
            assert facts.cuda_total_bytes == facts.memory_bytes
    assert (facts.compute_capability is not None) == (facts.system == "cuda")
    assert facts.fp16_tflops is None or 15 < facts.fp16_tflops < 3000
    assert facts.bandwidth is None or 200 * GB <= facts.bandwidth < 10_000 * GB
    assert facts.source.startswith("table gpus.yaml: ")


NOT_PRINTED = {"nvidia-4090", "nvidia-t4", "nvidia-a100", "nvidia-h100"}
"""What the launcher knows and no card of the table prints: these cards print more, or another vendor word."""


def test_launcher_names_are_what_the_launcher_matches() -> None:
    names = {row.facts.launcher_name for row in NAMED if row.facts}
    assert names & set(tables.load("launcher_gpus")) == set(tables.load("launcher_gpus")) - NOT_PRINTED
    assert fact("rtx4090").launcher_name == "nvidia-geforce-rtx-4090"
    assert fact("t4").launcher_name == "tesla-t4"
    assert fact("h100-pcie").launcher_name == "nvidia-h100-pcie"
    assert fact("mi300x").launcher_name == ""


@pytest.mark.parametrize(
    ("printed", "name", "mib", "capability"),
    [
        ("Tesla T4", "nvidia-t4", 15360, (7, 5)),
        ("Tesla V100-SXM2-16GB", "nvidia-v100-16gb", 16384, (7, 0)),
        ("NVIDIA A10G", "nvidia-a10g", 23028, (8, 6)),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-80gb-sxm", 81920, (8, 0)),
        ("NVIDIA A100 80GB PCIe", "nvidia-a100-80gb-pcie", 81920, (8, 0)),
        ("NVIDIA L4", "nvidia-l4", 23034, (8, 9)),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-sxm", 81559, (9, 0)),
        ("NVIDIA H200", "nvidia-h200", 143771, (9, 0)),
        ("NVIDIA GeForce RTX 4090", "nvidia-rtx-4090", 24564, (8, 9)),
        ("AMD Instinct MI300X", "amd-mi300x", 196592, None),
        ("HL-325L", "intel-gaudi3", 131072, None),
    ],
)
def test_printed_names(printed: str, name: str, mib: int, capability: tuple[int, int] | None) -> None:
    facts = gpu.find(printed)
    assert (facts.name, facts.memory_bytes, facts.compute_capability) == (name, mib * MiB, capability)


# What people type


@settings(deadline=None)
@given(st.sampled_from(OWN_NAMES), st.randoms(use_true_random=False))
def test_case_and_punctuation_do_not_matter(pair: tuple[str, str], random: st.randoms) -> None:  # type: ignore[valid-type]
    row, name = pair
    typed = "".join(random.choice((c.lower(), c.upper())) for c in name)  # type: ignore[attr-defined]
    typed = re.sub(r"[ _-]", lambda _: random.choice(" -_"), typed)  # type: ignore[attr-defined]
    found = [found["name"] for found in gpu._matches(typed)]
    assert found == [row] or name in TWO_SIZES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "a100",
            "nvidia-a100-40gb-sxm (40960 MiB), nvidia-a100-40gb-pcie (40960 MiB), nvidia-a100-80gb-sxm (81920 MiB)",
        ),
        ("NVIDIA H100", "nvidia-h100-sxm (81559 MiB), nvidia-h100-pcie (81559 MiB), nvidia-h100-nvl (95830 MiB)"),
        ("v100", "nvidia-v100-16gb (16384 MiB), nvidia-v100-32gb (32768 MiB)"),
    ],
)
def test_a_name_for_cards_of_different_memory_is_refused(name: str, said: str) -> None:
    with pytest.raises(FactsError) as error:
        gpu.find(name)
    assert error.value.message.startswith(f"GPU {name!r} names several cards with different memory: {said}")
    assert error.value.hint is not None
    assert error.value.hint.startswith("say which: 'nvidia-")


def test_a_name_for_cards_of_equal_memory_is_accepted_and_says_so() -> None:
    facts = gpu.find("a100-80")
    assert facts.name == "nvidia-a100-80gb-sxm"
    assert facts.source.endswith("('a100-80' also names 'nvidia-a100-80gb-pcie', with the same memory)")


def test_an_unknown_name_says_what_is_near_and_how_to_state_it() -> None:
    with pytest.raises(FactsError) as error:
        gpu.find("nvidia-l40z")
    assert str(error.value) == (
        "GPU 'nvidia-l40z' is not known\n"
        "Did you mean 'nvidia-l40', 'nvidia-l40s' or 'nvidia-l4'? `tgi-advisor gpus` lists what is known.\n"
        "A GPU can be stated by hand, on the command line or in a spec's hardware.gpu:\n"
        "--set 'hardware.gpu={name: mine, memory: 24564MiB, compute_capability: 8.9}'"
    )


@given(st.text(max_size=30))
def test_any_text_is_found_or_refused(name: str) -> None:
    try:
        found = gpu.find(name)
    except FactsError as error:
        hint = error.hint
    else:
        hint = found.source
    assert hint


def test_a_cpu_needs_its_memory_stated() -> None:
    with pytest.raises(FactsError, match=r"how much memory intel-cpu has.*\nState it: --set 'hardware.gpu="):
        gpu.find("cpu")
    with pytest.raises(FactsError, match="State it"):
        gpu.stated(GpuSpec(name="intel-cpu", fp16_tflops=1.0))
    facts = gpu.stated(GpuSpec(name="intel-cpu", memory=64 * GiB))
    assert (facts.system, facts.memory_bytes, facts.launcher_name) == ("cpu", 64 * GiB, "")


# Cloud instances


def test_instances_name_known_gpus_once_and_with_a_source() -> None:
    groups = tables.load("instances")
    for group in groups:
        assert group["gpu"] in {row.name for row in ROWS}
        assert group["source"].startswith("https://")
        if "link" in group:
            assert group["link"] in ("nvswitch", "nvlink", "pcie", "host")
            assert group["link_source"].startswith("https://")
            assert max(group["types"].values()) > 1
    kinds = [kind.lower() for group in groups for kind in group["types"]]
    assert len(kinds) == len(set(kinds)) == len(INSTANCES)


@pytest.mark.parametrize(("kind", "count", "name"), INSTANCES)
def test_every_instance_is_found_in_any_case(kind: str, count: int, name: str) -> None:
    for typed in (kind, kind.upper(), f"ml.{kind}", kind.removeprefix("Standard_")):
        found = gpu.instance(typed)
        assert found is not None
        assert (found[0].name, found[1]) == (name, count)
        assert kind in found[0].source


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [
        ("g6.xlarge", "nvidia-l4", 1),
        ("ml.g5.12xlarge", "nvidia-a10g", 4),
        ("p4d.24xlarge", "nvidia-a100-40gb-sxm", 8),
        ("a2-highgpu-1g", "nvidia-a100-40gb-sxm", 1),
        ("a2-ultragpu-1g", "nvidia-a100-80gb-sxm", 1),
        ("standard_nc40ads_h100_v5", "nvidia-h100-nvl", 1),
        ("ND96isr_MI300X_v5", "amd-mi300x", 8),
    ],
)
def test_instances_by_hand(kind: str, name: str, count: int) -> None:
    found = gpu.instance(kind)
    assert found is not None
    assert (found[0].name, found[1]) == (name, count)


@pytest.mark.parametrize(
    ("kind", "link", "by"),
    [
        ("p4d.24xlarge", "nvswitch", "instance"),
        ("p3.8xlarge", "nvlink", "instance"),
        ("ml.g5.12xlarge", "host", "instance"),
        ("g6e.12xlarge", "pcie", "card"),
        ("NC48ads_A100_v4", "nvlink", "instance"),
        ("NC96ads_A100_v4", "pcie", "card"),
        ("NV72ads_A10_v5", "host", "instance"),
        ("a3-ultragpu-8g", "nvswitch", "instance"),
    ],
)
def test_instances_bring_their_link(kind: str, link: str, by: str) -> None:
    found = gpu.instance(kind)
    assert found is not None
    assert (found[0].link, found[0].link_from) == (link, by)
    stated = gpu.on_machine(found[0], None, "nvlink")
    assert (stated.link, stated.link_from) == ("nvlink", "machine")


def test_what_is_no_instance() -> None:
    assert gpu.instance("g6.huge") is None
    assert gpu.instance("nvidia-l4") is None
    assert gpu.instance("") is None


# Stated by hand


def test_figures_of_the_spec_lie_over_the_row() -> None:
    facts = gpu.stated(GpuSpec(name="a10g", memory=22731 * MiB, bandwidth=500 * GB))
    assert (facts.name, facts.memory_bytes, facts.bandwidth) == ("nvidia-a10g", 22731 * MiB, 500 * GB)
    assert facts.compute_capability == (8, 6)
    assert facts.cuda_total_bytes is None, "the table's CUDA total belongs to the table's memory"
    assert facts.source.startswith("the spec; the rest: table gpus.yaml: ")


def test_the_cuda_total_stays_with_the_memory_it_was_read_at() -> None:
    assert gpu.stated(GpuSpec(name="l4", fp16_tflops=100.0)).cuda_total_bytes == fact("l4").cuda_total_bytes
    assert gpu.stated(GpuSpec(name="l4", memory=23034 * MiB)).cuda_total_bytes == fact("l4").cuda_total_bytes
    assert gpu.stated(GpuSpec(name="l4", memory=23 * GiB, cuda_total=22 * GiB)).cuda_total_bytes == 22 * GiB


def test_stated_memory_picks_among_cards_of_one_name() -> None:
    assert gpu.stated(GpuSpec(name="a100", memory=80 * GiB)).name == "nvidia-a100-80gb-sxm"
    with pytest.raises(FactsError, match="several cards"):
        gpu.stated(GpuSpec(name="a100", memory=64 * GiB))


@given(st.integers(5, 12), st.integers(0, 9), st.integers(GiB, 500 * GiB))
def test_an_unknown_cuda_card(major: int, minor: int, memory: int) -> None:
    spec = GpuSpec(name="My Card 9", memory=memory, compute_capability=float(Fraction(10 * major + minor, 10)))
    expected = gpu.GpuFacts(
        "My Card 9", "cuda", memory, None, (major, minor), None, None, "my-card-9", "the spec"
    )  # fmt: skip
    assert gpu.stated(spec) == expected


def test_an_unknown_card_of_another_vendor_needs_its_system() -> None:
    facts = gpu.stated(GpuSpec(name="mi355x", memory=288 * GiB, system="rocm"))
    assert (facts.system, facts.compute_capability, facts.launcher_name) == ("rocm", None, "")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            GpuSpec(name="zz", fp16_tflops=9.0),
            "its memory (as nvidia-smi prints it, e.g. 24564MiB) and its compute_cap",
        ),
        (GpuSpec(name="zz", memory=GiB), "its compute_capability (e.g. 8.9), or system for a GPU that is not NVIDIA's"),
        (GpuSpec(name="zz", memory=GiB, system="cuda"), "its compute_capability"),
        (GpuSpec(name="zz", compute_capability=8.9), "its memory"),
        (
            GpuSpec(name="l4", cuda_total=24 * GiB),
            "GPU 'l4': CUDA cannot report more memory (24.00 GiB) than nvidia-smi",
        ),
    ],
)
def test_what_a_block_must_state(spec: GpuSpec, said: str) -> None:
    with pytest.raises(FactsError) as error:
        gpu.stated(spec)
    assert said in error.value.message
    assert error.value.hint


@dataclass(frozen=True)
class _Frozen:
    """Only there to show that `Stated` asks for reading, not for GpuSpec itself."""

    name: str = "l4"
    memory: int | None = None
    cuda_total: int | None = None
    compute_capability: float | None = None
    fp16_tflops: float | None = None
    bandwidth: int | None = None
    system: str | None = None


def test_anything_with_the_fields_can_be_stated() -> None:
    assert gpu.stated(_Frozen()).memory_bytes == fact("l4").memory_bytes
