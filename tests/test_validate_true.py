"""An error is true: files that work although one part of them, taken alone, would not, each kind in several ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from front import run
from judged import errors, findings

IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.7"
RUN = f"docker run --gpus all --shm-size 1g -p 8080:80 -v $PWD/d:/data {IMAGE} --model-id org/m"
LAUNCH = "text-generation-launcher --model-id org/m"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(here: Path, files: dict[str, str], *named: str) -> list[tuple[str, str, str]]:
    """File, severity and code of what is found in these files."""
    for file, text in files.items():
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text(text, encoding="utf-8")
    ran = run("validate", *(named or sorted(files)), "-f", "json")
    return [(one["file"], one["severity"], one["code"]) for one in json.loads(ran.out)["findings"]]


# -- another program under the launcher's name


BUILT = """\
FROM nvidia/cuda:12.8.0-cudnn-devel-ubuntu24.04 AS builder
RUN cargo build --release --package text-generation-backends-trtllm
FROM {base} AS runtime
COPY --from=builder /usr/src/target/release/{program} /usr/local/tgi/bin/text-generation-launcher
FROM runtime
ENTRYPOINT ["./text-generation-launcher"]
CMD [{arguments}]
"""
CUDA, TENSORRT = "nvidia/cuda:12.8.0-cudnn-runtime-ubuntu24.04", "nvcr.io/nvidia/tensorrt:24.10-py3"
WORKER = '"--executor-worker", "/usr/local/tgi/bin/executorWorker"'


@pytest.mark.parametrize(
    ("base", "program", "arguments"),
    [
        (CUDA, "text-generation-backends-trtllm", WORKER),
        (CUDA, "text-generation-router-llamacpp", '"--n-threads", "8"'),
        (TENSORRT, "launcher", '"--max-engines", "1"'),
        (CUDA, "text-generation-launcher", '"--flag-of-a-fork", "1"'),
        (CUDA, "text-generation-launcher", f'"--model-id", "org/m", {WORKER}'),
    ],
)
def test_the_launcher_of_another_back_end_is_not_judged(base: str, program: str, arguments: str) -> None:
    text = BUILT.format(base=base, program=program, arguments=arguments)
    assert [errors(text, name) for name in ("Dockerfile_trtllm", "trtllm/Dockerfile", "x.dockerfile")] == [[]] * 3


def test_one_that_stands_on_tgis_image_is() -> None:
    assert errors(BUILT.format(base=IMAGE, program="x", arguments=WORKER), "Dockerfile") == ["TGI101"]
    assert errors(f"FROM {IMAGE}\nCMD [{WORKER}]\n", "Dockerfile") == ["TGI101"]


def test_flags_of_another_back_end_tell_it() -> None:
    assert errors(f"{LAUNCH} --executor-worker /x/executorWorker\n", "run.sh") == []
    assert errors(f"{LAUNCH} --model-gguf m.gguf --n-gpu-layers 99\n", "run.sh") == []
    assert errors(f"{RUN} --executor-worker /x\n", "run.sh") == ["TGI101"]


# -- files of git, linters and editors


ATTRIBUTES = "*.bin filter=lfs -text\nbin/text-generation-launcher filter=lfs diff=lfs merge=lfs -text\n"
NAMES = {
    ".gitattributes": ATTRIBUTES,
    "bin/.gitattributes": "text-generation-launcher -text -diff\n",
    ".gitignore": "/target/release/text-generation-launcher\ntext-generation-launcher\n",
    ".dockerignore": f"{LAUNCH}\n",
    ".git-blame-ignore-revs": f"# {LAUNCH}\ntext-generation-launcher\n",
    "CODEOWNERS": "text-generation-launcher --everybody @org/team\n",
    ".github/CODEOWNERS": f"{LAUNCH} --bad\n",
    ".editorconfig": f"[{LAUNCH} --bad]\nindent_style = tab\n",
    ".pre-commit-config.yaml": f"repos: [{{repo: local, hooks: [{{id: a, entry: {LAUNCH} --bad}}]}}]\n",
    ".codespellrc": f"[codespell]\nskip = {LAUNCH} --bad\n",
    "requirements.txt": "text-generation-launcher --hash=sha256:00\n",
    "poetry.lock": f"# {LAUNCH}\n{LAUNCH} --bad\n",
    "LICENSE": f"{LAUNCH} --bad\n",
}


def test_what_git_and_linters_read_starts_nothing(here: Path) -> None:
    assert said(here, NAMES) == []
    assert json.loads(run("validate", *NAMES, "-f", "json").out)["servers"] == []


@pytest.mark.parametrize("file", ["attributes.txt", "weights.md", "list", "setup.sh"])
def test_attributes_are_told_by_their_form(file: str, here: Path) -> None:
    assert said(here, {file: ATTRIBUTES}) == []


def test_files_with_like_names_are_read(here: Path) -> None:
    names = (".gitlab-ci.yml", "package.json", "lock.sh", "git.sh", "ignore.txt", "requirements.sh")
    texts = {".gitlab-ci.yml": f"tgi: {{script: ['{LAUNCH} --bad']}}\n", "package.json": f'{{"a": "{LAUNCH} --bad"}}\n'}
    found = said(here, {name: texts.get(name, f"{LAUNCH} --bad\n") for name in names})
    assert sorted(file for file, _, code in found if code == "TGI101") == sorted(names)


# -- values that a condition rules out


ELSE = f'if %s; then\n  {RUN}\nelse\n  {RUN} --quantize "$Q"\nfi\n'
THEN = f'if %s; then\n  {RUN} --quantize "$Q"\nfi\n'
GUARDED = {
    "not the default": "Q=default\n" + THEN % '[ "$Q" != default ]',
    "the default first": f"Q=default\n{ELSE % '[[ $Q == default ]]'}",
    "a default of its own": f'if [ "${{Q:-none}}" != "none" ]; then\n  {RUN} --quantize "${{Q:-none}}"\nfi\n',
    "behind and": f'Q=default\n[ "$Q" != default ] && {RUN} --quantize $Q\n',
    "behind and, on the next line": f'Q=default\n[ "$Q" != default ] && \\\n  {RUN} --quantize $Q\n',
    "behind or": f'Q=default\ntest "$Q" = default || {RUN} --quantize $Q\n',
    "something": f'N=\ntest -n "$N" && exec {LAUNCH} --num-shard "$N"\n',
    "something alone": f'N=\nif [ "$N" ]; then\n  {RUN} --num-shard "$N"\nfi\n',
    "nothing first": f'N=""\nif [ -z "$N" ]; then\n  {RUN}\nelse\n  {RUN} --num-shard "$N"\nfi\n',
    "a pattern": f'Q=default\ncase "$Q" in\n  default) {RUN} ;;\n  *) {RUN} --quantize "$Q" ;;\nesac\n',
    "on one line": f'Q=default\nif [ "$Q" != default ]; then {RUN} --quantize "$Q"; else {RUN}; fi\n',
    "else on one line": f'Q=default\nif [ "$Q" = default ]; then {RUN}; else {RUN} --quantize "$Q"; fi\n',
    "what leaves before": f'Q=default\nif [ "$Q" = default ]; then\n  echo no\n  exit 1\nfi\n{RUN} --quantize $Q\n',
    "a number": f'N=0\nif [ "$N" -gt 0 ]; then\n  {RUN} --num-shard $N\nfi\n',
    "arithmetic": f"N=0\nif (( $N > 0 )); then\n  {RUN} --num-shard $N\nfi\n",
    "the branch after": f'Q=bad\nif [ "$Q" = bad ]; then\n  {RUN}\nelif [ "$Z" ]; then\n  {RUN} --quantize "$Q"\nfi\n',
    "one of two": "Q=bad\n" + THEN % '[ -n "$Z" ] && [ $Q != bad ]',
    "not equal": f"Q=bad\n{THEN % '! [ $Q = bad ]'}",
    "not equal within": f"Q=bad\n{THEN % '[ ! $Q = bad ]'}",
    "an old way": f"Q=bad\n{THEN % '[ x$Q != xbad ]'}",
    "an option in a variable": f'Q=bad\nA=""\nif [ "$Q" != bad ]; then\n  A="--quantize $Q"\nfi\n{RUN} $A\n',
    "an option in a list": f'Q=bad\nA=()\nif [ "$Q" != bad ]; then\n  A+=(--quantize "$Q")\nfi\n{RUN} "${{A[@]}}"\n',
    "a loop": f'N=0\nwhile [ "$N" -ne 0 ]; do\n  {RUN} --num-shard $N\ndone\n',
    "within another": f'Q=bad\nif [ $1 ]; then\n  if [ "$Q" != bad ]; then\n    {RUN} --quantize $Q\n  fi\nfi\n',
}
UNGUARDED = {
    "the value itself": f'Q=bad\nif [ "$Q" = bad ]; then\n  {RUN} --quantize $Q\nfi\n',
    "another value": f'Q=bad\nif [ "$Q" != none ]; then\n  {RUN} --quantize $Q\nfi\n',
    "something it is": f'Q=bad\n[ -n "$Q" ] && {RUN} --quantize $Q\n',
    "behind it": f'Q=bad\nif [ "$Q" != bad ]; then\n  echo no\nfi\n{RUN} --quantize $Q\n',
    "before it": f'Q=bad\n{RUN} --quantize $Q\nif [ "$Q" = bad ]; then\n  exit 1\nfi\n',
    "another variable": f'Q=bad\nZ=none\nif [ "$Z" != none ]; then\n  {RUN} --quantize $Q\nfi\n',
    "a file": f'Q=bad\nif [ -f "$Q" ]; then\n  {RUN} --quantize $Q\nfi\n',
}


@pytest.mark.parametrize("name", GUARDED)
def test_a_value_that_a_condition_rules_out_is_not_judged(name: str) -> None:
    assert errors(GUARDED[name], "run.sh") == []
    assert errors(f"```bash\n{GUARDED[name]}```\n", "page.md") == []


@pytest.mark.parametrize("name", UNGUARDED)
def test_one_that_it_does_not_is(name: str) -> None:
    assert errors(UNGUARDED[name], "run.sh") == ["TGI103"]


WINDOWS = "docker run --gpus all ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id org/m --quantize"


@pytest.mark.parametrize(
    ("text", "file"),
    [
        (f'set Q=none\nif not "%Q%"=="none" {WINDOWS} %Q%\n', "a.bat"),
        (f'set Q=none\nif not "%Q%"=="none" (\n  {WINDOWS} %Q%\n)\n', "a.bat"),
        (f'set Q=none\nIF "%Q%" NEQ "none" (\n  {WINDOWS} %Q%\n)\n', "a.cmd"),
        (f'$Q = "none"\nif ($Q -ne "none") {{\n  {WINDOWS} $Q\n}}\n', "a.ps1"),
        (f'Q ?= none\nrun:\n\tif [ "$(Q)" != none ]; then {WINDOWS} $(Q); fi\n', "Makefile"),
    ],
)
def test_other_shells_rule_out_as_well(text: str, file: str) -> None:
    assert errors(text, file) == []


PYTHON = f'["docker", "run", "--gpus", "all", "{IMAGE}", "--model-id", "org/m", "--quantize", q]'
SYSTEM = f'os.system(f"docker run --gpus all {IMAGE} --model-id org/m --quantize {{q}}")'


@pytest.mark.parametrize(
    "text",
    [
        f'q = os.getenv("Q", "none")\nif q != "none":\n    subprocess.run({PYTHON})\n',
        f'q = "none"\nif q == "none":\n    pass\nelse:\n    subprocess.run({PYTHON})\n',
        f'q = "none"\nif x:\n    pass\nelif q not in ("none", None):\n    {SYSTEM}\n',
        f'q = "none"\nif gpu and not (q == "none" or y):\n    {SYSTEM}\n',
        f'q = "none"\nif q.lower() != "none":\n    {SYSTEM}\n',
        f'def f(q="none"):\n    if q == "none":\n        return\n    {SYSTEM}\n',
        f'for q in qs:\n    q = "none"\n    if q == "none":\n        continue\n    {SYSTEM}\n',
        f'q = "none"\ncmd = f"docker run --gpus all {IMAGE} --model-id m --quantize {{q}}" if q != "none" else ""\n',
        f'q = "none"\ncmd = "docker run --gpus all {IMAGE} --model-id m"\n'
        'if q != "none":\n    cmd += f" --quantize {q}"\nsubprocess.run(cmd)\n',
        SYSTEM.join(("q = ''\nif q:\n    ", "\n")),
        'p.add_argument("--q", default="none")\nargs = p.parse_args()\nif args.q != "none":\n    '
        + SYSTEM.replace("{q}", "{args.q}"),
    ],
)
def test_a_program_rules_out_as_well(text: str) -> None:
    assert errors(text, "run.py") == []


@pytest.mark.parametrize(
    "text",
    [
        f'q = "bad"\nif q != "none":\n    {SYSTEM}\n',
        f'q = "bad"\nif q:\n    {SYSTEM}\n',
        f'q = "bad"\nif q == "none":\n    return\n{SYSTEM}\n',
        f'q = "bad"\nif q in ("bad", "none"):\n    {SYSTEM}\n',
        f'q = "bad"\nif q != "bad":\n    pass\n{SYSTEM}\n',
        f'q = "bad"\nif os.path.exists(q):\n    {SYSTEM}\n',
    ],
)
def test_a_program_that_does_not_is_judged(text: str) -> None:
    assert errors(text, "run.py") == ["TGI103"]


# -- folders beside the launcher


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("text-generation-launcher --model-id ./model\n", "run.sh"),
        ("text-generation-launcher --model-id data/model/v1/\n", "run.sh"),
        ("export MODEL_ID=../models/my/llama\ntext-generation-launcher --port 80\n", "run.sh"),
        ("[Service]\nExecStart=/usr/bin/text-generation-launcher --model-id models/a/b\n", "tgi.service"),
        ('subprocess.run(["text-generation-launcher", "--model-id", "out/run 1/model".replace(" ", "")])\n', "run.py"),
        ('subprocess.run(["text-generation-launcher", "--model-id", "outputs/run-1/model"])\n', "run.py"),
        (f"docker run --gpus all -w /w -v $PWD:/w -v hub:/data {IMAGE} --model-id out/run/model\n", "run.sh"),
        (f"docker run --gpus all -v $PWD/m:/usr/src/m {IMAGE} --model-id m/a/b\n", "run.sh"),
        ("run: |\n  text-generation-launcher --model-id ckpt/a/b\nresources: {accelerators: L4}\n", "task.yaml"),
        (f"FROM {IMAGE}\nCOPY m m\nENV MODEL_ID=m/a/b\n", "Dockerfile"),
    ],
)
def test_a_relative_folder_is_a_model(text: str, file: str) -> None:
    assert errors(text, file) == []


@pytest.mark.parametrize(
    "text",
    [
        "text-generation-launcher --model-id https://huggingface.co/org/m\n",
        "text-generation-launcher --model-id 'org/m '\n",
        "text-generation-launcher --model-id org/m:main\n",
        f"docker run --gpus all -v $PWD/m:/data {IMAGE} --model-id out/run/m\n",
    ],
)
def test_what_can_be_no_folder_is_none(text: str) -> None:
    assert errors(text, "run.sh") == ["TGI131"]


# -- what a maintainer would rather not read


def test_a_makefile_goes_with_its_sources(here: Path) -> None:
    text = "run:\n\ttext-generation-launcher --model-id bigscience/bloom --num-shard 8 --quantize --port 80\n"
    files = dict.fromkeys(("Makefile", "GNUmakefile", "server/Makefile", "tgi.mk", "Makefile.gpu"), text)
    assert said(here, files) == []
    assert said(here, {"Makefile": text.replace("--quantize", "--num-shard")}) == [("Makefile", "error", "TGI106")]
    assert said(here, {"run.sh": text}) == [("run.sh", "warning", "TGI106")]


def test_a_file_for_a_cpu_asks_for_no_gpu(here: Path) -> None:
    text = f"services: {{tgi: {{image: '{IMAGE}', command: --model-id gpt2, volumes: ['d:/data']}}}}\n"
    for file in ("cpu/xeon/compose.yaml", "intel/xeon/a.yaml", "compose.cpu.yaml", "compose_cpu.yaml", "k8s/epyc.yaml"):
        assert "TGI301" not in [code for _, _, code in said(here, {file: text})]
    for file in ("compose.yaml", "cpus2/gpu.yaml", "acpu/a.yaml"):
        assert "TGI301" in [code for _, _, code in said(here, {file: text})]


def test_a_tag_that_was_pushed_by_hand_is_there(here: Path) -> None:
    line = f"docker run --runtime habana -v $PWD:/data {IMAGE.replace('3.3.7', '%s')} --model-id gpt2\n"
    assert "TGI507" not in [code for _, _, code in said(here, {"a.sh": line % "3.1.1-gaudi"})]
    assert "TGI507" in [code for _, _, code in said(here, {"a.sh": line % "3.0.0-gaudi"})]


# -- records


def test_json_lines_are_one_document_each(here: Path) -> None:
    server = {"image": IMAGE, "args": ["--model-id", "gpt2", "--bad"]}
    record = {"backend": "text-generation-inference", "time": 1}
    for name in ("perf.json", "perf.jsonl", "log.ndjson"):
        assert said(here, {name: f"{json.dumps(record)}\n" * 3}) == []
        found = said(here, {name: f"{json.dumps(record)}\n\n{json.dumps(server)}\n"})
        assert (name, "error", "TGI101") in found


# -- instance types of other jobs


LLM = """\
llm = HuggingFaceModel(
    role=role, image_uri=get_huggingface_llm_image_uri("huggingface", version="2.0.2"),
    env={"HF_MODEL_ID": "Qwen/Qwen2.5-7B-Instruct", "SM_NUM_GPUS": "4"},
)
"""
CONFIG = 'config = {"HF_MODEL_ID": "Qwen/Qwen2.5-7B-Instruct", "SM_NUM_GPUS": "4"}\n'
OF_CONFIG = "llm = HuggingFaceModel(role=role, image_uri=uri, env=config)\n"
LARGE, SMALL = "ml.g5.12xlarge", "ml.g5.2xlarge"
"""Four GPUs, and one."""
JOB = f'HuggingFace(entry_point="train.py", instance_type="{SMALL}", instance_count=1, role=role).fit()\n'
OTHER_JOBS = {
    "a training before": f'{JOB}{LLM}llm.deploy(instance_type="{LARGE}")\n',
    "a training after the environment": f'{CONFIG}{JOB}{OF_CONFIG}llm.deploy(instance_type="{LARGE}")\n',
    "a training, and a type that is not known": f"{JOB}{LLM}llm.deploy(instance_type=args.instance)\n{JOB}",
    "a training whose type is a variable": (
        f'instance_type = "{SMALL}"\nHuggingFace(instance_type=instance_type)\n{LLM}llm.deploy(instance_type=t())\n'
    ),
    "a processing job": f'{CONFIG}ScriptProcessor(instance_type="{SMALL}")\n{OF_CONFIG}llm.deploy(instance_type=x)\n',
    "a batch transform": f'{LLM}llm.deploy(instance_type=kind)\nm.transformer(instance_type="{SMALL}")\n',
    "another endpoint after": f'{LLM}llm.deploy(instance_type="{LARGE}")\nemb = HuggingFaceModel(model_data=x)\n'
    f'emb.deploy(instance_type="{SMALL}")\n',
    "another endpoint between": f'{CONFIG}emb = JumpStartModel(model_id="a")\nemb.deploy(instance_type="{SMALL}")\n'
    f'{OF_CONFIG}llm.deploy(instance_type="{LARGE}")\n',
    "endpoints of which nobody can tell": f'{CONFIG}make().deploy(instance_type="{SMALL}")\n'
    f'other().deploy(instance_type="{LARGE}")\n',
    "a lookup of an image": f'retrieve("pytorch", instance_type="{SMALL}")\n{LLM}',
    "boto3's training": f'sm.create_training_job(ResourceConfig={{"InstanceType": "{SMALL}", "InstanceCount": 1, '
    f'"VolumeSizeInGB": 9}})\n{LLM}sm.create_endpoint_config(ProductionVariants=[{{"InstanceType": kind, '
    '"VariantName": "a"}])\n',
    "a notebook": f'create_notebook_instance(InstanceType="{SMALL}", NotebookInstanceName="n")\n{LLM}',
    "a machine": f'ec2.Instance(self, "x", instance_type="g5.2xlarge")\n{LLM}',
}


@pytest.mark.parametrize("name", OTHER_JOBS)
def test_the_instance_of_another_job_is_not_the_servers(name: str) -> None:
    assert errors(OTHER_JOBS[name], "deploy.py") == []


@pytest.mark.parametrize(
    "text",
    [
        f'{LLM}llm.deploy(instance_type="{SMALL}")\n',
        f'{LLM}{JOB.replace(SMALL, LARGE)}llm.deploy(instance_type="{SMALL}")\n',
        f'instance_type = "{SMALL}"\n{LLM}llm.deploy(instance_type=instance_type)\n',
        f'{CONFIG}emb = Model(model_data=x)\nemb.deploy(instance_type="{LARGE}")\n{OF_CONFIG}'
        f'llm.deploy(instance_type="{SMALL}")\n',
        f'{CONFIG}make().deploy(instance_type="{SMALL}")\n',
        f'sm.create_endpoint_config(ProductionVariants=[{{"InstanceType": "{SMALL}", "VariantName": "a"}}])\n{LLM}',
    ],
)
def test_its_own_is(text: str) -> None:
    assert errors(text, "deploy.py") == ["TGI143"]


# -- manifests written in pieces


MANIFEST = f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: tgi}}
spec:
  selector: {{matchLabels: {{app: tgi}}}}
  template:
    metadata: {{labels: {{app: tgi}}}}
    spec:
      containers:
      - name: tgi
        image: {IMAGE}
        args: [--model-id, meta-llama/Llama-3.1-8B-Instruct]
"""
TOKEN = "        env:\n        - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hf, key: token}}}\n"
GPU = "        resources: {limits: {nvidia.com/gpu: 1}}\n"
WRITE, MORE, APPLY = "cat > x.yaml <<EOF\n", "cat >> x.yaml <<EOF\n", "cat <<EOF | kubectl apply -f -\n"
PIECES = {
    "two": f"{WRITE}{MANIFEST}EOF\n{MORE}{TOKEN}{GPU}EOF\n",
    "three": f"{WRITE}{MANIFEST}EOF\ncat <<'EOF' >> x.yaml\n{TOKEN}EOF\n{MORE}{GPU}EOF\n",
    "by a variable": f'cat > "$F" <<EOF\n{MANIFEST}EOF\ncat >> "$F" <<EOF\n{TOKEN}EOF\n',
    "by tee": f"cat <<EOF | tee x.yaml\n{MANIFEST}EOF\ncat <<EOF | tee -a x.yaml\n{TOKEN}EOF\n",
    "one in a branch": f'{WRITE}{MANIFEST}EOF\nif [ "$T" ]; then\n{MORE}{TOKEN}EOF\nfi\n{MORE}{GPU}EOF\n',
    "one by echo": f'{WRITE}{MANIFEST}EOF\necho "        env: []" >> x.yaml\n',
    "one by printf": f'{WRITE}{MANIFEST}EOF\n[ "$T" ] && printf "%s" "$E" >> x.yaml\n',
    "edited": f"{WRITE}{MANIFEST}EOF\nyq -i '.spec.x = 1' x.yaml\n",
    "begun elsewhere": f"./head.sh > x.yaml\n{MORE}{MANIFEST}EOF\n",
    "a variable on a line": f"{APPLY}{MANIFEST}$EXTRA_YAML\n{GPU}EOF\n",
    "a variable with several lines": f'E="{TOKEN}"\n{APPLY}{MANIFEST}${{E}}\n{GPU}EOF\n',
    "a variable that a branch sets": f'E=""\n[ "$T" ] && E="{TOKEN}"\n{APPLY}{MANIFEST}$E\nEOF\n',
    "a default with an option": f"{APPLY}{MANIFEST}${{E:+        env: [{{name: HF_TOKEN, value: x}}]}}\nEOF\n",
    "a command on a line": f"{APPLY}{MANIFEST}$(token_env)\n{GPU}EOF\n",
    "a branch on a line": f'{APPLY}{MANIFEST}$(if [ "$T" ]; then echo "        env: []"; fi)\nEOF\n',
    "a patch": f'kubectl patch deploy tgi --patch "$(cat <<EOF\n{MANIFEST}EOF\n)"\n',
    "changed on its way": f"cat <<EOF | yq '.x = 1' | kubectl apply -f -\n{MANIFEST}EOF\n",
}
APART = {
    "one": f"{WRITE}{MANIFEST}EOF\n",
    "another file": f"{WRITE}{MANIFEST}EOF\ncat > y.yaml <<EOF\n{MANIFEST}{TOKEN}EOF\n",
    "written again": f"{WRITE}{MANIFEST}EOF\nkubectl apply -f x.yaml\n{WRITE}{MANIFEST}{TOKEN}EOF\n",
    "two without a token": f"{WRITE}{MANIFEST}EOF\n{MORE}{GPU}EOF\n",
    "a variable within": f"{APPLY}{MANIFEST.replace('name: tgi', 'name: $NAME')}EOF\n",
}


