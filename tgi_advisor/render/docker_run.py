"""A `docker run` command for `sh`, one option to a line.

The command works unchanged in sh, bash and zsh. A relative folder becomes `"$PWD"/...`, which Docker
before 23.0 needs. A secret is passed on by name; its value never stands in the command or in the
arguments of a process.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from tgi_advisor.marks import starts
from tgi_advisor.plan import Container, Mount

INDENT = " \\\n    "


def render(container: Container) -> str:
    """The whole command, foreground and removed when it stops."""
    renamed = [f'{inside}="${{{caller}-}}"' for inside, caller in container.secret_env.items() if inside != caller]
    command = " ".join([*renamed, "docker run --rm"])
    return INDENT.join([command, *_options(container), shlex.quote(container.image), *_arguments(container)]) + "\n"


def _options(container: Container) -> Iterator[str]:
    """The options of `docker run`, quoted."""
    yield f"--name {shlex.quote(container.name)}"
    if container.gpus is not None:
        yield f"--gpus {shlex.quote(_gpus(container.gpus))}"
    if container.runtime:
        yield f"--runtime {shlex.quote(container.runtime)}"
    if container.privileged:
        yield "--privileged"
    for option, values in (
        ("--device", container.devices),
        ("--cap-add", container.cap_add),
        ("--security-opt", container.security_opt),
        ("--group-add", container.group_add),
    ):
        yield from (f"{option} {shlex.quote(value)}" for value in values)
    if container.ipc:
        yield f"--ipc {shlex.quote(container.ipc)}"
    yield f"--shm-size {shlex.quote(container.shm_size)}"
    yield f"-p {container.port}:{container.container_port}"
    yield from (_mount(mount) for mount in container.mounts)
    for name, value in {**container.device_env, **container.env}.items():
        yield f"-e {word(f'{name}={value}', len(name) + 1)}"
    for inside, caller in container.secret_env.items():
        # Unset stays unset: an empty token would be sent to the Hub and refused there.
        yield f"-e {inside}" if inside == caller else f"${{{caller}:+--env={inside}}}"


def _arguments(container: Container) -> Iterator[str]:
    """The launcher's arguments, each flag with its value."""
    line: list[str] = []
    for one in container.args:
        if one.startswith("--") and line:
            yield " ".join(line)
            line = []
        line.append(word(one))
    if line:
        yield " ".join(line)


def word(text: str, value: int = 0) -> str:
    """A word as a shell takes it, with a backslash before what looks as if a template began in its value (`marks`)."""
    begun = [value + start for start in starts(text[value:])]
    if not begun:
        return shlex.quote(text)
    parts = [shlex.quote(text[: begun[0]]) if begun[0] else ""]
    for start, end in zip(begun, [*begun[1:], len(text)], strict=True):
        parts += [f"\\{text[start]}", _quoted(text[start + 1 : end])]
    return "".join(parts)


def _quoted(text: str) -> str:
    """A text in quotes, harmless or not."""
    held = text.replace("'", "'\"'\"'")
    return f"'{held}'" if text else ""


def _gpus(gpus: str | tuple[str, ...]) -> str:
    """Value of --gpus; the inner quotes keep the list one field of Docker's comma-separated form."""
    return gpus if isinstance(gpus, str) else f'"device={",".join(gpus)}"'


def _mount(mount: Mount) -> str:
    """`-v source:target`, or `--mount` where a colon in the source would be taken for the separator.

    --mount is read as a line of CSV, hence the quotes inside; unlike -v it wants the folder to exist.
    """
    start, rest = host_side(mount, '"$HOME"', '"$PWD"')
    if ":" not in mount.source:
        source = start + (word(rest) if rest else "")
        return f"-v {source}:{shlex.quote(mount.target)}{':ro' if mount.read_only else ''}"
    doubled = rest.replace('"', '""')
    end = f'{doubled}",target={mount.target}{",readonly" if mount.read_only else ""}'
    return f"""--mount {shlex.quote('type=bind,"source=')}{start}{word(end)}"""


def host_side(mount: Mount, home: str, here: str) -> tuple[str, str]:
    """The host's side of a mount: `home` or `here` where it begins in one of them, and the rest."""
    first, slash, rest = mount.source.partition("/")
    if not mount.is_path or first == "":
        return "", mount.source
    if first == "~":
        return home, slash + rest
    relative = rest if first == "." else mount.source
    return here, f"/{relative}" if relative else ""
