"""Servers that share a machine: scenarios, laws of the shares, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from front import run
from golden import Golden
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tgi_advisor import api, search
from tgi_advisor.api import Together, advise_together
from tgi_advisor.errors import Exit, SpecError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.facts.known import Facts
from tgi_advisor.plan import Plan
from tgi_advisor.report_schema import plan_schema
from tgi_advisor.spec.reader import read_all, read_text
from tgi_advisor.spec.records import Bound, Spec
from tgi_advisor.units import GiB

LLAMA, AWQ, SMALL = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct-AWQ",
    "meta-llama/Llama-3.2-1B-Instruct",
)
PADDED = "EleutherAI/gpt-j-6b"


def spec(model: str, gpu: str = "nvidia-l40s", release: str = "3.3.7", **more: Any) -> Spec:
    """A spec; `more` are fields by `section__name`."""
    tree: dict[str, dict[str, Any]] = {"model": {"id": model}, "hardware": {"gpu": gpu}, "tgi": {"release": release}}
    for path, value in more.items():
        section, name = path.split("__")
        tree.setdefault(section, {})[name] = value
    return api.read_spec(tree)


@cache
def known(model: str, gpu: str, release: str) -> Facts:
    return api.gather_facts(spec(model, gpu, release), offline=True)


def together(*specs: Spec) -> Together:
    return advise_together(specs, offline=True)


def again(plan: Plan) -> Plan:
    """What TGI does with the plan's limits, fraction and memory in use, computed from its spec alone."""
    found, old = plan.prediction.limits, plan.spec.limits
    exactly = {name: Bound(value, value) for name, value in found.given().items() if name != "max_batch_total_tokens"}
    return api.predict(replace(plan.spec, limits=replace(old, **exactly)), facts=plan.facts)


def held(plan: Plan) -> int:
    """What a server holds once it has started: what loading left, the KV cache and the CUDA graphs of its plan."""
    here = warmup.base(defaults.resolve(plan.spec, plan.facts))
    kept = [part.bytes for part in here.parts if part.name not in ("driver reserve", "other processes")]
    more = {part.name: part.bytes for part in plan.prediction.parts}
    blocks = more["KV cache"] // plan.prediction.kv_bytes_per_token // plan.prediction.block_size
    return sum(kept) + more["KV cache"] - here.prefills.in_gaps(blocks) + more.get("CUDA graphs", 0)


# -- scenarios


@pytest.mark.parametrize("release", ["2.4.1", "3.0.2", "3.3.7"])
@pytest.mark.parametrize("gpu", ["nvidia-l40s", "nvidia-a100-80gb-sxm"])
def test_two_alike_get_the_same_and_the_second_a_larger_fraction(release: str, gpu: str) -> None:
    packing, plans = together(spec(AWQ, gpu, release), spec(AWQ, gpu, release))
    assert packing.fits
    first, second = (plan.prediction.limits.max_batch_total_tokens or 0 for plan in plans)
    assert first == pytest.approx(second, rel=0.02)
    first, second = (plan.prediction.limits.max_total_tokens or 0 for plan in plans)
    assert first == pytest.approx(second, rel=0.02)
    small, large = (plan.spec.hardware.memory_fraction for plan in plans)
    assert 0.4 < small < 0.6
    assert large > 0.7
    assert plans[1].spec.hardware.in_use == held(plans[0]) == packing.gpus[0].shares[0].held_bytes


def test_the_fractions_rise_with_each_server() -> None:
    _, plans = together(*[spec(LLAMA, "nvidia-a100-80gb-sxm")] * 3)
    one, two, three = (plan.spec.hardware.memory_fraction for plan in plans)
    assert (round(one, 1), round(two, 1), round(three, 2)) == (0.3, 0.7, 1.0)