@pytest.mark.parametrize("name", PIECES)
def test_a_manifest_in_pieces_is_one(name: str) -> None:
    assert errors(PIECES[name], "deploy.sh") == []
    assert errors(f"```bash\n{PIECES[name]}```\n", "page.md") == []


@pytest.mark.parametrize("name", APART)
def test_one_in_a_single_piece_is_judged(name: str) -> None:
    assert errors(APART[name], "deploy.sh") == ["TGI403"]


def test_what_a_later_piece_says_is_judged() -> None:
    shards = "        env: [{name: NUM_SHARD, value: one}]\n"
    assert errors(f"{WRITE}{MANIFEST}EOF\n{MORE}{shards}EOF\n", "a.sh") == ["TGI403", "TGI103"]
    piece = f"cat > c.yaml <<EOF\nservices:\n  tgi:\n    image: {IMAGE}\n    gpus: all\nEOF\n"
    more = "cat >> c.yaml <<EOF\n    command: --model-id org/m%s\nEOF\n"
    assert errors(piece + more % "", "a.sh") == []
    assert errors(piece + more % " --bad", "a.sh") == ["TGI101"]


def test_a_command_in_pieces_is_open() -> None:
    begun = f"cat > run.sh <<EOF\ndocker run --gpus all {IMAGE} \\\\\n  --model-id org/m %s\\\\\nEOF\n"
    assert errors(begun % "" + "cat >> run.sh <<EOF\n  --port 80\nEOF\n", "make.sh") == []
    assert errors(begun % "--num-shard " + "cat >> run.sh <<EOF\n  2\nEOF\n", "make.sh") == []
    assert errors(begun % "--bad ", "make.sh") == ["TGI101"]


