"""What one TGI release does at launch and warm-up, and the tables that say so."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from tgi_advisor.errors import FactsError, SpecError, listed
from tgi_advisor.facts import clouds, tables

REPOSITORY = "https://github.com/huggingface/text-generation-inference"
Version = tuple[int, int, int]


VARIANTS = {"cuda": "", "rocm": "rocm", "xpu": "intel-xpu", "cpu": "intel-cpu", "gaudi": "gaudi"}
"""Which image variant serves which system."""


class TgiRelease(NamedTuple):
    """One release; `releases.yaml` writes the first in full and then only what changed.

    Rules that only gate a refusal compare `version`; everything that enters the memory sum is a
    field here.
    """

    version: Version
    """(3, 3, 7)."""
    date: str
    """Date of the tag's commit."""
    commit: str
    """Short commit of the tag."""
    wiggle: float
    """Default of TGI_WIGGLE_ROOM in the server: the share that may become KV cache."""
    wiggle_env: bool
    """Whether TGI_WIGGLE_ROOM is read (2.3.0 on)."""
    wiggle_of: Literal["free", "total"]
    """What the share multiplies: the memory free at the peak, or the whole GPU (3.0.0 on)."""
    launcher_wiggle: float
    """The launcher's own copy, used for the prefill default only."""
    attentions: tuple[str, ...]
    """Attention back ends of the CUDA image."""
    warmup_new_tokens: Literal["two", "rest"]
    """New tokens of a warm-up request: always 2, or max_total_tokens - truncate."""
    warmup_limits_optional: bool
    """2.4.1 on: limits may be left open; one warm-up request of max_batch_prefill_tokens is built."""
    speculate_in_blocks: bool
    """Whether `speculate` slots count in a request's blocks (1.3.0 on)."""
    warmup_blocks_back: Literal["always", "if_unfinished"]
    """Whether the warm-up's own blocks always count as free again (2.1.0-2.4.0: only if a request was left)."""
    batch_size_caps_warmup: bool
    """Whether --max-batch-size also shortens the warm-up batch."""
    batch_size_holds: bool
    """Whether no batch without chunked prefills grows beyond --max-batch-size (2.3.0 on). Before, one that was full
    let in all the KV cache had room for: the router asked its queue for 0 more and stopped at none."""
    prefill_logits: Literal["two_copies", "in_place", "flag"]
    """Full-vocabulary logits of all prefill tokens: with a log-softmax copy, in place, or only on request."""
    limits_default: Literal["1024_2048", "context_4096", "warmup_2.4.1", "warmup_3.0.0", "warmup_3.0.1", "warmup_3.0.2"]
    """How max_total_tokens and max_input_tokens are filled in when left out (reference a.5)."""
    prefill_default: Literal["4096", "max_input_plus_50", "context_4096", "compute"]
    """How max_batch_prefill_tokens is filled in when left out: 4096; max_input + 50, or max_batch_size x max_input
    when that is given (2.0.0-2.4.0); min(4096, context) (2.4.1); from the GPU's and the model's FLOPS (3.0.0 on)."""
    chunking: Literal["none", "off", "on"]
    """Prefill chunking: not in the code, off by default, on by default."""
    vlm_chunking: bool
    """Whether vision-language classes may chunk (3.3.0 on)."""
    cuda_graphs: Literal["none", "opt_in", "default"]
    """CUDA graphs: none, behind --enable-cuda-graphs, or captured by default."""
    graph_sizes: tuple[int, ...]
    """Batch sizes captured by default or on opt-in."""
    graph_buffers: Literal["per_size_request", "per_size_total", "shared_total"]
    """Block tables kept per size over a request's blocks; per size over max_total; one shared set."""
    graph_errors: Literal["none", "any", "out_of_memory"]
    """Which errors of the capture TGI logs and goes on after: none where nothing is captured, any, or (2.0.0 on)
    only those of PyTorch's allocator. What the driver itself refuses ("CUDA error: out of memory", as an error of
    `capture_end`) then ends the start."""
    flashinfer_bytes: int
    """Workspace and wrapper buffers of flashinfer, allocated before warm-up; 0 without flashinfer."""
    transformers_fallback: bool
    """Whether unknown families may run on TransformersFlashCausalLM (3.0.2 on)."""
    quantize: tuple[str, ...]
    """Values --quantize accepts."""
    cache_env: str
    """Environment variable that names the weight cache in the image."""
    token_env: str
    """Environment variable TGI reads the Hub token from."""
    all_gpus_counts_one: bool
    """Whether NVIDIA_VISIBLE_DEVICES=all is counted as one device (until 3.3.6)."""
    source: str
    """Where the row was read."""

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def name(self) -> str:
        """`3.3.7`."""
        return str(self)


