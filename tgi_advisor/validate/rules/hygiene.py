"""TGI501-TGI509: images, and what could not be judged."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tgi_advisor.errors import Place
from tgi_advisor.facts import release as releases
from tgi_advisor.validate.finding import Fix
from tgi_advisor.validate.found import Value
from tgi_advisor.validate.images import OWN, split
from tgi_advisor.validate.rules.rule import MEMORY_FLAGS, NO_GPU, Case, Hit, Hits, rule


@rule("TGI501", "warning", "image that changes by itself")
def unpinned_image(case: Case) -> Hits:
    """The tag is `latest`, or there is none: the next pull may be another release.

    TGI's CI pushes `latest` on every commit to main, so flags, defaults and the place of the weight cache
    can change from one start to the next.

    Failing::

        tgi:latest --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    image = case.server.image
    if image is None or not case.view.image.floating:
        return
    newest = releases.latest()
    said = "has no tag" if case.view.image.floating == "no tag" else f"has the tag {case.view.image.floating}"
    suffix = case.view.image.floating.removeprefix("latest") if case.view.image.floating != "no tag" else ""
    yield Hit(
        _tag_place(case, image),
        f"the image {said}, so the next pull may be another release{_judged_as(case)}",
        f"pin it: {newest}{suffix}" if case.view.image.official else "pin it: a tag that stays, or a digest",
        once="file",
    )


def _judged_as(case: Case) -> str:
    """What TGI504 would say of such an image, in the same sentence."""
    image = case.view.image
    if not image.note or image.other or not image.judged:
        return ""
    return f"; judged as TGI {image.release}" if image.release else "; which TGI it holds --release says"


def _tag_place(case: Case, image: Value) -> Value | Place:
    """The image, or the line that sets the variable its tag comes from."""
    lines = case.document.text.splitlines()
    tag = split(image.text)[1]
    at = image.place.line
    if not tag or not 0 < at <= len(lines) or tag in lines[at - 1]:
        return image
    for number in range(min(at, len(lines)), 0, -1):
        found = re.match(
            rf"\s*(?:export\s+|set\s+)?\"?[A-Za-z_]\w*=[\"']?(?:\S*:)?{re.escape(tag)}\b", lines[number - 1]
        )
        if found:
            return Place(image.place.file, number, 1)
    return image


@rule("TGI502", "warning", "image without its registry")
def registry(case: Case) -> Hits:
    """TGI's image is on ghcr.io; without a registry Docker looks on Docker Hub, which has none of that name.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    image = case.server.image
    if image is None or not image.known:
        return
    name = split(image.text)[0]
    if name not in case.document.text:
        return  # a file of Apptainer's that is named after it
    if name in ("huggingface/text-generation-inference", "text-generation-inference"):
        fix = Fix(image.spot, image.text, f"{OWN}{image.text.removeprefix(name)}") if name.startswith("hug") else None
        yield Hit(image, f"{name} is not on Docker Hub", f"write {OWN}", fix=fix)


@rule("TGI503", "info", "value that is not in the file")
def unknown_value(case: Case) -> Hits:
    """The file leaves a value to something outside it, and what depends on it is not judged.

    That a value comes from a variable is no news to whoever wrote it: it is said where it keeps memory (TGI2xx)
    from being judged on a GPU that is named, of the model, the limits and the other flags memory depends on, and
    of words that may be any arguments. Environment of other files, and settings that were not read, are
    always said, once a run, but for Secrets and what a shell is set up with (`~/.bashrc`, `.venv/bin/activate`).

    Failing, --gpu nvidia-l4::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id $MODEL

    Fixed, --gpu nvidia-l4::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    unread = [source.text for source in case.server.env_sources] + list(case.server.unknown)
    unread = [text for text in unread if not _SET_UP.match(text)]
    if unread:
        message = f"not in this file, so what depends on it is not judged: {', '.join(dict.fromkeys(unread))}"
        yield Hit(case.home, message, once="run")
    values = list(_missing(case)) if case.gpu is not None else []
    if values:
        message = f"not in this file, so memory is not judged: {', '.join(dict.fromkeys(values))}"
        yield Hit(case.home, message, once="run")


_SET_UP = re.compile(
    r"Secret |what the example leaves out$|.*\(optional\)$|\s*(?:eval\b|set\b|(?:source|\.)[ \t]+\S*"
    r"(?:rc|profile|activate|conda\.sh|/modules\S*|lmod\S*|setvars\.sh|cargo/env)[\"']?$)"
)
"""What no file should hold, what need not be there or is only left out of a page, and what sets up a shell and says
nothing of TGI."""


