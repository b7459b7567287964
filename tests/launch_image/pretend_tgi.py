"""Plays a TGI container: the launcher's arguments, environment, refusals, log and HTTP answers, without a model.

Runs inside the test image with nothing but the standard library. What it shall do is JSON in PRETEND:

    slow        seconds between log lines
    files       files to "download" (2)
    budget      tokens it infers
    oom_above   largest prefill whose warm-up fits; above it: out of memory
    fail        a section of the log to end with: oom-load, gated, disk, nccl, model-type, no-gpu, ...
    at          the phase the failure, stall, kill, exit or noise happens in: start, download, load, warmup
    stall, kill, exit    stop there for good; kill itself; exit with that code
    noise       long | bytes | flood: odd lines
    token_says  print the Hub token, as a careless server would
    deaf        /health answers, /generate fails
    eat         fill memory there, up to 400 MiB, after two seconds
    drip        paths whose answer comes a byte at a time and never ends
"""

import json
import os
import re
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any

RELEASE = os.environ["PRETEND_RELEASE"]
ROOT = os.environ.get("PRETEND_ROOT", "")  # where the image's files lie, for a start outside it
LEVELS = {"INFO": "\x1b[32m INFO\x1b[0m", "WARN": "\x1b[33m WARN\x1b[0m", "ERROR": "\x1b[31mERROR\x1b[0m"}
NUMBERS = (
    "max-input-tokens",
    "max-input-length",
    "max-total-tokens",
    "max-batch-prefill-tokens",
    "num-shard",
    "port",
    "max-best-of",
)
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def main() -> None:
    """The launcher."""
    behaviour: dict[str, Any] = {}
    try:
        behaviour = json.loads(os.environ.get("PRETEND") or "{}")
    except ValueError:
        refuse("error: PRETEND is no JSON")
    args = parsed(sys.argv[1:])
    server = Pretend(behaviour, args)
    signal.signal(signal.SIGTERM, server.stop)
    server.run()


def parsed(words: list[str]) -> dict[str, str]:
    """The arguments as clap reads them; the environment stands in for what is not given."""
    with open(f"{ROOT}/flags.json", encoding="utf-8") as file:
        known: dict[str, str] = json.load(file)
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in known:
            refuse(f"error: unexpected argument '{word}' found\n\nUsage: text-generation-launcher [OPTIONS]")
        if name in given:
            refuse(f"error: the argument '--{name} <{name.upper().replace('-', '_')}>' cannot be used multiple times")
        if known[name] == "switch":
            given[name] = "true"
        else:
            given[name] = value if equals else (rest.pop(0) if rest else "")
    for name in known:
        from_env = os.environ.get(name.upper().replace("-", "_"))
        if from_env is not None:
            given.setdefault(name, from_env)
    for name in NUMBERS:
        if name in given and not re.fullmatch(r"\+?[0-9]+", given[name]):
            shown = f"--{name} <{name.upper().replace('-', '_')}>"
            refuse(f"error: invalid value '{given[name]}' for '{shown}': invalid digit found in string")
    return given


def refuse(text: str) -> None:
    """As clap ends."""
    print(f"{text}\n\nFor more information, try '--help'.", file=sys.stderr, flush=True)
    sys.exit(2)


