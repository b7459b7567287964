from __future__ import annotations

from typing import Any

import pytest
from golden import Golden
from launch import LLAMA, model

from tgi_advisor.errors import FactsError
from tgi_advisor.facts import families, tables
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.families import Family
from tgi_advisor.facts.model import TensorGroup
from tgi_advisor.gather import snapshot

LATEST = releases.latest()


def serve(release: str, variant: str = "", name: str = "org/model", **config: Any) -> Family:
    trust = bool(config.pop("trust", False))
    flash = bool(config.pop("flash", True))
    facts = model(LLAMA, name, **config)
    return families.find(facts, releases.find(release), variant, flash=flash, trust_remote_code=trust)


def test_geometry_of_every_shipped_model(golden: Golden) -> None:
    lines = []
    for name in snapshot.recorded_ids():
        facts = snapshot.find(name)
        assert facts is not None
        family = families.find(facts, LATEST, trust_remote_code=True)
        heads, kv, size = families.heads(facts), families.kv_heads(facts), families.head_size(facts, family)
        experts = families.experts(facts)
        mixture = f", {experts} experts ({families.experts_per_token(facts)} a token)" if experts else ""
        lines.append(
            f"{name}: {family.served_by}, {families.layers(facts)} layers, {heads} heads, {kv} kv of {size}, "
            f"{families.hidden(facts)} wide, {families.intermediate(facts)} inside{mixture}, "
            f"{families.vocab(facts)} words, context {families.context_length(facts)}"
        )
        assert heads == 0 or heads % kv == 0
        assert family.supported
    golden("families.txt", "\n".join(lines) + "\n")


def test_every_row_is_read_and_cites_its_source() -> None:
    for name in families.names():
        row = tables.load("families")[name]
        assert "@v" in row["source"]
        assert ("served_by" in row) is ("first" in row)


@pytest.mark.parametrize(
    ("kind", "release", "served_by", "shards", "chunks"),
    [
        ("llama", "1.0.0", "flash", True, True),
        ("qwen2", "1.4.0", "padded", False, False),
        ("qwen2", "1.4.2", "padded", False, False),
        ("qwen2", "1.4.3", "flash", True, True),
        ("gpt2", "2.0.2", "padded", False, False),
        ("gpt2", "2.0.3", "flash", True, True),
        ("gptj", "2.2.0", "padded", False, False),
        ("gptj", "2.3.0", "flash", True, True),
        ("qwen3", "3.2.3", "transformers", True, False),
        ("olmo2", "3.0.2", "transformers", True, False),
        ("olmoe", "3.1.0", "transformers", True, False),
        ("olmoe", "3.2.0", "padded", False, False),
        ("stablelm", "3.3.7", "padded", False, False),
        ("gemma3", "3.3.7", "vlm", True, False),
        ("llava_next", "3.2.3", "vlm", True, False),
        ("llava_next", "3.3.0", "vlm", True, True),
        ("bloom", "3.3.7", "padded", True, False),
        ("t5", "3.3.7", "seq2seq", True, False),
        ("mamba", "2.4.1", "mamba", False, False),
        ("mamba", "2.4.0", "padded", False, False),
    ],
)
def test_dispatch(kind: str, release: str, served_by: str, shards: bool, chunks: bool) -> None:
    family = serve(release, model_type=kind)
    assert (family.served_by, family.shards, family.chunks) == (served_by, shards, chunks)
    assert family.supported


@pytest.mark.parametrize(
    ("kind", "release"),
    [("gemma2", "2.0.4"), ("qwen3", "3.2.2"), ("deepseek_v3", "3.0.2"), ("cohere", "1.4.3"), ("phi3small", "3.3.7")],
)
def test_a_release_that_is_too_old_supports_no_family(kind: str, release: str) -> None:
    assert not serve(release, model_type=kind).supported


def test_remote_code_serves_what_transformers_does_not_know() -> None:
    own: dict[str, Any] = {
        "model_type": "phi3small",
        "auto_map": {"AutoModelForCausalLM": "modeling_phi3_small.Phi3SmallForCausalLM"},
    }
    family = serve("3.3.7", trust=True, **own)
    assert (family.supported, family.served_by, family.automodel) == (True, "padded", True)
    assert serve("3.3.7", **own).remote_code
    assert not serve("3.3.7", trust=True, model_type="phi3small").supported
    seq2seq = serve("3.3.7", trust=True, model_type="mine", auto_map={"AutoModelForSeq2SeqLM": "m.Mine"})
    assert (seq2seq.supported, seq2seq.served_by) == (True, "seq2seq")


