"""The GPUs of this machine, asked of the vendors' own tools.

In this order, until one answers: `nvidia-smi`, NVML through `pynvml` where it is installed,
`rocm-smi`, `amd-smi`. What is measured here wins over the table: totals differ between drivers.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tgi_advisor.errors import FactsError, Problem
from tgi_advisor.facts.gpu import GpuFacts, System, measured, on_machine
from tgi_advisor.safe import printable
from tgi_advisor.spec.records import DRIVER
from tgi_advisor.units import GiB, MiB

TIMEOUT_S = 30.0
"""Seconds one tool may take; nvidia-smi on an idle 8-GPU machine without persistence mode takes several."""

NAME_ONE = "name the GPU instead of `auto`, e.g. gpu: nvidia-l4 (`tgi-advisor gpus` lists them)"


@dataclass(frozen=True)
class HostGpu:
    """One GPU of this machine as a tool printed it."""

    index: int
    """The tool's number for it."""
    name: str
    """Product name as printed."""
    memory_bytes: int | None
    """Total memory; None where the tool prints none (memory shared with the CPU)."""
    used_bytes: int | None
    """Memory in use now, by anyone; None where the tool does not say."""
    compute_capability: tuple[int, int] | None
    """CUDA compute capability; None outside NVIDIA and for drivers too old to print it."""
    system: System
    """Which TGI system would run on it."""
    mig: bool
    """Whether the GPU is cut into MIG slices."""
    source: str
    """The tool that was asked."""
    driver: str = ""
    """Version of the NVIDIA driver; empty where it is not said."""


class _NoAnswerError(Exception):
    """A tool is not there, or said nothing usable; the text says which."""


def detect() -> tuple[HostGpu, ...]:
    """Every GPU of this machine; FactsError with what each tool said when none is found."""
    problems = []
    for tool, ask in _TOOLS:
        try:
            gpus = ask()
        except _NoAnswerError as error:  # noqa: PERF203
            problems.append(Problem(f"{tool}: {error}"))
        else:
            if gpus:
                return tuple(gpus)
            problems.append(Problem(f"{tool}: lists no GPU"))
    raise FactsError("found no GPU on this machine", NAME_ONE, problems)


