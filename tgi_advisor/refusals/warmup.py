"""What the shards refuse at warm-up, apart from running out of memory."""

from __future__ import annotations

from collections.abc import Mapping

from tgi_advisor.estimate.replay import pictures
from tgi_advisor.estimate.weights import on_own_layers, quantization_config
from tgi_advisor.facts.release import is_own
from tgi_advisor.refusals.machine import BLACKWELL
from tgi_advisor.refusals.rules import Case, Found, Rule, Version, rule

WARMUP: list[Rule] = []
"""In the order a shard meets them."""


@rule(WARMUP, "warmup", "S/layers/attention/cuda.py@v2.2.0:174", since=(2, 1, 0), until=(2, 2, 0))
def flash_attention_2_needs_ampere(case: Case) -> Found:
    """These releases use flash attention 2 without a look at the GPU; its kernel needs compute capability 8.0."""
    gpu = case.setting.facts.gpu
    if gpu.system != "cuda" or gpu.at_least >= (8, 0) or not case.setting.flash or not case.family.paged:
        return None
    text = "RuntimeError: FlashAttention only supports Ampere GPUs or newer."
    return text, ("use TGI 2.3.0 or newer on this GPU",)


@rule(WARMUP, "warmup", "S/models/custom_modeling/mllama.py@v3.3.7:749", since=(2, 3, 1))
def image_needs_ampere(case: Case) -> Found:
    """Mllama's attention to images and the towers of Qwen2-VL and Qwen2.5-VL call flash attention 2 whatever the GPU;
    its kernel needs compute capability 8.0, and the warm-up has an image.
    """
    gpu, kind = case.setting.facts.gpu, case.family.model_type
    if gpu.system != "cuda" or gpu.compute_capability is None or gpu.compute_capability >= (8, 0):
        return None
    if not case.setting.flash or case.family.served_by != "vlm" or kind not in ("mllama", "qwen2_vl", "qwen2_5_vl"):
        return None
    text = "RuntimeError: FlashAttention only supports Ampere GPUs or newer."
    return text, ("use a GPU of compute capability 8.0 or newer",)


@rule(WARMUP, "warmup", "S/layers/layernorm.py@v3.3.7:161", since=(3, 3, 1))
def norm_without_kernels(case: Case) -> Found:
    """PyTorch knows this GPU, but the norm that TGI builds with flash attention is compiled for 7.0, 8.0 and 9.0 alone.

    Of hidden states up to 8,192 wide. https://github.com/Dao-AILab/flash-attention/blob/v1.0.9/csrc/layer_norm/setup.py
    names these three and no PTX (server/Makefile-flash-att@v3.3.7:1 takes a commit of that line); seen with 3.3.6
    on an RTX 5060 Ti (https://github.com/huggingface/text-generation-inference/issues/3342).
    """
    setting, image = case.setting, case.setting.spec.tgi.image
    width = setting.facts.model.text().get("hidden_size")
    if setting.facts.gpu.at_least < (10, 0) or (image is not None and not is_own(image)):
        return None
    if not setting.flash or not case.family.paged or not on_own_layers(setting):
        return None
    if not isinstance(width, int) or width > _WIDEST_NORM:
        return None
    text = (
        "CUDA Error: no kernel image is available for execution on the device "
        "/usr/src/flash-attention/csrc/layer_norm/ln_fwd_kernels.cuh:236"
    )
    return text, BLACKWELL


_WIDEST_NORM = 8192
"""Widest hidden state of that norm; wider ones are normed by PyTorch."""


@rule(WARMUP, "warmup", "S/layers/attention/kv_cache.py@v3.3.7:69", since=(2, 4, 0))
def fp8_kv_cache(case: Case) -> Found:
    """This attention back end cannot read an fp8 KV cache."""
    setting = case.setting
    if not setting.kv_dtype.startswith("fp8") or not setting.family.paged or setting.facts.variant == "gaudi":
        return None
    works, text = _fp8_kv_support(case.version)
    if (setting.attention, case.system) not in works:
        steps = ("leave out model.kv_cache_dtype",)
        return f"ValueError: FP8 KV cache is currently only supported for {text}", steps
    if case.system == "rocm" and setting.kv_dtype == "fp8_e5m2":
        return "ValueError: float8_e5m2 FP8 KV cache is not supported on AMD ROCm", ("use fp8_e4m3fn",)
    if setting.facts.gpu.system == "cpu" and setting.kv_dtype == "fp8_e4m3fn":
        return "ValueError: float8_e4m3fn FP8 KV cache is not supported on Intel IPEX CPU", ("use fp8_e5m2",)
    return None


