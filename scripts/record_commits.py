"""Record which release each commit of TGI's main branch follows, for images tagged `sha-<commit>`.

python scripts/record_commits.py PATH/TO/CLONE

TGI's CI pushes an image for every commit (.github/workflows/build.yaml), and people deploy them. Such a
commit is no release; the last one tagged before it is the nearest whose rules are known.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tgi_advisor.facts import release as releases
from tgi_advisor.facts.tables import FOLDER

HEAD = f"""\
# Commits of TGI's main branch (first parents, seven digits) under the release that was the last one
# tagged before them. Written by scripts/record_commits.py from
# {releases.REPOSITORY}.
"""


def main(clone: Path) -> None:
    """Write `commits.yaml`, oldest release first."""
    tagged = [
        (_git(clone, "log", "-1", "--format=%ct", f"v{one}").strip(), one.name) for one in releases.all_releases()
    ]
    dates = sorted((int(date), name) for date, name in tagged)
    after: dict[str, list[str]] = {name: [] for _, name in dates}
    for line in reversed(_git(clone, "log", "--first-parent", "--format=%H %ct", "main").splitlines()):
        commit, when = line.split()
        before = [name for date, name in dates if date <= int(when)]
        if before:
            after[before[-1]].append(commit[:7])
    rows = [f'"{name}": {" ".join(commits)}\n' for name, commits in after.items() if commits]
    (FOLDER / "commits.yaml").write_text(HEAD + "".join(rows), "utf-8")


def _git(clone: Path, *args: str) -> str:
    return subprocess.run(["git", "-C", str(clone), *args], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
