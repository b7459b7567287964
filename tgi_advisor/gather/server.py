"""A running TGI server: what it is (`/info`), what it has done (`/metrics`) and whether it is well (`/health`)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from tgi_advisor.deadline import Deadline, keep
from tgi_advisor.errors import FactsError, UsageError
from tgi_advisor.limits import Limits
from tgi_advisor.safe import printable

TOKEN = "TGI_API_KEY"  # noqa: S105  (the name of a variable)
"""The variable that holds the token of a server that asks for one."""
MOST_INFO = 1 << 20
"""Bytes of `/info` that are read."""
MOST_METRICS = 4 << 20
"""Bytes of `/metrics` that are read. A busy server's have about 300 KB."""
MEANT = "Give the address of a TGI server, such as http://localhost:8080."


Health = Literal["healthy", "unhealthy", "silent"]
"""What `/health` says: 200, another status, or nothing in time (it waits for the step that runs)."""
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
    info = _info(_get(address, "/info", deadline, MOST_INFO), f"{shown}/info")
    metrics = _get(address, "/metrics", deadline, MOST_METRICS).decode("utf-8", "replace")
    numbers = {name: value for name, value in info.items() if type(value) is int and 0 <= value < MOST}
    limits = Limits(
        numbers.get("max_input_tokens", numbers.get("max_input_length")),  # the name before 2.1.0
        numbers.get("max_total_tokens"),
        max_batch_total_tokens=numbers.get("max_batch_total_tokens"),
    )
    dtype, commit = (value if isinstance(value := info.get(name), str) else "" for name in ("model_dtype", "model_sha"))
    return Server(shown, info["model_id"], info["version"], metrics, limits, numbers, dtype, commit)


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
    except FactsError as error:
        return "silent" if isinstance(error.__context__, TimeoutError) else "unhealthy"
    return "healthy"


def _address(url: str) -> SplitResult:
    """The address without a trailing slash; a secret in it is not taken, or it would stand in shell histories."""
    text = url if "://" in url else f"http://{url}"
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
    path = parts.path.rstrip("/").removesuffix("/metrics").removesuffix("/info")
    return parts._replace(path=path, fragment="")


def _get(address: SplitResult, path: str, deadline: Deadline, most: int) -> bytes:
    """The body of one answer."""
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
        raise FactsError(f"{shown} does not answer: {reason}", MEANT) from None
    finally:
        connection.close()
    if answer.status in (401, 403):
        given = f"The token in {TOKEN} is not accepted." if _token() else f"Put its token into {TOKEN}."
        raise FactsError(f"{shown} answers {answer.status}: it asks for a token", given)
    if answer.status != 200:
        to = answer.headers.get("Location", "")
        where = f" to {printable(to)}" if to and 300 <= answer.status < 400 else ""
        raise FactsError(f"{shown} answers {answer.status}{where}", MEANT)
    if len(body) > most:
        raise FactsError(f"{shown} has more than {most >> 20} MiB", MEANT)
    return body


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
    if not isinstance(info, dict) or not all(isinstance(info.get(name), str) for name in ("model_id", "version")):
        raise FactsError(f"{where} is not what a TGI server says: it has no model_id and version", MEANT)
    return info
