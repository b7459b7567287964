"""Rows of tests/data/replays.yaml as launches, beside what is said of them; tests and scripts/accuracy.py use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tgi_advisor.estimate import defaults, forward, prefill, replay, warmup
from tgi_advisor.estimate.replay import towers
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import families
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import Heads, ModelFacts, TensorGroup
from tgi_advisor.gather import checkpoint, snapshot
from tgi_advisor.spec.records import GpuSpec, HardwareSpec, ModelSpec, Spec, TgiSpec

ROOT = Path(__file__).parent.parent
ROWS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "replays.yaml").read_text("utf-8"))
MODELS = ROOT / "tests" / "data" / "models"
"""Models of rows that the package does not ship, as `scripts/record_model.py --out` writes them."""
OF_CAPABILITY = {"7.5": "nvidia-t4", "8.0": "nvidia-a100-80gb-sxm", "8.9": "nvidia-l40s", "9.0": "nvidia-h100-sxm"}
"""A GPU for each compute capability that was replayed."""
ROW_SCALE = ("weight_scale", "BF16", "n,1")


class Amounts(NamedTuple):
    """Bytes PyTorch has reserved on one GPU, and the KV cache that TGI makes of what is free then."""

    loaded: int
    """When the model is there and the cache was emptied."""
    peak: int
    """At the end of the warm-up's prefill."""
    blocks: int
    """KV blocks for which TGI finds room beside the warm-up's own, on a GPU of the row's capability; 0 without room."""


class Compared(NamedTuple):
    """One row, and what is said of it; flashinfer's buffers are those of the recording's stand-in."""

    row: Mapping[str, Any]
    """The row of replays.yaml."""
    setting: Setting
    """The launch it states."""
    block_bytes: int
    """Bytes of a KV block."""
    recorded: Amounts
    """What TGI's own server reserved; after loading only, in both, where it was not warmed up."""
    said: Amounts
    """What the estimate says: replayed at certain lengths, and a line between them."""
    exact: Amounts
    """What the replay says at the row's own length."""
    summed: Amounts
    """A sum of parts with a prefill of so many bytes for every token, as launches that cannot be replayed get it."""

    @property
    def warmed_up(self) -> bool:
        """Whether the row goes beyond loading."""
        return "peak_reserved" in self.row


def model_of(name: str) -> ModelFacts:
    """A row's model: one that is shipped, or one in `MODELS`."""
    shipped = snapshot.find(name)
    if shipped is not None:
        return shipped
    path = MODELS / f"{name.replace('/', '--', 1)}.json"
    return snapshot.read(path.read_bytes(), str(path))


