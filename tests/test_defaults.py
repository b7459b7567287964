from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as sampled
from hypothesis import strategies as st
from launch import CPU, LLAMA, PACKED, model, settle

from tgi_advisor.errors import FactsError
from tgi_advisor.estimate import defaults, launcher
from tgi_advisor.facts import families
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.limits import Limits

LLAMA_2_7B: dict[str, Any] = {
    **LLAMA, "intermediate_size": 11008, "num_key_value_heads": 32, "vocab_size": 32000,
    "max_position_embeddings": 4096,
}  # fmt: skip
MISTRAL_7B: dict[str, Any] = {**LLAMA, "model_type": "mistral", "vocab_size": 32768, "max_position_embeddings": 32768}
QWEN_7B: dict[str, Any] = {
    **LLAMA, "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
    "num_key_value_heads": 4, "num_hidden_layers": 28, "vocab_size": 152064, "max_position_embeddings": 32768,
}  # fmt: skip
LLAMA_70B: dict[str, Any] = {
    **LLAMA, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80,
}  # fmt: skip
QWEN_VL: dict[str, Any] = {**QWEN_7B, "model_type": "qwen2_vl", "vision_config": {"depth": 32}}
GEMMA_3: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {**LLAMA, "model_type": "gemma3_text"},
    "vision_config": {},
}
UNKNOWN = GpuFacts("mine", "cuda", 24564 << 20, None, (8, 9), None, None, "nvidia-geforce-rtx-4090", "by hand")


# ---- max_batch_prefill_tokens of the launcher ----


@pytest.mark.parametrize(
    ("config", "shards", "expected"),
    [
        (LLAMA, 1, (59870, 20755, 8049, 8315, 4096)),
        (LLAMA_2_7B, 1, (4096, 4096, 4096, 4096, 4096)),
        (MISTRAL_7B, 1, (32768, 20755, 8049, 8315, 4096)),
        (QWEN_7B, 1, (32768, 22658, 8787, 9077, 4096)),
        (LLAMA_70B, 4, (24383, 8453, 3278, 3386, 4096)),
    ],
    ids=["Llama-3.1-8B", "Llama-2-7B", "Mistral-7B", "Qwen2.5-7B", "Llama-3.3-70B"],
)
def test_prefill_default_by_compute(config: dict[str, Any], shards: int, expected: tuple[int, ...]) -> None:
    cards = ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L4", "NVIDIA A10G")
    found = [
        settle(model(config), gpu=gpu, count=shards, shards=shards).launcher_prefill
        for gpu in (*(gpus.find(card) for card in cards), UNKNOWN)
    ]
    assert tuple(found) == expected


@pytest.mark.parametrize(
    ("release", "config", "expected"),
    [
        ("1.0.0", LLAMA, 4096),
        ("1.4.5", LLAMA, 4096),
        ("2.0.0", LLAMA, 4145),
        ("2.4.0", LLAMA, 4145),
        ("2.4.1", LLAMA, 4096),
        ("2.4.1", {**LLAMA, "max_position_embeddings": 2048}, 2048),
        ("3.0.0", LLAMA, 8049),
        ("3.1.0", QWEN_VL, 4096),
        ("3.1.1", QWEN_VL, 10000),
        ("3.1.1", GEMMA_3, 4096),
        ("3.2.0", GEMMA_3, 8000),
        ("3.3.7", {**LLAMA, "quantization_config": {"quant_method": "awq"}}, 8049),
        ("3.3.7", {**LLAMA, "quantization_config": {"quant_method": "mxfp4"}}, 4096),
        ("3.3.7", {**LLAMA, "max_position_embeddings": None}, 8049),
    ],
)
def test_prefill_default_by_release(release: str, config: dict[str, Any], expected: int) -> None:
    setting = settle(model(config), release)
    assert defaults.launcher_limits(setting, Limits()).max_batch_prefill_tokens == expected


