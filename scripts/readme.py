"""Writes the generated parts of README.md and pages of docs/, or with --check says whether they are current.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; `BLOCKS` names what makes it.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tgi_advisor import render
from tgi_advisor.errors import Exit
from tgi_advisor.facts import clusters
from tgi_advisor.facts.gpu import all_gpus
from tgi_advisor.facts.gpu import find as gpu_of
from tgi_advisor.facts.rows import all_rows

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("how-it-works", "kubernetes", "migrate", "platforms", "scaling", "upgrade")
    ),
)
BLOCK = re.compile(r"(?P<open><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<close><!-- end -->)", re.DOTALL)


PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "TGI_ADVISOR_DATA": os.devnull}


def console(*arguments: str, ends: Exit = Exit.STARTS) -> str:
    """A command of tgi-advisor and what it prints, as in a terminal of 100 columns without colour."""
    result = subprocess.run(
        [sys.executable, "-m", "tgi_advisor", *arguments],
        cwd=ROOT, env={**os.environ, **PLAIN}, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if result.returncode != ends:
        raise SystemExit(f"tgi-advisor {' '.join(arguments)} ended with {result.returncode}:\n{result.stderr}")
    output = "\n".join(line.rstrip() for line in result.stdout.rstrip().splitlines())
    return f"```console\n$ tgi-advisor {' '.join(arguments)}\n{output}\n```\n"


STARTED = ("inferred-budget", "works", "published-config", "oom-later")
DIED = ("oom-load", "oom-warmup", "oom-total")


def accuracy() -> str:
    """Three sentences from the tables of docs/accuracy.md."""
    page = (ROOT / "docs" / "accuracy.md").read_text("utf-8")
    rows: dict[str, list[str]] = {}
    for line in page.splitlines():
        if line.startswith("| "):
            name, *cells = (cell.strip() for cell in line.strip("| ").split(" |"))
            rows.setdefault(name, cells)  # the first table with that row: runs that are known well
    count, usual, most, usual_share, most_share = rows["tgi-advisor"]
    others = {name: float(rows[name][3].rstrip(" %")) for name in ("notebook", "launcher's guess", "weights + KV")}
    best = min(others.values())
    peak = rows["all"][3].split(", ")
    said = {kind: [int(cell) for cell in rows[kind][:4]] for kind in rows if kind in STARTED + DIED}

    def counted(kinds: Sequence[str], *columns: int) -> int:
        return sum(said[kind][column] for kind in kinds if kind in said for column in columns)

    worst = "at worst" if int(count) < 10 else "in nine of ten"  # of fewer than ten, nine in ten are all
    text = (
        f"`max_batch_total_tokens` of the {count} published runs whose release, GPU and arguments are known comes out "
        f"within {usual} in the median and {most} {worst} ({usual_share} and {most_share} of the GPU's memory; "
        f"the best other way to guess is off by {best} % of it in the median). Of {counted(STARTED, 0, 2, 3)} runs "
        f"that started, {counted(STARTED, 0)} are said to start; of {counted(DIED, 0, 2, 3)} that ran out of memory "
        f"while they came up, {counted(DIED, 3)} are said to, "
        f"and {counted(DIED, 1) or 'none'} to start with its margin. What PyTorch has reserved at the "
        f"warm-up's peak is {peak[0]} GiB off recordings of TGI's own server in the median, {peak[1]} GiB at worst."
    )
    return "\n".join(textwrap.wrap(text, 118, break_on_hyphens=False)) + "\n"


def gpus() -> str:
    """The GPUs of the table, by vendor, and how many cloud instance types name one."""
    by_vendor: dict[str, list[str]] = {}
    for row in all_gpus():
        by_vendor.setdefault(row.vendor, []).append(f"`{row.name.removeprefix(row.vendor.lower() + '-')}`")
    rows = "".join(f"| {vendor} | {', '.join(names)} |\n" for vendor, names in by_vendor.items())
    instances = sum(len(row.instances) for row in all_gpus())
    return f"| vendor | GPUs |\n| --- | --- |\n{rows}\n{instances} cloud instance types name one of them.\n"


def rows() -> str:
    """What every row of a report means, each with a place to link to."""
    parts = []
    for row in all_rows():
        less = f"\n\n*Less:* {row.less}" if row.less else ""
        parts.append(f"### {row.row}\n\n{row.means}\n\n*From:* {row.comes}{less}\n")
    return "\n".join(parts)


def kinds_of_clusters() -> str:
    """By which label each kind of cluster tells the GPU, with what that is for an L4."""
    lines = []
    for kind in clusters.kinds():
        found = clusters.nodes(kind.name, gpu_of("nvidia-l4"), 1) if kind.name != "aks" else None
        shown = (
            ", ".join(f"`{value}`" for value in found.values[:3]) + (", …" if len(found.values) > 3 else "")
            if found
            else ""
        )
        lines.append(f"| `{kind.name}` | {kind.title} | `{kind.label}` | {shown} |\n")
    return "| `cluster` | | label | of an L4 |\n| --- | --- | --- | --- |\n" + "".join(lines)


def formats() -> str:
    """What `emit --format` takes, with the first sentence of each renderer's file."""
    rows = []
    for name in render.FORMATS:
        (path,) = (ROOT / "tgi_advisor" / "render").glob(f"{name.replace('-', '_')}*.py")
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        rows.append(f"| `{name}` | {docstring.splitlines()[0].rstrip('.:')} |\n")
    return "| format | what it is |\n| --- | --- |\n" + "".join(rows)


