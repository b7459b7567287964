"""Speculation heads through the front door: a repository of heads is planned with the model TGI serves with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from front import run
from golden import Golden
from hub import Hub, Tensors, Weights, header
from replays import HEADS, heads_for
from test_folder import write_shard
from test_hub import CONFIG, llama

from tgi_advisor.estimate import defaults, heads, replay
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import heads as speculation
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather import snapshot
from tgi_advisor.gather.hub import client
from tgi_advisor.spec.records import GpuSpec, HardwareSpec, ModelSpec, Spec, TgiSpec
from tgi_advisor.units import MiB

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
MEDUSA = {"medusa_num_heads": 3, "medusa_num_layers": 1, "base_model_name_or_path": LLAMA}
MLP = {
    "architectures": ["MLPSpeculatorPreTrainedModel"], "model_type": "mlp_speculator", "n_predict": 3,
    "inner_dim": 3072, "emb_dim": 4096, "vocab_size": 128256, "base_model_name_or_path": LLAMA,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, token or cache of this machine; no waiting between attempts."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(client, "BACKOFF", (0.0,))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def medusa(number: int = 3, own: bool = True, hidden: int = 4096, vocabulary: int = 128256) -> Tensors:
    """The tensors of so many Medusa heads of one block, with output matrices of their own or without."""
    found: Tensors = {}
    for head in range(number):
        found[f"{head}.0.linear.weight"] = ("F16", (hidden, hidden))
        found[f"{head}.0.linear.bias"] = ("F16", (hidden,))
        if own:
            found[f"{head}.1.weight"] = ("F16", (vocabulary, hidden))
    return found


def mlp(number: int, projections: int | None = None, inner: int = 3072) -> Tensors:
    """The tensors of an MLP speculator."""
    found: Tensors = {}
    for head in range(number):
        found[f"speculator.emb.{head}.weight"] = ("F16", (128256, inner))
        found[f"speculator.head.{head}.weight"] = ("F16", (128256, inner))
        found[f"speculator.ln.{head}.weight"] = ("F16", (inner,))
        found[f"speculator.ln.{head}.bias"] = ("F16", (inner,))
    for place in range(projections or number):
        found[f"speculator.proj.{place}.weight"] = ("F16", (inner, inner if place else 4096))
    return found


def folder(place: Path, config: dict[str, Any], tensors: Tensors, file: str = speculation.MEDUSA_FILE) -> Path:
    """A folder of heads."""
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    write_shard(place / file, {name: (dtype, list(shape)) for name, (dtype, shape) in tensors.items()})
    return place


def of_llama(place: Path, **more: Any) -> Path:
    return folder(place, MEDUSA | more, medusa())


def part(text: str) -> dict[str, Any]:
    """The heads' part of a plan in JSON."""
    (found,) = (one for one in json.loads(text)["memory"]["parts"] if one["name"] == "speculation heads")
    assert isinstance(found, dict)
    return found


# where heads and base come from


def test_a_folder_of_heads_is_served_with_a_shipped_model(tmp_path: Path, golden: Golden) -> None:
    of_llama(tmp_path / "heads")
    ran = run("advise", "-m", "./heads", "-g", "nvidia-a10g", "--offline")
    assert ran.code == 0, ran.err
    golden("heads/medusa.txt", ran.out.replace(str(tmp_path), "HERE"))


def test_heads_of_the_hub_are_served_with_a_model_of_the_hub(hub: Hub) -> None:
    hub.add("org/base", CONFIG, llama())
    repo = hub.add("org/heads", MEDUSA | {"base_model_name_or_path": "org/base"}, {})
    del repo.files["model.safetensors"]
    repo.files[speculation.MEDUSA_FILE] = Weights(header(medusa(hidden=64, vocabulary=320)))
    repo.files["other.safetensors"] = Weights(header({"unused": ("F16", (1 << 20,))}))
    first = run("predict", "-m", "org/heads", "-g", "nvidia-l4", "--json")
    assert first.code == 0, first.err
    assert part(first.out)["bytes"] == 2 * 3 * (64 * 64 + 64 + 320 * 64)
    assert "base model org/base: Hub: " in json.loads(first.out)["facts"]["model"]["source"]
    asked = len(hub.requests)
    again = run("predict", "-m", "org/heads", "-g", "nvidia-l4", "--json", "--offline")
    assert again.code == 0
    assert (len(hub.requests), part(again.out)) == (asked, part(first.out))


