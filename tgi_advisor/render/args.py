"""The launcher's arguments on one line, quoted for `sh`."""

from __future__ import annotations

import shlex

from tgi_advisor.plan import Container


def render(container: Container) -> str:
    """What follows the image's name; the environment is not among it (that is the `env` format)."""
    return shlex.join(container.args) + "\n"
