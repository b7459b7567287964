"""What is said of a file that holds no server: what is probably wrong with it, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from front import run

from tgi_advisor.errors import Exit

GPU = ("--gpu", "nvidia-l4")
COMMANDS = (("upgrade",), ("import",), ("advise", "--patch"), ("migrate", "--to", "vllm"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {id: gpt2}\n", "A deployment spec names its GPU"),
        ("a: [1\nb: 2\n", "It is no YAML: file.yaml:2:2"),
        ("services: {web: {image: nginx}}\n", "neither a TGI image nor the launcher"),
        ("", "neither a TGI image nor the launcher"),
    ],
)
def test_what_is_probably_wrong_is_said(
    command: tuple[str, ...], text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.yaml").write_text(text)
    ran = run(command[0], "file.yaml", *command[1:], *GPU)
    assert ran.code == Exit.USAGE
    assert "there is no TGI server in file.yaml" in ran.err
    assert words in " ".join(ran.err.split())


def test_a_name_that_is_none_and_one_of_a_model() -> None:
    assert "a file without a name" in run("upgrade", "").err
    assert "--model Qwen/Qwen2.5-7B-Instruct" in run("predict", "Qwen/Qwen2.5-7B-Instruct", *GPU).err
    assert "\\t" not in run("migrate", "file.yaml").err