def test_a_small_model_beside_a_large_one_gets_as_many_tokens_not_as_many_bytes() -> None:
    packing, (large, small) = together(spec(AWQ, "nvidia-l4"), spec(SMALL, "nvidia-l4"))
    assert packing.fits
    tokens = [plan.prediction.limits.max_batch_total_tokens or 0 for plan in (large, small)]
    band = max(plan.prediction.uncertainty.spread_bytes for plan in (large, small) if plan.prediction.uncertainty)
    per_token = min(large.prediction.kv_bytes_per_token, small.prediction.kv_bytes_per_token)
    assert abs(tokens[0] - tokens[1]) < band // per_token
    caches = [size * plan.prediction.kv_bytes_per_token for size, plan in zip(tokens, (large, small), strict=True)]
    assert caches[0] > 1.5 * caches[1]


def test_concurrency_is_shared_out_by_what_is_asked() -> None:
    _, (one, four) = together(spec(LLAMA), spec(LLAMA, workload__concurrency=4))
    assert four.prediction.concurrency is not None
    assert four.prediction.concurrency >= 4
    assert one.prediction.limits.max_total_tokens == pytest.approx(four.prediction.limits.max_total_tokens, rel=0.05)


def test_halves_leave_the_second_without_a_cache_and_the_way_out_works() -> None:
    gpu = "nvidia-a100-80gb-sxm"
    half = spec(LLAMA, gpu, hardware__memory_fraction=0.5)
    packing, plans = together(half, half)
    assert not packing.fits
    assert [plan.prediction.outcome == "starts" for plan in plans] == [True, False]
    assert packing.next_steps[0].startswith("leave hardware.memory_fraction out: ")
    fractions = [float(word) for word in packing.next_steps[0].split() if word[0].isdigit()]
    free, solved = together(spec(LLAMA, gpu), spec(LLAMA, gpu))
    assert free.fits
    assert [plan.spec.hardware.memory_fraction for plan in solved] == fractions


def test_a_fraction_the_spec_says_is_kept() -> None:
    packing, plans = together(
        spec(LLAMA, "nvidia-a100-80gb-sxm", hardware__memory_fraction=0.7), spec(SMALL, "a100-80gb-sxm")
    )
    assert packing.fits
    assert plans[0].spec.hardware.memory_fraction == 0.7


def test_nothing_fits_and_the_larger_gpu_that_is_named_does() -> None:
    packing, plans = together(spec(LLAMA, "nvidia-l4"), spec(LLAMA, "nvidia-l4"))
    assert not packing.fits
    assert plans[1].container is None
    (named,) = [step for step in packing.next_steps if step.startswith("hardware.gpu: ")]
    gpu = named.removeprefix("hardware.gpu: ").removesuffix(" holds them")
    assert together(spec(LLAMA, gpu), spec(LLAMA, gpu)).packing.fits
    assert packing.next_steps[-1].startswith("give each a GPU of its own")


def test_a_model_that_fits_nowhere_leaves_the_gpu_to_the_others() -> None:
    packing, (large, small) = together(spec("meta-llama/Llama-3.1-70B-Instruct", "nvidia-l4"), spec(SMALL, "nvidia-l4"))
    assert (packing.fits, large.prediction.outcome, small.prediction.outcome) == (False, "out_of_memory", "starts")
    assert small.prediction == api.advise(small.spec, facts=small.facts).prediction
    assert small.spec.hardware.memory_fraction == 1.0


def test_devices_of_their_own_are_not_shared() -> None:
    packing, plans = together(
        spec(LLAMA, "nvidia-l4", container__gpus=["0"]), spec(LLAMA, "nvidia-l4", container__gpus=["1"])
    )
    alone = api.advise(spec(LLAMA, "nvidia-l4"), facts=plans[0].facts)
    assert [plan.prediction for plan in plans] == [alone.prediction] * 2
    assert [(gpu.id, len(gpu.shares)) for gpu in packing.gpus] == [("0", 1), ("1", 1)]


