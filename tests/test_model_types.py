"""Model types TGI has no class for: every command gives TGI's answer of that release, whatever the geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from front import run
from hypothesis import example, given, settings
from hypothesis import strategies as st
from launch import LLAMA, model, settle
from test_folder import write_model

from tgi_advisor.errors import FactsError
from tgi_advisor.estimate import warmup
from tgi_advisor.facts import release as releases
from tgi_advisor.facts import tables
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.gather import snapshot
from tgi_advisor.limits import Limits
from tgi_advisor.validate import catalogue
from tgi_advisor.validate.judge import judge
from tgi_advisor.validate.read import read
from tgi_advisor.verdict import predict

MOE = {**LLAMA, "num_local_experts": 32, "num_experts_per_tok": 4}
LAST = "after 3.3.7 of 2025-12-18 none will, TGI being in maintenance mode (its authors recommend vLLM and SGLang)"


def folder(place: Path, **config: Any) -> str:
    tensors = {"model.embed_tokens.weight": ("BF16", [128256, 4096]), "lm_head.weight": ("BF16", [128256, 4096])}
    return str(write_model(place, [tensors], config))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", ["advise", "predict", "emit"])
@pytest.mark.parametrize(
    ("release", "count", "said"),
    [
        ("3.3.7", 1, "ValueError: Unsupported model type gpt_oss"),
        ("3.3.7", 2, "NotImplementedError: sharded is not supported for AutoModel"),
        ("2.0.4", 2, "NotImplementedError: sharded is not supported for AutoModel"),
        ("1.0.0", 2, "ValueError: sharded is not supported for AutoModel"),
    ],
)
def test_a_type_of_today_is_refused(tmp_path: Path, command: str, release: str, count: int, said: str) -> None:
    place = folder(tmp_path, **{**MOE, "model_type": "gpt_oss"})
    shards = ("--set", f"tgi.num_shard={count}")
    ran = run(command, "-m", place, "-g", "nvidia-h100-sxm", "-n", str(count), "-r", release, *shards)
    text = words(ran.out + ran.err)
    assert ran.code == 6
    assert f"Reason: {said}" in text
    assert f"no release serves gpt_oss, and {LAST}" in text
    assert "did you mean" not in text


@pytest.mark.parametrize("command", ["advise", "predict", "emit"])
def test_a_refused_type_needs_no_geometry(tmp_path: Path, command: str) -> None:
    place = folder(tmp_path, model_type="some_new_thing", num_hidden_layers=None)
    ran = run(command, "-m", place, "-g", "nvidia-h100-sxm")
    assert ran.code == 6
    assert "Unsupported model type some_new_thing" in ran.out + ran.err


def test_a_served_type_whose_geometry_cannot_be_read_says_which_field(tmp_path: Path) -> None:
    place = folder(tmp_path, model_type="falcon_mamba", hidden_size=64)
    ran = run("predict", "-m", place, "-g", "nvidia-h100-sxm")
    assert ran.code == 4
    assert "no usable `num_attention_heads`" in ran.err
    assert "write the field into the config.json of a folder with the weights" in words(ran.err)


def test_the_repositorys_own_code_is_a_way_out(tmp_path: Path) -> None:
    own = {"auto_map": {"AutoModelForCausalLM": "modeling_ernie4_5.Ernie4_5_ForCausalLM"}}
    place = folder(tmp_path, **{**LLAMA, "model_type": "ernie4_5", **own})
    ran = run("predict", "-m", place, "-g", "nvidia-h100-sxm")
    assert ran.code == 6
    assert "set model.trust_remote_code: true" in ran.out
    trusted = run("predict", "-m", place, "-g", "nvidia-h100-sxm", "--set", "model.trust_remote_code=true")
    assert trusted.code == 0
    assert "padded batches" in trusted.out


def test_an_image_with_an_unpinned_transformers_says_so(tmp_path: Path) -> None:
    place = folder(tmp_path, **{**MOE, "model_type": "gpt_oss"})
    ran = run("advise", "-m", place, "-g", "mi300x")
    assert ran.code == 4
    assert "the image installs a transformers that is not pinned" in words(ran.err)


@pytest.mark.parametrize(
    ("kind", "release", "shards", "code"),
    [
        ("gpt_oss", "3.3.7", 1, "TGI134"),
        ("gpt_oss", "3.3.7", 2, "TGI134"),
        ("qwen3_next", "2.0.4", 2, "TGI134"),
        ("stablelm", "3.3.7", 2, "TGI141"),
        ("stablelm", "3.3.7", 1, None),
    ],
)
def test_validate_says_it_too(kind: str, release: str, shards: int, code: str | None) -> None:
    image = f"ghcr.io/huggingface/text-generation-inference:{release}"
    text = f"docker run --gpus all --shm-size 1g -p 80:80 -v d:/data {image} --model-id org/x --num-shard {shards}\n"
    found = judge(read(text, "run.sh"), lambda *_: model({**MOE, "model_type": kind}))
    errors = [one.code for one in found if one.severity == "error"]
    assert errors == ([code] if code else [])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("3.3.7 --model-id openai/gpt-oss-20b", "TGI134"),
        ("2.4.1 --model-id openai/gpt-oss-120b --num-shard 4", "TGI134"),
        ("3.3.7 --model-id openai/gpt-oss-20b --trust-remote-code", None),
        ("3.3.7-rocm --model-id openai/gpt-oss-20b", None),  # its transformers is not known
        ("3.3.4-rocm --model-id openai/gpt-oss-20b", "TGI134"),
        ("3.3.7-gaudi --model-id openai/gpt-oss-20b --max-batch-size 4", "TGI134"),
        ("3.3.7 --model-id Qwen/Qwen3-14B-GGUF", None),
        ("3.3.7 --model-id Qwen/Qwen3-VL-8B-Instruct", "TGI134"),
        ("3.2.2 --model-id Qwen/Qwen3-235B-A22B", "TGI134"),
        ("3.2.3 --model-id Qwen/Qwen3-235B-A22B", None),
        ("3.1.1 --model-id google/gemma-3-12b-it", "TGI134"),
        ("3.2.0 --model-id google/gemma-3-12b-it", None),
        ("3.3.7 --model-id google/gemma-3-1b-it", None),
        ("3.3.7 --model-id google/gemma-3n-E4B-it", "TGI134"),
        ("3.3.7 --model-id zai-org/GLM-4.5-Air", "TGI134"),
        ("3.3.7 --model-id mistralai/Mistral-Small-3.1-24B-Instruct-2503", "TGI134"),
        ("3.3.7 --model-id someone/gpt-oss-20b", None),
    ],
)
def test_a_name_that_says_the_type_is_enough(words: str, code: str | None) -> None:
    devices = {"rocm": "--device /dev/kfd --device /dev/dri", "gaudi": "--runtime=habana"}
    device = next((flags for name, flags in devices.items() if name in words), "--gpus all")
    image = "ghcr.io/huggingface/text-generation-inference"
    text = f"docker run {device} --shm-size 1g -p 80:80 -v d:/data -e HF_TOKEN {image}:{words}\n"
    found = [one for one in judge(read(text, "run.sh"), lambda *_: None) if one.severity == "error"]
    assert [one.code for one in found] == ([code] if code else [])
    said = "sharded is not supported for AutoModel" if "--num-shard 4" in words else "Unsupported model type"
    assert not found or said in found[0].message


def test_the_types_of_the_shipped_models_names_are_theirs() -> None:
    for name in snapshot.names():
        facts, kind = snapshot.find(name), catalogue.model_type(name)
        assert facts is not None
        assert kind in (None, facts.model_type)


VARIANTS = {"": "nvidia-h100-80gb", "rocm": "amd-mi250", "gaudi": "intel-gaudi3"}
MAPPED = [*tables.load("automodel")["causal"].values(), *tables.load("automodel")["seq2seq"].values()]
TYPES = st.sampled_from(" ".join(MAPPED).split()) | st.text(min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(TYPES, st.sampled_from(releases.all_releases()), st.sampled_from(sorted(VARIANTS)), st.sampled_from((1, 2)))
@example("mamba", releases.find("3.3.3"), "gaudi", 2)
@example("fuyu", releases.find("1.2.0"), "rocm", 1)
def test_every_type_has_an_answer(kind: str, release: TgiRelease, variant: str, shards: int) -> None:
    if variant and release.version < ((3, 1, 1) if variant == "gaudi" else (1, 2, 0)):
        return
    flags = {"max-batch-size": 4} if variant == "gaudi" else {}
    try:
        setting = settle(
            model({**MOE, "model_type": kind}), release.name, VARIANTS[variant], 2, variant, shards, flags=flags
        )
    except FactsError as error:
        assert "is not pinned" in str(error)  # noqa: PT017
        return
    seen = predict(warmup.base(setting), Limits())
    if not setting.family.supported:
        words = ("Unsupported model type", "sharded is not supported for AutoModel")
        assert seen.outcome == "refused"
        assert seen.stage == "load"
        assert any(one in (seen.reason or "") for one in words)
        assert len(seen.next_steps) == 1


def test_no_shipped_model_is_refused_by_the_newest_release_for_its_type() -> None:
    for name in snapshot.recorded_ids()[::9]:
        facts = snapshot.find(name)
        assert facts is not None
        found = judge(
            read(f"docker run ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id {name}\n", "run.sh"),
            lambda *_: facts,  # noqa: B023
        )
        assert "TGI134" not in {one.code for one in found}
