"""A model's facts from the Hub, in as few round trips as the Hub allows.

The repository's entry, config.json and tokenizer_config.json are asked for at once. The entry counts the
elements of each dtype; where the family's layout adds up to exactly these counts, that was all, unless it is a family
that transformers' own class reads file by file. Otherwise one call returns the tensor headers of many shards, and of
few, or where it is missing (mirrors, other branches, files with names of their own), the beginnings of the files are
read in parallel.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.facts import families, layouts
from tgi_advisor.facts.model import DTYPE_BITS, Files, ModelFacts, TensorGroup
from tgi_advisor.gather import checkpoint
from tgi_advisor.gather.checkpoint import Grouped
from tgi_advisor.gather.class_defaults import fill_defaults
from tgi_advisor.gather.environment import public
from tgi_advisor.gather.hub.client import Client, Span
from tgi_advisor.gather.hub.wording import UnreachableError, refused
from tgi_advisor.gather.names import COMMIT, check_id
from tgi_advisor.safe import printable

INDEX = "model.safetensors.index.json"
GUESS = 100_000
"""Bytes asked for first of each weight file: most headers end within them."""
FEW = 8
"""Weight files whose beginnings are read at once, with no call for all of them first, which mirrors do not have."""
MOMENT = 0.7
"""Seconds before progress is worth a line."""

_STANDARD = re.compile(r"model(-[0-9]{5}-of-[0-9]{5})?\.safetensors")

Progress = Callable[[str], None]


def read(model_id: str, revision: str = "main", progress: Progress | None = None) -> ModelFacts:
    """The facts of a model on the Hub at a branch, tag or commit.

    `progress` is called with a line of text now and then once it takes longer than a moment.
    `UnreachableError` when the Hub gave no usable answer, another FactsError for everything it can refuse.
    """
    return _Reading(Client(), model_id, revision, progress).facts()


class _Reading:
    """One model being read: what all its requests share."""

    def __init__(self, client: Client, repo: str, revision: str, progress: Progress | None) -> None:
        self.client = client
        self.asked = repo
        self.repo = repo
        """The id the repository has now; the one asked for may be an older one."""
        self.revision = revision
        self.progress = progress
        self.started = time.monotonic()
        self.held = 0
        """Bytes of the tensor headers read so far."""

    def facts(self) -> ModelFacts:
        repo, at = self.repo, self.revision
        entry, config_file, tokenizer_file = self._all(
            lambda ask: ask(),
            [
                self._entry,
                lambda: self.client.file(repo, at, "config.json", bounds.MAX_CONFIG + 1),
                lambda: self.client.file(repo, at, "tokenizer_config.json", bounds.MAX_TOKENIZER + 1),
            ],
            f"asking {self.client.shown} about {repo}",
        )
        info = self._info(entry)
        self.repo = _present_id(info.get("id"), repo)
        config_file = self._good(config_file, "config.json")
        commit = info.get("sha") or config_file.headers.get("x-repo-commit")
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            commit = None
        pinned = commit or at
        weights = checkpoint.which_files(_names(info), repo)
        checkpoint.require_all_shards(weights.files, repo)
        if commit and config_file.headers.get("x-repo-commit", commit) != commit:  # pushed to in this very moment
            config_file = self._file("config.json", commit, bounds.MAX_CONFIG + 1)
        config = checkpoint.read_config(config_file.content, f"config.json of {repo}")
        weights = checkpoint.files_of_heads(weights, config, repo)
        defaults = fill_defaults(config)
        full = {**config, **defaults}
        if weights.format == "bin":
            (tensors, files), how = self._of_pickles(weights.files, full, pinned)
        elif proved := _proved(weights.files, full, info):
            tensors, files, how = proved, _one_file(weights.files, proved), "tensors proved by the Hub's element counts"
        else:
            with _no_collection():
                tensors, files = self._of_headers(weights.files, full, pinned, info)
            how = "tensors from the files' headers"
        where = f"{self.client.shown}/{self.repo}"
        return ModelFacts(
            id=self.asked,
            commit=commit,
            source=f"Hub: {where} at commit {commit or self.revision}, {how}",
            config=config,
            defaults=defaults,
            tensors=tensors,
            files=files,
            model_max_length=self._model_max_length(tokenizer_file),
            gated=bool(info.get("gated")),
            weights_format=weights.format,
        )

    def _entry(self) -> Any:
        """The repository's entry: a response, or the library's refusal."""
        at = quote(self.revision, safe="")
        path = f"/api/models/{self.repo}/revision/{at}?expand=sha&expand=gated&expand=safetensors&expand=siblings"
        return self.client.get(path, bounds.MAX_INDEX)

    def _info(self, answer: Any) -> dict[str, Any]:
        body, where = self._good(answer, "").content, public(str(answer.url))
        try:
            return checkpoint.read_json(body, where)
        except FactsError:
            kind = printable(answer.headers.get("content-type", "").partition(";")[0][:40]) or "something"
            raise UnreachableError(
                f"{where} answers with {kind} that is no entry of a model.",
                "Check HF_ENDPOINT; a proxy or login page may have answered instead of the Hub.",
            ) from None

    def _all(self, work: Callable[[Any], Any], items: Iterable[Any], what: str) -> list[Any]:
        todo = list(items)

        def tick(done: int) -> None:
            if self.progress and time.monotonic() - self.started > MOMENT:
                self.progress(self.client.status or (f"{what}: {done} of {len(todo)}" if len(todo) > 3 else what))

        return self.client.all(work, todo, tick)

    def _file(self, name: str, at: str, limit: int) -> Any:
        """A file that must be there."""
        return self._good(self._one(name, at, limit), name)

    def _one(self, name: str, at: str, limit: int) -> Any:
        return self._all(lambda name: self.client.file(self.repo, at, name, limit), [name], f"asking about {name}")[0]

    def _good(self, answer: Any, what: str) -> Any:
        """The answer; a refusal is raised, in our words."""
        if isinstance(answer, Exception):
            raise refused(answer, self.repo, self.revision, printable(what), self.client.token_from)  # type: ignore[arg-type]
        return answer

    def _model_max_length(self, answer: Any) -> int | None:
        if isinstance(answer, Exception) and answer.response.status_code == 404:  # type: ignore[attr-defined]
            return None
        body = self._good(answer, "tokenizer_config.json").content
        where = f"tokenizer_config.json of {self.repo}"
        return checkpoint.model_max_length(checkpoint.read_json(body, where, bounds.MAX_TOKENIZER))

    def _of_headers(
        self, files: tuple[str, ...], config: Mapping[str, Any], at: str, info: Mapping[str, Any]
    ) -> Grouped:
        """Tensors as the headers have them: all in one call where that is sure to be this commit, else file by file."""
        layers = checkpoint.layers(config)
        totals = _totals(info)
        if len(files) > FEW and self.revision == "main" and totals and INDEX in _names(info):
            headers = self._in_one_call(files)
            if headers is not None:
                grouped = checkpoint.group_tensors(headers, layers)
                if layouts.count(grouped.tensors) == totals or checkpoint.quantization(config):
                    return grouped
        headers = self._all(lambda name: self._header(name, at), files, f"tensor headers of {self.repo}")
        return checkpoint.group_tensors(headers, layers)

    def _in_one_call(self, files: tuple[str, ...]) -> list[checkpoint.Header] | None:
        """All headers in one call; None where the server does not have it, or gives what cannot be used."""
        path = f"/api/models/{self.repo}/safetensors-metadata/{INDEX}"
        try:
            (answer,) = self._all(
                lambda path: self.client.get(path, bounds.MAX_HEADERS), [path], f"tensor headers of {self.repo}"
            )
            return None if isinstance(answer, Exception) else checkpoint.parse_headers(answer.content, files, path)
        except FactsError:
            return None

    def _header(self, name: str, at: str) -> checkpoint.Header:
        where = f"{self.repo}/{printable(name)}"
        answer = self.client.file(self.repo, at, name, 0, Span(0, GUESS - 1))
        response = getattr(answer, "response", answer)
        data = b"" if response.status_code == 416 else self._good(answer, name).content
        size = _file_size(response)
        end = 8 + checkpoint.header_length(data, where, size)
        self.held += end
        if self.held > bounds.MAX_HEADERS:
            raise FactsError(f"The tensor headers of {self.repo} are longer than {bounds.MAX_HEADERS:,} bytes.")
        if len(data) < end and len(data) == GUESS:
            data += self._good(self.client.file(self.repo, at, name, 0, Span(GUESS, end - 1)), name).content
        return checkpoint.parse_header(data, where, size)

    def _of_pickles(self, files: tuple[str, ...], config: Mapping[str, Any], at: str) -> tuple[Grouped, str]:
        """Tensors of a repository with only *.bin: the family's layout, if the index agrees in names and bytes."""
        answer = self._one("pytorch_model.bin.index.json", at, bounds.MAX_INDEX)
        if not isinstance(answer, Exception):
            index = checkpoint.read_json(answer.content, f"pytorch_model.bin.index.json of {self.repo}")
            if proved := layouts.derive_from_index(config, index):
                return Grouped(*proved), "tensors proved by the index of its .bin files"
        raise FactsError(
            f"{self.repo} has only pickled weights ({printable(files[0])}), "
            "whose tensors cannot be read without fetching them.",
            "Look for a copy in safetensors, often the revision refs/pr/1, or give a folder with the converted model.",
        )


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: DeepSeek-V3's headers are half a million objects and no garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _present_id(present: object, asked: str) -> str:
    """The id a renamed repository has now, which spares its further requests a redirect."""
    if not isinstance(present, str):
        return asked
    try:
        check_id(present)
    except FactsError:
        return asked
    return present


