"""`upgrade`: what another release changes, the spec to go on with, and files mended in place."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from front import L4, ROOT, run
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st

import tgi_advisor
from tgi_advisor.errors import Exit
from tgi_advisor.facts import changes, flags
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather.facts import gather
from tgi_advisor.moves import Upgrades, upgrade
from tgi_advisor.spec import reader, writer
from tgi_advisor.spec.records import Spec
from tgi_advisor.upgrades import Upgrade
from tgi_advisor.upgrades import upgrade as judged
from tgi_advisor.upgrades.records import EXITS

QWEN = "Qwen/Qwen2.5-7B-Instruct"
LLAMA2 = "meta-llama/Llama-2-7b-chat-hf"
MOVES = (("1.4.5", "3.3.7"), ("2.0.4", "2.4.1"), ("2.2.0", "3.3.7"), ("3.0.1", "3.3.7"), ("3.3.7", "2.4.1"))


def spec_of(model: str, gpu: str, release: str, *sets: str) -> Spec:
    return reader.build([("model.id", model), ("hardware.gpu", gpu), ("tgi.release", release)], "test", None, sets)


def known(spec: Spec) -> Facts:
    return gather(spec, source="snapshot", offline=True)


def moved(model: str, gpu: str, start: str, end: str, *sets: str, **more: Any) -> Upgrade:
    spec = spec_of(model, gpu, start, *sets)
    return judged(spec, known(spec), releases.find(end), **more)


def of_file(path: Path, **asked: Any) -> Upgrade:
    (found,) = upgrade(path, source="snapshot", offline=True, **asked).servers
    return found


ARGS = "--max-input-tokens 3000 --max-total-tokens 4096"
COMPOSE = """\
# the chat
services:
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:{release} # pinned
    command: --model-id {model} {args}
    environment:
      - HUGGING_FACE_HUB_TOKEN=${{HF_TOKEN}}
    shm_size: 1g
    ports: ["8080:80"]
    volumes: ["tgi-data:/data"]
    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, count: 1, capabilities: [gpu]}}]}}}}}}
