"""A cluster that is known by a kubeconfig alone: what the tests of `launch --on kubernetes` do to it and see of it.

The same on a real cluster and on the API server of tests/clusters.py. Each test has a namespace of its own, which is
removed afterwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from clusters import KINDS

from tgi_advisor.launch.kubernetes.cluster import connect

Obj = dict[str, Any]
ACCOUNT_S = 30.0
"""Seconds a new namespace may take until it has its service account."""
CA = ("certificate-authority",)
FILES = ("client-certificate", "client-key", "tokenFile")
"""Settings of a kubeconfig that name files beside it."""
GONE_S = 60.0
"""Seconds the pods of a deployment that was removed may take until they are told to end."""


class Cluster:
    """One namespace of a cluster, through its API."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._api = connect(None, namespace, {"KUBECONFIG": str(kubeconfig)})
        self.kubeconfig, self.namespace = kubeconfig, namespace
        self.context: str = yaml.safe_load(kubeconfig.read_text())["current-context"]

    def create(self, obj: Obj) -> None:
        """Make an object, as somebody who is not tgi-advisor."""
        version = obj["apiVersion"]
        base = "/api/v1" if version == "v1" else f"/apis/{version}"
        inside = "" if obj["kind"] == "Namespace" else f"/namespaces/{self.namespace}"
        self._api.create(f"{base}{inside}/{obj['kind'].lower()}s", f"create {obj['kind']}", obj)

    def quota(self, name: str, spec: Obj) -> None:
        """A ResourceQuota, once it counts."""
        self.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec})
        path, end = f"/api/v1/namespaces/{self.namespace}/resourcequotas/{name}", time.monotonic() + ACCOUNT_S
        while "hard" not in ((self.find(path) or {}).get("status") or {}) and time.monotonic() < end:
            time.sleep(0.2)

    def edit(self, deployment: str, spec: Obj, manager: str) -> None:
        """Set fields of a Deployment, as somebody of that name."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{deployment}"
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": deployment}, "spec": spec}
        self._api.apply(path, f"edit {deployment}", body, dry=False, force=True, manager=manager)

    def find(self, path: str) -> Obj | None:
        """An object; None where there is no such thing."""
        return self._api.find(path, f"read {path}")

    def remove(self, path: str) -> None:
        """Remove an object and all that is in it."""
        self._api.delete(path, f"remove {path}")

    def of_kind(self, kind: str) -> list[Obj]:
        """What there is of a kind and is not on its way out."""
        version, plural = next((v, plural) for v, rows in KINDS.items() for plural, one in rows.items() if one == kind)
        base = "/api/v1" if version == "v1" else f"/apis/{version}"
        found = self._api.get(f"{base}/namespaces/{self.namespace}/{plural}", f"list {plural}")
        return [{"kind": kind, **one} for one in found["items"] if "deletionTimestamp" not in one["metadata"]]

    def settled(self, kind: str) -> list[Obj]:
        """The same, once no pod is left of a deployment that is gone: it goes a little later than that."""
        end = time.monotonic() + GONE_S
        while time.monotonic() < end and self.of_kind("Pod") and not self.of_kind("Deployment"):
            time.sleep(0.2)
        return self.of_kind(kind)

    def without(self, kind: str, name: str) -> bool:
        """Whether an object goes, which what owns it may ask for a little later than it is ready itself."""
        end = time.monotonic() + GONE_S
        while (there := name in [one["metadata"]["name"] for one in self.of_kind(kind)]) and time.monotonic() < end:
            time.sleep(0.2)
        return not there


@contextmanager
def namespace(kubeconfig: Path, folder: Path) -> Iterator[Cluster]:
    """A namespace for as long as this lasts, and in `folder` a kubeconfig whose current context is in it."""
    name = f"tgi-advisor-test-{uuid4().hex[:8]}"
    config = yaml.safe_load(kubeconfig.read_text())
    current = next(one for one in config["contexts"] if one["name"] == config["current-context"])
    current["context"]["namespace"] = name
    for section, settings in (("clusters", CA), ("users", FILES)):
        for row in config.get(section) or ():
            inner = row[section[:-1]]
            inner.update({name: str(kubeconfig.parent / inner[name]) for name in settings if name in inner})
    own = folder / "kubeconfig"
    own.write_text(json.dumps(config))
    cluster = Cluster(own, name)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        account, end = f"/api/v1/namespaces/{name}/serviceaccounts/default", time.monotonic() + ACCOUNT_S
        while cluster.find(account) is None and time.monotonic() < end:
            time.sleep(0.2)
        yield cluster
    finally:
        cluster.remove(f"/api/v1/namespaces/{name}")
