"""The launcher's flags by release, and the values they take."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor.errors import SpecError
from tgi_advisor.facts import flags, release, tables
from tgi_advisor.facts.flags import Unreadable, env_index, environment, flags_of, parse_value, render

ALL = release.all_releases()
NEWEST = release.latest()
RECORDED = json.loads((Path(__file__).parent / "data" / "flags_by_release.json").read_text("utf-8"))


def flag(name: str, of: str = "3.3.7") -> flags.Flag:
    return flags.find(name, release.find(of))


def test_every_release_has_exactly_the_flags_of_its_launcher() -> None:
    names: set[str] = set()
    assert list(RECORDED) == [each.name for each in ALL]
    for each in ALL:
        row = RECORDED[each.name]
        names = (names | set(row.get("added", ()))) - set(row.get("removed", ()))
        assert len(names) == row["count"]
        assert set(flags_of(each)) == names, each


@pytest.mark.parametrize("of", ALL, ids=str)
def test_every_default_is_a_legal_value_and_goes_back_to_the_launcher(of: release.TgiRelease) -> None:
    for each in flags_of(of).values():
        assert bool(each.values) == (each.type == "choice")
        if each.default is None:
            continue
        value = parse_value(each, each.default)
        words = render(each, value)
        assert words == ([] if each.type == "switch" else [f"--{each.name}", each.default])
        assert parse_value(each, each.default, env=True) == value


def test_the_environment_variable_of_a_flag_is_its_name_in_capitals() -> None:
    for of in ALL:
        index = flags.env_index(of)
        assert set(index) == {name.upper().replace("-", "_") for name in flags_of(of)} - {"ENV"}
        assert not set(index) & set(environment(of))


def test_quantize_accepts_what_the_release_table_says() -> None:
    for of in ALL:
        assert set(flag("quantize", of.name).values) == set(of.quantize)


def test_the_whole_table_is_documented() -> None:
    for name, row in tables.load("flags").items():
        assert row["help"] not in ("", "TODO")
        assert re.fullmatch(r"launcher/src/main\.rs@v\d+\.\d+\.\d+:\d+", row["source"]), name
        for since in (*row.get("changes", ()), *row.get("effective", ())):
            assert release.version(row["since"]) <= release.find(since).version
    for name, row in tables.load("env").items():
        assert row["meaning"].endswith("."), name
        assert "@v" in row["source"] or row["source"].startswith("https://"), name
        for since in (row["since"], *row.get("default", ())):
            assert str(release.find(since)) == since


def test_secrets_are_marked() -> None:
    assert {name for name, each in flags_of(NEWEST).items() if each.secret} == {"api-key", "ngrok-authtoken"}
    secret = {name for name, each in environment(NEWEST).items() if each.secret}
    assert secret == {"HF_TOKEN", "HF_API_TOKEN", "HUGGING_FACE_HUB_TOKEN"}


def test_defaults_and_rules_follow_the_release() -> None:
    assert flag("max-total-tokens", "1.4.5").default == "2048"
    assert flag("max-total-tokens", "2.0.0").default is None
    assert flag("waiting-served-ratio", "2.0.1").default == "1.2"
    assert flag("waiting-served-ratio", "2.0.2").default == "0.3"
    assert flag("max-input-length", "1.4.5").same_as is None
    assert flag("max-input-length", "2.0.0").same_as == "max-input-tokens"
    assert flag("num-shard", "3.3.6").effective != flag("num-shard", "3.3.7").effective
    assert environment(release.find("2.4.1"))["TGI_WIGGLE_ROOM"].default == "0.90"
    assert "TGI_WIGGLE_ROOM" not in environment(release.find("2.2.0"))
    assert "USE_PREFIX_CACHING" not in environment(release.find("2.4.0"))


@pytest.mark.parametrize("of", [each for each in ALL if each.wiggle_env], ids=str)
def test_the_two_tables_agree_on_the_wiggle_room(of: release.TgiRelease) -> None:
    default = environment(of)["TGI_WIGGLE_ROOM"].default
    assert default is not None
    assert float(default) == of.wiggle


@pytest.mark.parametrize(
    ("name", "of", "message"),
    [
        (
            "max-batch-sise",
            "3.3.7",
            "the launcher has no flag '--max-batch-sise'\ndid you mean 'max-batch-size' or 'max-client-batch-size'?",
        ),
        (
            "kv-cache-dtype",
            "2.3.1",
            "TGI 2.3.1 has no flag '--kv-cache-dtype': it came with 2.4.0\nleave it out, or use release 2.4.0 or newer",
        ),
        (
            "enable-cuda-graphs",
            "2.0.0",
            "TGI 2.0.0 has no flag '--enable-cuda-graphs': 1.4.5 was the last release that had it\n"
            "did you mean 'cuda-graphs'?",
        ),
        ("zzz", "1.0.0", "the launcher has no flag '--zzz'\n`tgi-advisor flags --release 1.0.0` lists them"),
    ],
)
def test_a_flag_that_is_not_there_says_why(name: str, of: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        flag(name, of)
    assert str(caught.value) == message


def test_underscores_are_not_dashes() -> None:
    with pytest.raises(SpecError, match="did you mean 'max-input-tokens'"):
        flag("max_input_tokens")


@pytest.mark.parametrize(
    ("name", "given", "value", "words"),
    [
        ("trust-remote-code", True, True, ["--trust-remote-code"]),
        ("trust-remote-code", "true", True, ["--trust-remote-code"]),
        ("trust-remote-code", False, False, []),
        ("sharded", True, True, ["--sharded", "true"]),
        ("sharded", "false", False, ["--sharded", "false"]),
        ("max-batch-size", 4, 4, ["--max-batch-size", "4"]),
        ("max-batch-size", "+4", 4, ["--max-batch-size", "4"]),
        ("max-batch-size", 2**64 - 1, 2**64 - 1, ["--max-batch-size", "18446744073709551615"]),
        ("max-batch-prefill-tokens", "4294967295", 4294967295, ["--max-batch-prefill-tokens", "4294967295"]),
        ("port", 65535, 65535, ["--port", "65535"]),
        ("cuda-memory-fraction", "0.9", 0.9, ["--cuda-memory-fraction", "0.9"]),
        ("cuda-memory-fraction", ".5e0", 0.5, ["--cuda-memory-fraction", "0.5"]),
        ("cuda-memory-fraction", 1, 1.0, ["--cuda-memory-fraction", "1.0"]),
        ("watermark-delta", -0.5, -0.5, ["--watermark-delta=-0.5"]),
        ("watermark-delta", "-InF", -math.inf, ["--watermark-delta=-inf"]),
        ("watermark-gamma", "1e40", math.inf, ["--watermark-gamma", "inf"]),
        ("watermark-gamma", 10**400, math.inf, ["--watermark-gamma", "inf"]),
        ("quantize", "bitsandbytes-nf4", "bitsandbytes-nf4", ["--quantize", "bitsandbytes-nf4"]),
        ("kv-cache-dtype", "fp8_e5m2", "fp8_e5m2", ["--kv-cache-dtype", "fp8_e5m2"]),
        ("cuda-graphs", "1,2,4", (1, 2, 4), ["--cuda-graphs", "1,2,4"]),
        ("cuda-graphs", [1, 2], (1, 2), ["--cuda-graphs", "1,2"]),
        ("cuda-graphs", 0, (0,), ["--cuda-graphs", "0"]),
        ("cors-allow-origin", "https://a,b", ("https://a,b",), ["--cors-allow-origin", "https://a,b"]),
        ("cors-allow-origin", ["a", "b"], ("a", "b"), ["--cors-allow-origin", "a", "--cors-allow-origin", "b"]),
        ("revision", "", "", ["--revision", ""]),
        ("revision", "--port", "--port", ["--revision=--port"]),
    ],
)
def test_a_value_is_read_as_the_launcher_reads_it(name: str, given: object, value: object, words: list[str]) -> None:
    read = parse_value(flag(name), given)
    assert (read, type(read)) == (value, type(value))
    assert render(flag(name), read) == words
    assert parse_value(flag(name), read) == read


USIZE = "a whole number from 0 to 18446744073709551615"
BAD: list[tuple[str, object, str]] = [
    ("trust-remote-code", "1", "--trust-remote-code: expected exactly true or false, got '1'"),
    ("trust-remote-code", "True", "--trust-remote-code: expected exactly true or false, got 'True'"),
    ("trust-remote-code", 1, "--trust-remote-code: expected exactly true or false, got 1"),
    ("sharded", None, "--sharded: expected exactly true or false, got None"),
    ("max-batch-size", -1, f"--max-batch-size: expected {USIZE}, got -1"),
    ("max-batch-size", "1_000", f"--max-batch-size: expected {USIZE}, got '1_000'"),
    ("max-batch-size", "８", f"--max-batch-size: expected {USIZE}, got '８'"),
    ("max-batch-size", True, f"--max-batch-size: expected {USIZE}, got True"),
    ("max-batch-size", 4.0, f"--max-batch-size: expected {USIZE}, got 4.0"),
    ("max-top-n-tokens", 2**32, "--max-top-n-tokens: expected a whole number from 0 to 4294967295, got 4294967296"),
    ("port", 65536, "--port: expected a whole number from 0 to 65535, got 65536"),
    ("cuda-memory-fraction", "nan(1)", "--cuda-memory-fraction: expected a number such as 0.9, got 'nan(1)'"),
    ("cuda-memory-fraction", "90%", "--cuda-memory-fraction: expected a number such as 0.9, got '90%'"),
    ("cuda-memory-fraction", True, "--cuda-memory-fraction: expected a number such as 0.9, got True"),
    ("rope-scaling", "Linear", "--rope-scaling: expected 'linear' or 'dynamic', got 'Linear'; did you mean 'linear'?"),
    ("dtype", ["float16"], "--dtype: expected 'float16' or 'bfloat16', got ['float16']"),
    ("cuda-graphs", "1, 2", f"--cuda-graphs: expected {USIZE}, got ' 2'"),
    ("cuda-graphs", "", f"--cuda-graphs: expected {USIZE}, got ''"),
    ("cuda-graphs", [], "--cuda-graphs: at least one value is needed (0 for none)"),
    ("revision", 123, "--revision: expected text, got 123; put it in quotes"),
    ("revision", "a\0b", "--revision: a value cannot contain a NUL character"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "message"), BAD)
def test_what_the_launcher_would_not_read_is_refused(name: str, given: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^--{name}: ") as caught:
        parse_value(flag(name), given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("max-batch-size", "-1", "invalid digit found in string"),
        ("max-batch-size", "+", "invalid digit found in string"),
        ("max-batch-size", 2**64, "number too large to fit in target type"),
        ("max-batch-size", "", "cannot parse integer from empty string"),
        ("port", "65536", "65536 is not in 0..=65535"),
        ("port", "-01", "-1 is not in 0..=65535"),
        ("port", "9" * 30, "number too large to fit in target type"),
        ("max-top-n-tokens", "-" + "9" * 30, "number too small to fit in target type"),
        ("rope-factor", "1,5", "invalid float literal"),
        ("rope-factor", "", "cannot parse float from empty string"),
    ],
)
def test_a_number_is_refused_in_the_parsers_words(name: str, given: object, why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse_value(flag(name), given)
    assert caught.value.printed == f"error: invalid value '{given}' for '--{name} <{flag(name).env}>': {why}"


@pytest.mark.parametrize(
    ("name", "text", "printed"),
    [
        ("dtype", "float32", "error: invalid value 'float32' for '--dtype <DTYPE>'"),
        ("dtype", "", "error: a value is required for '--dtype <DTYPE>' but none was supplied"),
        ("sharded", "yes", "error: invalid value 'yes' for '--sharded <SHARDED>'"),
        ("json-output", "1", "error: invalid value '1' for '--json-output'"),
        ("json-output", "", "error: a value is required for '--json-output' but none was supplied"),
        ("cuda-graphs", "1,x,y", "error: invalid value 'x' for '--cuda-graphs <CUDA_GRAPHS>': "
         "invalid digit found in string"),
    ],
)  # fmt: skip
def test_a_variable_is_refused_in_the_parsers_words(name: str, text: str, printed: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse_value(flag(name), text, env=True)
    assert caught.value.printed == printed


@pytest.mark.parametrize(
    ("name", "given"),
    [("json-output", 1), ("json-output", "yes"), ("dtype", ["a"]), ("revision", 1), ("cuda-graphs", [])],
)
def test_what_is_no_word_of_a_command_line_has_no_words_of_the_parser(name: str, given: object) -> None:
    with pytest.raises(Unreadable) as caught:
        parse_value(flag(name), given)
    assert caught.value.printed is None


def test_variables_are_read_as_the_flags_are_declared() -> None:
    lines = [int(one.source.rpartition(":")[2]) for one in env_index(NEWEST).values()]
    assert lines == sorted(lines)
    assert list(env_index(NEWEST))[:2] == ["MODEL_ID", "REVISION"]


@pytest.mark.parametrize(
    "name", ["max-batch-size", "trust-remote-code", "dtype", "cuda-memory-fraction", "cuda-graphs"]
)
def test_an_empty_environment_variable_is_refused_by_its_own_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag(name).env}: expected .* got ''"):
        parse_value(flag(name), "", env=True)


@pytest.mark.parametrize(
    ("value", "first"),
    [("gptq", "1.0.0"), ("bitsandbytes-nf4", "1.0.1"), ("awq", "1.1.0"), ("fp8", "2.0.0"), ("marlin", "2.1.0"),
     ("compressed-tensors", "2.4.1")],
)  # fmt: skip
def test_a_quantization_is_legal_from_its_first_release_on(value: str, first: str) -> None:
    for of in ALL:
        if of.version >= release.version(first):
            assert parse_value(flag("quantize", of.name), value) == value
        else:
            with pytest.raises(ValueError, match="--quantize: expected"):
                parse_value(flag("quantize", of.name), value)


ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers() | st.text(), max_size=3)
)


@given(
    st.sampled_from(sorted(flags_of(NEWEST))), ANY | st.sampled_from([10**5000, "9" * 5000, [10**5000]]), st.booleans()
)
def test_any_value_is_read_or_refused_in_one_short_sentence(name: str, value: Any, env: bool) -> None:
    each = flag(name)
    try:
        read = parse_value(each, value, env=env)
    except ValueError as error:
        sentence = str(error)
    else:
        assert all(isinstance(word, str) and "\0" not in word for word in render(each, read))
        assert repr(parse_value(each, read)) == repr(read)  # nan is nan
        return
    assert sentence.startswith((f"{each.env}: ", f"--{name}: "))
    assert len(sentence) < 400


LAUNCHER = """\
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {{
    /// A comment, with a comma
    #[allow(deprecated)]
    PlainNf4,
    #[clap(name = "b_16")]
    B16,
}}

