"""Loading a quantized projection: what is read, joined, repacked and dropped.

The pieces of a joined projection go to the GPU one by one and are joined there, in every release; only those of fp8
are joined before. A piece that is alone is copied all the same, where the class would join several.

Read under server/text_generation_server: layers/gptq/__init__.py:330-470 and layers/marlin.py:280-400 at v2.2.0,
layers/marlin/gptq.py:140-420, layers/marlin/util.py:40-140 and layers/gptq/exllamav2.py:60-260 at v3.3.7,
utils/weights.py:540-700 at v2.1.1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from tgi_advisor.estimate import weights
from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.replay.kernels import Kernel
from tgi_advisor.estimate.setting import Setting

Step = Callable[[Allocator], None]
"""What one module does to the allocator when it is made."""
Moved = Literal["whole", "joined", "converted"]
"""How a tensor gets to the GPU: as it is; in pieces that are joined there; as it is, to be converted there."""


class Read(NamedTuple):
    """The stored tensors of a projection, by kind."""

    sizes: Mapping[str, Sequence[int]]
    """Bytes of each: one for each piece."""
    moved: Moved
    """How they get to the GPU; packed integers and fp8 are never converted."""

    def take(self, memory: Allocator, kind: str) -> Block:
        """The tensor of this kind on the GPU."""
        return take(memory, self.sizes[kind], "whole" if self.moved == "converted" and kind != "weight" else self.moved)


KINDS: Mapping[Kernel, tuple[str, ...]] = {
    "marlin": ("qweight", "scales", "qzeros", "g_idx"),
    "awq": ("qweight", "scales", "qzeros"),
    "exllama": ("qweight", "scales", "qzeros", "g_idx"),
    "gptq": ("qweight", "scales", "qzeros", "g_idx"),
    "exl2": ("q_weight", "q_scale", "q_invperm", "q_scale_max", "q_groups"),
    "stored_marlin": ("B", "s"),
    "fp8_marlin": ("weight", "weight_scale"),
    "fp8_fbgemm": ("weight", "weight_scale"),
    "fp8_cutlass": ("weight", "weight_scale"),
    "int8": ("weight", "weight_scale"),
    "fp8_blocks": ("weight", "weight_scale_inv"),
}
"""The stored tensors of a projection, in the order they are read; elsewhere the weight alone."""


def kinds(setting: Setting, kernel: Kernel) -> tuple[str, ...]:
    """The stored tensors of a projection, in the order they are read; the first is always there."""
    if setting.quantize == "compressed-tensors" and kernel == "marlin":
        return ("weight_packed", "weight_scale", "weight_zero_point")
    return KINDS.get(kernel, ("weight",))


def step(setting: Setting, kernel: Kernel, read: Read, inputs: int, outputs: int) -> Step:
    """The step of a projection from `inputs` to `outputs` that this kernel multiplies."""
    elements = inputs * outputs
    if kernel == "marlin":
        return lambda memory: _marlin(setting, memory, read, inputs, outputs)
    if kernel == "exl2":
        return lambda memory: _exl2(memory, read)
    if kernel == "fp8_blocks":
        return lambda memory: _fp8_blocks(memory, read)
    if kernel.startswith("fp8"):
        return lambda memory: _fp8(memory, read, elements, outputs, repacked=kernel == "fp8_marlin")
    if kernel == "eetq":
        return lambda memory: _eetq(memory, read, elements, outputs, setting.dtype != "float16")
    if kernel == "bnb_8bit":
        return lambda memory: _int8(memory, read, elements, outputs, setting.dtype != "float16")
    if kernel == "bnb_4bit":
        return lambda memory: _four_bit(memory, read, elements)
    workspace = outputs if kernel == "stored_marlin" else 0
    return lambda memory: _kept(memory, read, workspace)


def take(memory: Allocator, sizes: Sequence[int], moved: Moved) -> Block:
    """A tensor on the GPU, moved there in this way from pieces of these sizes."""
    if moved == "whole":
        return memory.new(sum(sizes))
    pieces = [memory.new(size) for size in (sizes if moved == "joined" else [sum(sizes)])]
    whole = memory.new(sum(sizes))
    memory.release(*pieces)
    return whole


def kept(setting: Setting, read: Read, inputs: int) -> list[int]:
    """Bytes of what Marlin keeps: weights, zero points, scales, and GPTQ's order of rows, twice, where there is one."""
    stored = weights.quantization_config(setting)
    ordered = setting.quantize == "gptq" and stored.get("desc_act") and stored.get("group_size") != -1
    weight, scales, zeros, *_ = (sum(sizes) for sizes in read.sizes.values())
    return [size for size in (weight, zeros, scales) if size] + ([4 * inputs, 4 * inputs] if ordered else [])


