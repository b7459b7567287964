"""Documents with a structure of their own: Dockerfiles, charts, KServe, and what stands beside an image."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from front import run
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
TERRAFORM = f"""\
variable "model" {{ default = "gpt2" }}
variable "empty" {{ default = "" }}
locals {{
  image = "{IMAGE}:3.3.7"
}}
resource "kubernetes_deployment" "llm" {{
  spec {{
    container {{
      image = local.image
      args  = ["--model-id", "$(MODEL)", "--revision", var.empty]
      env {{
        name  = "MODEL"
        value = var.model
      }}
      env {{
        name  = "NUM_SHARD"
        value = "2"
      }}
      resources {{
        limits = {{
          "nvidia.com/gpu" = "1"
        }}
      }}
      volume_mount {{
        name       = "data"
        mount_path = "/data"
      }}
    }}
  }}
}}
"""
NOMAD = f"""\
job "llm" {{
  task "tgi" {{
    config {{
      image = "{IMAGE}:3.3.7"
      args  = ["--model-id", "gpt2", "--max-input-tokens", "512", "--max-total-tokens", "512"]
    }}
    env {{
      LOG_LEVEL = "info"
    }}
  }}
}}
"""
PATCH = f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: tgi}}
spec:
  template:
    spec:
      containers:
        - name: tgi
          image: {IMAGE}:3.3.7
          env: [{{name: LOG_LEVEL, value: info}}]
"""


@pytest.mark.parametrize(
    ("text", "file", "errors"),
    [
        (SAME, "Dockerfile", [(4, "TGI110")]),
        (SAME, "Containerfile.gpu", [(4, "TGI110")]),
        (f'FROM {IMAGE}:2.4.0\nCMD ["--model-id", "$MODEL"]\n', "tgi.Dockerfile", [(2, "TGI131")]),
        (f'FROM {IMAGE}:2.4.0\nCMD ["--bad"]\nENTRYPOINT ["tgi-entrypoint.sh"]\n', "Dockerfile", [(2, "TGI101")]),
        (f'FROM {IMAGE}:2.4.0 AS a\nCMD ["--bad"]\nFROM a\nENTRYPOINT ["tgi-entrypoint.sh"]\n', "Dockerfile", []),
        (STAGES % 'ENTRYPOINT ["/start.sh"]', "Dockerfile", []),
        (STAGES % "ENTRYPOINT text-generation-launcher --model-id $MODEL_ID --port 80", "Dockerfile", []),
        (STAGES % "ENTRYPOINT []\nCMD text-generation-launcher --bad", "Dockerfile", [(10, "TGI101")]),
        (f"```dockerfile\n{SAME}```\n", "page.md", [(5, "TGI110")]),
        (RUNTIME, "runtime.yaml", []),
        (RUNTIME + SERVICE, "runtime.yaml", [(17, "TGI143")]),
        (ENDPOINT, "endpoint.yaml", [(3, "TGI110")]),
        (PATCH, "patch.yaml", []),
        (TERRAFORM, "main.tf", [(17, "TGI143")]),
        (TERRAFORM.replace('"1"', '"2"'), "main.tf", []),
        (NOMAD, "job.hcl", [(5, "TGI110")]),
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
        (PATCH, "patch.yaml", []),
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
    assert [one.text for one in server.env_sources] == ["what the chart's templates make of its values"]


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


LLM = f"""\
services:
  llm:
    image: {IMAGE}:3.3.7
    runtime: nvidia
    volumes: [./data:/data]
    environment: {{MODEL_ID: gpt2, MAX_INPUT_TOKENS: "300", MAX_TOTAL_TOKENS: "512"}}
"""
OVERRIDE = "services:\n  llm:\n    environment: [MAX_INPUT_TOKENS=512]\n    ports: ['8080:80']\n"


def places(folder: Path, *names: str) -> list[tuple[str, int, str]]:
    """File, line and code of every error and warning in these files of a folder."""
    ran = run("validate", "--format", "json", *(str(folder / name) for name in names))
    found = json.loads(ran.out)
    told = [one for one in found["findings"] if one["severity"] != "info"]
    return [(os.path.relpath(one["file"], folder), one["line"], one["code"]) for one in told]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "llm.yaml").write_text(LLM)
    (tmp_path / "compose.yaml").write_text(
        "services:\n  llm:\n    extends: {file: base/llm.yaml, service: llm}\n    volumes: [./cache:/data]\n"
    )
    (tmp_path / "compose.override.yaml").write_text(OVERRIDE)
    (tmp_path / "other.yaml").write_text("include: [{path: [base/llm.yaml, gone.yaml]}, other.yaml]\n")
    return tmp_path


@pytest.mark.parametrize("names", [["compose.yaml"], ["compose.override.yaml"], ["."]])
def test_compose_files_are_merged_as_compose_does(project: Path, names: list[str]) -> None:
    assert places(project, *names) == [("compose.override.yaml", 3, "TGI110")]


def test_a_server_of_several_files_counts_once(project: Path) -> None:
    assert "2 TGI servers" in run("validate", str(project)).out  # the merged one, and the one it extends
    assert "1 TGI server " in run("validate", str(project / "other.yaml")).out


def test_services_that_extend_each_other_or_what_is_not_there(tmp_path: Path) -> None:
    image = f"image: '{IMAGE}:3.3.7'"
    (tmp_path / "compose.yaml").write_text(
        f"services:\n  a: {{extends: b, {image}}}\n"
        f"  b: {{extends: {{file: ../{tmp_path.name}/compose.yaml, service: a}}}}\n"
        f"  c: {{extends: {{file: ../../../../../x.yaml, service: a}}, {image}}}\n"
    )
    assert not [one for one in places(tmp_path, "compose.yaml") if one[1] == 4 and one[2] in ("TGI130", "TGI301")]


def test_folders_are_searched_for_dockerfiles_of_any_name(tmp_path: Path) -> None:
    for name in ("Containerfile", "Dockerfile.gpu", "tgi.Dockerfile"):
        (tmp_path / name).write_text(SAME)
    assert {one[0] for one in places(tmp_path, ".")} == {"Containerfile", "Dockerfile.gpu", "tgi.Dockerfile"}


def test_terraforms_blocks_are_the_containers() -> None:
    [server] = read(TERRAFORM, "main.tf").servers
    assert [word.text for word in server.args[:2]] == ["--model-id", "gpt2"]
    assert {name: value.text for name, value in server.env.items()} == {"MODEL": "gpt2", "NUM_SHARD": "2"}
    assert not server.args[3].known
    assert [mount.target.text for mount in server.mounts] == ["/data"]


def test_what_the_base_says_is_said_once_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  llm:\n    image: ghcr.io/huggingface/text-generation-inference:3.0.1\n"
        "    command: --model-id gpt2\n"
    )
    (tmp_path / "compose.override.yaml").write_text("services:\n  llm:\n    gpus: all\n")
    assert places(tmp_path, ".") == [("compose.yaml", 2, "TGI320")]
