"""What was found in a deployment file: the servers, where each word of them stands, and what is wrong with the file.

The readers (`read/`) make these records and the rules consume them. Nothing here is judged: a value
that cannot be known says so (`known`), and is never replaced by a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from tgi_advisor.errors import Place

ALL_VARIABLES = "every setting is a variable"
"""What a reader notes of a server whose platform passes no arguments (Azure ML)."""


def _nothing() -> Mapping[str, Value]:
    """The default of a mapping; a mapping proxy itself may be a default only from 3.12 on."""
    return MappingProxyType({})


def whole_number(text: str) -> int | None:
    """The whole number a text is, if it is one that a computer counts with."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


@dataclass(frozen=True, slots=True)
class Value:
    """A word of a file as the server will see it, and where it stands."""

    text: str
    """The text after quotes, escapes and variables; a reference without a value stays as it was written."""
    place: Place
    """Where the word begins; of an environment entry where its value begins."""
    origin: str = "command"
    """Where it came from: `command`, `environment`, `env_file NAME`, `ConfigMap NAME`, `Secret NAME`, `image`, ..."""
    known: bool = True
    """False when the text holds a reference whose value is not in the file."""
    missing: tuple[str, ...] = ()
    """Names of the references without a value, in order; what has no name (a template) is not listed."""
    length: int = 0
    """Characters the word takes on its line as written, for carets and fixes; 0 when that is not known."""
    defaulted: tuple[str, ...] = ()
    """Variables whose default (`${NAME:-default}`) was taken because nothing sets them."""
    key: Place | None = None
    """Of an environment entry where its name stands; None for other words."""

    quote: int = 0
    """Characters of the quote it stands in, before its text; two for a quote within a string of JSON."""

    @property
    def spot(self) -> Place:
        """Where its text begins, behind the quote."""
        return Place(self.place.file, self.place.line, self.place.column + self.quote) if self.quote else self.place

    @property
    def bare(self) -> Value:
        """It without the quotes around it."""
        if not self.quote:
            return self
        return replace(self, place=self.spot, length=max(self.length - self.quote - 1, 0), quote=0)

    @property
    def number(self) -> int | None:
        """The whole number it is, if it is known and one."""
        return whole_number(self.text) if self.known else None


@dataclass(frozen=True, slots=True)
class Port:
    """One statement that a port of the server is reached."""

    kind: str
    """`publish` (host to container), `container` (Kubernetes containerPort), `service`, `platform`, `expose`."""
    container: Value | None
    """The port inside the container, a number or a name; None when the engine picks or nothing is said."""
    host: Value | None = None
    """The port outside; None when it is not stated."""
    name: str | None = None
    """Name of the port, where it has one."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Storage at a path of the container."""

    kind: str
    """`bind`, `volume`, `anonymous`, `pvc`, `emptyDir`, `memory` (emptyDir in RAM, tmpfs), `ephemeral`, `configMap`,
    `secret`, `platform` or `unknown`."""
    target: Value
    """Path in the container."""
    source: Value | None = None
    """Folder of the host, or name of the volume or claim; None where it has neither."""
    size: Value | None = None
    """Size limit, where one is stated."""
    read_only: bool = False
    """Whether it cannot be written to."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs the container is given."""

    asked: str
    """`all`, `count`, `ids`, `none` or `unknown` (stated by a reference without a value)."""
    how: str = ""
    """`flag`, `reservation`, `runtime`, `device`, `limits`, `requests` (Kubernetes: requests alone) or `platform`."""
    value: Value | None = None
    """The word that asks."""
    count: int | None = None
    """How many; None for `all` and what is unknown."""
    ids: tuple[str, ...] = ()
    """Device ids, for `ids`."""
    vendor: str = "nvidia"
    """`nvidia`, `amd`, `intel` or `habana`; what the resource, driver or device node says."""
    limits: Value | None = None
    """Kubernetes: the count under limits."""
    requests: Value | None = None
    """Kubernetes: the count under requests."""
    profile: str = ""
    """Profile of the MIG slices asked for (`1g.10gb`); empty for whole cards, and where only their ids are given."""

    @property
    def sliced(self) -> bool:
        """Whether MIG slices are given, and not whole cards: by their profile, `MIG-...` or `0:0` (card:slice)."""
        return bool(self.profile) or any(re.match(r"MIG-|mig|\d+:\d+$", one) for one in self.ids)


