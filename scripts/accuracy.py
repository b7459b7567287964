"""How far the estimate is from real TGI runs: every recorded warm-up, ours against three other ways to guess.

python scripts/accuracy.py            # print the tables
python scripts/accuracy.py --write    # write docs/accuracy.md, its picture and facts/measured.yaml
python scripts/accuracy.py --rows     # one line per row, worst first

The rows are tests/data/warmups.yaml. No amount is fitted on their budgets: what lies outside PyTorch's
allocator (tgi_advisor/facts/outside.yaml) follows from NCCL's source or from readings of memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parent))

import fast
import inside
import moved
import summed

from tgi_advisor.errors import AdvisorError
from tgi_advisor.estimate import defaults, launcher, uncertainty, warmup
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import outside
from tgi_advisor.facts import release as releases
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Prediction

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "tests" / "data" / "warmups.yaml"
OWN_FIELDS = ("sharded", "trust_remote_code")
"""Arguments of a row that bear on nothing here and that a spec writes elsewhere."""


@dataclass(frozen=True)
class Run:
    """One recorded run, ready to be predicted."""

    row: Mapping[str, Any]
    """The row of warmups.yaml."""
    setting: Setting
    """The launch it states."""
    given: Limits
    """The limits it states."""

    @property
    def observed(self) -> int | None:
        """Tokens of KV cache TGI inferred, where the row has them."""
        seen = self.row.get("observed") or {}
        budget = seen.get("max_batch_total_tokens")
        if budget is None and seen.get("kv_blocks"):
            budget = seen["kv_blocks"] * seen.get("block_size", self.setting.block_size)
        return budget

    @property
    def line(self) -> str:
        """Release line, e.g. `2.2`."""
        version = self.setting.facts.release.version
        return f"{version[0]}.x" if version[0] != 2 else f"2.{version[1]}"

    @property
    def trusted(self) -> bool:
        """High or medium confidence, with release, GPU and arguments known."""
        return self.row["confidence"] in ("high", "medium") and not self.row.get("unsure")


class Guess(NamedTuple):
    """What one method says about a run."""

    outcome: str
    """starts, refused or out_of_memory."""
    budget: int | None
    """max_batch_total_tokens."""


def runs() -> tuple[list[Run], list[tuple[str, str]]]:
    """The rows that can be predicted, and (id, reason) of those that cannot."""
    usable, skipped = [], []
    for row in yaml.safe_load(ROWS.read_text("utf-8")):
        if row.get("exclude"):
            skipped.append((row["id"], row["exclude"]))
            continue
        try:
            usable.append(_run(row))
        except AdvisorError as error:
            skipped.append((row["id"], f"cannot be stated: {error.message}"))
    return usable, skipped


def _run(row: Mapping[str, Any]) -> Run:
    from tgi_advisor.gather.facts import gather
    from tgi_advisor.spec import reader

    limits = row.get("limits") or {}
    flags = {name: value for name, value in (row.get("arguments") or {}).items() if name not in OWN_FIELDS}
    document: dict[str, Any] = {
        "model": {"id": row.get("like") or row["model"]},
        "hardware": {"gpu": _gpu(row), "count": row.get("gpu_count") or 1},
        "tgi": {"release": str(row["release"]), "flags": flags, "env": row.get("env") or {}},
        "limits": {name: limits[name] for name in limits if name != "max_batch_total_tokens"},
    }
    for name in ("dtype", "quantize", "kv_cache_dtype"):
        if row.get(name):
            document["model"][name] = row[name]
    if row.get("num_shard"):
        document["tgi"]["num_shard"] = row["num_shard"]
    for name in ("driver", "link", "in_use"):
        if row.get(name):
            document["hardware"][name] = row[name]
    if row.get("memory_fraction"):
        document["hardware"]["memory_fraction"] = row["memory_fraction"]
    spec = reader.read_text(yaml.safe_dump(document), row["id"])
    setting = defaults.resolve(spec, gather(spec, source="snapshot", offline=True))
    return Run(row, setting, defaults.given_limits(setting))


def _gpu(row: Mapping[str, Any]) -> Any:
    if row.get("gpu_memory_mib") and row.get("gpu"):
        return {"name": row["gpu"], "memory": f"{row['gpu_memory_mib']}MiB"}
    return row.get("gpu") or row.get("gpu_stated") or "unknown"


def ours(run: Run) -> tuple[Guess, Prediction]:
    """The default method with the amounts in force."""
    from tgi_advisor import verdict

    seen = verdict.predict(warmup.base(run.setting), run.given)
    return Guess(seen.outcome, seen.limits.max_batch_total_tokens if seen.outcome == "starts" else None), seen


# -- other ways to guess


def by_notebook(run: Run, limits: Limits) -> Guess:
    """The notebook's TGI variant, on the limits the server ended up with."""
    from tgi_advisor.estimate import notebook

    filled = limits._replace(max_input_tokens=limits.max_input_tokens or (limits.max_total_tokens or 2) - 1)
    if filled.max_total_tokens is None or filled.max_batch_prefill_tokens is None:
        return Guess("starts", None)
    facts = run.setting.facts
    nominal = notebook.nominal_gb(facts.gpu.memory_bytes)
    try:
        seen = notebook.notebook_tgi(facts.model, run.setting.num_shard, nominal, filled, run.setting.memory_fraction)
    except AdvisorError:  # a configuration the notebook cannot read
        return Guess("unknown", None)
    return Guess("starts" if seen.fits else "out_of_memory", max(0, seen.token_budget))


