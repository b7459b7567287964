"""Deployments as people write them: what is an error in them, and what only looks like one."""

from __future__ import annotations

import pytest
from judged import findings

IMAGE = "ghcr.io/huggingface/text-generation-inference"


def said(text: str, file: str, severity: str = "error") -> list[tuple[int, str]]:
    """Line and code of every finding of this severity, the shipped models being the only facts."""
    found = findings(text, file)
    return [(one.place.line, one.code) for one in found if one.severity == severity]


POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: tgi}}
spec:
  containers:
    - name: tgi
      image: {IMAGE}:3.3.7
%s
      resources: {{limits: {{nvidia.com/gpu: 1}}}}
"""
FOLDED = """\
services:
  tgi:
    image: %s
    entrypoint: /bin/sh -c "\\
      . /opt/settings && \\
      text-generation-launcher --model-id gpt2"
"""

FINE = {
    "a quantized checkpoint by its name": (
        f"docker run --gpus all {IMAGE}:2.4.0 --model-id Qwen/Qwen2.5-Coder-1.5B-Instruct-AWQ --quantize awq\n",
        "run.sh",
    ),
    "comparisons are no placeholders": (
        f"```\ndocker run {IMAGE}:3.3.7 --model-id gpt2 \nCUDA=cuda>=12.1 driver>=470,driver<471 a=b,driver>=5\n```\n",
        "page.md",
    ),
    "a placeholder in a program's string is text": (
        f'HELP = """\ndocker run {IMAGE}:3.3.7 --model-id <MODEL>\n"""\n',
        "help.py",
    ),
    "a backslash within quotes is the shell's": (FOLDED % f"{IMAGE}:3.3.7", "compose.yaml"),
    "another service's backslash is not ours": (
        FOLDED.replace("text-generation-launcher", "server")
        % "example.org/server:1"
        + f"  llm:\n    image: {IMAGE}:3.3.7\n    command: --model-id gpt2\n",
        "compose.yaml",
    ),
    "Terraform's branches are hidden, its references unknown": (
        POD % '%{ for one in all ~}\n      args: [--model-id, "${model}", --num-shard, "${count}"]\n%{ endfor ~}',
        "pod.yaml.tpl",
    ),
    "CloudFormation's references are unknown": (
        "Resources:\n  Model:\n    Properties:\n      PrimaryContainer:\n"
        "        Image: 763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.1-tgi2.0.2\n"
        "        Environment: {HF_MODEL_ID: gpt2, SM_NUM_GPUS: !Ref Gpus, QUANTIZE: !Ref Quantize}\n",
        "stack.yaml",
    ),
    "a number from a variable of Python": (
        "for count in counts:\n    env = {'HF_MODEL_ID': 'gpt2', 'SM_NUM_GPUS': json.dumps(count)}\n",
        "deploy.py",
    ),
    "a Dockerfile is no environment file": (
        f"FROM {IMAGE}:0.9\nENV HF_HOME=/tmp \\\n    MODEL_ID=gpt2 \\\n    NUM_SHARD=1 \\\n    PORT=80\n",
        "Dockerfile.gpu",
    ),
    "an unknown form is not taken for YAML": (
        f"{{\n  inputs = {{\n    image = \"{IMAGE}:3.3.7\";\n  }};\n}}\n", "flake.nix",
    ),
    "a chart decides about its ports": (
        f"port: 2080\nimage:\n  repository: {IMAGE}\n  tag: '3.3.7'\n", "values.yaml",
    ),
    "a port among listed arguments is read": (
        f"containers:\n  - image: {IMAGE}:2.0.4\n    command: [text-generation-launcher]\n"
        "    args: [--model-id=gpt2, --port=8080]\n    ports: [{containerPort: 8080}]\n",
        "part.yaml",
    ),
    "an entry point that is another program serves nothing": (
        f"docker run --entrypoint sleep {IMAGE}:3.3.7 infinity\n", "run.sh",
    ),
    "a cluster may mount what the pod does not name": (
        POD % "      env: [{name: MODEL_ID, value: /mnt/model}]", "pod.yaml",
    ),
    "a relative path below the working directory": (
        f"docker run -v $PWD:/usr/src/models {IMAGE}:3.3.7 --model-id ./models/mine\n", "run.sh",
    ),
    "adapters of the Hub, and in folders that are mounted": (
        f"docker run -v $PWD:/data -v /srv/a:/adapters {IMAGE}:3.3.7 --model-id tiiuae/falcon-rw-7b-not-known "
        "--lora-adapters org/one,org/two@v2,three=/adapters/three,four=/data/four@main\n",
        "run.sh",
    ),
    "an adapter's folder below the working directory": (
        f"docker run -v $PWD:/usr/src/mine {IMAGE}:3.3.7 --model-id org/m --lora-adapters a=mine/a\n", "run.sh",
    ),
    "a cluster may mount adapters the pod does not name": (
        POD % "      args: [--model-id, org/m, --lora-adapters, a=/mnt/a]", "pod.yaml",
    ),
    "offline with storage that may hold the weights": (
        f"docker run -v $PWD:/data -e HF_HUB_OFFLINE=1 {IMAGE}:3.3.7 --model-id meta-llama/Llama-3.1-8B\n", "run.sh",
    ),
    "2.0.0 reads from config.json that a checkpoint is quantized": (
        f"docker run --gpus all -v $PWD:/data {IMAGE}:2.0.0 --model-id Qwen/Qwen2.5-7B-Instruct-AWQ\n", "run.sh",
    ),
    "another server with its own arguments": (
        "docker run -v $PWD:/data ghcr.io/huggingface/text-embeddings-inference:1.5 --model-id BAAI/bge-m3\n", "run.sh",
    ),
    "an override that is mounted": (
        f"docker run -v /srv:/w {IMAGE}:1.1.0 --model-id google/flan-t5-xl --weights-cache-override /w/flan\n",
        "run.sh",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_what_only_looks_wrong_is_no_error(name: str) -> None:
    text, file = FINE[name]
    assert said(text, file) == []


WRONG = {
    "a checkpoint its owner's name says is plain": (
        f"docker run --gpus all {IMAGE}:2.4.0 \\\n  --model-id codellama/CodeLlama-13b-hf \\\n  --quantize gptq\n",
        "run.sh",
        [(3, "TGI150")],
    ),
    "a model known by another of its architecture": (
        f"docker run --gpus all {IMAGE}:1.4.0 --model-id lmsys/vicuna-7b-v1.5 \\\n  --num-shard 3\n",
        "run.sh",
        [(2, "TGI140")],
    ),
    "a relative path nothing is mounted at": (
        f"docker run --gpus all {IMAGE}:3.3.7 \\\n  --model-id ./output/checkpoint-400\n", "run.sh", [(2, "TGI136")],
    ),
    "an adapter's folder without a name": (
        f"docker run -v $PWD:/data {IMAGE}:3.3.7 \\\n  --model-id org/m \\\n  --lora-adapters org/a,/data/a\n",
        "run.sh",
        [(3, "TGI137")],
    ),
    "an adapter's folder without a name, where the server starts": (
        f"docker run -v $PWD:/data {IMAGE}:2.1.0 \\\n  --model-id org/m \\\n"
        "  --lora-adapters ./a\n",
        "run.sh",
        [(3, "TGI137")],
    ),
    "an adapter with a name before 2.3.0": (
        f"services:\n  tgi:\n    image: {IMAGE}:2.2.0\n    volumes: [./data:/data]\n    environment:\n"
        "      MODEL_ID: org/m\n      LORA_ADAPTERS: mine=/data/a\n",
        "compose.yaml",
        [(7, "TGI137")],
    ),
    "an adapter's folder that is not mounted": (
        f"docker run -v $PWD:/data {IMAGE}:3.3.7 \\\n  --model-id org/m \\\n  --lora-adapters a=/adapters/a\n",
        "run.sh",
        [(3, "TGI136")],
    ),
    "a Hub id where an adapter's folder belongs": (
        f"docker run -v $PWD:/data {IMAGE}:3.3.7 \\\n  --model-id org/m \\\n  --lora-adapters a=org/a\n",
        "run.sh",
        [(3, "TGI137")],
    ),
    "adapters in a pod": (
        POD % "      args: [--model-id, org/m, --lora-adapters, /mnt/a]", "pod.yaml", [(8, "TGI137")],
    ),
    "adapters on a class without layers for them": (
        f"docker run --gpus all -v $PWD:/data {IMAGE}:3.3.7 --num-shard 1 \\\n"
        "  --model-id Qwen/Qwen2-VL-7B-Instruct \\\n  --lora-adapters org/a\n",
        "run.sh",
        [(3, "TGI138")],
    ),
    "offline with an empty cache": (
        f"docker run -e HF_HUB_OFFLINE=1 {IMAGE}:3.3.7 \\\n  --model-id meta-llama/Llama-3.1-8B\n",
        "run.sh",
        [(2, "TGI324")],
    ),
    "no such model, said once": (
        f"docker run {IMAGE}:3.3.7 --model-id meta-llama/Llama-3.2-8B\n", "run.sh", [(1, "TGI132")],
    ),
    "a size no Llama 4 has": (
        "text-generation-launcher --model-id meta-llama/Llama-4-70B\n", "run.sh", [(1, "TGI132")],
    ),
    "a size no Maverick has": (
        f"docker run {IMAGE}:3.3.7 \\\n  --model-id=meta-llama/Llama-4-Maverick-70B\n", "run.sh", [(2, "TGI132")],
    ),
    "a size no Qwen2.5 has": (
        f"docker run {IMAGE}:3.3.7 --model-id Qwen/Qwen2.5-13B-Instruct\n", "run.sh", [(1, "TGI132")],
    ),
    "another server's image in Compose": (
        "services:\n  llm:\n    image: vllm/vllm-openai:v0.8.0\n    command: --model-id org/m --num-shard 2\n",
        "compose.yaml",
        [(3, "TGI506")],
    ),
    "an override that is not mounted": (
        f"docker run -v $PWD:/data {IMAGE}:1.1.0 \\\n  --model-id google/flan-t5-xl \\\n"
        "  --weights-cache-override /home/me/flan\n",
        "run.sh",
        [(3, "TGI136")],
    ),
    "an assignment behind the image, its value unknown": (
        f"docker run --gpus all {IMAGE}:3.3.7 \\\n  -e model=$model\n", "run.sh", [(2, "TGI102")],
    ),
    "an old release on the host's network": (
        f"docker run --net=host -p 6112:80 {IMAGE}:0.8.2 --model-id gpt2\n", "run.sh", [(1, "TGI308")],
    ),
    "an engine kept in a variable": (
        f"$DOCKER run -p 80:80 \\\n  {IMAGE}:3.3.7 --model-id gpt2 \\\n  --num-shards 2\n", "run.sh", [(3, "TGI101")],
    ),
    "an indented block of reStructuredText": (
        f".. code-block:: bash\n\n   docker run {IMAGE}:3.3.7 \\\n     --model-id gpt2 --dtype auto\n",
        "page.rst",
        [(4, "TGI103")],
    ),
    "folded without quotes": (
        f"services:\n  tgi:\n    image: {IMAGE}:3.3.7\n    command: --model-id gpt2 \\\n      --port 80\n",
        "compose.yaml",
        [(4, "TGI512")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_certain_is_an_error_at_its_line(name: str) -> None:
    text, file, expected = WRONG[name]
    assert said(text, file) == expected


def test_a_key_twice_is_refused_by_compose_and_only_lost_elsewhere() -> None:
    container = f"    image: {IMAGE}:3.3.7\n    environment: {{MODEL_ID: gpt2}}\n    environment: {{MODEL_ID: gpt2}}\n"
    assert said(f"services:\n  tgi:\n{container}", "compose.yaml") == [(5, "TGI511")]
    assert said(f"experiments:\n  tgi:\n{container}", "bench.yaml") == []
    assert (5, "TGI511") in said(f"experiments:\n  tgi:\n{container}", "bench.yaml", "warning")


@pytest.mark.parametrize("words", ["--help", "--env", "--version"])
def test_asking_the_launcher_for_help_names_no_model(words: str) -> None:
    assert said(f"text-generation-launcher {words}\n", "run.sh", "warning") == []


def test_an_image_that_is_no_longer_made_says_what_follows_it() -> None:
    text = "docker run --runtime=habana -p 80:80 -v $PWD:/data ghcr.io/huggingface/tgi-gaudi:2.3.1 --model-id gpt2\n"
    found = findings(text, "run.sh")
    assert any("it is no longer made: TGI's own images that end in -gaudi follow it" in one.message for one in found)


TEMPLATE = (
    "docker run --gpus all --shm-size {{ shm }} -p {{port}}:80 -v '{{dir}}':/data \\\n  "
    + IMAGE
    + ":3.3.7 --model-id {{ model }} \\\n"
    "{% if shards %}\n  --num-shard {{ shards }} \\\n{% else %}\n  --num-shard 1 \\\n{% endif %}\n"
    '  --max-total-tokens "{{total}}" --max-input-tokens @@INPUT@@ --dtype <%= dtype %> --port __PORT__\n'
)
PAGE = (
    "```bash\ntoken=<your cli READ token>\ndocker run --gpus all --shm-size 1g -e HF_TOKEN=hf_xxx -v <dir>:/data \\\n"
    f'  {IMAGE}:3.3.7 --model-id "<your model>" --num-shard N\n```\n'
)
QUIET = {
    "a template engine's words": (TEMPLATE, "serve.template.slurm"),
    "a page's blanks": (PAGE, "page.md"),
    "variables that are exported": (
        "export MODEL_ID=$1\nexport PORT=80\ntext-generation-launcher --json-output\n", "run.sh",
    ),
    "a model that the script asks for": (
        'if [ -z "$MODEL_ID" ]; then\n  exit 1\nfi\ntext-generation-launcher --json-output\n', "entrypoint.sh",
    ),
    "an environment that is sourced": (". /etc/tgi\ntext-generation-launcher --json-output\n", "entrypoint.sh"),
    "the arguments of IBM's fork": (
        "serve:\n\ttext-generation-launcher --model-name org/m --dtype-str float16 --grpc-port 8033\n", "Makefile",
    ),
    "a manifest that the shell fills in": (
        "kubectl apply -f - <<EOF\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n"
        f"    - name: a\n      image: {IMAGE}:3.3.7\n"
        "      args: [--model-id, $MODEL, --num-shard, '${N}', --dtype, $(dtype)]\n"
        "      resources: {limits: {nvidia.com/gpu: $N}}\n      volumeMounts: [{name: d, mountPath: /data}]\n"
        "  volumes: [{name: d, hostPath: {path: $DIR}}]\nEOF\n",
        "deploy.sh",
    ),
    "another server on Cloud Run": ("gcloud run deploy a --image vllm/vllm-openai:v1 --args=--model=org/m\n", "run.sh"),
    "a launcher that is built and ended": (
        'cargo install --git "https://example.com/$REPO" --branch "$REF" text-generation-launcher\n'
        'pkill -f "text-generation-launcher"\nif ! command -v text-generation-launcher; then\n  exit 1\nfi\n',
        "ci.sh",
    ),
    "the help": (f"docker run {IMAGE}:3.3.7 --help\n", "run.sh"),
    "the version": (f"podman run {IMAGE}:3.3.7 -V\n", "page.md"),
    "what a workflow builds and scans": (
        "on: [push]\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n"
        "        with: {repository: huggingface/text-generation-inference}\n"
        f"      - uses: scan@v1\n        with: {{image-ref: '{IMAGE}:latest', images: '{IMAGE}'}}\n",
        "build.yml",
    ),
    "a bill of materials": (f'{{"bomFormat": "CycloneDX", "components": [{{"image": "{IMAGE}"}}]}}\n', "bom.json"),
    "a service that others extend": (
        f"services:\n  base:\n    image: {IMAGE}:3.3.7\n    environment: {{HF_HUB_ENABLE_HF_TRANSFER: '1'}}\n"
        "    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}\n"
        "  a:\n    extends: base\n    shm_size: 1g\n    volumes: ['./data:/data']\n    command: --model-id gpt2\n"
        "  b:\n    extends: {service: base}\n    shm_size: 1g\n    volumes: ['./data:/data']\n"
        "    command: --model-id gpt2\n",
        "compose.yaml",
    ),
    "shards that the chart may state": (
        "tgi:\n  image: {repository: ghcr.io/huggingface/tgi-gaudi, tag: 2.3.1}\n"
        "  extraCmdArgs: [--max-input-tokens, '1024']\n  resources: {limits: {habana.ai/gaudi: 4}}\n",
        "gaudi-values.yaml",
    ),
    "usage": (
        "```\ntext-generation-launcher --model-id <MODEL> [--num-shard N] [OPTIONS]\n```\n", "page.md",
    ),
    "another server's limits": ("docker run me/serve --model-id org/m --adapter-id a --max-total-tokens 9\n", "run.sh"),
}  # fmt: skip


@pytest.mark.parametrize("name", QUIET)
def test_what_is_written_for_others_is_no_fault(name: str) -> None:
    text, file = QUIET[name]
    assert said(text, file, "warning") == []


LIMITS = "--max-input-tokens 9 --max-total-tokens 9"
HELD = {
    "before the command": (
        "MODEL_ID=gpt2 MAX_INPUT_TOKENS=9 \\\n  MAX_TOTAL_TOKENS='9' text-generation-launcher\n", 1,
    ),
    "behind a name": (f"PORT=80 exec text-generation-launcher --model-id gpt2 {LIMITS}\n", 1),
    "exported": (
        "export MODEL_ID=gpt2 MAX_INPUT_TOKENS=9\ndeclare -x MAX_TOTAL_TOKENS=9\ntext-generation-launcher\n", 1,
    ),
    "Apptainer runs": (f"apptainer run --nv docker://{IMAGE}:3.3.7 --model-id gpt2 {LIMITS}\n", 1),
    "Singularity executes": (
        f"singularity exec --nv tgi.sif \\\n text-generation-launcher --model-id gpt2 {LIMITS}\n", 2,
    ),
    "srun in an image": (
        f"srun --container-image={IMAGE}:3.3.7 text-generation-launcher --model-id gpt2 {LIMITS}\n", 1,
    ),
    "Cloud Run": (
        f"IMG={IMAGE}:2.3.1\ngcloud beta run deploy chat --image=$IMG --gpu=1 \\\n"
        "  --set-env-vars=MODEL_ID=gpt2,MAX_INPUT_TOKENS=9 --args='^;^--max-total-tokens;9'\n", 3,
    ),
    "a manifest between two marks": (
        "N=9\nkubectl apply -f - <<EOF\napiVersion: v1\nkind: Pod\nmetadata: {name: $NAME}\nspec:\n  containers:\n"
        f"    - image: {IMAGE}:3.3.7\n"
        "      args: [--model-id, gpt2, --max-input-tokens, '9', --max-total-tokens, \"$N\"]\n"
        "EOF\n", 9,
    ),
    "a Compose file between two marks": (
        f"cat > a.yaml <<-'END'\nservices:\n  tgi:\n    image: {IMAGE}:3.3.7\n    command: --model-id gpt2 {LIMITS}\n"
        "END\n", 5,
    ),
    "an image of one's own": (f"podman run acme/llm:3 --model-id gpt2 {LIMITS}\n", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_what_a_launcher_is_given_around_it_is_judged_at_its_place(name: str) -> None:
    text, line = HELD[name]
    assert said(text, "run.sh") == [(line, "TGI110")]
    found = findings(text, "run.sh")
    place = next(one.place for one in found if one.code == "TGI110")
    before = text.splitlines()[line - 1][: place.column - 1]
    assert before.endswith(("--max-input-tokens ", "--max-input-tokens, ", "MAX_INPUT_TOKENS="))


def test_the_service_of_a_workflow_is_a_server() -> None:
    image = f"        image: {IMAGE}:3.3.7\n        env: {{MAX_WAITING_TOKENS: a}}\n"
    assert said(f"on: push\njobs:\n  a:\n    services:\n      tgi:\n{image}", "ci.yml") == [(7, "TGI103")]