volumes: {{tgi-data: {{}}}}
"""


def compose(folder: Path, release: str = "2.0.4", model: str = QWEN, args: str = ARGS) -> Path:
    path = folder / "compose.yaml"
    path.write_text(COMPOSE.format(release=release, model=model, args=args), "utf-8")
    return path


# ---- what is said


@pytest.mark.parametrize(
    ("name", "model", "gpu", "start", "end"),
    [
        ("llama-l4", "meta-llama/Llama-3.1-8B-Instruct", "nvidia-l4", "2.2.0", "3.3.7"),
        ("llama2-a10g", LLAMA2, "a10g", "1.4.5", "3.3.7"),
        ("awq-l4", "TheBloke/Mistral-7B-Instruct-v0.1-AWQ", "nvidia-l4", "2.0.4", "2.4.1"),
        ("vision-a100", "meta-llama/Llama-3.2-11B-Vision-Instruct", "a100-80gb-sxm", "3.0.1", "3.3.7"),
        ("too-big-l4", "Qwen/Qwen2.5-14B-Instruct", "nvidia-l4", "3.0.1", "3.3.7"),
    ],
)
def test_pages(golden: Golden, name: str, model: str, gpu: str, start: str, end: str) -> None:
    ran = run("upgrade", "-m", model, "-g", gpu, "--from", start, "--to", end, "--offline")
    golden(f"upgrade/{name}.txt", ran.out)
    found = json.loads(run("upgrade", "-m", model, "-g", gpu, "--from", start, "--to", end, "--offline", "--json").out)
    assert found["upgrade"][0]["exit_code"] == ran.code


def test_the_table_of_releases_says_where_it_breaks(golden: Golden) -> None:
    ran = run("upgrade", "-m", LLAMA2, "-g", "a10g", "--from", "1.4.5", "--releases", "--offline")
    golden("upgrade/releases.txt", ran.out)
    asked = ("-m", LLAMA2, "-g", "a10g", "--from", "1.4.5", "--table", "--json", "--offline")
    (one,) = json.loads(run("upgrade", *asked).out)["upgrade"]
    names = [row["release"] for row in one["releases"]]
    assert (names[0], names[-1]) == ("1.4.5", "3.3.7")
    ends = [row["max_batch_total_tokens"] for row in one["releases"]]
    limits = [one[side]["limits"]["max_batch_total_tokens"] for side in ("before", "after")]
    assert [ends[0], ends[-1]] == limits


def test_the_release_of_today_is_never_guessed(tmp_path: Path) -> None:
    spec = tmp_path / "llama.yaml"
    spec.write_text("model: {id: Qwen/Qwen2.5-7B-Instruct}\nhardware: {gpu: nvidia-l4}\n")
    for asked in (("-m", QWEN, "-g", "nvidia-l4"), (str(spec),)):
        ran = run("upgrade", *asked, "--offline")
        assert (ran.code, "does not say which release of TGI runs today" in ran.err) == (2, True), ran
    assert run("upgrade", str(spec), "--from", "3.3.7", "--offline").code == 0


def test_what_predict_says_of_both_releases() -> None:
    """No other arithmetic: before and after are what `predict` says of the spec with each release."""
    found = moved(QWEN, "nvidia-l4", "2.4.1", "3.3.7")
    for side in (found.before, found.after):
        plan = tgi_advisor.predict(model=QWEN, gpu="nvidia-l4", release=side.name, source="snapshot", offline=True)
        assert side.prediction.limits == plan.prediction.limits
        assert side.prediction.parts == plan.prediction.parts


@pytest.mark.parametrize(("start", "end"), MOVES)
def test_the_parts_that_differ_add_up(start: str, end: str) -> None:
    """What the others take more is what the KV cache has less, in bytes."""
    found = moved(LLAMA2, "a10g", start, end)
    assert found.memory
    assert sum(row.after_bytes - row.before_bytes for row in found.memory) == 0
    cache = found.memory[-1]
    budgets = [side.prediction.limits.max_batch_total_tokens or 0 for side in (found.before, found.after)]
    assert (cache.name, cache.tokens) == ("KV cache", budgets[1] - budgets[0])


def changed(found: Upgrade) -> dict[str, tuple[str, str]]:
    return {one.name: (one.before, one.after) for one in found.changes}


def test_what_lies_around() -> None:
    found = changed(moved(LLAMA2, "a10g", "1.4.5", "3.3.7"))
    assert found["weight cache"][1].startswith("/data/hub/")
    assert found["entry point"][1].startswith("/tgi-entrypoint.sh")
    assert found["--waiting-served-ratio"] == ("1.2", "0.3")
    assert "Hub token" not in found, "emit names the variable as the release does"
    assert "weight cache" not in changed(moved(LLAMA2, "a10g", "2.4.1", "3.3.7"))
    back = changed(moved(LLAMA2, "a10g", "3.3.7", "2.2.0"))
    assert back["weight cache"] == found["weight cache"][::-1]


def test_every_source_is_a_place_at_a_tag() -> None:
    for start, end in MOVES:
        for one in moved(LLAMA2, "a10g", start, end).changes:
            assert not one.source or "@v" in one.source or one.source.startswith("https://"), one


def test_the_table_of_changes_is_in_order_and_known() -> None:
    rows = changes.around()
    assert [row.since for row in rows] == sorted(row.since for row in rows)
    last: dict[str, changes.Around] = {}
    for row in rows:  # rows of one name follow each other
        assert row.name not in last or last[row.name].when == row.when
        last[row.name] = row
    for name in ("signals", "length of answers"):
        chain = [row for row in rows if row.name == name]
        assert all(was.after == now.before for was, now in pairwise(chain)), name
    every = {name for one in releases.all_releases() for name in flags.flags_of(one)}
    variables = {name for one in releases.all_releases() for name in flags.environment(one)}
    for name in ("disable-usage-stats", "enable-cuda-graphs", "USE_PREFIX_CACHING", "HUGGING_FACE_HUB_TOKEN"):
        follows = changes.instead(name)
        assert follows is not None
        assert not follows.to or follows.to in every | variables
    assert changes.instead("port") is None


def around(start: str, end: str, gpu: str = "a10g") -> dict[str, tuple[str, str]]:
    found = moved(LLAMA2, gpu, start, end)
    return {one.name: (one.before, one.after) for one in found.changes if one.kind == "around"}


def test_what_changes_twice_is_said_once() -> None:
    assert "bash" in around("1.4.5", "2.2.0")["signals"][1]
    assert "bash" in around("2.2.0", "2.4.1")["signals"][0]
    assert "signals" not in around("1.4.5", "2.4.1")  # there and back
    assert "bash" in around("2.4.1", "2.2.0")["signals"][1]
    was, now = around("1.0.3", "2.0.4")["length of answers"]
    assert was.startswith("20 tokens")
    assert now.startswith("100 tokens")
    assert around("3.0.1", "1.0.3")["length of answers"][1].startswith("20 tokens")


def test_the_driver_is_said_to_those_who_need_a_newer_one() -> None:
    assert "CUDA 11.8" in around("1.1.0", "3.3.7")["driver"][0]
    assert "CUDA 12.4" in around("1.1.0", "3.3.7")["driver"][1]
    assert "driver" not in around("3.3.7", "2.4.1")
    assert "driver" not in around("2.4.1", "3.3.7", "mi300x")


def test_what_clients_lose_is_said_downwards_alone() -> None:
    for name, start, end in (
        ("chat", "2.0.4", "1.3.4"),
        ("/invocations", "2.4.1", "2.3.1"),
        ("metrics", "2.0.4", "1.3.1"),
    ):
        assert name in around(start, end)
        assert name not in around(end, start)


def test_port_and_volume_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: tgi}\nspec:\n  containers:\n  - name: tgi\n"
        "    image: ghcr.io/huggingface/text-generation-inference:2.0.4\n"
        f"    args: [--model-id, {QWEN}]\n    env: [{{name: PORT, value: '8080'}}]\n"
        "    resources: {limits: {nvidia.com/gpu: 1}}\n    volumeMounts: [{name: data, mountPath: /data}]\n"
        "  volumes: [{name: data, persistentVolumeClaim: {claimName: weights}}]\n",
        "utf-8",
    )
    ran = run("upgrade", str(path), "-g", "nvidia-l4", "--offline")
    words = " ".join(ran.out.split())
    assert "port 8080 in the container" in words
    assert "mv /data/models--* /data/hub/ in the volume" in words
    assert "./data" not in words


# ---- flags and variables


def test_a_limit_has_the_name_the_file_gives_it(tmp_path: Path) -> None:
    path = compose(tmp_path, "0.9.4", args="--max-input-length 3000 --max-total-tokens 4096")
    found = changed(of_file(path, gpu="nvidia-l4", to="1.0.3"))
    assert not any("max-input" in name for name in found)
    assert found["image"][0].endswith(":0.9.4")
    path = compose(tmp_path, "1.4.5", args="--max-input-length 3000 --max-total-tokens 4096")
    assert changed(of_file(path, gpu="nvidia-l4"))["--max-input-length"] == ("3000", "renamed")


def test_a_variable_nothing_reads_today_asks_for_nothing() -> None:
    found = moved(LLAMA2, "a10g", "2.3.1", "3.3.7", 'tgi.env.FLASH_DECODING="1"')
    assert "ATTENTION" not in found.proposal.spec.tgi.env
    gone = moved(LLAMA2, "a10g", "2.3.1", "3.3.7", 'tgi.env.MESSAGES_API_ENABLED="true"')
    (said,) = [one for one in gone.changes if one.name == "MESSAGES_API_ENABLED"]
    assert said.after == "ignored"
    assert "/invocations" in said.why


def test_graphs_of_more_sizes_are_kept_graphs() -> None:
    found = moved(LLAMA2, "a10g", "2.0.4", "1.4.5")
    assert found.proposal.spec.tgi.flags["enable-cuda-graphs"] is True
    assert found.proposal.side.setting.graph_sizes


def test_what_did_not_start_before_is_told_what_would() -> None:
    sets = ("limits.max_input_tokens=2048", "limits.max_total_tokens=4096")
    found = moved("google/gemma-7b-it", "a10g", "1.4.5", "3.3.7", *sets)
    assert found.serves == "out_of_memory"
    (step,) = found.proposal.side.prediction.next_steps
    assert "--prefer better" in step
    better = moved("google/gemma-7b-it", "a10g", "1.4.5", "3.3.7", *sets, prefer="better").proposal
    assert better.side.starts
    assert f"{better.side.prediction.limits.max_total_tokens:,}" in step


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    environment:\n      - USE_PREFIX_CACHING=0\n", "    environment:\n      - PREFIX_CACHING=0\n"),
        ('    environment:\n      USE_PREFIX_CACHING: "0"\n', '    environment:\n      PREFIX_CACHING: "0"\n'),
        (
            '    environment:\n      USE_PREFIX_CACHING: "1"\n      PREFIX_CACHING: "0"\n',
            '    environment:\n      PREFIX_CACHING: "1"\n',
        ),
        (
            "    environment:\n      - USE_PREFIX_CACHING=1\n      - PREFIX_CACHING=0\n",
            "    environment:\n      - PREFIX_CACHING=1\n",
        ),
    ],
)
def test_a_variable_that_is_gone_is_renamed_or_taken_out(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "compose.yaml"
    head = "services:\n  tgi:\n    image: ghcr.io/huggingface/text-generation-inference:2.3.1\n"
    path.write_text(f"{head}{before}    command: --model-id {QWEN} {ARGS}\n", "utf-8")
    assert after in mended(path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "docker run -e USE_PREFIX_CACHING=1 -e PREFIX_CACHING=0 --gpus all",
            "docker run -e PREFIX_CACHING=1 --gpus all",
        ),
        (
            "docker run --gpus all \\\n  -e USE_PREFIX_CACHING=1 \\\n  -e PREFIX_CACHING=0",
            "docker run --gpus all \\\n  -e PREFIX_CACHING=1",
        ),
    ],
)
def test_an_option_that_is_gone_is_taken_out(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f"{before} ghcr.io/huggingface/text-generation-inference:2.3.1 --model-id {QWEN} {ARGS}\n", "utf-8")
    assert mended(path).startswith(after)


def mended(path: Path) -> str:
    """A file of 2.3.1 as `upgrade --fix` writes it for 2.4.1, with nothing left undone."""
    made = upgrade(path, gpu="nvidia-l4", to="2.4.1", source="snapshot", offline=True, fix=True)
    (found,) = made.servers
    assert found.fixed is not None
    assert not found.fixed.undone
    return made.text


def test_a_flag_that_is_gone_is_refused_and_left_out() -> None:
    found = moved(LLAMA2, "a10g", "1.4.5", "3.3.7", "tgi.flags.enable-cuda-graphs=true")
    assert found.serves == "refused"
    assert found.exit_code == Exit.REFUSED
    assert changed(found)["--enable-cuda-graphs"] == ("true", "refused")
    assert found.proposal.dropped == ("tgi.flags.enable-cuda-graphs",)
    assert found.proposal.serves in ("same", "better")


def test_a_flag_with_a_successor_becomes_it() -> None:
    found = moved(LLAMA2, "a10g", "2.2.0", "3.3.7", "tgi.flags.disable-usage-stats=true")
    assert found.proposal.spec.tgi.flags["usage-stats"] == "off"


def test_variables_that_only_one_release_reads() -> None:
    found = moved(LLAMA2, "a10g", "2.3.1", "3.3.7", 'tgi.env.USE_PREFIX_CACHING="0"')
    assert changed(found)["USE_PREFIX_CACHING"] == ("0", "renamed")
    assert found.proposal.spec.tgi.env["PREFIX_CACHING"] == "0"
    later = moved(LLAMA2, "a10g", "2.2.0", "3.3.7", 'tgi.env.PREFILL_CHUNKING="0"')
    assert changed(later)["PREFILL_CHUNKING"] == ("ignored", "read")


def test_flags_that_chunking_makes_idle() -> None:
    found = moved(LLAMA2, "a10g", "2.4.1", "3.3.7", "tgi.flags.max-waiting-tokens=10")
    assert changed(found)["--max-waiting-tokens"] == ("10", "ignored")


# ---- the spec to go on with


@pytest.mark.parametrize(("start", "end"), MOVES)
@pytest.mark.parametrize(
    ("model", "gpu"),
    [
        (LLAMA2, "a10g"), ("mistralai/Mistral-7B-Instruct-v0.2", "nvidia-l4"),
        ("TheBloke/Mistral-7B-Instruct-v0.1-AWQ", "nvidia-l4"), ("bigscience/bloom-560m", "t4"),
    ],
)  # fmt: skip
def test_same_keeps_the_limits_where_it_says_so(model: str, gpu: str, start: str, end: str) -> None:
    """The law of `--prefer same`: what it does not keep, it names."""
    found = moved(model, gpu, start, end)
    made = found.proposal
    if not (found.before.starts and made.side.starts):
        return
    was, now = found.before.prediction.limits, made.side.prediction.limits
    for name in ("max_total_tokens", "max_input_tokens"):
        assert getattr(now, name) == getattr(was, name) or made.lost, (name, was, now)
    if made.serves in ("same", "better"):
        assert made.less == ()
        assert (now.max_total_tokens or 0) >= (was.max_total_tokens or 0)
    else:
        assert set(made.less) <= set(made.lost)


@pytest.mark.parametrize("prefer", ["same", "better"])
@pytest.mark.parametrize(("start", "end"), MOVES)
def test_the_spec_says_what_it_is_said_to_say(prefer: Any, start: str, end: str, tmp_path: Path) -> None:
    """Written, read and predicted again it is the same; and our own linter has no error for it."""
    found = moved(QWEN, "nvidia-l4", start, end, prefer=prefer)
    made = found.proposal
    if not made.side.starts:
        return
    path = tmp_path / "spec.yaml"
    path.write_text(writer.dump(made.spec), "utf-8")
    plan = tgi_advisor.predict(path, source="snapshot", offline=True)
    assert plan.prediction.outcome == "starts"
    assert plan.prediction.limits == made.side.prediction.limits
    assert plan.facts.release.name == end
    assert not [one for one in run("validate", str(path), "--json").out.splitlines() if '"error"' in one]
    for pin in made.pins:
        record: Any = made.spec
        for part in pin.path.split(".", 2):
            record = record[part] if not hasattr(record, part) else getattr(record, part)
        assert record == pin.value or getattr(record, "fixed", None) == pin.value or list(record) == pin.value


def test_better_takes_longer_requests_where_that_costs_nothing() -> None:
    found = moved(LLAMA2, "nvidia-l4", "1.4.5", "3.3.7", prefer="better")
    assert found.proposal.serves == "better"
    assert found.before.prediction.limits.max_total_tokens == 2048
    assert found.proposal.side.prediction.limits.max_total_tokens == 4096


@pytest.mark.parametrize(
    ("model", "gpu", "start", "end"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.2", "nvidia-a100-40gb", "3.3.7", "2.4.1"),
        (QWEN, "nvidia-l4", "2.4.1", "3.3.7"),
    ],
)
def test_better_is_never_less_where_the_same_can_be_had(model: str, gpu: str, start: str, end: str) -> None:
    same = moved(model, gpu, start, end).proposal
    better = moved(model, gpu, start, end, prefer="better").proposal
    assert same.serves in ("same", "better")
    assert better.serves in ("same", "better")
    assert better.prefer == "same"
    assert better.instead  # in what the largest limits would serve less
    assert better.spec == same.spec


def test_why_the_largest_limits_are_not_taken_is_said() -> None:
    asked = ("upgrade", "-m", QWEN, "-g", "nvidia-l4", "--from", "2.4.1", "--offline")
    long = run(*asked, "--prefer", "better")
    assert "The largest limits would serve less: " in " ".join(long.out.split())
    short = run(*asked, "--prefer", "better", "--brief")
    assert len(short.out) < len(long.out)
    proposal = json.loads(run(*asked, "--prefer", "better", "--json").out)["upgrade"][0]["proposal"]
    assert (proposal["prefer"], bool(proposal["instead"])) == ("same", True)


RELEASES = [one.name for one in releases.all_releases()]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(RELEASES), st.sampled_from([LLAMA2, QWEN, "google/gemma-2b-it", "google/flan-t5-xl"]),
    st.sampled_from(["nvidia-l4", "a10g", "t4"]), st.sampled_from([None, 1024, 4096]),
)  # fmt: skip
def test_to_the_same_release_nothing_changes(release: str, model: str, gpu: str, total: int | None) -> None:
    sets = [f"limits.max_total_tokens={total}", f"limits.max_input_tokens={total // 2}"] if total else []
    found = moved(model, gpu, release, release, *sets)
    assert not found.changes
    assert not found.proposal.pins
    assert found.proposal.spec == found.before.spec
    assert all(row.before_bytes == row.after_bytes for row in found.memory)
    assert found.serves == ("same" if found.before.starts else found.before.prediction.outcome)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RELEASES), st.sampled_from(RELEASES), st.sampled_from(["nvidia-l4", "a10g"]))
def test_any_move_has_an_answer(start: str, end: str, gpu: str) -> None:
    """Up and down: a verdict that agrees with its reasons, and a page and JSON of it."""
    found = moved(LLAMA2, gpu, start, end)
    assert found.exit_code == EXITS[found.serves]
    assert bool(found.less) == (found.serves not in ("same", "better"))
    assert found.downgrade == (releases.find(end).version < releases.find(start).version)
    assert json.loads(json.dumps(found.to_dict()))["to"] == end
    for width in (80, 120):
        for line in found.text(width).splitlines():
            assert len(line) <= width or len(line.split()) <= 2, line


# ---- files


def test_a_compose_file_is_mended(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compose(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = run("upgrade", "compose.yaml", "-g", "nvidia-l4", "--offline", "--fix", "--diff")
    assert Path("compose.yaml").read_text("utf-8") == COMPOSE.format(release="2.0.4", model=QWEN, args=ARGS)
    ran = run("upgrade", "compose.yaml", "-g", "nvidia-l4", "--offline", "--fix")
    assert ran == shown
    golden("upgrade/compose.diff", ran.out[ran.out.index("--- a/") :])
    assert "# pinned" in Path("compose.yaml").read_text("utf-8")
    again = run("upgrade", "compose.yaml", "-g", "nvidia-l4", "--offline", "--fix")
    assert again.code == Exit.STARTS
    assert "--- a/" not in again.out


FORMS = {
    "args.yaml": """\
