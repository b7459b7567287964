"""What the launcher refuses before anything is downloaded."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tgi_advisor.errors import did_you_mean
from tgi_advisor.estimate.defaults import stated_flags
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import flags, tables
from tgi_advisor.limits import Limits
from tgi_advisor.once import remembered
from tgi_advisor.refusals.rules import Case, Found, Rule, argument, rule
from tgi_advisor.spec.records import flag_homes

PARSER: list[Rule] = []
SHARDS: list[Rule] = []
TOKENS: list[Rule] = []
WORKERS: list[Rule] = []
ARGUMENTS: list[Rule] = []
_U32 = 1 << 32


def in_order(version: tuple[int, int, int]) -> list[Rule]:
    """The launcher's rules behind its parser's; 3.0.0 moved the shard count before the limits (main.rs@v3.0.0:2006)."""
    if version >= (3, 0, 0):
        return [*SHARDS, *TOKENS, *WORKERS, *ARGUMENTS]
    return [*TOKENS, *WORKERS, *SHARDS, *ARGUMENTS]


# ---- the command line parser ----


@rule(PARSER, "launcher", "launcher/src/main.rs@v3.3.7:2040")
def unknown_flag(case: Case) -> Found:
    """This release's launcher does not have the flag."""
    fault = next(iter(_unread(case.setting)), None)
    if fault is None or fault.error is not None:
        return None
    step = f"leave out --{fault.name}, or use a release that has it: `tgi-advisor flags {fault.name}` says which"
    if fault.name not in {**tables.load("flags"), **tables.load("flags_before")}:
        meant = did_you_mean(fault.name, flags.flags_of(case.release))
        step = f"leave out --{fault.name}, which no release has" + (f"; {meant}" if meant else "")
    return f"error: unexpected argument '--{fault.name}' found", (step,)


@rule(PARSER, "launcher", "launcher/src/main.rs@v3.3.7:2040")
def unparsable_value(case: Case) -> Found:
    """The launcher cannot parse a value: switches want exactly `true` or `false` in the environment, numbers digits."""
    found = [(one.path, one.error) for one in _unread(case.setting) if one.error is not None]
    if not found:
        return None
    places = [(case.setting.spec.place(path), error) for path, error in found]
    steps = tuple(f"{place}: {error}" if place else str(error) for place, error in places)
    return found[0][1].printed or str(found[0][1]), steps


class _Fault(NamedTuple):
    """A flag the launcher's parser stops at."""

    name: str
    """The flag."""
    path: str
    """The field of the spec it stands in."""
    error: flags.Unreadable | None
    """What is wrong with its value; None where the release has no such flag."""


@remembered
def _unread(setting: Setting) -> tuple[_Fault, ...]:
    """What the parser stops at in its order: the command line as it stands, then variables as the flags are declared.

    clap_builder/src/parser/parser.rs, get_matches_with and add_env.
    """
    return tuple(_faults(setting))


def _faults(setting: Setting) -> Iterator[_Fault]:
    release = setting.facts.release
    known, stated = flags.flags_of(release), stated_flags(setting.spec)
    for name, value in stated.items():
        got = flags.read(known[name], value) if name in known else None
        if got is None or isinstance(got, flags.Unreadable):
            yield _Fault(name, flag_homes().get(name, f"tgi.flags.{name}"), got)
    for variable, flag in flags.env_index(release).items():
        if variable in setting.env and flag.name not in stated:
            got = flags.read(flag, setting.env[variable], env=True)
            if isinstance(got, flags.Unreadable):
                yield _Fault(flag.name, f"tgi.env.{variable}", got)


# ---- shards ----