def test_prefill_default_is_capped_by_the_memory_the_launcher_sees() -> None:
    def at(fraction: float, **env: str) -> int | None:
        return settle(fraction=fraction, env=env).launcher_prefill

    # 24,152,899,584 bytes x 0.65 x 0.95, less 14,449,770,496 of weights, at 260,096 a token
    assert [at(1.0), at(0.9), at(0.65)] == [8049, 8049, 1786]
    assert at(0.5) == 8049  # less than the weights: the cap is given up
    assert at(1.0, TGI_WIGGLE_ROOM="0.62") == 2018


@pytest.mark.parametrize(
    ("name", "since"),
    [("nvidia-l4", "3.0.0"), ("nvidia-a40", "3.0.2"), ("nvidia-h100-nvl", "3.0.2"), ("nvidia-h200", "3.1.0")],
)
def test_cards_the_launcher_knows(name: str, since: str) -> None:
    everything = [release for release in releases.all_releases() if release.version >= (3, 0, 0)]
    known = [str(release) for release in everything if launcher.card_tflops(name, release)]
    assert known == [str(release) for release in everything if release.version >= releases.version(since)]


def test_a_geforce_is_unknown_to_the_launcher() -> None:
    assert launcher.card_tflops("nvidia-geforce-rtx-4090", releases.latest()) is None


# ---- limits ----


@pytest.mark.parametrize(
    ("release", "given", "expected"),
    [
        ("1.4.5", Limits(), Limits(1024, 2048, 4096)),
        ("2.0.0", Limits(), Limits(4095, 4096, 4145)),
        ("2.4.0", Limits(None, 2048), Limits(4095, 2048, 4145)),
        ("2.4.0", Limits(100), Limits(100, 4096, 150)),
        ("2.4.1", Limits(), Limits(None, None, 4096)),
        ("3.3.7", Limits(100, None, 300, 400), Limits(100, None, 300, 400)),
    ],
)
def test_launcher_limits(release: str, given: Limits, expected: Limits) -> None:
    assert defaults.launcher_limits(settle(release=release), given) == expected


def test_launcher_limits_with_a_batch_size() -> None:
    setting = settle(release="2.4.0", flags={"max-batch-size": 4})
    assert defaults.launcher_limits(setting, Limits(100, 200)).max_batch_prefill_tokens == 400


