"""Deployments that work, or of which nobody can tell from the file that they do not: no error is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from front import run

IMAGE = "ghcr.io/huggingface/text-generation-inference"
RUN = f"docker run --gpus all --shm-size 1g -p 8080:80 -v $PWD/data:/data {IMAGE}"
POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: tgi}}
spec:
  containers:
  - name: tgi
    image: {IMAGE}:2.4.1
"""
WORKING = {
    "sagemaker without a version.py": (
        "from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri\n"
        'm = HuggingFaceModel(image_uri=get_huggingface_llm_image_uri("huggingface"), role="r", '
        'env={"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", "MAX_TOTAL_TOKENS": "2048", '
        '"ATTENTION": "v2"})\n'
    ),
    "sagemaker of a constant.py": (
        'VERSION = os.environ.get("TGI")\n'
        'uri = get_huggingface_llm_image_uri("huggingface", version=VERSION)\n'
        'm = HuggingFaceModel(image_uri=uri, role="r", env={"HF_MODEL_ID": MODEL, "SM_NUM_GPUS": '
        'json.dumps(n), "MAX_INPUT_LENGTH": str(limit), "MAX_TOTAL_TOKENS": json.dumps(limit + '
        "512)})\n"
    ),
    "commit.sh": (f"{RUN}:sha-0eabc83 --model-id org/m --kv-cache-dtype auto\n"),
    "digest.sh": (
        f"{RUN}@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef --model-id "
        "org/m --max-total-tokens 2048 --max-batch-prefill-tokens 4096\n"
    ),
    "tag variable.sh": (f"TAG=${{1:?}}\n{RUN}:$TAG --model-id org/m --max-input-length 100 --max-total-tokens 200\n"),
    "model variable.sh": (
        "model=$1\n"
        "volume=$PWD/data\n"
        f"docker run --gpus all --shm-size 1g -p 8080:80 -v $volume:/data {IMAGE}:3.3.7 "
        "--model-id $model --quantize ${Q:-awq}\n"
    ),
    "arguments.sh": (f'{RUN}:3.3.7 --model-id org/m "$@"\n'),
    "array.sh": (f'args=(--model-id org/m --num-shard 1)\n{RUN}:3.3.7 "${{args[@]}}"\n'),
    "conditional.sh": (
        f'EXTRA=""\nif [ -n "$QUANT" ]; then EXTRA="--quantize $QUANT"; fi\n{RUN}:3.3.7 --model-id org/m $EXTRA\n'
    ),
    "loop.sh": (
        "for m in org/a org/b; do\n"
        f"  {RUN}:3.3.7 --model-id $m --max-input-tokens 1024 --max-total-tokens 2048\n"
        "  docker stop tgi\n"
        "done\n"
    ),
    "arithmetic.sh": (
        f"IN=1024\nOUT=512\n{RUN}:3.3.7 --model-id org/m --max-input-tokens $IN --max-total-tokens $((IN + OUT))\n"
    ),
    "heredoc.sh": (f"cat > run.sh <<'EOF'\n{RUN}:3.3.7 --model-id org/m\nEOF\n"),
    "exported.sh": (
        "export MAX_INPUT_TOKENS=1024\n"
        "export MAX_TOTAL_TOKENS=2048\n"
        "export MODEL_ID=org/m\n"
        "text-generation-launcher --port 8080\n"
    ),
    "before.sh": ("MODEL_ID=org/m CUDA_VISIBLE_DEVICES=0,1 text-generation-launcher --num-shard 2 --port 8080\n"),
    "env file.sh": (
        f"docker run --gpus all --shm-size 1g --env-file tgi.env -p 8080:80 -v $PWD/data:/data {IMAGE}:3.3.7\n"
    ),
    "quoted.sh": (f"{RUN}:3.3.7 --model-id 'org/m' --rope-scaling dynamic --rope-factor 2.0\n"),
    "sudo.sh": (f"sudo {RUN}:3.3.7 --model-id org/m\n"),
    "substitution.sh": (
        f'docker run --gpus all --shm-size 1g -p 8080:80 -v "$(pwd)/data":/data {IMAGE}:$(cat '
        'VERSION) --model-id "$(cat model.txt)"\n'
    ),
    "host port.sh": (
        f"docker run --gpus all --shm-size 1g --network host -v $PWD/data:/data {IMAGE}:3.3.7 "
        "--model-id org/m --port ${PORT:-9000}\n"
    ),
    "podman.sh": (
        "podman run --device nvidia.com/gpu=all --shm-size 1g -p 8080:80 -v "
        f"./data:/data:Z {IMAGE}:3.3.7 --model-id org/m\n"
    ),
    "rocm.sh": (
        "docker run --device /dev/kfd --device /dev/dri --shm-size 1g -p 8080:80 -v "
        f"$PWD/data:/data {IMAGE}:3.3.7-rocm --model-id org/m\n"
    ),
    "apptainer.sh": (
        f"apptainer exec --nv --bind $SCRATCH:/data docker://{IMAGE}:2.4.1 "
        "text-generation-launcher --model-id org/m --port 8080\n"
    ),
    "slurm.sh": (
        "#!/bin/bash\n"
        "#SBATCH --gres=gpu:4\n"
        "srun singularity exec --nv tgi.sif text-generation-launcher --model-id org/m "
        "--num-shard $SLURM_GPUS --port 8080\n"
    ),
    "compose.yaml": (
        "services:\n"
        "  tgi:\n"
        f"    image: {IMAGE}:${{TGI_VERSION}}\n"
        "    command: --model-id ${MODEL_ID} --num-shard ${NUM_SHARD:-1}\n"
        "    ports: ['8080:80']\n"
        "    volumes: ['./data:/data']\n"
        "    shm_size: 1g\n"
    ),
    "compose env.yaml": (
        "services:\n"
        "  tgi:\n"
        f"    image: {IMAGE}:3.3.7\n"
        "    env_file: .env\n"
        "    environment:\n"
        "      MODEL_ID: org/m\n"
        "      HF_TOKEN:\n"
        "      QUANTIZE: ${QUANTIZE-awq}\n"
        "    ports: ['8080:80']\n"
        "    volumes: ['./data:/data']\n"
        "    shm_size: 1g\n"
    ),
    "compose anchor.yaml": (
        "x-tgi: &tgi\n"
        f"  image: {IMAGE}:3.3.7\n"
        "  shm_size: 1g\n"
        "  volumes: ['./data:/data']\n"
        "services:\n"
        "  a:\n"
        "    <<: *tgi\n"
        "    command: [--model-id, org/a]\n"
        "    ports: ['8080:80']\n"
        "  b:\n"
        "    <<: *tgi\n"
        "    command: [--model-id, org/b]\n"
        "    ports: ['8081:80']\n"
    ),
    "compose folded.yaml": (
        "services:\n"
        "  tgi:\n"
        f"    image: {IMAGE}:3.3.7\n"
        "    shm_size: 1g\n"
        "    command: >\n"
        "      --model-id org/m\n"
        "      --max-input-tokens 1000\n"
        "      --max-total-tokens 2000\n"
        "    volumes: ['./data:/data']\n"
    ),
    "compose base.yaml": (
        "services:\n"
        "  base:\n"
        f"    image: {IMAGE}:3.3.7\n"
        "    environment: {HF_HOME: /data}\n"
        "  tgi:\n"
        "    extends: base\n"
        "    command: --model-id org/m\n"
        "    shm_size: 1g\n"
        "    volumes: ['./data:/data']\n"
    ),
    "pod.yaml": (
        f"{POD}"
        "    args: [--model-id, $(MODEL), --port, '8080']\n"
        "    env:\n"
        "    - {name: MODEL, valueFrom: {configMapKeyRef: {name: c, key: m}}}\n"
        "    ports: [{containerPort: 8080}]\n"
        "    readinessProbe: {httpGet: {path: /health, port: 8080}}\n"
        "    resources: {limits: {nvidia.com/gpu: 1}}\n"
    ),
    "pod from.yaml": (
        f"{POD}    envFrom: [{{configMapRef: {{name: c}}}}]\n    resources: {{limits: {{nvidia.com/gpu: 1}}}}\n"
    ),
    "pod shell.yaml": (
        f"{POD}"
        "    command: [/bin/sh, -c]\n"
        "    args: ['text-generation-launcher --model-id org/m --num-shard $NUM --port 8080']\n"
        "    ports: [{containerPort: 8080}]\n"
    ),
    "pod init.yaml": (
        "apiVersion: v1\n"
        "kind: Pod\n"
        "metadata: {name: tgi}\n"
        "spec:\n"
        "  initContainers:\n"
        "  - name: get\n"
        f"    image: {IMAGE}:2.4.1\n"
        "    command: [text-generation-server, download-weights, org/m]\n"
        "  containers:\n"
        "  - name: tgi\n"
        f"    image: {IMAGE}:2.4.1\n"
        "    args: [--model-id, org/m]\n"
    ),
    "template.yaml": (
        "apiVersion: apps/v1\n"
        "kind: Deployment\n"
        "metadata: {name: {{ .Release.Name }}}\n"
        "spec:\n"
        "  template:\n"
        "    spec:\n"
        "      containers:\n"
        "      - name: tgi\n"
        f'        image: "{IMAGE}:{{{{ .Values.tag }}}}"\n'
        "        args:\n"
        "        - --model-id={{ .Values.model }}\n"
        "        {{- range .Values.extra }}\n"
        "        - {{ . }}\n"
        "        {{- end }}\n"
    ),
    "values.yaml": (
        "image:\n"
        f"  repository: {IMAGE}\n"
        "  tag: 2.4.1\n"
        "modelId: org/m\n"
        "extraArgs: [--max-input-tokens, '1024', --max-total-tokens, '2048']\n"
        "port: 2080\n"
    ),
    "jinja.sh.j2": (
        f"{RUN}:{{{{ tag }}}} --model-id {{{{ model }}}} {{% if q %}}--quantize {{{{ q }}}}{{% endif %}}\n"
    ),
    "kserve.yaml": (
        "apiVersion: serving.kserve.io/v1alpha1\n"
        "kind: ServingRuntime\n"
        "metadata: {name: tgi}\n"
        "spec:\n"
        "  containers:\n"
        "  - name: kserve-container\n"
        f"    image: {IMAGE}:2.4.1\n"
        "    args: [--model-id=/mnt/models, --port=8080]\n"
        "    ports: [{containerPort: 8080}]\n"
    ),
    "sky.yaml": (
        "resources: {accelerators: A100:1, ports: 8080}\n"
        "envs: {MODEL: org/m}\n"
        "run: |\n"
        f"  {RUN}:3.3.7 --model-id $MODEL\n"
    ),
    "workflow.yml": (
        "on: push\n"
        "jobs:\n"
        "  t:\n"
        "    runs-on: gpu\n"
        "    services:\n"
        "      tgi:\n"
        f"        image: {IMAGE}:${{{{ matrix.tag }}}}\n"
        "        env: {MODEL_ID: org/m}\n"
        "    steps:\n"
        f"    - run: {RUN}:${{{{ inputs.tag }}}} --model-id ${{{{ inputs.model }}}}\n"
    ),
    "main.tf": (
        'resource "docker_container" "tgi" {\n'
        f'  image = "{IMAGE}:${{var.tag}}"\n'
        '  command = ["--model-id", var.model, "--num-shard", tostring(var.shards)]\n'
        '  env = ["MAX_TOTAL_TOKENS=${var.total}"]\n'
        "}\n"
    ),
    "Dockerfile": (
        f"ARG TAG=3.3.7\nFROM {IMAGE}:${{TAG}}\nENV MODEL_ID=org/m MAX_INPUT_TOKENS=1024 MAX_TOTAL_TOKENS=2048\n"
    ),
    "own.Dockerfile": (f'FROM {IMAGE}:3.3.7\nCOPY entry.sh /entry.sh\nENTRYPOINT ["/entry.sh"]\n'),
    "run.py": (
        "import subprocess\n"
        "model = input()\n"
        'subprocess.run(["docker", "run", "--gpus", "all", "--shm-size", "1g", "-p", '
        f'f"{{port}}:80", "{IMAGE}:3.3.7", "--model-id", model, "--num-shard", str(n)])\n'
    ),
    "run f.py": (
        f'cmd = f"docker run --gpus all --shm-size 1g -p {{port}}:80 -v {{d}}:/data {IMAGE}:{{tag}} '
        '--model-id {model} --quantize {q}"\n'
    ),
    "sdk.py": (
        f'c = docker.from_env().containers.run("{IMAGE}:3.3.7", command=["--model-id", '
        'model], environment={"HF_TOKEN": os.environ["HF_TOKEN"]}, ports={"80/tcp": 8080}, '
        'shm_size="1g")\n'
    ),
    "page.md": (
        "Run\n"
        "\n"
        "```bash\n"
        "model=<your-model>\n"
        f"{RUN}:3.3.7 --model-id $model\n"
        "```\n"
        "\n"
        "and then\n"
        "\n"
        "```console\n"
        "$ text-generation-launcher --model-id org/m --port 8080\n"
        "2024-01-01T00:00:00 INFO text_generation_launcher: Args\n"
        "```\n"
    ),
    "page args.md": ("```\ntext-generation-launcher --model-id <MODEL> [--num-shard N] ...\n```\n"),
    "fork.sh": (
        "docker run --gpus all --shm-size 1g -p 8080:80 ghcr.io/predibase/lorax:main --model-id "
        "org/m --adapter-id a/b\n"
    ),
    "unit.service": (
        "[Service]\n"
        "EnvironmentFile=/etc/tgi.env\n"
        "ExecStart=/usr/bin/docker run --rm --gpus all --shm-size 1g -p 8080:80 -v "
        f"/srv:/data {IMAGE}:3.3.7 --model-id ${{MODEL}}\n"
    ),
    "tgi.env": ("MODEL_ID=org/m\nMAX_INPUT_TOKENS=1024\nMAX_TOTAL_TOKENS=2048\nHF_TOKEN=\n"),
}


