"""Files that are right by TGI's rules but written in a surprising way, each beside one that is wrong."""

from __future__ import annotations

import pytest
from judged import errors, findings

from tgi_advisor.validate.read import read

IMAGE = "ghcr.io/huggingface/text-generation-inference"
RUN = "docker run --gpus all --shm-size 1g -p 8080:80 -v hub:/data"


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
SERVICE = f"services:\n  tgi:\n    image: {IMAGE}:3.3.7\n    gpus: all\n    volumes: ['hub:/data']\n"

WORKING = {
    "marks of sed, m4 and Python in a pod": (
        POD % '      args: [--model-id, "__MODEL__", --num-shard, "@SHARDS@", --max-total-tokens, "%(total)s"]\n'
        '      env: [{name: QUANTIZE, value: "#{Quant}#"}, {name: DTYPE, value: "$dtype"}, '
        '{name: MAX_INPUT_TOKENS, value: "[[ input ]]"}, {name: VALIDATION_WORKERS, value: "<workers>"}]',
        "pod.yaml",
    ),
    "marks in a Compose file's environment": (
        SERVICE + '    environment: {MODEL_ID: "@@MODEL@@", NUM_SHARD: __SHARDS__, MAX_TOTAL_TOKENS: "[[total]]"}\n',
        "compose.yaml",
    ),
    "branches of Jinja among docker's options": (
        f"docker run --gpus all {{% if token %}}-e HF_TOKEN={{{{ token }}}}{{% endif %}} -v {{{{ data }}}}:/data \\\n"
        f"  {IMAGE}:{{{{ release }}}} --model-id {{{{ model }}}} --num-shard {{{{ gpus | length }}}}\n",
        "run.sh.j2",
    ),
    "a program of TGI's image that is no server": (
        POD % "      command: [text-generation-benchmark]\n      args: [--tokenizer-name, gpt2, --batch-size, '1']",
        "pod.yaml",
    ),
    "a script that starts the launcher": (POD % "      command: [sh, /start.sh]", "pod.yaml"),
    "the same on a platform of no reader of its own": (
        f"name: llm\ncontainer: {{image: '{IMAGE}:3.3.7', command: [bash, /start.sh, gpt2]}}\n",
        "app.yaml",
    ),
    "a privileged container sees every GPU, by the host's numbers": (
        f"docker run --privileged --gpus '\"device=2\"' -e CUDA_VISIBLE_DEVICES=2 {IMAGE}:3.3.7 --model-id gpt2\n"
        f"docker run --privileged --gpus 1 {IMAGE}:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 2\n",
        "run.sh",
    ),
    "a proxy in the server's network": (
        SERVICE + "    command: --model-id gpt2\n    ports: ['8443:8443']\n"
        "  proxy: {image: 'caddy:2', network_mode: 'service:tgi'}\n",
        "compose.yaml",
    ),
    "a proxy in the container's network": (
        f"docker run -d --name tgi -p 443:443 --gpus all {IMAGE}:3.3.7 --model-id gpt2\n"
        "docker run -d --network container:tgi caddy:2\n",
        "run.sh",
    ),
    "another container's volumes": (f"{RUN} --volumes-from weights {IMAGE}:3.3.7 --model-id /weights/x\n", "run.sh"),
    "another service's volumes": (
        SERVICE + "    volumes_from: [weights]\n    command: --model-id /weights/x\n",
        "compose.yaml",
    ),
    "weights that are copied into the container": (
        f"docker create --name tgi --gpus all {IMAGE}:3.3.7 --model-id /model\ndocker cp ./m tgi:/model\n",
        "run.sh",
    ),
    "weights that are fetched before the launcher runs": (
        f'docker run --gpus all --entrypoint bash {IMAGE}:3.3.7 -c "huggingface-cli download org/m --local-dir /m '
        '&& text-generation-launcher --model-id /m --port 80"\n',
        "run.sh",
    ),
    "a base that is not there": (
        "services:\n  tgi:\n    extends: {file: ../base.yaml, service: tgi}\n"
        f"    image: {IMAGE}:3.3.7\n    command: --model-id /models/x --lora-adapters a=/adapters/a\n",
        "compose.yaml",
    ),
    "an override whose base is not there": (
        f"services:\n  tgi:\n    image: {IMAGE}:3.3.7\n    command: --model-id /models/x\n",
        "docker-compose.override.yml",
    ),
    "another hub": (
        f"docker run --gpus all -e HF_ENDPOINT=https://hub.example.org {IMAGE}:3.3.7 --model-id "
        "meta-llama/Llama-3.1-8B-Instruct\n"
        f"{RUN} -e HF_ENDPOINT=https://hub.example.org {IMAGE}:3.3.7 --model-id meta-llama/Llama-3.2-8B-Instruct\n",
        "run.sh",
    ),
    "an image of one's own may hold a token": (
        "docker run --gpus all registry.example.org/text-generation-inference:latest --model-id "
        "meta-llama/Llama-3.1-8B-Instruct\n",
        "run.sh",
    ),
    "AMD's GPUs by --gpus": (f"{RUN} {IMAGE}:3.3.7-rocm --model-id gpt2\n", "run.sh"),
    "variables that a condition, a line that is read or a sourced file may change": (
        f'IN=8192; if [ -n "$1" ]; then IN=$1; fi; {RUN} {IMAGE}:3.3.7 --model-id org/m --max-input-tokens $IN '
        "--max-total-tokens 8192\n"
        f'Q=none; [ "$2" ] && Q=$2\n{RUN} {IMAGE}:3.3.7 --model-id org/m --quantize $Q\n'
        f"case $3 in\n  small) Q=awq;;\nesac\n{RUN} {IMAGE}:3.3.7 --model-id org/m --quantize $Q\n"
        f'N=none\nread -r M N <<< "$LINE"\n{RUN} {IMAGE}:3.3.7 --model-id $M --num-shard $N\n'
        f"N=none\nsource ./settings.sh\n{RUN} {IMAGE}:3.3.7 --model-id org/m --num-shard $N\n",
        "run.sh",
    ),
    "variables of a batch file and of PowerShell that a condition changes": (
        f'set N=none\r\nif not "%1"=="" set N=%1\r\n{RUN} {IMAGE}:3.3.7 --model-id org/m --num-shard %N%\r\n',
        "run.bat",
    ),
    "the same in PowerShell": (
        f'$n = "none"\nif ($args[0]) {{ $n = $args[0] }}\n{RUN} {IMAGE}:3.3.7 --model-id org/m --num-shard $n\n',
        "run.ps1",
    ),
    "an option that is there where its variable is": (
        f"N=\n{RUN} {IMAGE}:3.3.7 --model-id org/m ${{N:+--num-shard $N}}\n"
        f"N=2\ndocker run --gpus 2 --shm-size 1g -v hub:/data {IMAGE}:3.3.7 --model-id org/m ${{N:+--num-shard $N}}\n"
        f"S=${{S:-}}\n{RUN} {IMAGE}:3.3.7 --model-id org/m ${{S:+--num-shard $S}}\n",
        "run.sh",
    ),
    "branches that each add to an array": (
        f"A=(--model-id org/m)\nif [ $1 = a ]; then\n  A+=(--quantize awq)\nelse\n  A+=(--quantize gptq)\nfi\n"
        f'[ $2 ] && A+=(--quantize eetq)\n{RUN} {IMAGE}:3.3.7 "${{A[@]}}"\n',
        "run.sh",
    ),
    "what is only printed": (
        f"usage() {{\n  cat <<EOF >&2\ndocker run {IMAGE}:<tag> --model-id <model> --quantize <awq|gptq>\nEOF\n}}\n"
        f'[ $1 ] || {{ echo "docker run {IMAGE}:3.3.7 --model-id gpt2 --bar"; exit 1; }}\n'
        f"{RUN} {IMAGE}:3.3.7 --model-id gpt2\n",
        "run.sh",
    ),
    "releases before 1.0.0 have flags of their own": (
        f"{RUN} {IMAGE}:0.9.4 --model-id gpt2 --max-batch-prefill-tokens 4096 --dtype float16\n"
        f"{RUN} {IMAGE}:0.8.2 --model-id gpt2 --max-batch-size 32 --quantize bitsandbytes\n"
        f"{RUN} -e MAX_BATCH_SIZE=3 {IMAGE}:0.5 --model-id gpt2 --quantize --num-shard 1\n"
        f"{RUN} -e QUANTIZE=true {IMAGE}:0.6.0 --model-id gpt2\n",
        "run.sh",
    ),
    "a name that holds the launcher's in a text": (
        POD % "      args: [--model-id, gpt2]\n    - name: wait\n      image: curlimages/curl\n"
        "      command: [sh, -c, \"text='text-generation-launcher ready'; echo $text\"]",
        "pod.yaml",
    ),
    "a port that the script sets before the launcher": (
        f"resources: {{accelerators: L4, ports: 8080, image_id: 'docker:{IMAGE}:3.3.7'}}\n"
        "run: |\n  export PORT=8080\n  text-generation-launcher --model-id gpt2\n",
        "sky.yaml",
    ),
    "the same in a container's shell": (
        f'{RUN} -p 8081:9000 --entrypoint bash {IMAGE}:3.3.7 -c "export PORT=9000 && '
        'text-generation-launcher --model-id gpt2"\n'.replace("-p 8080:80 ", ""),
        "run.sh",
    ),
    "a text that goes nowhere, a comment between arguments": (
        f": <<'EOF'\n{RUN} {IMAGE}:3.3.7 --bar\nEOF\n{RUN} `# the image` {IMAGE}:3.3.7 --model-id gpt2\n",
        "run.sh",
    ),
    "a name for a command, and what xargs fills in": (
        f"echo 'alias tgi=\"{RUN} {IMAGE}:3.3.7 --model-id\"' >> ~/.bashrc\nalias tgi='{RUN} {IMAGE}:3.3.7'\n"
        f"xargs -I% {RUN} {IMAGE}:3.3.7 --model-id % --num-shard 1 < models.txt\n"
        f"parallel {RUN} {IMAGE}:3.3.7 --model-id {{1}} --num-shard {{2}} ::: a b ::: 1 2\n",
        "run.sh",
    ),
    "a sum of PowerShell": (f"$n = 2\n{RUN} {IMAGE}:3.3.7 --model-id gpt2 --num-shard $($n * 2)\n", "run.ps1"),
    "a development container": (
        f'{{"image": "{IMAGE}:3.3.7", "runArgs": ["--gpus", "all", "--shm-size=1g"]}}\n',
        "devcontainer.json",
    ),
    "what a page leaves to its reader": (
        f"```\n{RUN} {IMAGE}:3.3.7 --model-id MODEL_ID --num-shard NUM_SHARD\n{RUN} {IMAGE}:3.3.7 [...] --model-id "
        f"$model \u2026\ntext-generation-launcher --model-id <> --quantize <awq|gptq>\n```\n",
        "page.md",
    ),
    "what Python fills in, and what it only prints": (
        f'import os, subprocess\nos.system("{RUN} {IMAGE}:3.3.7 --model-id %s --num-shard %d" % (model, n))\n'
        f'command = f"""\n{RUN} {IMAGE}:3.3.7 --model-id {{m}} {{\'\' if q == "none" else f"--quantize {{q}}"}}\n"""\n'
        f'print("docker run {IMAGE}:3.3.7 --model-id MODEL --whatever")\n',
        "run.py",
    ),
    "a privileged container of Docker's SDK": (
        f'import docker\ndocker.from_env().containers.run(image="{IMAGE}:3.3.7", command="--model-id gpt2", '
        'privileged=True, volumes=["hub:/data"], environment=["CUDA_VISIBLE_DEVICES=2"], '
        'device_requests=[docker.types.DeviceRequest(device_ids=["2"], capabilities=[["gpu"]])])\n',
        "run.py",
    ),
    "a branch of Terraform's in a script": (
        f'{RUN} {IMAGE}:3.3.7 --model-id ${{model}} %{{ if quantize != "" }}--quantize ${{quantize}}%{{ endif }}\n',
        "user_data.sh.tpl",
    ),
    "a comment between the lines of a unit's command": (
        f"[Service]\nExecStart=/usr/bin/{RUN} \\\n  {IMAGE}:3.3.7 --model-id gpt2 \\\n  # shards\n  --num-shard 1\n",
        "tgi.service",
    ),
    "JSON with comments": (
        f'{{\n  // the model\n  "image": "{IMAGE}:3.3.7", /* its\n  port */ "args": ["--model-id", "gpt2"],\n}}\n',
        "app.json",
    ),
    "values that a chart leaves empty": (
        f"tgi:\n  image: {{repository: {IMAGE}, tag: 3.3.7}}\n  env: {{MODEL_ID: '', QUANTIZE: ''}}\n",
        "values.yaml",
    ),
    "an environment file to be filled in": (
        f"MODEL_ID=\nNUM_SHARD=\nQUANTIZE=\nTGI_IMAGE={IMAGE}:3.3.7\n",
        ".env.example",
    ),
    "a sum in an environment file that a shell reads": (
        "MODEL_ID=org/m\nMAX_TOTAL_TOKENS=$((2048 + 512))\n",
        "tgi.env",
    ),
    "what a shell within a shell fills in": (
        f"cat <<EOF > tgi.service\nExecStart=/usr/bin/{RUN} {IMAGE}:3.3.7 --model-id gpt2 --num-shard \\${{N}}\nEOF\n",
        "install.sh",
    ),
    "sums": (
        f"T=10\n((T*=100))\n{RUN} {IMAGE}:3.3.7 --model-id org/m --max-input-tokens 100 --max-total-tokens $T\n"
        f"T=10; let T=T*100; {RUN} {IMAGE}:3.3.7 --model-id org/m --max-input-tokens 100 --max-total-tokens $T\n"
        f"declare -i U=T*4\n{RUN} {IMAGE}:3.3.7 --model-id org/m --max-total-tokens $U\n",
        "run.sh",
    ),
    "a command for another shell": (
        f'ssh gpu "N=2; {RUN} {IMAGE}:3.3.7 --model-id \\$M --num-shard \\$(nvidia-smi -L | wc -l)"\n',
        "run.sh",
    ),
    "texts that a variable holds, and words that are only printed": (
        f"HELP=$(cat <<'EOF'\ndocker run {IMAGE}:3.3.7 --model-id <id> --foo\nEOF\n)\n"
        f"read -r -d '' MORE <<'EOF'\ndocker run {IMAGE}:3.3.7 --model-id <id> --foo\nEOF\n"
        f"echo docker run {IMAGE}:3.3.7 --model-id x --foo\n>&2 echo 'docker run {IMAGE}:3.3.7 --foo'\n"
        f"{RUN} {IMAGE}:3.3.7 --model-id gpt2\n",
        "run.sh",
    ),
    "an image that is built beside it": (
        f"services:\n  tgi:\n    build: .\n    image: {IMAGE}:local\n    gpus: all\n"
        "    command: --model-id /baked --my-flag 3\n",
        "compose.yaml",
    ),
    "a config that is mounted": (
        SERVICE + "    command: --model-id /models/x\n    configs: [{source: x, target: /models/x}]\n",
        "compose.yaml",
    ),
    "CircleCI's and Ruby's marks": (
        f"jobs: {{e2e: {{steps: [{{run: '{RUN} {IMAGE}:3.3.7 --model-id << parameters.m >> --num-shard 1'}}]}}}}\n",
        "config.yml",
    ),
    "a command of Ruby's": (f'system "{RUN} {IMAGE}:3.3.7 --model-id #{{model}} --num-shard #{{n}}"\n', "deploy.rb"),
    "a value that is put behind a string": (
        f'os.execute("{RUN} {IMAGE}:3.3.7 --model-id " .. model)\n',
        "run.lua",
    ),
    "the same in Python, and what a parser's help says": (
        f'ok = "text-generation-launcher --num-shard 1 --model-id" in text\n'
        f'parser.add_argument("--x", help="docker run {IMAGE}:3.3.7 --model-id ... --foo")\n',
        "run.py",
    ),
    "a page of the web": (
        f"<pre><code>{RUN} {IMAGE}:3.3.7 \\\n --model-id gpt2</code></pre><p>text-generation-launcher --model-id "
        "&lt;x&gt;</p><code>text-generation-launcher --model-id gpt2</code>\n",
        "index.html",
    ),
    "variables that an image's own script fills in": (
        f'FROM {IMAGE}:3.3.7\nENV QUANTIZE="" MODEL_ID=""\nENTRYPOINT ["/entry.sh"]\n',
        "Dockerfile",
    ),
}