def _missing(case: Case) -> Iterator[str]:
    """What the memory depends on and the file does not say."""
    words = {name: case.view.flags[name].value for name in ("model-id", *MEMORY_FLAGS) if name in case.view.flags}
    for name, word in (*words.items(), *(("", word) for word in case.view.open_words)):
        if not word.known and not re.search(r"<[^<>\n]+>", word.text):  # what a page's reader fills in is seen there
            yield from (f"${one}" for one in word.missing)
            if not word.missing:
                yield f"the value of --{name}" if name else "arguments that are made elsewhere"


@rule("TGI504", "info", "release that is assumed")
def assumed_release(case: Case) -> Hits:
    """The image does not say for certain which TGI it holds; the findings are those of the release named here.

    Where none can be named, only what every release refuses is said, and memory is not judged. Of a launcher
    without an image it is said where a GPU is named, so that memory could be judged.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:sha-0eabc83 --model-id HuggingFaceH4/zephyr-7b-beta

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:1.4.0 --model-id HuggingFaceH4/zephyr-7b-beta
    """
    image = case.view.image
    mistaken = bool(image.other) and not image.fork  # TGI506 says it
    if not image.note or mistaken or image.never or (image.floating and image.judged):
        return  # of a tag that floats TGI501 says it
    if case.server.image is None and (case.gpu is None or case.server.form == "env"):
        return
    open_release = image.release is None and image.judged
    step = "--release says which it is; until then memory is not judged" if open_release else ""
    yield Hit(case.server.image or case.home, image.note, step, once="run")


@rule("TGI505", "info", "memory that was not judged, or on an assumption")
def not_judged(case: Case) -> Hits:
    """Whether the model fits could not be said, because the model, the GPU or the shard count is not known; or it was
    said on an assumption, which is named.

    `--gpu nvidia-l4 --count 2` names the hardware where the file does not, and an instance type such as
    `--gpu g5.12xlarge` both; `--online` asks the Hub about models that are not shipped. With a GPU and no
    count one is taken. Why memory was not judged is said once a run, of the first server; that no GPU is named only
    where naming one is all that is missing.

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1

    Fixed, --gpu nvidia-l4::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1
    """
    if not case.view.image.judged or case.release is None:
        return  # TGI504 says that the release is not known
    if case.hopeless and not case.view.image.server:
        return
    if NO_GPU in case.unjudged:  # a count without a GPU says nothing
        yield Hit(case.home, f"whether it fits was not judged: {NO_GPU}", once="kind")
    elif case.unjudged:
        yield Hit(case.home, f"whether it fits was not judged: {'; '.join(case.unjudged)}", once="kind")
    if case.assumed:
        counts = case.prediction is not None and case.prediction.outcome != "starts"
        yield Hit(case.home, "; ".join(case.assumed), once="" if counts else "run")


@rule("TGI506", "error", "image of another server")
def other_server(case: Case) -> Hits:
    """The image is another server's, and the arguments are TGI's: it stops at the first it does not know.

    Failing::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-embeddings-inference:1.5 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --max-total-tokens 4096

    Fixed::

        docker run --gpus all --shm-size 1g -p 8080:80 -v tgi-data:/data \\
            ghcr.io/huggingface/text-generation-inference:3.3.7 \\
            --model-id Qwen/Qwen2.5-7B-Instruct --max-total-tokens 4096
    """
    if case.view.image.other and not case.view.image.fork and case.server.image is not None:
        message = f"the image is that of {case.view.image.other}, but the arguments are TGI's"
        yield Hit(case.server.image, message, f"take {OWN}, or the arguments of that server")


@rule("TGI507", "warning", "release that never was")
def no_such_release(case: Case) -> Hits:
    """TGI has published no image of this tag, or SageMaker none of this release, so there is nothing to pull.

    Its tags are a version of two or three numbers, without a `v`, and the ending of a variant that the release
    has (`3.3.7-rocm`).

    Failing::

        tgi:2.0.5 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1

    Fixed::

        tgi:2.0.4 --model-id Qwen/Qwen2.5-7B-Instruct --num-shard 1
    """
    image = case.view.image
    if image.never and case.server.image is not None:
        step = "take one of these" if image.cloud else "take a tag that is there: `tgi-advisor releases` lists them"
        yield Hit(case.server.image, image.never, step)
