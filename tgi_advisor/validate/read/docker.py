"""`docker run` command lines (and those of podman, nerdctl and others that take the same options)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from tgi_advisor.errors import Place
from tgi_advisor.facts import tables
from tgi_advisor.validate.found import NO_GPUS, UNSAID, Defect, Gpus, Mount, Port, Probe, Server, Value, whole_number
from tgi_advisor.validate.read.environment import Environment, env_file
from tgi_advisor.validate.read.launcher import LAUNCHER, is_image, is_launcher, is_ours, launch_of
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.words import Variable, Word, templated
from tgi_advisor.validate.read.world import World

_SWITCHES = frozenset(
    (
        "detach", "disable-content-trust", "help", "init", "interactive", "no-healthcheck", "oom-kill-disable",
        "privileged", "publish-all", "quiet", "read-only", "rm", "sig-proxy", "tty", "use-api-socket",
        "replace", "rmi", "env-host", "no-hosts", "no-hostname", "tls-verify",
    )
)  # fmt: skip
"""Long options that take no value (docs.docker.com/reference/cli/docker/container/run, podman-run(1))."""
_SHORT = {
    "a": "attach", "c": "cpu-shares", "e": "env", "h": "hostname", "l": "label", "m": "memory", "p": "publish",
    "u": "user", "v": "volume", "w": "workdir", "d": "detach", "i": "interactive", "t": "tty", "P": "publish-all",
    "q": "quiet",
}  # fmt: skip


class Option(NamedTuple):
    """An option of the engine."""

    name: str
    """Long name."""
    value: Value
    """Its value; the option itself for a switch."""
    at: Value
    """The word that names it."""


class Run(NamedTuple):
    """A command line, taken apart."""

    options: list[Option]
    """Options before the image."""
    image: Value | None
    """The image."""
    rest: list[Word]
    """Words after it."""
    swallowed: list[Option]
    """Options that took the next option for their value."""
    early: list[Word]
    """The launcher's own arguments among the options: docker knows none of them."""


def read_run(
    source: Source, words: Sequence[Word], variables: Mapping[str, Variable], world: World
) -> tuple[Server | None, list[Defect]]:
    """The server a `docker run` starts, or None when its image is not TGI's; `words` begin after `run`."""
    run = _taken_apart(source, words)
    defects: list[Defect] = []
    if run.swallowed and not (run.image and is_image(run.image.text)):
        lenient = _taken_apart(source, words, lenient=True)
        if lenient.image and is_image(lenient.image.text):
            for option in run.swallowed:
                message = f"{option.at.text} takes `{option.value.text}` as its value, so the words after it move on"
                hint = f"give {option.at.text} a value, or remove it"
                defects.append(Defect("docker-flag-swallowed", message, option.at.place, hint, option.at.length))
            run = lenient
    run = _behind_strays(source, run, defects)
    if run.image is None or not _is_server(run) or _runs_another(run):
        return None, []
    if run.early:
        named = ", ".join(word.text.partition("=")[0] for word in run.early if word.text.startswith("--"))
        first = run.early[0].as_value(source)
        message = f"docker does not know {named} and refuses to start: the launcher's arguments stand behind the image"
        defects.append(Defect("docker-flag-early", message, first.place, "write it behind the image", first.length))
        run = run._replace(rest=[*run.early, *run.rest])
    server = _server(source, run, variables, world, defects)
    return server, defects


_STRAYS = {
    "volume": r"(?:[/.~]|\$\{?(?:PWD|HOME)\b|\$\(pwd\)|[A-Za-z]:[\\/]).*:/.*|[\w.-]+:/.*",
    "publish": r"(?:[\d.]+:)?\d+:\d+(?:/tcp)?",
    "env": r"[A-Z][A-Z0-9_]+=.*",
}
"""What no image is called, by the option it lacks (github.com/distribution/reference, regexp.go)."""
_HELD = re.compile(r"\$(?:\w+|\{\w+(?::?[-+][^{}]*|\[[@*]\])?\})|\$\{?\w+\}?:/.*")
_SOUNDS = re.compile(r":/|opt|arg|vol|env|flag|param|gpu|mount|port|extra", re.IGNORECASE)
"""What a variable is called that holds options."""
_IMAGE = re.compile(r"\$\{?\w*image", re.IGNORECASE)
"""A variable that holds an image."""