NO_GPUS = Gpus("none")
"""Nothing asks for a GPU."""
UNSAID = Gpus("unknown")
"""The file is not the place where GPUs are asked for (a bare command, an environment file, a chart's values)."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A check that decides whether the container counts as started, ready or alive."""

    kind: str
    """`startup`, `readiness`, `liveness` or `healthcheck` (Docker)."""
    action: str
    """`http`, `tcp`, `grpc`, `exec` or `none` (switched off)."""
    place: Place
    """Where it stands."""
    path: Value | None = None
    """Path asked for over HTTP."""
    port: Value | None = None
    """Port asked, a number or the name of a container port."""
    words: tuple[Value, ...] = ()
    """Command of an `exec` or Docker check."""
    initial_delay: float | None = None
    """Seconds before the first check (Kubernetes initialDelaySeconds, Docker start_period); None when not stated,
    infinite where the file leaves it to something else, as the numbers below."""
    period: float | None = None
    """Seconds between checks."""
    timeout: float | None = None
    """Seconds one check may take."""
    failures: float | None = None
    """Failures in a row that count."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a platform waits for something of the start."""

    what: str
    """`start` (until the server answers) or `download` (of a model archive that the platform fetches)."""
    by: str
    """Who waits: `SageMaker`, `Vertex AI`, `Cloud Run`, or `the platform`."""
    name: str
    """Name of the setting, as written."""
    value: Value
    """Its value."""
    seconds: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What the file says of the hardware beside a GPU request."""

    kind: str
    """`gpu` (name of a GPU), `instance` (cloud instance type) or `memory` (least memory of a GPU)."""
    value: Value
    """Its words: `nvidia-l4`, `ml.g5.12xlarge`, `48GB`."""
    count: int | None = None
    """GPUs it stands for, where the file says so."""


@dataclass(frozen=True, slots=True)
class Server:
    """One TGI server a file starts."""

    form: str
    """`compose`, `kubernetes`, `docker-run`, `launcher` (a bare launcher command), `env`, `sagemaker`, `systemd`,
    `sky`, `dstack`, `helm`, `platform` (another platform's container), `dockerfile` (the image that is
    built), `spec`."""
    name: str
    """Name of the service, container or resource; empty when it has none."""
    place: Place
    """Where it begins: the service, container or command."""
    image: Value | None = None
    """Container image; None when the file does not name one."""
    entry: Value | None = None
    """The launcher (or entry point) named on the command line; None when the image's own entry point runs."""
    args: tuple[Value, ...] = ()
    """Arguments of the launcher, in order, without the launcher itself."""
    env: Mapping[str, Value] = field(default_factory=_nothing)
    """Environment of the container by name; the last entry of a name wins as the engine has it."""
    overridden: tuple[tuple[str, Value], ...] = ()
    """Environment entries of a name that a later entry replaces."""
    secret_env: Mapping[str, Value] = field(default_factory=_nothing)
    """Variables whose value comes from outside the file: a Secret, the caller's shell. Name to the reference."""
    env_sources: tuple[Value, ...] = ()
    """Whole sources of environment that could not be read (an env_file, a ConfigMap of another file)."""
    ports: tuple[Port, ...] = ()
    """Ports published, declared or targeted."""
    mounts: tuple[Mount, ...] = ()
    """Storage in the container."""
    gpus: Gpus = NO_GPUS
    """GPUs asked for."""
    shm_size: Value | None = None
    """Size of /dev/shm as written; None when not stated (a `memory` mount on /dev/shm also sets it)."""
    memory_limit: Value | None = None
    """Host memory the container may use, as written."""
    memory_request: Value | None = None
    """Host memory reserved, as written."""
    devices: tuple[Value, ...] = ()
    """Device nodes."""
    cap_add: tuple[Value, ...] = ()
    """Added capabilities."""
    security_opt: tuple[Value, ...] = ()
    """Security options."""
    group_add: tuple[Value, ...] = ()
    """Added groups."""
    privileged: Value | None = None
    """The word that makes it privileged; None when it is not."""
    runtime: Value | None = None
    """Container runtime or Kubernetes runtime class."""
    ipc: Value | None = None
    """IPC mode (Kubernetes hostIPC: `host`)."""
    network: Value | None = None
    """Network mode (Kubernetes hostNetwork: `host`)."""
    user: Value | None = None
    """User it runs as."""
    platform: Value | None = None
    """Architecture asked for (`linux/arm64`)."""
    workdir: Value | None = None
    """Working directory."""
    probes: tuple[Probe, ...] = ()
    """Health checks."""
    waits: tuple[Wait, ...] = ()
    """How long its platform waits for its start, where the file says it; a manifest's probes are `probes`."""
    restart: Value | None = None
    """Restart policy as written."""
    replicas: Value | None = None
    """Number of copies as written."""
    beside: int = 0
    """Other containers of the same pod or network, which may answer on ports of their own."""
    hints: tuple[Hint, ...] = ()
    """Hardware named beside the GPU request."""
    around: tuple[str, ...] = ()
    """What is said of it that has nothing to do with TGI, in words: a namespace, where it may run, who it runs as."""
    notes: tuple[str, ...] = ()
    """What the reader wants said with any finding: which controller, what was left out."""
    unknown: tuple[str, ...] = ()
    """What could not be known, one sentence each, every thing once."""

    @property
    def values(self) -> tuple[Value, ...]:
        """Every word that decides how the server starts: the image, the arguments, the environment."""
        return (*((self.image,) if self.image else ()), *self.args, *self.env.values())

    def with_values(self, change: Callable[[Value], Value]) -> Server:
        """The server with each of these words changed; itself where none is."""
        if all(change(value) is value for value in self.values):
            return self
        return replace(
            self,
            image=change(self.image) if self.image else None,
            args=tuple(map(change, self.args)),
            env={name: change(value) for name, value in self.env.items()},
        )


