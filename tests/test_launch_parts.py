"""The parts of `launch` that need no engine: where to look for one, the log as steps, causes, the history."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from golden import Golden
from hypothesis import given
from hypothesis import strategies as st
from launch_image import build

import tgi_advisor
from tgi_advisor.cli.live import Layers, clock
from tgi_advisor.cli.main import cli
from tgi_advisor.errors import EngineError, Exit, UsageError
from tgi_advisor.launch import failures, history, learn, marks, records, run, watch
from tgi_advisor.launch.docker import preflight, request
from tgi_advisor.launch.docker.engine import Address, addresses, connect
from tgi_advisor.launch.docker.place import body_of
from tgi_advisor.launch.preflight import Gpu, Host, size
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Plan

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "llama-3.1-8b-l4.yaml"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tgi_advisor.advise(CONFIG)


# -- where the engine is


def test_a_named_engine_is_the_only_one_tried(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": "ssh://me@far", "DOCKER_CONTEXT": "other", "HOME": str(tmp_path)}
    assert addresses(environ) == [Address("ssh://me@far", "DOCKER_HOST", None, verify=False)]
    assert (addresses(environ)[0].host, addresses(environ)[0].local) == ("far", False)


def test_tls_as_the_docker_command_reads_it(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs", "HOME": "/h"}
    assert addresses(environ) == [Address("tcp://far:2376", "DOCKER_HOST", "/certs", verify=True)]


def context(folder: Path, name: str, host: str) -> None:
    meta = folder / "contexts" / "meta" / sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


def test_contexts(tmp_path: Path) -> None:
    context(tmp_path, "box", "tcp://box:2375")
    environ = {"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}
    assert addresses(environ | {"DOCKER_CONTEXT": "box"}) == [
        Address("tcp://box:2375", "context 'box' of DOCKER_CONTEXT")
    ]
    (tmp_path / "config.json").write_text('{"currentContext": "box"}')
    assert addresses(environ) == [Address("tcp://box:2375", "context 'box' of config.json")]
    assert len(addresses(environ | {"DOCKER_CONTEXT": "default"})) == 4
    with pytest.raises(EngineError, match="'gone', chosen by DOCKER_CONTEXT, cannot be read"):
        addresses(environ | {"DOCKER_CONTEXT": "gone"})
    (tmp_path / "config.json").write_text("no json")
    assert [place.url for place in addresses(environ)] == [
        "unix:///var/run/docker.sock",
        "unix:///run/user/7/docker.sock",
        f"unix://{tmp_path}/.docker/run/docker.sock",
        f"unix://{tmp_path}/.docker/desktop/docker.sock",
    ]


def test_everything_that_was_tried_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        connect({"DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    assert [problem.message for problem in caught.value.problems] == [
        f"unix://{tmp_path}/no.sock (DOCKER_HOST): there is no such socket"
    ]
    with pytest.raises(EngineError) as caught:
        connect({"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert "Connection refused" in caught.value.problems[0].message
    with pytest.raises(EngineError):
        connect({"DOCKER_HOST": "nonsense://x"})


def test_without_an_engine_the_rest_is_still_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    result = CliRunner().invoke(cli, ["launch", str(CONFIG)])
    assert result.exit_code == 7
    said = " ".join(result.stderr.split())
    assert "there is no such socket" in said
    assert "no Hub token is set in HF_TOKEN" in said


def test_help_loads_no_docker() -> None:
    code = "import sys, tgi_advisor.cli.main, tgi_advisor.launch.run; print('docker' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# -- the request


def test_a_plan_has_one_digest(plan: Plan) -> None:
    body = body_of(plan, run.Options(), "one")
    again = body_of(tgi_advisor.advise(CONFIG), run.Options(), "two")
    assert body["Labels"][marks.PLAN] == again["Labels"][marks.PLAN] == marks.digest({**body, "Labels": None})
    other = body_of(plan, run.Options(ulimits=("core=0",)))
    assert other["Labels"][marks.PLAN] != body["Labels"][marks.PLAN]


def test_secrets_are_not_in_the_request(plan: Plan) -> None:
    assert plan.container is not None
    environ = {"HF_TOKEN": "hf_very_secret", "OTHER": "x"}
    assert marks.secrets_of(plan.container, environ) == {"HF_TOKEN": "hf_very_secret"}
    assert marks.secrets_of(plan.container, {"HF_TOKEN": ""}) == {}
    body = body_of(plan, run.Options())
    assert "hf_very_secret" not in json.dumps(body)
    assert request.with_secrets(body, {"HF_TOKEN": "hf_very_secret"})["Env"] == ["HF_TOKEN=hf_very_secret"]


@pytest.mark.parametrize(("text", "expected"), [("1g", 1 << 30), ("512m", 512 << 20), ("1b", 1), ("64k", 65536)])
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("option", [("--restart", "sometimes"), ("--ulimit", "many"), ("--restart", "always:x")])
def test_options_docker_does_not_know(option: tuple[str, str], plan: Plan) -> None:
    how = run.Options(restart=option[1], detach=True) if option[0] == "--restart" else run.Options(ulimits=(option[1],))
    with pytest.raises(UsageError, match=option[1]):
        body_of(plan, how)


def test_the_stop_timeout_is_tgi_s(plan: Plan) -> None:
    def of(release: str, **flags: Any) -> int:
        asked = {"model": {"id": "Qwen/Qwen2.5-3B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}}
        return request.stop_timeout(tgi_advisor.advise({**asked, "tgi": {"release": release, "flags": flags}}))

    assert of("3.3.7") == 120
    assert of("3.3.7", **{"graceful-termination-timeout": 300}) == 330
    assert of("2.2.0") == 10
    image = "7.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.6-gpu-py311"
    asked = {"model": {"id": "Qwen/Qwen2.5-3B-Instruct"}, "hardware": {"gpu": "nvidia-l4"}, "tgi": {"image": image}}
    assert request.stop_timeout(tgi_advisor.advise(asked)) == 10


# -- the log


FAILED = ("oom-warmup", "oom-load", "gated", "not-found", "disk", "nccl", "model-type", "no-gpu", "prometheus",
          "shard-killed")  # fmt: skip
"""Sections of the pretend log that end a start-up."""


def sections(release: str) -> dict[str, list[str]]:
    """The pretend image's log of a release."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "tests" / "launch_image" / "logs" / f"{release}.txt").read_text("utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            found[line[1:-1]] = lines = []
        elif found:
            lines.append(line)
    return found