def _behind_strays(source: Source, run: Run, defects: list[Defect]) -> Run:
    """The command with the image further on, where a value without its option, options in a variable, or what a
    template fills in stand first.

    Docker takes the first word that is no option for the image.
    """
    first, options, found = run, list(run.options), list[Defect]()
    while run.image is not None and not is_image(run.image.text):
        here = run.image
        name = next((name for name, form in _STRAYS.items() if re.fullmatch(form, here.text)), "")
        held = (templated(here.text) and "text-generation-inference" not in here.text) or (
            _HELD.fullmatch(here.text) and _holds_options(here.text, run.rest)
        )
        if not name and not held:
            if run is first or found or not is_ours(here, [word.text for word in run.rest]):
                return first
            break  # an image of a name of their own, behind variables that hold options
        if name:
            message = f"`{here.text}` stands where the image is named: docker refuses it as an image's name"
            hint = f"write --{name} before it"
            found.append(Defect("docker-value-alone", message, here.place, hint, here.length))
        early = run.early
        run = _taken_apart(source, run.rest)
        run = run._replace(early=[*early, *run.early])
        options += [Option(name or "held", here, here), *run.options]
    if run.image is None:  # the first word was the image
        return first
    defects += found
    return run._replace(options=options)


def _holds_options(variable: str, rest: Sequence[Word]) -> bool:
    """Whether a variable before the image holds options: by its name, or because the image stands further on."""
    if _SOUNDS.search(variable):
        return True
    if "image" in variable.lower():
        return False
    at = next((at for at, word in enumerate(rest) if is_image(word.text) or _IMAGE.match(word.text)), len(rest))
    return any(word.text.startswith("--") for word in rest[at + 1 :])  # else it is what another image is given


def _runs_another(run: Run) -> bool:
    """Whether `--entrypoint` names another program, and nothing behind the image sounds like TGI."""
    entry = next((option.value for option in reversed(run.options) if option.name == "entrypoint"), None)
    if entry is None or not entry.known or not entry.text or is_launcher(entry.text):
        return False
    return not any(LAUNCHER in word.text or word.text.startswith("--model-id") for word in run.rest)


def _is_server(run: Run) -> bool:
    if is_ours(run.image, [word.text for word in run.rest]):
        return True
    entry = any(option.name == "entrypoint" and is_launcher(option.value.text) for option in run.options)
    return entry or any(is_launcher(word.text) for word in run.rest)


_OPTIONAL = re.compile(r"\$\{(?P<caller>[A-Za-z_]\w*):?\+(?:--env=|-e)(?P<name>[A-Za-z_]\w*)\}")
"""An option that is only there where a variable of the caller is set: `${HF_TOKEN:+--env=HUGGING_FACE_HUB_TOKEN}`."""


def _taken_apart(source: Source, words: Sequence[Word], lenient: bool = False) -> Run:
    """Options, image and the rest; `lenient` does not take an option for the value of another."""
    options: list[Option] = []
    swallowed: list[Option] = []
    early: list[Word] = []
    at = 0
    while at < len(words):
        word = words[at]
        text = word.text
        at += 1
        here = word.as_value(source)
        if text == "--":
            break
        if (optional := _OPTIONAL.fullmatch(text)) is not None:
            refer = replace(here, text=optional["name"], missing=(optional["caller"],), known=False)
            options.append(Option("env-from", refer, here))
            continue
        if not text.startswith("-") or text == "-":
            return Run(options, here, list(words[at:]), swallowed, early)
        if text.startswith("--") and (takes := _of_launcher().get(text[2:].partition("=")[0])) is not None:
            taken = 1 if takes and "=" not in text and at < len(words) else 0
            early += words[at - 1 : at + taken]
            at += taken
            continue
        name, value = _named(source, word, here)
        if value is None:
            if at >= len(words):
                break
            following = words[at].as_value(source)
            if re.match(r"-[A-Za-z-]", following.text):
                swallowed.append(Option(name, following, here))
                if lenient:
                    continue
            value = following
            at += 1
        options.append(Option(name, value, here))
    image = words[at].as_value(source) if at < len(words) else None
    return Run(options, image, list(words[at + 1 :]), swallowed, early)


