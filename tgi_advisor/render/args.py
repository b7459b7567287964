"""The launcher's arguments on one line, quoted for `sh`."""

from __future__ import annotations

import shlex

from tgi_advisor.errors import SpecError
from tgi_advisor.plan import Container

_MODEL = {"MODEL_ID", "HF_MODEL_ID"}
"""Variables that name the model."""


def render(container: Container) -> str:
    """What follows the image's name; the environment is not among it, `note` says it.

    SpecError where the image passes no argument on to the launcher.
    """
    if not container.args and _MODEL & container.env.keys():
        raise SpecError(
            "This image reads no arguments: its launcher is set by variables alone.",
            "Choose another format, such as env or docker-run.",
        )
    return shlex.join(container.args) + "\n"


def note(container: Container) -> str | None:
    """The environment the arguments need beside them: variables, and flags that an argument cannot carry."""
    env = {**container.device_env, **container.env}
    if not env:
        return None
    stated = " ".join(shlex.quote(f"{name}={value}") for name, value in env.items())
    return f"The arguments alone are not this server: its environment holds {stated}"
