"""What a running TGI server says of its traffic: its `/metrics`, in Prometheus' text.

Every release has what is read here:
https://github.com/huggingface/text-generation-inference/blob/v1.0.0/router/src/infer.rs#L365-L420
https://github.com/huggingface/text-generation-inference/blob/v3.3.0/backends/v3/src/backend.rs#L295-L390
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from tgi_advisor.errors import FactsError

PREFIX = "tgi_"
"""What TGI's metrics begin with."""
Key = tuple[str, str]
"""Name of a sample, and its method (`prefill`, `decode`, or none)."""


class Traffic(NamedTuple):
    """What a server has done since it started."""

    requests: int
    """Requests that are answered."""
    prompts: int
    """Requests whose prompt went through a prefill."""
    prompt_tokens: float
    """Tokens of a prompt, on average."""
    answer_tokens: float
    """Tokens of an answer, on average."""
    prefills: int
    """Prefills, each of one or more prompts."""
    prefill_seconds: float
    """Seconds of all of them."""
    decodes: int
    """Decode steps."""
    decode_seconds: float
    """Seconds of all of them."""
    per_token: float
    """Seconds a token took as the requests saw it, waits for other prefills included; on average."""


def traffic(text: str, where: str) -> Traffic:
    """What `/metrics` says, named `where` in errors; FactsError where it is no TGI server's."""
    seen = _samples(text, where)
    if not any(name.startswith(PREFIX) for name, _ in seen):
        other = next((engine for engine in ("vllm", "sglang", "trtllm") if f"\n{engine}" in f"\n{text}"), None)
        whose = f", but those of {other}" if other else ""
        raise FactsError(f"{where} has no metrics of TGI{whose}", "Give the address of a TGI server.")

    def total(name: str, method: str = "") -> float:
        return seen.get((name, method), 0.0)

    def mean(name: str) -> float:
        count = total(f"{name}_count")
        return total(f"{name}_sum") / count if count else 0.0

    return Traffic(
        requests=int(total("tgi_request_generated_tokens_count")),
        prompts=int(total("tgi_batch_next_size_sum")),
        prompt_tokens=mean("tgi_request_input_length"),
        answer_tokens=mean("tgi_request_generated_tokens"),
        prefills=int(total("tgi_batch_inference_duration_count", "prefill")),
        prefill_seconds=total("tgi_batch_inference_duration_sum", "prefill"),
        decodes=int(total("tgi_batch_inference_duration_count", "decode")),
        decode_seconds=total("tgi_batch_inference_duration_sum", "decode"),
        per_token=mean("tgi_request_mean_time_per_token_duration"),
    )


def _samples(text: str, where: str) -> Mapping[Key, float]:
    """The samples by name and method, buckets left out; those of several servers behind one address are added up."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[Key, float] = defaultdict(float)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "le" in sample.labels or "quantile" in sample.labels:
                    continue
                if not math.isfinite(sample.value) or sample.value < 0:
                    raise ValueError(f"{sample.name} is {sample.value}")
                found[sample.name, sample.labels.get("method", "")] += sample.value
    except (ValueError, KeyError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FactsError(f"{where} is no text of Prometheus: {reason}", "Give the address of a TGI server.") from None
    return found
