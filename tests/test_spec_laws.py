"""What holds for every spec, every mutation of one, and any text at all."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgi_advisor.errors import SpecError
from tgi_advisor.spec import records
from tgi_advisor.spec.reader import build, read_file, read_text, with_set
from tgi_advisor.spec.records import AUTO, AutoscaleSpec, Bound, GpuSpec, MountSpec, Spec
from tgi_advisor.spec.schema import json_schema
from tgi_advisor.spec.tree import List, Map, Node, Scalar, compose
from tgi_advisor.spec.writer import dump

CHECK = jsonschema.Draft202012Validator(json_schema())
fast = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

# Text a person might write, with everything that another YAML reader would take for something else.
WORDS = st.one_of(
    st.sampled_from(
        ["on", "no", "y", "1", "1.0", "010", "1:30", "0x1f", "null", "~", "true", "1e3", "- a", "a: b", "#"]
    ),
    st.text(st.one_of(st.just(" "), st.characters(categories=["L", "M", "N", "P", "S"])), min_size=1, max_size=12),
).filter(lambda text: "hf_" not in text and "://" not in text and "api_org_" not in text)
COUNTS = st.integers(1, 2**31 - 1)
BOUNDS = st.one_of(
    st.just(AUTO),
    COUNTS.map(lambda n: Bound(n, n)),
    st.builds(lambda a, b: Bound(min(a, b), max(a, b)), COUNTS, COUNTS),
    st.builds(Bound, st.none(), COUNTS),
)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True)
DRIVERS = st.from_regex(r"[1-9][0-9]{2}(\.[0-9]{1,3}){0,2}", fullmatch=True)
ADDRESSES = st.sampled_from(["http://prometheus:9090", "https://p.example/prometheus"])
FLAGS = st.dictionaries(
    st.sampled_from(["max-batch-size", "max-best-of", "speculate", "rope-factor", "json-output", "cuda-graphs"]),
    st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9), WORDS, st.lists(WORDS).map(tuple)),
)
ENV = st.dictionaries(st.from_regex(r"X_[A-Z0-9]{0,5}|ON|NULL|Y", fullmatch=True), st.one_of(WORDS, st.just("")))

SOURCES = st.builds(str.__add__, st.sampled_from(["/", "./", "~/", "/a:b/", "/srv/models:/data/"]), WORDS)
TARGETS = st.from_regex(r"/[a-z]{1,3}(/[A-Za-z0-9 $'._-]{0,4}[a-z])?", fullmatch=True).filter(
    lambda path: path != "/data"
)
MOUNTS = st.lists(
    st.builds(MountSpec, SOURCES | st.just("volume.1"), TARGETS, st.booleans()),
    max_size=3,
    unique_by=lambda mount: mount.target,
).map(tuple)
"""Sources with colons and all that YAML quotes, at paths that nothing else lies on."""


def patterned(meta: Any) -> st.SearchStrategy[str]:
    """Texts that a field's pattern takes."""
    return DRIVERS if meta.get("number") else ADDRESSES if "http" in meta["pattern"] else NAMES


def kinds(meta: Any) -> st.SearchStrategy[Any]:
    """Any value of a field, by its kind."""
    low, high = meta.get("minimum", 0), meta.get("maximum", 1e6)
    return {
        "text": patterned(meta) if "pattern" in meta else WORDS,
        "choice": st.sampled_from(meta.get("choices", ("",))),
        "bool": st.booleans(),
        "number": st.floats(low, high),
        "count": st.integers(max(low, 1), int(meta.get("maximum", 2**31 - 1))),
        "size": st.integers(int(low), 1 << 50),
        "shm_size": st.sampled_from(["1g", "512m", "3k", "77b"]),
        "bound": BOUNDS,
        "flags": FLAGS,
        "env": ENV,
        "gpus": st.just("all"),
        "mounts": MOUNTS,
    }[meta["kind"].removesuffix("_or_auto")]  # fmt: skip


def some(record: type[Any]) -> st.SearchStrategy[Any]:
    """Any record, fields left at their default or not."""
    values = {}
    for name, field in records.settings(record).items():
        meta = field.metadata
        if meta["kind"] in ("section", "gpu"):
            values[name] = some(type(meta["default"]))
        else:
            values[name] = kinds(meta) if meta["required"] else st.one_of(st.just(meta["default"]), kinds(meta))
    return st.builds(record, **values)


def consistent(spec: Spec) -> Spec:
    """The spec without what contradicts another field (the rules have their own tests)."""
    low, high = spec.limits.max_input_tokens.low or 1, spec.limits.max_total_tokens.high
    if high is not None and low + (spec.workload.max_new_tokens or 1) > high:
        spec = replace(spec, limits=replace(spec.limits, max_total_tokens=AUTO))
    if (spec.tgi.num_shard or 1) > (spec.hardware.count or 1):
        spec = replace(spec, tgi=replace(spec.tgi, num_shard=None))
    auto, keeps = spec.autoscale, spec.kubernetes
    fewest = spec.container.replicas if auto.min is None else auto.min
    if auto.max is None or auto.max < fewest or (auto.by == "keda" and auto.prometheus is None):
        spec = replace(spec, autoscale=AutoscaleSpec(on=auto.on, by="hpa"))
    elif auto.on == "gpu-cache":
        spec = replace(spec, autoscale=replace(auto, target=None))
    if keeps.storage != "shared":
        spec = replace(spec, kubernetes=replace(keeps, storage=None))
    return replace(spec, tgi=replace(spec.tgi, image=None)) if spec.tgi.release else spec


SPECS: st.SearchStrategy[Spec] = some(Spec).map(consistent)


