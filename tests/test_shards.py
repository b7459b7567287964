"""Every shard count of every shipped model, in releases that differ: an answer, and never a division by zero."""

from __future__ import annotations

import pytest
from front import run
from launch import model, settle

from tgi_advisor import refusals
from tgi_advisor.errors import FactsError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.facts import families
from tgi_advisor.gather import snapshot
from tgi_advisor.limits import Limits
from tgi_advisor.verdict import predict

SOME = [name for name in snapshot.recorded_ids() if "AWQ" not in name][::7]


@pytest.mark.parametrize("release", ["1.1.0", "2.0.4", "3.3.7"])
@pytest.mark.parametrize("name", SOME)
def test_shards_above_the_kv_heads_are_refused(name: str, release: str) -> None:
    facts = snapshot.find(name)
    assert facts is not None
    for shards in (2, 3, 6, 8, 16):
        try:
            setting = settle(facts, release, "nvidia-h100-80gb", count=16, shards=shards)
        except FactsError:
            continue
        seen = predict(warmup.base(setting), Limits())
        lost = setting.family.paged and 1 < families.kv_heads(facts) < shards and setting.family.kv != "replicated"
        assert seen.outcome == "refused" or not lost
        assert seen.outcome != "starts" or seen.kv_bytes_per_token > 0 or not setting.family.paged


@pytest.mark.parametrize(
    ("kind", "release", "shards", "heads", "message"),
    [
        ("qwen2", "3.3.7", 16, 32, "ZeroDivisionError: integer division or modulo by zero"),
        ("qwen2", "2.0.4", 16, 32, "AssertionError"),
        ("mistral", "2.1.0", 16, 32, "ZeroDivisionError: integer division or modulo by zero"),
        ("mixtral", "3.3.7", 16, 32, "AssertionError"),
        ("llama", "2.0.3", 16, 32, "ZeroDivisionError: integer division or modulo by zero"),
        ("llama", "2.0.2", 16, 32, "AssertionError"),
        ("qwen2", "3.3.7", 6, 48, "AssertionError: The choosen size 1024 is not compatible with sharding on 6 shards"),
        ("qwen3", "3.3.7", 16, 32, "ZeroDivisionError: integer division or modulo by zero"),
    ],
)
def test_what_each_class_says_of_lost_heads(kind: str, release: str, shards: int, heads: int, message: str) -> None:
    facts = model(model_type=kind, num_attention_heads=heads, head_dim=128, intermediate_size=12288)
    setting = settle(facts, release, "nvidia-h100-80gb", count=16, shards=shards)
    asked = defaults.launcher_limits(setting, Limits())
    assert refusals.shard_refusals(setting, asked)[0].message == message


@pytest.mark.parametrize("command", ["advise", "predict", "emit"])
def test_too_many_shards_end_with_a_refusal(command: str) -> None:
    args = ("-m", "mistralai/Mistral-7B-Instruct-v0.3", "-g", "nvidia-h100-sxm", "-n", "16")
    ran = run(command, *args, "--set", "tgi.num_shard=16")
    assert ran.code == 6
    assert "8 key/value heads over 16 shards: shard counts that work here are 1, 2, 4, 8" in ran.out + ran.err


@pytest.mark.parametrize(
    "args",
    [
        ("advise", "-g", "nvidia-l4", "-n", "3", "--set", "tgi.num_shard=3"),
        ("compare", "-g", "nvidia-l4", "--count", "3"),
        ("fits", "--count", "3"),
        ("size", "-g", "nvidia-l4", "--count", "3", "--users", "10", "--input", "1500", "--output", "500"),
        ("sweep", "-g", "nvidia-l4", "-n", "4", "--vary", "tgi.num_shard=3,4"),
    ],
    ids=lambda args: args[0],
)
def test_a_count_the_model_cannot_be_split_over_is_answered_with_those_that_work(args: tuple[str, ...]) -> None:
    command, *others = args
    ran = run(command, "-m", "Qwen/Qwen2.5-7B-Instruct", *others)
    assert "28 heads: shard counts that work here are 1, 2, 4" in " ".join((ran.out + ran.err).split())
