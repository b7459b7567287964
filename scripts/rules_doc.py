"""Write docs/rules.md from the rules' docstrings.

python scripts/rules_doc.py            # write what is stale
python scripts/rules_doc.py --check    # write nothing; exit 1 when it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from tgi_advisor.validate.rules.examples import document

PAGE = Path(__file__).parent.parent / "docs" / "rules.md"


def main(check: bool) -> int:
    """Write the page (or with `check` only say that it differs); 1 when a check finds it stale."""
    wanted = document()
    if PAGE.exists() and PAGE.read_text("utf-8") == wanted:
        return 0
    print(f"{'stale' if check else 'write'}: {PAGE}")
    if check:
        return 1
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
