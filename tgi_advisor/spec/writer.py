"""Writes specs: `dump` the shortest YAML that reads back the same, `starter` one that teaches."""

from __future__ import annotations

import json
import re
from typing import Any

from tgi_advisor.errors import Place
from tgi_advisor.spec.records import Bound, GpuSpec, MountSpec, Spec, settings
from tgi_advisor.spec.tree import Scalar
from tgi_advisor.units import GiB, KiB, MiB, TiB

_PLAIN = re.compile(r"[A-Za-z0-9_./](?:[A-Za-z0-9_./:@+=-]*[A-Za-z0-9_./@+=-])?")
_OTHER_READERS = re.compile(r"y|n|yes|no|on|off|0[xob].*|[0-9][0-9_:]+", re.IGNORECASE)
_NOWHERE = Place("", 0, 0)


def dump(spec: Spec) -> str:
    """The spec as YAML, without the fields that have their default; `read_text(dump(s)) == s`."""
    return "\n".join([*_lines(spec, ""), ""])


def _lines(record: Any, pad: str) -> list[str]:
    """The fields of a record, one line each or a block."""
    lines = []
    for name, field in settings(type(record)).items():
        value, kind = getattr(record, name), field.metadata["kind"]
        if value == field.metadata["default"]:
            continue
        if kind in ("flags", "env"):
            block = [f"{pad}  {_word(key)}: {_value(item)}" for key, item in value.items()]
        elif kind == "section" or (kind == "gpu" and value.stated):
            block = _lines(value, f"{pad}  ")
        else:
            lines.append(f"{pad}{name}: {_size(value) if kind == 'size' else _value(value)}")
            continue
        lines += [f"{pad}{name}:", *block]
    return lines


def _value(value: Any) -> str:
    """A value on one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _word(value)
        case MountSpec():
            return json.dumps(str(value), ensure_ascii=False)
        case GpuSpec():
            return _word(value.name)
        case Bound():
            ends = {"min": value.low, "max": value.high}
            given = ", ".join(f"{end}: {tokens}" for end, tokens in ends.items() if tokens is not None)
            return f"{{{given}}}" if value.fixed is None else str(value.fixed)
        case tuple():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            return repr(value)


def _word(text: str) -> str:
    """Text, in quotes where this or another YAML reader would take it for something else."""
    plain = _PLAIN.fullmatch(text) and not _OTHER_READERS.fullmatch(text)
    if plain and Scalar(text, True, _NOWHERE).value == text:
        return text
    return json.dumps(text, ensure_ascii=False).replace("##[", "#\\u0023[")  # which a job of GitHub Actions would obey


def _size(size: int) -> str:
    """Bytes in the largest binary unit that keeps them exact."""
    for unit, name in ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}B"


def line(name: str, value: Any, kind: str) -> str:
    """A field on one line, as `dump` writes it; `kind` as in `settings`."""
    return f"{_word(name)}: {_size(value) if kind == 'size' else _value(value)}"


def starter(
    model_id: str,
    gpu: str,
    count: int = 1,
    release: str | None = None,
    *,
    memory: int | None = None,
    image: str | None = None,
    driver: str | None = None,
    link: str | None = None,
    name: str = "tgi",
    schema: str = "spec.schema.json",
) -> str:
    """A commented spec to start from.

    `memory` (bytes) states a GPU the table does not know, `driver` and `link` the machine it is in; `schema` is where
    the editor finds the JSON Schema that `tgi-advisor schema` prints.
    """
    known = _word(gpu) if memory is None else f"{{name: {_word(gpu)}, memory: {_size(memory)}}}"
    version = f"image: {_word(image)}" if image else f"release: {_word(release)}" if release else "# release: 3.3.7"
    written = f"driver: {_word(driver)}" if driver else "# driver: 535.129.03"
    linked = f"link: {link}" if link else "# link: nvlink"
    return f"""\
# {model_id} on {count} x {gpu}. Try it: tgi-advisor advise FILE
# yaml-language-server: $schema={schema}
# (for completion in the editor: tgi-advisor schema > {schema})
# Whatever is left out has its default. Token counts may be written 8k or 128K (k is 1024), sizes 24GiB or 24GB.

model: # which weights
  id: {_word(model_id)} # Hub id, or a local folder
  # revision: main # branch, tag or commit
  # dtype: bfloat16 # left out, TGI picks it for the model
  # quantize: awq # only to say what the checkpoint itself does not
  # kv_cache_dtype: fp8_e4m3fn # halves the KV cache

hardware: # which machine
  gpu: {known} # `tgi-advisor gpus` lists names; g6.xlarge and auto work too
  count: {count} # GPUs the container sees
  # memory_fraction: 1.0 # --cuda-memory-fraction, of the whole GPU
  {written} # the machine's NVIDIA driver, as nvidia-smi prints it; before 535 it takes a GiB and more
  {linked} # how the GPUs reach each other: nvswitch, nvlink, pcie, or host for no peer access
  # in_use: 500MiB # what other processes hold on each GPU

tgi: # which TGI
  {version} # left out, the newest known; `tgi-advisor releases` lists them
  # num_shard: auto # or the number of GPUs one copy of the model is split over
  # flags: # any other launcher flag, by its own name
  #   max-batch-size: 64
  # env: # environment of the container
  #   LOG_LEVEL: info

limits: # which limits to find: auto, a number, or {{min: , max: }}
  max_input_tokens: auto # longest prompt
  max_total_tokens: auto # prompt plus answer
  max_batch_prefill_tokens: auto # prompt tokens of one prefill batch

workload: # what it must carry
  # max_new_tokens: 1024 # room for the answer, between max_input_tokens and max_total_tokens
  concurrency: 1 # requests of max_total_tokens that must fit at once
  # prefer: prefill # or context: the smallest prefill chunks, for a longer context
  # allow_risk: false # whether the search may return limits that are at risk under load

container: # how it is started
  name: {_word(name)}
  port: 8080 # on the host
  cache: ./data # host folder or volume for the weights
  # mounts: [/srv/adapters:/adapters:ro] # further folders or volumes
  shm_size: 1g # shards talk through /dev/shm
  gpus: all # or device ids: [0, 1]
  token_env: HF_TOKEN # name of the variable in your shell; the token itself never goes in here
  # replicas: 2 # servers of this kind that Kubernetes keeps

kubernetes: # what the cluster is like
  # cluster: gke # or eks, karpenter, eks-auto, aks, nvidia: by which label nodes with the GPU are found
  # storage: shared # or one, node: where replicas keep the weights
  # storage_class: filestore # of the claim; left out, the cluster's default
  # pull_secret: regcred # Secret with which the image is pulled

autoscale: # how many replicas a cluster keeps
  # max: 4 # left out, their number stays container.replicas
  # min: 1
  # on: queue # or batch, gpu-cache
  # target: 6 # value of each replica above which some are added
  # by: keda # or hpa
  # prometheus: http://prometheus-operated.monitoring:9090 # which KEDA asks
"""
