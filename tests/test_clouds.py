"""Images of clouds: what `emit` writes for them, what `import` keeps, what `validate` says of their time limits."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from front import run
from golden import Golden
from judged import errors, findings

from tgi_advisor.errors import Exit
from tgi_advisor.facts import clouds
from tgi_advisor.facts.release import from_image

AWS = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:"
NEW = f"{AWS}2.7.0-tgi3.3.6-gpu-py311-cu124-ubuntu22.04-v2.1"
OLD = f"{AWS}2.1.1-tgi2.0.2-gpu-py310-cu121-ubuntu22.04"
GOOGLE = "us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-"
FILES = {"docker-run": "run.sh", "compose": "compose.yaml", "kubernetes": "pod.yaml", "env": "tgi.env"}
SPECS: dict[str, dict[str, dict[str, Any]]] = {
    "sagemaker": {"tgi": {"image": NEW}},
    "sagemaker with a cache in tmp": {"tgi": {"image": OLD}, "hardware": {"count": 2}},
    "all that is copied": {
        "model": {"quantize": "fp8", "trust_remote_code": True},
        "tgi": {
            "image": NEW,
            "flags": {"max-concurrent-requests": 64, "cuda-graphs": [1, 2], "tokenizer-config-path": "/a b/*"},
            "env": {"A": "x y'$z`\"\\", "MAX_BATCH_SIZE": "4", "LOG_LEVEL": "info"},
        },
        "container": {"token_env": "MINE", "port": 9000, "cache": "weights", "mounts": ["/srv/a b:/adapters:ro"]},
    },
    "google": {"tgi": {"image": f"{GOOGLE}cu124.2-4.ubuntu2204.py311", "env": {"AIP_HTTP_PORT": "18080"}}},
    "google that drops its arguments": {"tgi": {"image": f"{GOOGLE}gpu.2.0.0"}},
}


def spec(*changes: dict[str, dict[str, Any]]) -> str:
    made: dict[str, dict[str, Any]] = {
        "model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}, "tgi": {},
    }  # fmt: skip
    for change in changes:
        for name, fields in change.items():
            made[name] = {**made.get(name, {}), **fields}
    if made["tgi"].get("image") in (OLD, f"{GOOGLE}gpu.2.0.0"):  # which know neither this family nor this input limit
        made["model"]["id"] = "HuggingFaceH4/zephyr-7b-beta"
    return yaml.safe_dump(made)


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("name", SPECS)
def test_what_is_emitted_is_imported_as_it_was_and_has_no_findings(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first.yaml").write_text(spec(SPECS[name]))
    emitted = run("emit", "first.yaml", "--format", form, "--source", "snapshot")
    assert emitted.code == Exit.STARTS, emitted.err
    golden(f"clouds/{name.replace(' ', '-')}-{FILES[form]}", emitted.out)
    Path(FILES[form]).write_text(emitted.out)
    count = str(SPECS[name].get("hardware", {}).get("count", 1))
    checked = run("validate", FILES[form], "--gpu", "nvidia-l4", "--count", count, "--offline", "--select", "TGI1,TGI3")
    assert (checked.code, "error" in checked.out, "warning" in checked.out) == (Exit.STARTS, False, False), checked.out
    back = run("import", FILES[form], "--gpu", "nvidia-l4")
    assert back.code == Exit.STARTS, back.err
    Path("second.yaml").write_text(back.out)
    again = run("emit", "second.yaml", "--as-given", "--format", form, "--source", "snapshot")
    assert again.out == emitted.out
    assert yaml.safe_load(back.out)["tgi"]["image"] == SPECS[name]["tgi"]["image"]
    assert "# -" not in back.out


def test_a_hostile_value_reaches_sagemakers_entry_point_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = "a 'b' $HOME `id` \"c\" \\ $(id) ; #"
    Path("spec.yaml").write_text(spec({"tgi": {"image": NEW, "env": {"ODD": value}}}))
    command = run("emit", "spec.yaml", "--format", "docker-run", "--offline").out
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    docker.chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PWD": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = ran.stdout.split("\0")[:-1]
    assert words[-1] == NEW  # nothing behind the image
    assert f"ODD={value}" in words
    assert "HF_MODEL_ID=Qwen/Qwen2.5-7B-Instruct" in words


@pytest.mark.parametrize(
    ("change", "form", "said"),
    [
        ({"image": NEW}, "args", "This image reads no arguments"),
        ({"image": NEW, "env": {"HF_MODEL_ID": "org/other"}}, "env", "HF_MODEL_ID says what model.id says"),
        ({"image": NEW, "env": {"SM_NUM_GPUS": "2"}}, "env", "SM_NUM_GPUS says what tgi.num_shard says"),
        ({"image": NEW, "flags": {"env": True}}, "env", "--env cannot be passed: sagemaker's image reads variables"),
        ({"image": f"{AWS}2.7.0-gpu-py311"}, "env", "tells no TGI release"),
        ({"image": f"{AWS}2.1.1-optimum0.0.24-neuronx-py310"}, "env", "runs a back end for neuron with its own router"),
        ({"image": f"{GOOGLE}tpu.0.2.3.py310"}, "env", "runs a back end for tpu with its own router"),
        ({"image": "ghcr.io/huggingface/tgi-gaudi:2.0.4"}, "env", "runs tgi-gaudi's own model server"),
        ({"image": NEW, "release": "3.3.4"}, "env", "tgi.release 3.3.4 is not the release of tgi.image"),
        ({"image": f"{GOOGLE}gpu.2.3.1", "release": "3.3.4"}, "env", "but the spec says release 3.3.4"),
    ],
)  # fmt: skip
def test_what_cannot_be_written(change: dict[str, Any], form: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(spec({"tgi": change}))
    ran = run("emit", str(tmp_path / "spec.yaml"), "--format", form, "--offline")
    assert (ran.code in (Exit.SPEC, Exit.FACTS), ran.out) == (True, "")
    assert said in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("image", "release", "certain"),
    [
        (NEW, "3.3.6", True),
        (f"{AWS}2.1-tgi2.0-gpu-py310", "2.0.2", False),  # or 2.4.0, as SageMaker's SDK has it
        (f"{AWS}2.1-tgi1.4-gpu-py310", "1.4.5", True),
        (f"{AWS}tgi2.3.1", "2.3.1", True),
        (AWS.rstrip(":"), "3.3.6", False),
        (f"{GOOGLE}cu121.2-0.ubuntu2204.py310", "2.0.3", False),
    ],
)
def test_the_release_of_a_clouds_image(image: str, release: str, certain: bool) -> None:
    said = from_image(image)
    assert (said.release.name, said.certain) == (release, certain)


@pytest.mark.parametrize(
    ("text", "port"),
    [("8080", 8080), ("65535", 65535), ("65536", None), ("+81", 81), ("0081", 81), ("0", None), ("-1", None),
     ("80 ", None), ("", None), ("٨٠", None), ("http", None)],
)  # fmt: skip
def test_a_port_is_read_as_the_router_reads_it(text: str, port: int | None) -> None:
    assert clouds.port_of(text) == port


@pytest.mark.parametrize(
    ("text", "said"), [("8080", set()), ("http", {"TGI178"}), ("65536", {"TGI178"}), ("$P", set())]
)
def test_what_is_no_port_for_googles_router(text: str, said: set[str]) -> None:
    image = f"{GOOGLE}gpu.3.0.1"
    line = f"docker run --gpus all -p 8080:8080 -e AIP_HTTP_PORT={text} {image} --model-id gpt2 --num-shard 1\n"
    assert {one.code for one in findings(line, "run.sh")} & {"TGI178", "TGI308"} == said


def test_the_model_google_fetches_comes_before_the_variable_and_after_the_argument() -> None:
    image = f"{GOOGLE}gpu.3.0.1"
    line = f"docker run --gpus all -p 8080:8080 -e AIP_STORAGE_URI=gs://b/m -e MODEL_ID=google/gemma-2-2b-it {image}"
    assert "TGI403" not in {one.code for one in findings(f"{line}\n", "run.sh")}
    named = findings(f"{line} --model-id google/gemma-2-2b-it\n", "run.sh")
    assert "TGI403" in {one.code for one in named}


def test_what_the_sdk_looks_up_is_no_image_to_pull(tmp_path: Path) -> None:
    (tmp_path / "deploy.py").write_text(python("version='2.3.1'"))
    back = run("import", str(tmp_path / "deploy.py"))
    assert yaml.safe_load(back.out)["tgi"] == {"release": "2.3.1", "num_shard": 8}


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("2.4.0", ""),
        ("2.4.1", "sagemaker has no image of TGI 2.4.1, only of 2.4.0 and 3.0.1"),
        ("3.3.7", ""),
        ("2.0", ""),
    ],
)
def test_releases_sagemaker_never_had(version: str, said: str) -> None:
    found = [one for one in findings(python(f"version='{version}'"), "a.py") if one.code == "TGI507"]
    assert [(one.message, one.severity) for one in found] == ([(said, "warning")] if said else [])


# -- what SageMaker's image reads


@pytest.mark.parametrize(
    ("text", "file", "said"),
    [
        (f"docker run --gpus all -p 8080:8080 -e MODEL_ID=gpt2 {NEW}\n", "run.sh", {"TGI177"}),
        (f"docker run --gpus all -p 8080:8080 -e HF_MODEL_ID= {NEW}\n", "run.sh", {"TGI177"}),
        (f"docker run --gpus all -p 8080:8080 -e HF_MODEL_ID=gpt2 {NEW}\n", "run.sh", set()),
        (f"docker run --gpus all -p 8080:8080 -e HF_MODEL_ID {NEW}\n", "run.sh", set()),
        (f"docker run --gpus all -p 8080:8080 --env-file sm.env {NEW}\n", "run.sh", set()),
        (
            f"docker run --gpus all --entrypoint text-generation-launcher -p 80:80 {NEW} --model-id gpt2\n",
            "run.sh",
            set(),
        ),
        (f"services:\n  a:\n    image: {NEW}\n    environment: {{SM_NUM_GPUS: '1'}}\n", "compose.yaml", {"TGI177"}),
    ],
)
def test_sagemakers_image_needs_its_own_name_for_the_model(text: str, file: str, said: set[str]) -> None:
    assert {one.code for one in findings(text, file) if one.code == "TGI177"} == said
    assert not {"TGI130", "TGI308"} & set(errors(text, file))


def test_arguments_it_drops_are_said_once_and_not_judged() -> None:
    line = (
        f"docker run --gpus all -p 8080:8080 -e HF_MODEL_ID=gpt2 {NEW} --quantise awq --max-total-tokens many loose\n"
    )
    found = [one for one in findings(line, "run.sh") if one.code.startswith("TGI1")]
    assert [(one.code, one.severity) for one in found] == [("TGI177", "warning")]
    assert "--quantise, --max-total-tokens has no effect" in found[0].message


# -- how long platforms wait

MODEL = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"


def python(lookup: str = "version='3.3.6'", timeout: str = "900", instance: str = "ml.p4d.24xlarge") -> str:
    return (
        "from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri\n"
        f"image = get_huggingface_llm_image_uri('huggingface', {lookup})\n"
        f"model = HuggingFaceModel(role=role, image_uri=image, env={{'HF_MODEL_ID': '{MODEL}', 'SM_NUM_GPUS': '8'}})\n"
        f"model.deploy(1, instance_type='{instance}', container_startup_health_check_timeout={timeout})\n"
    )


def gcloud(options: str) -> str:
    return (
        f"gcloud run deploy tgi --image={GOOGLE}cu124.2-4.ubuntu2204.py311 --port=8080 --gpu=1 --gpu-type=nvidia-l4 "
        f"--args=--model-id={MODEL},--num-shard=1 {options}\n"
    )


def upload(options: str) -> str:
    return (
        f"from google.cloud import aiplatform\nenv = {{'MODEL_ID': '{MODEL}', 'NUM_SHARD': '8'}}\n"
        f"m = aiplatform.Model.upload(serving_container_image_uri='{GOOGLE}cu124.2-4.ubuntu2204.py311',\n"
        f"    serving_container_environment_variables=env, serving_container_ports=[8080], {options})\n"
    )


STACK = """\
Resources:
  Model:
    Type: AWS::SageMaker::Model
    Properties:
      PrimaryContainer:
        Image: {image}
        Environment: {{HF_MODEL_ID: {model}, SM_NUM_GPUS: "8"}}
  Config:
    Type: AWS::SageMaker::EndpointConfig
    Properties:
      ProductionVariants:
        - {{InstanceType: ml.p4d.24xlarge, ContainerStartupHealthCheckTimeoutInSeconds: {timeout}}}