WRONG = {
    "what Kubernetes does not expand": (
        POD % "      env: [{name: SHARDS, value: '1'}]\n      args: [--model-id, gpt2, --num-shard, $SHARDS]",
        "pod.yaml",
        ["TGI103"],
    ),
    "arguments of the launcher behind a program": (
        POD % "      command: [text-generation-launcher]\n      args: [--model-id, gpt2, --batch-size, '1']",
        "pod.yaml",
        ["TGI101"],
    ),
    "more shards than GPUs": (
        f"docker run --gpus 1 --shm-size 1g -v hub:/data {IMAGE}:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct "
        "--num-shard 2\n",
        "run.sh",
        ["TGI143"],
    ),
    "a port nobody else answers on": (
        SERVICE + "    command: --model-id gpt2\n    ports: ['8443:8443']\n"
        "  proxy: {image: 'caddy:2', network_mode: 'service:other'}\n",
        "compose.yaml",
        ["TGI308"],
    ),
    "weights that are copied elsewhere": (
        f"docker create --name tgi --gpus all {IMAGE}:3.3.7 --model-id /model\ndocker cp ./m tgi:/data\n",
        "run.sh",
        ["TGI136"],
    ),
    "the Hub itself": (
        f"docker run --gpus all -e HF_ENDPOINT=https://huggingface.co {IMAGE}:3.3.7 --model-id "
        "meta-llama/Llama-3.1-8B-Instruct\n",
        "run.sh",
        ["TGI403"],
    ),
    "a variable that stays": (
        f"IN=8192; OUT=8192\n[ $1 ] && NAME=x\nread -r LINE\n{RUN} {IMAGE}:3.3.7 --model-id org/m "
        "--max-input-tokens $IN --max-total-tokens 8192\n",
        "run.sh",
        ["TGI110"],
    ),
    "flags that a release before 1.0.0 does not have": (
        f"{RUN} {IMAGE}:0.9.4 --model-id gpt2 --max-batch-size 32\n{RUN} {IMAGE}:0.8.2 --model-id gpt2 --quantize\n"
        f"{RUN} {IMAGE}:0.6.0 --model-id gpt2 --quantize bitsandbytes\n"
        f"{RUN} {IMAGE}:0.8 --model-id gpt2 --dtype float16\n",
        "run.sh",
        ["TGI101", "TGI106", "TGI102", "TGI101"],
    ),
    "an option whose variable is set": (
        f"N=two\n{RUN} {IMAGE}:3.3.7 --model-id org/m ${{N:+--num-shard $N}}\n",
        "run.sh",
        ["TGI103"],
    ),
    "an array that every run adds to": (
        f'A=(--quantize awq)\nA+=(--quantize gptq)\n{RUN} {IMAGE}:3.3.7 --model-id org/m "${{A[@]}}"\n',
        "run.sh",
        ["TGI105"],
    ),
    "what is printed into a file that is run": (
        f'echo "docker run {IMAGE}:3.3.7 --model-id gpt2 --bar" > run.sh\n'
        f"cat <<EOF > start.sh\ndocker run {IMAGE}:3.3.7 --model-id gpt2 --bar\nEOF\n",
        "make.sh",
        ["TGI101", "TGI101"],
    ),
    "an environment file that is read as it is": ("MODEL_ID=org/m\nQUANTIZE=\n", "tgi.env", ["TGI104"]),
    "JSON whose comments hide nothing": (
        f'{{"image": "{IMAGE}:3.3.7", "url": "http://x", "args": ["--model-id", "gpt2", "--foo"]}}\n',
        "app.json",
        ["TGI101"],
    ),
    "a unit's command behind a comment": (
        f"[Service]\n# shards\nExecStart=/usr/bin/{RUN} \\\n  {IMAGE}:3.3.7 --model-id gpt2 --foo\n",
        "tgi.service",
        ["TGI101"],
    ),
    "a page of the web whose command is wrong": (
        f"<pre>{RUN} {IMAGE}:3.3.7 --model-id gpt2 --foo</pre>\n",
        "index.html",
        ["TGI101"],
    ),
    "variables that nothing fills in": (
        f'FROM {IMAGE}:3.3.7\nENV QUANTIZE="" MODEL_ID=gpt2\n',
        "Dockerfile",
        ["TGI104"],
    ),
    "a flag without its value at the end of a script": (f"{RUN} {IMAGE}:3.3.7 --model-id\n", "run.sh", ["TGI106"]),
}


