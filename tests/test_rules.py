"""The rules of `validate`: every one against its own examples, and the laws they all keep."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tgi_advisor import api
from tgi_advisor.errors import UsageError
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.gather import snapshot
from tgi_advisor.refusals import all_rules
from tgi_advisor.render import render
from tgi_advisor.validate import rules
from tgi_advisor.validate.finding import Finding
from tgi_advisor.validate.found import DEFECTS, Document
from tgi_advisor.validate.judge import judge
from tgi_advisor.validate.read import read
from tgi_advisor.validate.rules import RULES, Rule
from tgi_advisor.validate.rules.examples import Example, examples, explanation, page

ROOT = Path(__file__).parent.parent
TOKEN = "hf_" + "aB3" * 11 + "z"
EXAMPLES = [
    pytest.param(rule, example, id=f"{rule.code}-{'fixed' if example.fixed else 'failing'}")
    for rule in RULES.values()
    for example in examples(rule)
]


def judged(text: str, file: str = "run.sh", gpu: str | None = None, count: int | None = None) -> list[Finding]:
    """The findings about a text, with the shipped models as the only facts."""
    document = read(text, file)
    return list(judge(document, lambda model, _: snapshot.find(model), gpus.find(gpu) if gpu else None, count))


def run(args: str, tag: str = "3.3.7", options: str = "--gpus all --shm-size 1g -p 8080:80 -v data:/data") -> str:
    return f"docker run {options} ghcr.io/huggingface/text-generation-inference:{tag} {args}\n"


def codes(findings: list[Finding]) -> set[str]:
    """Codes of everything that is more than a remark."""
    return {one.code for one in findings if one.severity != "info"}


# the examples


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_every_example_does_what_it_shows(rule: Rule, example: Example) -> None:
    gpu = next((option.removeprefix("--gpu ") for option in example.options if option.startswith("--gpu ")), None)
    found = judged(example.text.replace("hf_{34-letters-and-digits}", TOKEN), example.file, gpu)
    assert read(example.text, example.file).form != "none"
    if rule.severity == "info":
        assert (rule.code in {one.code for one in found}) is not example.fixed
    else:
        assert codes(found) == (set() if example.fixed else {rule.code})


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_every_rule_is_explained_and_shown(rule: Rule) -> None:
    shown = [example.fixed for example in examples(rule)]
    assert shown == ([] if rule.code in ("TGI139", "TGI514", "TGI590") else [False, True])
    assert explanation(rule).endswith((".", ")."))
    assert re.fullmatch(r"TGI[1-5]\d\d", rule.code)
    assert page(rule).startswith(f"## {rule.code}\n")


def test_the_codes_are_in_order_and_none_is_taken_twice() -> None:
    assert list(RULES) == sorted(RULES)
    assert len({rule.title for rule in RULES.values()}) == len(RULES)


def test_every_refusal_of_tgi_has_one_rule() -> None:
    reported = [code for rule in RULES.values() for code in rule.refusals]
    assert sorted(reported) == sorted(set(reported))
    assert set(reported) == {rule.code for rule in all_rules()}


def test_every_defect_of_a_file_has_one_rule() -> None:
    reported = [kind for rule in RULES.values() for kind in rule.defects]
    assert sorted(reported) == sorted(DEFECTS)


def test_the_page_is_current() -> None:
    script = ROOT / "scripts" / "rules_doc.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), "run: python scripts/rules_doc.py"


def test_a_rule_is_found_by_its_code_in_any_case() -> None:
    assert rules.find("tgi107").code == "TGI107"
    assert "--max-input-length" in rules.text("TGI107")
    with pytest.raises(UsageError, match="no rule 'TGI999'"):
        rules.find("TGI999")


# where a finding points, and what it says


K8S = """\
apiVersion: v1
kind: Pod
metadata: {name: tgi}
spec:
  containers:
    - name: tgi
      image: ghcr.io/huggingface/text-generation-inference:%s
      env:
        - name: MODEL_ID
          value: Qwen/Qwen2.5-7B-Instruct
        - name: MAX_INPUT_LENGTH
          value: "%s"
        - name: MAX_TOTAL_TOKENS
          value: "4096"
      resources: {limits: {nvidia.com/gpu: 1}}
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: tgi}}]
"""


def test_names_and_values_are_pointed_at_where_they_stand() -> None:
    found = {one.code: one for one in judged(K8S % ("2.4.0", "4096"), "pod.yaml") if one.code != "TGI505"}
    assert {code: one.place.line for code, one in found.items()} == {"TGI107": 11, "TGI110": 12}
    assert found["TGI107"].fix is not None
    assert found["TGI107"].fix.new == "MAX_INPUT_TOKENS"
    assert "4095" in found["TGI110"].next_step
    assert found["TGI110"].server == "tgi"
    assert found["TGI110"].url == "docs/rules.md#tgi110"


@pytest.mark.parametrize(
    ("tag", "length", "expected"),
    [
        ("1.4.5", "3000", set()),
        ("2.0.0", "3000", set()),
        ("1.4.5", "4096", {"TGI110"}),
        ("1.4.5", "4097", {"TGI110", "TGI111"}),
        ("2.4.1", "4096", {"TGI110"}),
    ],
)
def test_releases_decide(tag: str, length: str, expected: set[str]) -> None:
    assert codes(judged(K8S % (tag, length), "pod.yaml")) == expected


@pytest.mark.parametrize(
    ("text", "gpu", "expected"),
    [
        (run("--model-id gpt2 --num-shard $N --max-input-tokens 9 --max-total-tokens 8"), None, {"TGI110"}),
        (run("--model-id $MODEL --max-input-tokens 8 --max-total-tokens 8"), None, {"TGI110"}),
        (run("--model-id $MODEL --max-input-tokens $IN --max-total-tokens 8"), None, set()),
        (run("--model-id $MODEL $MORE --max-total-tokens 4000 --max-batch-prefill-tokens 2048", "2.0.4"), None, set()),
        (run("--model-id gpt2 --max-total-tokens $TOTAL$"), None, {"TGI103"}),
        (run("--model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1", "nightly"), None, set()),
        (run("--model-id Qwen/Qwen2.5-7B-Instruct --quantize fp8"), None, set()),
        (run("--model-id Qwen/Qwen2.5-7B-Instruct --quantize fp8"), "nvidia-t4", {"TGI154"}),
        (run("--model-id Qwen/Qwen2.5-7B-Instruct --quantize awq", "sha-0eabc83"), None, {"TGI134"}),
        (run("--model-id HuggingFaceH4/zephyr-7b-beta --quantize awq", "sha-0eabc83"), None, {"TGI150"}),
        (run("--host 0.0.0.0 --model-id gpt2", "$TAG"), None, {"TGI101"}),
        (run("--model-id gpt2 --gpus all", options="--shm-size 1g -v data:/data"), None, {"TGI301", "TGI309"}),
        (run("--executor-worker x --tokenizer-name gpt2", "3.3.7-trtllm"), None, set()),
    ],
)  # fmt: skip
def test_only_what_is_certain_is_said(text: str, gpu: str | None, expected: set[str]) -> None:
    assert codes(judged(text, gpu=gpu)) == expected


def test_an_image_of_somebody_elses_says_no_release() -> None:
    ours = run("--model-id gpt2 --no-such-flag --max-input-length 8 --max-total-tokens 9")
    theirs = ours.replace("ghcr.io/huggingface/text-", "example.org/my/text-")
    assert {one.code for one in judged(ours)} == {"TGI101", "TGI107"}
    assert {one.code for one in judged(theirs)} == {"TGI504"}


def test_what_every_release_refuses_needs_no_release() -> None:
    text = "MODEL_ID=gpt2\nMAX_INPUT_LENGTH=1024\nMAX_TOTAL_TOKENS=1024\n"
    assert codes(judged(text, "tgi.env")) == {"TGI110"}
    assert codes(judged(text.replace("=1024", "=1000", 1), "tgi.env")) == set()


def test_another_container_of_the_pod_may_be_the_one_that_is_asked() -> None:
    alone = (K8S % ("3.3.7", "3000")).replace("MAX_INPUT_LENGTH", "MAX_INPUT_TOKENS").replace(
        "      resources:", "      readinessProbe: {httpGet: {path: /health, port: 8081}}\n      resources:"
    )  # fmt: skip
    assert codes(judged(alone, "pod.yaml")) == {"TGI308"}
    beside = alone.replace("  volumes:", "    - {name: health, image: health-checker}\n  volumes:")
    assert codes(judged(beside, "pod.yaml")) == set()


def test_a_default_that_is_empty_is_only_a_risk() -> None:
    text = "services: {tgi: {image: '%s:3.3.7', runtime: nvidia, volumes: ['./d:/data'], environment: %s}}"
    entries = {"QUANTIZE=": "error", "QUANTIZE=${Q:-}": "warning"}
    for entry, severity in entries.items():
        image = "ghcr.io/huggingface/text-generation-inference"
        found = judged(text % (image, f"['MODEL_ID=gpt2', '{entry}']"), "compose.yaml")
        assert [(one.code, one.severity) for one in found if one.severity != "info"] == [("TGI104", severity)]


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("ghcr.io/huggingface/text-generation-inference:3.3.7", "3.3.7"),
        ("ghcr.io/huggingface/text-generation-inference", "3.3.7"),
        ("ghcr.io/huggingface/text-generation-inference:0.9.4", "1.0.0"),
        ("ghcr.io/huggingface/text-generation-inference:sha-0eabc83", "1.3.4"),
        ("ghcr.io/huggingface/text-generation-inference:sha-b70ae09", "2.2.0"),
        ("ghcr.io/huggingface/text-generation-inference:nightly", None),
        ("x.amazonaws.com/huggingface-pytorch-tgi-inference:2.4.0-tgi2.3.1-gpu-py311-cu124-ubuntu22.04-v2.0", "2.3.1"),
        ("x.amazonaws.com/huggingface-pytorch-tgi-inference:2.1-tgi2.0-gpu-py310-cu121-ubuntu22.04", "2.0.2"),
        ("us-docker.pkg.dev/x/huggingface-text-generation-inference-cu124.2-3.ubuntu2204.py311", "2.3.1"),
        ("us-docker.pkg.dev/vertex-ai/x/pytorch-hf-tgi-serve:20240220_0936_RC01", None),
        ("ghcr.io/huggingface/tgi-gaudi:2.0.6", "2.0.4"),
        ("ghcr.io/huggingface/tgi-gaudi:2.0.7", None),
        ("ghcr.io/huggingface/text-generation-inference:0.8.2", "1.0.0"),
        ("huggingface-pytorch-tgi-inference:tgi0.9.3", "1.0.0"),
        ("x.amazonaws.com/huggingface-pytorch-tgi-inference:2.0.1-tgi0.8.2-gpu-py39", "1.0.0"),
    ],
)
def test_the_release_in_an_image(image: str, release: str | None) -> None:
    from tgi_advisor.validate.images import identify

    found = identify(image)
    assert (str(found.release) if found.release else None) == release
    assert found.release is not None or found.note


def test_of_an_unknown_model_no_figure_of_another_is_quoted() -> None:
    args = "--model-id someone/something --num-shard 1 --max-batch-total-tokens 1024"
    options = "--gpus all --shm-size 1g -p 8080:80 -v data:/data -e MAX_BATCH_SIZE=64"
    (found,) = [one for one in judged(run(args, "2.0.4", options)) if one.severity == "error"]
    assert (found.code, "Given: ... and 1024" in found.message) == ("TGI113", True)
    (found,) = [one for one in judged(run("--model-id someone/something --max-total-tokens 100", "2.0.4"))
                if one.severity == "error"]  # fmt: skip
    assert found.next_step.endswith("= 99 (the one left out became ...)")


BARE = "text-generation-launcher --model-id {} {}\n"


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-7B-Instruct", "someone/something", "/data/mine", "$MODEL"])
@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("--max-input-tokens 4096 --max-total-tokens 4096", "TGI110"),
        ("--quantize bitsandbytes --dtype float16 --validation-workers 0", "TGI115"),
        ("--quantize eetq --dtype float16", "TGI152"),
        ("--max-total-tokens 5000 --max-batch-total-tokens 1000", "TGI112"),
        ("--sharded true --num-shard 1", "TGI142"),
        ("--max-total-tokens 4096", None),
        ("--kv-cache-dtype fp8_e5m2", None),
        ("--num-shard 7", None),
    ],
)
def test_without_a_release_what_every_release_refuses(model: str, args: str, code: str | None) -> None:
    found = judged(BARE.format(model, args), gpu=None)
    assert codes(found) - {"TGI136"} == ({code} if code else set())
    assert "TGI504" not in codes(found)  # without a GPU, nothing more would be judged if the release were known
    asked = judged(BARE.format(model, args), gpu="nvidia-l4")
    assert any(one.next_step.startswith("--release says which it is") for one in asked)


def test_memory_is_judged_with_the_limits_that_fit() -> None:
    text = run("--model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1 --max-input-tokens 30000 --max-total-tokens 32000 "
               "--max-batch-prefill-tokens 60000", "2.4.1")  # fmt: skip
    (found,) = [one for one in judged(text, gpu="nvidia-l4") if one.code == "TGI202"]
    assert found.next_step.startswith("these limits fit: --max-input-tokens ")
    again = re.sub(r"--max-input.*", found.next_step.removeprefix("these limits fit: "), text)
    assert "TGI202" not in codes(judged(again, gpu="nvidia-l4"))


def test_options_of_one_letter_name_no_secret() -> None:
    from tgi_advisor.validate.secrets import without_secrets

    line = "docker run -p 8080:80 -v /srv/models:/data -e MAX_BATCH_SIZE=64 -u 1000:1000 -w /data -h tgi x/y"
    assert without_secrets(line) == line


NEVER = {
    "2.0.5": "there is no TGI 2.0.5; nearest to it: 2.0.4 and 2.1.0",
    "2.0.5-rocm": "there is no TGI 2.0.5; nearest to it: 2.0.4 and 2.1.0",
    "2.5": "there is no TGI 2.5; nearest to it: 2.4.1 and 3.0.0",
    "0.9.5": "there is no TGI 0.9.5; nearest to it: 0.9.4 and 1.0.0",
    "0.1": "there is no TGI 0.1; nearest to it: 0.2.0",
    "1.1.0-rocm": "TGI 1.1.0 has no image whose tag ends with -rocm",
    "3.0.0-intel": "TGI 3.0.0 has no image whose tag ends with -intel",
    "v3.3.7": "TGI's own tags have no `v`: 3.3.7",
}


@pytest.mark.parametrize("tag", NEVER)
def test_a_tag_that_never_was_is_a_warning_with_the_nearest(tag: str) -> None:
    found = judged(run("--model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1", tag))
    assert [one.message for one in found if one.code == "TGI507"] == [NEVER[tag]]
    assert codes(found) == {"TGI507"}
    assert "TGI504" not in {one.code for one in found}


@pytest.mark.parametrize(
    "tag",
    ["3.3.7", "3.3.7-rocm", "2.4.1-intel-cpu", "1.2-rocm", "2.4", "latest", "latest-rocm", "stable", "3.3.7-mine",
     "3.3.8", "4.0", "sha-293b8125-rocm", "sha-1234567", "0.9", "0.8.2", "3.3.6-neuron", "3.3.7-trtllm"],
)  # fmt: skip
def test_a_tag_that_may_be_there_is_none_that_never_was(tag: str) -> None:
    assert "TGI507" not in codes(judged(run("--model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1", tag)))


def test_what_0_8_does_not_check_is_not_said_of_it() -> None:
    args = "--model-id tiiuae/falcon-40b-instruct --max-input-length 2048 --max-total-tokens 2048 --quantize gptq"
    assert codes(judged(run(args, "0.8.2"), gpu="nvidia-a100-80gb-sxm")) == {"TGI150"}
    assert codes(judged(run(args, "0.9.3"), gpu="nvidia-a100-80gb-sxm")) == {"TGI110", "TGI150"}


# secrets


@pytest.mark.parametrize(
    "text",
    [
        run("--model-id gpt2", options=f"--gpus all -v data:/data -e HF_TOKEN={TOKEN}"),
        run(f"--model-id gpt2 --api-key {TOKEN}", options="--gpus all -v data:/data"),
        run(f"--model-id {TOKEN} --max-total-tokens {TOKEN} {TOKEN} --{TOKEN}"),
        f"token={TOKEN}\n" + run("--model-id gpt2", options="--gpus all -v data:/data -e HF_TOKEN=$token"),
        f"services: {{tgi: {{image: '{TOKEN}/text-generation-inference:3.3.7', environment: [API_KEY={TOKEN}]}}}}",
    ],
)
def test_a_token_is_reported_and_never_shown(text: str) -> None:
    found = judged(text, "compose.yaml" if text.startswith("services") else "run.sh")
    assert "TGI401" in codes(found)
    assert TOKEN not in "".join(f"{one.message} {one.next_step} {one.server} {one.fix}" for one in found)


# what tgi-advisor itself writes


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_emitted_validates_clean(config: Path) -> None:
    plan = api.advise(config, offline=True)
    assert plan.container is not None
    names = {"docker-run": "run.sh", "compose": "compose.yaml", "kubernetes": "tgi.yaml", "env": "tgi.env"}
    facts: Callable[[str, str | None], object] = lambda model, _: snapshot.find(model)  # noqa: E731
    for name, file in names.items():
        document = read(render(plan.container, name), file)
        assert len(document.servers) == 1
        for gpu, count in ((None, None), (plan.facts.gpu, plan.facts.gpu_count)):
            found = judge(document, facts, gpu, count)  # type: ignore[arg-type]
            assert codes(list(found)) == set(), name
    assert codes(judged(config.read_text("utf-8"), config.name)) == set()


def test_a_file_without_a_server_says_nothing() -> None:
    assert judge(Document("a.yaml", "a: 1\n", "none"), lambda *_: None) == ()