def repacked(setting: Setting, memory: Allocator, read: Read, inputs: int) -> list[Block]:
    """Repacked for Marlin: what is `kept`.

    compressed-tensors stores what GPTQ does transposed: what was not joined is copied to turn it.
    """
    weight, scales, zeros, *_ = read.sizes
    dropped = [read.take(memory, weight), read.take(memory, scales)]
    if weight == "weight_packed" and read.moved == "whole":
        dropped.append(memory.new(sum(read.sizes[weight])))
    points = sum(read.sizes[zeros])
    if points:
        dropped.append(read.take(memory, zeros))
    if setting.quantize == "gptq":
        dropped += [memory.new(4 * inputs) for _ in read.sizes[weight]]
    sizes = kept(setting, read, inputs)
    order = [memory.new(size) for size in sizes[3 if points else 2 :]]
    blocks = [memory.new(sizes[0])]
    if points:
        _permuted(memory, 8 * points)
    blocks += [memory.new(size) for size in sizes[1 : 3 if points else 2]]
    memory.release(*dropped)
    return blocks + order


def _marlin(setting: Setting, memory: Allocator, read: Read, inputs: int, outputs: int) -> None:
    repacked(setting, memory, read, inputs)
    memory.new(outputs)  # the workspace: 16 integers for 64 columns


def _exl2(memory: Allocator, read: Read) -> None:
    """EXL2, of which nothing is joined: five tensors for each piece, one of them halved.

    https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/exl2.py#L20-L60
    """
    for piece in zip(*read.sizes.values(), strict=True):
        for kind, size in zip(read.sizes, piece, strict=True):
            block = memory.new(size)
            if kind == "q_invperm":
                memory.new(size // 2)
                memory.release(block)


def _fp8_blocks(memory: Allocator, read: Read) -> None:
    """fp8 weights as they are stored; their scales are read in 16 bit and widened."""
    memory.new(sum(read.sizes["weight"]))
    single = sum(read.sizes["weight_scale_inv"])
    half = memory.new(single // 2)
    memory.new(single)
    memory.release(half)


def _permuted(memory: Allocator, size: int) -> None:
    """Zero points of `size` bytes unpacked, put in two other orders and packed again."""
    unpacked = memory.new(size)
    undone = memory.new(size)
    memory.release(unpacked)
    permuted = memory.new(size)
    interleaved = memory.new(size)
    memory.release(permuted, interleaved, undone)


def _kept(memory: Allocator, read: Read, workspace: int) -> None:
    """Joined and kept as they are, with a workspace where the kernel needs one; of equal orders of rows, the first."""
    dropped = []
    for kind, sizes in read.sizes.items():
        if kind == "g_idx":
            dropped = [memory.new(size) for size in sizes][1:]
        elif sizes:
            read.take(memory, kind)
    memory.release(*dropped)
    if workspace:
        memory.new(workspace)


def _fp8(memory: Allocator, read: Read, elements: int, outputs: int, repacked: bool) -> None:
    """fp8 weights, quantized on the GPU where they were stored in 16 bit, then repacked for Marlin where it multiplies.

    Pieces are joined before they are moved.
    """
    stored = bool(read.sizes["weight_scale"])
    weight = take(memory, read.sizes["weight"], "whole" if stored or read.moved == "joined" else read.moved)
    dropped = []
    if stored:
        dropped.append(read.take(memory, "weight_scale"))
    else:
        dropped.append(weight)
        weight = memory.new(elements)
    scales = memory.new(4 * outputs)
    if repacked:
        dropped += [weight, scales, memory.new(2 * outputs)]
        whole = memory.new(elements)
        for _ in range(4):  # bytes of four rows make one integer
            byte = memory.new(elements)
            shifted = memory.new(elements)
            memory.release(byte)
            memory.release(shifted)
        memory.new(elements)
        memory.new(2 * outputs)
        memory.release(whole)
        memory.new(outputs)  # the workspace: 16 integers for 64 columns
    memory.release(*dropped)


def _eetq(memory: Allocator, read: Read, elements: int, outputs: int, converted: bool) -> None:
    """EETQ: transposed on the GPU, quantized on the CPU, moved back; from bfloat16 by way of float16."""
    weight = read.take(memory, "weight")
    half = memory.new(2 * elements) if converted else None
    transposed = memory.new(2 * elements)
    memory.release(transposed)
    if half is not None:
        memory.release(half)
    memory.new(elements)
    memory.new(2 * outputs)
    memory.release(weight)


def _int8(memory: Allocator, read: Read, elements: int, outputs: int, converted: bool) -> None:
    """bitsandbytes' int8: one byte and a scale for each row, from float16."""
    weight = read.take(memory, "weight")
    half = memory.new(2 * elements) if converted else None
    memory.new(4 * outputs)
    memory.new(elements)
    if half is not None:
        memory.release(half)
    memory.release(weight)


def _four_bit(memory: Allocator, read: Read, elements: int) -> None:
    """bitsandbytes' 4 bit: half a byte, and a scale for each 64 that is quantized itself."""
    weight = read.take(memory, "weight")
    scales = memory.new(elements // 64 * 4)
    memory.new(elements // 2)
    memory.new(elements // 64 // 256 * 4)
    memory.new(elements // 64)
    memory.release(scales)
    memory.release(weight)
