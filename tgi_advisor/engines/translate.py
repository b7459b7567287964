"""A TGI deployment in another engine's words: every argument and variable with what becomes of it, and why.

Nothing is dropped without a sentence: each flag and variable TGI is told ends in at least one `Step`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tgi_advisor.engines.facts import Engine, Flag, Relation, Rule
from tgi_advisor.estimate import defaults
from tgi_advisor.estimate.setting import Setting
from tgi_advisor.facts import adapters, flags
from tgi_advisor.facts.clouds import SAGEMAKER
from tgi_advisor.limits import Limits
from tgi_advisor.safe import looks_secret, masked


class Step(NamedTuple):
    """What becomes of one thing TGI is told, or takes by default."""

    tgi: str
    """The flag with its value, or the variable; empty for a default of TGI's that is written out."""
    engine: str
    """The words in its place; empty where there are none."""
    relation: Relation
    """How the two stand to each other."""
    why: str
    """One or two sentences."""
    source: str = ""
    """Where it was read."""


class Told(NamedTuple):
    """What the engine is told, before its memory setting."""

    flags: Mapping[str, tuple[str, ...]]
    """Words of each flag by its name, none for a switch."""
    env: Mapping[str, str]
    """Environment."""
    secret_env: Mapping[str, str]
    """Environment filled from the caller's: name inside -> name of the caller's variable."""
    steps: tuple[Step, ...]
    """What became of everything."""
    refusals: tuple[str, ...]
    """What cannot be kept, so that the engine would not serve the same model."""

    def number(self, flag: str) -> int | None:
        """The number a flag is told; None where it is not given."""
        words = self.flags.get(flag)
        return int(words[0]) if words else None


class Work:
    """A translation that grows flag by flag."""

    def __init__(self, setting: Setting, engine: Engine, model: str) -> None:
        self.setting, self.engine, self.model = setting, engine, model
        self.flags: dict[str, tuple[str, ...]] = {}
        self.env: dict[str, str] = {}
        self.secret_env: dict[str, str] = {}
        self.steps: list[Step] = []
        self.refusals: list[str] = []

    def put(self, flag: str, *words: str) -> str:
        """Tell the engine a flag; gives it back as text."""
        self.flags[flag] = words
        return " ".join((flag, *words))

    def say(self, tgi: str, engine: str, rule: Rule, why: str = "", relation: Relation | None = None) -> None:
        """Note what became of something."""
        self.steps.append(Step(masked(tgi), masked(engine), relation or rule.relation, why or rule.why, rule.source))

    def refuse(self, tgi: str, rule: Rule, why: str = "") -> None:
        """Note something that cannot be kept."""
        self.say(tgi, "", rule, why, "none")
        self.refusals.append(f"{tgi}: {why or rule.why}")


def translate(setting: Setting, limits: Limits, engine: Engine, model: str, revision: str | None) -> Told:
    """What `engine` is told in place of TGI; `limits` are TGI's as it started (or would), `model` what it loads.

    The memory setting is left to `memory`, which needs what stands here first.
    """
    work = Work(setting, engine, model)
    given = _in_force(setting, limits, revision)
    for name, value in given.items():
        rule = engine.rules[name]
        _WAYS[rule.how](work, name, value, rule)
    for name, value in defaults.stated_flags(setting.spec).items():
        if name in engine.rules and name not in given:
            refused = Rule("", "nothing", "none", "TGI refuses this value, so nothing is carried over.", "")
            work.say(_shown(setting, name, value), "", refused)
    _variables(work)
    _defaults(work)
    _heads(work)
    return Told(work.flags, work.env, work.secret_env, tuple(work.steps), tuple(work.refusals))


