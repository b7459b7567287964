"""What lies in the folder of a manifest and belongs to it: objects it names, and the Kustomize file it is built with.

https://kserve.github.io/website/latest/modelserving/servingruntimes/ and
https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/images/
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from tgi_advisor.validate.found import Value
from tgi_advisor.validate.read.nodes import List, Map, Node, Scalar, compose
from tgi_advisor.validate.read.source import File
from tgi_advisor.validate.read.world import World

_KUSTOMIZE = frozenset(("kustomization.yaml", "kustomization.yml", "Kustomization"))


_PATCHES = ("patches", "patchesStrategicMerge", "patchesJson6902")
_DEEPEST = 5
"""Bases on bases that are followed."""


class _Patch(NamedTuple):
    """One patch."""

    body: Map | None
    """An object that is laid over another; None for a list of operations, and for what is not there."""
    target: Map | None
    """What it is for, where that is said beside it."""


class Neighbours:
    """The other files of a manifest's folder, read when they are asked for."""

    def __init__(self, world: World, file: str) -> None:
        self.world = world
        self.folder, self.name = posixpath.split(file.replace("\\", "/"))

    @cached_property
    def files(self) -> Sequence[str]:
        """Their names."""
        return self.world.listed()

    def objects(self, kind: str, name: str) -> Iterator[Map]:
        """Objects of a kind in files that have this name in them."""
        for file in self.files:
            if "/" in file or posixpath.basename(file) in _KUSTOMIZE:
                continue
            for root in self._roots(file, kind, name):
                if (stated := root.value("kind")) is not None and stated.text == kind:
                    yield root

    def object(self, kind: str, name: str) -> Map | None:
        """The one object of a kind and name; None where there is none, or several."""
        found = [one for one in self.objects(kind, name) if _text(one, "metadata", "name") == name]
        return found[0] if len(found) == 1 else None

    def image(self, image: Value) -> Value:
        """The image that Kustomize makes of one: in its folder, and in those laid over that."""
        folders = [file for file in self.files if posixpath.basename(file) in _KUSTOMIZE]
        here = [self._built(image, file) for file in folders if "/" not in file]
        image = next((made for made in here if made is not None), image)
        over = [made for file in folders if "/" in file and (made := self._built(image, file)) is not None]
        if len({made.text for made in over}) > 1:
            name = image.text.partition("@")[0].rpartition(":")[0] or image.text
            return replace(image, text=f"{name}:{{newTag}}", known=False, missing=("newTag",))
        return over[0] if over else image

    # -- what Kustomize lays over what

    def _named_here(self, above: str) -> frozenset[str]:
        """The file at hand, and its folder, as a Kustomize file in another folder calls them."""
        if not above:
            return frozenset((self.name,))
        folders = [part for part in self.folder.split("/") if part not in ("", ".")]
        ups = above.split("/").count("..")
        here = "/".join([*([".."] * ups), *folders[len(folders) - ups :]]) if 0 < ups <= len(folders) else ""
        return frozenset((here, f"{here}/{self.name}") if here else ())

    @cached_property
    def _kustomize(self) -> Sequence[tuple[str, Map]]:
        """The Kustomize files around, and the folders they lie in."""
        files = (file for file in self.files if posixpath.basename(file) in _KUSTOMIZE)
        return [(posixpath.dirname(file), root) for file in files for root in islice(self._roots(file), 1)]

    @cached_property
    def _laid_by(self) -> Sequence[tuple[str, Map]]:
        """Those that lay the file at hand over something."""
        return [
            (above, root) for above, root in self._kustomize
            if any(_path(above, one.text) in self._named_here(above) for one in _patch_files(root))
        ]  # fmt: skip

    @property
    def is_patch(self) -> bool:
        """Whether the file at hand is laid over something."""
        return bool(self._laid_by)

    def is_patched(self, item: Map) -> bool:
        """Whether something may be laid over an object of the file at hand."""
        for above, root in self._kustomize:
            parts = {_path(above, part) for part in _resources(root)}
            if self._named_here(above) & parts and any(_may_meet(one, item) for one in self._patches(above, root)):
                return True
        return False

    def whole(self, item: Map, by: Map | None = None) -> tuple[Map, bool] | None:
        """A patch of the file at hand laid over its base, and whether nothing else may be; None without the one base.

        `by` is the Kustomize file that holds the patch itself.
        """
        laid = self._laid_by if by is None else [("", by)]
        if len(laid) != 1:
            return None
        above, root = laid[0]
        bases = [one for one in self._bases(above, root) if _same(one, item)]
        if len(bases) != 1:
            return None
        made, sure = bases[0], True
        for patch in self._patches(above, root):
            if patch.body is not None and _same(patch.body, item):
                made = laid_over(made, patch.body)
            elif _may_meet(patch, item):
                sure = False
        return made, sure

    def _bases(self, above: str, root: Map, depth: int = 0) -> Iterator[Map]:
        """The objects that a Kustomize file builds on."""
        for part in _resources(root):
            path = _path(above, part)
            if path.startswith("../" * 5) or "://" in part or depth > _DEEPEST:
                continue
            if path.endswith((".yaml", ".yml")):
                yield from self._roots(path)
                continue
            for name in sorted(_KUSTOMIZE):
                for inner in self._roots(posixpath.join(path, name)):
                    yield from self._bases(path, inner, depth + 1)

    def inline(self, root: Map) -> Iterator[Map]:
        """The patches that stand in a Kustomize file itself."""
        yield from (one.body for one in self._patches("", root, inline=True) if one.body is not None)

    def _patches(self, above: str, root: Map, *, inline: bool = False) -> Iterator[_Patch]:
        """What a Kustomize file lays over its base; `inline` what stands in it alone."""
        for key in _PATCHES:
            for entry in root.list(key):
                target = entry.map("target") if isinstance(entry, Map) else None
                text = entry.scalar("patch") if isinstance(entry, Map) else entry
                path = entry.scalar("path") if isinstance(entry, Map) else entry
                if isinstance(text, Scalar) and "\n" in text.text:
                    bodies: Sequence[Node] = compose(text.source)[0]
                elif inline:
                    continue
                elif isinstance(path, Scalar) and (held := self.world.lookup(_path(above, path.text))) is not None:
                    bodies = compose(File(_path(above, path.text), held).whole())[0]
                else:
                    bodies = ()
                    yield _Patch(None, target)
                for body in bodies:
                    yield _Patch(body if isinstance(body, Map) else None, target)

        if not inline:
            yield from (_Patch(None, target) for target, _ in self._replacements(above, root))
            yield from self._of_components(above, root)

    def _of_components(self, above: str, root: Map, depth: int = 0) -> Iterator[_Patch]:
        """What the components of a Kustomize file lay over its base; of one that is not there, anything."""
        for item in root.list("components"):
            path = _path(above, item.text) if isinstance(item, Scalar) else ""
            inner = [one for name in sorted(_KUSTOMIZE) for one in self._roots(posixpath.join(path, name))]
            if not inner or depth > _DEEPEST:
                yield _Patch(None, None)
            for one in inner:
                yield from self._patches(path, one.without("components"))
                yield from self._of_components(path, one, depth + 1)

    def _replacements(self, above: str, root: Map) -> Iterator[tuple[Map | None, bool]]:
        """What a Kustomize file puts values of other objects into, and whether that may be an image; None for anything.

        https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/replacements/
        """
        for entry in root.list("replacements"):
            held = [entry] if isinstance(entry, Map) else []
            path = entry.scalar("path") if isinstance(entry, Map) else None
            if path is not None:
                text = self.world.lookup(_path(above, path.text))
                bodies = compose(File(path.text, text).whole())[0] if text is not None else []
                held = [
                    one for body in bodies for one in (body.items if isinstance(body, List) else [body])
                    if isinstance(one, Map)
                ]  # fmt: skip
                if text is None:
                    yield None, True
            for one in held:
                for target in one.list("targets"):
                    fields = target.list("fieldPaths") if isinstance(target, Map) else []
                    into = any("image" in field.text for field in fields if isinstance(field, Scalar))
                    yield (target.map("select") if isinstance(target, Map) else None), into

    def _built(self, image: Value, file: str) -> Value | None:
        """The image in what a Kustomize file builds; None where that does not hold the manifest."""
        root = next(self._roots(file), None)
        if root is None:
            return None
        above = posixpath.dirname(file)
        parts = [posixpath.normpath(posixpath.join(above, part)) for part in _resources(root)]
        own = {self.name}
        if above and self.folder:
            own = {f"../{posixpath.basename(self.folder)}", f"../{posixpath.basename(self.folder)}/{self.name}"}
        if not own & set(parts):
            return None
        name, tag = _named(image.text)
        if any(into for _, into in self._replacements(above, root)):
            return replace(image, text=f"{name}:{{replacement}}", known=False, missing=("replacement",))
        for entry in root.list("images"):
            if isinstance(entry, Map) and _text(entry, "name") == name:
                return replace(image, text=_renamed(name, tag, entry), origin=file, length=0, quote=0)
        return image

    def _roots(self, file: str, *words: str) -> Iterator[Map]:
        """The documents of a file that has these words."""
        text = self.world.lookup(file)
        if text is not None and all(word in text for word in words):
            yield from (root for root in compose(File(file, text).whole())[0] if isinstance(root, Map))