apiVersion: v1
kind: Pod
metadata: {name: tgi}
spec:
  containers:
    - name: tgi
      image: ghcr.io/huggingface/text-generation-inference:2.2.0
      args:
        - --model-id
        - Qwen/Qwen2.5-7B-Instruct
        - --max-batch-prefill-tokens
        - "4096"
      resources: {limits: {nvidia.com/gpu: 1}}
""",
    "env.yaml": """\
apiVersion: v1
kind: Pod
metadata: {name: tgi}
spec:
  containers:
    - name: tgi
      image: ghcr.io/huggingface/text-generation-inference:2.2.0
      env:
        - name: MODEL_ID
          value: Qwen/Qwen2.5-7B-Instruct
      resources: {limits: {nvidia.com/gpu: 1}}
""",
    "flow.yaml": """\
services:
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:2.2.0
    command: ["--model-id", "Qwen/Qwen2.5-7B-Instruct"]
    environment: {LOG_LEVEL: info}
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
""",
    "mapping.yaml": """\
services:
  tgi:
    image: "ghcr.io/huggingface/text-generation-inference:2.2.0"
    command:
      - --model-id=Qwen/Qwen2.5-7B-Instruct
      - --disable-usage-stats
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
""",
    "run.sh": """\
#!/bin/sh
docker run --gpus all --shm-size 1g -p 8080:80 -v "$PWD/data:/data" \\
    ghcr.io/huggingface/text-generation-inference:1.4.5 \\
    --model-id Qwen/Qwen2.5-7B-Instruct \\
    --enable-cuda-graphs \\
    --max-input-length 1500
