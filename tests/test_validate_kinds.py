"""Kinds of files that were judged wrongly, or not taken up: each in several ways, through the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from front import run

OWN = "ghcr.io/huggingface/text-generation-inference"
IMAGE = f"{OWN}:3.3.7"
RUN = f"docker run {{}} --shm-size 1g -p 8080:80 -v data:/data {IMAGE} --model-id Qwen/Qwen2.5-7B-Instruct\n"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(here: Path, files: dict[str, str], *options: str) -> list[tuple[str, str]]:
    """File and code of what is found in a folder of these files."""
    for file, text in files.items():
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text(text, encoding="utf-8")
    ran = run("validate", ".", "-f", "json", *options)
    return [(one["file"], one["code"]) for one in json.loads(ran.out)["findings"]]


# -- why memory was not judged


def test_that_no_gpu_is_named_is_said_where_naming_one_would_tell(here: Path) -> None:
    missing = {
        "model.sh": RUN.format("--gpus 1").replace("Qwen/Qwen2.5-7B-Instruct", "org/private"),
        "limit.sh": RUN.format("--gpus 1").rstrip("\n") + " --max-total-tokens $TOTAL\n",
    }
    assert said(here, missing) == []
    (here / "whole.sh").write_text(RUN.format("--gpus 1"))
    assert said(here, {}) == [("whole.sh", "TGI505")]
    assert said(here, {}, "-g", "l4") == [("limit.sh", "TGI503"), ("model.sh", "TGI505")]


ENDPOINT = f"""\
endpoint = create_inference_endpoint(
    "x", repository="Qwen/Qwen2.5-7B-Instruct", framework="pytorch", task="text-generation", accelerator="gpu",
    vendor="aws", region="us-east-1", type="protected", instance_size="SIZE", instance_type="CARD",
    custom_image={{"health_route": "/health", "url": "{IMAGE}", "env": {{"MODEL_ID": "Qwen/Qwen2.5-7B-Instruct"}}}},
)
"""


@pytest.mark.parametrize(("size", "count"), [("x1", 1), ("x4", 4)])
@pytest.mark.parametrize("page", [False, True])
def test_the_card_of_an_endpoint_is_its_instance_type(size: str, count: int, page: bool, here: Path) -> None:
    text = ENDPOINT.replace("SIZE", size).replace("CARD", "nvidia-a10g")
    (here / "x.md" if page else here / "x.py").write_text(f"```python\n{text}```\n" if page else text)
    (server,) = json.loads(run("validate", ".", "-f", "json").out)["servers"]
    assert (server["gpu"], server["visible_gpus"], server["outcome"]) == ("nvidia-a10g", count, "starts")


# -- what the container is given


COMPOSE = """\
{head}services:
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:{tag}
    command: --model-id Qwen/Qwen2.5-7B-Instruct
    shm_size: 1g
    ports: ["8080:80"]
    volumes: ["./data:/data"]
    environment: {{NVIDIA_VISIBLE_DEVICES: all}}
{more}"""
DEVICES = """\
    deploy: {resources: {reservations: {devices: [{driver: nvidia, %s, capabilities: [gpu]}]}}}
