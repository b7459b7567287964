"""TGI137-TGI138: LoRA adapters, and folders of the container that are not there."""

from __future__ import annotations

from collections.abc import Iterator

from tgi_advisor.facts.adapters import Entry, parse
from tgi_advisor.refusals.adapters import NAMED_SINCE, named
from tgi_advisor.validate import catalogue
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, of_refusal, refused, rule
from tgi_advisor.validate.rules.storage import path_in_container, reaches


def _adapters(case: Case) -> Iterator[Entry]:
    """The entries of --lora-adapters, where they are known."""
    word = case.at("lora-adapters")
    if word is not None and word.known:
        yield from (parse(entry) for entry in word.text.split(",") if entry.strip())


@rule(
    "TGI137",
    "error",
    "adapter TGI does not find",
    "adapter-named-too-early",
    "adapter-bare-folder",
)
def adapter_not_found(case: Case) -> Hits:
    """A folder of an adapter is written `name=/folder`, from 2.3.0 on, and has to be mounted (TGI136).

    Without a name the weights are looked for in the Hub's cache alone, in every release: up to 2.2.0 the
    server starts and the adapter changes nothing, then it stops with `No adapter weights found`. Behind
    the `=` stands a folder, never a Hub id (server/text_generation_server/utils/adapter.py@v3.3.7:195-213).

    Failing::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id mistralai/Mistral-7B-v0.1 --lora-adapters /data/my-adapter

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id mistralai/Mistral-7B-v0.1 --lora-adapters mine=/data/my-adapter
    """
    word = case.at("lora-adapters")
    if word is None:
        return
    for adapter in _adapters(case):
        if adapter.bare_folder:
            silent = case.version is not None and case.version < NAMED_SINCE
            message = f"the weights of {adapter.id} are looked for in the Hub's cache, where a folder never is"
            end = ": the server starts, and the adapter changes nothing" if silent else ""
            yield Hit(word, message + end, _named_step(case, adapter))
        elif adapter.folder is not None and case.version is not None and case.version < NAMED_SINCE:
            message = (
                f"TGI {case.release} takes all of {adapter.text} for a Hub id: a name with a folder is new in 2.3.0"
            )
            yield Hit(word, message, "use release 2.3.0 or newer, or an adapter of the Hub")
        elif _hub_like(adapter) and (path := path_in_container(case, adapter.folder or "")) and not reaches(case, path):
            message = f"behind = stands a folder, here {path}, never a Hub id, and nothing is mounted there"
            yield Hit(word, message, f"pass --lora-adapters {adapter.folder}")


def _hub_like(adapter: Entry) -> bool:
    """Whether what stands for the folder looks like a Hub id."""
    return adapter.folder is not None and catalogue.is_hub_id(adapter.folder)


def adapters_not_mounted(case: Case) -> Hits:
    """Adapters whose folder is not in the container, for TGI136."""
    word = case.at("lora-adapters")
    if word is None:
        return
    if case.server.form == "spec":
        yield from of_refusal(case, lambda _: word, ("adapter-not-mounted",), ("lora-adapters",))
    if case.version is not None and case.version < NAMED_SINCE:
        return
    for adapter in _adapters(case):
        path = path_in_container(case, adapter.folder) if adapter.folder and not _hub_like(adapter) else None
        if path is not None and not reaches(case, path):
            yield Hit(word, f"nothing is mounted at {path}, and the adapter is looked for there alone",
                      f"mount a folder at {path}")  # fmt: skip


def _named_step(case: Case, adapter: Entry) -> str:
    step = f"write {named(adapter.id)}"
    if case.version is not None and case.version < NAMED_SINCE:
        step += " and use release 2.3.0 or newer"
    return step


@refused(
    "TGI138", "adapter on a model that takes none", "adapter-class", "adapter-on-packed", "adapter-on-rocm",
    "mixtral-without-mlp", reads=("lora-adapters", "quantize"),
)  # fmt: skip
def adapter_refused(case: Case) -> Value | None:
    """Few of TGI's classes have layers for adapters, and none of them on packed weights.

    Llama, Phi-3, Mistral and Baichuan have them from 2.1.0 on, Gemma 2 from 2.3.1, Granite from 2.4.0,
    StarCoder2 and Phi-MoE from 3.0.2, Qwen2 and Gemma 3 (text) from 3.2.0; vision models, Mixtral, Qwen3 and the
    others never. The base may be in 16 bit, or quantized with eetq or bitsandbytes. Mixtral does not load
    with 2.1.0 at all, which looks for adapters' layers even where there are none. From 3.3.1 on no adapter loads on
    ROCm.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2-VL-7B-Instruct --lora-adapters org/adapter

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --lora-adapters org/adapter
    """
    return case.at("lora-adapters", "model-id")
