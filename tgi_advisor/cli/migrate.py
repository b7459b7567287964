"""`migrate`: a TGI deployment as vLLM or SGLang would run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tgi_advisor.cli import options
from tgi_advisor.cli.output import colour, progress, say, width
from tgi_advisor.errors import Exit, UsageError

if TYPE_CHECKING:
    from tgi_advisor.engines.migrate import Migration
    from tgi_advisor.spec.records import Spec

FORMATS = ("docker-run", "compose", "kubernetes", "args", "json")


@click.command()
@click.argument("file", metavar="[FILE|SPEC]", required=False, type=click.Path(allow_dash=True))
@click.option("--to", "engine", type=click.Choice(options.ENGINES), required=True, help="The engine to move to.")
@click.option("--engine-version", metavar="X.Y.Z", help="Its version; default the newest whose flags are known.")
@click.option("--server", metavar="NAME", help="Which server, where the file has several: its name or number.")
@click.option(
    "--format", "-f", "name", type=click.Choice(FORMATS), default="docker-run", show_default=True,
    help="How the deployment is written.",
)  # fmt: skip
@click.option("--only", is_flag=True, help="Print the deployment alone, ready for a file.")
@options.brief
@options.model
@options.gpu
@options.count
@options.release
@options.sets
@options.source
@options.offline
@options.as_json
def migrate(file: str | None, engine: str, only: bool, brief: bool, as_json: bool, name: str, **asked: Any) -> int:
    """Write a TGI deployment for vLLM or SGLang.

    FILE is a spec, or a Compose file, Kubernetes manifest, docker run line or whatever else `import` reads. Every
    argument is translated, with the reason; what has no equivalent is said. The engine's start-up sum is predicted,
    and its memory setting chosen so that the KV cache holds what TGI's holds today.

    \b
    Examples:
      tgi-advisor migrate compose.yaml --to vllm
      tgi-advisor migrate llama.yaml --to sglang --format kubernetes --only > sglang.yaml
      tgi-advisor migrate -m Qwen/Qwen2.5-7B-Instruct -g nvidia-l4 --to vllm --json

    Ends with 0 where the engine keeps today's promise, 13 where it serves less, 5 or 6 where it would not start.
    """
    if only and as_json:
        raise UsageError("--only and --json exclude each other", "--json holds the container as well.")
    found = _found(file, engine, **asked)
    if only:
        shown = _rendered(found, name)
        from tgi_advisor.engines.page import verdict

        if shown is not None:
            say(shown, nl=False)
        say(verdict(found), err=True)
        for one in (*found.refusals, *found.warnings):
            say(f"Note: {one}", err=True)
        return exit_code(found)
    return _show(found, name, as_json, brief)


def start(spec: Spec, engine: str, as_json: bool, brief: bool, *, search: bool, source: str, offline: bool) -> int:
    """What `advise --engine` (with `search`) and `predict --engine` print, and what they end with."""
    from tgi_advisor import api

    show = progress()
    try:
        found = api.on_engine(spec, engine, search=search, source=source, offline=offline, progress=show)  # type: ignore[arg-type]
    finally:
        if show is not None:
            show("")
    return _show(found, "docker-run", as_json, brief)


def _show(found: Migration, name: str, as_json: bool, brief: bool) -> Exit:
    """A migration, for people or for programs."""
    from tgi_advisor.engines import page

    if as_json:
        import json

        say(json.dumps(page.document(found), indent=2, ensure_ascii=False))
    else:
        shown = _rendered(found, name)
        say(page.page(found, shown, width=width(), colour=colour(), brief=brief), nl=False)
    return exit_code(found)


def exit_code(found: Migration) -> Exit:
    """What a migration ends with."""
    codes = {"refused": Exit.REFUSED, "out_of_memory": Exit.OUT_OF_MEMORY, "less": Exit.LESS}
    return codes.get(found.verdict, Exit.STARTS)


def _rendered(found: Migration, name: str) -> str | None:
    """The deployment in a format; None when it would not run."""
    from tgi_advisor import render

    return render.render(found.container, name) if found.container is not None else None


def _found(
    file: str | None, engine: str, engine_version: str | None, server: str | None, model: str | None, gpu: str | None,
    count: int | None, release: str | None, sets: tuple[str, ...], source: str, offline: bool,
) -> Migration:  # fmt: skip
    """The migration of what the command line names."""
    from tgi_advisor import api, lint
    from tgi_advisor.engines.page import notes_of

    text, notes, found_limits = "", tuple[str, ...](), True
    if file and file != "-" and not lint.is_spec(file):  # standard input is a spec, as everywhere
        yaml = lint.import_server(file, server, gpu=gpu, count=count, release=release, model=model)
        asked, notes, found_limits = _imported(yaml, file, model, sets), tuple(notes_of(yaml)), False
        text = lint.text_of(file)
    else:
        asked = options.spec_of(file, model, gpu, count, release, sets)
    show = progress()
    try:
        return api.migrate(
            asked, engine, engine_version, search=found_limits, source=source, offline=offline, progress=show,  # type: ignore[arg-type]
            text=text, notes=notes,
        )  # fmt: skip
    finally:
        if show is not None:
            show("")


def _imported(yaml: str, file: str, model: str | None, sets: tuple[str, ...]) -> Spec:
    """The spec of a server in somebody's file, with what the command line lays over it."""
    from tgi_advisor.spec import reader

    given = [("model.id", model)] if model is not None else []
    return reader.build(given, "command line", reader.read_text(yaml, file), sets)
