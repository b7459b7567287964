"""Quantizations an image has no kernels for, or a GPU cannot run: release by release, card by card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from front import run
from launch import CPU, PACKED, model, settle

from tgi_advisor import refusals
from tgi_advisor.facts.gpu import GpuFacts

FLOAT8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8}}},
}
INT8 = {**FLOAT8, "config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 8}}}}
OWN = {"gptq": {"quant_method": "gptq", "bits": 4}, "awq": {"quant_method": "awq", "bits": 4}}


def codes(release: str, gpu: str | GpuFacts, variant: str = "", **launch: Any) -> list[str]:
    return [one.code for one in refusals.shard_refusals(settle(None, release, gpu, variant=variant, **launch))]


def of_model(facts: dict[str, Any], release: str, gpu: str | GpuFacts, variant: str = "", **launch: Any) -> list[str]:
    setting = settle(model(**facts), release, gpu, variant=variant, **launch)
    return [one.code for one in refusals.shard_refusals(setting)]


@pytest.mark.parametrize(
    ("release", "gpu", "refused"),
    [
        ("2.3.1", "amd-mi300x", True),
        ("2.4.0", "amd-mi300x", False),
        ("3.3.7", "amd-mi300x", False),
        ("2.4.0", "amd-mi250", True),
        ("3.3.7", "amd-mi210", True),
        ("3.3.7", "amd-mi250x", True),
    ],
)
def test_fp8_on_amd(release: str, gpu: str, refused: bool) -> None:
    assert ("fp8-on-rocm" in codes(release, gpu, "rocm", quantize="fp8")) is refused


def test_compressed_tensors_of_8_bit_floats_are_fp8_too() -> None:
    assert of_model({"quantization_config": FLOAT8}, "3.3.7", "amd-mi250", "rocm") == ["fp8-on-rocm"]
    assert of_model({"quantization_config": FLOAT8}, "3.3.7", "amd-mi300x", "rocm") == []
    assert of_model({"quantization_config": INT8}, "3.3.7", "amd-mi250", "rocm") == []


@pytest.mark.parametrize("method", ["bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4", "eetq"])
@pytest.mark.parametrize("release", ["2.4.1", "3.3.7"])
def test_what_only_the_cuda_image_holds(release: str, method: str) -> None:
    assert codes(release, "nvidia-l4", quantize=method) == []
    missing = ["eetq-missing"] if method == "eetq" else ["bitsandbytes-missing"]
    assert codes(release, "amd-mi300x", "rocm", quantize=method) == missing
    assert codes(release, CPU, "intel-cpu", quantize=method) == missing


@pytest.mark.parametrize(
    ("release", "method", "flash", "refused"),
    [
        ("1.0.2", "gptq", False, False),  # transformers 4.31 does not look
        ("1.0.3", "gptq", False, True),
        ("2.2.0", "gptq", False, True),
        ("3.3.7", "gptq", False, True),
        ("2.2.0", "gptq", True, False),
        ("1.3.3", "awq", False, False),
        ("1.3.4", "awq", False, True),
        ("3.3.7", "awq", False, True),
        ("3.3.7", "awq", True, False),
    ],
)
def test_packed_checkpoints_without_a_class_of_tgis_own(release: str, method: str, flash: bool, refused: bool) -> None:
    facts = model(quantization_config=OWN[method], tensors=PACKED)
    env = {} if flash else {"USE_FLASH_ATTENTION": "false"}
    setting = settle(facts, release, "nvidia-l4", env=env, quantize=method)
    found = [one.code for one in refusals.shard_refusals(setting)]
    assert ("packed-by-transformers" in found) is refused


@pytest.mark.parametrize(
    ("gpu", "found"),
    [("nvidia-a100-80gb", ["fp8-by-transformers"]), ("nvidia-l4", []), ("nvidia-h100-80gb", []), ("amd-mi250", [])],
)
def test_fp8_checkpoints_that_transformers_loads(gpu: str, found: list[str]) -> None:
    facts = {"model_type": "qwen3", "quantization_config": {"quant_method": "fp8"}}
    assert of_model(facts, "3.3.7", gpu, "rocm" if gpu.startswith("amd") else "") == found


def test_transformers_takes_no_notice_of_a_method_on_the_fly() -> None:
    assert of_model({"model_type": "olmo2"}, "3.3.7", "nvidia-t4", quantize="fp8") == []
    assert codes("3.3.7", "nvidia-t4", quantize="fp8", env={"USE_FLASH_ATTENTION": "false"}) == []


@pytest.mark.parametrize(("release", "method", "found"), [
    ("3.3.7", "eetq", ["gaudi-quantize"]), ("3.3.7", "compressed-tensors", []), ("3.3.7", "gptq", []),
    ("3.3.1", "compressed-tensors", ["gaudi-quantize"]), ("3.2.3", "eetq", []),
])  # fmt: skip
def test_what_gaudi_reads(release: str, method: str, found: list[str]) -> None:
    setting = settle(
        model(tensors=PACKED), release, "intel-gaudi3", variant="gaudi", quantize=method, flags={"max-batch-size": 8}
    )
    assert [one.code for one in refusals.shard_refusals(setting)] == found


@pytest.mark.parametrize(
    ("words", "options", "code"),
    [
        ("3.3.7-rocm --model-id Qwen/Qwen2.5-7B-Instruct --quantize fp8", ("--gpu", "mi250"), "TGI154"),
        ("3.3.7-rocm --model-id Qwen/Qwen2.5-7B-Instruct --quantize fp8", ("--gpu", "mi300x"), None),
        ("2.3.1-rocm --model-id meta-llama/Llama-3.1-405B-Instruct-FP8 --num-shard 8", ("--gpu", "mi300x"), "TGI154"),
        ("3.3.7-rocm --model-id Qwen/Qwen2.5-7B-Instruct --quantize eetq", (), "TGI154"),
        ("2.2.0 --model-id Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", ("--gpu", "t4"), "TGI153"),
    ],
)
def test_validate_says_it(tmp_path: Path, words: str, options: tuple[str, ...], code: str | None) -> None:
    file = tmp_path / "run.sh"
    flags = "--shm-size 1g -p 8080:80 -v d:/data -e HF_TOKEN -e USE_FLASH_ATTENTION="
    devices = "--device /dev/kfd --device /dev/dri" if "rocm" in words else "--gpus all"
    flash = "true" if "rocm" in words else "false"
    image = "ghcr.io/huggingface/text-generation-inference"
    file.write_text(f"docker run {devices} {flags}{flash} {image}:{words}\n")
    ran = run("validate", str(file), *options)
    assert ("error" in ran.out) is (code is not None)
    assert code is None or code in ran.out
    assert "None tokens" not in ran.out
