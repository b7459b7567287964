"""A namespace of a cluster as a place: a Deployment with its Service and claim, pods, their log, a forwarded port."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from tgi_advisor.errors import EngineError, PreflightError, UsageError, did_you_mean
from tgi_advisor.launch import marks, verify
from tgi_advisor.launch.failures import State
from tgi_advisor.launch.kubernetes import objects, preflight, seen
from tgi_advisor.launch.kubernetes.cluster import MANAGER, NAME, Cluster, RefusedError
from tgi_advisor.launch.kubernetes.objects import Manifests
from tgi_advisor.launch.kubernetes.watching import Watch, hang_up, lines
from tgi_advisor.launch.place import Log, LostPlaceError, NoLog, Ours, Preview, Server, Way
from tgi_advisor.launch.preflight import Checked, Host
from tgi_advisor.launch.records import Options, Say
from tgi_advisor.launch.watch import Moment
from tgi_advisor.plan import Plan
from tgi_advisor.safe import printable

GONE_S = 30.0
"""Seconds that what is deleted may take to be gone, on top of what its pods are granted."""
AT_ONCE_S = 1
"""Grace period of a pod that serves nobody yet; 0 would forget it before it has ended."""
LOG_QUIET_S = 300.0
"""Seconds of silence after which a log is asked for again."""
LOOK_S = 0.5
"""Seconds between two looks at whether something is gone."""


class KubernetesPlace:
    """What tgi-advisor launched in one namespace."""

    kind: Literal["kubernetes"] = "kubernetes"
    local = False

    def __init__(self, cluster: Cluster, manifests: Manifests) -> None:
        """`manifests` is the renderer: a Container's objects."""
        self.cluster, self._manifests = cluster, manifests
        self._looked: dict[str, preflight.Looked] = {}
        self._made: dict[str, dict[str, None]] = {}
        self._wrote: set[str] = set()

    def __enter__(self) -> KubernetesPlace:
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    @property
    def status_command(self) -> str:
        """`tgi-advisor status`, with the place."""
        return f"tgi-advisor status {self.cluster.on}"

    @property
    def here(self) -> str:
        """The namespace and the context."""
        return f"in namespace {self.cluster.namespace!r} of {self.cluster.shown}"

    # -- before the start

    def check(self, plan: Plan, options: Options, host: Host, *, again: bool = False) -> Checked:  # noqa: ARG002
        """Everything in the way that can be known now."""
        looked = preflight.check(self.cluster, plan, objects.of(plan, self._manifests), options, again=again)
        self._looked[plan.spec.container.name] = looked
        return looked.checked

    def preview(self, plans: Sequence[Plan], options: Options, host: Host) -> Preview:  # noqa: ARG002
        """The objects, and what the server's dry run would change."""
        requests, texts = [], []
        for plan in plans:
            looked = self._looked[plan.spec.container.name]
            made = objects.of(plan, self._manifests)
            changes = {
                objects.called(one): objects.diff(objects.called(one), looked.now.get(objects.called(one)), after)
                for one in made
                if (after := looked.dry.get(objects.called(one))) is not None
            }
            changes |= {objects.called(one): objects.diff(objects.called(one), one, None) for one in looked.goes}
            requests.append({
                "name": plan.spec.container.name, "namespace": self.cluster.namespace, "objects": made, "diff": changes,
            })  # fmt: skip
            texts += [text or f"{name}: nothing changes\n" for name, text in changes.items()]
        return Preview(tuple(requests), "".join(texts).rstrip("\n"))

    def prepare(self, image: str, tell: Say) -> None:
        """Nodes pull images themselves."""

    def clears(self, name: str) -> None:
        """Nothing goes before the new pods answer."""

    def clear(self, replaced: str) -> None:
        """Nothing."""

    # -- starting

    def start(
        self, plan: Plan, checked: Checked, options: Options, secrets: Mapping[str, str], launch_id: str  # noqa: ARG002
    ) -> Server:  # fmt: skip
        """Apply the objects; the token is in the Secret they refer to."""
        name = plan.spec.container.name
        looked = self._looked[name]
        made = objects.of(plan, self._manifests, launch_id)
        if looked.before is not None:
            live = self._deployment(name) or looked.before
            preflight.hand_over(self.cluster, objects.only(made, "Deployment"), live, live["spec"]["replicas"])
        for one in looked.goes:
            self.cluster.delete(objects.path(one, self.cluster.namespace), f"delete {objects.called(one)}")
        for one in preflight.applied(made, looked.now):
            if looked.now[objects.called(one)] is None:
                self._made.setdefault(launch_id, {})[objects.path(one, self.cluster.namespace)] = None
            try:
                preflight.apply(self.cluster, one, goes=looked.goes)
            except RefusedError as error:
                if error.status in (403, 404, 409, 422):
                    raise PreflightError(
                        f"{objects.called(one)} was refused after the dry run had passed: {error.words}",
                        f"Somebody else may be at work on it; `{self.status_command}` shows what runs.",
                    ) from None
                raise
        return KubernetesServer(self.cluster, plan, launch_id, token_given=looked.secret, rolls=bool(checked.replaces))

    def existing(self, plan: Plan, checked: Checked) -> tuple[Server, bool]:
        """The Deployment that --reuse keeps."""
        assert checked.reuses is not None
        found = self._deployment(checked.reuses)
        kept = KubernetesServer(self.cluster, plan, seen.launch_of(found or {"metadata": {}}), token_given=True)
        return kept, True

    # -- taking back

    def undo(self, launch_id: str, name: str, *, ended: bool = False, last: bool = True) -> Iterator[str]:
        """Roll back to what the Deployment was, or remove what was made; a claim that holds weights stays."""
        there = self._deployment(name)
        pods = self._pods(launch_id)
        if ended and there is not None:
            return  # the pods may be well
        if seen.began(pods):
            self._wrote.add(launch_id)
        mine = there is not None and seen.launch_of(there) == launch_id
        before = self._looked[name].before if name in self._looked else None
        if before is not None:  # after what would scale it is gone
            yield from self._delete_made(launch_id, name, last=last)
            self._roll_back(name, launch_id)
            if mine:
                yield f"rolled {objects.called(before)} back to the plan it had; its pods kept serving"
            return
        if mine and self._remove(name, pods):
            yield f"removed deployment/{name}, which did not serve yet"
        yield from self._delete_made(launch_id, name, last=last)

    def _delete_made(self, launch_id: str, name: str, *, last: bool) -> Iterator[str]:
        """Delete what was not there before, but for the Deployment; a claim that may hold weights stays."""
        for path in self._made.get(launch_id, ()):
            claim = "/persistentvolumeclaims/" in path
            if path.endswith(f"/deployments/{name}") or (claim and not last):
                continue
            called = "/".join(path.split("/")[-2:])
            if claim and launch_id in self._wrote:
                yield self._kept(path.rpartition("/")[2])
            elif self._delete_ours(path, launch_id):
                yield f"removed {called}" + (", which nothing was written to" if claim else "")

    def _delete_ours(self, path: str, launch_id: str) -> bool:
        """Delete an object that this launch made; whether it did and it was still there."""
        there = self.cluster.find(path, "look at what this launch made")
        if there is None or seen.launch_of(there) != launch_id:
            return False
        return self.cluster.delete(path, f"delete {path.rpartition('/')[2]}")

    def _kept(self, claim: str) -> str:
        return (
            f"persistentvolumeclaim/{claim} stays, with what was downloaded: the next launch uses it; "
            f"`kubectl delete pvc {claim} {self.cluster.at}` removes it"
        )

    def _roll_back(self, name: str, launch_id: str) -> None:
        """Apply every object again as it was that this launch has applied or removed.

        Applied and not put: fields of a plan that is left behind go with the next plan only when they were applied.
        """
        looked = self._looked[name]
        for called, now in looked.now.items():
            if now is None or not objects.is_ours(now) or now["kind"] == "PersistentVolumeClaim":
                continue
            latest = self.cluster.find(objects.path(now, self.cluster.namespace), f"look at {called}")
            if latest is not None and seen.launch_of(latest) == launch_id:
                self._apply_again(now, latest)
        for gone in looked.goes:
            path, end = objects.path(gone, self.cluster.namespace), time.monotonic() + GONE_S
            while (latest := self.cluster.find(path, f"look at {objects.called(gone)}")) and time.monotonic() < end:
                if not latest["metadata"].get("deletionTimestamp"):
                    break
                time.sleep(LOOK_S)
            if latest is None:
                self._apply_again(gone, None)

    def _apply_again(self, now: Mapping[str, Any], latest: Mapping[str, Any] | None) -> None:
        """Make an object what it was before this launch."""
        body = objects.applied_by(now, MANAGER) or objects.plain(now) or {}
        if now["kind"] == "Deployment":
            preflight.hand_over(self.cluster, body, latest, now["spec"]["replicas"])
        path = objects.path(now, self.cluster.namespace)
        self.cluster.apply(path, f"roll {objects.called(now)} back", body, dry=False, force=True)

    def _remove(self, name: str, pods: Sequence[Mapping[str, Any]]) -> bool:
        """Delete a Deployment with its pods, at once those that serve nobody, and wait until they are gone."""
        path = f"{self.cluster.deployments}/{name}"
        if not self.cluster.delete(path, f"delete deployment/{name}"):
            return False
        grace = 0
        for pod in pods:
            if seen.serves([pod]):
                grace = max(grace, int((pod.get("spec") or {}).get("terminationGracePeriodSeconds") or 0))
                continue
            pod_name = pod["metadata"]["name"]
            with suppress(RefusedError):  # an account that may not: they end as gracefully as the others
                self.cluster.delete(f"{self.cluster.pods}/{pod_name}", f"delete pod/{pod_name}", grace=AT_ONCE_S)
        end = time.monotonic() + grace + GONE_S
        while time.monotonic() < end and self._deployment(name) is not None:
            time.sleep(LOOK_S)
        return True

    # -- finding again

    def find(self) -> list[Ours]:
        """The Deployments with our label, by name."""
        selector = {"labelSelector": f"{objects.MANAGED}={objects.OURS}"}
        listed = self.cluster.get(self.cluster.deployments, "list deployments", selector).get("items") or ()
        ours = [one for one in listed if objects.is_ours({**one, "kind": "Deployment"})]
        ports = self._ports(selector) if ours else {}
        return sorted((_one(one, ports) for one in ours), key=lambda one: one.name)

    def named(self, name: str) -> Ours:
        """The Deployment of that name."""
        found = self.find()
        for one in found:
            if one.name == name:
                return one
        if NAME.fullmatch(name) and self._deployment(name) is not None:
            raise UsageError(
                f"deployment/{name} in namespace {self.cluster.namespace!r} was not launched by tgi-advisor",
                f"`kubectl delete deployment {name} {self.cluster.at}` removes any.",
            )
        raise UsageError(
            f"tgi-advisor has launched no {printable(name)!r} {self.here}",
            did_you_mean(name, [one.name for one in found]) or f"`{self.status_command}` lists them.",
        )

    def made_by(self, launch_id: str) -> Mapping[str, str]:
        """The Deployments of a launch."""
        selector = {"labelSelector": f"{marks.LAUNCH}={launch_id}"}
        listed = self.cluster.get(self.cluster.deployments, "list deployments", selector).get("items") or ()
        names = [str(one["metadata"]["name"]) for one in listed]
        return dict(zip(names, names, strict=True))

    def runs(self, server: str) -> bool:
        """Whether the Deployment is there."""
        return self._deployment(server.rpartition("/")[2]) is not None

    def stop(self, server: str) -> Iterator[str]:
        """Delete a Deployment and its Service; pods that serve finish what they have, and the claim stays."""
        name = server.rpartition("/")[2]
        found = self._deployment(name)
        if found is None:
            return
        pods = self._pods(seen.launch_of(found))
        self._remove(name, pods)
        for one in preflight.beside(self.cluster, name):
            self.cluster.delete(objects.path(one, self.cluster.namespace), f"delete {objects.called(one)}")
        claim = f"{name}-data"
        path = f"{self.cluster.core}/persistentvolumeclaims/{claim}"
        there = self.cluster.find(path, f"look at pvc/{claim}")
        if there is not None and not there["metadata"].get("deletionTimestamp"):
            yield self._kept(claim)

    def _deployment(self, name: str) -> dict[str, Any] | None:
        return self.cluster.find(f"{self.cluster.deployments}/{name}", f"look at deployment/{name}")

    def _pods(self, launch_id: str) -> list[dict[str, Any]]:
        selector = {"labelSelector": f"{marks.LAUNCH}={launch_id}"}
        return list(self.cluster.get(self.cluster.pods, "list pods", selector).get("items") or ())

    def _ports(self, selector: Mapping[str, str]) -> dict[str, int]:
        """The port of each Service of ours."""
        listed = self.cluster.get(f"{self.cluster.core}/services", "list services", selector).get("items") or ()
        return {
            str(one["metadata"]["name"]): int(port["port"])
            for one in listed
            for port in ((one.get("spec") or {}).get("ports") or ())[:1]
        }


