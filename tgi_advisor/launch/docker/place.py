"""A Docker Engine as a place: containers, their log, their published port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from tgi_advisor.errors import AdvisorError, EngineError, PreflightError
from tgi_advisor.launch import marks, verify
from tgi_advisor.launch.docker import ours, preflight, request
from tgi_advisor.launch.docker.engine import Engine, said
from tgi_advisor.launch.docker.ssh import through_ssh
from tgi_advisor.launch.failures import State
from tgi_advisor.launch.place import Log, LostPlaceError, NoLog, Ours, Preview, Server, UnreadableLogError, Way
from tgi_advisor.launch.preflight import Checked, Host
from tgi_advisor.launch.records import Options, Say
from tgi_advisor.launch.watch import Moment
from tgi_advisor.plan import Container, Plan


class DockerPlace:
    """The containers of one engine."""

    kind: Literal["docker"] = "docker"
    here = "here"
    status_command = "tgi-advisor status"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __enter__(self) -> DockerPlace:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.__exit__()

    @property
    def local(self) -> bool:
        """Whether the engine shares this machine's files and ports."""
        return self.engine.address.local

    def check(self, plan: Plan, options: Options, host: Host, *, again: bool = False) -> Checked:
        """Everything in the way that can be known now."""
        return preflight.check(
            plan, container_of(plan), body_of(plan, options), self.engine, host,
            replace=options.replace and not again, reuse=options.reuse and not again,
        )  # fmt: skip

    def preview(self, plans: Sequence[Plan], options: Options, host: Host) -> Preview:
        """The requests to the Engine API."""
        return Preview(tuple(_shown(plan, options, host) for plan in plans))

    def prepare(self, image: str, tell: Say) -> None:
        """Pull an image."""
        tell("pull", f"pulling {image}")

        def on(message: Mapping[str, Any]) -> None:
            detail = message.get("progressDetail") or {}
            tell(
                "pull", str(message.get("status", "")),
                layer=message.get("id"), current=detail.get("current"), total=detail.get("total"),
            )  # fmt: skip

        preflight.pull(image, self.engine, on)

    def clears(self, name: str) -> str:
        """What has the name goes."""
        return f"removing the container that had the name {name!r}"

    def clear(self, replaced: str) -> None:
        """Stop and remove a container: two cannot have one name."""
        ours.stop(self.engine, replaced)

    def start(
        self, plan: Plan, checked: Checked, options: Options, secrets: Mapping[str, str], launch_id: str  # noqa: ARG002
    ) -> Server:  # fmt: skip
        """Create a container and start it."""
        body = request.with_secrets(body_of(plan, options, launch_id), secrets)
        container = container_of(plan)
        made = DockerServer(self.engine, self._create(container.name, body), container, token_given=bool(secrets))
        made.start()
        return made

    def existing(self, plan: Plan, checked: Checked) -> tuple[Server, bool]:
        """The container that --reuse keeps."""
        assert checked.reuses is not None
        kept = DockerServer(self.engine, checked.reuses, container_of(plan))
        runs = kept.state().running
        if not runs:
            kept.start()
        return kept, runs

    def undo(self, launch_id: str, name: str, *, ended: bool = False, last: bool = True) -> Iterator[str]:  # noqa: ARG002
        """Remove the container of that name and launch."""
        for found, made in ours.made_by(self.engine, launch_id, ended=ended).items():
            if found == name:
                self.engine.remove(made)
                yield f"removed {found}, which did not serve yet"

    def find(self) -> list[Ours]:
        """The containers with our label."""
        return ours.find(self.engine)

    def named(self, name: str) -> Ours:
        """The container of that name."""
        return ours.named(self.engine, name)

    def made_by(self, launch_id: str) -> Mapping[str, str]:
        """The containers of a launch."""
        return ours.made_by(self.engine, launch_id)

    def runs(self, server: str) -> bool:
        """Whether a container runs."""
        return bool((self.engine.inspect(server) or {}).get("State", {}).get("Running"))

    def stop(self, server: str) -> tuple[str, ...]:
        """Stop a container and remove it."""
        ours.stop(self.engine, server)
        return ()

    def _create(self, name: str, body: dict[str, Any]) -> str:
        from docker.errors import APIError

        with self.engine.asked(f"create container {name}"):
            try:
                made: str = self.engine.client.create_container_from_config(body, name=name)["Id"]
            except APIError as error:
                if error.status_code == 409:
                    raise PreflightError(
                        f"a container named {name!r} appeared while this launch was preparing its own: {said(error)}",
                        "Another launch may be at work; `tgi-advisor status` shows it.",
                    ) from None
                raise
        return made


