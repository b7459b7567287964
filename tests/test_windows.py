"""Commands for Windows: a backslash is a letter of a path there, and `^` and a backtick continue a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from front import run

from tgi_advisor.validate.read import read

IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.7"
PS1 = f'$vol = "D:\\\\models"\ndocker run --gpus all `\n  -v %s `\n  {IMAGE} `\n  --model-id org/m\n'.replace(
    "\\\\", "\\"
)
BAT = f"docker run --gpus all ^\r\n  -v %s ^\r\n  {IMAGE} ^\r\n  --model-id org/m\r\n"
ONE = f"docker run --gpus all -v %s {IMAGE} --model-id org/m\n"


@pytest.mark.parametrize(
    ("file", "text", "written", "source"),
    [
        ("run.ps1", PS1, r"C:\models:/data", r"C:\models"),
        ("run.ps1", PS1, r'"C:\my models:/data"', r"C:\my models"),
        ("run.ps1", PS1, r"'C:\new\tmp:/data'", r"C:\new\tmp"),
        ("run.ps1", PS1, r"C:\my` models:/data", r"C:\my models"),
        ("run.ps1", PS1, r"\\server\share:/data", r"\\server\share"),
        ("run.ps1", PS1, "${vol}:/data", r"D:\models"),
        ("run.ps1", ONE, "C:/models:/data", "C:/models"),
        ("run.bat", BAT, r"C:\models:/data", r"C:\models"),
        ("run.cmd", BAT, r'"C:\my models:/data"', r"C:\my models"),
        ("page.md", f"```powershell\n{PS1}```\n", r"C:\models:/data", r"C:\models"),
        ("page.md", f"```cmd\n{BAT}```\n", r"C:\models:/data", r"C:\models"),
        ("page.md", f"```\n{ONE}```\n", r"C:\models:/data", r"C:\models"),
        ("page.md", f"```console\n{PS1}```\n", r"C:\models:/data", r"C:\models"),
        ("run.sh", ONE, r"/srv/my\ models:/data", "/srv/my models"),
    ],
)
def test_backslashes_of_paths(file: str, text: str, written: str, source: str) -> None:
    (server,) = read(text.replace("%s", written), file).servers
    (mount,) = server.mounts
    assert mount.source is not None
    assert (mount.kind, mount.source.text, mount.target.text) == ("bind", source, "/data")
    assert [word.text for word in server.args] == ["--model-id", "org/m"]


def test_short_options_of_docker_are_no_misspelt_secrets(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(
        f"docker run -it -p 8080:80 -e NAME=plain-text {IMAGE} --model-id org/m --num-shrd 1\n"
    )
    out = run("validate", str(tmp_path), "--format", "json").out
    assert "***" not in out