""",
}


@pytest.mark.parametrize("prefer", ["same", "better"])
@pytest.mark.parametrize("name", FORMS)
def test_files_of_every_style_are_mended_whole(golden: Golden, name: str, prefer: Any, tmp_path: Path) -> None:
    """Everything proposed is in the file then, it serves what the proposal does, and a second time nothing is left."""
    path = tmp_path / name
    path.write_text(FORMS[name], "utf-8")
    found = of_file(path, gpu="nvidia-l4", to="3.3.7", fix=True, write=True, prefer=prefer)
    assert found.fixed is not None
    assert found.fixed.undone == ()
    assert found.fixed.serves == found.proposal.serves
    assert found.fixed.side.prediction.limits == found.proposal.side.prediction.limits
    golden(f"upgrade/{prefer}-{name}", path.read_text("utf-8"))
    once = path.read_bytes()
    again = upgrade(path, gpu="nvidia-l4", to="3.3.7", fix=True, write=True, source="snapshot", offline=True)
    assert (again.exit_code, again.diff, path.read_bytes()) == (Exit.STARTS, "", once)
    assert not json.loads(run("validate", str(path), "-g", "nvidia-l4", "--json").out)["summary"].get("error")


def test_a_spec_file_keeps_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "# mine\nmodel:\n  id: Qwen/Qwen2.5-7B-Instruct # the model\nhardware:\n  gpu: nvidia-l4\ntgi:\n"
        "  release: 2.2.0 # until May\nlimits:\n  max_total_tokens: 4096\n",
        "utf-8",
    )
    assert run("upgrade", str(path), "--to", "3.3.7", "--offline", "--fix").code == Exit.STARTS
    text = path.read_text("utf-8")
    assert "# mine" in text
    assert "release: 3.3.7 # until May" in text
    assert "id: Qwen/Qwen2.5-7B-Instruct # the model" in text
    assert run("upgrade", str(path), "--offline").out.splitlines()[1].endswith("nothing changes.")


def test_several_servers_are_each_judged(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    second = COMPOSE.split("services:\n")[1].split("volumes:")[0].replace("tgi:", "other:", 1)
    path.write_text(
        COMPOSE.format(release="3.3.7", model=QWEN, args="").replace(
            "volumes: {tgi", second.format(release="2.2.0", model=LLAMA2, args="") + "volumes: {tgi"
        ),
        "utf-8",
    )
    found: Upgrades = upgrade(path, gpu="a10g", source="snapshot", offline=True)
    assert [(one.surroundings.name, one.before.name) for one in found.servers] == [("tgi", "3.3.7"), ("other", "2.2.0")]
    assert found.exit_code == max(one.exit_code for one in found.servers)
    one = run("upgrade", str(path), "-g", "a10g", "--server", "other", "--offline", "--json")
    assert [row["server"] for row in json.loads(one.out)["upgrade"]] == ["other"]
    assert run("upgrade", str(path), "-g", "a10g", "--server", "none", "--offline").code == Exit.USAGE


def test_gpus_that_are_counted_otherwise(tmp_path: Path) -> None:
    """`--gpus all` is one shard until 3.3.6 and all GPUs from 3.3.7 on; `same` states the one."""
    path = tmp_path / "run.sh"
    path.write_text(FORMS["run.sh"].replace("1.4.5", "3.3.6").replace("    --enable-cuda-graphs \\\n", ""), "utf-8")
    found = of_file(path, gpu="g6.12xlarge")
    assert (found.before.setting.num_shard, found.after.setting.num_shard) == (1, 4)
    assert found.proposal.spec.tgi.num_shard == 1


def test_older_than_what_is_known(tmp_path: Path) -> None:
    path = compose(tmp_path, "0.9.4", LLAMA2, "")
    found = of_file(path, gpu="a10g", to="1.4.0")
    assert (found.before.name, found.after.name) == ("0.9.4", "1.4.0")
    assert any("0.9.4" in note for note in found.notes)
    assert found.after.starts


def test_a_lora_of_the_file_stays(tmp_path: Path) -> None:
    path = compose(tmp_path, "2.2.0", QWEN, "--lora-adapters org/adapter")
    found = of_file(path, gpu="a10g", to="3.3.7")
    assert found.proposal.spec.tgi.flags["lora-adapters"] == "org/adapter"


@pytest.mark.parametrize(
    ("image", "more", "code", "said"),
    [
        ("registry.example/llm:prod", (), Exit.USAGE, "--from X.Y.Z"),
        ("registry.example/llm:prod", ("--from", "2.2.0"), None, "does not say its release"),
        ("registry.example/tgi:2.2.0", ("--from", "2.2.0"), None, "registry.example/tgi:3.3.7"),
        ("ghcr.io/huggingface/text-generation-inference:2.2.0@sha256:" + "a" * 64, (), None, "digest"),
        ("ghcr.io/huggingface/text-generation-inference@sha256:" + "a" * 64, (), None, "digest"),
        ("ghcr.io/huggingface/text-generation-inference:3.0.2-trtllm", (), Exit.FACTS, "own server"),
        ("ghcr.io/huggingface/text-generation-inference:7.7.7", (), Exit.USAGE, "7.7.7 is not known"),
    ],
)
def test_images(tmp_path: Path, image: str, more: tuple[str, ...], code: int | None, said: str) -> None:
    path = compose(tmp_path, "2.2.0")
    path.write_text(
        path.read_text("utf-8").replace("ghcr.io/huggingface/text-generation-inference:2.2.0", image), "utf-8"
    )
    ran = run("upgrade", str(path), "-g", "nvidia-l4", "--offline", *more)
    assert ran.code == code if code else ran.code in (Exit.STARTS, Exit.LESS), ran.err
    assert said in " ".join((ran.out + ran.err).split())


@pytest.mark.parametrize(
    ("gpu", "variant", "start", "end", "code"),
    [
        ("mi300x", "-rocm", "2.4.1", "3.3.7", None),
        ("max-1550", "-intel-xpu", "2.4.0", "3.3.7", None),
        ("gaudi2", "-gaudi", "3.3.4", "3.3.7", None),
        ("gaudi2", "-gaudi", "3.3.4", "3.1.0", Exit.FACTS),
    ],
)
def test_other_systems(gpu: str, variant: str, start: str, end: str, code: int | None) -> None:
    sets = ("--set", "tgi.flags.max-batch-size=8") if "gaudi" in gpu else ()
    ran = run("upgrade", "-m", LLAMA2, "-g", gpu, "--from", start, "--to", end, "--offline", *sets)
    if code is not None:
        assert (ran.code, ran.out) == (code, "")
        assert "has no gaudi image" in ran.err
        return
    assert f"TGI {start}{variant} to {end}{variant}" in ran.out.splitlines()[0]
    assert ran.code in (Exit.STARTS, Exit.LESS, Exit.OUT_OF_MEMORY, Exit.REFUSED)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--to", "9.9.9"), Exit.FACTS, "9.9.9 is not known"),
        (("--from", "0.1"), Exit.FACTS, "the oldest release that is known"),
        (("--from", "2.4.1"), Exit.USAGE, "--from says TGI 2.4.1, but the spec says 3.3.7"),
        (("--diff",), Exit.USAGE, "Add --fix"),
        (("--fix", "--set", "limits.max_total_tokens=1024"), Exit.USAGE, "--fix mends FILE"),
        (("--server", "none"), Exit.USAGE, "no spec named 'none'"),
    ],
)
def test_what_cannot_be_asked(arguments: tuple[str, ...], code: int, said: str) -> None:
    ran = run("upgrade", L4, "--offline", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in " ".join(ran.err.split())


def test_a_file_without_a_gpu(tmp_path: Path) -> None:
    ran = run("upgrade", str(compose(tmp_path)), "--offline")
    assert ran.code == Exit.USAGE
    assert "does not name its GPU" in ran.err


def test_a_release_that_cannot_serve_the_model() -> None:
    ran = run(
        "upgrade",
        "-m",
        "meta-llama/Llama-3.1-8B-Instruct",
        "-g",
        "nvidia-l4",
        "--from",
        "3.3.7",
        "--to",
        "2.0.4",
        "--offline",
    )
    assert ran.code == Exit.REFUSED
    assert "It is a downgrade. As it is, TGI 2.0.4 refuses to start" in ran.out
    assert "No spec of TGI 2.0.4 serves it" in ran.out


def test_secrets_of_the_file_are_not_shown(tmp_path: Path) -> None:
    secret = "hf_" + "a1B2c3D4" * 4
    path = compose(tmp_path)
    path.write_text(path.read_text("utf-8").replace("${HF_TOKEN}", secret), "utf-8")
    for more in ((), ("--fix", "--diff"), ("--json",), ("--json", "--fix", "--diff")):
        ran = run("upgrade", str(path), "-g", "nvidia-l4", "--offline", *more)
        assert ran.code in (Exit.STARTS, Exit.LESS)
        assert secret not in ran.out + ran.err
    assert run("upgrade", str(path), "-g", "nvidia-l4", "--offline", "--fix").code == Exit.STARTS
    assert secret in path.read_text("utf-8"), "it stays where it was"


def test_the_page_of_the_docs_names_what_json_has() -> None:
    (one,) = json.loads(run("upgrade", L4, "--to", "2.4.1", "--offline", "--json").out)["upgrade"]
    page = (ROOT / "docs" / "json.md").read_text("utf-8")
    for name in one:
        assert f"`{name}`" in page, name


# ---- what we write ourselves


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(RELEASES), st.sampled_from(RELEASES), st.sampled_from([QWEN, LLAMA2, "google/gemma-2b-it"]),
    st.sampled_from([("docker-run", "a.sh"), ("compose", "compose.yaml"), ("kubernetes", "k.yaml"), ("env", "a.env")]),
    st.sampled_from(["same", "better"]),
)  # fmt: skip
def test_every_format_of_emit_is_mended_whole(
    tmp_path_factory: pytest.TempPathFactory, start: str, end: str, model: str, form: tuple[str, str], prefer: Any
) -> None:
    """Whatever `emit` wrote for one release says for another what is proposed, and a second time nothing changes."""
    plan = tgi_advisor.advise(
        model=model, gpu="a10g", release=start, source="snapshot", offline=True, next_steps=False,
        fields={"tgi.env": {"LOG_LEVEL": "info,x='a b'"}},
    )  # fmt: skip
    if plan.prediction.outcome != "starts":
        return
    path = tmp_path_factory.mktemp("emitted") / form[1]
    path.write_text(plan.emit(form[0]), "utf-8")
    found = of_file(path, gpu="a10g", to=end, prefer=prefer, fix=True, write=True)
    if not found.proposal.side.starts:
        assert path.read_text("utf-8") == plan.emit(form[0])
        return
    assert found.fixed is None or found.fixed.undone == ()
    assert found.fixed is None or found.fixed.side.prediction.limits == found.proposal.side.prediction.limits
    again = upgrade(path, gpu="a10g", to=end, fix=True, source="snapshot", offline=True)
    assert (again.exit_code, again.diff) == (Exit.STARTS, "")


def test_hostile_values_of_the_file_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text(
        'docker run --gpus all -e USE_PREFIX_CACHING="0; touch pwned #" -e \'LOG_LEVEL=a b "$(id)"\' '
        "ghcr.io/huggingface/text-generation-inference:2.3.1 --model-id Qwen/Qwen2.5-7B-Instruct\n",
        "utf-8",
    )
    found = of_file(path, gpu="nvidia-l4", fix=True, write=True)
    assert found.fixed is not None
    text = path.read_text("utf-8")
    assert "'LOG_LEVEL=a b \"$(id)\"'" in text
    words = shlex.split(text)
    assert [word for word in words if word.startswith("PREFIX_CACHING=")] in ([], ["PREFIX_CACHING=0; touch pwned #"])
    assert "touch" not in words


def test_how_weights_are_moved(tmp_path: Path) -> None:
    """The commands name the folder or the volume of the file."""
    path = compose(tmp_path)
    steps = {one.name: one.step for one in of_file(path, gpu="nvidia-l4").changes}
    assert steps["weight cache"].startswith("docker run --rm -v tgi-data:/data busybox sh -c 'mkdir -p /data/hub && mv")
    path.write_text(path.read_text("utf-8").replace("tgi-data:/data", "/srv/my weights:/data"), "utf-8")
    steps = {one.name: one.step for one in of_file(path, gpu="nvidia-l4").changes}
    assert steps["weight cache"].startswith("mkdir -p '/srv/my weights'/hub && mv '/srv/my weights'/models--*")
    path.write_text(path.read_text("utf-8").replace("- HUGG", "- HUGGINGFACE_HUB_CACHE=/data\n      - HUGG"), "utf-8")
    assert "weight cache" not in changed(of_file(path, gpu="nvidia-l4")), "the file itself says where they lie"


def test_the_token_takes_the_name_the_release_reads(tmp_path: Path) -> None:
    path = compose(tmp_path)
    assert "Hub token" in changed(of_file(path, gpu="nvidia-l4", fix=True, write=True))
    assert "- HF_TOKEN=${HF_TOKEN}" in path.read_text("utf-8")
    assert "Hub token" in changed(of_file(path, gpu="nvidia-l4", to="2.0.4", fix=True, write=True))
    assert "- HUGGING_FACE_HUB_TOKEN=${HF_TOKEN}" in path.read_text("utf-8")


def test_what_validate_finds_with_the_new_release_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text(
        "docker run --gpus all -p 8080:80 -v data:/data ghcr.io/huggingface/text-generation-inference:2.4.1 "
        "--model-id Qwen/Qwen2.5-7B-Instruct --max-total-tokens 4096 --max-input-tokens 2048\n",
        "utf-8",
    )
    assert of_file(path, gpu="nvidia-l4").surroundings.found == ()
    assert all(code.startswith("TGI") for code, _, _ in of_file(path, gpu="nvidia-l4", to="1.0.0").surroundings.found)


def test_gaudi_gets_the_batch_size_its_release_needs() -> None:
    found = moved(LLAMA2, "gaudi2", "3.3.0", "3.3.7", prefer="better")
    assert found.serves == "refused"
    if found.proposal.side.starts:
        assert "max-batch-size" in found.proposal.spec.tgi.flags


def test_a_word_the_launcher_never_took(tmp_path: Path) -> None:
    """Today's launcher refuses the file too; mended, it starts."""
    path = compose(tmp_path, args=f"{ARGS} --watermark")
    found = of_file(path, gpu="nvidia-l4", fix=True)
    assert found.before.prediction.outcome == "refused"
    assert found.serves == "refused"
    assert found.fixed is not None
    assert found.fixed.serves == "better"
    assert found.exit_code == Exit.STARTS


