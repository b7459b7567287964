"""`compare`: what it prints, and that every option is what `advise` says of the same deployment."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from front import PRICES, ROOT, price_list, run
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st

import tgi_advisor
from tgi_advisor.errors import Exit, UsageError
from tgi_advisor.facts import prices, siblings, tables
from tgi_advisor.gather import prices as own_prices
from tgi_advisor.gather import snapshot

QWEN = ("compare", "--model", "Qwen/Qwen2.5-14B-Instruct")
CARDS = ("--gpu", "nvidia-t4,g6.xlarge,g5.xlarge,amd-mi300x")


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A price list of the user's."""
    return price_list(tmp_path)


def rows(*args: str) -> list[dict[str, Any]]:
    """The options of a comparison."""
    found: list[dict[str, Any]] = json.loads(run(*args, "--json").out)["comparison"]
    return found


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("weights", (*QWEN, *CARDS, "--count", "1,2")),
        ("quantize", (*QWEN, "--gpu", "nvidia-l4,nvidia-t4", "--count", "1,3", "--quantize", "none,awq,fp8,exl2")),
        ("context", (*QWEN, *CARDS, "--count", "1,2", "--for", "context")),
        ("releases", (*QWEN, "--gpu", "h100-sxm", "--release", "2.0.4,3.3", "--kv-cache-dtype", "auto,fp8_e4m3fn")),
        ("spec", ("compare", str(ROOT / "configs" / "llama-3.1-8b-l4.yaml"), "--gpu", "l4,a10g", "--count", "1",
                  "--set", "workload.concurrency=4", "--set", "limits.max_total_tokens={min: 8k}")),
        ("nothing", ("compare", "--model", "meta-llama/Llama-3.1-70B-Instruct", "--gpu", "t4", "--count", "1")),
    ],
)  # fmt: skip
def test_what_it_prints(golden: Golden, own: str, name: str, args: tuple[str, ...]) -> None:
    ran = run(*args, "--prices", own)
    golden(f"compare/{name}.txt", ran.out)
    assert ran.err == ""
    assert ran.code == (Exit.OUT_OF_MEMORY if name == "nothing" else Exit.STARTS)


def test_formats_say_the_same(golden: Golden, own: str) -> None:
    asked = (*QWEN, *CARDS, "--count", "1", "--for", "price", "--prices", own)
    as_json = rows(*asked)
    golden("compare/price.csv", run(*asked, "--format", "csv").out)
    golden("compare/price.md", run(*asked, "--format", "markdown").out)
    golden("compare/price.json", run(*asked, "--format", "json").out)
    told = list(csv.DictReader(io.StringIO(run(*asked, "-f", "csv").out)))
    assert [{key: str(value) if value is not None else "" for key, value in row.items()} for row in as_json] == told
    each = [row["price_per_request"] for row in as_json if row["outcome"] == "starts"]
    known = [price for price in each if price is not None]
    assert known == sorted(known)
    assert each[: len(known)] == known


@settings(max_examples=12, deadline=None)
@given(
    model=st.sampled_from(["Qwen/Qwen2.5-7B-Instruct", "google/gemma-2-9b-it", "mistralai/Mixtral-8x7B-Instruct-v0.1"]),
    gpu=st.sampled_from(["nvidia-t4", "nvidia-l4", "nvidia-a100-80gb-sxm", "amd-mi300x"]),
    count=st.sampled_from([1, 2, 4]),
    release=st.sampled_from(["2.0.4", "3.0.1", "3.3.7"]),
)
def test_an_option_is_what_advise_says(model: str, gpu: str, count: int, release: str) -> None:
    asked = ("-m", model, "-g", gpu, "-n", str(count), "-r", release)
    option = next(row for row in rows("compare", *asked) if row["model"] == model)
    ran = run("advise", *asked, "--set", f"tgi.num_shard={count}", "--json")
    plan = json.loads(ran.out)
    if "error" in plan:
        assert option["outcome"] == "refused"
        return
    assert option["outcome"] == plan["outcome"]
    if option["outcome"] == "starts":
        assert option["max_total_tokens"] == plan["limits"]["max_total_tokens"]
        assert option["max_batch_prefill_tokens"] == plan["limits"]["max_batch_prefill_tokens"]
        assert option["concurrency"] == plan["concurrency"]
        assert option["headroom_bytes"] == plan["memory"]["headroom_bytes"]


