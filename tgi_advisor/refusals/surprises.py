"""What TGI accepts, but does differently than one may expect."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tgi_advisor.estimate import overhead
from tgi_advisor.estimate.defaults import CHUNKING_ATTENTION, launcher_limits
from tgi_advisor.facts import families
from tgi_advisor.facts.adapters import parse
from tgi_advisor.refusals.adapters import NAMED_SINCE
from tgi_advisor.refusals.rules import Case
from tgi_advisor.refusals.weights import quant_method
from tgi_advisor.units import gib, thousands

OF_MODEL = "model-id"
"""What is about the model alone, however it is started."""
STRETCH = "rope-scaling"
"""The flag that makes a longer context on purpose."""


class Surprise(NamedTuple):
    """Something that TGI accepts."""

    sentence: str
    """What it does with it."""
    flag: str
    """The flag that is taken otherwise than one may expect; empty for what is about the whole launch."""


def found(case: Case) -> list[Surprise]:
    """Everything that will surprise."""
    return [Surprise(text, flag) for check, flag in _CHECKS.items() if (text := check(case)) is not None]


def _ignored_batch_total(case: Case) -> str | None:
    if case.family.paged and case.given.max_batch_total_tokens is not None:
        return "max-batch-total-tokens is ignored for this model: TGI infers it (and may still refuse over it)."
    return None


def _no_budget(case: Case) -> str | None:
    if case.family.served_by == "mamba":
        return "Mamba keeps no KV cache: TGI infers no token budget."
    if case.family.paged or not case.family.supported:
        return None
    budget = case.limits.max_batch_total_tokens
    stated = "" if budget is None else f", max_batch_total_tokens is {thousands(budget)}"
    return (
        f"TGI {case.release} serves {case.family.model_type} in padded batches and reserves no KV cache: nothing is "
        f"inferred{stated}, and it can run out of memory while serving."
    )


def _without_flash(case: Case) -> str | None:
    if case.setting.flash or case.family.served_by != "padded" or not case.family.supported:
        return None
    return (
        f"{case.setting.facts.gpu.name} cannot run TGI's flash attention: the model is served by slow, padded classes."
    )


def _window_saves_nothing(case: Case) -> str | None:
    window = case.setting.facts.model.text().get("sliding_window")
    total = case.limits.max_total_tokens
    if not isinstance(window, int) or total is None or total <= window or not case.family.paged:
        return None
    if case.setting.facts.model.text().get("use_sliding_window") is False or case.version < (
        2,
        1,
        0,
    ):
        return None
    return f"The model's sliding window of {window} tokens saves no KV cache: every layer keeps the full length."


def _no_chunking(case: Case) -> str | None:
    if case.setting.chunking or case.release.chunking != "on" or not case.family.paged:
        return None
    if case.setting.speculate:
        why = "speculation is on"
    elif case.setting.attention not in CHUNKING_ATTENTION:
        why = f"attention is {case.setting.attention}"
    elif not case.family.chunks:
        why = f"{case.family.model_type} is served by a class without it"
    else:
        why = "PREFILL_CHUNKING is off"
    return f"Prefills are not chunked ({why}): max_batch_prefill_tokens must cover the longest prompt."


def _no_graphs(case: Case) -> str | None:
    if case.setting.graph_sizes or case.setting.forwarded_quantize not in ("bitsandbytes", "exl2"):
        return None
    if case.release.cuda_graphs != "default":
        return None
    return f"CUDA graphs are off with {case.setting.forwarded_quantize}: decoding small batches is slower."


def _adapter_without_weights(case: Case) -> str | None:
    """load_module_map skips what it does not find (utils/adapter.py@v2.2.0:144, adapters/lora.py@v2.2.0:92)."""
    bare = [entry.id for entry in map(parse, case.setting.lora_adapters) if entry.bare_folder]
    if not bare or not case.version < NAMED_SINCE:
        return None
    return f"TGI {case.release} looks for adapters in the Hub's cache alone: {bare[0]} changes nothing."


def _config_dropped(case: Case) -> str | None:
    method = quant_method(case.setting)
    release = case.release
    if release.version < (2, 3, 0) or method is None or method in release.quantize:
        return None
    prefill = launcher_limits(case.setting, case.given._replace(max_batch_prefill_tokens=None)).max_batch_prefill_tokens
    return (
        f"TGI {release}'s launcher does not know quant_method {method!r} and ignores the whole config.json: it falls "
        f"back to {case.setting.attention} and a prefill default of {prefill} tokens."
    )


def _total_alone(case: Case) -> str | None:
    total = case.given.max_total_tokens
    if not case.release.warmup_limits_optional or total is None or case.given.max_input_tokens is not None:
        return None
    if total != (case.limits.max_batch_prefill_tokens or 0):
        return None
    return "max_total_tokens equals the prefill budget and max_input_tokens is open: one slot is missing. Set both."


def _kv_dtype_lost(case: Case) -> str | None:
    if "kv-cache-dtype" not in case.setting.flags or case.setting.kv_dtype.startswith("fp8") or not case.family.paged:
        return None
    return f"--kv-cache-dtype does not reach the class that serves {case.family.model_type}; the cache stays 16 bit."


def _turing_flashinfer(case: Case) -> str | None:
    gpu, version = case.setting.facts.gpu, case.version
    if (
        gpu.compute_capability != (7, 5)
        or case.setting.attention != "flashinfer"
        or not (3, 0, 2) <= version <= (3, 1, 0)
    ):
        return None
    return f"TGI {case.release} has no flashinfer kernels for compute capability 7.5; set ATTENTION: paged in tgi.env."


def _old_driver(case: Case) -> str | None:
    found, driver = overhead.context_of(case.setting), case.setting.facts.gpu.driver
    if found is None or found.eager is None or not found.old or not driver:
        return None
    return (
        f"Driver {driver} loads every kernel at once, which takes {gib(found.eager.amount.bytes)} of each GPU: set "
        f"CUDA_MODULE_LOADING: LAZY in tgi.env, or renew it to {found.eager.drivers_below} or newer."
    )


def _beyond_context(case: Case) -> str | None:
    total, context = case.limits.max_total_tokens, families.context_length(case.setting.facts.model)
    flags = case.setting.flags
    if total is None or context is None or total <= context or STRETCH in flags or "rope-factor" in flags:
        return None
    return (
        f"max_total_tokens {thousands(total)} is above the model's context of {thousands(context)} tokens: TGI does "
        "not look, reserves the KV cache for it, and answers beyond the context are noise, or the kernels fail."
    )


def _family_notes(case: Case) -> str | None:
    return case.family.notes or None


def _in_use_twice(case: Case) -> str | None:
    if case.setting.memory_fraction < 1 and case.setting.spec.hardware.in_use:
        return (
            "The memory fraction is of the whole GPU: memory other processes hold is subtracted, and the rest of the "
            "fraction is reserved again."
        )
    return None


def _fraction_unread(case: Case) -> str | None:
    system = case.setting.facts.gpu.system
    if "cuda-memory-fraction" not in case.setting.flags or system in ("cuda", "rocm"):
        return None
    instead = {"xpu": "XPU_MEMORY_FRACTION", "gaudi": "HPU_MEMORY_FRACTION"}.get(system)
    step = f"; set {instead} in tgi.env" if instead else ""
    return f"--cuda-memory-fraction is read on NVIDIA and AMD GPUs alone, so it does nothing here{step}."


_CHECKS: Mapping[Callable[[Case], str | None], str] = {
    _no_budget: "", _without_flash: "", _no_chunking: OF_MODEL, _total_alone: "max-total-tokens",
    _ignored_batch_total: "max-batch-total-tokens", _kv_dtype_lost: "kv-cache-dtype", _config_dropped: "",
    _window_saves_nothing: OF_MODEL, _no_graphs: "quantize", _adapter_without_weights: "lora-adapters",
    _turing_flashinfer: "", _in_use_twice: "", _fraction_unread: "cuda-memory-fraction", _old_driver: "",
    _beyond_context: STRETCH, _family_notes: OF_MODEL,
}  # fmt: skip
