"""What `advise` gives must pass our own `validate`: shipped models, releases and GPUs, one deployment after the other.

`--full` tries every model with every release on every GPU below (minutes); without it, as tests/test_sweep.py does, a
design in which every model meets every GPU and one release in so many, and every release meets every GPU.

`--limits FILE` writes what was found as JSON, to be compared with what another version finds (`--against FILE`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tgi_advisor import api, container, search
from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.gather import snapshot
from tgi_advisor.plan import Plan
from tgi_advisor.render import render
from tgi_advisor.validate.judge import judge
from tgi_advisor.validate.read import read

MACHINES = (("nvidia-l4", 1), ("nvidia-h100-sxm", 1), ("amd-mi300x", 1), ("nvidia-t4", 1), ("nvidia-a10g", 4))
"""GPUs and how many of them."""
ONE_IN = 9
"""Releases of which the design tries one with each model."""


class Cell(NamedTuple):
    """One deployment to plan."""

    model: str
    """Model id."""
    release: str
    """TGI release."""
    gpu: str
    """GPU name."""
    gpus: int
    """How many."""


def every() -> Iterator[Cell]:
    """The whole product."""
    for model, release, (gpu, count) in product(_models(), _releases(), MACHINES):
        yield Cell(model, release, gpu, count)


def design(one_in: int = ONE_IN) -> Iterator[Cell]:
    """A part of the product in which every pair of a model or release and a GPU occurs."""
    for number, model in enumerate(_models()):
        for step, release in enumerate(_releases()[number % one_in :: one_in]):
            gpu, count = MACHINES[(number // one_in + step) % len(MACHINES)]
            yield Cell(model, release, gpu, count)


def _models() -> list[str]:
    return snapshot.recorded_ids()


def _releases() -> list[str]:
    return [release.name for release in releases.all_releases()]


def plan(cell: Cell) -> Plan | None:
    """What `advise` plans, without what else could be asked for; None where a fact about it is missing."""
    hardware = {"gpu": cell.gpu, "count": cell.gpus}
    try:
        spec = api.read_spec({"model": {"id": cell.model}, "hardware": hardware, "tgi": {"release": cell.release}})
        facts = api.gather_facts(spec, source="snapshot")
        base, found = search.best(spec, facts)
        seen, starts = found.prediction, found.limits is not None and found.prediction.outcome == "starts"
        runs = container.build(base.setting.spec, facts, seen.limits, seen.num_shard, seen) if starts else None
    except AdvisorError:
        return None
    return Plan(base.setting.spec, facts, seen, runs, "tgi", found.search)


def faults(cell: Cell, planned: Plan) -> list[str]:
    """The errors `validate` finds in the `docker run` line of a plan that starts."""
    if planned.container is None:
        return []
    document = read(render(planned.container, "docker-run"), "run.sh")
    found = judge(document, lambda model, _: snapshot.find(model), gpus.find(cell.gpu), cell.gpus)
    return [f"{one.code}: {one.message}" for one in found if one.severity == "error"]


def check(cells: Iterable[Cell]) -> tuple[int, dict[str, list[str]], dict[str, list[Any]]]:
    """(plans that start, what `validate` finds wrong, the limits found) by deployment."""
    started, wrong, limits = 0, {}, {}
    for cell in cells:
        planned = plan(cell)
        if planned is None:
            continue
        name = f"{cell.model} on {cell.gpus} x {cell.gpu}, TGI {cell.release}"
        started += planned.container is not None
        if found := faults(cell, planned):
            wrong[name] = found
        limits[name] = _found(planned)
    return started, wrong, limits


def _found(planned: Plan) -> list[Any]:
    seen = planned.prediction
    if planned.container is None:
        return ["out_of_memory" if seen.outcome == "starts" else seen.outcome]
    load = seen.under_load.verdict if seen.under_load else None
    return [seen.outcome, seen.limits.max_total_tokens, seen.limits.max_batch_prefill_tokens, load]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the whole product")
    parser.add_argument("--limits", type=Path, metavar="FILE", help="write the limits found")
    parser.add_argument("--against", type=Path, metavar="FILE", help="show what differs from limits written before")
    asked = parser.parse_args()
    started, wrong, limits = check(every() if asked.full else design())
    print(f"{started} of {len(limits)} plans start; validate finds errors in {len(wrong)} of them")
    for name, found in wrong.items():
        print(f"{name}: {'; '.join(found)}")
    if asked.limits:
        asked.limits.write_text(json.dumps(limits, indent=0), encoding="utf-8")
    if asked.against:
        before = json.loads(asked.against.read_text(encoding="utf-8"))
        for name, now in limits.items():
            if name in before and before[name] != now:
                print(f"{name}: {before[name]} -> {now}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