"""


@pytest.mark.parametrize("tag", ["2.4.1", "3.3.4", "3.3.7"])
def test_a_request_for_gpus_wins_over_the_variable(tag: str, here: Path) -> None:
    devices = DEVICES % "device_ids: ['0', '1']"
    assert said(here, {"compose.yaml": COMPOSE.format(head="", tag=tag, more=devices)}) == [("compose.yaml", "TGI505")]
    shell = RUN.format("--gpus '\"device=0,1\"' -e NVIDIA_VISIBLE_DEVICES=all").replace("3.3.7", tag)
    (here / "compose.yaml").write_text(shell)
    assert said(here, {"run.sh": shell}) == [("run.sh", "TGI505")]


def test_all_of_them_count_as_one_where_nothing_names_them(here: Path) -> None:
    text = COMPOSE.format(head="", tag="3.3.4", more="    runtime: nvidia\n")
    assert said(here, {"compose.yaml": text}, "-g", "l4", "-n", "2", "--select", "TGI144") == [
        ("compose.yaml", "TGI144")
    ]


BARE = COMPOSE.replace("    environment: {{NVIDIA_VISIBLE_DEVICES: all}}\n", "")
MEANT = {
    "no GPU on purpose": {"run.sh": RUN.format("--gpus 0")},
    "none is shown": {"run.sh": RUN.format('-e CUDA_VISIBLE_DEVICES=""')},
    "a comment above": {"run.sh": f"set -e\n\n# CPU only, to try it\n{RUN.format('')}"},
    "a comment at its head": {"run.sh": f"#!/bin/sh\n# Runs TGI on the CPU\n\nset -e\n{RUN.format('')}"},
    "a heading": {"README.md": f"# TGI\n\n## CPU example\n\nTo try it:\n\n```sh\n{RUN.format('')}```\n"},
    "the text above": {"README.md": f"# TGI\n\nOn a machine without a GPU:\n\n```sh\n{RUN.format('')}```\n"},
    "GPU kernels switched off": {"run.sh": RUN.format("").rstrip("\n") + " --disable-custom-kernels\n"},
    "a service of that name": {"x.yaml": BARE.format(head="", tag="3.3.7", more="").replace("  tgi:", "  tgi-cpu:")},
    "a comment in Compose": {"compose.yaml": BARE.format(head="# CPU example\n", tag="3.3.7", more="")},
    "a base": {"docker-compose.base.yml": BARE.format(head="", tag="3.3.7", more="")},
    "another file gives it one": {
        "compose.yaml": BARE.format(head="", tag="3.3.7", more=""),
        "compose.gpu.yaml": f"services:\n  tgi:\n{DEVICES % 'count: 1'}",
    },
}


@pytest.mark.parametrize("files", MEANT.values(), ids=MEANT)
def test_no_gpu_where_that_is_meant(files: dict[str, str], here: Path) -> None:
    assert said(here, files, "--select", "TGI301") == []


NOT_MEANT = {
    "nothing said": {"run.sh": RUN.format("")},
    "said of another command": {"run.sh": f"set -e\n# on the CPU\nmake\n\n\nX=1\nls\n{RUN.format('')}"},
    "another block's heading": {
        "a.md": f"## CPU example\n\n```sh\nmake\n```\n\n## GPU\n\nRun it:\n\n```sh\n{RUN.format('')}```\n"
    },
    "a limit of CPU": {"run.sh": f"# mind the CPU limit\n{RUN.format('--cpus 4')}"},
    "another file of another service": {
        "compose.yaml": BARE.format(head="", tag="3.3.7", more=""),
        "compose.gpu.yaml": f"services:\n  other:\n    image: x\n{DEVICES % 'count: 1'}",
    },
}


@pytest.mark.parametrize("files", NOT_MEANT.values(), ids=NOT_MEANT)
def test_no_gpu_where_nothing_says_so(files: dict[str, str], here: Path) -> None:
    assert [code for _, code in said(here, files, "--select", "TGI301")] == ["TGI301"]


def test_an_empty_tag_is_the_charts_to_say(here: Path) -> None:
    values = f"image:\n  repository: {OWN}\n  pullPolicy: Always\n  tag: {{}}\n"
    assert said(here, {"values.yaml": values.format('""')}) == [("values.yaml", "TGI504")]
    assert said(here, {"values.yaml": values.format("latest")}, "--ignore", "TGI505") == [("values.yaml", "TGI501")]


# -- the launcher's arguments among docker's options


@pytest.mark.parametrize(
    "early",
    ["--model-id Qwen/Qwen2.5-7B-Instruct", "--model-id=org/m", "--trust-remote-code --model-id a/b"],
)
def test_an_argument_before_the_image_is_one_docker_does_not_know(early: str, here: Path) -> None:
    text = f"docker run --gpus 1 --shm-size 1g -p 8080:80 {early} -v data:/data {IMAGE} --max-input-tokens 9"
    found = [code for _, code in said(here, {"run.sh": f"{text} --max-total-tokens 9\n"}, "--ignore", "TGI4,TGI505")]
    assert found == ["TGI529", "TGI110"]  # the model is known, and the server judged with it


def test_options_both_have_are_dockers(here: Path) -> None:
    text = f"docker run --gpus 1 --hostname tgi --env A=1 -p 8080:80 -v data:/data {IMAGE} --model-id a/b\n"
    assert said(here, {"run.sh": text}, "--ignore", "TGI505") == []


# -- names of files


BUILT = f'FROM {IMAGE}\nCMD ["--model-id", "a/b", "--no-such"]\n'
STARTS = "text-generation-launcher --model-id a/b --no-such\n"
TAKEN = {
    "Dockerfile-rocm": BUILT, "Dockerfile_x": BUILT, "Dockerfile.gpu": BUILT, "x.Dockerfile": BUILT,
    "tgi_dockerfile": BUILT, "tgi-Containerfile": BUILT, "bin/serve": f"#!/usr/bin/env bash\n{STARTS}",
    "run": f"#!/bin/sh\n{STARTS}",
    "start": f"#!/usr/bin/env python3\nimport subprocess\nsubprocess.run({STARTS.split()!r})\n",
}  # fmt: skip
NOT_TAKEN = {"notes": STARTS, "dockerfiles.lst": BUILT, "mydockerfile": BUILT, "serve.rb": f"#!/usr/bin/ruby\n{STARTS}"}


def test_a_folder_is_searched_for_dockerfiles_and_scripts_by_any_name(here: Path) -> None:
    assert sorted(said(here, {**TAKEN, **NOT_TAKEN}, "--ignore", "TGI505")) == sorted(
        (name, "TGI101") for name in TAKEN
    )


# -- programs


def servers(here: Path, file: str, text: str) -> list[dict[str, object]]:
    """The servers in a file."""
    (here / file).write_text(text, encoding="utf-8")
    found = json.loads(run("validate", file, "-f", "json").out)["servers"]
    assert isinstance(found, list)
    return found


TEMPLATES = {
    "one line": "`docker run --gpus all -v data:/data IMAGE --model-id ${model} --no-such`",
    "continued": "`docker run --gpus all \\\\\n  -v ${dir}:/data \\\\\n  IMAGE \\\\\n  --model-id ${model} --no-such`",
    "a variable of the shell": "`docker run -e HF_TOKEN=\\${HF_TOKEN} --gpus all -v d:/data IMAGE --no-such`",
    "an expression": '`docker run --gpus all -v d:/data IMAGE --model-id ${own ? "a/b" : other[0]} --no-such`',
}


@pytest.mark.parametrize("file", ["run.ts", "run.mjs", "page.md"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_commands_in_template_strings_are_read(name: str, file: str, here: Path) -> None:
    text = f'const model = "a/b";\nexecSync({TEMPLATES[name].replace("IMAGE", IMAGE)});\n'
    (here / file).write_text(f"```ts\n{text}```\n" if file == "page.md" else text)
    found = json.loads(run("validate", ".", "-f", "json").out)["findings"]
    errors = [one for one in found if one["severity"] == "error"]
    assert [one["code"] for one in errors] == ["TGI101"]
    line = (here / file).read_text().split("\n")[errors[0]["line"] - 1]
    assert line[errors[0]["column"] - 1 :].startswith("--no-such")


BLOCKS = """\
First the image:

