"""What a failure or a refusal of the Hub means, and what to do about it.

huggingface_hub tells refusals apart by the X-Error-Code field; mirrors often leave it out, then the status has to do.
Neither an answer's own text nor an exception's is passed on: both may quote what they should not, a header with the
token in it among them.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tgi_advisor.deadline import Deadline
from tgi_advisor.errors import FactsError
from tgi_advisor.gather.environment import public
from tgi_advisor.safe import named

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

TOKENS = "https://huggingface.co/settings/tokens"
NO_HUB = "Check HF_ENDPOINT: something that is not a Hub may stand in between (a proxy, a login page)."
_LOCAL = "--offline uses only what is on this machine."


class UnreachableError(FactsError):
    """The Hub gave no usable answer: network, DNS, TLS, timeouts, 429, 5xx, or somebody else answered."""


class UnknownModelError(FactsError):
    """The Hub knows no such model, or none that we may see."""


class FailedError(Exception):
    """One attempt failed; `what` completes `The Hub at <host> ...`."""

    def __init__(self, what: str, hint: str, *, again: bool = False, after: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.again = again
        """Whether another attempt may go better."""
        self.after = after
        """Seconds the server asks us to wait."""

    def told(self, host: str, attempts: int = 1) -> UnreachableError:
        """The error for a user, after so many attempts."""
        tried = f" ({attempts} attempts)" if attempts > 1 else ""
        return UnreachableError(f"The Hub at {host} {self.what}{tried}.", self.hint)


def late() -> FailedError:
    """The deadline has passed."""
    what = "did not finish its answer in the time it is given"
    return FailedError(what, "Try again later; something on the way may be slow.")


_BROKE_OFF = ("broke off in the middle of an answer", "Try again; a proxy on the way may be the cause.")
_FAILURES = (
    (
        "OfflineModeIsEnabled", "is not asked: huggingface_hub was told not to use the network",
        "Unset HF_HUB_OFFLINE.",
    ),
    (
        "gaierror", "cannot be found: its name has no address",
        f"Check the network, HF_ENDPOINT and the proxy; {_LOCAL}",
    ),
    ("ProxyError", "is out of reach: the proxy refuses the tunnel", "Check HTTPS_PROXY, its user and password."),
    (
        "SSLCertVerificationError", "shows a certificate that this machine does not trust",
        "A proxy that opens TLS needs its root certificate: SSL_CERT_FILE=/path/to/ca.pem or REQUESTS_CA_BUNDLE.",
    ),
    (
        "TimeoutError TimeoutException", "did not answer within {seconds:g} s",
        f"Try again later; HF_HUB_DOWNLOAD_TIMEOUT=30 waits longer; {_LOCAL}",
    ),
    ("ConnectionResetError ConnectionAbortedError BrokenPipeError SSLEOFError DecodingError", *_BROKE_OFF),
    ("SSLError", "and this machine cannot agree on TLS", "Check HF_ENDPOINT: http:// or https://?"),
    ("ConnectionRefusedError", "refuses connections", "Check HF_ENDPOINT and the proxy; does the server run?"),
    ("InvalidURL UnicodeError", "has no valid address", "Check HF_ENDPOINT and the proxy variables."),
    ("ProtocolError", "does not answer as a web server does", NO_HUB),
    ("OSError TransportError", "cannot be reached", f"Check the network; {_LOCAL}"),
)  # fmt: skip
"""Kinds of failure below HTTP, the special before the general, what to say and what to do.