def stamped(line: str) -> str:
    """A line as TGI prints it."""
    return f"2026-01-01T00:00:00.0Z {line}" if line.startswith(("INFO ", "WARN ", "ERROR ")) else line.removeprefix("-")


def steps(text: str) -> list[str]:
    found = []
    progress = watch.Progress()
    for _, step in progress.feed(text.encode()):
        if step:
            found.append(f"{step.name:<10}{'' if step.alive else '(waits) '}{step.text}")
    return found


@pytest.mark.parametrize("release", build.RELEASES)
def test_each_release_s_log_as_steps(release: str, golden: Golden) -> None:
    words = {"model": "org/m", "rank": 0, "shards": 2, "file": "a.safetensors", "done": 1, "of": 2, "left": "09",
             "budget": 4242, "args": "{", "max_input": 1}  # fmt: skip
    lines = [line.format(**words) for name, body in sections(release).items() if name not in FAILED for line in body]
    golden(f"launch/steps-{release}.txt", "\n".join(steps("\n".join(map(stamped, lines)) + "\n")) + "\n")


@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_lines_do_not_depend_on_how_the_stream_is_cut(data: bytes, seed: int) -> None:
    def cut(pieces: list[bytes]) -> list[str]:
        lines = watch.Lines()
        return [line for piece in pieces for line in lines.feed(piece)] + list(lines.end())

    at = sorted(random.Random(seed).choices(range(len(data) + 1), k=4))
    pieces = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]
    assert cut(pieces) == cut([data])


