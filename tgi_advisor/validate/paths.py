"""Paths of the container, and where on the host they lie."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tgi_advisor.validate.found import Mount


def inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies below it."""
    return path == folder or path.startswith(f"{folder}/")


def host_folder(mount: Mount) -> str | None:
    """The folder or volume of a mount as a spec writes it; None when it cannot be known."""
    source = mount.source
    if source is None or re.match(r"[A-Za-z]:\\", source.text):  # a folder of Windows, which no format here can write
        return None
    for variable, short in (("PWD", "."), ("HOME", "~")):
        found = re.fullmatch(rf"\$\{{?{variable}\}}?(/.*)?|\$\(pwd\)(/.*)?", source.text)
        if found and (variable == "PWD" or not source.text.startswith("$(pwd)")):
            return short + (found[1] or found[2] or "")
    return source.text if source.known else None


def on_host(path: str, mounts: Sequence[Mount]) -> str:
    """A path of the container as one of the host, where a folder of the host is mounted there; else as it is."""
    for mount in mounts:
        target = mount.target.text.rstrip("/")
        if mount.kind == "bind" and target and inside(path, target):
            folder = host_folder(mount)
            if folder is not None:
                return folder.rstrip("/") + path[len(target) :]
    return path
