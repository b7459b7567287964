"""What a TGI server is recognised by: its image, or the launcher on a command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from tgi_advisor.facts import tables
from tgi_advisor.validate.found import Defect, Value
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.stated import name_of, tag_of
from tgi_advisor.validate.read.words import Variable, lex

IMAGE_WORDS = ("text-generation-inference", "tgi-inference", "hf-tgi-serve", "tgi-gaudi", "neuronx-tgi")
"""What the name of a TGI image holds: Hugging Face's own and its mirrors, the cloud containers, Vertex AI's, the forks
for Gaudi and Neuron."""
MISTAKEN = ("text-embeddings-inference", "vllm-openai", "lmsysorg/sglang")
"""Part of the images of other servers that are given TGI's arguments by mistake."""
STATED: ContextVar[Mapping[str, str]] = ContextVar("STATED", default=MappingProxyType({}))
"""Images that comments of the file being read say are TGI's."""
LAUNCHER = "text-generation-launcher"
"""The program of every image."""

MAX_IMAGE = 500
"""Longest name of an image."""
_IMAGE = re.compile(
    r"(?:docker(?:-image)?:(?://)?|docker\.io/|oci://)?"
    r"(?:[^\s/]+/)*[^\s/:@]*(?:text-generation-inference|tgi-inference|hf-tgi-serve|tgi-gaudi|neuronx-tgi)"
    r"(?!-(?:benchmark|client|proxy|exporter|ui|chat))[^\s/@:]*(?:[:@][^\s]*)?"
)
_EXPRESSION = re.compile(r"(?<!\$)\([\"']|\(\)|\[[\"']")
"""A call, or an index: an expression that names an image is none itself."""
_ACTION = re.compile(r"\{\{[^{}]*\}\}")
_LAUNCHERS = frozenset({LAUNCHER, "tgi-entrypoint.sh", "text_generation_launcher"})


def is_image(text: str) -> bool:
    """Whether the text names a TGI image, on any registry, or one that a comment says is TGI's."""
    if tag_of(STATED.get(), text.strip()):
        return True
    if not any(word in text for word in IMAGE_WORDS) or len(text) > MAX_IMAGE or _EXPRESSION.search(text):
        return False
    return bool(_IMAGE.fullmatch(_ACTION.sub("x", text.strip())))


def is_launcher(text: str) -> bool:
    """Whether a word of a command is TGI's launcher or the entry point of its images."""
    return text.rpartition("/")[2] in _LAUNCHERS


class OtherServer(NamedTuple):
    """A server whose image is not TGI's."""

    what: str
    """What it is, for a sentence."""
    fork: bool
    """Whether it is a fork of TGI, which takes many of its arguments."""


@cache
def other_server(image: str) -> OtherServer | None:
    """The server an image is known to be of, by its name; None where it is not one of `servers.yaml`."""
    name = name_of(image).lower()
    for key, row in tables.load("servers").items():
        tables.strict(row, {"image", "what", "fork", "source"}, {"image", "what", "source"}, f"servers.yaml, {key}")
        if re.search(row["image"], name):
            return OtherServer(row["what"], "fork" in row)
    return None


_FORKED = frozenset(
    (
        "--model-name",
        "--deployment-framework",
        "--dtype-str",
        "--max-sequence-length",
        "--max-new-tokens",
        "--grpc-port",
    )
)  # fmt: skip


def is_fork(words: Sequence[str]) -> bool:
    """Whether a launcher's words are those of IBM's fork (IBM/text-generation-inference, launcher/src/main.rs)."""
    return any(word.partition("=")[0] in _FORKED for word in words)


_LIMITS = r"max-(?:total-tokens|input-(?:tokens|length)|batch-(?:prefill|total)-tokens)"
_OUR_LIMITS = re.compile(rf"--{_LIMITS}(?:=|$)")
"""Flags that no other server has, whatever else its flags are."""
_OUR_FLAGS = re.compile(rf"--(?:num-shard|{_LIMITS})(?:=|$)")


