"""CUDA graphs: what capturing them reserves, and what the driver keeps for them.

They are captured after the KV cache is allocated, so nothing of it enters TGI's sum; it has to fit in what the sum
leaves over. The largest batch comes first, since 2.1.0. Each pass that is captured allocates in a pool of its own,
which the others share: what one pass has dropped, the next one uses, but its logits stay, and so does the workspace
cuBLAS takes for the stream that captures. Outside the pool stay the inputs (block tables above all) and a buffer of
flashinfer's for each size.

Read at v3.3.7, server/text_generation_server/models/flash_causal_lm.py:1358-1505 and :1649-1677, at v2.2.0,
:1026-1080, and at PyTorch v2.7.0, torch/cuda/graphs.py:150-190 and aten/src/ATen/cuda/CUDAGeneratorImpl.cpp (the
generator's two tensors, which take a segment of the capturing stream).
"""

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import NamedTuple

from tgi_advisor.estimate.allocator import MIDDLE, Allocator, Block, State, segment
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.geometry import Geometry
from tgi_advisor.estimate.replay import fallback, layers, sampling, shapes
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.estimate.replay.shapes import Shapes
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import calibration
from tgi_advisor.units import MiB

WRAPPER = 8 * MiB
"""flashinfer's integer workspace, one for each size (layers/attention/flashinfer.py@v3.3.7:158-195)."""
LARGEST_FIRST = (2, 1, 0)
"""Since when the largest batch is captured first (server/text_generation_server/models/globals.py@v2.1.0:20-23)."""
GENERATOR = 2 * MiB
"""The segment of the random generator's tensors."""
IN_PLACE = 2
"""Kernels of a layer that make no tensor: turning queries and keys, and writing the KV cache."""
REDUCTIONS = 2
"""Collectives of a layer on several shards: behind attention and behind the feed-forward block."""
PARTITION = 512
"""Tokens of one part where paged attention splits a sequence (layers/attention/cuda.py@v2.2.0:22)."""
LONG = 8192
"""Tokens above which it always does."""
MANY = 512
"""Rows, of a batch times its heads, up to which it does so with shorter ones."""


class Captured(NamedTuple):
    """What no token limit changes of the memory that CUDA graphs take, in bytes by cause."""

    wrappers: int
    """flashinfer's buffers; 0 with another attention."""
    pool: int
    """Segments of the pool: one pass, the logits of every size, cuBLAS' workspace, the random generator's."""
    driver: int
    """What the driver keeps for the kernels of all graphs, from version 550 (CUDA 12.4) on."""
    old_driver: int
    """The same before version 550."""
    kernels: int
    """Kernels in all graphs together."""


class _Step(Pass):
    """A pass over one token of each request, most of whose tensors share small segments."""

    def __init__(self, shapes: Shapes, memory: Allocator, tokens: int) -> None:
        super().__init__(shapes, memory, tokens)
        self.layers = self.made = self.before = self.of_layer = 0

    @property
    def tensors(self) -> int:
        """Tensors made by all layers: those that are not replayed are like the last."""
        return self.made + self.of_layer * (self.shapes.g.layers - self.layers)

    def new(self, width: int) -> Block:
        self.made += 1
        return super().new(width)

    def beside(self, tokens: int) -> Pass:
        return self if tokens == self.tokens and self.shapes.kernel == "plain" else super().beside(tokens)

    def play(
        self, _: Hashable, part: Callable[..., tuple[Block | None, ...]], *given: Block | None
    ) -> tuple[Block | None, ...]:
        return part(self, *given)  # whose tensors are counted

    def turn(self, *_: Block | None) -> tuple[object, ...]:
        self.layers += 1
        self.of_layer, self.before = self.made - self.before, self.made
        return self.memory.sizes(small=True), self.memory.sizes()


