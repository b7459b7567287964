#!/usr/bin/env python3
"""Turn the log of a TGI start-up into a row for tests/data/warmups.yaml.

    python scripts/record_warmup.py LOG            # or - for stdin
    docker logs tgi 2>&1 | python scripts/record_warmup.py - --image 3.3.4 --gpu nvidia-l4

The row holds what the log says: arguments, GPUs (an `nvidia-smi` table in the log, or `--env`'s), the limits TGI
chose, the KV budget, the out-of-memory message. What it does not say is left out, or taken from the options; look
over `known` and `assumed` before adding the row. Paths of local models, host names and keys are not copied.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tgi_advisor import logs
from tgi_advisor.errors import AdvisorError
from tgi_advisor.facts import gpu, release
from tgi_advisor.logs import Phase, StartUp
from tgi_advisor.units import GiB, MiB

KEYS = (
    "id", "kind", "release", "release_basis", "model", "snapshot", "like", "gpu", "gpu_stated", "gpu_memory_mib",
    "gpu_count", "driver", "link", "in_use", "num_shard", "dtype", "quantize", "kv_cache_dtype", "limits",
    "memory_fraction", "arguments", "env", "observed", "known", "assumed", "unsure", "confidence", "exclude", "source",
)  # fmt: skip
KINDS = (
    "inferred-budget", "oom-load", "oom-warmup", "oom-total", "oom-later", "works", "published-config", "refused",
)  # fmt: skip
LIMITS = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")

# Source line of two router messages -> the releases it stands at (router/src and backends/v3/src of each tag).
# In 2.3.0 to 3.3.7 the file of the first is lib.rs; `Connected` is always in the router.
RELEASES_AT = {
    "Setting max batch total tokens to": {
        243: "1.0.0-1.0.2", 246: "1.0.3-1.3.4", 316: "1.4.0", 328: "1.4.1-1.4.5", 348: "2.0.0", 351: "2.0.1",
        354: "2.0.2-2.0.4", 1634: "2.1.0", 1646: "2.1.1", 1651: "2.2.0", 102: "2.3.0-2.3.1", 110: "2.4.0",
        137: "2.4.1-3.3.7",
    },
    "Connected": {
        244: "1.0.0-1.0.2", 247: "1.0.3-1.3.4", 317: "1.4.0", 329: "1.4.1-1.4.5", 349: "2.0.0", 352: "2.0.1",
        355: "2.0.2-2.0.4", 1872: "2.1.0", 1884: "2.1.1", 1889: "2.2.0", 2477: "2.3.0", 2210: "2.3.1", 2354: "2.4.0",
        2393: "2.4.1", 2402: "3.0.0-3.0.2", 2423: "3.1.0", 2431: "3.1.1", 2266: "3.2.0-3.2.3", 2298: "3.3.0-3.3.6",
        2302: "3.3.7",
    },
}  # fmt: skip


def main() -> int:
    """Read the options and the log, print the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("log", help="the log, or - for stdin")
    parser.add_argument("--image", help="TGI release, when the log does not name it")
    parser.add_argument("--gpu", help="GPU, when the log holds no nvidia-smi table")
    parser.add_argument("--gpu-count", type=int, help="number of GPUs TGI could see")
    parser.add_argument("--model", help="Hub id, when the log shows a local folder")
    parser.add_argument("--id", default="", help="name of the row")
    parser.add_argument("--source", default="", help="where the log comes from (URL)")
    options = parser.parse_args()
    try:
        text = sys.stdin.read() if options.log == "-" else Path(options.log).read_text("utf-8", errors="replace")
    except OSError as error:
        print(f"cannot read {options.log}: {error.strerror}", file=sys.stderr)
        return 2
    found = logs.start_up(text)
    if found.phase is None and not found.gpus and found.out_of_memory is None:
        print(f"no line of text-generation-inference in {options.log}", file=sys.stderr)
        return 2
    try:
        sys.stdout.write(row_text(row(found, options)))
    except AdvisorError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


def row(found: StartUp, options: argparse.Namespace) -> dict[str, Any]:
    """The row of a start-up; keys without a value are left out."""
    given = found.arguments
    limits = {name: given[name] for name in LIMITS if given.get(name) is not None}
    if given.get("max_input_length") is not None:
        limits.setdefault("max_input_tokens", given["max_input_length"])
    name, basis = _release(found, options.image)
    model, known, assumed = _model(found, options.model)
    row = {
        "id": options.id or "unnamed",
        "kind": _kind(found),
        "release": name,
        "release_basis": basis,
        "model": model,
        **_gpu(found, options),
        "num_shard": found.shards,
        **{key: given.get(key) for key in ("dtype", "quantize", "kv_cache_dtype")},
        "limits": {name: limits[name] for name in LIMITS if name in limits},
        "memory_fraction": _unless(given.get("cuda_memory_fraction"), 1.0),
        "arguments": _arguments(given),
        "observed": _observed(found),
        "known": known + _known(found),
        "assumed": assumed,
        "confidence": "high" if name and (found.gpus or options.gpu) and given else "low",
        "source": options.source or "unpublished",
    }
    return {key: row[key] for key in KEYS if row.get(key) not in (None, [], {}) or key == "limits"}


