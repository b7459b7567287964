"""Whatever stands in a command, the rules answer and never fail."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tgi_advisor import api
from tgi_advisor.facts import flags
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.reader import read_text
from tgi_advisor.units import human
from tgi_advisor.validate.hardware import Stated
from tgi_advisor.validate.importer import imported
from tgi_advisor.validate.judge import cases, findings, judge
from tgi_advisor.validate.read import read

FLAGS = sorted({name for one in releases.all_releases() for name in flags.flags_of(one)} | {"foo", "max-input-token"})
VARIABLES = sorted(
    {flag.env for flag in flags.flags_of(releases.latest()).values() if flag.env}
    | {"ATTENTION", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"}
)
VALUES = st.sampled_from(
    ["0", "1", "2", "3", "-1", "4096", "131072", "4294967295", "18446744073709551615", "9" * 40, "", "''", "true",
     "True", "awq", "gptq", "fp8", "exl2", "bitsandbytes", "float16", "fp8_e5m2", "0.5", "nan", "$X", "${A:-5}", "`x`",
     "MIG-1,MIG-2", "all", "/data/a,b=/y@r,=,@", "a=/x", "mine=org/a"]
) | st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=8)  # fmt: skip
TAGS = [one.name for one in releases.all_releases()] + ["latest", "0.9", "sha-0eabc83", "$TAG", "3.3.7-rocm", "x"]
MODELS = st.sampled_from(
    [*snapshot.names(), "x/y", "$M", "/data/x", "meta-llama/Llama-3.2-8B", "models--a--b", "/d/models--a"]
)
SLICES = ["a100-80gb-mig-1g.10gb", "h100-sxm-mig-3g.40gb", "h200-mig-7g.141gb"]
GPUS = st.sampled_from([None, *(row.facts for row in gpus.all_gpus() if row.facts), *map(gpus.find, SLICES)])
WORDS = st.tuples(st.sampled_from(FLAGS), st.sampled_from([" ", "="]), VALUES).map(lambda t: f"--{t[0]}{t[1]}{t[2]}")
ENTRIES = st.tuples(st.sampled_from(VARIABLES), VALUES).map(lambda t: f"-e {t[0]}={t[1]}")
ASKED = st.sampled_from(
    ["--gpus all", "--gpus 2", "--gpus '\"device=0,1\"'", "", "--device /dev/kfd", "--gpus '\"device=0:0\"'",
     "--gpus '\"device=MIG-1,MIG-2\"'", "--platform linux/arm64", "-m 12g", r"-v C:\x:/data", "-v $PWD:/adapters"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=8), st.lists(ENTRIES, max_size=4), st.sampled_from(TAGS), MODELS, ASKED, GPUS)
def test_any_command_is_judged(
    words: list[str], entries: list[str], tag: str, model: str, asked: str, gpu: gpus.GpuFacts | None
) -> None:
    image = f"ghcr.io/huggingface/text-generation-inference:{tag}"
    text = f"docker run {asked} {' '.join(entries)} {image} --model-id {model} {' '.join(words)}\n"
    text = text.replace("run", "run --name a -p 1:80", 1) + text.replace("run", "run --name b -p 2:80", 1)
    found = judge(read(text, "run.sh"), lambda name, _: snapshot.find(name), gpu, 2)
    assert list(found) == sorted(found, key=lambda one: one.order)
    assert all(one.message and one.place.line >= 1 and (one.next_step or one.severity == "info") for one in found)


FIELDS = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
LENGTHS = st.sampled_from([None, 1, 1000, 4000, 12000, 16000, 40000, 131000])
LAUNCHES = st.sampled_from(
    ["", "--quantize eetq", "--kv-cache-dtype fp8_e5m2", "--cuda-memory-fraction 0.8", "--speculate 2",
     "--validation-workers 0", "--max-batch-size 4", "--dtype bfloat16", "-e ATTENTION=paged",
     "--lora-adapters org/a", "-e LORA_ADAPTERS=a=/data/a,org/b@v2", "--lora-adapters /data/a"]
)  # fmt: skip
CARDS = ["nvidia-l4", "nvidia-a10g", "nvidia-t4", "nvidia-a100-80gb-sxm", "nvidia-rtx-3090",
         "a100-80gb-mig-2g.20gb", "gh200"]  # fmt: skip
SMALL = ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-8B", "google/gemma-2-9b-it",
         "Qwen/Qwen2.5-14B-Instruct-AWQ", "mistralai/Mistral-7B-Instruct-v0.1"]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SMALL), st.sampled_from(CARDS), st.sampled_from(["1.4.5", "2.0.4", "2.4.0", "3.0.1", "3.3.7"]),
    st.sampled_from([1, 1, 2]), LENGTHS, LENGTHS, LENGTHS, LAUNCHES,
)  # fmt: skip
def test_validate_and_predict_say_the_same(
    model: str, card: str, tag: str, shards: int, longest: int | None, total: int | None, prefill: int | None, more: str
) -> None:
    name = "max-input-length" if tag < "2" else "max-input-tokens"
    limits = {name: longest, "max-total-tokens": total, "max-batch-prefill-tokens": prefill}
    words = [f"--{flag} {value}" for flag, value in limits.items() if value is not None]
    env, words = (more, words) if more.startswith("-e") else ("", [*words, more])
    text = f"docker run --gpus all {env} ghcr.io/huggingface/text-generation-inference:{tag} --model-id {model}"
    document = read(f"{text} --num-shard {shards} {' '.join(words)}\n", "run.sh")
    (case,) = cases(document, lambda name, _: snapshot.find(name), Stated(gpus.find(card), shards))
    spec = imported(case, card, shards)
    assume(case.prediction is not None and "Not carried over" not in spec)
    assert case.prediction is not None
    planned = api.predict(read_text(spec, "spec.yaml"), source="snapshot").prediction
    for field in ("outcome", "stage", "limits", "missing_bytes", "runs_out"):
        assert getattr(case.prediction, field) == getattr(planned, field)
    memory = [one for one in findings(document, [case]) if one.code in ("TGI201", "TGI202")]
    assert bool(memory) == bool(planned.missing_bytes)
    assert all(human(planned.missing_bytes) in one.message for one in memory)
    if case.fits is not None:
        open_limits = read_text(spec, "spec.yaml", [f"limits.{field}=auto" for field in FIELDS])
        advised = api.advise(open_limits, source="snapshot").prediction.limits
        assert [getattr(case.fits, field) for field in FIELDS] == [getattr(advised, field) for field in FIELDS]
