"""`upgrade`: what another release of TGI changes for a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tgi_advisor.cli import options
from tgi_advisor.cli.options import as_json
from tgi_advisor.cli.output import colour, progress, say, width
from tgi_advisor.cli.validate import image_option, memory_option, stated_images
from tgi_advisor.errors import UsageError
from tgi_advisor.safe import named, printable, unobeyed

if TYPE_CHECKING:
    from tgi_advisor.moves import Upgrades
    from tgi_advisor.spec.records import Spec

PREFER = ("same", "better")


@click.command()
@click.argument("file", metavar="[FILE|SPEC]", required=False, type=click.Path(allow_dash=True))
@click.option(
    "--to", metavar="X.Y.Z", help="The release to move to; default the newest.",
    shell_complete=options.complete(options.release_names),
)  # fmt: skip
@click.option(
    "--from", "since", metavar="X.Y.Z", help="The release it runs today, where the file does not say it.",
    shell_complete=options.complete(options.release_names),
)  # fmt: skip
@options.model
@options.gpu
@options.count
@memory_option
@options.sets
@click.option("--server", metavar="NAME", help="Judge one server of a file with several: its name or number.")
@image_option
@click.option(
    "--prefer", type=click.Choice(PREFER), default="same", show_default=True,
    help="State what the old release did by itself, or use the largest limits of the new one that serve no less.",
)  # fmt: skip
@click.option("--releases", "--table", "between", is_flag=True, help="Judge every release on the way too.")
@click.option("--fix", is_flag=True, help="Write image, flags and variables into FILE, and show the change.")
@click.option("--diff", is_flag=True, help="With --fix: only show the change.")
@click.option("--brief", is_flag=True, help="Leave out the parts of the memory that differ.")
@options.source
@options.offline
@as_json
def upgrade(
    file: str | None, as_json: bool, brief: bool, model: str | None, sets: tuple[str, ...], images: tuple[str, ...],
    between: bool, fix: bool, diff: bool, **asked: Any,
) -> int:  # fmt: skip
    """Say what another TGI release changes for a deployment.

    FILE is a deployment spec, or a file with TGI servers as `validate` reads them: Compose, Kubernetes, docker run
    lines and more. For each server: the limits TGI picks in both releases and why the KV cache differs, flags and
    variables that are refused, renamed or ignored, what moves around it, and the spec to go on with.

    Ends with 0 where the new release serves the same or more, 13 where it serves less, 5 or 6 where it does not
    start: FILE as it is with the new release, or with --fix as it then is.

    \b
    Examples:
      tgi-advisor upgrade llama.yaml --from 2.4.1
      tgi-advisor upgrade compose.yaml --gpu nvidia-l4 --to 3.3.7
      tgi-advisor upgrade compose.yaml --gpu nvidia-l4 --prefer better --fix --diff
      tgi-advisor upgrade run.sh --gpu a10g --releases
      tgi-advisor upgrade -m Qwen/Qwen2.5-7B-Instruct -g nvidia-l4 --from 2.4.1 --json
    """
    from tgi_advisor import moves

    if diff and not fix:
        raise UsageError("--diff shows what --fix would change", "Add --fix.")
    spec = _spec(file, model, sets, fix, asked)
    show = progress()
    try:
        found = moves.upgrade(
            spec, images=stated_images(images), releases_between=between, fix=fix, write=not diff, progress=show,
            **asked,
        )  # fmt: skip
    finally:
        if show is not None:
            show("")
    _show(found, as_json, brief=brief)
    return found.exit_code


def _spec(file: str | None, model: str | None, sets: tuple[str, ...], fix: bool, asked: dict[str, Any]) -> Spec | str:
    """What to judge: the file, or a spec of the options, which `--set` may be laid over."""
    if file is not None and not sets and model is None:
        return file
    if fix:
        raise UsageError("--fix mends FILE as it is", "Leave --model and --set out." if file else "Name a FILE.")
    return options.spec_of(file, model, asked["gpu"], asked["count"], None, sets)


def _show(found: Upgrades, as_json: bool, *, brief: bool) -> None:
    if as_json:
        import json

        say(json.dumps(found.to_dict(), indent=2, ensure_ascii=False, default=str))
        return
    from tgi_advisor.upgrades.page import page

    pages = [page(one, width=width(), colour=colour(), brief=brief) for one in found.servers]
    say(unobeyed("\n".join(pages)), nl=False)
    for one in found.unjudged:
        told = f"\n{named(one.name) or 'server'} ({one.place}): not judged: {one.error}"
        say(unobeyed(told))
    if found.diff:
        say("\n" + unobeyed(printable(found.diff, keep="\n\t")), nl=False)