class Pretend:
    """One server."""

    def __init__(self, behaviour: dict[str, Any], args: dict[str, str]) -> None:
        self.behaviour, self.args = behaviour, args
        self.model = args.get("model-id", "bigscience/bloom-560m")
        self.shards = int(args.get("num-shard", 1))
        self.longest = int(args.get("max-input-tokens") or args.get("max-input-length") or 1024)
        self.total = int(args.get("max-total-tokens", 2048))
        self.prefill = int(args.get("max-batch-prefill-tokens", 4096))
        self.budget = int(behaviour.get("budget", 40_000))
        self.sections = sections(f"{ROOT}/logs/{RELEASE}.txt")
        self.words: dict[str, Any] = {
            "model": self.model, "shards": self.shards, "budget": self.budget, "max_input": self.longest,
            "max_total": self.total, "prefill": self.prefill, "tried": "512.00 MiB", "free": "188.38 MiB",
            "args": self.debug(),
        }  # fmt: skip

    def debug(self) -> str:
        """The arguments as Rust's pretty `Debug` prints them."""
        lines = [f'    model_id: "{self.model}",', f"    num_shard: Some(\n        {self.shards},\n    ),"]
        for name, value in sorted(self.args.items()):
            if name not in ("model-id", "num-shard"):
                text = value if value.isdecimal() else json.dumps(value, ensure_ascii=False)
                lines.append(f"    {name.replace('-', '_')}: Some(\n        {text},\n    ),")
        return "{\n" + "\n".join(lines) + "\n}"

    def run(self) -> None:
        """The start-up in TGI's order, then the server."""
        if self.longest >= self.total:
            print(f'Error: ArgumentValidation("`max_input_tokens`({self.longest}) must be < '
                  f'`max_total_tokens`({self.total})")', file=sys.stderr, flush=True)  # fmt: skip
            sys.exit(1)
        self.say("start")
        self.phase("start")
        if self.shards > 1:
            self.say("sharding")
        self.say("defaults")
        self.download()
        for rank in range(self.shards):
            self.say("shard", rank=rank)
        self.say("loading")
        self.phase("load")
        for rank in range(self.shards):
            self.say("waiting", rank=rank)
            self.say("ready", rank=rank)
        self.say("webserver")
        self.phase("warmup")
        if self.prefill > int(self.behaviour.get("oom_above", self.prefill)):
            self.fail("oom-warmup")
        self.say("warm")
        time.sleep(float(self.behaviour.get("slow", 0)))
        self.say("connected")
        self.serve()

    def download(self) -> None:
        """Weights that are not there come file by file."""
        self.say("download")
        self.phase("download")
        files = int(self.behaviour.get("files", 2))
        for number in range(1, files + 1):
            file = f"model-{number:05}-of-{files:05}.safetensors"
            self.say("file", file=file)
            self.say("file-done", file=file, done=number, of=files, left=f"{files - number:02}")
        self.say("downloaded" if files else "present")

    def phase(self, name: str) -> None:
        """What shall go wrong in this phase."""
        if self.behaviour.get("token_says"):
            for variable in TOKENS:
                print(f"WARNING using token {os.environ.get(variable)}", flush=True)
        if self.behaviour.get("at", "start") != name:
            return
        noise = self.behaviour.get("noise")
        if noise == "long":
            print("x" * (1 << 20), flush=True)
        elif noise == "bytes":
            sys.stdout.buffer.write(b"\xff\xfe\x80 \x00\x1b]0;title\x07 \xf0\x9f\x92\n")
            sys.stdout.flush()
        elif noise == "flood":
            line = (
                "2026-01-01T00:00:00.000000Z  INFO text_generation_launcher: Waiting for shard to be ready... rank=0\n"
            )
            for _ in range(20):
                sys.stdout.write(line * 1000)
            sys.stdout.flush()
        if "fail" in self.behaviour:
            self.fail(self.behaviour["fail"])
        if self.behaviour.get("kill"):
            self.say("shard-killed", rank=0) if self.behaviour["kill"] == "shard" else None
            os.kill(os.getpid(), signal.SIGKILL) if self.behaviour["kill"] != "shard" else sys.exit(1)
        if self.behaviour.get("eat"):
            time.sleep(2)
            eaten = [bytearray(os.urandom(1 << 20)) for _ in range(400)]
            print(len(eaten), flush=True)
        if "exit" in self.behaviour:
            sys.exit(int(self.behaviour["exit"]))
        while self.behaviour.get("stall"):
            time.sleep(0.1)

    def fail(self, section: str) -> None:
        """End with a section of the log."""
        self.say(section, rank=0)
        sys.exit(1)

    def say(self, section: str, **more: Any) -> None:
        """Print a section of the log in TGI's format, with its colours."""
        for line in self.sections[section]:
            text = line.format(**{**self.words, **more})
            level, _, rest = text.partition(" ")
            if level in LEVELS:
                now = time.time()
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06}Z"
                target, _, message = rest.partition(": ")
                dim = f"\x1b[2m{target}\x1b[0m\x1b[2m:\x1b[0m"
                print(f"\x1b[2m{stamp}\x1b[0m {LEVELS[level]} {dim} {message}", flush=True)
                time.sleep(float(self.behaviour.get("slow", 0)))
            else:
                print(text.removeprefix("-"), flush=True)

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM."""
        self.say("stop")
        os._exit(0)

    def serve(self) -> None:
        """Open the port, and answer."""
        pretend = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health":
                    self.answer(200, "")
                elif self.path == "/info":
                    self.answer(200, pretend.info())
                elif self.path == "/metrics":
                    self.answer(200, "# TYPE tgi_queue_size gauge\ntgi_queue_size 0\n")
                elif self.path == "/received":  # no endpoint of TGI: what reached the container, for the tests
                    self.answer(200, {"argv": sys.argv[1:], "env": dict(os.environ)})
                else:
                    self.answer(404, "")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                if pretend.behaviour.get("deaf"):
                    self.answer(500, {"error": "Request failed during generation: Server error: CUDA error",
                                      "error_type": "generation"})  # fmt: skip
                    return
                words = body.get("parameters", {}).get("max_new_tokens", 20)
                self.answer(200, {"generated_text": " Paris" * words})

            def answer(self, status: int, body: Any) -> None:
                while self.path in pretend.behaviour.get("drip", ()):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: " if self.close_connection else b"x")
                    self.close_connection = False
                    time.sleep(0.2)
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        ThreadingHTTPServer(("0.0.0.0", int(self.args.get("port", "80"))), Answers).serve_forever()

    def info(self) -> dict[str, Any]:
        """/info: what each release has (router/src/infer, router/src/server.rs)."""
        version = tuple(int(part) for part in RELEASE.split("."))
        name = "max_input_tokens" if version >= (2, 1, 0) else "max_input_length"
        info = {"model_id": self.model, name: self.longest, "max_total_tokens": self.total, "version": RELEASE}
        return info if version >= (2, 3, 0) else {**info, "max_batch_total_tokens": self.budget}


def sections(path: str) -> dict[str, list[str]]:
    """The log's sections."""
    found: dict[str, list[str]] = {}
    name = ""
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if match := re.fullmatch(r"\[([a-z-]+)\]", line):
                name = match[1]
                found[name] = []
            elif name:
                found[name].append(line)
    return found


if __name__ == "__main__":
    main()
