"""What is true of a GPU, and the table that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

System = Literal["cuda", "rocm", "xpu", "cpu", "gaudi"]


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU model as TGI meets it."""

    name: str
    """Our table name, e.g. `nvidia-l4`."""
    system: System
    """Which TGI code path serves it."""
    memory_bytes: int
    """Total memory as nvidia-smi prints it (MiB x 2^20); for a CPU, the host's RAM."""
    cuda_total_bytes: int | None
    """Total as the driver tells CUDA (`mem_get_info`), where somebody read it; it is less."""
    compute_capability: tuple[int, int] | None
    """CUDA compute capability; None outside NVIDIA."""
    fp16_tflops: float | None
    """Dense fp16/bf16 tensor throughput in TFLOPS."""
    bandwidth: int | None
    """Memory bandwidth in bytes per second."""
    launcher_name: str
    """What TGI's launcher makes of `nvidia-smi --query-gpu=gpu_name`: lower case, dashes for spaces."""
    source: str
    """Where the row's figures come from."""
    generation: str = ""
    """Architecture: turing, ampere, ada, hopper, blackwell, cdna2, ..."""

    @property
    def at_least(self) -> tuple[int, int]:
        """Compute capability for comparisons; (0, 0) when there is none."""
        return self.compute_capability or (0, 0)
