"""Every format says what the Container says, whatever it holds, and goldens keep the text."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from front import run as tgi_advisor
from golden import Golden
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tgi_advisor.api import advise
from tgi_advisor.errors import SpecError, UsageError
from tgi_advisor.plan import Container, Mount
from tgi_advisor.render import FORMATS as EVERY
from tgi_advisor.render import PLATFORMS, render
from tgi_advisor.render.kubernetes import shm_bytes
from tgi_advisor.units import GiB

IMAGE = "ghcr.io/huggingface/text-generation-inference:3.3.7"

NVIDIA = Container(
    name="llama",
    image=IMAGE,
    args=("--model-id", "meta-llama/Llama-3.3-70B-Instruct", "--num-shard", "2", "--trust-remote-code",
          "--max-input-tokens", "7168", "--max-total-tokens", "8192"),
    env={"TGI_WIGGLE_ROOM": "0.95"},
    secret_env={"HF_TOKEN": "HF_TOKEN"},
    mounts=(Mount("./data", "/data"),),
    port=8080,
    container_port=80,
    gpus=("0", "1"),
    gpu_count=2,
    shm_size="1g",
    startup_seconds=6300,
    weights_bytes=141_107_412_992,
    host_memory_bytes=8 * GiB,
    args_env={"MODEL_ID": "meta-llama/Llama-3.3-70B-Instruct", "NUM_SHARD": "2", "TRUST_REMOTE_CODE": "true",
              "MAX_INPUT_TOKENS": "7168", "MAX_TOTAL_TOKENS": "8192"},
    token_needed=True,
)  # fmt: skip
ROCM = Container(
    name="qwen",
    image=f"{IMAGE}-rocm",
    args=("--model-id", "Qwen/Qwen2.5-7B-Instruct", "--num-shard", "1"),
    env={},
    secret_env={"HF_TOKEN": "MY_TOKEN"},
    mounts=(Mount("tgi-weights", "/data"),),
    port=8080,
    container_port=80,
    gpus=None,
    gpu_count=1,
    shm_size="256g",
    devices=("/dev/kfd", "/dev/dri"),
    cap_add=("SYS_PTRACE",),
    security_opt=("seccomp=unconfined",),
    group_add=("video",),
    ipc="host",
    gpu_resource="amd.com/gpu",
    weights_bytes=15_231_233_024,
    host_memory_bytes=4 * GiB,
    args_env={"MODEL_ID": "Qwen/Qwen2.5-7B-Instruct", "NUM_SHARD": "1"},
    device_env={"ROCR_VISIBLE_DEVICES": "3"},
)
CPU = Container(
    name="local",
    image=f"{IMAGE}-intel-cpu",
    args=("--model-id", "/models/my-model", "--num-shard", "1"),
    env={"TOKENIZER_CONFIG_PATH": "/models/my-model/chat template.json"},
    secret_env={},
    mounts=(Mount("./data", "/data"), Mount("/srv/my model", "/models/my-model", read_only=True)),
    port=8000,
    container_port=80,
    gpus=None,
    gpu_count=0,
    shm_size="512m",
    cap_add=("SYS_NICE",),
    gpu_resource=None,
    host_memory_bytes=57 * GiB,
    args_env={"MODEL_ID": "/models/my-model", "NUM_SHARD": "1"},
)
EXAMPLES = {"nvidia": NVIDIA, "rocm": ROCM, "cpu": CPU}
FORMATS = tuple(name for name in EVERY if name not in (*PLATFORMS, "helm"))  # those are in test_platforms.py
SUFFIX = {
    "systemd": "service",
    "docker-run": "sh",
    "compose": "yaml",
    "kubernetes": "yaml",
    "args": "txt",
    "env": "env",
    "json": "json",
}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("form", FORMATS)
def test_whole_text(name: str, form: str, golden: Golden) -> None:
    golden(f"render/{name}-{form}.{SUFFIX[form]}", render(EXAMPLES[name], form))


# -- all formats say the same


class Said(NamedTuple):
    """What a format says about the container, read back from its text."""

    image: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    secrets: frozenset[str]
    port: tuple[int, int]
    mounts: tuple[tuple[str, str, bool], ...]
    gpus: str | tuple[str, ...] | None
    shm: int
    access: tuple[Any, ...]


def said_by(c: Container, home: Path) -> Said:
    """What the record says, with host folders as Docker would see them."""
    mounts = tuple((_absolute(m.source, home) if m.is_path else m.source, m.target, m.read_only) for m in c.mounts)
    access = (c.devices, c.runtime, c.cap_add, c.security_opt, c.group_add, c.ipc, c.privileged)
    env = {**c.device_env, **c.env}
    return Said(c.image, c.args, env, frozenset(c.secret_env), (c.port, c.container_port), mounts, c.gpus,
                shm_bytes(c.shm_size), access)  # fmt: skip


def _absolute(source: str, home: Path) -> str:
    return os.path.normpath(home / source)


FAKE_DOCKER = """#!/bin/sh
for word in "$@"; do printf '%s\\0' "$word"; done > "$RECORD"
env -0 > "$RECORD.env"
"""


@pytest.fixture(scope="module")
def fake_docker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `docker` that records the words it was called with."""
    folder = tmp_path_factory.mktemp("bin")
    docker = folder / "docker"
    docker.write_text(FAKE_DOCKER)
    docker.chmod(0o755)
    return folder


