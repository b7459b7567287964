"""A launch as TGI has resolved it, everything but the token limits.

`resolve` (in `defaults.py`) makes one from a spec and its facts; the estimate, the refusals and
the search only read it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from tgi_advisor.facts.families import Family
from tgi_advisor.facts.known import Facts
from tgi_advisor.spec.records import Spec


class Setting(NamedTuple):
    """One launch: flags, environment and defaults merged the way launcher and shard merge them."""

    spec: Spec
    """What was asked for."""
    facts: Facts
    """What is true."""
    family: Family
    """How TGI of this release holds the model."""
    num_shard: int
    """Tensor parallel shards, one per GPU."""
    dtype: str
    """`float16` or `bfloat16`: weights and activations."""
    quantize: str | None
    """Effective quantization method, given or read from the checkpoint."""
    kv_dtype: str
    """dtype of the KV cache: `dtype`, `fp8_e4m3fn` or `fp8_e5m2`."""
    attention: str
    """`paged`, `flashdecoding`, `flashinfer` or `flashdecoding-ipex`."""
    block_size: int
    """Tokens per KV block."""
    prefix_caching: bool
    """Whether the router caches prefixes."""
    chunking: bool
    """Whether prefills are chunked."""
    speculate: int
    """Speculated tokens per step."""
    memory_fraction: float
    """--cuda-memory-fraction."""
    wiggle: float
    """TGI_WIGGLE_ROOM in the server."""
    max_batch_size: int | None
    """--max-batch-size, where it shortens the warm-up batch."""
    graph_sizes: tuple[int, ...]
    """CUDA graph batch sizes that will be captured."""
    prefill_logprobs: bool
    """Whether warm-up materialises logits of all prefill tokens."""
    lora_adapters: tuple[str, ...]
    """Adapter ids given with --lora-adapters."""
    flags: Mapping[str, object]
    """Launcher flags in force by name (`max-batch-size`), command line over environment, typed by flags.yaml."""
    env: Mapping[str, str]
    """Environment of the container as TGI sees it: the image's own under the spec's."""
    flash: bool = True
    """Whether TGI's flash attention classes work on this GPU with this image."""
    forwarded_quantize: str | None = None
    """--quantize as the launcher hands it to the shards: given, or (2.3.0 on) read from config.json."""
    launcher_context: int | None = None
    """Context length as the Rust launcher reads it from config.json's top level."""
    launcher_prefill: int | None = None
    """The launcher's default for max_batch_prefill_tokens where no other limit enters it."""

    @property
    def kv_dtype_bytes(self) -> int:
        """Bytes of one KV element."""
        if self.kv_dtype == "float32":
            return 4
        return 1 if self.kv_dtype.startswith("fp8") else 2

    @property
    def most_in_batch(self) -> int | None:
        """Requests that TGI lets into one batch, by --max-batch-size; None where only the KV cache limits them.

        With chunked prefills the router does not look at it once a batch runs.
        https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/v3/src/backend.rs#L175-L201
        """
        return self.max_batch_size if self.facts.release.batch_size_holds and not self.chunking else None
