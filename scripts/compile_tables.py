"""Bring `tgi_advisor/facts/compiled/` up to date with the YAML tables, and with what the search finds.

The answers of `fits` for every model on one of every GPU take half a minute to make, and with them the replays that
were asked for on the way; they are made when code or tables that decide them have changed. Two branches that both made
them conflict: take either and run this again.

python scripts/compile_tables.py            # write what is stale
python scripts/compile_tables.py --check    # write nothing; exit 1 when something is stale
"""

from __future__ import annotations

import sys

import tgi_advisor
from tgi_advisor.choose.option import kept
from tgi_advisor.estimate.replay import peaks, remembered
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.facts import answered, replayed, tables


def answers() -> answered.Answers:
    """What the search finds for every shipped model on one of every GPU."""
    found: dict[str, dict[str, tuple[object, ...]]] = {}
    for option in tgi_advisor.fits().options:  # type: ignore[union-attr]
        if option.spec.tgi.flags:  # a batch size was found too, which is no part of an answer
            continue
        found.setdefault(option.model, {})[option.gpu] = kept(option)
    return found


def find_all() -> None:
    """Search everything, and keep the answers and the replays."""
    for path in (answered.FILE, replayed.FILE):
        path.unlink(missing_ok=True)
    made: dict[Alike, peaks.Peaks] = {}
    usual = peaks._peaks

    def noted(launch: Alike) -> peaks.Peaks:
        if launch not in made:
            made[launch] = usual(launch)
        return made[launch]

    setattr(peaks, "_peaks", noted)  # noqa: B010  # nothing is forgotten here
    answered.keep(answers())
    replayed.keep({remembered.name(launch): one.written() for launch, one in made.items()})


def main(check: bool) -> int:
    """Write (or with `check` only name) every compiled table that differs; 1 when a check finds one."""
    wanted = {tables.compiled_path(name): tables.compiled(name) for name in tables.names()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    orphans = sorted(set(tables.compiled_path("*").parent.glob("*.json")) - set(wanted))
    for path in stale + orphans:
        print(f"{'stale' if check else 'remove' if path in orphans else 'write'}: {path}")
    if check:
        outdated = not (answered.recalled() and replayed.is_current())
        print(f"stale: {answered.FILE}, {replayed.FILE}\n" if outdated else "", end="")
        return 1 if stale or orphans or outdated else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], "utf-8")
    for path in orphans:
        path.unlink()
    if not (answered.recalled() and replayed.is_current()):
        print(f"write: {answered.FILE}, {replayed.FILE}", flush=True)
        find_all()
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
