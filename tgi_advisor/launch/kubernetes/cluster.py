"""The API server of a cluster: which one is meant, how it is asked, and what it says when it refuses.

The official client reads the kubeconfig (or the pod's own account), signs requests in and forwards ports; objects are
plain dictionaries, as the manifests are. Which cluster is meant is decided as `kubectl` decides it: KUBECONFIG, then
~/.kube/config and its current context; inside a pod without a kubeconfig, the pod's service account.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlencode

from tgi_advisor.errors import AdvisorError, EngineError, MissingError, UsageError, did_you_mean
from tgi_advisor.launch.place import LostPlaceError
from tgi_advisor.reading import home, read_regular
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
CONFIG_BYTES = 1 << 22
"""The longest kubeconfig that is read."""
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What the name of a namespace is, and of a Deployment with a Service
(https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names)."""
NAMED_LIKE = "At most 63 lower-case letters, digits and dashes, with a letter or digit at both ends."
INSTALL = "pip install 'tgi-advisor[kubernetes]'"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its account (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)."""


class RefusedError(EngineError):
    """An answer of the API server that is no success."""

    def __init__(self, what: str, status: int, reason: str, words: str, details: Mapping[str, Any]) -> None:
        super().__init__(f"the cluster could not {what}: {words}", _HINTS.get(status))
        self.status, self.reason, self.words, self.details = status, reason, words, details


_HINTS = {
    401: "The credentials of this context are not valid (any more): log in again; `kubectl auth whoami` tells.",
    403: "`kubectl auth can-i --list` shows what this account may do; `launch --dry-run` lists what a launch needs.",
}


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
        answer = self._sent("GET", path, what, query, None, {"Accept": "application/json, */*"}, quiet_s)
        if not 200 <= answer.status < 300:
            self._refuse(what, answer.status, _read(answer))
        return answer

    def forward(self, pod: str, port: int, seconds: float) -> socket.socket:
        """A connection to a port of a pod; OSError when there is none."""
        from tgi_advisor.launch.kubernetes import forward

        headers = {name.lower(): value for name, value in self._signed({}).items()}
        url = self._url(f"{self.pods}/{pod}/portforward", {"ports": port})
        return forward.connect(self.api.configuration, url, headers, max(seconds, CONNECT_S))

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
            last = attempt == TRIES
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

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Turns what the client may raise besides its answers (credential plugins that fail) into an EngineError."""
        try:
            yield
        except AdvisorError:
            raise
        except Exception as error:  # noqa: BLE001  (plugins and files of the kubeconfig fail in any way)
            raise EngineError(
                f"the cluster could not be asked to {what}: {_why(error)}",
                "See whether `kubectl get pods` works with this context.",
            ) from None

    def _lost(self, error: Exception) -> EngineError:
        if (untrusted := _untrusted(error)) is not None:
            return EngineError(
                f"the certificate of the API server at {self.address} is not trusted: {untrusted}",
                "Nothing was sent. See whether certificate-authority of this context is the cluster's own, and whether "
                "something between here and the cluster answers in its place.",
            )
        return LostPlaceError(
            f"the API server at {self.address} does not answer: {_why(error)}",
            "See whether `kubectl version` works with this context.",
        )

    def _signed(self, headers: dict[str, str]) -> dict[str, str]:
        """The headers with those that sign the request in; never shown."""
        given = {row["key"]: row["value"] for row in self.api.configuration.auth_settings().values() if row["value"]}
        return {"User-Agent": MANAGER, **headers, **given}

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
        raise RefusedError(
            what, status, str(said.get("reason", "")), masked(" ".join(str(words).split())),
            details if isinstance(details, dict) else {},
        )  # fmt: skip


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
    files = _files(environ)
    elsewhere = False
    if files:
        name, own, elsewhere = _load(files, context, configuration)
    elif context is None and environ.get("KUBERNETES_SERVICE_HOST"):
        name, own = None, _load_account(configuration)
    else:
        raise EngineError(
            "no kubeconfig says which cluster is meant",
            "Name it with KUBECONFIG, or write ~/.kube/config as your cluster's documentation says. Without a cluster, "
            "`tgi-advisor emit --format kubernetes` prints the manifests to apply elsewhere.",
        )
    if own and not NAME.fullmatch(own):
        whose = f"the context {named(name)!r}" if name else "the account of this pod"
        raise EngineError(f"{whose} names {named(own)!r}, which cannot be a namespace", NAMED_LIKE)
    cluster = Cluster(ApiClient(configuration), namespace or own or "default", name, elsewhere=elsewhere)
    version = cluster.get("/version", "say its version").get("gitVersion")
    return replace(cluster, version=str(version))


