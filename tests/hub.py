"""A Hugging Face Hub on loopback: header-only repositories, gating, renames, a CDN, latency, and every fault we know.

with Hub() as hub:
    hub.add("org/name", config, tensors, shards=4)
    hub.fault("config.json", status=503, times=1)
    ...
    hub.requests          # what was asked for, with Range and Authorization
"""

from __future__ import annotations

import json
import math
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from tgi_advisor.facts.model import DTYPE_BITS

COMMIT = "5" * 40
INDEX = "model.safetensors.index.json"
Tensors = dict[str, tuple[str, tuple[int, ...]]]


@dataclass
class Weights:
    """A safetensors file of which only the header exists; the rest is as large as the header says."""

    header: dict[str, Any]
    length: int | None = None
    """A lie about the header's length."""

    @cached_property
    def beginning(self) -> bytes:
        """The 8-byte length and the header."""
        text = json.dumps(self.header).encode()
        return struct.pack("<Q", len(text) if self.length is None else self.length) + text

    @cached_property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.beginning) + max((e["data_offsets"][1] for e in self.header.values()), default=0)


@dataclass
class Repo:
    """One repository at one commit."""

    files: dict[str, bytes | Weights]
    gated: str | bool = False
    totals: dict[str, int] | None = None
    """What the Hub says its safetensors hold."""
    commit: str | None = COMMIT
    branches: tuple[str, ...] = ("main", "refs/pr/1", "v1.0")

    @cached_property
    def all_headers(self) -> bytes:
        """What the one call for all headers answers."""
        headers = {name: data.header for name, data in sorted(self.files.items()) if isinstance(data, Weights)}
        return json.dumps({"sharded": True, "index": {}, "headers": headers}).encode()


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    path: str
    range: str | None
    authorization: str | None
    proxy_authorization: str | None


@dataclass
class Fault:
    """What to do instead of answering requests whose path matches."""

    match: str
    times: int = 10**9
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    kind: str = "status"
    """status, reset, truncate, hang, endless, garbage (no HTTP at all), raw (`body` as it stands), or drip (the same,
    a byte at a time)."""


def header(tensors: Tensors) -> dict[str, Any]:
    """A safetensors header, data laid out in order."""
    entries, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * DTYPE_BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return entries


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def server_bind(self) -> None:
        """Without looking up our own name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Dropped connections are the point."""