def test_a_program_that_writes_in_pieces() -> None:
    text = f'f.write("""{MANIFEST}""")\n'
    assert errors(text, "a.py") == ["TGI403"]
    assert errors(f'{text}if token:\n    f.write("""{TOKEN}""")\n', "a.py") == []


# -- what Kustomize lays over what


BASE = f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: tgi}}
spec:
  selector: {{matchLabels: {{app: tgi}}}}
  template:
    metadata: {{labels: {{app: tgi}}}}
    spec:
      containers:
      - name: tgi
        image: {IMAGE}
        args: [--model-id, org/m]
        env: [{{name: HF_TOKEN, valueFrom: {{secretKeyRef: {{name: hf, key: token}}}}}}]
        resources: {{limits: {{nvidia.com/gpu: 2}}}}
        volumeMounts: [{{name: data, mountPath: /data}}]
      volumes: [{{name: data, persistentVolumeClaim: {{claimName: tgi}}}}]
"""
GATED = "meta-llama/Llama-3.1-8B-Instruct"
PATCH = f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: tgi}}
spec:
  template:
    spec:
      containers:
      - name: tgi
        image: {IMAGE}
        args: [--model-id, {GATED}%s]
"""
LABELLED = PATCH.replace("    spec:\n", "    metadata: {labels: {app: tgi}}\n    spec:\n", 1)
KSERVE = f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: tgi}}
spec: {{predictor: {{containers: [{{name: k, image: {IMAGE}, args: [--model-id, {GATED}]}}]}}}}
"""
KUSTOMIZATION = "kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\n"
OPERATIONS = f"""\
- {{op: replace, path: /spec/template/spec/containers/0/image, value: {IMAGE}}}
- op: add
  path: /spec/template/spec/containers/-
  value: {{name: tgi, image: {IMAGE}, args: [--model-id, {GATED}]}}
