from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_stays_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 5_000_000


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tgi_advisor").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == package
    assert "tgi_advisor/py.typed" in held


def test_the_wheel_says_who_it_is(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        described = {
            name.split("/", 1)[1]: archive.read(name).decode() for name in archive.namelist() if "-info/" in name
        }
    metadata = described["METADATA"].splitlines()
    assert {"Name: tgi-advisor", "License-Expression: Apache-2.0", "Requires-Python: >=3.10"} <= set(metadata)
    assert "tgi-advisor = tgi_advisor.__main__:main" in described["entry_points.txt"]
    assert described["licenses/LICENSE"] == (ROOT / "LICENSE").read_text("utf-8")