def is_ours(image: Value | None, words: Sequence[str]) -> bool:
    """Whether a container is meant to run TGI: by its image, or by flags only TGI has where the image is not known,
    is that of a server it is mistaken for, or bears a name of one's own.
    """
    if image is None:
        return False
    if is_image(image.text):
        return True
    other = other_server(image.text)
    if other is None and image.known:  # an image under a name of one's own
        named = any(word.partition("=")[0] == "--model-id" for word in words)
        return named and any(_OUR_LIMITS.match(word) for word in words) and not _of_another(words)
    return (other is None or not other.fork) and any(_OUR_FLAGS.match(word) for word in words)


def _of_another(words: Sequence[str]) -> bool:
    """Whether the words are those of a fork: IBM's, LoRAX's, or kv.run's."""
    return is_fork(words) or any(
        re.match(r"--(?:adapter-|eager-prefill|preloaded-adapter|page-)", word) for word in words
    )


_OF_BACKENDS = {
    "--executor-worker": "trtllm",
    "--model-gguf": "llamacpp",
    "--n-gpu-layers": "llamacpp",
}
"""Flags of back ends that have a launcher of their own under the name of TGI's (backends/trtllm/src/main.rs@v3.3.7:65,
backends/llamacpp/src/main.rs@v3.3.7:57,77)."""


def backend_of(words: Sequence[str]) -> str:
    """The back end with a launcher of its own whose flags these are; empty where they are not."""
    named = (word.partition("=")[0] for word in words)
    return next((_OF_BACKENDS[name] for name in named if name in _OF_BACKENDS), "")


class Launch:
    """A launcher found in a command: the word that names it, its arguments, and what a shell does before it runs."""

    __slots__ = ("args", "assigned", "defects", "entry", "fetched")

    def __init__(
        self, entry: Value | None, args: Sequence[Value], defects: Sequence[Defect] = (), fetched: Value | None = None
    ) -> None:
        self.entry = entry
        self.args = tuple(args)
        self.defects = tuple(defects)
        self.fetched = fetched
        self.assigned: tuple[tuple[str, Value], ...] = ()


_FETCHES = re.compile(
    r"(?<![\w-])(?:download\w*|snapshot_download|clone|cp|mv|ln|tar|unzip|curl|wget|aria2c|rsync|scp|aws|gsutil|gcloud|az"
    r"|s5cmd|rclone|mc|mount|mkdir|oras|python3?|\.|source|sh|bash)(?![\w-])"
)
"""Commands of a shell after which files may lie in the container that nothing mounts there."""
_ASSIGNED = re.compile(r"(?<![\w$\"'{-])([A-Za-z_]\w*)=(?!=)")
"""Variables a shell sets before it runs the launcher; what they hold is not looked at."""


def launch_of(
    words: Sequence[Value], sources: Mapping[int, Source], variables: Mapping[str, Variable]
) -> Launch | None:
    """The launcher a command that replaces the entry point runs, or None when it runs something else.

    `sources` has, by the position of a word, the text of words that may themselves be shell scripts
    (`sh -c "text-generation-launcher ..."`), `variables` what the container's environment is there.
    """
    for at, word in enumerate(words):
        if is_launcher(word.text):
            return Launch(word, words[at + 1 :])
        if LAUNCHER in word.text and at in sources:
            for launch in launches_in(sources[at], variables):
                before = sources[at].text.partition(LAUNCHER)[0]
                if _FETCHES.search(before):
                    launch.fetched = word
                names = dict.fromkeys(_ASSIGNED.findall(before))
                launch.assigned = tuple(
                    (name, Value(f"${name}", word.place, known=False, missing=(name,))) for name in names
                )
                return launch
    if words and words[0].text.startswith("-"):  # arguments where the program should stand
        return Launch(words[0], words)
    return None


def launches_in(
    source: Source, variables: Mapping[str, Variable], start: int = 0, end: int | None = None
) -> Iterator[Launch]:
    """Every launcher command in a shell text."""
    at = start
    while (at := source.text.find(LAUNCHER, at, end)) >= 0:
        first = at
        while first > 0 and source.text[first - 1] not in " \t\n\"'`;|&(=":
            first -= 1
        command = lex(source, first, variables, end=end, mend=True)
        at = max(command.end, at + 1)
        if command.words and is_launcher(command.words[0].text):
            given = command.words[1:]
            if given and all(word.known and not word.text.startswith("-") for word in given):
                continue  # named in a text
            values = [word.as_value(source) for word in command.words]
            yield Launch(values[0], values[1:], command.defects)