@cache
def _of_launcher() -> Mapping[str, bool]:
    """The launcher's flags that `docker run` does not have, and whether each takes a value."""
    rows = tables.load("flags")
    return {name: row["type"] != "switch" for name, row in rows.items() if name not in ("env", "hostname")}


def _named(source: Source, word: Word, here: Value) -> tuple[str, Value | None]:
    """The long name of an option and the value in the same word; None when the next word is its value."""
    text = word.text
    if text.startswith("--"):
        name, equals, _ = text[2:].partition("=")
        if equals:
            return name, tail(here, len(name) + 3, source, word)
        return (name, here) if name in _SWITCHES else (name, None)
    for at, letter in enumerate(text[1:], 2):
        name = _SHORT.get(letter, letter)
        if name in _SWITCHES:
            continue
        if at == len(text):
            return name, None
        skip = at + 1 if text[at] == "=" else at
        return name, tail(here, skip, source, word)
    return _SHORT.get(text[-1], text[1:]), here


def tail(value: Value, skip: int, source: Source | None = None, word: Word | None = None) -> Value:
    """A Value without its first characters; its place moves on where the word is written as it reads."""
    moved, length = value.place, value.length
    if value.length >= skip and (source is None or word is None or _as_written(source, word, value.text[:skip])):
        moved = Place(moved.file, moved.line, moved.column + skip)
        length = value.length - skip
    return replace(value, text=value.text[skip:], place=moved, length=length, quote=0)


def _as_written(source: Source, word: Word, start: str) -> bool:
    return source.text.startswith(start, word.start)


def _server(source: Source, run: Run, variables: Mapping[str, Variable], world: World, defects: list[Defect]) -> Server:
    """The options as the fields of a Server."""
    assert run.image is not None
    environment = Environment()
    lists: dict[str, list[Any]] = {
        name: [] for name in ("ports", "mounts", "devices", "cap_add", "security_opt", "group_add")
    }
    one: dict[str, Value] = {}
    gpus = NO_GPUS
    check: dict[str, Value] = {}
    late: list[tuple[str, Value]] = []
    for name, value, at in run.options:
        if name == "env":
            late.append((name, value))
        elif name == "held":
            environment.sources.append(replace(value, known=False))
            lists["mounts"].append(Mount("unknown", replace(value, text="/", known=False)))
            gpus = UNSAID if gpus is NO_GPUS else gpus
        elif name == "env-from":
            environment.refer(value.text, replace(value, origin="the caller's environment", key=value.spot))
        elif name == "env-file":
            _env_file(environment, value, world)
        elif name == "publish":
            lists["ports"].append(published(value))
        elif name == "expose":
            lists["ports"].append(Port("expose", value))
        elif name in ("volume", "mount", "tmpfs"):
            lists["mounts"].append(
                mount_of(value) if name == "volume" else _long_mount(value) if name == "mount" else tmpfs_of(value)
            )
            _tilde(source, value, at, name, defects)
        elif name == "gpus":
            gpus = asked(value)
        elif name == "volumes-from":
            lists["mounts"].append(anywhere(value))
        elif name == "device":
            lists["devices"].append(value)
        elif name in ("cap-add", "security-opt", "group-add"):
            lists[name.replace("-", "_")].append(value)
        elif name.startswith("health-") or name == "no-healthcheck":
            check[name] = value
        else:
            one[name] = value
    for _, value in late:
        _variable(environment, value, variables, world)
    entry, args, fetched = _launch(source, run, one, environment)
    lists["mounts"] += [anywhere(fetched)] if fetched else []
    gpus = _other_gpus(gpus, lists["devices"], one.get("runtime"), environment)
    network = one.get("network") or one.get("net")
    return Server(
        "docker-run",
        one["name"].text if "name" in one else "",
        run.options[0].at.place if run.options else run.image.place,
        image=replace(run.image, origin="command"),
        entry=entry,
        args=tuple(args),
        **environment.fields(),
        ports=tuple(lists["ports"]),
        mounts=tuple(lists["mounts"]),
        devices=tuple(lists["devices"]),
        cap_add=tuple(lists["cap_add"]),
        security_opt=tuple(lists["security_opt"]),
        group_add=tuple(lists["group_add"]),
        gpus=gpus,
        shm_size=one.get("shm-size"),
        memory_limit=one.get("memory"),
        memory_request=one.get("memory-reservation"),
        privileged=None if "privileged" not in one or one["privileged"].text == "false" else one["privileged"],
        runtime=one.get("runtime"),
        ipc=one.get("ipc"),
        network=network,
        user=one.get("user"),
        platform=one.get("platform"),
        workdir=one.get("workdir"),
        restart=one.get("restart"),
        probes=_healthcheck(check),
    )


