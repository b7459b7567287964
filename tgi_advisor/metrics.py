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
ENGINES = {
    "vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM", "nv_": "Triton", "te_": "text-embeddings-inference",
    "lorax_": "LoRAX", "llamacpp:": "llama.cpp", "tei:": "text-embeddings-inference",
}  # fmt: skip
"""What metrics of other engines begin with, and whose they are."""
Key = tuple[str, str]
"""Name of a sample, and its method (`prefill`, `decode`), or why it failed, or none."""


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


class Load(NamedTuple):
    """How full a server runs, and how its requests have fared since it started.

    A gauge has no sample before it is first set, and a counter none before it first counts: both are 0 then
    (https://github.com/huggingface/text-generation-inference/blob/v3.3.7/backends/v3/src/queue.rs#L143-L158).
    """

    queued: int
    """Requests that wait for the batch."""
    running: int
    """Requests of the batch."""
    held: int
    """Tokens of the KV cache that the batch may come to take."""
    requests: int
    """Requests that came, refused ones included; those of a chat once, which TGI itself counts twice."""
    answered: int
    """Requests that were answered to their end."""
    failed: Mapping[str, int]
    """Requests that were not, by TGI's reason: `overloaded`, `validation`, `generation`, `incomplete`, …"""
    prompt_tokens: float | None
    """Tokens of a prompt, on average; None before there was one."""
    answer_tokens: float | None
    """Tokens of an answer, on average."""
    waited: float | None
    """Seconds a request waited for the batch, on average."""
    took: float | None
    """Seconds a request took, on average."""
    per_token: float | None
    """Seconds a token took, on average."""
    generated: float
    """Tokens of all answers."""


def load(text: str, where: str) -> Load:
    """How full the server runs that `/metrics` is of; FactsError where it is no TGI server's."""
    seen = _of_tgi(text, where)
    failed = {why: int(value) for (name, why), value in sorted(seen.items()) if name == "tgi_request_failure" and value}

    def total(name: str) -> int:
        return int(seen.get((name, ""), 0))

    def mean(name: str) -> float | None:
        count = total(f"{name}_count")
        return seen.get((f"{name}_sum", ""), 0.0) / count if count else None

    queued, running, answered = (
        total(name) for name in ("tgi_queue_size", "tgi_batch_current_size", "tgi_request_success")
    )
    # From 1.4.0 on a request to /v1/chat/completions is counted when it comes and again when it is generated:
    # https://github.com/huggingface/text-generation-inference/blob/v3.3.7/router/src/server.rs#L1180
    # https://github.com/huggingface/text-generation-inference/blob/v3.3.7/router/src/server.rs#L296
    # What ended and what is under way is at most what came.
    came = min(total("tgi_request_count"), answered + sum(failed.values()) + queued + running)
    return Load(
        queued=queued,
        running=running,
        held=total("tgi_batch_current_max_tokens"),
        requests=came,
        answered=answered,
        failed=failed,
        prompt_tokens=mean("tgi_request_input_length"),
        answer_tokens=mean("tgi_request_generated_tokens"),
        waited=mean("tgi_request_queue_duration"),
        took=mean("tgi_request_duration"),
        per_token=mean("tgi_request_mean_time_per_token_duration"),
        generated=seen.get(("tgi_request_generated_tokens_sum", ""), 0.0),
    )


def traffic(text: str, where: str) -> Traffic:
    """What `/metrics` says, named `where` in errors; FactsError where it is no TGI server's."""
    seen = _of_tgi(text, where)

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


def _of_tgi(text: str, where: str) -> Mapping[Key, float]:
    """The samples of a TGI server; none of one that had no request yet, as each is there from when it is first set."""
    if all(not line.strip() or line[0] == "#" for line in text.splitlines()):
        return {}
    seen = _samples(text, where)
    if not any(name.startswith(PREFIX) for name, _ in seen):
        other = engine(text)
        whose = f", but those of {other}" if other else ""
        raise FactsError(f"{where} has no metrics of TGI{whose}", "Give the address of a TGI server.")
    return seen


def engine(text: str) -> str | None:
    """The other engine whose `/metrics` that is; None where it is none that is known."""
    return next((name for start, name in ENGINES.items() if f"\n{start}" in f"\n{text}"), None)


def _samples(text: str, where: str) -> Mapping[Key, float]:
    """The samples by name and method or reason, without buckets; several servers behind one address are added up."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[Key, float] = defaultdict(float)
    if text.lstrip()[:1] == "<":
        raise FactsError(f"{where} is a web page, not metrics", "Give the address of a TGI server.")
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "le" in sample.labels or "quantile" in sample.labels:
                    continue
                if not math.isfinite(sample.value) or sample.value < 0:
                    raise FactsError(
                        f"{where} says that {sample.name} is {sample.value:g}, which no TGI server counts",
                        "Give the address of a TGI server.",
                    )
                which = sample.labels.get("method") or sample.labels.get("err", "")
                # The parser gives counters the ending that OpenMetrics wants.
                name = sample.name.removesuffix("_total") if family.type == "counter" else sample.name
                found[name, which] += sample.value
    except (ValueError, KeyError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FactsError(f"{where} is no text of Prometheus: {reason}", "Give the address of a TGI server.") from None
    return found
