"""Model facts from the Hub: how many requests, what is trusted, what is cached, and what every refusal says."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from golden import Golden
from hub import COMMIT, INDEX, Hub, Repo, Tensors, Weights, header
from huggingface_hub import close_session, constants, get_session, set_client_factory
from hypothesis import example, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts import layouts
from tgi_advisor.facts.model import ModelFacts, TensorGroup
from tgi_advisor.gather import cache, environment, model
from tgi_advisor.gather.hub import client, read
from tgi_advisor.gather.hub.wording import UnreachableError
from tgi_advisor.gather.names import check_id, check_revision

ID = "org/tiny-llama"
SECRET = "hf_SECRETsecretSECRET"
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 320,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "torch_dtype": "bfloat16",
}


def llama(dtype: str = "BF16") -> Tensors:
    """The tensors of CONFIG, written out by hand."""
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64),
        "mlp.gate_proj": (96, 64),
        "mlp.up_proj": (96, 64),
        "mlp.down_proj": (64, 96),
        "input_layernorm": (64,),
        "post_attention_layernorm": (64,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (320, 64)}
    for n in range(4):
        shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"model.norm.weight": (64,), "lm_head.weight": (320, 64)}
    return {name: (dtype, shape) for name, shape in shapes.items()}


ANYTHING = st.none() | st.integers() | st.text(max_size=3) | st.dictionaries(st.text(max_size=3), st.integers())
LLAMA_BYTES = 2 * sum(math.prod(shape) for _, shape in llama().values())


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, token, cache or shipped model of this machine; no waiting between attempts."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "TGI_ADVISOR_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "BACKOFF", (0.0,))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    close_session()  # the next one is of this environment


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def as_set(facts: ModelFacts) -> set[TensorGroup]:
    return set(facts.tensors)


# ------------------------------------------------------------------------------------------------ requests


def test_totals_suffice_in_one_round_trip(hub: Hub) -> None:
    hub.add(ID, CONFIG, llama(), shards=3)
    facts = read.read(ID)
    assert hub.paths == [
        f"/api/models/{ID}/revision/main",
        f"/{ID}/resolve/main/config.json",
        f"/{ID}/resolve/main/tokenizer_config.json",
    ]
    assert hub.busiest <= 3
    assert facts.stored_bytes == LLAMA_BYTES
    assert (facts.commit, facts.model_max_length, facts.gated) == (COMMIT, 4096, False)
    assert facts.source == (f"Hub: {hub.endpoint}/{ID} at commit {COMMIT}, tensors proved by the Hub's element counts")


def test_every_way_gives_the_same_tensors(hub: Hub) -> None:
    repo = hub.add(ID, CONFIG, llama(), shards=9)
    proved = read.read(ID)
    totals, repo.totals = repo.totals, {"BF16": 1}
    hub.requests.clear()
    one_by_one = read.read(ID)  # the one call's headers do not add up to the entry's counts: not trusted
    assert sum(request.range is not None for request in hub.requests) == 9
    repo.totals = totals
    repo.files["config.json"] = json.dumps(CONFIG | {"model_type": "mpt"}).encode()
    hub.requests.clear()
    in_one_call = read.read(ID)
    assert f"/api/models/{ID}/safetensors-metadata/{INDEX}" in hub.paths
    assert len(hub.requests) == 4
    hub.one_call = False
    by_range = read.read(ID)
    assert as_set(proved) == as_set(one_by_one) == as_set(in_one_call) == as_set(by_range)
    assert by_range.source.endswith("tensors from the files' headers")


def test_another_revision_is_never_asked_for_in_one_call(hub: Hub) -> None:
    """The one call serves `main` only."""
    hub.add(ID, CONFIG | {"model_type": "mpt"}, llama(), shards=9)
    read.read(ID, "refs/pr/1")
    assert not [path for path in hub.paths if "safetensors-metadata" in path]
    assert f"/api/models/{ID}/revision/refs%2Fpr%2F1" in hub.paths


def test_few_headers_are_read_without_another_call(hub: Hub) -> None:
    """One round trip after the entry's, whether the server has the call for all headers or not."""
    hub.add(ID, CONFIG | {"model_type": "mpt"}, llama(), shards=4)
    assert read.read(ID).stored_bytes == LLAMA_BYTES
    assert len(hub.requests) == 3 + 4
    assert not [path for path in hub.paths if "safetensors-metadata" in path]