def by_launcher(run: Run, _limits: Limits) -> Guess:
    """TGI's own guess before it loads anything (`vram_maximum`), read with the newest release's eyes."""
    setting = run.setting
    config = launcher.read_config(setting.facts.model, releases.latest())
    memory = setting.facts.gpu.memory_bytes * setting.num_shard
    tokens = launcher.vram_maximum(config, memory, setting.memory_fraction, 0.95)
    return Guess("starts" if tokens else "out_of_memory", tokens)


def by_weights(run: Run, _limits: Limits) -> Guess:
    """Weights plus KV cache, what most calculators give: all memory that the stored weights leave."""
    setting = run.setting
    here = warmup.base(setting)
    free = setting.facts.gpu.memory_bytes - setting.facts.model.stored_bytes // setting.num_shard
    return Guess("starts" if free > 0 else "out_of_memory", max(0, free // (here.geometry.kv_bytes_per_token or 1)))


BASELINES: Mapping[str, Callable[[Run, Limits], Guess]] = {
    "notebook": by_notebook, "launcher's guess": by_launcher, "weights + KV": by_weights,
}  # fmt: skip


# -- the figures


class Result(NamedTuple):
    """One run with what was said about it."""

    run: Run
    ours: Guess
    baselines: Mapping[str, Guess]
    seen: Prediction
    spread: int
    """Bytes of one GPU by which the prediction says it may be off."""

    @property
    def right(self) -> bool:
        """Whether what happened was said."""
        return self.ours.outcome == EXPECTED[self.run.row["kind"]]

    @property
    def keeps_its_margin(self) -> bool:
        """Whether it is said to start, and still would, under load too, if the estimate were off by its spread."""
        seen = self.seen
        safe = seen.under_load is not None and seen.under_load.verdict == "safe"
        return seen.outcome == "starts" and seen.headroom_bytes >= self.spread and safe

    def relative(self, guess: Guess) -> float | None:
        """(said - observed) / observed tokens."""
        seen = self.run.observed
        return None if seen is None or guess.budget is None else guess.budget / seen - 1

    def share(self, guess: Guess) -> float | None:
        """The same difference in KV bytes, as a share of one GPU's memory."""
        seen = self.run.observed
        if seen is None or guess.budget is None:
            return None
        return (guess.budget - seen) * self.seen.kv_bytes_per_token / self.seen.gpu_total_bytes


EXPECTED = {
    "inferred-budget": "starts", "works": "starts", "published-config": "starts", "oom-later": "starts",
    "oom-load": "out_of_memory", "oom-warmup": "out_of_memory", "oom-total": "out_of_memory", "refused": "refused",
}  # fmt: skip


def results(everything: list[Run]) -> list[Result]:
    """Every run predicted."""
    found = []
    for run in everything:
        guess, seen = ours(run)
        if guess.outcome == "refused" and seen.reason and "NotEnoughMemory" in seen.reason:
            guess = guess._replace(outcome="out_of_memory")  # the router's refusal is about memory
        if seen.capture is not None and seen.capture.then == "ends":
            guess = Guess("out_of_memory", None)  # CUDA graphs are captured before it is ready
        baselines = {name: method(run, seen.limits) for name, method in BASELINES.items()}
        spread = uncertainty.spread(run.setting).bytes
        found.append(Result(run, guess, baselines, seen, spread))
    return found


def quantiles(values: list[float]) -> tuple[float, float]:
    """(median, nine-in-ten) of absolute values."""
    ordered = sorted(map(abs, values))
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.9))]


