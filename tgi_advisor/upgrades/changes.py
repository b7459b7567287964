"""What is otherwise in another release: limits, what TGI picks by itself, flags and variables, and what lies around.

Everything is read from the tables of releases, flags, variables, images and changes; nothing is said of what the
deployment does not use.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from tgi_advisor.estimate import defaults
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import changes as facts
from tgi_advisor.facts import flags
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.flags import Flag
from tgi_advisor.facts.release import TgiRelease
from tgi_advisor.units import gib, thousands
from tgi_advisor.upgrades.memory import reserve
from tgi_advisor.upgrades.records import Change, Side, Surroundings

LIMITS = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens", "max_batch_total_tokens")


def changes(before: Side, after: Side, around: Surroundings) -> tuple[Change, ...]:
    """Everything that is otherwise for a deployment, in the order people read it."""
    return (
        *_limits(before, after),
        *_engine(before, after),
        *_flags(before, after, around),
        *_variables(before, after),
        *_came(before, after, around),
        *_image(before, after, around),
        *_around(before, after, around),
    )


def _limits(before: Side, after: Side) -> Iterator[Change]:
    """The limits of the started servers."""
    for name in LIMITS:
        was, now = (getattr(side.prediction.limits, name) for side in (before, after))
        if was == now or not (before.starts and after.starts):
            continue
        stated = getattr(before.given, name) is not None
        yield Change("limit", name, _count(was), _count(now), _why_limit(name, stated, after), source=_of(name, after))


def _count(value: int | None) -> str:
    return "-" if value is None else thousands(value)


def _why_limit(name: str, stated: bool, after: Side) -> str:
    if name == "max_batch_total_tokens":
        return "what the warm-up leaves for the KV cache"
    if stated:
        return "it is stated, and comes out otherwise"
    return f"nobody states it: TGI {after.release} takes {_default(name, after)}"


def _default(name: str, after: Side) -> str:
    """What a release makes of a limit that is left out, in words."""
    release = after.release
    if name == "max_batch_prefill_tokens":
        return _PREFILLS[release.prefill_default]
    if release.limits_default == "1024_2048":
        return "1,024" if name == "max_input_tokens" else "2,048"
    if name == "max_input_tokens":
        return "one token less than the longest request"
    if release.limits_default == "context_4096":
        return "the model's context, at most 4,096"
    return "the KV cache, at most the model's context" if after.setting.chunking else "max_batch_prefill_tokens"


_PREFILLS = {
    "4096": "4,096", "max_input_plus_50": "max_input_tokens and 50 more", "context_4096": "the context, at most 4,096",
    "compute": "what GPU and model are said to compute at once, else 4,096",
}  # fmt: skip
"""What becomes of max_batch_prefill_tokens, by `TgiRelease.prefill_default`."""


def _of(name: str, after: Side) -> str:
    flag = flags.flags_of(after.release).get(name.replace("_", "-"))
    return flags.cited(flag, after.release) if flag is not None else ""


class _Pick(NamedTuple):
    """One thing TGI picks by itself."""

    name: str
    """What it is called."""
    told: Callable[[Setting], str]
    """What it is, in words."""
    why: str
    """When TGI picks otherwise."""
    field: str = ""
    """The field of the release it is read from; empty where `source` says it."""
    source: str = ""
    """Where it was read."""


def _yes(value: bool) -> str:
    return "on" if value else "off"


PICKS = (
    _Pick(
        "num_shard", lambda one: str(one.num_shard),
        "nobody states --num-shard, and `all` GPUs count as one until 3.3.6, as all of them from 3.3.7 on",
        "all_gpus_counts_one",
    ),
    _Pick(
        "dtype", lambda one: one.dtype, "the class that serves the model has another default",
        source="server/text_generation_server/models/__init__.py@v3.3.7:472",
    ),
    _Pick(
        "quantize", lambda one: one.quantize or "none",
        "which checkpoints say by themselves how they are quantized differs by release",
        source="server/text_generation_server/models/__init__.py@v3.3.7:446",
    ),
    _Pick(
        "kv_cache_dtype", lambda one: one.kv_dtype, "the KV cache has the model's dtype, or what its checkpoint asks",
        source="server/text_generation_server/models/__init__.py@v3.3.7:493",
    ),
    _Pick(
        "attention", lambda one: one.attention,
        "from 2.3.0 on the launcher picks it: flashinfer where it has the head size, else flashdecoding or paged",
        source="launcher/src/main.rs@v3.3.7:131",
    ),
    _Pick(
        "block_size", lambda one: f"{one.block_size} tokens", "KV blocks are those of the attention back end",
        source="server/text_generation_server/models/globals.py@v3.3.7:37",
    ),
    _Pick(
        "prefix_caching", lambda one: _yes(one.prefix_caching),
        "from 2.3.0 on beginnings that requests share are kept, unless model, adapters or attention forbid it",
        source="launcher/src/main.rs@v3.3.7:131",
    ),
    _Pick(
        "prefill_chunking", lambda one: _yes(one.chunking),
        "from 3.0.0 on prompts are prefilled in chunks, those of most vision models from 3.3.0 on", "chunking",
    ),
    _Pick(
        "reserve", reserve, "TGI_WIGGLE_ROOM, a share of what is free until 2.4.1, of the whole GPU from 3.0.0 on",
        "wiggle",
    ),
    _Pick(
        "prefill_logits", lambda one: "every token" if one.prefill_logprobs else "last token",
        "from 3.0.0 on logits of every prompt token are made only with --enable-prefill-logprobs", "prefill_logits",
    ),
    _Pick(
        "cuda_graphs", lambda one: ", ".join(map(str, sorted(one.graph_sizes))) or "none",
        "behind --enable-cuda-graphs in 1.4.1 to 1.4.5, captured by default from 2.0.0 on", "cuda_graphs",
    ),
)  # fmt: skip
"""What TGI picks by itself, apart from the limits."""


_UNSERVED = ("unsupported-model-type", "automodel-sharded")
"""Refusals of a release that does not know the model."""


def _engine(before: Side, after: Side) -> Iterator[Change]:
    if any(one.code in _UNSERVED for side in (before, after) for one in side.prediction.refusals):
        return  # a release that does not know the model picks nothing for it
    for pick in PICKS:
        was, now = pick.told(before.setting), pick.told(after.setting)
        if was != now:
            source = pick.source or releases.sources(after.release).get(pick.field, "")
            yield Change("engine", pick.name, was, now, pick.why, source=source)


# ---- flags and variables


def stated(side: Side) -> Mapping[str, object]:
    """Every flag a spec states, the limits among them, as written."""
    limits = {
        name.replace("_", "-"): value
        for name, value in side.given._asdict().items()
        if value is not None and (name == "max_batch_total_tokens" or _pinned(side, name))
    }
    return {**defaults.stated_flags(side.spec), **limits}


def _pinned(side: Side, name: str) -> bool:
    return getattr(side.spec.limits, name).fixed is not None


def _known(side: Side, around: Surroundings) -> Mapping[str, Flag]:
    return around.flags if around.flags is not None else flags.flags_of(side.release)


def _flags(before: Side, after: Side, around: Surroundings) -> Iterator[Change]:
    """The flags that are stated, where the new release takes them otherwise."""
    old, there = _known(before, around), flags.flags_of(after.release)
    chunked = after.setting.chunking and not before.setting.chunking
    for name, value in stated(before).items():
        said, flag, follows = f"--{name}", there.get(name), facts.instead(name)
        text = _word(value)
        if flag is None:
            if name == "max-input-tokens" and "max-input-length" in there:
                if "max-input-tokens" not in old:  # the spec's name of what is --max-input-length in both
                    continue
                why = f"TGI {after.name} calls it --max-input-length"
                yield Change(
                    "flag", said, text, "renamed", why, "--max-input-length", _first(there, "max-input-length")
                )
                continue
            why = f"TGI {after.name} has no such flag, and stops" + (f"; {follows.why}" if follows else "")
            yield Change("flag", said, text, "refused", why, _instead(follows, text, there), _source(name))
            continue
        read = flags.read(flag, value)
        if isinstance(read, flags.Unreadable):
            yield Change("flag", said, text, "refused", str(read), "", flags.cited(flag, after.release))
        elif name == "max-input-tokens" and name not in old:
            told = facts.instead("max-input-length")
            why = told.why if told else ""
            yield Change("flag", "--max-input-length", text, "renamed", why, said, flag.source)
        elif name in _UNUSED and chunked:
            why = "prefills are chunked, and nothing waits for a whole one"
            yield Change("flag", said, text, "ignored", why, "", "backends/v3/src/backend.rs@v3.3.7:39")
        elif name == "ngrok" and before.release.version < (2, 1, 0) <= after.release.version:
            yield Change(
                "flag", said, text, "refused", "the router panics with it from 2.1.0 on", "leave it out", flag.source
            )
    for words in around.refused:
        yield Change("flag", words, words, "refused", f"TGI {after.name} does not take it, and stops", "leave it out")


_UNUSED = ("max-waiting-tokens", "waiting-served-ratio")
"""Flags that nothing reads where prefills are chunked (backends/v3/src/backend.rs@v3.3.7)."""


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _instead(follows: facts.Instead | None, text: str, there: Mapping[str, Flag]) -> str:
    if follows is None or not follows.to:
        return "leave it out"
    return f"--{follows.to} {follows.value or text}" if follows.to in there else "leave it out"


def _first(known: Mapping[str, Flag], name: str) -> str:
    return known[name].source if name in known else ""


def _source(name: str) -> str:
    """Where a flag was declared last."""
    return next((row[name].source for row in map(flags.flags_of, reversed(releases.all_releases())) if name in row), "")


def _variables(before: Side, after: Side) -> Iterator[Change]:
    """The variables that are stated, where only one of the two releases reads them."""
    for name, text in before.spec.tgi.env.items():
        was, now = reads(before.release, name), reads(after.release, name)
        if was == now:
            continue
        follows = facts.instead(name)
        if now:
            why = f"TGI {before.name} does not read it, TGI {after.name} does: from now on it counts"
            yield Change("variable", name, "ignored", "read", why, "leave it out unless it is meant", now)
        else:
            to = follows.to if follows and reads(after.release, follows.to) else ""
            why = follows.why if follows and (to or not follows.to) else f"TGI {after.name} does not read it"
            step = f"{to}={(follows.value if follows else None) or text}" if to else "leave it out"
            yield Change("variable", name, text, "renamed" if to else "ignored", why, step, was)


def reads(release: TgiRelease, name: str) -> str:
    """Where a release reads a variable, its flags' among them; empty where it does not."""
    flag = flags.env_index(release).get(name)
    if flag is not None:
        return flags.cited(flag, release)
    variable = flags.environment(release).get(name)
    return variable.source if variable is not None else ""


