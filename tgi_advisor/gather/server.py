"""A running TGI server: what it is (`/info`), what it has done (`/metrics`) and whether it is well (`/health`)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from tgi_advisor import metrics
from tgi_advisor.deadline import Deadline, keep
from tgi_advisor.errors import FactsError, UsageError
from tgi_advisor.limits import Limits
from tgi_advisor.safe import printable

if TYPE_CHECKING:
    from http.client import HTTPResponse

TOKEN = "TGI_API_KEY"  # noqa: S105  (the name of a variable)
"""The variable that holds the token of a server that asks for one."""
MOST_INFO = 1 << 20
"""Bytes of `/info` that are read."""
MOST_METRICS = 4 << 20
"""Bytes of `/metrics` that are read. A busy server's have about 300 KB."""
MEANT = "Give the address of a TGI server, such as http://localhost:8080."


ENDPOINTS = ("/metrics", "/info", "/health", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions",
             "/v1/models", "/v1", "/docs")  # fmt: skip
"""What an address may end with that was copied from a client's settings or a browser; the server's own is before it."""
Health = Literal["healthy", "unhealthy", "silent", "untold"]
"""What `/health` says: 200, an error of the server, nothing in time (it waits for the step that runs), or that it is
not there (a gateway keeps it)."""
MOST = 1 << 53
"""No number of `/info` is larger."""
MOST_LIMIT = (1 << 31) - 1
"""No length of a prompt or request is larger."""


class Server(NamedTuple):
    """What a server says."""

    url: str
    """Its address, as it may be shown."""
    model: str
    """`model_id` of its `/info`: a Hub id, or a folder inside the container."""
    version: str
    """TGI release it says it is."""
    metrics: str
    """Its `/metrics`."""
    limits: Limits
    """Its token limits; the prefill budget is not among what it says, and the inferred one is until 2.2.0."""
    numbers: Mapping[str, int]
    """The other whole numbers of its `/info`, such as `max_concurrent_requests`."""
    dtype: str
    """`model_dtype` of its `/info`, which it has until 2.2.0; empty where it does not say."""
    commit: str
    """`model_sha` of its `/info`; empty where it does not say."""


def read(url: str, seconds: float) -> Server:
    """Ask a server, all within so many seconds. UsageError for an address that is none, FactsError for no answer."""
    address = _address(url)
    deadline = Deadline(seconds)
    shown = printable(address.geturl())
    try:
        info = _info(_get(address, "/info", deadline, MOST_INFO), f"{shown}/info")
    except FactsError as error:
        if error.__context__ is not None:  # it could not be asked
            raise
        raise _of_another(address, deadline) or error from None
    counted = _get(address, "/metrics", deadline, MOST_METRICS).decode("utf-8", "replace")
    numbers = {name: value for name, value in info.items() if type(value) is int and 0 <= value < MOST}
    limits = Limits(
        numbers.get("max_input_tokens", numbers.get("max_input_length")),  # the name before 2.1.0
        numbers.get("max_total_tokens"),
        max_batch_total_tokens=numbers.get("max_batch_total_tokens"),
    )
    dtype, commit = (value if isinstance(value := info.get(name), str) else "" for name in ("model_dtype", "model_sha"))
    return Server(shown, info["model_id"], info["version"], counted, limits, numbers, dtype, commit)


def believable(found: Server) -> Server:
    """The server, if names and limits may be a TGI server's; FactsError for those that no TGI has."""
    given = found.limits._replace(max_batch_total_tokens=None).given()
    longest, total = found.limits.max_input_tokens, found.limits.max_total_tokens
    said = [
        f"{name} is {text!r}"
        for name, text in (("model_id", found.model), ("version", found.version))
        if not text or printable(text) != text
    ]
    said += [f"{name} is {value}" for name, value in given.items() if not 0 < value <= MOST_LIMIT]
    if not said and longest and total and longest >= total:
        said.append(f"max_input_tokens {longest} is not below max_total_tokens {total}")
    if said:
        raise FactsError(f"{found.url}/info is not what a TGI server says: {said[0]}", MEANT)
    return found


def health(url: str, seconds: float) -> Health:
    """Whether the server of an address that `read` took is well."""
    try:
        _get(_address(url), "/health", Deadline(seconds), MOST_INFO)
    except _RefusedError as error:
        return "unhealthy" if error.status >= 500 else "untold"
    except FactsError as error:
        return "silent" if isinstance(error.__context__, TimeoutError) else "unhealthy"
    return "healthy"


def _of_another(address: SplitResult, deadline: Deadline) -> FactsError | None:
    """That another engine serves there, where its `/metrics` says so."""
    try:
        text = _get(address, "/metrics", deadline, MOST_METRICS).decode("utf-8", "replace")
    except FactsError:
        return None
    other = metrics.engine(text)
    shown = printable(address.geturl())
    hint = "Only TGI's own /info and /metrics are read. `tgi-advisor migrate` knows the flags of vLLM and SGLang."
    return FactsError(f"{shown} is a server of {other}, not of TGI", hint) if other else None


