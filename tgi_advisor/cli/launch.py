"""The commands that touch the Docker Engine: launch, status, stop, and the history of what launches measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tgi_advisor.cli import options
from tgi_advisor.cli.group import error_body
from tgi_advisor.cli.options import as_json, takes_specs
from tgi_advisor.cli.output import exit_code, progress, say, width
from tgi_advisor.cli.places import PLACES, On, on_place, read
from tgi_advisor.errors import AdvisorError, Exit, UsageError
from tgi_advisor.safe import named

if TYPE_CHECKING:
    from tgi_advisor.cli.live import JsonLines, Lines
    from tgi_advisor.launch.place import Place
    from tgi_advisor.launch.preflight import Host
    from tgi_advisor.launch.records import Launched, Options, Solve
    from tgi_advisor.launch.verify import Compared
    from tgi_advisor.plan import Container, Method, Packing, Plan
    from tgi_advisor.spec.records import Spec


@click.command()
@takes_specs
@on_place
@click.option("--wait-for-node", is_flag=True, help="In a cluster: go on though no node fits now; it may get one.")
@click.option("--as-given", is_flag=True, help="Do not search: launch with the limits the spec says.")
@options.allow_risk
@click.option("--dry-run", is_flag=True, help="Look for what is in the way, print the request, start nothing.")
@click.option("--replace", is_flag=True, help="Swap a server of ours that has the name already.")
@click.option("--reuse", is_flag=True, help="Keep a server of this name that runs the same plan.")
@click.option("--detach", "-d", is_flag=True, help="Return after the start, without waiting.")
@click.option("--keep", is_flag=True, help="Leave what was started when it fails, or on Ctrl-C.")
@click.option(
    "--retry/--no-retry", default=True, show_default=True,
    help="After running out of memory at warm-up, plan again with what was learnt (at most 3 times).",
)  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Give up when it is not ready by then. Default: wait.")  # fmt: skip
@click.option("--stall", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Seconds without progress worth a word. Default: 60 to 300, by phase.")  # fmt: skip
@click.option("--restart", default="no", show_default=True, metavar="POLICY",
              help="Docker's restart policy, in force once the server answers.")  # fmt: skip
@click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]", help="As of docker run. Repeatable.")
@click.option("--logs", is_flag=True, help="Pass the server's own log through.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines (docs/launch.md).")
def launch(
    on: str, namespace: str | None, wait_for_node: bool, as_given: bool, allow_risk: bool, dry_run: bool,
    replace: bool, reuse: bool, detach: bool, keep: bool, retry: bool, timeout: float | None, stall: float | None,
    restart: str, ulimits: tuple[str, ...], logs: bool, as_json: bool, specs: tuple[str, ...], model: str | None,
    gpu: str | None, count: int | None, release: str | None, sets: tuple[str, ...], **rest: Any,
) -> int:  # fmt: skip
    """Start the plan on Docker or Kubernetes and watch it come up.

    Looks first for everything in the way, then starts the server, follows it through download, load and warm-up,
    asks for one generation and compares what TGI measured with what was predicted. A failure is named with the
    lines of the log that prove it.

    Several specs, in several files or as documents of one, are servers on one machine: planned together, and
    started in the order given, each when the one before answers.

    --on kubernetes applies what `emit --format kubernetes` prints; over a plan that runs already, --replace rolls it
    out, and rolls it back when the new pods do not answer.
    """
    from tgi_advisor.cli.live import JsonLines, sink
    from tgi_advisor.launch import run, together
    from tgi_advisor.launch.records import MOST_RETRIES, Options

    if replace and reuse:
        raise UsageError("--replace and --reuse contradict each other", "Give one of them.")
    how = Options(
        replace=replace, reuse=reuse, keep=keep, detach=detach, restart=restart, ulimits=ulimits, logs=logs,
        timeout_s=timeout, stall_s=stall, retries=MOST_RETRIES if retry else 0, wait_for_node=wait_for_node,
    )  # fmt: skip
    where = read(on, namespace)
    _refuse_options(where, how)
    shown = sink(as_json=as_json, logs=logs)
    try:
        asked = options.specs_of(specs, model, gpu, count, release, options.with_risk(sets, allow_risk))
        if where.cluster and len(asked) > 1:
            raise UsageError(
                "--on kubernetes launches one spec at a time",
                "Several share one machine; in a cluster each has its GPUs.",
            )
        packing, plans = _planned(asked, as_given, **rest)
        if packing:
            together.possible(packing, how)
            _show_packing(packing, plans, None if dry_run else shown)
        if not all(plan.prediction.outcome == "starts" and plan.container for plan in plans):
            return _not_started(packing, plans, as_json)
        Path.cwd()  # which relative mounts are resolved against; that it is gone is told where commands end
        place, host = _place(where, plans)
        with place:
            if dry_run:
                return _dry_run(packing, plans, place, host, how, shown)
            if packing:
                done = together.launch(plans, packing, place, how, host, shown, _solver)
            else:
                done = [run.launch(plans[0], place, how, host, shown, None if as_given else _solver(plans[0]))]
    except AdvisorError as error:
        shown.end()
        if isinstance(shown, JsonLines):
            shown.line("failed", **_failed(error))
            return error.exit_code
        raise
    except KeyboardInterrupt:  # here, for click would write to a terminal that may be gone
        if isinstance(shown, JsonLines):
            shown.line("failed", **error_body(Exit.INTERRUPTED, "interrupted"))
        return Exit.INTERRUPTED
    finally:
        shown.end()
    for one in done:
        if isinstance(shown, JsonLines):
            shown.line("result", **({"server": one.plan.spec.container.name} if packing else {}), **_result(one))
        else:
            say(_page(one), nl=False)
    return Exit.STARTS


@click.command()
@on_place
@as_json
def status(on: str, namespace: str | None, as_json: bool) -> None:
    """List the servers that `launch` started."""
    from tgi_advisor.cli.places import chosen

    with chosen(read(on, namespace)) as place:
        found, here = place.find(), place.here
    if as_json:
        say(json.dumps([one.as_dict() for one in found], indent=2, ensure_ascii=False))
        return
    if not found:
        say(f"tgi-advisor has started no server {here}.")
        return
    rows = [
        (one.name, "answers" if one.healthy else one.state, str(one.port or "-"), one.model, one.release,
         f"{one.limits.get('max_total_tokens', 0):,}")
        for one in found
    ]  # fmt: skip
    say(_table(("name", "state", "port", "model", "release", "max_total_tokens"), rows))


@click.command()
@click.argument("name", required=False)
@on_place
@click.option("--all", "every", is_flag=True, help="Stop all that `status` lists.")
def stop(on: str, namespace: str | None, name: str | None, every: bool) -> None:
    """Stop and remove a server that `launch` started.

    Requests in flight are finished first, as long as TGI allows them.
    """
    from tgi_advisor.cli.places import chosen

    if (name is None) == (not every):
        raise UsageError("say which server to stop", "Give its NAME, or --all; `tgi-advisor status` lists them.")
    with chosen(read(on, namespace)) as place:
        here = place.here
        found = place.find() if name is None else [place.named(name)]
        for one in found:
            told = place.stop(one.id)
            say("\n".join([f"Stopped and removed {one.name}.", *told]))
    if not found:
        say(f"tgi-advisor has started no server {here}.")


@click.command()
@click.option("--export", is_flag=True, help="Print the rows in the form of tests/data/warmups.yaml.")
@click.option("--on", type=click.Choice(PLACES), help="Only launches there. Default: all.")
@as_json
def history(export: bool, on: str | None, as_json: bool) -> None:
    """Show what launches measured against what was predicted."""
    from tgi_advisor.launch import history as kept

    rows, unreadable = kept.rows()
    if on is not None and (unsaid := sum(row.place is None for row in rows)):
        say(f"{unsaid} of {len(rows)} rows are of a version that did not say where, and are left out.", err=True)
    rows = [row for row in rows if on in (None, row.place)]
    if unreadable:
        lines = "1 line" if unreadable == 1 else f"{unreadable} lines"
        say(f"{lines} of {kept.path()} could not be read and {'is' if unreadable == 1 else 'are'} left out.", err=True)
    if export:
        given = [one for number, row in enumerate(rows, 1) if (one := kept.exported(row, number))]
        say("".join(kept.as_yaml(one) for one in given), nl=False)
        return
    if as_json:
        say(json.dumps([row._asdict() for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        say("No launch has been recorded here yet." if on is None else f"No launch on {on} has been recorded here yet.")
        return
    cells = [
        (*map(named, (row.at[:16].replace("T", " "), row.model, f"{row.num_shard} x {row.gpu}", row.release,
                      row.outcome)), _number(row.predicted), _number(row.observed), _percent(row.difference))
        for row in rows
    ]  # fmt: skip
    say(_table(("when", "model", "gpu", "release", "outcome", "predicted", "observed", "difference"), cells))


def _planned(
    asked: Sequence[Spec], as_given: bool, method: Method, **rest: Any
) -> tuple[Packing | None, tuple[Plan, ...]]:
    """The plans, with a line of progress while the Hub takes its time; several with how they share the machine."""
    from tgi_advisor import api

    if len(asked) > 1 and as_given:
        raise UsageError(
            "--as-given launches one spec at a time",
            "Several are planned together: the search decides what each takes of the GPU. Pin limits in the specs.",
        )
    if len(asked) > 1 and method != "tgi":
        raise UsageError(f"--method {method} plans one spec at a time", "Leave --method out, or name one spec.")
    show = progress()
    try:
        if len(asked) > 1:
            return api.advise_together(asked, progress=show, **rest)
        plan = (api.predict if as_given else api.advise)(asked[0], method=method, progress=show, **rest)
        return None, (plan,)
    finally:
        if show is not None:
            show("")


def _solver(plan: Plan) -> Solve:
    """What plans a spec again on the facts of a plan."""
    from tgi_advisor import api

    return lambda changed: api.advise(changed, facts=plan.facts, method=plan.method)


def _refuse_options(on: On, how: Options) -> None:
    """UsageError for options that mean nothing in that place."""
    docker = [name for name, given in (("--restart", how.restart != "no"), ("--ulimit", how.ulimits)) if given]
    if on.cluster and docker:
        raise UsageError(
            f"--on kubernetes takes no {' and no '.join(docker)}, which are the Docker Engine's",
            "A Deployment restarts its pods itself; the nodes set the limits of processes.",
        )
    if not on.cluster and how.wait_for_node:
        raise UsageError("--wait-for-node goes with --on kubernetes", "The Docker Engine has no nodes.")


def _place(on: On, plans: Sequence[Plan]) -> tuple[Place, Host]:
    """The place and this machine; without a place the error also lists what else is in the way."""
    from tgi_advisor.cli.places import chosen
    from tgi_advisor.errors import EngineError
    from tgi_advisor.launch.docker import preflight
    from tgi_advisor.launch.preflight import Host

    if on.cluster:
        return chosen(on), Host()
    containers = [plan.container for plan in plans if plan.container]
    host = _host(containers)
    try:
        return chosen(), host
    except EngineError as error:
        found = dict.fromkeys(f for container in containers for f in preflight.without_engine(container, host))
        error.problems += tuple(finding.problem for finding in found if finding.blocks)
        raise


def _host(containers: Sequence[Container]) -> Host:
    """This machine's GPUs, where a container asks for some."""
    from tgi_advisor.errors import FactsError
    from tgi_advisor.launch.preflight import Gpu, Host

    if all(container.gpus is None for container in containers):
        return Host()
    from tgi_advisor.gather import host

    try:
        found = host.detect()
    except FactsError:
        return Host()
    users = host.processes() if any(gpu.used_bytes for gpu in found) else {}
    return Host(
        tuple(
            Gpu(gpu.index, gpu.name, gpu.memory_bytes, gpu.used_bytes, users.get(gpu.index, ()), gpu.driver)
            for gpu in found
        )
    )


