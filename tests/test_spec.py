"""Specs that are read: what they come to, `--set`, the writer, the schema and `configs/`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from front import run
from golden import Golden

from tgi_advisor.errors import Place
from tgi_advisor.spec.contradictions import image_release
from tgi_advisor.spec.reader import build, read_file, read_text, with_set
from tgi_advisor.spec.records import AUTO, Bound, GpuSpec, Spec, all_settings
from tgi_advisor.spec.schema import Names, json_schema
from tgi_advisor.spec.writer import dump, starter
from tgi_advisor.units import GB, GiB, MiB

CONFIGS = Path(__file__).parent.parent / "configs"
EVERY_FIELD = Path(__file__).parent / "data" / "specs" / "every-field.yaml"
GOOD = "model: {id: org/name}\nhardware: {gpu: nvidia-l4}\n"


def one(more: str) -> Spec:
    return read_text(GOOD + more, "spec.yaml")


def test_every_field(golden: Golden) -> None:
    spec = read_file(str(EVERY_FIELD))
    golden("spec/every-field.yaml", dump(spec))
    assert spec.limits.max_total_tokens == Bound(2048, 131072)
    assert spec.place("hardware.gpu") == Place(str(EVERY_FIELD), 8, 3)
    assert spec.place("hardware.gpu.name") == spec.place("hardware.gpu")


def test_two_lines_are_a_spec_and_the_rest_has_its_default() -> None:
    spec = one("")
    assert spec == build([("model.id", "org/name"), ("hardware.gpu", "nvidia-l4")])
    for path, field in all_settings():
        if path in ("model", "model.id", "hardware", "hardware.gpu", "hardware.gpu.name"):
            continue
        value: Any = spec
        for name in path.split("."):
            value = getattr(value, name)
        assert value == field.metadata["default"], path


@pytest.mark.parametrize("path", [path for path, field in all_settings() if not field.metadata["required"]])
def test_a_field_left_empty_has_its_default(path: str) -> None:
    assert with_set(one(""), [f"{path}="]) == one("")


@pytest.mark.parametrize(
    ("more", "path", "value"),
    [
        ("tgi: {release: 3.3}", "tgi.release", "3.3"),
        ("tgi: {release: 2.10}", "tgi.release", "2.10"),
        ("tgi: {env: {A: 1, B: true, C: 1.10, D: 010, E: '', F: no}}", "tgi.env",
         {"A": "1", "B": "true", "C": "1.10", "D": "010", "E": "", "F": "no"}),
        ("tgi: {flags: {max-batch-size: 8, --speculate: 2, rope_factor: 1.5, ngrok: true, cuda-graphs: [1], a: '8'}}",
         "tgi.flags", {"max-batch-size": 8, "speculate": 2, "rope-factor": 1.5, "ngrok": True, "cuda-graphs": (1,),
                       "a": "8"}),
        ("limits: {max_total_tokens: 128K}", "limits.max_total_tokens", Bound(131072, 131072)),
        ("limits: {max_total_tokens: {max: 8k}}", "limits.max_total_tokens", Bound(None, 8192)),
        ("limits: {max_total_tokens: {}}", "limits.max_total_tokens", AUTO),
        ("limits: {max_total_tokens: auto}", "limits.max_total_tokens", AUTO),
        ("tgi: {num_shard: auto}", "tgi.num_shard", None),
        ("container: {gpus: [0, GPU-3a1f]}", "container.gpus", ("0", "GPU-3a1f")),
        ("container: {shm_size: 512MiB}", "container.shm_size", "512m"),
        ("container: {shm_size: 1024m}", "container.shm_size", "1g"),
        ("container: {shm_size: 1GB}", "container.shm_size", "1000000000b"),
        ("container: {name: a-1}", "container.name", "a-1"),
        ("# a comment\n", "container.name", "tgi"),
    ],
)  # fmt: skip
def test_values(more: str, path: str, value: Any) -> None:
    got: Any = one(more)
    for name in path.split("."):
        got = getattr(got, name)
    assert got == value
    assert type(got) is type(value) or isinstance(value, dict)


def test_a_stated_gpu() -> None:
    gpu = "{name: my-gpu, memory: 23034MiB, bandwidth: 300GB, compute_capability: 8.9, fp16_tflops: 121, system: cuda}"
    spec = read_text(f"model: {{id: x}}\nhardware: {{gpu: {gpu}, in_use: 0, headroom: 1.5 GiB}}", "spec.yaml")
    assert spec.hardware.gpu == GpuSpec("my-gpu", 23034 * MiB, None, 8.9, 121.0, 300 * GB, "cuda")
    assert spec.hardware.headroom == 3 * GiB // 2


def test_set_is_laid_over_a_file_and_over_options() -> None:
    sets = [
        "tgi.flags.max_batch_size=8", "limits.max_total_tokens=8k", "limits.max_total_tokens.min=2k",
        "hardware.gpu.memory=20GiB", "tgi.env.ATTENTION=paged", "container.gpus=[0]", "model.revision=a=b",
    ]  # fmt: skip
    text = GOOD + "tgi:\n  flags:\n    max-batch-size: 4\n"
    spec = read_text(text, "f.yaml", sets)
    assert spec == with_set(read_text(text, "f.yaml"), sets)
    assert spec == build([("model.id", "org/name"), ("hardware.gpu", "nvidia-l4")], sets=sets)
    assert spec.tgi.flags == {"max-batch-size": 8}
    assert spec.limits.max_total_tokens == Bound(2048, None)
    assert spec.hardware.gpu == GpuSpec("nvidia-l4", memory=20 * GiB)
    assert (spec.tgi.env, spec.container.gpus, spec.model.revision) == ({"ATTENTION": "paged"}, ("0",), "a=b")


def test_what_set_leaves_alone_keeps_its_place() -> None:
    spec = with_set(read_text(GOOD, "f.yaml"), ["tgi.release=3.3.7"])
    assert str(spec.place("model.id")) == "f.yaml:1:9"
    assert str(spec.place("tgi.release")) == "--set tgi.release"


def test_options_are_taken_as_they_are() -> None:
    spec = build([("model.id", "./my models: #1"), ("hardware.gpu", "auto"), ("container.name", "on")])
    assert (spec.model.id, spec.container.name, spec.source) == ("./my models: #1", "on", "command line")
    assert build([("model.id", "b/c")], base=spec).hardware == spec.hardware


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("ghcr.io/huggingface/text-generation-inference:3.3.7", "3.3.7"),
        ("ghcr.io/huggingface/text-generation-inference:3.3.7-rocm", "3.3.7"),
        ("localhost:5000/tgi:v2.4-intel-cpu", "2.4"),
        ("ghcr.io/huggingface/text-generation-inference:3.3.7@sha256:00", "3.3.7"),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.4-gpu", "3.3.4"),
        ("ghcr.io/huggingface/text-generation-inference:latest", None),
        ("ghcr.io/huggingface/text-generation-inference:sha-1234567", None),
        ("localhost:5000/tgi", None),
        ("tgi", None),
    ],
)
def test_the_release_an_image_tells(image: str, release: str | None) -> None:
    assert image_release(image) == release


@pytest.mark.parametrize("release", ["3.3.7", "v3.3.7", "3.3"])
def test_release_and_image_may_agree(release: str) -> None:
    assert one(f"tgi: {{release: {release}, image: 'tgi:3.3.7-rocm'}}").tgi.release == release


# the starter


def test_the_starter(golden: Golden) -> None:
    text = starter("org/name", "nvidia-l4", 2, "3.3.7")
    golden("spec/starter.yaml", text)
    spec = read_text(text, "starter.yaml")
    pairs = [("model.id", "org/name"), ("hardware.gpu", "nvidia-l4"), ("hardware.count", "2"), ("tgi.release", "3.3.7")]
    assert spec == build(pairs)


def test_the_starter_teaches_every_field_and_its_comments_are_a_spec_too() -> None:
    text = starter("x: #y", "my gpu", 4, image="tgi:3.3.7", memory=23034 * MiB)
    assert read_text(text, "s").hardware.gpu == GpuSpec("my gpu", memory=23034 * MiB)
    lines = text.splitlines()[4:]
    uncommented = "\n".join(line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in lines)
    spec = read_text(uncommented.replace("#   ", "    "), "s")
    leaves = {p for p, f in all_settings() if f.metadata["kind"] not in ("section", "gpu")}
    unmentioned = {p for p in leaves if p not in spec.places}
    assert {p for p in unmentioned if not p.startswith("hardware.gpu.")} == {
        "hardware.headroom", "model.trust_remote_code", "tgi.release",
    }  # fmt: skip


# the schema

SHIPPED = json.loads(run("schema").out)
"""The schema with the names that are known."""


def test_the_schema_is_a_schema_and_states_every_default() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for path, field in all_settings():
        here = schema
        for name in path.split("."):
            objects = [here, *here.get("anyOf", ())]
            here = next(o["properties"][name] for o in objects if "properties" in o)
        assert here["description"] == field.metadata["doc"]
        assert ("default" in here) != field.metadata["required"], path
        if "default" in here:
            jsonschema.Draft202012Validator(here).validate(here["default"])


def test_the_schema_knows_the_names_it_is_given() -> None:
    names = Names(
        ("a/b",), ("nvidia-l4",), ("3.3.7",), {"max-batch-size": "Most requests.", "model-id": ""}, {"X": "x"}
    )
    schema = json_schema(names)
    check = jsonschema.Draft202012Validator(schema)
    start: dict[str, Any] = {"model": {"id": "x"}, "hardware": {"gpu": "y"}}
    assert check.is_valid(start | {"tgi": {"flags": {"max-batch-size": 8}, "release": "3.2", "env": {"Y": "1"}}})
    assert check.is_valid(start | {"tgi": {"flags": {"--max_batch-size": 8}}})
    assert not check.is_valid(start | {"tgi": {"flags": {"max-batch-sizes": 8}}})
    assert not check.is_valid(start | {"tgi": {"flags": {"model-id": "x"}}})
    offered = json.dumps(schema)
    assert all(f'"enum": [{json.dumps(word)}]' in offered for word in ("a/b", "nvidia-l4", "3.3.7"))


# configs/


def test_the_schema_in_configs_is_the_one_we_print() -> None:
    committed = (CONFIGS / "spec.schema.json").read_text("utf-8")
    assert committed == run("schema").out, "write it anew: tgi-advisor schema > configs/spec.schema.json"


def test_there_are_configs_to_start_from() -> None:
    assert len(list(CONFIGS.glob("*.yaml"))) >= 9
    assert (CONFIGS / "llama-3.1-8b-l4.yaml").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_a_config(path: Path) -> None:
    text = path.read_text("utf-8")
    first, modeline = text.splitlines()[:2]
    assert first.startswith("# Use this ")
    assert modeline == "# yaml-language-server: $schema=spec.schema.json"
    spec = read_file(str(path))
    assert spec.tgi.image
    assert image_release(spec.tgi.image) is not None
    assert read_text(dump(spec), "again") == spec
    jsonschema.Draft202012Validator(SHIPPED).validate(yaml.safe_load(text))


def test_the_other_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [EVERY_FIELD, *sorted(CONFIGS.glob("*.yaml"))]
    specs = [read_file(str(path)) for path in paths]
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    again = [read_file(str(path)) for path in paths]
    assert specs == again
    assert [s.places for s in specs] == [s.places for s in again]


def test_importing_the_reader_is_cheap() -> None:
    heavy = "yaml, difflib, jsonschema, click, json"
    code = f"import sys, tgi_advisor.spec.reader; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
