"""How `--on kubernetes` comes to a cluster and logs in: TLS, certificates, tokens, plugins, a pod's own account."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clusters
import pytest
from click.testing import CliRunner, Result
from clusters import ApiServer, Authority

from tgi_advisor.cli.main import cli
from tgi_advisor.launch import follow
from tgi_advisor.launch.kubernetes import cluster as of_clusters
from tgi_advisor.launch.kubernetes import kubeconfig, watching

OPENSSL = shutil.which("openssl")
pytestmark = [
    pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes the certificates, is not installed"),
    pytest.mark.loopback("who may log in is changed"),
]
OTHER = "another-token-that-nobody-may-see"
SPEC = {
    "model": {"id": "Qwen/Qwen2.5-3B-Instruct", "dtype": "bfloat16"},
    "hardware": {"gpu": {"name": "intel-cpu", "memory": "64GiB"}},
    "tgi": {"image": "pretend/text-generation-inference:3.3.7-intel-cpu"},
    "limits": {"max_total_tokens": {"max": "8k"}},
    "container": {"name": "llama"},
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    assert OPENSSL
    return Authority(tmp_path_factory.mktemp("authority"), OPENSSL)


class Gate:
    """A cluster over TLS, and kubeconfigs for it."""

    def __init__(self, folder: Path, server: ApiServer, authority: Authority) -> None:
        self.folder, self.server, self.authority = folder, server, authority

    def config(self, user: dict[str, Any], **cluster: Any) -> None:
        """Write the kubeconfig that KUBECONFIG names; the authority's certificate unless another is given."""
        trusted = {} if cluster else {"certificate-authority": str(self.authority.certificate)}
        Path(os.environ["KUBECONFIG"]).write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "tls",
            "clusters": [{"name": "tls", "cluster": {"server": self.server.url, **trusted, **cluster}}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": "tls", "context": {"cluster": "tls", "user": "me"}}],
        }))  # fmt: skip

    def plugin(self, text: str) -> dict[str, Any]:
        """A user whose credentials a program prints."""
        program = self.folder / "log-in"
        new = self.folder / "log-in.new"  # so that whoever runs it meanwhile runs one of the two
        new.write_text(f"#!{sys.executable} -S\n{text}\n")
        new.chmod(new.stat().st_mode | stat.S_IXUSR)
        new.rename(program)
        return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program),
                         "interactiveMode": "Never"}}  # fmt: skip

    def prints(self, **status: str) -> dict[str, Any]:
        """A user whose plugin gives these credentials out."""
        return self.plugin(f"print({json.dumps(credential(**status))!r})")

    def status(self) -> Result:
        return seen(CliRunner().invoke(cli, ["status", "--on", "kubernetes"], catch_exceptions=False))

    def launch(self, *options: str) -> Result:
        path = self.folder / "spec.yaml"
        path.write_text(json.dumps(SPEC))
        words = ["launch", str(path), "--on", "kubernetes", *options]
        return seen(CliRunner().invoke(cli, words, catch_exceptions=False))


def credential(**status: str) -> dict[str, Any]:
    return {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}


def seen(result: Result) -> Result:
    """No credential is in it."""
    for secret in (clusters.TOKEN, OTHER, "PRIVATE KEY", "Traceback"):
        assert secret not in result.output, result.output
    return result