def test_a_line_without_end_takes_bounded_memory() -> None:
    lines = watch.Lines()
    for _ in range(100):
        assert list(lines.feed(b"x" * 65536)) == []
    (line,) = lines.feed(b"\n")
    assert line == "x" * watch.LINE_LIMIT + " [...]"


def test_a_long_log_keeps_its_beginning_and_its_end() -> None:
    kept = watch.Kept()
    for number in range(100_000):
        kept.add(str(number))
    lines = kept.text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("0", "99999", watch.KEPT_HEAD + watch.KEPT_TAIL)


# -- causes


def context_of(plan: Plan, text: str, state: failures.State | None = None, token: bool = True) -> failures.Context:
    assert plan.container is not None
    return failures.Context(plan, plan.container, text, state or failures.State(running=False, exit_code=1), token)


@pytest.mark.parametrize("release", build.RELEASES)
def test_each_failure_of_each_release(release: str, golden: Golden, plan: Plan) -> None:
    told = []
    words = {"model": "org/m", "rank": 0, "prefill": 4096, "max_input": 1, "max_total": 2, "tried": "512.00 MiB",
             "free": "188.38 MiB"}  # fmt: skip
    for name in FAILED:
        begin = ["INFO shard-manager: text_generation_launcher: Starting shard rank=0"]
        if name in ("oom-warmup", "prometheus"):
            begin += ["INFO text_generation_router: router/src/main.rs:317: Warming up model"]
        log = "\n".join(stamped(line.format(**words)) for line in [*begin, *sections(release)[name]])
        seen = failures.diagnose(context_of(plan, log))
        told += [f"[{name}] {seen.cause} -> {seen.exit.name}", seen.message]
        told += [*(f"  > {line}" for line in seen.proof), *(f"  = {step}" for step in seen.next_steps), ""]
    golden(f"launch/failures-{release}.txt", "\n".join(told))


def test_other_processes_on_the_gpu_are_said(plan: Plan) -> None:
    log = (
        "2026-01-01T00:00:00.0Z  INFO shard-manager: text_generation_launcher: Starting shard rank=0\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of "
        "22.00 GiB of which 1.00 GiB is free. Process 1 has 11.00 GiB memory in use. Of the allocated memory 10.00 GiB "
        "is allocated by PyTorch, and 0.50 GiB is reserved by PyTorch but unallocated.\n"
    )
    seen = failures.diagnose(context_of(plan, log))
    assert seen.cause == "out_of_memory_at_load"
    assert seen.next_steps[-1].startswith("Other processes hold 10.00 GiB of this GPU")


@pytest.mark.parametrize(("driver", "found"), [("525.85.12", True), ("535.54.03", False), ("", False)])
def test_an_old_driver_the_plan_knows_nothing_of(plan: Plan, driver: str, found: bool) -> None:
    container = plan.container
    assert container is not None
    here = Host((Gpu(0, "NVIDIA L4", None, None, (), driver),))
    said = list(preflight.old_driver(plan, container, here))
    assert [finding.message for finding in said] == [
        "driver 525.85.12 loads every kernel at once, 1.50 GiB of each GPU that the plan does not count"
    ] * found
    assert all(finding.blocks and "hardware.driver=525.85.12" in (finding.hint or "") for finding in said)
    lazily = container._replace(env={**container.env, "CUDA_MODULE_LOADING": "LAZY"})
    assert not list(preflight.old_driver(plan, lazily, here))


def test_killed_for_want_of_host_memory(plan: Plan) -> None:
    seen = failures.diagnose(context_of(plan, "x\n", failures.State(running=False, exit_code=137, oom_killed=True)))
    assert (seen.cause, seen.exit) == ("killed", Exit.OUT_OF_MEMORY)


@given(text=st.text(max_size=200))
def test_any_log_has_a_cause(plan: Plan, text: str) -> None:
    assert failures.diagnose(context_of(plan, text)).message


# -- what a failure teaches


