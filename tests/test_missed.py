"""Servers and errors in places that are easily passed over: what a text writes itself, says elsewhere, or lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from judged import findings

from tgi_advisor import validate_files
from tgi_advisor.validate.read import read

IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.7"
RUN = f"docker run --gpus all -v $PWD/data:/data {IMAGE}"
SAME = "--max-input-tokens 9 --max-total-tokens 9"
ENV = "MODEL_ID=org/m\nMAX_INPUT_TOKENS=9\nMAX_TOTAL_TOKENS=9\n"
SERVICE = f"  tgi:\n    image: {IMAGE}\n    command: --model-id org/m {SAME}\n"
NEURON = (
    "model = HuggingFaceModel(\n  image_uri=get_huggingface_llm_image_uri({}),\n  env={{'HF_MODEL_ID': 'org/m'}})\n"
)
MODAL = (
    "import modal\nimage = modal.Image.from_registry('{image}').entrypoint([])\nCARDS = {gpu}\n"
    "@app.cls(image=image, gpu=CARDS)\nclass Model:\n  def start(self):\n"
    "    subprocess.Popen(['text-generation-launcher', '--model-id', 'org/m', '--num-shard', '4'])\n"
)
PARSED = (
    "p = argparse.ArgumentParser()\np.add_argument('-m', '--model-id', default='org/m')\n"
    "p.add_argument('--most', type=int, default=9)\np.add_argument('--seed')\nargs = {call}\n"
    "os.system(f'docker run {image} --model-id {{args.model_id}} --max-input-tokens {{args.most}} "
    "--max-total-tokens {{args.most}}')\n"
)


def notebook(*cells: str) -> str:
    """A notebook with one code cell on each line from the second on."""
    made = [json.dumps({"cell_type": "code", "source": cell.splitlines(keepends=True)}) for cell in cells]
    return '{"nbformat": 4, "metadata": {}, "cells": [\n' + ",\n".join(made) + "\n]}\n"


def modal(gpu: str) -> str:
    return MODAL.format(image=IMAGE, gpu=gpu)


def seen(text: str, file: str) -> tuple[list[int], list[tuple[int, str]]]:
    """Lines of the servers, and line and code of every error."""
    errors = [(one.place.line, one.code) for one in findings(text, file) if one.severity == "error"]
    return [one.place.line for one in read(text, file).servers], errors


MISSED = {
    "a folder whose -v was lost": (
        f"volume=$PWD/data\ndocker run $volume:/data {IMAGE} --model-id org/m {SAME}\n", "run.sh",
        [2], [(2, "TGI526"), (2, "TGI110")],
    ),
    "a port whose -p was lost, before other options": (
        f"docker run 8080:80 -v /d:/data {IMAGE} --model-id org/m\n", "run.sh", [1], [(1, "TGI526")],
    ),
    "a variable whose -e was lost": (
        f"docker run HF_TOKEN=$TOKEN -v /d:/data {IMAGE} --model-id org/m\n", "run.sh", [1], [(1, "TGI526")],
    ),
    "options in a variable": (
        f"docker run $DOCKER_OPTS -p 8080:80 {IMAGE} --model-id org/m {SAME}\n", "run.sh", [1], [],
    ),
    "another image that looks at TGI's": (f"docker run scanner/trivy image {IMAGE}\n", "run.sh", [], []),
    "an image in a variable that looks at TGI's": (f"docker run $SCANNER {IMAGE}\n", "run.sh", [], []),
    "an environment file between two marks": (
        f"cat <<'EOF' | tee .env\n{ENV}EOF\ndocker run --env-file .env {IMAGE}\n", "run.sh", [6], [(3, "TGI110")],
    ),
    "an environment file that is changed once more": (
        f"cat > .env <<EOF\n{ENV}EOF\necho MAX_TOTAL_TOKENS=99 >> .env\ndocker run --env-file .env {IMAGE}\n", "run.sh",
        [7], [],
    ),
    "an environment file that a branch writes": (
        f"if [ $1 ]; then\ncat > .env <<EOF\n{ENV}EOF\nfi\ndocker run --env-file .env {IMAGE}\n", "run.sh", [8], [],
    ),
    "a Compose file and its environment, between marks": (
        f"cat > .env <<EOF\n{ENV}EOF\ncat > compose.yaml <<EOF\nservices:\n  tgi:\n    image: {IMAGE}\n"
        "    env_file: .env\nEOF\n",
        "up.sh", [8], [(3, "TGI110")],
    ),
    "an environment file on a page": (
        f"Write `tgi.env`:\n\n```env\n{ENV}```\n\n```bash\ndocker run --env-file tgi.env {IMAGE}\n```\n", "page.md",
        [10], [(5, "TGI110")],
    ),
    "two environment files of one name on a page": (
        f"Write `.env`:\n```\n{ENV}```\nor `.env`:\n```\nMODEL_ID=org/n\n```\n\n"
        f"```\ndocker run --env-file .env {IMAGE}\n```\n",
        "page.md", [3, 13], [(4, "TGI110")],
    ),
    "the environment alone, on a page about TGI": (
        f"# TGI\n\n```env\n{ENV}```\n", "page.md", [4], [(5, "TGI110")],
    ),
    "what another block exports may be set": (
        "```bash\nexport MAX_TOTAL_TOKENS=99\n```\n\n```bash\n"
        "text-generation-launcher --model-id org/m --max-input-tokens 99999\n```\n",
        "page.md", [6], [],
    ),
    "a service without its file, on a page": (f"1. Add\n\n   ```\n{SERVICE}   ```\n", "page.md", [5], [(6, "TGI110")]),
    "a notebook that is a program": (
        "# %%\nimport sagemaker\nimage = get_huggingface_llm_image_uri('huggingface', version='1.4.2')\n"
        "env = {'HF_MODEL_ID': 'org/m', 'SM_NUM_GPUS': '1', 'MAX_INPUT_LENGTH': '9', 'MAX_TOTAL_TOKENS': '9'}\n",
        "deploy.ipynb", [4], [(4, "TGI110")],
    ),
    "files that a notebook writes": (
        notebook(
            f"%%writefile compose.yaml\nservices:\n{SERVICE}",
            f"%%writefile -a run.sh\n{RUN} --model-id org/m {SAME}\n",
            f"%%writefile Dockerfile\nFROM {IMAGE}\nENV MODEL_ID=org/m\n", f"%%writefile tgi.env\n{ENV}",
            f"!docker run --env-file tgi.env {IMAGE}\n",
        ),
        "a.ipynb", [2, 3, 4, 6], [(2, "TGI110"), (3, "TGI110"), (5, "TGI110")],
    ),
    "an older notebook": (
        json.dumps({"worksheets": [{"cells": [{"cell_type": "code", "input": [f"!{RUN} --model-id org/m {SAME}"]}]}]}),
        "a.ipynb", [1], [(1, "TGI110")],
    ),
    "an image for Neuron, looked up in the call": (
        NEURON.format("'huggingface-neuronx', version='0.0.24'"), "a.py", [3], [],
    ),
    "an image for Neuron without a version": (NEURON.format("backend='huggingface-neuronx'"), "a.py", [3], []),
    "cards of modal, as an object": (modal("modal.gpu.A100(count=2, size='80GB')"), "app.py", [7], [(7, "TGI143")]),
    "a card of modal, as an object": (modal("gpu.H100()"), "app.py", [7], [(7, "TGI143")]),
    "cards of modal, in words": (modal("'A100-40GB:4'"), "app.py", [7], []),
    "as many cards of modal as a variable says": (
        modal("modal.gpu.A100(count=int(os.environ.get('N', '2')))"), "app.py", [7], [],
    ),
    "what Apptainer is given": (
        f"apptainer run --nv --env MODEL_ID=org/m,MAX_INPUT_TOKENS=9 --env MAX_TOTAL_TOKENS=9 docker://{IMAGE}\n",
        "a.slurm", [1], [(1, "TGI110")],
    ),
    "what Apptainer is handed in by its name, without the rest": (
        "export MAX_INPUT_TOKENS=9\nexport SINGULARITYENV_MAX_TOTAL_TOKENS=9\n"
        f"singularity run -e docker://{IMAGE} --model-id org/m\n", "a.sh", [3], [(2, "TGI114")],
    ),
    "the same with the rest": (
        "export MAX_INPUT_TOKENS=9\nexport SINGULARITYENV_MAX_TOTAL_TOKENS=9\n"
        f"singularity run docker://{IMAGE} --model-id org/m\n", "a.sh", [3], [(1, "TGI110")],
    ),
    "a pulled image and its command in variables": (
        "RUN=\"apptainer run --env HF_TOKEN=$(cat t) \"\nIMAGE=text-generation-inference_3.3.7.sif\n"
        f"srun ${{RUN}} $IMAGE --model-id org/m {SAME}\n", "a.sh", [3], [(3, "TGI110")],
    ),
    "options of a program": (PARSED.format(call="parser.parse_args()", image=IMAGE), "a.py", [6], [(6, "TGI110")]),
    "options of a program, from a function": (PARSED.format(call="parse()", image=IMAGE), "a.py", [6], [(6, "TGI110")]),
    "options of a program from nowhere": (PARSED.format(call="other()", image=IMAGE), "a.py", [6], []),
    "Terraform's node beside its container": (
        "spec {\n  node_selector = { \"cloud.google.com/gke-accelerator\" = \"nvidia-l4\" }\n  container {\n"
        f'    image = "{IMAGE}"\n    args = ["--model-id", "meta-llama/Llama-2-70b-hf"]\n'
        '    resources { limits = { "nvidia.com/gpu" = "1" } }\n  }\n}\n', "main.tf", [4], [(2, "TGI201")],
    ),
    "a container of Podman's units": (
        f"[Container]\nImage={IMAGE}\nAddDevice=nvidia.com/gpu=all\nExec=--model-id org/m {SAME}\n", "tgi.container",
        [2], [(4, "TGI110")],
    ),
    "another container of Podman's units": (
        f"# beside {IMAGE}\n[Container]\nImage=example.org/ui:1\nExec=--port 9\n", "ui.container", [], [],
    ),
    "a service of a GitLab job": (
        f"test:\n  services:\n    - name: {IMAGE}\n      command: [--model-id, org/m, --max-input-tokens, '9',\n"
        "        --max-total-tokens, '9']\n  script: [pytest]\n", ".gitlab-ci.yml", [3], [(4, "TGI110")],
    ),
    "values of a chart in a text": (
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n    helm:\n      values: |\n"
        f"        image: {{repository: {IMAGE.partition(':')[0]}, tag: 3.3.7}}\n"
        "        args: [--model-id, org/m, --max-input-tokens, '9', --max-total-tokens, '9']\n", "app.yaml",
        [7], [(8, "TGI110")],
    ),
    "a container of the CDK": (
        f'task.addContainer("tgi", {{ image: ecs.ContainerImage.fromRegistry("{IMAGE}"),\n'
        f"  command: {json.dumps(['--model-id', 'org/m', *SAME.split()])} }});\n", "stack.ts", [1], [(2, "TGI110")],
    ),
    "a job of Nomad": (
        f'task "tgi" {{\n  config {{\n    image = "{IMAGE}"\n'
        f"    args = {json.dumps(['--model-id', 'org/m', *SAME.split()])}\n  }}\n}}\n", "tgi.nomad",
        [3], [(4, "TGI110")],
    ),
    "a unit's environment file that is not there": (
        "[Service]\nEnvironmentFile=/etc/tgi\nExecStart=text-generation-launcher --max-total-tokens 9\n", "a.service",
        [3], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSED)
def test_what_is_easily_passed_over_is_found(name: str) -> None:
    text, file, servers, errors = MISSED[name]
    assert seen(text, file) == (servers, errors)


def places(folder: Path, severity: str = "error") -> set[tuple[str, int, str]]:
    """File, line and code of the findings of a severity in a folder."""
    return {
        (Path(one.place.file).relative_to(folder).as_posix(), one.place.line, one.code)
        for made in validate_files([folder]) for one in made.findings if one.severity == severity
    }  # fmt: skip


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


RUNTIME = f"""\
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {{name: tgi}}
spec:
  containers:
    - name: kserve-container
      image: {IMAGE}
      args: [--model-id=/mnt/models, --num-shard=2, --max-input-tokens=9]
      envFrom: [{{configMapRef: {{name: more}}}}]
