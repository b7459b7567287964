"""dstack's models of a configuration (package `dstack`)."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import yaml


def main() -> None:
    """`schema` prints the schema of a service; `load` reads one as `dstack apply` does."""
    if sys.argv[1] == "schema":
        from dstack._internal.core.models.configurations import ServiceConfiguration

        json.dump({"schema": ServiceConfiguration.model_json_schema(), "of": {"dstack": version("dstack")}}, sys.stdout)
        return
    from dstack._internal.core.models.configurations import parse_apply_configuration
    from dstack._internal.utils.interpolator import VariablesInterpolator

    made = parse_apply_configuration(yaml.safe_load(sys.stdin.read()))
    made = getattr(made, "root", made)
    filled = VariablesInterpolator({"run": {"args": ""}}).interpolate_or_error
    said = {"commands": [filled(one) for one in made.commands], "env": {
        name: filled(value) for name, value in made.env.root.items() if isinstance(value, str)}}  # fmt: skip
    print(f"dstack: {made.type} {made.name}, {made.resources.gpu}\n{json.dumps(said)}")


if __name__ == "__main__":
    main()