def test_santacoder_names() -> None:
    assert serve("3.3.7", name="bigcode/gpt_bigcode-santacoder", model_type="gpt2").model_type == "gpt_bigcode"
    assert families.kv_heads(model(LLAMA, "bigcode/x", model_type="gpt2")) == 1


def test_falcon_with_alibi_is_padded() -> None:
    family = serve("3.3.7", model_type="falcon", alibi=True)
    assert (family.served_by, family.shards, family.automodel) == ("padded", False, False)


def test_without_flash_attention() -> None:
    assert serve("3.3.7", flash=False).served_by == "padded"
    assert not serve("3.3.7", flash=False).shards
    assert serve("3.3.7", flash=False, model_type="gpt_neox").shards
    assert serve("3.3.7", flash=False, model_type="qwen3").served_by == "padded"
    assert serve("3.3.7", flash=False, model_type="gemma2").dtype == "float16"


@pytest.mark.parametrize(("release", "divides"), [("2.0.4", False), ("2.1.0", True)])
def test_the_llama_class_checks_kv_heads_from_2_1_0(release: str, divides: bool) -> None:
    assert serve(release).kv_heads_must_divide is divides
    assert serve(release, model_type="mistral").kv_heads_must_divide is False


@pytest.mark.parametrize(("text", "divides"), [("llama", True), ("mistral", False)])
def test_a_vision_model_checks_what_its_text_class_checks(text: str, divides: bool) -> None:
    family = serve("3.3.7", model_type="llava_next", text_config={**LLAMA, "model_type": text})
    assert family.kv_heads_must_divide is divides


def test_gaudi_has_its_own_list() -> None:
    assert serve("3.3.7", "gaudi", model_type="qwen3").served_by == "flash"
    assert not serve("3.3.1", "gaudi", model_type="qwen3").supported
    assert serve("3.3.2", "gaudi", model_type="olmo2").automodel
    assert not serve("3.3.3", "gaudi", model_type="olmo2").supported
    assert serve("3.3.2", "gaudi", model_type="bloom").supported
    assert not serve("3.3.7", "gaudi", model_type="bloom").supported
    assert (
        not serve("3.2.2", "gaudi", model_type="mllama").supported
        or serve("3.2.2", "gaudi", model_type="mllama").automodel
    )
    assert not serve("3.3.7", "gaudi").chunks


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": None}, "has no `model_type`"),
    ],
)
def test_what_is_not_known(config: dict[str, Any], message: str) -> None:
    with pytest.raises(FactsError, match=message):
        serve("3.3.7", **config)


TODAY = (
    "gpt_oss",
    "qwen3_next",
    "glm4_moe",
    "ernie4_5",
    "ernie4_5_moe",
    "gemma3n",
    "smollm3",
    "seed_oss",
    "glm4",
    "lfm2",
)


@pytest.mark.parametrize("kind", TODAY)
def test_types_newer_than_the_last_release_are_supported_by_none(kind: str) -> None:
    assert not any(serve(one.name, model_type=kind).supported for one in releases.all_releases())


@pytest.mark.parametrize(
    ("kind", "release", "served_by"),
    [
        ("persimmon", "1.3.3", None),  # transformers 4.33.3
        ("persimmon", "1.3.4", "padded"),
        ("qwen3", "3.2.2", None),
        ("llama4_text", "3.2.3", "transformers"),
        ("jetmoe", "2.0.4", "padded"),
        ("bamba", "3.0.2", "padded"),
        ("zamba2", "3.1.1", None),
        ("zamba2", "3.2.0", "padded"),
        ("emu3", "3.1.0", "transformers"),
        ("emu3", "3.2.0", "padded"),
        ("bart", "1.0.0", "padded"),  # in both mappings: the causal one comes first
        ("fsmt", "1.0.0", "seq2seq"),
        ("umt5", "1.0.0", None),
        ("umt5", "1.0.1", "seq2seq"),
    ],
)
def test_what_transformers_of_the_image_serves(kind: str, release: str, served_by: str | None) -> None:
    family = serve(release, model_type=kind)
    assert family.supported is (served_by is not None)
    assert served_by in (family.served_by, None)


