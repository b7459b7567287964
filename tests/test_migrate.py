"""`migrate`: every argument translated for vLLM and SGLang, the memory predicted, nothing lost without a sentence."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from front import run
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_advisor.engines import facts, memory
from tgi_advisor.engines.migrate import rewritten
from tgi_advisor.engines.translate import Told, translate, words, wrong
from tgi_advisor.errors import Exit
from tgi_advisor.estimate import defaults
from tgi_advisor.facts import flags, release, tables
from tgi_advisor.facts.known import Facts
from tgi_advisor.gather.facts import gather
from tgi_advisor.limits import Limits
from tgi_advisor.spec.reader import build
from tgi_advisor.spec.records import flag_homes
from tgi_advisor.units import MiB

ROOT = Path(__file__).parent.parent
L4 = str(ROOT / "configs" / "llama-3.1-8b-l4.yaml")
ENGINES = ("vllm", "sglang")


@cache
def known(gpu: str = "nvidia-l4", version: str = "3.3.7", count: int = 1) -> Facts:
    spec = build([("model.id", "meta-llama/Llama-3.1-8B-Instruct"), ("hardware.gpu", gpu), ("tgi.release", version)],
                 "test", None, [f"hardware.count={count}"])  # fmt: skip
    return gather(spec, source="snapshot", offline=True)


# -- the tables


@pytest.mark.parametrize("name", ENGINES)
def test_every_flag_and_variable_of_tgi_has_a_row(name: str) -> None:
    engine = facts.find(name)
    assert set(tables.load("flags")) | set(tables.load("flags_before")) <= set(engine.rules)
    assert set(tables.load("env")) <= set(engine.variables)
    assert all(
        rule.why and not rule.why.startswith(" ") for rule in (*engine.rules.values(), *engine.variables.values())
    )


@pytest.mark.parametrize("name", ENGINES)
def test_every_flag_of_the_tables_is_one_of_the_engine(name: str) -> None:
    engine = facts.find(name)
    named = {rule.to for rule in (*engine.rules.values(), *engine.variables.values()) if rule.to.startswith("--")}
    unknown = {flag for flag in {*named, *engine.defaults} if wrong_flag(engine, flag)}
    assert not unknown
    texts = " ".join(
        (*(rule.why for rule in (*engine.rules.values(), *engine.variables.values(), *engine.defaults.values())),
         *(text for row in engine.clients.values() for text in row))
    )  # fmt: skip
    tgi = {f"--{flag}" for flag in tables.load("flags")}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", texts)) - tgi - {"--total-tokens"}
    assert not {flag for flag in mentioned if wrong_flag(engine, flag)}


def wrong_flag(engine: facts.Engine, flag: str) -> bool:
    opposite = engine.flags.get(flag.replace("--no-", "--", 1))
    return flag not in engine.flags and not (flag.startswith("--no-") and opposite and opposite.kind == "boolean")


DOCUMENTED = yaml.safe_load((ROOT / "tests" / "data" / "engine_commands.yaml").read_text("utf-8"))


@pytest.mark.parametrize("row", DOCUMENTED["commands"], ids=lambda row: f"{row['engine']} {row['words']}")
def test_commands_that_are_documented_are_taken(row: dict[str, str]) -> None:
    engine = facts.find(row["engine"], DOCUMENTED["versions"][row["engine"]])
    start = ["m"] if row["engine"] == "vllm" else ["python3", "-m", "sglang.launch_server"]
    assert wrong(engine, [*start, *shlex.split(row["words"])]) == []


@pytest.mark.parametrize("name", ENGINES)
def test_flags_that_are_documented_exist_and_others_do_not(name: str) -> None:
    engine = facts.find(name, DOCUMENTED["versions"][name])
    assert not {flag for flag in DOCUMENTED["flags"][name] if wrong_flag(engine, flag)}
    gone = {row["flag"] for row in DOCUMENTED["gone"] if row["engine"] == name}
    assert {flag for flag in gone if wrong_flag(engine, flag)} == gone


def test_what_no_parser_takes_is_named() -> None:
    engine = facts.find("vllm")
    found = wrong(engine, ["m", "--max-total-tokens", "--dtype", "half"])
    assert found == ["--max-total-tokens is no flag of vLLM 0.33.0"]
    assert wrong(engine, ["m", "--dtype", "float8"]) == ["--dtype does not take 'float8'"]
    assert wrong(engine, ["m", "--max-model-len"]) == ["--max-model-len takes one word, not 0"]
    assert wrong(engine, ["m", "--enforce-eager", "true"]) == ["--enforce-eager takes no word"]


# -- translation


def value_of(flag: flags.Flag) -> st.SearchStrategy[Any]:
    """A value the launcher takes for a flag."""
    if flag.type in ("switch", "bool"):
        return st.booleans() if flag.type == "bool" else st.just(value=True)
    if flag.type == "choice":
        return st.sampled_from(flag.values)
    if flag.type == "f32":
        return st.sampled_from([0.5, 1.0, 2.0])
    if flag.type == "text":
        texts = {
            "lora-adapters": ["org/a", "org/a@main,b=/adapters/b", "x=/y"],
            "tokenizer-config-path": ["/t.json", "/t.jinja"],
            "cors-allow-origin": ["https://a.example", "https://a.example,https://b.example"],
        }
        return st.sampled_from(texts.get(flag.name, ["plain", "two words", "'quoted' \"$x\""]))
    if flag.name == "cuda-graphs":
        return st.sampled_from(["0", "1,2,4", "32"])
    return st.integers(1, 60000)


@st.composite
def argument_sets(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, str]]:
    """A release, flags it takes with values it takes, and variables it reads."""
    version = draw(st.sampled_from(["1.0.3", "1.4.5", "2.0.4", "2.2.0", "2.4.1", "3.0.2", "3.3.7"]))
    here = release.find(version)
    rest = {name: flag for name, flag in flags.flags_of(here).items() if name not in flag_homes()}
    names = draw(st.lists(st.sampled_from(sorted(rest)), unique=True, max_size=12))
    given_flags = {name: draw(value_of(rest[name])) for name in names if not rest[name].secret}
    kinds = st.sampled_from([*flags.environment(here), "MY_OWN", "NCCL_DEBUG"])
    texts = st.sampled_from(["1", "false", "flashinfer", "debug", "paged,x"])
    env = draw(st.dictionaries(kinds, texts, max_size=4))
    return version, given_flags, {name: value for name, value in env.items() if "TOKEN" not in name}


@settings(max_examples=1000, deadline=None)
@given(argument_sets())
def test_nothing_is_lost_and_nothing_is_unknown(asked: tuple[str, dict[str, Any], dict[str, str]]) -> None:
    version, told_flags, env = asked
    here = known(version=version)
    spec = build([("model.id", here.model.id), ("hardware.gpu", "nvidia-l4"), ("tgi.release", version)], "test", None)
    spec = _with(spec, told_flags, env)
    setting = defaults.resolve(spec, here, 1)
    for name in ENGINES:
        engine = facts.find(name)
        told = translate(setting, Limits(1000, 2000, 2048, 5000), engine, "model", "main")
        assert wrong(engine, words(engine, "model", told.flags)) == []
        said = " ".join(step.tgi for step in told.steps)
        for named in (*(f"--{flag}" for flag in setting.flags), *env):
            assert named in said, named
        assert all(step.why for step in told.steps)


def _with(spec: Any, told: dict[str, Any], env: dict[str, str]) -> Any:
    from dataclasses import replace

    return replace(spec, tgi=replace(spec.tgi, flags=told, env=env))


def test_the_false_friends_are_told_apart() -> None:
    vllm, sglang = (json.loads(run("migrate", L4, "--to", name, "--offline", "--json").out) for name in ENGINES)
    limits = vllm["promise"]["limits"]
    for found, flag in ((vllm, "--max-model-len"), (sglang, "--context-length")):
        args = found["container"]["args"]
        assert args[args.index(flag) + 1] == str(limits["max_total_tokens"])
        assert "--max-total-tokens" not in args
        assert "--watermark" not in args
        fraction = next(step for step in found["steps"] if "--cuda-memory-fraction" in step["tgi"])
        assert fraction["relation"] == "different"


def test_defaults_that_differ_are_written_out() -> None:
    vllm = shlex.split(run("migrate", L4, "--to", "vllm", "--offline", "--only").out.replace("\\\n", ""))
    written = {
        "--dtype": "float16", "--allowed-origins": '["*"]', "--host": "0.0.0.0", "--port": "8000",
        "--max-num-queued-reqs": "128", "--tensor-parallel-size": "1", "--shutdown-timeout": "90",
    }  # fmt: skip
    for pair in written.items():
        assert vllm[vllm.index(pair[0]) + 1] == pair[1]
    at = vllm.index("--served-model-name")
    assert vllm[at + 1 : at + 3] == ["meta-llama/Llama-3.1-8B-Instruct", "tgi"]
    sglang = shlex.split(run("migrate", L4, "--to", "sglang", "--offline", "--only").out.replace("\\\n", ""))
    assert "--enable-metrics" in sglang
    assert sglang[sglang.index("--host") + 1] == "0.0.0.0"
    assert "8080:30000" in sglang


# -- memory


@pytest.mark.parametrize(
    ("mib", "by_shards"),
    [
        (15360, (0.735, 0.710, 0.677)), (23034, (0.684, 0.658, 0.635)), (24564, (0.704, 0.679, 0.658)),
        (40960, (0.823, 0.807, 0.795)), (46068, (0.843, 0.829, 0.818)), (81920, (0.830, 0.819, 0.813)),
        (143771, (0.903, 0.897, 0.893)), (183359, (0.854, 0.852, 0.849)),
    ],
)  # fmt: skip
def test_sglang_default_fraction_is_its_rule(mib: int, by_shards: tuple[float, ...]) -> None:
    from tgi_advisor.engines.sglang.memory import fraction

    here = known()
    setting = defaults.resolve(
        build([("model.id", here.model.id), ("hardware.gpu", "nvidia-l4")], "test", None), here, 1
    )
    card = here._replace(gpu=here.gpu._replace(memory_bytes=mib * MiB))
    nothing = Told({}, {}, {}, (), ())
    found = [fraction(setting._replace(facts=card, num_shard=count), nothing) for count in (1, 4, 8)]
    assert found == list(by_shards)


@given(st.integers(1, 200_000), st.sampled_from(ENGINES))
@settings(max_examples=60, deadline=None)
def test_a_setting_holds_what_it_says_it_surely_holds(wanted: int, name: str) -> None:
    engine, here = facts.find(name), known()
    setting = defaults.resolve(
        build([("model.id", here.model.id), ("hardware.gpu", "nvidia-l4")], "test", None), here, 1
    )
    told = translate(setting, Limits(1000, 2000, 2048, wanted), engine, "model", None)
    start = memory.of(engine).start(engine, setting, told, {}, wanted)
    again = memory.of(engine).start(engine, setting, told, dict(start.setting), wanted)
    assert (again.tokens, again.outcome) == (start.tokens, start.outcome)
    assert sum(part.bytes for part in start.parts) == start.total_bytes
    if "surely holds" in start.why:
        assert start.tokens_low >= wanted
    assert start.tokens_low <= start.tokens <= start.tokens_high


def parts(engine: str, *asked: str) -> dict[str, int]:
    found = json.loads(run("migrate", *asked, "--to", engine, "--offline", "--json").out)
    assert sum(part["bytes"] for part in found["memory"]["parts"]) == found["memory"]["total_bytes"]
    return {part["name"]: part["bytes"] for part in found["memory"]["parts"]}


def lora(*asked: str, shards: int = 1) -> tuple[str, ...]:
    model = ("-m", "meta-llama/Llama-3.1-8B-Instruct", "-g", "nvidia-l40s", "-n", str(shards))
    return (*model, *(word for one in asked for word in ("--set", one)))


@pytest.mark.parametrize("name", ENGINES)
def test_room_for_adapters_is_taken_as_the_engine_takes_it(name: str) -> None:
    one = parts(name, *lora("tgi.flags.lora-adapters=a/b"))["LoRA adapters"]
    two = parts(name, *lora("tgi.flags.lora-adapters=a/b,c/d"))["LoRA adapters"]
    assert two == 2 * one
    assert "LoRA adapters" not in parts(name, *lora())
    per_layer = 4096 * 4 + 4096 + 1024 + 4096 + 1024 + 3 * (4096 + 14336)  # inputs and outputs of seven projections
    edges = 2 * (128256 + 4096) if name == "vllm" else 0
    assert one == 16 * 2 * (32 * per_layer + edges)


def test_room_for_adapters_is_what_logs_say() -> None:
    """vLLM 0.13 loads Mistral 7B in 13.58 GiB with room for one adapter of rank 16, and in 13.51 GiB without."""
    asked = ("-m", "mistralai/Mistral-7B-Instruct-v0.2", "-g", "nvidia-l40s", "--set", "tgi.flags.lora-adapters=a/b")
    assert parts("vllm", *asked)["LoRA adapters"] / 2**30 == pytest.approx(0.07, abs=0.015)


def test_images_are_in_the_sum() -> None:
    sees = ("-m", "google/gemma-3-4b-it", "-g", "nvidia-l40s", "--set")
    little, much = (parts("vllm", *sees, f"limits.max_batch_prefill_tokens={n}") for n in (4096, 16384))
    assert much["profiled step"] > 3 * little["profiled step"]  # four times the images at once
    assert parts("sglang", *sees, "limits.max_batch_prefill_tokens=4096")["images"] == 100 * MiB
    page = run("migrate", *sees, "limits.max_batch_prefill_tokens=4096", "--to", "vllm", "--offline").out
    assert "after 16 images of the largest size" in " ".join(page.split())


@pytest.mark.parametrize(
    ("vision", "factor"), [({}, 0.95), ({"hidden_size": 1280}, 0.8965625), ({"hidden_size": 3584}, 0.76)]
)
def test_sglang_leaves_less_to_models_that_see(vision: dict[str, int], factor: float) -> None:
    from tgi_advisor.engines.sglang.memory import fraction

    here = known()
    setting = defaults.resolve(
        build([("model.id", here.model.id), ("hardware.gpu", "nvidia-l4")], "test", None), here, 1
    )
    model = here.model._replace(config={**here.model.config, "vision_config": vision})
    nothing = Told({}, {}, {}, (), ())
    plain = fraction(setting, nothing)
    assert fraction(setting._replace(facts=here._replace(model=model)), nothing) == round(plain * factor, 3)


@pytest.mark.parametrize("name", ENGINES)
def test_a_state_is_no_cache_of_tokens(name: str) -> None:
    ran = run("migrate", "-m", "state-spaces/mamba-2.8b-hf", "-g", "nvidia-l40s", "--to", name, "--offline")
    assert ran.code == Exit.STARTS
    assert "keeps a state of 11.9 MiB for each request" in " ".join(ran.out.split())  # 64 x 5120 x (3 + 16) x 2 bytes


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_not_served_is_not_called_served(name: str) -> None:
    ran = run("migrate", "-m", "google/flan-t5-xl", "-g", "nvidia-l40s", "--to", name, "--offline")
    assert ran.code == Exit.REFUSED
    assert "does not serve t5" in ran.out
    assert "through transformers" not in " ".join(ran.out.split())
    assert "is not computed" not in ran.out


# -- the front door


@pytest.mark.parametrize("name", ENGINES)
def test_the_page(name: str, golden: Golden) -> None:
    ran = run("migrate", L4, "--to", name, "--offline")
    assert ran.code == Exit.STARTS, ran.err
    golden(f"migrate/{name}.txt", ran.out)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("form", ["compose", "kubernetes"])
def test_the_formats(name: str, form: str, golden: Golden) -> None:
    config = str(ROOT / "configs" / "llama-3.3-70b-4xa100.yaml")
    ran = run("migrate", config, "--to", name, "--format", form, "--only", "--offline")
    assert ran.code == Exit.STARTS, ran.err
    golden(f"migrate/{name}-{form}.yaml", ran.out)


COMPOSE = """\
services:
  chat:
    image: ghcr.io/huggingface/text-generation-inference:3.3.7
    command: --model-id meta-llama/Llama-3.1-8B-Instruct --max-total-tokens 8192 --max-input-tokens 7168 --ngrok
    ports: ["9000:80"]
    volumes: [models:/data]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
