"""The `Container` itself as JSON, field by field.

The requests of platforms are written in the same way (`document`).
"""

from __future__ import annotations

import json
import re

from tgi_advisor.marks import starts
from tgi_advisor.plan import Container

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def render(container: Container) -> str:
    """All fields of the record under their own names."""
    return document(container.as_dict())


def document(data: object) -> str:
    """A value as JSON; a character that begins what looks like a template's mark is an escape (`marks`)."""
    return _STRING.sub(_marked, json.dumps(data, indent=2, ensure_ascii=False)) + "\n"


def _marked(found: re.Match[str]) -> str:
    text = json.loads(found[0])
    parts, at = [], 0
    for start in starts(text):
        parts += [json.dumps(text[at:start], ensure_ascii=False)[1:-1], f"\\u{ord(text[start]):04x}"]
        at = start + 1
    return f'"{"".join(parts)}{json.dumps(text[at:], ensure_ascii=False)[1:-1]}"' if parts else found[0]
