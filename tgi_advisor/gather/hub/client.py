"""huggingface_hub, asked within bounds: how much, how long, how often.

Addresses, headers, connections, TLS, proxies, encodings and what a refusal means are the library's. Ours is only
what it has no setting for, and it is laid around the library's own session, so that a program which configured that
(`set_client_factory`) keeps its configuration, and other threads notice nothing:

size      a body is read up to a limit, also once unpacked; of a refusal or a redirect no body is read at all
time      one deadline for a whole exchange, whatever trickles in, with its redirects and further attempts
attempts  what may pass is tried again, for a while; the library itself retries downloads only
wording   what failed below HTTP as a sentence without the library's own words, which may quote a header

`HfApi.model_info` and `get_sharded_safetensors_metadata` are called as they are. Files and the beginnings of files
are asked for over the same session: `hf_hub_download` asks twice, needs an ETag that mirrors leave out, waits for
locks and writes into the cache that TGI reads; `parse_safetensors_file_metadata` never sees how long the file is and
takes headers of 100 MB.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tgi_advisor import __version__, bounds
from tgi_advisor.deadline import Deadline
from tgi_advisor.errors import FactsError, missing
from tgi_advisor.gather.hub import settings
from tgi_advisor.safe import named

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

ATTEMPTS = 4
"""How often one request is sent before we give up."""
BACKOFF = (0.25, 0.75, 2.0)
"""Seconds between the attempts."""
PATIENCE = bounds.HUB_S
"""Seconds one exchange may take, its further attempts included, or HF_HUB_DOWNLOAD_TIMEOUT if longer."""
LONGEST_WAIT = 10.0
"""The longest Retry-After we sit out, in seconds."""
REDIRECTS = 8
WORKERS = 32
GRACE = 0.05
"""Seconds after its deadline in which an exchange may still tell itself what went wrong."""

T = TypeVar("T")
R = TypeVar("R")

_AGENTS = "/api/agent-harnesses"
"""What the library asks once a day on its own account, for its User-Agent: a round trip, or 3 s behind a firewall."""
_MIRROR = "Check HF_ENDPOINT: something that is not a Hub may stand in between (a proxy, a login page)."


class UnreachableError(FactsError):
    """The Hub gave no usable answer: network, DNS, TLS, timeouts, 429, 5xx, or somebody else answered."""


class Span(NamedTuple):
    """Bytes of a file that are asked for, both ends included."""

    first: int
    """The first byte, from 0."""
    last: int
    """The last byte."""


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


class _Exchange(NamedTuple):
    """What bounds the requests of one call of the library."""

    client: Client
    limit: int
    span: Span | None
    judge: Callable[[Any], None] | None
    deadline: Deadline


_current: ContextVar[_Exchange | None] = ContextVar("exchange", default=None)
_making = threading.Lock()


class Client:
    """One Hub, asked about one model."""

    def __init__(self) -> None:
        endpoint, self.timeout = settings.endpoint(), settings.timeout()
        self.token, self.token_from = settings.token()
        self.shown = settings.public(endpoint)
        """The Hub's address as it may be shown."""
        self.host = "/".join(self.shown.split("/")[:3]).lower()
        self.status = ""
        """What is going on, for a progress line."""
        self._headers = {} if self.token else settings.basic(endpoint)
        self._end = time.monotonic() + bounds.MODEL_S
        self._api: HfApi | None = None

    @property
    def api(self) -> HfApi:
        """The library's client, which is imported here; UnreachableError where it cannot be."""
        if self._api is None:
            try:
                with redirect_stdout(sys.stderr):  # it prints what goes wrong
                    from huggingface_hub import HfApi
            except ImportError:
                raise UnreachableError(*missing("huggingface_hub", "ask the Hub")) from None
            except ValueError:  # it reads its variables as it is imported
                raise UnreachableError(
                    "huggingface_hub cannot be used: one of its environment variables holds no number.",
                    "Look for HF_..._TIMEOUT and the like: env | grep ^HF_",
                ) from None
            self._api = HfApi(
                endpoint=self.shown,
                token=self.token or False,
                library_name="tgi-advisor",
                library_version=__version__,
                headers=self._headers,
            )
        return self._api

    def all(self, ask: Callable[[T], R], items: Iterable[T], tick: Callable[[int], None]) -> list[R]:
        """`ask` of every item, in order, in up to `WORKERS` threads; the first error ends it and is raised.

        `tick` is called with the number of finished items about ten times a second. What has not ended by its
        deadline is abandoned: only from another thread can a lookup of a name, or a header that drips, be left.
        """
        _bound(self.api)
        todo = list(enumerate(items))
        results: list[Any] = [None] * len(todo)
        errors: list[BaseException] = []
        running: dict[int, float] = {}
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
                    running[place] = time.monotonic() + self._patience + GRACE
                try:
                    results[place] = ask(item)
                except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
                    errors.append(error)
                with changed:
                    left -= 1
                    del running[place]
                    if not left or errors:
                        changed.notify()

        for _ in range(min(WORKERS, len(todo))):
            threading.Thread(target=run, daemon=True).start()
        with changed:
            while left and not errors:
                changed.wait(0.1)
                tick(len(todo) - left)
                if not errors and any(time.monotonic() > end for end in running.values()):
                    errors.append(self._unreachable(_late(), 1))
                    _abandon()
        if errors:
            raise errors[0]
        return results

    def ask(
        self,
        call: Callable[[], R],
        limit: int,
        span: Span | None = None,
        judge: Callable[[Any], None] | None = None,
    ) -> R | HfHubHTTPError:
        """What a call of the library gives, or the refusal it raises, each answer of at most `limit` bytes.

        `judge` sees each good answer before the library reads it, and may raise. UnreachableError where the Hub gave
        no usable answer. To be called within `all`.
        """
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        mark = _current.set(_Exchange(self, limit, span, judge, Deadline(self._patience, self.timeout)))
        try:
            return call()
        except HfHubHTTPError as error:  # a value, so that the first of several answers is judged first
            return error
        except OfflineModeIsEnabled:
            pass
        finally:
            _current.reset(mark)
        raise UnreachableError("huggingface_hub was told not to use the network.", "Unset HF_HUB_OFFLINE.")

    def file(self, repo: str, at: str, name: str, limit: int, span: Span | None = None) -> Any:
        """A file of a repository, or the bytes `span` of it: a response of the library, or its HfHubHTTPError."""
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        def call() -> Any:
            headers = build_hf_headers(
                token=self.token or False, library_name="tgi-advisor", library_version=__version__,
                headers=self._headers,
            )  # fmt: skip
            if span:
                headers["range"] = f"bytes={span.first}-{span.last}"
            response = get_session().get(hf_hub_url(repo, name, revision=at, endpoint=self.shown), headers=headers)
            hf_raise_for_status(response)
            return response

        return self.ask(call, limit, span)

    @property
    def _patience(self) -> float:
        return min(max(PATIENCE, self.timeout), self._end - time.monotonic())

    def _unreachable(self, failed: _FailedError, attempts: int) -> UnreachableError:
        tried = f" ({attempts} attempts)" if attempts > 1 else ""
        return UnreachableError(f"The Hub at {self.host} {failed.what}{tried}.", failed.hint)


