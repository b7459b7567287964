"""How fast it will be: what physics forbids, always; an estimate, where public measurements support one.

A decode step reads the weights once and the KV cache of every request in the batch, so that no server makes more
than `requests / ((weights + requests x context x KV) / bandwidth)` tokens a second. What a server reaches is that
with shares of the GPU's figures (`facts/speed.yaml`), and what launches, reductions and the router add.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tgi_advisor.estimate import weights
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts.speed import Constants, constants
from tgi_advisor.limits import Limits


class Request(NamedTuple):
    """A request as it is usually."""

    prompt: int
    """Its tokens."""
    answer: int
    """Tokens of its answer."""

    @property
    def tokens(self) -> int:
        """Tokens of the KV cache it takes from its start on: TGI reserves its prompt and answer."""
        return self.prompt + self.answer


class Figure(NamedTuple):
    """A figure that is estimated."""

    value: float
    """The middle."""
    factor: float
    """It holds within this factor, either way."""
    label: str
    """`estimated`, or `rough`."""
    most: float = math.inf
    """What physics does not let it exceed."""

    @property
    def low(self) -> float:
        """The lower end of its band."""
        return self.value / self.factor

    @property
    def high(self) -> float:
        """The upper end of its band."""
        return min(self.most, self.value * self.factor)


class Speed(NamedTuple):
    """How fast one server is under a load."""

    together: int
    """Requests in the batch: the users, as far as the KV cache holds them."""
    saturates: int
    """Requests at which the KV cache is full: more users wait, and throughput no longer grows."""
    bound: float | None
    """Tokens per second that no server exceeds with so many in the batch; None where the bandwidth is not known."""
    tokens: Figure | None
    """Tokens per second of the whole server; None where nothing supports an estimate."""
    first: Figure | None
    """Seconds to the first token of a typical prompt with nobody else there."""
    why_not: str
    """Why there is no estimate; empty where there is one."""
    note: str = ""
    """What the release alone decides; empty for nothing."""

    @property
    def most(self) -> float | None:
        """Tokens per second to count on: the estimate, else what is not exceeded; None where neither is known."""
        return self.tokens.value if self.tokens else self.bound

    def answered(self, request: Request) -> float | None:
        """Seconds from a request to the end of its answer, with the batch full; None where nothing is known.

        Where only the bound is known, it takes at least so long.
        """
        return None if not self.most else self.together * request.answer / self.most


class Served(NamedTuple):
    """How fast a server is with the longest requests it takes."""

    request: Request
    """The request: max_input_tokens, and what max_total_tokens leaves for its answer."""
    alone: Speed
    """With one of them."""
    full: Speed | None
    """With as many as its KV cache holds; None where that is one, or where none is reserved."""


def served(here: Base, limits: Limits, requests: int | None) -> Served | None:
    """How fast a server with these limits is; None where they are not all known. `requests` are what it holds."""
    prompt, total = limits.max_input_tokens, limits.max_total_tokens
    if not prompt or not total or total <= prompt:
        return None
    request, budget = Request(prompt, total - prompt), limits.max_batch_total_tokens
    full = of(here, budget, requests, request) if requests is not None and requests > 1 else None
    return Served(request, of(here, budget, 1, request), full)


def unsupported(found: Served, why: str) -> Served:
    """The same without estimates, and the reason: only what is not exceeded is left."""

    def bare(one: Speed) -> Speed:
        return one._replace(tokens=None, first=None, why_not=why)

    return found._replace(alone=bare(found.alone), full=None if found.full is None else bare(found.full))


class Work(NamedTuple):
    """What one decode step moves and computes on one GPU."""

    weights: float
    """Bytes of weights that are read, of mixtures those of one token's experts."""
    flops: float
    """Floating point operations for one token."""


