"""A model in a local folder: config.json and the headers of its weight files, never their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.gather import checkpoint
from tgi_advisor.gather.class_defaults import fill_defaults
from tgi_advisor.reading import open_regular, read_regular
from tgi_advisor.safe import named, printable

INDEX = "model.safetensors.index.json"


def read(path: str) -> ModelFacts:
    """The facts of the model in a folder; FactsError says which file is missing, unreadable or damaged.

    Only headers are read, so the size of the weights does not matter. Pickled weights (*.bin) have no
    header, and their sizes alone do not tell how TGI splits them: FactsError says how to convert them.
    """
    folder, names = _names(path)
    if "config.json" not in names:
        raise _no_config(folder, names)
    config = read_config(folder)
    weights = checkpoint.files_of_heads(checkpoint.which_files(names, str(folder)), config, str(folder))
    if weights.format == "bin":
        raise FactsError(
            f"{folder} holds pickled weights only ({_some(weights.files)}): they do not tell their tensors' shapes.",
            "Convert them to safetensors first, as TGI would (save_pretrained writes safetensors), "
            "or give the Hub id if `tgi-advisor models` has it.",
        )
    if INDEX in names:
        _all_there(folder, weights.files)
    headers = (_header(folder / name) for name in weights.files)
    tensors, files = checkpoint.group_tensors(headers, checkpoint.layers(config))
    length = None
    if "tokenizer_config.json" in names:
        tokenizer = folder / "tokenizer_config.json"
        length = checkpoint.model_max_length(read_json(tokenizer, bounds.MAX_TOKENIZER))
    return ModelFacts(
        id=path,
        commit=None,
        source=f"folder {folder}: config.json and the headers of {_some(weights.files)}",
        config=config,
        defaults=fill_defaults(config),
        tensors=tensors,
        files=files,
        model_max_length=length,
        folder=str(folder.resolve()),
    )


def _names(path: str) -> tuple[Path, list[str]]:
    """The folder and the names of the files in it (links count by what they point to)."""
    try:
        folder = Path(path).expanduser()
        try:
            folder.stat()  # `exists` hides more errors from Python 3.14 on
        except (FileNotFoundError, NotADirectoryError, ValueError):
            hint = "Give a Hub id such as org/name, or an existing folder."
            raise FactsError(f"There is no folder {folder}.", hint) from None
        if not folder.is_dir():
            raise FactsError(f"{folder} is a file.", "Give the folder that holds config.json and the weights.")
        return folder, sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    except (OSError, ValueError, RuntimeError) as error:
        raise FactsError(f"The folder {path} cannot be read: {_reason(error)}.") from None


def _no_config(folder: Path, names: list[str]) -> FactsError:
    if "adapter_config.json" in names:
        base = read_json(folder / "adapter_config.json", bounds.MAX_CONFIG).get("base_model_name_or_path")
        return FactsError(
            f"{folder} holds an adapter{f' for {named(base)}' if isinstance(base, str) else ''}, not a model.",
            "Give its base model as model.id and the adapter as the flag lora-adapters.",
        )
    if "params.json" in names:
        return FactsError(
            f"{folder} has params.json but no config.json: it is in the publisher's own format.",
            "TGI reads the Hugging Face format; convert it, or give the Hub id of the converted model.",
        )
    if folder.name.startswith("models--"):
        meant = folder.name.removeprefix("models--").replace("--", "/", 1)
        return FactsError(
            f"{folder} is a folder of the Hub's cache: the model's files are below {folder / 'snapshots'}.",
            f"Give the model's id, {meant}, or the folder of one snapshot.",
        )
    return FactsError(f"{folder} has no config.json.", "TGI needs config.json and *.safetensors side by side.")


def _all_there(folder: Path, files: tuple[str, ...]) -> None:
    """FactsError when the index names shards that are not in the folder."""
    index = checkpoint.read_index(_bytes(folder / INDEX, bounds.MAX_INDEX), str(folder / INDEX))
    missing = sorted(set(index.files) - set(files))
    if missing:
        raise FactsError(
            f"{folder} lacks {len(missing)} of the {len(index.files)} weight files its index names: {_some(missing)}.",
            "The download is incomplete: fetch the missing files.",
        )


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json."""
    path = folder / "config.json"
    return checkpoint.read_config(_bytes(path, bounds.MAX_CONFIG), str(path))


def _header(path: Path) -> checkpoint.Header:
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(8)
            length = checkpoint.header_length(start, str(path), size)
            return checkpoint.parse_header(start + file.read(length), str(path), size)
    except OSError as error:
        raise FactsError(f"{path} cannot be read: {_reason(error)}.") from None


def read_json(path: Path, most: int) -> dict[str, Any]:
    """A file of at most `most` bytes that holds a JSON object."""
    return checkpoint.read_json(_bytes(path, most), str(path), most)


def _bytes(path: Path, most: int) -> bytes:
    """The whole of a small file, and one byte more than `most` of a large one."""
    try:
        return read_regular(path, most)
    except OSError as error:
        raise FactsError(f"{path} cannot be read: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    """`Permission denied`, `No such file or directory` (a link that points nowhere), ..."""
    return getattr(error, "strerror", None) or str(error).rstrip(".")


def _some(names: list[str] | tuple[str, ...]) -> str:
    """`a`, `a and b`, or `a, b and 28 more`."""
    if len(names) <= 2:
        return " and ".join(map(printable, names))
    return f"{printable(names[0])}, {printable(names[1])} and {len(names) - 2} more"
