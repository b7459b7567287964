#!/usr/bin/env python3
"""Record what TGI's and transformers' config classes fill in: tgi_advisor/facts/config_defaults.json.

    pip install transformers==4.51.3        # the version TGI pins: server/requirements_cuda.txt at its tag
    python scripts/record_config_defaults.py path/to/text-generation-inference v3.3.7

The first argument is a clone of https://github.com/huggingface/text-generation-inference (bare or not), the
second the tag to read. Torch is not needed. TGI's own config classes are used where its models ask for them.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tgi_advisor.gather.class_defaults import NESTED, TABLE, ConfigClass, describe

MODELING = "server/text_generation_server/models/custom_modeling"
OWN = {
    "falcon": ("flash_rw_modeling.py", "RWConfig"),
    "RefinedWeb": ("flash_rw_modeling.py", "RWConfig"),
    "RefinedWebModel": ("flash_rw_modeling.py", "RWConfig"),
    "dbrx": ("flash_dbrx_modeling.py", "DbrxConfig"),
    "deepseek_v2": ("flash_deepseek_v2_modeling.py", "DeepseekV2Config"),
    "deepseek_v3": ("flash_deepseek_v3_modeling.py", "DeepseekV3Config"),
    "gemma3": ("gemma3/configuration_gemma3.py", "Gemma3Config"),
    "gemma3_text": ("gemma3/configuration_gemma3.py", "Gemma3TextConfig"),
    "idefics": ("idefics_config.py", "IdeficsConfig"),
    "phi": ("flash_phi_modeling.py", "PhiConfig"),
    "phimoe": ("flash_phi_moe_modeling.py", "PhiMoEConfig"),
    "qwen2_5_vl": ("qwen2_5_vl.py", "Qwen2_5_VLConfig"),
}
"""Config classes of TGI itself, where models/__init__.py passes them as `config_class` (or the model loads one)."""

VISION = ("idefics2", "idefics3", "llama4", "llava_next", "mllama", "paligemma", "qwen2_vl")
"""Model types with a vision tower that use transformers' config class."""

NEEDS_PARTS = ("encoder-decoder", "musicgen", "musicgen_melody")
"""Classes that cannot be made without their parts' configurations; TGI serves none of them."""


def own_class(repository: str, tag: str, file: str, name: str) -> Any:
    """TGI's config class `name`, made from the source of `file` at `tag`: its config classes and nothing else."""
    import typing

    from transformers import SiglipVisionConfig
    from transformers.configuration_utils import PretrainedConfig

    shown = ["git", "-C", repository, "show", f"{tag}:{MODELING}/{file}"]
    tree = ast.parse(subprocess.run(shown, capture_output=True, text=True, check=True).stdout)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Config")]
    names: dict[str, Any] = {**vars(typing), "PretrainedConfig": PretrainedConfig, "__name__": "tgi"}
    names |= {"SiglipVisionConfig": SiglipVisionConfig, "rope_config_validation": lambda *_, **__: None}
    names["logger"] = type("Quiet", (), {"__getattr__": lambda *_: lambda *_, **__: None})()
    exec(compile(ast.Module([*classes], []), file, "exec"), names)
    return names[name]


def with_nested(kind: str, cls: Any, source: str, rows: dict[str, ConfigClass]) -> None:
    """Add the row of `cls`, and rows of the classes within it, unless they are there."""
    if kind in rows:
        return
    rows[kind] = describe(cls, f"{source} {cls.__name__}")
    made = cls()
    for name in NESTED:
        child = getattr(made, name, None)
        if name in rows[kind].nested:
            with_nested(rows[kind].nested[name], type(child), source, rows)


def main() -> None:
    """Write the table."""
    repository, tag = sys.argv[1:]
    import transformers
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    rows: dict[str, ConfigClass] = {}
    for kind, (file, name) in OWN.items():
        with_nested(kind, own_class(repository, tag, file, name), f"{MODELING}/{file}@{tag}", rows)
    library = f"transformers {transformers.__version__}"
    for kind in (*VISION, *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        if kind in CONFIG_MAPPING and kind not in NEEDS_PARTS:
            with_nested(kind, CONFIG_MAPPING[kind], library, rows)
    lines = [f"  {json.dumps(kind)}: {json.dumps(rows[kind]._asdict())}" for kind in sorted(rows)]
    TABLE.write_text('{"classes": {\n' + ",\n".join(lines) + "\n}}\n")
    print(f"{len(rows)} classes, {TABLE.stat().st_size:,} bytes in {TABLE}")


if __name__ == "__main__":
    main()
