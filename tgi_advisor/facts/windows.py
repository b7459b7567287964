"""Which layers of a model attend to a sliding window, as its configuration says."""

from collections.abc import Mapping
from typing import NamedTuple

from tgi_advisor.facts import families
from tgi_advisor.facts.model import ModelFacts


class Layers(NamedTuple):
    """Decoder layers by what they keep of a request."""

    full: int
    """Layers that keep every token."""
    sliding: int
    """Layers that keep a window."""
    window: int
    """Tokens of the window; 0 where there is none."""


_ALTERNATING: Mapping[str, int] = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Families where each n-th layer keeps everything and the others a window, where config.json does not list them."""
_ALL_SLIDING = frozenset({"mistral", "mixtral", "starcoder2"})
"""Families where a window in config.json holds for every layer."""


def layers(model: ModelFacts) -> Layers:
    """The layers of a model by what they keep, as its configuration says."""
    text, count = model.text(), families.layers(model)
    window = text.get("sliding_window")
    if not isinstance(window, int) or window <= 0 or text.get("use_sliding_window") is False:
        return Layers(count, 0, 0)
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == count:
        sliding = sum(kind == "sliding_attention" for kind in kinds)
        return Layers(count - sliding, sliding, window if sliding else 0)
    every = text.get("sliding_window_pattern") or _ALTERNATING.get(str(text.get("model_type", model.model_type)))
    every = every or _ALTERNATING.get(str(model.model_type))
    if isinstance(every, int) and every > 1:
        full = count // every
        return Layers(full, count - full, window)
    if model.model_type in _ALL_SLIDING:
        return Layers(0, count, window)
    return Layers(count, 0, 0)