def _path(above: str, part: str) -> str:
    return posixpath.normpath(posixpath.join(above, part))


def _patch_files(root: Map) -> Iterator[Scalar]:
    """The files a Kustomize file lays over its base."""
    for key in _PATCHES:
        for entry in root.list(key):
            path = entry.scalar("path") if isinstance(entry, Map) else entry
            if isinstance(path, Scalar) and "\n" not in path.text:
                yield path


def _same(one: Map, other: Map) -> bool:
    """Whether two objects are the same one."""
    return all(_text(one, *at) == _text(other, *at) for at in (("kind",), ("metadata", "name")))


def _may_meet(patch: _Patch, item: Map) -> bool:
    """Whether a patch may be for an object."""
    if patch.target is not None and patch.target.entries:
        kind, name = _text(patch.target, "kind"), _text(patch.target, "name")
        return kind in ("", _text(item, "kind")) and (
            not name or name == _text(item, "metadata", "name") or "*" in name
        )
    return patch.body is None or _same(patch.body, item)


_KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath",
         "ports": "containerPort", "volumeDevices": "devicePath"}  # fmt: skip
"""What the entries of a list are told apart by, of those that are merged; all others are replaced.

https://github.com/kubernetes/api/blob/v0.31.0/core/v1/types.go (patchStrategy, patchMergeKey)
"""