#[derive(Parser, Debug)]
struct Args {{
    /// Help text.
    #[clap(default_value = "a/b", long, env)]
    model_id: String,

    #[clap(long, env, value_enum)]
    kind: Option<Kind>,

    #[clap(long, env, value_delimiter = ',')]
    sizes: Option<Vec<usize>>,

    #[clap(default_value = "{port}", long, short, env)]
    port: u16,

    #[clap(long, short, action)]
    env: bool,
{more}}}
"""


@pytest.fixture(scope="module")
def refresh() -> ModuleType:
    path = Path(__file__).parent.parent / "scripts" / "refresh_flags.py"
    spec = importlib.util.spec_from_file_location("refresh_flags", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_refresh_script_reads_the_launcher(refresh: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    more = "\n    #[clap(long, env)]\n    old: bool,\n"
    sources = {
        "v1.0.0": LAUNCHER.format(port=3000, more=more),
        "v1.10.0": LAUNCHER.format(port=80, more=""),
        "v1.9.0": LAUNCHER.format(port=80, more=more),
    }

    def git(checkout: Path, *words: str) -> str:
        return "v0.9.0 " + " ".join(sources) if words[0] == "tag" else sources[words[1].partition(":")[0]]

    monkeypatch.setattr(refresh, "git", git)
    rows = refresh.merged(refresh.facts(Path(), refresh.tags(Path())[1:]), {"port": {"help": "By hand.", "type": "u8"}})
    assert (
        "".join(refresh.block(name, row) for name, row in sorted(rows.items()))
        == """\