Kinds go by the name of an exception or of a base of it, anywhere in the chain of causes: those of the HTTP library
have the same names in httpx, which huggingface_hub 1 uses, and httpx2, which 2 does.
"""
_PASSING = ("TimeoutError", "ConnectionResetError")
"""What may go better the next time, by the first kind of its row."""


def failed(error: Exception, url: str, deadline: Deadline) -> FailedError:
    """What went wrong below HTTP; an error of another kind is raised again."""
    names: set[str] = set()
    link: BaseException | None = error
    for _ in range(20):  # of causes, which may go in circles
        if link is not None:
            names.update(kind.__name__ for kind in type(link).__mro__)
            link = link.__cause__ or link.__context__
    if deadline.over and "TimeoutError" in names:
        return late()
    if "RemoteProtocolError" in names:  # the library has one kind for a connection that ends and for what is no HTTP
        silent = "disconnected" in str(error)
        if "peer closed" in str(error) or (silent and not _speaks_otherwise(url, deadline)):
            return FailedError(*_BROKE_OFF, again=True)
    for kinds, what, hint in _FAILURES:
        if not names.isdisjoint(kinds.split()):
            return FailedError(what.format(seconds=deadline.wait), hint, again=kinds.startswith(_PASSING))
    raise error


def _speaks_otherwise(url: str, deadline: Deadline) -> bool:
    """Whether what listens there says something before it hangs up, and not in HTTP."""
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


def busy(response: Any) -> FailedError | None:
    """429 and 5xx, which may pass."""
    if response.status_code == 429:
        wait = response.headers.get("retry-after", "")
        seconds = float(wait) if wait.isdecimal() else None
        until = f", wait {named(wait)} s" if seconds is not None else ""
        hint = "Wait, then run it again; a token (HF_TOKEN) raises the limit."
        return FailedError(f"says there were too many requests (429{until})", hint, again=True, after=seconds)
    if response.status_code >= 500:
        hint = "The Hub is in trouble: try again later, or give a local folder as model.id."
        return FailedError(f"answers with an error of its own (HTTP {response.status_code})", hint, again=True)
    return None


def refused(error: HfHubHTTPError, repo: str, revision: str, what: str, token_from: str) -> FactsError:
    """What we say for the library's exception.

    `what` is the file, empty for the repository itself; `token_from` says where the token came from, empty
    when none was sent.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    code = error.response.headers.get("x-error-code", "")
    status = error.response.status_code
    page = f"https://huggingface.co/{repo}"
    if isinstance(error, GatedRepoError) and token_from:
        return FactsError(
            f"{repo} is gated, and the token from {token_from} has no access to it (HTTP {status}).",
            f"Accept its licence on {page} with the account the token belongs to and wait for the approval; "
            f"a fine-grained token also needs the permission to read gated repositories ({TOKENS}).",
        )
    if isinstance(error, GatedRepoError):
        return FactsError(
            f"{repo} is gated: the Hub wants an accepted licence and a token before it serves its files.",
            f"Accept the licence on {page}, make a read token on {TOKENS} and set it: export HF_TOKEN=...",
        )
    if status == 401 and token_from:
        return FactsError(
            f"The Hub does not accept the token from {token_from} (HTTP 401).",
            f"It may have expired or be cut short: make a new one on {TOKENS}, or unset it for public models.",
        )
    if isinstance(error, RevisionNotFoundError):
        return FactsError(f"{repo} has no revision {revision!r}.", f"Its branches and tags are on {page}/tree/main.")
    if isinstance(error, EntryNotFoundError) or (
        status == 404 and what and not isinstance(error, RepositoryNotFoundError)
    ):
        return FactsError(
            f"{repo} has no {what} at revision {revision!r}.",
            "TGI needs it: give the id of a repository in the Hugging Face format.",
        )
    if status in (401, 404):
        where = "" if revision == "main" or code else f" (or it has no revision {revision!r})"
        hint = "Check the spelling" + ("." if token_from else "; for a private model set HF_TOKEN.")
        return UnknownModelError(f"The Hub knows no model {repo}{where}.", hint)
    if status == 403:
        return FactsError(
            f"The Hub refuses {what or repo} (HTTP 403).",
            f"The token may lack the permission to read {repo}, or a proxy forbids it."
            if token_from
            else "Set HF_TOKEN to a token that may read it; a proxy may also forbid it.",
        )
    return UnreachableError(
        f"{public(str(error.response.url))} answers with HTTP {status}.",
        "Check HF_ENDPOINT and the proxy; the address should be a Hub's.",
    )