def laid_over(base: Map, patch: Map) -> Map:
    """An object with a patch laid over it (a strategic merge)."""
    entries = []
    for name in dict.fromkeys((*patch.merged, *base.merged)):
        own, other = patch.merged.get(name), base.merged.get(name)
        if name == "$patch":
            continue
        if own is None or other is None:
            found = own or other
            assert found is not None, "one of them has the name"
            entries.append(found)
        elif not (isinstance(own[1], Scalar) and own[1].null):  # null takes it away
            entries.append((own[0], _joined(name, other[1], own[1])))
    return Map(entries, patch.raw, patch.start)


def _joined(name: str, base: Node, patch: Node) -> Node:
    """Two values of one key."""
    if isinstance(base, Map) and isinstance(patch, Map):
        return patch if _text(patch, "$patch") == "replace" else laid_over(base, patch)
    key = _KEYS.get(name)
    if key is None or not isinstance(base, List) or not isinstance(patch, List):
        return patch
    over = {_text(one, key): one for one in patch.items if isinstance(one, Map)}
    gone = {one for one, held in over.items() if _text(held, "$patch") == "delete"}
    items: list[Node] = []
    for item in base.items:
        named = _text(item, key) if isinstance(item, Map) else ""
        if named in gone:
            continue
        other = over.pop(named, None)
        items.append(laid_over(item, other) if other is not None and isinstance(item, Map) else item)
    items += [one for one in over.values() if one.get("$patch") is None]
    return List(items, patch.raw, patch.start)


def _resources(root: Map) -> Iterator[str]:
    for key in ("resources", "bases", "components"):
        yield from (item.text for item in root.list(key) if isinstance(item, Scalar))


def _named(image: str) -> tuple[str, str]:
    """Name, and tag or digest with their sign."""
    name, at, digest = image.partition("@")
    head, colon, tag = name.rpartition(":")
    name, tag = (head, f":{tag}") if colon and "/" not in tag else (name, "")
    return name, f"{at}{digest}" if at else tag


def _renamed(name: str, tag: str, entry: Map) -> str:
    """The image under its new name, at its new tag or digest."""
    digest, number = _text(entry, "digest"), _text(entry, "newTag")
    return f"{_text(entry, 'newName') or name}{f'@{digest}' if digest else f':{number}' if number else tag}"


def _text(node: Map, *path: str) -> str:
    found = node.scalar(*path)
    return found.text if found is not None else ""
