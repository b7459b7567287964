"""Several servers on one machine: who shares a GPU, who starts first, and what each may take.

The memory fraction of TGI is of the whole GPU, and what others hold counts against it: free(f) is
max(0, free - (1 - f) * total), where free is what the driver says. So the first server needs a fraction
small enough to leave room, and the second one near 1, because the first one's memory is missing from
`free` already (two halves of 0.5 leave the second without a KV cache):
https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/import_utils.py#L13-L17

The rule of sharing: every server first gets what its spec asks for; beyond that, all of them get KV
caches of the same number of tokens per request of `workload.concurrency`, as many as fit. Each has the
smallest fraction that gives this, in thousandths. Servers start in the order given, one after the
other: a warm-up measures what is free at that moment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tgi_advisor import search, verdict
from tgi_advisor.errors import Place, Problem, SpecError
from tgi_advisor.estimate import defaults, underload, warmup
from tgi_advisor.estimate.parts import Part
from tgi_advisor.estimate.warmup import Base, Warmup
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts.known import Facts
from tgi_advisor.limits import Limits
from tgi_advisor.plan import GpuShares, Packing, Share
from tgi_advisor.search import Found
from tgi_advisor.spec.records import GpuSpec, Spec
from tgi_advisor.units import human, thousands

STEPS = 1000
"""Memory fractions are tried in thousandths."""


class Decided(NamedTuple):
    """One server of a packing."""

    spec: Spec
    """The spec with the memory fraction, `in_use`, shard count, port and name it starts with."""
    facts: Facts
    """What is true of it."""
    found: Found
    """Its limits and the verdict on them."""


class Packed(NamedTuple):
    """Several servers planned together."""

    packing: Packing
    """Who takes what of which GPU."""
    servers: tuple[Decided, ...]
    """The servers in the order they start."""


def pack(specs: Sequence[Spec], facts: Sequence[Facts]) -> Packed:
    """Plan servers that run on one machine at the same time, started in this order.

    Servers whose devices are not shared are planned as if they were alone. SpecError when names or ports written in
    the specs clash, or when the specs contradict each other about a GPU.
    """
    raise NotImplementedError
