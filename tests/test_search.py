"""What `advise` finds, and what else it says could be asked for, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from front import run

LLAMA, QWEN3, GPTJ = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B", "EleutherAI/gpt-j-6b"


def advised(*args: str) -> dict[str, Any]:
    ran = run("advise", *args, "--json")
    assert ran.code == 0, ran.out + ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def asked(model: str, gpu: str, release: str = "3.3.7", *more: str) -> tuple[str, ...]:
    sets = [word for one in more for word in ("--set", one)]
    return ("--model", model, "--gpu", gpu, "--release", release, *sets)


def test_a_block_of_one_token_prompts_that_is_too_much_hides_no_longer_prompts() -> None:
    """Until 1.4.5 prefills are whole blocks: a limit of one token is warmed up with 16 requests, of 16 with one."""
    found = advised(*asked("meta-llama/Llama-2-7b-chat-hf", "nvidia-rtx-4080", "1.4.5"))
    assert found["limits"]["max_total_tokens"] > 2_000


# -- risk under load

RISKY = (
    asked(LLAMA, "amd-mi300x"),
    asked(QWEN3, "nvidia-rtx-3090"),
    asked("Qwen/Qwen2-VL-7B-Instruct", "nvidia-l4"),
    asked("llava-hf/llava-v1.6-mistral-7b-hf", "nvidia-l4", "3.0.1"),
    asked("codellama/CodeLlama-7b-hf", "nvidia-l4", "2.0.4"),
    asked("mistralai/Mistral-7B-Instruct-v0.3", "nvidia-l4", "2.2.0"),
    asked("Qwen/Qwen3-32B-FP8", "nvidia-h100-sxm"),
    ("--model", QWEN3, "--gpu", "nvidia-l4", "--count", "2"),
)


@pytest.mark.parametrize("args", RISKY, ids=" ".join)
def test_what_is_at_risk_is_said_and_given_only_when_it_is_asked_for(args: tuple[str, ...]) -> None:
    calm = advised(*args)
    riskier = calm["search"]["riskier"]
    assert riskier["asks"] == "workload.allow_risk: true"
    assert riskier["limits"]["max_total_tokens"] > calm["limits"]["max_total_tokens"]
    page = run("advise", *args).out
    assert calm["under_load"]["verdict"] == "tight"
    assert "\nIt fits.\n" in page
    said = f"{riskier['limits']['max_total_tokens']:,} would start, at risk under load: --allow-risk"
    assert said in " ".join(page.split())
    found = calm["limits"]
    prefill = max(found["max_batch_prefill_tokens"], found["max_input_tokens"] + 256)  # with two prompts more may hold
    longer = (
        f"limits.max_total_tokens={found['max_total_tokens'] + 256}",
        f"limits.max_batch_prefill_tokens={prefill}",
    )
    assert (
        advised(*args, *(word for field in longer for word in ("--set", field)))["under_load"]["verdict"] == "at risk"
    )
    for way in (("--allow-risk",), ("--set", "workload.allow_risk=true")):
        risky = advised(*args, *way)
        assert {name: risky["limits"][name] for name in riskier["limits"]} == riskier["limits"]
        assert risky["under_load"]["verdict"] == "at risk"
        assert risky["search"]["riskier"] is None
        assert "\nIt starts, but is at risk under load.\n" in run("advise", *args, *way).out
    emitted = run("emit", *args, "--allow-risk", "--format", "args").out
    assert f"--max-total-tokens {riskier['limits']['max_total_tokens']} " in emitted


def test_a_note_names_a_memory_fraction_that_takes_the_risk_away() -> None:
    calm = advised(*asked(LLAMA, "amd-mi300x"))
    note = next(text for text in calm["warnings"] if text.startswith("hardware.memory_fraction"))
    fraction, total = re.fullmatch(
        r"hardware\.memory_fraction: (\S+) gives max_total_tokens (\S+) and .*", note
    ).groups()  # type: ignore[union-attr]
    other = advised(*asked(LLAMA, "amd-mi300x", "3.3.7", f"hardware.memory_fraction={fraction}"))
    assert f"{other['limits']['max_total_tokens']:,}" == total
    assert other["under_load"]["verdict"] != "at risk"


def test_where_everything_is_at_risk_the_headline_says_so() -> None:
    args = asked(LLAMA, "intel-gaudi3", "3.3.0")
    found = advised(*args)
    assert (found["under_load"]["verdict"], found["search"]["riskier"]) == ("at risk", None)
    assert "\nIt starts, but is at risk under load.\n" in run("advise", *args).out


@pytest.mark.parametrize(
    ("args", "image", "gib"),
    [
        (asked("HuggingFaceM4/idefics2-8b", "nvidia-a100-80gb-sxm"), "(5 pictures of 980 x 980 pixels)", 15.5),
        (asked("HuggingFaceM4/idefics2-8b", "nvidia-l40s", "2.2.0"), "(5 pictures of 980 x 980 pixels)", 15.5),
        (
            asked(
                "llava-hf/llava-v1.6-mistral-7b-hf", "nvidia-l4", "3.0.1",
                "limits.max_input_tokens=3000", "limits.max_total_tokens=4000", "limits.max_batch_prefill_tokens=6000",
            ),
            "in each of its 2 prompts (5 pictures of 336 x 336 pixels)", 2.4,
        ),
        (
            asked("Qwen/Qwen2-VL-7B-Instruct", "nvidia-l4", "3.3.7", "limits.max_input_tokens=8000"),
            "(8,000 patches of 14 x 14 pixels)", 3.6,
        ),
    ],
    ids=str,
)  # fmt: skip
def test_real_images_may_be_larger_than_the_warm_ups(args: tuple[str, ...], image: str, gib: float) -> None:
    under_load = advised(*args)["under_load"]
    assert image in under_load["why"]
    needed = re.search(r"may need (\S+) GiB", under_load["why"])
    assert needed is not None
    assert float(needed.group(1)) >= gib
    assert " ".join(run("advise", *args).out.split()).count(image) == 1


def test_predict_says_a_risk_in_its_headline() -> None:
    risky = advised(*asked(QWEN3, "nvidia-rtx-3090"), "--allow-risk")["limits"]
    sets = [word for name in list(risky)[:3] for word in ("--set", f"limits.{name}={risky[name]}")]
    assert "\nIt starts, but is at risk under load.\n" in run("predict", *asked(QWEN3, "nvidia-rtx-3090"), *sets).out


def test_a_family_without_a_reserved_cache_is_not_judged() -> None:
    page = " ".join(run("advise", *asked(GPTJ, "nvidia-l4", "2.0.4")).out.split())
    assert "Under load: not judged: TGI reserves no KV cache for this family" in page
    assert advised(*asked(GPTJ, "nvidia-l4", "2.0.4"))["under_load"] is None


@pytest.mark.parametrize(
    ("args", "tokens"),
    [
        (asked("Qwen/Qwen2.5-14B-Instruct-AWQ", "nvidia-t4", "3.0.1"), 5_000),
        (asked("google/gemma-2b", "nvidia-t4", "3.0.1"), 7_000),
        (asked("Qwen/Qwen2.5-32B-Instruct-AWQ", "nvidia-l4", "3.0.1"), 2_800),
    ],
    ids=str,
)
def test_smaller_chunks_take_a_risk_away_before_context_is_given_up(args: tuple[str, ...], tokens: int) -> None:
    found = advised(*args)
    assert found["limits"]["max_total_tokens"] >= tokens
    assert found["limits"]["max_batch_prefill_tokens"] < 2048
    assert found["under_load"]["verdict"] == "tight"


def test_servers_that_share_a_gpu_take_no_risk_unless_they_may(tmp_path: Path) -> None:
    one = (
        "model: {{id: {}}}\nhardware: {{gpu: nvidia-l40s, headroom: 0}}\nlimits: {{max_total_tokens: {{max: 30000}}}}\n"
    )
    file = tmp_path / "two.yaml"
    file.write_text("---\n".join(one.format(model) for model in (QWEN3, QWEN3)), encoding="utf-8")
    calm, risky = run("advise", str(file), "--json"), run("advise", str(file), "--json", "--allow-risk")
    first, second = (json.loads(ran.out) for ran in (calm, risky))
    assert [plan["under_load"]["verdict"] == "at risk" for plan in first["plans"]] == [False, False]
    assert all(gpu["spare_bytes"] >= 0 for gpu in first["packing"]["gpus"])
    totals = [sum(plan["limits"]["max_total_tokens"] for plan in one["plans"]) for one in (first, second)]
    assert totals[0] < totals[1]
    assert "They fit together." in run("advise", str(file)).out
    assert "They start together, but are at risk under load." in run("advise", str(file), "--allow-risk").out


# -- images

GEMMA3, LLAVA = ("-m", "google/gemma-3-4b-it", "-g", "nvidia-t4"), ("-m", "llava-hf/llava-v1.6-mistral-7b-hf", "-g")


@pytest.mark.parametrize(
    ("args", "image", "missing"),
    [
        ((*GEMMA3, "--set", "hardware.in_use=1.8GiB"), 258, "Not enough memory to handle 258 prefill tokens"),
        ((*LLAVA, "nvidia-t4"), 1176, "Not enough memory to handle 1176 prefill tokens"),
    ],
)
def test_where_nothing_fits_the_image_is_whole_and_memory_is_missing(
    args: tuple[str, ...], image: int, missing: str
) -> None:
    page = run("advise", *args)
    assert page.code == 5
    assert missing in page.out
    assert f"max_input_tokens {image:>21,}\n" in page.out
    assert "hardware.gpu: nvidia-a10 gives" in page.out
    assert "truncated" not in page.out
    pinned = run("advise", *args, "--set", "limits.max_input_tokens=100")
    assert pinned.code == 6
    assert f"raise max_input_tokens and max_batch_prefill_tokens to at least {image}" in pinned.out


@pytest.mark.parametrize(
    ("args", "image"),
    [
        ((*GEMMA3, "--set", "hardware.headroom=0.14GiB"), 258),
        *(((*LLAVA, "nvidia-l4", "--set", f"hardware.in_use={gone}GiB"), 1176) for gone in (4, 4.5, 5.5)),
    ],
)
def test_beside_little_memory_a_warm_up_of_two_images_holds_a_request(args: tuple[str, ...], image: int) -> None:
    found = advised(*args)
    limits = found["limits"]
    assert limits["max_batch_prefill_tokens"] >= limits["max_input_tokens"] >= image or found["prefill_chunking"]
    assert limits["max_batch_prefill_tokens"] >= image
    assert found["concurrency"] == 1


# -- one number of what fits

TOO_LARGE = (
    (LLAMA, "nvidia-l4", "3.3.7", 30000, 32000, 40000),
    (LLAMA, "nvidia-l4", "2.4.0", 32000, 33000, 32000),
    (LLAMA, "nvidia-a10g", "3.3.7", 4096, 8192, 102400),
    (LLAMA, "nvidia-l4", "3.3.7", 40000, 40001, 1000),
    (QWEN3, "nvidia-rtx-3090", "3.3.7", 30000, 32000, 30000),
    ("google/gemma-2-9b-it", "nvidia-l4", "2.3.1", 8000, 8192, 65536),
    ("Qwen/Qwen2.5-14B-Instruct-AWQ", "nvidia-t4", "3.0.1", 30000, 32000, 400000),
)


@pytest.mark.parametrize("case", TOO_LARGE, ids=str)
def test_predict_validate_and_advise_say_one_number(case: tuple[Any, ...], tmp_path: Path) -> None:
    model, gpu, release, longest, total, prefill = case
    sets = (f"limits.max_input_tokens={longest}", f"limits.max_total_tokens={total}",
            f"limits.max_batch_prefill_tokens={prefill}")  # fmt: skip
    opened = run("advise", *asked(model, gpu, release), "--json")
    limits = json.loads(opened.out)["limits"]
    seen = json.loads(run("predict", *asked(model, gpu, release, *sets), "--json").out)
    assert seen["outcome"] in ("out_of_memory", "refused")
    (step,) = seen["next_steps"]
    named = dict(re.findall(r"(max_\w+) ([0-9,]+)", step.partition(" would start")[0]))
    wanted = {name: limits[name] for name in ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")}
    assert {name: int(value.replace(",", "")) for name, value in named.items()} == wanted
    file = tmp_path / "run.sh"
    file.write_text(
        f"docker run --gpus '\"device=0\"' ghcr.io/huggingface/text-generation-inference:{release} --model-id {model} "
        f"--max-input-tokens {longest} --max-total-tokens {total} --max-batch-prefill-tokens {prefill}\n",
        encoding="utf-8",
    )
    found = run("validate", str(file), "--gpu", gpu).out
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in wanted.items())
    assert flags in found, found


# -- the prefill budget


def test_the_trade_between_context_and_chunks_is_said_and_chosen() -> None:
    args = asked(LLAMA, "nvidia-rtx-3090")
    plain, chunks, context = (
        advised(*args, *(("--set", f"workload.prefer={prefer}") if prefer else ()))
        for prefer in (None, "prefill", "context")
    )
    assert plain["limits"] == chunks["limits"]
    pairs = [
        (one["limits"]["max_total_tokens"], one["limits"]["max_batch_prefill_tokens"]) for one in (chunks, context)
    ]
    assert pairs == [(40961, 2209), (43009, 1097)]
    for one, other, prefer in ((chunks, context, "context"), (context, chunks, "prefill")):
        trade = one["search"]["trade"]
        assert trade["asks"] == f"workload.prefer: {prefer}"
        assert trade["limits"] == {name: other["limits"][name] for name in trade["limits"]}
    page = " ".join(run("advise", *args).out.split())
    assert (
        "Prefill: chunks of 2,209 tokens; workload.prefer: context gives max_total_tokens 43,009 in chunks of 1,097"
        in page
    )
    assert advised(*asked(LLAMA, "nvidia-l4"))["search"]["trade"] is None
    assert advised(*asked(QWEN3, "nvidia-rtx-3090"))["search"]["trade"] is None  # not chunked: nothing to choose


@pytest.mark.parametrize("gpu", ["nvidia-rtx-3090", "nvidia-t4", "nvidia-a10g", "nvidia-a100-40gb-sxm"])
@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-14B-Instruct-AWQ", "google/gemma-2-9b-it"])
def test_chunks_cost_at_most_a_tenth(gpu: str, model: str) -> None:
    found = run("advise", *asked(model, gpu), "--json")
    if found.code:
        return
    document = json.loads(found.out)
    trade = document["search"]["trade"]
    if trade is not None:
        assert document["limits"]["max_total_tokens"] >= 0.9 * trade["limits"]["max_total_tokens"]
        assert document["limits"]["max_batch_prefill_tokens"] >= trade["limits"]["max_batch_prefill_tokens"]


@pytest.mark.parametrize("release", ["3.0.1", "3.3.7"])
@pytest.mark.parametrize("model", ["bigcode/starcoder2-3b", "TheBloke/Mistral-7B-Instruct-v0.1-AWQ"])
def test_a_length_that_is_refused_bounds_chunks_and_context(model: str, release: str) -> None:
    found = advised(*asked(model, "nvidia-t4", release))
    assert found["search"]["bound_by"].startswith("a refusal of longer prompts")


# -- Gaudi


@pytest.mark.parametrize("release", ["3.2.1", "3.3.0", "3.3.1", "3.3.7"])
@pytest.mark.parametrize(("model", "count", "together"), [(LLAMA, 1, 1), (LLAMA, 1, 40), (QWEN3, 1, 1), (GPTJ, 1, 1)])
def test_gaudi_is_told_the_largest_batch_size_that_fits(release: str, model: str, count: int, together: int) -> None:
    args = ("--model", model, "--gpu", "gaudi3", "--count", str(count), "--release", release)
    found = run("advise", *args, "--set", f"workload.concurrency={together}", "--json")
    document = json.loads(found.out)
    assert "MAX_BATCH_SIZE" not in (document["reason"] or "")
    if document["outcome"] != "starts":
        return
    assert document["dtype"] == "bfloat16"
    words = document["container"]["args"]
    size = int(words[words.index("--max-batch-size") + 1])
    assert together <= size <= max(128, together)
    if document["concurrency"] is not None:
        assert size == min(document["concurrency"], max(128, together))
    names = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
    sets = [f"limits.{name}={document['limits'][name]}" for name in names] + [f"tgi.flags.max-batch-size={size}"]
    again = run("predict", *args, *(word for one in sets for word in ("--set", one)), "--json")
    assert json.loads(again.out)["limits"] == document["limits"]


def test_a_batch_size_that_is_said_stays() -> None:
    words = advised(*asked(LLAMA, "gaudi3", "3.3.7", "tgi.flags.max-batch-size=3"))["container"]["args"]
    assert words.count("--max-batch-size") == 1
    assert words[words.index("--max-batch-size") + 1] == "3"


# -- limits beyond any GPU

ABSURD = 1_000_000_000


BEYOND = (
    ("limits.max_batch_prefill_tokens",),
    ("limits.max_total_tokens", "limits.max_batch_prefill_tokens"),
    ("limits.max_batch_prefill_tokens", "workload.concurrency"),
    ("limits.max_total_tokens",),
    ("workload.concurrency",),
)


@pytest.mark.parametrize(
    ("model", "release", "sets"),
    [
        (LLAMA, "2.2.0", BEYOND[0]),
        *((model, "3.3.7", sets) for model in (LLAMA, QWEN3, "google/gemma-3-4b-it") for sets in BEYOND),
    ],
)
def test_a_search_for_what_no_gpu_holds_ends(model: str, release: str, sets: tuple[str, ...]) -> None:
    ran = run("advise", *asked(model, "nvidia-l4", release, *(f"{one}={ABSURD}" for one in sets)), "--json")
    found = json.loads(ran.out)
    assert ran.code == 5
    assert found["search"]["evaluations"] < 300
    if "limits.max_batch_prefill_tokens" in sets:
        assert found["limits"]["max_batch_prefill_tokens"] == ABSURD
        assert found["reason"].startswith(f"Not enough memory to handle {ABSURD} prefill tokens")


def test_a_pinned_prefill_of_more_requests_than_memory_holds_at_first_still_finds_short_prompts() -> None:
    """A KV cache for so many requests wants prompts short enough to be warmed up a dozen at a time."""
    wanted = ("limits.max_batch_prefill_tokens=8192", "workload.concurrency=100", "workload.max_new_tokens=16")
    found = advised(*asked(LLAMA, "nvidia-l4", "3.3.7", *wanted))
    assert found["limits"]["max_batch_prefill_tokens"] == 8192
    assert 100 <= found["limits"]["max_total_tokens"] < 400


def test_twice_the_prefill_needs_more_however_long_it_is() -> None:
    def needed(tokens: int) -> int:
        wanted = asked(LLAMA, "nvidia-l4", "3.3.7", f"limits.max_batch_prefill_tokens={tokens}")
        ran = run("predict", *wanted, "--json")
        assert ran.code == 5
        return sum(part["bytes"] for part in json.loads(ran.out)["memory"]["parts"])

    found = [needed(1 << power) for power in range(17, 31)]
    assert found == sorted(set(found))
