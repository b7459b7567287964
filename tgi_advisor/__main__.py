"""`python -m tgi_advisor`, and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from tgi_advisor.cli.main import cli

    sys.exit(cli.main(prog_name="tgi-advisor"))


if __name__ == "__main__":
    main()