def words(engine: Engine, model: str, told: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The command line after the image's name."""
    start = [word.format(model=model) for word in engine.command]
    return (*start, *(word for flag, given in told.items() for word in (flag, *given)))


def wrong(engine: Engine, given: Sequence[str]) -> list[str]:
    """What the engine's parser would not take of a command line: unknown flags, words outside their list."""
    rest = list(given)
    while rest and not rest[0].startswith("--"):  # the program, or the model in the first place
        rest.pop(0)
    found: list[str] = []
    while rest:
        flag, *rest = rest
        known = _known(engine, flag)
        if known is None:
            found.append(f"{flag} is no flag of {engine.title} {engine.version}")
            continue
        taken: list[str] = []
        while rest and not rest[0].startswith("--") and known.kind != "switch":
            if known.kind in ("value", "optional") and taken:
                break
            taken.append(rest.pop(0))
        found += _fault(flag, known, taken)
    return found


def _known(engine: Engine, flag: str) -> Flag | None:
    if flag in engine.flags:
        return engine.flags[flag]
    opposite = engine.flags.get("--" + flag.removeprefix("--no-")) if flag.startswith("--no-") else None
    return opposite._replace(kind="switch") if opposite and opposite.kind == "boolean" else None


def _fault(flag: str, known: Flag, taken: Sequence[str]) -> Iterable[str]:
    if known.kind == "value" and len(taken) != 1:
        yield f"{flag} takes one word, not {len(taken)}"
    if known.kind == "values" and not taken:
        yield f"{flag} takes words"
    if known.kind == "boolean" and taken:
        yield f"{flag} takes no word"
    for word in taken:
        if (allowed := known.choices or known.known) and word not in allowed:
            yield f"{flag} does not take {word!r}"


# -- what TGI is told


def _in_force(setting: Setting, limits: Limits, revision: str | None) -> dict[str, Any]:
    """Every flag of TGI in force with its value: what is said, and the limits as they come out."""
    given: dict[str, Any] = {"model-id": setting.facts.model.id}
    if revision is not None:
        given["revision"] = revision
    given |= setting.flags
    given["num-shard"] = setting.num_shard
    name = "max-input-tokens" if setting.facts.release.version >= (2, 0, 0) else "max-input-length"
    resolved = {
        name: limits.max_input_tokens,
        "max-total-tokens": limits.max_total_tokens,
        "max-batch-prefill-tokens": limits.max_batch_prefill_tokens,
        "dtype": setting.dtype,
        "quantize": setting.quantize,
    }
    given.pop("max-input-length" if name == "max-input-tokens" else "max-input-tokens", None)
    return given | {key: value for key, value in resolved.items() if value is not None}


def _shown(setting: Setting, name: str, value: object) -> str:
    """A flag as TGI is told it, without secrets."""
    row = flags.flags_of(setting.facts.release).get(name)
    if row is not None and row.secret:
        return f"--{name} (not shown)"
    if value is True:
        return f"--{name}"
    text = (
        ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower() if value is False else str(value)
    )
    return f"--{name} {text}"


# -- ways, by the name engine.yaml gives them


def _copy(work: Work, name: str, value: Any, rule: Rule) -> None:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    work.say(_shown(work.setting, name, value), work.put(rule.to, text), rule)


def _switch(work: Work, name: str, value: Any, rule: Rule) -> None:
    work.say(_shown(work.setting, name, value), work.put(rule.to) if value else "", rule)


def _nothing(work: Work, name: str, value: Any, rule: Rule) -> None:
    work.say(_shown(work.setting, name, value), "", rule)


def _done(work: Work, name: str, value: Any, rule: Rule) -> None:
    """What something else says: the memory setting, or a mount."""
    work.say(_shown(work.setting, name, value), "", rule, relation="automatic")


def _words(work: Work, name: str, value: Any, rule: Rule) -> None:
    shown, key = _shown(work.setting, name, value), str(value).lower()
    _word(work, shown, key, rule)


def _word(work: Work, shown: str, key: str, rule: Rule) -> None:
    """The engine's word for one of TGI's; an empty one makes a switch, null nothing."""
    if key not in rule.values:
        work.say(shown, "", rule, f"{work.engine.title} has no word for this value. {rule.why}", "none")
        return
    word = rule.values[key]
    if word is None:
        work.say(shown, "", rule)
    elif not rule.to.startswith("--"):
        work.env[rule.to] = word
        work.say(shown, f"{rule.to}={word}", rule)
    else:
        work.say(shown, work.put(rule.to, *([word] if word else [])), rule)


def _variable(work: Work, name: str, value: Any, rule: Rule) -> None:
    work.env[rule.to] = str(value)
    work.say(_shown(work.setting, name, value), f"{rule.to}={value}", rule)


def _model(work: Work, name: str, value: Any, rule: Rule) -> None:
    work.say(_shown(work.setting, name, value), f"{rule.to} {work.model}".strip(), rule)


def _dtype(work: Work, name: str, value: Any, rule: Rule) -> None:
    capability = work.setting.facts.gpu.at_least
    if value == "bfloat16" and work.setting.facts.gpu.system == "cuda" and capability < (8, 0):
        why = f"bfloat16 needs compute capability 8.0, and this GPU has {capability[0]}.{capability[1]}: say float16."
        work.refuse(_shown(work.setting, name, value), rule, why)
        return
    stated = "dtype" in work.setting.flags
    work.say(_shown(work.setting, name, value) if stated else "", work.put(rule.to, str(value)), rule)


def _quantize(work: Work, name: str, value: Any, rule: Rule) -> None:
    shown, found = _shown(work.setting, name, value), work.engine.quantize.get(str(value))
    if found is None or found.relation == "none":
        why = found.why if found else f"nothing is known of {value} in {work.engine.title}."
        work.refuse(shown, found or rule, why)
        return
    said = work.put(rule.to, found.to) if found.to else ""
    if found.to == "bitsandbytes":
        said += " " + work.put("--load-format", "bitsandbytes")
    work.say(shown if "quantize" in work.setting.flags else "", said, found)


def _lora(work: Work, name: str, value: Any, rule: Rule) -> None:
    entries = [adapters.parse(text) for text in str(value).split(",") if text.strip()]
    if not entries:
        work.say(_shown(work.setting, name, value), "", rule)
        return
    modules = [f"{one.id}={one.folder or one.id}" for one in entries]
    said = [work.put("--enable-lora"), work.put(rule.to, *modules)]
    notes = [rule.why]
    if work.engine.name == "vllm":
        known = [
            work.setting.facts.adapters[one.text].rank for one in entries if one.text in work.setting.facts.adapters
        ]
        most = max(known, default=adapters.ASSUMED.rank)
        ranks = sorted(int(word) for word in work.engine.flags["--max-lora-rank"].choices)
        rank = next((one for one in ranks if one >= most), None)
        if rank is None:
            work.refuse(
                _shown(work.setting, name, value), rule, f"an adapter has rank {most}, the most is {ranks[-1]}."
            )
            return
        said += [work.put("--max-lora-rank", str(rank)), work.put("--max-loras", str(len(entries)))]
        if len(known) < len(entries):
            notes.append(f"Not every adapter could be read: rank {most} is assumed.")
    else:
        said.append(work.put("--max-loras-per-batch", str(max(len(entries), 1))))
    pinned = [one.text for one in entries if one.revision]
    if pinned:
        notes.append(f"The revision of {', '.join(pinned)} cannot be said: download it and name its folder.")
    work.say(_shown(work.setting, name, value), " ".join(said), rule, " ".join(notes))


def _graphs(work: Work, name: str, value: Any, rule: Rule) -> None:
    sizes = sorted({int(one) for one in (value if isinstance(value, tuple) else (value,)) if int(one) > 0})
    shown = _shown(work.setting, name, value)
    if sizes:
        work.say(shown, work.put(rule.to, *map(str, sizes)), rule)
    elif work.engine.name == "vllm":
        work.say(shown, work.put("--enforce-eager"), rule)
    else:
        off = ("--disable-decode-cuda-graph", "--disable-prefill-cuda-graph")
        work.say(shown, " ".join(work.put(flag) for flag in off), rule)


def _rope(work: Work, name: str, value: Any, rule: Rule) -> None:
    """Both of TGI's flags make one value; the factor is 1 unless it is given (launcher/src/main.rs@v3.3.7)."""
    kind, factor = work.setting.flags.get("rope-scaling"), work.setting.flags.get("rope-factor", 1.0)
    shown = _shown(work.setting, name, value)
    if kind is None:
        work.say(shown, "", rule, "Without --rope-scaling TGI does nothing with it, and so nothing is written.", "none")
        return
    text = work.setting.facts.model.text()
    rope: dict[str, object] = {"rope_type": str(kind), "factor": float(str(factor))}
    if work.engine.name == "vllm":
        rope["rope_theta"] = text.get("rope_theta", 10000.0)
        said = work.put(rule.to, json.dumps({"rope_parameters": rope}))
    else:
        said = work.put(rule.to, json.dumps({"rope_scaling": rope}))
    if name == "rope-scaling":
        work.say(shown, said, rule)
    else:
        work.say(shown, "", rule, relation="automatic")


def _speculate(work: Work, name: str, value: Any, rule: Rule) -> None:
    shown = _shown(work.setting, name, value)
    if not int(value) or work.setting.facts.model.heads is not None:
        work.say(shown, "", rule)
    elif work.engine.name == "vllm":
        work.say(shown, f"{work.put(rule.to, 'ngram')} {work.put('--spec-tokens', str(value))}", rule)
    else:
        count = work.put("--speculative-num-draft-tokens", str(value))
        work.say(shown, f"{work.put(rule.to, 'NGRAM')} {count}", rule)


def _origins(work: Work, name: str, value: Any, rule: Rule) -> None:
    every = [str(one) for one in (value if isinstance(value, tuple) else (value,))]
    work.say(_shown(work.setting, name, value), work.put(rule.to, json.dumps(every)), rule)


def _usage(work: Work, name: str, value: Any, rule: Rule) -> None:
    shown, off = _shown(work.setting, name, value), value is True or value == "off"
    if off:
        work.env[rule.to] = "1"
    why = "" if off or value == "on" else f"There is no such middle in {work.engine.title}: reports stay on."
    work.say(shown, f"{rule.to}=1" if off else "", rule, why)


def _secret(work: Work, name: str, value: Any, rule: Rule) -> None:
    if rule.to:
        work.secret_env[rule.to] = rule.to
    work.say(_shown(work.setting, name, value), f"{rule.to} of your shell" if rule.to else "", rule)


def _template(work: Work, name: str, value: Any, rule: Rule) -> None:
    shown = _shown(work.setting, name, value)
    if str(value).endswith((".jinja", ".jinja2")):
        work.say(shown, work.put(rule.to, str(value)), rule)
    else:
        work.say(shown, "", rule, f"{rule.why} Then add {rule.to} FILE.")


def _shards(work: Work, name: str, value: Any, rule: Rule) -> None:
    stated = name in work.setting.flags
    work.say(_shown(work.setting, name, value) if stated else "", work.put(rule.to, str(value)), rule)


_WAYS: Mapping[str, Callable[[Work, str, Any, Rule], None]] = {
    "copy": _copy, "switch": _switch, "words": _words, "variable": _variable, "nothing": _nothing, "model": _model,
    "shards": _shards, "dtype": _dtype, "quantize": _quantize, "lora": _lora, "graphs": _graphs, "rope": _rope,
    "speculate": _speculate, "origins": _origins, "memory": _done, "usage": _usage, "secret": _secret,
    "folder": _done, "template": _template,
}  # fmt: skip


# -- variables, defaults, heads

_LEVEL = re.compile(r"[a-z]+")


def _variables(work: Work) -> None:
    """What becomes of the environment that is no flag's; what TGI does not read itself is kept as it is."""
    setting, engine = work.setting, work.engine
    of_flags = flags.env_index(setting.facts.release)
    for name, value in setting.spec.tgi.env.items():
        if name in of_flags or name in SAGEMAKER:
            flag = of_flags.get(name)
            if flag is not None and flag.name not in setting.flags and flag.name not in ("model-id", "revision"):
                why = "TGI refuses this value, so nothing is carried over."
                work.say(name, "", Rule("", "nothing", "none", why, ""))
            continue
        rule = engine.variables.get(name)
        if looks_secret(value):
            why = "It holds a secret, and secrets are not written into commands and manifests: export it in your shell."
            work.say(name, "", Rule("", "nothing", "none", why, ""))
        elif rule is None:
            kept = Rule(name, "variable", "same", "Not one of TGI's own: kept as it is.", "")
            work.env[name] = value
            work.say(f"{name}={value}", f"{name}={value}", kept)
        elif rule.how == "variable":
            work.env[rule.to] = value
            work.say(f"{name}={value}", f"{rule.to}={value}", rule)
        elif rule.how == "words":
            level = _LEVEL.match(value.lower()) if name == "LOG_LEVEL" else None
            _word(work, f"{name}={value}", level[0] if level else value.lower(), rule)
        else:
            own = rule.how == "memory"  # part of the setting that is computed
            shown = name if "TOKEN" in name else f"{name}={value}"
            work.say(shown, "", rule, relation="automatic" if own else None)


def _defaults(work: Work) -> None:
    """Defaults that differ are written out, where nothing said otherwise."""
    for flag, rule in work.engine.defaults.items():
        if flag in work.flags:
            continue
        served = work.setting.facts.model.id
        given = [word.format(model=served) for word in rule.to.split(" ")] if rule.to else []
        work.say("", work.put(flag, *given), rule)


def _heads(work: Work) -> None:
    """Heads that guess tokens ahead, which neither engine has; their base is served without them."""
    heads = work.setting.facts.model.heads
    if heads is not None:
        why = (
            f"{work.setting.facts.model.id} names speculation heads of {heads.base}, which {work.engine.title} cannot "
            f"load: set model.id to {heads.base}."
        )
        work.refuse("", Rule("", "nothing", "none", why, ""))
