"""The `Container` itself as JSON, field by field."""

from __future__ import annotations

import json

from tgi_advisor.plan import Container


def render(container: Container) -> str:
    """All fields of the record under their own names."""
    return json.dumps(container.as_dict(), indent=2, ensure_ascii=False) + "\n"