def _address(url: str) -> SplitResult:
    """The address without a trailing slash; a secret in it is not taken, or it would stand in shell histories."""
    text = url if "://" in url else f"http://{url}"
    if re.fullmatch(r":?\d{1,5}", url):
        raise UsageError(f"{url!r} is a port, not an address", f"Is it http://localhost:{url.lstrip(':')}?")
    if re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", url):
        raise UsageError("an address of IPv6 stands in brackets", "Write it as http://[::1]:8080.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError("that is no address of a server", MEANT) from None
    if parts.username is not None or parts.password is not None or parts.query:
        raise UsageError("the address holds more than scheme, host, port and path", f"A token is read from {TOKEN}.")
    plain = all(33 <= ord(character) < 127 for character in text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or port == 0:
        raise UsageError(f"{url!r} is no address of a server", MEANT)
    path = parts.path.rstrip("/")
    path = path.removesuffix(next((one for one in ENDPOINTS if path.endswith(one)), "")).rstrip("/")
    return parts._replace(path=path, fragment="")


class _RefusedError(FactsError):
    """An answer with another status than 200."""

    def __init__(self, message: str, hint: str, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


def _get(address: SplitResult, path: str, deadline: Deadline, most: int) -> bytes:
    """The body of one answer."""
    import zlib
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    shown = f"{printable(address.geturl())}{path}"
    assert address.hostname is not None
    connection = (HTTPSConnection if address.scheme == "https" else HTTPConnection)(address.hostname, address.port)
    try:
        keep(connection, deadline)
        connection.request("GET", f"{address.path}{path}", headers=_headers())
        answer = connection.getresponse()
        body = answer.read(most + 1)
    except TimeoutError:
        raise FactsError(
            f"{shown} did not answer in time", "Is it busy, or still starting? --timeout waits longer."
        ) from None
    except (OSError, HTTPException) as error:
        reason = printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        raise FactsError(f"{shown} does not answer: {reason[:200]}", _meant(error)) from None
    finally:
        connection.close()
    if answer.status != 200:
        raise _refused(shown, answer)
    if len(body) <= most and answer.length:
        raise FactsError(f"{shown} ends before its answer is whole", "Ask again; a gateway before it may cut it off.")
    if answer.headers.get("Content-Encoding", "").lower() == "gzip":  # although none was asked for
        try:
            body = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, most + 1)
        except zlib.error:
            raise FactsError(f"{shown} is said to be gzip and is not", MEANT) from None
    if len(body) > most:
        raise FactsError(f"{shown} has more than {most >> 20} MiB", MEANT)
    return body


def _meant(error: Exception) -> str:
    """What to try where a server cannot be spoken to."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return "Name a file with its certificate, or its authority's, in the variable SSL_CERT_FILE."
    if isinstance(error, ssl.SSLError) and "WRONG_VERSION" in str(error):
        return "It may speak plain HTTP: write http:// instead of https://."
    if isinstance(error, ConnectionRefusedError):
        return "Nothing listens there: does it run, has its start-up ended, and is its port reached from here?"
    if isinstance(error, ConnectionResetError):
        return "Does it speak HTTPS? Then write https://."
    return MEANT


def _refused(shown: str, answer: HTTPResponse) -> _RefusedError:
    """What an answer with another status than 200 means."""
    status, to, hint = answer.status, "", MEANT
    if status in (401, 403):
        hint = f"The token in {TOKEN} is not accepted." if _token() else f"Put its token into {TOKEN}."
        return _RefusedError(f"{shown} answers {status}: it asks for a token", hint, status)
    if 300 <= status < 400:
        with suppress(ValueError):
            there = urlsplit(answer.headers.get("Location", ""))
            plain = there._replace(netloc=there.netloc.rpartition("@")[2], query="", fragment="")  # without its secrets
            to = f" to {printable(plain.geturl())}"
        hint = "Redirects are not followed. Give the address it leads to, unless that is a login."
    elif status == 404:
        hint = f"Is a part of the path missing, as gateways have one? {MEANT}"
    elif status == 429:
        hint = "It, or a gateway before it, is asked too often: try again later."
    elif status >= 500:
        hint = "A gateway may answer for a server that is away or still starting: try again later."
    return _RefusedError(f"{shown} answers {status}{to}", hint, status)


def _token() -> str:
    return os.environ.get(TOKEN, "").strip()


def _headers() -> dict[str, str]:
    """With the token, where there is one; one that no header takes is not quoted."""
    token = _token()
    if not all(33 <= ord(character) < 127 for character in token):
        raise UsageError(f"{TOKEN} holds characters that no token has", "Set it to the token alone.")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _info(body: bytes, where: str) -> Mapping[str, Any]:
    """`/info` of a TGI server."""
    try:
        info = json.loads(body)
    except (ValueError, RecursionError):
        info = None
    if info is None and body.lstrip()[:1] == b"<":
        raise FactsError(f"{where} is a web page, not what a TGI server says", MEANT)
    if not isinstance(info, dict) or not all(isinstance(info.get(name), str) for name in ("model_id", "version")):
        raise FactsError(f"{where} is not what a TGI server says: it has no model_id and version", MEANT)
    return info