def row_text(row: dict[str, Any]) -> str:
    """A row in the one form of tests/data/warmups.yaml: a key a line, values as JSON, sentences a line each."""
    lines = []
    for key, value in row.items():
        if key in ("known", "assumed"):
            lines += [f"  {key}:", *(f"    - {json.dumps(sentence, ensure_ascii=False)}" for sentence in value)]
        else:
            lines.append(f"  {key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(["-" + lines[0][1:], *lines[1:]]) + "\n"


def _kind(found: StartUp) -> str:
    """Which kind of row it is."""
    if found.budget is not None and found.died_in is None:
        return "inferred-budget"
    if found.failure and re.search(r"NotEnoughMemory\(|`max_total_tokens` must be <=", found.failure):
        return "oom-total"
    if found.out_of_memory or (found.failure and "Not enough memory" in found.failure):
        died = found.died_in or Phase.LOAD
        return {Phase.WARMUP: "oom-warmup", Phase.READY: "oom-later"}.get(died, "oom-load")
    return "refused" if found.failure else "works"


def _release(found: StartUp, stated: str | None) -> tuple[str | None, str | None]:
    """Release and how it is known: stated, image tag, commit, or the lines the router's messages stand at."""
    if stated:
        return release.find(stated).name, "stated"
    if found.image and re.fullmatch(r"\d+\.\d+(\.\d+)?(-\w+)?", found.image):
        return release.find(found.image.partition("-")[0]).name, f"image tag {found.image}"
    commit = found.commit or (found.image or "").removeprefix("sha-")
    for known in release.all_releases():
        if commit.startswith(known.commit[:7]):
            return known.name, f"commit {commit[:7]}"
    ranges = [RELEASES_AT[text].get(line) for text, (_, line) in found.router_lines.items() if text in RELEASES_AT]
    for span in sorted(filter(None, ranges), key=_width):
        return span.rpartition("-")[2], f"router line number: {span}"
    return None, None


def _width(span: str) -> int:
    """Releases between the ends of a span such as 2.0.2-2.0.4."""
    names = [known.name for known in release.all_releases()]
    first, _, last = span.partition("-")
    return names.index(last or first) - names.index(first)


def _model(found: StartUp, stated: str | None) -> tuple[str | None, list[str], list[str]]:
    """Hub id, and sentences for `known` and `assumed`."""
    printed = found.arguments.get("model_id")
    if stated:
        local = isinstance(printed, str) and printed != stated
        return stated, [], ["the model behind the local folder, as stated"] if local else []
    if isinstance(printed, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", printed):
        return printed, [], []
    return None, [], []


def _gpu(found: StartUp, options: argparse.Namespace) -> dict[str, Any]:
    """GPU, its memory as printed, and how many TGI could see."""
    if options.gpu:
        return {"gpu": gpu.find(options.gpu).name, "gpu_count": options.gpu_count}
    if not found.gpus:
        return {"gpu_count": options.gpu_count}
    first = found.gpus[0]
    name = _table_name(first)
    count = {"gpu_memory_mib": first.total_mib, "gpu_count": options.gpu_count or len(found.gpus)}
    return ({"gpu": name} if name else {"gpu_stated": first.name}) | count


def _table_name(printed: logs.Gpu) -> str | None:
    """The table's name of a printed GPU, also of one that an older `nvidia-smi` cut short (`NVIDIA A100-SXM...`)."""
    rows = {known.name: known for known in gpu.all_gpus()}
    if printed.name.endswith("..."):
        stem, memory = printed.name.removesuffix("..."), printed.total_mib * MiB
        fits = [
            name
            for name, known in rows.items()
            if known.facts and known.facts.memory_bytes == memory and any(n.startswith(stem) for n in known.smi_names)
        ]
        return fits[0] if len(fits) == 1 else None
    facts = gpu.measured(printed.name, "cuda", printed.total_mib * MiB, (0, 0), "nvidia-smi")
    return facts.name if facts and facts.name in rows else None


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The other arguments that bear on memory, where they are not TGI's defaults."""
    names = (
        "max_batch_total_tokens", "max_batch_size", "speculate", "cuda_graphs", "enable_cuda_graphs", "sharded",
        "rope_scaling", "rope_factor", "lora_adapters", "disable_custom_kernels", "enable_prefill_logprobs",
        "trust_remote_code",
    )  # fmt: skip
    return {name: given[name] for name in names if given.get(name) not in (None, False)}


def _observed(found: StartUp) -> dict[str, Any]:
    """What TGI printed."""
    seen: dict[str, Any] = {"max_batch_total_tokens": found.budget}
    if found.kv_blocks:
        seen |= {"kv_blocks": found.kv_blocks[0], "block_size": found.kv_blocks[1]}
    seen["defaults"] = found.defaults
    seen |= {"attention": found.attention, "prefix_caching": found.prefix_caching, "chunking": found.chunking}
    if found.budget and found.gpus and found.gpus[0].used_mib > 2048:
        seen["nvidia_smi_used_mib"] = found.gpus[0].used_mib
    if memory := found.out_of_memory:
        parts = ("tried", "capacity", "free", "in_use", "allocated", "unallocated", "reserved")
        sizes = {name: getattr(memory, name) for name in parts}
        seen["oom"] = {name: _printed(size) for name, size in sizes.items() if size is not None}
    return {name: value for name, value in seen.items() if value not in (None, {}, [])}


def _known(found: StartUp) -> list[str]:
    """Sentences for `known`."""
    failure = _bare(found.failure or "")
    said = [f"died with: {failure}"] if failure and "out of memory" not in failure else []
    if found.phase is not None:
        said.append(f"furthest phase: {found.phase.name.lower()}")
    return said


def _bare(failure: str) -> str:
    """A failure without folders, and not too long."""
    return re.sub(r"(?:/[\w.@+-]+){2,}/?", "<folder>", failure)[:240]


def _printed(size: int) -> str:
    """A size as PyTorch prints it."""
    return f"{size / GiB:.2f}GiB" if size >= GiB else f"{size / MiB:.2f}MiB"


def _unless(value: Any, default: Any) -> Any:
    """The value; None when it is the default."""
    return None if value == default else value


if __name__ == "__main__":
    sys.exit(main())
