"""What the shards refuse of a model's config.json once its class is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgi_advisor.refusals.rules import Case, Found, Rule, Version, rule

CONFIG: list[Rule] = []
"""In the order a shard meets them."""

_ROTARY = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "phi3", "phimoe", "granite", "starcoder2", "qwen2_vl", "qwen2_5_vl"}
)
"""Model types whose class takes its rotary embedding from `rope_scaling` of config.json."""
_NEEDS: Mapping[str, Version] = {
    "linear": (1, 0, 1), "dynamic": (1, 0, 1), "yarn": (1, 1, 1), "su": (2, 0, 3), "llama3": (2, 2, 0),
    "longrope": (2, 2, 0), "default": (2, 4, 1), "mrope": (2, 4, 1),
}  # fmt: skip
"""First release that knows a way of scaling (utils/layers.py, from 2.0.3 on layers/rotary.py)."""
_BY_TRANSFORMERS: Version = (2, 0, 2)
"""First release that reads Llama's configuration through transformers, which checks `rope_scaling` itself."""
_ROPE_TYPE: Version = (2, 2, 0)
"""First release that reads `rope_type`, and whose transformers takes it."""


@rule(CONFIG, "load", "S/models/flash_llama.py@v2.0.2:69", since=(2, 0, 2))
def remote_code_needed(case: Case) -> Found:
    """TGI has a class for the model, but reads its configuration with transformers, which knows none of that type: it
    takes the repository's own code, where that is allowed.
    """
    setting, family, model = case.setting, case.family, case.setting.facts.model
    unknown = family.model_type == "baichuan" or (family.model_type == "phi3" and case.version == (2, 0, 2))
    own = family.supported and family.paged and not family.automodel and case.system != "gaudi"
    if not unknown or not own or setting.flags.get("trust-remote-code") is True:
        return None
    text = (
        f"ValueError: The repository for {model.served_id} contains custom code which must be executed to correctly "
        "load the model. Please pass the argument `trust_remote_code=True` to allow custom code to be run."
    )
    return text, ("set model.trust_remote_code: true, after reading the code",)


@rule(CONFIG, "load", "S/layers/rotary.py@v2.2.0:91", since=(1, 0, 1))
def rope_scaling_unknown(case: Case) -> Found:
    """config.json scales the rotary embedding in a way this release cannot read. Llama 3.1 and later write
    `rope_type: llama3`, which TGI knows from 2.2.0 on.
    """
    scaling = _rope_scaling(case)
    if scaling is None:
        return None
    by_transformers = _BY_TRANSFORMERS <= case.version < _ROPE_TYPE
    text = _transformers_words(case, scaling) if by_transformers else None
    if text is None and not _given_by_flag(case):
        text = _tgis_words(case, scaling)
    if text is None:
        return None
    first = _NEEDS.get(str(scaling.get("rope_type", scaling.get("type"))))
    if "rope_type" in scaling or case.version >= _BY_TRANSFORMERS:
        first = None if first is None else max(first, _ROPE_TYPE)
    if first is None or first <= case.version:
        return text, ("no release reads it: take `rope_scaling` out of config.json, or another checkpoint",)
    return text, (f"use TGI {'.'.join(map(str, first))} or newer",)


def _rope_scaling(case: Case) -> Mapping[str, Any] | None:
    """`rope_scaling` of a class of TGI's own that reads it; None where there is none."""
    model, family = case.setting.facts.model, case.family
    text = model.text()
    kind = str(text.get("model_type") or family.model_type)
    scaling = text.get("rope_scaling")
    own = family.supported and family.paged and not family.automodel
    return scaling if own and kind in _ROTARY and isinstance(scaling, Mapping) and scaling else None


def _given_by_flag(case: Case) -> bool:
    """Whether ROPE_SCALING takes the place of the configuration's own (launcher/src/main.rs@v3.3.7:1080)."""
    flags = case.setting.flags
    return "rope-scaling" in flags or "rope-factor" in flags or "ROPE_SCALING" in case.setting.env


def _transformers_words(case: Case, scaling: Mapping[str, Any]) -> str | None:
    """`LlamaConfig._rope_scaling_validation` of transformers 4.40 and 4.41; the other classes have none or their own.

    https://github.com/huggingface/transformers/blob/v4.41.1/src/transformers/models/llama/configuration_llama.py#L183-L205
    https://github.com/huggingface/transformers/blob/v4.41.1/src/transformers/models/phi3/configuration_phi3.py#L171-L213
    """
    kind = str(case.setting.facts.model.text().get("model_type"))
    way, factor = scaling.get("type"), scaling.get("factor")
    if kind == "phi3" and case.version >= (2, 0, 3):
        if len(scaling) != 3:
            fields = "three fields, `type`, `short_factor` and `long_factor`"
            return f"ValueError: `rope_scaling` must be a dictionary with {fields}, got {dict(scaling)}"
        if way not in ("su", "yarn"):
            return f"ValueError: `rope_scaling`'s type field must be one of ['su', 'yarn'], got {way}"
    if kind != "llama":
        return None
    if len(scaling) != 2:
        fields = "two fields, `type` and `factor`"
        return f"ValueError: `rope_scaling` must be a dictionary with {fields}, got {dict(scaling)}"
    if way not in ("linear", "dynamic"):
        return f"ValueError: `rope_scaling`'s type field must be one of ['linear', 'dynamic'], got {way}"
    if not isinstance(factor, float) or factor <= 1:
        return f"ValueError: `rope_scaling`'s factor field must be a float > 1, got {factor}"
    return None


def _tgis_words(case: Case, scaling: Mapping[str, Any]) -> str | None:
    """What TGI's own rotary embedding says to the scaling."""
    version = case.version
    if version < (2, 0, 3) and "factor" not in scaling:
        return "KeyError: 'factor'"
    way = scaling.get("rope_type", scaling.get("type")) if version >= _ROPE_TYPE else scaling.get("type")
    if isinstance(way, str) and version >= _NEEDS.get(way, (999, 0, 0)):
        return None
    if "type" not in scaling:
        return "KeyError: 'type'"
    return f"NotImplementedError: rope scaling type {scaling['type']} is not implemented or invalid"
