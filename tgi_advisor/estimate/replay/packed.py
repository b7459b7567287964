"""Loading a quantized projection: what is read, joined, repacked and dropped.

The pieces of a joined projection go to the GPU one by one and are joined there, in every release.

Read under server/text_generation_server: layers/gptq/__init__.py:330-470 and layers/marlin.py:280-400 at v2.2.0,
layers/marlin/gptq.py:140-420, layers/marlin/util.py:40-140 and layers/gptq/exllamav2.py:60-260 at v3.3.7,
utils/weights.py:540-700 at v2.1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tgi_advisor.estimate import weights
from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.replay.kernels import Kernel
from tgi_advisor.estimate.setting import Setting

Step = Callable[[Allocator], None]
"""What one module does to the allocator when it is made."""
Read = Mapping[str, Sequence[int]]
"""The stored tensors of a projection by kind, in bytes: one for each that is joined."""


def step(setting: Setting, kernel: Kernel, read: Read, inputs: int, outputs: int) -> Step:
    """The step of a projection from `inputs` to `outputs` that this kernel multiplies."""
    ordered = setting.quantize == "gptq" and bool(weights.quantization_config(setting).get("desc_act"))
    if kernel == "marlin":
        rows = 4 * inputs if setting.quantize == "gptq" else 0
        return lambda memory: _marlin(memory, read, rows, ordered, outputs)
    return lambda memory: _kept(memory, read)


def joined(memory: Allocator, sizes: Sequence[int]) -> Block:
    """Pieces that are moved to the GPU one by one, and their join; one by itself stays as it is."""
    pieces = [memory.new(size) for size in sizes]
    if len(pieces) == 1:
        return pieces[0]
    whole = memory.new(sum(sizes))
    memory.release(*pieces)
    return whole


def _marlin(memory: Allocator, read: Read, rows: int, ordered: bool, outputs: int) -> None:
    """GPTQ or AWQ repacked for Marlin; `rows` are the bytes of GPTQ's order of rows, kept where it is one."""
    dropped = [joined(memory, read["qweight"]), joined(memory, read["scales"])]
    zeros = sum(read["qzeros"])
    if zeros:
        dropped.append(joined(memory, read["qzeros"]))
    if rows:
        dropped += [memory.new(rows) for _ in read["qweight"]]
    if ordered:
        memory.new(rows)
        memory.new(rows)
    memory.new(sum(read["qweight"]))
    if zeros:
        _permuted(memory, 8 * zeros)
        memory.new(zeros)
    memory.new(sum(read["scales"]))
    memory.release(*dropped)
    memory.new(outputs)  # the workspace: 16 integers for 64 columns


def _permuted(memory: Allocator, size: int) -> None:
    """Zero points of `size` bytes unpacked, put in two other orders and packed again."""
    unpacked = memory.new(size)
    undone = memory.new(size)
    memory.release(unpacked)
    permuted = memory.new(size)
    interleaved = memory.new(size)
    memory.release(permuted, interleaved, undone)


def _kept(memory: Allocator, read: Read) -> None:
    """Joined and kept as they are."""
    for sizes in read.values():
        if sizes:
            joined(memory, sizes)
