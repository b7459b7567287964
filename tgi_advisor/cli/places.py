"""Which place a command is about: `--on` and `--namespace`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from tgi_advisor.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from tgi_advisor.launch.place import Place

Command = TypeVar("Command", bound=Callable[..., Any])
PLACES = DOCKER, KUBERNETES = "docker", "kubernetes"


class On(NamedTuple):
    """The place as asked for."""

    kind: str = DOCKER
    """`docker` or `kubernetes`."""
    context: str | None = None
    """Context of the kubeconfig; None: the current one."""
    namespace: str | None = None
    """Namespace; None: the context's."""

    @property
    def cluster(self) -> bool:
        """Whether it is a cluster."""
        return self.kind == KUBERNETES


def on_place(command: Command) -> Command:
    """`--on` and `--namespace`."""
    for option in (
        click.option(
            "--namespace", metavar="NAME", help="Namespace in the cluster. Default: the context's."
        ),
        click.option(
            "--on", default=DOCKER, show_default=True, metavar="docker|kubernetes[:CONTEXT]",
            help="Where: the Docker Engine, or a cluster of the kubeconfig (or of the pod this runs in).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def read(on: str, namespace: str | None) -> On:
    """What the two options say; UsageError."""
    kind, colon, context = on.partition(":")
    if kind not in (DOCKER, KUBERNETES):
        raise UsageError(
            f"{on!r} is no place", did_you_mean(kind, [DOCKER, KUBERNETES]) or "Write docker or kubernetes[:CONTEXT]."
        )
    if kind == DOCKER and (colon or namespace is not None):
        raise UsageError(
            "the Docker Engine has no contexts or namespaces here",
            "DOCKER_CONTEXT names another engine; --on kubernetes[:CONTEXT] goes with --namespace.",
        )
    if colon and not context:
        raise UsageError("--on kubernetes: names no context", "`kubectl config get-contexts` lists them.")
    return On(kind, context or None, namespace)


def chosen(on: On = On()) -> Place:  # noqa: B008  (a tuple)
    """The place; EngineError when it does not answer."""
    if on.cluster:
        from tgi_advisor.launch.kubernetes import cluster
        from tgi_advisor.launch.kubernetes.place import KubernetesPlace
        from tgi_advisor.render.kubernetes import manifests

        return KubernetesPlace(cluster.connect(on.context, on.namespace), manifests)
    from tgi_advisor.launch.docker.engine import connect
    from tgi_advisor.launch.docker.place import DockerPlace

    return DockerPlace(connect())