def _change(page: str) -> str:
    """Of the answer of `upgrade --fix` the verdict on the mended file, and the change."""
    command, _, rest = page.partition("\nMended")
    first = "\n".join(command.splitlines()[:2])
    return f"{first}\n...\n\nMended{rest}"


def _table(page: str) -> str:
    """Of the answer of `upgrade --releases` the table."""
    first = "\n".join(page.splitlines()[:2])
    table = page[page.index("Releases on the way") :].partition("\n\n")[0]
    return f"{first}\n...\n\n{table}\n...\n```\n"


MIRROR = "us-docker.pkg.dev/my-project/ghcr/huggingface/text-generation-inference:3.3.7"
OF_SAGEMAKER = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:"
    "2.7.0-tgi3.3.6-gpu-py311-cu124-ubuntu22.04"
)
OF_PLATFORM: dict[str, tuple[str, str]] = {
    "helm": ("yaml", ""), "systemd": ("ini", ""), "kserve": ("yaml", ""), "skypilot": ("yaml", ""),
    "dstack": ("yaml", ""),
    "cloudrun": ("yaml", MIRROR), "sagemaker": ("json", OF_SAGEMAKER), "endpoints": ("json", ""),
    "azureml": ("yaml", ""), "vertex": ("json", MIRROR),
}  # fmt: skip
"""Language of each platform's file, and the image it takes where that is not TGI's own."""


def example(name: str) -> str:
    """What `emit` writes for a platform, and what it says beside that."""
    language, image = OF_PLATFORM[name]
    arguments = ["emit", "configs/llama-3.1-8b-l4.yaml", "--format", name]
    arguments += ["--set", f"tgi.image={image}"] if image else []
    arguments += ["--gpu", "nvidia-a100-80gb-pcie"] if name == "azureml" else []  # it has no L4
    result = subprocess.run(
        [sys.executable, "-m", "tgi_advisor", *arguments],
        cwd=ROOT, env={**os.environ, **PLAIN}, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    command = f"```sh\ntgi-advisor {shlex.join(arguments)}\n```\n"
    said = f"\nOn standard error:\n\n```text\n{result.stderr}```\n" if result.stderr else ""
    return f"{command}\n```{language}\n{result.stdout}```\n{said}"


def manifest() -> str:
    """The manifest that docs/kubernetes.md applies, as YAML."""
    deployment = ("emit", "-m", "meta-llama/Llama-3.1-8B-Instruct", "-g", "g6.xlarge", "--format", "kubernetes")
    return console(*deployment).replace("```console\n$ tgi-advisor " + " ".join(deployment), "```yaml", 1)


BLOCKS: dict[str, Callable[[], str]] = {
    "kubernetes": manifest,
    "advise": lambda: console("advise", "configs/llama-3.1-8b-l4.yaml"),
    "help": lambda: console("--help"),
    "accuracy": accuracy,
    "formats": formats,
    "gpus": gpus,
    "clusters": kinds_of_clusters,
    "rows": rows,
    **{f"platform-{name}": partial(example, name) for name in OF_PLATFORM},
    "fits": lambda: console("fits", "--model", "Qwen/Qwen2.5-7B-Instruct", "--gpu", "g6.12xlarge"),
    "upgrade": lambda: console(
        "upgrade", "tests/data/upgrade/old.sh", "--gpu", "nvidia-l4", "--offline", ends=Exit.LESS
    ),
    "upgrade-fix": lambda: _change(
        console("upgrade", "tests/data/upgrade/old.sh", "--gpu", "nvidia-l4", "--offline", "--fix", "--diff")
    ),
    "upgrade-releases": lambda: _table(
        console("upgrade", "tests/data/upgrade/old.sh", "--gpu", "nvidia-l4", "--offline", "--releases", ends=Exit.LESS)
    ),
    "migrate": lambda: console("migrate", "tests/data/migrate/chat.yaml", "--to", "vllm", "--offline"),
    "migrate-brief": lambda: console("migrate", "tests/data/migrate/chat.yaml", "--to", "vllm", "--offline", "--brief"),
    "validate": lambda: console(
        "validate", "tests/data/validate/run.sh", "--gpu", "nvidia-l4", "--ignore", "TGI540", ends=Exit.FINDINGS
    ),
}


def generated(text: str) -> str:
    """A page with every generated part written anew; SystemExit when a name is not in `BLOCKS`."""

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise SystemExit(f"nothing generates '{name}'; scripts/readme.py knows {', '.join(BLOCKS)}")
        return match["open"] + BLOCKS[name]() + match["close"]

    return BLOCK.sub(part, text)


def main() -> int:
    """0 when the pages are current (or now are), 1 when --check finds one stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check = parser.parse_args().check
    stale = 0
    for page in PAGES:
        old = page.read_text("utf-8")
        new = generated(old)
        if old == new:
            continue
        if check:
            print(f"{page.relative_to(ROOT)} is stale; run: python scripts/readme.py", file=sys.stderr)
            stale = 1
        else:
            page.write_text(new, "utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
