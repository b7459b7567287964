"""The files a Compose file is merged from: its override, what it extends, what it includes.

The rules are Compose's own (https://docs.docker.com/reference/compose-file/merge/): mappings are merged, a command or
an entry point is replaced, other sequences are appended, volumes and devices by their place in the container. Every
value keeps the place it was written at.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar, compose
from tgi_advisor.validate.read.source import File
from tgi_advisor.validate.read.world import World

MAX_LAYERS = 10
"""Services within services, and files within files, that are followed."""
_BASES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""The files Compose looks for, in its order (https://docs.docker.com/compose/intro/compose-application-model/)."""
_OVERRIDE = re.compile(r"(?:docker-)?compose\.override\.ya?ml")
_REPLACED = frozenset(("command", "entrypoint", "test"))


class Layer(NamedTuple):
    """A service as one file states it."""

    service: Map
    """Its settings there."""
    world: World
    """Looks up files by the names that file calls them."""
    missing: str = ""
    """The file with the service it extends, when it is not there."""


class Beside(NamedTuple):
    """The file Compose reads together with the one that is read."""

    services: Map
    """Its services."""
    over: bool
    """Whether it is the override, and the file that is read the base."""


def beside_of(root: Map, world: World) -> Beside | None:
    """The base of an override file, or the override of a base; None when there is none."""
    name = posixpath.basename(root.raw.file.name.replace("\\", "/"))
    over = name in _BASES
    if over:
        stem = name.rpartition(".")[0]
        names: Sequence[str] = (f"{stem}.override.yaml", f"{stem}.override.yml")
    elif _OVERRIDE.fullmatch(name):
        stem = name.partition(".")[0]
        names = [base for base in _BASES if base.partition(".")[0] == stem]
    else:
        return None
    found = next((held for one in names if (held := _file(one, world)) is not None), None)
    return Beside(found.map("services"), over) if found is not None else None


def is_overlay(root: Map) -> bool:
    """Whether a file may be laid over another by `-f`: it has none of the names that Compose looks for."""
    return posixpath.basename(root.raw.file.name.replace("\\", "/")) not in _BASES


def lacks_base(root: Map, beside: Beside | None) -> bool:
    """Whether a file is an override whose base is not there."""
    name = posixpath.basename(root.raw.file.name.replace("\\", "/"))
    return beside is None and _OVERRIDE.fullmatch(name) is not None


_LAID_UNDER = re.compile(r"(?:^|[._-])(?:base|common)(?:[._-]|$)")
"""The name of a file that others are laid over."""


def may_be_given(service: str, root: Map, world: World) -> bool:
    """Whether a file that is laid over this one (`-f`) may give a service a GPU: this one is called a base, or another
    Compose file beside it does so.
    """
    own = posixpath.basename(root.raw.file.name.replace("\\", "/"))
    if _LAID_UNDER.search(own):
        return True
    for name in world.listed():
        if "compose" not in posixpath.basename(name) or posixpath.basename(name) == own:
            continue
        other = _file(name, world)
        held = other.map("services").get(service) if other is not None else None
        if isinstance(held, Map) and (
            held.get("gpus", "runtime", "devices") is not None or held.at(*_RESERVED, "devices") is not None
        ):
            return True
    return False


_RESERVED = ("deploy", "resources", "reservations")


def layers_of(name: str, service: Map, services: Map, beside: Beside | None, world: World) -> list[Layer]:
    """A service and everything below it, the nearest first."""
    own = _extended(service, services, world)
    other = beside.services.get(name) if beside is not None else None
    if beside is None or not isinstance(other, Map):
        return own
    more = _extended(other, beside.services, world)
    return [*more, *own] if beside.over else [*own, *more]


def _extended(service: Map, services: Map, world: World) -> list[Layer]:
    """The service, and the services it extends."""
    layers = [Layer(service, world)]
    while len(layers) < MAX_LAYERS:
        file, name = _base_of(layers[-1].service)
        if file is not None:
            there = _file(file.text, world) if file.known else None
            if there is None:
                layers[-1] = layers[-1]._replace(missing=file.text)
                break
            services, world = there.map("services"), within(world, posixpath.dirname(file.text))
        base = services.get(name.text) if isinstance(name, Scalar) else None
        if not isinstance(base, Map) or any(base is one.service for one in layers):
            break
        layers.append(Layer(base, world))
    return layers