def test_a_sharded_server_takes_the_same_of_both_gpus_and_its_neighbour_of_one() -> None:
    wide = spec(LLAMA, "nvidia-l4", hardware__count=2, tgi__num_shard=2)
    packing, plans = together(spec(SMALL, "nvidia-l4", container__gpus=["1"]), wide)
    assert packing.fits
    zero, one = packing.gpus
    assert [share.server for share in zero.shares] == ["tgi-2"]
    assert [share.server for share in one.shares] == ["tgi", "tgi-2"]
    assert plans[1].spec.hardware.in_use == one.shares[0].held_bytes
    assert zero.shares[0].held_bytes > one.shares[1].held_bytes  # each shard takes what its own GPU has free


def test_other_programs_count_once() -> None:
    packing, plans = together(spec(LLAMA, hardware__in_use="4GiB"), spec(LLAMA, hardware__in_use="4GiB"))
    (gpu,) = packing.gpus
    assert gpu.foreign_bytes == plans[0].spec.hardware.in_use == 4 * GiB
    assert plans[1].spec.hardware.in_use == 4 * GiB + gpu.shares[0].held_bytes


def test_who_cannot_be_restarted_alone_is_told() -> None:
    packing, plans = together(spec(LLAMA, "nvidia-a100-80gb-sxm"), spec(LLAMA, "nvidia-a100-80gb-sxm"))
    (note,) = [note for note in packing.notes if "restart" in note]
    assert note.startswith("tgi cannot be restarted while the others run")
    others = packing.gpus[0].shares[1].held_bytes
    hardware = replace(plans[0].spec.hardware, in_use=others)
    alone = plans[0]._replace(spec=replace(plans[0].spec, hardware=hardware))
    assert again(alone).prediction.outcome != "starts"


def test_a_cache_that_grows_is_held_to_its_fraction() -> None:
    packing, plans = together(spec(PADDED, "nvidia-a100-80gb-sxm"), spec(SMALL, "nvidia-a100-80gb-sxm"))
    assert packing.fits
    first = packing.gpus[0].shares[0]
    assert first.most_bytes <= plans[0].spec.hardware.memory_fraction * packing.gpus[0].total_bytes + GiB
    assert packing.gpus[0].spare_bytes >= 0


# -- names, ports, and what cannot be together


