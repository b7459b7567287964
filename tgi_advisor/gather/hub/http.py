"""A small HTTP client for many short GETs: parallel, bounded, patient for a while, discreet about the token.

The standard library's http.client is used because it is loaded in a fraction of the time any larger client takes.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from tgi_advisor import bounds
from tgi_advisor.deadline import Deadline, keep
from tgi_advisor.errors import FactsError
from tgi_advisor.gather.hub.settings import public
from tgi_advisor.safe import named

ATTEMPTS = 4
"""How often one request is sent before we give up."""
BACKOFF = (0.25, 0.75, 2.0)
"""Seconds between the attempts."""
PATIENCE = bounds.HUB_S
"""Seconds after which no further attempt starts and no answer is read on, or HF_HUB_DOWNLOAD_TIMEOUT if longer."""
LONGEST_WAIT = 10.0
"""The longest Retry-After we sit out, in seconds."""
REDIRECTS = 8
CHUNK = 1 << 16

T = TypeVar("T")
R = TypeVar("R")

_MIRROR = "Check HF_ENDPOINT: something that is not a Hub may stand in between (a proxy, a login page)."


class UnreachableError(FactsError):
    """The Hub gave no usable answer: network, DNS, TLS, timeouts, 429, 5xx, or somebody else answered."""


class Answer(NamedTuple):
    """One answer of the Hub, whatever its status."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Header fields, names in lower case; of redirects too, the last one wins."""
    body: bytes
    """The body, never longer than the limit asked for."""
    url: str
    """Where it came from, fit to be shown."""


