"""Everything in a cluster that can be known to be in the way before anything is applied, found together.

What an account may not look at is said and passed over: the server's own dry run, which is last, knows the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from tgi_advisor.launch.kubernetes import nodes, objects
from tgi_advisor.launch.kubernetes.cluster import MANAGER, ONLY_METADATA, Cluster, RefusedError
from tgi_advisor.launch.kubernetes.quantity import number, worth
from tgi_advisor.launch.preflight import Checked, Finding, shared_memory
from tgi_advisor.launch.records import Options
from tgi_advisor.plan import Container, Plan
from tgi_advisor.safe import named
from tgi_advisor.units import human

Found = TypeVar("Found")

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
"""Annotation of the class of claims that name none."""
_NEEDED = (
    ("", "pods", "", ("list", "watch", "delete")),
    ("", "pods", "log", ("get",)),
    ("", "pods", "portforward", ("get", "create")),
)
"""Verbs a launch needs beside those on what it applies; forwarding is a GET that 1.35 and later take for a create too
(https://kubernetes.io/docs/reference/using-api/websockets/)."""
HANDOVER = f"{MANAGER}-handover"
"""Name under which the number of replicas is held until an autoscaler writes it."""
OURS = (MANAGER, HANDOVER)
SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
"""Kinds that write a Deployment's number of replicas."""
_APPLIED = ("get", "list", "watch", "create", "patch", "delete")


class Looked(NamedTuple):
    """A preflight, and what it saw on the way."""

    checked: Checked
    """Its result."""
    before: Mapping[str, Any] | None
    """The Deployment of ours that has the name already."""
    dry: Mapping[str, Mapping[str, Any]]
    """What the server made of each object in its dry run, by name as kubectl writes it."""
    now: Mapping[str, Mapping[str, Any] | None]
    """What is there now, likewise."""
    secret: bool
    """Whether the Secret with the token is there."""
    goes: tuple[Mapping[str, Any], ...] = ()
    """What stands beside that Deployment, is ours, and is in the new plan no more."""


def check(
    cluster: Cluster, plan: Plan, made: Sequence[dict[str, Any]], options: Options, *, again: bool = False
) -> Looked:
    """Everything that can be known now."""
    container = plan.container
    assert container is not None
    deployment = objects.only(made, "Deployment")
    namespace = _namespace(cluster)
    now = {} if namespace else {objects.called(one): _now(cluster, one) for one in made}
    before = now.get(objects.called(deployment))
    goes = tuple(_goes(cluster, made)) if before is not None and objects.is_ours(before) else ()
    findings = [*shared_memory(container), *_unchecked(cluster)]
    findings += [*_permissions(cluster, [*made, *goes])]
    if namespace:
        findings.append(namespace)
        return Looked(Checked(tuple(findings), pull=False), None, {}, {}, secret=False)
    findings += _taken(cluster, made, now, options, again=again)
    identical = before is not None and objects.is_ours(before) and (
        objects.digest_of(before) == objects.digest_of(deployment)
    )  # fmt: skip
    reuses = before is not None and identical and options.reuse and not again
    secret = True
    if not reuses:
        there = {name: _there(cluster, "secrets", name) for name in objects.secrets(made)}
        secret = all(there.values())
        findings += _tokens(cluster, container, made, there)
        findings += _pull_secrets(cluster, made)
        findings += _quota(cluster, made, before)
        findings += nodes.check(cluster, plan, objects.pod_spec(made), before, wait=options.wait_for_node)
        findings += _storage(cluster, made, now)
    dry: dict[str, Mapping[str, Any]] = {}
    if not any(finding.blocks for finding in findings) and not reuses:
        findings += _dry_run(cluster, made, now, dry, goes)
    name = str(deployment["metadata"]["name"])
    ours = before is not None and objects.is_ours(before)
    return Looked(
        Checked(
            tuple(dict.fromkeys(findings)), pull=False, replaces=name if ours and not reuses else None,
            reuses=name if reuses else None,
        ),
        before if ours else None, dry, now, secret, () if reuses else goes,
    )  # fmt: skip


def applied(made: Iterable[dict[str, Any]], now: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """What of the objects is applied: a claim that is there is used as it is, for claims cannot shrink or move."""
    return [one for one in made if one["kind"] != "PersistentVolumeClaim" or now[objects.called(one)] is None]


def apply(
    cluster: Cluster, one: Mapping[str, Any], *, dry: bool = False, goes: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Apply an object; fields that an earlier launch of ours holds in another way are taken over.

    So is the number of replicas, where an autoscaler of ours is among what `goes`.
    """
    path, what = objects.path(one, cluster.namespace), f"apply {objects.called(one)}"
    scaled = any(other["kind"] in SCALERS for other in goes)
    try:
        return cluster.apply(path, what, one, dry=dry, force=False)
    except RefusedError as error:
        conflicts = [*_conflicts(error)]
        ours = all(holder in OURS or (scaled and field == ".spec.replicas") for holder, field in conflicts)
        if error.status != 409 or not conflicts or not ours:
            raise
        return cluster.apply(path, what, one, dry=dry, force=True)


def hand_over(cluster: Cluster, deployment: Mapping[str, Any], live: Mapping[str, Any] | None, replicas: int) -> None:
    """Give the number of replicas up before a Deployment is applied that does not state it.

    A field that its only manager applies no more falls back to its default: one replica, whatever runs. So it is first
    applied under another name, which keeps it until an autoscaler writes it
    (https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership).
    """
    if "replicas" in deployment["spec"] or not objects.counts(live):
        return
    alone = {"apiVersion": deployment["apiVersion"], "kind": deployment["kind"],
             "metadata": {"name": deployment["metadata"]["name"]}, "spec": {"replicas": replicas}}  # fmt: skip
    name = objects.called(deployment)
    path = objects.path(deployment, cluster.namespace)
    cluster.apply(path, f"hand the replicas of {name} over", alone, dry=False, force=True, manager=HANDOVER)


def _conflicts(error: RefusedError) -> Iterator[tuple[str, str]]:
    """Manager and field of each cause of a conflict: `conflict with "NAME" using apps/v1`."""
    for cause in error.details.get("causes") or ():
        if cause.get("reason") == "FieldManagerConflict":
            holder = str(cause.get("message", "")).partition('"')[2].partition('"')[0]
            yield holder, str(cause.get("field", ""))


def beside(cluster: Cluster, name: str) -> Iterator[dict[str, Any]]:
    """What else of ours has a Deployment's name, but for the claim; of a kind the cluster does not know, none."""
    for kind in objects.PATHS:
        if kind in ("Deployment", "PersistentVolumeClaim"):
            continue
        there = _now(cluster, {"kind": kind, "metadata": {"name": name}})
        if there is not None and objects.is_ours(there):
            yield there


def _goes(cluster: Cluster, made: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What an earlier plan of this name has beside its Deployment, and this one has not."""
    kinds = {one["kind"] for one in made}
    for there in beside(cluster, str(objects.only(made, "Deployment")["metadata"]["name"])):
        if there["kind"] not in kinds and not there["metadata"].get("deletionTimestamp"):
            yield there


def _allowed(ask: Callable[[], Found]) -> Found | None:
    """The answer; None where this account may not know it."""
    try:
        return ask()
    except RefusedError as error:
        if error.status == 403:
            return None
        raise


# -- what this account may do


def _permissions(cluster: Cluster, made: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """What the account lacks, in one finding."""
    lacking = []
    for group, resource, sub, verbs in (*_of_kinds(made), *_NEEDED):
        refused = [verb for verb in verbs if not _may(cluster, group, resource, sub, verb)]
        if refused:
            lacking.append(
                f"{', '.join(refused)} {resource}{f'/{sub}' if sub else ''}{f' of {group}' if group else ''}"
            )
    if lacking:
        yield Finding(
            f"this account may not do in namespace {cluster.namespace!r}: {'; '.join(lacking)}",
            "Ask for the ClusterRole `edit` in that namespace, which holds all of it, or launch with another context.",
        )


def _of_kinds(made: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Group, resource and verbs of every kind that is applied; watching is for the Deployment only."""
    for kind in dict.fromkeys(one["kind"] for one in made):
        parts = objects.PATHS[kind].split("/")
        group = parts[2] if parts[1] == "apis" else ""
        verbs = _APPLIED if kind == "Deployment" else tuple(verb for verb in _APPLIED if verb not in ("list", "watch"))
        yield group, parts[-1], "", verbs


def _may(cluster: Cluster, group: str, resource: str, sub: str, verb: str) -> bool:
    """Whether this account may do it (https://kubernetes.io/docs/reference/access-authn-authz/authorization/)."""
    attributes = {"namespace": cluster.namespace, "verb": verb, "resource": resource}
    attributes |= {name: value for name, value in (("group", group), ("subresource", sub)) if value}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
              "spec": {"resourceAttributes": attributes}}  # fmt: skip
    answer = cluster.create(
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", f"say whether you may {verb} {resource}", review
    )
    return bool((answer.get("status") or {}).get("allowed"))


def _unchecked(cluster: Cluster) -> Iterator[Finding]:
    """That anybody may answer in the API server's place, where that is so."""
    if not cluster.api.configuration.verify_ssl:
        yield Finding(
            f"the certificate of the API server at {cluster.address} is not checked (insecure-skip-tls-verify): the "
            "credentials are sent to whoever answers",
            "Name its certificate-authority in the kubeconfig instead.", blocks=False,
        )  # fmt: skip


def _namespace(cluster: Cluster) -> Finding | None:
    """Whether it is there; an account that may not see namespaces learns it from the dry run."""
    path = f"/api/v1/namespaces/{cluster.namespace}"
    try:
        found = cluster.get(path, "look at the namespace")
    except RefusedError as error:
        if error.status == 404:
            return Finding(
                f"there is no namespace {cluster.namespace!r} in {cluster.shown}",
                f"`kubectl create namespace {cluster.namespace}{cluster.by}`, or name another one with --namespace.",
            )
        if error.status == 403:
            return None
        raise
    if (found.get("status") or {}).get("phase") == "Terminating":
        return Finding(
            f"the namespace {cluster.namespace!r} is being deleted", "Wait until it is gone, or name another one."
        )
    return None


# -- what is there already


def _now(cluster: Cluster, one: Mapping[str, Any]) -> dict[str, Any] | None:
    """The object of that kind and name; None also where this account may not look, which is found otherwise."""
    return _allowed(lambda: cluster.find(objects.path(one, cluster.namespace), f"look at {objects.called(one)}"))


def _taken(
    cluster: Cluster, made: Sequence[dict[str, Any]], now: Mapping[str, Mapping[str, Any] | None], options: Options,
    *, again: bool,
) -> Iterator[Finding]:  # fmt: skip
    """Objects that have the names already."""
    for one in made:
        name = objects.called(one)
        there = now[name]
        if there is None:
            continue
        going = bool(there["metadata"].get("deletionTimestamp"))
        if going and not again:
            yield Finding(f"{name} is still being deleted", "Launch again in a moment.")
        elif one["kind"] == "PersistentVolumeClaim":
            yield from _claim(cluster, name, there, one)
        elif not objects.is_ours(there):
            yield Finding(
                f"{name} exists already in namespace {cluster.namespace!r} (not ours)",
                f"`kubectl delete {name} {cluster.at}` removes it, for --replace rolls out only over what "
                "tgi-advisor launched; or give this one another container.name.",
            )
        elif one["kind"] == "Deployment" and not again:
            identical = objects.digest_of(there) == objects.digest_of(one)
            if options.replace or (options.reuse and identical):
                continue
            mine = "the same plan" if identical else "another plan of tgi-advisor"
            yield Finding(
                f"{name} exists already in namespace {cluster.namespace!r} ({mine})",
                "--replace rolls this plan out over it"
                + (", --reuse keeps it" if identical else "")
                + "; or give this one another container.name.",
            )


def _claim(
    cluster: Cluster, name: str, there: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[Finding]:  # fmt: skip
    """A claim that is there is used as it is."""
    phase = (there.get("status") or {}).get("phase")
    if phase == "Lost":
        yield Finding(f"{name} has lost its volume", f"`kubectl delete {name} {cluster.at}`; a new one is made then.")
        return
    has = number(((there.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage"))
    asked = worth(wanted["spec"]["resources"]["requests"]["storage"])
    if has is not None and has < asked:
        yield Finding(
            f"{name} is there and is used: it asks for {human(int(has))}, and this plan for {human(int(asked))}",
            f"Where its storage class allows that, `kubectl edit {name} {cluster.at}` enlarges it.", blocks=False,
        )  # fmt: skip


# -- what it refers to


def _tokens(
    cluster: Cluster, container: Container, made: Sequence[dict[str, Any]], there: Mapping[str, bool | None]
) -> Iterator[Finding]:
    """Whether the Secret with the token is there; its content is never asked for."""
    for secret, needed in objects.secrets(made).items():
        if there[secret] is False:
            caller = next(iter(container.secret_env.values()))
            yield Finding(
                f"there is no Secret {secret!r} in namespace {cluster.namespace!r}"
                + (", and the model is gated" if needed else "; the model is fetched without a token"),
                f"printf '{caller}=%s\\n' \"${caller}\" | kubectl create secret generic {secret} "
                f"{cluster.at} --from-env-file=/dev/stdin",
                blocks=needed,
            )


def _there(cluster: Cluster, resource: str, name: str) -> bool | None:
    """Whether an object is there, by its metadata alone; None where this account may not know."""
    path = f"{cluster.core}/{resource}/{name}"
    try:
        return cluster.find(path, f"look for {resource}/{name}", accept=ONLY_METADATA) is not None
    except RefusedError as error:
        if error.status == 403:
            return None
        raise


def _pull_secrets(cluster: Cluster, made: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Whether the secrets for the image's registry are there: those of the pod, else of its service account."""
    spec = objects.pod_spec(made)
    given = spec.get("imagePullSecrets")
    whose = "the pod"
    if given is None:
        account = spec.get("serviceAccountName", "default")
        whose = f"the service account {account!r}"
        path = f"{cluster.core}/serviceaccounts/{account}"
        found = _allowed(lambda: cluster.find(path, f"look at the service account {account}"))
        given = (found or {}).get("imagePullSecrets") or ()
    for one in given:
        name = str(one.get("name", ""))
        if name and _there(cluster, "secrets", name) is False:
            yield Finding(
                f"{whose} pulls images with the Secret {named(name)!r}, which is not there",
                f"kubectl create secret docker-registry {named(name)} {cluster.at} --docker-server=... ; an "
                "image that anybody may pull does without.",
                blocks=whose == "the pod",
            )


def _quota(cluster: Cluster, made: Sequence[dict[str, Any]], before: Mapping[str, Any] | None) -> Iterator[Finding]:
    """What the namespace's quotas leave, and what this takes of it while it starts."""
    listed = _allowed(lambda: cluster.get(f"{cluster.core}/resourcequotas", "look at the namespace's quota"))
    wanted = _counted(made, before)
    for quota in (listed or {}).get("items") or ():
        status = quota.get("status") or {}
        if (quota.get("spec") or {}).get("scopes") or (quota.get("spec") or {}).get("scopeSelector"):
            continue  # of some pods only: the roll-out names it when it is ours
        for what, hard in (status.get("hard") or {}).items():
            takes = wanted.get(what)
            used = worth((status.get("used") or {}).get(what))
            if takes and used + takes > worth(hard):
                name, left = named(str(quota["metadata"]["name"])), _amount(what, worth(hard) - used)
                yield Finding(
                    f"the quota {name!r} leaves {left} of {what}, and this launch needs {_amount(what, takes)}",
                    "Stop what uses it, or ask for a larger quota.",
                )


def _counted(made: Sequence[dict[str, Any]], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a quota counts of these objects (https://kubernetes.io/docs/concepts/policy/resource-quotas/).

    A roll-out has one pod more than before for a while.
    """
    pods = objects.only(made, "Deployment")["spec"].get("replicas", 1) if before is None else 1
    total: dict[str, Any] = {"pods": pods, "count/pods": pods}
    for container in objects.pod_spec(made)["containers"]:
        limits = container.get("resources", {}).get("limits", {})
        requests = {**limits, **container.get("resources", {}).get("requests", {})}
        for group, amounts in (("requests", requests), ("limits", limits)):
            for resource, amount in amounts.items():
                key = f"{group}.{resource}"
                total[key] = total.get(key, 0) + pods * worth(amount)
                if group == "requests" and resource in ("cpu", "memory"):
                    total[resource] = total[key]
    if before is None:
        total |= {"count/deployments.apps": 1, "services": 1, "count/services": 1}
        claims = [one for one in made if one["kind"] == "PersistentVolumeClaim"]
        total |= {"persistentvolumeclaims": len(claims), "count/persistentvolumeclaims": len(claims)}
        total["requests.storage"] = sum(worth(one["spec"]["resources"]["requests"]["storage"]) for one in claims)
    return total


def _amount(what: str, amount: Any) -> str:
    """A number of a quota as people read it."""
    return human(int(amount)) if what.endswith(("memory", "storage")) else f"{float(amount):g}"


def _storage(
    cluster: Cluster, made: Sequence[dict[str, Any]], now: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[Finding]:  # fmt: skip
    """Whether somebody makes volumes for the claims that are not there yet, and whether the others are."""
    ours = {str(one["metadata"]["name"]) for one in made if one["kind"] == "PersistentVolumeClaim"}
    for volume in objects.pod_spec(made)["volumes"]:
        name = str((volume.get("persistentVolumeClaim") or {}).get("claimName", ""))
        if name and name not in ours and _there(cluster, "persistentvolumeclaims", name) is False:
            yield Finding(
                f"there is no PersistentVolumeClaim {name!r} in namespace {cluster.namespace!r}",
                "Check container.mounts.",
            )
    new = [one for one in made if one["kind"] == "PersistentVolumeClaim" and now[objects.called(one)] is None]
    if not new:
        return
    listed = _allowed(lambda: cluster.get("/apis/storage.k8s.io/v1/storageclasses", "list storage classes"))
    if listed is None:
        return
    classes = {str(one["metadata"]["name"]): one for one in listed.get("items") or ()}
    default = [
        n for n, one in classes.items() if (one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    for one in new:
        asked = one["spec"].get("storageClassName")
        if asked is None and not default:
            yield Finding(
                f"{objects.called(one)} names no storage class, and the cluster has no default one",
                f"Make the claim yourself before the launch: it is used as it is. Classes: "
                f"{', '.join(map(named, classes)) or 'none'}.",
            )
        elif asked and asked not in classes:
            yield Finding(
                f"{objects.called(one)} asks for the storage class {asked!r}, which is not there",
                f"The cluster has {', '.join(map(named, classes)) or 'none'}.",
            )


# -- the server's own dry run


def _dry_run(
    cluster: Cluster, made: Sequence[dict[str, Any]], now: Mapping[str, Mapping[str, Any] | None],
    dry: dict[str, Mapping[str, Any]], goes: Sequence[Mapping[str, Any]],
) -> list[Finding]:  # fmt: skip
    """What validation, admission and other managers of the same fields say; what the server made of each into `dry`."""
    found = []
    seen = len(cluster.warned)
    for one in applied(made, now):
        try:
            dry[objects.called(one)] = apply(cluster, _handed_over(one, now), dry=True, goes=goes)
        except RefusedError as error:  # noqa: PERF203
            if error.status not in (400, 403, 404, 409, 422):
                raise
            found.append(Finding(*_refusal(cluster, one, error, now[objects.called(one)])))
    found += [Finding(f"the cluster warns: {named(text)}", blocks=False) for text in cluster.warned[seen:]]
    return found


def _handed_over(one: dict[str, Any], now: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """An object as its dry run shows it: with the number of replicas that is handed over when it is applied."""
    live = now[objects.called(one)]
    if one["kind"] != "Deployment" or "replicas" in one["spec"] or live is None or not objects.counts(live):
        return one
    return {**one, "spec": {**one["spec"], "replicas": live["spec"]["replicas"]}}


OPERATORS = {"monitoring.coreos.com": "the Prometheus operator", "keda.sh": "KEDA"}
"""What defines kinds that Kubernetes itself has not, by their group."""


def _refusal(
    cluster: Cluster, one: Mapping[str, Any], error: RefusedError, live: Mapping[str, Any] | None
) -> tuple[str, str | None]:
    """Why an object is not accepted, and what to do."""
    name = objects.called(one)
    conflicts = [(holder, field) for holder, field in _conflicts(error) if holder not in OURS]
    if conflicts:
        holders, fields = (sorted({*column}) for column in zip(*conflicts, strict=True))
        return (
            f"{name}: {', '.join(fields)} {'is' if len(fields) == 1 else 'are'} set by "
            f"{', '.join(map(named, holders))} in another way",
            f"Write container.replicas: {live['spec']['replicas']}, which is how many there are; or autoscale, where "
            "an autoscaler counts them."
            if live is not None and fields == [".spec.replicas"]
            else "Give the fields up there, or undo what it changed.",
        )
    if error.status == 404:
        return (
            f"the cluster does not know {one['apiVersion']} {one['kind']}, or has no namespace {cluster.namespace!r}: "
            f"{error.words}",
            f"Install {OPERATORS.get(one['apiVersion'].partition('/')[0], 'what defines it')}, or leave it out of the "
            "spec.",
        )  # fmt: skip
    return (
        f"{name} is refused: {error.words}",
        "Where the object has to be otherwise than a spec can say, `tgi-advisor emit --format kubernetes` prints it, "
        "to be altered and applied by hand.",
    )