"""


@pytest.mark.parametrize(
    "files",
    [
        {"patch.yaml": PATCH % ""},
        {"tgi-patch.yaml": LABELLED % ""},
        {"patches/gpu.yaml": LABELLED % "", "kustomization.yaml": "patches: [{path: patches/gpu.yaml}]\n"},
        {"gpu.yaml": KSERVE, "kustomization.yaml": "patchesStrategicMerge:\n- gpu.yaml\n"},
        {"gpu.yaml": LABELLED % "", "kustomization.yaml": "patches:\n- {path: gpu.yaml, target: {kind: Deployment}}\n"},
        {"ops.yaml": OPERATIONS, "kustomization.yaml": "patchesJson6902: [{path: ops.yaml, target: {name: tgi}}]\n"},
        {"kustomization.yaml": f"{KUSTOMIZATION}patches:\n- patch: |-\n"
         + "".join(f"    {line}\n" for line in (LABELLED % "").splitlines())},
        {"kustomization.yaml": f"{KUSTOMIZATION}resources: [a]\n"
         "patches:\n- patch: |-\n" + "".join(f"    {line}\n" for line in OPERATIONS.splitlines())},
        {"base/tgi.yaml": BASE.replace("org/m", GATED).replace("HF_TOKEN", "A").replace("gpu: 2", "gpu: 1"),
         "base/kustomization.yaml": "resources: [tgi.yaml]\n", "overlays/a/kustomization.yaml":
         "resources: [../../base]\npatches: [{path: t.yaml}]\n",
         "overlays/a/t.yaml": PATCH.replace("args:", "env: [{name: HF_TOKEN, value: $T}]\n        args:") % ""},
        {"tgi.yaml": KSERVE, "kustomization.yaml": "resources: [tgi.yaml]\npatches: [{path: token.yaml}]\n"},
    ],
)  # fmt: skip
def test_a_patch_leaves_to_its_base_what_it_does_not_say(files: dict[str, str], here: Path) -> None:
    assert [one for one in said(here, files) if one[1] != "info"] == []


@pytest.mark.parametrize("resources", ["[../../base]", "[../../base/tgi.yaml]"])
def test_a_patch_is_judged_with_its_base(resources: str, here: Path) -> None:
    kustomize = f"resources: {resources}\npatches:\n- path: big.yaml\n"
    files = {
        "base/tgi.yaml": BASE,
        "base/kustomization.yaml": "resources: [tgi.yaml]\n",
        "over/a/kustomization.yaml": kustomize,
    }
    of_patch = said(here, {**files, "over/a/big.yaml": PATCH % ", --num-shard, '4'"}, "over/a/big.yaml")
    assert [code for _, severity, code in of_patch if severity == "error"] == ["TGI143"]
    assert said(here, {"over/a/big.yaml": PATCH % ", --num-shard, '2'"}, "over/a/big.yaml", "-g", "l4") != []
    less = {"base/tgi.yaml": BASE.replace("HF_TOKEN", "OTHER").replace("data,", "scratch,")}
    token = PATCH.replace("args:", "env: [{name: HF_TOKEN, value: $T}]\n        args:") % ""
    assert "TGI403" in [code for _, _, code in said(here, {**less, "over/a/big.yaml": PATCH % ""}, "over/a/big.yaml")]
    assert "TGI403" not in [code for _, _, code in said(here, {"over/a/big.yaml": token}, "over/a/big.yaml")]


def test_patches_for_others_leave_a_manifest_whole(here: Path) -> None:
    manifest = BASE.replace("org/m", GATED).replace("HF_TOKEN", "A")
    lone = {"tgi.yaml": manifest, "kustomization.yaml": "resources: [tgi.yaml]\npatches: [{target: {kind: Service}}]\n"}
    assert "TGI403" in [code for _, _, code in said(here, lone, "tgi.yaml")]
    assert "TGI403" in [code for _, _, code in said(here, {"k.yaml": manifest}, "k.yaml")]


# -- examples that leave something out


EXAMPLE = f"""\
models:
  - name: falcon
    containerConfig:
      image: {IMAGE}
      ...
