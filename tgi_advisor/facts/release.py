"""What one TGI release does at launch and warm-up, and the table that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TgiRelease:
    """One release; `releases.yaml` writes the first in full and then only what changed.

    Rules that only gate a refusal compare `version`; everything that enters the memory sum is a
    field here.
    """

    version: tuple[int, int, int]
    """(3, 3, 7)."""
    date: str
    """Date of the tag's commit."""
    commit: str
    """Short commit of the tag."""
    wiggle: float
    """Default of TGI_WIGGLE_ROOM in the server: the share that may become KV cache."""
    wiggle_env: bool
    """Whether TGI_WIGGLE_ROOM is read (2.3.0 on)."""
    wiggle_of: Literal["free", "total"]
    """What the share multiplies: the memory free at the peak, or the whole GPU (3.0.0 on)."""
    launcher_wiggle: float
    """The launcher's own copy, used for the prefill default only."""
    attentions: tuple[str, ...]
    """Attention back ends of the CUDA image."""
    warmup_new_tokens: Literal["two", "rest"]
    """New tokens of a warm-up request: always 2, or max_total_tokens - truncate."""
    warmup_limits_optional: bool
    """2.4.1 on: limits may be left open; one warm-up request of max_batch_prefill_tokens is built."""
    speculate_in_blocks: bool
    """Whether `speculate` slots count in a request's blocks (1.3.0 on)."""
    warmup_blocks_back: Literal["always", "if_unfinished"]
    """Whether the warm-up's own blocks always count as free again (2.1.0-2.4.0: only if a request was left)."""
    batch_size_caps_warmup: bool
    """Whether --max-batch-size also shortens the warm-up batch."""
    prefill_logits: Literal["two_copies", "in_place", "flag"]
    """Full-vocabulary logits of all prefill tokens: with a log-softmax copy, in place, or only on request."""
    limits_default: Literal["1024_2048", "context_4096", "warmup_2.4.1", "warmup_3.0.0", "warmup_3.0.1", "warmup_3.0.2"]
    """How max_total_tokens and max_input_tokens are filled in when left out (reference a.5)."""
    prefill_default: Literal["4096", "max_input_plus_50", "context_4096", "compute"]
    """How max_batch_prefill_tokens is filled in when left out: 4096; max_input + 50, or max_batch_size x max_input
    when that is given (2.0.0-2.4.0); min(4096, context) (2.4.1); from the GPU's and the model's FLOPS (3.0.0 on)."""
    chunking: Literal["none", "off", "on"]
    """Prefill chunking: not in the code, off by default, on by default."""
    vlm_chunking: bool
    """Whether vision-language classes may chunk (3.3.0 on)."""
    cuda_graphs: Literal["none", "opt_in", "default"]
    """CUDA graphs: none, behind --enable-cuda-graphs, or captured by default."""
    graph_sizes: tuple[int, ...]
    """Batch sizes captured by default or on opt-in."""
    graph_buffers: Literal["per_size_request", "per_size_total", "shared_total"]
    """Block tables kept per size over a request's blocks; per size over max_total; one shared set."""
    flashinfer_bytes: int
    """Workspace and wrapper buffers of flashinfer, allocated before warm-up; 0 without flashinfer."""
    transformers_fallback: bool
    """Whether unknown families may run on TransformersFlashCausalLM (3.0.2 on)."""
    quantize: tuple[str, ...]
    """Values --quantize accepts."""
    cache_env: str
    """Environment variable that names the weight cache in the image."""
    token_env: str
    """Environment variable TGI reads the Hub token from."""
    all_gpus_counts_one: bool
    """Whether NVIDIA_VISIBLE_DEVICES=all is counted as one device (until 3.3.6)."""
    source: str
    """Where the row was read."""

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def name(self) -> str:
        """`3.3.7`."""
        return str(self)
