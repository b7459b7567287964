"""Programs that start TGI: what they hand to the launcher, where each word stands, what --fix may change in them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from front import run
from judged import findings

from tgi_advisor import lint
from tgi_advisor.validate.effective import effective
from tgi_advisor.validate.read import read

IMAGE = "ghcr.io/huggingface/text-generation-inference"
SAME = '"--max-input-tokens", "4096", "--max-total-tokens", "4096"'


def errors(text: str, file: str = "deploy.py") -> list[tuple[int, str, str]]:
    """Line, code and marked text of every error."""
    found = findings(text, file)
    lines = text.split("\n")
    return [
        (one.place.line, one.code, lines[one.place.line - 1][one.place.column - 1 :][: one.length])
        for one in found
        if one.severity == "error"
    ]


FINE = {
    "json.dumps writes true": (
        'env = {"HF_MODEL_ID": "m", "SM_NUM_GPUS": "1", "TRUST_REMOTE_CODE": json.dumps(True)}\n'
    ),
    "names in a command's string": (
        f'cmd = f"docker run {IMAGE}:3.3.7 --model-id {{model}} --num-shard {{shards}} --quantize \'{{how}}\'"\n'
    ),
    "a branch may set it": (
        'env = {"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", "MAX_INPUT_LENGTH": "100", "MAX_TOTAL_TOKENS": "200"}\n'
        'if large:\n    env["MAX_INPUT_LENGTH"] = "4096"\nelse:\n    env["MAX_TOTAL_TOKENS"] = "8192"\n'
    ),
    "a loop's variable": (
        'total = "10"\nfor total in totals:\n'
        '    env = {"HF_MODEL_ID": "m", "SM_NUM_GPUS": "1", "MAX_INPUT_LENGTH": "99", "MAX_TOTAL_TOKENS": total}\n'
    ),
    "a parameter that is given": (
        f'def start(most=100):\n    run(["docker", "run", "{IMAGE}:2.4.0", "--max-input-tokens", "100", '
        '"--max-total-tokens", str(most)])\nstart(most=200)\n'
    ),
    "an attribute that is set later": (
        "class Server:\n    def __init__(self, port=None):\n        self.ip, self.port = find()\n"
        '        run(["text-generation-launcher", "--model-id", "org/m", "--port", str(self.port)])\n'
    ),
    "a tuple is assigned": (
        'longest = "9"\nlongest, most = limits()\n'
        'env = {"HF_MODEL_ID": "m", "SM_NUM_GPUS": "1", "MAX_INPUT_LENGTH": "10", "MAX_TOTAL_TOKENS": longest}\n'
    ),
    "the flags of a fork": 'run(["text-generation-launcher", "--model-name", "m", "--grpc-port", "8033"])\n',
    "a switch that a branch appends": (
        'cmd = ["text-generation-launcher", "--model-id", "org/m"]\nif old:\n    cmd.append("--quantize")\n'
    ),
    "several GPUs of an accelerator": (
        f'model = Model.upload(serving_container_image_uri="{IMAGE}:2.4.0", '
        'serving_container_environment_variables={"MODEL_ID": "org/m", "NUM_SHARD": "2"})\n'
        'model.deploy(accelerator_type="NVIDIA_L4", accelerator_count=2)\n'
    ),
    "help is asked for": 'run(["text-generation-launcher", "--help"])\n',
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_what_a_program_does_not_say_is_no_error(name: str) -> None:
    assert errors(FINE[name]) == []


NONE = {
    "LMI by an f-string": (
        'image = f"763104351884.dkr.ecr.{region}.amazonaws.com/djl-inference:0.33.0"\n'
        'Model(image_uri=image, env={"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1"})\n'
    ),
    "LMI by its lookup": (
        'Model(image_uri=get_huggingface_llm_image_uri("lmi"), env={"HF_MODEL_ID": "m", "SM_NUM_GPUS": "1"})\n'
    ),
    "LoRAX in a list": (
        'images = ["1.dkr.ecr.us-east-1.amazonaws.com/sm-lorax:latest"]\n'
        'env = {"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1"}\nModel(image_uri=images[0], env=env)\n'
    ),
    "the inference toolkit": (
        'hub = {"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1"}\n'
        'HuggingFaceModel(env=hub, transformers_version="4.26", pytorch_version="1.13")\n'
    ),
    "options of LMI": 'env = {"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", "OPTION_ROLLING_BATCH": "vllm"}\n',
    "an image that is only pulled": f'client.images.pull(image="{IMAGE}:3.3.7", tag="x")\n',
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_environments_of_other_servers_are_not_tgis(name: str) -> None:
    assert read(NONE[name], "deploy.py").servers == ()


WRONG = {
    "a list of words": (f'cmd = ["docker", "run", "{IMAGE}:3.3.7", "--model-id", m,\n       {SAME}]\n', 2, "4096"),
    "lists put together": (f'flags = [{SAME}]\nrun(["text-generation-launcher"] + flags)\n', 1, "4096"),
    "a list in another": (f'flags = [{SAME}]\nrun(["text-generation-launcher", *flags])\n', 1, "4096"),
    "a list that grows": (
        f'cmd = ["text-generation-launcher"]\ncmd += [{SAME}]\ncmd.extend(["--port", "80"])\n', 2, "4096",
    ),
    "words joined": (f'cmd = " ".join(["text-generation-launcher", {SAME}])\n', 1, "4096"),
    "strings beside each other": (
        f'cmd = ("docker run {IMAGE}:3.3.7 "\n       "--max-input-tokens 9 --max-total-tokens 9")\n', 2, "9",
    ),
    "defaults of parameters": (
        f'def start(longest=9, most=9, image="{IMAGE}:3.3.7"):\n'
        '    run(["docker", "run", image,\n'
        '         "--max-input-tokens", str(longest), "--max-total-tokens", str(most)])\n',
        3,
        "longest",
    ),
    "the environment's default": (
        f'image = os.getenv("IMAGE", "{IMAGE}:3.3.7")\n'
        'Container(image=image, env={\n  "MAX_INPUT_TOKENS": "9", "MAX_TOTAL_TOKENS": "9"})\n',
        3,
        "9",
    ),
    "an environment that is set": (
        f'os.environ["URI"] = "{IMAGE}:3.3.7"\nModel.upload(serving_container_image_uri=os.environ["URI"],\n'
        '  serving_container_args=["--max-input-tokens=9", "--max-total-tokens=9"])\n',
        3,
        "--max-input-tokens=9",
    ),
    "one or the other": (
        f'endpoint = create(custom_image={{"url": (config.image or "{IMAGE}:3.0.1"),\n'
        '  "env": {"MODEL_ID": "/repository", "MAX_INPUT_TOKENS": "9", "MAX_TOTAL_TOKENS": "9"}})\n',
        2,
        "9",
    ),
    "Docker's client": (
        f'client.containers.run("{IMAGE}:3.3.7",\n  command=[{SAME}],\n'
        '  device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])])\n',
        2,
        "4096",
    ),
    "Kubernetes' client": (
        f'c = client.V1Container(name="tgi", image="{IMAGE}:3.3.7",\n  args=[{SAME}])\n'
        "client.V1PodSpec(containers=[c])\n",
        2,
        "4096",
    ),
    "a manifest as a dictionary": (
        '{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{'
        f'"image": "{IMAGE}:3.3.7",\n  "args": [{SAME}]}}]}}}}\n',
        2,
        "4096",
    ),
    "Cloud Run's client": (f'run_v2.Container(image="{IMAGE}:3.3.7",\n  args=[{SAME}])\n', 2, "4096"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_a_program_says_is_an_error_at_its_word(name: str) -> None:
    text, line, word = WRONG[name]
    (found,) = [one for one in errors(text) if one[1] == "TGI110"]
    assert found == (line, "TGI110", found[2])
    assert word in found[2]


def test_modal_names_the_image_and_the_gpu_elsewhere() -> None:
    text = (
        f'image = modal.Image.from_registry("{IMAGE}:3.3.7", add_python="3.11")\n'
        '@app.function(gpu="A100-80GB:2", image=image)\n'
        'def serve():\n    subprocess.Popen(["text-generation-launcher", "--model-id", "org/m"])\n'
    )
    (server,) = read(text, "app.py").servers
    assert (server.image.text if server.image else "", server.gpus.count) == (f"{IMAGE}:3.3.7", 2)
    assert [(hint.value.text, hint.count) for hint in server.hints] == [("A100-80GB", 2)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("json.dumps(True)", "true"), ("str(True)", "True"), ("json.dumps('gptq')", '"gptq"'), ("str(4)", "4"),
        ('f"{word}"', "gptq"), ('"{}".format(word)', "gptq"), ("word.upper()", "GPTQ"), ('"gp" "tq"', "gptq"),
        ('os.getenv("UNSET", word)', "gptq"), ('nothing or "gptq"', "gptq"), ("word if big else word", "gptq"),
        ('options["how"]', "gptq"), ("many[1]", "gptq"), ("self.kept", "gptq"),
    ],
)  # fmt: skip
def test_an_expression_has_the_value_python_gives_it(written: str, meant: str) -> None:
    text = (
        'word = "gptq"\noptions = {"how": word}\nmany = ["a", word]\nself.kept = word\n'
        f'env = {{"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", "QUANTIZE": {written}}}\n'
    )
    (server,) = read(text, "deploy.py").servers
    assert (server.env["QUANTIZE"].text, server.env["QUANTIZE"].known) == (meant, True)


@pytest.mark.parametrize("written", ["get()", "word + x", "a and b", "str(None)", "[x for x in y]", "x % y", "f'{x}'"])
def test_other_expressions_are_unknown(written: str) -> None:
    text = f'word = "gptq"\nenv = {{"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", "QUANTIZE": {written}}}\n'
    (server,) = read(text, "deploy.py").servers
    assert "QUANTIZE" not in server.env or not server.env["QUANTIZE"].known


# -- fixes

FIXABLE = {  # a variable or flag, its value as it is wrong, what --fix writes of both
    "an old name": ("MAX_INPUT_LENGTH", "100", "MAX_INPUT_TOKENS", "100"),
    "a boolean of Python": ("TRUST_REMOTE_CODE", "True", "TRUST_REMOTE_CODE", "true"),
    "a misspelt name": ("NUM_SHARDS", "1", "NUM_SHARD", "1"),
    "capitals": ("DTYPE", "Float16", "DTYPE", "float16"),
}
HEAD = f'image = "{IMAGE}:3.3.7"\n'
HOLDERS = {
    "dictionary": ("d.py", HEAD + 'c = {{"image": image, "env": {{"MODEL_ID": "org/m", "{name}": "{value}"}}}}\n'),
    "keywords": ("k.py", HEAD + 'c = Box(image=image, env=dict(MODEL_ID="org/m", {name}="{value}"))\n'),
    "single quotes": (
        "q.py", HEAD + "c = {{'image': image, 'env': {{'MODEL_ID': 'm',\n\t'{name}' : '{value}'}}}}\n",
    ),
    "an item": ("i.py", HEAD + 'e = {{"MODEL_ID": "org/m"}}\ne["{name}"] = "{value}"\nc = Box(image=image, env=e)\n'),
    "a client": ("c.py", HEAD + 'client.containers.run(image, environment={{"MODEL_ID": "m", "{name}": "{value}"}})\n'),
    "JSON": (
        "x.json", '{{"image": "' + IMAGE + ':3.3.7", "env": {{"MODEL_ID": "org/m", "{name}": "{value}"}}}}\n',
    ),
    "Compose": (
        "compose.yaml", "services: {{t: {{image: '" + IMAGE + ":3.3.7', environment: {{'{name}': '{value}'}}}}}}\n",
    ),
    "a quoted entry": (
        "compose.yaml", "services:\n  t:\n    image: " + IMAGE + ":3.3.7\n    environment: ['{name}={value}']\n",
    ),
    "a pod": ("pod.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: " + IMAGE
              + ":3.3.7\n    env: [{{name: '{name}', value: \"{value}\"}}]\n"),
    "a shell": ("run.sh", f'docker run -e "{{name}}={{value}}" {IMAGE}:3.3.7 --model-id org/m\n'),
    "an environment file": ("x.env", "MODEL_ID=org/m\nMAX_TOTAL_TOKENS=4000\n{name}={value}\n"),
    "a page": (
        "page.md",
        "```python\n" + HEAD + 'c = {{"image": image, "env": {{"MODEL_ID": "m", "{name}": "{value}"}}}}\n```\n',
    ),
}  # fmt: skip


def notebook(code: str) -> str:
    lines = code.splitlines(keepends=True)
    return json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "source": lines}], "nbformat": 4}, indent=1)


@pytest.mark.parametrize("holder", [*HOLDERS, "a notebook", "a notebook's command"])
@pytest.mark.parametrize("kind", FIXABLE)
def test_what_is_promised_is_mended_in_every_holder(
    kind: str, holder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old_name, old, new_name, new = FIXABLE[kind]
    made = {"a notebook": "dictionary", "a notebook's command": "a shell"}.get(holder, holder)
    file, form = HOLDERS[made]
    before, after = form.format(name=old_name, value=old), form.format(name=new_name, value=new)
    if made != holder:
        file = "x.ipynb"
        before, after = (notebook(f"!{text}" if "command" in holder else text) for text in (before, after))
    Path(file).write_text(before)
    (promised,) = lint.validate_files([file], release="3.3.7")
    mends = [one for one in promised.findings if one.fix is not None]
    assert mends
    for one in mends:
        assert one.fix is not None
        line = before.split("\n")[one.fix.place.line - 1]
        assert line[one.fix.place.column - 1 :].startswith(one.fix.old)
    ran = run("validate", "--fix", file, "--release", "3.3.7")
    assert f"{len(mends)} mended" in ran.out
    assert Path(file).read_text() == after


@pytest.mark.parametrize(
    "line",
    [
        '"TRUST_REMOTE_CODE": str(True)', '"TRUST_REMOTE_CODE": True', '"TRUST_REMOTE_CODE": f"{True}"',
        '"TRUST_REMOTE_CODE": yes', '"QUANTIZE": json.dumps("fp8")', '"DTYPE": kind.upper()',
    ],
)  # fmt: skip
@pytest.mark.parametrize("file", ["a.py", "a.ipynb"])
def test_no_mend_changes_an_expression(line: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f'yes = True\nkind = "float16"\nenv = {{"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1", {line}}}\n'
    text = notebook(text) if file == "a.ipynb" else text
    Path(file).write_text(text)
    before = run("validate", file)
    assert "--fix mends" not in before.out
    run("validate", "--fix", file)
    assert Path(file).read_text() == text


def test_a_name_that_stands_twice_in_a_program_is_mended_in_both_places_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        f'env = {{"MODEL_ID": "org/m", "MAX_INPUT_LENGTH": "9", "MAX_TOTAL_TOKENS": "99"}}\n'
        f'if small:\n    env["MAX_INPUT_LENGTH"] = "4"\nc = Box(image="{IMAGE}:3.3.7", env=env)\n'
    )
    Path("a.py").write_text(text)
    run("validate", "--fix", "a.py")
    (server,) = read(Path("a.py").read_text(), "a.py").servers
    assert not {"MAX_INPUT_LENGTH", "MAX_INPUT_TOKENS"} <= effective(server).env.keys()
    ast.parse(Path("a.py").read_text())


def test_a_name_before_a_variable_is_mended_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"ONE=1\ndocker run -e NUM_SHARDS=$ONE {IMAGE}:3.3.7 --model-id org/m\n"
    Path("run.sh").write_text(text)
    run("validate", "--fix", "run.sh")
    assert Path("run.sh").read_text() == text.replace("NUM_SHARDS", "NUM_SHARD")


TYPES = {"ml.t2.2xlarge": False, "ml.m5.xlarge": False, "ml.g5.xlarge": True, "ml.trn9.new": True}


@pytest.mark.parametrize(("instance", "has"), TYPES.items())
def test_an_instance_without_a_gpu_is_seen(instance: str, has: bool) -> None:
    text = (
        'env = {"HF_MODEL_ID": "org/m", "SM_NUM_GPUS": "1"}\n'
        'model = HuggingFaceModel(image_uri=get_huggingface_llm_image_uri("huggingface", version="1.4.2"), env=env)\n'
        f'model.deploy(instance_type="{instance}")\n'
    )
    found = findings(text, "deploy.py")
    assert [one.place.line for one in found if one.code == "TGI301"] == ([] if has else [3])