def _show_packing(packing: Packing, plans: Sequence[Plan], shown: JsonLines | Lines | None) -> None:
    """Who takes what of which GPU: a line of `shown` for programs, a table on standard error for people."""
    from tgi_advisor.cli.live import JsonLines
    from tgi_advisor.report import packing_document, packing_page

    if isinstance(shown, JsonLines):
        shown.line("packing", **packing_document(packing, plans)["packing"])
    else:
        say(packing_page(packing, plans, [None] * len(plans), width=width()), err=True)


def _not_started(packing: Packing | None, plans: Sequence[Plan], as_json: bool) -> int:
    from tgi_advisor.report import document, packing_document, page

    if as_json:
        body = packing_document(packing, plans) if packing else document(plans[0])
        say(json.dumps({"event": "not_started", **body}, ensure_ascii=False))
    elif not packing:
        say(page(plans[0], None, width=width()), err=True, nl=False)
    return max(map(exit_code, plans))


def _dry_run(
    packing: Packing | None, plans: Sequence[Plan], place: Place, host: Host, how: Options, shown: JsonLines | Lines
) -> int:
    """The requests, with the names of secrets in the place of their values; what is in the way is an error."""
    from tgi_advisor.cli.live import JsonLines
    from tgi_advisor.errors import PreflightError
    from tgi_advisor.launch import together
    from tgi_advisor.launch.signals import terminated_as_interrupted

    with terminated_as_interrupted():
        checked = together.check(plans, packing, place, how, host)
    bodies, text = place.preview(plans, how, host)
    if isinstance(shown, JsonLines):
        for body in bodies:
            shown.line("request", **({"server": body["name"]} if packing else {}), request=body)
    else:
        say(text or json.dumps(bodies if packing else bodies[0], indent=2, ensure_ascii=False))
    for finding in checked.findings:
        if not finding.blocks:
            say(str(finding.problem), err=True)
    for image in checked.images:
        say(f"{image} is not here and would be pulled.", err=True)
    if blocking := [finding.problem for finding in checked.findings if finding.blocks]:
        raise PreflightError("a launch would end here", None, blocking)
    return Exit.STARTS


