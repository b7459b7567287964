"""A mirror of the Hub that is asked here is asked by the container, or it is said what to do."""

from __future__ import annotations

import pytest
from front import run

LAUNCH = ("-m", "Qwen/Qwen2.5-7B-Instruct", "-g", "nvidia-l4")


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("docker-run", "-e HF_ENDPOINT=https://mirror.example/hub \\"),
        ("compose", "HF_ENDPOINT: https://mirror.example/hub\n"),
        ("kubernetes", "- name: HF_ENDPOINT\n              value: https://mirror.example/hub\n"),
        ("env", "HF_ENDPOINT=https://mirror.example/hub\n"),
    ],
)
def test_every_format_passes_the_mirror_on(monkeypatch: pytest.MonkeyPatch, form: str, line: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    ran = run("emit", "-f", form, *LAUNCH)
    assert line in ran.out
    assert ran.err == ""


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        ("https://huggingface.co", (), ""),
        ("http://127.0.0.1:8453", (), "inside a container is the container itself"),
        ("http://localhost", (), "inside a container is the container itself"),
        ("http://[::1]:80", (), "inside a container is the container itself"),
        ("https://me:geheim@mirror.example", (), "holds a secret and is not written down"),
        ("https://mirror.example/?key=geheim", (), "holds a secret and is not written down"),
        ("https://mirror.example", ("--set", "tgi.env.HF_ENDPOINT=http://10.0.0.1"), ""),
    ],
)
def test_what_the_container_cannot_be_given_is_said(
    monkeypatch: pytest.MonkeyPatch, url: str, more: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    ran = run("emit", *LAUNCH, *more)
    assert f"HF_ENDPOINT={url}" not in ran.out
    assert said in ran.err
    assert bool(ran.err) is bool(said)
    assert "geheim" not in ran.out + ran.err
    assert ("http://10.0.0.1" in ran.out) is bool(more)


@pytest.mark.parametrize(("release", "half"), [("3.2.0", True), ("3.2.1", False)])
def test_older_launchers_ask_the_public_hub(monkeypatch: pytest.MonkeyPatch, release: str, half: bool) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    ran = run("emit", *LAUNCH, "-r", release)
    assert "HF_ENDPOINT=https://mirror.example" in ran.out
    assert ("its launcher and router ask huggingface.co" in ran.err) is half
