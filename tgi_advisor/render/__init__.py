"""A `Container` as text: one file per format, one line each in the register.

Every format is a function from a `Container` to its text and reads nothing else, so that what one
format says every other says too. A format's file is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tgi_advisor.errors import UsageError, did_you_mean, listed

if TYPE_CHECKING:  # so that the names of the formats cost nothing
    from tgi_advisor.plan import Container

    Renderer = Callable[[Container], str]


def _in_file(module: str) -> Renderer:
    """The `render` of a file of this folder, imported on its first call."""

    def render(container: Container) -> str:
        from importlib import import_module

        text: str = import_module(f"{__name__}.{module}").render(container)
        return text

    return render


FORMATS: Mapping[str, Renderer] = {
    "docker-run": _in_file("docker_run"),
    "compose": _in_file("compose"),
    "kubernetes": _in_file("kubernetes"),
    "args": _in_file("args"),
    "env": _in_file("env"),
    "json": _in_file("json_"),
    "systemd": _in_file("systemd"),
    "kserve": _in_file("kserve"),
    "skypilot": _in_file("skypilot"),
    "dstack": _in_file("dstack"),
    "cloudrun": _in_file("cloudrun"),
    "sagemaker": _in_file("sagemaker"),
    "endpoints": _in_file("endpoints"),
    "azureml": _in_file("azureml"),
    "vertex": _in_file("vertex"),
    "helm": _in_file("helm"),
}

PLATFORMS = ("kserve", "skypilot", "dstack", "cloudrun", "sagemaker", "endpoints", "azureml", "vertex")
"""Formats of platforms that have some GPUs and take some images and folders: for others they raise SpecError."""


ONE_SERVER = ("docker-run", "compose", "env", "systemd")
"""Formats of one machine."""


def render(container: Container, name: str) -> str:
    """The container in the format `name`, ending with a newline; UsageError when there is no such format."""
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS) or f"The formats are {listed(list(FORMATS), 'and')}."
        raise UsageError(f"There is no output format {name!r}.", hint)
    return FORMATS[name](container)


def files(container: Container, name: str) -> Mapping[str, str]:
    """The texts of a format that is several files, by their names; UsageError for one that is one."""
    if name != "helm":
        raise UsageError(f"--format {name} is one file", "Leave --output out, and redirect standard output.")
    from tgi_advisor.render import helm

    return helm.files(container)


def together(containers: Sequence[Container], name: str) -> str:
    """Servers of one machine as one file, in the order they have to start; UsageError for formats that keep none."""
    if name != "compose":
        raise UsageError(
            f"{name} writes one server", "Write several as --format compose, which starts one after the other."
        )
    from tgi_advisor.render import compose

    return compose.together(containers)


def note(container: Container, name: str) -> str | None:
    """What the format `name` does not say of the container and its reader has to add; None where there is nothing."""
    if name in ONE_SERVER and (container.replicas > 1 or container.scaling):
        return f"{name} starts one server: replicas and autoscale are for --format kubernetes."
    if name == "docker-run" and container.cluster.asked:  # which has no comments to keep it in
        return "docker-run has no words for the section kubernetes: it is for --format kubernetes."
    if name not in _WITH_NOTES:
        return None
    from importlib import import_module

    said: str | None = import_module(f"{__name__}.{name}").note(container)
    return said


_WITH_NOTES = ("args", *PLATFORMS)
"""Formats whose file has a `note`."""