def test_the_shortage_becomes_headroom(plan: Plan) -> None:
    log = "Not enough memory to handle 2048 prefill tokens"
    text = (
        "2026-01-01T00:00:00.0Z  INFO text_generation_router: router/src/main.rs:317: Warming up model\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of "
        "22.00 GiB of which 1.00 GiB is free.\n"
        f"RuntimeError: {log}\n"
    )
    seen = failures.diagnose(context_of(plan, text))
    assert plan.search is not None
    kept = plan.search.headroom_bytes
    first = learn.learnt(plan.spec, plan, seen, 1).hardware.headroom
    assert first is not None
    assert 0 <= first - (kept + (2 << 30)) < 1 << 20
    second = learn.learnt(plan.spec, plan, seen, 2).hardware.headroom
    assert second is not None
    assert second > first
    smaller = tgi_advisor.advise(learn.learnt(plan.spec, plan, seen, 1), facts=plan.facts)
    assert (smaller.prediction.limits.max_total_tokens or 0) < (plan.prediction.limits.max_total_tokens or 0)


def test_less_prefill_never_goes_below_the_floor(plan: Plan) -> None:
    failed = Limits(1000, 2000, 4096)
    tokens = [learn.with_less_prefill(plan.spec, failed, n).limits.max_batch_prefill_tokens.fixed for n in (1, 2, 3, 4)]
    assert tokens == [3072, 2048, 1024, 1024]
    floor = tgi_advisor.read_spec({
        "model": {"id": "a/b"}, "hardware": {"gpu": "nvidia-l4"},
        "limits": {"max_batch_prefill_tokens": {"min": 3500}},
    })  # fmt: skip
    assert learn.with_less_prefill(floor, failed, 3).limits.max_batch_prefill_tokens.fixed == 3500


# -- the history

ROW = history.Row(
    at="2026-01-02T03:04:05+00:00", model="org/m", commit="abc", gpu="nvidia-l4", gpu_memory_mib=23034, gpu_count=1,
    release="3.3.7", variant="", num_shard=1, memory_fraction=1.0,
    limits={"max_input_tokens": 10, "max_total_tokens": 20, "max_batch_prefill_tokens": 30},
    outcome="starts", predicted=1000, observed=990, kv_bytes_per_token=1024, headroom_bytes=5, seconds=1.5,
    seen={"attention": "flashinfer"},
)  # fmt: skip


def test_where_the_history_is(tmp_path: Path) -> None:
    assert history.path({"TGI_ADVISOR_DATA": "/d", "XDG_DATA_HOME": "/x"}) == Path("/d/history.jsonl")
    assert history.path({"XDG_DATA_HOME": "/x"}) == Path("/x/tgi-advisor/history.jsonl")


