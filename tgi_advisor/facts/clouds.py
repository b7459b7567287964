"""Images of TGI that clouds and forks of its model server make: what `clouds.yaml` says of them."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.facts import tables

SAGEMAKER: Mapping[str, str] = {
    "HF_MODEL_ID": "MODEL_ID", "HF_MODEL_REVISION": "REVISION", "SM_NUM_GPUS": "NUM_SHARD",
    "HF_MODEL_QUANTIZE": "QUANTIZE", "HF_MODEL_TRUST_REMOTE_CODE": "TRUST_REMOTE_CODE",
}  # fmt: skip
"""What the SageMaker entry point copies (sagemaker-entrypoint.sh@v3.3.7)."""


def port_of(text: str) -> int | None:
    """The port a variable says, read as the router reads it (router/src/server.rs@v3.3.7:1900); None for any other."""
    found = re.fullmatch(r"\+?0*(\d{1,5})", text, re.ASCII)
    return int(found[1]) if found and 0 < int(found[1]) < 1 << 16 else None


class Cloud(NamedTuple):
    """One row of `clouds.yaml`, which explains the fields."""

    name: str
    """`sagemaker`, `google`, ..."""
    repository: str
    """What the image's name has to contain."""
    system: str
    """What it runs on: `cuda`, `gaudi`, `neuron`, `tpu`."""
    source: str
    """Where the row was read."""
    sources: Mapping[str, str] = {}
    """Files of it, by the release on."""
    release: str = ""
    """Pattern of the version in the reference; empty where it does not say one."""
    minors: Mapping[str, list[str]] = {}
    """Versions behind one of two numbers."""
    made: Sequence[str] = ()
    """Every version it has made an image of, up to the last; empty where that is not known."""
    releases: Mapping[str, str] = {}
    """The TGI release of a version; empty where they are the same."""
    env: Mapping[str, Mapping[str, str]] = {}
    """Environment the image sets, by the release on."""
    port: int | None = None
    """Port its entry point passes; None where it passes none."""
    port_env: str = ""
    """Variable that comes before --port and PORT."""
    model_env: str = ""
    """Variable that names a model for the entry point to fetch."""
    entry: str = ""
    """What its entry point adds: `sagemaker`, or nothing."""
    deaf: Sequence[str] = ()
    """Releases whose entry point passes none of its arguments on, beside SageMaker's, which never does."""
    router: str = ""
    """`other` for a back end with its own server."""
    server: str = ""
    """What stands in place of TGI's model server; empty for that itself."""
    ended: str = ""
    """What became of an image that is no longer made."""

    def said(self, reference: str) -> str:
        """The version a reference says, as `2.3.1` or `2.3`; empty where it says none."""
        found = re.search(self.release, reference) if self.release else None
        return found[1].replace("-", ".") if found else ""

    def versions(self, reference: str) -> tuple[str, ...]:
        """The TGI releases a reference may mean, the likeliest last; a version that is not known as it is written."""
        text = self.said(reference)
        if not text:
            return ()
        if self.releases:
            return (self.releases[text],) if text in self.releases else ()
        return tuple(self.minors.get(text, (text,)))

    def never(self, reference: str) -> tuple[str, str] | None:
        """The versions around the one a reference says, where the cloud has made no image of that; None otherwise."""
        text = self.said(reference)
        if text in self.made or text.count(".") != 2:
            return None
        older = [one for one in self.made if _numbers(one) < _numbers(text)]
        return (older[-1], self.made[len(older)]) if older and len(older) < len(self.made) else None

    def reads_arguments(self, release: str) -> bool:
        """Whether the image of this release hands the arguments of the container to the launcher."""
        return self.entry != "sagemaker" and release not in self.deaf

    @property
    def newest(self) -> str:
        """The newest release it has, as its own tools take it where none is named."""
        return list(self.minors.values())[-1][-1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@cache
def all_clouds() -> tuple[Cloud, ...]:
    """Every row, in the order they are asked in."""
    return tuple(_cloud(name, row) for name, row in tables.load("clouds").items())


@cache
def find(reference: str) -> Cloud | None:
    """The cloud an image reference is of; None for every other image."""
    return next((one for one in all_clouds() if re.search(one.repository, reference)), None)


def _cloud(name: str, row: Mapping[str, Any]) -> Cloud:
    tables.strict(row, set(Cloud._fields) - {"name"}, {"repository", "system", "source"}, f"clouds.yaml, {name}")
    return Cloud(name, **row)
