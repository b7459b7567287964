"""`python -m tgi_advisor`, and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from tgi_advisor.cli.main import cli

        cli.main(prog_name="tgi-advisor")
    except KeyboardInterrupt:  # while still starting, or already ending
        sys.exit(130)


if __name__ == "__main__":
    main()