@pytest.mark.parametrize("name", WORKING)
def test_what_works_has_no_error(name: str) -> None:
    text, file = WORKING[name]
    assert errors(text, file) == []


@pytest.mark.parametrize(
    "program",
    [
        'entrypoint: ["/bin/sh", "-c"]\n    command: ["text-generation-launcher --model-id $$MODEL_ID {}"]',
        'entrypoint: ["/bin/sh", "-c", "text-generation-launcher --model-id $$MODEL_ID --num-shard ${{N:-1}} {}"]',
        'entrypoint: sh -c "N=$$(nproc); text-generation-launcher --model-id gpt2 --validation-workers $$N {}"',
    ],
)
def test_a_shell_in_a_compose_file_has_single_dollars(program: str) -> None:
    good, bad = (SERVICE + f"    environment: [MODEL_ID=gpt2]\n    {program.format(limits)}\n" for limits in (
        "--max-total-tokens 900 --max-input-tokens 800", "--max-total-tokens 900 --max-input-tokens 1000"))  # fmt: skip
    assert not errors(good, "compose.yaml")
    assert "TGI110" in errors(bad, "compose.yaml")


def test_an_environment_made_with_dict_is_one_server() -> None:
    text = (
        'env = dict(HF_MODEL_ID="gpt2", SM_NUM_GPUS=json.dumps(1))\n'
        'm = HuggingFaceModel(env=env, image_uri=get_huggingface_llm_image_uri("huggingface", version="2.0.2"))\n'
    )
    assert len(read(text, "deploy.py").servers) == 1


