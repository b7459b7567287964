"""A pass over the prefill's tokens: tensors by their width, and the products that make them."""

from __future__ import annotations

from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.replay import kernels
from tgi_advisor.estimate.replay.shapes import Shapes


class Pass:
    """One forward pass; what it makes is named by its width in elements per token.

    `windowed`: how many of its tokens have their keys and values copied because they lie in a sliding window.
    """

    def __init__(self, shapes: Shapes, memory: Allocator, tokens: int, windowed: int = 0) -> None:
        self.shapes = shapes
        self.memory = memory
        self.tokens = tokens
        self.windowed = windowed
        self.has_cublas = False

    def new(self, width: int) -> Block:
        """A tensor of `width` elements per token."""
        return self.memory.new(width * self.tokens * ELEMENT)

    def places(self) -> tuple[object, ...]:
        """What decides where the next layer's tensors go."""
        return self.memory.places()

    def beside(self, tokens: int) -> Pass:
        """A pass over other tokens, of unpacked weights, on the same allocator."""
        other = Pass(self.shapes._replace(kernel="plain"), self.memory, tokens)
        other.has_cublas = self.has_cublas
        return other

    def drop(self, *tensors: Block | None) -> None:
        """Tensors that go out of scope, each once however often it is named."""
        gone = {id(tensor): tensor for tensor in tensors if tensor is not None}
        self.memory.release(*gone.values())

    def product(self, width: int, bias: bool = False) -> Block:
        """The result of a 16-bit product to `width`, with the workspaces cuBLAS takes for it.

        https://github.com/pytorch/pytorch/blob/v2.7.0/aten/src/ATen/cuda/CublasHandlePool.cpp#L112-L135
        https://github.com/pytorch/pytorch/blob/v2.7.0/aten/src/ATen/cuda/CUDABlas.cpp#L160-L200
        """
        out = self.new(width)
        space = self.memory.new(self.shapes.cublaslt) if bias else None
        self.take_cublas()
        self.drop(space)
        return out

    def project(self, inputs: int, width: int, bias: bool = False) -> Block:
        """The result of one of the layer's projections from `inputs` to `width`, by the launch's kernel."""
        if self.shapes.kernel == "plain":
            return self.product(width, bias)
        if self.shapes.kernel == "awq":
            parts = self.memory.new(kernels.SPLIT * width * self.tokens * ELEMENT)
            out = self.new(width)
            self.drop(parts)
        else:
            out = self.new(width)
        if self.shapes.kernel == "marlin":
            copied = self.memory.new(inputs * self.tokens * ELEMENT)
            sums = self.memory.new(kernels.reduced_rows(self.tokens) * width * 4) if self.shapes.reduces else None
            self.drop(copied, sums)
        elif self.shapes.kernel == "exllama":
            self.take_cublas()
        if not bias or self.shapes.kernel in ("marlin", "exllama"):  # which add it in place
            return out
        added = self.new(width)
        self.drop(out)
        return added

    def take_cublas(self) -> None:
        """cuBLAS' workspace, at the first product of the process."""
        if not self.has_cublas:
            self.has_cublas = True
            self.memory.new(self.shapes.cublas)

    def single_norm(self, width: int) -> Block:
        """A norm in float32: a copy, its square, the scaled copy, back to 16 bit, times the weight."""
        single, squared = self.new(2 * width), self.new(2 * width)
        self.drop(squared)
        scaled = self.new(2 * width)
        self.drop(single)
        half, out = self.new(width), self.new(width)
        self.drop(half, scaled)
        return out