def test_names_and_ports_nobody_wrote_are_made_to_differ() -> None:
    packing, plans = together(spec(SMALL), spec(SMALL, container__port=8081), spec(SMALL))
    assert packing.order == ("tgi", "tgi-2", "tgi-3")
    assert [plan.container.port for plan in plans if plan.container] == [8080, 8081, 8082]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"container__name": "a"}, {"container__name": "a"}, "two containers are called 'a'"),
        ({"container__port": 81}, {"container__port": 81}, "two servers use port 81 of the host"),
        ({}, {"gpu": "nvidia-l4"}, "GPU 0 is nvidia-l40s for tgi and nvidia-l4 for tgi-2"),
        ({}, {"container__gpus": ["GPU-5a"]}, "whether tgi and tgi-2 share a GPU cannot be told"),
        ({"gpu": "intel-gaudi2"}, {"gpu": "intel-gaudi2"}, "cannot be told to leave room"),
    ],
)
def test_what_cannot_be_together(one: dict[str, Any], other: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as refused:
        together(spec(SMALL, **one), spec(SMALL, **other))
    (problem,) = refused.value.problems
    assert told in problem.message
    assert problem.hint


# -- laws


MODELS = (
    LLAMA,
    AWQ,
    SMALL,
    PADDED,
    "bigcode/starcoder2-3b",
    "microsoft/phi-2",
    "Qwen/Qwen2.5-7B-Instruct",
    "google/gemma-2-9b-it",
)
GPUS = ("nvidia-l4", "nvidia-l40s", "nvidia-a100-80gb-sxm", "amd-mi300x")
RELEASES = ("2.0.4", "2.2.0", "2.4.1", "3.0.2", "3.3.7")

few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@few
@given(st.lists(st.sampled_from(MODELS), min_size=2, max_size=3), st.sampled_from(GPUS), st.sampled_from(RELEASES),
       st.sampled_from([1, 4]), st.sampled_from([0, 2 * GiB]))  # fmt: skip
def test_laws(models: list[str], gpu: str, release: str, concurrency: int, foreign: int) -> None:
    try:
        facts = [known(model, gpu, release) for model in models]
    except Exception:  # noqa: BLE001  (a GPU this release does not know)
        assume(False)
    asked = [
        spec(model, gpu, release, workload__concurrency=concurrency, hardware__in_use=f"{foreign}B") for model in models
    ]
    packing, plans = advise_together(asked, facts=facts)
    assert packing.fits == all(plan.prediction.outcome == "starts" and plan.container for plan in plans)
    assert [plan.facts.model.id for plan in plans] == models
    for card in packing.gpus:
        started = card.reserve_bytes + card.foreign_bytes + sum(share.held_bytes for share in card.shares)
        assert started <= card.total_bytes
        before = card.foreign_bytes
        for share in card.shares:
            assert share.in_use_bytes == before
            assert share.most_bytes >= share.held_bytes > 0
            before += share.held_bytes
    if not packing.fits:
        return
    for plan in plans:
        assert sum(part.bytes for part in plan.prediction.parts) == packing.gpus[0].total_bytes
        assert again(plan).prediction.outcome == "starts"
        assert plan.prediction.concurrency is None or plan.prediction.concurrency >= concurrency
        assert search.best(plan.spec, plan.facts).found.prediction == plan.prediction
        if plan is not plans[0]:
            assert plan.spec.hardware.in_use > foreign


def test_an_older_launch_moved_beside_others_is_the_launch_planned_there() -> None:
    here = search.advise(spec(LLAMA), known(LLAMA, "nvidia-l40s", "3.3.7")).base
    there = search.advise(spec(LLAMA, hardware__in_use="9GiB"), known(LLAMA, "nvidia-l40s", "3.3.7")).base
    moved = warmup.beside(here, 9 * GiB)
    assert moved._replace(setting=there.setting, prefills=there.prefills) == there


# -- the command


PAIR = f"""\
model: {{id: {AWQ}}}
hardware: {{gpu: nvidia-l40s}}
container: {{name: chat}}
---
model: {{id: {SMALL}}}
hardware: {{gpu: nvidia-l40s}}
container: {{name: draft}}
"""


def test_the_documents_of_a_file_are_specs_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "pair.yaml"
    file.write_text(PAIR + "---\n")
    chat, draft = read_all(str(file))
    assert (chat.container.name, draft.container.name) == ("chat", "draft")
    place = draft.place("container.name")
    assert place is not None
    assert place.line == 7
    first = read_text(PAIR.partition("---\n")[0], str(file))
    assert chat == first


def test_everything_wrong_in_all_documents_is_told_at_once() -> None:
    ran = run("advise", "-", stdin=PAIR.replace("gpu:", "gpus:"))
    assert ran.code == Exit.SPEC
    assert "<stdin>:2:12: " in ran.err
    assert "<stdin>:6:12: " in ran.err


def test_an_empty_file_is_refused() -> None:
    assert run("advise", "-", stdin="---\n---\n").code == Exit.SPEC


def test_the_page_of_two(golden: Golden) -> None:
    ran = run("advise", "-", stdin=PAIR)
    assert ran.code == Exit.STARTS
    golden("cli/packing/fits.txt", ran.out)


def test_the_page_of_two_that_do_not_fit(golden: Golden) -> None:
    ran = run("advise", "-", "--gpu", "nvidia-a10g", "--set", f"model.id={LLAMA}", stdin=PAIR)
    assert ran.code == Exit.OUT_OF_MEMORY
    golden("cli/packing/does-not-fit.txt", ran.out)


def test_the_json_of_two(golden: Golden) -> None:
    ran = run("advise", "-", "--json", stdin=PAIR)
    document = json.loads(ran.out)
    jsonschema.Draft202012Validator(plan_schema()).validate(document)
    assert [plan["container"]["name"] for plan in document["plans"]] == document["packing"]["order"]
    golden("cli/packing/fits.json", json.dumps(document["packing"], indent=2) + "\n")


def test_two_files_are_the_two_documents_of_one(tmp_path: Path) -> None:
    chat, draft = tmp_path / "chat.yaml", tmp_path / "draft.yaml"
    chat.write_text(PAIR.partition("---\n")[0])
    draft.write_text(PAIR.partition("---\n")[2])
    assert run("advise", str(chat), str(draft)) == run("advise", "-", stdin=PAIR)


def test_one_document_is_planned_as_ever() -> None:
    alone = PAIR.partition("---\n")[0]
    assert run("advise", "-", stdin=alone).out == run("advise", "-", stdin=f"---\n{alone}").out
    assert "They fit together" not in run("advise", "-", stdin=alone).out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("-", "-"), "standard input is named twice"),
        (("-", "--method", "notebook"), "--method notebook plans one spec at a time"),
    ],
)
def test_what_several_specs_cannot_have(args: tuple[str, ...], told: str) -> None:
    ran = run("advise", *args, stdin=PAIR)
    assert ran.code == Exit.USAGE
    assert told in ran.err


