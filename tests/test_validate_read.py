"""The reading half of `validate`: every fixture's whole Document, as golden JSON beside the other outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from golden import Golden

from tgi_advisor.errors import Place
from tgi_advisor.validate.found import DEFECTS, Document, Value
from tgi_advisor.validate.read import read

FIXTURES = Path(__file__).parent / "data" / "deployments"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
ENV = {"TGI_TAG": "3.2.0"}


def beside(name: str) -> str | None:
    """The file of that name among the fixtures."""
    path = FIXTURES / name
    return path.read_text("utf-8") if path.is_file() else None


def read_fixture(name: str) -> Document:
    return read((FIXTURES / name).read_text("utf-8"), name, ENV, beside)


def plain(record: Any, field: Field[Any]) -> bool:
    """Whether a field says nothing but its default."""
    value = getattr(record, field.name)
    return value in (None, "", (), {}) or value == field.default


def shown(value: Any, document: Document) -> Any:
    """A record as JSON, short enough to be read: defaults are left out, a Value is a line."""
    if isinstance(value, Place):
        return f"{value.line}:{value.column}" if value.file == document.file else str(value)
    if isinstance(value, Value):
        words = [f"{value.text!r} at {shown(value.place, document)}+{value.length}", value.origin]
        words += [] if value.known else [f"unknown {','.join(value.missing)}".strip()]
        words += [f"default of {','.join(value.defaulted)}"] if value.defaulted else []
        return "; ".join(words)
    if is_dataclass(value):
        said = [field for field in fields(value) if field.name not in ("text", "file") and not plain(value, field)]
        return {field.name: shown(getattr(value, field.name), document) for field in said}
    if isinstance(value, Mapping):
        return {name: shown(part, document) for name, part in value.items()}
    if isinstance(value, tuple):
        return [shown(part, document) for part in value]
    return value


@pytest.mark.parametrize("name", NAMES)
def test_every_fixture_is_read_as_recorded(name: str, golden: Golden) -> None:
    document = read_fixture(name)
    golden(f"deployments/{name}.json", json.dumps(shown(document, document), indent=1, ensure_ascii=False) + "\n")


def every_value(record: Any) -> list[Value]:
    """All Values in a record."""
    if isinstance(record, Value):
        return [record]
    if isinstance(record, Mapping):
        return [value for part in record.values() for value in every_value(part)]
    if isinstance(record, tuple):
        return [value for part in record for value in every_value(part)]
    if is_dataclass(record) and not isinstance(record, Place):
        return [value for field in fields(record) for value in every_value(getattr(record, field.name))]
    return []


@pytest.mark.parametrize("name", NAMES)
def test_every_word_stands_where_it_says(name: str) -> None:
    document = read_fixture(name)
    lines = document.text.split("\n")
    exact = 0
    for server in document.servers:
        for value in every_value(server):
            if value.place.file != name:
                continue
            line = lines[value.place.line - 1]
            assert 1 <= value.place.column <= len(line) + 1
            written = line[value.place.column - 1 : value.place.column - 1 + value.length]
            exact += bool(value.text) and written.strip("\"'") == value.text
    assert exact or not document.servers


def test_every_kind_of_defect_is_known_and_most_are_seen() -> None:
    seen = {defect.kind for name in NAMES for defect in read_fixture(name).defects}
    assert seen <= set(DEFECTS)
    assert len(DEFECTS) - len(seen) <= 3


@pytest.mark.parametrize(
    "name", [name for name in NAMES if not name.startswith(("prose", "run-other", "other-", "spec-bad"))]
)
def test_every_server_is_found(name: str) -> None:
    assert bool(read_fixture(name).servers) == (name != "compose-tokens-only.yaml")


def test_words_of_a_shell_wrapper_in_a_block_scalar_have_their_own_places() -> None:
    (server,) = read_fixture("compose-entrypoint.yaml").servers
    words = {value.text: (value.place.line, value.place.column) for value in server.args}
    assert words == {"--model-id": (9, 11), "org/model-7b": (9, 22), "--port": (10, 11), "8080": (10, 18)}


def test_variables_come_from_the_caller_then_from_dotenv_then_from_the_default() -> None:
    text = "services:\n  a:\n    image: x/text-generation-inference:${TAG:-1.0.0}\n"
    tags = [
        read(text, "compose.yaml", env, lookup).servers[0].values[0].text.rpartition(":")[2]
        for env, lookup in (
            ({"TAG": "3.0.0"}, lambda _: "TAG=2.0.0"),
            ({}, lambda _: "TAG=2.0.0"),
            ({}, lambda _: None),
        )
    ]
    assert tags == ["3.0.0", "2.0.0", "1.0.0"]


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/huggingface/text-generation-inference:3.0.0",
        "huggingface/text-generation-inference",
        "ghcr.nju.edu.cn/huggingface/text-generation-inference:1.0.3",
        "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.6.0-tgi3.2.0-gpu",
        "us-docker.pkg.dev/vertex-ai/vertex-vision-model-garden-dockers/pytorch-hf-tgi-serve:20240220",
        "us-docker.pkg.dev/deeplearning-platform-release/gcr.io/huggingface-text-generation-inference-cu121.2-2.py310",
        "ghcr.io/huggingface/tgi-gaudi:2.0.1",
        "localhost:5000/text-generation-inference@sha256:00",
    ],
)
def test_a_server_is_recognised_by_its_image_on_any_registry(image: str) -> None:
    for text in (f"services: {{a: {{image: '{image}'}}}}", f"docker run {image}\n"):
        (server,) = read(text, "compose.yaml" if "services" in text else "x.sh").servers
        assert server.image is not None
        assert server.image.text == image


@pytest.mark.parametrize(
    "image", ["ghcr.io/huggingface/text-embeddings-inference:1.0", "org/text-generation-inference-benchmark:1", "nginx"]
)
def test_other_images_are_not_servers(image: str) -> None:
    text = f"# text-generation-inference\nservices: {{a: {{image: '{image}'}}}}"
    assert read(text, "compose.yaml").servers == ()


def test_an_unrelated_file_is_not_even_parsed() -> None:
    assert read("a: [", "x.yaml").form == "none"
    assert read("docker run nginx", "x.sh").form == "none"