def test_what_cannot_be_asked() -> None:
    for args, code, words in [
        (
            ("--gpu", "nvidia-l5,g6.xlargo,l4", "--release", "9.9"),
            Exit.FACTS,
            ("3 names", "nvidia-l5", "g6.xlargo", "9.9"),
        ),
        (("--quantize", "awk"), Exit.USAGE, ("'awk'", "'awq'")),
        (("--kv-cache-dtype", "fp8"), Exit.USAGE, ("'fp8'", "fp8_e4m3fn")),
        (("--count", "1,0"), Exit.USAGE, ("'0'",)),
        (("--count", ","), Exit.USAGE, ("no number of GPUs",)),
        (("--prices", "/nowhere"), Exit.USAGE, ("/nowhere", "cannot be read")),
    ]:
        ran = run(*QWEN, *args, "--json")
        error = json.loads(ran.out)["error"]
        assert (ran.code, error["exit_code"]) == (code, code)
        told = " ".join([error["message"], str(error["hint"]), *(one["message"] for one in error["problems"])])
        assert all(word in told for word in words), told
    assert run("compare").code == Exit.USAGE


@pytest.mark.parametrize(
    "text",
    ["", "prices: 1", "- cloud: A", "[[]]", "{",
     PRICES.replace("g5.xlarge: 1", "g5.xlarge: -1"), PRICES.replace("g6.12x", "g0.x"),
     PRICES.replace('"2026-11-01"', '"yesterday"'), PRICES.replace("36500", "long"),
     PRICES + PRICES.replace("EUR", "USD"), "a: [", "\x00"],
)  # fmt: skip
def test_a_price_list_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    ran = run(*QWEN, "-g", "l4", "--prices", str(tmp_path / "prices.yaml"), "--json")
    assert ran.code == Exit.FACTS
    assert "is no price list" in json.loads(ran.out)["error"]["message"]


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("EUR", "Euro", "3:13", "three capital letters"),
        ("EUR", "[1]", "3:13", "got a list"),
        ("  currency: EUR\n", "", "1:3", "currency is missing"),
        ("region", "regoin", "2:3", "did you mean 'region'?"),
        ("g5.xlarge: 1,", "g5.xlarge: -3,", "7:25", "above 0, got -3"),
        ("g5.xlarge: 1,", "g5.xlarge: .inf,", "7:25", "above 0, got '.inf'"),
        ("g5.xlarge: 1,", "g5.xlrge: 1,", "7:14", "did you mean 'g5.xlarge'"),
        ("g5.xlarge: 1,", "g5.xlarge: 1, g5.xlarge: 2,", "7:28", "twice"),
        ("g5.xlarge: 1,", "box: {gpu: l44, gpus: 1, price: 1},", "7:25", "'l44' is not known"),
        ("g5.xlarge: 1,", "box: {gpu: l4, price: 1},", "7:19", "does not say its gpus"),
        ("g5.xlarge: 1,", "box: {gpu: l4, gpus: 0, price: 1},", "7:35", "between 1 and 1024"),
        ('"2026-11-01"', "2999-01-01", "4:9", "yet to come"),
        ("36500", "-1", "5:15", "must be a count"),
        ("g6.12xlarge: 3}", "g6.12xlarge: 3", "7:76", "not closed"),
    ],
)
def test_what_is_wrong_with_a_price_list_is_said_at_its_place(
    tmp_path: Path, old: str, new: str, place: str, words: str
) -> None:
    path = price_list(tmp_path, PRICES.replace(old, new))
    ran = run(*QWEN, "-g", "l4", "--prices", path)
    assert ran.code == Exit.FACTS
    told = " ".join(ran.err.split())
    assert f"prices.yaml:{place}:" in told
    assert words in told


def test_the_shipped_prices_are_a_price_list_too() -> None:
    path = str(ROOT / "tgi_advisor" / "facts" / "prices.yaml")
    assert own_prices.offers(path, date(2999, 1, 1)) == prices.known()


