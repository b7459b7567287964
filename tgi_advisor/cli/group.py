"""The click group: errors become text and an exit code, in one place."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import StringIO
from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal

import click

from tgi_advisor.cli.output import say, unwritable, width
from tgi_advisor.errors import AdvisorError, Exit, Problem, UsageError, not_installed
from tgi_advisor.safe import masked, printable

AsJson = Literal["object", "line"] | None
"""How a program wants an error; None for people."""


class AdvisorGroup(click.Group):
    """A group whose commands return their exit code and may raise `AdvisorError`: shown, never traced.

    With --json an error is also one JSON object on standard output, so that a program finds it
    where it looks for the answer; of a command that prints JSON lines it is the last of them.

    Commands of other modules are named by `elsewhere`: a module is imported when a command of it is wanted.
    """

    def __init__(self, *rest: Any, **named: Any) -> None:
        super().__init__(*rest, **named)
        self._elsewhere: dict[str, str] = {}
        self._order: list[str] = []
        self.json_lines: frozenset[str] = frozenset()
        """The commands that print JSON lines."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, at the end of the list unless its place is taken already."""
        super().add_command(cmd, name)
        self._list(name or cmd.name or "")

    def elsewhere(self, module: str, *names: str) -> None:
        """Commands that are attributes of a module, with a "_" behind a word of Python ("import_")."""
        for name in names:
            self._elsewhere[name] = module
            self._list(name)

    def _list(self, name: str) -> None:
        if name not in self._order:
            self._order.append(name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported when it is one of another module."""
        if cmd_name not in self.commands and cmd_name in self._elsewhere:
            module = import_module(self._elsewhere[cmd_name])
            self.add_command(getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name), cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; what may have been meant are all commands, those of modules that are not imported too."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if (named := getattr(error, "command_name", None)) is not None:
                from difflib import get_close_matches  # imported only when something is misspelt

                error.__dict__["possibilities"] = get_close_matches(named, self._order)
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The exit codes, wrapped to the terminal."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write(f"{'':>{formatter.current_indent}}Exit codes:\n")
            with formatter.indentation():
                formatter.write_dl([(f"{int(code):>3}", code.meaning) for code in Exit])

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order they are defined, which is the order of use."""
        return self._order

    def main(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
        """Run the command line and exit."""
        given = sys.argv[1:] if args is None else list(args)
        as_json: AsJson = None
        if "--json" in given:
            as_json = "line" if not self.json_lines.isdisjoint(given[:1]) else "object"
        sys.exit(self._code(given, as_json, *rest, **{**named, "standalone_mode": False}))

    def _code(self, args: list[str], as_json: AsJson, *rest: Any, **named: Any) -> int:
        """The exit code, with everything said that there is to say."""
        if os.environ.get("TGI_ADVISOR_DEBUG"):
            return int(super().main(args, *rest, **named) or 0)
        try:
            return int(super().main(args, *rest, **named) or 0)
        except AdvisorError as error:
            return show_error(error, as_json)
        except click.ClickException as error:
            _keep_nearest(error)
            told = StringIO()
            error.show(told)
            say(_fitted(printable(told.getvalue().replace("\t", "  "), keep="\n")), err=True, nl=False)
            _json(error_body(Exit.USAGE, printable(error.format_message().replace("\t", "  "), keep="\n")), as_json)
            return Exit.USAGE
        except click.Abort:
            return Exit.INTERRUPTED
        except SystemExit as end:
            # Completion ends by itself; so does click with 1, our code for findings, when `--help | head` is cut short.
            return int(end.code or 0) if "_TGI_ADVISOR_COMPLETE" in os.environ else Exit.STARTS
        except Exception as error:  # noqa: BLE001  (the last line of defence: anything here is ours to repair)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # of click's own writing
                show_error(unwritable(error, sys.stdout), None)
                return Exit.USAGE
            if isinstance(error, FileNotFoundError) and not _stands_somewhere():
                show_error(
                    UsageError("the folder this was called in no longer exists", "Change to another one."), as_json
                )
                return Exit.USAGE
            if isinstance(error, ModuleNotFoundError) and (absent := not_installed(error)):
                show_error(absent, as_json)
                return absent.exit_code
            message = f"a defect of tgi-advisor: {type(error).__name__}: {printable(masked(str(error)))}"
            hint = "Please report it with the output of the same command under TGI_ADVISOR_DEBUG=1."
            _json(error_body(Exit.BUG, message, hint), as_json)
            say(f"{click.style('Error:', fg='red')} {message}\n  {hint}", err=True)
            return Exit.BUG


def _stands_somewhere() -> bool:
    """Whether the current folder is still there."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def show_error(error: AdvisorError, as_json: AsJson) -> int:
    """The error on standard error, and with --json as an object on standard output; its exit code."""
    _json(error_body(error.exit_code, error.message, error.hint, error.problems), as_json)
    lines = [f"{click.style('Error:', fg='red')} {error.message}"]
    lines += [_indented(str(problem)) for problem in error.problems]
    lines += [_indented(error.hint)] if error.hint else []
    say("\n".join(lines), err=True)
    return error.exit_code


def _keep_nearest(error: click.ClickException) -> None:
    """Of what click takes for meant, what is about as near as the nearest; `--format json` for `--json`."""
    named = getattr(error, "option_name", None) or getattr(error, "command_name", None)
    if named is None:
        return
    from difflib import SequenceMatcher  # imported only when something is misspelt

    near = {
        one: SequenceMatcher(None, named.strip("-"), one.strip("-")).ratio()
        for one in getattr(error, "possibilities", None) or ()
    }
    best = max(near.values(), default=0.0)
    meant = [one for one, ratio in near.items() if ratio >= max(0.6, best - 0.1)]
    context = getattr(error, "ctx", None)
    formats = [one.type for one in context.command.params if "--format" in one.opts] if context else []
    if named == "--json" and any("json" in getattr(one, "choices", ()) for one in formats):
        meant = ["--format json"]
    error.__dict__["possibilities"] = meant


def _fitted(text: str) -> str:
    """What click says, the error's own line continued below where it is too long for the terminal."""
    import textwrap

    return "".join(
        f"{textwrap.fill(line, width(), subsequent_indent='  ', break_long_words=False, break_on_hyphens=False)}\n"
        if line.startswith("Error:")
        else f"{line}\n"
        for line in text.splitlines()
    )


def _indented(text: str) -> str:
    """Two blanks before each line; lines too long for the terminal are continued below."""
    import textwrap

    columns = width()
    lines = []
    for line in text.splitlines():
        margin = "  " + line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line.strip(), columns, initial_indent=margin, subsequent_indent=margin,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join(lines)


def error_body(code: Exit, message: str, hint: str | None = None, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """An error as programs read it."""
    rows = []
    for problem in problems:
        place = problem.place
        lines = {"line": place.line, "column": place.column} if place and place.line else {"line": None, "column": None}
        rows.append({"message": problem.message, "hint": problem.hint, "file": place.file if place else None, **lines})
    return {"exit_code": int(code), "kind": code.name.lower(), "message": message, "hint": hint, "problems": rows}


def _json(body: dict[str, Any], wanted: AsJson) -> None:
    if wanted:
        import json

        from tgi_advisor.report import SCHEMA_VERSION

        text = json.dumps({"event": "failed", **body}, ensure_ascii=False)
        if wanted == "object":
            text = json.dumps({"schema_version": SCHEMA_VERSION, "error": body}, indent=2, ensure_ascii=False)
        try:
            say(text)
        except UsageError as full:  # an error is on its way already, and has its own exit code
            say(full.message, err=True)