def _fp8_kv_support(version: Version) -> tuple[tuple[tuple[str, str], ...], str]:
    """Combinations of attention and system an fp8 KV cache works with, and how the message names them."""
    cuda = ("flashinfer", "cuda")
    if version < (3, 0, 2):
        return (cuda,), "flashinfer on CUDA"
    if version < (3, 1, 0):
        return (cuda, ("paged", "rocm")), "flashinfer on CUDA and paged attention on ROCm. "
    paged = (("paged", "cuda"), ("paged", "rocm"))
    if version < (3, 3, 0):
        return (cuda, *paged), "flashinfer on CUDA and paged attention on CUDA and ROCm. "
    text = "flashinfer on CUDA and paged attention on CUDA, ROCm and INTEL IPEX and flashdecoding in Intel IPEX "
    return (cuda, *paged, ("paged", "ipex"), ("flashdecoding-ipex", "ipex")), text


@rule(WARMUP, "warmup", "S/models/transformers_flash_causal_lm.py@v3.3.7:20", since=(3, 2, 3))
def experts_without_cache(case: Case) -> Found:
    """transformers' class of Qwen3's mixtures hands its attention nothing of what TGI gives the model: no KV cache.

    transformers/models/qwen3_moe/modeling_qwen3_moe.py@v4.51.0:372.
    """
    if case.family.model_type != "qwen3_moe" or case.family.served_by != "transformers" or case.system != "cuda":
        return None
    text = (
        "TypeError: tgi_flash_attention_forward() missing 8 required positional arguments: 'kv_cache', "
        "'kv_head_mapping', 'slots', 'cu_seqlen_prefill', 'seqlen', 'block_tables', 'max_s', and 'kv_scales'"
    )
    return text, ("use a dense model of the family, such as Qwen/Qwen3-32B",)


@rule(WARMUP, "warmup", "S/models/vlm_causal_lm.py@v3.3.7:1076", since=(3, 3, 0))
def llama4_mask(case: Case) -> Found:
    """3.3.0 began to hand vision-language classes a mask, which the one that wraps transformers' Llama 4 does not take.

    server/text_generation_server/models/transformers_flash_vlm.py@v3.3.7:358.
    """
    if case.family.model_type != "llama4" or case.family.served_by != "vlm" or case.system == "gaudi":
        return None
    text = (
        "TypeError: TransformersFlashVlmCausalLM._model_forward() got an unexpected keyword argument 'attention_mask'"
    )
    return text, ("use TGI 3.2.3",)


@rule(WARMUP, "warmup", "S/layers/fp8.py@v3.3.7:514", since=(3, 1, 1))
def fp8_blocks(case: Case) -> Found:
    """fp8 weights with a scale for each block need moe-kernels' product, and the CUDA image has moe-kernels no more:
    TGI takes what it could not import for None, and calls it.
    """
    setting = case.setting
    gpu, stored = setting.facts.gpu, quantization_config(setting)
    blocks = setting.quantize == "fp8" and stored.get("quant_method") == "fp8" and stored.get("weight_block_size")
    if not blocks or not on_own_layers(setting) or gpu.system != "cuda" or gpu.at_least < (9, 0):
        return None
    return "TypeError: 'NoneType' object is not callable", ("use TGI 3.1.0",)


@rule(
    WARMUP,
    "warmup",
    "backends/gaudi/server/text_generation_server/models/flash_causal_lm.py@v3.3.7:1637",
    since=(3, 3, 1),
)
def gaudi_batch_size(case: Case) -> Found:
    """The Gaudi back end pads its batches and has to be told how large they get."""
    setting = case.setting
    if setting.facts.gpu.system != "gaudi" or not setting.family.paged or setting.max_batch_size is not None:
        return None
    text = "MAX_BATCH_SIZE is not set, it should be set in the launcher using `--max-batch-size xxx`"
    return f"RuntimeError: {text}", ("set max-batch-size under tgi.flags",)


