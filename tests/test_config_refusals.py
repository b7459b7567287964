"""What a release makes of the forms in which config.json scales the rotary embedding."""

from __future__ import annotations

from typing import Any

import pytest
from front import run
from launch import model, settle

from tgi_advisor import refusals
from tgi_advisor.estimate import defaults
from tgi_advisor.limits import Limits

LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
LONG = {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}
SU = {**LONG, "type": "su"}


def refusal(release: str, config: dict[str, Any], **launch: Any) -> str | None:
    setting = settle(model(**config), release, "nvidia-a100-80gb", **launch)
    found = refusals.shard_refusals(setting, defaults.launcher_limits(setting, Limits()))
    return found[0].message if found else None


@pytest.mark.parametrize(
    ("release", "scaling", "kind", "message"),
    [
        ("1.0.0", LLAMA3, "llama", None),  # reads no rope_scaling at all
        ("1.0.1", LLAMA3, "llama", "KeyError: 'type'"),
        ("2.0.1", LLAMA3, "llama", "KeyError: 'type'"),
        ("2.0.2", LLAMA3, "llama", "ValueError: `rope_scaling` must be a dictionary with two fields"),
        ("2.1.1", LLAMA3, "llama", "ValueError: `rope_scaling` must be a dictionary with two fields"),
        ("2.1.1", LLAMA3, "mistral", "KeyError: 'type'"),
        ("2.2.0", LLAMA3, "llama", None),
        ("3.3.7", LLAMA3, "llama", None),
        ("2.0.4", {"type": "linear", "factor": 4.0}, "llama", None),
        (
            "2.0.4",
            {"type": "linear", "factor": 4},
            "llama",
            "ValueError: `rope_scaling`'s factor field must be a float",
        ),
        ("2.0.1", {"type": "linear", "factor": 4}, "llama", None),
        ("1.1.0", {"type": "yarn", "factor": 4.0}, "llama", "NotImplementedError: rope scaling type yarn"),
        ("1.1.1", {"type": "yarn", "factor": 4.0}, "llama", None),
        ("2.1.0", {"type": "yarn", "factor": 4.0}, "qwen2", None),
        ("2.0.4", SU, "phi3", None),
        ("2.1.1", LONG, "phi3", "ValueError: `rope_scaling`'s type field must be one of ['su', 'yarn'], got longrope"),
        ("2.2.0", LONG, "phi3", None),
        ("3.3.7", {"type": "ntk", "factor": 4.0}, "llama", "NotImplementedError: rope scaling type ntk"),
        ("3.3.7", {"rope_type": "ntk", "factor": 4.0}, "llama", "KeyError: 'type'"),
        ("3.3.7", {"rope_type": "ntk", "factor": 4.0}, "olmo", None),  # on transformers' code
        ("2.4.0", {"rope_type": "default"}, "llama", "KeyError: 'type'"),
        ("2.4.1", {"rope_type": "default"}, "llama", None),
    ],
)
def test_rope_scaling(release: str, scaling: dict[str, Any], kind: str, message: str | None) -> None:
    said = refusal(release, {"model_type": kind, "rope_scaling": scaling})
    assert said == message if message is None or said is None else said.startswith(message)


def test_a_flag_takes_the_place_of_the_configuration() -> None:
    config = {"model_type": "mistral", "rope_scaling": LLAMA3}
    assert refusal("2.1.1", config, flags={"rope-scaling": "dynamic", "rope-factor": 2.0}) is None
    assert refusal("2.1.1", {**config, "model_type": "llama"}, flags={"rope-factor": 2.0}) is not None


@pytest.mark.parametrize(
    ("release", "trusted", "refused"), [("2.0.2", False, True), ("2.0.2", True, False), ("2.0.3", False, False)]
)
def test_phi3_before_transformers_knew_it(release: str, trusted: bool, refused: bool) -> None:
    said = refusal(release, {"model_type": "phi3"}, trust_remote_code=trusted)
    assert (said is not None) is refused


@pytest.mark.parametrize("command", ["advise", "predict", "emit"])
def test_llama_3_1_is_not_recommended_to_a_release_that_cannot_read_it(command: str) -> None:
    ran = run(command, "-m", "meta-llama/Llama-3.1-8B-Instruct", "-g", "nvidia-l4", "-r", "2.1.1")
    assert ran.code == 6
    assert "use TGI 2.2.0 or newer" in ran.out + ran.err