def _bound(_: HfApi) -> None:
    """Lay our bounds around the session the library uses now; outside of `ask` it does what it did before."""
    from huggingface_hub import close_session, get_session

    now = _surroundings()
    with _making:
        try:
            with _roots():
                session = get_session()
                if isinstance(session.send, _Send) and session.send.made_for != now:
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
            if not isinstance(session.send, _Send):
                session.send = _Send(session.send, now)  # type: ignore[method-assign]
            return
    raise UnreachableError(f"{_proxy()} {what}", f"{hint}, or exempt the Hub with NO_PROXY")


def _proxy() -> str:
    """The proxies of the environment, as they may be shown."""
    given = {value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "all_proxy")}
    urls = (url if "://" in url else f"http://{url}" for url in given if url)
    return f"the proxy {' or '.join(sorted(map(settings.public, urls)))}"


def _abandon() -> None:
    """Close the connections over which something still trickles in."""
    from huggingface_hub import close_session

    close_session()


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


class _Send:
    """In place of a session's `send` (of httpx, which huggingface_hub 1 uses, or httpx2, which 2 does)."""

    def __init__(self, plain: Callable[..., Any], made_for: dict[str, str]) -> None:
        self._plain = plain
        self.made_for = made_for

    def __call__(self, request: Any, **how: Any) -> Any:
        """The answer to a request; within an exchange of ours the whole of it, or UnreachableError."""
        exchange = _current.get()
        if exchange is None:
            return self._plain(request, **how)
        if request.url.path == _AGENTS:
            raise ConnectionError("not asked for")  # the library goes on without
        for attempt in range(ATTEMPTS):
            try:
                return self._followed(request, exchange)
            except _FailedError as error:
                failed = error
            wait = BACKOFF[min(attempt, len(BACKOFF) - 1)] if failed.after is None else failed.after
            late = time.monotonic() + wait > exchange.deadline.end
            if not failed.again or attempt == ATTEMPTS - 1 or wait > LONGEST_WAIT or late:
                break
            exchange.client.status = f"{exchange.client.host} {failed.what}; trying again in {wait:g} s"
            time.sleep(wait)
        raise exchange.client._unreachable(failed, attempt + 1)

    def _followed(self, request: Any, exchange: _Exchange) -> Any:
        """One attempt: the answer at the end of the redirects. The library keeps the token from other hosts."""
        request.headers["accept-encoding"] = "identity" if exchange.span else "gzip"
        url = request.url
        told: dict[str, str] = {}
        for _ in range(REDIRECTS + 1):
            response, body = self._once(request, exchange)
            told.update(response.headers)
            if not response.has_redirect_location:
                # Put together anew: read, unpacked, and without what the library would print of it.
                for name in ("content-encoding", "transfer-encoding", "x-hf-warning"):
                    told.pop(name, None)
                answer = type(response)(response.status_code, headers=told, content=body, request=request)
                if exchange.judge and answer.is_success:
                    exchange.judge(answer)
                return answer
            request = response.next_request
            if request is None or request.url.scheme not in ("http", "https") or not request.url.host:
                where = settings.public(str(url))
                raise UnreachableError(f"{where} redirects to something that is no web address.", _MIRROR)
        raise UnreachableError(f"{exchange.client.shown} redirects in circles ({REDIRECTS} times).", _MIRROR)

    def _once(self, request: Any, exchange: _Exchange) -> tuple[Any, bytes]:
        failed: _FailedError | None
        try:
            wait = exchange.deadline.left
            request.extensions = {
                **request.extensions, "timeout": dict.fromkeys(("connect", "read", "write", "pool"), wait),
            }  # fmt: skip
            response = self._plain(request, stream=True, follow_redirects=False)
            try:
                body = _read(response, exchange)
            finally:
                response.close()
        except _FailedError:
            raise
        except Exception as error:  # noqa: BLE001  (what is not known is raised again)
            failed = _explained(error, exchange, str(request.url))
        else:
            failed = _refused(response)
        if failed:
            raise failed
        return response, body


