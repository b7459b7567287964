"""What is said of something that is not known holds for everything it may be: model, GPU, release, values."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgi_advisor.estimate import defaults
from tgi_advisor.facts import families
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.gather import snapshot
from tgi_advisor.validate.hardware import Stated
from tgi_advisor.validate.judge import cases, findings
from tgi_advisor.validate.read import read
from tgi_advisor.validate.rules import RULES

IMAGE = "ghcr.io/huggingface/text-generation-inference"
ANY = "someone/something"
MODELS = snapshot.recorded_ids()
CARDS = [row.facts for row in gpus.all_gpus() if row.facts and row.facts.system == "cuda"]
FLASH = [card for card in CARDS if card.at_least >= (7, 5)]
RELEASES = [one.name for one in releases.all_releases()]
SIZES = ("0", "1", "512", "1024", "2048", "4096", "8000", "100000")
CHOICES = {
    "--max-input-tokens": SIZES, "--max-input-length": SIZES, "--max-total-tokens": SIZES,
    "--max-batch-prefill-tokens": SIZES, "--max-batch-total-tokens": SIZES, "--max-batch-size": ("0", "1", "64"),
    "--validation-workers": ("0", "2"), "--num-shard": ("0", "1", "2", "3", "8"), "--sharded": ("true", "false"),
    "--quantize": ("awq", "gptq", "exl2", "fp8", "marlin", "eetq", "bitsandbytes", "compressed-tensors"),
    "--dtype": ("float16", "bfloat16"), "--kv-cache-dtype": ("fp8_e4m3fn", "fp8_e5m2"), "--speculate": ("2",),
    "--cuda-memory-fraction": ("0.5",), "--lora-adapters": ("a/b", "a@b@c", "n=/x"), "--ngrok-authtoken": ("t",),
    "--ngrok-edge": ("e",), "--rope-scaling": ("linear",),
    "ATTENTION": ("paged", "flashdecoding", "flashinfer", "foo"), "PREFIX_CACHING": ("0", "1"),
    "USE_PREFIX_CACHING": ("0", "1"), "PREFILL_CHUNKING": ("0", "1"), "TGI_WIGGLE_ROOM": ("0.9", "2"),
    "USE_FLASH_ATTENTION": ("false", "true"),
}  # fmt: skip
SWITCHES = ("--ngrok", "--trust-remote-code", "--enable-prefill-logprobs")
WORDS = st.dictionaries(
    st.sampled_from([*CHOICES, *SWITCHES]), st.integers(0, 40), max_size=5
).map(lambda some: {name: _value(name, number) for name, number in some.items()})  # fmt: skip

often = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def _value(name: str, number: int) -> str:
    return CHOICES[name][number % len(CHOICES[name])] if name in CHOICES else ""


def command(tag: str, words: dict[str, str]) -> str:
    """The words after `docker run`, or of the bare launcher where there is no tag."""
    env = " ".join(f"-e {name}={value}" for name, value in words.items() if name.isupper())
    args = " ".join(f"{name} {value}".strip() for name, value in words.items() if not name.isupper())
    if not tag:
        return f"{env.replace('-e ', '')} text-generation-launcher --model-id {ANY} {args}\n"
    return f"docker run --gpus all {env} {IMAGE}:{tag} --model-id {ANY} {args}\n"


def said(text: str, facts: ModelFacts | None, gpu: gpus.GpuFacts | None, release: TgiRelease | None = None) -> set[str]:
    """The rules that report something TGI itself refuses."""
    document = read(text, "run.sh")
    held = cases(document, lambda *_: facts, Stated(gpu, 8 if gpu else None, release))
    assert not any(case.defect for case in held)
    found = findings(document, held)
    return {one.code for one in found if one.severity == "error" and (RULES[one.code].refusals or one.code < "TGI110")}


def shipped(name: str) -> ModelFacts:
    found = snapshot.find(name)
    assert found is not None
    return found._replace(id=ANY)


@often
@given(st.sampled_from(RELEASES), WORDS, st.sampled_from([None, *FLASH]), st.lists(st.sampled_from(MODELS), min_size=8))
def test_of_an_unknown_model_only_what_holds_for_every_model(
    tag: str, words: dict[str, str], gpu: gpus.GpuFacts | None, models: list[str]
) -> None:
    text = command(tag, words)
    general = said(text, None, gpu)
    for name in models if general else ():
        facts = shipped(name)
        special = said(text, facts, gpu)
        if "TGI134" in special:
            continue  # refused in any case
        family = families.find(facts, releases.find(tag))
        ignored = {"TGI163"} if not family.kv_cache_dtype else set()
        assert general - ignored <= special, name


@often
@given(st.sampled_from(RELEASES), WORDS, st.sampled_from(MODELS))
def test_of_an_unknown_gpu_only_what_holds_on_every_gpu(tag: str, words: dict[str, str], model: str) -> None:
    text = command(tag, words)
    general = said(text, shipped(model), None)
    for gpu in FLASH if general else ():
        if defaults.flash_attention(gpu, releases.find(tag), {}):
            assert general <= said(text, shipped(model), gpu), gpu.name


@often
@given(WORDS, st.sampled_from(MODELS), st.sampled_from(FLASH))
def test_of_an_unknown_release_only_what_every_release_refuses(
    words: dict[str, str], model: str, gpu: gpus.GpuFacts
) -> None:
    text = command("", words)
    general = said(text, shipped(model), gpu)
    for release in releases.all_releases() if general else ():
        special = said(text, shipped(model), gpu, release)
        # TGI141 in place of TGI140: a class that is not split at all is asked for no heads (Qwen1.5 on a T4, 1.4.1)
        instead = {"TGI101", "TGI103", "TGI134"} | ({"TGI141"} if general == {"TGI140"} else set())
        assert general <= special or special & instead, release.name


@often
@given(st.sampled_from(RELEASES), WORDS, st.sampled_from([None, *MODELS]), st.sampled_from([None, *FLASH]), st.data())
def test_where_a_value_is_not_in_the_file_only_what_holds_for_all(
    tag: str, words: dict[str, str], model: str | None, gpu: gpus.GpuFacts | None, data: st.DataObject
) -> None:
    facts = shipped(model) if model else None
    name = data.draw(st.sampled_from([*CHOICES]))
    general = said(command(tag, {**words, name: "$SOMETHING"}), facts, gpu)
    for value in CHOICES[name] if general else ():
        special = said(command(tag, {**words, name: value}), facts, gpu)
        assert general <= special or special - general, value  # refused all the same, for what comes before it