"""
TGI_POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: tgi}}
spec:
  containers:
    - name: tgi
      image: {IMAGE}
      args: [--model-id, {GATED}]
%s
"""


@pytest.mark.parametrize(
    "block",
    [
        EXAMPLE, EXAMPLE.replace("...", "\u2026"), EXAMPLE.replace("      ...", "  ..."),
        EXAMPLE.replace("...", "- ..."),
        TGI_POD % "      # ...", TGI_POD % "      # ... the token, as above", TGI_POD % "      ...",
        TGI_POD % "      env: [...]", TGI_POD % "      resources: ...",
        f'{{"image": "{IMAGE}", "env": {{"MODEL_ID": "org/m", ...}}, ...}}\n',
        f'{{\n  "image": "{IMAGE}",\n  "env": {{"MODEL_ID": "org/m"}},\n  // ...\n}}\n',
    ],
)  # fmt: skip
def test_an_example_need_not_say_all(block: str) -> None:
    for language in ("yaml", "", "json"):
        assert [one for one in (errors(f"```{language}\n{block}```\n", "page.md")) if one != "TGI403"] == []
    assert errors(f"```yaml\n{block}```\n", "page.md") == []


def test_one_that_says_all_does(here: Path) -> None:
    assert errors(f"```yaml\n{TGI_POD % ''}```\n", "page.md") == ["TGI403"]
    assert errors(f"```yaml\n{TGI_POD % '      bad: [x'}```\n", "page.md") == ["TGI403", "TGI510"]
    bad = f"```yaml\n{TGI_POD % '      # ...'}```\n".replace("--model-id", "--bad, x, --model-id")
    assert errors(bad, "page.md") == ["TGI101"]
    found = said(here, {"page.md": f"```yaml\n{TGI_POD % '      # ...'}```\n"}, "page.md", "--ignore", "TGI505")
    assert found == []


