"""How fast it will be: what physics forbids, always; an estimate, where public measurements support one.

A decode step reads the weights once and the KV cache of every request in the batch, so that no server makes more
than `requests / ((weights + requests x context x KV) / bandwidth)` tokens a second. What a server reaches is that
with shares of the GPU's figures (`facts/speed.yaml`), and what launches, reductions and the router add.
"""

import math
from functools import lru_cache
from typing import NamedTuple

from tgi_advisor.estimate import weights
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.estimate.replay.peaks import KEPT
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts.speed import Band, Calibration, Constants, constants, matching
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
    """`estimated`, `rough`, or `calibrated` on a server of the user's own."""
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


MEASURED = Band(0, 1.5, "calibrated")
"""Of a server like one of the user's own: with constants fitted on its card, 96 % of the A10G's rows are within it."""
MIXED = 2.0
"""The factor for several requests where prefills are mixed into decoding, which no public row has."""


def of(here: Base, budget: int | None, users: int, request: Request) -> Speed:
    """How fast a launch is that has a KV cache of `budget` tokens, for so many users with such requests at once."""
    setting, gpu = here.setting, here.setting.facts.gpu
    saturates = max(1, (budget or 0) // request.tokens)
    together = min(users, saturates)
    work = _work(Alike(setting))
    context = request.prompt + request.answer / 2
    cache = here.geometry.kv_bytes_per_token * context
    bound = together / ((work.weights + together * cache) / gpu.bandwidth) if gpu.bandwidth else None
    measured = matching(setting.facts.speed, gpu.name, setting.num_shard, setting.quantize)
    known = constants() if measured is None else measured.over(constants())
    band = known.band(setting.num_shard) if measured is None else MEASURED
    why_not = _why_not(setting, measured) or (
        "" if band else f"no measurement supports one on {setting.num_shard} GPUs"
    )
    note = _without_graphs(here, known)
    if band is None or why_not or not gpu.bandwidth or not gpu.fp16_tflops:
        return Speed(together, saturates, bound, None, None, why_not or "the card's speed is not known", note)
    server = Server(here, known, work)
    most = math.inf if bound is None else bound
    first = _first(server, request.prompt, known, measured)
    if setting.chunking and (together == 1 or measured is None or not measured.chunking):
        alone = server.step(1, context)
        tokens = Figure(1 / alone, band.factor, band.label, most) if together == 1 else None
        why = "" if tokens else "this release mixes prefills into decoding, and no public measurement has that"
        return Speed(together, saturates, bound, tokens, first, why, note)
    answer = request.answer
    life = (answer - 1) * server.step(together, context) + together * server.prefill(request.prompt)
    guessed = setting.chunking or (measured is not None and measured.compute is None)
    factor = MIXED if guessed else band.factor
    tokens = Figure(together * answer / life, factor, band.label, most)
    return Speed(together, saturates, bound, tokens, first, "", note)


class Server:
    """The roofline of one launch, with the shares of its card's figures that are reached."""

    def __init__(self, here: Base, known: Constants, work: Work | None = None) -> None:
        gpu = here.setting.facts.gpu
        assert gpu.bandwidth
        assert gpu.fp16_tflops
        self.here, self._known = here, known
        self.work = work or _work(Alike(here.setting))
        """What one decode step moves and computes on one GPU."""
        self.bandwidth = gpu.bandwidth
        """Bytes per second of the card's memory."""
        self.peak = gpu.fp16_tflops * 1e12
        """Dense 16-bit operations per second of the card."""

    def read(self, together: int | float, context: float) -> float:
        """Bytes a decode step of a batch reads on one GPU: the weights, and every request's KV cache."""
        return self.work.weights + together * context * self.here.geometry.kv_bytes_per_token

    def prompt_flops(self, tokens: float) -> float:
        """Operations of the prefill of one prompt on one GPU, attention to itself included."""
        g = self.here.geometry
        return tokens * self.work.flops + 2 * g.layers * tokens * tokens * g.query

    def launched(self, together: float) -> bool:
        """Whether a batch is too large for the CUDA graphs, so that the layers are launched one after the other."""
        return together > max(self.here.setting.graph_sizes, default=0)

    def step(self, together: int, context: float) -> float:
        """Seconds of one decode step of a batch."""
        reads = self.read(together, context) / (self.bandwidth * self._known.bandwidth)
        computes = together * self.work.flops / (self.peak * self._known.compute)
        launches = self.here.geometry.layers * self._known.host if self.launched(together) else 0.0
        return max(reads, computes, launches) + self.reductions(together) + self._known.step

    def prefill(self, tokens: int, *, alone: bool = False) -> float:
        """Seconds of the prefill of one prompt, among others or alone."""
        reached = self._known.first if alone else self._known.compute
        computes = self.prompt_flops(tokens) / (self.peak * reached)
        return max(computes + self.reductions(tokens), self.step(1, tokens))

    def reductions(self, tokens: float) -> float:
        """Seconds in which the shards add up what each has computed for so many tokens."""
        setting, g = self.here.setting, self.here.geometry
        if setting.num_shard == 1:
            return 0.0
        link = self._known.links.get(setting.facts.gpu.link) or self._known.links["nvlink"]  # AMD's links are as fast
        moved = tokens * g.hidden * 2 * 2 * (setting.num_shard - 1) / setting.num_shard
        return 2 * g.layers * (link.seconds + moved / link.bytes)


def _first(server: Server, prompt: int, known: Constants, measured: Calibration | None) -> Figure | None:
    """Seconds to the first token with nobody else there; where only decoding was measured, as far as rows support."""
    setting = server.here.setting
    band = known.band(setting.num_shard)
    if measured is not None and measured.compute is not None:
        band = MEASURED
    elif _why_not(setting, None):
        band = None
    return None if band is None else Figure(server.prefill(prompt, alone=True), band.factor, band.label)


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


def _why_not(setting: Setting, measured: Calibration | None) -> str:
    """What keeps measurements, public ones or the user's own, from supporting an estimate."""
    system = setting.facts.gpu.system
    if system != "cuda" and (measured is None or system != "rocm"):
        return f"no measurement supports one on {system}"
    if not setting.graph_sizes and (measured is None or measured.host is None):
        return "no measurement supports one without CUDA graphs"
    if setting.quantize and measured is None:
        return f"no measurement supports one of the kernels of {setting.quantize}"
    if setting.speculate:
        return "no measurement supports one with speculation"
    if not setting.family.paged:
        return "no measurement supports one of a class without a block KV cache"
    return ""


@lru_cache(maxsize=KEPT)
def _work(launch: Alike) -> Work:
    """The weights a decode step reads, and what it computes for a token."""
    setting = launch.setting
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
