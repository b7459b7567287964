"""How a server is, from its Deployment, the pods of its launch and their events. Pure.

Reasons are those of the scheduler, the kubelet and the Deployment controller
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tgi_advisor.errors import Exit
from tgi_advisor.launch import marks
from tgi_advisor.launch.failures import Cause, Failure, State
from tgi_advisor.launch.watch import Step
from tgi_advisor.safe import masked, printable

PULLING = ("ErrImagePull", "ImagePullBackOff")
"""The kubelet could not fetch the image; it tries again, later each time."""
_NO_USE = ("denied", "unauthorized", "not found", "manifest unknown", "no basic auth", "authentication required",
           "forbidden", "insufficient_scope")  # fmt: skip
"""Words of a registry that trying again does not change."""
UNSTARTABLE = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "InvalidImageName",
               "ErrImageNeverPull", "StartError", "ContainerCannotRun")  # fmt: skip
"""Reasons of a container that cannot be made or run as it is."""
WORDS = 400
"""Characters of others' sentences that are quoted."""


class Pods(NamedTuple):
    """What is seen of one launch."""

    deployment: Mapping[str, Any] | None
    """Its Deployment; None when it is gone."""
    pods: Sequence[Mapping[str, Any]]
    """The pods of the launch."""
    events: Sequence[Mapping[str, Any]] = ()
    """Events of the namespace's pods; none where they may not be read."""
    at: str = ""
    """Options with which kubectl asks their namespace."""


class Source(NamedTuple):
    """A container whose log can be read."""

    pod: str
    """Its pod."""
    container: str
    """Its name."""
    previous: bool
    """Whether it is the one before the one that runs now."""
    ended: bool
    """Whether it has ended, so that its log is complete."""


def state_of(seen: Pods) -> State:
    """Whether the server runs, waits or has ended, and what the cluster knows to be wrong."""
    if seen.deployment is None:
        return State(running=False, there=False)
    pods = current(seen.pods)
    if not pods:
        return _without_pods(seen.deployment, seen.at)
    for pod in pods:
        if ended := _ended(pod, seen):
            return ended
    if late := _condition(seen.deployment, "Progressing", "False"):
        words = _words(late.get("message"))
        return _failed("probe", f"the roll-out made no progress in its time: {words}", (
            "It waited for download, load and warm-up as long as progressDeadlineSeconds allows; look at the pods' "
            f"events with `kubectl describe pods {seen.at}`.",), Exit.TIMEOUT)  # fmt: skip
    waiting = next(filter(None, (_waiting(pod, seen.events) for pod in pods)), None)
    return State(running=True, waiting=waiting)


def ready(seen: Pods) -> list[str]:
    """Names of the pods that answer; empty until as many do as the Deployment wants."""
    wanted = ((seen.deployment or {}).get("spec") or {}).get("replicas", 1)
    found = [_name(pod) for pod in current(seen.pods) if _condition(pod, "Ready", "True")]
    return found if found and len(found) >= wanted else []


def source(seen: Pods, preferred: str | None = None) -> Source | None:
    """Whose log to follow: the pod's that failed, else the one followed already, else the first that has a log."""
    with_log = [(pod, *log) for pod in current(seen.pods) if (log := _log(pod)) is not None]
    with_log.sort(key=lambda row: (not row[3], _name(row[0]) != preferred, _name(row[0])))
    return next((Source(_name(pod), container, previous, ended) for pod, container, previous, ended in with_log), None)


