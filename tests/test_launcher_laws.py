"""Laws of what the launcher is given: predicted, emitted and read back it is the same, however it is written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launch import model

from tgi_advisor import container, lint
from tgi_advisor.errors import SpecError
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.flags import Flag, Unreadable, flags_of, parse_value, render
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.limits import Limits
from tgi_advisor.plan import Container
from tgi_advisor.refusals import launcher_refusals
from tgi_advisor.render import docker_run
from tgi_advisor.spec.reader import read_text
from tgi_advisor.spec.records import ModelSpec, Spec, TgiSpec, flag_homes
from tgi_advisor.validate.effective import Effective, effective
from tgi_advisor.validate.read import read
from tgi_advisor.verdict import predict

fast = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


# what is emitted is what was predicted

WRITTEN: dict[str, tuple[Any, ...]] = {
    "switch": (True, "true", False, "false"),
    "usize": (7, "7", "+7", "007"),
    "u16": (8000, "8000", "+8000"),
    "u32": (4000, "4000", "04000"),
    "u64": (90, "90"),
    "f32": (0.5, "0.5", ".5e0", -2, "-2.0", "inf", "NaN", "1e40"),
    "text": ("a", "a b", "", "-x", "1", "true"),
}
"""Ways to write a value of a flag's type; a choice has its own."""
SIZES = (0, "0", 4, "4", "1,2", (1, 2), ("1", "2"), ("1", 2))


def stated(flag: Flag, turn: int) -> Any:
    """One of the ways to write a value of the flag."""
    ways = SIZES if flag.name == "cuda-graphs" else flag.values or WRITTEN[flag.type]
    return ways[turn % len(ways)]


def emitted(flag: Flag, made: Container) -> str | None:
    """What the emitted server is given for a flag, in the one way it is given: words, or a variable."""
    words = [word.partition("=") for word in made.args]
    values = [
        value or (made.args[at + 1] if flag.type != "switch" else "true")
        for at, (name, _, value) in enumerate(words)
        if name == f"--{flag.name}"
    ]
    if flag.env is not None and flag.env in made.env:
        assert not values
        return made.env[flag.env]
    return ",".join(values) if values else None


OTHER = {tuple(flags_of(one).values()): one for one in releases.all_releases()}
"""The last release of each set of flags there has been."""


@pytest.mark.parametrize("release", OTHER.values(), ids=str)
def test_every_flag_is_predicted_as_it_is_emitted(release: TgiRelease) -> None:
    facts = Facts(model(), gpus.find("nvidia-l4"), 1, release, "")
    mine = {name: flag for name, flag in flags_of(release).items() if name not in flag_homes() and not flag.secret}
    for turn in range(8):
        given = {name: stated(flag, turn) for name, flag in mine.items()}
        spec = Spec(ModelSpec(id="org/model"), tgi=TgiSpec(flags=given))
        held = defaults.resolve(spec, facts).flags
        made = container.build(spec, facts, Limits(), 1)
        for name, flag in mine.items():
            written = render(flag, held[name])  # type: ignore[arg-type]
            joined = emitted(flag, made)
            assert (joined is None) == (written == [])
            if joined is not None:
                again = parse_value(flag, joined.split(",") if flag.many else joined)
                assert repr(again) == repr(held[name])


ANY_FLAGS = st.dictionaries(
    st.sampled_from(["max-batch-size", "speculate", "rope-factor", "json-output", "cuda-graphs", "lora-adapters",
                     "cors-allow-origin", "watermark-delta", "validation-workers", "otlp-service-name"]),
    st.one_of(
        st.booleans(), st.integers(-2, 2**65), st.floats(),
        st.sampled_from(["0", "1", "true", "1,2", "1,", "", "-1", "-x", "+2", "inf", "nan", "1e40", "a b", "a,,b"]),
        st.lists(st.integers(0, 9) | st.sampled_from(["1", "", "x", "a b"]), max_size=3).map(tuple),
    ),
    max_size=5,
)  # fmt: skip
ANY_ENV = st.dictionaries(
    st.sampled_from(["ATTENTION", "PREFIX_CACHING", "USE_PREFIX_CACHING", "TGI_WIGGLE_ROOM", "PREFILL_CHUNKING",
                     "FLASH_DECODING", "ROPE_SCALING", "MAX_BEST_OF", "DISABLE_CUSTOM_KERNELS", "WATERMARK_GAMMA",
                     "REQUEST_LOGPROBS", "USAGE_STATS", "XPU_MEMORY_FRACTION"]),
    st.sampled_from(["", "1", "0", "true", "paged", "nan", "inf", "-inf", "1e400", "0.5", "x", " ", "-1"]),
    max_size=4,
)  # fmt: skip


