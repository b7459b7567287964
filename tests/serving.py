"""A TGI server's `/info` and `/metrics` in the form of two releases, served from this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

HELP = {
    "tgi_batch_inference_duration": "Batch inference duration",
    "tgi_batch_next_size": "Batch size of the next batch",
    "tgi_request_generated_tokens": "Generated tokens per request",
    "tgi_request_input_length": "Input token length per request",
    "tgi_request_mean_time_per_token_duration": "Mean time per token per request",
}


class Done(NamedTuple):
    """What a server has done."""

    requests: int = 400
    prompt: int = 750
    answer: int = 150
    prefills: int = 350
    prefill: float = 0.21
    """Seconds of one."""
    decodes: int = 20_000
    decode: float = 0.0335
    """Seconds of one."""
    queued: int | None = None
    """Requests that wait; None before the gauge was first set."""
    running: int = 0
    """Requests of the batch."""
    held: int = 0
    """Tokens it may come to take."""
    failed: Mapping[str, int] = MappingProxyType({})
    """Requests that failed, by TGI's reason."""


def histogram(name: str, count: int, mean: float, labels: str = "", buckets: tuple[float, ...] = ()) -> list[str]:
    """A histogram as metrics-exporter-prometheus writes it, every value at the mean."""
    inner = f"{labels}," if labels else ""
    sides = f"{{{labels}}}" if labels else ""
    rows = [f'{name}_bucket{{{inner}le="{le}"}} {count if mean <= le else 0}' for le in buckets]
    rows.append(f'{name}_bucket{{{inner}le="+Inf"}} {count}')
    return [*rows, f"{name}_sum{sides} {count * mean!r}", f"{name}_count{sides} {count}"]


def metrics(done: Done, release: str) -> str:
    """The text of a release: 2.4.0 on describes its metrics."""
    described = release >= "2.4"
    seconds = tuple(0.0001 * 1.5**n for n in range(1, 36))
    tokens = tuple(20.48 * n for n in range(1, 101))
    blocks: dict[tuple[str, str], list[str]] = {
        ("tgi_request_count", "counter"): [f"tgi_request_count {done.requests}"],
        ("tgi_batch_inference_count", "counter"): [
            f'tgi_batch_inference_count{{method="decode"}} {done.decodes}',
            f'tgi_batch_inference_count{{method="prefill"}} {done.prefills}',
        ],
        ("tgi_request_success", "counter"): [f"tgi_request_success {done.requests - sum(done.failed.values())}"],
        ("tgi_request_failure", "counter"): [
            f'tgi_request_failure{{err="{why}"}} {count}' for why, count in done.failed.items()
        ],
        ("tgi_batch_current_size", "gauge"): [f"tgi_batch_current_size {done.running}"],
        ("tgi_batch_current_max_tokens", "gauge"): [f"tgi_batch_current_max_tokens {done.held}"],
        ("tgi_queue_size", "gauge"): [] if done.queued is None else [f"tgi_queue_size {done.queued}"],
        ("tgi_batch_inference_duration", "histogram"): [
            *histogram("tgi_batch_inference_duration", done.decodes, done.decode, 'method="decode"', seconds),
            *histogram("tgi_batch_inference_duration", done.prefills, done.prefill, 'method="prefill"', seconds),
        ],
        ("tgi_batch_next_size", "histogram"): [
            *histogram("tgi_batch_next_size", done.prefills, done.requests / max(1, done.prefills), "",
                       tuple(float(n) for n in range(1, 1025))),
        ],
        ("tgi_request_input_length", "histogram"): histogram(
            "tgi_request_input_length", done.requests, done.prompt, "", tokens),
        ("tgi_request_generated_tokens", "histogram"): histogram(
            "tgi_request_generated_tokens", done.requests, done.answer, "", tokens),
        ("tgi_request_mean_time_per_token_duration", "histogram"): histogram(
            "tgi_request_mean_time_per_token_duration", done.requests, done.decode, "", seconds),
        ("tgi_request_skipped_tokens", "summary"): [
            'tgi_request_skipped_tokens{quantile="0"} 0', 'tgi_request_skipped_tokens{quantile="1"} 0',
            "tgi_request_skipped_tokens_sum 0", f"tgi_request_skipped_tokens_count {done.requests}",
        ],
    }  # fmt: skip
    lines: list[str] = []
    for (name, kind), rows in blocks.items():
        if not rows:
            continue
        lines += [f"# HELP {name} {HELP[name]}"] if described and name in HELP else []
        lines += [f"# TYPE {name} {kind}", *rows, ""]
    return "\n".join(lines)


def info(model: str, release: str) -> str:
    """`/info` of a release: until 2.2.0 it has dtype, device and budget, until 2.0.4 the old name of the input."""
    longest = "max_input_length" if release < "2.1" else "max_input_tokens"
    body: dict[str, Any] = {
        "model_id": model, "model_sha": "5f0b02c75b57c5855da9ae460ce51323ea669d8a", "version": release,
        "model_pipeline_tag": "text-generation", "max_concurrent_requests": 128, "max_best_of": 2,
        "max_stop_sequences": 4, longest: 4095, "max_total_tokens": 4096, "validation_workers": 2,
        "max_client_batch_size": 4, "router": "text-generation-router", "sha": None, "docker_label": None,
    }  # fmt: skip
    if release < "2.3":
        body |= {"model_dtype": "torch.float16", "model_device_type": "cuda", "waiting_served_ratio": 0.3,
                 "max_batch_total_tokens": 40_000, "max_waiting_tokens": 20, "max_batch_size": None}  # fmt: skip
    return json.dumps(body)


class Asked(NamedTuple):
    """One request a server has had."""

    path: str
    headers: Mapping[str, str]


@contextmanager
def serving(
    answers: Mapping[str, str | tuple[int, str] | Callable[[BaseHTTPRequestHandler], None]],
) -> Iterator[tuple[str, list[Asked]]]:
    """A server that gives these answers by path: a text, a status with a text, or what does the answering."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            asked.append(Asked(self.path, dict(self.headers)))
            answer = answers.get(self.path, (404, "not found"))
            if callable(answer):
                answer(self)
                return
            status, text = (200, answer) if isinstance(answer, str) else answer
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def trickling(handler: BaseHTTPRequestHandler) -> None:
    """An answer that never ends."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


def server_of(model: str, release: str, done: Done | None = None) -> dict[str, str]:
    """The answers of a TGI server."""
    return {"/info": info(model, release), "/metrics": metrics(done or Done(), release), "/health": ""}