class ImageTag(NamedTuple):
    """What an image reference says about the TGI inside."""

    release: TgiRelease
    """The release."""
    variant: str
    """Empty for CUDA, else `rocm`, `intel-cpu`, `intel-xpu` or `gaudi`."""
    certain: bool
    """Whether the reference names one release for good; `latest`, a digest or no tag do not."""
    note: str
    """When it is not certain: what was assumed, and why."""


def find(text: str) -> TgiRelease:
    """The release `3.3.7`, `v3.3.7`, `3.3` (its last patch) or `latest` (the newest known); FactsError otherwise."""
    if text == "latest":
        return latest()
    numbers = re.fullmatch(r"v?(\d{1,9}\.\d{1,9}(?:\.\d{1,9})?)", text, re.ASCII)
    if numbers is None:
        raise FactsError(
            f"{text[:80]!r} is no TGI release",
            f"write a version such as {_names()[-1]}; `tgi-advisor releases` lists those that are known",
        )
    matching = _matching(text.removeprefix("v"))
    if not matching:
        raise FactsError(
            f"TGI {text.removeprefix('v')} is not known", _nearest([int(n) for n in numbers[1].split(".")])
        )
    return _release(matching[-1])


def latest() -> TgiRelease:
    """The newest release that is known."""
    return _release(_names()[-1])


def all_releases() -> tuple[TgiRelease, ...]:
    """Every release that is known, oldest first."""
    return tuple(_release(name) for name in _names())


def sources(release: TgiRelease) -> Mapping[str, str]:
    """Where each field was read: field -> `path@tag:line` in TGI's repository."""
    return _merged(release.name)[1]


def version(name: str) -> Version:
    """`3.3.7` as numbers that compare; ValueError when it is none."""
    major, minor, patch = name.split(".")
    return int(major), int(minor), int(patch)


def in_force(changes: Mapping[str, Any], release: TgiRelease) -> Any:
    """The value a `release -> value` table holds for a release; None before its first row."""
    held = [value for since, value in changes.items() if version(since) <= release.version]
    return held[-1] if held else None


def from_image(image: str, stated: TgiRelease | None = None) -> ImageTag:
    """Release and variant of a container image, from any registry.

    The tag tells both. `stated` is the release the spec names beside the image: it decides where the tag
    says none. SpecError when it is no image reference or both contradict each other; FactsError when the
    tag tells no release that is known, or a variant that release did not have.
    """
    tag, digest = _tag(image)
    said, suffix, note = _said_by_cloud(tag, image, stated) or _said(tag, image, stated)
    if said and stated and said is not stated and not note:
        raise SpecError(
            f"image {image!r} is TGI {said}, but the spec says release {stated}", "leave out tgi.release or correct it"
        )
    release = stated or said or latest()
    variant = _variant(suffix, release, image, stated is not None)
    if stated:
        note = "" if said else note
    elif digest and not note:
        note = f"the digest decides what runs; taken as TGI {release} because the tag says so"
    return ImageTag(release, variant, not note, note)


def is_own(image: str) -> bool:
    """Whether an image is TGI's own, at ghcr.io or a mirror, by its name; a tag and a digest may follow."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    name = head if colon and "/" not in tag else name
    return name == "text-generation-inference" or name.endswith("huggingface/text-generation-inference")


def retagged(image: str, release: str) -> str:
    """The image of another release: its tag with the version replaced, or as it is where the tag has none."""
    name = find(release).name
    return re.sub(r"(:v?)[0-9]+(\.[0-9]+){1,2}(?=$|-[a-z-]+$)", rf"\g<1>{name}", image)


def image_for(release: TgiRelease, variant: str = "") -> str:
    """TGI's own image: `ghcr.io/huggingface/text-generation-inference:3.3.7-rocm`; FactsError where there is none."""
    ending = in_force(_image(variant)["tag"], release)
    if ending is None:
        raise FactsError(f"TGI {release} has no {variant} image", _since(variant))
    return f"{tables.load('images')['repository']}:{release}{ending}"


