"""TGI130-TGI139: which model, and whether the release can serve it."""

from __future__ import annotations

import posixpath
import re

from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts import families
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.refusals.load import served_elsewhere
from tgi_advisor.validate import catalogue
from tgi_advisor.validate.finding import Severity
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.adapters import adapters_not_mounted
from tgi_advisor.validate.rules.rule import Case, Hit, Hits, of_refusal, refused, rule
from tgi_advisor.validate.rules.storage import WORKDIR, elsewhere, mounted_at, path_in_container, reaches

_PLACEHOLDER = re.compile(r"[<>{}\[\]]|\byour|\bMODEL", re.IGNORECASE)


@rule("TGI130", "warning", "no model is named")
def model_missing(case: Case) -> Hits:
    """Nothing names a model, so the launcher loads its default, bigscience/bloom-560m.

    That is rarely what is meant: often the variable is misspelt, or set for another image.

    Failing::

        LOG_LEVEL=info tgi:3.3.7 --num-shard 1

    Fixed::

        LOG_LEVEL=info tgi:3.3.7 --num-shard 1 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    view = case.view
    of_program = case.server.form == "launcher" and case.document.form == "python"  # whose environment is not known
    elsewhere = of_program or case.server.form in ("platform", "helm", "env", "dockerfile")
    if "model-id" in view.flags or not view.complete or view.slips or elsewhere:
        return
    if view.image.model_env in view.env or view.image.entry == "sagemaker":
        return  # its entry point fetches one, or stops (TGI177)
    if any(word.text == "--env" for word in case.server.args):
        return  # nothing is served
    yield Hit(
        case.home, "no model is named: TGI loads its default, bigscience/bloom-560m", "pass --model-id or MODEL_ID"
    )


_FOLDER = re.compile(r"(?![a-z][a-z0-9+.-]*:)[^\s:<>{}\[\]$@]*[^\s:<>{}\[\]$@/]/?")
"""What may be a folder below the one that the launcher is started in."""
_IN_IMAGE = ("docker-run", "compose", "kubernetes", "sagemaker")
"""Forms in which TGI's image decides where its launcher is started."""


def _may_be_folder(case: Case, model: str) -> bool:
    """Whether a relative path may lead to a folder: on this host, where a command goes before, or below a mount."""
    if not _FOLDER.fullmatch(model):
        return False
    if case.server.form not in _IN_IMAGE or case.server.entry is not None:
        return True
    stated = case.server.workdir
    if any(not mount.target.known for mount in case.server.mounts) or (stated is not None and not stated.known):
        return True
    return reaches(case, posixpath.join(stated.text if stated is not None else WORKDIR, model))


@rule("TGI131", "error", "not a model id")
def invalid_model_id(case: Case) -> Hits:
    """What stands for the model is neither a Hub id (`owner/name`) nor a path of the container.

    A web address, blanks, a trailing colon or a tag behind it (`owner/name:main`) make the download fail
    with `HFValidationError`. A revision has its own flag, `--revision`. A placeholder is a warning. A folder of
    the Hub's cache, `models--owner--name`, holds the files in `snapshots/<commit>`, and TGI looks no deeper
    (server/text_generation_server/utils/hub.py@v3.3.7:37-47).

    Failing::

        tgi:3.3.7 --model-id https://huggingface.co/Qwen/Qwen2.5-7B-Instruct

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    word, model = case.at("model-id"), case.view.model
    if word is not None and model and (meant := catalogue.of_hub_cache(model)) is not None:
        message = f"{model[:80]} is a folder of the Hub's cache, with the model's files only below snapshots/<commit>"
        yield Hit(word, message, f"write {meant}, or {model.rstrip('/')}/snapshots/ and the commit")
        return
    if word is None or model is None or catalogue.is_path(model) or catalogue.is_hub_id(model):
        return
    if mounted_at(case, model) is not None or _may_be_folder(case, model):
        return
    if not model.strip():
        yield Hit(word, "the model id is empty", "name a Hub id (owner/name) or a path of the container")
        return
    if case.server.form == "dockerfile" and "$" in model:
        message = f"a list in a Dockerfile is not read by a shell: the launcher gets {model[:80]!r} as the model's name"
        yield Hit(word, message, "leave the argument out and set MODEL_ID, which the launcher reads itself")
        return
    bare = model.removeprefix("https://").removeprefix("http://").removeprefix("huggingface.co/").strip("/ '\"")
    step = f"did you mean {bare}?" if catalogue.is_hub_id(bare) else "write owner/name, or a path that begins with /"
    severity: Severity = "warning" if _PLACEHOLDER.search(model) else "error"
    yield Hit(word, f"{model[:80]!r} is neither a Hub id nor a path of the container", step, severity)


@rule("TGI132", "error", "no such model on the Hub")
def model_not_found(case: Case) -> Hits:
    """The family has no model of that size, so the download fails with `RepositoryNotFoundError`.

    Only families whose sizes are a closed list are judged; nothing is looked up. Of another hub (HF_ENDPOINT), or an
    image of one's own, nothing is said: it may hold anything under any name.

    Failing::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.2-8B-Instruct

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:3.3.7 --model-id meta-llama/Llama-3.2-3B-Instruct
    """
    word, model = case.at("model-id"), case.view.model
    if elsewhere(case) or case.view.image.guessed:
        return
    if word is not None and model and case.facts is None and (why := catalogue.no_such_size(model)):
        yield Hit(word, f"there is no {model}: {why}", "correct the name")


@rule("TGI133", "warning", "not a model that generates text")
def not_text_generation(case: Case) -> Hits:
    """A diffusion pipeline, a speech model or an encoder has no class in TGI that could serve it.

    A pipeline without a config.json at its root is refused for certain (an error); for the others TGI
    has no class, and what transformers makes of them generates nothing useful.

    Failing::

        tgi:3.3.7 --model-id openai/whisper-large-v3

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    word, model = case.at("model-id"), case.view.model
    if word is not None and model and (found := catalogue.not_text(model)):
        what, certain, server = found
        message = f"{model} is {what}, which text-generation-inference cannot serve"
        step = f"use a server made for it{f': {server}' if server else ''}"
        yield Hit(word, message, step, "error" if certain else None)


