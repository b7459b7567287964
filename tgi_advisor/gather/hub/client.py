"""huggingface_hub's session, asked about one model by many threads, within bounds.

Connections, TLS, proxies, encodings, the offline switch, tokens (`get_token`: logins that are renewed, notebooks, CI
jobs) and what a refusal means (`hf_raise_for_status`) are the library's, and a program that gave it another session
(`set_client_factory`) is asked through that. Ours is what it has no setting for:

size      a body is read up to a limit, also once unpacked; of a refusal or a redirect no body is read at all
time      one deadline for an exchange, redirects and further attempts included, and one for all about a model
attempts  what may pass is tried again within that deadline; `http_backoff` sits out any Retry-After, and logs

So its calls above the session cannot be used: `model_info`, `hf_hub_download`, `get_safetensors_metadata` read
whatever comes for as long as it comes, `build_hf_headers` asks a question of its own once a day, and `HfApi` takes as
long to import as two round trips.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from tgi_advisor import __version__, bounds
from tgi_advisor.deadline import Deadline
from tgi_advisor.errors import AdvisorError, FactsError, missing
from tgi_advisor.gather import environment
from tgi_advisor.gather.hub.wording import NO_HUB, FailedError, UnreachableError, busy, failed, late

PATIENCE = bounds.HUB_S
"""Seconds one exchange may take, its further attempts included, or HF_HUB_DOWNLOAD_TIMEOUT if longer."""
ATTEMPTS = 4
"""How often one request is sent before we give up."""
BACKOFF = (0.25, 0.75, 2.0)
"""Seconds between the attempts."""
LONGEST_WAIT = 10.0
"""The longest Retry-After we sit out, in seconds."""
REDIRECTS = 8
WORKERS = 32
GRACE = 0.05
"""Seconds after its deadline in which an exchange may still tell itself what went wrong."""

_IMPORTING = threading.Lock()
"""Standard output belongs to all threads: two that put it aside at once would not put it back."""

T = TypeVar("T")
R = TypeVar("R")


class Span(NamedTuple):
    """Bytes of a file that are asked for, both ends included."""

    first: int
    """The first byte, from 0."""
    last: int
    """The last byte."""


class Client:
    """One Hub, asked about one model."""

    def __init__(self) -> None:
        self._endpoint, self.timeout = environment.endpoint(), environment.timeout()
        self.shown = environment.public(self._endpoint)
        """The Hub's address as it may be shown."""
        self.host = "/".join(self.shown.split("/")[:3]).lower()
        self.token_from = ""
        """Where the token comes from that is sent; empty where none is."""
        self.status = ""
        """What is going on, for a progress line."""
        self._headers = {"user-agent": f"tgi-advisor/{__version__}"}
        self._end = time.monotonic() + bounds.MODEL_S
        self._session: Any = None

    def connect(self) -> None:
        """Import the library and take its session and token; FactsError where it cannot be used."""
        if self._session is not None:
            return
        try:
            with _IMPORTING, redirect_stdout(sys.stderr):  # it prints what goes wrong
                from huggingface_hub import get_session, get_token  # noqa: F401
        except ImportError:
            raise UnreachableError(*missing("huggingface_hub", "ask the Hub")) from None
        except ValueError:  # it reads its variables as it is imported
            raise UnreachableError(
                "huggingface_hub cannot be used: one of its environment variables holds no number.",
                "Look for HF_..._TIMEOUT and the like: env | grep ^HF_",
            ) from None
        self._session = _session()
        self._log_in()

    def _log_in(self) -> None:
        """Send the token that huggingface_hub sends; else httpx sends the user and password of the address, if any."""
        from huggingface_hub import constants, get_token

        if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            return
        file = constants.HF_TOKEN_PATH
        given = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name, "").strip()]
        where = "huggingface_hub's login"
        if given and not os.environ.get("HF_OIDC_RESOURCE"):
            where = f"the environment variable {given[0]}"
        elif os.path.lexists(file) and not given:
            if not os.path.isfile(file) or not os.access(file, os.R_OK):  # noqa: PTH113
                return  # of a pipe it would wait for the end
            where = f"the file {file}"
        try:
            (token,) = self.all(lambda ask: ask(), [get_token], lambda _: None)
        except AdvisorError:
            raise
        except Exception:  # noqa: BLE001  (whatever its many ways to a token may raise)
            raise FactsError(
                "huggingface_hub could not get the token of this job, notebook or login.",
                "Set HF_TOKEN, unset HF_OIDC_RESOURCE, or send none: HF_HUB_DISABLE_IMPLICIT_TOKEN=1.",
            ) from None
        if not token:
            return
        if not token.isascii() or not token.isprintable() or " " in token:
            raise FactsError(
                f"The Hub token in {where} holds characters that no token has.",
                "Copy it again from https://huggingface.co/settings/tokens; it starts with hf_.",
            )
        self._endpoint, self.token_from = self.shown, where
        self._headers["authorization"] = f"Bearer {token}"

    def all(self, ask: Callable[[T], R], items: Iterable[T], tick: Callable[[int], None]) -> list[R]:
        """`ask` of every item, in order, in up to `WORKERS` threads; the first error ends it and is raised.

        `tick` is called with the number of finished items about ten times a second. What has not ended by its
        deadline is abandoned: only from another thread can a lookup of a name, or a header that drips, be left.
        """
        self.connect()
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
                    errors.append(late().told(self.host))
        if errors:
            raise errors[0]
        return results

    def file(self, repo: str, at: str, name: str, limit: int, span: Span | None = None) -> Any:
        """As `get`, for a file of a repository at a branch, tag or commit."""
        return self.get(f"/{repo}/resolve/{quote(at, safe='')}/{quote(name)}", limit, span)

    def get(self, path: str, limit: int, span: Span | None = None) -> Any:
        """A path of the Hub, of at most `limit` bytes, or the bytes `span` of it; to be called within `all`.

        A response of the library, or its HfHubHTTPError: a value, so that the first of several answers is judged first.
        UnreachableError where the Hub gave no usable answer.
        """
        deadline = Deadline(self._patience, self.timeout)
        for attempt in range(ATTEMPTS):
            try:
                return self._followed(path, limit, span, deadline)
            except FailedError as error:
                trouble = error
            wait = BACKOFF[min(attempt, len(BACKOFF) - 1)] if trouble.after is None else trouble.after
            too_late = time.monotonic() + wait > deadline.end
            if not trouble.again or attempt == ATTEMPTS - 1 or wait > LONGEST_WAIT or too_late:
                break
            self.status = f"{self.host} {trouble.what}; trying again in {wait:g} s"
            time.sleep(wait)
        raise trouble.told(self.host, attempt + 1)

    def _followed(self, path: str, limit: int, span: Span | None, deadline: Deadline) -> Any:
        """One attempt: what stands at the end of the redirects. The library keeps the token from other hosts."""
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

        headers = {**self._headers, "accept-encoding": "identity" if span else "gzip"}
        if span:
            headers["range"] = f"bytes={span.first}-{span.last}"
        url = self._endpoint + path
        request = self._session.build_request("GET", url, headers=headers)
        told: dict[bytes, bytes] = {}
        for _ in range(REDIRECTS + 1):
            response, body = self._once(request, limit, span, deadline)
            told.update((name.lower(), value) for name, value in response.headers.raw)
            if not response.has_redirect_location:
                # Put together anew: read, unpacked, and without what the library would print of it.
                for name in (b"content-encoding", b"transfer-encoding", b"x-hf-warning"):
                    told.pop(name, None)
                answer = type(response)(response.status_code, headers=[*told.items()], content=body, request=request)
                try:
                    hf_raise_for_status(answer)
                except HfHubHTTPError as error:
                    return error
                return answer
            request = response.next_request
            if request is None or request.url.scheme not in ("http", "https") or not request.url.host:
                where = environment.public(url)
                raise UnreachableError(f"{where} redirects to something that is no web address.", NO_HUB)
        raise UnreachableError(f"{self.shown} redirects in circles ({REDIRECTS} times).", NO_HUB)

    def _once(self, request: Any, limit: int, span: Span | None, deadline: Deadline) -> tuple[Any, bytes]:
        """One request: the response, which is closed, and its body."""
        trouble: FailedError | None
        try:
            waits = dict.fromkeys(("connect", "read", "write", "pool"), deadline.left)
            request.extensions = {**request.extensions, "timeout": waits}
            response = self._session.send(request, stream=True, follow_redirects=False)
            try:
                body = _read(response, limit, span, deadline)
            finally:
                response.close()
        except FailedError:
            raise
        except Exception as error:  # noqa: BLE001  (what is not known is raised again)
            trouble = failed(error, str(request.url), deadline)
        else:
            trouble = busy(response)
        if trouble:  # outside of the handler: what it explains is not to hang on it
            raise trouble
        return response, body

    @property
    def _patience(self) -> float:
        return min(max(PATIENCE, self.timeout), self._end - time.monotonic())


