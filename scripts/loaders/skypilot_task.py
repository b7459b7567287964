"""SkyPilot's schemas of a task, and its loader (package `skypilot`)."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any


def main() -> None:
    """`schema` prints the schema of a task; `load` reads a task as `sky launch` does."""
    if sys.argv[1] == "schema":
        from sky.utils import schemas

        task: dict[str, Any] = schemas.get_task_schema()
        task["properties"]["resources"] = schemas.get_resources_schema()
        task["properties"]["service"] = schemas.get_service_schema()
        for part in ("resources", "service"):
            task["properties"][part].pop("$schema", None)
        json.dump({"schema": task, "of": {"skypilot": version("skypilot")}}, sys.stdout)
        return
    import sky
    import yaml

    secrets = [(name, "x") for name in sys.argv[2:]]
    task = sky.Task.from_yaml_config(yaml.safe_load(sys.stdin.read()), secrets_overrides=secrets)
    print(f"skypilot: task {task.name}, {task.resources}, probe after {task.service.initial_delay_seconds} s")


if __name__ == "__main__":
    main()