@pytest.mark.parametrize("named", ["{there}", "../base", "/models/base"])
def test_a_base_in_a_folder_is_found_and_mounted_where_the_heads_name_it(tmp_path: Path, named: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    write_shard(base / "model.safetensors", {name: (dtype, list(shape)) for name, (dtype, shape) in llama().items()})
    written = named.format(there=base)
    folder(tmp_path / "heads", MEDUSA | {"base_model_name_or_path": written}, medusa(hidden=64, vocabulary=320))
    ran = run("advise", "-m", str(tmp_path / "heads"), "-g", "nvidia-l4", "--offline", "--json")
    assert ran.code == 0, ran.err
    mounts = {one["target"]: one["source"] for one in json.loads(ran.out)["container"]["mounts"]}
    assert mounts["/models/heads"] == str(tmp_path / "heads")
    assert mounts[written if written.startswith("/") else "/usr/base"] == str(base)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            MEDUSA | {"base_model_name_or_path": "org/none"},
            "for org/none, which TGI would serve with them: There",
        ),
        (
            MEDUSA | {"base_model_name_or_path": "/no/where"},
            "for /no/where, which TGI would serve with them: There",
        ),
        ({"medusa_num_heads": 3}, "does not name their base model"),
        (MEDUSA | {"medusa_num_heads": "three"}, "has no usable `medusa_num_heads`"),
        (MLP | {"n_predict": 0}, "has no usable `n_predict`"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder(tmp_path / "heads", config, medusa())
    ran = run("advise", "-m", "./heads", "-g", "nvidia-l4", "--offline")
    assert (ran.code, message in ran.err) == (4, True), ran.err


def test_heads_whose_base_is_gated_say_what_to_do(hub: Hub) -> None:
    hub.add("org/base", CONFIG, llama(), gated="manual")
    repo = hub.add("org/heads", MEDUSA | {"base_model_name_or_path": "org/base"}, {})
    repo.files[speculation.MEDUSA_FILE] = Weights(header(medusa(hidden=64, vocabulary=320)))
    ran = run("predict", "-m", "org/heads", "-g", "nvidia-l4")
    assert ran.code == 4
    assert "heads for org/base, which TGI would serve with them: org/base is gated" in ran.err
    assert "export HF_TOKEN" in ran.err


def test_medusa_heads_in_another_file_are_none(tmp_path: Path) -> None:
    folder(tmp_path / "heads", MEDUSA, medusa(), "model.safetensors")
    ran = run("advise", "-m", "./heads", "-g", "nvidia-l4", "--offline")
    assert (ran.code, "but no medusa_lm_head.safetensors" in ran.err) == (4, True), ran.err


# what TGI makes of them


def predicted(place: Path, release: str, *more: str) -> tuple[int, dict[str, Any]]:
    ran = run("predict", "-m", str(place), "-g", "nvidia-h100-sxm", "-r", release, "--offline", "--json", *more)
    return ran.code, json.loads(ran.out)


@pytest.mark.parametrize(
    ("config", "tensors", "release", "more", "reason"),
    [
        (MEDUSA, medusa(), "3.3.7", ("--set", "tgi.flags.speculate=5"),
         "RuntimeError: Speculate is set to `5` but this medusa models only has `3` heads, please make them match"),
        (MEDUSA, medusa(), "1.4.5", ("--set", "tgi.flags.speculate=5"),
         "RuntimeError: Speculate is set to `{speculate}` but this medusa models only has `{speculate_medusa}` heads, "
         "please make them match"),
        (MLP, mlp(3), "2.2.0", ("--set", "tgi.flags.speculate=4"),
         "RuntimeError: Speculate is set to `4` but this mlp_speculator models only has `3` heads, please make them "),
        (MEDUSA, medusa(), "1.2.0", (), "KeyError: 'model_type'"),
        (MLP, mlp(3), "2.0.2", (), "ValueError: Unsupported model type mlp_speculator"),
        (MLP, mlp(3), "3.3.7", (), "AttributeError: 'ModuleList' object has no attribute 'weight'"),
        (MLP | {"tie_weights": True}, mlp(1, 2), "2.2.0", (), "weight speculator.emb.1.weight does not exist"),
        (MEDUSA, medusa(own=False), "3.3.7", ("--set", "model.quantize=gptq"), "Cannot load `gptq` weight, make sure"),
        (MEDUSA, medusa(2), "3.3.7", (), "RuntimeError: weight 2.0.linear.weight does not exist"),
        (MEDUSA, medusa(own=False), "1.4.5", (), "RuntimeError: weight 0.1.weight does not exist"),
        (MEDUSA | {"medusa_num_layers": 2}, medusa(own=False), "3.3.7", (), "AssertionError: assert medusa_config"),
        (MEDUSA | {"architectures": ["MedusaModel"]}, medusa(), "3.3.7", (), "AssertionError: assert self.head is not"),
        (MLP, mlp(3), "2.2.0", ("--set", "tgi.flags.speculate=0"), "ZeroDivisionError: float division by zero"),
    ],
)  # fmt: skip
def test_what_tgi_refuses_is_said_in_its_words(
    tmp_path: Path, config: dict[str, Any], tensors: Tensors, release: str, more: tuple[str, ...], reason: str
) -> None:
    file = speculation.MEDUSA_FILE if speculation.method(config) == "medusa" else "model.safetensors"
    code, plan = predicted(folder(tmp_path / "heads", config, tensors, file), release, *more)
    assert code == 6
    assert reason in plan["reason"]


def test_transformers_classes_take_no_heads(tmp_path: Path) -> None:
    of_llama(tmp_path / "heads")
    code, plan = predicted(tmp_path / "heads", "3.3.7", "--set", "tgi.env.USE_FLASH_ATTENTION=false")
    assert code == 6
    assert "RuntimeError: Speculator decoding is not enabled for AutoModel" in plan["reason"]


@pytest.mark.parametrize(
    ("config", "tensors", "release", "heads_bytes"),
    [
        (MEDUSA, medusa(), "3.3.7", 2 * 3 * (4096 * 4096 + 4096 + 128256 * 4096)),
        (MEDUSA, medusa(own=False), "2.2.0", 2 * 3 * (4096 * 4096 + 4096)),
        (MLP, mlp(3), "2.2.0", 2 * (3 * 3072 * (128257 + 128256 + 2) + 3072 * 4096 + 2 * 3072 * 3072)),
        (MLP | {"tie_weights": True}, mlp(1, 2), "3.3.7", 2 * (3072 * (128257 + 128256 + 2 + 4096 + 3072))),
    ],
)
def test_every_kind_of_heads_is_counted(
    tmp_path: Path, config: dict[str, Any], tensors: Tensors, release: str, heads_bytes: int
) -> None:
    file = speculation.MEDUSA_FILE if speculation.method(config) == "medusa" else "model.safetensors"
    code, plan = predicted(folder(tmp_path / "heads", config, tensors, file), release)
    assert code == 0
    (found,) = (one["bytes"] for one in plan["memory"]["parts"] if one["name"] == "speculation heads")
    assert found == heads_bytes
    assert plan["prefill_chunking"] is False


def test_fewer_tokens_than_heads_make_fewer_heads(tmp_path: Path) -> None:
    of_llama(tmp_path / "heads")
    ask = ("predict", "-m", "./heads", "-g", "nvidia-h100-sxm", "--offline", "--json", "--set", "tgi.flags.speculate=1")
    one, every = run(*ask), run(*ask, "-r", "2.0.1")
    assert part(one.out)["bytes"] == 2 * (4096 * 4096 + 4096 + 128256 * 4096)
    assert part(every.out)["bytes"] == 3 * part(one.out)["bytes"]


def test_the_heads_decide_quantization_not_the_base(tmp_path: Path) -> None:
    base = "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"
    folder(tmp_path / "heads", MEDUSA | {"base_model_name_or_path": base}, medusa())
    code, plan = predicted(tmp_path / "heads", "3.3.7")
    assert code == 6
    assert "RuntimeError: weight model.layers.0" in plan["reason"]
    code, plan = predicted(tmp_path / "heads", "3.3.7", "--set", "model.quantize=awq")
    assert code == 0


def test_validate_judges_a_server_of_heads(tmp_path: Path, golden: Golden) -> None:
    of_llama(tmp_path / "heads")
    (tmp_path / "compose.yaml").write_text("""\
services:
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:3.3.7
    command: --model-id /models/heads --num-shard 1 --speculate 5
    shm_size: 1g
    ports: ["8080:80"]
    volumes: ["./heads:/models/heads", "./data:/data"]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
  small:
    image: ghcr.io/huggingface/text-generation-inference:3.3.7
    command: --model-id /models/heads --num-shard 1 --max-batch-prefill-tokens 32000
    shm_size: 1g
    ports: ["8081:80"]
    volumes: ["./heads:/models/heads", "./data:/data"]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, device_ids: ["1"], capabilities: [gpu]}]}}}
""")
    ran = run("validate", "compose.yaml", "--gpu", "nvidia-a10g")
    assert ran.code == 1
    golden("heads/validate.txt", ran.out)


def test_validate_judges_heads_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    repo = hub.add("org/online-heads", MEDUSA, {})
    repo.files[speculation.MEDUSA_FILE] = Weights(header(medusa()))
    (tmp_path / "run.sh").write_text(
        "docker run --gpus all --shm-size 1g -p 8080:80 -v data:/data -e HF_TOKEN=$HF_TOKEN "
        "ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id org/online-heads --speculate 5\n"
    )
    ran = run("validate", "run.sh", "--gpu", "nvidia-a10g", "--online")
    assert (ran.code, "only has `3` heads, please make them match" in ran.out) == (1, True), ran.out
    assert not any(LLAMA in path for path in hub.paths)


# laws


def setting(kind: str, release: str, shards: int = 1, speculate: int | None = None) -> Any:
    model = snapshot.find("mistralai/Mistral-7B-Instruct-v0.2")
    assert model is not None
    gpu = gpus.find("nvidia-h100-sxm")
    with_heads = model._replace(heads=heads_for(model, kind))
    flags: dict[str, Any] = {} if speculate is None else {"speculate": speculate}
    spec = Spec(ModelSpec(model.id), HardwareSpec(GpuSpec(gpu.name), count=shards), tgi=TgiSpec(flags=flags))
    return defaults.resolve(spec, Facts(with_heads, gpu, shards, releases.find(release)), shards)


@pytest.mark.parametrize("release", ["1.3.4", "1.4.5", "2.0.1", "2.0.4", "2.2.0", "2.3.1", "3.3.7"])
@pytest.mark.parametrize(("kind", "shards"), [(kind, 1 + number % 2) for number, kind in enumerate(HEADS)])
def test_what_loading_holds_is_what_the_parts_say(kind: str, release: str, shards: int) -> None:
    launch = setting(kind, release, shards)
    plain = setting(kind, "1.2.0", shards)
    made = heads.of(launch)
    assert heads.of(plain) is None
    if made is None:
        assert heads.part(launch) is None
        return
    assert launch.speculate == made.number
    assert not launch.chunking
    assert all(size > launch.speculate for size in launch.graph_sizes)
    counted = heads.part(launch)
    without = launch._replace(facts=launch.facts._replace(model=launch.facts.model._replace(heads=None)))
    assert counted is not None
    more = replay.loaded(launch).alive - replay.loaded(without).alive
    assert 0 <= more - counted.bytes < MiB * len(made.tensors)


@pytest.mark.parametrize(("speculate", "shards"), [(0, 1), (1, 2), (2, 1), (3, 2)])
def test_more_heads_never_take_less(speculate: int, shards: int) -> None:
    fewer, more = (heads.part(setting("medusa", "3.3.7", shards, count)) for count in (speculate, 3))
    assert more is not None
    assert (fewer.bytes if fewer else 0) <= more.bytes
    launch = setting("medusa", "3.3.7", shards, speculate)
    assert replay.peaks_of(launch).loaded.alive > 0
