from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from launch import CPU, LLAMA, PACKED, PLAIN, model, settle

from tgi_advisor import refusals
from tgi_advisor.estimate import defaults
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.model import Heads, ModelFacts, TensorGroup
from tgi_advisor.gather import snapshot
from tgi_advisor.limits import Limits
from tgi_advisor.refusals import Refusal, Rule

ONLY_ONE = (
    "RuntimeError: Only 1 can be set between `dtype` and `quantize`, as they both decide how goes the final model."
)
EXL2 = "Sharding is currently not supported with `exl2` quantization"
FALCON_40B = {
    "model_type": "falcon", "hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8,
    "num_hidden_layers": 60, "vocab_size": 65024, "multi_query": True, "new_decoder_architecture": True,
}  # fmt: skip
SSM = {"model_type": "ssm", "d_model": 2560, "n_layer": 64, "vocab_size": 50277}
T5 = {"model_type": "t5", "d_model": 2048, "d_ff": 5120, "num_heads": 32, "num_layers": 24, "vocab_size": 32128}
DBRX = {
    "model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352, "max_seq_len": 32768,
    "attn_config": {"kv_n_heads": 8, "clip_qkv": 8, "model_type": ""},
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4, "model_type": ""},
}  # fmt: skip
WQKV = (TensorGroup("transformer.blocks.*.norm_attn_norm.attn.Wqkv.weight", "BF16", (8192, 6144), 40),)
STABLELM = {**LLAMA, "model_type": "stablelm"}


class Example(NamedTuple):
    """Something that trips one rule in every release of its range, and what TGI then prints in `at`."""

    message: str
    launch: Mapping[str, Any] = MappingProxyType({})
    given: Limits = Limits()
    at: str | None = None
    budget: int | None = None


def kv8(name: str, **more: Any) -> dict[str, Any]:
    return {"facts": model(model_type=name, **more)}


def with_heads(config: Mapping[str, Any], *names: tuple[str, int], base: Mapping[str, Any] = LLAMA) -> dict[str, Any]:
    """A model with speculation heads of this configuration, and so many tensors of these names."""
    tensors = tuple(TensorGroup(name, "F16", (64, 64), count) for name, count in names)
    return {"facts": model(**base)._replace(heads=Heads({"base_model_name_or_path": "a/b", **config}, tensors, "a/b"))}


MEDUSA = {"medusa_num_heads": 3, "medusa_num_layers": 1}
MLP = {"model_type": "mlp_speculator", "n_predict": 3, "architectures": ["MLPSpeculatorPreTrainedModel"]}
BLOCKS, OUTPUTS = ("*.*.linear.weight", 3), ("*.*.weight", 3)


def as_awq(name: str) -> ModelFacts:
    """A shipped model whose configuration says that it is stored by AWQ."""
    found = snapshot.find(name)
    assert found is not None
    stored = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    return found._replace(config={**found.config, "quantization_config": stored})