def _failed(error: AdvisorError) -> dict[str, Any]:
    """An error as the last JSON line."""
    from tgi_advisor.launch.records import LaunchError

    body = error_body(error.exit_code, error.message, error.hint, error.problems)
    if isinstance(error, LaunchError):
        body["cause"] = error.failure.cause
    return {"server": error.server, **body} if error.server else body


def _result(done: Launched) -> dict[str, Any]:
    """A launch that went well, as the last JSON line."""
    checked = done.verified
    return {
        "id": done.id, "url": done.url, "seconds": round(done.seconds, 3), "attempts": done.attempts,
        "reused": done.reused, "limits": done.plan.prediction.limits.given(),
        "figures": {c.name: {"predicted": c.predicted, "observed": c.observed} for c in checked.figures}
        if checked else None,
    }  # fmt: skip


def _page(done: Launched) -> str:
    """A launch that went well, as people read it."""
    container = done.plan.container
    name = container.name if container else done.id[:12]
    if done.verified is None:
        told = f"{name} is started and will answer at {done.url}"
        return f"{told}\nFollow it with: {done.follow}\nStop it with: {done.stop}\n"
    reach = [f"From here: {done.reach}"] if done.reach else []
    lines = [
        f"{name} answers at {done.url}",
        *reach,
        "",
        f"  {'':<24}{'predicted':>12}{'observed':>12}{'difference':>12}",
    ]
    lines += [_figure(figure) for figure in done.verified.figures]
    return "\n".join([*lines, "", f"Stop it with: {done.stop}", ""])


def _figure(figure: Compared) -> str:
    cells = f"{_number(figure.predicted):>12}{_number(figure.observed):>12}{_percent(figure.difference):>12}"
    return f"  {figure.name:<24}{cells}"


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned columns, as the terminal has room for them."""
    from tgi_advisor.tabular import Column, Table, text

    return text(Table(tuple(Column(name, name, "text", "") for name in headings), tuple(rows)), width())


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "" if not value else f"{100 * value:+.1f} %"
