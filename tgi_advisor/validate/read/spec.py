"""Our own deployment specs: what they say, in the terms of a server."""

from __future__ import annotations

from types import MappingProxyType

from tgi_advisor.errors import Place, SpecError
from tgi_advisor.validate.found import Defect, Gpus, Hint, Mount, Server, Value
from tgi_advisor.validate.read.nodes import Map
from tgi_advisor.validate.read.source import Source

_FLAGS = {
    "model.id": "model-id", "model.revision": "revision", "model.dtype": "dtype", "model.quantize": "quantize",
    "model.kv_cache_dtype": "kv-cache-dtype", "tgi.num_shard": "num-shard",
    "limits.max_input_tokens": "max-input-tokens", "limits.max_total_tokens": "max-total-tokens",
    "limits.max_batch_prefill_tokens": "max-batch-prefill-tokens",
}  # fmt: skip
"""Fields of a spec that are launcher flags."""


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
    args: list[Value] = []
    for path, flag in _FLAGS.items():
        if (value := root.value(*path.split("."))) is not None and value.text != "auto":
            args += [_flag(flag, value), value]
    if (trust := root.scalar("model", "trust_remote_code")) and trust.truth:
        args.append(_flag("trust-remote-code", trust.value("file")))
    for flag, (key, _) in root.map("tgi", "flags").merged.items():
        held = root.value("tgi", "flags", flag)
        args += [_flag(flag, key.value("file"))] + ([held] if held and held.text not in ("true", "null") else [])
    env = {name: v for name in root.map("tgi", "env").merged if (v := root.value("tgi", "env", name)) is not None}
    count = root.value("hardware", "count")
    gpu = root.value("hardware", "gpu") or root.value("hardware", "gpu", "name")
    number = count.number if count else 1
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


def _flag(name: str, value: Value) -> Value:
    """A flag the field stands for, at the field's place."""
    return Value(f"--{name}", value.place, "spec", length=value.length)