@pytest.fixture
def gate(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("TGI_ADVISOR_DATA", str(tmp_path / "history"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_TOKEN", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    with clusters.running(folder, authority) as server:
        yield Gate(tmp_path, server, authority)
        assert server.problems == []


def test_a_launch_over_tls_with_a_client_certificate(gate: Gate) -> None:
    """Requests, watches, the log and the forwarded port."""
    own = gate.authority.folder
    gate.config({"client-certificate": str(own / "client.pem"), "client-key": str(own / "client.key")})
    result = gate.launch()
    assert result.exit_code == 0, result.output
    assert gate.status().exit_code == 0


def test_a_launch_over_tls_with_certificates_in_the_file_itself(gate: Gate) -> None:
    own = gate.authority.folder

    def inline(name: str) -> str:
        return base64.b64encode((own / name).read_bytes()).decode()

    user = {"client-certificate-data": inline("client.pem"), "client-key-data": inline("client.key")}
    gate.config(user, **{"certificate-authority-data": inline("ca.pem")})
    assert gate.status().exit_code == 0


@pytest.mark.parametrize("scheme", ["token", "tokenFile"])
def test_a_bearer_token(gate: Gate, scheme: str) -> None:
    file = gate.folder / "token"
    file.write_text(clusters.TOKEN)
    gate.config({scheme: str(file) if scheme == "tokenFile" else clusters.TOKEN})
    result = gate.launch("--json")
    assert result.exit_code == 0, result.output


def test_a_token_that_has_expired(gate: Gate) -> None:
    gate.config({"token": OTHER})
    for result in (gate.status(), gate.launch()):
        assert result.exit_code == 7
        assert "log in again" in result.stderr


def test_a_server_that_another_authority_vouches_for(gate: Gate, tmp_path: Path) -> None:
    assert OPENSSL
    folder = tmp_path / "other"
    folder.mkdir()
    gate.config({"token": clusters.TOKEN}, **{"certificate-authority": str(Authority(folder, OPENSSL).certificate)})
    for result in (gate.status(), gate.launch()):
        assert result.exit_code == 7
        said = " ".join(result.stderr.split())
        assert f"the certificate of the API server at {gate.server.url} is not trusted" in said
        assert "certificate-authority" in said
    assert gate.server.requests == [], "the token was sent to a server that nobody vouches for"


def test_a_server_of_another_name(gate: Gate) -> None:
    ca = str(gate.authority.certificate)
    name = {"server": gate.server.url.replace("127.0.0.1", "localhost"), "certificate-authority": ca}
    gate.config({"token": clusters.TOKEN}, **name)
    result = gate.status()
    assert result.exit_code == 7
    assert "is not trusted" in " ".join(result.stderr.split())


def test_an_authority_that_is_not_there(gate: Gate) -> None:
    for given in ({"certificate-authority": str(gate.folder / "none.pem")}, {"certificate-authority-data": "Zm9v"}):
        gate.config({"token": clusters.TOKEN}, **given)
        result = gate.status()
        assert (result.exit_code, result.stdout) == (7, ""), result.output


def written(folder: Path, where: str, **settings: Any) -> dict[str, Any]:
    """A kubeconfig in which a section's only entry has these settings besides its own."""
    inner = {
        "clusters": {"server": "https://127.0.0.1:9"},
        "users": {"token": OTHER},
        "contexts": {"cluster": "c", "user": "u"},
    }
    for name, value in settings.items():
        key = name.replace("_", "-") if where != "users" or name != "tokenFile" else name
        inner[where] = {**inner[where], key: value.replace("FOLDER", str(folder)) if isinstance(value, str) else value}
    return {
        "current-context": "x",
        **{section: [{"name": "x" if section == "contexts" else section[0], section[:-1]: inner[section]}]
           for section in inner},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "settings", "says", "hint"),
    [
        ("contexts", {"cluster": "d"}, "names the cluster 'd', which the kubeconfig has not", "It has: c."),
        ("contexts", {"user": "v"}, "names the user 'v', which the kubeconfig has not", "It has: u."),
        ("contexts", {"cluster": None}, "the context 'x' names no cluster", "beside its user"),
        ("clusters", {"server": None}, "the cluster 'c' of the kubeconfig has no `server`", "https://HOST:6443"),
        ("clusters", {"server": "10.0.0.1:6443"}, "is no address of an API server", "did you mean https://10.0.0.1:6443?"),
        ("clusters", {"server": 6443}, "is no address of an API server: '6443'", "It is https://HOST:6443"),
        ("clusters", {"server": "https://h:99999"}, "is no address of an API server", "It is https://HOST:6443"),
        ("clusters", {"server": "https://a b"}, "is no address of an API server", "It is https://HOST:6443"),
        ("clusters", {"server": "ftp://h"}, "is no address of an API server", "It is https://HOST:6443"),
        ("clusters", {"server": f"https://me:{OTHER}@h"}, "has a user and password in it", "They are not sent"),
        ("clusters", {"proxy_url": "h:3128"}, "`proxy-url` of the cluster 'c' of the kubeconfig is no address", "http://"),
        ("clusters", {"proxy_url": f"http://me:{OTHER}@127.0.0.1:9"}, "the proxy http://***@127.0.0.1:9 on the way",
         "`proxy-url` of this context's cluster"),
        ("clusters", {"insecure_skip_tls_verify": "false"}, "is neither true nor false, but 'false'", "is checked"),
        ("clusters", {"certificate_authority": "FOLDER/none.pem"}, "cannot be read", "No such file"),
        ("clusters", {"certificate_authority": "FOLDER"}, "cannot be read", "it is a folder"),
        ("clusters", {"certificate_authority_data": "%%%"}, "`certificate-authority-data` of the cluster 'c' is no",
         "take it from the cluster"),
        ("clusters", {"certificate_authority_data": "aGVsbG8="}, "holds no certificate (PEM)", "take them from"),
        ("users", {"client_certificate": "FOLDER/none.pem"}, "`client-certificate` of the user 'u' cannot", "Log in"),
        ("users", {"client_certificate_data": "abc"}, "`client-certificate-data` of the user 'u' is no base64", "line"),
        ("users", {"client_certificate_data": "aGVsbG8=", "client_key_data": "aGVsbG8="},
         "are no certificate with its key", "Log in again"),
        ("users", {"tokenFile": "FOLDER/none"}, "`tokenFile` of the user 'u' cannot be read", "No such file"),
        ("users", {"token": f"{OTHER}\nX: y"}, "the token of this context has characters that no token has", "Log in"),
        ("users", {"auth_provider": {"name": "gcp"}}, "logs in by the auth-provider 'gcp'", "Log in again with"),
        ("users", {"exec": {"apiVersion": "v1"}}, "`exec` of the user 'u' of the kubeconfig names no", "kubectl"),
        ("users", {"as": "somebody"}, "acts as somebody else (`as`)", "Use a context"),
    ],
)  # fmt: skip
def test_what_a_context_refers_to_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, settings: dict[str, Any], says: str, hint: str
) -> None:
    """Before the client takes it for what it should be; no credential is in what is said of it."""
    path = tmp_path / "config"
    path.write_text(json.dumps(written(tmp_path, where, **settings)))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(of_clusters, "TRIES", 1)
    result = seen(CliRunner().invoke(cli, ["status", "--on", "kubernetes"], catch_exceptions=False))
    said = " ".join(result.stderr.split())
    assert (result.exit_code, result.stdout) == (7, "")
    assert says in said
    assert hint in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: no cluster is named there"),
        (b"# later\n", "is empty: no cluster is named there"),
        (bytes(range(256)), "is no text, and so no kubeconfig"),
        (b"- a\n", "is no kubeconfig, but a list"),
        (b"hello", "is no kubeconfig, but a text"),
        (b"\tusers: []", "config:1:1: no YAML: found character '\\t' that cannot start any token"),
        (b"users: [" + b"[" * 5000, "is no text, and so no kubeconfig"),
        (f"users: &a\n  - *{OTHER}".encode(), "config:2:5: no YAML: found undefined alias ..."),
        (b"users: me", "`users` of the kubeconfig"),
        (f"users:\n- name: me\n  token: {OTHER}".encode(), "entry 1 (me) of `users` in the kubeconfig"),
        (f"users:\n- name:\n    token: {OTHER}\n".encode(), "entry 1 of `users` in the kubeconfig"),
        (b"clusters: []", "the kubeconfig has no current context"),
    ],
)
def test_a_file_that_is_no_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str
) -> None:
    (tmp_path / "config").write_bytes(content)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    result = seen(CliRunner().invoke(cli, ["status", "--on", "kubernetes"], catch_exceptions=False))
    assert (result.exit_code, result.stdout) == (7, "")
    assert says in " ".join(result.stderr.split())


