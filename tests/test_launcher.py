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
from tgi_advisor.validate.hardware import Stated
from tgi_advisor.validate.judge import cases
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
        assert not (set(codes) & set(LAUNCHER)) - set(row.get("then", ()))
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


# what the rows stand for, from the source: other flags, other releases


def errors_of(args: str, tag: str = "3.3.7", env: str = "", count: int | None = 1) -> list[dict[str, Any]]:
    """The findings about a `docker run` line of Qwen2.5-7B on an L4."""
    line = (
        f"docker run --gpus all --shm-size 1g -v data:/data {env} ghcr.io/huggingface/text-generation-inference:{tag}"
    )
    options = ["--gpu", "nvidia-l4", "--stdin-filename", "run.sh", "--format", "json"]
    options += ["--count", str(count)] if count else []
    ran = run("validate", *options, "-", stdin=f"{line} --model-id Qwen/Qwen2.5-7B-Instruct {args}\n")
    return [one for one in json.loads(ran.out)["findings"] if one["severity"] == "error"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ("--watermark-delta -2.0", "TGI102", "unexpected argument '-2'"),
        ("--max-batch-size -1", "TGI102", "unexpected argument '-1'"),
        ("--revision --", "TGI106", "--revision needs a value"),
        ("--num-shard 1 -- x", "TGI102", "does not expect the argument 'x'"),
        ("--num-shard 1 -- --num-shard", "TGI102", "does not expect the argument '--num-shard'"),
        ("--revision ''", "TGI106", "--revision needs a value"),
        ("'' '--num-shard 0'", "TGI142", "`num_shard` cannot be < 1"),
        ("--rope-factor ' '", "TGI106", "--rope-factor needs a value"),
        ("--num-shard 1 --cuda-memory-fraction 2", "TGI166", "Invalid fraction value: 2.0"),
        ("--num-shard 1 --cuda-memory-fraction=-0.5", "TGI166", "Invalid fraction value: -0.5"),
        ("--num-shard 1 --cuda-memory-fraction 0", "TGI166", "CUDA out of memory"),
        ("--num-shard 1 --cuda-memory-fraction nan", "TGI166", "invalid fraction:nan"),
        ("--num-shard 1 --cuda-memory-fraction 1e40", "TGI166", "Invalid fraction value: inf"),
        ("--num-shard 1 --lora-adapters org/a,", "TGI118", "Error: DownloadError"),
        ("--num-shard 1 --lora-adapters org/a@", "TGI118", "ValueError: Invalid LoRA adapter format: org/a@"),
    ],
)
def test_what_stops_a_command_line_is_said(args: str, code: str, words: str) -> None:
    first = errors_of(args)[0]
    assert first["code"] == code
    assert words in first["message"]


@pytest.mark.parametrize(
    "args",
    [
        "--watermark-delta=-2.0", "--revision -", "--rope-scaling linear --rope-factor inf", "--watermark-gamma NaN",
        "--waiting-served-ratio 1e99", "--", "--cuda-memory-fraction 1.00000001",
        "--cors-allow-origin a --cors-allow-origin b",
    ],
)  # fmt: skip
def test_what_the_launcher_takes_is_no_error(args: str) -> None:
    assert errors_of(f"--num-shard 1 {args}") == []


def test_empty_words_reach_the_launcher_where_no_entry_point_drops_them() -> None:
    assert "TGI106" not in {one["code"] for one in errors_of("--revision '' --num-shard 1", "1.4.5")}


@pytest.mark.parametrize(
    ("env", "tag", "said"),
    [
        ("PREFIX_CACHING", "3.3.7", True), ("PREFILL_CHUNKING", "3.3.7", True), ("PREFILL_CHUNKING", "2.4.1", False),
        ("USE_PREFIX_CACHING", "2.3.1", True), ("PREFIX_CACHING", "2.3.1", False),
    ],
)  # fmt: skip
def test_what_a_variable_set_to_nothing_switches_off_is_said(env: str, tag: str, said: bool) -> None:
    line = f"docker run --gpus all -e {env}= ghcr.io/huggingface/text-generation-inference:{tag} --model-id gpt2\n"
    found = json.loads(run("validate", "-", "--format", "json", stdin=line).out)["findings"]
    assert [one["severity"] for one in found if one["code"] == "TGI104"] == ["warning"] * said


def devices_of(tag: str, env: str, count: int | None = 4, gpus: str = "--gpus all") -> int | None:
    """Shards the launcher starts on a machine with four GPUs."""
    line = f"docker run {gpus} {env} ghcr.io/huggingface/text-generation-inference:{tag} --model-id gpt2\n"
    document = read(line if "intel" not in tag else line.replace("--gpus all", "--privileged"), "run.sh")
    return cases(document, lambda model, _: snapshot.find(model), Stated(None, count))[0].shards


