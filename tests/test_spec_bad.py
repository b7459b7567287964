"""Specs that are refused, and the whole text of the refusal."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from golden import Golden

from tgi_advisor.bounds import MAX_SPEC
from tgi_advisor.errors import Exit, SpecError
from tgi_advisor.spec.reader import build, read_file, read_text, with_set

GOOD = "model: {id: org/name}\nhardware: {gpu: nvidia-l4}\n"
TOKEN = "hf_" + "Ab1" * 10

BAD: dict[str, str] = {
    "empty": "",
    "only-comments": "# a spec\n\n",
    "null": "~\n",
    "a-list": "- model\n",
    "a-word": "llama\n",
    "nothing-required": "tgi: {release: 3.3.7}\n",
    "required-empty": "model:\n  id:\nhardware:\n",
    "gpu-block-without-name": "model: {id: org/name}\nhardware:\n  gpu: {memory: 24GiB}\n",
    "tab": "model:\n\tid: org/name\n",
    "colon-in-value": "model:\n  id: org: name\n",
    "no-colon": "model:\n  id org/name\nhardware:\n  gpu: x\n",
    "open-quote": 'model:\n  id: "org/name\n',
    "open-bracket": "container:\n  gpus: [0, 1\n",
    "open-brace": "model: {id: x\n",
    "at-sign": "model:\n  id: @org/name\n",
    "bad-indent": "model:\n  id: x\n revision: y\n",
    "bad-escape": 'model:\n  id: "C:\\models"\n',
    "anchor": "model: &m {id: org/name}\nhardware: *m\n",
    "alias-undefined": "model: *m\n",
    "bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
    "tag": "model: !!python/object/apply:os.system ['true']\n",
    "merge-key": GOOD + "tgi:\n  <<: {release: 3.3.7}\n",
    "two-documents": GOOD + "---\n" + GOOD,
    "deep": "[" * 100_000,
    "deep-block": "".join(f"{' ' * i}a:\n" for i in range(40)),
    "control-character": "model:\n  id: org/na\x07me\n",
    "lone-surrogate": "model: {id: '\ud800'}\n",
    "complex-key": "? [model]\n: x\n",
    "unknown-keys": "modle: {id: x}\nmodel: {id: org/name, revison: main}\nhardware: {gpu: nvidia-l4, num_shard: 2}\n"
    "limits: {max-total-tokens: 4k}\ntgi: {max-batch-size: 8, quantise: awq}\nmax_total_tokens: 8k\nfoo: 1\n",
    "duplicates": "model:\n  id: org/a\n  id: org/b\nhardware: {gpu: nvidia-l4}\nmodel: {id: org/c}\n"
    "tgi:\n  flags: {max-batch-size: 1, max_batch_size: 2}\n  env: {A: 1, A: 2}\n",
    "wrong-types": "model: {id: [a], dtype: half, quantize: awk, trust_remote_code: yes}\n"
    "hardware: {gpu: [nvidia-l4], count: two, memory_fraction: lots, in_use: 500}\n"
    "tgi: {release: true, flags: [a], env: 5}\n"
    "limits: {max_input_tokens: [1], max_total_tokens: {minimum: 1k}}\n"
    "workload: 7\ncontainer: {port: http, gpus: '0,1', shm_size: 64}\n",
    "numbers": GOOD.replace("nvidia-l4", "{name: x, memory: .inf, compute_capability: .nan, fp16_tflops: '121'}")
    + "limits: {max_input_tokens: 010, max_total_tokens: 0x1000, max_batch_prefill_tokens: 1:30}\n"
    "workload: {max_new_tokens: '1024', concurrency: on}\n"
    "container: {port: 8_080}\ntgi: {num_shard: 1.5}\n",
    "out-of-range": "model: {id: org/name}\n"
    "hardware: {gpu: nvidia-l4, count: 0, memory_fraction: 1.5, headroom: 9999TiB}\n"
    f"limits: {{max_input_tokens: -5, max_total_tokens: {'9' * 5000}}}\ncontainer: {{port: 70000}}\n",
    "pinned-input-over-total": GOOD + "limits: {max_input_tokens: 8k, max_total_tokens: 4k}\n",
    "range-upside-down": GOOD + "limits:\n  max_total_tokens:\n    min: 8k\n    max: 4k\n",
    "no-room-for-output": GOOD + "limits: {max_input_tokens: 3k, max_total_tokens: 4k}\n"
    "workload: {max_new_tokens: 2k}\n",
    "output-over-total": GOOD + "limits: {max_total_tokens: 1k}\nworkload: {max_new_tokens: 1k}\n",
    "release-and-image": GOOD + "tgi:\n  release: 2.4.1\n"
    "  image: ghcr.io/huggingface/text-generation-inference:3.3.7-rocm\n",
    "shards-over-count": GOOD.replace("l4}", "l4, count: 2}") + "tgi: {num_shard: 4}\n",
    "devices-and-count": GOOD.replace("l4}", "l4, count: 4}") + "container: {gpus: [0, 1]}\n",
    "devices-twice": GOOD + "container: {gpus: [0, 0]}\n",
    "devices-none": GOOD + "container: {gpus: []}\n",
    "mounts": GOOD + "container:\n  mounts:\n"
    "    - /srv/a\n    - /srv/a:b\n    - /srv/a:/data\n    - /srv/a:/\n    - /srv/a://x\n    - a b:/x\n"
    "    - /a:/x/../y\n    - /b:/y\n    - [a]\n    - /a:/x,y\n" + f"    - /{TOKEN}:/t\n",
    "mounts-no-list": GOOD + "container: {mounts: /srv/a:/a}\n",
    "flags-with-a-field": GOOD + "tgi:\n  flags:\n" + "".join(
        f"    {flag}: 1\n"
        for flag in ("model-id", "--num-shard", "sharded", "quantize", "dtype", "kv-cache-dtype", "port", "revision",
                     "cuda-memory-fraction", "max_input_length", "max-total-tokens", "huggingface-hub-cache")
    ),
    "flags-odd": GOOD + "tgi: {flags: {MAX_BATCH_SIZE: 1, -p: 1, speculate: , cuda-graphs: {a: 1}, api-key: abc}}\n",
    "env-with-a-field": GOOD + "tgi: {env: {MAX_TOTAL_TOKENS: 1, MODEL_ID: x, PORT: 80, QUANTIZE: awq}}\n",
    "env-odd": GOOD + "tgi: {env: {A-B: 1, 1A: 2, C: , D: [1]}}\n",
    "flag-and-env": GOOD + "tgi: {flags: {max-batch-size: 1}, env: {MAX_BATCH_SIZE: 2}}\n",
    "secrets": GOOD + f"tgi:\n  env:\n    HF_TOKEN: {TOKEN}\n"
    "    HUGGING_FACE_HUB_TOKEN: abcdefgh\n    API_KEY: [abcdefgh]\n"
    f"    OTHER: x{TOKEN}\n    http_proxy: http://me:pass-word@proxy:80\n  image: {TOKEN}\n"
    f"container: {{token_env: {TOKEN}, port: {TOKEN}}}\n{TOKEN}: 1\n",
    "names": GOOD + "container: {name: My Llama, token_env: $HF_TOKEN, shm_size: 1gig}\n",
    "url-as-id": GOOD.replace("org/name", "https://huggingface.co/org/name/tree/main"),
    "two-lines-as-id": "model:\n  id: |\n    org/name\nhardware: {gpu: nvidia-l4}\n",
    "choices": GOOD.replace("org/name", "org/name, kv_cache_dtype: fp8"),
}  # fmt: skip

SETS: dict[str, list[str]] = {
    "set": [
        "limits.max_total_tokns=8k", "foo.bar.baz=1", "nonsense", "=1", "tgi.num_shard=",
        "tgi.flags.max-total-tokens=4",
        "workload.concurrency=many", "model.id={a: b}", "tgi.flags=[1", "model.revision=*x", "model.revision.x=1",
        f"tgi.env.HF_TOKEN={TOKEN}", f"{TOKEN}=1", f"tgi.env.{TOKEN}", "hardware.gpu.memry=4GiB", "limits..x=1",
    ],
    "set-contradiction": ["limits.max_input_tokens=16k", "limits.max_total_tokens=8k"],
}  # fmt: skip


def refusal(call: Any, *args: Any, **more: Any) -> str:
    with pytest.raises(SpecError) as caught:
        call(*args, **more)
    assert caught.value.exit_code == Exit.SPEC
    text = f"{caught.value}\n"
    for secret in (TOKEN[3:], "abcdefgh", "pass-word"):
        assert secret not in text
    return text


@pytest.mark.parametrize("name", BAD)
def test_the_whole_refusal(name: str, golden: Golden) -> None:
    start = time.perf_counter()
    text = refusal(read_text, BAD[name], "spec.yaml")
    assert time.perf_counter() - start < 1
    golden(f"spec/bad/{name}.txt", text)


@pytest.mark.parametrize("name", SETS)
def test_the_whole_refusal_of_set(name: str, golden: Golden) -> None:
    text = refusal(read_text, GOOD, "spec.yaml", sets=SETS[name])
    golden(f"spec/bad/{name}.txt", text)
    assert refusal(with_set, read_text(GOOD, "spec.yaml"), SETS[name]) == text


def test_every_problem_of_file_and_set_is_reported_together() -> None:
    text = refusal(read_text, "model: {id: x, foo: 1}\n", "f.yaml", sets=["container.port=0"])
    assert "f.yaml has 3 problems" in text
    assert "--set container.port: container.port must be between 1 and 65535, got 0" in text
    assert "f.yaml:1:16: unknown key 'foo'" in text
    assert "hardware.gpu is required" in text


def test_options_are_refused_by_their_path(golden: Golden) -> None:
    options = [("hardware.gpu", "nvidia-l4"), ("hardware.count", "many"), ("tgi.releas", "3.3.7")]
    golden("spec/bad/options.txt", refusal(build, options))


def test_a_broken_value_raises_no_contradiction() -> None:
    text = refusal(read_text, GOOD + "limits: {max_total_tokens: 2k}\nworkload: {max_new_tokens: 4kk}\n", "f.yaml")
    assert "1 problem" in text


def test_a_page_of_nonsense_is_refused_fast() -> None:
    start = time.perf_counter()
    text = refusal(read_text, "".join(f"key{i}: 1\n" for i in range(10_000)), "f.yaml")
    assert "10002 problems" in text
    assert "... and 9962 more" in text
    assert time.perf_counter() - start < 2


# files


def test_files_that_cannot_be_read(
    tmp_path: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    texts = [refusal(read_file, "llama.yaml"), refusal(read_file, "empty"), refusal(read_file, "empty/x.yaml")]
    Path("specs").mkdir()
    Path("specs/llama-l4.yaml").write_text(GOOD)
    Path("latin.yaml").write_bytes(GOOD.encode() + "# caf\u00e9\n".encode("latin-1"))
    Path("long.yaml").write_bytes(GOOD.encode() + b"# \xc3\xa9" * MAX_SPEC)
    texts += [
        refusal(read_file, p) for p in ("specs", "specs/lama-l4.yml", "latin.yaml", "long.yaml", "nul\0", "\udcff")
    ]
    texts += [refusal(read_file, "x" * 300).replace("x" * 300, "xxx")]
    golden("spec/bad/files.txt", "\n".join(texts))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs /dev/zero")
def test_an_endless_file_ends() -> None:
    assert "it is a device, not a file" in refusal(read_file, "/dev/zero")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    spec = read_file("-")
    assert (spec.model.id, spec.source) == ("org/name", "<stdin>")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "<stdin>:1:1: the spec is empty" in refusal(read_file, "-")
