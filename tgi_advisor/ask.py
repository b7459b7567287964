"""The questions before a deployment, for programs: the command line is made of the same calls.

>>> import tgi_advisor
>>> print(tgi_advisor.compare("configs/llama-3.1-8b-l4.yaml", gpu=["nvidia-l4", "nvidia-a10g"]))

Facts are gathered here, once for a model; `choose` thinks about them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeVar

from tgi_advisor import metrics, notebook, search, verdict
from tgi_advisor.choose import axes, rough
from tgi_advisor.choose import calibrate as calibrating
from tgi_advisor.choose import compare as comparing
from tgi_advisor.choose import fits as fitting
from tgi_advisor.choose import size as sizing
from tgi_advisor.choose.calibrate import Calibrated
from tgi_advisor.choose.compare import COUNTS, Checkpoint, Comparison, Purpose, Ways
from tgi_advisor.choose.fits import Everywhere, Ladder, Models, Places
from tgi_advisor.choose.load import Load, lengths
from tgi_advisor.choose.option import judge, meets
from tgi_advisor.choose.rough import Rough, Shape
from tgi_advisor.choose.running import Could, Inspection, Running, Silent
from tgi_advisor.choose.size import Sizing
from tgi_advisor.choose.sweep import Step, Sweep
from tgi_advisor.choose.words import told
from tgi_advisor.errors import AdvisorError, FactsError, Problem, SpecError, UsageError, did_you_mean, listed
from tgi_advisor.estimate import defaults, warmup
from tgi_advisor.estimate.underload import DECODING
from tgi_advisor.facts import answered
from tgi_advisor.facts import gpu as gpus
from tgi_advisor.facts import prices as pricing
from tgi_advisor.facts import release as releases
from tgi_advisor.facts.gpu import GpuFacts
from tgi_advisor.facts.known import Facts
from tgi_advisor.facts.model import ModelFacts
from tgi_advisor.facts.prices import Offer
from tgi_advisor.gather import checkpoint, server, snapshot
from tgi_advisor.gather.facts import gather, hardware
from tgi_advisor.gather.model import Source
from tgi_advisor.pictures import figure as pictures
from tgi_advisor.pictures.figure import Figure
from tgi_advisor.pictures.files import FileKind, render
from tgi_advisor.plan import Method
from tgi_advisor.safe import printable
from tgi_advisor.spec.reader import SpecLike, build, read_any, with_set
from tgi_advisor.spec.records import (
    KV_CACHE_DTYPE,
    QUANTIZE,
    GpuSpec,
    HardwareSpec,
    LimitsSpec,
    ModelSpec,
    Spec,
    TgiSpec,
    WorkloadSpec,
)

Known = TypeVar("Known")

GpuLike = Mapping[str, object]
"""A GPU that is stated by hand: `{"name": "mine", "memory": "24564MiB", "compute_capability": 8.9}`."""
OWN_CHECKPOINT = frozenset({"awq", "gptq", "exl2", "marlin", "compressed-tensors"})
"""Values of --quantize that need weights which are stored so; with the others TGI quantizes while it loads."""
STORED_AS = {"fbgemm_fp8": "fp8"}
"""What --quantize calls a method that config.json names otherwise."""
TOGETHER = 16
"""Servers that `inspect` asks at the same time."""


def compare(
    spec: SpecLike,
    *,
    gpu: str | GpuLike | Sequence[str | GpuLike] = (),
    count: Sequence[int] = (),
    quantize: Sequence[str] = (),
    release: Sequence[str] = (),
    kv_cache_dtype: Sequence[str] = (),
    purpose: Purpose | None = None,
    prices: str | None = None,
    speed: Sequence[str] = (),
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Every way to serve the model of a spec, side by side, within the bounds the spec sets.

    What is left out is the whole GPU table (or the GPU that the spec states by hand), 1, 2, 4 and 8 GPUs and what else
    up to 8 the model can be split over, the quantizations this checkpoint or a shipped one of the same model has, and
    the spec's release and dtype of the KV cache. A name may stand alone, and a GPU may be a mapping. `purpose` sorts.
    `prices` is a file in place of the shipped price list, `speed` names files that `calibrate` wrote. `progress` is
    told what is asked of the network, `done` how many options are judged, of how many. Raises the kinds of
    `tgi_advisor.errors`: all names that are not known at once.
    """
    asked, cards = read_any(spec), _names(gpu)
    facts_of = partial(gather, source=source, offline=offline, progress=progress, speed=speed)
    ways = _ways(asked, facts_of, cards, count, _names(quantize), _names(release), _names(kv_cache_dtype))
    offers = _offers(prices, asked, cards)
    return comparing.compare(asked, ways, purpose=purpose, offers=offers, progress=done, known=_answers)