def _files(environ: Mapping[str, str]) -> list[str]:
    """The kubeconfig files that are there; EngineError for one that cannot be read."""
    given = environ.get("KUBECONFIG")
    paths = [path for path in given.split(os.pathsep) if path] if given else [str(Path(home(environ)) / ".kube/config")]
    found = []
    for path in paths:
        try:
            if len(read_regular(path, CONFIG_BYTES)) > CONFIG_BYTES:
                raise EngineError(f"{path} is longer than a kubeconfig can be")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise EngineError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        found.append(path)
    if given and not found:
        raise EngineError(f"KUBECONFIG names no file that is there: {named(given)}")
    return found


def _load(files: Sequence[str], context: str | None, configuration: Any) -> tuple[str, str | None, bool]:
    """Fill in what a context of the files says; its name and namespace, and whether it is not the current one."""
    from kubernetes.config import ConfigException, kube_config

    merged = os.pathsep.join(files)
    contexts, current, programs = _contexts(files)
    has = f"It has: {', '.join(map(named, contexts)) or 'none'}."
    name = context or current
    if not name:
        raise EngineError(
            "the kubeconfig has no current context",
            f"Name one, --on kubernetes:CONTEXT, or `kubectl config use-context NAME`. {has}",
        )
    if name not in contexts:
        raise EngineError(f"the kubeconfig has no context {named(name)!r}", did_you_mean(name, list(contexts)) or has)
    try:
        with _complaints() as complaints:
            kube_config.load_kube_config(
                config_file=merged, context=name, client_configuration=configuration, persist_config=False
            )
    except ConfigException as error:
        raise EngineError(
            f"the kubeconfig {merged} cannot be used: {_why(error)}", "`kubectl config view` shows it without secrets."
        ) from None
    except Exception as error:  # noqa: BLE001  (the client takes a kubeconfig for what it should be)
        raise EngineError(
            f"the kubeconfig {merged} is not understood ({type(error).__name__})",
            "`kubectl config view` shows it without secrets.",
        ) from None
    program = programs.get(contexts[name].user)
    if program is not None and not (configuration.api_key or configuration.cert_file):
        why = masked(" ".join(" ".join(complaints).split()))[:300]
        raise EngineError(
            f"the program {named(program.command)!r}, which logs this context in, gives no credentials: "
            f"{why or 'it does not say why'}",
            masked(program.hint)
            or f"Run it by hand, or see whether `kubectl get pods --context {shlex.quote(name)}` works.",
        )
    return name, contexts[name].namespace, name != current


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What is logged meanwhile: the client logs that a plugin failed, and goes on as nobody."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    keeper, root = Keeper(logging.WARNING), logging.getLogger()
    root.addHandler(keeper)
    try:
        yield found
    finally:
        root.removeHandler(keeper)


class Context(NamedTuple):
    """What a context of a kubeconfig says."""

    namespace: str | None
    """Its namespace."""
    user: str
    """The name of its user."""


class Program(NamedTuple):
    """A program that gives out credentials
    (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins)."""

    command: str
    """Its name or path."""
    hint: str
    """How to install it, as the kubeconfig says."""


def _contexts(files: Sequence[str]) -> tuple[dict[str, Context], str | None, dict[str, Program]]:
    """Contexts, the current one, and the programs that log users in; of several files the first that says it."""
    import yaml

    contexts: dict[str, Context] = {}
    programs: dict[str, Program] = {}
    current = None
    try:
        for file in files:
            found = yaml.safe_load(read_regular(file, CONFIG_BYTES))
            current = current or found.get("current-context")
            for row in found.get("contexts") or ():
                said = row.get("context") or {}
                own = said.get("namespace")
                context = Context(None if own is None else str(own), str(said.get("user")))
                contexts.setdefault(str(row["name"]), context)
            for row in found.get("users") or ():
                if program := (row.get("user") or {}).get("exec"):
                    hint = str(program.get("installHint") or "")
                    programs.setdefault(str(row["name"]), Program(str(program.get("command")), hint))
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(
            f"{' or '.join(files)} is no kubeconfig ({type(error).__name__})",
            "`kubectl config view` shows what is wrong with it.",
        ) from None
    return contexts, None if current is None else str(current), programs


def _load_account(configuration: Any) -> str | None:
    """Fill in the account of the pod this runs in; its namespace."""
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)
        return (ACCOUNT / "namespace").read_text("utf-8").strip() or None
    except (ConfigException, OSError) as error:
        raise EngineError(f"the account of this pod cannot be used: {_why(error)}") from None


def _why(error: BaseException) -> str:
    """The innermost reason of a failed connection, in a few words and without secrets."""
    inner: BaseException = error
    while (reason := getattr(inner, "reason", None) or inner.__cause__) and isinstance(reason, BaseException):
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
