"""The commands: parse, call, print, exit code. What they do lives below this layer.

Nothing heavy is imported here at module level: `--help` has to be quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from tgi_advisor import __version__
from tgi_advisor.cli import options
from tgi_advisor.cli.group import AdvisorGroup
from tgi_advisor.cli.options import as_json, takes_spec, takes_specs
from tgi_advisor.cli.output import colour, exit_code, progress, say, width
from tgi_advisor.errors import UsageError
from tgi_advisor.render import FORMATS

if TYPE_CHECKING:
    from tgi_advisor.api import Together
    from tgi_advisor.plan import Plan
    from tgi_advisor.spec.records import Spec
    from tgi_advisor.spec.schema import Names


@click.group(
    cls=AdvisorGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
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
@takes_specs
@options.allow_risk
@options.speed
@options.brief
@click.option(
    "--patch",
    is_flag=True,
    help="Write the limits into the one file given, a spec or any `validate` reads, and no more.",
)
@click.option("--diff", is_flag=True, help="With --patch: only show the change.")
@click.option("--server", metavar="NAME", help="With --patch: which server of a file with several, by name or number.")
@options.engine
@as_json
def advise(
    as_json: bool, brief: bool, allow_risk: bool, engine: str | None, patch: bool, diff: bool, server: str | None,
    specs: tuple[str, ...],
    model: str | None, gpu: str | None,
    count: int | None, release: str | None, sets: tuple[str, ...], **rest: Any,
) -> int:  # fmt: skip
    """Search the largest token limits that fit, and show the plan.

    Limits the spec pins or bounds are respected. Limits that start but are at risk of running out of memory
    under load are only given where nothing else fits, or with --allow-risk. Ends with the docker command that
    runs the plan. `tgi-advisor explain` says what the rows are.

    Several specs, in several files or as documents of one, are servers on one machine: those on one GPU
    share its memory, and start in the order given.

    A model without a GPU, or a GPU without a model, is answered as `fits` answers it.

    \b
    Examples:
      tgi-advisor advise llama.yaml
      tgi-advisor advise -m Qwen/Qwen2.5-7B-Instruct -g g6.xlarge --context 16k --users 20
      tgi-advisor advise compose.yaml --gpu nvidia-l4 --patch --diff
    """
    if engine is not None:
        if patch or diff or server is not None:
            raise UsageError("--engine and --patch exclude each other", "`migrate` writes a file for another engine.")
        return _on_engine(engine, specs, model, gpu, count, release, sets, as_json, brief, search=True, **rest)
    if patch:
        where = {"model": model, "gpu": gpu, "count": count, "release": release, "server": server, "write": not diff}
        return _patch(specs, options.with_risk(sets, allow_risk), as_json, brief, where, rest)
    if diff or server is not None:
        raise UsageError(f"{'--diff' if diff else '--server'} belongs to --patch", "Add --patch, or leave it out.")
    if not any(specs) and options.half_named(model, gpu, sets) and rest["method"] == "tgi":
        from tgi_advisor.cli.choose import what_fits

        where = {name: rest[name] for name in ("source", "offline")}
        return what_fits(
            "json" if as_json else "text", model=model, gpu=gpu, count=count, release=release,
            sets=options.with_risk(sets, allow_risk), **where,
        )  # fmt: skip
    asked = options.specs_of(specs, model, gpu, count, release, options.with_risk(sets, allow_risk))
    if len(asked) > 1:
        return _show_together(_together(asked, **rest), as_json)
    return _show(_made("advise", asked[0], **rest), as_json, brief)


@cli.command()
@takes_spec
@options.speed
@options.engine
@options.brief
@as_json
def predict(as_json: bool, brief: bool, engine: str | None, **asked: Any) -> int:
    """Say what TGI will do with exactly what the spec says.

    No search: limits left out are left to TGI, so this shows what its own defaults become. TGI
    refuses (with its own message), runs out of memory (while loading or at warm-up), or starts.
    """
    if engine is not None:
        specs = (asked.pop("spec") or "",)
        return _on_engine(engine, specs, as_json=as_json, brief=brief, search=False, **asked)
    return _show(_plan("predict", **asked), as_json, brief)


@cli.command()
@takes_specs
@click.option(
    "--format", "-f", "name", type=click.Choice(list(FORMATS)), default="docker-run", show_default=True,
    metavar="NAME", help=f"What to print: {', '.join(FORMATS)}.",
)  # fmt: skip
@click.option("--output", "-o", type=click.Path(), help="Folder for a format of several files (helm).")
@click.option("--as-given", is_flag=True, help="Do not search: emit the limits the spec says.")
@options.allow_risk
def emit(
    name: str, output: str | None, as_given: bool, allow_risk: bool, specs: tuple[str, ...], model: str | None,
    gpu: str | None, count: int | None, release: str | None, sets: tuple[str, ...], **rest: Any,
) -> int:  # fmt: skip
    """Print the deployment for Docker, Kubernetes or a platform.

    What the format has no words for, comments in it and standard error say; what its platform does not have is
    refused (docs/platforms.md).

    \b
    Examples:
      tgi-advisor emit llama.yaml --format kubernetes | kubectl apply -f -
      tgi-advisor emit llama.yaml --format skypilot > sky.yaml
      tgi-advisor emit llama.yaml --format helm --output chart
      tgi-advisor emit llama.yaml --format systemd | sudo tee /etc/systemd/system/llama.service

    Several specs become one Compose file, in which each server starts when the one before it answers. When it
    would not start, standard output stays empty and standard error says why.
    """
    from tgi_advisor import render
    from tgi_advisor.report import page

    asked = options.specs_of(specs, model, gpu, count, release, options.with_risk(sets, allow_risk))
    if output is not None and (name != "helm" or len(asked) > 1):
        raise UsageError("--output is for --format helm of one spec", "Leave it out, and redirect standard output.")
    if len(asked) > 1:
        return _emit_together(asked, name, as_given, **rest)
    plan = _made("predict" if as_given else "advise", asked[0], **rest)
    if plan.prediction.outcome == "starts" and plan.container is not None:
        if output is None:
            say(render.render(plan.container, name), nl=False)
        else:
            _write_all(output, render.files(plan.container, name))
        if (left_out := render.note(plan.container, name)) is not None:
            say(left_out, err=True)
        for one in plan.facts.notes:
            say(f"Note: {one}", err=True)
    else:
        say(page(plan, None, width=width()), err=True, nl=False)
    return exit_code(plan)


def _emit_together(asked: list[Spec], name: str, as_given: bool, **rest: Any) -> int:
    """Print several servers of one machine as one file; the worst plan's exit code."""
    from tgi_advisor import render
    from tgi_advisor.report import packing_page

    if as_given:
        raise UsageError(
            "--as-given emits one spec", "Servers on one machine are planned together; leave it out, or name one spec."
        )
    packing, plans = _together(asked, **rest)
    containers = [plan.container for plan in plans if plan.container is not None]
    if packing.fits and len(containers) == len(plans):
        say(render.together(containers, name), nl=False)
        for one in dict.fromkeys((*packing.notes, *(note for plan in plans for note in plan.facts.notes))):
            say(f"Note: {one}", err=True)
    else:
        say(packing_page(packing, plans, [None] * len(plans), width=width()), err=True, nl=False)
    return max(map(exit_code, plans))