NO_KERNEL = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
EXAMPLES: dict[str, Example] = {
    "speculate-above-heads": Example(
        "RuntimeError: Speculate is set to `5` but this medusa models only has `3` heads, please make them match",
        with_heads(MEDUSA, BLOCKS, OUTPUTS) | {"flags": {"speculate": 5}},
    ),
    "heads-unknown": Example("ValueError: Unsupported model type mlp_speculator", with_heads(MLP)),
    "heads-of-automodel": Example(
        "RuntimeError: Speculator decoding is not enabled for AutoModel",
        with_heads(MEDUSA, BLOCKS, OUTPUTS, base=STABLELM),
    ),
    "mlp-speculator-untied": Example(
        "AttributeError: 'ModuleList' object has no attribute 'weight'", with_heads(MLP, ("speculator.emb.*.weight", 3))
    ),
    "mlp-speculator-of-none": Example(
        "ZeroDivisionError: float division by zero", with_heads(MLP) | {"flags": {"speculate": 0}}
    ),
    "medusa-of-many-blocks": Example(
        'AssertionError: assert medusa_config["medusa_num_layers"] == 1',
        with_heads(MEDUSA | {"medusa_num_layers": 2}, ("*.*.linear.weight", 6)),
    ),
    "medusa-packed": Example(
        "RuntimeError: Cannot load `gptq` weight, make sure the model is already quantized",
        with_heads(MEDUSA, BLOCKS) | {"quantize": "gptq"},
    ),
    "heads-missing": Example(
        "RuntimeError: weight 2.0.linear.weight does not exist", with_heads(MEDUSA, ("*.*.linear.weight", 2))
    ),
    "heads-of-no-class": Example(
        "AssertionError: assert self.head is not None",
        with_heads(MEDUSA | {"architectures": ["MedusaModel"]}, BLOCKS, OUTPUTS),
    ),
    "unknown-flag": Example(
        "error: unexpected argument '--kv-cache-dtype' found", {"kv_cache_dtype": "fp8_e5m2"}, at="2.3.1"
    ),
    "unparsable-value": Example(
        "error: invalid value '1' for '--trust-remote-code'", {"env": {"TRUST_REMOTE_CODE": "1"}},
        at="3.3.7",
    ),
    "sharded-needs-two": Example(
        'Error: ArgumentValidation("`sharded` is true but `num_shard` <= 1")', {"flags": {"sharded": True}}, at="3.3.7"
    ),
    "num-shard-zero": Example(
        'Error: ArgumentValidation("`num_shard` cannot be < 1")', {"env": {"NUM_SHARD": "0"}}, at="1.0.0"
    ),
    "exl2-sharded": Example(
        f'Error: ArgumentValidation("{EXL2}")', {"quantize": "exl2", "count": 2, "shards": 2}
    ),
    "both-input-names": Example(
        'Error: ArgumentValidation("Both `max_input_tokens` (10) and `max_input_length` (9) are set. Please define '
        'only `max_input_tokens` as `max_input_length is deprecated for naming consistency.")',
        {"flags": {"max-input-tokens": 10, "max-input-length": 9}},
    ),
    "input-length-not-below-total": Example(
        'Error: ArgumentValidation("`max_input_length` must be < `max_total_tokens`")', given=Limits(2048)
    ),
    "input-tokens-not-below-total": Example(
        'Error: ArgumentValidation("`max_input_tokens must be < `max_total_tokens`")', given=Limits(None, 2048)
    ),
    "input-not-below-total": Example(
        'Error: ArgumentValidation("`max_input_tokens`(2048) must be < `max_total_tokens`(2048)")',
        given=Limits(2048, 2048),
    ),
    "prefill-below-input-length": Example(
        'Error: ArgumentValidation("`max_batch_prefill_tokens` must be >= `max_input_length`. Given: 1023 and 1024")',
        given=Limits(1024, 2048, 1023),
    ),
    "prefill-below-input-tokens": Example(
        'Error: ArgumentValidation("`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: 1023 and 1024")',
        given=Limits(1024, 2048, 1023),
    ),
    "no-validation-workers": Example(
        'Error: ArgumentValidation("`validation_workers` must be > 0")', {"flags": {"validation-workers": 0}},
        at="1.0.0",
    ),
    "prefill-above-batch-total": Example(
        'Error: ArgumentValidation("`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. '
        'Given: 4096 and 4095")',
        given=Limits(100, 200, 4096, 4095),
    ),
    "total-above-batch-total": Example(
        'Error: ArgumentValidation("`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 2048 and 2047")',
        given=Limits(100, 2048, 200, 2047), at="3.3.7",
    ),
    "ngrok-incomplete": Example(
        'Error: ArgumentValidation("`ngrok-edge` must be set when using ngrok tunneling")',
        {"flags": {"ngrok": True, "ngrok-authtoken": "x"}}, at="1.0.0",
    ),
    "adapter-named-too-early": Example(
        "Error: DownloadError", {"flags": {"lora-adapters": "org/a,mine=/data/a"}}, at="2.2.0"
    ),
    "adapter-empty": Example("Error: DownloadError", {"flags": {"lora-adapters": "org/a,"}}, at="3.3.7"),
    "adapter-spelling": Example(
        "ValueError: Invalid LoRA adapter format: a=b=c", {"flags": {"lora-adapters": "org/a,a=b=c"}}, at="3.3.7"
    ),
    "adapter-bare-folder": Example(
        "FileNotFoundError: No adapter weights found for adapter '/data/a' and revision 'None'.",
        {"flags": {"lora-adapters": "org/a, /data/a"}}, at="3.3.7",
    ),
    "adapter-not-mounted": Example(
        "ValueError: Can't find 'adapter_config.json' at '/adapters/b'",
        {"flags": {"lora-adapters": "org/a,a=/data/a,b=/adapters/b"}}, at="3.3.7",
    ),
    "mig-sharded": Example(
        "AssertionError: Each process is one gpu", {"gpu": "a100-80gb-mig-3g.40gb", "count": 2, "shards": 2}
    ),
    "gpu-newer-than-its-kernels": Example(NO_KERNEL, {"gpu": "nvidia-rtx-5090"}),
    "image-needs-ampere": Example(
        "RuntimeError: FlashAttention only supports Ampere GPUs or newer.",
        {"facts": snapshot.find("meta-llama/Llama-3.2-11B-Vision-Instruct"), "gpu": "nvidia-t4"},
    ),
    "norm-without-kernels": Example(
        "CUDA Error: no kernel image is available for execution on the device "
        "/usr/src/flash-attention/csrc/layer_norm/ln_fwd_kernels.cuh:236", {"gpu": "nvidia-rtx-5090"}, at="3.3.7",
    ),
    "gpu-older-than-its-kernels": Example(NO_KERNEL, {"gpu": "nvidia-v100-32gb"}),
    "gpu-without-rocm-kernels": Example(
        "RuntimeError: HIP error: invalid device function", {"gpu": "amd-mi100", "variant": "rocm"}, at="3.3.7"
    ),
    "arm64-host": Example("exec format error (or: no matching manifest for linux/arm64/v8)", {"gpu": "gh200"}),
    "adapter-class": Example(
        "AttributeError: 'TensorParallelColumnLinear' object has no attribute 'base_layer'",
        {"facts": model(model_type="gemma"), "flags": {"lora-adapters": "org/a"}}, at="3.3.7",
    ),
    "adapter-on-packed": Example(
        "AttributeError: 'GPTQMarlinLinear' object has no attribute 'weight'",
        {"quantize": "gptq", "facts": model(quantization_config={"quant_method": "gptq"}, tensors=PACKED),
         "flags": {"lora-adapters": "org/a"}}, at="3.3.7",
    ),
    "adapter-on-rocm": Example(
        "AttributeError: 'NoneType' object has no attribute 'pad_rank'",
        {"gpu": "amd-mi300x", "variant": "rocm", "flags": {"lora-adapters": "org/a"}}, at="3.3.7",
    ),
    "mixtral-without-mlp": Example(
        "AttributeError: 'MixtralLayer' object has no attribute 'mlp'", {"facts": model(model_type="mixtral")},
        at="2.1.0",
    ),
    "lora-format": Example(
        'Error: ArgumentValidation("Invalid LoRA adapter format: a/b@c@d")', {"flags": {"lora-adapters": "x/y,a/b@c@d"}}
    ),
    "attention-unknown": Example(
        "AssertionError: Attention is not valid sdpa, expected {'paged', 'flashdecoding', 'flashinfer' or "
        "'flashdecoding-ipex'}",
        {"env": {"ATTENTION": "sdpa"}},
    ),
    "prefix-caching-paged": Example(
        "RuntimeError: Prefix caching is only supported with flashinfer",
        {"env": {"ATTENTION": "paged", "PREFIX_CACHING": "1", "USE_PREFIX_CACHING": "1"}},
    ),
    "wiggle-out-of-range": Example(
        "AssertionError: assert TGI_WIGGLE_ROOM < 1", {"env": {"TGI_WIGGLE_ROOM": "1.0"}}
    ),
    "flashdecoding-needs-ampere": Example(
        "ValueError: Flash decoding requires Flash Attention V2",
        {"gpu": "nvidia-t4", "env": {"ATTENTION": "flashdecoding"}},
    ),
    "dtype-and-quantize": Example(ONLY_ONE, {"dtype": "float16", "quantize": "gptq"}, at="1.0.0"),
    "exl2-checkpoint-sharded": Example(
        f"RuntimeError: {EXL2}",
        {"quantize": "exl2", "count": 2, "shards": 2},
    ),
    "sliding-window-unsupported": Example(
        "ValueError: The backend rocm does not support sliding window attention that is used by the model type mistral."
        " To use this model nonetheless with the rocm backend, please launch TGI with the argument `--max-input-tokens`"
        " smaller than sliding_window=4096 (got here max_input_tokens=4097).",
        {"facts": model(model_type="mistral", sliding_window=4096), "gpu": "amd-mi300x", "variant": "rocm"},
        Limits(4097, 8000),
    ),
    "ssm-deprecated": Example(
        "RuntimeError: `ssm` models have been deprecated in favor of `mamba` models, which follow standard HF formats.",
        {"facts": model(SSM)},
    ),
    "unsupported-model-type": Example("ValueError: Unsupported model type cohere", kv8("cohere"), at="1.4.3"),
    "phi-msft": Example(
        "NotImplementedError: Legacy phi-msft is not supported with Flash Attention", kv8("phi-msft")
    ),
    "llama4-import": Example(
        "ImportError: cannot import name 'Llama4ForConditionalGeneration' from 'transformers'", kv8("llama4")
    ),
    "llama4-mask": Example(
        "TypeError: TransformersFlashVlmCausalLM._model_forward() got an unexpected keyword argument 'attention_mask'",
        kv8("llama4"),
    ),
    "flash-attention-2-needs-ampere": Example(
        "RuntimeError: FlashAttention only supports Ampere GPUs or newer.", {"gpu": "nvidia-t4"}
    ),
    "alibi-sharded": Example(
        "NotImplementedError: sharded is not supported for this model",
        {"facts": model(FALCON_40B, alibi=True), "count": 2, "shards": 2}, at="3.3.7",
    ),
    "needs-flash-attention": Example(
        "NotImplementedError: Sharded llama requires Flash Attention enabled models.",
        {"gpu": "nvidia-v100-32gb", "count": 2, "shards": 2}, at="2.4.0",
    ),
    "automodel-sharded-first": Example(
        "NotImplementedError: sharded is not supported for AutoModel",
        {"facts": model(STABLELM), "count": 2, "shards": 2}, at="2.0.0",
    ),
    "automodel-quantize": Example(
        "NotImplementedError: awq quantization is not supported for AutoModel",
        {"facts": model(STABLELM), "quantize": "awq"}, at="3.3.7",
    ),
    "backend-compatible-missing": Example(
        "AttributeError: type object has no attribute 'is_backend_compatible'", {"facts": model(STABLELM)}
    ),
    "automodel-sharded": Example(
        "NotImplementedError: sharded is not supported for AutoModel",
        {"facts": model(STABLELM), "count": 2, "shards": 2},
    ),
    "more-shards-than-gpus": Example("AssertionError: Each process is one gpu", {"count": 2, "shards": 4}, at="1.0.0"),
    "device-fraction-out-of-range": Example(
        "OverflowError: cannot convert float infinity to integer",
        {"gpu": "max-1550", "env": {"XPU_MEMORY_FRACTION": "inf"}, "variant": "intel-xpu"}, at="3.3.7",
    ),
    "memory-fraction-out-of-range": Example(
        "ValueError: Invalid fraction value: 2.0. Allowed range: 0~1", {"env": {"CUDA_MEMORY_FRACTION": "2"}},
        at="3.3.7",
    ),
    "mamba-sharded": Example(
        "RuntimeError: Mamba does not support Tensor Parallelism (TP)",
        {"facts": model({"ssm_cfg": {}, "d_model": 2560, "n_layer": 64, "vocab_size": 50277}), "count": 2, "shards": 2},
    ),
    "vision-prefix-caching": Example(
        "NotImplementedError: Vlm do not work with prefix caching yet",
        {
            "facts": model({"model_type": "llava_next", "text_config": LLAMA, "vision_config": {}}),
            "env": {"PREFIX_CACHING": "true", "USE_PREFIX_CACHING": "true"},
        },
    ),
    "remote-code-needed": Example(
        "ValueError: The repository for org/model contains custom code which must be executed to correctly load the "
        "model. Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        kv8("baichuan"),
    ),
    "rope-scaling-unknown": Example(
        "ValueError: `rope_scaling` must be a dictionary with two fields, `type` and `factor`, got "
        "{'factor': 8.0, 'rope_type': 'spiral', 'low_freq_factor': 1.0}",
        {"facts": model(rope_scaling={"factor": 8.0, "rope_type": "spiral", "low_freq_factor": 1.0})}, at="2.1.1",
    ),
    "heads-not-divisible": Example(
        "ValueError: `num_heads` must be divisible by `num_shards` (got `num_heads`: 32 and `num_shards`: 3",
        {"count": 3, "shards": 3}, at="1.0.0",
    ),
    "kv-heads-not-divisible": Example(
        "ValueError: `num_key_value_heads` must be divisible by `num_shards` (got `num_key_value_heads`: 8 and "
        "`num_shards`: 16",
        {"count": 16, "shards": 16},
    ),
    "kv-heads-lost": Example(
        "ZeroDivisionError: integer division or modulo by zero", {**kv8("qwen2"), "count": 16, "shards": 16}, at="3.3.7"
    ),
    "bigcode-heads": Example(
        "AssertionError: torch.Size([6144, 2048]) != [2304, 2048]",
        {
            "facts": model({
                "model_type": "gpt_bigcode", "n_embd": 2048, "n_head": 16, "n_layer": 24, "n_inner": 8192,
                "n_positions": 2048, "vocab_size": 49280, "multi_query": False,
            })
        },
    ),
    "falcon-norms": Example(
        "ValueError: Number of layer norms can either be 1 or 2.", {"facts": model(FALCON_40B)}, at="3.3.7"
    ),
    "falcon-groups": Example(
        "NotImplementedError: Tensor Parallelism is not implemented for world_size > n groups",
        {"facts": model(FALCON_40B, num_ln_in_parallel_attn=2), "count": 16, "shards": 16}, at="3.3.7",
    ),
    "size-not-divisible": Example(
        "AssertionError: The chosen size 14337 is not compatible with sharding on 2 shards",
        {**kv8("mixtral", intermediate_size=14337), "count": 2, "shards": 2}, at="3.3.7",
    ),
    "marlin-needs-ampere": Example(
        "NotImplementedError: Using quantized Marlin models requires a GPU with CUDA capability 8.0 or later.",
        {"quantize": "marlin", "gpu": "nvidia-t4"},
    ),
    "fp8-needs-ampere": Example(
        "RuntimeError in the fp8 kernel (it needs compute capability 8.0)", {"quantize": "fp8", "gpu": "nvidia-t4"}
    ),
    "awq-on-rocm": Example(
        "NotImplementedError: AWQ GEMM kernel can't be used on ROCm systems, please use `--quantize gptq` instead",
        {"quantize": "awq", "gpu": "amd-mi300x", "variant": "rocm"},
    ),
    "fbgemm-fp8": Example(
        "AttributeError: '_FP8QuantizerConfig' object has no attribute 'weight_block_size'",
        {"facts": model(quantization_config={"quant_method": "fbgemm_fp8"})},
    ),
    "gemma-prefix": Example(
        "RuntimeError: weight language_model.model.embed_tokens.weight does not exist",
        {"facts": model(model_type="gemma")}, at="2.0.4",
    ),
    "packed-config-mismatch": Example(
        "ValueError: Quantize is set to `gptq` but received a `_FP8QuantizerConfig` config.",
        {"facts": model(quantization_config={"quant_method": "fbgemm_fp8"}), "quantize": "gptq"},
    ),
    "not-quantized": Example(
        "RuntimeError: Cannot load `gptq` weight, make sure the model is already quantized", {"quantize": "gptq"},
        at="2.0.0",
    ),
    "tower-not-packed": Example(
        "RuntimeError: Cannot load `awq` weight, make sure the model is already quantized",
        {"facts": as_awq("llava-hf/llava-v1.6-mistral-7b-hf")},
    ),
    "packed-without-quantize": Example(
        "RuntimeError: weight model.layers.0.self_attn.q_proj.weight does not exist",
        {"facts": model(quantization_config={"quant_method": "gptq"}, tensors=PACKED)}, at="1.4.5",
    ),
    "gaudi-quantize": Example(
        "Invalid value for '--quantize': 'eetq' is not one of 'gptq', 'awq', 'fp8', 'compressed-tensors'.",
        {"quantize": "eetq", "gpu": "intel-gaudi3", "variant": "gaudi"}, at="3.3.7",
    ),
    "bitsandbytes-missing": Example(
        "ModuleNotFoundError: No module named 'bitsandbytes'",
        {"quantize": "bitsandbytes-nf4", "gpu": "amd-mi300x", "variant": "rocm"}, at="3.3.7",
    ),
    "eetq-missing": Example(
        "ModuleNotFoundError: No module named 'EETQ'",
        {"quantize": "eetq", "gpu": "amd-mi300x", "variant": "rocm"}, at="2.2.0",
    ),
    "exl2-missing": Example(
        "ImportError: cannot import name 'ExllamaQuantLinear' from 'text_generation_server.layers.gptq'",
        {"quantize": "exl2", "gpu": CPU, "variant": "intel-cpu"}, at="3.3.7",
    ),
    "packed-by-transformers": Example(
        "ModuleNotFoundError: No module named 'optimum'",
        {
            "facts": model(quantization_config={"quant_method": "gptq", "bits": 4}, tensors=PACKED),
            "env": {"USE_FLASH_ATTENTION": "false"},
        },
        at="2.2.0",
    ),
    "fp8-by-transformers": Example(
        "ValueError: FP8 quantized models is only supported on GPUs with compute capability >= 8.9 (e.g 4090/H100), "
        "actual = `8.0`",
        {"facts": model(model_type="qwen3", quantization_config={"quant_method": "fp8"}), "gpu": "nvidia-a100-80gb"},
    ),
    "experts-without-cache": Example(
        "TypeError: tgi_flash_attention_forward() missing 8 required positional arguments: 'kv_cache', "
        "'kv_head_mapping', 'slots', 'cu_seqlen_prefill', 'seqlen', 'block_tables', 'max_s', and 'kv_scales'",
        {"facts": model(model_type="qwen3_moe", num_experts=8, num_experts_per_tok=2)},
    ),
    "fp8-blocks": Example(
        "TypeError: 'NoneType' object is not callable",
        {"facts": model(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}),
         "gpu": "nvidia-h100-sxm"},
    ),
    "fp8-experts": Example(
        "AttributeError: 'NoneType' object has no attribute 'shape'",
        {"facts": model(model_type="mixtral", num_local_experts=8, num_experts_per_tok=2), "quantize": "fp8"},
        at="3.3.7",
    ),
    "dbrx-part-for-whole": Example(
        "AssertionError: Cannot split 8192 in proportional blocks: [16, 1, 1]",
        {"facts": model(DBRX, tensors=WQKV)},
    ),
    "fp8-on-rocm": Example(
        "RuntimeError: torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9, or "
        "ROCm MI300+",
        {"quantize": "fp8", "gpu": "amd-mi250", "variant": "rocm"}, at="3.3.7",
    ),
    "fp8-kv-cache": Example(
        "ValueError: FP8 KV cache is currently only supported for flashinfer on CUDA and paged attention on CUDA, ROCm "
        "and INTEL IPEX and flashdecoding in Intel IPEX ",
        {"kv_cache_dtype": "fp8_e4m3fn", "env": {"ATTENTION": "flashdecoding"}},
    ),
    "gaudi-batch-size": Example(
        "RuntimeError: MAX_BATCH_SIZE is not set, it should be set in the launcher using `--max-batch-size xxx`",
        {"gpu": "gaudi2", "variant": "gaudi"},
    ),
    "gaudi-padded-batch-size": Example(
        "AssertionError: MAX_BATCH_SIZE is not set, it should be set in the launcher",
        {"gpu": "gaudi2", "variant": "gaudi"}, at="3.2.1",
    ),
    "total-without-input": Example(
        "AssertionError: assert max_input_tokens is not None", given=Limits(None, 8192)
    ),
    "image-truncated": Example(
        "AssertionError: 1176 > 1024 Image is truncated, try increasing --max-batch-prefill-tokens",
        {
            "facts": model({
                "model_type": "llava_next", "text_config": LLAMA, "image_grid_pinpoints": [[336, 672], [672, 672]],
                "vision_config": {
                    "image_size": 336, "patch_size": 14, "hidden_size": 1024, "num_attention_heads": 16,
                    "intermediate_size": 4096, "num_hidden_layers": 24,
                },
            })
        }, Limits(1024, 2048, 4096), at="3.3.7",
    ),
    "new-tokens-wrap": Example(
        "Shard process was signaled to shutdown with signal 9 (max_new_tokens wrapped to 4294965248)",
        given=Limits(None, 2048, 4096),
    ),
    "seq2seq-explicit-total": Example(
        "TypeError: 'NoneType' object is not iterable", {"facts": model(T5)}, Limits(1000, 2000)
    ),
    "max-batch-size-zero": Example(
        'Error: ArgumentValidation("`max_batch_size` must be > 0")', {"flags": {"max-batch-size": 0}}
    ),
    "total-above-budget-1": Example(
        'Error: ArgumentValidation("`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 4096 and 4095")',
        given=Limits(100, 4096, 200), budget=4095,
    ),
    "not-enough-memory-2-1": Example(
        "Error: WebServer(NotEnoughMemory(4096))", given=Limits(100, 4096, 200), budget=4095
    ),
    "not-enough-memory": Example(
        "Error: Backend(NotEnoughMemory(4096))", given=Limits(100, 4096, 200), budget=4095
    ),
    "input-not-below-total-resolved": Example(
        'Error: ArgumentValidation("`max_input_tokens` must be < `max_total_tokens`")',
        given=Limits(4096, 4096, 4096), budget=9999,
    ),
    "prefill-below-input-unchunked": Example(
        'Error: ArgumentValidation("`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: 4095 and 4096")',
        {"flags": {"speculate": 2}}, Limits(4096, 5000, 4095), budget=9999,
    ),
    "prefill-above-budget": Example(
        'Error: ArgumentValidation("`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. '
        'Given: 4096 and 4095")',
        given=Limits(100, 200, 4096), budget=4095,
    ),
    "total-above-budget": Example(
        'Error: ArgumentValidation("`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 4096 and 4095")',
        given=Limits(100, 4096, 200), budget=4095,
    ),
    "ngrok-dead": Example(
        "panicked: ngrok feature is not functional with axum=0.7 and hyper=1", {"flags": {"ngrok": True}}
    ),
}  # fmt: skip