def test_a_long_header_takes_a_second_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "GUESS", 500)
    hub.add(ID, CONFIG, llama(), totals=False)
    assert read.read(ID).stored_bytes == LLAMA_BYTES
    assert min(r.range for r in hub.requests if r.range) == "bytes=0-499"
    assert sum(r.range is not None for r in hub.requests) == 2


def test_a_server_that_ignores_range(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "GUESS", 500)
    hub.ignores_range = True
    hub.add(ID, CONFIG, llama(), totals=False)
    assert read.read(ID).stored_bytes == LLAMA_BYTES


def test_headers_are_read_in_parallel(hub: Hub) -> None:
    hub.add(ID, CONFIG, llama(), shards=12, totals=False)
    hub.latency = 0.05
    read.read(ID)
    assert hub.busiest > 6


def test_a_renamed_repository_is_followed(hub: Hub) -> None:
    hub.add(ID, CONFIG, llama())
    hub.renamed["org/old"] = ID
    hub.repos[ID].totals = None
    facts = read.read("org/old")
    assert (facts.id, facts.stored_bytes) == ("org/old", LLAMA_BYTES)
    assert f"{hub.endpoint}/{ID} at" in facts.source
    assert f"/{ID}/resolve/{COMMIT}/model.safetensors" in hub.paths
    assert len(hub.requests) == 7  # three twice, and the header once


def test_progress_is_told_when_it_takes_long(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, CONFIG, llama())
    told: list[str] = []
    read.read(ID, progress=told.append)
    assert told == []
    monkeypatch.setattr(read, "MOMENT", 0.0)
    hub.latency = 0.15
    read.read(ID, progress=told.append)
    assert told[0] == f"asking {hub.endpoint} about {ID}"


def test_pickles_are_proved_by_their_index(hub: Hub) -> None:
    repo = hub.add(ID, CONFIG, llama(), totals=False)
    del repo.files["model.safetensors"]
    repo.files["pytorch_model-00001-of-00001.bin"] = b""
    index = {"metadata": {"total_size": LLAMA_BYTES}, "weight_map": dict.fromkeys(llama(), "x")}
    repo.files["pytorch_model.bin.index.json"] = json.dumps(index).encode()
    facts = read.read(ID)
    assert (facts.weights_format, facts.stored_bytes) == ("bin", LLAMA_BYTES)
    assert facts.files == (tuple(group.count for group in facts.tensors),)


def test_files_are_told_apart_where_they_count(hub: Hub) -> None:
    """transformers' own class reads Qwen 3 file by file; TGI's reads Llama module by module."""
    tensors, config = llama(), {**CONFIG, "model_type": "qwen3", "head_dim": 16}
    tensors |= {f"model.layers.{n}.self_attn.{one}_norm.weight": ("BF16", (16,)) for n in range(4) for one in "qk"}
    hub.add("org/one", config, tensors)
    assert read.read("org/one").source.endswith("proved by the Hub's element counts")
    hub.add(ID, config, tensors, shards=3)
    facts = model.load(ID)
    assert facts.source.endswith("tensors from the files' headers")
    assert [sum(counts) for counts in facts.files] == [
        len(tensors) * n // 3 - len(tensors) * (n - 1) // 3 for n in (1, 2, 3)
    ]
    assert [sum(of) for of in zip(*facts.files, strict=True)] == [group.count for group in facts.tensors]
    hub.requests.clear()
    kept = model.load(ID)
    assert (kept.files, kept.tensors, hub.requests) == (facts.files, facts.tensors, [])
    hub.add(ID, CONFIG, llama(), shards=3)
    assert read.read(ID).files == ()


# ------------------------------------------------------------------------------------------------ layouts