@fast
@given(
    ANY_FLAGS,
    ANY_ENV,
    st.sampled_from(["1.0.0", "1.4.5", "2.0.4", "2.3.1", "2.4.1", "3.0.1", "3.3.7"]),
    st.sampled_from([("nvidia-l4", ""), ("max-1550", "intel-xpu")]),
)
def test_any_flags_are_refused_or_read_back_from_what_is_emitted(
    flags: dict[str, Any], env: dict[str, str], release: str, card: tuple[str, str]
) -> None:
    spec = Spec(ModelSpec(id="org/model"), tgi=TgiSpec(flags=flags, env=env))
    gpu, variant = card if card[1] in releases.variants(releases.find(release)) else ("nvidia-l4", "")
    facts = Facts(model(), gpus.find(gpu), 1, releases.find(release), variant)
    try:
        setting = defaults.resolve(spec, facts)
    except SpecError:
        return
    prediction = predict(warmup.base(setting), Limits())
    assert prediction.reason is None or prediction.outcome != "starts"
    asked = defaults.launcher_limits(setting, Limits())
    refused = launcher_refusals(setting, Limits(), asked)
    unread = [one for one in refused if one.code in ("unknown-flag", "unparsable-value")]
    try:
        made = container.build(spec, facts, Limits(), 1)
    except SpecError:
        assert unread or any(isinstance(one, str | tuple) for one in flags.values())
        return
    assert not [one for one in unread if one.code == "unknown-flag"]
    view = read_back(docker_run.render(made))
    assert view.slips == ()
    for name, value in setting.flags.items():
        if name != "num-shard" and value is not False:
            assert repr(view.typed(name)) == repr(value)


def read_back(text: str) -> Effective:
    """What the launcher of the one server in a shell script is given."""
    (server,) = read(text, "run.sh").servers
    return effective(server)


# command lines, against clap as it is documented

WORDS = st.sampled_from(
    ["--num-shard", "--max-batch-size", "--revision", "--watermark-delta", "--trust-remote-code", "--json-output",
     "--cuda-graphs", "--cors-allow-origin", "--dtype", "--sharded", "--no-such", "--num-shard=2", "--revision=",
     "--watermark-delta=-2.0", "--json-output=true", "--cuda-graphs=4", "--revision=-x", "--",
     "1", "2", "1,2", "-1", "-2.0", "-x", "-", "", " ", "a b", "float16", "true", "inf", "main"]
)  # fmt: skip


def clap(words: list[str], release: TgiRelease) -> dict[str, Any] | None:
    """The flags of a command line by clap's own rules; None where it stops.

    https://docs.rs/clap: an option takes the next word unless that begins with a dash, `-` alone excepted; `--` ends
    the options, and the launcher has no positional arguments.
    """
    known = flags_of(release)
    held: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return None if left else held
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in known:
            return None
        flag = known[name]
        if flag.type == "switch":
            value = "true"
            if equals:
                return None
        elif not equals:
            if not left or (left[0].startswith("-") and left[0] != "-"):
                return None
            value = left.pop(0)
        if name in held and not flag.many:
            return None
        try:
            got = parse_value(flag, value)
        except Unreadable:
            return None
        held[name] = held.get(name, ()) + got if isinstance(got, tuple) else got
    return held


@settings(fast, max_examples=100)
@given(st.lists(WORDS, max_size=6), st.sampled_from(["1.4.5", "2.0.0", "3.3.7"]))
def test_a_command_line_is_read_as_clap_reads_it(words: list[str], release: str) -> None:
    image = f"ghcr.io/huggingface/text-generation-inference:{release}"
    view = read_back(shlex.join(["docker", "run", image, "--model-id", "gpt2", *words]) + "\n")
    split = words if release == "1.4.5" else [part for word in words for part in word.split()]  # `$@` without quotes
    if view.open_words:  # an empty word may stand for a variable that is not set here: nothing is said
        assert "" in split
        return
    expected = clap(split, releases.find(release))
    wrong = [one for one in view.flags.values() if one.wrong is not None]
    assert (expected is None) == bool(view.slips or wrong)
    if expected is not None:
        mine = {name: one.typed for name, one in view.flags.items() if one.by == "argument" and name != "model-id"}
        assert repr(mine) == repr(expected)


TEXTS = st.sampled_from(
    ["1", "010", "1e3", "true", "~", "null", "- a", "a: b", "#x", "'q'", '"', "a b", "*", "é", "$x"]
)
GIVEN = st.dictionaries(
    st.sampled_from(["otlp-service-name", "otlp-endpoint", "tokenizer-config-path", "lora-adapters"]), TEXTS, min_size=2
)
NUMBERS = st.dictionaries(
    st.sampled_from(["watermark-delta", "rope-factor", "waiting-served-ratio"]),
    st.sampled_from(["2", ".5", "5.", "inf", "NaN", "1e40", "-2.0", "1e3"]),
)


@settings(fast, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(GIVEN, NUMBERS, st.lists(st.sampled_from(["0", "1,2", "+4", "007"]), max_size=2))
def test_what_is_imported_is_emitted_as_it_was(
    tmp_path: Path, texts: dict[str, str], numbers: dict[str, str], sizes: list[str]
) -> None:
    variables = [word for name, text in texts.items() for word in ("-e", f"{name.upper().replace('-', '_')}={text}")]
    words = [f"--{name}={text}" for name, text in numbers.items()] + [f"--cuda-graphs={size}" for size in sizes]
    image = "ghcr.io/huggingface/text-generation-inference:3.3.7"
    line = shlex.join(["docker", "run", *variables, image, "--model-id", "gpt2", *words]) + "\n"
    (tmp_path / "run.sh").write_text(line)
    spec = read_text(lint.import_server(str(tmp_path / "run.sh"), gpu="nvidia-l4"), "spec.yaml")
    facts = Facts(model(), gpus.find("nvidia-l4"), 1, releases.latest(), "")
    before, after = read_back(line), read_back(docker_run.render(container.build(spec, facts, Limits(), 1)))
    names = [*texts, *numbers, *(["cuda-graphs"] if sizes else [])]
    assert [repr(after.typed(name)) for name in names] == [repr(before.typed(name)) for name in names]