def current(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that are not on their way out."""
    return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


def serves(pods: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of them answers."""
    return any(_condition(pod, "Ready", "True") for pod in pods)


def began(pods: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a container of one of them ever ran, and so may have written to its volumes."""
    return any(
        status.get("restartCount") or (status.get("state") or {}).keys() & {"running", "terminated"}
        for pod in pods
        for status in _statuses(pod)
    )


def _name(one: Mapping[str, Any]) -> str:
    return str(one["metadata"]["name"])


def _statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of the server; not of what others put beside it."""
    found = (pod.get("status") or {}).get("containerStatuses") or []
    name = (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/name")
    return [one for one in found if one.get("name") == name] or found


def _condition(one: Mapping[str, Any], kind: str, status: str) -> Mapping[str, Any] | None:
    """A condition of an object that has this status."""
    conditions = (one.get("status") or {}).get("conditions") or ()
    return next((row for row in conditions if row.get("type") == kind and row.get("status") == status), None)


def _words(text: object) -> str:
    """Others' words, on one line and without secrets."""
    return masked(printable(" ".join(str(text or "").split())))[:WORDS]


def _events(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]], *reasons: str) -> Iterator[str]:
    """What events of a pod say, the latest first."""
    mine = [
        row for row in events
        if (row.get("involvedObject") or {}).get("name") == _name(pod) and row.get("reason") in reasons
    ]  # fmt: skip
    mine.sort(key=lambda row: str(row.get("lastTimestamp") or row.get("eventTime") or ""), reverse=True)
    return (_words(row.get("message")) for row in mine)


def _failed(cause: Cause, message: str, steps: tuple[str, ...], end: Exit, code: int | None = None) -> State:
    return State(running=False, exit_code=code, failure=Failure(cause, message, steps, (), end))


def _without_pods(deployment: Mapping[str, Any], at: str) -> State:
    """A Deployment whose pods were refused, or are still to be made."""
    refused = _condition(deployment, "ReplicaFailure", "True")
    if refused is None:
        return State(running=True, waiting=Step("pending", "no pod has been made yet", alive=False))
    words = _words(refused.get("message"))
    hint = (f"Free what the quota of the namespace counts (`kubectl describe quota {at}`), or ask for more."
            if "exceeded quota" in words or "quota" in words else
            "The policies of the namespace (Pod Security, webhooks) forbid such pods: launch in another one with "
            "--namespace, or have them let this one in.")  # fmt: skip
    return _failed("pod_refused", f"the cluster does not let the pod be made: {words}", (hint,), Exit.FAILED)


def _ended(pod: Mapping[str, Any], seen: Pods) -> State | None:
    """The state of a pod that failed, or of which a container did; None of one that may still come up."""
    status = pod.get("status") or {}
    for one in _statuses(pod):
        now, before = one.get("state") or {}, one.get("lastState") or {}
        terminated = now.get("terminated") or (before.get("terminated") if one.get("restartCount") else None)
        if terminated and terminated.get("reason") not in UNSTARTABLE:
            return _terminated(pod, terminated, seen.events)
        waiting, image = now.get("waiting") or {}, str(one.get("image", ""))
        if failed := _unstartable(pod, waiting.get("reason"), waiting.get("message"), image, seen.at):
            return failed
        if terminated:
            failed = _unstartable(pod, terminated.get("reason"), terminated.get("message"), image, seen.at)
            return failed or _terminated(pod, terminated, seen.events)
    if status.get("phase") == "Failed":
        node = shlex.quote(str((pod.get("spec") or {}).get("nodeName") or "NODE"))
        reason, words = _words(status.get("reason")) or "Failed", _words(status.get("message"))
        return _failed(
            "evicted", f"the node gave the pod up ({reason}): {words}",
            (f"`kubectl describe node {node} {seen.at}` shows what the node is short of; ephemeral storage, memory and "
             "preemption are the usual reasons.",), Exit.FAILED,
        )  # fmt: skip
    return None


def _terminated(
    pod: Mapping[str, Any], terminated: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> State:  # fmt: skip
    """A container that ended: by the kubelet, for want of memory, or by itself."""
    code = terminated.get("exitCode")
    code = code if type(code) is int else None
    killed = next((text for text in _events(pod, events, "Killing") if "probe" in text), None)
    if killed:
        said = next(_events(pod, events, "Unhealthy"), "")
        which = "startup" if "startup" in killed else "liveness"
        return _failed(
            "probe", f"the kubelet killed the server, for its {which} probe failed" + (f": {said}" if said else ""),
            ("It was not ready within the time that the probe allows. Where only the download is slow, launch again: "
             "what is downloaded stays in the claim.",), Exit.TIMEOUT, code,
        )  # fmt: skip
    return State(running=False, exit_code=code, oom_killed=terminated.get("reason") == "OOMKilled")


def _unstartable(pod: Mapping[str, Any], reason: object, message: object, image: str, at: str) -> State | None:
    """A container that cannot start for a reason that waiting does not change."""
    words = _words(message)
    if reason in PULLING and (reason == "ImagePullBackOff" or any(word in words.lower() for word in _NO_USE)):
        return _failed(
            "image", f"the node cannot pull {image}: {words or reason}",
            ("Check tgi.image and whether the nodes reach the registry; a private one needs an image pull secret in "
             "the pod's service account.",), Exit.ACCESS,
        )  # fmt: skip
    if reason not in UNSTARTABLE:
        return None
    if "secret" in words.lower() or "configmap" in words.lower():
        return _failed("secret", f"the pod refers to what is not there: {words}", (
            "Make the Secret as `tgi-advisor emit --format kubernetes` says in its first lines, and launch again.",
        ), Exit.FAILED)  # fmt: skip
    return _failed("exited", f"the container cannot be started ({reason}): {words}", (
        f"`kubectl describe pod {shlex.quote(_name(pod))} {at}` says more.",), Exit.FAILED)  # fmt: skip


def _waiting(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Step | None:
    """What keeps a pod from running; None once it runs."""
    if (pod.get("status") or {}).get("phase") not in ("Pending", None):
        return None
    unscheduled = _condition(pod, "PodScheduled", "False")
    if unscheduled is not None:
        return Step("pending", f"no node takes it: {_words(unscheduled.get('message')) or 'no reason is given'}")
    mount = next(_events(pod, events, "FailedMount", "FailedAttachVolume", "FailedMapVolume"), None)
    if mount:
        return Step("pending", f"a volume is not there yet: {mount}")
    reasons = [(one.get("state") or {}).get("waiting") or {} for one in _statuses(pod)]
    if failing := next((row for row in reasons if row.get("reason") in PULLING), None):
        return Step("image", f"the pull failed and is tried again: {_words(failing.get('message'))}")
    node = (pod.get("spec") or {}).get("nodeName")
    pulled = next(_events(pod, events, "Pulled"), None)
    if pulled:
        return Step("start", pulled)
    pulling = next(_events(pod, events, "Pulling"), None)
    if pulling:
        return Step("image", pulling)
    return Step("pending", f"on node {_words(node)}" if node else "waiting for the scheduler")


def _log(pod: Mapping[str, Any]) -> tuple[str, bool, bool] | None:
    """The container of a pod that has a log: its name, whether it is a previous one, whether it ended."""
    for one in _statuses(pod):
        now, before = one.get("state") or {}, one.get("lastState") or {}
        if one.get("restartCount") and before.get("terminated"):
            return str(one["name"]), True, True
        if now.get("terminated"):
            return str(one["name"]), False, True
        if now.get("running"):
            return str(one["name"]), False, False
    return None


def launch_of(one: Mapping[str, Any]) -> str:
    """The launch an object carries in its labels; empty when it is nobody's."""
    return str((one["metadata"].get("labels") or {}).get(marks.LAUNCH, ""))
