"""Which cluster is meant, and how to log in there: kubeconfig files, or the account of a pod.

As `kubectl` decides it: KUBECONFIG, then ~/.kube/config and its current context; inside a pod without a kubeconfig, the
pod's service account. The official client logs in. It takes a kubeconfig for what it should be, and goes on as nobody
where it is not; so what a context refers to is looked at here first. No text of a file is quoted in an error but names,
paths and addresses, for tokens stand beside them.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import shlex
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tgi_advisor.errors import EngineError, MissingError, did_you_mean
from tgi_advisor.reading import home, read_regular
from tgi_advisor.safe import masked, named

CONFIG_BYTES = 1 << 22
"""The longest kubeconfig that is read, and the longest file that one names."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its account (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)."""
SHOW = "`kubectl config view` shows it without secrets."
SECTIONS = ("clusters", "users", "contexts")
SERVERS = ("https", "http")
PROXIES = ("http", "https", "socks5", "socks5h")
_FILES = (
    ("clusters", "certificate-authority", "certificate-authority-data"),
    ("users", "client-certificate", "client-certificate-data"),
    ("users", "client-key", "client-key-data"),
    ("users", "tokenFile", "token"),
)
"""Settings that name a file, and the setting that holds its content instead."""


class Login(NamedTuple):
    """A cluster that is meant."""

    context: str | None
    """The context's name; None for a pod's own account."""
    namespace: str | None
    """The namespace it names."""
    elsewhere: bool
    """Whether kubectl without --context would ask another cluster."""
    again: Again
    """How to log in once more where credentials run out."""


class Again:
    """Logs in once more where that may help: a program is asked again, the file of a token read again."""

    def __init__(self, files: str = "", context: str = "", whose: str = "", *, may: bool = False) -> None:
        """`whose` is who gives credentials out, as errors name it; `may`, whether to ask for others is of any use."""
        self._files, self._context, self.whose, self._may = files, context, whose, may
        self._lock = threading.Lock()

    def __call__(self, configuration: Any, refused: Mapping[str, str]) -> bool:
        """Put fresh credentials in the place of those that were refused; whether there are others."""
        with self._lock:
            return configuration.api_key != refused or (self._may and self._renews(configuration))

    def _renews(self, configuration: Any) -> bool:
        from kubernetes.client import Configuration
        from kubernetes.config import kube_config

        fresh = Configuration()
        with complaints() as found:
            kube_config.load_kube_config(self._files, self._context, fresh, persist_config=False)
        if found or fresh.api_key == configuration.api_key:
            return False
        configuration.api_key, configuration.refresh_api_key_hook = fresh.api_key, fresh.refresh_api_key_hook
        return True


def find(context: str | None, environ: Mapping[str, str], configuration: Any) -> Login:
    """Fill in what a context says, or the account of the pod this runs in; EngineError."""
    files = _files(environ)
    if files:
        return _load(_read(files), context, configuration)
    if context is None and environ.get("KUBERNETES_SERVICE_HOST"):
        return Login(None, _load_account(configuration), False, Again())
    raise EngineError(
        "no kubeconfig says which cluster is meant",
        "Name it with KUBECONFIG, or write ~/.kube/config as your cluster's documentation says. Without a cluster, "
        "`tgi-advisor emit --format kubernetes` prints the manifests to apply elsewhere.",
    )


_CLIENT = threading.Lock()
"""Held while the client may log: what it complains of is that of one caller."""


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What the client logs meanwhile, instead of printing it: that a program failed, before it goes on as nobody."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "root":
                found.append(record.getMessage())

    keeper, root = Keeper(logging.WARNING), logging.getLogger()
    with _CLIENT:
        root.addHandler(keeper)
        try:
            yield found
        finally:
            root.removeHandler(keeper)


def said(found: Sequence[str]) -> str:
    """Complaints in a few words and without secrets."""
    return masked(" ".join(" ".join(found).split()))[:300] or "it does not say why"


# -- files


