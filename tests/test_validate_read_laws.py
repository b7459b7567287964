"""Laws of the readers: no text raises, a hostile text takes no more than its share, unrelated files cost nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgi_advisor.validate.found import Document
from tgi_advisor.validate.read import read

FIXTURES = [path.read_text("utf-8") for path in sorted((Path(__file__).parent / "data" / "deployments").iterdir())]
IMAGE = "ghcr.io/huggingface/text-generation-inference:3.0.0"
NAMES = (
    "a.yaml",
    "a.json",
    "a.md",
    "a.sh",
    "a.bat",
    "a.ps1",
    "a.py",
    "a.tf",
    "a.service",
    ".env",
    "a.txt",
    "-",
    "a.ipynb",
)
SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

names = st.sampled_from(NAMES)
awkward = st.text(alphabet="\"'`$(){}[]<>|&;\\\n\t :-#%!^*@,=a1\x00\ue000\ufeff\u2028²é", max_size=60)


def served(document: Document) -> Document:
    """The document, after looking at everything of it that is computed."""
    for server in document.servers:
        assert all(value.place.line >= 1 and value.place.column >= 1 for value in server.values)
        assert all(value.number is None or value.number >= 0 for value in server.values)
    assert all(defect.place.line >= 1 for defect in document.defects)
    return document


@SETTINGS
@given(st.text(max_size=300), names)
def test_arbitrary_text_never_raises(text: str, name: str) -> None:
    served(read(f"text-generation-inference HF_MODEL_ID\n{text}", name))


@SETTINGS
@given(st.binary(max_size=300), names)
def test_arbitrary_bytes_never_raise(data: bytes, name: str) -> None:
    served(read(IMAGE + data.decode(errors="replace"), name))


@SETTINGS
@given(awkward, names)
def test_arbitrary_command_lines_never_raise(text: str, name: str) -> None:
    served(read(f"docker run {text} {IMAGE} {text}\ntext-generation-launcher {text}", name))


@SETTINGS
@given(st.sampled_from(FIXTURES), st.data(), names)
def test_a_damaged_file_never_raises(text: str, data: st.DataObject, name: str) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(awkward) + text[at + data.draw(st.integers(0, 20)) :]
    served(read(text, name))


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(IMAGE) | awkward
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ("services", "image", "command", "args", "environment", "env", "containers", "spec", "kind", "apiVersion",
             "ports", "volumes", "deploy", "resources", "limits", "devices", "valueFrom", "healthcheck", "name", "run")
        ),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@SETTINGS
@given(trees)
def test_arbitrary_trees_never_raise(tree: object) -> None:
    import json

    for root in (tree, {"services": {"a": tree}}, {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [tree]}}):
        served(read(f"# {IMAGE}\n{json.dumps(root)}", "a.yaml"))


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bomb.yaml", f"{BOMB}services: {{t: {{image: '{IMAGE}', command: *u, environment: *u}}}}\n"),
        ("deep.yaml", "[" * 50_000 + IMAGE),
        ("deep.py", "(" * 30_000 + "HF_MODEL_ID"),
        ("doubling.sh", 'A="x"\n' + 'A="$A$A"\n' * 60 + f"docker run {IMAGE} $A\n"),
        ("doubling.py", "# HF_MODEL_ID\na='x'\n" + "a=a+a+'y'\n" * 60),
        ("defaults.sh", f"docker run {IMAGE} " + "${a:-" * 30_000),
        ("actions.yaml", f"image: {IMAGE}\n" + "{{ " * 30_000),
        ("launchers.txt", "text-generation-launcher " * 5_000),
        ("fence.md", f"{IMAGE}\n" + "`" * 100_000),
        ("paths.sh", f"{IMAGE} " + "://a:b" * 30_000),
        ("blanks.sh", f"docker run {IMAGE}" + " " * 100_000 + "\n" + " " * 100_000 + "\n --x"),
    ],
)
def test_a_hostile_text_is_read_in_bounded_time(name: str, text: str) -> None:
    start = time.perf_counter()
    document = served(read(text, name))
    assert time.perf_counter() - start < 5
    assert sum(len(value.text) for server in document.servers for value in server.values) < 5 << 20


def test_a_thousand_mixed_files_are_read_quickly() -> None:
    unrelated = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\n" * 40
    related = [text for text in FIXTURES if "services:" in text or "containers:" in text]
    start = time.perf_counter()
    found = sum(
        len(read(related[n % len(related)] if n % 10 == 0 else unrelated, "x.yaml").servers) for n in range(1000)
    )
    assert found > 80
    assert time.perf_counter() - start < 2.5
