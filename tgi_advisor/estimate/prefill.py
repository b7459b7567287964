"""Memory one prefill of the warm-up needs beside weights and KV cache.

TGI reads the driver's free memory after a complete prefill of `max_batch_prefill_tokens` and
*without* emptying PyTorch's cache, so the widest moment of that prefill counts as used. The widest
moment is the feed-forward block (or, where it is wider, attention); on top of it come the logits,
which up to 2.4.1 are made for every prefill token.

The moments follow the modeling code, e.g. Llama's
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_llama_modeling.py#L394-L419
"""

from __future__ import annotations

from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.setting import Setting

ELEMENT = 2
"""Bytes of an activation element: float16 or bfloat16."""

SAMPLING_COPIES = 6
"""Copies of the last-position logits that warpers, sorting and log-softmax hold together (the warm-up
switches top-k, top-p, typical-p and the penalties on)."""


def feed_forward_width(setting: Setting, g: Geometry) -> int:
    """Elements per token alive at the widest point of a feed-forward block.

    Gated: fused gate and up (2 I), activation(gate) (I), their product (I), beside the residual and
    the normed input. Plain: the first projection and its activation. Mixture: TGI's fused kernel
    allocates both intermediate results and the unreduced output for every chosen expert at once
    (vLLM's fused_moe layout), beside the router's float32 scores.
    """
    stream = 2 * g.hidden
    match setting.family.mlp:
        case "gated":
            return 4 * g.intermediate + stream
        case "plain":
            return 2 * g.intermediate + stream
        case "parallel_gated":
            return 4 * g.intermediate + stream + g.hidden
        case "parallel_plain":
            return 2 * g.intermediate + stream + g.hidden
        case "moe":
            routed = g.experts_per_token * (3 * g.intermediate + g.hidden)
            return routed + 4 * g.experts + stream + g.hidden


def attention_width(setting: Setting, g: Geometry) -> int:
    """Elements per token alive while attention runs: fused q, k, v, its output, the normed input, the residual.

    DeepSeek expands its latent first: queries, keys, keys-and-values, padded values and the padded
    output of every head are alive together.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_deepseek_v3_modeling.py#L300-L371
    """
    if setting.family.kv == "mla":
        return 5 * g.query + 2 * g.hidden
    return 2 * g.query + 2 * g.kv + 2 * g.hidden


def activation_bytes_per_token(setting: Setting, g: Geometry) -> int:
    """Bytes per prefill token at the widest moment of a layer."""
    return ELEMENT * max(feed_forward_width(setting, g), attention_width(setting, g))


def logits_bytes_per_token(setting: Setting, g: Geometry) -> int:
    """Bytes per prefill token of full-vocabulary logits, 0 where only the last position has any.

    Up to 2.3.1 the log-softmax makes a second full copy; from 2.4.0 it works in place. Under tensor
    parallelism the shard's own slice lives beside the gathered whole.
    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/models/flash_causal_lm.py#L1504
    https://github.com/huggingface/text-generation-inference/blob/v2.4.0/server/text_generation_server/models/flash_causal_lm.py#L2046
    """
    if not setting.prefill_logprobs:
        return 0
    whole = g.vocabulary * ELEMENT
    gathered = g.vocabulary_shard * ELEMENT if g.vocabulary_shard != g.vocabulary else 0
    copies = 2 if setting.facts.release.prefill_logits == "two_copies" else 1
    return gathered + copies * whole


def sampling_bytes_per_request(g: Geometry) -> int:
    """Bytes per warm-up request for sampling from the last position's logits."""
    return SAMPLING_COPIES * g.vocabulary * ELEMENT


def mask_bytes(setting: Setting, longest: int, requests: int) -> int:
    """Dense attention masks Gemma 3 builds for images (3.2.0 on): quadratic in the longest prompt.

    Three boolean [R, L, L] masks and one in the model's dtype.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_gemma3_modeling.py#L705-L764
    """
    if setting.family.model_type != "gemma3":
        return 0
    return requests * longest * longest * (3 + ELEMENT)