def run(command: str, folder: Path, **env: str) -> tuple[list[str], dict[str, str]]:
    """Run the command under sh; the words `docker` got, and the environment it ran in."""
    record = folder / "record"
    around = {"PATH": f"{folder}:/usr/bin:/bin", "RECORD": str(record), "HOME": str(folder), **env}
    subprocess.run(["sh", "-c", command], env=around, cwd=folder, check=True, capture_output=True)
    words = record.read_bytes().split(b"\0")[:-1]
    seen = (folder / "record.env").read_bytes().split(b"\0")[:-1]
    return [os.fsdecode(w) for w in words], dict(os.fsdecode(v).split("=", 1) for v in seen)


VALUED = {"--name", "--gpus", "--runtime", "--device", "--cap-add", "--security-opt", "--group-add", "--ipc",
          "--shm-size", "-p", "-v", "--mount", "-e"}  # fmt: skip


def read_docker_run(text: str, folder: Path, container: Container) -> Said:
    """The command, run by sh with every secret set, as Docker's option parser reads it."""
    words, _ = run(text, folder, **dict.fromkeys(container.secret_env.values(), "t0ken"))
    assert words[:2] == ["run", "--rm"]
    options: dict[str, list[str]] = {}
    at = 2
    while words[at].startswith("-"):
        if words[at] in VALUED:
            options.setdefault(words[at], []).append(words[at + 1])
            at += 2
        elif words[at].startswith("--env="):
            options.setdefault("-e", []).append(words[at].removeprefix("--env="))
            at += 1
        else:
            assert words[at] == "--privileged"
            options["--privileged"] = []
            at += 1
    assert options["--name"] == [container.name]
    host, inside = options["-p"][0].split(":")
    plain = [e.split("=", 1) for e in options.get("-e", []) if "=" in e]
    gpus = options.get("--gpus", [None])[0]
    if gpus is not None and gpus != "all":
        (field,) = next(csv.reader([gpus]))  # Docker reads --gpus as a line of CSV
        gpus = tuple(field.removeprefix("device=").split(","))  # type: ignore[assignment]
    mounts = [_bind(v) for v in options.get("-v", [])] + [_mount(m) for m in options.get("--mount", [])]
    order = [m.target for m in container.mounts]
    return Said(
        image=words[at],
        args=tuple(words[at + 1 :]),
        env=dict(plain),
        secrets=frozenset(e for e in options.get("-e", []) if "=" not in e),
        port=(int(host), int(inside)),
        mounts=tuple(sorted(mounts, key=lambda m: order.index(m[1]))),
        gpus=gpus,
        shm=shm_bytes(options["--shm-size"][0]),
        access=(
            tuple(options.get("--device", ())), options.get("--runtime", [None])[0],
            tuple(options.get("--cap-add", ())), tuple(options.get("--security-opt", ())),
            tuple(options.get("--group-add", ())),
            options.get("--ipc", [None])[0], "--privileged" in options,
        ),
    )  # fmt: skip