class KubernetesServer:
    """The pods of one launch."""

    kind: Literal["kubernetes"] = "kubernetes"

    def __init__(self, cluster: Cluster, plan: Plan, launch_id: str, *, token_given: bool, rolls: bool = False) -> None:
        assert plan.container is not None
        self.cluster, self.container, self.token_given, self.rolls = cluster, plan.container, token_given, rolls
        mine = {"labelSelector": f"{marks.LAUNCH}={launch_id}"}
        self._deployments = Watch(
            cluster, cluster.deployments, "deployments", {"fieldSelector": f"metadata.name={self.container.name}"}
        )
        self._pods = Watch(cluster, cluster.pods, "pods", mine)
        self._events = Watch(cluster, f"{cluster.core}/events", "events", {"fieldSelector": "involvedObject.kind=Pod"})
        self._followed: str | None = None
        self._log: _Log | None = None

    @property
    def id(self) -> str:
        """Namespace and name."""
        return f"{self.cluster.namespace}/{self.container.name}"

    @property
    def url(self) -> str:
        """The Service, as the cluster resolves it."""
        return f"http://{self.container.name}.{self.cluster.namespace}.svc:{self.container.port}"

    @property
    def what(self) -> str:
        """The Deployment."""
        return f"deployment/{self.container.name}"

    def begins(self, image: str) -> str:
        """As a Deployment does, or one that is changed."""
        if self.rolls:
            return f"{self.what} is rolled out from {image}; the pods of before serve until the new ones answer"
        return f"{self.what} started from {image}"

    stays = "What was applied stays"

    @property
    def at(self) -> str:
        """The options of kubectl."""
        return self.cluster.at

    @property
    def log_command(self) -> str:
        """`kubectl logs`."""
        return f"kubectl logs deployment/{self.container.name} {self.cluster.at}"

    @property
    def follow_command(self) -> str:
        """`kubectl logs -f`."""
        return f"kubectl logs -f deployment/{self.container.name} {self.cluster.at}"

    @property
    def stop_command(self) -> str:
        """`tgi-advisor stop`, with the place."""
        return f"tgi-advisor stop {self.container.name} {self.cluster.on}"

    @property
    def reach_command(self) -> str:
        """`kubectl port-forward`."""
        port = self.container.port
        return f"kubectl port-forward service/{self.container.name} {port}:{port} {self.cluster.at}"

    def ways(self) -> list[Way]:
        """A forwarded port of a pod that is ready."""

        def ask(path: str, body: dict[str, Any] | None, seconds: float) -> tuple[int, Any]:
            pods = seen.ready(self._seen())
            if not pods:
                return 0, "no pod is ready"
            dial = verify.http(
                "localhost", self.container.container_port,
                dial=lambda: self.cluster.forward(pods[0], self.container.container_port, seconds),
            )  # fmt: skip
            return dial(path, body, seconds)

        return [Way(ask)]

    def log(self, after: Moment) -> Log:
        """The log of the pod that failed, or of one that runs, from the second of a moment on."""
        found = seen.source(self._seen(), self._followed)
        if found is None:
            return NoLog()
        self._followed = found.pod
        query = {"container": found.container, "timestamps": "true"}
        if found.previous:
            query["previous"] = "true"
        elif not found.ended:
            query["follow"] = "true"
        if after.second and not found.previous:
            query["sinceTime"] = f"{after.second}{after.zone}"
        path = f"{self.cluster.pods}/{found.pod}/log"
        try:
            self._log = _Log(self.cluster.stream(path, f"follow the log of pod {found.pod}", query, LOG_QUIET_S))
            return self._log
        except RefusedError as error:
            if error.status in (400, 404, 429) or error.status >= 500:  # not there yet, gone, or put off
                return NoLog()
            raise

    def state(self) -> State:
        """What the watches show."""
        return seen.state_of(self._seen())

    def glance(self) -> State | None:
        """The same; None while it cannot be seen.

        The log of a pod that another has taken the place of is let go: where its node is gone, it would only be silent.
        """
        try:
            found = self._seen()
        except EngineError:
            return None
        names = [one["metadata"]["name"] for one in seen.current(found.pods)]
        if self._log is not None and names and self._followed not in names:
            self._log.close()
            self._log = None
        return seen.state_of(found)

    def received(self) -> None:
        """Nobody counts them for a pod."""

    def served(self, options: Options) -> None:
        """Nothing is due: the controller takes the old pods away."""

    def close(self) -> None:
        """End the watches."""
        for watch in (self._deployments, self._pods, self._events):
            watch.close()

    def _seen(self) -> seen.Pods:
        deployments = self._deployments.objects()
        try:
            events = self._events.objects()
        except LostPlaceError:
            raise
        except EngineError:  # not allowed: the pods' own conditions say most of it
            events = []
        return seen.Pods(deployments[0] if deployments else None, self._pods.objects(), events, self.cluster.at)


