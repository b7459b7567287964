"""What loading leaves in the allocator: the weights, and the gaps between them.

TGI's classes make their modules one after the other, and each moves its tensors to the GPU as it is made. What is
only read to be copied (an embedding that gets one more row, a projection stored packed, the pieces of a quantized
projection that is repacked) is dropped again at once, and later tensors land in the gap: it depends on the order
of the modules what is left of it.

Read at v3.3.7 under server/text_generation_server: layers/tensor_parallel.py:200-240 (embeddings),
utils/weights.py:248-400 and layers/fp8.py:280-300 (plain projections: joined before they are moved, 2.2.0 on),
layers/marlin/gptq.py:100-350 (GPTQ and AWQ on Marlin), layers/moe/unquantized.py:100-160 (experts),
layers/attention/flashinfer.py:36-43, and the classes' own `__init__` for their order. transformers' own classes:
transformers v4.51.3, src/transformers/modeling_utils.py:770-800 and :5750-5810.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from typing import NamedTuple

from tgi_advisor.estimate import adapters, geometry, heads, weights
from tgi_advisor.estimate.allocator import Allocator, Block, State
from tgi_advisor.estimate.replay import guesses, kernels, packed, pictures, stacks, tapes, towers
from tgi_advisor.estimate.replay.kernels import Kernel
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.estimate.weights import Held
from tgi_advisor.facts import families, layouts
from tgi_advisor.facts.model import DTYPE_BITS, TensorGroup
from tgi_advisor.units import MiB

Step = Callable[[Allocator], None]
"""What one module does to the allocator when it is made."""

EMBEDDING_LAST = {"qwen2": (2, 4, 1)}
"""Families whose class makes the embedding after everything else, since which release.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/models/custom_modeling/flash_qwen2_modeling.py#L385-L410
"""
PROJECTIONS = (
    (("q_proj", "k_proj", "v_proj"), ("qkv_proj",), ("query_key_value",), ("c_attn",), ("Wqkv",), ("W_pack",)),
    (("o_proj",), ("dense",), ("attn.c_proj",), ("attn.out_proj",)),
    (("gate_proj", "up_proj"), ("gate_up_proj",), ("dense_h_to_4h",), ("c_fc",), ("fc1",), ("fc_in",)),
    (("down_proj",), ("dense_4h_to_h",), ("mlp.c_proj",), ("fc2",), ("fc_out",)),
)
"""A layer's projections in the order they are made, under the names families store them; a row is made as one."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Projections of attention to an image, each by itself (Mllama)."""
LATENT = ("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
"""Projections of DeepSeek's attention, each by itself."""
COLUMNS = frozenset(word for ways in PROJECTIONS[::2] for words in ways for word in words)
"""Projections that shards split by their outputs."""
CONVERTED = frozenset({"qkv_proj", "gate_up_proj", "Wqkv", "W_pack"})
"""Projections stored as one, whose slices are joined on the CPU and converted on the GPU.

https://github.com/huggingface/text-generation-inference/blob/v3.3.7/server/text_generation_server/utils/weights.py#L328-L343
"""
CONVERTED_BY_DBRX = (2, 1, 0)
"""Since when DBRX's class loads its projection like the others; before, it converted it on the CPU."""
MOVED_WHOLE = frozenset({("gpt2", "c_attn"), ("gpt2", "c_fc"), ("gpt_bigcode", "c_attn"), ("phi", "fc1")})
"""Of the columns, those that never were pieces on the GPU: their classes have loaders of their own."""
JOINED_BEFORE_THE_MOVE = (2, 2, 0)
"""Since when the pieces of a projection are joined on the CPU; before, each is moved to the GPU and joined there.

https://github.com/huggingface/text-generation-inference/blob/v2.1.1/server/text_generation_server/utils/weights.py#L497
https://github.com/huggingface/text-generation-inference/blob/v2.2.0/server/text_generation_server/utils/weights.py#L100-L103
"""
WORKSPACE = (128 * MiB, 8 * MiB, 8 * MiB, 8 * MiB)
"""flashinfer's workspace and the integer buffers of its three wrappers; what newer ones hold beside is not replayed."""


class Stored(NamedTuple):
    """The tensors of a shard, in bytes, by where they belong."""

    embeddings: tuple[tuple[int, int], ...]
    """(bytes, bytes of one row) of each embedding."""
    layer: Mapping[str, tuple[int, int]]
    """(bytes of one as it is read, how many) by the name inside a layer."""
    edges: Mapping[str, int]
    """Bytes of those the first and last layer hold in another type, by the same name."""
    others: tuple[int, ...]
    """What stands outside the layers: the last norm."""
    head: tuple[int, ...]
    """The output matrix, with its bias; empty where it is the embedding's."""


def loaded(setting: Setting, most: int | None = None) -> State:
    """The allocator of the fullest shard when the model is there and the cache was emptied once.

    OutOfMemoryError where PyTorch would have to reserve more than `most` bytes on the way.
    """
    rows = weights.held(setting)
    seen = [row for row in rows if setting.family.served_by == "vlm" and towers.sees(row.group.name)]
    memory = Allocator(most=most)
    old = setting.facts.release.version < JOINED_BEFORE_THE_MOVE
    reads = towers.of(setting.family.model_type, seen, _is_converted(setting), old) if seen else ()
    tower = [_made(one) for one in reads]
    for steps, times in _steps(setting, [row for row in rows if row not in seen], tower):
        tapes.play(memory, steps, times)
    if setting.attention == "flashinfer":
        for size in WORKSPACE:
            memory.new(size)
    adapters.load(setting, memory)
    memory.empty_cache()
    return memory.state()


def _stored(rows: Sequence[Held]) -> Stored:
    embeddings, others, head = [], [], []
    layer, edges = dict[str, tuple[int, int]](), dict[str, int]()
    for row in sorted(rows, key=lambda row: -row.times):  # what fewer layers hold comes last
        inside = row.group.name.split(".*.", 1)[-1]
        if row.kind == "embedding":
            embeddings.append((row.each, row.group.shape[-1] * 2))
        elif row.kind == "head":
            head.append(row.each)
        elif ".*." not in row.group.name:
            others.append(row.each)
        elif inside in layer:
            edges[inside] = row.read
        else:
            layer[inside] = (row.read, row.times)
    return Stored(tuple(embeddings), layer, edges, tuple(others), tuple(head))


def _steps(setting: Setting, rows: Sequence[Held], tower: Sequence[Step]) -> Iterator[tuple[Sequence[Step], int]]:
    """(steps of modules, how often they come) in the order of the class; those of a vision tower are given."""
    if setting.family.served_by == "transformers":
        yield from (([step], 1) for step in _as_transformers(setting, rows))
        return
    stored = _stored(rows)
    embeddings = [_copied(size, row) for size, row in stored.embeddings]
    since = EMBEDDING_LAST.get(setting.family.model_type)
    last = since is not None and setting.facts.release.version >= since
    kind = setting.family.model_type
    if kind not in towers.INSIDE and kind not in towers.LAST:
        yield tower, 1
    if not last:
        yield embeddings, 1
    if kind in towers.INSIDE:
        yield tower, 1
    for _, alike in groupby(_layers(setting, stored), key=id):
        layers = list(alike)
        yield layers[0], len(layers)
    yield list(map(_kept, stored.others)), 1
    yield list(_head(setting, stored)), 1
    if last:
        yield embeddings, 1
    if kind in towers.LAST:
        yield tower, 1


def _head(setting: Setting, stored: Stored) -> Iterator[Step]:
    """The output matrix, and the speculation heads that are made with it."""
    sizes, guessing = stored.head or (weights.tied_head(setting),), heads.of(setting)
    if guessing is None:
        yield from map(_kept, sizes)
        return
    version = setting.facts.release.version
    yield from guesses.load(guessing, version, version >= JOINED_BEFORE_THE_MOVE, _kept(sum(sizes)))


def _layers(setting: Setting, stored: Stored) -> list[list[Step]]:
    """The steps of every layer; mixtures after the dense layers of the same model."""
    times = families.layers(setting.facts.model)
    if weights.edges_are_spared(setting):
        edge = {name: size for name, (size, count) in stored.layer.items() if count == times} | dict(stored.edges)
        inner = {name: size for name, (size, _) in stored.layer.items()}
        outer = list(_layer(setting, edge, "plain"))
        return [outer, *[list(_layer(setting, inner))] * (times - 2), outer]
    crossed = pictures.crossed(setting)
    if crossed:
        return _crossing_layers(setting, stored, crossed)
    sparse = _mixtures(setting, stored)
    dense = {name: size for name, (size, count) in stored.layer.items() if count in (times, times - sparse)}
    routed = {
        name: size
        for name, (size, count) in stored.layer.items()
        if sparse and (count == times or (count != times - sparse and count % sparse == 0))
    }
    return [list(_layer(setting, dense))] * (times - sparse) + [list(_layer(setting, routed))] * sparse


def _crossing_layers(setting: Setting, stored: Stored, crossed: Sequence[int]) -> list[list[Step]]:
    """The steps of Mllama's layers: those that attend to the image make queries, keys and values each by itself."""
    own = {name: size for name, (size, _) in stored.layer.items() if not name.startswith("cross_attn")}
    attending = {name: size for name, (size, _) in stored.layer.items() if not name.startswith("self_attn")}
    one_by_one = [attending.pop(name) for word in ATTENTION for name in [_find(attending, word, "weight")] if name]
    crossing = [*map(_kept, one_by_one), *_layer(setting, attending)]
    usual = list(_layer(setting, own))
    return [crossing if number in crossed else usual for number in range(families.layers(setting.facts.model))]


def _layer(setting: Setting, sizes: Mapping[str, int], kernel: Kernel | None = None) -> Iterator[Step]:
    """The steps of a layer that holds tensors of these names and bytes, for the launch's kernel or this one."""
    rest, kernel = dict(sizes), kernel or kernels.of(setting) or "plain"
    if setting.family.kv == "mla":
        for word in LATENT:
            yield from map(_kept, _take(rest, word, "weight"))
    else:
        for place in (0, 1):
            spared = weights.attention_is_spared(setting)
            yield from _projection(setting, rest, place, "plain" if spared else kernel)
    if families.experts(setting.facts.model) and any(_is_expert(name) for name in rest):
        yield from _mixture(setting, rest, kernel)
    else:
        for place in (2, 3):
            yield from _projection(setting, rest, place, kernel)
    yield from map(_kept, rest.values())


def _mixtures(setting: Setting, stored: Stored) -> int:
    """How many layers are mixtures of experts."""
    number = families.experts(setting.facts.model)
    if not number:
        return 0
    counts = [count // number if ".experts.*." in f".{name}" else count for name, (_, count) in stored.layer.items()
              if _is_expert(name)]  # fmt: skip
    return max(counts, default=0)


def _is_expert(name: str) -> bool:
    """Whether a tensor of a layer belongs to its routed experts."""
    return ".experts." in f".{name}"


def _projection(setting: Setting, rest: dict[str, int], place: int, kernel: Kernel) -> Iterator[Step]:
    """The step of a layer's projection that stands at this place of `PROJECTIONS`."""
    kinds = packed.kinds(setting, kernel)
    for words in PROJECTIONS[place]:
        if not all(_find(rest, word, kinds[0]) for word in words):
            continue
        read = {kind: [size for word in words for size in _take(rest, word, kind)] for kind in kinds}
        if kernel == "plain":
            yield _plain(setting, words, read["weight"])
        else:
            inputs, outputs = geometry.projections(geometry.of(setting), setting.family.mlp)[place]
            yield packed.step(setting, kernel, packed.Read(read, _moved(setting, words)), inputs, outputs)
        return


def _moved(setting: Setting, words: Sequence[str]) -> packed.Moved:
    """How a quantized projection stored in pieces of these names gets to the GPU."""
    if words[0] in CONVERTED:
        return "converted" if _is_converted(setting) else "whole"
    return "joined" if words[0] in COLUMNS else "whole"


def _plain(setting: Setting, words: Sequence[str], sizes: Sequence[int]) -> Step:
    """The step of a projection in 16 bit that is stored in pieces of these names and bytes."""
    kind = setting.family.model_type
    permuted = kind == "gpt_neox" and words[0] == "query_key_value"
    version = setting.facts.release.version
    if words[0] in CONVERTED:
        on_cpu = words[0] == "Wqkv" and version < CONVERTED_BY_DBRX
        return _copied(sum(sizes)) if _is_converted(setting) and not on_cpu else _kept(sum(sizes))
    moved_first = version < JOINED_BEFORE_THE_MOVE and words[0] in COLUMNS
    if moved_first and (kind, words[0]) not in MOVED_WHOLE:
        return _joined(sizes, again=permuted)
    return _copied(sum(sizes)) if permuted else _kept(sum(sizes))


def _is_converted(setting: Setting) -> bool:
    """Whether the weights are stored in another 16-bit type than the launch's."""
    stored = {group.dtype for group in setting.facts.model.tensors if len(group.shape) > 1}
    return stored != {{"float16": "F16", "bfloat16": "BF16"}.get(setting.dtype, "F32")}


def _mixture(setting: Setting, rest: dict[str, int], kernel: Kernel) -> Iterator[Step]:
    """The router, the routed experts, and the experts every token goes through."""
    number, dbrx = families.experts(setting.facts.model), setting.family.model_type == "dbrx"
    merged = dbrx or setting.facts.release.version < (2, 3, 0)
    router = [size for word in ("gate", "router.layer") for size in _take(rest, word, "weight")]
    last = merged and setting.family.kv == "mla"  # DeepSeek's class before 2.3.0
    if not last:
        yield from map(_kept, router)
    kinds = packed.kinds(setting, kernel)
    read = [{kind: _take_expert(rest, words, kind) for kind in kinds} for words in EXPERT]
    if kernels.experts(setting) == "sparse":
        for place in (0, 2, 1):
            yield stacks.apart(read[place]["weight"] // (number if dbrx else 1), number)
    elif kernels.experts(setting) != "fused":
        if all(one[kinds[0]] for one in read):  # TGI refuses a checkpoint that has none
            yield from stacks.packed(setting, kernel, read, number)
    else:
        gate, up, down = (one["weight"] // (number if dbrx else 1) for one in read)
        if merged:
            yield stacks.merged(gate, up, down, number)
        else:
            scales = [one.get("weight_scale_inv", 0) for one in read]
            yield stacks.stacked(gate + up, number, scales[0] + scales[1])
            yield stacks.stacked(down, number, scales[2])
    if last:
        yield from map(_kept, router)
    for place in (2, 3):  # the experts every token goes through
        yield from _projection(setting, rest, place, kernel)


EXPERT = (("gate_proj", "w1"), ("up_proj", "w3", "v1"), ("down_proj", "w2"))
"""Names of an expert's three projections: two in, one out. DBRX stores all experts' as one, without a kind."""


def _take_expert(rest: dict[str, int], words: Sequence[str], kind: str) -> int:
    """Bytes of this tensor of a routed expert, which then is no longer among the rest; 0 where there is none."""
    ends = tuple(f".{word}.{kind}" for word in words) + (
        tuple(f".mlp.{word}" for word in words) if kind == "weight" else ()
    )
    return sum(rest.pop(name) for name in [name for name in rest if _is_expert(name) and name.endswith(ends)])


def _as_transformers(setting: Setting, rows: Sequence[Held]) -> Iterator[Step]:
    """transformers takes the whole model's bytes once and gives them back, then reads and copies tensor by tensor.

    Files are read one after the other, each by the names of its tensors: the output matrix first, the feed-forward
    block of a layer before its attention. One that is stored although it is the embedding's is read like the others
    and dropped when all are there. Tensors are copied where they are converted into another 16-bit type, which is what
    the launch does unless it is given the checkpoint's (modeling_utils.py:767-789). Of a quantized model half the bytes
    are taken at first, scales counted in float32 (modeling_utils.py:4793, integrations/finegrained_fp8.py:285).
    """
    quantized = bool(weights.quantization_config(setting))
    files = _files(setting, rows)
    first = sum(one.size * (2 if quantized and one.name.endswith(SCALE) else 1) for file in files for one in file)
    yield lambda memory: memory.release(memory.new(first // 2 if quantized else first))
    dropped: list[Block] = []

    def read(memory: Allocator, one: _Tensor) -> None:
        block = _copy(memory, one.size, read=one.read) if one.read else memory.new(one.size)
        if one.tied:
            dropped.append(block)

    for file in files:
        for one in sorted(file):
            yield partial(read, one=one)
    yield lambda memory: memory.release(*dropped)


SCALE = ".weight_scale_inv"
"""The end of the name of an fp8 weight's scales."""


class _Tensor(NamedTuple):
    """One tensor of a file; they are read in the order of their names."""

    name: str
    """Its name."""
    size: int
    """Its bytes."""
    read: int
    """Bytes of what it is copied from; 0 where it is read as it stays."""
    tied: bool
    """Whether it is stored although it is another's, and dropped."""


def _files(setting: Setting, rows: Sequence[Held]) -> list[list[_Tensor]]:
    """The tensors of each of a checkpoint's files, which takes of each group the layers that come next."""
    model = setting.facts.model
    sizes = {row.group: row.each for row in rows}
    every = [iter(_tensors(setting, group, sizes.get(group))) for group in model.tensors]
    files = model.files or layouts.assumed(model.tensors, families.layers(model), model.file_count).files
    return [[one for count, ones in zip(counts, every, strict=True) for one in islice(ones, count)] for counts in files]


def _tensors(setting: Setting, group: TensorGroup, size: int | None) -> list[_Tensor]:
    """The tensors of a group of which one has so many bytes on a shard; None where none stays."""
    tied = size is None and weights.role(group.name) == "head"
    size = group.bytes if tied else size
    if size is None:
        return []
    bits = weights.held_bits(group, setting.dtype, own=False)
    stays = group.dtype == {"float16": "F16", "bfloat16": "BF16"}.get(setting.dtype, "F32") or bits == 8
    read = 0 if stays else size * DTYPE_BITS[group.dtype] // bits
    return [_Tensor(group.name.replace("*", str(number)), size, read, tied) for number in range(group.count)]


def _made(one: towers.Made) -> Step:
    """The step of a tensor of the vision tower."""
    size = sum(one.pieces)
    if one.copied is None:
        return _kept(size)
    return _copied(size, one.copied) if len(one.pieces) == 1 else _joined(one.pieces)


def _find(rest: Mapping[str, int], word: str, kind: str) -> str | None:
    ending = f".{word}.{kind}"
    return next((name for name in rest if f".{name}".endswith(ending) and ".experts." not in f".{name}"), None)


def _take(rest: dict[str, int], word: str, kind: str) -> list[int]:
    """The bytes of the tensor of this name, which then is no longer among the rest."""
    name = _find(rest, word, kind)
    return [] if name is None else [rest.pop(name)]


def _kept(size: int) -> Step:
    """A tensor that is read and stays."""

    def step(memory: Allocator) -> None:
        memory.new(size)

    return step


def _joined(sizes: Sequence[int], again: bool = False) -> Step:
    """Pieces (or one) that are read one by one, copied into a whole, and dropped; `again`: which is then copied."""

    def step(memory: Allocator) -> None:
        pieces = [memory.new(size) for size in sizes]
        whole = memory.new(sum(sizes))
        memory.release(*pieces)
        if again:
            memory.new(sum(sizes))
            memory.release(whole)

    return step


def _copied(size: int, more: int = 0) -> Step:
    """A tensor that is read, copied with `more` bytes, and dropped."""

    def step(memory: Allocator) -> None:
        _copy(memory, size, more)

    return step


def _copy(memory: Allocator, size: int, more: int = 0, read: int = 0) -> Block:
    given = memory.new(read or size)
    copy = memory.new(size + more)
    memory.release(given)
    return copy
