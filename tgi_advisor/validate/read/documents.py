"""YAML and JSON files: every document goes to the reader of its kind."""

from __future__ import annotations

from tgi_advisor.validate.found import Defect, Server
from tgi_advisor.validate.read.compose import is_compose, read_compose
from tgi_advisor.validate.read.nodes import Map, compose
from tgi_advisor.validate.read.source import Source
from tgi_advisor.validate.read.world import World


def read_documents(source: Source, world: World) -> tuple[str, list[Server], list[Defect]]:
    """The form of the file, its servers and its defects."""
    documents, defects = compose(source)
    roots = [node for node in documents if isinstance(node, Map)]
    servers: list[Server] = []
    if any(is_compose(root) for root in roots):
        for root in roots:
            found, more = read_compose(root, world)
            servers += found
            defects += more
        return "compose", servers, defects
    return "yaml", servers, defects