volumes: {models: {}}
# alert: rate(tgi_request_count[5m]) > 1 and tgi_queue_size > 10 and tgi_request_duration_bucket
"""


def test_a_server_of_a_compose_file(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE, "utf-8")
    ran = run("migrate", str(file), "--to", "vllm", "-g", "nvidia-l4", "--offline", "--json")
    found = json.loads(ran.out)
    assert found["container"]["port"] == 9000
    assert found["container"]["mounts"][0] == {
        "source": "models", "target": "/root/.cache/huggingface", "read_only": False,
    }  # fmt: skip
    lost = {step["tgi"] for step in found["steps"] if step["relation"] == "none"}
    assert {"--ngrok", "--max-input-tokens 7168"} <= lost
    (line,) = found["metrics_in_file"]
    assert line["after"] == (
        "# alert: rate(vllm:request_success_total[5m]) > 1 and vllm:num_requests_waiting > 10 and "
        "vllm:e2e_request_latency_seconds_bucket"
    )


def test_a_model_that_a_file_leaves_open_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.replace("--model-id meta-llama/Llama-3.1-8B-Instruct ", ""), "utf-8")
    asked = ("migrate", str(file), "--to", "vllm", "-g", "nvidia-l4", "--offline")
    unnamed = run(*asked)
    assert unnamed.code == Exit.USAGE
    assert "--model" in unnamed.err
    ran = run(*asked, "-m", "Qwen/Qwen2.5-7B-Instruct", "--json")
    assert json.loads(ran.out)["model"] == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("engine", "extra", "said"),
    [
        ("vllm", ["-m", "meta-llama/Llama-3.2-11B-Vision-Instruct", "-g", "nvidia-l40s"], "0.10.2 was the last"),
        ("vllm", ["-m", "mosaicml/mpt-7b", "-g", "nvidia-l40s"], "0.28.0 was the last version"),
        ("sglang", ["-m", "google/flan-t5-xl", "-g", "nvidia-l40s"], "does not serve"),
        ("vllm", ["-m", "mistralai/Mistral-7B-v0.1", "-g", "nvidia-v100-16gb"], "compute capability 7.5"),
        ("vllm", ["-m", "meta-llama/Llama-3.1-8B-Instruct", "-g", "nvidia-l4", "--set", "model.quantize=eetq"],
         "int8_per_channel_weight_only"),
        ("sglang", ["-m", "meta-llama/Llama-3.1-8B-Instruct", "-g", "nvidia-l4", "--set", "model.quantize=eetq"],
         "No eetq"),
        ("vllm", ["-m", "meta-llama/Llama-3.1-8B-Instruct", "-g", "nvidia-l4", "--set", "hardware.driver=550.54"],
         "needs driver 580 or later"),
    ],
)  # fmt: skip
def test_what_is_known_before_launch(engine: str, extra: list[str], said: str) -> None:
    ran = run("migrate", *extra, "--to", engine, "--offline")
    assert " ".join(said.split()) in " ".join(ran.out.split()), ran.out + ran.err


def test_a_card_that_others_fill() -> None:
    for name, said in (("vllm", "0 B are free when vLLM looks"), ("sglang", "more than the card has")):
        ran = run("migrate", L4, "--set", "hardware.in_use=30GiB", "--to", name, "--offline")
        assert ran.code in (Exit.REFUSED, Exit.OUT_OF_MEMORY)
        assert said in " ".join(ran.out.split())
        assert "docker run" not in ran.out


def test_versions_and_engines_that_are_not_known() -> None:
    ran = run("migrate", L4, "--to", "vllm", "--engine-version", "0.1.0", "--offline")
    assert ran.code == Exit.USAGE
    assert "Known: 0.33.0" in ran.err
    assert run("migrate", L4, "--to", "tensorrt").code == Exit.USAGE
    assert run("migrate", L4).code == Exit.USAGE


@pytest.mark.parametrize("name", ENGINES)
def test_what_new_names_do_not_mend_is_said(name: str) -> None:
    engine = facts.find(name)
    (share,) = rewritten("expr: tgi_batch_current_max_tokens > 30000", engine)
    assert any("between 0 and 1" in note for note in share.notes)
    (label,) = rewritten('sum by (err) (rate(tgi_request_duration_count{err="x"}[5m]))', engine)
    assert [note for note in label.notes if "no label 'err'" in note]
    (bound,) = rewritten('tgi_request_duration_bucket{le="5"}', engine)
    assert [note for note in bound.notes if "other bounds" in note]
    (plain,) = rewritten("query: avg(tgi_queue_size) by (pod)", engine)
    assert plain.notes == ()
    assert all(meter.source for meter in engine.meters.values() if meter.to)
    assert all((meter.kind == "counter") == meter.to.endswith("_total") for meter in engine.meters.values())


AROUND = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: chat}
spec:
  template:
    metadata:
      annotations: {prometheus.io/port: "80"}
    spec:
      containers:
      - image: ghcr.io/huggingface/text-generation-inference:3.3.7
        args: ["--model-id", "meta-llama/Llama-3.1-8B-Instruct"]
        resources: {limits: {nvidia.com/gpu: 1}}
        livenessProbe: {httpGet: {path: /health, port: 80}, timeoutSeconds: 1}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: chat}
spec: {metrics: [{type: Pods, pods: {metric: {name: tgi_queue_size}}}]}
"""


