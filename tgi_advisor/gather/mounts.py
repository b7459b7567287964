"""Where a path of the container lies on this machine."""

from __future__ import annotations

import posixpath
from pathlib import Path

from tgi_advisor.spec.records import Spec


def on_this_machine(spec: Spec, path: str) -> Path:
    """A folder of the container as the host has it, through the spec's mounts."""
    for mount in spec.container.mounts:
        below = posixpath.relpath(path, mount.target) if path.startswith("/") else ".."
        if "/" in mount.source and below != ".." and not below.startswith("../"):
            return Path(mount.source) / below
    return Path(path)
