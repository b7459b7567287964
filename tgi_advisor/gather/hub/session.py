"""The bounds around the session over which huggingface_hub asks: how much, how long, how often.

They are laid around the library's own session, so that a program which configured that (`set_client_factory`) keeps
its configuration, and its other threads notice nothing. Ours is only what the library has no setting for:

size      a body is read up to a limit, also once unpacked; of a refusal or a redirect no body is read at all
time      every wait ends with the exchange's deadline, redirects and further attempts included
attempts  what may pass is tried again, for a while; the library itself retries downloads only
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from tgi_advisor.deadline import Deadline
from tgi_advisor.gather.hub import settings
from tgi_advisor.gather.hub.wording import NO_HUB, FailedError, UnreachableError, busy, failed, late

if TYPE_CHECKING:
    from tgi_advisor.gather.hub.client import Client

ATTEMPTS = 4
"""How often one request is sent before we give up."""
BACKOFF = (0.25, 0.75, 2.0)
"""Seconds between the attempts."""
LONGEST_WAIT = 10.0
"""The longest Retry-After we sit out, in seconds."""
REDIRECTS = 8

_AGENTS = "/api/agent-harnesses"
"""What the library asks once a day on its own account, for its User-Agent: a round trip, or 3 s behind a firewall."""


class Span(NamedTuple):
    """Bytes of a file that are asked for, both ends included."""

    first: int
    """The first byte, from 0."""
    last: int
    """The last byte."""


class Exchange(NamedTuple):
    """What bounds the requests of one call of the library."""

    client: Client
    """Who asks."""
    limit: int
    """The most bytes of a body, where no span is asked for."""
    span: Span | None
    """The bytes asked for."""
    judge: Callable[[Any], None] | None
    """Sees each good answer before the library reads it, and may raise."""
    deadline: Deadline
    """When it ends."""


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
"""The exchange of this thread; without one the session does what it did before."""
_making = threading.Lock()


def bind() -> None:
    """Lay our bounds around the session the library uses now; outside of `ask` it does what it did before."""
    from huggingface_hub import close_session, get_session

    now = _surroundings()
    with _making:
        try:
            with _roots():
                session = get_session()
                if isinstance(session.send, Send) and session.send.made_for != now:
                    close_session()
                    session = get_session()
        except ImportError:  # a proxy that speaks SOCKS
            what, hint = (
                "is of a kind that tgi-advisor cannot use",
                "give an http:// proxy in HTTP_PROXY and HTTPS_PROXY",
            )
        except OSError:
            what = "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE names no file of certificates"
            raise UnreachableError(f"The Hub cannot be asked: {what}.", "Correct it or unset it.") from None
        except Exception as error:
            if not isinstance(error, ValueError) and type(error).__name__ != "InvalidURL":
                raise
            what, hint = "has no valid address", "correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
        else:
            if not isinstance(session.send, Send):
                session.send = Send(session.send, now)  # type: ignore[method-assign]
            return
    raise UnreachableError(f"{_proxy()} {what}", f"{hint}, or exempt the Hub with NO_PROXY")


def _proxy() -> str:
    """The proxies of the environment, as they may be shown."""
    given = {value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "all_proxy")}
    urls = (url if "://" in url else f"http://{url}" for url in given if url)
    return f"the proxy {' or '.join(sorted(map(settings.public, urls)))}"


def _surroundings() -> dict[str, str]:
    """The variables a session is made from."""
    names = ("_proxy", "_ca_bundle", "ssl_cert_file", "ssl_cert_dir")
    return {name: value for name, value in os.environ.items() if name.lower().endswith(names)}


@contextmanager
def _roots() -> Iterator[None]:
    """REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE, which people have set, under the name that the library's client reads."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    before = os.environ.get("SSL_CERT_FILE")
    if bundle:
        os.environ["SSL_CERT_FILE"] = bundle
    try:
        yield
    finally:
        if bundle:
            del os.environ["SSL_CERT_FILE"]
        if bundle and before:
            os.environ["SSL_CERT_FILE"] = before


