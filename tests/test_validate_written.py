"""Servers that are written where one does not look for them: in strings of programs, in files of a cluster's images,
behind marks of templates; and texts that look like one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from front import run
from judged import errors, findings

from tgi_advisor.validate.judge import judge
from tgi_advisor.validate.read import read

IMAGE = "ghcr.io/huggingface/text-generation-inference"
POD = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: tgi
spec:
  containers:
  - name: tgi
    image: {IMAGE}:3.3.7
    args: [--model-id, %s, --max-total-tokens, "4096"]
    resources:
      limits:
        nvidia.com/gpu: 1
"""
OWN = 'image = f"{account}.dkr.ecr.{region}.amazonaws.com/%s"\n'
MODEL = """\
from sagemaker.huggingface import HuggingFaceModel
%smodel = HuggingFaceModel(role=role, image_uri=image, env={"HF_MODEL_ID": "/opt/ml/model", "SM_NUM_GPUS": "4", %s})
"""
LIMITS = '"MAX_INPUT_LENGTH": "12000", "MAX_TOTAL_TOKENS": "12001"'

# what it is: (file, text, the lines of its servers with the image each was read to have)
SEEN: dict[str, tuple[str, str, list[tuple[int, str]]]] = {
    "a manifest in a string of a program": (
        "apply.py", f'MANIFEST = """\n{POD % "gpt2"}"""\nkubectl(MANIFEST)\n', [(8, f"{IMAGE}:3.3.7")]
    ),
    "a manifest in an f-string, with names of the program": (
        "apply.py", f'name = input()\nMANIFEST = f"""\n{POD % "{name}"}"""\n', [(9, f"{IMAGE}:3.3.7")]
    ),
    "a Compose file in a string": (
        "up.py", f'open("compose.yaml", "w").write("""\nservices:\n  tgi:\n    image: {IMAGE}:3.3.7\n""")\n',
        [(3, f"{IMAGE}:3.3.7")],
    ),
    "an image of one's own that is called TGI": (
        "deploy.py", MODEL % (OWN % "falcon-tgi103", LIMITS),
        [(3, "{account}.dkr.ecr.{region}.amazonaws.com/falcon-tgi103")],
    ),
    "an image of one's own that is called otherwise": ("deploy.py", MODEL % (OWN % "falcon-vllm", LIMITS), []),
    "one called TGI whose settings are any server's": ("deploy.py", MODEL % (OWN % "my-tgi", '"A": "b"'), []),
    "a file that apptainer pulled": (
        "job.sh", "apptainer run --nv -B $PWD:/data images/text-generation-inference_2.3.0.sif --model-id gpt2\n",
        [(1, "ghcr.io/huggingface/text-generation-inference:2.3.0")],
    ),
    "one whose name does not say its release": (
        "job.sh", "singularity run --nv text-generation-inference_latest.sif --model-id gpt2 --port 9000\n", [(1, "")]
    ),
    "one behind marks of a template": (
        "job.sh", "apptainer run {{ '--nv' if gpus }} --bind {{ dir }}:/data {{ cache }}/tgi_2.0.4.sif "
        "--model-id /data --max-total-tokens 4096\n",
        [(1, "ghcr.io/huggingface/text-generation-inference:2.0.4")],
    ),
    "an instance, which has a name": (
        "job.sh", "singularity instance run --nv tgi-v1.4.sif llm --max-total-tokens 4096\n",
        [(1, "ghcr.io/huggingface/text-generation-inference:1.4")],
    ),
    "the file of another server": ("job.sh", "apptainer run --nv vllm-openai_latest.sif --model gpt2\n", []),
    "a squashed image of a cluster": (
        "job.sh", "srun --container-image=/enroot/huggingface+text-generation-inference+1.1.0.sqsh \\\n"
        "  text-generation-launcher --model-id gpt2\n", [(2, "ghcr.io/huggingface/text-generation-inference:1.1.0")],
    ),
    "a list of words for singularity": (
        "job.py", 'image = Path("tgi.sif")\nrun(["singularity", "run", "--nv", "--env", "A=b", f"{image}", '
        '"--model-id", model, "--max-total-tokens=2048"])\n', [(2, "")],
    ),
    "docker's options behind marks of a template": (
        "run.sh", f"docker run -d {{{{ '--gpus all' if gpus else '' }}}} -p 80:80 {IMAGE}:2.3.0 --model-id gpt2\n",
        [(1, f"{IMAGE}:2.3.0")],
    ),
    "an image that a template fills in": (
        "run.sh", "docker run --gpus all {{ image }} --model-id gpt2 --max-total-tokens 2048\n", [(1, "{{ image }}")]
    ),
    "a launcher with the arguments of its script": ("start.sh", "exec text-generation-launcher $@\n", [(1, "")]),
    "the same in quotes": ("start.sh", 'text-generation-launcher "$@"\n', [(1, "")]),
    "what a report of a bug asks for": (
        "bug.yml", "body:\n  - description: |\n      Tell us (`text-generation-launcher --env`)\n", []
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SEEN)
def test_servers_are_found_where_they_are_written(what: str) -> None:
    file, text, servers = SEEN[what]
    found = read(text, file).servers
    assert [(one.place.line, one.image.text if one.image else "") for one in found] == servers


BRANCHES = f"""\
import subprocess
cmd = ["docker", "run", "--gpus", "all", "{IMAGE}:3.3.7", "--model-id", "gpt2"]
%s
subprocess.run(cmd)
"""
GAUDI = f"docker run --runtime=habana {IMAGE}:3.3.5-gaudi --model-id Qwen/Qwen2.5-7B-Instruct"


def test_a_flag_of_both_branches_is_given_once() -> None:
    both = 'if low:\n    cmd.extend(["--max-input-tokens", "9"])\nelse:\n    cmd += ["--max-input-tokens", "5"]'
    assert errors(BRANCHES % both, "run.py") == []
    perhaps = 'cmd += ["--dtype", "float16"]\nfor one in more:\n    cmd.extend(["--dtype", one, "--port", "80"])'
    assert errors(BRANCHES % perhaps, "run.py") == []
    assert errors(BRANCHES % 'cmd += ["--port", "1"]\ncmd += ["--port", "2"]', "run.py") == ["TGI105"]


@pytest.mark.parametrize("more", [" <launcher-arguments>", "\n    <text-generation-inference-launcher-arguments>"])
def test_a_page_that_leaves_room_for_arguments_lacks_none(more: str) -> None:
    assert errors(f"```bash\n{GAUDI}{more}\n```\n", "page.md") == []
    assert errors(f"```bash\n{GAUDI}\n```\n\n{more}\n", "page.md") == ["TGI164"]


def test_a_manifest_in_a_string_is_judged_at_its_lines() -> None:
    text = f'POD = """\n{POD.replace("4096", "none") % "gpt2"}"""\n'
    (found,) = (one for one in judge(read(text, "a.py"), lambda *_: None) if one.severity == "error")
    assert (found.code, found.place.line) == ("TGI103", 10)


def said(text: str, file: str) -> list[str]:
    """The codes of every finding in a file but of those on memory, in order."""
    found = findings(text, file)
    return [one.code for one in found if one.code != "TGI505"]


RUN = f"docker run --gpus all -v %s:/data {IMAGE}:3.3.7 --model-id %s\n"


def test_a_mounted_home_of_the_hubs_client_brings_its_token() -> None:
    gated = "meta-llama/Llama-3.1-8B-Instruct"
    assert said(f"volume=$HF_HOME\n{RUN % ('$volume', gated)}", "run.sh") == []
    assert said(RUN % ("${HF_HOME}", gated), "run.sh") == []
    assert said(RUN % ("$PWD/data", gated), "run.sh") == ["TGI403"]


def test_a_comment_that_stands_for_a_token_is_for_the_reader_to_replace() -> None:
    command = f"docker run --gpus all -v hub:/data -e HF_TOKEN=$token {IMAGE}:3.3.7 --model-id gpt2"
    page = f"```bash\ntoken=%s\n{command}\n```\n"
    assert said(page % "#your-huggingface-token", "page.md") == []
    assert said(page % "changeme", "page.md") == ["TGI402"]


def test_a_framework_is_no_kind_of_server() -> None:
    text = (
        'from sagemaker.core import image_uris\nimage = image_uris.retrieve(framework="%s", version="%s")\n'
        'model = HuggingFaceModel(image_uri=image, env={"HF_MODEL_ID": "gpt2", "MAX_TOTAL_TOKENS": "1024"})\n'
    )
    assert read(text % ("huggingface", "4.55.4"), "deploy.py").servers == ()
    assert len(read(text % ("huggingface-llm", "3.3.6"), "deploy.py").servers) == 1


def test_the_chips_of_a_tpu_are_no_shards() -> None:
    pod = (POD % "google/gemma-2b").replace("nvidia.com/gpu: 1", "google.com/tpu: 8")
    own = pod.replace(f"{IMAGE}:3.3.7", "docker.pkg.dev/me/optimum-tpu/tgi-tpu:0.2.3")
    assert "TGI144" not in said(own, "pod.yaml")


@pytest.mark.parametrize(("code", "args"), [("TGI406", "-v hub:/data"), ("TGI320", "")])
def test_what_holds_alike_for_a_file_is_told_once(
    code: str, args: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = f"docker run --gpus all {args} {IMAGE}:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --trust-remote-code\n"
    Path("a.sh").write_text(line * 3)
    found = json.loads(run("validate", "a.sh", "-f", "json").out)["findings"]
    assert [(one["line"], len(one["also"])) for one in found if one["code"] == code] == [(1, 2)]


@pytest.mark.parametrize(("path", "codes"), [("hub", []), ("hug", ["TGI322"])])
def test_the_kubelet_takes_a_mount_path_from_the_root(path: str, codes: list[str]) -> None:
    pod = (POD % "gpt2") + (
        f"    env: [{{name: HF_HUB_CACHE, value: /hub}}]\n    volumeMounts: [{{name: hub, mountPath: {path}}}]\n"
        "  volumes: [{name: hub, hostPath: {path: /mnt}}]\n"
    )
    assert [code for code in said(pod, "pod.yaml") if code.startswith("TGI3")] == codes