@pytest.mark.parametrize(
    ("release", "config", "expected"),
    [
        ("2.0.0", {**LLAMA, "max_position_embeddings": 2048}, 2048),
        ("2.0.0", {"model_type": "mpt", "max_seq_len": 2048}, 2048),
        ("2.0.3", {"model_type": "gpt2", "n_positions": 1024}, 4096),
        ("2.0.4", {"model_type": "gpt2", "n_positions": 1024}, 1024),
    ],
)
def test_context_by_release(release: str, config: dict[str, Any], expected: int) -> None:
    sizes = {"n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 50257, "d_model": 768, "n_heads": 12}
    setting = settle(model({**sizes, **config}), release)
    assert defaults.launcher_limits(setting, Limits()).max_total_tokens == expected


@pytest.mark.parametrize(
    ("release", "launch", "given", "expected"),
    [
        ("2.4.0", {}, Limits(10, 20, 30), Limits(10, 20, 30, 16000)),
        ("2.4.1", {}, Limits(None, None, 4096), Limits(4095, 4096, 4096, 64000)),
        ("2.4.1", {"env": {"PREFILL_CHUNKING": "1"}}, Limits(None, None, 4096), Limits(63999, 64000, 4096, 64000)),
        ("2.4.1", {}, Limits(None, 5000, 4096), Limits(None, 5000, 4096, 64000)),
        ("3.0.0", {}, Limits(None, None, 4096), Limits(63999, 64000, 4096, 64000)),
        ("3.0.1", {"context": 2048}, Limits(None, None, 4096), Limits(2047, 2048, 4096, 64000)),
        ("3.0.0", {"context": 2048}, Limits(None, None, 4096), Limits(63999, 64000, 4096, 64000)),
        ("3.3.7", {"tokenizer": 512}, Limits(None, None, 4096), Limits(511, 512, 4096, 64000)),
        ("3.3.7", {"flags": {"speculate": 1}}, Limits(None, None, 4096), Limits(4095, 4096, 4096, 64000)),
        ("3.3.7", {}, Limits(None, 8000, 4096), Limits(7999, 8000, 4096, 64000)),
    ],
)
def test_server_limits(release: str, launch: dict[str, Any], given: Limits, expected: Limits) -> None:
    facts = model(max_position_embeddings=launch.pop("context", 131072))
    facts = facts._replace(model_max_length=launch.pop("tokenizer", None))
    setting = settle(facts, release, **launch)
    blocks = (expected.max_batch_total_tokens or 0) // setting.block_size
    assert defaults.server_limits(setting, given, blocks, 4096) == expected


def test_padded_families_get_the_routers_budget() -> None:
    t5 = model({"model_type": "t5", "d_model": 8, "d_ff": 8, "num_heads": 2, "num_layers": 1, "vocab_size": 9})
    assert defaults.server_limits(settle(t5), Limits(None, None, 20000), 0, 20000) == Limits(19999, 20000, 20000, 20000)
    assert defaults.server_limits(settle(t5), Limits(1, 2, 3), 0, 3).max_batch_total_tokens == 16000
    assert defaults.server_limits(settle(t5), Limits(1, 2, 3, 777), 0, 3).max_batch_total_tokens == 777


def test_limits_given_by_environment_and_flags() -> None:
    setting = settle(env={"MAX_INPUT_TOKENS": "11", "MAX_TOTAL_TOKENS": "22"}, flags={"max-total-tokens": 33})
    assert defaults.given_limits(setting) == Limits(11, 33)


# ---- attention, prefix caching, block size ----

HEAD_96: dict[str, Any] = {"hidden_size": 3072}
GEMMA_2: dict[str, Any] = {"model_type": "gemma2", "head_dim": 256}


@pytest.mark.parametrize(
    ("release", "capability", "config", "attention", "prefix", "block"),
    [
        ("1.0.0", (8, 9), {}, "paged", False, 16),
        ("2.2.0", (8, 9), {}, "paged", False, 16),
        ("2.1.1", (8, 9), GEMMA_2, "paged", False, 16),
        ("2.2.0", (8, 9), GEMMA_2, "flashdecoding", False, 256),
        ("2.3.0", (8, 9), {}, "flashinfer", True, 1),
        ("2.3.0", (8, 9), GEMMA_2, "flashdecoding", True, 256),
        ("2.3.1", (8, 9), GEMMA_2, "flashdecoding", True, 256),
        ("2.4.0", (8, 9), GEMMA_2, "flashinfer", True, 1),
        ("2.3.0", (7, 5), HEAD_96, "flashdecoding", False, 256),
        ("2.3.1", (7, 5), HEAD_96, "paged", False, 16),
        ("3.3.7", (7, 5), HEAD_96, "paged", False, 16),
        ("3.3.7", (7, 5), {}, "flashinfer", True, 1),
        ("3.3.7", (8, 0), HEAD_96, "flashdecoding", False, 256),
        ("3.3.7", (9, 0), {"head_dim": 64}, "flashinfer", True, 1),
        ("3.3.7", (9, 0), {"model_type": "falcon"}, "flashdecoding", True, 256),
        ("2.3.1", (7, 5), {"model_type": "falcon"}, "paged", False, 16),
        ("3.3.7", (8, 9), {"vision_config": {}, "model_type": "qwen2_vl"}, "flashinfer", False, 1),
        ("3.3.7", (8, 9), {"quantization_config": {"quant_method": "mxfp4"}, **HEAD_96}, "flashinfer", True, 1),
    ],
)
def test_attention(
    release: str, capability: tuple[int, int], config: dict[str, Any], attention: str, prefix: bool, block: int
) -> None:
    gpu = GpuFacts("card", "cuda", 24 << 30, None, capability, None, None, "card", "by hand")
    setting = settle(model(**config), release, gpu=gpu)
    assert (setting.attention, setting.prefix_caching, setting.block_size) == (attention, prefix, block)


@pytest.mark.parametrize(
    ("release", "attention"),
    [("3.2.0", "flashdecoding"), ("3.2.1", "flashdecoding"), ("3.2.3", "flashdecoding"), ("3.3.0", "flashinfer")],
)
def test_gemma_3_gets_flashinfer_from_3_3_0(release: str, attention: str) -> None:
    assert settle(model(GEMMA_3), release).attention == attention


@pytest.mark.parametrize(("release", "attention"), [("3.2.0", "flashdecoding"), ("3.2.1", "flashinfer")])
def test_head_dim_of_the_text_config_counts_from_3_2_1(release: str, attention: str) -> None:
    nested = {"model_type": "gemma3", "text_config": {**LLAMA, "head_dim": 128}, "vision_config": {}}
    assert settle(model(nested), release).attention == attention


@pytest.mark.parametrize(
    ("variant", "gpu", "release", "attention", "block"),
    [
        ("rocm", "amd-mi300x", "3.3.7", "paged", 16),
        ("rocm", "amd-mi300x", "2.3.0", "flashinfer", 1),
        ("intel-cpu", CPU, "3.0.1", "paged", 16),
        ("intel-cpu", CPU, "3.0.2", "flashdecoding-ipex", 64),
        ("gaudi", "gaudi2", "3.3.7", "paged", 128),
    ],
)
def test_attention_of_other_images(variant: str, gpu: str | GpuFacts, release: str, attention: str, block: int) -> None:
    setting = settle(release=release, gpu=gpu, variant=variant)
    assert (setting.attention, setting.block_size) == (attention, block)


@pytest.mark.parametrize(
    ("release", "flag", "block"), [("2.1.0", "1", 16), ("2.1.1", "1", 256), ("2.2.0", "true", 256), ("2.2.0", "on", 16)]
)
def test_flash_decoding_switch(release: str, flag: str, block: int) -> None:
    assert settle(release=release, env={"FLASH_DECODING": flag}).block_size == block


def test_lora_switches_prefix_caching_off_and_the_environment_wins() -> None:
    flags = {"lora-adapters": "a/b,c=/d"}
    setting = settle(flags=flags)
    assert setting.lora_adapters == ("a/b", "c=/d")
    assert not setting.prefix_caching
    assert settle(flags=flags, env={"PREFIX_CACHING": "1"}).prefix_caching


def test_an_unknown_compute_capability_is_not_guessed() -> None:
    gpu = GpuFacts("mine", "cuda", 24 << 30, None, None, None, None, "", "by hand")
    with pytest.raises(FactsError, match="compute capability of mine is not known"):
        settle(gpu=gpu)


# ---- chunking, dtypes, quantization, graphs ----


@pytest.mark.parametrize(
    ("release", "launch", "chunking"),
    [
        ("2.3.1", {}, False),
        ("2.4.0", {}, False),
        ("2.4.0", {"env": {"PREFILL_CHUNKING": "true"}}, True),
        ("3.0.0", {}, True),
        ("3.0.0", {"env": {"PREFILL_CHUNKING": "0"}}, False),
        ("3.3.7", {"env": {"ATTENTION": "paged"}}, False),
        ("3.3.7", {"flags": {"speculate": 3}}, False),
        ("3.3.7", {"facts": model(model_type="qwen3")}, False),
        ("3.3.7", {"facts": model(QWEN_VL)}, False),
        ("3.2.3", {"facts": model({"model_type": "llava_next", "text_config": LLAMA, "vision_config": {}})}, False),
        ("3.3.0", {"facts": model({"model_type": "llava_next", "text_config": LLAMA, "vision_config": {}})}, True),
    ],
)
def test_chunking(release: str, launch: dict[str, Any], chunking: bool) -> None:
    assert settle(release=release, **launch).chunking is chunking


FP8: dict[str, Any] = {"quantization_config": {"quant_method": "fp8"}}
GROUPS: dict[str, Any] = {"config_groups": {"g": {"weights": {"type": "float", "num_bits": 8}}}}
COMPRESSED: dict[str, Any] = {"quantization_config": {"quant_method": "compressed-tensors", **GROUPS}}
KV_SCHEME: dict[str, Any] = {
    "quantization_config": {
        "quant_method": "compressed-tensors", "kv_cache_scheme": {"type": "float", "num_bits": 8},
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("release", "launch", "quantize", "dtype", "kv"),
    [
        ("3.3.7", {}, None, "float16", "float16"),
        ("3.3.7", {"facts": model(torch_dtype="bfloat16")}, None, "float16", "float16"),
        ("3.3.7", {"dtype": "bfloat16"}, None, "bfloat16", "bfloat16"),
        ("3.3.7", {"facts": model(model_type="gemma2")}, None, "bfloat16", "bfloat16"),
        ("2.1.1", {"facts": model(model_type="gemma2"), "quantize": "gptq"}, "gptq", "float16", "float16"),
        ("2.0.4", {"facts": model(model_type="gemma"), "quantize": "gptq"}, "gptq", "bfloat16", "bfloat16"),
        ("1.4.5", {"facts": model(quantization_config={"quant_method": "awq"})}, None, "float16", "float16"),
        ("2.2.0", {"facts": model(quantization_config={"quant_method": "awq"})}, "awq", "float16", "float16"),
        ("2.1.1", {"quantize": "fp8"}, "fp8", "float16", "float16"),
        ("2.2.0", {"quantize": "fp8"}, "fp8", "bfloat16", "bfloat16"),
        ("2.3.1", {"quantize": "fp8"}, "fp8", "bfloat16", "bfloat16"),
        ("2.4.0", {"quantize": "fp8"}, "fp8", "float16", "float16"),
        ("2.2.0", {"facts": model(**FP8)}, None, "float16", "float16"),
        ("2.3.0", {"facts": model(**FP8)}, "fp8", "bfloat16", "bfloat16"),
        ("2.3.1", {"facts": model(**COMPRESSED)}, None, "float16", "float16"),
        ("2.4.0", {"facts": model(**COMPRESSED)}, "fp8", "float16", "float16"),
        ("2.4.1", {"facts": model(**COMPRESSED)}, "compressed-tensors", "float16", "float16"),
        ("2.3.0", {"facts": model(compression_config=GROUPS)}, None, "float16", "float16"),
        ("2.3.1", {"facts": model(compression_config=GROUPS)}, "fp8", "bfloat16", "bfloat16"),
        ("2.4.1", {"facts": model(compression_config=GROUPS)}, "compressed-tensors", "float16", "float16"),
        ("2.4.1", {"facts": model(**KV_SCHEME)}, "compressed-tensors", "float16", "float16"),
        ("3.0.0", {"facts": model(**KV_SCHEME)}, "compressed-tensors", "float16", "fp8_e4m3fn"),
        ("3.3.7", {"kv_cache_dtype": "fp8_e5m2"}, None, "float16", "fp8_e5m2"),
        ("3.3.7", {"kv_cache_dtype": "fp8_e5m2", "facts": model(model_type="qwen3")}, None, "float16", "float16"),
        ("3.3.7", {"gpu": CPU, "variant": "intel-cpu"}, None, "bfloat16", "bfloat16"),
        ("3.3.7", {"gpu": CPU, "variant": "intel-cpu", "quantize": "awq"}, "awq", "bfloat16", "bfloat16"),
        ("3.3.7", {"gpu": "nvidia-v100-32gb", "facts": model(model_type="gemma2")}, None, "float16", "float16"),
    ],
)
def test_dtypes(release: str, launch: dict[str, Any], quantize: str | None, dtype: str, kv: str) -> None:
    setting = settle(release=release, **launch)
    assert (setting.quantize, setting.dtype, setting.kv_dtype) == (quantize, dtype, kv)


@pytest.mark.parametrize(
    ("release", "launch", "sizes"),
    [
        ("1.4.0", {}, ()),
        ("1.4.5", {}, ()),
        ("1.4.5", {"flags": {"enable-cuda-graphs": True}}, (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)),
        ("2.0.0", {}, (1, 2, 4, 8, 16, 32)),
        ("2.0.1", {"flags": {"cuda-graphs": (1, 2)}}, (1, 2, 4, 8, 16, 32)),
        ("2.0.1", {"flags": {"cuda-graphs": (1, 2)}, "quantize": "awq"}, (1, 2)),
        ("2.0.2", {"flags": {"cuda-graphs": (0,)}}, ()),
        ("2.2.0", {"quantize": "exl2"}, (1, 2, 4, 8, 16, 32)),
        ("2.3.0", {"quantize": "exl2"}, ()),
        ("3.0.1", {"quantize": "bitsandbytes-nf4"}, ()),
        ("3.0.2", {"quantize": "bitsandbytes-nf4"}, (1, 2, 4, 8, 16, 32)),
        ("3.0.2", {"quantize": "bitsandbytes"}, ()),
        ("3.3.7", {"env": {"CUDA_GRAPHS": "4,8"}}, (4, 8)),
        ("3.3.7", {"flags": {"speculate": 2}}, (4, 8, 16, 32)),
        ("3.3.7", {"gpu": CPU, "variant": "intel-cpu"}, ()),
    ],
)
def test_cuda_graphs(release: str, launch: dict[str, Any], sizes: tuple[int, ...]) -> None:
    assert tuple(sorted(settle(release=release, **launch).graph_sizes)) == sizes


@pytest.mark.parametrize(
    ("release", "env", "wiggle"),
    [
        ("2.2.0", {"TGI_WIGGLE_ROOM": "0.5"}, 0.95),
        ("2.3.0", {"TGI_WIGGLE_ROOM": "0.5"}, 0.5),
        ("2.4.0", {}, 0.9),
        ("3.3.7", {"TGI_WIGGLE_ROOM": "1.5"}, 0.9),
        ("3.3.7", {"TGI_WIGGLE_ROOM": "lots"}, 0.9),
    ],
)
def test_wiggle_room(release: str, env: dict[str, str], wiggle: float) -> None:
    assert settle(release=release, env=env).wiggle == wiggle


def test_prefill_logprobs() -> None:
    assert settle(release="2.4.1").prefill_logprobs
    assert not settle(release="3.0.0").prefill_logprobs
    assert settle(flags={"enable-prefill-logprobs": True}).prefill_logprobs
    assert settle(env={"REQUEST_LOGPROBS": "True"}).prefill_logprobs


def test_the_spec_wins_over_flags_over_the_environment() -> None:
    env = {"QUANTIZE": "eetq", "SPECULATE": "2", "CUDA_MEMORY_FRACTION": "0.5", "MAX_BATCH_SIZE": "7"}
    held = settle(env=env, flags={"speculate": 3}, quantize="fp8")
    assert (held.quantize, held.speculate, held.memory_fraction, held.max_batch_size) == ("fp8", 3, 0.5, 7)
    assert settle(env=env, fraction=0.8).memory_fraction == 0.8


# ---- shards ----


@pytest.mark.parametrize(
    ("facts", "count", "legal"),
    [
        (model(), 8, (1, 2, 4, 8)),
        (model(QWEN_7B), 8, (1, 2, 4)),
        (model(num_key_value_heads=2), 8, (1, 2)),
        (model(model_type="qwen3", num_attention_heads=40, hidden_size=5120), 8, (1, 2, 4, 8)),
        (model(model_type="stablelm"), 8, (1,)),
        (model(model_type="gpt_bigcode", n_inner=24576, num_attention_heads=48), 8, (1, 2, 4, 8)),
        (model(model_type="olmo2", num_key_value_heads=2), 4, (1, 2, 4)),
    ],
)
def test_legal_shards(facts: Any, count: int, legal: tuple[int, ...]) -> None:
    family = families.find(facts, releases.find("3.3.7"))
    assert defaults.legal_shards(facts, family, count) == legal
    assert settle(facts, count=count).num_shard == legal[-1]


def test_shards_when_sharding_is_forbidden() -> None:
    assert settle(count=4, flags={"sharded": False}).num_shard == 1


@pytest.mark.parametrize(
    ("capability", "release", "flash"),
    [
        ((7, 0), "2.0.4", False),
        ((7, 0), "2.1.0", True),
        ((7, 0), "2.2.0", True),
        ((7, 0), "2.3.0", False),
        ((7, 5), "1.0.0", True),
        ((7, 5), "3.3.7", True),
        ((12, 0), "2.0.4", False),
        ((12, 0), "2.3.0", True),
    ],
)
def test_flash_attention(capability: tuple[int, int], release: str, flash: bool) -> None:
    gpu = GpuFacts("card", "cuda", 24 << 30, None, capability, None, None, "card", "by hand")
    assert defaults.flash_attention(gpu, releases.find(release), {}) is flash
    assert not defaults.flash_attention(gpu, releases.find(release), {"USE_FLASH_ATTENTION": "False"})


def test_scale_groups_limit_the_shards() -> None:
    stored = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
    facts = model(intermediate_size=29568, quantization_config=stored, tensors=PACKED)
    family = families.find(facts, releases.find("3.3.7"))
    assert defaults.legal_shards(facts, family, 4) == (1, 2, 4)
    assert defaults.legal_shards(facts, family, 4, "gptq") == (1,)
    assert defaults.shard_fault(facts, family, 2, "gptq") == ("scales", 231)


@sampled(st.integers(1, 64), st.integers(1, 64), st.integers(1, 16))
def test_legal_shards_hold_every_head_once(kv: int, group: int, count: int) -> None:
    facts = model(num_attention_heads=kv * group, num_key_value_heads=kv, intermediate_size=720720, head_dim=64)
    family = families.find(facts, releases.find("3.3.7"))
    legal = defaults.legal_shards(facts, family, count)
    assert legal[0] == 1
    assert all(kv % shards == 0 and kv * group % shards == 0 for shards in legal)


# ---- configurations nobody has ----


@pytest.mark.parametrize(
    ("release", "changes"),
    [
        ("2.0.0", {"time_step_limit": [0.0, float("inf")]}),
        ("3.3.7", {"rope_scaling": {"factor": [float("nan")]}}),
        ("3.3.7", {"vocab_size": 1 << 64}),
        ("3.3.7", {"vision_config": [1]}),
        ("3.3.7", {"quantization_config": []}),
        ("3.2.1", {"head_dim": 128, "text_config": "x"}),
        ("3.2.1", {"head_dim": 128, "text_config": {"head_dim": -1}}),
    ],
)
def test_the_launcher_gives_up_on_a_configuration(release: str, changes: dict[str, Any]) -> None:
    assert launcher.read_config(model(LLAMA, **changes), releases.find(release)) is None


@pytest.mark.parametrize(
    ("release", "changes", "field", "value"),
    [
        ("3.3.7", {"vision_config": []}, "vision", True),
        ("3.3.7", {"quantization_config": ["awq"]}, "quantize", "awq"),
        ("3.2.0", {"text_config": "x"}, "head_dim", 128),
        ("3.3.7", {"head_dim": None, "hidden_size": None, "text_config": [96]}, "head_dim", 96),
        ("3.3.7", {"vocab_size": (1 << 64) - 1}, "vocab", (1 << 64) - 1),
        ("2.4.1", {"hidden_size": 4097, "n_embd": 2048}, "head_dim", 64),
        ("3.0.0", {"hidden_size": 4097, "n_embd": 2048}, "head_dim", None),
    ],
)
def test_the_launcher_reads_what_serde_reads(release: str, changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(launcher.read_config(model(LLAMA, **changes), releases.find(release)), field) == value


@pytest.mark.parametrize("release", ["2.0.0", "2.4.0"])
def test_a_context_of_nothing_wraps_around(release: str) -> None:
    setting = settle(model(max_position_embeddings=0), release)
    assert defaults.launcher_limits(setting, Limits()) == Limits((1 << 64) - 1, 0, 49)


@pytest.mark.parametrize(
    ("fraction", "wiggle", "most"),
    [
        (1.0, float("nan"), 0),
        (float("inf"), 0.5, (1 << 64) - 1),
        (-1.0, 0.5, 0),
        (float("nan"), 0.5, 0),
        (1e40, 0.0, 0),
    ],
)
def test_the_launcher_saturates(fraction: float, wiggle: float, most: int) -> None:
    config = launcher.LauncherConfig(heads=1, kv_heads=1, head_dim=1, hidden=1, intermediate=1, layers=1, vocab=0)
    expected = (most - 14) // 10 if most >= 14 else None  # 14 bytes of weights, 10 a token
    assert launcher.vram_maximum(config, 24 << 30, fraction, wiggle) == expected
