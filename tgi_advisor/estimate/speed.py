"""How fast it will be: what physics forbids, always; an estimate, where public measurements support one.

A decode step reads the weights once and the KV cache of every request in the batch, so that no server makes more
than `requests / ((weights + requests x context x KV) / bandwidth)` tokens a second. What a server reaches is that
with shares of the GPU's figures (`facts/speed.yaml`), and what launches, reductions and the router add.

Of a mixture, a step reads the experts that one of its tokens is sent to: of tokens that choose `k` of `E` evenly,
`1 - (1 - k/E) ** tokens` of them are expected. Of a request with a sliding window, a layer reads the window at most
(`windows.py`). With speculation a step makes up to `1 + speculate` tokens of each request.
"""

import math
from functools import lru_cache
from typing import NamedTuple

from tgi_advisor.estimate import weights, windows
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.estimate.replay.peaks import KEPT
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.warmup import Base
from tgi_advisor.facts import families
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
    """Tokens per second that no server exceeds with so many in the batch; None where the bandwidth is not known.

    With every token accepted that is speculated. Of mixtures, with experts drawn evenly."""
    tokens: Figure | None
    """Tokens per second of the whole server; None where nothing supports an estimate."""
    first: Figure | None
    """Seconds to the first token of a typical prompt with nobody else there."""
    why_not: str
    """Why there is no estimate; empty where there is one."""
    note: str = ""
    """What the release alone decides, and what the bound is counted with; empty for nothing."""

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
    """Bytes of weights that every step reads: all but a mixture's experts."""
    experts: float
    """Bytes of all experts of a mixture; 0 in a dense model."""
    drawn: float
    """The share of the experts that one token runs through; 1 in a dense model."""
    flops: float
    """Floating point operations for one token."""

    def touched(self, tokens: float) -> float:
        """The share of the experts that a step of so many tokens is expected to read, drawn evenly."""
        return float(1 - (1 - self.drawn) ** tokens)

    def read(self, tokens: float) -> float:
        """Bytes of weights that a step of so many tokens reads."""
        return self.weights + self.touched(tokens) * self.experts if self.experts else self.weights


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
    cache, made = cache_of(here, request.prompt, request.answer), together * (1 + setting.speculate)
    bound = made / ((work.read(made) + together * cache) / gpu.bandwidth) if gpu.bandwidth else None
    measured = matching(setting.facts.speed, gpu.name, setting.num_shard, setting.quantize, kv_cache(setting))
    known = constants() if measured is None else measured.over(constants())
    band = _band(setting, known) if measured is None else MEASURED
    why_not = _why_not(setting, measured, together) or (
        "" if band else f"no measurement supports one on {setting.num_shard} GPUs"
    )
    note = "; ".join(filter(None, (_counted_with(setting, work, made), _without_graphs(here, known))))
    if band is None or why_not or not gpu.bandwidth or not gpu.fp16_tflops:
        return Speed(together, saturates, bound, None, None, why_not or "the card's speed is not known", note)
    server = Server(here, known, work)
    most = math.inf if bound is None else bound
    first = _first(server, request.prompt, known, measured)
    if setting.chunking and (together == 1 or measured is None or not measured.chunking):
        alone = server.step(1, cache)
        tokens = Figure(1 / alone, band.factor, band.label, most) if together == 1 else None
        why = "" if tokens else "this release mixes prefills into decoding, and no public measurement has that"
        return Speed(together, saturates, bound, tokens, first, why, note)
    answer = request.answer
    life = (answer - 1) * server.step(together, cache) + together * server.prefill(request.prompt)
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

    def read(self, together: int | float, cache: float) -> float:
        """Bytes a decode step of a batch reads on one GPU: the weights, and `cache` of every request's KV cache."""
        return self.work.read(together) + together * cache

    def prompt_flops(self, tokens: float) -> float:
        """Operations of the prefill of one prompt on one GPU, attention to itself included."""
        g = self.here.geometry
        return tokens * self.work.flops + 4 * g.layers * windows.seen(self.here.setting).pairs(tokens) * g.query

    def launched(self, together: float) -> bool:
        """Whether a batch is too large for the CUDA graphs, so that the layers are launched one after the other."""
        return together > max(self.here.setting.graph_sizes, default=0)

    def step(self, together: int, cache: float, tokens: float | None = None) -> float:
        """Seconds of one decode step of a batch, each request of which has so many bytes of KV cache to read.

        The weights are those that so many `tokens` read: one for each request.
        """
        read = self.work.read(together if tokens is None else tokens) + together * cache
        reads = read / (self.bandwidth * self._known.bandwidth)
        computes = together * self.work.flops / (self.peak * self._known.compute)
        launches = self.here.geometry.layers * self._known.host if self.launched(together) else 0.0
        return max(reads, computes, launches) + self.reductions(together) + self._known.step

    def prefill(self, tokens: int, *, alone: bool = False) -> float:
        """Seconds of the prefill of one prompt, among others or alone."""
        reached = self._known.first if alone else self._known.compute
        computes = self.prompt_flops(tokens) / (self.peak * reached)
        return max(computes + self.reductions(tokens), self.step(1, cache_of(self.here, tokens, 0), tokens))

    def reductions(self, tokens: float) -> float:
        """Seconds in which the shards add up what each has computed for so many tokens."""
        setting, g = self.here.setting, self.here.geometry
        if setting.num_shard == 1:
            return 0.0
        link = self._known.link(setting.facts.gpu)
        assert link is not None
        moved = tokens * g.hidden * 2 * 2 * (setting.num_shard - 1) / setting.num_shard
        return 2 * g.layers * (link.seconds + moved / link.bytes)