RULES = {rule.code: rule for rule in refusals.all_rules()}
VERSIONS = [release.version for release in releases.all_releases()]


def asked(rule: Rule, example: Example, release: str) -> list[Refusal]:
    """What the part of TGI the rule belongs to refuses about the example."""
    setting = settle(release=release, **example.launch)
    limits = defaults.launcher_limits(setting, example.given)
    if rule.stage == "launcher":
        return refusals.launcher_refusals(setting, example.given, limits)
    if rule.stage == "router":
        return refusals.router_refusals(setting, example.given, example.budget)
    return refusals.shard_refusals(setting, limits)


def name(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def boundaries(rule: Rule) -> list[tuple[str, bool]]:
    """The releases on both sides of both ends of a rule's range, and whether it refuses there."""
    inside = [version for version in VERSIONS if rule.since <= version <= rule.until]
    before = [version for version in VERSIONS if version < rule.since][-1:]
    after = [version for version in VERSIONS if version > rule.until][:1]
    sides = [(inside[0], True)] if before else []
    sides += [(inside[-1], True)] if after or before else []
    return [(name(version), refuses) for version, refuses in [*sides, *((v, False) for v in (*before, *after))]]


def test_every_rule_has_an_example() -> None:
    assert EXAMPLES.keys() == RULES.keys()


@pytest.mark.parametrize(
    ("gpu", "release", "refused"),
    [
        ("nvidia-b300", "3.3.0", True), ("nvidia-b300", "3.3.1", True), ("nvidia-p100-16gb", "3.3.0", False),
        ("nvidia-t4", "3.3.7", False), ("amd-mi300x", "2.0.3", True), ("amd-mi300x", "2.0.4", False),
        ("amd-mi250", "1.2.0", False), ("amd-mi325x", "3.3.7", False), ("amd-mi355x", "3.3.7", True),
    ],
)  # fmt: skip
def test_gpus_the_image_has_kernels_for(gpu: str, release: str, refused: bool) -> None:
    setting = settle(release=release, gpu=gpu, variant="rocm" if gpu.startswith("amd") else "")
    codes = [found.code for found in refusals.shard_refusals(setting)]
    assert any("kernels" in code for code in codes) is refused


@pytest.mark.parametrize(("width", "own", "refused"), [(8192, True, True), (8193, True, False), (4096, False, False)])
def test_norms_that_pytorch_makes_run_on_newer_gpus(width: int, own: bool, refused: bool) -> None:
    setting = settle(gpu="nvidia-b200", facts=model(hidden_size=width))
    if not own:
        image = replace(setting.spec.tgi, image="registry.example/tgi:3.3.7")
        setting = setting._replace(spec=replace(setting.spec, tgi=image))
    codes = [found.code for found in refusals.shard_refusals(setting)]
    assert ("norm-without-kernels" in codes) is refused


@pytest.mark.parametrize("code", EXAMPLES)
def test_tgis_words(code: str) -> None:
    rule, example = RULES[code], EXAMPLES[code]
    release = example.at or name(max(version for version in VERSIONS if version <= rule.until))
    found = next(refusal for refusal in asked(rule, example, release) if refusal.code == code)
    assert found.message == example.message
    assert found.stage == rule.stage
    assert found.why.endswith(".")
    assert found.next_steps


@pytest.mark.parametrize(
    ("code", "release", "refuses"), [(code, *side) for code, rule in RULES.items() for side in boundaries(rule)]
)
def test_each_side_of_each_boundary(code: str, release: str, refuses: bool) -> None:
    codes = [refusal.code for refusal in asked(RULES[code], EXAMPLES[code], release)]
    assert (code in codes) is refuses


@pytest.mark.parametrize(
    ("model", "release", "stop"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", "3.3.7", "."), ("Qwen/Qwen2-VL-2B-Instruct", "2.4.1", "."),
        ("google/gemma-3-4b-it", "3.3.7", ""), ("meta-llama/Llama-3.2-11B-Vision-Instruct", "3.3.7", ""),
        ("llava-hf/llava-v1.6-mistral-7b-hf", "2.0.4", ""), ("HuggingFaceM4/idefics2-8b", "3.3.7", None),
        ("Qwen/Qwen2.5-7B-Instruct", "3.3.7", None),
    ],
)  # fmt: skip
def test_a_tower_in_16_bit_beside_packed_weights(model: str, release: str, stop: str | None) -> None:
    found = refusals.shard_refusals(settle(as_awq(model), release))
    told = [one.message for one in found if one.code == "tower-not-packed"]
    text = "RuntimeError: Cannot load `awq` weight, make sure the model is already quantized"
    assert told == ([] if stop is None else [text + stop])


@pytest.mark.parametrize("release", ["1.0.0", "2.0.0", "2.3.0", "2.4.1", "3.0.0", "3.3.7"])
def test_nothing_is_refused_of_a_sound_launch(release: str) -> None:
    setting = settle(release=release)
    given = Limits(1000, 2000, 4096)
    limits = defaults.launcher_limits(setting, given)
    assert refusals.launcher_refusals(setting, given, limits) == []
    assert refusals.shard_refusals(setting, limits) == []
    assert refusals.router_refusals(setting, limits, 50_000) == []


@pytest.mark.parametrize(
    ("release", "gpu", "variant", "env", "dtype", "refused"),
    [
        ("2.4.0", "nvidia-l4", "", {}, "fp8_e5m2", False),
        ("2.4.0", "nvidia-l4", "", {"ATTENTION": "paged"}, "fp8_e5m2", True),
        ("3.0.1", "amd-mi300x", "rocm", {}, "fp8_e4m3fn", True),
        ("3.0.2", "amd-mi300x", "rocm", {}, "fp8_e4m3fn", False),
        ("3.0.2", "amd-mi300x", "rocm", {}, "fp8_e5m2", True),
        ("3.0.2", "nvidia-l4", "", {"ATTENTION": "paged"}, "fp8_e5m2", True),
        ("3.1.0", "nvidia-l4", "", {"ATTENTION": "paged"}, "fp8_e5m2", False),
        ("3.2.3", CPU, "intel-cpu", {}, "fp8_e5m2", True),
        ("3.3.0", CPU, "intel-cpu", {}, "fp8_e5m2", False),
        ("3.3.0", CPU, "intel-cpu", {}, "fp8_e4m3fn", True),
    ],
)
def test_fp8_kv_cache(
    release: str, gpu: str | GpuFacts, variant: str, env: dict[str, str], dtype: str, refused: bool
) -> None:
    setting = settle(release=release, gpu=gpu, variant=variant, env=env, kv_cache_dtype=dtype)
    assert ("fp8-kv-cache" in [found.code for found in refusals.shard_refusals(setting)]) is refused


@pytest.mark.parametrize(
    ("release", "quantize", "refused"),
    [
        ("1.1.1", "bitsandbytes", True), ("1.2.0", "bitsandbytes", False), ("1.2.0", "bitsandbytes-nf4", False),
        ("3.3.7", "eetq", True), ("3.3.7", "bitsandbytes", False), ("3.3.7", None, False),
    ],
)  # fmt: skip
def test_dtype_beside_quantize(release: str, quantize: str | None, refused: bool) -> None:
    setting = settle(release=release, dtype="float16", quantize=quantize)
    assert ("dtype-and-quantize" in [found.code for found in refusals.shard_refusals(setting)]) is refused


@pytest.mark.parametrize(("release", "refused"), [("2.2.0", False), ("2.3.0", True)])
def test_dtype_beside_a_quantized_checkpoint(release: str, refused: bool) -> None:
    facts = model(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128}, tensors=PACKED)
    codes = [found.code for found in refusals.shard_refusals(settle(facts, release, dtype="float16"))]
    assert codes == (["dtype-and-quantize"] if refused else [])