def extended_here(services: Map) -> frozenset[str]:
    """The services of a file that others in it extend."""
    names = set()
    for _, node in services.merged.values():
        file, name = _base_of(node) if isinstance(node, Map) else (None, None)
        if file is None and isinstance(name, Scalar):
            names.add(name.text)
    return frozenset(names)


def _base_of(service: Map) -> tuple[Scalar | None, Node | None]:
    """The file and the name of the service that one extends."""
    extends = service.get("extends")
    return (extends.scalar("file"), extends.scalar("service")) if isinstance(extends, Map) else (None, extends)


def unread(layers: Sequence[Layer]) -> tuple[str, ...]:
    """What a service takes from files that are not there."""
    return tuple(f"the service extends one of {one.missing}, which is not read" for one in layers if one.missing)


def included(root: Map) -> list[Scalar]:
    """The files a Compose file includes, as it names them."""
    paths = [path for item in root.list("include") for path in (item.list("path") if isinstance(item, Map) else [item])]
    return [path for path in paths if isinstance(path, Scalar) and path.known and path.text.endswith((".yaml", ".yml"))]


def includes(root: Map, world: World) -> Iterator[tuple[Scalar, Map | None, str]]:
    """The files that are included, those they include too: how they are named, what they hold, and their folders; each
    once. One that is not there holds None.
    """
    seen: set[str] = set()
    todo = [(name, "") for name in included(root)]
    while todo and len(seen) < MAX_LAYERS:
        name, folder = todo.pop(0)
        path = posixpath.normpath(posixpath.join(folder, name.text))
        if path in seen or "$" in path:
            continue
        seen.add(path)
        found = _file(path, world)
        below = posixpath.dirname(path)
        yield name, found, below
        todo += [(one, below) for one in included(found)] if found is not None else []


def within(world: World, folder: str) -> World:
    """The world as a file in a folder below (or above) names it."""
    if not folder:
        return world
    lookup = world.lookup
    return World(world.env, lambda name: lookup(name if name.startswith(("/", "~")) else posixpath.join(folder, name)))


def _file(name: str, world: World) -> Map | None:
    """A Compose file that is there; one that leads far out of its folder is not read."""
    if posixpath.normpath(name).startswith("../" * 5):
        return None
    text = world.lookup(name)
    if text is None:
        return None
    documents, _ = compose(File(name, text).whole())
    return documents[0] if documents and isinstance(documents[0], Map) else None


def merged(layers: Sequence[Layer]) -> Map:
    """A service of all its layers."""
    made = layers[0].service
    for layer in layers[1:]:
        made = _over(made, layer.service)
    return made


def _over(near: Map, far: Map) -> Map:
    """A mapping over another."""
    entries = []
    for name in dict.fromkeys((*near.merged, *far.merged)):
        own, other = near.merged.get(name), far.merged.get(name)
        if own is None or (isinstance(own[1], Scalar) and own[1].null and other is not None):
            entries += [other] if other is not None else []
        elif other is None:
            entries.append(own)
        else:
            entries.append((own[0], _joined(name, own[1], other[1])))
    return Map(entries, near.raw, near.start)


def _joined(name: str, own: Node, other: Node) -> Node:
    """Two values of one key."""
    if isinstance(own, Map) and isinstance(other, Map):
        return _over(own, other)
    if isinstance(own, List) and isinstance(other, List) and name not in _REPLACED:
        targets = {_target(item) for item in own.items}
        return List([item for item in other.items if _target(item) not in targets] + own.items, own.raw, own.start)
    return own


def _target(item: Node) -> str:
    """What an entry of a sequence is told apart by: its path in the container, or all of it."""
    if isinstance(item, Map):
        held = item.scalar("target")
        return held.text if held is not None else f" {id(item)}"
    text = item.text if isinstance(item, Scalar) else ""
    volume = re.fullmatch(r"[^:]+:(/[^:]+)(?::\w+(?:,\w+)*)?", text)
    return volume[1] if volume else text
