"""`validate`, `rule` and `import`: deployment files people already have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tgi_advisor.cli import options
from tgi_advisor.cli.output import colour, say, width
from tgi_advisor.errors import Exit, UsageError
from tgi_advisor.safe import printable, unobeyed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tgi_advisor.validate.config import Settings
    from tgi_advisor.validate.report import Report

FORMATS = ("text", "json", "sarif", "github")
_release = click.option("--release", "-r", metavar="X.Y.Z", help="TGI release, where a file does not name one.")

image_option = click.option(
    "--image",
    "images",
    metavar="NAME=X.Y.Z",
    multiple=True,
    help="State that images of a name of your own hold TGI, and which release. Repeatable.",
)
memory_option = click.option("--memory", metavar="SIZE", help="Memory of one GPU, or of a CPU's container, e.g. 64GiB.")


@click.command()
@click.argument("paths", metavar="[FILE]...", nargs=-1, type=click.Path(allow_dash=True))
@click.option(
    "--format",
    "-f",
    "name",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How findings are written; `github` annotates a pull request, `sarif` feeds code scanning.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@options.gpu
@options.count
@memory_option
@click.option(
    "--set",
    "sets",
    metavar="PATH=VALUE",
    multiple=True,
    help="State a field of the spec's hardware, e.g. "
    "--set 'hardware.gpu={name: my-card, memory: 24564MiB, compute_capability: 8.9}'. Repeatable.",
)
@_release
@image_option
@click.option("--select", metavar="CODES", multiple=True, help="Report only these codes, e.g. TGI1,TGI201. Repeatable.")
@click.option("--ignore", metavar="CODES", multiple=True, help="Do not report these codes. Repeatable.")
@click.option("--strict", is_flag=True, default=None, help="Let warnings fail too.")
@click.option(
    "--exclude", metavar="PATTERN", multiple=True, help="Leave files out when a folder is searched. Repeatable."
)
@click.option("--explain", is_flag=True, help="Show the merged arguments that were judged, and where each comes from.")
@click.option("--summary", is_flag=True, help="Show only how much each rule found, and how much stands in each file.")
@click.option("--fix", is_flag=True, help="Mend what can be mended without changing its meaning, and show the change.")
@click.option("--diff", is_flag=True, help="With --fix: only show the change.")
@click.option(
    "--source",
    type=click.Choice([name for name in options.SOURCES if name != "folder"]),
    default="snapshot",
    show_default=True,
    help="Where to look for the models' facts.",
)
@click.option("--online", is_flag=True, help="Ask the Hub about models that are not shipped (--source auto).")
@click.option("--offline", is_flag=True, help="Never use the network (as HF_HUB_OFFLINE=1).")
@click.option("--config", metavar="FILE", type=click.Path(), help="Settings; default the nearest file above each FILE.")
@click.option("--stdin-filename", metavar="NAME", help="What standard input is called; its ending says what it is.")
def validate(paths: tuple[str, ...], name: str, **asked: Any) -> int:
    """Say what TGI will make of the deployment files you have.

    Finds every TGI server in Compose files, Kubernetes manifests, docker run lines of scripts and
    pages, systemd units, environment files and specs; FILE may be a folder (default: this one), a
    pattern, or - for standard input. Ends with 0 when nothing is wrong, 1 with findings, 2 when the
    command line is. Settings: [tool.tgi-advisor] of pyproject.toml, or .tgi-advisor.toml.
    """
    from tgi_advisor import lint
    from tgi_advisor.validate.output import Style, write
    from tgi_advisor.validate.report import Tally

    if asked["diff"] and not asked["fix"]:
        raise UsageError("--diff shows what --fix would change", "Add --fix.")
    if asked["online"] and asked["offline"]:
        raise UsageError("--online and --offline exclude each other", "Leave one of them out.")
    if asked["as_json"]:
        if name not in ("text", "json"):
            raise UsageError(f"--json and --format {name} exclude each other", "Leave one of them out.")
        name = "json"
    if asked["summary"]:
        _with_summary(name, asked)
    over, stated = _settings(asked)
    wanted = lint.Asked(
        source="auto" if asked["online"] else asked["source"], offline=asked["offline"], fix=asked["fix"],
        write=not asked["diff"], stdin_name=asked["stdin_filename"] or "<stdin>",
    )  # fmt: skip
    reports = lint.checked(paths or (".",), over, stated, wanted, asked["config"])
    tally = Tally()
    for piece in write(_aloud(reports), name, tally, Style(colour(), asked["explain"], asked["summary"])):
        if piece:
            say(piece, nl=False)
    if tally.defects:
        return Exit.BUG
    if tally.unread:
        return Exit.USAGE
    return Exit.FINDINGS if tally.failed or (asked["diff"] and tally.fixed) else Exit.STARTS


PAGE = 100
"""Columns that docs/rules.md is written for."""


def _narrowed(text: str) -> str:
    """Markdown with its paragraphs no wider than the terminal; examples stay as they are."""
    import textwrap

    if width() >= PAGE:
        return text
    shown: list[str] = []
    for number, piece in enumerate(text.split("```")):
        if number % 2 == 0:
            blocks = piece.split("\n\n")
            wide = {block for block in blocks if max(map(len, block.splitlines()), default=0) > width()}
            piece = "\n\n".join(
                textwrap.fill(" ".join(block.split()), width(), break_long_words=False, break_on_hyphens=False)
                if block in wide and not block.lstrip().startswith(("-", "|"))
                else block
                for block in blocks
            )
        shown.append(piece)
    return "```".join(shown)


@click.command()
@options.rule_code
def rule(code: str | None) -> None:
    """Explain a rule of `validate`.

    Prints its section of docs/rules.md, with a failing and a fixed example; without CODE lists them all.
    """
    from tgi_advisor.validate import rules

    if code is not None:
        say(_narrowed(rules.text(code)), nl=False)
        return
    for one in rules.RULES.values():
        say(f"{one.code}  {one.severity:<7}  {one.title}")


@click.command("import")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--server", metavar="NAME", help="Which server, where the file has several: its name or number.")
@options.gpu
@options.count
@memory_option
@_release
@image_option
def import_(file: str, images: tuple[str, ...], **asked: Any) -> None:
    """Turn a server of a deployment file into a spec.

    `advise` can then improve it, and `emit` write it anew. What a spec cannot say stands in comments.
    """
    from tgi_advisor import lint

    say(lint.import_server(file, images=stated_images(images), **asked), nl=False)


def stated_images(words: tuple[str, ...]) -> dict[str, str]:
    """The images of --image and the tags they stand for; UsageError where one is none."""
    from tgi_advisor.validate.config import images

    try:
        return images({name: tag for name, _, tag in (word.partition("=") for word in words)})
    except ValueError as error:
        raise UsageError(f"--image: {error}", "Write --image registry.example/llm=3.3.7.") from None


def _with_summary(name: str, asked: dict[str, Any]) -> None:
    """UsageError where --summary stands beside what shows single findings."""
    if name not in ("text", "json"):
        raise UsageError(
            f"--format {name} is made of single findings, and --summary leaves them out",
            "--summary goes with --format text and json.",
        )
    if other := next((option for option in ("explain", "diff") if asked[option]), None):
        raise UsageError(f"--{other} shows every server, and --summary only sums", "Leave one of them out.")


def _settings(asked: dict[str, Any]) -> tuple[Settings, frozenset[str]]:
    """What the command line says, and which settings it says."""
    from tgi_advisor.validate.config import Settings, codes

    stated = {name: asked[name] for name in ("strict", "gpu", "count", "release") if asked[name] is not None}
    stated |= {name: asked[name] for name in ("select", "ignore", "exclude") if asked[name]}
    if wrong := [one for one in asked["sets"] if not one.startswith("hardware.")]:
        raise UsageError(
            f"--set {wrong[0].partition('=')[0][:60]}: the rest of the deployment is in the files",
            "validate takes fields of `hardware`, such as --set hardware.gpu.memory=64GiB.",
        )
    memory = [f"gpu.memory={asked['memory']}"] if asked["memory"] else []
    if hardware := (*(one.removeprefix("hardware.") for one in asked["sets"]), *memory):
        stated["hardware"] = hardware
    if asked["images"]:
        stated["images"] = stated_images(asked["images"])
    try:
        stated |= {name: codes(stated[name]) for name in ("select", "ignore") if name in stated}
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Settings(**stated), frozenset(stated)


def _aloud(reports: Iterator[Report]) -> Iterator[Report]:
    """The reports, with what went wrong in reading a file said on standard error."""
    for report in reports:
        wrong = report.unread or (report.defect and f"a defect of tgi-advisor in {report.file}: {report.defect}")
        if wrong:
            say(f"{click.style('Error:', fg='red')} {unobeyed(printable(wrong))}", err=True)
        if report.note:
            say(unobeyed(printable(f"{report.file}: {report.note}")), err=True)
        yield report