class Hub:
    """The server; a context manager."""

    def __init__(self, latency: float = 0) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.latency = latency
        self.one_call = True
        self.ignores_range = False
        self.cdn = ""
        """Endpoint that weight files are redirected to."""
        self.busiest = self._busy = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def use_tls(self, certificate: str, key: str) -> None:
        """Speak HTTPS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.endpoint = self.endpoint.replace("http:", "https:")

    def add(
        self,
        repo: str,
        config: dict[str, Any],
        tensors: Tensors,
        *,
        shards: int = 1,
        extra: dict[str, bytes | Weights] | None = None,
        totals: bool = True,
        gated: str | bool = False,
    ) -> Repo:
        """A repository with config.json, tokenizer_config.json and weights in `shards` files."""
        names = list(tensors)
        files: dict[str, bytes | Weights] = {
            "config.json": json.dumps(config).encode(),
            "tokenizer_config.json": b'{"model_max_length": 4096}',
        }
        if shards == 1:
            files["model.safetensors"] = Weights(header(tensors))
        else:
            place: dict[str, str] = {}
            for n in range(shards):
                file = f"model-{n + 1:05}-of-{shards:05}.safetensors"
                part = names[n * len(names) // shards : (n + 1) * len(names) // shards]
                files[file] = Weights(header({name: tensors[name] for name in part}))
                place |= dict.fromkeys(part, file)
            files[INDEX] = json.dumps({"metadata": {}, "weight_map": place}).encode()
        counts: dict[str, int] = {}
        for dtype, shape in tensors.values():
            counts[dtype] = counts.get(dtype, 0) + math.prod(shape)
        self.repos[repo] = Repo({**files, **(extra or {})}, gated, counts if totals else None)
        return self.repos[repo]

    def fault(self, match: str, kind: str = "status", **what: Any) -> None:
        """From now on, fail requests whose path matches the regular expression."""
        self.faults.append(Fault(match, kind=kind, **what))

    @property
    def paths(self) -> list[str]:
        """Paths asked for, without query, sorted (they come in at once)."""
        return sorted(urlsplit(request.path).path for request in self.requests)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_CONNECT(self) -> None:
            self.note()
            self.send(407, b"", {"Proxy-Authenticate": "Basic"})
            self.close_connection = True

        def do_GET(self) -> None:
            with hub._lock:
                hub._busy += 1
                hub.busiest = max(hub.busiest, hub._busy)
            try:
                self.note()
                time.sleep(hub.latency)
                if fault := self.fault():
                    self.fail(fault)
                else:
                    self.answer()
            finally:
                with hub._lock:
                    hub._busy -= 1

        def note(self) -> None:
            get = self.headers.get
            hub.requests.append(Request(self.path, get("Range"), get("Authorization"), get("Proxy-Authorization")))

        def fault(self) -> Fault | None:
            with hub._lock:
                for fault in hub.faults:
                    if fault.times > 0 and re.search(fault.match, self.path):
                        fault.times -= 1
                        return fault
            return None

        def fail(self, fault: Fault) -> None:
            if fault.kind == "status":
                self.send(fault.status, fault.body, fault.headers)
                return
            self.close_connection = True
            if fault.kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif fault.kind == "truncate":
                self.send(200, b'{"half": ', length=1000)
            elif fault.kind == "hang":
                time.sleep(1)
            elif fault.kind == "garbage":
                self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            elif fault.kind == "raw":
                self.wfile.write(fault.body)
            elif fault.kind == "drip":
                for number in range(len(fault.body)):
                    self.wfile.write(fault.body[number : number + 1])
                    time.sleep(0.01)
            elif fault.kind == "endless":
                self.send(200, b"", length=1 << 50)
                for _ in range(4096):
                    self.wfile.write(b" " * (1 << 16))

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if match := re.fullmatch(r"/api/models/(.+?)/(tree|revision|safetensors-metadata)/(.+)", path):
                repo = self.find(match[1])
                if repo is None:
                    return
                if match[2] == "tree":
                    self.tree(repo)
                elif match[2] == "revision":
                    self.entry(match[1], repo, match[3])
                else:
                    self.headers_of_all(match[1], repo, match[3])
            elif match := re.fullmatch(r"/(.+?)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
                repo = self.find(match[1])
                if repo is not None:
                    self.file(match[1], repo, match[2], match[3])
            else:
                self.send(404, b"not here")

        def find(self, name: str) -> Repo | None:
            if new := hub.renamed.get(name):
                self.send(307, b"", {"Location": self.path.replace(name, new)})
                return None
            token = self.token()
            repo = hub.repos.get(name)
            if token == "hf_invalid":
                self.send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
            elif repo is None:
                self.send(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"})
            else:
                return repo
            return None

        def token(self) -> str:
            return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

        def closed(self, repo: Repo) -> bool:
            if repo.gated and self.token() in ("", "hf_noaccess"):
                self.send(403 if self.token() else 401, b"", {"X-Error-Code": "GatedRepo"})
                return True
            return False

        def entry(self, name: str, repo: Repo, revision: str) -> None:
            if revision not in (*repo.branches, repo.commit):
                self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
                return
            entry: dict[str, Any] = {"id": name, "sha": repo.commit, "gated": repo.gated}
            entry["siblings"] = [{"rfilename": file} for file in repo.files]
            if repo.totals is not None:
                entry["safetensors"] = {"parameters": repo.totals, "total": sum(repo.totals.values())}
            self.send(200, json.dumps(entry).encode())

        def tree(self, repo: Repo) -> None:
            files = [{"type": "file", "path": name, "size": 1} for name in repo.files]
            self.send(200, json.dumps(files).encode())

        def headers_of_all(self, name: str, repo: Repo, index: str) -> None:
            if self.closed(repo):
                return
            if not hub.one_call or index not in repo.files:
                self.send(404, b"")
                return
            self.send(200, repo.all_headers)

        def file(self, name: str, repo: Repo, revision: str, file: str) -> None:
            if self.closed(repo):
                return
            data = repo.files.get(file)
            commit = {"X-Repo-Commit": repo.commit} if repo.commit else {}
            if revision not in (*repo.branches, repo.commit):
                self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif data is None:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"} | commit)
            elif isinstance(data, bytes):
                self.send(200, data, commit)
            elif hub.cdn:
                self.send(302, b"", {"Location": f"{hub.cdn}{self.path}"} | commit)
            else:
                self.part(data, commit)

        def part(self, weights: Weights, commit: dict[str, str]) -> None:
            start = weights.beginning
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if asked is None or hub.ignores_range:
                self.close_connection = True
                self.send(200, start, commit, length=weights.size)
                return
            first, last = int(asked[1]), min(int(asked[2]), weights.size - 1)
            if first > last:
                self.send(416, b"", {"Content-Range": f"bytes */{weights.size}"})
                return
            body = start[first : last + 1].ljust(last + 1 - first, b"\0")
            self.send(206, body, {"Content-Range": f"bytes {first}-{last}/{weights.size}"} | commit)

        def send(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler
