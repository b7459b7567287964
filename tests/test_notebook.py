from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor.errors import FactsError, SpecError
from tgi_advisor.estimate.notebook import head_dim, nominal_gb, notebook, notebook_tgi
from tgi_advisor.facts.model import ModelFacts, TensorGroup
from tgi_advisor.limits import Limits
from tgi_advisor.units import GiB, MiB

LLAMA_CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
}  # fmt: skip


def model(config: dict[str, Any] = LLAMA_CONFIG) -> ModelFacts:
    """Llama 3.1 8B as far as the formula looks: the sizes of its config.json and its 8,030,261,248 stored values."""
    tensors = (TensorGroup("all", "BF16", (8_030_261_248,), 1),)
    return ModelFacts(id="m", commit=None, source="", config=config, defaults={}, tensors=tensors)


LLAMA = model()


def test_the_case_on_one_24_gb_gpu() -> None:
    assert notebook(LLAMA, 1, 24, Limits(8750, 8782, 8782)).printed() == {
        "cuda_overhead": 1.2,
        "model_overhead": 16.06052,
        "prefill_overhead": 3.15672,
        "decode_overhead": 0.00036,
        "kv_cache_full_overhead": 9.20755,
        "total_vram_available": 22.8,
        "total_vram_needed": 29.62515,
        "is_enough_vram": False,
    }


@pytest.mark.parametrize(
    ("tokens", "prefill", "kv_cache", "needed"),
    [
        (10_000, 3.60732, 10.48471, 34.95291),
        (11_000, 3.96809, 11.53329, 36.36226),
        (12_000, 4.32886, 12.58186, 37.7716),
        (13_000, 4.68962, 13.63044, 39.18095),
        (14_000, 5.05039, 14.67902, 40.59029),
        (15_000, 5.41116, 15.72759, 41.99963),
        (16_000, 5.77193, 16.77617, 43.40898),
        (17_000, 6.1327, 17.82474, 44.81832),
        (18_000, 6.49346, 18.87332, 46.22767),
        (19_000, 6.85423, 19.9219, 47.63701),
    ],
)
def test_the_table_of_four_24_gb_gpus(tokens: int, prefill: float, kv_cache: float, needed: float) -> None:
    assert notebook(LLAMA, 4, 24, Limits(tokens - 1, tokens, tokens)).printed() == {
        "cuda_overhead": 4.8,
        "model_overhead": 16.06052,
        "prefill_overhead": prefill,
        "decode_overhead": 0.00036,
        "kv_cache_full_overhead": kv_cache,
        "total_vram_available": 91.2,
        "total_vram_needed": needed,
        "is_enough_vram": True,
    }


def test_the_variant_that_mimics_tgi_worked_by_hand() -> None:
    # Free: (24 - 1.2 - 16.060522496 - 3.15672 - 0.000360768) GB x 0.95 = 3.4032769992 GB.
    # One token: 2 x 32 layers x 8 heads x 512 x 2 bytes = 524,288; the budget is 6491 of the 2 x 8781 tokens needed.
    assert notebook_tgi(LLAMA, 1, 24, Limits(8750, 8782, 8782)).printed() == {
        "cuda_overhead": 1.2,
        "model_overhead": 16.06052,
        "prefill_overhead": 3.15672,
        "kv_cache_overhead_per_token": 0.00052,
        "free_vram_for_kv_cache": 3.40328,
        "vram_needed_for_kv_cache": 9.20755,
        "kv_cache_token_budget": 6491,
        "kv_cache_tokens_needed": 17562,
        "is_enough_vram": False,
    }
    assert notebook_tgi(LLAMA, 2, 24, Limits(8750, 8782, 8782)).fits


def test_the_slip_is_kept_only_where_the_notebook_has_it() -> None:
    assert head_dim(LLAMA) == 512  # a head of Llama 3.1 8B has 128
    assert head_dim(model({**LLAMA_CONFIG, "head_dim": 128})) == 128
    assert head_dim(model({"text_config": {**LLAMA_CONFIG, "head_dim": 128}})) == 128
    assert head_dim(model({**LLAMA_CONFIG, "head_dim": None})) == 512
    assert head_dim(model({**LLAMA_CONFIG, "text_config": None})) == 512
    defaults = {"head_dim": 128}  # what today's configuration class fills in
    assert head_dim(LLAMA._replace(defaults=defaults)) == 512


def test_a_share_of_the_memory_counts_on_what_the_variant_multiplies() -> None:
    whole, half = (notebook(LLAMA, 1, 24, Limits(10, 20, 10), memory_fraction=share) for share in (1.0, 0.5))
    assert half.available == whole.available / 2
    free, less = (notebook_tgi(LLAMA, 1, 24, Limits(10, 20, 10), memory_fraction=share) for share in (1.0, 0.5))
    assert less.free == free.free / 2