```python
instance_type = "ml.g5.2xlarge"
image = get_huggingface_llm_image_uri("huggingface", version="{version}")
```

then the model:

```python
config = {{"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", "HF_MODEL_QUANTIZE": json.dumps(False), "MAX_TOTAL_TOKENS": "9"}}
model = HuggingFaceModel(role=role, image_uri=image, env=config)
model.deploy(initial_instance_count=1, instance_type=instance_type)
```
"""


def test_blocks_of_a_page_are_one_program(here: Path) -> None:
    (server,) = servers(here, "page.md", BLOCKS.format(version="0.9.3"))
    assert (server["image"], server["gpu"]) == ("huggingface-pytorch-tgi-inference:tgi0.9.3", "nvidia-a10g")
    assert ("page.md", "TGI103") in said(here, {})
    alone = BLOCKS.format(version="2.0.2").replace(", image_uri=image", "").replace("image = ", "")
    assert [one["line"] for one in servers(here, "page.md", alone)] == [11]


def test_the_image_of_another_example_is_not_taken(here: Path) -> None:
    other = '```python\nother = get_huggingface_llm_image_uri("huggingface", version="0.8.2")\n```\n'
    page = BLOCKS.format(version="0.9.3").replace("image_uri=image", "image_uri=own_image")
    assert [one["release"] for one in servers(here, "page.md", page + other)] == [None]


BUILDER = """\
image = image_uris.retrieve(framework="huggingface-llm", region=region, instance_type="ml.g5.2xlarge")
builder = ModelBuilder({model}image_uri=image, env_vars={{"SM_NUM_GPUS": "1"}}, instance_type="ml.g5.2xlarge")
builder.build()
"""


@pytest.mark.parametrize(
    ("model", "known"),
    [('model="Qwen/Qwen2.5-7B-Instruct", ', "Qwen/Qwen2.5-7B-Instruct"), ("model=trained, ", None), ("", None)],
)
def test_a_builder_is_given_its_model_beside_the_environment(model: str, known: str | None, here: Path) -> None:
    (server,) = servers(here, "deploy.py", BUILDER.format(model=model))
    assert server["model"] == known
    assert "TGI177" not in [code for _, code in said(here, {})]


COMPONENTS = """\
image = get_huggingface_llm_image_uri("huggingface", version="2.0.2")
env = {{"HF_MODEL_ID": "Qwen/Qwen2.5-7B-Instruct", "SM_NUM_GPUS": "{count}"}}
client.create_model(ModelName="m", PrimaryContainer={{"Image": image, "Environment": env}})
client.create_endpoint_config(ProductionVariants=[{{"VariantName": "a", "InstanceType": "ml.g5.12xlarge"}}])
client.create_inference_component(
    Specification={{"ComputeResourceRequirements": {{"NumberOfAcceleratorDevicesRequired": {count}}}}},
)
"""


@pytest.mark.parametrize("count", [1, 2])
def test_an_inference_component_has_the_gpus_it_requires(count: int, here: Path) -> None:
    (server,) = servers(here, "deploy.py", COMPONENTS.format(count=count))
    assert (server["gpu"], server["visible_gpus"], server["outcome"]) == ("nvidia-a10g", count, "starts")
    several = f"{COMPONENTS.format(count=count)}OTHER = {{'NumberOfAcceleratorDevicesRequired': 4}}\n"
    assert [one["gpu"] for one in servers(here, "deploy.py", several)] == [None]


def test_the_environment_of_a_programs_launcher_may_name_the_model(here: Path) -> None:
    command = "text-generation-launcher --num-shard 2"
    assert "TGI130" not in [code for _, code in said(here, {"a.py": f'run(["bash", "-c", "{command}"])\n'})]
    (here / "a.py").unlink()
    assert "TGI130" in [code for _, code in said(here, {"a.sh": f"{command}\n"}, "-r", "3.3.7")]


# -- what Kustomize adds


POD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: tgi}
spec:
  selector: {matchLabels: {app: tgi}}
  template:
    metadata: {labels: {app: tgi}}
    spec:
      containers:
        - name: tgi
          image: ghcr.io/huggingface/text-generation-inference:1.0.0
          args: [--model-id, org/m, --max-input-tokens, "512", --max-total-tokens, "4096"]
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
"""
BUILD = "resources: [pod.yaml]\n"
REPLACED = """\
replacements:
- source: {kind: ConfigMap, name: tags, fieldPath: data.tgi}
  targets:
  - select: {kind: Deployment, name: NAME}
    fieldPaths: [spec.template.spec.containers.0.FIELD]
"""
GPU = """\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
- target: {kind: Deployment, name: NAME}
  patch: |-
    - op: add
      path: /spec/template/spec/containers/0/resources
      value: {limits: {nvidia.com/gpu: 1}}
"""