def _bind(text: str) -> tuple[str, str, bool]:
    source, target, *mode = text.split(":")
    return os.path.normpath(source) if "/" in source else source, target, mode == ["ro"]


def _mount(text: str) -> tuple[str, str, bool]:
    fields = dict(f.split("=", 1) for f in next(csv.reader([text], strict=True)) if "=" in f)
    assert fields["type"] == "bind"
    return os.path.normpath(fields["source"]), fields["target"], text.endswith(",readonly")


def uninterpolated(value: Any) -> Any:
    """What Compose makes of a text: `$$` is `$`, and a lone `$` would be a variable."""
    if isinstance(value, str):
        assert "$" not in value.replace("$$", ""), value
        return value.replace("$$", "$")
    if isinstance(value, dict):
        return {k: uninterpolated(v) for k, v in value.items()}
    return [uninterpolated(v) for v in value] if isinstance(value, list) else value


def read_compose(text: str, folder: Path, container: Container) -> Said:
    file = yaml.safe_load(text)
    ((name, service),) = file["services"].items()
    environment = service.pop("environment", {})
    secrets = {k for k, v in environment.items() if v is None or (v.startswith("${") and k in container.secret_env)}
    env = uninterpolated({k: v for k, v in environment.items() if k not in secrets})
    service = uninterpolated(service)
    assert service["container_name"] == name == container.name
    host, inside = service["ports"][0].split(":")
    gpus: Any = None
    if "deploy" in service:
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        gpus = device.get("count") or tuple(device["device_ids"])
    mounts = []
    for v in service["volumes"]:
        if v["type"] == "volume":
            assert file["volumes"][v["source"]] == {"name": v["source"]}
        source = _absolute(v["source"], folder) if v["type"] == "bind" else v["source"]
        mounts.append((source, v["target"], v.get("read_only", False)))
    devices = [d.split(":") for d in service.get("devices", ())]
    assert all(outer == inner for outer, inner in devices)
    access = (
        tuple(outer for outer, _ in devices), service.get("runtime"), tuple(service.get("cap_add", ())),
        tuple(service.get("security_opt", ())), tuple(service.get("group_add", ())), service.get("ipc"),
        service.get("privileged", False),
    )  # fmt: skip
    return Said(service["image"], tuple(service.get("command", ())), env, frozenset(secrets), (int(host), int(inside)),
                tuple(mounts), gpus, shm_bytes(service["shm_size"]), access)  # fmt: skip


