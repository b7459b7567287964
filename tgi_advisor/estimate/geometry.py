"""The sizes of one model's layers on one shard, read once per launch.

Everything the per-token arithmetic needs, as plain integers, so that a search can evaluate
hundreds of limits without touching the configuration again.
"""

from typing import NamedTuple

from tgi_advisor.errors import FactsError
from tgi_advisor.estimate import kv_cache, weights
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families


class Geometry(NamedTuple):
    """Layer sizes on one shard, in elements."""

    layers: int
    """Decoder layers."""
    hidden: int
    """Width of the residual stream, the same on every shard."""
    heads: int
    """Query heads of the shard."""
    query: int
    """Query heads of the shard times head size."""
    kv: int
    """KV heads of the shard times head size (keys alone)."""
    intermediate: int
    """Feed-forward width of the shard (of one expert in a mixture)."""
    vocabulary: int
    """Rows of the lm_head over all shards."""
    vocabulary_shard: int
    """Rows of the lm_head on the shard."""
    experts: int
    """Routed experts; 0 in a dense model."""
    experts_per_token: int
    """Experts a token is routed to; 0 in a dense model."""
    kv_bytes_per_token: int
    """KV cache bytes of one token."""


def of(setting: Setting) -> Geometry:
    """Layer sizes of the launch's model on one shard; nothing where the release refuses a model nobody can read."""
    try:
        return _read(setting)
    except FactsError:
        if setting.family.supported:
            raise
        return Geometry(*(0 for _ in Geometry._fields))


def _read(setting: Setting) -> Geometry:
    model, tp = setting.facts.model, setting.num_shard
    head_size = families.head_size(model, setting.family)
    vocabulary = families.vocab(model)
    return Geometry(
        layers=families.layers(model),
        hidden=families.hidden(model),
        heads=families.heads(model) // tp,
        query=families.heads(model) // tp * head_size,
        kv=kv_cache.heads_per_shard(setting) * head_size,
        intermediate=families.intermediate(model) // tp,
        vocabulary=vocabulary,
        vocabulary_shard=vocabulary // tp if weights.head_is_split(setting, vocabulary) else vocabulary,
        experts=families.experts(model),
        experts_per_token=families.experts_per_token(model),
        kv_bytes_per_token=kv_cache.bytes_per_token(setting),
    )


def projections(g: Geometry, mlp: str) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of a layer's four projections: into attention, out of it, into the feed-forward block and out.

    Queries, keys and values are one, as are gate and up; `mlp` is `Family.mlp`.
    """
    inner = g.intermediate * (2 if mlp in ("gated", "parallel_gated", "moe") else 1)
    return (g.hidden, g.query + 2 * g.kv), (g.query, g.hidden), (g.hidden, inner), (g.intermediate, g.hidden)
