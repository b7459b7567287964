"""How much of a request's KV cache a decode step reads: all of it, or a sliding window.

The cache is kept whole (`kv_cache.py`); reading is another matter. Mistral's class and its likes shorten what paged
attention is told of a request to the window up to 2.2.0 (`Seqlen.clamp`, which does nothing for other kernels, and
later for none). FlashInfer has one window for all layers of a model from 2.3.1 to 3.2.0, whatever the class. From 3.2.1
on each layer hands its own to the kernel.

https://github.com/huggingface/text-generation-inference/blob/v2.0.4/server/text_generation_server/models/custom_modeling/flash_mistral_modeling.py#L491-L494
https://github.com/huggingface/text-generation-inference/blob/v2.1.1/server/text_generation_server/layers/attention/common.py#L33-L44
https://github.com/huggingface/text-generation-inference/blob/v2.3.1/server/text_generation_server/models/flash_causal_lm.py#L1955-L1984
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_mistral_modeling.py#L234-L245
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_gemma2_modeling.py#L280-L291
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/transformers_flash_causal_lm.py#L66-L77
"""

from typing import NamedTuple

from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families, windows
from tgi_advisor.facts.windows import Layers

ALL_LAYERS = frozenset({"mistral", "mixtral", "qwen2", "qwen2_vl", "qwen2_5_vl", "starcoder2"})
"""Text models whose class of TGI's own takes the window for every layer."""


class Seen(NamedTuple):
    """Decoder layers by what a token's attention reads."""

    layers: Layers
    """The layers."""

    def mean(self, prompt: float, answer: float) -> float:
        """Tokens a layer reads of a request in a decode step, the mean over layers and over its answer."""
        return self._mixed(prompt + answer / 2, _mean(prompt, answer, self.layers.window))

    def pairs(self, tokens: float) -> float:
        """Tokens and those they attend to in the prefill of a prompt, the mean over layers."""
        window = self.layers.window
        inside = min(tokens, window)
        return self._mixed(tokens * tokens / 2, inside * inside / 2 + (tokens - inside) * window)

    def _mixed(self, full: float, sliding: float) -> float:
        count = self.layers.full + self.layers.sliding
        return (self.layers.full * full + self.layers.sliding * sliding) / count if count else full


def _mean(prompt: float, answer: float, window: int) -> float:
    """The mean of min(tokens, window) while a request grows from its prompt to the end of its answer."""
    inside = min(max(window - prompt, 0.0), answer)
    if not answer:
        return min(prompt, window)
    start = min(prompt, window)
    return (inside * (start + inside / 2) + (answer - inside) * window) / answer


def seen(setting: Setting) -> Seen:
    """What decoding reads of a request, layer by layer; where that is not known, the least it can be."""
    return Seen(_layers(setting))


def _layers(setting: Setting) -> Layers:
    model, family, version = setting.facts.model, setting.family, setting.facts.release.version
    text, count = model.text(), families.layers(model)
    full, kind = Layers(count, 0, 0), str(text.get("model_type") or family.model_type)
    window = text.get("sliding_window")
    if not isinstance(window, int) or window <= 0 or not family.paged:
        return full
    used = text.get("use_sliding_window", not kind.startswith("qwen"))
    if not used and (kind != "qwen2" or version >= (2, 2, 0)):  # handed on by transformers 4.41 and before
        return full
    every = Layers(0, count, window)
    if setting.facts.gpu.system in ("cuda", "rocm"):
        if version < (2, 3, 1):
            return every if kind in ALL_LAYERS and setting.attention == "paged" else full
        if version <= (3, 2, 0):
            return every if setting.attention == "flashinfer" else full
    if kind in ALL_LAYERS and family.served_by != "transformers":
        return every
    found = windows.layers(model)
    return every if family.served_by == "transformers" and not found.sliding else found