@cli.command()
@options.model
@options.gpu
@options.count
@options.release
@click.option("--memory", metavar="SIZE", help="Memory of one GPU, or of a CPU's container, e.g. 64GiB.")
@click.option("--output", "-o", type=click.Path(), help="Write here instead of standard output.")
@click.option("--schema", "with_schema", is_flag=True, help="Write spec.schema.json beside it: editors complete by it.")
def init(
    model: str | None, gpu: str | None, count: int | None, release: str | None, memory: str | None,
    output: str | None, with_schema: bool,
) -> None:  # fmt: skip
    """Write a commented starter spec for a model and a GPU.

    Without --gpu it is this machine's.
    """
    from pathlib import Path

    from tgi_advisor.cli.starter import starter

    if model is None:
        raise UsageError("no --model was given", "Give a Hub id (`tgi-advisor models` lists some), or a local folder.")
    text = starter(model, gpu, count, release, memory)
    if output is None:
        say(text, nl=False)
    else:
        _write(output, text, "x")
    if with_schema:
        beside = str(Path(output or ".").parent / SCHEMA_FILE)
        _write(beside, _schema_text("spec"), "w")
        say(f"Wrote {beside}.", err=True)
    if output is not None:
        say(f"Wrote {output}. Next: tgi-advisor advise {output}", err=True)


