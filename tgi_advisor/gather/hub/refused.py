"""What each refusal of the Hub means, and what to do about it.

huggingface_hub tells them apart by the X-Error-Code field; mirrors often leave it out, then the status has to do.
The answer's own text, which the library's exceptions quote, is never passed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi_advisor.errors import FactsError
from tgi_advisor.gather.hub.client import UnreachableError
from tgi_advisor.gather.hub.settings import public

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

TOKENS = "https://huggingface.co/settings/tokens"


class UnknownModelError(FactsError):
    """The Hub knows no such model, or none that we may see."""


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