def _first(server: Server, prompt: int, known: Constants, measured: Calibration | None) -> Figure | None:
    """Seconds to the first token with nobody else there; where only decoding was measured, as far as rows support."""
    setting = server.here.setting
    band = _band(setting, known)
    if measured is not None and measured.compute is not None:
        band = MEASURED
    elif _why_not(setting, None, 1):
        band = None
    return None if band is None else Figure(server.prefill(prompt, alone=True), band.factor, band.label)


def _band(setting: Setting, known: Constants) -> Band | None:
    """How far an estimate of a launch holds by public rows, which are of TGI's own classes; None where by none."""
    own = setting.family.served_by != "transformers"
    return known.band(setting.num_shard, setting.facts.gpu.name if own else "")


def cache_of(here: Base, prompt: float, answer: float) -> float:
    """Bytes of one request's KV cache that a decode step reads on one GPU, on average over its answer."""
    return here.geometry.kv_bytes_per_token * windows.seen(here.setting).mean(prompt, answer)


def kv_cache(setting: Setting) -> str | None:
    """`fp8` where the KV cache has 8 bits, as `Calibration.kv_cache` says it."""
    return "fp8" if setting.kv_dtype.startswith("fp8") else None


def _counted_with(setting: Setting, work: Work, made: int) -> str:
    """What has to hold for the bound to be one that no server exceeds; empty where that is arithmetic."""
    said = []
    if setting.speculate:
        said.append(f"up to {1 + setting.speculate} tokens a step are counted, as if all that is speculated were right")
    if work.experts and made > 1:
        share = f"{100 * work.touched(made):.0f} %"
        said.append(f"experts are taken to be drawn evenly, so that a step of {made:,} tokens reads {share} of them")
    return "; ".join(said)


def _without_graphs(here: Base, known: Constants) -> str:
    """What it costs to run without CUDA graphs, whatever the GPU, and what would capture them."""
    setting, layers = here.setting, here.geometry.layers
    if setting.facts.gpu.system != "cuda" or setting.graph_sizes:
        return ""
    if not setting.family.paged and setting.family.served_by != "mamba":
        return "TGI captures no CUDA graphs for the padded class that serves it"
    return (
        f"without CUDA graphs a step takes about {1000 * layers * known.host:.0f} ms on any GPU, "
        f"{1000 * known.host:g} ms for each of {layers} layers: {_remedy(setting)}"
    )


def _remedy(setting: Setting) -> str:
    """What keeps a launch of a class that has CUDA graphs from capturing them."""
    release, stated = setting.facts.release, setting.flags.get("cuda-graphs")
    if setting.quantize == "bitsandbytes":
        return "TGI captures none with bitsandbytes"
    if release.cuda_graphs == "none":
        return "a release that captures them is the speed-up"
    if release.cuda_graphs == "opt_in":
        return "--enable-cuda-graphs is the speed-up, or a release that captures them by itself"
    sizes = stated if isinstance(stated, tuple) else release.graph_sizes
    if not any(isinstance(size, int) and size > 0 for size in sizes):
        return "TGI captures them unless --cuda-graphs 0 says not to"
    if any(size > setting.speculate for size in sizes):
        return f"this release captures none with {setting.forwarded_quantize or setting.quantize}"
    return f"no size that is captured is larger than the {setting.speculate} tokens that are speculated"


def _why_not(setting: Setting, measured: Calibration | None, together: int) -> str:
    """What keeps measurements, public ones or the user's own, from supporting an estimate of so many requests."""
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
    if families.experts(setting.facts.model):
        return "no measurement supports one of a mixture of experts"
    if kv_cache(setting) and measured is None:
        return "no measurement supports one of an FP8 KV cache"
    if setting.family.served_by == "transformers" and together > 1:
        return "no measurement supports one of several requests in transformers' classes"
    return ""


@lru_cache(maxsize=KEPT)
def _work(launch: Alike) -> Work:
    """The weights a decode step reads, and what it computes for a token."""
    setting = launch.setting
    read = experts = elements = 0.0
    head = False
    drawn = _drawn(setting)
    for one in weights.held(setting):
        if one.kind == "embedding" or "vision" in one.group.name:
            continue
        routed = drawn < 1 and any(name in one.group.name for name in EXPERTS)
        share = drawn if routed else 1.0
        if routed:
            experts += one.bytes
        else:
            read += one.bytes
        elements += share * one.group.elements * one.times / (setting.num_shard if one.kind != "replicated" else 1)
        head = head or one.kind == "head"
    if not head:
        table = weights.tied_head(setting)
        read += table
        elements += table / 2
    return Work(read, experts, drawn, 2 * elements)


EXPERTS = (".experts.", ".block_sparse_moe.input_linear.", ".block_sparse_moe.output_linear.")
"""What stands in the names of a mixture's routed experts; the last two are GraniteMoe's, all in one tensor."""


def _drawn(setting: Setting) -> float:
    """The share of a mixture's experts that one token runs through; 1 in a dense model."""
    every = families.experts(setting.facts.model)
    return min(1.0, max(1, families.experts_per_token(setting.facts.model)) / every) if every else 1.0