SCHEMA_FILE = "spec.schema.json"
"""Where a starter says its schema is."""


def _write_all(folder: str, files: Mapping[str, str]) -> None:
    """Write files that are not there yet; UsageError, before the first is written, where one is."""
    from pathlib import Path

    paths = {name: Path(folder) / name for name in files}
    if there := next((path for path in paths.values() if path.exists()), None):
        raise UsageError(f"{there} exists already", "Name another folder, or remove it first.")
    for name, path in paths.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{path.parent} cannot be made: {error.strerror}") from None
        _write(str(path), files[name], "x")
    say(f"Wrote {len(files)} files into {folder}.", err=True)


def _write(path: str, text: str, mode: str) -> None:
    """Write a file, with `x` only where there is none; UsageError says why it cannot be."""
    try:
        with open(path, mode, encoding="utf-8") as file:  # noqa: PTH123  (click hands out a str)
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already", "Name another file, or remove it first.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


cli.elsewhere("tgi_advisor.cli.choose", "fits", "compare", "sweep", "size", "calibrate", "inspect")
cli.elsewhere("tgi_advisor.cli.validate", "validate", "rule", "import")
cli.elsewhere("tgi_advisor.cli.upgrade", "upgrade")
cli.elsewhere("tgi_advisor.cli.migrate", "migrate")
cli.elsewhere("tgi_advisor.cli.launch", "launch", "status", "stop", "history")
cli.json_lines = frozenset({"launch"})
cli.elsewhere("tgi_advisor.cli.explain", "explain")
cli.elsewhere("tgi_advisor.cli.web", "web")
cli.elsewhere("tgi_advisor.cli.tables", "gpus", "releases", "models", "flags")


@cli.command()
@click.argument("what", type=click.Choice(["spec", "plan"]), default="spec")
def schema(what: str) -> None:
    """Print the JSON Schema of the spec, or of the plan.

    An editor completes and checks a spec with the first; --json prints what the second describes.
    """
    say(_schema_text(what), nl=False)


def _schema_text(what: str) -> str:
    """The schema of the spec or of the plan, as a file."""
    import json

    if what == "plan":
        from tgi_advisor.report_schema import plan_schema

        document = plan_schema()
    else:
        from tgi_advisor.spec.schema import json_schema

        document = json_schema(_names())
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _names() -> Names:
    """What an editor offers in a spec."""
    from tgi_advisor.facts import flags
    from tgi_advisor.facts.release import all_releases
    from tgi_advisor.spec.schema import Names

    releases = all_releases()
    declared = {flag.name: flag.help for release in releases for flag in flags.flags_of(release).values()}
    variables = {one.name: one for release in releases for one in flags.environment(release).values()}
    return Names(
        tuple(options.model_names()),
        tuple(options.gpu_names()),
        tuple(release.name for release in reversed(releases)),
        declared,
        {name: one.meaning for name, one in variables.items() if not one.secret},
    )


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  source <(tgi-advisor completion bash)
    zsh:   source <(tgi-advisor completion zsh)
    fish:  tgi-advisor completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"there is no completion for {shell}")
    say(kind(cli, {}, "tgi-advisor", "_TGI_ADVISOR_COMPLETE").source())


def _on_engine(
    engine: str, specs: tuple[str, ...], model: str | None, gpu: str | None, count: int | None, release: str | None,
    sets: tuple[str, ...], as_json: bool, brief: bool, *, search: bool, source: str, offline: bool, method: str,
    speed: tuple[str, ...],
) -> int:  # fmt: skip
    """A deployment that starts on another engine, for people or for programs."""
    from tgi_advisor.cli.migrate import start

    if method != "tgi" or speed:
        raise UsageError(f"--{'speed' if speed else 'method'} is about TGI", "Leave it out, or leave --engine out.")
    asked = options.specs_of(specs, model, gpu, count, release, sets)
    if len(asked) > 1:
        raise UsageError("--engine plans one server", "Name one spec, or a model and a GPU.")
    return start(asked[0], engine, as_json, brief, search=search, source=source, offline=offline)