class _FailedError(Exception):
    """One attempt failed; `what` completes `The Hub at <host> ...`."""

    def __init__(self, what: str, hint: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.again = again
        """Whether another attempt may go better."""
        self.after = after
        """Seconds the server asks us to wait."""


class Client:
    """GETs from one Hub. Connections are kept and shared between threads, never used by two at once."""

    def __init__(self, endpoint: str, token: str | None, timeout: float) -> None:
        self.endpoint = endpoint
        self.host = "://".join(_origin(endpoint))
        self.timeout = timeout
        self.status = ""
        """What is going on, for a progress line."""
        self._token = token
        self._end = time.monotonic() + bounds.MODEL_S
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False
        self._lock = threading.Lock()

    def get(self, path: str, limit: int = 0, span: tuple[int, int] | None = None) -> Answer:
        """GET a path of the endpoint, or the bytes from `span[0]` to `span[1]` (both included) of it.

        `limit` is the most bytes to accept without a span. Redirects are followed, failures that may pass are
        tried again; `UnreachableError` when that did not help. Any other status is for the caller to judge.
        """
        url = self.endpoint + path
        started = time.monotonic()
        patience = min(max(PATIENCE, self.timeout), self._end - started)
        deadline = Deadline(patience, self.timeout)
        for attempt in range(ATTEMPTS):
            try:
                return self._follow(url, limit, span, deadline)
            except _FailedError as failed:  # noqa: PERF203 (trying again is the point)
                wait = BACKOFF[min(attempt, len(BACKOFF) - 1)] if failed.after is None else failed.after
                spent = time.monotonic() - started
                last = not failed.again or attempt == ATTEMPTS - 1
                if last or wait > LONGEST_WAIT or spent + wait > patience:
                    tried = f" ({attempt + 1} attempts)" if attempt else ""
                    raise UnreachableError(f"The Hub at {self.host} {failed.what}{tried}.", failed.hint) from None
                self.status = f"{self.host} {failed.what}; trying again in {wait:g} s"
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections kept open, and from now on each one as its answer ends."""
        with self._lock:
            self._closed = True
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()

    def _follow(self, url: str, limit: int, span: tuple[int, int] | None, deadline: Deadline) -> Answer:
        origin = _origin(url)
        seen: dict[str, str] = {}
        for _ in range(REDIRECTS + 1):
            headers = {"User-Agent": "tgi-advisor", "Accept-Encoding": "identity" if span else "gzip"}
            if span:
                headers["Range"] = f"bytes={span[0]}-{span[1]}"
            if _origin(url) == origin:  # the token is for the Hub alone, not for the hosts it redirects to
                headers |= self._credentials(url)
            answer = self._once(url, headers, limit, span, deadline)
            seen.update(answer.headers)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer._replace(headers=seen)
            if (target := _target(url, answer.headers.get("location", ""))) is None:
                raise UnreachableError(f"{answer.url} redirects to something that is no web address.", _MIRROR)
            url = target
        raise UnreachableError(f"{public(self.endpoint)} redirects in circles ({REDIRECTS} times).", _MIRROR)

    def _credentials(self, url: str) -> dict[str, str]:
        if self._token:
            return {"Authorization": f"Bearer {self._token}"}
        return {"Authorization": user} if (user := _basic(url)) else {}

    def _once(
        self, url: str, headers: dict[str, str], limit: int, span: tuple[int, int] | None, deadline: Deadline
    ) -> Answer:
        """One request and its whole answer; `_FailedError` when there is none."""
        connection = None
        try:
            connection = self._connect(url)
            keep(connection, deadline)
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            if parts.scheme == "http" and (proxy := _proxy(*_origin(url))):
                target = f"http://{_origin(url)[1]}{target}"
                headers |= {"Proxy-Authorization": user} if (user := _basic(proxy)) else {}
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            body = _read_span(response, *span) if span else _read(response, limit)
        except Exception as error:
            if connection is not None:
                connection.close()
            if isinstance(error, _FailedError | UnreachableError):
                raise
            if isinstance(error, TimeoutError) and deadline.over:
                what = "did not finish its answer in the time it is given"
                raise _FailedError(what, "Try again later; something on the way may be slow.", again=False) from None
            raise _explain(error, self.timeout) from None
        with self._lock:
            if self._closed or response.will_close or not response.isclosed():
                connection.close()
            else:
                self._idle.setdefault(_origin(url), []).append(connection)
        fields = {name.lower(): value for name, value in response.getheaders()}
        if response.status == 429:
            wait = fields.get("retry-after", "")
            seconds = float(wait) if wait.isdecimal() else None
            until = f", wait {named(wait)} s" if seconds is not None else ""
            hint = "Wait, then run it again; a token (HF_TOKEN) raises the limit."
            raise _FailedError(f"says there were too many requests (429{until})", hint, again=True, after=seconds)
        if response.status >= 500:
            hint = "The Hub is in trouble: try again later, or give a local folder as model.id."
            raise _FailedError(f"answers with an error of its own (HTTP {response.status})", hint, again=True)
        return Answer(response.status, fields, body, public(url))

    def _connect(self, url: str) -> http.client.HTTPConnection:
        """A connection to the URL's host: one that is idle, else a new one, through a proxy where one is set."""
        origin = scheme, host = _origin(url)
        with self._lock:
            if idle := self._idle.get(origin):
                return idle.pop()
        proxy = _proxy(scheme, host)
        via = _origin(proxy)[1] if proxy else host
        if scheme == "http":
            return http.client.HTTPConnection(via, timeout=self.timeout)
        connection = http.client.HTTPSConnection(via, timeout=self.timeout, context=self._context())
        if proxy:
            user = _basic(proxy)
            connection.set_tunnel(host, headers={"Proxy-Authorization": user} if user else {})
        return connection

    def _context(self) -> ssl.SSLContext:
        """TLS as the system trusts it; certifi's roots where Python knows of none; REQUESTS_CA_BUNDLE on top."""
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
                known = ssl.get_default_verify_paths()
                if not (known.cafile or known.capath):
                    import certifi

                    self._tls.load_verify_locations(certifi.where())
                if bundle := os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"):
                    self._tls.load_verify_locations(bundle)
            return self._tls


def parallel(work: Callable[[T], R], items: Iterable[T], workers: int, tick: Callable[[int], None]) -> list[R]:
    """`work` of every item, in order, in up to `workers` threads; the first error ends it and is raised.

    `tick` is called with the number of finished items about ten times a second.
    """
    todo = list(enumerate(items))
    results: list[Any] = [None] * len(todo)
    errors: list[BaseException] = []
    left = len(todo)
    waiting = list(reversed(todo))
    changed = threading.Condition()

    def run() -> None:
        nonlocal left
        while True:
            with changed:
                if errors or not waiting:
                    return
                place, item = waiting.pop()
            try:
                results[place] = work(item)
            except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
                errors.append(error)
            with changed:
                left -= 1
                if not left or errors:
                    changed.notify()

    for _ in range(min(workers, len(todo))):
        threading.Thread(target=run, daemon=True).start()
    with changed:
        while left and not errors:
            changed.wait(0.1)
            tick(len(todo) - left)
    if errors:
        raise errors[0]
    return results


def _read(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The body, unpacked; of an error or a redirect only the beginning. IncompleteRead for one that ends early."""
    wanted = response.status in (200, 206)
    body = bytearray()
    while chunk := response.read(CHUNK):
        body += chunk
        if len(body) > limit:
            if wanted:
                raise _FailedError("sends more than such a file can hold", _MIRROR, again=False)
            return bytes(body[:limit])
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    if response.getheader("content-encoding", "") != "gzip":
        return bytes(body)
    import zlib

    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(bytes(body), limit + 1)
    except zlib.error:
        raise http.client.IncompleteRead(b"") from None
    if len(plain) > limit:
        raise _FailedError("sends more than such a file can hold", _MIRROR, again=False)
    if not unpacker.eof:
        raise http.client.IncompleteRead(b"")
    return plain


def _read_span(response: http.client.HTTPResponse, first: int, last: int) -> bytes:
    """The bytes asked for, also from a server that ignores Range and sends the file from its beginning."""
    if response.status != 200:
        return _read(response, last - first + 1)
    body = bytearray()
    while len(body) <= last and (chunk := response.read(min(CHUNK, last + 1 - len(body)))):
        body += chunk
    if response.length and len(body) <= last:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(body[first : last + 1])


_FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], bool, str, str], ...] = (
    (
        socket.gaierror, False, "cannot be found: its name has no address",
        "Check the network, HF_ENDPOINT and the proxy; --offline uses only what is on this machine.",
    ),
    (
        ssl.SSLCertVerificationError, False, "shows a certificate that this machine does not trust",
        "A proxy that opens TLS needs its root certificate: SSL_CERT_FILE=/path/to/ca.pem or REQUESTS_CA_BUNDLE.",
    ),
    (
        TimeoutError, True, "did not answer within {seconds:g} s",
        "Try again later; HF_HUB_DOWNLOAD_TIMEOUT=30 waits longer; --offline uses only what is on this machine.",
    ),
    (
        (http.client.IncompleteRead, ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError),
        True, "broke off in the middle of an answer", "Try again; a proxy on the way may be the cause.",
    ),
    (ssl.SSLError, False, "and this machine cannot agree on TLS", "Check HF_ENDPOINT: http:// or https://?"),
    (ConnectionRefusedError, False, "refuses connections", "Check HF_ENDPOINT and the proxy; does the server run?"),
    (
        (http.client.InvalidURL, UnicodeError, ValueError), False, "has no valid address",
        "Check HF_ENDPOINT and the proxy variables.",
    ),
    (http.client.HTTPException, False, "does not answer as a web server does", _MIRROR),
    (OSError, False, "cannot be reached", "Check the network; --offline uses only what is on this machine."),
)  # fmt: skip
"""Kinds of failure below HTTP, the special before the general: whether it may pass, what to say, what to do."""


def _explain(error: Exception, seconds: float) -> Exception:
    """What went wrong below HTTP, as something to try again or to tell; never with the error's own words.

    An exception of the library may quote a header, and a header may hold the token.
    """
    if isinstance(error, OSError) and "Tunnel connection failed" in str(error):
        hint = "Check HTTPS_PROXY, its user and password."
        return _FailedError("is out of reach: the proxy refuses the tunnel", hint, again=False)
    for kind, again, what, hint in _FAILURES:
        if isinstance(error, kind):
            return _FailedError(what.format(seconds=seconds), hint, again=again)
    return error


def _target(url: str, location: str) -> str | None:
    """Where a redirect leads; None when that is no web address."""
    try:
        target = urljoin(url, location)
        scheme, host = _origin(target)
    except ValueError:
        return None
    return target if scheme in ("http", "https") and host else None


def _origin(url: str) -> tuple[str, str]:
    """Scheme and host:port, without credentials."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


def _basic(url: str) -> str | None:
    """The value of an Authorization field for the user and password of a URL."""
    parts = urlsplit(url)
    if parts.username is None:
        return None
    from base64 import b64encode

    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _proxy(scheme: str, host: str) -> str | None:
    """URL of the proxy for a host (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, or the system's settings)."""
    if sys.platform not in ("darwin", "win32") and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # takes longer to load than a request

    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith("http://"):
        raise UnreachableError(
            f"the proxy {public(proxy)} is of a kind that tgi-advisor cannot use",
            "give an http:// proxy in HTTP_PROXY and HTTPS_PROXY, or exempt the Hub with NO_PROXY",
        )
    return proxy