def test_what_kustomize_replaces_is_unknown(here: Path) -> None:
    assert said(here, {"pod.yaml": POD, "kustomization.yaml": BUILD}) == [
        ("pod.yaml", "TGI301"),
        ("pod.yaml", "TGI101"),
    ]
    image = REPLACED.replace("NAME", "tgi").replace("FIELD", "image")
    assert said(here, {"kustomization.yaml": BUILD + image}, "--ignore", "TGI50") == []
    elsewhere = {"kustomization.yaml": f"{BUILD}replacements: [{{path: r.yaml}}]\n", "r.yaml": image[14:]}
    assert said(here, elsewhere, "--ignore", "TGI50") == []
    environment = REPLACED.replace("NAME", "tgi").replace("FIELD", "env.0.value")
    assert said(here, {"kustomization.yaml": BUILD + environment}, "--ignore", "TGI50") == [("pod.yaml", "TGI101")]
    other = environment.replace("name: tgi}", "name: web}")
    assert [code for _, code in said(here, {"kustomization.yaml": BUILD + other})] == ["TGI301", "TGI101"]


def test_what_a_component_adds_is_its_business(here: Path) -> None:
    build = f"{BUILD}components: [../gpu]\n"
    files = {"app/pod.yaml": POD, "app/kustomization.yaml": build, "gpu/kustomization.yaml": GPU.replace("NAME", "tgi")}
    assert said(here, files, "--select", "TGI301") == []
    assert said(here, {"gpu/kustomization.yaml": GPU.replace("NAME", "web")}, "--select", "TGI301") != []
    (here / "gpu/kustomization.yaml").unlink()
    assert said(here, {}, "--select", "TGI301") == []


