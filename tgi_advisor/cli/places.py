"""Which place a command is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tgi_advisor.launch.place import Place


def chosen() -> Place:
    """The place; EngineError when it does not answer."""
    from tgi_advisor.launch.docker.engine import connect
    from tgi_advisor.launch.docker.place import DockerPlace

    return DockerPlace(connect())