def _came(before: Side, after: Side, around: Surroundings) -> Iterator[Change]:
    """The flags that only one of the two has and nobody states, in a line each way; and defaults that are others."""
    old, new, given = _known(before, around), flags.flags_of(after.release), stated(before)
    for names, word in (([n for n in new if n not in old], "new"), ([n for n in old if n not in new], "gone")):
        if left := [f"--{name}" for name in names if name not in given]:
            why = f"flags TGI {after.name} has and {before.name} has not" if word == "new" else (
                f"flags TGI {before.name} has and {after.name} has not")  # fmt: skip
            yield Change("flag", ", ".join(left), "" if word == "new" else "known", word, why)
    for name, was, now in other_defaults(old, new):
        if name not in given and new[name].env not in before.spec.tgi.env:
            why = "nobody states it, and its default is another"
            yield Change("flag", f"--{name}", was, now, why, "", flags.cited(new[name], after.release))


def other_defaults(old: Mapping[str, Flag], new: Mapping[str, Flag]) -> Iterator[tuple[str, str, str]]:
    """(flag, default before, default after) of those whose parser has another default; limits have their own rows."""
    limits = {name.replace("_", "-") for name in (*LIMITS, "max_input_length")}
    for name, flag in new.items():
        if name in old and name not in limits and flag.default != old[name].default:
            was, now = old[name].default, flag.default
            if was is not None and now is not None:
                yield name, was, now