_UNSUPPORTED = (
    "unsupported-model-type", "ssm-deprecated", "llama4-import", "llama4-mask", "phi-msft",
    "backend-compatible-missing", "remote-code-needed", "dbrx-part-for-whole", "experts-without-cache",
    "tower-not-packed",
)  # fmt: skip


@rule("TGI134", "error", "model the release cannot serve", *_UNSUPPORTED)
def model_unsupported(case: Case) -> Hits:
    """This release has no class for the model's architecture, or has one that does not load or run.

    Failing::

        tgi:2.4.1 --model-id Qwen/Qwen3-8B

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen3-8B
    """
    word, model, release = case.at("model-id"), case.view.model, case.release
    found = list(of_refusal(case, lambda case: case.at("model-id"), _UNSUPPORTED, ("trust-remote-code",)))
    yield from found
    kind = catalogue.model_type(model) if model else None
    if found or case.facts is not None or word is None or model is None or kind is None or release is None:
        return
    if "trust-remote-code" in case.view.flags or not case.sure("model-id") or "revision" in case.view.flags:
        return  # the repository's own code may serve it
    variant = case.view.image.variant or ""
    try:
        family = families.find(ModelFacts(model, None, "", {"model_type": kind}, {}, ()), release, variant)
    except AdvisorError:
        return  # what the image holds is not known
    if not family.supported:
        split = (case.shards or 1) > 1 and variant != "gaudi"
        said = "sharded is not supported for AutoModel" if split else f"Unsupported model type {kind}"
        message = f"{model} is of type {kind}, for which TGI {release} has no class: TGI stops with {said!r}"
        yield Hit(word, message, served_elsewhere(family, release.version, gaudi=variant == "gaudi"))


@refused(
    "TGI135", "model newer than the release", "rope-scaling-unknown",
    reads=("rope-scaling", "rope-factor"),
)  # fmt: skip
def model_too_new(case: Case) -> Value | None:
    """The model's config.json is written in a form this release cannot read.

    Llama 3.1 and later name their rope scaling `rope_type: llama3`, which TGI knows from 2.2.0 on; until
    2.0.1 it looks for `type` and stops with `KeyError`, then transformers' own check of the configuration
    stops it (server/text_generation_server/utils/layers.py@v2.0.1:1031, layers/rotary.py@v2.2.0:91).

    Failing::

        HF_TOKEN=$HF_TOKEN tgi:2.1.1 --model-id meta-llama/Llama-3.1-8B-Instruct

    Fixed::

        HF_TOKEN=$HF_TOKEN tgi:2.2.0 --model-id meta-llama/Llama-3.1-8B-Instruct
    """
    return case.at("model-id")


@refused(
    "TGI139", "speculation heads TGI does not take", "heads-unknown", "speculate-above-heads", "heads-of-automodel",
    "mlp-speculator-untied", "mlp-speculator-of-none", "medusa-of-many-blocks", "medusa-packed", "heads-missing",
    "heads-of-no-class",
    reads={"speculate-above-heads": ("speculate",), "mlp-speculator-of-none": ("speculate",)},
)  # fmt: skip
def heads_refused(case: Case) -> Value | None:
    """Medusa heads and MLP speculators name the model they are for in their config.json, and TGI serves that with them,
    Medusa's from 1.3.0 on and the others from 2.0.3 on. From 2.3.0 on it loads only MLP speculators with
    `tie_weights`; no more tokens can be guessed ahead (`--speculate`) than there are heads.
    """
    return case.at("speculate", "model-id")


@rule("TGI136", "error", "path that is not in the container", "adapter-not-mounted")
def path_not_mounted(case: Case) -> Hits:
    """The model is a path, but nothing is mounted there: the name is then taken for a Hub id, and not found.

    A relative path starts at the image's working directory /usr/src, not at the host's folder. The folders of
    --weights-cache-override and of adapters (`--lora-adapters name=/folder`) have to be mounted as well.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v $PWD/models:/models \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id models/my-llama

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v $PWD/models:/models \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id /models/my-llama
    """
    yield from _override_not_mounted(case)
    yield from adapters_not_mounted(case)
    word, model = case.at("model-id"), case.view.model
    if word is None or not model or case.server.form not in ("docker-run", "compose"):
        return  # a cluster may mount more than a pod says
    if catalogue.is_path(model):
        path = path_in_container(case, model)
        if path is not None and not reaches(case, path):
            message = f"nothing is mounted at {path}, and the image does not hold it"
            yield Hit(word, message, f"mount a folder at {path}")
        return
    mount = mounted_at(case, model)
    if mount is not None:
        path = posixpath.join("/", model)
        message = f"{model} is relative to /usr/src, but the weights are mounted on {mount.target.text}"
        yield Hit(word, message + ": the name is taken for a Hub id", f"write {path}")


def _override_not_mounted(case: Case) -> Hits:
    """--weights-cache-override is a folder that holds the weight files themselves (utils/hub.py@v3.3.7:124)."""
    word = case.at("weights-cache-override")
    path = path_in_container(case, word.text) if word is not None and word.known and word.text else None
    if word is not None and path is not None and not reaches(case, path):
        message = f"nothing is mounted at {path}, and the weights are looked for there alone"
        yield Hit(word, message, f"mount the folder with the weights at {path}")
