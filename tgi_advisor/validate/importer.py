"""A server that was found, as a deployment spec of our own; what a spec cannot say becomes a comment.

The spec is built entry by entry through its own reader: what the reader refuses is not carried over,
and its reason is given. Emitting the spec again gives an equivalent server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from tgi_advisor.container import CACHE, PLATFORMS, PORT, entry_of
from tgi_advisor.errors import AdvisorError, SpecError, UsageError
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.clouds import SAGEMAKER
from tgi_advisor.facts.gpu import instance_type
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.safe import printable, unobeyed
from tgi_advisor.spec import reader, writer
from tgi_advisor.spec.contradictions import image_release
from tgi_advisor.spec.records import MountSpec, Spec, flag_homes
from tgi_advisor.validate.effective import TOKENS, Given
from tgi_advisor.validate.found import ALL_VARIABLES, Mount, Server, Value
from tgi_advisor.validate.images import SYSTEMS
from tgi_advisor.validate.paths import host_folder, inside, on_host
from tgi_advisor.validate.read.docker import mount_of
from tgi_advisor.validate.rules import Case
from tgi_advisor.validate.secrets import Hidden, hides, secrets, without_secrets

_FIELDS = {
    "revision": "model.revision", "dtype": "model.dtype", "quantize": "model.quantize",
    "kv-cache-dtype": "model.kv_cache_dtype", "trust-remote-code": "model.trust_remote_code",
    "cuda-memory-fraction": "hardware.memory_fraction", "num-shard": "tgi.num_shard",
    "max-input-tokens": "limits.max_input_tokens", "max-input-length": "limits.max_input_tokens",
    "max-total-tokens": "limits.max_total_tokens", "max-batch-prefill-tokens": "limits.max_batch_prefill_tokens",
}  # fmt: skip
"""Launcher flags with a field of their own, apart from the model, the port and the cache."""


class Importing:
    """A spec that grows entry by entry, and what it cannot hold."""

    def __init__(self, model: str, gpu: str, memory: str | None, hidden: Hidden) -> None:
        sets = [f"hardware.gpu.memory={memory}"] if memory else []
        self.spec = reader.build([("model.id", model), ("hardware.gpu", gpu)], "command line", None, sets)
        self.hidden = hidden
        self.left: list[str] = []

    def put(self, path: str, text: str, named: str) -> None:
        """Set a field to a text, or note why it cannot be set."""
        if without_secrets(text, self.hidden) != text:
            self.leave(f"{named}: it holds a secret, which a spec does not hold")
        else:
            self._try(path, named, [(path, text)])

    def put_text(self, path: str, text: str, named: str) -> None:
        """Set a field that is a text, whatever YAML would take it for."""
        if without_secrets(text, self.hidden) != text:
            self.leave(f"{named}: it holds a secret, which a spec does not hold")
        else:
            self._try(path, named, [], [f"{path}={_yaml(text)}"])

    def put_list(self, path: str, items: Sequence[str], named: str) -> None:
        """Set a field to a list."""
        self._try(path, named, [], [f"{path}={_yaml(list(items))}"])

    def put_section(self, section: str, text: str) -> None:
        """Set the fields of a section that a note of ours holds as JSON."""
        try:
            fields = json.loads(text)
            sets = [f"{section}.{name}={_yaml(value)}" for name, value in fields.items()]
            values = [str(value) for value in fields.values()]
        except (ValueError, AttributeError, RecursionError):
            self.leave(f"the annotation {section}, which is no JSON object")
            return
        if any(without_secrets(value, self.hidden) != value for value in values):
            self.leave(f"{section}: it holds a secret, which a spec does not hold")
        else:
            self._try(section, f"the annotation {section}", [], sets)

    def leave(self, what: str) -> None:
        """Note something the spec does not say."""
        if what not in self.left:
            self.left.append(what)

    @property
    def told(self) -> list[str]:
        """What the spec does not say, on a line each and without secrets."""
        return [_line(one, self.hidden) for one in self.left]

    def _try(self, path: str, named: str, assignments: list[tuple[str, str]], sets: Sequence[str] = ()) -> None:
        try:
            self.spec = reader.build(assignments, "import", self.spec, sets)
        except SpecError as error:
            why = error.problems[0].message if error.problems else error.message
            self.leave(f"{named}: {why}" if path not in why else f"{named} ({why})")


def imported(
    case: Case, gpu: str | None = None, count: int | None = None, memory: str | None = None, model: str | None = None
) -> str:
    """The spec of a server as YAML, after comments on where it comes from and what it leaves out.

    `gpu`, `count`, `memory` and `model` are the caller's word. UsageError when there is no model to name.
    """
    new, gpu_name = importing(case, gpu, count, memory, model)
    return "\n".join([*_head(case, new, gpu_name), writer.dump(new.spec)])


def importing(
    case: Case, gpu: str | None = None, count: int | None = None, memory: str | None = None, model: str | None = None
) -> tuple[Importing, str]:
    """The spec of a server with what it leaves out, and the name of its GPU (`auto` where nobody says one).

    Arguments and errors as `imported`.
    """
    view, server = case.view, case.server
    if server.form == "spec":
        raise UsageError(f"{server.place.file} is a deployment spec already", "Give it to `tgi-advisor advise`.")
    hidden = secrets(case.document, [case])
    given = view.flags.get("model-id")
    if model is None and (given is None or not view.model):
        where = f" at {given.value.place} ({_line(_shown(given.value), hidden)})" if given else ""
        raise UsageError(
            f"{server.place}: the model of this server is not in the file{where}",
            "Write its id there (`migrate` takes it with --model too), or start from `tgi-advisor init --model ID`.",
        )
    gpu_name = gpu or _machine(case) or (case.gpu.name if case.gpu else "auto")
    if memory is None and case.gpu is not None and case.gpu.system == "cpu":
        memory = f"{case.gpu.memory_bytes}B"
    named = model if model is not None else on_host(view.model or "", _storage(server))
    if without_secrets(named, hidden) != named:
        raise UsageError(f"{server.place}: the model's name holds a secret", "Write the model's id there.")
    new = Importing(named, gpu_name, memory, hidden)
    _software(new, case)
    _flags(new, case)
    _environment(new, case)
    _hardware(new, case, count)
    _container(new, case)
    _rest(new, case)
    return new, gpu_name


def _machine(case: Case) -> str | None:
    """The cloud instance type a pod's node selector names."""
    named = [hint.value.text for hint in case.server.hints if hint.kind == "instance" and hint.value.known]
    return instance_type(named[0]) if named and case.server.form == "kubernetes" else None