def test_a_fraction_leaves_less_for_the_load_of_its_own_server() -> None:
    whole, half = (
        api.predict(spec(LLAMA, hardware__memory_fraction=share, limits__max_total_tokens=4096,
                         limits__max_input_tokens=3072, limits__max_batch_prefill_tokens=3072), offline=True)
        for share in (1.0, 0.5)
    )  # fmt: skip
    spare = [plan.prediction.under_load.spare_bytes for plan in (whole, half) if plan.prediction.under_load]
    kept = 0.1 * 0.5 * whole.prediction.gpu_total_bytes  # TGI's room is a tenth of what PyTorch may have
    assert kept - GiB < spare[0] - spare[1] < kept


# -- one Compose file


def test_two_as_one_compose_file(golden: Golden, tmp_path: Path) -> None:
    ran = run("emit", "-", "--format", "compose", stdin=PAIR)
    assert ran.code == Exit.STARTS
    assert "Note: start chat, then draft" in ran.err
    golden("cli/packing/compose.yaml", ran.out)
    file = tmp_path / "compose.yaml"
    file.write_text(ran.out)
    assert run("validate", "--strict", str(file), "--gpu", "nvidia-l40s").code == Exit.STARTS


def test_each_service_is_the_container_of_its_plan() -> None:
    services = yaml.safe_load(run("emit", "-", "--format", "compose", stdin=PAIR).out)["services"]
    plans = json.loads(run("advise", "-", "--json", stdin=PAIR).out)["plans"]
    assert [plan["container"]["name"] for plan in plans] == list(services)
    for plan, before in zip(plans, (None, *services), strict=False):
        service = services[plan["container"]["name"]]
        assert service["command"] == plan["container"]["args"]
        waits = service.get("depends_on")
        assert waits == (before and {before: {"condition": "service_healthy"}})
        assert f":{plan['container']['container_port']}/health" in service["healthcheck"]["test"][1]


def test_what_cannot_keep_an_order_writes_one_server() -> None:
    for options in (("--format", "kubernetes"), ("--as-given",)):
        ran = run("emit", "-", *options, stdin=PAIR)
        assert (ran.code, ran.out) == (Exit.USAGE, "")


def test_two_that_do_not_fit_are_not_written() -> None:
    ran = run("emit", "-", "-f", "compose", "--gpu", "nvidia-a10g", "--set", f"model.id={LLAMA}", stdin=PAIR)
    assert (ran.code, ran.out) == (Exit.OUT_OF_MEMORY, "")
    assert "They do not fit together." in ran.err