def processes() -> dict[int, tuple[str, ...]]:
    """Who uses the memory of each NVIDIA GPU, by the GPU's number; empty where nvidia-smi does not say."""
    try:
        gpus = _output("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
        apps = _output(
            "nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory,process_name", "--format=csv,noheader,nounits"
        )
    except _NoAnswerError:
        return {}
    rows = [[cell.strip() for cell in line.split(",", 3)] for line in apps.splitlines()]
    found = {}
    for line in gpus.splitlines():
        index, _, uuid = (cell.strip() for cell in line.partition(","))
        users = tuple(
            f"process {row[1]} ({row[3].rpartition('/')[2]}) {row[2]} MiB"
            for row in rows
            if len(row) == 4 and row[0] == uuid
        )
        if _is_number(index) and users:
            found[int(index)] = users
    return found


def this_machine() -> tuple[GpuFacts, int]:
    """What the GPUs of this machine are, with their measured memory, driver and link, and how many there are.

    FactsError when there is none, when they differ, when MIG cuts one up, or when too little is printed.
    """
    gpus = detect()
    first = gpus[0]
    kinds = {(gpu.name, gpu.memory_bytes, gpu.mig) for gpu in gpus}
    if len(kinds) > 1:
        printed = [Problem(f"GPU {gpu.index}: {gpu.name}, {_mib(gpu.memory_bytes)}{_mig(gpu)}") for gpu in gpus]
        raise FactsError(
            "the GPUs of this machine differ, and TGI's shards need equal ones",
            f"{NAME_ONE}, and pass only the ones you mean with container.gpus",
            printed,
        )
    if first.mig:
        raise FactsError(
            f"the {first.name} of this machine is cut into MIG slices, and {first.source} prints only the whole GPU",
            "Name the slice, such as a100-80gb-mig-1g.10gb, or state it by hand, with its own memory:\n"
            f"--set 'hardware.gpu={{name: {first.name}, memory: 9728MiB}}'",
        )
    if not first.memory_bytes:
        raise FactsError(
            f"{first.source} does not print how much memory the {first.name} of this machine has",
            f"State it by hand:\n--set 'hardware.gpu={{name: {first.name}, memory: 64GiB, compute_capability: 8.9}}'",
        )
    facts = measured(first.name, first.system, first.memory_bytes, first.compute_capability, first.source)
    if facts is None:
        raise FactsError(
            f"{first.name} is not in the table and {first.source} does not print its compute capability",
            "State it by hand:\n"
            f"--set 'hardware.gpu={{name: {first.name}, memory: {first.memory_bytes // MiB}MiB, "
            "compute_capability: 8.9}'",
        )
    return on_machine(facts, first.driver, _link(facts, len(gpus)) if first.system == "cuda" else None), len(gpus)


def _link(gpu: GpuFacts, count: int) -> str | None:
    """How the `count` GPUs of this machine reach each other, by nvidia-smi; None where it does not say.

    Peers that cannot read each other's memory talk through the host's. NVLink between all of them is an NVSwitch on
    cards that are sold with one, else bridges.
    """
    if count < 2:
        return None
    try:
        reach = _pairs(_output("nvidia-smi", "topo", "-p2p", "r"), count)
        if set(reach) != {"OK"}:
            return "host"
        ways = _pairs(_output("nvidia-smi", "topo", "-m"), count)
    except _NoAnswerError:
        return None
    if not all(way.startswith("NV") for way in ways):
        return "pcie"
    return "nvswitch" if gpu.link == "nvswitch" else "nvlink"


def _pairs(text: str, count: int) -> list[str]:
    """The cells of a matrix of `nvidia-smi topo`, those of a GPU with itself left out."""
    found: list[str] = []
    for line in text.splitlines():
        name, *cells = line.split()[: count + 1] or [""]
        if re.fullmatch(r"GPU\d+", name) and len(cells) == count and "X" in cells:
            found += [cell for cell in cells if cell != "X"]
    if len(found) != count * (count - 1):
        raise _NoAnswerError("prints no matrix of the GPUs")
    return found


def _nvidia_smi() -> list[HostGpu]:
    """Ask nvidia-smi; drivers before 510 do not know `compute_cap`, so it is asked again without."""
    fields = ["index", "name", "memory.total", "memory.used", "mig.mode.current", "driver_version", "compute_cap"]
    try:
        text = _query_nvidia(fields)
    except _NoAnswerError as error:
        if "not a valid field" not in str(error):
            raise
        text = _query_nvidia(fields[:-1])
    return [_nvidia_row(line) for line in text.splitlines() if line.strip()]


def _query_nvidia(fields: list[str]) -> str:
    return _output("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")


def _nvidia_row(line: str) -> HostGpu:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) not in (6, 7) or not _is_number(cells[0]) or not cells[1]:
        raise _NoAnswerError(f"answers something else than a table of GPUs: {line.strip()[:80]!r}")
    return HostGpu(
        index=int(cells[0]),
        name=cells[1],
        memory_bytes=_bytes(cells[2], MiB),
        used_bytes=_bytes(cells[3], MiB),
        compute_capability=_capability(cells[6]) if len(cells) == 7 else None,
        system="cuda",
        mig=cells[4] == "Enabled",
        source="nvidia-smi",
        driver=_driver(cells[5]),
    )