@pytest.mark.parametrize(("version", "severity"), [("", "warning"), (', version="3.3.4"', "error")])
def test_a_value_that_an_earlier_release_took(version: str, severity: str, here: Path) -> None:
    text = (
        f'HuggingFaceModel(image_uri=get_huggingface_llm_image_uri("huggingface"{version}), role=role, '
        'env={"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", "HF_MODEL_QUANTIZE": "true"})\n'
    )
    assert ("deploy.py", severity, "TGI103") in said(here, {"deploy.py": text})
    assert ("deploy.py", "error", "TGI103") in said(here, {"deploy.py": text.replace('"true"', '"never"')})


# -- commands that a program puts together


PROGRAM = f"""\
import docker, shlex
class Serve:
  def run(self, n, more, flag):
    {{made}}
    docker.from_env().containers.run("{IMAGE}", command=command)
"""
TOGETHER = {
    "f-string in a loop": 'command = f"--model-id {self.m}"\n    for k, v in more:\n      command += f" --{k} {v}"',
    "format in a loop": 'command = "--model-id org/m"\n    for k, v in more:\n      command += " --{} {}".format(k, v)',
    "percent in a loop": 'command = "--model-id org/m"\n    for k, v in more:\n      command += " --%s %s" % (k, v)',
    "percent, put behind": 'command = "--model-id org/m"\n    for k in more:\n      command = command + " --%s %d" % k',
    "percent": 'command = "--model-id %s --max-total-tokens %d" % (self.m, n)',
    "percent by name": 'command = "--model-id org/m --max-total-tokens %(total)s" % more',
    "a choice in brackets": 'command = "--model-id org/m" + (f" --max-total-tokens {n}" if flag else "")',
    "a comprehension, joined": 'command = " ".join([f"--{k} {v}" for k, v in more.items()])',
    "a generator, joined": 'command = " ".join(f"--{k} {v}" for k, v in more.items())',
    "an entry of a branch": 'd = {"c": ""}\n    if flag:\n      d["c"] = f"--num-shard {n}"\n    command = d.get("c")',
    "words in a loop": 'command = ["--model-id", self.m]\n    for k, v in more:\n      command += [f"--{k}", f"{v}"]',
    "split": 'command = shlex.split(f"--model-id {self.m} --max-total-tokens {n}")',
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_a_program_puts_in_is_not_judged(name: str) -> None:
    assert errors(PROGRAM.format(made=TOGETHER[name]), "serve.py") == []


def test_what_it_writes_itself_is() -> None:
    made = 'command = "--model-id org/m --max-total-token %d" % n'
    assert errors(PROGRAM.format(made=made), "serve.py") == ["TGI101"]


# -- Dockerfiles on TGI's image that start a program of their own


def test_variables_for_a_program_of_its_own_are_its_business() -> None:
    text = f'FROM {IMAGE}\nCOPY start.sh /\nENV SM_NUM_GPUS=2 MODEL=/m\nENV PARAMS "--a 1"\nENTRYPOINT ["/start.sh"]\n'
    assert [one.code for one in findings(text, "Dockerfile")] == ["TGI503"]


def test_those_for_tgis_own_are_not() -> None:
    text = f'FROM {IMAGE}\nENV SM_NUM_GPUS 2\nENV LOG_LEVEL "debug"\nCMD ["--model-id", "org/m"]\n'
    assert [one.code for one in findings(text, "Dockerfile")] == ["TGI170"]


@pytest.mark.parametrize(
    "lines",
    [
        'ENTRYPOINT ["tail"]\nCMD ["-f", "/dev/null"]',
        'ENTRYPOINT ["/bin/tail", "-f"]\nCMD ["/dev/null"]',
        'ENTRYPOINT ["sleep"]\nCMD ["infinity"]',
        "ENTRYPOINT tail -f /dev/null",
    ],
)
def test_one_that_waits_starts_no_server(lines: str) -> None:
    assert not findings(f"FROM {IMAGE.rpartition(':')[0]}:$VERSION\n{lines}\n", "Dockerfile")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('ENTRYPOINT ["dumb-init", "--"]\nCMD ["/serve.sh"]', "dumb-init -- /serve.sh"),
        ('ENTRYPOINT ["bash"]\nCMD ["/serve.sh"]', "bash /serve.sh"),
        ('ENTRYPOINT ["tini", "--"]\nCMD exec /serve.sh', "tini -- /bin/sh -c exec /serve.sh"),
        ('ENTRYPOINT /serve.sh\nCMD ["more"]', "/serve.sh"),
    ],
)
def test_the_program_is_named_as_docker_joins_it(lines: str, named: str) -> None:
    (said,) = findings(f"FROM {IMAGE}\n{lines}\n", "Dockerfile")
    assert (said.code, said.message.rpartition(": ")[2]) == ("TGI503", f"what {named} starts")