@pytest.mark.parametrize(("release", "variant"), [("3.3.7", "rocm"), ("3.3.7", "intel-cpu")])
def test_an_image_that_took_the_newest_transformers_is_not_judged(release: str, variant: str) -> None:
    with pytest.raises(FactsError, match=f"TGI {release}-{variant} serves model type 'gpt_oss' is not known"):
        serve(release, variant, model_type="gpt_oss")
    assert serve(release, variant, model_type="olmo2").supported
    assert not serve(release, variant, model_type="deepseek_v4").supported
    assert not serve("3.3.4", variant, model_type="gpt_oss").supported  # there was none yet


def test_two_images_of_transformers_between_versions() -> None:
    assert not serve("2.0.3", model_type="gpt_oss").supported
    with pytest.raises(FactsError, match="is not known"):
        serve("2.0.3", model_type="jetmoe")


@pytest.mark.parametrize(
    ("names", "experts", "mlp"),
    [(("up_proj",), {}, "plain"), (("gate_proj", "up_proj"), {}, "gated"), (("up_proj",), {"num_experts": 8}, "moe")],
)
def test_the_feed_forward_block_of_a_type_without_a_row(
    names: tuple[str, ...], experts: dict[str, Any], mlp: str
) -> None:
    tensors = tuple(TensorGroup(f"model.layers.*.mlp.{name}.weight", "BF16", (8, 8), 4) for name in names)
    facts = model(LLAMA, tensors=tensors, model_type="stablelm", **experts)
    assert families.find(facts, LATEST).mlp == mlp


def test_mamba_by_its_first_configuration() -> None:
    first: dict[str, Any] = {"model_type": None, "ssm_cfg": {}, "d_model": 2560, "n_layer": 64}
    assert serve("2.4.0", **first).model_type == "ssm"
    assert serve("2.4.1", **first).model_type == "mamba"


@pytest.mark.parametrize(
    ("config", "kv"),
    [
        ({}, 8),
        ({"num_key_value_heads": None}, 32),
        ({"model_type": "falcon", "multi_query": True, "num_key_value_heads": None}, 1),
        ({"model_type": "falcon", "multi_query": True, "num_kv_heads": 8}, 8),
        ({"model_type": "falcon", "n_head_kv": 4}, 4),
        ({"model_type": "falcon", "multi_query": False}, 32),
        ({"model_type": "gpt_bigcode"}, 1),
        ({"model_type": "dbrx", "num_key_value_heads": None, "attn_config": {"kv_n_heads": 6}}, 6),
        ({"text_config": {**LLAMA, "num_key_value_heads": 2}}, 2),
        ({"model_type": "mamba"}, 0),
    ],
)
def test_kv_heads(config: dict[str, Any], kv: int) -> None:
    assert families.kv_heads(model(LLAMA, **config)) == kv


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, 128),
        ({"head_dim": 96}, 96),
        ({"model_type": "deepseek_v3", "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64}, 192),
        ({"model_type": "deepseek_v2", "v_head_dim": 256}, 256),
        ({"model_type": "t5", "d_kv": 64}, 64),
    ],
)
def test_head_size(config: dict[str, Any], size: int) -> None:
    facts = model(LLAMA, **config)
    assert families.head_size(facts, families.find(facts, LATEST)) == size


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"])
def test_a_missing_field_is_named(field: str) -> None:
    without: dict[str, Any] = {field: None}
    facts = model(LLAMA, **without)
    ask = {
        "hidden_size": families.hidden,
        "num_attention_heads": families.heads,
        "num_hidden_layers": families.layers,
        "intermediate_size": families.intermediate,
    }[field]
    with pytest.raises(FactsError, match=f"config.json of org/model has no usable `{field}`"):
        ask(facts)


def test_intermediate_of_families_that_state_none() -> None:
    facts = model({"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_inner": None})
    assert families.intermediate(facts) == 3072


@pytest.mark.parametrize(
    ("config", "server", "asked"),
    [
        ({}, 131072, 131072),
        ({"model_type": "gpt2", "max_position_embeddings": None, "n_positions": 1024}, 1024, 1024),
        ({"model_type": "falcon", "max_position_embeddings": None}, 2048, 2048),
        ({"model_type": "dbrx", "max_position_embeddings": None, "max_seq_len": 32768}, None, 32768),
        ({"model_type": "bloom", "max_position_embeddings": None}, None, None),
    ],
)
def test_context(config: dict[str, Any], server: int | None, asked: int | None) -> None:
    facts = model(LLAMA, **config)
    assert (families.context_length_server(facts), families.context_length(facts)) == (server, asked)
