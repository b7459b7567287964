"""Bring `tgi_advisor/facts/compiled/` up to date with the YAML tables, and with what the search finds.

The answers of `fits` for every model on one of every GPU take half a minute to make; they are made when code or
tables that decide them have changed. Two branches that both made them conflict: take either and run this again.

python scripts/compile_tables.py            # write what is stale
python scripts/compile_tables.py --check    # write nothing; exit 1 when something is stale
"""

from __future__ import annotations

import sys

import tgi_advisor
from tgi_advisor.choose.option import kept
from tgi_advisor.facts import answered, tables


def answers() -> answered.Answers:
    """What the search finds for every shipped model on one of every GPU."""
    answered.FILE.unlink(missing_ok=True)
    found: dict[str, dict[str, tuple[object, ...]]] = {}
    for option in tgi_advisor.fits().options:  # type: ignore[union-attr]
        if option.spec.tgi.flags:  # a batch size was found too, which is no part of an answer
            continue
        found.setdefault(option.model, {})[option.gpu] = kept(option)
    return found


def main(check: bool) -> int:
    """Write (or with `check` only name) every compiled table that differs; 1 when a check finds one."""
    wanted = {tables.compiled_path(name): tables.compiled(name) for name in tables.names()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    orphans = sorted(set(tables.compiled_path("*").parent.glob("*.json")) - set(wanted))
    for path in stale + orphans:
        print(f"{'stale' if check else 'remove' if path in orphans else 'write'}: {path}")
    if check:
        outdated = not answered.recalled()
        print(f"stale: {answered.FILE}\n" if outdated else "", end="")
        return 1 if stale or orphans or outdated else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], "utf-8")
    for path in orphans:
        path.unlink()
    if not answered.recalled():
        print(f"write: {answered.FILE}", flush=True)
        answered.keep(answers())
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