def test_a_price_list_may_say_which_gpu_an_instance_carries(tmp_path: Path) -> None:
    box = PRICES.replace(
        "{g5.xlarge: 1,", "{box: {gpu: l4, gpus: 2, price: 0.25}, tower: {gpu: mine, gpus: 1, price: 2},"
    )
    path = price_list(tmp_path, box.replace("gpu: mine", "gpu: rtx-4090"))
    (found,) = rows(*QWEN, "-g", "l4", "-n", "2", "-q", "awq", "--prices", path)
    assert (found["instance"], found["price_per_hour"]) == ("box", 0.25)
    path = price_list(tmp_path, box)
    assert run(*QWEN, "-g", "l4", "--prices", path).code == Exit.FACTS
    mine = ("--set", "hardware.gpu={name: mine, memory: 24564MiB, compute_capability: 8.9}")
    (found,) = rows(*QWEN, *mine, "-n", "1", "-q", "awq", "--prices", path)
    assert (found["gpu"], found["instance"], found["price_per_hour"]) == ("mine", "tower", 2)


def test_an_instance_that_is_named_has_its_own_price() -> None:
    def found(*gpus: str) -> dict[int, str]:
        asked = (*QWEN, "-g", ",".join(gpus), "-n", "1,2,4", "-q", "awq")
        return {row["count"]: row["instance"] for row in rows(*asked) if row["gpu"] == "nvidia-l4"}

    assert found("l4") == {1: "g2-standard-4", 2: "g2-standard-24", 4: "g2-standard-48"}
    assert found("g6.2xlarge") == {1: "g6.2xlarge", 2: "g6.12xlarge", 4: "g6.12xlarge"}
    assert found("g6.2xlarge", "g2-standard-8") == {1: "g2-standard-8", 2: "g2-standard-24", 4: "g2-standard-48"}
    assert found("g6.2xlarge", "l4", "t4") == found("l4")
    assert found("g6.12xlarge") == {1: "g6.12xlarge", 2: "g6.12xlarge", 4: "g6.12xlarge"}


def test_a_release_that_does_not_read_how_weights_are_stored_is_told() -> None:
    """Before 2.0.0 TGI takes the quantization of --quantize alone (models/__init__.py@v1.4.5)."""
    for asked in (("-q", "awq,gptq"), ()):
        found = rows(*QWEN[:2], "Qwen/Qwen2.5-7B-Instruct", *asked, "-g", "l4", "-n", "1", "-r", "1.4.5,3.3.7")
        assert {(row["quantize"], row["release"]) for row in found if row["outcome"] == "starts"} >= {
            (method, release) for method in ("awq", "gptq") for release in ("1.4.5", "3.3.7")
        }


def test_what_the_terminal_has_no_room_for_is_said() -> None:
    asked = (*QWEN, "-g", "l4,a10g", "-n", "1,2")
    told = run(*asked).out
    for column in ("PREFILL", "SPARE GiB"):
        assert (column in told.split("No room here for")[0]) != (column in told.split("No room here for")[1])


def test_old_prices_say_so(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES.replace("2026-11-01", "2020-02-02").replace("36500", "90"))
    out = run(*QWEN, "-g", "a10g", "-n", "1", "--prices", str(tmp_path / "prices.yaml")).out
    assert "of 2020-02-02" in out
    assert "Older than such prices hold: g5.xlarge" in out
    told = json.loads(run(*QWEN, "-g", "a10g", "-n", "1", "--prices", str(tmp_path / "prices.yaml"), "--json").out)
    assert {row["price_is_old"] for row in told["comparison"]} == {True}


def test_records_and_a_table_for_notebooks() -> None:
    found = tgi_advisor.compare({"model": {"id": "gpt2"}, "hardware": {"gpu": "l4"}}, gpu=["l4"], count=[1])
    assert found.best is not None
    assert found.records()[0]["max_total_tokens"] == found.best.total
    assert "nvidia-l4" in repr(found)
    assert "<table>" in found._repr_html_()


def test_siblings_are_one_model() -> None:
    same = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    for group in siblings.groups():
        models = [snapshot.find(name) for name in group]
        assert None not in models, group
        assert len({tuple(one.text().get(key) for key in same) for one in models if one}) == 1, group


def test_prices_are_sound() -> None:
    offers = prices.known()
    assert len({(one.cloud, one.region, one.instance) for one in offers}) == len(offers)
    for group in tables.load("prices"):
        assert group["source"].startswith("https://")


