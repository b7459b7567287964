"""A pass over the prefill's tokens: tensors by their width, and the products that make them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from tgi_advisor.estimate.allocator import Allocator, Block
from tgi_advisor.estimate.forward import ELEMENT
from tgi_advisor.estimate.replay import kernels
from tgi_advisor.estimate.replay.kernels import Kernel
from tgi_advisor.estimate.replay.shapes import Shapes
from tgi_advisor.estimate.replay.tapes import Recorder, Tape

ADDS_BIAS = frozenset({"awq", "gptq", "eetq"})
"""Kernels whose layers add the bias into another tensor; the others take it along or add it in place."""


class Pass:
    """One forward pass; what it makes is named by its width in elements per token.

    `windowed`: how many of its tokens have their keys and values copied because they lie in a sliding window.
    `brisk`: whether layers are taken to go round in a circle once free blocks have the sizes they had before, wherever
    they lie (at most one small segment off, in all recordings).
    """

    def __init__(self, shapes: Shapes, memory: Allocator, tokens: int, windowed: int = 0, longest: int = 0) -> None:
        self.shapes = shapes
        self.memory = memory
        self.tokens = tokens
        self._column = tokens * ELEMENT
        on_marlin = "marlin" in (shapes.kernel, shapes.edge_kernel, shapes.attention_kernel)
        self._rows = kernels.reduced_rows(tokens) if shapes.reduces and on_marlin else 0
        self.windowed = windowed
        self.longest = longest
        self.prompts = (1, longest)
        """Prompts, and the length all are padded to, where `Shapes.scored`."""
        self.workspaces: list[Block] = []
        self._lingering: Block | None = None
        self.brisk = False
        self.tapes: dict[Hashable, Tape | None] = {}
        self._ready: dict[Hashable, tuple[Sequence[int], Tape]] = {}

    def new(self, width: int) -> Block:
        """A tensor of `width` elements per token."""
        return self.memory.new(width * self._column)

    def scratch(self, count: int) -> Block:
        """A tensor of so many bytes per token that a kernel makes beside its result."""
        return self.memory.new(count * self.tokens)

    def fixed(self, size: int) -> Block:
        """A tensor of so many bytes, whatever the tokens."""
        return self.memory.new(size)

    def play(
        self, key: Hashable, part: Callable[..., tuple[Block | None, ...]], *given: Block | None
    ) -> tuple[Block | None, ...]:
        """What `part` does with a pass and the tensors given, and what it returns: from its tape, once there is one.

        All that a part with this `key` does has to follow from the tensors given being there, or being the same, and
        from the pass; with the same `tapes`, from no more of it than its shapes and the rows of Marlin's sums where
        all is made by `new`, `scratch` and `fixed`.
        """
        inputs = list(dict.fromkeys([one for one in given if one is not None]))
        places = tuple([None if one is None else inputs.index(one) for one in given])
        named = (key, places, not self.workspaces, self._rows)
        ready = self._ready.get(named)
        if ready is None:
            if named not in self.tapes:
                self.tapes[named] = self._recorded(part, len(inputs), places)
            tape = self.tapes[named]
            if tape is None:  # something lingers
                return part(self, *given)
            if not tape.scales:  # it holds for this pass alone
                del self.tapes[named]
            ready = self._ready[named] = tape.units(self._column), tape
        units, tape = ready
        addresses, sizes = self.memory.play(units, inputs)
        made = {
            place: inputs[place] if place < len(inputs) else Block(addresses[place], sizes[place])
            for place in tape.results
            if place is not None
        }
        if tape.workspace is not None:
            self.workspaces.append(Block(addresses[tape.workspace], sizes[tape.workspace]))
        return tuple([None if place is None else made[place] for place in tape.results])

    def _recorded(
        self, part: Callable[..., tuple[Block | None, ...]], number: int, places: tuple[int | None, ...]
    ) -> Tape | None:
        """The tape of a part that is given so many tensors; None where it leaves one lingering."""
        inputs = [Block(place, 0) for place in range(number)]
        run = _Recording(self, Recorder(number))
        results = part(run, *(None if place is None else inputs[place] for place in places))
        if run._lingering is not None:
            return None
        taken = [one.address for one in run.workspaces if one not in self.workspaces]
        return run.recorder.tape([None if one is None else one.address for one in results], *taken)

    def places(self) -> tuple[object, ...]:
        """The free blocks that decide where the next layer's tensors go."""
        return self.memory.places()

    def turn(self, *carried: Block | None) -> tuple[object, ...]:
        """What decides where the next layer's tensors go: the free blocks, and where those lie that it starts from."""
        if self.brisk:
            return self.memory.sizes()
        return self.places(), *(one.address for one in carried if one is not None)

    def beside(self, tokens: int) -> Pass:
        """A pass over other tokens, of unpacked weights, on the same allocator."""
        other = Pass(self.shapes._replace(kernel="plain"), self.memory, tokens)
        other.workspaces, other.tapes = self.workspaces, self.tapes
        return other

    def drop(self, *tensors: Block | None) -> None:
        """Tensors that go out of scope, each once however often it is named."""
        self.memory.release(*{tensor for tensor in tensors if tensor is not None})

    def product(self, width: int, bias: bool = False) -> Block:
        """The result of a 16-bit product to `width`, with the workspaces cuBLAS takes for it.

        https://github.com/pytorch/pytorch/blob/v2.7.0/aten/src/ATen/cuda/CublasHandlePool.cpp#L112-L135
        https://github.com/pytorch/pytorch/blob/v2.7.0/aten/src/ATen/cuda/CUDABlas.cpp#L160-L200
        """
        out = self.new(width)
        space = self.fixed(self.shapes.cublaslt) if bias and self.shapes.cublaslt else None
        self.take_cublas()
        self.drop(space)
        if bias and self.shapes.copies_bias:
            added = self.new(width)
            self.drop(out)
            return added
        return out

    def project(
        self, inputs: int, width: int, bias: bool = False, kernel: Kernel | None = None, parts: Sequence[int] = ()
    ) -> Block:
        """The result of one of the layer's projections from `inputs` to `width`: by the launch's kernel or this one.

        `parts` are the widths of what is joined in it.
        """
        kernel = kernel or self.shapes.kernel
        if kernel == "exl2":
            return self._apart(width, parts)
        if kernel == "plain":
            return self.product(width, bias)
        if kernel == "bnb_8bit":
            return self._int8(inputs, width)
        quantized = self._scratch(kernel, inputs, width)
        if kernel == "bnb_4bit":
            self.drop(quantized.pop(0))  # the scales, once the weight is dequantized
            out = self.product(width, bias)
        else:
            out = self.new(width)
        if kernel == "gptq":
            self.drop(self._lingering)
            self._lingering = None
        if kernel in ADDS_BIAS and bias:
            copied = self.new(width)
            self.drop(out)
            out = copied
        self.drop(*quantized, *(self._sums(inputs, width) if kernel == "marlin" else ()))
        if kernel == "exllama":
            self.take_cublas()
        return out

    def _apart(self, width: int, parts: Sequence[int]) -> Block:
        """The results of parts that EXL2 multiplies one by one, and their join.

        https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/tensor_parallel.py#L13-L28
        """
        made = [self.new(part) for part in parts or (width,)]
        self.take_cublas()
        if len(made) == 1:
            return made[0]
        whole = self.new(width)
        self.drop(*made)
        return whole

    def used(self, given: Block) -> Block | None:
        """What can be dropped of a projection's input that nobody else holds.

        Triton's GPTQ is a function of autograd, whose context keeps the input until the next projection has its result.
        https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/layers/gptq/triton.py#L244-L249
        """
        if self.shapes.kernel != "gptq":
            return given
        self._lingering = given
        return None

    def _scratch(self, kernel: Kernel, inputs: int, width: int) -> list[Block]:
        """What a kernel allocates before its result, and drops."""
        match kernel:
            case "awq":
                return [self.scratch(kernels.SPLIT * width * ELEMENT)]
            case "fp8_cutlass" | "fp8_fbgemm" | "int8":
                return [self.scratch(inputs), self.scratch(4)]
            case "fp8_blocks":
                quantized = self.scratch(inputs)
                whole = inputs % 128 == 0
                scales = self.scratch(inputs // 32) if whole else self.memory.new(inputs * self.tokens // 128 * 4)
                return [quantized, scales]
            case "bnb_4bit":
                elements = inputs * width
                return [self.fixed(elements // 64 * 4), self.fixed(elements * ELEMENT)]
        return []

    def _sums(self, inputs: int, width: int) -> list[Block]:
        """What Marlin allocates behind its result: a copy of the input, and sums in float32."""
        copied = self.scratch(inputs * ELEMENT)
        return [copied, self.fixed(self._rows * width * 4)] if self.shapes.reduces else [copied]

    def _int8(self, inputs: int, width: int) -> Block:
        """bitsandbytes' int8 product: inputs quantized and searched for outliers, 32-bit sums, then outliers added.

        Values decide whether there are outliers (6 and above) and how many columns; some are taken to have them, too
        few to count.
        https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.45.2/bitsandbytes/autograd/_functions.py#L262-L340
        """
        half = self.new(inputs) if self.shapes.bfloat16 else None
        scales, quantized = self.scratch(4), self.scratch(inputs)
        absolute = self.scratch(2 * inputs)
        found = self.scratch(inputs)
        self.drop(absolute)
        self.drop(found)
        self.drop(half)
        sums, out = self.new(2 * width), self.new(width)
        if self.shapes.bfloat16:
            converted = self.new(width)
            self.drop(out)
            out = converted
        whole = self.new(width)
        self.take_cublas()
        self.drop(out)
        self.drop(scales, quantized, sums)
        return whole

    def gated(self, width: int, kernel: Kernel | None = None) -> Block:
        """Gate and up in one product, the gate's activation, their product, and down."""
        hidden = self.shapes.g.hidden
        both = self.project(hidden, 2 * width, self.shapes.bias_feed_in, kernel, (width, width))
        activated, product = self.new(width), self.new(width)
        self.drop(activated)
        out = self.project(width, hidden, self.shapes.bias_feed_out, kernel)
        self.drop(self.used(product), both)
        return out

    def take_cublas(self) -> None:
        """cuBLAS' workspace, at the first product of the process."""
        if self.shapes.cublas and not self.workspaces:
            self.workspaces.append(self.fixed(self.shapes.cublas))

    def single_norm(self, width: int) -> Block:
        """A norm in float32: a copy, its square, the scaled copy, back to 16 bit, times the weight."""
        single, squared = self.new(2 * width), self.new(2 * width)
        self.drop(squared)
        scaled = self.new(2 * width)
        self.drop(single)
        half, out = self.new(width), self.new(width)
        self.drop(half, scaled)
        return out


class _Recording(Pass):
    """A pass that only notes what it makes and drops."""

    def __init__(self, like: Pass, recorder: Recorder) -> None:
        super().__init__(like.shapes, recorder, like.tokens, like.windowed, like.longest)
        self.recorder = recorder
        self.prompts = like.prompts
        self.workspaces = list(like.workspaces)

    def new(self, width: int) -> Block:
        return self.recorder.of_width(width)

    def scratch(self, count: int) -> Block:
        return super().scratch(count) if count % ELEMENT else self.recorder.of_width(count // ELEMENT)

    def fixed(self, size: int) -> Block:
        return self.recorder.of_size(size)

    def play(
        self, _: Hashable, part: Callable[..., tuple[Block | None, ...]], *given: Block | None
    ) -> tuple[Block | None, ...]:
        return part(self, *given)