def test_the_launcher_checks_shards_first_from_3_0_0() -> None:
    for release, expected in (
        ("2.4.1", ["input-not-below-total", "sharded-needs-two"]),
        ("3.0.0", ["sharded-needs-two", "input-not-below-total"]),
    ):
        setting = settle(release=release, flags={"sharded": True})
        found = refusals.launcher_refusals(setting, Limits(9, 9), defaults.launcher_limits(setting, Limits(9, 9)))
        assert [refusal.code for refusal in found] == expected


def test_a_secret_is_never_repeated() -> None:
    setting = settle(env={"API_KEY": "hf_secret\0"})
    found = refusals.launcher_refusals(setting, Limits(), Limits())
    assert [refusal.code for refusal in found] == ["unparsable-value"]
    assert "hf_secret" not in "".join(found[0].next_steps) + found[0].message


@pytest.mark.parametrize(
    ("launch", "limits", "given", "expected"),
    [
        ({}, Limits(10, 20, 4096), Limits(10, 20), []),
        (
            {}, Limits(10, 20, 4096), Limits(10, 20, None, 999),
            ["max-batch-total-tokens is ignored for this model: TGI infers it (and may still refuse over it)."],
        ),
        (
            {"flags": {"speculate": 2}}, Limits(10, 20, 4096), Limits(),
            ["Prefills are not chunked (speculation is on): max_batch_prefill_tokens must cover the longest prompt."],
        ),
        (
            {"env": {"ATTENTION": "paged"}}, Limits(10, 20, 4096), Limits(),
            ["Prefills are not chunked (attention is paged): max_batch_prefill_tokens must cover the longest prompt."],
        ),
        ({"flags": {"rope-scaling": "linear"}}, Limits(10, 200_000, 4096), Limits(), []),
        (
            {}, Limits(10, 200_000, 4096), Limits(),
            [
                "max_total_tokens 200,000 is above the model's context of 131,072 tokens: TGI does not look, reserves "
                "the KV cache for it, and answers beyond the context are noise, or the kernels fail.",
            ],
        ),
        (
            {"quantize": "bitsandbytes"}, Limits(10, 20, 4096), Limits(),
            ["CUDA graphs are off with bitsandbytes: decoding small batches is slower."],
        ),
        (
            {"facts": model(T5)}, Limits(10, 20, 4096, 16000), Limits(),
            [
                "TGI 3.3.7 serves t5 in padded batches and reserves no KV cache: nothing is inferred, "
                "max_batch_total_tokens is 16,000, and it can run out of memory while serving.",
            ],
        ),
        (
            {"facts": model(model_type="mistral", sliding_window=4096)}, Limits(4096, 8192, 4096), Limits(),
            [
                "The model's sliding window of 4096 tokens saves no KV cache: every layer keeps the full length.",
            ],
        ),
        (
            {}, Limits(4095, 4096, 4096), Limits(None, 4096),
            ["max_total_tokens equals the prefill budget and max_input_tokens is open: one slot is missing. Set both."],
        ),
        (
            {"facts": model(quantization_config={"quant_method": "mxfp4"})}, Limits(10, 20, 4096), Limits(),
            [
                "TGI 3.3.7's launcher does not know quant_method 'mxfp4' and ignores the whole config.json: it falls "
                "back to flashinfer and a prefill default of 4096 tokens."
            ],
        ),
        (
            {"gpu": "nvidia-t4", "release": "3.1.0"}, Limits(10, 20, 4096), Limits(),
            ["TGI 3.1.0 has no flashinfer kernels for compute capability 7.5; set ATTENTION: paged in tgi.env."],
        ),
        (
            {"gpu": "nvidia-v100-32gb"}, Limits(10, 20, 4096, 16000), Limits(),
            [
                "TGI 3.3.7 serves llama in padded batches and reserves no KV cache: nothing is inferred, "
                "max_batch_total_tokens is 16,000, and it can run out of memory while serving.",
                "nvidia-v100-32gb cannot run TGI's flash attention: the model is served by slow, padded classes.",
            ],
        ),
    ],
)  # fmt: skip
def test_warnings(launch: dict[str, Any], limits: Limits, given: Limits, expected: list[str]) -> None:
    assert [one.sentence for one in refusals.warnings(settle(**launch), limits, given)] == expected