def test_rows_are_found_by_model_gpu_and_release(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "history.jsonl"
    for row in (ROW, ROW._replace(release="2.4.1"), ROW._replace(model="org/other"), ROW._replace(num_shard=2)):
        history.add(row, file)
    assert history.rows(file) == ([ROW, *history.rows(file)[0][1:]], 0)
    assert history.lookup("org/m", "nvidia-l4", "3.3.7", file=file) == [ROW, ROW._replace(num_shard=2)]
    assert history.lookup("org/m", "nvidia-a10g", "3.3.7", file=file) == []
    assert history.lookup("org/m", "nvidia-l4", "3.3.7", file=tmp_path / "none") == []


def test_a_torn_line_costs_one_row(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    history.add(ROW, file)
    with file.open("ab") as out:
        out.write(b'{"at": "20')
    history.add(ROW, file)
    assert history.rows(file) == ([ROW, ROW], 1)


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom test_launch_parts import ROW, history\n"
        "for n in range(40): history.add(ROW._replace( model=f'{sys.argv[1]}/{n}' + 'x' * 5000), Path(sys.argv[2]))\n"
    )
    file = tmp_path / "history.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(writer), str(file)], cwd=ROOT / "tests")
        for writer in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 3
    rows, unreadable = history.rows(file)
    assert (len({row.model for row in rows}), unreadable) == (120, 0)


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        history.add(ROW, tmp_path / "file" / "history.jsonl")


def test_the_history_for_people_and_for_the_accuracy_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    monkeypatch.setenv("TGI_ADVISOR_DATA", str(tmp_path))

    def run_history(*options: str) -> Result:
        return CliRunner().invoke(cli, ["history", *options])

    assert run_history().stdout == "No launch has been recorded here yet.\n"
    oom = {"tried": "512.00MiB", "free": "100.00MiB"}
    for row in (ROW, ROW._replace( outcome="out_of_memory_at_warmup", observed=None, seen={"oom": oom}),
                ROW._replace( outcome="gated", observed=None)):  # fmt: skip
        history.add(row)
    golden("launch/history.txt", run_history().stdout)
    golden("launch/history.yaml", run_history("--export").stdout)
    assert len(json.loads(run_history("--json").stdout)) == 3


def test_what_launches_showed_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setenv("TGI_ADVISOR_DATA", str(tmp_path))
    assert plan.search is not None
    limits = plan.prediction.limits
    predicted = limits.max_batch_total_tokens or 0
    row = ROW._replace(model=plan.facts.model.id, predicted=predicted, observed=predicted - 100, limits=limits.given(),
                       kv_bytes_per_token=plan.prediction.kv_bytes_per_token)  # fmt: skip
    history.add(row)
    near = tgi_advisor.advise(CONFIG)
    assert near.prediction.limits == limits
    assert near.prediction.warnings[-1] == (
        f"a launch here on 2026-01-02 measured max_batch_total_tokens {predicted - 100:,} where {predicted:,} were "
        "predicted (+0.3 %)"
    )
    history.add(row._replace(observed=predicted - 6000))
    short = tgi_advisor.advise(CONFIG)
    assert short.search is not None
    assert short.search.headroom_bytes >= 6000 * row.kv_bytes_per_token > plan.search.headroom_bytes
    assert short.search.headroom_why == "what launches here measured"
    assert (short.prediction.limits.max_total_tokens or 0) < (limits.max_total_tokens or 0)
    assert tgi_advisor.advise(CONFIG, facts=plan.facts).prediction.limits == limits
    stated = tgi_advisor.advise(replace(plan.spec, hardware=replace(plan.spec.hardware, headroom=1 << 20)))
    assert stated.search is not None
    assert stated.search.headroom_bytes == 1 << 20
    history.add(row._replace(quantize="eetq", observed=1))
    assert tgi_advisor.advise(CONFIG).prediction.limits == short.prediction.limits


@pytest.mark.parametrize(
    ("rows", "needed"),
    [
        ([ROW], 10 * 1024),
        ([ROW._replace(observed=1010)], 0),
        ([ROW._replace(outcome="out_of_memory_at_warmup", observed=None)], 5 + (23034 << 20) // 50),
        (
            [ROW._replace(outcome="out_of_memory_at_warmup", observed=None), ROW._replace(headroom_bytes=1 << 28)],
            1 << 28,
        ),
        ([ROW._replace(outcome="gated", observed=None)], 0),
    ],
)
def test_what_launches_ask_for(rows: list[history.Row], needed: int) -> None:
    assert history.lesson(rows)[1] == needed


# -- what is shown


def test_a_clock() -> None:
    assert [clock(second) for second in (0, 59.9, 60, 3725)] == ["0:00", "0:59", "1:00", "62:05"]


def test_layers_add_up() -> None:
    layers = Layers()

    def see(layer: str, text: str, current: int | None = None, total: int | None = None) -> None:
        layers.see(records.Event("pull", 0, text, {"layer": layer, "current": current, "total": total}))

    see("3.3.7", "Pulling from org/image")
    see("a", "Already exists")
    see("b", "Downloading", 256 << 20, 1 << 30)
    see("c", "Pulling fs layer")
    assert layers.text() == "pulling: 1 of 3 layers, 256.0 MiB of 1.00 GiB [=====               ]"
    assert layers.moving() == ["b  [=====               ] downloading 256.0 MiB of 1.00 GiB"]
    see("b", "Download complete")
    assert layers.moving() == []
    see("b", "Pull complete")
    assert layers.text() == "pulling: 2 of 3 layers, 1.00 GiB of 1.00 GiB [====================]"
