"""The API server of a cluster: how it is asked, and what it says when it refuses.

The official client signs requests in and forwards ports; objects are plain dictionaries, as the manifests are.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn
from urllib.parse import urlencode

from tgi_advisor.errors import AdvisorError, EngineError, MissingError, UsageError
from tgi_advisor.launch.kubernetes import kubeconfig
from tgi_advisor.launch.place import LostPlaceError
from tgi_advisor.safe import masked, named

MANAGER = "tgi-advisor"
"""Name under which fields are applied (https://kubernetes.io/docs/reference/using-api/server-side-apply/)."""
APPLY = "application/apply-patch+yaml"
ONLY_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""An object without its content: how a Secret is looked at and not read."""
CONNECT_S = 10.0
"""Seconds in which a connection has to stand."""
ANSWER_S = 30.0
"""Seconds one answer may take; streams have their own."""
TRIES = 4
"""How often a request is sent that the server puts off or whose connection breaks; all of ours can be repeated."""
PUT_OFF = frozenset({429, 500, 502, 503, 504})
MOST_WAIT_S = 10.0
"""The longest wait that a Retry-After is granted."""
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What the name of a namespace is, and of a Deployment with a Service
(https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names)."""
NAMED_LIKE = "At most 63 lower-case letters, digits and dashes, with a letter or digit at both ends."
INSTALL = "pip install 'tgi-advisor[kubernetes]'"


class RefusedError(EngineError):
    """An answer of the API server that is no success."""

    def __init__(self, what: str, status: int, reason: str, words: str, details: Mapping[str, Any]) -> None:
        super().__init__(f"the cluster could not {what}: {words}")
        self.status, self.reason, self.words, self.details = status, reason, words, details


@dataclass(frozen=True)
class Cluster:
    """A connection that answered."""

    api: Any
    """The client's ApiClient."""
    namespace: str
    """The namespace asked for."""
    context: str | None
    """The context's name; None for a pod's own account."""
    version: str = ""
    """The server's version, as it says."""
    warned: list[str] = field(default_factory=list)
    """What the server warned of, in the Warning headers of answers."""
    elsewhere: bool = False
    """Whether kubectl without --context would ask another cluster."""
    login: kubeconfig.Again = field(default_factory=kubeconfig.Again)
    """Logs in once more."""

    @property
    def shown(self) -> str:
        """Which cluster, as people say it."""
        return f"context {named(self.context)!r}" if self.context else "the cluster of this pod"

    @property
    def address(self) -> str:
        """The API server's address, without a user and password."""
        return masked(str(self.api.configuration.host))

    @property
    def by(self) -> str:
        """The option with which kubectl asks the same cluster, with a space before it; empty where it does anyway."""
        return f" --context {shlex.quote(self.context)}" if self.elsewhere and self.context else ""

    @property
    def at(self) -> str:
        """The options with which kubectl asks the same namespace of the same cluster."""
        return f"-n {self.namespace}{self.by}"

    @property
    def on(self) -> str:
        """The options with which tgi-advisor asks the same namespace of the same cluster."""
        place = f"kubernetes:{self.context}" if self.context else "kubernetes"
        return f"--on {shlex.quote(place)} --namespace {self.namespace}"

    def close(self) -> None:
        """Close the connections."""
        with suppress(Exception):  # of connections that are broken anyway
            self.api.rest_client.pool_manager.clear()

    # -- requests

    def get(self, path: str, what: str, query: Mapping[str, Any] | None = None, **how: Any) -> dict[str, Any]:
        """An object or a list; RefusedError."""
        return self._json("GET", path, what, query, **how)

    def find(self, path: str, what: str, **how: Any) -> dict[str, Any] | None:
        """An object; None when there is none."""
        try:
            return self.get(path, what, **how)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post an object."""
        return self._json("POST", path, what, None, body)

    def apply(
        self, path: str, what: str, body: Mapping[str, Any], *, dry: bool, force: bool, manager: str = MANAGER
    ) -> dict[str, Any]:
        """Server-side apply; `dry` changes nothing, `force` takes fields over from other managers."""
        query = {"fieldManager": manager, "force": "true" if force else "false", "fieldValidation": "Strict"}
        return self._json("PATCH", path, what, query | ({"dryRun": "All"} if dry else {}), body, content=APPLY)

    def delete(self, path: str, what: str, *, grace: int | None = None) -> bool:
        """Delete an object and then what it owns; whether it was there."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self._json("DELETE", path, what, None, options)
        except RefusedError as error:
            if error.status != 404:
                raise
            return False
        return True

    def stream(self, path: str, what: str, query: Mapping[str, Any], quiet_s: float) -> Any:
        """The answer to a GET as it arrives, an urllib3 response; a read that waits longer than `quiet_s` fails."""
        used = self._credentials
        answer = self._sent("GET", path, what, query, None, {"Accept": "application/json, */*"}, quiet_s)
        if answer.status == 401 and self._logs_in_again(used):
            answer = self._sent("GET", path, what, query, None, {"Accept": "application/json, */*"}, quiet_s)
        if not 200 <= answer.status < 300:
            self._refuse(what, answer.status, _read(answer))
        return answer

    def forward(self, pod: str, port: int, seconds: float) -> socket.socket:
        """A connection to a port of a pod; OSError when there is none, RefusedError when nobody may have one."""
        from tgi_advisor.launch.kubernetes import forward

        what = f"forward a port of pod {pod}"
        url = self._url(f"{self.pods}/{pod}/portforward", {"ports": port})
        again = True
        while True:
            used = self._credentials
            with self.asked(what):
                headers = {name.lower(): value for name, value in self._signed({}).items()}
            try:
                return forward.connect(self.api.configuration, url, headers, max(seconds, CONNECT_S))
            except forward.RefusedForwardError as error:
                if error.status == 401 and again and self._logs_in_again(used):
                    again = False
                    continue
                if error.status in (401, 403):
                    self._refuse(what, error.status, b"")
                raise

    # -- paths

    @property
    def core(self) -> str:
        """Of core objects of the namespace."""
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def pods(self) -> str:
        """Of the namespace's pods."""
        return f"{self.core}/pods"

    @property
    def deployments(self) -> str:
        """Of the namespace's Deployments."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments"

    # -- sending

    def _json(
        self, method: str, path: str, what: str, query: Mapping[str, Any] | None, body: Any = None, *,
        content: str = "application/json", accept: str = "application/json",
    ) -> dict[str, Any]:  # fmt: skip
        for attempt in range(1, TRIES + 1):
            last, used = attempt == TRIES, self._credentials
            try:
                answer = self._sent(
                    method, path, what, query, body, {"Accept": accept, "Content-Type": content}, ANSWER_S
                )
                data = _read(answer)
            except LostPlaceError:
                if last:
                    raise
                _wait(0.2 * 2**attempt)
                continue
            if answer.status in PUT_OFF and not last:
                _wait(_after(answer, attempt))
                continue
            if answer.status == 401 and not last and self._logs_in_again(used):
                continue
            if not 200 <= answer.status < 300:
                self._refuse(what, answer.status, data)
            self.warned.extend(_warnings(answer))
            try:
                found = json.loads(data)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise EngineError(
                    f"the cluster could not {what}: its answer is not understood",
                    f"Is {self.address} the address of a Kubernetes API server?",
                )
            return found
        raise AssertionError("the last attempt returns or raises")

    def _sent(
        self, method: str, path: str, what: str, query: Mapping[str, Any] | None, body: Any, headers: dict[str, str],
        seconds: float,
    ) -> Any:  # fmt: skip
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        with self.asked(what):
            signed = self._signed(headers)
            try:
                return self.api.rest_client.pool_manager.request(
                    method, self._url(path, query), headers=signed, body=None if body is None else json.dumps(body),
                    timeout=Timeout(connect=CONNECT_S, read=seconds), retries=False, preload_content=False,
                    redirect=False,
                )  # fmt: skip
            except (HTTPError, OSError) as error:
                raise self._lost(error) from None

    @property
    def _credentials(self) -> dict[str, str]:
        """Those of now; never shown."""
        return dict(self.api.configuration.api_key)

    def _logs_in_again(self, refused: Mapping[str, str]) -> bool:
        """Whether there are other credentials than those that were refused."""
        with self.asked("log in again"):
            return self.login(self.api.configuration, refused)

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Turns what the client may raise besides its answers (credential plugins that fail) into an EngineError."""
        try:
            yield
        except AdvisorError:
            raise
        except Exception as error:  # noqa: BLE001  (plugins and files of the kubeconfig fail in any way)
            raise EngineError(
                f"the cluster could not be asked to {what}: {self._why(error)}",
                f"See whether `kubectl get pods {self.at}` works.",
            ) from None

    def _lost(self, error: Exception) -> EngineError:
        from urllib3.exceptions import ProxyError

        if (untrusted := _untrusted(error)) is not None:
            return EngineError(
                f"the certificate of the API server at {self.address} is not trusted: {untrusted}",
                "Nothing was sent. See whether certificate-authority of this context is the cluster's own, and whether "
                "something between here and the cluster answers in its place.",
            )
        if isinstance(error, ProxyError):
            return LostPlaceError(
                f"the proxy {masked(str(self.api.configuration.proxy))} on the way to {self.address} does not answer: "
                f"{self._why(error)}",
                "It is `proxy-url` of this context's cluster, else HTTPS_PROXY; NO_PROXY names hosts that need none.",
            )
        return LostPlaceError(
            f"the API server at {self.address} does not answer: {self._why(error)}",
            f"See whether `kubectl version{self.by}` works.",
        )

    def _signed(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers with those that sign the request in; never shown.

        Credentials that have run out are asked for anew meanwhile. Where they are not given out, that is waited for as
        a server that is away is: somebody may be logging in.
        """
        with kubeconfig.complaints() as found:
            rows = self.api.configuration.auth_settings().values()
        if found:
            raise LostPlaceError(
                f"{self.login.whose} gives no credentials any more: {kubeconfig.said(found)}",
                "Log in again; what runs in the cluster is not touched by that.",
            )
        given = {row["key"]: str(row["value"]).strip() for row in rows if row["value"]}
        if not all(value.isascii() and value.isprintable() for value in given.values()):
            raise EngineError("the token of this context has characters that no token has", "Log in again.")
        return {"User-Agent": MANAGER, **headers, **given}

    def _why(self, error: BaseException) -> str:
        """The reason of a failed connection, without the credentials it may quote."""
        text = _why(error)
        for value in self.api.configuration.api_key.values():
            for secret in (value, *str(value).split()[1:]):
                text = text.replace(str(secret).strip() or "\n", "***")
        return text

    def _url(self, path: str, query: Mapping[str, Any] | None) -> str:
        host = str(self.api.configuration.host).rstrip("/")
        return f"{host}{path}?{urlencode(query)}" if query else f"{host}{path}"

    def _refuse(self, what: str, status: int, data: bytes) -> NoReturn:
        """RefusedError in the server's own words."""
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        said = said if isinstance(said, dict) else {}
        details = said.get("details")
        words = said.get("message") or data[:300].decode("utf-8", "replace").strip() or f"status {status}"
        error = RefusedError(
            what, status, str(said.get("reason", "")), masked(" ".join(str(words).split())),
            details if isinstance(details, dict) else {},
        )  # fmt: skip
        if status == 401:
            error.hint = (
                "The credentials of this context are not valid (any more): log in again; "
                f"`kubectl auth whoami{self.by}` tells who you are."
            )
        elif status == 403:
            error.hint = f"`kubectl auth can-i --list {self.at}` shows what this account may do."
        raise error


def connect(context: str | None, namespace: str | None, environ: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster that is meant, once it has answered; EngineError, MissingError without the client."""
    try:
        from kubernetes.client import ApiClient, Configuration
    except ImportError as error:
        raise MissingError(
            f"Kubernetes needs the Python package {error.name}, which is not installed.", INSTALL
        ) from None
    if namespace is not None and not NAME.fullmatch(namespace):
        raise UsageError(f"--namespace {named(namespace)!r} cannot be the name of a namespace", NAMED_LIKE)
    configuration = Configuration()
    login = kubeconfig.find(context, environ, configuration)
    if login.namespace and not NAME.fullmatch(login.namespace):
        whose = f"the context {named(login.context)!r}" if login.context else "the account of this pod"
        raise EngineError(f"{whose} names {named(login.namespace)!r}, which cannot be a namespace", NAMED_LIKE)
    cluster = Cluster(
        ApiClient(configuration), namespace or login.namespace or "default", login.context, elsewhere=login.elsewhere,
        login=login.again,
    )  # fmt: skip
    if not configuration.verify_ssl:
        import urllib3

        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # a launch says it in its own words
    try:
        version = cluster.get("/version", "say its version").get("gitVersion")
    except RefusedError as error:
        if error.status == 404:
            error.hint = f"Is {cluster.address} the address of a Kubernetes API server?"
        raise
    return replace(cluster, version=str(version))


def _why(error: BaseException) -> str:
    """The innermost reason of a failed connection, in a few words and without secrets."""
    inner: BaseException = error
    while True:
        last = inner.args[-1] if inner.args else None  # where urllib3 puts what it is about
        reason = getattr(inner, "reason", None) or inner.__cause__ or last
        if not isinstance(reason, BaseException):
            break
        inner = reason
    words = getattr(inner, "strerror", None) or getattr(inner, "reason", None) or str(inner) or type(inner).__name__
    text = " ".join(str(words).split())
    text = text.partition("): ")[2] or text if text.startswith("<") or "Connection object" in text else text
    return masked(text)[:300]


def _untrusted(error: BaseException | None) -> str | None:
    """Why a server's certificate was not accepted; None where that is not what went wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return masked(error.verify_message.rstrip("."))[:300]
        inner = error.args[0] if error.args else None  # where urllib3 puts what it is about
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return None


def _read(answer: Any) -> bytes:
    """The whole answer; LostPlaceError when the connection breaks."""
    from urllib3.exceptions import HTTPError

    try:
        data: bytes = answer.read(decode_content=True)
    except (HTTPError, OSError) as error:
        raise LostPlaceError(f"the API server stopped answering: {_why(error)}") from None
    finally:
        answer.release_conn()
    return data


def _warnings(answer: Any) -> Iterator[str]:
    """The texts of Warning headers: `299 - "text"` (RFC 7234, 5.5)."""
    for value in answer.headers.getlist("Warning"):
        quoted = value.partition('"')[2].rpartition('"')[0]
        if quoted:
            yield quoted.replace('\\"', '"')


def _after(answer: Any, attempt: int) -> float:
    """Seconds until the next try."""
    given = answer.headers.get("Retry-After", "")
    return min(float(given) if given.isdecimal() else 0.2 * 2**attempt, MOST_WAIT_S)


def _wait(seconds: float) -> None:
    time.sleep(seconds)
