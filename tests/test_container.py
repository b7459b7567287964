"""From a spec, facts and limits to exactly what runs, release by release and platform by platform."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor.container import build, startup_seconds
from tgi_advisor.errors import FactsError, Place, SpecError
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts, System
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts, TensorGroup
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Container, Mount
from tgi_advisor.spec.records import ContainerSpec, HardwareSpec, ModelSpec, MountSpec, Spec, TgiSpec
from tgi_advisor.units import GiB

MODEL = "org/model"
LIMITS = Limits(7168, 8192, 4096)


def facts(release: str = "3.3.7", system: System = "cuda", **model: Any) -> Facts:
    gpu = GpuFacts("gpu", system, 24 * GiB, None, None, None, None, "gpu", "made up")
    tensors = (TensorGroup("w", "F16", (1_000_000_000,), 8),)
    known = ModelFacts(**{"id": MODEL, "commit": "c0ffee", "source": "made up", "config": {}, "defaults": {},
                          "tensors": tensors} | model)  # fmt: skip
    variant = {"cuda": "", "xpu": "intel-xpu", "cpu": "intel-cpu"}.get(system, system)
    return Facts(known, gpu, 1, releases.find(release), variant)


def spec(**sections: Any) -> Spec:
    return replace(Spec(model=ModelSpec(id=MODEL)), **sections)


def made(s: Spec | None = None, f: Facts | None = None, limits: Limits = LIMITS, num_shard: int = 1) -> Container:
    return build(s or spec(), f or facts(), limits, num_shard)


def flags(container: Container) -> dict[str, str]:
    """Launcher flags with their values; a switch has none."""
    words = container.args
    pairs = zip(words, (*words[1:], "--"), strict=True)
    return {word[2:]: "" if after.startswith("--") else after for word, after in pairs if word.startswith("--")}


def test_plain_case_says_everything_once() -> None:
    container = made()
    assert container.args == (
        "--model-id", MODEL, "--revision", "c0ffee", "--num-shard", "1", "--max-input-tokens", "7168",
        "--max-total-tokens", "8192", "--max-batch-prefill-tokens", "4096",
    )  # fmt: skip
    assert container.image == "ghcr.io/huggingface/text-generation-inference:3.3.7"
    assert (container.port, container.container_port) == (8080, 80)
    assert container.mounts == (Mount("./data", "/data"),)
    assert container.env == {}
    assert container.gpus == "all"
    assert container.gpu_count == 1


def test_settings_that_are_set_are_stated() -> None:
    model = ModelSpec(id=MODEL, dtype="bfloat16", quantize="awq", kv_cache_dtype="fp8_e5m2", trust_remote_code=True)
    asked = spec(
        model=model,
        hardware=HardwareSpec(memory_fraction=0.5),
        tgi=TgiSpec(flags={"max-batch-size": 4, "cuda-graphs": "1,2", "json-output": True, "env": False}),
    )
    assert flags(made(asked)) == flags(made()) | {
        "dtype": "bfloat16", "quantize": "awq", "kv-cache-dtype": "fp8_e5m2", "trust-remote-code": "",
        "cuda-memory-fraction": "0.5", "max-batch-size": "4", "cuda-graphs": "1,2", "json-output": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("release", "token", "limit"),
    [
        ("1.4.5", "HUGGING_FACE_HUB_TOKEN", "max-input-length"),
        ("2.0.4", "HUGGING_FACE_HUB_TOKEN", "max-input-tokens"),
        ("2.1.0", "HF_TOKEN", "max-input-tokens"),
        ("3.3.7", "HF_TOKEN", "max-input-tokens"),
    ],
)
def test_names_follow_the_release(release: str, token: str, limit: str) -> None:
    container = made(f=facts(release))
    assert container.secret_env == {token: "HF_TOKEN"}
    assert flags(container)[limit] == "7168"
    assert container.image.endswith(f":{release}")


@given(st.sampled_from(releases.all_releases()), st.none() | st.integers(2, 9000), st.none() | st.integers(1, 9000))
def test_total_never_stands_without_input(release: Any, total: int | None, most_input: int | None) -> None:
    container = made(f=facts(str(release)), limits=Limits(most_input, total, None))
    stated = flags(container)
    if total is not None:
        assert stated["max-total-tokens"] == str(total)
        given_input = stated.get("max-input-tokens") or stated["max-input-length"]
        assert given_input == str(most_input if most_input is not None else total - 1)
    assert stated["num-shard"] == "1"
    assert "max-batch-total-tokens" not in stated
    assert not {"port", "hostname", "p"} & stated.keys()


@pytest.mark.parametrize(
    ("commit", "revision", "said"),
    [("c0ffee", "main", "c0ffee"), ("c0ffee", "v1", "c0ffee"), (None, "v1", "v1"), (None, "main", None)],
)
def test_revision_is_pinned(commit: str | None, revision: str, said: str | None) -> None:
    asked = spec(model=ModelSpec(id=MODEL, revision=revision))
    assert flags(made(asked, facts(commit=commit))).get("revision") == said


# -- platforms


def test_rocm() -> None:
    asked = spec(container=ContainerSpec(gpus=("2", "3")))
    container = made(asked, facts(system="rocm"), num_shard=2)
    assert container.image.endswith(":3.3.7-rocm")
    assert container.devices == ("/dev/kfd", "/dev/dri")
    assert container.group_add == ("video",)
    assert container.gpus is None
    assert container.device_env == {"ROCR_VISIBLE_DEVICES": "2,3"}
    assert (container.gpu_resource, container.gpu_count) == ("amd.com/gpu", 2)


def test_a_mig_slice_is_asked_for_by_its_profile() -> None:
    known = facts()
    slice_ = known.gpu._replace(mig="1g.10gb")
    assert made(f=known._replace(gpu=slice_)).gpu_resource == "nvidia.com/mig-1g.10gb"
    assert made(f=known).gpu_resource == "nvidia.com/gpu"


def test_gaudi() -> None:
    container = made(f=facts(system="gaudi"), num_shard=8)
    assert container.image.endswith(":3.3.7-gaudi")
    assert (container.runtime, container.cap_add, container.ipc) == ("habana", ("SYS_NICE",), "host")
    assert container.env == {"PT_HPU_ENABLE_LAZY_COLLECTIVES": "1"}
    assert made(f=facts(system="gaudi")).env == {}


def test_intel() -> None:
    xpu, cpu = made(f=facts(system="xpu")), made(f=facts(system="cpu"))
    assert xpu.image.endswith(":3.3.7-intel-xpu")
    assert (xpu.privileged, xpu.devices, xpu.env) == (True, ("/dev/dri",), {"CUDA_GRAPHS": "0"})
    assert cpu.image.endswith(":3.3.7-intel-cpu")
    assert (cpu.privileged, cpu.devices, cpu.gpu_resource, cpu.gpu_count) == (False, (), None, 0)
    assert made(f=facts("2.2.0", "xpu")).image.endswith(":2.2.0-intel")


def test_no_such_image() -> None:
    with pytest.raises(FactsError, match=r"TGI 3\.0\.0 has no gaudi image"):
        made(f=facts("3.0.0", "gaudi"))
    own = spec(tgi=TgiSpec(image="registry.example/tgi:3.0.0-gaudi"))
    assert made(own, facts("3.0.0", "gaudi")).image == "registry.example/tgi:3.0.0-gaudi"


# -- a local model


def test_local_folder_is_mounted_and_needs_no_token() -> None:
    container = made(f=facts(id="./my model", folder="/srv/my model", gated=True))
    assert container.mounts[1] == Mount("/srv/my model", "/models/my-model", read_only=True)
    assert flags(container)["model-id"] == "/models/my-model"
    assert "revision" not in flags(container)
    assert container.secret_env == {}
    assert container.token_needed is False


def test_further_mounts_come_last_and_never_on_the_weights() -> None:
    further = (MountSpec("/srv/a", "/adapters", read_only=True), MountSpec("vol", "/b"))
    container = made(spec(container=ContainerSpec(mounts=further)), facts(folder="/srv/m"))
    assert container.mounts == (
        Mount("./data", "/data"), Mount("/srv/m", "/models/m", read_only=True),
        Mount("/srv/a", "/adapters", read_only=True), Mount("vol", "/b"),
    )  # fmt: skip
    with pytest.raises(SpecError, match="/models/m of the container is mounted already"):
        made(spec(container=ContainerSpec(mounts=(MountSpec("/x", "/models/m"),))), facts(folder="/srv/m"))
    with pytest.raises(SpecError, match=r"container\.mounts holds a secret"):
        made(spec(container=ContainerSpec(mounts=(MountSpec("/hf_" + "a" * 34, "/x"),))))


def test_bin_weights_are_converted_in_place_and_kept_twice() -> None:
    container = made(f=facts(folder="/srv/m", weights_format="bin"))
    assert container.mounts[1].read_only is False
    assert container.weights_bytes == 32_000_000_000


def test_snapshot_of_the_hub_cache_is_mounted_with_its_blobs() -> None:
    root = "/root/.cache/huggingface/hub/models--org--m"
    container = made(f=facts(folder=f"{root}/snapshots/abc"))
    assert container.mounts[1].source == root
    assert flags(container)["model-id"] == "/models/models--org--m/snapshots/abc"


@pytest.mark.parametrize(
    ("model", "local"), [("/m", True), ("./m", True), ("../m", True), ("~/m", True), ("o/m", False)]
)
def test_a_path_is_told_from_a_hub_id(model: str, local: bool) -> None:
    assert (len(made(spec(model=ModelSpec(id=model))).mounts) == 2) is local


# -- the entry point that splits words


@pytest.mark.parametrize("value", ["/a b/config.json", "/a*/config.json", "/a?.json", "[x]", "a\tb"])
def test_words_the_entry_point_would_split_go_through_the_environment(value: str) -> None:
    container = made(spec(tgi=TgiSpec(flags={"tokenizer-config-path": value})))
    assert container.env == {"TOKENIZER_CONFIG_PATH": value}
    assert value not in container.args
    assert "TOKENIZER_CONFIG_PATH" not in container.args_env


def test_several_values_with_blanks_cannot_be_passed() -> None:
    asked = spec(tgi=TgiSpec(flags={"cors-allow-origin": ["a b", "c"]}))
    with pytest.raises(SpecError, match="entry point splits"):
        made(asked)


def test_arguments_have_their_environment_form() -> None:
    asked = spec(tgi=TgiSpec(flags={"cuda-graphs": [1, 2], "json-output": True, "env": True,
                                    "cors-allow-origin": ["a", "b"], "watermark-delta": -1.5}))  # fmt: skip
    container = made(asked)
    assert container.args_env == {
        "MODEL_ID": MODEL, "REVISION": "c0ffee", "NUM_SHARD": "1", "MAX_INPUT_TOKENS": "7168",
        "MAX_TOTAL_TOKENS": "8192", "MAX_BATCH_PREFILL_TOKENS": "4096", "CUDA_GRAPHS": "1,2", "JSON_OUTPUT": "true",
        "WATERMARK_DELTA": "-1.5",
    }  # fmt: skip
    assert container.args_only == ("--env", "--cors-allow-origin", "a", "--cors-allow-origin", "b")
    assert "--watermark-delta=-1.5" in container.args


# -- refusals


def test_a_flag_given_twice_is_refused_with_its_place() -> None:
    place = Place("spec.yaml", 7, 5)
    asked = spec(tgi=TgiSpec(flags={"num-shard": 2}), places={"tgi.flags.num-shard": place})
    with pytest.raises(SpecError, match=r"spec\.yaml:7:5: --num-shard is given twice"):
        made(asked)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (spec(tgi=TgiSpec(flags={"max-batch-size": "many"})), "max-batch-size"),
        (spec(tgi=TgiSpec(flags={"no-such-flag": 1})), "no-such-flag"),
        (spec(container=ContainerSpec(gpus=("0",))), "1 devices are named, but 2 shards"),
        (spec(container=ContainerSpec(cache="a,b")), "neither a folder nor the name"),
        (spec(tgi=TgiSpec(env={"A": "\0"})), "no command line can carry"),
        (spec(tgi=TgiSpec(env={"A": "\ud800"})), "no command line can carry"),
    ],
)
def test_what_cannot_be_written_is_refused(asked: Spec, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        made(asked, num_shard=2)


TOKEN = "hf_" + "abcdefgh" * 4


@pytest.mark.parametrize(
    "asked",
    [
        spec(tgi=TgiSpec(env={"A": TOKEN})),
        spec(tgi=TgiSpec(flags={"otlp-endpoint": TOKEN})),
        spec(tgi=TgiSpec(flags={"otlp-endpoint": f"{TOKEN} x"})),
        spec(tgi=TgiSpec(image=f"r/{TOKEN}")),
        spec(container=ContainerSpec(token_env=TOKEN)),
        spec(container=ContainerSpec(cache=f"/{TOKEN}")),
    ],
)
def test_tokens_are_refused_and_not_repeated(asked: Spec) -> None:
    with pytest.raises(SpecError) as caught:
        made(asked)
    assert "abcdefgh" not in str(caught.value)


def test_the_token_of_the_environment_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = made()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert made() == before
    assert "abcdefgh" not in repr(made())


# -- sizes and times


def test_startup_leaves_time_for_the_download() -> None:
    small, large = facts(), facts(tensors=(TensorGroup("w", "F16", (1_000_000_000,), 70),))
    assert startup_seconds(small) == 600 + 660
    assert startup_seconds(large) >= 600 + 140e9 / 25e6
    assert startup_seconds(facts(system="rocm")) == startup_seconds(small) + 600
    assert made().host_memory_bytes == 4 * GiB
    assert made(f=facts(system="cpu")).host_memory_bytes < 24 * GiB


def test_sagemakers_entry_point_is_told_by_variables_alone() -> None:
    image = "7.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.6-gpu-py311"
    model = ModelSpec(id=MODEL, quantize="gptq", trust_remote_code=True)
    container = made(spec(model=model, tgi=TgiSpec(image=image, env={"A": "b"})), facts("3.3.6"), num_shard=2)
    assert (container.args, container.args_env, container.args_only) == ((), {}, ())
    assert container.env == {
        "A": "b", "HF_MODEL_ID": MODEL, "HF_MODEL_REVISION": "c0ffee", "SM_NUM_GPUS": "2", "HF_MODEL_QUANTIZE": "gptq",
        "HF_MODEL_TRUST_REMOTE_CODE": "true", "MAX_INPUT_TOKENS": "7168", "MAX_TOTAL_TOKENS": "8192",
        "MAX_BATCH_PREFILL_TOKENS": "4096",
    }  # fmt: skip
    assert (container.image, container.container_port, container.mounts) == (image, 8080, (Mount("./data", "/data"),))