def _launch(
    source: Source, run: Run, one: Mapping[str, Value], environment: Environment
) -> tuple[Value | None, list[Value], Value | None]:
    """The launcher, its arguments, and the word with what is fetched before it runs."""
    words = [word.as_value(source) for word in run.rest]
    entry = one.get("entrypoint")
    if entry is None or not entry.text:
        if is_ours(run.image, [word.text for word in words]):
            return None, words, None
        entry_at = next((at for at, word in enumerate(words) if is_launcher(word.text)), 0)
        return words[entry_at], words[entry_at + 1 :], None
    sources = {
        at + 1: Source(source.file, word.text, source.offsets[word.start : word.end])
        for at, word in enumerate(run.rest)
    }
    launch = launch_of([entry, *words], sources, environment.variables())
    environment.assigned(launch.assigned if launch else ())
    return (launch.entry, list(launch.args), launch.fetched) if launch else (entry, words, None)


def _variable(environment: Environment, value: Value, variables: Mapping[str, Variable], world: World) -> None:
    """`-e NAME=value`, or `-e NAME` from the caller's shell."""
    name, equals, _ = value.text.partition("=")
    if equals:
        held = tail(value.bare, len(name) + 1)
        environment.add(name, replace(held, origin="environment", key=value.spot))
        return
    known = variables.get(name) or (Variable(world.env[name]) if name in world.env else None)
    if known is not None and known.known:
        environment.add(name, replace(value, text=known.text, origin="environment", key=value.spot))
    else:
        origin = "the caller's environment"
        environment.refer(name, replace(value, known=False, missing=(name,), origin=origin, key=value.spot))


def _env_file(environment: Environment, value: Value, world: World) -> None:
    """`--env-file NAME`."""
    entries = env_file(world, value.text, f"env_file {value.text}") if value.known else None
    if entries is None:
        environment.sources.append(replace(value, origin="env_file"))
        return
    for name, entry in entries:
        environment.add(name, entry)


