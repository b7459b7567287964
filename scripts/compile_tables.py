"""Bring `tgi_advisor/facts/compiled/` up to date with the YAML tables.

python scripts/compile_tables.py            # write what is stale
python scripts/compile_tables.py --check    # write nothing; exit 1 when something is stale
"""

from __future__ import annotations

import sys

from tgi_advisor.facts import tables


def main(check: bool) -> int:
    """Write (or with `check` only name) every compiled table that differs; 1 when a check finds one."""
    wanted = {tables.compiled_path(name): tables.compiled(name) for name in tables.names()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    orphans = sorted(set(tables.compiled_path("*").parent.glob("*.json")) - set(wanted))
    for path in stale + orphans:
        print(f"{'stale' if check else 'remove' if path in orphans else 'write'}: {path}")
    if check:
        return 1 if stale or orphans else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], "utf-8")
    for path in orphans:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