def _read(response: Any, exchange: _Exchange) -> bytes:
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
                raise _FailedError("sends more than such a file can hold", _MIRROR, again=False)
            break
        if exchange.deadline.over:
            raise _late()
    return bytes(body[span.first : span.last + 1] if span and from_start else body)


def _refused(response: Any) -> _FailedError | None:
    """429 and 5xx, which may pass."""
    if response.status_code == 429:
        wait = response.headers.get("retry-after", "")
        seconds = float(wait) if wait.isdecimal() else None
        until = f", wait {named(wait)} s" if seconds is not None else ""
        hint = "Wait, then run it again; a token (HF_TOKEN) raises the limit."
        return _FailedError(f"says there were too many requests (429{until})", hint, again=True, after=seconds)
    if response.status_code >= 500:
        hint = "The Hub is in trouble: try again later, or give a local folder as model.id."
        return _FailedError(f"answers with an error of its own (HTTP {response.status_code})", hint, again=True)
    return None


def _late() -> _FailedError:
    what = "did not finish its answer in the time it is given"
    return _FailedError(what, "Try again later; something on the way may be slow.", again=False)


_FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...] | str, bool, str, str], ...] = (
    ("ProxyError", False, "is out of reach: the proxy refuses the tunnel", "Check HTTPS_PROXY, its user and password."),
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
        (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError),
        True, "broke off in the middle of an answer", "Try again; a proxy on the way may be the cause.",
    ),
    ("DecodingError", True, "broke off in the middle of an answer", "Try again; a proxy on the way may be the cause."),
    (ssl.SSLError, False, "and this machine cannot agree on TLS", "Check HF_ENDPOINT: http:// or https://?"),
    (ConnectionRefusedError, False, "refuses connections", "Check HF_ENDPOINT and the proxy; does the server run?"),
    ("InvalidURL", False, "has no valid address", "Check HF_ENDPOINT and the proxy variables."),
    (UnicodeError, False, "has no valid address", "Check HF_ENDPOINT and the proxy variables."),
    ("ProtocolError", False, "does not answer as a web server does", _MIRROR),
    (OSError, False, "cannot be reached", "Check the network; --offline uses only what is on this machine."),
    ("TransportError", False, "cannot be reached", "Check the network; --offline uses only what is on this machine."),
)  # fmt: skip
"""Kinds of failure below HTTP, the special before the general: whether it may pass, what to say, what to do.

Those of the HTTP library go by name, which both that huggingface_hub has used have in common."""


def _explained(error: Exception, exchange: _Exchange, url: str) -> _FailedError:
    """What went wrong below HTTP; never in the error's own words, which may quote a header with the token in it."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {kind.__name__ for kind in type(error).__mro__}
    if exchange.deadline.over and any(isinstance(cause, TimeoutError) for cause in chain):
        return _late()
    closed = "peer closed" in str(error), "disconnected" in str(error)
    if "RemoteProtocolError" in names and (closed[0] or (closed[1] and not _other_protocol(url, exchange.deadline))):
        hint = "Try again; a proxy on the way may be the cause."
        return _FailedError("broke off in the middle of an answer", hint, again=True)
    for kind, again, what, hint in _FAILURES:
        if kind in names if isinstance(kind, str) else any(isinstance(cause, kind) for cause in chain):
            return _FailedError(what.format(seconds=exchange.deadline.wait), hint, again=again)
    raise error


def _other_protocol(url: str, deadline: Deadline) -> bool:
    """Whether what listens there speaks before it hangs up: the library tells both as a connection that was closed."""
    host = urlsplit(url)
    if host.scheme != "http" or any(name.lower().endswith("_proxy") for name in os.environ):
        return False
    try:
        with socket.create_connection((host.hostname, host.port or 80), deadline.left) as connection:
            connection.sendall(f"GET {host.path or '/'} HTTP/1.0\r\n\r\n".encode())
            said = connection.recv(5)
    except OSError:
        return False
    return bool(said) and said != b"HTTP/"