def published(value: Value, kind: str = "publish") -> Port:
    """`[ip:][host:]container[/protocol]`."""
    text = value.text
    depth, colons = 0, []
    for at, c in enumerate(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(c, 0)
        if c == ":" and depth <= 0:
            colons.append(at)
    if not colons:
        return Port(kind, _no_protocol(value))
    host_start = colons[-2] + 1 if len(colons) > 1 else 0
    host = replace(value, text=text[host_start : colons[-1]])
    return Port(
        kind, _no_protocol(_side(tail(value, colons[-1] + 1), value)), _side(host, value) if host.text else None
    )


def _side(part: Value, whole: Value) -> Value:
    """A part of a word is known when it holds none of the references the word lacks."""
    if whole.known or "$" in part.text or "{{" in part.text or "%" in part.text or "<" in part.text:
        return part
    return replace(part, known=True, missing=())


def _no_protocol(value: Value) -> Value:
    return replace(value, text=value.text.partition("/")[0]) if "/" in value.text else value


def anywhere(value: Value) -> Mount:
    """Whatever another container has mounted, at the paths it has there."""
    return Mount("unknown", replace(value, known=False), value)


_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")


def mount_of(value: Value) -> Mount:
    """`[source:]target[:options]`."""
    text = value.text
    cuts: list[int] = []
    depth = 0
    for at, c in enumerate(text):
        depth += {"{": 1, "(": 1, "}": -1, ")": -1}.get(c, 0)
        if c == ":" and depth <= 0 and not (at == 1 and _WINDOWS.match(text)):
            cuts.append(at)
    if not cuts:
        return Mount("anonymous", value)
    source = replace(value, text=text[: cuts[0]], length=min(cuts[0], value.length))
    target = tail(value, cuts[0] + 1)
    options = ""
    if len(cuts) > 1:
        options = text[cuts[1] + 1 :]
        target = replace(target, text=text[cuts[0] + 1 : cuts[1]], length=min(target.length, cuts[1] - cuts[0] - 1))
    return Mount(
        source_kind(source.text), _side(target, value), _side(source, value), read_only="ro" in options.split(",")
    )


def source_kind(text: str) -> str:
    """Whether a mount's source is a folder or a named volume."""
    if text.startswith(
        ("/", ".", "~", "$PWD", "${PWD", "$HOME", "${HOME", "$(", "`", "%cd%", "%USERPROFILE%", "%~dp0")
    ):
        return "bind"
    if _WINDOWS.match(text) or "/" in text.partition("}")[2] or "\\" in text:
        return "bind"
    if text.startswith(("$", "%", "{", "<")):
        return "bind" if "/" in text and not text.startswith("${") else "unknown"
    return "bind" if "/" in text else "volume"


def _long_mount(value: Value) -> Mount:
    """`type=bind,source=...,target=...`, a line of CSV (opts/mount.go of github.com/docker/cli)."""
    fields: dict[str, str] = {}
    for part in next(csv.reader([value.text]), []) if "\n" not in value.text else value.text.split(","):
        name, _, text = part.partition("=")
        fields[name.strip().lower()] = text
    target = fields.get("target") or fields.get("dst") or fields.get("destination") or ""
    origin = fields.get("source") or fields.get("src")
    kind = fields.get("type", "volume")
    return Mount(
        {"tmpfs": "memory"}.get(kind, kind if kind in ("bind", "volume") else "unknown"),
        _side(replace(value, text=target), value),
        _side(replace(value, text=origin), value) if origin else None,
        size=replace(value, text=fields["tmpfs-size"]) if "tmpfs-size" in fields else None,
        read_only=fields.get("readonly", fields.get("ro", "false")) in ("", "true", "1"),
    )


def tmpfs_of(value: Value) -> Mount:
    """`path[:options]`."""
    path, _, options = value.text.partition(":")
    size = re.search(r"size=([^,]+)", options)
    return Mount("memory", replace(value, text=path), size=replace(value, text=size[1]) if size else None)


def _tilde(source: Source, value: Value, at: Value, name: str, defects: list[Defect]) -> None:
    """A `~` the shell does not expand: in quotes, or after `=`."""
    text = value.text.partition("source=")[2] if name == "mount" else value.text
    if not text.startswith("~/"):
        return
    raw = source.file.text
    offset = _offset(source, value)
    if (
        name == "mount"
        or at.place == value.place
        or raw[offset : offset + 1] in "\"'"
        or (at.text.startswith("--v") and "=" in at.text)
    ):
        message = "the shell leaves this `~` as it is, so the engine gets a folder named `~`"
        defects.append(Defect("shell-tilde-not-expanded", message, value.place, "write $HOME instead", value.length))


def _offset(source: Source, value: Value) -> int:
    return source.file.offset_of(value.place)


def asked(value: Value) -> Gpus:
    """`--gpus`: all, a number, or devices."""
    text = value.text.strip().strip("\"'")
    fields = re.match(r"(?:.*,)?(device|count)=(.+)", text)
    named = fields[2].strip("\"'") if fields else text
    if not value.known and whole_number(named) is None:
        return Gpus("unknown", "flag", value)
    if named in ("all", "-1"):
        return Gpus("all", "flag", value)
    if fields and fields[1] == "device":
        ids = tuple(part.strip().strip("\"'") for part in named.split(",") if part.strip() and "=" not in part)
        return Gpus("ids", "flag", value, len(ids), ids)
    count = whole_number(named)
    if count is None:
        return Gpus("unknown", "flag", value)
    return Gpus("count" if count else "none", "flag", value, count)


def _other_gpus(gpus: Gpus, devices: Sequence[Value], runtime: Value | None, environment: Environment) -> Gpus:
    """GPUs that come through a device node or a container runtime."""
    if gpus.asked != "none" or gpus.how:
        return gpus
    return device_gpus(devices) or runtime_gpus(runtime, environment) or gpus


def device_gpus(devices: Sequence[Value]) -> Gpus | None:
    """GPUs given as device nodes, or as CDI names (`nvidia.com/gpu=0`)."""
    named = [device for device in devices if re.match(r"(?:nvidia|amd|intel)\.com/gpu=", device.text)]
    if named:
        ids = tuple(device.text.partition("=")[2] for device in named)
        vendor = named[0].text.partition(".")[0]
        if "all" in ids:
            return Gpus("all", "device", named[0], vendor=vendor)
        return Gpus("ids", "device", named[0], len(ids), ids, vendor)
    for prefix, vendor in (
        ("/dev/kfd", "amd"),
        ("/dev/nvidia", "nvidia"),
        ("/dev/accel", "habana"),
        ("/dev/dri", "intel"),
    ):
        for device in devices:
            if device.text.startswith(prefix):
                nodes = re.findall(r"/dev/nvidia(\d+)", " ".join(d.text.partition(":")[0] for d in devices))
                if vendor == "nvidia" and nodes:
                    return Gpus("ids", "device", device, len(nodes), tuple(nodes), vendor)
                return Gpus("all", "device", device, vendor=vendor)
    return None


def runtime_gpus(runtime: Value | None, environment: Environment) -> Gpus | None:
    """GPUs of `runtime: nvidia` or `habana`, which read NVIDIA_VISIBLE_DEVICES or HABANA_VISIBLE_DEVICES.

    Kubernetes' runtime classes are called alike (`nvidia`, `nvidia-cdi`, `nvidia-legacy`).
    """
    vendor = runtime.text.partition("-")[0] if runtime is not None else ""
    if runtime is None or vendor not in ("nvidia", "habana"):
        return None
    visible = environment.set.get(f"{vendor.upper()}_VISIBLE_DEVICES")
    if visible is None or visible.text == "all":
        return Gpus("all", "runtime", runtime, vendor=vendor)
    if not visible.known:
        return Gpus("unknown", "runtime", visible, vendor=vendor)
    if visible.text.strip() in ("", "none", "void"):
        return Gpus("none", "runtime", visible, vendor=vendor)
    ids = tuple(part.strip() for part in visible.text.split(",") if part.strip())
    return Gpus("ids", "runtime", visible, len(ids), ids, vendor)


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Value | None) -> float | None:
    """A Go duration (`1m30s`) or a plain number of seconds."""
    if value is None or not value.known or len(value.text) > 40:
        return None
    text = value.text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", text, re.ASCII):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)", text, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _healthcheck(check: Mapping[str, Value]) -> tuple[Probe, ...]:
    """`--health-...` options as a Probe."""
    if "no-healthcheck" in check:
        return (Probe("healthcheck", "none", check["no-healthcheck"].place),)
    command = check.get("health-cmd")
    if command is None:
        return ()
    retries = check.get("health-retries")
    return (
        Probe(
            "healthcheck", "exec", command.place, words=(command,),
            initial_delay=seconds(check.get("health-start-period")), period=seconds(check.get("health-interval")),
            timeout=seconds(check.get("health-timeout")), failures=retries.number if retries else None,
        ),
    )  # fmt: skip