def _read(response: Any, limit: int, span: Span | None, deadline: Deadline) -> bytes:
    """The body, unpacked, of what was asked for; nothing of a refusal or a redirect.

    Also the bytes asked for of a server that ignores Range and sends the file from its beginning.
    """
    if response.status_code not in (200, 206):
        return b""
    from_start = span is not None and response.status_code == 200
    if span is not None:
        limit = span.last + 1 if from_start else span.last - span.first + 1
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > limit or (from_start and len(body) == limit):
            if not from_start:
                raise FailedError("sends more than such a file can hold", NO_HUB)
            break
        if deadline.over:
            raise late()
    return bytes(body[span.first : span.last + 1] if span and from_start else body)


def _session() -> Any:
    """The library's session; UnreachableError where the proxy or the certificates of the environment allow none."""
    from huggingface_hub import get_session

    try:
        with _roots():
            return get_session()
    except ImportError:  # a proxy that speaks SOCKS
        what, hint = "is of a kind that tgi-advisor cannot use", "give an http:// proxy in HTTP_PROXY and HTTPS_PROXY"
    except OSError:
        what = "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE names no file of certificates"
        raise UnreachableError(f"The Hub cannot be asked: {what}.", "Correct it or unset it.") from None
    except Exception as error:
        if not isinstance(error, ValueError) and type(error).__name__ != "InvalidURL":
            raise
        what, hint = "has no valid address", "correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
    given = {value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "all_proxy")}
    shown = sorted(environment.public(url if "://" in url else f"http://{url}") for url in given if url)
    raise UnreachableError(f"the proxy {' or '.join(shown)} {what}", f"{hint}, or exempt the Hub with NO_PROXY")


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