def _head(case: Case, new: Importing, gpu: str) -> Iterator[str]:
    server = case.server
    name = f" ({server.name})" if server.name else ""
    yield f"# Imported from {_line(f'{server.place}{name}', new.hidden)}. Improve it with: tgi-advisor advise FILE"
    if gpu == "auto":
        yield "# The file does not name a GPU: `auto` is this machine's. Write another one's name to plan for it."
    pinned = [name for name in _FIELDS.values() if name.startswith("limits.") and _pinned(new.spec, name)]
    if pinned:
        yield "# The limits are those of the file: leave one out to have it searched."
    if new.left:
        yield "# Not carried over:"
        yield from (f"# - {one}" for one in new.told)


def _pinned(spec: Spec, path: str) -> bool:
    return getattr(spec.limits, path.partition(".")[2]).fixed is not None


def _software(new: Importing, case: Case) -> None:
    """The image where it is one of TGI's whose release is plain to see; else TGI's own of the same release."""
    image, release = case.server.image, case.view.release
    if noted := _noted(case, "image"):
        image = Value(noted, case.server.place)
    if image is not None and image.known and release is None and _release_of(image.text) is not None:
        new.put("tgi.image", image.text, "the image")  # not TGI's own, but its tag says a release of TGI
        return
    looked_up = image is not None and case.view.image.cloud == "sagemaker" and "/" not in image.text
    if image is not None and image.known and release is not None and not looked_up:  # that is no whole reference
        if _release_of(image.text) == release:
            new.put("tgi.image", image.text, "the image")
            return
        if image_release(image.text) is None and _release_of(image.text, release) == release:
            new.put("tgi.image", image.text, "the image")
            new.put("tgi.release", release.name, "the release")
            return
    if image is not None:
        new.leave(f"the image {_shown(image)}: {f'TGI {release} instead' if release else case.view.image.note}")
    if release is not None:
        variant = case.view.image.variant
        own = releases.image_for(release, variant) if variant and variant in releases.variants(release) else None
        new.put("tgi.image" if own else "tgi.release", own or release.name, "the release")


def _release_of(image: str, stated: TgiRelease | None = None) -> TgiRelease | None:
    """The release an image stands for in a spec, which may state one too; None when the spec would be refused."""
    try:
        return releases.from_image(image, stated).release
    except AdvisorError:
        return None