class DockerServer:
    """One container."""

    kind: Literal["docker"] = "docker"

    reach_command = None
    stays = "The container stays"

    def __init__(self, engine: Engine, container_id: str, container: Container, *, token_given: bool = True) -> None:
        self.engine, self.id, self.container, self.token_given = engine, container_id, container, token_given

    @property
    def url(self) -> str:
        """The published port."""
        return f"http://{self.engine.address.host}:{self.container.port}"

    @property
    def what(self) -> str:
        """Its name."""
        return f"container {self.container.name}"

    @property
    def log_command(self) -> str:
        """`docker logs`."""
        return f"docker logs {self.id[:12]}"

    @property
    def follow_command(self) -> str:
        """`docker logs`, as it goes on."""
        return f"docker logs -f {self.container.name}"

    at = ""

    def begins(self, image: str) -> str:
        """As a container does."""
        return f"{self.what} started from {image}"

    @property
    def stop_command(self) -> str:
        """`tgi-advisor stop`."""
        return f"tgi-advisor stop {self.container.name}"

    def start(self) -> None:
        """Start the container."""
        from docker.errors import APIError

        with self.engine.asked(f"start container {self.container.name}"):
            try:
                self.engine.client.start(self.id)
            except APIError as error:
                raise self._refusal(said(error)) from None

    def ways(self) -> list[Way]:
        """The published port, and another where that is not ours to reach.

        The container's own address, for an engine seen from another container; ssh, for one behind a firewall.
        """
        found = [Way(verify.http(self.engine.address.host, self.container.port))]
        if not self.engine.address.local:
            other = through_ssh(self.engine.client, self.container.port)
            port = f"port {self.container.port} of the engine's machine"
            note = f"{port} is asked through ssh, for it does not answer from here"
            return [*found, *([Way(other, late=True, note=note)] if other else [])]
        with suppress(LostPlaceError):
            seen = self.engine.inspect(self.id)
            networks = ((seen or {}).get("NetworkSettings") or {}).get("Networks") or {}
            address = next((n["IPAddress"] for n in networks.values() if n.get("IPAddress")), None)
            if address:
                found.append(Way(verify.http(address, self.container.container_port)))
        return found

    def log(self, after: Moment) -> Log:
        """The log, from the second of a moment on."""
        from docker.errors import APIError

        with self.engine.asked("follow the log"):
            try:
                found: Log = self.engine.client.logs(
                    self.id, stream=True, follow=True, timestamps=True, since=after.seconds
                )
            except APIError as error:
                if error.status_code not in (404, 409):  # gone already; else a log driver without reading
                    raise UnreadableLogError(said(error)) from None
                return NoLog()
            return found

    def state(self) -> State:
        """`State` of the container."""
        found = self.engine.inspect(self.id)
        if found is None:
            return State(running=False, there=False)
        state = found["State"]
        return State(bool(state.get("Running")), state.get("ExitCode"), bool(state.get("OOMKilled")))

    def glance(self) -> None:
        """The engine has to be asked."""

    def received(self) -> int | None:
        """Bytes that reached the container."""
        try:
            stats = self.engine.client.stats(self.id, stream=False)
            return sum(int(n["rx_bytes"]) for n in (stats.get("networks") or {}).values())
        except Exception:  # noqa: BLE001  (a figure for a sentence; the watch goes on without it)
            return None

    def served(self, options: Options) -> str | None:
        """Set the restart policy."""
        from docker.errors import APIError

        if options.restart == "no":
            return None
        policy = request.restart_policy(options.restart)
        with self.engine.asked("set the restart policy"):
            try:
                self.engine.client.update_container(self.id, restart_policy=policy)
            except APIError as error:
                return f"the restart policy could not be set: {said(error)}"
        return None

    def close(self) -> None:
        """Nothing is open."""

    def _refusal(self, words: str) -> AdvisorError:
        """Why the engine would not start a container it had created."""
        if "port is already allocated" in words or "address already in use" in words:
            return PreflightError(
                f"port {self.container.port} was taken while this launch was preparing: {words}",
                "Stop what has it, or choose another container.port.",
            )
        if "device driver" in words or "nvidia" in words.lower():
            finding = preflight.gpu_refusal(words)
            return PreflightError(finding.message, finding.hint)
        return EngineError(f"the engine could not start the container: {words}")


def container_of(plan: Plan) -> Container:
    """What a plan starts; PreflightError when it does not start."""
    if plan.container is None:
        raise PreflightError("the plan does not start, so there is nothing to launch")
    return plan.container


def body_of(plan: Plan, options: Options, launch_id: str = "") -> dict[str, Any]:
    """The request a launch sends, without secrets."""
    restart = options.restart if options.detach else "no"
    return request.request(plan, container_of(plan), launch_id, restart=restart, ulimits=options.ulimits)


def _shown(plan: Plan, options: Options, host: Host) -> dict[str, Any]:
    """A request, with the names of secrets in the place of their values."""
    container = container_of(plan)
    named = {
        inside: f"(from your {container.secret_env[inside]})" for inside in marks.secrets_of(container, host.environ)
    }
    return {"name": container.name, **request.with_secrets(body_of(plan, options), named)}
