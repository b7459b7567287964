from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_generated_parts_are_current() -> None:
    command = [sys.executable, "scripts/readme.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert (result.returncode, result.stderr) == (0, "")


def test_every_generated_part_is_closed() -> None:
    assert README.count("<!-- generated: ") == README.count("<!-- end -->") > 0


def test_the_first_command_runs_the_main_job_and_the_second_every_check() -> None:
    run, check = re.findall(r"```sh\n(.+?)\n```", README, re.DOTALL)
    assert run.endswith(".venv/bin/tgi-advisor advise configs/llama-3.1-8b-l4.yaml")
    assert check == "scripts/test"
    assert (ROOT / ".ci" / "run").read_text("utf-8").endswith(f"\n{check}\n")
    assert os.access(ROOT / check, os.X_OK)


PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("space/*.md")]


def _headings(page: Path) -> set[str]:
    """What a `#` of a link to the page may name, as GitHub makes it of headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading of it where the link names one."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (heading and target.suffix == ".md" and heading not in _headings(target)):
            wrong.append(link)
    assert wrong == []


def test_pages_are_found_from_the_readme() -> None:
    """Every page of docs/ can be reached over links, beginning with the README."""
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page.suffix == ".md" and page.exists() and page not in seen:
            seen.add(page)
            links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8"))
            todo += [page.parent / link for link in links]
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= {page.name for page in seen}


def test_the_walk_through_kubernetes_applies_what_it_shows() -> None:
    """Its manifest is one that a cluster takes, and its commands name what stands in it."""
    page = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)
    objects = {one["kind"]: one for one in yaml.safe_load_all(text)}
    for one in objects.values():
        kubernetes_validate.validate(one, "1.33", strict=True)
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"node.kubernetes.io/instance-type": "g6.xlarge"}
    (port,) = objects["Service"]["spec"]["ports"]
    assert f"kubectl port-forward service/{objects['Service']['metadata']['name']} 8080:{port['port']}" in page
    assert f"kubectl rollout status deployment/{objects['Deployment']['metadata']['name']}" in page
    (secret,) = {one["valueFrom"]["secretKeyRef"]["name"] for one in pod["containers"][0]["env"] if "valueFrom" in one}
    assert f"kubectl create secret generic {secret} " in page


def test_the_drawing_is_the_contract() -> None:
    drawing = re.search(r"```\n( +cli .+?)\n```", README, re.DOTALL)
    contract = re.search(
        r"^layers = \[\n(.+?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert drawing
    assert contract
    drawn = [re.split(r" {3,}", line.strip())[0].split(" · ") for line in drawing[1].splitlines()]
    assert drawn == [re.findall(r"\w+", line) for line in contract[1].splitlines()]