def _flags(new: Importing, case: Case) -> None:
    """Every launcher flag in force, to its own field or under tgi.flags."""
    homes = flag_homes()
    for name, given in case.view.flags.items():
        if given.by == "image" or name == "model-id" or _of_platform(case, given):
            continue
        said = f"--{name}"
        if given.flag.secret or hides(given.name.text, given.value.text):
            new.leave(f"{said}: a secret, which a spec does not hold")
        elif not given.value.known:
            new.leave(f"{said} {_shown(given.value)}, whose value is not in the file")
        elif _stays_variable(case, given):
            continue  # it keeps its place among the variables
        elif given.typed is None:
            new.leave(f"{said} {given.shown}: {given.wrong}")
        elif name in _FIELDS:
            new.put(_FIELDS[name], _text(given), said)
        elif name == "sharded" and "num-shard" not in case.view.flags:
            if given.typed is False:
                new.put("tgi.num_shard", "1", said)
        elif name == "port":
            if given.typed != (listens := case.view.image.port or PORT):
                new.leave(f"{said} {given.shown}: emitted containers listen on {listens}")
        elif name not in ("sharded", "huggingface-hub-cache") and name not in homes:
            if isinstance(given.typed, tuple) and given.flag.delimiter is None:
                new.put_list(f"tgi.flags.{name}", [str(one) for one in given.typed], said)
            elif given.flag.type == "text":
                new.put_text(f"tgi.flags.{name}", _text(given), said)
            else:
                new.put(f"tgi.flags.{name}", _text(given), said)
    for slip in case.view.slips:
        new.leave(f"{slip.word.text}: the launcher refuses it")


def _stays_variable(case: Case, given: Given) -> bool:
    """Whether a flag is set by a variable that a spec can hold as one.

    In an environment of ours that says everything those before the model are variables, and those after it the
    launcher's flags.
    """
    if given.by != "environment" or given.flag.name in flag_homes() or given.name.text in SAGEMAKER:
        return False
    image, order = case.view.image, list(case.server.env)
    if not _says_all(case.server) and (not image.deaf or given.typed is None):
        return True
    model = "HF_MODEL_ID" if image.entry == "sagemaker" else "MODEL_ID"
    return given.name.text in order[: order.index(model) if model in order else 0]


def _says_all(server: Server) -> bool:
    """Whether variables alone say how a server starts."""
    return server.form == "env" or ALL_VARIABLES in server.notes


def _text(given: Given) -> str:
    if isinstance(given.typed, bool):
        return str(given.typed).lower()
    if isinstance(given.typed, tuple):  # of a flag given twice both words
        return (given.flag.delimiter or "").join(map(str, given.typed))
    return given.value.text


def _of_platform(case: Case, given: Given) -> bool:
    """Whether `emit` sets the variable by itself for this kind of machine."""
    return given.by == "environment" and _platform_env(case).get(given.name.text) == given.value.text


def _platform_env(case: Case) -> Mapping[str, str]:
    system = case.gpu.system if case.gpu else case.view.image.system or SYSTEMS[""]
    platform = PLATFORMS.get(system)
    return {**platform.env, **platform.sharded_env} if platform else {}


def _environment(new: Importing, case: Case) -> None:
    """Variables that are no flag's; those that pick devices become `container.gpus`."""
    given = (*case.view.flags.values(), *case.view.hidden)
    of_flags = {one.flag.env for one in given if not _stays_variable(case, one)}
    system = case.view.image.system or (case.gpu.system if case.gpu else SYSTEMS[""])
    picks = PLATFORMS[system].ids_env if system in PLATFORMS else None
    for name, value in case.server.env.items():
        copied = name in SAGEMAKER and case.view.image.entry == "sagemaker"
        if name in of_flags or copied or _platform_env(case).get(name) == value.text:
            continue
        if hides(name, value.text):
            if name in TOKENS and not value.known:
                new.put("container.token_env", _variable(name, value), name)
            elif name not in TOKENS:
                new.leave(f"{name}: a secret, which a spec does not hold")
        elif not value.known:
            new.leave(f"{name}={_shown(value)}, whose value is not in the file")
        elif name == picks:
            if value.text != "all":
                new.put_list("container.gpus", value.text.split(","), name)
        else:
            new.put_text(f"tgi.env.{name}", value.text, name)
    for name, value in case.server.secret_env.items():
        if name in TOKENS:
            new.put("container.token_env", _variable(name, value), name)
            secret, slash, _ = (value.missing[0] if value.missing else "").rpartition("/")
            if slash and not secret.endswith("-secrets"):
                new.leave(f"Secret {secret}, where the token lies; emitted manifests read one of their own name")
        elif name not in of_flags:
            new.leave(f"{name}, whose value comes from {value.origin}")
    if caller := _noted(case, "token"):
        new.put("container.token_env", caller, "the variable of the token")
    if any(name in TOKENS and value.known and value.text for name, value in case.server.env.items()):
        new.leave("the Hub token of the file: export it in your shell as the variable container.token_env names")
    for source in case.server.env_sources:
        new.leave(f"{source.text}, which could not be read")