def test_of_several_files_an_empty_one_is_passed_over(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.config({"token": clusters.TOKEN})
    (gate.folder / "empty").write_text("")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(gate.folder / "empty"), os.environ["KUBECONFIG"]]))
    assert gate.status().exit_code == 0


def test_a_server_that_is_not_checked_is_said(gate: Gate, recwarn: pytest.WarningsRecorder) -> None:
    gate.config({"token": clusters.TOKEN}, **{"insecure-skip-tls-verify": True})
    result = gate.launch("--dry-run")
    assert result.exit_code == 0, result.output
    assert "is not checked (insecure-skip-tls-verify)" in " ".join(result.stderr.split())
    assert not recwarn.list


def test_the_name_that_a_certificate_is_for(gate: Gate) -> None:
    """`tls-server-name`, which stands in for the host."""
    ca = {"certificate-authority": str(gate.authority.certificate)}
    localhost = gate.server.url.replace("127.0.0.1", "localhost")
    gate.config({"token": clusters.TOKEN}, server=localhost, **ca, **{"tls-server-name": "127.0.0.1"})
    assert gate.status().exit_code == 0
    gate.config({"token": clusters.TOKEN}, **ca, **{"tls-server-name": "other.example"})
    result = gate.status()
    assert result.exit_code == 7
    assert "not valid for 'other.example'" in " ".join(result.stderr.split())


