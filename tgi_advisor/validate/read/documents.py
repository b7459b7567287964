"""YAML and JSON files: every document goes to the reader of its kind."""

from __future__ import annotations

from dataclasses import replace

from tgi_advisor.validate.found import Defect, Server
from tgi_advisor.validate.read.compose import is_compose, read_compose
from tgi_advisor.validate.read.container import is_container, read_container
from tgi_advisor.validate.read.kubernetes import is_kubernetes, read_kubernetes, with_more
from tgi_advisor.validate.read.nodes import List, Map, compose
from tgi_advisor.validate.read.platform import read_platform
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.spec import is_spec, read_spec
from tgi_advisor.validate.read.world import World


def read_documents(source: Source, world: World) -> tuple[str, list[Server], list[Defect]]:
    """The form of the file, its servers and its defects."""
    documents, defects = compose(source)
    roots = [
        node for document in documents
        for node in (document.items if isinstance(document, List) else [document]) if isinstance(node, Map)
    ]  # fmt: skip
    servers: list[Server] = []
    forms: set[str] = set()
    if len(roots) == 1 and is_spec(roots[0]):
        return ("spec", *read_spec(source, roots[0]))
    if len(roots) == 1 and is_container(roots[0]):
        return "yaml", [read_container(roots[0])], defects
    objects = [root for root in roots if is_kubernetes(root)]
    if objects:
        found, more, rest = read_kubernetes(objects, world)
        servers += found
        defects += more
        forms.add("kubernetes")
        for item in rest:  # an object of another kind may hold a container, or a script
            found, more = read_platform(item, world)
            servers += found
            defects += more
    for root in roots:
        if is_kubernetes(root):
            continue
        if is_compose(root):
            found, more = read_compose(root, world)
            forms.add("compose")
        else:
            found, more = read_platform(root, world)
        if root.get("op") is not None and root.get("path") is not None:  # an operation on something else (RFC 6902)
            found = [with_more(replace(one, unknown=("the object this patch is for",))) for one in found]
        servers += found
        defects += more
    form = next((name for name in ("compose", "kubernetes") if name in forms), "yaml")
    if form == "yaml":  # nobody refuses it there
        doubles = "duplicate-yaml-key"
        defects = [replace(one, severity="warning") if one.kind == doubles else one for one in defects]
    return form, servers, defects
