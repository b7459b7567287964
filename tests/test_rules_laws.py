"""Whatever stands in a command, the rules answer and never fail."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_advisor.facts import flags
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.gather import snapshot
from tgi_advisor.validate.judge import judge
from tgi_advisor.validate.read import read

FLAGS = sorted({name for one in releases.all_releases() for name in flags.flags_of(one)} | {"foo", "max-input-token"})
VARIABLES = sorted({flag.env for flag in flags.flags_of(releases.latest()).values() if flag.env} | {"ATTENTION"})
VALUES = st.sampled_from(
    ["0", "1", "2", "3", "-1", "4096", "131072", "4294967295", "18446744073709551615", "9" * 40, "", "''", "true",
     "True", "awq", "gptq", "fp8", "exl2", "bitsandbytes", "float16", "fp8_e5m2", "0.5", "nan", "$X", "${A:-5}", "`x`"]
) | st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=8)  # fmt: skip
TAGS = [one.name for one in releases.all_releases()] + ["latest", "0.9", "sha-0eabc83", "$TAG", "3.3.7-rocm", "x"]
MODELS = st.sampled_from([*snapshot.names(), "x/y", "$M", "/data/x", "meta-llama/Llama-3.2-8B"])
GPUS = st.sampled_from([None, *(row.facts for row in gpus.all_gpus() if row.facts)])
WORDS = st.tuples(st.sampled_from(FLAGS), st.sampled_from([" ", "="]), VALUES).map(lambda t: f"--{t[0]}{t[1]}{t[2]}")
ENTRIES = st.tuples(st.sampled_from(VARIABLES), VALUES).map(lambda t: f"-e {t[0]}={t[1]}")
ASKED = st.sampled_from(["--gpus all", "--gpus 2", "--gpus '\"device=0,1\"'", "", "--device /dev/kfd"])


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=8), st.lists(ENTRIES, max_size=4), st.sampled_from(TAGS), MODELS, ASKED, GPUS)
def test_any_command_is_judged(
    words: list[str], entries: list[str], tag: str, model: str, asked: str, gpu: gpus.GpuFacts | None
) -> None:
    image = f"ghcr.io/huggingface/text-generation-inference:{tag}"
    text = f"docker run {asked} {' '.join(entries)} {image} --model-id {model} {' '.join(words)}\n"
    found = judge(read(text, "run.sh"), lambda name, _: snapshot.find(name), gpu, 2)
    assert list(found) == sorted(found, key=lambda one: one.order)
    assert all(one.message and one.place.line >= 1 and (one.next_step or one.severity == "info") for one in found)