"""
USER = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: llm}
spec:
  predictor:
    model: {runtime: tgi, args: [--max-total-tokens=9], resources: {limits: {nvidia.com/gpu: 1}}}
"""
MORE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata:\n  MAX_BATCH_SIZE: 'many'\n"


def test_objects_in_other_files_of_a_folder_belong_to_a_runtime(tmp_path: Path) -> None:
    write(tmp_path, runtime_yaml=RUNTIME, user_yaml=USER, more_yaml=MORE)
    assert places(tmp_path) == {
        ("runtime.yaml", 8, "TGI143"),
        ("runtime.yaml", 8, "TGI110"),
        ("more.yaml", 5, "TGI103"),
    }
    write(tmp_path, other_yaml=USER.replace("llm", "other"), again_yaml=MORE)  # which of them, nobody can say
    assert places(tmp_path) == set()


WORKLOAD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: tgi}}
spec:
  containers:
    - name: tgi
      image: {IMAGE.replace("3.3.7", "1.4.0")}
      args: [--model-id=org/m, --max-input-tokens=3000, --max-total-tokens=4000]
"""
OVERLAY = "resources: [../../base]\nimages: [{{name: {name}, newTag: {tag}}}]\n"
NAME = IMAGE.partition(":")[0]


def test_kustomize_renames_the_image(tmp_path: Path) -> None:
    write(tmp_path, base__pod_yaml=WORKLOAD, base__kustomization_yaml="resources: [pod.yaml]\n")
    old = {("base/pod.yaml", 8, "TGI101")}
    assert places(tmp_path) == old
    write(tmp_path, overlays__a__kustomization_yaml=OVERLAY.format(name="other", tag="3.3.7"))
    assert places(tmp_path) == old
    write(tmp_path, overlays__a__kustomization_yaml=OVERLAY.format(name=NAME, tag="3.3.7"))
    assert places(tmp_path) == set()
    write(tmp_path, overlays__b__kustomization_yaml=OVERLAY.format(name=NAME, tag="1.3.0"))  # one or the other
    assert places(tmp_path) == set()
    write(tmp_path, overlays__a__kustomization_yaml=OVERLAY.format(name=NAME, tag="1.3.0"))
    assert places(tmp_path) == old


def test_the_folder_of_a_manifest_may_rename_its_image(tmp_path: Path) -> None:
    images = f"images: [{{name: {NAME}, newName: example.org/tgi, digest: 'sha256:{'0' * 64}'}}]\n"
    write(tmp_path, pod_yaml=WORKLOAD, kustomization_yaml="resources: [pod.yaml]\n" + images)
    assert places(tmp_path) == set()
    write(tmp_path, pod_yaml=WORKLOAD, kustomization_yaml="resources: [another.yaml]\n" + images)
    assert places(tmp_path) == {("pod.yaml", 8, "TGI101")}


def test_what_is_included_and_not_there_is_said_once(tmp_path: Path) -> None:
    text = f"include:\n  - tgi/a.yaml\n  - path: [b.yaml, c.yaml]\nservices:\n{SERVICE}"
    write(tmp_path, compose_yaml=text, c_yaml="services: {}\n", other_yaml="include: [web/a.yaml]\n")
    said = [one for one in places(tmp_path, "info") if one[2] == "TGI527"]
    assert said == [("compose.yaml", 2, "TGI527")]


def test_a_variable_of_its_own_that_a_script_does_not_set(tmp_path: Path) -> None:
    lines = f"volume=$PWD/data\ndocker run -v $volume:/data {IMAGE} --model-id $model --port $PORT\n"
    write(
        tmp_path, a_sh=lines, b_sh="read model\n" + lines, c_sh=lines.replace("$model", "${model:?}"), d_sh=lines[17:]
    )
    said = {one for one in places(tmp_path, "warning") if one[2] == "TGI528"}
    assert said == {("a.sh", 2, "TGI528")}


def test_a_unit_reads_its_environment_file(tmp_path: Path) -> None:
    unit = "[Service]\nEnvironmentFile=-tgi.env\nExecStart=/opt/bin/text-generation-launcher --port 80\n"
    write(tmp_path, tgi_env=ENV, a_service=unit)
    assert places(tmp_path) == {("tgi.env", 2, "TGI110")}