# ---- what lies around


def _image(before: Side, after: Side, around: Surroundings) -> Iterator[Change]:
    """The image, and the variables it sets."""
    variant = after.setting.facts.variant
    was = around.image_today or before.spec.tgi.image or releases.image_for(before.release, variant)
    now = after.spec.tgi.image or releases.image_for(after.release, variant)
    if was != now:
        yield Change("around", "image", was, now, "TGI's own" if releases.is_own(now) else "under a name of your own")
    old, new = (releases.image_env(side.release, variant) for side in (before, after))
    for name in dict.fromkeys((*old, *new)):
        if name in _OF_CACHE or old.get(name) == new.get(name):
            continue
        yield Change("around", f"{name} of the image", old.get(name, "not set"), new.get(name, "not set"),
                     "the image sets it; a value of your own stays")  # fmt: skip


_OF_CACHE = ("HF_HOME", "HUGGINGFACE_HUB_CACHE")
"""Variables whose row is the weight cache's."""


def _around(before: Side, after: Side, around: Surroundings) -> Iterator[Change]:
    """The rows of the table between the two releases; downwards they are undone, the newest first."""
    start, end = around.older or before.release.version, after.release.version
    down = end < start
    low, high = (end, start) if down else (start, end)
    nvidia = after.setting.facts.gpu.system == "cuda"
    crossed = [row for row in facts.around() if low < row.since <= high and _concerns(row.when, around, down, nvidia)]
    chains: dict[str, list[facts.Around]] = {}
    for row in reversed(crossed) if down else crossed:
        chains.setdefault(row.name, []).append(row)
    for first, *_, row in ((*rows, rows[-1]) for rows in chains.values()):
        was, now = (first.after, row.before) if down else (first.before, row.after)
        if was == now or (row.name == "weight cache" and _kept(before) == _kept(after)):
            continue
        since = first.since if down else row.since
        why = f"from {'.'.join(map(str, since))} on" + (", and here undone" if down else "")
        step = _DOWN.get(row.name, "") if down else row.step
        if row.name == "weight cache":
            step = _in_volume(step, around.volume)
            why += f"; the weights are {gib(after.setting.facts.model.stored_bytes)}"
        yield Change("around", row.name, was, now, why, step, row.source)
    for code, message, step in around.found:
        yield Change("around", code, "", message, f"`validate` finds it with TGI {after.name}", step, "docs/rules.md")


