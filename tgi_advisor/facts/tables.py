"""The fact tables: YAML for people, a compiled JSON copy of each for start-up.

`<name>.yaml` beside this file is the source. Parsing it takes far longer than a whole command may,
so `scripts/compile_tables.py` keeps the same rows in `compiled/<name>.json` together with size and
checksum of the YAML they came from. Where these do not match, the YAML is read: whoever edits a
table sees the edit at once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@cache
def load(name: str) -> Any:
    """The rows of `<name>.yaml`, read once per process; callers must not change them."""
    source = (FOLDER / f"{name}.yaml").read_bytes()
    try:
        compiled = json.loads(compiled_path(name).read_bytes())
    except (FileNotFoundError, ValueError):
        compiled = None
    if isinstance(compiled, dict) and compiled.get("of") == _fingerprint(source):
        return compiled["rows"]
    return parse(source, f"{name}.yaml")


def names() -> list[str]:
    """Every table there is."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def compiled_path(name: str) -> Path:
    """Where the compiled copy of a table lies."""
    return FOLDER / "compiled" / f"{name}.json"


def compiled(name: str) -> str:
    """What the compiled copy of a table has to contain."""
    source = (FOLDER / f"{name}.yaml").read_bytes()
    rows = parse(source, f"{name}.yaml")
    return json.dumps({"of": _fingerprint(source), "rows": rows}, ensure_ascii=False, separators=(",", ":")) + "\n"


def parse(source: bytes, where: str) -> Any:
    """The rows of a YAML table; ValueError on a duplicate key or a value that JSON would change."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses duplicate keys, of which PyYAML silently keeps the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise ValueError(f"{where}:{key.start_mark.line + 1}: key {key.value!r} stands here twice")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    rows = yaml.load(source, Loader)  # noqa: S506  (a SafeLoader)
    if json.loads(json.dumps(rows, default=repr)) != rows:
        raise ValueError(f"{where}: a key or value is no JSON (a date, or a key that is a number): put it in quotes")
    return rows


def strict(row: Mapping[str, Any], allowed: Set[str], required: Set[str], where: str) -> None:
    """ValueError that names every unknown and missing key of a row, at `where`."""
    wrong = [f"unknown key {key!r}" for key in row if key not in allowed]
    wrong += [f"missing key {key!r}" for key in sorted(required) if key not in row]
    if wrong:
        raise ValueError(f"{where}: {', '.join(wrong)} (known: {', '.join(sorted(allowed))})")


def _fingerprint(source: bytes) -> list[int]:
    """Size and CRC-32, not a SHA: importing hashlib alone costs several milliseconds."""
    return [len(source), zlib.crc32(source)]
