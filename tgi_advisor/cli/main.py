"""The commands: parse, call, print, exit code. What they do lives below this layer.

Nothing heavy is imported here at module level: `--help` has to be quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tgi_advisor import __version__
from tgi_advisor.cli import tables
from tgi_advisor.cli.group import AdvisorGroup
from tgi_advisor.cli.options import EXIT_CODES, as_json, colour, progress, spec_of, takes_spec, width
from tgi_advisor.errors import Exit, UsageError

if TYPE_CHECKING:
    from tgi_advisor.plan import Plan

FORMATS = ("docker-run", "compose", "kubernetes", "args", "env", "json")


@click.group(
    cls=AdvisorGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, "-V", "--version", prog_name="tgi-advisor")
def cli() -> None:
    """Which max_input_tokens, max_total_tokens and max_batch_prefill_tokens fit your GPU?

    Answers before the weights are downloaded and the GPU is rented, by replaying the memory
    arithmetic of text-generation-inference's own warm-up, release by release.

    \b
    Examples:
      tgi-advisor init --model meta-llama/Llama-3.1-8B-Instruct --gpu nvidia-l4 > llama.yaml
      tgi-advisor advise llama.yaml
      tgi-advisor predict llama.yaml --set tgi.release=2.4.1
      tgi-advisor emit llama.yaml --format compose > compose.yaml
      tgi-advisor advise -m Qwen/Qwen2.5-7B-Instruct -g g6.xlarge --json
    """


@cli.command()
@takes_spec
@as_json
def advise(as_json: bool, **options: Any) -> None:
    """Search the largest token limits that fit, and show the plan.

    Limits the spec pins or bounds are respected. Ends with the docker command that runs the plan.
    """
    _print(_plan("advise", **options), as_json)


@cli.command()
@takes_spec
@as_json
def predict(as_json: bool, **options: Any) -> None:
    """Say what TGI will do with exactly what the spec says.

    No search: limits left out are left to TGI, so this shows what its own defaults become. TGI
    refuses (with its own message), runs out of memory (while loading or at warm-up), or starts.
    """
    _print(_plan("predict", **options), as_json)


@cli.command()
@takes_spec
@click.option("--format", "-f", "name", type=click.Choice(FORMATS), default="docker-run", show_default=True)
@click.option("--as-given", is_flag=True, help="Do not search: emit the limits the spec says.")
def emit(name: str, as_given: bool, **options: Any) -> None:
    """Print the deployment as text on standard output.

    When nothing fits, nothing is printed but the reason, on standard error.
    """
    from tgi_advisor.render import render

    plan = _plan("predict" if as_given else "advise", **options)
    if plan.prediction.outcome == "starts":
        click.echo(render(plan.container, name), nl=False)
    else:
        from tgi_advisor.report import page

        click.echo(page(plan, None, width=width()), err=True, nl=False)
    _exit(plan)


@cli.command()
@click.option("--model", "-m", metavar="ID", required=True, help="Hub id or local folder.")
@click.option("--gpu", "-g", metavar="NAME", help="GPU or cloud instance; default: this machine's.")
@click.option("--count", "-n", metavar="N", type=click.IntRange(1), help="GPUs the container sees.")
@click.option("--release", "-r", metavar="X.Y.Z", help="TGI release; default the newest.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write here instead of standard output.")
def init(model: str, gpu: str | None, count: int | None, release: str | None, output: str | None) -> None:
    """Write a commented starter spec for a model and a GPU."""
    from tgi_advisor.cli.starter import starter

    text = starter(model, gpu, count, release)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with open(output, "x", encoding="utf-8") as file:  # noqa: PTH123  (click hands out a str)
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{output} exists already", "Name another file, or remove it first.") from None
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    click.echo(f"Wrote {output}. Next: tgi-advisor advise {output}", err=True)


@cli.command()
@click.argument("what", type=click.Choice(["spec", "plan"]), default="spec")
def schema(what: str) -> None:
    """Print a JSON Schema: of the spec (for editors), or of the plan (what --json prints)."""
    import json

    if what == "plan":
        from tgi_advisor.report_schema import plan_schema

        document = plan_schema()
    else:
        from tgi_advisor.spec.schema import json_schema

        document = json_schema()
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    For bash:  source <(tgi-advisor completion bash)
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"there is no completion for {shell}")
    click.echo(kind(cli, {}, "tgi-advisor", "_TGI_ADVISOR_COMPLETE").source())


for _command in (tables.gpus, tables.releases, tables.models, tables.flags):
    cli.add_command(_command)


def _plan(
    how: str,
    spec: str | None,
    model: str | None,
    gpu: str | None,
    count: str | None,
    release: str | None,
    sets: tuple[str, ...],
    **options: Any,
) -> Plan:
    """Gather, decide; with a line of progress on a terminal when the Hub takes its time."""
    from tgi_advisor import api

    asked = spec_of(spec, model, gpu, count, release, sets)
    show = progress()
    make = api.advise if how == "advise" else api.predict
    try:
        return make(asked, progress=show, **options)
    finally:
        if show is not None:
            show("")


def _print(plan: Plan, as_json: bool) -> None:
    if as_json:
        import json

        from tgi_advisor.report import document

        click.echo(json.dumps(document(plan), indent=2, ensure_ascii=False))
    else:
        from tgi_advisor.render import render
        from tgi_advisor.report import page

        command = render(plan.container, "docker-run") if plan.prediction.outcome == "starts" else None
        click.echo(page(plan, command, width=width(), colour=colour()), nl=False, color=colour())
    _exit(plan)


def _exit(plan: Plan) -> None:
    codes = {"starts": Exit.STARTS, "refused": Exit.REFUSED, "out_of_memory": Exit.OUT_OF_MEMORY}
    raise click.exceptions.Exit(codes[plan.prediction.outcome])
