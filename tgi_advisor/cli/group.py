"""The click group: errors become text and an exit code, in one place."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from tgi_advisor.errors import AdvisorError, Exit


class AdvisorGroup(click.Group):
    """A group whose commands may raise `AdvisorError`: it is shown, never traced.

    With --json the error is one JSON object on standard output, so that a program finds the
    problems where it looks for the answer.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit with the error's own code when it raises."""
        try:
            return super().invoke(ctx)
        except AdvisorError as error:
            _show(error, as_json=bool(ctx.meta.get("tgi_advisor.json")))
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            # The reader went away (`| head`): nothing is left to say, and nobody to say it to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(Exit.STARTS)
        except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
            raise
        except Exception as error:
            if os.environ.get("TGI_ADVISOR_DEBUG"):
                raise
            click.echo(
                f"Error: a defect of tgi-advisor: {type(error).__name__}: {error}\n"
                "Please report it with the output of the same command under TGI_ADVISOR_DEBUG=1.",
                err=True,
            )
            ctx.exit(Exit.BUG)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's, with Ctrl-C ending in the shell's own code for it."""
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": kwargs.get("standalone_mode", True)})
        except SystemExit as end:
            # click ends an interrupted command with 1, which is our code for a defect.
            if end.code == 1 and isinstance(end.__context__, click.Abort | KeyboardInterrupt):
                raise SystemExit(int(Exit.INTERRUPTED)) from None
            raise


def _show(error: AdvisorError, as_json: bool) -> None:
    """The error on standard error, and with --json as an object on standard output."""
    problems = [
        {
            "message": problem.message,
            "hint": problem.hint,
            "file": problem.place.file if problem.place else None,
            "line": problem.place.line if problem.place else None,
            "column": problem.place.column if problem.place else None,
        }
        for problem in error.problems
    ]
    if as_json:
        import json

        body = {
            "exit_code": int(error.exit_code), "kind": error.exit_code.name.lower(), "message": error.message,
            "hint": error.hint, "problems": problems,
        }  # fmt: skip
        click.echo(json.dumps({"schema_version": 1, "error": body}, indent=2, ensure_ascii=False))
    click.echo(f"{click.style('Error:', fg='red')} {error}", err=True)