@rule(WARMUP, "warmup", "S/utils/import_utils.py@v3.3.7:22", since=(2, 1, 1))
def device_fraction_out_of_range(case: Case) -> Found:
    """XPU_MEMORY_FRACTION (Gaudi: HPU_MEMORY_FRACTION) is the share of the device the KV cache may fill; beyond 1 there
    is no memory for it.
    """
    setting = case.setting
    name, since = _FRACTIONS.get(setting.facts.gpu.system, ("", case.version))
    text = setting.env.get(name)
    if text is None or case.version < since or not setting.family.paged:
        return None
    step = (f"leave {name} out, or use a share such as 0.9",)
    try:
        fraction = float(text)
        int(fraction)
    except (ValueError, OverflowError) as error:
        return f"{type(error).__name__}: {error}", step
    return ("torch.OutOfMemoryError: out of memory", step) if fraction > 1 else None


_FRACTIONS: Mapping[str, tuple[str, Version]] = {
    "xpu": ("XPU_MEMORY_FRACTION", (2, 1, 1)), "gaudi": ("HPU_MEMORY_FRACTION", (3, 3, 1)),
}  # fmt: skip
"""The variable of a system and the first release that reads it."""


@rule(WARMUP, "warmup", "backends/gaudi/server/text_generation_server/models/causal_lm.py@v3.2.3:1308")
def gaudi_padded_batch_size(case: Case) -> Found:
    """The Gaudi back end's padded classes warm up every batch size, and have to be told the largest."""
    setting = case.setting
    if setting.facts.variant != "gaudi" or setting.family.paged or setting.max_batch_size is not None:
        return None
    text = "AssertionError: MAX_BATCH_SIZE is not set, it should be set in the launcher"
    return text, ("set max-batch-size under tgi.flags",)


@rule(WARMUP, "warmup", "S/models/vlm_causal_lm.py@v3.3.7:485", since=(3, 3, 0), of_limits=True)
def image_truncated(case: Case) -> Found:
    """The first request of the warm-up ends with an image, and it is cut to max_input_tokens: all positions of the
    image have to fit in them.
    """
    asked, needed = case.limits, pictures.needed(case.setting)
    longest = asked.max_input_tokens or asked.max_batch_prefill_tokens
    if longest is None:
        return None
    longest = min(longest, asked.max_batch_prefill_tokens or longest)
    if needed <= longest:
        return None
    text = f"AssertionError: {needed} > {longest} Image is truncated, try increasing --max-batch-prefill-tokens"
    return text, (f"raise max_input_tokens and max_batch_prefill_tokens to at least {needed}",)


@rule(
    WARMUP,
    "warmup",
    "S/models/flash_causal_lm.py@v2.4.1:1661",
    since=(2, 4, 1),
    until=(2, 4, 1),
    of_limits=True,
)
def total_without_input(case: Case) -> Found:
    """2.4.1 fills in max_input_tokens only together with max_total_tokens."""
    asked = case.limits
    if asked.max_total_tokens is None or asked.max_input_tokens is not None or not case.family.paged:
        return None
    return "AssertionError: assert max_input_tokens is not None", ("set max_input_tokens as well",)


@rule(WARMUP, "warmup", "backends/v3/src/client/grpc_client.rs@v3.3.7:152", since=(2, 4, 1), of_limits=True)
def new_tokens_wrap(case: Case) -> Found:
    """Without max_input_tokens the warm-up is one request of max_batch_prefill_tokens; its new tokens, max_total_tokens
    minus that, fall below zero and wrap to four billion. The shard then fills the host's memory.
    """
    asked = case.limits
    total, prefill = asked.max_total_tokens, asked.max_batch_prefill_tokens
    if total is None or prefill is None or asked.max_input_tokens is not None or total >= prefill:
        return None
    return (
        f"Shard process was signaled to shutdown with signal 9 (max_new_tokens wrapped to {total - prefill + 2**32})",
        ("set max_input_tokens as well, below max_total_tokens",),
    )


@rule(WARMUP, "warmup", "S/models/model.py@v3.3.7:135", since=(2, 4, 1), of_limits=True)
def seq2seq_explicit_total(case: Case) -> Found:
    """After the warm-up step of a sequence-to-sequence model its input ids are gone, and the base class counts them."""
    setting = case.setting
    if setting.family.served_by != "seq2seq" or case.limits.max_total_tokens is None:
        return None
    return "TypeError: 'NoneType' object is not iterable", (
        "leave max_total_tokens and max_input_tokens out: TGI then makes max_batch_prefill_tokens the total",
        "or use TGI 2.4.0, which lets them be stated",
    )