def _variable(name: str, value: Value) -> str:
    """The caller's variable that a token comes from."""
    secret, slash, missing = (value.missing[0] if value.missing else name).rpartition("/")
    ours = not slash or secret.endswith("-secrets")  # as `emit` calls it; the key of another Secret is no variable
    return missing if re.fullmatch(r"[A-Za-z_]\w*" if ours else r"[A-Z_][A-Z0-9_]*", missing, re.ASCII) else name


def _noted(case: Case, what: str) -> str:
    """What our own environment file says in a comment: its image, a mount, the caller's variable of the token."""
    notes = (note for note in case.server.notes if case.server.form == "env" and note.startswith(f"{what} "))
    return next((note.partition(" ")[2] for note in notes), "")


def _hardware(new: Importing, case: Case, count: int | None) -> None:
    asked = case.server.gpus
    if asked.asked == "ids" and asked.ids and new.spec.container.gpus == "all":
        new.put_list("container.gpus", asked.ids, "the device ids")
    many = count or (len(asked.ids) if asked.asked == "ids" else asked.count) or case.visible or case.shards
    if many and many > 1:
        new.put("hardware.count", str(many), "the number of GPUs")


def _container(new: Importing, case: Case) -> None:
    server = case.server
    stated = next((note.partition(" ")[2] for note in server.notes if note.startswith("container_name ")), server.name)
    name = re.sub(r"[^a-z0-9-]+", "-", stated.lower()).strip("-")[:63].strip("-")
    if name:
        new.put("container.name", name if name[0].isalpha() else f"tgi-{name}"[:63].strip("-"), "the name")
    outside = [port.host for port in server.ports if port.kind in ("publish", "service") and port.host is not None]
    numbers = [port.number for port in outside if port.number]
    if numbers:
        new.put("container.port", str(numbers[0]), "the port")
        for number in numbers[1:]:
            if number != numbers[0]:
                new.leave(f"port {number}")
    if server.shm_size is not None and server.shm_size.known:
        size = server.shm_size.text
        if server.form == "dstack":  # its GB is 2^30 bytes
            size = re.sub(r"^(\d+) ?([MGT])B$", lambda found: f"{found[1]}{found[2].lower()}", size)
        new.put(
            "container.shm_size",
            _docker_size(size) if server.form in ("kubernetes", "helm") else size,
            "the size of /dev/shm",
        )
    _mounts(new, case)
    _cluster(new, server)


_SCALED = ("kubernetes", "sky", "dstack", "helm")
"""Forms for which `emit` writes several servers."""


def _cluster(new: Importing, server: Server) -> None:
    """Replicas, and what annotations of ours say of the cluster and of scaling."""
    if server.form in _SCALED and server.replicas is not None and server.replicas.text not in ("", "1"):
        new.put("container.replicas", server.replicas.text, "the number of replicas")
    for note in server.notes:
        section, _, text = note.partition(" ")
        if section == "replicas":
            new.put("container.replicas", text, "the number of replicas")
        elif section in ("container", "kubernetes", "autoscale"):
            new.put_section(section, text)


def _storage(server: Server) -> tuple[Mount, ...]:
    """The mounts of a server, and those that a comment of ours names: of what the file itself cannot say."""
    noted = [text for what, _, text in (note.partition(" ") for note in server.notes) if what == "mount"]
    if server.form == "env":
        return tuple(mount_of(Value(text, server.place)) for text in noted)
    ours = {one.target.text: one for text in noted if (one := _kept(text, server)) is not None}
    same = {one.target.text for one in server.mounts}
    return (*(ours.get(one.target.text, one) for one in server.mounts),
            *(one for target, one in ours.items() if target not in same))  # fmt: skip


def _kept(text: str, server: Server) -> Mount | None:
    """A mount as `emit` keeps it: source, target and perhaps `ro`, as JSON."""
    try:
        source, target, *more = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(source, str) and isinstance(target, str)):
        return None
    kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
    return Mount(kind, Value(target, server.place), Value(source, server.place), read_only=more == ["ro"])


