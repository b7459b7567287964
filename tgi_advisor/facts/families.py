"""How TGI holds each model family: which class serves it, whether it shards, chunks, and in which dtype.

The second half reads a model's geometry from its configuration under the names each family uses,
the way TGI's own config classes do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tgi_advisor.errors import FactsError
from tgi_advisor.facts import tables
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.release import TgiRelease

if TYPE_CHECKING:
    from tgi_advisor.facts import automodel

ServedBy = Literal["flash", "vlm", "transformers", "padded", "seq2seq", "mamba"]
Version = tuple[int, int, int]


class Family(NamedTuple):
    """One `model_type` as TGI's `get_model` treats it: a row of `families.yaml`, or `find`'s view of a type."""

    model_type: str
    """config.json's model_type."""
    served_by: ServedBy
    """Kind of model class: FlashCausalLM, VlmCausalLM, the transformers fallback, padded CausalLM, Seq2SeqLM, Mamba."""
    first_release: tuple[int, int, int] | None
    """First release whose `get_model` has a branch for the name; None where none has."""
    shards: bool
    """Whether tensor parallelism is supported."""
    chunks: bool
    """Whether the class asks for prefill chunking (in `find`'s view: in that release)."""
    dtype: Literal["float16", "bfloat16"]
    """Dtype when --dtype is not given."""
    kv: Literal["heads", "mla", "replicated"]
    """KV heads: split over shards; DeepSeek's uncompressed 192; full on every shard (transformers' olmo2)."""
    mlp: Literal["gated", "plain", "moe", "parallel_gated", "parallel_plain"]
    """Shape of the feed-forward block, which decides the prefill's widest moment; `parallel` runs beside attention."""
    kv_heads_must_divide: bool
    """Whether the class refuses shard counts that do not divide the KV heads (Llama family, 2.1.0 on)."""
    kv_cache_dtype: bool
    """Whether --kv-cache-dtype reaches the class."""
    notes: str
    """What surprises people about the family."""
    source: str
    """Where it was read."""
    gaudi_from: tuple[int, int, int] | None = None
    """First release whose Gaudi back end has a flash class for it."""
    adapters_from: tuple[int, int, int] | None = None
    """First release whose own class takes LoRA adapters; None where none does."""
    dtype_since: tuple[int, int, int] | None = None
    """First release whose default `dtype` is; float16 before; None where it always was."""
    automodel: bool = False
    """In `find`'s view: the release has no class of its own for it and goes through AutoModel."""
    supported: bool = True
    """In `find`'s view: False when the release refuses the model type."""
    remote_code: bool = False
    """In `find`'s view: the repository's own code would serve what is refused, with --trust-remote-code."""

    @property
    def paged(self) -> bool:
        """Whether it is served with a block KV cache whose size TGI infers; else batches are padded."""
        return self.served_by in ("flash", "vlm", "transformers")


_KEYS = {
    "served_by", "first", "mlp", "dtype", "dtype_since", "kv", "shards", "chunks", "kv_cache_dtype",
    "kv_heads_must_divide", "gaudi", "adapters", "notes", "source",
}  # fmt: skip


def find(
    model: ModelFacts, release: TgiRelease, variant: str = "", *, flash: bool = True, trust_remote_code: bool = False
) -> Family:
    """The family of a model as `get_model` of a release would serve it.

    `flash` says whether that image can use flash attention on the GPU at hand. A type neither the release
    nor the transformers of its image knows comes back with `supported=False`; FactsError when that version of
    transformers is not known, or the configuration names no type.
    """
    version = release.version
    kind = _served_type(model, version)
    row = _rows().get(kind) or _unlisted(kind, model)
    if variant == "gaudi":
        return _on_gaudi(row, version)
    own = _own_class(row, model, release, flash)
    return own or _automodel(row, model, release, variant, flash, trust_remote_code)


def names() -> list[str]:
    """Every model_type of the table."""
    return sorted(_rows())


def is_left_to_transformers(model_type: str) -> bool:
    """Whether no release has a class of TGI's own for a type: transformers' reads its weights, file by file."""
    row = _rows().get(model_type)
    return row is None or row.first_release is None


