#!/usr/bin/env python3
"""Record which model types transformers serves in each of TGI's images: tgi_advisor/facts/automodel.yaml.

    pip download --no-deps --dest wheels transformers==4.29.2      # and every other version the script asks for
    python scripts/record_automodel.py path/to/text-generation-inference wheels

The first argument is a clone of https://github.com/huggingface/text-generation-inference (bare or not). Nothing
is imported from the wheels: the mappings and the classes are read from their source.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tgi_advisor.facts import release as releases
from tgi_advisor.facts.tables import FOLDER

HEAD = """\
# Which model types transformers serves in each of TGI's images. Written by scripts/record_automodel.py.
#
# images    image variant (as in images.yaml): the version it installs, from the release on that stands before it;
#           "4.48.0-4.48.3" is one of these or between them (an image that pins none gets the newest of the day it is
#           built, at least what TGI asks for), "none" an image that hands nothing to transformers
# causal    first version whose MODEL_FOR_CAUSAL_LM_MAPPING_NAMES holds the types
#           (transformers/models/auto/modeling_auto.py); none was ever taken out again
# seq2seq   the same of MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, types that are in `causal` left out
# flash     causal types whose class TransformersFlashCausalLM serves, in that version: `_supports_flex_attn` in 4.48
#           (server/text_generation_server/models/__init__.py@v3.0.2:1449), else `_supports_attention_backend`
#           (transformers/modeling_utils.py, `is_backend_compatible`)
# source    where it was read
"""
DOCKERFILES = {"": "Dockerfile", "rocm": "Dockerfile_amd", "intel": "Dockerfile_intel", "gaudi": "Dockerfile_gaudi"}
CAUSAL, SEQ2SEQ = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"
BY_DATE = {("", "3.0.2"): "4.48.0", ("", "3.1.0"): "4.48.0"}
"""Images that installed whatever was newest (4.48.1 and 4.48.2 on PyPI then): 4.48.0 has the same types."""
FROM_GIT = {"2.0.3": "4.40.1-4.41.1"}
"""Releases that installed transformers from its repository: the versions before and after."""
NEWEST = {
    "2025-02-17": "4.48.3", "2025-03-21": "4.49.0", "2025-05-20": "4.51.3", "2025-06-26": "4.52.4",
    "2025-09-19": "4.56.1", "2026-01-13": "4.57.3",
}  # fmt: skip
"""Until that day PyPI had no version of transformers with more types than this one."""


def installed(clone: Path, tag: str, variant: str) -> str | None:
    """The version an image of a release installs; None where there is no such image.

    A frozen lock or a pinned requirement is followed; an image that installs the package itself gets the newest
    version its requirements allow on the day it is built.
    """
    recipe = shown(clone, tag, DOCKERFILES[variant])
    if recipe is None:
        return None
    if variant == "gaudi":
        models = shown(clone, tag, "backends/gaudi/server/text_generation_server/models/__init__.py") or ""
        return pinned(shown(clone, tag, "backends/gaudi/server/requirements.txt")) if CAUSAL in models else "none"
    lock = re.search(
        r'^name = "transformers"\nversion = "([0-9.]+)"', shown(clone, tag, "server/uv.lock") or "", re.MULTILINE
    )
    if lock is not None:
        return lock[1] if "uv sync --frozen" in recipe else f"{lock[1]}-{newest(releases.find(tag).date)}"
    files = re.findall(r"requirements(?:_\w+)?\.txt", recipe)
    return pinned(shown(clone, tag, f"server/{next((one for one in files if '_' in one), 'requirements.txt')}"))


def newest(date: str) -> str:
    """A version no older than the newest on PyPI when an image of that day was built."""
    return next(version for day, version in NEWEST.items() if day > date)


def pinned(requirements: str | None) -> str | None:
    """`4.51.3` of a line `transformers==4.51.3 ; ...`."""
    found = re.search(r"^transformers==([0-9.]+)", requirements or "", re.MULTILINE)
    return found[1] if found else None


def shown(clone: Path, tag: str, path: str) -> str | None:
    """A file of a tag; None where it has none."""
    command = ["git", "-C", str(clone), "show", f"{tag}:{path}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else None


class Wheel:
    """The source of one version of transformers."""

    def __init__(self, folder: Path, version: str) -> None:
        found = sorted(folder.glob(f"transformers-{version}-*.whl"))
        if not found:
            sys.exit(f"missing: pip download --no-deps --dest {folder} transformers=={version}")
        self.files = zipfile.ZipFile(found[0])
        self.version = version

    def mapping(self, name: str) -> dict[str, str]:
        """Model type -> class name of one of modeling_auto.py's tables."""
        tree = ast.parse(self.files.read("transformers/models/auto/modeling_auto.py"))
        for node in tree.body:
            names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
            if name in names and isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                pairs: list[tuple[str, str]] = ast.literal_eval(node.value.args[0])
                return dict(pairs)
        raise ValueError(f"transformers {self.version} has no {name}")

    def flash(self) -> list[str]:
        """Causal types whose class says that it takes an attention function from outside."""
        attribute = "_supports_flex_attn" if number(self.version) < (4, 49, 0) else "_supports_attention_backend"
        return sorted(kind for kind, name in self.mapping(CAUSAL).items() if self._attribute(name, attribute))

    def _attribute(self, name: str, attribute: str) -> bool:
        """The attribute of a class or, where it has none of its own, of its bases."""
        bases, own = self._classes().get(name, ((), {}))
        if attribute in own:
            return bool(own[attribute])
        return any(self._attribute(base, attribute) for base in bases)

    @cache  # noqa: B019  (a script)
    def _classes(self) -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
        """Bases and constant attributes of every PyTorch class."""
        classes: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {}
        for path in self.files.namelist():
            if not re.search(r"/modeling_(?!flax_|tf_)\w+\.py$", path):
                continue
            for node in ast.parse(self.files.read(path)).body:
                if isinstance(node, ast.ClassDef):
                    bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
                    classes.setdefault(node.name, (bases, dict(_constants(node))))
        return classes


