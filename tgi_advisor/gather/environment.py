"""Where the Hub is and where answers are kept: the environment variables of huggingface_hub.

The names and their order are those of https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables;
they are read here because shipped models, folders and what was kept need them without the time that importing
huggingface_hub takes.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from tgi_advisor import bounds
from tgi_advisor.errors import FactsError
from tgi_advisor.safe import named

PUBLIC_HUB = "https://huggingface.co"


def endpoint() -> str:
    """URL of the Hub or its mirror (HF_ENDPOINT), without a trailing slash; it may hold credentials."""
    url = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or PUBLIC_HUB
    if not url.startswith(("http://", "https://")) or not _has_host(url):
        raise FactsError(
            "HF_ENDPOINT is not a URL that starts with http:// or https:// and names a host.",
            f"Write it as {PUBLIC_HUB}, or unset it to ask the public Hub.",
        )
    return url


def _has_host(url: str) -> bool:
    """Whether a URL names a host, and a port that can be one where it names a port."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def public(url: str) -> str:
    """The URL as it may be shown: without user, password, query and fragment."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}"


def mirror() -> str | None:
    """The address in HF_ENDPOINT, where it names another Hub than the public one; it may hold credentials."""
    if not os.environ.get("HF_ENDPOINT", "").strip():
        return None
    url = endpoint()
    return None if url == PUBLIC_HUB else url


def is_own(url: str) -> bool:
    """Whether an address is one of the machine that asks: inside a container it is the container."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.endswith(".localhost") or host.startswith("127.")  # noqa: S104


def proxy() -> bool:
    """Whether the Hub is asked through a proxy of the environment."""
    return any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))


def home() -> Path:
    """HF_HOME: the folder Hugging Face's libraries keep token and cache in."""
    return Path(_path("HF_HOME") or _user_cache() / "huggingface")


def hub_cache() -> Path:
    """HF_HUB_CACHE: the folder with `models--org--name` folders."""
    return Path(_path("HF_HUB_CACHE") or _path("HUGGINGFACE_HUB_CACHE") or home() / "hub")


def own_cache() -> Path:
    """TGI_ADVISOR_CACHE: the folder our own answers are kept in."""
    return Path(_path("TGI_ADVISOR_CACHE") or _user_cache() / "tgi-advisor")


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids the network."""
    return _yes("HF_HUB_OFFLINE") or _yes("TRANSFORMERS_OFFLINE")


def timeout() -> float:
    """Seconds to wait for the Hub to say anything (HF_HUB_DOWNLOAD_TIMEOUT)."""
    text = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "").strip() or "10"
    if not text.isdecimal() or len(text) > 4 or not 0 < int(text) <= bounds.HUB_WAIT_S:
        raise FactsError(
            f"HF_HUB_DOWNLOAD_TIMEOUT={named(text)!r} is not a number of seconds from 1 to {bounds.HUB_WAIT_S}.",
            "Write a whole number: 10",
        )
    return float(text)


def _yes(name: str) -> bool:
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def _path(name: str) -> str:
    return os.path.expandvars(os.path.expanduser(os.environ.get(name, "")))  # noqa: PTH111 (as huggingface_hub does)


def _user_cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise FactsError(
            f"The home in {given} is of nobody this machine knows.", "Set XDG_CACHE_HOME to an absolute path."
        ) from None