def _own_class(row: Family, model: ModelFacts, release: TgiRelease, flash: bool) -> Family | None:
    """The family where the release's get_model has a branch for it, else None."""
    version = release.version
    if row.first_release is None or version < row.first_release:
        return None
    divide = version >= (2, 1, 0) and (row.kv_heads_must_divide or _text_row_divides(row, model))
    if row.served_by in ("flash", "vlm") and (not flash or is_alibi(model)):
        return row._replace(
            served_by="padded",
            shards=row.model_type == "gpt_neox",  # the one family with a padded class that shards
            chunks=False,
            dtype="float16",
            kv="heads",
            kv_heads_must_divide=False,
            kv_cache_dtype=False,
        )
    chunks = row.chunks and (row.served_by == "flash" or (row.served_by == "vlm" and release.vlm_chunking))
    return row._replace(chunks=chunks, kv_heads_must_divide=divide)


def _automodel(
    row: Family, model: ModelFacts, release: TgiRelease, variant: str, flash: bool, trust_remote_code: bool
) -> Family:
    """The family where the release hands it to transformers' AutoModel, or refuses it.

    server/text_generation_server/models/__init__.py@v3.3.7:1740-1797; the repository's own code comes last.
    """
    from tgi_advisor.facts import automodel  # only for types without a class of TGI's own

    found = automodel.find(row.model_type, release.version, variant)
    own_code = _own_code(model)
    kind = found.kind or (own_code if trust_remote_code else None)
    if not found.certain:
        raise FactsError(
            f"How TGI {release}{variant and '-'}{variant} serves model type {row.model_type!r} is not known: the image "
            "installs a transformers that is not pinned, and newer ones have a class for it.",
            "Plan for an image that pins it (CUDA's do), or ask the image: pip show transformers.",
        )
    if kind is None:
        return row._replace(supported=False, remote_code=own_code is not None)
    fallback = flash and found.flash and kind == "causal" and release.version >= (3, 0, 2)
    return row._replace(
        served_by="transformers" if fallback else "padded" if kind == "causal" else "seq2seq",
        shards=fallback,
        chunks=False,
        kv="replicated" if fallback and row.kv == "replicated" else "heads",
        kv_heads_must_divide=False,
        kv_cache_dtype=False,
        automodel=True,
    )


def _own_code(model: ModelFacts) -> automodel.Kind | None:
    """What the repository's own code serves, by `auto_map` of config.json; None where it has none."""
    named = model.config.get("auto_map")
    if not isinstance(named, Mapping):
        return None
    return "causal" if "AutoModelForCausalLM" in named else "seq2seq" if "AutoModelForSeq2SeqLM" in named else None


def _unlisted(kind: str, model: ModelFacts) -> Family:
    """A type the table has no row for: TGI has no class of its own for it."""
    return Family(
        model_type=kind,
        served_by="padded",
        first_release=None,
        shards=False,
        chunks=False,
        dtype="float16",
        kv="heads",
        mlp="moe" if experts(model) else "gated" if _gated(model) else "plain",
        kv_heads_must_divide=False,
        kv_cache_dtype=False,
        notes="",
        source="",
    )


def _gated(model: ModelFacts) -> bool:
    """Whether the feed-forward block has a gate, by the names of the tensors; the larger of both where none are."""
    names = {part for group in model.tensors for part in group.name.split(".")}
    return not names or bool(names & {"gate_proj", "gate_up_proj", "w3"})


_GAUDI_PADDED = {"bloom": (3, 1, 1), "gpt_bigcode": (3, 1, 1), "llava_next": (3, 1, 1), "mllama": (3, 2, 3)}
"""First release whose Gaudi back end has a padded class for the type; none has from 3.3.3 on."""


def _on_gaudi(row: Family, version: Version) -> Family:
    """The family on the Gaudi back end, which has its own list of classes, never chunks, and until 3.3.2 hands the
    rest to transformers.

    backends/gaudi/server/text_generation_server/models/__init__.py@v3.3.2:595, @v3.3.3:556.
    """
    if row.gaudi_from is not None and version >= row.gaudi_from:
        served: ServedBy = "vlm" if row.served_by == "vlm" else "flash"
        return row._replace(served_by=served, shards=True, chunks=False)
    from tgi_advisor.facts import automodel

    padded = row.model_type in _GAUDI_PADDED and _GAUDI_PADDED[row.model_type] <= version < (3, 3, 3)
    mapped = automodel.find(row.model_type, version, "gaudi").kind == "causal"
    if not padded and not mapped:
        return row._replace(supported=False)
    return row._replace(served_by="padded", shards=True, chunks=False, automodel=not padded)


def _text_row_divides(row: Family, model: ModelFacts) -> bool:
    """Whether a vision model's text part is a class that refuses KV heads its shards do not divide."""
    inner = model.config.get("text_config")
    if row.served_by != "vlm" or not isinstance(inner, Mapping):
        return False
    text = _rows().get(str(inner.get("model_type")))
    return text is not None and text.kv_heads_must_divide