def _nvml() -> list[HostGpu]:
    """Ask NVML itself, for containers that have the driver's library but not its tool."""
    import importlib

    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise _NoAnswerError("pynvml is not installed") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise _NoAnswerError(str(error)) from None
    try:
        driver = nvml.nvmlSystemGetDriverVersion()
        driver = _driver(driver.decode() if isinstance(driver, bytes) else driver)
        return [_nvml_gpu(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise _NoAnswerError(str(error)) from None
    finally:
        nvml.nvmlShutdown()


def _nvml_gpu(nvml: Any, index: int, driver: str) -> HostGpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        mig = nvml.nvmlDeviceGetMigMode(handle)[0] == 1
    except nvml.NVMLError:
        mig = False  # "not supported": the GPU cannot be cut
    return HostGpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        memory_bytes=memory.total,
        used_bytes=memory.used,
        compute_capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        system="cuda",
        mig=mig,
        source="NVML",
        driver=driver,
    )


def _rocm_smi() -> list[HostGpu]:
    answer = _json(_output("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json"))
    gpus = []
    for card, value in answer.items() if isinstance(answer, dict) else ():
        number = card.removeprefix("card")
        if not _is_number(number) or not isinstance(value, dict):
            continue
        cells = {str(key).lower(): str(cell) for key, cell in value.items()}
        name = cells.get("card series") or cells.get("product name")
        if name is None:
            raise _NoAnswerError(f"prints no `Card Series` for {card}")
        gpus.append(
            HostGpu(
                index=int(number),
                name=name,
                memory_bytes=_bytes(cells.get("vram total memory (b)", ""), 1),
                used_bytes=_bytes(cells.get("vram total used memory (b)", ""), 1),
                compute_capability=None,
                system="rocm",
                mig=False,
                source="rocm-smi",
            )
        )
    return sorted(gpus, key=lambda gpu: gpu.index)


_AMD_UNITS = {"B": 1, "MB": MiB, "GB": GiB}
"""amd-smi says MB and means MiB: it prints 196592 MB where rocm-smi prints 206141652992 bytes."""


def _amd_smi() -> list[HostGpu]:
    answer = _json(_output("amd-smi", "static", "--asic", "--vram", "--json"))
    rows = answer.get("gpu_data", []) if isinstance(answer, dict) else answer
    try:
        return [
            HostGpu(
                index=int(row["gpu"]),
                name=str(row["asic"]["market_name"]),
                memory_bytes=_bytes(str(row["vram"]["size"]["value"]), _AMD_UNITS[row["vram"]["size"]["unit"]]),
                used_bytes=None,
                compute_capability=None,
                system="rocm",
                mig=False,
                source="amd-smi",
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise _NoAnswerError("answers JSON without name and memory of the GPUs") from None


_TOOLS: tuple[tuple[str, Callable[[], list[HostGpu]]], ...] = (
    ("nvidia-smi", _nvidia_smi),
    ("NVML", _nvml),
    ("rocm-smi", _rocm_smi),
    ("amd-smi", _amd_smi),
)


def _output(tool: str, *args: str) -> str:
    """What a tool prints; _NoAnswerError when it is missing, fails, hangs or prints nothing."""
    try:
        done = subprocess.run(  # noqa: S603
            [tool, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise _NoAnswerError("not found on PATH") from None
    except subprocess.TimeoutExpired:
        raise _NoAnswerError(f"gave no answer within {TIMEOUT_S:g} seconds") from None
    except OSError as error:
        raise _NoAnswerError(f"cannot be run: {error.strerror}") from None
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        raise _NoAnswerError(f"failed with exit code {done.returncode}: {said[:200] or 'no message'}")
    return printable(done.stdout, "\t\r\n")


def _json(text: str) -> Any:
    """The JSON in a tool's answer, which may follow lines of warnings."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.lstrip()[:1] in ("{", "[")), 0)
    try:
        return json.loads("\n".join(lines[start:]))
    except (ValueError, RecursionError):
        raise _NoAnswerError(f"answers no JSON: {text.strip()[:80]!r}") from None


def _bytes(text: str, unit: int) -> int | None:
    """A whole number of `unit` as bytes; None for `[N/A]` and the like."""
    return int(text) * unit if _is_number(text) else None


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= 20


def _driver(text: str) -> str:
    """A driver's version; empty for `[N/A]` and the like."""
    return text if re.fullmatch(DRIVER, text) else ""


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if _is_number(major) and _is_number(minor) else None


def _mib(memory: int | None) -> str:
    return "memory not printed" if memory is None else f"{memory // MiB} MiB"


def _mig(gpu: HostGpu) -> str:
    return ", MIG on" if gpu.mig else ""
