"""Speculation heads: what loading them leaves, and what they make of the last rows of a pass.

Read at v3.3.7 under server/text_generation_server: layers/speculative.py:14-55, layers/medusa.py and layers/mlp.py; at
v1.4.5, utils/layers.py:431-490, where the output matrix is loaded before them and no number of rows is too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.heads import Made
from tgi_advisor.estimate.replay.passes import Pass
from tgi_advisor.facts.heads import JOINED_SINCE
from tgi_advisor.facts.release import Version

Step = Callable[[Allocator], None]
"""What one module does to the allocator when it is made."""
HALF = ELEMENT
"""Bytes of an element of a state."""
SINGLE = 4
"""Bytes of an element of the probabilities an MLP speculator hands out, which are of PyTorch's default type."""


def load(made: Made, version: Version, joined_on_cpu: bool, output: Step) -> Iterator[Step]:
    """The steps of the heads and of the model's own output matrix, in the release's order."""
    if version < JOINED_SINCE:
        yield output
    if made.kind == "medusa_joined":
        yield _joined(made, joined_on_cpu, output)
        return
    for kind, row, rows in made.tensors:
        yield _embedding(row * HALF, rows) if kind == "embedding" else _kept(row * rows * HALF)
    if version >= JOINED_SINCE:
        yield output


def _kept(size: int) -> Step:
    def step(memory: Allocator) -> None:
        memory.new(size)

    return step


def _embedding(row: int, rows: int) -> Step:
    """A table that is read, copied with the row masked tokens point at, and dropped."""

    def step(memory: Allocator) -> None:
        read = memory.new(row * rows)
        memory.new(row * (rows + 1))
        memory.release(read)

    return step


def _joined(made: Made, joined_on_cpu: bool, output: Step) -> Step:
    """The blocks of all heads as one matrix. What the first class had loaded of its first head lives on meanwhile.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/speculative.py#L34-L38
    """
    (_, row, rows), _ = made.tensors
    size = row * rows * HALF

    def step(memory: Allocator) -> None:
        tried = [memory.new(one) for _ in range(made.blocks) for one in (made.inner**2 * HALF, made.inner * HALF)]
        if joined_on_cpu:
            memory.new(size)
        else:
            pieces = [memory.new(size // made.number) for _ in range(made.number)]
            memory.new(size)
            memory.release(*pieces)
        pieces = [memory.new(rows * HALF // made.number) for _ in range(made.number)]
        memory.new(rows * HALF)
        memory.release(*pieces)
        output(memory)
        memory.release(*tried)

    return step


def guess(run: Pass, made: Made, output: Callable[[int], Block]) -> list[Block]:
    """What a pass over `run.tokens` rows leaves for the sampling: logits, and those of the guesses.

    `output` makes logits of so many rows by the model's own output matrix.
    """
    if made.kind == "medusa_joined":
        return [_all_at_once(run, made, output)]
    logits = output(run.tokens)
    return [logits, _medusa(run, made) if made.kind == "medusa" else _mlp(run, made)]


def _medusa(run: Pass, made: Made) -> Block:
    """Each head by itself: its blocks, its logits; then all logits in one."""
    outs = []
    for _ in range(made.number):
        state: Block | None = None
        for _ in range(made.blocks):
            linear = run.product(made.inner, bias=True)
            activated = run.new(made.inner)
            run.drop(linear)
            summed = run.new(made.inner)
            run.drop(activated, state)
            state = summed
        outs.append(run.product(made.vocabulary))
        run.drop(state)
    stacked = run.new(made.number * made.vocabulary)
    run.drop(*outs)
    return stacked


def _all_at_once(run: Pass, made: Made, output: Callable[[int], Block]) -> Block:
    """The blocks of all heads in one product, gathered; then the logits of the state and of all that was made of it."""
    (_, _, rows), _ = made.tensors
    linear = run.product(rows, bias=True)
    activated = run.new(rows)
    run.drop(linear)
    summed = run.new(rows)
    others = [run.new(rows) for _ in range(made.number * made.inner // rows)]
    if len(others) == 1:
        run.drop(others.pop())  # a group of one hands on what it was given
    gathered = run.new(made.number * made.inner)
    run.drop(*others)
    stacked = run.new((made.number + 1) * made.inner)
    logits = output(run.tokens * (made.number + 1))
    run.drop(activated, summed, gathered, stacked)
    return logits


def _mlp(run: Pass, made: Made) -> Block:
    """One guess after the other, each from the state and the embedding of the one before; probabilities of all."""
    inner, vocabulary = made.inner, made.vocabulary
    state = None
    if made.scaled:
        squared = run.new(run.shapes.g.hidden)
        run.drop(squared)
        normed = run.new(run.shapes.g.hidden)
        state = run.new(run.shapes.g.hidden)
        run.drop(normed)
    every = run.memory.new(run.tokens * made.number * vocabulary * SINGLE)
    chosen = embedded = None
    for _ in range(made.number):
        fresh = run.new(inner)
        run.drop(embedded)
        embedded = fresh
        projected = run.product(inner)
        scaled = run.new(inner)
        run.drop(projected)
        summed = run.new(inner)
        run.drop(scaled, state)
        squared = run.new(inner)
        run.drop(squared)
        normed, weighted = run.new(inner), run.new(inner)
        shifted = run.new(inner)
        run.drop(weighted, normed)
        state = run.new(inner)
        run.drop(shifted, summed)
        logits = run.product(vocabulary)
        probable = run.new(vocabulary)
        run.drop(logits, chosen)
        chosen = probable
        run.drop(run.new(vocabulary))
    run.drop(chosen, embedded, state)
    return every
