from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from front import LLAMA, run

from tgi_advisor.errors import FactsError
from tgi_advisor.facts import gpu
from tgi_advisor.gather import host
from tgi_advisor.units import MiB

Fake = Callable[..., None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """`fake(tool, script)` puts an executable on a PATH that holds nothing else; no pynvml unless a test brings one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)

    def write(tool: str, script: str, mode: int = 0o755) -> None:
        path = tmp_path / tool
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)

    return write


def printing(text: str) -> str:
    return f"/bin/cat <<'END'\n{text}\nEND"


L4 = "0, NVIDIA L4, 23034, 4, [N/A], 550.54.15, 8.9"


def test_one_gpu(fake: Fake) -> None:
    fake("nvidia-smi", printing(L4))
    assert host.detect() == (
        host.HostGpu(
            0, "NVIDIA L4", 23034 * MiB, 4 * MiB, (8, 9), "cuda", mig=False, source="nvidia-smi", driver="550.54.15"
        ),
    )
    facts, count = host.this_machine()
    assert (facts.name, facts.memory_bytes, count) == ("nvidia-l4", 23034 * MiB, 1)
    assert facts.cuda_total_bytes == gpu.find("l4").cuda_total_bytes
    assert facts.source.startswith("nvidia-smi on this machine; the rest: table gpus.yaml: ")


def test_what_nvidia_smi_is_asked(fake: Fake, tmp_path: Path) -> None:
    fake("nvidia-smi", f'echo "$@" > {tmp_path}/asked; echo "{L4}"')
    host.detect()
    assert (tmp_path / "asked").read_text() == (
        "--query-gpu=index,name,memory.total,memory.used,mig.mode.current,driver_version,compute_cap "
        "--format=csv,noheader,nounits\n"
    )


def test_the_measured_total_wins_over_the_table(fake: Fake) -> None:
    fake("nvidia-smi", printing("\n".join(f"{i}, NVIDIA A10G, 22731, 0, [N/A], 535.54.03, 8.6" for i in range(4))))
    facts, count = host.this_machine()
    assert (facts.name, facts.memory_bytes, facts.cuda_total_bytes, count) == ("nvidia-a10g", 22731 * MiB, None, 4)


def test_a_driver_too_old_for_compute_cap(fake: Fake) -> None:
    fake(
        "nvidia-smi",
        'case "$1" in *compute_cap*) echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2;; esac\n'
        'echo "0, Tesla T4, 15109, 0, [N/A], 450.51.06"',
    )
    facts, _ = host.this_machine()
    assert (facts.name, facts.memory_bytes, facts.compute_capability) == ("nvidia-t4", 15109 * MiB, (7, 5))


def test_a_gpu_that_is_not_in_the_table(fake: Fake) -> None:
    fake("nvidia-smi", printing("0, NVIDIA L21, 46068, 0, Disabled, 535.54.03, 8.9"))
    facts, count = host.this_machine()
    assert (facts, count) == (
        gpu.GpuFacts(
            "NVIDIA L21", "cuda", 46068 * MiB, None, (8, 9), None, None, "nvidia-l21",
            "nvidia-smi on this machine; not in the table, so throughput and bandwidth are unknown",
            driver="535.54.03",
        ), 1,
    )  # fmt: skip


def matrix(cells: list[list[str]]) -> str:
    heads = [f"GPU{i}" for i in range(len(cells))]
    rows = ["\t".join([f" {name}", *row, "0-31", "0"]) for name, row in zip(heads, cells, strict=True)]
    return "\n".join(["\t".join(["\x1b[4m", *heads, "CPU Affinity\x1b[0m"]), *rows, "", "Legend:", "  X    = Self"])


def machine(fake: Fake, name: str, reach: list[list[str]], ways: list[list[str]]) -> str:
    """The link that is found on a machine whose nvidia-smi prints these matrices."""
    table = "\n".join(f"{i}, {name}, 40960, 0, Disabled, 550.54.15, 8.0" for i in range(len(reach)))
    fake(
        "nvidia-smi",
        f'case "$*" in\n*-p2p*) {printing(matrix(reach))}\n;;\n*-m*) {printing(matrix(ways))}\n;;\n'
        f"*) {printing(table)}\n;;\nesac",
    )
    return host.this_machine()[0].link


PAIR_OK = [["X", "OK"], ["OK", "X"]]


@pytest.mark.parametrize(
    ("name", "reach", "ways", "link"),
    [
        ("NVIDIA A100-SXM4-40GB", PAIR_OK, [["X", "NV12"], ["NV12", "X"]], "nvswitch"),
        ("NVIDIA A100-PCIE-40GB", PAIR_OK, [["X", "NV12"], ["NV12", "X"]], "nvlink"),
        ("NVIDIA A100-PCIE-40GB", PAIR_OK, [["X", "PIX"], ["PIX", "X"]], "pcie"),
        ("NVIDIA A100-PCIE-40GB", [["X", "CNS"], ["CNS", "X"]], [["X", "SYS"], ["SYS", "X"]], "host"),
        (
            "NVIDIA A100-PCIE-40GB",
            [["X", "OK", "OK"], ["OK", "X", "OK"], ["OK", "OK", "X"]],
            [["X", "NV12", "SYS"], ["NV12", "X", "SYS"], ["SYS", "SYS", "X"]],
            "pcie",
        ),
    ],
)
def test_how_the_gpus_reach_each_other(
    fake: Fake, name: str, reach: list[list[str]], ways: list[list[str]], link: str
) -> None:
    assert machine(fake, name, reach, ways) == link


@pytest.mark.parametrize("said", ["exit 1", "echo no matrix"])
def test_a_tool_that_does_not_say_how_they_reach_each_other(fake: Fake, said: str) -> None:
    table = "\n".join(f"{i}, NVIDIA A100-SXM4-40GB, 40960, 0, Disabled, 550.54.15, 8.0" for i in (0, 1))
    fake("nvidia-smi", f'case "$1" in topo) {said};; *) {printing(table)}\n;;\nesac')
    assert host.this_machine()[0].link == "nvswitch"


def test_init_writes_down_what_this_machine_says(fake: Fake) -> None:
    table = "\n".join(f"{i}, NVIDIA A10G, 23028, 0, [N/A], 525.85.12, 8.6" for i in (0, 1))
    reach = printing(matrix([["X", "OK"], ["OK", "X"]]))
    fake("nvidia-smi", f'case "$1" in topo) {reach}\n;; *) {printing(table)}\n;;\nesac')
    lines = run("init", *LLAMA).out.splitlines()
    assert {"  gpu: nvidia-a10g", "  count: 2", "  driver: 525.85.12", "  link: pcie"} <= {
        line.partition(" #")[0] for line in lines
    }
    lines = run("init", *LLAMA, "--gpu", "auto").out.splitlines()
    assert "  # driver: 535.129.03" in {line.partition(" # the")[0] for line in lines}


def test_the_driver_decides_the_total(fake: Fake) -> None:
    fake("nvidia-smi", printing("0, NVIDIA A10G, 23028, 0, [N/A], 525.85.12, 8.6"))
    facts, _ = host.this_machine()
    assert (facts.driver, facts.cuda_total_bytes, facts.total_from) == ("525.85.12", round(22.20 * (1 << 30)), "driver")


def test_the_launcher_sees_the_printed_name(fake: Fake) -> None:
    name = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
    fake("nvidia-smi", printing(f"0, {name}, 97887, 0, Disabled, 535.54.03, 12.0"))
    facts, _ = host.this_machine()
    assert (facts.name, facts.launcher_name) == ("nvidia-rtx-pro-6000", name.replace(" ", "-").lower())


@pytest.mark.parametrize(
    ("printed", "message", "hint"),
    [
        (
            "0, NVIDIA L21, 46068, 0, Disabled, 535.54.03, [N/A]",
            "NVIDIA L21 is not in the table and nvidia-smi does not print its compute capability",
            "memory: 46068MiB, compute_capability: 8.9",
        ),
        (
            "0, NVIDIA GB10, [N/A], [N/A], [N/A], 535.54.03, 12.1",
            "nvidia-smi does not print how much memory the NVIDIA GB10 of this machine has",
            "hardware.gpu={name: NVIDIA GB10, memory: ",
        ),
        (
            "0, NVIDIA A100-SXM4-40GB, 40960, 0, Enabled, 535.54.03, 8.0",
            "the NVIDIA A100-SXM4-40GB of this machine is cut into MIG slices",
            "--set 'hardware.gpu={name: NVIDIA A100-SXM4-40GB, memory: 9728MiB}'",
        ),
        (
            "0, NVIDIA L4, 23034, 0, [N/A], 535.54.03, 8.9\n1, Tesla T4, 15360, 0, [N/A], 535.54.03, 7.5",
            "the GPUs of this machine differ",
            "name the GPU instead of `auto`",
        ),
        (
            "0, NVIDIA H100 80GB HBM3, 81559, 0, Enabled, 535.54.03, 9.0\n"
            "1, NVIDIA H100 80GB HBM3, 81559, 0, Disabled, 535.54.03, 9.0",
            "GPU 0: NVIDIA H100 80GB HBM3, 81559 MiB, MIG on\nGPU 1: NVIDIA H100 80GB HBM3, 81559 MiB\n",
            "container.gpus",
        ),
    ],
)
def test_machines_that_need_a_word_from_the_user(fake: Fake, printed: str, message: str, hint: str) -> None:
    fake("nvidia-smi", printing(printed))
    with pytest.raises(FactsError) as error:
        host.this_machine()
    assert message in str(error.value)
    assert error.value.hint is not None
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9',
            "failed with exit code 9: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        ),
        ("echo broken >&2; exit 1", "failed with exit code 1: broken"),
        ("exit 3", "failed with exit code 3: no message"),
        ("echo No devices were found", "answers something else than a table of GPUs: 'No devices were found'"),
        ("echo 'x, NVIDIA L4, 1, 1, 1, 1, 1'", "answers something else than a table of GPUs"),
        ("printf '\\377\\376\\000,,,,,\\n'", "answers something else than a table of GPUs"),
        ("exit 0", "lists no GPU"),
    ],
)
def test_a_tool_that_does_not_answer(fake: Fake, script: str, said: str) -> None:
    fake("nvidia-smi", script)
    with pytest.raises(FactsError) as error:
        host.detect()
    assert said in str(error.value)


def test_a_tool_that_hangs(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "TIMEOUT_S", 0.2)
    fake("nvidia-smi", "exec /bin/sleep 20")
    with pytest.raises(FactsError, match=r"nvidia-smi: gave no answer within 0\.2 seconds"):
        host.detect()


def test_a_tool_that_may_not_be_run(fake: Fake) -> None:
    fake("nvidia-smi", "echo", mode=0o644)
    with pytest.raises(FactsError, match="nvidia-smi: cannot be run: Permission denied"):
        host.detect()


def test_no_gpu_at_all(fake: Fake) -> None:
    with pytest.raises(FactsError) as error:
        host.this_machine()
    assert str(error.value) == (
        "found no GPU on this machine\n"
        "nvidia-smi: not found on PATH\n"
        "NVML: pynvml is not installed\n"
        "rocm-smi: not found on PATH\n"
        "amd-smi: not found on PATH\n"
        "name the GPU instead of `auto`, e.g. gpu: nvidia-l4 (`tgi-advisor gpus` lists them)"
    )


MI300X = {
    "VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "297771008", "Card Model": "0x74a1",
    "Card Vendor": "Advanced Micro Devices, Inc. [AMD/ATI]",
}  # fmt: skip


@pytest.mark.parametrize("series", [{"Card Series": "AMD Instinct MI300X OAM"}, {"Card series": "AMD Instinct MI300X"}])
def test_rocm_smi(fake: Fake, series: dict[str, str]) -> None:
    answer = {f"card{i}": MI300X | series for i in (10, 9, 0)} | {"system": {"Driver version": "6.3"}}
    fake("rocm-smi", printing("WARNING: AMD GPU device(s) is/are in a [low-power] state\n\n" + json.dumps(answer)))
    assert [each.index for each in host.detect()] == [0, 9, 10]
    assert host.detect()[0].used_bytes == 297771008
    facts, count = host.this_machine()
    assert (facts.name, facts.system, facts.memory_bytes, count) == ("amd-mi300x", "rocm", 206141652992, 3)
    assert facts.source.startswith("rocm-smi on this machine; the rest: ")


def test_rocm_smi_is_asked_where_nvidia_smi_is_broken(fake: Fake) -> None:
    fake("nvidia-smi", "exit 1")
    fake("rocm-smi", printing(json.dumps({"card0": MI300X | {"Card Series": "AMD Instinct MI210"}})))
    assert host.detect()[0].name == "AMD Instinct MI210"


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"gpu_data": rows}])
def test_amd_smi(fake: Fake, wrap: Callable[[object], object]) -> None:
    asic = {"market_name": "AMD Instinct MI300X", "target_graphics_version": "gfx942"}
    rows = [{"gpu": i, "asic": asic, "vram": {"type": "HBM3", "size": {"value": 196592, "unit": "MB"}}} for i in (0, 1)]
    fake("amd-smi", printing(json.dumps(wrap(rows))))
    facts, count = host.this_machine()
    assert (facts.name, facts.memory_bytes, count) == ("amd-mi300x", 206141652992, 2)


@pytest.mark.parametrize("tool", ["rocm-smi", "amd-smi"])
@pytest.mark.parametrize(
    "text", ["", "no json", "{", "[1, 2]", '{"card0": {}}', '{"gpu_data": [{"gpu": 0}]}', "null", "7"]
)
def test_garbage_from_amd_tools(fake: Fake, tool: str, text: str) -> None:
    fake(tool, printing(text))
    with pytest.raises(FactsError, match=rf"{tool}: (answers|prints|lists)"):
        host.detect()


class NVMLError(Exception):
    pass


def nvml(**functions: object) -> types.ModuleType:
    module = types.ModuleType("pynvml")
    memory = types.SimpleNamespace(total=23034 * MiB, used=5 * MiB)

    def no_mig(handle: int) -> list[int]:
        raise NVMLError("Not Supported")

    usual = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"550.54.15",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"NVIDIA L4" if handle else "NVIDIA L4",
        "nvmlDeviceGetMemoryInfo": lambda handle: memory,
        "nvmlDeviceGetMigMode": no_mig,
        "nvmlDeviceGetCudaComputeCapability": lambda handle: [8, 9],
    }
    for name, function in (usual | functions).items():
        setattr(module, name, function)
    return module


def test_nvml_where_there_is_no_tool(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    facts, count = host.this_machine()
    assert (facts.name, facts.memory_bytes, facts.compute_capability, count) == ("nvidia-l4", 23034 * MiB, (8, 9), 2)
    assert facts.source.startswith("NVML on this machine")


def test_nvml_with_mig(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlDeviceGetMigMode=lambda handle: [1, 1]))
    with pytest.raises(FactsError, match="cut into MIG slices, and NVML prints only the whole GPU"):
        host.this_machine()


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetMemoryInfo"])
def test_nvml_that_fails(fake: Fake, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*_: object) -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", nvml(**{broken: fail}))
    with pytest.raises(FactsError, match="NVML: Driver Not Loaded"):
        host.detect()