@pytest.mark.parametrize(("option", "part", "offers"), [("--to", "3.3.", "3.3.7"), ("--from", "2.4", "2.4.1")])
def test_completion_of_releases(option: str, part: str, offers: str) -> None:
    from tgi_advisor.cli.upgrade import upgrade as command

    name = {"--to": "to", "--from": "since"}[option]
    parameter = next(one for one in command.params if one.name == name)
    context = click.Context(command)
    assert offers in [item.value for item in parameter.shell_complete(context, part)]


def test_limits_that_are_refused_when_stated_are_left_to_tgi() -> None:
    """T5 with limits fails in 2.4.1 and later, and starts where TGI picks them."""
    found = moved("google/flan-t5-xxl", "nvidia-l4", "3.2.1", "3.2.0", "hardware.count=2")
    assert (found.serves, found.proposal.serves) == ("same", "same")
    assert not [pin for pin in found.proposal.pins if pin.path.startswith("limits.")]
    assert any(text.startswith("the limits") for text in found.proposal.lost)


def test_a_prompt_keeps_its_length_where_the_request_does() -> None:
    found = moved("codellama/CodeLlama-7b-Instruct-hf", "a10g", "3.1.1", "2.4.1", "hardware.count=4")
    assert found.before.starts
    limits = found.proposal.side.prediction.limits
    assert limits.max_total_tokens == found.before.prediction.limits.max_total_tokens
    assert limits.max_input_tokens == found.before.prediction.limits.max_input_tokens