@pytest.mark.parametrize(("name", "port"), [("vllm", 8000), ("sglang", 30000)])
def test_what_stands_around_the_server_is_named(name: str, port: int, tmp_path: Path) -> None:
    file = tmp_path / "chat.yaml"
    file.write_text(AROUND, "utf-8")
    found = json.loads(run("migrate", str(file), "--to", name, "-g", "nvidia-l4", "--offline", "--json").out)
    said = "\n".join(found["warnings"])
    assert (
        f"line 7, prometheus.io/port: {'vLLM' if name == 'vllm' else 'SGLang'} answers /metrics on port {port}" in said
    )
    assert f"line 13, livenessProbe: what is written has probes of its own, for /health on port {port}" in said
    assert "HorizontalPodAutoscaler (line 16)" in said
    assert ("timeoutSeconds has to be more than 1" in said) == (name == "sglang")
    (line,) = found["metrics_in_file"]
    assert (line["line"], line["notes"]) == (18, [])


def test_services_beside_the_server_are_named(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    health = "    healthcheck: {test: [CMD, curl, -f, 'http://localhost/health']}\n    depends_on: [db]\n"
    file.write_text(
        COMPOSE.replace("    deploy:", health + "    deploy:").replace("volumes: {", "  db: {image: x}\nvolumes: {", 1),
        "utf-8",
    )
    said = "\n".join(json.loads(
        run("migrate", str(file), "--to", "vllm", "-g", "nvidia-l4", "--offline", "--json").out
    )["warnings"])  # fmt: skip
    assert "line 7, healthcheck: what is written has a health check of its own, for /health on port 8000" in said
    assert "line 8, depends_on: not written" in said
    assert "of the services chat, db one is written" in said


def test_metrics_keep_their_suffix() -> None:
    engine = facts.find("vllm")
    (one,) = rewritten("x\nhistogram_quantile(0.9, tgi_request_duration_bucket)", engine)
    assert (one.line, one.after) == (2, "histogram_quantile(0.9, vllm:e2e_request_latency_seconds_bucket)")
    (other,) = rewritten("tgi_batch_concat > 1", engine)
    assert (other.after, other.lost) == ("tgi_batch_concat > 1", ("tgi_batch_concat",))
    assert rewritten("tgi_unknown my_tgi_queue_size_x", engine) == ()


@pytest.mark.parametrize(("name", "written"), [("vllm", {"HF_TOKEN", "VLLM_API_KEY"}), ("sglang", {"HF_TOKEN"})])
def test_a_key_is_never_shown_and_never_lost(name: str, written: set[str], tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.replace("--ngrok", "--api-key s3cr3t-of-mine"), "utf-8")
    page = run("migrate", str(file), "--to", name, "-g", "nvidia-l4", "--offline")
    assert "s3cr3t" not in page.out + page.err
    assert "--api-key (not shown)" in page.out
    found = json.loads(run("migrate", str(file), "--to", name, "-g", "nvidia-l4", "--offline", "--json").out)
    assert set(found["container"]["secret_env"]) == written


def test_what_is_written_is_no_deployment_of_tgi(tmp_path: Path) -> None:
    for name in ENGINES:
        for form, ending in (("compose", "yaml"), ("kubernetes", "yaml"), ("docker-run", "sh")):
            written = run("migrate", L4, "--to", name, "--offline", "-f", form, "--only").out
            (tmp_path / f"{name}-{form}.{ending}").write_text(written, "utf-8")
    assert "No TGI server" in run("validate", str(tmp_path)).out


@pytest.mark.parametrize("name", ENGINES)
def test_those_who_start_there(name: str) -> None:
    asked = ("-m", "Qwen/Qwen2.5-7B-Instruct", "-g", "nvidia-l4", "--offline", "--engine", name)
    found = json.loads(run("advise", *asked, "--users", "3", "--json").out)
    start = found["memory"]
    assert start["outcome"] == "starts"
    assert start["tokens_low"] >= 3 * start["context"]
    longer = ("--context", str(start["context"] + 512), "--users", "3", "--json")
    assert json.loads(run("advise", *asked, *longer).out)["memory"]["tokens_low"] < 3 * (start["context"] + 512)
    as_is = json.loads(run("predict", *asked, "--json").out)
    assert as_is["memory"]["context"] == 32768
    page = run("advise", *asked)
    assert "TGI" not in page.out.partition("docker run")[0].partition("Note:")[0]
    assert run("advise", *asked, L4, L4).code == Exit.USAGE