class _Log:
    """A log whose lines carry the moment they were taken down."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        for line in lines(self._answer):
            yield line + b"\n"

    def close(self) -> None:
        hang_up(self._answer)


def _one(one: Mapping[str, Any], ports: Mapping[str, int]) -> Ours:
    """A Deployment as `status` lists it."""
    metadata, status = one["metadata"], one.get("status") or {}
    notes = {str(name): printable(str(value)) for name, value in (metadata.get("annotations") or {}).items()}
    containers = one["spec"]["template"]["spec"].get("containers") or [{}]
    name = str(metadata["name"])
    ready, wanted = int(status.get("readyReplicas") or 0), int(one["spec"].get("replicas", 1))
    updated = int(status.get("updatedReplicas") or 0)
    return Ours(
        id=f"{metadata.get('namespace', '')}/{name}",
        name=name,
        image=printable(str(containers[0].get("image", ""))),
        state="rolling out" if ready and updated < wanted else f"{ready} of {wanted} ready",
        healthy=0 < wanted <= ready and updated >= wanted,
        port=ports.get(name),
        model=notes.get(marks.MODEL, ""),
        release=notes.get(marks.RELEASE, ""),
        limits=marks.limits(str((metadata.get("annotations") or {}).get(marks.LIMITS, ""))),
        plan=notes.get(marks.PLAN, ""),
    )
