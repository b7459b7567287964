"""How `--on kubernetes` comes to a cluster and logs in: TLS, certificates, tokens, plugins, a pod's own account."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clusters
import pytest
from click.testing import CliRunner, Result
from clusters import ApiServer, Authority

from tgi_advisor.cli.main import cli
from tgi_advisor.launch.kubernetes import cluster as of_clusters

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
        program.write_text(f"#!{sys.executable} -S\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
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
    monkeypatch.setattr(of_clusters, "ACCOUNT", account)
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