def _files(environ: Mapping[str, str]) -> list[str]:
    """The kubeconfig files that are there."""
    given = environ.get("KUBECONFIG")
    paths = [path for path in given.split(os.pathsep) if path] if given else [str(Path(home(environ)) / ".kube/config")]
    found = [path for path in paths if Path(path).exists()]
    if given and not found:
        raise EngineError(
            f"KUBECONFIG names no file that is there: {named(given)}",
            "Correct it, or unset it: ~/.kube/config is taken then.",
        )
    return found


class _Config(NamedTuple):
    """What several files say together; of two that say a thing, the first."""

    files: str
    """Those that say anything, as KUBECONFIG names them."""
    current: str | None
    """The current context."""
    sections: dict[str, dict[str, dict[str, Any]]]
    """Clusters, users and contexts by name."""
    folders: dict[tuple[str, str], Path]
    """The folder of the file that each of these is from, by section and name."""


def _read(files: Sequence[str]) -> _Config:
    """The files together."""
    current = None
    sections: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in SECTIONS}
    folders: dict[tuple[str, str], Path] = {}
    used = []
    for file in files:
        found = _parsed(file)
        if found is None:
            continue
        used.append(file)
        now = found.get("current-context")
        current = current or (None if now is None else str(now))
        for section in SECTIONS:
            for name, inner in _rows(file, section, found.get(section)):
                if name not in sections[section]:
                    sections[section][name] = inner
                    folders[section, name] = Path(file).absolute().parent
    if not used:
        raise EngineError(
            f"{' and '.join(map(named, files))} {'is' if len(files) == 1 else 'are'} empty: no cluster is named there",
            "Have your cloud's command write it (such as `aws eks update-kubeconfig`), or name another file with "
            "KUBECONFIG.",
        )
    return _Config(os.pathsep.join(used), current, sections, folders)


def _parsed(file: str) -> dict[Any, Any] | None:
    """What is in a file; None where nothing is."""
    import yaml

    try:
        text = read_regular(file, CONFIG_BYTES)
        if len(text) > CONFIG_BYTES:
            raise EngineError(f"{named(file)} is longer than a kubeconfig can be", "Is it another file?")
        found = yaml.safe_load(text)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"the kubeconfig {named(file)} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}",
            "Correct KUBECONFIG, or the rights of the file.",
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        why = re.sub(r"'[^']{5,}'", "...", str(error.problem or "it cannot be read"))
        raise EngineError(f"{named(file)}{place}: no YAML: {why}", "Correct it there.") from None
    except (yaml.YAMLError, RecursionError):
        raise EngineError(
            f"{named(file)} is no text, and so no kubeconfig", "Name the right file with KUBECONFIG."
        ) from None
    if found is None:
        return None
    if not isinstance(found, dict):
        what = "a list" if isinstance(found, list) else "a text"
        raise EngineError(
            f"{named(file)} is no kubeconfig, but {what}",
            "A kubeconfig has `clusters`, `users`, `contexts` and `current-context`: name the right file with "
            "KUBECONFIG.",
        )
    return found