def _names(info: Mapping[str, Any]) -> list[str]:
    """Names of the repository's files."""
    siblings = info.get("siblings")
    names = [s.get("rfilename") for s in siblings if isinstance(s, dict)] if isinstance(siblings, list) else []
    return [name for name in names if isinstance(name, str)]


def _totals(info: Mapping[str, Any]) -> dict[str, int]:
    """Elements by dtype as the Hub counts them; it unpacks the integers of AWQ and GPTQ files."""
    found = info.get("safetensors")
    totals = found.get("parameters") if isinstance(found, dict) else None
    if not isinstance(totals, dict) or not all(type(count) is int for count in totals.values()):
        return {}
    return totals if DTYPE_BITS.keys() >= totals.keys() else {}


def _proved(
    files: tuple[str, ...], config: Mapping[str, Any], info: Mapping[str, Any]
) -> tuple[TensorGroup, ...] | None:
    """The family's layout where the Hub's counts prove it; the Hub counts files with the usual names only.

    Not where files count that only their headers tell apart.
    """
    totals = _totals(info)
    if len(files) > 1 and families.is_left_to_transformers(str(config.get("model_type"))):
        return None
    usual = all(_STANDARD.fullmatch(name) for name in files) and (len(files) == 1 or "model.safetensors" not in files)
    return layouts.derive(config, totals) if totals and usual else None


def _one_file(files: tuple[str, ...], tensors: tuple[TensorGroup, ...]) -> Files:
    """Which tensors lie in which file, where there is but one."""
    return (tuple([group.count for group in tensors]),) if len(files) == 1 else ()


def _file_size(response: Any) -> int | None:
    """Size of a file of which a part was asked for."""
    of = response.headers.get("content-range", "").rpartition("/")[2]
    if response.status_code == 200:
        of = response.headers.get("content-length", "")
    return int(of) if of.isdecimal() and len(of) <= bounds.MAX_DIGITS else None
