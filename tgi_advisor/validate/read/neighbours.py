"""What lies in the folder of a manifest and belongs to it: objects it names, and the Kustomize file it is built with.

https://kserve.github.io/website/latest/modelserving/servingruntimes/ and
https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/images/
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from tgi_advisor.validate.found import Value
from tgi_advisor.validate.read.nodes import Map, Scalar, compose
from tgi_advisor.validate.read.source import File
from tgi_advisor.validate.read.world import World

_KUSTOMIZE = frozenset(("kustomization.yaml", "kustomization.yml", "Kustomization"))


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
        for entry in root.list("images"):
            if isinstance(entry, Map) and _text(entry, "name") == name:
                return replace(image, text=_renamed(name, tag, entry), origin=file, length=0, quote=0)
        return image

    def _roots(self, file: str, *words: str) -> Iterator[Map]:
        """The documents of a file that has these words."""
        text = self.world.lookup(file)
        if text is not None and all(word in text for word in words):
            yield from (root for root in compose(File(file, text).whole())[0] if isinstance(root, Map))


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
