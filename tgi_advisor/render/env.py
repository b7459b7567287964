"""An environment file for `docker run --env-file`, which alone starts the same server.

Docker takes each line as it stands: no quotes, no escapes, everything after the first `=` is the
value, and a name without `=` is passed on from the caller's environment when it is set there
(https://docs.docker.com/reference/cli/docker/container/run/#env). Compose's `env_file` reads quotes
and `$` in another way; use the `compose` format there.
"""

from __future__ import annotations

from tgi_advisor.errors import SpecError
from tgi_advisor.plan import Container, Mount
from tgi_advisor.render.platform import kept

LONGEST_LINE = 64 * 1024 - 1
"""Docker reads the file with Go's bufio.Scanner, which gives up at 64 KiB."""


def render(container: Container) -> str:
    """KEY=value lines: the launcher's arguments under their environment names, then the environment.

    SpecError when an argument has no such name or a value cannot stand on one line.
    """
    if container.args_only:
        raise SpecError(
            f"An environment file cannot say {' '.join(container.args_only)!r}: the launcher has no variable for it.",
            "Choose another format, such as docker-run, or leave the flag out.",
        )
    lines = [f"# docker run --env-file FILE {container.image}: these lines replace the launcher's arguments."]
    lines += [f"# What else the server needs is mounted: {_comment(mount)}" for mount in container.mounts[1:]]
    lines += [f"# {line}" for line in kept(container, "port", "cache", "shm_size", "gpus", "name", "replicas")]
    values = {**container.device_env, **container.env, **container.args_env}
    lines += [_line(name, value) for name, value in values.items()]
    for inside, caller in container.secret_env.items():
        if inside != caller:
            lines.append(f'# Start docker with: {inside}="${caller}" docker run ...')
        lines.append(inside)
    return "\n".join(lines) + "\n"


def _comment(mount: Mount) -> str:
    """A mount on one line of a comment."""
    text = f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"
    return text if text.isprintable() else ascii(text)


def _line(name: str, value: str) -> str:
    """`NAME=value`; SpecError for a value Docker would cut short."""
    line = f"{name}={value}"
    if "\n" in value or "\r" in value or len(line.encode()) > LONGEST_LINE:
        raise SpecError(
            f"An environment file cannot hold {name}: its value has line breaks or is longer than 64 KiB.",
            "Choose another format, such as docker-run or compose.",
        )
    return line