@pytest.mark.parametrize(
    ("release", "stored", "refused"),
    [
        ("1.4.5", {"quant_method": "gptq"}, True),
        ("2.0.0", {"quant_method": "gptq"}, False),
        ("2.0.0", {"quant_method": "awq"}, False),
        ("2.0.4", {"quant_method": "exl2"}, True),
        ("2.1.0", {"quant_method": "exl2"}, False),
        ("3.3.7", None, True),  # an old checkpoint whose config.json does not say that it is packed
        ("2.4.0", {"quant_method": "compressed-tensors"}, True),
        ("2.4.1", {"quant_method": "compressed-tensors"}, False),
    ],
)
def test_packed_checkpoints_without_quantize(release: str, stored: dict[str, str] | None, refused: bool) -> None:
    setting = settle(model(quantization_config=stored, tensors=PACKED), release)
    assert ("packed-without-quantize" in [found.code for found in refusals.shard_refusals(setting)]) is refused


def test_a_plain_checkpoint_is_not_packed() -> None:
    setting = settle(model(tensors=PLAIN), "2.1.1")
    assert refusals.shard_refusals(setting) == []


@pytest.mark.parametrize(
    ("kind", "release", "message"),
    [
        ("llama", "2.1.0", None),
        ("mistral", "2.2.0", None),
        ("granite", "2.4.0", None),
        ("gemma2", "2.3.0", "'TensorParallelColumnLinear' object has no attribute 'base_layer'"),
        ("gemma2", "2.3.1", None),
        ("starcoder2", "3.0.1", "'TensorParallelColumnLinear' object has no attribute 'base_layer'"),
        ("starcoder2", "3.0.2", None),
        ("qwen2", "3.1.1", "'TensorParallelColumnLinear' object has no attribute 'base_layer'"),
        ("qwen2", "3.2.0", None),
        ("mixtral", "3.3.7", "'TensorParallelColumnLinear' object has no attribute 'base_layer'"),
        ("phimoe", "2.3.1", "KeyError: (0, 'gate_proj')"),
        ("phimoe", "3.0.2", None),
        ("falcon", "3.3.7", "'FlashRWForCausalLM' object has no attribute 'model'"),
        ("gemma", "2.1.1", "ValueError: This model does not support adapter loading."),
        ("opt", "2.2.0", "ValueError: This model does not support adapter loading."),
        ("opt", "2.3.0", "AttributeError: ... object has no attribute ..."),
        ("qwen3", "3.3.7", "AttributeError: ... object has no attribute 'query_key_value'"),
        ("llava_next", "2.1.0", "'LlavaNextForConditionalGeneration' object has no attribute 'model'"),
        ("qwen2_5_vl", "3.3.7", "'Qwen2Model' object has no attribute 'model'"),
        ("gemma3", "3.3.7", "'Gemma3ForConditionalGeneration' object has no attribute 'model'"),
    ],
)
def test_which_classes_take_adapters(kind: str, release: str, message: str | None) -> None:
    """As a walk through every class of every tag found; issues 2881, 2926 and 3335 report three of them."""
    setting = settle(model(model_type=kind), release, flags={"lora-adapters": "org/adapter"})
    found = next((one.message for one in refusals.shard_refusals(setting) if one.code == "adapter-class"), None)
    assert (found is None) == (message is None)
    assert message is None or (found is not None and message in found)


@pytest.mark.parametrize(
    ("quantize", "refused"),
    [("gptq", True), ("awq", True), ("fp8", True), ("eetq", False), ("bitsandbytes", False), (None, False)],
)
def test_adapters_beside_a_quantization(quantize: str | None, refused: bool) -> None:
    setting = settle(quantize=quantize, flags={"lora-adapters": "org/adapter"})
    assert ("adapter-on-packed" in [one.code for one in refusals.shard_refusals(setting)]) == refused
