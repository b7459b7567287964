"""What the shards refuse of speculation heads: a release that does not know them, too few, a class that takes none."""

from __future__ import annotations

from tgi_advisor.estimate import heads as made
from tgi_advisor.estimate.weights import on_own_layers
from tgi_advisor.facts import heads
from tgi_advisor.facts.heads import MLP_CLASS
from tgi_advisor.facts.model import Heads
from tgi_advisor.refusals.rules import Case, Found, Rule, rule
from tgi_advisor.refusals.warmup import WARMUP

HEADS: list[Rule] = []
"""In the order a shard meets them, behind those of the model's own weights."""
WITHOUT = "name the base model instead: the flag `speculate` then looks for the next tokens in the prompt"
"""What serves the model without its heads."""


def _loaded(case: Case) -> tuple[Heads, made.Made] | None:
    """The heads that the launch makes; None where it makes none."""
    found, made_of = case.setting.facts.model.heads, made.of(case.setting)
    return None if found is None or made_of is None else (found, made_of)


@rule(HEADS, "load", "S/models/causal_lm.py@v3.3.7:594", since=made.EVERYWHERE)
def heads_of_automodel(case: Case) -> Found:
    """transformers' classes take no heads."""
    found = case.setting.facts.model.heads
    if found is None or not heads.taken(found, case.version) or on_own_layers(case.setting) or case.system == "gaudi":
        return None
    name = "Medusa" if case.version < (2, 0, 3) else "Speculator"
    return f"RuntimeError: {name} decoding is not enabled for AutoModel", (WITHOUT,)


@rule(HEADS, "load", "S/layers/mlp.py@v3.3.7:190", since=heads.TIED_SINCE)
def mlp_speculator_untied(case: Case) -> Found:
    """From 2.3.0 on TGI scales the embeddings of an MLP speculator as if there were one for all heads, so that only
    those with tie_weights load.
    """
    loaded = _loaded(case)
    if loaded is None or loaded[1].kind != "mlp" or not _is_read(case, loaded[0]):
        return None
    text = "AttributeError: 'ModuleList' object has no attribute 'weight'"
    return text, ("use TGI 2.2.0", f"or {WITHOUT}")


@rule(HEADS, "load", "S/layers/mlp.py@v2.2.0:87", since=heads.SINCE["mlp_speculator"], until=(2, 2, 0))
def mlp_speculator_of_none(case: Case) -> Found:
    """An MLP speculator that is to guess nothing divides by the number of its heads."""
    loaded = _loaded(case)
    if loaded is None or loaded[1].kind != "mlp" or loaded[1].number or not _is_read(case, loaded[0]):
        return None
    return "ZeroDivisionError: float division by zero", ("leave the flag `speculate` out", f"or {WITHOUT}")


@rule(HEADS, "load", "S/layers/medusa.py@v3.3.7:134", since=heads.JOINED_SINCE)
def medusa_of_many_blocks(case: Case) -> Found:
    """Medusa heads without output matrices of their own may have one block each."""
    loaded = _loaded(case)
    if loaded is None or loaded[1].kind != "medusa_joined" or loaded[1].blocks == 1 or not _is_read(case, loaded[0]):
        return None
    return 'AssertionError: assert medusa_config["medusa_num_layers"] == 1', (WITHOUT,)


@rule(HEADS, "load", "S/layers/gptq/__init__.py@v3.3.7:271", since=heads.JOINED_SINCE)
def medusa_packed(case: Case) -> Found:
    """Medusa heads without output matrices of their own are read as the model's projections are: as packed."""
    loaded, quantize = _loaded(case), case.setting.quantize
    if loaded is None or loaded[1].kind != "medusa_joined" or quantize not in ("gptq", "awq", "exl2", "marlin"):
        return None
    if not _is_read(case, loaded[0]):
        return None
    text = f"RuntimeError: Cannot load `{quantize}` weight, make sure the model is already quantized"
    return text, ("use a base model in 16 bit", f"or {WITHOUT}")


@rule(HEADS, "load", "S/utils/weights.py@v3.3.7:192")
def heads_missing(case: Case) -> Found:
    """The file does not hold the tensors of as many heads as there should be, or those of this release's class."""
    loaded = _loaded(case)
    if loaded is None or not _is_read(case, loaded[0]):
        return None
    found, made_of = loaded
    if made_of.kind == "mlp_tied":
        lacking = None if heads.named(found, "speculator.emb.*.weight") else "speculator.emb.0.weight"
    elif made_of.kind == "mlp":
        lacking = _lacking(found, "speculator.emb.*.weight", made_of.number, 1)
    else:
        lacking = _lacking(found, "*.*.linear.weight", made_of.number, made_of.blocks)
        if lacking is None and made_of.kind == "medusa":
            lacking = _lacking(found, "*.*.weight", made_of.number, 1, f".{made_of.blocks}.weight")
    if lacking is None:
        return None
    return f"RuntimeError: weight {lacking} does not exist", (
        "use a release whose class reads these heads (Medusa heads without output matrices: 2.0.0; tie_weights: 2.3.0)",
        f"or {WITHOUT}",
    )


def _lacking(found: Heads, name: str, number: int, each: int, end: str = "") -> str | None:
    """The first tensor of this name that `number` heads with `each` of it lack; `end` stands behind a head's number."""
    there = sum(group.count for group in heads.named(found, name))
    if there >= number * each:
        return None
    first = there // max(1, each)
    if name.startswith("*"):
        return f"{first}{end or '.0.linear.weight'}"
    return name.replace("*", str(first))


def _is_read(case: Case, found: Heads) -> bool:
    """Whether TGI makes a class for the heads at all: not where `architectures` names another (`heads_of_no_class`)."""
    named = found.config.get("architectures")
    if heads.method(found.config) == "medusa":
        return named is None or case.version < heads.SINCE["mlp_speculator"]
    return isinstance(named, list) and named[:1] == [MLP_CLASS]


@rule(WARMUP, "warmup", "S/layers/speculative.py@v3.3.7:51", since=heads.SINCE["mlp_speculator"])
def heads_of_no_class(case: Case) -> Found:
    """Heads whose config.json names `architectures` count as an MLP speculator's, and where another class is
    named there TGI makes none; the output matrix of the model is then missing too.
    """
    loaded = _loaded(case)
    named = loaded[0].config.get("architectures") if loaded else None
    if loaded is None or not isinstance(named, list) or not named or named[0] == MLP_CLASS:
        return None
    medusa = heads.method(loaded[0].config) == "medusa"
    step = "take architectures out of the config.json of the heads" if medusa else WITHOUT
    return "AssertionError: assert self.head is not None", (step,)
