"""Compose files: every version of the format people still have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tgi_advisor.validate.found import NO_GPUS, UNSAID, Defect, Gpus, Mount, Port, Probe, Server, Value
from tgi_advisor.validate.read.docker import (
    anywhere,
    asked,
    device_gpus,
    mount_of,
    published,
    runtime_gpus,
    seconds,
    source_kind,
    tmpfs_of,
)
from tgi_advisor.validate.read.environment import Environment, env_file, variables_of
from tgi_advisor.validate.read.launcher import is_launcher, is_ours, launch_of
from tgi_advisor.validate.read.layers import (
    Beside,
    Layer,
    beside_of,
    extended_here,
    included,
    includes,
    is_overlay,
    lacks_base,
    layers_of,
    may_be_given,
    merged,
    unread,
    within,
)
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.words import COMPOSE, Found, Variable, interpolate, lex
from tgi_advisor.validate.read.world import World

MAX_SERVICES = 500
"""Services of a file that are read."""


def is_compose(root: Node) -> bool:
    """Whether a document is a Compose file: `services`, or (version 1) services at its root."""
    if not isinstance(root, Map):
        return False
    if root.get("apiVersion") is not None:
        return False
    services = root.get("services")
    if isinstance(services, Map):
        return any(isinstance(node, Map) for _, node in services.merged.values())
    return services is None and bool(included(root))


def read_compose(root: Map, world: World) -> tuple[list[Server], list[Defect]]:
    """Every TGI service, merged with the files Compose reads beside this one, and those of the files it includes."""
    reader = _Reader(root, world)
    reader.read(beside_of(root, world))
    missing: list[Scalar] = []
    for name, below, folder in includes(root, world):
        if below is None:
            missing.append(name)
            continue
        inner = _Reader(below, within(world, folder))
        inner.read(None)
        reader.servers += inner.servers  # its defects are told where it is read itself
    if missing:
        message = f"included and not there, so what it starts is not judged: {', '.join(name.text for name in missing)}"
        reader.defects.append(Defect("compose-not-read", message, missing[0].spot, length=len(missing[0].text)))
    return reader.servers, reader.defects


class _Reader:
    """What is shared by the services of a file."""

    def __init__(self, root: Map, world: World) -> None:
        self.root = root
        self.world = world
        self.servers: list[Server] = []
        self.defects: list[Defect] = []
        self.services = root.map("services")
        self.bases = extended_here(self.services)
        """Services that others of the file are made of."""
        self.unread: tuple[str, ...] = ()
        self.variables: Mapping[str, Variable] = {}
        if "$" in root.raw.text:
            entries = {name: value.text for name, value in env_file(world, ".env", ".env") or ()}
            self.variables = variables_of({**entries, **world.env})

    # -- words

    def value(self, node: Node | None, origin: str = "file") -> Value | None:
        """A single value with its references replaced."""
        if not isinstance(node, Scalar) or node.null:
            return None
        return self.expanded(node.value(origin))

    def expanded(self, value: Value) -> Value:
        """The same for a Value."""
        if "$" not in value.text:
            return value
        found = Found()
        text = interpolate(value.text, self.variables, found)
        return replace(
            value, text=text, known=value.known and found.known,
            missing=(*value.missing, *found.missing), defaulted=tuple(found.defaulted),
        )  # fmt: skip

    def words(self, node: Node | None) -> list[Value]:
        """A command: a list, or a string that is split at its blanks."""
        if isinstance(node, List):
            return [value for item in node.items if (value := self.value(item, "command")) is not None]
        if not isinstance(node, Scalar) or node.null:
            return []
        if not node.known:
            return _unknown_words(node)
        command = lex(node.source, 0, self.variables, COMPOSE)
        return [word.as_value(node.source) for word in command.words]

    # -- services

    def read(self, beside: Beside | None) -> None:
        """Every service of the file, merged with those of the file beside it."""
        if lacks_base(self.root, beside):
            self.unread = ("the file that this one is laid over, which is not read",)
        for name, (key, node) in list(self.services.merged.items())[:MAX_SERVICES]:
            if isinstance(node, Map):
                self.service(name, key, layers_of(name, node, self.services, beside, self.world), beside)

    def service(self, name: str, key: Scalar, layers: Sequence[Layer], beside: Beside | None) -> None:
        """One service, when it is a TGI server."""
        service = merged(layers)
        get = service.get
        below = beside.services.merged.get(name) if beside is not None and not beside.over else None
        place = below[0].place if below is not None else key.place

        image = self.value(get("image"), "image")
        entrypoint, command = self.words(get("entrypoint")), self.words(get("command"))
        ours = is_ours(image, [word.text for word in command])
        if not ours and not any(
            is_launcher(word.text) or "text-generation-launcher" in word.text for word in (*entrypoint, *command)
        ):
            return
        environment = self._environment(layers)
        missing = (*self.unread, *unread(layers))
        entry, args, fetched = None, command, None
        if entrypoint or not ours:
            words = [*entrypoint, *command]
            launch = launch_of(words, _sources(words, get("entrypoint"), get("command")), environment.variables())
            if launch is None:
                return
            entry, args, fetched = launch.entry, list(launch.args), launch.fetched
            environment.assigned(launch.assigned)
            self.defects += launch.defects
        for node in (get("entrypoint"), get("command")):
            self.defects += folded_backslash(node) if isinstance(node, Scalar) else []
        named = _names_model(args, environment)
        if name in self.bases and not named:
            return  # only what others are made of
        if not named and is_overlay(self.root):
            missing = (*missing, "the file that this one is laid over, which is not read")
        devices = tuple(self._values(get("devices")))
        runtime = self.value(get("runtime"))
        container_name = self.value(get("container_name"))
        deploy = get("deploy")
        deploy = deploy if isinstance(deploy, Map) else Map([], service.raw, service.start)
        scale = self.value(get("scale")) or self.value(deploy.get("replicas"))
        privileged = get("privileged")
        self.servers.append(
            Server(
                "compose", name, place,
                image=image, entry=entry, args=tuple(args),
                **environment.fields(),
                ports=tuple(self._ports(get("ports"), get("expose"))),
                mounts=(
                    *self._mounts(service),
                    *([anywhere(fetched)] if fetched else []),
                ),
                gpus=self._gpus(get("gpus"), deploy) or device_gpus(devices) or runtime_gpus(runtime, environment)
                or (UNSAID if missing or may_be_given(name, self.root, self.world) else NO_GPUS),
                shm_size=self.value(get("shm_size")),
                memory_limit=self.value(get("mem_limit")) or self.value(deploy.at("resources", "limits", "memory")),
                memory_request=self.value(get("mem_reservation"))
                or self.value(deploy.at("resources", "reservations", "memory")),
                devices=devices,
                cap_add=tuple(self._values(get("cap_add"))),
                security_opt=tuple(self._values(get("security_opt"))),
                group_add=tuple(self._values(get("group_add"))),
                privileged=self.value(privileged) if isinstance(privileged, Scalar) and privileged.truth else None,
                runtime=runtime,
                ipc=self.value(get("ipc")),
                network=self.value(get("network_mode")),
                user=self.value(get("user")),
                platform=self.value(get("platform")),
                workdir=self.value(get("working_dir")),
                probes=self._healthcheck(get("healthcheck")),
                restart=self.value(get("restart")) or self.value(deploy.at("restart_policy", "condition")),
                replicas=scale,
                beside=self._beside(name, container_name),
                notes=(
                    *((f"container_name {container_name.text}",) if container_name else ()),
                    *(("built",) if get("build") is not None else ()),
                ),
                unknown=missing,
            )
        )  # fmt: skip

    def _beside(self, name: str, container: Value | None) -> int:
        """How many services share the network of one, and may answer on ports it publishes."""
        shared = {f"service:{name}", f"container:{container.text}" if container else ""}
        others = (node.scalar("network_mode") for _, node in self.services.merged.values() if isinstance(node, Map))
        return sum(mode is not None and mode.text in shared for mode in others)

    def _values(self, node: Node | None) -> list[Value]:
        items = node.items if isinstance(node, List) else [node]
        return [value for item in items if (value := self.value(item)) is not None]

    def _environment(self, layers: Sequence[Layer]) -> Environment:
        """`env_file` and `environment`, the nearest layer last."""
        environment = Environment()
        for layer in reversed(layers):
            for node in layer.service.all("env_file"):
                for item in node.items if isinstance(node, List) else [node]:
                    self._env_file(environment, item.get("path") if isinstance(item, Map) else item, layer.world)
        for layer in reversed(layers):
            before = list(environment.overridden)
            own = Environment()
            for node in layer.service.all("environment"):
                self._entries(own, node)
            for name, value in own.set.items():
                environment.add(name, value)
            for name, value in own.secret.items():
                environment.refer(name, value)
            environment.overridden = before + own.overridden  # a layer over another is meant to replace it
        return environment

    def _env_file(self, environment: Environment, node: Node | None, world: World) -> None:
        name = self.value(node, "env_file")
        if name is None:
            return
        entries = env_file(world, name.text, f"env_file {name.text}") if name.known else None
        if entries is None:
            environment.sources.append(name)
            return
        for variable, value in entries:
            environment.add(variable, self.expanded(replace(value, known=True, missing=())))

    def _entries(self, environment: Environment, node: Node) -> None:
        """A map, or a list of NAME=value."""
        if isinstance(node, Map):
            for name, (key, item) in node.merged.items():
                if isinstance(item, Scalar) and not item.null:
                    value = self.expanded(item.value("environment"))
                    environment.add(name, replace(value, key=key.spot))
                elif isinstance(item, Scalar):
                    self._passed(environment, name, replace(key.value("environment"), key=key.spot))
        elif isinstance(node, List):
            for item in node.items:
                if not isinstance(item, Scalar):
                    continue
                whole = item.value("environment")
                name, equals, _ = whole.text.partition("=")
                quotes = 1 if item.style in ("'", '"') else 0
                if not equals:
                    self._passed(environment, name, replace(whole, key=whole.place))
                    continue
                skip = len(name) + 1
                place, length = item.source.place(skip), item.source.length(skip, len(whole.text))
                value = replace(
                    whole,
                    text=whole.text[skip:],
                    place=place,
                    length=length or max(whole.length - skip - 2 * quotes, 0),
                    quote=0,
                )
                environment.add(name.strip(), replace(self.expanded(value), key=item.source.place(0)))

    def _passed(self, environment: Environment, name: str, value: Value) -> None:
        """A variable handed on from the shell that runs Compose."""
        variable = self.variables.get(name)
        text = variable.text if variable else self.world.env.get(name)
        if text is not None:
            environment.add(name, replace(value, text=text))
        else:
            environment.refer(name, replace(value, known=False, missing=(name,), origin="the caller's environment"))

    def _ports(self, ports: Node | None, expose: Node | None) -> list[Port]:
        made: list[Port] = []
        for node in ports.items if isinstance(ports, List) else []:
            if isinstance(node, Map):
                made.append(Port("publish", self.value(node.get("target")), self.value(node.get("published"))))
            elif (value := self.value(node)) is not None:
                made.append(published(_as_shown(node, value)))
        made += [Port("expose", value) for value in self._values(expose)]
        return made

    def _mounts(self, service: Map) -> list[Mount]:
        volumes, tmpfs, others = (service.get(name) for name in ("volumes", "tmpfs", "volumes_from"))
        made: list[Mount] = []
        for node in volumes.items if isinstance(volumes, List) else []:
            if isinstance(node, Map):
                made += self._long_mount(node)
            elif (value := self.value(node)) is not None:
                made.append(mount_of(_as_shown(node, value)))
        made += [tmpfs_of(value) for value in self._values(tmpfs)]
        for node in (*service.list("configs"), *service.list("secrets")):
            target = node.value("target") if isinstance(node, Map) else None
            made += [Mount("configMap", target)] if target is not None else []
        return made + [anywhere(value) for value in self._values(others)]

    def _long_mount(self, node: Map) -> list[Mount]:
        target = self.value(node.get("target", "destination"))
        source = self.value(node.get("source", "src"))
        kind = self.value(node.get("type"))
        if target is None:
            return []
        read_only = node.scalar("read_only")
        kinds = {"tmpfs": "memory", "bind": "bind", "volume": "volume" if source else "anonymous"}
        guessed = source_kind(source.text) if source else "anonymous"
        return [
            Mount(
                kinds.get(kind.text, "unknown") if kind else guessed, target, source,
                self.value(node.at("tmpfs", "size")), bool(read_only and read_only.truth),
            )
        ]  # fmt: skip

    def _gpus(self, gpus: Node | None, deploy: Map) -> Gpus | None:
        """`gpus`, `deploy.resources.reservations.devices` or Swarm's generic resources."""
        found = self.value(gpus) if isinstance(gpus, Scalar) else None
        if found is not None:
            return asked(found)
        devices = gpus.items if isinstance(gpus, List) else deploy.list("resources", "reservations", "devices")
        for device in devices:
            if isinstance(device, Map) and (made := self._reservation(device, bool(gpus))):
                return made
        for resource in deploy.list("resources", "reservations", "generic_resources"):
            if isinstance(resource, Map):
                spec = resource.map("discrete_resource_spec")
                kind, count = self.value(spec.get("kind")), self.value(spec.get("value"))
                if kind and count and "gpu" in kind.text.lower():
                    return Gpus("count", "reservation", count, count.number)
        return None

    def _reservation(self, device: Map, short: bool) -> Gpus | None:
        """A device request: `count`, `device_ids` or all."""
        driver = self.value(device.get("driver"))
        capabilities = [value.text for value in self._values(device.get("capabilities"))]
        nested = device.get("capabilities")
        if isinstance(nested, List):
            capabilities += [
                value.text for item in nested.items if isinstance(item, List) for value in self._values(item)
            ]
        if not short and not driver and not any(word in ("gpu", "nvidia") for word in capabilities):
            return None
        vendor = driver.text if driver and driver.text in ("amd", "habana", "intel") else "nvidia"
        ids, count = device.get("device_ids"), self.value(device.get("count"))
        if ids is not None:
            values = self._values(ids)
            if any(not value.known for value in values):
                return Gpus("unknown", "reservation", values[0], vendor=vendor)
            named = tuple(part.strip() for value in values for part in value.text.split(",") if part.strip())
            return Gpus("ids", "reservation", values[0] if values else None, len(named), named, vendor)
        if count is None:
            place = device.raw.value(device.start, device.start + 1, "file", driver.text if driver else "")
            return Gpus("all", "reservation", driver or place, vendor=vendor)
        return replace(asked(count), how="reservation", vendor=vendor)

    def _healthcheck(self, node: Node | None) -> tuple[Probe, ...]:
        if not isinstance(node, Map):
            return ()
        disabled, test = node.scalar("disable"), node.get("test")
        words = (
            [value for item in test.items if (value := self.value(item))]
            if isinstance(test, List)
            else self._values(test)
        )
        if (disabled and disabled.truth) or (words and words[0].text == "NONE"):
            return (Probe("healthcheck", "none", node.place),)
        retries = self.value(node.get("retries"))

        def duration(name: str) -> float | None:
            return seconds(self.value(node.get(name)))

        place = node.entries[0][0].place if node.entries else node.place
        return (
            Probe(
                "healthcheck", "exec" if words else "none", place, words=tuple(words),
                initial_delay=duration("start_period"), period=duration("interval"),
                timeout=duration("timeout"), failures=retries.number if retries else None,
            ),
        )  # fmt: skip


