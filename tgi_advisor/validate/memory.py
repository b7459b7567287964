"""What a file says about host memory."""

from __future__ import annotations

import re

from tgi_advisor.errors import AdvisorError
from tgi_advisor.render.kubernetes import shm_bytes
from tgi_advisor.units import parse_size
from tgi_advisor.validate.found import Server, Value


def memory_limit(server: Server) -> int | None:
    """Bytes of host memory the container may use; None where nothing limits it, or that is not known."""
    return size_of(server.memory_limit, server.form)


def size_of(value: Value | None, form: str) -> int | None:
    """Bytes of a memory limit: Docker counts `m` and `g` in powers of 1024, Kubernetes in powers of 1000."""
    if value is None or not value.known:
        return None
    try:
        if form in ("compose", "docker-run"):
            return shm_bytes(value.text)
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMGTP]i?|m)?", value.text.strip())
        if found is None:
            return None
        if found[2] == "m":
            return int(float(found[1]) / 1000)
        return parse_size(f"{found[1]}{(found[2] or '').replace('k', 'K')}B")
    except (AdvisorError, ValueError, OverflowError):
        return None