_DOWN = {
    "weight cache": "mv DATA/hub/models--* DATA/ in the volume, or set HUGGINGFACE_HUB_CACHE=/data/hub; "
    "else the weights are downloaded again",
    "Hub token": "name the variable HUGGING_FACE_HUB_TOKEN",
    "length of answers": "send max_new_tokens, or max_tokens",
}
"""What to do about a row when moving to a release before it."""


def _kept(side: Side) -> str:
    """The variable that says where the weights lie."""
    return releases.cache_env(side.release, side.setting.facts.variant)


def _concerns(when: str, around: Surroundings, down: bool, nvidia: bool) -> bool:
    noticed = {
        "bare": around.bare, "cache": around.cache, "host-network": around.host_network,
        "old-token": around.new_token if down else around.old_token, "nvidia": nvidia and not down, "down": down,
    }  # fmt: skip
    return noticed.get(when, True)


def _in_volume(step: str, volume: str) -> str:
    """A step about the weights' volume, with the commands for a folder of the host, or for a volume of Docker's."""
    said = re.match(r"(?P<commands>(?:mkdir|mv) .*?) in the volume", step)
    if said is None or not volume:
        return step.replace("DATA", "/data")
    if "/" in volume:
        return said["commands"].replace("DATA", shlex.quote(volume.rstrip("/"))) + step[said.end() :]
    commands = shlex.quote(said["commands"].replace("DATA", "/data"))
    return f"docker run --rm -v {shlex.quote(volume)}:/data busybox sh -c {commands}{step[said.end() :]}"


def unchanged(before: Side, after: Side, around: Surroundings) -> str:
    """What a move leaves as it is, in a sentence."""
    variant = after.setting.facts.variant
    old, new = (around.port or releases.image_env(side.release, variant).get("PORT") for side in (before, after))
    same = [f"port {old} in the container"] if old and old == new else []
    start, end = around.older or before.release.version, after.release.version
    if not any(row.name == "metrics" and end < row.since <= start for row in facts.around()):
        same.append("the names in /metrics")  # which no release took back
    same.append("GET /health, which answers once the warm-up is over")
    return f"{', '.join(same[:-1])} and {same[-1]}" if len(same) > 1 else same[0]