def percent(value: float) -> str:
    """`3.2 %`."""
    return f"{100 * value:.1f} %"


def error_rows(found: list[Result], group: Callable[[Result], str]) -> list[list[str]]:
    """Errors of the inferred budgets by group: count, relative and as a share of the GPU."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in found:
        if result.relative(result.ours) is not None:
            groups[group(result)].append(result)
    rows = []
    for name in sorted(groups):
        mine = groups[name]
        relative = quantiles([value for r in mine if (value := r.relative(r.ours)) is not None])
        share = quantiles([value for r in mine if (value := r.share(r.ours)) is not None])
        rows.append([name, str(len(mine)), *map(percent, (*relative, *share))])
    return rows


def method_rows(found: list[Result]) -> list[list[str]]:
    """Our error beside the baselines' on the same runs."""
    rows = []
    budgets = [r for r in found if r.run.observed is not None]
    for name in ("tgi-advisor", *BASELINES):
        said = [(r, r.ours if name == "tgi-advisor" else r.baselines[name]) for r in budgets]
        relative = [value for r, guess in said if (value := r.relative(guess)) is not None]
        share = [value for r, guess in said if (value := r.share(guess)) is not None]
        if relative:
            rows.append([name, str(len(relative)), *map(percent, (*quantiles(relative), *quantiles(share)))])
    return rows


def within_band(found: list[Result]) -> str:
    """How many budgets lie within the band the plan states, in a sentence."""
    budgets = [result for result in found if result.share(result.ours) is not None]
    inside = sum(
        result.run.observed is not None
        and result.seen.uncertainty is not None
        and result.seen.uncertainty.budget_low <= result.run.observed <= result.seen.uncertainty.budget_high
        for result in budgets
    )
    return f"{inside} of these {len(budgets)} budgets lie within the band that the plan states."


def confusion_rows(found: list[Result]) -> list[list[str]]:
    """What happened against what was said."""
    rows = []
    for kind, expected in EXPECTED.items():
        mine = [result for result in found if result.run.row["kind"] == kind]
        said = Counter(result.ours.outcome for result in mine)
        safe = sum(result.keeps_its_margin for result in mine)
        counts = (said["starts"], safe, said["refused"], said["out_of_memory"])
        if mine:
            rows.append([kind, *map(str, counts), expected])
    return rows


def wrong_rows(found: list[Result]) -> str:
    """The runs that went another way than said, and what is known of them."""
    lines = []
    for result in found:
        if not result.right:
            row = result.run.row
            known = "; ".join(row.get("known", []))
            margin = "with" if result.keeps_its_margin else "but not with"
            said = (
                f"{result.ours.outcome}, {margin} its margin"
                if result.ours.outcome == "starts"
                else result.ours.outcome
            )
            lines.append(f"- `{row['id']}` ({row['kind']}), said: {said}. Known: {known}")
    return "\n".join(lines) or "None."


VERDICTS = ("safe", "tight", "at risk")


