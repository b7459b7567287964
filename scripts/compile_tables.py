"""Bring `tgi_advisor/facts/compiled/` up to date with the YAML tables, and with what the search finds.

The answers for every model on one, two, four and eight of every GPU, and the replays that were asked for on the way,
take a minute or two to make on two cores; they are made when code or tables that decide them have changed. Two branches
that both made them conflict: take either and run this again.

python scripts/compile_tables.py            # write what is stale
python scripts/compile_tables.py --check    # write nothing; exit 1 when something is stale
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import Pool

from tgi_advisor.choose.compare import COUNTS
from tgi_advisor.choose.fits import on
from tgi_advisor.choose.option import judge, kept
from tgi_advisor.estimate.replay import peaks, remembered
from tgi_advisor.estimate.replay.alike import Alike
from tgi_advisor.facts import answered, gpu, release, replayed, tables
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.reader import read_any

Found = dict[tuple[str, int], dict[str, Sequence[object]]]


def of_model(model: str) -> tuple[Found, dict[str, Mapping[str, object]]]:
    """(what the search finds for a model by number of GPUs and GPU; the replays of its launches, by their checksum)."""
    made: dict[Alike, peaks.Peaks] = {}
    usual = peaks._peaks

    def noted(launch: Alike) -> peaks.Peaks:
        if launch not in made:
            made[launch] = usual(launch)
        return made[launch]

    known = snapshot.find(model)
    assert known is not None
    cards = sorted((row.facts for row in gpu.all_gpus() if row.facts is not None), key=lambda one: one.at_least)
    question = read_any({"model": {"id": model}, "hardware": {"gpu": cards[0].name}})
    anywhere = Facts(known, cards[0], 1, release.latest())
    found: Found = {(model, count): {} for count in COUNTS}
    setattr(peaks, "_peaks", noted)  # noqa: B010  # nothing is forgotten here
    try:
        for count in COUNTS:
            for card in cards:
                there = anywhere.elsewhere(card, count)
                asked = on(question, there)
                option = judge(replace(asked, tgi=replace(asked.tgi, num_shard=count)), there)
                if not option.spec.tgi.flags:  # else a batch size was found too, which is no part of an answer
                    found[model, count][card.name] = kept(option)
    finally:
        setattr(peaks, "_peaks", usual)  # noqa: B010
    return found, {remembered.name(launch): one.written() for launch, one in made.items()}


def find_all() -> None:
    """Search everything, and keep the answers and the replays."""
    for path in (answered.FILE, replayed.FILE):
        path.unlink(missing_ok=True)
    models = sorted(snapshot.recorded_ids())
    with Pool() as pool:
        every = pool.map(of_model, models, chunksize=1)
    answered.keep({asked: answers for found, _ in every for asked, answers in found.items()})
    replayed.keep({launch: rows for _, replays in every for launch, rows in replays.items()})


def main(check: bool) -> int:
    """Write (or with `check` only name) every compiled table that differs; 1 when a check finds one."""
    wanted = {tables.compiled_path(name): tables.compiled(name) for name in tables.names()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    orphans = sorted(set(tables.compiled_path("*").parent.glob("*.json")) - set(wanted))
    for path in stale + orphans:
        print(f"{'stale' if check else 'remove' if path in orphans else 'write'}: {path}")
    if check:
        outdated = not (answered.is_current() and replayed.is_current())
        print(f"stale: {answered.FILE}, {replayed.FILE}\n" if outdated else "", end="")
        return 1 if stale or orphans or outdated else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], "utf-8")
    for path in orphans:
        path.unlink()
    if not (answered.is_current() and replayed.is_current()):
        print(f"write: {answered.FILE}, {replayed.FILE}", flush=True)
        find_all()
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