def _mounts(new: Importing, case: Case) -> None:
    model = case.view.model or ""
    for mount in _storage(case.server):
        target = mount.target.text.rstrip("/") or "/"
        if mount.kind == "memory" and target == "/dev/shm":  # noqa: S108
            continue
        if target == cache_of(case):
            folder = host_folder(mount)
            if folder is not None and case.server.form == "dstack":  # as `emit` places a relative one
                folder = re.sub(rf"^/var/lib/{re.escape(case.server.name)}/", "./", folder)
            if mount.kind in ("bind", "volume") and folder is not None:
                new.put("container.cache", folder, "the cache")
            elif mount.kind != "pvc":
                new.leave(f"the cache's storage ({mount.kind})")
        elif not (mount.kind == "bind" and inside(model, target)) or _named_in(case, target):
            _further(new, mount, target)


def _named_in(case: Case, folder: str) -> bool:
    """Whether an argument other than the model names something in a folder: an adapter, for example."""
    given = [one.value.text for name, one in case.view.flags.items() if name != "model-id" and one.value.known]
    return any(inside(part.rpartition("=")[2].strip(), folder) for text in given for part in text.split(","))


def _further(new: Importing, mount: Mount, target: str) -> None:
    """A mount beside the weights, where the spec can say it."""
    folder = host_folder(mount)
    said = f"the mount of {mount.source.text} on {target}" if mount.source else f"the mount of {target}"
    if mount.kind not in ("bind", "volume", "pvc") or folder is None or not mount.target.known:
        new.leave(said)
        return
    mounts = (*map(str, new.spec.container.mounts), str(MountSpec(folder, target, mount.read_only)))
    new.put_list("container.mounts", mounts, said)


def cache_of(case: Case) -> str:
    """Where the server keeps its weights."""
    env = case.view.env
    for name in ("HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        if name in env and env[name].known and env[name].text:
            return env[name].text.rstrip("/")
    return CACHE


def _docker_size(text: str) -> str:
    """A size of Kubernetes in Docker's spelling, whose units are the same powers of 1024."""
    found = re.fullmatch(r"(\d+)(?:([KMGT])(i?))?", text)
    if found is None:
        return text
    return f"{found[1]}{found[2].lower()}" if found[3] else f"{found[1]}{found[2] or ''}B"


def _rest(new: Importing, case: Case) -> None:
    """What a spec has no words for."""
    server, system = case.server, case.view.image.system or SYSTEMS[""]
    platform = PLATFORMS.get(system)
    own = server.form == "dstack" and case.view.release is not None and entry_of(case.view.release)
    if server.entry is not None and server.form not in ("launcher", "systemd") and server.entry.text != own:
        new.leave(f"the entry point {server.entry.text}: emitted containers use the image's own")
    if server.network is not None:
        new.leave(f"network {server.network.text}: the port is published instead")
    if server.replicas is not None and server.form not in _SCALED and server.replicas.text not in ("", "1"):
        new.leave(f"{server.replicas.text} replicas")
    ours = server.form in ("compose", "systemd")  # `emit` has them restart it
    for label, value in (
        ("memory limit", None if "Cloud Run" in server.notes else server.memory_limit), ("user", server.user),
        ("working directory", server.workdir), ("platform", server.platform),
        ("restart policy", None if ours else server.restart),
    ):  # fmt: skip
        if value is not None:
            new.leave(f"{label} {value.text}")
    if platform is None or server.privileged is None or not platform.privileged:
        if server.privileged is not None:
            new.leave("privileged mode")
        known = set() if platform is None else {*platform.cap_add, *platform.security_opt, *platform.group_add}
        for value in (*server.cap_add, *server.security_opt, *server.group_add):
            if value.text not in known and value.text.upper().removeprefix("CAP_") not in known:
                new.leave(value.text)
    for said in server.around:
        new.leave(said)
    if server.ipc is not None and (platform is None or platform.ipc != server.ipc.text):
        new.leave(f"ipc {server.ipc.text}: /dev/shm has a size of its own instead")


def _yaml(value: object) -> str:
    """A value as both JSON and YAML have it, whose escapes of characters beyond U+FFFF differ."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)


def _shown(value: Value) -> str:
    return value.text if len(value.text) <= 60 else f"{value.text[:57]}..."


def _line(text: str, hidden: Hidden) -> str:
    """The text on one line of a comment, without secrets and without anything somebody would obey."""
    return unobeyed(printable(without_secrets(text, hidden)))