def load_rows(found: list[Result]) -> list[list[str]]:
    """The second verdict, of runs that started, against what became of them."""
    rows = []
    for name, kinds in (("served", ("works", "inferred-budget", "published-config")), ("died later", ("oom-later",))):
        judged = Counter(
            result.seen.under_load.verdict if result.seen.under_load else "not judged"
            for result in found
            if result.run.row["kind"] in kinds and result.ours.outcome == "starts"
        )
        rows.append([name, *(str(judged[verdict]) for verdict in (*VERDICTS, "not judged"))])
    return rows


def linked(row: Mapping[str, Any]) -> str:
    """A run's id with a link to its source; without an address, as it is."""
    address = str(row["source"]).partition(" ")[0]
    return f"[{row['id']}]({address})" if address.startswith("http") else str(row["id"])


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * (len(headings) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


ERRORS = ["", "runs", "median error", "nine in ten within", "median, of GPU memory", "nine in ten, of GPU memory"]


def page(found: list[Result], skipped: list[tuple[str, str]]) -> str:
    """docs/accuracy.md."""
    trusted = [result for result in found if result.run.trusted]
    return (
        "\n\n".join(
            [
                "# Accuracy",
                "Written by `scripts/accuracy.py --write` from [the recorded runs](../tests/data/warmups.yaml); a test "
                "keeps it current. No amount is fitted on the budgets of these runs.",
                "## Inferred budgets: `max_batch_total_tokens` said against observed",
                "Runs of high or medium confidence with known release, GPU and arguments.",
                table(ERRORS, method_rows(trusted)),
                within_band(trusted),
                "Runs of any confidence, those included whose release, GPU or arguments were partly assumed:",
                table(ERRORS, method_rows(found)),
                "![predicted against observed](accuracy.svg)",
                "### By release line",
                table(ERRORS, error_rows(trusted, lambda result: result.run.line)),
                "### By GPU",
                table(ERRORS, error_rows(trusted, lambda result: result.run.setting.facts.gpu.name)),
                "## What happened against what was said",
                "The same runs. *With its margin*: it would still start, and be safe under load, if the estimate were "
                "off by the spread it states. `advise` looks for limits that would still start then, and that are safe "
                "or tight under load, not at risk ([how](search.md)).",
                table(
                    ["", "said starts", "of these with its margin", "said refused", "said out of memory", "right"],
                    confusion_rows(trusted),
                ),
                "Those that went another way:",
                wrong_rows(trusted),
                "### Under load",
                "The second verdict on runs that started, of every confidence.",
                table(["", *VERDICTS, "not judged"], load_rows(found)),
                *inside_pytorch(),
                *fast.section(),
                *moved.section(),
                "## Amounts outside PyTorch's allocator",
                "None is fitted: each follows from NCCL's source or is a reading of memory, not a budget of the runs "
                "here. One reading is of a run in this list: the context that driver 525 made eager on an A10G, from "
                "what nvidia-smi showed beside `gh-llama31-8b-a10g-2.2.0`.",
                table(["amount", "value", "read from"], amount_rows()),
                "## Runs left out",
                "\n".join(f"- `{name}`: {reason}" for name, reason in skipped) or "None.",
                "## Every run",
                table(
                    ["run", "release", "GPUs", "observed", "said", "error", "of GPU memory", "outcome"],
                    [run_row(result) for result in sorted(found, key=lambda result: result.run.row["id"])],
                ),
            ]
        )
        + "\n"
    )


def inside_pytorch() -> list[str]:
    """The section on what PyTorch has reserved."""
    rows = inside.everything()
    short = sum(not row.warmed_up for row in rows)
    return [
        "## Inside PyTorch's allocator",
        f"{len(rows)} [recordings](../tests/data/replays.yaml) of what TGI's own server code reserves on PyTorch's own "
        f"allocator while it loads and warms up ({short} of loading only), against what the estimate says (`predict "
        "--json` has it as `memory.pytorch`). Errors are in GiB of one GPU, in the median and at worst, either way; "
        "*by the sum* is the sum of parts that was used before, a prefill of so many bytes for every token included, "
        "and still is where a family is not replayed. *To the byte* replays the warm-up at a row's own length. "
        "KV cache and KV blocks are what follows for the budget on a GPU of the row's capability.",
        "Two things are apart from the recordings on purpose. The estimate needs never less memory for more tokens, "
        "which an allocator does not promise: it replays eight lengths to the doubling, takes each for no less than "
        "the two before it, draws a line between two, and counts at least 8 MiB for small tensors. Over 1,416 prefills "
        "of random length (scripts/lengths.py: the shipped models on 2.0.4, 2.2.0 and 3.3.7) that is 0.005 GiB off the "
        "replay at the length itself in the median, 0.02 in nine of ten and 0.19 in 99 of 100; at worst 1.5 GiB, where "
        "only whole multiples of 512 tokens fit the gaps (Llama-2-7B AWQ on two shards, 2.0.4). And the "
        "recordings' stand-in for flashinfer allocates 8 MiB for each wrapper, while the pinned 0.2.0.post2 also "
        "holds a 64 MiB index buffer (flashinfer/prefill.py of that release, lines 1085-1096): the estimate adds what "
        "is missing of the release's `flashinfer_bytes` beside the replay, and it is left out here on both sides. The "
        "stand-in for Marlin allocates what marlin-kernels 0.3.6 does for a product (gptq_marlin.cu, lines 2307-2319): "
        "the result, a copy of the input, and sums in float32; one without the latter two is up to 0.26 GiB off "
        "(Qwen2.5-7B GPTQ on 2.4.1).",
        "### By release",
        table(list(inside.HEADINGS), [*inside.group_rows(rows, inside.release), inside.all_rows(rows)]),
        "### By family",
        table(list(inside.HEADINGS), inside.group_rows(rows, inside.family)),
        "### Where the sum was off most",
        "Reserved by PyTorch, in GiB; launches of which the sum was off by up to 4.4 GiB.",
        table(list(inside.KNOWN_HEADINGS), inside.known_rows(rows)),
        "### Where the estimate is off by more than 0.03 GiB",
        "Said minus TGI's, in GiB. Qwen3 runs in transformers' class, which reads file by file: the estimate takes "
        "the files of a folder, of the Hub or of a cache as they are, and those of a shipped model to end after 4 GB, "
        "or 5 where that makes as many as it is known to have (five even files of Qwen3-8B leave 0.85 GiB less after "
        "load). "
        "Falcon-7B's KV cache of 1 MiB tensors and less lies in segments of its own, where slightly larger tensors "
        "find gaps: it counts for no more than they do, so that more need no less.",
        table(list(inside.FAR_HEADINGS), inside.far_rows(rows)),
        "### What is still a sum of parts",
        "Shipped models on one card of each compute capability whose kernels differ and on ROCm (an MI300X), launched "
        "without flags, with every release; what TGI refuses is left out. The reason is that of the place that decides "
        "(`estimate.replay.why_not`), and `predict --json` gives it for any launch, under "
        "`uncertainty.contributions`, as the reason of `allocator`.",
        table(list(summed.HEADINGS), summed.rows()),
    ]


def amount_rows() -> list[list[str]]:
    """The amounts outside PyTorch's allocator that stand in tables, with what they were read from."""
    rows = []
    for name, section in outside.sections().items():
        for row in section if isinstance(section, list) else [section]:
            sizes = {key: row[key] for key in row if key not in ("source", "note", "says", "begins")}
            said = ", ".join(f"{key} {_plain(value)}" for key, value in sizes.items())
            if name != "notes":
                rows.append([name, said, " ".join(row["source"].split())])
    return rows


def _plain(value: Any) -> str:
    """A value of a table in a cell."""
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)


