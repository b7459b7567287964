"""What a text is, by its name and what stands in it, and the reader for it."""

from __future__ import annotations

import re
from dataclasses import replace

from tgi_advisor.validate.found import Defect, Document, Server
from tgi_advisor.validate.read.script import scan
from tgi_advisor.validate.read.source import File, Source
from tgi_advisor.validate.read.words import Variable
from tgi_advisor.validate.read.world import World

def dispatch(text: str, file: str, world: World) -> Document:
    source = File(file, text).whole()
    found = scan(source, world, batch=file.lower().endswith((".bat", ".cmd")))
    return Document(file, text, "script", tuple(found.servers), tuple(found.defects))