def test_what_has_a_price_comes_first_where_no_request_has_one() -> None:
    """Mamba has no KV cache, and so no price of a request."""
    cards = ("--gpu", "nvidia-rtx-4090,nvidia-a10g,nvidia-l4", "--count", "1")
    found = rows("compare", "--model", "state-spaces/mamba-2.8b", *cards, "--for", "price")
    assert [row["gpu"] for row in found] == ["nvidia-l4", "nvidia-a10g", "nvidia-rtx-4090"]
    assert all(row["price_per_request"] is None for row in found)


def test_an_option_without_an_image_is_of_the_release_that_has_none() -> None:
    found = rows("compare", "--model", "gpt2", "--gpu", "intel-max-1550", "--count", "1", "--release", "1.4.5,3.3.7")
    assert {row["release"]: row["why"] for row in found if row["outcome"] == "refused"} == {
        "1.4.5": "TGI 1.4.5 has no intel-xpu image"
    }
    assert sorted(row["release"] for row in found) == ["1.4.5", "3.3.7"]


def test_a_context_beyond_the_models_is_told() -> None:
    asked = ("compare", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "h100-sxm", "--count", "1")
    said = "max_total_tokens 204,800 is above the model's context of 131,072 tokens"
    assert said in run(*asked, "--context", "200k").out
    assert "is above the model's context" not in run(*asked, "--context", "128k").out


def test_the_nearest_of_those_that_do_not_start() -> None:
    """A small card that cannot load comes near nothing where the large ones are refused, or hold too few requests."""
    refused = run("compare", "--model", "google/flan-t5-xl", "--gpu", "rtx2060,l4", "--count", "1", "--json")
    assert "; TGI refuses 1 other: TypeError" in json.loads(refused.out)["why"]
    many = ("compare", "--model", "Qwen/Qwen2.5-7B-Instruct", "--context", "32k", "--users", "1000", "--count", "1,2,4")
    short = run(*many, "--gpu", "rtx4060,l4,h200", "--json")
    assert json.loads(short.out)["why"].startswith("No option starts; 4 x nvidia-h200")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_several_releases_and_dtypes_fit_the_terminal(width: int) -> None:
    found = tgi_advisor.compare(
        {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "l4"}},
        gpu=["l4", "a100-40gb-sxm"], release=["2.4.1", "3.3.7"], kv_cache_dtype=["auto", "fp8_e5m2"],
    )  # fmt: skip
    assert max(map(len, found.text(width).split("\n"))) <= width


STATED = "{name: mine, memory: 24564MiB, compute_capability: 8.9}"


def test_a_gpu_stated_by_hand_among_others(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text(f"model: {{id: Qwen/Qwen2.5-7B-Instruct}}\nhardware: {{gpu: {STATED}}}\n")
    one = ("--count", "1", "--quantize", "none")
    own = rows("compare", str(spec), *one)
    named = rows("compare", str(spec), "--gpu", "mine,g5.xlarge", *one)
    assert {row["gpu"] for row in named} == {"mine", "nvidia-a10g"}
    assert [row for row in named if row["gpu"] == "mine"] == own
    option = rows("compare", "--model", "Qwen/Qwen2.5-7B-Instruct", "--gpu", f"nvidia-a10g, {STATED}", *one)
    assert [row for row in option if row["gpu"] == "mine"] == own
    emitted = run("size", str(spec), "--gpu", "mine", "-u", "3", "-i", "100", "-o", "100", "-n", "1", "--emit-spec")
    assert "    memory: 24564MiB\n" in emitted.out


@pytest.mark.parametrize(
    ("model", "counts"),
    [("bigcode/starcoder", {1, 2, 3, 4, 6, 8}), ("bigscience/bloom", {1, 2, 4, 7, 8}), ("gpt2", {1, 2, 3, 4, 6, 8}),
     ("Qwen/Qwen2.5-7B-Instruct", {1, 2, 4, 8})],
)  # fmt: skip
def test_counts_that_are_compared_are_those_of_machines_and_those_that_split_the_model(
    model: str, counts: set[int]
) -> None:
    found = tgi_advisor.compare({"model": {"id": model}, "hardware": {"gpu": "nvidia-l4"}}, gpu=["a100-80gb-sxm"])
    assert {one.count for one in found.options} == counts


def test_a_count_that_is_none_from_python() -> None:
    spec = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "l4"}}
    with pytest.raises(UsageError, match="0 is no number of GPUs"):
        tgi_advisor.compare(spec, count=[0, 1])


