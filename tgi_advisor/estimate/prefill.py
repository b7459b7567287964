"""Memory one prefill of the warm-up needs beside weights and KV cache.

TGI reads the driver's free memory after a complete prefill of `max_batch_prefill_tokens` and
*without* emptying PyTorch's cache, so the widest moment of that prefill counts as used. The widest
moment is the feed-forward block (or, where it is wider, attention); on top of it come the logits,
which up to 2.4.1 are made for every prefill token.

`forward.py` replays that prefill for the classes with a block KV cache; what is here holds for the
padded classes, and for what does not grow with the prefill's tokens alone.
"""

from __future__ import annotations

from tgi_advisor.estimate import exllama, forward
from tgi_advisor.estimate.forward import Reserved
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.peak import Batch, Peak
from tgi_advisor.estimate.setting import Setting

SAMPLING_COPIES = 6
"""Copies of the last-position logits that warpers, sorting and log-softmax hold together (the warm-up
switches top-k, top-p, typical-p and the penalties on)."""

QUADRATIC = frozenset({"bloom", "mpt", "opt", "t5", "gpt_neox"})
"""Padded families whose attention makes the score of every position against every other."""


def element(setting: Setting) -> int:
    """Bytes of an activation element."""
    return 4 if setting.dtype == "float32" else 2


def feed_forward_width(setting: Setting, g: Geometry) -> int:
    """Elements per token alive at the widest point of a padded class's feed-forward block.

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


def attention_width(g: Geometry) -> int:
    """Elements per token alive in a padded class's attention: q, k, v, its output, the normed input, the residual."""
    return 2 * g.query + 2 * g.kv + 2 * g.hidden


class Scaled:
    """Prefills of launches that are not replayed at their own sizes: so many bytes for every token."""

    sharing = -1
    """None: where gaps lie is not known."""
    full = ()
    """None: segments are not looked at."""

    def __init__(self, setting: Setting, g: Geometry) -> None:
        self._each = per_token(setting, g)
        self._sampling = sampling_bytes_per_request(setting, g)
        self._block = g.kv_bytes_per_token * setting.block_size
        self._setting, self._geometry = setting, g
        self._unpacks = setting.quantize in ("gptq", "exl2") and exllama.applies(setting)

    @property
    def rough(self) -> None:
        """Nothing is less work."""

    def in_gaps(self, blocks: int) -> int:
        """None: where gaps lie is not known."""
        return 0 * blocks

    def at(self, batch: Batch) -> Peak:
        """What the warm-up with a batch adds."""
        cache = batch.blocks * self._block
        layers = batch.tokens * self._each.layers + self._fixed(batch)
        whole = layers + batch.tokens * self._each.logits + batch.requests * self._sampling
        return Peak(cache, cache + layers, cache + whole, layers, whole, layers)

    def seen(self, requests: int, longest: int) -> None:
        """Nothing: no images are replayed."""

    def squeezed(self, batch: Batch, room: int) -> Peak:
        """The same with PyTorch's cache given back: the layers' blocks are free again when the logits are made."""
        full = self.at(batch)
        if full.whole <= room:
            return full
        alive = self._fixed(batch) + max(
            batch.tokens * self._each.alive, batch.tokens * self._each.left + batch.requests * self._sampling
        )
        return full._replace(whole=full.cache + alive, alive_layers=min(full.alive_layers, alive), alive=alive)

    def _fixed(self, batch: Batch) -> int:
        """Bytes that do not grow with the tokens alone: masks, and exllama's scratch."""
        scratch = exllama.scratch(self._setting, self._geometry, batch.tokens) if self._unpacks else 0
        return scratch + square_bytes(self._setting, self._geometry, batch.longest, batch.requests)


def per_token(setting: Setting, g: Geometry) -> Reserved:
    """What one prefill makes the allocator keep, in bytes per prefill token.

    Classes with a block KV cache are replayed tensor by tensor. Padded classes run transformers' or
    older modeling code: their widest moment in closed form, logits of every position in every release
    and the log-softmax of one prompt; encoder-decoders only have logits of the first output token;
    Mamba's warm-up makes no prefill.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/causal_lm.py#L796-L802
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/mamba.py#L478-L499
    """
    if setting.family.paged:
        return forward.reserved(setting, g)
    if setting.family.served_by == "mamba":
        return Reserved(0, 0, 0, 0)
    layers = element(setting) * max(feed_forward_width(setting, g), attention_width(g))
    logits = 2 * g.vocabulary * element(setting) if setting.family.served_by == "padded" else 0
    return Reserved(layers, logits, layers, element(setting) * g.hidden + logits)


def sampling_bytes_per_request(setting: Setting, g: Geometry) -> int:
    """Bytes per warm-up request for sampling from the last position's logits."""
    return 0 if setting.family.served_by == "mamba" else SAMPLING_COPIES * g.vocabulary * element(setting)


def square_bytes(setting: Setting, g: Geometry, longest: int, requests: int) -> int:
    """Bytes that grow with the square of the longest prompt.

    Gemma 3 builds dense attention masks for images (3.2.0 on): four boolean [R, L, L] and one in the
    model's dtype. Until 3.2.3 it then asks PyTorch for grouped-query attention with a mask, which only the
    unfused path can do: float32 scores of every head, and their softmax. Some padded families make all
    attention scores, a float32 softmax of them and its result.
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_gemma3_modeling.py#L705-L764
    https://github.com/huggingface/text-generation-inference/blob/v3.2.1/server/text_generation_server/models/custom_modeling/flash_gemma3_modeling.py#L286-L293
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/bloom_modeling.py#L318-L340
    """
    square = requests * longest * longest
    if setting.family.model_type == "gemma3" and setting.family.paged:
        scores = 8 * g.heads if setting.facts.release.version < (3, 3, 0) else 0
        return square * (4 + element(setting) + scores)
    if setting.family.model_type in QUADRATIC and not setting.family.paged:
        return square * g.heads * (4 + 2 * element(setting))
    return 0
