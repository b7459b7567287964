"""The platforms of `emit`: their schemas, written to tests/data/platforms, and their loaders, run over what we emit.

    python scripts/platforms.py schemas [NAME ...]
    python scripts/platforms.py load [NAME ...]

Their libraries are large, so each runs in an environment that uv makes and throws away; the tests need the schemas
alone. `schemas` writes what the versions below say. `load` has each library read the examples of docs/platforms.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LOADERS = ROOT / "scripts" / "loaders"
SCHEMAS = ROOT / "tests" / "data" / "platforms"


class Library(NamedTuple):
    """A platform's library, and the program that asks it."""

    program: str
    """File in `scripts/loaders`."""
    requires: tuple[str, ...]
    """What uv installs, with versions."""
    arguments: tuple[str, ...] = ()
    """Further arguments of the program."""


LIBRARIES = {
    "kserve": Library("kserve_models.py", ("kserve==0.21.0",)),
    "skypilot": Library("skypilot_task.py", ("skypilot==0.14.1",)),
    "dstack": Library("dstack_service.py", ("dstack==0.22.5",)),
    "azureml": Library("azureml_deployment.py", ("azure-ai-ml==1.35.2",)),
    "sagemaker": Library("sagemaker_service.py", ("botocore==1.44.8",)),
    "cloudrun": Library("google_discovery.py", ("google-api-python-client==2.202.0", "pyyaml"), ("cloudrun",)),
    "vertex": Library("google_discovery.py", ("google-api-python-client==2.202.0", "pyyaml"), ("vertex",)),
}


def ask(name: str, what: str, text: str = "", *more: str) -> str:
    """What the library of a platform answers; SystemExit with its own words where it refuses."""
    library = LIBRARIES[name]
    wanted = [part for one in library.requires for part in ("--with", one)]
    command = ["uv", "run", "--quiet", "--no-project", "--isolated", *wanted, "python", str(LOADERS / library.program)]
    result = subprocess.run(
        [*command, what, *library.arguments, *more], input=text, capture_output=True, encoding="utf-8", check=False
    )
    if result.returncode:
        raise SystemExit(f"{name} refuses it:\n{result.stderr}")
    return result.stdout


def schemas(names: Sequence[str]) -> None:
    """Write the schemas of these platforms."""
    SCHEMAS.mkdir(exist_ok=True)
    for name in names:
        said = json.loads(ask(name, "schema"))
        text = json.dumps({"of": said["of"], "schema": said["schema"]}, ensure_ascii=False, separators=(",", ":"))
        (SCHEMAS / f"{name}.json").write_text(text + "\n", "utf-8")
        print(f"{name}: {', '.join(f'{of} {version}' for of, version in said['of'].items())}")


def load(names: Sequence[str]) -> None:
    """Have the library of each platform read what `emit` writes for it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from platform_examples import emitted

    for name in names:
        for example, text in emitted(name).items():
            print(f"{example}: {ask(name, 'load', text, *(('HF_TOKEN',) if name == 'skypilot' else ())).strip()}")


def main() -> int:
    """0, or a SystemExit that says what a library refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["schemas", "load"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LIBRARIES)}; all by default")
    asked = parser.parse_args()
    {"schemas": schemas, "load": load}[asked.what](asked.names or list(LIBRARIES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
