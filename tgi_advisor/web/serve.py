"""Runs the page until it is told to end."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

from tgi_advisor.errors import MissingError, UsageError
from tgi_advisor.web.answer import Where
from tgi_advisor.web.app import INSTALL, Settings, build, warm


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def settings(host: str, *, online: bool, hosts: Sequence[str] = (), framed_by: str = "") -> Settings:
    """How the page is served at an address: what it opens to others looks at shipped models alone.

    On loopback what this machine has in its caches is taken too; with `online` the Hub is asked.
    """
    where = Where("auto" if online or is_local(host) else "snapshot", offline=not online)
    return Settings(where, (host, *hosts), framed_by)


def serve(
    host: str, port: int, *, online: bool, hosts: Sequence[str], framed_by: str, told: Callable[[str], None]
) -> None:
    """Serve the page; `told` is given its address once it is listened on. UsageError where that cannot be done."""
    chosen = settings(host, online=online, hosts=hosts, framed_by=framed_by)
    app = build(chosen)
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise MissingError("The page in a browser needs uvicorn, which is not installed.", INSTALL) from None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        hint = "Name another --port, or 0 for a free one."
        raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror or error}", hint) from None
    with listening:
        warm(chosen)
        shown = f"[{host}]" if ":" in host else host
        told(f"http://{shown}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(
            app, log_level="error", access_log=False, lifespan="off", server_header=False, timeout_keep_alive=30,
            limit_concurrency=200, h11_max_incomplete_event_size=16384,
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn ends in good order, and raises what ended it
            return