@dataclass(frozen=True, slots=True)
class Defect:
    """Something wrong with the file itself, whatever TGI would say."""

    kind: str
    """Stable name, one of `DEFECTS`."""
    message: str
    """What is wrong, one sentence."""
    place: Place
    """Where."""
    hint: str | None = None
    """What to do about it."""
    length: int = 0
    """Characters to mark."""
    severity: Literal["error", "warning", "info"] | None = None
    """How bad it is where it stands; None for what its rule says."""


DEFECTS = (
    "yaml-syntax", "duplicate-yaml-key", "yaml-folded-backslash", "yaml-unknown-alias", "too-deep",
    "trailing-space-after-backslash", "broken-line-continuation", "shell-syntax", "shell-placeholder",
    "shell-tilde-not-expanded", "shell-never-set", "docker-flag-swallowed", "docker-flag-early", "docker-value-alone",
    "dockerfile-syntax-in-shell", "compose-not-read", "k8s-missing-selector", "k8s-selector-mismatch", "spec",
    "ignore-comment",
)  # fmt: skip
"""Every kind of `Defect`."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read."""

    file: str
    """Name as given."""
    text: str = field(repr=False)
    """All of it, for excerpts."""
    form: str
    """What it is: `compose`, `kubernetes`, `yaml`, `script`, `text`, `env`, `python`, `systemd`, `dockerfile`,
    `spec` or `none`."""
    servers: tuple[Server, ...] = ()
    """Every TGI server in it, in the order of the file."""
    defects: tuple[Defect, ...] = ()
    """Defects of the file, in order; only given for a file that has to do with TGI."""
    stated: Mapping[str, str] = field(default_factory=dict)
    """Images that comments say are TGI's, with the tag its own image would have."""
