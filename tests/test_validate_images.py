"""Which server an image is, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from front import run
from judged import findings

from tgi_advisor.validate.images import identify
from tgi_advisor.validate.read import read

GOOGLE = "us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-"
AWS = "763104351884.dkr.ecr.eu-west-1.amazonaws.com/huggingface-pytorch-tgi-inference:"
ARGUMENTS = "--model-id gpt2 --max-total-tokens 2048 --num-shard 1"


def told(text: str, file: str) -> list[tuple[str, str]]:
    """Severity and code of every finding, the shipped models being the only facts."""
    found = findings(text, file)
    return [(one.severity, one.code) for one in found]


def codes(text: str, file: str) -> set[str]:
    return {code for _, code in told(text, file)}


def run_line(image: str, arguments: str = ARGUMENTS) -> str:
    return f"docker run --gpus all --shm-size 1g -p 8080:80 {image} {arguments}\n"


@pytest.mark.parametrize(
    "image",
    [
        "quay.io/opendatahub/text-generation-inference:stable",
        "quay.io/modh/text-generation-inference@sha256:" + "8" * 64,
        "quay.io/modh/text-generation-inference:rhoai-2.9-e09b479",
        "ghcr.io/IBM/text-generation-inference:main",
        "registry.example/preemo/text-generation-inference:0.9",
        "ghcr.io/mithril-security/text-generation-inference:dev",
    ],
)
def test_a_fork_is_named_once_and_not_judged(image: str) -> None:
    line = run_line(image, "--model-name=/mnt/models --grpc-port 8033 --max-batch-weight 9 --quantize nothing")
    assert told(line, "run.sh") == [("info", "TGI504")]
    compose = f"services:\n  llm:\n    image: {image}\n    command: [text-generation-launcher, --model-name, m]\n"
    assert told(compose, "compose.yaml") == [("info", "TGI504")]


@pytest.mark.parametrize(
    "image",
    ["ghcr.io/predibase/lorax:main", "622.dkr.ecr.us-east-1.amazonaws.com/sm-lorax:latest",
     "quay.io/wxpe/text-gen-server:main.9b4aea8"],
)  # fmt: skip
def test_a_fork_of_another_name_is_no_server_of_tgi(image: str) -> None:
    assert read(run_line(image), "run.sh").servers == ()


@pytest.mark.parametrize(
    "image",
    ["vllm/vllm-openai:v0.6.3", "lmsysorg/sglang:latest", "ghcr.io/huggingface/text-embeddings-inference:1.5"],
)
def test_another_server_with_our_arguments_is_a_mistake(image: str) -> None:
    assert told(run_line(image), "run.sh") == [("error", "TGI506")]


@pytest.mark.parametrize("image", ["quay.io/example/text-generation-inference:stable", "acme/my-tgi-inference:7"])
def test_of_an_image_that_may_be_a_fork_neither_flags_nor_folders_are_judged(image: str) -> None:
    line = run_line(image, "--model-id gpt2 --grpc-port 8033 --quantize own loose")
    assert not {"TGI101", "TGI102", "TGI103", "TGI308", "TGI320", "TGI322"} & codes(line, "run.sh")
    compose = f"services:\n  llm:\n    image: {image}\n    command: [text-generation-launcher, --model-name, m]\n"
    assert not {"TGI101", "TGI102", "TGI320"} & codes(compose, "compose.yaml")
    assert "TGI103" in codes(run_line(image, "--model-id gpt2 --max-total-tokens many"), "run.sh")


@pytest.mark.parametrize(
    ("image", "release", "port", "cache"),
    [
        (f"{GOOGLE}cu121.1-4.ubuntu2204.py310", "1.4.4", 80, "/data"),
        (f"{GOOGLE}cu121.2-0.ubuntu2204.py310", "2.0.3", None, None),  # 2.0.1 and 2.0.3 differ
        (f"{GOOGLE}cu121.2-2.ubuntu2204.py310", "2.2.0", 8080, "/tmp"),
        (f"{GOOGLE}cu124.2-3.ubuntu2204.py311", "2.3.1", 8080, "/tmp"),
        (f"{GOOGLE}gpu.3.0.1", "3.0.1", 8080, "/tmp"),
        (f"{AWS}2.0.1-tgi0.9.3-gpu-py39-cu118-ubuntu20.04", "1.0.0", 8080, "/tmp"),
        (f"{AWS}2.4.0-tgi2.3.1-gpu-py311-cu124-ubuntu22.04", "2.3.1", 8080, "/tmp"),
        (f"{AWS}2.7.0-tgi3.3.6-gpu-py311-cu124-ubuntu22.04-v2.1", "3.3.6", 8080, "/data"),
        ("ghcr.io/huggingface/tgi-gaudi:1.2.1", "1.2.0", 80, "/data"),
        ("ghcr.io/huggingface/tgi-gaudi:2.0.1", "2.0.1", 80, "/data"),
        ("opea/tgi-gaudi:2.0.5", "2.0.4", 80, "/data"),
        ("ghcr.io/huggingface/tgi-gaudi:2.3.1", "2.3.1", 80, "/data"),
        ("ghcr.io/huggingface/tgi-gaudi:2.9.0", None, 80, None),
    ],
)  # fmt: skip
def test_what_a_clouds_image_holds(image: str, release: str | None, port: int | None, cache: str | None) -> None:
    found = identify(image)
    assert (str(found.release) if found.release else None, found.port) == (release, port)
    assert next((found.env[name] for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE") if name in found.env), None) == cache


@pytest.mark.parametrize("tag", ["1.13.1-optimum0.0.17-neuronx-py310-ubuntu22.04", "2.1.2-optimum0.0.24-neuronx-py310"])
def test_amazons_image_for_neuron_is_no_image_for_gpus(tag: str) -> None:
    assert identify(AWS + tag).judged is False


POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: gemma, labels: {{app: gemma}}}}
spec:
  containers:
    - name: server
      image: {GOOGLE}cu124.2-3.ubuntu2204.py311
      resources: {{limits: {{nvidia.com/gpu: 1}}}}
      env: [{{name: MODEL_ID, value: gpt2}}, {{name: NUM_SHARD, value: "1"}}%s]
      volumeMounts: [{{mountPath: /tmp, name: cache}}]
  volumes: [{{name: cache, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: gemma}}
spec: {{selector: {{app: gemma}}, ports: [{{port: 80, targetPort: %d}}]}}
"""