env:
  help: "TODO"
  env: null
  short: "e"
  type: "switch"
  since: "1.0.0"
  source: "launcher/src/main.rs@v1.10.0:26"
kind:
  help: "TODO"
  env: "KIND"
  type: "choice"
  optional: true
  values: ["plain-nf4", "b_16"]
  since: "1.0.0"
  source: "launcher/src/main.rs@v1.10.0:17"
model-id:
  help: "TODO"
  env: "MODEL_ID"
  type: "text"
  default: "a/b"
  since: "1.0.0"
  source: "launcher/src/main.rs@v1.10.0:14"
old:
  help: "TODO"
  env: "OLD"
  type: "switch"
  since: "1.0.0"
  until: "1.9.0"
  source: "launcher/src/main.rs@v1.9.0:29"
port:
  help: "By hand."
  env: "PORT"
  short: "p"
  type: "u16"
  default: "3000"
  since: "1.0.0"
  changes:
    "1.9.0": {default: "80"}
  source: "launcher/src/main.rs@v1.10.0:23"
sizes:
  help: "TODO"
  env: "SIZES"
  type: "usize"
  many: true
  delimiter: ","
  optional: true
  since: "1.0.0"
  source: "launcher/src/main.rs@v1.10.0:20"
"""
    )


def test_the_flag_table_is_laid_out_as_the_script_writes_it(refresh: ModuleType) -> None:
    rows = tables.load("flags")
    text = refresh.HEAD + "".join(refresh.block(name, row) for name, row in rows.items())
    assert text == (tables.FOLDER / "flags.yaml").read_text("utf-8")