# -- code of the model's repository


@pytest.mark.parametrize(
    ("model", "severity"),
    [("Qwen/Qwen2.5-7B-Instruct", "info"), ("tiiuae/falcon-7b-instruct", "warning"), ("org/m", "warning")],
)
def test_code_is_a_warning_where_there_may_be_any(model: str, severity: str) -> None:
    text = RUN.replace("org/m", model) + " --trust-remote-code"
    assert [one.severity for one in findings(text, "run.sh") if one.code == "TGI406"] == [severity]


# -- an image whose registry stands beside it


@pytest.mark.parametrize("registry", ["ghcr.io", "mirror.example:5000"])
def test_an_image_has_the_registry_beside_it(registry: str) -> None:
    text = f"base:\n  registry: {registry}\n  image: huggingface/text-generation-inference:3.3.7\n  name: TGI\n"
    assert "TGI502" not in [one.code for one in findings(text, "spec.yaml")]
    assert "TGI502" in [one.code for one in findings(text.replace("registry", "team"), "spec.yaml")]


# -- variables that hold options of docker run


HOLDING = [
    'for d in /dev/nvidia*; do GPUS="$GPUS --device $d"; done\ndocker run --rm $GPUS -p 8080:80 $OFFLINE "$IMAGE"',
    f"docker run --rm $GPUS --volume $PWD/d:/data $MORE {IMAGE}",
    f"docker run $A $B -e HF_TOKEN $C --shm-size 1g {IMAGE}",
    "docker run --rm $MOUNTS --shm-size 1g -p 8080:80 ${TGI_IMAGE}",
    'IMAGE="${4:-tgi-own:latest}"\npodman run --rm -it $GPUS $MOUNTS --volume /a:/b:ro -p "$PORT":80 "$IMAGE"',
]


@pytest.mark.parametrize("text", HOLDING)
def test_a_variable_before_the_image_may_hold_options(text: str) -> None:
    arguments = "--model-id org/m --port 80 --max-input-tokens 1024 --max-total-tokens 2048"
    assert errors(f"{text} {arguments}\n", "run.sh") == []
