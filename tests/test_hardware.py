"""What `validate` takes for the GPU of a server: slices of a card, a CPU's memory, another architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from front import run

from tgi_advisor.errors import Exit

IMAGE = "ghcr.io/huggingface/text-generation-inference"
POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: tgi}}
spec:
  nodeSelector: {{%s}}
  containers:
    - name: tgi
      image: {IMAGE}:3.3.7
      args: [--model-id, %s]
      resources: {{limits: {{%s}}}}
      volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: tgi}}}}]
"""
BIG, SMALL = "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-3B-Instruct"
ON_A100 = "nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB"
ON_ARM = "kubernetes.io/arch: arm64"
GKE = "cloud.google.com/gke-accelerator: nvidia-tesla-a100, cloud.google.com/gke-gpu-partition-size: 1g.5gb"
RUN = f"docker run --gpus %s --shm-size 1g -p 8080:80 -v $PWD/data:/data {IMAGE}:3.3.7 --model-id %s\n"
CPU = f"""\
services:
  llm:
    image: {IMAGE}:3.3.7-intel-cpu
    command: --model-id {SMALL}
    volumes: ["./data:/data"]
    ports: ["8080:80"]
%s
"""
LIMIT = "    deploy: {resources: {limits: {memory: %s}}}"
SLICE = "'\"device=0:0\"'"
UUID = "'\"device=MIG-4a0d9b6c-1b1c-5d2f-9c1e-0c1e5d2f9c1e\"'"


OWN_IMAGE = (RUN % ("all", SMALL + " --num-shard 1")).replace(IMAGE, "me/tgi-inference")
DSTACK = f"""\
type: service
name: llm
image: {IMAGE}:3.3.7
env: [MODEL_ID={BIG}]
port: 80
resources: {{gpu: A100}}
commands: [text-generation-launcher --port 80]
"""


def found(tmp_path: Path, text: str, name: str, *options: str) -> list[str]:
    """`severity code` of every finding, with the words of TGI505."""
    file = tmp_path / name
    file.write_text(text)
    ran = run("validate", str(file), "--format", "github", *options)
    assert ran.code in (Exit.STARTS, Exit.FINDINGS), ran.err
    return ran.out.splitlines()