def image_env(release: TgiRelease, variant: str = "") -> dict[str, str]:
    """Environment the image itself sets, as far as it matters here (PORT, the cache folder, ATTENTION, ...)."""
    return dict(in_force(_image(variant)["env"], release) or {})


def cache_env(release: TgiRelease, variant: str = "") -> str:
    """The variable that names the weight cache in the image: HF_HOME, or HUGGINGFACE_HUB_CACHE before 2.3.0.

    The intel-cpu image keeps HUGGINGFACE_HUB_CACHE to the end (Dockerfile_intel@v3.3.7:152).
    """
    return next(
        (name for name in image_env(release, variant) if name != release.cache_env and name in _CACHES),
        release.cache_env,
    )


def variants(release: TgiRelease) -> tuple[str, ...]:
    """The image variants a release has; the empty one is CUDA."""
    table = tables.load("images")["variants"]
    return tuple(name for name, row in table.items() if in_force(row["tag"], release) is not None)


_CACHES = ("HF_HOME", "HUGGINGFACE_HUB_CACHE")
_FIELDS = frozenset(TgiRelease._fields) - {"version", "source"}
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?"
_IMAGE = (
    rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::(\w[\w.-]{{0,127}}))?(?:@([A-Za-z][\w+.-]*:[0-9A-Fa-f]{{32,}}))?"
)


@cache
def _names() -> list[str]:
    return list(tables.load("releases"))


@cache
def _release(name: str) -> TgiRelease:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in _merged(name)[0].items()
    }
    return TgiRelease(version=version(name), source=f"{REPOSITORY}/tree/v{name}", **values)