def _names_model(args: Sequence[Value], environment: Environment) -> bool:
    """Whether a model is named, or may be where it cannot be seen."""
    named = any(not word.known or word.text.partition("=")[0] == "--model-id" for word in args)
    return named or bool(environment.sources) or "MODEL_ID" in {*environment.set, *environment.secret}


def _as_shown(node: Node, value: Value) -> Value:
    """A quoted value, its place moved to the first character within the quotes where they read alike."""
    if isinstance(node, Scalar) and node.style in ("'", '"') and value.length == len(value.text) + 2:
        return replace(value, place=node.source.place(0), length=value.length - 2)
    return value


def _unknown_words(node: Scalar) -> list[Value]:
    """The words of a template."""
    return [replace(node.value(), text=text) for text in node.text.split()]


def _sources(words: Sequence[Value], *nodes: Node | None) -> dict[int, Source]:
    """By position, the texts of words that are written as one scalar."""
    scalars: list[Scalar] = []
    for node in nodes:
        if isinstance(node, List):
            scalars += [item for item in node.items if isinstance(item, Scalar)]
        elif isinstance(node, Scalar):
            scalars.append(node)
    found: dict[int, Source] = {}
    for at, word in enumerate(words):
        for scalar in scalars:
            if scalar.text == word.text or (len(word.text) > 10 and scalar.text.rstrip("\n") == word.text):
                found[at] = scalar.source
            elif "$$" in scalar.text and (single := scalar.source.single_dollars()).text.rstrip(
                "\n"
            ) == word.text.rstrip("\n"):
                found[at] = single
            elif (inside := scalar.text.find(word.text)) >= 0 and "text-generation-launcher" in word.text:
                found.setdefault(at, scalar.source.part(inside, inside + len(word.text)))
        held = [scalar.source for scalar in scalars if "text-generation-launcher" in scalar.text]
        if at not in found and "text-generation-launcher" in word.text and len(held) == 1:
            found[at] = Source(
                held[0].file, word.text, [held[0].offset(0)] * len(word.text)
            )  # references are filled in
    return found


_FOLDED = re.compile(r"\\[ \t]*\r?\n")


def folded_backslash(node: Scalar) -> list[Defect]:
    """A backslash at the end of a line that YAML folds: a blank follows it then, and it escapes that blank."""
    if node.style in ("|", '"'):
        return []
    raw = node.raw.text[node.start : node.end]
    match = _FOLDED.search(raw)
    if not match or raw[match.end() :].strip() == "" or raw.count('"', 0, match.start()) % 2:
        return []
    message = (
        "YAML folds these lines into one, so the backslash escapes the blank after it and the next word begins with it"
    )
    hint = "remove the backslashes, or begin the text with `|`"
    return [Defect("yaml-folded-backslash", message, node.raw.place(node.start + match.start()), hint, 1)]