@pytest.mark.parametrize("name", ["Makefile", "serve.mk"])
def test_a_makefile_asks_a_shell_with_two_dollars(name: str) -> None:
    text = (
        f"IMAGE := {IMAGE}:2.4.1\nrun:\n\tdocker run --gpus all -v $$(pwd):/data $(IMAGE) --model-id gpt2 \\\n\t{{}}\n"
    )
    assert not errors(text.format("--max-total-tokens 900 --max-input-tokens 800"), name)
    assert errors(text.format("--max-total-tokens 900 --max-input-tokens 1000"), name) == ["TGI110"]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_beside_it_keeps_its_error(name: str) -> None:
    text, file, codes = WRONG[name]
    assert errors(text, file) == codes


@pytest.mark.parametrize(
    ("text", "file", "code"),
    [
        (f"services:\n  tgi:\n    image: {IMAGE}:3.3.7\n    gpus: all\n", "docker-compose.gpu.yml", "TGI130"),
        (
            f"docker run --gpus all -v $PWD/models:/usr/src/models {IMAGE}:3.3.7 --model-id models/x\n",
            "run.sh",
            "TGI322",
        ),
        ("apptainer exec --nv tgi_2.0.sif text-generation-launcher --model-id gpt2\n", "run.sh", "TGI502"),
    ],
)
def test_what_another_file_or_the_host_says_is_no_warning(text: str, file: str, code: str) -> None:
    found = findings(text, file)
    assert code not in {one.code for one in found}