def fits(
    *,
    gpu: str | GpuLike | None = None,
    model: str | None = None,
    count: int | None = None,
    release: str | None = None,
    prices: str | None = None,
    every: bool = False,
    sets: Sequence[str] = (),
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Models | Places | Ladder | Everywhere:
    """What runs where, with the newest release unless another is named.

    With `gpu` alone (a name, or `{name: mine, memory: 24564MiB, …}`), which shipped models run on so many of it; with
    `model` alone, which GPUs of the table and how many of them, one row for each GPU (or with `every` for each kind of
    weights there: checkpoints of the same model count); with both, how many users at which context; with neither, every
    shipped model on one of every GPU. `sets` are further fields of the spec, `path=value`, such as the context and the
    users that have to be held. Other arguments as `compare`.
    """
    if model is None and gpu is None and (count is not None or sets):
        what = "a count of no GPU was named" if count is not None else "neither a model nor a GPU was named"
        raise UsageError(what, "Name the GPU with --gpu, or a model with --model.")
    if prices is not None and (model is None or gpu is not None):
        raise UsageError("prices are for a model without a GPU", "Leave out --prices, or give --model alone.")
    named = release and releases.find(release).name
    tgi = {"release": named} if named else {}
    gpu = None if gpu is None else _as_set(gpu)
    by_hand = gpu is not None and gpu.startswith("{")
    card = {"gpu": ANY_CARD if by_hand else gpu or ANY_CARD, **({"count": count} if count else {})}
    asked = read_any({"model": {"id": model or ANY_MODEL}, "hardware": card, "tgi": tgi})
    if by_hand:
        asked = with_set(asked, [f"hardware.gpu={gpu}"])
    asked = with_set(asked, sets) if sets else asked
    if model is None:
        here = hardware(asked) if gpu else None
        known = releases.find(release) if release else releases.latest()
        gpu_there, gpus_there = here or (gpus.find(ANY_CARD), 1)
        models = filter(None, map(snapshot.find, snapshot.recorded_ids()))
        there = [Facts(one, gpu_there, gpus_there, known).elsewhere(gpu_there, gpus_there) for one in models]
        if here is not None:
            return fitting.models(asked, there, len(there), done)
        return fitting.everywhere(asked, there, _named((), ())[0], done, _answers)
    if gpu is not None:
        facts = gather(asked, source=source, offline=offline, progress=progress)
        _has_image(asked, facts)
        return fitting.ladder(asked, facts)
    counts = (count,) if count else ()
    found = compare(
        asked, count=counts, prices=prices, source=source, offline=offline, progress=progress, done=done
    )  # fmt: skip
    return fitting.places(found, every=every)


def sweep(
    spec: SpecLike,
    vary: Sequence[str] | Mapping[str, object],
    *,
    method: Method = "tgi",
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Sweep:
    """What changes when fields of a spec are turned: a step for every combination of their values.

    `vary` has the texts of `--vary`, or fields and their values: `{"max_total_tokens": [8192, 16384]}`. What the
    spec leaves open is searched at every step, as `advise` does. Arguments and errors as `compare`.
    """
    asked = read_any(spec)
    texts = [f"{path}={_listed(values)}" for path, values in vary.items()] if isinstance(vary, Mapping) else vary
    turned = axes.read(texts)
    _all_known(turned, asked)
    count = axes.size(turned)
    facts_of = _gathered_once(partial(gather, source=source, offline=offline, progress=progress))
    steps: list[Step] = []
    wrong: list[SpecError] = []
    seen: dict[str, set[str]] = {"model": set(), "where": set(), "release": set()}
    for pairs in axes.steps(turned):
        values = tuple(value for _, value in pairs)
        try:
            one = with_set(asked, [f"{path}={value}" for path, value in (*pairs, *_retagged(asked, pairs))])
            facts = facts_of(one, tuple(pair for pair in pairs if not pair[0].startswith(NO_FACTS)))
        except SpecError as error:
            wrong.append(error)
            steps.append(Step(values, None, told(error)))
        else:
            steps.append(_step(one, facts, method, values))
            seen["model"].add(facts.model.id)
            seen["where"].add(f"{facts.gpu_count} x {facts.gpu.name}")
            seen["release"].add(f"TGI {facts.release}" if method == "tgi" else "")
        if done is not None:
            done(len(steps), count)
    if len(wrong) == count:
        raise wrong[0]
    same = [next(iter(words)) for words in seen.values() if len(words) == 1 and "" not in words]
    return Sweep(", ".join(same), method, turned, tuple(steps))


def _retagged(asked: Spec, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The image of another release, whose tag changes with it."""
    named = dict(pairs)
    release = named.get("tgi.release", "null")
    if asked.tgi.image is None or "tgi.image" in named or release in ("null", "~"):
        return []
    return [("tgi.image", releases.retagged(asked.tgi.image, release))]


def _all_known(turned: Sequence[axes.Axis], asked: Spec) -> None:
    """FactsError with every GPU and release of a sweep that is not known."""
    of = {axis.path: axis.values for axis in turned}
    cards = () if asked.hardware.gpu.stated else (*of.get("hardware.gpu", ()), *of.get("hardware.gpu.name", ()))
    named = [name for name in cards if name != "auto" and not name.startswith("{")]
    _named(named, [name for name in of.get("tgi.release", ()) if name not in ("null", "~")])


Drawn = Literal["auto", "memory", "budget", "concurrency"]


def drawing(found: Sweep, kind: Drawn = "auto") -> Figure:
    """What there is to draw of a sweep: the parts of the memory, the budget, or the requests at once."""
    chosen = next(one for one in pictures.KINDS if one == (found.chart if kind == "auto" else kind))
    names = [axis.name for axis in found.axes]
    title = found.title if found.method == "tgi" else f"{found.title}, by the formula {found.method}"
    return pictures.figure(found.table(), names, chosen, title, pooled=found.pooled)


def draw(found: Sweep, kind: Drawn = "auto", file: FileKind = "svg") -> bytes:
    """A picture of a sweep as SVG or PNG, for a file or a notebook (`IPython.display.SVG`); needs the extra `plots`.

    The same sweep gives the same bytes. UsageError where the extra is not installed, or nothing can be drawn.
    """
    return render(drawing(found, kind), file)


NO_FACTS = ("limits.", "workload.")
"""Fields of a spec that say nothing of model, GPU and release: what is gathered is the same whatever they are."""


def _gathered_once(gather: Callable[..., Facts]) -> Callable[[Spec, tuple[tuple[str, str], ...]], Facts]:
    """The facts of a spec, gathered once for every setting of what they depend on, and those of a model once."""
    known: dict[tuple[tuple[str, str], ...], Facts] = {}
    models: dict[tuple[str, str], ModelFacts] = {}

    def facts_of(spec: Spec, turned: tuple[tuple[str, str], ...]) -> Facts:
        if turned not in known:
            named = spec.model.id, spec.model.revision
            known[turned] = gather(spec, model=models.get(named))
            models[named] = known[turned].model
        return known[turned]

    return facts_of


def _listed(values: object) -> str:
    """The values of one axis as `--vary` takes them."""
    if isinstance(values, str):
        return values
    several = values if isinstance(values, Iterable) and not isinstance(values, Mapping) else (values,)
    return ",".join(map(_as_set, several))


def _names(given: str | GpuLike | Sequence[str | GpuLike]) -> tuple[str, ...]:
    """Names, of which one may stand alone, and a GPU may be a mapping of what is stated of it."""
    return tuple(map(_as_set, (given,) if isinstance(given, str | Mapping) else given))


def _as_set(value: object) -> str:
    """One value as `--set` takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_as_set(one)}' for name, one in value.items())}}}"
    return str(value)


def _step(spec: Spec, facts: Facts, method: Method, values: tuple[str, ...]) -> Step:
    """One step judged; what cannot be asked is a step that says why."""
    figures: Mapping[str, object] = {}
    try:
        if method == "tgi":
            _has_image(spec, facts)
            found = search.best(spec, facts).found
        else:
            found, seen = notebook.advise(defaults.resolve(spec, facts), method)
            figures = seen.printed()
    except AdvisorError as error:
        return Step(values, None, told(error))
    prediction = search.outcome(found, spec.workload.concurrency)
    why = found.search.bound_by if prediction.outcome == "starts" else verdict.why(prediction)
    return Step(values, prediction, why or "", figures, facts.gpu_count)


def _has_image(spec: Spec, facts: Facts) -> None:
    """FactsError where the release has no image for the GPU, and the spec names none of its own."""
    if spec.tgi.image is None:
        releases.image_for(facts.release, facts.variant)


ANY_MODEL, ANY_CARD = "gpt2", "nvidia-l4"
"""What stands in a spec for the model and the GPU where every option has its own."""


def size(
    spec: SpecLike,
    *,
    users: int,
    prompts: str | int,
    answers: str | int,
    rps: float | None = None,
    latency: float | None = None,
    gpu: str | GpuLike | Sequence[str | GpuLike] = (),
    count: Sequence[int] = (),
    quantize: Sequence[str] = (),
    release: Sequence[str] = (),
    prices: str | None = None,
    speed: Sequence[str] = (),
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Sizing:
    """How many GPUs a load needs: `users` at once with prompts and answers of so many tokens (`1500,p99=6000`).

    The other arguments and errors are those of `compare`.
    """
    asked, cards = read_any(spec), _names(gpu)
    load = _load(users, prompts, answers, rps, latency)
    facts_of = partial(gather, source=source, offline=offline, progress=progress, speed=speed)
    ways = _ways(asked, facts_of, cards, count, _names(quantize), _names(release))
    return sizing.size(asked, ways, load, offers=_offers(prices, asked, cards), progress=done)


def _load(users: int, prompts: str | int, answers: str | int, rps: float | None, latency: float | None) -> Load:
    """The load; UsageError for what none is."""
    if not isinstance(users, int) or users < 1:
        raise UsageError(f"{users} is no number of users", "Write a whole number from 1 on.")
    for name, amount in (("rps", rps), ("latency", latency)):
        if amount is not None and not (amount > 0 and math.isfinite(amount)):
            raise UsageError(
                f"{name} is {amount:g}, and has to be above 0 and finite", f"Leave {name} out, or raise it."
            )
    return Load(users, lengths(str(prompts), "input"), lengths(str(answers), "output"), rps, latency)


def rule_of_thumb(
    shape: Shape, *, users: int, prompts: str | int, answers: str | int, gpu: Sequence[str] = (),
    count: Sequence[int] = (),
) -> Rough:  # fmt: skip
    """What a model nobody has a checkpoint of takes by rules of thumb, and how many GPUs hold it.

    Left out, `gpu` are those that clouds rent out at a known price, and `count` are 1, 2, 4 and 8.
    """
    tokens = _load(users, prompts, answers, None, None).longest
    rented = {offer.gpu for offer in pricing.known()}
    cards = [card for card in _named(gpu, ())[0] if gpu or card.name in rented]
    cards.sort(key=lambda card: (card.memory_bytes, card.name))
    return rough.estimate(shape, users, tokens, cards, tuple(dict.fromkeys(count)) or COUNTS)


def calibrate(
    url: str,
    spec: SpecLike | None = None,
    *,
    model: str | None = None,
    gpu: str | None = None,
    count: int | None = None,
    release: str | None = None,
    sets: Sequence[str] = (),
    timeout: float = 10.0,
    source: Source = "auto",
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Calibrated:
    """What a running TGI server reaches of its card's figures, from its `/metrics`.

    Model and release are the server's own word unless they are given; the GPU it does not say. A token for the server
    is taken from the environment variable TGI_API_KEY, and everything is asked within `timeout` seconds.
    """
    if spec is None and gpu is None:
        raise UsageError(
            "which GPU the server runs on was not said, and TGI does not tell",
            "Name it with --gpu (`tgi-advisor gpus` lists them), and --count; or give the server's SPEC.",
        )
    if gpu is not None:
        _named([gpu], [])
    if progress is not None:
        progress(f"asking {url}")
    found = server.read(url, timeout)
    seen = metrics.traffic(found.metrics, f"{found.url}/metrics")
    base, pairs = _told_of(found, spec, model, gpu, count, release)
    asked = build(pairs, "command line", base, sets)
    if model is None and found.model.count("/") == 1 and not found.model.startswith(("/", ".")):
        _same_model(asked.model.id, found)
    facts = gather(asked, source=source, offline=offline, progress=progress)
    here = warmup.base(defaults.resolve(asked, facts))
    return calibrating.calibrate(here, seen, found.url, date.today().isoformat())


def inspect(
    urls: Sequence[str],
    spec: SpecLike | None = None,
    *,
    model: str | None = None,
    gpu: str | None = None,
    count: int | None = None,
    release: str | None = None,
    sets: Sequence[str] = (),
    timeout: float = 10.0,
    source: Source = "auto",
    offline: bool = False,
    before: Inspection | None = None,
    progress: Callable[[str], None] | None = None,
) -> Inspection:
    """What running TGI servers say of themselves and, where their GPU is named, what they could have and should change.

    Nothing is asked of a server but `/info` and `/metrics`, within `timeout` seconds, and `/health`, within as many. A
    token is taken from the environment variable TGI_API_KEY. With `before`, the answer of the same call a moment ago,
    only these are asked again. A server that does not answer is a row that says why; where there is no other it raises
    FactsError.
    """
    if not urls:
        raise UsageError("no server was named", "Give the address of one or more, such as http://localhost:8080.")
    if gpu is not None:
        _named([gpu], [])
    if progress is not None and before is None:
        progress(f"asking {listed(urls)}")

    def one(url: str, earlier: Running | Silent | None) -> Running | Silent:
        try:
            seen = _reading(url, timeout)
        except FactsError as error:
            if len(urls) == 1:
                raise
            return Silent(url, told(error))
        if isinstance(earlier, Running):
            return replace(seen[1], spec=earlier.spec, could=earlier.could).after(earlier)
        return seen[1] if gpu is None and spec is None else possible(seen)

    def possible(seen: tuple[server.Server, Running]) -> Running:
        asked = _as_spec(seen[0], spec, model, gpu, count, release, sets)
        facts = gather(asked, source=source, offline=offline)
        here = warmup.base(defaults.resolve(asked, facts))
        prediction = verdict.predict(here, defaults.given_limits(here.setting))
        best = judge(replace(asked, limits=LimitsSpec()), facts)
        hardware = f"{facts.gpu_count} x {facts.gpu.name}"
        return replace(seen[1], spec=asked, could=Could(hardware, prediction, best))

    with ThreadPoolExecutor(min(len(urls), TOGETHER)) as asking:
        found = asking.map(one, urls, before.servers if before else (None,) * len(urls))
        return Inspection(tuple(found))


def _reading(url: str, timeout: float) -> tuple[server.Server, Running]:
    """What a server says now."""
    found = server.believable(server.read(url, timeout))
    health = server.health(found.url, timeout)
    load = metrics.load(found.metrics, f"{found.url}/metrics")
    return found, Running(
        found.url, printable(found.model), printable(found.commit), printable(found.version), health, found.limits,
        found.numbers.get("max_concurrent_requests"), load, time.monotonic(),
    )  # fmt: skip


def _as_spec(
    found: server.Server, spec: SpecLike | None, model: str | None, gpu: str | None, count: int | None,
    release: str | None, sets: Sequence[str],
) -> Spec:  # fmt: skip
    """A server as a spec: what was said of it, and its own word for the rest."""
    if spec is None and model is None and found.model.startswith(("/", ".")):
        raise FactsError(
            f"{found.url} serves {found.model}, a folder of its container", "Say which model that is with --model."
        )
    base, pairs = _told_of(found, spec, model, gpu, count, release)
    if spec is None and found.commit and model is None:
        pairs.append(("model.revision", found.commit))
    if "bfloat16" in found.dtype and base.model.dtype is None:
        pairs.append(("model.dtype", "bfloat16"))
    limits = found.limits
    pairs += [
        (f"limits.{name}", str(value)) for name, value in limits._replace(max_batch_total_tokens=None).given().items()
    ]
    for name, usual in (("max_concurrent_requests", DECODING), ("max_batch_size", None)):
        flag = name.replace("_", "-")
        if (value := found.numbers.get(name)) not in (None, usual) and flag not in base.tgi.flags:
            pairs.append((f"tgi.flags.{flag}", str(value)))
    return build(pairs, "command line", base, sets)


def _told_of(
    found: server.Server, spec: SpecLike | None, model: str | None, gpu: str | None, count: int | None,
    release: str | None,
) -> tuple[Spec, list[tuple[str, str]]]:  # fmt: skip
    """A server's spec, and what is laid over it of what the caller says; model and release are else its own word."""
    base = read_any(spec if spec is not None else {"model": {"id": model or found.model}, "hardware": {"gpu": gpu}})
    given = (("model.id", model), ("hardware.gpu", gpu), ("hardware.count", count and str(count)))
    pairs = [(path, text) for path, text in given if text]
    if release is not None or base.tgi.image is None:
        pairs.append(("tgi.release", _release_of(found, release)))
    return base, pairs


def _release_of(found: server.Server, release: str | None) -> str:
    """The release of a server: what is said of it, else its own word without the mark of a development version."""
    if release is not None:
        return release
    try:
        return releases.find(found.version.partition("-")[0]).name
    except FactsError as error:
        raise FactsError(
            f"{found.url} says that it is TGI {found.version!r}: {error.message}", "Name a release near it: --release."
        ) from None


def _same_model(model: str, found: server.Server) -> None:
    """FactsError where a server holds another model than the spec says."""
    if model.lower() != found.model.lower():
        raise FactsError(f"{found.url} serves {found.model}, not {model}", "Give that server's spec, or --model.")


def _ways(
    spec: Spec, facts_of: Callable[[Spec], Facts], gpu: Sequence[str], count: Sequence[int], quantize: Sequence[str],
    release: Sequence[str], kv_cache_dtype: Sequence[str] = (),
) -> Ways:  # fmt: skip
    """What is varied; names are looked up before anything is gathered."""
    methods = _methods(quantize)
    dtypes = _dtypes(kv_cache_dtype)
    if wrong := [one for one in count if not isinstance(one, int) or one < 1]:
        raise UsageError(f"{wrong[0]!r} is no number of GPUs", "Write a whole number from 1 on.")
    by_hand = _by_hand(spec, gpu)
    cards, named = _named(gpu if gpu or not spec.hardware.gpu.stated else [spec.hardware.gpu.name], release, by_hand)
    stated = {gpus.stated(one).name: one for one in by_hand.values()}
    cards = tuple(_in_machine(card, spec) for card in cards)
    found = checkpoints(spec, facts_of(spec), methods, named)
    counts = tuple(dict.fromkeys(count)) or comparing.counts(spec, found)
    return Ways(found, cards, counts, named, dtypes, stated)


def _in_machine(card: GpuFacts, spec: Spec) -> GpuFacts:
    """A card with the driver and the link of the spec's machine, which are NVIDIA's."""
    return gpus.on_machine(card, spec.hardware.driver, spec.hardware.link) if card.system == "cuda" else card


def _by_hand(spec: Spec, gpu: Sequence[str]) -> dict[str, GpuSpec]:
    """What is stated by hand of GPUs, by what they are called: the spec's, and each `{name: mine, memory: …}`."""
    own = spec.hardware.gpu
    found = {own.name: own} if own.stated else {}
    for text in gpu:
        if text.startswith("{"):
            one = with_set(spec, [f"hardware.gpu={text}"]).hardware.gpu
            found[text] = found[one.name] = one
    return found


def checkpoints(
    spec: Spec, facts: Facts, methods: Sequence[str] = (), named: Sequence[str | None] = (None,)
) -> tuple[Checkpoint, ...]:
    """The weights to compare: of the model itself and of the shipped checkpoints that were made of it or it of them.

    With `methods` (values of --quantize, or `none`) those that hold their weights so, and those that TGI can make so
    while it loads; where there are none, the model itself, which TGI then refuses in its own words. Where one of the
    `named` releases (None is the spec's) does not read how a checkpoint is stored, TGI is told.
    """
    known = [facts.release if name is None else releases.find(name) for name in named]

    def stored_so(one: Facts) -> Checkpoint:
        method = _stored(one)
        unread = any(defaults.stored_quantize(one.model, release) is None for release in known)
        return Checkpoint(one, method if unread and method in QUANTIZE else None)

    there = [facts, *(facts._replace(model=model) for model in snapshot.made_of(facts.model))]
    if not methods:
        own = stored_so(facts) if spec.model.quantize is None else Checkpoint(facts, spec.model.quantize)
        return (own, *map(stored_so, there[1:]))
    found: list[Checkpoint] = []
    for method in methods:
        stored = [stored_so(one) for one in there if (_stored(one) or "none") == method]
        made = [
            Checkpoint(one, method)
            for one in there
            if method != "none" and method not in OWN_CHECKPOINT and _stored(one) is None
        ]
        found += stored + made or [Checkpoint(facts, None if method == "none" else method)]
    return tuple(found)


def _answers(asked: Spec, facts: Facts) -> answered.Answers:
    """What is kept of a spec on every GPU; nothing where it asks for anything that a search heeds, or of a model or
    release that is not the one the answers are of.
    """
    model, hardware, tgi = asked.model, asked.hardware, asked.tgi
    count, image = hardware.count or 1, asked.tgi.image
    release = releases.find(tgi.release) if tgi.release else facts.release
    plain = (
        replace(model, id="", revision="") == ModelSpec(revision="")
        and replace(hardware, gpu=GpuSpec(), count=None) == HardwareSpec()
        and replace(tgi, release=None, image=None, num_shard=None) == TgiSpec()
        and (asked.limits.without_floors, asked.workload) == (LimitsSpec(), WorkloadSpec())
    )
    shards, own = (1, None) if count == 1 else (count,), image is None or releases.is_own(image)
    if not plain or not own or hardware.gpu.stated or tgi.num_shard not in shards:
        return {}
    if release != releases.latest() or facts.adapters or snapshot.find(facts.model.id) != facts.model:
        return {}
    found = answered.find(facts.model.id, count)
    if asked.limits == LimitsSpec():
        return found
    return {gpu: answer for gpu, answer in found.items() if meets(asked.limits, answer)}


def _stored(facts: Facts) -> str | None:
    """How a checkpoint holds its weights, as --quantize would call it; None for 16 bits."""
    method = checkpoint.quantization(facts.model.config)
    return STORED_AS.get(method, method) if method else None


def _named(
    gpu: Sequence[str], release: Sequence[str], by_hand: Mapping[str, GpuSpec] = MappingProxyType({})
) -> tuple[tuple[GpuFacts, ...], tuple[str | None, ...]]:
    """The GPUs (the whole table without names) and the releases (None without any); FactsError lists unknown names.

    What is stated `by_hand` of a GPU is above what the table has of it.
    """
    problems: list[Problem] = []

    def card_of(name: str) -> GpuFacts:
        return gpus.stated(by_hand[name]) if name in by_hand else _card(name)

    cards = [card for card in (_known(card_of, name, problems) for name in gpu) if card is not None]
    found = [one.name for one in (_known(releases.find, name, problems) for name in release) if one is not None]
    if problems:
        message = "a name is not known" if len(problems) == 1 else f"{len(problems)} names are not known"
        raise FactsError(message, problems=problems)
    if not gpu:
        cards = [row.facts for row in gpus.all_gpus() if row.facts is not None]
    return tuple({card.name: card for card in cards}.values()), tuple(dict.fromkeys(found)) or (None,)


def _known(find: Callable[[str], Known], name: str, problems: list[Problem]) -> Known | None:
    """What a name means; what is wrong with it goes to the problems."""
    try:
        return find(name)
    except FactsError as error:
        problems.append(Problem(error.message, error.hint))
        return None


def _card(name: str) -> GpuFacts:
    """The GPU of a name or of a cloud instance; `auto` is this machine's."""
    if name == "auto":
        return hardware(read_any({"model": {"id": ANY_MODEL}, "hardware": {"gpu": name}}))[0]
    instance = gpus.instance(name)
    return gpus.on_machine(instance[0] if instance else gpus.find(name), None, None)


def _methods(names: Sequence[str]) -> tuple[str, ...]:
    """Values of --quantize to compare; UsageError for one that no release has had."""
    return _values(names, ("none", *QUANTIZE), "--quantize")


def _dtypes(names: Sequence[str]) -> tuple[str | None, ...]:
    """Values of --kv-cache-dtype to compare; without any None, for the spec's."""
    return _values(names, ("auto", *KV_CACHE_DTYPE), "--kv-cache-dtype") or (None,)


def _values(names: Sequence[str], known: Sequence[str], option: str) -> tuple[str, ...]:
    """The names, each once; UsageError for one that is no value of the option."""
    wrong = [name for name in names if name not in known]
    if wrong:
        near = did_you_mean(wrong[0], known) if len(wrong) == 1 else ""
        said = f"{wrong[0]!r} is no value" if len(wrong) == 1 else f"{listed(wrong, 'and')} are no values"
        raise UsageError(f"{said} of {option}", near or f"Known are {', '.join(known)}.")
    return tuple(dict.fromkeys(names))


def _offers(path: str | None, spec: Spec, gpu: Sequence[str] = ()) -> tuple[Offer, ...]:
    """The shipped prices, or those of a file; of GPUs that are named by their instances alone, the prices of these."""
    if path is None:
        offers = pricing.known()
    else:
        from tgi_advisor.gather import prices

        offers = prices.offers(path, date.today(), spec.hardware.gpu.name if spec.hardware.gpu.stated else None)
    named: dict[str, set[str]] = {}
    for name in gpu:
        found, kind = gpus.instance(name), gpus.instance_type(name)
        if found is not None and kind is not None:
            named.setdefault(found[0].name, set()).add(kind)
    if not named:
        return offers
    by_hand = _by_hand(spec, gpu)
    anywhere = {_card(name).name for name in gpu if gpus.instance(name) is None and name not in by_hand}
    return pricing.of_named(offers, {card: kinds for card, kinds in named.items() if card not in anywhere})