def data(node: Node | None) -> Any:
    """The tree as a YAML 1.2 reader would hand it to a JSON Schema validator."""
    match node:
        case Scalar():
            return node.value
        case Map():
            return {key.text: data(value) for key, value in node.entries}
        case List():
            return [data(item) for item in node.items]
    return None


def attempt(read: Callable[..., Spec], *args: Any) -> Spec | None:
    """The spec, or None when it is refused; anything else is a defect."""
    try:
        return read(*args)
    except SpecError as error:
        refused = error
    assert refused.problems or refused.hint
    return None


@fast
@given(SPECS)
def test_what_is_written_is_read_again_and_valid(spec: Spec) -> None:
    text = dump(spec)
    assert read_text(text, "x.yaml") == spec
    CHECK.validate(data(compose(text, "x.yaml")))
    assert with_set(spec, []) == spec
    assert build([], base=spec) == spec


@fast
@given(SPECS, COUNTS)
def test_the_last_set_wins_and_touches_nothing_else(spec: Spec, count: int) -> None:
    low, high = spec.limits.max_input_tokens, spec.limits.max_total_tokens
    sets = [f"limits.max_batch_prefill_tokens={n}" for n in (1, count)]
    changed = with_set(spec, sets).limits
    assert changed.max_batch_prefill_tokens == Bound(count, count)
    assert (changed.max_input_tokens, changed.max_total_tokens) == (low, high)


def _paths(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [path]
    return [path, *(found for key, item in value.items() for found in _paths(item, (*path, key)))]


ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 10**30, 1e300, "", "x", "8k", "9k ", "010", "24GiB", "1e3", "auto", "all",
    [], [0], ["a", "a"], {}, {"min": "8k"}, {"x": 1}, [[]], "\n", "hf_", "on", "yes", "\u00e9", "0.5k", "8.0",
)  # fmt: skip


def yaml_of(value: Any) -> str:
    """Flow YAML, plain where that is what tests the reader."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_of(k)}: {yaml_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(yaml_of, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return repr(value)


@settings(fast, max_examples=60)
@given(SPECS, st.randoms(use_true_random=False))
def test_mutated_specs_are_read_or_refused_and_what_is_read_is_valid(spec: Spec, chance: random.Random) -> None:
    whole = data(compose(dump(spec), "x.yaml"))
    for _ in range(15):
        document = copy.deepcopy(whole)
        for _ in range(chance.randint(1, 2)):
            *inside, name = chance.choice(_paths(document)[1:])
            here = document
            for step in inside:
                here = here[step]
            match chance.randrange(4):
                case 0:
                    del here[name]
                case 1:
                    here[name + chance.choice("sx_")] = here.pop(name)
                case _:
                    here[name] = chance.choice(ODD)
            if len(_paths(document)) < 2:
                break
        text = yaml_of(document)
        if attempt(read_text, text, "x.yaml") is not None:
            CHECK.validate(data(compose(text, "x.yaml")))


@fast
@given(SPECS, st.sampled_from(["", "model", "hardware", "tgi", "limits", "workload", "container"]), NAMES)
def test_an_unknown_key_is_refused_by_schema_and_reader_alike(spec: Spec, section: str, name: str) -> None:
    document = data(compose(dump(spec), "x.yaml"))
    where = document.setdefault(section, {}) if section else document
    where[f"z{name}"] = 1
    assert not CHECK.is_valid(document)
    assert attempt(read_text, yaml_of(document), "x.yaml") is None


@settings(fast, max_examples=500)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    attempt(read_text, text, "x.yaml")


@settings(fast, max_examples=500)
@given(st.lists(st.sampled_from(
    ["model", "id", "hardware", "gpu", ":", ": ", "\n", "  ", "\t", "- ", "[", "]", "{", "}", ",", "&a", "*a", "!!str",
     '"', "'", "|", ">", "#", "?", "---", "...", "%", "@", "8k", "null", "<<", "\\", "\ufeff", "\x00", "\u2028", "x"]
), max_size=40).map("".join))  # fmt: skip
def test_anything_that_looks_like_yaml_is_read_or_refused(text: str) -> None:
    attempt(read_text, text, "x.yaml")


@settings(fast, max_examples=200)
@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        attempt(read_file, file.name)


@fast
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_set_is_taken_or_refused(path: str, value: str) -> None:
    spec = Spec(records.ModelSpec("x"), records.HardwareSpec(GpuSpec("y")))
    for argument in (path, f"{path}={value}", f"tgi.env.{path}={value}", f"model.id={value}", f"limits.{path}={value}"):
        attempt(with_set, spec, [argument])


SIMPLE_LINES = st.builds(
    str.__add__,
    st.sampled_from(["", "", "", "  ", "  ", "    ", " "]),
    st.sampled_from(
        [
            "model:", "id: gpt2", "id:  a/b.c:d@e+f # a word", "hardware:", "gpu: nvidia-l4", "count: 8k", "#",
            "# a: b", "tgi: # which", "env:", "LOG_LEVEL: info", "cache: ./data", "x: ../y", "x: ...", "x: a:", "x: -1",
            "x: b #", "l:#x", "x: y z", "", " ", "x: 'y'", "x: [y]", "<<: x", "a b: c", "- x", "x: null", "---",
            "x : y", "x: http://y/z",
        ]
    ),
)  # fmt: skip


@fast
@given(st.lists(SIMPLE_LINES, max_size=8).map("\n".join) | WORDS)
def test_a_text_is_the_same_tree_without_the_parser(text: str) -> None:
    """A letter that no simple text has, in a comment at its end, leaves the whole text to the parser."""

    def tree(written: str) -> object:
        try:
            return compose(written, "spec.yaml")
        except SpecError as error:
            return [(problem.message, problem.place) for problem in error.problems]

    assert tree(f"{text}\n# easy") == tree(f"{text}\n# éasy")