def run_row(result: Result) -> list[str]:
    """One line per run."""
    run, said = result.run, result.ours
    relative, share = result.relative(said), result.share(said)
    facts = run.setting.facts
    return [
        linked(run.row),
        facts.release.name,
        f"{run.setting.num_shard} x {facts.gpu.name}",
        f"{run.observed:,}" if run.observed else run.row["kind"],
        f"{said.budget:,}" if said.budget else said.outcome,
        "" if relative is None else f"{100 * relative:+.1f} %",
        "" if share is None else f"{100 * share:+.1f} %",
        "as said" if result.right else f"**{said.outcome}**",
    ]


KNOWN, ASSUMED = "#1f77b4", "#bbb"


def picture(found: list[Result]) -> str:
    """docs/accuracy.svg: predicted against observed budgets, both logarithmic."""
    import math

    points = [(r.run.observed, r.ours.budget, r.run) for r in found if r.run.observed and r.ours.budget]
    size, edge = 480, 64
    low, high = 3.5, 7.0

    def at(tokens: int) -> float:
        return (math.log10(tokens) - low) / (high - low) * (size - 2 * edge)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="12">',
        f'<rect width="{size}" height="{size}" fill="white"/>',
        f'<line x1="{edge}" y1="{size - edge}" x2="{size - edge}" y2="{edge}" stroke="#999" stroke-dasharray="4"/>',
        f'<path d="M{edge} {edge}V{size - edge}H{size - edge}" fill="none" stroke="black"/>',
        f'<text x="{size / 2}" y="{size - 12}" text-anchor="middle">observed max_batch_total_tokens</text>',
        f'<text x="14" y="{size / 2}" text-anchor="middle" transform="rotate(-90 14 {size / 2})">predicted</text>',
        f'<circle cx="{edge + 14}" cy="{edge + 6}" r="4" fill="{KNOWN}"/>',
        f'<text x="{edge + 24}" y="{edge + 10}">release, GPU and arguments known</text>',
        f'<circle cx="{edge + 14}" cy="{edge + 24}" r="4" fill="{ASSUMED}"/>',
        f'<text x="{edge + 24}" y="{edge + 28}">something assumed</text>',
    ]
    for power, name in ((4, "10k"), (5, "100k"), (6, "1M"), (7, "10M")):
        offset = at(10**power)
        lines.append(f'<text x="{edge + offset:.0f}" y="{size - edge + 18}" text-anchor="middle">{name}</text>')
        lines.append(f'<text x="{edge - 6}" y="{size - edge - offset + 4:.0f}" text-anchor="end">{name}</text>')
    for observed, said, run in sorted(points, key=lambda point: point[0]):
        x, y = edge + at(observed), size - edge - at(said)
        colour = KNOWN if run.trusted else ASSUMED
        title = f"{run.row['id']}: observed {observed:,}, predicted {said:,}"
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{title}</title></circle>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def measured(found: list[Result]) -> str:
    """tgi_advisor/facts/measured.yaml: the runs a plan is told to be like."""
    lines = [
        "# Written by scripts/accuracy.py --write from tests/data/warmups.yaml.",
        "# Runs whose release, GPU, arguments and budget are known.",
    ]
    for result in sorted(found, key=lambda result: str(result.run.row["id"])):
        if result.share(result.ours) is None or not result.run.trusted:
            continue
        setting = result.run.setting
        lines += [
            f"- id: {result.run.row['id']}",
            f"  release: {setting.facts.release}",
            f"  generation: {setting.facts.gpu.generation}",
            f"  sharded: {'true' if setting.num_shard > 1 else 'false'}",
            f"  served_by: {setting.family.served_by}",
        ]
    return "\n".join(lines) + "\n"


def outputs(found: list[Result], skipped: list[tuple[str, str]]) -> Mapping[Path, str]:
    """Every file this script writes."""
    return {
        ROOT / "docs" / "accuracy.md": page(found, skipped),
        ROOT / "docs" / "accuracy.svg": picture(found),
        ROOT / "tgi_advisor" / "facts" / "measured.yaml": measured(found),
    }


def main() -> int:
    """Predict every row, print what was asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help="write docs/accuracy.md, docs/accuracy.svg and facts/measured.yaml"
    )
    parser.add_argument("--rows", action="store_true", help="one line per run, worst first")
    asked = parser.parse_args()
    everything, skipped = runs()
    found = results(everything)
    if asked.rows:
        for result in sorted(found, key=lambda r: -abs(r.share(r.ours) or 0.0)):
            print("  ".join(run_row(result)))
        return 0
    if asked.write:
        for path, text in outputs(found, skipped).items():
            path.write_text(text, "utf-8")
    else:
        print(page(found, skipped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