def _cut(model: ModelFacts, layers: int) -> ModelFacts:
    """A model with fewer layers in its language model, as the replay was made of."""
    whole = families.layers(model)
    crossed = model.text().get("cross_attention_layers") or []
    fewer = {whole: layers, len(crossed): sum(one < layers for one in crossed)}
    fewer[whole - len(crossed)] = layers - fewer[len(crossed)] if crossed else layers
    groups = (
        group if towers.sees(group.name) or ".*." not in group.name
        else dataclasses.replace(group, count=fewer.get(group.count, group.count * layers // whole))
        for group in model.tensors
    )  # fmt: skip
    cut: dict[str, Any] = dict(model.config)
    inner = cut["text_config"] = dict(cut["text_config"]) if "text_config" in cut else cut
    for name in {"num_hidden_layers", "n_layer", "n_layers"} & inner.keys() or {"num_hidden_layers"}:
        inner[name] = layers
    if inner is cut:
        del cut["text_config"]
    left_out = {**model.defaults, "text_config": dict(model.defaults.get("text_config") or {})}
    left_out["text_config"].pop("num_hidden_layers", None)
    left_out.pop("num_hidden_layers", None)
    kept = tuple(group for group in groups if group.count)
    return model._replace(config=cut, defaults=left_out, tensors=kept)


def in_files(model: ModelFacts, sizes: Sequence[int]) -> list[dict[str, tuple[str, list[int]]]]:
    """A model's tensors in files of so many bytes, in the order of its modules: name -> (dtype, shape)."""
    layered = [group for group in model.tensors if ".*." in group.name]
    first, last = model.tensors.index(layered[0]), model.tensors.index(layered[-1])
    order = [(group.name, group) for group in model.tensors[:first]]
    order += [(one.name.replace("*", str(layer)), one) for layer in range(layered[0].count) for one in layered]
    order += [(group.name, group) for group in model.tensors[last + 1 :]]
    files: list[dict[str, tuple[str, list[int]]]] = []
    rest = iter(order)
    for size in sizes:
        files.append({})
        while size > 0:
            name, group = next(rest)
            files[-1][name] = group.dtype, list(group.shape)
            size -= group.bytes // group.count
        assert size == 0
    assert next(rest, None) is None
    return files


def _with_files(model: ModelFacts, sizes: Sequence[int]) -> ModelFacts:
    """A model whose tensors lie in files of so many bytes."""
    files = in_files(model, sizes)
    headers = [{name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in file.items()} for file in files]
    tensors, known = checkpoint.group_tensors(headers, families.layers(model))
    assert tensors == model.tensors
    return model._replace(files=known)


def _compressed(layout: str, kind: str, bits: int, **more: Any) -> dict[str, Any]:
    """The configuration compressed-tensors writes."""
    group = {"targets": ["Linear"], "weights": {"type": kind, "num_bits": bits, "symmetric": True, **more}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}


def _gptq(bits: int) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """Asymmetric GPTQ."""
    config = {"quant_method": "gptq", "bits": bits, "group_size": 128, "desc_act": False, "sym": False}
    each = 32 // bits
    tensors = [("qweight", "I32", f"k/{each},n"), ("qzeros", "I32", f"k/128,n/{each}"), ("scales", "F16", "k/128,n")]
    return config, [*tensors, ("g_idx", "I32", "k")]


PACKED: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "compressed-float8": (_compressed("float-quantized", "float", 8), [("weight", "F8_E4M3", "n,k"), ROW_SCALE]),
    "compressed-int8": (_compressed("int-quantized", "int", 8), [("weight", "I8", "n,k"), ROW_SCALE]),
    "compressed-int4": (
        _compressed("pack-quantized", "int", 4, group_size=128),
        [("weight_packed", "I32", "n,k/8"), ("weight_scale", "BF16", "n,k/128"), ("weight_shape", "I64", "2")],
    ),
    "marlin": ({"quant_method": "marlin", "bits": 4}, [("B", "I32", "k/16,n*2"), ("s", "F16", "k/128,n")]),
    "gptq-asymmetric": _gptq(4),
    "gptq-asymmetric-8bit": _gptq(8),
    "exl2": (
        {"quant_method": "exl2"},
        [("q_weight", "I32", "k/8,n"), ("q_scale", "I32", "k/128,n/8"), ("q_invperm", "I32", "k"),
         ("q_scale_max", "F16", "k/128"), ("q_groups", "I16", "k/64")],
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
        [("qweight", "I32", "k,n/8"), ("qzeros", "I32", "k/128,n/8"), ("scales", "F16", "k/128,n")],
    ),
}  # fmt: skip
"""Ways a checkpoint stores a projection of k inputs and n outputs: its configuration, and its tensors."""


def _pack(model: ModelFacts, way: str) -> ModelFacts:
    """A 16-bit model as a checkpoint that stores its projections in this way."""
    config, tensors = PACKED[way]
    groups = []
    for group in model.tensors:
        if not group.name.endswith("_proj.weight") or towers.sees(group.name):
            groups.append(group)
            continue
        outputs, inputs = group.shape
        for kind, dtype, shape in tensors:
            sides = [_side(side, inputs, outputs) for side in shape.split(",")]
            name = group.name.removesuffix("weight") + kind
            groups.append(dataclasses.replace(group, name=name, dtype=dtype, shape=tuple(sides)))
    return model._replace(config={**model.config, "quantization_config": config}, tensors=tuple(groups))


HEADS: dict[str, tuple[dict[str, Any], list[tuple[str, str, int]]]] = {
    "medusa": (
        {"medusa_num_heads": 3, "medusa_num_layers": 1},
        [("*.*.linear.weight", "h,h", 3), ("*.*.linear.bias", "h", 3), ("*.*.weight", "v,h", 3)],
    ),
    "medusa-two-blocks": (
        {"medusa_num_heads": 2, "medusa_num_layers": 2},
        [("*.*.linear.weight", "h,h", 4), ("*.*.linear.bias", "h", 4), ("*.*.weight", "v,h", 2)],
    ),
    "medusa-joined": (
        {"medusa_num_heads": 3, "medusa_num_layers": 1},
        [("*.*.linear.weight", "h,h", 3), ("*.*.linear.bias", "h", 3)],
    ),
    "mlp": (
        {"architectures": ["MLPSpeculatorPreTrainedModel"], "model_type": "mlp_speculator", "n_predict": 4},
        [("emb.*.weight", "v,i", 4), ("proj.*.weight", "i,h", 1), ("proj.*.weight", "i,i", 3),
         ("head.*.weight", "v,i", 4), ("ln.*.weight", "i", 4), ("ln.*.bias", "i", 4)],
    ),
    "mlp-tied": (
        {"architectures": ["MLPSpeculatorPreTrainedModel"], "model_type": "mlp_speculator", "n_predict": 4,
         "tie_weights": True, "scale_input": True},
        [("emb.*.weight", "v,i", 1), ("proj.*.weight", "i,h", 1), ("proj.*.weight", "i,i", 1),
         ("head.*.weight", "v,i", 1), ("ln.*.weight", "i", 1), ("ln.*.bias", "i", 1)],
    ),
}  # fmt: skip
"""Speculation heads for a model h wide with v words, an MLP speculator's i wide inside: configuration, and tensors."""
INNER = 3072


def heads_for(model: ModelFacts, which: str) -> Heads:
    """The heads of this name in `HEADS`, of a model's sizes."""
    config, rows = HEADS[which]
    sizes = {"h": families.hidden(model), "v": families.vocab(model), "i": INNER}
    prefix = "speculator." if "n_predict" in config else ""
    tensors = tuple(
        TensorGroup(prefix + name, "F16", tuple(sizes[side] for side in shape.split(",")), count)
        for name, shape, count in rows
    )
    return Heads({**config, "base_model_name_or_path": model.id}, tensors, model.id)


def _side(text: str, inputs: int, outputs: int) -> int:
    """`k/8`, `n*2`, `1`: a side of a stored tensor."""
    size = {"k": inputs, "n": outputs}.get(text[0])
    if size is None:
        return int(text)
    return size * int(text[2:]) if text[1:2] == "*" else size // int(text[2:] or 1)


def setting_of(row: dict[str, Any]) -> Setting:
    """The launch of a row."""
    model = model_of(row["model"])
    if "packed" in row:
        model = _pack(model, row["packed"])
    if "files" in row:
        model = _with_files(model, row["files"])
    if "layers" in row:
        model = _cut(model, row["layers"])
    if "heads" in row:
        model = model._replace(heads=heads_for(model, row["heads"]))
    gpu = gpus.find(OF_CAPABILITY[row.get("compute_capability", "8.0")])
    flags = {"speculate": row["speculate"]} if "speculate" in row else {}
    spec = Spec(
        model=ModelSpec(id=row["model"], quantize=row.get("quantize"), dtype=row.get("dtype")),
        hardware=HardwareSpec(gpu=GpuSpec(name=gpu.name), count=row["num_shard"]),
        tgi=TgiSpec(env={"ATTENTION": row["attention"]}, flags=flags),
    )
    facts = Facts(model, gpu, row["num_shard"], releases.find(row["release"]), "")
    return defaults.resolve(spec, facts, row["num_shard"])


@cache
def compared(index: int) -> Compared:
    """A row of `ROWS` beside what is said of it."""
    row = ROWS[index]
    setting = setting_of(row)
    if not replay.known(setting):
        raise ValueError(f"the replay does not know row {index} of replays.yaml, {row['model']} {row['release']}")
    here = warmup.base(setting)
    tokens = row["max_batch_prefill_tokens"]
    batch = replay.Batch(-(-tokens // row["max_input_tokens"]), tokens, row["max_input_tokens"], row["warmup_blocks"])
    held = sum(part.bytes for part in here.parts if part.name == "flashinfer workspace")
    beyond = max(0, held - sum(replay.WORKSPACE))
    loaded = here.torch - beyond
    block = here.geometry.kv_bytes_per_token * setting.block_size
    outside = here.loaded - loaded

    def amounts(after_load: int, peak: int) -> Amounts:
        return Amounts(after_load, peak, warmup.kv_memory(here, outside + peak) // block)

    slack = forward.loading_slack(setting, here.geometry)
    summed = loaded - here.gaps + slack
    exact = replay.warm_up(setting, here.geometry, replay.loaded(setting), batch)
    return Compared(
        row, setting, block,
        recorded=amounts(row["loaded_reserved"], row.get("peak_reserved", row["loaded_reserved"])),
        said=amounts(loaded, loaded + here.prefills.at(batch).whole),
        exact=amounts(exact.loaded, exact.peak),
        summed=amounts(summed, summed + prefill.Scaled(setting, here.geometry).at(batch).whole),
    )  # fmt: skip
