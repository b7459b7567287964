"""The servers that tests of `launch` start, wherever that is."""

from __future__ import annotations

from typing import Any

CUDA: dict[str, Any] = {
    "model": {"id": "meta-llama/Llama-3.1-8B-Instruct"},
    "hardware": {"gpu": "nvidia-l4"},
    "workload": {"max_new_tokens": 512},
}


def on_cpu(memory: str) -> dict[str, Any]:
    """A server on a CPU, in a container of so much memory."""
    return {
        "model": {"id": "Qwen/Qwen2.5-3B-Instruct", "dtype": "bfloat16"},
        "hardware": {"gpu": {"name": "intel-cpu", "memory": memory}},
        "limits": {"max_total_tokens": {"max": "8k"}},
        "workload": {"max_new_tokens": 512},
    }