# -- credentials that run out while a server comes up


def runs_out(gate: Gate, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> Result:
    """A launch during whose load something happens to its credentials; whose watches begin anew all the time."""
    for where, name, value in ((watching, "AGAIN_S", 0.05), (watching, "MOST_AGAIN_S", 0.1), (follow, "BACK_S", 1.0),
                               (of_clusters, "TRIES", 2), (watching, "PATIENT", 1)):  # fmt: skip
        monkeypatch.setattr(where, name, value)
    gate.server.watch_seconds = 0.2

    def soon() -> None:
        gate.server.started.wait(20)
        happens()

    wait = threading.Thread(target=soon)
    wait.start()
    spec = {**SPEC, "tgi": {**SPEC["tgi"], "env": {"PRETEND": json.dumps({"slow": 0.1})}}}  # type: ignore[dict-item]
    (gate.folder / "slow.yaml").write_text(json.dumps(spec))
    words = ["launch", str(gate.folder / "slow.yaml"), "--on", "kubernetes"]
    result = seen(CliRunner().invoke(cli, words, catch_exceptions=False))
    wait.join()
    return result


def expiring(gate: Gate, soon: bool) -> dict[str, Any]:
    """A user whose plugin says that what it gives out is to be renewed at once, where `soon`."""
    return gate.prints(token=clusters.TOKEN, **({"expirationTimestamp": "2026-01-01T00:00:00Z"} if soon else {}))


def test_a_plugin_that_fails_while_a_server_comes_up(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for; what runs is left alone, and found by its label."""
    gate.config(expiring(gate, soon=True))
    result = runs_out(gate, monkeypatch, lambda: gate.plugin("import sys; sys.exit('log in: cloud login')"))
    assert result.exit_code == 7, result.output
    said = " ".join(result.stderr.split())
    assert "gives no credentials any more: exec: process returned 1. log in: cloud login; waiting for it" in said
    assert "has the label" in said
    assert "ERROR:root" not in result.output
    assert [one["metadata"]["name"] for one in gate.server.of_kind("Deployment")] == ["llama"]


def test_a_token_that_runs_out_while_a_server_comes_up(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.config({"token": clusters.TOKEN})
    result = runs_out(gate, monkeypatch, lambda: gate.server.tokens.clear())
    assert result.exit_code == 7, result.output
    assert "log in again" in " ".join(result.stderr.split())


@pytest.mark.parametrize("scheme", ["tokenFile", "exec"])
def test_a_token_that_is_renewed_while_a_server_comes_up(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Where the cluster does not take one any more, the file is read or the program asked again."""
    file = gate.folder / "token"
    file.write_text(f"{clusters.TOKEN}\n")
    gate.config({"tokenFile": str(file)} if scheme == "tokenFile" else expiring(gate, soon=False))

    def happens() -> None:
        if scheme == "exec":
            gate.prints(token=OTHER)
        else:
            file.write_text(OTHER)
        gate.server.tokens = {OTHER}

    result = runs_out(gate, monkeypatch, happens)
    assert result.exit_code == 0, result.output


def test_a_plugin_that_logs_in(gate: Gate) -> None:
    gate.config(gate.prints(token=clusters.TOKEN))
    result = gate.launch()
    assert result.exit_code == 0, result.output


def test_a_plugin_that_gives_out_a_certificate(gate: Gate) -> None:
    own = gate.authority.folder
    client, key = ((own / name).read_text() for name in ("client.pem", "client.key"))
    gate.config(gate.prints(clientCertificateData=client, clientKeyData=key))
    assert gate.status().exit_code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sys; sys.exit('the session has ended: log in with `cloud login`')", "the session has ended"),
        (f"print('{OTHER}')", "not understood"),
        (f"print({json.dumps({**credential(token=OTHER), 'apiVersion': 'v1'})!r})", "v1"),
        (f"print({json.dumps(credential(clientCertificateData='x'))!r})", "clientKeyData"),
        (f"print({json.dumps(credential())!r})", "token"),
    ],
    ids=["fails", "no JSON", "version", "no key", "nothing"],
)
def test_a_plugin_that_does_not_log_in_is_named(gate: Gate, text: str, says: str) -> None:
    """Without, the cluster would be asked as nobody, and refuse one thing after the other."""
    gate.config(gate.plugin(text))
    result = gate.status()
    assert result.exit_code == 7
    said = " ".join(result.stderr.split())
    assert "log-in" in said
    assert "gives no credentials" in said
    assert "ERROR:root" not in said
    if says != "not understood":
        assert says in said
    assert gate.server.requests == []