@pytest.mark.parametrize(
    ("tag", "env", "shards"),
    [
        ("3.3.7", "", 4), ("3.3.6", "", 1), ("3.3.7", "-e NVIDIA_VISIBLE_DEVICES=void", 4),
        ("3.3.7", "-e NVIDIA_VISIBLE_DEVICES=' all '", 4), ("3.3.6", "-e NVIDIA_VISIBLE_DEVICES=void", 1),
        ("3.3.7", "-e NVIDIA_VISIBLE_DEVICES=0,1", 4),  # --gpus all sets it behind the container's own
        ("3.3.7", "-e CUDA_VISIBLE_DEVICES=all", 1),
        ("3.3.7", "-e CUDA_VISIBLE_DEVICES=", 1),
        ("3.3.7", "-e CUDA_VISIBLE_DEVICES=0,1,2 -e NVIDIA_VISIBLE_DEVICES=0", 3),
        ("3.3.7", "-e ZE_AFFINITY_MASK=0,1", 4), ("3.3.7-intel-xpu", "-e ZE_AFFINITY_MASK=0,1", 2),
        ("2.0.4-intel", "-e ZE_AFFINITY_MASK=0,1", 1), ("2.1.0-intel", "-e ZE_AFFINITY_MASK=0,1", 2),
        ("2.1.0-intel", "-e ZE_AFFINITY_MASK=0,1 -e NVIDIA_VISIBLE_DEVICES=0", 1),
    ],
)  # fmt: skip
def test_devices_are_counted_as_the_launcher_counts_them(tag: str, env: str, shards: int) -> None:
    assert devices_of(tag, env) == shards


def test_without_a_device_request_the_variable_counts() -> None:
    assert devices_of("3.3.7", "-e NVIDIA_VISIBLE_DEVICES=0,1", gpus="--runtime nvidia") == 2


def test_sharded_is_not_refused_where_the_devices_are_not_known() -> None:
    assert errors_of("--sharded true", count=None) == []
    first = errors_of("--sharded true", "3.3.6", count=None)[0]  # `all` counts as one
    assert 'NotEnoughCUDADevices("`sharded` is true but only found 1 CUDA devices")' in first["message"]


def test_figures_of_models_that_stand_in_are_not_quoted() -> None:
    line = (
        "docker run --gpus all ghcr.io/huggingface/text-generation-inference:2.0.4 --model-id me/private --num-shard 1"
    )
    ran = run("validate", "-", "--format", "json", stdin=f"{line} --max-batch-total-tokens 16\n")
    found = {one["code"]: one for one in json.loads(ran.out)["findings"]}
    assert "Given: ... and 16" in found["TGI112"]["message"]
    assert "Given: ... and 16" in found["TGI113"]["message"]


def predicted(tag: str = "3.3.7", **tgi: Any) -> dict[str, Any]:
    spec = {
        "model": {"id": "Qwen/Qwen2.5-7B-Instruct"},
        "hardware": {"gpu": "nvidia-l4"},
        "tgi": {"release": tag, **tgi},
    }
    found: dict[str, Any] = json.loads(run("predict", "-", "--offline", "--json", stdin=json.dumps(spec)).out)
    return found


@pytest.mark.parametrize(
    ("tgi", "reason"),
    [
        ({"env": {"ATTENTION": ""}}, "AssertionError: Attention is not valid , expected"),
        ({"env": {"TGI_WIGGLE_ROOM": "nan"}}, "AssertionError: assert TGI_WIGGLE_ROOM > 0"),
        ({"env": {"TGI_WIGGLE_ROOM": "inf"}}, "AssertionError: assert TGI_WIGGLE_ROOM < 1"),
        ({"env": {"TGI_WIGGLE_ROOM": "-1e400"}}, "AssertionError: assert TGI_WIGGLE_ROOM > 0"),
        ({"env": {"LORA_ADAPTERS": ""}}, "Error: DownloadError"),
        (
            {"env": {"USAGE_STATS": "x", "MAX_BATCH_SIZE": "y"}},
            "error: invalid value 'y' for '--max-batch-size <MAX_BATCH_SIZE>': invalid digit found in string",
        ),
        (
            {"env": {"MAX_BEST_OF": "x"}, "flags": {"rope-scaling": "a", "payload-limit": "b"}},
            "error: invalid value 'a' for '--rope-scaling <ROPE_SCALING>'",
        ),
        ({"flags": {"payload-limit": "b", "no-such": 1}}, "error: invalid value 'b' for '--payload-limit"),
        ({"flags": {"no-such": 1, "payload-limit": "b"}}, "error: unexpected argument '--no-such' found"),
        ({"flags": {"waiting-served-ratio": "nan", "validation-workers": "+0"}}, "Error: ArgumentValidation"),
    ],
)
def test_a_spec_is_refused_in_tgis_words_and_order(tgi: dict[str, Any], reason: str) -> None:
    assert predicted(**tgi)["reason"].startswith(reason)


