"""What a container image says about the TGI inside: release, system, entry point, and how sure that is.

TGI's own names are read by `facts/release.py`; the names clouds give it are in `clouds.yaml`, forks and
other servers in `servers.yaml`, and images built from a commit are placed by `commits.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts import clouds, tables
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.clouds import Cloud
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.validate.read.launcher import other_server

OWN = "ghcr.io/huggingface/text-generation-inference"
SYSTEMS = {"": "cuda", "rocm": "rocm", "intel-xpu": "xpu", "intel-cpu": "cpu", "gaudi": "gaudi"}
"""Image variant to TGI's system."""


class Image(NamedTuple):
    """What is known of the program in an image."""

    release: TgiRelease | None
    """The release whose rules hold; None when it cannot be known."""
    note: str
    """Why the release is not certain, or not known; empty when it is."""
    variant: str | None
    """Image variant of `facts/release.py`; None for what has none."""
    system: str | None
    """`cuda`, `rocm`, `xpu`, `cpu`, `gaudi`, or another back end's name; None when it cannot be known."""
    judged: bool = True
    """False for a back end with its own server, whose arguments are not TGI's launcher's."""
    cloud: str = ""
    """Row of `clouds.yaml`; empty for TGI's own image."""
    entry: str = ""
    """`sagemaker` where the entry point reads HF_MODEL_ID and its like."""
    deaf: bool = False
    """Whether its entry point passes no argument on to the launcher."""
    port: int | None = 80
    """What the server listens on when nothing says otherwise; None when that is not known."""
    env: Mapping[str, str] = {}
    """Environment the image sets."""
    port_env: str = ""
    """Variable that says the port before --port and PORT; empty where there is none."""
    model_env: str = ""
    """Variable that names a model for the entry point to fetch; empty where there is none."""
    server: str = ""
    """What stands behind TGI's launcher and router in place of its own model server; empty for that itself."""
    official: bool = False
    """Whether it is TGI's own image or a mirror of it, with nothing added."""
    older: tuple[int, int, int] | None = None
    """The release it really is, where that is before the first of which more than its flags is known; None for others.
    """
    never: str = ""
    """Why no such tag can be there, with the nearest that are; empty where one may be."""
    other: str = ""
    """Another server altogether, where the image is known to be one's; empty for TGI's."""
    fork: bool = False
    """Whether `other` is a fork of TGI, which takes many of its arguments and others of its own."""
    how: Literal["named", "stated", "guessed"] = "named"
    """How it was recognised: by TGI's own name or a cloud's; by what somebody states of it; or by a guess, because
    its name or its arguments look like TGI's. Of a guess neither the flags it has, nor its entry point, its port and
    its folders are known."""
    supposed: bool = False
    """Whether the release is only the likeliest of several: what just some of them refuse is no certain error."""
    floating: str = ""
    """Why the reference can mean another program tomorrow (`no tag`, `latest`); empty when it cannot."""

    @property
    def guessed(self) -> bool:
        """Whether it may be a fork, or hold another program altogether."""
        return self.how == "guessed"


NO_IMAGE = Image(None, "the file names no image", None, None)
"""A bare launcher command, or a container whose image is stated elsewhere."""


@cache
def identify(reference: str) -> Image:
    """The image of a reference; a reference that says nothing yields one whose `note` tells why."""
    name, tag, digest = split(reference)
    floating = "" if digest else _floating(tag)
    cloud = clouds.find(reference)
    if cloud is not None:
        return _of_cloud(cloud, reference)._replace(floating=floating if tag else "")
    other = other_server(name)
    if other is not None:
        note = f"the image is that of {other.what}, which is not judged"
        return Image(None, note, None, None, judged=False, other=other.what, fork=other.fork)
    ending = _other_router(tag)
    if ending:
        return of_backend(ending)._replace(floating=floating)
    if not releases.is_own(name):
        note = f"image {name} is not TGI's own, so its tag says no release"
        return Image(None, note, None, None, how="guessed", floating=floating)
    try:
        said = releases.from_image(f"{name}:{tag}" if tag else name)
    except AdvisorError as error:
        return _unknown_tag(tag, error.message)._replace(floating=floating)
    note = said.note
    never = f"TGI's own tags have no `v`: {tag[1:]}" if tag.startswith("v") and name == OWN else ""
    if digest and not tag:
        note = f"a digest alone does not say the release; taken as TGI {said.release}, the newest that is known"
    return _own(said.release, said.variant, note)._replace(
        floating=floating, never=never, supposed=bool(digest and not tag)
    )


def of_backend(name: str) -> Image:
    """TGI's image of a back end that brings a server of its own."""
    return Image(None, f"the {name} image has its own server, which is not judged", None, name, judged=False)


def newest_of(image: Image) -> Image:
    """A cloud's image without a version: its newest, as its own tools take it."""
    cloud = next(one for one in clouds.all_clouds() if one.name == image.cloud)
    release = releases.find(cloud.newest)
    note = f"no version is given; taken as TGI {release}, {image.cloud}'s newest"
    return _released(image, cloud, (release,))._replace(note=note, supposed=True)


def split(reference: str) -> tuple[str, str, str]:
    """Name, tag and digest of an image reference; tag and digest empty when there is none."""
    name, _, digest = reference.partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, "", digest
    return head, tag, digest


def _image(release: TgiRelease, variant: str, note: str) -> Image:
    env = releases.image_env(release, variant)
    return Image(release, note, variant, SYSTEMS[variant], env=env)


def _own(release: TgiRelease, variant: str, note: str) -> Image:
    return _image(release, variant, note)._replace(official=True)