def expanded(text: str, known: Mapping[str, str]) -> str:
    """What Kubernetes makes of a text: `$$` is `$`, `$(NAME)` the variable where it is known."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)", lambda m: "$" if m[0] == "$$" else known.get(m[1], m[0]), text, flags=re.DOTALL
    )


def check_kubernetes(container: Container) -> None:
    claim, deployment, service = yaml.safe_load_all(render(container, "kubernetes"))
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    trap = {"PATH": "expanded", "x": "expanded", "": "expanded"}
    env = server.get("env", [])
    assert server["image"] == container.image
    assert tuple(expanded(a, trap) for a in server.get("args", ())) == container.args
    assert {e["name"]: expanded(e["value"], trap) for e in env if "value" in e} == dict(container.env)
    keys = {e["name"]: e["valueFrom"]["secretKeyRef"]["key"] for e in env if "valueFrom" in e}
    assert keys == dict(container.secret_env)
    assert all(
        e["valueFrom"]["secretKeyRef"]["optional"] is not container.token_needed for e in env if "valueFrom" in e
    )
    assert server["ports"][0]["containerPort"] == container.container_port
    assert service["spec"]["ports"][0] == {"name": "http", "port": container.port, "targetPort": "http"}
    mounts = {m["name"]: m for m in server["volumeMounts"]}
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert [(m["mountPath"], m.get("readOnly", False)) for m in mounts.values()] == [
        *((m.target, m.read_only) for m in container.mounts),
        ("/dev/shm", False),
    ]
    assert mounts.keys() == volumes.keys()
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert shm_bytes(volumes["shm"]["emptyDir"]["sizeLimit"] + "B") == shm_bytes(container.shm_size)
    assert int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) * GiB > container.weights_bytes
    limits = server["resources"].get("limits", {})
    assert limits == ({container.gpu_resource: container.gpu_count} if container.gpu_resource else {})
    probe = server["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= container.startup_seconds
    assert deployment["spec"]["progressDeadlineSeconds"] > container.startup_seconds
    assert pod["enableServiceLinks"] is False
    security = server.get("securityContext", {})
    assert tuple(security.get("capabilities", {}).get("add", ())) == container.cap_add
    assert security.get("privileged", False) == container.privileged


def check_all(container: Container, folder: Path) -> None:
    """docker-run, compose, kubernetes, args and json say what the record says."""
    wanted = said_by(container, folder)
    assert read_docker_run(render(container, "docker-run"), folder, container) == wanted
    assert read_compose(render(container, "compose"), folder, container) == wanted
    check_kubernetes(container)
    assert tuple(shlex.split(render(container, "args"))) == container.args
    assert json.loads(render(container, "json")) == json.loads(json.dumps(container.as_dict()))
    assert json.loads(render(container, "json"))["args"] == list(container.args)


@pytest.mark.parametrize(
    ("source", "seen"), [("~/a b", "{home}/a b"), (".", "{cwd}"), ("./d", "{cwd}/d"), ("..", "{cwd}/.."), ("/x", "/x")]
)
def test_folders_are_absolute_for_docker(source: str, seen: str, fake_docker: Path) -> None:
    words, _ = run(render(NVIDIA._replace(mounts=(Mount(source, "/data"),)), "docker-run"), fake_docker)
    assert words[words.index("-v") + 1] == seen.format(home=fake_docker, cwd=fake_docker) + ":/data"


@pytest.mark.parametrize("name", EXAMPLES)
def test_formats_agree(name: str, fake_docker: Path) -> None:
    check_all(EXAMPLES[name], fake_docker)


hostile = st.one_of(
    st.sampled_from([
        "$(touch hacked)", "`id`", "${HOME}", "$$", "$(PATH)", "a'b\"c", "*", "yes", "0x10", "1e3", "0o17", "-1", "",
        ": ", "- a", "#no", "a #b", "two\nlines", "tab\t", " lead", "trail ", "null", "~", "!tag", "&a", "é\u2028😀",
        "\\", "\\n", "%x", "@x", "12:30:45", "=", "2024-01-01", "{a: b}", "[1]", "\ufeff", "\x85", "\x7f", "\x1b[0m",
    ]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)  # fmt: skip
names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True).filter(lambda n: n not in ("PATH", "RECORD", "HOME"))
folders = st.builds(
    lambda start, rest: start + rest,
    st.sampled_from(["/", "./", "../", "/a:b/", "/x,y/", 'a"/']),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=8),
)
hostile_targets = st.from_regex(r"/[a-z](/[A-Za-z0-9 $'`#~.-]{0,5}x)?", fullmatch=True)
containers = st.builds(
    lambda args, env, folder, gpus, further: NVIDIA._replace(
        args=args, env=env, mounts=(Mount(folder, "/data"), *further), gpus=gpus
    ),
    st.lists(hostile, max_size=4).map(tuple),
    st.dictionaries(names, hostile, max_size=3),
    folders,
    st.sampled_from(["all", ("0",), ("0", "2"), ("GPU-8a56a4bc", "MIG-1")]),
    st.lists(
        st.builds(
            Mount, st.sampled_from(["/srv/a b", "/$(x)/`y`", '/a:b,c"d', "vol.1"]), hostile_targets, st.booleans()
        ),
        max_size=2,
        unique_by=lambda mount: mount.target,
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(containers)
@example(NVIDIA._replace(mounts=(Mount('./a:b"c', "/data"), Mount("/m:n,o", "/models/m", read_only=True))))
def test_formats_agree_on_hostile_values(fake_docker: Path, container: Container) -> None:
    check_all(container, fake_docker)
    assert not (fake_docker / "hacked").exists()


@given(hostile)
def test_yaml_texts_stay_texts(text: str) -> None:
    from tgi_advisor.render.yaml_ import document

    written = document({"key": [text]})
    assert yaml.safe_load(written) == {"key": [text]}
    scalar = written.split("- ", 1)[1].removesuffix("\n")
    if not scalar.startswith('"'):
        assert re.fullmatch(r"[A-Za-z][\w./:-]*", scalar)  # no YAML 1.2 number or special form begins with a letter
        assert scalar.lower() not in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")


# -- environment file


def read_env_file(text: str, around: Mapping[str, str]) -> dict[str, str]:
    """The file as Docker reads it: lines as they are, a bare name passed on when it is set."""
    env: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        line = line.removesuffix("\r").lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        assert re.fullmatch(r"[^ \t]+", name)
        if equals:
            env[name] = value
        elif name in around:
            env[name] = around[name]
    return env


@given(st.dictionaries(names, hostile.filter(lambda v: "\n" not in v and "\r" not in v), max_size=4))
def test_env_file_alone_starts_the_same_server(env: dict[str, str]) -> None:
    text = render(NVIDIA._replace(env=env), "env")
    assert read_env_file(text, {"HF_TOKEN": "t"}) == {**env, **NVIDIA.args_env, "HF_TOKEN": "t"}
    assert "HF_TOKEN" not in read_env_file(text, {})


@pytest.mark.parametrize("value", ["two\nlines", "carriage\r", "x" * 70_000])
def test_env_file_refuses_what_docker_would_cut(value: str) -> None:
    with pytest.raises(SpecError, match="cannot hold FOO"):
        render(NVIDIA._replace(env={"FOO": value}), "env")


def test_env_file_refuses_arguments_without_a_variable() -> None:
    with pytest.raises(SpecError, match="--env"):
        render(NVIDIA._replace(args_only=("--env",)), "env")


def test_what_a_format_cannot_mount_is_said() -> None:
    further = (Mount("./data", "/data"), Mount("/srv/a", "/a", read_only=True), Mount("My_Volume", "/b"))
    with pytest.raises(SpecError, match="'My_Volume' cannot be the name of a PersistentVolumeClaim"):
        render(NVIDIA._replace(mounts=further), "kubernetes")
    assert "# What else the server needs is mounted: /srv/a:/a:ro\n" in render(NVIDIA._replace(mounts=further), "env")


def test_kubernetes_refuses_a_relative_model_folder() -> None:
    mounts = (Mount("./data", "/data"), Mount("./model", "/models/model", read_only=True))
    with pytest.raises(SpecError, match="relative folder"):
        render(CPU._replace(mounts=mounts), "kubernetes")


@pytest.mark.parametrize(
    ("size", "size_bytes"), [("1g", 1 << 30), ("512m", 512 << 20), ("64GiB", 64 << 30), ("100b", 100), ("7", 7)]
)
def test_sizes_as_docker_writes_them(size: str, size_bytes: int) -> None:
    assert shm_bytes(size) == size_bytes
    with pytest.raises(SpecError):
        shm_bytes(size + " large")


# -- secrets


@pytest.mark.parametrize("caller", ["HF_TOKEN", "MY_TOKEN"])
@pytest.mark.parametrize("value", [None, "", "marker-of-a-token"])
def test_token_reaches_docker_by_name_only(caller: str, value: str | None, fake_docker: Path) -> None:
    container = NVIDIA._replace(secret_env={"HF_TOKEN": caller})
    words, env = run(render(container, "docker-run"), fake_docker, **({} if value is None else {caller: value}))
    assert not any("marker" in word for word in words)
    passed = "HF_TOKEN" in words or "--env=HF_TOKEN" in words
    if value:
        assert passed
        assert env["HF_TOKEN"] == value
    elif caller != "HF_TOKEN":
        assert not passed


def test_no_format_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {form: render(NVIDIA, form) for form in FORMATS}
    monkeypatch.setenv("HF_TOKEN", "hf_" + "markermarkermarkermarker")
    assert {form: render(NVIDIA, form) for form in FORMATS} == before


def test_kubernetes_secret_command_keeps_the_token_out_of_arguments(tmp_path: Path) -> None:
    line = next(x for x in render(ROCM, "kubernetes").splitlines() if "Secret first" in x)
    command = line.partition(": ")[2]
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@" > args; cat > input\n')
    kubectl.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MY_TOKEN": "marker"}
    subprocess.run(["sh", "-c", command], env=env, cwd=tmp_path, check=True)
    assert (tmp_path / "input").read_text() == "MY_TOKEN=marker\n"
    assert (tmp_path / "args").read_text() == "create secret generic qwen-secrets --from-env-file=/dev/stdin\n"


# -- schemas


@pytest.fixture(scope="module")
def compose_schema() -> Any:
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    return jsonschema.validators.validator_for(json.loads(schema))(json.loads(schema))


@pytest.mark.parametrize("name", EXAMPLES)
def test_compose_is_valid(name: str, compose_schema: Any) -> None:
    compose_schema.validate(yaml.safe_load(render(EXAMPLES[name], "compose")))
    with pytest.raises(jsonschema.ValidationError):
        compose_schema.validate({"services": {"x": {"imagee": "y"}}})


@pytest.mark.parametrize("name", EXAMPLES)
def test_kubernetes_is_valid(name: str) -> None:
    manifests = list(yaml.safe_load_all(render(EXAMPLES[name], "kubernetes")))
    assert [m["kind"] for m in manifests] == ["PersistentVolumeClaim", "Deployment", "Service"]
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifests[1], "specc": {}}, "1.31", strict=True)


# -- register


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'compose'"):
        render(NVIDIA, "composer")


def test_every_example_ends_with_one_newline() -> None:
    for container in EXAMPLES.values():
        for form in FORMATS:
            text = render(container, form)
            assert text.endswith("\n")
            assert not text.endswith("\n\n")


@pytest.mark.parametrize(
    ("gpu", "fields", "selector"),
    [
        ("g6.xlarge", {}, "g6.xlarge"),
        ("ml.G5.2xlarge", {}, "g5.2xlarge"),
        ("nc24ads_a100_v4", {}, "Standard_NC24ads_A100_v4"),
        ("g6.xlarge", {"kubernetes.cluster": "eks"}, "g6.xlarge"),
        ("g6.xlarge", {"kubernetes.cluster": "karpenter"}, None),
        ("nvidia-l4", {}, None),
    ],
)
def test_an_instance_type_is_that_of_the_nodes(
    gpu: str, fields: Mapping[str, object], selector: str | None, tmp_path: Path
) -> None:
    """The pod asks for nodes of that type, by the name the cloud gives it, and `import` reads it back."""
    text = advise(model="meta-llama/Llama-3.1-8B-Instruct", gpu=gpu, fields=fields).emit("kubernetes")
    pod = list(yaml.safe_load_all(text))[1]["spec"]["template"]["spec"]
    assert pod.get("nodeSelector") == (selector and {"node.kubernetes.io/instance-type": selector})
    (tmp_path / "tgi.yaml").write_text(text)
    ran = tgi_advisor("import", str(tmp_path / "tgi.yaml"))
    assert selector is None or f"gpu: {selector}" in ran.out
    assert "nodeSelector" not in ran.out