@pytest.mark.parametrize(
    "limits", [Limits(None, 20, 10), Limits(10, None, 10), Limits(10, 20, None)], ids=["input", "total", "prefill"]
)
def test_an_open_limit_is_refused(limits: Limits) -> None:
    for method in (notebook, notebook_tgi):
        with pytest.raises(SpecError, match="left open\ngive max_input_tokens, max_total_tokens"):
            method(LLAMA, 1, 24, limits)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(SpecError, match="no dtype 'fp4'\nit knows int4, int8, float8, float16, bfloat16, float32"):
        notebook(LLAMA, 1, 24, Limits(10, 20, 10), dtype="fp4")


@pytest.mark.parametrize("name", sorted(set(LLAMA_CONFIG) - {"model_type"}))
@pytest.mark.parametrize("value", [None, "32", 0])
def test_a_size_the_configuration_lacks_is_named(name: str, value: object) -> None:
    with pytest.raises(FactsError, match=f"needs {name}, which the configuration of m does not have\nuse --method tgi"):
        notebook(model({**LLAMA_CONFIG, name: value}), 1, 24, Limits(10, 20, 10))


@pytest.mark.parametrize(
    ("card", "mib", "gb"),
    [
        ("Tesla T4", 15360, 16),
        ("Tesla V100-SXM2-16GB", 16384, 16),
        ("Tesla V100-SXM2-32GB", 32768, 32),
        ("NVIDIA A10G", 23028, 24),
        ("NVIDIA L4", 23034, 24),
        ("NVIDIA GeForce RTX 3090", 24576, 24),
        ("NVIDIA GeForce RTX 4090", 24564, 24),
        ("NVIDIA GeForce RTX 5090", 32607, 32),
        ("NVIDIA A40", 46068, 48),
        ("NVIDIA L40S", 46068, 48),
        ("NVIDIA RTX 6000 Ada Generation", 49140, 48),
        ("NVIDIA A100-SXM4-40GB", 40960, 40),
        ("NVIDIA A100-SXM4-80GB", 81920, 80),
        ("NVIDIA H100 80GB HBM3", 81559, 80),
        ("NVIDIA H100 NVL", 95830, 94),
        ("NVIDIA H200", 143771, 141),
        ("NVIDIA B200", 183359, 180),
        ("AMD Instinct MI210", 65520, 64),
        ("AMD Instinct MI300X", 196592, 192),
        ("Gaudi 2", 98304, 96),
        ("Gaudi 3", 131072, 128),
        ("MIG 1g.10gb", 9728, 10),
        ("a CPU with 512 GiB", 524288, 512),
    ],
)
def test_the_size_a_card_is_sold_with(card: str, mib: int, gb: int) -> None:
    assert nominal_gb(mib * MiB) == gb


COUNT = st.integers(1, 200_000)
LIMITS = st.builds(Limits, COUNT, COUNT, COUNT)
DTYPE = st.sampled_from(["int4", "int8", "float16", "bfloat16", "float32"])


@given(LIMITS, st.integers(1, 16), st.integers(1, 300), DTYPE)
def test_the_parts_sum_to_what_is_needed(limits: Limits, gpus: int, gb: int, dtype: str) -> None:
    figures = notebook(LLAMA, gpus, gb, limits, dtype=dtype)
    parts = figures.cuda + figures.model + figures.prefill + figures.decode + figures.kv_cache
    assert figures.needed == pytest.approx(parts, rel=1e-12)
    assert figures.fits == (figures.needed <= figures.available)


@given(LIMITS, COUNT, st.sampled_from(["max_total_tokens", "max_batch_prefill_tokens"]))
def test_longer_requests_and_larger_batches_never_need_less(limits: Limits, more: int, name: str) -> None:
    before = limits.given()
    larger = Limits(**{**before, name: before[name] + more})
    assert notebook(LLAMA, 1, 24, limits).needed <= notebook(LLAMA, 1, 24, larger).needed
    small, large = notebook_tgi(LLAMA, 1, 24, limits), notebook_tgi(LLAMA, 1, 24, larger)
    assert small.tokens_needed <= large.tokens_needed
    assert small.token_budget >= large.token_budget


@given(COUNT, st.integers(1, 100))
def test_when_one_prompt_fills_the_prefill_batch_a_longer_one_never_needs_less(tokens: int, more: int) -> None:
    before, after = (notebook(LLAMA, 1, 24, Limits(t, t + 1, t)).needed for t in (tokens, tokens + more))
    assert before < after


@given(LIMITS, st.integers(1, 300), st.integers(1, 100))
def test_larger_cards_never_take_the_verdict_back(limits: Limits, gb: int, more: int) -> None:
    for method in (notebook, notebook_tgi):
        assert not method(LLAMA, 1, gb, limits).fits or method(LLAMA, 1, gb + more, limits).fits


@given(st.integers(1, 600 * GiB), st.integers(0, 10 * GiB))
def test_more_memory_is_never_sold_as_less(size: int, more: int) -> None:
    assert nominal_gb(size) <= nominal_gb(size + more)