def capture(
    setting: Setting, g: Geometry, after_loading: State | None = None, widths: Shapes | None = None
) -> Captured | None:
    """What capturing takes for a launch whose sequence is `known`; None where no graph is captured.

    flashinfer's buffers fill gaps that loading left: without `after_loading` they may come out 60 MiB too large.
    `widths` are the launch's, where they have been read.
    """
    sizes, release = setting.graph_sizes, setting.facts.release.version
    if not sizes:
        return None
    if release >= LARGEST_FIRST:
        sizes = tuple(sorted(sizes, reverse=True))
    transformers = setting.family.served_by == "transformers"
    pool, kernels = _pool(widths or shapes.of(setting, g), sizes, transformers)
    each, old = (calibration.find(name, setting.facts.gpu, release) for name in ("graph_kernel", "graph_kernel_old"))
    return Captured(
        wrappers=_wrappers(len(sizes), after_loading) if setting.attention == "flashinfer" else 0,
        pool=pool + GENERATOR,
        driver=kernels * each.bytes if each else 0,
        old_driver=kernels * old.bytes if old else 0,
        kernels=kernels,
    )


def needed(setting: Setting, g: Geometry, captured: Captured, total_tokens: int, request_blocks: int) -> int:
    """Bytes PyTorch allocates for all graphs, block tables included; `request_blocks` are one warm-up request's."""
    sizes = setting.graph_sizes
    tables = _segments(_tables(setting, sizes, total_tokens, request_blocks))
    split = _split(g, sizes, total_tokens) if setting.attention == "paged" else 0
    return captured.wrappers + captured.pool + tables + split


@cache
def _pool(shapes: Shapes, sizes: tuple[int, ...], transformers: bool) -> tuple[int, int]:
    """(bytes of the pool, kernels captured into it) for sizes in the order they are captured in."""
    memory, workspaces, kernels = Allocator(), list[Block](), 0
    largest = of_size = 0
    across = IN_PLACE + (REDUCTIONS if shapes.g.vocabulary_shard != shapes.g.vocabulary else 0)
    for size in sizes:
        run = _Step(shapes, memory, size)
        run.workspaces = workspaces
        alive: tuple[Block, ...] = ()
        if size > largest:  # the layers of a smaller one find room in what those of a larger have dropped
            alive = fallback.forward(run) if transformers else layers.forward(run)
            largest, of_size = size, run.tensors + shapes.g.layers * across
        before = run.made
        sampling.with_guesses(run, size)
        run.drop(*alive)
        kernels += of_size + (run.made - before if shapes.heads else 0)
    return memory.reserved, kernels


@cache
def _wrappers(number: int, after_loading: State | None) -> int:
    """Bytes reserved for flashinfer's buffers."""
    memory = Allocator(after_loading)
    before = memory.reserved
    for _ in range(number):
        memory.new(WRAPPER)
    return memory.reserved - before


def _tables(setting: Setting, sizes: Sequence[int], total_tokens: int, request_blocks: int) -> list[int]:
    """Bytes of the block tables: of every size, or (3.0.0 on) of the largest, which the others look into."""
    kind = setting.facts.release.graph_buffers
    width = request_blocks if kind == "per_size_request" else total_tokens
    rows = (max(sizes),) if kind == "shared_total" else sizes
    return [size * width * 4 for size in rows]


def _split(g: Geometry, sizes: Sequence[int], total_tokens: int) -> int:
    """Bytes for the parts of long sequences that paged attention works on at once; the pool has room for short ones.

    https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/layers/attention/cuda.py#L108-L160
    """
    parts = -(-total_tokens // PARTITION)
    split = [size for size in sizes if total_tokens > LONG or (parts > 1 and size * g.heads <= MANY)]
    widest = max((size * g.query * parts * ELEMENT for size in split), default=0)
    return _segments([widest]) if widest > MIDDLE else 0


def _segments(sizes: Sequence[int]) -> int:
    """Bytes reserved for tensors that stay."""
    if len(sizes) == 1:
        return segment(sizes[0])
    memory = Allocator()
    for size in sizes:
        memory.new(size)
    return memory.reserved
