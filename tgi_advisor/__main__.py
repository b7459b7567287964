"""`python -m tgi_advisor`, and the console script."""

from __future__ import annotations

import gc
import sys

GARBAGE = 50_000
"""New objects after which Python looks for cycles: its 700 come about every millisecond of a start, which has none."""


def main() -> None:
    """Run the command line and exit with its code."""
    gc.set_threshold(GARBAGE)
    try:
        from tgi_advisor.cli.main import cli

        cli.main(prog_name="tgi-advisor")
    except ModuleNotFoundError as error:  # of what every command needs
        from tgi_advisor.errors import not_installed

        if (absent := not_installed(error)) is None:
            raise
        sys.stderr.write(f"Error: {absent.message}\n  {absent.hint}\n")
        sys.exit(absent.exit_code)
    except KeyboardInterrupt:  # while still starting, or already ending
        sys.exit(130)
    finally:
        gc.freeze()  # or the interpreter's end looks for cycles among all there is, once more


if __name__ == "__main__":
    main()