def _plan(
    how: str,
    spec: str | None,
    model: str | None,
    gpu: str | None,
    count: int | None,
    release: str | None,
    sets: tuple[str, ...],
    **rest: Any,
) -> Plan:
    """The plan of a command line."""
    return _made(how, options.spec_of(spec, model, gpu, count, release, sets), **rest)


def _made(how: str, asked: Spec, **rest: Any) -> Plan:
    """Gather, decide; with a line of progress on a terminal when the Hub takes its time."""
    from tgi_advisor import api

    with _progress() as show:
        return (api.advise if how == "advise" else api.predict)(asked, progress=show, **rest)


def _together(asked: list[Spec], method: str, **rest: Any) -> Together:
    """Several specs planned together."""
    from tgi_advisor import api

    if method != "tgi":
        raise UsageError(f"--method {method} plans one spec at a time", "Leave --method out, or name one spec.")
    with _progress() as show:
        return api.advise_together(asked, progress=show, **rest)


@contextmanager
def _progress() -> Iterator[Callable[[str], None] | None]:
    """A line of progress on a terminal, gone at the end."""
    show = progress()
    try:
        yield show
    finally:
        if show is not None:
            show("")


def _show(plan: Plan, as_json: bool, brief: bool) -> int:
    """A plan, for people or for programs."""
    if as_json:
        import json

        from tgi_advisor.report import document

        say(json.dumps(document(plan), indent=2, ensure_ascii=False))
    else:
        from tgi_advisor.render import render
        from tgi_advisor.report import page

        command = render(plan.container, "docker-run") if plan.container else None
        say(page(plan, command, width=width(), colour=colour(), brief=brief), nl=False)
    return exit_code(plan)


def _patch(
    specs: tuple[str, ...], sets: tuple[str, ...], as_json: bool, brief: bool, where: dict[str, Any],
    rest: dict[str, Any],
) -> int:  # fmt: skip
    """Limits that fit, written into a file that is there already."""
    from tgi_advisor import patching
    from tgi_advisor.safe import printable, unobeyed

    if len(specs) != 1 or not specs[0]:
        raise UsageError("--patch writes into one file", "Name a spec, a Compose file, a manifest, a script, …")
    if rest["method"] != "tgi" or rest["speed"]:
        raise UsageError("--patch writes what TGI's own sum gives", "Leave --method and --speed out.")
    with _progress() as show:
        found = patching.patch(
            specs[0], fields=sets, source=rest["source"], offline=rest["offline"], progress=show, **where
        )
    if as_json:
        import json

        say(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return exit_code(found.plan)
    from tgi_advisor.report import page

    say(page(found.plan, None, width=width(), colour=colour(), brief=brief), nl=False)
    if found.server and found.plan.prediction.outcome == "starts":
        say(f"\nFor {printable(found.server)}:")
    if found.diff:
        say("\n" + unobeyed(printable(found.diff, keep="\n\t")), nl=False)
    elif found.plan.prediction.outcome == "starts":
        say(f"\n{printable(found.file)} has these limits already.")
    if found.errors:
        say("\nThe limits fit, but `validate` finds more in this file, and the server may stop at it:")
        say(unobeyed("\n".join(f"  {printable(one)}" for one in found.errors)))
    return exit_code(found.plan)


def _show_together(together: Together, as_json: bool) -> int:
    """Several plans and how they share the machine; the worst plan's exit code."""
    from tgi_advisor import report

    packing, plans = together
    if as_json:
        import json

        say(json.dumps(report.packing_document(packing, plans), indent=2, ensure_ascii=False))
    else:
        from tgi_advisor.render import render

        commands = [render(plan.container, "docker-run") if plan.container else None for plan in plans]
        say(report.packing_page(packing, plans, commands, width=width(), colour=colour()), nl=False)
    return max(map(exit_code, plans))