def test_a_spec_in_flow_style_is_written_anew_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(
        "model: {id: Qwen/Qwen2.5-7B-Instruct}\nhardware: {gpu: nvidia-l4}\ntgi: {release: 2.2.0}\n", "utf-8"
    )
    found = of_file(path, fix=True, write=True)
    assert found.fixed is not None
    assert found.fixed.notes == ("the spec was written anew: its comments are gone",)
    assert reader.read_file(str(path)) == found.proposal.spec


def test_a_server_that_cannot_be_judged_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    line = f"docker run --gpus all {{image}} --model-id {QWEN} {ARGS} --max-batch-prefill-tokens 4096\n"
    own = "ghcr.io/huggingface/text-generation-inference:"
    path.write_text(line.format(image=own + "3.3.7") + line.format(image=own + "3.0.2-trtllm"), "utf-8")
    ran = run("upgrade", str(path), "-g", "nvidia-l4", "--offline", "--json")
    answer = json.loads(ran.out)
    assert ran.code == Exit.FACTS
    assert [row["exit_code"] for row in answer["upgrade"]] == [Exit.STARTS]
    assert [row["exit_code"] for row in answer["unjudged"]] == [Exit.FACTS]
    assert "not judged: " in run("upgrade", str(path), "-g", "nvidia-l4", "--offline").out


def test_what_a_file_calls_its_server_moves_no_cursor(tmp_path: Path) -> None:
    path = compose(tmp_path)
    path.write_text(path.read_text("utf-8").replace("  tgi:", '  "a\\e[2Jb":', 1), "utf-8")
    ran = run("upgrade", str(path), "-g", "nvidia-l4", "--offline", "--fix", "--diff")
    assert "\x1b" not in ran.out + ran.err
