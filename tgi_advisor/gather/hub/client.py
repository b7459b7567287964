"""huggingface_hub, asked about one model by many threads.

Headers, token, connections, TLS, proxies, encodings, redirects and what a refusal means are the library's; session.py
lays bounds around its session, wording.py says what went wrong. `HfApi` is imported for the headers of many shards
(`get_sharded_safetensors_metadata`) and not for the entry, for which `model_info` would make every answer wait a fifth
longer. `hf_hub_download` asks twice, needs an ETag that mirrors leave out, waits for locks and writes into the cache
that TGI reads; `parse_safetensors_file_metadata` does not see how long the file is and takes headers of 100 MB.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from tgi_advisor import __version__, bounds
from tgi_advisor.deadline import Deadline
from tgi_advisor.errors import AdvisorError, FactsError, missing
from tgi_advisor.gather.hub import settings
from tgi_advisor.gather.hub.session import Exchange, Span, bind, current
from tgi_advisor.gather.hub.wording import UnreachableError, late

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

PATIENCE = bounds.HUB_S
"""Seconds one exchange may take, its further attempts included, or HF_HUB_DOWNLOAD_TIMEOUT if longer."""
WORKERS = 32
GRACE = 0.05
"""Seconds after its deadline in which an exchange may still tell itself what went wrong."""

_NAME = {"library_name": "tgi-advisor", "library_version": __version__}

T = TypeVar("T")
R = TypeVar("R")


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
        self._connected = False

    def connect(self) -> None:
        """Import the library, and lay our bounds around its session; UnreachableError where it cannot be used."""
        try:
            with redirect_stdout(sys.stderr):  # it prints what goes wrong
                from huggingface_hub import get_session  # noqa: F401
        except ImportError:
            raise UnreachableError(*missing("huggingface_hub", "ask the Hub")) from None
        except ValueError:  # it reads its variables as it is imported
            raise UnreachableError(
                "huggingface_hub cannot be used: one of its environment variables holds no number.",
                "Look for HF_..._TIMEOUT and the like: env | grep ^HF_",
            ) from None
        bind()
        if not self._connected:
            self._connected = True
            self._log_in()

    def _log_in(self) -> None:
        """Take a token that only the library finds: a notebook's secret (Colab), that of a job (HF_OIDC_RESOURCE)."""
        from huggingface_hub import constants, get_token

        files = (settings.token_path(), constants.HF_TOKEN_PATH)
        if self.token or not settings.implicit_token() or any(os.path.lexists(file) for file in files):
            return
        try:
            token: Any = self.ask(get_token, bounds.MAX_INDEX)
        except AdvisorError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever its many ways to a token may raise)
            token = error
        if isinstance(token, Exception):
            raise FactsError(
                "huggingface_hub could not get the token of this job or notebook.",
                "Set HF_TOKEN, unset HF_OIDC_RESOURCE, or send none: HF_HUB_DISABLE_IMPLICIT_TOKEN=1.",
            )
        if token:
            self.token, self.token_from, self._headers = token, "huggingface_hub's login", {}

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

        mark = current.set(Exchange(self, limit, span, judge, Deadline(self._patience, self.timeout)))
        try:
            return call()
        except HfHubHTTPError as error:  # a value, so that the first of several answers is judged first
            return error
        except OfflineModeIsEnabled:
            pass
        finally:
            current.reset(mark)
        raise UnreachableError("huggingface_hub was told not to use the network.", "Unset HF_HUB_OFFLINE.")

    def get(self, path: str, limit: int, span: Span | None = None, judge: Callable[[Any], None] | None = None) -> Any:
        """A path of the Hub, or the bytes `span` of it: a response of the library, or its HfHubHTTPError."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

        def call() -> Any:
            headers = build_hf_headers(token=self.token or False, headers=self._headers, **_NAME)
            if span:
                headers["range"] = f"bytes={span.first}-{span.last}"
            response = get_session().get(self.shown + path, headers=headers)
            hf_raise_for_status(response)
            return response

        return self.ask(call, limit, span, judge)

    def file(self, repo: str, at: str, name: str, limit: int, span: Span | None = None) -> Any:
        """The same for a file of a repository at a branch, tag or commit."""
        return self.get(f"/{repo}/resolve/{quote(at, safe='')}/{quote(name)}", limit, span)

    def all_headers(self, repo: str, judge: Callable[[Any], None]) -> Any:
        """The tensor headers of all shards, of `main` and in one call; None where the library is too old for it."""
        from huggingface_hub import HfApi  # takes a third as long as all the rest of the library

        api = HfApi(endpoint=self.shown, token=self.token or False, headers=self._headers, **_NAME)
        call = getattr(api, "get_sharded_safetensors_metadata", None)
        return call and self.ask(lambda: call(repo), bounds.MAX_HEADERS, judge=judge)

    @property
    def _patience(self) -> float:
        return min(max(PATIENCE, self.timeout), self._end - time.monotonic())
