"""What `advise` gives passes our own `validate` (scripts/sweep.py; `--full` there is the whole product)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sweep = load()


def test_every_model_and_every_release_meets_every_gpu() -> None:
    cells, gpus = list(sweep.design()), {gpu for gpu, _ in sweep.MACHINES}
    for field in ("model", "release"):
        known = {getattr(cell, field) for cell in sweep.every()}
        assert {(getattr(cell, field), cell.gpu) for cell in cells} == {(one, gpu) for one in known for gpu in gpus}


def test_what_is_advised_passes_validate() -> None:
    started, wrong, _ = sweep.check(sweep.design())
    assert started > 250
    assert wrong == {}