def of(here: Base, budget: int | None, users: int, request: Request, known: Constants | None = None) -> Speed:
    """How fast a launch is that has a KV cache of `budget` tokens, for so many users with such requests at once."""
    setting, gpu = here.setting, here.setting.facts.gpu
    saturates = max(1, (budget or 0) // request.tokens)
    together = min(users, saturates)
    work = _work(setting)
    context = request.prompt + request.answer / 2
    cache = here.geometry.kv_bytes_per_token * context
    bound = together / ((work.weights + together * cache) / gpu.bandwidth) if gpu.bandwidth else None
    known = known or constants()
    band = known.band(setting.num_shard)
    why_not = _why_not(setting) or ("" if band else f"no measurement supports one on {setting.num_shard} GPUs")
    note = _without_graphs(here, known)
    if band is None or why_not or not gpu.bandwidth or not gpu.fp16_tflops:
        return Speed(together, saturates, bound, None, None, why_not or "the card's speed is not known", note)
    server = _Server(here, work, known, gpu.bandwidth, gpu.fp16_tflops * 1e12)
    most = math.inf if bound is None else bound
    first = Figure(server.prefill(request.prompt, alone=True), band.factor, band.label)
    if setting.chunking:
        alone = server.step(1, context)
        tokens = Figure(1 / alone, band.factor, band.label, most) if together == 1 else None
        why = "" if tokens else "this release mixes prefills into decoding, and no public measurement has that"
        return Speed(together, saturates, bound, tokens, first, why, note)
    answer = request.answer
    life = (answer - 1) * server.step(together, context) + together * server.prefill(request.prompt)
    tokens = Figure(together * answer / life, band.factor, band.label, most)
    return Speed(together, saturates, bound, tokens, first, "", note)


class _Server:
    """The roofline of one launch."""

    def __init__(self, here: Base, work: Work, known: Constants, bandwidth: float, flops: float) -> None:
        self._here, self._work, self._known = here, work, known
        self._bandwidth, self._peak = bandwidth * known.bandwidth, flops

    def step(self, together: int, context: float) -> float:
        """Seconds of one decode step of a batch."""
        cache = self._here.geometry.kv_bytes_per_token
        reads = (self._work.weights + together * context * cache) / self._bandwidth
        computes = together * self._work.flops / (self._peak * self._known.compute)
        return max(reads, computes, self._launches(together)) + self._reductions(together) + self._known.step

    def prefill(self, tokens: int, *, alone: bool = False) -> float:
        """Seconds of the prefill of one prompt, among others or alone."""
        g = self._here.geometry
        attention = 2 * g.layers * tokens * tokens * g.query
        reached = self._known.first if alone else self._known.compute
        computes = (tokens * self._work.flops + attention) / (self._peak * reached)
        return max(computes + self._reductions(tokens), self.step(1, tokens))

    def _launches(self, together: int) -> float:
        captured = max(self._here.setting.graph_sizes, default=0)
        return 0.0 if together <= captured else self._here.geometry.layers * self._known.host

    def _reductions(self, tokens: int) -> float:
        setting, g = self._here.setting, self._here.geometry
        if setting.num_shard == 1:
            return 0.0
        link = self._known.links[setting.facts.gpu.link]
        moved = tokens * g.hidden * 2 * 2 * (setting.num_shard - 1) / setting.num_shard
        return 2 * g.layers * (link.seconds + moved / link.bytes)


def _captures(here: Base) -> bool:
    """Whether decoding runs as CUDA graphs."""
    return bool(here.setting.graph_sizes)


def _without_graphs(here: Base, known: Constants) -> str:
    """What a release without CUDA graphs costs, whatever the GPU."""
    if here.setting.facts.gpu.system != "cuda" or _captures(here):
        return ""
    layers = here.geometry.layers
    return (
        f"without CUDA graphs a step takes about {1000 * layers * known.host:.0f} ms on any GPU, "
        f"{1000 * known.host:g} ms for each of {layers} layers: a release that captures them is the speed-up"
    )


def _why_not(setting: Setting) -> str:
    """What keeps public measurements from supporting an estimate."""
    if setting.facts.gpu.system == "cuda" and not setting.graph_sizes:
        return "no measurement supports one without CUDA graphs"
    if setting.facts.gpu.system != "cuda":
        return f"no measurement supports one on {setting.facts.gpu.system}"
    if setting.quantize:
        return f"no measurement supports one of the kernels of {setting.quantize}"
    if setting.speculate:
        return "no measurement supports one with speculation"
    if not setting.family.paged:
        return "no measurement supports one of a class without a block KV cache"
    return ""


def _work(setting: Setting) -> Work:
    """The weights a decode step reads, and what it computes for a token."""
    read = elements = 0.0
    head = False
    experts = _experts_share(setting)
    for one in weights.held(setting):
        if one.kind == "embedding" or "vision" in one.group.name:
            continue
        share = experts if ".experts." in one.group.name else 1.0
        read += share * one.bytes
        elements += share * one.group.elements * one.times / (setting.num_shard if one.kind != "replicated" else 1)
        head = head or one.kind == "head"
    if not head:
        table = weights.tied_head(setting)
        read += table
        elements += table / 2
    return Work(read, 2 * elements)


def _experts_share(setting: Setting) -> float:
    """The share of a mixture's experts that one token runs through."""
    from tgi_advisor.facts import families

    every = families.experts(setting.facts.model)
    return families.experts_per_token(setting.facts.model) / every if every else 1.0