def _rows(file: str, section: str, rows: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a section with their names."""
    what = section[:-1]
    if not isinstance(rows or [], list):
        raise EngineError(
            f"`{section}` of the kubeconfig {named(file)} is no list", f"Each entry has a `name` and a `{what}`. {SHOW}"
        )
    for number, row in enumerate(rows or (), 1):
        name = row.get("name") if isinstance(row, dict) else None
        inner = row.get(what) if isinstance(row, dict) else None
        if name is None or not isinstance(inner, dict):
            called = f" ({named(str(name))})" if isinstance(name, str) else ""
            raise EngineError(
                f"entry {number}{called} of `{section}` in the kubeconfig {named(file)} has no "
                f"{'`name`' if name is None else f'`{what}` with settings in it'}",
                f"Is it indented as the others are? {SHOW}",
            )
        yield str(name), inner


# -- a context


def _load(config: _Config, context: str | None, configuration: Any) -> Login:
    """Fill in what a context says, once all that it refers to is there."""
    name = context or config.current
    contexts = config.sections["contexts"]
    has = f"It has: {', '.join(map(named, contexts)) or 'none'}."
    if not name:
        raise EngineError(
            "the kubeconfig has no current context",
            f"Name one, --on kubernetes:CONTEXT, or `kubectl config use-context NAME`. {has}",
        )
    if name not in contexts:
        raise EngineError(f"the kubeconfig has no context {named(name)!r}", did_you_mean(name, list(contexts)) or has)
    chosen = contexts[name]
    cluster = _referred(config, name, chosen, "clusters")
    user = _referred(config, name, chosen, "users")
    _check_cluster(cluster, config.sections["clusters"][cluster] if cluster else None, name)
    if user:
        _check_user(user, config.sections["users"][user])
    for section, called in (("clusters", cluster), ("users", user)):
        if called:
            _check_files(config, section, called)
    _ask_client(config, name, user, configuration)
    own = chosen.get("namespace")
    settings = config.sections["users"][user] if user else {}
    program = settings.get("exec")
    whose = f"the program {named(str(program.get('command')))!r}" if program else "what logs this context in"
    again = Again(config.files, name, whose, may=bool(program or settings.get("tokenFile")))
    return Login(name, None if own is None else str(own), name != config.current, again)


def _referred(config: _Config, context: str, chosen: Mapping[str, Any], section: str) -> str | None:
    """The name of the cluster or user that a context refers to; None where it names none."""
    what = section[:-1]
    name = chosen.get(what)
    if name in (None, ""):
        return None
    known = config.sections[section]
    if str(name) not in known:
        raise EngineError(
            f"the context {named(context)!r} names the {what} {named(str(name))!r}, which the kubeconfig has not",
            did_you_mean(str(name), list(known)) or f"It has: {', '.join(map(named, known)) or 'none'}.",
        )
    return str(name)


def _check_cluster(name: str | None, cluster: Mapping[str, Any] | None, context: str) -> None:
    """Whether a cluster can be asked."""
    if name is None or cluster is None:
        raise EngineError(f"the context {named(context)!r} names no cluster", f"Write it beside its user. {SHOW}")
    server, called = cluster.get("server"), f"the cluster {named(name)!r} of the kubeconfig"
    if not server:
        raise EngineError(f"{called} has no `server`", "It is the address of the API server: https://HOST:6443.")
    if not _address(server, SERVERS):
        bare = isinstance(server, str) and "." in server and "://" not in server
        meant = f"did you mean https://{masked(server)}?" if bare else "It is https://HOST:6443."
        raise EngineError(f"`server` of {called} is no address of an API server: {named(masked(str(server)))!r}", meant)
    if "@" in urlsplit(server).netloc:
        raise EngineError(
            f"`server` of {called} has a user and password in it: {masked(server)}",
            "They are not sent. Write `username` and `password`, or a token, into the user.",
        )
    proxy = cluster.get("proxy-url")
    if proxy and not _address(proxy, PROXIES):
        raise EngineError(
            f"`proxy-url` of {called} is no address of a proxy: {named(masked(str(proxy)))!r}",
            f"Write http://HOST:PORT; {', '.join(PROXIES)} are known.",
        )
    if proxy and proxy.startswith("socks") and find_spec("socks") is None:
        raise MissingError(f"`proxy-url` of {called} needs the Python package PySocks, which is not installed.",
                           "pip install PySocks")  # fmt: skip
    skip = cluster.get("insecure-skip-tls-verify")
    if not isinstance(skip, bool | None):
        raise EngineError(
            f"`insecure-skip-tls-verify` of {called} is neither true nor false, but {named(str(skip))!r}",
            "Without it the server's certificate is checked.",
        )


def _address(text: Any, schemes: Sequence[str]) -> bool:
    """Whether a text is an address with a host, and a port that can be one."""
    if not isinstance(text, str) or not text.isprintable() or " " in text:
        return False
    with suppress(ValueError):
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    return False


def _check_user(name: str, user: Mapping[str, Any]) -> None:
    """Whether a user can log in in a way that the client knows."""
    called = f"the user {named(name)!r} of the kubeconfig"
    provider = user.get("auth-provider")
    if provider is not None:
        kind = provider.get("name") if isinstance(provider, dict) else None
        if kind != "oidc":
            raise EngineError(
                f"{called} logs in by the auth-provider {named(str(kind))!r}, which kubectl has not had since 1.26",
                "Log in again with the cloud's own command, which writes a program (`exec`) in its place.",
            )
    program = user.get("exec")
    if program is not None and not (isinstance(program, dict) and program.get("command")):
        raise EngineError(f"`exec` of {called} names no `command`", SHOW)
    acting = next((setting for setting in ("as", "as-uid", "as-groups", "as-user-extra") if user.get(setting)), None)
    if acting:
        raise EngineError(
            f"{called} acts as somebody else (`{acting}`), which the client for Python cannot",
            "Use a context whose user logs in as the one meant.",
        )


def _check_files(config: _Config, section: str, name: str) -> None:
    """Whether the files and the certificates of a cluster or user can be read; what is in them is not shown."""
    settings, what = config.sections[section][name], section[:-1]
    for where, file, data in _FILES:
        if where != section:
            continue
        called = f"of the {what} {named(name)!r}"
        if data.endswith("-data") and settings.get(data):
            try:
                base64.b64decode("".join(str(settings[data]).split()), validate=True)
            except ValueError:
                raise EngineError(
                    f"`{data}` {called} is no base64",
                    "A line of it may be missing: take it from the cluster once more.",
                ) from None
        elif settings.get(file):
            path = config.folders[section, name] / str(settings[file])
            try:
                empty = not read_regular(path, CONFIG_BYTES).strip()
                why = "it is empty" if empty else None
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "its name is no path"
            if why:
                raise EngineError(
                    f"`{file}` {called} cannot be read: {named(str(path))}: {why}",
                    "Log in again, or take the file from the cluster once more.",
                )


def _ask_client(config: _Config, context: str, user: str | None, configuration: Any) -> None:
    """Have the client read the kubeconfig, and a program give credentials out."""
    from kubernetes.config import kube_config

    try:
        with complaints() as found:
            kube_config.load_kube_config(config.files, context, configuration, persist_config=False)
    except Exception as error:  # noqa: BLE001  (the client takes a kubeconfig for what it should be)
        raise EngineError(
            f"the kubeconfig {named(config.files)} is not understood ({type(error).__name__})", SHOW
        ) from None
    settings = config.sections["users"][user] if user else {}
    given = configuration.api_key or configuration.cert_file
    program = settings.get("exec")
    if program and not given:
        raise EngineError(
            f"the program {named(str(program['command']))!r}, which logs this context in, gives no credentials: "
            f"{said(found)}",
            masked(str(program.get("installHint") or ""))
            or f"Run it by hand, or see whether `kubectl get pods --context {shlex.quote(context)}` works.",
        )
    if settings.get("auth-provider") and not given:
        raise EngineError("the auth-provider 'oidc' of this context gives no token", "Log in again.")
    _check_certificates(configuration)


def _check_certificates(configuration: Any) -> None:
    """Whether certificates and keys are such: where a connection finds out, it is taken for broken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    hint = "Log in again, or take them from the cluster once more."
    try:
        if configuration.ssl_ca_cert:
            context.load_verify_locations(configuration.ssl_ca_cert)
    except (OSError, ValueError):
        raise EngineError("certificate-authority of this context holds no certificate (PEM)", hint) from None
    try:
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file, password=lambda: b"")
    except (OSError, ValueError, TypeError):
        raise EngineError(
            "client-certificate and client-key of this context are no certificate with its key (PEM, without a "
            "passphrase)",
            hint,
        ) from None


def _load_account(configuration: Any) -> str | None:
    """Fill in the account of the pod this runs in; its namespace."""
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)
        return (ACCOUNT / "namespace").read_text("utf-8").strip() or None
    except (ConfigException, OSError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise EngineError(f"the account of this pod cannot be used: {masked(words)}") from None