def test_a_spec_of_another_kind_of_card_has_no_image_for_this_one() -> None:
    """The spec names TGI's image for NVIDIA."""
    load = ("-u", "3", "-i", "100", "-o", "100", "-n", "1", "-q", "none", "--emit-spec")
    for card in ("amd-mi300x", "intel-gaudi3", "nvidia-l4"):
        emitted = run("size", str(ROOT / "configs" / "llama-3.1-8b-l4.yaml"), "--gpu", card, *load)
        assert ("  image: " in emitted.out) == (card == "nvidia-l4")
        ran = run("predict", "-", stdin=emitted.out)
        assert (ran.code, ran.err) == (Exit.STARTS, "")


@pytest.mark.parametrize("field", ["driver=525.60.13", "link=nvlink", "in_use=2GiB"])
def test_the_machine_of_the_spec_is_that_of_every_option(field: str) -> None:
    """The driver decides what CUDA reports of an L4, the link what NCCL takes; on an AMD card neither is said."""
    asked = ("--set", f"hardware.{field}", "--count", "2")
    llama = ("--model", "meta-llama/Llama-3.1-8B-Instruct")
    found = rows("compare", *llama, "--gpu", "nvidia-l4,amd-mi300x", "--quantize", "none", *asked)
    plan = json.loads(run("advise", *llama, "--gpu", "nvidia-l4", *asked, "--json").out)
    (one,) = (row for row in found if row["gpu"] == "nvidia-l4")
    assert one["max_batch_prefill_tokens"] == plan["limits"]["max_batch_prefill_tokens"]
    assert one["headroom_bytes"] == plan["memory"]["headroom_bytes"]
    load = ("-u", "3", "-i", "100", "-o", "100", "--quantize", "none", "--emit-spec")
    for card in ("nvidia-l4", "amd-mi300x"):
        emitted = run("size", str(ROOT / "configs" / "llama-3.1-8b-l4.yaml"), "--gpu", card, *load, *asked).out
        assert run("predict", "-", stdin=emitted).code == Exit.STARTS


def test_what_is_kept_of_a_card_is_not_said_of_a_smaller_one_of_its_name() -> None:
    asked = ("compare", "--model", "Qwen/Qwen2.5-7B-Instruct", "--count", "1", "--quantize", "none")
    small = "{name: l4, memory: 16GiB}"
    (alone,) = rows(*asked, "--gpu", small)
    assert alone["outcome"] == "out_of_memory"
    assert alone in rows(*asked, "--gpu", f"nvidia-a10g,{small}")


def test_a_revision_is_that_of_its_own_repository() -> None:
    commit = "0e9e39f249a16976918f6564b8830bc894c89659"
    load = ("-u", "3", "-i", "100", "-o", "100", "-n", "1", "-g", "h200", "--set", f"model.revision={commit}")
    llama = ("size", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--offline", *load, "--emit-spec")
    assert f"  revision: {commit}\n" in run(*llama, "-q", "none").out
    assert "revision" not in run(*llama, "-q", "awq").out


def test_money_has_two_decimals_or_more(tmp_path: Path) -> None:
    """Of one request among many it has as many as tell it from nothing."""
    cheap = price_list(tmp_path, PRICES.replace("g6.xlarge: 0.5", "g6.xlarge: 0.02"))
    asked = ("compare", "--model", "gpt2", "--gpu", "l4", "--count", "1", "--prices", cheap)
    (row,) = rows(*asked)
    assert row["price_per_request"] == 0.02 / row["concurrency"] < 1e-4
    told = run(*asked).out.split()
    assert {"0.02", f"{row['price_per_request']:.6f}"} <= set(told)


def test_auto_is_not_the_dtype_of_the_spec() -> None:
    asked = ("compare", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "l4", "--count", "1", "-q", "none")
    spec = ("--set", "model.kv_cache_dtype=fp8_e5m2")
    found = rows(*asked, *spec, "--kv-cache-dtype", "auto,fp8_e5m2")
    assert {row["kv_cache_dtype"] for row in found} == {"float16", "fp8_e5m2"}
    assert rows(*asked, *spec) == [row for row in found if row["kv_cache_dtype"] == "fp8_e5m2"]
    assert rows(*asked) == [row for row in found if row["kv_cache_dtype"] == "float16"]
