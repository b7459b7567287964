"""What TGI allocates from the logits to the next tokens of the warm-up's requests.

The warm-up asks for everything that samples: watermark, repetition and frequency penalties, top-k, top-p and
typical-p, so that every line below runs.

Read at v3.3.7 under server/text_generation_server: utils/watermark.py:55-85, utils/logits_process.py:165-430,
utils/tokens.py:360-520, models/flash_causal_lm.py:1960-2050, layers/tensor_parallel.py:85-115; the sizes of a sort
are PyTorch's: values, 64-bit indices, a copy of each, and a scratch area.
"""

from __future__ import annotations

from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.replay import guesses
from tgi_advisor.estimate.replay.passes import Pass

SORT_SCRATCH = 885_000
"""Bytes a segmented sort takes beside ten for each element (read off PyTorch 2.7.0's allocations)."""


def logits(run: Pass, rows: int, *, slices_apart: bool = False) -> Block:
    """Logits of `rows` positions; the slices of several shards are gathered into a whole that later lines transpose.

    The whole is made first (layers/tensor_parallel.py@v2.4.1:86-92). On ROCm, and with `slices_apart` (of what has
    more dimensions), every shard's slice is a tensor of its own first, and they are joined into a whole that lies as it
    is used.
    """
    g = run.shapes.g
    joined_last = run.shapes.on_rocm or slices_apart
    gathered = g.vocabulary_shard != g.vocabulary
    size = rows * g.vocabulary_shard * ELEMENT
    whole = run.memory.new(rows * g.vocabulary * ELEMENT) if gathered and not joined_last else None
    out = run.memory.new(size)
    run.take_cublas()
    if not gathered:
        return out
    slices = [run.memory.new(size) for _ in range(g.vocabulary // g.vocabulary_shard)] if joined_last else []
    whole = whole or run.memory.new(rows * g.vocabulary * ELEMENT)
    run.drop(*slices, out)
    return whole


def with_guesses(run: Pass, rows: int) -> list[Block]:
    """Logits of `rows` positions, and of the tokens that heads guess behind them where they are asked."""
    made = run.shapes.heads
    if made is None or not made.number or rows > made.most_rows:
        return [logits(run, rows)]
    return guesses.guess(
        run.beside(rows), made, lambda positions: logits(run, positions, slices_apart=positions > rows)
    )


def all_of_it(requests: int, vocabulary: int) -> int:
    """No fewer bytes than `sample` asks for altogether: a free block of so many holds every large tensor of it."""
    return 116 * requests * vocabulary + 56 * vocabulary + 2 * SORT_SCRATCH


def sample(memory: Allocator, requests: int, vocabulary: int) -> None:
    """Sampling for `requests` rows of `vocabulary` logits; nothing of it stays."""
    rows = requests * vocabulary
    wide = ELEMENT * rows
    greenlist = [memory.new(8 * vocabulary) for _ in range(4)]  # every request alike, one after the other
    memory.release(memory.new(16 * vocabulary))
    memory.release(*greenlist[1:])
    mask, flags = memory.new(2 * vocabulary), memory.new(vocabulary)
    memory.release(mask)
    memory.release(memory.new(vocabulary))
    memory.release(greenlist[0], flags)
    penalties = [memory.new(4 * rows), memory.new(4 * rows)]
    memory.release(*penalties)
    memory.release(memory.new(rows))
    top_p = [*_sorted(memory, rows), memory.new(wide), memory.new(rows), memory.new(rows)]
    memory.release(*top_p)
    typical = [memory.new(wide), memory.new(wide)]
    memory.release(memory.new(wide))
    shifted, absolute = memory.new(wide), memory.new(wide)
    memory.release(shifted)
    typical.append(memory.new(wide))
    memory.release(absolute)
    typical += [*_sorted(memory, rows), memory.new(wide), memory.new(wide)]
    last = memory.new(rows)
    memory.release(memory.new(8 * rows), last)
    memory.release(*typical, memory.new(rows), memory.new(rows))
    memory.release(memory.new(ELEMENT * vocabulary), memory.new(ELEMENT * vocabulary))


def _sorted(memory: Allocator, rows: int) -> list[Block]:
    """The values and indices of a sort, after its copies and its scratch are gone."""
    values, order = memory.new(ELEMENT * rows), memory.new(8 * rows)
    copies = [memory.new(8 * rows), memory.new(8 * rows), memory.new(ELEMENT * rows)]
    memory.release(memory.new(10 * rows + SORT_SCRATCH))
    memory.release(*copies)
    return [values, order]