def _unknown_tag(tag: str, why: str) -> Image:
    """An image whose tag is no release that is known: an old one, a commit, or somebody's own."""
    if by_hand := tables.load("images")["by_hand"].get(tag):
        meant = releases.find(by_hand["release"])
        variant = next(v for v in SYSTEMS if v and tag.endswith(f"-{v}"))
        note = f"pushed by hand before TGI {meant}; taken as that release"
        return _own(meant, variant, note)._replace(supposed=True)
    variant = next((v for v in sorted(SYSTEMS, key=len, reverse=True) if v and tag.endswith(f"-{v}")), "")
    if commit := re.fullmatch(r"sha-([0-9a-f]{7,40})(-.+)?", tag):
        release = _after(commit[1][:7])
        if release is not None:
            variant = variant if variant in releases.variants(release) else ""
            note = f"built from a commit after TGI {release}; taken as that release"
            return _own(release, variant, note)._replace(supposed=True)
    if numbers := re.fullmatch(r"v?(\d{1,9}\.\d{1,9}(?:\.\d{1,9})?)(-.+)?", tag, re.ASCII):
        image = _by_number(numbers[1])
        if image is not None:
            return image
        if numbers[2] in _endings():
            never = f"TGI {releases.find(numbers[1])} has no image whose tag ends with {numbers[2]}"
            return Image(None, why, None, None, official=True, never=never)
    return Image(None, why, None, None, official=True)


@cache
def _endings() -> frozenset[str]:
    """What a tag ends with for a variant of some release."""
    return frozenset(end for row in tables.load("images")["variants"].values() for end in row["tag"].values() if end)


def _by_number(text: str) -> Image | None:
    """The image of a version that is none of the releases that are known; None for one that is.

    One of those before them is taken as the first; in between, there is none of that number.
    """
    wanted = tuple(map(int, text.split(".")))
    older = [releases.version(name) for name in tables.load("images")["older"]]
    known = [one.version for one in releases.all_releases()]
    every = [*older, *known]
    if any(one[: len(wanted)] == wanted for one in known):
        return None
    if meant := [one for one in older if one[: len(wanted)] == wanted]:
        first = releases.all_releases()[0]
        note = f"of TGI {text} only the flags are known; else it is taken as {first}, the oldest that is known"
        return _own(first, "", note)._replace(older=meant[-1])
    why = f"TGI {text} is not known"
    if wanted > every[-1][: len(wanted)]:
        return Image(None, why, None, None, official=True)
    around = [max((one for one in every if one < wanted), default=None), min(one for one in every if one > wanted)]
    nearest = " and ".join(".".join(map(str, one)) for one in around if one is not None)
    return Image(None, why, None, None, official=True, never=f"there is no TGI {text}; nearest to it: {nearest}")


def _after(commit: str) -> TgiRelease | None:
    """The last release before a commit of TGI's main branch."""
    for name, commits in tables.load("commits").items():
        if commit in commits.split():
            return releases.find(name)
    return None


def _floating(tag: str) -> str:
    if not tag:
        return "no tag"
    return tag if tag == "latest" or tag.startswith("latest-") else ""


def _other_router(tag: str) -> str:
    return next((end for end in tables.load("images")["other_router"] if tag.endswith(f"-{end}")), "")


def _of_cloud(cloud: Cloud, reference: str) -> Image:
    variant = next((v for v, system in SYSTEMS.items() if system == cloud.system), None)
    ended = f"; {cloud.ended}" if cloud.ended else ""
    server = f"{cloud.server} ({cloud.ended})" if cloud.ended else cloud.server
    note = f"the release in {cloud.name}'s image cannot be known{ended}"
    if cloud.router == "other":
        note = f"the image is {cloud.name}'s, which has its own server and is not judged"
    unknown = Image(
        None, note, variant, cloud.system,
        cloud.router != "other", cloud.name, cloud.entry, cloud.entry == "sagemaker",
        port_env=cloud.port_env, model_env=cloud.model_env, server=server,
    )  # fmt: skip
    unknown = _with_env(unknown, cloud, list(cloud.env.values()))
    versions = cloud.versions(reference)
    if not versions:
        return unknown
    newest = versions[-1]
    try:
        release = releases.find(newest)
    except AdvisorError as error:
        other = _by_number(newest)
        if other is None or other.release is None:
            return unknown._replace(note=other.note if other else error.message, never=other.never if other else "")
        return _released(unknown, cloud, (other.release,))._replace(note=other.note, older=other.older)
    image = _released(unknown, cloud, tuple(releases.find(one) for one in versions))
    if (around := cloud.never(reference)) is not None:
        image = image._replace(never=f"{cloud.name} has no image of TGI {release}, only of {around[0]} and {around[1]}")
    if len(versions) > 1 or newest.count(".") == 1:
        note = f"{cloud.name}'s image names TGI {release.version[0]}.{release.version[1]} without a patch release"
        return image._replace(note=f"{note}; taken as {release}", supposed=True)
    return image._replace(note="")


def _released(image: Image, cloud: Cloud, versions: Sequence[TgiRelease]) -> Image:
    """The image of a cloud with its release and the environment it sets: of several only what holds for each."""
    deaf = all(not cloud.reads_arguments(one.name) for one in versions)
    known = image._replace(release=versions[-1], deaf=deaf)
    return _with_env(known, cloud, [releases.in_force(cloud.env, one) or {} for one in versions])


def _with_env(image: Image, cloud: Cloud, envs: Sequence[Mapping[str, str]]) -> Image:
    env = {name: text for name, text in envs[-1].items() if all(one.get(name) == text for one in envs)} if envs else {}
    port = int(env["PORT"]) if cloud.port is None and "PORT" in env else cloud.port
    return image._replace(env=env, port=port)
