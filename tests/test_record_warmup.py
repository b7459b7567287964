from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden import Golden
from hypothesis import given
from hypothesis import strategies as st

from tgi_advisor import logs
from tgi_advisor.logs import Phase
from tgi_advisor.units import GiB, MiB

ROOT = Path(__file__).parent.parent
LOGS = sorted((Path(__file__).parent / "data" / "logs").glob("*.log"))
TEXTS = {path.stem: path.read_text("utf-8") for path in LOGS}


def record(*arguments: str, text: str | None = None) -> tuple[int, str, str]:
    command = [sys.executable, "scripts/record_warmup.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=text, env=os.environ)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_log_becomes_a_row(path: Path, golden: Golden) -> None:
    code, out, err = record(str(path.relative_to(ROOT)))
    golden(f"record_warmup/{path.stem}.yaml", f"# exit {code}\n{out}{err}")
    assert "not-for-the-row" not in out + err


def test_what_the_log_does_not_say_may_be_stated() -> None:
    options = (
        "--gpu",
        "a10",
        "--gpu-count",
        "1",
        "--model",
        "acme-labs/Heron-7B-v2",
        "--id",
        "heron",
        "--image",
        "2.0.2",
    )
    code, out, _ = record("-", *options, text=TEXTS["coloured"])
    (row,) = yaml.safe_load(out)
    assert code == 0
    assert (row["id"], row["release"], row["release_basis"]) == ("heron", "2.0.2", "stated")
    assert (row["gpu"], row["gpu_count"], row["model"]) == ("nvidia-a10", 1, "acme-labs/Heron-7B-v2")
    assert row["confidence"] == "high"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no-such.log",), "cannot read no-such.log"),
        (("tests/data/logs/other.log",), "no line of text-generation-inference"),
        (("tests/data/logs/coloured.log", "--gpu", "a10h"), "a10"),
        (("tests/data/logs/coloured.log", "--image", "2.9.9"), "2.9.9"),
    ],
)
def test_what_cannot_be_used_is_said(arguments: tuple[str, ...], says: str) -> None:
    code, out, err = record(*arguments)
    assert code != 0
    assert out == ""
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", TEXTS)
def test_a_log_behind_a_prefix_says_the_same(name: str) -> None:
    prefixed = "\n".join(f"2025-11-21 10:00:00 [pod/tgi-0] {line}" for line in TEXTS[name].splitlines())
    assert logs.start_up(prefixed) == logs.start_up(TEXTS[name])


@pytest.mark.parametrize("name", TEXTS)
def test_a_log_cut_short_says_less_but_nothing_else(name: str) -> None:
    text = TEXTS[name]
    whole = logs.start_up(text)
    for end in range(0, len(text), 211):
        part = logs.start_up(text[:end])
        assert (part.phase or 0) <= (whole.phase or 0)
        assert part.budget is None or str(whole.budget).startswith(str(part.budget))
        assert set(part.arguments) <= set(whole.arguments)


def test_phases_are_told_in_order() -> None:
    seen = [begun for entry in logs.entries(TEXTS["two_shards"]) if (begun := logs.phase(entry))]
    assert seen == sorted(seen)
    assert set(seen) == set(Phase)


def test_memory_outside_the_allocator() -> None:
    newer = logs.start_up(TEXTS["oom_load"]).out_of_memory
    older = logs.start_up(TEXTS["graphs_failed"]).out_of_memory
    assert newer
    assert older
    assert newer.outside == pytest.approx(44.17 * GiB - 43.36 * GiB - 396.27 * MiB, abs=2)
    assert older.outside == pytest.approx(22.20 * GiB - 3.12 * MiB - 20.86 * GiB, abs=2)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 2**32),
    st.floats(0, 1e6, allow_nan=False).map(lambda x: round(x, 3)),
    st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters='"\\\\'), max_size=12),
)
ARGUMENTS = st.dictionaries(
    st.from_regex(r"[a-z][a-z_]{0,15}", fullmatch=True).filter(lambda name: name not in ("api_key", "ngrok_authtoken")),
    st.one_of(SCALARS, st.lists(st.integers(0, 99), max_size=4)),
    max_size=8,
)


@given(ARGUMENTS, st.booleans())
def test_arguments_are_read_as_rust_prints_them(given_arguments: dict[str, Any], pretty: bool) -> None:
    join, end = (",\n    ", ",\n}") if pretty else (", ", " }")
    fields = join.join(f"{name}: {_debug(value, pretty)}" for name, value in given_arguments.items())
    text = ("Args {\n    " if pretty else "Args { ") + fields + (end if fields else "}")
    assert logs.arguments(text) == given_arguments


@given(st.text(max_size=300))
def test_no_text_is_too_strange(text: str) -> None:
    logs.start_up(text)
    logs.start_up(f"2024-05-31T05:54:05.264187Z  INFO text_generation_launcher: Args {{{text}")
    logs.start_up(f'{{"timestamp":{text}')


def test_brackets_without_end_are_no_arguments() -> None:
    assert logs.arguments("Args {a: " + "[" * 100_000) == {}


def _debug(value: Any, pretty: bool) -> str:
    if value is None or isinstance(value, bool):
        return str(value) if value is None else str(value).lower()
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, float):
        text = f"{value:.3f}"
    else:
        text = str(value)
    return f"Some(\n        {text},\n    )" if pretty else f"Some({text})"