# -- several flags the launcher does not have


EVERY = {
    "run.sh": f"N=$1\ndocker run --gpus 1 -v data:/data {IMAGE} --model-id a/b --no-a 1 --no-b=$N --no-c $N --no-d\n",
    "run.py": f'run(["docker", "run", "{IMAGE}", "--model-id", m, "--no-a", f"--no-b={{n}}", "--no-c", n, "--no-d"])\n',
    "start.py": 'run(["text-generation-launcher", "--model-id", m, "--no-a", f"--no-b={n}", "--no-c", n, "--no-d"])\n',
    "api.py": f'client.containers.run("{IMAGE}", f"--model-id {{m}} --no-a 1 --no-b={{n}} --no-c {{n}} --no-d")\n',
}


@pytest.mark.parametrize("name", EVERY)
def test_every_flag_it_does_not_have_is_told(name: str, here: Path) -> None:
    assert said(here, {name: EVERY[name]}, "--select", "TGI101") == [(name, "TGI101")] * 4


# -- Google's image is not SageMaker's


UPLOAD = """\
model = aiplatform.Model.upload(
    display_name="m",
    serving_container_image_uri="us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-cu121.2-2.ubuntu2204.py310",
    serving_container_environment_variables={"NAME": "black-forest-labs/FLUX.1-dev", "HF_TOKEN": get_token()},
)
"""


def test_googles_image_reads_no_hf_model_id(here: Path) -> None:
    assert [code for _, code in said(here, {"a.py": UPLOAD.replace("NAME", "HF_MODEL_ID")})] == ["TGI170"]
    assert [code for _, code in said(here, {"a.py": UPLOAD.replace("NAME", "MODEL_ID")})] == ["TGI133"]


MANIFEST = """\
K8S = f\'\'\'
apiVersion: v1
kind: Pod
metadata:
  name: tgi
spec:
  containers:
  - name: tgi
    image: ghcr.io/huggingface/text-generation-inference:3.3.7
    args:
    - --model-id=ARGUMENT
    env:
    - name: MODEL_ID
      value: org/m-{size}
\'\'\'
"""


@pytest.mark.parametrize(("argument", "said_of_it"), [("$(MODEL_ID)", False), ("org/other", True)])
def test_an_argument_made_of_its_own_variable_overrides_nothing(argument: str, said_of_it: bool, here: Path) -> None:
    found = said(here, {"a.py": MANIFEST.replace("ARGUMENT", argument)}, "--select", "TGI172")
    assert bool(found) == said_of_it