@cache
def _merged(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a release and their sources: the first row with every change up to `name` on top."""
    fields: dict[str, Any] = {}
    read: dict[str, str] = {}
    for release, row in tables.load("releases").items():
        where = f"releases.yaml, {release}"
        tables.strict(row, _FIELDS | {"sources"}, _FIELDS - fields.keys() | {"date", "commit"}, where)
        cited = row.get("sources", {})
        tables.strict(cited, row.keys(), row.keys() - {"date", "commit", "sources"}, f"{where}, sources")
        fields.update(row)
        read.update(cited)
        if release == name:
            break
    fields.pop("sources", None)
    return fields, read


def _matching(text: str) -> list[str]:
    """The releases a version names, oldest first: one for `3.3.7`, every patch for `3.3`."""
    wanted = [int(number) for number in text.split(".")]
    return [name for name in _names() if list(version(name))[: len(wanted)] == wanted]


def _nearest(wanted: list[int]) -> str:
    """What to write instead of a version that is not known."""
    names = _names()
    older = [name for name in names if list(version(name)) < wanted]
    newer = names[len(older) :]
    if not older:
        return f"the oldest release that is known is {names[0]}"
    if not newer:
        return f"the newest release that is known is {names[-1]}: name it to estimate with its rules"
    return f"the nearest releases are {listed([older[-1], newer[0]], 'and')}"


def _tag(image: str) -> tuple[str, str]:
    """Tag and digest of an image reference, each empty when it has none."""
    parts = re.fullmatch(_IMAGE, image[:513], re.ASCII)
    if parts is None or len(image) > 512:
        raise SpecError(
            f"{image[:80]!r} is no image reference",
            "write it as docker does: registry/name:tag, such as " + image_for(latest()),
        )
    return parts[1] or "", parts[2] or ""


def _said(tag: str, image: str, stated: TgiRelease | None) -> tuple[TgiRelease | None, str, str]:
    """What a tag says: the release, the ending behind it, and a note when the release is an assumption."""
    newest = f"taken as TGI {latest()}, the newest that is known"
    if not tag:
        return latest(), "", f"image {image!r} has no tag that tells its release; {newest}"
    if moving := re.fullmatch(r"latest(-.+)?", tag):
        return latest(), moving[1] or "", f"the tag {tag!r} follows TGI's main branch; {newest}"
    if commit := re.fullmatch(r"sha-([0-9a-f]{7,40})(-.+)?", tag):
        return _built_at(commit[1], image, stated), commit[2] or "", ""
    if numbers := re.fullmatch(r"v?(\d+\.\d+(\.\d+)?)(-.+)?", tag, re.ASCII):
        if stated and not _matching(numbers[1]):
            return None, numbers[3] or "", f"TGI {numbers[1]} of tag {tag!r} is not known; taken as the {stated} stated"
        release = find(numbers[1])
        open_ended = not numbers[2] and release is latest()
        return release, numbers[3] or "", f"the tag {tag!r} moves with new patches; {newest}" if open_ended else ""
    if stated is None:
        raise FactsError(f"the tag of image {image!r} tells no TGI release", "state it: tgi.release beside tgi.image")
    return None, next((ending for ending in _endings(stated) if tag.endswith(ending)), ""), ""


def _said_by_cloud(tag: str, image: str, stated: TgiRelease | None) -> tuple[TgiRelease | None, str, str] | None:
    """What the reference of a cloud's image says, whose tag may begin with another version; None for every other."""
    cloud = clouds.find(image)
    if cloud is not None and (cloud.router == "other" or (cloud.server and stated is None)):
        whose = cloud.server or f"a back end for {cloud.system} with its own router"
        raise FactsError(
            f"image {image!r} runs {whose}, of which nothing is known: there is nothing to estimate",
            cloud.ended or f"name an image for GPUs, such as {image_for(latest())}",
        )
    if cloud is None or not cloud.release or cloud.system != "cuda":
        return None
    versions = cloud.versions(image)
    if not versions and stated is None and not tag:
        note = f"image {image!r} has no tag that tells its release; taken as TGI {cloud.newest}, its newest"
        return find(cloud.newest), "", note
    if not versions and stated is None:
        raise FactsError(f"the tag of image {image!r} tells no TGI release", "state it: tgi.release beside tgi.image")
    if not versions or (stated and not _matching(versions[-1])):
        return None, "", ""
    release = find(versions[-1])
    several = f"image {image!r} is one of TGI {', '.join(versions)}; taken as the last" if len(versions) > 1 else ""
    return release, "", several


def _built_at(commit: str, image: str, stated: TgiRelease | None) -> TgiRelease | None:
    for release in all_releases():
        if release.commit.startswith(commit) or commit.startswith(release.commit):
            return release
    if stated is None:
        raise FactsError(
            f"image {image!r} was built from a commit that is no release",
            "state the release nearest to it: tgi.release beside tgi.image",
        )
    return None


def _endings(release: TgiRelease) -> list[str]:
    """What tags of a release may end with, longest first; without the empty one."""
    table = tables.load("images")
    modelled = [in_force(table["variants"][name]["tag"], release) for name in variants(release)]
    return sorted(filter(None, [*modelled, *(f"-{name}" for name in table["other_router"])]), key=len, reverse=True)


def _variant(ending: str, release: TgiRelease, image: str, stated: bool) -> str:
    """The variant a tag's ending stands for in a release."""
    name = ending.removeprefix("-")
    table = tables.load("images")
    if name in table["other_router"]:
        raise FactsError(
            f"image {image!r} runs the {table['other_router'][name]} back end, which has its own router and no warm-up "
            "that measures the KV cache: there is nothing to estimate",
            f"use one of {listed([image_for(release, variant) for variant in variants(release)])}",
        )
    for variant in variants(release):
        if in_force(table["variants"][variant]["tag"], release) == ending:
            return variant
    if name in table["variants"]:
        raise FactsError(f"TGI {release} has no {name} image", _since(name))
    if stated:
        return ""
    raise FactsError(
        f"the tag of image {image!r} ends with {ending!r}, which is no variant of TGI {release}",
        f"its images are {listed([image_for(release, variant) for variant in variants(release)], 'and')}; "
        "for an image of your own state tgi.release",
    )


def _image(variant: str) -> Any:
    known = tables.load("images")["variants"]
    if variant not in known:
        raise FactsError(f"{variant!r} is no image variant that is known", f"known are {listed(list(known), 'and')}")
    return known[variant]


def _since(variant: str) -> str:
    first, ending = next(iter(_image(variant)["tag"].items()))
    return f"the first release that has one is {first} ({first}{ending})"