@pytest.mark.parametrize("file", WORKING)
def test_no_error_is_said_of_what_works(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_text(WORKING[file], encoding="utf-8")
    for hardware in ((), ("--gpu", "nvidia-a100-80gb-sxm")):
        ran = run("validate", str(path), *hardware)
        assert (ran.code, ": error " in ran.out, ran.err) == (0, False, "")


SUPPOSED = {
    "newest.py": (
        "from sagemaker.huggingface import HuggingFaceModel, get_huggingface_llm_image_uri\n"
        'HuggingFaceModel(image_uri=get_huggingface_llm_image_uri("huggingface"), role="r", env={\n'
        '    "HF_MODEL_ID": "org/m", "ATTENTION": "v2", "MAX_INPUT_TOKENS": "9", "MAX_TOTAL_TOKENS": "%s"})\n',
        "TGI160",
    ),
    "commit.sh": (
        f"{RUN}:sha-0eabc83 --model-id org/m --kv-cache-dtype auto --max-input-length 9 --max-total-tokens %s\n",
        "TGI101",
    ),
}


@pytest.mark.parametrize("file", SUPPOSED)
def test_what_only_a_supposed_release_refuses_is_a_warning(file: str, tmp_path: Path) -> None:
    text, code = SUPPOSED[file]
    path = tmp_path / file
    path.write_text(text % 10, encoding="utf-8")
    ran = run("validate", str(path))
    assert (ran.code, f": warning {code}: " in ran.out, ": error " in ran.out) == (0, True, False)
    path.write_text(text % 9, encoding="utf-8")  # no release takes that
    assert ": error TGI110: " in run("validate", str(path)).out
