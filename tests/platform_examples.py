"""Deployments for platforms, by what is asked of them: the tests and `scripts/platforms.py` read the same ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from front import run

from tgi_advisor.errors import Exit

Sections = dict[str, dict[str, Any]]


class Form(NamedTuple):
    """What a format is called as a file, which image it takes, and what of a spec it has no words for."""

    file: str
    """A name `validate` knows it by."""
    lost: frozenset[str]
    """Fields of a container that its reader cannot find again."""
    image: str = ""
    """An image that the platform pulls; TGI's own where it is empty."""
    gpu: str = "nvidia-l4"
    """A GPU that the platform has."""


REGISTRY = "us-docker.pkg.dev/mine/ghcr/huggingface/text-generation-inference:3.3.7"
SAGEMAKER = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:"
    "2.7.0-tgi3.3.6-gpu-py311-cu124-ubuntu22.04"
)
FORMS: dict[str, Form] = {
    "systemd": Form("tgi.service", frozenset()),
    "kserve": Form("kserve.yaml", frozenset()),
    "skypilot": Form("sky.yaml", frozenset()),
    "dstack": Form("tgi.dstack.yml", frozenset()),
    "cloudrun": Form("service.yaml", frozenset(), REGISTRY),
    "sagemaker": Form("sagemaker.json", frozenset(), SAGEMAKER),
    "endpoints": Form("endpoint.json", frozenset()),
    "azureml": Form("deployment.yml", frozenset(), gpu="nvidia-a100-80gb-pcie"),
    "vertex": Form("vertex.json", frozenset(), REGISTRY),
}
PLAIN: Sections = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}}
RICH: Sections = {
    **PLAIN,
    "tgi": {
        "flags": {"max-concurrent-requests": 64, "cuda-graphs": [1, 2]},
        "env": {"ODD": "a 'b' $z `q` \"c\" \\ ; # 100% 50%% $$ é x", "LOG_LEVEL": "info"},
    },
    "container": {"name": "chat", "token_env": "MINE", "shm_size": "512m", "port": 9000, "cache": "/srv/weights"},
}
EXAMPLES: dict[str, Sections] = {"plain": PLAIN, "rich": RICH}


def spec(name: str, example: str) -> str:
    """The deployment spec of an example, with an image the platform pulls."""
    made = {section: dict(fields) for section, fields in EXAMPLES[example].items()}
    made["hardware"] = {"gpu": FORMS[name].gpu}
    if FORMS[name].image:
        made["tgi"] = {**made.get("tgi", {}), "image": FORMS[name].image}
    return yaml.safe_dump(made)


def emitted(name: str) -> dict[str, str]:
    """What `emit` writes of every example for a platform."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for example in EXAMPLES:
            file = Path(folder) / "spec.yaml"
            file.write_text(spec(name, example))
            ran = run("emit", str(file), "--format", name, "--source", "snapshot")
            assert ran.code == Exit.STARTS, ran.err
            made[example] = ran.out
    return made
