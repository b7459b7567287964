"""Options several commands share, and the spec they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from tgi_advisor.errors import SpecError, UsageError

if TYPE_CHECKING:
    from tgi_advisor.spec.records import Spec

Command = TypeVar("Command", bound=Callable[..., Any])

SOURCES = ("auto", "hub", "cache", "snapshot", "folder")
METHODS = ("tgi", "notebook", "notebook-tgi")


class _Count(click.IntRange):
    """A positive whole number, called that in messages."""

    name = "whole number"


def _tokens(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A number of tokens as a spec takes it (`4096`, `16k`); kept as text."""
    from tgi_advisor.units import parse_count

    if value is not None:
        try:
            parse_count(value)
        except ValueError as error:
            raise click.BadParameter(f"{error}.") from None
    return value


def complete(names: Callable[[], list[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Shell completion from a list that is only made when the shell asks."""

    def completed(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in names() if name.lower().startswith(incomplete.lower())]

    return completed


def complete_several(names: Callable[[], list[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """The same for values separated by commas: the last of them is completed."""
    one = complete(names)

    def completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in one(ctx, param, last)]

    return completed


def model_names() -> list[str]:
    """The shipped models."""
    from tgi_advisor.gather import snapshot

    return list(snapshot.names())


def gpu_names() -> list[str]:
    """What stands for a GPU: `auto`, names of the table, cloud instance types."""
    from tgi_advisor.facts.gpu import all_gpus

    return ["auto", *(name for row in all_gpus() for name in (row.name, *(kind for kind, _ in row.instances)))]


def release_names() -> list[str]:
    """The releases that are known."""
    from tgi_advisor.facts.release import all_releases

    return [release.name for release in all_releases()]


def _rules() -> list[str]:
    from tgi_advisor.validate.rules import RULES

    return list(RULES)


def _rows() -> list[str]:
    from tgi_advisor.facts.rows import all_rows

    return [row.row for row in all_rows()]


def field_names() -> list[str]:
    """The fields of a spec, each with an `=`."""
    from tgi_advisor.spec.records import Spec, settings

    def below(record: type[Any], path: str) -> Iterator[str]:
        for name, field in settings(record).items():
            if field.metadata["kind"] == "section":
                yield from below(type(field.metadata["default"]), f"{path}{name}.")
            else:
                yield f"{path}{name}="

    return list(below(Spec, ""))


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
release = click.option(
    "--release", "-r", metavar="X.Y.Z", help="TGI release; default the newest.", shell_complete=complete(release_names)
)
model = click.option(
    "--model", "-m", metavar="ID", help="Hub id or local folder.", shell_complete=complete(model_names)
)
gpu = click.option(
    "--gpu", "-g", metavar="NAME", help="GPU name, cloud instance type, or auto (this machine's).",
    shell_complete=complete(gpu_names),
)  # fmt: skip
count = click.option("--count", "-n", "-c", metavar="N", type=_Count(1), help="GPUs the container sees.")
row_name = click.argument("name", nargs=-1, metavar="[NAME]...", shell_complete=complete(_rows))
rule_code = click.argument("code", required=False, shell_complete=complete(_rules))

ENGINES = ("vllm", "sglang")
engine = click.option(
    "--engine", type=click.Choice(ENGINES),
    help="Plan for this engine instead of TGI; the spec's limits are meant for it (docs/migrate.md).",
)  # fmt: skip
brief = click.option("--brief", is_flag=True, help="Leave out the parts of the memory and where the facts are from.")
allow_risk = click.option(
    "--allow-risk", is_flag=True,
    help="Search also among limits that are at risk of running out of memory under load.",
)  # fmt: skip


def with_risk(sets: tuple[str, ...], allowed: bool) -> tuple[str, ...]:
    """The `--set` options with what --allow-risk stands for."""
    return (*sets, "workload.allow_risk=true") if allowed else sets


_context = click.option(
    "--context", metavar="TOKENS", callback=_tokens,
    help="Longest request, prompt and answer together, e.g. 16k (limits.max_total_tokens).",
)  # fmt: skip
_users = click.option(
    "--users", metavar="N", type=_Count(1),
    help="Requests of that length at the same time (workload.concurrency).",
)  # fmt: skip

_ONE = click.argument("spec", metavar="[SPEC]", required=False, type=click.Path(allow_dash=True))
_SEVERAL = click.argument("specs", metavar="[SPEC]...", nargs=-1, type=click.Path(allow_dash=True))
sets = click.option(
    "--set", "sets", metavar="PATH=VALUE", multiple=True, shell_complete=complete(field_names),
    help="Set any field of the spec, e.g. --set limits.max_total_tokens=8k. Repeatable, last wins.",
)  # fmt: skip
source = click.option(
    "--source", type=click.Choice(SOURCES), default="auto", show_default=True,
    help="Where to look for the model's facts.",
)  # fmt: skip
offline = click.option("--offline", is_flag=True, help="Never use the network (as HF_HUB_OFFLINE=1).")
method = click.option(
    "--method", type=click.Choice(METHODS), default="tgi", show_default=True,
    help="TGI's own sum, or one of the notebook's formulas (docs/notebook.md).",
)  # fmt: skip
speed = click.option(
    "--speed", metavar="FILE", type=click.Path(), multiple=True,
    help="What `calibrate` measured on a server of yours. Repeatable.",
)  # fmt: skip
_OPTIONS = (
    model,
    gpu,
    count,
    release,
    _context,
    _users,
    sets,
    source,
    offline,
    method,
)  # fmt: skip


def takes_spec(command: Command) -> Command:
    """Adds the SPEC argument and everything that can stand in for it."""
    return _add(command, _ONE)


def takes_specs(command: Command) -> Command:
    """Adds the SPEC arguments of a command that plans several deployments together, and the same options."""
    return _add(command, _SEVERAL)


def takes_load(command: Command) -> Command:
    """Adds --context and --users, which stand for two fields of the spec; `--set` is laid over them."""
    return _context(_users(_with_load(command)))


def _with_load(command: Command) -> Command:
    """The command with what --context and --users stand for among its `--set` options."""

    @wraps(command)
    def with_load(*, context: str | None, users: int | None, sets: tuple[str, ...], **rest: Any) -> Any:
        plain = (("limits.max_total_tokens", context), ("workload.concurrency", users))
        given = (f"{path}={value}" for path, value in plain if value is not None)
        return command(sets=(*given, *sets), **rest)

    return cast(Command, with_load)


def _add(command: Command, argument: Callable[[Command], Command]) -> Command:
    command = _with_load(command)
    for option in reversed((argument, *_OPTIONS)):
        command = option(command)
    return command


def specs_of(
    specs: tuple[str, ...], model: str | None, gpu: str | None, count: int | None, release: str | None,
    sets: tuple[str, ...],
) -> list[Spec]:  # fmt: skip
    """The specs a command line adds up to: every document of every file, the options and `--set` over each."""
    if not any(specs):
        return [spec_of(None, model, gpu, count, release, sets)]
    gpu, sets = _block(gpu, sets)
    from tgi_advisor.spec import reader

    if specs.count("-") > 1:
        raise UsageError("standard input is named twice", "It can be read once; name a file for the other.")
    given = _given(model, gpu, count, release)
    found: list[Spec] = []
    for path in specs:
        _readable(path)
        if given:
            found += [_over(base, given, release, sets) for base in reader.read_all(path)]
            continue
        try:
            found += reader.read_all(path, sets)
        except SpecError as error:
            raise _all_of(error) from None
    return found


def spec_of(
    spec: str | None, model: str | None, gpu: str | None, count: int | None, release: str | None, sets: tuple[str, ...]
) -> Spec:
    """The spec a command line adds up to: the file, the options over it, `--set` over both."""
    from tgi_advisor.spec import reader

    gpu, sets = _block(gpu, sets)
    given = _given(model, gpu, count, release)
    if not spec:
        _named(model, gpu, sets)
        return reader.build(given, "command line", None, sets)
    _readable(spec)
    if given:
        return _over(reader.read_file(spec), given, release, sets)
    try:
        return reader.read_file(spec, sets)
    except SpecError as error:
        raise _all_of(error) from None


def _all_of(error: SpecError) -> SpecError:
    """What is wrong with a spec, names that nobody knows among it."""
    from tgi_advisor.gather import unknown

    return unknown.with_names(error)


def _readable(path: str) -> None:
    """UsageError for standard input that is closed."""
    import sys

    if path == "-" and sys.stdin is None:
        raise UsageError("standard input is closed", "Name a SPEC file, or pipe one in.")


def _block(gpu: str | None, sets: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """A GPU that is stated by hand, `{name: mine, memory: 24564MiB, …}`, as the field of the spec that it is."""
    return (None, (f"hardware.gpu={gpu}", *sets)) if gpu is not None and gpu.startswith("{") else (gpu, sets)


def _given(model: str | None, gpu: str | None, count: int | None, release: str | None) -> list[tuple[str, str]]:
    """The options as fields of the spec."""
    given = (
        ("model.id", model),
        ("hardware.gpu", gpu),
        ("hardware.count", None if count is None else str(count)),
        ("tgi.release", release),
    )
    return [(path, value) for path, value in given if value is not None]


def _over(base: Spec, given: list[tuple[str, str]], release: str | None, sets: tuple[str, ...]) -> Spec:
    """A spec with the options laid over it; another release changes the image's tag too."""
    from tgi_advisor.facts import release as releases
    from tgi_advisor.spec import reader

    if release is not None and base.tgi.image is not None:
        given = [*given, ("tgi.image", releases.retagged(base.tgi.image, release))]
    return reader.build(given, "command line", base, sets)


def _with_sets(model: str | None, gpu: str | None, sets: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Model and GPU of the options, or the `--set` that names them."""
    return (
        model or next((text for text in sets if text.startswith(("model.id=", "model="))), None),
        gpu or next((text for text in sets if text.startswith(("hardware.gpu", "hardware="))), None),
    )


def half_named(model: str | None, gpu: str | None, sets: tuple[str, ...]) -> bool:
    """Whether a model alone or a GPU alone is named, by its option."""
    named = _with_sets(model, gpu, sets)
    return named in ((model, None), (None, gpu)) and named != (None, None)


def _named(model: str | None, gpu: str | None, sets: tuple[str, ...]) -> None:
    """UsageError unless the options alone, `--set` among them, name a deployment."""
    model, gpu = _with_sets(model, gpu, sets)
    if model is None and gpu is None:
        raise UsageError(
            "no deployment was named",
            "Give a SPEC file (`-` for standard input), or --model and --gpu. "
            "`tgi-advisor init` writes a SPEC to start from.",
        )
    if gpu is None:
        raise UsageError(
            "--model is given, but no --gpu",
            "Name one (`tgi-advisor gpus` lists them), or a cloud instance type, or `auto` for this machine's.",
        )
    if model is None:
        raise UsageError(
            "--gpu is given, but no --model", "Give a Hub id (`tgi-advisor models` lists some) or a folder."
        )
