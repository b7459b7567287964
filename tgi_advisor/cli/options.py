"""Options several commands share, and the spec they add up to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tgi_advisor.errors import Exit, UsageError

if TYPE_CHECKING:
    from tgi_advisor.spec.records import Spec

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {code.meaning}" for code in Exit)


def _complete(names: Callable[[], list[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Shell completion from a list that is only made when the shell asks."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in names() if name.lower().startswith(incomplete.lower())]

    return complete


def _models() -> list[str]:
    from tgi_advisor.gather import snapshot

    return list(snapshot.names())


def _gpus() -> list[str]:
    from tgi_advisor.facts.gpu import all_gpus

    return [name for row in all_gpus() for name in (row.name, *(kind for kind, _ in row.instances))]


def _releases() -> list[str]:
    from tgi_advisor.facts.release import all_releases

    return [release.name for release in all_releases()]


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    ctx.meta["tgi_advisor.json"] = value
    return value


as_json = click.option(
    "--json", "as_json", is_flag=True, is_eager=True, callback=_remember_json,
    help="Print one JSON object (docs/json.md).",
)  # fmt: skip

_SPEC = (
    click.argument("spec", metavar="[SPEC]", required=False, type=click.Path(allow_dash=True)),
    click.option("--model", "-m", metavar="ID", help="Hub id or local folder.", shell_complete=_complete(_models)),
    click.option(
        "--gpu", "-g", metavar="NAME", help="GPU name, cloud instance type, or auto.", shell_complete=_complete(_gpus)
    ),
    click.option("--count", "-n", metavar="N", help="GPUs the container sees."),
    click.option(
        "--release", "-r", metavar="X.Y.Z", help="TGI release; default the newest.", shell_complete=_complete(_releases)
    ),
    click.option(
        "--set", "sets", metavar="PATH=VALUE", multiple=True,
        help="Set any field of the spec, e.g. --set limits.max_total_tokens=8k. Repeatable, last wins.",
    ),
    click.option(
        "--source", type=click.Choice(["auto", "hub", "cache", "snapshot", "folder"]), default="auto",
        show_default=True, help="Where to look for the model's facts.",
    ),
    click.option("--offline", is_flag=True, help="Never use the network (as HF_HUB_OFFLINE=1)."),
    click.option(
        "--method", type=click.Choice(["tgi", "notebook", "notebook-tgi"]), default="tgi", show_default=True,
        help="TGI's own sum, or one of the notebook's formulas (docs/notebook.md).",
    ),
)  # fmt: skip


def takes_spec(command: Command) -> Command:
    """Adds the SPEC argument and everything that can stand in for it."""
    for option in reversed(_SPEC):
        command = option(command)
    return command


def spec_of(
    spec: str | None, model: str | None, gpu: str | None, count: str | None, release: str | None, sets: tuple[str, ...]
) -> Spec:
    """The spec a command line adds up to: the file, the options over it, `--set` over both."""
    from tgi_advisor.spec import reader

    given = (("model.id", model), ("hardware.gpu", gpu), ("hardware.count", count), ("tgi.release", release))
    assignments = [(path, value) for path, value in given if value is not None]
    if spec is None:
        if model is None or gpu is None:
            raise UsageError(
                "no deployment was named",
                "Give a SPEC file (`-` for standard input), or --model and --gpu. "
                "`tgi-advisor init` writes a SPEC to start from.",
            )
        return reader.build(assignments, "command line", None, sets)
    if not assignments:
        return reader.read_file(spec, sets)
    return reader.build(assignments, "command line", reader.read_file(spec), sets)


def progress() -> Callable[[str], None] | None:
    """A line on standard error that is overwritten, on a terminal; None elsewhere."""
    import sys

    if not sys.stderr.isatty():
        return None

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{text}" if text else "\r\x1b[2K")
        sys.stderr.flush()

    return show


def width() -> int:
    """Columns to write for: the terminal's, or 100 where there is none."""
    import shutil

    return max(72, min(140, shutil.get_terminal_size((100, 24)).columns))


def colour() -> bool:
    """Colour on a terminal, unless NO_COLOR says otherwise."""
    import os
    import sys

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
