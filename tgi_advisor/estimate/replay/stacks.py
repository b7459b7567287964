"""Loading the routed experts of a mixture: read one by one, into tensors that hold all of them.

Read under server/text_generation_server: layers/moe/unquantized.py:100-160, layers/moe/gptq_marlin.py:145-235 and
layers/moe/__init__.py:105-130 at v3.3.7; models/custom_modeling/flash_mixtral_modeling.py:180-215 and :280-320 at
v2.2.0, whose way flash_dbrx_modeling.py:85-115 and :355-375 still go at v3.3.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tgi_advisor.estimate import geometry
from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.replay import kernels
from tgi_advisor.estimate.replay import packed as packing
from tgi_advisor.estimate.replay.kernels import Kernel
from tgi_advisor.estimate.replay.packed import Step
from tgi_advisor.estimate.setting import Setting

SETTLED = 3
"""Experts after which the rest take turns in the same places."""


def stacked(size: int, number: int, scales: int = 0) -> Step:
    """Experts read one by one into one tensor; each is dropped when the next is there.

    Scales of fp8 weights are read in 16 bit and stacked in float32.
    """
    sizes = (size, scales // 2) if scales else (size,)

    def step(memory: Allocator) -> None:
        read = [memory.new(one) for one in sizes]
        memory.new(size * number)
        if scales:
            memory.new(scales * number)
        for _ in range(min(number, SETTLED) - 1):
            following = [memory.new(one) for one in sizes]
            memory.release(*read)
            read = following
        memory.release(*read)

    return step


def merged(gate: int, up: int, down: int, number: int) -> Step:
    """Experts read one by one into a tensor for each projection; gate and up are then joined, down is turned.

    The two that were joined are locals of the module's constructor and live until it is done.
    """

    def step(memory: Allocator) -> None:
        read = []
        for size in (gate, up):
            read.append(memory.new(size * number))
            memory.release(memory.new(size))
        memory.new((gate + up) * number)
        straight = memory.new(down * number)
        memory.release(memory.new(down))
        memory.new(down * number)
        memory.release(straight, *read)

    return step


def apart(size: int, number: int) -> Step:
    """Experts read one by one into a tensor for each projection.

    https://github.com/huggingface/text-generation-inference/blob/v1.4.5/server/text_generation_server/models/custom_modeling/flash_mixtral_modeling.py#L155-L189
    """

    def step(memory: Allocator) -> None:
        memory.new(size * number)
        memory.release(memory.new(size))

    return step


def packed(setting: Setting, kernel: Kernel, read: Sequence[Mapping[str, int]], number: int) -> Iterator[Step]:
    """Experts of quantized weights: repacked and stacked for one kernel, or a projection for each.

    `read` are the stored tensors of one expert's gate, up and down projections by kind, in bytes.
    """
    g = geometry.of(setting)
    if kernels.experts(setting) == "marlin":
        yield _repacked(setting, _read("joined", *read[:2]), g.hidden, number)
        yield _repacked(setting, _read("whole", read[2]), g.intermediate, number)
        return
    for one, inputs, outputs in zip(
        read, (g.hidden, g.hidden, g.intermediate), (g.intermediate, g.intermediate, g.hidden), strict=True
    ):
        moved: packing.Moved = "whole" if one is read[2] else "joined"
        yield from [packing.step(setting, kernel, _read(moved, one), inputs, outputs)] * number


def _read(moved: packing.Moved, *projections: Mapping[str, int]) -> packing.Read:
    sizes = {kind: [one[kind] for one in projections if one[kind]] for kind in projections[0]}
    return packing.Read(sizes, moved)


def _repacked(setting: Setting, read: packing.Read, inputs: int, number: int) -> Step:
    """Experts repacked one by one for Marlin, each part copied into one tensor."""

    def step(memory: Allocator) -> None:
        expert: list[Block] = []
        for count in range(min(number, SETTLED)):
            following = packing.repacked(setting, memory, read, inputs)
            if count == 0:
                for size in packing.kept(setting, read, inputs):
                    memory.new(size * number)
            memory.release(*expert)
            expert = following
        memory.release(*expert)

    return step