@pytest.mark.parametrize(
    ("env", "port", "wrong"),
    [("", 8080, False), ("", 80, True), (", {name: PORT, value: '9000'}", 9000, False),
     (", {name: AIP_HTTP_PORT, value: '8000'}", 8000, False), (", {name: AIP_HTTP_PORT, value: '8000'}", 8080, True),
     (", {name: AIP_HTTP_PORT, value: none}", 8080, False)],
)  # fmt: skip
def test_port_and_cache_of_googles_image_are_its_own(env: str, port: int, wrong: bool) -> None:
    found = codes(POD % (env, port), "pod.yaml")
    assert "TGI321" in found
    assert "TGI320" not in found
    assert ("TGI308" in found) is wrong


def test_googles_entry_point_fetches_a_model_by_itself() -> None:
    line = run_line(f"-v tmp:/tmp {GOOGLE}cu124.2-4.ubuntu2204.py311", "--num-shard 1")
    assert "TGI130" in codes(line, "run.sh")
    assert "TGI130" not in codes(line.replace("--gpus", "-e AIP_STORAGE_URI=gs://models/gemma --gpus"), "run.sh")


def test_of_tgi_gaudi_launcher_and_router_are_judged_and_nothing_else() -> None:
    start = "docker run -p 8080:80 --runtime=habana -e ENABLE_HPU_GRAPH=true -e MAX_LENGTH=9 -v data:/data "
    line = f"{start} ghcr.io/huggingface/tgi-gaudi:2.0.5 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 8"
    assert told(line, "run.sh") == [("info", "TGI505")]  # 28 heads on 8 cards
    assert ("error", "TGI110") in told(f"{line} --max-input-tokens 9 --max-total-tokens 9", "run.sh")
    assert ("error", "TGI101") in told(f"{line} --kv-cache-dtype auto", "run.sh")
    assert "TGI405" not in codes(line.replace("-e MAX", "-e HF_TOKEN -e MAX"), "run.sh")


WRONG = "--model-id gpt2 --max-input-tokens 9 --max-total-tokens 9 --no-such 1"
SAID = "# tgi-advisor: tgi 3.3.7"


@pytest.mark.parametrize(
    ("text", "file"),
    [
        (f"services:\n  llm:\n    image: acme.example/ml/llm:7 {SAID}\n    command: {WRONG}\n", "compose.yaml"),
        (f"services:\n  llm:\n    {SAID}\n    image: 'acme.example/ml/llm:7'\n    command: {WRONG}\n", "compose.yaml"),
        (f"{SAID} built by us\ndocker run --gpus all \\\n  -p 80:80 acme/llm \\\n  {WRONG}\n", "run.sh"),
        (f"IMAGE=acme/llm:7 {SAID}\ndocker run --gpus all $IMAGE {WRONG}\n", "run.sh"),
        (f"docker run --gpus all quay.io/acme/text-generation-inference:x {WRONG} {SAID}\n", "run.sh"),
        (
            f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers:\n    - name: a\n"
            f"      image: acme/llm@sha256:{'1' * 64} {SAID}\n      args: [{', '.join(WRONG.split())}]\n",
            "pod.yaml",
        ),
    ],
)  # fmt: skip
def test_a_comment_says_which_tgi_an_image_holds(text: str, file: str) -> None:
    found = told(text, file)
    assert {("error", "TGI110"), ("error", "TGI101")} <= set(found)
    assert "TGI504" not in {code for _, code in found}
    assert not {("error", "TGI110"), ("error", "TGI101")} <= set(told(text.replace("tgi-advisor", "somebody"), file))