def test_a_plugin_that_is_not_installed(gate: Gate) -> None:
    user = gate.prints(token=OTHER)
    user["exec"] |= {"command": "no-such-cloud", "installHint": "Install it with the cloud's own tools."}
    gate.config(user)
    result = gate.status()
    assert result.exit_code == 7
    said = " ".join(result.stderr.split())
    assert "no-such-cloud" in said
    assert "Install it with the cloud's own tools." in said


def test_the_account_of_a_pod(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.config import incluster_config

    account = gate.folder / "account"
    account.mkdir()
    host, _, port = gate.server.url.removeprefix("https://").partition(":")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(kubeconfig, "ACCOUNT", account)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(account / "ca.crt"))
    result = gate.status()
    assert result.exit_code == 7
    assert "the account of this pod cannot be used: Service token file does not exist" in result.stderr
    (account / "token").write_text(clusters.TOKEN)
    (account / "namespace").write_text("team\n")
    shutil.copy(gate.authority.certificate, account / "ca.crt")
    result = gate.launch()
    assert result.exit_code == 0, result.output
    assert "Stop it with: tgi-advisor stop llama --on kubernetes --namespace team\n" in result.stdout
    assert [one["metadata"]["namespace"] for one in gate.server.of_kind("Deployment")] == ["team"]