def _served_type(model: ModelFacts, version: Version) -> str:
    """The model_type get_model ends up with."""
    config, name = model.config, model.model_type
    if name is None:
        if "ssm_cfg" in config:
            return "mamba" if version >= (2, 4, 1) else "ssm"
        raise FactsError(
            f"config.json of {model.served_id} has no `model_type`, and TGI cannot serve a model without one.",
            "Check that the id names a transformers model, not an adapter or a GGUF repository.",
        )
    if name == "gpt2" and model.served_id.startswith("bigcode/"):
        return "gpt_bigcode"
    return name


@cache
def _rows() -> dict[str, Family]:
    return {name: _read(name, row) for name, row in tables.load("families").items()}


def _read(name: str, row: Mapping[str, Any]) -> Family:
    tables.strict(row, _KEYS, {"mlp", "source"}, f"families.yaml: {name}")
    served = row.get("served_by", "padded")
    return Family(
        model_type=name,
        served_by=served,
        first_release=_version(row.get("first")),
        shards=row.get("shards", True),
        chunks=row.get("chunks", served in ("flash", "vlm")),
        dtype=row.get("dtype", "float16"),
        dtype_since=_version(row.get("dtype_since")),
        kv=row.get("kv", "heads"),
        mlp=row["mlp"],
        kv_heads_must_divide=row.get("kv_heads_must_divide", False),
        kv_cache_dtype=row.get("kv_cache_dtype", served in ("flash", "vlm")),
        notes=row.get("notes", ""),
        source=row["source"],
        gaudi_from=_version(row.get("gaudi")),
        adapters_from=_version(row.get("adapters")),
    )


def _version(text: str | None) -> Version | None:
    if text is None:
        return None
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch


# ---- geometry: what a configuration says, under the names each family uses ----

_FALCON = frozenset({"falcon", "RefinedWeb", "RefinedWebModel"})
_FOUR_TIMES = frozenset({"bloom", "gpt2", "gptj", "gpt_bigcode", "gpt_neo", "codegen", "gpt_neox"}) | _FALCON
"""Families whose feed-forward block is four times as wide as the model where the file names no width."""


def heads(model: ModelFacts) -> int:
    """Query heads of one layer; 0 in a state-space model, which has none."""
    if _is_mamba(model):
        return 0
    return _number(model, ("num_attention_heads", "n_head", "n_heads", "num_heads"))


def kv_heads(model: ModelFacts) -> int:
    """Key/value heads of one layer over all shards: 1 for multi-query attention, 0 without attention.

    Falcon: server/text_generation_server/models/custom_modeling/flash_rw_modeling.py@v3.3.7:109-116.
    """
    text = model.text()
    kind = model.model_type
    if _is_mamba(model):
        return 0
    if kind == "gpt_bigcode" or (kind == "gpt2" and model.served_id.startswith("bigcode/")):
        return 1
    if kind in _FALCON:
        stated = _optional(text, ("num_kv_heads", "n_head_kv"))
        return stated or (1 if text.get("multi_query") else heads(model))
    stated = _optional(text, ("num_key_value_heads", "num_kv_heads"))
    if stated is None and isinstance(attn := text.get("attn_config"), Mapping):
        stated = _optional(attn, ("kv_n_heads",))
    queries = heads(model)
    if stated and stated > queries:
        raise FactsError(
            f"config.json of {model.served_id} states {stated:,} key/value heads for {queries:,} attention heads.",
            "Several attention heads share a key/value head, never the other way round. Check the file.",
        )
    return stated or queries


def head_size(model: ModelFacts, family: Family) -> int:
    """Elements of one head of the KV cache.

    DeepSeek: the names TGI looks up are not the checkpoints', so 128 + 64 always applies
    (server/text_generation_server/models/__init__.py@v3.3.7:662-666).
    """
    if family.kv == "mla":
        qk = _or(model.config, "qk_nope_dim", 128) + _or(model.config, "qk_rope_dim", 64)
        return max(qk, _or(model.config, "v_head_dim", 128))
    if _is_mamba(model):
        return 0
    stated = _optional(model.text(), ("head_dim", "d_kv"))
    size = stated or hidden(model) // heads(model)
    if not size:
        raise FactsError(
            f"config.json of {model.served_id} states {heads(model):,} attention heads in a width of "
            f"{hidden(model):,}.",
            "No element is left for a head. Check the file; TGI would fail on it as well.",
        )
    return size


def latent(model: ModelFacts) -> int:
    """Elements of one token's compressed keys and values in a layer of DeepSeek's attention."""
    return _number(model, ("kv_lora_rank",)) + _number(model, ("qk_rope_head_dim",))


