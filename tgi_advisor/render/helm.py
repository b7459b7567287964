"""A small Helm chart with the manifests of the `kubernetes` format; its files go where `--output FOLDER` says.

- values.yaml holds what people change: image, arguments, variables, replicas, port, resources, sizes. Its texts stand
  for themselves; the templates double `$`, which Kubernetes would read.
- What Helm makes of the chart is what `emit --format kubernetes` prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tgi_advisor.plan import Container
from tgi_advisor.render import kubernetes, scaling
from tgi_advisor.render.platform import commented, kept
from tgi_advisor.render.yaml_ import document

_LITERAL = '{{ . | replace "$" "$$" | toJson }}'
_ARGS = f"""args:
            {{{{- range .Values.args }}}}
            - {_LITERAL}
            {{{{- end }}}}"""
_ENV = """env:
            {{- range .Values.env }}
            - name: {{ .name | toJson }}
              {{- if hasKey . "value" }}
              value: {{ .value | replace "$" "$$" | toJson }}
              {{- else }}
              valueFrom:
                {{- toYaml .valueFrom | nindent 16 }}
              {{- end }}
            {{- end }}"""
_IMAGE = (
    'image: "{{ .Values.image.repository }}'
    '{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}"'
)
_PLACES = {
    "args": _ARGS,
    "env": _ENV,
    "image": _IMAGE,
    "resources": "resources:\n            {{- toYaml .Values.resources | nindent 12 }}",
    "replicas": "replicas: {{ .Values.replicas }}",
    "port": "port: {{ .Values.service.port }}",
    "sizeLimit": "sizeLimit: {{ .Values.shmSize | toJson }}",
    "storage": "storage: {{ .Values.storageSize | toJson }}",
}
"""What stands in the templates for a field of the manifests."""
_MARK = "@@tgi-advisor@@"


def render(container: Container) -> str:
    """The files one after the other, each behind its name."""
    return "---\n".join(f"# Source: {container.name}/{name}\n{text}" for name, text in files(container).items())


def files(container: Container) -> Mapping[str, str]:
    """The texts of the chart by their names in its folder."""
    deployment, service = kubernetes.deployment(container), kubernetes.service(container)
    claims = [] if container.cluster.storage == "node" else [kubernetes.claim(container)]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    (shm,) = (one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "shm")
    (port,) = service["spec"]["ports"]
    values: dict[str, Any] = {
        "name": container.name,
        "image": _image(container.image),
        "args": list(container.args),
        "env": [
            {**entry, "value": container.env[entry["name"]]} if "value" in entry else entry
            for entry in server.get("env", ())
        ],
        "replicas": container.replicas,
        "service": {"port": port["port"]},
        "resources": server.get("resources", {}),
        "shmSize": shm["emptyDir"]["sizeLimit"],
    }
    made = {}
    for claim in claims:
        requests = claim["spec"]["resources"]["requests"]
        values["storageSize"] = requests["storage"]
        requests["storage"] = _MARK
        made["templates/claim.yaml"] = _template(claim)
    server["image"] = shm["emptyDir"]["sizeLimit"] = port["port"] = _MARK
    for field in ("args", "env", "resources"):
        if field in server:
            server[field] = _MARK
    if "replicas" in deployment["spec"]:
        deployment["spec"]["replicas"] = _MARK
    made["templates/deployment.yaml"] = _template(deployment)
    made["templates/service.yaml"] = _template(service)
    for one in scaling.manifests(container, kubernetes.labels(container)):
        made[f"templates/{one['kind'].lower()}.yaml"] = _template(one)
    chart = {
        "apiVersion": "v2",
        "name": container.name,
        "description": "A server of text-generation-inference",
        "type": "application",
        "version": "0.1.0",
        "appVersion": container.image.rpartition(":")[2],
    }
    return {
        "Chart.yaml": document(chart),
        "values.yaml": _head(container) + document(values),
        **made,
        "templates/NOTES.txt": f"kubectl port-forward service/{container.name} 8080:{{{{ .Values.service.port }}}}\n",
    }


def _head(container: Container) -> str:
    """The lines above the manifests, with the chart's own command."""
    head = kubernetes.header(container)
    head = head.replace("# kubectl apply -f FILE", f"# helm install {container.name} FOLDER", 1)
    return head + commented(kept(container, "cache", "gpus", "mounts"))


def _image(image: str) -> dict[str, str]:
    """An image in parts."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return {"repository": repository, "digest": digest}
    repository, _, tag = image.rpartition(":")
    if not repository or "/" in tag:  # no tag, but perhaps a port of the registry
        return {"repository": image, "tag": "latest"}
    return {"repository": repository, "tag": tag}


def _template(manifest: dict[str, Any]) -> str:
    """A manifest with what the values say at the marks, and `{{` of its own as text."""
    text = document(manifest).replace("{{", '{{ "{{" }}')
    return re.sub(rf'(\w+): "{_MARK}"', lambda found: _PLACES[found[1]], text)
