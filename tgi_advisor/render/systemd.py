"""A systemd unit that runs the container with Docker (systemd.service(5), systemd.exec(5)).

- No shell reads the command: words are in double quotes, `%` and `$` are doubled (systemd.syntax(7)).
- A relative folder lies below the unit's state directory, /var/lib/NAME.
- The token stands in a file that only root can read, and reaches Docker by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tgi_advisor.marks import starts
from tgi_advisor.plan import Container, Mount
from tgi_advisor.render.docker_run import host_side
from tgi_advisor.render.kubernetes import GRACE
from tgi_advisor.render.platform import commented, kept

DOCKER = "/usr/bin/docker"
INDENT = " \\\n    "


def render(container: Container) -> str:
    """The unit, for /etc/systemd/system/NAME.service."""
    name, secrets = container.name, _secrets(container)
    head = [
        f"sudo cp FILE /etc/systemd/system/{name}.service && sudo systemctl daemon-reload",
        *(f"The token first: printf '{inside}=%s\\n' \"${caller}\" | sudo install -m 600 /dev/stdin {secrets}"
          for inside, caller in container.secret_env.items()),
        f"sudo systemctl enable --now {name}",
        *kept(container, "replicas"),
    ]  # fmt: skip
    lines = [
        "[Unit]",
        f"Description=text-generation-inference ({name})",
        "Requires=docker.service",
        "Wants=network-online.target",
        "After=docker.service network-online.target",
        "",
        "[Service]",
        "Type=exec",
        *([f"EnvironmentFile=-{secrets}"] if container.secret_env else []),
        f"StateDirectory={name}",
        f"ExecStartPre=-{DOCKER} rm --force {name}",
        "ExecStart=" + INDENT.join(_command(container)),
        f"ExecStop={DOCKER} stop --time {GRACE} {name}",
        f"TimeoutStopSec={GRACE + 30}",
        "Restart=on-failure",
        "RestartSec=10",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return commented(head) + "\n".join(lines) + "\n"


def _secrets(container: Container) -> str:
    """The file that holds the token."""
    return f"/etc/{container.name}.env"


def _command(container: Container) -> Iterator[str]:
    """`docker run`, one option to a line."""
    yield f"{DOCKER} run --rm"
    for option, value in _options(container):
        yield f"{option} {value}" if value else option
    yield _word(container.image)
    line: list[str] = []
    for word in container.args:
        if word.startswith("--") and line:
            yield " ".join(line)
            line = []
        line.append(_word(word))
    if line:
        yield " ".join(line)


def _options(container: Container) -> Iterator[tuple[str, str]]:
    """Options of `docker run` with their values, quoted."""
    yield "--name", container.name
    if container.gpus is not None:
        yield "--gpus", _word(container.gpus if isinstance(container.gpus, str)
                              else f'"device={",".join(container.gpus)}"')  # fmt: skip
    if container.runtime:
        yield "--runtime", _word(container.runtime)
    if container.privileged:
        yield "--privileged", ""
    for option, values in (
        ("--device", container.devices),
        ("--cap-add", container.cap_add),
        ("--security-opt", container.security_opt),
        ("--group-add", container.group_add),
    ):
        yield from ((option, _word(value)) for value in values)
    if container.ipc:
        yield "--ipc", _word(container.ipc)
    yield "--shm-size", _word(container.shm_size)
    yield "-p", f"{container.port}:{container.container_port}"
    yield from (_mount(mount, container.name) for mount in container.mounts)
    for name, value in {**container.device_env, **container.env}.items():
        yield "-e", _word(value, f"{name}=")
    yield from (("-e", name) for name in container.secret_env)


def _mount(mount: Mount, name: str) -> tuple[str, str]:
    """`-v`, or `--mount` where a colon in the source would be taken for the separator."""
    start, rest = host_side(mount, "%h", f"%S/{name}")
    if ":" not in mount.source:
        return "-v", _word(f"{rest}:{mount.target}{':ro' if mount.read_only else ''}", start)
    doubled = rest.replace('"', '""')
    end = f'{doubled}",target={mount.target}{",readonly" if mount.read_only else ""}'
    return "--mount", _word(end, f'type=bind,\\"source={start}')


_BARE = re.compile(r"[A-Za-z0-9_@%+=:,./-]+", re.ASCII)
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}


def _word(text: str, before: str = "") -> str:
    """A word as a unit has it, behind a beginning that is written in the unit's own way."""
    marks = {start for start in starts(text) if text[start] != "%"}  # which is written twice
    written = before + "".join(_coded(one) if at in marks else _character(one) for at, one in enumerate(text))
    return written if written and _BARE.fullmatch(written) else f'"{written}"'


def _character(one: str) -> str:
    if one in _ESCAPES:
        return _ESCAPES[one]
    return one if one.isprintable() else _coded(one)


def _coded(one: str) -> str:
    number = ord(one)
    if one == "$":
        return "$$"
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