@rule(SHARDS, "launcher", "launcher/src/main.rs@v3.3.7:1381")
def sharded_needs_two(case: Case) -> Found:
    """--sharded true asks for at least two shards."""
    setting = case.setting
    if setting.flags.get("sharded") is not True or setting.num_shard > 1:
        return None
    step = "leave out --sharded; --num-shard says it all"
    if "num-shard" in setting.flags:
        return argument("`sharded` is true but `num_shard` <= 1", step)
    names = _DEVICES[: 3 if case.version >= (2, 1, 0) else 2]
    if setting.facts.gpu.system != "cuda" and not any(name in setting.env for name in names):
        return f"panicked: --num-shard and {'/'.join(names)} are not set", (step,)
    only = f"`sharded` is true but only found {setting.num_shard} CUDA devices"
    return f'Error: NotEnoughCUDADevices("{only}")', (step,)


_DEVICES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Where the launcher counts its devices; the last one from 2.1.0 on (launcher/src/main.rs@v3.3.7:1262-1294)."""


@rule(SHARDS, "launcher", "launcher/src/main.rs@v3.3.7:1408")
def num_shard_zero(case: Case) -> Found:
    """There must be a shard."""
    if case.setting.flags.get("num-shard") == 0:
        return argument("`num_shard` cannot be < 1", "set num_shard to 1 or more")
    return None


@rule(SHARDS, "launcher", "launcher/src/main.rs@v3.3.7:2094", since=(2, 1, 0))
def exl2_sharded(case: Case) -> Found:
    """EXL2 weights cannot be split over GPUs."""
    if case.setting.num_shard > 1 and case.setting.flags.get("quantize") == "exl2":
        return argument("Sharding is currently not supported with `exl2` quantization", "use one GPU, or gptq or awq")
    return None


# ---- token limits ----


@rule(TOKENS, "launcher", "launcher/src/main.rs@v3.3.7:2104", since=(2, 0, 0))
def both_input_names(case: Case) -> Found:
    """max_input_length is only the old name of max_input_tokens; TGI takes one of them."""
    held, length = case.setting.flags, case.setting.flags.get("max-input-length")
    stated = case.setting.spec.limits.max_input_tokens.fixed
    tokens = stated if stated is not None else held.get("max-input-tokens")
    if length is None or tokens is None:
        return None
    text = (
        f"Both `max_input_tokens` ({tokens}) and `max_input_length` ({length}) are set. Please define only "
        "`max_input_tokens` as `max_input_length is deprecated for naming consistency."
    )
    return argument(text, "leave out max-input-length")


@rule(TOKENS, "launcher", "launcher/src/main.rs@v1.4.5:1223", until=(1, 4, 5), of_limits=True)
def input_length_not_below_total(case: Case) -> Found:
    """A request must have room for at least one new token."""
    return _input_not_below_total(case, "`max_input_length` must be < `max_total_tokens`")


@rule(TOKENS, "launcher", "launcher/src/main.rs@v2.4.0:1745", since=(2, 0, 0), until=(2, 4, 0), of_limits=True)
def input_tokens_not_below_total(case: Case) -> Found:
    """A request must have room for at least one new token. A limit left out counts with its default, which comes from
    the model and not from the other limit.
    """
    return _input_not_below_total(case, "`max_input_tokens must be < `max_total_tokens`")


@rule(TOKENS, "launcher", "launcher/src/main.rs@v3.3.7:2160", since=(2, 4, 1), of_limits=True)
def input_not_below_total(case: Case) -> Found:
    """A request must have room for at least one new token."""
    asked = case.limits
    text = f"`max_input_tokens`({asked.max_input_tokens}) must be < `max_total_tokens`({asked.max_total_tokens})"
    return _input_not_below_total(case, text)


def _input_not_below_total(case: Case, text: str) -> Found:
    longest, total = case.limits.max_input_tokens, case.limits.max_total_tokens
    if longest is None or total is None or longest < total:
        return None
    both = case.given.max_input_tokens is not None and case.given.max_total_tokens is not None
    filled = "" if both else f" (the one left out became {longest if case.given.max_input_tokens is None else total})"
    return argument(text, f"set max_input_tokens to at most max_total_tokens - 1 = {total - 1}{filled}")


@rule(TOKENS, "launcher", "launcher/src/main.rs@v1.4.5:1228", until=(1, 4, 5), of_limits=True)
def prefill_below_input_length(case: Case) -> Found:
    """One prefill must hold the longest prompt, because these releases do not chunk prefills."""
    return prefill_below_input(case.limits, "max_input_length")


@rule(TOKENS, "launcher", "launcher/src/main.rs@v2.3.1:1702", since=(2, 0, 0), until=(2, 3, 1), of_limits=True)
def prefill_below_input_tokens(case: Case) -> Found:
    """One prefill must hold the longest prompt, because these releases do not chunk prefills."""
    return prefill_below_input(case.limits, "max_input_tokens")


def prefill_below_input(limits: Limits, name: str) -> Found:
    """The check launcher and router share: the longest prompt, as 32 bits, against the prefill budget."""
    longest, prefill = limits.max_input_tokens, limits.max_batch_prefill_tokens
    if longest is None or prefill is None or longest % _U32 <= prefill:
        return None
    return argument(
        f"`max_batch_prefill_tokens` must be >= `{name}`. Given: {prefill} and {longest}",
        f"set max_batch_prefill_tokens to at least {longest}, or max_input_tokens to at most {prefill}",
    )


# ---- everything else ----


@rule(WORKERS, "launcher", "launcher/src/main.rs@v3.3.7:2189")
def no_validation_workers(case: Case) -> Found:
    """The router needs a thread that tokenises requests."""
    if case.setting.flags.get("validation-workers") == 0:
        return argument("`validation_workers` must be > 0", "leave out validation-workers (2 is the default)")
    return None


@rule(ARGUMENTS, "launcher", "launcher/src/main.rs@v2.3.1:1761", until=(2, 3, 1), of_limits=True)
def prefill_above_batch_total(case: Case) -> Found:
    """A given max_batch_total_tokens is checked even where the server ignores it."""
    return _above_batch_total("max_batch_prefill_tokens", case.limits.max_batch_prefill_tokens, case.limits)


@rule(ARGUMENTS, "launcher", "launcher/src/main.rs@v3.3.7:2203", of_limits=True)
def total_above_batch_total(case: Case) -> Found:
    """A given max_batch_total_tokens is checked even where the server ignores it."""
    return _above_batch_total("max_total_tokens", case.limits.max_total_tokens, case.limits)


def _above_batch_total(name: str, value: int | None, limits: Limits) -> Found:
    most = limits.max_batch_total_tokens
    if most is None or value is None or value % _U32 <= most:  # `as u32` drops the upper bits
        return None
    return argument(
        f"`{name}` must be <= `max_batch_total_tokens`. Given: {value} and {most}",
        "leave out max-batch-total-tokens: flash models infer it",
    )


@rule(ARGUMENTS, "launcher", "launcher/src/main.rs@v3.3.7:2213")
def ngrok_incomplete(case: Case) -> Found:
    """ngrok wants its token and its edge (and does not work from 2.1.0 on anyway)."""
    held = case.setting.flags
    if held.get("ngrok") is True:
        for name in ("ngrok-authtoken", "ngrok-edge"):
            if name not in held:
                return argument(f"`{name}` must be set when using ngrok tunneling", "leave out ngrok")
    return None


@rule(ARGUMENTS, "launcher", "launcher/src/main.rs@v3.3.7:2256", since=(2, 3, 1))
def lora_format(case: Case) -> Found:
    """An adapter is written id, id@revision or id=path; it is noticed only after the base model's download.

    Until 3.0.1 an empty entry is refused too, such as the one behind a last comma (@v3.0.1:2175-2193).
    """
    for entry in case.setting.lora_adapters:
        adapter = entry.strip()
        if "=" in entry or (adapter.count("@") <= 1 and (case.version >= (3, 0, 2) or re.fullmatch(_ADAPTER, adapter))):
            continue
        return argument(f"Invalid LoRA adapter format: {adapter}", "write id, id@revision or id=path")
    return None


_ADAPTER = r"[^=@]+(?:@.+)?"
