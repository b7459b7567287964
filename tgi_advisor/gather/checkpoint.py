"""What the files of a checkpoint say: tensor headers, config.json, and which files TGI would read.

Pure parsing: bytes and names in, records out. Reading them from a folder, the Hub or a cache is done
by the neighbours of this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts.heads import MEDUSA_FILE, method
from tgi_advisor.facts.model import DTYPE_BITS, Files, TensorGroup
from tgi_advisor.safe import named

Header = Mapping[str, Mapping[str, Any]]
"""The tensors of one file: name -> {"dtype": ..., "shape": ...}; other keys are not looked at."""

DAMAGED = "The file is damaged: fetch it again, or tell its publisher."

_SHARD = re.compile(r"(.*)-[0-9]+-of-([0-9]{1,9})\.(?:safetensors|bin)")
_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")


class WeightFiles(NamedTuple):
    """The files of a repository or folder that hold the weights."""

    format: Literal["safetensors", "bin"]
    """`safetensors`, or `bin` when TGI has to convert pickled weights first."""
    files: tuple[str, ...]
    """Names of the files whose tensors TGI loads, sorted."""
    unused: tuple[str, ...]
    """Names of weight files TGI downloads and opens, but asks for none of their tensors."""


class Index(NamedTuple):
    """model.safetensors.index.json. TGI does not read it; it tells which shards belong together."""

    total_size: int | None
    """Bytes of all tensors as the index states them, where it does."""
    files: tuple[str, ...]
    """Names of the shards, sorted."""


class Grouped(NamedTuple):
    """All tensors of a checkpoint."""

    tensors: tuple[TensorGroup, ...]
    """Those alike but for layer and expert numbers in one group, in file order."""
    files: Files
    """Which of them lie in which file."""


def which_files(names: Iterable[str], where: str) -> WeightFiles:
    """The weight files TGI reads among the names of a repository's or folder's files.

    `server/text_generation_server/utils/hub.py@v3.3.7:32-59`: every *.safetensors at the top level, less
    those with `arguments`, `args` or `training` in the name; without any, the *.bin (cli.py@v3.3.7:274-292).
    The index is not consulted. `consolidated*.safetensors` (Mistral's own format) and `adapter_model.*`
    are among them, but hold names that no model class asks for. FactsError when nothing is left.
    """
    listing = list(names)
    extension: Literal["safetensors", "bin"]
    for extension in ("safetensors", "bin"):
        found = sorted(name for name in listing if _is_weights(name, extension))
        unused = tuple(name for name in found if name.startswith(("consolidated", "adapter_model.")))
        files = tuple(name for name in found if name not in unused)
        if len(files) > bounds.MAX_FILES:
            raise FactsError(
                f"{where} holds {len(files):,} weight files; more than {bounds.MAX_FILES:,} are not read.",
                "Give a folder or repository that holds one model.",
            )
        if files:
            return WeightFiles(extension, files, unused)
    raise _no_weights(listing, where)


def files_of_heads(weights: WeightFiles, config: Mapping[str, Any], where: str) -> WeightFiles:
    """Of weight files those TGI reads where the config.json beside them is of Medusa heads: one.

    server/text_generation_server/models/__init__.py@v3.3.7:543-562. FactsError when it is not there.
    """
    if method(config) != "medusa":
        return weights
    if MEDUSA_FILE not in weights.files:
        raise FactsError(
            f"{where} holds Medusa heads, but no {MEDUSA_FILE}.",
            "TGI reads that file alone; convert medusa_lm_head.pt with safetensors.torch.save_file.",
        )
    unused = sorted({*weights.files, *weights.unused} - {MEDUSA_FILE})
    return WeightFiles("safetensors", (MEDUSA_FILE,), tuple(unused))


def _is_weights(name: str, extension: str) -> bool:
    return name.endswith("." + extension) and not any(part in name for part in ("/", "arguments", "args", "training"))


def _no_weights(names: Sequence[str], where: str) -> FactsError:
    def some(*endings: str) -> bool:
        return any(name.endswith(endings) for name in names)

    if some("adapter_config.json") or any("adapter_model." in name for name in names):
        return FactsError(
            f"{where} holds an adapter, not a model.",
            "Give its base model as model.id and the adapter as the flag lora-adapters.",
        )
    if any(name.startswith("consolidated") or name.endswith(".pth") for name in names):
        return FactsError(
            f"{where} holds weights only in the publisher's own format (consolidated.*).",
            "TGI reads the Hugging Face format; look for a repository whose name ends in -hf, or convert the weights.",
        )
    if some(".gguf"):
        return FactsError(
            f"{where} holds only GGUF files.",
            "TGI's CUDA, ROCm and Intel servers cannot read GGUF; give the repository it was made from.",
        )
    return FactsError(f"{where} holds no weight files.", "TGI needs *.safetensors (or *.bin) beside config.json.")


def require_all_shards(files: tuple[str, ...], repo: str) -> None:
    """FactsError when shards that `-of-00004` promises are not listed."""
    there: dict[tuple[str, str], int] = {}
    for match in map(_SHARD.fullmatch, files):
        if match:
            there[match[1], match[2]] = there.get((match[1], match[2]), 0) + 1
    for (stem, total), count in there.items():
        if count != int(total):
            raise FactsError(
                f"{repo} lists {count} of the {int(total)} shards {named(stem)}-*-of-{total}.",
                "The upload may be unfinished: try again later, or give another revision.",
            )


def group_tensors(headers: Iterable[Header], layers: int | None = None) -> Grouped:
    """All tensors of a checkpoint.

    `headers` has one entry for each weight file. With `layers` (num_hidden_layers) a tensor of
    `model.layers.N` with N >= layers keeps that number: TGI never loads it (DeepSeek-V3's prediction
    layer, `model.layers.61.`). FactsError for an unknown dtype, an impossible shape, or a name that is
    in two files, which TGI refuses as well (server/text_generation_server/utils/weights.py@v3.3.7:150-158).
    """

    @cache
    def inside(number: str) -> bool:
        return len(number) < 20 and int(number) < (layers or 0) and str(int(number)) == number

    seen: set[str] = set()
    files: list[dict[tuple[tuple[str, ...], str, tuple[int, ...]], int]] = []
    for header in headers:
        if len(seen) + len(header) > bounds.MAX_TENSORS:
            raise FactsError(f"The weight files hold more than {bounds.MAX_TENSORS:,} tensors.", DAMAGED)
        if not seen.isdisjoint(header):
            raise FactsError(
                f"The tensor {named(min(seen.intersection(header)))} is in two weight files.",
                "TGI stops with 'Key ... was found in multiple files': remove the file that does not belong.",
            )
        seen.update(header)
        alike: dict[tuple[tuple[str, ...], str, tuple[int, ...]], int] = {}
        for name, entry in header.items():
            # DeepSeek-V3 has 91,991 names: taking the layer number out first leaves 2,000 for the pattern.
            parts = name.split(".", 3)
            numbered = len(parts) == 4 and parts[2].isdecimal()
            if numbered and (not layers or inside(parts[2]) or parts[:2] != ["model", "layers"]):
                parts[2] = "*"
            key = (tuple(parts), entry["dtype"], tuple(entry["shape"]))
            alike[key] = alike.get(key, 0) + 1
        files.append(alike)
    numbers: dict[tuple[str, str, tuple[int, ...]], int] = {}
    group_of: dict[tuple[tuple[str, ...], str, tuple[int, ...]], int] = {}
    for key in dict.fromkeys(key for alike in files for key in alike):
        parts_seen, dtype, shape = key
        name = ".".join(parts_seen)
        tensor_bytes(dtype, shape, named(name))
        beyond = len(parts_seen) == 4 and parts_seen[2].isdecimal()
        kept, rest = (name[: -len(parts_seen[3])], parts_seen[3]) if beyond else ("", name)
        group = (kept + _NUMBER.sub("*", rest), dtype, shape)
        group_of[key] = numbers.setdefault(group, len(numbers))
    if not numbers:
        raise FactsError("The weight files hold no tensor.", DAMAGED)
    counts = [[0] * len(numbers) for _ in files]
    for row, alike in zip(counts, files, strict=True):
        for key, count in alike.items():
            row[group_of[key]] += count
    totals = map(sum, zip(*counts, strict=True))
    groups = (TensorGroup(*group, count) for group, count in zip(numbers, totals, strict=True))
    return Grouped(tuple(groups), tuple(map(tuple, counts)))


def tensor_bytes(dtype: object, shape: Sequence[object], where: str) -> int:
    """Bytes of one tensor; FactsError when dtype or shape cannot be."""
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise FactsError(f"{where}: unknown tensor dtype {_short(dtype)}.", f"Known are {', '.join(DTYPE_BITS)}.")
    elements = 1
    most = bounds.MAX_ELEMENTS
    for size in shape:
        if type(size) is not int or size < 0 or size > most or (elements := elements * size) > most:
            raise FactsError(f"{where}: impossible tensor shape {_short(shape)}.", DAMAGED)
    if elements * bits % 8:
        raise FactsError(f"{where}: a tensor of {elements:,} {dtype} does not end with a byte.", DAMAGED)
    return elements * bits // 8


def header_length(data: bytes, where: str, file_size: int | None = None) -> int:
    """Length in bytes of a safetensors header, from the file's first 8 bytes (little endian).

    FactsError when the file is too short, is not safetensors at all, or states a length that cannot be (past the end
    of a file of `file_size` bytes) or is not read (above `bounds.MAX_HEADER`; the library's own limit is 100 MB).
    """
    if len(data) < 8:
        raise FactsError(f"{where} is {len(data)} bytes long, too short for safetensors.", DAMAGED)
    _refuse_other_kinds(data, where)
    length = int.from_bytes(data[:8], "little")
    if length > bounds.MAX_HEADER or (file_size is not None and length > file_size - 8):
        held = f", the file has {file_size:,}" if file_size is not None else ""
        raise FactsError(f"{where} states a tensor header of {length:,} bytes{held}.", DAMAGED)
    return length


def parse_header(data: bytes, where: str, file_size: int | None = None) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file from its first bytes: name -> {dtype, shape, data_offsets}.

    `data` holds at least the 8-byte length and the header; `where` names the file in messages; with
    `file_size` the data the header promises must be there to the last byte, so an unfinished download is
    noticed. FactsError when anything is not as the format says (https://github.com/huggingface/safetensors,
    "Format"): the library would refuse the file as well.
    """
    length = header_length(data, where, file_size)
    text = data[8 : 8 + length]
    if len(text) < length:
        raise FactsError(f"{where}: the tensor header is cut off ({len(text):,} of {length:,} bytes).", DAMAGED)
    if crowded(text):
        raise FactsError(f"{where}: the tensor header holds {_values(text):,} values in {length:,} bytes.", DAMAGED)
    try:
        told = text.decode("utf-8")
        header: dict[str, dict[str, Any]] = json.loads(told)
        entries = len(header) - ("__metadata__" in header) if isinstance(header, dict) else 0
        if text.count(b'"data_offsets"') != entries:  # a name may be there twice; asking always takes twice as long
            header = json.loads(told, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FactsError(f"{where}: the tensor header is not valid JSON ({_short(error)}).", DAMAGED) from None
    end = _entries(header, where)
    if file_size is not None and file_size != 8 + length + end:
        raise FactsError(
            f"{where} has {file_size:,} bytes, its header describes {8 + length + end:,}.",
            "The download is incomplete: fetch the file again.",
        )
    return header


def parse_headers(data: bytes, files: Sequence[str], where: str) -> list[Header]:
    """The tensors of all `files` from what the Hub answers to one call for them: `{"headers": {file: header}}`.

    FactsError unless it has exactly these files, each with a header as `parse_header` would take it.
    """
    if crowded(data):
        raise FactsError(f"{where}: the tensor headers hold {_values(data):,} values in {len(data):,} bytes.", DAMAGED)
    try:
        headers = json.loads(data.decode("utf-8"))["headers"]
        if sorted(headers) != sorted(files):
            raise FactsError(f"{where} does not have the headers of these {len(files)} files.", DAMAGED)
        for name in files:
            _entries(headers[name], f"{where}: {named(name)}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FactsError(f"{where} has no tensor headers ({_short(error)}).", DAMAGED) from None
    return [headers[name] for name in files]


def _entries(header: Any, where: str) -> int:
    """Where the last tensor of a header ends; FactsError when an entry is not as the format says.

    What is no tensor, `__metadata__`, is taken out of it.
    """
    if not isinstance(header, dict):
        raise FactsError(f"{where}: the tensor header is not a JSON object.", DAMAGED)
    notes = header.pop("__metadata__", None)
    if notes is not None and not (isinstance(notes, dict) and all(type(note) is str for note in notes.values())):
        raise FactsError(f"{where}: __metadata__ of the tensor header is not a map of texts.", DAMAGED)
    spans = []
    sizes: dict[tuple[object, ...], int] = {}
    for name, entry in header.items():
        try:
            dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            kind = (dtype, *shape)
            size = sizes.get(kind)
        except (TypeError, KeyError, ValueError):
            raise FactsError(f"{where}: the entry of tensor {_short(name)} is malformed.", DAMAGED) from None
        if len(name) > bounds.MAX_NAME:
            raise FactsError(f"{where}: the name of tensor {_short(name)} has {len(name):,} characters.", DAMAGED)
        if size is None:
            size = sizes[kind] = tensor_bytes(dtype, shape, f"{where}: {_short(name)}")
        if type(start) is not int or type(stop) is not int or stop - start != size or start < 0:
            raise FactsError(
                f"{where}: tensor {_short(name)} stands at {_short([start, stop])}, "
                f"but its dtype and shape need {size:,} bytes.",
                DAMAGED,
            )
        spans.append((start, stop))
    return _end(spans, where)


def crowded(text: bytes) -> bool:
    """Whether JSON holds more values than tensors described in as many bytes can have: memory, and nothing in it."""
    return _values(text) > len(text) // 4 + 100


def _values(text: bytes) -> int:
    """About how many values JSON holds."""
    return sum(map(text.count, (b"{", b"[", b",")))


def _end(spans: list[tuple[int, int]], where: str) -> int:
    """Where the last tensor ends; FactsError unless each begins where the one before it ends.

    safetensors/src/tensor.rs@v0.8.0, `Metadata::validate`.
    """
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise FactsError(
                f"{where}: its tensors overlap or leave holes (one begins at {start:,}, the one before it ends at "
                f"{end:,}).",
                DAMAGED,
            )
        end = stop
    return end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{_short(next(name for name in names if names.count(name) > 1))} is there twice")
    return made


def read_json(data: bytes, where: str, most: int = bounds.MAX_INDEX) -> dict[str, Any]:
    """A JSON file of at most `most` bytes that must hold one object: config.json, an index and their like."""
    if isinstance(data, bytes):
        _refuse_other_kinds(data, where)
    value = _parsed(data, where, most)
    if not isinstance(value, dict):
        raise FactsError(f"{where} must hold a JSON object, it holds {_short(value)}.", "Correct it or fetch it again.")
    return value


def _parsed(data: bytes, where: str, most: int) -> Any:
    """What the JSON says, once it is known that it takes little memory to say it."""
    if len(data) > most:
        raise FactsError(f"{where} is longer than {most:,} bytes; more are not read.", DAMAGED)
    if (values := _values(data)) > bounds.MAX_VALUES:
        raise FactsError(
            f"{where} holds about {values:,} values; more than {bounds.MAX_VALUES:,} are not read.", DAMAGED
        )
    try:
        value = json.loads(data.decode("utf-8"), parse_int=bounds.number)
    except (ValueError, RecursionError) as error:
        raise FactsError(
            f"{where} is not valid JSON: {_short(error)}.", "Fetch the file again or correct it."
        ) from None
    if bounds.nested(value):
        raise FactsError(f"{where} nests deeper than {bounds.MAX_DEPTH} levels.", DAMAGED)
    return value


def read_config(data: bytes, where: str) -> dict[str, Any]:
    """config.json as it is written; `where` names it in messages.

    FactsError when it is no JSON object, and for a size no model can have, which TGI could not serve either.
    """
    config = read_json(data, where, bounds.MAX_CONFIG)
    if len(str(config.get("model_type"))) > bounds.MAX_MODEL_TYPE:
        raise FactsError(f"{where}: model_type is longer than {bounds.MAX_MODEL_TYPE} characters.", DAMAGED)
    require_sizes(config, where)
    return config


def layers(config: Mapping[str, Any]) -> int | None:
    """num_hidden_layers at the top of config.json, where it is a number."""
    value = config.get("num_hidden_layers")
    return value if type(value) is int else None


def require_sizes(config: Mapping[str, Any], where: str) -> None:
    """FactsError when a number of config.json is out of its bounds, with field, value and bounds."""
    if found := bounds.out_of_bounds(config):
        name, value, size = found
        shown = "no number" if value != value else f"{value:,}" if abs(value) < float("inf") else "beyond counting"
        raise FactsError(
            f"{where}: {named(name)} is {shown}; no model has fewer than {size.least:,} or more than {size.most:,}.",
            "Correct the file or fetch it again; TGI could not serve such a model either.",
        )


def read_index(data: bytes, where: str) -> Index:
    """model.safetensors.index.json: the stated total and the names of the shards."""
    index = read_json(data, where, bounds.MAX_INDEX)
    weight_map, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise FactsError(f"{where} has no weight_map of tensor names to file names.", DAMAGED)
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    stated = isinstance(total, (int, float)) and 0 <= total < 1e18
    return Index(int(total) if total is not None and stated else None, tuple(sorted(set(weight_map.values()))))


def model_max_length(tokenizer_config: Mapping[str, Any]) -> int | None:
    """tokenizer_config.json's model_max_length in tokens; None when it is absent or transformers' "no limit" (1e30)."""
    value = tokenizer_config.get("model_max_length")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
        return None
    return int(value)


def quantization(config: Mapping[str, Any]) -> str | None:
    """The checkpoint's quantization method as config.json names it (`awq`, `gptq`, `fp8`, ...), None without one.

    quantization_config, else compression_config: server/text_generation_server/models/__init__.py@v3.3.7:444-446.
    What TGI makes of the name depends on the release and is decided elsewhere.
    """
    block = config.get("quantization_config")
    if block is None:
        block = config.get("compression_config")
    method = block.get("quant_method") if isinstance(block, Mapping) else None
    return method if isinstance(method, str) else None


def parameter_count(config: Mapping[str, Any], tensors: Iterable[TensorGroup]) -> int:
    """Parameters as the Hub counts them: 4-bit weights unpacked, their scales and zero points and scalars left out."""
    block = config.get("quantization_config")
    bits = block.get("bits") if isinstance(block, Mapping) and quantization(config) in ("awq", "gptq") else None
    total = 0
    for group in tensors:
        per_element = 1
        if bits in (2, 3, 4, 8):
            if group.name.endswith((".qzeros", ".scales", ".g_idx")):
                continue
            per_element = 32 // bits if group.name.endswith(".qweight") else 1
        total += group.count * group.elements * per_element if group.shape else 0
    return total


def _refuse_other_kinds(data: bytes, where: str) -> None:
    """FactsError when the bytes are something people often have in place of the file."""
    if data.startswith(b"version "):
        raise FactsError(f"{where} is a Git LFS pointer, not the file itself.", "Fetch it with: git lfs pull")
    if data[:5].lower() in (b"<!doc", b"<html"):
        raise FactsError(
            f"{where} is an HTML page.", "A proxy or login page answered in place of the file: fetch it again."
        )
    if data.startswith(b"PK\x03\x04"):
        raise FactsError(
            f"{where} is a pickled PyTorch or ZIP file under another name.", "Fetch the original file again."
        )


def _short(value: object) -> str:
    """`value` for a message, cut where it is long."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