def layers(model: ModelFacts) -> int:
    """Layers that hold a KV cache (decoder layers of the text model)."""
    return _number(model, ("num_hidden_layers", "n_layer", "n_layers", "num_layers"))


def hidden(model: ModelFacts) -> int:
    """Width of the residual stream."""
    return _number(model, ("hidden_size", "n_embd", "n_embed", "d_model"))


def intermediate(model: ModelFacts) -> int:
    """Width of one feed-forward block; of one expert in a mixture of experts."""
    text = model.text()
    kind = str(text.get("model_type") or model.model_type)
    names = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "d_ff", "ff_intermediate_size")
    stated = _optional(text, ("moe_intermediate_size", *names) if experts(model) else names)
    if stated is None and isinstance(ffn := text.get("ffn_config"), Mapping):
        stated = _optional(ffn, ("ffn_hidden_size",))
    if stated is not None:
        return stated
    if kind in _FOUR_TIMES:
        return 4 * hidden(model)
    if kind == "mpt":
        ratio = text.get("expansion_ratio")
        return int((ratio if isinstance(ratio, (int, float)) else 4) * hidden(model))
    if _is_mamba(model):
        return 2 * hidden(model)
    return _number(model, names)


def experts(model: ModelFacts) -> int:
    """Routed experts of one layer; 0 in a dense model."""
    return _mixture(model, ("num_local_experts", "n_routed_experts", "num_experts"), "moe_num_experts")


def experts_per_token(model: ModelFacts) -> int:
    """Routed experts one token goes through; 0 in a dense model."""
    return _mixture(model, ("num_experts_per_tok",), "moe_top_k") if experts(model) else 0


def _mixture(model: ModelFacts, names: tuple[str, ...], in_ffn_config: str) -> int:
    text = model.text()
    stated = _optional(text, names)
    if stated is None and isinstance(ffn := text.get("ffn_config"), Mapping):
        stated = _optional(ffn, (in_ffn_config,))
    return stated or 0


def vocab(model: ModelFacts) -> int:
    """Rows of the embedding table."""
    stated = _optional(model.text(), ("vocab_size",)) or _optional(model.config, ("vocab_size",))
    return stated or _number(model, ("vocab_size",))


def context_length(model: ModelFacts) -> int | None:
    """Longest sequence the model was built for, in tokens; None where the configuration sets no end."""
    found = _optional(model.text(), ("max_position_embeddings", "max_seq_len", "n_positions", "max_sequence_length"))
    if found is None and model.model_type in _FALCON:
        return 2048  # flash_rw_modeling.py@v3.3.7:78
    return found if found is not None else _optional(model.text(), ("seq_length",))


def context_length_server(model: ModelFacts) -> int | None:
    """`config.max_position_embeddings` as the server's config object has it; None when it has no such attribute.

    The attribute map of the GPT-2 kind reads n_positions; MPT, DBRX and BLOOM have none.
    """
    text = model.text()
    found = _optional(text, ("max_position_embeddings",))
    if found is None and model.model_type in ("gpt2", "gptj", "gpt_bigcode", "codegen"):
        found = _optional(text, ("n_positions",))
    return 2048 if found is None and model.model_type in _FALCON else found


def sliding_window(model: ModelFacts) -> int | None:
    """`sliding_window` of config.json as get_model reads it (top level only)."""
    value = model.config.get("sliding_window")
    return value if isinstance(value, int) and value != -1 else None


def is_alibi(model: ModelFacts) -> bool:
    """Whether a Falcon model uses alibi, which the flash class does not serve."""
    return model.model_type in _FALCON and bool(model.config.get("alibi", False))


def _is_mamba(model: ModelFacts) -> bool:
    return model.model_type in ("mamba", "ssm") or "ssm_cfg" in model.config


def _optional(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _or(config: Mapping[str, Any], name: str, default: int) -> int:
    value = _optional(config, (name,))
    return default if value is None else value


def _number(model: ModelFacts, names: tuple[str, ...]) -> int:
    value = _optional(model.text(), names)
    if value is None or value < 1:
        where = "text_config of config.json" if isinstance(model.config.get("text_config"), Mapping) else "config.json"
        raise FactsError(
            f"{where} of {model.served_id} has no usable `{names[0]}`"
            + (f" (nor {', '.join(f'`{name}`' for name in names[1:])})" if names[1:] else "")
            + ".",
            "What the model takes on a GPU depends on it. Where the model names it otherwise, write the field into the "
            "config.json of a folder with the weights, and plan for that folder.",
        )
    return value
