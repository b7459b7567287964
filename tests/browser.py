"""Debian's Chromium, driven by Playwright, before a page that is really served."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import uvicorn
from playwright.sync_api import Browser, sync_playwright

from tgi_advisor.web.app import build, warm
from tgi_advisor.web.serve import settings

CHROMIUM = shutil.which("chromium")
AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


@contextmanager
def served() -> Iterator[str]:
    """The page as `tgi-advisor web` serves it; its address."""
    chosen = settings("127.0.0.1", online=False)
    app = build(chosen)
    warm(chosen)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; as root it has no sandbox to run in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds serious or critical on a page."""
    page.evaluate(AXE)  # a script of another origin is what the page's own policy forbids
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