"""
TERRAFORM = """\
resource "aws_sagemaker_model" "llm" {{
  primary_container {{
    image       = "{image}"
    environment = {{ HF_MODEL_ID = "{model}", SM_NUM_GPUS = "8" }}
  }}
}}
resource "aws_sagemaker_endpoint_configuration" "c" {{
  production_variants {{
    instance_type = "ml.p4d.24xlarge"
    container_startup_health_check_timeout_in_seconds = {timeout}
  }}
}}
"""
SERVICE = """\
resource "google_cloud_run_v2_service" "r" {{
  template {{
    containers {{
      image = "{image}"
      args  = ["--model-id={model}", "--num-shard=1"]
      startup_probe {{
        {numbers}
        tcp_socket {{ port = 8080 }}
      }}
    }}
  }}
}}
"""
CLOUD_RUN = {"image": f"{GOOGLE}cu124.2-4.ubuntu2204.py311", "model": MODEL}
VERTEX = (
    '{"containerSpec": {"imageUri": "%s", "env": [{"name": "MODEL_ID", "value": "%s"}], "deploymentTimeout": "%s"}}\n'
)
WAITS: dict[str, tuple[str, str, set[str]]] = {
    "enough": (python(), "a.py", set()),
    "too short": (python(timeout="180"), "a.py", {"TGI333"}),
    "by a name": (f"t = 180\n{python(timeout='t')}", "a.py", {"TGI333"}),
    "not known": (python(timeout="t"), "a.py", set()),
    "a default of a function": (
        "def go(t=180):\n" + "".join(f"    {line}\n" for line in python(timeout="t").splitlines()), "a.py", set(),
    ),
    "several": (python(timeout="180") + "other.deploy(container_startup_health_check_timeout=900)\n", "a.py", set()),
    "another model's": (python(timeout="180") + "other.deploy(1, instance_type='ml.g5.xlarge')\n", "a.py", set()),
    "one before it": (
        f"other.deploy(1, container_startup_health_check_timeout=60)\n{python()}".replace(
            ", container_startup_health_check_timeout=900", ""
        ),
        "a.py", set(),
    ),
    "a method's default": (
        "class A:\n    def deploy(self, container_startup_health_check_timeout=30):\n        pass\n"
        + python().replace(", container_startup_health_check_timeout=900", ""),
        "a.py", set(),
    ),
    "out of range": (python(timeout="7200"), "a.py", {"TGI334"}),
    "below the range": (python(timeout="30"), "a.py", {"TGI334"}),
    "on this machine": (python(timeout="30", instance="local_gpu"), "a.py", set()),
    "no weights known": (python(timeout="60").replace(MODEL, "org/mine"), "a.py", set()),
    "stack": (STACK.format(image=NEW, model=MODEL, timeout=120), "stack.yaml", {"TGI333"}),
    "stack that waits": (STACK.format(image=NEW, model=MODEL, timeout=1200), "stack.yaml", set()),
    "terraform": (TERRAFORM.format(image=NEW, model=MODEL, timeout=120), "main.tf", {"TGI333"}),
    "terraform's variable": (TERRAFORM.format(image=NEW, model=MODEL, timeout="var.wait"), "main.tf", set()),
    "cloud run": (gcloud("--startup-probe=tcpSocket.port=80,periodSeconds=10,failureThreshold=6"), "a.sh", {"TGI333"}),
    "cloud run's numbers unsaid": (gcloud("--startup-probe=tcpSocket.port=8080"), "a.sh", set()),
    "cloud run that waits": (gcloud("--startup-probe=periodSeconds=240,failureThreshold=7"), "a.sh", set()),
    "cloud run's variable": (gcloud("--startup-probe=periodSeconds=$P,failureThreshold=1"), "a.sh", set()),
    "cloud run's service": (
        SERVICE.format(**CLOUD_RUN, numbers="period_seconds = 10\n        failure_threshold = 6"), "run.tf", {"TGI333"},
    ),
    "cloud run's service that waits": (
        SERVICE.format(**CLOUD_RUN, numbers="period_seconds = 10\n        failure_threshold = 100"), "run.tf", set(),
    ),
    "vertex": (upload("serving_container_deployment_timeout=120"), "a.py", {"TGI333"}),
    "vertex that waits": (upload("serving_container_deployment_timeout=7200"), "a.py", set()),
    "vertex's request": (upload("upload_request_timeout=10") + "m.deploy(deploy_request_timeout=10)\n", "a.py", set()),
    "vertex's probe": (
        upload("serving_container_startup_probe_exec=['a'], serving_container_startup_probe_period_seconds=10"),
        "a.py", {"TGI333"},
    ),
    "vertex's long probe": (
        upload("serving_container_startup_probe_exec=['a'], serving_container_startup_probe_timeout_seconds=900"),
        "a.py", set(),
    ),
    "vertex as json": (VERTEX % (f"{GOOGLE}cu124.2-4.ubuntu2204.py311", MODEL, "60s"), "model.json", {"TGI333"}),
    "vertex as json that waits": (VERTEX % (f"{GOOGLE}cu124.2-4.ubuntu2204.py311", MODEL, "3600s"), "m.json", set()),
}  # fmt: skip


@pytest.mark.parametrize("name", WAITS)
def test_how_long_a_platform_waits(name: str) -> None:
    text, file, said = WAITS[name]
    assert {one.code for one in findings(text, file) if one.code in ("TGI333", "TGI334")} == said


@pytest.mark.parametrize(("seconds", "said"), [(201, False), (202, False), (200, True)])
def test_the_bound_is_a_minute_and_a_second_for_each_gigabyte(seconds: int, said: bool) -> None:
    text = python(timeout=str(seconds))
    found = [one for one in findings(text, "a.py") if one.code == "TGI333"]
    assert bool(found) is said or seconds == 201
    assert all("141.1 GB of weights takes 201 s at best" in one.message for one in found)