def test_a_layout_is_taken_only_if_every_element_is_accounted_for() -> None:
    totals = {"BF16": LLAMA_BYTES // 2}
    assert layouts.derive(CONFIG, totals)
    for wrong in ({"BF16": LLAMA_BYTES // 2 + 1}, {"F16": 1, **totals}, {}):
        assert layouts.derive(CONFIG, wrong) is None
    for missing in ("hidden_size", "vocab_size", "num_hidden_layers"):
        assert layouts.derive({k: v for k, v in CONFIG.items() if k != missing}, totals) is None
    assert layouts.derive(CONFIG | {"quantization_config": {"quant_method": "awq"}}, totals) is None


@example("mixtral", {"num_hidden_layers": "ab", "num_local_experts": 10**18})
@example("llama", {"num_attention_heads": "ab", "head_dim": 10**18})
@given(
    st.sampled_from(sorted(layouts._LAYOUTS)),
    st.dictionaries(st.sampled_from([*CONFIG, "quantization_config", "num_nextn_predict_layers"]), ANYTHING),
)
def test_no_config_brings_a_layout_down(model_type: str, odd: dict[str, Any]) -> None:
    totals = {"BF16": LLAMA_BYTES // 2}
    tensors = layouts.derive({**CONFIG, **odd, "model_type": model_type}, totals)
    assert tensors is None or layouts.count(tensors) == totals


def test_layouts_agree_with_every_shipped_model() -> None:
    """Where a layout claims to know a shipped model, each of its tensors is the recorded one."""
    from tgi_advisor.gather import snapshot

    known = 0
    for name in snapshot.names():
        facts = snapshot.find(name)
        assert facts is not None
        derived = layouts.derive({**facts.config, **facts.defaults}, layouts.count(facts.tensors))
        if derived is not None:
            known += 1
            assert set(derived) == as_set(facts), name
    assert known >= 40


# ------------------------------------------------------------------------------------------------ the token


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with Hub() as cdn:
        hub.add(ID, CONFIG, llama(), totals=False, gated="manual")
        cdn.repos = {ID: Repo(hub.repos[ID].files)}
        hub.cdn = cdn.endpoint
        facts = read.read(ID)
        assert facts.gated
        assert {request.authorization for request in hub.requests} == {f"Bearer {SECRET}"}
        assert [request.authorization for request in cdn.requests] == [None]


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME"])
def test_where_the_token_is_looked_for(hub: Hub, name: str, tmp_path: Path) -> None:
    """As a user has it: in a process of its own, whose answer is the 401 that names the place."""
    (tmp_path / "token").write_text("hf_invalid\n")
    hub.add(ID, CONFIG, llama())
    given = {name: {"HF_TOKEN_PATH": str(tmp_path / "token"), "HF_HOME": str(tmp_path)}.get(name, "hf_invalid")}
    command = [sys.executable, "-m", "tgi_advisor", "predict", "-m", ID, "-g", "nvidia-l4"]
    ran = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    place = (
        f"the file {tmp_path / 'token'}" if name in ("HF_TOKEN_PATH", "HF_HOME") else f"the environment variable {name}"
    )
    assert ran.returncode == 4
    assert f"does not accept the token from {place} (HTTP 401)" in ran.stderr
    given["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    ran = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert hub.requests[-1].authorization is None


def test_credentials_of_a_mirror_are_used_and_not_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, CONFIG, llama())
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("//", "//user:pa%20ss@"))
    assert "pa" not in read.read(ID).source.replace("api", "")
    assert {request.authorization for request in hub.requests} == {"Basic dXNlcjpwYSBzcw=="}


@pytest.mark.parametrize("environment", [{}, {"HF_HOME": "~/h"}, {"HF_HUB_CACHE": "/c", "HF_HUB_OFFLINE": "yes"}])
def test_the_environment_means_what_it_means_to_huggingface_hub(environment: Mapping[str, str]) -> None:
    code = (
        "from huggingface_hub import constants as c; from tgi_advisor.gather import environment as s;"
        "assert (c.ENDPOINT, c.HF_HUB_CACHE, c.HF_HOME, c.HF_HUB_OFFLINE)"
        " == (s.endpoint(), str(s.hub_cache()), str(s.home()), s.offline())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})


def test_a_token_that_only_the_library_finds_is_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of a notebook, a job's identity; not where none is wanted."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: SECRET)
    hub.add(ID, CONFIG, llama())
    read.read(ID)
    assert {request.authorization for request in hub.requests} == {f"Bearer {SECRET}"}
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    hub.requests.clear()
    read.read(ID)
    assert {request.authorization for request in hub.requests} == {None}


def test_a_token_that_the_library_cannot_get_is_no_traceback(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> str:
        raise RuntimeError(f"no {SECRET}")

    monkeypatch.setattr("huggingface_hub.get_token", fails)
    with pytest.raises(FactsError, match="could not get the token") as caught:
        read.read(ID)
    assert SECRET not in str(caught.value)
    assert hub.requests == []


# ------------------------------------------------------------------------------------------------ the library


def test_a_session_that_a_program_has_configured_stays_its_own(hub: Hub) -> None:
    """What it set goes with our requests too; what it asks itself is not bounded by us."""
    library = type(get_session())
    made = library(headers={"x-ours": "yes"}, follow_redirects=True)
    close_session()
    set_client_factory(lambda: made)
    try:
        hub.add(ID, CONFIG, llama(), extra={"large.bin": b"x" * (bounds.MAX_CONFIG + 9)})
        assert read.read(ID).stored_bytes == LLAMA_BYTES
        assert get_session() is made
        answer = made.get(f"{hub.endpoint}/{ID}/resolve/main/large.bin")
        assert len(answer.content) == bounds.MAX_CONFIG + 9
        hub.fault("config.json", status=503, times=1)
        assert made.get(f"{hub.endpoint}/{ID}/resolve/main/config.json").status_code == 503
    finally:
        set_client_factory(library)


def test_nothing_is_asked_or_said_on_the_library_s_own_account(hub: Hub, tmp_path: Path) -> None:
    """Neither its daily question about agents, nor what a Hub wants printed, nor its remarks."""
    hub.add(ID, CONFIG, llama())
    hub.fault(
        "/api/models/", status=404, times=1, headers={"X-HF-Warning": "topic; read \x1b[31mme", "X-Error-Code": "x"}
    )
    ran = subprocess.run(
        [sys.executable, "-m", "tgi_advisor", "predict", "-m", ID, "-g", "nvidia-l4"],
        env={**os.environ, "HF_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 4
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"Error: The Hub knows no model {ID}.\n  Check the spelling; for a private model")
    assert {path for path in hub.paths if "agent" in path} == set()


def test_a_variable_the_library_cannot_read_is_no_traceback(hub: Hub) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tgi_advisor", "predict", "-m", ID, "-g", "nvidia-l4"],
        env={**os.environ, "HF_HUB_ETAG_TIMEOUT": "soon"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "one of its environment variables holds no number" in ran.stderr
    assert "Traceback" not in ran.stderr


# ------------------------------------------------------------------------------------------------ proxies and TLS


def test_a_proxy_is_asked_unless_exempted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, CONFIG, llama())
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint.replace("//", "//user:word@"))
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    assert read.read(ID).stored_bytes == LLAMA_BYTES
    assert all(request.path.startswith("http://hub.invalid/") for request in hub.requests)
    assert {request.proxy_authorization for request in hub.requests} == {"Basic dXNlcjp3b3Jk"}
    monkeypatch.setenv("NO_PROXY", "hub.invalid")
    close_session()
    with pytest.raises(UnreachableError, match="its name has no address"):
        read.read(ID)


def test_a_proxy_that_refuses_the_tunnel(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", hub.endpoint.replace("//", f"//user:{SECRET}@"))
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    with pytest.raises(UnreachableError, match="the proxy refuses the tunnel") as caught:
        read.read(ID)
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_is_checked(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate nobody vouches for ends it; one that REQUESTS_CA_BUNDLE vouches for will do."""
    pem = str(tmp_path / "pem")
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    alternative = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", f"{pem}.crt"]
    subprocess.run(["openssl", *make.split(), *alternative], check=True, capture_output=True)
    hub.add(ID, CONFIG, llama())
    hub.use_tls(f"{pem}.crt", pem)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    with pytest.raises(UnreachableError, match="certificate that this machine does not trust"):
        read.read(ID)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{pem}.crt")
    close_session()
    assert read.read(ID).stored_bytes == LLAMA_BYTES


def test_tls_with_something_that_does_not_speak_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("http", "https"))
    with pytest.raises(UnreachableError, match=r"cannot agree on TLS|broke off"):
        read.read(ID)


# ------------------------------------------------------------------------------------------------ our cache


def test_the_second_run_needs_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, CONFIG, llama(), gated="auto")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    first = model.load(ID)
    hub.requests.clear()
    second = model.load(ID)
    by_commit = model.load(ID, COMMIT)
    assert hub.requests == []
    assert second == by_commit
    assert second.source.startswith(f"{first.source}; kept since 20")
    assert (as_set(second), second.config, second.defaults) == (as_set(first), first.config, first.defaults)
    assert (second.model_max_length, second.gated) == (4096, True)
    kept = [path for path in environment.own_cache().rglob("*") if path.is_file()]
    assert len(kept) == 2
    assert not any(SECRET.encode() in path.read_bytes() for path in kept)


def test_a_branch_is_asked_about_again_after_a_day(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, CONFIG, llama())
    model.load(ID)
    day_later = time.time() + 25 * 3600
    monkeypatch.setattr(time, "time", lambda: day_later)
    hub.requests.clear()
    assert model.load(ID).commit == COMMIT
    assert len(hub.requests) == 3
    hub.requests.clear()
    hub.fault(".", kind="reset")
    monkeypatch.setattr(time, "time", lambda: day_later + 25 * 3600)
    assert "the Hub was out of reach" in model.load(ID).source
    hub.requests.clear()
    assert model.load(ID, COMMIT).commit == COMMIT
    assert not [request for request in hub.requests if COMMIT in request.path]  # late retries for the branch may come


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 2, "commit": 1}', b'{"format": 3, "commit": 1}', b"\xff" * 99],
)
def test_a_damaged_cache_is_read_anew(hub: Hub, damage: bytes) -> None:
    hub.add(ID, CONFIG, llama())
    model.load(ID)
    for path in environment.own_cache().rglob("*"):
        if path.is_file():
            path.write_bytes(damage)
    assert model.load(ID).stored_bytes == LLAMA_BYTES
    hub.requests.clear()
    assert model.load(ID).stored_bytes == LLAMA_BYTES
    assert hub.requests == []


def test_another_endpoint_has_its_own_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, CONFIG, llama())
    model.load(ID)
    with Hub() as other:
        monkeypatch.setenv("HF_ENDPOINT", other.endpoint)
        with pytest.raises(FactsError, match="knows no model"):
            model.load(ID)


def test_writers_at_the_same_time(hub: Hub) -> None:
    hub.add(ID, CONFIG, llama())
    facts = read.read(ID)
    failed: list[int] = []

    def work() -> None:
        for _ in range(20):
            cache.store(facts, "main")
            kept = cache.load(ID, "main")
            if kept is None or as_set(kept.facts) != as_set(facts):
                failed.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert not list(environment.own_cache().rglob("*.part"))


def test_a_cache_that_cannot_be_written_is_no_error(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TGI_ADVISOR_CACHE", str(tmp_path / "file"))
    hub.add(ID, CONFIG, llama())
    assert model.load(ID).stored_bytes == LLAMA_BYTES


# ------------------------------------------------------------------------------------------------ offline


def downloaded(weights: bool) -> Path:
    """A model as huggingface_hub leaves it on disk."""
    repo = environment.hub_cache() / f"models--{ID.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    if weights:
        file = Weights(header(llama()))
        (snapshot / "model.safetensors").write_bytes(file.beginning.ljust(file.size, b"\0"))
    index = {"metadata": {"total_size": LLAMA_BYTES}, "weight_map": dict.fromkeys(llama(), "model.safetensors")}
    (snapshot / INDEX).write_text(json.dumps(index))
    return snapshot


@pytest.mark.parametrize("weights", [True, False])
def test_offline_the_hugging_face_cache_will_do(hub: Hub, weights: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = downloaded(weights)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    facts = model.load(ID)
    assert (facts.id, facts.commit, facts.stored_bytes) == (ID, COMMIT, LLAMA_BYTES)
    assert facts.source == f"Hugging Face cache: {snapshot}"
    assert facts.files == (tuple(group.count for group in facts.tensors),)
    assert hub.requests == []


def test_out_of_reach_the_hugging_face_cache_will_do(hub: Hub) -> None:
    downloaded(weights=True)
    hub.fault(".", status=503)
    facts = model.load(ID)
    assert "Hugging Face cache" in facts.source
    assert "(the Hub was out of reach: " in facts.source


def test_offline_never_asks(hub: Hub) -> None:
    hub.add(ID, CONFIG, llama())
    sources: tuple[model.Source, ...] = ("auto", "cache", "snapshot", "hub")
    for source in sources:
        with pytest.raises(FactsError):
            model.load(ID, source=source, offline=True)
    assert hub.requests == []


def test_a_shipped_model_needs_no_network_and_no_token(hub: Hub) -> None:
    facts = model.load("meta-llama/Llama-3.1-8B-Instruct")
    assert facts.stored_bytes == 16_060_522_496
    assert hub.requests == []


# ------------------------------------------------------------------------------------------------ what goes wrong


def broken(hub: Hub) -> Iterator[tuple[str, str, str]]:
    """Every refusal and fault: what is wrong, the model and the revision to ask for."""
    yield "unknown model", "org/unknown", "main"
    yield "unknown model, near a shipped one", "meta-llama/Llama-3.1-8B-Instuct", "main"
    os.environ["HF_TOKEN"] = SECRET
    yield "unknown model, with a token", "org/unknown", "main"
    os.environ["HF_TOKEN"] = "hf_invalid"
    yield "bad token", ID, "main"
    hub.repos[ID].gated = "manual"
    os.environ["HF_TOKEN"] = "hf_noaccess"
    yield "gated, no access yet", ID, "main"
    del os.environ["HF_TOKEN"]
    yield "gated, no token", ID, "main"
    hub.repos[ID].gated = False
    os.environ["HF_TOKEN"] = f"{SECRET} and more"
    yield "token with spaces", ID, "main"
    del os.environ["HF_TOKEN"]
    yield "unknown revision", ID, "v9"
    hub.add("org/no-config", CONFIG, llama())
    del hub.repos["org/no-config"].files["config.json"]
    yield "no config.json", "org/no-config", "main"
    for what, names in {
        "GGUF only": ["m.Q4_K_M.gguf"],
        "adapter only": ["adapter_config.json", "adapter_model.safetensors"],
        "one .bin": ["pytorch_model.bin"],
        "no weights": ["README.md"],
        "a shard missing": ["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"],
    }.items():
        hub.repos["org/odd"] = Repo({"config.json": json.dumps(CONFIG).encode(), **dict.fromkeys(names, b"")})
        yield what, "org/odd", "main"
    for what, data in {
        "config.json is a list": b"[1]",
        "config.json is no JSON": b'{"model_type": ',
        "config.json is a web page": b"<!DOCTYPE html><html>",
    }.items():
        hub.repos["org/odd"] = Repo({"config.json": data, "model.safetensors": b""})
        yield what, "org/odd", "main"
    for what, length in {"a header of a terabyte": 1 << 40, "a header longer than the file": 90_000_000}.items():
        hub.add("org/odd", CONFIG, llama(), totals=False, extra={"model.safetensors": Weights(header(llama()), length)})
        yield what, "org/odd", "main"
    hub.add("org/odd", CONFIG, llama(), totals=False, extra={"model.safetensors": b""})
    yield "an empty weight file", "org/odd", "main"
    for what, fault in {
        "429, a long wait": {"status": 429, "headers": {"Retry-After": "3600"}},
        "429, for ever": {"status": 429, "headers": {"Retry-After": "0"}},
        "503": {"status": 503},
        "403": {"status": 403},
        "418": {"status": 418},
        "reset": {"kind": "reset"},
        "truncated": {"kind": "truncate"},
        "hangs": {"kind": "hang"},
        "endless": {"kind": "endless"},
        "no HTTP": {"kind": "garbage"},
        "a web page": {"status": 200, "body": b"<html>", "headers": {"Content-Type": "text/html; charset=utf-8"}},
        "a list": {"status": 200, "body": b"[]"},
        "redirects in circles": {"status": 302, "headers": {"Location": "/api/models/x"}},
        "redirects to a file": {"status": 302, "headers": {"Location": "file:///etc/passwd"}},
        "gzip that is none": {"status": 200, "body": b"{}", "headers": {"Content-Encoding": "gzip"}},
    }.items():
        hub.faults.clear()
        hub.fault("/api/models/", **fault)  # type: ignore[arg-type]
        yield what, ID, "main"
    hub.faults.clear()
    for what, url in {
        "connection refused": "http://127.0.0.1:9",
        "no such host": "https://hub.invalid",
        "endpoint is no URL": "hub.example",
        "endpoint with an odd port": "http://127.0.0.1:port",
    }.items():
        os.environ["HF_ENDPOINT"] = url
        yield what, ID, "main"
    for model_id in (
        "../etc/passwd",
        "a b",
        "org/%2e%2e",
        "https://huggingface.co/org/name",
        "org/a\nHost: x",
        "a/b/c",
    ):
        yield repr(model_id), model_id, "main"
    yield "odd revision", ID, "../../main"


def test_every_refusal_says_what_to_do(
    hub: Hub, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(environment, "timeout", lambda: 0.1)
    hub.add(ID, CONFIG, llama())
    told = []
    for what, model_id, revision in broken(hub):
        with pytest.raises(FactsError) as caught:
            model.load(model_id, revision)
        text = "".join(traceback.format_exception(caught.value))
        assert SECRET not in text, what
        assert caught.value.hint, what
        shown = str(caught.value).replace(hub.endpoint, "<hub>").replace(str(tmp_path), "<home>")
        told.append(f"# {what}\n{shown}\n")
    golden("hub/errors.txt", "\n".join(told))


@pytest.mark.parametrize("fault", [{"status": 503}, {"kind": "reset"}, {"kind": "truncate"}, {"kind": "hang"}])
def test_what_passes_is_sat_out(hub: Hub, fault: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "timeout", lambda: 0.2)
    hub.add(ID, CONFIG, llama(), shards=3, totals=False)
    hub.fault(".", times=3, **fault)
    assert read.read(ID).stored_bytes == LLAMA_BYTES


def test_retry_after_is_respected(hub: Hub) -> None:
    hub.add(ID, CONFIG, llama())
    hub.fault("/api/", status=429, times=1, headers={"Retry-After": "1"})
    started = time.monotonic()
    read.read(ID)
    assert time.monotonic() - started >= 1


def test_a_lying_header_costs_no_memory(hub: Hub) -> None:
    lie = Weights(header(llama()), 1 << 40)
    hub.add(ID, CONFIG, llama(), totals=False, extra={"model.safetensors": lie})
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(FactsError, match="tensor header of 1,099,511,627,776 bytes"):
        read.read(ID)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@given(st.text(max_size=120))
def test_only_plain_names_reach_a_path_or_a_url(text: str) -> None:
    for check in (check_id, check_revision):
        try:
            check(text)
        except FactsError:
            continue
        assert re.fullmatch(r"[\w./@+-]+", text, re.ASCII)
        assert ".." not in text


ODD = st.one_of(ANYTHING, st.lists(ANYTHING), st.dictionaries(st.sampled_from(["rfilename", "parameters"]), ANYTHING))


@given(st.sampled_from(["id", "sha", "gated", "siblings", "safetensors", "lastModified"]), ODD)
@settings_of_hypothesis(deadline=None, max_examples=50)
def test_no_entry_of_a_hub_brings_us_down(field: str, odd: Any) -> None:
    """Whatever the Hub's entry holds, it is read or refused."""
    with pytest.MonkeyPatch.context() as patched, Hub() as hub:
        patched.setenv("HF_ENDPOINT", hub.endpoint)
        hub.add(ID, CONFIG, llama())
        entry = {"id": ID, "sha": COMMIT, "siblings": [{"rfilename": "model.safetensors"}], field: odd}
        hub.fault("/api/models/", status=200, body=json.dumps(entry).encode())
        try:
            assert read.read(ID).stored_bytes == LLAMA_BYTES
        except FactsError as error:
            assert error.hint  # noqa: PT017


OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "a body": OK + b"Content-Length: 500\r\n\r\n" + b"{" * 500,
    "fields": OK + b"X: y\r\n" * 90,
    "a status": b"HTTP/1.1 200 " + b"O" * 500,
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * 90,
    "trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 90,
    "a redirect": b"HTTP/1.1 302 Found\r\nContent-Length: 500\r\nLocation: /x\r\n\r\n" + b"x" * 500,
    "an error": b"HTTP/1.1 404 Not Found\r\nContent-Length: 500\r\n\r\n" + b"x" * 500,
}


@pytest.mark.parametrize(
    ("path", "what"),
    [*(("/api/models/", what) for what in DRIPS), ("config.json", "a body"), ("safetensors$", "a body")],
)
def test_what_drips_has_an_end(hub: Hub, what: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.2)
    monkeypatch.setattr(environment, "timeout", lambda: 0.2)
    hub.add(ID, CONFIG, llama(), totals=False)
    hub.fault(path, "drip", body=DRIPS[what])
    started = time.monotonic()
    with pytest.raises(FactsError, match="did not finish its answer"):
        model.load(ID)
    assert time.monotonic() - started < 2


def test_all_answers_about_one_model_have_an_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MODEL_S", 0.15)
    hub.add(ID, CONFIG, llama(), totals=False)
    hub.latency = 0.1
    with pytest.raises(FactsError):
        model.load(ID)


HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "a redirect to half an address": ("/api/", {"status": 302, "headers": {"Location": "http://[::bad"}}),
    "a redirect to a bad port": ("/api/", {"status": 302, "headers": {"Location": "http://a:99999999/x"}}),
    "a redirect to nothing": ("/api/", {"status": 302, "headers": {"Location": ""}}),
    "a redirect with a control character": ("/api/", {"status": 302, "headers": {"Location": "http://a\x1b[2J/x"}}),
    "a redirect without a place": ("/api/", {"status": 307}),
    "a length of 5,000 digits": (
        "/api/", {"kind": "raw", "body": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}"},
    ),
    "a wait of 5,000 digits": ("/api/", {"status": 429, "headers": {"Retry-After": "9" * 5000}}),
    "200 fields": ("/api/", {"kind": "raw", "body": OK + b"X: y\r\n" * 200 + b"\r\n{}"}),
    "a field without end": ("/api/", {"kind": "raw", "body": OK + b"X: " + b"y" * 99_999}),
    "a status of five digits": ("/api/", {"kind": "raw", "body": b"HTTP/1.1 99999 X\r\n\r\n"}),
    "chunks of no size": ("/api/", {"kind": "raw", "body": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"}),
    "chunks of -1": ("/api/", {"kind": "raw", "body": OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}"}),
    "a deep entry": ("/api/", {"status": 200, "body": b'{"a":' * 99_999}),
    "an entry of values": ("/api/", {"status": 200, "body": b"[" + b"{}," * 999_999 + b"0]"}),
    "escapes as content type": (
        "/api/", {"status": 200, "body": b"x", "headers": {"Content-Type": "a\x1b]0;x\x07\x9b"}},
    ),
    "a deep config": ("config.json", {"status": 200, "body": b'{"a":' * 60 + b"0" + b"}" * 60}),
    "a config of layers": ("/config.json", {"status": 200, "body": b'{"num_hidden_layers": 10000000}'}),
    "a tokenizer of digits": ("tokenizer", {"status": 200, "body": b'{"model_max_length": ' + b"9" * 9000 + b"}"}),
    "a range of 5,000 digits": (
        "safetensors$",
        {"status": 206, "body": b"\x02" + b"\0" * 7 + b"{}", "headers": {"Content-Range": f"bytes 0-9/{'9' * 5000}"}},
    ),
    "a header of lists": ("safetensors$", {"status": 200, "body": struct.pack("<Q", 99_999) + b"[" * 99_999}),
}  # fmt: skip
ONE_CALL: dict[str, Any] = {
    "a list as dtype": {"dtype": ["F16"], "shape": [2], "data_offsets": [0, 4]},
    "a nested shape": {"dtype": "F16", "shape": [[2]], "data_offsets": [0, 4]},
    "a shape of text": {"dtype": "F16", "shape": ["2"], "data_offsets": [0, 4]},
    "a vast shape": {"dtype": "F16", "shape": [10**400], "data_offsets": [0, 4]},
    "no entry": 5,
    "an unknown dtype": {"dtype": "F\x1b[2J", "shape": [2], "data_offsets": [0, 4]},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_a_hub_says_there_is_an_answer(hub: Hub, what: str) -> None:
    path, fault = HOSTILE[what]
    hub.add(ID, CONFIG, llama(), totals=False)
    hub.fault(path, **fault)
    try:
        assert model.load(ID).tensors
    except FactsError as error:
        assert str(error).replace("\n", "").isprintable()  # noqa: PT017
        assert len(str(error)) < 2000  # noqa: PT017


@pytest.mark.parametrize("what", ONE_CALL)
def test_an_answer_of_all_headers_that_is_none_is_not_used(hub: Hub, what: str) -> None:
    hub.add(ID, CONFIG, llama(), shards=9)
    right = model.load(ID).tensors
    made = json.loads(hub.repos[ID].all_headers)
    next(iter(made["headers"].values()))["odd"] = ONE_CALL[what]
    hub.repos[ID].totals = {"F32": 1}
    hub.fault("safetensors-metadata", status=200, body=json.dumps(made).encode())
    cache_folder = environment.own_cache()
    for file in cache_folder.rglob("*.json"):
        file.unlink()
    assert model.load(ID).tensors == right


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "http://[::1"),
        ("HF_ENDPOINT", "http://"),
        ("HF_ENDPOINT", "http://a:99999999"),
        ("HF_ENDPOINT", "https://user:pass@[::1/x"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "99999999999999999"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "9" * 5000),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1e3"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon\x1b"),
        ("HTTP_PROXY", "http://[::bad"),
        ("HTTP_PROXY", "http://a:99999999999"),
        ("HTTP_PROXY", "socks5://user:pass@a:1"),
        ("HTTP_PROXY", "user:pass@[::bad"),
        ("REQUESTS_CA_BUNDLE", "/no/such/file"),
        ("XDG_CACHE_HOME", "~nobody-of-this-name"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(
    hub: Hub, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "XDG_CACHE_HOME":
        for other in ("HF_HOME", "TGI_ADVISOR_CACHE"):
            monkeypatch.delenv(other, raising=False)
    hub.add(ID, CONFIG, llama())
    monkeypatch.setenv(name, value)
    with pytest.raises(FactsError) as caught:
        model.load(ID)
    assert caught.value.hint
    assert len(str(caught.value)) < 1000
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_token_file_that_is_none_is_not_waited_for(
    hub: Hub, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(path))
    hub.add(ID, CONFIG, llama())
    assert model.load(ID).tensors
    assert {request.authorization for request in hub.requests} == {None}
