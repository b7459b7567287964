"""What TGI's real launcher did with a command line or a spec, row by row, and what we say of the same.

`data/launcher.jsonl` holds runs of text-generation-launcher as compiled from
https://github.com/huggingface/text-generation-inference at the release's tag, its children replaced by recorders:
what it refused and in which words, or the arguments and the environment it started router and shards with.
`then` names the findings about what the shards make of that.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from front import run

from tgi_advisor import api
from tgi_advisor.errors import Exit
from tgi_advisor.estimate import defaults
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.gather import snapshot
from tgi_advisor.validate.judge import Stated, cases
from tgi_advisor.validate.read import read
from tgi_advisor.validate.rules import Case

ROWS = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "launcher.jsonl").read_text("utf-8").splitlines()
]
STARTED = [
    pytest.param(row, id=f"{row['kind']}, {row['release']}") for row in ROWS if "args" in row and "starts" in row
]
COMMANDS = [pytest.param(row, id=f"{row['kind']}, {row['release']}") for row in ROWS if "args" in row]
SPECS = [pytest.param(row, id=f"{row['kind']}, {row['release']}") for row in ROWS if "spec" in row]
PARSER = ("TGI101", "TGI102", "TGI103", "TGI104", "TGI105", "TGI106")
LAUNCHER = (*PARSER, *(f"TGI{number}" for number in (109, 110, 111, 112, 113, 115, 117, 118, 141, 142)))


def command(row: dict[str, Any]) -> str:
    """The row as a `docker run` line."""
    env = [word for name, value in row["env"].items() for word in ("-e", f"{name}={value}")]
    image = f"ghcr.io/huggingface/text-generation-inference:{row['release']}"
    words = ["docker", "run", "--gpus", "all", "--shm-size", "1g", "-v", "data:/data", "-e", "HF_TOKEN", *env, image]
    return shlex.join([*words, "--model-id", row["model"], *row["args"]]) + "\n"


def seen(row: dict[str, Any]) -> Case:
    """What is known of the row's server."""
    document = read(command(row), "run.sh")
    return cases(document, lambda model, _: snapshot.find(model), Stated(gpus.find(row["gpu"]), row["gpus"]))[0]


@pytest.mark.parametrize("row", COMMANDS)
def test_a_command_line_is_judged_as_the_launcher_judges_it(row: dict[str, Any]) -> None:
    options = ("--gpu", row["gpu"], "--count", str(row["gpus"]), "--stdin-filename", "run.sh", "--format", "json")
    told = run("validate", *options, "-", stdin=command(row))
    errors = [one for one in json.loads(told.out)["findings"] if one["severity"] == "error"]
    codes = [one["code"] for one in errors]
    if "refused" not in row:
        assert not set(codes) & set(LAUNCHER)
        assert set(row.get("then", ())) <= set(codes)
        return
    assert told.code == Exit.FINDINGS
    assert set(codes) & set(LAUNCHER)
    if row["refused"].startswith("Error: "):
        first = next(one for one in errors if one["code"] in LAUNCHER)
        assert f"TGI stops with {row['refused']}" in first["message"]


@pytest.mark.parametrize("row", STARTED)
def test_what_the_launcher_picks_is_known(row: dict[str, Any]) -> None:
    case, started = seen(row), row["starts"]
    assert case.shards == started["shards"]
    if case.setting is None:  # the shards refuse
        assert row["then"]
        return
    check(case.setting, defaults.launcher_limits(case.setting, case.limits).given(), started)


def check(setting: Any, limits: dict[str, int], started: dict[str, Any]) -> None:
    """The picks against what router and shards were started with."""
    router, env = started["router"], started["env"]
    renamed = {name.replace("-", "_").replace("_length", "_tokens"): int(value) for name, value in router.items()}
    renamed.pop("max_batch_size", None)
    assert limits == renamed
    if "ATTENTION" in env:
        assert setting.attention == env["ATTENTION"]
        caching = env.get("PREFIX_CACHING", env.get("USE_PREFIX_CACHING"))
        assert setting.prefix_caching == (caching in ("1", "true"))
    assert ",".join(map(str, setting.graph_sizes)) == env.get("CUDA_GRAPHS", "") or "ENABLE_CUDA_GRAPHS" in env
    assert setting.forwarded_quantize == started.get("quantize")
    assert ",".join(setting.lora_adapters) == env.get("LORA_ADAPTERS", "")


@pytest.mark.parametrize("row", SPECS)
def test_a_spec_is_predicted_as_the_launcher_starts_it(row: dict[str, Any]) -> None:
    spec = {"model": {"id": row["model"]}, "hardware": {"gpu": row["gpu"], "count": row["gpus"]}}
    flags_env = {name: row["spec"][name] for name in ("flags", "env") if name in row["spec"]}
    spec |= {"tgi": {"release": row["release"], **flags_env}, "limits": row["spec"].get("limits", {})}
    told = run("predict", "-", "--offline", "--json", stdin=json.dumps(spec))
    prediction = json.loads(told.out)
    if "refused" in row:
        assert (told.code, prediction["stage"]) == (Exit.REFUSED, "launcher")
        assert prediction["reason"].partition("; and then: ")[0] == row["refused"]
        return
    assert prediction["stage"] != "launcher"
    plan = api.predict(spec, offline=True)
    setting = defaults.resolve(plan.spec, plan.facts)
    check(setting, defaults.launcher_limits(setting, defaults.given_limits(setting)).given(), row["starts"])
