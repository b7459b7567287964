"""Which server an image is, and what is said of it."""

from __future__ import annotations

import pytest

from tgi_advisor.gather import snapshot
from tgi_advisor.validate.judge import judge
from tgi_advisor.validate.read import read

ARGUMENTS = "--model-id gpt2 --max-total-tokens 2048 --num-shard 1"


def told(text: str, file: str) -> list[tuple[str, str]]:
    """Severity and code of every finding, the shipped models being the only facts."""
    found = judge(read(text, file), lambda model, _: snapshot.find(model))
    return [(one.severity, one.code) for one in found]


def codes(text: str, file: str) -> set[str]:
    return {code for _, code in told(text, file)}


def run_line(image: str, arguments: str = ARGUMENTS) -> str:
    return f"docker run --gpus all --shm-size 1g -p 8080:80 {image} {arguments}\n"


@pytest.mark.parametrize(
    "image",
    [
        "quay.io/opendatahub/text-generation-inference:stable",
        "quay.io/modh/text-generation-inference@sha256:" + "8" * 64,
        "quay.io/modh/text-generation-inference:rhoai-2.9-e09b479",
        "ghcr.io/IBM/text-generation-inference:main",
        "registry.example/preemo/text-generation-inference:0.9",
        "ghcr.io/mithril-security/text-generation-inference:dev",
    ],
)
def test_a_fork_is_named_once_and_not_judged(image: str) -> None:
    line = run_line(image, "--model-name=/mnt/models --grpc-port 8033 --max-batch-weight 9 --quantize nothing")
    assert told(line, "run.sh") == [("info", "TGI504")]
    compose = f"services:\n  llm:\n    image: {image}\n    command: [text-generation-launcher, --model-name, m]\n"
    assert told(compose, "compose.yaml") == [("info", "TGI504")]


@pytest.mark.parametrize(
    "image",
    ["ghcr.io/predibase/lorax:main", "622.dkr.ecr.us-east-1.amazonaws.com/sm-lorax:latest",
     "quay.io/wxpe/text-gen-server:main.9b4aea8"],
)  # fmt: skip
def test_a_fork_of_another_name_is_no_server_of_tgi(image: str) -> None:
    assert read(run_line(image), "run.sh").servers == ()


@pytest.mark.parametrize(
    "image",
    ["vllm/vllm-openai:v0.6.3", "lmsysorg/sglang:latest", "ghcr.io/huggingface/text-embeddings-inference:1.5"],
)
def test_another_server_with_our_arguments_is_a_mistake(image: str) -> None:
    assert told(run_line(image), "run.sh") == [("error", "TGI506")]


@pytest.mark.parametrize("image", ["quay.io/example/text-generation-inference:stable", "acme/my-tgi-inference:7"])
def test_of_an_image_that_may_be_a_fork_neither_flags_nor_folders_are_judged(image: str) -> None:
    line = run_line(image, "--model-id gpt2 --grpc-port 8033 --quantize own loose")
    assert not {"TGI101", "TGI102", "TGI103", "TGI308", "TGI320", "TGI322"} & codes(line, "run.sh")
    compose = f"services:\n  llm:\n    image: {image}\n    command: [text-generation-launcher, --model-name, m]\n"
    assert not {"TGI101", "TGI102", "TGI320"} & codes(compose, "compose.yaml")
    assert "TGI103" in codes(run_line(image, "--model-id gpt2 --max-total-tokens many"), "run.sh")