class Send:
    """In place of a session's `send` (of httpx, which huggingface_hub 1 uses, or httpx2, which 2 does)."""

    def __init__(self, plain: Callable[..., Any], made_for: dict[str, str]) -> None:
        self._plain = plain
        self.made_for = made_for

    def __call__(self, request: Any, **how: Any) -> Any:
        """The answer to a request; within an exchange of ours the whole of it, or UnreachableError."""
        exchange = current.get()
        if exchange is None:
            return self._plain(request, **how)
        if request.url.path == _AGENTS:
            raise ConnectionError("not asked for")  # the library goes on without
        for attempt in range(ATTEMPTS):
            try:
                return self._followed(request, exchange)
            except FailedError as error:
                trouble = error
            wait = BACKOFF[min(attempt, len(BACKOFF) - 1)] if trouble.after is None else trouble.after
            too_late = time.monotonic() + wait > exchange.deadline.end
            if not trouble.again or attempt == ATTEMPTS - 1 or wait > LONGEST_WAIT or too_late:
                break
            exchange.client.status = f"{exchange.client.host} {trouble.what}; trying again in {wait:g} s"
            time.sleep(wait)
        raise trouble.told(exchange.client.host, attempt + 1)

    def _followed(self, request: Any, exchange: Exchange) -> Any:
        """One attempt: the answer at the end of the redirects. The library keeps the token from other hosts."""
        request.headers["accept-encoding"] = "identity" if exchange.span else "gzip"
        url = request.url
        told: dict[bytes, bytes] = {}
        for _ in range(REDIRECTS + 1):
            response, body = self._once(request, exchange)
            told.update((name.lower(), value) for name, value in response.headers.raw)
            if not response.has_redirect_location:
                # Put together anew: read, unpacked, and without what the library would print of it.
                for name in (b"content-encoding", b"transfer-encoding", b"x-hf-warning"):
                    told.pop(name, None)
                answer = type(response)(response.status_code, headers=[*told.items()], content=body, request=request)
                if exchange.judge and answer.is_success:
                    exchange.judge(answer)
                return answer
            request = response.next_request
            if request is None or request.url.scheme not in ("http", "https") or not request.url.host:
                where = settings.public(str(url))
                raise UnreachableError(f"{where} redirects to something that is no web address.", NO_HUB)
        raise UnreachableError(f"{exchange.client.shown} redirects in circles ({REDIRECTS} times).", NO_HUB)

    def _once(self, request: Any, exchange: Exchange) -> tuple[Any, bytes]:
        trouble: FailedError | None
        try:
            waits = dict.fromkeys(("connect", "read", "write", "pool"), exchange.deadline.left)
            request.extensions = {**request.extensions, "timeout": waits}
            response = self._plain(request, stream=True, follow_redirects=False)
            try:
                body = _read(response, exchange)
            finally:
                response.close()
        except FailedError:
            raise
        except Exception as error:  # noqa: BLE001  (what is not known is raised again)
            trouble = failed(error, str(request.url), exchange.deadline)
        else:
            trouble = busy(response)
        if trouble:  # outside of the handler: what it explains is not to hang on it
            raise trouble
        return response, body


def _read(response: Any, exchange: Exchange) -> bytes:
    """The body, unpacked, of what was asked for; nothing of a refusal or a redirect.

    Also the bytes asked for of a server that ignores Range and sends the file from its beginning.
    """
    if response.status_code not in (200, 206):
        return b""
    span = exchange.span
    from_start = span is not None and response.status_code == 200
    limit = exchange.limit if span is None else span.last + 1 if from_start else span.last - span.first + 1
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > limit or (from_start and len(body) == limit):
            if not from_start:
                raise FailedError("sends more than such a file can hold", NO_HUB)
            break
        if exchange.deadline.over:
            raise late()
    return bytes(body[span.first : span.last + 1] if span and from_start else body)
