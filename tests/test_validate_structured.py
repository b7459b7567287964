"""Documents with a structure of their own: Dockerfiles, charts, KServe, and what stands beside an image."""

from __future__ import annotations

import pytest
from test_rules_cases import IMAGE, said

from tgi_advisor.facts import gpu
from tgi_advisor.validate.read import read

SAME = f"""\
FROM {IMAGE}:2.4.0
ENV MODEL_ID=gpt2 \\
    # the limits
    MAX_INPUT_TOKENS=512
ENV MAX_TOTAL_TOKENS 512
"""
STAGES = f"""\
ARG TAG=2.4.0
FROM python:3.11 AS tools
RUN cat <<'EOF' > /start.sh
text-generation-launcher --model-id gpt2 --no-such-flag
EOF
FROM {IMAGE}:${{TAG}} AS base
ENV MODEL_ID=gpt2
FROM base
%s
"""
RUNTIME = f"""\
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {{name: tgi}}
spec:
  containers:
    - name: kserve-container
      image: {IMAGE}:3.3.7
      args: [--model-id=/mnt/models]
"""
SERVICE = """\
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: chat}
spec:
  predictor:
    model:
      runtime: tgi
      args: [--num-shard=4]
      resources: {limits: {nvidia.com/gpu: 2}}
"""
VALUES = f"""\
server:
  image:
    repository: {IMAGE}
    tag: "3.0.0"
  extraCmdArgs: [--num-shard, "2"]
  LLM_MODEL_ID: gpt2
  resources: {{limits: {{nvidia.com/gpu: 2}}}}
"""
ENDPOINT = f"""\
endpoint:
  custom_image:
    env: {{MODEL_ID: /repository, MAX_INPUT_LENGTH: "512", MAX_TOTAL_TOKENS: "512"}}
    url: {IMAGE}:1.3.4
"""
HOST = f"""\
services:
  tgi:
    image: {IMAGE}:3.3.7
    runtime: nvidia
    volumes: [./data:/data]
    environment: {{MODEL_ID: "$CHOSEN"}}
    command: --model-id $MODEL_ID
"""
BACKEND = f"""\
kind: BackendRuntime
apiVersion: inference.example/v1
spec:
  image: {IMAGE}
  version: 2.3.1
  args: [--model-id, gpt2]
"""


@pytest.mark.parametrize(
    ("text", "file", "errors"),
    [
        (SAME, "Dockerfile", [(4, "TGI110")]),
        (SAME, "Containerfile.gpu", [(4, "TGI110")]),
        (f'FROM {IMAGE}:2.4.0\nCMD ["--model-id", "$MODEL"]\n', "tgi.Dockerfile", [(2, "TGI131")]),
        (STAGES % 'ENTRYPOINT ["/start.sh"]', "Dockerfile", []),
        (STAGES % "ENTRYPOINT text-generation-launcher --model-id $MODEL_ID --port 80", "Dockerfile", []),
        (STAGES % "ENTRYPOINT []\nCMD text-generation-launcher --bad", "Dockerfile", [(10, "TGI101")]),
        (f"```dockerfile\n{SAME}```\n", "page.md", [(5, "TGI110")]),
        (RUNTIME, "runtime.yaml", []),
        (RUNTIME + SERVICE, "runtime.yaml", [(17, "TGI143")]),
        (ENDPOINT, "endpoint.yaml", [(3, "TGI110")]),
    ],
)
def test_errors(text: str, file: str, errors: list[tuple[int, str]]) -> None:
    assert said(text, file) == errors


@pytest.mark.parametrize(
    ("text", "file", "warnings"),
    [
        (SAME, "Dockerfile", []),
        (f"FROM {IMAGE}:2.4.0\nENV HF_HOME=/models\n", "Dockerfile", []),
        (RUNTIME, "runtime.yaml", []),
        (VALUES, "values.yaml", []),
        (HOST, "compose.yaml", [(7, "TGI176")]),
        (HOST.replace("$CHOSEN", "$MODEL_ID"), "compose.yaml", []),
        (BACKEND, "backend.yaml", []),
        (BACKEND.replace("  version: 2.3.1\n", ""), "backend.yaml", [(4, "TGI501")]),
    ],
)
def test_warnings(text: str, file: str, warnings: list[tuple[int, str]]) -> None:
    assert said(text, file, "warning") == warnings


def test_the_last_stage_is_the_image() -> None:
    built = f"FROM {IMAGE}:2.4.0 AS tgi\nFROM python:3.11\nCOPY --from=tgi /usr/bin/text-generation-launcher /bin/\n"
    assert read(built, "Dockerfile").servers == ()
    [server] = read(STAGES % "", "Dockerfile").servers
    assert server.image is not None
    assert (server.image.text, server.env["MODEL_ID"].place.line) == (f"{IMAGE}:2.4.0", 7)


def test_what_a_chart_makes_of_its_own_names_is_said_not_to_be_read() -> None:
    [server] = read(VALUES, "values.yaml").servers
    assert [word.text for word in server.args] == ["--num-shard", "2"]
    assert [one.text for one in server.env_sources] == ["what the chart's templates make of LLM_MODEL_ID"]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("nvidia-tesla-a100", "nvidia-a100-40gb-sxm"),
        ("NVIDIA_TESLA_V100", "nvidia-v100-16gb"),
        ("nvidia-h100-mega-80gb", "nvidia-h100-sxm"),
        ("NVIDIA_H200_141GB", "nvidia-h200"),
        ("nvidia-a100-80gb", "nvidia-a100-80gb-sxm"),
        ("nvidia-tesla-t4", "nvidia-t4"),
        ("nvidia-l4", "nvidia-l4"),
    ],
)
def test_google_clouds_names_of_gpus(label: str, name: str) -> None:
    assert gpu.find(label).name == name
