"""The page over HTTP: one process, no state between two requests, nothing from outside.

Starlette and uvicorn are those of the extra `web`; they are imported when a page is made.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tgi_advisor import __version__
from tgi_advisor.errors import AdvisorError, MissingError
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.gather import snapshot
from tgi_advisor.safe import masked
from tgi_advisor.spec.records import KV_CACHE_DTYPE, QUANTIZE
from tgi_advisor.web import answer as answers
from tgi_advisor.web import state as states
from tgi_advisor.web.answer import Told, Where
from tgi_advisor.web.state import State

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HERE = Path(__file__).parent
INSTALL = "pip install 'tgi-advisor[web]'"
LONGEST_ADDRESS = 8192
"""Bytes of a query string that are read."""


@dataclass(frozen=True)
class Settings:
    """How the page is served."""

    where: Where = field(default_factory=Where)
    """Where facts about models come from."""
    hosts: tuple[str, ...] = ()
    """Names in a Host header that are answered beside localhost and plain addresses; `*` for any."""
    framed_by: str = ""
    """The one origin that may show the page in a frame; empty for none."""


class Guard:
    """Answers only those who know the server by a name it has, and forbids the page everything from outside.

    A web page of others can make a browser ask this machine under a name of theirs (DNS rebinding), but only under a
    name: plain addresses and localhost are taken, other names must be given.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], settings: Settings) -> None:
        self.app = app
        self.hosts = tuple(host.lower() for host in settings.hosts)
        framed = settings.framed_by or "'none'"
        policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            f"form-action 'self'; base-uri 'none'; frame-ancestors {framed}"
        )
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        if len(given) == 1 and self.knows(given[0]) and len(scope["query_string"]) <= LONGEST_ADDRESS:
            await self.app(scope, receive, with_headers)
            return
        from starlette.responses import PlainTextResponse

        known = len(given) == 1 and self.knows(given[0])
        text = "The address is too long.\n" if known else (
            "This server is not known by that name. Ask for it as localhost, or name it with --allow-host.\n"
        )  # fmt: skip
        await PlainTextResponse(text, 414 if known else 421)(scope, receive, with_headers)

    def knows(self, header: str) -> bool:
        """Whether a Host header names this server."""
        try:
            name = (urlsplit(f"//{header}").hostname or "").lower()
        except ValueError:
            return False
        if name == "localhost" or "*" in self.hosts or name in self.hosts:
            return True
        if any(host.startswith("*.") and name.endswith(host[1:]) for host in self.hosts):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip


@cache
def _choices() -> dict[str, Any]:
    """What the form offers; the same for every page."""
    cards = []
    for row in gpus.all_gpus():
        if row.facts is not None:
            cards.append((row.name, f"{row.facts.memory_bytes / (1 << 30):.0f} GiB"))
            cards += [(kind, f"{count} × {row.name}") for kind, count in row.instances]
    return {
        "models": list(snapshot.names()),
        "cards_known": cards,
        "releases": [one.name for one in reversed(releases.all_releases())],
        "quantize": QUANTIZE,
        "kv": KV_CACHE_DTYPE,
        "load": states.LOAD,
        "shape": states.SHAPE,
        "version": __version__,
    }


def _parts(state: State, where: Where, table: bool) -> dict[str, Any]:
    """What a page is made of: the answer, or the error that stands in its place."""
    found: dict[str, Any] = {"state": state, "answer": None, "told": None, "cards": None, "online": not where.offline}
    try:
        if table:
            found["cards"] = answers.cards(state, where)
        else:
            found["answer"] = answers.answer(state, where)
    except AdvisorError as error:
        found["told"] = answers.told(error, where)
    except Exception as error:  # the last line of defence: a sentence, never a trace
        if os.environ.get("TGI_ADVISOR_DEBUG"):
            raise
        said = f"This is a defect of tgi-advisor: {type(error).__name__}."
        found["told"] = Told(masked(said), (), "Please report it with the link of this page.")
    return found


def build(settings: Settings) -> Starlette:
    """The application; MissingError where the extra `web` is not installed."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.gzip import GZipMiddleware
        from starlette.responses import HTMLResponse, PlainTextResponse
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles

        _templates()
    except ModuleNotFoundError as error:
        raise MissingError(f"The page in a browser needs {error.name}, which is not installed.", INSTALL) from None

    where = settings.where

    def shown(template: str, request: Request, *, table: bool = False, **more: Any) -> Response:
        state = states.read(request.query_params.multi_items())
        parts = _parts(state, where, table)
        text = _templates().get_template(template).render(**parts, **_choices(), **more)
        link = f"?{state.link()}" if state.link() else "?"
        return HTMLResponse(text, headers={"cache-control": "no-store", "page-link": link})

    def page(request: Request) -> Response:
        return shown("page.html", request)

    def results(request: Request) -> Response:
        return shown("results.html", request)

    def cards(request: Request) -> Response:
        return shown("cards.html", request, table=True)

    def steps(request: Request) -> Response:
        pairs = [pair for pair in request.query_params.multi_items() if pair[0] != "bad"]
        state = states.read(pairs)
        try:
            found = answers.further(state, where)
        except AdvisorError:  # it stands in the page already
            found = ()
        text = _templates().get_template("steps.html").render(steps=found, bad="bad" in request.query_params)
        return HTMLResponse(text, headers={"cache-control": "no-store"})

    def take(request: Request) -> Response:
        state = states.read(request.query_params.multi_items())
        try:
            one = answers.taken(state, request.path_params["name"], where)
        except AdvisorError as error:
            told = answers.told(error, where)
            lines = [told.message, *map(str, told.problems), told.hint]
            return PlainTextResponse("\n".join(filter(None, lines)) + "\n", 404)
        named = {"content-disposition": f'attachment; filename="{one.file}"', "cache-control": "no-store"}
        return PlainTextResponse(one.text, headers=named)

    def health(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    routes: Sequence[Any] = (
        Route("/", page), Route("/results", results), Route("/cards", cards), Route("/steps", steps),
        Route("/take/{name}", take), Route("/health", health), Mount("/static", StaticFiles(directory=HERE / "static")),
    )  # fmt: skip
    middleware = [Middleware(Guard, settings=settings), Middleware(GZipMiddleware, minimum_size=1000)]
    return Starlette(routes=list(routes), middleware=middleware)


def warm(settings: Settings) -> None:
    """Read what the first visitor would wait for."""
    _choices()
    _parts(State(), settings.where, table=False)
    _parts(State(), settings.where, table=True)
