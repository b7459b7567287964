"""Our own deployment specs: what they say, in the terms of a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType

from tgi_advisor.errors import Place, SpecError
from tgi_advisor.estimate.defaults import stated_flags
from tgi_advisor.facts import tables
from tgi_advisor.spec.fields import flag_name
from tgi_advisor.spec.records import Spec, flag_homes
from tgi_advisor.validate.found import Defect, Gpus, Hint, Mount, Server, Value
from tgi_advisor.validate.read.nodes import List, Map, Scalar
from tgi_advisor.validate.read.source import Source


def is_spec(root: Map) -> bool:
    """Whether a document is a deployment spec of tgi-advisor."""
    return isinstance(root.get("model"), Map) and isinstance(root.get("hardware"), Map) and root.get("kind") is None


def read_spec(source: Source, root: Map) -> tuple[list[Server], list[Defect]]:
    """The server of a spec, and what its own reader objects to."""
    from tgi_advisor.spec.reader import read_text

    name = source.file.name
    try:
        spec = read_text(source.text, name)
    except SpecError as error:
        nowhere = Place(name, 1, 1)
        defects = [Defect("spec", p.message, p.place or nowhere, p.hint) for p in error.problems]
        return [], defects or [Defect("spec", error.message, nowhere, error.hint)]
    args = [word for path, flag, value in _stated(spec) for word in _words(root, path, flag, value)]
    env = {name: v for name in root.map("tgi", "env").merged if (v := root.value("tgi", "env", name)) is not None}
    count = root.value("hardware", "count")
    gpu = root.value("hardware", "gpu") or root.value("hardware", "gpu", "name")
    named = spec.container.gpus
    number = count.number if count else 1 if isinstance(named, str) else len(named)
    release = root.value("tgi", "release")
    image = root.value("tgi", "image")
    notes = (f"release {release.text}",) if release else ()
    at = spec.place("container.mounts") or root.place
    mounts = tuple(
        Mount("bind", Value(one.target, at), Value(one.source, at), read_only=one.read_only)
        for one in spec.container.mounts
    )
    server = Server(
        "spec", "", root.place, image=image, args=tuple(args), env=MappingProxyType(env), notes=notes,
        gpus=Gpus("count", "platform", count, number), shm_size=root.value("container", "shm_size"), mounts=mounts,
        hints=(Hint("gpu", gpu, number),) if gpu else (),
    )  # fmt: skip
    return [server], []


def _stated(spec: Spec) -> Iterator[tuple[str, str, object]]:
    """Every launcher flag the spec states: the field, the flag, and the value as the spec's own reader has it."""
    yield "model.id", "model-id", spec.model.id
    if spec.model.revision != "main":
        yield "model.revision", "revision", spec.model.revision
    homes = flag_homes()
    for flag, value in stated_flags(spec).items():
        yield homes.get(flag, f"tgi.flags.{flag}"), flag, value
    for name in ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens"):
        fixed = getattr(spec.limits, name).fixed
        if fixed is not None:
            yield f"limits.{name}", name.replace("_", "-"), fixed


def _words(root: Map, path: str, flag: str, value: object) -> Iterator[Value]:
    """The words `emit` would write for the flag, at the places of the field."""
    named, at = _places(root, path)
    given = Value(f"--{flag}", named.place, "spec", length=named.length)
    row = tables.load("flags").get(flag, {})
    if row.get("type") == "switch" and value in (True, False, "true", "false"):
        if value in (True, "true"):
            yield given
        return
    texts = [str(one).lower() if isinstance(one, bool) else str(one) for one in _items(value)]
    for text in [",".join(texts)] if row.get("delimiter") else texts:
        if text.startswith("-"):
            yield replace(given, text=f"--{flag}={text}", place=at.place, length=at.length)
        else:
            yield from (given, replace(at, text=text))


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple) else (value,)


def _places(root: Map, path: str) -> tuple[Value, Value]:
    """The key and the value of a field; of a list its first entry stands for the value."""
    *inside, name = path.split(".", 2)
    key, node = next(entry for found, entry in root.map(*inside).merged.items() if flag_name(found) == flag_name(name))
    if isinstance(node, List):
        node = next((item for item in node.items if isinstance(item, Scalar)), key)
    return key.value("file"), (node if isinstance(node, Scalar) else key).value("file")
