"""The questions before a deployment: which GPU, which quantization, how many users."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tgi_advisor.cli import options
from tgi_advisor.cli.group import show_error
from tgi_advisor.cli.options import Command, as_json
from tgi_advisor.cli.output import colour, progress, say, unread, width
from tgi_advisor.errors import Exit, FactsError, UsageError

if TYPE_CHECKING:
    from tgi_advisor.ask import Drawn
    from tgi_advisor.choose.running import Inspection
    from tgi_advisor.choose.sweep import Sweep
    from tgi_advisor.spec.records import Spec
    from tgi_advisor.tabular import Answer

PURPOSES = ("context", "concurrency", "price")
FORMATS = ("text", "csv", "markdown", "json")


def _several(
    called: str, of: Callable[[str], Any] = str
) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback that takes values separated by commas; click says which of them is wrong."""

    def one(word: str) -> Any:
        try:
            return of(word)
        except ValueError:
            raise click.BadParameter(f"{word!r} is no {called}.") from None

    def values(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[Any, ...]:
        if text is None:
            return ()
        from tgi_advisor.choose.words import parts

        words = parts(text)
        if not words:
            raise click.BadParameter(f"no {called} is named.")
        return tuple(map(one, words))

    return values


def _whole(text: str) -> int:
    """A count of GPUs."""
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise ValueError(text)
    return int(text)


class _Amount(click.FloatRange):
    """A positive number, of which there is more than none and less than for ever."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


def _methods() -> list[str]:
    from tgi_advisor.spec.records import QUANTIZE

    return ["none", *QUANTIZE]


def _dtypes() -> list[str]:
    from tgi_advisor.spec.records import KV_CACHE_DTYPE

    return ["auto", *KV_CACHE_DTYPE]


several_gpus = click.option(
    "--gpu", "-g", metavar="A,B,…", callback=_several("GPU"),
    shell_complete=options.complete_several(options.gpu_names),
    help="GPUs or cloud instance types; default the whole table.",
)  # fmt: skip
several_counts = click.option(
    "--count", "-n", "-c", metavar="1,2,…", callback=_several("number of GPUs", _whole),
    help="GPUs of one server; default 1,2,4,8, and what else up to 8 the model can be split over.",
)  # fmt: skip
several_weights = click.option(
    "--quantize", "-q", metavar="none,awq,…", callback=_several("quantization"),
    shell_complete=options.complete_several(_methods),
    help="How the weights are held; default as this checkpoint and its shipped siblings do.",
)  # fmt: skip
several_releases = click.option(
    "--release", "-r", metavar="X.Y.Z,…", callback=_several("release"),
    shell_complete=options.complete_several(options.release_names),
    help="TGI releases; default the spec's, else the newest.",
)  # fmt: skip
output_format = click.option(
    "--format", "-f", "name", type=click.Choice(FORMATS), default="text", show_default=True, help="How to print it."
)
price_list = click.option(
    "--prices", metavar="FILE", type=click.Path(), help="Your own price list (YAML), in place of the shipped one."
)


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, type=click.Path(allow_dash=True))
@options.model
@several_gpus
@several_counts
@several_weights
@several_releases
@click.option(
    "--kv-cache-dtype",
    metavar="auto,fp8_e4m3fn,…",
    callback=_several("dtype"),
    shell_complete=options.complete_several(_dtypes),
    help="dtypes of the KV cache; default the spec's.",
)
@click.option("--for", "purpose", type=click.Choice(PURPOSES), help="What to sort by; default the least hardware.")
@options.takes_load
@price_list
@options.speed
@options.sets
@options.source
@options.offline
@output_format
@as_json
def compare(spec: str | None, model: str | None, sets: tuple[str, ...], name: str, as_json: bool, **asked: Any) -> int:
    """Show every way to serve one model, side by side.

    A row for every GPU, number of GPUs, quantization and release: whether it fits, the largest context,
    how many such requests at once, what binds, and what an instance with that GPU costs. Bounds and floors
    of the SPEC hold for all of them. What TGI refuses is listed with the reason.

    \b
    Examples:
      tgi-advisor compare -m Qwen/Qwen2.5-14B-Instruct --for price
      tgi-advisor compare llama.yaml --gpu nvidia-l4,g5.xlarge --count 1,2 --format csv
      tgi-advisor compare llama.yaml --release 2.4.1,3.3.7 --kv-cache-dtype auto,fp8_e4m3fn
    """
    from tgi_advisor import ask

    with _counted() as (show, done):
        found = ask.compare(_spec(spec, model, asked["gpu"], sets), progress=show, done=done, **asked)
    _show("comparison", found, "json" if as_json else name)
    return Exit.STARTS if found.best else Exit.OUT_OF_MEMORY


@click.command()
@options.gpu
@options.model
@options.count
@options.release
@options.takes_load
@options.sets
@click.option("--all", "every", is_flag=True, help="With --model alone, a row for each kind of weights on a GPU.")
@price_list
@options.source
@options.offline
@output_format
@as_json
def fits(name: str, as_json: bool, **asked: Any) -> int:
    """List what runs where: models on a GPU, or GPUs for a model.

    With --gpu, which shipped models run there, with the largest context each reaches and how many such
    requests at once. With --model, which GPUs and the fewest of each, cheapest and smallest first. With
    both, how many users at every context. With neither, every shipped model on one of every GPU.

    \b
    Examples:
      tgi-advisor fits --gpu nvidia-l4
      tgi-advisor fits --model meta-llama/Llama-3.1-70B-Instruct
      tgi-advisor fits --model Qwen/Qwen2.5-7B-Instruct --gpu g6.12xlarge
      tgi-advisor fits --gpu nvidia-l4 --context 16k --users 20
    """
    return what_fits("json" if as_json else name, **asked)


def what_fits(name: str, **asked: Any) -> int:
    """Print what runs where in a format; the exit code."""
    from tgi_advisor import ask

    with _counted() as (show, done):
        found = ask.fits(progress=show, done=done, **asked)
    _show("fits", found, name)
    return Exit.OUT_OF_MEMORY if found.nothing() else Exit.STARTS


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, type=click.Path(allow_dash=True))
@options.model
@options.gpu
@options.count
@options.release
@click.option(
    "--vary",
    metavar="PATH=VALUES",
    multiple=True,
    shell_complete=options.complete_several(options.field_names),
    help="A field and its values: A..B (doubled), A..B:STEP, or A,B,C. Repeatable.",
)
@options.takes_load
@options.sets
@options.source
@options.offline
@options.method
@click.option(
    "--chart",
    type=click.Choice(["auto", "memory", "budget", "concurrency"]),
    help="Draw it under the table: the parts of the memory, the budget, or the requests at once.",
)
@click.option("--picture", metavar="FILE", type=click.Path(), help="Draw it into a PNG or SVG file.")
@output_format
@as_json
def sweep(
    spec: str | None, model: str | None, gpu: str | None, count: int | None, release: str | None,
    sets: tuple[str, ...], vary: tuple[str, ...], chart: Drawn | None, picture: str | None, name: str, as_json: bool,
    **asked: Any,
) -> int:  # fmt: skip
    """Show what changes when one thing is turned.

    A step for every value, or combination of values, of the fields that vary: whether it fits, the budget of
    the KV cache, how many requests at once, and every part of the memory. What the SPEC leaves open is
    searched at each step, as `advise` does.

    \b
    Examples:
      tgi-advisor sweep llama.yaml --vary max_total_tokens=1k..128k
      tgi-advisor sweep llama.yaml --vary hardware.count=1,2,4 --vary model.kv_cache_dtype=null,fp8_e4m3fn
      tgi-advisor sweep llama.yaml --vary max_batch_prefill_tokens=1k..16k:1k --picture budget.svg
    """
    from tgi_advisor import ask

    if picture is not None and not picture.lower().endswith((".png", ".svg")):
        raise UsageError(f"{picture} is neither a .png nor an .svg file", "Name one that ends so.")

    with _counted() as (show, done):
        found = ask.sweep(
            options.spec_of(spec, model, gpu, count, release, sets), vary, progress=show, done=done, **asked
        )
    name = "json" if as_json else name
    _show("sweep", found, name)
    shown = chart is not None and name == "text"
    if shown or picture is not None:
        try:
            _drawn(found, chart or "auto", picture, shown=shown)
        except UsageError as error:
            if name != "json":
                raise
            return show_error(error, None)  # standard output has its one JSON object
    return Exit.STARTS if any(step.starts for step in found.steps) else Exit.OUT_OF_MEMORY


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, type=click.Path(allow_dash=True))
@options.model
@click.option("--users", "-u", metavar="N", type=click.IntRange(1), required=True, help="Users at the same time.")
@click.option(
    "--input",
    "-i",
    "prompts",
    metavar="TOKENS",
    required=True,
    help="A typical prompt; percentiles may follow: 1500,p99=6000.",
)
@click.option(
    "--output",
    "-o",
    "answers",
    metavar="TOKENS",
    required=True,
    help="A typical answer; percentiles may follow.",
)
@click.option("--rps", metavar="N", type=_Amount(0, min_open=True), help="Requests that arrive per second.")
@click.option("--latency", metavar="S", type=_Amount(0, min_open=True), help="Seconds a typical answer may take.")
@several_gpus
@several_counts
@several_weights
@several_releases
@click.option("--emit-spec", is_flag=True, help="Print the spec of one replica of the first fleet.")
@click.option("--params", metavar="13B", help="Rules of thumb for a model of so many parameters, instead of --model.")
@click.option("--bits", metavar="N", type=_Amount(1, 64), help="Bits of a weight, with --params; default 16.")
@click.option("--layers", metavar="N", type=click.IntRange(1), help="Layers, with --params.")
@click.option("--hidden", metavar="N", type=click.IntRange(1), help="Width of the hidden state, with --params.")
@price_list
@options.speed
@options.sets
@options.source
@options.offline
@output_format
@as_json
def size(
    spec: str | None, model: str | None, sets: tuple[str, ...], emit_spec: bool, params: str | None, bits: float | None,
    layers: int | None, hidden: int | None, name: str, as_json: bool, **asked: Any,
) -> int:  # fmt: skip
    """Say how many GPUs a load needs.

    From the users at once, a typical and a longest prompt and the length of an answer: GPUs of one replica,
    replicas, token limits, and how fast it can be at most. Estimates of speed are given where public
    measurements support them, each with its band.

    \b
    Examples:
      tgi-advisor size -m meta-llama/Llama-3.1-8B-Instruct --users 10 --input 1500 --output 500
      tgi-advisor size -m Qwen/Qwen2.5-7B-Instruct -u 200 -i 1500,p99=6000 -o 400 --gpu l4,l40s
      tgi-advisor size llama.yaml -u 50 -i 2k -o 500 --emit-spec > replica.yaml
      tgi-advisor size --params 13B --layers 40 --hidden 5120 -u 10 -i 1500 -o 500
    """
    from tgi_advisor import ask
    from tgi_advisor.choose import rough

    shape = {"--bits": bits, "--layers": layers, "--hidden": hidden}
    if params is not None:
        model_given = {"SPEC": spec, "--model": model, "--set": sets, "--emit-spec": emit_spec}
        _nothing_else(model_given | {f"--{name.replace('_', '-')}": asked[name] for name in OF_A_MODEL})
        if (layers is None) != (hidden is None):
            raise UsageError("--layers and --hidden go together", "Give both, or neither.")
        guessed = ask.rule_of_thumb(
            rough.Shape(rough.parameters(params), bits or 16, layers, hidden),
            **{name: asked[name] for name in ("users", "prompts", "answers", "gpu", "count")},
        )
        _show("rough", guessed, "json" if as_json else name)
        return Exit.STARTS
    if given := [option for option, value in shape.items() if value is not None]:
        raise UsageError(f"{given[0]} is for rules of thumb", "Give --params too, or leave it out.")
    with _counted() as (show, done):
        found = ask.size(_spec(spec, model, asked["gpu"], sets), progress=show, done=done, **asked)
    if emit_spec and not as_json:
        from tgi_advisor.spec.writer import dump

        if found.best is None:
            say(found.nothing(), err=True)
        else:
            say(dump(found.best.option.spec), nl=False)
    else:
        _show("fleets", found, "json" if as_json else name)
    return Exit.STARTS if found.best else Exit.OUT_OF_MEMORY


OF_A_MODEL = ("rps", "latency", "quantize", "release", "prices", "speed")
"""Options of `size` that say nothing where there is no checkpoint."""


def _nothing_else(given: dict[str, Any]) -> None:
    """UsageError for what says nothing of a model that is known by its size alone."""
    if wrong := [option for option, value in given.items() if value]:
        raise UsageError(
            f"{wrong[0]} says nothing of a model without a checkpoint", f"Leave out --params, or {wrong[0]}."
        )


_SAID_BY_A_SERVER = (
    click.option(
        "--model", "-m", metavar="ID", help="Hub id or local folder; default what the server says.",
        shell_complete=options.complete(options.model_names),
    ),
    options.gpu,
    options.count,
    click.option(
        "--release", "-r", metavar="X.Y.Z", help="TGI release; default what the server says.",
        shell_complete=options.complete(options.release_names),
    ),
    options.sets,
)  # fmt: skip


def _timeout(which: str) -> Callable[[Command], Command]:
    """The option for how long a server is asked."""
    return click.option(
        "--timeout", metavar="S", type=_Amount(0, 600, min_open=True), default=10, show_default=True,
        help=f"Seconds {which} server may take to answer.",
    )  # fmt: skip


def of_a_server(command: Command) -> Command:
    """Adds what may be said of a running server in place of its own word."""
    for option in reversed(_SAID_BY_A_SERVER):
        command = option(command)
    return command


@click.command()
@click.argument("url")
@click.argument("spec", metavar="[SPEC]", required=False, type=click.Path(allow_dash=True))
@of_a_server
@_timeout("the")
@options.source
@options.offline
@as_json
def calibrate(url: str, spec: str | None, as_json: bool, **asked: Any) -> int:
    """Measure how fast a running TGI server is.

    Reads its /metrics and /info, and works out which share of the card's bandwidth and FLOPS it reaches under
    the traffic it has had. What is printed is a file for --speed of `advise`, `predict`, `compare` and `size`,
    which then estimate servers on the same card, as many shards and the same quantization with it. Several
    such files may be joined into one.

    Model and release are the server's own word; which GPU it runs on it does not say. A token is taken from the
    environment variable TGI_API_KEY.

    \b
    Examples:
      tgi-advisor calibrate http://localhost:8080 --gpu nvidia-l4 > l4.yaml
      tgi-advisor size -m Qwen/Qwen2.5-7B-Instruct -u 50 -i 1500 -o 500 --gpu l4 --speed l4.yaml
      tgi-advisor calibrate http://localhost:8080 llama.yaml
    """
    from tgi_advisor import ask
    from tgi_advisor.spec.reader import read_file

    with _counted() as (show, _):
        found = ask.calibrate(url, read_file(spec) if spec else None, progress=show, **asked)
    _show("calibration", found, "json" if as_json else "text")
    return Exit.STARTS


@click.command()
@click.argument("urls", metavar="URL…", nargs=-1, required=True)
@click.option("--spec", metavar="FILE", type=click.Path(allow_dash=True), help="The servers' spec, instead of --gpu.")
@of_a_server
@_timeout("a")
@click.option(
    "--watch", "-w", metavar="S", type=_Amount(0, 86_400, min_open=True), is_flag=False, flag_value=5.0,
    help="Ask again every so many seconds, 5 where none are named, until Ctrl-C.",
)  # fmt: skip
@click.option("--emit-spec", is_flag=True, help="Print the server as a spec, for `advise`.")
@options.source
@options.offline
@as_json
def inspect(
    urls: tuple[str, ...], spec: str | None, watch: float | None, emit_spec: bool, as_json: bool, **asked: Any
) -> int:
    """Say what a running TGI server has and could have.

    Reads /info, /health and /metrics: release, model, limits, how full it runs and what became of its requests.
    With --gpu (and --count; TGI does not tell them) also what that GPU allows, and what to change. Several servers
    make a table. Nothing is changed, and no text is generated. A token is taken from the environment variable
    TGI_API_KEY.

    \b
    Examples:
      tgi-advisor inspect http://localhost:8080
      tgi-advisor inspect http://localhost:8080 --gpu nvidia-l4 --watch
      tgi-advisor inspect http://tgi-0:80 http://tgi-1:80 --gpu g6.xlarge --json
      tgi-advisor inspect http://localhost:8080 --gpu nvidia-l4 --emit-spec | tgi-advisor advise -
    """
    from tgi_advisor import ask
    from tgi_advisor.spec.reader import read_file

    if emit_spec and (watch or len(urls) > 1):
        raise UsageError("--emit-spec is for one server, once", "Leave out --watch, and name one URL.")
    known = read_file(spec) if spec else None
    show = progress()
    found = ask.inspect(urls, known, progress=show, **asked)
    if show is not None:
        show("")
    if emit_spec:
        from tgi_advisor.spec.writer import dump

        (one,) = found.servers
        if (made := getattr(one, "spec", None)) is None:
            raise UsageError("a spec names a GPU, and TGI does not tell its own", "Name it with --gpu, and --count.")
        say(dump(made), nl=False)
        return Exit.STARTS
    _inspected(found, as_json=as_json, again=watch)
    while watch and not unread():
        time.sleep(watch)
        try:
            found = ask.inspect(urls, known, before=found, **asked)
        except FactsError as error:
            say(f"{error}", err=True)
            continue
        _inspected(found, as_json=as_json, again=watch)
    return Exit.STARTS if found.complete else Exit.FACTS


def _inspected(found: Inspection, *, as_json: bool, again: float | None) -> None:
    """What servers say; again and again on the same screen, one JSON object to a line, or one page after another."""
    if as_json:
        _document("servers", found, indent=None if again else 2)
        return
    text = found.text(width())
    if again and sys.stdout.isatty():
        click.clear()
    say(f"{text}\n" if again else text)


def _drawn(found: Sweep, chart: Drawn, picture: str | None, *, shown: bool) -> None:
    """The chart of a sweep on the terminal, and in a file."""
    from tgi_advisor import ask
    from tgi_advisor.pictures import files, terminal

    drawing = ask.drawing(found, chart)
    if shown:
        say("\n" + terminal.draw(drawing, width(), colour=colour()))
    if picture is not None:
        data = files.render(drawing, "svg" if picture.lower().endswith(".svg") else "png")
        try:
            Path(picture).write_bytes(data)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{picture} cannot be written: {reason}") from None
        say(f"Wrote {picture}.", err=True)


def _show(key: str, found: Answer, name: str) -> None:
    """An answer in the format asked for."""
    from tgi_advisor import tabular

    match name:
        case "json":
            _document(key, found)
        case "csv":
            say(tabular.comma_separated(found.table()))
        case "markdown":
            say(tabular.markdown(found.table()))
        case _:
            say(found.text(width()))
            return
    if why := found.nothing():
        say(why, err=True)


def _spec(spec: str | None, model: str | None, gpus: Sequence[str], sets: tuple[str, ...]) -> Spec:
    """The spec of a command line whose GPUs are options of their own."""
    if not spec and model is None and not any(text.startswith(("model.id=", "model=")) for text in sets):
        raise UsageError(
            "no model was named",
            "Give a SPEC file, or --model with a Hub id (`tgi-advisor models` lists some) or a folder.",
        )
    from tgi_advisor.ask import ANY_CARD

    card = None if spec else next(iter(gpus), ANY_CARD)
    return options.spec_of(spec, model, card, None, None, sets)


@contextmanager
def _counted() -> Iterator[tuple[Callable[[str], None] | None, Callable[[int, int], None] | None]]:
    """A line of progress on a terminal, for what takes longer than a moment; gone at the end."""
    show = progress()
    if show is None:
        yield None, None
        return
    begun = shown = time.monotonic()

    def done(count: int, of: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - begun > MOMENT and now - shown > REDRAWN:
            shown = now
            full = BAR * count // of
            show(f"{'█' * full}{'·' * (BAR - full)} {count:,} of {of:,} options")

    try:
        yield show, done
    finally:
        show("")


MOMENT, REDRAWN = 0.5, 0.1
"""Seconds after which a bar is shown, and between two drawings of it."""
BAR = 24
"""Characters of the bar."""


def _document(key: str, found: Answer, indent: int | None = 2) -> None:
    """An answer as the one JSON object on standard output; where it has no row, with the reason."""
    import json

    from tgi_advisor.report import SCHEMA_VERSION

    body = {
        "schema_version": SCHEMA_VERSION,
        key: found.records(),
        **({"why": why} if (why := found.nothing()) else {}),
    }
    say(json.dumps(body, indent=indent, ensure_ascii=False))