def _constants(node: ast.ClassDef) -> Iterable[tuple[str, Any]]:
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
            yield from ((target.id, line.value.value) for target in line.targets if isinstance(target, ast.Name))


def number(version: str) -> tuple[int, ...]:
    """(4, 51, 0)."""
    return tuple(map(int, version.split(".")))


def first_seen(by_version: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The types each version has first; ValueError when one is taken out later."""
    known: set[str] = set()
    first = {}
    for version, kinds in by_version.items():
        if gone := known - set(kinds):
            raise ValueError(f"transformers {version} no longer has {gone}: the table cannot say that yet")
        if new := sorted(set(kinds) - known):
            first[version] = new
        known |= set(kinds)
    return first


def main(clone: Path, wheels: Path) -> None:
    """Write the table."""
    images: dict[str, dict[str, str]] = {variant: {} for variant in DOCKERFILES}
    versions: set[str] = set()
    for one in releases.all_releases():
        for variant, rows in images.items():
            found = FROM_GIT.get(one.name) or BY_DATE.get((variant, one.name)) or installed(clone, f"v{one}", variant)
            if found and shown(clone, f"v{one}", DOCKERFILES[variant]):
                versions |= set(re.findall(r"[0-9.]+", found))
                if [*rows.values()][-1:] != [found]:
                    rows[one.name] = found
    ordered = [Wheel(wheels, version) for version in sorted(versions, key=number)]
    causal = first_seen({wheel.version: wheel.mapping(CAUSAL) for wheel in ordered})
    every = {kind for kinds in causal.values() for kind in kinds}
    seq2seq = first_seen({wheel.version: set(wheel.mapping(SEQ2SEQ)) - every for wheel in ordered})
    flash: dict[str, list[str]] = {}
    for wheel in ordered:
        if number(wheel.version) >= (4, 48, 0) and [kinds := wheel.flash()] != [*flash.values()][-1:]:
            flash[wheel.version] = kinds
    lines = ["images:"]
    for variant, rows in images.items():
        lines += [f'  "{variant}":', *(f'    "{since}": "{version}"' for since, version in rows.items())]
    for name, table in (("causal", causal), ("seq2seq", seq2seq), ("flash", flash)):
        lines.append(f"{name}:")
        lines += [f'  "{version}": {" ".join(kinds)}' for version, kinds in table.items()]
    lines.append(
        "source: server/requirements_*.txt and server/uv.lock of each tag, and the wheels of transformers on PyPI"
    )
    (FOLDER / "automodel.yaml").write_text(HEAD + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
