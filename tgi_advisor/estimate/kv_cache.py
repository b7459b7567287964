"""The KV cache as TGI allocates it: the same for every layer, in blocks, on every shard.

No saving for sliding windows; no compression for DeepSeek's latent attention outside Gaudi; a single
KV head (multi-query) is kept whole on every shard.
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/flash_causal_lm.py#L1281-L1307
"""

from __future__ import annotations

from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families


def heads_per_shard(setting: Setting) -> int:
    """KV heads one shard allocates; 0 where TGI would stop with a bare AssertionError."""
    heads = families.kv_heads(setting.facts.model)
    if heads == 1 or setting.family.kv == "replicated":
        return heads
    return heads // setting.num_shard


def bytes_per_token(setting: Setting) -> int:
    """Bytes of one token's keys and values in all layers of one shard.

    On Gaudi DeepSeek's latent is stored as it is, once (3.3.1 on).
    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/gaudi/server/text_generation_server/models/flash_causal_lm.py#L1649-L1656
    """
    model = setting.facts.model
    if (
        setting.family.kv == "mla"
        and setting.facts.gpu.system == "gaudi"
        and setting.facts.release.version >= (3, 3, 1)
    ):
        return families.layers(model) * families.latent(model) * setting.kv_dtype_bytes
    head_size = families.head_size(model, setting.family)
    return families.layers(model) * heads_per_shard(setting) * head_size * 2 * setting.kv_dtype_bytes
