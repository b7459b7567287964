"""Servers and errors in places that are easily passed over: what a text writes itself, says elsewhere, or lost."""

from __future__ import annotations

import json

import pytest

from tgi_advisor.gather import snapshot
from tgi_advisor.validate.judge import judge
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


def notebook(*cells: str) -> str:
    """A notebook with one code cell on each line from the second on."""
    made = [json.dumps({"cell_type": "code", "source": cell.splitlines(keepends=True)}) for cell in cells]
    return '{"nbformat": 4, "metadata": {}, "cells": [\n' + ",\n".join(made) + "\n]}\n"


def modal(gpu: str) -> str:
    return MODAL.format(image=IMAGE, gpu=gpu)


def seen(text: str, file: str) -> tuple[list[int], list[tuple[int, str]]]:
    """Lines of the servers, and line and code of every error."""
    document = read(text, file)
    errors = [one for one in judge(document, lambda model, _: snapshot.find(model)) if one.severity == "error"]
    return [one.place.line for one in document.servers], [(one.place.line, one.code) for one in errors]


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
}  # fmt: skip


@pytest.mark.parametrize("name", MISSED)
def test_what_is_easily_passed_over_is_found(name: str) -> None:
    text, file, servers, errors = MISSED[name]
    assert seen(text, file) == (servers, errors)
