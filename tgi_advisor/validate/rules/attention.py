"""TGI160-TGI169: attention back ends, prefix caching, shares of memory, the KV cache's type: all TGI's own refusals."""

from __future__ import annotations

from tgi_advisor.validate.found import Value
from tgi_advisor.validate.rules.rule import Case, refused

_FLASH = ("USE_FLASH_ATTENTION",)
_ATTENTION = {
    "flashdecoding-needs-ampere": ("ATTENTION",), "needs-flash-attention": _FLASH,
    "flash-attention-2-needs-ampere": _FLASH, "image-needs-ampere": (),
    "sliding-window-unsupported": ("max-input-tokens", "max-input-length", *_FLASH),
}  # fmt: skip
_CACHING = ("ATTENTION", "PREFIX_CACHING", "USE_PREFIX_CACHING", "lora-adapters")


@refused(
    "TGI160", "attention that does not work here", "attention-unknown", "flashdecoding-needs-ampere",
    "needs-flash-attention", "flash-attention-2-needs-ampere", "image-needs-ampere", "sliding-window-unsupported",
    reads=_ATTENTION,
)  # fmt: skip
def attention(case: Case) -> Value | None:
    """ATTENTION names no back end of this release, or the GPU cannot run the one it gets.

    Left out, the launcher picks one that works.

    Failing::

        ATTENTION=flash tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return case.variable("ATTENTION") or case.at("max-input-tokens", "model-id")


@refused(
    "TGI161", "prefix caching that does not work here", "prefix-caching-paged", "vision-prefix-caching", reads=_CACHING
)
def prefix_caching(case: Case) -> Value | None:
    """Prefix caching works neither with paged attention nor for vision models.

    Failing::

        ATTENTION=paged PREFIX_CACHING=true tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        ATTENTION=paged tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    caching = case.variable("PREFIX_CACHING") or case.variable("USE_PREFIX_CACHING")
    return caching or case.variable("ATTENTION") or case.at("model-id")


@refused("TGI162", "TGI_WIGGLE_ROOM out of range", "wiggle-out-of-range")
def wiggle(case: Case) -> Value | None:
    """TGI_WIGGLE_ROOM is a share between 0 and 1, both excluded.

    Failing::

        TGI_WIGGLE_ROOM=1 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct

    Fixed::

        TGI_WIGGLE_ROOM=0.95 tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct
    """
    return case.variable("TGI_WIGGLE_ROOM")


@refused("TGI163", "fp8 KV cache that does not work here", "fp8-kv-cache", reads=("kv-cache-dtype", "ATTENTION"))
def fp8_kv_cache(case: Case) -> Value | None:
    """An fp8 KV cache works with flashinfer on CUDA, and with more back ends from 3.0.2 on.

    Failing::

        ATTENTION=flashdecoding tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --kv-cache-dtype fp8_e4m3fn

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --kv-cache-dtype fp8_e4m3fn
    """
    return case.at("kv-cache-dtype", "model-id")


@refused(
    "TGI164", "Gaudi without a batch size", "gaudi-batch-size", "gaudi-padded-batch-size", reads=("max-batch-size",)
)
def gaudi_batch_size(case: Case) -> Value | None:
    """The Gaudi back end pads its batches and has to be told how large they get.

    Failing, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7-gaudi
            runtime: habana
            cap_add: [SYS_NICE]
            ipc: host
            volumes: [tgi-data:/data]
            command: --model-id Qwen/Qwen2.5-7B-Instruct
        volumes:
          tgi-data:

    Fixed, compose.yaml::

        services:
          tgi:
            image: tgi:3.3.7-gaudi
            runtime: habana
            cap_add: [SYS_NICE]
            ipc: host
            volumes: [tgi-data:/data]
            command: --model-id Qwen/Qwen2.5-7B-Instruct --max-batch-size 16
        volumes:
          tgi-data:
    """
    return case.at("model-id")


@refused("TGI165", "sequence-to-sequence model with max_total_tokens", "seq2seq-explicit-total")
def seq2seq_total(case: Case) -> Value | None:
    """From 2.4.1 on TGI fails at the warm-up of T5 and its like once max_total_tokens is given.

    Failing::

        tgi:3.3.7 --model-id google/flan-t5-xl --max-input-tokens 256 --max-total-tokens 512

    Fixed::

        tgi:3.3.7 --model-id google/flan-t5-xl
    """
    return case.at("max-total-tokens")


@refused(
    "TGI166", "share of the GPU out of range", "memory-fraction-out-of-range", "device-fraction-out-of-range",
    reads={
        "memory-fraction-out-of-range": ("cuda-memory-fraction",),
        "device-fraction-out-of-range": ("model-id", "XPU_MEMORY_FRACTION", "HPU_MEMORY_FRACTION"),
    },
)  # fmt: skip
def memory_fraction(case: Case) -> Value | None:
    """--cuda-memory-fraction is a share of the GPU, above 0 and at most 1; XPU_ and HPU_MEMORY_FRACTION are.

    The launcher takes any number; PyTorch refuses it in the shards (torch.cuda.set_per_process_memory_fraction).

    Failing::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --cuda-memory-fraction 90

    Fixed::

        tgi:3.3.7 --model-id Qwen/Qwen2.5-7B-Instruct --cuda-memory-fraction 0.9
    """
    return (
        case.at("cuda-memory-fraction") or case.variable("XPU_MEMORY_FRACTION") or case.variable("HPU_MEMORY_FRACTION")
    )