def test_limits_are_compared_as_32_bits() -> None:
    limits = "--num-shard 1 --max-input-tokens 100 --max-batch-total-tokens 5000 --max-total-tokens"
    codes = [{one["code"] for one in errors_of(f"{limits} {2**32 + total}")} for total in (5000, 5001)]
    assert ["TGI112" in found for found in codes] == [False, True]


@pytest.mark.parametrize(
    ("gpu", "variable"), [("max-1550", "XPU_MEMORY_FRACTION"), ("intel-gaudi3", "HPU_MEMORY_FRACTION")]
)
def test_shares_of_other_devices_have_variables_of_their_own(gpu: str, variable: str) -> None:
    def plan(**tgi: Any) -> Any:
        spec = {
            "model": {"id": "Qwen/Qwen2.5-7B-Instruct"},
            "hardware": {"gpu": gpu, "memory_fraction": tgi.pop("of", 1)},
        }
        return api.predict({**spec, "tgi": {"flags": {"max-batch-size": 4}, **tgi}}, offline=True).prediction

    def budget(**tgi: Any) -> int:
        tokens: int = plan(**tgi).limits.max_batch_total_tokens
        return tokens

    assert budget(env={variable: "0.5"}) < budget() < budget(env={variable: "0.95"})
    assert budget() == budget(of=0.5) == budget(env={variable: {"max-1550": "0.9"}.get(gpu, "0.8")})
    assert any(f"set {variable} in tgi.env" in warning for warning in plan(of=0.5).warnings)
    for text in ("", "x", "nan", "inf", "-inf", "2"):
        assert plan(env={variable: text}).outcome == "refused"


def test_prefix_caching_set_to_nothing_is_off() -> None:
    spec = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}}
    plan = api.predict({**spec, "tgi": {"release": "3.3.7", "env": {"PREFIX_CACHING": ""}}}, offline=True)
    assert defaults.resolve(plan.spec, plan.facts).prefix_caching is False


def test_a_value_the_launcher_cannot_read_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        "model: {id: Qwen/Qwen2.5-7B-Instruct}\nhardware: {gpu: nvidia-l4}\ntgi:\n  flags:\n    max-best-of: x\n"
        "    payload-limit: y\n  env:\n    USAGE_STATS: z\n"
    )
    steps = json.loads(run("predict", str(file), "--offline", "--json").out)["next_steps"]
    assert [step.removeprefix(str(file)).partition(" ")[0] for step in steps] == [":5:5:", ":6:5:", ":8:5:"]
    refused = run("predict", str(file), "--offline", "--set", "tgi.flags.json-output=1")
    assert refused.code == Exit.SPEC
    assert "--json-output: expected exactly true or false, got 1" in refused.err


@pytest.mark.parametrize(
    ("env", "flags", "note"),
    [
        ({}, {"otlp-service-name": "a b"}, "'OTLP_SERVICE_NAME=a b'"),
        ({"ATTENTION": "paged", "PREFIX_CACHING": "0"}, {}, "ATTENTION=paged PREFIX_CACHING=0"),
        ({}, {"otlp-service-name": "ab"}, ""),
    ],
)
def test_arguments_alone_say_what_they_leave_to_the_environment(
    env: dict[str, str], flags: dict[str, str], note: str
) -> None:
    spec = {"model": {"id": "Qwen/Qwen2.5-7B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}}
    ran = run("emit", "-", "-f", "args", "--offline", stdin=json.dumps({**spec, "tgi": {"env": env, "flags": flags}}))
    assert (ran.code, ran.err) == (
        0,
        f"The arguments alone are not this server: its environment holds {note}\n" * bool(note),
    )


def test_flags_are_imported_whole(tmp_path: Path) -> None:
    flags = "--cuda-graphs 1 --cuda-graphs 2,4 --cors-allow-origin a --cors-allow-origin b --otlp-service-name 010"
    file, made = tmp_path / "run.sh", tmp_path / "spec.yaml"
    file.write_text(command({**ROWS[6], "args": shlex.split(f"--num-shard 1 {flags}"), "env": {}}))
    made.write_text(run("import", str(file), "--gpu", "nvidia-l4").out)
    args = run("emit", str(made), "-f", "args", "--as-given", "--offline").out
    assert flags.replace("1 --cuda-graphs 2,4", "1,2,4") in args
    assert json.loads(run("validate", str(made), "--format", "json").out)["findings"] == []


def test_a_spec_of_our_own_is_read_as_predict_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        "model: {id: Qwen/Qwen2.5-7B-Instruct}\nhardware: {gpu: nvidia-l4, memory_fraction: 0.95}\ntgi:\n"
        "  flags: {max_batch_size: '4', cuda-graphs: [1, 2], json-output: false, watermark-delta: -2.0}\n"
        "limits: {max_input_tokens: 2k, max_total_tokens: {min: 4k}}\n"
    )
    assert json.loads(run("validate", str(file), "--format", "json").out)["findings"] == []
