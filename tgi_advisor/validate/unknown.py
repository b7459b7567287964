"""What stands for what a file leaves open: every release, every generation of GPUs, every kind of model.

What TGI refuses in each of these cases it refuses whatever was meant, and only then it is said. Of what
it prints, the figures that differ between the cases are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from tgi_advisor.facts import flags
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.refusals import Refusal
from tgi_advisor.spec.records import GpuSpec
from tgi_advisor.units import GiB
from tgi_advisor.validate.catalogue import no_such_size
from tgi_advisor.validate.effective import Effective
from tgi_advisor.validate.rules.rule import OPEN

GENERATIONS = {
    "cuda": ("nvidia-t4", "nvidia-l4", "nvidia-a100-80gb", "nvidia-h100-80gb"),
    "rocm": ("amd-mi250", "amd-mi300x"),
}
"""One GPU of every generation TGI's flash attention serves: what holds on all of them holds on one nobody named."""
EPOCHS = (
    "3.3.7", "1.0.0", "2.0.4", "2.4.0", "1.4.5", "3.0.0", "2.4.1", "2.3.1", "2.2.0", "2.1.0", "1.1.1", "2.0.0", "2.3.0",
    "3.0.1", "3.0.2", "3.1.0", "3.1.1", "3.2.0", "3.2.2", "3.3.0", "1.2.0", "1.3.0", "1.3.4", "1.4.0",
)  # fmt: skip
"""Releases that stand for all of them: what TGI refuses changed between these. The most different come first."""


def any_release(view: Effective) -> tuple[TgiRelease, ...]:
    """The releases a server may run: those whose parser takes its flags, or all where none does."""
    every = releases.all_releases()
    able = [one for one in every if _parses(one, view)] or every
    return tuple(one for one in map(releases.find, EPOCHS) if one in able) or tuple(able)


def _parses(release: TgiRelease, view: Effective) -> bool:
    """Whether a release has the arguments, and reads every value that is known."""
    known = flags.flags_of(release)
    for name, given in view.flags.items():
        if name not in known:
            if given.by == "argument":
                return False
        elif given.typed is not None:
            try:
                flags.parse_value(known[name], given.value.text, env=given.by != "argument")
            except ValueError:
                if given.value is not given.name:  # a switch has no value
                    return False
    return True


@cache
def any_gpu(system: str | None) -> tuple[GpuFacts, ...]:
    """GPUs that stand for every GPU of a system; for every one of NVIDIA and AMD where it is not known."""
    if system is None or system in GENERATIONS:
        named = GENERATIONS["cuda"] + GENERATIONS["rocm"] if system is None else GENERATIONS[system]
        return tuple(gpus.find(name) for name in named)
    stated = GpuSpec(name=f"any {system}", memory=64 * GiB, system=system)
    return (gpus.stated(stated),)


@cache
def any_model(name: str, shards: int) -> tuple[ModelFacts, ...]:
    """Models that stand for every model, of sizes that split over these shards.

    They differ in what the refusals look at: the context, the size, the size of a head, the quantization, the
    kind, and whether the launcher can read the configuration. A name that is not on the Hub has one it cannot.
    """
    llama = {
        "model_type": "llama", "hidden_size": 4096 * shards, "num_hidden_layers": 32,
        "num_attention_heads": 32 * shards, "num_key_value_heads": 8 * shards, "intermediate_size": 14336 * shards,
        "vocab_size": 128256,
    }  # fmt: skip
    unreadable = {**llama, "max_seq_len": "not a number"}
    if no_such_size(name):
        return (_model(name, unreadable),)
    found = [{**llama, "max_position_embeddings": context} for context in (512, 2048, 4096, 32768, 1 << 20)]
    plain = found[3]
    found += [
        unreadable,
        {**plain, "num_hidden_layers": 1, "vocab_size": 1000},
        {**plain, "num_hidden_layers": 2000},
        {**plain, "head_dim": 96},
        {**plain, "sliding_window": 4096},
        *({**plain, "quantization_config": {"quant_method": method}} for method in _METHODS),
    ]
    inner = {**plain, "num_heads": 32 * shards, "d_model": 4096 * shards, "d_ff": 14336 * shards, "d_kv": 128}
    found += [{**inner, "model_type": kind, "is_encoder_decoder": kind == "t5"} for kind in _KINDS]
    found += [{**inner, "model_type": kind, "vision_config": {}, "text_config": inner} for kind in _SEEING]
    return tuple(_model(name, config) for config in found)


_FEW = 6
_METHODS = ("awq", "gptq", "fp8", "compressed-tensors", "exl2", "marlin", "bitsandbytes", "fbgemm_fp8", "none we know")


_KINDS = (
    "t5", "mamba", "ssm", "bloom", "opt", "gpt2", "gpt_neox", "codegen", "falcon", "glm", "qwen2", "mistral", "gemma2",
    "granite", "olmo2", "phimoe", "starcoder2", "deepseek_v2",
)  # fmt: skip
_SEEING = ("idefics", "idefics2", "idefics3", "llava_next", "mllama", "qwen2_vl", "gemma3")
"""One model type of every kind that `facts/families.py` tells apart in some release; those that see pictures apart."""


def _model(name: str, config: dict[str, object]) -> ModelFacts:
    return ModelFacts(name, None, "", config, {}, ())


def any_of(models: Sequence[ModelFacts], cards: Sequence[GpuFacts]) -> Iterator[tuple[ModelFacts, GpuFacts]]:
    """Every model on two cards, the first few on all: what TGI makes of a model hardly depends on more of them."""
    for number, model in enumerate(models):
        for gpu in cards if number < _FEW else cards[:2]:
            yield model, gpu


def shared(first: Refusal, second: Refusal) -> Refusal:
    """A refusal of two cases, told as what both have in common."""
    if first == second or first.code != second.code:
        return first
    steps = tuple(step for step in first.next_steps if step in second.next_steps)
    if not steps:
        steps = tuple(map(_common, first.next_steps, second.next_steps))
    return first._replace(message=_common(first.message, second.message), next_steps=steps)


def _common(first: str, second: str) -> str:
    """A text with `OPEN` for the words in which two differ; from the first on where they do not run side by side."""
    if first == second:
        return first
    one, other = (re.findall(r"\w+|\.{3}|\W", text) for text in (first, second))
    if len(one) == len(other):
        return "".join(word if word == its else OPEN for word, its in zip(one, other, strict=True))
    same = next((at for at, (word, its) in enumerate(zip(one, other, strict=False)) if word != its), len(one))
    return f"{''.join(one[:same])}{OPEN}"