def test_a_comment_names_the_variant_too_and_only_its_own_image() -> None:
    first, other = (f"docker run -p 8080:8080 acme/{name} --model-id gpt2\n" for name in ("llm", "web"))
    read_ = read(f"# tgi-advisor: tgi 3.3.5-gaudi\n{first}{other}", "run.sh")
    assert [server.image.text for server in read_.servers if server.image] == ["acme/llm"]
    assert dict(read_.stated)["acme/llm"] == "3.3.5-gaudi"
    assert ("error", "TGI164") in told(f"# tgi-advisor: tgi 3.3.5-gaudi\n{first}", "run.sh")


def test_a_release_that_never_was_is_said_of_a_comment_too() -> None:
    assert ("warning", "TGI507") in told(
        f"docker run --gpus all acme/llm {ARGUMENTS} # tgi-advisor: tgi 2.0.5\n", "r.sh"
    )


@pytest.mark.parametrize("image", ["acme.example/ml/llm:prod", "acme.example/ml/llm:2.3.1"])
def test_a_spec_says_which_tgi_its_image_holds(image: str) -> None:
    spec = f"model: {{id: gpt2}}\nhardware: {{gpu: nvidia-l4}}\ntgi: {{image: {image!r}, release: 2.3.1}}\n"
    assert told(spec, "spec.yaml") == []
    later = spec.replace("release: 2.3.1", "release: 2.3.1, flags: {kv-cache-dtype: fp8_e5m2}")
    assert told(later, "spec.yaml") != []
    if not image.endswith("prod"):
        assert told(spec.replace(", release: 2.3.1", ""), "spec.yaml") == []


def test_an_option_or_a_setting_says_which_tgi_an_image_holds(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_text(f"docker run --gpus all registry:5000/acme/llm:7 {WRONG}\n")
    guessed = run("validate", str(file)).out
    assert "TGI110" in guessed
    assert "TGI101" not in guessed
    stated = run("validate", str(file), "--image", "registry:5000/acme/llm=3.3.7")
    assert "TGI110" in stated.out
    assert "TGI101" in stated.out
    assert run("validate", str(file), "--image", "registry:5000/acme/llm:8=3.3.7").out == guessed
    (tmp_path / ".tgi-advisor.toml").write_text('images = {"registry:5000/acme/llm:7" = "3.3.7"}\n')
    assert run("validate", str(file)).out == stated.out
    spec = run("import", str(file), "--image", "registry:5000/acme/llm=3.3.7").out
    assert "  release: 3.3.7\n  image: registry:5000/acme/llm:7\n" in spec


@pytest.mark.parametrize("word", ["acme/llm", "acme/llm=", "=3.3.7", "acme/llm=newest"])
def test_what_says_no_release_of_an_image_is_refused(word: str) -> None:
    for command in ("validate", "import"):
        result = run(command, "nothing.yaml", "--image", word)
        assert result.code == 2
        assert "expected a release such as 3.3.7" in result.err


def test_a_setting_that_says_no_release_is_shown_with_its_place(tmp_path: Path) -> None:
    settings = tmp_path / ".tgi-advisor.toml"
    settings.write_text('images = {"acme/llm" = "newest"}\n')
    (tmp_path / "run.sh").write_text(run_line("acme/llm"))
    result = run("validate", str(tmp_path))
    assert result.code == 2
    assert f"{settings}:1:1" in result.err


@pytest.mark.parametrize(("env", "inside"), [("", 8080), (", env: {AIP_HTTP_PORT: '8000'}", 8000)])
def test_a_spec_with_googles_image_is_emitted_with_its_port_and_cache(tmp_path: Path, env: str, inside: int) -> None:
    spec = tmp_path / "spec.yaml"
    image = f"{GOOGLE}cu124.2-3.ubuntu2204.py311"
    spec.write_text(
        f"model: {{id: Qwen/Qwen2.5-7B-Instruct}}\nhardware: {{gpu: nvidia-l4}}\ntgi: {{image: {image}{env}}}\n"
    )
    emitted = run("emit", str(spec), "--format", "compose")
    assert emitted.code == 0
    assert f":{inside}" in emitted.out
    assert '"/tmp"' in emitted.out
    assert "newest that is known" not in emitted.err
    file = tmp_path / "compose.yaml"
    file.write_text(emitted.out)
    found = codes(emitted.out, "compose.yaml")
    assert not {"TGI308", "TGI320", "TGI322"} & found
    again = run("import", str(file)).out
    assert f"  image: {image}\n" in again
    assert "listen on" not in again


@pytest.mark.parametrize("image", ["${TGIS_IMAGE}", "$REGISTRY/text-generation-inference:$TAG", "${IMAGE}:2.3.1"])
def test_an_image_that_is_not_in_the_file_may_be_a_forks(image: str) -> None:
    container = (
        f"{{name: a, image: '{image}', command: [text-generation-launcher], args: [--model-name=/m, --grpc-port=8]}}"
    )
    pod = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers:\n    - {container}\n"
    assert not {"TGI101", "TGI320"} & codes(pod, "pod.yaml")
    own = pod.replace(image, "ghcr.io/huggingface/text-generation-inference:${TAG}")
    assert "TGI101" in codes(own, "pod.yaml")
    assert told(pod.replace(image, "quay.io/modh/text-generation-inference:$TAG"), "pod.yaml") == [("info", "TGI504")]
