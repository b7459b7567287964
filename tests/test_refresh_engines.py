"""`scripts/refresh_engines.py`: what it reads of a wheel, without importing anything of it."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tgi_advisor.engines import facts

ROOT = Path(__file__).parent.parent


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refresh_engines", ROOT / "scripts" / "refresh_engines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["refresh_engines"] = module
    spec.loader.exec_module(module)
    return module


refresh = _script()

VLLM = {
    "vllm/config/cache.py": """
CacheDType = Literal["auto", "fp8"]
class CacheConfig:
    block_size: int = 16
    dtype: CacheDType = "auto"
    loose: CacheDType | str = "auto"
    eager: bool = False
    hint: bool | str | None = None
    sizes: list[int] | None = None
""",
    "vllm/engine/arg_utils.py": """
import torch_that_is_not_there
class EngineArgs:
    def add_cli_args(parser):
        cache_kwargs = get_kwargs(CacheConfig)
        group = parser.add_argument_group(title="x")
        group.add_argument("--block-size", "-b", **cache_kwargs["block_size"])
        group.add_argument("--dtype", **{**cache_kwargs["dtype"], "default": None})
        group.add_argument("--loose", **cache_kwargs["loose"])
        group.add_argument("--eager", **cache_kwargs["eager"])
        group.add_argument("--hint", **cache_kwargs["hint"])
        group.add_argument("--sizes", **cache_kwargs["sizes"])
        parser.add_argument("--quick", action="store_true")
        parser.add_argument("--pick", choices=["b", "a"])
""",
    "vllm/entrypoints/common/cli_args.py": """
class BaseFrontendArgs:
    chat_template: str | None = None
class FrontendArgs(BaseFrontendArgs):
    port: int = 8000
    allowed_origins: list[str] = []
""",
    "vllm/model_executor/models/registry.py": """
_TEXT_GENERATION_MODELS = {"AForCausalLM": ("a", "A"), "OldForCausalLM": ("o", "O")}
_MULTIMODAL_MODELS = {"BForConditionalGeneration": ("b", "B")}
_TRANSFORMERS_SUPPORTED_MODELS = {"CForCausalLM": ("transformers", "T")}
_PREVIOUSLY_SUPPORTED_MODELS = {"OldForCausalLM": "0.9.0"}
""",
}

SGLANG = {
    "sglang/srt/arg_groups/choices.py": 'WORDS = ["x", "y"]\n',
    "sglang/srt/arg_groups/fields/model.py": """
class Model:
    model_path: A[str, Arg(help="h", aliases=["--model"])]
    dtype: A[str, Arg(help="h", choices=["auto"] + WORDS)] = "auto"
    quiet: A[Optional[bool], "help"] = None
    paths: A[Optional[List[str]], Arg(help="h", nargs="*")] = None
    hidden: A[int, Arg(help="h", no_cli=True)] = 1
    tp_size: A[int, Arg(help="h", cli_name="--tensor-parallel-size", aliases=["--tp-size"])] = 1
    made: A[int, Derived("d")]
    plain: int = 3
""",
    "sglang/srt/server_args.py": """
class ServerArgs:
    def add_cli_args(parser):
        parser.add_argument("--tool-call-parser", type=str, choices=names())
        parser.add_argument("--old", action=DeprecatedStoreTrueAction)
""",
    "sglang/srt/models/a.py": "EntryClass = [AForCausalLM, BForCausalLM]\n",
    "sglang/srt/models/c.py": "EntryClass = CForCausalLM\n",
}


def wheel(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_vllm(tmp_path: Path) -> None:
    table = json.loads(refresh.written("vllm", "0.0.1", wheel(tmp_path / "vllm.whl", VLLM)))
    kinds = {name: (row["kind"], row.get("choices"), row.get("known")) for name, row in table["flags"].items()}
    assert kinds == {
        "--allowed-origins": ("value", None, None), "--block-size": ("value", None, None),
        "--chat-template": ("value", None, None), "--dtype": ("value", ["auto", "fp8"], None),
        "--eager": ("boolean", None, None), "--hint": ("optional", None, None),
        "--loose": ("value", None, ["auto", "fp8"]), "--pick": ("value", ["a", "b"], None),
        "--port": ("value", None, None), "--quick": ("switch", None, None), "--sizes": ("values", None, None),
    }  # fmt: skip
    assert table["flags"]["--block-size"]["source"] == "vllm/config/cache.py:4"
    assert table["architectures"] == ["AForCausalLM", "BForConditionalGeneration", "CForCausalLM"]
    assert table["removed"] == {"OldForCausalLM": "0.9.0"}


def test_sglang(tmp_path: Path) -> None:
    table = json.loads(refresh.written("sglang", "0.0.1", wheel(tmp_path / "sglang.whl", SGLANG)))
    kinds = {name: (row["kind"], row.get("choices")) for name, row in table["flags"].items()}
    assert kinds == {
        "--dtype": ("value", ["auto", "x", "y"]), "--model": ("value", None), "--model-path": ("value", None),
        "--old": ("switch", None), "--paths": ("values", None), "--quiet": ("switch", None),
        "--tensor-parallel-size": ("value", None), "--tool-call-parser": ("value", None), "--tp-size": ("value", None),
    }  # fmt: skip
    assert table["architectures"] == ["AForCausalLM", "BForCausalLM", "CForCausalLM"]


def test_a_flag_made_in_another_way_ends_the_run(tmp_path: Path) -> None:
    odd = VLLM["vllm/engine/arg_utils.py"] + '        parser.add_argument("--odd", **somewhere_else)\n'
    with pytest.raises(SystemExit, match="nowhere known"):
        refresh.written("vllm", "0.0.1", wheel(tmp_path / "vllm.whl", {**VLLM, "vllm/engine/arg_utils.py": odd}))


@pytest.mark.parametrize("name", facts.names())
def test_tables_are_as_the_script_writes_them(name: str) -> None:
    for path in facts.wheel_tables(name):
        text = path.read_text("utf-8")
        assert text == refresh._lines(json.loads(text)), f"{path.name} was changed by hand"