CASES = {
    "a slice of a named card is too small": (
        POD % (ON_A100, BIG, "nvidia.com/mig-1g.10gb: 1"),
        (),
        ["TGI201", "mig-1g.10gb has 9.50 GiB"],
    ),
    "a larger slice is not": (POD % (ON_A100, BIG, "nvidia.com/mig-3g.40gb: 1"), (), []),
    "slices shared by time": (POD % (ON_A100, BIG, "nvidia.com/mig-1g.10gb.shared: 1"), (), ["TGI201", "mig-1g.10gb"]),
    "the product names the slice": (
        POD % (ON_A100 + "-MIG-1g.10gb", BIG, "nvidia.com/gpu: 1"),
        (),
        ["TGI201", "mig-1g.10gb"],
    ),
    "GKE names the slice by a label": (
        POD % (GKE, BIG, "nvidia.com/gpu: 1"),
        (),
        ["TGI201", "mig-1g.5gb has 4.75 GiB"],
    ),
    "a slice of one card alone": (POD % ("a: b", SMALL, "nvidia.com/mig-1g.18gb: 1"), (), []),
    "a slice of which card": (POD % ("a: b", BIG, "nvidia.com/mig-1g.10gb: 1"), (), ["TGI505", "which card the slice"]),
    "a slice of the caller's card": (
        POD % ("a: b", BIG, "nvidia.com/mig-1g.10gb: 1"),
        ("-g", "h100-sxm"),
        ["TGI201", "9.75 GiB"],
    ),
    "a slice the card does not have": (
        POD % ("a: b", BIG, "nvidia.com/mig-1g.7gb: 1"),
        ("-g", "h100-sxm"),
        ["TGI505", "no slice 1g.7gb"],
    ),
    "a slice by its place": (RUN % (SLICE, BIG), ("-g", "a100-80gb"), ["TGI505", "its size is not in the file"]),
    "a slice by its id": (RUN % (UUID, BIG), ("-g", "a100-80gb"), ["TGI505", "its size is not in the file"]),
    "a slice by its id, and its size": (RUN % (UUID, BIG), ("-g", "a100-80gb-mig-1g.10gb"), ["TGI201", "9.50 GiB"]),
    "two slices are not two GPUs": (
        POD % (ON_A100, BIG, "nvidia.com/mig-3g.40gb: 2"),
        (),
        ["TGI146", "Each process is one gpu"],
    ),
    "an arm64 node": (POD % (ON_ARM, SMALL, "nvidia.com/gpu: 1"), ("-g", "l4"), ["TGI306", "no image for arm64"]),
    "a Graviton instance": (
        POD % ("node.kubernetes.io/instance-type: g5g.xlarge", SMALL, "nvidia.com/gpu: 1"),
        (),
        ["TGI306", "g5g.xlarge has an arm64 CPU"],
    ),
    "g5 and g4dn are not Graviton": (
        POD % ("node.kubernetes.io/instance-type: g4dn.xlarge", SMALL, "nvidia.com/gpu: 1"),
        (),
        [],
    ),
    "GH200": (RUN % ("all", SMALL + " --num-shard 1"), ("-g", "gh200"), ["TGI306", "beside an arm64 CPU"]),
    "GH200 with an own image": (OWN_IMAGE, ("-g", "gh200", "-r", "3.3.7"), []),
    "a card that comes in two sizes": (
        DSTACK,
        (),
        ["TGI505", "'A100' names several cards"],
    ),
    "a CPU without memory": (CPU % "", (), ["TGI505", "--memory says it"]),
    "a CPU by name, without memory": (CPU % "", ("-g", "cpu"), ["TGI505", "--memory says it"]),
    "a CPU with --memory": (CPU % "", ("--memory", "4GiB"), ["TGI201", "intel-cpu has 4.00 GiB"]),
    "a CPU with --gpu and --memory": (CPU % "", ("-g", "cpu", "--memory", "64GiB"), []),
    "a CPU with --set": (CPU % "", ("--set", "hardware.gpu={name: cpu, memory: 4GiB}"), ["TGI201", "has 4.00 GiB"]),
    "a CPU whose file limits its memory": (CPU % (LIMIT % "4g"), (), ["TGI201", "TGI505", "the container's limit"]),
    "the smaller of both": (CPU % "    mem_limit: 4g", ("-g", "cpu", "--memory", "64GiB"), ["TGI201"]),
    "a CPU image beside a GPU": (CPU % "", ("-g", "l4"), ["TGI505", "--memory says it"]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gpu_of_a_server(tmp_path: Path, name: str) -> None:
    text, options, said = CASES[name]
    file = "pod.yaml" if "kind: Pod" in text else ".dstack.yml" if "type: service" in text else "compose.yaml"
    out = "\n".join(found(tmp_path, text, "run.sh" if text.startswith("docker") else file, *options))
    assert all(word in out for word in said), out
    expected = {word for word in said if word.startswith("TGI")} - {"TGI505"}
    assert {code for code in ("TGI201", "TGI146", "TGI306") if f"title={code}" in out or code in out} == expected, out


def test_a_gpu_as_a_block_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / ".tgi-advisor.toml").write_text('gpu = {name = "cpu", memory = "4GiB"}\n')
    assert "has 4.00 GiB" in "\n".join(found(tmp_path, CPU % "", "compose.yaml"))
    assert "TGI505" in "\n".join(found(tmp_path, CPU % "", "compose.yaml", "--gpu", "cpu"))
    (tmp_path / ".tgi-advisor.toml").write_text("gpu = {name = 'cpu', memory = [1]}\n")
    ran = run("validate", str(tmp_path))
    assert ran.code == Exit.USAGE
    assert "expected a name, or a block such as" in " ".join(ran.err.split())


def test_set_takes_hardware_alone() -> None:
    ran = run("validate", ".", "--set", "model.id=x")
    assert ran.code == Exit.USAGE
    assert "validate takes fields of `hardware`" in ran.err


@pytest.mark.parametrize(
    ("name", "never"),
    [("a100-mig-9g.90gb", "id you mean"), ("h100-mig", "id you mean"), ("b200-mig-1g.23gb", "id you mean")],
)
def test_a_slice_is_never_taken_for_its_card(name: str, never: str) -> None:
    ran = run("advise", "-m", SMALL, "-g", name)
    assert ran.code == Exit.FACTS
    assert never not in ran.err
    assert "A GPU can be stated by hand" in " ".join(ran.err.split())


def test_advise_keeps_to_one_slice() -> None:
    ran = run("advise", "-m", SMALL, "-g", "a100-80gb-mig-1g.10gb", "-n", "2")
    assert "on 1 of the 2 GPUs" in ran.out or "1 x nvidia-a100-80gb-sxm-mig-1g.10gb" in ran.out


@pytest.mark.parametrize(
    ("gpus", "said"), [("[0, 1, 2]", "3 x nvidia-a10g"), ("[2]", "1 x nvidia-a10g"), ("all", "1 x")]
)
def test_devices_that_are_named_are_as_many_gpus(tmp_path: Path, gpus: str, said: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(f"model: {{id: {BIG}}}\nhardware: {{gpu: nvidia-a10g}}\ncontainer: {{gpus: {gpus}}}\n")
    assert said in run("advise", str(file)).out
    assert run("validate", str(file)).code == Exit.STARTS
    file.write_text(f"model: {{id: {BIG}}}\nhardware: {{gpu: g5.xlarge}}\ncontainer: {{gpus: [0, 1]}}\n")
    assert "g5.xlarge has 1 GPU, but container.gpus asks for 2" in run("advise", str(file)).err


PAIR = f"""\
services:
  a:
    image: {IMAGE}:3.3.7
    command: --model-id {SMALL} --num-shard 1%s
    volumes: ["./data:/data"]
    ports: ["8080:80"]
    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, %s, capabilities: [gpu]}}]}}}}}}
  b:
    image: {IMAGE}:3.3.7
    command: --model-id {SMALL} --num-shard 1%s
    volumes: ["./data:/data"]
    ports: ["8081:80"]
    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, %s, capabilities: [gpu]}}]}}}}}}
"""
ZERO, ONE, FIRST, ALL = 'device_ids: ["0"]', 'device_ids: ["1"]', "count: 1", "count: all"
SHARED = [
    ("0.5", ZERO, "0.5", ZERO, "behind 0.5, 0.5 leaves nothing"),
    ("0.9", ZERO, "0.9", ZERO, "behind 0.9, 0.9 leaves nothing"),
    ("", ZERO, "0.5", ZERO, "behind 1, 0.5 leaves nothing"),
    ("0.5", FIRST, "0.5", FIRST, "behind 0.5, 0.5 leaves nothing"),
    ("0.5", ALL, "0.45", FIRST, "behind 0.5, 0.45 leaves nothing"),
    ("", ALL, "", ZERO, "already takes all memory of these GPUs"),
    ("0.95", ZERO, "1.0", ZERO, "beside that"),
    ("0.5", ZERO, "1.0", ZERO, ""),
    ("0.5", ZERO, "", ZERO, ""),
    ("0.45", FIRST, "0.9", FIRST, ""),
    ("0.5", ZERO, "0.5", ONE, ""),
    ("", FIRST, "", ONE, ""),
]


@pytest.mark.parametrize(("first", "on", "second", "other", "said"), SHARED)
def test_fractions_count_everybodys_memory(
    tmp_path: Path, first: str, on: str, second: str, other: str, said: str
) -> None:
    asked = [f" --cuda-memory-fraction {one}" if one else "" for one in (first, second)]
    out = "\n".join(found(tmp_path, PAIR % (asked[0], on, asked[1], other), "compose.yaml", "-g", "l4"))
    assert ("TGI304" in out) is bool(said), out
    assert said in out
    assert "::error" not in out


def test_servers_planned_together_are_told_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"model: {{id: {SMALL}}}\nhardware: {{gpu: nvidia-l4}}\ntgi: {{num_shard: 1}}\n")
    plans = json.loads(run("advise", str(spec), str(spec), "--json").out)["plans"]
    asked = [" " + " ".join(plan["container"]["args"][2:]).replace("--num-shard 1", "") for plan in plans]
    assert "--cuda-memory-fraction" in asked[0]
    said = found(tmp_path, PAIR % (asked[0], ZERO, asked[1], ZERO), "compose.yaml", "-g", "l4")
    assert said == ["No findings in 2 TGI servers of 1 file."]


def test_the_memory_of_a_cpu_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(CPU % "    mem_limit: 32g")
    (tmp_path / "spec.yaml").write_text(run("import", str(file)).out)
    assert "32.00 GiB" in run("advise", str(tmp_path / "spec.yaml")).out


def test_a_slice_is_imported_and_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(POD % (ON_A100, SMALL, "nvidia.com/mig-1g.10gb: 1"))
    (tmp_path / "spec.yaml").write_text(run("import", str(file)).out)
    ran = run("emit", "-f", "kubernetes", str(tmp_path / "spec.yaml"))
    assert "nvidia.com/mig-1g.10gb" in ran.out


def test_an_adapter_that_changes_nothing_is_said_once(tmp_path: Path) -> None:
    text = RUN.replace("3.3.7", "2.1.0") % ("all", "mistralai/Mistral-7B-Instruct-v0.1 --lora-adapters /data/a")
    out = "\n".join(found(tmp_path, text, "run.sh", "-g", "a10g"))
    assert out.count("changes nothing") == 1
    spec = (
        "-m",
        "mistralai/Mistral-7B-Instruct-v0.1",
        "-g",
        "a10g",
        "-r",
        "2.1.0",
        "--set",
        "tgi.flags.lora-adapters=/data/a",
    )
    assert "looks for adapters in the Hub's cache alone: /data/a changes nothing" in " ".join(
        run("predict", *spec).out.split()
    )
